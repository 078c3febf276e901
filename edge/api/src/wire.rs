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

use self::codec::{Reader, Writer};
use crate::command::{Command, CorrelatedCommand, LocalMedia, MediaDirection, RtcpMode};
use crate::event::{CloseCause, Event, MediaTimeoutKind, Refusal};
use crate::vocabulary::{Correlation, Epoch, Ssrc};

/// Longest message of major version 1, whatever minor version appends. The longest of this
/// version is a [`Command::ConfigureLeg`] with 32 routes, two keys and eight
/// networks, 632 bytes.
pub const MESSAGE_LEN_MAX: usize = 2048;

/// Room for one message.
pub type MessageBuf = [u8; MESSAGE_LEN_MAX];

/// Bytes before the body.
pub const HEAD_LEN: usize = 16;

/// Numbers of the commands. ABI: never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum CommandKind {
    /// [`Command::OpenLeg`].
    OpenLeg = 10,
    /// [`Command::ConfigureLeg`].
    ConfigureLeg = 11,
    /// [`Command::CloseLeg`].
    CloseLeg = 12,
    /// [`Command::CloseSession`].
    CloseSession = 13,
    /// [`Command::QuerySession`].
    QuerySession = 20,
    /// [`Command::QueryAllSessions`].
    QueryAllSessions = 21,
    /// [`Command::CloseOtherEpochs`].
    CloseOtherEpochs = 30,
}

impl TryFrom<u16> for CommandKind {
    type Error = u16;

    fn try_from(value: u16) -> Result<Self, u16> {
        Ok(match value {
            10 => Self::OpenLeg,
            11 => Self::ConfigureLeg,
            12 => Self::CloseLeg,
            13 => Self::CloseSession,
            20 => Self::QuerySession,
            21 => Self::QueryAllSessions,
            30 => Self::CloseOtherEpochs,
            other => return Err(other),
        })
    }
}

/// Numbers of the events. ABI: never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum EventKind {
    /// [`Event::CommandDone`].
    CommandDone = 10,
    /// [`Event::SessionClosed`].
    SessionClosed = 11,
    /// [`Event::SessionReported`].
    SessionReported = 20,
    /// [`Event::MediaStarted`].
    MediaStarted = 30,
    /// [`Event::MediaTimedOut`]. Since 1.1.
    MediaTimedOut = 31,
}

impl TryFrom<u16> for EventKind {
    type Error = u16;

    fn try_from(value: u16) -> Result<Self, u16> {
        Ok(match value {
            10 => Self::CommandDone,
            11 => Self::SessionClosed,
            20 => Self::SessionReported,
            30 => Self::MediaStarted,
            31 => Self::MediaTimedOut,
            other => return Err(other),
        })
    }
}

/// A message that could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct DecodeError {
    /// The message's correlation, if the message was long enough to have one: a command that
    /// cannot be read is still answered, with [`Refusal::Undecodable`].
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

/// Writes a command's bytes to the front of `buf` and returns them.
pub fn encode_command<'b>(message: &CorrelatedCommand, buf: &'b mut MessageBuf) -> &'b [u8] {
    let mut w = Writer::new(buf);
    let kind = match message.command {
        Command::OpenLeg { .. } => CommandKind::OpenLeg,
        Command::ConfigureLeg { .. } => CommandKind::ConfigureLeg,
        Command::CloseLeg { .. } => CommandKind::CloseLeg,
        Command::CloseSession { .. } => CommandKind::CloseSession,
        Command::QuerySession { .. } => CommandKind::QuerySession,
        Command::QueryAllSessions => CommandKind::QueryAllSessions,
        Command::CloseOtherEpochs { .. } => CommandKind::CloseOtherEpochs,
    };
    w.head(kind as u16, message.correlation);
    match &message.command {
        Command::OpenLeg {
            session,
            leg,
            local,
        } => {
            w.u64(session.0);
            w.u8(*leg as u8);
            w.u8(local.rtcp as u8);
            w.u16(0);
            w.u32(local.ssrc.0);
            w.socket_addr(Some(local.rtp));
        }
        Command::ConfigureLeg {
            session,
            leg,
            config,
        } => {
            w.u64(session.0);
            w.u8(*leg as u8);
            w.u8(config.direction as u8);
            w.leg_config(config);
        }
        Command::CloseLeg { session, leg } => {
            w.u64(session.0);
            w.u8(*leg as u8);
        }
        Command::CloseSession { session } | Command::QuerySession { session } => w.u64(session.0),
        Command::QueryAllSessions => {}
        Command::CloseOtherEpochs { keep } => w.u32(keep.0),
    }
    w.finish()
}

/// Reads a command.
///
/// # Errors
/// [`DecodeError`] for anything but a well-formed command of this major version.
pub fn decode_command(bytes: &[u8]) -> Result<CorrelatedCommand, DecodeError> {
    let (mut r, kind, correlation) = Reader::begin(bytes)?;
    let kind = CommandKind::try_from(kind)
        .map_err(DecodeFault::UnknownKind)
        .map_err(|fault| fault.of(correlation))?;
    read_command(&mut r, kind)
        .map(|command| CorrelatedCommand {
            correlation,
            command,
        })
        .map_err(|fault| fault.of(correlation))
}

