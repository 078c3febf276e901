//! Networks whose packets a leg accepts beside those of the address that its peer named.

use std::net::IpAddr;

/// A network in CIDR form. Its host bits are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SourceNetwork {
    address: IpAddr,
    prefix_len: u8,
}

impl SourceNetwork {
    /// `None` when the prefix is longer than the address, a host bit is set, or the address is
    /// IPv4 written as IPv6: no source is ever compared in that form.
    #[must_use]
    pub fn new(address: IpAddr, prefix_len: u8) -> Option<Self> {
        let network = Self {
            address,
            prefix_len,
        };
        let fits = prefix_len <= width(address) && address.to_canonical() == address;
        (fits && network.masked(address) == bits(address)).then_some(network)
    }

    /// Its lowest address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many leading bits name the network: 0 … 32 or 0 … 128.
    #[must_use]
    pub fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// Whether `ip` lies in it. IPv4 inside IPv6 counts as IPv4.
    #[inline]
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_ipv4() == self.address.is_ipv4() && self.masked(ip) == bits(self.address)
    }

    /// `ip`, which is of the network's family, without its host bits.
    fn masked(&self, ip: IpAddr) -> u128 {
        let host_len = u32::from(width(ip) - self.prefix_len);
        let mask = u128::MAX.checked_shl(host_len).unwrap_or_default();
        bits(ip) & mask
    }
}

const fn width(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

const fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits() as u128,
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// One to [`SourceNetworks::LEN_MAX`] networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceNetworks(Box<[SourceNetwork]>);

impl SourceNetworks {
    /// Carriers list their media gateways in one to four networks; each is compared with the
    /// source of every packet.
    pub const LEN_MAX: usize = 8;

    /// `None` when there is none or there are too many.
    #[must_use]
    pub fn new(networks: &[SourceNetwork]) -> Option<Self> {
        (1..=Self::LEN_MAX)
            .contains(&networks.len())
            .then(|| Self(networks.into()))
    }

    /// The networks in the order they were given.
    #[must_use]
    pub fn as_slice(&self) -> &[SourceNetwork] {
        &self.0
    }

    /// Whether `ip` lies in one of them.
    #[inline]
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(ip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn network_contains_by_table() {
        let rows = [
            ("192.0.2.0", 28, "192.0.2.15", true),
            ("192.0.2.0", 28, "192.0.2.16", false),
            ("192.0.2.7", 32, "192.0.2.7", true),
            ("192.0.2.7", 32, "192.0.2.6", false),
            ("0.0.0.0", 0, "203.0.113.9", true),
            ("0.0.0.0", 0, "2001:db8::1", false),
            ("192.0.2.0", 28, "::ffff:192.0.2.3", true),
            ("2001:db8::", 64, "2001:db8::ffff:1", true),
            ("2001:db8::", 64, "2001:db8:0:1::1", false),
            ("::", 0, "2001:db8::1", true),
            ("::", 0, "192.0.2.1", false),
            ("2001:db8::1", 128, "2001:db8::1", true),
        ];
        for (address, prefix_len, source, expected) in rows {
            let network = SourceNetwork::new(ip(address), prefix_len).expect("sound");
            assert_eq!(
                network.contains(ip(source)),
                expected,
                "{source} in {address}/{prefix_len}"
            );
        }
    }

    #[test]
    fn network_that_is_none_is_refused() {
        for (address, prefix_len) in [
            ("192.0.2.0", 33),
            ("192.0.2.1", 31),
            ("2001:db8::", 129),
            ("2001:db8::1", 64),
            ("::ffff:192.0.2.0", 120),
        ] {
            assert_eq!(
                SourceNetwork::new(ip(address), prefix_len),
                None,
                "{address}"
            );
        }
    }

    #[test]
    fn list_holds_one_to_eight() {
        let network = SourceNetwork::new(ip("192.0.2.0"), 24).expect("sound");
        assert_eq!(SourceNetworks::new(&[]), None);
        assert_eq!(SourceNetworks::new(&[network; 9]), None);
        let full = SourceNetworks::new(&[network; 8]).expect("eight");
        assert_eq!(full.as_slice().len(), 8);
    }
}
