//! `trunkline-bench`: the measurements that are programs. `cargo xtask bench` builds the daemons
//! that some of them need first.
#![forbid(unsafe_code)]

use anyhow::Result;
use clap::{Parser, Subcommand};
use trunkline_bench::allocation_counter::CountingAllocator;
use trunkline_bench::{media, relay, setup};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

/// Measures Trunkline's daemons on this machine.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    measurement: Measurement,
}

#[derive(Subcommand)]
enum Measurement {
    /// Sessions that transcode, play, record, listen and confer
    Media(media::MediaArguments),
    /// RTP through one core of the edge, beside rtpengine
    Relay(relay::RelayArguments),
    /// Calls through both daemons with SIPp
    Setup(setup::SetupArguments),
}

fn main() -> Result<()> {
    match Arguments::parse().measurement {
        Measurement::Media(arguments) => media::measure(&arguments, &ALLOCATOR),
        Measurement::Relay(arguments) => relay::measure(&arguments),
        Measurement::Setup(arguments) => setup::measure(&arguments),
    }
}
