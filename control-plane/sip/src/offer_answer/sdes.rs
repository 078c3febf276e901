//! SRTP keys in SDP: `a=crypto` of RFC 4568, with the suites of RFC 6188 and RFC 7714.
//!
//! ```text
//!   offer    m=audio 4000 RTP/SAVP 0
//!            a=crypto:1 AEAD_AES_128_GCM inline:<the offerer's key and salt>
//!            a=crypto:2 AES_CM_128_HMAC_SHA1_80 inline:<another>
//!   answer   m=audio 5000 RTP/SAVP 0
//!            a=crypto:2 AES_CM_128_HMAC_SHA1_80 inline:<the answerer's key and salt>
//! ```
//!
//! Each side protects what it sends with the key of its own line. Every leg has keys of its own,
//! so what crosses the relay is opened and protected anew even when both sides use one suite.
//!
//! | policy | our offer | an offer to us |
//! |---|---|---|
//! | off | RTP/AVP | RTP/AVP; over RTP/SAVP alone: 488 |
//! | preferred | RTP/SAVP, and after a refusal RTP/AVP | RTP/SAVP where there is one, else RTP/AVP |
//! | required | RTP/SAVP | RTP/SAVP; over RTP/AVP alone: 488 |
//!
//! Never both in one offer: two `m=` lines are two streams to many phones, and `a=crypto` under
//! RTP/AVP means something else to each of them.
//!
//! Left out: MKI and several keys per line, `UNENCRYPTED_*`, `UNAUTHENTICATED_SRTP`, `KDR` and
//! `FEC_*`. A line that asks for one of them is passed over (RFC 4568 §5.1.2).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use hmac::{Hmac, Mac};
use sha2::Sha512;
use sipx_sdp::MediaDescription;
use trunkline_edge_api::crypto::{LegCrypto, SrtpKey, SrtpSuite};
use zeroize::Zeroizing;

use crate::entropy::Entropy;

/// Suites that are accepted, the best first. GCM with 128 bits costs less than half of what the
/// others do and is as strong as any of them in practice; tags of 32 bits come last.
const PREFERENCE: [SrtpSuite; 6] = [
    SrtpSuite::AeadAes128Gcm,
    SrtpSuite::AesCm128HmacSha1_80,
    SrtpSuite::AeadAes256Gcm,
    SrtpSuite::AesCm256HmacSha1_80,
    SrtpSuite::AesCm128HmacSha1_32,
    SrtpSuite::AesCm256HmacSha1_32,
];

/// Suites that are offered: those with a full tag, whose four lines keep an INVITE in one packet.
const OFFERED: [SrtpSuite; 4] = [
    SrtpSuite::AeadAes128Gcm,
    SrtpSuite::AesCm128HmacSha1_80,
    SrtpSuite::AeadAes256Gcm,
    SrtpSuite::AesCm256HmacSha1_80,
];

/// Most `a=crypto` lines that are read of one description. The longest lists seen name every
/// suite twice.
const LINES_MAX: usize = 16;

/// Whether a party's media is protected with SRTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SrtpPolicy {
    /// Never.
    #[default]
    Off,
    /// Where the party can.
    Preferred,
    /// Always: plain RTP is refused.
    Required,
}

impl SrtpPolicy {
    /// What a configuration may say.
    pub const FORM: &'static str = "\"off\", \"preferred\" or \"required\"";

    /// As a configuration says it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Preferred => "preferred",
            Self::Required => "required",
        }
    }
}

impl fmt::Display for SrtpPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No policy of this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be {}", SrtpPolicy::FORM)]
pub struct UnknownSrtpPolicy;

impl std::str::FromStr for SrtpPolicy {
    type Err = UnknownSrtpPolicy;

    fn from_str(text: &str) -> Result<Self, UnknownSrtpPolicy> {
        match text {
            "off" => Ok(Self::Off),
            "preferred" => Ok(Self::Preferred),
            "required" => Ok(Self::Required),
            _ => Err(UnknownSrtpPolicy),
        }
    }
}

/// One `a=crypto` line that can be acted on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CryptoLine {
    /// 1 to 9 digits; the answer repeats that of the line it accepts.
    pub tag: u32,
    /// The transform.
    pub suite: SrtpSuite,
    /// Protects what the line's author sends.
    pub key: SrtpKey,
}

impl CryptoLine {
    /// Reads `<tag> <suite> inline:<base64>[|lifetime] [session parameters]`. `None` when it is
    /// malformed, of an unknown suite, or asks for something left out here.
    fn parse(value: &str) -> Option<Self> {
        let mut parts = value.split_ascii_whitespace();
        let tag = parts
            .next()
            .filter(|tag| (1..=9).contains(&tag.len()))?
            .parse()
            .ok()?;
        let name = parts.next()?;
        let suite = SrtpSuite::ALL
            .into_iter()
            .find(|suite| suite.sdes_name().eq_ignore_ascii_case(name))?;
        let inline = parts.next()?.strip_prefix("inline:")?;
        // A window size is a hint, and a leading minus marks what may be ignored (RFC 4568 §6.3).
        if !parts.all(|parameter| parameter.starts_with("WSH=") || parameter.starts_with('-')) {
            return None;
        }
        let mut fields = inline.split('|');
        let text = fields.next()?.trim_end_matches('=');
        let lifetime = fields.next();
        let is_plain = |field: &str| !field.contains([':', ';']);
        if text.contains(';') || !lifetime.is_none_or(is_plain) || fields.next().is_some() {
            return None;
        }
        let bytes = Zeroizing::new(STANDARD_NO_PAD.decode(text).ok()?);
        Some(Self {
            tag,
            suite,
            key: SrtpKey::new(suite, &bytes)?,
        })
    }

