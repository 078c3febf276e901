//! Digits in the audio: receivers by ITU-T Q.24.
//!
//! The audio is cut into hops of 5 ms. In each, eight Goertzel filters take amplitude and phase of
//! the eight DTMF frequencies. The last five hops make a window of 25 ms, in which two halves of
//! 15 ms overlap; the phase between the halves tells by how many hertz each tone is off.
//!
//! | a window is of a digit when | because |
//! |---|---|
//! | both tones are above [`LEVEL_MIN_DBM0`] | Q.24: -25 dBm0 must be heard, -55 must not |
//! | each is within [`DEVIATION_MAX`] of its frequency | Q.24: 1.5 % must be heard, 3.5 % must not |
//! | the high tone is at most 5 dB above and 9 dB below the low one | Q.24: +4 and -8 dB must be heard |
//! | both tones hold [`PURITY_MIN`] of the power | speech and music have power elsewhere, second harmonics among it |
//!
//! Four such windows in a row are a digit when its tones fill [`HOPS_MIN`] hops: 40 ms fill eight,
//! 23 ms 4.6, and these are the other two limits of Q.24. The windows must also be steady: a voice
//! glides, and its harmonics fit two frequencies at once only in passing.
//!
//! The end of a digit is four hops without it: an interruption of 10 ms is bridged, a pause of
//! 40 ms is not, and the end is known 25 ms after it.
//!
//! Audio of 16 and 48 kHz is brought to 8 kHz first.

use trunkline_edge_api::Digit;

use super::{DigitEvent, HeardDigit};
use crate::audio::SampleRate;
use crate::narrowband::Narrowband;
use crate::outbox::Outbox;
use crate::tone::level::dbm0_of_mean_square;

mod run;
mod spectrum;
mod window;

use run::{Run, WINDOWS_MIN};
use spectrum::{Filters, HOP_LEN, Hop};
use window::{Finding, Judge, Pair, WINDOW_HOPS};

/// Length of a hop, milliseconds.
pub const HOP_MILLIS: u32 = 5;

/// Each tone has at least this level, dBm0: 12 dB below what Q.24 asks to be heard, which leaves
/// room for twist and for loss on the way.
pub const LEVEL_MIN_DBM0: f32 = -37.0;

/// Largest deviation of a tone from its frequency: half between the limits of Q.24.
pub const DEVIATION_MAX: f32 = 0.025;

/// Smallest share of the power that both tones hold: a signal-to-noise ratio of 6 dB.
pub const PURITY_MIN: f32 = 0.8;

/// Hops that a digit fills at least: 27.5 ms.
pub const HOPS_MIN: f32 = 5.5;

/// Hops in a row without its tones that end a digit.
const ABSENT_HOPS_MAX: u32 = 4;
/// Windows in a row that are not of the digit that sounds: something else has taken its place that
/// has power on the same frequencies.
const STRANGE_WINDOWS_MAX: u32 = 12;
/// Hops that are kept: those of the windows that make a digit.
const HISTORY: usize = WINDOW_HOPS + WINDOWS_MIN as usize - 1;

/// A frame of 60 ms may hold the end of a digit, a whole one and the beginning of another.
const OUTBOX_LEN: usize = 8;

/// See the module's description.
#[derive(Debug, Clone)]
pub struct ToneDetector {
    narrowband: Narrowband,
    receiver: Receiver,
}

/// The detector at 8 kHz.
#[derive(Debug, Clone)]
struct Receiver {
    filters: Filters,
    judge: Judge,
    /// Samples of the hop under way.
    samples: [f32; HOP_LEN],
    sample_count: usize,
    /// The last hops, the newest last.
    hops: [Hop; HISTORY],
    /// Windows in a row that are of one digit, the newest of them.
    run: Option<Run>,
    state: State,
    is_suspicious: bool,
    outbox: Outbox<DigitEvent, OUTBOX_LEN>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Silent,
    Sounding(Sounding),
}

/// A digit that sounds.
#[derive(Debug, Clone, Copy)]
struct Sounding {
    digit: Digit,
    /// What its tones were when it was recognised.
    pair: Pair,
    /// Hops that it filled.
    hops: f32,
    /// Hops since its newest.
    absent_hops: u32,
    /// Windows in a row that were not of it.
    strange_windows: u32,
}

impl ToneDetector {
    /// A detector that has heard nothing.
    #[must_use]
    pub fn new(sample_rate: SampleRate) -> Self {
        Self {
            narrowband: Narrowband::new(sample_rate),
            receiver: Receiver::new(),
        }
    }

    /// Takes the next samples, at most 60 ms of them, without gaps: where nothing was received,
    /// silence. The caller drains [`Self::poll_event`] afterwards.
    pub fn handle_audio(&mut self, pcm: &[i16]) {
        let receiver = &mut self.receiver;
        self.narrowband.feed(pcm, |sample| receiver.take(sample));
    }

    /// Nothing more will come: a digit that sounds has ended.
    pub fn finish(&mut self) {
        self.receiver.end();
    }

