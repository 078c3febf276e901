//! Where a message came from and where one must go.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sipx_sip::{Host, Reliability, Uri, UriTransport};

/// A transport SIP runs on here. TLS and WebSocket join when their drivers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransportKind {
    /// One message per datagram; lost ones are repeated by the transactions.
    Udp,
    /// A stream of messages on a connection.
    Tcp,
}

impl TransportKind {
    /// The token in a `Via` (RFC 3261 §20.42).
    #[must_use]
    pub const fn via_token(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        }
    }

    /// Which column of the timer table of RFC 3261 §17 applies.
    #[must_use]
    pub const fn reliability(self) -> Reliability {
        match self {
            Self::Udp => Reliability::Unreliable,
            Self::Tcp => Reliability::Reliable,
        }
    }
}

/// A live stream connection, numbered by the transport; a number is never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// The path of a message: our end, the far end and, on a stream transport, the connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Flow {
    /// The transport.
    pub kind: TransportKind,
    /// Our end, as the peer can reach it: it is written into `Via` and `Contact`, so it is never
    /// an unspecified address, and its port is one that we listen on.
    pub local: SocketAddr,
    /// The far end: the source of a received message, the destination of one to send.
    pub remote: SocketAddr,
    /// The connection a received message came in on. On a message to send it is a preference:
    /// when that connection no longer lives, or when it is `None`, the transport reuses or opens
    /// one to `remote`. Always `None` on UDP.
    pub connection: Option<ConnectionId>,
}

impl Flow {
    /// A UDP flow.
    #[must_use]
    pub const fn udp(local: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            kind: TransportKind::Udp,
            local,
            remote,
            connection: None,
        }
    }

    /// A TCP flow; without `connection` the transport opens or reuses one to `remote`.
    #[must_use]
    pub const fn tcp(
        local: SocketAddr,
        remote: SocketAddr,
        connection: Option<ConnectionId>,
    ) -> Self {
        Self {
            kind: TransportKind::Tcp,
            local,
            remote,
            connection,
        }
    }

    /// The flow to the next hop `uri` (a `Route`, a remote target) for a dialog that lives on
    /// `self`.
    ///
    /// A numeric host is taken as it stands: the URI says address, port and transport. Some kinds
    /// of next hop keep the flow instead, because its far end *is* that hop:
    /// - a host name: the adjacent proxy wrote itself into `Record-Route`, or the peer into
    ///   `Contact`, and we already talk to it (names are not resolved here);
    /// - an address of narrower scope than the one the peer is seen at, say a `Contact` of
    ///   192.168.1.20 from a phone whose packets come from a public address: it is behind a NAT,
    ///   and only the flow leads back in;
    /// - an address that our end of the flow cannot send to: the other address family, or one off
    ///   this host from a loopback address, as with a softphone on the machine it calls;
    /// - on TCP, a hop that is reached by TCP: the connection is reused (RFC 3261 §18), and the
    ///   URI's address is kept for the case that it has closed.
    #[must_use]
    pub fn towards(&self, uri: &Uri) -> Flow {
        let Some(Host::Ip(ip)) = uri.host() else {
            return self.clone();
        };
        if scope(*ip) < scope(self.remote.ip()) || ip.is_unspecified() || ip.is_multicast() {
            return self.clone();
        }
        let kind = match uri.selected_transport() {
            // No `transport` parameter and the address of the peer: it means "as we are talking".
            Ok(UriTransport::Udp) if uri.transport().is_none() && *ip == self.remote.ip() => {
                self.kind
            }
            Ok(UriTransport::Udp) => TransportKind::Udp,
            Ok(UriTransport::Tcp) => TransportKind::Tcp,
            // A transport that is not spoken here: the flow at least is known to work.
            _ => return self.clone(),
        };
        let leaves_the_host = self.local.ip().is_loopback() && !ip.is_loopback();
        if ip.is_ipv4() != self.local.is_ipv4() || leaves_the_host {
            return self.clone();
        }
        Flow {
            kind,
            local: self.local,
            remote: SocketAddr::new(*ip, uri.port().unwrap_or(5060)),
            connection: if kind == self.kind {
                self.connection
            } else {
                None
            },
        }
    }
}

/// How far an address reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    Host,
    Link,
    /// RFC 1918, RFC 6598 (carrier-grade NAT), RFC 4193.
    Site,
    Global,
}

fn scope(ip: IpAddr) -> Scope {
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn flow(remote: &str) -> Flow {
        Flow::udp(
            "203.0.113.1:5060".parse().expect("valid"),
            remote.parse().expect("valid"),
        )
    }

    fn remote_after(flow: &Flow, uri: &'static str) -> String {
        let uri = Uri::parse(Bytes::from_static(uri.as_bytes())).expect("valid");
        flow.towards(&uri).remote.to_string()
    }

    #[test]
    fn numeric_hop_is_taken_as_written_and_a_name_keeps_the_flow() {
        let from_proxy = flow("198.51.100.9:5070");
        for (uri, remote) in [
            ("sip:198.51.100.7:5080;lr", "198.51.100.7:5080"),
            ("sip:198.51.100.7", "198.51.100.7:5060"),
            ("sip:bob@pbx.example.com", "198.51.100.9:5070"),
            // Behind NAT: a private contact seen from a public address.
            ("sip:bob@192.168.1.20:5062", "198.51.100.9:5070"),
            ("sip:bob@100.64.3.4", "198.51.100.9:5070"),
            ("sip:bob@0.0.0.0", "198.51.100.9:5070"),
            ("sip:bob@[2001:db8::1]", "198.51.100.9:5070"),
        ] {
            assert_eq!(remote_after(&from_proxy, uri), remote, "{uri}");
        }
    }

    #[test]
    fn softphone_on_our_own_host_is_reached_where_it_is_seen() {
        let local = Flow::udp(
            "127.0.0.1:5060".parse().expect("valid"),
            "127.0.0.1:40000".parse().expect("valid"),
        );
        assert_eq!(
            remote_after(&local, "sip:bob@192.168.1.20:5062"),
            "127.0.0.1:40000"
        );
        assert_eq!(
            remote_after(&local, "sip:bob@127.0.0.1:5062"),
            "127.0.0.1:5062"
        );
    }

    #[test]
    fn private_contact_inside_a_private_network_is_reached_directly() {
        assert_eq!(
            remote_after(&flow("10.0.0.1:5060"), "sip:bob@10.0.0.5:5062"),
            "10.0.0.5:5062"
        );
    }

    #[test]
    fn tcp_hop_reuses_the_connection_and_a_udp_hop_leaves_it() {
        let on_tcp = Flow {
            kind: TransportKind::Tcp,
            connection: Some(ConnectionId(4)),
            ..flow("198.51.100.9:41000")
        };
        let tcp = Uri::parse(Bytes::from_static(
            b"sip:198.51.100.9:5060;transport=TCP;lr",
        ));
        let next = on_tcp.towards(&tcp.expect("valid"));
        assert_eq!(next.connection, Some(ConnectionId(4)));
        assert_eq!(next.remote.port(), 5060);
        let udp = Uri::parse(Bytes::from_static(b"sip:198.51.100.9;transport=udp;lr"));
        let next = on_tcp.towards(&udp.expect("valid"));
        assert_eq!((next.kind, next.connection), (TransportKind::Udp, None));
    }
}
