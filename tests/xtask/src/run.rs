//! `cargo xtask run`: both daemons with the demo site, until Ctrl-C.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use trunkline_testkit::daemons::Binaries;
use trunkline_testkit::http;
use trunkline_testkit::process::Process;
use trunkline_testkit::site::Site;

use crate::demo_site::{CARRIER, DemoDirectory, Running};
use crate::workspace;

/// Both daemons start in well under a second; a first start creates the store.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// How long a daemon may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(10);

#[derive(Args)]
pub(crate) struct RunArguments {
    /// Address for SIP and media; give the machine's own to reach it from other devices
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    address: IpAddr,
    /// Port for SIP over UDP and TCP
    #[arg(long, default_value_t = 5060)]
    sip_port: u16,
    /// Port for /metrics, /healthz and /readyz, on 127.0.0.1
    #[arg(long, default_value_t = 8080)]
    http_port: u16,
    /// UDP ports for media
    #[arg(long, default_value = "30000-39999")]
    media_ports: String,
}

pub(crate) fn run(arguments: &RunArguments) -> Result<ExitCode> {
    let directory = DemoDirectory::locate()?;
    let sip = SocketAddr::new(arguments.address, arguments.sip_port);
    let http = SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.http_port));
    check_no_other(&directory)?;
    check_ports(sip, http)?;

    println!("building both daemons …");
    workspace::build_daemons()?;
    let binaries = Binaries::find()?;
    let site = directory.write(sip, http, &arguments.media_ports)?;

    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(serve(&directory, &binaries, &site, sip, http))
}

async fn serve(
    directory: &DemoDirectory,
    binaries: &Binaries,
    site: &Site,
    sip: SocketAddr,
    http: SocketAddr,
) -> Result<ExitCode> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;

    let mut edge = spawn("trunkline-edge", &binaries.edge, directory)?;
    let mut control = spawn("trunkline-control", &binaries.control, directory)?;
    wait_ready(&mut edge, &mut control, http)?;
    apply(&binaries.control, directory)?;
    directory.write_running(&Running {
        sip,
        http,
        daemons: [edge.id(), control.id()],
        members: directory.entries(site),
    })?;
    greet(directory, site, sip, http);

    let failed = loop {
        tokio::select! {
            _ = interrupt.recv() => break None,
            _ = terminate.recv() => break None,
            () = tokio::time::sleep(Duration::from_millis(200)) => {
                if let Some(what) = ended(&mut edge, &mut control)? {
                    break Some(what);
                }
            }
        }
    };
    directory.remove_running();
    if failed.is_none() {
        println!("\nstopping …");
    }
    // Control first: it ends its calls while the edge still answers.
    let stopped = [
        ("trunkline-control", control.terminate(STOP_LIMIT)?),
        ("trunkline-edge", edge.terminate(STOP_LIMIT)?),
    ];
    if let Some(what) = failed {
        bail!("{what}; both are stopped now");
    }
    for (name, status) in stopped {
        if !status.success() {
            bail!(
                "{name} stopped with {status}; see {}",
                directory.log(name).display()
            );
        }
    }
    println!("both daemons are stopped");
    Ok(ExitCode::SUCCESS)
}

/// A group of its own keeps the terminal's Ctrl-C from the daemons, so that they are stopped in
/// order.
fn spawn(name: &str, binary: &Path, directory: &DemoDirectory) -> Result<Process> {
    let log = directory.log(name);
    std::fs::write(&log, "")?;
    Process::spawn(
        name,
        Command::new(binary)
            .arg("--config")
            .arg(directory.config())
            .process_group(0),
        &log,
    )
}

fn wait_ready(edge: &mut Process, control: &mut Process, http: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + READY_LIMIT;
    loop {
        if let Some(what) = ended(edge, control)? {
            bail!("{what}");
        }
        if matches!(http::get(http, "/readyz"), Ok((200, _))) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!(
                "http://{http}/readyz was not 200 within {READY_LIMIT:?}\n{}\n{}",
                edge.output(),
                control.output()
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn ended(edge: &mut Process, control: &mut Process) -> Result<Option<String>> {
    for (name, process) in [("trunkline-edge", edge), ("trunkline-control", control)] {
        if let Some(status) = process.try_wait()? {
            return Ok(Some(format!(
                "{name} ended by itself with {status}:\n{}",
                process.output()
            )));
        }
    }
    Ok(None)
}

fn apply(control: &Path, directory: &DemoDirectory) -> Result<()> {
    let output = Command::new(control)
        .arg("--config")
        .arg(directory.config())
        .arg("apply")
        .arg(directory.path().join("site.toml"))
        .output()
        .context("cannot start trunkline-control apply")?;
    if !output.status.success() {
        bail!(
            "the demo site was not applied:\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// Two runs would share one directory and its store.
fn check_no_other(directory: &DemoDirectory) -> Result<()> {
    let Some(running) = directory.read_running() else {
        return Ok(());
    };
    for (name, id) in ["trunkline-edge", "trunkline-control"]
        .into_iter()
        .zip(running.daemons)
    {
        // An id alone may have been given to another program since.
        let command = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&command).contains(name) {
            bail!(
                "an earlier `cargo xtask run` is still there ({name} is process {id}); stop it first"
            );
        }
    }
    Ok(())
}

/// Says which ports are taken, and by what option each is changed.
fn check_ports(sip: SocketAddr, http: SocketAddr) -> Result<()> {
    let taken = [
        ("UDP", sip, "--sip-port", UdpSocket::bind(sip).map(drop)),
        ("TCP", sip, "--sip-port", TcpListener::bind(sip).map(drop)),
        (
            "TCP",
            http,
            "--http-port",
            TcpListener::bind(http).map(drop),
        ),
    ];
    let mut problems: Vec<String> = Vec::new();
    for (protocol, address, option, result) in taken {
        if let Err(error) = result {
            problems.push(format!(
                "{protocol} {address}: {error}; choose another with `{option}`"
            ));
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    bail!("{}", problems.join("\n       "))
}

fn greet(directory: &DemoDirectory, site: &Site, sip: SocketAddr, http: SocketAddr) {
    println!("\nTrunkline is up.\n");
    println!("  SIP          {sip} (UDP and TCP)");
    println!("  metrics      http://{http}/metrics");
    println!("  health       http://{http}/healthz   http://{http}/readyz");
    println!("  logs         {}", directory.log("trunkline-*").display());
    println!("  files        {}", directory.path().display());
    println!("\n  Hear it without a phone, in another terminal:  cargo xtask demo\n");
    println!("  Or register softphones (any two of them can call each other). Passwords are in");
    println!("  {}\n", directory.credentials().display());
    println!("    user     dial             or the DID");
    for member in &site.members {
        println!(
            "    {:8} {:16} {}",
            member.user, member.extension, member.did
        );
    }
    println!("\n  The demo carrier is whoever calls a DID from {CARRIER}, for instance SIPp:");
    println!("    sipp {sip} -sn uac -s +15550100101 -i {CARRIER} -m 1\n");
    println!("  Ctrl-C stops both daemons.");
}
