//! What the edge listens for in what a peer says: digits, speech, the beep of a machine, the tones
//! of a network.
//!
//! Listening needs sound by the clock, so it has a jitter buffer of its own; what is relayed is not
//! held up by it. Only where digits are to be hidden does the far peer hear what comes out here.

use trunkline_edge_api::{
    AudioFormat, DigitSource, LegAudio, LegFunctions, LegIndex, MonoTime, Refusal,
};

use super::super::SessionEvent;
use super::made::{Feed, Made};
use crate::activity::{ActivityDetector, ActivityEvent, BeepDetector, ProgressDetector};
use crate::audio::SampleRate;
use crate::clocked_input::{ClockedInput, ReadKind};
use crate::codec::Encoder;
use crate::dtmf::{DigitEvent, ToneDetector, ToneSuppressor};
use crate::rewrite::Position;
use crate::rtp::{HEADER_LEN_MIN, RtpHeader};

/// Listened to at the rate of telephones: digits and beeps lie below 4 kHz.
pub(super) const RATE: SampleRate = SampleRate::Hz8000;
const FRAME_MILLIS: u32 = 20;
const FRAME_LEN: usize = RATE.samples(FRAME_MILLIS);
const FRAME_NANOS: u64 = FRAME_MILLIS as u64 * 1_000_000;

/// A worker that was away for longer than this listens on from now.
const LAG_FRAMES_MAX: u64 = 5;

#[derive(Debug)]
pub(super) struct Ears {
    input: ClockedInput,
    frame: Box<[i16; FRAME_LEN]>,
    next_at: MonoTime,
    digits: Digits,
    voice: Option<ActivityDetector>,
    beep: Option<BeepDetector>,
    progress: Option<Box<ProgressDetector>>,
}

#[derive(Debug)]
enum Digits {
    Unheard,
    Told(ToneDetector),
    /// Told, and taken out of what the far peer hears.
    TakenOut(ToneSuppressor),
}

impl Ears {
    /// `None` when `wanted` asks for nothing that has to be listened for. Digits that are hidden,
    /// or that the far peer is told in another form, are taken out of what it hears.
    pub(super) fn wanted(
        now: MonoTime,
        audio: &LegAudio,
        wanted: LegFunctions,
        converts: bool,
    ) -> Result<Option<Self>, Refusal> {
        let listens = wanted.detects_tones
            || wanted.reports_activity
            || wanted.detects_beep
            || wanted.detects_progress;
        if !listens {
            return Ok(None);
        }
        let input = ClockedInput::new(audio, RATE).map_err(|_| Refusal::FormatUnsupported)?;
        Ok(Some(Self {
            input,
            frame: Box::new([0; FRAME_LEN]),
            next_at: now,
            digits: match (wanted.detects_tones, wanted.hides_digits || converts) {
                (false, _) => Digits::Unheard,
                (true, false) => Digits::Told(ToneDetector::new(RATE)),
                (true, true) => Digits::TakenOut(ToneSuppressor::new(RATE)),
            },
            voice: wanted.reports_activity.then(|| ActivityDetector::new(RATE)),
            beep: wanted.detects_beep.then(|| BeepDetector::new(RATE)),
            progress: wanted
                .detects_progress
                .then(|| Box::new(ProgressDetector::new(RATE))),
        }))
    }

    /// Whether the far peer hears what comes out here, and not what came in.
    pub(super) fn filters(&self) -> bool {
        matches!(self.digits, Digits::TakenOut(_))
    }

    pub(super) fn receive(&mut self, now: MonoTime, header: &RtpHeader, payload: &[u8]) {
        // What becomes of it is in the input's figures.
        let _ = self.input.receive(now, header, payload);
    }

    /// Listens to the frame that is due, if one is, and returns it as the far peer may hear it.
    pub(super) fn listen(&mut self, now: MonoTime) -> Option<&[i16]> {
        if now < self.next_at {
            return None;
        }
        let lag = now.nanos_since(self.next_at) / FRAME_NANOS;
        if lag > LAG_FRAMES_MAX {
            self.next_at = now;
        }
        self.next_at = self.next_at.plus_nanos(FRAME_NANOS);
        let frame = &mut self.frame[..];
        let kind = self.input.read(now, frame);
        if let Some(voice) = &mut self.voice {
            match kind {
                ReadKind::Silence => voice.handle_gap(FRAME_MILLIS),
                ReadKind::Sound | ReadKind::Concealed => voice.handle_audio(frame),
            }
        }
        if let Some(beep) = &mut self.beep {
            beep.handle_audio(frame);
        }
        if let Some(progress) = &mut self.progress {
            progress.handle_audio(frame);
        }
        match &mut self.digits {
            Digits::Unheard => {}
            Digits::Told(detector) => detector.handle_audio(frame),
            Digits::TakenOut(suppressor) => suppressor.handle_audio(frame),
        }
        Some(frame)
    }

