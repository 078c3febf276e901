//! Tones that have a name.

use std::str::FromStr;

use trunkline_edge_api::Tone;

/// Cadences of the United Kingdom and of ITU-T E.180.
pub const NAMED: [(&str, &str); 4] = [
    ("ringback", "%(400,200,400,450)%(400,2000,400,450)"),
    ("busy", "%(500,500,425)"),
    ("congestion", "%(250,250,425)"),
    ("sit", "%(330,0,950)%(330,0,1400)%(330,1000,1800)"),
];

/// The tone of this name or cadence; `None` when it is neither.
#[must_use]
pub fn named(text: &str) -> Option<Tone> {
    let named = NAMED.iter().find(|(name, _)| *name == text);
    Tone::from_str(named.map_or(text, |(_, cadence)| cadence)).ok()
}

/// What a caller hears while somewhere a phone rings.
#[must_use]
pub fn ringback() -> Tone {
    named("ringback").expect("a playable tone")
}
