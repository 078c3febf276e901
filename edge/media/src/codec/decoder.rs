//! Payloads to samples.

use trunkline_edge_api::audio::{AudioCodec, AudioFormat};

use super::concealment::Concealer;
#[cfg(feature = "opus")]
use super::opus;
use super::{BadFrame, PACKET_MILLIS_MAX, PIECE, UnsupportedFormat, g711, g722, l16, native_rate};
use crate::audio::SampleRate;
use crate::resample::Resampler;

/// Payloads of one format to mono samples at one rate.
///
/// | bytes held, by the rate of the samples | 8 kHz | 16 kHz | 48 kHz |
/// |---|---|---|---|
/// | PCMU, PCMA, L16 at that rate | 2 KB | 4 KB | 10 KB |
/// | G722 | 4 KB | 4 KB | 11 KB |
/// | Opus | 19 KB | 19 KB | 19 KB |
#[derive(Debug)]
pub struct Decoder {
    kind: Kind,
    rate: SampleRate,
}

#[derive(Debug)]
enum Kind {
    Waveform(Waveform),
    #[cfg(feature = "opus")]
    Opus(opus::Decoder),
}

impl Decoder {
    /// A decoder of `format` whose samples come at `rate`.
    ///
    /// # Errors
    /// The format is not one of this build.
    pub fn new(format: &AudioFormat, rate: SampleRate) -> Result<Self, UnsupportedFormat> {
        let native = native_rate(format)?;
        let channels = usize::from(format.channels);
        let codec = match format.codec {
            AudioCodec::Pcmu => Codec::G711(g711::Law::Mu),
            AudioCodec::Pcma => Codec::G711(g711::Law::A),
            AudioCodec::G722 => Codec::G722(Box::new(g722::Decoder::new())),
            AudioCodec::L16 => Codec::L16 { channels },
            AudioCodec::Opus => return Self::opus(rate),
        };
        let waveform = Waveform {
            codec,
            native,
            clock_hz: format.clock_rate.get(),
            resampler: Resampler::new(native, rate),
            concealer: Concealer::new(rate),
        };
        Ok(Self {
            kind: Kind::Waveform(waveform),
            rate,
        })
    }

    #[cfg(feature = "opus")]
    fn opus(rate: SampleRate) -> Result<Self, UnsupportedFormat> {
        let decoder = opus::Decoder::new(rate).map_err(|_| UnsupportedFormat::NO_OPUS)?;
        Ok(Self {
            kind: Kind::Opus(decoder),
            rate,
        })
    }

    #[cfg(not(feature = "opus"))]
    fn opus(_: SampleRate) -> Result<Self, UnsupportedFormat> {
        Err(UnsupportedFormat::NO_OPUS)
    }

    /// The rate of the samples.
    #[must_use]
    pub fn rate(&self) -> SampleRate {
        self.rate
    }

    /// Decodes one packet's payload into `out` and returns how many samples that made, at most
    /// 120 ms of them.
    ///
    /// # Errors
    /// The payload is bad; nothing was decoded, and the packet's time is to be concealed.
    pub fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> Result<usize, BadFrame> {
        match &mut self.kind {
            Kind::Waveform(waveform) => waveform.decode(payload, out),
            #[cfg(feature = "opus")]
            Kind::Opus(decoder) => decoder.decode(payload, out),
        }
    }

    /// Fills all of `out` in place of audio that did not come. May be called again as the loss goes
    /// on; after 60 ms it is silence (Opus: what libopus makes of it).
    pub fn conceal(&mut self, out: &mut [i16]) {
        match &mut self.kind {
            Kind::Waveform(waveform) => waveform.concealer.fill(out),
            #[cfg(feature = "opus")]
            Kind::Opus(decoder) => decoder.conceal(out),
        }
    }

    /// Fills all of `out` in place of audio that did not come, of which `next`, the payload that
    /// came after it, may carry a description (Opus in-band FEC). `next` is still to be decoded.
    pub fn recover(&mut self, next: &[u8], out: &mut [i16]) {
        match &mut self.kind {
            Kind::Waveform(waveform) => {
                let _ = next;
                waveform.concealer.fill(out);
            }
            #[cfg(feature = "opus")]
            Kind::Opus(decoder) => decoder.recover(next, out),
        }
    }

    /// How long a payload lasts in units of the format's RTP clock; 0 when it does not decode.
    #[must_use]
    pub fn duration(&self, payload: &[u8]) -> u32 {
        match &self.kind {
            Kind::Waveform(waveform) => waveform.duration(payload),
            #[cfg(feature = "opus")]
            Kind::Opus(_) => opus::duration(payload).unwrap_or(0),
        }
    }
}

/// A codec whose samples stand each for themselves, with what it lacks beside it.
#[derive(Debug)]
struct Waveform {
    codec: Codec,
    native: SampleRate,
    clock_hz: u32,
    resampler: Resampler,
    concealer: Concealer,
}

#[derive(Debug)]
enum Codec {
    G711(g711::Law),
    G722(Box<g722::Decoder>),
    L16 { channels: usize },
}

impl Waveform {
    fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> Result<usize, BadFrame> {
        let samples = self.samples(payload)?;
        if samples > self.native.samples(PACKET_MILLIS_MAX)
            || self.resampler.output_len_max(samples) > out.len()
        {
            return Err(BadFrame::TooLong);
        }
        let mut scratch = [0; PIECE];
        let piece_len = PIECE * payload.len() / samples;
        let mut made = 0;
        for piece in payload.chunks(piece_len) {
            let len = match &mut self.codec {
                Codec::G711(law) => law.decode_slice(piece, &mut scratch),
                Codec::G722(decoder) => decoder.decode(piece, &mut scratch),
                Codec::L16 { channels } => l16::decode(piece, *channels, &mut scratch),
            };
            made += self.resampler.process(&scratch[..len], &mut out[made..]);
        }
        self.concealer.handle_audio(&mut out[..made]);
        Ok(made)
    }

    fn duration(&self, payload: &[u8]) -> u32 {
        let samples = match self.samples(payload) {
            Ok(samples) if samples <= self.native.samples(PACKET_MILLIS_MAX) => samples as u64,
            _ => 0,
        };
        (samples * u64::from(self.clock_hz) / u64::from(self.native.hz())) as u32
    }

    /// How many samples a payload holds.
    fn samples(&self, payload: &[u8]) -> Result<usize, BadFrame> {
        match self.codec {
            Codec::G711(_) => g711::check(payload).map(|()| payload.len()),
            Codec::G722(_) => g722::check(payload).map(|()| 2 * payload.len()),
            Codec::L16 { channels } => l16::samples(payload, channels),
        }
    }
}
