//! What control may ask of a leg beside relaying: play, record, send digits, mix, fork.
//!
//! Like every command these state what shall be, under an id that control chose: saying it again
//! changes nothing, another id replaces what was.

use std::net::SocketAddr;

use crate::audio::AudioCodec;
use crate::vocabulary::{LegIndex, SessionId, Ssrc};

/// A file that was read and encoded for play, edge-wide. Chosen by control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PromptId(pub u64);

/// One playback on one leg. Chosen by control, never used twice on a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlaybackId(pub u32);

/// One recording. Chosen by control, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordingId(pub u64);

/// A conference of one worker. Chosen by control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConferenceId(pub u64);

/// One string of digits to send on a leg. Chosen by control below 2^31, never used twice on a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DigitsId(pub u32);

/// An absolute path of at most [`FilePath::LEN_MAX`] bytes without NUL or `..`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FilePath(String);

impl FilePath {
    /// Longest path, bytes.
    pub const LEN_MAX: usize = 512;

    /// `None` when `path` is relative, too long, or holds NUL or a `..` component.
    #[must_use]
    pub fn new(path: &str) -> Option<Self> {
        let is_fit = path.starts_with('/')
            && path.len() <= Self::LEN_MAX
            && !path.contains('\0')
            && !path.split('/').any(|component| component == "..");
        is_fit.then(|| Self(path.to_owned()))
    }

    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How a file without a header is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawAudio {
    /// Its encoding; [`AudioCodec::L16`] means 16-bit little-endian samples, as files have them.
    pub codec: AudioCodec,
    /// Its sampling rate, Hz.
    pub sample_rate_hz: u32,
}

/// What a leg's peer is played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Playback {
    /// Which playback this is.
    pub id: PlaybackId,
    /// What is played, one after the other.
    pub sources: PlaySources,
    /// How often the whole list is played; 0: until it is stopped.
    pub rounds: u16,
    /// Whether a digit of the peer ends it ("barge-in").
    pub ends_on_digit: bool,
    /// What becomes of the far leg's audio meanwhile. Since 1.3; absent from an older peer means
    /// [`PlaybackMode::Replace`].
    pub mode: PlaybackMode,
}

/// What becomes of the live audio while something is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PlaybackMode {
    /// It is not heard.
    #[default]
    Replace,
    /// It goes on under what is played: a coach's whisper, the beep of a recording.
    Into(LiveLevel),
}

/// How much softer live audio is while something is played over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LiveLevel(u8);

impl LiveLevel {
    /// As loud as ever.
    pub const UNCHANGED: Self = Self(0);
    /// Most that it can be softened by, dB; next to nothing is left of it then.
    pub const DB_MAX: u8 = 60;

    /// Softer by so many dB; `None` above [`Self::DB_MAX`].
    #[must_use]
    pub const fn softer_by_db(db: u8) -> Option<Self> {
        if db <= Self::DB_MAX {
            Some(Self(db))
        } else {
            None
        }
    }

    /// By how many dB it is softer.
    #[must_use]
    pub const fn db(self) -> u8 {
        self.0
    }
}

/// One piece of a playback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaySource {
    /// A loaded file.
    Prompt(PromptId),
    /// A generated tone, one pass of its cadence.
    Tone(Tone),
    /// Nothing, for so many milliseconds.
    Silence {
        /// How long.
        millis: u32,
    },
}

/// One to [`PlaySources::LEN_MAX`] pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaySources(Vec<PlaySource>);

impl PlaySources {
    /// Longer lists are control's to feed piece by piece.
    pub const LEN_MAX: usize = 16;

    /// `None` when there is none or too many.
    #[must_use]
    pub fn new(sources: Vec<PlaySource>) -> Option<Self> {
        (1..=Self::LEN_MAX)
            .contains(&sources.len())
            .then_some(Self(sources))
    }

    /// The pieces in the order of play.
    #[must_use]
    pub fn as_slice(&self) -> &[PlaySource] {
        &self.0
    }
}

/// A cadence of one to [`Tone::SEGMENTS_MAX`] segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tone {
    segments: [ToneSegment; Tone::SEGMENTS_MAX],
    segment_count: u8,
    level_dbm0: i8,
}

