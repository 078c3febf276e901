//! Reception statistics of one SSRC after the other: RFC 3550 A.1, A.3 and A.8.
//!
//! ```text
//!   sequence   65534 65535     1     0     1     2
//!              first       lost 0?  late   twice
//!   expected   1     2         4     4     4     5      highest - first + 1, extended
//!   received   1     2         3     4     4     5      duplicates do not count
//! ```
//!
//! RFC 3550 counts duplicates as received, so that its loss may be negative; here they are told
//! apart in a window of the last 64 packets, and loss never is. The probation of A.1 is left out:
//! the source gate has proven the peer already.

use trunkline_edge_api::{ClockRateHz, MonoTime, PayloadType, Ssrc};

use super::emodel::Heard;
use super::micros_of;
use crate::rtcp::report::ReportBlock;
use crate::rtp::RtpHeader;

/// A packet further ahead than this is no loss but a restarted numbering (MAX_DROPOUT of A.1).
const DROPOUT_MAX: i16 = 3_000;

/// A packet further behind than this likewise (MAX_MISORDER of A.1).
const MISORDER_MAX: i16 = 100;

/// Packets among which a duplicate is known as one.
const WINDOW_LEN: u32 = 64;

/// The first packet's sequence number is extended with one cycle, so that one which comes late
/// from before it lies above zero.
const FIRST_CYCLE: u32 = 1 << 16;

/// A step of the transit time beyond this many seconds is a restarted timestamp, not jitter.
const TRANSIT_STEP_MAX_SECS: u32 = 4;

/// What was heard of a leg's peer. All counts are over all its SSRCs, the rest of the present one.
#[derive(Debug, Clone, Default)]
pub struct ReceiveStats {
    run: Option<Run>,
    /// Lost in earlier runs.
    lost_before: u64,
    /// Received in earlier runs.
    received_before: u64,
    /// Gaps in earlier runs.
    gaps_before: u64,
    reordered: u64,
    duplicates: u64,
    /// The highest jitter of earlier runs, microseconds.
    jitter_max_micros: u32,
}

/// One numbering of one SSRC.
#[derive(Debug, Clone)]
struct Run {
    ssrc: Ssrc,
    /// Lowest extended sequence number seen.
    first: u32,
    /// Highest extended sequence number seen.
    highest: u32,
    /// Bit n: the packet n behind the highest has come.
    window: u64,
    received: u32,
    /// Times that packets were missing in a row; some of them may have come late.
    gaps: u32,
    /// The number after one that was out of all bounds: if it comes, the numbering has restarted.
    restart_at: Option<u16>,
    payload_type: PayloadType,
    clock: Clock,
    /// Arrival minus timestamp of the newest packet, modulo 2^32.
    transit: u32,
    timestamp: u32,
    /// Interarrival jitter in sixteenths of a time unit.
    jitter_q4: u32,
    /// The highest since the clock was set, in sixteenths of a time unit.
    jitter_max_q4: u32,
    /// At the last report block, for its fraction lost (A.3).
    expected_prior: u32,
    received_prior: u32,
}

/// What of a header begins a run; small enough to stay in registers until then.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    ssrc: Ssrc,
    timestamp: u32,
    sequence: u16,
    payload_type: PayloadType,
}

impl From<&RtpHeader> for Numbers {
    #[inline]
    fn from(header: &RtpHeader) -> Self {
        Self {
            ssrc: header.ssrc,
            timestamp: header.timestamp,
            sequence: header.sequence,
            payload_type: header.payload_type,
        }
    }
}

/// From nanoseconds to RTP time units.
#[derive(Debug, Clone, Copy)]
struct Clock {
    hz: u32,
    /// [`TRANSIT_STEP_MAX_SECS`] in units.
    step_max: u32,
    /// Units per nanosecond, times 2^64. One multiplication instead of a division per packet; off
    /// by less than a unit in 100 years.
    factor: u64,
}

impl Clock {
    fn new(rate: ClockRateHz) -> Self {
        let hz = rate.get();
        Self {
            hz,
            step_max: hz.saturating_mul(TRANSIT_STEP_MAX_SECS),
            factor: ((u128::from(hz) << 64) / 1_000_000_000) as u64,
        }
    }

