//! A caller in a conference: answered by Trunkline itself, with one leg.
//!
//! ```text
//!  caller                call machine                  edge
//!  INVITE, offer ──────▶ OpenMedia ─────────────────▶ bind A, on the conference's worker
//!                        MediaOpened ◀──────────────
//!                        ConfigureMedia A, SetAudio ─▶
//!  200, answer ◀──────── AnswerCaller ◀───────────── MediaConfigured
//!    (with a PIN: digits ▶ DigitHeard …, CheckPin, PinChecked ◀ until it is right)
//!                        Join ──────────────────────▶ mix
//!  BYE ────────────────▶ LegEnded
//!                        CloseMedia ────────────────▶
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;

use trunkline_edge_api::{
    Digit, LegFunctions, LegIndex, LegReport, MediaTimeouts, MonoTime, Tone, ToneSegment,
};
use trunkline_sip::agent::EndedBy;
use trunkline_sip::offer_answer::{LocalDescription, MediaNegotiation, OfferAnswerError};

use super::{Input, Output};
use crate::cdr::{CallRecord, CallResult, EndedBySide};
use crate::edge::LocalPair;
use crate::party::Dtmf;
use crate::pin::{PinHash, PinVerdict};

/// How long a caller may take for each try at the PIN, seconds.
const PIN_PATIENCE_SECS: u64 = 20;

/// Tries at the PIN before the caller is hung up on: with six digits and three tries a call is
/// worth one guess in 300,000.
const PIN_TRIES_MAX: u8 = 3;

/// What is known of a call to a conference when its INVITE has been routed.
#[derive(Debug)]
pub struct ConferenceSetup {
    /// The record so far: who calls what through what.
    pub record: CallRecord,
    /// When the INVITE arrived.
    pub started_at: MonoTime,
    /// How long the caller may be silent.
    pub media_timeouts: MediaTimeouts,
    /// The IP that signalling came from when the caller sits behind NAT.
    pub nat: Option<IpAddr>,
    /// Random `o=` session id.
    pub sdp_session_id: u64,
    /// The caller's description; its offer is in it.
    pub negotiation: MediaNegotiation,
    /// How the caller's digits travel.
    pub dtmf: Dtmf,
    /// What the caller has to enter; `None`: nothing.
    pub pin: Option<PinHash>,
}

/// Digits that open a conference. They print redacted.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Pin(pub String);

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin(_)")
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// The media session is being bound.
    OpeningMedia,
    /// The edge is being told of the caller; its answer waits.
    Answering,
    /// The caller is answered and has to say the PIN. `digits` never reach a log.
    Asking {
        digits: Pin,
        tries: u8,
        give_up_at: MonoTime,
    },
    /// What was entered is being checked.
    Checking { tries: u8, give_up_at: MonoTime },
    /// In the conference.
    Joined,
    /// The last figures are awaited.
    Closing,
    /// The record is written.
    Closed,
}

/// See the module's description.
#[derive(Debug)]
pub struct ConferenceCall {
    state: State,
    setup: ConferenceSetup,
    outputs: VecDeque<Output>,
    /// Descriptions that go out once the edge has taken what they promise.
    held: Vec<Output>,
}

impl ConferenceCall {
    /// Starts a call; its first output is [`Output::OpenMedia`].
    #[must_use]
    pub fn new(mut setup: ConferenceSetup) -> Self {
        if setup.dtmf != Dtmf::Rfc4733 {
            setup.negotiation.withhold_events(LegIndex::A);
        }
        Self {
            state: State::OpeningMedia,
            setup,
            outputs: VecDeque::from([Output::OpenMedia]),
            held: Vec::new(),
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
            State::Asking { give_up_at, .. } | State::Checking { give_up_at, .. } => {
                Some(give_up_at)
            }
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
            State::OpeningMedia | State::Answering => "opening",
            State::Asking { .. } | State::Checking { .. } => "asking",
            State::Joined => "up",
            State::Closing => "closing",
            State::Closed => "closed",
        }
    }

