//! `[sip]`'s sockets, and the sections inside it: limits, TLS, WebSockets, DNS.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use bytes::Bytes;
use sipx_sip::Host;
use trunkline_edge_api::config::{KeyDefault, KeySpec, Section, SectionSpec, Value};
use trunkline_sip::TransportKind;

use crate::transport::TransportLimits;

/// Listening sockets of one node. Each costs a receive loop on the call thread.
const LISTEN_COUNT_MAX: usize = 16;

/// Certificates of one node, each for other names.
const CERTIFICATES_MAX: usize = 16;

/// Origins that are told one by one.
const ORIGINS_MAX: usize = 64;

/// `[sip] listen`.
pub(super) const LISTEN: KeySpec = KeySpec {
    name: "listen",
    form: "a list of 1 to 16 different \"TRANSPORT:ADDRESS:PORT\" or tables { on = that, advertise \
           = \"HOST\" or \"HOST:PORT\" }; TRANSPORT is udp, tcp, tls, ws or wss, ADDRESS one of \
           this machine that others can reach it by, e.g. [\"udp:192.0.2.10:5060\", { on = \
           \"tls:10.0.0.5:5061\", advertise = \"sip.example.com\" }]",
    default: KeyDefault::Literal("[\"udp:127.0.0.1:5060\", \"tcp:127.0.0.1:5060\"]"),
    effect: "Sockets for SIP. Via and Contact name advertise, where a 1:1 NAT gives peers another \
             address or a certificate is for a name; else the address itself.",
};

/// `[sip.limits]`.
pub static SIP_LIMITS: SectionSpec = SectionSpec {
    name: "sip.limits",
    effect: "What SIP peers can make control hold, and for how long.",
    keys: &[
        KeySpec {
            name: "message_len_max",
            form: "bytes, from 1024 to 65535",
            default: KeyDefault::Literal("65535"),
            effect: "Longest message. A longer one gets 513.",
        },
        KeySpec {
            name: "header_len_max",
            form: "bytes, from 1024 to 65535",
            default: KeyDefault::Literal("32768"),
            effect: "Longest start line and header section on a connection.",
        },
        KeySpec {
            name: "connections_max",
            form: "a number from 1 to 200000",
            default: KeyDefault::Literal("20000"),
            effect: "TCP, TLS and WebSocket connections together. Each needs a file descriptor.",
        },
        KeySpec {
            name: "connections_per_source_max",
            form: "a number from 1 to 200000",
            default: KeyDefault::Literal("64"),
            effect: "Of these, accepted from one IPv4 address or IPv6 /64.",
        },
        KeySpec {
            name: "handshakes_max",
            form: "a number from 1 to 10000",
            default: KeyDefault::Literal("512"),
            effect: "Accepted connections whose TLS or WebSocket handshake is not complete.",
        },
        KeySpec {
            name: "handshake_timeout_secs",
            form: "seconds, from 1 to 60",
            default: KeyDefault::Literal("5"),
            effect: "Time for the TLS and WebSocket handshakes of a connection.",
        },
        KeySpec {
            name: "connect_timeout_secs",
            form: "seconds, from 1 to 60",
            default: KeyDefault::Literal("5"),
            effect: "Time to open a connection.",
        },
        KeySpec {
            name: "partial_message_timeout_secs",
            form: "seconds, from 1 to 60",
            default: KeyDefault::Literal("10"),
            effect: "A message that has begun must be complete after this, however its bytes \
                     trickle; so must the first one on a connection that a peer opened.",
        },
        KeySpec {
            name: "idle_timeout_secs",
            form: "seconds, from 30 to 86400",
            default: KeyDefault::Literal("3900"),
            effect: "A connection on which nothing moved for so long is closed.",
        },
        KeySpec {
            name: "write_queue_bytes_max",
            form: "bytes, from 65536 to 16777216",
            default: KeyDefault::Literal("262144"),
            effect: "What may wait for one connection. A peer that leaves more unread is cut.",
        },
        KeySpec {
            name: "write_stall_timeout_secs",
            form: "seconds, from 1 to 30",
            default: KeyDefault::Literal("10"),
            effect: "A peer that takes nothing of what waits for so long is cut.",
        },
        KeySpec {
            name: "udp_backlog_len_max",
            form: "a number from 1 to 100000",
            default: KeyDefault::Literal("1024"),
            effect: "Datagrams per socket that wait for the kernel.",
        },
    ],
};

