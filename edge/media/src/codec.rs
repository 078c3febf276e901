//! Audio codecs: from payload to samples, from samples to payload, and from one payload to the
//! other.
//!
//! | codec | defined by | native rate | state of a decoder / encoder |
//! |---|---|---|---|
//! | PCMU, PCMA ([`g711`]) | ITU-T G.711 | 8 kHz | none |
//! | G722 | ITU-T G.722, RFC 3551 §4.5.2 | 16 kHz | 0.6 KB |
//! | L16 | RFC 3551 §4.5.11 | its RTP clock | none |
//!
//! A [`Decoder`] or [`Encoder`] is opened at the rate that its other side works at, and resamples
//! when the codec cannot run there. All audio is mono; two channels are mixed to one. A
//! [`Transcoder`] is both with the timing between them. None of them allocates, waits or fails
//! after construction, whatever a payload holds: bad payloads are a [`BadFrame`].

use trunkline_edge_api::audio::{AudioCodec, AudioFormat};

use crate::audio::SampleRate;
use crate::resample::Resampler;

pub mod g711;
mod g722;
mod l16;
mod transcoder;

#[cfg(test)]
mod tests;

pub use transcoder::{EncodedPacket, TranscodeCounters, Transcoder};

/// Longest audio in one packet, milliseconds (RFC 7587 §4.2 for Opus; the others rarely pass 60).
pub const PACKET_MILLIS_MAX: u32 = 120;

/// Room for any packet, decoded at any rate, in samples.
pub const DECODED_LEN_MAX: usize = SampleRate::MAX.samples(PACKET_MILLIS_MAX);

/// Room for any payload that an [`Encoder`] makes, in bytes. With the headers of IPv6, UDP, RTP and
/// what SRTP adds it still fits an Ethernet frame.
pub const ENCODED_LEN_MAX: usize = 1_400;

/// Samples that are converted at once: 10 ms at the highest rate.
const PIECE: usize = SampleRate::MAX.samples(10);

/// A payload that does not decode. Traffic, not an error: counted by who meets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BadFrame {
    /// No payload at all.
    Empty,
    /// It ends inside a sample or a frame.
    Truncated,
    /// More than 120 ms of audio, or more than the output has room for.
    TooLong,
    /// Its content breaks the codec's rules.
    Malformed,
}

/// A format that cannot be decoded or encoded here; control should not have chosen it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnsupportedFormat {
    /// Which codec.
    pub codec: AudioCodec,
    /// Why not.
    pub reason: UnsupportedReason,
}

/// What is wrong with an [`UnsupportedFormat`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnsupportedReason {
    /// The RTP clock is not one that the codec has here.
    ClockRate,
    /// More channels than the codec has here, or none.
    Channels,
    /// A packet of the format's packet time exceeds [`ENCODED_LEN_MAX`].
    PacketTime,
    /// This build has no such codec.
    NotBuilt,
}

impl std::fmt::Display for UnsupportedFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let codec = self.codec.encoding_name();
        match self.reason {
            UnsupportedReason::ClockRate => write!(f, "{codec} is not run at this clock rate"),
            UnsupportedReason::Channels => write!(f, "{codec} is not run with so many channels"),
            UnsupportedReason::PacketTime => {
                write!(f, "{codec} makes packets beyond {ENCODED_LEN_MAX} bytes")
            }
            UnsupportedReason::NotBuilt => write!(f, "this build has no {codec}"),
        }
    }
}

impl std::error::Error for UnsupportedFormat {}

/// An encoder was used against its contract, or the codec refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EncodeError {
    /// Not one packet time of samples.
    Length,
    /// The payload does not fit into the output.
    NoRoom,
    /// The codec failed inside.
    Codec,
}

/// The rate at which a codec works by itself; `None` when the format's clock rate is not its own.
fn native_rate(format: &AudioFormat) -> Option<SampleRate> {
    let clock = SampleRate::from_hz(format.clock_rate.get())?;
    match format.codec {
        AudioCodec::Pcmu | AudioCodec::Pcma => {
            (clock == SampleRate::Hz8000).then_some(SampleRate::Hz8000)
        }
        AudioCodec::L16 => Some(clock),
        AudioCodec::G722 => (clock == SampleRate::Hz8000).then_some(SampleRate::Hz16000),
        AudioCodec::Opus => None,
    }
}

fn check(format: &AudioFormat) -> Result<SampleRate, UnsupportedFormat> {
    let refuse = |reason| UnsupportedFormat {
        codec: format.codec,
        reason,
    };
    let channels_max = match format.codec {
        AudioCodec::L16 | AudioCodec::Opus => 2,
        AudioCodec::Pcmu | AudioCodec::Pcma | AudioCodec::G722 => 1,
    };
    if !(1..=channels_max).contains(&format.channels) {
        return Err(refuse(UnsupportedReason::Channels));
    }
    if format.codec == AudioCodec::Opus {
        return Err(refuse(UnsupportedReason::NotBuilt));
    }
    native_rate(format).ok_or(refuse(UnsupportedReason::ClockRate))
}

#[derive(Debug)]
enum DecoderKind {
    G711(g711::Law),
    G722(Box<g722::Decoder>),
    L16 { channels: usize },
}

/// Payloads of one format to mono samples at one rate.
#[derive(Debug)]
pub struct Decoder {
    kind: DecoderKind,
    native: SampleRate,
    rate: SampleRate,
    clock_hz: u32,
    resampler: Resampler,
}

