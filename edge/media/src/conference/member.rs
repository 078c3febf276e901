//! A member and its place in the table.

use std::collections::HashMap;

use trunkline_edge_api::{AudioFormat, LegIndex, SessionId};

use super::gate::Gate;
use super::groups::{GroupIndex, Heard};
use super::half_band::{Downsampler, Upsampler};
use super::limiter::Limiter;
use super::{Band, NARROW_LEN, WIDE_LEN};

/// Who a member is, conference by conference: one leg.
pub type MemberKey = (SessionId, LegIndex);

/// A member's place, as the caller holds it: finding it takes no look-up. It stays the member's
/// until that leaves and is nobody's afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MemberSlot {
    pub(super) index: u16,
    generation: u16,
}

/// One who is in the conference.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) key: MemberKey,
    pub(super) format: AudioFormat,
    pub(super) band: Band,
    pub(super) group: GroupIndex,
    pub(super) muted: bool,
    pub(super) deaf: bool,
    pub(super) whispers: Option<Whisper>,
    pub(super) gate: Gate,
    /// Whether `input` is in the sum of the frame that is being put.
    pub(super) is_heard: bool,
    /// Number of the frame that `output` is of.
    pub(super) own_output_at: u64,
    /// Number of the frame from which on it may share others' payloads again.
    pub(super) own_until: u64,
    /// Whether it is in the list of those that wait for that frame.
    pub(super) settles: bool,
    pub(super) limiter: Limiter,
    pub(super) input: Box<[i16]>,
    pub(super) output: Box<[i16]>,
    /// What is whispered to it; there while somebody does.
    pub(super) private: Option<Box<Private>>,
}

impl Member {
    /// By whom alone it is heard.
    pub(super) fn whispered_to(&self) -> Option<MemberKey> {
        self.whispers.as_ref().map(|whisper| whisper.to)
    }

    /// What it hears of the others.
    pub(super) fn heard(&self) -> Heard {
        if self.deaf {
            Heard::Nothing
        } else {
            Heard::Mix
        }
    }
}

/// A member that is heard by one other alone.
#[derive(Debug)]
pub(super) struct Whisper {
    pub(super) to: MemberKey,
    /// That one's index, while it is in the conference.
    pub(super) index: Option<u16>,
    pub(super) converter: Option<Converter>,
}

/// From a whisperer's band to that of who hears it.
#[derive(Debug)]
pub(super) enum Converter {
    Up(Box<Upsampler>),
    Down(Box<Downsampler>),
}

impl Converter {
    pub(super) fn between(from: Band, to: Band) -> Option<Self> {
        match (from, to) {
            (Band::Narrow, Band::Wide) => Some(Self::Up(Box::new(Upsampler::new()))),
            (Band::Wide, Band::Narrow) => Some(Self::Down(Box::new(Downsampler::new()))),
            (Band::Narrow, Band::Narrow) | (Band::Wide, Band::Wide) => None,
        }
    }
}

/// The sum of what is whispered to one member.
#[derive(Debug)]
pub(super) struct Private {
    pub(super) sum: [i32; WIDE_LEN],
    /// Whether there is anything in this frame.
    pub(super) is_heard: bool,
}

impl Private {
    pub(super) fn new() -> Self {
        Self {
            sum: [0; WIDE_LEN],
            is_heard: false,
        }
    }

    /// Adds a whisper of `band`, converted where that is not the listener's.
    pub(super) fn add(&mut self, converter: Option<&mut Converter>, pcm: &[i16]) {
        self.is_heard = true;
        let mut voice = [0; WIDE_LEN];
        super::bus::add(&mut voice, pcm);
        match converter {
            None => super::bus::add(&mut self.sum, pcm),
            Some(Converter::Up(up)) => up.add(&voice[..NARROW_LEN], &mut self.sum),
            Some(Converter::Down(down)) => down.add(&voice, &mut self.sum[..NARROW_LEN]),
        }
    }

    pub(super) fn clear(&mut self) {
        self.is_heard = false;
        self.sum.fill(0);
    }
}

#[derive(Debug)]
struct Entry {
    generation: u16,
    member: Option<Member>,
}

/// All members. Places of those who left are used again.
#[derive(Debug, Default)]
pub(super) struct Members {
    entries: Vec<Entry>,
    by_key: HashMap<MemberKey, u16>,
}

impl Members {
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn slot_of(&self, key: MemberKey) -> Option<MemberSlot> {
        let index = *self.by_key.get(&key)?;
        let generation = self.entries.get(usize::from(index))?.generation;
        Some(MemberSlot { index, generation })
    }

    pub(super) fn get(&self, slot: MemberSlot) -> Option<&Member> {
        let entry = self.entries.get(usize::from(slot.index))?;
        entry
            .member
            .as_ref()
            .filter(|_| entry.generation == slot.generation)
    }

    pub(super) fn get_mut(&mut self, slot: MemberSlot) -> Option<&mut Member> {
        let entry = self.entries.get_mut(usize::from(slot.index))?;
        entry
            .member
            .as_mut()
            .filter(|_| entry.generation == slot.generation)
    }

    pub(super) fn at(&self, index: u16) -> Option<&Member> {
        self.entries.get(usize::from(index))?.member.as_ref()
    }

    pub(super) fn at_mut(&mut self, index: u16) -> Option<&mut Member> {
        self.entries.get_mut(usize::from(index))?.member.as_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (MemberSlot, &Member)> {
        self.entries
            .iter()
            .enumerate()
            .filter_map(|(index, entry)| {
                let slot = MemberSlot {
                    index: index as u16,
                    generation: entry.generation,
                };
                Some((slot, entry.member.as_ref()?))
            })
    }

    /// Places there are, taken and free.
    pub(super) fn places(&self) -> usize {
        self.entries.len()
    }

    /// Puts in a member whose key is not there yet.
    pub(super) fn insert(&mut self, member: Member) -> MemberSlot {
        let key = member.key;
        let free = self.entries.iter().position(|entry| entry.member.is_none());
        let index = free.unwrap_or_else(|| {
            self.entries.push(Entry {
                generation: 0,
                member: None,
            });
            self.entries.len() - 1
        });
        let entry = &mut self.entries[index];
        entry.member = Some(member);
        let slot = MemberSlot {
            index: index as u16,
            generation: entry.generation,
        };
        self.by_key.insert(key, slot.index);
        slot
    }

    pub(super) fn remove(&mut self, key: MemberKey) -> Option<(u16, Member)> {
        let index = self.by_key.remove(&key)?;
        let entry = self.entries.get_mut(usize::from(index))?;
        entry.generation = entry.generation.wrapping_add(1);
        Some((index, entry.member.take()?))
    }
}
