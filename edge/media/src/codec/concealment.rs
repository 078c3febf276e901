//! Packet loss concealment for codecs that have none, after ITU-T G.711 Appendix I: the last
//! periods of the voice's pitch are repeated, more of them as the loss goes on, and fade out.
//!
//! ```text
//!   0 ms        10          20                    60
//!   | 1 period  | 2 periods | 3 periods           | silence
//!   | full      | fades by a fifth each 10 ms     |
//! ```
//!
//! Two things differ from the appendix. It delays all audio by 3.75 ms to blend into the loss;
//! here nothing is delayed, and a step at the beginning is levelled out over a quarter of a period
//! instead. And it runs at 8 kHz; here at any rate, with the pitch searched at 8 kHz.

use crate::audio::SampleRate;

#[cfg(test)]
mod tests;

/// Shortest and longest pitch period, in samples at 8 kHz: 200 to 66 Hz.
const PITCH_MIN: usize = 40;
const PITCH_MAX: usize = 120;
/// What the pitch is found over, in samples at 8 kHz: 20 ms.
const MATCH_LEN: usize = 160;
/// Most periods that are repeated.
const PERIODS_MAX: usize = 3;
/// What the repetition reaches back, in samples at 8 kHz: three of the longest periods and the
/// quarter that blends one round into the next.
const HISTORY: usize = PERIODS_MAX * PITCH_MAX + PITCH_MAX / 4;
/// When the next period joins and the level falls: each 10 ms.
const STEP_MILLIS: u32 = 10;
/// What the level loses in each step after the first.
const FADE_PER_STEP: f32 = 0.2;

/// One stream's memory for the case of a loss: 1.6 KB at 8 kHz, 9.4 KB at 48 kHz.
#[derive(Debug, Clone)]
pub(super) struct Concealer {
    /// Samples for each one at 8 kHz.
    factor: usize,
    step: usize,
    /// What was heard last, oldest first.
    history: Box<[i16]>,
    /// What is repeated: `history` as it was when the loss began.
    template: Box<[i16]>,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    Hearing,
    Concealing(Repetition),
}

/// Where the repetition stands.
#[derive(Debug, Clone, Copy)]
struct Repetition {
    /// Pitch period in samples.
    pitch: usize,
    periods: usize,
    /// The next sample, counted from the start of the repeated periods.
    at: usize,
    /// Where `at` was when the newest period joined.
    left_at: usize,
    /// Samples since the loss began.
    elapsed: usize,
    /// The step from the last sample heard, which the first samples level out.
    offset: f32,
}

impl Concealer {
    pub(super) fn new(rate: SampleRate) -> Self {
        let factor = (rate.hz() / SampleRate::Hz8000.hz()) as usize;
        let silence = vec![0; HISTORY * factor].into_boxed_slice();
        Self {
            factor,
            step: rate.samples(STEP_MILLIS),
            history: silence.clone(),
            template: silence,
            state: State::Hearing,
        }
    }

    /// Audio that came. After a loss its beginning is blended with what was made up.
    pub(super) fn handle_audio(&mut self, samples: &mut [i16]) {
        if let State::Concealing(mut repetition) = self.state {
            let len = self.blend_len(&repetition).min(samples.len());
            for (n, sample) in samples[..len].iter_mut().enumerate() {
                let made_up = self.next(&mut repetition);
                let weight = (n + 1) as f32 / (len + 1) as f32;
                *sample = (made_up + (f32::from(*sample) - made_up) * weight) as i16;
            }
            self.state = State::Hearing;
        }
        self.remember(samples);
    }

    /// Makes up what did not come.
    pub(super) fn fill(&mut self, out: &mut [i16]) {
        let mut repetition = match self.state {
            State::Concealing(repetition) => repetition,
            State::Hearing => self.begin(),
        };
        for sample in &mut *out {
            *sample = self.next(&mut repetition) as i16;
        }
        self.state = State::Concealing(repetition);
        self.remember(out);
    }

    fn begin(&mut self) -> Repetition {
        self.template.copy_from_slice(&self.history);
        let pitch = self.find_pitch();
        let newest = self.template.len() - 1;
        Repetition {
            pitch,
            periods: 1,
            at: 0,
            left_at: 0,
            elapsed: 0,
            offset: f32::from(self.template[newest]) - f32::from(self.template[newest - pitch]),
        }
    }

