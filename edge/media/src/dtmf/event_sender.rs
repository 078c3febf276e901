//! Telephone events that we send: RFC 4733 §2.5.1.
//!
//! The sender keeps the schedule; the leg keeps its stream. Each packet takes the place of audio:
//! while [`EventSender::is_sounding`] the leg sends no audio, and the RTP clock of its stream runs
//! on as if it did. The leg gives that clock's present value with every [`EventSender::poll`], and
//! the value at the beginning of a digit becomes the timestamp of all its packets.
//!
//! | | |
//! |---|---|
//! | pressed | a report every [`UPDATE_MILLIS`], its duration rising; the first one has the marker |
//! | released | the report with the E bit, [`FINAL_REPORTS`] times at the same pace, reaching into the pause |
//! | pause | nothing, until the next digit may begin |
//!
//! A duration has 16 bits: 1.4 s at 48 kHz. A longer press is sent in segments (§2.5.1.3): a report
//! of the full 65,535 units without E bit, then reports under the timestamp where that ended,
//! without a marker.

use trunkline_edge_api::{ClockRateHz, DigitsId, DigitsToSend, MonoTime};

use super::digit_queue::{DigitQueue, DigitsRefused, QueuedDigit};
use super::event_report::{self, EventReport};
use crate::outbox::Outbox;

/// How often a pressed key is reported. One packet time of nearly every phone, and well within the
/// 50 ms that RFC 4733 §2.5.1.2 recommends.
pub const UPDATE_MILLIS: u16 = 20;

/// How often the last report of an event or of a segment is sent in all (RFC 4733 §2.5.1.4).
pub const FINAL_REPORTS: u8 = 3;

/// Volume of the digits that we send, dB below 1 mW.
const VOLUME: u8 = 10;

/// The longest duration that a report can hold, RTP units.
const SEGMENT_UNITS: u32 = u16::MAX as u32;

const NANOS_PER_MILLI: u64 = 1_000_000;

/// A packet of telephone events to be sent now. SSRC, sequence number and payload type are the
/// leg's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventPacket {
    /// RTP timestamp: that of the event's, or of its segment's, beginning.
    pub timestamp: u32,
    /// RTP marker: set in the first packet of each event and in no other.
    pub marker: bool,
    /// RTP payload.
    pub payload: [u8; event_report::LEN],
}

/// See the module's description.
#[derive(Debug, Clone)]
pub struct EventSender {
    clock_rate: ClockRateHz,
    queue: DigitQueue,
    state: State,
    /// Where the last event ended on the RTP clock; `None` before the first.
    ended_at: Option<u32>,
    done: Outbox<DigitsId, 4>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Nothing to send.
    Idle,
    Pressed(Press),
    Released(Release),
    Pause {
        until: MonoTime,
        completes: Option<DigitsId>,
    },
}

/// A digit on its way.
#[derive(Debug, Clone, Copy)]
struct Press {
    digit: QueuedDigit,
    began_at: MonoTime,
    /// Reports whose time has come and gone.
    updates: u16,
    /// RTP timestamp of the present segment.
    timestamp: u32,
    /// RTP units of the segments before it.
    earlier_units: u32,
    /// The segment before, while it is still to be said again.
    segment_end: Option<SegmentEnd>,
}

/// A segment that is complete.
#[derive(Debug, Clone, Copy)]
struct SegmentEnd {
    packet: EventPacket,
    /// The update that it was last said with.
    said_with: u16,
    remaining: u8,
}

/// A digit that has ended.
#[derive(Debug, Clone, Copy)]
struct Release {
    packet: EventPacket,
    next_at: MonoTime,
    remaining: u8,
    /// When the next digit may begin.
    pause_until: MonoTime,
    completes: Option<DigitsId>,
}

