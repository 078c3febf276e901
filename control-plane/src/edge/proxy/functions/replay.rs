//! Functions said again to a fresh edge.

use trunkline_edge_api::{
    Command, LegFunctions, LegIndex, RecordingFormat, RecordingId, SessionId,
};

use super::{OwedRecording, What};
use crate::edge::proxy::{EdgeProxy, Session};

impl EdgeProxy {
    /// What was said to the last edge process of `worker` is gone with it. A WAV file goes on where
    /// it ended when its recording is said again; packets need a file of their own.
    pub(in crate::edge::proxy) fn renew_functions(&mut self, worker: usize) {
        let is_cut = |session: &Session| {
            let wanted = session.wanted.recording.as_ref();
            let format = wanted.map(|wanted| wanted.recording.format);
            session.worker == worker && format == Some(RecordingFormat::Pcap)
        };
        let cut = self.sessions.iter().filter(|(_, session)| is_cut(session));
        let cut: Vec<SessionId> = cut.map(|(&id, _)| id).collect();
        for session in cut {
            let id = self.recording_id();
            let Some(entry) = self.sessions.get_mut(&session) else {
                continue;
            };
            let Some(mut wanted) = entry.wanted.recording.take() else {
                continue;
            };
            let last = wanted.recording.id;
            entry.wanted.recording = wanted.renew(id).map(|()| wanted);
            if let Some(owed) = self.recordings.remove(&last) {
                self.tell_recording_ended(last, owed, None);
            }
        }
        // Those that were being stopped will not be told of.
        let (sessions, conferences) = (&self.sessions, &self.conferences);
        let is_wanted = |id: RecordingId, owed: &OwedRecording| {
            let session = owed.session.and_then(|session| sessions.get(&session));
            match owed.session {
                Some(_) => session.is_some_and(|entry| entry.wanted.is_recording_as(id)),
                None => conferences.is_recording_as(id),
            }
        };
        let lost: Vec<RecordingId> = self
            .recordings
            .iter()
            .filter(|(id, owed)| owed.worker == worker && !is_wanted(**id, owed))
            .map(|(&id, _)| id)
            .collect();
        for id in lost {
            if let Some(owed) = self.recordings.remove(&id) {
                self.tell_recording_ended(id, owed, None);
            }
        }
    }

    /// Says again what one leg does, after its sockets and its peer were said.
    pub(in crate::edge::proxy) fn send_leg_functions(&mut self, session: SessionId, leg: LegIndex) {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return;
        };
        let worker = entry.worker;
        let wanted = &mut entry.wanted.legs[leg.as_usize()];
        wanted.is_audio_said = false;
        let has_switches = wanted.switches != LegFunctions::default();
        let (fork, is_playing) = (wanted.fork, wanted.playback.is_some());
        self.send_audio(session, leg);
        if has_switches {
            self.send_switches(session, leg, None);
        }
        if fork.is_some() {
            let command = Command::SetFork { session, leg, fork };
            self.ask(worker, command, What::Change, None);
        }
        self.send_join(session, leg, None);
        if is_playing {
            self.send_play(session, leg);
        }
    }

    /// Says again what a session as a whole does.
    pub(in crate::edge::proxy) fn send_session_functions(&mut self, session: SessionId) {
        self.send_recording(session, None);
    }
}
