//! Whether a worker is past its capacity.
//!
//! A worker that keeps up waits in the kernel now and then: it has done all there was to do. One
//! that does not never waits. So the share of duty cycles that found nothing to do tells, without
//! a clock, how near the end is; and it is told before packets are lost, because the kernel's
//! receive buffers come in between.

/// Duty cycles that are looked at together. Under load a cycle takes 0.1 to 1 ms, so this is a
/// fraction of a second: longer than a burst, shorter than a caller's patience.
const WINDOW_CYCLES: u32 = 1_024;

/// A window with fewer idle cycles than this was too busy.
const IDLE_MIN: u32 = WINDOW_CYCLES / 64;

/// How the last cycles went.
#[derive(Debug, Default)]
pub(crate) struct Capacity {
    cycles: u32,
    idle: u32,
    /// The cycle before was idle.
    was_idle: bool,
    is_exceeded: bool,
}

/// What a duty cycle was spent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CycleWork {
    /// There was nothing to do.
    Idle,
    Media,
    /// Commands, beside whatever else. Such cycles say nothing about media: a control that opens
    /// thousands of calls in a row, after a restart say, is not turned away for that.
    Commands,
}

impl Capacity {
    /// Takes note of a cycle.
    pub(crate) fn observe(&mut self, work: CycleWork) {
        let was_idle = std::mem::replace(&mut self.was_idle, work == CycleWork::Idle);
        match work {
            CycleWork::Commands => return,
            CycleWork::Media => {}
            CycleWork::Idle => self.idle += 1,
        }
        self.cycles += 1;
        // Two idle cycles in a row: it waited as long as it ever does, and nothing came.
        let is_at_rest = was_idle && work == CycleWork::Idle;
        if self.idle >= IDLE_MIN || is_at_rest {
            // Enough is known: a worker that was past its capacity says at once that it no longer
            // is.
            *self = Self::default();
        } else if self.cycles >= WINDOW_CYCLES {
            *self = Self {
                is_exceeded: true,
                ..Self::default()
            };
        }
    }

    /// Whether the worker can take on no more than it has.
    pub(crate) fn is_exceeded(&self) -> bool {
        self.is_exceeded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(works: impl IntoIterator<Item = CycleWork>) -> bool {
        let mut capacity = Capacity::default();
        for work in works {
            capacity.observe(work);
        }
        capacity.is_exceeded()
    }

    #[test]
    fn worker_that_never_waits_is_past_its_capacity() {
        let cycles = |count| std::iter::repeat_n(CycleWork::Media, count);
        assert!(!after(cycles(WINDOW_CYCLES as usize - 1)));
        assert!(after(cycles(WINDOW_CYCLES as usize)));
        assert!(after(cycles(10 * WINDOW_CYCLES as usize + 7)));
    }

    #[test]
    fn worker_that_waits_now_and_then_is_not() {
        let cycles = (0..10 * WINDOW_CYCLES).map(|cycle| {
            if cycle % 50 == 0 {
                CycleWork::Idle
            } else {
                CycleWork::Media
            }
        });
        assert!(!after(cycles));
    }

    #[test]
    fn load_that_ends_is_forgotten_after_a_few_waits() {
        let busy = std::iter::repeat_n(CycleWork::Media, 5_000);
        let idle = std::iter::repeat_n(CycleWork::Idle, IDLE_MIN as usize);
        assert!(!after(busy.chain(idle)));
    }

    #[test]
    fn load_that_ends_at_once_is_forgotten_at_once() {
        let busy = std::iter::repeat_n(CycleWork::Media, 5_000);
        assert!(!after(busy.chain([CycleWork::Idle, CycleWork::Idle])));
        let busy = std::iter::repeat_n(CycleWork::Media, 5_000);
        assert!(after(busy.chain([
            CycleWork::Idle,
            CycleWork::Media,
            CycleWork::Idle
        ])));
    }

    #[test]
    fn commands_alone_are_no_load() {
        assert!(!after(std::iter::repeat_n(CycleWork::Commands, 100_000)));
    }
}
