//! Call setup through both daemons: SIPp calls, SIPp answers, and the wire says how long an
//! INVITE takes from one side to the other.
//!
//! The times are the kernel's, from a capture on loopback, so neither SIPp's nor this program's
//! own delays are in them. An INVITE that leaves is paired with the one that came in by its
//! calling number, which every call has for itself.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use rustix::process::Signal;
use serde_json::json;
use trunkline_testkit::daemons::Daemons;
use trunkline_testkit::phone::PhoneConfig;
use trunkline_testkit::process::Process;
use trunkline_testkit::sipp::Sipp;
use trunkline_testkit::site::{Member, Site};

use crate::quantiles::Quantiles;
use crate::report::Report;

mod capture;

/// Promise of `docs/SPECIFICATION.md`: INVITE in → INVITE out, 99 of 100 calls, on loopback.
const TARGET_P99_MS: f64 = 2.0;

/// Media port of SIPp's first call; each call names one four higher. Well below the edge's ports,
/// which no party may name.
const SDP_PORT_FIRST: u16 = 2_000;

/// How many calls, how fast.
#[derive(Args)]
pub struct SetupArguments {
    /// Calls per second
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100))]
    rate: u32,
    /// Seconds of calling
    #[arg(long, default_value_t = 20)]
    seconds: u32,
}

/// Runs the calls and publishes `bench/results/setup.*`.
pub fn measure(arguments: &SetupArguments) -> Result<()> {
    let mut daemons = Daemons::start(Site::with_members(vec![Member::numbered(0)]))?;
    let work = daemons.path().join("bench");
    fs::create_dir_all(&work)?;
    let capture_file = work.join("signalling.pcap");
    let mut capture = start_capture(&capture_file, daemons.sip())?;
    let result = call(arguments, &mut daemons, &work);
    // Let the last packets reach the file.
    std::thread::sleep(Duration::from_millis(500));
    capture.signal(Signal::INT)?;
    capture.wait(Duration::from_secs(10))?;
    result?;

    let capture = fs::read(&capture_file)
        .with_context(|| format!("tcpdump wrote nothing: {}", capture.output()))?;
    let invites = capture::invites(&capture)?;
    let mut arrived: HashMap<&str, f64> = HashMap::new();
    let mut setup_ms = Vec::new();
    let mut repeated = 0;
    let mut seen_out: HashMap<&str, ()> = HashMap::new();
    for invite in &invites {
        if invite.to == daemons.sip() {
            if arrived.contains_key(invite.caller.as_str()) {
                repeated += 1;
            } else {
                arrived.insert(&invite.caller, invite.at);
            }
        } else if invite.from == daemons.sip()
            && seen_out.insert(&invite.caller, ()).is_none()
            && let Some(came) = arrived.get(invite.caller.as_str())
        {
            setup_ms.push((invite.at - came) * 1e3);
        }
    }
    let calls = arguments.rate * arguments.seconds;
    let quantiles = Quantiles::of(setup_ms).context("no INVITE of a call was seen twice")?;
    ensure!(
        quantiles.count == calls as usize,
        "{} of {calls} calls were seen on both sides",
        quantiles.count
    );
    let mut report = Report::new(
        "setup",
        "Call setup: INVITE in → INVITE out through both daemons, loopback",
        &[
            "calls/s",
            "calls",
            "failed",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "largest ms",
        ],
    );
    report.rows.push(vec![
        json!(arguments.rate),
        json!(calls),
        json!(0),
        json!(quantiles.p50),
        json!(quantiles.p99),
        json!(quantiles.p999),
        json!(quantiles.max),
    ]);
    let verdict = if quantiles.p99 <= TARGET_P99_MS {
        "met"
    } else {
        "missed"
    };
    report.findings.push(format!(
        "target p99 ≤ {TARGET_P99_MS} ms: {verdict}; INVITEs that came in again: {repeated}"
    ));
    report.method = vec![
        format!(
            "SIPp 3.6 calls a DID {} times a second for {} s, SIPp answers as a member's phone; every call lasts a second and ends with BYE; both SIPps must report no failed call.",
            arguments.rate, arguments.seconds
        ),
        "Times from a capture on loopback (kernel time stamps): arrival of the INVITE at Trunkline's socket to its INVITE to the phone, paired by the calling number. Media ports are bound in between, over the ring, by the edge.".to_owned(),
        "Two workers, SQLite store, default configuration; the machine also runs both SIPps.".to_owned(),
    ];
    report.publish()
}

fn call(arguments: &SetupArguments, daemons: &mut Daemons, work: &Path) -> Result<()> {
    let member = daemons.member(0)?.clone();
    let phone = SocketAddr::from(([127, 0, 0, 1], daemons.next_port()?));
    let carrier = SocketAddr::from(([127, 0, 0, 2], daemons.next_port()?));
    let mut config = PhoneConfig::udp(&member.user, daemons.sip()).with_password(&member.password);
    config.port = phone.port();
    drop(daemons.registered(config)?);

    let parts = parts_directory();
    let calls = arguments.rate * arguments.seconds;
    let limit = Duration::from_secs(u64::from(arguments.seconds) + 60);
    let mut callee = Sipp::new(
        "callee",
        &parts.join("callee-is-hung-up-on.xml"),
        phone,
        SDP_PORT_FIRST,
        daemons.sip(),
    );
    callee.calls = calls;
    callee.limit = limit;
    let mut caller = Sipp::new(
        "caller",
        &parts.join("caller-hangs-up.xml"),
        carrier,
        SDP_PORT_FIRST,
        daemons.sip(),
    );
    caller.calls = calls;
    caller.rate = arguments.rate;
    caller.limit = limit;
    caller.keys.push(("dial".to_owned(), member.did));
    let callee = callee.spawn(work)?;
    std::thread::sleep(Duration::from_millis(500));
    let caller = caller.spawn(work)?;
    caller.grade()?;
    callee.grade()
}

fn parts_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/sipp/parts")
}

fn start_capture(file: &Path, sip: SocketAddr) -> Result<Process> {
    let log = file.with_extension("log");
    let process = Process::spawn(
        "tcpdump",
        Command::new("tcpdump")
            .args([
                "-i",
                "lo",
                "-n",
                "-U",
                "--immediate-mode",
                "-B",
                "16384",
                "-s",
                "1024",
                "-w",
            ])
            .arg(file)
            .arg(format!("udp and port {}", sip.port())),
        &log,
    )
    .context("the capture needs tcpdump (Debian package tcpdump) and root")?;
    for _ in 0..100 {
        if process.output().contains("listening on") {
            return Ok(process);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    anyhow::bail!(
        "tcpdump does not capture (root is needed): {}",
        process.output()
    )
}
