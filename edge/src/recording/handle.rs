//! A worker's end of the recorder.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use trunkline_edge_api::{
    AudioCodec, AudioFormat, ClockRateHz, LegIndex, MonoTime, OpusOptions, PacketTime, PayloadType,
    Recording, RecordingId, RecordingOutcome, Refusal,
};
use trunkline_media::SampleRate;

use super::block::{Block, What};
use super::{RecorderCounters, RecorderLimits};

/// A block goes to the recorder when its first note is this old, even if it is not full.
const BLOCK_AGE_NANOS_MAX: u64 = 20_000_000;

/// Payload type of samples that never were a packet; nobody else sees it.
const MADE_PAYLOAD_TYPE: PayloadType = match PayloadType::new(96) {
    Some(payload_type) => payload_type,
    None => PayloadType::PCMU,
};

/// Most samples at once in [`RecorderHandle::tap_samples`]: 20 ms at 16 kHz.
const MADE_SAMPLES_MAX: usize = SampleRate::Hz16000.samples(20);

/// A running recording of one worker. Of no use once [`RecorderHandle::poll_finished`] told its
/// end; taps for it are then ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordingSlot {
    index: u32,
    /// Differs between the recordings that use the same place one after the other.
    generation: u32,
}

/// A recording is over and its file complete, as far as it could be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordingEnded {
    /// Where it ran. The worker forgets it.
    pub slot: RecordingSlot,
    /// Which recording.
    pub recording: RecordingId,
    /// What became of it.
    pub outcome: RecordingOutcome,
}

/// What the recorder says of a slot.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) slot: u32,
    pub(super) outcome: RecordingOutcome,
}

/// The queues between a worker and the recorder. None of them can be too small for what comes
/// back: there are as many places as blocks and slots.
#[derive(Debug)]
pub(super) struct Queues {
    pub(super) full: ArrayQueue<Block>,
    pub(super) empty: ArrayQueue<Block>,
    pub(super) finished: ArrayQueue<Finished>,
}

/// What a worker holds of the recorder. No call waits, locks or, but for [`Self::start`],
/// allocates.
///
/// Packets are dropped, and counted, when the recorder falls behind. Nothing else is: a stop, a
/// pause or a suppression that finds no room is kept with its slot and goes before the slot's next
/// packet.
#[derive(Debug)]
pub struct RecorderHandle {
    queues: Arc<Queues>,
    counters: Arc<RecorderCounters>,
    /// Being filled, since when.
    current: Option<(Block, MonoTime)>,
    /// Most recently used last, so that few of them are touched while the recorder keeps up.
    spare: Vec<Block>,
    slots: Box<[Slot]>,
    free: Vec<u32>,
    /// Slots that keep something that found no room.
    owing: Vec<u32>,
}

#[derive(Debug, Clone, Default)]
struct Slot {
    generation: u32,
    recording: Option<RecordingId>,
    dropped_packets: u64,
    /// The recorder does not know yet of the last of them.
    drops: bool,
    owed: Owed,
    /// For samples that never were a packet.
    sequence: u16,
    timestamp: u32,
}

/// What a slot could not tell the recorder yet.
#[derive(Debug, Clone, Copy, Default)]
struct Owed {
    pause: Option<(bool, MonoTime)>,
    stop: Option<MonoTime>,
    suppress: [Option<(MonoTime, MonoTime)>; 2],
    is_listed: bool,
}

impl RecorderHandle {
    pub(super) fn new(
        queues: Arc<Queues>,
        counters: Arc<RecorderCounters>,
        limits: &RecorderLimits,
    ) -> Self {
        let slots = limits.recordings_max as usize;
        Self {
            queues,
            counters,
            current: None,
            spare: (0..limits.blocks_max).map(|_| Block::new()).collect(),
            slots: vec![Slot::default(); slots].into(),
            free: (0..limits.recordings_max).rev().collect(),
            owing: Vec::with_capacity(slots),
        }
    }

    /// Begins a recording at `now`. Its file is created by the recorder; if that fails,
    /// [`Self::poll_finished`] tells.
    ///
    /// # Errors
    /// [`Refusal::TooManyRecordings`] when all slots are taken, or the recorder is so far behind
    /// that it could not be told.
    pub fn start(
        &mut self,
        recording: &Recording,
        now: MonoTime,
    ) -> Result<RecordingSlot, Refusal> {
        if self.free.is_empty() || !self.make_room(0, now) {
            return Err(Refusal::TooManyRecordings);
        }
        let index = self.free.pop().ok_or(Refusal::TooManyRecordings)?;
        let slot = &mut self.slots[index as usize];
        *slot = Slot {
            generation: slot.generation.wrapping_add(1),
            recording: Some(recording.id),
            owed: Owed {
                is_listed: slot.owed.is_listed,
                ..Owed::default()
            },
            ..Slot::default()
        };
        let generation = slot.generation;
        let what = What::Start {
            recording: Box::new(recording.clone()),
            at: now,
        };
        self.note(index, what);
        Ok(RecordingSlot { index, generation })
    }

