//! Samples to payloads.

use trunkline_edge_api::audio::{AudioCodec, AudioFormat};

#[cfg(feature = "opus")]
use super::opus;
use super::{
    ENCODED_LEN_MAX, EncodeError, PIECE, UnsupportedFormat, UnsupportedReason, g711, g722, l16,
    native_rate,
};
use crate::audio::SampleRate;
use crate::resample::Resampler;

/// Mono samples at one rate to payloads of one format, a packet time at once.
///
/// It holds less than 2 KB; for Opus, 32 KB at any rate.
#[derive(Debug)]
pub struct Encoder {
    kind: Kind,
    rate: SampleRate,
    packet_samples: usize,
}

#[derive(Debug)]
enum Kind {
    Waveform {
        codec: Codec,
        resampler: Resampler,
    },
    #[cfg(feature = "opus")]
    Opus(opus::Encoder),
}

#[derive(Debug)]
enum Codec {
    G711(g711::Law),
    G722(Box<g722::Encoder>),
    L16 { channels: usize },
}

impl Encoder {
    /// An encoder of `format` that takes samples at `rate`.
    ///
    /// # Errors
    /// The format is not one of this build, or its packets would exceed [`ENCODED_LEN_MAX`].
    pub fn new(format: &AudioFormat, rate: SampleRate) -> Result<Self, UnsupportedFormat> {
        let native = native_rate(format)?;
        let channels = usize::from(format.channels);
        let millis = u32::from(format.packet_time.millis());
        let codec = match format.codec {
            AudioCodec::Pcmu => Codec::G711(g711::Law::Mu),
            AudioCodec::Pcma => Codec::G711(g711::Law::A),
            AudioCodec::G722 => Codec::G722(Box::new(g722::Encoder::new())),
            AudioCodec::L16 => Codec::L16 { channels },
            AudioCodec::Opus => return Self::opus(format, rate),
        };
        if codec.payload_len(native.samples(millis)) > ENCODED_LEN_MAX {
            return Err(UnsupportedFormat {
                codec: format.codec,
                reason: UnsupportedReason::PacketTime,
            });
        }
        let resampler = Resampler::new(rate, native);
        Ok(Self {
            kind: Kind::Waveform { codec, resampler },
            rate,
            packet_samples: rate.samples(millis),
        })
    }

    #[cfg(feature = "opus")]
    fn opus(format: &AudioFormat, rate: SampleRate) -> Result<Self, UnsupportedFormat> {
        let encoder =
            opus::Encoder::new(rate, &format.opus).map_err(|_| UnsupportedFormat::NO_OPUS)?;
        Ok(Self {
            kind: Kind::Opus(encoder),
            rate,
            packet_samples: rate.samples(opus::packet_millis(format.packet_time)),
        })
    }

    #[cfg(not(feature = "opus"))]
    fn opus(_: &AudioFormat, _: SampleRate) -> Result<Self, UnsupportedFormat> {
        Err(UnsupportedFormat::NO_OPUS)
    }

    /// The rate of the samples it takes.
    #[must_use]
    pub fn rate(&self) -> SampleRate {
        self.rate
    }

    /// How many samples make a packet: the format's packet time, for Opus the next shorter that it
    /// has (20 ms for 30, 40 ms for 50).
    #[must_use]
    pub fn packet_samples(&self) -> usize {
        self.packet_samples
    }

    /// So many percent of the packets will be lost. Where the format has a remedy and the peer takes
    /// it (Opus with in-band FEC), packets get it to that extent; an encoder begins without. Costs
    /// nothing while the value stays.
    pub fn set_expected_loss(&mut self, percent: u8) {
        match &mut self.kind {
            Kind::Waveform { .. } => {
                let _ = percent;
            }
            #[cfg(feature = "opus")]
            Kind::Opus(encoder) => encoder.set_expected_loss(percent),
        }
    }

    /// Encodes one packet of samples into `out`, which has room for [`ENCODED_LEN_MAX`] bytes, and
    /// returns the payload's length. 0: nothing needs to be sent (DTX).
    ///
    /// # Errors
    /// `pcm` is not [`Self::packet_samples`] long, or `out` is too short.
    pub fn encode(&mut self, pcm: &[i16], out: &mut [u8]) -> Result<usize, EncodeError> {
        if pcm.len() != self.packet_samples {
            return Err(EncodeError::Length);
        }
        let (codec, resampler) = match &mut self.kind {
            Kind::Waveform { codec, resampler } => (codec, resampler),
            #[cfg(feature = "opus")]
            Kind::Opus(encoder) => return encoder.encode(pcm, out),
        };
        let mut scratch = [0; PIECE];
        let mut made = 0;
        for piece in pcm.chunks(self.rate.samples(10)) {
            let len = resampler.process(piece, &mut scratch);
            let needed = codec.payload_len(len);
            let room = out
                .get_mut(made..made + needed)
                .ok_or(EncodeError::NoRoom)?;
            codec.encode(&scratch[..len], room);
            made += needed;
        }
        Ok(made)
    }
}

impl Codec {
    /// Bytes that `samples` become.
    fn payload_len(&self, samples: usize) -> usize {
        match self {
            Self::G711(_) => samples,
            Self::G722(_) => samples / 2,
            Self::L16 { channels } => 2 * channels * samples,
        }
    }

    fn encode(&mut self, samples: &[i16], out: &mut [u8]) {
        let _made = match self {
            Self::G711(law) => law.encode_slice(samples, out),
            Self::G722(encoder) => encoder.encode(samples, out),
            Self::L16 { channels } => l16::encode(samples, *channels, out),
        };
    }
}
