//! The tone that fills ten milliseconds, and tones that such hops make.
//!
//! The audio is cut into hops at 8 kHz. The autocorrelation of a hop gives the frequency of its
//! strongest tone, the phase between the hop's halves gives it finely, and what that tone holds of
//! the power is the hop's purity. Hops of the same frequency and level are a tone.

use std::f32::consts::TAU;
use std::ops::RangeInclusive;

use crate::audio::SampleRate;
use crate::narrowband::{self, Narrowband};
use crate::tone::level::mean_square_of_dbm0;

/// Length of a hop, milliseconds.
pub(super) const HOP_MILLIS: u32 = 10;
/// Samples of a hop.
pub(super) const HOP_LEN: usize = 80;

/// Frequencies that are looked for, Hz: from progress tones to the answer of a fax machine.
const FREQUENCY_RANGE_HZ: RangeInclusive<f32> = 400.0..=2_150.0;

/// Share of a hop's power that the tone holds: a signal-to-noise ratio of 8 dB.
const PURITY_MIN: f32 = 0.85;
/// How far a hop's frequency may be from the tone's, as a share.
const DRIFT_MAX: f32 = 0.012;
/// By which factor a hop's power may differ from the tone's: 3 dB.
const SWELL_MAX: f32 = 2.0;
/// Hops in a row without the tone that end it.
const MISSING_HOPS_MAX: u32 = 2;

/// Ten milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hop {
    pub(super) tone: Option<HopTone>,
    pub(super) mean_square: f32,
    /// Whether it is louder than the listener cares for.
    pub(super) is_audible: bool,
}

/// Cuts audio into hops.
#[derive(Debug, Clone)]
pub(super) struct Hops {
    narrowband: Narrowband,
    level_min: f32,
    samples: [f32; HOP_LEN],
    sample_count: usize,
}

impl Hops {
    /// Hops of audio at `sample_rate`, of which those below `level_min_dbm0` are not audible.
    pub(super) fn new(sample_rate: SampleRate, level_min_dbm0: f32) -> Self {
        Self {
            narrowband: Narrowband::new(sample_rate),
            level_min: mean_square_of_dbm0(level_min_dbm0),
            samples: [0.0; HOP_LEN],
            sample_count: 0,
        }
    }

    /// Gives every hop that `pcm` completes to `each`.
    pub(super) fn feed(&mut self, pcm: &[i16], mut each: impl FnMut(Hop, &[f32; HOP_LEN])) {
        let (samples, count) = (&mut self.samples, &mut self.sample_count);
        let level_min = self.level_min;
        self.narrowband.feed(pcm, |sample| {
            samples[*count] = sample;
            *count += 1;
            if *count == HOP_LEN {
                *count = 0;
                let energy: f32 = samples.iter().map(|sample| sample * sample).sum();
                let mean_square = energy / HOP_LEN as f32;
                let is_audible = mean_square >= level_min;
                let tone = match is_audible {
                    true => tone_of(samples, mean_square),
                    false => None,
                };
                let hop = Hop {
                    tone,
                    mean_square,
                    is_audible,
                };
                each(hop, samples);
            }
        });
    }
}

/// A tone so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sounding {
    pub(super) hops: u32,
    /// Hops without it since the last one with it.
    missing_hops: u32,
    /// Hops without it among its own.
    bridged_hops: u32,
    /// Mean over its hops.
    pub(super) hz: f32,
    pub(super) mean_square: f32,
}

/// The tone of one hop.
#[derive(Debug, Clone, Copy)]
pub(super) struct HopTone {
    pub(super) hz: f32,
    pub(super) mean_square: f32,
}

impl Sounding {
    pub(super) fn new(tone: HopTone) -> Self {
        Self {
            hops: 1,
            missing_hops: 0,
            bridged_hops: 0,
            hz: tone.hz,
            mean_square: tone.mean_square,
        }
    }

    /// Takes the next hop; `false`: the tone has ended.
    pub(super) fn hear(&mut self, tone: Option<HopTone>) -> bool {
        match tone {
            Some(tone) if self.is_joined_by(&tone) => {
                self.join(&tone);
                true
            }
            _ => {
                self.missing_hops += 1;
                self.missing_hops < MISSING_HOPS_MAX
            }
        }
    }

