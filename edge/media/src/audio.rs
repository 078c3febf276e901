//! Audio as this crate holds it: mono, 16-bit samples at one of three rates.

/// How many samples make a second. Every codec decodes to, and encodes from, one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum SampleRate {
    /// Narrowband: G.711 and most of the telephone network.
    Hz8000 = 8_000,
    /// Wideband: G.722.
    Hz16000 = 16_000,
    /// Fullband: Opus as browsers run it.
    Hz48000 = 48_000,
}

impl SampleRate {
    /// All rates, lowest first.
    pub const ALL: [Self; 3] = [Self::Hz8000, Self::Hz16000, Self::Hz48000];

    /// The highest rate: what a buffer must be sized for when the rate is chosen later.
    pub const MAX: Self = Self::Hz48000;

    /// Samples per second.
    #[must_use]
    pub const fn hz(self) -> u32 {
        self as u32
    }

    /// Samples in `millis` milliseconds, always a whole number.
    #[must_use]
    pub const fn samples(self, millis: u32) -> usize {
        (self as u32 / 1_000 * millis) as usize
    }

    /// The rate of `hz`; `None` when it is none of ours.
    #[must_use]
    pub const fn from_hz(hz: u32) -> Option<Self> {
        match hz {
            8_000 => Some(Self::Hz8000),
            16_000 => Some(Self::Hz16000),
            48_000 => Some(Self::Hz48000),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_found_again_by_its_number_and_counts_whole_samples() {
        for rate in SampleRate::ALL {
            assert_eq!(SampleRate::from_hz(rate.hz()), Some(rate));
            assert_eq!(rate.samples(1_000), rate.hz() as usize);
        }
        assert_eq!(SampleRate::from_hz(44_100), None);
        assert_eq!(SampleRate::Hz48000.samples(10), 480);
    }
}
