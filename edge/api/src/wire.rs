//! The byte form of commands and events.
//!
//! A message is a 16-byte head and a body. Integers are little-endian.
//!
//! ```text
//! 0  u16  kind          CommandKind or EventKind
//! 2  u16  reserved      0
//! 4  u32  reserved      0
//! 8  u64  correlation   0 in events that answer nothing
//! 16 …    body
//! ```
//!
//! Bodies grow only at the end: a decoder ignores what follows the fields it knows. What repeats
//! inside a body (payload routes, leg reports) states the length of one element, so elements grow
//! at their end, too. Fields that a later minor version appends are optional to the decoder of
//! that version, which takes their default when the body ends before them.
//!
//! Encoding writes into a caller's buffer and cannot fail. Decoding trusts nothing: the bytes may
//! come from a peer of another release or from one that has gone wrong.

mod codec;
mod command;
mod event;
mod function;

pub use self::command::{CommandKind, decode_command, encode_command};
pub use self::event::{EventKind, decode_event, encode_event};
use crate::vocabulary::Correlation;

/// Longest message of major version 1, whatever minor version appends. The longest of this
/// version is a [`crate::Command::Play`] of sixteen tones with eight segments each, 1,192 bytes.
pub const MESSAGE_LEN_MAX: usize = 2048;

/// Room for one message.
pub type MessageBuf = [u8; MESSAGE_LEN_MAX];

/// Bytes before the body.
pub const HEAD_LEN: usize = 16;

/// A message that could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct DecodeError {
    /// The message's correlation, if the message was long enough to have one: a command that
    /// cannot be read is still answered, with [`crate::Refusal::Undecodable`].
    pub correlation: Option<Correlation>,
    /// What is wrong with it.
    pub fault: DecodeFault,
}

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeFault {
    /// It ends inside a field.
    #[error("the message of {len} bytes ends before its {field}")]
    Short {
        /// The field that does not fit.
        field: &'static str,
        /// Length of the whole message.
        len: usize,
    },
    /// Longer than [`MESSAGE_LEN_MAX`].
    #[error("the message of {len} bytes is longer than any can be")]
    Long {
        /// Length of the whole message.
        len: usize,
    },
    /// A kind that this version does not know.
    #[error("unknown message kind {0}: it comes from a later release")]
    UnknownKind(u16),
    /// A field has a value that is not defined.
    #[error("{field} cannot be {value}")]
    BadValue {
        /// The field.
        field: &'static str,
        /// What it held.
        value: u64,
    },
    /// Two routes begin with the same payload type.
    #[error("the payload routes name a payload type twice")]
    DuplicateRoute,
}

const fn bad(field: &'static str, value: u64) -> DecodeFault {
    DecodeFault::BadValue { field, value }
}

impl DecodeFault {
    const fn of(self, correlation: Correlation) -> DecodeError {
        DecodeError {
            correlation: Some(correlation),
            fault: self,
        }
    }
}

#[cfg(test)]
mod tests;
