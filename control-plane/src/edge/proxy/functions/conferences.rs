//! Conferences: all members of one live on one worker, which is chosen with the first of them.

use std::collections::HashMap;
use std::net::IpAddr;

use trunkline_edge_api::{
    Command, ConferenceId, ConferenceSettings, LegIndex, Membership, MonoTime, Recording,
    RecordingId, SessionId, Ssrc,
};

use super::{FunctionError, OwedRecording, RecordingOf, RecordingPlan, Ticket, What};
use crate::edge::proxy::{EdgeProxy, MediaRefused};

#[derive(Debug)]
struct Conference {
    worker: usize,
    announces: bool,
    recording: Option<MixRecording>,
}

#[derive(Debug)]
struct MixRecording {
    of: RecordingOf,
    recording: Recording,
}

impl Conference {
    fn is_recording_as(&self, id: RecordingId) -> bool {
        let wanted = self.recording.as_ref();
        wanted.is_some_and(|wanted| wanted.recording.id == id)
    }
}

/// Every conference that has members or is about to.
#[derive(Debug, Default)]
pub(in crate::edge::proxy) struct Conferences {
    by_id: HashMap<ConferenceId, Conference>,
}

impl Conferences {
    pub(super) fn is_recording_as(&self, id: RecordingId) -> bool {
        let mut all = self.by_id.values();
        all.any(|conference| conference.is_recording_as(id))
    }

    pub(super) fn forget_recording(&mut self, id: RecordingId) {
        for conference in self.by_id.values_mut() {
            if conference.is_recording_as(id) {
                conference.recording = None;
            }
        }
    }
}

impl EdgeProxy {
    /// Opens a session of one leg for a member of `conference`, on our media address `ip`. The
    /// first member brings the conference to be, with `announces` and `recording`.
    ///
    /// # Errors
    /// [`MediaRefused`]: the caller is owed a 503.
    pub fn open_member(
        &mut self,
        now: MonoTime,
        ip: IpAddr,
        ssrc: Ssrc,
        conference: ConferenceId,
        announces: bool,
        recording: Option<RecordingPlan>,
    ) -> Result<SessionId, MediaRefused> {
        let known = self.conferences.by_id.get(&conference).map(|c| c.worker);
        let session = self.open_single(now, ip, ssrc, known)?;
        if let Some(entry) = self.sessions.get_mut(&session) {
            entry.conference = Some(conference);
        }
        if known.is_none()
            && let Some(worker) = self.sessions.get(&session).map(|entry| entry.worker)
        {
            let recording = recording.map(|plan| self.mix_recording(plan));
            let entry = Conference {
                worker,
                announces,
                recording,
            };
            self.conferences.by_id.insert(conference, entry);
            self.send_conference(conference, None);
        }
        Ok(session)
    }

    fn mix_recording(&mut self, plan: RecordingPlan) -> MixRecording {
        MixRecording {
            of: plan.of,
            recording: Recording {
                id: self.recording_id(),
                path: plan.path,
                format: plan.format,
                tracks: plan.tracks,
                paused: false,
            },
        }
    }

    /// Makes a leg part of a conference on its worker, or changes its part.
    ///
    /// # Errors
    /// [`FunctionError::NoSession`], [`FunctionError::EdgeBusy`]; [`FunctionError::NoAudio`] for a
    /// leg without formats.
    pub fn join(
        &mut self,
        session: SessionId,
        leg: LegIndex,
        membership: Membership,
        ticket: Option<Ticket>,
    ) -> Result<(), FunctionError> {
        self.serve(session)?;
        let entry = self.open_entry(session).ok_or(FunctionError::NoSession)?;
        let wanted = &mut entry.wanted.legs[leg.as_usize()];
        if wanted.audio.is_none() {
            return Err(FunctionError::NoAudio);
        }
        wanted.membership = Some(membership);
        self.send_join(session, leg, ticket);
        Ok(())
    }

    pub(super) fn send_join(&mut self, session: SessionId, leg: LegIndex, ticket: Option<Ticket>) {
        let Some(entry) = self.sessions.get(&session) else {
            return;
        };
        let worker = entry.worker;
        if let Some(membership) = entry.wanted.legs[leg.as_usize()].membership {
            let command = Command::JoinConference {
                session,
                leg,
                membership,
            };
            self.ask(worker, command, What::Join(session, leg), ticket);
        }
    }

    /// A leg's part in its conference; `None` for one that is in none.
    #[must_use]
    pub fn membership(&self, session: SessionId, leg: LegIndex) -> Option<Membership> {
        let entry = self.sessions.get(&session)?;
        entry.wanted.legs[leg.as_usize()].membership
    }

