//! Digest authentication, the server's side: RFC 7616 with the SIP rules of RFC 8760 and
//! RFC 3261 §22.
//!
//! ```text
//! REGISTER                              ──▶ verify: NoCredentials
//!      ◀── 401, two WWW-Authenticate        challenge: SHA-256 first, then MD5, fresh nonce
//! REGISTER, Authorization nc=00000001   ──▶ verify: the user's name
//! REGISTER, Authorization nc=00000002   ──▶ verify: the user's name
//!              … nonce_lifetime_secs later: Stale, and a 401 with stale=true, which a phone
//!              answers without asking its user
//! ```
//!
//! Only `HA1` values are stored ([`Ha1`]), never passwords. A nonce carries its own time and
//! proof, so a challenge costs no memory; memory is spent, bounded, only on nonces that someone
//! used with the right password. Left out: `auth-int` and the `-sess` algorithms (never offered),
//! `userhash`, `Authentication-Info`.

pub(crate) mod client;
mod credentials;
mod nonce;
#[cfg(test)]
mod tests;

use std::fmt;
use std::hint::black_box;
use std::net::IpAddr;

use md5::Md5;
use sha2::{Digest, Sha256, Sha512_256};
use sipx_sip::{Header, HeaderName, Request, Uri};
use trunkline_edge_api::MonoTime;

pub use client::{ClientCredentials, Secret};
use credentials::Credentials;
use nonce::{NonceMint, NonceState};

/// Most `Authorization` headers of one request that are read: a phone that knows two realms and
/// answers both of our challenges sends four.
const AUTHORIZATIONS_MAX: usize = 4;

/// What is stored of a password: `H(user ":" realm ":" password)` in each algorithm. It is as
/// good as the password within the realm, so it does not print.
#[derive(Clone)]
pub struct Ha1 {
    /// For phones that know nothing better.
    pub md5: [u8; 16],
    /// RFC 7616's.
    pub sha256: [u8; 32],
    /// RFC 7616's other one. `None`: stored by a release that did not know it, and no answer made
    /// with it is right until the password has been stored again.
    pub sha512_256: Option<[u8; 32]>,
}

/// The [`Ha1`] of a password, for the site file and the store. `user` is the name that the phone
/// sends as `username`; none of the three is limited in charset (UTF-8 is hashed as it stands).
#[must_use]
pub fn ha1(user: &str, realm: &str, password: &str) -> Ha1 {
    let input = format!("{user}:{realm}:{password}");
    Ha1 {
        md5: Md5::digest(&input).into(),
        sha256: Sha256::digest(&input).into(),
        sha512_256: Some(Sha512_256::digest(&input).into()),
    }
}

impl fmt::Debug for Ha1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ha1(redacted)")
    }
}

impl PartialEq for Ha1 {
    /// In constant time.
    fn eq(&self, other: &Self) -> bool {
        equal_in_constant_time(&self.md5, &other.md5)
            & equal_in_constant_time(&self.sha256, &other.sha256)
            & match (&self.sha512_256, &other.sha512_256) {
                (Some(ours), Some(theirs)) => equal_in_constant_time(ours, theirs),
                (ours, theirs) => ours.is_none() && theirs.is_none(),
            }
    }
}

impl Eq for Ha1 {}

/// A hash that a challenge may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RFC 7616, RFC 8760.
    Sha256,
    /// RFC 7616, RFC 8760: SHA-512 cut to 256 bits.
    Sha512256,
    /// RFC 2617; what every phone knows.
    Md5,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sha512256, Self::Sha256, Self::Md5];

    /// As headers and the configuration write it.
    #[must_use]
    pub const fn token(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA-256",
            Self::Sha512256 => "SHA-512-256",
            Self::Md5 => "MD5",
        }
    }

    /// An absent parameter means MD5 (RFC 7616 §3.3).
    fn parse(token: Option<&str>) -> Option<Self> {
        match token {
            None => Some(Self::Md5),
            Some(token) => Self::ALL
                .into_iter()
                .find(|a| token.eq_ignore_ascii_case(a.token())),
        }
    }

    fn hash(self, input: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => Sha256::digest(input).to_vec(),
            Self::Sha512256 => Sha512_256::digest(input).to_vec(),
            Self::Md5 => Md5::digest(input).to_vec(),
        }
    }
}

