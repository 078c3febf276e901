//! The beep of an answering machine: one steady tone, alone, and then no more.
//!
//! Tones are made of hops of 10 ms, see the `hop_tone` module.
//!
//! | a tone is no beep when | because it is |
//! |---|---|
//! | it is shorter than [`MILLIS_MIN`] or longer than [`MILLIS_MAX`] | a click, speech; a fax machine's answer, a fault |
//! | another tone comes right before or behind it | the special information tone, a melody |
//! | it is 1,100 Hz for half a second | a fax machine that calls, see [`super::progress`] |
//! | it lies within [`PROGRESS_BAND_HZ`], and nobody has spoken since the last such tone | ringback, busy |
//! | its frequency or level moves | speech, music |
//! | it has company | DTMF, call progress of two tones |

use std::ops::RangeInclusive;

use super::hop_tone::{Hop, HopTone, Hops, Sounding};
use super::progress::is_fax_calling;
use crate::audio::SampleRate;
use crate::outbox::Outbox;
use crate::tone::level::dbm0_of_mean_square;

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

/// Hops without a tone that part two tones.
const ALONE_HOPS: u32 = 12;
/// Hops of sound that is no tone between a progress tone and a beep of such a frequency: a word.
const SPEECH_HOPS: u32 = 30;

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
    hops: Hops,
    listener: Listener,
}

/// The detector at 8 kHz.
#[derive(Debug, Clone)]
struct Listener {
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
    Sounding { tone: Sounding, is_alone: bool },
    /// A tone has ended that is a beep if it stays alone.
    Waiting { beep: Beep, hops: u32 },
}

impl BeepDetector {
    /// A detector that has heard nothing.
    #[must_use]
    pub fn new(sample_rate: SampleRate) -> Self {
        Self {
            hops: Hops::new(sample_rate, LEVEL_MIN_DBM0),
            listener: Listener {
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
        self.hops.feed(pcm, |hop, _| listener.handle_hop(hop));
    }

    /// A beep, 120 ms after its end.
    pub fn poll_event(&mut self) -> Option<Beep> {
        self.listener.outbox.pop()
    }
}

impl Listener {
    fn handle_hop(&mut self, hop: Hop) {
        let Hop {
            tone, is_audible, ..
        } = hop;
        if is_audible && tone.is_none() && !matches!(self.state, State::Sounding { .. }) {
            self.speech_hops = self.speech_hops.saturating_add(1);
        }
        self.hops_since_tone = self.hops_since_tone.saturating_add(1);
        match (&mut self.state, tone) {
            (State::Idle, None) => {}
            (State::Idle | State::Waiting { .. }, Some(tone)) => self.begin(tone),
            (State::Waiting { beep, hops }, None) => {
                *hops += 1;
                if *hops >= ALONE_HOPS {
                    // Seconds lie between two beeps; a caller that does not ask does not want to
                    // know.
                    let _ = self.outbox.push(*beep);
                    self.state = State::Idle;
                }
            }
            (
                State::Sounding {
                    tone: sounding,
                    is_alone,
                },
                tone,
            ) => {
                if !sounding.hear(tone) {
                    let (ended, was_alone) = (*sounding, *is_alone);
                    self.end(&ended, was_alone);
                    if let Some(tone) = tone {
                        self.begin(tone);
                    }
                }
            }
        }
    }

    fn begin(&mut self, tone: HopTone) {
        self.state = State::Sounding {
            tone: Sounding::new(tone),
            is_alone: self.hops_since_tone >= ALONE_HOPS,
        };
    }

    fn end(&mut self, sounding: &Sounding, is_alone: bool) {
        let duration_millis = sounding.millis();
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
        let is_beep = is_alone
            && sounding.is_steady()
            && FREQUENCY_RANGE_HZ.contains(&sounding.hz)
            && duration_millis <= MILLIS_MAX
            && !is_fax_calling(sounding)
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

#[cfg(test)]
mod tests;
