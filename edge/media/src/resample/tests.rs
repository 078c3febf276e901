use std::f64::consts::PI;

use super::*;

const RATES: [(SampleRate, SampleRate); 6] = [
    (SampleRate::Hz8000, SampleRate::Hz16000),
    (SampleRate::Hz8000, SampleRate::Hz48000),
    (SampleRate::Hz16000, SampleRate::Hz48000),
    (SampleRate::Hz16000, SampleRate::Hz8000),
    (SampleRate::Hz48000, SampleRate::Hz8000),
    (SampleRate::Hz48000, SampleRate::Hz16000),
];

fn tone(rate: SampleRate, hz: f64, len: usize) -> Vec<i16> {
    (0..len)
        .map(|n| (16_000.0 * (2.0 * PI * hz * n as f64 / f64::from(rate.hz())).sin()) as i16)
        .collect()
}

fn convert(from: SampleRate, to: SampleRate, input: &[i16]) -> Vec<i16> {
    let mut resampler = Resampler::new(from, to);
    let mut out = vec![0; resampler.output_len_max(input.len())];
    let made = resampler.process(input, &mut out);
    out.truncate(made);
    out
}

/// Level of the component at `hz` in dB over that of [`tone`].
fn level(rate: SampleRate, samples: &[i16], hz: f64) -> f64 {
    let (mut re, mut im, mut weights) = (0.0, 0.0, 0.0);
    for (n, &sample) in samples.iter().enumerate() {
        // A Hann window keeps other components out.
        let weight = 0.5 - 0.5 * (2.0 * PI * n as f64 / samples.len() as f64).cos();
        let angle = 2.0 * PI * hz * n as f64 / f64::from(rate.hz());
        re += weight * f64::from(sample) * angle.cos();
        im += weight * f64::from(sample) * angle.sin();
        weights += weight;
    }
    20.0 * (2.0 * re.hypot(im) / weights / 16_000.0).max(1e-9).log10()
}

#[test]
fn what_both_rates_can_carry_passes_within_a_tenth_of_a_decibel() {
    for (from, to) in RATES {
        let low = f64::from(from.hz().min(to.hz()));
        for part in [0.01, 0.1, 0.2, 0.3, 0.4, 0.42, 0.425] {
            let hz = low * part;
            let out = convert(from, to, &tone(from, hz, from.samples(400)));
            let level = level(to, &out[to.samples(20)..], hz);
            assert!(level.abs() < 0.1, "{from:?} to {to:?}, {hz} Hz: {level} dB");
        }
    }
}

#[test]
fn what_the_lower_rate_cannot_carry_does_not_alias() {
    for (from, to) in &RATES[3..] {
        let (from, to) = (*from, *to);
        let mut hz = 0.575 * f64::from(to.hz());
        while hz < f64::from(from.hz()) / 2.0 {
            let out = convert(from, to, &tone(from, hz, from.samples(400)));
            let settled = &out[to.samples(20)..];
            let energy: f64 = settled.iter().map(|&s| f64::from(s).powi(2)).sum();
            let rms = (energy / settled.len() as f64).sqrt();
            let level = 20.0 * (rms * 2f64.sqrt() / 16_000.0).max(1e-9).log10();
            assert!(level < -60.0, "{from:?} to {to:?}, {hz} Hz: {level} dB");
            hz += 137.0;
        }
    }
}

#[test]
fn a_higher_rate_shows_no_image_of_a_tone() {
    for (from, to) in &RATES[..3] {
        let (from, to) = (*from, *to);
        for part in [0.05, 0.25, 0.425] {
            let low = f64::from(from.hz());
            let hz = low * part;
            let out = convert(from, to, &tone(from, hz, from.samples(400)));
            let mut multiple = low;
            while multiple < f64::from(to.hz()) / 2.0 + low {
                for image in [multiple - hz, multiple + hz] {
                    if image < f64::from(to.hz()) / 2.0 {
                        let level = level(to, &out[to.samples(20)..], image);
                        assert!(
                            level < -60.0,
                            "{from:?} to {to:?}, {hz} Hz at {image}: {level}"
                        );
                    }
                }
                multiple += low;
            }
        }
    }
}

#[test]
fn a_constant_stays_constant() {
    for (from, to) in RATES {
        let out = convert(from, to, &vec![12_345; from.samples(100)]);
        let settled = &out[to.samples(20)..];
        assert!(
            settled
                .iter()
                .all(|&sample| (i32::from(sample) - 12_345).abs() <= 2)
        );
    }
}

#[test]
fn whole_milliseconds_in_make_whole_milliseconds_out() {
    for (from, to) in RATES {
        let mut resampler = Resampler::new(from, to);
        let mut out = [0; 7 * 48];
        for _ in 0..50 {
            let made = resampler.process(&vec![0; from.samples(7)], &mut out);
            assert_eq!(made, to.samples(7));
        }
    }
}

#[test]
fn the_cut_of_the_input_does_not_matter() {
    for (from, to) in RATES {
        let input = tone(from, 700.0, from.samples(60));
        let whole = convert(from, to, &input);
        let mut resampler = Resampler::new(from, to);
        let mut pieces = Vec::new();
        let mut out = [0; 2_000];
        for (n, len) in [1, 7, 0, 131, 2, 300].iter().cycle().enumerate() {
            let start = pieces_start(n, &[1, 7, 0, 131, 2, 300]).min(input.len());
            let end = (start + len).min(input.len());
            let made = resampler.process(&input[start..end], &mut out);
            pieces.extend_from_slice(&out[..made]);
            if end == input.len() {
                break;
            }
        }
        assert_eq!(pieces, whole);
    }
}

fn pieces_start(n: usize, lens: &[usize]) -> usize {
    (0..n).map(|k| lens[k % lens.len()]).sum()
}

#[test]
fn full_scale_input_saturates_instead_of_wrapping() {
    for (from, to) in RATES {
        // A square wave at full scale overshoots behind any low-pass filter.
        let square: Vec<i16> = (0..from.samples(100))
            .map(|n| {
                if (n / from.samples(2)) % 2 == 0 {
                    i16::MAX
                } else {
                    i16::MIN
                }
            })
            .collect();
        let out = convert(from, to, &square);
        let half = to.samples(2);
        let delay = 16 * to.hz().div_ceil(from.hz()) as usize;
        // The middle of each half period keeps its sign.
        for n in 20..40 {
            let middle = n * half + half / 2 + delay;
            let expected = if n % 2 == 0 { 1 } else { -1 };
            assert_eq!(i32::from(out[middle]).signum(), expected);
        }
    }
}

#[test]
fn output_without_room_is_dropped_quietly() {
    let mut resampler = Resampler::new(SampleRate::Hz8000, SampleRate::Hz48000);
    assert_eq!(resampler.process(&[1_000; 80], &mut [0; 7]), 7);
}
