//! The payload of a telephone event: RFC 4733 §2.3.
//!
//! ```text
//!    0                   1                   2                   3
//!    0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//!   |     event     |E|R| volume    |          duration             |
//! ```

/// Bytes of one report.
pub const LEN: usize = 4;

/// Most reports of one packet that are read. Several stand in a packet when a sender reports short
/// events together (RFC 4733 §2.5.1.5); nobody presses five keys within a packet time.
pub const REPORTS_MAX: usize = 4;

/// One event, as far as its sender knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventReport {
    /// Event code; 0 to 15 are DTMF (RFC 4733 §3.2).
    pub event: u8,
    /// The event has ended: E bit.
    pub is_end: bool,
    /// Power below 1 mW, dB, 0 to 63: 10 means -10 dBm0.
    pub volume: u8,
    /// Since the packet's timestamp, in units of the RTP clock.
    pub duration: u16,
}

impl EventReport {
    /// Reads one report; the reserved bit is ignored (RFC 4733 §2.3.3).
    #[must_use]
    pub const fn from_bytes(bytes: [u8; LEN]) -> Self {
        let [event, flags, duration_high, duration_low] = bytes;
        Self {
            event,
            is_end: flags & 0x80 != 0,
            volume: flags & 0x3f,
            duration: u16::from_be_bytes([duration_high, duration_low]),
        }
    }

    /// The report as it is sent. A volume above 63 is sent as 63.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; LEN] {
        let volume = if self.volume > 63 { 63 } else { self.volume };
        let [high, low] = self.duration.to_be_bytes();
        [self.event, (self.is_end as u8) << 7 | volume, high, low]
    }

    /// The reports of a packet, each with what is to be added to the packet's timestamp: an event
    /// begins where the one before it has ended. A report of no length behind another is padding
    /// of senders that fill their packets, and ends the list. Bytes beyond the last whole report,
    /// and reports beyond [`REPORTS_MAX`], are ignored.
    pub fn in_payload(payload: &[u8]) -> impl Iterator<Item = (u32, EventReport)> {
        let (reports, _) = payload.as_chunks::<LEN>();
        let mut offset = 0u32;
        reports
            .iter()
            .take(REPORTS_MAX)
            .map(|bytes| Self::from_bytes(*bytes))
            .enumerate()
            .take_while(|(index, report)| *index == 0 || report.duration != 0)
            .map(move |(_, report)| {
                let begins = offset;
                offset += u32::from(report.duration);
                (begins, report)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_and_written_bit_by_bit_as_the_rfc_draws_it() {
        let report = EventReport {
            event: 11,
            is_end: true,
            volume: 10,
            duration: 0x0320,
        };
        assert_eq!(report.to_bytes(), [11, 0x8a, 0x03, 0x20]);
        assert_eq!(EventReport::from_bytes([11, 0x8a, 0x03, 0x20]), report);
        let reserved_set = EventReport::from_bytes([11, 0xca, 0x03, 0x20]);
        assert_eq!(reserved_set, report);
        let too_soft = EventReport {
            volume: 200,
            ..report
        };
        assert_eq!(too_soft.to_bytes()[1], 0xbf);
    }

    #[test]
    fn reports_of_one_packet_begin_where_the_one_before_ended() {
        let payload = [1, 0x8a, 0, 100, 2, 0x8a, 1, 0, 3, 10, 0, 50];
        let found: Vec<(u32, u8)> = EventReport::in_payload(&payload)
            .map(|(offset, report)| (offset, report.event))
            .collect();
        assert_eq!(found, [(0, 1), (100, 2), (356, 3)]);
    }

    #[test]
    fn padding_and_half_reports_are_not_digits() {
        let count = |payload: &[u8]| EventReport::in_payload(payload).count();
        assert_eq!(count(&[]), 0);
        assert_eq!(count(&[1, 2, 3]), 0);
        assert_eq!(count(&[1, 10, 0, 0]), 1);
        assert_eq!(count(&[1, 10, 0, 160, 0, 0, 0, 0, 0, 0, 0, 0]), 1);
        assert_eq!(count(&[1, 10, 0, 160, 7, 7]), 1);
        assert_eq!(count(&[1; 400]), REPORTS_MAX);
    }
}
