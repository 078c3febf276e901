//! The edge under test: a process with one worker, and control's end of its ring.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use trunkline_edge_api::command::CorrelatedCommand;
use trunkline_edge_api::{
    AudioCodec, Command, Correlation, Counter, DropReason, Epoch, Event, LegAudio, LegConfig,
    LegCrypto, LegIndex, LocalMedia, MediaDirection, MediaTimeouts, PayloadRoute, PayloadRoutes,
    RtcpMode, SessionId, SourcePolicy, SrtpKey, SrtpSuite, Ssrc,
};
use trunkline_ring::handshake::ControlConnection;
use trunkline_ring::{ControlEnd, SendError, monotonic_now};
use trunkline_testkit::daemons::Binaries;
use trunkline_testkit::process::Process;

use super::peer::{CallMedia, LegKeys, MediaLeg, Relay, STOP_LIMIT};
use super::voice::{format, leg_audio};
use super::wire::{RELAY_IP, Wire};

/// Control's life as this program plays it.
const EPOCH: Epoch = Epoch(1);
/// Room for 4,000 calls of four ports, below the kernel's ephemeral ports.
const PORTS: &str = "12000-27999";
/// Longest wait for the edge to listen, and for it to answer commands.
const LIMIT: Duration = Duration::from_secs(20);

/// Counters that tell where packets stayed.
const FIGURES: [Counter; 11] = [
    Counter::RxRtpPackets,
    Counter::TxRtpPackets,
    Counter::BusyCycles,
    Counter::BusyNanos,
    Counter::CycleMaxNanos,
    Counter::RxBuffersExhausted,
    Counter::RxRearmed,
    Counter::CqOverflows,
    Counter::SocketsConnected,
    Counter::RecordingPacketsLost,
    Counter::TicksLate,
];

/// A leg to open.
#[derive(Debug, Clone)]
pub(crate) struct LegSetup {
    /// What its peer has.
    pub(crate) codec: AudioCodec,
    /// How it is protected; `None`: plain RTP.
    pub(crate) suite: Option<SrtpSuite>,
    /// What the edge is told of the peer's audio; `None`: nothing, the leg is only relayed.
    pub(crate) audio: Option<LegAudio>,
}

impl LegSetup {
    /// Plain RTP, audio known.
    pub(crate) fn heard(codec: AudioCodec) -> Self {
        Self {
            codec,
            suite: None,
            audio: Some(leg_audio(codec)),
        }
    }
}

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

    /// Opens a session whose legs have these peers, all of them at `peer`. What both legs have in
    /// common is relayed.
    pub(crate) fn open_session(
        &mut self,
        peer: SocketAddr,
        legs: &[LegSetup],
    ) -> Result<(SessionId, Vec<MediaLeg>)> {
        let session = SessionId::new(EPOCH, self.next_session);
        self.next_session += 1;
        let mut opened = Vec::with_capacity(legs.len());
        let is_relayed = legs.iter().all(|leg| leg.codec == legs[0].codec);
        for (leg, setup) in LegIndex::ALL.into_iter().zip(legs) {
            let port = self.free_ports.pop().context("no port is left")?;
            let rtp = SocketAddr::new(RELAY_IP.into(), port);
            let local = LocalMedia {
                rtp,
                rtcp: RtcpMode::Separate,
                ssrc: Ssrc(u32::from(port)),
            };
            self.command(Command::OpenLeg {
                session,
                leg,
                local,
            })?;
            let crypto = match setup.suite {
                Some(suite) => Some(LegKeys {
                    suite,
                    to_relay: test_key(suite, port, 1)?,
                    from_relay: test_key(suite, port, 2)?,
                }),
                None => None,
            };
            opened.push(MediaLeg { relay: rtp, crypto });
        }
        for ((leg, setup), opened) in LegIndex::ALL.into_iter().zip(legs).zip(&opened) {
            let relayed = is_relayed.then_some(setup.codec);
            self.command(Command::ConfigureLeg {
                session,
                leg,
                config: configuration(peer, opened.crypto.as_ref(), relayed),
            })?;
            if let Some(audio) = &setup.audio {
                self.command(Command::SetLegAudio {
                    session,
                    leg,
                    audio: Some(Box::new(audio.clone())),
                })?;
            }
        }
        Ok((session, opened))
    }

    /// The next thing that the edge has said, if it has said anything.
    pub(crate) fn poll_event(&mut self) -> Result<Option<Event>> {
        Ok(self.end.recv_event()?)
    }

    /// Sends a command and waits for its answer. What else the edge says meanwhile is lost.
    pub(crate) fn command(&mut self, command: Command) -> Result<()> {
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
        media: &CallMedia,
    ) -> Result<Vec<MediaLeg>> {
        let [a, b] = media.codecs;
        let is_transcoded = a != b;
        let legs = [(a, None), (b, media.suite)].map(|(codec, suite)| LegSetup {
            codec,
            suite,
            audio: is_transcoded.then(|| leg_audio(codec)),
        });
        let mut opened = Vec::with_capacity(2 * count as usize);
        for _ in 0..count {
            opened.extend(self.open_session(peer, &legs)?.1);
        }
        Ok(opened)
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

/// `relayed` goes on as it came; what does not has to be transcoded.
fn configuration(
    peer: SocketAddr,
    keys: Option<&LegKeys>,
    relayed: Option<AudioCodec>,
) -> LegConfig {
    let routes = relayed.into_iter().map(|codec| {
        let format = format(codec);
        PayloadRoute {
            from: format.payload_type,
            to: format.payload_type,
            clock_rate: format.clock_rate,
        }
    });
    LegConfig {
        remote_rtp: Some(peer),
        remote_rtcp: Some(SocketAddr::new(peer.ip(), peer.port() + 1)),
        source: SourcePolicy::Exact,
        direction: MediaDirection::SendReceive,
        routes: PayloadRoutes::new(routes.collect()).expect("one route at most"),
        crypto: keys.map(|keys| LegCrypto {
            suite: keys.suite,
            send: keys.from_relay.clone(),
            receive: keys.to_relay.clone(),
        }),
        timeouts: MediaTimeouts::OFF,
    }
}
