//! The call machine: one inbound call from INVITE to call record, as a pure decider.
//!
//! It knows two SIP legs (A the caller, B the called member), one media session, and nothing of
//! sockets, messages or clocks. A call that goes well:
//!
//! ```text
//!  caller (A)            call machine                 edge            member (B)
//!  INVITE, offer  ──────▶ OpenMedia ─────────────────▶ bind A, B
//!                         MediaOpened ◀──────────────
//!                         InviteMember, offer ───────────────────────▶ INVITE
//!  180 ◀───────────────── Progress  ◀───────────────────────────────── 180
//!                         MemberAnswered ◀──────────────────────────── 200, answer
//!                         ConfigureMedia A, B ───────▶
//!  200, answer ◀───────── AnswerCaller
//!  BYE ─────────────────▶ LegEnded
//!                         Hangup B ──────────────────────────────────▶ BYE
//!                         CloseMedia ────────────────▶
//!                         MediaClosed ◀──────────────  last figures
//!                         Record
//! ```
//!
//! Deliberately left out until their time: forking to several members, forwarding, transfer, late
//! offers (RFC 3264 §5: an INVITE without SDP is answered 488).

use std::collections::VecDeque;
use std::net::IpAddr;

use bytes::Bytes;
use trunkline_edge_api::{
    CloseCause, Digit, LegAudio, LegConfig, LegFunctions, LegIndex, LegReport, MediaTimeoutKind,
    MediaTimeouts, MonoTime, Tone,
};
use trunkline_sip::InfoDigit;
use trunkline_sip::agent::EndedBy;
use trunkline_sip::offer_answer::{
    Conversion, LocalDescription, MediaNegotiation, OfferAnswerError,
};

use crate::cdr::{CallRecord, CallResult, EndedBySide};
use crate::edge::{LocalPair, MediaRefused};
use crate::party::Dtmf;

mod conference;
mod machine;

pub use conference::{ConferenceCall, ConferenceSetup, Pin};
pub use machine::Machine;

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
    /// A provisional response from the member's phone, with its SDP if it had any.
    MemberProgress {
        /// 101 … 199.
        status: u16,
        /// An early answer (RFC 3960).
        sdp: Option<Bytes>,
    },
    /// A 2xx from the member's phone.
    MemberAnswered {
        /// The answer; absent when an earlier 18x carried it.
        sdp: Option<Bytes>,
    },
    /// A final failure from the member's phone, or no way to reach it.
    MemberRejected {
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
    /// The time given by [`Call::poll_timeout`] has come.
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
    /// Play hold music to a leg's peer, until told otherwise.
    StartMusic(LegIndex),
    /// No more hold music for a leg's peer.
    StopMusic(LegIndex),
    /// Send a digit in the media of a leg, as its peer takes them.
    SendDigit(LegIndex, Digit, Dtmf),
    /// Send a digit as an INFO request.
    SayDigit(LegIndex, InfoDigit),
    /// Play a tone to the caller, once.
    PlayTone(Tone),
    /// Make the caller part of its conference.
    Join,
    /// End the media session; [`Input::MediaClosed`] is owed in return, at once when there is none.
    CloseMedia,
    /// Invite the member's phone with this offer.
    InviteMember(Bytes),
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The media session is being bound.
    OpeningMedia,
    /// The member's phone was invited; after `give_up_at` nobody will answer.
    Ringing {
        give_up_at: MonoTime,
        caller_local: LocalDescription,
        member_local: LocalDescription,
    },
    /// The member answered and the caller has its 200.
    Up,
    /// A re-INVITE from `offerer` is on its way through the far leg.
    Reoffering { offerer: LegIndex },
    /// Both legs are told; the last figures are awaited.
    Closing,
    /// The record is written.
    Closed,
}

