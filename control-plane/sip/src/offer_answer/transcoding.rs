//! When the edge changes audio on its way, and between which formats.
//!
//! A call whose sides share a codec is relayed as it is. So that a call is possible without one,
//! the far side is offered more than its peer has:
//!
//! ```text
//!   caller                       Trunkline                         callee
//!     offer PCMU ──────────────▶  ── offer PCMU, PCMA, G722, opus ──▶
//!                                 ◀────────────────── answer opus ──
//!     ◀──────────── answer PCMU ─  PCMU ⇄ opus at the edge
//! ```
//!
//! | what the answer has | what happens |
//! |---|---|
//! | a codec of the offer | relay; what the answer has beyond that is converted if it comes |
//! | none, but some that the edge knows | the cheapest pair, see [`cost`] |
//! | none | 488 |
//! | no telephone events, or at another clock | the offerer keeps its own, the edge converts |
//!
//! Formats that the edge does not know, G.729 among them, are relayed or refused.

use std::fmt;
use std::str::FromStr;

use trunkline_edge_api::{
    self as api, AudioFormat, AudioFormats, ClockRateHz, LegAudio, OpusOptions, PacketTime,
    PayloadType, TelephoneEventFormat,
};

use super::Agreed;
use super::codec::{self, AudioCodec, Encoding};
use super::opus;

/// Events 0 to 15, the sixteen DTMF signals (RFC 4733 §3.2).
const DTMF_EVENTS: &str = "0-15";

/// What the edge makes use of where no other leg hears a caller: it mixes, plays and records at
/// 16 kHz at most.
const ALONE_RATE_MAX_HZ: u32 = 16_000;

/// Whether the edge may change a party's audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Transcode {
    /// Never: without a common codec there is no call.
    Off,
    /// Where offer and answer leave no common codec.
    #[default]
    WhenNeeded,
}

impl Transcode {
    /// What a configuration may say.
    pub const FORM: &'static str = "\"off\" or \"when_needed\"";

    /// As a configuration says it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::WhenNeeded => "when_needed",
        }
    }
}

impl fmt::Display for Transcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No mode of this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be {}", Transcode::FORM)]
pub struct UnknownTranscode;

impl FromStr for Transcode {
    type Err = UnknownTranscode;

    fn from_str(text: &str) -> Result<Self, UnknownTranscode> {
        match text {
            "off" => Ok(Self::Off),
            "when_needed" => Ok(Self::WhenNeeded),
            _ => Err(UnknownTranscode),
        }
    }
}

/// How much of what the peers send needs the edge to reach the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Conversion {
    /// Everything has a way as it is.
    #[default]
    None,
    /// The audio in use has; telephone events, or another format of an answer, have not.
    Partial,
    /// Without the edge the sides cannot hear each other.
    Full,
}

/// What a party's side of a call may be transcoded to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TranscodingPolicy {
    /// Whether at all.
    pub transcode: Transcode,
    /// What the party is offered beside its peer's formats, in this order.
    pub codecs: Vec<api::AudioCodec>,
}

impl TranscodingPolicy {
    /// Relay only.
    #[must_use]
    pub const fn off() -> Self {
        Self {
            transcode: Transcode::Off,
            codecs: Vec::new(),
        }
    }
}

/// The format that stands for `codec` where we add it to an offer. L16 is named at 16 kHz: at
/// 8 kHz it says no more than G.711 does.
fn encoding_of(codec: api::AudioCodec) -> Encoding {
    match codec {
        api::AudioCodec::Pcmu => Encoding::Pcmu,
        api::AudioCodec::Pcma => Encoding::Pcma,
        api::AudioCodec::G722 => Encoding::G722,
        api::AudioCodec::L16 => Encoding::L16 {
            clock_rate: ClockRateHz::new(16_000).expect("a clock rate"),
        },
        api::AudioCodec::Opus => Encoding::Opus,
    }
}

