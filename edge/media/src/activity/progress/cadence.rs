//! The rhythm of tones and pauses, which tells dial tone, ringback, busy and congestion apart.

use std::ops::RangeInclusive;

use trunkline_edge_api::ProgressSignal;

use super::Progress;
use super::low_band::{LowTone, WINDOW_HOPS};
use crate::activity::hop_tone::Hop;

/// Below this share of its loudness a sound has ended: 13 dB.
const FADED: f32 = 0.05;
/// Hops in a row that are so soft.
const FADED_HOPS: u32 = 2;
/// Windows within a sound that make it a tone: it lasts 130 ms at least.
const WINDOWS_MIN: u32 = 6;
/// How far a window's tone may be from the sound's, Hz.
const DRIFT_MAX_HZ: f32 = 12.0;
/// By which factor a window's power may differ: 3 dB.
const SWELL_MAX: f32 = 2.0;

/// Windows of a tone without a pause: 3 s, longer than any ring.
const DIAL_WINDOWS: u32 = 300;

/// Hops of a ring and of the pause before the next (ITU-T E.180 §5: 0.67 to 2.5 s and 3 to 6 s;
/// 0.4 s and 2 s in the United Kingdom).
const RING_HOPS: RangeInclusive<u32> = 27..=260;
const RING_PAUSE_HOPS: RangeInclusive<u32> = 120..=650;
/// Windows of a ring after which it is one.
const RING_WINDOWS: u32 = 25;

/// Hops of a tone of busy or congestion, and of the pause behind it (ITU-T E.180 §§6, 7: 300 to
/// 1,100 ms for both).
const QUICK_HOPS: RangeInclusive<u32> = 13..=80;
const QUICK_PAUSE_HOPS: RangeInclusive<u32> = 8..=80;
/// From one tone of a busy signal to the next, hops, at least; what is faster is congestion.
const BUSY_PERIOD_HOPS: u32 = 55;
/// By how much a row must be off that to be taken for the other one after all.
const PERIOD_SLACK_HOPS: u32 = 5;

/// Shorter sounds between tones are clicks.
const CLICK_HOPS: u32 = 5;
/// Hops of sound that is no tone that end a row, and of quiet.
const SPEECH_HOPS: u32 = 30;
const QUIET_HOPS: u32 = 1_000;

#[derive(Debug, Clone)]
pub(super) struct Cadence {
    state: State,
    /// The tones before, newest last.
    row: [Option<Ended>; 4],
    /// What the row was taken for when it was judged by its pace last.
    quick: Option<ProgressSignal>,
    has_row_ended: bool,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Quiet { hops: u32 },
    Sound(Sound),
}

/// A sound so far.
#[derive(Debug, Clone, Copy)]
struct Sound {
    /// Of quiet before it.
    pause_hops: u32,
    hops: u32,
    faded_hops: u32,
    mean_square_max: f32,
    /// Windows within it, and those of its tone.
    windows: u32,
    tonal: u32,
    /// Hops that are filled by a single tone of any frequency.
    pure: u32,
    tone: Option<LowTone>,
}

/// A tone that has ended.
#[derive(Debug, Clone, Copy)]
struct Ended {
    pause_hops: u32,
    hops: u32,
    hz: [f32; 2],
}

impl Cadence {
    pub(super) fn new() -> Self {
        Self {
            state: State::Quiet { hops: QUIET_HOPS },
            row: [None; 4],
            quick: None,
            has_row_ended: false,
        }
    }

    /// Whether with the last hop it became clear that what comes is another row.
    pub(super) fn has_row_ended(&self) -> bool {
        self.has_row_ended
    }

    pub(super) fn handle_hop(&mut self, hop: Hop, low: Option<LowTone>) -> Option<Progress> {
        self.has_row_ended = false;
        match &mut self.state {
            State::Quiet { hops } if !hop.is_audible => {
                *hops = hops.saturating_add(1);
                if *hops == QUIET_HOPS {
                    self.end_row();
                }
                None
            }
            State::Quiet { hops } => {
                self.state = State::Sound(Sound::new(*hops, hop));
                None
            }
            State::Sound(sound) => {
                if sound.hear(hop, low) {
                    let sound = *sound;
                    return self.judge_sounding(&sound);
                }
                let ended = *sound;
                self.state = State::Quiet {
                    hops: ended.faded_hops,
                };
                self.judge_ended(&ended)
            }
        }
    }

    fn end_row(&mut self) {
        self.row = [None; 4];
        self.quick = None;
        self.has_row_ended = true;
    }

    /// What can be told of a tone that goes on.
    fn judge_sounding(&mut self, sound: &Sound) -> Option<Progress> {
        let hz = sound.tone_hz();
        match sound.windows {
            RING_WINDOWS => {
                let last = self.row[3]?;
                let is_ring = RING_PAUSE_HOPS.contains(&sound.pause_hops)
                    && RING_HOPS.contains(&last.hops)
                    && is_same_tone(last.hz, hz?);
                is_ring.then(|| told(ProgressSignal::Ringback, last.hz))
            }
            DIAL_WINDOWS => Some(told(ProgressSignal::DialTone, hz?)),
            windows if windows == SPEECH_HOPS && hz.is_none() && !sound.is_pure() => {
                self.end_row();
                None
            }
            _ => None,
        }
    }