/// Settings of a [`DigestServer`].
#[derive(Debug, Clone)]
pub struct DigestConfig {
    /// The protection space: `[sip] realm`. Every stored [`Ha1`] depends on it.
    pub realm: String,
    /// What is offered, in the order of the challenges. RFC 8760 §2.4 has a client take the topmost
    /// it knows; many read no more than the first, and fail when that is not MD5.
    pub algorithms: Vec<Algorithm>,
    /// How long a nonce may be used. 300 s: a phone that registers every minute is asked for a
    /// fresh one every fifth time, and a stolen nonce soon helps nobody.
    pub nonce_lifetime_secs: u64,
    /// A nonce is good only for the IP address that it was given to. Phones whose NAT changes its
    /// public address between two requests pay one more round trip.
    pub bind_source: bool,
    /// Nonces in use whose counts are remembered. When there are more, the oldest end early,
    /// with `stale=true`.
    pub nonces_max: usize,
}

impl DigestConfig {
    /// The defaults for `realm`.
    #[must_use]
    pub fn new(realm: impl Into<String>) -> Self {
        Self {
            realm: realm.into(),
            algorithms: vec![Algorithm::Md5, Algorithm::Sha256],
            nonce_lifetime_secs: 300,
            bind_source: true,
            nonces_max: 20_000,
        }
    }
}

/// The realm cannot stand in a quoted string.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the realm {0:?} must be printable ASCII without quotes and backslashes, 1 to 128 bytes")]
pub struct InvalidRealm(String);

/// Why a request is not authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DigestError {
    /// No `Authorization` for our realm with an algorithm that was offered.
    #[error("no credentials for this realm")]
    NoCredentials,
    /// There is no such user. The caller is told the same as for a wrong password.
    #[error("unknown user")]
    UnknownUser,
    /// The password was wrong.
    #[error("wrong response")]
    WrongResponse,
    /// The user's password was stored before this algorithm was known.
    #[error(
        "this user's password must be stored again (apply the site file) to use this algorithm"
    )]
    NotStored,
    /// The password was right, but the nonce is old, of an earlier life of this process, or
    /// another's.
    #[error("stale nonce")]
    Stale,
    /// The password was right, but this nonce count was used before: a captured request.
    #[error("nonce count used before")]
    Replayed,
    /// A parameter is missing or cannot be read.
    #[error("malformed credentials")]
    Malformed,
    /// The credentials were made for another request URI (RFC 7616 §3.4.6).
    #[error("credentials for another URI")]
    UriMismatch,
}

impl DigestError {
    /// 401 where a challenge may help, 400 where the request is broken.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed | Self::UriMismatch => 400,
            _ => 401,
        }
    }

    /// Whether the next challenge says `stale=true`: the password was right.
    #[must_use]
    pub fn is_stale(self) -> bool {
        matches!(self, Self::Stale | Self::Replayed)
    }

    /// Whether this counts against the source: somebody is guessing.
    #[must_use]
    pub fn is_guess(self) -> bool {
        matches!(self, Self::UnknownUser | Self::WrongResponse)
    }
}

/// Challenges requests and checks the answers.
pub struct DigestServer {
    algorithms: Vec<Algorithm>,
    realm: String,
    mint: NonceMint,
    /// Stands in for an unknown user's, so that the time taken does not tell the two apart.
    nobody: Ha1,
}

impl fmt::Debug for DigestServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DigestServer")
            .field("realm", &self.realm)
            .finish_non_exhaustive()
    }
}

impl DigestServer {
    /// `secret` signs the nonces; it is random and need not outlive the process.
    ///
    /// # Errors
    /// The realm cannot be written into a header.
    pub fn new(config: DigestConfig, secret: [u8; 32]) -> Result<Self, InvalidRealm> {
        let is_writable = |byte: u8| matches!(byte, 0x20..=0x7e) && !matches!(byte, b'"' | b'\\');
        if !(1..=128).contains(&config.realm.len()) || !config.realm.bytes().all(is_writable) {
            return Err(InvalidRealm(config.realm));
        }
        let nobody = Ha1 {
            md5: Md5::digest(secret).into(),
            sha256: Sha256::digest(secret).into(),
            sha512_256: Some(Sha512_256::digest(secret).into()),
        };
        Ok(Self {
            mint: NonceMint::new(&config, secret),
            algorithms: config.algorithms,
            realm: config.realm,
            nobody,
        })
    }

