//! Call detail records: what a call was, written once and never lost.
//!
//! The call thread hands a finished call, or a finished recording, to [`CdrWriter::submit`], which
//! never waits. A recording is a record of its own, because its file may be complete after the call
//! is over. The
//! writer's own thread makes it durable in the spool (a file of JSON lines in `state_dir`, synced
//! before anything else happens), then puts it into the store. A record leaves the spool only
//! after the store has it; the store knows a record by its `call_id`, so one that is delivered
//! twice is kept once.
//!
//! When the spool cannot be written (a full disk) records wait in bounded memory, `/readyz` says
//! so, and the writer tries again. Only a record that finds that memory full is lost, and counted.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use trunkline_edge_api::{LegReport, MediaTimeoutKind};

use crate::edge::MediaRefused;

macro_rules! named_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant,)* }

        impl $name {
            /// Every value.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// Name in records, metrics and command output.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<Self, UnknownName> {
                match text { $($text => Ok($name::$variant),)* _ => Err(UnknownName) }
            }
        }
    };
}

mod recording;
mod spool;
#[cfg(test)]
pub(crate) mod tests;
mod writer;

pub use recording::{RecordingCause, RecordingEnding, RecordingRecord};
pub use writer::{CdrStatus, CdrWriter, CdrWriterThread, spawn};

/// What the writer carries: a line of the spool, a row of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DetailRecord {
    /// A recording that is over. It has a `recording_id`, which a call has not.
    Recording(Box<RecordingRecord>),
    /// A call that is over; lines of every release are read.
    Call(Box<CallRecord>),
}

impl DetailRecord {
    /// What the store knows it by.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Recording(recording) => &recording.recording_id,
            Self::Call(call) => &call.call_id,
        }
    }
}

impl From<CallRecord> for DetailRecord {
    fn from(call: CallRecord) -> Self {
        Self::Call(Box::new(call))
    }
}

impl From<RecordingRecord> for DetailRecord {
    fn from(recording: RecordingRecord) -> Self {
        Self::Recording(Box::new(recording))
    }
}

/// A call as the store has it, with what was recorded of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoredCall {
    /// The call.
    #[serde(flatten)]
    pub record: CallRecord,
    /// In the order of their ends.
    pub recordings: Vec<RecordingRecord>,
}

/// One call, from INVITE to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallRecord {
    /// Ours, unique for ever; the `call_id` of the logs, not a SIP Call-ID.
    pub call_id: String,
    /// The caller's INVITE arrived. Milliseconds since the Unix epoch, as all times here.
    pub start_unix_ms: i64,
    /// The callee's 2xx arrived; `None` for a call that was not answered.
    pub answer_unix_ms: Option<i64>,
    /// The call was over.
    pub end_unix_ms: i64,
    /// Which way it went.
    pub direction: CallDirection,
    /// Name of the trunk that brought or took it.
    pub trunk: Option<String>,
    /// Tenant it belonged to, once that was known.
    pub tenant: Option<String>,
    /// Number that was dialled on the trunk, E.164.
    pub did: Option<String>,
    /// Who called, as the caller's side gave it.
    pub caller: String,
    /// Extension of the member who was called, once that was known.
    pub callee: Option<String>,
    /// How it ended.
    pub result: CallResult,
    /// Last final SIP status that the caller got or that ended the call's set-up.
    pub sip_status: Option<u16>,
    /// Who ended it.
    pub ended_by: EndedBySide,
    /// Why the node ended it, where that is more than a side's wish.
    #[serde(default)]
    pub end_cause: Option<EndCause>,
    /// From the caller's INVITE to the callee's 2xx, milliseconds; `None` when not answered.
    pub setup_ms: Option<u64>,
    /// From the answer to the end, milliseconds; 0 when not answered.
    pub duration_ms: u64,
    /// Audio codec towards the caller, by its SDP encoding name.
    pub caller_codec: Option<String>,
    /// Audio codec towards the callee, by its SDP encoding name.
    pub callee_codec: Option<String>,
    /// Media of the caller's leg.
    pub caller_media: LegMedia,
    /// Media of the callee's leg.
    pub callee_media: LegMedia,
}

impl CallRecord {
    /// The call is over, `elapsed_ms` after its INVITE. `result` and `status` are those of a call
    /// that was not answered.
    pub fn end(
        &mut self,
        elapsed_ms: u64,
        result: CallResult,
        side: EndedBySide,
        status: Option<u16>,
    ) {
        self.end_unix_ms = self.start_unix_ms + elapsed_ms as i64;
        self.ended_by = side;
        match self.setup_ms {
            Some(setup_ms) => {
                self.result = CallResult::Answered;
                self.sip_status = Some(200);
                self.duration_ms = elapsed_ms - setup_ms;
            }
            None => {
                self.result = result;
                // A caller that gave up had 487 from its own CANCEL (RFC 3261 §9.2).
                self.sip_status = status.or(Some(487));
            }
        }
    }
}

