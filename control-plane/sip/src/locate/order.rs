//! The order of records: RFC 3263 §4.1 for NAPTR, RFC 2782 for SRV.

use crate::entropy::Entropy;
use crate::flow::TransportKind;

/// A NAPTR record (RFC 3403 §4.1), as far as SIP uses one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NaptrRecord {
    /// Lower is looked at first, whatever the preference.
    pub order: u16,
    /// Lower is better among records of one order.
    pub preference: u16,
    /// `s` where an SRV lookup comes next, the only kind that SIP uses.
    pub flags: String,
    /// `SIP+D2U`, `SIP+D2T`, `SIPS+D2T` and others.
    pub services: String,
    /// The name of the SRV records, without a final dot.
    pub replacement: String,
}

/// An SRV record (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SrvRecord {
    /// Lower is tried first.
    pub priority: u16,
    /// Among records of one priority, the share of those who try this one first.
    pub weight: u16,
    /// Its port.
    pub port: u16,
    /// Its host, without a final dot; empty where the service is not there.
    pub target: String,
}

/// The transports that `records` offer and we have, with the names of their SRV records, best
/// first.
pub(super) fn services(
    mut records: Vec<NaptrRecord>,
    kinds: &[TransportKind],
    is_secure: bool,
) -> Vec<(TransportKind, String)> {
    records.sort_by_key(|record| (record.order, record.preference));
    let mut services = Vec::new();
    for record in records {
        let kind = match record.services.to_ascii_uppercase().as_str() {
            "SIP+D2U" => TransportKind::Udp,
            "SIP+D2T" => TransportKind::Tcp,
            "SIPS+D2T" => TransportKind::Tls,
            _ => continue,
        };
        let is_usable = record.flags.eq_ignore_ascii_case("s") && !record.replacement.is_empty();
        let is_wanted = kinds.contains(&kind) && (!is_secure || kind.is_secure());
        let service = (kind, record.replacement);
        if is_usable && is_wanted && !services.contains(&service) {
            services.push(service);
        }
    }
    services
}

/// Orders `records` by priority, and draws among those of one priority by weight, so that every
/// order comes up as often as the weights ask.
pub(super) fn draw(mut records: Vec<SrvRecord>, entropy: &mut dyn Entropy) -> Vec<SrvRecord> {
    // Records of weight 0 first, so that they keep their small chance.
    records.sort_by_key(|record| (record.priority, record.weight));
    let mut drawn = Vec::with_capacity(records.len());
    while let Some(first) = records.first() {
        let priority = first.priority;
        let of_priority = records.iter().take_while(|r| r.priority == priority);
        let weights: Vec<u64> = of_priority.map(|r| u64::from(r.weight)).collect();
        let sum: u64 = weights.iter().sum();
        let mut left = entropy.next_u64() % (sum + 1);
        let index = weights.iter().position(|weight| {
            let is_it = *weight >= left;
            left = left.saturating_sub(*weight);
            is_it
        });
        drawn.push(records.remove(index.unwrap_or(0)));
    }
    drawn
}
