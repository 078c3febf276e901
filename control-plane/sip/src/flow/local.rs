//! Our own sockets, as flows name them and as peers are told of them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::scope::{Scope, scope};
use super::{Flow, TransportKind};
use crate::locate::Hop;

/// A socket of ours.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LocalEnd {
    /// What is spoken on it.
    pub kind: TransportKind,
    /// What is bound.
    pub address: SocketAddr,
    /// `host:port` that `Via` and `Contact` name in place of the bound address: what a 1:1 NAT
    /// maps to it, or the name that its certificate shows.
    pub advertised: Option<Box<str>>,
}

/// All sockets of ours, in the order of preference.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct LocalEnds(Vec<LocalEnd>);

impl LocalEnds {
    /// The sockets, the preferred ones first.
    #[must_use]
    pub fn new(ends: Vec<LocalEnd>) -> Self {
        Self(ends)
    }

    /// They, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[LocalEnd] {
        &self.0
    }

    /// Transports that requests can be sent by, in order, each once. WebSockets are not among
    /// them: browsers come to us.
    #[must_use]
    pub fn kinds(&self) -> Vec<TransportKind> {
        let mut kinds = Vec::new();
        for end in &self.0 {
            if !end.kind.is_web() && !kinds.contains(&end.kind) {
                kinds.push(end.kind);
            }
        }
        kinds
    }

    /// What `Via` and `Contact` name for a socket of ours.
    pub(super) fn advertised(&self, kind: TransportKind, local: SocketAddr) -> Option<&str> {
        let is_it = |end: &&LocalEnd| end.kind == kind && end.address == local;
        self.0.iter().find(is_it)?.advertised.as_deref()
    }

    /// The socket that can send to `remote` by `kind`: of its address family, not a loopback
    /// address for a peer elsewhere. Among several, one on `preferred`, then one whose address
    /// reaches as far as the peer's, then the first.
    pub(super) fn facing(
        &self,
        kind: TransportKind,
        remote: IpAddr,
        preferred: Option<IpAddr>,
    ) -> Option<SocketAddr> {
        let reaches = |local: IpAddr| {
            let leaves_the_host = scope(local) == Scope::Host && scope(remote) != Scope::Host;
            local.is_ipv4() == remote.is_ipv4() && !leaves_the_host
        };
        let rank = |address: &SocketAddr| {
            let is_elsewhere = preferred != Some(address.ip());
            (is_elsewhere, scope(address.ip()) != scope(remote))
        };
        self.0
            .iter()
            .filter(|end| end.kind == kind && reaches(end.address.ip()))
            .map(|end| end.address)
            .min_by_key(rank)
    }

    /// The flow to a hop that was located: by its transport, from the socket that reaches it.
    /// `None` when none does.
    #[must_use]
    pub fn flow_to(self: &Arc<Self>, hop: &Hop) -> Option<Flow> {
        let local = self.facing(hop.kind, hop.address.ip(), None)?;
        Some(Flow {
            kind: hop.kind,
            local,
            remote: hop.address,
            connection: None,
            domain: hop.domain.clone(),
            ends: Some(Arc::clone(self)),
        })
    }
}
