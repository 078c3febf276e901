use trunkline_edge_api::{Tone, ToneSegment};

use super::level::{dbm0_of_mean_square, mean_square_of_dbm0};
use super::preset::{CallTone, TonePlan, preset};
use super::*;

fn tone(text: &str) -> Tone {
    text.parse().unwrap()
}

fn samples(tone: &Tone, rate: SampleRate, frame_len: usize) -> Vec<i16> {
    let mut generator = ToneGenerator::new(tone, rate);
    let mut all = Vec::new();
    loop {
        let mut frame = vec![0x55; frame_len];
        let written = generator.fill(&mut frame);
        all.extend_from_slice(&frame[..written]);
        if written < frame_len {
            assert_eq!(generator.fill(&mut frame), 0);
            return all;
        }
    }
}

fn level_dbm0(samples: &[i16]) -> f32 {
    let square: f64 = samples.iter().map(|&s| f64::from(s).powi(2)).sum();
    dbm0_of_mean_square((square / samples.len() as f64) as f32)
}

/// Share of the power that one frequency holds.
fn share(samples: &[i16], hz: f64, rate: SampleRate) -> f64 {
    let step = std::f64::consts::TAU * hz / f64::from(rate.hz());
    let (mut re, mut im, mut energy) = (0.0, 0.0, 0.0);
    for (index, &sample) in samples.iter().enumerate() {
        let sample = f64::from(sample);
        re += sample * (step * index as f64).cos();
        im += sample * (step * index as f64).sin();
        energy += sample * sample;
    }
    2.0 * (re * re + im * im) / (energy * samples.len() as f64)
}

#[test]
fn a_pass_lasts_as_long_as_its_cadence_says_in_frames_of_any_length() {
    for rate in SampleRate::ALL {
        let tone = tone("%(120,80,425)%(60,0,350,440)");
        let whole = samples(&tone, rate, 100_000);
        assert_eq!(whole.len(), rate.samples(260));
        for frame_len in [1, 7, rate.samples(10), rate.samples(20), rate.samples(60)] {
            assert_eq!(samples(&tone, rate, frame_len), whole, "{frame_len}");
        }
    }
}

#[test]
fn silence_is_exactly_zero_and_tone_is_not() {
    let rate = SampleRate::Hz8000;
    let all = samples(&tone("%(100,50,425)"), rate, 160);
    assert!(all[rate.samples(100)..].iter().all(|&sample| sample == 0));
    assert!(
        all[10..rate.samples(100) - 10]
            .windows(20)
            .all(|w| w.iter().any(|&s| s != 0))
    );
}

#[test]
fn one_frequency_and_two_have_the_level_that_was_asked_for() {
    for rate in SampleRate::ALL {
        for level in [-30i8, -10, -3, 0] {
            for frequencies_hz in [[1_004, 0], [440, 480], [697, 1_633], [0, 3_999]] {
                let segment = ToneSegment {
                    on_millis: 1_000,
                    off_millis: 0,
                    frequencies_hz,
                };
                let tone = Tone::new(&[segment], level).unwrap();
                let all = samples(&tone, rate, rate.samples(20));
                let measured = level_dbm0(&all[rate.samples(10)..rate.samples(990)]);
                // At half the sampling rate less one hertz, a second is one half of a beat.
                assert!(
                    (measured - f32::from(level)).abs() < 0.2,
                    "{frequencies_hz:?} at {level} has {measured}"
                );
                assert!(all.iter().all(|&sample| sample.abs() < i16::MAX));
            }
        }
    }
}

#[test]
fn frequencies_are_exact_and_stay_so_for_a_minute() {
    let rate = SampleRate::Hz8000;
    let all = samples(&tone("%(60000,0,425)"), rate, 160);
    let last_second = &all[rate.samples(58_900)..rate.samples(59_900)];
    assert!(share(last_second, 425.0, rate) > 0.999_9);
    assert!(share(last_second, 426.0, rate) < 0.001);
    assert!((level_dbm0(last_second) + 10.0).abs() < 0.01);
}

#[test]
fn both_frequencies_hold_half_of_the_power() {
    for rate in SampleRate::ALL {
        let all = samples(&tone("%(1000,0,440,480)"), rate, 333);
        let inner = &all[rate.samples(50)..rate.samples(950)];
        for hz in [440.0, 480.0] {
            assert!((share(inner, hz, rate) - 0.5).abs() < 0.01);
        }
    }
}

#[test]
fn no_two_samples_in_a_row_are_a_click() {
    let rate = SampleRate::Hz8000;
    let all = samples(&tone("%(37,13,425)%(41,0,950)%(41,9,1400)"), rate, 80);
    // The steepest slope of a sine of 1,400 Hz at -10 dBm0, and what a ramp of 16 samples adds.
    let peak = level::peak_of_sine(-10.0);
    let slope_max = peak * (std::f64::consts::TAU * 1_400.0 / 8_000.0) + peak / 16.0;
    for pair in all.windows(2) {
        let slope = f64::from(pair[1]) - f64::from(pair[0]);
        assert!(slope.abs() <= slope_max, "{pair:?}");
    }
    assert!(i32::from(all[0]).abs() < 200);
}

#[test]
fn a_tone_that_is_restarted_sounds_the_same_again() {
    let tone = tone("%(50,30,425)");
    let mut generator = ToneGenerator::new(&tone, SampleRate::Hz8000);
    let mut first = [0; 640];
    let mut second = [0; 640];
    assert_eq!(generator.fill(&mut first), 640);
    assert_eq!(generator.fill(&mut second), 0);
    generator.restart();
    assert_eq!(generator.fill(&mut second), 640);
    assert_eq!(first, second);
}

#[test]
fn every_preset_sounds_with_its_frequencies_and_nothing_else() {
    for plan in TonePlan::ALL {
        for call_tone in CallTone::ALL {
            let tone = preset(plan, call_tone);
            let rate = SampleRate::Hz8000;
            let all = samples(&tone, rate, 160);
            let mut at = 0;
            for segment in tone.segments() {
                let on = rate.samples(u32::from(segment.on_millis));
                let inner = &all[at + 32..at + on - 32];
                let found: f64 = segment
                    .frequencies_hz
                    .iter()
                    .filter(|&&hz| hz != 0)
                    .map(|&hz| share(inner, f64::from(hz), rate))
                    .sum();
                assert!(found > 0.95, "{plan:?} {call_tone:?}: {found}");
                at += on + rate.samples(u32::from(segment.off_millis));
            }
            assert_eq!(at, all.len());
        }
    }
}

#[test]
fn levels_and_mean_squares_are_each_others_inverse() {
    for dbm0 in [-60.0f32, -33.3, -10.0, 0.0, 3.0] {
        let back = dbm0_of_mean_square(mean_square_of_dbm0(dbm0));
        assert!((back - dbm0).abs() < 0.01);
    }
    assert_eq!(dbm0_of_mean_square(0.0), level::SILENCE_DBM0);
}
