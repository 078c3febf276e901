//! The site file: who exists and who answers which number, stated as it should be.
//!
//! ```toml
//! [[tenant]]
//! name = "acme"
//!
//! [[trunk]]
//! name = "carrier-1"
//! tenant = "acme"
//! sources = ["192.0.2.0/28", "2001:db8::/64"]
//!
//! [[member]]
//! tenant = "acme"
//! extension = "101"
//! name = "Ada Lovelace"
//! sip_user = "ada"
//! password_file = "secrets/ada"
//!
//! [[did]]
//! number = "+442071838750"
//! tenant = "acme"
//! member = "101"
//!
//! [[conference]]
//! name = "standup"
//! tenant = "acme"
//! did = "+442071838760"
//! ```
//!
//! `trunkline-control apply` brings the store to this form. The file holds no secrets: a member's
//! password stands in a file of its own, named relative to the site file, and only its digest
//! (HA1) goes further.
//!
//! A site file is whole: what a section refers to must be in the same file.

use std::path::Path;

use ipnet::IpNet;
use trunkline_edge_api::config::{ConfigError, MediaAddress, parse_document, read_text};
use trunkline_sip::offer_answer::SrtpPolicy;

mod document;
mod groups;
mod names;
#[cfg(test)]
pub(crate) mod tests;

pub use document::{SecretFile, SiteDocument};
pub use groups::{ForwardEvent, Forwards, Group, Strategy, UnknownEvent, UnknownStrategy};
pub use names::{Availability, E164, Extension, InterfaceName, Name, SipUser};

use crate::call::Pin;
use crate::credential::Credential;
use crate::party::{EarlyMedia, PartyAudio, RecordCalls};
use crate::trunk::{MemberOutbound, TenantOutbound, TrunkSettings};

/// Largest site file that is read, bytes: room for about 100,000 members.
const SITE_FILE_SIZE_MAX: u64 = 32 << 20;

/// Largest password file that is read, bytes.
const PASSWORD_FILE_SIZE_MAX: u64 = 4096;

/// The stated form of everything that routing needs. Names that refer to each other do so
/// rightly: a [`Site`] is only made from a checked document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Site {
    /// Each name once.
    pub tenants: Vec<Tenant>,
    /// Each name once; no source network twice.
    pub trunks: Vec<Trunk>,
    /// Each extension once per tenant, each SIP user once.
    pub members: Vec<Member>,
    /// Each number once.
    pub dids: Vec<Did>,
    /// Each name once per tenant; each number once, and none of `dids`.
    pub conferences: Vec<Conference>,
    /// Each prefix once per tenant.
    pub routes: Vec<Route>,
    /// Each name once per tenant; each extension once, and none of a member; each number once.
    pub groups: Vec<Group>,
}

/// A customer whose members, trunks and numbers are kept apart from all others'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// The key.
    pub name: Name,
    /// What its held callers hear: a file under `[media] prompts_dir`.
    pub hold_music: Option<String>,
    /// What its members may call.
    pub outbound: TenantOutbound,
    /// What its callers hear before the answer.
    pub early_media: EarlyMedia,
    /// What that is where the edge plays it: a file under `[media] prompts_dir`, or `tone:…`.
    pub ringback: Option<String>,
}

/// A carrier's connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trunk {
    /// The key; also the `trunk` label of metrics.
    pub name: Name,
    /// Whose numbers it delivers.
    pub tenant: Name,
    /// Networks its SIP requests come from; none where only names or its registration tell.
    pub sources: Vec<IpNet>,
    /// Whether its media is protected.
    pub srtp: SrtpPolicy,
    /// Networks its media may come from beside the address in its SDP; at most
    /// [`trunkline_edge_api::SourceNetworks::LEN_MAX`].
    pub media_from: Vec<IpNet>,
    /// The media address it is talked to from; `None`: the first of the family that fits.
    pub media: Option<InterfaceName>,
    /// How its audio and digits are treated.
    pub audio: PartyAudio,
    /// Where calls to it go, and how.
    pub settings: TrunkSettings,
}

/// A person with a phone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Half of the key.
    pub tenant: Name,
    /// The other half.
    pub extension: Extension,
    /// Display name.
    pub name: String,
    /// Digest user name and user part of the address-of-record.
    pub sip_user: SipUser,
    /// What the phone's digest is checked against.
    pub credential: Credential,
    /// Where calls may go when the phone cannot take them.
    pub forward_number: Option<E164>,
    /// Where calls go instead; a member's own choice goes before it.
    pub forwards: Forwards,
    /// What the member starts with; a member's own choice is never overwritten.
    pub availability: Availability,
    /// Whether the phone's media is protected.
    pub srtp: SrtpPolicy,
    /// The media address the phone is talked to from, its own or its tenant's; `None`: the first
    /// of the family that fits.
    pub media: Option<InterfaceName>,
    /// How the phone's audio and digits are treated.
    pub audio: PartyAudio,
    /// What the member may call.
    pub outbound: MemberOutbound,
}

/// A number that carriers deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Did {
    /// The key.
    pub number: E164,
    /// Whose it is.
    pub tenant: Name,
    /// The member who answers.
    pub member: Extension,
    /// Whether its calls are recorded.
    pub record: RecordCalls,
    /// What its callers hear before the answer; `None`: as the tenant says.
    pub early_media: Option<EarlyMedia>,
    /// Its calls at one time.
    pub channels_max: Option<u32>,
}

/// Which trunks a tenant's calls go out through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Half of the key.
    pub tenant: Name,
    /// The other half: `+` and digits, or an emergency number.
    pub prefix: String,
    /// Tried in this order; at least one.
    pub trunks: Vec<Name>,
}

/// A number whose callers hear each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conference {
    /// Half of the key.
    pub tenant: Name,
    /// The other half.
    pub name: Name,
    /// Its number.
    pub did: E164,
    /// Digits that callers have to enter.
    pub pin: Option<Pin>,
    /// Whether a tone tells that somebody comes or goes.
    pub announce: bool,
    /// Whether who joins is not heard until an operator says so.
    pub join_muted: bool,
    /// Whether what is said is recorded.
    pub record: RecordCalls,
}

impl Site {
    /// Reads the site file at `path` and the password files it names. `interfaces` are what the
    /// file may name as `media`.
    ///
    /// # Errors
    /// All problems of the file, then those of the password files.
    pub fn load(
        path: &Path,
        realm: &str,
        interfaces: &[MediaAddress],
    ) -> Result<Self, ConfigError> {
        let file_name = path.display().to_string();
        let text = read_text(path, SITE_FILE_SIZE_MAX)?;
        let document: SiteDocument = parse_document(&text, &file_name)?;
        document.check_interfaces(&file_name, interfaces)?;
        let dir = path.parent().unwrap_or(Path::new(""));
        document.resolve(realm, |file| {
            read_password(&dir.join(&file.path)).map_err(|problem| {
                let message = format!(
                    "[[{}]] {} = {:?}: {problem}",
                    file.section, file.key, file.path
                );
                ConfigError::at(&file_name, file.line, message)
            })
        })
    }
}

/// The first and only line of a password file. A line end is not part of the password.
fn read_password(path: &Path) -> Result<String, String> {
    let text = read_text(path, PASSWORD_FILE_SIZE_MAX).map_err(|error| error.to_string())?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() {
        return Err(format!("{} holds no password", path.display()));
    }
    if password.chars().any(char::is_control) {
        return Err(format!(
            "{} must hold the password on one line and nothing else",
            path.display()
        ));
    }
    Ok(password.to_owned())
}
