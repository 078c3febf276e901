//! Which dialog a message speaks of: `Replaces` (RFC 3891), and `Refer-To` with one inside
//! (RFC 3515, RFC 5589 §7).
//!
//! ```text
//!   Refer-To: <sip:bob@198.51.100.9?Replaces=c1%40h%3Bto-tag%3Db1%3Bfrom-tag%3Da1>
//!   Replaces: c1@h;to-tag=b1;from-tag=a1
//! ```
//!
//! `to-tag` is the tag of whoever receives the INVITE with the `Replaces`, `from-tag` that of the
//! far end of the dialog it replaces.

use std::fmt;

use bytes::Bytes;
use sipx_sip::headers::Address;
use sipx_sip::{HeaderName, Headers, Scheme, Uri};
use thiserror::Error;

use crate::dialog::without_headers;

/// A `Replaces` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaces {
    /// Call-ID of the dialog.
    pub call_id: Bytes,
    /// The tag of the end that reads this.
    pub to_tag: Bytes,
    /// The tag of its peer.
    pub from_tag: Bytes,
    /// Only a dialog that nobody has answered may be replaced.
    pub early_only: bool,
}

impl Replaces {
    /// Reads the value of a header: `None` without Call-ID or without exactly one of each tag.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let mut parts = value.split(|&b| b == b';').map(<[u8]>::trim_ascii);
        let call_id = parts.next().filter(|call_id| is_word(call_id))?;
        let (mut to_tag, mut from_tag, mut early_only) = (None, None, false);
        for part in parts {
            let (name, value) = match part.iter().position(|&b| b == b'=') {
                Some(at) => (part[..at].trim_ascii(), Some(part[at + 1..].trim_ascii())),
                None => (part, None),
            };
            let slot = if name.eq_ignore_ascii_case(b"to-tag") {
                &mut to_tag
            } else if name.eq_ignore_ascii_case(b"from-tag") {
                &mut from_tag
            } else {
                early_only |= name.eq_ignore_ascii_case(b"early-only");
                continue;
            };
            let value = value.filter(|value| is_word(value))?;
            if slot.replace(Bytes::copy_from_slice(value)).is_some() {
                return None;
            }
        }
        Some(Self {
            call_id: Bytes::copy_from_slice(call_id),
            to_tag: to_tag?,
            from_tag: from_tag?,
            early_only,
        })
    }

    /// The one in a request: `Err` when there are several or it cannot be read.
    pub(crate) fn of(headers: &Headers) -> Result<Option<Self>, MalformedReplaces> {
        match headers.count(&HeaderName::Replaces) {
            0 => Ok(None),
            1 => headers
                .value(&HeaderName::Replaces)
                .and_then(|value| Self::parse(&value))
                .map(Some)
                .ok_or(MalformedReplaces),
            _ => Err(MalformedReplaces),
        }
    }

    /// As it stands in the headers of a URI.
    fn to_uri_header(&self) -> String {
        let mut out = String::new();
        for byte in self.to_string().bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte) {
                out.push(char::from(byte));
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
        }
        out
    }
}

/// The value of the header.
impl fmt::Display for Replaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [call_id, to_tag, from_tag] =
            [&self.call_id, &self.to_tag, &self.from_tag].map(|text| String::from_utf8_lossy(text));
        write!(f, "{call_id};to-tag={to_tag};from-tag={from_tag}")?;
        if self.early_only {
            f.write_str(";early-only")?;
        }
        Ok(())
    }
}

/// The `Replaces` of a request cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MalformedReplaces;

/// Why there is no dialog to replace (RFC 3891 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReplacesError {
    /// No dialog of ours has this name, or it is an early one that the peer began.
    #[error("no such dialog")]
    Unknown,
    /// It has ended.
    #[error("the dialog has ended")]
    Ended,
    /// It is answered, and only an early one was to be replaced.
    #[error("the dialog is answered already")]
    Answered,
}

impl ReplacesError {
    /// How the INVITE is answered.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Unknown => 481,
            Self::Ended => 603,
            Self::Answered => 486,
        }
    }
}

/// Whom a REFER wants called: a `Refer-To` taken apart.
#[derive(Debug, Clone)]
pub struct ReferTarget {
    /// `sip:`, `sips:` or `tel:`, without headers.
    pub uri: Uri,
    /// The dialog at the target that the new call takes the place of: an attended transfer.
    pub replaces: Option<Replaces>,
}

/// Why a `Refer-To` cannot be followed, as the status of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReferToRefused(pub(crate) u16);

impl ReferTarget {
    /// RFC 3515 §2.4.2: exactly one `Refer-To`. Methods other than INVITE are not placed on behalf
    /// of others.
    pub(crate) fn of(headers: &Headers) -> Result<Self, ReferToRefused> {
        const BAD: ReferToRefused = ReferToRefused(400);
        if headers.count(&HeaderName::ReferTo) != 1 {
            return Err(BAD);
        }
        let value = headers.value(&HeaderName::ReferTo).ok_or(BAD)?;
        let Address { uri, .. } = Address::parse(&value, "Refer-To").map_err(|_| BAD)?;
        if !(uri.scheme().is_sip() || matches!(uri.scheme(), Scheme::Tel)) {
            return Err(ReferToRefused(416));
        }
        let method = uri.params().and_then(|params| params.value("method"));
        if method.is_some_and(|method| !method.eq_ignore_ascii_case(b"INVITE")) {
            return Err(ReferToRefused(501));
        }
        let mut replaces = None;
        if let Some(headers) = uri.headers() {
            for header in headers.iter().filter(|header| header.has_name("Replaces")) {
                let value = percent_decoded(header.value().unwrap_or_default());
                let value = Replaces::parse(&value).ok_or(BAD)?;
                if replaces.replace(value).is_some() {
                    return Err(BAD);
                }
            }
        }
        let mut uri = without_headers(uri);
        uri.remove_param("method");
        Ok(Self { uri, replaces })
    }