/// So long a tone, then so long silence: `%(on,off,f1,f2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ToneSegment {
    /// Milliseconds of tone.
    pub on_millis: u16,
    /// Milliseconds of silence after it.
    pub off_millis: u16,
    /// One or two frequencies at once, Hz; 0: none.
    pub frequencies_hz: [u16; 2],
}

impl Tone {
    /// The special information tone has three; national cadences at most four.
    pub const SEGMENTS_MAX: usize = 8;
    /// Highest frequency, Hz: what a narrow-band leg carries.
    pub const FREQUENCY_MAX_HZ: u16 = 3_999;
    /// Level of a tone that nobody asked to be louder or softer, dBm0 (ITU-T E.182: -10 ± 5).
    pub const LEVEL_DBM0: i8 = -10;
    /// Softest and loudest level, dBm0.
    pub const LEVEL_RANGE_DBM0: std::ops::RangeInclusive<i8> = -60..=0;

    /// `None` without a segment, with too many, with one of no length, with a frequency above
    /// [`Self::FREQUENCY_MAX_HZ`] or a level outside [`Self::LEVEL_RANGE_DBM0`].
    #[must_use]
    pub fn new(segments: &[ToneSegment], level_dbm0: i8) -> Option<Self> {
        let is_playable = |segment: &ToneSegment| {
            let [f1, f2] = segment.frequencies_hz;
            (segment.on_millis, segment.off_millis) != (0, 0)
                && f1.max(f2) <= Self::FREQUENCY_MAX_HZ
        };
        if segments.is_empty()
            || segments.len() > Self::SEGMENTS_MAX
            || !segments.iter().all(is_playable)
            || !Self::LEVEL_RANGE_DBM0.contains(&level_dbm0)
        {
            return None;
        }
        let mut all = [ToneSegment::default(); Self::SEGMENTS_MAX];
        all[..segments.len()].copy_from_slice(segments);
        Some(Self {
            segments: all,
            segment_count: segments.len() as u8,
            level_dbm0,
        })
    }

    /// The segments in order.
    #[must_use]
    pub fn segments(&self) -> &[ToneSegment] {
        &self.segments[..usize::from(self.segment_count)]
    }

    /// Level of both frequencies together, dBm0.
    #[must_use]
    pub fn level_dbm0(&self) -> i8 {
        self.level_dbm0
    }
}

/// A cadence that is no `%(on,off,f1[,f2])` sequence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no tone; write for example %(1000,4000,425) or %(330,0,950)%(330,0,1400)%(330,1000,1800)"
)]
pub struct ToneSyntaxError(String);

/// `%(on,off,f1)` or `%(on,off,f1,f2)`, one or more in a row: milliseconds and hertz, the notation
/// that other telephone software has in its configuration.
impl std::str::FromStr for Tone {
    type Err = ToneSyntaxError;

    fn from_str(text: &str) -> Result<Self, ToneSyntaxError> {
        let error = || ToneSyntaxError(text.to_owned());
        let mut segments = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (inside, after) = rest
                .strip_prefix("%(")
                .and_then(|rest| rest.split_once(')'))
                .ok_or_else(error)?;
            let numbers: Vec<u16> = inside
                .split(',')
                .map(|number| number.trim().parse().map_err(|_| error()))
                .collect::<Result<_, _>>()?;
            let (on_millis, off_millis, frequencies_hz) = match numbers[..] {
                [on, off, f1] => (on, off, [f1, 0]),
                [on, off, f1, f2] => (on, off, [f1, f2]),
                _ => return Err(error()),
            };
            segments.push(ToneSegment {
                on_millis,
                off_millis,
                frequencies_hz,
            });
            rest = after.trim_start();
        }
        Self::new(&segments, Self::LEVEL_DBM0).ok_or_else(error)
    }
}

/// What is written of a session or a conference, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// Which recording this is.
    pub id: RecordingId,
    /// The file; it must not exist yet.
    pub path: FilePath,
    /// Its form.
    pub format: RecordingFormat,
    /// Whose audio.
    pub tracks: RecordingTracks,
    /// Nothing is written while it is paused, and the pause takes no time in the file.
    pub paused: bool,
}

