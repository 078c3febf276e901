//! Bodies of what is asked beside relaying, in and out. Counted lists state the length of one
//! element, so that elements grow at their end.

use super::codec::{Reader, Writer};
use super::{DecodeFault, bad};
use crate::audio::{
    AudioCodec, AudioFormat, AudioFormats, LegAudio, OpusOptions, PacketTime, TelephoneEventFormat,
};
use crate::event::{RecordingEnd, RecordingOutcome};
use crate::function::{
    ConferenceId, ConferenceSettings, Digit, DigitMethod, DigitString, DigitsId, DigitsToSend,
    FilePath, LegFunctions, LiveLevel, MediaFork, Membership, PlaySource, PlaySources, Playback,
    PlaybackId, PlaybackMode, PromptId, RawAudio, Recording, RecordingFormat, RecordingId,
    RecordingTracks, Tone, ToneSegment,
};
use crate::vocabulary::{ClockRateHz, LegIndex, PayloadType, SessionId, Ssrc};

/// Stands where a codec's, a payload type's or a leg's number would.
const NONE: u8 = 0xff;

/// Length of one audio format.
const FORMAT_LEN: u8 = 20;

/// Length of one tone segment.
const SEGMENT_LEN: u8 = 8;

const SOURCE_PROMPT: u8 = 1;
const SOURCE_TONE: u8 = 2;
const SOURCE_SILENCE: u8 = 3;

const OPUS_FEC: u8 = 1;
const OPUS_DTX: u8 = 1 << 1;
const OPUS_CBR: u8 = 1 << 2;

const MUTED: u32 = 1;
const DEAF: u32 = 1 << 1;
const DETECTS_TONES: u32 = 1 << 2;
const HIDES_DIGITS: u32 = 1 << 3;
const REPORTS_ACTIVITY: u32 = 1 << 4;
const DETECTS_BEEP: u32 = 1 << 5;
const DETECTS_PROGRESS: u32 = 1 << 6;

const MODE_REPLACE: u8 = 0;
const MODE_INTO: u8 = 1;

const fn bit(is_set: bool, mask: u32) -> u32 {
    if is_set { mask } else { 0 }
}

