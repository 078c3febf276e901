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
//! ```
//!
//! Left out: following a peer whose NAT binding changes in mid-call. A new port needs a new
//! [`LegConfig`](trunkline_edge_api::LegConfig).

use std::net::{IpAddr, SocketAddr};

use trunkline_edge_api::SourcePolicy;

use crate::session::SocketKind;

/// An address in the one form in which addresses are compared: IPv4 is IPv4-mapped IPv6 (RFC 4291
/// §2.5.5.2), flow label and scope are set aside. A number, because this comparison is made for
/// every packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ip(u128);

impl From<IpAddr> for Ip {
    #[inline]
    fn from(ip: IpAddr) -> Self {
        const MAPPED_PREFIX: u128 = 0xffff << 32;
        Self(match ip {
            IpAddr::V4(v4) => MAPPED_PREFIX | u128::from(v4.to_bits()),
            IpAddr::V6(v6) => v6.to_bits(),
        })
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
    /// What signalling said, indexed by [`SocketKind`]. A NAT makes it useless as a source but not
    /// as a sign: when it changes, the peer has moved and its old port means nothing.
    signalled: [Option<SocketAddr>; 2],
    /// Indexed by [`SocketKind`].
    doors: [Door; 2],
}

/// Who may send to one of the leg's sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Shut,
    Exact(Peer),
    /// Nobody has come yet; who does first fixes the port.
    AnyPortOf(Ip),
    Learnt {
        peer: Peer,
        /// As the kernel gave it, to be answered.
        source: SocketAddr,
    },
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
        let doors = signalled.map(|remote| match (policy, remote) {
            (SourcePolicy::Nobody, _) | (SourcePolicy::Exact, None) => Door::Shut,
            (SourcePolicy::Exact, Some(remote)) => Door::Exact(remote.into()),
            (SourcePolicy::LearnPort { ip }, _) => Door::AnyPortOf(ip.into()),
        });
        Self {
            policy,
            signalled,
            doors,
        }
    }

    /// Whether both admit the same before anything is learnt.
    #[must_use]
    pub fn has_same_rule(&self, other: &SourceGate) -> bool {
        self.policy == other.policy && self.signalled == other.signalled
    }

    /// Whether `source` may send to the leg's `socket`.
    #[inline]
    #[must_use]
    pub fn admits(&self, socket: SocketKind, source: SocketAddr) -> bool {
        let source = Peer::from(source);
        match &self.doors[socket as usize] {
            Door::Shut => false,
            Door::Exact(peer) | Door::Learnt { peer, .. } => *peer == source,
            Door::AnyPortOf(ip) => *ip == source.ip,
        }
    }

    /// Fixes the port of `socket` to that of `source`, if the policy learns and has not yet. The
    /// caller has checked that the gate admits `source` and that the packet is valid.
    #[inline]
    pub fn learn(&mut self, socket: SocketKind, source: SocketAddr) {
        let door = &mut self.doors[socket as usize];
        if let Door::AnyPortOf(_) = door {
            *door = Door::Learnt {
                peer: source.into(),
                source,
            };
        }
    }

    /// The address that `socket` has learnt, where the peer is to be answered.
    #[inline]
    #[must_use]
    pub fn learnt(&self, socket: SocketKind) -> Option<&SocketAddr> {
        match &self.doors[socket as usize] {
            Door::Learnt { source, .. } => Some(source),
            Door::Shut | Door::Exact(_) | Door::AnyPortOf(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    const RTP: SocketKind = SocketKind::Rtp;
    const RTCP: SocketKind = SocketKind::Rtcp;

    #[test]
    fn gate_admits_by_table() {
        let exact = SourceGate::new(
            SourcePolicy::Exact,
            Some(addr("192.0.2.1:4000")),
            Some(addr("192.0.2.1:4001")),
        );
        let exact_without_rtcp =
            SourceGate::new(SourcePolicy::Exact, Some(addr("[2001:db8::1]:4000")), None);
        let nobody = SourceGate::new(SourcePolicy::Nobody, Some(addr("192.0.2.1:4000")), None);
        let learning = SourceGate::new(
            SourcePolicy::LearnPort {
                ip: addr("192.0.2.1:1").ip(),
            },
            None,
            None,
        );
        let rows = [
            ("named address", &exact, RTP, "192.0.2.1:4000", true),
            (
                "its mapped form",
                &exact,
                RTP,
                "[::ffff:192.0.2.1]:4000",
                true,
            ),
            ("other port", &exact, RTP, "192.0.2.1:4002", false),
            ("other IP", &exact, RTP, "192.0.2.2:4000", false),
            (
                "RTCP port on RTP socket",
                &exact,
                RTP,
                "192.0.2.1:4001",
                false,
            ),
            (
                "RTCP port on RTCP socket",
                &exact,
                RTCP,
                "192.0.2.1:4001",
                true,
            ),
            (
                "RTP port on RTCP socket",
                &exact,
                RTCP,
                "192.0.2.1:4000",
                false,
            ),
            (
                "flow label differs",
                &exact_without_rtcp,
                RTP,
                "[2001:db8::1%3]:4000",
                true,
            ),
            (
                "no RTCP agreed",
                &exact_without_rtcp,
                RTCP,
                "[2001:db8::1]:4001",
                false,
            ),
            ("nobody yet", &nobody, RTP, "192.0.2.1:4000", false),
            (
                "behind NAT, any port",
                &learning,
                RTP,
                "192.0.2.1:61234",
                true,
            ),
            (
                "behind NAT, mapped form",
                &learning,
                RTP,
                "[::ffff:192.0.2.1]:5",
                true,
            ),
            (
                "behind NAT, other IP",
                &learning,
                RTP,
                "192.0.2.2:61234",
                false,
            ),
        ];
        for (name, gate, socket, source, expected) in rows {
            assert_eq!(gate.admits(socket, addr(source)), expected, "{name}");
        }
    }

    #[test]
    fn each_socket_learns_its_own_port_once() {
        let policy = SourcePolicy::LearnPort {
            ip: addr("192.0.2.1:1").ip(),
        };
        let mut gate = SourceGate::new(policy, None, None);
        gate.learn(RTP, addr("192.0.2.1:5000"));
        gate.learn(RTP, addr("192.0.2.1:6000"));
        assert_eq!(gate.learnt(RTP), Some(&addr("192.0.2.1:5000")));
        assert!(!gate.admits(RTP, addr("192.0.2.1:6000")));
        assert!(
            gate.admits(RTCP, addr("192.0.2.1:6000")),
            "RTCP has learnt nothing yet"
        );
    }

    #[test]
    fn exact_gate_never_learns() {
        let mut gate = SourceGate::new(SourcePolicy::Exact, Some(addr("192.0.2.1:4000")), None);
        gate.learn(RTP, addr("192.0.2.1:4000"));
        assert_eq!(gate.learnt(RTP), None);
    }
}
