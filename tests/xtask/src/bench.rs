//! `cargo xtask bench`: measurements that leave a result file.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use crate::{packages, workspace};

#[derive(Args)]
pub(crate) struct BenchArguments {
    /// What to measure
    name: Measurement,
    /// Further arguments of the measurement
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Measurement {
    /// Time and allocations of rewriting one packet
    Rewrite,
    /// Forwarded packets per second and added latency of the real edge
    Relay,
    /// INVITE in → INVITE out at 50 calls per second through both daemons
    Setup,
}

pub(crate) fn bench(arguments: &BenchArguments) -> Result<ExitCode> {
    let mut command = workspace::cargo();
    match arguments.name {
        Measurement::Rewrite => {
            command.args(["bench", "-p", "trunkline-bench", "--bench", "rewrite"]);
        }
        Measurement::Relay | Measurement::Setup => {
            if matches!(arguments.name, Measurement::Setup) {
                packages::ensure()?;
            }
            build_release()?;
            command.args(["run", "--release", "-p", "trunkline-bench", "--"]);
            command.arg(match arguments.name {
                Measurement::Relay => "relay",
                _ => "setup",
            });
            command.args(&arguments.arguments);
        }
    }
    let status = command.status().context("cannot start cargo")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What is measured is what is shipped: optimised daemons.
fn build_release() -> Result<()> {
    let status = workspace::cargo()
        .args([
            "build",
            "--release",
            "-p",
            "trunkline-edge",
            "-p",
            "trunkline-control",
        ])
        .status()
        .context("cannot start cargo")?;
    anyhow::ensure!(status.success(), "the daemons do not build");
    Ok(())
}
