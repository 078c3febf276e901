//! What one leg has sent, and what must be true of it.

use std::collections::HashMap;

use trunkline_edge_api::Ssrc;
use trunkline_media::rtp::RtpHeader;

/// A packet further behind the newest than this cannot be a late one (MAX_MISORDER of RFC 3550
/// A.1).
const LATE_MAX: i64 = 100;

#[derive(Default)]
pub(crate) struct Ledger {
    /// Highest sequence number sent, extended.
    pub(crate) newest: Option<i64>,
    /// Under which number each packet of the far party left.
    sent: HashMap<i64, (u32, u16)>,
    /// The source that the last packet came from.
    pub(crate) source: u32,
    /// Sent minus received timestamp of each source, since it last took over.
    offsets: HashMap<u32, u32>,
}

impl Ledger {
    /// Takes down that `received` left as `sent`.
    pub(crate) fn record(&mut self, own: Ssrc, received: &RtpHeader, sent: &RtpHeader) {
        assert_eq!(sent.ssrc, own, "a leg sends under its own SSRC alone");
        assert_eq!(sent.marker, received.marker, "the marker is the sender's");
        let extended = match self.newest {
            None => i64::from(sent.sequence),
            Some(newest) => {
                let ahead = sent.sequence.wrapping_sub(newest as u16).cast_signed();
                newest + i64::from(ahead)
            }
        };
        if let Some(newest) = self.newest {
            assert!(
                newest - extended <= LATE_MAX,
                "went back from {newest} to {extended}"
            );
        }
        let origin = (received.ssrc.0, received.sequence);
        let before = self.sent.insert(extended, origin);
        assert!(
            before.is_none_or(|before| before == origin),
            "{extended} was {before:x?} and is now {origin:x?}: a number is used for one packet"
        );
        self.newest = self.newest.max(Some(extended));

        let offset = sent.timestamp.wrapping_sub(received.timestamp);
        if self.source == received.ssrc.0 {
            let before = self.offsets.insert(received.ssrc.0, offset);
            assert!(
                before.is_none_or(|before| before == offset),
                "timestamps of one source shift by a constant"
            );
        } else {
            self.offsets.insert(received.ssrc.0, offset);
        }
        self.source = received.ssrc.0;
    }

    /// Every source and sequence number that left, for reports about them.
    pub(crate) fn carried(&self, origin: (u32, u16)) -> bool {
        self.sent.values().any(|sent| *sent == origin)
    }
}
