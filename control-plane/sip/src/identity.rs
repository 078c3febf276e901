//! Who calls and who is called: RFC 3261 §8.1.1, RFC 3325 (asserted identity), RFC 3323
//! (privacy), RFC 3966 (telephone numbers), RFC 5806 and RFC 7044 (diversion).
//!
//! What a stranger writes into `From` is a claim. `P-Asserted-Identity` is believed from peers
//! inside the trust domain alone, which here are the trunks.

#[cfg(test)]
mod tests;

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv6Addr};

use bytes::Bytes;
use sipx_sip::headers::address::{Contact, From, To};
use sipx_sip::headers::misc::MaxForwards;
use sipx_sip::{
    Address, CallId, Header, HeaderName, Host, PAssertedIdentityList, Request, Scheme, Uri,
};

use crate::flow::Flow;

/// Longest name or user part that is handed on, characters.
const TEXT_LEN_MAX: usize = 128;

/// E.164 allows 15 digits; fewer than 7 are an extension or a short code of one network.
const DIGITS_MIN: usize = 7;
const DIGITS_MAX: usize = 15;

/// Who a request is from.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Caller {
    /// An E.164 number with `+` when the caller's was written as an international one; bare digits
    /// may as well be a national number, so they stay as they are, as does the name of a user.
    /// [`ANONYMOUS`] when there is nothing.
    pub number: String,
    /// The display name.
    pub display_name: Option<String>,
    /// The caller asked that none of this be shown to the callee (RFC 3323 `id`, `user` or
    /// `header`, or an anonymous `From`). Records may keep it, a call to an untrusted party must
    /// not.
    pub is_withheld: bool,
    /// What the trunk's network found out about the number (3GPP TS 24.229 §7.2A.20, ATIS-1000074):
    /// one of `VERSTATS`. `None`: nothing, or nobody who is believed.
    pub verstat: Option<&'static str>,
}

/// Values of `verstat` that are passed on; the letter is the attestation, which some carriers add.
const VERSTATS: [&str; 9] = [
    "TN-Validation-Passed",
    "TN-Validation-Passed-A",
    "TN-Validation-Passed-B",
    "TN-Validation-Passed-C",
    "TN-Validation-Failed",
    "TN-Validation-Failed-A",
    "TN-Validation-Failed-B",
    "TN-Validation-Failed-C",
    "No-TN-Validation",
];

/// Rows of diversion that are passed on. A call forwarded more often has lost its way.
const DIVERSIONS_MAX: usize = 10;

/// The user part that RFC 3323 §4.1.1.3 gives to callers without a name.
pub const ANONYMOUS: &str = "anonymous";

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("number", &Redacted(&self.number))
            .field("is_withheld", &self.is_withheld)
            .finish_non_exhaustive()
    }
}

/// The last two characters: numbers of people do not belong in logs.
struct Redacted<'a>(&'a str);

impl fmt::Display for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.char_indices().rev().nth(1).map_or(0, |(at, _)| at);
        write!(f, "…{}", &self.0[shown..])
    }
}

impl fmt::Debug for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whom `request` is for: the user of its request URI, else that of `To` (a trunk that registered
/// us may call a contact without one), escapes decoded: an extension, a number as it was dialled
/// ([`e164`] reads it), a name. `None` when neither names a user.
#[must_use]
pub fn called(request: &Request) -> Option<String> {
    user_of(&request.uri).or_else(|| address_of_record(request))
}

/// The user of `To`: in a REGISTER the address of record.
#[must_use]
pub fn address_of_record(request: &Request) -> Option<String> {
    let to: To = request.headers.typed()?.ok()?;
    user_of(&to.uri)
}

/// Who `request` is from: a believed `P-Asserted-Identity`, else `From`. `is_trusted` says that
/// the peer is inside the trust domain of RFC 3325: a trunk.
#[must_use]
pub fn caller(request: &Request, is_trusted: bool) -> Caller {
    let from = request
        .headers
        .typed::<From>()
        .and_then(Result::ok)
        .map(|From(from)| from);
    let is_anonymous = from.as_ref().is_none_or(is_anonymous);
    let from = from.filter(|_| !is_anonymous);
    let asserted = if is_trusted {
        asserted_identity(request)
    } else {
        None
    };
    let user = asserted
        .as_ref()
        .or(from.as_ref())
        .and_then(|address| user_of(&address.uri));
    let number = match user {
        None => ANONYMOUS.to_owned(),
        Some(user) if is_international(&user) => e164(&user).unwrap_or(user),
        Some(user) => user,
    };
    let verstat = [asserted.as_ref(), from.as_ref()]
        .into_iter()
        .flatten()
        .filter(|_| is_trusted)
        .find_map(|address| verstat_of(&address.uri));
    // Networks assert the number and often leave the name to From.
    let names = [asserted.as_ref(), from.as_ref()];
    Caller {
        number,
        display_name: names.into_iter().flatten().find_map(display_name),
        is_withheld: is_anonymous || wants_privacy(request),
        verstat,
    }
}

/// `verstat` of an address: a parameter of the telephone number, or of the URI. Any other value
/// is not passed on: whoever shows it would not know what it means.
fn verstat_of(uri: &Uri) -> Option<&'static str> {
    let text = uri.to_string();
    let value = text.split([';', '@', '?', '>']).find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.eq_ignore_ascii_case("verstat").then_some(value)
    })?;
    VERSTATS
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(value))
}

