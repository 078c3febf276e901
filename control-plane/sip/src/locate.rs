//! Which addresses a URI stands for, in which order: RFC 3263 §4, with the weights of RFC 2782.
//!
//! Pure: [`Location`] says what to ask the DNS, takes the answers, and ends with hops. Who asks
//! keeps the answers' lifetimes, too.
//!
//! ```text
//! sip:example.com ─▶ NAPTR example.com            ─▶ SIPS+D2T _sips._tcp.example.com, SIP+D2U …
//!                 ─▶ SRV _sips._tcp.example.com … ─▶ 10 60 5061 a.example.com, …
//!                 ─▶ A, AAAA a.example.com …      ─▶ TLS 192.0.2.1:5061, UDP 192.0.2.2:5060, …
//! ```
//!
//! A URI that names an address, a port or a transport skips what that decides. Left out: the
//! `maddr` parameter (a stranger could aim our requests with it) and NAPTR rules that rewrite.

mod order;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use sipx_sip::{Host, Uri, UriTransport};
use thiserror::Error;

use crate::entropy::Entropy;
use crate::flow::TransportKind;

pub use order::{NaptrRecord, SrvRecord};

/// SRV names looked up for one URI. A domain names at most one for each transport we have.
const SERVICES_MAX: usize = 8;

/// Host names looked up for one URI. Carriers publish two to four.
const HOSTS_MAX: usize = 16;

/// Hops of one URI. A request that failed at so many has been ringing nowhere for minutes.
const HOPS_MAX: usize = 32;

/// Longest host name (RFC 1035 §2.3.4).
const NAME_LEN_MAX: usize = 253;

/// How long what no record gave holds, seconds: the lifetime of a URI with a numeric address.
const LIFETIME_MAX_SECS: u32 = 86_400;

/// Where to try to send a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Hop {
    /// By which transport.
    pub kind: TransportKind,
    /// Where.
    pub address: SocketAddr,
    /// TLS: the domain that the certificate there must name, which is that of the URI and not what
    /// the DNS made of it (RFC 5922 §4); `None` where the URI names an address.
    pub domain: Option<Arc<str>>,
}

/// Something to ask the DNS.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Question {
    /// NAPTR records of a domain.
    Naptr(String),
    /// SRV records of a service.
    Srv(String),
    /// A and AAAA records of a host.
    Addresses(String),
}

/// What the DNS said. Empty lists say that there is no such record, or no such name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Records {
    /// To [`Question::Naptr`].
    Naptr(Vec<NaptrRecord>),
    /// To [`Question::Srv`].
    Srv(Vec<SrvRecord>),
    /// To [`Question::Addresses`], in the order they are to be tried.
    Addresses(Vec<IpAddr>),
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The records; `None` when nobody answered.
    pub records: Option<Records>,
    /// For how long it holds, seconds.
    pub ttl_secs: u32,
}

/// Where a URI's requests may be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The hops, to be tried in this order; not empty.
    pub hops: Vec<Hop>,
    /// For how long they hold, seconds: the least lifetime of what they were made of.
    pub ttl_secs: u32,
}

/// Why a URI has no hops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum LocateError {
    /// Neither sip nor sips.
    #[error("not a SIP URI")]
    NotSip,
    /// A transport that we do not listen on, or one that only the peer can open.
    #[error("no socket of [sip] listen speaks the transport of the URI")]
    Transport,
    /// The host is longer than a name can be.
    #[error("no such name can exist")]
    Name,
    /// The DNS has nothing.
    #[error("the DNS has no address for it")]
    NoAddress,
    /// The DNS did not answer.
    #[error("the DNS does not answer")]
    Unanswered,
}

impl LocateError {
    /// Whether the same question may be answered differently soon.
    #[must_use]
    pub fn is_temporary(self) -> bool {
        matches!(self, Self::Unanswered)
    }
}

/// A service that SRV records may name hosts of.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Service {
    kind: TransportKind,
    name: String,
}

/// A host whose addresses are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    kind: TransportKind,
    host: String,
    port: u16,
}

/// What is asked for at the moment.
#[derive(Debug)]
enum State {
    /// §4.1: which transports the domain prefers.
    Transports,
    /// §4.2: which hosts serve.
    Services {
        services: Vec<Service>,
        /// Which of them gets the request where no SRV record exists.
        fallback: TransportKind,
    },
    /// §4.2: which addresses they have.
    Hosts(Vec<Candidate>),
    /// Nothing more.
    Done(Result<Vec<Hop>, LocateError>),
}

