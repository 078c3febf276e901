//! What happened in the media of a call, for operators to look at: digits, speech, beeps, ends of
//! playbacks and recordings.
//!
//! Each call has a list of its last [`EVENTS_MAX`] events, and those of the last [`ENDED_MAX`]
//! calls that are over are kept. Nothing here waits: a list that is full forgets its oldest event
//! and counts it, and who follows a call is told of each event as it is taken down
//! ([`super::Switch::poll_told`]).
//!
//! A digit may be part of a secret. Its value stands here only where the configuration says so
//! (`[media] dtmf_values`), and never while the side's digits are hidden.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};
use trunkline_edge_api::{DigitSource, LegIndex, PlaybackEnd, ProgressSignal};

use super::actions::Side;
use super::calls::CallKey;
use crate::cdr::RecordingEnding;

/// Events that are kept of one call.
pub(super) const EVENTS_MAX: usize = 64;

/// Calls that are over whose events are still kept.
const ENDED_MAX: usize = 256;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallEvent {
    /// Counts the call's events from 1: a gap says how many were missed.
    pub seq: u64,
    /// When control heard of it, milliseconds since the Unix epoch.
    pub at_unix_ms: i64,
    /// On which side; `None`: on the call as a whole.
    pub leg: Option<Side>,
    /// What.
    #[serde(flatten)]
    pub kind: CallEventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum CallEventKind {
    /// The side pressed a key.
    Digit {
        /// How it came.
        source: DigitWay,
        /// For how long, milliseconds.
        duration_ms: u32,
        /// Which key; `None` where it is not to be shown.
        value: Option<char>,
    },
    /// The side began to speak.
    SpeechBegan,
    /// It ceased to.
    SpeechEnded,
    /// An answering machine of the side has beeped.
    Beep {
        /// Its frequency, Hz.
        frequency_hz: u16,
        /// For how long, milliseconds.
        duration_ms: u32,
    },
    /// The side is, or is connected to, something that speaks in tones.
    Progress {
        /// What they mean.
        signal: Progress,
        /// What was heard, Hz; 0 where there are fewer.
        frequencies_hz: [u16; 3],
    },
    /// Digits were sent to the side, all of one string.
    DigitsSent,
    /// What was played to the side is over.
    PlaybackEnded {
        /// Why.
        cause: PlaybackCause,
        /// How much of it was sent, milliseconds.
        played_ms: u64,
    },
    /// What was to be played to the side could not be.
    NotPlayed {
        /// Why.
        reason: String,
    },
    /// A recording's file is complete, or as complete as it will be.
    RecordingEnded(RecordingEnding),
    /// The call is over.
    CallEnded,
}

/// What tones say of the far end of a call (ITU-T E.180, T.30).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// An exchange waits for digits.
    DialTone,
    /// The called telephone rings.
    Ringback,
    /// The called party is busy.
    Busy,
    /// The network is congested.
    Congestion,
    /// An announcement follows: no such number, out of order, no circuit.
    SpecialInformation,
    /// A fax machine calls.
    FaxCalling,
    /// A fax machine or modem answers.
    FaxAnswer,
}

impl From<ProgressSignal> for Progress {
    fn from(signal: ProgressSignal) -> Self {
        match signal {
            ProgressSignal::DialTone => Self::DialTone,
            ProgressSignal::Ringback => Self::Ringback,
            ProgressSignal::Busy => Self::Busy,
            ProgressSignal::Congestion => Self::Congestion,
            ProgressSignal::SpecialInformation => Self::SpecialInformation,
            ProgressSignal::FaxCalling => Self::FaxCalling,
            ProgressSignal::FaxAnswer => Self::FaxAnswer,
        }
    }
}

/// How a digit came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DigitWay {
    /// A telephone event (RFC 4733).
    Event,
    /// A tone in the audio (ITU-T Q.23).
    Inband,
    /// An INFO request.
    Info,
}

impl From<DigitSource> for DigitWay {
    fn from(source: DigitSource) -> Self {
        match source {
            DigitSource::Event => Self::Event,
            DigitSource::InBand => Self::Inband,
        }
    }
}

/// Why a playback is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlaybackCause {
    /// All of it was played.
    Completed,
    /// Somebody stopped it, or something else took its place.
    Stopped,
    /// The side pressed a key.
    Digit,
}

impl From<PlaybackEnd> for PlaybackCause {
    fn from(end: PlaybackEnd) -> Self {
        match end {
            PlaybackEnd::Completed => Self::Completed,
            PlaybackEnd::Stopped => Self::Stopped,
            PlaybackEnd::Digit => Self::Digit,
        }
    }
}

