//! What control reads of `trunkline.toml`: every section.
//!
//! `[node]` and `[edge]` are described in [`trunkline_edge_api::config`], beside the reader that
//! serves both daemons.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use trunkline_edge_api::config::{
    ConfigError, Document, EDGE, EdgeConfig, KeyDefault, KeySpec, NODE, NodeConfig, Reader,
    Section, SectionSpec, Value, load_document, parse_document, reference,
};
use trunkline_edge_api::{AudioCodec, MediaTimeouts};
use trunkline_sip::digest::Algorithm;
use trunkline_sip::registrar::RegistrarConfig;

use crate::switch::MediaPolicy;
use crate::transport::TransportLimits;

mod registrar;
mod sip;
#[cfg(test)]
mod tests;
mod trace;

use registrar::REGISTRAR;
pub use sip::{
    Advertised, DnsConfig, KeyPairFiles, SIP_DNS, SIP_LIMITS, SIP_TLS, SIP_WEBSOCKET, SipListen,
    TlsFiles, VerifyClients, WebSocketConfig,
};
use trace::TRACE;
pub use trace::TraceConfig;

/// Name of the store's file in `state_dir` where `[store] path` does not say otherwise.
const STORE_FILE_NAME: &str = "trunkline.db";

/// Name of the CDR spool in `state_dir`.
const SPOOL_FILE_NAME: &str = "cdr.spool";

/// `[sip]`.
pub static SIP: SectionSpec = SectionSpec {
    name: "sip",
    effect: "SIP signalling.",
    keys: &[
        sip::LISTEN,
        KeySpec {
            name: "realm",
            form: "1 to 127 printable ASCII characters without '\"' and '\\'",
            default: KeyDefault::Literal("\"trunkline\""),
            effect: "Digest realm that phones are challenged with. Passwords are stored hashed with \
                     it: after a change, apply the site file again.",
        },
        KeySpec {
            name: "digest",
            form: "a list of \"MD5\", \"SHA-256\" and \"SHA-512-256\", each once, at least one",
            default: KeyDefault::Literal("[\"MD5\", \"SHA-256\"]"),
            effect: "Hashes that challenges offer, in this order. A phone takes the first it knows; \
                     some know MD5 only, or give up when it is not first.",
        },
        KeySpec {
            name: "ring_timeout_secs",
            form: "seconds, from 1 to 600",
            default: KeyDefault::Literal("30"),
            effect: "How long a member's phone rings before the caller gets 480.",
        },
        KeySpec {
            name: "calls_max",
            form: "a number from 1 to 100000",
            default: KeyDefault::Literal("5000"),
            effect: "Calls at one time. One more is answered with 503 and Retry-After.",
        },
        KeySpec {
            name: "transactions_max",
            form: "a number from 16 to 1000000",
            default: KeyDefault::Literal("100000"),
            effect: "SIP transactions at one time, four per call for 32 s after each. Past it, new requests \
                     outside a dialog get 503.",
        },
        KeySpec {
            name: "session_expires_secs",
            form: "0, or a number from 90 to 86400",
            default: KeyDefault::Literal("1800"),
            effect: "Seconds after which a call ends whose peer knows session timers (RFC 4028) and is gone. \
                     Half of it is the time between refreshes. 0: only where the peer asks.",
        },
        KeySpec {
            name: "session_expires_min_secs",
            form: "a number from 90 to 86400",
            default: KeyDefault::Literal("90"),
            effect: "Shortest such time a peer may ask for; a shorter one gets 422.",
        },
        KeySpec {
            name: "registrations_max",
            form: "a number from 1 to 1000000",
            default: KeyDefault::Literal("20000"),
            effect: "Registered phones at one time. One more is answered with 503.",
        },
    ],
};

