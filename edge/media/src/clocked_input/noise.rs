//! Comfort noise: RFC 3389 §3. The level is followed; the spectrum that the other bytes may
//! describe is left white, as most senders give none.

/// Levels are -n dB below overload; softer than this is silence in 16 bits.
const LEVEL_MAX: u8 = 90;

/// White noise of one level.
#[derive(Debug, Clone)]
pub(super) struct ComfortNoise {
    /// Largest magnitude of the uniformly distributed samples.
    peak: i32,
    state: u32,
}

impl ComfortNoise {
    /// Silence, until a level is known.
    pub(super) fn new() -> Self {
        Self {
            peak: 0,
            state: 0x2545_f491,
        }
    }

    /// Takes the level from a comfort noise payload; without one it stays.
    pub(super) fn handle_payload(&mut self, payload: &[u8]) {
        let Some(level) = payload.first().map(|byte| byte & 0x7f) else {
            return;
        };
        self.peak = if level > LEVEL_MAX {
            0
        } else {
            // The power of uniform noise is a third of its peak's square.
            let rms = 32_768.0 * 10f32.powf(-f32::from(level) / 20.0);
            (rms * 3f32.sqrt()).min(32_767.0) as i32
        };
    }

    pub(super) fn fill(&mut self, out: &mut [i16]) {
        if self.peak == 0 {
            return out.fill(0);
        }
        for sample in out {
            self.state = self
                .state
                .wrapping_mul(1_664_525)
                .wrapping_add(1_013_904_223);
            let uniform = self.state.cast_signed() >> 16;
            *sample = ((uniform * self.peak) >> 15) as i16;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_the_level_that_the_sender_states() {
        for level in [20u8, 40, 60] {
            let mut noise = ComfortNoise::new();
            noise.handle_payload(&[level, 7, 7]);
            let mut out = [0; 8_000];
            noise.fill(&mut out);
            let power = out.iter().map(|&s| f64::from(s).powi(2)).sum::<f64>() / 8_000.0;
            let measured = -10.0 * (power / 32_768f64.powi(2)).log10();
            assert!(
                (measured - f64::from(level)).abs() < 1.0,
                "{level}: {measured}"
            );
        }
    }

    #[test]
    fn silence_before_a_level_is_known_and_below_what_samples_can_tell() {
        let mut noise = ComfortNoise::new();
        let mut out = [1; 80];
        noise.handle_payload(&[]);
        noise.fill(&mut out);
        assert_eq!(out, [0; 80]);
        noise.handle_payload(&[127]);
        noise.fill(&mut out);
        assert_eq!(out, [0; 80]);
    }
}
