//! The call machine: one call from INVITE to call record, as a pure decider.
//!
//! It knows two SIP legs (A the caller, B whoever answers), one media session, and nothing of
//! sockets, messages or clocks. A call that goes well:
//!
//! ```text
//!  caller (A)            call machine                 edge            callees
//!  INVITE, offer  ──────▶ OpenMedia ─────────────────▶ bind A, B
//!                         MediaOpened ◀──────────────
//!                         Invite, an offer each ──────────────────────▶ INVITE
//!  180 ◀───────────────── Progress  ◀────────────────────────────────── 180
//!                         CalleeAnswered ◀───────────────────────────── 200, answer
//!                         Connect B; Withdraw the others ─────────────▶ CANCEL
//!                         ConfigureMedia A, B ───────▶
//!  200, answer ◀───────── AnswerCaller
//!  BYE ─────────────────▶ LegEnded
//!                         Hangup B ───────────────────────────────────▶ BYE
//!                         CloseMedia ────────────────▶
//!                         MediaClosed ◀──────────────  last figures
//!                         Record
//! ```
//!
//! Its parts by topic: `hunt` rings, `early` decides what the caller hears meanwhile, `offer`
//! has the offers in mid-call, `media` what the edge is told, `ending` the end.
//!
//! Deliberately left out until their time: late offers (RFC 3264 §5: an INVITE without SDP is
//! answered 488).

use std::collections::VecDeque;
use std::net::IpAddr;

use trunkline_edge_api::{LegFunctions, LegIndex, MediaTimeouts, MonoTime};
use trunkline_sip::agent::EndedBy;
use trunkline_sip::offer_answer::{LocalDescription, MediaNegotiation};

use crate::cdr::{CallRecord, CallResult, EndedBySide};
use crate::edge::LocalPair;
use crate::party::{Dtmf, EarlyMedia};

mod callee;
mod conference;
mod early;
mod ending;
mod hunt;
mod machine;
mod media;
mod offer;
mod vocabulary;

pub use callee::{Callee, CalleeMedia, Cause, ForkId, Round};
pub use conference::{ConferenceCall, ConferenceSetup, Pin};
pub use hunt::Withdrawal;
pub use machine::Machine;
pub use vocabulary::{Input, Output, Sound};

use early::Early;
use hunt::Hunt;

#[derive(Debug)]
enum State {
    /// The media session is being bound; then these are rung.
    OpeningMedia(Round),
    /// Nobody has answered yet.
    Ringing(Hunt),
    /// The caller has its 200.
    Up,
    /// A re-INVITE from `offerer` is on its way through the far leg.
    Reoffering { offerer: LegIndex },
    /// Both legs are told; the last figures are awaited.
    Closing,
    /// The record is written.
    Closed,
}

impl State {
    fn hunt_mut(&mut self) -> Option<&mut Hunt> {
        match self {
            Self::Ringing(hunt) => Some(hunt),
            _ => None,
        }
    }
}

/// What is known of a call when its INVITE has been routed.
#[derive(Debug)]
pub struct CallSetup {
    /// The record so far: who calls whom through what.
    pub record: CallRecord,
    /// When the INVITE arrived.
    pub started_at: MonoTime,
    /// Who is rung first.
    pub first_round: Round,
    /// What the caller hears before the answer.
    pub early_media: EarlyMedia,
    /// How long a peer may be silent.
    pub media_timeouts: MediaTimeouts,
    /// The IP that the caller's signalling comes from when it sits behind NAT, so that its SDP
    /// cannot be taken at its word.
    pub nat: Option<IpAddr>,
    /// How the caller's digits travel.
    pub dtmf: Dtmf,
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
    record: CallRecord,
    started_at: MonoTime,
    early_media: EarlyMedia,
    media_timeouts: MediaTimeouts,
    /// By [`LegIndex`]; see [`CallSetup::nat`].
    nat: [Option<IpAddr>; 2],
    /// How digits travel to and from each side, by [`LegIndex`].
    dtmf: [Dtmf; 2],
    has_hold_music: bool,
    sdp_session_ids: [u64; 2],
    /// As it holds; what is only tried is with the [`Hunt`].
    negotiation: MediaNegotiation,
    /// By [`LegIndex`]; `None` until both are bound.
    local: [Option<LocalDescription>; 2],
    outputs: VecDeque<Output>,
    /// Descriptions that go out once the edge has taken what they promise: a peer that is told of
    /// an answer may send its first packet at once. `None` while the edge has nothing to take.
    held: Option<Vec<Output>>,
    /// What the caller was told of media before the answer.
    early: Early,
    /// What each side is being played, by [`LegIndex`].
    hears: [Option<Sound>; 2],
    /// How each side's digits are treated now, by [`LegIndex`].
    digits: [LegFunctions; 2],
    fork_next: u32,
}

