//! RTP through one worker of the real edge, driven over the ring as control drives it.
//!
//! The generator is one socket on one thread that never sleeps: it sends what is due, reads what
//! came back, and looks at the clock. Both legs of every call name that socket as their peer, so
//! each packet comes back to it from another port of the edge. A packet carries its number and
//! the time it was sent.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::json;
use trunkline_testkit::daemons::Binaries;

use crate::quantiles::Quantiles;
use crate::report::Report;

mod edge;
mod wire;

use edge::EdgeUnderTest;
use wire::Wire;

/// Header and 20 ms of G.711.
const PACKET_LEN: usize = 172;
/// Core of the edge's only worker (it pins itself there), and of the generator.
const GENERATOR_CORE: usize = 1;
/// Loss up to which a rate counts as sustained: 0.1 %.
const SUSTAINED_LOSS: f64 = 0.001;
/// Packets read in a row before the generator looks whether one is due.
const READ_BURST: usize = 32;
/// Grace for the last packets of a step.
const DRAIN: Duration = Duration::from_millis(300);

/// What to offer.
#[derive(Args)]
pub struct RelayArguments {
    /// Calls that stand during the whole measurement; two flows each
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=4_000))]
    calls: u32,
    /// Seconds per rate
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Over loopback instead of a veth pair; needs no root and measures the generator first
    #[arg(long)]
    loopback: bool,
    /// Packets per second to offer, one after the other
    #[arg(long, value_delimiter = ',', default_values_t = [20_000, 40_000, 60_000, 80_000, 100_000, 120_000, 140_000, 170_000, 200_000])]
    rates: Vec<u32>,
}

/// What one rate came to.
struct Step {
    offered: f64,
    forwarded: f64,
    loss: f64,
    edge_core_idle: f64,
    cpu_us_per_packet: f64,
    latency_us: Option<Quantiles>,
}

/// Runs the ladder and publishes `bench/results/relay.*`.
pub fn measure(arguments: &RelayArguments) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    ensure!(
        cores >= 2,
        "the relay measurement needs two cores: one for the worker, one for the generator"
    );
    let mut report = Report::new(
        "relay",
        "RTP through one worker of the edge",
        &[
            "offered/s",
            "forwarded/s",
            "loss %",
            "core 0 idle %",
            "edge CPU µs/packet",
        ],
    );
    let wire = if arguments.loopback {
        Wire::Loopback
    } else {
        Wire::veth().context("the veth pair needs root; --loopback does without")?
    };
    let socket = wire.generator_socket()?;
    socket.set_nonblocking(true)?;
    // Capped by net.core.rmem_max; the report would show a shortage as loss.
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 16 << 20)?;
    let mut edge = EdgeUnderTest::start(&Binaries::find()?, wire.edge_ip())?;
    let ports = edge.open_calls(arguments.calls, socket.local_addr()?)?;
    pin(GENERATOR_CORE)?;
    let mut generator = Generator::new(socket, ports);
    let length = Duration::from_secs(arguments.seconds);

    // Every leg hears once, so that nothing is learnt during a step.
    generator.run(&mut edge, 20_000, Duration::from_secs(1), false)?;
    let mut peak: f64 = 0.0;
    let mut sustained: f64 = 0.0;
    for &rate in &arguments.rates {
        let step = generator.run(&mut edge, rate, length, false)?;
        eprintln!(
            "{rate} offered: {:.0} sent/s, {:.0} forwarded/s, {:.3} % lost",
            step.offered,
            step.forwarded,
            step.loss * 100.0
        );
        peak = peak.max(step.forwarded);
        if step.loss <= SUSTAINED_LOSS {
            sustained = sustained.max(step.forwarded);
        }
        report.rows.push(vec![
            json!(step.offered.round()),
            json!(step.forwarded.round()),
            json!(step.loss * 100.0),
            json!(step.edge_core_idle * 100.0),
            json!(step.cpu_us_per_packet),
        ]);
        // The generator itself is at its end: higher rates would measure it, not the edge.
        if step.offered < 0.9 * f64::from(rate) {
            report.findings.push(format!(
                "the generator could not offer {rate}/s; the ladder ends there"
            ));
            break;
        }
    }
    report.findings.push(format!(
        "peak {peak:.0} forwarded packets/s with one worker; sustained (≤ 0.1 % loss) {sustained:.0}"
    ));
    let rate = (sustained * 0.8) as u32;
    if rate > 0 {
        let through = generator.run(&mut edge, rate, length, true)?;
        let direct = generator.run_direct(rate, length)?;
        for (what, latency) in [
            ("through the edge", through.latency_us),
            ("straight to the generator's own socket", direct),
        ] {
            if let Some(latency) = latency {
                report.findings.push(format!(
                    "latency {what} at {rate}/s: p50 {:.1} µs, p99 {:.1} µs, p99.9 {:.1} µs, largest {:.0} µs ({} packets)",
                    latency.p50, latency.p99, latency.p999, latency.max, latency.count
                ));
            }
        }
        if let (Some(through), Some(direct)) = (through.latency_us, direct) {
            report.findings.push(format!(
                "added by the edge: p50 {:.1} µs, p99 {:.1} µs, p99.9 {:.1} µs",
                through.p50 - direct.p50,
                through.p99 - direct.p99,
                through.p999 - direct.p999
            ));
        }
    }
    report.method = vec![
        format!(
            "{} calls of two legs (RTCP muxed), opened over the ring; {PACKET_LEN}-byte RTP packets spread round robin over all flows, both directions; {} s per rate.",
            arguments.calls, arguments.seconds
        ),
        format!(
            "Edge: one worker. Generator: one busy thread on core {GENERATOR_CORE}, one socket, each packet stamped when sent and read back."
        ),
        wire.describe().to_owned(),
        "Idle share of core 0 is the kernel's, everything that ran there included; CPU per packet is user and system time of the edge process. Both from /proc.".to_owned(),
    ];
    report.publish()
}

