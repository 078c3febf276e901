//! How many calls one worker of the real edge carries: each peer sends its 50 packets a second, and
//! calls are added until packets stay away.

use std::fs;
use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg, sockopt};
use serde::Serialize;
use trunkline_edge_api::AudioCodec;
use trunkline_testkit::daemons::Binaries;

use super::voice::{Voice, leg_audio};
use crate::relay::edge::EdgeUnderTest;
use crate::relay::peer::{CoreTicks, Relay as _};
use crate::relay::wire::{GENERATOR_IP, Side, Wire};

/// Loss up to which calls count as carried: 0.1 %.
const CARRIED_LOSS: f64 = 0.001;
/// How long calls are looked at, and how long they stand before.
const LENGTH: Duration = Duration::from_secs(2);
const WARM_UP: Duration = Duration::from_secs(1);
/// How long nobody speaks, so that what has queued up is gone and the worker takes more calls.
const REST: Duration = Duration::from_secs(1);
/// Packets that come later than this after a step count as lost.
const GRACE: Duration = Duration::from_millis(20);
/// Packets per flow and second.
const FRAMES_PER_SECOND: f64 = 50.0;
/// A generator that sends less than this share of what it should is at its own end.
const GENERATOR_SHARE: f64 = 0.98;
/// A generator that was kept from its core gives up what is older than this.
const CATCH_UP_MAX: Duration = Duration::from_millis(5);
/// Bytes of a bare RTP header.
const HEADER_LEN: usize = 12;
const PACKET_LEN_MAX: usize = 512;
/// Packets handed to the kernel at once.
const BATCH_LEN_MAX: usize = 32;

/// A pair of codecs, and the ladder on which calls are added.
pub(super) struct Ladder {
    pub(super) name: &'static str,
    pub(super) codecs: [AudioCodec; 2],
    pub(super) first: u32,
    pub(super) step: u32,
    pub(super) last: u32,
}

/// What so many calls came to.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Step {
    pub(super) calls: u32,
    pub(super) sent: u64,
    pub(super) arrived: u64,
    /// 0 … 1.
    pub(super) loss: f64,
    /// Share of the edge's core.
    pub(super) idle: f64,
    /// The generator kept its pace.
    pub(super) is_paced: bool,
}

/// Where a ladder ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Packets stayed away.
    Lost,
    /// The worker took no more calls.
    Refused,
    /// The generator or the ladder came to its end.
    NotReached,
}

/// One after the other; the last is the first that was not carried, or the ladder's end.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Climb {
    pub(super) name: &'static str,
    pub(super) steps: Vec<Step>,
    /// The worker took no more calls.
    pub(super) is_refused: bool,
}

impl Climb {
    /// The most calls that were carried.
    pub(super) fn carried(&self) -> u32 {
        let carried = self.steps.iter().filter(|step| step.is_carried());
        carried.map(|step| step.calls).max().unwrap_or(0)
    }

    /// Why no more calls were added.
    pub(super) fn end(&self) -> End {
        match self.steps.last() {
            Some(step) if !step.is_carried() => End::Lost,
            _ if self.is_refused => End::Refused,
            _ => End::NotReached,
        }
    }
}

impl Step {
    fn is_carried(&self) -> bool {
        self.loss <= CARRIED_LOSS
    }
}

/// Climbs until packets are lost or the generator cannot keep its pace.
pub(super) fn climb(ladder: &Ladder, binaries: &Binaries, wire: &Wire) -> Result<Climb> {
    let mut edge = EdgeUnderTest::start(binaries, wire, "io_uring")?;
    let mut peers = Peers::new(wire, ladder.codecs)?;
    let audio = ladder.codecs.map(leg_audio);
    let mut climb = Climb {
        name: ladder.name,
        steps: Vec::new(),
        is_refused: false,
    };
    let mut calls = 0;
    let mut wanted = ladder.first;
    while wanted <= ladder.last {
        let (count, peer) = (wanted - calls, peers.address()?);
        let opened = match audio[0] == audio[1] {
            true => edge.open_calls(count, peer, None),
            false => edge.open_transcoded(count, peer, &audio),
        };
        let legs = match opened {
            Ok(legs) => legs,
            Err(error) if climb.steps.is_empty() => return Err(error),
            Err(error) => {
                eprintln!("  {wanted} calls: {error:#}");
                climb.is_refused = true;
                break;
            }
        };
        calls = wanted;
        peers.add(legs.into_iter().map(|leg| leg.relay));
        edge.keep_in_touch()?;
        peers.speak(WARM_UP)?;
        std::thread::sleep(REST);
        edge.keep_in_touch()?;
        let arrived = peers.arrived(wire)?;
        let ticks = CoreTicks::now()?;
        let sent = peers.speak(LENGTH)?;
        let (idle, _) = CoreTicks::now()?.shares_since(&ticks);
        std::thread::sleep(GRACE);
        let arrived = peers.arrived(wire)? - arrived;
        std::thread::sleep(REST);
        let wanted_packets = f64::from(calls) * 2.0 * FRAMES_PER_SECOND * LENGTH.as_secs_f64();
        let step = Step {
            calls,
            sent,
            arrived,
            loss: (1.0 - arrived as f64 / sent.max(1) as f64).max(0.0),
            idle,
            is_paced: sent as f64 >= GENERATOR_SHARE * wanted_packets,
        };
        eprintln!(
            "  {} calls: {sent} sent, {arrived} arrived, core {:.0} % idle{}",
            step.calls,
            100.0 * step.idle,
            if step.is_paced {
                ""
            } else {
                ", generator late"
            }
        );
        let goes_on = step.is_carried() && step.is_paced;
        if step.is_paced {
            climb.steps.push(step);
        }
        if !goes_on {
            break;
        }
        wanted += ladder.step;
    }
    edge.stop()?;
    Ok(climb)
}

