//! The RTP header: RFC 3550 §5.1.
//!
//! Reading is `rtp-rs`'s, which checks CSRC list, extension and padding against the length before
//! any field is read. Editing is ours: the four fields a relay changes stand at fixed places, so
//! they are written where they are and the payload is never moved.

use rtp_rs::RtpReader;
use trunkline_edge_api::{PayloadType, Ssrc};

/// Length of an RTP header without CSRC list and extension, bytes.
pub const HEADER_LEN_MIN: usize = RtpReader::MIN_HEADER_LEN;

/// First byte of a packet without padding, extension and CSRC list, which nearly all are.
const VERSION_2_ALONE: u8 = 0x80;

/// The packet is no RTP version 2 packet, or its header does not fit its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MalformedRtp;

/// What a relay needs to know of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtpHeader {
    /// Marker bit; its meaning belongs to the payload format.
    pub marker: bool,
    /// Payload type as the sender numbers it.
    pub payload_type: PayloadType,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp in units of the payload type's clock.
    pub timestamp: u32,
    /// Synchronization source.
    pub ssrc: Ssrc,
    /// Bytes before the payload: fixed header, CSRC list, extension.
    pub header_len: usize,
    /// Payload bytes, padding excluded.
    pub payload_len: usize,
}

impl RtpHeader {
    /// Reads and checks the header of `packet`.
    ///
    /// # Errors
    ///
    /// [`MalformedRtp`] when the version is not 2, or CSRC list, extension or padding reach beyond
    /// the packet (RFC 3550 A.1).
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<Self, MalformedRtp> {
        let (fixed, rest) = packet
            .split_first_chunk::<HEADER_LEN_MIN>()
            .ok_or(MalformedRtp)?;
        let [first, second, s0, s1, t0, t1, t2, t3, ssrc @ ..] = *fixed;
        let extent = if first == VERSION_2_ALONE {
            Extent {
                header_len: HEADER_LEN_MIN as u32,
                payload_len: rest.len() as u32,
            }
        } else {
            Extent::measure(packet).ok_or(MalformedRtp)?
        };
        Ok(Self {
            marker: second & 0x80 != 0,
            payload_type: PayloadType::new(second & 0x7f).ok_or(MalformedRtp)?,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: Ssrc(u32::from_be_bytes(ssrc)),
            header_len: extent.header_len as usize,
            payload_len: extent.payload_len as usize,
        })
    }
}

/// Where the payload lies, bytes. Small enough for registers: returned by reference, it would send
/// the whole header through memory.
struct Extent {
    header_len: u32,
    payload_len: u32,
}

impl Extent {
    /// `None` when the optional parts do not fit.
    #[cold]
    fn measure(packet: &[u8]) -> Option<Self> {
        let reader = RtpReader::new(packet).ok()?;
        Some(Self {
            header_len: u32::try_from(reader.payload_offset()).ok()?,
            payload_len: u32::try_from(reader.payload().len()).ok()?,
        })
    }
}

/// The fields that a relay writes. Marker, CSRC list, extension and payload stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtpEdit {
    /// Payload type as the receiver numbers it.
    pub payload_type: PayloadType,
    /// Sequence number in the sent stream.
    pub sequence: u16,
    /// Timestamp in the sent stream.
    pub timestamp: u32,
    /// The sent stream's SSRC.
    pub ssrc: Ssrc,
}