impl Call {
    /// Starts a call; its first output is [`Output::OpenMedia`].
    #[must_use]
    pub fn new(setup: CallSetup) -> Self {
        let mut negotiation = setup.negotiation;
        if setup.has_hold_music {
            negotiation.keep_held_listening();
        }
        if setup.dtmf != Dtmf::Rfc4733 {
            negotiation.withhold_events(LegIndex::A);
        }
        Self {
            state: State::OpeningMedia(setup.first_round),
            record: setup.record,
            started_at: setup.started_at,
            early_media: setup.early_media,
            media_timeouts: setup.media_timeouts,
            nat: [setup.nat, None],
            dtmf: [setup.dtmf, Dtmf::default()],
            has_hold_music: setup.has_hold_music,
            sdp_session_ids: setup.sdp_session_ids,
            negotiation,
            local: [None; 2],
            outputs: VecDeque::from([Output::OpenMedia]),
            held: None,
            early: Early::Silent,
            hears: [None; 2],
            digits: [LegFunctions::default(); 2],
            fork_next: 0,
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<MonoTime> {
        match &self.state {
            State::Ringing(hunt) => hunt.poll_timeout(),
            _ => None,
        }
    }

    /// The record so far, for the list of live calls.
    #[must_use]
    pub fn record(&self) -> &CallRecord {
        &self.record
    }

    /// One word for the list of live calls.
    #[must_use]
    pub fn state_name(&self) -> &'static str {
        match self.state {
            State::OpeningMedia(_) => "opening",
            State::Ringing(_) => "ringing",
            State::Up => "up",
            State::Reoffering { .. } => "reoffering",
            State::Closing => "closing",
            State::Closed => "closed",
        }
    }

    /// The whole machine.
    pub fn handle(&mut self, now: MonoTime, input: Input) {
        match (&self.state, input) {
            (State::OpeningMedia(_), Input::MediaOpened(local)) => self.begin_ringing(now, local),
            (State::OpeningMedia(_), Input::MediaRefused { reason }) => {
                self.record.end_cause = Some(reason.into());
                self.reject(now, CallResult::Failed, 503, Some("No Media"));
            }

            (State::Ringing(_), Input::CalleeProgress { fork, status, sdp }) => {
                self.fork_progress(fork, status, sdp);
            }
            (State::Ringing(_), Input::CalleeAnswered { fork, sdp }) => {
                self.fork_answered(now, fork, sdp);
            }
            (State::Ringing(_), Input::CalleeRejected { fork, status }) => {
                self.fork_rejected(fork, status);
                self.attend_to_early_media();
            }
            (State::Ringing(_), Input::Timeout) => {
                self.round_over();
                self.attend_to_early_media();
            }
            (State::Ringing(_), Input::Round(round)) => self.ring(now, round),
            (State::Ringing(hunt), Input::NobodyLeft) => {
                let (result, status) = hunt.cause().caller_sees();
                self.reject(now, result, status, None);
            }

            // Before the answer no side has anything to give another: the peer tries again later.
            (State::OpeningMedia(_) | State::Ringing(_), Input::Offer { leg, .. }) => {
                self.outputs.push_back(Output::RejectOffer(leg, 491));
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
                let offerer = *offerer;
                self.state = State::Up;
                self.reanswer(offerer, result);
            }
            (State::Reoffering { offerer }, Input::OfferCancelled { leg }) if leg == *offerer => {
                self.state = State::Up;
                self.negotiation.abandon_reoffer();
            }

            (
                State::Ringing(_) | State::Up | State::Reoffering { .. },
                Input::DigitHeard {
                    leg,
                    digit,
                    duration_millis,
                },
            ) => self.pass_heard_digit(leg, digit, duration_millis),
            (
                State::Ringing(_) | State::Up | State::Reoffering { .. },
                Input::DigitSaid { leg, digit },
            ) => self.pass_said_digit(leg, digit),

            (_, Input::MediaConfigured) => {
                self.outputs.extend(self.held.take().into_iter().flatten());
            }

            // The session is gone, and with it every chance of being heard.
            (
                State::Ringing(_) | State::Up | State::Reoffering { .. },
                Input::MediaRefused { reason },
            ) => {
                self.record.end_cause = Some(reason.into());
                self.end(now, CallResult::Failed, EndedBySide::Node, None);
            }
            (
                State::Ringing(_) | State::Up | State::Reoffering { .. },
                Input::MediaClosed { legs, .. },
            ) => {
                self.end(now, CallResult::Failed, EndedBySide::Node, None);
                self.record_call(legs);
            }

            (
                State::OpeningMedia(_) | State::Ringing(_),
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
                self.record.end_cause = Some(kind.into());
                self.end(now, CallResult::Answered, EndedBySide::Node, None);
            }

            (State::OpeningMedia(_) | State::Ringing(_), Input::Shutdown) => {
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

    fn begin_ringing(&mut self, now: MonoTime, local: LocalPair) {
        for leg in LegIndex::ALL {
            let at = leg.as_usize();
            self.local[at] = Some(LocalDescription {
                rtp: local[at].rtp,
                rtcp: local[at].rtcp,
                session_id: self.sdp_session_ids[at],
            });
        }
        let ringing = State::Ringing(Hunt::new(LegIndex::B));
        if let State::OpeningMedia(round) = std::mem::replace(&mut self.state, ringing) {
            self.ring(now, round);
        }
    }

    /// Milliseconds since the call began, on the monotonic clock: a wall clock that is set during
    /// the call does not bend its times.
    fn elapsed_ms(&self, now: MonoTime) -> u64 {
        now.nanos_since(self.started_at) / 1_000_000
    }
}

#[cfg(test)]
mod tests;
