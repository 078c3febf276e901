//! The sessions of one worker: a slab that is sized at start, and the way from control's ids to
//! its slots.

use std::collections::HashMap;

use trunkline_edge_api::{DropReason, LegIndex, MonoTime, SessionId};
use trunkline_media::{MediaSession, SocketKind, Transmit};

use crate::tier::SocketId;
use crate::worker::{Connection, RunningRecording};

/// A place in the table. Stays unique when the slot is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionKey {
    slot: u32,
    generation: u32,
}

impl SessionKey {
    /// Index of the slot, below the table's capacity.
    pub(crate) fn slot(self) -> u32 {
        self.slot
    }
}

/// Whom a socket's datagrams are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SocketOwner {
    pub(crate) session: SessionKey,
    pub(crate) leg: LegIndex,
    pub(crate) socket: SocketKind,
}

/// A session and the sockets of its legs.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) media: MediaSession,
    pub(crate) opened_at: MonoTime,
    /// Indexed by [`LegIndex`], then [`SocketKind`].
    pub(crate) sockets: [[Option<SocketId>; 2]; 2],
    /// Of the RTP sockets, indexed by [`LegIndex`].
    pub(crate) connections: [Connection; 2],
    /// What is recorded of it.
    pub(crate) recordings: Vec<RunningRecording>,
}

impl Session {
    pub(crate) fn new(id: SessionId, now: MonoTime) -> Self {
        Self {
            id,
            media: MediaSession::new(),
            opened_at: now,
            sockets: [[None; 2]; 2],
            connections: [Connection::default(); 2],
            recordings: Vec::new(),
        }
    }
}

impl Session {
    /// The socket that `transmit` leaves from.
    pub(crate) fn socket_of(&self, transmit: &Transmit) -> Result<SocketId, DropReason> {
        self.sockets[transmit.leg.as_usize()][transmit.socket as usize]
            .ok_or(DropReason::NoDestination)
    }
}

/// All sessions of a worker.
pub(crate) struct SessionTable {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_id: HashMap<SessionId, u32>,
}

struct Slot {
    generation: u32,
    session: Option<Session>,
}

/// The table holds as many sessions as it was made for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TableFull;

impl SessionTable {
    pub(crate) fn new(capacity: u32) -> Self {
        let empty = || Slot {
            generation: 0,
            session: None,
        };
        Self {
            slots: std::iter::repeat_with(empty)
                .take(capacity as usize)
                .collect(),
            free: (0..capacity).rev().collect(),
            // Twice the need: a hash map that is never more than half full clears the traces of
            // removed keys in place and does not grow.
            by_id: HashMap::with_capacity(2 * capacity as usize),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn insert(&mut self, session: Session) -> Result<SessionKey, TableFull> {
        let slot = self.free.pop().ok_or(TableFull)?;
        self.by_id.insert(session.id, slot);
        let entry = &mut self.slots[slot as usize];
        entry.session = Some(session);
        Ok(SessionKey {
            slot,
            generation: entry.generation,
        })
    }

    pub(crate) fn find(&self, id: SessionId) -> Option<SessionKey> {
        let slot = *self.by_id.get(&id)?;
        Some(SessionKey {
            slot,
            generation: self.slots.get(slot as usize)?.generation,
        })
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        let entry = self.slots.get_mut(key.slot as usize)?;
        entry
            .session
            .as_mut()
            .filter(|_| entry.generation == key.generation)
    }

    pub(crate) fn remove(&mut self, key: SessionKey) -> Option<Session> {
        self.get_mut(key)?;
        let entry = self.slots.get_mut(key.slot as usize)?;
        let session = entry.session.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(key.slot);
        self.by_id.remove(&session.id);
        Some(session)
    }

    /// The session in the first used slot at or after `slot`.
    pub(crate) fn next_from(&self, slot: u32) -> Option<(SessionKey, &Session)> {
        let used = (slot..).zip(self.slots.iter().skip(slot as usize));
        used.into_iter().find_map(|(slot, entry)| {
            let key = SessionKey {
                slot,
                generation: entry.generation,
            };
            entry.session.as_ref().map(|session| (key, session))
        })
    }

    /// The session whose timer has run out: timers know slots only.
    pub(crate) fn in_slot(&self, slot: u32) -> Option<(SessionKey, &Session)> {
        self.next_from(slot).filter(|(key, _)| key.slot == slot)
    }
}

#[cfg(test)]
mod tests {
    use trunkline_edge_api::Epoch;

    use super::*;

    fn session(serial: u32) -> Session {
        Session::new(SessionId::new(Epoch(1), serial), MonoTime(0))
    }

    #[test]
    fn slot_that_is_used_again_does_not_answer_to_its_old_key() {
        let mut table = SessionTable::new(1);
        let first = table.insert(session(1)).expect("room");
        assert!(table.remove(first).is_some());
        let second = table.insert(session(2)).expect("room again");
        assert_eq!(first.slot(), second.slot());
        assert!(table.get_mut(first).is_none());
        assert!(table.remove(first).is_none());
        assert_eq!(table.find(session(2).id), Some(second));
        assert_eq!(table.find(session(1).id), None);
    }

    #[test]
    fn full_table_refuses_and_never_grows() {
        let mut table = SessionTable::new(100);
        let capacity = table.by_id.capacity();
        for round in 0..200 {
            let keys: Vec<_> = (0..100)
                .map(|n| table.insert(session(round * 100 + n)).expect("room"))
                .collect();
            assert_eq!(table.insert(session(u32::MAX)), Err(TableFull));
            for key in keys {
                assert!(table.remove(key).is_some());
            }
        }
        // Traces of removed keys count against it, so it may be less, never more.
        assert!(table.by_id.capacity() <= capacity);
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn walk_visits_every_session_once() {
        let mut table = SessionTable::new(8);
        let keys: Vec<_> = (0..5)
            .map(|n| table.insert(session(n)).expect("room"))
            .collect();
        table.remove(keys[0]);
        table.remove(keys[3]);
        let mut visited = Vec::new();
        let mut from = 0;
        while let Some((key, session)) = table.next_from(from) {
            visited.push(session.id);
            from = key.slot() + 1;
        }
        assert_eq!(visited, [session(1).id, session(2).id, session(4).id]);
        assert!(table.in_slot(keys[0].slot()).is_none());
        assert!(table.in_slot(keys[1].slot()).is_some());
    }
}
