//! What anybody may read in a region. Relaxed loads only, so it works on read-only mappings.

use std::sync::atomic::{AtomicU64, Ordering};

use trunkline_edge_api::layout::{RegionLayout, WORD_LEN, word};
use trunkline_edge_api::{Epoch, IoTier, MonoTime, PortRange, WorkerIndex};

use crate::counters::CellIndex;

/// A look into a region. Every figure is what stands there now; two of them need not fit together.
#[derive(Debug, Clone, Copy)]
pub struct RegionView<'a> {
    words: &'a [AtomicU64],
    layout: &'a RegionLayout,
}

impl<'a> RegionView<'a> {
    pub(crate) fn new(words: &'a [AtomicU64], layout: &'a RegionLayout) -> Self {
        Self { words, layout }
    }

    fn load(&self, index: usize) -> u64 {
        self.words
            .get(index)
            .map_or(0, |word| word.load(Ordering::Relaxed))
    }

    /// Whose region it is.
    #[must_use]
    pub fn worker(&self) -> WorkerIndex {
        self.layout.worker
    }

    /// Which life of the edge made it. Another generation means that all counters began anew.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.layout.generation
    }

    /// The worker's slice of media ports.
    #[must_use]
    pub fn ports(&self) -> PortRange {
        self.layout.ports
    }

    /// PID of the edge.
    #[must_use]
    pub fn edge_pid(&self) -> u32 {
        self.load(word::EDGE_PID) as u32
    }

    /// When the worker last went through its duty cycle; zero before the first time.
    #[must_use]
    pub fn edge_heartbeat(&self) -> MonoTime {
        MonoTime(self.load(word::EDGE_HEARTBEAT))
    }

    /// How the worker does I/O; `None` until that stands, and when the edge's release does not say.
    #[must_use]
    pub fn io_tier(&self) -> Option<IoTier> {
        IoTier::from_word(self.load(word::IO_TIER))
    }

    /// PID of the control that attached last; `None` before the first.
    #[must_use]
    pub fn control_pid(&self) -> Option<u32> {
        Some(self.load(word::CONTROL_PID) as u32).filter(|&pid| pid != 0)
    }

    /// When that control last said that it lives; `None` before the first.
    #[must_use]
    pub fn control_heartbeat(&self) -> Option<MonoTime> {
        Some(MonoTime(self.load(word::CONTROL_HEARTBEAT))).filter(|beat| beat.0 != 0)
    }

    /// Epoch of the control that attached last.
    #[must_use]
    pub fn control_epoch(&self) -> Epoch {
        Epoch(self.load(word::CONTROL_EPOCH) as u32)
    }

    /// How often a control attached.
    #[must_use]
    pub fn control_attach_count(&self) -> u64 {
        self.load(word::CONTROL_ATTACH_COUNT)
    }

    /// A counter; 0 when the edge is of an older release and does not count that.
    #[must_use]
    pub fn counter(&self, cell: impl Into<CellIndex>) -> u64 {
        let CellIndex(index) = cell.into();
        if index < self.layout.counters.word_count() {
            self.load(self.layout.counters.first_word() + index)
        } else {
            0
        }
    }

    /// Commands that found no room since the region was made.
    #[must_use]
    pub fn commands_full_count(&self) -> u64 {
        self.load(word::COMMANDS_FULL_COUNT)
    }

    /// Events that found no room since the region was made.
    #[must_use]
    pub fn events_full_count(&self) -> u64 {
        self.load(word::EVENTS_FULL_COUNT)
    }

    /// Events that must arrive and did not.
    #[must_use]
    pub fn resync_count(&self) -> u64 {
        self.load(word::RESYNC_COUNT)
    }

    /// Bytes of commands that the worker has not read, as of an instant.
    #[must_use]
    pub fn commands_waiting_len(&self) -> usize {
        self.waiting_len(
            word::COMMANDS_HEAD,
            word::COMMANDS_TAIL,
            self.layout.commands.len,
        )
    }

    /// Bytes of events that control has not read, as of an instant.
    #[must_use]
    pub fn events_waiting_len(&self) -> usize {
        self.waiting_len(word::EVENTS_HEAD, word::EVENTS_TAIL, self.layout.events.len)
    }

    fn waiting_len(&self, head: usize, tail: usize, ring_len: usize) -> usize {
        let tail = self.load(tail);
        let words = self.load(head).wrapping_sub(tail);
        words.saturating_mul(WORD_LEN as u64).min(ring_len as u64) as usize
    }

    /// Whether the worker refuses the rings because control's words made no sense.
    #[must_use]
    pub fn worker_is_poisoned(&self) -> bool {
        self.load(word::WORKER_FAULT) != 0
    }
}
