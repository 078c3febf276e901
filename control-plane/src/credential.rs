//! What a phone's digest response is checked against, with the realm it was made for.

use std::fmt;

use trunkline_sip::digest::{Ha1, ha1};

/// The stored form of a password (RFC 7616 §3.4.2). Within its realm it is as good as the
/// password, so `Debug` shows the realm only.
#[derive(Clone)]
pub struct Credential {
    realm: Box<str>,
    ha1: Ha1,
}

impl Credential {
    /// Hashes `password` for `user` in `realm`.
    #[must_use]
    pub fn new(user: &str, realm: &str, password: &str) -> Self {
        Self {
            realm: realm.into(),
            ha1: ha1(user, realm, password),
        }
    }

    /// From the store; `None` when the text is not what [`Self::md5_hex`] and
    /// [`Self::sha256_hex`] give.
    pub(crate) fn from_hex(realm: &str, md5: &str, sha256: &str) -> Option<Self> {
        Some(Self {
            realm: realm.into(),
            ha1: Ha1 {
                md5: from_hex(md5)?,
                sha256: from_hex(sha256)?,
            },
        })
    }

    /// The realm it was made for. It is good for nothing in another.
    #[must_use]
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// What the digest server compares with.
    #[must_use]
    pub fn ha1(&self) -> &Ha1 {
        &self.ha1
    }

    pub(crate) fn md5_hex(&self) -> String {
        to_hex(&self.ha1.md5)
    }

    pub(crate) fn sha256_hex(&self) -> String {
        to_hex(&self.ha1.sha256)
    }
}

/// Compares two stored forms, as planning a change does. Nothing that a stranger sent is ever
/// compared with this, so it need not take constant time.
impl PartialEq for Credential {
    fn eq(&self, other: &Self) -> bool {
        self.realm == other.realm
            && self.ha1.md5 == other.ha1.md5
            && self.ha1.sha256 == other.ha1.sha256
    }
}

impl Eq for Credential {}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("realm", &self.realm)
            .finish_non_exhaustive()
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_form_is_read_back() {
        let credential = Credential::new("ada", "trunkline", "secret");
        let (md5, sha256) = (credential.md5_hex(), credential.sha256_hex());
        assert_eq!(
            Credential::from_hex("trunkline", &md5, &sha256),
            Some(credential.clone())
        );
        assert_ne!(credential, Credential::new("ada", "elsewhere", "secret"));
        assert_eq!(Credential::from_hex("trunkline", &md5[1..], &sha256), None);
        assert_eq!(
            Credential::from_hex("trunkline", &md5.replace(&md5[..1], "+"), &sha256),
            None
        );
    }

    #[test]
    fn debug_shows_the_realm_only() {
        let shown = format!("{:?}", Credential::new("ada", "trunkline", "secret"));
        assert_eq!(shown, "Credential { realm: \"trunkline\", .. }");
    }
}
