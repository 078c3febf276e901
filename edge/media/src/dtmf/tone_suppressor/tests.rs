use super::*;
use crate::dtmf::test_line::{Line, Press, all_digits};

fn suppressed(line: &Line) -> (Vec<i16>, usize) {
    let mut suppressor = ToneSuppressor::new(line.rate);
    let mut pcm = line.pcm();
    let mut digits = 0;
    for frame in pcm.chunks_mut(line.rate.samples(20)) {
        suppressor.handle_audio(frame);
        while let Some(event) = suppressor.poll_event() {
            digits += usize::from(matches!(event, DigitEvent::Ended(_)));
        }
    }
    (pcm, digits)
}

/// All digits with pauses, beginning so far into a hop.
fn digits(rate: SampleRate, offset: f64, off: f64, twist: f64) -> Line {
    let mut line = Line::new(rate);
    line.silence(100.0 + offset);
    for digit in all_digits() {
        let press = Press {
            low_off: off,
            high_off: -off,
            high_dbm0: -10.0 + twist,
            ..Press::new(digit)
        };
        line.press(50.0 + offset, &press).silence(60.0);
    }
    line.silence(100.0);
    line
}

#[test]
fn not_a_sample_of_a_digit_without_noise_gets_through() {
    for rate in SampleRate::ALL {
        for tenths in (0..50).step_by(3) {
            for (off, twist) in [(0.0, 0.0), (0.015, 0.0), (0.0, 4.0), (-0.015, -8.0)] {
                let line = digits(rate, f64::from(tenths) / 10.0, off, twist);
                let (heard, count) = suppressed(&line);
                assert_eq!(count, 16);
                // The filter of other rates rings for a moment before and after.
                let leaked = heard.iter().filter(|sample| sample.abs() > 50).count();
                assert_eq!(leaked, 0, "{rate:?} {tenths} {off} {twist}");
            }
        }
    }
}

#[test]
fn noise_lets_less_through_than_any_receiver_recognises() {
    for rate in SampleRate::ALL {
        for tenths in (0..50).step_by(3) {
            let mut line = digits(rate, f64::from(tenths) / 10.0, 0.0, 0.0);
            line.noise(-19.0);
            let (heard, count) = suppressed(&line);
            assert_eq!(count, 16);
            // Noise of -19 dBm0 hardly ever exceeds four times its effective value.
            let leaked = heard.iter().filter(|sample| sample.abs() > 7_200).count();
            let leak_max = rate.samples(2 * LEAK_MAX_MILLIS) * 16 / 4;
            assert!(leaked <= leak_max, "{leaked} samples at {rate:?}");
            let mut receiver = ToneDetector::new(rate);
            for frame in heard.chunks(rate.samples(20)) {
                receiver.handle_audio(frame);
                assert_eq!(receiver.poll_event(), None);
            }
        }
    }
}

#[test]
fn other_audio_comes_through_late_and_whole() {
    let mut line = Line::new(SampleRate::Hz8000);
    line.silence(500.0).noise(-20.0);
    let pcm = line.pcm();
    let (heard, _) = suppressed(&line);
    let delay = SampleRate::Hz8000.samples(DELAY_MILLIS);
    assert_eq!(heard[..delay], vec![0; delay]);
    assert_eq!(heard[delay..], pcm[..pcm.len() - delay]);
}