/// From whom the call was diverted on its way to us, as its INVITE says it in `Diversion` and
/// `History-Info`, in order; nothing when the caller wants that hidden (RFC 7044 §10.1.2, RFC 3323).
#[must_use]
pub fn diversions(request: &Request) -> Vec<Header> {
    let hides_history = request.headers.get_all(&HeaderName::Privacy).any(|row| {
        let value = row.value();
        value
            .split(|byte| matches!(byte, b';' | b','))
            .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"history"))
    });
    if hides_history || wants_privacy(request) {
        return Vec::new();
    }
    let is_diversion = |row: &&Header| {
        let name = row.name().to_string();
        name.eq_ignore_ascii_case("Diversion") || name.eq_ignore_ascii_case("History-Info")
    };
    let rows = request.headers.iter().filter(is_diversion);
    rows.take(DIVERSIONS_MAX).cloned().collect()
}

/// Who a phone asks to be shown as: the user of `P-Preferred-Identity` (RFC 3325 §9.2). `None`
/// when it asks for nothing, and `From` is all there is.
#[must_use]
pub fn preferred(request: &Request) -> Option<String> {
    let row = request.headers.get(&HeaderName::PPreferredIdentity)?;
    let address = Address::parse(&row.value(), "P-Preferred-Identity").ok()?;
    user_of(&address.uri)
}

/// Whether the peer's own idea of its address, its `Contact`, is not where we see it (`flow`): it
/// is behind NAT, and the media address it names cannot be believed either.
#[must_use]
pub fn is_behind_nat(request: &Request, flow: &Flow) -> bool {
    let contact = request.headers.typed::<Contact>().and_then(Result::ok);
    contact.is_some_and(|contact| names_another_address(&contact.uri, flow.remote.ip()))
}

/// Whether `uri` names another address than `seen`. Host names decide nothing, save those under
/// `.invalid`, which peers without an address put there.
pub(crate) fn names_another_address(uri: &Uri, seen: IpAddr) -> bool {
    match uri.host() {
        Some(Host::Ip(ip)) => ip.to_canonical() != seen.to_canonical(),
        Some(Host::Name(name)) => name.as_bytes().to_ascii_lowercase().ends_with(b".invalid"),
        None => false,
    }
}

