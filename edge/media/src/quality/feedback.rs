//! What a leg's peer says in its RTCP: how it hears us, and how far away it is.
//!
//! ```text
//!   leg                                       peer
//!    │  SR, NTP middle N, sent at t0           │
//!    │ ───────────────────────────────────────▶│
//!    │              RR about us: LSR N, DLSR d │
//!    │ ◀───────────────────────────────────────│
//!    │  heard at t1: round trip t1 - t0 - d    │
//! ```
//!
//! The sender report may be the far peer's, passed on under our SSRC with the far peer's clock in
//! it. So the moment at which each left is kept here by its NTP time; the clock inside is never
//! read. The round trip is that between edge and peer, not that of the call.

use trunkline_edge_api::MonoTime;

use super::micros_of;
use crate::rtcp::report::ReportBlock;

/// Sender reports that an answer may still be about: a peer answers one within two of its
/// intervals.
const SENT_REPORTS: usize = 4;

/// Units of DLSR in a second (RFC 3550 §6.4.1).
const DLSR_HZ: u64 = 65_536;

/// How much of the difference to the newest report the expected loss takes over: a peer that begins
/// to lose is helped after one report, and one that has lost a burst is not believed for long.
const LOSS_RISE: f32 = 0.5;
const LOSS_FALL: f32 = 0.25;
/// Less than this share counts as none.
const LOSS_MIN: f32 = 0.005;

/// See the module's description.
#[derive(Debug, Clone, Default)]
pub struct Feedback {
    /// NTP middle and moment of what was sent last, the oldest overwritten first.
    sent: [Option<(u32, MonoTime)>; SENT_REPORTS],
    sent_next: usize,
    /// NTP middle of the peer's last sender report, and when it came.
    heard: Option<(u32, MonoTime)>,
    rtt_micros: u32,
    remote_lost: u32,
    remote_jitter_units: u32,
    /// Smoothed over reports, 0 to 1.
    expected_loss: f32,
}

impl Feedback {
    /// A sender report with this NTP middle left for the peer.
    pub fn sent_report(&mut self, ntp_middle: u32, now: MonoTime) {
        self.sent[self.sent_next] = Some((ntp_middle, now));
        self.sent_next = (self.sent_next + 1) % SENT_REPORTS;
    }

    /// The peer sent a sender report.
    pub fn heard_report(&mut self, ntp_middle: u32, now: MonoTime) {
        self.heard = Some((ntp_middle, now));
    }

    /// The peer reports about what the leg sends.
    pub fn heard_block(&mut self, block: &ReportBlock, now: MonoTime) {
        self.remote_lost = u32::try_from(block.cumulative_lost).unwrap_or(0);
        self.remote_jitter_units = block.jitter;
        let loss = f32::from(block.fraction_lost) / 256.0;
        let step = if loss > self.expected_loss {
            LOSS_RISE
        } else {
            LOSS_FALL
        };
        self.expected_loss += (loss - self.expected_loss) * step;
        let mut sent = self.sent.iter().flatten();
        // LSR 0: the peer has heard no sender report yet.
        let Some(&(_, sent_at)) =
            sent.find(|(middle, _)| block.last_sr != 0 && *middle == block.last_sr)
        else {
            return;
        };
        let held_nanos = u64::from(block.delay_since_last_sr) * 1_000_000_000 / DLSR_HZ;
        // A peer that claims to have held it for longer than it was away is not believed.
        let Some(rtt_nanos) = now.nanos_since(sent_at).checked_sub(held_nanos) else {
            return;
        };
        self.rtt_micros = u32::try_from(rtt_nanos / 1_000).unwrap_or(u32::MAX).max(1);
    }

    /// LSR and DLSR of a block to the peer: 0 and 0 before its first sender report.
    #[must_use]
    pub fn last_sr(&self, now: MonoTime) -> (u32, u32) {
        let Some((middle, at)) = self.heard else {
            return (0, 0);
        };
        let delay = u128::from(now.nanos_since(at)) * u128::from(DLSR_HZ) / 1_000_000_000;
        (middle, u32::try_from(delay).unwrap_or(u32::MAX))
    }

    /// Round trip between edge and peer, microseconds; 0 while unknown.
    #[must_use]
    pub fn rtt_micros(&self) -> u32 {
        self.rtt_micros
    }

