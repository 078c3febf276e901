//! Worker → control.

use std::net::SocketAddr;

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
            Event::CommandDone { .. } | Event::SessionClosed { .. } | Event::MediaTimedOut { .. }
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
    #[error("this machine does not have the media address; correct [edge] media_address")]
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
