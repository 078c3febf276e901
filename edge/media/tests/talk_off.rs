//! Talk-off: speech that is taken for digits, or for the tones of a network. Recorded speech is always played, and with
//! `espeak-ng` installed several minutes of made speech in many voices;
//! `TRUNKLINE_TALK_OFF_MINUTES=30` plays more of it.

use std::path::Path;
use std::process::{Command, Stdio};

use trunkline_media::SampleRate;
use trunkline_media::activity::{Progress, ProgressDetector};
use trunkline_media::dtmf::{DigitEvent, ToneDetector};

/// Minutes of made speech when nobody asks for more.
const MINUTES: u32 = 4;

const VOICES: [&str; 20] = [
    "en-us+f1",
    "en-us+m1",
    "en-gb+f2",
    "en-gb+m3",
    "en-us+f3",
    "en-us+m7",
    "en-us+f4",
    "en-gb+f5",
    "en-us+Andrea",
    "en-us+klatt2",
    "en-gb+m5",
    "en-us+belinda",
    "en-us+grandma",
    "en-us+linda",
    "de+f2",
    "fr-fr+f3",
    "it+f4",
    "ja+f1",
    "fi+f5",
    "es+m2",
];
const PITCHES: [&str; 4] = ["50", "30", "75", "99"];
const TEXTS: [&str; 3] = [
    "Good morning, thank you for calling. All our operators are busy at the moment. Please hold \
     the line, and somebody will be with you very soon. Why are we always yawning while you are \
     humming a merry tune in the moonlight?",
    "One two three four five six seven eight nine zero. My number is seven seven three, nine oh \
     one, four four eight two. Oh no, no, no! Hello? Mmmm, I see. Yeah, yeah, yeah. Uh huh.",
    "Roll along, Lola. Any menu in Miami will name many new minimum meals. A noise annoys an \
     oyster, but a noisier noise annoys an oyster more. Eee, aaa, ooo, la la la, do re mi fa so.",
];

/// Digits heard in `pcm` at 8 kHz.
fn digits(pcm: &[i16]) -> String {
    let mut detector = ToneDetector::new(SampleRate::Hz8000);
    let mut heard = String::new();
    for frame in pcm.chunks(160) {
        detector.handle_audio(frame);
        while let Some(event) = detector.poll_event() {
            if let DigitEvent::Ended(ended) = event {
                heard.push(ended.digit.as_char());
            }
        }
    }
    heard
}

/// What of `pcm` at 8 kHz is taken for the tones of a network.
fn progress(pcm: &[i16]) -> Vec<Progress> {
    let mut detector = ProgressDetector::new(SampleRate::Hz8000);
    let mut heard = Vec::new();
    for frame in pcm.chunks(160) {
        detector.handle_audio(frame);
        heard.extend(std::iter::from_fn(|| detector.poll_event()));
    }
    heard
}

/// µ-law to linear (ITU-T G.711 table 2).
fn linear(ulaw: u8) -> i16 {
    let code = !ulaw;
    let magnitude = ((i32::from(code & 0x0f) << 3) + 0x84) << ((code >> 4) & 7);
    let value = magnitude - 0x84;
    (if code & 0x80 == 0 { value } else { -value }) as i16
}

#[test]
fn recorded_speech_is_neither_a_digit_nor_progress() {
    for name in ["caller.ulaw", "callee.ulaw"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/vectors/speech")
            .join(name);
        let ulaw = std::fs::read(&path).unwrap();
        assert!(ulaw.len() > 5 * 8_000);
        let pcm: Vec<i16> = ulaw.iter().map(|&code| linear(code)).collect();
        assert_eq!(digits(&pcm), "", "{name}");
        assert_eq!(progress(&pcm), [], "{name}");
    }
}

/// What `espeak-ng` makes of `text`, at 8 kHz; `None` when it is not installed.
fn speak(voice: &str, pitch: &str, text: &str) -> Option<Vec<i16>> {
    let output = Command::new("espeak-ng")
        .args(["-v", voice, "-p", pitch, "--stdout", text])
        .stderr(Stdio::null())
        .output()
        .ok()?;
    // A WAV header of 44 bytes, then 16-bit samples at 22,050 Hz.
    let wav = output.stdout.get(44..)?;
    let samples: Vec<f64> = wav
        .chunks_exact(2)
        .map(|bytes| f64::from(i16::from_le_bytes([bytes[0], bytes[1]])))
        .collect();
    Some(to_8_khz(&samples, 22_050.0))
}

/// Windowed-sinc resampling; slow and simple.
fn to_8_khz(samples: &[f64], from_hz: f64) -> Vec<i16> {
    const REACH: isize = 24;
    let step = from_hz / 8_000.0;
    let cycles = 3_600.0 / from_hz;
    let len = (samples.len() as f64 / step) as usize;
    let at = |index: usize| {
        let middle = index as f64 * step;
        let first = middle as isize - REACH;
        let sum: f64 = (first..first + 2 * REACH)
            .filter_map(|tap| {
                let sample = samples.get(usize::try_from(tap).ok()?)?;
                let distance = tap as f64 - middle;
                let angle = std::f64::consts::TAU * cycles * distance;
                let sinc = if angle == 0.0 {
                    1.0
                } else {
                    angle.sin() / angle
                };
                let window = (std::f64::consts::FRAC_PI_2 * distance / REACH as f64).cos();
                Some(sample * sinc * window * 2.0 * cycles)
            })
            .sum();
        sum as i16
    };
    (0..len).map(at).collect()
}

#[test]
fn made_speech_is_neither_a_digit_nor_progress() {
    let minutes: u32 = std::env::var("TRUNKLINE_TALK_OFF_MINUTES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(MINUTES);
    let mut played = 0;
    'all: for round in 0.. {
        for (index, voice) in VOICES.iter().enumerate() {
            let text = TEXTS[(index + round) % TEXTS.len()];
            let pitch = PITCHES[round % PITCHES.len()];
            let Some(pcm) = speak(voice, pitch, text) else {
                eprintln!("espeak-ng is not installed: recorded speech alone was played");
                return;
            };
            assert_eq!(digits(&pcm), "", "{voice} at pitch {pitch} says {text}");
            assert_eq!(progress(&pcm), [], "{voice} at pitch {pitch} says {text}");
            played += pcm.len();
            if played >= minutes as usize * 60 * 8_000 {
                break 'all;
            }
        }
    }
    eprintln!("{} s of speech, no digit and no progress", played / 8_000);
}
