//! A jitter buffer: packets go in as the network brings them and come out as a clock asks.
//!
//! Playout follows *positions*, not packets. A packet's position is its timestamp on a timeline of
//! the buffer's own; the cursor moves along it with every pull, whatever came. So a sender may
//! change its packet time, fall silent, or skip ahead, and nothing waits for a number that never
//! comes.
//!
//! ```text
//!   arrives      3   5 4     7         (6 is lost)          20 (marker)
//!   positions  480 800 640 1120 .....................  3,200
//!   pulled       .   .   3 4 5 missing 7 starved … silence    20
//!                          cursor 640 → 800 → 960 → 1,120 →
//! ```
//!
//! * Loss is a sequence number that did not come. A gap of timestamps alone is the sender's pause
//!   (DTX, comfort noise, a telephone event in between) and is no loss.
//! * How long packets wait is learnt from how unevenly they come, between
//!   [`DELAY_MIN_MILLIS`] and [`DELAY_MAX_MILLIS`]. In a pause playout moves there at once; inside
//!   speech the caller stretches or shortens a little sound when [`JitterBuffer::adjustment`] asks,
//!   which is also what keeps up with a clock that drifts.
//! * A packet that comes in order but too late is played late: the silence has been heard already,
//!   and the speech has not. One that was overtaken too long ago is dropped and counted.
//! * A timestamp that jumps, stands still during silence, or belongs to another SSRC begins a new
//!   stretch of the timeline right after what is waiting. Nothing is played twice, and the delay
//!   before it does not add up.
//! * Depth is bounded by [`DEPTH_MAX_MILLIS`] and 32 packets; what would be more pushes out the
//!   oldest. Memory is taken once.
//!
//! RFC 3550 leaves playout to the receiver; A.1 and A.8 there are the models for sequence and
//! jitter. Left out: more than one sender at a time, which is the conference's business.

use trunkline_edge_api::{ClockRateHz, MonoTime, PayloadType};

use crate::rtp::RtpHeader;

mod delay;
mod sequence;
mod slots;

use delay::DelayEstimator;
use sequence::{Placed, SequenceTracker};
use slots::{Refused, Slot, Slots};

/// A packet at its best waits at least so long: a tick of 20 ms that runs late must not find the
/// buffer dry.
pub const DELAY_MIN_MILLIS: u32 = 20;
/// A packet at its best waits at most so long. Above it a conversation suffers more from the delay
/// (ITU-T G.114) than from the loss.
pub const DELAY_MAX_MILLIS: u32 = 200;
/// Sound that may wait at once: the longest delay, and the longest packet behind it.
pub const DEPTH_MAX_MILLIS: u32 = DELAY_MAX_MILLIS + PACKET_MAX_MILLIS;
/// The longest packet: 120 ms is what Opus can make (RFC 6716 §3.2), and more than anybody sends.
pub const PACKET_MAX_MILLIS: u32 = 120;
/// Later than this is not late: the sender's timestamp stood still while it was silent.
const LATE_MAX_MILLIS: u32 = 200;
/// After so long without a packet the sender is taken to have paused.
const PAUSE_AFTER_MILLIS: u32 = 200;
/// Room left for errors of measurement before playout is moved, milliseconds.
const ADJUSTMENT_MARGIN_MILLIS: i64 = 5;

/// What a packet holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketKind {
    /// Sound that lasts so many RTP units, up to [`PACKET_MAX_MILLIS`].
    Sound {
        /// Its length; a packet of none is refused.
        units: u32,
    },
    /// The sender says that it will be silent: comfort noise (RFC 3389), or the last frame of a
    /// codec with DTX. It may hold sound itself.
    Pause {
        /// Length of the sound in it, mostly 0.
        units: u32,
    },
    /// Nothing to hear, such as a telephone event. It takes a sequence number, so that its absence
    /// from the sound is no loss.
    Other,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Inserted {
    /// It waits to be pulled, or, of [`PacketKind::Other`], it is known.
    Taken,
    /// Its time had passed.
    Late,
    /// It had come before.
    Duplicate,
    /// It is far out of sequence; the next one will tell whether the sender has restarted.
    OutOfSequence,
    /// It holds no sound, too much, or more bytes than there is room for, or its timestamp
    /// contradicts its sequence number.
    Unusable,
}

