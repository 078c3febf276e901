//! Digits as tones in the audio: ITU-T Q.23.

use trunkline_edge_api::{Digit, DigitsId, DigitsToSend, Tone, ToneSegment};

use super::digit_queue::{DigitQueue, DigitsRefused};
use super::frequencies_hz;
use crate::audio::SampleRate;
use crate::outbox::Outbox;
use crate::tone::ToneGenerator;

/// Level of a digit, both tones together, dBm0. ES 201 235-2 asks for about -10 of each.
pub const LEVEL_DBM0: i8 = -7;

/// One press of `digit` and the pause after it.
///
/// `None` when both times are 0.
#[must_use]
pub fn tone_of(digit: Digit, on_millis: u16, off_millis: u16) -> Option<Tone> {
    let segment = ToneSegment {
        on_millis,
        off_millis,
        frequencies_hz: frequencies_hz(digit),
    };
    Tone::new(&[segment], LEVEL_DBM0)
}

/// Plays strings of digits one after the other, in place of other audio.
#[derive(Debug, Clone)]
pub struct ToneSender {
    sample_rate: SampleRate,
    queue: DigitQueue,
    sounding: Option<Sounding>,
    done: Outbox<DigitsId, 4>,
}

#[derive(Debug, Clone)]
struct Sounding {
    tone: ToneGenerator,
    completes: Option<DigitsId>,
}

impl ToneSender {
    /// A sender with nothing to send.
    #[must_use]
    pub fn new(sample_rate: SampleRate) -> Self {
        Self {
            sample_rate,
            queue: DigitQueue::new(),
            sounding: None,
            done: Outbox::new(),
        }
    }

    /// Appends a string to what is being sent. The string that was appended last changes nothing
    /// when it is said again.
    ///
    /// # Errors
    ///
    /// [`DigitsRefused`] when too many digits wait; then none of these was taken.
    pub fn send(&mut self, digits: &DigitsToSend) -> Result<(), DigitsRefused> {
        self.queue.push(digits)
    }

    /// Whether there is anything to send: the leg's other audio gives way, in the pauses too.
    #[must_use]
    pub fn is_sending(&self) -> bool {
        self.sounding.is_some() || !self.queue.is_empty()
    }

    /// Writes the next samples and returns how many: less than there is room for when the last
    /// digit's pause ends, 0 when there is nothing to send.
    pub fn fill(&mut self, out: &mut [i16]) -> usize {
        let mut written = 0;
        while written < out.len() {
            let Some(sounding) = &mut self.sounding else {
                if !self.begin_next() {
                    break;
                }
                continue;
            };
            let len = sounding.tone.fill(&mut out[written..]);
            written += len;
            if len == 0 {
                if let Some(id) = sounding.completes {
                    // A caller that never asks does not want to know.
                    let _ = self.done.push(id);
                }
                self.sounding = None;
            }
        }
        written
    }

    /// A string of which the last digit and the pause after it are over. Asked after
    /// [`Self::fill`].
    pub fn poll_done(&mut self) -> Option<DigitsId> {
        self.done.pop()
    }

    fn begin_next(&mut self) -> bool {
        let Some(next) = self.queue.pop() else {
            return false;
        };
        let tone = tone_of(next.digit, next.on_millis, next.off_millis)
            .expect("the queue admits no digit without length");
        self.sounding = Some(Sounding {
            tone: ToneGenerator::new(&tone, self.sample_rate),
            completes: next.completes,
        });
        true
    }
}

#[cfg(test)]
mod tests;