/// `sip:user@host`, with what the grammar does not allow in a user part escaped, and an IPv6
/// address in brackets (RFC 3261 §25.1 `IPv6reference`). `None` when `host` is no host or `user`
/// is empty.
#[must_use]
pub fn user_at(user: &str, host: &str) -> Option<Uri> {
    let mut text = String::from("sip:");
    for byte in user.bytes() {
        // `unreserved` and `user-unreserved` of RFC 3261 §25.1 but for `;`, `?` and `/`, which
        // careless parsers stop at.
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text.push('@');
    if host.parse::<Ipv6Addr>().is_ok() {
        let _ = write!(text, "[{host}]");
    } else {
        text.push_str(host);
    }
    let uri = Uri::parse(Bytes::from(text)).ok()?;
    uri.user()
        .is_some_and(|user| !user.is_empty())
        .then_some(uri)
}

/// [`user_at`] with what is known of the number, for the phone to show: never as an asserted
/// identity, which a phone outside the trust domain does not get (RFC 3325 §5).
#[must_use]
pub fn verified_at(user: &str, host: &str, verstat: Option<&'static str>) -> Option<Uri> {
    let uri = user_at(user, host)?;
    match verstat {
        Some(verstat) => Uri::parse(Bytes::from(format!("{uri};verstat={verstat}"))).ok(),
        None => Some(uri),
    }
}

/// `Max-Forwards`; 70 when there is none that can be read (RFC 3261 §16.6 step 3).
#[must_use]
pub fn max_forwards(request: &Request) -> u8 {
    request
        .headers
        .typed()
        .and_then(Result::ok)
        .map_or(70, |MaxForwards(hops)| hops)
}

/// The peer's `Call-ID`, fit for a log line; empty when there is none.
#[must_use]
pub fn call_id(request: &Request) -> String {
    let call_id = request.headers.typed().and_then(Result::ok);
    call_id.map_or_else(String::new, |CallId(call_id)| clean(&call_id))
}

/// `text` as an E.164 number: `+` and 7 to 15 digits. Read are `+44…`, `0044…` and bare `44…`,
/// which is how many carriers write the DID they deliver; with the separators of RFC 3966 §5.1.1
/// (`-`, `.`, `(`, `)`) and blanks. A number that begins with a single 0 is national: `None`.
#[must_use]
pub fn e164(text: &str) -> Option<String> {
    let mut digits = String::with_capacity(DIGITS_MAX + 1);
    let text = text.trim();
    for character in text.strip_prefix('+').unwrap_or(text).chars() {
        match character {
            '0'..='9' => digits.push(character),
            '-' | '.' | '(' | ')' | ' ' => {}
            _ => return None,
        }
        // Two more than fit, for a leading 00.
        if digits.len() > DIGITS_MAX + 2 {
            return None;
        }
    }
    let digits = match digits.strip_prefix("00") {
        Some(international) if !text.starts_with('+') => international,
        _ => &digits,
    };
    let is_number = (DIGITS_MIN..=DIGITS_MAX).contains(&digits.len()) && !digits.starts_with('0');
    is_number.then(|| format!("+{digits}"))
}

/// Whether a number says itself that a country code leads it.
fn is_international(text: &str) -> bool {
    text.starts_with('+') || text.starts_with("00")
}

/// The user part of a SIP URI, or the subscriber of a `tel:` URI. Telephone parameters
/// (`;npdi`, `;phone-context=…`) are taken off; a global context completes a local number.
fn user_of(uri: &Uri) -> Option<String> {
    let (subscriber, parameters) = match uri.scheme() {
        Scheme::Tel => {
            let parts = uri.tel_parts()?;
            (
                parts.subscriber().to_vec(),
                parts.parameters().map(<[u8]>::to_vec),
            )
        }
        _ => {
            let user = uri.decoded_user()?;
            match user.iter().position(|byte| *byte == b';') {
                // `sip:+15551234567;npdi@host;user=phone` (RFC 3261 §19.1.6).
                Some(at)
                    if user
                        .first()
                        .is_some_and(|b| b.is_ascii_digit() || *b == b'+') =>
                {
                    (user[..at].to_vec(), Some(user[at + 1..].to_vec()))
                }
                _ => (user, None),
            }
        }
    };
    let subscriber = clean(&subscriber);
    let context = parameters.as_deref().and_then(global_context);
    match context {
        Some(context) if !is_international(&subscriber) => Some(format!("{context}{subscriber}")),
        _ => Some(subscriber),
    }
    .filter(|user| !user.is_empty())
}

/// The value of `phone-context`, when it is the start of a number (`+44`) and not a domain.
fn global_context(parameters: &[u8]) -> Option<String> {
    let parameters = std::str::from_utf8(parameters).ok()?;
    let context = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.eq_ignore_ascii_case("phone-context").then_some(value)
    })?;
    let digits = context.strip_prefix('+')?;
    let is_prefix = (1..=DIGITS_MAX).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_prefix.then(|| context.to_owned())
}

fn display_name(address: &Address) -> Option<String> {
    let name = clean(address.display_name.as_deref()?);
    (!name.is_empty()).then_some(name)
}

/// Text from the network, fit for a log line or a header of ours: UTF-8, no control characters,
/// of bounded length.
fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let printable = text
        .trim()
        .chars()
        .filter(|character| !character.is_control());
    printable.take(TEXT_LEN_MAX).collect()
}

/// `sip:anonymous@anonymous.invalid` of RFC 3323 §4.1.1.3, in the spellings that occur.
fn is_anonymous(from: &Address) -> bool {
    let user = from.uri.decoded_user().unwrap_or_default();
    let is_invalid_host = from
        .uri
        .host()
        .is_some_and(|host| host.to_bytes().to_ascii_lowercase().ends_with(b".invalid"));
    user.eq_ignore_ascii_case(ANONYMOUS.as_bytes()) || is_invalid_host
}

/// The identity a trunk vouches for: of the two that RFC 3325 §9.1 allows, the one with a number.
fn asserted_identity(request: &Request) -> Option<Address> {
    let list = PAssertedIdentityList::from_headers(&request.headers)
        .ok()
        .flatten()?;
    let has_number = |address: &Address| user_of(&address.uri).is_some_and(|u| e164(&u).is_some());
    let addresses = || list.values().iter().map(|identity| identity.address());
    addresses()
        .find(|address| has_number(address))
        .or_else(|| addresses().next())
        .cloned()
}

/// Whether `Privacy` asks to hide the identity. `critical` and `session` concern other things.
fn wants_privacy(request: &Request) -> bool {
    request.headers.get_all(&HeaderName::Privacy).any(|header| {
        let value = header.value();
        value
            .split(|byte| matches!(byte, b';' | b','))
            .any(|token| {
                let token = token.trim_ascii();
                [b"id".as_slice(), b"user", b"header"]
                    .iter()
                    .any(|t| token.eq_ignore_ascii_case(t))
            })
    })
}