impl Decoder {
    /// A decoder of `format` whose samples come at `rate`.
    ///
    /// # Errors
    /// The format is not one of this build.
    pub fn new(format: &AudioFormat, rate: SampleRate) -> Result<Self, UnsupportedFormat> {
        let native = check(format)?;
        let kind = match format.codec {
            AudioCodec::Pcma => DecoderKind::G711(g711::Law::A),
            AudioCodec::G722 => DecoderKind::G722(Box::new(g722::Decoder::new())),
            AudioCodec::L16 => DecoderKind::L16 {
                channels: usize::from(format.channels),
            },
            _ => DecoderKind::G711(g711::Law::Mu),
        };
        Ok(Self {
            kind,
            native,
            rate,
            clock_hz: format.clock_rate.get(),
            resampler: Resampler::new(native, rate),
        })
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
        let samples = self.native_samples(payload)?;
        if samples > self.native.samples(PACKET_MILLIS_MAX)
            || self.resampler.output_len_max(samples) > out.len()
        {
            return Err(BadFrame::TooLong);
        }
        let mut scratch = [0; PIECE];
        let piece_len = PIECE * payload.len() / samples;
        let mut made = 0;
        for piece in payload.chunks(piece_len) {
            let len = match &mut self.kind {
                DecoderKind::G711(law) => law.decode_slice(piece, &mut scratch),
                DecoderKind::G722(decoder) => decoder.decode(piece, &mut scratch),
                DecoderKind::L16 { channels } => l16::decode(piece, *channels, &mut scratch),
            };
            made += self.resampler.process(&scratch[..len], &mut out[made..]);
        }
        Ok(made)
    }

    /// Fills all of `out` in place of audio that did not come.
    pub fn conceal(&mut self, out: &mut [i16]) {
        out.fill(0);
    }

    /// Fills all of `out` in place of audio that did not come, of which `next`, the payload that
    /// came after it, may carry a description (Opus in-band FEC). `next` is still to be decoded.
    pub fn recover(&mut self, _next: &[u8], out: &mut [i16]) {
        self.conceal(out);
    }

    /// How long a payload lasts in units of the format's RTP clock; 0 when it does not decode.
    #[must_use]
    pub fn duration(&self, payload: &[u8]) -> u32 {
        let samples = self.native_samples(payload).unwrap_or(0);
        (samples as u64 * u64::from(self.clock_hz) / u64::from(self.native.hz())) as u32
    }

    fn native_samples(&self, payload: &[u8]) -> Result<usize, BadFrame> {
        match &self.kind {
            DecoderKind::G711(_) => g711::check(payload).map(|()| payload.len()),
            DecoderKind::G722(_) => g722::check(payload).map(|()| 2 * payload.len()),
            DecoderKind::L16 { channels } => l16::samples(payload, *channels),
        }
    }
}

#[derive(Debug)]
enum EncoderKind {
    G711(g711::Law),
    G722(Box<g722::Encoder>),
    L16 { channels: usize },
}

/// Mono samples at one rate to payloads of one format, a packet time at once.
#[derive(Debug)]
pub struct Encoder {
    kind: EncoderKind,
    rate: SampleRate,
    packet_samples: usize,
    resampler: Resampler,
}

impl Encoder {
    /// An encoder of `format` that takes samples at `rate`.
    ///
    /// # Errors
    /// The format is not one of this build, or its packets would exceed [`ENCODED_LEN_MAX`].
    pub fn new(format: &AudioFormat, rate: SampleRate) -> Result<Self, UnsupportedFormat> {
        let native = check(format)?;
        let millis = u32::from(format.packet_time.millis());
        let channels = usize::from(format.channels);
        let (kind, packet_len) = match format.codec {
            AudioCodec::Pcma => (EncoderKind::G711(g711::Law::A), native.samples(millis)),
            AudioCodec::G722 => (
                EncoderKind::G722(Box::new(g722::Encoder::new())),
                native.samples(millis) / 2,
            ),
            AudioCodec::L16 => (
                EncoderKind::L16 { channels },
                2 * channels * native.samples(millis),
            ),
            _ => (EncoderKind::G711(g711::Law::Mu), native.samples(millis)),
        };
        if packet_len > ENCODED_LEN_MAX {
            return Err(UnsupportedFormat {
                codec: format.codec,
                reason: UnsupportedReason::PacketTime,
            });
        }
        Ok(Self {
            kind,
            rate,
            packet_samples: rate.samples(millis),
            resampler: Resampler::new(rate, native),
        })
    }

    /// The rate of the samples it takes.
    #[must_use]
    pub fn rate(&self) -> SampleRate {
        self.rate
    }

    /// How many samples make a packet.
    #[must_use]
    pub fn packet_samples(&self) -> usize {
        self.packet_samples
    }

    /// Encodes one packet time of samples into `out`, which has room for [`ENCODED_LEN_MAX`] bytes,
    /// and returns the payload's length. 0: nothing needs to be sent (DTX).
    ///
    /// # Errors
    /// `pcm` is not [`Self::packet_samples`] long, or `out` is too short.
    pub fn encode(&mut self, pcm: &[i16], out: &mut [u8]) -> Result<usize, EncodeError> {
        if pcm.len() != self.packet_samples {
            return Err(EncodeError::Length);
        }
        let mut scratch = [0; PIECE];
        let mut made = 0;
        for piece in pcm.chunks(self.rate.samples(10)) {
            let len = self.resampler.process(piece, &mut scratch);
            let samples = &scratch[..len];
            let room = &mut out[made..];
            let (bytes, needed) = match &mut self.kind {
                EncoderKind::G711(law) => (law.encode_slice(samples, room), len),
                EncoderKind::G722(encoder) => (encoder.encode(samples, room), len / 2),
                EncoderKind::L16 { channels } => {
                    let needed = 2 * *channels * len;
                    (l16::encode(samples, *channels, room), needed)
                }
            };
            if bytes < needed {
                return Err(EncodeError::NoRoom);
            }
            made += bytes;
        }
        Ok(made)
    }
}
