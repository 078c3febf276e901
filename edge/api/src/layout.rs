//! Where things stand in a worker's shared region.
//!
//! ```text
//! byte 0      fixed header    16 words, written once by the edge, sealed by a checksum
//!      128    edge line       PID, heartbeat, sleeping, resyncs, fault, I/O tier   (worker writes)
//!      256    control line    PID, heartbeat, sleeping flag, epoch                 (control writes)
//!      384    command ring    head, full count, attachments                        (control writes)
//!      512    command ring    tail                                                 (worker writes)
//!      640    event ring      head, full count                                     (worker writes)
//!      768    event ring      tail                                                 (control writes)
//!      896    reserved, zero
//!      4096   counters page   one u64 per cell                                     (worker writes)
//!      8192   command ring data
//!      …      event ring data
//! ```
//!
//! Everything is a little-endian `u64` word. Each word has one writer. What one side writes often
//! lies on a line of its own, 128 bytes long because x86 prefetches cache lines in pairs and some
//! arm64 cores have lines of that size.
//!
//! The fixed header says where the sections lie, so a later minor version may move or lengthen
//! them and may use reserved words: they are zero in a region that an older edge made. A reader
//! copies the fixed header out once, checks it with [`RegionLayout::from_words`] and never looks
//! at it again, so a peer that changes it later changes nothing.

use crate::API_VERSION;
use crate::counters::CELL_COUNT;
use crate::vocabulary::{ApiVersion, PortRange, WorkerIndex};
use crate::wire::MESSAGE_LEN_MAX;

/// First word of every region: `TRNKLINE` in ASCII.
pub const MAGIC: u64 = u64::from_le_bytes(*b"TRNKLINE");

/// Bytes in a word.
pub const WORD_LEN: usize = 8;

/// Words on a line of their own.
pub const LINE_WORDS: usize = 16;

/// Bytes before the first section.
pub const HEADER_LEN: usize = 4096;

/// Bytes of the counters page.
pub const COUNTERS_LEN: usize = 4096;

/// Bytes of command ring data. A [`crate::Command::ConfigureLeg`] with ten payload types takes
/// 208 bytes, with SRTP keys at most 300, so a control that replays its whole desired state into a
/// fresh edge gets at least 3,400 of them in before it must wait.
pub const COMMAND_RING_LEN: usize = 1 << 20;

/// Bytes of event ring data. What the reserve leaves holds 5,617 session reports of 280 bytes: one
/// for each session of a worker with the default `sessions_max`.
pub const EVENT_RING_LEN: usize = 2 << 20;

/// Bytes of the event ring that only events which must arrive may fill: 1,872 closed
/// sessions or 16,384 answers.
pub const EVENT_RESERVE_LEN: usize = EVENT_RING_LEN / 4;

/// Smallest ring: one message of the greatest length always fits into an empty one, twice over.
pub const RING_LEN_MIN: usize = 8192;

/// Largest ring a reader maps. More than 60 times what this version makes.
pub const RING_LEN_MAX: usize = 64 << 20;

/// Largest region a reader maps.
pub const REGION_LEN_MAX: usize = 256 << 20;

/// Indices of the words of the header page.
pub mod word {
    use super::LINE_WORDS;

    /// [`super::MAGIC`].
    pub const MAGIC: usize = 0;
    /// [`crate::ApiVersion::to_bits`] of the edge that made the region.
    pub const VERSION: usize = 1;
    /// Bytes before the first section.
    pub const HEADER_LEN: usize = 2;
    /// Bytes of the whole region.
    pub const REGION_LEN: usize = 3;
    /// Which life of the edge made the region; never 0. A new one is a reset of all counters.
    pub const GENERATION: usize = 4;
    /// Index of the worker.
    pub const WORKER: usize = 5;
    /// The worker's slice of media ports: first in bits 0–15, last in bits 16–31.
    pub const PORTS: usize = 6;
    /// Byte offset of the counters page.
    pub const COUNTERS_OFFSET: usize = 7;
    /// Number of its cells.
    pub const COUNTERS_COUNT: usize = 8;
    /// Byte offset of the command ring's data.
    pub const COMMANDS_OFFSET: usize = 9;
    /// Bytes of the command ring's data, a power of two.
    pub const COMMANDS_LEN: usize = 10;
    /// Byte offset of the event ring's data.
    pub const EVENTS_OFFSET: usize = 11;
    /// Bytes of the event ring's data, a power of two.
    pub const EVENTS_LEN: usize = 12;
    /// Bytes of the event ring kept for events that must arrive.
    pub const EVENTS_RESERVE_LEN: usize = 13;
    /// Reserved, zero.
    pub const RESERVED: usize = 14;
    /// FNV-1a (64 bit) over the words before it.
    pub const CHECKSUM: usize = 15;
    /// Number of fixed words.
    pub const FIXED_COUNT: usize = 16;

