//! What a trunk or a member may say of its audio beside how it is protected.

use std::fmt;
use std::str::FromStr;

use trunkline_edge_api::LegFunctions;
use trunkline_sip::offer_answer::Transcode;

/// How digits travel between us and a party.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Dtmf {
    /// As telephone events in the media (RFC 4733); as tones where the party has none.
    #[default]
    Rfc4733,
    /// As tones in the audio.
    InBand,
    /// As INFO requests.
    Info,
}

impl Dtmf {
    /// What a configuration may say.
    pub const FORM: &'static str = "\"rfc4733\", \"inband\" or \"info\"";

    /// As a configuration says it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rfc4733 => "rfc4733",
            Self::InBand => "inband",
            Self::Info => "info",
        }
    }

    /// What the edge does with the digits of a party, when the far side takes them `to`.
    #[must_use]
    pub fn functions(self, to: Self) -> LegFunctions {
        LegFunctions {
            // Tones reach a far side that takes tones as they are.
            detects_tones: self == Self::InBand && to != Self::InBand,
            // They go on as INFO and in no other way.
            hides_digits: to == Self::Info,
            ..LegFunctions::default()
        }
    }
}

impl fmt::Display for Dtmf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No way of this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be {}", Dtmf::FORM)]
pub struct UnknownDtmf;

impl FromStr for Dtmf {
    type Err = UnknownDtmf;

    fn from_str(text: &str) -> Result<Self, UnknownDtmf> {
        match text {
            "rfc4733" => Ok(Self::Rfc4733),
            "inband" => Ok(Self::InBand),
            "info" => Ok(Self::Info),
            _ => Err(UnknownDtmf),
        }
    }
}

/// Whether calls are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RecordCalls {
    /// Only when an operator asks.
    #[default]
    Never,
    /// From the answer on.
    Always,
}

impl RecordCalls {
    /// What a configuration may say.
    pub const FORM: &'static str = "\"never\" or \"always\"";

    /// As a configuration says it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Always => "always",
        }
    }
}

impl fmt::Display for RecordCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No such choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be {}", RecordCalls::FORM)]
pub struct UnknownRecordCalls;

impl FromStr for RecordCalls {
    type Err = UnknownRecordCalls;

    fn from_str(text: &str) -> Result<Self, UnknownRecordCalls> {
        match text {
            "never" => Ok(Self::Never),
            "always" => Ok(Self::Always),
            _ => Err(UnknownRecordCalls),
        }
    }
}

/// What a caller hears before somebody answers (RFC 3960).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum EarlyMedia {
    /// What the callee's side sends before its answer, else the ringback of its own phone.
    #[default]
    Pass,
    /// Ringback that the edge plays, until the callee's side sends something.
    Ringback,
    /// The ringback of its own phone.
    Off,
}

impl EarlyMedia {
    /// What a configuration may say.
    pub const FORM: &'static str = "\"pass\", \"ringback\" or \"off\"";

    /// As a configuration says it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Ringback => "ringback",
            Self::Off => "off",
        }
    }
}

impl fmt::Display for EarlyMedia {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No such choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be {}", EarlyMedia::FORM)]
pub struct UnknownEarlyMedia;

impl FromStr for EarlyMedia {
    type Err = UnknownEarlyMedia;

    fn from_str(text: &str) -> Result<Self, UnknownEarlyMedia> {
        match text {
            "pass" => Ok(Self::Pass),
            "ringback" => Ok(Self::Ringback),
            "off" => Ok(Self::Off),
            _ => Err(UnknownEarlyMedia),
        }
    }
}

/// How a party's audio and digits are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PartyAudio {
    /// Whether the edge may change its audio.
    pub transcode: Transcode,
    /// How its digits travel.
    pub dtmf: Dtmf,
}