    fn judge_ended(&mut self, sound: &Sound) -> Option<Progress> {
        let Some(hz) = sound.tone_hz() else {
            if sound.hops >= CLICK_HOPS {
                self.row = [None; 4];
            }
            return None;
        };
        self.row.rotate_left(1);
        self.row[3] = Some(Ended {
            pause_hops: sound.pause_hops,
            hops: sound.hops,
            hz,
        });
        let signal = quick_signal(&self.row, self.quick)?;
        self.quick = Some(signal);
        Some(told(signal, hz))
    }
}

/// Busy or congestion, when the last tones are one of them.
fn quick_signal(
    row: &[Option<Ended>; 4],
    before: Option<ProgressSignal>,
) -> Option<ProgressSignal> {
    let [older, old, new, newest] = *row;
    let (old, new, newest) = (old?, new?, newest?);
    let is_quick = |tone: &Ended| QUICK_HOPS.contains(&tone.hops);
    let follows = |before: &Ended, tone: &Ended| {
        QUICK_PAUSE_HOPS.contains(&tone.pause_hops) && is_same_tone(before.hz, tone.hz)
    };
    let is_row =
        [old, new, newest].iter().all(is_quick) && follows(&old, &new) && follows(&new, &newest);
    if !is_row {
        return None;
    }
    let is_even = is_about(old.hops, new.hops)
        && is_about(new.hops, newest.hops)
        && is_about(new.pause_hops, newest.pause_hops);
    if is_even {
        let period = new.hops + newest.pause_hops;
        let least = match before {
            Some(ProgressSignal::Busy) => BUSY_PERIOD_HOPS - PERIOD_SLACK_HOPS,
            Some(_) => BUSY_PERIOD_HOPS + PERIOD_SLACK_HOPS,
            None => BUSY_PERIOD_HOPS,
        };
        return Some(match period >= least {
            true => ProgressSignal::Busy,
            false => ProgressSignal::Congestion,
        });
    }
    if before == Some(ProgressSignal::Busy) {
        return None;
    }
    let older = older.filter(|older| is_quick(older) && follows(older, &old))?;
    let alternates = is_about(older.hops, new.hops)
        && is_about(old.hops, newest.hops)
        && is_about(old.pause_hops, newest.pause_hops);
    alternates.then_some(ProgressSignal::Congestion)
}

/// Equal within 15 % or 30 ms.
fn is_about(one: u32, other: u32) -> bool {
    one.abs_diff(other) <= (one.max(other) * 15 / 100).max(3)
}

fn is_same_tone(one: [f32; 2], other: [f32; 2]) -> bool {
    let pairs = one.iter().zip(&other);
    let mut near = pairs.map(|(one, other)| (one - other).abs() <= DRIFT_MAX_HZ);
    near.all(|is_near| is_near)
}

fn told(signal: ProgressSignal, hz: [f32; 2]) -> Progress {
    let [low, high] = hz.map(|hz| hz.round() as u16);
    Progress {
        signal,
        frequencies_hz: [low, high, 0],
    }
}

impl Sound {
    fn new(pause_hops: u32, hop: Hop) -> Self {
        Self {
            pause_hops,
            hops: 1,
            faded_hops: 0,
            mean_square_max: hop.mean_square,
            windows: 0,
            tonal: 0,
            pure: u32::from(hop.tone.is_some()),
            tone: None,
        }
    }

    /// Takes the next hop; `false`: the sound has ended.
    fn hear(&mut self, hop: Hop, low: Option<LowTone>) -> bool {
        let has_faded = !hop.is_audible || hop.mean_square < FADED * self.mean_square_max;
        if has_faded {
            self.faded_hops += 1;
            return self.faded_hops < FADED_HOPS;
        }
        self.hops = self.hops.saturating_add(1 + self.faded_hops);
        self.faded_hops = 0;
        self.mean_square_max = self.mean_square_max.max(hop.mean_square);
        self.pure = self.pure.saturating_add(u32::from(hop.tone.is_some()));
        if self.hops >= WINDOW_HOPS as u32 {
            self.windows = self.windows.saturating_add(1);
            self.tonal = self.tonal.saturating_add(u32::from(self.is_joined_by(low)));
        }
        true
    }

    /// Takes the tone of a window in, if it is that of the sound.
    fn is_joined_by(&mut self, low: Option<LowTone>) -> bool {
        let (Some(low), Some(tone)) = (low, &mut self.tone) else {
            self.tone = self.tone.or(low);
            return low.is_some();
        };
        let swell = low.mean_square / tone.mean_square;
        let is_joined =
            is_same_tone(low.hz, tone.hz) && (1.0 / SWELL_MAX..=SWELL_MAX).contains(&swell);
        if is_joined {
            // A mean of the last sixteen.
            let weight = 1.0 / (self.tonal + 1).min(16) as f32;
            for (hz, new) in tone.hz.iter_mut().zip(low.hz) {
                *hz += weight * (new - *hz);
            }
            tone.mean_square += weight * (low.mean_square - tone.mean_square);
        }
        is_joined
    }

    /// Its frequencies, if nine of ten windows hold the same tone.
    fn tone_hz(&self) -> Option<[f32; 2]> {
        let is_tone = self.windows >= WINDOWS_MIN
            && self.tonal.saturating_mul(10) >= self.windows.saturating_mul(9);
        self.tone.filter(|_| is_tone).map(|tone| tone.hz)
    }

    /// Whether it is a tone of another band: a signal all the same, and no speech.
    fn is_pure(&self) -> bool {
        self.pure.saturating_mul(10) >= self.hops.saturating_mul(8)
    }
}
