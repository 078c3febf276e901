//! One contact of an address of record, and what a REGISTER wants done to them.

use std::fmt::Write as _;

use bytes::Bytes;
use sipx_sip::headers::To;
use sipx_sip::headers::address::ContactValue;
use sipx_sip::headers::misc::Expires;
use sipx_sip::{Address, CSeq, CallId, Header, HeaderName, Request, Uri};
use trunkline_edge_api::MonoTime;

use super::extensions::{Extensions, gruu};
use super::{RegisterError, RegistrarConfig};
use crate::flow::Flow;
use crate::identity::names_another_address;

/// Longest contact URI and instance id kept, bytes. Together with the table's size they bound its
/// memory; phones stay below 200.
const URI_LEN_MAX: usize = 512;
const INSTANCE_LEN_MAX: usize = 128;

/// RFC 3261 §10.2.1.1: an expiry that cannot be read counts as one hour.
const UNREADABLE_EXPIRES_SECS: u32 = 3_600;

const NANOS_PER_SEC: u64 = 1_000_000_000;

/// Where one phone of an address of record is.
#[derive(Debug, Clone)]
pub struct Binding {
    /// Request URI of what is sent to the phone, as the phone wrote it.
    pub contact: Uri,
    /// The way to the phone: back where its REGISTER came from.
    pub flow: Flow,
    /// When it ends.
    pub expires_at: MonoTime,
    /// The phone's preference among its user's phones, in thousandths: 0 … 1000.
    pub q_millis: u16,
    registered_at: MonoTime,
    call_id: Vec<u8>,
    cseq: u32,
    /// `+sip.instance` (RFC 5626 §4.1): the same phone, whatever its contact is now.
    instance: Option<Box<str>>,
    /// `reg-id`: which of the phone's flows this is, where outbound is in use (RFC 5626 §4.2).
    reg_id: Option<u32>,
    /// Values of the `Path` rows (RFC 3327), in order: proxies that want to be passed.
    path: Box<[Bytes]>,
    /// The URI that means this phone and no other of its user (RFC 5627), when it asked for one.
    gruu: Option<Box<str>>,
}

impl Binding {
    /// Whether the phone's own idea of its address is not where we see it: its media address
    /// cannot be believed either.
    ///
    /// Behind a proxy that wrote itself into `Path` this says nothing: the flow ends at that proxy,
    /// which looks after its phones' NAT itself.
    #[must_use]
    pub fn is_behind_nat(&self) -> bool {
        self.path.is_empty() && names_another_address(&self.contact, self.flow.remote.ip())
    }

    /// `Route` headers of a request to the phone: its `Path`, as a pre-loaded route set
    /// (RFC 3327 §5.3). The flow leads to the first of them.
    #[must_use]
    pub fn routes(&self) -> Vec<Header> {
        let rows = self.path.iter().cloned();
        rows.filter_map(|row| Header::build(HeaderName::Route, row).ok())
            .collect()
    }

    /// Whether `gr`, the value of a request URI's parameter of that name, means this phone.
    #[must_use]
    pub fn is_instance(&self, gr: &[u8]) -> bool {
        self.instance
            .as_deref()
            .is_some_and(|instance| instance.trim_matches(['<', '>']).as_bytes() == gr)
    }

    /// Whether the phone keeps several flows, of which this is one.
    pub(super) fn is_one_flow(&self) -> bool {
        self.reg_id.is_some()
    }

    /// Whether this is another flow to the phone that `other` leads to: one of them is enough.
    pub(super) fn is_another_flow_of(&self, other: &Binding) -> bool {
        self.instance.is_some() && self.instance == other.instance
    }

    /// Higher is better.
    pub(super) fn preference(&self) -> (u16, MonoTime) {
        (self.q_millis, self.registered_at)
    }

