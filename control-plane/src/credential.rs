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

    /// From the store; `None` when the texts are not what [`Self::hashes_hex`] gives.
    pub(crate) fn from_hex(realm: &str, [md5, sha256, sha512_256]: [&str; 3]) -> Option<Self> {
        Some(Self {
            realm: realm.into(),
            ha1: Ha1 {
                md5: from_hex(md5)?,
                sha256: from_hex(sha256)?,
                sha512_256: match sha512_256 {
                    "" => None,
                    hex => Some(from_hex(hex)?),
                },
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

    /// MD5, SHA-256, SHA-512-256; the last is empty where it was never stored.
    pub(crate) fn hashes_hex(&self) -> [String; 3] {
        let sha512_256 = self.ha1.sha512_256.map(|hash| to_hex(&hash));
        [
            to_hex(&self.ha1.md5),
            to_hex(&self.ha1.sha256),
            sha512_256.unwrap_or_default(),
        ]
    }
}

/// Compares two stored forms, as planning a change does.
impl PartialEq for Credential {
    fn eq(&self, other: &Self) -> bool {
        self.realm == other.realm && self.ha1 == other.ha1
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
        let hashes = credential.hashes_hex();
        let [md5, sha256, sha512_256] = hashes.each_ref().map(String::as_str);
        let read = |hashes| Credential::from_hex("trunkline", hashes);
        assert_eq!(read([md5, sha256, sha512_256]), Some(credential.clone()));
        assert_ne!(credential, Credential::new("ada", "elsewhere", "secret"));
        assert_eq!(read([&md5[1..], sha256, sha512_256]), None);
        let mangled = md5.replace(&md5[..1], "+");
        assert_eq!(read([&mangled, sha256, sha512_256]), None);
        let older = read([md5, sha256, ""]).expect("an earlier release stored two");
        assert_ne!(older, credential);
        assert_eq!(older.hashes_hex()[2], "");
    }

    #[test]
    fn debug_shows_the_realm_only() {
        let shown = format!("{:?}", Credential::new("ada", "trunkline", "secret"));
        assert_eq!(shown, "Credential { realm: \"trunkline\", .. }");
    }
}
