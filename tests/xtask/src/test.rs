//! `cargo xtask test`: everything CI runs.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;

use crate::table::Table;
use crate::{packages, steps, workspace};

#[derive(Args)]
pub(crate) struct TestArguments {
    /// Only these steps (`--list` names them)
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
    /// Name the steps and end
    #[arg(long)]
    list: bool,
}

/// One step: a name, what it is for, and the command.
struct Step {
    name: &'static str,
    what: &'static str,
    command: fn() -> Result<Command>,
}

const STEPS: [Step; 7] = [
    Step {
        name: "fmt",
        what: "formatting",
        command: || Ok(cargo(&["fmt", "--all", "--check"])),
    },
    Step {
        name: "clippy",
        what: "lints, no warning allowed",
        command: || {
            Ok(cargo(&[
                "clippy",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ]))
        },
    },
    Step {
        name: "build",
        what: "both daemons, for the system tests",
        command: || {
            Ok(cargo(&[
                "build",
                "-p",
                "trunkline-edge",
                "-p",
                "trunkline-control",
            ]))
        },
    },
    Step {
        name: "unit",
        what: "tests of every crate",
        command: || {
            Ok(cargo(&[
                "test",
                "--workspace",
                "--exclude",
                "trunkline-tests",
                "--no-fail-fast",
            ]))
        },
    },
    Step {
        name: "system",
        what: "real daemons, real sockets, SIPp",
        command: || Ok(cargo(&["test", "-p", "trunkline-tests", "--no-fail-fast"])),
    },
    Step {
        name: "loom",
        what: "every interleaving of the ring's queue",
        command: loom,
    },
    Step {
        name: "doc",
        what: "documentation, no warning allowed",
        command: || {
            let mut command = cargo(&["doc", "--workspace", "--no-deps"]);
            command.env("RUSTDOCFLAGS", "-D warnings");
            Ok(command)
        },
    },
];

pub(crate) fn test(arguments: &TestArguments) -> Result<ExitCode> {
    if arguments.list {
        for step in &STEPS {
            println!("{:8} {}", step.name, step.what);
        }
        return Ok(ExitCode::SUCCESS);
    }
    for name in &arguments.only {
        if !STEPS.iter().any(|step| step.name == name) {
            bail!("there is no step {name}; `cargo xtask test --list` names them");
        }
    }
    let chosen: Vec<&Step> = STEPS
        .iter()
        .filter(|step| arguments.only.is_empty() || arguments.only.iter().any(|n| n == step.name))
        .collect();

    let started = Instant::now();
    let mut table = Table::new(&["step", "passed", "failed", "time"]);
    let (mut passed, mut failed) = (0, 0);
    for (index, step) in chosen.iter().enumerate() {
        println!(
            "\n=== {}/{} {}: {}",
            index + 1,
            chosen.len(),
            step.name,
            step.what
        );
        let outcome = run_step(step);
        println!(
            "=== {}: {} passed, {} failed, {}",
            step.name,
            outcome.passed,
            outcome.failed,
            clock(outcome.spent)
        );
        passed += outcome.passed;
        failed += outcome.failed;
        table.row(&[
            step.name.to_owned(),
            outcome.passed.to_string(),
            outcome.failed.to_string(),
            clock(outcome.spent),
        ]);
    }
    println!("\n{table}\ntotal time {}", clock(started.elapsed()));
    println!("{passed} passed, {failed} failed");
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A step that cannot even begin has failed once.
fn run_step(step: &Step) -> steps::Outcome {
    let prepared = match step.name {
        "fmt" => Ok(()),
        "system" => packages::ensure(&[packages::SIPP, packages::TCPDUMP]),
        _ => packages::ensure(&packages::LIBOPUS),
    };
    prepared
        .and_then(|()| (step.command)())
        .and_then(|mut command| steps::run(&mut command))
        .unwrap_or_else(|error| {
            println!("error: {error:#}");
            steps::Outcome {
                passed: 0,
                failed: 1,
                spent: Duration::ZERO,
            }
        })
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = workspace::cargo();
    command.args(arguments);
    command
}

/// `--cfg loom` changes every crate's build, so it has a target directory of its own.
fn loom() -> Result<Command> {
    let mut command = cargo(&["test", "-p", "trunkline-ring", "--test", "loom"]);
    command
        .env("RUSTFLAGS", "--cfg loom")
        .env("CARGO_TARGET_DIR", workspace::target_dir()?.join("loom"));
    Ok(command)
}

fn clock(spent: Duration) -> String {
    let seconds = spent.as_secs_f64();
    if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        format!(
            "{:.0} min {:02.0} s",
            (seconds / 60.0).floor(),
            seconds % 60.0
        )
    }
}
