//! One or two tones between 330 and 640 Hz, where exchanges have theirs.
//!
//! Four samples at 8 kHz become one of 2 kHz. Eighty milliseconds of these under a Hann window are
//! split into bins of 12.5 Hz, which part tones 40 Hz from each other. What lies around the two
//! greatest is compared with all that was heard at 8 kHz: what the coarse averaging folds into the
//! band counts against it there.

use std::f32::consts::{PI, TAU};
use std::ops::RangeInclusive;
use std::sync::LazyLock;

use crate::activity::hop_tone::{HOP_LEN, Hop};
use crate::narrowband;

/// Samples that become one.
const STEP: usize = 4;
/// Hops of a window.
pub(super) const WINDOW_HOPS: usize = 8;
/// Samples of a hop at 2 kHz, and of a window.
const SHORT_LEN: usize = HOP_LEN / STEP;
const WINDOW_LEN: usize = WINDOW_HOPS * SHORT_LEN;
/// Width of a bin, Hz.
const BIN_HZ: f32 = narrowband::HZ / STEP as f32 / WINDOW_LEN as f32;
/// The first bin, and how many there are: 312.5 to 662.5 Hz.
const FIRST_BIN: usize = 25;
const BINS: usize = 29;
/// Frequencies of tones, Hz.
const TONE_HZ: RangeInclusive<f32> = 330.0..=640.0;
/// Bins on each side that belong to a tone under a Hann window.
const REACH: usize = 2;
/// Bins between two tones: 440 and 480 Hz.
const APART: usize = 3;
/// How much weaker the second of two tones may be, in power: 10 dB.
const SECOND_MIN: f32 = 0.1;
/// Share of the power that the tones hold.
const PURITY_MIN: f32 = 0.8;

/// What a window holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct LowTone {
    /// One frequency or two, lowest first, Hz; 0: no second.
    pub(super) hz: [f32; 2],
    pub(super) mean_square: f32,
}

type Row = [f32; WINDOW_LEN];

struct Table {
    /// Cosine and sine of each bin under the window, freed of what averaging takes from its
    /// frequency.
    bins: [[Row; 2]; BINS],
    /// Sum of the window's squares over each hop.
    hop_weights: [f32; WINDOW_HOPS],
}

static TABLE: LazyLock<Box<Table>> = LazyLock::new(|| {
    let window = |n: usize| 0.5 - 0.5 * (TAU * n as f32 / WINDOW_LEN as f32).cos();
    let mut table = Box::new(Table {
        bins: [[[0.0; WINDOW_LEN]; 2]; BINS],
        hop_weights: [0.0; WINDOW_HOPS],
    });
    for (bin, [cosine, sine]) in table.bins.iter_mut().enumerate() {
        let hz = (FIRST_BIN + bin) as f32 * BIN_HZ;
        let half = PI * hz / narrowband::HZ;
        let droop = (STEP as f32 * half).sin() / (STEP as f32 * half.sin());
        let turn = TAU * (FIRST_BIN + bin) as f32 / WINDOW_LEN as f32;
        for n in 0..WINDOW_LEN {
            let weight = window(n) / droop;
            cosine[n] = weight * (turn * n as f32).cos();
            sine[n] = weight * (turn * n as f32).sin();
        }
    }
    for (hop, weight) in table.hop_weights.iter_mut().enumerate() {
        let samples = hop * SHORT_LEN..(hop + 1) * SHORT_LEN;
        *weight = samples.map(|n| window(n) * window(n)).sum();
    }
    table
});

/// The last window of what was heard.
#[derive(Debug, Clone)]
pub(super) struct LowBand {
    samples: [f32; WINDOW_LEN],
    /// Mean square of each hop at 8 kHz.
    hops: [f32; WINDOW_HOPS],
}

impl LowBand {
    pub(super) fn new() -> Self {
        // The table is made here rather than with the first packet.
        LazyLock::force(&TABLE);
        Self {
            samples: [0.0; WINDOW_LEN],
            hops: [0.0; WINDOW_HOPS],
        }
    }

