//! When a leg says RTCP of its own: RFC 3550 §6.2 and §6.3 for two participants.
//!
//! A leg's peer hears the far peer's RTCP, translated, as long as there is any. Only when none
//! went to it for an interval does the leg report itself. Of §6.3 remain the minimum interval, the
//! shorter first one and the randomisation; with two participants bandwidth is no limit, and the
//! compensation for reconsideration (§6.3.1) has nothing to compensate.

use trunkline_edge_api::{MonoTime, Ssrc};

use crate::rewrite::mix;

/// Tmin of RFC 3550 §6.2, before randomisation to 0.5 … 1.5 times of it.
const INTERVAL_NANOS: u64 = 5_000_000_000;

/// When the next report is due. Deterministic: the SSRC is the seed.
#[derive(Debug, Clone)]
pub struct ReportSchedule {
    seed: u64,
    count: u32,
    /// `None` until the leg is told of a peer.
    due: Option<MonoTime>,
    /// When the far peer's RTCP last went to the peer.
    passed_at: Option<MonoTime>,
    /// Packets sent at the last two reports: whoever has not sent since the one before the last
    /// is no sender any more (RFC 3550 §6.3.5, §6.4).
    packets_at: [u32; 2],
}

impl ReportSchedule {
    /// Nothing is due before [`Self::start`].
    #[must_use]
    pub fn new(own: Ssrc) -> Self {
        Self {
            seed: u64::from(own.0) << 32,
            count: 0,
            due: None,
            passed_at: None,
            packets_at: [0; 2],
        }
    }

    /// There is a peer to report to. The first interval is half as long (RFC 3550 §6.2).
    pub fn start(&mut self, now: MonoTime) {
        if self.due.is_none() {
            self.due = Some(self.after(now, INTERVAL_NANOS / 2));
        }
    }

    /// There is no peer to report to.
    pub fn stop(&mut self) {
        self.due = None;
    }

    /// RTCP of the far peer was passed on.
    pub fn handle_passed(&mut self, now: MonoTime) {
        self.passed_at = Some(now);
    }

    /// When to call [`Self::take_due`].
    #[must_use]
    pub fn due(&self) -> Option<MonoTime> {
        self.due
    }

    /// Whether a report is to be made now: its time has come, and the far peer did not speak for
    /// the longest that an interval can be. Sets the next time.
    pub fn take_due(&mut self, now: MonoTime) -> bool {
        let Some(_) = self.due.filter(|&due| due <= now) else {
            return false;
        };
        self.due = Some(self.after(now, INTERVAL_NANOS));
        self.passed_at
            .is_none_or(|at| now.nanos_since(at) > INTERVAL_NANOS * 3 / 2)
    }

    /// Whether RTP was sent since the report before the last; notes `packets` for the next.
    pub fn has_sent_since_before_last(&mut self, packets: u32) -> bool {
        let [before_last, last] = self.packets_at;
        self.packets_at = [last, packets];
        packets != before_last
    }

    /// 0.5 … 1.5 times `nanos` from `now` on.
    fn after(&mut self, now: MonoTime, nanos: u64) -> MonoTime {
        self.count = self.count.wrapping_add(1);
        let random = mix(self.seed | u64::from(self.count)) % nanos;
        MonoTime(now.0.saturating_add(nanos / 2 + random))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn intervals_are_random_around_five_seconds_and_the_same_every_time() {
        let run = |ssrc| {
            let mut schedule = ReportSchedule::new(Ssrc(ssrc));
            let mut now = MonoTime(7);
            schedule.start(now);
            (0..1_000)
                .map(|_| {
                    let due = schedule.due().expect("started");
                    let interval = due.nanos_since(now);
                    now = due;
                    assert!(schedule.take_due(now));
                    interval
                })
                .collect::<Vec<_>>()
        };
        let intervals = run(0x1234_5678);
        assert_eq!(intervals, run(0x1234_5678));
        assert_ne!(intervals, run(0x1234_5679));
        assert!((SECOND * 5 / 4..=SECOND * 15 / 4).contains(&intervals[0]));
        let later = &intervals[1..];
        assert!(
            later
                .iter()
                .all(|i| (SECOND * 5 / 2..=SECOND * 15 / 2).contains(i))
        );
        let mean = later.iter().sum::<u64>() / later.len() as u64;
        assert!(
            (SECOND * 24 / 5..=SECOND * 26 / 5).contains(&mean),
            "{mean}"
        );
    }

    #[test]
    fn nothing_is_due_while_the_far_peer_speaks() {
        let mut schedule = ReportSchedule::new(Ssrc(1));
        schedule.start(MonoTime(0));
        let mut made = 0;
        for second in 0..60 {
            let now = MonoTime(second * SECOND);
            if second % 5 == 0 && second <= 30 {
                schedule.handle_passed(now);
            }
            if schedule.take_due(now) {
                assert!(second > 37, "at {second} s");
                made += 1;
            }
        }
        assert!((2..=9).contains(&made), "{made}");
    }

    #[test]
    fn whoever_has_not_sent_for_two_reports_is_no_sender() {
        let mut schedule = ReportSchedule::new(Ssrc(1));
        let senders =
            [0, 10, 10, 10, 11].map(|packets| schedule.has_sent_since_before_last(packets));
        assert_eq!(senders, [false, true, true, false, true]);
    }
}