/// One URI on its way to its hops.
#[derive(Debug)]
pub struct Location {
    state: State,
    host: String,
    is_secure: bool,
    kinds: Vec<TransportKind>,
    ttl_secs: u32,
    was_unanswered: bool,
}

impl Location {
    /// Begins with `uri`. `kinds` are the transports that requests can be sent by, the preferred
    /// ones first.
    #[must_use]
    pub fn new(uri: &Uri, kinds: &[TransportKind]) -> Self {
        let kinds: Vec<_> = kinds.iter().copied().filter(|k| !k.is_web()).collect();
        let host = match uri.host() {
            Some(Host::Name(name)) => {
                let name = String::from_utf8_lossy(name.as_bytes());
                name.trim_end_matches('.').to_ascii_lowercase()
            }
            _ => String::new(),
        };
        let mut location = Self {
            state: State::Transports,
            host,
            is_secure: uri.scheme().is_secure(),
            kinds,
            ttl_secs: LIFETIME_MAX_SECS,
            was_unanswered: false,
        };
        location.state = location
            .first_state(uri)
            .unwrap_or_else(|e| State::Done(Err(e)));
        location
    }

    fn first_state(&self, uri: &Uri) -> Result<State, LocateError> {
        let kind = match uri.selected_transport() {
            Ok(UriTransport::Udp) => TransportKind::Udp,
            Ok(UriTransport::Tcp) => TransportKind::Tcp,
            Ok(UriTransport::Tls) => TransportKind::Tls,
            Ok(_) => return Err(LocateError::Transport),
            Err(sipx_sip::uri::UriTransportError::NotSip) => return Err(LocateError::NotSip),
            Err(_) => return Err(LocateError::Transport),
        };
        let port = uri.port();
        let is_settled = uri.transport().is_some() || port.is_some();
        if let Some(Host::Ip(ip)) = uri.host() {
            self.require(kind)?;
            let address = SocketAddr::new(*ip, port.unwrap_or(kind.default_port()));
            let domain = None;
            return Ok(State::Done(Ok(vec![Hop {
                kind,
                address,
                domain,
            }])));
        }
        if self.host.is_empty() || self.host.len() > NAME_LEN_MAX {
            return Err(LocateError::Name);
        }
        if is_settled || self.is_secure {
            self.require(kind)?;
        }
        Ok(match port {
            Some(port) => State::Hosts(vec![Candidate {
                kind,
                host: self.host.clone(),
                port,
            }]),
            None if is_settled => State::Services {
                services: vec![self.service(kind)],
                fallback: kind,
            },
            None => State::Transports,
        })
    }

    fn require(&self, kind: TransportKind) -> Result<(), LocateError> {
        if self.kinds.contains(&kind) {
            Ok(())
        } else {
            Err(LocateError::Transport)
        }
    }

    /// The name of a transport's SRV records at the URI's host.
    fn service(&self, kind: TransportKind) -> Service {
        let prefix = match kind {
            TransportKind::Tls | TransportKind::Wss => "_sips._tcp",
            TransportKind::Tcp | TransportKind::Ws => "_sip._tcp",
            TransportKind::Udp => "_sip._udp",
        };
        Service {
            kind,
            name: format!("{prefix}.{}", self.host),
        }
    }

    /// What is to be asked now; nothing when [`Self::finish`] has the outcome.
    #[must_use]
    pub fn questions(&self) -> Vec<Question> {
        match &self.state {
            State::Transports => vec![Question::Naptr(self.host.clone())],
            State::Services { services, .. } => {
                let questions = services.iter();
                questions.map(|s| Question::Srv(s.name.clone())).collect()
            }
            State::Hosts(candidates) => {
                let mut questions: Vec<Question> = Vec::new();
                for candidate in candidates {
                    let question = Question::Addresses(candidate.host.clone());
                    if !questions.contains(&question) {
                        questions.push(question);
                    }
                }
                questions
            }
            State::Done(_) => Vec::new(),
        }
    }

    /// Takes the answers to all of [`Self::questions`], found by `answer`. `entropy` draws among
    /// SRV records of one priority.
    pub fn handle_answers(
        &mut self,
        answer: impl Fn(&Question) -> Answer,
        entropy: &mut dyn Entropy,
    ) {
        let state = std::mem::replace(&mut self.state, State::Done(Err(LocateError::NoAddress)));
        self.state = match state {
            State::Transports => self.after_naptr(answer),
            State::Services { services, fallback } => {
                self.after_srv(&services, fallback, answer, entropy)
            }
            State::Hosts(candidates) => self.after_addresses(&candidates, answer),
            done @ State::Done(_) => done,
        };
    }

