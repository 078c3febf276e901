//! Between 8, 16 and 48 kHz by fixed whole factors.
//!
//! One linear-phase low-pass filter per factor (a Kaiser-windowed sinc) is run in polyphase form:
//! towards the higher rate each phase makes one of the new samples, towards the lower rate only
//! the samples that stay are computed. Samples and coefficients are 16-bit integers with 32-bit
//! sums, so the result is the same on every machine.
//!
//! | towards or from | flat within 0.1 dB to | 3 dB down at | aliases and images below |
//! |---|---|---|---|
//! | 8 kHz | 3.4 kHz | 3.75 kHz | -60 dB from 4.6 kHz |
//! | 16 kHz | 6.8 kHz | 7.5 kHz | -60 dB from 9.2 kHz |
//!
//! The filter delays by 16 samples of the lower rate: 2 ms at 8 kHz, 1 ms at 16 kHz.

use std::f64::consts::PI;
use std::sync::LazyLock;

use crate::audio::SampleRate;

#[cfg(test)]
mod tests;

/// Coefficients of one phase: how many samples of the lower rate the filter reaches over.
const PHASE_TAPS: usize = 32;
/// Largest factor between two rates.
const FACTOR_MAX: usize = 6;
/// Where the filter is 6 dB down, as a part of the lower rate: 3,850 Hz at 8 kHz. Half the lower
/// rate would let more of the transition band alias; telephone speech ends at 3,400 Hz.
const CUTOFF: f64 = 3_850.0 / 8_000.0;
/// Kaiser's shape parameter: some 65 dB of stop band at this length.
const KAISER_BETA: f64 = 6.0;
/// Samples taken up at once; longer input is done in pieces.
const PIECE: usize = SampleRate::MAX.samples(10);

/// Binary places of a coefficient towards the higher rate. A phase's magnitudes sum to less than
/// 2.5, so that the sum of products of full-scale samples stays below 2^31.
const UP_SHIFT: u32 = 14;
/// Binary places of a coefficient towards the lower rate, whose sums run over blocks of
/// [`PHASE_TAPS`] coefficients with magnitudes that sum to less than 2.
const DOWN_SHIFT: u32 = 15;

type Taps = [i16; PHASE_TAPS];

/// The filter between two rates, in the order that lies against samples from oldest to newest.
struct Filter {
    /// `up[p]` makes sample `p` of the factor's new samples.
    up: [Taps; FACTOR_MAX],
    /// The whole filter in consecutive blocks.
    down: [Taps; FACTOR_MAX],
}

static BY_2: LazyLock<Filter> = LazyLock::new(|| Filter::design(2));
static BY_3: LazyLock<Filter> = LazyLock::new(|| Filter::design(3));
static BY_6: LazyLock<Filter> = LazyLock::new(|| Filter::design(6));

impl Filter {
    fn design(factor: usize) -> Self {
        let taps = factor * PHASE_TAPS;
        let middle = (taps - 1) as f64 / 2.0;
        let mut ideal = [0.0; FACTOR_MAX * PHASE_TAPS];
        for (n, tap) in ideal[..taps].iter_mut().enumerate() {
            let offset = n as f64 - middle;
            // Even lengths put no coefficient on the middle itself, so `angle` is never 0.
            let angle = 2.0 * PI * CUTOFF * offset / factor as f64;
            let edge = offset / middle;
            let window = bessel_i0(KAISER_BETA * (1.0 - edge * edge).max(0.0).sqrt())
                / bessel_i0(KAISER_BETA);
            *tap = 2.0 * CUTOFF * angle.sin() / angle * window;
        }
        let mut filter = Self {
            up: [[0; PHASE_TAPS]; FACTOR_MAX],
            down: [[0; PHASE_TAPS]; FACTOR_MAX],
        };
        for phase in 0..factor {
            // Sample `phase` lies against the newest input with coefficient `phase`.
            let oldest_first = |k: usize| ideal[phase + (PHASE_TAPS - 1 - k) * factor];
            filter.up[phase] = quantize(oldest_first, 1 << UP_SHIFT);
            let block = phase * PHASE_TAPS;
            for (k, tap) in filter.down[phase].iter_mut().enumerate() {
                let value = ideal[taps - 1 - (block + k)] / factor as f64;
                *tap = (value * f64::from(1 << DOWN_SHIFT)).round() as i16;
            }
        }
        filter
    }

    fn between(factor: usize) -> &'static Self {
        match factor {
            2 => &BY_2,
            3 => &BY_3,
            _ => &BY_6,
        }
    }
}

/// Rounds coefficients so that they sum to `unity` exactly: phases of unequal gain would turn a
/// constant into a tone.
fn quantize(value: impl Fn(usize) -> f64, unity: i32) -> Taps {
    let sum: f64 = (0..PHASE_TAPS).map(&value).sum();
    let mut taps: Taps =
        std::array::from_fn(|k| (value(k) / sum * f64::from(unity)).round() as i16);
    let rest = unity - taps.iter().copied().map(i32::from).sum::<i32>();
    let largest = (0..PHASE_TAPS).max_by_key(|&k| taps[k]).unwrap_or(0);
    taps[largest] += rest as i16;
    taps
}

