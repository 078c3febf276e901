//! Digits and tones that a peer sends.

use trunkline_edge_api::{ClockRateHz, Digit, MonoTime, Tone, ToneSegment};
use trunkline_media::SampleRate;
use trunkline_media::activity::{ActivityDetector, ActivityEvent, BeepDetector, beep};
use trunkline_media::dtmf::{DigitEvent, EventDetector, ToneSuppressor};
use trunkline_media::tone::ToneGenerator;

use crate::packets::Script;

/// A digit that was told to begin and not yet to end.
#[derive(Default)]
struct Told(Option<Digit>);

impl Told {
    /// Beginnings and ends take turns, and an end is of the digit that has begun.
    fn take(&mut self, event: DigitEvent) {
        match event {
            DigitEvent::Began(digit) => assert_eq!(self.0.replace(digit), None),
            DigitEvent::Ended(ended) => assert_eq!(self.0.take(), Some(ended.digit)),
        }
    }
}

/// Plays payloads of telephone events and time. The input is a list of steps:
///
/// | byte | what |
/// |---|---|
/// | 0x80 and more | so many times 10 ms pass, low seven bits |
/// | below | a packet: bit 0 the marker, bit 1 the clock, the others by how many times 80 units the timestamp goes on, 31: backwards; then a chunk, its payload |
pub fn telephone_event(input: &[u8]) {
    let mut detector = EventDetector::new();
    let mut told = Told::default();
    let mut began = 0;
    let mut now = MonoTime(1_000_000_000);
    let mut timestamp = 0xffff_f000u32;
    let mut script = Script::new(input);
    while let Some(what) = script.byte() {
        if what & 0x80 != 0 {
            now = now.plus_millis(10 * u64::from(what & 0x7f));
            detector.handle_timeout(now);
        } else if let Some(payload) = script.chunk() {
            let clock_rate = if what & 2 == 0 {
                ClockRateHz::NARROWBAND
            } else {
                ClockRateHz::OPUS
            };
            timestamp = match what >> 2 {
                31 => timestamp.wrapping_sub(800),
                steps => timestamp.wrapping_add(80 * u32::from(steps)),
            };
            detector.handle_packet(now, clock_rate, timestamp, what & 1 != 0, payload);
        }
        while let Some(event) = detector.poll_event() {
            began += u64::from(matches!(event, DigitEvent::Began(_)));
            told.take(event);
        }
        assert_eq!(detector.poll_timeout().is_some(), told.0.is_some());
        assert!(detector.poll_timeout().is_none_or(|due| due > now));
    }
    detector.finish();
    while let Some(event) = detector.poll_event() {
        told.take(event);
    }
    assert_eq!(told.0, None, "every digit ends");
    let counts = detector.counts();
    assert_eq!((counts.digits, counts.untold), (began, 0));
}

/// Steps of one input: four seconds of audio.
const STEPS_MAX: usize = 16;

/// Plays audio to everything that listens. The first byte is the rate and the length of frames;
/// then come steps:
///
/// | byte | what |
/// |---|---|
/// | 0x80 and more | a tone: low seven bits its level below 0 dBm0, then its frequencies in units of 16 Hz and its length in milliseconds, a byte each |
/// | below | a chunk of samples |
pub fn heard_audio(input: &[u8]) {
    let mut script = Script::new(input);
    let Some(form) = script.byte() else {
        return;
    };
    let rate = SampleRate::ALL[usize::from(form) % SampleRate::ALL.len()];
    let frame_len = rate.samples(10 * (1 + u32::from(form >> 6)));
    let mut ears = Ears::new(rate);
    for _ in 0..STEPS_MAX {
        let Some(what) = script.byte() else {
            break;
        };
        if what & 0x80 == 0 {
            let Some(bytes) = script.chunk() else {
                break;
            };
            let (pairs, _) = bytes.as_chunks();
            let pcm: Vec<i16> = pairs.iter().map(|pair| i16::from_le_bytes(*pair)).collect();
            pcm.chunks(frame_len).for_each(|frame| ears.hear(frame));
            continue;
        }
        let (Some(low), Some(high), Some(millis)) = (script.byte(), script.byte(), script.byte())
        else {
            break;
        };
        let segment = ToneSegment {
            on_millis: u16::from(millis),
            off_millis: 1,
            frequencies_hz: [low, high].map(|byte| (16 * u16::from(byte)).min(3_999)),
        };
        let level_dbm0 = -((what & 0x7f).min(60) as i8);
        let tone = Tone::new(&[segment], level_dbm0).expect("every such tone can be played");
        let mut generator = ToneGenerator::new(&tone, rate);
        let mut frame = vec![0; frame_len];
        loop {
            let written = generator.fill(&mut frame);
            ears.hear(&frame[..written]);
            if written < frame.len() {
                break;
            }
        }
    }
    ears.suppressor.finish();
    ears.take();
    assert_eq!(ears.told.0, None, "every digit ends");
}

/// Everything that listens to one peer.
struct Ears {
    suppressor: ToneSuppressor,
    beep: BeepDetector,
    activity: ActivityDetector,
    told: Told,
    is_speaking: bool,
}

impl Ears {
    fn new(rate: SampleRate) -> Self {
        Self {
            suppressor: ToneSuppressor::new(rate),
            beep: BeepDetector::new(rate),
            activity: ActivityDetector::new(rate),
            told: Told::default(),
            is_speaking: false,
        }
    }

    fn hear(&mut self, frame: &[i16]) {
        let mut audio = frame.to_vec();
        self.suppressor.handle_audio(&mut audio);
        assert_eq!(audio.len(), frame.len());
        self.beep.handle_audio(frame);
        self.activity.handle_audio(frame);
        self.take();
    }

    fn take(&mut self) {
        while let Some(event) = self.suppressor.poll_event() {
            self.told.take(event);
        }
        while let Some(beep) = self.beep.poll_event() {
            assert!(beep::FREQUENCY_RANGE_HZ.contains(&f32::from(beep.frequency_hz)));
            assert!((beep::MILLIS_MIN..=beep::MILLIS_MAX).contains(&beep.duration_millis));
        }
        while let Some(event) = self.activity.poll_event() {
            assert_eq!(self.is_speaking, event != ActivityEvent::Began);
            self.is_speaking = !self.is_speaking;
        }
        assert_eq!(self.activity.is_speaking(), self.is_speaking);
    }
}