/// `[sip.tls]`.
pub static SIP_TLS: SectionSpec = SectionSpec {
    name: "sip.tls",
    effect: "Certificates of tls and wss sockets and of the connections opened from them. Files \
             are read again on SIGHUP and by `trunkline-control reload`.",
    keys: &[
        KeySpec {
            name: "certificate_file",
            form: "an absolute path or a list of 1 to 16, or \"\" for none",
            default: KeyDefault::Literal("\"\""),
            effect: "PEM with the certificate and what it is signed by. Of several, a peer gets \
                     the one for the name it asks for, else the first.",
        },
        KeySpec {
            name: "key_file",
            form: "an absolute path or a list of as many as certificate_file has, or \"\" for none",
            default: KeyDefault::Literal("\"\""),
            effect: "PEM with the private key of each certificate, in the same order.",
        },
        KeySpec {
            name: "ca_file",
            form: "an absolute path",
            default: KeyDefault::Literal("\"/etc/ssl/certs/ca-certificates.crt\""),
            effect: "PEM with the authorities that servers' certificates must be signed by when \
                     control connects to them.",
        },
        KeySpec {
            name: "client_ca_file",
            form: "an absolute path, or \"\" for none",
            default: KeyDefault::Literal("\"\""),
            effect: "PEM with the authorities of certificates that clients show.",
        },
        KeySpec {
            name: "verify_clients",
            form: "\"off\", \"optional\" or \"required\"",
            default: KeyDefault::Literal("\"off\""),
            effect: "Whether clients of tls sockets must show a certificate signed by \
                     client_ca_file. Browsers on wss sockets are never asked.",
        },
    ],
};

/// `[sip.websocket]`.
pub static SIP_WEBSOCKET: SectionSpec = SectionSpec {
    name: "sip.websocket",
    effect: "ws and wss sockets.",
    keys: &[
        KeySpec {
            name: "origins",
            form: "a list of up to 64 different origins such as \"https://phone.example.com\"; [] \
                   for any",
            default: KeyDefault::Literal("[]"),
            effect: "Pages that browsers may connect from. Another gets 403, and so does a client \
                     that names none when there is a list.",
        },
        KeySpec {
            name: "ping_interval_secs",
            form: "seconds, from 5 to 600, or 0 for never",
            default: KeyDefault::Literal("30"),
            effect: "Silence after which a browser is pinged. One that answers nothing for three \
                     times as long is gone.",
        },
    ],
};

/// `[sip.dns]`.
pub static SIP_DNS: SectionSpec = SectionSpec {
    name: "sip.dns",
    effect: "Looking up host names of SIP peers (RFC 3263).",
    keys: &[
        KeySpec {
            name: "servers",
            form: "a list of up to 8 different \"ADDRESS:PORT\"; [] for those of /etc/resolv.conf",
            default: KeyDefault::Literal("[]"),
            effect: "DNS servers, asked over UDP, and over TCP where an answer is too long.",
        },
        KeySpec {
            name: "timeout_ms",
            form: "milliseconds, from 100 to 10000",
            default: KeyDefault::Literal("2000"),
            effect: "How long one server may take to answer.",
        },
        KeySpec {
            name: "attempts",
            form: "a number from 1 to 5",
            default: KeyDefault::Literal("2"),
            effect: "How often a question is asked that is not answered.",
        },
    ],
};

/// One listening SIP socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SipListen {
    /// What is spoken on it.
    pub transport: TransportKind,
    /// Local address; not unspecified. Port 0 lets the kernel choose, which only tests want.
    pub address: SocketAddr,
    /// What `Via` and `Contact` name in place of it.
    pub advertise: Option<Advertised>,
}

/// A host and port that peers are told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Advertised {
    /// A name or an address, an IPv6 one in brackets.
    pub host: String,
    /// `None` for that of the socket.
    pub port: Option<u16>,
}

impl fmt::Display for SipListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.transport.name(), self.address)
    }
}

/// `[sip.tls]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chains with their keys. At least one where a tls or wss socket listens.
    pub pairs: Vec<KeyPairFiles>,
    /// Authorities of servers that control connects to.
    pub ca_file: PathBuf,
    /// Authorities of clients; there where `verify_clients` is not `Off`.
    pub client_ca_file: Option<PathBuf>,
    /// Whether clients must show a certificate.
    pub verify_clients: VerifyClients,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPairFiles {
    /// PEM with the chain, the certificate first.
    pub certificate_file: PathBuf,
    /// PEM with the key.
    pub key_file: PathBuf,
}

/// Whether clients must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyClients {
    /// They are not asked.
    Off,
    /// One that is shown must be good.
    Optional,
    /// One must be shown.
    Required,
}

