//! The formats Trunkline passes through, and the numbers they have on a leg.
//!
//! A dynamic payload number means something only inside one description, so a codec is
//! identified by name, clock and channels ([`Encoding`]); numbers are looked up per leg.

use sipx_sdp::MediaDescription;
use sipx_sdp::rtpmap::Rtpmap;
use trunkline_edge_api::{ClockRateHz, PayloadType};

/// Longest `a=fmtp` parameter string that is passed on. Opus, the most talkative of the formats
/// here, needs about 150 bytes with every parameter of RFC 7587 §6.1 present.
const FMTP_LEN_MAX: usize = 512;

/// A format that may cross the relay. Everything else is left out of what the far leg is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// G.711 µ-law, RFC 3551 §4.5.14.
    Pcmu,
    /// G.711 A-law, RFC 3551 §4.5.14.
    Pcma,
    /// G.722, RFC 3551 §4.5.2: samples at 16 kHz, RTP clock 8 kHz.
    G722,
    /// Opus, RFC 7587: always `48000/2`, whatever is really sent.
    Opus,
    /// DTMF as events, RFC 4733. Its clock must be that of the audio it goes with (RFC 4733
    /// §2.1), so the 8 kHz and the 48 kHz form are different formats.
    TelephoneEvent {
        /// 8 000 or 48 000 Hz.
        clock_rate: ClockRateHz,
    },
}

impl Encoding {
    /// The format an `a=rtpmap` value names; `None` when it is not one of ours.
    fn from_rtpmap(value: &str) -> Option<Self> {
        let map = Rtpmap::parse(value.trim()).ok()?;
        let is = |name: &str| map.encoding().eq_ignore_ascii_case(name);
        match (map.clock_rate(), map.channels()) {
            (8_000, 1) if is("PCMU") => Some(Self::Pcmu),
            (8_000, 1) if is("PCMA") => Some(Self::Pcma),
            (8_000, 1) if is("G722") => Some(Self::G722),
            (48_000, 2) if is("opus") => Some(Self::Opus),
            (clock @ (8_000 | 48_000), 1) if is("telephone-event") => {
                ClockRateHz::new(clock).map(|clock_rate| Self::TelephoneEvent { clock_rate })
            }
            _ => None,
        }
    }

    /// The format of a static number without an `a=rtpmap` (RFC 3551 §6).
    fn from_static(number: PayloadType) -> Option<Self> {
        match number {
            PayloadType::PCMU => Some(Self::Pcmu),
            PayloadType::PCMA => Some(Self::Pcma),
            PayloadType::G722 => Some(Self::G722),
            _ => None,
        }
    }

    /// The number RFC 3551 §6 assigns, for the formats that have one.
    #[must_use]
    pub fn static_payload_type(self) -> Option<PayloadType> {
        match self {
            Self::Pcmu => Some(PayloadType::PCMU),
            Self::Pcma => Some(PayloadType::PCMA),
            Self::G722 => Some(PayloadType::G722),
            Self::Opus | Self::TelephoneEvent { .. } => None,
        }
    }

    /// RTP clock.
    #[must_use]
    pub fn clock_rate(self) -> ClockRateHz {
        match self {
            Self::Pcmu | Self::Pcma => ClockRateHz::NARROWBAND,
            Self::G722 => ClockRateHz::G722_RTP,
            Self::Opus => ClockRateHz::OPUS,
            Self::TelephoneEvent { clock_rate } => clock_rate,
        }
    }

    /// Channel count as `a=rtpmap` states it.
    #[must_use]
    pub fn channels(self) -> u8 {
        match self {
            Self::Opus => 2,
            _ => 1,
        }
    }

    /// Whether this is sound rather than events that accompany it.
    #[must_use]
    pub fn is_audio(self) -> bool {
        !matches!(self, Self::TelephoneEvent { .. })
    }

    /// The encoding name as registered (RFC 4855).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
            Self::G722 => "G722",
            Self::Opus => "opus",
            Self::TelephoneEvent { .. } => "telephone-event",
        }
    }

    /// The `a=rtpmap` value, without the payload number.
    pub(super) fn rtpmap(self) -> String {
        let (name, clock) = (self.name(), self.clock_rate().get());
        match self.channels() {
            1 => format!("{name}/{clock}"),
            channels => format!("{name}/{clock}/{channels}"),
        }
    }
}

/// One format of one description: what it is, and the number it has there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioCodec {
    /// The number in the description this came from or goes into.
    pub payload_type: PayloadType,
    /// What it is.
    pub encoding: Encoding,
    /// The `a=fmtp` parameters, passed on as they are.
    pub fmtp: Option<String>,
}

impl AudioCodec {
    /// RTP clock.
    #[must_use]
    pub fn clock_rate(&self) -> ClockRateHz {
        self.encoding.clock_rate()
    }

    /// Channel count.
    #[must_use]
    pub fn channels(&self) -> u8 {
        self.encoding.channels()
    }
}