    /// The next digit that was heard in the audio.
    pub(super) fn poll_digit(&mut self) -> Option<DigitEvent> {
        match &mut self.digits {
            Digits::Unheard => None,
            Digits::Told(detector) => detector.poll_event(),
            Digits::TakenOut(suppressor) => suppressor.poll_event(),
        }
    }

    /// What else was heard.
    pub(super) fn poll_event(&mut self, leg: LegIndex) -> Option<SessionEvent> {
        let spoke = self.voice.as_mut().and_then(ActivityDetector::poll_event);
        if let Some(event) = spoke {
            return Some(SessionEvent::ActivityChanged {
                leg,
                is_speaking: matches!(event, ActivityEvent::Began),
            });
        }
        let beep = self.beep.as_mut().and_then(BeepDetector::poll_event);
        if let Some(beep) = beep {
            return Some(SessionEvent::BeepHeard {
                leg,
                frequency_hz: beep.frequency_hz,
                duration_millis: beep.duration_millis,
            });
        }
        let progress = self.progress.as_mut()?.poll_event()?;
        Some(SessionEvent::ProgressHeard {
            leg,
            signal: progress.signal,
            frequencies_hz: progress.frequencies_hz,
        })
    }

    /// Nothing more will come: a digit that sounds has ended.
    pub(super) fn finish(&mut self) {
        match &mut self.digits {
            Digits::Unheard => {}
            Digits::Told(detector) => detector.finish(),
            Digits::TakenOut(suppressor) => suppressor.finish(),
        }
    }
}

/// How a digit of the audio is told.
pub(super) const SOURCE: DigitSource = DigitSource::InBand;

/// Sends on what the far leg's ears let through.
#[derive(Debug)]
pub(super) struct Filtered {
    encoder: Encoder,
    format: AudioFormat,
    /// Samples that no packet has taken yet.
    samples: Vec<i16>,
    sequence: u16,
    timestamp: u32,
}

impl Filtered {
    pub(super) fn new(format: &AudioFormat) -> Result<Self, Refusal> {
        let encoder = Encoder::new(format, RATE).map_err(|_| Refusal::FormatUnsupported)?;
        Ok(Self {
            samples: Vec::with_capacity(encoder.packet_samples() + FRAME_LEN),
            encoder,
            format: *format,
            sequence: 0,
            timestamp: 0,
        })
    }

    pub(super) fn set_expected_loss(&mut self, percent: u8) {
        self.encoder.set_expected_loss(percent);
    }

    /// Takes a frame. One that nobody fetched in time is left out.
    pub(super) fn take(&mut self, frame: &[i16]) {
        if self.samples.len() + frame.len() <= self.samples.capacity() {
            self.samples.extend_from_slice(frame);
        }
    }

    pub(super) fn has_output(&self) -> bool {
        self.samples.len() >= self.encoder.packet_samples()
    }

    pub(super) fn poll(&mut self, is_silenced: bool, out: &mut [u8]) -> Option<Made> {
        let len = self.encoder.packet_samples();
        let samples = self.samples.get(..len)?;
        let room = out.get_mut(HEADER_LEN_MIN..)?;
        let payload_len = self.encoder.encode(samples, room).unwrap_or(0);
        self.samples.drain(..len);
        let timestamp = self.timestamp;
        let millis = u32::from(self.format.packet_time.millis());
        self.timestamp = timestamp.wrapping_add(self.format.clock_rate.get() / 1_000 * millis);
        if payload_len == 0 || is_silenced {
            return None;
        }
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        Some(Made {
            feed: Feed::Filtered,
            position: Position {
                sequence,
                timestamp,
            },
            marker: false,
            payload_type: self.format.payload_type,
            clock_rate: self.format.clock_rate,
            payload_len,
        })
    }
}
