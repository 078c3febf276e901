//! Which sessions are told the time, and when.

use trunkline_edge_api::MonoTime;
use trunkline_media::session::TICK_MILLIS;

/// Length of a tick, nanoseconds.
const TICK_NANOS: u64 = TICK_MILLIS * 1_000_000;

/// The session slots that are clocked, each once; sized once.
pub(super) struct Clocked {
    slots: Vec<u32>,
    /// Place in `slots` by session slot, [`NOWHERE`] for one that is not clocked.
    places: Vec<u32>,
    next_at: MonoTime,
}

const NOWHERE: u32 = u32::MAX;

/// A tick that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tick {
    /// It came two ticks late or later.
    pub(super) is_late: bool,
}

impl Clocked {
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            slots: Vec::with_capacity(capacity as usize),
            places: vec![NOWHERE; capacity as usize],
            next_at: MonoTime(0),
        }
    }

    pub(super) fn insert(&mut self, slot: u32) {
        if let Some(place) = self.places.get_mut(slot as usize)
            && *place == NOWHERE
        {
            *place = self.slots.len() as u32;
            self.slots.push(slot);
        }
    }

    pub(super) fn remove(&mut self, slot: u32) {
        let Some(place) = self.places.get_mut(slot as usize) else {
            return;
        };
        let place = std::mem::replace(place, NOWHERE);
        if place == NOWHERE {
            return;
        }
        self.slots.swap_remove(place as usize);
        if let Some(moved) = self.slots.get(place as usize) {
            self.places[*moved as usize] = place;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The slot at `place`, from 0 up. Going down from [`Self::len`] meets every slot even if the
    /// one that is met is removed.
    pub(super) fn slot_at(&self, place: usize) -> Option<u32> {
        self.slots.get(place).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// When the next tick is due.
    pub(super) fn next_at(&self) -> MonoTime {
        self.next_at
    }

    /// The tick that is due at `now`, if one is. Ticks lie on multiples of their length, so that
    /// being late with one does not make the next one late; what was missed is missed.
    pub(super) fn take_tick(&mut self, now: MonoTime) -> Option<Tick> {
        if now < self.next_at {
            return None;
        }
        let is_late =
            self.next_at != MonoTime(0) && now.nanos_since(self.next_at) >= 2 * TICK_NANOS;
        self.next_at = MonoTime((now.0 / TICK_NANOS + 1) * TICK_NANOS);
        Some(Tick { is_late })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_clocked_slot_is_met_once_whatever_was_removed() {
        let mut clocked = Clocked::new(8);
        for slot in [3, 5, 3, 7, 0] {
            clocked.insert(slot);
        }
        clocked.remove(3);
        clocked.remove(3);
        clocked.remove(6);
        clocked.insert(9);
        let mut met: Vec<u32> = (0..clocked.len())
            .filter_map(|n| clocked.slot_at(n))
            .collect();
        met.sort_unstable();
        assert_eq!(met, [0, 5, 7]);
        for slot in met {
            clocked.remove(slot);
        }
        assert!(clocked.is_empty());
    }

    #[test]
    fn late_tick_does_not_make_the_next_one_late() {
        let mut clocked = Clocked::new(1);
        let at = |millis: u64| MonoTime(0).plus_millis(1_000 + millis);
        assert_eq!(clocked.take_tick(at(0)), Some(Tick { is_late: false }));
        assert_eq!(clocked.take_tick(at(9)), None);
        assert_eq!(clocked.take_tick(at(17)), Some(Tick { is_late: false }));
        assert_eq!(clocked.next_at(), at(20));
        assert_eq!(clocked.take_tick(at(41)), Some(Tick { is_late: true }));
    }
}
