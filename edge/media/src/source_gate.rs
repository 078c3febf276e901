//! Whose packets a leg accepts.
//!
//! A relay that answers whoever sends first gives one party's audio to a stranger ("RTP bleed") or
//! plays the stranger's ("RTP inject"); RFC 7362 §4 describes latching and its dangers. The gate
//! lets in what signalling named and nothing else:
//!
//! ```text
//!   Nobody      nothing, until signalling has named the peer
//!   Exact       RTP from remote_rtp, RTCP from remote_rtcp; multiplexed: both from remote_rtp
//!   LearnPort   one IP, any port, until the first valid packet of the socket's own kind fixes it
//!   Networks    as Exact, and from these networks any port; what we send goes where SDP said
//! ```
//!
//! A learnt port stays learnt. It changes in two cases only:
//!
//! | what happened | how it shows | what the gate does |
//! |---|---|---|
//! | the NAT gave the phone another port | same IP, same SSRC, and the sequence goes on | follows at once |
//! | the phone opened another socket | signalling names another address | forgets the old port, and does not learn it again from packets that are still on their way |
//!
//! RTCP has no sequence to go on, so its port moves when that of RTP does: then, as before its
//! first packet, it is learnt from a report under the SSRC of the RTP. A report without an SSRC (a
//! goodbye of four bytes) teaches nothing.
//!
//! [`SourceGate::admits`] costs a comparison and is asked before a packet is authenticated;
//! [`SourceGate::learn_rtp`] and [`SourceGate::learn_rtcp`] are told only of packets that are
//! valid, and on a leg with keys authentic.

use std::net::{IpAddr, SocketAddr};

use trunkline_edge_api::{MonoTime, SourcePolicy, Ssrc};

use crate::demux::MediaKind;
use crate::rtp::RtpHeader;
use crate::session::SocketKind;

/// How far ahead of the newest packet one from another port may be and still carry the stream on:
/// two seconds of 20 ms packets, more than is lost while a NAT makes up its mind. A stranger who
/// guesses has one chance in 2^41 per packet.
const RELATCH_AHEAD_MAX: i16 = 100;

/// How long packets from a port that the peer has left may still arrive. Afterwards whoever sends
/// from there is the peer: some NATs give the new socket the old port.
const LATE_NANOS: u64 = 5_000_000_000;

/// An address in the one form in which addresses are compared: IPv4 is IPv4-mapped IPv6 (RFC 4291
/// §2.5.5.2), flow label and scope are set aside. A number, because this comparison is made for
/// every packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ip {
    upper: u64,
    lower: u64,
}

