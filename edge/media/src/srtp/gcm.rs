//! AES in Galois/counter mode: RFC 7714.
//!
//! ```text
//!   SRTP    header | payload, encrypted | tag            header is associated data
//!   SRTCP   8 bytes | rest, encrypted | tag | E, index   8 bytes, E and index are
//! ```
//!
//! aws-lc-rs keeps the expanded keys in memory that AWS-LC wipes when it is freed.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use trunkline_edge_api::Ssrc;
use trunkline_edge_api::crypto::SrtpSuite;
use zeroize::Zeroizing;

use super::key_derivation::{KeyDerivation, Label};
use super::{Part, SrtcpWord, SrtpError};
use crate::packet_buf::PacketBuf;

/// Bytes of session salt and nonce, RFC 7714 §8.1.
const NONCE_LEN: usize = 12;
/// Bytes of the tag; SRTP knows no shorter one (RFC 7714 §13).
pub(super) const TAG_LEN: usize = 16;
/// Bytes of an RTCP packet that stay readable: its first header and SSRC.
const RTCP_CLEAR_LEN: usize = 8;

/// Session keys for one half of RTP.
struct Keys {
    key: LessSafeKey,
    /// The session salt in the lower 96 bits.
    salt: Zeroizing<u128>,
}

impl Keys {
    fn derive(suite: SrtpSuite, derivation: &KeyDerivation, cipher: Label, salt: Label) -> Self {
        let key = derivation.derive::<32>(cipher);
        Self::new(&key[..suite.key_len()], derivation.derive(salt))
    }

    /// `key` is 16 or 32 bytes long.
    fn new(key: &[u8], salt: Zeroizing<[u8; NONCE_LEN]>) -> Self {
        let algorithm = match key.len() {
            16 => &AES_128_GCM,
            _ => &AES_256_GCM,
        };
        let key = UnboundKey::new(algorithm, key).expect("each suite's key length is one of these");
        let mut wide = Zeroizing::new([0; 16]);
        wide[16 - NONCE_LEN..].copy_from_slice(&*salt);
        Self {
            key: LessSafeKey::new(key),
            salt: Zeroizing::new(u128::from_be_bytes(*wide)),
        }
    }

    /// RFC 7714 §8.1 with the packet's index in the last six bytes; §9.1 has the same shape, its
    /// index of 31 bits behind two zero bytes.
    #[inline]
    fn nonce(&self, ssrc: Ssrc, index: u64) -> Nonce {
        let wide = *self.salt ^ u128::from(ssrc.0) << 48 ^ u128::from(index);
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&wide.to_be_bytes()[16 - NONCE_LEN..]);
        Nonce::assume_unique_for_key(nonce)
    }

    /// `tag` is [`TAG_LEN`] bytes long.
    #[inline]
    fn seal(
        &self,
        nonce: Nonce,
        associated: &[u8],
        plaintext: &mut [u8],
        tag: &mut [u8],
    ) -> Result<(), SrtpError> {
        self.key
            .seal_in_place_scatter(nonce, Aad::from(associated), plaintext, &[], tag)
            .map_err(|_| SrtpError::NoRoom)
    }

    #[inline]
    fn open(&self, nonce: Nonce, associated: &[u8], sealed: &mut [u8]) -> Result<(), SrtpError> {
        self.key
            .open_in_place(nonce, Aad::from(associated), sealed)
            .map(|_| ())
            .map_err(|_| SrtpError::NotAuthentic)
    }
}

pub(super) struct Gcm {
    rtp: Keys,
    rtcp: Keys,
}

impl Gcm {
    pub(super) fn new(suite: SrtpSuite, derivation: &KeyDerivation) -> Self {
        Self {
            rtp: Keys::derive(suite, derivation, Label::RtpCipher, Label::RtpSalt),
            rtcp: Keys::derive(suite, derivation, Label::RtcpCipher, Label::RtcpSalt),
        }
    }

    #[inline]
    pub(super) fn seal_rtp(&self, packet: &mut PacketBuf<'_>, part: Part) -> Result<(), SrtpError> {
        let nonce = self.rtp.nonce(part.ssrc, part.index);
        let (packet, tag) = packet.grow(TAG_LEN).ok_or(SrtpError::NoRoom)?;
        let (header, payload) = packet.split_at_mut(part.clear_len);
        self.rtp.seal(nonce, header, payload, tag)
    }