    /// As a `Contact` of the 200 shows it. Seconds are rounded up, so that a phone never sees 0
    /// for a binding that still lives.
    pub(super) fn contact_value(&self, now: MonoTime) -> String {
        let left = self.expires_at.nanos_since(now).div_ceil(NANOS_PER_SEC);
        let mut value = format!("<{}>;expires={left}", self.contact);
        if self.q_millis < 1_000 {
            let _ = write!(value, ";q=0.{:03}", self.q_millis);
        }
        if let Some(instance) = &self.instance {
            let _ = write!(value, ";+sip.instance=\"{instance}\"");
        }
        if let Some(reg_id) = self.reg_id {
            let _ = write!(value, ";reg-id={reg_id}");
        }
        if let Some(gruu) = &self.gruu {
            let _ = write!(value, ";pub-gruu=\"{gruu}\"");
        }
        value
    }

    /// Whether `other` takes this one's place: the same contact (RFC 3261 §10.3 step 7) or the
    /// same instance that has moved; with outbound the same flow of the same instance and nothing
    /// else (RFC 5626 §6).
    fn is_same_binding(&self, other: &Binding) -> bool {
        let is_same_instance = self.instance.is_some() && self.instance == other.instance;
        if self.reg_id.is_some() && other.reg_id.is_some() {
            return is_same_instance && self.reg_id == other.reg_id;
        }
        is_same_instance || self.contact.equivalent(&other.contact)
    }
}

/// A REGISTER, read.
pub(super) struct Update {
    call_id: Vec<u8>,
    cseq: u32,
    /// What of RFC 3327, 5626 and 5627 the phone speaks, and the path it came.
    pub(super) extensions: Extensions,
    /// The address of record as the phone wrote it, for GRUUs.
    address_of_record: Option<Uri>,
    pub(super) contacts: Contacts,
}

/// What its `Contact` headers say.
pub(super) enum Contacts {
    /// None: what is there?
    Query,
    /// `*` with `Expires: 0`.
    Wildcard,
    /// Each with its interval in seconds; 0 removes.
    Listed(Vec<(Binding, u32)>),
}

impl Update {
    /// Reads everything and changes nothing, so that a REGISTER is carried out wholly or not.
    pub(super) fn read(
        now: MonoTime,
        request: &Request,
        flow: &Flow,
        config: &RegistrarConfig,
    ) -> Result<Self, RegisterError> {
        let Some(Ok(CallId(call_id))) = request.headers.typed() else {
            return Err(RegisterError::Malformed("Call-ID"));
        };
        if call_id.len() > URI_LEN_MAX {
            return Err(RegisterError::Malformed("Call-ID"));
        }
        let Some(Ok(CSeq { sequence: cseq, .. })) = request.headers.typed() else {
            return Err(RegisterError::Malformed("CSeq"));
        };
        let mut update = Self {
            call_id,
            cseq,
            extensions: Extensions::read(request)?,
            address_of_record: match request.headers.typed::<To>() {
                Some(Ok(to)) => Some(to.uri.clone()),
                _ => None,
            },
            contacts: Contacts::Query,
        };
        let expires = match request.headers.typed::<Expires>() {
            None => None,
            Some(Ok(Expires(secs))) => Some(secs),
            Some(Err(_)) => Some(UNREADABLE_EXPIRES_SECS),
        };
        let mut listed = Vec::new();
        let mut has_wildcard = false;
        for contact in request.headers.typed_all::<ContactValue>() {
            match contact {
                Ok(ContactValue::Wildcard) => has_wildcard = true,
                Ok(ContactValue::Address(address)) => {
                    // One more than allowed is enough to refuse, before memory is spent.
                    if listed.len() > config.contacts_max {
                        return Err(RegisterError::TooManyContacts);
                    }
                    let secs = interval(&address, expires, config)?;
                    listed.push((update.binding(now, &address, flow, secs)?, secs));
                }
                Err(_) => return Err(RegisterError::Malformed("Contact")),
            }
        }
        update.contacts = match (has_wildcard, listed.is_empty()) {
            (false, true) if request.headers.get(&HeaderName::Contact).is_some() => {
                return Err(RegisterError::Malformed("Contact"));
            }
            (false, true) => Contacts::Query,
            (false, false) => Contacts::Listed(listed),
            (true, true) if expires == Some(0) => Contacts::Wildcard,
            (true, _) => return Err(RegisterError::WildcardMisused),
        };
        Ok(update)
    }