    /// Pauses, or goes on. Saying it again changes nothing.
    pub fn pause(&mut self, slot: RecordingSlot, paused: bool, now: MonoTime) {
        self.owe(slot, now, |owed| owed.pause = Some((paused, now)));
    }

    /// Ends a recording. [`Self::poll_finished`] tells when its file is complete.
    pub fn stop(&mut self, slot: RecordingSlot, now: MonoTime) {
        self.owe(slot, now, |owed| owed.stop = owed.stop.or(Some(now)));
    }

    /// Silences what arrived on `leg` in `from..to`, which may reach into the future; see
    /// [`trunkline_media::recording::Tape::suppress`]. The last call for a leg holds.
    pub fn suppress(
        &mut self,
        slot: RecordingSlot,
        leg: LegIndex,
        (from, to): (MonoTime, MonoTime),
        now: MonoTime,
    ) {
        self.owe(slot, now, |owed| {
            let owed = &mut owed.suppress[leg.as_usize()];
            let begin = owed.map_or(from, |(earlier, _)| earlier.min(from));
            *owed = Some((begin, to));
        });
    }

    /// Takes a copy of an RTP packet that arrived on `leg`, decrypted, from its header on.
    /// `format`: how its payload is to be decoded; `None` for telephone events and comfort noise.
    #[inline]
    pub fn tap(
        &mut self,
        slot: RecordingSlot,
        leg: LegIndex,
        arrival: MonoTime,
        format: Option<AudioFormat>,
        packet: &[u8],
    ) {
        self.tap_parts(slot, (leg, arrival, format), [packet, &[]]);
    }

    /// Takes samples that never were a packet, such as a conference's mix: up to 20 ms at 8 or
    /// 16 kHz, in the order in which they are made.
    pub fn tap_samples(
        &mut self,
        slot: RecordingSlot,
        leg: LegIndex,
        arrival: MonoTime,
        rate: SampleRate,
        samples: &[i16],
    ) {
        let Some(clock_rate) = ClockRateHz::new(rate.hz()) else {
            return;
        };
        let Some(state) = self.running(slot) else {
            return;
        };
        let samples = &samples[..samples.len().min(MADE_SAMPLES_MAX)];
        let header = made_header(state.sequence, state.timestamp);
        state.sequence = state.sequence.wrapping_add(1);
        state.timestamp = state.timestamp.wrapping_add(samples.len() as u32);
        let mut payload = [0; 2 * MADE_SAMPLES_MAX];
        for (bytes, sample) in payload.chunks_exact_mut(2).zip(samples) {
            bytes.copy_from_slice(&sample.to_be_bytes());
        }
        let format = AudioFormat {
            codec: AudioCodec::L16,
            payload_type: MADE_PAYLOAD_TYPE,
            clock_rate,
            channels: 1,
            packet_time: PacketTime::MS_20,
            opus: OpusOptions::default(),
        };
        let parts = [&header[..], &payload[..2 * samples.len()]];
        self.tap_parts(slot, (leg, arrival, Some(format)), parts);
    }

    /// Hands over what has waited long enough. Once in each duty cycle.
    pub fn flush(&mut self, now: MonoTime) {
        if !self.owing.is_empty() {
            self.settle_all(now);
        }
        if let Some((_, since)) = &self.current
            && now.nanos_since(*since) >= BLOCK_AGE_NANOS_MAX
        {
            self.hand_over();
        }
    }

    /// The next recording that is over. Once in each duty cycle, until `None`.
    pub fn poll_finished(&mut self) -> Option<RecordingEnded> {
        let Finished {
            slot: index,
            outcome,
        } = self.queues.finished.pop()?;
        let slot = &mut self.slots[index as usize];
        let recording = slot.recording.take()?;
        slot.owed = Owed {
            is_listed: slot.owed.is_listed,
            ..Owed::default()
        };
        self.free.push(index);
        let lost_packets = outcome.lost_packets + slot.dropped_packets;
        Some(RecordingEnded {
            slot: RecordingSlot {
                index,
                generation: slot.generation,
            },
            recording,
            outcome: RecordingOutcome {
                lost_packets,
                ..outcome
            },
        })
    }