/// What is known of a call when its INVITE has been routed.
#[derive(Debug)]
pub struct CallSetup {
    /// The record so far: who calls whom through what.
    pub record: CallRecord,
    /// When the INVITE arrived.
    pub started_at: MonoTime,
    /// How long the member's phone may ring, seconds.
    pub ring_timeout_secs: u32,
    /// How long a peer may be silent.
    pub media_timeouts: MediaTimeouts,
    /// By [`LegIndex`]: the IP that signalling came from when the leg's peer sits behind NAT, so
    /// that its SDP cannot be taken at its word.
    pub nat: [Option<IpAddr>; 2],
    /// How digits travel to and from each side, by [`LegIndex`].
    pub dtmf: [Dtmf; 2],
    /// Whether there is something to play to a side that the other one holds.
    pub has_hold_music: bool,
    /// Random `o=` session ids, by [`LegIndex`].
    pub sdp_session_ids: [u64; 2],
    /// Both legs' descriptions; the caller's offer is already in it.
    pub negotiation: MediaNegotiation,
}

/// See the module's description.
#[derive(Debug)]
pub struct Call {
    state: State,
    setup: CallSetup,
    outputs: VecDeque<Output>,
    /// Descriptions that go out once the edge has taken what they promise: a peer that is told of
    /// an answer may send its first packet at once. `None` while the edge has nothing to take.
    held: Option<Vec<Output>>,
    /// Who is being played hold music, by [`LegIndex`].
    hears_music: [bool; 2],
    /// How each side's digits are treated now, by [`LegIndex`].
    digits: [LegFunctions; 2],
}

