//! How well a leg hears its peer and is heard, and what follows from it: RFC 3550 §6, A.1, A.3,
//! A.8, and ITU-T G.107.
//!
//! | module | question |
//! |---|---|
//! | [`receive`] | what arrived of what the peer sent, and how evenly |
//! | [`feedback`] | what the peer's RTCP says of us, and the round trip |
//! | [`emodel`] | what a listener would make of it |
//! | [`schedule`] | when RTCP of our own is due |
//! | [`silence`] | when hearing nothing has lasted too long |
//!
//! All of it exists in pure relay. Per packet only [`receive`] and a time stamp are touched; the
//! rest is worked out when somebody asks or a timer runs out.

use trunkline_edge_api::{LegReport, MonoTime, Ssrc};

use crate::rewrite::OutgoingStream;
use crate::rtcp::report::{self, Report, ReportBlock, SenderInfo};

pub mod emodel;
pub mod feedback;
pub mod receive;
pub mod schedule;
pub mod silence;

use feedback::Feedback;
use receive::ReceiveStats;
use schedule::ReportSchedule;
use silence::Silence;

/// Everything of one leg.
#[derive(Debug)]
pub(crate) struct LegQuality {
    pub(crate) receive: ReceiveStats,
    pub(crate) feedback: Feedback,
    pub(crate) schedule: ReportSchedule,
    pub(crate) silence: Silence,
}

impl LegQuality {
    /// `own` is the SSRC under which the leg sends; it seeds the report interval.
    pub(crate) fn new(own: Ssrc) -> Self {
        Self {
            receive: ReceiveStats::default(),
            feedback: Feedback::default(),
            schedule: ReportSchedule::new(own),
            silence: Silence::default(),
        }
    }

    /// Takes what the peer's valid compound says of us, who send as `own`, and of itself.
    pub(crate) fn hear_rtcp(&mut self, now: MonoTime, compound: &[u8], own: Ssrc) {
        self.silence.handle_rtcp(now);
        let mut sender_report = None;
        let feedback = &mut self.feedback;
        report::read(
            compound,
            own,
            |block| feedback.heard_block(block, now),
            |ntp_middle| sender_report = Some(ntp_middle),
        );
        if let Some(ntp_middle) = sender_report {
            self.feedback.heard_report(ntp_middle, now);
        }
    }

    /// Fills in what `report` says of quality. `sent_clock_hz` is the clock of what the leg sends,
    /// `None` while it is not known.
    pub(crate) fn fill(&self, report: &mut LegReport, sent_clock_hz: Option<u32>) {
        let receive = &self.receive;
        report.lost_packets = receive.lost();
        report.reordered_packets = receive.reordered();
        report.duplicate_packets = receive.duplicates();
        report.jitter_micros = receive.jitter_micros();
        report.jitter_max_micros = receive.jitter_max_micros();
        report.rtt_micros = self.feedback.rtt_micros();
        report.remote_lost_packets = self.feedback.remote_lost();
        report.remote_jitter_micros =
            sent_clock_hz.map_or(0, |hz| self.feedback.remote_jitter_micros(hz));
        report.mos_centi = receive.listener_input().map_or(0, |heard| {
            emodel::mos_centi(&heard, self.feedback.rtt_micros())
        });
    }

    /// What the leg itself says to its peer: a sender report while `stream` sends, else a receiver
    /// report (RFC 3550 §6.4). `sent_clock_hz` as for [`Self::fill`].
    pub(crate) fn report(
        &mut self,
        now: MonoTime,
        stream: &OutgoingStream,
        sent_clock_hz: Option<u32>,
        goodbye: bool,
    ) -> Report {
        let is_sender = self.schedule.has_sent_since_before_last(stream.packets());
        let sender = sent_clock_hz
            .filter(|_| is_sender)
            .and_then(|hz| stream.timestamp_at(now, hz))
            .map(|rtp_time| SenderInfo {
                ntp: ntp_of(now),
                rtp_time,
                packets: stream.packets(),
                octets: stream.octets(),
            });
        if let Some(sender) = sender {
            self.feedback
                .sent_report(ReportBlock::middle(sender.ntp), now);
        }
        let block = self.receive.take_report_block().map(|mut block| {
            (block.last_sr, block.delay_since_last_sr) = self.feedback.last_sr(now);
            block
        });
        Report {
            own: stream.ssrc(),
            sender,
            block,
            goodbye,
        }
    }
}

/// NTP format of a moment: seconds and 2^-32 fractions (RFC 3550 §4). The edge's clock is
/// monotonic, which §6.4.1 allows to senders without wall-clock time; only differences matter.
fn ntp_of(now: MonoTime) -> u64 {
    let (secs, nanos) = (now.0 / 1_000_000_000, now.0 % 1_000_000_000);
    (secs << 32) | ((nanos << 32) / 1_000_000_000)
}

/// Microseconds of a span in RTP time units; saturating.
fn micros_of(units: u64, clock_hz: u32) -> u32 {
    let micros = units * 1_000_000 / u64::from(clock_hz.max(1));
    u32::try_from(micros).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