/// `[sip.websocket]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSocketConfig {
    /// Pages that may connect, in lower case; empty for any.
    pub origins: Vec<String>,
    /// Seconds of silence before a ping; 0 for none.
    pub ping_interval_secs: u64,
}

/// `[sip.dns]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsConfig {
    /// Servers; empty for those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// Time for one answer, milliseconds.
    pub timeout_ms: u32,
    /// Questions before giving up.
    pub attempts: u8,
}

pub(super) fn listen_list(section: &Section<'_>) -> Option<Vec<SipListen>> {
    let mut seen = std::collections::HashSet::new();
    section.list("listen", 1..=LISTEN_COUNT_MAX, |value| {
        let listen = listen(value).ok_or_else(|| format!("expected {}", LISTEN_ITEM_FORM))?;
        // Port 0 may repeat: the kernel gives each its own.
        let place = (listen.transport == TransportKind::Udp, listen.address);
        if listen.address.port() != 0 && !seen.insert(place) {
            return Err("expected another address or port than the ones before".to_owned());
        }
        Ok(listen)
    })
}

const LISTEN_ITEM_FORM: &str = "\"TRANSPORT:ADDRESS:PORT\" with udp, tcp, tls, ws or wss and an \
                                address of this machine that others can reach it by, or a table \
                                { on = that, advertise = \"HOST\" or \"HOST:PORT\" }";

fn listen(value: Value<'_>) -> Option<SipListen> {
    let Some(table) = value.as_table() else {
        return socket(value.as_str()?);
    };
    if table.keys().any(|key| !["on", "advertise"].contains(&key)) {
        return None;
    }
    let mut listen = socket(table.get("on")?.as_str()?)?;
    if let Some(advertise) = table.get("advertise") {
        listen.advertise = Some(advertised(advertise.as_str()?)?);
    }
    Some(listen)
}

/// An unspecified address would end up in Via, Contact and SDP, where no peer can use it.
fn socket(text: &str) -> Option<SipListen> {
    let (transport, address) = text.split_once(':')?;
    let transport = TransportKind::ALL
        .into_iter()
        .find(|kind| kind.name() == transport)?;
    let address: SocketAddr = address.parse().ok()?;
    let ip = address.ip();
    let usable = !ip.is_unspecified() && !ip.is_multicast() && ip.to_canonical() == ip;
    usable.then_some(SipListen {
        transport,
        address,
        advertise: None,
    })
}

fn advertised(text: &str) -> Option<Advertised> {
    let (host, port) = Host::parse_hostport(&Bytes::copy_from_slice(text.as_bytes())).ok()?;
    if let Host::Ip(ip) = host
        && (ip.is_unspecified() || ip.is_multicast())
    {
        return None;
    }
    (port != Some(0)).then(|| Advertised {
        host: host.to_string(),
        port,
    })
}

pub(super) fn limits(section: &Section<'_>) -> Option<TransportLimits> {
    let size = |name, range: std::ops::RangeInclusive<usize>| {
        section.value(name, |v| v.as_number(range.clone()))
    };
    let secs = |name, range: std::ops::RangeInclusive<u64>| {
        section.value(name, |v| v.as_number(range.clone()))
    };
    let message_len_max = size("message_len_max", 1_024..=65_535);
    let header_len_max = size("header_len_max", 1_024..=65_535);
    let connections_max = size("connections_max", 1..=200_000);
    let connections_per_source_max = size("connections_per_source_max", 1..=200_000);
    let handshakes_max = size("handshakes_max", 1..=10_000);
    let handshake_timeout_secs = secs("handshake_timeout_secs", 1..=60);
    let connect_timeout_secs = secs("connect_timeout_secs", 1..=60);
    let partial_message_timeout_secs = secs("partial_message_timeout_secs", 1..=60);
    let idle_timeout_secs = secs("idle_timeout_secs", 30..=86_400);
    let write_queue_bytes_max = size("write_queue_bytes_max", 65_536..=16_777_216);
    let write_stall_timeout_secs = secs("write_stall_timeout_secs", 1..=30);
    let udp_backlog_len_max = size("udp_backlog_len_max", 1..=100_000);
    Some(TransportLimits {
        message_len_max: message_len_max?,
        header_len_max: header_len_max?,
        udp_backlog_len_max: udp_backlog_len_max?,
        connections_max: connections_max?,
        connections_per_source_max: connections_per_source_max?,
        handshakes_max: handshakes_max?,
        handshake_timeout_secs: handshake_timeout_secs?,
        write_queue_bytes_max: write_queue_bytes_max?,
        idle_timeout_secs: idle_timeout_secs?,
        partial_message_timeout_secs: partial_message_timeout_secs?,
        write_stall_timeout_secs: write_stall_timeout_secs?,
        connect_timeout_secs: connect_timeout_secs?,
    })
}

