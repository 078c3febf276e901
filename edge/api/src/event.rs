//! Worker → control.

use std::net::SocketAddr;

use crate::function::{
    ConferenceId, Digit, DigitSource, DigitsId, PlaybackId, ProgressSignal, RecordingId,
};
use crate::vocabulary::{Correlation, LegIndex, SessionId};

/// What a worker tells control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The answer to the command with the same correlation.
    CommandDone {
        /// From the command.
        correlation: Correlation,
        /// `Ok` when the wanted condition now holds.
        result: Result<(), Refusal>,
    },
    /// A session has ended; its sockets are closed. The edge will not speak of it again.
    SessionClosed {
        /// Why.
        cause: CloseCause,
        /// Its last figures.
        report: SessionReport,
    },
    /// Figures of a live session, as asked for.
    SessionReported {
        /// From the [`crate::Command::QuerySession`] or [`crate::Command::QueryAllSessions`].
        correlation: Correlation,
        /// The figures.
        report: SessionReport,
    },
    /// The first RTP packet that passed a leg's source gate since its last
    /// [`crate::Command::ConfigureLeg`] changed the gate.
    MediaStarted {
        /// The session.
        session: SessionId,
        /// The leg that heard it.
        leg: LegIndex,
        /// Where it came from.
        source: SocketAddr,
    },
    /// A leg's peer was silent for longer than [`crate::MediaTimeouts`] allows. Said again each
    /// time the limit has passed anew; the session goes on until control ends it.
    MediaTimedOut {
        /// The session.
        session: SessionId,
        /// The leg that hears nothing.
        leg: LegIndex,
        /// Which silence.
        kind: MediaTimeoutKind,
    },
    /// A leg's peer pressed a key, and let it go. Since 1.2, as is all that follows.
    DigitReceived {
        /// The session.
        session: SessionId,
        /// The leg that heard it.
        leg: LegIndex,
        /// Which key.
        digit: Digit,
        /// For how long, milliseconds.
        duration_millis: u32,
        /// How it came.
        source: DigitSource,
    },
    /// A [`crate::Command::SendDigits`] is carried out.
    DigitsSent {
        /// The session.
        session: SessionId,
        /// The leg whose peer was sent them.
        leg: LegIndex,
        /// Which string.
        digits: DigitsId,
    },
    /// A playback is over.
    PlaybackEnded {
        /// The session.
        session: SessionId,
        /// The leg whose peer heard it.
        leg: LegIndex,
        /// Which playback.
        playback: PlaybackId,
        /// Why it is over.
        cause: PlaybackEnd,
        /// How much of it was sent, milliseconds.
        played_millis: u64,
    },
    /// A recording is over and its file complete, as far as it could be written.
    RecordingEnded {
        /// Which recording.
        recording: RecordingId,
        /// What became of it.
        outcome: RecordingOutcome,
    },
    /// A leg's peer began or ended to speak.
    ActivityChanged {
        /// The session.
        session: SessionId,
        /// The leg that heard it.
        leg: LegIndex,
        /// Whether it speaks now.
        is_speaking: bool,
    },
    /// The beep of an answering machine has ended.
    BeepHeard {
        /// The session.
        session: SessionId,
        /// The leg that heard it.
        leg: LegIndex,
        /// Its frequency, Hz.
        frequency_hz: u16,
        /// How long it lasted, milliseconds.
        duration_millis: u32,
    },
    /// A leg's peer is, or is connected to, something that speaks in tones. Said once for each
    /// row of them, however long it lasts. Since 1.3.
    ProgressHeard {
        /// The session.
        session: SessionId,
        /// The leg that heard it.
        leg: LegIndex,
        /// What it means.
        signal: ProgressSignal,
        /// What was heard, Hz: one tone, two at once, lowest first, or the three of
        /// [`ProgressSignal::SpecialInformation`] in their order; 0 where there are fewer.
        frequencies_hz: [u16; 3],
    },
    /// Somebody else is the loudest of a conference; `None`: nobody speaks.
    SpeakerChanged {
        /// The conference.
        conference: ConferenceId,
        /// Who.
        speaker: Option<(SessionId, LegIndex)>,
    },
}

/// Why a playback is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PlaybackEnd {
    /// All rounds were played.
    Completed = 1,
    /// [`crate::Command::StopPlaying`], another playback, a conference, or the end of the leg.
    Stopped = 2,
    /// The peer pressed a key.
    Digit = 3,
}

impl TryFrom<u8> for PlaybackEnd {
    type Error = u8;

    fn try_from(value: u8) -> Result<Self, u8> {
        match value {
            1 => Ok(Self::Completed),
            2 => Ok(Self::Stopped),
            3 => Ok(Self::Digit),
            other => Err(other),
        }
    }
}

