//! How long packets should wait, learnt from how unevenly they come.
//!
//! A packet's *transit* is its arrival minus its position, both on the buffer's timeline; only
//! differences of transits mean anything. The least of the last seconds is the network at its best,
//! and a packet's *relative delay* is by how much it missed that. The target is what
//! [`COVERED_PERCENT`] of the relative delays stay below.
//!
//! *Playout* is the same measure at the other end: when a packet was taken minus its position. The
//! least playout minus the least transit is what the buffer really adds. Both windows forget within
//! seconds, so a drifting clock and a route that changed are followed.
//!
//! A sender that stops its timestamps while it is silent looks like one whose packets were held up:
//! its first packet after the silence has a long transit. Those behind it tell them apart. What was
//! held up comes all at once, each transit shorter than the one before; otherwise they stay as they
//! are, and nothing is to be learnt but the new least transit.

/// Share of packets that shall not be late.
const COVERED_PERCENT: u32 = 97;
/// A packet that did come late counts as many: being late once in a hundred is noticed, being early
/// is not.
const LATE_WEIGHT: u16 = 4;
/// Resolution of relative delays.
const BUCKET_MILLIS: u32 = 5;
const BUCKET_COUNT: usize = 48;
/// Packets after which the older half of what is known is forgotten: 5 s at 20 ms.
const GENERATION_LEN: u16 = 250;
/// Fewer packets than this say nothing yet.
const SAMPLES_MIN: u16 = 32;
/// Packets between two looks at the histogram, unless one was above the target.
const REVIEW_INTERVAL: u16 = 8;
/// Packets after a gap that tell a pause from a stall.
const DOUBT_LEN: usize = 4;
/// Relative delay from which on there is a doubt, milliseconds; less is jitter anyway.
const DOUBT_MIN_MILLIS: i64 = 30;
/// How far transits may differ after a pause, milliseconds: less than a packet, which is the step
/// after a stall.
const PAUSE_SPREAD_MILLIS: i64 = 15;
const BLOCK_COUNT: usize = 8;
const BLOCK_MILLIS: i64 = 500;

/// What a stream is given before anything is known of its jitter.
const INITIAL_MILLIS: u32 = 40;

/// The least value of the last 3.5 to 4 seconds.
#[derive(Debug, Clone)]
struct WindowMin {
    blocks: [i64; BLOCK_COUNT],
    /// Number of the newest block since the timeline's zero.
    newest: i64,
    min: i64,
}

impl WindowMin {
    const NONE: i64 = i64::MAX;

    fn new() -> Self {
        Self {
            blocks: [Self::NONE; BLOCK_COUNT],
            newest: 0,
            min: Self::NONE,
        }
    }

    /// `block` is the number of the half-second that `value` belongs to.
    fn add(&mut self, block: i64, value: i64) {
        self.expire(block);
        let place = &mut self.blocks[block.rem_euclid(BLOCK_COUNT as i64) as usize];
        *place = (*place).min(value);
        self.min = self.min.min(value);
    }

    fn expire(&mut self, block: i64) {
        if block == self.newest {
            return;
        }
        let passed = block.saturating_sub(self.newest);
        if (1..BLOCK_COUNT as i64).contains(&passed) {
            for step in 1..=passed {
                let index = (self.newest + step).rem_euclid(BLOCK_COUNT as i64);
                self.blocks[index as usize] = Self::NONE;
            }
        } else {
            self.blocks = [Self::NONE; BLOCK_COUNT];
        }
        self.newest = block;
        self.min = self.blocks.iter().copied().min().unwrap_or(Self::NONE);
    }

    fn min(&self) -> Option<i64> {
        (self.min != Self::NONE).then_some(self.min)
    }
}

/// The first packets after a gap, of which it is not known yet why they are late.
#[derive(Debug, Clone, Copy)]
struct Doubt {
    transits: [i64; DOUBT_LEN],
    len: usize,
    is_late: bool,
}

#[derive(Debug, Clone)]
pub(super) struct DelayEstimator {
    units_per_milli: i64,
    transits: WindowMin,
    playouts: WindowMin,
    /// Relative delays of this generation and the one before.
    present: [u16; BUCKET_COUNT],
    before: [u16; BUCKET_COUNT],
    present_len: u16,
    before_len: u16,
    until_review: u16,
    doubt: Option<Doubt>,
    target_millis: u32,
    range_millis: (u32, u32),
}

impl DelayEstimator {
    /// `range_millis` bounds the target. `clock_hz` is at least 1,000.
    pub(super) fn new(clock_hz: u32, range_millis: (u32, u32)) -> Self {
        Self {
            units_per_milli: i64::from(clock_hz / 1_000).max(1),
            transits: WindowMin::new(),
            playouts: WindowMin::new(),
            present: [0; BUCKET_COUNT],
            before: [0; BUCKET_COUNT],
            present_len: 0,
            before_len: 0,
            until_review: 0,
            doubt: None,
            target_millis: INITIAL_MILLIS.clamp(range_millis.0, range_millis.1),
            range_millis,
        }
    }