/// What is to be heard next.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Pulled<'a> {
    /// A packet, all of it.
    Sound {
        /// Which codec it is of.
        payload_type: PayloadType,
        /// What to decode.
        payload: &'a [u8],
        /// RTP units of sound in it.
        units: u32,
        /// RTP units at its beginning whose time has passed; mostly 0.
        skip_units: u32,
    },
    /// The sender pauses, and says how its silence sounds. More has to be pulled.
    Pause {
        /// Comfort noise, or a codec with DTX.
        payload_type: PayloadType,
        /// Its parameters.
        payload: &'a [u8],
        /// RTP units of sound in it, mostly 0.
        units: u32,
    },
    /// So much was lost on the way.
    Missing {
        /// RTP units to conceal.
        units: u32,
        /// The packet right behind the loss, for a codec whose packets carry the one before (in-band
        /// FEC, RFC 6716 §2.1.7). It is still to be pulled.
        following: Option<Following<'a>>,
    },
    /// The sender is silent for so long at least.
    Silence {
        /// RTP units.
        units: u32,
    },
    /// Nothing is there, and nobody knows why: to be concealed.
    Starved {
        /// RTP units.
        units: u32,
    },
}

/// The packet behind a loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Following<'a> {
    /// Which codec it is of.
    pub payload_type: PayloadType,
    /// All of it.
    pub payload: &'a [u8],
}

/// How playout should move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adjustment {
    /// It is where it should be.
    None,
    /// Packets wait longer than needed: a little sound should be left out.
    Shorten,
    /// Packets come close to being late: a little sound should be added.
    Lengthen,
}

/// What a buffer did with what came. Counts of its whole life; depths in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JitterStats {
    /// Packets whose time had passed: lost to the listener, though not on the way.
    pub late: u64,
    /// Packets that came twice.
    pub duplicates: u64,
    /// Packets that were pushed out because too much was waiting.
    pub flushed: u64,
    /// Packets that could not be used; see [`Inserted::Unusable`].
    pub unusable: u64,
    /// Times the timeline was begun anew: another SSRC, a restart, a jump.
    pub restarts: u64,
    /// Sound waiting, ms.
    pub depth_millis: u32,
    /// The most there ever was.
    pub depth_max_millis: u32,
    /// How long a packet at its best is to wait, ms.
    pub target_millis: u32,
}

/// Packets of one leg between the network and the clock.
#[derive(Debug, Clone)]
pub struct JitterBuffer {
    clock: Clock,
    sequence: SequenceTracker,
    slots: Slots,
    delay: DelayEstimator,
    state: State,
    /// Where playout stands.
    cursor: i64,
    /// Extended sequence number of the packet pulled last.
    pulled: i64,
    /// The newest sound: its timestamp, position and end. The next one is placed by these.
    newest_timestamp: u32,
    newest_position: i64,
    newest_end: i64,
    /// A pause was announced after the newest sound.
    expects_pause: bool,
    /// How long the sound pulled last had been there, milliseconds.
    waited_millis: i64,
    stats: JitterStats,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No sound has come yet.
    Idle,
    /// There was something at the cursor when it was last asked for.
    Playing,
    /// There was not, for so many units.
    Starved { units: u32 },
    /// The sender is silent.
    Paused,
}

/// RTP time.
#[derive(Debug, Clone, Copy)]
struct Clock {
    rate: ClockRateHz,
    /// Units per nanosecond, times 2^64: one multiplication instead of a division per packet.
    factor: u64,
}

impl Clock {
    fn new(rate: ClockRateHz) -> Self {
        Self {
            rate,
            factor: ((u128::from(rate.get()) << 64) / 1_000_000_000) as u64,
        }
    }

    fn units_at(self, now: MonoTime) -> i64 {
        ((u128::from(now.0) * u128::from(self.factor)) >> 64) as i64
    }

    fn units(self, millis: u32) -> i64 {
        i64::from(self.rate.get()) * i64::from(millis) / 1_000
    }

    fn millis(self, units: i64) -> u32 {
        (units.max(0) * 1_000 / i64::from(self.rate.get())) as u32
    }
}

impl JitterBuffer {
    /// Longest payload worth room: what fits an Ethernet frame.
    pub const PAYLOAD_LEN_MAX: usize = 1_500;

