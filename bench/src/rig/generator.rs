//! The generator: one thread that never sleeps and sends what is due.
//!
//! It measures itself too. A packet is stamped with the time it is really sent, so the generator's
//! own lateness is no latency of the relay's; how late it was stands in the result.

use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg, sockopt};
use trunkline_edge_api::{SrtpSuite, Ssrc};
use trunkline_media::PacketBuf;
use trunkline_media::srtp::{OVERHEAD_MAX, OpenContext, SealContext};
use trunkline_ring::monotonic_now;

use super::far_end::{MAGIC_CALL, MAGIC_SPRAY};
use super::peer::MediaLeg;
use super::voice::Voice;
use crate::quantiles::Quantiles;

/// Bytes of a bare RTP header.
const HEADER_LEN: usize = 12;
/// Header and 20 ms of G.711.
pub(crate) const PACKET_LEN: usize = 172;
/// Longest packet of any voice, before it is protected.
const PACKET_LEN_MAX: usize = 512;

/// Packets that leave with one system call at most.
const BATCH_LEN_MAX: usize = 16;

/// Octets, as the kernel counts them: about 20,000 packets.
const RECEIVE_BUFFER_LEN: usize = 16 << 20;
/// Packets of each flow by which it is checked.
const CHECK_ROUNDS: usize = 3;
/// Packets that are taken at most before the next is sent.
const CHECK_LOOKS_MAX: usize = 16;
/// How long what is checked may still be under way.
const CHECK_GRACE: Duration = Duration::from_secs(1);

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    /// The peers of the calls.
    Call,
    /// Somebody at another address.
    Attacker,
}

/// One direction of a call.
struct Flow {
    to: SocketAddr,
    to_any: SocketAddrAny,
    sequence: u16,
    /// What the relay expects of this leg's peer; `None` for plain RTP.
    seal: Option<Box<SealContext>>,
    /// How what the relay sends from this leg's port is protected.
    open: Option<Box<OpenContext>>,
    /// What the leg's peer says; `None`: stamps, which only come through where they are relayed.
    voice: Option<Arc<Voice>>,
}

pub(crate) struct Generator {
    socket: UdpSocket,
    attacker: UdpSocket,
    flows: Vec<Flow>,
    /// The flow that comes next, for each [`Sender`].
    next_flow: [usize; 2],
    packets: Box<[[u8; PACKET_LEN_MAX + OVERHEAD_MAX]; BATCH_LEN_MAX]>,
    /// Lost time is made up for, but never more than this: an overloaded generator offers less
    /// rather than in bursts that no network would carry.
    catch_up_max: Duration,
    /// What is due is sent at multiples of this only: nothing between a veth sender and the
    /// receiving core waits for more, as a NIC does before it interrupts.
    coalesces: Duration,
    interrupted: Arc<AtomicBool>,
}

/// What was sent in one go.
pub(crate) struct Sent {
    /// Packets that the kernel took.
    pub(crate) packets: u64,
    /// Of the attacker among them.
    pub(crate) sprayed: u64,
    /// How long after it was due each packet was sent, microseconds.
    pub(crate) lateness_us: Option<Quantiles>,
}

