//! Control → worker. Every command states a wanted condition and may be repeated: applying it
//! twice equals applying it once. A replay into a fresh edge is the same commands again.

use std::net::SocketAddr;

use crate::audio::LegAudio;
use crate::crypto::LegCrypto;
use crate::function::{
    ConferenceId, ConferenceSettings, DigitsToSend, FilePath, LegFunctions, MediaFork, Membership,
    Playback, PromptId, RawAudio, Recording, RecordingId,
};
use crate::source_networks::SourceNetworks;
use crate::vocabulary::{ClockRateHz, Correlation, Epoch, LegIndex, PayloadType, SessionId, Ssrc};

/// What control asks of a worker. Each command is answered by one
/// [`crate::Event::CommandDone`] with the same [`Correlation`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Bind the leg's media sockets; the session is created with its first leg. Repeated with the
    /// same `local` it confirms; with another `local` it is refused with
    /// [`crate::Refusal::LegOpenElsewhere`]. The leg neither hears nor sends until
    /// [`Command::ConfigureLeg`].
    OpenLeg {
        /// The session the leg belongs to.
        session: SessionId,
        /// Which side of it.
        leg: LegIndex,
        /// What to bind, and the SSRC under which the leg sends.
        local: LocalMedia,
    },
    /// Set what the leg's peer is and what may flow. Replaces the whole earlier [`LegConfig`];
    /// sequence, timestamp and SSRC continuity of what the leg sends is kept.
    ConfigureLeg {
        /// The session the leg belongs to.
        session: SessionId,
        /// Which side of it.
        leg: LegIndex,
        /// The leg's whole configuration.
        config: LegConfig,
    },
    /// Unbind one leg (a callee that did not answer, before the next is tried). The session stays.
    /// Done also when there is no such leg.
    CloseLeg {
        /// The session the leg belongs to.
        session: SessionId,
        /// Which side of it.
        leg: LegIndex,
    },
    /// Unbind both legs and forget the session. Done also when there is no such session; then no
    /// [`crate::Event::SessionClosed`] follows.
    CloseSession {
        /// The session to close.
        session: SessionId,
    },
    /// Ask for one [`crate::Event::SessionReported`] for this session.
    QuerySession {
        /// The session asked about.
        session: SessionId,
    },
    /// Ask for one [`crate::Event::SessionReported`] per session of this worker, as room in the
    /// event ring allows; [`crate::Event::CommandDone`] comes after the last.
    QueryAllSessions,
    /// Close every session that an earlier epoch opened: a new control says this after it took
    /// over what it knows, so that nothing is left that nobody would ever close.
    CloseOtherEpochs {
        /// The epoch whose sessions stay.
        keep: Epoch,
    },
    /// Say what a leg's peer may send as audio and what it is sent when the edge encodes. What
    /// the payload routes do not take to the far leg is then transcoded. `None`: relay only, and
    /// whatever the edge made for the leg ends. Since 1.2, as is all that follows.
    SetLegAudio {
        /// The session the leg belongs to.
        session: SessionId,
        /// Which side of it.
        leg: LegIndex,
        /// The formats.
        audio: Option<Box<LegAudio>>,
    },
    /// Turn a leg's switches; replaces all earlier ones.
    SetLegFunctions {
        /// The session the leg belongs to.
        session: SessionId,
        /// Which side of it.
        leg: LegIndex,
        /// The switches.
        functions: LegFunctions,
    },
    /// Read a file and encode it, edge-wide. Answered when it can be played. Done at once when
    /// `prompt` is loaded already: another file has another id.
    LoadPrompt {
        /// Its id from now on.
        prompt: PromptId,
        /// The file.
        path: FilePath,
        /// How to read a file without a header; `None`: it is WAV.
        raw: Option<RawAudio>,
    },
    /// Forget a file. What plays it now plays on.
    UnloadPrompt {
        /// Which.
        prompt: PromptId,
    },
    /// Play to a leg's peer, in place of the far leg's audio. Done at once when this playback
    /// began already, even if it has ended since.
    Play {
        /// The session the leg belongs to.
        session: SessionId,
        /// The leg whose peer hears it.
        leg: LegIndex,
        /// What.
        playback: Playback,
    },
    /// End what is played to a leg's peer, if anything is.
    StopPlaying {
        /// The session the leg belongs to.
        session: SessionId,
        /// Which side of it.
        leg: LegIndex,
    },
    /// Record a session; with the id of a recording that runs, pause it or let it go on.
    StartRecording {
        /// The session.
        session: SessionId,
        /// What, how and where.
        recording: Recording,
    },
    /// End a recording. [`crate::Event::RecordingEnded`] follows when its file is complete. Done
    /// also when there is no such recording.
    StopRecording {
        /// The session.
        session: SessionId,
        /// Which recording.
        recording: RecordingId,
    },
    /// Send digits to a leg's peer, after those that are being sent. Done at once when this
    /// string was taken already.
    SendDigits {
        /// The session the leg belongs to.
        session: SessionId,
        /// Which side of it.
        leg: LegIndex,
        /// What to send.
        digits: DigitsToSend,
    },
    /// Copy what a leg's peer says to a second address, or cease to.
    SetFork {
        /// The session the leg belongs to.
        session: SessionId,
        /// The leg whose peer is copied.
        leg: LegIndex,
        /// Where to; `None`: nowhere.
        fork: Option<MediaFork>,
    },
    /// Make a leg part of a conference: its peer hears and is heard there instead of the far leg.
    /// With the conference it is in, its role changes; with another one, it moves.
    JoinConference {
        /// The session the leg belongs to.
        session: SessionId,
        /// Which side of it.
        leg: LegIndex,
        /// Which conference, and its part in it.
        membership: Membership,
    },
    /// Take a leg out of its conference, if it is in one; it is relayed again.
    LeaveConference {
        /// The session the leg belongs to.
        session: SessionId,
        /// Which side of it.
        leg: LegIndex,
    },
    /// Say how a conference behaves; it comes to be, if it is not there.
    SetConference {
        /// Which.
        conference: ConferenceId,
        /// How it behaves from now on.
        settings: Box<ConferenceSettings>,
    },
    /// End a conference; its members are relayed again.
    CloseConference {
        /// Which.
        conference: ConferenceId,
    },
}