struct Generator {
    socket: UdpSocket,
    /// Media ports of the edge, one flow into each.
    ports: Vec<SocketAddr>,
    /// Packets sent into each flow so far.
    sequences: Vec<u16>,
    next_flow: usize,
    started: Instant,
    /// Of the step that runs; late packets of an earlier one are not counted.
    step: u32,
}

impl Generator {
    fn new(socket: UdpSocket, ports: Vec<SocketAddr>) -> Self {
        Self {
            socket,
            sequences: vec![0; ports.len()],
            ports,
            next_flow: 0,
            started: Instant::now(),
            step: 0,
        }
    }

    fn run(
        &mut self,
        edge: &mut EdgeUnderTest,
        rate: u32,
        length: Duration,
        wants_latency: bool,
    ) -> Result<Step> {
        edge.keep_in_touch()?;
        let cpu = edge.cpu_seconds()?;
        let idle = edge::core_ticks()?;
        let (sent, received, latencies, spent) = self.offer(rate, length, wants_latency, None)?;
        let cpu = edge.cpu_seconds()? - cpu;
        let idle = edge::core_ticks()?.idle_share_since(&idle);
        edge.keep_in_touch()?;
        let seconds = spent.as_secs_f64();
        Ok(Step {
            offered: sent as f64 / seconds,
            forwarded: received as f64 / seconds,
            loss: 1.0 - received as f64 / sent.max(1) as f64,
            edge_core_idle: idle,
            cpu_us_per_packet: cpu * 1e6 / received.max(1) as f64,
            latency_us: Quantiles::of(latencies),
        })
    }

    /// The same loop without the edge: what the generator and the kernel take by themselves.
    fn run_direct(&mut self, rate: u32, length: Duration) -> Result<Option<Quantiles>> {
        let own = self.socket.local_addr()?;
        let (_, _, latencies, _) = self.offer(rate, length, true, Some(own))?;
        Ok(Quantiles::of(latencies))
    }

    fn offer(
        &mut self,
        rate: u32,
        length: Duration,
        wants_latency: bool,
        instead_of_the_edge: Option<SocketAddr>,
    ) -> Result<(u64, u64, Vec<f64>, Duration)> {
        self.step += 1;
        let interval = Duration::from_secs(1).div_f64(f64::from(rate));
        let begin = Instant::now();
        let end = begin + length;
        let mut due = begin;
        let (mut sent, mut received) = (0u64, 0u64);
        let mut latencies = Vec::new();
        if wants_latency {
            latencies.reserve((f64::from(rate) * length.as_secs_f64() * 1.1) as usize);
        }
        let mut buffer = [0u8; 2_048];
        loop {
            let now = Instant::now();
            if now >= end + DRAIN {
                break;
            }
            if now >= due && now < end {
                self.send(now, instead_of_the_edge);
                sent += 1;
                // Lost time is made up for, but never more than 10 ms of it: an overloaded
                // generator offers less rather than in bursts that no network would.
                due = (due + interval).max(now - Duration::from_millis(10));
            }
            for _ in 0..READ_BURST {
                let Ok(len) = self.socket.recv(&mut buffer) else {
                    break;
                };
                if let Some(stamp) = self.read_stamp(&buffer[..len]) {
                    received += 1;
                    if wants_latency {
                        let nanos = self.started.elapsed().as_nanos() as u64 - stamp;
                        latencies.push(nanos as f64 / 1e3);
                    }
                }
                if now >= due {
                    break;
                }
            }
        }
        Ok((sent, received, latencies, length))
    }

    fn send(&mut self, now: Instant, instead_of_the_edge: Option<SocketAddr>) {
        let flow = self.next_flow;
        self.next_flow = (flow + 1) % self.ports.len();
        let sequence = self.sequences[flow];
        self.sequences[flow] = sequence.wrapping_add(1);
        let mut packet = [0xd5u8; PACKET_LEN];
        packet[0] = 0x80;
        packet[1] = 0;
        packet[2..4].copy_from_slice(&sequence.to_be_bytes());
        packet[4..8].copy_from_slice(&(u32::from(sequence) * 160).to_be_bytes());
        packet[8..12].copy_from_slice(&(flow as u32).to_be_bytes());
        packet[12..16].copy_from_slice(&self.step.to_be_bytes());
        let stamp = (now - self.started).as_nanos() as u64;
        packet[16..24].copy_from_slice(&stamp.to_be_bytes());
        let to = instead_of_the_edge.unwrap_or(self.ports[flow]);
        // A full queue is an offered packet that was lost, like any other.
        let _ = self.socket.send_to(&packet, to);
    }

    /// When the packet was sent; `None` for one of another step.
    fn read_stamp(&self, packet: &[u8]) -> Option<u64> {
        let step = packet.get(12..16)?;
        if step != self.step.to_be_bytes() {
            return None;
        }
        Some(u64::from_be_bytes(packet.get(16..24)?.try_into().ok()?))
    }
}

fn pin(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores)?;
    Ok(())
}
