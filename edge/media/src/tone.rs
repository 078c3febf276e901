//! Tones that the edge makes: call progress (ITU-T E.180, E.182) and digits (Q.23).
//!
//! | module | what it holds |
//! |---|---|
//! | [`preset`] | what a caller hears in several countries |
//! | [`level`] | what a sample of our 16 bits means in dBm0 |
//!
//! A segment's frequencies start at phase 0 and run on over the frames that a tone is asked for in,
//! so a tone has no seams. It rises and falls over [`RAMP_MICROS`], without which its edges are
//! clicks.

use trunkline_edge_api::{AudioCodec, AudioFormat, Tone, ToneSegment};

use crate::audio::SampleRate;

pub mod level;
pub mod preset;

/// How long a tone takes to rise and to fall, microseconds: too short to be heard or to be missed
/// by a detector of 40 ms digits, long enough that no click is heard.
pub const RAMP_MICROS: u32 = 2_000;

/// Where tones for a leg that is sent `format` are made: the codec's own rate, and the lowest where
/// it has several. No tone has more than [`Tone::FREQUENCY_MAX_HZ`].
#[must_use]
pub fn rate_for(format: &AudioFormat) -> SampleRate {
    match format.codec {
        AudioCodec::Pcmu | AudioCodec::Pcma | AudioCodec::Opus => SampleRate::Hz8000,
        AudioCodec::G722 => SampleRate::Hz16000,
        AudioCodec::L16 => {
            SampleRate::from_hz(format.clock_rate.get()).unwrap_or(SampleRate::Hz8000)
        }
    }
}

/// A second without sound, as a tone.
#[must_use]
pub fn silence() -> Tone {
    let segment = ToneSegment {
        on_millis: 0,
        off_millis: 1_000,
        frequencies_hz: [0, 0],
    };
    Tone::new(&[segment], Tone::LEVEL_DBM0).expect("a segment that has a length")
}

/// One pass of a cadence, as samples.
#[derive(Debug, Clone)]
pub struct ToneGenerator {
    tone: Tone,
    sample_rate: SampleRate,
    /// Peak of a segment's single frequency, and of each of two.
    peaks: [f64; 2],
    segment_index: usize,
    segment: SegmentState,
}

/// A segment under way.
#[derive(Debug, Clone)]
struct SegmentState {
    oscillators: [Oscillator; 2],
    /// Samples of tone.
    on_len: usize,
    /// Samples of tone and of silence after it.
    len: usize,
    /// Samples that were made.
    position: usize,
}

impl ToneGenerator {
    /// Starts `tone` from its beginning.
    #[must_use]
    pub fn new(tone: &Tone, sample_rate: SampleRate) -> Self {
        let peak = level::peak_of_sine(f64::from(tone.level_dbm0()));
        let mut generator = Self {
            tone: *tone,
            sample_rate,
            // The level is that of both frequencies together: each has half of the power.
            peaks: [peak, peak * std::f64::consts::FRAC_1_SQRT_2],
            segment_index: 0,
            segment: SegmentState::SILENT,
        };
        generator.restart();
        generator
    }

    /// Starts again from the beginning.
    pub fn restart(&mut self) {
        self.segment_index = 0;
        self.begin_segment();
    }

    /// Writes the next samples and returns how many: less than there is room for when the
    /// cadence's one pass ends, 0 when it has ended.
    pub fn fill(&mut self, out: &mut [i16]) -> usize {
        let mut written = 0;
        while written < out.len() && self.segment_index < self.tone.segments().len() {
            written += self.fill_from_segment(&mut out[written..]);
            if self.segment.position == self.segment.len {
                self.segment_index += 1;
                self.begin_segment();
            }
        }
        written
    }

    fn begin_segment(&mut self) {
        self.segment = match self.tone.segments().get(self.segment_index) {
            Some(segment) => SegmentState::new(segment, self.peaks, self.sample_rate),
            None => SegmentState::SILENT,
        };
    }

    fn fill_from_segment(&mut self, out: &mut [i16]) -> usize {
        let segment = &mut self.segment;
        let len = out.len().min(segment.len - segment.position);
        let on_len = len.min(segment.on_len.saturating_sub(segment.position));
        let (sounding, silent) = out[..len].split_at_mut(on_len);
        let ramp_len = self.sample_rate.samples(1) * RAMP_MICROS as usize / 1_000;
        for (index, sample) in sounding.iter_mut().enumerate() {
            let position = segment.position + index;
            let value: f64 = segment.oscillators.iter_mut().map(Oscillator::next).sum();
            let edge = (position + 1).min(segment.on_len - position);
            let gain = edge.min(ramp_len) as f64 / ramp_len as f64;
            *sample = (value * gain).round() as i16;
        }
        silent.fill(0);
        segment.position += len;
        len
    }
}

impl SegmentState {
    const SILENT: Self = Self {
        oscillators: [Oscillator::SILENT; 2],
        on_len: 0,
        len: 0,
        position: 0,
    };

    fn new(segment: &ToneSegment, peaks: [f64; 2], sample_rate: SampleRate) -> Self {
        let [one, both] = peaks;
        let peak = if segment.frequencies_hz.contains(&0) {
            one
        } else {
            both
        };
        let on_len = sample_rate.samples(u32::from(segment.on_millis));
        Self {
            oscillators: segment
                .frequencies_hz
                .map(|hz| Oscillator::new(f64::from(hz), peak, sample_rate)),
            on_len,
            len: on_len + sample_rate.samples(u32::from(segment.off_millis)),
            position: 0,
        }
    }
}

/// A sine, made by the recurrence `y[n] = 2 cos(w) y[n-1] - y[n-2]`: one multiplication per sample
/// and, in 64 bits, an error far below one step over the 65 s that a segment may last.
#[derive(Debug, Clone, Copy)]
struct Oscillator {
    /// 2 cos(w).
    coefficient: f64,
    before: [f64; 2],
}

impl Oscillator {
    const SILENT: Self = Self {
        coefficient: 0.0,
        before: [0.0; 2],
    };

    /// `hz` 0 is silence.
    fn new(hz: f64, peak: f64, sample_rate: SampleRate) -> Self {
        let step = std::f64::consts::TAU * hz / f64::from(sample_rate.hz());
        Self {
            coefficient: 2.0 * step.cos(),
            before: [-peak * step.sin(), -peak * (2.0 * step).sin()],
        }
    }

    fn next(&mut self) -> f64 {
        let [one, two] = self.before;
        let sample = self.coefficient * one - two;
        self.before = [sample, one];
        sample
    }
}

#[cfg(test)]
mod tests;