    fn binding(
        &self,
        now: MonoTime,
        address: &Address,
        flow: &Flow,
        secs: u32,
    ) -> Result<Binding, RegisterError> {
        let is_usable =
            address.uri.scheme().is_sip() && address.uri.to_bytes().len() <= URI_LEN_MAX;
        if !is_usable {
            return Err(RegisterError::Malformed("Contact"));
        }
        // A copy: the parsed URI is a view that would keep the whole message in memory.
        let contact = Uri::parse(Bytes::copy_from_slice(&address.uri.to_bytes()))
            .map_err(|_| RegisterError::Malformed("Contact"))?;
        let instance = instance(address);
        let reg_id = match instance {
            Some(_) => self.extensions.flow_of(address)?,
            None => None,
        };
        let gruu = match (&instance, &self.address_of_record) {
            (Some(instance), Some(aor)) if self.extensions.supports_gruu => gruu(aor, instance),
            _ => None,
        };
        Ok(Binding {
            contact,
            flow: flow.clone(),
            expires_at: now.plus_secs(u64::from(secs)),
            q_millis: address.param("q").and_then(q_millis).unwrap_or(1_000),
            registered_at: now,
            call_id: self.call_id.clone(),
            cseq: self.cseq,
            instance,
            reg_id,
            path: self.extensions.path.clone(),
            gruu,
        })
    }

    /// RFC 3261 §10.3 step 6.
    pub(super) fn remove_all(&self, old: &[Binding]) -> Result<Vec<Binding>, RegisterError> {
        old.iter()
            .try_for_each(|binding| self.supersedes(binding))?;
        Ok(Vec::new())
    }

    /// RFC 3261 §10.3 step 7.
    pub(super) fn apply(
        &self,
        listed: &[(Binding, u32)],
        old: &[Binding],
    ) -> Result<Vec<Binding>, RegisterError> {
        let mut new = old.to_vec();
        for (binding, secs) in listed {
            let known = old.iter().filter(|old| old.is_same_binding(binding));
            known.clone().try_for_each(|old| self.supersedes(old))?;
            new.retain(|other| !other.is_same_binding(binding));
            if *secs > 0 {
                new.push(binding.clone());
            }
        }
        Ok(new)
    }

    /// A binding made under the same Call-ID is changed by a higher CSeq only; another Call-ID is
    /// a phone that started anew.
    fn supersedes(&self, old: &Binding) -> Result<(), RegisterError> {
        if old.call_id == self.call_id && old.cseq >= self.cseq {
            return Err(RegisterError::OutOfOrder);
        }
        Ok(())
    }
}

/// Interval of one contact: its `expires`, else the `Expires` header, else the default.
fn interval(
    address: &Address,
    header: Option<u32>,
    config: &RegistrarConfig,
) -> Result<u32, RegisterError> {
    let parameter = address
        .params
        .iter()
        .find(|parameter| parameter.is("expires"));
    let asked = match parameter {
        Some(parameter) => parameter
            .value
            .as_deref()
            .and_then(|value| std::str::from_utf8(value).ok()?.parse().ok())
            .unwrap_or(UNREADABLE_EXPIRES_SECS),
        None => header.unwrap_or(config.expires_default_secs),
    };
    if asked > 0 && asked < config.expires_min_secs {
        return Err(RegisterError::IntervalTooBrief {
            min_secs: config.expires_min_secs,
        });
    }
    Ok(asked.min(config.expires_max_secs))
}

/// `qvalue` of RFC 3261 §25.1: `0[.ddd]` or `1[.000]`.
fn q_millis(value: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let millis: u16 = format!("{fraction:0<3}").parse().ok()?;
    match whole {
        "0" => Some(millis),
        "1" if millis == 0 => Some(1_000),
        _ => None,
    }
}

fn instance(address: &Address) -> Option<Box<str>> {
    let instance = std::str::from_utf8(address.param("+sip.instance")?).ok()?;
    let is_writable = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    let is_fit =
        (1..=INSTANCE_LEN_MAX).contains(&instance.len()) && instance.bytes().all(is_writable);
    is_fit.then(|| instance.into())
}