    #[inline]
    fn units(self, now: MonoTime) -> u32 {
        ((u128::from(now.0) * u128::from(self.factor)) >> 64) as u32
    }
}

impl ReceiveStats {
    /// Counts a packet that arrived `now`. `clock_rate` is that of its payload type.
    #[inline]
    pub fn receive(&mut self, now: MonoTime, header: &RtpHeader, clock_rate: ClockRateHz) {
        let Some(run) = self.run.as_mut().filter(|run| run.ssrc == header.ssrc) else {
            return self.begin(now, header.into(), clock_rate);
        };
        let ahead = header
            .sequence
            .wrapping_sub(run.highest as u16)
            .cast_signed();
        if ahead == 1 {
            run.highest = run.highest.wrapping_add(1);
            run.window = (run.window << 1) | 1;
        } else if ahead > 0 && ahead <= DROPOUT_MAX {
            let ahead = u32::from(ahead.cast_unsigned());
            run.highest = run.highest.wrapping_add(ahead);
            run.window = run.window.checked_shl(ahead).unwrap_or(0) | 1;
            run.gaps += 1;
        } else if (-MISORDER_MAX..=0).contains(&ahead) {
            let behind = u32::from(ahead.unsigned_abs());
            if behind < WINDOW_LEN {
                let bit = 1 << behind;
                if run.window & bit != 0 {
                    self.duplicates += 1;
                    return;
                }
                run.window |= bit;
            }
            self.reordered += 1;
            run.first = run.first.min(run.highest.saturating_sub(behind));
        } else {
            return self.leap(now, header.into(), clock_rate);
        }
        run.received = run.received.wrapping_add(1);
        run.payload_type = header.payload_type;
        run.time(now, header.timestamp, clock_rate);
    }

    /// RFC 3550 A.1: one packet out of all bounds may be a stray; two in sequence are a sender that
    /// has restarted.
    #[cold]
    fn leap(&mut self, now: MonoTime, packet: Numbers, clock_rate: ClockRateHz) {
        let Some(run) = &mut self.run else { return };
        if run.restart_at == Some(packet.sequence) {
            self.begin(now, packet, clock_rate);
        } else {
            run.restart_at = Some(packet.sequence.wrapping_add(1));
        }
    }

    #[cold]
    fn begin(&mut self, now: MonoTime, packet: Numbers, clock_rate: ClockRateHz) {
        let clock = Clock::new(clock_rate);
        let first = FIRST_CYCLE | u32::from(packet.sequence);
        let run = Run {
            ssrc: packet.ssrc,
            first,
            highest: first,
            window: 1,
            received: 1,
            gaps: 0,
            restart_at: None,
            payload_type: packet.payload_type,
            clock,
            transit: clock.units(now).wrapping_sub(packet.timestamp),
            timestamp: packet.timestamp,
            jitter_q4: 0,
            jitter_max_q4: 0,
            expected_prior: 0,
            received_prior: 0,
        };
        if let Some(earlier) = self.run.replace(run) {
            self.lost_before += earlier.lost();
            self.received_before += u64::from(earlier.received);
            self.gaps_before += u64::from(earlier.gaps);
            self.jitter_max_micros = self.jitter_max_micros.max(earlier.jitter_max_micros());
        }
    }

