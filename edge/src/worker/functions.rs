//! What sessions do beside relaying, as far as it needs the worker: prompts that are loaded
//! elsewhere, recordings that are written elsewhere, the clock, and packets of the edge's own.

use std::collections::VecDeque;

use trunkline_edge_api::{
    Command, Correlation, Counter, DropReason, Event, LegIndex, MonoTime, PlaySource, Playback,
    Recording, RecordingId, Refusal, SessionId,
};
use trunkline_media::session::{PreparedPlayback, TRANSMIT_LEN_MAX};
use trunkline_media::tone;
use trunkline_media::{MediaKind, SessionCommand, Transmit};

use super::clocked::Clocked;
use super::conferences::Conferences;
use super::{Worker, guarded};
use crate::prompts::{Payloads, PromptHandle};
use crate::publish;
use crate::recording::{RecorderHandle, RecordingSlot};
use crate::session_table::SessionKey;

/// Playbacks that may wait for their prompts to be encoded.
const PENDING_PLAYS_MAX: usize = 256;

/// Recordings of one session at once: each leg alone, both together, and the packets.
const RECORDINGS_PER_SESSION_MAX: usize = 4;

/// Packets that a session may send on one occasion: a packet for each of its feeds on both legs,
/// three ends of an event, and what a worker that was away has to catch up with.
const PACKETS_AT_ONCE_MAX: usize = 32;

/// Between a digit's end and its recognition lie the jitter buffer that it is heard through, at
/// most 200 ms deep, and the packets that the recognition takes.
const HIDDEN_BEFORE_MILLIS: u64 = 260;

/// The helpers of a worker; see their modules.
pub(crate) struct Helpers {
    pub(crate) prompts: PromptHandle,
    pub(crate) recorder: RecorderHandle,
}

/// What the worker keeps for the functions of all its sessions.
pub(super) struct Functions {
    pub(super) prompts: PromptHandle,
    pub(super) recorder: RecorderHandle,
    pub(super) clocked: Clocked,
    pub(super) conferences: Conferences,
    pending_plays: VecDeque<PendingPlay>,
    /// Recordings whose end was not told yet.
    recordings: u64,
    /// Where packets of the edge's own are made.
    pub(super) packet: Box<[u8; TRANSMIT_LEN_MAX]>,
}

/// A [`Command::Play`] whose prompts are being encoded for its leg.
struct PendingPlay {
    correlation: Correlation,
    session: SessionId,
    leg: LegIndex,
    playback: Playback,
}

/// A recording of a session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunningRecording {
    pub(crate) id: RecordingId,
    pub(crate) slot: RecordingSlot,
}

/// Whether a command was carried out, or is to be answered later.
enum Answer {
    Now(Result<(), Refusal>),
    Later,
}

impl From<Result<(), Refusal>> for Answer {
    fn from(result: Result<(), Refusal>) -> Self {
        Self::Now(result)
    }
}

impl Functions {
    pub(super) fn new(helpers: Helpers, sessions_max: u32) -> Self {
        Self {
            prompts: helpers.prompts,
            recorder: helpers.recorder,
            clocked: Clocked::new(sessions_max),
            conferences: Conferences::default(),
            pending_plays: VecDeque::with_capacity(PENDING_PLAYS_MAX),
            recordings: 0,
            packet: Box::new([0; TRANSMIT_LEN_MAX]),
        }
    }

    /// When time is to be told next; `None`: to nobody.
    pub(super) fn next_tick(&self) -> Option<MonoTime> {
        let sessions = (!self.clocked.is_empty()).then(|| self.clocked.next_at());
        let conferences = self.conferences.next_at();
        sessions.into_iter().chain(conferences).min()
    }

    /// Whether something is still to be told that other threads are at work on.
    pub(super) fn is_busy(&self) -> bool {
        self.recordings != 0
    }
}

impl Worker {
    /// Carries out what no relay needs.
    pub(super) fn handle_function(
        &mut self,
        now: MonoTime,
        correlation: Correlation,
        command: Command,
    ) {
        if let Answer::Now(result) = self.function(now, correlation, command) {
            self.answer(correlation, result);
        }
    }

