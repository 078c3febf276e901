//! RTP through relays: one core of ours, on io_uring and on epoll, beside rtpengine's user-space
//! path in the same run.
//!
//! Relays run in turn, A B C A B C, each as a fresh process. Machines are shared and noisy: an
//! absolute rate means nothing alone, the ratios do.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use trunkline_edge_api::SrtpSuite;
use trunkline_testkit::daemons::Binaries;

use crate::report::Machine;
use crate::rig::edge::EdgeUnderTest;
use crate::rig::generator::suite_name;
use crate::rig::peer::Relay;
use crate::rig::rtpengine::Rtpengine;
use crate::rig::window::Rig;
use crate::rig::wire::Wire;

mod round;
mod table;

use round::{Bench, Round};

/// The generator never sends more than this at once for time that it lost: the ladder is about
/// rates.
const CATCH_UP_MAX: Duration = Duration::from_millis(1);

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
    // Before anything is pinned: what is pinned sees one core.
    let machine = Machine::this();
    let peer_version = Rtpengine::version()?;
    let binaries = Binaries::find()?;
    let (rounds, seconds) = if arguments.quick {
        (1, 1)
    } else {
        (arguments.rounds, arguments.seconds)
    };
    let mut bench = Bench {
        rig: Rig::set_up(Duration::from_secs(seconds), CATCH_UP_MAX)?,
        calls: arguments.calls,
        rates: arguments.rates.iter().copied().map(f64::from).collect(),
    };
    let mut results: Vec<Round> = Vec::new();
    for number in 1..=rounds {
        for (candidate, suite) in TURNS {
            if number > 1 && suite.is_some() {
                continue;
            }
            let title = format!("{} {}", candidate.name(), suite_name(suite));
            if arguments
                .only
                .as_ref()
                .is_some_and(|only| !title.contains(only))
            {
                continue;
            }
            eprintln!("round {number} of {rounds}: {title}");
            let start = |wire: &Wire| candidate.start(&binaries, wire);
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