    /// Takes a hop, and tells what the window that ends with it holds.
    pub(super) fn hear(&mut self, samples: &[f32; HOP_LEN], hop: Hop) -> Option<LowTone> {
        self.samples.copy_within(SHORT_LEN.., 0);
        let (quads, _) = samples.as_chunks::<STEP>();
        let newest = &mut self.samples[WINDOW_LEN - SHORT_LEN..];
        for (short, quad) in newest.iter_mut().zip(quads) {
            *short = quad.iter().sum::<f32>() / STEP as f32;
        }
        self.hops.copy_within(1.., 0);
        self.hops[WINDOW_HOPS - 1] = hop.mean_square;
        if !hop.is_audible {
            return None;
        }
        self.tone()
    }

    fn tone(&self) -> Option<LowTone> {
        let weighted = self.hops.iter().zip(&TABLE.hop_weights);
        let total: f32 = weighted.map(|(hop, weight)| hop * weight).sum();
        let mut power = [0.0f32; BINS];
        for (power, [cosine, sine]) in power.iter_mut().zip(&TABLE.bins) {
            let (re, im) = (dot(&self.samples, cosine), dot(&self.samples, sine));
            // Both halves of the spectrum, by Parseval's theorem.
            *power = 2.0 / WINDOW_LEN as f32 * (re * re + im * im);
        }
        let first = greatest(&power, |_| true)?;
        let second = greatest(&power, |bin| {
            let (before, after) = (power[bin - 1], power[bin + 1]);
            bin.abs_diff(first) >= APART
                && power[bin] >= before.max(after)
                && power[bin] >= SECOND_MIN * power[first]
        });
        let is_near = |bin: usize| {
            let reach = |tone: usize| bin.abs_diff(tone) <= REACH;
            reach(first) || second.is_some_and(reach)
        };
        let near = power.iter().enumerate().filter(|(bin, _)| is_near(*bin));
        let held: f32 = near.map(|(_, power)| power).sum();
        if held < PURITY_MIN * total || total <= 0.0 {
            return None;
        }
        let mut hz = [frequency(&power, first), 0.0];
        if let Some(second) = second {
            hz[1] = frequency(&power, second);
            hz.sort_by(f32::total_cmp);
        }
        let tones = if second.is_some() { &hz[..] } else { &hz[..1] };
        tones
            .iter()
            .all(|hz| TONE_HZ.contains(hz))
            .then(|| LowTone {
                hz,
                mean_square: held / TABLE.hop_weights.iter().sum::<f32>(),
            })
    }
}

/// The greatest bin that is not at the edge and is fit.
fn greatest(power: &[f32; BINS], is_fit: impl Fn(usize) -> bool) -> Option<usize> {
    (1..BINS - 1)
        .filter(|&bin| is_fit(bin))
        .max_by(|&a, &b| power[a].total_cmp(&power[b]))
}

/// Frequency of the tone around a bin: under a Hann window the amplitudes of the greatest bin and
/// its greater neighbour tell how far between them it lies.
fn frequency(power: &[f32; BINS], bin: usize) -> f32 {
    let (below, above) = (power[bin - 1], power[bin + 1]);
    let (neighbour, side) = match above > below {
        true => (above, 1.0),
        false => (below, -1.0),
    };
    let ratio = (neighbour / power[bin].max(f32::MIN_POSITIVE)).sqrt();
    let offset = ((2.0 * ratio - 1.0) / (ratio + 1.0)).max(0.0);
    ((FIRST_BIN + bin) as f32 + side * offset) * BIN_HZ
}

/// Eight sums side by side, for a sum in order cannot be made in vectors.
fn dot(samples: &Row, weights: &Row) -> f32 {
    let (samples, _) = samples.as_chunks::<8>();
    let (weights, _) = weights.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (samples, weights) in samples.iter().zip(weights) {
        for (sum, (sample, weight)) in sums.iter_mut().zip(samples.iter().zip(weights)) {
            *sum += sample * weight;
        }
    }
    sums.iter().sum()
}