/// `None` for what the edge only passes through.
pub(super) fn codec_of(encoding: &Encoding) -> Option<api::AudioCodec> {
    Some(match encoding {
        Encoding::Pcmu => api::AudioCodec::Pcmu,
        Encoding::Pcma => api::AudioCodec::Pcma,
        Encoding::G722 => api::AudioCodec::G722,
        Encoding::L16 { .. } => api::AudioCodec::L16,
        Encoding::Opus => api::AudioCodec::Opus,
        Encoding::TelephoneEvent { .. } | Encoding::ComfortNoise { .. } | Encoding::Other(_) => {
            return None;
        }
    })
}

/// The rate at which the audio of a format is worth decoding, Hz.
fn sample_rate_hz(encoding: &Encoding) -> u32 {
    match encoding {
        Encoding::G722 => 16_000,
        other => other.clock_rate().get(),
    }
}

/// What it costs the edge to carry a call between two formats, both ways, in microseconds per
/// 20 ms of audio, order of magnitude: G.711 is a table, G.722 a filter bank, Opus 47 µs to
/// encode and 6 µs to decode at 8 kHz, 127 µs together at 48 kHz; a resampler 2 µs a pass.
/// `None` when the edge knows one of them not.
pub(super) fn cost(a: &Encoding, b: &Encoding) -> Option<u32> {
    let own = |encoding: &Encoding| {
        Some(match codec_of(encoding)? {
            api::AudioCodec::Pcmu | api::AudioCodec::Pcma | api::AudioCodec::L16 => 1,
            api::AudioCodec::G722 => 20,
            // It runs at the other side's rate, see below.
            api::AudioCodec::Opus => 0,
        })
    };
    let both = own(a)? + own(b)?;
    let (rate_a, rate_b) = (sample_rate_hz(a), sample_rate_hz(b));
    let opus_at = |rate_hz: u32| match rate_hz {
        0..=8_000 => 53,
        8_001..=16_000 => 75,
        _ => 127,
    };
    Some(match (a, b) {
        (Encoding::Opus, Encoding::Opus) => 2 * opus_at(48_000),
        (Encoding::Opus, _) => both + opus_at(rate_b),
        (_, Encoding::Opus) => both + opus_at(rate_a),
        _ if rate_a != rate_b => both + 4,
        _ => both,
    })
}

/// The cheapest way between what was offered and what was answered; among equals the one that the
/// offerer likes best, then the answerer.
pub(super) fn cheapest_pair(
    offer: &[AudioCodec],
    answer: &[AudioCodec],
) -> Option<(Encoding, Encoding)> {
    let pairs = offer.iter().flat_map(|offered| {
        answer.iter().filter_map(move |answered| {
            let cost = cost(&offered.encoding, &answered.encoding)?;
            Some((cost, offered.encoding, answered.encoding))
        })
    });
    // The first of equals is kept.
    pairs
        .min_by_key(|(cost, ..)| *cost)
        .map(|(_, offered, answered)| (offered, answered))
}

/// What an offer that has `offered` gains: formats of `list`, and the events that go with them.
/// Each with the number it would like. Nothing when none of `offered` could be converted.
pub(super) fn additions(offered: &[AudioCodec], list: &[api::AudioCodec]) -> Vec<AudioCodec> {
    let is_offered = |encoding: &Encoding| offered.iter().any(|codec| codec.encoding == *encoding);
    if offered
        .iter()
        .all(|codec| codec_of(&codec.encoding).is_none())
    {
        return Vec::new();
    }
    let mut added: Vec<AudioCodec> = Vec::new();
    let mut add = |encoding: Encoding, number: u8, fmtp: Option<String>| {
        let is_new = added.iter().all(|codec| codec.encoding != encoding);
        if let Some(payload_type) = PayloadType::new(number)
            && is_new
            && !is_offered(&encoding)
        {
            added.push(AudioCodec {
                payload_type,
                encoding,
                fmtp,
            });
        }
    };
    for encoding in list.iter().copied().map(encoding_of) {
        let fmtp = (encoding == Encoding::Opus).then(|| opus::ours(far_rate_hz(offered)));
        add(encoding, wanted_number(&encoding), fmtp);
    }
    let clocks = offered.iter().map(|codec| codec.encoding);
    let clocks = clocks.chain(list.iter().copied().map(encoding_of));
    for clock_rate in clocks
        .filter(|encoding| codec_of(encoding).is_some())
        .map(|encoding| encoding.clock_rate())
    {
        let events = Encoding::TelephoneEvent { clock_rate };
        add(events, wanted_number(&events), Some(DTMF_EVENTS.to_owned()));
    }
    added
}

