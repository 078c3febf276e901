//! The conferences of a worker: who is in, and the clock that mixes them.

use std::collections::HashMap;
use std::sync::Arc;

use trunkline_edge_api::{
    AudioFormat, ConferenceId, ConferenceSettings, Counter, Event, LegIndex, Membership, MonoTime,
    PacketTime, Refusal, SessionId,
};
use trunkline_media::conference::{
    Announcements, Conference, ConferenceEvent, FRAME_MILLIS, JoinError, MEMBERS_MAX, MemberKey,
    MemberSlot, MixOutput,
};
use trunkline_media::session::MixFrame;
use trunkline_media::{MediaKind, SampleRate, SessionCommand};

use super::{Worker, guarded};
use crate::publish;
use crate::recording::RecordingSlot;
use crate::session_table::SessionKey;

/// Conferences of one worker at once.
const CONFERENCES_MAX: usize = 1_000;

/// A frame, nanoseconds.
const FRAME_NANOS: u64 = FRAME_MILLIS as u64 * 1_000_000;

/// Samples of a frame at the higher of a conference's rates.
const FRAME_LEN_MAX: usize = SampleRate::Hz16000.samples(FRAME_MILLIS);

#[derive(Default)]
pub(super) struct Conferences {
    rooms: HashMap<ConferenceId, Room>,
    /// In which conference a leg is.
    seats: HashMap<MemberKey, (ConferenceId, Membership)>,
    tones: Arc<Announcements>,
    next_at: MonoTime,
}

struct Room {
    conference: Conference,
    members: Vec<Seated>,
    recording: Option<(trunkline_edge_api::RecordingId, RecordingSlot)>,
    /// Control said how it behaves: it stays when nobody is in.
    is_kept: bool,
}

/// A member, as the worker finds it.
struct Seated {
    key: MemberKey,
    session: SessionKey,
    slot: MemberSlot,
    rate: SampleRate,
}

impl Conferences {
    /// When the next frame is due; `None` while nobody is in any conference.
    pub(super) fn next_at(&self) -> Option<MonoTime> {
        (!self.seats.is_empty()).then_some(self.next_at)
    }

    fn room(&mut self, id: ConferenceId) -> Result<&mut Room, Refusal> {
        if self.rooms.len() >= CONFERENCES_MAX && !self.rooms.contains_key(&id) {
            return Err(Refusal::ConferenceFull);
        }
        let tones = &self.tones;
        Ok(self.rooms.entry(id).or_insert_with(|| Room {
            conference: Conference::new(MEMBERS_MAX, Arc::clone(tones)),
            members: Vec::new(),
            recording: None,
            is_kept: false,
        }))
    }

    /// Whether the frame after this one is due, which is then the next.
    fn take_frame(&mut self, now: MonoTime) -> bool {
        if self.seats.is_empty() || now < self.next_at {
            return false;
        }
        self.next_at = MonoTime((now.0 / FRAME_NANOS + 1) * FRAME_NANOS);
        true
    }
}

fn refusal_of(error: JoinError) -> Refusal {
    match error {
        JoinError::Full => Refusal::ConferenceFull,
        JoinError::Unsupported(_) => Refusal::FormatUnsupported,
    }
}

impl Worker {
    pub(super) fn join_conference(
        &mut self,
        now: MonoTime,
        session: SessionId,
        leg: LegIndex,
        membership: Membership,
    ) -> Result<(), Refusal> {
        let key = self.sessions.find(session).ok_or(Refusal::NoSuchLeg)?;
        let seat = self.functions.conferences.seats.get(&(session, leg));
        if seat.is_some_and(|(id, _)| *id != membership.conference) {
            self.leave_conference(now, session, leg);
        }
        self.on_session(now, session, SessionCommand::SetSeated(leg, true))?;
        let format = self
            .sessions
            .get_mut(key)
            .and_then(|session| session.media.seat_format(leg))
            .ok_or(Refusal::AudioNotConfigured)?;
        let joined = self.take_seat(key, (session, leg), &format, membership);
        if joined.is_err()
            && !self
                .functions
                .conferences
                .seats
                .contains_key(&(session, leg))
        {
            // The leg was relayed before and is relayed again.
            let _ = self.on_session(now, session, SessionCommand::SetSeated(leg, false));
        }
        joined
    }