impl Generator {
    /// Sends from `socket`, and as attacker from `attacker`; stops when `interrupted` is set.
    pub(crate) fn new(
        socket: UdpSocket,
        attacker: UdpSocket,
        catch_up_max: Duration,
        interrupted: Arc<AtomicBool>,
    ) -> Result<Self> {
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        // While flows are checked, a tick of thousands of sessions arrives at once.
        sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER_LEN)?;
        Ok(Self {
            socket,
            attacker,
            flows: Vec::new(),
            next_flow: [0; 2],
            packets: Box::new([[0xd5; PACKET_LEN_MAX + OVERHEAD_MAX]; BATCH_LEN_MAX]),
            catch_up_max,
            coalesces: Duration::ZERO,
            interrupted,
        })
    }

    /// The address that every leg has for its peer.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    /// From now on packets are handed over in groups, one at every multiple of `interval`.
    pub(crate) fn coalesce(&mut self, interval: Duration) {
        self.coalesces = interval;
    }

    pub(crate) fn has_flows(&self) -> bool {
        !self.flows.is_empty()
    }

    /// Those of another relay.
    pub(crate) fn forget_legs(&mut self) {
        self.next_flow = [0; 2];
        self.flows.clear();
    }

    /// Sends into these legs too, two neighbours of which are one call. Their peers have these
    /// voices in turn; without any, they send stamps.
    pub(crate) fn add_legs(&mut self, legs: &[MediaLeg], voices: &[Arc<Voice>]) {
        self.flows
            .extend((self.flows.len() as u32..).zip(legs).map(|(index, leg)| {
                Flow {
                    to: leg.relay,
                    to_any: leg.relay.into(),
                    sequence: 0,
                    seal: leg.crypto.as_ref().map(|crypto| {
                        let ssrc = Ssrc(ssrc_of(index));
                        Box::new(SealContext::new(crypto.suite, &crypto.to_relay, ssrc))
                    }),
                    open: leg
                        .crypto
                        .as_ref()
                        .map(|crypto| Box::new(OpenContext::new(crypto.suite, &crypto.from_relay))),
                    voice: voices.get(index as usize % voices.len().max(1)).cloned(),
                }
            }));
    }

    /// Sends packets into every flow and sees to it that the relay sends each on, from the far
    /// leg's port, protected as that leg is and in that leg's codec.
    pub(crate) fn check_flows(&mut self, step: u32) -> Result<()> {
        let mut has_passed = vec![false; self.flows.len()];
        // The first packet teaches a relay its peer, and some count it as lost; a codec may need
        // two before it has one to give.
        for _ in 0..CHECK_ROUNDS {
            for _ in 0..self.flows.len() {
                self.send_one(step)?;
                std::thread::sleep(Duration::from_micros(50));
                self.socket.set_nonblocking(true)?;
                for _ in 0..CHECK_LOOKS_MAX {
                    let Some(index) = self.receive()? else {
                        break;
                    };
                    has_passed[index] = true;
                }
            }
        }
        self.socket.set_nonblocking(false)?;
        // What is still under way; a relay that sends on its own would never fall silent.
        let deadline = Instant::now() + CHECK_GRACE;
        while Instant::now() < deadline {
            let Some(index) = self.receive()? else {
                break;
            };
            has_passed[index] = true;
        }
        let missing = has_passed.iter().filter(|passed| !**passed).count();
        ensure!(
            missing == 0,
            "{missing} of {} flows do not come through the relay as they should",
            has_passed.len()
        );
        Ok(())
    }

    /// The flow from whose leg a packet came back, if one did; an error for one that is not what it
    /// should be.
    fn receive(&mut self) -> Result<Option<usize>> {
        let mut buffer = [0; 2_048];
        let Ok((len, source)) = self.socket.recv_from(&mut buffer) else {
            return Ok(None);
        };
        let Some(from) = self.flows.iter().position(|flow| flow.to == source) else {
            bail!("a packet from {source}, which no call has");
        };
        let flow = &mut self.flows[from];
        let mut packet = PacketBuf::new(&mut buffer, len);
        if let Some(open) = &mut flow.open {
            open.open_rtp(&mut packet)
                .map_err(|error| anyhow::anyhow!("from {source}: {error:?}"))?;
        }
        if let Some(voice) = &flow.voice {
            // What else was negotiated, comfort noise say, would not be what is measured.
            let payload_type = packet.get(1).map(|octet| octet & 0x7f);
            ensure!(
                packet.len() > HEADER_LEN && payload_type == Some(voice.payload_type.get()),
                "a packet from {source} is not in the codec of its leg"
            );
            return Ok(Some(from));
        }
        let sent_into = packet
            .get(28..32)
            .and_then(|octets| Some(u32::from_ne_bytes(*octets.first_chunk()?) as usize));
        ensure!(
            packet.len() == PACKET_LEN && sent_into == Some(from ^ 1),
            "a packet from {source} is not what was sent into the other leg"
        );
        Ok(Some(from))
    }

    fn send_one(&mut self, step: u32) -> Result<()> {
        let flow = self.next_flow[Sender::Call as usize];
        let len = self.prepare(0, Sender::Call, step);
        self.socket
            .send_to(&self.packets[0][..len], self.flows[flow].to)?;
        Ok(())
    }

    /// Offers `rate` packets per second, spread round robin over all flows, for `length`;
    /// `sprayed_per_call` packets of the attacker's follow each of them.
    pub(crate) fn offer(
        &mut self,
        rate: f64,
        length: Duration,
        step: u32,
        sprayed_per_call: u32,
        batch_len_max: usize,
    ) -> Result<Sent> {
        let begin = Instant::now();
        let nanos_per_packet = 1e9 / rate;
        let catch_up_max = (self.catch_up_max.as_nanos() as f64 / nanos_per_packet) as u64 + 1;
        let (mut packets, mut sprayed) = (0, 0);
        // Packets that are due or were given up, since `begin`.
        let mut position = 0u64;
        let mut lateness = vec![0u64; 4_096];
        let mut lateness_max: f64 = 0.0;
        loop {
            let elapsed = begin.elapsed();
            if elapsed >= length {
                break;
            }
            if self.interrupted.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            let elapsed_nanos = elapsed.as_nanos() as f64;
            let told_nanos = match self.coalesces.as_nanos() as f64 {
                interval if interval > 0.0 => (elapsed_nanos / interval).floor() * interval,
                _ => elapsed_nanos,
            };
            let due = (told_nanos / nanos_per_packet) as u64;
            if due <= position {
                std::hint::spin_loop();
                continue;
            }
            position = position.max(due.saturating_sub(catch_up_max));
            let count = ((due - position) as usize).min(batch_len_max.min(BATCH_LEN_MAX));
            let late_us = (elapsed_nanos - position as f64 * nanos_per_packet) / 1e3;
            lateness_max = lateness_max.max(late_us);
            let bucket = (late_us as usize).min(lateness.len() - 1);
            lateness[bucket] += count as u64;
            position += count as u64;
            packets += self.send_batch(Sender::Call, count, step) as u64;
            for _ in 0..sprayed_per_call {
                let count = self.send_batch(Sender::Attacker, count, step) as u64;
                packets += count;
                sprayed += count;
            }
        }
        Ok(Sent {
            packets,
            sprayed,
            lateness_us: Quantiles::of_buckets(&lateness, lateness_max),
        })
    }

    /// Sends into the next `count` flows. Returns how many packets the kernel took.
    fn send_batch(&mut self, sender: Sender, count: usize, step: u32) -> usize {
        let first_flow = self.next_flow[sender as usize];
        let mut lens = [0; BATCH_LEN_MAX];
        for (slot, len) in lens.iter_mut().enumerate().take(count) {
            *len = self.prepare(slot, sender, step);
        }
        let socket = match sender {
            Sender::Call => &self.socket,
            Sender::Attacker => &self.attacker,
        };
        let vectors: [[IoSlice<'_>; 1]; BATCH_LEN_MAX] =
            std::array::from_fn(|slot| [IoSlice::new(&self.packets[slot][..lens[slot]])]);
        let mut controls: [SendAncillaryBuffer<'_, '_, '_>; BATCH_LEN_MAX] =
            std::array::from_fn(|_| SendAncillaryBuffer::default());
        let mut messages: Vec<MMsgHdr<'_>> = Vec::with_capacity(count);
        for (slot, control) in controls.iter_mut().enumerate().take(count) {
            let flow = &self.flows[(first_flow + slot) % self.flows.len()];
            messages.push(MMsgHdr::new_with_addr(
                &flow.to_any,
                &vectors[slot],
                control,
            ));
        }
        // What the kernel does not take is not offered.
        sendmmsg(socket, &mut messages, SendFlags::DONTWAIT).unwrap_or(0)
    }

    /// Writes the next flow's packet and returns its length.
    #[inline]
    fn prepare(&mut self, slot: usize, sender: Sender, step: u32) -> usize {
        let index = self.next_flow[sender as usize];
        self.next_flow[sender as usize] = (index + 1) % self.flows.len();
        let flow = &mut self.flows[index];
        let packet = &mut self.packets[slot];
        let (magic, ssrc) = match sender {
            Sender::Call => {
                flow.sequence = flow.sequence.wrapping_add(1);
                (MAGIC_CALL, ssrc_of(index as u32))
            }
            Sender::Attacker => (MAGIC_SPRAY, !ssrc_of(index as u32)),
        };
        packet[0] = 0x80;
        packet[1] = 0;
        packet[2..4].copy_from_slice(&flow.sequence.to_be_bytes());
        packet[4..8].copy_from_slice(&(u32::from(flow.sequence) * 160).to_be_bytes());
        packet[8..12].copy_from_slice(&ssrc.to_be_bytes());
        if let (Some(voice), Sender::Call) = (&flow.voice, sender) {
            let number = usize::from(flow.sequence);
            // Nobody says the same at the same time.
            let payload = &voice.speech[(7 * index + number) % voice.speech.len()];
            let timestamp = u32::from(flow.sequence).wrapping_mul(voice.units);
            packet[1] = voice.payload_type.get();
            packet[4..8].copy_from_slice(&timestamp.to_be_bytes());
            let len = HEADER_LEN + payload.len();
            packet[HEADER_LEN..len].copy_from_slice(payload);
            return len;
        }
        packet[12..16].copy_from_slice(&magic.to_ne_bytes());
        packet[16..20].copy_from_slice(&step.to_ne_bytes());
        packet[20..28].copy_from_slice(&monotonic_now().0.to_ne_bytes());
        packet[28..32].copy_from_slice(&(index as u32).to_ne_bytes());
        packet[32..PACKET_LEN].fill(0xd5);
        match (&mut flow.seal, sender) {
            (Some(seal), Sender::Call) => {
                let mut packet = PacketBuf::new(packet, PACKET_LEN);
                // A sequence that only rises is never refused.
                let sealed = seal.seal_rtp(&mut packet);
                debug_assert!(sealed.is_ok(), "{sealed:?}");
                packet.len()
            }
            _ => PACKET_LEN,
        }
    }
}

/// Source of a flow; none is 0, and none is another's complement.
fn ssrc_of(index: u32) -> u32 {
    0x1000_0000 + index
}

/// How a suite is called in the report.
pub(crate) fn suite_name(suite: Option<SrtpSuite>) -> &'static str {
    match suite {
        None => "RTP",
        Some(suite) => suite.sdes_name(),
    }
}