    fn function(&mut self, now: MonoTime, correlation: Correlation, command: Command) -> Answer {
        let (id, command) = match command {
            Command::SetLegAudio {
                session,
                leg,
                audio,
            } => {
                let result = self
                    .on_session(now, session, SessionCommand::SetAudio(leg, audio))
                    .and_then(|()| self.rejoin(session, leg));
                return result.into();
            }
            Command::SetLegFunctions {
                session,
                leg,
                functions,
            } => (session, SessionCommand::SetFunctions(leg, functions)),
            Command::StopPlaying { session, leg } => {
                self.forget_pending_plays(session, leg);
                (session, SessionCommand::StopPlaying(leg))
            }
            Command::SendDigits {
                session,
                leg,
                digits,
            } => (session, SessionCommand::SendDigits(leg, digits)),
            Command::SetFork { session, leg, fork } => {
                (session, SessionCommand::SetFork(leg, fork))
            }
            Command::LoadPrompt { prompt, path, raw } => {
                let asked = self.functions.prompts.load(correlation, prompt, &path, raw);
                return asked.map_or_else(|refusal| Err(refusal).into(), |()| Answer::Later);
            }
            Command::UnloadPrompt { prompt } => {
                let asked = self.functions.prompts.unload(correlation, prompt);
                return asked.map_or_else(|refusal| Err(refusal).into(), |()| Answer::Later);
            }
            Command::Play {
                session,
                leg,
                playback,
            } => {
                self.forget_pending_plays(session, leg);
                return self.play(
                    now,
                    PendingPlay {
                        correlation,
                        session,
                        leg,
                        playback,
                    },
                );
            }
            Command::StartRecording { session, recording } => {
                return self.start_recording(now, session, &recording).into();
            }
            Command::StopRecording { session, recording } => {
                self.stop_recording(now, session, recording);
                return Ok(()).into();
            }
            Command::JoinConference {
                session,
                leg,
                membership,
            } => return self.join_conference(now, session, leg, membership).into(),
            Command::LeaveConference { session, leg } => {
                self.leave_conference(now, session, leg);
                return Ok(()).into();
            }
            Command::SetConference {
                conference,
                settings,
            } => return self.set_conference(now, conference, &settings).into(),
            Command::CloseConference { conference } => {
                self.close_conference(now, conference);
                return Ok(()).into();
            }
            Command::OpenLeg { .. }
            | Command::ConfigureLeg { .. }
            | Command::CloseLeg { .. }
            | Command::CloseSession { .. }
            | Command::QuerySession { .. }
            | Command::QueryAllSessions
            | Command::CloseOtherEpochs { .. } => return Err(Refusal::Undecodable).into(),
        };
        self.on_session(now, id, command).into()
    }

    /// Has a session carry a command out, and sees to what it wants then.
    pub(super) fn on_session(
        &mut self,
        now: MonoTime,
        id: SessionId,
        command: SessionCommand,
    ) -> Result<(), Refusal> {
        let key = self.sessions.find(id).ok_or(Refusal::NoSuchLeg)?;
        let result = self.command_session(now, key, command);
        self.serve_session(now, key);
        result
    }

    /// Sends and tells what a session has to send and to tell, and remembers whether it is clocked.
    pub(super) fn serve_session(&mut self, now: MonoTime, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let (tier, cells) = (&mut self.tier, self.end.counters());
        let packet = &mut self.functions.packet;
        let served = guarded(|| {
            for _ in 0..PACKETS_AT_ONCE_MAX {
                let Some(transmit) = session.media.poll_transmit(now, packet) else {
                    break;
                };
                let bytes = packet.get(..transmit.len).unwrap_or_default();
                let sent = session
                    .socket_of(&transmit)
                    .and_then(|socket| tier.send_made(bytes, socket, key, transmit));
                match sent {
                    Ok(is_told_later) => {
                        if !is_told_later {
                            publish::count_sent(cells, transmit.kind, transmit.len);
                        }
                        cells.add(
                            match transmit.kind {
                                MediaKind::Rtp => Counter::PacketsEncoded,
                                MediaKind::Rtcp => Counter::RtcpGenerated,
                            },
                            1,
                        );
                    }
                    Err(reason) => {
                        publish::count_dropped(cells, reason);
                        session.media.handle_own_send_failure(&transmit);
                    }
                }
            }
            session.media.wants().ticks
        });
        match served {
            Ok(true) => self.functions.clocked.insert(key.slot()),
            Ok(false) => self.functions.clocked.remove(key.slot()),
            Err(super::Panicked) => {
                self.close_panicked(key);
                return;
            }
        }
        self.tell_all(key);
    }

    /// The kernel did not take what a session made.
    pub(super) fn handle_own_send_failure(
        &mut self,
        key: SessionKey,
        transmit: &Transmit,
        reason: DropReason,
    ) {
        publish::count_dropped(self.end.counters(), reason);
        if let Some(session) = self.sessions.get_mut(key)
            && guarded(|| session.media.handle_own_send_failure(transmit)).is_err()
        {
            self.close_panicked(key);
        }
    }

