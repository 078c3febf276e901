//! Runs a directory under `tests/sipp/` against real daemons and grades every party.
//!
//! A case is a `case.toml` and the scenarios it names, relative to it:
//!
//! ```toml
//! what = "A carrier's call reaches a member's phone; the caller hangs up"
//! ring_timeout_secs = 2        # of the configuration, 30 when absent
//! availability = "offline"     # of every member, "online" when absent
//! registered = [0]             # members with a registered phone that is never rung
//! relays_every_packet = true   # the edge must have relayed RTP and dropped none
//! known_gap = "why"            # the case must fail; when it passes, this line must go
//!
//! [[party]]                    # started in this order
//! name = "callee"
//! scenario = "../../parts/callee-is-hung-up-on.xml"
//! register = 0                 # member whose phone this is; registered before the party starts
//!
//! [[party]]
//! name = "caller"
//! scenario = "caller.xml"
//! from = "127.0.0.2"           # 127.0.0.1 when absent; the site's trunk is 127.0.0.2
//! dial = 0                     # member whose DID is [dial]; or dial_number = "+1…"
//! member = 0                   # member whose user and password [authentication] answers with
//! calls = 100                  # 1 when absent
//! rate = 25                    # calls per second, 10 when absent
//! tcp = true                   # UDP when absent
//! speech = true                # caller.ulaw and callee.ulaw are at hand for rtp_stream
//! ```

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use trunkline_testkit::daemons::Daemons;
use trunkline_testkit::phone::{Phone, PhoneConfig};
use trunkline_testkit::sipp::{Running, Sipp};
use trunkline_testkit::site::{Availability, Member, Site};

/// How long a party may take beyond the time its calls are spread over.
const PARTY_LIMIT: Duration = Duration::from_secs(45);
/// How long the daemons may take to forget the calls of a case.
const IDLE_LIMIT: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    what: String,
    ring_timeout_secs: Option<u32>,
    #[serde(default)]
    availability: CaseAvailability,
    #[serde(default)]
    registered: Vec<usize>,
    #[serde(default)]
    relays_every_packet: bool,
    known_gap: Option<String>,
    party: Vec<Party>,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum CaseAvailability {
    #[default]
    Online,
    Busy,
    Offline,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Party {
    name: String,
    scenario: PathBuf,
    #[serde(default = "loopback")]
    from: IpAddr,
    register: Option<usize>,
    member: Option<usize>,
    dial: Option<usize>,
    dial_number: Option<String>,
    #[serde(default = "one")]
    calls: u32,
    #[serde(default = "ten")]
    rate: u32,
    #[serde(default)]
    tcp: bool,
    #[serde(default)]
    speech: bool,
}

fn loopback() -> IpAddr {
    Ipv4Addr::LOCALHOST.into()
}

const fn one() -> u32 {
    1
}

const fn ten() -> u32 {
    10
}

/// `tests/sipp`.
#[must_use]
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sipp")
}

/// Runs the case `feature/case`. The error says which party failed and why, and where the
/// daemons' and SIPp's logs are kept.
pub fn run(name: &str) -> Result<()> {
    let directory = directory().join(name);
    let file = directory.join("case.toml");
    let text =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let case: Case = toml::from_str(&text).with_context(|| file.display().to_string())?;

    let mut daemons = start(&case)?;
    let result = play(&case, &directory, &mut daemons);
    if let Some(gap) = &case.known_gap {
        ensure!(
            result.is_err(),
            "{name} passes: remove known_gap = {gap:?} from its case.toml"
        );
        return Ok(());
    }
    result.map_err(|error| {
        let logs = daemons.logs();
        error.context(format!(
            "{name}: {}\n(artefacts: {})\n{logs}",
            case.what,
            daemons.keep().display()
        ))
    })
}

fn start(case: &Case) -> Result<Daemons> {
    let availability = match case.availability {
        CaseAvailability::Online => Availability::Online,
        CaseAvailability::Busy => Availability::Busy,
        CaseAvailability::Offline => Availability::Offline,
    };
    let members = vec![Member::numbered(0).with_availability(availability)];
    Daemons::start_with(Site::with_members(members), |node| {
        if let Some(secs) = case.ring_timeout_secs {
            node.ring_timeout_secs = secs;
        }
    })
}

