//! Telling apart what shares a media port: RFC 7983 §7 by the first byte, RFC 5761 §4 for RTP and
//! RTCP by the second.
//!
//! ```text
//!   first byte     0..=3   20..=63   64..=79        128..=191
//!   protocol       STUN    DTLS      TURN channel   RTP, or RTCP when the second byte is 192..=223
//! ```
//!
//! ZRTP (16..=19) and QUIC (RFC 9443) are not expected by any leg and count as unknown.

/// Protocol of a datagram, judged by its first two bytes only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// RFC 8489.
    Stun,
    /// RFC 6347, 9147.
    Dtls,
    /// ChannelData of RFC 8656 §12.
    TurnChannel,
    /// RTP or RTCP.
    Media(MediaKind),
    /// None of these, or an empty datagram.
    Unknown,
}

/// The two halves of RTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediaKind {
    /// RFC 3550 §5.
    Rtp,
    /// RFC 3550 §6.
    Rtcp,
}

/// Says what `datagram` looks like. Does not validate it.
///
/// A one-byte datagram in the RTP range counts as RTP: whichever it was meant to be, its header is
/// malformed.
#[inline]
#[must_use]
pub fn protocol_of(datagram: &[u8]) -> Protocol {
    match *datagram {
        [128..=191, 192..=223, ..] => Protocol::Media(MediaKind::Rtcp),
        [128..=191, ..] => Protocol::Media(MediaKind::Rtp),
        [0..=3, ..] => Protocol::Stun,
        [20..=63, ..] => Protocol::Dtls,
        [64..=79, ..] => Protocol::TurnChannel,
        _ => Protocol::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_byte_selects_the_protocol_at_every_boundary() {
        let rtp = Protocol::Media(MediaKind::Rtp);
        let rows = [
            (0, Protocol::Stun),
            (3, Protocol::Stun),
            (4, Protocol::Unknown),
            (19, Protocol::Unknown),
            (20, Protocol::Dtls),
            (63, Protocol::Dtls),
            (64, Protocol::TurnChannel),
            (79, Protocol::TurnChannel),
            (80, Protocol::Unknown),
            (127, Protocol::Unknown),
            (128, rtp),
            (191, rtp),
            (192, Protocol::Unknown),
            (255, Protocol::Unknown),
        ];
        for (first, expected) in rows {
            assert_eq!(
                protocol_of(&[first, 0, 0, 0]),
                expected,
                "first byte {first}"
            );
        }
    }

    #[test]
    fn second_byte_tells_rtcp_from_rtp_with_and_without_marker() {
        let rows = [
            (191, MediaKind::Rtp),
            (192, MediaKind::Rtcp),
            (200, MediaKind::Rtcp),
            (223, MediaKind::Rtcp),
            (224, MediaKind::Rtp),
            (0, MediaKind::Rtp),
            (0x80 | 8, MediaKind::Rtp),
            (0x80 | 111, MediaKind::Rtp),
        ];
        for (second, expected) in rows {
            assert_eq!(
                protocol_of(&[0x80, second]),
                Protocol::Media(expected),
                "second byte {second}"
            );
        }
    }

    #[test]
    fn empty_datagram_is_unknown() {
        assert_eq!(protocol_of(&[]), Protocol::Unknown);
    }
}