impl RtpEdit {
    /// Writes the fields into `packet`. A packet shorter than [`HEADER_LEN_MIN`] is left alone;
    /// one that [`RtpHeader::parse`] accepted never is.
    #[inline]
    pub fn apply(&self, packet: &mut [u8]) {
        let Some(header) = packet.first_chunk_mut::<HEADER_LEN_MIN>() else {
            return;
        };
        header[1] = (header[1] & 0x80) | self.payload_type.get();
        header[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        header[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        header[8..12].copy_from_slice(&self.ssrc.0.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// V=2, one CSRC, one word of extension, four bytes of payload, four of padding.
    const FULL: [u8; 32] = [
        0xb1, 0x88, 0x12, 0x34, 0, 0, 1, 0, 0xde, 0xad, 0xbe, 0xef, // fixed header
        1, 2, 3, 4, // CSRC
        0xbe, 0xde, 0, 1, 9, 9, 9, 9, // extension
        5, 6, 7, 8, // payload
        0, 0, 0, 4, // padding
    ];

    #[test]
    fn header_with_csrc_extension_and_padding_is_measured() {
        let header = RtpHeader::parse(&FULL).expect("valid");
        assert_eq!(header.header_len, 24);
        assert_eq!(header.payload_len, 4);
        assert_eq!(header.payload_type, PayloadType::PCMA);
        assert!(header.marker);
        assert_eq!(header.sequence, 0x1234);
        assert_eq!(header.timestamp, 256);
        assert_eq!(header.ssrc, Ssrc(0xdead_beef));
    }

    #[test]
    fn header_that_does_not_fit_is_malformed() {
        let mut wrong_version = FULL;
        wrong_version[0] = 0x71;
        let mut padding_of_zero = FULL;
        padding_of_zero[31] = 0;
        let mut padding_beyond_payload = FULL;
        padding_beyond_payload[31] = 9;
        let mut extension_beyond_end = FULL;
        extension_beyond_end[19] = 4;
        let rows: [(&str, &[u8]); 8] = [
            ("empty", &[]),
            ("short", &FULL[..11]),
            ("CSRC cut", &FULL[..15]),
            ("extension cut", &FULL[..22]),
            ("wrong version", &wrong_version),
            ("padding of zero", &padding_of_zero),
            ("padding beyond payload", &padding_beyond_payload),
            ("extension beyond end", &extension_beyond_end),
        ];
        for (name, packet) in rows {
            assert_eq!(RtpHeader::parse(packet), Err(MalformedRtp), "{name}");
        }
    }

    #[test]
    fn edit_leaves_marker_extension_and_payload_alone() {
        let mut packet = FULL;
        RtpEdit {
            payload_type: PayloadType::PCMU,
            sequence: 7,
            timestamp: 9,
            ssrc: Ssrc(1),
        }
        .apply(&mut packet);
        assert_eq!(packet[..12], [0xb1, 0x80, 0, 7, 0, 0, 0, 9, 0, 0, 0, 1]);
        assert_eq!(packet[12..], FULL[12..]);
    }

    proptest! {
        #[test]
        fn parse_accepts_only_what_fits(packet in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(header) = RtpHeader::parse(&packet) {
                prop_assert!(header.header_len + header.payload_len <= packet.len());
            }
        }

        /// The usual header is read without `rtp-rs`, and must be what that reads.
        #[test]
        fn parse_agrees_with_rtp_rs(
            first in prop_oneof![Just(0x80u8), 0x80u8..0xc0, any::<u8>()],
            rest in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let packet = [&[first], &rest[..]].concat();
            let theirs = RtpReader::new(&packet).ok().map(|reader| RtpHeader {
                marker: reader.mark(),
                payload_type: PayloadType::new(reader.payload_type()).expect("seven bits"),
                sequence: reader.sequence_number().into(),
                timestamp: reader.timestamp(),
                ssrc: Ssrc(reader.ssrc()),
                header_len: reader.payload_offset(),
                payload_len: reader.payload().len(),
            });
            prop_assert_eq!(RtpHeader::parse(&packet).ok(), theirs);
        }

        #[test]
        fn edit_reads_back(
            pt in 0u8..128, sequence: u16, timestamp: u32, ssrc: u32, marker: bool,
            payload in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut packet = vec![0x80, if marker { 0x80 } else { 0 }, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            packet.extend_from_slice(&payload);
            let payload_type = PayloadType::new(pt).expect("below 128");
            RtpEdit { payload_type, sequence, timestamp, ssrc: Ssrc(ssrc) }.apply(&mut packet);
            let header = RtpHeader::parse(&packet).expect("still valid");
            prop_assert_eq!(header, RtpHeader {
                marker, payload_type, sequence, timestamp, ssrc: Ssrc(ssrc),
                header_len: 12, payload_len: payload.len(),
            });
        }
    }
}
