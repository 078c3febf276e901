//! What a builder runs. `cargo xtask` alone lists it.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod demo;
mod demo_site;
mod fuzz;
mod packages;
mod run;
mod steps;
mod table;
mod test;
mod workspace;

/// Builds, runs, shows, tests and measures Trunkline from a checkout.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    arg_required_else_help = true
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build both daemons, start them with the demo site and stay until Ctrl-C
    Run(run::RunArguments),
    /// Place one real call through the daemons that `run` started and show what each side heard
    Demo(demo::DemoArguments),
    /// Everything CI runs: formatting, lints, all tests, loom, system tests, documentation
    Test(test::TestArguments),
    /// Measure: `media`, `rewrite`, `relay` or `setup`; writes bench/results/
    Bench(bench::BenchArguments),
    /// Look for inputs that break a parser; `test` replays what was found before
    Fuzz(fuzz::FuzzArguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Run(arguments) => run::run(&arguments),
        Task::Demo(arguments) => demo::demo(&arguments),
        Task::Test(arguments) => test::test(&arguments),
        Task::Bench(arguments) => bench::bench(&arguments),
        Task::Fuzz(arguments) => fuzz::fuzz(&arguments),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