impl Writer<'_> {
    /// 12 bytes: session u64, leg u8, reserved 3.
    pub(super) fn leg_of(&mut self, session: SessionId, leg: LegIndex) {
        self.u64(session.0);
        self.bytes(&[leg as u8, 0, 0, 0]);
    }

    /// As [`Self::leg_of`], with a mark in the place of the leg when there is none.
    pub(super) fn optional_leg(&mut self, leg: Option<(SessionId, LegIndex)>) {
        self.u64(leg.map_or(0, |(session, _)| session.0));
        self.bytes(&[leg.map_or(NONE, |(_, leg)| leg as u8), 0, 0, 0]);
    }

    /// Whether there is any u8, number of formats to receive u8, length of one u8, comfort noise
    /// u8; both telephone events; the format to send, those to receive.
    pub(super) fn leg_audio(&mut self, audio: Option<&LegAudio>) {
        let Some(audio) = audio else {
            self.bytes(&[0; 4]);
            return;
        };
        let formats = audio.receive.as_slice();
        let comfort_noise = audio.comfort_noise.map_or(NONE, |number| number.get());
        self.bytes(&[1, formats.len() as u8, FORMAT_LEN, comfort_noise]);
        self.telephone_event(audio.receive_events);
        self.telephone_event(audio.send_events);
        self.audio_format(&audio.send);
        for format in formats {
            self.audio_format(format);
        }
    }

    fn telephone_event(&mut self, event: Option<TelephoneEventFormat>) {
        let number = event.map_or(NONE, |event| event.payload_type.get());
        self.bytes(&[number, 0, 0, 0]);
        self.u32(event.map_or(0, |event| event.clock_rate.get()));
    }

    fn audio_format(&mut self, format: &AudioFormat) {
        let opus = format.opus;
        let flags = bit(opus.in_band_fec, OPUS_FEC.into())
            | bit(opus.dtx, OPUS_DTX.into())
            | bit(opus.constant_bitrate, OPUS_CBR.into());
        self.bytes(&[
            format.codec as u8,
            format.payload_type.get(),
            format.channels,
            format.packet_time.millis(),
        ]);
        self.u32(format.clock_rate.get());
        self.u32(opus.playback_rate_max_hz);
        self.u32(opus.bitrate_max);
        self.u32(flags);
    }

    pub(super) fn leg_functions(&mut self, functions: LegFunctions) {
        self.u32(
            bit(functions.muted, MUTED)
                | bit(functions.deaf, DEAF)
                | bit(functions.detects_tones, DETECTS_TONES)
                | bit(functions.hides_digits, HIDES_DIGITS)
                | bit(functions.reports_activity, REPORTS_ACTIVITY)
                | bit(functions.detects_beep, DETECTS_BEEP)
                | bit(functions.detects_progress, DETECTS_PROGRESS),
        );
    }

    pub(super) fn raw_audio(&mut self, raw: Option<RawAudio>) {
        self.bytes(&[raw.map_or(NONE, |raw| raw.codec as u8), 0, 0, 0]);
        self.u32(raw.map_or(0, |raw| raw.sample_rate_hz));
    }

    pub(super) fn path(&mut self, path: &FilePath) {
        self.u16(path.as_str().len() as u16);
        self.bytes(path.as_str().as_bytes());
    }

    pub(super) fn playback(&mut self, playback: &Playback) {
        let sources = playback.sources.as_slice();
        self.u32(playback.id.0);
        self.u16(playback.rounds);
        self.bytes(&[u8::from(playback.ends_on_digit), sources.len() as u8]);
        for source in sources {
            self.play_source(source);
        }
        self.playback_mode(playback.mode);
    }

    /// What 1.3 put behind the sources: mode u8, dB u8, reserved u16.
    fn playback_mode(&mut self, mode: PlaybackMode) {
        let (number, db) = match mode {
            PlaybackMode::Replace => (MODE_REPLACE, 0),
            PlaybackMode::Into(live) => (MODE_INTO, live.db()),
        };
        self.bytes(&[number, db, 0, 0]);
    }

    /// Kind u8, reserved u8, length of the rest u16, the rest.
    fn play_source(&mut self, source: &PlaySource) {
        match source {
            PlaySource::Prompt(prompt) => {
                self.bytes(&[SOURCE_PROMPT, 0]);
                self.u16(8);
                self.u64(prompt.0);
            }
            PlaySource::Silence { millis } => {
                self.bytes(&[SOURCE_SILENCE, 0]);
                self.u16(4);
                self.u32(*millis);
            }
            PlaySource::Tone(tone) => {
                let segments = tone.segments();
                self.bytes(&[SOURCE_TONE, 0]);
                self.u16(4 + segments.len() as u16 * u16::from(SEGMENT_LEN));
                let level = tone.level_dbm0().cast_unsigned();
                self.bytes(&[segments.len() as u8, SEGMENT_LEN, level, 0]);
                for segment in segments {
                    self.u16(segment.on_millis);
                    self.u16(segment.off_millis);
                    self.u16(segment.frequencies_hz[0]);
                    self.u16(segment.frequencies_hz[1]);
                }
            }
        }
    }

    pub(super) fn recording(&mut self, recording: &Recording) {
        self.u64(recording.id.0);
        self.bytes(&[
            recording.format as u8,
            recording.tracks as u8,
            u8::from(recording.paused),
            0,
        ]);
        self.path(&recording.path);
    }

    pub(super) fn recording_outcome(&mut self, outcome: &RecordingOutcome) {
        self.bytes(&[outcome.cause as u8, 0, 0, 0]);
        self.u64(outcome.duration_millis);
        self.u64(outcome.bytes);
        self.u64(outcome.lost_packets);
        self.bytes(&outcome.sha256);
    }

    pub(super) fn digits(&mut self, digits: &DigitsToSend) {
        let string = digits.digits.as_slice();
        self.u32(digits.id.0);
        self.u16(digits.on_millis);
        self.u16(digits.off_millis);
        self.bytes(&[digits.method as u8, string.len() as u8]);
        for digit in string {
            self.u8(digit.event());
        }
    }

    pub(super) fn fork(&mut self, fork: Option<MediaFork>) {
        self.u32(fork.map_or(0, |fork| fork.ssrc.0));
        self.socket_addr(fork.map(|fork| fork.to));
    }

    pub(super) fn membership(&mut self, membership: &Membership) {
        self.u64(membership.conference.0);
        self.u32(bit(membership.muted, MUTED) | bit(membership.deaf, DEAF));
        self.optional_leg(membership.whispers_to);
    }

    pub(super) fn conference_settings(&mut self, settings: &ConferenceSettings) {
        let is_recorded = u8::from(settings.recording.is_some());
        self.bytes(&[u8::from(settings.announces), is_recorded, 0, 0]);
        if let Some(recording) = &settings.recording {
            self.recording(recording);
        }
    }
}

