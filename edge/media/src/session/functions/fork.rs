//! A copy of what a leg's peer says, for a second address.

use trunkline_edge_api::{LegIndex, MediaFork};

use super::super::{SocketKind, Transmit};
use crate::demux::MediaKind;
use crate::rtp::{RtpEdit, RtpHeader};

/// Longest packet that is copied: what fits an Ethernet frame.
const COPY_LEN_MAX: usize = 1_472;

/// Copies go out with the numbers they came with, under an SSRC of their own; the leg's socket
/// sends them, and what the second address sends back is a stranger's.
#[derive(Debug)]
pub(super) struct Fork {
    target: MediaFork,
    /// The copy that was made last and not sent yet.
    copy: Box<[u8; COPY_LEN_MAX]>,
    len: usize,
}

impl Fork {
    pub(super) fn new(target: MediaFork) -> Self {
        Self {
            target,
            copy: Box::new([0; COPY_LEN_MAX]),
            len: 0,
        }
    }

    pub(super) fn target(&self) -> MediaFork {
        self.target
    }

    /// Copies a packet of the leg's peer, opened.
    pub(super) fn copy(&mut self, header: &RtpHeader, packet: &[u8]) {
        let Some(room) = self.copy.get_mut(..packet.len()) else {
            return;
        };
        room.copy_from_slice(packet);
        RtpEdit {
            payload_type: header.payload_type,
            sequence: header.sequence,
            timestamp: header.timestamp,
            ssrc: self.target.ssrc,
        }
        .apply(room);
        self.len = packet.len();
    }

    pub(super) fn has_copy(&self) -> bool {
        self.len != 0
    }

    /// The copy, to be sent on `leg`'s socket.
    pub(super) fn poll(&mut self, leg: LegIndex, out: &mut [u8]) -> Option<Transmit> {
        let len = std::mem::take(&mut self.len);
        let copy = self.copy.get(..len).filter(|copy| !copy.is_empty())?;
        out.get_mut(..len)?.copy_from_slice(copy);
        Some(Transmit {
            leg,
            socket: SocketKind::Rtp,
            kind: MediaKind::Rtp,
            dest: self.target.to,
            len,
        })
    }
}