impl Call {
    /// Starts a call; its first output is [`Output::OpenMedia`].
    #[must_use]
    pub fn new(mut setup: CallSetup) -> Self {
        if setup.has_hold_music {
            setup.negotiation.keep_held_listening();
        }
        for leg in LegIndex::ALL {
            if setup.dtmf[leg.as_usize()] != Dtmf::Rfc4733 {
                setup.negotiation.withhold_events(leg);
            }
        }
        Self {
            state: State::OpeningMedia,
            setup,
            outputs: VecDeque::from([Output::OpenMedia]),
            held: None,
            hears_music: [false; 2],
            digits: [LegFunctions::default(); 2],
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<MonoTime> {
        match self.state {
            State::Ringing { give_up_at, .. } => Some(give_up_at),
            _ => None,
        }
    }

    /// The record so far, for the list of live calls.
    #[must_use]
    pub fn record(&self) -> &CallRecord {
        &self.setup.record
    }

    /// One word for the list of live calls.
    #[must_use]
    pub fn state_name(&self) -> &'static str {
        match self.state {
            State::OpeningMedia => "opening",
            State::Ringing { .. } => "ringing",
            State::Up => "up",
            State::Reoffering { .. } => "reoffering",
            State::Closing => "closing",
            State::Closed => "closed",
        }
    }

    /// The whole machine.
    pub fn handle(&mut self, now: MonoTime, input: Input) {
        match (self.state, input) {
            (State::OpeningMedia, Input::MediaOpened(local)) => self.invite_member(now, local),
            (State::OpeningMedia, Input::MediaRefused { reason }) => {
                self.setup.record.end_cause = Some(reason.into());
                self.reject(now, CallResult::Failed, 503, Some("No Media"));
            }

            (State::Ringing { caller_local, .. }, Input::MemberProgress { status, sdp }) => {
                match sdp
                    .map(|sdp| self.take_answer(caller_local, &sdp))
                    .transpose()
                {
                    Ok(sdp) => self.describe(Output::Progress { status, sdp }),
                    Err(error) => self.refuse_media(now, &error),
                }
            }
            (State::Ringing { caller_local, .. }, Input::MemberAnswered { sdp }) => {
                // A 2xx without SDP completes no exchange unless an 18x did (RFC 3261 §13.2.1).
                let answer = match sdp {
                    Some(sdp) => self.take_answer(caller_local, &sdp),
                    None => self.setup.negotiation.answer_for_caller(caller_local),
                };
                match answer {
                    Ok(answer) => self.answer(now, answer),
                    Err(error) => self.refuse_media(now, &error),
                }
            }
            (State::Ringing { member_local, .. }, Input::MemberRejected { status }) => {
                let is_about_media = matches!(status, 415 | 488 | 606);
                if is_about_media && self.setup.negotiation.concede_plain_rtp() {
                    self.offer_again(now, member_local);
                } else {
                    let (result, status) = caller_sees(status);
                    self.reject(now, result, status, None);
                }
            }
            (State::Ringing { .. }, Input::Timeout) => {
                self.reject(now, CallResult::NoAnswer, 480, None);
            }

            (State::Up, Input::Offer { leg, sdp }) => self.reoffer(leg, &sdp),
            // Both sides offer at once: each of our dialogs is sound, but the two offers would
            // cross in the middle. The second waits as RFC 3261 §14.1 tells it.
            (State::Reoffering { .. }, Input::Offer { leg, .. }) => {
                self.outputs.push_back(Output::RejectOffer(leg, 491));
            }
            (State::Reoffering { offerer }, Input::OfferAnswered { leg, result })
                if leg == offerer.far() =>
            {
                self.state = State::Up;
                self.reanswer(offerer, result);
            }
            (State::Reoffering { offerer }, Input::OfferCancelled { leg }) if leg == offerer => {
                self.state = State::Up;
                self.setup.negotiation.abandon_reoffer();
            }

            (
                State::Ringing { .. } | State::Up | State::Reoffering { .. },
                Input::DigitHeard {
                    leg,
                    digit,
                    duration_millis,
                },
            ) => self.pass_heard_digit(leg, digit, duration_millis),
            (
                State::Ringing { .. } | State::Up | State::Reoffering { .. },
                Input::DigitSaid { leg, digit },
            ) => self.pass_said_digit(leg, digit),

            (_, Input::MediaConfigured) => {
                self.outputs.extend(self.held.take().into_iter().flatten());
            }

            // The session is gone, and with it every chance of being heard.
            (
                State::Ringing { .. } | State::Up | State::Reoffering { .. },
                Input::MediaRefused { reason },
            ) => {
                self.setup.record.end_cause = Some(reason.into());
                self.end(now, CallResult::Failed, EndedBySide::Node, None);
            }
            (
                State::Ringing { .. } | State::Up | State::Reoffering { .. },
                Input::MediaClosed { legs, .. },
            ) => {
                self.end(now, CallResult::Failed, EndedBySide::Node, None);
                self.record_call(legs);
            }

            (
                State::OpeningMedia | State::Ringing { .. },
                Input::LegEnded {
                    leg: LegIndex::A, ..
                },
            ) => {
                self.end(now, CallResult::Canceled, EndedBySide::Caller, None);
            }
            (State::Up | State::Reoffering { .. }, Input::LegEnded { leg, by }) => {
                let side = match (by, leg) {
                    (EndedBy::Bye, LegIndex::A) => EndedBySide::Caller,
                    (EndedBy::Bye, LegIndex::B) => EndedBySide::Callee,
                    _ => EndedBySide::Node,
                };
                self.end(now, CallResult::Answered, side, None);
            }

            // While the phone rings the limit is the ringing's own; a silence that lasts is told
            // again.
            (State::Up | State::Reoffering { .. }, Input::MediaTimedOut { kind, .. }) => {
                self.setup.record.end_cause = Some(kind.into());
                self.end(now, CallResult::Answered, EndedBySide::Node, None);
            }

            (State::OpeningMedia | State::Ringing { .. }, Input::Shutdown) => {
                self.reject(now, CallResult::Failed, 503, Some("Shutting Down"));
            }
            (State::Up | State::Reoffering { .. }, Input::Shutdown) => {
                self.end(now, CallResult::Answered, EndedBySide::Node, None);
            }

            (State::Closing, Input::MediaClosed { legs, .. }) => self.record_call(legs),
            (State::Closing, Input::MediaRefused { .. }) => self.record_call(None),
            (State::Closing, Input::Offer { leg, .. }) => {
                self.outputs.push_back(Output::RejectOffer(leg, 481));
            }

            // What is left arrives late, from a side that has not yet heard of a change.
            (_, _) => {}
        }
    }

    fn invite_member(&mut self, now: MonoTime, local: LocalPair) {
        let [caller, member] = [0, 1].map(|leg| LocalDescription {
            rtp: local[leg].rtp,
            rtcp: local[leg].rtcp,
            session_id: self.setup.sdp_session_ids[leg],
        });
        match self.setup.negotiation.offer_for_callee(member) {
            Ok(offer) => {
                let give_up_at = now.plus_secs(u64::from(self.setup.ring_timeout_secs));
                self.state = State::Ringing {
                    give_up_at,
                    caller_local: caller,
                    member_local: member,
                };
                self.outputs.push_back(Output::InviteMember(offer));
            }
            Err(error) => self.refuse_media(now, &error),
        }
    }

    /// Asks the member's phone once more, with what it may like better than the first offer.
    fn offer_again(&mut self, now: MonoTime, member: LocalDescription) {
        match self.setup.negotiation.offer_for_callee(member) {
            Ok(offer) => self.outputs.push_back(Output::InviteMember(offer)),
            Err(error) => self.refuse_media(now, &error),
        }
    }

    fn answer(&mut self, now: MonoTime, answer: Bytes) {
        self.state = State::Up;
        let setup_ms = self.elapsed_ms(now);
        let record = &mut self.setup.record;
        record.setup_ms = Some(setup_ms);
        record.answer_unix_ms = Some(record.start_unix_ms + setup_ms as i64);
        self.describe(Output::AnswerCaller(answer));
        self.attend_to_hold();
    }

    /// Whoever is held hears music; whoever is not, does not.
    fn attend_to_hold(&mut self) {
        if !self.setup.has_hold_music {
            return;
        }
        for leg in LegIndex::ALL {
            let negotiation = &self.setup.negotiation;
            let is_held = negotiation.holds(leg.far()) && !negotiation.holds(leg);
            let hears = &mut self.hears_music[leg.as_usize()];
            if *hears != is_held {
                *hears = is_held;
                self.outputs.push_back(if is_held {
                    Output::StartMusic(leg)
                } else {
                    Output::StopMusic(leg)
                });
            }
        }
    }

    /// A digit of the media goes on in it by itself, except to a side that wants to be told in
    /// INFO requests.
    fn pass_heard_digit(&mut self, leg: LegIndex, digit: Digit, duration_millis: u32) {
        if self.setup.dtmf[leg.far().as_usize()] == Dtmf::Info {
            let millis = duration_millis.clamp(1, u32::from(InfoDigit::DURATION_MILLIS_MAX));
            let digit = InfoDigit {
                digit,
                duration_millis: millis as u16,
            };
            self.outputs.push_back(Output::SayDigit(leg.far(), digit));
        }
    }

    fn pass_said_digit(&mut self, leg: LegIndex, digit: InfoDigit) {
        let far = leg.far();
        self.outputs
            .push_back(match self.setup.dtmf[far.as_usize()] {
                Dtmf::Info => Output::SayDigit(far, digit),
                dtmf => Output::SendDigit(far, digit.digit, dtmf),
            });
    }

    /// Takes the member's answer into both legs' media and gives the caller's.
    fn take_answer(
        &mut self,
        caller_local: LocalDescription,
        sdp: &[u8],
    ) -> Result<Bytes, OfferAnswerError> {
        let negotiation = &mut self.setup.negotiation;
        negotiation.answer_from_callee(sdp)?;
        let answer = negotiation.answer_for_caller(caller_local)?;
        self.configure_media();
        Ok(answer)
    }

    /// The member's side described media that cannot be relayed.
    fn refuse_media(&mut self, now: MonoTime, error: &OfferAnswerError) {
        let result = match error {
            OfferAnswerError::NoCommonCodec => CallResult::NoCommonCodec,
            _ => CallResult::Failed,
        };
        self.reject(now, result, 488, None);
    }

    /// Sends what describes media, after the edge has taken it.
    fn describe(&mut self, output: Output) {
        match &mut self.held {
            Some(held) => held.push(output),
            None => self.outputs.push_back(output),
        }
    }

    fn configure_media(&mut self) {
        self.held.get_or_insert_default();
        for leg in LegIndex::ALL {
            let nat = self.setup.nat[leg.as_usize()];
            let mut config = self.setup.negotiation.leg_config(leg, nat);
            config.timeouts = self.setup.media_timeouts;
            self.outputs.push_back(Output::ConfigureMedia(leg, config));
        }
        let negotiation = &self.setup.negotiation;
        self.outputs.push_back(Output::SetAudio {
            audio: Box::new(LegIndex::ALL.map(|leg| negotiation.leg_audio(leg))),
            conversion: negotiation.conversion(),
        });
        for leg in LegIndex::ALL {
            let [own, far] = [leg, leg.far()].map(|leg| self.setup.dtmf[leg.as_usize()]);
            let digits = own.functions(far);
            if self.digits[leg.as_usize()] != digits {
                self.digits[leg.as_usize()] = digits;
                self.outputs.push_back(Output::SetDigits(leg, digits));
            }
        }
        let codec = |leg| Some(negotiation.audio(leg)?.name().to_owned());
        self.setup.record.caller_codec = codec(LegIndex::A);
        self.setup.record.callee_codec = codec(LegIndex::B);
    }

    fn reoffer(&mut self, offerer: LegIndex, sdp: &[u8]) {
        match self.setup.negotiation.reoffer(offerer, sdp) {
            Ok(offer) => {
                self.state = State::Reoffering { offerer };
                self.outputs
                    .push_back(Output::Reinvite(offerer.far(), offer));
            }
            Err(error) => {
                self.outputs
                    .push_back(Output::RejectOffer(offerer, error.status()));
            }
        }
    }

    fn reanswer(&mut self, offerer: LegIndex, result: Result<Bytes, u16>) {
        let answered = result.and_then(|sdp| {
            self.setup
                .negotiation
                .reanswer(offerer.far(), &sdp)
                .map_err(|_| 488)
        });
        match answered {
            Ok(answer) => {
                self.configure_media();
                self.describe(Output::AcceptOffer(offerer, answer));
                self.attend_to_hold();
            }
            Err(status) => {
                self.setup.negotiation.abandon_reoffer();
                // The peer's trouble is not the offerer's: only a refusal of the offer itself and
                // "try again" carry over, everything else reads as a refusal (RFC 3261 §14.2).
                let status = if matches!(status, 488 | 491 | 606) {
                    status
                } else {
                    488
                };
                self.outputs.push_back(Output::RejectOffer(offerer, status));
            }
        }
    }

    /// Ends a call whose caller has no answer yet.
    fn reject(
        &mut self,
        now: MonoTime,
        result: CallResult,
        status: u16,
        reason: Option<&'static str>,
    ) {
        self.outputs
            .push_back(Output::RejectCaller { status, reason });
        self.end(now, result, EndedBySide::Node, Some(status));
    }

    fn end(&mut self, now: MonoTime, result: CallResult, side: EndedBySide, status: Option<u16>) {
        self.held = None;
        self.outputs.push_back(Output::Hangup(LegIndex::A));
        self.outputs.push_back(Output::Hangup(LegIndex::B));
        self.outputs.push_back(Output::CloseMedia);
        let elapsed_ms = self.elapsed_ms(now);
        self.setup.record.end(elapsed_ms, result, side, status);
        self.state = State::Closing;
    }

    fn record_call(&mut self, legs: Option<[LegReport; 2]>) {
        if let Some([caller, callee]) = legs {
            self.setup.record.caller_media = (&caller).into();
            self.setup.record.callee_media = (&callee).into();
        }
        self.state = State::Closed;
        self.outputs
            .push_back(Output::Record(Box::new(self.setup.record.clone())));
    }

    /// Milliseconds since the call began, on the monotonic clock: a wall clock that is set during
    /// the call does not bend its times.
    fn elapsed_ms(&self, now: MonoTime) -> u64 {
        now.nanos_since(self.setup.started_at) / 1_000_000
    }
}

/// What the caller is told when the member's phone refuses, and how the record calls it.
///
/// Only what says something about the member is passed on. A phone's own trouble (401, 5xx, a
/// silence) means to the caller that the member cannot be had: 480 (RFC 3261 §21.4.18).
fn caller_sees(status: u16) -> (CallResult, u16) {
    match status {
        486 | 600 => (CallResult::Busy, 486),
        603 => (CallResult::Declined, 603),
        488 | 606 => (CallResult::NoCommonCodec, 488),
        408 | 480 => (CallResult::NoAnswer, 480),
        _ => (CallResult::Failed, 480),
    }
}

#[cfg(test)]
mod tests;
