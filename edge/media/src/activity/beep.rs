//! The beep of an answering machine: one steady tone, alone, and then no more.
//!
//! The audio is cut into hops of 10 ms at 8 kHz. The autocorrelation of a hop gives the frequency
//! of its strongest tone, the phase between the hop's halves gives it finely, and what that tone
//! holds of the power is the hop's purity. Hops of the same frequency and level are a tone.
//!
//! | a tone is no beep when | because it is |
//! |---|---|
//! | it is shorter than [`MILLIS_MIN`] or longer than [`MILLIS_MAX`] | a click, speech; a fax machine's answer, a fault |
//! | another tone comes right before or behind it | the special information tone, a melody |
//! | it lies within [`PROGRESS_BAND_HZ`], and nobody has spoken since the last such tone | ringback, busy |
//! | its frequency or level moves | speech, music |
//! | it has company | DTMF, call progress of two tones |

use std::f32::consts::TAU;
use std::ops::RangeInclusive;

use crate::audio::SampleRate;
use crate::narrowband::{self, Narrowband};
use crate::outbox::Outbox;
use crate::tone::level::{dbm0_of_mean_square, mean_square_of_dbm0};

/// Length of a hop, milliseconds.
pub const HOP_MILLIS: u32 = 10;

/// Frequencies of beeps, Hz.
pub const FREQUENCY_RANGE_HZ: RangeInclusive<f32> = 400.0..=2_100.0;

/// Shortest beep, milliseconds.
pub const MILLIS_MIN: u32 = 120;
/// Longest beep, milliseconds.
pub const MILLIS_MAX: u32 = 2_000;

/// Softest beep, dBm0.
pub const LEVEL_MIN_DBM0: f32 = -40.0;

/// Where networks have their call progress tones, Hz (ITU-T E.180: 400 to 450; North America up to
/// 480).
pub const PROGRESS_BAND_HZ: RangeInclusive<f32> = 380.0..=500.0;

/// Share of a hop's power that the tone holds: a signal-to-noise ratio of 8 dB.
const PURITY_MIN: f32 = 0.85;
/// How far a hop's frequency may be from the tone's, as a share.
const DRIFT_MAX: f32 = 0.012;
/// By which factor a hop's power may differ from the tone's: 3 dB.
const SWELL_MAX: f32 = 2.0;

/// Hops in a row without the tone that end it.
const MISSING_HOPS_MAX: u32 = 2;
/// Hops without a tone that part two tones.
const ALONE_HOPS: u32 = 12;
/// Hops of sound that is no tone between a progress tone and a beep of such a frequency: a word.
const SPEECH_HOPS: u32 = 30;

const HOP_LEN: usize = 80;

/// An answering machine has begun to record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beep {
    /// Its frequency.
    pub frequency_hz: u16,
    /// Its length, milliseconds.
    pub duration_millis: u32,
    /// Its level, dBm0.
    pub level_dbm0: i8,
}

/// See the module's description.
#[derive(Debug, Clone)]
pub struct BeepDetector {
    narrowband: Narrowband,
    listener: Listener,
}

/// The detector at 8 kHz.
#[derive(Debug, Clone)]
struct Listener {
    level_min: f32,
    samples: [f32; HOP_LEN],
    sample_count: usize,
    state: State,
    /// Hops since the end of the last tone.
    hops_since_tone: u32,
    /// Hops of sound that is no tone, since the last tone in the progress band.
    speech_hops: u32,
    outbox: Outbox<Beep, 4>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// No tone.
    Idle,
    /// A tone sounds.
    Sounding(Sounding),
    /// A tone has ended that is a beep if it stays alone.
    Waiting { beep: Beep, hops: u32 },
}

/// A tone so far.
#[derive(Debug, Clone, Copy)]
struct Sounding {
    hops: u32,
    /// Hops without it since the last one with it.
    missing_hops: u32,
    /// Hops without it among its own.
    bridged_hops: u32,
    /// Mean over its hops.
    hz: f32,
    mean_square: f32,
    /// Whether it may be a beep when it ends.
    is_alone: bool,
}

/// The tone of one hop.
#[derive(Debug, Clone, Copy)]
struct HopTone {
    hz: f32,
    mean_square: f32,
}

