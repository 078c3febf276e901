//! How long a leg may hear nothing, and what its silence means.
//!
//! | the leg | what counts as a sign of life | silence is |
//! |---|---|---|
//! | both ways, never heard RTP | RTP | `NeverStarted` |
//! | both ways, heard RTP | RTP, RTCP | `Stopped` |
//! | both ways, only RTCP comes: muted | RTP | `Held` |
//! | one way or none: on hold | RTP | `Held` |
//!
//! A silence is told when it passes its limit, and again each time it has lasted as long once more:
//! control may not have been ready to act, or may be another one by then.
//!
//! Comfort noise (RFC 3389) is RTP like any other. A leg that does not receive is never `Stopped`;
//! one that only receives is on hold too, because a holding phone may send music or nothing.

use trunkline_edge_api::{MediaDirection, MediaTimeoutKind, MediaTimeouts, MonoTime};

/// See the module's description.
#[derive(Debug, Clone)]
pub struct Silence {
    limits: MediaTimeouts,
    state: State,
    heard_rtp: Option<MonoTime>,
    heard_rtcp: Option<MonoTime>,
    /// When a silence was told last.
    told_at: MonoTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The peer is not known: nothing is expected.
    Unconfigured,
    /// Media flows both ways since then.
    Talking(MonoTime),
    /// It does not.
    Held(MonoTime),
}

impl Default for Silence {
    fn default() -> Self {
        Self {
            limits: MediaTimeouts::OFF,
            state: State::Unconfigured,
            heard_rtp: None,
            heard_rtcp: None,
            told_at: MonoTime(0),
        }
    }
}

impl Silence {
    /// The leg was configured. Time runs on when its direction is what it was.
    pub fn configure(&mut self, now: MonoTime, direction: MediaDirection, limits: MediaTimeouts) {
        self.limits = limits;
        let is_talking = direction == MediaDirection::SendReceive;
        self.state = match self.state {
            State::Talking(since) if is_talking => State::Talking(since),
            State::Held(since) if !is_talking => State::Held(since),
            _ if is_talking => State::Talking(now),
            _ => State::Held(now),
        };
    }

    /// RTP of the peer came.
    #[inline]
    pub fn handle_rtp(&mut self, now: MonoTime) {
        self.heard_rtp = Some(now);
    }

    /// RTCP of the peer came.
    pub fn handle_rtcp(&mut self, now: MonoTime) {
        self.heard_rtcp = Some(now);
    }

    /// When to call [`Self::take_timeout`]; later than that when something is heard meanwhile.
    #[must_use]
    pub fn deadline(&self) -> Option<MonoTime> {
        self.next().map(|(deadline, _)| deadline)
    }

    /// The silence that has lasted too long by `now`.
    pub fn take_timeout(&mut self, now: MonoTime) -> Option<MediaTimeoutKind> {
        let (_, kind) = self.next().filter(|&(deadline, _)| deadline <= now)?;
        self.told_at = now;
        Some(kind)
    }

    /// When the silence is too long, and what it is then.
    fn next(&self) -> Option<(MonoTime, MediaTimeoutKind)> {
        let limit = |since: MonoTime, secs: u32, kind| {
            let since = since.max(self.told_at);
            (secs != 0).then(|| (since.plus_secs(u64::from(secs)), kind))
        };
        let limits = &self.limits;
        let (since, heard_rtp) = match (self.state, self.heard_rtp) {
            (State::Unconfigured, _) => return None,
            (State::Held(since), heard) => {
                let since = heard.map_or(since, |heard| heard.max(since));
                return limit(since, limits.held_secs, MediaTimeoutKind::Held);
            }
            (State::Talking(since), None) => {
                let kind = MediaTimeoutKind::NeverStarted;
                return limit(since, limits.never_started_secs, kind);
            }
            (State::Talking(since), Some(heard)) => (since, heard),
        };
        let muted_since = heard_rtp.max(since);
        let dead_since = self
            .heard_rtcp
            .map_or(muted_since, |heard| heard.max(muted_since));
        let stopped = limit(dead_since, limits.stopped_secs, MediaTimeoutKind::Stopped);
        let held = limit(muted_since, limits.held_secs, MediaTimeoutKind::Held);
        match (stopped, held) {
            (Some(stopped), Some(held)) if held.0 < stopped.0 => Some(held),
            (Some(stopped), _) => Some(stopped),
            (None, held) => held,
        }
    }
}

