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

/// Most formats that are read of one description. Nobody needs more; each costs two payload routes.
pub(super) const FORMATS_MAX: usize = 12;

/// Formats that are no sound of their own: they wrap or repair others, by numbers inside the
/// payload that mean nothing on the far leg (RFC 2198, RFC 5109, RFC 8627, RFC 4588).
const WRAPPERS: [&str; 6] = ["red", "ulpfec", "parityfec", "flexfec", "fwdred", "rtx"];

/// Names whose formats have one clock and channel count only.
const KNOWN: [&str; 6] = ["PCMU", "PCMA", "G722", "opus", "telephone-event", "CN"];

/// Static numbers of RFC 3551 §6 for formats that are relayed and nothing else; all have an 8 kHz
/// clock and one channel.
const STATIC_OTHERS: [(u8, &str); 4] = [(3, "GSM"), (4, "G723"), (15, "G728"), (18, "G729")];

/// A format that may cross the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// G.711 µ-law, RFC 3551 §4.5.14.
    Pcmu,
    /// G.711 A-law, RFC 3551 §4.5.14.
    Pcma,
    /// G.722, RFC 3551 §4.5.2: samples at 16 kHz, RTP clock 8 kHz.
    G722,
    /// Linear samples, one channel, RFC 3551 §4.5.11.
    L16 {
        /// Clock and sampling rate: 8 000, 16 000 or 48 000 Hz.
        clock_rate: ClockRateHz,
    },
    /// Opus, RFC 7587: always `48000/2`, whatever is really sent.
    Opus,
    /// DTMF as events, RFC 4733. Its clock must be that of the audio it goes with (RFC 4733
    /// §2.1), so the 8 kHz and the 48 kHz form are different formats.
    TelephoneEvent {
        /// The clock of its durations.
        clock_rate: ClockRateHz,
    },
    /// Comfort noise, RFC 3389. Like events it goes with audio of its clock.
    ComfortNoise {
        /// The clock of its timestamps.
        clock_rate: ClockRateHz,
    },
    /// Anything else that is sound: relayed, never decoded. G.729 is one of these.
    Other(OtherEncoding),
}

/// A format that is known by name alone.
#[derive(Debug, Clone, Copy)]
pub struct OtherEncoding {
    name: [u8; Self::NAME_LEN_MAX],
    name_len: u8,
    clock_rate: ClockRateHz,
    channels: u8,
}

impl OtherEncoding {
    /// The longest of the registered audio names has 16 characters.
    const NAME_LEN_MAX: usize = 20;

    /// `None` for a name that is longer, or is no token (RFC 8866 §9).
    fn new(name: &str, clock_rate: u32, channels: u32) -> Option<Self> {
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"-_.+".contains(&b);
        let fits = (1..=Self::NAME_LEN_MAX).contains(&name.len()) && name.bytes().all(is_token);
        if !fits {
            return None;
        }
        let mut bytes = [0; Self::NAME_LEN_MAX];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Some(Self {
            name: bytes,
            name_len: name.len() as u8,
            clock_rate: ClockRateHz::new(clock_rate)?,
            channels: u8::try_from(channels).ok()?,
        })
    }

    fn name(&self) -> &str {
        std::str::from_utf8(&self.name[..usize::from(self.name_len)]).unwrap_or_default()
    }

    /// Encoding names are compared without regard to case (RFC 4855 §3); the clock and channels
    /// are part of what a format is.
    fn key(&self) -> ([u8; Self::NAME_LEN_MAX], ClockRateHz, u8) {
        (
            self.name.map(|b| b.to_ascii_lowercase()),
            self.clock_rate,
            self.channels,
        )
    }
}

impl PartialEq for OtherEncoding {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for OtherEncoding {}

impl std::hash::Hash for OtherEncoding {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl Encoding {
    /// The format an `a=rtpmap` value names; `None` when it cannot cross the relay.
    fn from_rtpmap(value: &str) -> Option<Self> {
        let map = Rtpmap::parse(value.trim()).ok()?;
        let is = |name: &str| map.encoding().eq_ignore_ascii_case(name);
        let clock_rate = ClockRateHz::new(map.clock_rate())?;
        match (map.clock_rate(), map.channels()) {
            (8_000, 1) if is("PCMU") => Some(Self::Pcmu),
            (8_000, 1) if is("PCMA") => Some(Self::Pcma),
            (8_000, 1) if is("G722") => Some(Self::G722),
            (8_000 | 16_000 | 48_000, 1) if is("L16") => Some(Self::L16 { clock_rate }),
            (48_000, 2) if is("opus") => Some(Self::Opus),
            (_, 1) if is("telephone-event") => Some(Self::TelephoneEvent { clock_rate }),
            (_, 1) if is("CN") => Some(Self::ComfortNoise { clock_rate }),
            // A format by its name, but not one that anybody sends.
            _ if KNOWN.iter().any(|name| is(name)) => None,
            _ if WRAPPERS.iter().any(|name| is(name)) => None,
            (clock, channels) => {
                OtherEncoding::new(map.encoding(), clock, channels).map(Self::Other)
            }
        }
    }

