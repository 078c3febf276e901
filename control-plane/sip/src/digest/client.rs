//! Digest authentication, the client's side: RFC 7616 with the SIP rules of RFC 8760 and
//! RFC 3261 §22.
//!
//! ```text
//! REGISTER                        ──▶
//!      ◀── 401, WWW-Authenticate      one row per algorithm of a realm, the best one is taken
//! REGISTER, Authorization         ──▶
//! ```
//!
//! RFC 8760 §2.4 would have the topmost row that is understood; the strongest is taken instead, so
//! that nobody on the path can choose MD5 by moving a row. Left out: `userhash`, `Basic` (it sends
//! the password), `Authentication-Info`.

use std::fmt;

use md5::Md5;
use sha2::{Digest, Sha256, Sha512_256};
use sipx_sip::{Header, HeaderName, Headers, Request};
use zeroize::Zeroizing;

use super::Ha1;
use super::credentials::{self, Parameters, encode_hex};

/// Challenges of one response that are read: two proxies and a server with three algorithms each
/// send nine.
const CHALLENGES_MAX: usize = 16;

/// Who we are to a peer that asks.
#[derive(Clone)]
pub struct ClientCredentials {
    /// `username`, as the peer knows it.
    pub username: String,
    /// What proves it.
    pub secret: Secret,
}

/// What proves a user name. It does not print.
#[derive(Clone)]
pub enum Secret {
    /// The password, good for every realm and algorithm.
    Password(Zeroizing<String>),
    /// What is stored of a password within one realm; a challenge of another realm is not answered
    /// with it.
    Ha1 {
        /// The realm it was made for.
        realm: String,
        /// The hashes.
        ha1: Ha1,
    },
}

impl ClientCredentials {
    /// Credentials with a password.
    #[must_use]
    pub fn with_password(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            username: username.into(),
            secret: Secret::Password(Zeroizing::new(password.into())),
        }
    }
}

impl fmt::Debug for ClientCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCredentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// Who asks: it decides which header answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asker {
    Server,
    Proxy,
}

impl Asker {
    const ALL: [Self; 2] = [Self::Server, Self::Proxy];

    const fn challenge_header(self) -> HeaderName {
        match self {
            Self::Server => HeaderName::WwwAuthenticate,
            Self::Proxy => HeaderName::ProxyAuthenticate,
        }
    }

    const fn answer_header(self) -> HeaderName {
        match self {
            Self::Server => HeaderName::Authorization,
            Self::Proxy => HeaderName::ProxyAuthorization,
        }
    }
}

/// The hashes of RFC 7616 §3.2, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Hash {
    Md5,
    Sha256,
    Sha512Of256,
}

impl Hash {
    fn hex(self, input: &[u8]) -> String {
        match self {
            Self::Md5 => encode_hex(&Md5::digest(input)),
            Self::Sha256 => encode_hex(&Sha256::digest(input)),
            Self::Sha512Of256 => encode_hex(&Sha512_256::digest(input)),
        }
    }
}

/// What `qop` a challenge lets us answer with, best first: `auth-int` is for those who offer
/// nothing else, since middleboxes rewrite bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Qop {
    Auth,
    AuthInt,
    /// RFC 2069: no `qop` at all.
    Legacy,
}

impl Qop {
    const fn token(self) -> Option<&'static str> {
        match self {
            Self::Auth => Some("auth"),
            Self::AuthInt => Some("auth-int"),
            Self::Legacy => None,
        }
    }
}

/// A challenge that can be answered. Values are as written: they are hashed and sent back so.
#[derive(Debug)]
struct Challenge {
    asker: Asker,
    realm: String,
    nonce: String,
    opaque: Option<String>,
    /// As written, to be echoed; `None` where the peer names none, which means MD5.
    algorithm: Option<String>,
    hash: Hash,
    is_session: bool,
    qop: Qop,
    stale: bool,
}

impl Challenge {
    /// `None` for what cannot be answered; RFC 8760 §2.4 has it ignored.
    fn new(asker: Asker, parameters: &Parameters) -> Option<Self> {
        let algorithm = parameters.raw("algorithm").map(str::to_owned);
        let name = algorithm.as_deref().unwrap_or("MD5").to_ascii_lowercase();
        let (name, is_session) = match name.strip_suffix("-sess") {
            Some(name) => (name, true),
            None => (name.as_str(), false),
        };
        let hash = match name {
            "md5" => Hash::Md5,
            "sha-256" => Hash::Sha256,
            "sha-512-256" => Hash::Sha512Of256,
            _ => return None,
        };
        let offers = |token: &str, list: &str| {
            list.split(',')
                .any(|option| option.trim().eq_ignore_ascii_case(token))
        };
        let qop = match parameters.raw("qop") {
            None if is_session => return None,
            None => Qop::Legacy,
            Some(list) if offers("auth", list) => Qop::Auth,
            Some(list) if offers("auth-int", list) => Qop::AuthInt,
            Some(_) => return None,
        };
        Some(Self {
            asker,
            realm: parameters.raw("realm")?.to_owned(),
            nonce: parameters.raw("nonce")?.to_owned(),
            opaque: parameters.raw("opaque").map(str::to_owned),
            algorithm,
            hash,
            is_session,
            qop,
            stale: parameters
                .raw("stale")
                .is_some_and(|stale| stale.eq_ignore_ascii_case("true")),
        })
    }

    /// Whether `secret` can answer it.
    fn fits(&self, secret: &Secret) -> bool {
        match secret {
            Secret::Password(_) => true,
            Secret::Ha1 { realm, ha1 } => {
                self.realm == *realm && (self.hash != Hash::Sha512Of256 || ha1.sha512_256.is_some())
            }
        }
    }