/// `[media]`.
pub static MEDIA: SectionSpec = SectionSpec {
    name: "media",
    effect: "What is done with calls' media: how long it may be missed (0: for ever), what it may \
             be converted to, what is played and recorded.",
    keys: &[
        KeySpec {
            name: "never_started_secs",
            form: "seconds, from 0 to 86400",
            default: KeyDefault::Literal("60"),
            effect: "Ends a call of which one side never sent any media.",
        },
        KeySpec {
            name: "stopped_secs",
            form: "seconds, from 0 to 86400",
            default: KeyDefault::Literal("60"),
            effect: "Ends a call of which one side sends neither RTP nor RTCP any more.",
        },
        KeySpec {
            name: "held_secs",
            form: "seconds, from 0 to 86400",
            default: KeyDefault::Literal("3600"),
            effect: "Ends a call that is on hold or muted.",
        },
        KeySpec {
            name: "codecs",
            form: "a list of different codecs out of \"PCMU\", \"PCMA\", \"G722\", \"opus\" and \
                   \"L16\"",
            default: KeyDefault::Literal("[\"PCMU\", \"PCMA\", \"G722\", \"opus\"]"),
            effect: "What a side is offered beside the formats of the other one, in this order. The \
                     edge converts where an answer leaves no common codec.",
        },
        KeySpec {
            name: "prompts_dir",
            form: "an absolute path, or \"\" for prompts in [node] state_dir",
            default: KeyDefault::Literal("\"\""),
            effect: "Directory of the files that may be played. The edge must be able to read it. \
                     Control makes it if it is missing (0750).",
        },
        KeySpec {
            name: "recordings_dir",
            form: "an absolute path, or \"\" for recordings in [node] state_dir",
            default: KeyDefault::Literal("\"\""),
            effect: "Directory of recordings. The edge must be able to write there. Control makes it if \
                     it is missing (0770: the edge may be another user of its group).",
        },
        KeySpec {
            name: "hold_music",
            form: "a path relative to prompts_dir without \"..\", or \"\" for silence",
            default: KeyDefault::Literal("\"\""),
            effect: "What a side hears that the other one holds, where its tenant says nothing.",
        },
        KeySpec {
            name: "dtmf_values",
            form: "true or false",
            default: KeyDefault::Literal("false"),
            effect: "Whether the events of a call say which digit was pressed. A digit may be part of a \
                     secret; those of a side whose digits are hidden are never told.",
        },
    ],
};

/// `[http]`.
pub static HTTP: SectionSpec = SectionSpec {
    name: "http",
    effect: "Health and metrics over HTTP.",
    keys: &[KeySpec {
        name: "listen",
        form: "\"ADDRESS:PORT\" with a loopback address, e.g. \"127.0.0.1:8080\" or \"[::1]:8080\"; \
               this release serves HTTP to its own machine only",
        default: KeyDefault::Literal("\"127.0.0.1:8080\""),
        effect: "Where /healthz, /readyz and /metrics are served.",
    }],
};

/// `[store]`.
pub static STORE: SectionSpec = SectionSpec {
    name: "store",
    effect: "Where tenants, trunks, members, DIDs and call records are kept.",
    keys: &[KeySpec {
        name: "path",
        form: "an absolute path, or \"\" for trunkline.db in [node] state_dir",
        default: KeyDefault::Literal("\"\""),
        effect: "SQLite file. It is created when it does not exist; its directory must exist.",
    }],
};

/// All of `trunkline.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlConfig {
    /// `[node]`.
    pub node: NodeConfig,
    /// `[edge]`: control needs the media addresses and limits that it shares with the edge.
    pub edge: EdgeConfig,
    /// `[sip]`.
    pub sip: SipConfig,
    /// `[registrar]`.
    pub registrar: RegistrarConfig,
    /// `[media]`: how long media may be missed.
    pub media: MediaTimeouts,
    /// `[media]`: what it may be converted to, and where files are.
    pub media_policy: MediaPolicy,
    /// `[http]`.
    pub http: HttpConfig,
    /// `[store]`.
    pub store: StoreConfig,
    /// `[trace]`.
    pub trace: TraceConfig,
}