/// The list of one call.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EventsReport {
    /// The call.
    pub call_id: String,
    /// Events that the list has forgotten because it was full.
    pub forgotten: u64,
    /// Whether nothing more will happen.
    pub is_over: bool,
    /// The oldest first.
    pub events: Vec<CallEvent>,
}

/// Something for who follows a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// This has happened.
    Event(CallId, CallEvent),
    /// Nothing more will happen.
    Over(CallId),
}

/// A call's id, as records and logs have it.
pub type CallId = String;

#[derive(Debug, Default)]
struct List {
    call_id: CallId,
    events: VecDeque<CallEvent>,
    last_seq: u64,
    is_over: bool,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct EventLists {
    lists: HashMap<CallKey, List>,
    ended: VecDeque<CallKey>,
    told: VecDeque<Told>,
}

impl EventLists {
    /// Takes down an event. A call's first one begins its list.
    pub(super) fn push(
        &mut self,
        (key, call_id): (CallKey, &str),
        at_unix_ms: i64,
        leg: Option<LegIndex>,
        kind: CallEventKind,
    ) {
        let list = self.lists.entry(key).or_insert_with(|| List {
            call_id: call_id.to_owned(),
            ..List::default()
        });
        list.last_seq += 1;
        let event = CallEvent {
            seq: list.last_seq,
            at_unix_ms,
            leg: leg.map(Side::from),
            kind,
        };
        if list.events.len() == EVENTS_MAX {
            list.events.pop_front();
        }
        list.events.push_back(event.clone());
        self.told
            .push_back(Told::Event(list.call_id.clone(), event));
    }

    /// Nothing more will happen in a call that has a list.
    pub(super) fn end(&mut self, key: CallKey) {
        let Some(list) = self.lists.get_mut(&key) else {
            return;
        };
        if std::mem::replace(&mut list.is_over, true) {
            return;
        }
        self.told.push_back(Told::Over(list.call_id.clone()));
        self.ended.push_back(key);
        if self.ended.len() > ENDED_MAX
            && let Some(oldest) = self.ended.pop_front()
        {
            self.lists.remove(&oldest);
        }
    }

    /// The list of a call; `None` for one in which nothing has happened, or that is forgotten.
    pub(super) fn report(&self, key: CallKey) -> Option<EventsReport> {
        let list = self.lists.get(&key)?;
        Some(EventsReport {
            call_id: list.call_id.clone(),
            forgotten: list.last_seq - list.events.len() as u64,
            is_over: list.is_over,
            events: list.events.iter().cloned().collect(),
        })
    }

    pub(super) fn poll_told(&mut self) -> Option<Told> {
        self.told.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: CallKey = CallKey(1);

    fn sequence(report: &EventsReport) -> Vec<u64> {
        report.events.iter().map(|event| event.seq).collect()
    }

    #[test]
    fn full_list_forgets_its_oldest_events_and_counts_them() {
        let mut lists = EventLists::default();
        for _ in 0..EVENTS_MAX + 3 {
            lists.push((CALL, "1-1"), 5, None, CallEventKind::SpeechBegan);
        }
        let report = lists.report(CALL).expect("a list");
        assert_eq!(report.forgotten, 3);
        assert_eq!(sequence(&report), Vec::from_iter(4..=EVENTS_MAX as u64 + 3));
        let told = std::iter::from_fn(|| lists.poll_told()).count();
        assert_eq!(told, EVENTS_MAX + 3, "who follows misses nothing");
    }

    #[test]
    fn calls_that_are_over_are_remembered_up_to_a_limit_and_told_of_once() {
        let mut lists = EventLists::default();
        for key in 0..=ENDED_MAX as u64 {
            let (key, id) = (CallKey(key), format!("1-{key:x}"));
            lists.push((key, &id), 5, None, CallEventKind::CallEnded);
            lists.end(key);
            lists.end(key);
            let told = Vec::from_iter(std::iter::from_fn(|| lists.poll_told()));
            assert_eq!(told.len(), 2);
            assert_eq!(told[1], Told::Over(id));
        }
        assert_eq!(lists.report(CallKey(0)), None);
        assert!(lists.report(CALL).is_some_and(|report| report.is_over));
    }

    #[test]
    fn event_reads_as_one_flat_object() {
        let event = CallEvent {
            seq: 3,
            at_unix_ms: 7,
            leg: Some(Side::B),
            kind: CallEventKind::Digit {
                source: DigitWay::Event,
                duration_ms: 100,
                value: None,
            },
        };
        let text = serde_json::to_string(&event).expect("JSON");
        let flat = r#"{"seq":3,"at_unix_ms":7,"leg":"b","event":"digit","source":"event","duration_ms":100,"value":null}"#;
        assert_eq!(text, flat);
        assert_eq!(
            serde_json::from_str::<CallEvent>(&text).expect("read"),
            event
        );
    }
}
