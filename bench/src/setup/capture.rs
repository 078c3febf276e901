//! INVITEs out of a capture file: classic pcap, Ethernet frames as loopback shows them, IPv4, UDP.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Result, bail};

/// Octets of the file header and of each record's.
const FILE_HEADER_LEN: usize = 24;
const RECORD_HEADER_LEN: usize = 16;
/// Ethernet header, and the type that says IPv4.
const ETHERNET_LEN: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
/// IP protocol number.
const UDP: u8 = 17;
const UDP_HEADER_LEN: usize = 8;

/// An INVITE that begins a call, on the wire.
#[derive(Debug, PartialEq)]
pub(super) struct Invite {
    /// Seconds since the epoch.
    pub(super) at: f64,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    /// User part of its From.
    pub(super) caller: String,
}

/// All of them in the order of the file.
pub(super) fn invites(file: &[u8]) -> Result<Vec<Invite>> {
    // Little-endian magic with microseconds, or with nanoseconds.
    let fraction = match file.get(..4) {
        Some([0xd4, 0xc3, 0xb2, 0xa1]) => 1e-6,
        Some([0x4d, 0x3c, 0xb2, 0xa1]) => 1e-9,
        _ => bail!("not a capture of this machine's byte order"),
    };
    let word = |bytes: &[u8], offset: usize| {
        bytes
            .get(offset..offset + 4)
            .and_then(|word| word.try_into().ok())
            .map(u32::from_le_bytes)
    };
    let mut found = Vec::new();
    let mut rest = file.get(FILE_HEADER_LEN..).unwrap_or_default();
    while let (Some(seconds), Some(part), Some(len)) = (word(rest, 0), word(rest, 4), word(rest, 8))
    {
        let end = RECORD_HEADER_LEN + len as usize;
        let Some(frame) = rest.get(RECORD_HEADER_LEN..end) else {
            break;
        };
        let at = f64::from(seconds) + f64::from(part) * fraction;
        found.extend(invite(at, frame));
        rest = &rest[end..];
    }
    Ok(found)
}

fn invite(at: f64, frame: &[u8]) -> Option<Invite> {
    if frame.get(12..ETHERNET_LEN)? != IPV4 {
        return None;
    }
    let packet = frame.get(ETHERNET_LEN..)?;
    let header_len = usize::from(packet.first()? & 0x0f) * 4;
    if *packet.get(9)? != UDP {
        return None;
    }
    let address = |offset: usize| -> Option<Ipv4Addr> {
        let octets: [u8; 4] = packet.get(offset..offset + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets))
    };
    let datagram = packet.get(header_len..)?;
    let port = |offset: usize| -> Option<u16> {
        Some(u16::from_be_bytes(
            datagram.get(offset..offset + 2)?.try_into().ok()?,
        ))
    };
    let message = std::str::from_utf8(datagram.get(UDP_HEADER_LEN..)?).ok()?;
    if !message.starts_with("INVITE ") {
        return None;
    }
    let header = |name: &str| message.lines().find(|line| line.starts_with(name));
    if header("To:")?.contains(";tag=") {
        return None;
    }
    let caller = header("From:")?.split_once("sip:")?.1.split_once('@')?.0;
    Some(Invite {
        at,
        from: SocketAddr::from((address(12)?, port(0)?)),
        to: SocketAddr::from((address(16)?, port(2)?)),
        caller: caller.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture(message: &str) -> Vec<u8> {
        let mut frame = vec![0u8; 12];
        frame.extend_from_slice(&IPV4);
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, UDP, 0, 0];
        packet.extend_from_slice(&[127, 0, 0, 2, 127, 0, 0, 1]);
        packet.extend_from_slice(&[0x13, 0xc4, 0x13, 0xc5, 0, 0, 0, 0]);
        packet.extend_from_slice(message.as_bytes());
        frame.extend_from_slice(&packet);
        let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1];
        file.resize(FILE_HEADER_LEN, 0);
        for value in [7, 500_000, frame.len() as u32, frame.len() as u32] {
            file.extend_from_slice(&value.to_le_bytes());
        }
        file.extend_from_slice(&frame);
        file
    }

    #[test]
    fn invite_is_read_with_time_addresses_and_caller() {
        let file = capture(
            "INVITE sip:1@x SIP/2.0\r\nFrom: \"A\" <sip:+15559991@h>;tag=1\r\nTo: <sip:1@x>\r\n\r\n",
        );
        let found = invites(&file).unwrap();
        assert_eq!(
            found,
            [Invite {
                at: 7.5,
                from: "127.0.0.2:5060".parse().unwrap(),
                to: "127.0.0.1:5061".parse().unwrap(),
                caller: "+15559991".to_owned(),
            }]
        );
    }

    #[test]
    fn reinvites_other_messages_and_cut_files_give_nothing() {
        for message in [
            "INVITE sip:1@x SIP/2.0\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:1@x>;tag=2\r\n\r\n",
            "SIP/2.0 200 OK\r\n\r\n",
        ] {
            assert_eq!(invites(&capture(message)).unwrap(), []);
        }
        let file = capture("INVITE x");
        assert_eq!(invites(&file[..file.len() - 1]).unwrap(), []);
        assert!(invites(b"no capture").is_err());
    }
}
