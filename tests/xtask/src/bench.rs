//! `cargo xtask bench`: measurements that leave a result file.

use std::process::{Command, ExitCode};

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
    /// Transcoding both directions of a call, by pair of codecs
    Codec,
    /// Conferences from packets in memory to packets in memory
    Conference,
    /// Making and hearing tones, digits and speech
    Dtmf,
    /// Sessions that transcode, play, record, listen and confer through the real edge, beside
    /// rtpengine, and in memory
    Media,
    /// Time and allocations of rewriting one packet
    Rewrite,
    /// Protecting and opening one SRTP packet
    Srtp,
    /// Forwarded packets per second and latency of the real edge beside rtpengine
    Relay,
    /// INVITE in → INVITE out at 50 calls per second through both daemons
    Setup,
}

pub(crate) fn bench(arguments: &BenchArguments) -> Result<ExitCode> {
    let mut command = workspace::cargo();
    match arguments.name {
        Measurement::Codec => criterion(&mut command, "codec"),
        Measurement::Conference => criterion(&mut command, "conference"),
        Measurement::Dtmf => criterion(&mut command, "dtmf"),
        Measurement::Rewrite => criterion(&mut command, "rewrite"),
        Measurement::Srtp => criterion(&mut command, "srtp"),
        Measurement::Media => {
            packages::ensure(&[packages::IPROUTE, packages::CLANG])?;
            ensure_peer()?;
            measure(&mut command, "media", &arguments.arguments)?;
        }
        Measurement::Relay => {
            packages::ensure(&[packages::IPROUTE, packages::CLANG])?;
            ensure_peer()?;
            measure(&mut command, "relay", &arguments.arguments)?;
        }
        Measurement::Setup => {
            packages::ensure(&[packages::SIPP, packages::TCPDUMP])?;
            measure(&mut command, "setup", &arguments.arguments)?;
        }
    }
    let status = command.status().context("cannot start cargo")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Completes `command` to a measurement in memory.
fn criterion(command: &mut Command, name: &str) {
    command.args(["bench", "-p", "trunkline-bench", "--bench", name]);
}

/// The peer's package comes with a service, which would share the cores with what is measured: it
/// is switched off when this installs it.
fn ensure_peer() -> Result<()> {
    if packages::RTPENGINE.is_installed() {
        return Ok(());
    }
    packages::ensure(&[packages::RTPENGINE])?;
    // Fails where no systemd runs, and then no service does.
    let _ = Command::new("systemctl")
        .args(["disable", "--now", "rtpengine-daemon.service"])
        .output();
    Ok(())
}

/// Completes `command` to a measurement of daemons. What is measured is what is shipped, so they
/// are built optimised first.
fn measure(command: &mut Command, name: &str, arguments: &[String]) -> Result<()> {
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
    command.args(["run", "--release", "-p", "trunkline-bench", "--", name]);
    command.args(arguments);
    Ok(())
}
