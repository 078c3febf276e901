//! Secure RTP: RFC 3711, with AES-256 (RFC 6188) and AES-GCM (RFC 7714).
//!
//! A leg has a [`SealContext`] for what it sends and an [`OpenContext`] for what it hears, each
//! under a key of its own. Packets are protected where they lie: header, CSRC list and extension
//! stay readable, the payload is encrypted in place, and a tag is appended.
//!
//! ```text
//!   open   header -> index from sequence and newest index -> replay check -> authenticate
//!          -> decrypt -> only now is anything learnt
//!   seal   header -> index -> sealed before? -> encrypt -> append tag
//! ```
//!
//! What a key may not do twice is checked on both sides. An index is opened once, which defeats
//! replay, and sealed once, because two payloads under one index give both away (RFC 3711 §9.1,
//! RFC 7714 §8.1): a packet that the far peer duplicated is not sent again.
//!
//! Left out: MKI and key derivation rates other than 0, which signalling refuses; the NULL cipher;
//! header encryption (RFC 6904).

use std::fmt;

use trunkline_edge_api::crypto::{SrtpKey, SrtpSuite};
use trunkline_edge_api::{DropReason, Ssrc};

use crate::packet_buf::PacketBuf;

mod counter_mode;
mod gcm;
mod hmac_sha1;
mod index;
mod key_derivation;
mod replay;
mod sources;
#[cfg(test)]
mod tests;

use counter_mode::CounterMode;
use gcm::Gcm;
use index::{NoIndex, estimate};
use key_derivation::KeyDerivation;
use replay::{ReplayWindow, Replayed};
use sources::Sources;

/// Bytes by which the longest protection makes a packet longer: a GCM tag and the SRTCP index.
pub const OVERHEAD_MAX: usize = gcm::TAG_LEN + SrtcpWord::LEN;

/// Why a packet was neither sealed nor opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SrtpError {
    /// Its header does not fit its length, or is not RTP version 2.
    Malformed,
    /// Its tag is not that of the key.
    NotAuthentic,
    /// Its index was sealed or opened before, or is too old to tell.
    Replayed,
    /// The key has protected all that it may (RFC 3711 §9.2).
    Exhausted,
    /// The buffer ends before the tag would.
    NoRoom,
}

impl SrtpError {
    /// The reason under which the packet is counted; `malformed` is that of its kind.
    #[must_use]
    pub fn drop_reason(self, malformed: DropReason) -> DropReason {
        match self {
            Self::Malformed => malformed,
            Self::NotAuthentic => DropReason::SrtpAuthFailed,
            Self::Replayed => DropReason::SrtpReplayed,
            Self::Exhausted => DropReason::SrtpExhausted,
            Self::NoRoom => DropReason::Oversize,
        }
    }
}

impl From<Replayed> for SrtpError {
    fn from(_: Replayed) -> Self {
        Self::Replayed
    }
}

impl From<NoIndex> for SrtpError {
    fn from(no_index: NoIndex) -> Self {
        match no_index {
            NoIndex::BeforeFirst => Self::Replayed,
            NoIndex::Exhausted => Self::Exhausted,
        }
    }
}

/// Protects what a leg sends under one key. A leg sends one SSRC from first to last.
pub struct SealContext {
    transform: Transform,
    ssrc: Ssrc,
    rtp: ReplayWindow,
    /// Index of the next SRTCP packet; [`SrtcpWord::INDEX_MAX`] is the last.
    rtcp_next: u32,
}

impl SealContext {
    /// `ssrc` is that of every packet to come.
    #[must_use]
    pub fn new(suite: SrtpSuite, key: &SrtpKey, ssrc: Ssrc) -> Self {
        Self {
            transform: Transform::new(suite, key),
            ssrc,
            rtp: ReplayWindow::default(),
            rtcp_next: 0,
        }
    }

    /// Turns an RTP packet into an SRTP packet, up to [`OVERHEAD_MAX`] bytes longer.
    ///
    /// # Errors
    /// [`SrtpError::Malformed`], also for another SSRC; [`SrtpError::Replayed`] when its index was
    /// sealed already; [`SrtpError::Exhausted`]; [`SrtpError::NoRoom`]. Nothing was learnt then.
    #[inline]
    pub fn seal_rtp(&mut self, packet: &mut PacketBuf<'_>) -> Result<(), SrtpError> {
        let header = ClearHeader::parse(packet)?;
        if header.ssrc != self.ssrc {
            return Err(SrtpError::Malformed);
        }
        let index = estimate(self.rtp.newest(), header.sequence)?;
        self.rtp.check(index)?;
        self.transform.seal_rtp(packet, header.part(index))?;
        self.rtp.mark(index);
        Ok(())
    }

