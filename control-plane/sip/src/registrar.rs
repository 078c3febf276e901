//! The registrar's binding table: RFC 3261 §10.3, pure.
//!
//! ```text
//! REGISTER, Contact: <sip:1001@10.0.0.7:5060>  from 198.51.100.20:41000
//!      ◀── 200, Contact: <sip:1001@10.0.0.7:5060>;expires=3600
//! INVITE for 1001 ──▶ bindings("1001"): request URI sip:1001@10.0.0.7:5060, sent to
//!                     198.51.100.20:41000, where the REGISTER came from
//! ```
//!
//! The contact stays as the phone wrote it, because that is the request URI it knows itself by;
//! the way to the phone is the flow its REGISTER took, which leads through any NAT. Who may
//! register what is decided before ([`crate::digest`]). Behind a proxy the way goes along its `Path`;
//! a phone with several flows is reached over the one it used last.

mod binding;
mod extensions;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use sipx_sip::{Header, HeaderName, Reliability, Request};
use trunkline_edge_api::MonoTime;

use crate::flow::{ConnectionId, Flow};

pub use binding::Binding;
use binding::{Contacts, Update};

/// Bounds of a [`Registrar`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrarConfig {
    /// Contacts per address of record.
    pub contacts_max: usize,
    /// Contacts in total: `[sip] registrations_max`.
    pub bindings_max: usize,
    /// Shorter intervals are refused with 423, seconds. 60: any phone that insists on less
    /// refreshes a NAT binding, for which keep-alives are cheaper.
    pub expires_min_secs: u32,
    /// Used when the phone names no interval, seconds.
    pub expires_default_secs: u32,
    /// Longer intervals are cut to this, seconds.
    pub expires_max_secs: u32,
    /// Whether phones are told to send their requests through us (`Service-Route`, RFC 3608).
    /// They register here, so most do; one whose outbound proxy is another host needs to be told.
    pub gives_service_route: bool,
}

impl Default for RegistrarConfig {
    fn default() -> Self {
        Self {
            contacts_max: 10,
            bindings_max: 20_000,
            expires_min_secs: 60,
            expires_default_secs: 3_600,
            expires_max_secs: 3_600,
            gives_service_route: false,
        }
    }
}

/// Why a REGISTER changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// A `Contact`, `Call-ID` or `CSeq` that cannot be used.
    #[error("malformed or unusable {0}")]
    Malformed(&'static str),
    /// `Contact: *` beside another contact, or without `Expires: 0`.
    #[error("a wildcard contact must stand alone, with Expires: 0")]
    WildcardMisused,
    /// The interval is below the minimum.
    #[error("interval too brief; at least {min_secs} s")]
    IntervalTooBrief {
        /// What `Min-Expires` says.
        min_secs: u32,
    },
    /// An older REGISTER of the same phone arrived after a newer one.
    #[error("CSeq not above that of the binding")]
    OutOfOrder,
    /// The phone counts on its first hop to keep its flow open, which that does not promise.
    #[error("the first hop does not support outbound (RFC 5626)")]
    FirstHopLacksOutbound,
    /// The address of record would have more contacts than it may.
    #[error("more contacts than one address of record may have")]
    TooManyContacts,
    /// The table is full.
    #[error("no room for another registration; raise [sip] registrations_max")]
    Full,
}

impl RegisterError {
    /// Status of the response.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) | Self::WildcardMisused => 400,
            Self::IntervalTooBrief { .. } => 423,
            Self::OutOfOrder => 500,
            Self::FirstHopLacksOutbound => 439,
            Self::TooManyContacts => 403,
            Self::Full => 503,
        }
    }

    /// Headers that the response carries besides.
    #[must_use]
    pub fn headers(&self) -> Vec<Header> {
        let header = match self {
            Self::IntervalTooBrief { min_secs } => {
                Some((HeaderName::MinExpires, min_secs.to_string()))
            }
            // Long enough for some registrations to end, short enough for a phone to be reached
            // again soon.
            Self::Full => Some((HeaderName::RetryAfter, "60".to_owned())),
            _ => None,
        };
        header
            .into_iter()
            .filter_map(|(name, value)| Header::build(name, value).ok())
            .collect()
    }
}

/// Where the phones are. Addresses of record are names of the caller's choosing: the user part of
/// `To`, or the member it stands for.
#[derive(Debug)]
pub struct Registrar {
    config: RegistrarConfig,
    records: HashMap<Arc<str>, Vec<Binding>>,
    /// First expiry of each record.
    expiries: BTreeSet<(MonoTime, Arc<str>)>,
    /// Records with a binding on a stream connection.
    connections: BTreeSet<(ConnectionId, Arc<str>)>,
    bindings_len: usize,
}

impl Registrar {
    /// An empty table.
    #[must_use]
    pub fn new(config: RegistrarConfig) -> Self {
        Self {
            config,
            records: HashMap::new(),
            expiries: BTreeSet::new(),
            connections: BTreeSet::new(),
            bindings_len: 0,
        }
    }

