//! The RTP header (RFC 3550 §5.1), as far as a phone needs it.

/// Octets of a header without contributing sources or extension.
pub const RTP_HEADER_LEN: usize = 12;

/// The fields of an RTP header that say where a packet belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketHeader {
    /// 0 … 127.
    pub payload_type: u8,
    /// First packet of a talk spurt (RFC 3551 §4.1).
    pub marker: bool,
    /// Rises by one per packet, wrapping.
    pub sequence: u16,
    /// In units of the payload type's clock, wrapping.
    pub timestamp: u32,
    /// Synchronization source.
    pub ssrc: u32,
}

impl PacketHeader {
    /// The header and the payload after it, without padding; `None` when `datagram` is not RTP
    /// version 2 or is shorter than its own header says.
    #[must_use]
    pub fn parse(datagram: &[u8]) -> Option<(Self, &[u8])> {
        let first = *datagram.first()?;
        if first >> 6 != 2 {
            return None;
        }
        let header = Self {
            payload_type: datagram.get(1)? & 0x7f,
            marker: datagram.get(1)? & 0x80 != 0,
            sequence: u16::from_be_bytes(datagram.get(2..4)?.try_into().ok()?),
            timestamp: u32::from_be_bytes(datagram.get(4..8)?.try_into().ok()?),
            ssrc: u32::from_be_bytes(datagram.get(8..12)?.try_into().ok()?),
        };
        let mut start = RTP_HEADER_LEN + 4 * usize::from(first & 0x0f);
        if first & 0x10 != 0 {
            let words = u16::from_be_bytes(datagram.get(start + 2..start + 4)?.try_into().ok()?);
            start += 4 + 4 * usize::from(words);
        }
        let mut payload = datagram.get(start..)?;
        if first & 0x20 != 0 {
            let padding = usize::from(*payload.last()?);
            if padding == 0 {
                return None;
            }
            payload = payload.get(..payload.len().checked_sub(padding)?)?;
        }
        Some((header, payload))
    }

    /// Appends the twelve octets.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.push(0x80);
        out.push(u8::from(self.marker) << 7 | self.payload_type & 0x7f);
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        out.extend_from_slice(&self.ssrc.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: PacketHeader = PacketHeader {
        payload_type: 8,
        marker: true,
        sequence: 65_535,
        timestamp: 0xdead_beef,
        ssrc: 7,
    };

    #[test]
    fn header_reads_back_as_written() {
        let mut datagram = Vec::new();
        HEADER.write_to(&mut datagram);
        datagram.extend_from_slice(b"payload");
        assert_eq!(
            PacketHeader::parse(&datagram),
            Some((HEADER, &b"payload"[..]))
        );
    }

    #[test]
    fn contributing_sources_extension_and_padding_are_not_payload() {
        let mut datagram = Vec::new();
        HEADER.write_to(&mut datagram);
        datagram[0] |= 0x31; // padding, extension, one contributing source
        datagram.extend_from_slice(&[0; 4]);
        datagram.extend_from_slice(&[0xbe, 0xde, 0, 1, 1, 2, 3, 4]);
        datagram.extend_from_slice(b"payload\0\0\x03");
        assert_eq!(
            PacketHeader::parse(&datagram),
            Some((HEADER, &b"payload"[..]))
        );
    }

    #[test]
    fn truncated_packet_is_refused_at_every_length() {
        let mut datagram = Vec::new();
        HEADER.write_to(&mut datagram);
        for len in 0..datagram.len() {
            assert_eq!(PacketHeader::parse(&datagram[..len]), None, "{len} octets");
        }
    }
}