/// What an Opus side would be converted from and to if it were `offered` these, Hz.
fn far_rate_hz(offered: &[AudioCodec]) -> u32 {
    let costs = offered.iter().filter_map(|codec| {
        let cost = cost(&codec.encoding, &Encoding::Opus)?;
        Some((cost, sample_rate_hz(&codec.encoding)))
    });
    let cheapest = costs.min_by_key(|(cost, _)| *cost);
    cheapest.map_or(ALONE_RATE_MAX_HZ, |(_, rate_hz)| rate_hz)
}

/// The numbers that most endpoints give these formats; another is as good.
fn wanted_number(encoding: &Encoding) -> u8 {
    match encoding {
        Encoding::Opus => 111,
        Encoding::TelephoneEvent {
            clock_rate: ClockRateHz::NARROWBAND,
        } => 101,
        Encoding::TelephoneEvent { .. } => 110,
        Encoding::L16 { .. } => 112,
        other => other.static_payload_type().map_or(96, PayloadType::get),
    }
}

/// What may happen to a call between its sides.
#[derive(Debug, Clone, Copy)]
pub(super) struct Powers {
    /// Audio may be converted.
    pub(super) transcodes: bool,
    /// Telephone events may be taken from the offerer that the far side does not have.
    pub(super) takes_events: bool,
}

impl Powers {
    const ALL: Self = Self {
        transcodes: true,
        takes_events: true,
    };
}

/// What the offerer is answered when `offered` and `answered` have `common` formats, or none and
/// the edge converts: its formats from then on, and the audio in use on each side, the offerer's
/// first. `None` when there is no way.
pub(super) fn settle(
    offered: &[AudioCodec],
    answered: &[AudioCodec],
    mut common: Vec<AudioCodec>,
    powers: Powers,
) -> Option<(Vec<AudioCodec>, Encoding, Encoding)> {
    let first_audio =
        |codecs: &[AudioCodec]| codecs.iter().map(|c| c.encoding).find(Encoding::is_audio);
    let (near, far) = match first_audio(&common) {
        Some(audio) => (audio, audio),
        None if powers.transcodes => {
            let (near, far) = cheapest_pair(offered, answered)?;
            let theirs = offered.iter().find(|codec| codec.encoding == near)?;
            let rate_hz = sample_rate_hz(&far);
            common = vec![AudioCodec {
                fmtp: (near == Encoding::Opus).then(|| opus::ours(rate_hz)),
                ..theirs.clone()
            }];
            (near, far)
        }
        None => return None,
    };
    // Without a codec that the edge can decode beside them, events are the far side's business.
    if powers.takes_events && codec_of(&near).is_some() {
        let clock_rate = near.clock_rate();
        let events = Encoding::TelephoneEvent { clock_rate };
        let noise = Encoding::ComfortNoise { clock_rate };
        let is_relayed = near == far;
        for codec in offered {
            let is_missing = common.iter().all(|other| other.encoding != codec.encoding);
            if is_missing && codec.encoding == events {
                common.push(AudioCodec {
                    fmtp: Some(DTMF_EVENTS.to_owned()),
                    ..codec.clone()
                });
            } else if is_missing && codec.encoding == noise && !is_relayed {
                common.push(codec.clone());
            }
        }
    }
    Some((common, near, far))
}