    /// The value of a `Refer-To`.
    pub(crate) fn to_value(&self) -> Bytes {
        let mut value = b"<".to_vec();
        without_headers(self.uri.clone()).write_to(&mut value);
        if let Some(replaces) = &self.replaces {
            value.extend_from_slice(b"?Replaces=");
            value.extend_from_slice(replaces.to_uri_header().as_bytes());
        }
        value.push(b'>');
        Bytes::from(value)
    }
}

/// What may stand in a Call-ID or a tag without ending it.
fn is_word(text: &[u8]) -> bool {
    !text.is_empty()
        && text
            .iter()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b';' | b',' | b'='))
}

fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let hex = |b: u8| {
        char::from(b)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if let (b'%', [high, low, behind @ ..]) = (byte, after)
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            out.push(high << 4 | low);
            rest = behind;
        } else {
            out.push(byte);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use sipx_sip::Header;

    use super::*;

    #[test]
    fn replaces_is_read_as_rfc_3891_writes_it() {
        for (text, expected) in [
            (
                "98732@sip.example.com ;from-tag=r33th4x0r ;to-tag=ff87ff",
                Some(("98732@sip.example.com", "ff87ff", "r33th4x0r", false)),
            ),
            (
                "12adf2f34456gs5;to-tag=12345;from-tag=54321;early-only",
                Some(("12adf2f34456gs5", "12345", "54321", true)),
            ),
            (
                "a@b;TO-TAG=0;From-Tag=0;x=y",
                Some(("a@b", "0", "0", false)),
            ),
            ("a@b;to-tag=1", None),
            ("a@b;from-tag=1", None),
            ("a@b;to-tag=1;to-tag=2;from-tag=3", None),
            ("a@b;to-tag;from-tag=3", None),
            (";to-tag=1;from-tag=3", None),
            ("a b;to-tag=1;from-tag=3", None),
            ("a@b;to-tag=1;from-tag=2, c@d;to-tag=1;from-tag=2", None),
            ("", None),
        ] {
            let read = Replaces::parse(text.as_bytes());
            let expected = expected.map(|(call_id, to_tag, from_tag, early_only)| Replaces {
                call_id: Bytes::copy_from_slice(call_id.as_bytes()),
                to_tag: Bytes::copy_from_slice(to_tag.as_bytes()),
                from_tag: Bytes::copy_from_slice(from_tag.as_bytes()),
                early_only,
            });
            assert_eq!(read, expected, "{text}");
            if let Some(read) = read {
                assert_eq!(Replaces::parse(read.to_string().as_bytes()), Some(read));
            }
        }
    }

    fn target(rows: &[&str]) -> Result<(String, Option<String>), u16> {
        let mut headers = Headers::new();
        for row in rows {
            headers.push(Header::build(HeaderName::ReferTo, (*row).to_owned()).expect("valid"));
        }
        match ReferTarget::of(&headers) {
            Ok(target) => Ok((
                target.uri.to_string(),
                target.replaces.map(|replaces| replaces.to_string()),
            )),
            Err(ReferToRefused(status)) => Err(status),
        }
    }

    #[test]
    fn refer_to_is_taken_apart_or_refused_with_its_status() {
        let plain = |uri: &str| Ok((uri.to_owned(), None));
        assert_eq!(
            target(&["<sip:bob@example.com>"]),
            plain("sip:bob@example.com")
        );
        assert_eq!(
            target(&["sip:bob@example.com"]),
            plain("sip:bob@example.com")
        );
        assert_eq!(
            target(&["\"Bob\" <sip:bob@example.com;method=INVITE>"]),
            plain("sip:bob@example.com")
        );
        assert_eq!(target(&["<tel:+15550100>"]), plain("tel:+15550100"));
        assert_eq!(target(&["tel:+15550100"]), plain("tel:+15550100"));
        assert_eq!(
            target(&["<sip:b@h?Replaces=c1%40h%3Bto-tag%3Db1%3Bfrom-tag%3Da1&Require=replaces>"]),
            Ok((
                "sip:b@h".to_owned(),
                Some("c1@h;to-tag=b1;from-tag=a1".to_owned())
            ))
        );
        for (rows, status) in [
            (vec![], 400),
            (vec!["<sip:a@h>", "<sip:b@h>"], 400),
            (vec!["<sip:a@h>, <sip:b@h>"], 400),
            (vec!["<sip:b@h?Replaces=c1>"], 400),
            (vec!["<mailto:b@h>"], 416),
            (vec!["<https://h/>"], 416),
            (vec!["<sip:b@h;method=BYE>"], 501),
        ] {
            assert_eq!(target(&rows), Err(status), "{rows:?}");
        }
    }

    #[test]
    fn written_target_reads_back() {
        let written = ReferTarget {
            uri: Uri::parse(Bytes::from_static(b"sip:b@h;transport=tcp")).expect("a URI"),
            replaces: Replaces::parse(b"c%1@h;to-tag=b1;from-tag=a1;early-only"),
        };
        let value = written.to_value();
        let value = std::str::from_utf8(&value).expect("text");
        assert_eq!(
            target(&[value]),
            Ok((
                "sip:b@h;transport=tcp".to_owned(),
                Some("c%1@h;to-tag=b1;from-tag=a1;early-only".to_owned())
            ))
        );
    }
}
