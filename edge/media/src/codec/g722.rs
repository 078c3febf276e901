//! G.722 at 64 kbit/s (ITU-T G.722; RFC 3551 §4.5.2): 16 kHz audio, split into two bands of half
//! the rate, each coded by adaptive differential PCM.
//!
//! ```text
//!   16 kHz --> QMF --+--> lower band, 0-4 kHz  --> 6 bits --+
//!                    |                                      +--> one byte per two samples
//!                    +--> higher band, 4-8 kHz --> 2 bits --+
//! ```
//!
//! Left out: the modes of 56 and 48 kbit/s, which give the byte's lowest bits to other data and
//! which RTP has no name for.

use super::BadFrame;
use adpcm::{HighBand, LowBand};

mod adpcm;
#[cfg(test)]
mod tests;

/// Every second coefficient of the 24-tap quadrature mirror filter (G.722 table 11), units of
/// 1/8192; the others are the same in reverse.
const QMF: [i16; 12] = [3, -11, 12, 32, -210, 951, 3876, -805, 362, -156, 53, -11];
/// The others.
const QMF_REVERSED: [i16; 12] = [-11, 53, -156, 362, -805, 3876, 951, -210, 32, 12, -11, 3];
const HALF: usize = QMF.len();

/// Bytes that are coded at once: 10 ms.
const PIECE: usize = 80;

/// A payload has one byte per two samples, at most 120 ms of them.
pub(super) fn check(payload: &[u8]) -> Result<(), BadFrame> {
    match payload.len() {
        0 => Err(BadFrame::Empty),
        1..=960 => Ok(()),
        _ => Err(BadFrame::TooLong),
    }
}

/// One of the two branches of the quadrature mirror filter: its samples at half the rate, the
/// last eleven kept from piece to piece.
#[derive(Debug, Clone)]
struct Branch([i16; HALF - 1 + PIECE]);

impl Branch {
    fn new() -> Self {
        Self([0; HALF - 1 + PIECE])
    }

    fn set(&mut self, index: usize, sample: i16) {
        self.0[HALF - 1 + index] = sample;
    }

    /// The filter over the twelve samples that end at `index`.
    fn filter(&self, index: usize, coefficients: &[i16; HALF]) -> i32 {
        let samples = self.0[index..index + HALF].iter().zip(coefficients);
        samples.map(|(&x, &c)| i32::from(x) * i32::from(c)).sum()
    }

    /// Keeps what the next piece's first samples need.
    fn keep(&mut self, len: usize) {
        self.0.copy_within(len..len + HALF - 1, 0);
    }
}

fn saturate(value: i32) -> i16 {
    value.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
}

/// Bytes to samples at 16 kHz.
#[derive(Debug, Clone)]
pub(super) struct Decoder {
    low: LowBand,
    high: HighBand,
    sums: Branch,
    differences: Branch,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self {
            low: LowBand::new(),
            high: HighBand::new(),
            sums: Branch::new(),
            differences: Branch::new(),
        }
    }

    /// Decodes to two samples per byte as far as `out` has room; returns how many that made.
    pub(super) fn decode(&mut self, codes: &[u8], out: &mut [i16]) -> usize {
        let mut made = 0;
        for (codes, out) in codes.chunks(PIECE).zip(out.chunks_mut(2 * PIECE)) {
            for (n, &code) in codes.iter().enumerate() {
                let low = i32::from(self.low.decode(code));
                let high = i32::from(self.high.decode(code >> 6));
                self.sums.set(n, saturate(low + high));
                self.differences.set(n, saturate(low - high));
            }
            for (n, pair) in (0..codes.len()).zip(out.chunks_exact_mut(2)) {
                pair[0] = saturate(self.differences.filter(n, &QMF_REVERSED) >> 11);
                pair[1] = saturate(self.sums.filter(n, &QMF) >> 11);
                made += 2;
            }
            self.sums.keep(codes.len());
            self.differences.keep(codes.len());
        }
        made
    }
}

/// Samples at 16 kHz to bytes.
#[derive(Debug, Clone)]
pub(super) struct Encoder {
    low: LowBand,
    high: HighBand,
    first: Branch,
    second: Branch,
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self {
            low: LowBand::new(),
            high: HighBand::new(),
            first: Branch::new(),
            second: Branch::new(),
        }
    }

    /// Encodes pairs of samples as far as `out` has room; returns how many bytes that made.
    pub(super) fn encode(&mut self, samples: &[i16], out: &mut [u8]) -> usize {
        let mut made = 0;
        for (samples, out) in samples.chunks(2 * PIECE).zip(out.chunks_mut(PIECE)) {
            for (n, pair) in samples.chunks_exact(2).enumerate() {
                self.first.set(n, pair[0]);
                self.second.set(n, pair[1]);
            }
            for (n, byte) in (0..samples.len() / 2).zip(&mut *out) {
                let first = self.first.filter(n, &QMF);
                let second = self.second.filter(n, &QMF_REVERSED);
                // Within 15 bits: the magnitudes of all coefficients sum to less than 2 * 8192.
                let low = self.low.encode(saturate((first + second) >> 14));
                let high = self.high.encode(saturate((second - first) >> 14));
                *byte = high << 6 | low;
                made += 1;
            }
            self.first.keep(samples.len() / 2);
            self.second.keep(samples.len() / 2);
        }
        made
    }
}
