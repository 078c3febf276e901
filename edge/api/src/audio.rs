//! Audio formats, as signalling agreed on them: what a leg's peer may send, and what it is sent.
//!
//! A worker that only relays needs none of this; payload routes are enough. A leg whose audio is
//! to be decoded, made or changed carries a [`LegAudio`].

use crate::vocabulary::{ClockRateHz, PayloadType};

/// A codec that the edge can decode and encode. Everything else passes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum AudioCodec {
    /// G.711 µ-law (RFC 3551 §4.5.14).
    Pcmu = 1,
    /// G.711 A-law (RFC 3551 §4.5.14).
    Pcma = 2,
    /// G.722 at 64 kbit/s: 16 kHz audio under an 8 kHz RTP clock (RFC 3551 §4.5.2).
    G722 = 3,
    /// Linear samples, 16 bits, network byte order (RFC 3551 §4.5.11).
    L16 = 4,
    /// Opus (RFC 6716, RFC 7587).
    Opus = 5,
}

impl AudioCodec {
    /// All codecs, cheapest to process first.
    pub const ALL: [Self; 5] = [Self::Pcmu, Self::Pcma, Self::L16, Self::G722, Self::Opus];

    /// Encoding name in SDP's `a=rtpmap` (RFC 8866 §6.6).
    #[must_use]
    pub const fn encoding_name(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
            Self::G722 => "G722",
            Self::L16 => "L16",
            Self::Opus => "opus",
        }
    }
}

impl TryFrom<u8> for AudioCodec {
    type Error = u8;

    fn try_from(value: u8) -> Result<Self, u8> {
        Ok(match value {
            1 => Self::Pcmu,
            2 => Self::Pcma,
            3 => Self::G722,
            4 => Self::L16,
            5 => Self::Opus,
            other => return Err(other),
        })
    }
}

/// How long a packet's audio lasts: 10, 20, 30, 40, 50 or 60 milliseconds (`a=ptime`, RFC 8866 §6.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketTime(u8);

impl PacketTime {
    /// What nearly every phone and carrier sends.
    pub const MS_20: Self = Self(20);

    /// `None` for anything but a multiple of ten from 10 to 60.
    #[must_use]
    pub const fn from_millis(millis: u8) -> Option<Self> {
        if millis >= 10 && millis <= 60 && millis.is_multiple_of(10) {
            Some(Self(millis))
        } else {
            None
        }
    }

    /// Milliseconds.
    #[must_use]
    pub const fn millis(self) -> u8 {
        self.0
    }
}

impl Default for PacketTime {
    fn default() -> Self {
        Self::MS_20
    }
}

/// What the peer asked of an Opus encoder (RFC 7587 §6.1). Without meaning for other codecs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OpusOptions {
    /// `useinbandfec=1`: packets may carry the one before at a lower rate.
    pub in_band_fec: bool,
    /// `usedtx=1`: silence need not be sent.
    pub dtx: bool,
    /// `cbr=1`: every packet of one length.
    pub constant_bitrate: bool,
    /// `maxplaybackrate`: 8,000, 12,000, 16,000, 24,000 or 48,000 Hz; more is wasted on the peer.
    pub playback_rate_max_hz: u32,
    /// `maxaveragebitrate`, 6,000 to 510,000 bit/s; 0: the encoder chooses.
    pub bitrate_max: u32,
}

impl Default for OpusOptions {
    fn default() -> Self {
        Self {
            in_band_fec: false,
            dtx: false,
            constant_bitrate: false,
            playback_rate_max_hz: 48_000,
            bitrate_max: 0,
        }
    }
}

/// One audio format under the payload type that its sender gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioFormat {
    /// The codec.
    pub codec: AudioCodec,
    /// Its number on this leg.
    pub payload_type: PayloadType,
    /// RTP clock; for [`AudioCodec::L16`] also the sampling rate.
    pub clock_rate: ClockRateHz,
    /// 1 or 2. Opus is always announced with two and may carry either.
    pub channels: u8,
    /// How much audio a packet that we send carries. What arrives may carry any amount.
    pub packet_time: PacketTime,
    /// What an Opus peer asked for.
    pub opus: OpusOptions,
}

/// DTMF and other telephone events (RFC 4733) under their payload type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TelephoneEventFormat {
    /// Its number on this leg.
    pub payload_type: PayloadType,
    /// The clock of its durations, the same as that of the audio beside it (RFC 4733 §2.1).
    pub clock_rate: ClockRateHz,
}

/// What a leg's peer may send as audio, and what it is sent, where the edge has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegAudio {
    /// Formats that the peer may send and that the edge can decode.
    pub receive: AudioFormats,
    /// What is sent to the peer when the edge encodes: transcoded audio, prompts, a mix.
    pub send: AudioFormat,
    /// Telephone events that the peer may send.
    pub receive_events: Option<TelephoneEventFormat>,
    /// How telephone events go to the peer; `None`: it takes digits as tones only.
    pub send_events: Option<TelephoneEventFormat>,
    /// Comfort noise (RFC 3389) that the peer may send.
    pub comfort_noise: Option<PayloadType>,
}

/// At most [`AudioFormats::LEN_MAX`] formats, no payload type twice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AudioFormats(Vec<AudioFormat>);

impl AudioFormats {
    /// Every codec of ours, G.711 and L16 at a second rate among them.
    pub const LEN_MAX: usize = 8;

    /// `None` when there are too many formats or a payload type occurs twice.
    #[must_use]
    pub fn new(formats: Vec<AudioFormat>) -> Option<Self> {
        let mut seen = 0u128;
        for format in &formats {
            let bit = 1u128 << format.payload_type.get();
            if seen & bit != 0 {
                return None;
            }
            seen |= bit;
        }
        (formats.len() <= Self::LEN_MAX).then_some(Self(formats))
    }

    /// The formats in the order control gave.
    #[must_use]
    pub fn as_slice(&self) -> &[AudioFormat] {
        &self.0
    }

    /// The format under `payload_type`.
    #[must_use]
    pub fn find(&self, payload_type: PayloadType) -> Option<&AudioFormat> {
        self.0
            .iter()
            .find(|format| format.payload_type == payload_type)
    }
}
