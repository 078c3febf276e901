//! RTP through relays: one core of ours, on io_uring and on epoll, beside rtpengine's user-space
//! path in the same run.
//!
//! ```text
//!   core 1: generator ──veth──▶ core 0: softirq receive, relay, transmit ──veth──▶ far end (XDP)
//! ```
//!
//! Relays run in turn, A B C A B C, each as a fresh process. Machines are shared and noisy: an
//! absolute rate means nothing alone, the ratios do.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use rustix::thread::{CpuSet, sched_setaffinity};
use signal_hook::consts::{SIGINT, SIGTERM};
use trunkline_edge_api::SrtpSuite;
use trunkline_testkit::daemons::Binaries;

use crate::report::Machine;

pub(crate) mod edge;
mod far_end;
mod generator;
pub(crate) mod peer;
mod round;
mod rtpengine;
mod table;
pub(crate) mod wire;

use edge::EdgeUnderTest;
use far_end::FarEnd;
use generator::Generator;
use peer::Relay;
use round::{Bench, Round};
use rtpengine::Rtpengine;
use wire::{ATTACKER_IP, GENERATOR_CORE, GENERATOR_IP, Wire};

/// What to offer.
#[derive(Args)]
pub struct RelayArguments {
    /// Calls that stand during the whole measurement; two flows each
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(2..=4_000))]
    calls: u32,
    /// Seconds per rate
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// How often each relay has its turn with plain RTP; protected paths have one
    #[arg(long, default_value_t = 2)]
    rounds: u32,
    /// One round of one second per rate, for a first look; nothing is written
    #[arg(long)]
    quick: bool,
    /// Only relays whose name and path contain this, e.g. "io_uring" or "io_uring RTP"; nothing
    /// is written
    #[arg(long)]
    only: Option<String>,
    /// Only these rates, with latency, instead of the ladder; nothing is written
    #[arg(long, value_delimiter = ',')]
    rates: Vec<u32>,
}

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Candidate {
    Uring,
    Epoll,
    Rtpengine,
}

impl Candidate {
    const fn name(self) -> &'static str {
        match self {
            Self::Uring => "trunkline io_uring",
            Self::Epoll => "trunkline epoll",
            Self::Rtpengine => "rtpengine",
        }
    }

    fn start(self, binaries: &Binaries, wire: &Wire) -> Result<Box<dyn Relay>> {
        Ok(match self {
            Self::Uring => Box::new(EdgeUnderTest::start(binaries, wire, "io_uring")?),
            Self::Epoll => Box::new(EdgeUnderTest::start(binaries, wire, "epoll")?),
            Self::Rtpengine => Box::new(Rtpengine::start(wire)?),
        })
    }
}

/// Who takes turns, in this order; what the legs of a call carry.
const TURNS: [(Candidate, Option<SrtpSuite>); 7] = [
    (Candidate::Uring, None),
    (Candidate::Rtpengine, None),
    (Candidate::Epoll, None),
    (Candidate::Uring, Some(SrtpSuite::AesCm128HmacSha1_80)),
    (Candidate::Rtpengine, Some(SrtpSuite::AesCm128HmacSha1_80)),
    (Candidate::Uring, Some(SrtpSuite::AeadAes128Gcm)),
    (Candidate::Rtpengine, Some(SrtpSuite::AeadAes128Gcm)),
];

/// Measures, and publishes `bench/results/relay.*`.
pub fn measure(arguments: &RelayArguments) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    ensure!(
        cores >= 2,
        "the relay measurement needs two cores: one for the relay, one for the generator"
    );
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    // Before anything is pinned: what is pinned sees one core.
    let machine = Machine::this();
    let peer_version = Rtpengine::version()?;
    let binaries = Binaries::find()?;
    let directory = tempfile::tempdir()?;
    let wire = Wire::lay()?;
    let mut far_end = FarEnd::attach(&wire, directory.path())?;
    let mut generator = Generator::new(
        wire.generator_socket(GENERATOR_IP)?,
        wire.generator_socket(ATTACKER_IP)?,
        interrupted,
    )?;
    pin(GENERATOR_CORE)?;
    let (rounds, seconds) = if arguments.quick {
        (1, 1)
    } else {
        (arguments.rounds, arguments.seconds)
    };
    let mut bench = Bench {
        wire: &wire,
        far_end: &mut far_end,
        generator: &mut generator,
        step: 0,
        calls: arguments.calls,
        length: Duration::from_secs(seconds),
        rates: arguments.rates.iter().copied().map(f64::from).collect(),
    };
    let mut results: Vec<Round> = Vec::new();
    for number in 1..=rounds {
        for (candidate, suite) in TURNS {
            if number > 1 && suite.is_some() {
                continue;
            }
            let title = format!("{} {}", candidate.name(), generator::suite_name(suite));
            if arguments
                .only
                .as_ref()
                .is_some_and(|only| !title.contains(only))
            {
                continue;
            }
            eprintln!("round {number} of {rounds}: {title}");
            let start = || candidate.start(&binaries, &wire);
            results.push(bench.measure(candidate.name(), start, suite)?);
        }
    }
    let mut report = table::report(&results, arguments.calls, seconds, &peer_version)?;
    report.machine = machine;
    if arguments.quick || arguments.only.is_some() || !arguments.rates.is_empty() {
        print!("{}", report.to_markdown());
        for round in &results {
            println!("{} {}: {:?}", round.relay, round.path, round.figures);
        }
        return Ok(());
    }
    report.publish()
}

/// Binds this thread, and those that it starts, to one core.
pub(crate) fn pin(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores)?;
    Ok(())
}
