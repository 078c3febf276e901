//! Whether 25 ms are of a digit.

use std::f32::consts::{PI, TAU};
use std::ops::{Range, RangeInclusive};

use trunkline_edge_api::Digit;

use super::spectrum::{
    Complex, FREQUENCIES_HZ, HOP_LEN, Hop, TONES, leakage, mean_square, turn_back,
};
use super::{DEVIATION_MAX, LEVEL_MIN_DBM0, PURITY_MIN};
use crate::narrowband;
use crate::tone::level::mean_square_of_dbm0;

/// Hops of a window: two halves of three, which share one.
pub(super) const WINDOW_HOPS: usize = 5;

const HOP_SECS: f32 = HOP_LEN as f32 / narrowband::HZ;

/// The digit of each row and column of the keypad, by event code (RFC 4733 §3.2).
const KEYPAD: [[u8; 4]; 4] = [[1, 2, 3, 12], [4, 5, 6, 13], [7, 8, 9, 14], [10, 0, 11, 15]];

/// Share of the power that both tones hold at least before losses in the filter are known: a
/// suspect off its frequencies as far as it may be.
const ROUGH_SHARE_MIN: f32 = 0.15;

/// Mean squares of a digit's tones.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub(super) low: f32,
    pub(super) high: f32,
}

impl Pair {
    pub(super) fn stronger(self, other: Self) -> Self {
        if other.low + other.high > self.low + self.high {
            other
        } else {
            self
        }
    }
}

/// A digit, as a window has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sighting {
    pub(super) digit: Digit,
    pub(super) pair: Pair,
    /// By how much each tone is off, as a share of its frequency, upwards positive.
    pub(super) deviations: [f32; 2],
    /// Share of the power that both tones hold; somewhat above 1 when they are measured so.
    pub(super) purity: f32,
}

/// How much two tones may differ from those of a digit.
struct Limits {
    /// Of each tone, as a share of its frequency.
    deviation_max: f32,
    /// Share of the power that both tones hold.
    purity_min: f32,
    /// Power of the high tone over that of the low one.
    twist: RangeInclusive<f32>,
}

/// A digit: -9 to +5 dB of twist, 1 dB beyond Q.24.
const DIGIT: Limits = Limits {
    deviation_max: DEVIATION_MAX,
    purity_min: PURITY_MIN,
    twist: 0.126..=3.16,
};

/// What may become one: half of it is there, or there is noise on it.
const SUSPECT: Limits = Limits {
    deviation_max: 0.035,
    purity_min: 0.6,
    twist: 0.05..=8.0,
};

/// What a window is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Finding {
    /// No part of a digit.
    Nothing,
    /// It may become a digit.
    Suspect,
    /// A digit.
    Digit(Sighting),
}

/// Knows what a window of a digit is like.
#[derive(Debug, Clone)]
pub(super) struct Judge {
    /// Mean square of the softest tone.
    tone_min: f32,
    /// Per hop of a window and per tone: [`turn_back`] to the window's beginning.
    turns: [[Complex; TONES]; WINDOW_HOPS],
}

impl Judge {
    pub(super) fn new() -> Self {
        use std::array::from_fn;
        Self {
            tone_min: mean_square_of_dbm0(LEVEL_MIN_DBM0),
            turns: from_fn(|hops| from_fn(|index| turn_back(index, hops))),
        }
    }

    pub(super) fn judge(&self, hops: &[Hop; WINDOW_HOPS]) -> Finding {
        let energy: f32 = hops.iter().map(|hop| hop.energy).sum();
        let power = energy / (WINDOW_HOPS * HOP_LEN) as f32;
        if power < 2.0 * self.tone_min {
            return Finding::Nothing;
        }
        let low = self.strongest(hops, 0..TONES / 2);
        let high = self.strongest(hops, TONES / 2..TONES);
        // The rest costs arctangents; most windows of speech end here.
        if low.1 + high.1 < ROUGH_SHARE_MIN * power {
            return Finding::Nothing;
        }
        let code = KEYPAD[low.0][high.0 - TONES / 2];
        let Some(digit) = Digit::from_event(code) else {
            return Finding::Nothing;
        };
        // Each tone leaks into the filter of the other, the stronger one more: it is measured first,
        // and again when the weaker one is known.
        let (strong, weak) = if low.1 > high.1 {
            (low.0, high.0)
        } else {
            (high.0, low.0)
        };
        let strong_roughly = self.measure(hops, strong, None);
        let weak_tone = self.measure(hops, weak, Some(strong_roughly.leak_to(weak)));
        let strong_tone = self.measure(hops, strong, Some(weak_tone.leak_to(strong)));
        let (low_tone, high_tone) = if strong == low.0 {
            (strong_tone, weak_tone)
        } else {
            (weak_tone, strong_tone)
        };
        let sighting = Sighting {
            digit,
            pair: Pair {
                low: low_tone.power,
                high: high_tone.power,
            },
            deviations: [low_tone.deviation(), high_tone.deviation()],
            purity: (low_tone.power + high_tone.power) / power,
        };
        if self.is_within(&DIGIT, &sighting) {
            Finding::Digit(sighting)
        } else if self.is_within(&SUSPECT, &sighting) {
            Finding::Suspect
        } else {
            Finding::Nothing
        }
    }