    /// Once in each duty cycle: the clock, and what other threads have done. Returns how many
    /// sessions were told the time.
    pub(super) fn run_functions(&mut self, now: MonoTime) -> usize {
        while let Some(answer) = self.functions.prompts.poll_answer() {
            self.answer(answer.correlation, answer.result);
        }
        self.functions.recorder.flush(now);
        while let Some(ended) = self.functions.recorder.poll_finished() {
            self.functions.recordings = self.functions.recordings.saturating_sub(1);
            let cells = self.end.counters();
            cells.add(Counter::RecordingPacketsLost, ended.outcome.lost_packets);
            // One that is lost makes the ring ask control to resync.
            let _ = self.end.send_event(&Event::RecordingEnded {
                recording: ended.recording,
                outcome: ended.outcome,
            });
        }
        for _ in 0..self.functions.pending_plays.len() {
            let Some(pending) = self.functions.pending_plays.pop_front() else {
                break;
            };
            let correlation = pending.correlation;
            if let Answer::Now(result) = self.play(now, pending) {
                self.answer(correlation, result);
            }
        }
        let ticked = self.tick_sessions(now) + self.tick_conferences(now);
        let cells = self.end.counters();
        cells.set(Counter::RecordingsActive, self.functions.recordings);
        ticked
    }

    fn tick_sessions(&mut self, now: MonoTime) -> usize {
        if self.functions.clocked.is_empty() {
            self.end.counters().set(Counter::PlaybacksActive, 0);
            return 0;
        }
        let Some(tick) = self.functions.clocked.take_tick(now) else {
            return 0;
        };
        self.end
            .counters()
            .add(Counter::TicksLate, u64::from(tick.is_late));
        let count = self.functions.clocked.len();
        let mut playbacks = 0;
        for place in (0..count).rev() {
            let slot = self.functions.clocked.slot_at(place);
            let Some(key) = slot.and_then(|slot| Some(self.sessions.in_slot(slot)?.0)) else {
                continue;
            };
            if let Some(session) = self.sessions.get_mut(key) {
                if guarded(|| session.media.handle_tick(now)).is_err() {
                    self.close_panicked(key);
                    continue;
                }
                playbacks += session.media.playback_count();
            }
            self.serve_session(now, key);
        }
        self.end
            .counters()
            .set(Counter::PlaybacksActive, playbacks as u64);
        count
    }

    /// Plays, or puts the command aside until its prompts and tones are encoded.
    fn play(&mut self, now: MonoTime, wanted: PendingPlay) -> Answer {
        let key = self.sessions.find(wanted.session);
        let Some((key, session)) = key.and_then(|key| Some((key, self.sessions.get_mut(key)?)))
        else {
            return Err(Refusal::NoSuchLeg).into();
        };
        if session.media.local(wanted.leg).is_none() {
            return Err(Refusal::NoSuchLeg).into();
        }
        let mode = wanted.playback.mode;
        let Some(format) = session.media.playback_format(wanted.leg, mode) else {
            return Err(Refusal::AudioNotConfigured).into();
        };
        let may_wait = self.functions.pending_plays.len() < PENDING_PLAYS_MAX;
        let (mut prompts, mut tones) = (Vec::new(), Vec::new());
        for source in wanted.playback.sources.as_slice() {
            let library = &mut self.functions.prompts;
            let (tone, found) = match *source {
                PlaySource::Prompt(prompt) => (None, library.payloads(prompt, &format)),
                PlaySource::Tone(tone) => (Some(tone), library.tone_payloads(&tone, &format)),
                PlaySource::Silence { .. } => {
                    let silence = tone::silence();
                    (Some(silence), library.tone_payloads(&silence, &format))
                }
            };
            match (tone, found) {
                (None, Payloads::Ready(payloads)) => prompts.push(payloads),
                (Some(tone), Payloads::Ready(payloads)) => tones.push((tone, payloads)),
                (None, Payloads::Refused(refusal)) => return Err(refusal).into(),
                (_, Payloads::Pending) if may_wait => {
                    self.functions.pending_plays.push_back(wanted);
                    return Answer::Later;
                }
                (None, Payloads::Pending) => return Err(Refusal::WorkerBusy).into(),
                // The leg makes it itself.
                (Some(_), Payloads::Refused(_) | Payloads::Pending) => {}
            }
        }
        let prepared = PreparedPlayback {
            playback: wanted.playback,
            prompts,
            tones,
        };
        let result = self.command_session(now, key, SessionCommand::Play(wanted.leg, prepared));
        self.serve_session(now, key);
        result.into()
    }