    fn take_seat(
        &mut self,
        session: SessionKey,
        key: MemberKey,
        format: &AudioFormat,
        membership: Membership,
    ) -> Result<(), Refusal> {
        let conferences = &mut self.functions.conferences;
        let room = conferences.room(membership.conference)?;
        let joined = room.conference.join(key, format, &membership);
        let slot = match joined {
            Ok(slot) => slot,
            Err(error) => {
                if room.members.is_empty() && !room.is_kept {
                    conferences.rooms.remove(&membership.conference);
                }
                return Err(refusal_of(error));
            }
        };
        let seated = Seated {
            key,
            session,
            slot,
            rate: Conference::rate_for(format),
        };
        match room.members.iter_mut().find(|member| member.key == key) {
            Some(member) => *member = seated,
            None => room.members.push(seated),
        }
        conferences
            .seats
            .insert(key, (membership.conference, membership));
        self.publish_members();
        Ok(())
    }

    /// The formats of a leg have changed: if it is in a conference, it stays there with the new.
    pub(super) fn rejoin(&mut self, session: SessionId, leg: LegIndex) -> Result<(), Refusal> {
        let Some(&(_, membership)) = self.functions.conferences.seats.get(&(session, leg)) else {
            return Ok(());
        };
        let key = self.sessions.find(session).ok_or(Refusal::NoSuchLeg)?;
        let format = self
            .sessions
            .get_mut(key)
            .and_then(|session| session.media.seat_format(leg));
        match format {
            Some(format) => self.take_seat(key, (session, leg), &format, membership),
            None => {
                self.leave_closed(session, leg);
                Ok(())
            }
        }
    }

    pub(super) fn leave_conference(&mut self, now: MonoTime, session: SessionId, leg: LegIndex) {
        if self.leave_closed(session, leg) {
            // A leg that is gone has no seat to give back.
            let _ = self.on_session(now, session, SessionCommand::SetSeated(leg, false));
        }
    }

    /// Takes a leg out of its conference, wherever the leg itself is. Returns whether it was in one.
    pub(super) fn leave_closed(&mut self, session: SessionId, leg: LegIndex) -> bool {
        let key = (session, leg);
        let conferences = &mut self.functions.conferences;
        let Some((id, _)) = conferences.seats.remove(&key) else {
            return false;
        };
        if let Some(room) = conferences.rooms.get_mut(&id) {
            room.conference.leave(key);
            room.members.retain(|member| member.key != key);
            if room.members.is_empty() && !room.is_kept {
                conferences.rooms.remove(&id);
            }
        }
        self.publish_members();
        true
    }

    pub(super) fn set_conference(
        &mut self,
        now: MonoTime,
        id: ConferenceId,
        settings: &ConferenceSettings,
    ) -> Result<(), Refusal> {
        let room = self.functions.conferences.room(id)?;
        room.is_kept = true;
        room.conference.configure(settings);
        let running = room.recording;
        let wanted = settings.recording.as_ref();
        match (running, wanted) {
            (Some((id, slot)), Some(wanted)) if id == wanted.id => {
                self.functions.recorder.pause(slot, wanted.paused, now);
                return Ok(());
            }
            (Some((_, slot)), _) => self.functions.recorder.stop(slot, now),
            (None, _) => {}
        }
        let begun = match wanted {
            Some(wanted) => Some((wanted.id, self.start_mix_recording(now, wanted)?)),
            None => None,
        };
        self.functions.conferences.room(id)?.recording = begun;
        Ok(())
    }

