//! The edge under test: a process with one worker, and control's end of its ring.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use trunkline_edge_api::command::CorrelatedCommand;
use trunkline_edge_api::{
    ClockRateHz, Command, Correlation, Counter, DropReason, Epoch, Event, LegAudio, LegConfig,
    LegCrypto, LegIndex, LocalMedia, MediaDirection, MediaTimeouts, PayloadRoute, PayloadRoutes,
    PayloadType, RtcpMode, SessionId, SourcePolicy, SrtpKey, SrtpSuite, Ssrc,
};
use trunkline_ring::handshake::ControlConnection;
use trunkline_ring::{ControlEnd, SendError, monotonic_now};
use trunkline_testkit::daemons::Binaries;
use trunkline_testkit::process::Process;

use super::peer::{LegKeys, MediaLeg, Relay, STOP_LIMIT};
use super::wire::{RELAY_IP, Wire};

/// Control's life as this program plays it.
const EPOCH: Epoch = Epoch(1);
/// Room for 4,000 calls of four ports, below the kernel's ephemeral ports.
const PORTS: &str = "12000-27999";
/// Longest wait for the edge to listen, and for it to answer commands.
const LIMIT: Duration = Duration::from_secs(20);

/// Counters that tell where packets stayed.
const FIGURES: [Counter; 9] = [
    Counter::RxRtpPackets,
    Counter::TxRtpPackets,
    Counter::BusyCycles,
    Counter::BusyNanos,
    Counter::CycleMaxNanos,
    Counter::RxBuffersExhausted,
    Counter::RxRearmed,
    Counter::CqOverflows,
    Counter::SocketsConnected,
];

pub(crate) struct EdgeUnderTest {
    process: Process,
    connection: ControlConnection,
    end: ControlEnd,
    next_correlation: u64,
    next_session: u32,
    free_ports: Vec<u16>,
    _directory: tempfile::TempDir,
}

impl EdgeUnderTest {
    /// Starts the edge at the relay's end of `wire`; `io` is `[edge] io`.
    pub(crate) fn start(binaries: &Binaries, wire: &Wire, io: &str) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("trunkline-bench-")
            .tempdir()?;
        let path = directory.path();
        let config = path.join("trunkline.toml");
        fs::write(
            &config,
            format!(
                "[node]\nrun_dir = \"{0}\"\nstate_dir = \"{0}\"\n\n[edge]\nworkers = 1\nmedia_addresses = [\"{RELAY_IP}\"]\nports = \"{PORTS}\"\nio = \"{io}\"\n",
                path.display()
            ),
        )?;
        let mut process = Process::spawn(
            "trunkline-edge",
            wire.relay_command(binaries.edge.as_os_str())
                .arg("--config")
                .arg(&config),
            &path.join("edge.log"),
        )?;
        let (connection, mut ends) = connect(&path.join("edge.sock"), &mut process)?;
        let end = ends.pop().context("the edge has no worker")?;
        let mut free_ports: Vec<u16> = end.ports().pairs().collect();
        free_ports.reverse();
        Ok(Self {
            process,
            connection,
            end,
            next_correlation: 1,
            next_session: 0,
            free_ports,
            _directory: directory,
        })
    }

    /// As [`Relay::open_calls`], plain RTP, between legs with that audio, which is transcoded.
    pub(crate) fn open_transcoded(
        &mut self,
        count: u32,
        peer: SocketAddr,
        audio: &[LegAudio; 2],
    ) -> Result<Vec<MediaLeg>> {
        let mut legs = Vec::with_capacity(2 * count as usize);
        for _ in 0..count {
            self.open_call(peer, None, Some(audio), &mut legs)?;
        }
        Ok(legs)
    }

    fn open_call(
        &mut self,
        peer: SocketAddr,
        suite: Option<SrtpSuite>,
        audio: Option<&[LegAudio; 2]>,
        legs: &mut Vec<MediaLeg>,
    ) -> Result<()> {
        let session = SessionId::new(EPOCH, self.next_session);
        self.next_session += 1;
        let mut configs = Vec::new();
        for leg in LegIndex::ALL {
            let port = self.free_ports.pop().context("no port is left")?;
            let rtp = SocketAddr::new(RELAY_IP.into(), port);
            let ssrc = Ssrc(u32::from(port));
            let rtcp = RtcpMode::Separate;
            let local = LocalMedia { rtp, rtcp, ssrc };
            self.command(Command::OpenLeg {
                session,
                leg,
                local,
            })?;
            let keys = match (leg, suite) {
                (LegIndex::B, Some(suite)) => Some(LegKeys {
                    suite,
                    to_relay: test_key(suite, port, 1)?,
                    from_relay: test_key(suite, port, 2)?,
                }),
                _ => None,
            };
            configs.push((leg, configuration(peer, keys.as_ref(), audio.is_none())));
            legs.push(MediaLeg {
                relay: rtp,
                crypto: keys,
            });
        }
        for (leg, config) in configs {
            self.command(Command::ConfigureLeg {
                session,
                leg,
                config,
            })?;
        }
        for (leg, audio) in LegIndex::ALL.into_iter().zip(audio.into_iter().flatten()) {
            self.command(Command::SetLegAudio {
                session,
                leg,
                audio: Some(Box::new(audio.clone())),
            })?;
        }
        Ok(())
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
}

