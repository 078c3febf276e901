//! Decoded samples that were not read yet, and changing how long they last.

use crate::audio::SampleRate;

/// Shortest and longest piece that is left out or repeated, milliseconds: one period of a voice
/// between 400 Hz and 100 Hz.
const LAG_MILLIS: (u32, u32) = (2, 10);
/// How much of the two places that are joined is compared, milliseconds.
const WINDOW_MILLIS: u32 = 10;
/// Samples per second that are compared; more would not find a better place.
const COMPARED_HZ: u32 = 16_000;
/// Mean magnitude below which a seam is not heard whatever it joins: -50 dB below full scale.
const QUIET_MEAN: u32 = 100;

/// A place where sound can be shortened or lengthened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Seam {
    /// Samples that go or come.
    lag: usize,
    /// How alike what is joined is, -1 to 1; 1 where nothing is heard anyway.
    pub(super) likeness: f32,
}

/// A queue of samples in one piece of memory.
#[derive(Debug, Clone)]
pub(super) struct Samples {
    samples: Box<[i16]>,
    start: usize,
    end: usize,
    rate: SampleRate,
}

impl Samples {
    pub(super) fn new(rate: SampleRate, capacity_millis: u32) -> Self {
        Self {
            samples: vec![0; rate.samples(capacity_millis)].into_boxed_slice(),
            start: 0,
            end: 0,
            rate,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    /// Room behind the last sample, all that is free; what is written there counts once it is
    /// [`Self::commit`]ted.
    pub(super) fn room(&mut self) -> &mut [i16] {
        if self.start > 0 {
            self.samples.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.samples[self.end..]
    }

    /// Makes `len` samples of the room part of the queue, without the first `skip`.
    pub(super) fn commit(&mut self, len: usize, skip: usize) {
        let len = len.min(self.samples.len() - self.end);
        let skip = skip.min(len);
        if skip > 0 {
            let from = self.end + skip;
            self.samples.copy_within(from..self.end + len, self.end);
        }
        self.end += len - skip;
    }

    /// Moves the oldest samples into `out`, as many as there are; returns how many.
    pub(super) fn take(&mut self, out: &mut [i16]) -> usize {
        let len = out.len().min(self.len());
        out[..len].copy_from_slice(&self.samples[self.start..self.start + len]);
        self.start += len;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
        len
    }

    /// How many samples [`Self::find_seam`] looks at.
    pub(super) fn seam_len(&self) -> usize {
        self.rate.samples(LAG_MILLIS.1 + WINDOW_MILLIS)
    }

    /// The best place to join at the beginning of the queue; `None` when it is too short.
    pub(super) fn find_seam(&self) -> Option<Seam> {
        let queue = &self.samples[self.start..self.end];
        let queue = queue.get(..self.seam_len())?;
        let magnitude: u32 = queue.iter().map(|s| u32::from(s.unsigned_abs())).sum();
        if magnitude / (queue.len() as u32) < QUIET_MEAN {
            return Some(Seam {
                lag: self.rate.samples(LAG_MILLIS.1),
                likeness: 1.0,
            });
        }
        let step = (self.rate.hz() / COMPARED_HZ).max(1) as usize;
        let window = self.rate.samples(WINDOW_MILLIS);
        let lags = self.rate.samples(LAG_MILLIS.0)..=self.rate.samples(LAG_MILLIS.1);
        lags.step_by(step)
            .map(|lag| Seam {
                lag,
                likeness: likeness(&queue[..window], &queue[lag..lag + window], step),
            })
            .max_by(|a, b| a.likeness.total_cmp(&b.likeness))
    }

    /// Leaves `seam`'s samples out, fading from what is before them to what is behind.
    pub(super) fn shorten(&mut self, seam: Seam) {
        let Seam { lag, .. } = seam;
        if self.len() < 2 * lag {
            return;
        }
        // The faded piece is written at the far end of what it replaces; the queue then begins there.
        let queue = &mut self.samples[self.start..self.end];
        for place in 0..lag {
            queue[lag + place] = faded(queue[place], queue[lag + place], place, lag);
        }
        self.start += lag;
    }

    /// Plays `seam`'s samples a second time, fading from what is behind them back to them.
    pub(super) fn lengthen(&mut self, seam: Seam) {
        let Seam { lag, .. } = seam;
        let len = self.len();
        if len < 2 * lag || self.room().len() < lag {
            return;
        }
        // `room` moved the queue to the front.
        let samples = &mut self.samples;
        samples.copy_within(lag..len, 2 * lag);
        for place in 0..lag {
            // Behind the first period stands the second one, fading into the first.
            let back = samples[place];
            let on = samples[2 * lag + place];
            samples[lag + place] = faded(on, back, place, lag);
        }
        self.end = len + lag;
    }
}

/// From `from` to `to` in `len` steps.
fn faded(from: i16, to: i16, place: usize, len: usize) -> i16 {
    let (place, len) = (place as i32, len as i32);
    ((i32::from(from) * (len - place) + i32::from(to) * place) / len) as i16
}

/// Normalized correlation of every `step`-th sample.
fn likeness(a: &[i16], b: &[i16], step: usize) -> f32 {
    let (mut product, mut energy_a, mut energy_b) = (0i64, 0i64, 0i64);
    for (&a, &b) in a.iter().zip(b).step_by(step) {
        let (a, b) = (i64::from(a), i64::from(b));
        product += a * b;
        energy_a += a * a;
        energy_b += b * b;
    }
    let energy = (energy_a as f32) * (energy_b as f32);
    if energy > 0.0 {
        product as f32 / energy.sqrt()
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: SampleRate = SampleRate::Hz8000;

    fn tone(len: usize) -> Vec<i16> {
        let step = std::f32::consts::TAU * 200.0 / 8_000.0;
        (0..len)
            .map(|n| (10_000.0 * (n as f32 * step).sin()) as i16)
            .collect()
    }

    fn queue_of(samples: &[i16]) -> Samples {
        let mut queue = Samples::new(RATE, 160);
        queue.room()[..samples.len()].copy_from_slice(samples);
        queue.commit(samples.len(), 0);
        queue
    }

    fn rest(mut queue: Samples) -> Vec<i16> {
        let mut out = vec![0; queue.len()];
        queue.take(&mut out);
        out
    }

    #[test]
    fn skipped_samples_are_never_read() {
        let mut queue = queue_of(&[1, 2]);
        queue.room()[..3].copy_from_slice(&[3, 4, 5]);
        queue.commit(3, 2);
        assert_eq!(rest(queue), [1, 2, 5]);
    }

    #[test]
    fn tone_loses_or_gains_whole_periods_and_stays_a_tone() {
        let tone = tone(320);
        let seam = queue_of(&tone).find_seam().expect("320 samples are enough");
        assert!(seam.likeness > 0.99, "{seam:?}");
        assert_eq!(seam.lag % 40, 0, "a period of 200 Hz is 40 samples");
        let mut shorter = queue_of(&tone);
        shorter.shorten(seam);
        let mut longer = queue_of(&tone);
        longer.lengthen(seam);
        let (shorter, longer) = (rest(shorter), rest(longer));
        assert_eq!(shorter.len(), 320 - seam.lag);
        assert_eq!(longer.len(), 320 + seam.lag);
        for out in [&shorter, &longer] {
            for (place, &sample) in out.iter().enumerate() {
                let wanted = tone[place % 40];
                assert!(
                    sample.abs_diff(wanted) < 300,
                    "{place}: {sample} is not {wanted}"
                );
            }
        }
    }

    #[test]
    fn quiet_is_joined_anywhere_and_noise_hardly() {
        let quiet = queue_of(&[20; 160]).find_seam().expect("long enough");
        assert_eq!((quiet.lag, quiet.likeness), (80, 1.0));
        let mut state = 1u32;
        let noise: Vec<i16> = (0..160)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 18) as i16 - 8_192
            })
            .collect();
        let noisy = queue_of(&noise).find_seam().expect("long enough");
        assert!(noisy.likeness < 0.6, "{noisy:?}");
        assert_eq!(queue_of(&noise[..159]).find_seam(), None);
    }
}
