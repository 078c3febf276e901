//! How far an address reaches.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How far an address reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    Host,
    Link,
    /// RFC 1918, RFC 6598 (carrier-grade NAT), RFC 4193.
    Site,
    Global,
}

pub(super) fn scope(ip: IpAddr) -> Scope {
    match ip.to_canonical() {
        IpAddr::V4(v4) => scope_v4(v4),
        IpAddr::V6(v6) => scope_v6(v6),
    }
}

fn scope_v4(ip: Ipv4Addr) -> Scope {
    let [a, b, ..] = ip.octets();
    if ip.is_loopback() {
        Scope::Host
    } else if ip.is_link_local() {
        Scope::Link
    } else if ip.is_private() || (a == 100 && b & 0xc0 == 64) {
        Scope::Site
    } else {
        Scope::Global
    }
}

fn scope_v6(ip: Ipv6Addr) -> Scope {
    if ip.is_loopback() {
        Scope::Host
    } else if ip.is_unicast_link_local() {
        Scope::Link
    } else if ip.is_unique_local() {
        Scope::Site
    } else {
        Scope::Global
    }
}