    /// A later command for the leg makes those that wait pointless; that they hold no longer is
    /// what was asked for.
    fn forget_pending_plays(&mut self, session: SessionId, leg: LegIndex) {
        for _ in 0..self.functions.pending_plays.len() {
            let Some(pending) = self.functions.pending_plays.pop_front() else {
                return;
            };
            if (pending.session, pending.leg) == (session, leg) {
                self.answer(pending.correlation, Ok(()));
            } else {
                self.functions.pending_plays.push_back(pending);
            }
        }
    }

    fn start_recording(
        &mut self,
        now: MonoTime,
        id: SessionId,
        recording: &Recording,
    ) -> Result<(), Refusal> {
        let key = self.sessions.find(id).ok_or(Refusal::NoSuchLeg)?;
        let session = self.sessions.get_mut(key).ok_or(Refusal::NoSuchLeg)?;
        let running = session
            .recordings
            .iter()
            .find(|running| running.id == recording.id);
        if let Some(running) = running {
            self.functions
                .recorder
                .pause(running.slot, recording.paused, now);
            return Ok(());
        }
        if session.recordings.len() >= RECORDINGS_PER_SESSION_MAX {
            return Err(Refusal::TooManyRecordings);
        }
        let has_format = |leg| session.media.send_format(leg).is_some();
        if !LegIndex::ALL.into_iter().any(has_format) {
            return Err(Refusal::AudioNotConfigured);
        }
        let slot = self.functions.recorder.start(recording, now)?;
        self.functions.recordings += 1;
        session.recordings.push(RunningRecording {
            id: recording.id,
            slot,
        });
        for leg in LegIndex::ALL {
            self.tap_if_recorded(now, key, leg);
        }
        Ok(())
    }

    /// A leg that is there, or comes to be, is heard by the session's recordings.
    pub(super) fn tap_if_recorded(&mut self, now: MonoTime, key: SessionKey, leg: LegIndex) {
        let is_recorded = |session: &crate::session_table::Session| {
            !session.recordings.is_empty() && session.media.local(leg).is_some()
        };
        if self
            .sessions
            .get_mut(key)
            .is_some_and(|session| is_recorded(session))
        {
            // Of a leg that is open it is never refused.
            let _ = self.command_session(now, key, SessionCommand::SetTapped(leg, true));
        }
    }

    fn stop_recording(&mut self, now: MonoTime, id: SessionId, recording: RecordingId) {
        let Some(key) = self.sessions.find(id) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let place = session
            .recordings
            .iter()
            .position(|running| running.id == recording);
        if let Some(place) = place {
            let running = session.recordings.swap_remove(place);
            self.functions.recorder.stop(running.slot, now);
        }
        if session.recordings.is_empty() {
            for leg in LegIndex::ALL {
                // A leg that is not open is not tapped either.
                let _ = self.command_session(now, key, SessionCommand::SetTapped(leg, false));
            }
        }
    }

    /// Hands what was just heard on `leg` to the session's recordings.
    #[cold]
    pub(super) fn record_tapped(&mut self, now: MonoTime, key: SessionKey, leg: LegIndex) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(tapped) = session.media.take_tapped(leg) else {
            return;
        };
        for running in &session.recordings {
            self.functions
                .recorder
                .tap(running.slot, leg, now, tapped.format, tapped.packet);
        }
    }

    /// A digit of `leg`'s peer that nobody is to hear ended just now.
    pub(super) fn hide_from_recordings(
        &mut self,
        key: SessionKey,
        leg: LegIndex,
        duration_millis: u32,
    ) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let now = trunkline_ring::monotonic_now();
        let since_millis = u64::from(duration_millis) + HIDDEN_BEFORE_MILLIS;
        let from = MonoTime(now.0.saturating_sub(since_millis * 1_000_000));
        for running in &session.recordings {
            self.functions
                .recorder
                .suppress(running.slot, leg, (from, now), now);
        }
    }

    /// A recording that control did not ask about a session, but a conference.
    pub(super) fn start_mix_recording(
        &mut self,
        now: MonoTime,
        recording: &Recording,
    ) -> Result<RecordingSlot, Refusal> {
        let slot = self.functions.recorder.start(recording, now)?;
        self.functions.recordings += 1;
        Ok(slot)
    }

    /// The session is gone from the table: whatever it had going ends with it.
    pub(super) fn end_functions(
        &mut self,
        now: MonoTime,
        key: SessionKey,
        session: &mut crate::session_table::Session,
    ) {
        self.functions.clocked.remove(key.slot());
        for running in session.recordings.drain(..) {
            self.functions.recorder.stop(running.slot, now);
        }
        for leg in LegIndex::ALL {
            self.forget_pending_plays(session.id, leg);
            self.leave_closed(session.id, leg);
        }
        let concealed = session.media.concealed_millis() / 20;
        self.end
            .counters()
            .add(Counter::PacketsConcealed, concealed);
    }
}