    /// Packets that never came (A.3).
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost_before + self.run.as_ref().map_or(0, Run::lost)
    }

    /// Packets that came after one with a higher number.
    #[must_use]
    pub fn reordered(&self) -> u64 {
        self.reordered
    }

    /// Packets whose number had come before, as far as the window of 64 reaches.
    #[must_use]
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// Interarrival jitter (A.8), microseconds.
    #[must_use]
    pub fn jitter_micros(&self) -> u32 {
        self.run.as_ref().map_or(0, |run| {
            micros_of(u64::from(run.jitter_q4 >> 4), run.clock.hz)
        })
    }

    /// The highest that [`Self::jitter_micros`] has been.
    #[must_use]
    pub fn jitter_max_micros(&self) -> u32 {
        let present = self.run.as_ref().map_or(0, Run::jitter_max_micros);
        self.jitter_max_micros.max(present)
    }

    /// RTP clock of what is heard, Hz; `None` before the first packet.
    #[must_use]
    pub fn clock_hz(&self) -> Option<u32> {
        self.run.as_ref().map(|run| run.clock.hz)
    }

    /// What the E-model judges; `None` before the first packet.
    #[must_use]
    pub fn listener_input(&self) -> Option<Heard> {
        let run = self.run.as_ref()?;
        Some(Heard {
            payload_type: run.payload_type,
            clock_hz: run.clock.hz,
            received: self.received_before + u64::from(run.received),
            lost: self.lost(),
            gaps: self.gaps_before + u64::from(run.gaps),
            jitter_micros: self.jitter_micros(),
        })
    }

    /// A report block about the peer, without LSR and DLSR; `None` before its first packet. Its
    /// fraction lost is of what came since the last call (RFC 3550 §6.4.1).
    pub fn take_report_block(&mut self) -> Option<ReportBlock> {
        let run = self.run.as_mut()?;
        let expected = run.expected();
        let expected_since = expected.wrapping_sub(run.expected_prior);
        let received_since = run.received.wrapping_sub(run.received_prior);
        run.expected_prior = expected;
        run.received_prior = run.received;
        let lost_since = expected_since.saturating_sub(received_since);
        let fraction = (u64::from(lost_since) << 8) / u64::from(expected_since.max(1));
        Some(ReportBlock {
            about: run.ssrc,
            fraction_lost: u8::try_from(fraction).unwrap_or(u8::MAX),
            cumulative_lost: i32::try_from(run.lost()).unwrap_or(i32::MAX),
            highest_sequence: run.highest.wrapping_sub(FIRST_CYCLE),
            jitter: run.jitter_q4 >> 4,
            last_sr: 0,
            delay_since_last_sr: 0,
        })
    }
}

impl Run {
    /// A.8. Packets of one timestamp (the updates of one RFC 4733 event, §2.5.1.2 there) were not
    /// sampled at once with it, so only the first is timed.
    #[inline]
    fn time(&mut self, now: MonoTime, timestamp: u32, clock_rate: ClockRateHz) {
        if timestamp == self.timestamp {
            return;
        }
        self.timestamp = timestamp;
        if clock_rate.get() != self.clock.hz {
            return self.set_clock(now, timestamp, clock_rate);
        }
        let transit = self.clock.units(now).wrapping_sub(timestamp);
        let step = transit
            .wrapping_sub(self.transit)
            .cast_signed()
            .unsigned_abs();
        self.transit = transit;
        if step > self.clock.step_max {
            return;
        }
        self.jitter_q4 = (self.jitter_q4 + step).saturating_sub((self.jitter_q4 + 8) >> 4);
        self.jitter_max_q4 = self.jitter_max_q4.max(self.jitter_q4);
    }

    /// The peer changed to a payload type of another clock: jitter is kept as a time.
    #[cold]
    fn set_clock(&mut self, now: MonoTime, timestamp: u32, clock_rate: ClockRateHz) {
        let clock = Clock::new(clock_rate);
        let rescaled = |units: u32| {
            let units = u64::from(units) * u64::from(clock.hz) / u64::from(self.clock.hz.max(1));
            u32::try_from(units).unwrap_or(u32::MAX >> 1)
        };
        (self.jitter_q4, self.jitter_max_q4) =
            (rescaled(self.jitter_q4), rescaled(self.jitter_max_q4));
        self.clock = clock;
        self.transit = clock.units(now).wrapping_sub(timestamp);
    }

    fn expected(&self) -> u32 {
        self.highest.wrapping_sub(self.first).wrapping_add(1)
    }

    fn lost(&self) -> u64 {
        u64::from(self.expected().saturating_sub(self.received))
    }

    fn jitter_max_micros(&self) -> u32 {
        micros_of(u64::from(self.jitter_max_q4 >> 4), self.clock.hz)
    }
}

#[cfg(test)]
mod tests;