    fn block(&self, now_units: i64) -> i64 {
        now_units.div_euclid(self.units_per_milli * BLOCK_MILLIS)
    }

    /// A packet came. `after_gap`: nothing was waiting, and nothing had been heard for a while.
    /// `is_late`: it was needed before.
    pub(super) fn arrived(
        &mut self,
        now_units: i64,
        position: i64,
        after_gap: bool,
        is_late: bool,
    ) {
        let transit = now_units - position;
        let block = self.block(now_units);
        self.transits.add(block, transit);
        let relative_millis = self.relative_millis(transit);
        if after_gap && self.doubt.is_none() && relative_millis >= DOUBT_MIN_MILLIS {
            self.doubt = Some(Doubt {
                transits: [transit; DOUBT_LEN],
                len: 1,
                is_late,
            });
        } else if let Some(mut doubt) = self.doubt.take() {
            doubt.transits[doubt.len] = transit;
            doubt.len += 1;
            if doubt.len < DOUBT_LEN {
                self.doubt = Some(doubt);
            } else {
                self.decide(block, doubt);
            }
        } else {
            self.record(relative_millis, is_late);
        }
    }

    fn relative_millis(&self, transit: i64) -> i64 {
        let floor = self.transits.min().unwrap_or(transit);
        (transit - floor).max(0) / self.units_per_milli
    }

    fn decide(&mut self, block: i64, doubt: Doubt) {
        let least = doubt.transits.iter().copied().min();
        let least = least.unwrap_or(doubt.transits[0]);
        let spread = (doubt.transits[0] - least) / self.units_per_milli;
        if spread < PAUSE_SPREAD_MILLIS {
            self.transits = WindowMin::new();
            self.transits.add(block, least);
        } else {
            for (place, transit) in doubt.transits.into_iter().enumerate() {
                self.record(self.relative_millis(transit), doubt.is_late && place == 0);
            }
        }
    }

    fn record(&mut self, relative_millis: i64, is_late: bool) {
        let bucket = (relative_millis / i64::from(BUCKET_MILLIS)).min(BUCKET_COUNT as i64 - 1);
        let weight = if is_late { LATE_WEIGHT } else { 1 };
        self.present[bucket as usize] += weight;
        self.present_len += weight;
        if self.present_len >= GENERATION_LEN {
            self.before = std::mem::replace(&mut self.present, [0; BUCKET_COUNT]);
            self.before_len = std::mem::replace(&mut self.present_len, 0);
        }
        if self.until_review == 0 || relative_millis > i64::from(self.target_millis) {
            self.review();
        } else {
            self.until_review -= 1;
        }
    }

    fn review(&mut self) {
        self.until_review = REVIEW_INTERVAL;
        let total = u32::from(self.present_len) + u32::from(self.before_len);
        if total < u32::from(SAMPLES_MIN) {
            return;
        }
        let uncovered_max = total * (100 - COVERED_PERCENT) / 100;
        let mut uncovered = 0;
        let mut bucket = BUCKET_COUNT - 1;
        while bucket > 0 {
            uncovered += u32::from(self.present[bucket]) + u32::from(self.before[bucket]);
            if uncovered > uncovered_max {
                break;
            }
            bucket -= 1;
        }
        let covered_millis = (bucket as u32 + 1) * BUCKET_MILLIS;
        self.target_millis = covered_millis.clamp(self.range_millis.0, self.range_millis.1);
    }

    /// A packet was taken for play.
    pub(super) fn played(&mut self, now_units: i64, position: i64) {
        self.playouts
            .add(self.block(now_units), now_units - position);
    }

    /// Playout was moved: what was measured of it no longer holds.
    pub(super) fn forget_playout(&mut self) {
        self.playouts = WindowMin::new();
    }

    /// The timeline was broken: only how uneven arrivals are is still known.
    pub(super) fn rebase(&mut self) {
        self.transits = WindowMin::new();
        self.playouts = WindowMin::new();
        self.doubt = None;
    }

    /// Where playout should stand `now_units`, were a packet at its best to wait for the target;
    /// `None` when no packet came in the last seconds.
    pub(super) fn wanted_cursor(&mut self, now_units: i64) -> Option<i64> {
        self.transits.expire(self.block(now_units));
        Some(now_units - self.transits.min()? - self.target_units())
    }

    pub(super) fn target_millis(&self) -> u32 {
        self.target_millis
    }

    pub(super) fn target_units(&self) -> i64 {
        i64::from(self.target_millis) * self.units_per_milli
    }

    /// By how many milliseconds the buffer delays packets at their best, at the least; `None` while
    /// nothing was played since playout moved.
    pub(super) fn delay_millis(&self) -> Option<i64> {
        Some((self.playouts.min()? - self.transits.min()?) / self.units_per_milli)
    }
}