fn play(case: &Case, directory: &Path, daemons: &mut Daemons) -> Result<()> {
    let work = daemons.path().join("sipp");
    fs::create_dir_all(&work)?;
    let _quiet_phones: Vec<Phone> = case
        .registered
        .iter()
        .map(|member| daemons.member_phone(*member))
        .collect::<Result<_>>()?;

    let mut running = Vec::new();
    for party in &case.party {
        running.push(begin(party, directory, &work, daemons)?);
    }
    // The last party is the one that makes the calls; the others end because of it.
    let mut failures: Vec<String> = Vec::new();
    for party in running.into_iter().rev() {
        if let Err(error) = party.grade() {
            failures.push(format!("{error:#}"));
        }
    }
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    daemons.check_alive()?;
    wait_idle(daemons, IDLE_LIMIT)?;
    if case.relays_every_packet {
        check_relay(daemons)?;
    }
    Ok(())
}

fn begin(party: &Party, directory: &Path, work: &Path, daemons: &mut Daemons) -> Result<Running> {
    let local = SocketAddr::new(party.from, daemons.next_port()?);
    let media_port = daemons.next_port()?;
    if let Some(member) = party.register {
        // From the socket address that SIPp will have: a registrar may trust the Contact or the
        // source.
        let member = daemons.member(member)?;
        let mut config =
            PhoneConfig::udp(&member.user, daemons.sip()).with_password(&member.password);
        config.local = local.ip();
        config.port = local.port();
        drop(daemons.registered(config)?);
    }
    let mut sipp = Sipp::new(
        &party.name,
        &directory.join(&party.scenario),
        local,
        media_port,
        daemons.sip(),
    );
    sipp.tcp = party.tcp;
    sipp.calls = party.calls;
    sipp.rate = party.rate;
    sipp.limit = PARTY_LIMIT + Duration::from_secs(u64::from(party.calls / party.rate));
    if let Some(member) = party.member.or(party.register) {
        let member = daemons.member(member)?;
        sipp.arguments
            .extend(["-au", &member.user, "-ap", &member.password].map(str::to_owned));
    }
    let dial = match (party.dial, &party.dial_number) {
        (Some(member), _) => Some(daemons.member(member)?.did.clone()),
        (None, number) => number.clone(),
    };
    if let Some(dial) = dial {
        sipp.keys.push(("dial".to_owned(), dial));
    }
    if party.speech {
        let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/speech");
        for name in ["caller.ulaw", "callee.ulaw"] {
            fs::copy(vectors.join(name), work.join(name))?;
        }
    }
    let mut running = sipp.spawn(work)?;
    if !party.tcp {
        wait_bound(local, &mut running)?;
    }
    Ok(running)
}

/// Waits until SIPp listens; a party that ended already is graded later.
fn wait_bound(local: SocketAddr, running: &mut Running) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while UdpSocket::bind(local).is_ok() {
        if running.has_ended()? {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "SIPp did not bind {local}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Waits until no call is left: every way a call can end clears it on both planes.
pub fn wait_idle(daemons: &Daemons, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        let page = daemons.metrics()?;
        let left = |name| trunkline_testkit::http::metric(&page, name, &[]).unwrap_or(0.0);
        let (calls, sessions) = (
            left("trunkline_calls_active"),
            left("trunkline_sessions_active"),
        );
        if calls == 0.0 && sessions == 0.0 {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "{limit:?} after the last party ended {calls} calls and {sessions} media sessions are left"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// RTP went in, all of it went out.
fn check_relay(daemons: &Daemons) -> Result<()> {
    let packets =
        |direction| daemons.metric("trunkline_rtp_packets_total", &[("direction", direction)]);
    let received = packets("in")?;
    ensure!(received > 0.0, "no RTP packet reached the edge");
    daemons.wait_metric(
        "trunkline_rtp_packets_total",
        &[("direction", "out")],
        received,
    )?;
    daemons.wait_metric("trunkline_rtp_dropped_packets_total", &[], 0.0)
}