    /// The lag at which the last 20 ms resemble what came before them most.
    fn find_pitch(&self) -> usize {
        const LEN: usize = MATCH_LEN + PITCH_MAX;
        let mut slow = [0f32; LEN];
        let recent = &self.template[self.template.len() - LEN * self.factor..];
        for (sample, group) in slow.iter_mut().zip(recent.chunks_exact(self.factor)) {
            *sample = group.iter().map(|&s| f32::from(s)).sum();
        }
        let coarse = best_lag(PITCH_MIN..=PITCH_MAX, MATCH_LEN, 1, |n| slow[LEN - 1 - n]);
        if self.factor == 1 {
            return coarse;
        }
        let around = (coarse - 1) * self.factor..=(coarse + 1) * self.factor;
        let least = PITCH_MIN * self.factor;
        let most = PITCH_MAX * self.factor;
        let lags = *around.start().max(&least)..=*around.end().min(&most);
        let newest = self.template.len() - 1;
        best_lag(lags, MATCH_LEN * self.factor, 2, |n| {
            f32::from(self.template[newest - n])
        })
    }

    /// The next sample of the repetition.
    fn next(&self, repetition: &mut Repetition) -> f32 {
        let Repetition { pitch, elapsed, .. } = *repetition;
        let steps = elapsed as f32 / self.step as f32;
        let level = 1.0 - FADE_PER_STEP * (steps - 1.0).max(0.0);
        repetition.elapsed = elapsed.saturating_add(1);
        if level <= 0.0 {
            return 0.0;
        }
        let quarter = pitch / 4;
        let mut value = self.template_at(repetition.periods, repetition.at, pitch);
        if elapsed < quarter {
            value += repetition.offset * (1.0 - (elapsed + 1) as f32 / (quarter + 1) as f32);
        }
        // Another period joins: its round begins in the same phase, blended over a quarter.
        let since_join = elapsed % self.step;
        let joined = (elapsed / self.step).min(PERIODS_MAX - 1);
        if joined > 0 && elapsed < PERIODS_MAX * self.step && since_join < quarter {
            let left = (repetition.left_at + since_join) % (joined * pitch);
            let before = self.template_at(joined, left, pitch);
            let weight = (since_join + 1) as f32 / (quarter + 1) as f32;
            value = before + (value - before) * weight;
        }
        repetition.at = (repetition.at + 1) % (repetition.periods * pitch);
        let due = (repetition.elapsed / self.step + 1).min(PERIODS_MAX);
        if due > repetition.periods {
            repetition.left_at = repetition.at;
            repetition.at %= pitch;
            repetition.periods = due;
        }
        value.clamp(f32::from(i16::MIN), f32::from(i16::MAX)) * level
    }

    /// Sample `at` of the last `periods` periods; the end of a round is blended into what came
    /// before its beginning, so that rounds follow each other without a step.
    fn template_at(&self, periods: usize, at: usize, pitch: usize) -> f32 {
        let quarter = pitch / 4;
        let round = periods * pitch;
        let start = self.template.len() - round;
        let value = f32::from(self.template[start + at]);
        let Some(into_end) = at.checked_sub(round - quarter) else {
            return value;
        };
        let before = f32::from(self.template[start - quarter + into_end]);
        let weight = (into_end + 1) as f32 / (quarter + 1) as f32;
        value + (before - value) * weight
    }

    /// A quarter of a period, and 4 ms more for each 10 ms that were made up, at most 10 ms.
    fn blend_len(&self, repetition: &Repetition) -> usize {
        let longer = repetition.elapsed / self.step * self.step * 2 / 5;
        (repetition.pitch / 4 + longer).min(self.step)
    }

    fn remember(&mut self, samples: &[i16]) {
        let len = self.history.len();
        if samples.len() >= len {
            self.history
                .copy_from_slice(&samples[samples.len() - len..]);
        } else {
            self.history.copy_within(samples.len().., 0);
            self.history[len - samples.len()..].copy_from_slice(samples);
        }
    }
}

/// The lag with the greatest normalized correlation over `len` samples, of which every `stride`-th
/// is looked at. `sample(n)` is the n-th from the end.
fn best_lag(
    lags: std::ops::RangeInclusive<usize>,
    len: usize,
    stride: usize,
    sample: impl Fn(usize) -> f32,
) -> usize {
    let mut best = (*lags.start(), f32::MIN);
    for lag in lags {
        let (mut product, mut energy) = (0.0, 0.0);
        for n in (0..len).step_by(stride) {
            let earlier = sample(n + lag);
            product += sample(n) * earlier;
            energy += earlier * earlier;
        }
        let score = product / energy.max(1.0).sqrt();
        if score > best.1 {
            best = (lag, score);
        }
    }
    best.0
}