    /// An empty buffer for payloads of up to `payload_len_max` bytes, at most
    /// [`Self::PAYLOAD_LEN_MAX`], under `clock_rate`. It takes 32 times as much memory.
    #[must_use]
    pub fn new(clock_rate: ClockRateHz, payload_len_max: usize) -> Self {
        let range = (DELAY_MIN_MILLIS, DELAY_MAX_MILLIS);
        Self {
            clock: Clock::new(clock_rate),
            sequence: SequenceTracker::default(),
            slots: Slots::new(payload_len_max.min(Self::PAYLOAD_LEN_MAX)),
            delay: DelayEstimator::new(clock_rate.get(), range),
            state: State::Idle,
            cursor: 0,
            pulled: 0,
            newest_timestamp: 0,
            newest_position: 0,
            newest_end: 0,
            expects_pause: false,
            waited_millis: 0,
            stats: JitterStats::default(),
        }
    }

    /// The clock of timestamps.
    #[must_use]
    pub fn clock_rate(&self) -> ClockRateHz {
        self.clock.rate
    }

    /// Goes over to another clock, because the peer sends another codec. What waits is flushed.
    pub fn set_clock_rate(&mut self, clock_rate: ClockRateHz) {
        if clock_rate == self.clock.rate {
            return;
        }
        self.stats.flushed += self.slots.len() as u64;
        self.stats.restarts += 1;
        self.slots.clear();
        self.clock = Clock::new(clock_rate);
        let range = (DELAY_MIN_MILLIS, DELAY_MAX_MILLIS);
        self.delay = DelayEstimator::new(clock_rate.get(), range);
        self.state = State::Idle;
    }

    /// Takes a packet that arrived `now`. `header` is its RTP header, `payload` what is behind it.
    pub fn insert(
        &mut self,
        now: MonoTime,
        header: &RtpHeader,
        kind: PacketKind,
        payload: &[u8],
    ) -> Inserted {
        let (units, is_pause) = match kind {
            PacketKind::Sound { units } => (units, false),
            PacketKind::Pause { units } => (units, true),
            PacketKind::Other => return self.insert_other(now, header),
        };
        let is_empty_sound = units == 0 && !is_pause;
        if is_empty_sound
            || i64::from(units) > self.clock.units(PACKET_MAX_MILLIS)
            || payload.len() > self.slots.payload_len_max()
        {
            self.stats.unusable += 1;
            return Inserted::Unusable;
        }
        let mut slot = Slot::new(0, 0, units, header.payload_type, now);
        slot.is_pause = is_pause;
        match self.sequence.place(now, header.ssrc, header.sequence) {
            Placed::Newest(sequence) => {
                slot.sequence = sequence;
                self.append(now, header.timestamp, slot, payload, false)
            }
            Placed::Restarted(sequence) => {
                slot.sequence = sequence;
                self.append(now, header.timestamp, slot, payload, true)
            }
            Placed::Overtaken(sequence) if self.state == State::Idle => {
                slot.sequence = sequence;
                self.append(now, header.timestamp, slot, payload, true)
            }
            Placed::Overtaken(sequence) => {
                slot.sequence = sequence;
                slot.position = self.position_of(header.timestamp);
                self.squeeze_in(now, slot, payload)
            }
            Placed::Duplicate => {
                self.stats.duplicates += 1;
                Inserted::Duplicate
            }
            Placed::OutOfSequence => Inserted::OutOfSequence,
        }
    }

    fn insert_other(&mut self, now: MonoTime, header: &RtpHeader) -> Inserted {
        match self.sequence.place(now, header.ssrc, header.sequence) {
            Placed::Newest(_) | Placed::Restarted(_) => {
                self.expects_pause = true;
                Inserted::Taken
            }
            Placed::Overtaken(_) => Inserted::Taken,
            Placed::Duplicate => Inserted::Duplicate,
            Placed::OutOfSequence => Inserted::OutOfSequence,
        }
    }

    fn position_of(&self, timestamp: u32) -> i64 {
        let step = timestamp.wrapping_sub(self.newest_timestamp).cast_signed();
        self.newest_position + i64::from(step)
    }

