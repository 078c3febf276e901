//! What a call is told, and what it wants done.

use bytes::Bytes;
use trunkline_edge_api::{
    CloseCause, Digit, LegAudio, LegConfig, LegFunctions, LegIndex, LegReport, MediaTimeoutKind,
    Tone,
};
use trunkline_sip::InfoDigit;
use trunkline_sip::agent::{EndedBy, InviteRequest};
use trunkline_sip::offer_answer::Conversion;

use super::Pin;
use super::{Cause, ForkId, Round, Withdrawal};
use crate::cdr::CallRecord;
use crate::edge::{LocalPair, MediaRefused};
use crate::party::Dtmf;
use crate::pin::{PinHash, PinVerdict};

/// What a side hears from us while the other side is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sound {
    /// What its tenant plays to who is held.
    HoldMusic,
    /// That somewhere a phone rings.
    Ringback,
}

/// What happened to a call.
#[derive(Debug)]
pub enum Input {
    /// Both legs of the media session are bound.
    MediaOpened(LocalPair),
    /// The edge has taken every [`Output::ConfigureMedia`] so far.
    MediaConfigured,
    /// The media session could not be opened, or was lost with the edge. No
    /// [`Input::MediaClosed`] follows.
    MediaRefused {
        /// Why.
        reason: MediaRefused,
    },
    /// The media session has ended.
    MediaClosed {
        /// `None`: the edge did not say.
        cause: Option<CloseCause>,
        /// Indexed by [`LegIndex`]; `None`: the edge did not say.
        legs: Option<[LegReport; 2]>,
    },
    /// A leg's peer was silent for too long.
    MediaTimedOut {
        /// Whose media is missed.
        leg: LegIndex,
        /// Which silence.
        kind: MediaTimeoutKind,
    },
    /// Who is to be rung next, after [`Output::Locate`].
    Round(Round),
    /// Nobody is left to be rung.
    NobodyLeft,
    /// A provisional response from a callee, with its SDP if it had any.
    CalleeProgress {
        /// Whose.
        fork: ForkId,
        /// 101 … 199.
        status: u16,
        /// An early answer (RFC 3960).
        sdp: Option<Bytes>,
    },
    /// A 2xx from a callee.
    CalleeAnswered {
        /// Whose.
        fork: ForkId,
        /// The answer; absent when an earlier 18x carried it.
        sdp: Option<Bytes>,
    },
    /// A final failure from a callee, or no way to reach it.
    CalleeRejected {
        /// Whose.
        fork: ForkId,
        /// 300 … 699; 408 for silence, 503 for a transport that failed.
        status: u16,
    },
    /// A leg's peer pressed a key, as its media tells.
    DigitHeard {
        /// Whose peer.
        leg: LegIndex,
        /// Which key.
        digit: Digit,
        /// For how long, milliseconds.
        duration_millis: u32,
    },
    /// A leg's peer pressed a key, as its INFO request tells.
    DigitSaid {
        /// Whose peer.
        leg: LegIndex,
        /// Which key, for how long.
        digit: InfoDigit,
    },
    /// What came of [`Output::CheckPin`].
    PinChecked(PinVerdict),
    /// The leg could not become part of its conference.
    NotJoined,
    /// A leg offers new SDP in mid-call (re-INVITE or UPDATE).
    Offer {
        /// Who offers.
        leg: LegIndex,
        /// The offer.
        sdp: Bytes,
    },
    /// A leg withdrew the offer it had made.
    OfferCancelled {
        /// Who.
        leg: LegIndex,
    },
    /// The far leg answered our re-INVITE.
    OfferAnswered {
        /// Who answered.
        leg: LegIndex,
        /// The answer, or the status that refused it.
        result: Result<Bytes, u16>,
    },
    /// A SIP leg is over.
    LegEnded {
        /// Which.
        leg: LegIndex,
        /// How.
        by: EndedBy,
    },
    /// The time given by [`Call::poll_timeout`](super::Call::poll_timeout) has come.
    Timeout,
    /// An operator or a stopping daemon ends the call.
    Shutdown,
}

/// What the machine wants done. Orders to a leg that is already gone do nothing.
#[derive(Debug)]
pub enum Output {
    /// Bind both legs.
    OpenMedia,
    /// Tell the edge about a leg's peer; [`Input::MediaConfigured`] follows.
    ConfigureMedia(LegIndex, LegConfig),
    /// Tell the edge what both legs' peers send and want, as far as it can be decoded.
    /// [`Input::MediaConfigured`] waits for that where the sides hear each other through it alone.
    SetAudio {
        /// By [`LegIndex`].
        audio: Box<[Option<LegAudio>; 2]>,
        /// How much of it the edge has to convert.
        conversion: Conversion,
    },
    /// Treat a leg's digits so. Other switches stay as they are.
    SetDigits(LegIndex, LegFunctions),
    /// Play something to a leg's peer, until told otherwise.
    StartSound(LegIndex, Sound),
    /// Play no more to a leg's peer.
    StopSound(LegIndex),
    /// Send a digit in the media of a leg, as its peer takes them.
    SendDigit(LegIndex, Digit, Dtmf),
    /// Send a digit as an INFO request.
    SayDigit(LegIndex, InfoDigit),
    /// Play a tone to the caller, once.
    PlayTone(Tone),
    /// Find out whether the caller has entered the PIN; [`Input::PinChecked`] follows.
    CheckPin(Pin, PinHash),
    /// Make the caller part of its conference.
    Join,
    /// End the media session; [`Input::MediaClosed`] is owed in return, at once when there is none.
    CloseMedia,
    /// Send this INVITE.
    Invite(ForkId, Box<InviteRequest>),
    /// Take an INVITE back: CANCEL, or BYE when its answer has just come.
    Withdraw(ForkId, Withdrawal),
    /// Whoever answered this INVITE has this leg from now on.
    Connect(ForkId, LegIndex),
    /// Say who is to be rung next: the round before ended so. [`Input::Round`] or
    /// [`Input::NobodyLeft`] follows.
    Locate(Cause),
    /// Pass a provisional response to the caller.
    Progress {
        /// 101 … 199.
        status: u16,
        /// An early answer.
        sdp: Option<Bytes>,
    },
    /// Send the caller a 200 with this answer.
    AnswerCaller(Bytes),
    /// Send the caller a final failure.
    RejectCaller {
        /// 400 … 699.
        status: u16,
        /// What the reason phrase says; the field's default when `None`.
        reason: Option<&'static str>,
    },
    /// Offer new SDP to a leg.
    Reinvite(LegIndex, Bytes),
    /// Answer the offer a leg made.
    AcceptOffer(LegIndex, Bytes),
    /// Refuse the offer a leg made.
    RejectOffer(LegIndex, u16),
    /// End a leg in whatever way its state asks for: BYE, CANCEL or nothing.
    Hangup(LegIndex),
    /// The call is over; this is its record. Always the last output.
    Record(Box<CallRecord>),
}