/// `[sip]`: SIP signalling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SipConfig {
    /// 1 … 16 sockets, none twice, none on an unspecified address.
    pub listen: Vec<SipListen>,
    /// Digest realm.
    pub realm: String,
    /// Hashes that challenges offer, in order; none twice, not empty.
    pub digest: Vec<Algorithm>,
    /// Seconds a phone rings, 1 … 600.
    pub ring_timeout_secs: u32,
    /// Calls at one time, 1 … 100,000.
    pub calls_max: u32,
    /// SIP transactions at one time, 16 … 1,000,000.
    pub transactions_max: u32,
    /// Seconds until a session ends that nobody refreshes: 0, or 90 … 86,400.
    pub session_expires_secs: u32,
    /// Shortest such interval that a peer may ask for, 90 … 86,400.
    pub session_expires_min_secs: u32,
    /// Registered phones at one time, 1 … 1,000,000.
    pub registrations_max: u32,
    /// What peers can make the transports hold.
    pub limits: TransportLimits,
    /// Certificates of tls and wss sockets.
    pub tls: TlsFiles,
    /// Who may connect to ws and wss sockets.
    pub websocket: WebSocketConfig,
    /// How host names are looked up.
    pub dns: DnsConfig,
}

/// `[http]`: health and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// A loopback address. Port 0 lets the kernel choose, which only tests want.
    pub listen: SocketAddr,
}

/// `[store]`: the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// The SQLite file; `None` for the one in `state_dir`. Use [`ControlConfig::store_path`].
    pub path: Option<PathBuf>,
}

impl ControlConfig {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// All problems of the file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        load_document(path)
    }

    /// The SQLite file.
    #[must_use]
    pub fn store_path(&self) -> PathBuf {
        match &self.store.path {
            Some(path) => path.clone(),
            None => self.node.state_dir.join(STORE_FILE_NAME),
        }
    }

    /// The file of the CDR spool.
    #[must_use]
    pub fn spool_path(&self) -> PathBuf {
        self.node.state_dir.join(SPOOL_FILE_NAME)
    }

    /// A commented file with every key at its default.
    #[must_use]
    pub fn reference() -> String {
        reference(Self::SECTIONS)
    }
}

impl Default for ControlConfig {
    fn default() -> Self {
        parse_document("", "defaults").expect("every default fits its own form")
    }
}

impl Document for ControlConfig {
    const SECTIONS: &'static [&'static SectionSpec] = &[
        &NODE,
        &EDGE,
        &SIP,
        &SIP_LIMITS,
        &SIP_TLS,
        &SIP_WEBSOCKET,
        &SIP_DNS,
        &REGISTRAR,
        &MEDIA,
        &HTTP,
        &STORE,
        &TRACE,
    ];

    fn read(reader: &Reader<'_>) -> Option<Self> {
        let node = NodeConfig::read(&reader.section(&NODE));
        let edge = EdgeConfig::read(&reader.section(&EDGE));
        let sip = SipConfig::read(reader);
        let registrations_max = sip.as_ref().map(|sip| sip.registrations_max);
        let registrar = registrar::read(&reader.section(&REGISTRAR), registrations_max);
        let media = media_timeouts(&reader.section(&MEDIA));
        let media_policy = media_policy(&reader.section(&MEDIA), node.as_ref());
        let http = reader.section(&HTTP).value("listen", loopback_address);
        let path = reader.section(&STORE).value("path", |v| match v.as_str()? {
            "" => Some(None),
            _ => v.as_absolute_path().map(Some),
        });
        let trace = trace::read(&reader.section(&TRACE));
        Some(Self {
            node: node?,
            edge: edge?,
            sip: sip?,
            registrar: registrar?,
            media: media?,
            media_policy: media_policy?,
            http: HttpConfig { listen: http? },
            store: StoreConfig { path: path? },
            trace: trace?,
        })
    }
}