    /// PID of the edge.
    pub const EDGE_PID: usize = LINE_WORDS;
    /// [`crate::MonoTime`] of the worker's last duty cycle.
    pub const EDGE_HEARTBEAT: usize = LINE_WORDS + 1;
    /// 1 while the worker may be waiting in the kernel and wants its eventfd written.
    pub const WORKER_SLEEPING: usize = LINE_WORDS + 2;
    /// Rises whenever an event that must arrive was lost.
    pub const RESYNC_COUNT: usize = LINE_WORDS + 3;
    /// Not 0 while the worker refuses the rings because control's words make no sense: one more
    /// than [`CONTROL_ATTACH_COUNT`] when it noticed.
    pub const WORKER_FAULT: usize = LINE_WORDS + 4;
    /// [`crate::IoTier::to_word`] of the worker; 0 until its I/O stands, and for an edge older
    /// than 1.1.
    pub const IO_TIER: usize = LINE_WORDS + 5;

    /// PID of the control that attached last.
    pub const CONTROL_PID: usize = 2 * LINE_WORDS;
    /// [`crate::MonoTime`] of control's last turn.
    pub const CONTROL_HEARTBEAT: usize = 2 * LINE_WORDS + 1;
    /// 1 while control may be waiting in the kernel and wants its eventfd written.
    pub const CONTROL_SLEEPING: usize = 2 * LINE_WORDS + 2;
    /// [`crate::Epoch`] of the control that attached last.
    pub const CONTROL_EPOCH: usize = 2 * LINE_WORDS + 3;

    /// Words ever written to the command ring.
    pub const COMMANDS_HEAD: usize = 3 * LINE_WORDS;
    /// Commands that found no room.
    pub const COMMANDS_FULL_COUNT: usize = 3 * LINE_WORDS + 1;
    /// Rises with each control that attaches. On the line of the head, so that a worker which
    /// looks for commands sees both for one cache miss.
    pub const CONTROL_ATTACH_COUNT: usize = 3 * LINE_WORDS + 2;
    /// Words ever read from the command ring.
    pub const COMMANDS_TAIL: usize = 4 * LINE_WORDS;
    /// Words ever written to the event ring.
    pub const EVENTS_HEAD: usize = 5 * LINE_WORDS;
    /// Events that found no room.
    pub const EVENTS_FULL_COUNT: usize = 5 * LINE_WORDS + 1;
    /// Words ever read from the event ring.
    pub const EVENTS_TAIL: usize = 6 * LINE_WORDS;
    /// Words in use by this version; the rest of the header page is reserved and zero.
    pub const COUNT: usize = 7 * LINE_WORDS;
}

const _: () = {
    assert!(word::CHECKSUM + 1 == word::FIXED_COUNT);
    assert!(word::FIXED_COUNT <= word::EDGE_PID);
    assert!(word::COUNT * WORD_LEN <= HEADER_LEN);
    assert!(CELL_COUNT * WORD_LEN <= COUNTERS_LEN);
    assert!(COMMAND_RING_LEN.is_power_of_two() && EVENT_RING_LEN.is_power_of_two());
    assert!(RING_LEN_MIN.is_power_of_two());
    assert!(RING_LEN_MIN >= 2 * record_len(MESSAGE_LEN_MAX));
    assert!(EVENT_RESERVE_LEN <= EVENT_RING_LEN - record_len(MESSAGE_LEN_MAX));
    assert!(HEADER_LEN.is_multiple_of(LINE_WORDS * WORD_LEN));
    assert!(COUNTERS_LEN.is_multiple_of(LINE_WORDS * WORD_LEN));
    assert!(HEADER_LEN + COUNTERS_LEN + COMMAND_RING_LEN + EVENT_RING_LEN <= REGION_LEN_MAX);
};

/// Bytes that a message of `len` bytes takes in a ring: a length word, then the message padded to
/// whole words.
#[must_use]
pub const fn record_len(len: usize) -> usize {
    WORD_LEN + len.next_multiple_of(WORD_LEN)
}

/// A part of the region, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// Where it begins, a multiple of 128.
    pub offset: usize,
    /// How long it is.
    pub len: usize,
}

impl Section {
    /// Index of its first word.
    #[must_use]
    pub const fn first_word(self) -> usize {
        self.offset / WORD_LEN
    }

    /// Its length in words.
    #[must_use]
    pub const fn word_count(self) -> usize {
        self.len / WORD_LEN
    }

