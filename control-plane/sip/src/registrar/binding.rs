//! One contact of an address of record, and what a REGISTER wants done to them.

use std::fmt::Write as _;

use bytes::Bytes;
use sipx_sip::headers::address::ContactValue;
use sipx_sip::headers::misc::Expires;
use sipx_sip::{Address, CSeq, CallId, HeaderName, Request, Uri};
use trunkline_edge_api::MonoTime;

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
    /// `+sip.instance` and `reg-id` (RFC 5626): the same phone, whatever its contact is now.
    instance: Option<(String, Option<u32>)>,
}

impl Binding {
    /// Whether the phone's own idea of its address is not where we see it: its media address
    /// cannot be believed either.
    #[must_use]
    pub fn is_behind_nat(&self) -> bool {
        names_another_address(&self.contact, self.flow.remote.ip())
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
        if let Some((instance, reg_id)) = &self.instance {
            let _ = write!(value, ";+sip.instance=\"{instance}\"");
            if let Some(reg_id) = reg_id {
                let _ = write!(value, ";reg-id={reg_id}");
            }
        }
        value
    }

    /// Whether `other` is this phone: the same contact (RFC 3261 §10.3 step 7), or the same
    /// instance that has moved.
    fn is_same_phone(&self, other: &Binding) -> bool {
        let is_same_instance = self.instance.is_some() && self.instance == other.instance;
        is_same_instance || self.contact.equivalent(&other.contact)
    }
}

/// A REGISTER, read.
pub(super) struct Update {
    call_id: Vec<u8>,
    cseq: u32,
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
        Ok(Binding {
            contact,
            flow: flow.clone(),
            expires_at: now.plus_secs(u64::from(secs)),
            q_millis: address.param("q").and_then(q_millis).unwrap_or(1_000),
            registered_at: now,
            call_id: self.call_id.clone(),
            cseq: self.cseq,
            instance: instance(address),
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
            let known = old.iter().filter(|old| old.is_same_phone(binding));
            known.clone().try_for_each(|old| self.supersedes(old))?;
            new.retain(|other| !other.is_same_phone(binding));
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

fn instance(address: &Address) -> Option<(String, Option<u32>)> {
    let instance = std::str::from_utf8(address.param("+sip.instance")?).ok()?;
    let is_writable = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    if !(1..=INSTANCE_LEN_MAX).contains(&instance.len()) || !instance.bytes().all(is_writable) {
        return None;
    }
    let reg_id = address
        .param("reg-id")
        .and_then(|id| std::str::from_utf8(id).ok()?.parse().ok());
    Some((instance.to_owned(), reg_id))
}