/// The peers of all calls, behind one socket.
struct Peers {
    /// Never read: what arrives is counted where the kernel drops it.
    socket: UdpSocket,
    voices: [Voice; 2],
    legs: Vec<SocketAddrAny>,
    /// Packets that each leg's peer has sent.
    sent: Vec<u32>,
    next: usize,
    packets: Box<[[u8; PACKET_LEN_MAX]; BATCH_LEN_MAX]>,
}

impl Peers {
    fn new(wire: &Wire, codecs: [AudioCodec; 2]) -> Result<Self> {
        wire.steer_to_generator()?;
        let socket = wire.generator_socket(GENERATOR_IP)?;
        // The kernel makes this its smallest.
        sockopt::set_socket_recv_buffer_size(&socket, 1)?;
        let [a, b] = codecs;
        Ok(Self {
            socket,
            voices: [Voice::new(a)?, Voice::new(b)?],
            legs: Vec::new(),
            sent: Vec::new(),
            next: 0,
            packets: Box::new([[0; PACKET_LEN_MAX]; BATCH_LEN_MAX]),
        })
    }

    fn address(&self) -> Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    fn add(&mut self, legs: impl Iterator<Item = SocketAddr>) {
        self.legs.extend(legs.map(SocketAddrAny::from));
        self.sent.resize(self.legs.len(), 0);
    }

    /// RTP packets that reached the socket since its buffer was full.
    fn arrived(&self, wire: &Wire) -> Result<u64> {
        let port = format!(":{:04X}", self.address()?.port());
        wire.inside(Side::Generator, || {
            let table = fs::read_to_string("/proc/thread-self/net/udp")?;
            table
                .lines()
                .map(|line| line.split_whitespace().collect::<Vec<_>>())
                .find(|fields| fields.get(1).is_some_and(|local| local.ends_with(&port)))
                .and_then(|fields| fields.last()?.parse().ok())
                .context("the socket is not in /proc/net/udp")
        })
    }

    /// Everybody sends their 50 packets a second, one after the other, for `length`. Returns how
    /// many packets that were.
    fn speak(&mut self, length: Duration) -> Result<u64> {
        let nanos_per_packet = 1e9 / (self.legs.len() as f64 * FRAMES_PER_SECOND);
        let catch_up_max = (CATCH_UP_MAX.as_nanos() as f64 / nanos_per_packet) as u64 + 1;
        let begin = Instant::now();
        let (mut position, mut sent) = (0u64, 0);
        loop {
            let elapsed = begin.elapsed();
            if elapsed >= length {
                return Ok(sent);
            }
            let due = (elapsed.as_nanos() as f64 / nanos_per_packet) as u64;
            if due <= position {
                std::hint::spin_loop();
                continue;
            }
            position = position.max(due.saturating_sub(catch_up_max));
            let count = ((due - position) as usize).min(BATCH_LEN_MAX);
            position += count as u64;
            sent += self.send(count) as u64;
        }
    }

    /// The next `count` peers send. Returns how many packets the kernel took.
    fn send(&mut self, count: usize) -> usize {
        let first = self.next;
        let mut lens = [0; BATCH_LEN_MAX];
        for (slot, len) in lens.iter_mut().enumerate().take(count) {
            *len = self.prepare(slot);
        }
        let vectors: [[IoSlice<'_>; 1]; BATCH_LEN_MAX] =
            std::array::from_fn(|slot| [IoSlice::new(&self.packets[slot][..lens[slot]])]);
        let mut controls: [SendAncillaryBuffer<'_, '_, '_>; BATCH_LEN_MAX] =
            std::array::from_fn(|_| SendAncillaryBuffer::default());
        let mut messages: Vec<MMsgHdr<'_>> = Vec::with_capacity(count);
        for (slot, control) in controls.iter_mut().enumerate().take(count) {
            let to = &self.legs[(first + slot) % self.legs.len()];
            messages.push(MMsgHdr::new_with_addr(to, &vectors[slot], control));
        }
        sendmmsg(&self.socket, &mut messages, SendFlags::DONTWAIT).unwrap_or(0)
    }

    /// Writes the next peer's packet and returns its length.
    fn prepare(&mut self, slot: usize) -> usize {
        let leg = self.next;
        self.next = (leg + 1) % self.legs.len();
        let number = self.sent[leg];
        self.sent[leg] = number.wrapping_add(1);
        // Legs of one call are neighbours.
        let voice = &self.voices[leg % 2];
        let payload = &voice.speech[(7 * leg + number as usize) % voice.speech.len()];
        let packet = &mut self.packets[slot];
        packet[..2].copy_from_slice(&[0x80, voice.payload_type.get()]);
        packet[2..4].copy_from_slice(&(number as u16).to_be_bytes());
        packet[4..8].copy_from_slice(&number.wrapping_mul(voice.units).to_be_bytes());
        packet[8..12].copy_from_slice(&(0x1000_0000 + leg as u32).to_be_bytes());
        let len = HEADER_LEN + payload.len();
        packet[HEADER_LEN..len].copy_from_slice(payload);
        len
    }
}
