//! Timers of a worker: one per slot of a table, none allocated after start.
//!
//! A hashed wheel. A timer is linked into the slot of its tick; one that lies further ahead than
//! the wheel reaches is linked into the last slot and moved on when that comes round. Arming and
//! cancelling take constant time, expiring takes the ticks that have passed plus the timers found.

use trunkline_edge_api::MonoTime;

/// Length of a tick. Timers run out at most this late, never early.
const TICK_NANOS: u64 = 10_000_000;

/// Ticks that the wheel reaches ahead, a power of two: about 41 s, so a timer of a minute is
/// moved once.
const TICKS: u64 = 4096;

/// No timer.
const NONE: u32 = u32::MAX;

/// Timers by key, `0 … capacity - 1`.
pub(crate) struct TimerWheel {
    /// First timer of each tick.
    heads: Vec<u32>,
    timers: Vec<Timer>,
    /// The tick that is expired next.
    current: u64,
    /// Timers that ran out and were not yet handed over.
    expired: u32,
}

#[derive(Clone, Copy)]
struct Timer {
    list: List,
    next: u32,
    previous: u32,
    deadline: MonoTime,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum List {
    Idle,
    Tick(u32),
    Expired,
}

impl TimerWheel {
    pub(crate) fn new(capacity: u32, now: MonoTime) -> Self {
        let idle = Timer {
            list: List::Idle,
            next: NONE,
            previous: NONE,
            deadline: MonoTime(0),
        };
        Self {
            heads: vec![NONE; TICKS as usize],
            timers: vec![idle; capacity as usize],
            current: now.0 / TICK_NANOS,
            expired: NONE,
        }
    }

    /// Arms the timer of `key`, replacing an earlier deadline.
    pub(crate) fn arm(&mut self, key: u32, deadline: MonoTime) {
        self.cancel(key);
        self.timers[key as usize].deadline = deadline;
        // Rounded up, so that it is never early.
        let tick = deadline.0.div_ceil(TICK_NANOS);
        let tick = tick.clamp(self.current, self.current + TICKS - 1);
        self.link(key, List::Tick((tick % TICKS) as u32));
    }

    /// Disarms the timer of `key`, if it is armed.
    pub(crate) fn cancel(&mut self, key: u32) {
        let Timer {
            list,
            next,
            previous,
            ..
        } = self.timers[key as usize];
        if list == List::Idle {
            return;
        }
        if previous == NONE {
            *self.head_mut(list) = next;
        } else {
            self.timers[previous as usize].next = next;
        }
        if next != NONE {
            self.timers[next as usize].previous = previous;
        }
        self.timers[key as usize].list = List::Idle;
    }

    /// The key of a timer that has run out by `now`, which is then disarmed; `None` when there is
    /// no more.
    pub(crate) fn poll_expired(&mut self, now: MonoTime) -> Option<u32> {
        let now_tick = now.0 / TICK_NANOS;
        loop {
            if self.expired != NONE {
                let key = self.expired;
                self.cancel(key);
                return Some(key);
            }
            if self.current > now_tick {
                return None;
            }
            self.expire_tick(now);
            self.current += 1;
        }
    }

    fn expire_tick(&mut self, now: MonoTime) {
        let mut key = std::mem::replace(&mut self.heads[(self.current % TICKS) as usize], NONE);
        while key != NONE {
            let timer = &mut self.timers[key as usize];
            let next = timer.next;
            timer.list = List::Idle;
            if timer.deadline <= now {
                self.link(key, List::Expired);
            } else {
                let deadline = timer.deadline;
                self.rearm_later(key, deadline);
            }
            key = next;
        }
    }

    /// Moves on a timer that was further ahead than the wheel reached.
    fn rearm_later(&mut self, key: u32, deadline: MonoTime) {
        let first = self.current + 1;
        let tick = deadline
            .0
            .div_ceil(TICK_NANOS)
            .clamp(first, first + TICKS - 2);
        self.link(key, List::Tick((tick % TICKS) as u32));
    }

    fn link(&mut self, key: u32, list: List) {
        let next = std::mem::replace(self.head_mut(list), key);
        if next != NONE {
            self.timers[next as usize].previous = key;
        }
        let timer = &mut self.timers[key as usize];
        timer.list = list;
        timer.next = next;
        timer.previous = NONE;
    }

