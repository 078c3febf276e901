//! Host names of SIP peers, looked up on a thread of their own: RFC 3263.
//!
//! The call thread asks by message and never waits: [`Resolver::ask`] takes a ticket, the outcome
//! comes out of [`Resolver::recv`] under the same ticket. What is asked in which order is
//! [`trunkline_sip::locate`]; the DNS itself, its cache (by the records' lifetimes, absent names
//! too, bounded) and its retries are hickory's.
//!
//! An outcome says for how long it holds. Who needs a name for ever, such as a trunk, asks again
//! when that has passed; until then the cache answers.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::name_server::TokioConnectionProvider;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::proto::xfer::Protocol;
use hickory_resolver::proto::{ProtoError, ProtoErrorKind};
use hickory_resolver::{ResolveError, TokioResolver};
use sipx_sip::Uri;
use tokio::sync::mpsc;
use trunkline_sip::TransportKind;
use trunkline_sip::locate::{
    Answer, LocateError, Located, Location, NaptrRecord, Question, Records, SrvRecord,
};

use crate::config::DnsConfig;
use crate::node::SystemEntropy;

/// Questions of the call thread that may be open at once.
const OUTSTANDING_MAX: usize = 1_024;

/// Records that the cache holds: some hundred carriers' worth.
const CACHE_RECORDS_MAX: u64 = 4_096;

/// Least and longest lifetime of an answer. A record without one would be asked for at every
/// call; one that claims a week would outlive the host it names.
const LIFETIME: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(86_400));

/// The same for what does not exist: a name that appears must be found soon.
const ABSENCE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// When to ask again what nobody answered, seconds.
const UNANSWERED_SECS: u32 = 5;

/// How long one URI may take, all its questions together.
const LOCATE_TIMEOUT: Duration = Duration::from_secs(15);

/// What became of a question.
#[derive(Debug)]
pub struct Resolved {
    /// What [`Resolver::ask`] was given.
    pub ticket: u64,
    /// The hops, or why there are none.
    pub outcome: Result<Located, LocateError>,
}

/// Too many questions are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many names are being looked up")]
pub struct ResolverBusy;

/// What a [`Resolver`] counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResolverCounters {
    /// URIs that have hops.
    pub located: u64,
    /// URIs that have none.
    pub absent: u64,
    /// URIs that the DNS said nothing about.
    pub unanswered: u64,
    /// Questions refused because too many were open.
    pub refused_busy: u64,
}

/// The call thread's end. The thread ends when this is dropped.
#[derive(Debug)]
pub struct Resolver {
    asks: mpsc::Sender<(u64, Uri)>,
    outcomes: mpsc::Receiver<Resolved>,
    outstanding: usize,
    counters: ResolverCounters,
}

