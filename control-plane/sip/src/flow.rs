//! Where a message came from and where one must go.

mod local;
mod scope;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use sipx_sip::{Host, Reliability, Uri, UriTransport};

pub use local::{LocalEnd, LocalEnds};
use scope::scope;

/// A transport SIP runs on here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransportKind {
    /// One message per datagram; lost ones are repeated by the transactions.
    Udp,
    /// A stream of messages on a connection.
    Tcp,
    /// The same inside TLS.
    Tls,
    /// One message per WebSocket message (RFC 7118). The peer is a browser: it opens connections
    /// and cannot be reached by any other.
    Ws,
    /// The same inside TLS.
    Wss,
}

impl TransportKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Udp, Self::Tcp, Self::Tls, Self::Ws, Self::Wss];

    /// The token in a `Via` (RFC 3261 §20.42, RFC 7118 §5.2.1).
    #[must_use]
    pub const fn via_token(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Ws => "WS",
            Self::Wss => "WSS",
        }
    }

    /// How a listening address is written in the configuration and in `status`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// Value of the `transport` parameter of our `Contact`; `None` where it is left out. RFC 7118
    /// §5.2.3 has one value for WS and WSS.
    #[must_use]
    pub const fn uri_parameter(self) -> Option<&'static str> {
        match self {
            Self::Udp => None,
            Self::Tcp => Some("tcp"),
            Self::Tls => Some("tls"),
            Self::Ws | Self::Wss => Some("ws"),
        }
    }

    /// Port where none is named (RFC 3261 §19.1.2, RFC 7118 §5.2).
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 5060,
            Self::Tls => 5061,
            Self::Ws => 80,
            Self::Wss => 443,
        }
    }

    /// Whether messages travel on connections.
    #[must_use]
    pub const fn is_stream(self) -> bool {
        !matches!(self, Self::Udp)
    }

    /// Whether messages are encrypted on the way.
    #[must_use]
    pub const fn is_secure(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }

    /// Whether only the peer can open a connection.
    #[must_use]
    pub const fn is_web(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }

    /// Which column of the timer table of RFC 3261 §17 applies.
    #[must_use]
    pub const fn reliability(self) -> Reliability {
        if self.is_stream() {
            Reliability::Reliable
        } else {
            Reliability::Unreliable
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
    /// Our end: the address of a socket of ours, never an unspecified one. What `Via` and
    /// `Contact` say is [`Self::sent_by`].
    pub local: SocketAddr,
    /// The far end: the source of a received message, the destination of one to send.
    pub remote: SocketAddr,
    /// The connection a received message came in on. On a message to send it is a preference:
    /// when that connection no longer lives, or when it is `None`, the transport reuses or opens
    /// one to `remote`. Always `None` on UDP.
    pub connection: Option<ConnectionId>,
    /// TLS: the domain that the certificate of the far end must name when a connection to it is
    /// opened (RFC 5922 §7.2); the numeric address of `remote` where it is `None`.
    pub domain: Option<Arc<str>>,
    /// All sockets of ours, for a next hop that takes another transport.
    pub ends: Option<Arc<LocalEnds>>,
}

impl Flow {
    /// A UDP flow.
    #[must_use]
    pub const fn udp(local: SocketAddr, remote: SocketAddr) -> Self {
        Self::new(TransportKind::Udp, local, remote, None)
    }

    /// A TCP flow; without `connection` the transport opens or reuses one to `remote`.
    #[must_use]
    pub const fn tcp(
        local: SocketAddr,
        remote: SocketAddr,
        connection: Option<ConnectionId>,
    ) -> Self {
        Self::new(TransportKind::Tcp, local, remote, connection)
    }

    /// A flow of any kind that knows no other sockets of ours.
    #[must_use]
    pub const fn new(
        kind: TransportKind,
        local: SocketAddr,
        remote: SocketAddr,
        connection: Option<ConnectionId>,
    ) -> Self {
        Self {
            kind,
            local,
            remote,
            connection,
            domain: None,
            ends: None,
        }
    }

    /// Our end as peers are told of it, `host:port`: what the configuration advertises for the
    /// socket, else its address.
    #[must_use]
    pub fn sent_by(&self) -> String {
        let ends = self.ends.as_ref();
        match ends.and_then(|ends| ends.advertised(self.kind, self.local)) {
            Some(advertised) => advertised.to_owned(),
            None => self.local.to_string(),
        }
    }

    /// The host of [`Self::sent_by`], an IPv6 address without brackets: what our addresses of
    /// record name on this flow.
    #[must_use]
    pub fn local_host(&self) -> String {
        let sent_by = self.sent_by();
        match Host::parse_hostport(&sent_by.into_bytes().into()) {
            Ok((Host::Ip(ip), _)) => ip.to_string(),
            Ok((Host::Name(name), _)) => String::from_utf8_lossy(name.as_bytes()).into_owned(),
            Err(_) => self.local.ip().to_string(),
        }
    }

    /// The flow to the next hop `uri` (a `Route`, a remote target) for a dialog that lives on
    /// `self`.
    ///
    /// A numeric host is taken as it stands: the URI says address, port and transport. Some kinds
    /// of next hop keep the flow instead, because its far end *is* that hop:
    /// - a host name: the adjacent proxy wrote itself into `Record-Route`, or the peer into
    ///   `Contact`, and we already talk to it (names are not resolved here);
    /// - anything behind a WebSocket: nobody can connect to a browser (RFC 7118 §5);
    /// - an address of narrower scope than the one the peer is seen at, say a `Contact` of
    ///   192.168.1.20 from a phone whose packets come from a public address: it is behind a NAT,
    ///   and only the flow leads back in;
    /// - an address that no socket of ours can send to: the other address family, one off this
    ///   host from a loopback address, as with a softphone on the machine it calls, or a transport
    ///   that we do not listen on;
    /// - on TCP and TLS, a hop that is reached by the same: the connection is reused
    ///   (RFC 3261 §18), and the URI's address is kept for the case that it has closed.
    #[must_use]
    pub fn towards(&self, uri: &Uri) -> Flow {
        let Some(Host::Ip(ip)) = uri.host() else {
            return self.clone();
        };
        let is_inside = scope(*ip) < scope(self.remote.ip());
        if self.kind.is_web() || is_inside || ip.is_unspecified() || ip.is_multicast() {
            return self.clone();
        }
        let kind = match uri.selected_transport() {
            // No `transport` parameter and the address of the peer: it means "as we are talking".
            Ok(UriTransport::Udp) if uri.transport().is_none() && *ip == self.remote.ip() => {
                self.kind
            }
            Ok(UriTransport::Udp) => TransportKind::Udp,
            Ok(UriTransport::Tcp) => TransportKind::Tcp,
            Ok(UriTransport::Tls) => TransportKind::Tls,
            // A transport that is not spoken here: the flow at least is known to work.
            _ => return self.clone(),
        };
        let leaves_the_host = self.local.ip().is_loopback() && !ip.is_loopback();
        if ip.is_ipv4() != self.local.is_ipv4() || leaves_the_host {
            return self.clone();
        }
        let is_same_kind = kind == self.kind;
        let local = match &self.ends {
            Some(ends) if !is_same_kind => ends.facing(kind, *ip, Some(self.local.ip())),
            _ => Some(self.local),
        };
        let Some(local) = local else {
            return self.clone();
        };
        let is_same_peer = is_same_kind && *ip == self.remote.ip();
        Flow {
            kind,
            local,
            remote: SocketAddr::new(*ip, uri.port().unwrap_or(kind.default_port())),
            connection: self.connection.filter(|_| is_same_kind),
            domain: self.domain.clone().filter(|_| is_same_peer),
            ends: self.ends.clone(),
        }
    }
}
