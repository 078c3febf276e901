//! What became of a recording.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use trunkline_edge_api::{FilePath, RecordingEnd, RecordingOutcome};

use super::UnknownName;

/// A recording that is over, beside the calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingRecord {
    /// Ours, unique for ever.
    pub recording_id: String,
    /// The call that was recorded; `None` for a conference.
    pub call_id: Option<String>,
    /// Whose call or conference, where that is known.
    pub tenant: Option<String>,
    /// The conference that was recorded; `None` for a call.
    pub conference: Option<String>,
    /// When its end was told, milliseconds since the Unix epoch.
    pub ended_unix_ms: i64,
    /// What became of it.
    #[serde(flatten)]
    pub ending: RecordingEnding,
}

/// The file and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingEnding {
    /// The file.
    pub path: String,
    /// Why it is over.
    pub cause: RecordingCause,
    /// How much it holds, milliseconds.
    pub duration_ms: u64,
    /// Its length.
    pub bytes: u64,
    /// Packets that were heard and are silence in it, because the disk could not follow.
    pub lost_packets: u64,
    /// Of the whole file, hexadecimal; `None` when there is no file or it could not be read again.
    pub sha256: Option<String>,
}

impl RecordingEnding {
    /// `None`: the edge process that wrote it is gone, and the file holds what it wrote.
    #[must_use]
    pub fn new(path: &FilePath, outcome: Option<RecordingOutcome>) -> Self {
        let path = path.as_str().to_owned();
        let Some(outcome) = outcome else {
            return Self {
                path,
                cause: RecordingCause::EdgeLost,
                duration_ms: 0,
                bytes: 0,
                lost_packets: 0,
                sha256: None,
            };
        };
        let has_sum = outcome.sha256 != [0; 32];
        Self {
            path,
            cause: outcome.cause.into(),
            duration_ms: outcome.duration_millis,
            bytes: outcome.bytes,
            lost_packets: outcome.lost_packets,
            sha256: has_sum.then(|| hex(&outcome.sha256)),
        }
    }
}

named_enum!(
    /// Why a recording is over.
    RecordingCause {
        /// An operator stopped it, or its call or conference ended.
        Stopped = "stopped",
        /// The file exists, its directory does not, or it may not be written.
        CannotCreate = "cannot_create",
        /// No room was left on the disk; the file holds what was written before.
        DiskFull = "disk_full",
        /// The disk failed otherwise.
        WriteFailed = "write_failed",
        /// The file is as long as its format allows.
        FileFull = "file_full",
        /// The edge process that wrote it is gone; the file holds what it wrote.
        EdgeLost = "edge_lost",
    }
);

impl From<RecordingEnd> for RecordingCause {
    fn from(end: RecordingEnd) -> Self {
        match end {
            RecordingEnd::Stopped => Self::Stopped,
            RecordingEnd::CannotCreate => Self::CannotCreate,
            RecordingEnd::DiskFull => Self::DiskFull,
            RecordingEnd::WriteFailed => Self::WriteFailed,
            RecordingEnd::FileFull => Self::FileFull,
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
