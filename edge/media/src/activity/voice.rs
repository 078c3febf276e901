//! When somebody speaks: voice activity by energy over an adaptive noise floor.
//!
//! The audio is cut into blocks of 10 ms. A block is loud when it is [`OVER_FLOOR_DB`] above the
//! softest level of the last three seconds, the noise floor, and above [`LEVEL_MIN_DBM0`]: speech
//! pauses within three seconds, noise does not. Six loud blocks of ten begin speech; half a second
//! with next to none ends it. What is loud all the time, like an engine or a tone, becomes floor
//! and is not speech after three seconds; at the beginning, after one.
//!
//! Where a sender pauses (DTX), there is no audio: [`ActivityDetector::handle_gap`] counts the time
//! as silence and leaves the floor as it was, and so does digital silence. Comfort noise is noise
//! like any other.

use crate::audio::SampleRate;
use crate::outbox::Outbox;
use crate::tone::level::dbm0_of_mean_square;

/// Length of a block, milliseconds.
pub const BLOCK_MILLIS: u32 = 10;

/// Speech is at least so much above the noise floor, dB.
pub const OVER_FLOOR_DB: f32 = 9.0;
/// While somebody speaks, softer ends of words still are speech.
const OVER_FLOOR_SPEAKING_DB: f32 = 6.0;

/// Nothing softer is speech, dBm0.
pub const LEVEL_MIN_DBM0: f32 = -46.0;

/// The floor that is assumed for the first second, dBm0: a quiet line.
const FLOOR_FIRST_DBM0: f32 = -55.0;

/// Loud blocks among the last [`BEGIN_BLOCKS`] that begin speech: 60 ms, longer than a click.
const BEGIN_LOUD: u32 = 6;
const BEGIN_BLOCKS: u32 = 10;

/// How long there is next to nothing before speech has ended, milliseconds: longer than the
/// closure of a consonant or a breath.
pub const END_MILLIS: u32 = 500;
/// Loud blocks within that time that do not matter.
const END_LOUD_MAX: u32 = 2;

/// The floor is the softest of so many spans.
const SPANS: usize = 6;
/// Blocks of a span: half a second.
const SPAN_BLOCKS: u32 = 50;

/// Mean square below which a block is digital silence.
const DIGITAL_SILENCE: f32 = 1.0;

/// What an [`ActivityDetector`] tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActivityEvent {
    /// The peer has begun to speak.
    Began,
    /// The peer has ended to speak, [`END_MILLIS`] ago.
    Ended {
        /// For how long, milliseconds.
        duration_millis: u32,
    },
}

/// See the module's description.
#[derive(Debug, Clone)]
pub struct ActivityDetector {
    block_len: usize,
    /// Of the block under way.
    sample_count: usize,
    energy: f32,
    floor: Floor,
    /// The last 64 blocks, the newest in the lowest bit: 1 for a loud one.
    loud: u64,
    state: State,
    outbox: Outbox<ActivityEvent, 4>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Silent,
    Speaking { blocks: u32 },
}

impl ActivityDetector {
    /// A detector that has heard nothing.
    #[must_use]
    pub fn new(sample_rate: SampleRate) -> Self {
        Self {
            block_len: sample_rate.samples(BLOCK_MILLIS),
            sample_count: 0,
            energy: 0.0,
            floor: Floor::new(),
            loud: 0,
            state: State::Silent,
            outbox: Outbox::new(),
        }
    }

    /// Takes the next samples. The caller drains [`Self::poll_event`] afterwards.
    pub fn handle_audio(&mut self, pcm: &[i16]) {
        let mut rest = pcm;
        while !rest.is_empty() {
            let len = rest.len().min(self.block_len - self.sample_count);
            let (part, after) = rest.split_at(len);
            rest = after;
            self.energy += part
                .iter()
                .map(|&sample| f32::from(sample) * f32::from(sample))
                .sum::<f32>();
            self.sample_count += len;
            if self.sample_count == self.block_len {
                let mean_square = self.energy / self.block_len as f32;
                (self.energy, self.sample_count) = (0.0, 0);
                self.handle_block(mean_square);
            }
        }
    }

