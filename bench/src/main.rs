//! `trunkline-bench`: the measurements that need running daemons. `cargo xtask bench` builds what
//! they need first.
#![forbid(unsafe_code)]

use anyhow::Result;
use clap::{Parser, Subcommand};
use trunkline_bench::{relay, setup};

/// Measures Trunkline's daemons on this machine.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    measurement: Measurement,
}

#[derive(Subcommand)]
enum Measurement {
    /// RTP through one core of the edge, beside rtpengine
    Relay(relay::RelayArguments),
    /// Calls through both daemons with SIPp
    Setup(setup::SetupArguments),
}

fn main() -> Result<()> {
    match Arguments::parse().measurement {
        Measurement::Relay(arguments) => relay::measure(&arguments),
        Measurement::Setup(arguments) => setup::measure(&arguments),
    }
}
