use super::*;
use crate::dtmf::test_line::{Line, Press, all_digits};
use crate::tone::ToneGenerator;
use crate::tone::preset::{CallTone, TonePlan, preset};

/// Beeps that are told, in frames of 20 ms.
fn beeps(line: &Line) -> Vec<Beep> {
    beeps_in(&line.pcm(), line.rate)
}

fn beeps_in(pcm: &[i16], rate: SampleRate) -> Vec<Beep> {
    let mut detector = BeepDetector::new(rate);
    let mut told = Vec::new();
    for frame in pcm.chunks(rate.samples(20)) {
        detector.handle_audio(frame);
        told.extend(std::iter::from_fn(|| detector.poll_event()));
    }
    told
}

/// Sound that is no tone.
fn greeting(line: &mut Line) {
    let mut words = Line::new(line.rate);
    words.silence(1_500.0).noise(-20.0);
    line.samples.extend(words.samples);
}

#[test]
fn beeps_of_every_kind_are_told_with_frequency_length_and_level() {
    for rate in SampleRate::ALL {
        for hz in [440.0, 800.0, 1_000.0, 1_004.5, 1_400.0, 2_000.0, 2_090.0] {
            for millis in [130.0, 200.0, 333.0, 1_000.0, 1_950.0] {
                for dbm0 in [-6.0, -30.0] {
                    let mut line = Line::new(rate);
                    greeting(&mut line);
                    line.silence(303.0)
                        .tones(millis, &[(hz, dbm0)])
                        .silence(500.0);
                    let told = beeps(&line);
                    let [beep] = told[..] else {
                        panic!("{hz} Hz, {millis} ms, {dbm0} dBm0 at {rate:?}: {told:?}");
                    };
                    assert!((f64::from(beep.frequency_hz) - hz).abs() <= 3.0, "{beep:?}");
                    assert!((f64::from(beep.duration_millis) - millis).abs() <= 20.0);
                    assert!((f64::from(beep.level_dbm0) - dbm0).abs() <= 1.0);
                }
            }
        }
    }
}

#[test]
fn noise_15_db_below_does_not_hide_a_beep() {
    for hz in [440.0, 620.0, 1_000.0, 1_700.0] {
        let mut line = Line::new(SampleRate::Hz8000);
        greeting(&mut line);
        line.silence(300.0)
            .tones(400.0, &[(hz, -15.0)])
            .silence(400.0);
        line.noise(-30.0);
        let told = beeps(&line);
        assert_eq!(told.len(), 1, "{hz}: {told:?}");
        assert!(
            (f64::from(told[0].frequency_hz) - hz).abs() <= 8.0,
            "{told:?}"
        );
    }
}

#[test]
fn tones_too_short_too_long_too_soft_too_low_or_too_high_are_no_beeps() {
    for (hz, millis, dbm0) in [
        (1_000.0, 90.0, -10.0),
        (1_000.0, 2_100.0, -10.0),
        (1_000.0, 300.0, -45.0),
        (330.0, 300.0, -10.0),
        (2_250.0, 300.0, -10.0),
    ] {
        let mut line = Line::new(SampleRate::Hz8000);
        greeting(&mut line);
        line.silence(300.0)
            .tones(millis, &[(hz, dbm0)])
            .silence(400.0);
        assert_eq!(beeps(&line), [], "{hz} Hz, {millis} ms, {dbm0} dBm0");
    }
}

#[test]
fn call_progress_tones_are_no_beeps() {
    for rate in [SampleRate::Hz8000, SampleRate::Hz16000] {
        for plan in TonePlan::ALL {
            for call_tone in CallTone::ALL {
                let tone = preset(plan, call_tone);
                let mut pcm = Vec::new();
                for _ in 0..3 {
                    let mut generator = ToneGenerator::new(&tone, rate);
                    let mut frame = vec![0; rate.samples(20)];
                    loop {
                        let written = generator.fill(&mut frame);
                        pcm.extend_from_slice(&frame[..written]);
                        if written < frame.len() {
                            break;
                        }
                    }
                }
                pcm.extend(vec![0; rate.samples(500)]);
                assert_eq!(beeps_in(&pcm, rate), [], "{plan:?} {call_tone:?}");
            }
        }
    }
}

