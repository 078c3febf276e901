//! Amplitude and phase of the eight frequencies, hop by hop.

use std::f32::consts::TAU;
use std::ops::{Add, Mul, Sub};

use trunkline_edge_api::Digit;

use crate::dtmf::{HIGH_GROUP_HZ, KEY_POSITIONS, LOW_GROUP_HZ};
use crate::narrowband;

/// Samples of a hop: 5 ms.
pub(super) const HOP_LEN: usize = 40;

pub(super) const TONES: usize = 8;

/// The low group, then the high group.
pub(super) const FREQUENCIES_HZ: [u16; TONES] = {
    let [a, b, c, d] = LOW_GROUP_HZ;
    let [e, f, g, h] = HIGH_GROUP_HZ;
    [a, b, c, d, e, f, g, h]
};

/// Where a digit's tones stand in [`FREQUENCIES_HZ`].
pub(super) fn tone_indices(digit: Digit) -> [usize; 2] {
    let (row, column) = KEY_POSITIONS[usize::from(digit.event())];
    [row, TONES / 2 + column]
}

/// Radians per sample of the tone at `index`.
fn step(index: usize) -> f32 {
    TAU * f32::from(FREQUENCIES_HZ[index]) / narrowband::HZ
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Complex {
    pub(super) re: f32,
    pub(super) im: f32,
}

impl Complex {
    pub(super) fn of_angle(radians: f32) -> Self {
        let (im, re) = radians.sin_cos();
        Self { re, im }
    }

    pub(super) fn conjugate(self) -> Self {
        Self {
            re: self.re,
            im: -self.im,
        }
    }

    pub(super) fn scale(self, factor: f32) -> Self {
        Self {
            re: self.re * factor,
            im: self.im * factor,
        }
    }

    pub(super) fn square(self) -> f32 {
        self.re * self.re + self.im * self.im
    }

    pub(super) fn angle(self) -> f32 {
        self.im.atan2(self.re)
    }
}

impl Add for Complex {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            re: self.re + other.re,
            im: self.im + other.im,
        }
    }
}

impl Sub for Complex {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            re: self.re - other.re,
            im: self.im - other.im,
        }
    }
}

impl Mul for Complex {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        Self {
            re: self.re * other.re - self.im * other.im,
            im: self.re * other.im + self.im * other.re,
        }
    }
}

/// What one hop holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hop {
    /// Sum of the squares of its samples.
    pub(super) energy: f32,
    /// Per frequency, half of the tone's peak times [`HOP_LEN`], and its phase at the hop's end.
    pub(super) tones: [Complex; TONES],
}

impl Hop {
    pub(super) const SILENT: Self = Self {
        energy: 0.0,
        tones: [Complex { re: 0.0, im: 0.0 }; TONES],
    };

    /// Mean square of the tone at `index`, as far as this hop can tell.
    pub(super) fn mean_square(&self, index: usize) -> f32 {
        mean_square(self.tones[index].square())
    }
}

/// Mean square of a tone from the square of its [`Hop::tones`].
pub(super) fn mean_square(square: f32) -> f32 {
    square * (2.0 / (HOP_LEN * HOP_LEN) as f32)
}

/// Eight Goertzel filters side by side.
#[derive(Debug, Clone)]
pub(super) struct Filters {
    cos: [f32; TONES],
    sin: [f32; TONES],
}

impl Filters {
    pub(super) fn new() -> Self {
        let steps: [f32; TONES] = std::array::from_fn(step);
        Self {
            cos: steps.map(f32::cos),
            sin: steps.map(f32::sin),
        }
    }

    pub(super) fn analyse(&self, samples: &[f32; HOP_LEN]) -> Hop {
        let mut hop = Hop::SILENT;
        let mut last = [0.0f32; TONES];
        let mut before = [0.0f32; TONES];
        for &sample in samples {
            hop.energy += sample * sample;
            for index in 0..TONES {
                let next = sample + 2.0 * self.cos[index] * last[index] - before[index];
                before[index] = last[index];
                last[index] = next;
            }
        }
        for (index, tone) in hop.tones.iter_mut().enumerate() {
            *tone = Complex {
                re: last[index] - self.cos[index] * before[index],
                im: self.sin[index] * before[index],
            };
        }
        hop
    }
}

/// By how much an exact tone turns in so many hops, backwards: what has been turned by it stands
/// still, and what still moves is the tone's deviation.
pub(super) fn turn_back(index: usize, hops: usize) -> Complex {
    Complex::of_angle(-step(index) * (HOP_LEN * hops) as f32)
}

/// What the filter at `to` hears of a tone near the frequency at `from`, as a share of what the
/// filter at `from` hears of it. `off_hz` is by how much that tone is off.
pub(super) fn leakage(from: usize, off_hz: f32, to: usize) -> Complex {
    let off = TAU * off_hz / narrowband::HZ;
    let heard_there = response(step(to) - step(from) - off);
    let heard_here = response(off);
    heard_there * heard_here.scale(1.0 / heard_here.square())
}

/// What a filter hears of a tone so many radians per sample below it: the mean of
/// `exp(j radians n)` over a hop. It is not 0 for what this module asks, less than 50 Hz, or for
/// what it divides.
fn response(radians: f32) -> Complex {
    let half = radians / 2.0;
    let len = HOP_LEN as f32;
    let magnitude = if half.abs() < 1e-6 {
        1.0
    } else {
        (half * len).sin() / (half.sin() * len)
    };
    Complex::of_angle(half * (len - 1.0)).scale(magnitude)
}
