//! Changing the sampling rate of a whole file: a polyphase FIR filter with a Kaiser window.
//!
//! A prompt is converted once, when it is loaded, so this favours the result over the cost: the
//! stopband lies 80 dB down and nothing of it folds into what is heard.

use std::f64::consts::PI;

/// Zero crossings of the sinc on each side, at the lower of both rates.
const ZERO_CROSSINGS: usize = 32;

/// Kaiser window parameter for a stopband of 80 dB.
const BETA: f64 = 7.857;

/// Where the passband ends, as a share of half the lower rate: the transition band of the window
/// above then ends where folding begins.
const CUTOFF: f64 = 0.92;

/// Positions between two input samples that have coefficients of their own. Rates that divide into
/// more steps are served by the two nearest, which are 100 dB exact.
const STEPS_MAX: usize = 1_024;

/// Samples of `input_len` at `from_hz` after conversion to `to_hz`: the nearest whole number that
/// loses nothing.
#[must_use]
pub(super) fn output_len(input_len: usize, from_hz: u32, to_hz: u32) -> usize {
    let samples = (input_len as u128 * u128::from(to_hz)).div_ceil(u128::from(from_hz.max(1)));
    usize::try_from(samples).unwrap_or(usize::MAX)
}

/// Converts a whole recording. Both rates lie between 1 Hz and 192 kHz.
#[must_use]
pub(super) fn resample(input: &[i16], from_hz: u32, to_hz: u32) -> Vec<i16> {
    if from_hz == to_hz {
        return input.to_vec();
    }
    let divisor = gcd(from_hz, to_hz);
    let up = (to_hz / divisor) as usize;
    let down = (from_hz / divisor) as usize;
    let filter = Polyphase::new(up, down);
    let mut output = Vec::with_capacity(output_len(input.len(), from_hz, to_hz));
    output.extend((0..output_len(input.len(), from_hz, to_hz)).map(|index| {
        // Position of this output sample between the input's, in steps of 1/up.
        let position = index as u64 * down as u64;
        let at = (position / up as u64) as usize;
        filter.apply(input, at, (position % up as u64) as usize)
    }));
    output
}

/// One row of coefficients for each of some positions between two input samples.
struct Polyphase {
    /// Input samples on each side of the position.
    reach: usize,
    /// Positions that the rates ask for.
    up: usize,
    /// Positions that have a row; one more row stands for the next input sample.
    steps: usize,
    /// `steps + 1` rows of `2 * reach` coefficients each.
    rows: Vec<f32>,
}

impl Polyphase {
    fn new(up: usize, down: usize) -> Self {
        // Widened where the rate falls: the filter then has to cut below the input's own limit.
        let stretch = (down as f64 / up as f64).max(1.0);
        let reach = (ZERO_CROSSINGS as f64 * stretch).ceil() as usize;
        let bandwidth = CUTOFF / stretch;
        let half_width = ZERO_CROSSINGS as f64 * stretch;
        let steps = up.min(STEPS_MAX);
        let mut rows = Vec::with_capacity((steps + 1) * 2 * reach);
        for step in 0..=steps {
            let offset = step as f64 / steps as f64;
            let first = rows.len();
            rows.extend((0..2 * reach).map(|tap| {
                // Distance of this input sample from the output sample, in input samples.
                let distance = tap as f64 - (reach as f64 - 1.0) - offset;
                (bandwidth * sinc(bandwidth * distance) * kaiser(distance / half_width)) as f32
            }));
            // Every row passes silence and a constant alike.
            let sum: f32 = rows[first..].iter().sum();
            rows[first..].iter_mut().for_each(|tap| *tap /= sum);
        }
        Self {
            reach,
            up,
            steps,
            rows,
        }
    }

    /// The sample `phase` of `up` parts behind `input[at]`.
    fn apply(&self, input: &[i16], at: usize, phase: usize) -> i16 {
        let scaled = phase * self.steps;
        let step = scaled / self.up;
        let mut sum = self.row(input, at, step);
        let rest = scaled % self.up;
        if rest > 0 {
            let share = rest as f32 / self.up as f32;
            sum += (self.row(input, at, step + 1) - sum) * share;
        }
        // `as` saturates, which is what a filter's overshoot needs.
        sum.round() as i16
    }

    fn row(&self, input: &[i16], at: usize, step: usize) -> f32 {
        let taps = 2 * self.reach;
        let row = &self.rows[step * taps..(step + 1) * taps];
        // The first tap meets `input[at + 1 - reach]`; before and behind the input is silence.
        let (skipped, first) = match (at + 1).checked_sub(self.reach) {
            Some(first) => (0, first),
            None => (self.reach - (at + 1), 0),
        };
        let present = input.get(first..).unwrap_or(&[]);
        row[skipped..]
            .iter()
            .zip(present)
            .map(|(tap, &sample)| tap * f32::from(sample))
            .sum()
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        1.0
    } else {
        (PI * x).sin() / (PI * x)
    }
}

/// Kaiser window at `x`, -1 … 1; 0 outside.
fn kaiser(x: f64) -> f64 {
    if x.abs() >= 1.0 {
        return 0.0;
    }
    bessel_i0(BETA * (1.0 - x * x).sqrt()) / bessel_i0(BETA)
}

/// Modified Bessel function of the first kind, order 0, by its power series.
fn bessel_i0(x: f64) -> f64 {
    let quarter = x * x / 4.0;
    let mut term = 1.0;
    let mut sum = 1.0;
    // Under 30 terms at the arguments that occur here.
    let mut k = 1.0;
    while term > sum * 1e-12 {
        term *= quarter / (k * k);
        sum += term;
        k += 1.0;
    }
    sum
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