/// Why a recording is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordingEnd {
    /// [`crate::Command::StopRecording`], or its session or conference closed.
    Stopped = 1,
    /// The file could not be created: it exists, its directory does not, or may not be written.
    CannotCreate = 2,
    /// No room is left on the disk; the file holds what was written before.
    DiskFull = 3,
    /// The disk failed otherwise.
    WriteFailed = 4,
    /// The file is as long as its format allows.
    FileFull = 5,
}

impl TryFrom<u8> for RecordingEnd {
    type Error = u8;

    fn try_from(value: u8) -> Result<Self, u8> {
        Ok(match value {
            1 => Self::Stopped,
            2 => Self::CannotCreate,
            3 => Self::DiskFull,
            4 => Self::WriteFailed,
            5 => Self::FileFull,
            other => return Err(other),
        })
    }
}

/// What became of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordingOutcome {
    /// Why it is over.
    pub cause: RecordingEnd,
    /// How much it holds, milliseconds.
    pub duration_millis: u64,
    /// Length of the file.
    pub bytes: u64,
    /// Packets that were heard and are not in it because the disk could not follow.
    pub lost_packets: u64,
    /// SHA-256 of the file; all zero when there is none or it could not be read again.
    pub sha256: [u8; 32],
}

/// The silences that differ in what they say about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MediaTimeoutKind {
    /// No packet ever: a wrong address, a firewall, a broken NAT.
    NeverStarted = 1,
    /// There was media and it ceased: the peer or its network died.
    Stopped = 2,
    /// The call is on hold for too long.
    Held = 3,
}

impl TryFrom<u8> for MediaTimeoutKind {
    type Error = u8;

    fn try_from(value: u8) -> Result<Self, u8> {
        match value {
            1 => Ok(Self::NeverStarted),
            2 => Ok(Self::Stopped),
            3 => Ok(Self::Held),
            other => Err(other),
        }
    }
}

impl Event {
    /// Whether room is reserved in the event ring for this event. A dropped event of the other
    /// kind costs a figure; one of these would leak a call or leave a caller waiting.
    #[must_use]
    pub const fn must_arrive(&self) -> bool {
        matches!(
            self,
            Event::CommandDone { .. }
                | Event::SessionClosed { .. }
                | Event::MediaTimedOut { .. }
                | Event::DigitReceived { .. }
                | Event::DigitsSent { .. }
                | Event::PlaybackEnded { .. }
                | Event::RecordingEnded { .. }
                | Event::BeepHeard { .. }
                | Event::ProgressHeard { .. }
        )
    }
}

/// Why a command could not be carried out. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(u16)]
pub enum Refusal {
    /// Another process or session holds the port: set it aside and try the next.
    #[error("the media port is in use by another socket")]
    AddressInUse = 10,
    /// The machine has no such address.
    #[error("this machine does not have the media address; correct [edge] media_addresses")]
    AddressNotAvailable = 11,
    /// RLIMIT_NOFILE or the worker's registered-file table is exhausted.
    #[error("the edge is out of sockets; raise LimitNOFILE or [edge] sessions_max")]
    OutOfSockets = 12,
    /// The kernel refused the socket for another reason.
    #[error("the kernel refused the media socket; the edge's log has the error")]
    SocketFailed = 13,
    /// The worker's session table is full.
    #[error("the worker's session table is full; raise [edge] sessions_max")]
    SessionTableFull = 20,
    /// There is no such session, or it has no such leg.
    #[error("the worker has no such session or leg")]
    NoSuchLeg = 21,
    /// The leg is open on another local address.
    #[error("the leg is already open on another local address")]
    LegOpenElsewhere = 22,
    /// The port is outside the worker's slice, or the address family of local and remote differ.
    #[error("the addresses do not fit this worker or each other")]
    AddressMismatch = 23,
    /// The worker is past its capacity and takes no new session for now; another worker or a
    /// later attempt may do.
    #[error("the worker is too busy for a new session")]
    WorkerBusy = 24,
    /// The edge is stopping and takes no new sessions.
    #[error("the edge is draining")]
    Draining = 30,
    /// The prompt's file cannot be read.
    #[error("the edge cannot read the file; check its path and that the edge may read it")]
    PromptUnreadable = 40,
    /// The file is not of a form that can be played, or it is damaged.
    #[error("the file is no WAV of PCM, A-law or µ-law; convert it to 8 or 16 kHz, 16-bit PCM")]
    PromptUnsupported = 41,
    /// The file is longer than any prompt may be.
    #[error("the file is too long for a prompt")]
    PromptTooLong = 42,
    /// The memory for prompts is used up.
    #[error("no memory is left for prompts; play fewer or shorter files")]
    PromptCacheFull = 43,
    /// Nothing is loaded under this id.
    #[error("no prompt is loaded under this id")]
    NoSuchPrompt = 44,
    /// As many recordings run on this session, or this edge, as may.
    #[error("too many recordings run already")]
    TooManyRecordings = 45,
    /// The leg's formats are not known: [`crate::Command::SetLegAudio`] comes first.
    #[error("the leg has no audio format to encode to")]
    AudioNotConfigured = 46,
    /// The edge was built without this codec, or the format's numbers do not go together.
    #[error("the edge cannot encode or decode this format")]
    FormatUnsupported = 47,
    /// The conference has as many members as it can, or there are too many conferences.
    #[error("the conference is full")]
    ConferenceFull = 48,
    /// Too many digits wait to be sent on this leg.
    #[error("too many digits wait to be sent")]
    TooManyDigits = 49,
    /// The command's bytes could not be read; sent with the correlation if that was readable.
    #[error("the command could not be decoded; are both daemons of the same release?")]
    Undecodable = 31,
}

