//! Where a call goes besides one member's phone: groups of members, and forwards.

use std::fmt;
use std::str::FromStr;

use super::{E164, Extension, Name};

/// Members that are rung for one number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Half of the key.
    pub tenant: Name,
    /// The other half.
    pub name: Name,
    /// What its tenant's members dial.
    pub extension: Option<Extension>,
    /// What carriers deliver; at most [`Group::DIDS_MAX`].
    pub dids: Vec<E164>,
    /// In the order in which they are rung; 1 to [`Group::MEMBERS_MAX`], each once.
    pub members: Vec<Extension>,
    /// Who rings when.
    pub strategy: Strategy,
    /// How long each round rings, seconds, 1 to 600.
    pub ring_secs: u16,
    /// Whether a member in a call is left out.
    pub skip_busy: bool,
}

impl Group {
    /// A call may ring this many members at once: each has an INVITE of its own.
    pub const MEMBERS_MAX: usize = 64;

    /// Numbers of one group.
    pub const DIDS_MAX: usize = 64;
}

/// In which order the members of a group ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Strategy {
    /// All at once.
    #[default]
    Simultaneous,
    /// One after the other, from the first.
    Sequential,
    /// One after the other, each call from one further on.
    RoundRobin,
}

impl Strategy {
    /// What a configuration may say.
    pub const FORM: &'static str = "\"simultaneous\", \"sequential\" or \"round_robin\"";

    /// As a configuration says it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Simultaneous => "simultaneous",
            Self::Sequential => "sequential",
            Self::RoundRobin => "round_robin",
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No such strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be {}", Strategy::FORM)]
pub struct UnknownStrategy;

impl FromStr for Strategy {
    type Err = UnknownStrategy;

    fn from_str(text: &str) -> Result<Self, UnknownStrategy> {
        match text {
            "simultaneous" => Ok(Self::Simultaneous),
            "sequential" => Ok(Self::Sequential),
            "round_robin" => Ok(Self::RoundRobin),
            _ => Err(UnknownStrategy),
        }
    }
}

/// When a member's calls go elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ForwardEvent {
    /// At once; no phone rings.
    Always,
    /// The phone is busy, or the member says so.
    Busy,
    /// Nobody came to the phone.
    NoAnswer,
    /// No phone is registered or works.
    Offline,
}

impl ForwardEvent {
    /// Every event.
    pub const ALL: [Self; 4] = [Self::Always, Self::Busy, Self::NoAnswer, Self::Offline];

    /// As the store and the log have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Busy => "busy",
            Self::NoAnswer => "no_answer",
            Self::Offline => "offline",
        }
    }

    /// The key of the site file.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Always => "forward_always",
            Self::Busy => "forward_busy",
            Self::NoAnswer => "forward_no_answer",
            Self::Offline => "forward_offline",
        }
    }

    /// The reason of `Diversion` (RFC 5806 §4).
    #[must_use]
    pub const fn diversion_reason(self) -> &'static str {
        match self {
            Self::Always => "unconditional",
            Self::Busy => "user-busy",
            Self::NoAnswer => "no-answer",
            Self::Offline => "unavailable",
        }
    }

    /// The status whose meaning the event has, for `History-Info` (RFC 7044 §10.2).
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Always => 302,
            Self::Busy => 486,
            Self::NoAnswer => 408,
            Self::Offline => 480,
        }
    }
}

/// No such event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be always, busy, no_answer or offline")]
pub struct UnknownEvent;

impl FromStr for ForwardEvent {
    type Err = UnknownEvent;

    fn from_str(text: &str) -> Result<Self, UnknownEvent> {
        let mut events = Self::ALL.into_iter();
        events
            .find(|event| event.as_str() == text)
            .ok_or(UnknownEvent)
    }
}

/// Where a member's calls go: an extension of the tenant or an E.164 number each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forwards {
    targets: [Option<String>; 4],
}

impl Forwards {
    /// What a target may look like.
    pub const TARGET_FORM: &'static str =
        "an extension of the tenant, or an E.164 number such as \"+442071838750\"";

    /// Whether `text` can be a target at all.
    #[must_use]
    pub fn is_target(text: &str) -> bool {
        text.parse::<Extension>().is_ok() || text.parse::<E164>().is_ok()
    }

    /// Where calls go upon `event`.
    #[must_use]
    pub fn target(&self, event: ForwardEvent) -> Option<&str> {
        self.targets[event as usize].as_deref()
    }

    /// Has calls go to `target` upon `event`; `None`: nowhere.
    pub fn set(&mut self, event: ForwardEvent, target: Option<String>) {
        self.targets[event as usize] = target;
    }
}