    fn is_within(&self, limits: &Limits, sighting: &Sighting) -> bool {
        let Pair { low, high } = sighting.pair;
        let [low_off, high_off] = sighting.deviations;
        low_off.abs().max(high_off.abs()) <= limits.deviation_max
            && sighting.purity >= limits.purity_min
            && low.min(high) >= self.tone_min
            && limits.twist.contains(&(high / low))
    }

    /// The strongest tone of a group and its mean square, roughly.
    fn strongest(&self, hops: &[Hop; WINDOW_HOPS], group: Range<usize>) -> (usize, f32) {
        let mut strongest = (group.start, 0.0);
        for index in group {
            let turned = std::array::from_fn(|hop| hops[hop].tones[index] * self.turns[hop][index]);
            let power = Halves::new(turned).mean_square();
            if power > strongest.1 {
                strongest = (index, power);
            }
        }
        strongest
    }

    /// The tone at `index`, without what another leaks into its filter.
    fn measure(&self, hops: &[Hop; WINDOW_HOPS], index: usize, leak: Option<Leak>) -> Measured {
        let halves = Halves::new(std::array::from_fn(|hop| {
            let tones = &hops[hop].tones;
            let own = match &leak {
                Some(leak) => tones[index] - tones[leak.from] * leak.share,
                None => tones[index],
            };
            own * self.turns[hop][index]
        }));
        let off_hz = halves.off_hz();
        Measured {
            index,
            power: halves.mean_square() / gain(off_hz).powi(2),
            off_hz,
        }
    }
}

/// A tone near one of the frequencies.
struct Measured {
    index: usize,
    /// Mean square.
    power: f32,
    off_hz: f32,
}

impl Measured {
    /// By how much it is off, as a share of the frequency, upwards positive.
    fn deviation(&self) -> f32 {
        self.off_hz / f32::from(FREQUENCIES_HZ[self.index])
    }

    fn leak_to(&self, to: usize) -> Leak {
        Leak {
            from: self.index,
            share: leakage(self.index, self.off_hz, to),
        }
    }
}

/// What one filter hears of the tone of another.
struct Leak {
    from: usize,
    share: Complex,
}

/// A tone in the first and in the last 15 ms of a window. The middle hop of each counts twice,
/// which keeps the tones of the other group 26 dB down.
struct Halves([Complex; 2]);

impl Halves {
    /// Of the tone in each hop, turned back to the window's beginning.
    fn new(turned: [Complex; WINDOW_HOPS]) -> Self {
        let half = |at: usize| {
            let sides = turned[at] + turned[at + 2];
            sides.scale(0.25) + turned[at + 1].scale(0.5)
        };
        Self([half(0), half(2)])
    }

    fn mean_square(&self) -> f32 {
        let [first, last] = self.0;
        mean_square((first.square() + last.square()) / 2.0)
    }

    /// By how many hertz the tone is off, up to 50.
    fn off_hz(&self) -> f32 {
        /// From the middle of the first half to that of the last.
        const DISTANCE_SECS: f32 = 2.0 * HOP_SECS;
        let [first, last] = self.0;
        (last * first.conjugate()).angle() / (TAU * DISTANCE_SECS)
    }
}

/// What remains of a tone's amplitude in one of the [`Halves`] when it is off by `hz`, up to 50.
fn gain(hz: f32) -> f32 {
    let angle = PI * hz * HOP_SECS;
    let in_hop = if angle == 0.0 {
        1.0
    } else {
        angle.sin() / angle
    };
    in_hop * angle.cos().powi(2)
}
