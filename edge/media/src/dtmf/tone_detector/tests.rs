use std::f64::consts::TAU;

use trunkline_edge_api::Digit;

use super::*;
use crate::dtmf::test_line::{Line, Press, all_digits};

impl Line {
    /// What is told, and after how many milliseconds, in frames of 20 ms.
    fn told(&self) -> Vec<(u32, DigitEvent)> {
        let mut detector = ToneDetector::new(self.rate);
        let mut told = Vec::new();
        let pcm = self.pcm();
        for (index, frame) in pcm.chunks(self.rate.samples(20)).enumerate() {
            detector.handle_audio(frame);
            while let Some(event) = detector.poll_event() {
                told.push((20 * (index as u32 + 1), event));
            }
        }
        told
    }

    fn digits(&self) -> String {
        self.told()
            .iter()
            .filter_map(|(_, event)| match event {
                DigitEvent::Began(_) => None,
                DigitEvent::Ended(heard) => Some(heard.digit.as_char()),
            })
            .collect()
    }
}

/// Presses each of the sixteen keys with pauses, every time at another place within a hop, and
/// says which were heard.
fn heard(
    rate: SampleRate,
    on: f64,
    off: f64,
    noise_dbm0: Option<f64>,
    press: impl Fn(Digit) -> Press,
) -> String {
    let mut line = Line::new(rate);
    for digit in all_digits() {
        line.silence(off + 0.7 * f64::from(digit.event()));
        line.press(on, &press(digit));
    }
    line.silence(100.0);
    if let Some(dbm0) = noise_dbm0 {
        line.noise(dbm0);
    }
    line.digits()
}

const ALL: &str = "0123456789*#ABCD";

#[test]
fn every_digit_is_heard_at_every_rate() {
    for rate in SampleRate::ALL {
        assert_eq!(heard(rate, 50.0, 50.0, None, Press::new), ALL, "{rate:?}");
    }
}

#[test]
fn levels_from_0_to_minus_25_dbm0_are_heard_with_any_twist_of_q24() {
    for rate in SampleRate::ALL {
        for (low, high) in [
            (-3.0, -3.0),
            (0.0, 0.0),
            (-10.0, -10.0),
            (-25.0, -25.0),
            (-14.0, -10.0),
            (-25.0, -21.0),
            (-2.0, -10.0),
            (-17.0, -25.0),
            (-25.0, -33.0),
        ] {
            let press = |digit| Press {
                low_dbm0: low,
                high_dbm0: high,
                ..Press::new(digit)
            };
            let found = heard(rate, 40.0, 40.0, None, press);
            assert_eq!(found, ALL, "{low} and {high} dBm0 at {rate:?}");
        }
    }
}