    /// The format of a static number without an `a=rtpmap` (RFC 3551 §6).
    fn from_static(number: PayloadType) -> Option<Self> {
        match number {
            PayloadType::PCMU => Some(Self::Pcmu),
            PayloadType::PCMA => Some(Self::Pcma),
            PayloadType::G722 => Some(Self::G722),
            PayloadType::CN => Some(Self::ComfortNoise {
                clock_rate: ClockRateHz::NARROWBAND,
            }),
            _ => STATIC_OTHERS
                .iter()
                .find(|(other, _)| *other == number.get())
                .and_then(|(_, name)| OtherEncoding::new(name, 8_000, 1))
                .map(Self::Other),
        }
    }

    /// The number RFC 3551 §6 assigns, for the formats that have one.
    #[must_use]
    pub fn static_payload_type(&self) -> Option<PayloadType> {
        match self {
            Self::Pcmu => Some(PayloadType::PCMU),
            Self::Pcma => Some(PayloadType::PCMA),
            Self::G722 => Some(PayloadType::G722),
            Self::ComfortNoise {
                clock_rate: ClockRateHz::NARROWBAND,
            } => Some(PayloadType::CN),
            Self::Other(other) => {
                let is_it = |name: &str| OtherEncoding::new(name, 8_000, 1) == Some(*other);
                let known = STATIC_OTHERS.iter().find(|(_, name)| is_it(name));
                known.and_then(|(number, _)| PayloadType::new(*number))
            }
            Self::L16 { .. }
            | Self::Opus
            | Self::TelephoneEvent { .. }
            | Self::ComfortNoise { .. } => None,
        }
    }

    /// RTP clock.
    #[must_use]
    pub fn clock_rate(&self) -> ClockRateHz {
        match *self {
            Self::Pcmu | Self::Pcma => ClockRateHz::NARROWBAND,
            Self::G722 => ClockRateHz::G722_RTP,
            Self::Opus => ClockRateHz::OPUS,
            Self::L16 { clock_rate }
            | Self::TelephoneEvent { clock_rate }
            | Self::ComfortNoise { clock_rate } => clock_rate,
            Self::Other(other) => other.clock_rate,
        }
    }

    /// Channel count as `a=rtpmap` states it.
    #[must_use]
    pub fn channels(&self) -> u8 {
        match self {
            Self::Opus => 2,
            Self::Other(other) => other.channels,
            _ => 1,
        }
    }

    /// Whether this is sound rather than what accompanies it.
    #[must_use]
    pub fn is_audio(&self) -> bool {
        !matches!(
            self,
            Self::TelephoneEvent { .. } | Self::ComfortNoise { .. }
        )
    }

    /// Whether this is DTMF as events.
    #[must_use]
    pub fn is_telephone_event(&self) -> bool {
        matches!(self, Self::TelephoneEvent { .. })
    }

    /// The encoding name as registered (RFC 4855), or as the peer wrote it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
            Self::G722 => "G722",
            Self::L16 { .. } => "L16",
            Self::Opus => "opus",
            Self::TelephoneEvent { .. } => "telephone-event",
            Self::ComfortNoise { .. } => "CN",
            Self::Other(other) => other.name(),
        }
    }

    /// The `a=rtpmap` value, without the payload number.
    pub(super) fn rtpmap(&self) -> String {
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
    // Formats that can be converted are worth more than those that cannot.
    while codecs.len() > FORMATS_MAX {
        let is_other = |codec: &AudioCodec| matches!(codec.encoding, Encoding::Other(_));
        let spare = codecs.iter().rposition(is_other);
        codecs.remove(spare.unwrap_or(codecs.len() - 1));
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

/// Leaves out events and comfort noise whose clock no remaining audio format has: they could not
/// share its timestamps (RFC 4733 §2.1, RFC 3389 §4).
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