impl Reader<'_> {
    pub(super) fn leg_of(&mut self) -> Result<(SessionId, LegIndex), DecodeFault> {
        let session = self.session()?;
        let leg = self.leg()?;
        self.take("reserved", 3)?;
        Ok((session, leg))
    }

    pub(super) fn optional_leg(
        &mut self,
        field: &'static str,
    ) -> Result<Option<(SessionId, LegIndex)>, DecodeFault> {
        let session = self.session()?;
        let number = self.u8(field)?;
        self.take("reserved", 3)?;
        if number == NONE {
            return Ok(None);
        }
        let leg = LegIndex::try_from(number).map_err(|value| bad(field, value.into()))?;
        Ok(Some((session, leg)))
    }

    pub(super) fn flag(&mut self, field: &'static str) -> Result<bool, DecodeFault> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(bad(field, other.into())),
        }
    }

    pub(super) fn leg_audio(&mut self) -> Result<Option<LegAudio>, DecodeFault> {
        let is_present = self.flag("has_audio")?;
        let count = usize::from(self.u8("format_count")?);
        let len = self.u8("format_len")?;
        let comfort_noise = match self.u8("comfort_noise")? {
            NONE => None,
            number => Some(payload_type("comfort_noise", number)?),
        };
        if !is_present {
            return Ok(None);
        }
        if count > AudioFormats::LEN_MAX {
            return Err(bad("format_count", count as u64));
        }
        if len < FORMAT_LEN {
            return Err(bad("format_len", len.into()));
        }
        let receive_events = self.telephone_event()?;
        let send_events = self.telephone_event()?;
        let send = self.audio_format(len)?;
        let mut formats = Vec::with_capacity(count);
        for _ in 0..count {
            formats.push(self.audio_format(len)?);
        }
        Ok(Some(LegAudio {
            receive: AudioFormats::new(formats).ok_or(DecodeFault::DuplicateRoute)?,
            send,
            receive_events,
            send_events,
            comfort_noise,
        }))
    }

    fn telephone_event(&mut self) -> Result<Option<TelephoneEventFormat>, DecodeFault> {
        let number = self.u8("telephone_event")?;
        self.take("reserved", 3)?;
        let hz = self.u32("telephone_event_clock")?;
        if number == NONE {
            return Ok(None);
        }
        Ok(Some(TelephoneEventFormat {
            payload_type: payload_type("telephone_event", number)?,
            clock_rate: ClockRateHz::new(hz).ok_or(bad("telephone_event_clock", hz.into()))?,
        }))
    }

    fn audio_format(&mut self, len: u8) -> Result<AudioFormat, DecodeFault> {
        let mut r = self.element("format", len.into())?;
        let codec = r.enumerated::<AudioCodec>("codec")?;
        let payload_type = r.payload_type("payload_type")?;
        let channels = r.u8("channels")?;
        if !(1..=2).contains(&channels) {
            return Err(bad("channels", channels.into()));
        }
        let millis = r.u8("packet_time")?;
        let hz = r.u32("clock_rate")?;
        let playback_rate_max_hz = r.u32("playback_rate_max_hz")?;
        let bitrate_max = r.u32("bitrate_max")?;
        let flags = r.u32("opus_flags")?;
        Ok(AudioFormat {
            codec,
            payload_type,
            clock_rate: ClockRateHz::new(hz).ok_or(bad("clock_rate", hz.into()))?,
            channels,
            packet_time: PacketTime::from_millis(millis)
                .ok_or(bad("packet_time", millis.into()))?,
            opus: OpusOptions {
                in_band_fec: flags & u32::from(OPUS_FEC) != 0,
                dtx: flags & u32::from(OPUS_DTX) != 0,
                constant_bitrate: flags & u32::from(OPUS_CBR) != 0,
                playback_rate_max_hz,
                bitrate_max,
            },
        })
    }

    pub(super) fn leg_functions(&mut self) -> Result<LegFunctions, DecodeFault> {
        let flags = self.u32("functions")?;
        Ok(LegFunctions {
            muted: flags & MUTED != 0,
            deaf: flags & DEAF != 0,
            detects_tones: flags & DETECTS_TONES != 0,
            hides_digits: flags & HIDES_DIGITS != 0,
            reports_activity: flags & REPORTS_ACTIVITY != 0,
            detects_beep: flags & DETECTS_BEEP != 0,
            detects_progress: flags & DETECTS_PROGRESS != 0,
        })
    }

    pub(super) fn raw_audio(&mut self) -> Result<Option<RawAudio>, DecodeFault> {
        let number = self.u8("raw_codec")?;
        self.take("reserved", 3)?;
        let sample_rate_hz = self.u32("raw_sample_rate")?;
        if number == NONE {
            return Ok(None);
        }
        let codec = AudioCodec::try_from(number).map_err(|value| bad("raw_codec", value.into()))?;
        Ok(Some(RawAudio {
            codec,
            sample_rate_hz,
        }))
    }

    pub(super) fn path(&mut self) -> Result<FilePath, DecodeFault> {
        let len = self.u16("path_len")?;
        let bytes = self.take("path", len.into())?;
        std::str::from_utf8(bytes)
            .ok()
            .and_then(FilePath::new)
            .ok_or(bad("path_len", len.into()))
    }

    pub(super) fn playback(&mut self) -> Result<Playback, DecodeFault> {
        let id = PlaybackId(self.u32("playback")?);
        let rounds = self.u16("rounds")?;
        let ends_on_digit = self.flag("ends_on_digit")?;
        let count = usize::from(self.u8("source_count")?);
        if count > PlaySources::LEN_MAX {
            return Err(bad("source_count", count as u64));
        }
        let mut sources = Vec::with_capacity(count);
        for _ in 0..count {
            sources.push(self.play_source()?);
        }
        Ok(Playback {
            id,
            sources: PlaySources::new(sources).ok_or(bad("source_count", count as u64))?,
            rounds,
            ends_on_digit,
            mode: self.playback_mode()?,
        })
    }

    fn playback_mode(&mut self) -> Result<PlaybackMode, DecodeFault> {
        if self.is_at_end() {
            return Ok(PlaybackMode::Replace);
        }
        let number = self.u8("mode")?;
        let db = self.u8("live_db")?;
        self.u16("reserved")?;
        Ok(match number {
            MODE_REPLACE => PlaybackMode::Replace,
            MODE_INTO => {
                PlaybackMode::Into(LiveLevel::softer_by_db(db).ok_or(bad("live_db", db.into()))?)
            }
            other => return Err(bad("mode", other.into())),
        })
    }

    fn play_source(&mut self) -> Result<PlaySource, DecodeFault> {
        let kind = self.u8("source_kind")?;
        self.u8("reserved")?;
        let len = self.u16("source_len")?;
        let mut r = self.element("source", len.into())?;
        Ok(match kind {
            SOURCE_PROMPT => PlaySource::Prompt(PromptId(r.u64("prompt")?)),
            SOURCE_SILENCE => PlaySource::Silence {
                millis: r.u32("millis")?,
            },
            SOURCE_TONE => PlaySource::Tone(r.tone()?),
            other => return Err(bad("source_kind", other.into())),
        })
    }

    fn tone(&mut self) -> Result<Tone, DecodeFault> {
        let count = self.u8("segment_count")?;
        let len = self.u8("segment_len")?;
        let level = self.u8("level")?.cast_signed();
        self.u8("reserved")?;
        if usize::from(count) > Tone::SEGMENTS_MAX || len < SEGMENT_LEN {
            return Err(bad("segment_count", count.into()));
        }
        let mut segments = [ToneSegment::default(); Tone::SEGMENTS_MAX];
        let segments = &mut segments[..usize::from(count)];
        for segment in &mut *segments {
            let mut r = self.element("segment", len.into())?;
            *segment = ToneSegment {
                on_millis: r.u16("on_millis")?,
                off_millis: r.u16("off_millis")?,
                frequencies_hz: [r.u16("frequency")?, r.u16("frequency")?],
            };
        }
        Tone::new(segments, level).ok_or(bad("segment_count", count.into()))
    }

    pub(super) fn recording(&mut self) -> Result<Recording, DecodeFault> {
        let id = RecordingId(self.u64("recording")?);
        let format = self.enumerated::<RecordingFormat>("recording_format")?;
        let tracks = self.enumerated::<RecordingTracks>("tracks")?;
        let paused = self.flag("paused")?;
        self.u8("reserved")?;
        Ok(Recording {
            id,
            path: self.path()?,
            format,
            tracks,
            paused,
        })
    }

    pub(super) fn recording_outcome(&mut self) -> Result<RecordingOutcome, DecodeFault> {
        let cause = self.enumerated::<RecordingEnd>("cause")?;
        self.take("reserved", 3)?;
        Ok(RecordingOutcome {
            cause,
            duration_millis: self.u64("duration_millis")?,
            bytes: self.u64("bytes")?,
            lost_packets: self.u64("lost_packets")?,
            sha256: self.array("sha256")?,
        })
    }

    pub(super) fn digit(&mut self) -> Result<Digit, DecodeFault> {
        let code = self.u8("digit")?;
        Digit::from_event(code).ok_or(bad("digit", code.into()))
    }

    pub(super) fn digits(&mut self) -> Result<DigitsToSend, DecodeFault> {
        let id = DigitsId(self.u32("digits")?);
        let on_millis = self.u16("on_millis")?;
        let off_millis = self.u16("off_millis")?;
        let method = self.enumerated::<DigitMethod>("method")?;
        let count = usize::from(self.u8("digit_count")?);
        if count > DigitString::LEN_MAX {
            return Err(bad("digit_count", count as u64));
        }
        let mut digits = Vec::with_capacity(count);
        for _ in 0..count {
            digits.push(self.digit()?);
        }
        Ok(DigitsToSend {
            id,
            digits: DigitString::new(digits).ok_or(bad("digit_count", count as u64))?,
            on_millis,
            off_millis,
            method,
        })
    }

    pub(super) fn fork(&mut self) -> Result<Option<MediaFork>, DecodeFault> {
        let ssrc = Ssrc(self.u32("ssrc")?);
        let to = self.socket_addr("fork")?;
        Ok(to.map(|to| MediaFork { to, ssrc }))
    }

    pub(super) fn membership(&mut self) -> Result<Membership, DecodeFault> {
        let conference = ConferenceId(self.u64("conference")?);
        let flags = self.u32("membership")?;
        Ok(Membership {
            conference,
            muted: flags & MUTED != 0,
            deaf: flags & DEAF != 0,
            whispers_to: self.optional_leg("whispers_to")?,
        })
    }

    pub(super) fn conference_settings(&mut self) -> Result<ConferenceSettings, DecodeFault> {
        let announces = self.flag("announces")?;
        let is_recorded = self.flag("is_recorded")?;
        self.u16("reserved")?;
        Ok(ConferenceSettings {
            announces,
            recording: match is_recorded {
                true => Some(self.recording()?),
                false => None,
            },
        })
    }
}

fn payload_type(field: &'static str, number: u8) -> Result<PayloadType, DecodeFault> {
    PayloadType::new(number).ok_or(bad(field, number.into()))
}
