//! Whether a member says something.
//!
//! The noise of six hundred open lines would drown every voice, and whoever says nothing can share
//! the others' mix. So a member that is quiet is left out of it, and comes back with the first
//! frame that is louder. Nothing is cut off at its beginning but what lies below the threshold.

/// Mean magnitude of a frame with which a closed gate opens: 52 dB below full scale, softer than
/// any speech and louder than a quiet line.
const OPENS_AT: u32 = 64;
/// Mean magnitude below which an open gate begins to close.
const CLOSES_BELOW: u32 = 40;
/// Frames of quiet after which it has closed, 600 ms: longer than the pauses between words.
const HOLD_FRAMES: u16 = 30;
/// Part of a new frame in a member's loudness: it follows within 160 ms.
const SMOOTHING: u32 = 8;
/// Loudness is kept in sixteenths.
const LOUDNESS_SCALE: u32 = 16;

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Gate {
    frames_left: u16,
    loudness: u32,
}

impl Gate {
    /// Takes a frame's mean magnitude; whether the frame is to be heard.
    pub(super) fn pass(&mut self, mean: u32) -> bool {
        if mean >= OPENS_AT {
            self.frames_left = HOLD_FRAMES;
        } else if mean < CLOSES_BELOW {
            self.frames_left = self.frames_left.saturating_sub(1);
        }
        if self.frames_left == 0 {
            self.loudness = 0;
            return false;
        }
        let risen = self.loudness - self.loudness / SMOOTHING;
        self.loudness = risen + mean * LOUDNESS_SCALE / SMOOTHING;
        true
    }

    /// No frame came, or it may not be heard.
    pub(super) fn close(&mut self) {
        *self = Self::default();
    }

    /// Smoothed mean magnitude, in sixteenths; 0 when closed.
    pub(super) fn loudness(&self) -> u32 {
        self.loudness
    }
}

/// Mean magnitude of a frame.
pub(super) fn mean_magnitude(pcm: &[i16]) -> u32 {
    let sum: u32 = pcm.iter().map(|s| u32::from(s.unsigned_abs())).sum();
    sum / (pcm.len() as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gate_opens_at_once_and_closes_after_the_pause_between_words() {
        let mut gate = Gate::default();
        assert!(!gate.pass(OPENS_AT - 1));
        assert!(gate.pass(OPENS_AT));
        for _ in 1..HOLD_FRAMES {
            assert!(gate.pass(0));
        }
        assert!(!gate.pass(0));
        assert_eq!(gate.loudness(), 0);
    }

    #[test]
    fn softer_end_of_a_word_keeps_the_gate_open() {
        let mut gate = Gate::default();
        assert!(gate.pass(OPENS_AT));
        assert!((0..1_000).all(|_| gate.pass(CLOSES_BELOW)));
    }

    #[test]
    fn loudness_follows_the_voice() {
        let mut gate = Gate::default();
        for _ in 0..100 {
            gate.pass(1_000);
        }
        let loudness = gate.loudness() / LOUDNESS_SCALE;
        assert!((900..=1_000).contains(&loudness), "{loudness}");
    }
}
