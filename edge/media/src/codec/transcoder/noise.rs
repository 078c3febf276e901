//! A sender's silence on its way through a transcoder: RFC 3389, and DTX of Opus.
//!
//! | the sender's silence | a receiver with comfort noise | a receiver without |
//! |---|---|---|
//! | comfort noise | is sent what was said | is sent a packet of such noise |
//! | Opus DTX | is sent what the decoder makes of it, described | is sent what the decoder makes of it |
//!
//! What the sender then does not send is not made up: time jumps, as it does for every pause. An
//! Opus receiver goes on with the noise of the last packet by itself.

use trunkline_edge_api::audio::AudioCodec;

use super::{EncodedPacket, Order, Transcoder};
use crate::audio::SampleRate;
use crate::codec::comfort_noise::{NoiseGenerator, PAYLOAD_LEN_MAX, describe};

#[cfg(test)]
mod tests;

/// An Opus packet this short holds no sound but says that none follows (RFC 6716 §2.1.9).
const OPUS_DTX_LEN_MAX: usize = 2;

/// How the receiver is told of silence.
#[derive(Debug)]
pub(super) enum Silence {
    /// As comfort noise, of which this is to be sent next.
    Described(Option<Description>),
    /// As audio.
    Heard(Box<NoiseGenerator>),
}

/// A comfort noise payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Description {
    payload: [u8; PAYLOAD_LEN_MAX],
    len: usize,
}

impl Description {
    /// The level alone, unless what it describes is sampled as comfort noise has it.
    fn cut(mut self, rate: SampleRate) -> Self {
        if rate != SampleRate::Hz8000 {
            self.len = self.len.min(1);
        }
        self
    }
}

impl Silence {
    pub(super) fn heard_at(rate: SampleRate) -> Self {
        Self::Heard(Box::new(NoiseGenerator::new(rate)))
    }
}

impl Transcoder {
    /// The receiver takes comfort noise beside its format, at a clock of 8 kHz.
    #[must_use]
    pub fn with_comfort_noise(mut self) -> Self {
        self.silence = Silence::Described(None);
        self
    }

    /// A comfort noise packet of the sender. Before any audio it is passed over.
    pub fn handle_comfort_noise(&mut self, sequence: u16, timestamp: u32, payload: &[u8]) {
        self.drop_complete_packets();
        let Some(mut source) = self.source else {
            return;
        };
        match source.order(sequence, timestamp, self.source_clock_hz) {
            Order::Next | Order::AfterLoss => {}
            Order::Late | Order::Doubtful => {
                self.counters.late += 1;
                return;
            }
            Order::Restart => return,
        }
        source.newest_sequence = sequence;
        // A loss between the last words and the silence behind them is part of that silence.
        source.loss = false;
        match self.advance(&mut source, timestamp) {
            0 => {}
            gap => self.bridge_silence(gap),
        }
        self.source = Some(source);
        self.fill_up();
        if payload.is_empty() {
            return;
        }
        if let Silence::Heard(generator) = &mut self.silence {
            generator.handle_payload(payload);
            let room = &mut self.pending[self.pending_len..];
            let len = self.encoder.packet_samples().min(room.len());
            generator.fill(&mut room[..len]);
            self.pending_len += len;
        } else {
            let len = payload.len().min(PAYLOAD_LEN_MAX);
            let mut said = [0; PAYLOAD_LEN_MAX];
            said[..len].copy_from_slice(&payload[..len]);
            let described = Description { payload: said, len };
            self.silence = Silence::Described(Some(described.cut(self.rate)));
        }
    }

    /// Whether `payload` begins a pause that the receiver is to be told of in words.
    pub(super) fn is_described_pause(&self, payload: &[u8]) -> bool {
        self.source_codec == AudioCodec::Opus
            && payload.len() <= OPUS_DTX_LEN_MAX
            && matches!(self.silence, Silence::Described(_))
    }

    /// Describes what the decoder makes of a pause. `false` when it does not decode.
    pub(super) fn describe_pause(&mut self, payload: &[u8]) -> bool {
        self.fill_up();
        let room = &mut self.pending[self.pending_len..];
        let Ok(len) = self.decoder.decode(payload, room) else {
            self.counters.bad_frames += 1;
            return false;
        };
        self.counters.decoded += 1;
        let mut said = [0; PAYLOAD_LEN_MAX];
        let described = Description {
            len: describe(&room[..len], &mut said),
            payload: said,
        };
        self.silence = Silence::Described(Some(described.cut(self.rate)));
        true
    }

    /// What waits for the rest of its packet gets it.
    fn fill_up(&mut self) {
        let packet = self.encoder.packet_samples();
        let missing = (packet - self.pending_len % packet) % packet;
        self.conceal(missing, None);
    }

    /// The comfort noise that is to be sent, after all audio before it.
    pub(super) fn poll_comfort_noise(&mut self, out: &mut [u8]) -> Option<EncodedPacket> {
        let Silence::Described(described) = &mut self.silence else {
            return None;
        };
        let Description { payload, len } = described.take()?;
        out.get_mut(..len)?.copy_from_slice(&payload[..len]);
        // The next words begin a talkspurt (RFC 3551 §4.1).
        self.marker = true;
        Some(EncodedPacket {
            len,
            timestamp: self.timestamp_at(self.end()),
            marker: false,
            is_comfort_noise: true,
        })
    }

    /// A description that nobody polled is of a silence that is over.
    pub(super) fn forget_comfort_noise(&mut self) {
        if let Silence::Described(described) = &mut self.silence {
            self.counters.dropped += u64::from(described.take().is_some());
        }
    }
}
