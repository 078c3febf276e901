//! What a leg's peer says, for whoever records it.

use trunkline_edge_api::AudioFormat;

/// Longest packet that is kept: what fits an Ethernet frame.
const PACKET_LEN_MAX: usize = 1_472;

/// An RTP packet of a leg's peer, as it came and open.
#[derive(Debug, Clone, Copy)]
pub struct Tapped<'a> {
    /// How its payload is to be decoded; `None` for events, comfort noise, and codecs that the edge
    /// passes through.
    pub format: Option<AudioFormat>,
    /// The packet, from its header on.
    pub packet: &'a [u8],
}

/// Keeps the last packet until it is taken.
#[derive(Debug)]
pub(super) struct Tap {
    format: Option<AudioFormat>,
    packet: Box<[u8; PACKET_LEN_MAX]>,
    len: usize,
}

impl Tap {
    pub(super) fn new() -> Self {
        Self {
            format: None,
            packet: Box::new([0; PACKET_LEN_MAX]),
            len: 0,
        }
    }

    pub(super) fn keep(&mut self, format: Option<AudioFormat>, packet: &[u8]) {
        if let Some(room) = self.packet.get_mut(..packet.len()) {
            room.copy_from_slice(packet);
            self.format = format;
            self.len = packet.len();
        }
    }

    pub(super) fn take(&mut self) -> Option<Tapped<'_>> {
        let len = std::mem::take(&mut self.len);
        let packet = self.packet.get(..len).filter(|packet| !packet.is_empty())?;
        Some(Tapped {
            format: self.format,
            packet,
        })
    }
}
