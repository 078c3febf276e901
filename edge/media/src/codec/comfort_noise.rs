//! Comfort noise: RFC 3389. What a sender that falls silent says of the noise around it, and noise
//! that sounds like that.
//!
//! ```text
//!   octet 0      0 LLLLLLL      level, -L dB below overload
//!   octet 1..M   N1 .. NM       reflection coefficients k = 258 (N - 127) / 32768, optional
//! ```
//!
//! The coefficients are those of an all-pole filter `1 / A(z)` with `A(z) = 1 + k1 z^-1` at order
//! one: positive correlation of neighbours makes `k1` negative. The RFC leaves the sign open; this
//! is how other senders have it. They describe audio sampled at 8 kHz.

use crate::audio::SampleRate;
use crate::resample::Resampler;

#[cfg(test)]
mod tests;

/// Most coefficients that are made use of; a receiver may leave out the later ones (RFC 3389 §3).
const ORDER_MAX: usize = 12;
/// Coefficients that we send: what the example of G.711 Appendix II has.
const ORDER_SENT: usize = 10;
/// Longest payload that we send.
pub(crate) const PAYLOAD_LEN_MAX: usize = 1 + ORDER_SENT;
/// Levels are -n dB below overload; softer than this is silence in 16 bits.
const LEVEL_MAX: u8 = 90;
/// The softest level that there is.
const LEVEL_SILENT: u8 = 127;
/// Overload of 16-bit samples.
const OVERLOAD: f32 = 32_768.0;
/// A coefficient beyond this rings for longer than noise lasts.
const REFLECTION_MAX: f32 = 0.98;
/// What the correlation at lag 0 is raised by, so that a tone in the noise does not become one of
/// the filter.
const WHITENING: f32 = 1.001;
/// How much of the way to a new level each sample goes: 12 ms for two thirds of it at 8 kHz.
const GAIN_STEP: f32 = 0.01;
/// Samples at 8 kHz that are made at once.
const PIECE: usize = 80;
/// Samples of the highest rate for each at 8 kHz.
const FACTOR_MAX: usize = 6;

/// What is known of a noise.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Description {
    /// Root mean square, of one; 0: none.
    rms: f32,
    reflections: [f32; ORDER_MAX],
}

impl Description {
    const SILENCE: Self = Self {
        rms: 0.0,
        reflections: [0.0; ORDER_MAX],
    };

    /// `None` of an empty payload.
    fn parse(payload: &[u8]) -> Option<Self> {
        let (level, coefficients) = payload.split_first()?;
        let mut parsed = Self::SILENCE;
        let level = level & 0x7f;
        if level <= LEVEL_MAX {
            parsed.rms = OVERLOAD * 10f32.powf(-f32::from(level) / 20.0);
        }
        for (reflection, &index) in parsed.reflections.iter_mut().zip(coefficients) {
            let value = 258.0 * (f32::from(index) - 127.0) / 32_768.0;
            *reflection = value.clamp(-REFLECTION_MAX, REFLECTION_MAX);
        }
        Some(parsed)
    }

    /// By how much the filter makes what goes through it louder: 1 over the product of
    /// `1 - k^2`.
    fn power_gain(&self) -> f32 {
        let lost: f32 = self.reflections.iter().map(|k| 1.0 - k * k).product();
        1.0 / lost
    }
}

/// What is to be sent of the noise in `pcm`, sampled at 8 kHz: writes the payload and returns its
/// length. Only the level of what is silence in 16 bits. A constant offset is none of the noise:
/// A-law has no zero, its silence is eight steps above.
pub(crate) fn describe(pcm: &[i16], out: &mut [u8; PAYLOAD_LEN_MAX]) -> usize {
    let len = pcm.len().max(1) as f32;
    let mean = pcm.iter().map(|&sample| f32::from(sample)).sum::<f32>() / len;
    let correlation: [f32; ORDER_SENT + 1] = std::array::from_fn(|lag| {
        let later = pcm.iter().skip(lag);
        let pairs = pcm.iter().zip(later);
        pairs
            .map(|(&a, &b)| (f32::from(a) - mean) * (f32::from(b) - mean))
            .sum()
    });
    let share = correlation[0] / len / (OVERLOAD * OVERLOAD);
    let level = (-10.0 * share.max(1e-20).log10()).round();
    out[0] = level.clamp(0.0, f32::from(LEVEL_SILENT)) as u8;
    if out[0] > LEVEL_MAX {
        return 1;
    }
    let reflections = reflections_of(correlation);
    for (index, reflection) in out[1..].iter_mut().zip(reflections) {
        let nearest = (reflection * 32_768.0 / 258.0).round() + 127.0;
        *index = nearest.clamp(0.0, 254.0) as u8;
    }
    PAYLOAD_LEN_MAX
}