impl Relay for EdgeUnderTest {
    fn open_calls(
        &mut self,
        count: u32,
        peer: SocketAddr,
        suite: Option<SrtpSuite>,
    ) -> Result<Vec<MediaLeg>> {
        let mut legs = Vec::with_capacity(2 * count as usize);
        for _ in 0..count {
            self.open_call(peer, suite, None, &mut legs)?;
        }
        Ok(legs)
    }

    /// Beats, reads what the edge said, and notices when it is gone.
    fn keep_in_touch(&mut self) -> Result<()> {
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

    fn process_id(&self) -> u32 {
        self.process.id()
    }

    fn stop(&mut self) -> Result<()> {
        self.process.terminate(STOP_LIMIT).map(|_| ())
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        let counters = FIGURES.map(|counter| (counter.name(), self.end.counter(counter)));
        let drops = DropReason::ALL.map(|reason| (reason.name(), self.end.counter(reason)));
        let happened = |&(_, count): &(&str, u64)| count > 0;
        counters.into_iter().chain(drops).filter(happened).collect()
    }
}

/// A key that no other leg and no other direction has.
fn test_key(suite: SrtpSuite, port: u16, direction: u8) -> Result<SrtpKey> {
    let mut key = vec![direction; suite.key_len() + suite.salt_len()];
    key[..2].copy_from_slice(&port.to_be_bytes());
    SrtpKey::new(suite, &key).context("a key of the suite's own length")
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

/// PCMU is relayed, or nothing is: then all that has to go on is transcoded.
fn configuration(peer: SocketAddr, keys: Option<&LegKeys>, is_relayed: bool) -> LegConfig {
    let route = PayloadRoute {
        from: PayloadType::PCMU,
        to: PayloadType::PCMU,
        clock_rate: ClockRateHz::NARROWBAND,
    };
    LegConfig {
        remote_rtp: Some(peer),
        remote_rtcp: Some(SocketAddr::new(peer.ip(), peer.port() + 1)),
        source: SourcePolicy::Exact,
        direction: MediaDirection::SendReceive,
        routes: PayloadRoutes::new(if is_relayed { vec![route] } else { Vec::new() })
            .expect("one route at most"),
        crypto: keys.map(|keys| LegCrypto {
            suite: keys.suite,
            send: keys.from_relay.clone(),
            receive: keys.to_relay.clone(),
        }),
        timeouts: MediaTimeouts::OFF,
    }
}
