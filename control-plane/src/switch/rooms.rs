//! Conferences as operators see them: who is in, and what may be done to them.
//!
//! A member is named by its call's id. What is done here is wanted state of the edge proxy, so a
//! fresh edge has it again; a lock is the switch's own, and goes with the last member.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use trunkline_edge_api::{
    ConferenceId, Epoch, LegIndex, Membership, MonoTime, RecordingFormat, RecordingTracks,
    SessionId,
};

use super::Switch;
use super::actions::{ActionError, file_below};
use super::calls::{CallKey, ConferenceSeat, Entry};
use crate::call::Input;
use crate::edge::{FunctionError, RecordingOf, RecordingPlan, Ticket};
use crate::site::Name;
use crate::store::ConferenceRoute;

/// A conference with members, for people to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConferenceView {
    /// Whose it is.
    pub tenant: String,
    /// Its name within the tenant.
    pub name: String,
    /// Whether nobody else may join.
    pub locked: bool,
    /// The file that it is being recorded into.
    pub recording: Option<String>,
    /// Whether that recording rests.
    pub recording_paused: bool,
    /// Who is in, the first to come first.
    pub members: Vec<MemberView>,
}

/// A member of a conference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    /// Its call.
    pub call_id: String,
    /// Who it is, as the caller's side gave it.
    pub caller: String,
    /// Codec in use towards it.
    pub codec: Option<String>,
    /// Since it joined, milliseconds.
    pub joined_ms: u64,
    /// Not heard by the others.
    pub muted: bool,
    /// Does not hear the others.
    pub deaf: bool,
    /// The one member that hears it, by its call; `left` when that one is gone, and nobody does.
    pub whispers_to: Option<String>,
    /// Whether it is the loudest at present.
    pub speaking: bool,
}

/// What is to be done to a conference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
pub enum ConferenceAction {
    /// A member is not heard by the others.
    Mute {
        /// Its call.
        member: String,
    },
    /// It is again.
    Unmute {
        /// Its call.
        member: String,
    },
    /// A member does not hear the others.
    Deafen {
        /// Its call.
        member: String,
    },
    /// It does again.
    Undeafen {
        /// Its call.
        member: String,
    },
    /// A member is heard by one other alone, while it hears everybody.
    Whisper {
        /// Its call.
        member: String,
        /// The call of who hears it.
        to: String,
    },
    /// It is heard by everybody again.
    Unwhisper {
        /// Its call.
        member: String,
    },
    /// A member is hung up on.
    Kick {
        /// Its call.
        member: String,
    },
    /// Nobody else may join until the last member has left.
    Lock,
    /// Everybody may join again.
    Unlock,
    /// Record what everybody hears.
    RecordStart {
        /// A file under `[media] recordings_dir` that does not exist.
        path: String,
    },
    /// Record no more.
    RecordStop,
    /// Leave out what comes next.
    RecordPause,
    /// Go on after a pause.
    RecordResume,
}

/// A conference that has been called.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) id: ConferenceId,
    pub(super) is_locked: bool,
    /// Whose session is the loudest.
    speaker: Option<SessionId>,
}

/// One for each conference that was ever called, so never more than the site file has had.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    /// By tenant and name.
    by_name: HashMap<(Name, Name), Room>,
}

impl Rooms {
    /// The room of a conference; one id for one conference, as long as this process lives.
    pub(super) fn of(&mut self, epoch: Epoch, conference: &ConferenceRoute) -> &Room {
        let name = (conference.tenant.clone(), conference.name.clone());
        let next = self.by_name.len() as u64 + 1;
        self.by_name.entry(name).or_insert(Room {
            id: ConferenceId(u64::from(epoch.0) << 32 | next),
            is_locked: false,
            speaker: None,
        })
    }

    pub(super) fn set_speaker(&mut self, id: ConferenceId, speaker: Option<SessionId>) {
        if let Some(room) = self.find(id) {
            room.speaker = speaker;
        }
    }

    /// The edge that knew is gone.
    pub(super) fn forget_speakers(&mut self) {
        self.by_name
            .values_mut()
            .for_each(|room| room.speaker = None);
    }

