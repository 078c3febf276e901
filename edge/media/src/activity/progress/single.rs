//! Signals of one tone at a time: the special information tone and fax machines.

use std::ops::RangeInclusive;

use trunkline_edge_api::ProgressSignal;

use super::Progress;
use crate::activity::hop_tone::{Hop, Sounding};

/// The three tones of special information, Hz: 950, 1,400 and 1,800 ± 50 (ITU-T E.180 §8), and what
/// North America has beside them, 913.8 to 985.2, 1,370.6 to 1,428.5 and 1,776.7.
const INFORMATION_HZ: [RangeInclusive<f32>; 3] =
    [890.0..=1_005.0, 1_345.0..=1_455.0, 1_745.0..=1_855.0];
/// Their length: 330 ± 70 ms, in North America from 274 ms.
const INFORMATION_MILLIS: RangeInclusive<u32> = 220..=420;
/// Hops between two of them: 30 ms, and what the end of one takes to be noticed.
const INFORMATION_GAP_HOPS: u32 = 6;

/// CNG: 1,100 ± 38 Hz for 0.5 s ± 15 % (ITU-T T.30 §4.3.3.3.2).
const CALLING_HZ: RangeInclusive<f32> = 1_062.0..=1_138.0;
const CALLING_MILLIS: RangeInclusive<u32> = 420..=580;
/// Hops of no tone around it.
const ALONE_HOPS: u32 = 12;

/// CED and ANS: 2,100 ± 15 Hz for at least 2.6 s (ITU-T T.30 §4.3.3.3.1), its phase turned every
/// 450 ms or not (V.25, V.8).
const ANSWER_HZ: RangeInclusive<f32> = 2_083.0..=2_117.0;
/// It is told after this many hops; longer than beeps of that frequency last.
const ANSWER_HOPS: u32 = 100;

/// Shorter tones are clicks and vowels.
const TONE_MILLIS_MIN: u32 = 120;

/// Whether a tone that has ended is that of a fax machine that calls. It is then no beep.
pub(in crate::activity) fn is_fax_calling(tone: &Sounding) -> bool {
    CALLING_HZ.contains(&tone.hz) && CALLING_MILLIS.contains(&tone.millis()) && tone.is_steady()
}

#[derive(Debug, Clone)]
pub(super) struct SingleTones {
    state: State,
    /// Hops since the end of the last tone.
    hops_since_tone: u32,
    /// How many of the information tones were heard in a row, and which.
    information: ([u16; 3], usize),
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// No tone.
    Idle,
    /// A tone sounds, so long after the one before.
    Sounding { tone: Sounding, gap_hops: u32 },
    /// A fax machine calls if its tone stays alone.
    Waiting { hz: u16, hops: u32 },
}

impl SingleTones {
    pub(super) fn new() -> Self {
        Self {
            state: State::Idle,
            hops_since_tone: ALONE_HOPS,
            information: ([0; 3], 0),
        }
    }

    pub(super) fn handle_hop(&mut self, hop: Hop) -> Option<Progress> {
        self.hops_since_tone = self.hops_since_tone.saturating_add(1);
        match (&mut self.state, hop.tone) {
            (State::Idle, None) => None,
            (State::Idle | State::Waiting { .. }, Some(tone)) => {
                self.begin(Sounding::new(tone));
                None
            }
            (State::Waiting { hz, hops }, None) => {
                *hops += 1;
                if *hops < ALONE_HOPS {
                    return None;
                }
                let heard = one(ProgressSignal::FaxCalling, *hz);
                self.state = State::Idle;
                Some(heard)
            }
            (State::Sounding { tone, gap_hops }, next) => {
                if tone.hear(next) {
                    let answers = tone.hops == ANSWER_HOPS
                        && ANSWER_HZ.contains(&tone.hz)
                        && tone.is_steady();
                    return answers.then(|| one(ProgressSignal::FaxAnswer, tone.hz.round() as u16));
                }
                let (ended, gap_hops) = (*tone, *gap_hops);
                let heard = self.end(&ended, gap_hops);
                if let Some(next) = next {
                    self.begin(Sounding::new(next));
                }
                heard
            }
        }
    }

    fn begin(&mut self, tone: Sounding) {
        self.state = State::Sounding {
            tone,
            gap_hops: self.hops_since_tone,
        };
    }

    fn end(&mut self, tone: &Sounding, gap_hops: u32) -> Option<Progress> {
        self.state = State::Idle;
        if tone.millis() < TONE_MILLIS_MIN {
            return None;
        }
        self.hops_since_tone = 0;
        if is_fax_calling(tone) && gap_hops >= ALONE_HOPS {
            self.state = State::Waiting {
                hz: tone.hz.round() as u16,
                hops: 0,
            };
        }
        self.count_information(tone, gap_hops)
    }

    fn count_information(&mut self, tone: &Sounding, gap_hops: u32) -> Option<Progress> {
        let (heard, count) = &mut self.information;
        let is_next = |count: usize| {
            let follows = count == 0 || gap_hops <= INFORMATION_GAP_HOPS;
            follows
                && INFORMATION_HZ[count].contains(&tone.hz)
                && INFORMATION_MILLIS.contains(&tone.millis())
                && tone.is_steady()
        };
        *count = match *count {
            count if is_next(count) => count,
            _ if is_next(0) => 0,
            _ => {
                *count = 0;
                return None;
            }
        };
        heard[*count] = tone.hz.round() as u16;
        *count += 1;
        if *count < heard.len() {
            return None;
        }
        *count = 0;
        Some(Progress {
            signal: ProgressSignal::SpecialInformation,
            frequencies_hz: *heard,
        })
    }
}

fn one(signal: ProgressSignal, hz: u16) -> Progress {
    Progress {
        signal,
        frequencies_hz: [hz, 0, 0],
    }
}
