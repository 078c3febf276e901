//! What workers answer and tell of functions.

use trunkline_edge_api::{
    Correlation, Event, LegIndex, PlaySource, PlaybackEnd, PlaybackId, RecordingEnd, RecordingId,
    RecordingOutcome, Refusal, SessionId,
};

use super::{Asked, OwedRecording, What};
use crate::edge::proxy::{EdgeProxy, MediaEvent, Session};

impl EdgeProxy {
    pub(in crate::edge::proxy) fn handle_function_answer(
        &mut self,
        asked: Asked,
        correlation: Correlation,
        result: Result<(), Refusal>,
    ) {
        if let Some(ticket) = asked.ticket {
            self.events
                .push_back(MediaEvent::Outcome { ticket, result });
        }
        if result == Err(Refusal::NoSuchLeg) && self.is_rebinding(asked.what) {
            // Everything is said again once the leg is bound.
            return;
        }
        match asked.what {
            What::Audio(session, leg) => {
                self.handle_audio_answer(session, leg, correlation, result);
            }
            What::Prompt(prompt) => self.handle_prompt_answer(prompt, result),
            What::Play(session, leg, playback) => {
                if let Err(refusal) = result {
                    self.drop_playback(session, leg, playback, refusal);
                }
            }
            What::Record(session, recording) => {
                if let Err(refusal) = result {
                    self.recordings.remove(&recording);
                    self.forget_recording(Some(session), recording);
                    tracing::warn!(%session, %refusal, "not recorded");
                }
            }
            What::Join(session, leg) => {
                if let Err(refusal) = result {
                    if let Some(entry) = self.open_entry(session) {
                        entry.wanted.legs[leg.as_usize()].membership = None;
                    }
                    self.events
                        .push_back(MediaEvent::NotJoined { session, refusal });
                }
            }
            What::RecordConference(conference, recording) => {
                if let Err(refusal) = result {
                    self.recordings.remove(&recording);
                    self.forget_recording(None, recording);
                    tracing::warn!(conference = conference.0, %refusal, "not recorded");
                }
            }
            What::Change => {}
        }
    }

    pub(super) fn handle_audio_answer(
        &mut self,
        id: SessionId,
        leg: LegIndex,
        correlation: Correlation,
        result: Result<(), Refusal>,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let wanted = &mut session.wanted.legs[leg.as_usize()];
        let is_awaited = wanted.setting_audio == Some(correlation);
        if is_awaited {
            wanted.setting_audio = None;
        }
        match result {
            Ok(()) if is_awaited => self.tell_configured(id),
            Ok(()) => {}
            // Without its formats the sides cannot hear each other.
            Err(refusal) if is_awaited => self.refuse(id, refusal),
            Err(refusal) => {
                wanted.is_audio_said = false;
                tracing::warn!(session = %id, ?leg, %refusal, "formats not taken");
            }
        }
    }