    const fn end(self) -> usize {
        self.offset + self.len
    }
}

/// The fixed header, read and found sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionLayout {
    /// Version of the edge that made the region.
    pub version: ApiVersion,
    /// Bytes of the whole region.
    pub region_len: usize,
    /// Which life of the edge made it; never 0.
    pub generation: u64,
    /// Whose region it is.
    pub worker: WorkerIndex,
    /// The worker's slice of media ports.
    pub ports: PortRange,
    /// The counters page: one word per cell.
    pub counters: Section,
    /// Data of the command ring.
    pub commands: Section,
    /// Data of the event ring.
    pub events: Section,
    /// Bytes of the event ring kept for events that must arrive.
    pub event_reserve_len: usize,
}

impl RegionLayout {
    /// The layout this version makes.
    #[must_use]
    pub const fn new(worker: WorkerIndex, generation: u64, ports: PortRange) -> Self {
        Self::with_rings(
            worker,
            generation,
            ports,
            COMMAND_RING_LEN,
            EVENT_RING_LEN,
            EVENT_RESERVE_LEN,
        )
    }

    /// The same with rings of other lengths in bytes. What [`Self::from_words`] would refuse is
    /// refused there, not here.
    #[must_use]
    pub const fn with_rings(
        worker: WorkerIndex,
        generation: u64,
        ports: PortRange,
        command_ring_len: usize,
        event_ring_len: usize,
        event_reserve_len: usize,
    ) -> Self {
        let counters = Section {
            offset: HEADER_LEN,
            len: CELL_COUNT * WORD_LEN,
        };
        let commands = Section {
            offset: HEADER_LEN + COUNTERS_LEN,
            len: command_ring_len,
        };
        let events = Section {
            offset: commands.end(),
            len: event_ring_len,
        };
        Self {
            version: API_VERSION,
            region_len: events.end(),
            generation,
            worker,
            ports,
            counters,
            commands,
            events,
            event_reserve_len,
        }
    }

    /// The fixed header as it stands in the region.
    #[must_use]
    pub fn to_words(&self) -> [u64; word::FIXED_COUNT] {
        let mut words = [0; word::FIXED_COUNT];
        words[word::MAGIC] = MAGIC;
        words[word::VERSION] = u64::from(self.version.to_bits());
        words[word::HEADER_LEN] = HEADER_LEN as u64;
        words[word::REGION_LEN] = self.region_len as u64;
        words[word::GENERATION] = self.generation;
        words[word::WORKER] = u64::from(self.worker.0);
        words[word::PORTS] = u64::from(self.ports.first()) | u64::from(self.ports.last()) << 16;
        words[word::COUNTERS_OFFSET] = self.counters.offset as u64;
        words[word::COUNTERS_COUNT] = self.counters.word_count() as u64;
        words[word::COMMANDS_OFFSET] = self.commands.offset as u64;
        words[word::COMMANDS_LEN] = self.commands.len as u64;
        words[word::EVENTS_OFFSET] = self.events.offset as u64;
        words[word::EVENTS_LEN] = self.events.len as u64;
        words[word::EVENTS_RESERVE_LEN] = self.event_reserve_len as u64;
        words[word::CHECKSUM] = checksum(&words);
        words
    }

