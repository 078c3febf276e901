//! A phone: where it sends from, what it sends, and what signalling says of it.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use trunkline_edge_api::{
    ClockRateHz, LegConfig, LegIndex, LocalMedia, MediaDirection, MediaTimeouts, PayloadRoute,
    PayloadRoutes, PayloadType, RtcpMode, SourcePolicy, Ssrc,
};
use trunkline_media::SocketKind;

use crate::random::Random;

/// Opus as each leg numbers it; the audio of the simulation.
const OPUS: [u8; 2] = [111, 96];
/// RTP time of one 20 ms packet of Opus.
const TICK_UNITS: u32 = 960;

pub(crate) struct Party {
    pub(crate) call: usize,
    pub(crate) leg: LegIndex,
    pub(crate) local: LocalMedia,
    pub(crate) is_behind_nat: bool,
    pub(crate) direction: MediaDirection,
    /// Its own address as the world sees it; no other party has the IP.
    pub(crate) ip: IpAddr,
    port: u16,
    /// What its SDP says: the address itself, or a private one behind a NAT.
    signalled_port: u16,
    pub(crate) ssrc: u32,
    pub(crate) sequence: u16,
    timestamp: u32,
    serial: u32,
    /// Every SSRC and sequence number it ever sent under.
    pub(crate) said: HashSet<(u32, u16)>,
}

impl Party {
    pub(crate) fn new(random: &mut Random, call: usize, leg: LegIndex) -> Self {
        let index = 2 * call + leg.as_usize();
        let number = index as u8 + 1;
        let is_ipv6 = random.chance(300);
        let (ip, ours): (IpAddr, IpAddr) = if is_ipv6 {
            let ip = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into());
            (
                ip.into(),
                Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1).into(),
            )
        } else {
            (
                Ipv4Addr::new(198, 51, 100, number).into(),
                Ipv4Addr::new(192, 0, 2, 1).into(),
            )
        };
        let rtcp = if random.chance(500) {
            RtcpMode::Muxed
        } else {
            RtcpMode::Separate
        };
        let port = 4_000 + 2 * random.below(1_000) as u16;
        Self {
            call,
            leg,
            local: LocalMedia {
                rtp: SocketAddr::new(ours, 30_000 + 2 * index as u16),
                rtcp,
                ssrc: Ssrc(random.next() as u32),
            },
            is_behind_nat: random.chance(500),
            direction: MediaDirection::SendReceive,
            ip,
            port,
            signalled_port: port,
            ssrc: random.next() as u32,
            sequence: random.next() as u16,
            timestamp: random.next() as u32,
            serial: 0,
            said: HashSet::new(),
        }
    }

    pub(crate) fn address(&self, socket: SocketKind) -> SocketAddr {
        let offset = match (socket, self.local.rtcp) {
            (SocketKind::Rtcp, RtcpMode::Separate) => 1,
            _ => 0,
        };
        SocketAddr::new(self.ip, self.port + offset)
    }

    /// The phone opens new sockets and will say so.
    pub(crate) fn move_ports(&mut self, random: &mut Random) {
        self.rebind(random);
        self.signalled_port = self.signalled_port.wrapping_add(2) | 0x1000;
        if !self.is_behind_nat {
            self.signalled_port = self.port;
        }
    }

    /// The NAT in front of the phone gives it new ports, and nobody says so.
    pub(crate) fn rebind(&mut self, random: &mut Random) {
        let before = self.port;
        while self.port == before {
            self.port = 4_000 + 2 * random.below(20_000) as u16;
        }
    }

    pub(crate) fn restart(&mut self, random: &mut Random) {
        self.ssrc = random.next() as u32;
        self.sequence = random.next() as u16;
        self.timestamp = random.next() as u32;
    }

    /// What control would tell the edge of this party now.
    pub(crate) fn config(&self) -> LegConfig {
        let ip = if !self.is_behind_nat {
            self.ip
        } else if self.ip.is_ipv4() {
            Ipv4Addr::new(10, 0, 0, 1).into()
        } else {
            Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).into()
        };
        let rtp = SocketAddr::new(ip, self.signalled_port);
        let rtcp = match self.local.rtcp {
            RtcpMode::Muxed => rtp,
            RtcpMode::Separate => SocketAddr::new(ip, self.signalled_port + 1),
        };
        let leg = self.leg.as_usize();
        let route = PayloadRoute {
            from: PayloadType::new(OPUS[leg]).expect("below 128"),
            to: PayloadType::new(OPUS[1 - leg]).expect("below 128"),
            clock_rate: ClockRateHz::OPUS,
        };
        LegConfig {
            remote_rtp: Some(rtp),
            remote_rtcp: Some(rtcp),
            source: if self.is_behind_nat {
                SourcePolicy::LearnPort { ip: self.ip }
            } else {
                SourcePolicy::Exact
            },
            direction: self.direction,
            routes: PayloadRoutes::new(vec![route]).expect("one"),
            crypto: None,
            timeouts: MediaTimeouts::default(),
        }
    }

    /// The next packet of its audio. The payload tells who said it.
    pub(crate) fn speak(&mut self, random: &mut Random) -> Vec<u8> {
        self.said.insert((self.ssrc, self.sequence));
        let mut packet = rtp(
            OPUS[self.leg.as_usize()],
            self.sequence,
            self.timestamp,
            self.ssrc,
        );
        packet.extend_from_slice(&self.mark());
        packet.extend_from_slice(&self.serial.to_be_bytes());
        packet.resize(packet.len() + random.below(120) as usize, self.serial as u8);
        self.serial += 1;
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(TICK_UNITS);
        packet
    }

    /// First bytes of every payload of this party.
    pub(crate) fn mark(&self) -> [u8; 4] {
        [b'P', b'Y', self.call as u8, self.leg as u8]
    }

    /// A receiver report about `about`, heard up to `highest`; sometimes without a block.
    pub(crate) fn report(&self, about: Option<(u32, u32)>) -> Vec<u8> {
        let mut packet = vec![0x80, 201, 0, 1];
        packet.extend_from_slice(&self.ssrc.to_be_bytes());
        if let Some((ssrc, highest)) = about {
            packet[0] = 0x81;
            packet[3] = 7;
            packet.extend_from_slice(&ssrc.to_be_bytes());
            packet.extend_from_slice(&[0; 4]);
            packet.extend_from_slice(&highest.to_be_bytes());
            packet.extend_from_slice(&[0; 12]);
        }
        packet
    }
}

/// A header without payload.
pub(crate) fn rtp(payload_type: u8, sequence: u16, timestamp: u32, ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, payload_type];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&timestamp.to_be_bytes());
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet
}
