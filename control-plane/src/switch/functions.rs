//! What the edge tells of functions: to the call where it concerns one, to its list of events, to
//! the log, and to whoever holds a ticket.

use trunkline_edge_api::{
    Digit, DigitSource, FilePath, LegIndex, RecordingEnd, RecordingId, RecordingOutcome, SessionId,
};
use trunkline_sip::{InfoDigit, SipLegId};

use super::Switch;
use super::actions::ActionError;
use super::calls::{CallKey, Seat};
use super::events::{CallEventKind, DigitWay, EventsReport, Told};
use crate::call::{Input, Machine};
use crate::cdr::{RecordingEnding, RecordingRecord};
use crate::edge::{MediaEvent, RecordingOf, Ticket};

/// What came of a request that somebody waits for.
pub type Outcome = (Ticket, Result<(), trunkline_edge_api::Refusal>);

impl Switch {
    /// The next outcome of [`Self::act`] or [`Self::confer`].
    pub fn poll_outcome(&mut self) -> Option<Outcome> {
        self.outcomes.pop_front()
    }

    /// What has happened in a call that lives, or is not long over.
    ///
    /// # Errors
    /// [`ActionError::NoSuchCall`].
    pub fn events(&self, call_id: &str) -> Result<EventsReport, ActionError> {
        let known = self.key_in(call_id).and_then(|key| {
            let nothing = || EventsReport {
                call_id: call_id.to_owned(),
                ..EventsReport::default()
            };
            let is_live = self.calls.contains_key(&key);
            self.events.report(key).or(is_live.then(nothing))
        });
        known.ok_or_else(|| ActionError::NoSuchCall(call_id.to_owned()))
    }