impl Resolver {
    /// Starts the thread. `kinds` are the transports that requests can be sent by, the preferred
    /// ones first.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn spawn(config: &DnsConfig, kinds: Vec<TransportKind>) -> io::Result<Self> {
        let (asks, asked) = mpsc::channel(OUTSTANDING_MAX);
        let (outcome_sender, outcomes) = mpsc::channel(OUTSTANDING_MAX);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let config = config.clone();
        std::thread::Builder::new()
            .name("dns".to_owned())
            .spawn(move || {
                let locator = Locator::new(&config, kinds);
                runtime.block_on(serve(locator, asked, outcome_sender));
            })?;
        Ok(Self {
            asks,
            outcomes,
            outstanding: 0,
            counters: ResolverCounters::default(),
        })
    }

    /// Asks where the requests of `uri` go. The outcome is under `ticket`.
    ///
    /// # Errors
    /// Too many questions are open; nothing was asked.
    pub fn ask(&mut self, ticket: u64, uri: Uri) -> Result<(), ResolverBusy> {
        if self.outstanding == OUTSTANDING_MAX || self.asks.try_send((ticket, uri)).is_err() {
            self.counters.refused_busy += 1;
            return Err(ResolverBusy);
        }
        self.outstanding += 1;
        Ok(())
    }

    /// The next outcome; waits for ever while nothing is asked. Nothing is lost when the future is
    /// dropped.
    pub async fn recv(&mut self) -> Resolved {
        match self.outcomes.recv().await {
            Some(resolved) => {
                self.outstanding = self.outstanding.saturating_sub(1);
                match &resolved.outcome {
                    Ok(_) => self.counters.located += 1,
                    Err(error) if error.is_temporary() => self.counters.unanswered += 1,
                    Err(_) => self.counters.absent += 1,
                }
                resolved
            }
            // The thread has gone with a panic, which was logged.
            None => std::future::pending().await,
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> &ResolverCounters {
        &self.counters
    }
}

async fn serve(
    locator: Locator,
    mut asked: mpsc::Receiver<(u64, Uri)>,
    outcomes: mpsc::Sender<Resolved>,
) {
    let locator = std::sync::Arc::new(locator);
    while let Some((ticket, uri)) = asked.recv().await {
        let (locator, outcomes) = (std::sync::Arc::clone(&locator), outcomes.clone());
        tokio::spawn(async move {
            let located = tokio::time::timeout(LOCATE_TIMEOUT, locator.locate(&uri)).await;
            let outcome = located.unwrap_or(Err(LocateError::Unanswered));
            // There is room for every open question; it fails when nobody listens any more.
            let _ = outcomes.send(Resolved { ticket, outcome }).await;
        });
    }
}

/// Looks names up where it stands: for the thread, and for commands.
pub struct Locator {
    dns: TokioResolver,
    kinds: Vec<TransportKind>,
}

impl Locator {
    /// A locator with an empty cache. Without servers in `config` it reads `/etc/resolv.conf`; if
    /// that cannot be read, nothing is ever answered, and the log says why.
    #[must_use]
    pub fn new(config: &DnsConfig, kinds: Vec<TransportKind>) -> Self {
        let mut builder = if config.servers.is_empty() {
            TokioResolver::builder_tokio().unwrap_or_else(|error| {
                tracing::error!(%error, "no DNS servers; set [sip.dns] servers");
                with_servers(ResolverConfig::new())
            })
        } else {
            let mut servers = ResolverConfig::new();
            for address in &config.servers {
                for protocol in [Protocol::Udp, Protocol::Tcp] {
                    servers.add_name_server(NameServerConfig::new(*address, protocol));
                }
            }
            with_servers(servers)
        };
        set_options(builder.options_mut(), config);
        Self {
            dns: builder.build(),
            kinds,
        }
    }

    /// Where the requests of `uri` go.
    ///
    /// # Errors
    /// There is nowhere, or nobody answered.
    pub async fn locate(&self, uri: &Uri) -> Result<Located, LocateError> {
        let mut location = Location::new(uri, &self.kinds);
        loop {
            let questions = location.questions();
            if questions.is_empty() {
                return location.finish();
            }
            let mut answers = HashMap::with_capacity(questions.len());
            for question in questions {
                let answer = self.answer(&question).await;
                answers.insert(question, answer);
            }
            let found = |question: &Question| answers.get(question).cloned().unwrap_or(SILENCE);
            location.handle_answers(found, &mut SystemEntropy);
        }
    }

    async fn answer(&self, question: &Question) -> Answer {
        let (name, kind) = match question {
            Question::Naptr(name) => (name, Some(RecordType::NAPTR)),
            Question::Srv(name) => (name, Some(RecordType::SRV)),
            Question::Addresses(name) => (name, None),
        };
        // With its final dot, so that no search domain is tried.
        let Ok(name) = Name::from_ascii(format!("{name}.")) else {
            return absent(question, None);
        };
        let (records, valid_until) = match kind {
            Some(kind) => match self.dns.lookup(name, kind).await {
                Ok(lookup) => (records_of(question, lookup.iter()), lookup.valid_until()),
                Err(error) => return failed(question, &error),
            },
            None => match self.dns.lookup_ip(name).await {
                Ok(lookup) => {
                    let mut addresses: Vec<_> = lookup.iter().collect();
                    // IPv4 first: nearly every carrier has it; the order inside a family is the
                    // server's, which spreads its load by it.
                    addresses.sort_by_key(std::net::IpAddr::is_ipv6);
                    (Records::Addresses(addresses), lookup.valid_until())
                }
                Err(error) => return failed(question, &error),
            },
        };
        let left = valid_until.saturating_duration_since(Instant::now());
        Answer {
            records: Some(records),
            ttl_secs: secs(left.max(LIFETIME.0)),
        }
    }
}

fn with_servers(
    config: ResolverConfig,
) -> hickory_resolver::ResolverBuilder<TokioConnectionProvider> {
    TokioResolver::builder_with_config(config, TokioConnectionProvider::default())
}

fn set_options(options: &mut ResolverOpts, config: &DnsConfig) {
    options.timeout = Duration::from_millis(config.timeout_ms.into());
    options.attempts = usize::from(config.attempts);
    options.cache_size = usize::try_from(CACHE_RECORDS_MAX).unwrap_or(usize::MAX);
    // Both families, always: which of them we can send by is decided per hop.
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.positive_min_ttl = Some(LIFETIME.0);
    options.positive_max_ttl = Some(LIFETIME.1);
    options.negative_min_ttl = Some(ABSENCE.0);
    options.negative_max_ttl = Some(ABSENCE.1);
    // The names that lead to a record are of no use here.
    options.preserve_intermediates = false;
}

/// What nobody answered.
const SILENCE: Answer = Answer {
    records: None,
    ttl_secs: UNANSWERED_SECS,
};

fn records_of<'a>(question: &Question, records: impl Iterator<Item = &'a RData>) -> Records {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match question {
        Question::Naptr(_) => Records::Naptr(
            records
                .filter_map(|record| match record {
                    RData::NAPTR(naptr) => Some(NaptrRecord {
                        order: naptr.order(),
                        preference: naptr.preference(),
                        flags: text(naptr.flags()),
                        services: text(naptr.services()),
                        replacement: plain(naptr.replacement()),
                    }),
                    _ => None,
                })
                .collect(),
        ),
        Question::Srv(_) => Records::Srv(
            records
                .filter_map(|record| match record {
                    RData::SRV(srv) => Some(SrvRecord {
                        priority: srv.priority(),
                        weight: srv.weight(),
                        port: srv.port(),
                        target: plain(srv.target()),
                    }),
                    _ => None,
                })
                .collect(),
        ),
        Question::Addresses(_) => Records::Addresses(Vec::new()),
    }
}

/// A name in lower case, without its final dot; the root is empty.
fn plain(name: &Name) -> String {
    let mut text = name.to_ascii().to_ascii_lowercase();
    if text.ends_with('.') {
        text.pop();
    }
    text
}

fn failed(question: &Question, error: &ResolveError) -> Answer {
    match error.proto().map(ProtoError::kind) {
        Some(ProtoErrorKind::NoRecordsFound {
            negative_ttl,
            response_code: ResponseCode::NoError | ResponseCode::NXDomain,
            ..
        }) => absent(question, *negative_ttl),
        _ => SILENCE,
    }
}

fn absent(question: &Question, ttl_secs: Option<u32>) -> Answer {
    let records = match question {
        Question::Naptr(_) => Records::Naptr(Vec::new()),
        Question::Srv(_) => Records::Srv(Vec::new()),
        Question::Addresses(_) => Records::Addresses(Vec::new()),
    };
    let (least, longest) = (secs(ABSENCE.0), secs(ABSENCE.1));
    Answer {
        records: Some(records),
        ttl_secs: ttl_secs.unwrap_or(least).clamp(least, longest),
    }
}

fn secs(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}