/// `needs_keys`: a tls or wss socket listens.
pub(super) fn tls(section: &Section<'_>, needs_keys: bool) -> Option<TlsFiles> {
    let certificates = section.value("certificate_file", paths);
    let keys = section.value("key_file", paths);
    let ca_file = section.value("ca_file", |v| v.as_absolute_path());
    let client_ca_file = section.value("client_ca_file", |v| match v.as_str()? {
        "" => Some(None),
        _ => v.as_absolute_path().map(Some),
    });
    let verify_clients = section.value("verify_clients", |v| match v.as_str()? {
        "off" => Some(VerifyClients::Off),
        "optional" => Some(VerifyClients::Optional),
        "required" => Some(VerifyClients::Required),
        _ => None,
    });
    let (certificates, keys) = (certificates?, keys?);
    let (client_ca_file, verify_clients) = (client_ca_file?, verify_clients?);
    if certificates.len() != keys.len() {
        section.reject("key_file", "expected one key for each certificate_file");
        return None;
    }
    if needs_keys && certificates.is_empty() {
        let problem = "expected a file: [sip] listen has a tls or wss socket";
        section.reject("certificate_file", problem);
        return None;
    }
    if verify_clients != VerifyClients::Off && client_ca_file.is_none() {
        let problem = "expected a file: verify_clients needs to know who signs them";
        section.reject("client_ca_file", problem);
        return None;
    }
    let pairs = certificates.into_iter().zip(keys);
    Some(TlsFiles {
        pairs: pairs
            .map(|(certificate_file, key_file)| KeyPairFiles {
                certificate_file,
                key_file,
            })
            .collect(),
        ca_file: ca_file?,
        client_ca_file,
        verify_clients,
    })
}

/// One path, several, or none for `""`.
fn paths(value: Value<'_>) -> Option<Vec<PathBuf>> {
    match value.as_str() {
        Some("") => Some(Vec::new()),
        Some(_) => value.as_absolute_path().map(|path| vec![path]),
        None => {
            let paths: Vec<_> = value
                .as_list()?
                .map(Value::as_absolute_path)
                .collect::<Option<_>>()?;
            (1..=CERTIFICATES_MAX)
                .contains(&paths.len())
                .then_some(paths)
        }
    }
}

pub(super) fn websocket(section: &Section<'_>) -> Option<WebSocketConfig> {
    let origins = section.value("origins", |v| {
        let origin = |value: Value<'_>| {
            let text = value.as_str()?.to_ascii_lowercase();
            let host = text
                .strip_prefix("https://")
                .or_else(|| text.strip_prefix("http://"))?;
            let is_host = !host.is_empty() && !host.contains(['/', ' ', '?', '#']);
            is_host.then_some(text)
        };
        let origins: Vec<String> = v.as_list()?.map(origin).collect::<Option<_>>()?;
        (origins.len() <= ORIGINS_MAX && are_distinct(&origins)).then_some(origins)
    });
    let ping_interval_secs = section.value("ping_interval_secs", |v| {
        v.as_number(5..=600).or_else(|| v.as_number(0..=0))
    });
    Some(WebSocketConfig {
        origins: origins?,
        ping_interval_secs: ping_interval_secs?,
    })
}

pub(super) fn dns(section: &Section<'_>) -> Option<DnsConfig> {
    let servers = section.value("servers", |v| {
        let server = |value: Value<'_>| value.as_str()?.parse().ok();
        let servers: Vec<SocketAddr> = v.as_list()?.map(server).collect::<Option<_>>()?;
        (servers.len() <= 8 && are_distinct(&servers)).then_some(servers)
    });
    let timeout_ms = section.value("timeout_ms", |v| v.as_number(100..=10_000));
    let attempts = section.value("attempts", |v| v.as_number(1..=5));
    Some(DnsConfig {
        servers: servers?,
        timeout_ms: timeout_ms?,
        attempts: attempts?,
    })
}

fn are_distinct<T: PartialEq>(items: &[T]) -> bool {
    let before = |index: usize| &items[..index];
    items
        .iter()
        .enumerate()
        .all(|(index, item)| !before(index).contains(item))
}