    /// The whole machine.
    pub fn handle(&mut self, now: MonoTime, input: Input) {
        match (&self.state, input) {
            (State::OpeningMedia, Input::MediaOpened(local)) => self.answer(now, local),
            (State::OpeningMedia | State::Answering, Input::MediaRefused { reason }) => {
                self.setup.record.end_cause = Some(reason.into());
                self.reject(now, CallResult::Failed, 503, Some("No Media"));
            }
            (State::Answering, Input::MediaConfigured) => self.answered(now),
            (
                State::Asking { .. } | State::Checking { .. } | State::Joined,
                Input::MediaConfigured,
            ) => {
                self.outputs.extend(self.held.drain(..));
            }

            (State::Asking { .. }, Input::DigitHeard { digit, .. }) => {
                self.take_digit(now, digit);
            }
            (State::Asking { .. }, Input::DigitSaid { digit, .. }) => {
                self.take_digit(now, digit.digit);
            }
            (&State::Checking { tries, .. }, Input::PinChecked(verdict)) => match verdict {
                PinVerdict::Right => self.open_the_door(),
                PinVerdict::Wrong => self.refuse_pin(now),
                PinVerdict::Unchecked => self.ask(now, tries),
            },
            (State::Asking { .. } | State::Checking { .. }, Input::Timeout) => self.refuse_pin(now),

            (
                State::Asking { .. } | State::Checking { .. } | State::Joined,
                Input::Offer {
                    leg: LegIndex::A,
                    sdp,
                },
            ) => match self.setup.negotiation.reanswer_alone(&sdp) {
                Ok(answer) => {
                    self.configure_media();
                    self.held.push(Output::AcceptOffer(LegIndex::A, answer));
                }
                Err(error) => {
                    let refusal = Output::RejectOffer(LegIndex::A, error.status());
                    self.outputs.push_back(refusal);
                }
            },
            (_, Input::OfferCancelled { leg: LegIndex::A }) => self.held.clear(),

            (State::OpeningMedia | State::Answering, Input::LegEnded { .. }) => {
                self.end(now, CallResult::Canceled, EndedBySide::Caller, None);
            }
            (
                State::Asking { .. } | State::Checking { .. } | State::Joined,
                Input::LegEnded { by, .. },
            ) => {
                let side = match by {
                    EndedBy::Bye => EndedBySide::Caller,
                    _ => EndedBySide::Node,
                };
                self.end(now, CallResult::Answered, side, None);
            }
            (
                State::Asking { .. } | State::Checking { .. } | State::Joined,
                Input::MediaTimedOut { kind, .. },
            ) => {
                self.setup.record.end_cause = Some(kind.into());
                self.end(now, CallResult::Answered, EndedBySide::Node, None);
            }
            (
                State::Asking { .. } | State::Checking { .. } | State::Joined,
                Input::MediaRefused { reason },
            ) => {
                self.setup.record.end_cause = Some(reason.into());
                self.end(now, CallResult::Answered, EndedBySide::Node, None);
            }
            (State::Joined, Input::NotJoined) => {
                self.end(now, CallResult::Answered, EndedBySide::Node, None);
            }
            (
                State::Answering | State::Asking { .. } | State::Checking { .. } | State::Joined,
                Input::MediaClosed { legs, .. },
            ) => {
                self.end(now, CallResult::Failed, EndedBySide::Node, None);
                self.record_call(legs);
            }

            (State::OpeningMedia | State::Answering, Input::Shutdown) => {
                self.reject(now, CallResult::Failed, 503, Some("Shutting Down"));
            }
            (State::Asking { .. } | State::Checking { .. } | State::Joined, Input::Shutdown) => {
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

    fn answer(&mut self, now: MonoTime, local: LocalPair) {
        let local = LocalDescription {
            rtp: local[0].rtp,
            rtcp: local[0].rtcp,
            session_id: self.setup.sdp_session_id,
        };
        match self.setup.negotiation.answer_alone(local) {
            Ok(answer) => {
                self.state = State::Answering;
                self.configure_media();
                self.held.push(Output::AnswerCaller(answer));
            }
            Err(error) => {
                let result = match error {
                    OfferAnswerError::NoCommonCodec => CallResult::NoCommonCodec,
                    _ => CallResult::Failed,
                };
                self.reject(now, result, error.status(), None);
            }
        }
    }

    fn configure_media(&mut self) {
        let negotiation = &self.setup.negotiation;
        let mut config = negotiation.leg_config(LegIndex::A, self.setup.nat);
        config.timeouts = self.setup.media_timeouts;
        let audio = negotiation.leg_audio(LegIndex::A);
        let codec = negotiation.audio(LegIndex::A);
        self.setup.record.caller_codec = codec.map(|codec| codec.name().to_owned());
        self.outputs
            .push_back(Output::ConfigureMedia(LegIndex::A, config));
        self.outputs.push_back(Output::SetAudio {
            audio: Box::new([audio, None]),
            conversion: negotiation.conversion(),
        });
    }

    fn answered(&mut self, now: MonoTime) {
        self.outputs.extend(self.held.drain(..));
        let setup_ms = self.elapsed_ms(now);
        let record = &mut self.setup.record;
        record.setup_ms = Some(setup_ms);
        record.answer_unix_ms = Some(record.start_unix_ms + setup_ms as i64);
        if self.setup.pin.is_none() {
            return self.join();
        }
        let digits = LegFunctions {
            detects_tones: self.setup.dtmf == Dtmf::InBand,
            hides_digits: true,
            ..LegFunctions::default()
        };
        self.outputs
            .push_back(Output::SetDigits(LegIndex::A, digits));
        self.ask(now, 1);
    }

    fn ask(&mut self, now: MonoTime, tries: u8) {
        self.outputs.push_back(Output::PlayTone(prompt_tone()));
        self.state = State::Asking {
            digits: Pin::default(),
            tries,
            give_up_at: now.plus_secs(PIN_PATIENCE_SECS),
        };
    }

    /// The PIN is complete with its last digit, or with `#`.
    fn take_digit(&mut self, now: MonoTime, digit: Digit) {
        let (
            State::Asking {
                digits,
                tries,
                give_up_at,
            },
            Some(pin),
        ) = (&mut self.state, &self.setup.pin)
        else {
            return;
        };
        let is_end = digit.as_char() == '#';
        if is_end && digits.0.is_empty() {
            // It ends what was wrong and has been refused.
            return;
        }
        if !is_end {
            digits.0.push(digit.as_char());
        }
        if digits.0.len() == pin.digit_count() {
            let (entered, pin) = (std::mem::take(digits), pin.clone());
            self.state = State::Checking {
                tries: *tries,
                give_up_at: *give_up_at,
            };
            self.outputs.push_back(Output::CheckPin(entered, pin));
        } else if is_end {
            self.refuse_pin(now);
        }
    }

    fn open_the_door(&mut self) {
        self.outputs
            .push_back(Output::SetDigits(LegIndex::A, LegFunctions::default()));
        self.join();
    }

    fn refuse_pin(&mut self, now: MonoTime) {
        match self.state {
            State::Asking { tries, .. } | State::Checking { tries, .. }
                if tries < PIN_TRIES_MAX =>
            {
                self.ask(now, tries + 1);
            }
            _ => self.end(now, CallResult::Answered, EndedBySide::Node, None),
        }
    }

    fn join(&mut self) {
        self.state = State::Joined;
        self.outputs.push_back(Output::Join);
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
        self.held.clear();
        self.outputs.push_back(Output::Hangup(LegIndex::A));
        self.outputs.push_back(Output::CloseMedia);
        let elapsed_ms = self.elapsed_ms(now);
        self.setup.record.end(elapsed_ms, result, side, status);
        self.state = State::Closing;
    }

    fn record_call(&mut self, legs: Option<[LegReport; 2]>) {
        if let Some([caller, _]) = legs {
            self.setup.record.caller_media = (&caller).into();
        }
        self.state = State::Closed;
        self.outputs
            .push_back(Output::Record(Box::new(self.setup.record.clone())));
    }

    fn elapsed_ms(&self, now: MonoTime) -> u64 {
        now.nanos_since(self.setup.started_at) / 1_000_000
    }
}

/// Two short beeps: now it is the caller's turn.
fn prompt_tone() -> Tone {
    let beep = ToneSegment {
        on_millis: 150,
        off_millis: 100,
        frequencies_hz: [800, 0],
    };
    Tone::new(&[beep, beep], Tone::LEVEL_DBM0).expect("a playable tone")
}

#[cfg(test)]
mod tests;