/// The form of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordingFormat {
    /// WAV, 16-bit linear, 8 kHz.
    Wav8k = 1,
    /// WAV, 16-bit linear, 16 kHz.
    Wav16k = 2,
    /// pcap with the RTP packets as received, decrypted, under invented link headers.
    Pcap = 3,
}

impl TryFrom<u8> for RecordingFormat {
    type Error = u8;

    fn try_from(value: u8) -> Result<Self, u8> {
        Ok(match value {
            1 => Self::Wav8k,
            2 => Self::Wav16k,
            3 => Self::Pcap,
            other => return Err(other),
        })
    }
}

/// Whose audio a recording holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordingTracks {
    /// What leg A's peer says.
    LegA = 1,
    /// What leg B's peer says.
    LegB = 2,
    /// Both, added up.
    Mixed = 3,
    /// Leg A left, leg B right.
    Stereo = 4,
}

impl TryFrom<u8> for RecordingTracks {
    type Error = u8;

    fn try_from(value: u8) -> Result<Self, u8> {
        Ok(match value {
            1 => Self::LegA,
            2 => Self::LegB,
            3 => Self::Mixed,
            4 => Self::Stereo,
            other => return Err(other),
        })
    }
}

/// Digits to send to a leg's peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigitsToSend {
    /// Which string this is.
    pub id: DigitsId,
    /// What to send.
    pub digits: DigitString,
    /// How long each sounds, milliseconds, 40 to 2,000 (ITU-T Q.24: at least 40).
    pub on_millis: u16,
    /// How long the pause after each, milliseconds, 40 to 2,000.
    pub off_millis: u16,
    /// As what.
    pub method: DigitMethod,
}

/// How digits travel in the media.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DigitMethod {
    /// Telephone events (RFC 4733) where the leg has them, else tones.
    Preferred = 0,
    /// Tones in the audio (ITU-T Q.23).
    InBand = 1,
}

impl TryFrom<u8> for DigitMethod {
    type Error = u8;

    fn try_from(value: u8) -> Result<Self, u8> {
        Ok(match value {
            0 => Self::Preferred,
            1 => Self::InBand,
            other => return Err(other),
        })
    }
}

/// One of the sixteen DTMF signals.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digit(u8);

impl Digit {
    /// In the order of their event codes (RFC 4733 §3.2).
    const SYMBOLS: [u8; 16] = *b"0123456789*#ABCD";

    /// The digit of an RFC 4733 event code; `None` above 15.
    #[must_use]
    pub const fn from_event(code: u8) -> Option<Self> {
        if code < 16 { Some(Self(code)) } else { None }
    }

    /// `0`-`9`, `*`, `#`, `A`-`D`; `None` for anything else.
    #[must_use]
    pub fn from_char(symbol: char) -> Option<Self> {
        let code = Self::SYMBOLS
            .iter()
            .position(|&other| char::from(other) == symbol.to_ascii_uppercase())?;
        Some(Self(code as u8))
    }

    /// Event code, 0 … 15.
    #[must_use]
    pub const fn event(self) -> u8 {
        self.0
    }

    /// As it stands on the key.
    #[must_use]
    pub const fn as_char(self) -> char {
        Self::SYMBOLS[self.0 as usize] as char
    }
}

impl std::fmt::Debug for Digit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A digit may be part of a secret; what has to tell it says so with `as_char`.
        f.write_str("Digit(_)")
    }
}

/// One to [`DigitString::LEN_MAX`] digits. Held in place, so that a packet thread can make one.
#[derive(Clone, PartialEq, Eq)]
pub struct DigitString {
    digits: [Digit; DigitString::LEN_MAX],
    len: u8,
}

impl DigitString {
    /// Longer than any number or card.
    pub const LEN_MAX: usize = 64;

    /// `None` when there is none or too many.
    #[must_use]
    pub fn new(digits: impl AsRef<[Digit]>) -> Option<Self> {
        let digits = digits.as_ref();
        if digits.is_empty() {
            return None;
        }
        let mut all = [Digit(0); Self::LEN_MAX];
        all.get_mut(..digits.len())?.copy_from_slice(digits);
        Some(Self {
            digits: all,
            len: digits.len() as u8,
        })
    }