    /// Nothing was sent for so long: the sender pauses.
    pub fn handle_gap(&mut self, millis: u32) {
        // More silence than ends speech changes nothing.
        for _ in 0..(millis / BLOCK_MILLIS).min(2 * END_MILLIS / BLOCK_MILLIS) {
            self.count_block(false);
        }
    }

    /// What was heard, in order; `None` when there is nothing more to tell.
    pub fn poll_event(&mut self) -> Option<ActivityEvent> {
        self.outbox.pop()
    }

    /// Whether somebody speaks.
    #[must_use]
    pub fn is_speaking(&self) -> bool {
        matches!(self.state, State::Speaking { .. })
    }

    fn handle_block(&mut self, mean_square: f32) {
        if mean_square < DIGITAL_SILENCE {
            self.count_block(false);
            return;
        }
        self.floor.hear(mean_square);
        let over_floor_db = match self.state {
            State::Silent => OVER_FLOOR_DB,
            State::Speaking { .. } => OVER_FLOOR_SPEAKING_DB,
        };
        let level = dbm0_of_mean_square(mean_square);
        self.count_block(level >= LEVEL_MIN_DBM0.max(self.floor.dbm0() + over_floor_db));
    }

    fn count_block(&mut self, is_loud: bool) {
        self.loud = self.loud << 1 | u64::from(is_loud);
        let loud_of = |blocks: u32| (self.loud & ((1 << blocks) - 1)).count_ones();
        match &mut self.state {
            State::Silent if loud_of(BEGIN_BLOCKS) >= BEGIN_LOUD => {
                self.state = State::Speaking {
                    blocks: BEGIN_BLOCKS,
                };
                self.tell(ActivityEvent::Began);
            }
            State::Silent => {}
            State::Speaking { blocks } => {
                const END_BLOCKS: u32 = END_MILLIS / BLOCK_MILLIS;
                *blocks = blocks.saturating_add(1);
                let blocks = *blocks;
                if blocks > END_BLOCKS && loud_of(END_BLOCKS) <= END_LOUD_MAX {
                    self.state = State::Silent;
                    // What was loud is told of; it does not begin speech again.
                    self.loud = 0;
                    let duration_millis = (blocks - END_BLOCKS).saturating_mul(BLOCK_MILLIS);
                    self.tell(ActivityEvent::Ended { duration_millis });
                }
            }
        }
    }

    fn tell(&mut self, event: ActivityEvent) {
        // Half a second lies between a beginning and an end; a caller that does not ask does not
        // want to know.
        let _ = self.outbox.push(event);
    }
}

/// The softest that was heard within the last three seconds.
#[derive(Debug, Clone)]
struct Floor {
    /// Softest of each half second, dBm0, a ring.
    spans: [f32; SPANS],
    span: usize,
    blocks: u32,
    /// Mean square over some 50 ms, for a single soft block is chance; `None` before the first.
    smoothed: Option<f32>,
}

impl Floor {
    fn new() -> Self {
        let mut spans = [f32::INFINITY; SPANS];
        // It is overwritten after a second: by then a pause was heard, or it is a noisy line.
        spans[2] = FLOOR_FIRST_DBM0;
        Self {
            spans,
            span: 0,
            blocks: 0,
            smoothed: None,
        }
    }

    fn hear(&mut self, mean_square: f32) {
        let before = self.smoothed.unwrap_or(mean_square);
        let smoothed = before + 0.2 * (mean_square - before);
        self.smoothed = Some(smoothed);
        let level = dbm0_of_mean_square(smoothed);
        self.spans[self.span] = self.spans[self.span].min(level);
        self.blocks += 1;
        if self.blocks == SPAN_BLOCKS {
            self.blocks = 0;
            self.span = (self.span + 1) % SPANS;
            self.spans[self.span] = level;
        }
    }

    fn dbm0(&self) -> f32 {
        self.spans.iter().copied().fold(f32::INFINITY, f32::min)
    }
}

#[cfg(test)]
mod tests;
