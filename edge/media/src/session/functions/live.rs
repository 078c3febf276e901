//! The far peer's audio for a leg that takes it in another format.

use trunkline_edge_api::{
    AudioCodec, AudioFormat, ClockRateHz, LegAudio, PayloadType, Refusal, Ssrc,
};

use super::made::{Feed, Made};
use crate::codec::{Transcoder, g711};
use crate::rewrite::Position;
use crate::rtp::{HEADER_LEN_MIN, RtpHeader};

/// One format that the far peer may send and that has no payload route to this leg.
#[derive(Debug)]
pub(super) struct LiveFormat {
    /// As the far peer sends it.
    from: AudioFormat,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// Byte by byte, in the packet that came.
    Table(fn(&mut [u8])),
    Encoded(Box<Encoded>),
}

#[derive(Debug)]
struct Encoded {
    transcoder: Transcoder,
    /// Whose packets it is fed.
    source: Option<Ssrc>,
    /// Number of the next packet.
    sequence: u16,
    has_output: bool,
}

/// What is to be done with the packet of a live format.
pub(super) enum Change {
    /// It was rewritten where it lies.
    InPlace,
    /// It was taken in; what comes of it is to be polled.
    TakenIn,
    /// Its codec cannot read it.
    Unreadable,
}

impl LiveFormat {
    /// From what the far peer sends to what this leg's peer is sent.
    pub(super) fn new(from: AudioFormat, to: &LegAudio) -> Result<Self, Refusal> {
        let way = match table(&from, &to.send) {
            Some(translate) => Way::Table(translate),
            None => {
                let transcoder = Transcoder::new(&from, &to.send);
                let transcoder = transcoder.map_err(|_| Refusal::FormatUnsupported)?;
                Way::Encoded(Box::new(Encoded {
                    transcoder: match comfort_noise(to) {
                        Some(_) => transcoder.with_comfort_noise(),
                        None => transcoder,
                    },
                    source: None,
                    sequence: 0,
                    has_output: false,
                }))
            }
        };
        Ok(Self { from, way })
    }

    pub(super) fn is_from(&self, from: &AudioFormat) -> bool {
        self.from == *from
    }

    pub(super) fn payload_type(&self) -> PayloadType {
        self.from.payload_type
    }

    /// Takes a packet of the far peer in.
    pub(super) fn handle_packet(&mut self, header: &RtpHeader, packet: &mut [u8]) -> Change {
        let Some(payload) = payload_mut(header, packet) else {
            return Change::TakenIn;
        };
        match &mut self.way {
            Way::Table(translate) => {
                translate(payload);
                Change::InPlace
            }
            Way::Encoded(encoded) => {
                if encoded.source.replace(header.ssrc) != Some(header.ssrc) {
                    encoded.transcoder.handle_source_change();
                }
                let bad_before = encoded.transcoder.counters().bad_frames;
                encoded
                    .transcoder
                    .handle_packet(header.sequence, header.timestamp, payload);
                encoded.has_output = true;
                match encoded.transcoder.counters().bad_frames == bad_before {
                    true => Change::TakenIn,
                    false => Change::Unreadable,
                }
            }
        }
    }

    /// Whether packets of `source` are encoded anew here.
    pub(super) fn encodes(&self, source: Ssrc) -> bool {
        matches!(&self.way, Way::Encoded(encoded) if encoded.source == Some(source))
    }

    /// Comfort noise of the far peer.
    pub(super) fn handle_comfort_noise(&mut self, header: &RtpHeader, payload: &[u8]) {
        if let Way::Encoded(encoded) = &mut self.way {
            encoded
                .transcoder
                .handle_comfort_noise(header.sequence, header.timestamp, payload);
            encoded.has_output = true;
        }
    }

    /// A packet of the far peer that carries nothing to encode: an event.
    pub(super) fn handle_other(&mut self, header: &RtpHeader) {
        if let Way::Encoded(encoded) = &mut self.way
            && encoded.source == Some(header.ssrc)
        {
            encoded
                .transcoder
                .handle_other_packet(header.sequence, header.timestamp);
        }
    }

    pub(super) fn set_expected_loss(&mut self, percent: u8) {
        if let Way::Encoded(encoded) = &mut self.way {
            encoded.transcoder.set_expected_loss(percent);
        }
    }

    /// A packet of the far peer in whose time the leg's peer is sent something else.
    pub(super) fn handle_replaced(&mut self, header: &RtpHeader) {
        if let Way::Encoded(encoded) = &mut self.way
            && encoded.source == Some(header.ssrc)
        {
            encoded
                .transcoder
                .skip_packet(header.sequence, header.timestamp);
        }
    }

    /// Milliseconds made up so far.
    pub(super) fn concealed_millis(&self) -> u64 {
        match &self.way {
            Way::Table(_) => 0,
            Way::Encoded(encoded) => encoded.transcoder.counters().concealed_millis,
        }
    }

    /// Whether [`Self::poll_packet`] may have something.
    pub(super) fn has_output(&self) -> bool {
        matches!(&self.way, Way::Encoded(encoded) if encoded.has_output)
    }

    /// The next packet for the leg's peer, written behind the room for its header.
    pub(super) fn poll_packet(&mut self, index: u8, to: &LegAudio, out: &mut [u8]) -> Option<Made> {
        let Way::Encoded(encoded) = &mut self.way else {
            return None;
        };
        if !encoded.has_output {
            return None;
        }
        let room = out.get_mut(HEADER_LEN_MIN..)?;
        let Some(packet) = encoded.transcoder.poll_packet(room) else {
            encoded.has_output = false;
            return None;
        };
        let sequence = encoded.sequence;
        encoded.sequence = sequence.wrapping_add(1);
        Some(Made {
            feed: Feed::Transcoded(index),
            position: Position {
                sequence,
                timestamp: packet.timestamp,
            },
            marker: packet.marker,
            payload_type: match comfort_noise(to) {
                Some(number) if packet.is_comfort_noise => number,
                _ => to.send.payload_type,
            },
            clock_rate: to.send.clock_rate,
            payload_len: packet.len,
        })
    }
}

/// How comfort noise goes to a peer. Its payload describes noise sampled at 8 kHz, and at that
/// clock its number is the same for both sides.
fn comfort_noise(to: &LegAudio) -> Option<PayloadType> {
    to.comfort_noise
        .filter(|_| to.send.clock_rate == ClockRateHz::NARROWBAND)
}

/// The table that makes one G.711 of the other, where no packet has to be longer or shorter.
fn table(from: &AudioFormat, to: &AudioFormat) -> Option<fn(&mut [u8])> {
    let is_same_shape = from.clock_rate == to.clock_rate
        && from.packet_time == to.packet_time
        && (from.channels, to.channels) == (1, 1);
    match (from.codec, to.codec) {
        _ if !is_same_shape => None,
        (AudioCodec::Pcmu, AudioCodec::Pcma) => Some(g711::pcmu_to_pcma),
        (AudioCodec::Pcma, AudioCodec::Pcmu) => Some(g711::pcma_to_pcmu),
        _ => None,
    }
}

/// The payload of a packet whose header was read.
pub(super) fn payload_mut<'p>(header: &RtpHeader, packet: &'p mut [u8]) -> Option<&'p mut [u8]> {
    packet
        .get_mut(header.header_len..)?
        .get_mut(..header.payload_len)
}