/// What a caller is answered that nobody else answers: the format it likes best of those that the
/// edge knows, and what goes with it. `None` when there is none.
pub(super) fn settle_alone(offered: &[AudioCodec]) -> Option<(Vec<AudioCodec>, Encoding)> {
    let mut known = offered
        .iter()
        .filter(|codec| codec_of(&codec.encoding).is_some());
    let audio = known.next()?.encoding;
    // As if the far side had nothing but linear audio.
    let far = [AudioCodec {
        payload_type: PayloadType::PCMU,
        encoding: Encoding::L16 {
            clock_rate: ClockRateHz::new(sample_rate_hz(&audio).min(ALONE_RATE_MAX_HZ))?,
        },
        fmtp: None,
    }];
    let preferred: Vec<AudioCodec> = offered
        .iter()
        .filter(|codec| codec.encoding == audio || !codec.encoding.is_audio())
        .cloned()
        .collect();
    let (codecs, audio, _) = settle(&preferred, &far, Vec::new(), Powers::ALL)?;
    Some((codecs, audio))
}

impl Agreed {
    /// What the edge must know to decode and make audio on this leg; `None` when it is in a format
    /// that only passes through.
    pub(super) fn leg_audio(&self) -> Option<LegAudio> {
        let theirs = |encoding: Encoding| {
            let mut codecs = self.remote.codecs.iter();
            codecs.find(move |codec| codec.encoding == encoding)
        };
        let send = self.format(theirs(self.audio)?, true)?;
        let mut receive: Vec<AudioFormat> = Vec::new();
        for codec in self.codecs.iter().chain(&self.remote.codecs) {
            let is_in_force = codec::number_of(&self.codecs, codec.encoding).is_some();
            let is_new = |format: &AudioFormat| format.payload_type != codec.payload_type;
            if is_in_force && receive.len() < AudioFormats::LEN_MAX && receive.iter().all(is_new) {
                receive.extend(self.format(codec, false));
            }
        }
        let clock_rate = send.clock_rate;
        let events = Encoding::TelephoneEvent { clock_rate };
        let event_format = |payload_type| TelephoneEventFormat {
            payload_type,
            clock_rate,
        };
        let receive_events = codec::number_of(&self.codecs, events);
        let noise = Encoding::ComfortNoise { clock_rate };
        Some(LegAudio {
            receive: AudioFormats::new(receive)?,
            send,
            receive_events: receive_events.map(event_format),
            send_events: receive_events
                .and_then(|_| codec::number_of(&self.remote.codecs, events))
                .map(event_format),
            comfort_noise: codec::number_of(&self.codecs, noise),
        })
    }

    /// `is_sent`: as the peer wants to have it.
    fn format(&self, codec: &AudioCodec, is_sent: bool) -> Option<AudioFormat> {
        let kind = codec_of(&codec.encoding)?;
        let is_opus = kind == api::AudioCodec::Opus;
        let fmtp = codec.fmtp.as_deref().filter(|_| is_opus && is_sent);
        Some(AudioFormat {
            codec: kind,
            payload_type: codec.payload_type,
            clock_rate: codec.encoding.clock_rate(),
            // Our audio is mono; a peer that would like two channels plays one on both.
            channels: if is_opus && !is_sent { 2 } else { 1 },
            packet_time: if is_sent {
                packet_time(self.remote.ptime_ms, self.remote.maxptime_ms, is_opus)
            } else {
                PacketTime::MS_20
            },
            opus: fmtp.map_or_else(OpusOptions::default, opus::parse),
        })
    }
}

/// The packet time that a peer asked for, as near to it as we can send. Opus has no frames of 30
/// and 50 ms (RFC 6716 §2.1.4).
fn packet_time(ptime_ms: Option<u16>, maxptime_ms: Option<u16>, is_opus: bool) -> PacketTime {
    let wanted = ptime_ms.unwrap_or(20).min(maxptime_ms.unwrap_or(u16::MAX));
    let rounded = (wanted / 10 * 10).clamp(10, 60);
    let millis = match (is_opus, rounded) {
        (true, 30) => 20,
        (true, 50) => 40,
        _ => rounded as u8,
    };
    PacketTime::from_millis(millis).unwrap_or_default()
}
