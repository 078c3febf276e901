//! From 8 to 16 kHz and back for sums of voices, which do not fit 16 bits.
//!
//! A half-band filter has every second tap zero. It is flat to 3.5 kHz and lets nothing above
//! 4.5 kHz through (-60 dB), which is what a narrowband voice needs; it delays by 2 ms.

/// Taps on each side that are not zero.
const SIDE: usize = 16;
/// Samples of a frame at 8 and at 16 kHz.
const NARROW: usize = super::NARROW_LEN;
const WIDE: usize = super::WIDE_LEN;
/// Shape of the Kaiser window: 60 dB.
const KAISER_BETA: f32 = 5.65;

/// Taps at the distances 1, 3, 5 …; both sides together sum to 1.
fn taps() -> [f32; SIDE] {
    let bessel = |x: f32| {
        let (mut sum, mut term) = (1.0, 1.0);
        for n in 1..20 {
            let factor = x / (2.0 * n as f32);
            term *= factor * factor;
            sum += term;
        }
        sum
    };
    let mut taps = std::array::from_fn(|k| {
        let distance = (2 * k + 1) as f32;
        let sign = if k % 2 == 0 { 1.0 } else { -1.0 };
        let place = distance / (2 * SIDE) as f32;
        let window = bessel(KAISER_BETA * (1.0 - place * place).sqrt());
        sign / distance * window
    });
    let sum: f32 = 2.0 * taps.iter().sum::<f32>();
    taps.iter_mut().for_each(|tap| *tap /= sum);
    taps
}

/// Narrowband to wideband.
#[derive(Debug, Clone)]
pub(super) struct Upsampler {
    taps: [f32; SIDE],
    /// The frame behind what it needs of the one before.
    input: [f32; 2 * SIDE + NARROW],
}

impl Upsampler {
    pub(super) fn new() -> Self {
        Self {
            taps: taps(),
            input: [0.0; 2 * SIDE + NARROW],
        }
    }

    /// Adds `narrow`, converted, to `wide`.
    pub(super) fn add(&mut self, narrow: &[i32], wide: &mut [i32]) {
        self.input.copy_within(NARROW.., 0);
        for (input, &sample) in self.input[2 * SIDE..].iter_mut().zip(narrow) {
            *input = sample as f32;
        }
        for (n, out) in wide.chunks_exact_mut(2).enumerate().take(NARROW) {
            // Input sample n + SIDE, and the point half a sample behind it.
            let around = &self.input[n + 1..n + 1 + 2 * SIDE];
            let (before, after) = around.split_at(SIDE);
            let between: f32 = before
                .iter()
                .rev()
                .zip(after)
                .zip(&self.taps)
                .map(|((before, after), tap)| tap * (before + after))
                .sum();
            out[0] += before[SIDE - 1] as i32;
            out[1] += between as i32;
        }
    }
}

/// Wideband to narrowband.
#[derive(Debug, Clone)]
pub(super) struct Downsampler {
    taps: [f32; SIDE],
    input: [f32; 4 * SIDE + WIDE],
}

impl Downsampler {
    pub(super) fn new() -> Self {
        Self {
            taps: taps(),
            input: [0.0; 4 * SIDE + WIDE],
        }
    }

    /// Adds `wide`, converted, to `narrow`.
    pub(super) fn add(&mut self, wide: &[i32], narrow: &mut [i32]) {
        self.input.copy_within(WIDE.., 0);
        for (input, &sample) in self.input[4 * SIDE..].iter_mut().zip(wide) {
            *input = sample as f32;
        }
        for (n, out) in narrow.iter_mut().enumerate().take(NARROW) {
            let middle = 2 * (n + SIDE);
            let sides: f32 = self
                .taps
                .iter()
                .enumerate()
                .map(|(k, tap)| {
                    let distance = 2 * k + 1;
                    tap * (self.input[middle - distance] + self.input[middle + distance])
                })
                .sum();
            *out += (0.5 * (self.input[middle] + sides)) as i32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hz: f32, rate: f32, len: usize) -> Vec<i32> {
        let step = std::f32::consts::TAU * hz / rate;
        (0..len)
            .map(|n| (100_000.0 * (n as f32 * step).sin()) as i32)
            .collect()
    }

    /// Power of everything, and of what is at `hz`, of the part of `samples` after the filter has
    /// settled; 1 is a tone of 100,000.
    fn powers(samples: &[i32], hz: f32, rate: f32) -> (f32, f32) {
        let samples = &samples[samples.len() / 2..];
        let step = std::f32::consts::TAU * hz / rate;
        let (mut all, mut re, mut im) = (0.0f64, 0.0f64, 0.0f64);
        for (n, &sample) in samples.iter().enumerate() {
            let sample = f64::from(sample) / 100_000.0;
            let angle = f64::from(n as f32 * step);
            all += sample * sample;
            re += sample * angle.cos();
            im += sample * angle.sin();
        }
        let len = samples.len() as f64;
        let at = 4.0 * (re * re + im * im) / (len * len);
        ((2.0 * all / len) as f32, at as f32)
    }

    fn up(input: &[i32]) -> Vec<i32> {
        let mut upsampler = Upsampler::new();
        let mut out = vec![0; 2 * input.len()];
        for (narrow, wide) in input.chunks(NARROW).zip(out.chunks_mut(WIDE)) {
            upsampler.add(narrow, wide);
        }
        out
    }

    fn down(input: &[i32]) -> Vec<i32> {
        let mut downsampler = Downsampler::new();
        let mut out = vec![0; input.len() / 2];
        for (wide, narrow) in input.chunks(WIDE).zip(out.chunks_mut(NARROW)) {
            downsampler.add(wide, narrow);
        }
        out
    }

    #[test]
    fn voice_goes_up_without_an_image() {
        for hz in [300.0, 1_000.0, 2_000.0, 3_400.0] {
            let (all, at) = powers(&up(&tone(hz, 8_000.0, 3_200)), hz, 16_000.0);
            assert!((at - 1.0).abs() < 0.03, "{hz}: {at}");
            assert!((all - at).abs() < 0.002, "{hz}: image of {}", all - at);
        }
    }

    #[test]
    fn voice_goes_down_and_what_is_above_vanishes() {
        for hz in [300.0, 1_000.0, 2_000.0, 3_400.0] {
            let (_, at) = powers(&down(&tone(hz, 16_000.0, 6_400)), hz, 8_000.0);
            assert!((at - 1.0).abs() < 0.03, "{hz}: {at}");
        }
        for hz in [4_600.0, 6_000.0, 7_500.0] {
            let (all, _) = powers(&down(&tone(hz, 16_000.0, 6_400)), hz, 8_000.0);
            assert!(all < 0.000_01, "{hz}: {all}");
        }
    }
}