    fn find(&mut self, id: ConferenceId) -> Option<&mut Room> {
        self.by_name.values_mut().find(|room| room.id == id)
    }
}

impl Switch {
    /// Conferences with members, by tenant and name.
    #[must_use]
    pub fn conferences(&self, now: MonoTime) -> Vec<ConferenceView> {
        let mut seated: HashMap<ConferenceId, Vec<(&Entry, &ConferenceSeat)>> = HashMap::new();
        for entry in self.calls.values() {
            if let Some(seat) = seated_in(entry) {
                seated.entry(seat.id).or_default().push((entry, seat));
            }
        }
        let rooms = self.rooms.by_name.iter();
        let mut views: Vec<ConferenceView> = rooms
            .filter_map(|((tenant, name), room)| {
                let mut members = seated.remove(&room.id)?;
                members.sort_unstable_by_key(|(_, seat)| seat.joined_at);
                let recording = self.proxy.conference_recording(room.id);
                let members = members.into_iter();
                Some(ConferenceView {
                    tenant: tenant.to_string(),
                    name: name.to_string(),
                    locked: room.is_locked,
                    recording: recording.map(|recording| recording.path.as_str().to_owned()),
                    recording_paused: recording.is_some_and(|recording| recording.paused),
                    members: members
                        .map(|(entry, seat)| self.member_view(now, room, entry, seat))
                        .collect(),
                })
            })
            .collect();
        views.sort_unstable_by(|a, b| (&a.tenant, &a.name).cmp(&(&b.tenant, &b.name)));
        views
    }

    fn member_view(
        &self,
        now: MonoTime,
        room: &Room,
        entry: &Entry,
        seat: &ConferenceSeat,
    ) -> MemberView {
        let record = entry.call.record();
        let part = entry
            .session
            .and_then(|session| self.proxy.membership(session, LegIndex::A));
        let whispers_to = part.and_then(|part| part.whispers_to).map(|(to, _)| {
            let to = self.by_session.get(&to).and_then(|key| self.calls.get(key));
            to.map_or_else(
                || "left".to_owned(),
                |entry| entry.call.record().call_id.clone(),
            )
        });
        let joined_at = seat.joined_at.unwrap_or(now);
        MemberView {
            call_id: record.call_id.clone(),
            caller: record.caller.clone(),
            codec: record.caller_codec.clone(),
            joined_ms: now.nanos_since(joined_at) / 1_000_000,
            muted: part.is_some_and(|part| part.muted),
            deaf: part.is_some_and(|part| part.deaf),
            whispers_to,
            speaking: entry.session.is_some() && entry.session == room.speaker,
        }
    }

    /// Does something to a conference that has members. Its outcome comes with the ticket.
    ///
    /// # Errors
    /// What kept it from being done.
    pub fn confer(
        &mut self,
        now: MonoTime,
        unix_ms: i64,
        (tenant, name): (Option<&str>, &str),
        action: ConferenceAction,
        ticket: Ticket,
    ) -> Result<(), ActionError> {
        let (tenant, name, id) = self.live_conference(tenant, name)?;
        match action {
            ConferenceAction::Mute { member } => {
                self.change_part(id, &member, ticket, |part| part.muted = true)?;
            }
            ConferenceAction::Unmute { member } => {
                self.change_part(id, &member, ticket, |part| part.muted = false)?;
            }
            ConferenceAction::Deafen { member } => {
                self.change_part(id, &member, ticket, |part| part.deaf = true)?;
            }
            ConferenceAction::Undeafen { member } => {
                self.change_part(id, &member, ticket, |part| part.deaf = false)?;
            }
            ConferenceAction::Whisper { member, to } => {
                if member == to {
                    return Err(ActionError::WhisperToSelf);
                }
                let (_, to) = self.member(id, &to)?;
                let to = Some((to, LegIndex::A));
                self.change_part(id, &member, ticket, |part| part.whispers_to = to)?;
            }
            ConferenceAction::Unwhisper { member } => {
                self.change_part(id, &member, ticket, |part| part.whispers_to = None)?;
            }
            ConferenceAction::Kick { member } => {
                let (key, _) = self.member(id, &member)?;
                self.inputs.push_back((key, Input::Shutdown));
                self.outcomes.push_back((ticket, Ok(())));
                self.turn(now, unix_ms);
            }
            ConferenceAction::Lock => self.set_locked(id, true, ticket),
            ConferenceAction::Unlock => self.set_locked(id, false, ticket),
            ConferenceAction::RecordStart { path } => {
                let plan = RecordingPlan {
                    of: RecordingOf::Conference {
                        tenant: tenant.to_string(),
                        name: name.to_string(),
                    },
                    path: file_below(&self.config.media.recordings_dir, &path)?,
                    format: RecordingFormat::Wav8k,
                    tracks: RecordingTracks::Mixed,
                };
                self.proxy.record_conference(id, plan, Some(ticket))?;
            }
            ConferenceAction::RecordStop => {
                self.proxy.stop_conference_recording(id, Some(ticket))?;
            }
            ConferenceAction::RecordPause => {
                let ticket = Some(ticket);
                self.proxy.pause_conference_recording(id, true, ticket)?;
            }
            ConferenceAction::RecordResume => {
                let ticket = Some(ticket);
                self.proxy.pause_conference_recording(id, false, ticket)?;
            }
        }
        Ok(())
    }