impl BeepDetector {
    /// A detector that has heard nothing.
    #[must_use]
    pub fn new(sample_rate: SampleRate) -> Self {
        Self {
            narrowband: Narrowband::new(sample_rate),
            listener: Listener {
                level_min: mean_square_of_dbm0(LEVEL_MIN_DBM0),
                samples: [0.0; HOP_LEN],
                sample_count: 0,
                state: State::Idle,
                hops_since_tone: ALONE_HOPS,
                speech_hops: 0,
                outbox: Outbox::new(),
            },
        }
    }

    /// Takes the next samples, without gaps: where nothing was received, silence. The caller
    /// drains [`Self::poll_event`] afterwards.
    pub fn handle_audio(&mut self, pcm: &[i16]) {
        let listener = &mut self.listener;
        self.narrowband.feed(pcm, |sample| listener.take(sample));
    }

    /// A beep, 120 ms after its end.
    pub fn poll_event(&mut self) -> Option<Beep> {
        self.listener.outbox.pop()
    }
}

impl Listener {
    fn take(&mut self, sample: f32) {
        self.samples[self.sample_count] = sample;
        self.sample_count += 1;
        if self.sample_count == HOP_LEN {
            self.sample_count = 0;
            let energy: f32 = self.samples.iter().map(|sample| sample * sample).sum();
            let mean_square = energy / HOP_LEN as f32;
            let is_audible = mean_square >= self.level_min;
            let tone = if is_audible {
                tone_of(&self.samples, mean_square)
            } else {
                None
            };
            self.handle_hop(tone, is_audible);
        }
    }

    fn handle_hop(&mut self, tone: Option<HopTone>, is_audible: bool) {
        if is_audible && tone.is_none() && !matches!(self.state, State::Sounding(_)) {
            self.speech_hops = self.speech_hops.saturating_add(1);
        }
        self.hops_since_tone = self.hops_since_tone.saturating_add(1);
        match (self.state, tone) {
            (State::Idle, None) => {}
            (State::Idle | State::Waiting { .. }, Some(tone)) => self.begin(tone),
            (State::Waiting { beep, hops }, None) => {
                self.state = State::Waiting {
                    beep,
                    hops: hops + 1,
                };
                if hops + 1 >= ALONE_HOPS {
                    self.state = State::Idle;
                    // Seconds lie between two beeps; a caller that does not ask does not want to
                    // know.
                    let _ = self.outbox.push(beep);
                }
            }
            (State::Sounding(mut sounding), Some(tone)) if sounding.is_joined_by(&tone) => {
                sounding.join(&tone);
                self.state = State::Sounding(sounding);
            }
            (State::Sounding(mut sounding), _) => {
                sounding.missing_hops += 1;
                self.state = State::Sounding(sounding);
                if sounding.missing_hops >= MISSING_HOPS_MAX {
                    self.end(&sounding);
                    if let Some(tone) = tone {
                        self.begin(tone);
                    }
                }
            }
        }
    }

    fn begin(&mut self, tone: HopTone) {
        self.state = State::Sounding(Sounding {
            hops: 1,
            missing_hops: 0,
            bridged_hops: 0,
            hz: tone.hz,
            mean_square: tone.mean_square,
            is_alone: self.hops_since_tone >= ALONE_HOPS,
        });
    }

    fn end(&mut self, sounding: &Sounding) {
        let duration_millis = sounding.hops.saturating_mul(HOP_MILLIS);
        self.state = State::Idle;
        if duration_millis < MILLIS_MIN {
            // Vowels and clicks are no tones.
            self.speech_hops = self.speech_hops.saturating_add(sounding.hops);
            return;
        }
        self.hops_since_tone = 0;
        let is_progress = PROGRESS_BAND_HZ.contains(&sounding.hz);
        let follows_speech = self.speech_hops >= SPEECH_HOPS;
        if is_progress {
            self.speech_hops = 0;
        }
        let is_beep = sounding.is_alone
            && sounding.is_steady()
            && duration_millis <= MILLIS_MAX
            && (!is_progress || follows_speech);
        if is_beep {
            let beep = Beep {
                frequency_hz: sounding.hz.round() as u16,
                duration_millis,
                level_dbm0: dbm0_of_mean_square(sounding.mean_square).round() as i8,
            };
            self.state = State::Waiting { beep, hops: 0 };
        }
    }
}

