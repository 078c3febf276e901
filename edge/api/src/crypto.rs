//! SRTP keys as signalling agreed on them and the edge uses them (RFC 3711, 4568, 6188, 7714).
//!
//! Keys cross the ring like any other field of a [`crate::LegConfig`]. In this process they are
//! never printed, and wiped when they are dropped.

use std::fmt;

use zeroize::Zeroize;

/// A cipher with its authentication and key lengths. Numbers are ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SrtpSuite {
    /// AES-128 in counter mode, HMAC-SHA1 tag of 80 bits (RFC 4568 §6.2.1).
    AesCm128HmacSha1_80 = 1,
    /// The same with a tag of 32 bits on RTP; RTCP keeps 80 (RFC 4568 §6.2.2).
    AesCm128HmacSha1_32 = 2,
    /// AES-256 in counter mode, HMAC-SHA1 tag of 80 bits (RFC 6188).
    AesCm256HmacSha1_80 = 3,
    /// The same with a tag of 32 bits on RTP; RTCP keeps 80 (RFC 6188).
    AesCm256HmacSha1_32 = 4,
    /// AES-128 in Galois/counter mode, tag of 128 bits (RFC 7714).
    AeadAes128Gcm = 10,
    /// AES-256 in Galois/counter mode, tag of 128 bits (RFC 7714).
    AeadAes256Gcm = 11,
}

impl SrtpSuite {
    /// All suites in order of their numbers.
    pub const ALL: [SrtpSuite; 6] = [
        SrtpSuite::AesCm128HmacSha1_80,
        SrtpSuite::AesCm128HmacSha1_32,
        SrtpSuite::AesCm256HmacSha1_80,
        SrtpSuite::AesCm256HmacSha1_32,
        SrtpSuite::AeadAes128Gcm,
        SrtpSuite::AeadAes256Gcm,
    ];

    /// The crypto-suite of an `a=crypto` attribute (RFC 4568 §10.3.2.1 and the registry it opened).
    #[must_use]
    pub const fn sdes_name(self) -> &'static str {
        match self {
            Self::AesCm128HmacSha1_80 => "AES_CM_128_HMAC_SHA1_80",
            Self::AesCm128HmacSha1_32 => "AES_CM_128_HMAC_SHA1_32",
            Self::AesCm256HmacSha1_80 => "AES_256_CM_HMAC_SHA1_80",
            Self::AesCm256HmacSha1_32 => "AES_256_CM_HMAC_SHA1_32",
            Self::AeadAes128Gcm => "AEAD_AES_128_GCM",
            Self::AeadAes256Gcm => "AEAD_AES_256_GCM",
        }
    }

    /// Bytes of the master key.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::AesCm128HmacSha1_80 | Self::AesCm128HmacSha1_32 | Self::AeadAes128Gcm => 16,
            Self::AesCm256HmacSha1_80 | Self::AesCm256HmacSha1_32 | Self::AeadAes256Gcm => 32,
        }
    }

    /// Bytes of the master salt: 112 bits for counter mode (RFC 3711 §8.2), 96 for GCM
    /// (RFC 7714 §12).
    #[must_use]
    pub const fn salt_len(self) -> usize {
        match self {
            Self::AesCm128HmacSha1_80
            | Self::AesCm128HmacSha1_32
            | Self::AesCm256HmacSha1_80
            | Self::AesCm256HmacSha1_32 => 14,
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 12,
        }
    }
}

impl TryFrom<u8> for SrtpSuite {
    type Error = u8;

    fn try_from(value: u8) -> Result<Self, u8> {
        Ok(match value {
            1 => Self::AesCm128HmacSha1_80,
            2 => Self::AesCm128HmacSha1_32,
            3 => Self::AesCm256HmacSha1_80,
            4 => Self::AesCm256HmacSha1_32,
            10 => Self::AeadAes128Gcm,
            11 => Self::AeadAes256Gcm,
            other => return Err(other),
        })
    }
}

/// A master key followed by its master salt, as `inline:` of `a=crypto` carries them.
///
/// Comparing takes a time that depends on the keys: only control compares, and only its own
/// configurations with each other.
#[derive(Clone, PartialEq, Eq)]
pub struct SrtpKey {
    /// Zero behind `len`.
    bytes: [u8; SrtpKey::LEN_MAX],
    len: u8,
}

impl SrtpKey {
    /// The longest: 32 bytes of key and 14 of salt.
    pub const LEN_MAX: usize = 46;

    /// `None` when `key_and_salt` does not have the length that the suite wants.
    #[must_use]
    pub fn new(suite: SrtpSuite, key_and_salt: &[u8]) -> Option<Self> {
        if key_and_salt.len() != suite.key_len() + suite.salt_len() {
            return None;
        }
        let mut bytes = [0; Self::LEN_MAX];
        bytes
            .get_mut(..key_and_salt.len())?
            .copy_from_slice(key_and_salt);
        let key = Self {
            bytes,
            len: key_and_salt.len() as u8,
        };
        bytes.zeroize();
        Some(key)
    }

    /// Master key and master salt, one behind the other.
    #[must_use]
    pub fn key_and_salt(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl Drop for SrtpKey {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl fmt::Debug for SrtpKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SrtpKey({} bytes, redacted)", self.len)
    }
}

/// How a leg protects its media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegCrypto {
    /// One suite for both directions: offer and answer name the same (RFC 4568 §5.1.2).
    pub suite: SrtpSuite,
    /// What the leg sends is protected with this: the key of our own `a=crypto`.
    pub send: SrtpKey,
    /// What the peer sends is opened with this: the key of the peer's `a=crypto`.
    pub receive: SrtpKey,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_has_the_length_that_its_suite_wants() {
        let lens = SrtpSuite::ALL.map(|suite| suite.key_len() + suite.salt_len());
        assert_eq!(lens, [30, 30, 46, 46, 28, 44]);
        for suite in SrtpSuite::ALL {
            let len = suite.key_len() + suite.salt_len();
            let bytes: Vec<u8> = (1..=len as u8).collect();
            let key = SrtpKey::new(suite, &bytes).expect("the right length");
            assert_eq!(key.key_and_salt(), bytes);
            assert_eq!(SrtpKey::new(suite, &bytes[1..]), None);
            assert_eq!(SrtpKey::new(suite, &[0; SrtpKey::LEN_MAX + 1]), None);
        }
    }

    #[test]
    fn suite_numbers_survive_the_round_trip() {
        for suite in SrtpSuite::ALL {
            assert_eq!(SrtpSuite::try_from(suite as u8), Ok(suite));
        }
        for number in [0, 5, 9, 12, 255] {
            assert_eq!(SrtpSuite::try_from(number), Err(number));
        }
    }

    #[test]
    fn key_is_not_printed() {
        let suite = SrtpSuite::AeadAes128Gcm;
        let key = SrtpKey::new(suite, &[0xa5; 28]).expect("the right length");
        let crypto = LegCrypto {
            suite,
            send: key.clone(),
            receive: key,
        };
        let printed = format!("{crypto:?} {crypto:#?}");
        assert!(printed.contains("redacted"));
        assert!(!printed.contains("165") && !printed.to_lowercase().contains("a5"));
    }
}
