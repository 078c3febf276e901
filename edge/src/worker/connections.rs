//! Connecting media sockets to their peers.
//!
//! A connected socket sends without looking up the way each time, which saves a good part of what a
//! packet costs. In return the kernel answers everybody else with ICMP, and neither the source gate
//! nor a counter learns of them. So a socket is connected only when that changes nothing:
//!
//! ```text
//!   Unfit       signalling left more than one source open, or has not named the peer
//!   Awaiting    one peer is named ([`SourcePolicy::Exact`]); connects when it is heard
//!   Connected   until signalling names another, or the peer is silent
//! ```
//!
//! A peer that falls silent may be gone, and whoever sends in its place should be counted. RTCP
//! sockets stay as they are: a packet in five seconds is not worth it.

use std::net::SocketAddr;

use trunkline_edge_api::{LegConfig, LegIndex, MonoTime, SourcePolicy};
use trunkline_media::SocketKind;

use super::Worker;
use crate::session_table::{Session, SessionKey, SocketOwner};
use crate::tier::Tier;
use crate::timer_wheel::TimerWheel;

/// How often a connected leg is asked whether its peer was heard. A connection is dissolved after
/// at least this much silence, and at most twice as much.
const SILENCE_SECS: u64 = 5;

/// How a leg's RTP socket and its peer stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Connection {
    #[default]
    Unfit,
    /// The only source that is let in, not heard yet.
    Awaiting(SocketAddr),
    Connected {
        peer: SocketAddr,
        /// Since somebody last asked.
        is_heard: bool,
    },
}

impl Connection {
    /// What a leg with this configuration begins with.
    fn configured(config: &LegConfig) -> Self {
        match (&config.source, config.remote_rtp) {
            (SourcePolicy::Exact, Some(peer)) => Self::Awaiting(peer),
            _ => Self::Unfit,
        }
    }

    fn peer(self) -> Option<SocketAddr> {
        match self {
            Self::Unfit => None,
            Self::Awaiting(peer) | Self::Connected { peer, .. } => Some(peer),
        }
    }

    /// A packet from `source` was accepted. Returns whether this is the moment to connect.
    #[inline]
    pub(super) fn hear(&mut self, source: SocketAddr) -> bool {
        match self {
            Self::Unfit => false,
            Self::Awaiting(peer) => *peer == source,
            Self::Connected { is_heard, .. } => {
                *is_heard = true;
                false
            }
        }
    }
}

/// Connects a leg whose peer was heard: its first packet was accepted.
#[cold]
pub(super) fn connect_leg(
    tier: &mut Tier,
    timers: &mut TimerWheel,
    session: &mut Session,
    owner: SocketOwner,
    now: MonoTime,
    peer: SocketAddr,
) {
    let leg = owner.leg.as_usize();
    let socket = session.sockets[leg][SocketKind::Rtp as usize];
    let is_connected = socket.is_some_and(|socket| tier.connect(socket, peer));
    // What the kernel refuses once it would refuse for each packet.
    session.connections[leg] = if is_connected {
        timers.arm(owner.session.slot(), now.plus_secs(SILENCE_SECS));
        Connection::Connected {
            peer,
            is_heard: true,
        }
    } else {
        Connection::Unfit
    };
}

impl Worker {
    /// To be called before the session takes `config`: from then on it lets in whom that names.
    pub(super) fn reconfigure_connection(
        &mut self,
        key: SessionKey,
        leg: LegIndex,
        config: &LegConfig,
    ) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let wanted = Connection::configured(config);
        let connection = &mut session.connections[leg.as_usize()];
        if connection.peer() == wanted.peer() {
            return;
        }
        let before = std::mem::replace(connection, wanted);
        let socket = session.sockets[leg.as_usize()][SocketKind::Rtp as usize];
        if let (Connection::Connected { .. }, Some(socket)) = (before, socket) {
            self.tier.disconnect(socket);
        }
    }

    /// Dissolves the connections of peers that are silent.
    pub(super) fn expire_connection_timers(&mut self, now: MonoTime) {
        while let Some(slot) = self.connection_timers.poll_expired(now) {
            let Some((key, _)) = self.sessions.in_slot(slot) else {
                continue;
            };
            let Some(session) = self.sessions.get_mut(key) else {
                continue;
            };
            let mut is_any_connected = false;
            for (connection, sockets) in session.connections.iter_mut().zip(session.sockets) {
                let Connection::Connected { peer, is_heard } = connection else {
                    continue;
                };
                if std::mem::take(is_heard) {
                    is_any_connected = true;
                    continue;
                }
                *connection = Connection::Awaiting(*peer);
                if let Some(socket) = sockets[SocketKind::Rtp as usize] {
                    self.tier.disconnect(socket);
                }
            }
            if is_any_connected {
                let deadline = now.plus_secs(SILENCE_SECS);
                self.connection_timers.arm(slot, deadline);
            }
        }
    }
}
