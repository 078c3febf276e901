//! What goes in and out of the proxy.

use trunkline_edge_api::{
    CloseCause, ConferenceId, Digit, DigitSource, FilePath, LegIndex, LegReport, LocalMedia,
    MediaTimeoutKind, PlaybackEnd, PlaybackId, PortRange, ProgressSignal, RecordingId,
    RecordingOutcome, Refusal, SessionId, WorkerIndex,
};

use super::functions::{RecordingOf, Ticket};

/// A worker as the handshake described it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerInfo {
    /// Its index.
    pub worker: WorkerIndex,
    /// The ports it may bind.
    pub ports: PortRange,
    /// Of its region: another one means another edge process, which knows nothing of the last.
    pub generation: u64,
}

impl WorkerInfo {
    /// Whether sessions can stay where they are.
    pub(super) fn has_ports_of(&self, other: &Self) -> bool {
        self.worker == other.worker && self.ports == other.ports
    }
}

/// Where the two legs of a session were bound, indexed by [`LegIndex`].
pub type LocalPair = [LocalMedia; 2];

/// What the proxy tells the call machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaEvent {
    /// Both legs are bound; their addresses may now enter SDP.
    Opened {
        /// Which session.
        session: SessionId,
        /// Its local addresses.
        local: LocalPair,
    },
    /// The worker has taken every configuration that was given to it so far.
    Configured {
        /// Which session.
        session: SessionId,
    },
    /// The session could not be opened, or could not be brought back after an edge restart. It is
    /// forgotten; no further event follows.
    Refused {
        /// Which session.
        session: SessionId,
        /// What the worker said.
        refusal: Refusal,
    },
    /// A leg's peer was silent for longer than its configuration allows. The session goes on.
    TimedOut {
        /// Which session.
        session: SessionId,
        /// Whose media is missed.
        leg: LegIndex,
        /// Which silence.
        kind: MediaTimeoutKind,
    },
    /// The session has ended. It is forgotten; no further event follows.
    Closed {
        /// Which session.
        session: SessionId,
        /// `None` when the edge did not say in time.
        cause: Option<CloseCause>,
        /// Last figures; `None` when the edge did not say in time.
        legs: Option<[LegReport; 2]>,
    },
    /// What came of a request with a ticket.
    Outcome {
        /// Which request.
        ticket: Ticket,
        /// `Ok` when the edge does it.
        result: Result<(), Refusal>,
    },
    /// A leg's peer pressed a key.
    Digit {
        /// Which session.
        session: SessionId,
        /// Whose peer.
        leg: LegIndex,
        /// Which key.
        digit: Digit,
        /// For how long, milliseconds.
        duration_millis: u32,
        /// How it came.
        source: DigitSource,
    },
    /// A playback is over.
    PlaybackEnded {
        /// Which session.
        session: SessionId,
        /// Whose peer heard it.
        leg: LegIndex,
        /// Which playback.
        playback: PlaybackId,
        /// Why.
        cause: PlaybackEnd,
        /// How much of it was sent, milliseconds.
        played_millis: u64,
    },
    /// A playback could not begin.
    NotPlayed {
        /// Which session.
        session: SessionId,
        /// Whose peer was to hear it.
        leg: LegIndex,
        /// Which playback.
        playback: PlaybackId,
        /// What the worker said.
        refusal: Refusal,
    },
    /// A recording's file is complete, or as complete as it will be.
    RecordingEnded {
        /// Which recording.
        recording: RecordingId,
        /// Whose. The call may be over by now, the conference empty.
        of: RecordingOf,
        /// The file.
        path: FilePath,
        /// `None`: the edge process that wrote it is gone; the file holds what it wrote.
        outcome: Option<RecordingOutcome>,
    },
    /// A leg could not become part of its conference.
    NotJoined {
        /// Which session.
        session: SessionId,
        /// What the worker said.
        refusal: Refusal,
    },
    /// A leg's peer began or ended to speak.
    Activity {
        /// Which session.
        session: SessionId,
        /// Whose peer.
        leg: LegIndex,
        /// Whether it speaks now.
        is_speaking: bool,
    },
    /// An answering machine has beeped.
    Beep {
        /// Which session.
        session: SessionId,
        /// On which leg.
        leg: LegIndex,
        /// Its frequency, Hz.
        frequency_hz: u16,
        /// How long it lasted, milliseconds.
        duration_millis: u32,
    },
    /// A string of digits has been sent to a leg's peer.
    DigitsSent {
        /// Which session.
        session: SessionId,
        /// Whose peer.
        leg: LegIndex,
    },
    /// Somebody else is the loudest of a conference.
    Speaker {
        /// Which conference.
        conference: ConferenceId,
        /// Whose session; `None`: nobody speaks.
        speaker: Option<SessionId>,
    },
    /// Call progress tones, or a fax machine.
    Progress {
        /// Which session.
        session: SessionId,
        /// On which leg.
        leg: LegIndex,
        /// What they mean.
        signal: ProgressSignal,
        /// What was heard, Hz; see [`trunkline_edge_api::Event::ProgressHeard`].
        frequencies_hz: [u16; 3],
    },
}

/// Why there is no media session for a call; the caller is owed a 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum MediaRefused {
    /// No edge is connected.
    #[error("the media edge is not connected")]
    EdgeAway,
    /// Every worker has all its ports in use or set aside, on an address that the call needs.
    #[error("all media ports are in use; widen [edge] ports")]
    NoPorts,
    /// The workers have no room, or do not keep up with their commands.
    #[error("the media edge is too busy")]
    EdgeBusy,
    /// A worker could not do what was asked.
    #[error("the media edge refused; its log and the refusal say why")]
    EdgeRefused,
}

impl MediaRefused {
    /// Every value.
    pub const ALL: [Self; 4] = [
        Self::EdgeAway,
        Self::NoPorts,
        Self::EdgeBusy,
        Self::EdgeRefused,
    ];

    /// Value of the `reason` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EdgeAway => "edge_away",
            Self::NoPorts => "no_ports",
            Self::EdgeBusy => "edge_busy",
            Self::EdgeRefused => "edge_refused",
        }
    }
}

impl From<Refusal> for MediaRefused {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::AddressInUse => Self::NoPorts,
            Refusal::OutOfSockets
            | Refusal::SessionTableFull
            | Refusal::WorkerBusy
            | Refusal::Draining => Self::EdgeBusy,
            _ => Self::EdgeRefused,
        }
    }
}

/// Counts that the metrics read. All rise only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProxyCounters {
    /// Times a ring had no room; the command waited.
    pub ring_full: u64,
    /// Sessions brought back after an edge restart.
    pub replayed: u64,
    /// Sessions that were not opened, in the order of [`MediaRefused::ALL`].
    pub refused: [u64; MediaRefused::ALL.len()],
}

impl ProxyCounters {
    pub(super) fn count_refused(&mut self, reason: MediaRefused) {
        let of_reason = MediaRefused::ALL.iter().zip(&mut self.refused);
        for (_, count) in of_reason.filter(|(known, _)| **known == reason) {
            *count += 1;
        }
    }
}
