//! Telephone events that a peer sends: RFC 4733 §2.5.2.
//!
//! All packets of an event carry the timestamp of its beginning; that, with the event's code, is
//! what makes two packets speak of the same key. So the detector can lose any packet of an event
//! but all of them, can hear them twice and out of order, and still tells each key once.
//!
//! | what arrives | what it means |
//! |---|---|
//! | a timestamp and code not heard before | a key is pressed; one that was still pressed has ended |
//! | those of the key that is pressed | it is still pressed, or with the E bit has ended |
//! | those of a key that has ended | a repeat |
//! | no marker, the same key, beginning where its report ends | the next segment of a long press (§2.5.1.3) |
//! | a timestamp shortly before the newest | a latecomer of which nothing else arrived: dropped, because digits in the wrong order are worse than one too few |
//! | a code above 15 | no digit: ignored |
//! | nothing for [`END_LOST_NANOS`] | the key has ended, and nobody said so |
//!
//! RTP sequence numbers, SSRCs and payload types are the session's matter. Redundant payloads
//! (RFC 2198) are not read.

use trunkline_edge_api::{ClockRateHz, Digit, MonoTime};

use super::event_report::{EventReport, REPORTS_MAX};
use super::{DigitEvent, HeardDigit};
use crate::outbox::Outbox;

/// A pressed key of which nothing more is heard has ended. Senders say every 50 ms or more often
/// that it is still pressed (RFC 4733 §2.5.1.2), so this is four of them lost in a row.
pub const END_LOST_NANOS: u64 = 200_000_000;

/// Digits per second over a longer time. ITU-T Q.24 has 40 ms of tone and 40 ms of pause as the
/// fastest that anybody must understand, which makes 12.5.
pub const DIGITS_PER_SECOND_MAX: u64 = 25;

/// Digits at once: a whole number from a speed dial, or what a network held back.
pub const DIGITS_BURST_MAX: u64 = 32;

/// Ended events that are remembered so that their late packets are known.
const REMEMBERED: usize = 8;

/// A timestamp at most so far behind the newest, in seconds, is late; further behind, the sender
/// has restarted its clock.
const LATE_SECS_MAX: u32 = 5;

/// What becomes of telephone events beside those that are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventCounts {
    /// Digits told, those pressed now among them.
    pub digits: u64,
    /// Reports of a key that had ended: retransmitted ends, duplicates, reordered packets.
    pub repeats: u64,
    /// Reports older than the newest event, of an event that was not heard of.
    pub late: u64,
    /// Packets too short for a report.
    pub malformed: u64,
    /// Events with a code above 15.
    pub other_events: u64,
    /// Digits not told because there were more than [`DIGITS_PER_SECOND_MAX`].
    pub over_rate: u64,
    /// Tellings lost because nobody took the ones before.
    pub untold: u64,
}

/// See the module's description.
#[derive(Debug, Clone)]
pub struct EventDetector {
    state: State,
    /// What has ended, the newest at `ended_count % REMEMBERED`.
    ended: [Option<Span>; REMEMBERED],
    ended_count: usize,
    /// Timestamp and code of the newest event above 15.
    other_event: Option<(u32, u8)>,
    /// When the next digit may come if digits came evenly, nanoseconds (a leaky bucket).
    rate_due: MonoTime,
    counts: EventCounts,
    outbox: Outbox<DigitEvent, { 3 * REPORTS_MAX }>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// No key is pressed.
    Idle,
    /// One is.
    Pressed(Press),
}

#[derive(Debug, Clone, Copy)]
struct Press {
    digit: Digit,
    /// The present segment.
    span: Span,
    /// RTP units of the segments before it.
    earlier_units: u64,
    volume: u8,
    clock_rate: ClockRateHz,
    heard_at: MonoTime,
}

/// An event, or one segment of a long one, on the RTP clock.
#[derive(Debug, Clone, Copy)]
struct Span {
    code: u8,
    timestamp: u32,
    duration: u16,
}

/// What a report says to one who knows what came before: a row of the module's table.
#[derive(Debug, Clone, Copy)]
enum Meaning {
    /// Of the key that is pressed.
    StillPressed(Press),
    /// Of the same key, on a later timestamp.
    NextSegment(Press),
    Repeat,
    Late,
    NewPress,
}

