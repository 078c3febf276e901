//! AES in counter mode with an HMAC-SHA1 tag: RFC 3711 §4.1.1 and §4.2, RFC 6188 for 256 bits.
//!
//! ```text
//!   SRTP    header | payload, encrypted | tag           tag over all before it and the ROC
//!   SRTCP   8 bytes | rest, encrypted | E, index | tag  tag over all before it
//! ```

use aes::cipher::consts::U16;
use aes::cipher::generic_array::GenericArray;
use aes::cipher::{
    BlockCipher, BlockEncryptMut, BlockSizeUser, InnerIvInit, KeyInit, StreamCipherCore,
};
use aes::{Aes128Enc, Aes256Enc};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use ctr::CtrCore;
use ctr::flavors::Ctr128BE;
use trunkline_edge_api::Ssrc;
use trunkline_edge_api::crypto::SrtpSuite;
use zeroize::Zeroizing;

use super::hmac_sha1::{self, HmacSha1, TAG_LEN};
use super::key_derivation::{KeyDerivation, Label};
use super::{Part, SrtcpWord, SrtpError};
use crate::packet_buf::PacketBuf;

/// Bytes of the session salt.
const SALT_LEN: usize = 14;
/// Bytes of the longer of the two tags; SRTCP has no other (RFC 3711 §5.2).
const TAG_80_LEN: usize = 10;
/// Bytes of the shorter, which RFC 4568 §6.2.2 allows for RTP alone.
const TAG_32_LEN: usize = 4;
/// Bytes of an RTCP packet that stay readable: its first header and SSRC.
const RTCP_CLEAR_LEN: usize = 8;

/// An expanded encryption key. Wiped on drop by the `aes` crate.
#[allow(
    clippy::large_enum_variant,
    reason = "the common one costs no second look-up"
)]
pub(super) enum Aes {
    Bits128(Aes128Enc),
    /// Half as large again, and rare.
    Bits256(Box<Aes256Enc>),
}

impl Aes {
    /// `key` is 16 or 32 bytes long.
    pub(super) fn new(key: &[u8]) -> Self {
        if key.len() == 16 {
            Self::Bits128(Aes128Enc::new(GenericArray::from_slice(key)))
        } else {
            Self::Bits256(Box::new(Aes256Enc::new(GenericArray::from_slice(key))))
        }
    }

    /// Encrypts or decrypts `data` with the key stream that begins at `counter`.
    #[inline]
    pub(super) fn apply_key_stream(&self, counter: &[u8; 16], data: &mut [u8]) {
        match self {
            Self::Bits128(aes) => apply_key_stream(aes, counter, data),
            Self::Bits256(aes) => apply_key_stream(&**aes, counter, data),
        }
    }
}

#[inline]
fn apply_key_stream<C>(cipher: &C, counter: &[u8; 16], data: &mut [u8])
where
    for<'a> &'a C: BlockEncryptMut + BlockCipher + BlockSizeUser<BlockSize = U16>,
{
    CtrCore::<&C, Ctr128BE>::inner_iv_init(cipher, GenericArray::from_slice(counter))
        .apply_keystream_partial(data.into());
}

/// Session keys for one half of RTP.
struct Keys {
    cipher: Aes,
    /// The session salt in the upper 112 bits, as the initial counter has it.
    salt: Zeroizing<u128>,
    hmac: HmacSha1,
}

impl Keys {
    fn derive(suite: SrtpSuite, derivation: &KeyDerivation, labels: [Label; 3]) -> Self {
        let [cipher, authentication, salt] = labels;
        let key = derivation.derive::<32>(cipher);
        let salt = derivation.derive::<SALT_LEN>(salt);
        let mut counter = Zeroizing::new([0; 16]);
        counter[..SALT_LEN].copy_from_slice(&*salt);
        Self {
            cipher: Aes::new(&key[..suite.key_len()]),
            salt: Zeroizing::new(u128::from_be_bytes(*counter)),
            hmac: HmacSha1::new(&derivation.derive::<{ hmac_sha1::KEY_LEN }>(authentication)),
        }
    }

    /// Encrypts or decrypts `data`, part of the packet with this `index` (RFC 3711 §4.1.1).
    #[inline]
    fn crypt(&self, ssrc: Ssrc, index: u64, data: &mut [u8]) {
        let counter = *self.salt ^ u128::from(ssrc.0) << 64 ^ u128::from(index) << 16;
        self.cipher.apply_key_stream(&counter.to_be_bytes(), data);
    }
}

pub(super) struct CounterMode {
    rtp: Keys,
    rtcp: Keys,
    rtp_tag_len: usize,
}

