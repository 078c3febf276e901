//! Packets that the edge makes: their header, and their place in the leg's one stream.

use trunkline_edge_api::{ClockRateHz, LegIndex, MonoTime, PayloadType, Ssrc};

use super::super::leg::Leg;
use super::super::{Transmit, Verdict};
use crate::demux::MediaKind;
use crate::packet_buf::PacketBuf;
use crate::rewrite::{Position, mix};
use crate::rtp::{HEADER_LEN_MIN, RtpEdit};

/// What feeds a leg's stream in place of the far peer. Each has numbers of its own, which the
/// stream joins to those of whoever was before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Feed {
    /// Which playback.
    Playback(u32),
    Events,
    /// Which row of tones without a pause.
    Tones(u32),
    /// A conference, in which of the leg's seats.
    Mix(u32),
    /// The far peer's audio without its digits.
    Filtered,
    /// The far peer's audio in this of its formats, encoded anew.
    Transcoded(u8),
}

impl Feed {
    /// Stands for the feed where the stream knows a far peer by its SSRC.
    pub(super) fn source(self, own: Ssrc) -> Ssrc {
        let (kind, number) = match self {
            Feed::Playback(id) => (1u64, id),
            Feed::Events => (2, 0),
            Feed::Tones(row) => (3, row),
            Feed::Mix(row) => (4, row),
            Feed::Filtered => (5, 0),
            Feed::Transcoded(index) => (6, index.into()),
        };
        Ssrc(mix(mix(u64::from(own.0)) ^ kind << 32 ^ u64::from(number)) as u32)
    }
}

/// A packet whose payload stands behind the room for its header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    pub(super) feed: Feed,
    pub(super) position: Position,
    pub(super) marker: bool,
    pub(super) payload_type: PayloadType,
    pub(super) clock_rate: ClockRateHz,
    pub(super) payload_len: usize,
}

impl Leg {
    /// Gives a packet its header and its place and says where it goes; `None` when the leg's peer
    /// is not to be sent anything now. Time goes on for it all the same.
    pub(super) fn send_made(
        &mut self,
        now: MonoTime,
        index: LegIndex,
        made: Made,
        out: &mut [u8],
    ) -> Option<Transmit> {
        if !self.direction().sends() {
            return None;
        }
        self.destination(MediaKind::Rtp)?;
        let source = made.feed.source(self.local().ssrc);
        // Whoever takes over begins a talkspurt (RFC 3551 §4.1).
        let takes_over = self.stream.source() != Some(source);
        let sent = self.stream.place(
            now,
            source,
            made.position,
            made.clock_rate,
            made.payload_len,
        )?;
        out.get_mut(..HEADER_LEN_MIN)?.fill(0);
        out[0] = 0x80;
        out[1] = u8::from(made.marker || takes_over) << 7;
        RtpEdit {
            payload_type: made.payload_type,
            sequence: sent.sequence,
            timestamp: sent.timestamp,
            ssrc: self.stream.ssrc(),
        }
        .apply(out);
        let mut packet = PacketBuf::new(out, HEADER_LEN_MIN + made.payload_len);
        match self.transmit(index, MediaKind::Rtp, &mut packet) {
            Verdict::Forward(transmit) => Some(transmit),
            Verdict::Consumed | Verdict::Drop(_) => None,
        }
    }
}
