//! What travels from a worker to the recorder: blocks of notes, each of a fixed size.
//!
//! A worker fills a block over some milliseconds and hands it over whole, so the queue between the
//! threads is touched once for dozens of packets. Blocks go back and forth and are never freed.

use trunkline_edge_api::{AudioFormat, LegIndex, MonoTime, Recording};

/// Notes of a block. With 20 ms of G.711 each, packets fill notes and bytes alike.
pub(super) const NOTES_MAX: usize = 96;

/// Bytes of packets in a block.
pub(super) const BYTES_MAX: usize = 20 * 1_024;

/// Memory of a block.
pub(super) const MEMORY_BYTES: u64 = (NOTES_MAX * size_of::<Note>() + BYTES_MAX) as u64;

/// Something for one recording of a worker, in the order in which it happened.
#[derive(Debug)]
pub(super) struct Note {
    /// Which of the worker's recordings.
    pub(super) slot: u32,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Start {
        recording: Box<Recording>,
        at: MonoTime,
    },
    Pause {
        paused: bool,
        at: MonoTime,
    },
    Stop {
        at: MonoTime,
    },
    Suppress {
        leg: LegIndex,
        from: MonoTime,
        to: MonoTime,
    },
    Packet {
        leg: LegIndex,
        arrival: MonoTime,
        format: Option<AudioFormat>,
        /// Packets before this one were dropped for want of room.
        follows_drop: bool,
        /// Where it stands in the block's bytes.
        start: u32,
        len: u32,
    },
}

/// Notes and the packets that they speak of.
#[derive(Debug)]
pub(super) struct Block {
    notes: Vec<Note>,
    bytes: Vec<u8>,
}

impl Block {
    pub(super) fn new() -> Self {
        Self {
            notes: Vec::with_capacity(NOTES_MAX),
            bytes: Vec::with_capacity(BYTES_MAX),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }

    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.notes.len() < NOTES_MAX && self.bytes.len() + bytes <= BYTES_MAX
    }

    /// Adds a note; the block has room.
    pub(super) fn push(&mut self, slot: u32, what: What) {
        debug_assert!(self.has_room(0));
        self.notes.push(Note { slot, what });
    }

    /// Adds a packet that stands in two parts; the block has room for both.
    pub(super) fn push_packet(
        &mut self,
        slot: u32,
        (leg, arrival, format): (LegIndex, MonoTime, Option<AudioFormat>),
        follows_drop: bool,
        parts: [&[u8]; 2],
    ) {
        let start = self.bytes.len();
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        let what = What::Packet {
            leg,
            arrival,
            format,
            follows_drop,
            start: start as u32,
            len: (self.bytes.len() - start) as u32,
        };
        self.push(slot, what);
    }

    /// Takes the notes out, each with its packet's bytes, and leaves the block empty.
    pub(super) fn drain(&mut self, mut take: impl FnMut(Note, &[u8])) {
        for note in self.notes.drain(..) {
            let packet = match note.what {
                What::Packet { start, len, .. } => {
                    &self.bytes[start as usize..(start + len) as usize]
                }
                _ => &[],
            };
            take(note, packet);
        }
        self.bytes.clear();
    }
}
