//! Audio lines of tests.

use std::f64::consts::TAU;

use trunkline_edge_api::Digit;

use super::frequencies_hz;
use crate::audio::SampleRate;
use crate::tone::level::peak_of_sine;

/// Audio to be heard.
#[derive(Clone)]
pub(crate) struct Line {
    pub(crate) rate: SampleRate,
    pub(crate) samples: Vec<f64>,
    random: u64,
}

impl Line {
    pub(crate) fn new(rate: SampleRate) -> Self {
        Self {
            rate,
            samples: Vec::new(),
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    pub(crate) fn silence(&mut self, millis: f64) -> &mut Self {
        let len = (millis * f64::from(self.rate.hz()) / 1_000.0).round() as usize;
        self.samples.resize(self.samples.len() + len, 0.0);
        self
    }

    /// Two tones, each with its frequency, Hz, and its level, dBm0.
    pub(crate) fn tones(&mut self, millis: f64, tones: &[(f64, f64)]) -> &mut Self {
        let len = (millis * f64::from(self.rate.hz()) / 1_000.0).round() as usize;
        let began = self.samples.len();
        self.samples.extend((0..len).map(|index| {
            let secs = (began + index) as f64 / f64::from(self.rate.hz());
            tones
                .iter()
                .map(|(hz, dbm0)| peak_of_sine(*dbm0) * (TAU * hz * secs).sin())
                .sum::<f64>()
        }));
        self
    }

    pub(crate) fn press(&mut self, millis: f64, press: &Press) -> &mut Self {
        let [low, high] = frequencies_hz(press.digit).map(f64::from);
        let tones = [
            (low * (1.0 + press.low_off), press.low_dbm0),
            (high * (1.0 + press.high_off), press.high_dbm0),
        ];
        self.tones(millis, &tones)
    }

    /// White noise below 4 kHz would be worse by 3 or 8 dB at higher rates; here it fills the band.
    pub(crate) fn noise(&mut self, dbm0: f64) -> &mut Self {
        // A sine's peak is 3 dB above its effective value; the sum of twelve uniform numbers
        // less six has variance 1.
        let effective = peak_of_sine(dbm0) / 2f64.sqrt();
        for index in 0..self.samples.len() {
            let sum: f64 = (0..12).map(|_| self.uniform()).sum();
            self.samples[index] += (sum - 6.0) * effective;
        }
        self
    }

    pub(crate) fn uniform(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn pcm(&self) -> Vec<i16> {
        self.samples.iter().map(|&s| s.round() as i16).collect()
    }
}

/// A key as a phone sounds it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Press {
    pub(crate) digit: Digit,
    pub(crate) low_dbm0: f64,
    pub(crate) high_dbm0: f64,
    pub(crate) low_off: f64,
    pub(crate) high_off: f64,
}

impl Press {
    pub(crate) fn new(digit: Digit) -> Self {
        Self {
            digit,
            low_dbm0: -10.0,
            high_dbm0: -10.0,
            low_off: 0.0,
            high_off: 0.0,
        }
    }
}

pub(crate) fn all_digits() -> impl Iterator<Item = Digit> {
    (0..16).map(|code| Digit::from_event(code).unwrap())
}
