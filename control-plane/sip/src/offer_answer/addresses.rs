//! Our own media addresses: which one a leg uses, what its peer is told, and what nobody may send
//! media to.
//!
//! What is bound and what SDP names may differ (a 1:1 NAT): the edge hears of
//! [`MediaAddress::address`], the peer of [`MediaAddress::advertise`], and a peer that names
//! either of them as its own is refused (CVE-2020-26262 was a relay that talked to itself).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use trunkline_edge_api::PortRange;
use trunkline_edge_api::config::{MediaAddress, bound_addresses};

use super::OfferAnswerError;

/// Our media addresses, as one leg may use them: they decide which peers it can reach at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaAddresses {
    all: Arc<[MediaAddress]>,
    /// The only entry that this leg uses; `None` while any would do.
    only: Option<usize>,
    /// Our media ports, the same on each address; `None` when they are not known.
    ports: Option<PortRange>,
}

impl MediaAddresses {
    /// From `[edge] media_addresses`, in the order of preference. `None` when there is none.
    #[must_use]
    pub fn new(addresses: &[MediaAddress]) -> Option<Self> {
        (!addresses.is_empty()).then(|| Self {
            all: addresses.into(),
            only: None,
            ports: None,
        })
    }

    /// The same with `[edge] ports`: a peer that names one of our own media sockets is refused.
    /// Two calls whose legs are pointed at each other would pass packets round for ever.
    #[must_use]
    pub fn with_ports(mut self, ports: PortRange) -> Self {
        self.ports = Some(ports);
        self
    }

    /// The same for a leg that uses the entry of this name and no other; `None` when there is none.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<Self> {
        let index = self.all.iter().position(|entry| entry.name == name)?;
        Some(Self {
            only: Some(index),
            ..self.clone()
        })
    }

    /// Every address that is bound, each once.
    #[must_use]
    pub fn bound(&self) -> Vec<IpAddr> {
        bound_addresses(&self.all)
    }

    /// Every entry, in the order of preference.
    #[must_use]
    pub fn entries(&self) -> &[MediaAddress] {
        &self.all
    }

    /// Settles on the entry for a peer at `peer`, or on the preferred one when none has that
    /// family. Nothing changes for a leg that has its entry.
    pub(super) fn settle(&mut self, peer: IpAddr) {
        let fits = |entry: &MediaAddress| entry.address.is_ipv4() == peer.is_ipv4();
        if self.only.is_none() {
            self.only = Some(self.all.iter().position(fits).unwrap_or(0));
        }
    }

    /// The entry for a peer at `peer`: the first of its family that the leg may use.
    #[must_use]
    pub fn towards(&self, peer: IpAddr) -> Option<&MediaAddress> {
        self.usable()
            .iter()
            .find(|entry| entry.address.is_ipv4() == peer.is_ipv4())
    }

    /// The entry for a peer that has named no address yet.
    #[must_use]
    pub fn preferred(&self) -> &MediaAddress {
        self.usable().first().expect("no list is empty")
    }

    /// What the leg's peer is told of a socket on `bound`.
    pub(super) fn advertised(&self, bound: IpAddr) -> IpAddr {
        let mut usable = self.usable().iter();
        usable
            .find(|entry| entry.address == bound)
            .map_or(bound, |entry| entry.advertise)
    }

    /// The address itself when media of this leg may be sent there.
    ///
    /// # Errors
    /// [`OfferAnswerError::AddressFamily`] when the leg has no address of that family,
    /// [`OfferAnswerError::AddressRefused`] for what is nobody's address or our own.
    pub(super) fn reachable(&self, address: SocketAddr) -> Result<SocketAddr, OfferAnswerError> {
        let ip = address.ip().to_canonical();
        let Some(ours) = self.towards(address.ip()) else {
            return Err(OfferAnswerError::AddressFamily(address.ip()));
        };
        let is_broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
        // A stranger that names loopback would have the edge talk to this machine's own services;
        // only a node that serves loopback itself has peers there.
        let is_foreign_loopback = ip.is_loopback() && !ours.address.is_loopback();
        let must_not =
            ip.is_unspecified() || ip.is_multicast() || is_broadcast || is_foreign_loopback;
        if must_not || address.port() == 0 || self.has_socket(address) {
            return Err(OfferAnswerError::AddressRefused(address));
        }
        Ok(address)
    }

    /// Whether media may be sent to `address`, from whichever of our addresses.
    #[must_use]
    pub fn may_send_to(&self, address: SocketAddr) -> bool {
        self.reachable(address).is_ok()
    }

    /// Whether `address` may be one of our media sockets, by the address that is bound or by the
    /// one that peers are told; of any leg's.
    fn has_socket(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let is_ours = |entry: &MediaAddress| entry.address == ip || entry.advertise == ip;
        let is_media_port =
            |ports: PortRange| (ports.first()..=ports.last()).contains(&address.port());
        self.ports.is_some_and(is_media_port) && self.all.iter().any(is_ours)
    }

    fn usable(&self) -> &[MediaAddress] {
        match self.only {
            Some(index) => self.all.get(index..=index).unwrap_or_default(),
            None => &self.all,
        }
    }
}
