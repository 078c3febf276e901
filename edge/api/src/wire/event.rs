//! Events: kinds and bodies.

use super::codec::{Reader, Writer};
use super::{DecodeError, DecodeFault, MessageBuf, bad};
use crate::event::{CloseCause, Event, MediaTimeoutKind, PlaybackEnd, Refusal};
use crate::function::{
    ConferenceId, DigitSource, DigitsId, PlaybackId, ProgressSignal, RecordingId,
};
use crate::vocabulary::Correlation;

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
    /// [`Event::DigitReceived`]. Since 1.2.
    DigitReceived = 40,
    /// [`Event::DigitsSent`]. Since 1.2.
    DigitsSent = 41,
    /// [`Event::PlaybackEnded`]. Since 1.2.
    PlaybackEnded = 42,
    /// [`Event::RecordingEnded`]. Since 1.2.
    RecordingEnded = 43,
    /// [`Event::ActivityChanged`]. Since 1.2.
    ActivityChanged = 44,
    /// [`Event::BeepHeard`]. Since 1.2.
    BeepHeard = 45,
    /// [`Event::SpeakerChanged`]. Since 1.2.
    SpeakerChanged = 46,
    /// [`Event::ProgressHeard`]. Since 1.3.
    ProgressHeard = 47,
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
            40 => Self::DigitReceived,
            41 => Self::DigitsSent,
            42 => Self::PlaybackEnded,
            43 => Self::RecordingEnded,
            44 => Self::ActivityChanged,
            45 => Self::BeepHeard,
            46 => Self::SpeakerChanged,
            47 => Self::ProgressHeard,
            other => return Err(other),
        })
    }
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
        Event::DigitReceived {
            session,
            leg,
            digit,
            duration_millis,
            source,
        } => {
            w.head(EventKind::DigitReceived as u16, UNASKED);
            w.leg_of(*session, *leg);
            w.u8(digit.event());
            w.u8(*source as u8);
            w.u16(0);
            w.u32(*duration_millis);
        }
        Event::DigitsSent {
            session,
            leg,
            digits,
        } => {
            w.head(EventKind::DigitsSent as u16, UNASKED);
            w.leg_of(*session, *leg);
            w.u32(digits.0);
        }
        Event::PlaybackEnded {
            session,
            leg,
            playback,
            cause,
            played_millis,
        } => {
            w.head(EventKind::PlaybackEnded as u16, UNASKED);
            w.leg_of(*session, *leg);
            w.u32(playback.0);
            w.bytes(&[*cause as u8, 0, 0, 0]);
            w.u64(*played_millis);
        }
        Event::RecordingEnded { recording, outcome } => {
            w.head(EventKind::RecordingEnded as u16, UNASKED);
            w.u64(recording.0);
            w.recording_outcome(outcome);
        }
        Event::ActivityChanged {
            session,
            leg,
            is_speaking,
        } => {
            w.head(EventKind::ActivityChanged as u16, UNASKED);
            w.leg_of(*session, *leg);
            w.u8(u8::from(*is_speaking));
        }
        Event::BeepHeard {
            session,
            leg,
            frequency_hz,
            duration_millis,
        } => {
            w.head(EventKind::BeepHeard as u16, UNASKED);
            w.leg_of(*session, *leg);
            w.u16(*frequency_hz);
            w.u16(0);
            w.u32(*duration_millis);
        }
        Event::ProgressHeard {
            session,
            leg,
            signal,
            frequencies_hz,
        } => {
            w.head(EventKind::ProgressHeard as u16, UNASKED);
            w.leg_of(*session, *leg);
            w.u8(*signal as u8);
            w.u8(0);
            for hz in frequencies_hz {
                w.u16(*hz);
            }
        }
        Event::SpeakerChanged {
            conference,
            speaker,
        } => {
            w.head(EventKind::SpeakerChanged as u16, UNASKED);
            w.u64(conference.0);
            w.optional_leg(*speaker);
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
        EventKind::DigitReceived => {
            let (session, leg) = r.leg_of()?;
            let digit = r.digit()?;
            let source = r.enumerated::<DigitSource>("source")?;
            r.u16("reserved")?;
            Event::DigitReceived {
                session,
                leg,
                digit,
                duration_millis: r.u32("duration_millis")?,
                source,
            }
        }
        EventKind::DigitsSent => {
            let (session, leg) = r.leg_of()?;
            Event::DigitsSent {
                session,
                leg,
                digits: DigitsId(r.u32("digits")?),
            }
        }
        EventKind::PlaybackEnded => {
            let (session, leg) = r.leg_of()?;
            let playback = PlaybackId(r.u32("playback")?);
            let cause = r.enumerated::<PlaybackEnd>("cause")?;
            r.take("reserved", 3)?;
            Event::PlaybackEnded {
                session,
                leg,
                playback,
                cause,
                played_millis: r.u64("played_millis")?,
            }
        }
        EventKind::RecordingEnded => Event::RecordingEnded {
            recording: RecordingId(r.u64("recording")?),
            outcome: r.recording_outcome()?,
        },
        EventKind::ActivityChanged => {
            let (session, leg) = r.leg_of()?;
            Event::ActivityChanged {
                session,
                leg,
                is_speaking: r.flag("is_speaking")?,
            }
        }
        EventKind::BeepHeard => {
            let (session, leg) = r.leg_of()?;
            let frequency_hz = r.u16("frequency_hz")?;
            r.u16("reserved")?;
            Event::BeepHeard {
                session,
                leg,
                frequency_hz,
                duration_millis: r.u32("duration_millis")?,
            }
        }
        EventKind::ProgressHeard => {
            let (session, leg) = r.leg_of()?;
            let signal = r.enumerated::<ProgressSignal>("signal")?;
            r.u8("reserved")?;
            let mut frequencies_hz = [0; 3];
            for hz in &mut frequencies_hz {
                *hz = r.u16("frequency_hz")?;
            }
            Event::ProgressHeard {
                session,
                leg,
                signal,
                frequencies_hz,
            }
        }
        EventKind::SpeakerChanged => Event::SpeakerChanged {
            conference: ConferenceId(r.u64("conference")?),
            speaker: r.optional_leg("speaker")?,
        },
    })
}