#[cfg(test)]
mod tests {
    use MediaDirection::{Inactive, ReceiveOnly, SendOnly, SendReceive};
    use MediaTimeoutKind::{Held, NeverStarted, Stopped};

    use super::*;

    const LIMITS: MediaTimeouts = MediaTimeouts {
        never_started_secs: 10,
        stopped_secs: 20,
        held_secs: 100,
    };

    fn at(secs: u64) -> MonoTime {
        MonoTime(secs * 1_000_000_000)
    }

    /// Runs second by second; `hears` says what comes when.
    fn timeouts(
        mut silence: Silence,
        seconds: std::ops::Range<u64>,
        hears: impl Fn(u64) -> (bool, bool),
    ) -> Vec<(u64, MediaTimeoutKind)> {
        let mut told = Vec::new();
        for second in seconds {
            let (rtp, rtcp) = hears(second);
            if rtp {
                silence.handle_rtp(at(second));
            }
            if rtcp {
                silence.handle_rtcp(at(second));
            }
            let is_due = silence.deadline().is_some_and(|due| due <= at(second));
            let timeout = silence.take_timeout(at(second));
            assert_eq!(is_due, timeout.is_some(), "at {second} s");
            told.extend(timeout.map(|kind| (second, kind)));
        }
        told
    }

    fn configured(direction: MediaDirection) -> Silence {
        let mut silence = Silence::default();
        silence.configure(at(0), direction, LIMITS);
        silence
    }

    const NOTHING: fn(u64) -> (bool, bool) = |_| (false, false);

    #[test]
    fn peer_that_never_speaks_is_told_whenever_the_limit_has_passed_again() {
        let expected = [(10, NeverStarted), (20, NeverStarted)];
        let only_rtcp = |_| (false, true);
        for hears in [NOTHING, only_rtcp] {
            assert_eq!(timeouts(configured(SendReceive), 0..25, hears), expected);
        }
    }

    #[test]
    fn peer_that_falls_silent_again_gets_its_whole_limit() {
        let hears = |second| (second < 30 || second == 70, false);
        assert_eq!(
            timeouts(configured(SendReceive), 0..100, hears),
            [(49, Stopped), (69, Stopped), (90, Stopped)]
        );
    }

    #[test]
    fn peer_that_speaks_now_and_then_is_not_told_of() {
        let hears = |second| (second % 9 == 0, false);
        assert_eq!(timeouts(configured(SendReceive), 0..400, hears), []);
    }

    #[test]
    fn muted_peer_that_still_reports_is_held() {
        let hears = |second| (second < 5, second % 5 == 0);
        assert_eq!(
            timeouts(configured(SendReceive), 0..200, hears),
            [(104, Held)]
        );
    }

    #[test]
    fn leg_on_hold_has_the_limit_of_a_hold_only() {
        for direction in [Inactive, SendOnly, ReceiveOnly] {
            assert_eq!(
                timeouts(configured(direction), 0..200, NOTHING),
                [(100, Held)],
                "{direction:?}"
            );
        }
        let music = |second| (second < 200, false);
        assert_eq!(
            timeouts(configured(ReceiveOnly), 0..390, music),
            [(299, Held)]
        );
    }

    #[test]
    fn resumed_leg_gets_its_whole_limit() {
        let mut silence = configured(SendReceive);
        silence.handle_rtp(at(1));
        silence.configure(at(2), Inactive, LIMITS);
        silence.configure(at(90), SendReceive, LIMITS);
        assert_eq!(timeouts(silence, 90..130, NOTHING), [(110, Stopped)]);
    }

    #[test]
    fn same_direction_configured_again_does_not_extend_the_limit() {
        let mut silence = configured(SendReceive);
        silence.configure(at(9), SendReceive, LIMITS);
        assert_eq!(silence.deadline(), Some(at(10)));
    }

    #[test]
    fn limit_of_zero_is_none() {
        let mut silence = Silence::default();
        assert_eq!(silence.deadline(), None);
        for direction in [SendReceive, Inactive] {
            silence.configure(at(0), direction, MediaTimeouts::OFF);
            assert_eq!(silence.deadline(), None);
        }
        let no_stop = MediaTimeouts {
            stopped_secs: 0,
            ..LIMITS
        };
        silence.configure(at(0), SendReceive, no_stop);
        silence.handle_rtp(at(0));
        assert_eq!(silence.deadline(), Some(at(100)));
    }
}