    /// The conference of that name that has members.
    fn live_conference(
        &self,
        tenant: Option<&str>,
        name: &str,
    ) -> Result<(Name, Name, ConferenceId), ActionError> {
        let rooms = self.rooms.by_name.iter();
        let mut live: Vec<(&(Name, Name), ConferenceId)> = rooms
            .filter(|((of, known), _)| {
                known.as_str() == name && tenant.is_none_or(|tenant| of.as_str() == tenant)
            })
            .map(|(known, room)| (known, room.id))
            .filter(|(_, id)| self.calls.values().any(|entry| is_in(entry, *id)))
            .collect();
        live.sort_unstable();
        match live[..] {
            [] => Err(ActionError::NoSuchConference(name.to_owned())),
            [((tenant, name), id)] => Ok((tenant.clone(), name.clone(), id)),
            _ => {
                let tenants = live.iter().map(|((tenant, _), _)| tenant.as_str());
                Err(ActionError::AmbiguousConference {
                    name: name.to_owned(),
                    tenants: Vec::from_iter(tenants).join(", "),
                })
            }
        }
    }

    fn member(&self, id: ConferenceId, call_id: &str) -> Result<(CallKey, SessionId), ActionError> {
        let member = self.key_of(call_id).and_then(|key| {
            let entry = self.calls.get(&key).filter(|entry| is_in(entry, id))?;
            Some((key, entry.session?))
        });
        member.ok_or_else(|| ActionError::NoSuchMember(call_id.to_owned()))
    }

    fn change_part(
        &mut self,
        id: ConferenceId,
        call_id: &str,
        ticket: Ticket,
        change: impl FnOnce(&mut Membership),
    ) -> Result<(), ActionError> {
        let (_, session) = self.member(id, call_id)?;
        let part = self.proxy.membership(session, LegIndex::A);
        let mut part = part.ok_or(FunctionError::NoSession)?;
        change(&mut part);
        self.proxy.join(session, LegIndex::A, part, Some(ticket))?;
        Ok(())
    }

    fn set_locked(&mut self, id: ConferenceId, is_locked: bool, ticket: Ticket) {
        if let Some(room) = self.rooms.find(id) {
            room.is_locked = is_locked;
        }
        self.outcomes.push_back((ticket, Ok(())));
    }

    /// A call for the conference is over. With the last one its lock goes.
    pub(super) fn leave_room(&mut self, id: ConferenceId) {
        let is_empty = !self.calls.values().any(|entry| is_in(entry, id));
        if is_empty && let Some(room) = self.rooms.find(id) {
            room.is_locked = false;
            room.speaker = None;
        }
    }
}

/// Where a call sits that is part of its conference.
fn seated_in(entry: &Entry) -> Option<&ConferenceSeat> {
    entry.seat.as_ref().filter(|seat| seat.joined_at.is_some())
}

fn is_in(entry: &Entry, id: ConferenceId) -> bool {
    seated_in(entry).is_some_and(|seat| seat.id == id)
}
