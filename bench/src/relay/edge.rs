//! The edge under test: a process with one worker, and control's end of its ring.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command as ProcessCommand;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use trunkline_edge_api::command::CorrelatedCommand;
use trunkline_edge_api::{
    ClockRateHz, Command, Correlation, Epoch, Event, LegConfig, LegIndex, LocalMedia,
    MediaDirection, MediaTimeouts, PayloadRoute, PayloadRoutes, PayloadType, RtcpMode, SessionId,
    SourcePolicy, Ssrc,
};
use trunkline_ring::handshake::ControlConnection;
use trunkline_ring::{ControlEnd, SendError, monotonic_now};
use trunkline_testkit::daemons::Binaries;
use trunkline_testkit::process::Process;

/// Control's life as this program plays it.
const EPOCH: Epoch = Epoch(1);
/// Room for 4,000 calls of four ports, below the kernel's ephemeral ports.
const PORTS: &str = "12000-27999";
/// Longest wait for the edge to listen, and for it to answer commands.
const LIMIT: Duration = Duration::from_secs(20);
/// `USER_HZ`, in which /proc counts CPU time: 100 on every Linux that Trunkline runs on.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) struct EdgeUnderTest {
    process: Process,
    connection: ControlConnection,
    end: ControlEnd,
    ip: IpAddr,
    next_correlation: u64,
    _directory: tempfile::TempDir,
}

impl EdgeUnderTest {
    pub(super) fn start(binaries: &Binaries, ip: IpAddr) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("trunkline-bench-")
            .tempdir()?;
        let path = directory.path();
        let config = path.join("trunkline.toml");
        fs::write(
            &config,
            format!(
                "[node]\nrun_dir = \"{0}\"\nstate_dir = \"{0}\"\n\n[edge]\nworkers = 1\nmedia_addresses = [\"{ip}\"]\nports = \"{PORTS}\"\n",
                path.display()
            ),
        )?;
        let mut process = Process::spawn(
            "trunkline-edge",
            ProcessCommand::new(&binaries.edge)
                .arg("--config")
                .arg(&config),
            &path.join("edge.log"),
        )?;
        let (connection, mut ends) = connect(&path.join("edge.sock"), &mut process)?;
        let end = ends.pop().context("the edge has no worker")?;
        Ok(Self {
            process,
            connection,
            end,
            ip,
            next_correlation: 1,
            _directory: directory,
        })
    }

    /// Opens `count` calls whose both peers are `peer` and returns the edge's media addresses,
    /// those of one call side by side.
    pub(super) fn open_calls(&mut self, count: u32, peer: SocketAddr) -> Result<Vec<SocketAddr>> {
        let ports: Vec<u16> = self.end.ports().pairs().take(2 * count as usize).collect();
        ensure!(
            ports.len() == 2 * count as usize,
            "the port range holds only {} legs",
            ports.len()
        );
        let mut addresses = Vec::with_capacity(ports.len());
        for (serial, pair) in (0u32..).zip(ports.chunks_exact(2)) {
            let session = SessionId::new(EPOCH, serial);
            for (leg, port) in LegIndex::ALL.into_iter().zip(pair) {
                let rtp = SocketAddr::new(self.ip, *port);
                addresses.push(rtp);
                self.command(Command::OpenLeg {
                    session,
                    leg,
                    local: LocalMedia {
                        rtp,
                        rtcp: RtcpMode::Muxed,
                        ssrc: Ssrc(u32::from(*port)),
                    },
                })?;
            }
            for leg in LegIndex::ALL {
                self.command(Command::ConfigureLeg {
                    session,
                    leg,
                    config: relay_pcmu(peer),
                })?;
            }
        }
        Ok(addresses)
    }

    /// Sends a command and waits for its answer.
    fn command(&mut self, command: Command) -> Result<()> {
        let correlation = Correlation(self.next_correlation);
        self.next_correlation += 1;
        let command = CorrelatedCommand {
            correlation,
            command,
        };
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.end.send_command(&command) {
                Ok(()) => break,
                Err(SendError::Full) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error.into()),
            }
        }
        loop {
            match self.end.recv_event()? {
                Some(Event::CommandDone {
                    correlation: answered,
                    result,
                }) if answered == correlation => {
                    return result
                        .with_context(|| format!("the edge refused {:?}", command.command));
                }
                Some(_) => {}
                None => {
                    ensure!(Instant::now() < deadline, "the edge did not answer");
                    std::thread::sleep(Duration::from_micros(50));
                }
            }
        }
    }

    /// Beats, reads what the edge said, and notices when it is gone.
    pub(super) fn keep_in_touch(&mut self) -> Result<()> {
        if self.connection.has_hung_up() {
            bail!("the edge ended:\n{}", self.process.output());
        }
        self.end.beat(monotonic_now());
        while let Some(event) = self.end.recv_event()? {
            if let Event::SessionClosed { cause, .. } = event {
                bail!("the edge closed a session: {cause:?}");
            }
        }
        Ok(())
    }

    /// User and system time of the process so far.
    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        // The command name, in parentheses, may hold spaces; utime and stime are the 12th and
        // 13th fields after it.
        let (_, fields) = stat
            .rsplit_once(')')
            .context("/proc/<pid>/stat has no name")?;
        let ticks: f64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|field| field.parse::<f64>())
            .sum::<Result<f64, _>>()?;
        Ok(ticks / TICKS_PER_SECOND)
    }
}

/// What the kernel says core 0 did, in ticks.
pub(super) struct CoreTicks {
    idle: u64,
    all: u64,
}

/// Core 0's, since boot.
pub(super) fn core_ticks() -> Result<CoreTicks> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat
        .lines()
        .find_map(|line| line.strip_prefix("cpu0 "))
        .context("/proc/stat has no cpu0")?;
    // user nice system idle iowait irq softirq steal; guest time is in user already.
    let ticks: Vec<u64> = line
        .split_whitespace()
        .take(8)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let idle = ticks.get(3..5).context("/proc/stat is short")?.iter().sum();
    Ok(CoreTicks {
        idle,
        all: ticks.iter().sum(),
    })
}

impl CoreTicks {
    /// 0 … 1.
    pub(super) fn idle_share_since(&self, earlier: &CoreTicks) -> f64 {
        let all = self.all.saturating_sub(earlier.all).max(1);
        self.idle.saturating_sub(earlier.idle) as f64 / all as f64
    }
}

fn connect(socket: &Path, process: &mut Process) -> Result<(ControlConnection, Vec<ControlEnd>)> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match ControlConnection::connect(socket, EPOCH) {
            Ok(connected) => return Ok(connected),
            Err(error) => {
                if let Some(status) = process.try_wait()? {
                    bail!("the edge ended with {status}:\n{}", process.output());
                }
                if Instant::now() >= deadline {
                    return Err(error).context("the edge does not listen");
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

fn relay_pcmu(peer: SocketAddr) -> LegConfig {
    let route = PayloadRoute {
        from: PayloadType::PCMU,
        to: PayloadType::PCMU,
        clock_rate: ClockRateHz::NARROWBAND,
    };
    LegConfig {
        remote_rtp: Some(peer),
        remote_rtcp: Some(peer),
        source: SourcePolicy::Exact,
        direction: MediaDirection::SendReceive,
        routes: PayloadRoutes::new(vec![route]).expect("one route"),
        crypto: None,
        timeouts: MediaTimeouts::OFF,
    }
}