impl SipConfig {
    fn read(reader: &Reader<'_>) -> Option<Self> {
        let section = &reader.section(&SIP);
        let listen = sip::listen_list(section);
        let realm = section.value("realm", |v| {
            v.as_str().filter(|s| is_realm(s)).map(str::to_owned)
        });
        let digest = section.value("digest", algorithms);
        let ring_timeout_secs = section.value("ring_timeout_secs", |v| v.as_number(1..=600));
        let calls_max = section.value("calls_max", |v| v.as_number(1..=100_000));
        let transactions_max = section.value("transactions_max", |v| v.as_number(16..=1_000_000));
        let session_expires_secs = section.value("session_expires_secs", |v| {
            match v.as_number(0..=86_400)? {
                secs @ (0 | 90..) => Some(secs),
                _ => None,
            }
        });
        let session_expires_min_secs =
            section.value("session_expires_min_secs", |v| v.as_number(90..=86_400));
        let registrations_max = section.value("registrations_max", |v| v.as_number(1..=1_000_000));
        let limits = sip::limits(&reader.section(&SIP_LIMITS));
        let sockets = listen.as_deref().unwrap_or_default();
        let needs_keys = sockets.iter().any(|listen| listen.transport.is_secure());
        let tls = sip::tls(&reader.section(&SIP_TLS), needs_keys);
        let websocket = sip::websocket(&reader.section(&SIP_WEBSOCKET));
        let dns = sip::dns(&reader.section(&SIP_DNS));
        Some(Self {
            listen: listen?,
            realm: realm?,
            digest: digest?,
            ring_timeout_secs: ring_timeout_secs?,
            calls_max: calls_max?,
            transactions_max: transactions_max?,
            session_expires_secs: session_expires_secs?,
            session_expires_min_secs: session_expires_min_secs?,
            registrations_max: registrations_max?,
            limits: limits?,
            tls: tls?,
            websocket: websocket?,
            dns: dns?,
        })
    }
}

fn media_timeouts(section: &Section<'_>) -> Option<MediaTimeouts> {
    let secs = |name| section.value(name, |v| v.as_number(0..=86_400));
    let never_started_secs = secs("never_started_secs");
    let stopped_secs = secs("stopped_secs");
    let held_secs = secs("held_secs");
    Some(MediaTimeouts {
        never_started_secs: never_started_secs?,
        stopped_secs: stopped_secs?,
        held_secs: held_secs?,
    })
}

fn media_policy(section: &Section<'_>, node: Option<&NodeConfig>) -> Option<MediaPolicy> {
    let directory = |key, name| {
        section.value(key, |v| match v.as_str()? {
            "" => Some(node.map_or_else(PathBuf::new, |node| node.state_dir.join(name))),
            _ => v.as_absolute_path(),
        })
    };
    let prompts_dir = directory("prompts_dir", "prompts");
    let recordings_dir = directory("recordings_dir", "recordings");
    let codecs = section.value("codecs", codecs);
    let hold_music = section.value("hold_music", |v| match v.as_str()? {
        "" => Some(None),
        file => is_below(file).then(|| Some(file.to_owned())),
    });
    let shows_digits = section.value("dtmf_values", |v| v.as_bool());
    Some(MediaPolicy {
        prompts_dir: prompts_dir?,
        recordings_dir: recordings_dir?,
        codecs: codecs?,
        hold_music: hold_music?,
        shows_digits: shows_digits?,
    })
}

fn codecs(value: Value<'_>) -> Option<Vec<AudioCodec>> {
    let mut list = Vec::new();
    for item in value.as_list()? {
        let name = item.as_str()?;
        let codec = AudioCodec::ALL
            .into_iter()
            .find(|codec| codec.encoding_name() == name)?;
        if list.contains(&codec) {
            return None;
        }
        list.push(codec);
    }
    Some(list)
}

/// Whether a path is relative and stays below where it begins.
pub(crate) fn is_below(path: &str) -> bool {
    let mut parts = Path::new(path).components();
    let is_below = parts.all(|part| matches!(part, std::path::Component::Normal(_)));
    is_below && !path.is_empty() && !path.contains(char::is_control)
}

fn algorithms(value: Value<'_>) -> Option<Vec<Algorithm>> {
    let mut list = Vec::new();
    for item in value.as_list()? {
        let token = item.as_str()?;
        let algorithm = Algorithm::ALL.into_iter().find(|a| a.token() == token)?;
        if list.contains(&algorithm) {
            return None;
        }
        list.push(algorithm);
    }
    (!list.is_empty()).then_some(list)
}

/// The realm stands in a quoted-string; leaving out what needs escaping keeps every phone happy.
fn is_realm(realm: &str) -> bool {
    (1..=127).contains(&realm.len())
        && realm
            .bytes()
            .all(|b| (b' '..=b'~').contains(&b) && b != b'"' && b != b'\\')
}

fn loopback_address(value: Value<'_>) -> Option<SocketAddr> {
    let address: SocketAddr = value.as_str()?.parse().ok()?;
    address.ip().is_loopback().then_some(address)
}
