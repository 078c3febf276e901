//! The recording's clock: time since its beginning, without its pauses.

use trunkline_edge_api::MonoTime;

/// Maps moments to time in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeline {
    start: MonoTime,
    /// Sum of all pauses that are over, nanoseconds.
    paused_nanos: u64,
    state: State,
    /// The last pause that is over: what is silenced may lie before it.
    last_pause: Option<(MonoTime, MonoTime)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Paused { since: MonoTime },
}

impl Timeline {
    pub(super) fn new(start: MonoTime, paused: bool) -> Self {
        Self {
            start,
            paused_nanos: 0,
            state: if paused {
                State::Paused { since: start }
            } else {
                State::Running
            },
            last_pause: None,
        }
    }

    pub(super) fn is_paused(&self) -> bool {
        self.state != State::Running
    }

    /// Pauses or goes on; `true` when that changed something.
    pub(super) fn pause(&mut self, now: MonoTime, paused: bool) -> bool {
        match (self.state, paused) {
            (State::Running, true) => self.state = State::Paused { since: now },
            (State::Paused { since }, false) => {
                self.paused_nanos = self.paused_nanos.saturating_add(now.nanos_since(since));
                self.last_pause = Some((since, now.max(since)));
                self.state = State::Running;
            }
            _ => return false,
        }
        true
    }

    /// Nanoseconds into the file at `at`. Exact from the last but one pause on.
    pub(super) fn nanos(&self, at: MonoTime) -> u64 {
        let at = match self.state {
            State::Paused { since } => at.min(since),
            State::Running => at,
        };
        let since_start = at.nanos_since(self.start);
        match self.last_pause {
            Some((from, to)) if at < to => {
                let before = self.paused_nanos - to.nanos_since(from);
                at.min(from).nanos_since(self.start).saturating_sub(before)
            }
            _ => since_start.saturating_sub(self.paused_nanos),
        }
    }

    /// Samples at `rate_hz` into the file at `at`.
    pub(super) fn position(&self, at: MonoTime, rate_hz: u32) -> u64 {
        (u128::from(self.nanos(at)) * u128::from(rate_hz) / 1_000_000_000) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: MonoTime = MonoTime(7_000_000_000);

    fn at(millis: u64) -> MonoTime {
        START.plus_millis(millis)
    }

    #[test]
    fn a_pause_takes_no_time_and_moments_before_it_keep_their_place() {
        let mut timeline = Timeline::new(START, false);
        assert_eq!(timeline.position(at(1_000), 8_000), 8_000);
        assert!(timeline.pause(at(2_000), true));
        assert!(!timeline.pause(at(2_500), true));
        assert_eq!(timeline.position(at(9_000), 8_000), 16_000);
        assert!(timeline.pause(at(12_000), false));
        assert!(!timeline.pause(at(12_000), false));
        let rows = [
            (1_500, 12_000),
            (2_000, 16_000),
            (5_000, 16_000),
            (12_000, 16_000),
        ];
        for (millis, position) in rows {
            assert_eq!(timeline.position(at(millis), 8_000), position, "{millis}");
        }
        assert_eq!(timeline.position(at(13_000), 8_000), 24_000);
        assert!(timeline.pause(at(13_000), true));
        assert!(timeline.pause(at(14_000), false));
        assert_eq!(timeline.position(at(12_500), 8_000), 20_000);
        assert_eq!(timeline.position(at(15_000), 8_000), 32_000);
    }

    #[test]
    fn a_recording_may_begin_with_a_pause() {
        let mut timeline = Timeline::new(START, true);
        assert_eq!(timeline.nanos(at(500)), 0);
        timeline.pause(at(500), false);
        assert_eq!(timeline.nanos(at(750)), 250_000_000);
        assert_eq!(timeline.nanos(MonoTime(0)), 0);
    }
}