    pub(super) fn drop_playback(
        &mut self,
        session: SessionId,
        leg: LegIndex,
        playback: PlaybackId,
        refusal: Refusal,
    ) {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return;
        };
        let wanted = &mut entry.wanted.legs[leg.as_usize()].playback;
        let Some(dropped) = wanted.take_if(|wanted| wanted.playback.id == playback) else {
            return;
        };
        if let Some(ticket) = dropped.ticket {
            let result = Err(refusal);
            self.events
                .push_back(MediaEvent::Outcome { ticket, result });
        }
        self.events.push_back(MediaEvent::NotPlayed {
            session,
            leg,
            playback,
            refusal,
        });
    }

    pub(super) fn handle_prompt_answer(
        &mut self,
        prompt: trunkline_edge_api::PromptId,
        result: Result<(), Refusal>,
    ) {
        self.prompts.answered(prompt, result.is_ok());
        let waits = |session: &Session, leg: LegIndex| {
            let playback = session.wanted.legs[leg.as_usize()].playback.as_ref();
            let playback = playback.filter(|wanted| wanted.is_waiting)?;
            let mut sources = playback.playback.sources.as_slice().iter();
            let source = PlaySource::Prompt(prompt);
            sources
                .any(|s| *s == source)
                .then_some(playback.playback.id)
        };
        let mut waiting = Vec::new();
        for (&id, session) in &self.sessions {
            for leg in LegIndex::ALL {
                waiting.extend(waits(session, leg).map(|playback| (id, leg, playback)));
            }
        }
        for (session, leg, playback) in waiting {
            match result {
                Ok(()) => self.send_play(session, leg),
                Err(refusal) => self.drop_playback(session, leg, playback, refusal),
            }
        }
    }

    /// An event about a function. Those of sessions that are gone or closing say nothing any more,
    /// except that a file is complete.
    pub(in crate::edge::proxy) fn handle_function_event(&mut self, event: Event) {
        match event {
            Event::DigitReceived {
                session,
                leg,
                digit,
                duration_millis,
                source,
            } if self.is_open(session) => self.events.push_back(MediaEvent::Digit {
                session,
                leg,
                digit,
                duration_millis,
                source,
            }),
            Event::PlaybackEnded {
                session,
                leg,
                playback,
                cause,
                played_millis,
            } => self.end_playback(session, leg, playback, (cause, played_millis)),
            Event::RecordingEnded { recording, outcome } => {
                let Some(owed) = self.recordings.remove(&recording) else {
                    return;
                };
                if outcome.cause != RecordingEnd::Stopped {
                    self.forget_recording(owed.session, recording);
                }
                self.tell_recording_ended(recording, owed, Some(outcome));
            }
            Event::ActivityChanged {
                session,
                leg,
                is_speaking,
            } if self.is_open(session) => self.events.push_back(MediaEvent::Activity {
                session,
                leg,
                is_speaking,
            }),
            Event::BeepHeard {
                session,
                leg,
                frequency_hz,
                duration_millis,
            } if self.is_open(session) => self.events.push_back(MediaEvent::Beep {
                session,
                leg,
                frequency_hz,
                duration_millis,
            }),
            Event::DigitsSent { session, leg, .. } if self.is_open(session) => {
                self.events
                    .push_back(MediaEvent::DigitsSent { session, leg });
            }
            Event::ProgressHeard {
                session,
                leg,
                signal,
                frequencies_hz,
            } if self.is_open(session) => self.events.push_back(MediaEvent::Progress {
                session,
                leg,
                signal,
                frequencies_hz,
            }),
            Event::SpeakerChanged {
                conference,
                speaker,
            } => self.events.push_back(MediaEvent::Speaker {
                conference,
                speaker: speaker.map(|(session, _)| session),
            }),
            _ => {}
        }
    }

    pub(super) fn end_playback(
        &mut self,
        session: SessionId,
        leg: LegIndex,
        playback: PlaybackId,
        (cause, played_millis): (PlaybackEnd, u64),
    ) {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return;
        };
        let wanted = &mut entry.wanted.legs[leg.as_usize()].playback;
        // One that another has replaced ends, too, and leaves that other alone.
        wanted.take_if(|wanted| wanted.playback.id == playback);
        self.events.push_back(MediaEvent::PlaybackEnded {
            session,
            leg,
            playback,
            cause,
            played_millis,
        });
    }

    /// A recording has ended by itself, or could not begin: it is not said again.
    fn forget_recording(&mut self, session: Option<SessionId>, recording: RecordingId) {
        match session {
            Some(session) => {
                if let Some(entry) = self.sessions.get_mut(&session)
                    && entry.wanted.is_recording_as(recording)
                {
                    entry.wanted.recording = None;
                }
            }
            None => self.conferences.forget_recording(recording),
        }
    }

    pub(super) fn tell_recording_ended(
        &mut self,
        recording: RecordingId,
        owed: OwedRecording,
        outcome: Option<RecordingOutcome>,
    ) {
        self.events.push_back(MediaEvent::RecordingEnded {
            recording,
            of: owed.of,
            path: owed.path,
            outcome,
        });
    }
}
