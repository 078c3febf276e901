//! Where a trunk's calls go: hosts with a priority and a weight, as in an SRV record (RFC 2782).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Destinations of one trunk.
pub const DESTINATIONS_MAX: usize = 8;

const PRIORITY_DEFAULT: u16 = 1;
const WEIGHT_DEFAULT: u16 = 1;

/// One host of a carrier.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Destination {
    /// A name or an address, without brackets. It is the host of request URIs.
    pub host: String,
    /// `None`: what DNS says for the name (RFC 3263), else the transport's own port.
    pub port: Option<u16>,
    /// The lowest is tried first.
    pub priority: u16,
    /// Share of the calls among those of one priority; 0: only when the others fail.
    pub weight: u16,
}

impl Destination {
    /// What is allowed, fit to follow the word "expected".
    pub const FORM: &'static str = "a host name or address, with \":port\" and \";priority=n\", \
         \";weight=n\" where they matter, e.g. \"sip.example.com\" or \
         \"192.0.2.10:5080;priority=2;weight=10\"";

    /// `host` and port as they stand in a URI.
    #[must_use]
    pub fn host_port(&self) -> String {
        let host = if self.host.parse::<Ipv6Addr>().is_ok() {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        match self.port {
            Some(port) => format!("{host}:{port}"),
            None => host,
        }
    }

    /// The host, when it is an address.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host_port())?;
        if self.priority != PRIORITY_DEFAULT {
            write!(f, ";priority={}", self.priority)?;
        }
        if self.weight != WEIGHT_DEFAULT {
            write!(f, ";weight={}", self.weight)?;
        }
        Ok(())
    }
}

/// Text that is no destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {}", Destination::FORM)]
pub struct DestinationError;

impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        let mut parts = text.split(';');
        let (host, port) = split_port(parts.next().unwrap_or_default()).ok_or(DestinationError)?;
        let mut destination = Self {
            host: host.to_owned(),
            port,
            priority: PRIORITY_DEFAULT,
            weight: WEIGHT_DEFAULT,
        };
        for part in parts {
            let (name, value) = part.split_once('=').ok_or(DestinationError)?;
            let value = value.parse().map_err(|_| DestinationError)?;
            match name {
                "priority" => destination.priority = value,
                "weight" => destination.weight = value,
                _ => return Err(DestinationError),
            }
        }
        Ok(destination)
    }
}

impl TryFrom<String> for Destination {
    type Error = DestinationError;

    fn try_from(text: String) -> Result<Self, DestinationError> {
        text.parse()
    }
}

impl From<Destination> for String {
    fn from(destination: Destination) -> Self {
        destination.to_string()
    }
}

fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    if text.parse::<IpAddr>().is_ok() {
        return Some((text, None));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => {
            let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
            (host, Some(port))
        }
        None => (text, None),
    };
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    match bracketed {
        Some(address) => address
            .parse::<Ipv6Addr>()
            .is_ok()
            .then_some((address, port)),
        None => is_host(host).then_some((host, port)),
    }
}

/// Whether `text` can be the name or IPv4 address of a host.
#[must_use]
pub fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    (1..=253).contains(&text.len()) && text.split('.').all(is_label)
}

/// The order in which `destinations` are tried for one call: by priority, and drawn by weight
/// within one priority (RFC 2782, "Usage rules"). `draw` gives random numbers.
pub fn order(destinations: &[Destination], mut draw: impl FnMut() -> u64) -> Vec<usize> {
    let mut left: Vec<usize> = (0..destinations.len()).collect();
    left.sort_by_key(|&index| destinations[index].priority);
    let mut ordered = Vec::with_capacity(left.len());
    while let Some(&first) = left.first() {
        let priority = destinations[first].priority;
        let same = left
            .iter()
            .take_while(|&&index| destinations[index].priority == priority)
            .count();
        let weight = |index: usize| u64::from(destinations[index].weight);
        let total: u64 = left[..same].iter().map(|&index| weight(index)).sum();
        let mut mark = if total == 0 { 0 } else { draw() % total };
        let chosen = left[..same].iter().position(|&index| {
            let is_it = mark < weight(index);
            mark = mark.saturating_sub(weight(index));
            is_it
        });
        ordered.push(left.remove(chosen.unwrap_or(0)));
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_reads_back_as_it_was_written() {
        for text in [
            "sip.example.com",
            "192.0.2.10:5080;priority=2;weight=10",
            "[2001:db8::1]:5061",
            "acme.pstn.twilio.com;weight=0",
        ] {
            let destination: Destination = text.parse().expect(text);
            assert_eq!(destination.to_string(), text);
        }
        let bare: Destination = "2001:db8::1".parse().expect("an address");
        assert_eq!(bare.host_port(), "[2001:db8::1]");
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "",
            "a b",
            "host:0",
            "host:70000",
            "[::1",
            "host;weight",
            "host;weight=-1",
            "host;colour=1",
            "sip:host",
            "-host",
            "host..name",
            "<host>",
        ] {
            assert!(text.parse::<Destination>().is_err(), "{text}");
        }
    }

    #[test]
    fn lower_priorities_come_first_and_weights_share_the_calls() {
        let destinations: Vec<Destination> = [
            "backup.example;priority=2",
            "a.example;weight=3",
            "b.example;weight=1",
            "last.example;weight=0",
        ]
        .iter()
        .map(|text| text.parse().expect(text))
        .collect();
        let mut firsts = [0; 4];
        for seed in 0..400_u64 {
            let mut value = seed;
            let ordered = order(&destinations, || {
                value += 1;
                value - 1
            });
            let mut sorted = ordered.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3]);
            assert_eq!(ordered[3], 0, "the higher priority is last");
            firsts[ordered[0]] += 1;
        }
        assert_eq!(firsts, [0, 300, 100, 0]);
    }
}
