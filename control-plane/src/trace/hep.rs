//! HEP version 3, the encapsulation that capture servers such as Homer take: a list of chunks, each
//! with vendor, type and length (HEP3 specification, revision 32, §3).

use std::net::{IpAddr, SocketAddr};

use trunkline_sip::flow::TransportKind;

use super::{Direction, Traced, mask, v6_octets};

const MAGIC: &[u8; 4] = b"HEP3";

/// Of a chunk: vendor 0, type, length.
const CHUNK_HEADER_LEN: usize = 6;

/// Longest packet: its length is 16 bits. A message that does not fit is not sent.
const PACKET_LEN_MAX: usize = u16::MAX as usize;

mod chunk {
    pub(super) const FAMILY: u16 = 0x0001;
    pub(super) const PROTOCOL: u16 = 0x0002;
    pub(super) const SOURCE_V4: u16 = 0x0003;
    pub(super) const DESTINATION_V4: u16 = 0x0004;
    pub(super) const SOURCE_V6: u16 = 0x0005;
    pub(super) const DESTINATION_V6: u16 = 0x0006;
    pub(super) const SOURCE_PORT: u16 = 0x0007;
    pub(super) const DESTINATION_PORT: u16 = 0x0008;
    pub(super) const SECONDS: u16 = 0x0009;
    pub(super) const MICROSECONDS: u16 = 0x000a;
    pub(super) const PAYLOAD_TYPE: u16 = 0x000b;
    pub(super) const AGENT_ID: u16 = 0x000c;
    pub(super) const PAYLOAD: u16 = 0x000f;
}

const FAMILY_IPV4: u8 = 2;
const FAMILY_IPV6: u8 = 10;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
/// What the payload is.
const SIP: u8 = 1;

/// A message as one HEP packet, masked; `None` when it is too long for one. `agent` names this node
/// at the server.
#[must_use]
pub fn write(traced: &Traced, agent: u32) -> Option<Vec<u8>> {
    let payload = mask(&traced.bytes);
    let (from, to) = match traced.direction {
        Direction::Received => (traced.flow.remote, traced.flow.local),
        Direction::Sent => (traced.flow.local, traced.flow.remote),
    };
    let mut packet = Vec::with_capacity(payload.len() + 128);
    packet.extend_from_slice(MAGIC);
    packet.extend_from_slice(&[0, 0]);
    addresses(&mut packet, from, to);
    put(&mut packet, chunk::PROTOCOL, &[protocol(traced.flow.kind)])?;
    put(&mut packet, chunk::SOURCE_PORT, &from.port().to_be_bytes())?;
    put(
        &mut packet,
        chunk::DESTINATION_PORT,
        &to.port().to_be_bytes(),
    )?;
    let millis = traced.unix_ms.max(0);
    let secs = u32::try_from(millis / 1_000).unwrap_or(u32::MAX);
    let micros = (millis % 1_000) as u32 * 1_000;
    put(&mut packet, chunk::SECONDS, &secs.to_be_bytes())?;
    put(&mut packet, chunk::MICROSECONDS, &micros.to_be_bytes())?;
    put(&mut packet, chunk::PAYLOAD_TYPE, &[SIP])?;
    put(&mut packet, chunk::AGENT_ID, &agent.to_be_bytes())?;
    put(&mut packet, chunk::PAYLOAD, &payload)?;
    let len = u16::try_from(packet.len()).ok()?;
    packet[4..6].copy_from_slice(&len.to_be_bytes());
    Some(packet)
}

fn addresses(packet: &mut Vec<u8>, from: SocketAddr, to: SocketAddr) {
    // Chunks of a few bytes always fit.
    let _ = match (from.ip().to_canonical(), to.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => put(packet, chunk::FAMILY, &[FAMILY_IPV4])
            .and_then(|()| put(packet, chunk::SOURCE_V4, &from.octets()))
            .and_then(|()| put(packet, chunk::DESTINATION_V4, &to.octets())),
        (from, to) => put(packet, chunk::FAMILY, &[FAMILY_IPV6])
            .and_then(|()| put(packet, chunk::SOURCE_V6, &v6_octets(from)))
            .and_then(|()| put(packet, chunk::DESTINATION_V6, &v6_octets(to))),
    };
}

fn protocol(kind: TransportKind) -> u8 {
    if kind == TransportKind::Udp {
        PROTOCOL_UDP
    } else {
        PROTOCOL_TCP
    }
}

/// `None` when the packet would become too long.
fn put(packet: &mut Vec<u8>, kind: u16, value: &[u8]) -> Option<()> {
    let len = CHUNK_HEADER_LEN + value.len();
    if packet.len() + len > PACKET_LEN_MAX {
        return None;
    }
    packet.extend_from_slice(&0u16.to_be_bytes());
    packet.extend_from_slice(&kind.to_be_bytes());
    packet.extend_from_slice(&u16::try_from(len).ok()?.to_be_bytes());
    packet.extend_from_slice(value);
    Some(())
}
