//! Audio of any rate as the 8 kHz that the detectors of tones and speech work on.
//!
//! Everything they look for lies below 3.4 kHz; the telephone network carries no more. At 8 kHz
//! samples are passed on as they are. Above, a low-pass of [`TAPS_PER_STEP`] times the decimation
//! taps keeps what would fold onto 0 … 2.2 kHz at least 45 dB down; up to 2.2 kHz it is flat
//! within 0.5 dB.

use crate::audio::SampleRate;

/// Samples per second after decimation.
pub(crate) const HZ: f32 = 8_000.0;

/// Length of the low-pass, in output samples: 1.5 ms.
const TAPS_PER_STEP: usize = 12;
/// Output samples come from so many input samples at most.
const STEP_MAX: usize = 6;
const TAPS_MAX: usize = TAPS_PER_STEP * STEP_MAX;
/// Edge of the low-pass, Hz: half between what must pass and what must not fold onto it.
const CUTOFF_HZ: f64 = 3_600.0;

/// Input samples that are worked on at once: 5 ms at the highest rate.
const CHUNK_MAX: usize = 240;

/// A decimator with its history.
#[derive(Debug, Clone)]
pub(crate) struct Narrowband {
    /// Input samples per output sample.
    step: usize,
    taps: [f32; TAPS_MAX],
    /// What the next output samples are made of, the oldest first.
    waiting: [f32; TAPS_MAX + CHUNK_MAX],
    waiting_len: usize,
}

impl Narrowband {
    pub(crate) fn new(sample_rate: SampleRate) -> Self {
        let step = (sample_rate.hz() / SampleRate::Hz8000.hz()) as usize;
        Self {
            step,
            taps: low_pass(step),
            waiting: [0.0; TAPS_MAX + CHUNK_MAX],
            // Silence came before.
            waiting_len: step * TAPS_PER_STEP - step,
        }
    }

    /// Gives every 8 kHz sample that `pcm` completes to `each`.
    pub(crate) fn feed(&mut self, pcm: &[i16], mut each: impl FnMut(f32)) {
        if self.step == 1 {
            pcm.iter().for_each(|&sample| each(f32::from(sample)));
            return;
        }
        let taps_len = self.step * TAPS_PER_STEP;
        for chunk in pcm.chunks(CHUNK_MAX) {
            let room = &mut self.waiting[self.waiting_len..];
            for (slot, &sample) in room.iter_mut().zip(chunk) {
                *slot = f32::from(sample);
            }
            self.waiting_len += chunk.len();
            let mut begins = 0;
            while begins + taps_len <= self.waiting_len {
                let samples = &self.waiting[begins..begins + taps_len];
                each(dot_product(samples, &self.taps[..taps_len]));
                begins += self.step;
            }
            self.waiting.copy_within(begins..self.waiting_len, 0);
            self.waiting_len -= begins;
        }
    }
}

/// Eight sums side by side, for a sum in order cannot be made in vectors. The length is a multiple
/// of eight, as that of the low-pass is for every step above 1.
fn dot_product(samples: &[f32], taps: &[f32]) -> f32 {
    let (samples, _) = samples.as_chunks::<8>();
    let (taps, _) = taps.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (samples, taps) in samples.iter().zip(taps) {
        for (sum, (sample, tap)) in sums.iter_mut().zip(samples.iter().zip(taps)) {
            *sum += sample * tap;
        }
    }
    sums.iter().sum()
}

/// A sinc of the cut-off under a Hamming window, of unit gain at 0 Hz.
fn low_pass(step: usize) -> [f32; TAPS_MAX] {
    use std::f64::consts::{PI, TAU};
    let len = step * TAPS_PER_STEP;
    let mut taps = [0.0; TAPS_MAX];
    let cycles = CUTOFF_HZ / (f64::from(HZ) * step as f64);
    let shape = |index: usize| {
        let from_middle = index as f64 - (len - 1) as f64 / 2.0;
        let angle = TAU * cycles * from_middle;
        let sinc = if angle == 0.0 {
            1.0
        } else {
            angle.sin() / angle
        };
        let window = 0.54 - 0.46 * (2.0 * PI * index as f64 / (len - 1) as f64).cos();
        sinc * window
    };
    let sum: f64 = (0..len).map(shape).sum();
    for (index, tap) in taps[..len].iter_mut().enumerate() {
        *tap = (shape(index) / sum) as f32;
    }
    taps
}

#[cfg(test)]
mod tests;
