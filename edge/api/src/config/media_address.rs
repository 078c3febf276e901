//! `[edge] media_addresses`: what is bound for media, and what peers are told instead of it.
//!
//! ```toml
//! media_addresses = [
//!     { name = "outside", address = "10.0.0.5", advertise = "203.0.113.5" },
//!     { name = "inside", address = "10.0.0.5" },
//!     "2001:db8::10",
//! ]
//! ```
//!
//! Behind a 1:1 NAT the address that peers can reach is not one that this machine can bind: the
//! edge binds `address`, SDP names `advertise`. One address may have several entries, so that a
//! LAN hears of the address itself and a carrier of the public one.

use std::net::IpAddr;

use super::document::{Section, Value};

/// Entries in the list. Every offer is compared with each of them, and each is a label in
/// metrics; a machine with more networks than this has another problem.
pub const MEDIA_ADDRESSES_MAX: usize = 16;

/// Characters of a name.
const NAME_LEN_MAX: usize = 63;

/// One interface for media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaAddress {
    /// What the site file calls it, and its `interface` label in metrics; the address itself when
    /// the file gives no name. No two entries share one.
    pub name: String,
    /// What is bound.
    pub address: IpAddr,
    /// What SDP names: of the family of `address`, and the same unless a 1:1 NAT stands between.
    pub advertise: IpAddr,
}

impl From<IpAddr> for MediaAddress {
    /// An entry without name and NAT.
    fn from(address: IpAddr) -> Self {
        Self {
            name: address.to_string(),
            address,
            advertise: address,
        }
    }
}

impl MediaAddress {
    /// Whether peers are told another address than the one that is bound.
    #[must_use]
    pub fn is_translated(&self) -> bool {
        self.address != self.advertise
    }
}

/// The addresses that these entries bind, each once, in their order.
#[must_use]
pub fn bound_addresses(entries: &[MediaAddress]) -> Vec<IpAddr> {
    let mut bound = Vec::new();
    for entry in entries {
        if !bound.contains(&entry.address) {
            bound.push(entry.address);
        }
    }
    bound
}

/// Reads the list; `None` after a problem was reported.
pub(super) fn read(section: &Section<'_>) -> Option<Vec<MediaAddress>> {
    let mut taken: Vec<MediaAddress> = Vec::new();
    section.list("media_addresses", 1..=MEDIA_ADDRESSES_MAX, |value| {
        let entry = entry(value)?;
        for other in &taken {
            check_together(&entry, other)?;
        }
        taken.push(entry.clone());
        Ok(entry)
    })
}

fn entry(value: Value<'_>) -> Result<MediaAddress, String> {
    if let Some(text) = value.as_str() {
        return Ok(MediaAddress::from(address("address", text)?));
    }
    let Some(table) = value.as_table() else {
        return Err("expected an IP address or a table with the key address".to_owned());
    };
    const KEYS: [&str; 3] = ["address", "advertise", "name"];
    if let Some(unknown) = table.keys().find(|key| !KEYS.contains(key)) {
        return Err(format!(
            "unknown key \"{}\"; allowed: {}",
            unknown.escape_debug(),
            KEYS.join(", ")
        ));
    }
    let text = |key: &str| match table.get(key) {
        None => Ok(None),
        Some(value) => match value.as_str() {
            Some(text) => Ok(Some(text)),
            None => Err(format!("{key} must be a string")),
        },
    };
    let Some(bound) = text("address")? else {
        return Err("the key address is missing: an IP address of this machine".to_owned());
    };
    let bound = address("address", bound)?;
    let advertise = match text("advertise")? {
        Some(text) => address("advertise", text)?,
        None => bound,
    };
    if bound.is_ipv4() != advertise.is_ipv4() {
        return Err(format!(
            "advertise {advertise} is not of the family of address {bound}; give each family an \
             entry of its own"
        ));
    }
    if advertise.is_loopback() && !bound.is_loopback() {
        return Err(format!(
            "advertise {advertise} cannot be reached by any peer"
        ));
    }
    let name = match text("name")? {
        Some(name) if is_name(name) => name.to_owned(),
        Some(_) => {
            return Err(format!(
                "name must be 1 to {NAME_LEN_MAX} letters, digits, '.', '-' or '_'"
            ));
        }
        None => bound.to_string(),
    };
    Ok(MediaAddress {
        name,
        address: bound,
        advertise,
    })
}

/// An address that media can be received on. IPv4 in IPv6 clothes is refused: it would be bound as
/// one family and described as the other.
fn address(key: &str, text: &str) -> Result<IpAddr, String> {
    let Ok(address) = text.parse::<IpAddr>() else {
        return Err(format!("{key} must be an IP address"));
    };
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    if address.is_unspecified()
        || address.is_multicast()
        || is_broadcast
        || address.to_canonical() != address
    {
        return Err(format!(
            "{key} {address} cannot be used: it must be one host's address, and IPv4 written as IPv4"
        ));
    }
    Ok(address)
}

/// Every address that peers may be told belongs to one bound address: else two calls on equal
/// ports would have one address between them.
fn check_together(entry: &MediaAddress, earlier: &MediaAddress) -> Result<(), String> {
    if entry.name == earlier.name {
        return Err(format!(
            "the name \"{}\" is taken by an earlier entry",
            entry.name
        ));
    }
    let is_ambiguous = entry.address != earlier.address
        && (entry.advertise == earlier.advertise
            || entry.advertise == earlier.address
            || entry.address == earlier.advertise);
    if is_ambiguous {
        return Err(format!(
            "peers could not tell it from the entry \"{}\": two bound addresses cannot share one \
             advertised address",
            earlier.name
        ));
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    (1..=NAME_LEN_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}
