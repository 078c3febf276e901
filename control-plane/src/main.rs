//! `trunkline-control`: the daemon and the commands that operate it.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    // One provider for all of TLS, or whoever builds a configuration first would choose. It fails
    // only when there is one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    trunkline_control::cli::main(|config| trunkline_control::node::run(&config))
}
