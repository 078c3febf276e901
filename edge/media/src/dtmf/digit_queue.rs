//! Digits that wait to be sent.

use std::collections::VecDeque;
use std::fmt;

use trunkline_edge_api::{Digit, DigitsId, DigitsToSend};

/// Digits that may wait: two of the longest strings.
const DIGITS_MAX: usize = 2 * trunkline_edge_api::DigitString::LEN_MAX;

/// Shortest tone and shortest pause, milliseconds (ITU-T Q.24).
const MILLIS_MIN: u16 = 40;
/// Longest tone and longest pause, milliseconds.
const MILLIS_MAX: u16 = 2_000;

/// There is no room for these digits behind those that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DigitsRefused;

impl fmt::Display for DigitsRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "at most {DIGITS_MAX} digits may wait; send these when those before are done"
        )
    }
}

impl std::error::Error for DigitsRefused {}

/// One digit and its place in its string.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueuedDigit {
    pub(super) digit: Digit,
    pub(super) on_millis: u16,
    pub(super) off_millis: u16,
    /// The string that is done with this digit.
    pub(super) completes: Option<DigitsId>,
}

/// Strings one after the other; sized once.
#[derive(Debug, Clone)]
pub(super) struct DigitQueue {
    digits: VecDeque<QueuedDigit>,
    /// The string that was taken last. Saying it again changes nothing.
    newest: Option<DigitsId>,
}

impl DigitQueue {
    pub(super) fn new() -> Self {
        Self {
            digits: VecDeque::with_capacity(DIGITS_MAX),
            newest: None,
        }
    }

    /// Takes a string whole or not at all. Times outside the range that [`DigitsToSend`] names
    /// are brought into it.
    pub(super) fn push(&mut self, string: &DigitsToSend) -> Result<(), DigitsRefused> {
        if self.newest == Some(string.id) {
            return Ok(());
        }
        let digits = string.digits.as_slice();
        if self.digits.len() + digits.len() > DIGITS_MAX {
            return Err(DigitsRefused);
        }
        self.newest = Some(string.id);
        for (index, &digit) in digits.iter().enumerate() {
            self.digits.push_back(QueuedDigit {
                digit,
                on_millis: string.on_millis.clamp(MILLIS_MIN, MILLIS_MAX),
                off_millis: string.off_millis.clamp(MILLIS_MIN, MILLIS_MAX),
                completes: (index + 1 == digits.len()).then_some(string.id),
            });
        }
        Ok(())
    }

    pub(super) fn pop(&mut self) -> Option<QueuedDigit> {
        self.digits.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.digits.is_empty()
    }
}
