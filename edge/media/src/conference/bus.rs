//! One band of a conference: the sum of its voices, and what everybody hears.

use super::half_band::{Downsampler, Upsampler};
use super::limiter::Limiter;
use super::{Band, WIDE_LEN};

/// All voices at one rate. At 1,000 members the sum stays below 2^25.
#[derive(Debug)]
pub(super) struct Bus {
    band: Band,
    sum: [i32; WIDE_LEN],
    mix: [i16; WIDE_LEN],
    limiter: Limiter,
}

impl Bus {
    pub(super) fn new(band: Band) -> Self {
        Self {
            band,
            sum: [0; WIDE_LEN],
            mix: [0; WIDE_LEN],
            limiter: Limiter::new(),
        }
    }

    pub(super) fn band(&self) -> Band {
        self.band
    }

    pub(super) fn sum_mut(&mut self) -> &mut [i32] {
        &mut self.sum[..self.band.frame_len()]
    }

    pub(super) fn sum(&self) -> &[i32] {
        &self.sum[..self.band.frame_len()]
    }

    /// Adds a voice.
    pub(super) fn add(&mut self, pcm: &[i16]) {
        add(self.sum_mut(), pcm);
    }

    /// Makes the mix of the sum.
    pub(super) fn finish(&mut self) {
        let len = self.band.frame_len();
        self.limiter.apply(&self.sum[..len], &mut self.mix[..len]);
    }

    /// What who does not speak hears.
    pub(super) fn mix(&self) -> &[i16] {
        &self.mix[..self.band.frame_len()]
    }

    /// The limiter as it stands: who begins to speak hears on as loud as before.
    pub(super) fn limiter(&self) -> Limiter {
        self.limiter
    }

    pub(super) fn clear(&mut self) {
        self.sum_mut().fill(0);
    }
}

/// Adds samples to a sum of the same length.
pub(super) fn add(sum: &mut [i32], pcm: &[i16]) {
    for (sum, &sample) in sum.iter_mut().zip(pcm) {
        *sum += i32::from(sample);
    }
}

/// Takes samples out of a sum of the same length.
pub(super) fn subtract(sum: &mut [i32], pcm: &[i16]) {
    for (sum, &sample) in sum.iter_mut().zip(pcm) {
        *sum -= i32::from(sample);
    }
}

/// Carries the voices of each band into the other. Mixing and filtering are both linear, so two
/// conversions serve any number of members.
#[derive(Debug)]
pub(super) struct Crossover {
    up: Upsampler,
    down: Downsampler,
}

impl Crossover {
    pub(super) fn new() -> Self {
        Self {
            up: Upsampler::new(),
            down: Downsampler::new(),
        }
    }

    pub(super) fn cross(&mut self, narrow: &mut Bus, wide: &mut Bus) {
        let mut from_wide = [0; super::NARROW_LEN];
        self.down.add(wide.sum(), &mut from_wide);
        self.up.add(narrow.sum(), wide.sum_mut());
        for (sum, sample) in narrow.sum_mut().iter_mut().zip(from_wide) {
            *sum += sample;
        }
    }
}