    /// The attribute's value.
    pub(super) fn to_value(&self) -> String {
        let (tag, suite) = (self.tag, self.suite.sdes_name());
        let key = Zeroizing::new(STANDARD.encode(self.key.key_and_salt()));
        format!("{tag} {suite} inline:{}", *key)
    }
}

/// The lines of a stream that can be acted on, in the peer's order.
pub(super) fn lines_of(media: &MediaDescription) -> Vec<CryptoLine> {
    let crypto = media
        .attributes
        .iter()
        .filter(|attribute| attribute.name.eq_ignore_ascii_case("crypto"))
        .filter_map(|attribute| attribute.value.as_deref());
    crypto
        .take(LINES_MAX)
        .filter_map(CryptoLine::parse)
        .collect()
}

/// What both sides of a leg agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AgreedCrypto {
    /// Our line: its tag is the offer's.
    pub(super) ours: CryptoLine,
    pub(super) theirs: SrtpKey,
}

impl AgreedCrypto {
    /// What the edge needs to know.
    pub(super) fn leg_crypto(&self) -> LegCrypto {
        LegCrypto {
            suite: self.ours.suite,
            send: self.ours.key.clone(),
            receive: self.theirs.clone(),
        }
    }

    /// Our answer to a peer that offers `lines`. While it still offers what is in `force` both
    /// keys stay; when it has changed its key, ours changes too.
    pub(super) fn answering(
        lines: &[CryptoLine],
        force: Option<&AgreedCrypto>,
        keys: &mut KeySource,
    ) -> Option<Self> {
        let is_in_force = |line: &&CryptoLine, force: &AgreedCrypto| {
            line.suite == force.ours.suite && line.key == force.theirs
        };
        if let Some(force) = force
            && let Some(line) = lines.iter().find(|line| is_in_force(line, force))
        {
            let mut agreed = force.clone();
            agreed.ours.tag = line.tag;
            return Some(agreed);
        }
        let line = PREFERENCE
            .into_iter()
            .find_map(|suite| lines.iter().find(|line| line.suite == suite))?;
        Some(Self {
            ours: CryptoLine {
                tag: line.tag,
                suite: line.suite,
                key: keys.next(line.suite),
            },
            theirs: line.key.clone(),
        })
    }

    /// The peer's answer to our `offered` lines: exactly one of them, by tag and suite
    /// (RFC 4568 §5.1.3).
    pub(super) fn answered(offered: &[CryptoLine], answer: &[CryptoLine]) -> Option<Self> {
        let [theirs] = answer else {
            return None;
        };
        let ours = offered
            .iter()
            .find(|ours| ours.tag == theirs.tag && ours.suite == theirs.suite)?;
        Some(Self {
            ours: ours.clone(),
            theirs: theirs.key.clone(),
        })
    }
}

/// The lines of a first offer, each with a key of its own.
pub(super) fn offer(keys: &mut KeySource) -> Vec<CryptoLine> {
    OFFERED
        .into_iter()
        .zip(1..)
        .map(|(suite, tag)| CryptoLine {
            tag,
            suite,
            key: keys.next(suite),
        })
        .collect()
}

/// Random master keys for one call: the output of HMAC-SHA-512 under a secret seed, counted up.
#[derive(Clone)]
pub struct KeySource {
    seed: Zeroizing<[u8; KeySource::SEED_LEN]>,
    drawn: u64,
}

impl KeySource {
    /// Bytes of the seed: the strength of the longest key.
    pub const SEED_LEN: usize = 32;

    /// A source for one call, seeded by the system's random numbers.
    #[must_use]
    pub fn draw(entropy: &mut dyn Entropy) -> Self {
        let mut seed = Zeroizing::new([0; Self::SEED_LEN]);
        entropy.fill(&mut *seed);
        Self { seed, drawn: 0 }
    }

    /// A source of other keys, for one more peer of the same call.
    pub(super) fn split(&mut self) -> Self {
        let mut mac =
            Hmac::<Sha512>::new_from_slice(&*self.seed).expect("HMAC takes keys of any length");
        mac.update(b"seed of another source");
        mac.update(&self.drawn.to_be_bytes());
        self.drawn += 1;
        let mut seed = Zeroizing::new([0; Self::SEED_LEN]);
        seed.copy_from_slice(&mac.finalize().into_bytes()[..Self::SEED_LEN]);
        Self { seed, drawn: 0 }
    }

    /// A key that was not given out before.
    fn next(&mut self, suite: SrtpSuite) -> SrtpKey {
        let mut mac =
            Hmac::<Sha512>::new_from_slice(&*self.seed).expect("HMAC takes keys of any length");
        mac.update(b"SDES master key and salt");
        mac.update(&self.drawn.to_be_bytes());
        self.drawn += 1;
        let mut block = Zeroizing::new([0; 64]);
        block.copy_from_slice(&mac.finalize().into_bytes());
        let len = suite.key_len() + suite.salt_len();
        SrtpKey::new(suite, &block[..len]).expect("no suite wants more than 46 bytes")
    }
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySource({} drawn, redacted)", self.drawn)
    }
}