/// Levinson's recursion.
fn reflections_of(mut correlation: [f32; ORDER_SENT + 1]) -> [f32; ORDER_SENT] {
    correlation[0] *= WHITENING;
    let mut reflections = [0.0; ORDER_SENT];
    let mut filter = [0.0; ORDER_SENT + 1];
    filter[0] = 1.0;
    let mut error = correlation[0];
    for order in 1..=ORDER_SENT {
        let sum: f32 = (0..order).map(|n| filter[n] * correlation[order - n]).sum();
        if error <= f32::EPSILON * correlation[0] {
            break;
        }
        let reflection = -sum / error;
        let before = filter;
        for n in 1..=order {
            filter[n] = before[n] + reflection * before[order - n];
        }
        error *= 1.0 - reflection * reflection;
        reflections[order - 1] = reflection;
    }
    reflections
}

/// Noise at one rate. It holds 0.4 KB.
#[derive(Debug)]
pub(crate) struct NoiseGenerator {
    description: Description,
    /// What makes the excitation as loud as the description asks for.
    gain_wanted: f32,
    gain: f32,
    seed: u32,
    /// The lattice's memory: backward errors, lowest order first.
    backward: [f32; ORDER_MAX],
    resampler: Resampler,
    /// Samples for each one at 8 kHz.
    factor: usize,
    /// Samples that were made beyond what was asked for.
    left: [i16; FACTOR_MAX],
    left_len: usize,
}

impl NoiseGenerator {
    /// Silence, until a level is known.
    pub(crate) fn new(rate: SampleRate) -> Self {
        Self {
            description: Description::SILENCE,
            gain_wanted: 0.0,
            gain: 0.0,
            seed: 0x2545_f491,
            backward: [0.0; ORDER_MAX],
            resampler: Resampler::new(SampleRate::Hz8000, rate),
            factor: (rate.hz() / SampleRate::Hz8000.hz()) as usize,
            left: [0; FACTOR_MAX],
            left_len: 0,
        }
    }

    /// Takes what a comfort noise payload says; of an empty one nothing.
    pub(crate) fn handle_payload(&mut self, payload: &[u8]) {
        let Some(description) = Description::parse(payload) else {
            return;
        };
        // The variance of what is uniform between -1 and 1 is a third.
        self.gain_wanted = description.rms * (3.0 / description.power_gain()).sqrt();
        self.description = description;
    }

    /// Fills `out` with what follows.
    pub(crate) fn fill(&mut self, out: &mut [i16]) {
        if self.gain_wanted == 0.0 && self.gain < 1e-3 {
            self.gain = 0.0;
            return out.fill(0);
        }
        let taken = self.left_len.min(out.len());
        let (first, mut rest) = out.split_at_mut(taken);
        first.copy_from_slice(&self.left[..taken]);
        self.left.copy_within(taken..self.left_len, 0);
        self.left_len -= taken;
        let mut narrow = [0; PIECE];
        let mut made = [0; PIECE * FACTOR_MAX];
        while !rest.is_empty() {
            let len = rest.len().div_ceil(self.factor).min(PIECE);
            self.make(&mut narrow[..len]);
            let made_len = self.resampler.process(&narrow[..len], &mut made);
            let (now, later) = made[..made_len].split_at(made_len.min(rest.len()));
            rest[..now.len()].copy_from_slice(now);
            rest = &mut rest[now.len()..];
            // Less than a sample at 8 kHz.
            self.left_len = later.len().min(FACTOR_MAX);
            self.left[..self.left_len].copy_from_slice(&later[..self.left_len]);
        }
    }

    /// Noise at 8 kHz.
    fn make(&mut self, out: &mut [i16]) {
        for sample in out {
            self.seed = self
                .seed
                .wrapping_mul(1_664_525)
                .wrapping_add(1_013_904_223);
            let uniform = (self.seed.cast_signed() >> 8) as f32 / (1 << 23) as f32;
            self.gain += (self.gain_wanted - self.gain) * GAIN_STEP;
            let mut forward = uniform * self.gain;
            for order in (0..ORDER_MAX).rev() {
                let reflection = self.description.reflections[order];
                forward -= reflection * self.backward[order];
                let backward = self.backward[order] + reflection * forward;
                if let Some(next) = self.backward.get_mut(order + 1) {
                    *next = backward;
                }
            }
            self.backward[0] = forward;
            *sample = forward.clamp(f32::from(i16::MIN), f32::from(i16::MAX)) as i16;
        }
    }
}