impl EventSender {
    /// A sender with nothing to send. `clock_rate` is that of the leg's telephone events and of the
    /// audio beside them (RFC 4733 §2.1).
    #[must_use]
    pub fn new(clock_rate: ClockRateHz) -> Self {
        Self {
            clock_rate,
            queue: DigitQueue::new(),
            state: State::Idle,
            ended_at: None,
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

    /// A packet that is due at `now`; the caller sends it and asks again until there is none.
    /// `stream_timestamp` is where the leg's audio stream stands at `now` on its RTP clock.
    ///
    /// A caller that comes late finds the duration that is right by then, not a burst of the
    /// reports that it missed.
    pub fn poll(&mut self, now: MonoTime, stream_timestamp: u32) -> Option<EventPacket> {
        loop {
            if now < self.poll_timeout()? {
                return None;
            }
            match self.state {
                State::Idle => {
                    let digit = self.queue.pop()?;
                    self.press(now, stream_timestamp, digit);
                }
                State::Pressed(press) => return Some(self.update(now, press)),
                State::Released(mut release) => {
                    release.remaining -= 1;
                    release.next_at = release.next_at.plus_millis(u64::from(UPDATE_MILLIS));
                    self.state = match release.remaining {
                        0 => State::Pause {
                            until: release.pause_until,
                            completes: release.completes,
                        },
                        _ => State::Released(release),
                    };
                    return Some(release.packet);
                }
                State::Pause { completes, .. } => {
                    if let Some(id) = completes {
                        // A caller that never asks does not want to know.
                        let _ = self.done.push(id);
                    }
                    self.state = State::Idle;
                }
            }
        }
    }

    /// A string of which the last digit and the pause after it are over. Asked after
    /// [`Self::poll`].
    pub fn poll_done(&mut self) -> Option<DigitsId> {
        self.done.pop()
    }

    /// When [`Self::poll`] is due; a moment long past when it is due at once, `None` while there
    /// is nothing to send.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<MonoTime> {
        match &self.state {
            State::Idle if self.queue.is_empty() => None,
            State::Idle => Some(MonoTime(0)),
            State::Pressed(press) => Some(press.due_at()),
            State::Released(release) => Some(release.next_at),
            State::Pause { until, .. } => Some(*until),
        }
    }

    /// Whether a key is pressed: the leg's audio gives way.
    #[must_use]
    pub fn is_sounding(&self) -> bool {
        matches!(self.state, State::Pressed(_))
    }

    fn press(&mut self, now: MonoTime, stream_timestamp: u32, digit: QueuedDigit) {
        // Two events must not share a timestamp, whatever the leg's clock does.
        let timestamp = match self.ended_at {
            Some(ended_at) if stream_timestamp.wrapping_sub(ended_at) > u32::MAX / 2 => ended_at,
            _ => stream_timestamp,
        };
        self.state = State::Pressed(Press {
            digit,
            began_at: now,
            updates: 0,
            timestamp,
            earlier_units: 0,
            segment_end: None,
        });
    }

    /// The report that is due, or one that comes before it.
    fn update(&mut self, now: MonoTime, mut press: Press) -> EventPacket {
        let update = press.update_at(now);
        if let Some(again) = press.take_segment_end(update) {
            self.state = State::Pressed(press);
            return again;
        }
        let millis = update
            .saturating_mul(UPDATE_MILLIS)
            .min(press.digit.on_millis);
        let units = self.units(millis) - press.earlier_units;
        if units > SEGMENT_UNITS {
            let packet = press.packet(false, SEGMENT_UNITS);
            press.segment_end = Some(SegmentEnd {
                packet: EventPacket {
                    marker: false,
                    ..packet
                },
                said_with: update,
                remaining: FINAL_REPORTS - 1,
            });
            press.timestamp = press.timestamp.wrapping_add(SEGMENT_UNITS);
            press.earlier_units += SEGMENT_UNITS;
            self.state = State::Pressed(press);
            return packet;
        }
        let is_end = millis == press.digit.on_millis;
        let packet = press.packet(is_end, units);
        press.updates = update;
        self.state = if is_end {
            self.ended_at = Some(press.timestamp.wrapping_add(units));
            let digit = press.digit;
            let whole_millis = u64::from(digit.on_millis) + u64::from(digit.off_millis);
            State::Released(Release {
                packet: EventPacket {
                    marker: false,
                    ..packet
                },
                next_at: press.due_at(),
                remaining: FINAL_REPORTS - 1,
                pause_until: press.began_at.plus_millis(whole_millis),
                completes: digit.completes,
            })
        } else {
            State::Pressed(press)
        };
        packet
    }

    fn units(&self, millis: u16) -> u32 {
        // At most 2,000 ms at 384 kHz.
        (u64::from(millis) * u64::from(self.clock_rate.get()) / 1_000) as u32
    }
}

impl Press {
    /// When the next report is due.
    fn due_at(&self) -> MonoTime {
        let millis = u64::from(self.updates) * u64::from(UPDATE_MILLIS);
        self.began_at.plus_millis(millis)
    }

    /// The number of the report that is due at `now`, 1 for the first.
    fn update_at(&self, now: MonoTime) -> u16 {
        let update_nanos = u64::from(UPDATE_MILLIS) * NANOS_PER_MILLI;
        let passed = now.nanos_since(self.began_at) / update_nanos;
        u16::try_from(passed + 1)
            .unwrap_or(u16::MAX)
            .max(self.updates + 1)
    }

    fn take_segment_end(&mut self, update: u16) -> Option<EventPacket> {
        let end = self.segment_end.as_mut()?;
        if end.said_with == update {
            return None;
        }
        end.said_with = update;
        end.remaining -= 1;
        let packet = end.packet;
        if end.remaining == 0 {
            self.segment_end = None;
        }
        Some(packet)
    }

    fn packet(&self, is_end: bool, units: u32) -> EventPacket {
        let report = EventReport {
            event: self.digit.digit.event(),
            is_end,
            volume: VOLUME,
            duration: u16::try_from(units).unwrap_or(u16::MAX),
        };
        EventPacket {
            timestamp: self.timestamp,
            marker: self.updates == 0 && self.earlier_units == 0,
            payload: report.to_bytes(),
        }
    }
}

#[cfg(test)]
mod tests;
