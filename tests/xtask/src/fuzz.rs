//! `cargo xtask fuzz`: libFuzzer on the targets of `tests/fuzz`, for as long as one likes.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::workspace;

/// How long each target runs when nothing else is said.
const SECONDS_DEFAULT: u32 = 60;

#[derive(Args)]
pub(crate) struct FuzzArguments {
    /// Only this target: a directory name of tests/fuzz/seeds
    target: Option<String>,
    /// Seconds per target
    #[arg(long, default_value_t = SECONDS_DEFAULT)]
    seconds: u32,
}

/// Each target begins with its seeds and regressions; what it learns stays in the target
/// directory. Ends at the first input that breaks one and says where it is.
pub(crate) fn fuzz(arguments: &FuzzArguments) -> Result<ExitCode> {
    require_cargo_fuzz()?;
    let directory = workspace::root().join("tests/fuzz");
    let known = targets(&directory)?;
    let chosen = match &arguments.target {
        None => known,
        Some(target) if known.contains(target) => vec![target.clone()],
        Some(target) => bail!(
            "there is no target {target}; there are {}",
            known.join(", ")
        ),
    };
    for target in chosen {
        println!("=== {target}: {} s", arguments.seconds);
        let learnt = workspace::target_dir()?.join("fuzz-corpus").join(&target);
        std::fs::create_dir_all(&learnt)?;
        let status = run(&directory, &target, &learnt, arguments.seconds)?;
        if !status {
            println!(
                "{target} broke. Keep the input as tests/fuzz/regressions/{target}/<what-was-wrong>."
            );
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn run(directory: &Path, target: &str, learnt: &Path, seconds: u32) -> Result<bool> {
    let mut command = workspace::cargo();
    // Without a sanitizer it runs on the stable compiler; nothing here is unsafe code of ours but
    // the ring, which the loom and garbage tests cover.
    command
        .args([
            "fuzz",
            "run",
            "-s",
            "none",
            "--dev",
            "--features",
            "libfuzzer",
        ])
        .arg("--fuzz-dir")
        .arg(directory)
        .arg(target)
        .arg(learnt);
    for kind in ["seeds", "regressions"] {
        let inputs = directory.join(kind).join(target);
        if inputs.is_dir() {
            command.arg(inputs);
        }
    }
    command
        .arg("--")
        .arg(format!("-max_total_time={seconds}"))
        .args(["-max_len=4096", "-timeout=10", "-rss_limit_mb=1024"]);
    let status = command.status().context("cannot start cargo fuzz")?;
    Ok(status.success())
}

/// The targets, by name.
fn targets(directory: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(directory.join("seeds"))?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn require_cargo_fuzz() -> Result<()> {
    let found = workspace::cargo()
        .args(["fuzz", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        bail!(
            "cargo-fuzz is not installed: `cargo install cargo-fuzz`, and g++ for libFuzzer \
             (Debian: apt-get install g++). `cargo test -p trunkline-tests --test fuzz_replay` \
             plays the seeds without it"
        );
    }
    if Command::new("c++").arg("--version").output().is_err() {
        bail!("no C++ compiler for libFuzzer. Debian and Ubuntu: apt-get install g++");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_with_seeds_has_a_program() {
        let directory = workspace::root().join("tests/fuzz");
        let targets = targets(&directory).unwrap();
        assert!(targets.len() >= 9, "{targets:?}");
        for target in targets {
            let program = directory.join("fuzz_targets").join(format!("{target}.rs"));
            assert!(program.is_file(), "{}", program.display());
        }
    }
}