    /// Members of a conference, those on their way included.
    #[must_use]
    pub fn conference_len(&self, conference: ConferenceId) -> usize {
        let sessions = self.sessions.values();
        let members = sessions.filter(|session| session.conference == Some(conference));
        members.count()
    }

    /// The file that a conference is being recorded into.
    #[must_use]
    pub fn conference_recording(&self, conference: ConferenceId) -> Option<&Recording> {
        let entry = self.conferences.by_id.get(&conference)?;
        Some(&entry.recording.as_ref()?.recording)
    }

    /// Records what everybody in a conference hears.
    ///
    /// # Errors
    /// [`FunctionError::NoSession`] when nobody is in it, [`FunctionError::AlreadyRecording`].
    pub fn record_conference(
        &mut self,
        conference: ConferenceId,
        plan: RecordingPlan,
        ticket: Option<Ticket>,
    ) -> Result<(), FunctionError> {
        let wanted = self.mix_recording(plan);
        let entry = self.conferences.by_id.get_mut(&conference);
        let entry = entry.ok_or(FunctionError::NoSession)?;
        if entry.recording.is_some() {
            return Err(FunctionError::AlreadyRecording);
        }
        entry.recording = Some(wanted);
        self.send_conference(conference, ticket);
        Ok(())
    }

    /// Has a conference's recording rest, or go on.
    ///
    /// # Errors
    /// [`FunctionError::NoSession`], [`FunctionError::NotRecording`].
    pub fn pause_conference_recording(
        &mut self,
        conference: ConferenceId,
        paused: bool,
        ticket: Option<Ticket>,
    ) -> Result<(), FunctionError> {
        let entry = self.conferences.by_id.get_mut(&conference);
        let entry = entry.ok_or(FunctionError::NoSession)?;
        let wanted = entry.recording.as_mut();
        wanted.ok_or(FunctionError::NotRecording)?.recording.paused = paused;
        self.send_conference(conference, ticket);
        Ok(())
    }

    /// Ends a conference's recording; `MediaEvent::RecordingEnded` follows.
    ///
    /// # Errors
    /// [`FunctionError::NoSession`], [`FunctionError::NotRecording`].
    pub fn stop_conference_recording(
        &mut self,
        conference: ConferenceId,
        ticket: Option<Ticket>,
    ) -> Result<(), FunctionError> {
        let entry = self.conferences.by_id.get_mut(&conference);
        let entry = entry.ok_or(FunctionError::NoSession)?;
        entry.recording.take().ok_or(FunctionError::NotRecording)?;
        self.send_conference(conference, ticket);
        Ok(())
    }

    /// A session is gone: the last member's conference ends with it.
    pub(in crate::edge::proxy) fn leave(&mut self, conference: Option<ConferenceId>) {
        let Some(conference) = conference else { return };
        if self.conference_len(conference) == 0
            && let Some(entry) = self.conferences.by_id.remove(&conference)
        {
            let command = Command::CloseConference { conference };
            self.ask(entry.worker, command, What::Change, None);
        }
    }

    fn send_conference(&mut self, conference: ConferenceId, ticket: Option<Ticket>) {
        let Some(entry) = self.conferences.by_id.get(&conference) else {
            return;
        };
        let worker = entry.worker;
        let settings = ConferenceSettings {
            announces: entry.announces,
            recording: entry.recording.as_ref().map(|mix| mix.recording.clone()),
        };
        let mut what = What::Change;
        if let Some(MixRecording { of, recording }) = &entry.recording {
            what = What::RecordConference(conference, recording.id);
            let owed = OwedRecording {
                of: of.clone(),
                session: None,
                worker,
                path: recording.path.clone(),
            };
            self.recordings.insert(recording.id, owed);
        }
        let command = Command::SetConference {
            conference,
            settings: Box::new(settings),
        };
        self.ask(worker, command, what, ticket);
    }

    /// Says the conferences of a worker again, before their members.
    pub(in crate::edge::proxy) fn replay_conferences(&mut self, worker: usize) {
        for conference in self.conferences_on(worker) {
            self.send_conference(conference, None);
        }
    }

    fn conferences_on(&self, worker: usize) -> Vec<ConferenceId> {
        let all = self.conferences.by_id.iter();
        let here = all.filter(|(_, conference)| conference.worker == worker);
        let mut ids: Vec<ConferenceId> = here.map(|(&id, _)| id).collect();
        ids.sort_unstable();
        ids
    }
}