impl Command {
    /// The session a command names, if it names one.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        match *self {
            Command::OpenLeg { session, .. }
            | Command::ConfigureLeg { session, .. }
            | Command::CloseLeg { session, .. }
            | Command::CloseSession { session }
            | Command::QuerySession { session }
            | Command::SetLegAudio { session, .. }
            | Command::SetLegFunctions { session, .. }
            | Command::Play { session, .. }
            | Command::StopPlaying { session, .. }
            | Command::StartRecording { session, .. }
            | Command::StopRecording { session, .. }
            | Command::SendDigits { session, .. }
            | Command::SetFork { session, .. }
            | Command::JoinConference { session, .. }
            | Command::LeaveConference { session, .. } => Some(session),
            Command::QueryAllSessions
            | Command::CloseOtherEpochs { .. }
            | Command::LoadPrompt { .. }
            | Command::UnloadPrompt { .. }
            | Command::SetConference { .. }
            | Command::CloseConference { .. } => None,
        }
    }
}

/// A command with the id that its answer carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorrelatedCommand {
    /// Chosen by control.
    pub correlation: Correlation,
    /// What is asked.
    pub command: Command,
}

/// What a leg binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalMedia {
    /// Where the leg receives RTP and sends it from. The port lies in the worker's slice.
    pub rtp: SocketAddr,
    /// Whether RTCP has a socket of its own, one port above RTP (RFC 3550 §11). It is bound
    /// whenever this is [`RtcpMode::Separate`]; a leg that later agrees on multiplexing
    /// (RFC 5761) keeps it bound and unused.
    pub rtcp: RtcpMode,
    /// SSRC of everything the leg sends, chosen at random by control (RFC 3550 §8).
    pub ssrc: Ssrc,
}

impl LocalMedia {
    /// Address of the separate RTCP socket; `None` when RTCP is multiplexed.
    #[must_use]
    pub fn rtcp_addr(&self) -> Option<SocketAddr> {
        match self.rtcp {
            RtcpMode::Muxed => None,
            RtcpMode::Separate => {
                let mut addr = self.rtp;
                addr.set_port(self.rtp.port().wrapping_add(1));
                Some(addr)
            }
        }
    }
}

/// Where a leg's RTCP travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RtcpMode {
    /// On the RTP port, told apart by payload type (RFC 5761).
    Muxed = 0,
    /// On the port above RTP.
    Separate = 1,
}

impl TryFrom<u8> for RtcpMode {
    type Error = u8;

    fn try_from(value: u8) -> Result<Self, u8> {
        match value {
            0 => Ok(RtcpMode::Muxed),
            1 => Ok(RtcpMode::Separate),
            other => Err(other),
        }
    }
}

