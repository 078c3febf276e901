//! How a leg protects what it sends and opens what it hears.

use trunkline_edge_api::crypto::LegCrypto;
use trunkline_edge_api::{DropReason, Ssrc};

use crate::demux::MediaKind;
use crate::packet_buf::PacketBuf;
use crate::srtp::{OpenContext, SealContext, SrtpError};

/// Both contexts of a leg and the keys they were made of.
#[derive(Debug)]
pub(super) struct LegSecurity {
    crypto: LegCrypto,
    seal: SealContext,
    open: OpenContext,
}

impl LegSecurity {
    /// What `crypto` asks for. A direction whose suite and key are those of `current` goes on
    /// with its rollover counter and replay window, so that a re-INVITE that only moves the peer
    /// is not heard; one with a new key begins anew (RFC 3711 §3.2.1). `ssrc` is the leg's own.
    pub(super) fn configured(
        current: Option<Box<Self>>,
        crypto: Option<LegCrypto>,
        ssrc: Ssrc,
    ) -> Option<Box<Self>> {
        let crypto = crypto?;
        let Some(current) = current.filter(|current| current.crypto.suite == crypto.suite) else {
            return Some(Box::new(Self::new(crypto, ssrc)));
        };
        let Self {
            crypto: earlier,
            seal,
            open,
        } = *current;
        let seal = if earlier.send == crypto.send {
            seal
        } else {
            SealContext::new(crypto.suite, &crypto.send, ssrc)
        };
        let open = if earlier.receive == crypto.receive {
            open
        } else {
            OpenContext::new(crypto.suite, &crypto.receive)
        };
        Some(Box::new(Self { crypto, seal, open }))
    }

    fn new(crypto: LegCrypto, ssrc: Ssrc) -> Self {
        Self {
            seal: SealContext::new(crypto.suite, &crypto.send, ssrc),
            open: OpenContext::new(crypto.suite, &crypto.receive),
            crypto,
        }
    }

    /// Protects a packet that leaves the leg.
    #[inline]
    pub(super) fn seal(
        &mut self,
        kind: MediaKind,
        packet: &mut PacketBuf<'_>,
    ) -> Result<(), DropReason> {
        let sealed = match kind {
            MediaKind::Rtp => self.seal.seal_rtp(packet),
            MediaKind::Rtcp => self.seal.seal_rtcp(packet),
        };
        sealed.map_err(|error| reason(error, kind))
    }

    /// Authenticates and decrypts a packet that arrived on the leg.
    #[inline]
    pub(super) fn open(
        &mut self,
        kind: MediaKind,
        packet: &mut PacketBuf<'_>,
    ) -> Result<(), DropReason> {
        let opened = match kind {
            MediaKind::Rtp => self.open.open_rtp(packet),
            MediaKind::Rtcp => self.open.open_rtcp(packet),
        };
        opened.map_err(|error| reason(error, kind))
    }
}

fn reason(error: SrtpError, kind: MediaKind) -> DropReason {
    error.drop_reason(match kind {
        MediaKind::Rtp => DropReason::MalformedRtp,
        MediaKind::Rtcp => DropReason::MalformedRtcp,
    })
}

#[cfg(test)]
mod tests;
