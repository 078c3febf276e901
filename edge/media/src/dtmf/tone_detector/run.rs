//! Whether windows in a row are a digit. What a phone sounds is steadier than what a mouth does.

use trunkline_edge_api::Digit;

use super::window::{Pair, Sighting};

/// Windows that make a digit.
pub(super) const WINDOWS_MIN: u32 = 4;

/// How far a window's frequencies may be from the mean of those before it, as a share: a voice
/// glides, a key does not, and the measurement itself is off by 0.4 % at worst.
const GLIDE_MAX: f32 = 0.0045;

/// Mean share of the power that the tones of a digit hold; a single window may have less.
const PURITY_MEAN_MIN: f32 = 0.84;

/// How far the deviations of both tones may be apart, as a share: 1.5 % one way and 1.5 % the other
/// are to be heard, and then there is the error of the measurement. Harmonics of a voice that
/// happen to be near the two frequencies are mostly further apart.
const STRETCH_MAX: f32 = 0.0325;

/// Windows in a row of one digit at steady frequencies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub(super) digit: Digit,
    /// The tones of the window that they fill best.
    pub(super) pair: Pair,
    windows: u32,
    /// Sums over the windows.
    deviations: [f32; 2],
    purity: f32,
}

impl Run {
    /// A run of one window.
    pub(super) fn new(sighting: &Sighting) -> Self {
        Self {
            digit: sighting.digit,
            pair: sighting.pair,
            windows: 1,
            deviations: sighting.deviations,
            purity: sighting.purity,
        }
    }

    /// The run with one window more, or the one that begins with it.
    pub(super) fn extend(self, sighting: &Sighting) -> Self {
        let windows = self.windows as f32;
        let is_steady = self
            .deviations
            .iter()
            .zip(sighting.deviations)
            .all(|(sum, deviation)| (deviation - sum / windows).abs() <= GLIDE_MAX);
        if self.digit != sighting.digit || !is_steady {
            return Self::new(sighting);
        }
        let [low, high] = sighting.deviations;
        Self {
            digit: self.digit,
            pair: self.pair.stronger(sighting.pair),
            windows: self.windows + 1,
            deviations: [self.deviations[0] + low, self.deviations[1] + high],
            purity: self.purity + sighting.purity,
        }
    }

    /// Whether it is long, pure and true enough for a digit.
    pub(super) fn is_digit(&self) -> bool {
        let windows = self.windows as f32;
        let [low, high] = self.deviations;
        self.windows >= WINDOWS_MIN
            && self.purity >= PURITY_MEAN_MIN * windows
            && (low - high).abs() <= STRETCH_MAX * windows
    }
}
