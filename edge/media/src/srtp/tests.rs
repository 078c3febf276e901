//! What a context promises, for every suite. The published vectors and the comparison with another
//! implementation have files of their own.

use super::*;

mod contexts;
mod oracle;
mod properties;
mod vectors;

const SSRC: Ssrc = Ssrc(0x00c0_ffee);

/// A master key that depends on `seed` alone.
fn key(suite: SrtpSuite, seed: u8) -> SrtpKey {
    let len = suite.key_len() + suite.salt_len();
    let bytes: Vec<u8> = (0..len)
        .map(|n| (n as u8).wrapping_mul(37) ^ seed)
        .collect();
    SrtpKey::new(suite, &bytes).expect("the suite's length")
}

fn pair(suite: SrtpSuite) -> (SealContext, OpenContext) {
    let key = key(suite, 0x5a);
    (
        SealContext::new(suite, &key, SSRC),
        OpenContext::new(suite, &key),
    )
}

/// 20 ms of G.711 under a bare header.
fn rtp(ssrc: Ssrc, sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&(u32::from(sequence) * 160).to_be_bytes());
    packet.extend_from_slice(&ssrc.0.to_be_bytes());
    packet.extend((0..160u8).map(|n| n ^ sequence as u8));
    packet
}

/// An empty receiver report and a source description.
fn rtcp(ssrc: Ssrc) -> Vec<u8> {
    let mut packet = vec![0x80, 201, 0, 1];
    packet.extend_from_slice(&ssrc.0.to_be_bytes());
    packet.extend_from_slice(&[0x81, 202, 0, 2]);
    packet.extend_from_slice(&ssrc.0.to_be_bytes());
    packet.extend_from_slice(&[1, 1, b'x', 0]);
    packet
}

type Step<'a> = &'a mut dyn FnMut(&mut PacketBuf<'_>) -> Result<(), SrtpError>;

/// What `packet` becomes, in a buffer with just enough room.
fn through(packet: &[u8], step: Step<'_>) -> Result<Vec<u8>, SrtpError> {
    let mut buffer = packet.to_vec();
    buffer.resize(packet.len() + OVERHEAD_MAX, 0xee);
    let mut buf = PacketBuf::new(&mut buffer, packet.len());
    step(&mut buf)?;
    Ok(buf.to_vec())
}

impl SealContext {
    fn sealed_rtp(&mut self, packet: &[u8]) -> Result<Vec<u8>, SrtpError> {
        through(packet, &mut |buf| self.seal_rtp(buf))
    }

    fn sealed_rtcp(&mut self, packet: &[u8]) -> Result<Vec<u8>, SrtpError> {
        through(packet, &mut |buf| self.seal_rtcp(buf))
    }
}

impl OpenContext {
    fn opened_rtp(&mut self, packet: &[u8]) -> Result<Vec<u8>, SrtpError> {
        through(packet, &mut |buf| self.open_rtp(buf))
    }

    fn opened_rtcp(&mut self, packet: &[u8]) -> Result<Vec<u8>, SrtpError> {
        through(packet, &mut |buf| self.open_rtcp(buf))
    }
}
