//! Audio codecs: from payload to samples, from samples to payload, and from one payload to the
//! other.
//!
//! | codec | defined by | works at |
//! |---|---|---|
//! | PCMU, PCMA ([`g711`]) | ITU-T G.711 | 8 kHz |
//! | G722 | ITU-T G.722, RFC 3551 §4.5.2 | 16 kHz |
//! | L16 | RFC 3551 §4.5.11 | its RTP clock |
//! | Opus (feature `opus`) | RFC 6716, RFC 7587 | the rate it is opened at |
//! | CN (`comfort_noise`) | RFC 3389 | 8 kHz |
//!
//! A [`Decoder`] or [`Encoder`] is opened at the rate that its other side works at, and resamples
//! when the codec cannot run there. All audio is mono; two channels are mixed to one. A
//! [`Transcoder`] is both with the timing between them. None of them allocates, waits or fails
//! after construction, whatever a payload holds: bad payloads are a [`BadFrame`].

use trunkline_edge_api::audio::{AudioCodec, AudioFormat};

use crate::audio::SampleRate;

pub(crate) mod comfort_noise;
mod concealment;
mod decoder;
mod encoder;
pub mod g711;
mod g722;
mod l16;
#[cfg(feature = "opus")]
mod opus;
mod transcoder;

#[cfg(test)]
pub(crate) mod tests;

pub use decoder::Decoder;
pub use encoder::Encoder;
pub use transcoder::{CONCEALED_MILLIS_MAX, EncodedPacket, TranscodeCounters, Transcoder};

/// Longest audio in one packet, milliseconds (RFC 7587 §4.2 for Opus; the others rarely pass 60).
pub const PACKET_MILLIS_MAX: u32 = 120;

/// Room for any packet, decoded at any rate, in samples.
pub const DECODED_LEN_MAX: usize = SampleRate::MAX.samples(PACKET_MILLIS_MAX);

/// Room for any payload that an [`Encoder`] makes, in bytes. With the headers of IPv6, UDP, RTP and
/// what SRTP adds it still fits an Ethernet frame.
pub const ENCODED_LEN_MAX: usize = 1_400;

/// Loss in percent that is expected of many receivers together, none of which is asked: what is
/// encoded once for all of them has in-band FEC for those that take it.
pub const SHARED_LOSS_PERCENT: u8 = 10;

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

impl UnsupportedFormat {
    const NO_OPUS: Self = Self {
        codec: AudioCodec::Opus,
        reason: UnsupportedReason::NotBuilt,
    };
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

/// The rate at which a codec works; for Opus, which has many, the highest.
fn native_rate(format: &AudioFormat) -> Result<SampleRate, UnsupportedFormat> {
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
    if format.codec == AudioCodec::Opus && !cfg!(feature = "opus") {
        return Err(refuse(UnsupportedReason::NotBuilt));
    }
    let clock = SampleRate::from_hz(format.clock_rate.get());
    match (format.codec, clock) {
        (AudioCodec::Pcmu | AudioCodec::Pcma, Some(SampleRate::Hz8000)) => Ok(SampleRate::Hz8000),
        (AudioCodec::G722, Some(SampleRate::Hz8000)) => Ok(SampleRate::Hz16000),
        (AudioCodec::Opus, Some(SampleRate::Hz48000)) => Ok(SampleRate::Hz48000),
        (AudioCodec::L16, Some(rate)) => Ok(rate),
        _ => Err(refuse(UnsupportedReason::ClockRate)),
    }
}