    /// Turns an RTCP compound into an SRTCP packet.
    ///
    /// # Errors
    /// As [`Self::seal_rtp`]; never [`SrtpError::Replayed`], because each gets the next index.
    pub fn seal_rtcp(&mut self, packet: &mut PacketBuf<'_>) -> Result<(), SrtpError> {
        if rtcp_ssrc(packet)? != self.ssrc {
            return Err(SrtpError::Malformed);
        }
        let word = SrtcpWord::encrypted(self.rtcp_next).ok_or(SrtpError::Exhausted)?;
        self.transform.seal_rtcp(packet, self.ssrc, word)?;
        self.rtcp_next += 1;
        Ok(())
    }
}

/// Opens what a leg hears under one key, from up to [`OpenContext::SOURCES_MAX`] SSRCs.
pub struct OpenContext {
    transform: Transform,
    sources: Sources,
}

impl OpenContext {
    /// SSRCs whose indices are kept. A peer changes its SSRC when something else takes its stream
    /// over (music on hold, a transfer behind it); beyond this many, the one that was heard least
    /// recently is forgotten, and only authentic packets bring a new one in.
    pub const SOURCES_MAX: usize = sources::LEN_MAX;

    /// A context that has heard nothing.
    #[must_use]
    pub fn new(suite: SrtpSuite, key: &SrtpKey) -> Self {
        Self {
            transform: Transform::new(suite, key),
            sources: Sources::default(),
        }
    }

    /// Turns an SRTP packet into an RTP packet. Beyond the header nothing of it is validated.
    ///
    /// # Errors
    /// [`SrtpError::Malformed`], [`SrtpError::Replayed`], [`SrtpError::NotAuthentic`] or
    /// [`SrtpError::Exhausted`]. Nothing was learnt then; the packet's bytes are undefined.
    #[inline]
    pub fn open_rtp(&mut self, packet: &mut PacketBuf<'_>) -> Result<(), SrtpError> {
        let header = ClearHeader::parse(packet)?;
        let known = self.sources.get(header.ssrc);
        let window = known.map(|source| source.rtp).unwrap_or_default();
        let index = estimate(window.newest(), header.sequence)?;
        window.check(index)?;
        self.transform.open_rtp(packet, header.part(index))?;
        self.sources.entry(header.ssrc).rtp.mark(index);
        Ok(())
    }

    /// Turns an SRTCP packet into an RTCP compound. Nothing of the compound is validated.
    ///
    /// # Errors
    /// As [`Self::open_rtp`].
    pub fn open_rtcp(&mut self, packet: &mut PacketBuf<'_>) -> Result<(), SrtpError> {
        let ssrc = rtcp_ssrc(packet)?;
        let word = self
            .transform
            .rtcp_word(packet)
            .ok_or(SrtpError::NotAuthentic)?;
        let known = self.sources.get(ssrc);
        let window = known.map(|source| source.rtcp).unwrap_or_default();
        let index = u64::from(word.index());
        window.check(index)?;
        self.transform.open_rtcp(packet, ssrc, word)?;
        self.sources.entry(ssrc).rtcp.mark(index);
        Ok(())
    }
}

impl fmt::Debug for SealContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealContext")
            .field("ssrc", &self.ssrc)
            .field("rtp", &self.rtp)
            .field("rtcp_next", &self.rtcp_next)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for OpenContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenContext")
            .field("sources", &self.sources)
            .finish_non_exhaustive()
    }
}

/// The two ways of protecting a packet.
enum Transform {
    CounterMode(Box<CounterMode>),
    Gcm(Gcm),
}

impl Transform {
    fn new(suite: SrtpSuite, key: &SrtpKey) -> Self {
        let derivation = KeyDerivation::new(suite, key);
        match suite {
            SrtpSuite::AesCm128HmacSha1_80
            | SrtpSuite::AesCm128HmacSha1_32
            | SrtpSuite::AesCm256HmacSha1_80
            | SrtpSuite::AesCm256HmacSha1_32 => {
                Self::CounterMode(Box::new(CounterMode::new(suite, &derivation)))
            }
            SrtpSuite::AeadAes128Gcm | SrtpSuite::AeadAes256Gcm => {
                Self::Gcm(Gcm::new(suite, &derivation))
            }
        }
    }

    #[inline]
    fn seal_rtp(&self, packet: &mut PacketBuf<'_>, part: Part) -> Result<(), SrtpError> {
        match self {
            Self::CounterMode(transform) => transform.seal_rtp(packet, part),
            Self::Gcm(transform) => transform.seal_rtp(packet, part),
        }
    }