fn read_command(r: &mut Reader<'_>, kind: CommandKind) -> Result<Command, DecodeFault> {
    Ok(match kind {
        CommandKind::OpenLeg => {
            let session = r.session()?;
            let leg = r.leg()?;
            let rtcp = r.enumerated::<RtcpMode>("rtcp")?;
            r.u16("reserved")?;
            let ssrc = Ssrc(r.u32("ssrc")?);
            let rtp = r.socket_addr("local")?.ok_or(bad("local", 0))?;
            Command::OpenLeg {
                session,
                leg,
                local: LocalMedia { rtp, rtcp, ssrc },
            }
        }
        CommandKind::ConfigureLeg => {
            let session = r.session()?;
            let leg = r.leg()?;
            let direction = r.enumerated::<MediaDirection>("direction")?;
            Command::ConfigureLeg {
                session,
                leg,
                config: r.leg_config(direction)?,
            }
        }
        CommandKind::CloseLeg => Command::CloseLeg {
            session: r.session()?,
            leg: r.leg()?,
        },
        CommandKind::CloseSession => Command::CloseSession {
            session: r.session()?,
        },
        CommandKind::QuerySession => Command::QuerySession {
            session: r.session()?,
        },
        CommandKind::QueryAllSessions => Command::QueryAllSessions,
        CommandKind::CloseOtherEpochs => Command::CloseOtherEpochs {
            keep: Epoch(r.u32("keep")?),
        },
    })
}

/// Writes an event's bytes to the front of `buf` and returns them. Allocates nothing.
pub fn encode_event<'b>(event: &Event, buf: &'b mut MessageBuf) -> &'b [u8] {
    const UNASKED: Correlation = Correlation(0);
    let mut w = Writer::new(buf);
    match event {
        Event::CommandDone {
            correlation,
            result,
        } => {
            w.head(EventKind::CommandDone as u16, *correlation);
            w.u16(match result {
                Ok(()) => 0,
                Err(refusal) => *refusal as u16,
            });
        }
        Event::SessionClosed { cause, report } => {
            w.head(EventKind::SessionClosed as u16, UNASKED);
            w.u16(*cause as u16);
            w.report(report);
        }
        Event::SessionReported {
            correlation,
            report,
        } => {
            w.head(EventKind::SessionReported as u16, *correlation);
            w.u16(0);
            w.report(report);
        }
        Event::MediaStarted {
            session,
            leg,
            source,
        } => {
            w.head(EventKind::MediaStarted as u16, UNASKED);
            w.u64(session.0);
            w.u8(*leg as u8);
            w.u8(0);
            w.u16(0);
            w.u32(0);
            w.socket_addr(Some(*source));
        }
        Event::MediaTimedOut { session, leg, kind } => {
            w.head(EventKind::MediaTimedOut as u16, UNASKED);
            w.u64(session.0);
            w.u8(*leg as u8);
            w.u8(*kind as u8);
        }
    }
    w.finish()
}

/// Reads an event.
///
/// # Errors
/// [`DecodeError`] for anything but a well-formed event of this major version.
pub fn decode_event(bytes: &[u8]) -> Result<Event, DecodeError> {
    let (mut r, kind, correlation) = Reader::begin(bytes)?;
    let kind = EventKind::try_from(kind)
        .map_err(DecodeFault::UnknownKind)
        .map_err(|fault| fault.of(correlation))?;
    read_event(&mut r, kind, correlation).map_err(|fault| fault.of(correlation))
}

fn read_event(
    r: &mut Reader<'_>,
    kind: EventKind,
    correlation: Correlation,
) -> Result<Event, DecodeFault> {
    Ok(match kind {
        EventKind::CommandDone => {
            let result = match r.u16("result")? {
                0 => Ok(()),
                code => Err(Refusal::try_from(code).map_err(|v| bad("result", v.into()))?),
            };
            Event::CommandDone {
                correlation,
                result,
            }
        }
        EventKind::SessionClosed => {
            let cause =
                CloseCause::try_from(r.u16("cause")?).map_err(|v| bad("cause", v.into()))?;
            Event::SessionClosed {
                cause,
                report: r.report()?,
            }
        }
        EventKind::SessionReported => {
            r.u16("reserved")?;
            Event::SessionReported {
                correlation,
                report: r.report()?,
            }
        }
        EventKind::MediaStarted => {
            let session = r.session()?;
            let leg = r.leg()?;
            r.take("reserved", 7)?;
            let source = r.socket_addr("source")?.ok_or(bad("source", 0))?;
            Event::MediaStarted {
                session,
                leg,
                source,
            }
        }
        EventKind::MediaTimedOut => Event::MediaTimedOut {
            session: r.session()?,
            leg: r.leg()?,
            kind: r.enumerated::<MediaTimeoutKind>("kind")?,
        },
    })
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