/// All that a leg needs to know of its peer. Signalling resolved it; the edge looks nothing up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegConfig {
    /// Where RTP for the peer goes; `None` until signalling named it.
    pub remote_rtp: Option<SocketAddr>,
    /// Where RTCP for the peer goes; with [`RtcpMode::Muxed`] the same as `remote_rtp`; `None`
    /// when the peer takes no RTCP or is not yet known.
    pub remote_rtcp: Option<SocketAddr>,
    /// Whose packets are accepted on this leg.
    pub source: SourcePolicy,
    /// What may flow, seen from this leg's peer.
    pub direction: MediaDirection,
    /// Payload types accepted from this leg's peer and the number each gets on the far leg.
    pub routes: PayloadRoutes,
    /// `None`: plain RTP (RTP/AVP). Since 1.1; absent from an older peer means `None`.
    pub crypto: Option<LegCrypto>,
    /// When silence becomes an event. Since 1.1; absent from an older peer means
    /// [`MediaTimeouts::OFF`], because that peer could not read the event.
    pub timeouts: MediaTimeouts,
}

/// After how much silence of a leg's peer control is told with
/// [`crate::Event::MediaTimedOut`]. 0 turns a limit off. The edge goes on; what a timeout means
/// for the call is control's decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaTimeouts {
    /// Since the leg was first told to receive, without any packet.
    pub never_started_secs: u32,
    /// Since the last packet of a leg that is told to receive.
    pub stopped_secs: u32,
    /// Since the leg was told not to receive (hold).
    pub held_secs: u32,
}

impl MediaTimeouts {
    /// No limit at all.
    pub const OFF: Self = Self {
        never_started_secs: 0,
        stopped_secs: 0,
        held_secs: 0,
    };
}

/// What operators of comparable relays settled on: a minute of silence ends a call, an hour of
/// hold does.
impl Default for MediaTimeouts {
    fn default() -> Self {
        Self {
            never_started_secs: 60,
            stopped_secs: 60,
            held_secs: 3_600,
        }
    }
}

/// Whose packets a leg accepts ("RTP bleed", RFC 7362): everything else is a counted drop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourcePolicy {
    /// Nobody: signalling has not named the peer yet.
    Nobody,
    /// Exactly `remote_rtp` for RTP and `remote_rtcp` for RTCP.
    Exact,
    /// The peer is behind NAT: packets from this IP, any port. The first valid RTP packet (RTCP
    /// for the RTCP socket) fixes the port, and what the leg sends follows it there.
    LearnPort {
        /// The IP that the peer's signalling came from.
        ip: std::net::IpAddr,
    },
    /// The peer sends from elsewhere than it listens: packets from these networks, any port,
    /// beside what [`SourcePolicy::Exact`] accepts. Nothing is learnt; what the leg sends goes
    /// where signalling said. Since 1.1.
    Networks(SourceNetworks),
}

/// Which way media flows between the edge and this leg's peer. The names are the edge's, not
/// SDP's: `sendonly` said by the peer is [`MediaDirection::ReceiveOnly`] here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MediaDirection {
    /// Nothing flows; RTCP still does (RFC 3264 §5.1).
    Inactive = 0,
    /// Towards the peer only.
    SendOnly = 1,
    /// From the peer only.
    ReceiveOnly = 2,
    /// Both ways.
    SendReceive = 3,
}

impl MediaDirection {
    /// Whether RTP may go to this leg's peer.
    #[must_use]
    pub const fn sends(self) -> bool {
        matches!(self, Self::SendOnly | Self::SendReceive)
    }

    /// Whether RTP from this leg's peer is wanted.
    #[must_use]
    pub const fn receives(self) -> bool {
        matches!(self, Self::ReceiveOnly | Self::SendReceive)
    }
}

impl TryFrom<u8> for MediaDirection {
    type Error = u8;

    fn try_from(value: u8) -> Result<Self, u8> {
        match value {
            0 => Ok(Self::Inactive),
            1 => Ok(Self::SendOnly),
            2 => Ok(Self::ReceiveOnly),
            3 => Ok(Self::SendReceive),
            other => Err(other),
        }
    }
}

/// One payload type's way through a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadRoute {
    /// As this leg's peer numbers it.
    pub from: PayloadType,
    /// As the far leg's peer numbers it.
    pub to: PayloadType,
    /// Its RTP clock.
    pub clock_rate: ClockRateHz,
}

/// At most [`PayloadRoutes::LEN_MAX`] routes, no `from` twice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PayloadRoutes(Vec<PayloadRoute>);

impl PayloadRoutes {
    /// More than any audio offer seen in practice (browsers list about ten formats).
    pub const LEN_MAX: usize = 32;

    /// `None` when there are too many routes or a `from` occurs twice.
    #[must_use]
    pub fn new(routes: Vec<PayloadRoute>) -> Option<Self> {
        let mut seen = 0u128;
        for route in &routes {
            let bit = 1u128 << route.from.get();
            if seen & bit != 0 {
                return None;
            }
            seen |= bit;
        }
        (routes.len() <= Self::LEN_MAX).then_some(Self(routes))
    }

    /// The routes in the order control gave.
    #[must_use]
    pub fn as_slice(&self) -> &[PayloadRoute] {
        &self.0
    }
}
