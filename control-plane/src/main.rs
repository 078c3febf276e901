//! `trunkline-control`: the daemon and the commands that operate it.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    trunkline_control::cli::main(|config| trunkline_control::node::run(&config))
}