    /// What was heard, in order; `None` when there is nothing more to tell.
    pub fn poll_event(&mut self) -> Option<DigitEvent> {
        self.receiver.outbox.pop()
    }

    /// Whether the newest whole hop of [`HOP_MILLIS`] is part of a digit, or may be with the 20 ms
    /// before it.
    #[must_use]
    pub fn is_suspicious(&self) -> bool {
        self.receiver.is_suspicious
    }
}

impl Receiver {
    fn new() -> Self {
        Self {
            filters: Filters::new(),
            judge: Judge::new(),
            samples: [0.0; HOP_LEN],
            sample_count: 0,
            hops: [Hop::SILENT; HISTORY],
            run: None,
            state: State::Silent,
            is_suspicious: false,
            outbox: Outbox::new(),
        }
    }

    fn take(&mut self, sample: f32) {
        self.samples[self.sample_count] = sample;
        self.sample_count += 1;
        if self.sample_count == HOP_LEN {
            self.sample_count = 0;
            let hop = self.filters.analyse(&self.samples);
            self.hops.copy_within(1.., 0);
            self.hops[HISTORY - 1] = hop;
            self.handle_hop(&hop);
        }
    }

    fn handle_hop(&mut self, hop: &Hop) {
        let finding = match self.hops.last_chunk::<WINDOW_HOPS>() {
            Some(window) => self.judge.judge(window),
            None => Finding::Nothing,
        };
        self.run = match (&finding, self.run) {
            (Finding::Digit(sighting), Some(run)) => Some(run.extend(sighting)),
            (Finding::Digit(sighting), None) => Some(Run::new(sighting)),
            (Finding::Nothing | Finding::Suspect, _) => None,
        };
        if let State::Sounding(sounding) = &mut self.state {
            sounding.hear(hop, &finding);
            if sounding.has_ended() {
                self.end();
            }
        }
        if let Some(run) = self.run
            && run.is_digit()
        {
            self.recognise(run.digit, run.pair);
        }
        // The hop in which a digit ends holds the last of it.
        let sounds = matches!(&self.state, State::Sounding(sounding) if sounding.absent_hops <= 1);
        self.is_suspicious = sounds || !matches!(finding, Finding::Nothing);
    }

    /// There were enough windows of `digit` in a row.
    fn recognise(&mut self, digit: Digit, pair: Pair) {
        if matches!(self.state, State::Sounding(sounding) if sounding.digit == digit) {
            return;
        }
        let hops = self.hops.iter().map(|hop| pair.share_of(digit, hop)).sum();
        if hops < HOPS_MIN {
            return;
        }
        self.end();
        self.state = State::Sounding(Sounding {
            digit,
            pair,
            hops,
            absent_hops: 0,
            strange_windows: 0,
        });
        self.tell(DigitEvent::Began(digit));
    }

    fn end(&mut self) {
        if let State::Sounding(sounding) = std::mem::replace(&mut self.state, State::Silent) {
            self.run = None;
            let level = dbm0_of_mean_square(sounding.pair.low + sounding.pair.high);
            self.tell(DigitEvent::Ended(HeardDigit {
                digit: sounding.digit,
                duration_millis: (sounding.hops * HOP_MILLIS as f32).round() as u32,
                level_dbm0: level.round() as i8,
            }));
        }
    }

    fn tell(&mut self, event: DigitEvent) {
        // A digit takes 60 ms from its beginning to its end at least, so what 60 ms of audio can
        // tell fits; a caller that does not ask does not want to know.
        let _ = self.outbox.push(event);
    }
}

impl Sounding {
    fn hear(&mut self, hop: &Hop, finding: &Finding) {
        if self.pair.share_of(self.digit, hop) >= 0.5 {
            // An interruption that was bridged counts as part of it.
            self.hops += 1.0 + self.absent_hops as f32;
            self.absent_hops = 0;
        } else {
            self.absent_hops += 1;
        }
        let is_same = matches!(finding, Finding::Digit(sighting) if sighting.digit == self.digit);
        self.strange_windows = if is_same { 0 } else { self.strange_windows + 1 };
    }

    fn has_ended(&self) -> bool {
        self.absent_hops >= ABSENT_HOPS_MAX || self.strange_windows >= STRANGE_WINDOWS_MAX
    }
}

impl Pair {
    /// How much of `hop` these tones of `digit` fill, 0 to 1.
    fn share_of(&self, digit: Digit, hop: &Hop) -> f32 {
        /// Share of the hop's power, below which something else sounds.
        const PURITY_MIN: f32 = 0.4;
        let [low, high] = spectrum::tone_indices(digit).map(|index| hop.mean_square(index));
        let power = hop.energy / HOP_LEN as f32;
        if low + high < PURITY_MIN * power {
            return 0.0;
        }
        ((low + high) / (self.low + self.high)).sqrt().min(1.0)
    }
}

#[cfg(test)]
mod tests;