    /// The realm, as [`ha1`] needs it.
    #[must_use]
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// The `WWW-Authenticate` headers of a 401 to a request from `source`. `stale` as
    /// [`DigestError::is_stale`] says.
    pub fn challenge(&mut self, now: MonoTime, source: IpAddr, stale: bool) -> Vec<Header> {
        let nonce = self.mint.issue(now, source);
        let stale = if stale { ", stale=true" } else { "" };
        let realm = &self.realm;
        self.algorithms
            .iter()
            .map(|algorithm| {
                let value = format!(
                    "Digest realm=\"{realm}\", nonce=\"{nonce}\", algorithm={}, qop=\"auth\"{stale}",
                    algorithm.token()
                );
                Header::build(HeaderName::WwwAuthenticate, value)
                    .expect("the realm was checked and the rest is ASCII")
            })
            .collect()
    }

    /// Checks the credentials of `request`, which came from `source`. `ha1_of` is asked at most
    /// once, with the user name that was sent. Returns that name; whether it may do what it asks
    /// for is for the caller to say.
    ///
    /// # Errors
    /// See [`DigestError`]; its `status` and `is_stale` say how to answer.
    pub fn verify(
        &mut self,
        now: MonoTime,
        source: IpAddr,
        request: &Request,
        ha1_of: impl FnOnce(&str) -> Option<Ha1>,
    ) -> Result<String, DigestError> {
        let (algorithm, credentials) = self.choose_credentials(request)?;
        if !is_same_resource(&credentials.uri, &request.uri) {
            return Err(DigestError::UriMismatch);
        }
        let known = ha1_of(&credentials.username);
        let stored = known.as_ref().unwrap_or(&self.nobody);
        let ha1 = match algorithm {
            Algorithm::Sha256 => stored.sha256.as_slice(),
            Algorithm::Sha512256 => match &stored.sha512_256 {
                Some(ha1) => ha1.as_slice(),
                None => return Err(DigestError::NotStored),
            },
            Algorithm::Md5 => stored.md5.as_slice(),
        };
        let expected = credentials.expected_response(algorithm, ha1, request.method.as_bytes());
        let is_right = equal_in_constant_time(&expected, &credentials.response);
        match known {
            None => return Err(DigestError::UnknownUser),
            Some(_) if !is_right => return Err(DigestError::WrongResponse),
            Some(_) => {}
        }
        match self
            .mint
            .redeem(now, source, &credentials.nonce, credentials.nonce_count())
        {
            NonceState::Fresh => Ok(credentials.username),
            NonceState::Stale => Err(DigestError::Stale),
            NonceState::Replayed => Err(DigestError::Replayed),
        }
    }

    /// The first credentials that answer one of our challenges.
    fn choose_credentials(
        &self,
        request: &Request,
    ) -> Result<(Algorithm, Credentials), DigestError> {
        let mut error = DigestError::NoCredentials;
        let headers = request.headers.get_all(&HeaderName::Authorization);
        for header in headers.take(AUTHORIZATIONS_MAX) {
            let value = header.value();
            let Some(parameters) = credentials::parameters(&value) else {
                continue;
            };
            // Another element's realm or an algorithm not offered is no fault: a client may hold
            // credentials for several.
            if parameters.realm() != Some(&self.realm) {
                continue;
            }
            let Some(algorithm) = Algorithm::parse(parameters.algorithm())
                .filter(|algorithm| self.algorithms.contains(algorithm))
            else {
                continue;
            };
            match Credentials::new(&parameters) {
                Some(credentials) => return Ok((algorithm, credentials)),
                None => error = DigestError::Malformed,
            }
        }
        Err(error)
    }
}

/// Whether the `uri` parameter means the request's URI. Phones write it with other parameters or
/// another port than the request line, so only what decides where the request goes is compared.
fn is_same_resource(stated: &str, actual: &Uri) -> bool {
    let Ok(stated) = Uri::parse(bytes::Bytes::copy_from_slice(stated.as_bytes())) else {
        return false;
    };
    if stated.equivalent(actual) {
        return true;
    }
    let same_host = match (stated.host(), actual.host()) {
        (Some(stated), Some(actual)) => stated.equivalent(actual),
        _ => false,
    };
    same_host && stated.decoded_user() == actual.decoded_user()
}

/// Compares without stopping at the first difference. The lengths are no secret.
fn equal_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let difference = a
        .iter()
        .zip(b)
        .fold(0, |difference, (a, b)| black_box(difference | (a ^ b)));
    difference == 0
}