    #[inline]
    fn tap_parts(
        &mut self,
        slot: RecordingSlot,
        facts: (LegIndex, MonoTime, Option<AudioFormat>),
        parts: [&[u8]; 2],
    ) {
        let Some(state) = self.running(slot) else {
            return;
        };
        if state.owed.stop.is_some() {
            return;
        }
        let must_settle = state.owed.is_listed;
        let now = facts.1;
        let len = parts[0].len() + parts[1].len();
        if (must_settle && !self.settle(slot.index, now)) || !self.make_room(len, now) {
            let state = &mut self.slots[slot.index as usize];
            state.dropped_packets += 1;
            state.drops = true;
            self.counters.packets_dropped.add(1);
            return;
        }
        let follows_drop = std::mem::take(&mut self.slots[slot.index as usize].drops);
        if let Some((block, _)) = &mut self.current {
            block.push_packet(slot.index, facts, follows_drop, parts);
        }
    }

    /// The state of a slot that has not ended.
    fn running(&mut self, slot: RecordingSlot) -> Option<&mut Slot> {
        let state = self.slots.get_mut(slot.index as usize)?;
        (state.generation == slot.generation && state.recording.is_some()).then_some(state)
    }

    /// Notes down what the recorder has to know of a slot, and tells it if there is room.
    fn owe(&mut self, slot: RecordingSlot, now: MonoTime, change: impl FnOnce(&mut Owed)) {
        let Some(state) = self.running(slot) else {
            return;
        };
        change(&mut state.owed);
        if !self.settle(slot.index, now) && !self.slots[slot.index as usize].owed.is_listed {
            self.slots[slot.index as usize].owed.is_listed = true;
            self.owing.push(slot.index);
        }
    }

    /// Tells the recorder what a slot owes it; `false`: there is no room for all of it.
    fn settle(&mut self, index: u32, now: MonoTime) -> bool {
        let owed = self.slots[index as usize].owed;
        for leg in LegIndex::ALL {
            if let Some((from, to)) = owed.suppress[leg.as_usize()] {
                if !self.make_room(0, now) {
                    return false;
                }
                self.note(index, What::Suppress { leg, from, to });
                self.slots[index as usize].owed.suppress[leg.as_usize()] = None;
            }
        }
        if let Some((paused, at)) = owed.pause {
            if !self.make_room(0, now) {
                return false;
            }
            self.note(index, What::Pause { paused, at });
            self.slots[index as usize].owed.pause = None;
        }
        if let Some(at) = owed.stop {
            if !self.make_room(0, now) {
                return false;
            }
            self.note(index, What::Stop { at });
            // It stays owed: what is tapped from now on is ignored. Only the list forgets it.
        }
        true
    }

    fn settle_all(&mut self, now: MonoTime) {
        while let Some(&index) = self.owing.last() {
            if !self.settle(index, now) {
                return;
            }
            self.slots[index as usize].owed.is_listed = false;
            self.owing.pop();
        }
    }

    /// Sees to it that the current block takes one more note with `len` bytes.
    fn make_room(&mut self, len: usize, now: MonoTime) -> bool {
        if self
            .current
            .as_ref()
            .is_some_and(|(block, _)| !block.has_room(len))
        {
            self.hand_over();
        }
        if self.current.is_none() {
            while let Some(block) = self.queues.empty.pop() {
                self.spare.push(block);
            }
            self.current = self.spare.pop().map(|block| (block, now));
        }
        self.current
            .as_ref()
            .is_some_and(|(block, _)| block.has_room(len))
    }

    fn note(&mut self, index: u32, what: What) {
        if let Some((block, _)) = &mut self.current {
            block.push(index, what);
        }
    }

    fn hand_over(&mut self) {
        let Some((block, since)) = self.current.take() else {
            return;
        };
        if block.is_empty() {
            self.current = Some((block, since));
            return;
        }
        // There are as many places as blocks.
        if let Err(block) = self.queues.full.push(block) {
            self.current = Some((block, since));
        }
    }
}

impl Drop for RecorderHandle {
    /// What was noted reaches the recorder, which then ends what was not stopped.
    fn drop(&mut self) {
        self.hand_over();
    }
}

/// The header of a packet that is made here (RFC 3550 §5.1).
fn made_header(sequence: u16, timestamp: u32) -> [u8; 12] {
    let mut header = [0; 12];
    header[0] = 0x80;
    header[1] = MADE_PAYLOAD_TYPE.get();
    header[2..4].copy_from_slice(&sequence.to_be_bytes());
    header[4..8].copy_from_slice(&timestamp.to_be_bytes());
    header
}