    /// The outcome, once there is nothing more to ask.
    ///
    /// # Errors
    /// There are no hops; or questions are still open, which counts as unanswered.
    pub fn finish(self) -> Result<Located, LocateError> {
        match self.state {
            State::Done(Ok(hops)) => Ok(Located {
                hops,
                ttl_secs: self.ttl_secs,
            }),
            State::Done(Err(error)) => Err(error),
            _ => Err(LocateError::Unanswered),
        }
    }

    /// The records of an answer; its lifetime bounds that of the outcome.
    fn take(&mut self, answer: Answer) -> Option<Records> {
        self.ttl_secs = self.ttl_secs.min(answer.ttl_secs);
        self.was_unanswered |= answer.records.is_none();
        answer.records
    }

    fn after_naptr(&mut self, answer: impl Fn(&Question) -> Answer) -> State {
        let answer = answer(&Question::Naptr(self.host.clone()));
        let services = match self.take(answer) {
            Some(Records::Naptr(records)) => order::services(records, &self.kinds, self.is_secure),
            _ => Vec::new(),
        };
        let mut services: Vec<Service> = services
            .into_iter()
            .map(|(kind, name)| Service { kind, name })
            .collect();
        services.truncate(SERVICES_MAX);
        // §4.1 wants UDP in the end; a node without it uses what it has.
        let fallback = match self.kinds.first() {
            _ if self.is_secure => TransportKind::Tls,
            Some(first) if !self.kinds.contains(&TransportKind::Udp) => *first,
            _ => TransportKind::Udp,
        };
        if services.is_empty() {
            // No NAPTR: every transport we have may have SRV records of its own (§4.1).
            let kinds = self.kinds.iter().copied();
            services = kinds
                .filter(|kind| !self.is_secure || kind.is_secure())
                .map(|kind| self.service(kind))
                .collect();
        }
        State::Services { services, fallback }
    }

    fn after_srv(
        &mut self,
        services: &[Service],
        fallback: TransportKind,
        answer: impl Fn(&Question) -> Answer,
        entropy: &mut dyn Entropy,
    ) -> State {
        let mut candidates = Vec::new();
        let mut has_records = false;
        for service in services {
            let answer = answer(&Question::Srv(service.name.clone()));
            let Some(Records::Srv(records)) = self.take(answer) else {
                continue;
            };
            has_records |= !records.is_empty();
            for record in order::draw(records, entropy) {
                // RFC 2782: a target of "." says that the service is decidedly not there.
                if !record.target.is_empty() && candidates.len() < HOSTS_MAX {
                    candidates.push(Candidate {
                        kind: service.kind,
                        host: record.target,
                        port: record.port,
                    });
                }
            }
        }
        if !has_records {
            if !self.kinds.contains(&fallback) {
                return State::Done(Err(self.nothing_found()));
            }
            candidates.push(Candidate {
                kind: fallback,
                host: self.host.clone(),
                port: fallback.default_port(),
            });
        }
        if candidates.is_empty() {
            return State::Done(Err(self.nothing_found()));
        }
        State::Hosts(candidates)
    }

    fn after_addresses(
        &mut self,
        candidates: &[Candidate],
        answer: impl Fn(&Question) -> Answer,
    ) -> State {
        let mut hops: Vec<Hop> = Vec::new();
        for candidate in candidates {
            let answer = answer(&Question::Addresses(candidate.host.clone()));
            let Some(Records::Addresses(addresses)) = self.take(answer) else {
                continue;
            };
            for ip in addresses {
                let domain = candidate
                    .kind
                    .is_secure()
                    .then(|| self.host.as_str().into());
                let hop = Hop {
                    kind: candidate.kind,
                    address: SocketAddr::new(ip, candidate.port),
                    domain,
                };
                if hops.len() < HOPS_MAX && !hops.contains(&hop) {
                    hops.push(hop);
                }
            }
        }
        if hops.is_empty() {
            State::Done(Err(self.nothing_found()))
        } else {
            State::Done(Ok(hops))
        }
    }

    fn nothing_found(&self) -> LocateError {
        if self.was_unanswered {
            LocateError::Unanswered
        } else {
            LocateError::NoAddress
        }
    }
}