    /// Places a packet behind all others.
    fn append(
        &mut self,
        now: MonoTime,
        timestamp: u32,
        mut slot: Slot,
        payload: &[u8],
        is_other_run: bool,
    ) -> Inserted {
        let now_units = self.clock.units_at(now);
        let after_gap = self.state != State::Playing && self.slots.is_empty();
        if self.state == State::Idle {
            slot.position = now_units;
            self.cursor = now_units - self.delay.target_units();
            self.pulled = slot.sequence - 1;
            self.state = State::Paused;
        } else {
            slot.position = self.position_of(timestamp);
            if is_other_run || self.is_jump(slot.position) {
                slot.position = self.end_of_waiting();
                self.delay.rebase();
                self.stats.restarts += 1;
            }
            if self.state == State::Paused && self.slots.is_empty() && !slot.is_pause {
                self.catch_up(now_units, slot.position);
            }
        }
        if !slot.is_pause {
            let is_late = slot.position < self.cursor;
            self.delay
                .arrived(now_units, slot.position, after_gap, is_late);
            // It is in order, so what it holds has not been heard: playout turns back to it.
            self.cursor = self.cursor.min(slot.position);
        } else {
            slot.position = slot.position.max(self.cursor);
        }
        self.newest_timestamp = timestamp;
        self.newest_position = slot.position;
        self.newest_end = slot.end();
        self.expects_pause = slot.is_pause;
        while self.slots.insert(slot, payload) == Err(Refused::Full) {
            self.flush_front();
        }
        self.bound_depth();
        Inserted::Taken
    }

    /// Whether a packet that is in order lies where no network can have brought it.
    fn is_jump(&self, position: i64) -> bool {
        if position == self.newest_end && !self.slots.is_empty() {
            return false;
        }
        let ahead = position - self.cursor;
        position <= self.newest_position
            || ahead > self.clock.units(DEPTH_MAX_MILLIS)
            || ahead < -self.clock.units(LATE_MAX_MILLIS)
    }

    /// Where a packet goes that has nothing to do with those before it.
    fn end_of_waiting(&self) -> i64 {
        match self.state {
            State::Starved { .. } | State::Paused if self.slots.is_empty() => {
                self.cursor + self.delay.target_units()
            }
            _ => self.newest_end.max(self.cursor),
        }
    }

    /// The first packet after a pause, with nothing else waiting: playout may stand anywhere before
    /// it, so it is put where it should be.
    fn catch_up(&mut self, now_units: i64, position: i64) {
        let wanted = self.delay.wanted_cursor(now_units);
        let wanted = wanted.unwrap_or(position - self.delay.target_units());
        self.cursor = wanted.min(position);
        self.delay.forget_playout();
    }

    /// Places a packet that others have overtaken.
    fn squeeze_in(&mut self, now: MonoTime, slot: Slot, payload: &[u8]) -> Inserted {
        let now_units = self.clock.units_at(now);
        let is_late = slot.sequence <= self.pulled || slot.end() <= self.cursor;
        if !slot.is_pause {
            // A timestamp that the packets around it do not bear out says nothing of the network.
            let behind = self.newest_position - slot.position;
            if (0..=self.clock.units(2 * DEPTH_MAX_MILLIS)).contains(&behind) {
                self.delay.arrived(now_units, slot.position, false, is_late);
            }
        }
        if is_late {
            self.stats.late += 1;
            return Inserted::Late;
        }
        match self.slots.insert(slot, payload) {
            Ok(()) => Inserted::Taken,
            Err(Refused::Full | Refused::Misplaced) => {
                self.stats.unusable += 1;
                Inserted::Unusable
            }
        }
    }

    fn flush_front(&mut self) {
        if let Some((slot, _)) = self.slots.pop_front() {
            self.stats.flushed += 1;
            self.pulled = slot.sequence;
            self.cursor = self.cursor.max(slot.end());
        }
    }

    /// After a burst, or while nobody pulls, the oldest goes: down to what should be waiting.
    fn bound_depth(&mut self) {
        let depth = self.newest_end - self.cursor;
        if depth > self.clock.units(DEPTH_MAX_MILLIS) {
            let kept = self.newest_end - self.delay.target_units();
            while self.slots.len() > 1 && self.slots.front().is_some_and(|slot| slot.end() <= kept)
            {
                self.flush_front();
            }
            if let Some(front) = self.slots.front() {
                self.cursor = self.cursor.max(front.position.min(kept));
            }
            self.delay.forget_playout();
        }
        let depth_millis = self.depth_millis();
        self.stats.depth_max_millis = self.stats.depth_max_millis.max(depth_millis);
    }