/// Media of one leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LegMedia {
    /// Accepted from the peer.
    pub rx_packets: u64,
    /// Sent to the peer.
    pub tx_packets: u64,
    /// How well it came; all zero in records of releases that did not measure.
    #[serde(default)]
    pub quality: LegQuality,
}

/// How well a leg's peer was heard, and heard us. See [`LegReport`] for each figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LegQuality {
    /// RTP packets of the peer that never arrived.
    pub lost_packets: u64,
    /// That came after a later one.
    pub reordered_packets: u64,
    /// That came twice.
    pub duplicate_packets: u64,
    /// Interarrival jitter at the end, microseconds.
    pub jitter_micros: u32,
    /// The highest it was, microseconds.
    pub jitter_max_micros: u32,
    /// Round trip between edge and peer, microseconds; 0 when it was never learnt.
    pub rtt_micros: u32,
    /// Mean opinion score, hundredths: 100 … 450; 0 when nothing was heard.
    pub mos_centi: u16,
    /// RTP packets that the peer missed of ours, by its reports.
    pub remote_lost_packets: u64,
    /// Interarrival jitter of ours at the peer, by its last report, microseconds.
    pub remote_jitter_micros: u32,
    /// SRTP packets that were not authentic or were replayed.
    pub srtp_failed_packets: u64,
}

impl From<&LegReport> for LegMedia {
    fn from(report: &LegReport) -> Self {
        Self {
            rx_packets: report.rx_packets,
            tx_packets: report.tx_packets,
            quality: LegQuality {
                lost_packets: report.lost_packets,
                reordered_packets: report.reordered_packets,
                duplicate_packets: report.duplicate_packets,
                jitter_micros: report.jitter_micros,
                jitter_max_micros: report.jitter_max_micros,
                rtt_micros: report.rtt_micros,
                mos_centi: report.mos_centi,
                remote_lost_packets: report.remote_lost_packets,
                remote_jitter_micros: report.remote_jitter_micros,
                srtp_failed_packets: report.srtp_failed_packets,
            },
        }
    }
}

/// A text that names no value of the type it was read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown name")]
pub struct UnknownName;

named_enum!(
    /// Which way a call went.
    CallDirection {
        /// From a trunk to a member.
        Inbound = "inbound",
        /// From a member to a trunk.
        Outbound = "outbound",
        /// Between members.
        Internal = "internal",
    }
);

named_enum!(
    /// How a call ended.
    CallResult {
        /// It was answered, and later hung up.
        Answered = "answered",
        /// The callee was busy.
        Busy = "busy",
        /// Nobody answered in time.
        NoAnswer = "no_answer",
        /// The callee was not reachable: offline or without a registered phone.
        Offline = "offline",
        /// The caller hung up before an answer.
        Canceled = "canceled",
        /// The callee's side declined.
        Declined = "declined",
        /// The number is not ours.
        UnknownNumber = "unknown_number",
        /// The two sides have no codec in common.
        NoCommonCodec = "no_common_codec",
        /// Refused because the node was full.
        Overloaded = "overloaded",
        /// Anything else went wrong.
        Failed = "failed",
    }
);

named_enum!(
    /// Who ended a call.
    EndedBySide {
        /// The calling side.
        Caller = "caller",
        /// The called side.
        Callee = "callee",
        /// This node.
        Node = "node",
    }
);

named_enum!(
    /// Why the node itself ended a call.
    EndCause {
        /// A peer never sent any media.
        MediaNeverStarted = "media_never_started",
        /// A peer's media ceased.
        MediaStopped = "media_stopped",
        /// The call was on hold for too long.
        HeldTooLong = "held_too_long",
        /// No media port was free for it.
        NoMediaPorts = "no_media_ports",
        /// No media edge was connected.
        EdgeAway = "edge_away",
        /// The media edge had no room for it.
        EdgeBusy = "edge_busy",
        /// The media edge could not carry it.
        EdgeRefused = "edge_refused",
    }
);

impl From<MediaRefused> for EndCause {
    fn from(reason: MediaRefused) -> Self {
        match reason {
            MediaRefused::NoPorts => Self::NoMediaPorts,
            MediaRefused::EdgeAway => Self::EdgeAway,
            MediaRefused::EdgeBusy => Self::EdgeBusy,
            MediaRefused::EdgeRefused => Self::EdgeRefused,
        }
    }
}

impl From<MediaTimeoutKind> for EndCause {
    fn from(kind: MediaTimeoutKind) -> Self {
        match kind {
            MediaTimeoutKind::NeverStarted => Self::MediaNeverStarted,
            MediaTimeoutKind::Stopped => Self::MediaStopped,
            MediaTimeoutKind::Held => Self::HeldTooLong,
        }
    }
}