    #[inline]
    fn open_rtp(&self, packet: &mut PacketBuf<'_>, part: Part) -> Result<(), SrtpError> {
        match self {
            Self::CounterMode(transform) => transform.open_rtp(packet, part),
            Self::Gcm(transform) => transform.open_rtp(packet, part),
        }
    }

    fn seal_rtcp(
        &self,
        packet: &mut PacketBuf<'_>,
        ssrc: Ssrc,
        word: SrtcpWord,
    ) -> Result<(), SrtpError> {
        match self {
            Self::CounterMode(transform) => transform.seal_rtcp(packet, ssrc, word),
            Self::Gcm(transform) => transform.seal_rtcp(packet, ssrc, word),
        }
    }

    fn open_rtcp(
        &self,
        packet: &mut PacketBuf<'_>,
        ssrc: Ssrc,
        word: SrtcpWord,
    ) -> Result<(), SrtpError> {
        match self {
            Self::CounterMode(transform) => transform.open_rtcp(packet, ssrc, word),
            Self::Gcm(transform) => transform.open_rtcp(packet, ssrc, word),
        }
    }

    /// E bit and index of a packet; `None` when it is too short to have them.
    fn rtcp_word(&self, packet: &[u8]) -> Option<SrtcpWord> {
        let at = match self {
            Self::CounterMode(_) => CounterMode::rtcp_word_at(packet.len())?,
            Self::Gcm(_) => Gcm::rtcp_word_at(packet.len())?,
        };
        Some(SrtcpWord::from_bytes(*packet.get(at..)?.first_chunk()?))
    }
}

/// One RTP packet as its transform sees it.
#[derive(Debug, Clone, Copy)]
struct Part {
    ssrc: Ssrc,
    /// Rollover counter and sequence number.
    index: u64,
    /// Bytes that stay readable: fixed header, CSRC list, extension.
    clear_len: usize,
}

/// What stands behind every SRTCP packet: the E bit, then its index of 31 bits (RFC 3711 §3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SrtcpWord(u32);

impl SrtcpWord {
    const LEN: usize = 4;
    const INDEX_MAX: u32 = (1 << 31) - 1;
    const E_BIT: u32 = 1 << 31;

    /// `None` when a key has used up its indices.
    fn encrypted(index: u32) -> Option<Self> {
        (index <= Self::INDEX_MAX).then_some(Self(Self::E_BIT | index))
    }

    fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(u32::from_be_bytes(bytes))
    }

    fn to_bytes(self) -> [u8; Self::LEN] {
        self.0.to_be_bytes()
    }

    fn is_encrypted(self) -> bool {
        self.0 & Self::E_BIT != 0
    }

    fn index(self) -> u32 {
        self.0 & Self::INDEX_MAX
    }
}

/// What can be read of an RTP packet before it is authentic.
#[derive(Debug, Clone, Copy)]
struct ClearHeader {
    sequence: u16,
    ssrc: Ssrc,
    len: usize,
}

impl ClearHeader {
    /// Padding is not looked at: its length stands in the encrypted part.
    #[inline]
    fn parse(packet: &[u8]) -> Result<Self, SrtpError> {
        let fixed: &[u8; 12] = packet.first_chunk().ok_or(SrtpError::Malformed)?;
        if fixed[0] >> 6 != 2 {
            return Err(SrtpError::Malformed);
        }
        let mut len = 12 + 4 * usize::from(fixed[0] & 0x0f);
        let has_extension = fixed[0] & 0x10 != 0;
        if has_extension {
            let head: &[u8; 4] = packet
                .get(len..)
                .and_then(|rest| rest.first_chunk())
                .ok_or(SrtpError::Malformed)?;
            len += 4 + 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
        }
        if len > packet.len() {
            return Err(SrtpError::Malformed);
        }
        Ok(Self {
            sequence: u16::from_be_bytes([fixed[2], fixed[3]]),
            ssrc: Ssrc(u32::from_be_bytes([
                fixed[8], fixed[9], fixed[10], fixed[11],
            ])),
            len,
        })
    }

    fn part(&self, index: u64) -> Part {
        Part {
            ssrc: self.ssrc,
            index,
            clear_len: self.len,
        }
    }
}

/// SSRC of the sender of an RTCP compound.
fn rtcp_ssrc(packet: &[u8]) -> Result<Ssrc, SrtpError> {
    let head: &[u8; 8] = packet.first_chunk().ok_or(SrtpError::Malformed)?;
    Ok(Ssrc(u32::from_be_bytes([
        head[4], head[5], head[6], head[7],
    ])))
}
