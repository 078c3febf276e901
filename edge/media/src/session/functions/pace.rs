//! When the next packet of a made stream is due, and its numbers.

use trunkline_edge_api::{AudioFormat, MonoTime};

/// A worker that comes later than this has been away; what was missed is skipped, not sent in a
/// burst.
const LAG_PACKETS_MAX: u64 = 5;

/// Counts off packets of equal length. Numbers are those of a source of its own; the leg's stream
/// puts them where they belong.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    next_at: MonoTime,
    packet_nanos: u64,
    timestamp_step: u32,
    sequence: u16,
    timestamp: u32,
}

/// Numbers of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beat {
    pub(super) sequence: u16,
    pub(super) timestamp: u32,
}

impl Pace {
    /// The first packet is due at once.
    pub(super) fn new(now: MonoTime, format: &AudioFormat) -> Self {
        let millis = u32::from(format.packet_time.millis());
        Self {
            next_at: now,
            packet_nanos: u64::from(millis) * 1_000_000,
            timestamp_step: format.clock_rate.get() / 1_000 * millis,
            sequence: 0,
            timestamp: 0,
        }
    }

    pub(super) fn is_due(&self, now: MonoTime) -> bool {
        self.next_at <= now
    }

    /// Numbers of the packet that is due; its successor is due one packet time after it was, not
    /// after it was asked for.
    pub(super) fn take(&mut self, now: MonoTime) -> Option<Beat> {
        if !self.is_due(now) {
            return None;
        }
        let lag_packets = now.nanos_since(self.next_at) / self.packet_nanos;
        if lag_packets > LAG_PACKETS_MAX {
            self.advance(lag_packets);
        }
        let beat = Beat {
            sequence: self.sequence,
            timestamp: self.timestamp,
        };
        self.sequence = self.sequence.wrapping_add(1);
        self.advance(1);
        Some(beat)
    }

    fn advance(&mut self, packets: u64) {
        self.next_at = self.next_at.plus_nanos(packets * self.packet_nanos);
        let units = self.timestamp_step.wrapping_mul(packets as u32);
        self.timestamp = self.timestamp.wrapping_add(units);
    }
}

#[cfg(test)]
mod tests {
    use trunkline_edge_api::{AudioCodec, ClockRateHz, OpusOptions, PacketTime, PayloadType};

    use super::*;

    const OPUS_40: AudioFormat = AudioFormat {
        codec: AudioCodec::Opus,
        payload_type: PayloadType::PCMU,
        clock_rate: ClockRateHz::OPUS,
        channels: 2,
        packet_time: PacketTime::MS_20,
        opus: OpusOptions {
            in_band_fec: false,
            dtx: false,
            constant_bitrate: false,
            playback_rate_max_hz: 48_000,
            bitrate_max: 0,
        },
    };

    const START: MonoTime = MonoTime(7_000_000_000);

    #[test]
    fn lateness_of_one_packet_does_not_delay_the_next() {
        let mut pace = Pace::new(START, &OPUS_40);
        assert_eq!(
            pace.take(START.plus_millis(9)).map(|beat| beat.sequence),
            Some(0)
        );
        assert_eq!(pace.take(START.plus_millis(19)), None);
        let expected = Beat {
            sequence: 1,
            timestamp: 960,
        };
        assert_eq!(pace.take(START.plus_millis(20)), Some(expected));
    }

    #[test]
    fn long_absence_is_skipped_in_time_and_leaves_no_gap_in_the_sequence() {
        let mut pace = Pace::new(START, &OPUS_40);
        assert!(pace.take(START).is_some());
        let late = START.plus_millis(1_020);
        let expected = Beat {
            sequence: 1,
            timestamp: 960 * 51,
        };
        assert_eq!(pace.take(late), Some(expected));
        assert_eq!(pace.take(late), None);
        assert!(pace.is_due(late.plus_millis(20)));
    }
}