/// The modified Bessel function of the first kind, order 0.
fn bessel_i0(x: f64) -> f64 {
    let mut term = 1.0;
    let mut sum = 1.0;
    let mut k = 1.0;
    while term > 1e-12 * sum {
        term *= (x / 2.0 / k) * (x / 2.0 / k);
        sum += term;
        k += 1.0;
    }
    sum
}

fn dot(samples: &Taps, taps: &Taps) -> i32 {
    let products = samples.iter().zip(taps);
    products.map(|(&s, &t)| i32::from(s) * i32::from(t)).sum()
}

fn saturate(value: i32) -> i16 {
    value.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Same,
    /// One sample in, `factor` out.
    Up {
        factor: usize,
    },
    /// `factor` samples in, one out.
    Down {
        factor: usize,
    },
}

/// One stream's way from one rate to another. Takes any amount of input at a time; nothing is
/// allocated after construction. It holds at most 1.4 KB.
#[derive(Debug, Clone)]
pub struct Resampler {
    direction: Direction,
    /// Samples that the filter still reaches, oldest first, and room for a piece of new ones.
    buffer: Box<[i16]>,
    filled: usize,
}

impl Resampler {
    /// A stream that was silent so far. Equal rates are allowed: samples are copied.
    #[must_use]
    pub fn new(from: SampleRate, to: SampleRate) -> Self {
        let (direction, history, piece) = if from.hz() < to.hz() {
            let factor = (to.hz() / from.hz()) as usize;
            (Direction::Up { factor }, PHASE_TAPS - 1, PIECE / FACTOR_MAX)
        } else if from.hz() > to.hz() {
            let factor = (from.hz() / to.hz()) as usize;
            // So that the first output needs a whole factor of input, and none is left over when
            // input comes in whole milliseconds.
            (Direction::Down { factor }, (PHASE_TAPS - 1) * factor, PIECE)
        } else {
            (Direction::Same, 0, 0)
        };
        if let Direction::Up { factor } | Direction::Down { factor } = direction {
            // Tables are made here rather than with the first packet.
            let _ = Filter::between(factor);
        }
        Self {
            direction,
            // Up to `factor - 1` samples may wait for the rest of theirs.
            buffer: vec![0; history + piece + FACTOR_MAX].into_boxed_slice(),
            filled: history,
        }
    }

    /// Upper bound of what [`Self::process`] makes of `input_len` samples; exact when input comes
    /// in whole milliseconds.
    #[must_use]
    pub fn output_len_max(&self, input_len: usize) -> usize {
        match self.direction {
            Direction::Same => input_len,
            Direction::Up { factor } => input_len * factor,
            Direction::Down { factor } => input_len.div_ceil(factor),
        }
    }

    /// Converts all of `input` into `out` and returns how many samples that made. What finds no
    /// room in `out` is lost.
    pub fn process(&mut self, input: &[i16], out: &mut [i16]) -> usize {
        let (window, step) = match self.direction {
            Direction::Same => {
                let len = input.len().min(out.len());
                out[..len].copy_from_slice(&input[..len]);
                return len;
            }
            Direction::Up { .. } => (PHASE_TAPS, 1),
            Direction::Down { factor } => (PHASE_TAPS * factor, factor),
        };
        let mut made = 0;
        let mut rest = input;
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(rest.len().min(self.buffer.len() - self.filled));
            rest = later;
            self.buffer[self.filled..self.filled + piece.len()].copy_from_slice(piece);
            self.filled += piece.len();
            let samples = &self.buffer[..self.filled];
            made += match self.direction {
                Direction::Down { factor } => lower(samples, factor, &mut out[made..]),
                Direction::Up { factor } => raise(samples, factor, &mut out[made..]),
                Direction::Same => 0,
            };
            let windows = (self.filled + step).saturating_sub(window) / step;
            self.buffer.copy_within(windows * step..self.filled, 0);
            self.filled -= windows * step;
        }
        made
    }
}

/// One sample for each phase of the filter against each window; returns how many that made.
fn raise(samples: &[i16], factor: usize, out: &mut [i16]) -> usize {
    let windows = samples.array_windows();
    let made = out.len().min(windows.len() * factor);
    // Phase by phase, so that its coefficients stay in registers.
    for (phase, taps) in Filter::between(factor).up[..factor].iter().enumerate() {
        let of_phase = out[phase.min(made)..made].iter_mut().step_by(factor);
        for (sample, window) in of_phase.zip(windows.clone()) {
            let sum = dot(window, taps) + (1 << (UP_SHIFT - 1));
            *sample = saturate(sum >> UP_SHIFT);
        }
    }
    made
}

/// One sample for the whole filter against each window that begins a factor after the one before;
/// returns how many that made.
fn lower(samples: &[i16], factor: usize, out: &mut [i16]) -> usize {
    let blocks = &Filter::between(factor).down[..factor];
    let windows = samples.windows(PHASE_TAPS * factor).step_by(factor);
    let mut made = 0;
    for (window, sample) in windows.zip(out) {
        let (window, _) = window.as_chunks();
        let sums = window.iter().zip(blocks);
        let sum: i64 = sums
            .map(|(samples, taps)| i64::from(dot(samples, taps)))
            .sum();
        *sample = saturate(((sum + (1 << (DOWN_SHIFT - 1))) >> DOWN_SHIFT) as i32);
        made += 1;
    }
    made
}
