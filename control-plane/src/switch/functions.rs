//! What the edge tells of functions: to the call where it concerns one, to the log, and to
//! whoever holds a ticket.

use trunkline_edge_api::{LegIndex, RecordingEnd, SessionId};
use trunkline_sip::SipLegId;

use super::Switch;
use super::calls::{CallKey, Seat};
use crate::call::Input;
use crate::edge::{MediaEvent, Ticket};

/// What came of a request that somebody waits for.
pub type Outcome = (Ticket, Result<(), trunkline_edge_api::Refusal>);

impl Switch {
    /// The next outcome of [`Self::act`].
    pub fn poll_outcome(&mut self) -> Option<Outcome> {
        self.outcomes.pop_front()
    }

    pub(super) fn handle_function_event(&mut self, event: MediaEvent) {
        match event {
            MediaEvent::Outcome { ticket, result } => self.outcomes.push_back((ticket, result)),
            MediaEvent::Digit {
                session,
                leg,
                digit,
                duration_millis,
                source,
            } => {
                let switches = self.proxy.functions(session, leg).unwrap_or_default();
                if switches.hides_digits {
                    tracing::debug!(%session, ?leg, ?source, duration_millis, "digit");
                } else {
                    let value = digit.as_char().to_string();
                    tracing::debug!(%session, ?leg, ?source, duration_millis, value, "digit");
                }
                if let Some(&key) = self.by_session.get(&session) {
                    self.count_digit_of(key, leg);
                    let input = Input::DigitHeard {
                        leg,
                        digit,
                        duration_millis,
                    };
                    self.inputs.push_back((key, input));
                }
            }
            MediaEvent::PlaybackEnded {
                session,
                leg,
                cause,
                ..
            } => tracing::debug!(%session, ?leg, ?cause, "playback ended"),
            MediaEvent::NotPlayed {
                session,
                leg,
                refusal,
                ..
            } => tracing::warn!(%session, ?leg, %refusal, "not played"),
            MediaEvent::RecordingEnded {
                session,
                path,
                outcome,
            } => {
                let session = session.map(|session| session.to_string());
                let path = path.as_str();
                match outcome {
                    Some(outcome) if outcome.cause == RecordingEnd::Stopped => tracing::info!(
                        session,
                        path,
                        duration_ms = outcome.duration_millis,
                        bytes = outcome.bytes,
                        lost_packets = outcome.lost_packets,
                        sha256 = %hex(&outcome.sha256),
                        "recording complete"
                    ),
                    Some(outcome) => tracing::error!(
                        session,
                        path,
                        cause = ?outcome.cause,
                        duration_ms = outcome.duration_millis,
                        bytes = outcome.bytes,
                        "recording ended early"
                    ),
                    None => tracing::error!(
                        session,
                        path,
                        "the edge process ended with this recording unfinished; the file holds what it wrote"
                    ),
                }
            }
            MediaEvent::NotJoined { session, refusal } => {
                tracing::warn!(%session, %refusal, "not in its conference");
                self.session_input(session, Input::NotJoined);
            }
            MediaEvent::Activity {
                session,
                leg,
                is_speaking,
            } => tracing::debug!(%session, ?leg, is_speaking, "voice"),
            MediaEvent::Beep { session, leg } => tracing::info!(%session, ?leg, "beep"),
            MediaEvent::Progress {
                session,
                leg,
                signal,
                frequencies_hz,
            } => tracing::info!(%session, ?leg, ?signal, ?frequencies_hz, "progress"),
            MediaEvent::Opened { .. }
            | MediaEvent::Configured { .. }
            | MediaEvent::Refused { .. }
            | MediaEvent::TimedOut { .. }
            | MediaEvent::Closed { .. } => {}
        }
    }

    fn session_input(&mut self, session: SessionId, input: Input) {
        if let Some(&key) = self.by_session.get(&session) {
            self.inputs.push_back((key, input));
        }
    }

    /// A digit that came as an INFO request.
    pub(super) fn count_digit(&mut self, leg: SipLegId) {
        if let Some(&(key, Seat::Leg(leg))) = self.by_leg.get(&leg) {
            self.count_digit_of(key, leg);
        }
    }

    fn count_digit_of(&mut self, key: CallKey, leg: LegIndex) {
        if let Some(entry) = self.calls.get_mut(&key) {
            entry.digit_counts[leg.as_usize()] += 1;
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