    fn head_mut(&mut self, list: List) -> &mut u32 {
        match list {
            List::Tick(tick) => &mut self.heads[tick as usize],
            List::Expired | List::Idle => &mut self.expired,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: MonoTime = MonoTime(5_000_000_123);
    const NONE_DUE: [u32; 0] = [];

    fn expire(wheel: &mut TimerWheel, now: MonoTime) -> Vec<u32> {
        std::iter::from_fn(|| wheel.poll_expired(now)).collect()
    }

    #[test]
    fn timer_runs_out_once_and_not_early() {
        let mut wheel = TimerWheel::new(2, START);
        let deadline = START.plus_millis(25);
        wheel.arm(0, deadline);
        assert_eq!(expire(&mut wheel, MonoTime(deadline.0 - 1)), NONE_DUE);
        let tick_later = deadline.plus_nanos(TICK_NANOS);
        assert_eq!(expire(&mut wheel, tick_later), [0]);
        assert_eq!(expire(&mut wheel, tick_later.plus_secs(1_000)), NONE_DUE);
    }

    #[test]
    fn timer_of_a_day_runs_out_after_a_day() {
        let mut wheel = TimerWheel::new(1, START);
        let deadline = START.plus_secs(86_400);
        wheel.arm(0, deadline);
        let mut now = START;
        while now < MonoTime(deadline.0 - 100_000_000) {
            now = now.plus_millis(100);
            assert_eq!(expire(&mut wheel, now), NONE_DUE);
        }
        assert_eq!(expire(&mut wheel, deadline.plus_millis(100)), [0]);
    }

    #[test]
    fn cancelled_and_replaced_deadlines_do_not_run_out() {
        let mut wheel = TimerWheel::new(3, START);
        wheel.arm(0, START.plus_millis(100));
        wheel.arm(1, START.plus_millis(100));
        wheel.arm(2, START.plus_millis(100));
        wheel.cancel(1);
        wheel.cancel(1);
        wheel.arm(2, START.plus_millis(300));
        assert_eq!(expire(&mut wheel, START.plus_millis(200)), [0]);
        assert_eq!(expire(&mut wheel, START.plus_millis(400)), [2]);
    }

    #[test]
    fn deadline_in_the_past_runs_out_with_the_next_tick() {
        let mut wheel = TimerWheel::new(1, START);
        assert_eq!(expire(&mut wheel, START.plus_secs(10)), NONE_DUE);
        wheel.arm(0, START);
        assert_eq!(expire(&mut wheel, START.plus_secs(10).plus_millis(10)), [0]);
    }

    #[test]
    fn timer_cancelled_between_two_polls_of_one_tick_stays_cancelled() {
        let mut wheel = TimerWheel::new(2, START);
        wheel.arm(0, START.plus_millis(50));
        wheel.arm(1, START.plus_millis(50));
        let now = START.plus_millis(100);
        let first = wheel.poll_expired(now).expect("two are due");
        wheel.cancel(1 - first);
        assert_eq!(wheel.poll_expired(now), None);
    }

    proptest! {
        #[test]
        fn every_armed_timer_runs_out_within_a_tick_of_its_deadline(
            delays_millis in proptest::collection::vec(0u64..200_000, 1..40), step_millis in 1u64..500,
        ) {
            let mut wheel = TimerWheel::new(delays_millis.len() as u32, START);
            for (key, delay) in (0..).zip(&delays_millis) {
                wheel.arm(key, START.plus_millis(*delay));
            }
            let mut now = START;
            let mut seen = 0;
            while seen < delays_millis.len() {
                now = now.plus_millis(step_millis);
                for key in expire(&mut wheel, now) {
                    let deadline = START.plus_millis(delays_millis[key as usize]);
                    prop_assert!(deadline <= now);
                    let late_nanos = now.nanos_since(deadline);
                    prop_assert!(late_nanos <= TICK_NANOS + step_millis * 1_000_000);
                    seen += 1;
                }
                prop_assert!(now < START.plus_secs(300), "all have run out by now");
            }
        }
    }
}
