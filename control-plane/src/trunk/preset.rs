//! What is known of well-known carriers, so that a `[[trunk]]` need not say it.
//!
//! A preset is a set of defaults: every key that the file states wins over it. What changes from
//! customer to customer (termination domain, credentials, the region to send to) is never in one.

use std::str::FromStr;

use trunkline_sip::offer_answer::SrtpPolicy;

use super::settings::TrunkTransport;

/// A carrier by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Preset {
    /// Twilio Elastic SIP Trunking: IP only towards us; from us to the termination domain.
    Twilio,
    /// Telnyx: addresses in pairs; registration, or IP with a tech prefix or a token.
    Telnyx,
    /// SignalWire: addresses that change, so its name is resolved again and again; digest.
    SignalWire,
    /// Bandwidth: a pair of addresses for each customer.
    Bandwidth,
}

/// What a preset gives. Empty and `None`: nothing, the file or the general default decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    /// Networks that its SIP comes from.
    pub sources: &'static [&'static str],
    /// Networks that its media comes from.
    pub media_from: &'static [&'static str],
    /// Where calls go.
    pub destinations: &'static [&'static str],
    /// Names that are resolved for more sources.
    pub source_names: &'static [&'static str],
    /// What it is spoken to over.
    pub transport: TrunkTransport,
    /// Whether media is protected.
    pub srtp: SrtpPolicy,
    /// Calls per second that it takes from an account without more.
    pub cps: u32,
}

impl Preset {
    /// What a configuration may say.
    pub const FORM: &'static str = "\"twilio\", \"telnyx\", \"signalwire\" or \"bandwidth\"";

    /// What it stands for.
    #[must_use]
    pub const fn defaults(self) -> Defaults {
        match self {
            Self::Twilio => Defaults {
                // One /30 per region, all of which may deliver: Virginia, Oregon, Ireland,
                // Frankfurt, Sao Paulo, Tokyo, Singapore, Sydney.
                sources: &[
                    "54.172.60.0/30",
                    "54.244.51.0/30",
                    "54.171.127.192/30",
                    "35.156.191.128/30",
                    "177.71.206.192/30",
                    "54.65.63.192/30",
                    "54.169.127.128/30",
                    "54.252.254.64/30",
                ],
                media_from: &["168.86.128.0/18"],
                // The termination domain is the customer's own.
                destinations: &[],
                source_names: &[],
                transport: TrunkTransport::Udp,
                srtp: SrtpPolicy::Off,
                cps: 1,
            },
            Self::Telnyx => Defaults {
                sources: &["192.76.120.10", "64.16.250.10"],
                media_from: &[],
                destinations: &["sip.telnyx.com"],
                source_names: &[],
                transport: TrunkTransport::Udp,
                srtp: SrtpPolicy::Off,
                cps: 20,
            },
            Self::SignalWire => Defaults {
                sources: &[],
                media_from: &[],
                // The space's domain is the customer's own, and its sources with it.
                destinations: &[],
                source_names: &[],
                transport: TrunkTransport::Tls,
                srtp: SrtpPolicy::Preferred,
                cps: 1,
            },
            Self::Bandwidth => Defaults {
                sources: &[],
                media_from: &[],
                destinations: &[],
                source_names: &[],
                transport: TrunkTransport::Udp,
                srtp: SrtpPolicy::Off,
                cps: 0,
            },
        }
    }

    /// Whether the addresses of its destinations are sources as well: it delivers from where it
    /// is called, and from nowhere that could be listed.
    #[must_use]
    pub const fn delivers_from_its_destinations(self) -> bool {
        matches!(self, Self::SignalWire | Self::Bandwidth)
    }
}

/// No carrier of this name is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be {}", Preset::FORM)]
pub struct UnknownPreset;

impl FromStr for Preset {
    type Err = UnknownPreset;

    fn from_str(text: &str) -> Result<Self, UnknownPreset> {
        match text {
            "twilio" => Ok(Self::Twilio),
            "telnyx" => Ok(Self::Telnyx),
            "signalwire" => Ok(Self::SignalWire),
            "bandwidth" => Ok(Self::Bandwidth),
            _ => Err(UnknownPreset),
        }
    }
}
