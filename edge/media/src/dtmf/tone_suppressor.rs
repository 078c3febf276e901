//! Taking digits out of the audio, for legs whose peer types what nobody else may learn.
//!
//! A tone is known to be a digit only when it has lasted a while; by then its beginning has been
//! said. So the audio is held back by [`DELAY_MILLIS`], and all that is held is silenced as soon as
//! the newest 25 ms look like a digit. Of a digit that a [`ToneDetector`] recognises without noise
//! nothing gets through; noise 12 dB below it may cost up to [`LEAK_MAX_MILLIS`] at either end,
//! less than any receiver recognises (Q.24: 23 ms).
//!
//! Speech that looks like a digit for a moment loses that moment: some 30 ms at a time.

use super::DigitEvent;
use super::tone_detector::{HOP_MILLIS, ToneDetector};
use crate::audio::SampleRate;

/// By how much the audio is late: a window of the detector, and the hop in which a tone begins.
pub const DELAY_MILLIS: u32 = 30;

/// How much of either end of a digit with noise on it may get through, milliseconds.
pub const LEAK_MAX_MILLIS: u32 = 10;

/// See the module's description.
#[derive(Debug, Clone)]
pub struct ToneSuppressor {
    detector: ToneDetector,
    /// What is held back; the oldest at `next`.
    held: Box<[i16]>,
    next: usize,
    hop_len: usize,
}

impl ToneSuppressor {
    /// A suppressor that holds silence. Allocates once.
    #[must_use]
    pub fn new(sample_rate: SampleRate) -> Self {
        Self {
            detector: ToneDetector::new(sample_rate),
            held: vec![0; sample_rate.samples(DELAY_MILLIS)].into_boxed_slice(),
            next: 0,
            hop_len: sample_rate.samples(HOP_MILLIS),
        }
    }

    /// Replaces the next samples, at most 60 ms and best a multiple of [`HOP_MILLIS`], by those of
    /// [`DELAY_MILLIS`] ago without digits. The caller drains [`Self::poll_event`] afterwards.
    pub fn handle_audio(&mut self, audio: &mut [i16]) {
        for hop in audio.chunks_mut(self.hop_len) {
            self.detector.handle_audio(hop);
            if self.detector.is_suspicious() {
                self.held.fill(0);
                hop.fill(0);
            }
            for sample in hop {
                std::mem::swap(sample, &mut self.held[self.next]);
                self.next += 1;
                if self.next == self.held.len() {
                    self.next = 0;
                }
            }
        }
    }

    /// Nothing more will come: a digit that sounds has ended.
    pub fn finish(&mut self) {
        self.detector.finish();
    }

    /// The digits that were taken out, in order.
    pub fn poll_event(&mut self) -> Option<DigitEvent> {
        self.detector.poll_event()
    }
}

#[cfg(test)]
mod tests;