    /// Carries out an authenticated REGISTER for `aor` that came over `flow`. Returns the headers
    /// of the 200: a `Contact` for every binding there is now, then what the extensions ask for. A
    /// REGISTER without `Contact` asks for just that.
    ///
    /// # Errors
    /// Nothing was changed; [`RegisterError::status`] says how to answer.
    pub fn handle_register(
        &mut self,
        now: MonoTime,
        aor: &str,
        request: &Request,
        flow: &Flow,
    ) -> Result<Vec<Header>, RegisterError> {
        self.handle_timeout(now);
        let update = Update::read(now, request, flow, &self.config)?;
        let old = self.records.get(aor).map_or(&[][..], Vec::as_slice);
        let new = match &update.contacts {
            Contacts::Query => return Ok(self.headers(now, old, &update, flow)),
            Contacts::Wildcard => update.remove_all(old)?,
            Contacts::Listed(listed) => update.apply(listed, old)?,
        };
        if new.len() > self.config.contacts_max && new.len() > old.len() {
            return Err(RegisterError::TooManyContacts);
        }
        let total = self.bindings_len - old.len() + new.len();
        if total > self.config.bindings_max && new.len() > old.len() {
            return Err(RegisterError::Full);
        }
        let headers = self.headers(now, &new, &update, flow);
        self.replace(aor, new);
        Ok(headers)
    }

    /// The live bindings of `aor`, best first: by `q`, then the latest registered. Of a phone with
    /// several flows only the best is among them, or it would be rung twice (RFC 5626 §7).
    #[must_use]
    pub fn bindings(&self, now: MonoTime, aor: &str) -> Vec<&Binding> {
        let bindings = self.records.get(aor).into_iter().flatten();
        let mut live: Vec<&Binding> = bindings.filter(|b| b.expires_at > now).collect();
        live.sort_by_key(|binding| Reverse(binding.preference()));
        let mut phones: Vec<&Binding> = Vec::with_capacity(live.len());
        for binding in live {
            if !phones.iter().any(|phone| binding.is_another_flow_of(phone)) {
                phones.push(binding);
            }
        }
        phones
    }

    /// Forgets every binding of `aor`: the member is gone.
    pub fn remove(&mut self, aor: &str) {
        self.replace(aor, Vec::new());
    }

    /// Forgets the bindings on a connection that has closed: a phone behind NAT can only be
    /// reached over the connection it opened, and registers anew on its next one.
    pub fn handle_connection_closed(&mut self, connection: ConnectionId) {
        let from = (connection, Arc::from(""));
        let on_it = self
            .connections
            .range(from..)
            .take_while(|(id, _)| *id == connection);
        let records: Vec<Arc<str>> = on_it.map(|(_, aor)| Arc::clone(aor)).collect();
        for aor in records {
            self.retain(&aor, |binding| binding.flow.connection != Some(connection));
        }
    }

    /// Forgets what has expired.
    pub fn handle_timeout(&mut self, now: MonoTime) {
        while let Some((expiry, aor)) = self.expiries.first() {
            if *expiry > now {
                return;
            }
            let aor = Arc::clone(aor);
            self.retain(&aor, |binding| binding.expires_at > now);
        }
    }

    /// When [`Self::handle_timeout`] has something to do; `None` while nobody is registered.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<MonoTime> {
        self.expiries.first().map(|(expiry, _)| *expiry)
    }

    /// Contacts registered now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bindings_len
    }

    /// Whether nobody is registered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bindings_len == 0
    }

    fn headers(
        &self,
        now: MonoTime,
        bindings: &[Binding],
        update: &Update,
        flow: &Flow,
    ) -> Vec<Header> {
        let mut headers = contact_headers(now, bindings);
        let uses_outbound = match &update.contacts {
            Contacts::Listed(listed) => listed.iter().any(|(binding, _)| binding.is_one_flow()),
            Contacts::Query | Contacts::Wildcard => false,
        };
        headers.extend(update.extensions.headers(uses_outbound, flow.kind));
        if self.config.gives_service_route {
            headers.extend(service_route(flow));
        }
        headers
    }

    fn retain(&mut self, aor: &str, keep: impl FnMut(&Binding) -> bool) {
        if let Some(bindings) = self.records.get(aor) {
            let mut kept = bindings.clone();
            kept.retain(keep);
            self.replace(aor, kept);
        }
    }

    /// The one place that changes the table and its indices.
    fn replace(&mut self, aor: &str, bindings: Vec<Binding>) {
        if let Some((key, old)) = self.records.remove_entry(aor) {
            self.bindings_len -= old.len();
            if let Some(expiry) = first_expiry(&old) {
                self.expiries.remove(&(expiry, Arc::clone(&key)));
            }
            for connection in old.iter().filter_map(|binding| binding.flow.connection) {
                self.connections.remove(&(connection, Arc::clone(&key)));
            }
        }
        if let Some(expiry) = first_expiry(&bindings) {
            let key: Arc<str> = Arc::from(aor);
            self.bindings_len += bindings.len();
            self.expiries.insert((expiry, Arc::clone(&key)));
            for connection in bindings
                .iter()
                .filter_map(|binding| binding.flow.connection)
            {
                self.connections.insert((connection, Arc::clone(&key)));
            }
            self.records.insert(key, bindings);
        }
        debug_assert_eq!(self.records.len(), self.expiries.len());
    }
}

/// The way in, as the phone found it.
fn service_route(flow: &Flow) -> Option<Header> {
    let transport = match flow.kind.reliability() {
        Reliability::Unreliable => String::new(),
        Reliability::Reliable => {
            let token = flow.kind.via_token().to_ascii_lowercase();
            format!(";transport={token}")
        }
    };
    let value = format!("<sip:{}{transport};lr>", flow.local);
    Header::build(HeaderName::ServiceRoute, value).ok()
}

fn first_expiry(bindings: &[Binding]) -> Option<MonoTime> {
    bindings.iter().map(|binding| binding.expires_at).min()
}

fn contact_headers(now: MonoTime, bindings: &[Binding]) -> Vec<Header> {
    let values = bindings.iter().map(|binding| binding.contact_value(now));
    values
        .filter_map(|value| Header::build(HeaderName::Contact, value).ok())
        .collect()
}