    /// The next thing for whoever follows a call.
    pub fn poll_told(&mut self) -> Option<Told> {
        self.events.poll_told()
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
            } => self.take_heard_digit(session, leg, digit, (duration_millis, source)),
            MediaEvent::DigitsSent { session, leg } => {
                self.tell(session, leg, CallEventKind::DigitsSent);
            }
            MediaEvent::PlaybackEnded {
                session,
                leg,
                cause,
                played_millis,
                ..
            } => {
                tracing::debug!(%session, ?leg, ?cause, "playback ended");
                let kind = CallEventKind::PlaybackEnded {
                    cause: cause.into(),
                    played_ms: played_millis,
                };
                self.tell(session, leg, kind);
            }
            MediaEvent::NotPlayed {
                session,
                leg,
                refusal,
                ..
            } => {
                tracing::warn!(%session, ?leg, %refusal, "not played");
                let reason = refusal.to_string();
                self.tell(session, leg, CallEventKind::NotPlayed { reason });
            }
            MediaEvent::RecordingEnded {
                recording,
                of,
                path,
                outcome,
            } => self.end_recording(recording, of, &path, outcome),
            MediaEvent::NotJoined { session, refusal } => {
                tracing::warn!(%session, %refusal, "not in its conference");
                self.session_input(session, Input::NotJoined);
            }
            MediaEvent::Activity {
                session,
                leg,
                is_speaking,
            } => {
                let kind = if is_speaking {
                    CallEventKind::SpeechBegan
                } else {
                    CallEventKind::SpeechEnded
                };
                self.tell(session, leg, kind);
            }
            MediaEvent::Beep {
                session,
                leg,
                frequency_hz,
                duration_millis,
            } => {
                let kind = CallEventKind::Beep {
                    frequency_hz,
                    duration_ms: duration_millis,
                };
                self.tell(session, leg, kind);
            }
            MediaEvent::Speaker {
                conference,
                speaker,
            } => self.rooms.set_speaker(conference, speaker),
            MediaEvent::Progress {
                session,
                leg,
                signal,
                frequencies_hz,
            } => {
                let kind = CallEventKind::Progress {
                    signal: signal.into(),
                    frequencies_hz,
                };
                self.tell(session, leg, kind);
            }
            MediaEvent::Opened { .. }
            | MediaEvent::Configured { .. }
            | MediaEvent::Refused { .. }
            | MediaEvent::TimedOut { .. }
            | MediaEvent::Closed { .. } => {}
        }
    }

    /// A digit that came in the media.
    fn take_heard_digit(
        &mut self,
        session: SessionId,
        leg: LegIndex,
        digit: Digit,
        (duration_millis, source): (u32, DigitSource),
    ) {
        let switches = self.proxy.functions(session, leg).unwrap_or_default();
        if switches.hides_digits {
            tracing::debug!(%session, ?leg, ?source, duration_millis, "digit");
        } else {
            let value = digit.as_char().to_string();
            tracing::debug!(%session, ?leg, ?source, duration_millis, value, "digit");
        }
        let Some(&key) = self.by_session.get(&session) else {
            return;
        };
        let input = Input::DigitHeard {
            leg,
            digit,
            duration_millis,
        };
        self.take_digit((key, leg), digit, (source.into(), duration_millis), input);
    }

    /// A digit that came as an INFO request.
    pub(super) fn take_said_digit(&mut self, leg: SipLegId, digit: InfoDigit) {
        if let Some(&(key, Seat::Leg(leg))) = self.by_leg.get(&leg) {
            let way = (DigitWay::Info, digit.duration_millis.into());
            let input = Input::DigitSaid { leg, digit };
            self.take_digit((key, leg), digit.digit, way, input);
        }
    }

    fn take_digit(
        &mut self,
        (key, leg): (CallKey, LegIndex),
        digit: Digit,
        (source, duration_ms): (DigitWay, u32),
        input: Input,
    ) {
        let Some(entry) = self.calls.get_mut(&key) else {
            return;
        };
        entry.digit_counts[leg.as_usize()] += 1;
        let switches = entry.switches[leg.as_usize()];
        let is_shown = self.config.media.shows_digits && !switches.together().hides_digits;
        // What an operator hides reaches no far side by another way either.
        let goes_on =
            !switches.by_operator.hides_digits || !matches!(entry.call, Machine::Bridge(_));
        if goes_on {
            self.inputs.push_back((key, input));
        }
        let kind = CallEventKind::Digit {
            source,
            duration_ms,
            value: is_shown.then(|| digit.as_char()),
        };
        self.tell_call(key, Some(leg), kind);
    }

    fn end_recording(
        &mut self,
        id: RecordingId,
        of: RecordingOf,
        path: &FilePath,
        outcome: Option<RecordingOutcome>,
    ) {
        let ending = RecordingEnding::new(path, outcome);
        let sha256 = ending.sha256.as_deref();
        let path = path.as_str();
        match outcome {
            Some(outcome) if outcome.cause == RecordingEnd::Stopped => tracing::info!(
                ?of,
                path,
                duration_ms = outcome.duration_millis,
                bytes = outcome.bytes,
                lost_packets = outcome.lost_packets,
                sha256,
                "recording complete"
            ),
            Some(outcome) => tracing::error!(
                ?of,
                path,
                cause = ?outcome.cause,
                duration_ms = outcome.duration_millis,
                bytes = outcome.bytes,
                "recording ended early"
            ),
            None => tracing::error!(
                ?of,
                path,
                "the edge process ended with this recording unfinished; the file holds what it wrote"
            ),
        }
        let (call_id, tenant, conference) = match of {
            RecordingOf::Call { call_id, tenant } => (Some(call_id), tenant, None),
            RecordingOf::Conference { tenant, name } => (None, Some(tenant), Some(name)),
        };
        if let Some(call_id) = &call_id
            && let Some(key) = self.key_in(call_id)
        {
            let kind = CallEventKind::RecordingEnded(ending.clone());
            self.events.push((key, call_id), self.unix_ms, None, kind);
            if !self.calls.contains_key(&key) && !self.proxy.owes_recording_of(call_id) {
                self.events.end(key);
            }
        }
        self.recordings.push_back(RecordingRecord {
            recording_id: format!("{:x}-{:x}", id.0 >> 32, id.0 & u64::from(u32::MAX)),
            call_id,
            tenant,
            conference,
            ended_unix_ms: self.unix_ms,
            ending,
        });
    }

    /// The call is over. Its list stays open for the ends of recordings that are still written.
    pub(super) fn end_events(&mut self, key: CallKey) {
        self.tell_call(key, None, CallEventKind::CallEnded);
        let Some(entry) = self.calls.get(&key) else {
            return;
        };
        if !self.proxy.owes_recording_of(&entry.call.record().call_id) {
            self.events.end(key);
        }
    }

    fn tell(&mut self, session: SessionId, leg: LegIndex, kind: CallEventKind) {
        if let Some(&key) = self.by_session.get(&session) {
            self.tell_call(key, Some(leg), kind);
        }
    }

    fn tell_call(&mut self, key: CallKey, leg: Option<LegIndex>, kind: CallEventKind) {
        if let Some(entry) = self.calls.get(&key) {
            let call_id = &entry.call.record().call_id;
            self.events.push((key, call_id), self.unix_ms, leg, kind);
        }
    }

    fn session_input(&mut self, session: SessionId, input: Input) {
        if let Some(&key) = self.by_session.get(&session) {
            self.inputs.push_back((key, input));
        }
    }
}
