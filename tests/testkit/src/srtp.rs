//! SRTP as a phone does it (RFC 3711, 4568, 7714), by an implementation that shares nothing with
//! Trunkline's.

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use webrtc_srtp::context::Context;
use webrtc_srtp::protection_profile::ProtectionProfile;

/// What one side of a stream is protected with: the content of one `a=crypto` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CryptoLine {
    /// The answer repeats that of the offer.
    pub tag: u32,
    /// As SDP names it.
    pub suite: String,
    /// Master key and salt.
    pub key_and_salt: Vec<u8>,
}

impl CryptoLine {
    /// A random key for `suite`.
    pub fn random(tag: u32, suite: &str) -> Result<Self> {
        let profile = profile(suite)?;
        let mut key_and_salt = vec![0; profile.key_len() + profile.salt_len()];
        getrandom::fill(&mut key_and_salt).expect("the kernel has entropy");
        Ok(Self {
            tag,
            suite: suite.to_owned(),
            key_and_salt,
        })
    }

    /// Reads the value of an `a=crypto` attribute.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let mut fields = value.split(' ');
        let tag = fields.next()?.parse().ok()?;
        let suite = fields.next()?.to_owned();
        let inline = fields.next()?.strip_prefix("inline:")?;
        let key = inline.split('|').next()?.trim_end_matches('=');
        Some(Self {
            tag,
            suite,
            key_and_salt: STANDARD_NO_PAD.decode(key).ok()?,
        })
    }

    /// The value of an `a=crypto` attribute.
    #[must_use]
    pub fn to_value(&self) -> String {
        let key = STANDARD.encode(&self.key_and_salt);
        format!("{} {} inline:{key}", self.tag, self.suite)
    }

    fn context(&self) -> Result<Context> {
        let profile = profile(&self.suite)?;
        let (key, salt) = self
            .key_and_salt
            .split_at_checked(profile.key_len())
            .context("the key is too short")?;
        Ok(Context::new(key, salt, profile, None, None)?)
    }
}

/// Both directions of a phone's stream.
pub struct Protection {
    send: Context,
    receive: Context,
}

impl Protection {
    /// What this phone sends is under `ours`, what it hears under `theirs`.
    pub fn new(ours: &CryptoLine, theirs: &CryptoLine) -> Result<Self> {
        Ok(Self {
            send: ours.context()?,
            receive: theirs.context()?,
        })
    }

    /// An RTP packet as it goes over the wire.
    pub fn protect(&mut self, packet: &[u8]) -> Result<Vec<u8>> {
        Ok(self.send.encrypt_rtp(packet)?.to_vec())
    }

    /// An RTCP compound as it goes over the wire.
    pub fn protect_rtcp(&mut self, compound: &[u8]) -> Result<Vec<u8>> {
        Ok(self.send.encrypt_rtcp(compound)?.to_vec())
    }

    /// An RTP packet that came over the wire.
    pub fn open(&mut self, packet: &[u8]) -> Result<Vec<u8>> {
        Ok(self.receive.decrypt_rtp(packet)?.to_vec())
    }

    /// An RTCP compound that came over the wire.
    pub fn open_rtcp(&mut self, compound: &[u8]) -> Result<Vec<u8>> {
        Ok(self.receive.decrypt_rtcp(compound)?.to_vec())
    }
}

fn profile(suite: &str) -> Result<ProtectionProfile> {
    Ok(match suite {
        "AES_CM_128_HMAC_SHA1_80" => ProtectionProfile::Aes128CmHmacSha1_80,
        "AES_CM_128_HMAC_SHA1_32" => ProtectionProfile::Aes128CmHmacSha1_32,
        "AES_256_CM_HMAC_SHA1_80" => ProtectionProfile::Aes256CmHmacSha1_80,
        "AES_256_CM_HMAC_SHA1_32" => ProtectionProfile::Aes256CmHmacSha1_32,
        "AEAD_AES_128_GCM" => ProtectionProfile::AeadAes128Gcm,
        "AEAD_AES_256_GCM" => ProtectionProfile::AeadAes256Gcm,
        other => bail!("no suite is called {other}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_phones_understand_each_other_and_nobody_else_does() {
        let one = CryptoLine::random(1, "AEAD_AES_128_GCM").unwrap();
        let other =
            CryptoLine::parse(&CryptoLine::random(1, &one.suite).unwrap().to_value()).unwrap();
        let mut near = Protection::new(&one, &other).unwrap();
        let mut far = Protection::new(&other, &one).unwrap();
        let packet = [&[0x80, 0, 0, 1][..], &[0; 8], b"hello"].concat();
        let wire = near.protect(&packet).unwrap();
        assert_eq!(far.open(&wire).unwrap(), packet);
        assert!(near.open(&wire).is_err());
    }
}