    pub(super) fn close_conference(&mut self, now: MonoTime, id: ConferenceId) {
        let Some(room) = self.functions.conferences.rooms.remove(&id) else {
            return;
        };
        if let Some((_, slot)) = room.recording {
            self.functions.recorder.stop(slot, now);
        }
        for Seated {
            key: (session, leg),
            ..
        } in room.members
        {
            self.leave_conference(now, session, leg);
        }
    }

    fn publish_members(&self) {
        let members = self.functions.conferences.seats.len() as u64;
        self.end.counters().set(Counter::ConferenceMembers, members);
    }

    /// Mixes one frame of every conference, if it is time. Returns how many legs that were.
    pub(super) fn tick_conferences(&mut self, now: MonoTime) -> usize {
        if !self.functions.conferences.take_frame(now) {
            return 0;
        }
        let mut panicked = Vec::new();
        let mut count = 0;
        let Self {
            sessions,
            functions,
            tier,
            end,
            ..
        } = self;
        for (id, room) in &mut functions.conferences.rooms {
            let cells = end.counters();
            let conference = &mut room.conference;
            for member in &room.members {
                let mut frame = [0; FRAME_LEN_MAX];
                let frame = &mut frame[..member.rate.samples(FRAME_MILLIS)];
                let Some(session) = sessions.get_mut(member.session) else {
                    continue;
                };
                match guarded(|| session.media.hear(now, member.key.1, frame)) {
                    Ok(true) => conference.put(member.slot, frame),
                    Ok(false) => {}
                    Err(super::Panicked) => panicked.push(member.session),
                }
            }
            conference.mix();
            for member in &room.members {
                let Some(session) = sessions.get_mut(member.session) else {
                    continue;
                };
                let packet = &mut functions.packet;
                let leg = member.key.1;
                let output = match session.media.covers_mix(leg) {
                    true => MixOutput::Own(conference.samples_for(member.slot)),
                    false => conference.output_for(member.slot),
                };
                let mix = match output {
                    MixOutput::Own(samples) => MixFrame::Samples(samples),
                    MixOutput::Shared(group) => {
                        let payload = conference.shared_payloads(group).next();
                        MixFrame::Encoded(payload.unwrap_or_default())
                    }
                };
                let made = guarded(|| session.media.send_mix(now, leg, mix, packet));
                let transmit = match made {
                    Ok(Some(transmit)) => transmit,
                    Ok(None) => continue,
                    Err(super::Panicked) => {
                        panicked.push(member.session);
                        continue;
                    }
                };
                let bytes = packet.get(..transmit.len).unwrap_or_default();
                let sent = session
                    .socket_of(&transmit)
                    .and_then(|socket| tier.send_made(bytes, socket, member.session, transmit));
                match sent {
                    Ok(is_told_later) => {
                        if !is_told_later {
                            publish::count_sent(cells, MediaKind::Rtp, transmit.len);
                        }
                        cells.add(Counter::PacketsEncoded, 1);
                    }
                    Err(reason) => {
                        publish::count_dropped(cells, reason);
                        session.media.handle_own_send_failure(&transmit);
                    }
                }
            }
            count += room.members.len();
            if let (Some((_, slot)), Some(mix)) = (room.recording, conference.recording_mix()) {
                let rate = match mix.len() {
                    FRAME_LEN_MAX => SampleRate::Hz16000,
                    _ => SampleRate::Hz8000,
                };
                functions
                    .recorder
                    .tap_samples(slot, LegIndex::A, now, rate, mix);
            }
            if let Some(ConferenceEvent::SpeakerChanged(speaker)) = conference.poll_event() {
                // One that finds no room costs a name on a screen; the ring counts it.
                let _ = end.send_event(&Event::SpeakerChanged {
                    conference: *id,
                    speaker,
                });
            }
        }
        for key in panicked {
            self.close_panicked(key);
        }
        count
    }
}

/// A member's packets are a frame long, so that what is encoded once is one packet.
const _: () = assert!(PacketTime::MS_20.millis() as u32 == FRAME_MILLIS);