    #[inline]
    pub(super) fn open_rtp(&self, packet: &mut PacketBuf<'_>, part: Part) -> Result<(), SrtpError> {
        let end = packet
            .len()
            .checked_sub(TAG_LEN)
            .filter(|end| *end >= part.clear_len)
            .ok_or(SrtpError::NotAuthentic)?;
        let nonce = self.rtp.nonce(part.ssrc, part.index);
        let (header, sealed) = packet.split_at_mut(part.clear_len);
        self.rtp.open(nonce, header, sealed)?;
        packet.truncate(end);
        Ok(())
    }

    pub(super) fn seal_rtcp(
        &self,
        packet: &mut PacketBuf<'_>,
        ssrc: Ssrc,
        word: SrtcpWord,
    ) -> Result<(), SrtpError> {
        let nonce = self.rtcp.nonce(ssrc, u64::from(word.index()));
        let (packet, tail) = packet
            .grow(TAG_LEN + SrtcpWord::LEN)
            .ok_or(SrtpError::NoRoom)?;
        let (header, body) = packet
            .split_first_chunk_mut::<RTCP_CLEAR_LEN>()
            .ok_or(SrtpError::Malformed)?;
        let (tag, index) = tail.split_at_mut(TAG_LEN);
        index.copy_from_slice(&word.to_bytes());
        self.rtcp.seal(nonce, &associated(header, word), body, tag)
    }

    /// Where the E bit and the index stand in an SRTCP packet of `len` bytes.
    pub(super) fn rtcp_word_at(len: usize) -> Option<usize> {
        len.checked_sub(SrtcpWord::LEN)
    }

    pub(super) fn open_rtcp(
        &self,
        packet: &mut PacketBuf<'_>,
        ssrc: Ssrc,
        word: SrtcpWord,
    ) -> Result<(), SrtpError> {
        let nonce = self.rtcp.nonce(ssrc, u64::from(word.index()));
        let end = packet
            .len()
            .checked_sub(TAG_LEN + SrtcpWord::LEN)
            .filter(|end| *end >= RTCP_CLEAR_LEN)
            .ok_or(SrtpError::NotAuthentic)?;
        let tag_end = end + TAG_LEN;
        if word.is_encrypted() {
            let (header, sealed) = packet[..tag_end]
                .split_first_chunk_mut::<RTCP_CLEAR_LEN>()
                .ok_or(SrtpError::NotAuthentic)?;
            self.rtcp.open(nonce, &associated(header, word), sealed)?;
        } else {
            // All of the packet and the word are associated data (RFC 7714 §9.3), so the word
            // has to stand before the tag.
            packet[end..].rotate_right(SrtcpWord::LEN);
            let (associated, tag) = packet.split_at_mut(end + SrtcpWord::LEN);
            self.rtcp.open(nonce, associated, tag)?;
        }
        packet.truncate(end);
        Ok(())
    }
}

/// What SRTCP authenticates beside the encrypted part, RFC 7714 §9.2.
fn associated(
    header: &[u8; RTCP_CLEAR_LEN],
    word: SrtcpWord,
) -> [u8; RTCP_CLEAR_LEN + SrtcpWord::LEN] {
    let mut associated = [0; RTCP_CLEAR_LEN + SrtcpWord::LEN];
    associated[..RTCP_CLEAR_LEN].copy_from_slice(header);
    associated[RTCP_CLEAR_LEN..].copy_from_slice(&word.to_bytes());
    associated
}

#[cfg(test)]
impl Gcm {
    /// For vectors that give session keys. Both halves get the same.
    pub(super) fn with_session_keys(key: &[u8], salt: [u8; NONCE_LEN]) -> Self {
        let keys = || Keys::new(key, Zeroizing::new(salt));
        Self {
            rtp: keys(),
            rtcp: keys(),
        }
    }

    /// What a peer sends that authenticates its RTCP without encrypting it.
    pub(super) fn authenticated_rtcp(&self, packet: &[u8], ssrc: Ssrc, word: SrtcpWord) -> Vec<u8> {
        let nonce = self.rtcp.nonce(ssrc, u64::from(word.index()));
        let associated = [packet, &word.to_bytes()].concat();
        let mut tag = [0; TAG_LEN];
        self.rtcp
            .seal(nonce, &associated, &mut [], &mut tag)
            .expect("a tag");
        [packet, &tag, &word.to_bytes()].concat()
    }
}