impl Span {
    fn is_of(&self, timestamp: u32, report: &EventReport) -> bool {
        self.code == report.event && self.timestamp == timestamp
    }

    /// Whether `report` speaks of a key that was pressed while the same key was pressed: a sender
    /// that moves the timestamp on within an event.
    fn overlaps(&self, timestamp: u32, marker: bool, report: &EventReport) -> bool {
        let ahead = timestamp.wrapping_sub(self.timestamp);
        !marker && self.code == report.event && ahead < u32::from(self.duration)
    }

    /// Whether `report` is of the segment that follows this one.
    fn is_continued_by(&self, timestamp: u32, marker: bool, report: &EventReport) -> bool {
        let ahead = timestamp.wrapping_sub(self.timestamp);
        !marker
            && self.code == report.event
            // The report of the whole segment may be lost.
            && (ahead == u32::from(self.duration) || ahead == u32::from(u16::MAX))
    }
}

impl Default for EventDetector {
    fn default() -> Self {
        Self::new()
    }
}

impl EventDetector {
    /// A detector that has heard nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: State::Idle,
            ended: [None; REMEMBERED],
            ended_count: 0,
            other_event: None,
            rate_due: MonoTime(0),
            counts: EventCounts {
                digits: 0,
                repeats: 0,
                late: 0,
                malformed: 0,
                other_events: 0,
                over_rate: 0,
                untold: 0,
            },
            outbox: Outbox::new(),
        }
    }

    /// Takes the payload of a telephone-event packet, in the order of arrival. `timestamp` and
    /// `marker` are those of its RTP header, `clock_rate` that of its payload type. The caller
    /// drains [`Self::poll_event`] afterwards.
    pub fn handle_packet(
        &mut self,
        now: MonoTime,
        clock_rate: ClockRateHz,
        timestamp: u32,
        marker: bool,
        payload: &[u8],
    ) {
        let mut is_malformed = true;
        for (offset, report) in EventReport::in_payload(payload) {
            is_malformed = false;
            let timestamp = timestamp.wrapping_add(offset);
            match Digit::from_event(report.event) {
                Some(digit) => {
                    self.handle_report(now, clock_rate, timestamp, marker, digit, &report);
                }
                None => self.count_other(timestamp, report.event),
            }
        }
        self.counts.malformed += u64::from(is_malformed);
    }

    fn handle_report(
        &mut self,
        now: MonoTime,
        clock_rate: ClockRateHz,
        timestamp: u32,
        marker: bool,
        digit: Digit,
        report: &EventReport,
    ) {
        match self.meaning_of(clock_rate, timestamp, marker, report) {
            Meaning::StillPressed(press) => {
                let span = Span {
                    duration: press.span.duration.max(report.duration),
                    ..press.span
                };
                self.state = State::Pressed(Press {
                    span,
                    heard_at: now,
                    ..press
                });
            }
            Meaning::NextSegment(press) => {
                self.remember(press.span);
                let ahead = timestamp.wrapping_sub(press.span.timestamp);
                let span = Span {
                    timestamp,
                    duration: report.duration,
                    ..press.span
                };
                self.state = State::Pressed(Press {
                    span,
                    earlier_units: press.earlier_units + u64::from(ahead),
                    heard_at: now,
                    ..press
                });
            }
            Meaning::Repeat => {
                self.counts.repeats += 1;
                return;
            }
            Meaning::Late => {
                self.counts.late += 1;
                return;
            }
            Meaning::NewPress => {
                self.end_press();
                let span = Span {
                    code: report.event,
                    timestamp,
                    duration: report.duration,
                };
                if !self.take_from_rate(now) {
                    self.counts.over_rate += 1;
                    self.remember(span);
                    return;
                }
                self.counts.digits += 1;
                self.tell(DigitEvent::Began(digit));
                self.state = State::Pressed(Press {
                    digit,
                    span,
                    earlier_units: 0,
                    volume: report.volume,
                    clock_rate,
                    heard_at: now,
                });
            }
        }
        if report.is_end {
            self.end_press();
        }
    }

    fn meaning_of(
        &self,
        clock_rate: ClockRateHz,
        timestamp: u32,
        marker: bool,
        report: &EventReport,
    ) -> Meaning {
        match self.state {
            State::Pressed(press) if press.span.is_of(timestamp, report) => {
                Meaning::StillPressed(press)
            }
            State::Pressed(press)
                if press.span.overlaps(timestamp, marker, report)
                    || press.span.is_continued_by(timestamp, marker, report) =>
            {
                Meaning::NextSegment(press)
            }
            _ if self.is_repeat(timestamp, marker, report) => Meaning::Repeat,
            _ if self.is_late(timestamp, clock_rate) => Meaning::Late,
            _ => Meaning::NewPress,
        }
    }

    /// A key whose end was lost is told when nothing was heard of it for [`END_LOST_NANOS`].
    pub fn handle_timeout(&mut self, now: MonoTime) {
        if self.poll_timeout().is_some_and(|due| due <= now) {
            self.end_press();
        }
    }

    /// Nothing more will come: a key that is pressed has ended. For the end of a call, where the
    /// last digit's end often arrives after the hang-up.
    pub fn finish(&mut self) {
        self.end_press();
    }

    /// What was heard, in order; `None` when there is nothing more to tell.
    pub fn poll_event(&mut self) -> Option<DigitEvent> {
        self.outbox.pop()
    }

    /// When [`Self::handle_timeout`] is due; `None` while no key is pressed.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<MonoTime> {
        match &self.state {
            State::Idle => None,
            State::Pressed(press) => Some(press.heard_at.plus_nanos(END_LOST_NANOS)),
        }
    }

    /// What became of all packets so far.
    #[must_use]
    pub fn counts(&self) -> EventCounts {
        self.counts
    }

    fn end_press(&mut self) {
        if let State::Pressed(press) = std::mem::replace(&mut self.state, State::Idle) {
            self.remember(press.span);
            let units = press.earlier_units + u64::from(press.span.duration);
            let millis = units * 1_000 / u64::from(press.clock_rate.get());
            self.tell(DigitEvent::Ended(HeardDigit {
                digit: press.digit,
                duration_millis: u32::try_from(millis).unwrap_or(u32::MAX),
                level_dbm0: -(press.volume as i8),
            }));
        }
    }

    fn tell(&mut self, event: DigitEvent) {
        if !self.outbox.push(event) {
            self.counts.untold += 1;
        }
    }

    fn remember(&mut self, span: Span) {
        self.ended_count += 1;
        self.ended[self.ended_count % REMEMBERED] = Some(span);
    }

    fn is_repeat(&self, timestamp: u32, marker: bool, report: &EventReport) -> bool {
        self.ended
            .iter()
            .flatten()
            .any(|span| span.is_of(timestamp, report) || span.overlaps(timestamp, marker, report))
    }

    fn is_late(&self, timestamp: u32, clock_rate: ClockRateHz) -> bool {
        let newest = match &self.state {
            State::Pressed(press) => Some(press.span),
            State::Idle => self.ended[self.ended_count % REMEMBERED],
        };
        newest.is_some_and(|newest| {
            let behind = newest.timestamp.wrapping_sub(timestamp);
            behind != 0 && behind <= clock_rate.get() * LATE_SECS_MAX
        })
    }

    fn count_other(&mut self, timestamp: u32, code: u8) {
        if self.other_event != Some((timestamp, code)) {
            self.other_event = Some((timestamp, code));
            self.counts.other_events += 1;
        }
    }

    /// Whether one more digit is within the rate.
    fn take_from_rate(&mut self, now: MonoTime) -> bool {
        const INTERVAL_NANOS: u64 = 1_000_000_000 / DIGITS_PER_SECOND_MAX;
        let ahead_nanos = self.rate_due.nanos_since(now);
        if ahead_nanos > (DIGITS_BURST_MAX - 1) * INTERVAL_NANOS {
            return false;
        }
        self.rate_due = self.rate_due.max(now).plus_nanos(INTERVAL_NANOS);
        true
    }
}

#[cfg(test)]
mod tests;