    /// Reads a fixed header of a region whose file is `file_len` bytes long.
    ///
    /// # Errors
    /// Anything that does not add up, in this order: magic, version, checksum, lengths, sections,
    /// the rest. A region of the same major version is accepted, a header of another is not even
    /// looked into.
    pub fn from_words(
        words: &[u64; word::FIXED_COUNT],
        file_len: usize,
    ) -> Result<Self, LayoutError> {
        if words[word::MAGIC] != MAGIC {
            return Err(LayoutError::NotARegion {
                found: words[word::MAGIC],
            });
        }
        let version = u32::try_from(words[word::VERSION])
            .map(ApiVersion::from_bits)
            .map_err(|_| LayoutError::bad("version", words[word::VERSION]))?;
        if !version.is_compatible_with(API_VERSION) {
            return Err(LayoutError::VersionMismatch { found: version });
        }
        if words[word::CHECKSUM] != checksum(words) {
            return Err(LayoutError::Checksum);
        }
        let header_len = bounded(
            "header_len",
            words[word::HEADER_LEN],
            HEADER_LEN,
            REGION_LEN_MAX,
        )?;
        let region_len = bounded(
            "region_len",
            words[word::REGION_LEN],
            HEADER_LEN,
            REGION_LEN_MAX,
        )?;
        if region_len != file_len {
            return Err(LayoutError::FileLength {
                stated: region_len,
                found: file_len,
            });
        }
        let cell_count = bounded(
            "counters_count",
            words[word::COUNTERS_COUNT],
            1,
            REGION_LEN_MAX / WORD_LEN,
        )?;
        let counters = Section {
            offset: offset("counters_offset", words[word::COUNTERS_OFFSET])?,
            len: cell_count * WORD_LEN,
        };
        let commands = Section {
            offset: offset("commands_offset", words[word::COMMANDS_OFFSET])?,
            len: ring_len("commands_len", words[word::COMMANDS_LEN])?,
        };
        let events = Section {
            offset: offset("events_offset", words[word::EVENTS_OFFSET])?,
            len: ring_len("events_len", words[word::EVENTS_LEN])?,
        };
        let mut sections = [counters, commands, events];
        sections.sort_unstable_by_key(|section| section.offset);
        let mut free_from = header_len;
        for section in sections {
            if section.offset < free_from || section.end() > region_len {
                return Err(LayoutError::SectionMisplaced {
                    offset: section.offset,
                    len: section.len,
                });
            }
            free_from = section.end();
        }
        let event_reserve_len = bounded(
            "events_reserve_len",
            words[word::EVENTS_RESERVE_LEN],
            0,
            events.len - record_len(MESSAGE_LEN_MAX),
        )?;
        let generation = words[word::GENERATION];
        if generation == 0 {
            return Err(LayoutError::bad("generation", generation));
        }
        let worker = u16::try_from(words[word::WORKER])
            .map_err(|_| LayoutError::bad("worker", words[word::WORKER]))?;
        let ports = u32::try_from(words[word::PORTS])
            .ok()
            .and_then(|bits| PortRange::new(bits as u16, (bits >> 16) as u16))
            .ok_or(LayoutError::bad("ports", words[word::PORTS]))?;
        Ok(Self {
            version,
            region_len,
            generation,
            worker: WorkerIndex(worker),
            ports,
            counters,
            commands,
            events,
            event_reserve_len,
        })
    }
}

fn bounded(field: &'static str, value: u64, min: usize, max: usize) -> Result<usize, LayoutError> {
    usize::try_from(value)
        .ok()
        .filter(|len| (min..=max).contains(len))
        .ok_or(LayoutError::bad(field, value))
}

fn offset(field: &'static str, value: u64) -> Result<usize, LayoutError> {
    let offset = bounded(field, value, HEADER_LEN, REGION_LEN_MAX)?;
    if offset.is_multiple_of(LINE_WORDS * WORD_LEN) {
        Ok(offset)
    } else {
        Err(LayoutError::bad(field, value))
    }
}

fn ring_len(field: &'static str, value: u64) -> Result<usize, LayoutError> {
    let len = bounded(field, value, RING_LEN_MIN, RING_LEN_MAX)?;
    if len.is_power_of_two() {
        Ok(len)
    } else {
        Err(LayoutError::bad(field, value))
    }
}

/// FNV-1a over the bytes of the words before the checksum. It guards against accidents; what an
/// adversary could still state is checked field by field.
fn checksum(words: &[u64; word::FIXED_COUNT]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in words[..word::CHECKSUM]
        .iter()
        .flat_map(|word| word.to_le_bytes())
    {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash
}

/// Why a region is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The first word is not [`MAGIC`].
    #[error("this is no Trunkline region: it begins with {found:#018x}")]
    NotARegion {
        /// What stands there.
        found: u64,
    },
    /// Made by an edge of another major version.
    #[error(
        "the region has layout {found}, this program reads {API_VERSION}: install the same \
         release of trunkline-edge and trunkline-control, then restart both"
    )]
    VersionMismatch {
        /// Version in the header.
        found: ApiVersion,
    },
    /// The header's words do not match their checksum.
    #[error("the region's header is damaged (checksum): restart trunkline-edge to make a new one")]
    Checksum,
    /// The file is not as long as its header says.
    #[error("the region is {found} bytes long but its header says {stated}")]
    FileLength {
        /// From the header.
        stated: usize,
        /// Of the file.
        found: usize,
    },
    /// A section lies outside the region, inside the header, or over another section.
    #[error("the region's section of {len} bytes at {offset} is out of place")]
    SectionMisplaced {
        /// Where the section would begin.
        offset: usize,
        /// How long it would be.
        len: usize,
    },
    /// A field is out of range.
    #[error("the region's header has an impossible {field}: {value}")]
    BadField {
        /// Name of the word.
        field: &'static str,
        /// What stands there.
        value: u64,
    },
}

impl LayoutError {
    const fn bad(field: &'static str, value: u64) -> Self {
        Self::BadField { field, value }
    }
}

#[cfg(test)]
mod tests;