impl Sounding {
    fn is_joined_by(&self, tone: &HopTone) -> bool {
        // The first hop may be filled in part.
        let swell_max = if self.hops == 1 { 100.0 } else { SWELL_MAX };
        let swell = tone.mean_square / self.mean_square;
        (tone.hz - self.hz).abs() <= DRIFT_MAX * self.hz
            && (1.0 / SWELL_MAX..=swell_max).contains(&swell)
    }

    /// Whether it was there in all of its hops but one in ten. Two tones near each other, which a
    /// hop cannot part, beat.
    fn is_steady(&self) -> bool {
        self.bridged_hops <= 1 + self.hops / 10
    }

    fn join(&mut self, tone: &HopTone) {
        self.hops = self.hops.saturating_add(1 + self.missing_hops);
        self.bridged_hops = self.bridged_hops.saturating_add(self.missing_hops);
        self.missing_hops = 0;
        // The first hop counts no more when there are whole ones; later ones make a mean.
        let weight = 1.0 / (self.hops - 1).min(16) as f32;
        self.hz += weight * (tone.hz - self.hz);
        self.mean_square += weight * (tone.mean_square - self.mean_square);
    }
}

/// The tone that fills a hop of this mean square; `None` when none does.
fn tone_of(samples: &[f32; HOP_LEN], mean_square: f32) -> Option<HopTone> {
    let rough_hz = dominant_hz(samples)?;
    let (first, last) = samples.split_at(HOP_LEN / 2);
    let step = TAU * rough_hz / narrowband::HZ;
    let [first, last] = [
        demodulate(first, step, 0),
        demodulate(last, step, HOP_LEN / 2),
    ];
    // The phase between the halves' middles, 5 ms apart: up to 100 Hz.
    let turn = (last.1 * first.0 - last.0 * first.1).atan2(last.0 * first.0 + last.1 * first.1);
    let hz = rough_hz + turn * narrowband::HZ / (TAU * (HOP_LEN / 2) as f32);
    let amplitude = first.0.hypot(first.1) + last.0.hypot(last.1);
    let tone = 2.0 * amplitude * amplitude / (HOP_LEN * HOP_LEN) as f32;
    let is_tone = tone >= PURITY_MIN * mean_square && FREQUENCY_RANGE_HZ.contains(&hz);
    is_tone.then_some(HopTone {
        hz,
        mean_square: tone,
    })
}

/// Frequency of a sine in noise from its autocorrelation, which obeys
/// `r[k-1] + r[k+1] = 2 cos(w) r[k]`; `r[0]` is left out, for white noise is in it alone.
fn dominant_hz(samples: &[f32; HOP_LEN]) -> Option<f32> {
    const LAGS: usize = 8;
    let mut correlation = [0.0f32; LAGS];
    for (lag, value) in correlation.iter_mut().enumerate().skip(1) {
        let products = samples.iter().zip(&samples[lag..]);
        // Unbiased: long lags have fewer products.
        *value = products.map(|(one, two)| one * two).sum::<f32>() / (HOP_LEN - lag) as f32;
    }
    let (mut numerator, mut denominator) = (0.0, 0.0);
    for window in correlation[1..].windows(3) {
        numerator += window[1] * (window[0] + window[2]);
        denominator += 2.0 * window[1] * window[1];
    }
    let cosine = numerator / denominator;
    (cosine.abs() < 1.0).then(|| cosine.acos() * narrowband::HZ / TAU)
}

/// Real and imaginary part of the sum of samples turned back by `step` each; the first one is the
/// `begins`-th of its hop.
fn demodulate(samples: &[f32], step: f32, begins: usize) -> (f32, f32) {
    let (turn_im, turn_re) = (-step).sin_cos();
    let (mut im, mut re) = (-step * begins as f32).sin_cos();
    let mut sum = (0.0, 0.0);
    for sample in samples {
        sum.0 += sample * re;
        sum.1 += sample * im;
        (re, im) = (re * turn_re - im * turn_im, re * turn_im + im * turn_re);
    }
    sum
}

#[cfg(test)]
mod tests;
