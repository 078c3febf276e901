//! Who may answer a call, and what it means when they do not.

use std::fmt;
use std::net::IpAddr;

use trunkline_edge_api::SourceNetworks;
use trunkline_sip::agent::InviteRequest;
use trunkline_sip::offer_answer::{SrtpPolicy, TranscodingPolicy};

use crate::cdr::CallResult;
use crate::party::Dtmf;
use crate::site::InterfaceName;

/// One phone, or one way out through a trunk: something that an INVITE is sent to.
#[derive(Debug, Clone)]
pub struct Callee {
    /// The extension or number that the record shows when it answers.
    pub name: String,
    /// The trunk it is reached through; `None` for a member's phone.
    pub trunk: Option<String>,
    /// The INVITE. Its offer is written by the call.
    pub request: InviteRequest,
    /// How its media is treated.
    pub media: CalleeMedia,
}

/// How the media of a [`Callee`] is treated.
#[derive(Debug, Clone)]
pub struct CalleeMedia {
    /// Whether it is protected.
    pub srtp: SrtpPolicy,
    /// What it may be converted to.
    pub transcoding: TranscodingPolicy,
    /// How its digits travel.
    pub dtmf: Dtmf,
    /// The IP that its signalling comes from when it sits behind NAT, so that its SDP cannot be
    /// taken at its word.
    pub nat: Option<IpAddr>,
    /// Our media address towards it; `None`: the one that the leg has.
    pub interface: Option<InterfaceName>,
    /// Networks that its media may come from beside the address in its SDP.
    pub media_from: Option<SourceNetworks>,
}

/// Callees that are rung at one time.
#[derive(Debug, Clone)]
pub struct Round {
    /// At least one.
    pub callees: Vec<Callee>,
    /// How long they may ring, seconds.
    pub ring_timeout_secs: u32,
}

/// Names one INVITE of a call while it is unanswered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ForkId(pub u32);

impl fmt::Display for ForkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fork-{}", self.0)
    }
}

/// Why somebody did not answer. Of several, the greatest is what the caller is told: what people
/// did counts more than what machines could not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// No phone is registered.
    Offline,
    /// The phone's own trouble, or the network's.
    Failed,
    /// No trunk would take the call at present.
    Unavailable,
    /// The far network does not know the number.
    Unknown,
    /// Nothing that was offered suits it.
    Media,
    /// It is in a call.
    Busy,
    /// It rang, and nobody came.
    NoAnswer,
    /// Somebody was there and did not want to.
    Declined,
}

impl Cause {
    /// What a final response says. A phone's own trouble (401, 5xx) says nothing about its member,
    /// that of a trunk says something about the trunk.
    #[must_use]
    pub fn of_status(status: u16, is_trunk: bool) -> Self {
        match status {
            486 | 600 => Self::Busy,
            603 => Self::Declined,
            415 | 488 | 606 => Self::Media,
            408 | 480 => Self::NoAnswer,
            404 | 410 | 484 | 604 if is_trunk => Self::Unknown,
            403 | 500..=599 if is_trunk => Self::Unavailable,
            _ => Self::Failed,
        }
    }

    /// What the caller is told, and how the record calls it. That a member cannot be had is 480
    /// (RFC 3261 §21.4.18), whatever its phone's trouble.
    #[must_use]
    pub fn caller_sees(self) -> (CallResult, u16) {
        match self {
            Self::Offline => (CallResult::Offline, 480),
            Self::Failed => (CallResult::Failed, 480),
            Self::Unavailable => (CallResult::Failed, 503),
            Self::Unknown => (CallResult::UnknownNumber, 404),
            Self::Media => (CallResult::NoCommonCodec, 488),
            Self::Busy => (CallResult::Busy, 486),
            Self::NoAnswer => (CallResult::NoAnswer, 480),
            Self::Declined => (CallResult::Declined, 603),
        }
    }
}