    pub(super) fn millis(&self) -> u32 {
        self.hops.saturating_mul(HOP_MILLIS)
    }

    fn is_joined_by(&self, tone: &HopTone) -> bool {
        // The first hop may be filled in part.
        let swell_max = if self.hops == 1 { 100.0 } else { SWELL_MAX };
        let swell = tone.mean_square / self.mean_square;
        (tone.hz - self.hz).abs() <= DRIFT_MAX * self.hz
            && (1.0 / SWELL_MAX..=swell_max).contains(&swell)
    }

    /// Whether it was there in all of its hops but one in ten. Two tones near each other, which a
    /// hop cannot part, beat.
    pub(super) fn is_steady(&self) -> bool {
        self.bridged_hops <= 1 + self.hops / 10
    }

    fn join(&mut self, tone: &HopTone) {
        self.hops = self.hops.saturating_add(1 + self.missing_hops);
        self.bridged_hops = self.bridged_hops.saturating_add(self.missing_hops);
        self.missing_hops = 0;
        // The first hop counts no more when there are whole ones; later ones make a mean.
        let weight = 1.0 / (self.hops - 1).min(16) as f32;
        self.hz += weight * (tone.hz - self.hz);
        self.mean_square += weight * (tone.mean_square - self.mean_square);
    }
}

/// The tone that fills a hop of this mean square; `None` when none does.
fn tone_of(samples: &[f32; HOP_LEN], mean_square: f32) -> Option<HopTone> {
    let rough_hz = dominant_hz(samples)?;
    let (first, last) = samples.split_at(HOP_LEN / 2);
    let step = TAU * rough_hz / narrowband::HZ;
    let [first, last] = [
        demodulate(first, step, 0),
        demodulate(last, step, HOP_LEN / 2),
    ];
    // The phase between the halves' middles, 5 ms apart: up to 100 Hz.
    let turn = (last.1 * first.0 - last.0 * first.1).atan2(last.0 * first.0 + last.1 * first.1);
    let hz = rough_hz + turn * narrowband::HZ / (TAU * (HOP_LEN / 2) as f32);
    let amplitude = first.0.hypot(first.1) + last.0.hypot(last.1);
    let tone = 2.0 * amplitude * amplitude / (HOP_LEN * HOP_LEN) as f32;
    let is_tone = tone >= PURITY_MIN * mean_square && FREQUENCY_RANGE_HZ.contains(&hz);
    is_tone.then_some(HopTone {
        hz,
        mean_square: tone,
    })
}

/// Frequency of a sine in noise from its autocorrelation, which obeys
/// `r[k-1] + r[k+1] = 2 cos(w) r[k]`; `r[0]` is left out, for white noise is in it alone.
fn dominant_hz(samples: &[f32; HOP_LEN]) -> Option<f32> {
    const LAGS: usize = 8;
    let mut correlation = [0.0f32; LAGS];
    for (lag, value) in correlation.iter_mut().enumerate().skip(1) {
        let products = samples.iter().zip(&samples[lag..]);
        // Unbiased: long lags have fewer products.
        *value = products.map(|(one, two)| one * two).sum::<f32>() / (HOP_LEN - lag) as f32;
    }
    let (mut numerator, mut denominator) = (0.0, 0.0);
    for window in correlation[1..].windows(3) {
        numerator += window[1] * (window[0] + window[2]);
        denominator += 2.0 * window[1] * window[1];
    }
    let cosine = numerator / denominator;
    (cosine.abs() < 1.0).then(|| cosine.acos() * narrowband::HZ / TAU)
}

/// Real and imaginary part of the sum of samples turned back by `step` each; the first one is the
/// `begins`-th of its hop.
fn demodulate(samples: &[f32], step: f32, begins: usize) -> (f32, f32) {
    let (turn_im, turn_re) = (-step).sin_cos();
    let (mut im, mut re) = (-step * begins as f32).sin_cos();
    let mut sum = (0.0, 0.0);
    for sample in samples {
        sum.0 += sample * re;
        sum.1 += sample * im;
        (re, im) = (re * turn_re - im * turn_im, re * turn_im + im * turn_re);
    }
    sum
}
