//! Calls per second on a trunk: a token bucket with a bounded queue.
//!
//! Carriers refuse, or bill, what exceeds the agreed rate (Twilio: one call a second unless asked
//! for more). A call that comes too early waits for its turn; when too many wait, the next one
//! goes elsewhere at once rather than ring after its caller has gone.

use trunkline_edge_api::MonoTime;

/// How long a call waits for its turn, milliseconds. Longer, and the caller thinks the line is
/// dead: nothing rings yet.
pub const WAIT_MAX_MILLIS: u64 = 4_000;

/// What becomes of a call attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It may go out now.
    Now,
    /// It has a place in the queue: this is its turn.
    At(MonoTime),
    /// The queue is full.
    Full,
}

/// Gives each call attempt its time, at most `per_second` in any second.
#[derive(Debug, Clone)]
pub struct Pacer {
    per_second: u32,
    /// When the bucket is full again. In the past: it is full now.
    full_at: MonoTime,
}

impl Pacer {
    /// `per_second` of 0 means no limit.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        Self {
            per_second,
            full_at: MonoTime(0),
        }
    }

    /// The rate; 0: no limit.
    #[must_use]
    pub fn per_second(&self) -> u32 {
        self.per_second
    }

    /// Another rate from now on.
    pub fn set_per_second(&mut self, per_second: u32) {
        self.per_second = per_second;
    }

    /// Takes a token. `is_urgent` (an emergency call) goes at once and still counts.
    pub fn take(&mut self, now: MonoTime, is_urgent: bool) -> Turn {
        if self.per_second == 0 {
            return Turn::Now;
        }
        // Tokens are spaced out rather than handed out in bursts: carriers that measure in whole
        // seconds and those that measure in shorter ones are both content.
        let spacing = 1_000_000_000 / u64::from(self.per_second);
        if is_urgent {
            self.full_at = self.full_at.max(now).plus_nanos(spacing);
            return Turn::Now;
        }
        if self.full_at <= now {
            self.full_at = now.plus_nanos(spacing);
            return Turn::Now;
        }
        let wait = self.full_at.nanos_since(now);
        if wait > WAIT_MAX_MILLIS * 1_000_000 {
            return Turn::Full;
        }
        let turn = self.full_at;
        self.full_at = turn.plus_nanos(spacing);
        Turn::At(turn)
    }

    /// Calls that wait for their turn.
    #[must_use]
    pub fn waiting(&self, now: MonoTime) -> u64 {
        match self.per_second {
            0 => 0,
            rate => (self.full_at.nanos_since(now) * u64::from(rate)) / 1_000_000_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: MonoTime = MonoTime(1_000_000_000);

    #[test]
    fn calls_beyond_the_rate_wait_for_their_turn_and_then_overflow() {
        let mut pacer = Pacer::new(2);
        assert_eq!(pacer.take(START, false), Turn::Now);
        for place in 1..=8 {
            let turn = Turn::At(START.plus_millis(500 * place));
            assert_eq!(pacer.take(START, false), turn);
        }
        assert_eq!(pacer.waiting(START), 9);
        assert_eq!(pacer.take(START, false), Turn::Full);
        // Half a second later there is one place.
        let later = START.plus_millis(500);
        assert_eq!(pacer.take(later, false), Turn::At(START.plus_millis(4_500)));
        assert_eq!(pacer.take(later, false), Turn::Full);
    }

    #[test]
    fn no_second_holds_more_calls_than_agreed() {
        let mut pacer = Pacer::new(3);
        let mut turns = Vec::new();
        for step in 0..200 {
            let now = START.plus_millis(step * 37);
            match pacer.take(now, false) {
                Turn::Now => turns.push(now),
                Turn::At(at) => turns.push(at),
                Turn::Full => {}
            }
        }
        assert!(turns.len() > 20);
        for first in &turns {
            let end = first.plus_millis(999);
            let within = turns.iter().filter(|at| *at >= first && **at < end).count();
            assert!(within <= 3, "{within}");
        }
    }

    #[test]
    fn an_emergency_call_never_waits() {
        let mut pacer = Pacer::new(1);
        assert_eq!(pacer.take(START, false), Turn::Now);
        while pacer.take(START, false) != Turn::Full {}
        assert_eq!(pacer.take(START, true), Turn::Now);
    }

    #[test]
    fn a_trunk_without_a_rate_is_not_paced() {
        let mut pacer = Pacer::new(0);
        for _ in 0..1_000 {
            assert_eq!(pacer.take(START, false), Turn::Now);
        }
    }
}
