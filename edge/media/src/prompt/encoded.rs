//! A prompt as the payloads that are sent, made once for all legs of one format.

use trunkline_edge_api::{AudioCodec, AudioFormat, ClockRateHz, OpusOptions, PacketTime, Tone};

use super::Prompt;
use crate::audio::SampleRate;
use crate::codec::{Encoder, SHARED_LOSS_PERCENT};
use crate::tone::{ToneGenerator, rate_for};

/// Longest payload, bytes: 60 ms of L16 at 48 kHz in stereo.
const PAYLOAD_LEN_MAX: usize = 60 * 48 * 2 * 2;

/// What two legs must have in common to share an encoded prompt: the format without the number
/// that signalling gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PromptFormat {
    codec: AudioCodec,
    clock_rate: ClockRateHz,
    channels: u8,
    packet_time: PacketTime,
    opus: OpusOptions,
}

impl PromptFormat {
    /// Of a leg's format. What an Opus peer asks of silence is left aside: a prompt is sent
    /// without gaps, so that its packets can be counted off.
    #[must_use]
    pub fn of(format: &AudioFormat) -> Self {
        let opus = match format.codec {
            AudioCodec::Opus => OpusOptions {
                dtx: false,
                ..format.opus
            },
            _ => OpusOptions::default(),
        };
        Self {
            codec: format.codec,
            clock_rate: format.clock_rate,
            channels: format.channels,
            packet_time: format.packet_time,
            opus,
        }
    }

    /// The sampling rate at which a prompt is given to the encoder.
    fn sample_rate(self, prompt: &Prompt) -> SampleRate {
        match self.codec {
            AudioCodec::Pcmu | AudioCodec::Pcma => SampleRate::Hz8000,
            AudioCodec::G722 => SampleRate::Hz16000,
            AudioCodec::L16 => {
                SampleRate::from_hz(self.clock_rate.get()).unwrap_or(SampleRate::Hz8000)
            }
            // Opus takes any rate: not more than the file has, nor than the peer can hear.
            AudioCodec::Opus if self.opus.playback_rate_max_hz <= 8_000 => SampleRate::Hz8000,
            AudioCodec::Opus if prompt.samples(SampleRate::Hz16000).is_some() => {
                SampleRate::Hz16000
            }
            AudioCodec::Opus => SampleRate::Hz8000,
        }
    }
}

/// A prompt or a tone could not be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The codec is not part of this build, or the format's numbers do not go together.
    #[error("this edge cannot encode {} at {} Hz", .0.codec.encoding_name(), .0.clock_rate.get())]
    Unsupported(PromptFormat),
    /// The encoder refused samples that it should take.
    #[error("{} refused the prompt's audio", .0.codec.encoding_name())]
    Failed(PromptFormat),
}

/// The payloads of a prompt or of one pass of a tone, one per packet time. Immutable: share it behind an `Arc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedPrompt {
    format: PromptFormat,
    bytes: Box<[u8]>,
    /// Where each payload ends in `bytes`.
    ends: Box<[u32]>,
}

impl EncodedPrompt {
    /// Encodes from the first sample to the last in one go, so that codecs with memory are never
    /// interrupted; the last packet is filled up with silence.
    pub(super) fn new(prompt: &Prompt, format: &AudioFormat) -> Result<Self, EncodeError> {
        let rate = PromptFormat::of(format).sample_rate(prompt);
        let samples = prompt.samples_at(rate);
        let mut rest = &samples[..];
        Self::of_samples(format, rate, |room| {
            let (packet, after) = rest.split_at(rest.len().min(room.len()));
            room[..packet.len()].copy_from_slice(packet);
            rest = after;
            packet.len()
        })
    }

    /// One pass of `tone` for legs that are sent `format`. Not for a packet thread.
    ///
    /// # Errors
    /// [`EncodeError`] when this build has no such encoder.
    pub fn of_tone(tone: &Tone, format: &AudioFormat) -> Result<Self, EncodeError> {
        let rate = rate_for(format);
        let mut generator = ToneGenerator::new(tone, rate);
        Self::of_samples(format, rate, |room| generator.fill(room))
    }

    /// `next` fills a packet's samples and says how many there were; 0: no more.
    fn of_samples(
        format: &AudioFormat,
        rate: SampleRate,
        mut next: impl FnMut(&mut [i16]) -> usize,
    ) -> Result<Self, EncodeError> {
        let key = PromptFormat::of(format);
        let format = AudioFormat {
            opus: key.opus,
            ..*format
        };
        let unsupported = |_| EncodeError::Unsupported(key);
        let mut encoder = Encoder::new(&format, rate).map_err(unsupported)?;
        encoder.set_expected_loss(SHARED_LOSS_PERCENT);
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        let mut padded = vec![0; rate.samples(u32::from(format.packet_time.millis()))];
        let mut payload = vec![0; PAYLOAD_LEN_MAX];
        loop {
            let len = next(&mut padded);
            if len == 0 {
                break;
            }
            padded[len..].fill(0);
            let len = encoder
                .encode(&padded, &mut payload)
                .map_err(|_| EncodeError::Failed(key))?;
            bytes.extend_from_slice(&payload[..len]);
            // 30 minutes of L16 at 48 kHz in stereo take 345 MB.
            ends.push(u32::try_from(bytes.len()).map_err(|_| EncodeError::Failed(key))?);
        }
        Ok(Self {
            format: key,
            bytes: bytes.into(),
            ends: ends.into(),
        })
    }

    /// For which legs this is.
    #[must_use]
    pub const fn format(&self) -> PromptFormat {
        self.format
    }

    /// Number of packets.
    #[must_use]
    pub fn packet_count(&self) -> usize {
        self.ends.len()
    }

    /// Payload of packet `index`; `None` behind the last. Empty when there is nothing to send for
    /// this stretch of time.
    #[must_use]
    pub fn payload(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)? as usize;
        let start = match index.checked_sub(1) {
            Some(before) => self.ends[before] as usize,
            None => 0,
        };
        Some(&self.bytes[start..end])
    }

    /// How far one packet advances the RTP timestamp.
    #[must_use]
    pub const fn timestamp_step(&self) -> u32 {
        self.format.clock_rate.get() / 1_000 * self.format.packet_time.millis() as u32
    }

    /// How long one packet lasts.
    #[must_use]
    pub const fn packet_time(&self) -> PacketTime {
        self.format.packet_time
    }

    /// Its memory, bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.bytes.len() as u64 + self.ends.len() as u64 * 4
    }
}
