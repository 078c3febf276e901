use std::f64::consts::TAU;

use super::super::tests::{level_db, speech};
use super::*;

/// A vowel: harmonics of a steady pitch.
fn vowel(rate: SampleRate, pitch_hz: f64, millis: u32) -> Vec<i16> {
    (0..rate.samples(millis))
        .map(|n| {
            let phase = TAU * pitch_hz * n as f64 / f64::from(rate.hz());
            let sum: f64 = (1..=10)
                .map(|k| (phase * f64::from(k)).sin() / f64::from(k))
                .sum();
            (sum * 6_000.0) as i16
        })
        .collect()
}

fn heard(rate: SampleRate, samples: &[i16]) -> Concealer {
    let mut concealer = Concealer::new(rate);
    for packet in samples.chunks(rate.samples(20)) {
        concealer.handle_audio(&mut packet.to_vec());
    }
    concealer
}

fn largest_step(samples: &[i16]) -> i32 {
    samples
        .windows(2)
        .map(|pair| (i32::from(pair[1]) - i32::from(pair[0])).abs())
        .max()
        .unwrap_or(0)
}

#[test]
fn the_pitch_of_a_vowel_is_found_at_every_rate() {
    for rate in SampleRate::ALL {
        for pitch_hz in [70.0, 100.0, 143.0, 190.0] {
            let mut concealer = heard(rate, &vowel(rate, pitch_hz, 100));
            let pitch = concealer.begin().pitch as f64;
            let periods = pitch / (f64::from(rate.hz()) / pitch_hz);
            // Two periods of a high voice serve as well as one.
            let nearest = periods.round().max(1.0);
            assert!(
                (periods - nearest).abs() < 0.03,
                "{rate:?}, {pitch_hz} Hz: {periods}"
            );
        }
    }
}

#[test]
fn ten_lost_milliseconds_of_a_vowel_are_close_to_what_was_said() {
    for rate in SampleRate::ALL {
        let said = vowel(rate, 120.0, 120);
        let (before, lost) = said.split_at(rate.samples(110));
        let mut out = vec![0; lost.len()];
        heard(rate, before).fill(&mut out);
        let error: f64 = out
            .iter()
            .zip(lost)
            .map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2))
            .sum();
        let signal: f64 = lost.iter().map(|&s| f64::from(s).powi(2)).sum();
        let snr = 10.0 * (signal / error).log10();
        assert!(snr > 10.0, "{rate:?}: {snr:.1} dB");
    }
}

#[test]
fn a_loss_makes_no_step_that_the_voice_does_not_make() {
    for rate in SampleRate::ALL {
        for lost_millis in [10, 20, 40, 60] {
            let said = vowel(rate, 120.0, 400);
            let lost = rate.samples(110)..rate.samples(110 + lost_millis);
            let mut concealer = heard(rate, &said[..lost.start]);
            let mut out = said.clone();
            concealer.fill(&mut out[lost.clone()]);
            for packet in out[lost.end..].chunks_mut(rate.samples(20)) {
                concealer.handle_audio(packet);
            }
            let (step, voice) = (largest_step(&out), largest_step(&said));
            assert!(
                step <= voice * 3 / 2,
                "{rate:?}, {lost_millis} ms: {step}, {voice}"
            );
        }
    }
}

#[test]
fn a_long_loss_fades_by_a_fifth_each_ten_milliseconds_and_ends_in_silence() {
    let rate = SampleRate::Hz8000;
    let said = vowel(rate, 100.0, 200);
    let mut concealer = heard(rate, &said);
    let full = level_db(&said);
    let mut out = [0; 80];
    for (start, end) in [
        (1.0f64, 1.0),
        (1.0, 0.8),
        (0.8, 0.6),
        (0.6, 0.4),
        (0.4, 0.2),
        (0.2, 0.0),
    ] {
        concealer.fill(&mut out);
        let loss = level_db(&out) - full;
        // The power of a linear ramp.
        let expected = 10.0 * ((start * start + start * end + end * end) / 3.0).log10();
        assert!(
            (loss - expected).abs() < 1.5,
            "{loss:.2} against {expected:.2} dB"
        );
    }
    for _ in 0..1_000 {
        concealer.fill(&mut out);
        assert_eq!(out, [0; 80]);
    }
}

#[test]
fn the_pieces_of_a_loss_do_not_matter() {
    let rate = SampleRate::Hz16000;
    let said = speech(rate, 300);
    let (mut whole, mut pieces) = ([0; 960], [0; 960]);
    heard(rate, &said).fill(&mut whole);
    let mut concealer = heard(rate, &said);
    for piece in pieces.chunks_mut(37) {
        concealer.fill(piece);
    }
    assert_eq!(whole, pieces);
}

#[test]
fn silence_is_followed_by_silence() {
    for rate in SampleRate::ALL {
        let mut concealer = Concealer::new(rate);
        let mut out = vec![7; rate.samples(100)];
        concealer.fill(&mut out);
        assert!(out.iter().all(|&sample| sample == 0));
    }
}

#[test]
fn audio_after_a_loss_is_untouched_beyond_ten_milliseconds() {
    let rate = SampleRate::Hz8000;
    let mut concealer = heard(rate, &speech(rate, 300));
    concealer.fill(&mut [0; 480]);
    let said = speech(rate, 20);
    let mut out = said.clone();
    concealer.handle_audio(&mut out);
    assert_eq!(out[80..], said[80..]);
    assert_ne!(out[..80], said[..80]);
}

#[test]
fn full_scale_audio_does_not_overflow() {
    for rate in SampleRate::ALL {
        let square: Vec<i16> = (0..rate.samples(200))
            .map(|n| if n % 100 < 50 { i16::MAX } else { i16::MIN })
            .collect();
        let mut concealer = heard(rate, &square);
        let mut out = vec![0; rate.samples(60)];
        concealer.fill(&mut out);
        assert!(level_db(&out[..rate.samples(10)]) > level_db(&square) - 3.0);
    }
}
