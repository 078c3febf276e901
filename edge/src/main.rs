//! `trunkline-edge`: the daemon and its `status` and `doctor` commands.

#![forbid(unsafe_code)]

use std::io::{ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level::pipe};
use tracing_subscriber::EnvFilter;
use trunkline_edge::Edge;
use trunkline_edge::config::Settings;
use trunkline_edge::doctor::Doctor;
use trunkline_edge::status::Status;
use trunkline_edge_api::config::{EdgeDocument, LogFormat, NodeConfig, load_document};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Exit code for a configuration that cannot be used; systemd is told not to restart on it.
const EXIT_CONFIG: u8 = 2;

/// Trunkline's media edge: relays RTP and RTCP as trunkline-control tells it.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// The configuration file.
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/etc/trunkline/trunkline.toml",
        global = true
    )]
    config: PathBuf,
    /// Say whether the configuration can be used, and do nothing else.
    #[arg(long)]
    check_config: bool,
    #[command(subcommand)]
    command: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Say what the edge can do on this machine, and the command for what it cannot. Run it as the
    /// user that the edge runs as.
    Doctor {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show what a running edge counts. Works while control is down.
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (document, settings) = match load(&cli.config) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("trunkline-edge: {error:#}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let result = match cli.command {
        Some(Action::Doctor { json }) => return doctor(&document, &settings, json),
        Some(Action::Status { json }) => status(&settings, json),
        None if cli.check_config => {
            println!("{}: ok", cli.config.display());
            Ok(())
        }
        None => run(&document.node, &settings),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trunkline-edge: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn load(path: &Path) -> anyhow::Result<(EdgeDocument, Settings)> {
    let document: EdgeDocument = load_document(path)?;
    let settings = Settings::resolve(&document).with_context(|| path.display().to_string())?;
    Ok((document, settings))
}

fn status(settings: &Settings, json: bool) -> anyhow::Result<()> {
    let status = Status::read(&settings.socket_path)?;
    let text = if json {
        format!("{:#}\n", status.to_json())
    } else {
        status.to_text()
    };
    print(&text)
}

/// Fails when the edge would not start here, or calls would fail.
fn doctor(document: &EdgeDocument, settings: &Settings, json: bool) -> ExitCode {
    let doctor = Doctor::examine(document, settings);
    let text = if json {
        format!("{:#}\n", doctor.to_json())
    } else {
        doctor.to_text()
    };
    if let Err(error) = print(&text) {
        eprintln!("trunkline-edge: {error:#}");
        return ExitCode::FAILURE;
    }
    if doctor.is_broken() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // The reader has seen enough (`status | head`).
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot print"),
    }
}

fn run(node: &NodeConfig, settings: &Settings) -> anyhow::Result<()> {
    start_logging(node);
    let edge = Edge::start(settings)?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // The flag first: when the main thread wakes, it is set.
        flag::register(signal, Arc::clone(&stop)).context("cannot handle signals")?;
        pipe::register(signal, edge.waker()?).context("cannot handle signals")?;
    }
    Ok(edge.run(&stop)?)
}

fn start_logging(node: &NodeConfig) {
    // The configuration was checked; what is left are names of modules that do not exist.
    let filter = EnvFilter::try_new(&node.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let logger = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match node.log_format {
        LogFormat::Text => logger.init(),
        LogFormat::Json => logger.json().init(),
    }
}