impl CounterMode {
    pub(super) fn new(suite: SrtpSuite, derivation: &KeyDerivation) -> Self {
        let rtp = [Label::RtpCipher, Label::RtpAuthentication, Label::RtpSalt];
        let rtcp = [
            Label::RtcpCipher,
            Label::RtcpAuthentication,
            Label::RtcpSalt,
        ];
        Self {
            rtp: Keys::derive(suite, derivation, rtp),
            rtcp: Keys::derive(suite, derivation, rtcp),
            rtp_tag_len: match suite {
                SrtpSuite::AesCm128HmacSha1_32 | SrtpSuite::AesCm256HmacSha1_32 => TAG_32_LEN,
                _ => TAG_80_LEN,
            },
        }
    }

    #[inline]
    pub(super) fn seal_rtp(&self, packet: &mut PacketBuf<'_>, part: Part) -> Result<(), SrtpError> {
        if packet.room() < self.rtp_tag_len {
            return Err(SrtpError::NoRoom);
        }
        let Part {
            ssrc,
            index,
            clear_len,
        } = part;
        self.rtp.crypt(ssrc, index, &mut packet[clear_len..]);
        let tag = self.rtp.hmac.tag(packet, rollovers(index));
        append(packet, &tag[..self.rtp_tag_len])
    }

    #[inline]
    pub(super) fn open_rtp(&self, packet: &mut PacketBuf<'_>, part: Part) -> Result<(), SrtpError> {
        let Part {
            ssrc,
            index,
            clear_len,
        } = part;
        let (message, tag) = packet
            .split_at_checked(packet.len().wrapping_sub(self.rtp_tag_len))
            .filter(|(message, _)| message.len() >= clear_len)
            .ok_or(SrtpError::NotAuthentic)?;
        let expected = self.rtp.hmac.tag(message, rollovers(index));
        verify(tag, &expected)?;
        let end = message.len();
        packet.truncate(end);
        self.rtp.crypt(ssrc, index, &mut packet[clear_len..]);
        Ok(())
    }

    pub(super) fn seal_rtcp(
        &self,
        packet: &mut PacketBuf<'_>,
        ssrc: Ssrc,
        word: SrtcpWord,
    ) -> Result<(), SrtpError> {
        if packet.room() < SrtcpWord::LEN + TAG_80_LEN {
            return Err(SrtpError::NoRoom);
        }
        let end = packet.len();
        let body = packet
            .get_mut(RTCP_CLEAR_LEN..end)
            .ok_or(SrtpError::Malformed)?;
        self.rtcp.crypt(ssrc, u64::from(word.index()), body);
        let tag = self.rtcp.hmac.tag(packet, word.to_bytes());
        append(packet, &word.to_bytes())?;
        append(packet, &tag[..TAG_80_LEN])
    }

    /// Where the E bit and the index stand in an SRTCP packet of `len` bytes.
    pub(super) fn rtcp_word_at(len: usize) -> Option<usize> {
        len.checked_sub(TAG_80_LEN + SrtcpWord::LEN)
    }

    pub(super) fn open_rtcp(
        &self,
        packet: &mut PacketBuf<'_>,
        ssrc: Ssrc,
        word: SrtcpWord,
    ) -> Result<(), SrtpError> {
        let end = Self::rtcp_word_at(packet.len()).ok_or(SrtpError::NotAuthentic)?;
        let expected = self.rtcp.hmac.tag(&packet[..end], word.to_bytes());
        verify(&packet[end + SrtcpWord::LEN..], &expected)?;
        packet.truncate(end);
        if word.is_encrypted() {
            let body = packet
                .get_mut(RTCP_CLEAR_LEN..)
                .ok_or(SrtpError::Malformed)?;
            self.rtcp.crypt(ssrc, u64::from(word.index()), body);
        }
        Ok(())
    }
}

/// The rollover counter as the tag covers it (RFC 3711 §4.2).
fn rollovers(index: u64) -> [u8; 4] {
    ((index >> 16) as u32).to_be_bytes()
}

fn verify(tag: &[u8], expected: &[u8; TAG_LEN]) -> Result<(), SrtpError> {
    let expected = expected.get(..tag.len()).ok_or(SrtpError::NotAuthentic)?;
    verify_slices_are_equal(tag, expected).map_err(|_| SrtpError::NotAuthentic)
}

fn append(packet: &mut PacketBuf<'_>, tail: &[u8]) -> Result<(), SrtpError> {
    packet.append(tail).then_some(()).ok_or(SrtpError::NoRoom)
}

#[cfg(test)]
impl CounterMode {
    /// What a peer sends that authenticates its RTCP without encrypting it.
    pub(super) fn authenticated_rtcp(&self, packet: &[u8], word: SrtcpWord) -> Vec<u8> {
        let tag = self.rtcp.hmac.tag(packet, word.to_bytes());
        [packet, &word.to_bytes(), &tag[..TAG_80_LEN]].concat()
    }
}