    /// `Authorization` or `Proxy-Authorization` for `request`.
    fn answer(
        &self,
        credentials: &ClientCredentials,
        request: &Request,
        nonce_count: u32,
        cnonce: &str,
    ) -> Option<Header> {
        let hash = self.hash;
        let (realm, nonce) = (&self.realm, &self.nonce);
        let mut ha1 = match &credentials.secret {
            Secret::Password(password) => {
                let user = &credentials.username;
                let realm = unescaped(realm);
                let input = Zeroizing::new(format!("{user}:{realm}:{}", password.as_str()));
                hash.hex(input.as_bytes())
            }
            Secret::Ha1 { ha1, .. } => match hash {
                Hash::Md5 => encode_hex(&ha1.md5),
                Hash::Sha256 => encode_hex(&ha1.sha256),
                Hash::Sha512Of256 => encode_hex(&ha1.sha512_256?),
            },
        };
        if self.is_session {
            ha1 = hash.hex(format!("{ha1}:{nonce}:{cnonce}").as_bytes());
        }
        let mut uri = Vec::new();
        request.uri.write_to(&mut uri);
        let mut a2 = [request.method.as_bytes(), b":", &uri].concat();
        if self.qop == Qop::AuthInt {
            a2.extend_from_slice(format!(":{}", hash.hex(request.body())).as_bytes());
        }
        let ha2 = hash.hex(&a2);
        let input = match self.qop.token() {
            Some(qop) => format!("{ha1}:{nonce}:{nonce_count:08x}:{cnonce}:{qop}:{ha2}"),
            None => format!("{ha1}:{nonce}:{ha2}"),
        };
        let response = hash.hex(input.as_bytes());

        let uri = String::from_utf8(uri).ok()?;
        let username = escaped(&credentials.username);
        let mut value = format!(
            "Digest username=\"{username}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", \
             response=\"{response}\""
        );
        if let Some(algorithm) = &self.algorithm {
            value.push_str(&format!(", algorithm={algorithm}"));
        }
        if let Some(qop) = self.qop.token() {
            value.push_str(&format!(
                ", qop={qop}, nc={nonce_count:08x}, cnonce=\"{cnonce}\""
            ));
        }
        if let Some(opaque) = &self.opaque {
            value.push_str(&format!(", opaque=\"{opaque}\""));
        }
        Header::build(self.asker.answer_header(), value).ok()
    }
}

/// What was answered already for one request: an answer that was refused is not given again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct AnswersGiven {
    count: u8,
    /// A refusal said that only the nonce was old.
    was_stale: bool,
}

/// How often one request is sent again with other credentials: a proxy asks, the server behind it
/// asks, and the nonce of one of them grows old; more is no honest peer.
const ANSWERS_MAX: u8 = 4;

/// Replaces the credentials in `request` by those that `challenges` (the headers of a 401 or 407)
/// ask for. `next_count` gives the count of a nonce's use. `false` when there is nothing new to
/// say: none can be answered, or the same answer was refused.
pub(crate) fn authorize(
    request: &mut Request,
    challenges: &Headers,
    credentials: &ClientCredentials,
    given: &mut AnswersGiven,
    cnonce: u64,
    mut next_count: impl FnMut(&str) -> u32,
) -> bool {
    if given.count >= ANSWERS_MAX {
        return false;
    }
    let cnonce = format!("{cnonce:016x}");
    let mut is_new = false;
    for challenge in chosen(challenges, &credentials.secret) {
        let name = challenge.asker.answer_header();
        let was_answered = request.headers.get_all(&name).any(|row| {
            let value = row.value();
            let answered = credentials::parameters(&value);
            answered.is_some_and(|answered| answered.raw("realm") == Some(&challenge.realm))
        });
        if was_answered {
            if !challenge.stale || given.was_stale {
                return false;
            }
            given.was_stale = true;
        }
        let count = next_count(&challenge.nonce);
        let Some(answer) = challenge.answer(credentials, request, count, &cnonce) else {
            continue;
        };
        request.headers.retain(|row| {
            let value = row.value();
            *row.name() != name
                || credentials::parameters(&value)
                    .is_none_or(|old| old.raw("realm") != Some(&challenge.realm))
        });
        // Before the headers that tell of the body, which come last.
        let index = request.headers.len().saturating_sub(1);
        request.headers.insert(index, answer);
        is_new = true;
    }
    given.count += u8::from(is_new);
    is_new
}

/// The strongest challenge of every realm, in the order of the realms.
fn chosen(headers: &Headers, secret: &Secret) -> Vec<Challenge> {
    let mut chosen: Vec<Challenge> = Vec::new();
    for asker in Asker::ALL {
        let name = asker.challenge_header();
        for row in headers.get_all(&name).take(CHALLENGES_MAX) {
            let value = row.value();
            let challenge = credentials::parameters(&value)
                .and_then(|parameters| Challenge::new(asker, &parameters))
                .filter(|challenge| challenge.fits(secret));
            let Some(challenge) = challenge else {
                continue;
            };
            match chosen
                .iter_mut()
                .find(|other| other.asker == asker && other.realm == challenge.realm)
            {
                Some(other) if other.hash < challenge.hash => *other = challenge,
                Some(_) => {}
                None => chosen.push(challenge),
            }
        }
    }
    chosen
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

/// RFC 7616 §3.4.2 hashes `unq(realm-value)`.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => out.extend(characters.next()),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests;
