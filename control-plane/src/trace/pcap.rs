//! A trace as a capture file that Wireshark, tshark and sngrep open.
//!
//! Raw IP packets (LINKTYPE_RAW) with a UDP header each, whatever the transport was: what matters
//! is who said what when, and every tool reads SIP in UDP. Addresses and ports are the real ones.

use std::net::{IpAddr, SocketAddr};

use super::{Direction, TracedMessage, v6_octets};

/// Magic of a capture with microseconds, written in this order on every machine.
const MAGIC: u32 = 0xa1b2_c3d4;
/// LINKTYPE_RAW: the packet begins with its IP header.
const LINKTYPE_RAW: u32 = 101;
const SNAPLEN: u32 = 65_535;
const IPV4_HEADER_LEN: usize = 20;
const IPV6_HEADER_LEN: usize = 40;
const UDP_HEADER_LEN: usize = 8;
const PROTOCOL_UDP: u8 = 17;
const TTL: u8 = 64;

/// Longest message that fits a datagram of either family; longer ones (streams only) are cut.
const MESSAGE_LEN_MAX: usize = SNAPLEN as usize - IPV6_HEADER_LEN - UDP_HEADER_LEN;

/// The file.
#[must_use]
pub fn write(messages: &[TracedMessage]) -> Vec<u8> {
    let mut file = Vec::new();
    file.extend_from_slice(&MAGIC.to_le_bytes());
    file.extend_from_slice(&2u16.to_le_bytes());
    file.extend_from_slice(&4u16.to_le_bytes());
    file.extend_from_slice(&[0; 8]);
    file.extend_from_slice(&SNAPLEN.to_le_bytes());
    file.extend_from_slice(&LINKTYPE_RAW.to_le_bytes());
    for message in messages {
        let (from, to) = match message.direction {
            Direction::Received => (message.remote, message.local),
            Direction::Sent => (message.local, message.remote),
        };
        let packet = packet(from, to, message.text.as_bytes());
        let millis = message.unix_ms.max(0);
        let secs = u32::try_from(millis / 1_000).unwrap_or(u32::MAX);
        let micros = (millis % 1_000) as u32 * 1_000;
        let len = packet.len() as u32;
        for word in [secs, micros, len, len] {
            file.extend_from_slice(&word.to_le_bytes());
        }
        file.extend_from_slice(&packet);
    }
    file
}

fn packet(from: SocketAddr, to: SocketAddr, message: &[u8]) -> Vec<u8> {
    let message = &message[..message.len().min(MESSAGE_LEN_MAX)];
    let udp_len = (UDP_HEADER_LEN + message.len()) as u16;
    let mut packet = match (from.ip().to_canonical(), to.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = [0; IPV4_HEADER_LEN];
            header[0] = 0x45;
            header[2..4].copy_from_slice(&(IPV4_HEADER_LEN as u16 + udp_len).to_be_bytes());
            header[8] = TTL;
            header[9] = PROTOCOL_UDP;
            header[12..16].copy_from_slice(&from.octets());
            header[16..20].copy_from_slice(&to.octets());
            let checksum = checksum(&header);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            header.to_vec()
        }
        (from, to) => {
            let mut header = [0; IPV6_HEADER_LEN];
            header[0] = 0x60;
            header[4..6].copy_from_slice(&udp_len.to_be_bytes());
            header[6] = PROTOCOL_UDP;
            header[7] = TTL;
            header[8..24].copy_from_slice(&v6_octets(from));
            header[24..40].copy_from_slice(&v6_octets(to));
            header.to_vec()
        }
    };
    packet.extend_from_slice(&from.port().to_be_bytes());
    packet.extend_from_slice(&to.port().to_be_bytes());
    packet.extend_from_slice(&udp_len.to_be_bytes());
    // No checksum: allowed over IPv4 (RFC 768), and not looked at in a capture.
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(message);
    packet
}

/// RFC 1071.
fn checksum(header: &[u8]) -> u16 {
    let words = header
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