impl TryFrom<u16> for Refusal {
    type Error = u16;

    fn try_from(value: u16) -> Result<Self, u16> {
        Ok(match value {
            10 => Self::AddressInUse,
            11 => Self::AddressNotAvailable,
            12 => Self::OutOfSockets,
            13 => Self::SocketFailed,
            20 => Self::SessionTableFull,
            21 => Self::NoSuchLeg,
            22 => Self::LegOpenElsewhere,
            23 => Self::AddressMismatch,
            24 => Self::WorkerBusy,
            30 => Self::Draining,
            31 => Self::Undecodable,
            40 => Self::PromptUnreadable,
            41 => Self::PromptUnsupported,
            42 => Self::PromptTooLong,
            43 => Self::PromptCacheFull,
            44 => Self::NoSuchPrompt,
            45 => Self::TooManyRecordings,
            46 => Self::AudioNotConfigured,
            47 => Self::FormatUnsupported,
            48 => Self::ConferenceFull,
            49 => Self::TooManyDigits,
            other => return Err(other),
        })
    }
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum CloseCause {
    /// [`crate::Command::CloseSession`] or [`crate::Command::CloseOtherEpochs`].
    Commanded = 10,
    /// No control and no media for `orphan_timeout_secs`.
    Orphaned = 11,
    /// The edge stopped.
    EdgeStopped = 12,
    /// The session's own code panicked; it was closed alone.
    Panicked = 20,
}

impl TryFrom<u16> for CloseCause {
    type Error = u16;

    fn try_from(value: u16) -> Result<Self, u16> {
        Ok(match value {
            10 => Self::Commanded,
            11 => Self::Orphaned,
            12 => Self::EdgeStopped,
            20 => Self::Panicked,
            other => return Err(other),
        })
    }
}

/// Figures of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionReport {
    /// Which session.
    pub session: SessionId,
    /// Indexed by [`LegIndex`].
    pub legs: [LegReport; 2],
}

/// Figures of one leg since it was opened. All zero for a leg that is not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LegReport {
    /// RTP packets accepted from the peer.
    pub rx_packets: u64,
    /// RTP bytes accepted from the peer, headers included, UDP and IP excluded.
    pub rx_bytes: u64,
    /// RTP packets sent to the peer.
    pub tx_packets: u64,
    /// RTP bytes sent to the peer, headers included, UDP and IP excluded.
    pub tx_bytes: u64,
    /// RTCP packets accepted from the peer.
    pub rx_rtcp_packets: u64,
    /// RTCP packets sent to the peer.
    pub tx_rtcp_packets: u64,
    /// Packets that arrived on this leg and were dropped, for any reason.
    pub dropped_packets: u64,
    /// RTP packets that the peer sent and that never arrived (RFC 3550 A.3), over all its SSRCs.
    /// Since 1.1, as is all that follows; absent from an older peer means 0.
    pub lost_packets: u64,
    /// RTP packets that came after one with a higher sequence number.
    pub reordered_packets: u64,
    /// RTP packets whose sequence number had come before.
    pub duplicate_packets: u64,
    /// Interarrival jitter of what the peer sends, now (RFC 3550 A.8), microseconds.
    pub jitter_micros: u32,
    /// The highest that it has been, microseconds.
    pub jitter_max_micros: u32,
    /// Round trip between edge and peer, from RTCP (RFC 3550 §6.4.1), microseconds; 0 while
    /// unknown.
    pub rtt_micros: u32,
    /// Mean opinion score of what the peer sends, in hundredths: 100..=450 (ITU-T G.107);
    /// conversational when the round trip is known, else listening. 0 while unknown.
    pub mos_centi: u16,
    /// RTP packets that the peer missed of what this leg sent, by its reports.
    pub remote_lost_packets: u64,
    /// Interarrival jitter of what this leg sends, by the peer's last report, microseconds.
    pub remote_jitter_micros: u32,
    /// SRTP and SRTCP packets that were not authentic or were replayed.
    pub srtp_failed_packets: u64,
}