#[test]
fn frequencies_off_by_1_5_percent_are_heard_with_twist_and_noise() {
    for rate in SampleRate::ALL {
        for low_off in [-0.015, -0.007, 0.0, 0.007, 0.015] {
            for high_off in [-0.015, -0.007, 0.0, 0.007, 0.015] {
                for (low_dbm0, high_dbm0) in [(-10.0, -10.0), (-14.0, -10.0), (-10.0, -18.0)] {
                    let press = |digit| Press {
                        low_dbm0,
                        high_dbm0,
                        low_off,
                        high_off,
                        digit,
                    };
                    for noise in [None, Some(-30.0)] {
                        let found = heard(rate, 40.0, 40.0, noise, press);
                        assert_eq!(
                            found,
                            ALL,
                            "{:?} {noise:?}",
                            press(Digit::from_event(0).unwrap())
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn frequencies_off_by_3_5_percent_are_not_heard() {
    for (low_off, high_off) in [
        (0.035, 0.0),
        (-0.035, 0.0),
        (0.0, 0.035),
        (0.0, -0.035),
        (0.035, 0.035),
        (0.04, -0.045),
        (0.0, 0.06),
        (0.05, 0.0),
        (0.0, -0.05),
    ] {
        for dbm0 in [-3.0, -10.0, -25.0] {
            for noise in [None, Some(dbm0 - 20.0)] {
                let press = |digit| Press {
                    low_off,
                    high_off,
                    low_dbm0: dbm0,
                    high_dbm0: dbm0,
                    digit,
                };
                let found = heard(SampleRate::Hz8000, 500.0, 100.0, noise, press);
                assert_eq!(found, "", "{low_off} {high_off} {dbm0} {noise:?}");
            }
        }
    }
}

#[test]
fn tones_of_40_ms_are_heard_and_tones_of_23_ms_are_not() {
    for rate in SampleRate::ALL {
        for tenths in 0..50 {
            let offset = f64::from(tenths) / 10.0;
            let mut line = Line::new(rate);
            line.silence(100.0 + offset);
            for digit in all_digits() {
                line.press(23.0, &Press::new(digit)).silence(60.0);
            }
            assert_eq!(line.digits(), "", "{offset} ms into a hop");
            let mut line = Line::new(rate);
            line.silence(100.0 + offset);
            for digit in all_digits() {
                line.press(40.0, &Press::new(digit)).silence(40.0);
            }
            line.silence(100.0);
            assert_eq!(line.digits(), ALL, "{offset} ms into a hop");
        }
    }
}

#[test]
fn pauses_of_40_ms_separate_and_interruptions_of_10_ms_do_not() {
    for tenths in 0..50 {
        let offset = f64::from(tenths) / 10.0;
        for (pause, expected) in [(40.0, "555"), (10.0, "5"), (5.0, "5")] {
            let press = Press::new(Digit::from_event(5).unwrap());
            let mut line = Line::new(SampleRate::Hz8000);
            line.silence(50.0 + offset)
                .press(60.0, &press)
                .silence(pause)
                .press(60.0, &press)
                .silence(pause)
                .press(60.0, &press)
                .silence(100.0);
            assert_eq!(
                line.digits(),
                expected,
                "{pause} ms, {offset} ms into a hop"
            );
        }
    }
}

#[test]
fn a_digit_right_behind_another_is_another() {
    let mut line = Line::new(SampleRate::Hz8000);
    for digit in all_digits() {
        line.press(60.0, &Press::new(digit));
    }
    line.silence(100.0);
    assert_eq!(line.digits(), ALL);
}

#[test]
fn noise_12_db_below_is_no_hindrance() {
    for rate in SampleRate::ALL {
        for dbm0 in [-10.0, -20.0] {
            for round in 0..20 {
                let press = |digit| Press {
                    low_dbm0: dbm0,
                    high_dbm0: dbm0,
                    ..Press::new(digit)
                };
                let off = 60.0 + 0.3 * f64::from(round);
                // Both tones together are 3 dB above one.
                let found = heard(rate, 50.0, off, Some(dbm0 + 3.0 - 12.0), press);
                assert_eq!(found, ALL, "{dbm0} {round} {rate:?}");
            }
        }
    }
}

#[test]
fn an_end_is_told_within_50_ms_and_a_duration_is_right_within_10_ms() {
    for tenths in 0..200 {
        for (on, dbm0) in [
            (40.0, -10.0),
            (73.0, -25.0),
            (500.0, -3.0),
            (1_000.0, -10.0),
        ] {
            let start = 100.0 + f64::from(tenths) / 10.0;
            let press = Press {
                low_dbm0: dbm0,
                high_dbm0: dbm0,
                ..Press::new(Digit::from_event(8).unwrap())
            };
            let mut line = Line::new(SampleRate::Hz8000);
            line.silence(start).press(on, &press).silence(200.0);
            let told = line.told();
            let [
                (began_at, DigitEvent::Began(_)),
                (ended_at, DigitEvent::Ended(ended)),
            ] = told[..]
            else {
                panic!("{told:?}");
            };
            assert!(
                f64::from(ended_at) - (start + on) <= 50.0,
                "{ended_at} after {start}+{on}"
            );
            assert!(
                f64::from(began_at) - start <= 65.0,
                "{began_at} after {start}"
            );
            assert!((f64::from(ended.duration_millis) - on).abs() <= 10.0);
            assert!((f64::from(ended.level_dbm0) - (dbm0 + 3.0)).abs() <= 1.0);
        }
    }
}

#[test]
fn single_tones_progress_tones_and_unequal_pairs_are_no_digits() {
    let mut line = Line::new(SampleRate::Hz8000);
    let pairs: [&[(f64, f64)]; 14] = [
        &[(697.0, -10.0)],
        &[(1_209.0, -10.0)],
        &[(350.0, -10.0), (440.0, -10.0)],
        &[(440.0, -10.0), (480.0, -10.0)],
        &[(480.0, -10.0), (620.0, -10.0)],
        &[(425.0, -10.0)],
        &[(950.0, -10.0)],
        &[(1_400.0, -10.0)],
        &[(697.0, -10.0), (770.0, -10.0)],
        &[(1_209.0, -10.0), (1_336.0, -10.0)],
        &[(697.0, -10.0), (1_209.0, -23.0)],
        &[(697.0, -20.0), (1_209.0, -10.0)],
        &[(697.0, -45.0), (1_209.0, -45.0)],
        // With as strong a second harmonic.
        &[
            (697.0, -10.0),
            (1_209.0, -10.0),
            (1_394.0, -12.0),
            (2_418.0, -12.0),
        ],
    ];
    for tones in pairs {
        line.tones(300.0, tones).silence(100.0);
    }
    assert_eq!(line.told(), []);
}

#[test]
fn a_hang_up_ends_the_digit_that_sounds() {
    let mut line = Line::new(SampleRate::Hz8000);
    line.press(100.0, &Press::new(Digit::from_event(1).unwrap()));
    let mut detector = ToneDetector::new(SampleRate::Hz8000);
    line.pcm()
        .chunks(160)
        .for_each(|frame| detector.handle_audio(frame));
    assert!(matches!(detector.poll_event(), Some(DigitEvent::Began(_))));
    assert_eq!(detector.poll_event(), None);
    detector.finish();
    assert!(matches!(detector.poll_event(), Some(DigitEvent::Ended(_))));
    detector.finish();
    assert_eq!(detector.poll_event(), None);
}

#[test]
fn hours_of_audio_leave_the_filters_as_they_were() {
    let mut detector = ToneDetector::new(SampleRate::Hz8000);
    let frame = [123i16; 480];
    for _ in 0..3_600 * 100 / 6 {
        detector.handle_audio(&frame);
    }
    let mut line = Line::new(SampleRate::Hz8000);
    line.silence(50.0)
        .press(60.0, &Press::new(Digit::from_event(15).unwrap()))
        .silence(60.0);
    line.pcm()
        .chunks(160)
        .for_each(|frame| detector.handle_audio(frame));
    assert!(matches!(detector.poll_event(), Some(DigitEvent::Began(_))));
}

/// Vowels: the harmonics of a gliding pitch, which is never quite steady, under three gliding
/// formants, with pauses.
fn voice(secs: u32, pitch_hz: f64, line: &mut Line) {
    let rate = f64::from(line.rate.hz());
    let (mut phase, mut jitter) = (0.0, 0.0);
    for index in 0..(f64::from(secs) * rate) as usize {
        let at = index as f64 / rate;
        jitter = 0.99 * jitter + 0.002 * (line.uniform() - 0.5);
        let glide = 0.12 * (TAU * 0.7 * at).sin() + 0.01 * (TAU * 5.5 * at).sin();
        let pitch = pitch_hz * (1.0 + glide + jitter);
        let formants = [
            550.0 + 300.0 * (TAU * 0.9 * at).sin(),
            1_500.0 + 700.0 * (TAU * 0.37 * at).sin(),
            2_700.0 + 300.0 * (TAU * 0.23 * at).sin(),
        ];
        phase += TAU * pitch / rate;
        let sample: f64 = (1..=16)
            .map(|harmonic| {
                let hz = pitch * f64::from(harmonic);
                let gain: f64 = formants
                    .iter()
                    .map(|formant| 1.0 / (1.0 + ((hz - formant) / 100.0).powi(2)))
                    .sum();
                gain * (phase * f64::from(harmonic)).sin()
            })
            .sum();
        let syllable = (TAU * 1.9 * at).sin().max(0.0).sqrt();
        line.samples.push(6_000.0 * syllable * sample);
    }
}

#[test]
fn voices_of_every_pitch_are_no_digits() {
    for pitch_hz in (80..420).step_by(20) {
        let mut line = Line::new(SampleRate::Hz8000);
        voice(4, f64::from(pitch_hz), &mut line);
        assert_eq!(line.told(), [], "pitch {pitch_hz} Hz");
    }
}

#[test]
fn chords_and_scales_are_no_digits() {
    // Equal temperament from A3; every pair of notes within two octaves, with an overtone each.
    let note = |index: i32| 220.0 * 2f64.powf(f64::from(index) / 12.0);
    let mut line = Line::new(SampleRate::Hz8000);
    for low in 12..30 {
        for high in low + 3..low + 16 {
            let tones = [
                (note(low), -12.0),
                (note(high), -12.0),
                (2.0 * note(low), -17.0),
                (2.0 * note(high), -17.0),
            ];
            line.tones(125.0, &tones).silence(30.0);
        }
    }
    assert_eq!(line.told(), []);
}