impl From<IpAddr> for Ip {
    #[inline]
    fn from(ip: IpAddr) -> Self {
        const MAPPED_PREFIX: u64 = 0xffff << 32;
        match ip {
            IpAddr::V4(v4) => Self {
                upper: 0,
                lower: MAPPED_PREFIX | u64::from(v4.to_bits()),
            },
            IpAddr::V6(v6) => Self {
                upper: (v6.to_bits() >> 64) as u64,
                lower: v6.to_bits() as u64,
            },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Peer {
    ip: Ip,
    port: u16,
}

impl From<SocketAddr> for Peer {
    #[inline]
    fn from(addr: SocketAddr) -> Self {
        Self {
            ip: addr.ip().into(),
            port: addr.port(),
        }
    }
}

/// The gate of one leg.
#[derive(Debug, Clone)]
pub struct SourceGate {
    policy: SourcePolicy,
    /// What signalling said last, indexed by [`SocketKind`]. A NAT makes it useless as a source
    /// but not as a sign: when it changes, the peer has moved and its old port means nothing.
    signalled: [Option<SocketAddr>; 2],
    /// Indexed by [`SocketKind`].
    doors: [Door; 2],
    /// What signalling has moved the peer away from, indexed by [`SocketKind`].
    left: [Option<Left>; 2],
    /// The RTP that came from the learnt port; `None` before the first.
    stream: Option<Stream>,
}

/// Who may send to one of the leg's sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Shut,
    Exact(Peer),
    /// The named address, and every source in the policy's networks.
    Networks(Option<Peer>),
    /// Nobody has come yet; who does first fixes the port.
    AnyPortOf(Ip),
    Learnt {
        peer: Peer,
        /// As the kernel gave it, to be answered.
        source: SocketAddr,
        /// What the packet that taught it was sent under.
        ssrc: Ssrc,
    },
}

#[derive(Debug, Clone, Copy)]
struct Left {
    peer: Peer,
    /// When the peer was last heard there.
    heard_at: MonoTime,
}

#[derive(Debug, Clone, Copy)]
struct Stream {
    ssrc: Ssrc,
    /// Sequence number of its newest packet.
    newest: u16,
    heard_at: MonoTime,
}

impl SourceGate {
    /// A gate for `policy`; the remote addresses are those of the leg's configuration.
    #[must_use]
    pub fn new(
        policy: SourcePolicy,
        remote_rtp: Option<SocketAddr>,
        remote_rtcp: Option<SocketAddr>,
    ) -> Self {
        let signalled = [remote_rtp, remote_rtcp];
        let doors = signalled.map(|remote| match (&policy, remote) {
            (SourcePolicy::Nobody, _) | (SourcePolicy::Exact, None) => Door::Shut,
            (SourcePolicy::Exact, Some(remote)) => Door::Exact(remote.into()),
            (SourcePolicy::LearnPort { ip }, _) => Door::AnyPortOf((*ip).into()),
            (SourcePolicy::Networks(_), remote) => Door::Networks(remote.map(Peer::from)),
        });
        Self {
            policy,
            signalled,
            doors,
            left: [None; 2],
            stream: None,
        }
    }

    /// Takes over from `before` what still holds. Returns whether RTP goes on as it did.
    #[must_use]
    pub fn succeed(&mut self, before: &SourceGate) -> bool {
        if self.policy != before.policy {
            return false;
        }
        if !matches!(self.policy, SourcePolicy::LearnPort { .. }) {
            return self.signalled == before.signalled;
        }
        self.stream = before.stream;
        for socket in [SocketKind::Rtp as usize, SocketKind::Rtcp as usize] {
            // A peer that holds without naming an address has not moved.
            let signalled = self.signalled[socket].or(before.signalled[socket]);
            self.left[socket] = before.left[socket];
            if before.signalled[socket].is_none() || signalled == before.signalled[socket] {
                self.doors[socket] = before.doors[socket];
            } else if let (Door::Learnt { peer, .. }, Some(stream)) =
                (before.doors[socket], before.stream)
            {
                let heard_at = stream.heard_at;
                self.left[socket] = Some(Left { peer, heard_at });
            }
            self.signalled[socket] = signalled;
        }
        let goes_on =
            self.doors[SocketKind::Rtp as usize] == before.doors[SocketKind::Rtp as usize];
        if !goes_on {
            self.stream = None;
        }
        goes_on
    }

    /// Whether `packet` of the given kind may come from `source` to the leg's `socket`.
    #[inline]
    #[must_use]
    pub fn admits(
        &self,
        now: MonoTime,
        socket: SocketKind,
        kind: MediaKind,
        source: SocketAddr,
        packet: &[u8],
    ) -> bool {
        let door = &self.doors[socket as usize];
        // Most legs have this one, and a comparison costs less than a jump table.
        if let Door::Exact(peer) = door {
            return *peer == source.into();
        }
        self.admits_beside(now, door, socket, kind, source, packet)
    }

    /// The same for the doors that more than one address may pass.
    fn admits_beside(
        &self,
        now: MonoTime,
        door: &Door,
        socket: SocketKind,
        kind: MediaKind,
        address: SocketAddr,
        packet: &[u8],
    ) -> bool {
        let source = Peer::from(address);
        match door {
            Door::Shut => false,
            Door::Exact(peer) => *peer == source,
            Door::Networks(peer) => *peer == Some(source) || self.lists(address.ip()),
            Door::Learnt { peer, .. } if *peer == source => true,
            Door::Learnt { peer, .. } => {
                peer.ip == source.ip
                    && kind == MediaKind::Rtp
                    && self.carries_on(now, source, packet)
            }
            Door::AnyPortOf(ip) => {
                *ip == source.ip && self.may_begin(now, socket, kind, source, packet)
            }
        }
    }

    fn lists(&self, ip: IpAddr) -> bool {
        match &self.policy {
            SourcePolicy::Networks(networks) => networks.contains(ip),
            SourcePolicy::Nobody | SourcePolicy::Exact | SourcePolicy::LearnPort { .. } => false,
        }
    }

    /// Whether RTP from another port of the peer's IP is the stream that the learnt port sent.
    #[cold]
    fn carries_on(&self, now: MonoTime, source: Peer, packet: &[u8]) -> bool {
        let (Some(stream), Ok(header)) = (self.stream, RtpHeader::parse(packet)) else {
            return false;
        };
        let ahead = header.sequence.wrapping_sub(stream.newest).cast_signed();
        header.ssrc == stream.ssrc
            && (1..=RELATCH_AHEAD_MAX).contains(&ahead)
            && !self.has_left(now, SocketKind::Rtp, source)
    }

    /// Whether a packet from the peer's IP may be the first on a socket.
    #[cold]
    fn may_begin(
        &self,
        now: MonoTime,
        socket: SocketKind,
        kind: MediaKind,
        source: Peer,
        packet: &[u8],
    ) -> bool {
        let is_of_the_stream = match (kind, self.stream) {
            (MediaKind::Rtp, _) | (_, None) => true,
            (MediaKind::Rtcp, Some(stream)) => sender_of(packet) == Some(stream.ssrc),
        };
        is_of_the_stream && !self.has_left(now, socket, source)
    }

    fn has_left(&self, now: MonoTime, socket: SocketKind, source: Peer) -> bool {
        self.left[socket as usize]
            .is_some_and(|left| left.peer == source && now.nanos_since(left.heard_at) < LATE_NANOS)
    }

    /// Takes note of RTP that the gate has admitted and that is valid: fixes or moves the port, if
    /// the policy learns.
    #[inline]
    pub fn learn_rtp(&mut self, now: MonoTime, source: SocketAddr, header: &RtpHeader) {
        match &self.doors[SocketKind::Rtp as usize] {
            Door::Shut | Door::Exact(_) | Door::Networks(_) => {}
            Door::AnyPortOf(_) => {
                self.latch_rtp(source, header.ssrc, true);
                self.follow(now, header.ssrc, header.sequence);
            }
            Door::Learnt { peer, .. } => {
                if *peer != source.into() {
                    self.latch_rtp(source, header.ssrc, false);
                }
                self.follow(now, header.ssrc, header.sequence);
            }
        }
    }

    /// Keeps the newest packet of the stream that the learnt port sends.
    fn follow(&mut self, now: MonoTime, ssrc: Ssrc, sequence: u16) {
        let newest = match self.stream {
            Some(stream) if stream.ssrc == ssrc => {
                let ahead = sequence.wrapping_sub(stream.newest).cast_signed();
                let is_late = (-RELATCH_AHEAD_MAX..=0).contains(&ahead);
                if is_late { stream.newest } else { sequence }
            }
            Some(_) | None => sequence,
        };
        self.stream = Some(Stream {
            ssrc,
            newest,
            heard_at: now,
        });
    }

    #[cold]
    fn latch_rtp(&mut self, source: SocketAddr, ssrc: Ssrc, is_first: bool) {
        let peer = Peer::from(source);
        self.doors[SocketKind::Rtp as usize] = Door::Learnt { peer, source, ssrc };
        // What was learnt for RTCP holds if the same phone taught it, behind the same NAT binding.
        if let Door::Learnt {
            ssrc: taught_by, ..
        } = self.doors[SocketKind::Rtcp as usize]
            && !(is_first && taught_by == ssrc)
        {
            self.doors[SocketKind::Rtcp as usize] = Door::AnyPortOf(peer.ip);
        }
    }

    /// Takes note of RTCP on a socket of its own that the gate has admitted and that is valid:
    /// fixes the port, if the policy learns and has not yet. On the RTP socket only RTP teaches.
    #[inline]
    pub fn learn_rtcp(&mut self, source: SocketAddr, packet: &[u8]) {
        let door = &mut self.doors[SocketKind::Rtcp as usize];
        if let Door::AnyPortOf(_) = door
            && let Some(ssrc) = sender_of(packet)
        {
            let peer = source.into();
            *door = Door::Learnt { peer, source, ssrc };
        }
    }

    /// The address that `socket` has learnt, where the peer is to be answered.
    #[inline]
    #[must_use]
    pub fn learnt(&self, socket: SocketKind) -> Option<&SocketAddr> {
        match &self.doors[socket as usize] {
            Door::Learnt { source, .. } => Some(source),
            Door::Shut | Door::Exact(_) | Door::Networks(_) | Door::AnyPortOf(_) => None,
        }
    }
}

/// The SSRC at the head of an RTCP compound, in the clear in SRTCP too (RFC 3711 §3.4). `None`
/// when its first packet has none: a goodbye or source description of nobody.
fn sender_of(packet: &[u8]) -> Option<Ssrc> {
    let bytes = packet.get(4..8)?.try_into().ok()?;
    let words = u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]);
    (words > 0).then_some(Ssrc(u32::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests;
