//! From a sum of voices to 16 bits.

/// Loudest sample.
const CEILING: f32 = 32_767.0;
/// Part of a frame in which a new, lower gain is reached: 2.5 ms of 20. What is above the ceiling
/// until then is clipped.
const ATTACK_DIVISOR: usize = 8;
/// How much of the gain comes back in a frame: 1 dB in 20 ms, slow enough not to pump.
const RELEASE_FACTOR: f32 = 1.122;

/// A gain that follows the peaks above full scale. Below it samples pass as they are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Limiter {
    gain: f32,
}

impl Limiter {
    pub(super) fn new() -> Self {
        Self { gain: 1.0 }
    }

    /// Writes a frame of `sum`, which is as long as `out`.
    pub(super) fn apply(&mut self, sum: &[i32], out: &mut [i16]) {
        let peak = sum.iter().fold(0, |peak, s| peak.max(s.unsigned_abs()));
        let wanted = if peak > i16::MAX as u32 {
            CEILING / peak as f32
        } else {
            1.0
        };
        if wanted >= 1.0 && self.gain >= 1.0 {
            for (out, &sum) in out.iter_mut().zip(sum) {
                *out = sum as i16;
            }
            return;
        }
        let (target, ramp_len) = if wanted < self.gain {
            (wanted, out.len() / ATTACK_DIVISOR)
        } else {
            (wanted.min(self.gain * RELEASE_FACTOR), out.len())
        };
        let ramp_len = ramp_len.max(1);
        let step = (target - self.gain) / ramp_len as f32;
        let (ramp, rest) = out.split_at_mut(ramp_len);
        let (sum_ramp, sum_rest) = sum.split_at(ramp_len);
        let mut gain = self.gain;
        for (out, &sum) in ramp.iter_mut().zip(sum_ramp) {
            gain += step;
            // The cast saturates.
            *out = (sum as f32 * gain) as i16;
        }
        for (out, &sum) in rest.iter_mut().zip(sum_rest) {
            *out = (sum as f32 * target) as i16;
        }
        self.gain = target;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(peak: f32) -> Vec<i32> {
        (0..160)
            .map(|n| (peak * (n as f32 * std::f32::consts::TAU / 16.0).sin()) as i32)
            .collect()
    }

    #[test]
    fn nothing_changes_up_to_full_scale() {
        let sum: Vec<i32> = (-32_767..=32_767).step_by(411).collect();
        let mut out = vec![0; sum.len()];
        let mut limiter = Limiter::new();
        for _ in 0..3 {
            limiter.apply(&sum, &mut out);
            assert!(sum.iter().zip(&out).all(|(&s, &o)| s == i32::from(o)));
        }
    }

    #[test]
    fn lasting_overload_is_turned_down_without_clipping() {
        let sum = tone(200_000.0);
        let mut out = [0; 160];
        let mut limiter = Limiter::new();
        limiter.apply(&sum, &mut out);
        limiter.apply(&sum, &mut out);
        let gain = 32_767.0 / sum.iter().max().copied().expect("160 samples") as f32;
        for (&sum, &out) in sum.iter().zip(&out) {
            let wanted = sum as f32 * gain;
            assert!((f32::from(out) - wanted).abs() <= 1.0, "{out} for {wanted}");
        }
    }

    #[test]
    fn gain_comes_back_within_a_second_and_then_exactly() {
        let mut out = [0; 160];
        let mut limiter = Limiter::new();
        limiter.apply(&tone(3_000_000.0), &mut out);
        let soft = tone(1_000.0);
        for _ in 0..50 {
            limiter.apply(&soft, &mut out);
        }
        assert_eq!(limiter, Limiter::new());
        assert!(soft.iter().zip(&out).all(|(&s, &o)| s == i32::from(o)));
    }

    #[test]
    fn thousand_full_scale_voices_stay_in_range() {
        let mut out = [0; 160];
        let mut limiter = Limiter::new();
        for sign in [1, -1] {
            limiter.apply(&[sign * 32_768_000; 160], &mut out);
            assert!(out.iter().all(|&o| i32::from(o) * sign > 32_700));
        }
    }
}