    /// What share of our packets the peer is likely to miss next, percent, as its reports say; 0
    /// while it has sent none.
    #[must_use]
    pub fn expected_loss_percent(&self) -> u8 {
        if self.expected_loss < LOSS_MIN {
            return 0;
        }
        (self.expected_loss * 100.0).ceil().min(100.0) as u8
    }

    /// Packets of ours that the peer missed.
    #[must_use]
    pub fn remote_lost(&self) -> u64 {
        u64::from(self.remote_lost)
    }

    /// Jitter with which the peer hears us, microseconds.
    #[must_use]
    pub fn remote_jitter_micros(&self, sent_clock_hz: u32) -> u32 {
        micros_of(u64::from(self.remote_jitter_units), sent_clock_hz)
    }
}

#[cfg(test)]
mod tests {
    use trunkline_edge_api::Ssrc;

    use super::*;

    fn at(millis: u64) -> MonoTime {
        MonoTime(millis * 1_000_000)
    }

    fn block(last_sr: u32, held_millis: u64) -> ReportBlock {
        ReportBlock {
            about: Ssrc(1),
            fraction_lost: 0,
            cumulative_lost: 12,
            highest_sequence: 0,
            jitter: 80,
            last_sr,
            delay_since_last_sr: (held_millis * DLSR_HZ / 1_000) as u32,
        }
    }

    #[test]
    fn round_trip_is_what_remains_after_the_peers_delay() {
        let mut feedback = Feedback::default();
        feedback.sent_report(0xb710_8000, at(1_000));
        feedback.heard_block(&block(0xb710_8000, 5_250), at(6_300));
        assert_eq!(feedback.rtt_micros(), 50_000);
        assert_eq!(feedback.remote_lost(), 12);
        assert_eq!(feedback.remote_jitter_micros(8_000), 10_000);
    }

    #[test]
    fn answer_to_an_earlier_report_is_measured_from_that_one() {
        let mut feedback = Feedback::default();
        for n in 1..=4u32 {
            feedback.sent_report(n, at(u64::from(n) * 5_000));
        }
        feedback.heard_block(&block(2, 0), at(10_040));
        assert_eq!(feedback.rtt_micros(), 40_000);
        feedback.sent_report(5, at(25_000));
        feedback.heard_block(&block(1, 0), at(25_030));
        assert_eq!(feedback.rtt_micros(), 40_000, "too old to be known");
    }

    #[test]
    fn nonsense_leaves_the_round_trip_as_it_was() {
        let mut feedback = Feedback::default();
        feedback.heard_block(&block(0, 0), at(1_000));
        feedback.sent_report(7, at(1_000));
        feedback.heard_block(&block(8, 0), at(1_010));
        feedback.heard_block(&block(7, 9_000), at(1_010));
        assert_eq!(feedback.rtt_micros(), 0);
    }

    #[test]
    fn negative_loss_of_a_peer_that_counts_duplicates_is_none() {
        let mut feedback = Feedback::default();
        let duplicated = ReportBlock {
            cumulative_lost: -3,
            ..block(0, 0)
        };
        feedback.heard_block(&duplicated, at(1));
        assert_eq!(feedback.remote_lost(), 0);
    }

    #[test]
    fn expected_loss_rises_with_a_report_and_falls_more_slowly() {
        let mut feedback = Feedback::default();
        let mut report = |percent: u32| {
            let lossy = ReportBlock {
                fraction_lost: (percent * 256 / 100) as u8,
                ..block(0, 0)
            };
            feedback.heard_block(&lossy, at(1));
            feedback.expected_loss_percent()
        };
        assert_eq!(report(0), 0);
        assert_eq!([report(20), report(20), report(20)], [10, 15, 18]);
        let fallen: Vec<u8> = (0..14).map(|_| report(0)).collect();
        assert_eq!(fallen[..4], [14, 10, 8, 6]);
        assert_eq!(fallen[13], 0, "none after a minute without loss");
    }

    #[test]
    fn peer_learns_how_long_its_report_was_held() {
        let mut feedback = Feedback::default();
        assert_eq!(feedback.last_sr(at(9_000)), (0, 0));
        feedback.heard_report(0xabcd_ef01, at(10_000));
        assert_eq!(feedback.last_sr(at(11_500)), (0xabcd_ef01, 98_304));
    }
}
