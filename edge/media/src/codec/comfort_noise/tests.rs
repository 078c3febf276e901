use proptest::prelude::*;

use super::*;
use crate::codec::g711::Law;

fn noise(rate: SampleRate, payload: &[u8], len: usize) -> Vec<i16> {
    let mut generator = NoiseGenerator::new(rate);
    generator.handle_payload(payload);
    let mut pcm = vec![0; len + rate.samples(200)];
    generator.fill(&mut pcm);
    // The level has settled by now.
    pcm.split_off(rate.samples(200))
}

/// Mean square in dB below overload.
fn level(pcm: &[i16]) -> f32 {
    let square: f32 = pcm.iter().map(|&s| f32::from(s).powi(2)).sum();
    -10.0 * (square / pcm.len() as f32 / (OVERLOAD * OVERLOAD)).log10()
}

/// Correlation of neighbours, -1 to 1.
fn neighbours(pcm: &[i16]) -> f32 {
    let sum = |lag: usize| -> f32 {
        let pairs = pcm.iter().zip(&pcm[lag..]);
        pairs.map(|(&a, &b)| f32::from(a) * f32::from(b)).sum()
    };
    sum(1) / sum(0)
}

#[test]
fn noise_has_the_level_that_the_sender_states_at_every_rate_and_colour() {
    for rate in SampleRate::ALL {
        for stated in [20u8, 40, 60] {
            for payload in [&[stated][..], &[stated, 30, 200, 100], &[stated, 150]] {
                let measured = level(&noise(rate, payload, rate.samples(2_000)));
                // White noise loses what lies above 3.8 kHz on the way to a higher rate.
                assert!(
                    (measured - f32::from(stated)).abs() < 1.2,
                    "{rate:?} {payload:?}: {measured}"
                );
            }
        }
    }
}

#[test]
fn silence_before_a_level_is_known_and_below_what_samples_can_tell() {
    let mut generator = NoiseGenerator::new(SampleRate::Hz8000);
    let mut out = [1; 80];
    generator.handle_payload(&[]);
    generator.fill(&mut out);
    assert_eq!(out, [0; 80]);
    generator.handle_payload(&[127]);
    generator.fill(&mut out);
    assert_eq!(out, [0; 80]);
}

#[test]
fn coefficients_colour_the_noise_as_rfc_3389_quantizes_them() {
    // N = 127 - 64: k = -0.504, a low-pass whose neighbours correlate by as much.
    let rows = [(127, 0.0), (63, 0.504), (191, -0.504), (20, 0.842)];
    for (index, expected) in rows {
        let pcm = noise(SampleRate::Hz8000, &[40, index], 40_000);
        let measured = neighbours(&pcm);
        assert!((measured - expected).abs() < 0.03, "{index}: {measured}");
    }
}

#[test]
fn what_is_described_sounds_like_what_was_heard() {
    for payload in [
        &[35][..],
        &[50, 40],
        &[45, 220, 60],
        &[30, 60, 180, 100, 140, 127, 120],
    ] {
        let heard = noise(SampleRate::Hz8000, payload, 16_000);
        let mut described = [0; PAYLOAD_LEN_MAX];
        assert_eq!(describe(&heard, &mut described), PAYLOAD_LEN_MAX);
        assert!(described[0].abs_diff(payload[0]) <= 1, "{described:?}");
        for (n, &index) in described[1..].iter().enumerate() {
            let stated = payload.get(n + 1).copied().unwrap_or(127);
            assert!(index.abs_diff(stated) <= 6, "{payload:?}: {described:?}");
        }
    }
}

#[test]
fn silence_of_a_law_is_silence_though_it_is_not_zero() {
    let silent = [Law::A.decode(0xd5); 160];
    assert_ne!(silent[0], 0);
    let mut payload = [0; PAYLOAD_LEN_MAX];
    assert_eq!(describe(&silent, &mut payload), 1);
    assert_eq!(payload[0], LEVEL_SILENT);
    assert_eq!(describe(&[], &mut payload), 1);
}

#[test]
fn a_tone_in_the_noise_makes_a_filter_that_is_stable() {
    let tone: Vec<i16> = (0..160)
        .map(|n| (9_000.0 * (n as f32 * 0.7).sin()) as i16)
        .collect();
    let mut payload = [0; PAYLOAD_LEN_MAX];
    let len = describe(&tone, &mut payload);
    let pcm = noise(SampleRate::Hz8000, &payload[..len], 80_000);
    let measured = level(&pcm);
    assert!((measured - f32::from(payload[0])).abs() < 4.0, "{measured}");
}

proptest! {
    #[test]
    fn any_payload_makes_noise_that_stays_in_bounds(
        payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 1..6),
        lens in proptest::collection::vec(0usize..700, 1..20),
    ) {
        for rate in SampleRate::ALL {
            let mut generator = NoiseGenerator::new(rate);
            for (n, len) in lens.iter().enumerate() {
                generator.handle_payload(&payloads[n % payloads.len()]);
                let mut out = vec![0; *len];
                generator.fill(&mut out);
                prop_assert!(generator.backward.iter().all(|value| value.is_finite()));
            }
        }
    }
}