#[test]
fn a_beep_at_a_progress_tones_frequency_counts_after_words_alone() {
    let mut line = Line::new(SampleRate::Hz8000);
    line.tones(1_000.0, &[(425.0, -10.0)]).silence(4_000.0);
    line.tones(1_000.0, &[(425.0, -10.0)]).silence(1_000.0);
    assert_eq!(beeps(&line), []);
    greeting(&mut line);
    line.silence(200.0)
        .tones(500.0, &[(425.0, -10.0)])
        .silence(500.0);
    assert_eq!(beeps(&line).len(), 1);
}

#[test]
fn two_tones_too_near_to_tell_apart_are_no_beep() {
    for apart in [15.0, 25.0, 40.0, 60.0] {
        let mut line = Line::new(SampleRate::Hz8000);
        greeting(&mut line);
        line.silence(300.0)
            .tones(900.0, &[(1_000.0, -10.0), (1_000.0 + apart, -10.0)])
            .silence(400.0);
        assert_eq!(beeps(&line), [], "{apart} Hz apart");
    }
}

#[test]
fn digits_are_no_beeps() {
    let mut line = Line::new(SampleRate::Hz8000);
    for digit in all_digits() {
        line.press(200.0, &Press::new(digit)).silence(300.0);
    }
    assert_eq!(beeps(&line), []);
}

#[test]
fn a_melody_is_no_beep() {
    let mut line = Line::new(SampleRate::Hz8000);
    greeting(&mut line);
    for hz in [523.0, 587.0, 659.0, 698.0, 784.0] {
        line.tones(250.0, &[(hz, -10.0)]).silence(30.0);
    }
    line.silence(500.0);
    assert_eq!(beeps(&line), []);
}

#[test]
fn gliding_and_swelling_tones_are_no_beeps() {
    let mut line = Line::new(SampleRate::Hz8000);
    let mut phase = 0.0;
    for index in 0..8_000 {
        let hz = 600.0 + f64::from(index) / 10.0;
        phase += std::f64::consts::TAU * hz / 8_000.0;
        line.samples.push(8_000.0 * phase.sin());
    }
    line.silence(500.0);
    for index in 0..8_000 {
        let swell = 1.0 + 0.8 * (std::f64::consts::TAU * 7.0 * f64::from(index) / 8_000.0).sin();
        let phase = std::f64::consts::TAU * 1_000.0 * f64::from(index) / 8_000.0;
        line.samples.push(8_000.0 * swell * phase.sin());
    }
    line.silence(500.0);
    assert_eq!(beeps(&line), []);
}

#[test]
fn silence_full_scale_and_a_constant_are_no_beeps() {
    for sample in [0, i16::MAX, i16::MIN] {
        assert_eq!(beeps_in(&[sample; 40_000], SampleRate::Hz8000), []);
    }
}

#[test]
fn fax_machine_that_calls_does_not_beep() {
    for (hz, millis) in [(1_100.0, 500.0), (1_070.0, 440.0), (1_130.0, 560.0)] {
        let mut line = Line::new(SampleRate::Hz8000);
        greeting(&mut line);
        for _ in 0..3 {
            line.silence(3_000.0).tones(millis, &[(hz, -15.0)]);
        }
        line.silence(500.0);
        assert_eq!(beeps(&line), [], "{hz} Hz, {millis} ms");
    }
    // A machine may beep at that frequency for another time.
    let mut line = Line::new(SampleRate::Hz8000);
    greeting(&mut line);
    line.silence(300.0)
        .tones(250.0, &[(1_100.0, -15.0)])
        .silence(500.0);
    assert_eq!(beeps(&line).len(), 1);
}
