//! DTMF, as telephone events (RFC 4733) and as tones in the audio (ITU-T Q.23, Q.24).
//!
//! | module | what it does |
//! |---|---|
//! | [`event_report`] | the four bytes of an event |
//! | [`event_detector`] | [`EventDetector`]: packets of events in, one digit per event out |
//! | [`event_sender`] | [`EventSender`]: digits in, packets of events out |
//! | [`tone_detector`] | [`ToneDetector`]: audio in, digits out |
//! | [`tone_sender`] | [`ToneSender`]: digits in, audio out |
//! | [`tone_suppressor`] | [`ToneSuppressor`]: audio in, audio without digits out |
//!
//! A key pressed for 60 ms, as [`EventSender`] says it and [`EventDetector`] hears it, 8 kHz clock:
//!
//! ```text
//!   ms   timestamp  marker  event  E  duration
//!    0      7200       1      5    0     160      DigitEvent::Began(5)
//!   20      7200       0      5    0     320
//!   40      7200       0      5    1     480      DigitEvent::Ended(5, 60 ms)
//!   60      7200       0      5    1     480      the same, in case the first was lost
//!   80      7200       0      5    1     480
//! ```
//!
//! Digits may be part of a secret: nothing here logs, and [`trunkline_edge_api::Digit`] prints
//! nothing of itself.

use trunkline_edge_api::Digit;

mod digit_queue;
pub mod event_detector;
pub mod event_report;
pub mod event_sender;
#[cfg(test)]
pub(crate) mod test_line;
pub mod tone_detector;
pub mod tone_sender;
pub mod tone_suppressor;

pub use digit_queue::DigitsRefused;
pub use event_detector::EventDetector;
pub use event_report::EventReport;
pub use event_sender::{EventPacket, EventSender};
pub use tone_detector::ToneDetector;
pub use tone_sender::ToneSender;
pub use tone_suppressor::ToneSuppressor;

/// What is heard of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DigitEvent {
    /// It was pressed. A prompt may stop here; the digit counts when it has ended.
    Began(Digit),
    /// It was let go. Exactly one follows each [`DigitEvent::Began`].
    Ended(HeardDigit),
}

/// A key that was pressed and let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeardDigit {
    /// Which key.
    pub digit: Digit,
    /// For how long, as far as it was heard, milliseconds.
    pub duration_millis: u32,
    /// How loud, dBm0: both tones together. Events give 0 to -63.
    pub level_dbm0: i8,
}

/// Frequencies of a digit's two tones, low group first, Hz (ITU-T Q.23).
#[must_use]
pub const fn frequencies_hz(digit: Digit) -> [u16; 2] {
    let (row, column) = KEY_POSITIONS[digit.event() as usize];
    [LOW_GROUP_HZ[row], HIGH_GROUP_HZ[column]]
}

/// Row and column on the keypad by event code (RFC 4733 §3.2).
const KEY_POSITIONS: [(usize, usize); 16] = [
    (3, 1),
    (0, 0),
    (0, 1),
    (0, 2),
    (1, 0),
    (1, 1),
    (1, 2),
    (2, 0),
    (2, 1),
    (2, 2),
    (3, 0),
    (3, 2),
    (0, 3),
    (1, 3),
    (2, 3),
    (3, 3),
];

/// Tones of the keypad's rows (ITU-T Q.23).
const LOW_GROUP_HZ: [u16; 4] = [697, 770, 852, 941];
/// Tones of the keypad's columns (ITU-T Q.23).
const HIGH_GROUP_HZ: [u16; 4] = [1_209, 1_336, 1_477, 1_633];