    /// The digits in order.
    #[must_use]
    pub fn as_slice(&self) -> &[Digit] {
        &self.digits[..usize::from(self.len)]
    }
}

impl std::fmt::Debug for DigitString {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DigitString({} digits)", self.len)
    }
}

/// How a digit came to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DigitSource {
    /// A telephone event (RFC 4733).
    Event = 1,
    /// A tone in the audio (ITU-T Q.24).
    InBand = 2,
}

impl TryFrom<u8> for DigitSource {
    type Error = u8;

    fn try_from(value: u8) -> Result<Self, u8> {
        Ok(match value {
            1 => Self::Event,
            2 => Self::InBand,
            other => return Err(other),
        })
    }
}

/// Switches of a leg. All off: the leg is relayed, its telephone events are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LegFunctions {
    /// What the peer says reaches nobody. It is still heard: timeouts and statistics go on.
    pub muted: bool,
    /// The peer is sent nothing of what the far leg says.
    pub deaf: bool,
    /// Look for DTMF tones in what the peer says; what is found is told, and goes on as telephone
    /// events where the far leg takes them.
    pub detects_tones: bool,
    /// The peer's digits reach neither the far leg nor a recording nor a log; control alone is
    /// told of them.
    pub hides_digits: bool,
    /// Tell when the peer begins and ends to speak.
    pub reports_activity: bool,
    /// Tell of the beep of an answering machine.
    pub detects_beep: bool,
    /// Tell of call progress tones and fax machines. Since 1.3.
    pub detects_progress: bool,
}

/// What the audio of a far end says of the call, to whoever has no signalling for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ProgressSignal {
    /// The exchange waits for digits (ITU-T E.180 §4).
    DialTone = 1,
    /// The called telephone rings (ITU-T E.180 §5).
    Ringback = 2,
    /// The called party is busy (ITU-T E.180 §6).
    Busy = 3,
    /// The network is congested: "reorder", "fast busy" (ITU-T E.180 §7).
    Congestion = 4,
    /// Three rising tones before an announcement: no such number, out of order, no circuit
    /// (ITU-T E.180 §8).
    SpecialInformation = 5,
    /// A fax machine calls: CNG (ITU-T T.30 §4.3.3.3.2).
    FaxCalling = 6,
    /// A fax machine or modem answers: CED, ANS (ITU-T T.30 §4.3.3.3.1, V.25).
    FaxAnswer = 7,
}

impl ProgressSignal {
    /// All signals, by their numbers.
    pub const ALL: [Self; 7] = [
        Self::DialTone,
        Self::Ringback,
        Self::Busy,
        Self::Congestion,
        Self::SpecialInformation,
        Self::FaxCalling,
        Self::FaxAnswer,
    ];
}

impl TryFrom<u8> for ProgressSignal {
    type Error = u8;

    fn try_from(value: u8) -> Result<Self, u8> {
        Self::ALL
            .into_iter()
            .find(|signal| *signal as u8 == value)
            .ok_or(value)
    }
}

/// A copy of what a leg's peer says, as RTP to a second address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaFork {
    /// Where the copy goes.
    pub to: SocketAddr,
    /// Under which SSRC.
    pub ssrc: Ssrc,
}

/// A leg's part in a conference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    /// Which conference.
    pub conference: ConferenceId,
    /// Not heard by the others.
    pub muted: bool,
    /// Does not hear the others.
    pub deaf: bool,
    /// Heard by this member alone ("whisper", "coach"), while it hears everybody.
    pub whispers_to: Option<(SessionId, LegIndex)>,
}

/// How a conference behaves. It comes to be with its first member or with this, and ends when it
/// is closed or its last member leaves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConferenceSettings {
    /// A rising tone when somebody joins, a falling one when somebody leaves.
    pub announces: bool,
    /// The mix, written to a file; `tracks` is [`RecordingTracks::Mixed`].
    pub recording: Option<Recording>,
}
