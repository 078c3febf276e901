use trunkline_edge_api::{Tone, ToneSegment};

use super::*;
use crate::tone::ToneGenerator;

/// Gain of a tone through the decimator, dB.
fn gain_db(hz: f64, rate: SampleRate) -> f64 {
    let mut narrowband = Narrowband::new(rate);
    let step = std::f64::consts::TAU * hz / f64::from(rate.hz());
    let mut energy = 0.0;
    let mut count = 0;
    for second in 0..10 {
        let pcm: Vec<i16> = (0..rate.samples(100))
            .map(|index| {
                let index = (second * rate.samples(100) + index) as f64;
                (10_000.0 * (step * index).sin()) as i16
            })
            .collect();
        narrowband.feed(&pcm, |sample| {
            energy += f64::from(sample).powi(2);
            count += 1;
        });
    }
    assert_eq!(count, 8_000);
    10.0 * (energy / f64::from(count) / (10_000.0f64.powi(2) / 2.0)).log10()
}

#[test]
fn what_detectors_look_for_passes_and_what_would_fold_onto_it_does_not() {
    for rate in [SampleRate::Hz16000, SampleRate::Hz48000] {
        for hz in (100..=2_200).step_by(100) {
            let gain = gain_db(f64::from(hz), rate);
            assert!(gain.abs() < 0.5, "{hz} Hz at {rate:?}: {gain} dB");
        }
        for hz in (5_800..rate.hz() / 2).step_by(100) {
            let gain = gain_db(f64::from(hz), rate);
            assert!(gain < -45.0, "{hz} Hz at {rate:?}: {gain} dB");
        }
    }
}

#[test]
fn every_length_of_frames_gives_the_same_samples() {
    let segment = ToneSegment {
        on_millis: 50,
        off_millis: 0,
        frequencies_hz: [697, 1_209],
    };
    let tone = Tone::new(&[segment], -10).unwrap();
    for rate in SampleRate::ALL {
        let mut pcm = vec![0; rate.samples(50)];
        ToneGenerator::new(&tone, rate).fill(&mut pcm);
        let decimated = |frame_len: usize| {
            let mut narrowband = Narrowband::new(rate);
            let mut out = Vec::new();
            for frame in pcm.chunks(frame_len) {
                narrowband.feed(frame, |sample| out.push(sample));
            }
            out
        };
        let whole = decimated(pcm.len());
        assert_eq!(whole.len(), 400);
        for frame_len in [1, 5, 7, 160, 960] {
            assert_eq!(decimated(frame_len), whole);
        }
    }
}