    /// What is to be heard from the cursor on, which moves behind it. `units` is how much is wanted;
    /// a packet may give more, and what is shorter has to be followed by another pull.
    pub fn pull(&mut self, now: MonoTime, units: u32) -> Pulled<'_> {
        while let Some(front) = self.slots.front() {
            let gap = front.position - self.cursor;
            if gap > 0 {
                return self.pull_gap(gap as u32, units);
            }
            let Some((slot, index)) = self.slots.pop_front() else {
                break;
            };
            self.pulled = slot.sequence;
            let is_over = slot.end() <= self.cursor;
            if is_over && !slot.is_pause {
                self.stats.late += 1;
                continue;
            }
            let skip_units = (self.cursor - slot.position) as u32;
            self.cursor = self.cursor.max(slot.end());
            let payload_type = slot.payload_type;
            if slot.is_pause {
                self.state = State::Paused;
                return Pulled::Pause {
                    payload_type,
                    payload: self.slots.payload(index),
                    units: slot.units,
                };
            }
            self.state = State::Playing;
            self.delay.played(self.clock.units_at(now), slot.position);
            self.waited_millis = (now.nanos_since(slot.arrived_at) / 1_000_000) as i64;
            return Pulled::Sound {
                payload_type,
                payload: self.slots.payload(index),
                units: slot.units,
                skip_units,
            };
        }
        self.pull_nothing(units)
    }

    /// There is a packet, but `gap` units after the cursor.
    fn pull_gap(&mut self, gap: u32, wanted: u32) -> Pulled<'_> {
        let Some(front) = self.slots.front() else {
            return self.pull_nothing(wanted);
        };
        if self.sequence.has_all_between(self.pulled, front.sequence) {
            let units = gap.min(wanted);
            self.cursor += i64::from(units);
            self.state = State::Paused;
            return Pulled::Silence { units };
        }
        let (payload_type, length) = (front.payload_type, front.units);
        self.state = State::Playing;
        if gap > length {
            let units = (gap - length).min(wanted);
            self.cursor += i64::from(units);
            return Pulled::Missing {
                units,
                following: None,
            };
        }
        self.cursor += i64::from(gap);
        Pulled::Missing {
            units: gap,
            following: Some(Following {
                payload_type,
                payload: self.slots.front_payload(),
            }),
        }
    }

    fn pull_nothing(&mut self, units: u32) -> Pulled<'_> {
        self.state = match self.state {
            State::Idle => return Pulled::Silence { units },
            State::Playing | State::Starved { .. } if self.expects_pause => State::Paused,
            State::Playing => State::Starved { units },
            State::Starved { units: before } => {
                let all = before.saturating_add(units);
                if i64::from(all) > self.clock.units(PAUSE_AFTER_MILLIS) {
                    State::Paused
                } else {
                    State::Starved { units: all }
                }
            }
            State::Paused => State::Paused,
        };
        self.cursor += i64::from(units);
        match self.state {
            State::Starved { .. } => Pulled::Starved { units },
            State::Idle | State::Playing | State::Paused => Pulled::Silence { units },
        }
    }

    /// Whether sound follows right at the cursor: more can be had than the clock has asked for.
    #[must_use]
    pub fn has_sound_ready(&self) -> bool {
        self.slots
            .front()
            .is_some_and(|slot| slot.position <= self.cursor && !slot.is_pause)
    }

    /// Whether the caller should shorten or lengthen what it plays. `frame_millis` is how much it
    /// pulls at a time: playout moves by whole frames in the end, so that much is left alone.
    #[must_use]
    pub fn adjustment(&self, frame_millis: u32) -> Adjustment {
        let Some(delay) = self.delay.delay_millis() else {
            return Adjustment::None;
        };
        let excess = delay - i64::from(self.delay.target_millis());
        let spare = i64::from(frame_millis) + ADJUSTMENT_MARGIN_MILLIS;
        if excess < -ADJUSTMENT_MARGIN_MILLIS {
            Adjustment::Lengthen
        } else if excess > spare && self.waited_millis > spare {
            Adjustment::Shorten
        } else {
            Adjustment::None
        }
    }

    /// The caller has done what [`Self::adjustment`] asked for.
    pub fn adjusted(&mut self) {
        self.delay.forget_playout();
    }

    fn depth_millis(&self) -> u32 {
        if self.slots.is_empty() {
            return 0;
        }
        self.clock.millis(self.newest_end - self.cursor)
    }

    /// What it has done so far, and how much waits now.
    #[must_use]
    pub fn stats(&self) -> JitterStats {
        JitterStats {
            depth_millis: self.depth_millis(),
            target_millis: self.delay.target_millis(),
            ..self.stats
        }
    }
}

#[cfg(test)]
mod tests;
