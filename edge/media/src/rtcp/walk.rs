//! Checking an RTCP compound and finding its parts: RFC 3550 §6.1 and A.2.

/// Some part of a compound has an impossible header or length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MalformedRtcp;

/// Bytes of the common header.
pub(super) const HEADER_LEN: usize = 4;

/// RTCP packet types, RFC 3550 §12.1 and RFC 4585 §6.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketType {
    /// SR.
    SenderReport,
    /// RR.
    ReceiverReport,
    /// SDES.
    SourceDescription,
    /// BYE.
    Goodbye,
    /// APP.
    App,
    /// RTPFB.
    TransportFeedback,
    /// Any other of 192 … 223.
    Other(u8),
}

impl PacketType {
    /// `None` outside 192 … 223, the range that RFC 5761 §4 leaves to RTCP.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            200 => Self::SenderReport,
            201 => Self::ReceiverReport,
            202 => Self::SourceDescription,
            203 => Self::Goodbye,
            204 => Self::App,
            205 => Self::TransportFeedback,
            192..=223 => Self::Other(code),
            _ => return None,
        })
    }

    /// The value on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::SenderReport => 200,
            Self::ReceiverReport => 201,
            Self::SourceDescription => 202,
            Self::Goodbye => 203,
            Self::App => 204,
            Self::TransportFeedback => 205,
            Self::Other(code) => code,
        }
    }

    /// Bytes, common header included, without which a packet with this `count` has no meaning.
    const fn len_min(self, count: u8) -> usize {
        let count = count as usize;
        match self {
            Self::SenderReport => 28 + 24 * count,
            Self::ReceiverReport => 8 + 24 * count,
            Self::SourceDescription | Self::Goodbye => 4 + 4 * count,
            Self::App | Self::TransportFeedback => 12,
            Self::Other(_) => HEADER_LEN,
        }
    }
}

/// One packet of a compound. Positions count from the start of the compound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) packet_type: PacketType,
    /// The five bits after the padding bit: report count, source count, subtype or format.
    pub(super) count: u8,
    pub(super) start: usize,
    /// Where padding begins, if there is any.
    pub(super) content_end: usize,
    pub(super) end: usize,
}

/// The packet that begins at `start`; `None` when none fits there.
pub(super) fn packet_at(bytes: &[u8], start: usize) -> Option<Packet> {
    let header = bytes.get(start..)?.first_chunk::<HEADER_LEN>()?;
    if header[0] >> 6 != 2 {
        return None;
    }
    let packet_type = PacketType::from_code(header[1])?;
    let end = start + 4 * (usize::from(u16::from_be_bytes([header[2], header[3]])) + 1);
    let last_byte = *bytes.get(..end)?.last()?;
    let has_padding = header[0] & 0x20 != 0;
    let padding_len = if has_padding {
        usize::from(last_byte)
    } else {
        0
    };
    // Only the last packet of a compound may be padded, and padding keeps the 32-bit grid.
    if has_padding && (padding_len == 0 || padding_len % 4 != 0 || end != bytes.len()) {
        return None;
    }
    let content_end = end.checked_sub(padding_len)?;
    let packet = Packet {
        packet_type,
        count: header[0] & 0x1f,
        start,
        content_end,
        end,
    };
    (start + packet_type.len_min(packet.count) <= content_end).then_some(packet)
}

/// Checks every part of `compound`: versions, types, lengths that sum up, counts and texts that
/// stay inside their packet.
///
/// # Errors
///
/// [`MalformedRtcp`] when any check fails or `compound` is empty.
pub fn validate(compound: &[u8]) -> Result<(), MalformedRtcp> {
    if compound.is_empty() {
        return Err(MalformedRtcp);
    }
    let mut at = 0;
    while at < compound.len() {
        let packet = packet_at(compound, at).ok_or(MalformedRtcp)?;
        let is_sound = match packet.packet_type {
            PacketType::SourceDescription => has_sound_chunks(compound, packet),
            PacketType::Goodbye => has_sound_reason(compound, packet),
            _ => true,
        };
        if !is_sound {
            return Err(MalformedRtcp);
        }
        at = packet.end;
    }
    Ok(())
}

/// RFC 3550 §6.5: each chunk is an SSRC and items up to a null byte, padded to the next word.
fn has_sound_chunks(compound: &[u8], packet: Packet) -> bool {
    let content = &compound[..packet.content_end];
    let mut chunk = packet.start + HEADER_LEN;
    for _ in 0..packet.count {
        let mut item = chunk + 4;
        loop {
            match content.get(item..) {
                Some([0, ..]) => break,
                Some([_, text_len, ..]) => item += 2 + usize::from(*text_len),
                _ => return false,
            }
        }
        chunk = next_word(item + 1);
    }
    chunk <= packet.content_end
}

/// RFC 3550 §6.6: an optional length-prefixed text follows the sources.
fn has_sound_reason(compound: &[u8], packet: Packet) -> bool {
    let reason = packet.start + HEADER_LEN + 4 * usize::from(packet.count);
    match compound[..packet.content_end].get(reason) {
        Some(&text_len) => reason + 1 + usize::from(text_len) <= packet.content_end,
        None => true,
    }
}

/// `at`, or the next multiple of four after it. All packets of a compound begin on one.
pub(super) const fn next_word(at: usize) -> usize {
    at.next_multiple_of(4)
}

/// Big-endian field of a compound that was validated.
pub(super) fn read_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Big-endian field of a compound that was validated.
pub(super) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