/// The formats of an `m=` line that can cross the relay, in its order of preference. A format
/// that is listed under several numbers counts once, under the first.
pub(super) fn codecs_of(media: &MediaDescription) -> Vec<AudioCodec> {
    let mut codecs: Vec<AudioCodec> = Vec::new();
    for format in &media.formats {
        let Some(payload_type) = format.parse().ok().and_then(PayloadType::new) else {
            continue;
        };
        let encoding = match format_attribute(media, "rtpmap", format) {
            Some(map) => Encoding::from_rtpmap(map),
            None => Encoding::from_static(payload_type),
        };
        let Some(encoding) = encoding else { continue };
        let is_repeated = codecs
            .iter()
            .any(|codec| codec.encoding == encoding || codec.payload_type == payload_type);
        if !is_repeated {
            let fmtp = format_attribute(media, "fmtp", format)
                .filter(|fmtp| fmtp.len() <= FMTP_LEN_MAX && !fmtp.contains(char::is_control))
                .map(str::to_owned);
            codecs.push(AudioCodec {
                payload_type,
                encoding,
                fmtp,
            });
        }
    }
    without_orphaned_events(codecs)
}

/// The value of `a=<name>:<format> <value>`.
fn format_attribute<'a>(media: &'a MediaDescription, name: &str, format: &str) -> Option<&'a str> {
    media.attributes.iter().find_map(|attribute| {
        let value = attribute
            .value
            .as_deref()
            .filter(|_| attribute.name == name)?;
        let (number, rest) = value.trim_start().split_once([' ', '\t'])?;
        (number == format).then(|| rest.trim())
    })
}

/// Leaves out events whose clock no remaining audio format has: they could not share its
/// timestamps (RFC 4733 §2.1).
pub(super) fn without_orphaned_events(mut codecs: Vec<AudioCodec>) -> Vec<AudioCodec> {
    let clocks: Vec<ClockRateHz> = codecs
        .iter()
        .filter(|codec| codec.encoding.is_audio())
        .map(AudioCodec::clock_rate)
        .collect();
    codecs.retain(|codec| codec.encoding.is_audio() || clocks.contains(&codec.clock_rate()));
    codecs
}

/// Whether any of the formats is sound. Events alone are no conversation.
pub(super) fn has_audio(codecs: &[AudioCodec]) -> bool {
    codecs.iter().any(|codec| codec.encoding.is_audio())
}

/// The number `encoding` has in `codecs`.
pub(super) fn number_of(codecs: &[AudioCodec], encoding: Encoding) -> Option<PayloadType> {
    codecs
        .iter()
        .find(|codec| codec.encoding == encoding)
        .map(|codec| codec.payload_type)
}

/// What every payload number has meant on a leg so far. A number must keep its meaning for the
/// life of the session (RFC 3264 §8.3.2), so numbers we hand out avoid those in use.
#[derive(Debug, Clone, Default)]
pub(super) struct PayloadNumbers {
    /// At most one entry per number, hence at most 128; newest last.
    assigned: Vec<(PayloadType, Encoding)>,
}

impl PayloadNumbers {
    /// The peer, or we, said that `number` is `encoding`.
    pub(super) fn assign(&mut self, number: PayloadType, encoding: Encoding) {
        self.assigned.retain(|(assigned, _)| *assigned != number);
        self.assigned.push((number, encoding));
    }

    /// The peer answered under these numbers. Those that we had given out keep their meaning, and
    /// where we offered another number ours stays the leg's first choice.
    pub(super) fn observe(&mut self, codecs: &[AudioCodec]) {
        for codec in codecs {
            let number = codec.payload_type;
            if self
                .assigned
                .iter()
                .all(|(assigned, _)| *assigned != number)
            {
                self.assigned.insert(0, (number, codec.encoding));
            }
        }
    }

    /// The number for `encoding` on this leg, and remembers it: the one it already has, its
    /// static one, `wanted` (what the far leg calls it, so that packets mostly need no change),
    /// else a free one. `None` when all 61 are taken.
    pub(super) fn number_for(
        &mut self,
        encoding: Encoding,
        wanted: PayloadType,
    ) -> Option<PayloadType> {
        if let Some((number, _)) = self.assigned.iter().rev().find(|(_, e)| *e == encoding) {
            return Some(*number);
        }
        let wanted = encoding.static_payload_type().into_iter().chain(
            // A dynamic number is as good here as there; a static one would be a lie here.
            (wanted.get() >= 96).then_some(wanted),
        );
        // The dynamic range of RFC 3551 §6, then what RFC 5761 §4 leaves of the unassigned one:
        // 64 … 95 would be taken for RTCP on a shared port.
        let free = (96..=127).chain(35..=63).filter_map(PayloadType::new);
        let number = wanted
            .chain(free)
            .find(|number| self.assigned.iter().all(|(assigned, _)| assigned != number))?;
        self.assign(number, encoding);
        Some(number)
    }
}
