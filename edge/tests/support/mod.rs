//! What the edge's tests need: the daemon as its own process, a control that feeds it by hand over
//! the real rings, and peers with real sockets.

#![allow(dead_code, reason = "every test binary uses its own part of this")]
#![allow(
    unreachable_pub,
    reason = "a module of test binaries, not of a library"
)]

#[path = "../../src/each_tier.rs"]
mod each_tier;

pub(crate) use each_tier::on_each_tier;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use trunkline_edge_api::command::CorrelatedCommand;
use trunkline_edge_api::{
    ClockRateHz, Command, Correlation, Counter, Epoch, Event, IoTier, LegConfig, LegIndex,
    LocalMedia, MediaDirection, MediaTimeouts, PayloadRoute, PayloadRoutes, PayloadType, Refusal,
    RtcpMode, SessionId, SourcePolicy, Ssrc,
};
use trunkline_ring::handshake::{ConnectError, ControlConnection, Observer};
use trunkline_ring::{CellIndex, ControlEnd, monotonic_now};

/// What takes longer than this has failed.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub const A: LegIndex = LegIndex::A;
pub const B: LegIndex = LegIndex::B;
pub const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Calls `look` until it returns something.
pub fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// An edge in a process and a directory of its own. Killed when dropped.
pub struct EdgeProcess {
    child: Child,
    dir: tempfile::TempDir,
}

/// Ports below the range from which the kernel serves sockets that do not care, all of them free
/// now. Where to look first differs from run to run, so that runs side by side do not meet.
fn port_range(count: u16) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    wait_until("enough neighbouring ports are free", || {
        let nth = NEXT.fetch_add(u32::from(count), Ordering::Relaxed);
        let step = std::process::id().wrapping_mul(1_117).wrapping_add(nth) % 20_000;
        let first = 10_000 + step as u16 / 2 * 2;
        let last = first + count - 1;
        let is_free = |port| UdpSocket::bind((V4, port)).is_ok();
        (first..=last)
            .all(is_free)
            .then(|| format!("{first}-{last}"))
    })
}

fn write_config(dir: &Path, tier: IoTier, edge_section: &str, port_count: u16) {
    let config = format!(
        "[node]\nrun_dir = {dir:?}\n[edge]\nio = {:?}\nports = \"{}\"\n{edge_section}\n",
        tier.name(),
        port_range(port_count),
    );
    std::fs::write(dir.join("trunkline.toml"), config).expect("writable");
}

impl EdgeProcess {
    pub fn start(tier: IoTier, edge_section: &str) -> Self {
        Self::start_with_ports(tier, edge_section, 64)
    }

    pub fn start_with_ports(tier: IoTier, edge_section: &str, port_count: u16) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        write_config(dir.path(), tier, edge_section, port_count);
        let child = daemon(dir.path()).spawn().expect("the daemon is built");
        Self { child, dir }.wait_for_start()
    }

    /// An edge for which `place` is a disk of `bytes`, in a mount namespace of its own. `None` where
    /// the kernel lets nobody make one, which is told.
    pub fn start_with_disk(
        tier: IoTier,
        edge_section: &str,
        place: &Path,
        bytes: u32,
    ) -> Option<Self> {
        let mount = format!("mount -t tmpfs -o size={bytes} none \"$0\"");
        let unshare = |script: &str| {
            let mut unshare = Process::new("unshare");
            unshare.arg("--mount");
            if !rustix::process::geteuid().is_root() {
                unshare.arg("--map-root-user");
            }
            unshare.args(["sh", "-c", script]).arg(place);
            unshare
        };
        if !unshare(&mount)
            .status()
            .is_ok_and(|status| status.success())
        {
            eprintln!("no mount namespace can be made here: not tested");
            return None;
        }
        let dir = tempfile::tempdir().expect("a directory");
        write_config(dir.path(), tier, edge_section, 64);
        let edge = daemon(dir.path());
        let child = unshare(&format!("{mount} && exec \"$@\""))
            .arg(edge.get_program())
            .args(edge.get_args())
            .stdin(Stdio::null())
            .spawn()
            .expect("the daemon is built");
        Some(Self { child, dir }.wait_for_start())
    }

    /// Kills the edge and starts it again in the same directory.
    pub fn restart(mut self) -> Self {
        self.child.kill().expect("our child");
        self.child.wait().expect("our child");
        self.child = daemon(self.dir.path())
            .spawn()
            .expect("the daemon is built");
        self.wait_for_start()
    }

    /// Starts another edge in the same directory, which should end by itself.
    pub fn start_another(&self) -> Output {
        daemon(self.dir.path())
            .output()
            .expect("the daemon is built")
    }

    fn wait_for_start(self) -> Self {
        let mut edge = self;
        wait_until("the edge listens", || {
            let ended = edge.child.try_wait().expect("our child");
            assert_eq!(ended, None, "the edge has ended");
            Observer::connect(&edge.socket()).ok()
        });
        edge
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("edge.sock")
    }

    pub fn connect(&self, epoch: u32) -> Control {
        Control::connect(&self.socket(), epoch).expect("the edge takes a control")
    }

    /// Runs `trunkline-edge status` with `arguments`; what it printed.
    pub fn status(&self, arguments: &[&str]) -> String {
        let output = Process::new(env!("CARGO_BIN_EXE_trunkline-edge"))
            .arg("status")
            .arg("--config")
            .arg(self.dir.path().join("trunkline.toml"))
            .args(arguments)
            .output()
            .expect("the daemon is built");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs `trunkline-edge doctor --json`; what it printed.
    pub fn doctor(&self) -> serde_json::Value {
        let output = Process::new(env!("CARGO_BIN_EXE_trunkline-edge"))
            .args(["doctor", "--json", "--config"])
            .arg(self.dir.path().join("trunkline.toml"))
            .output()
            .expect("the daemon is built");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// A counter, summed over all workers.
    pub fn counter(&self, cell: impl Into<CellIndex> + Copy) -> u64 {
        let observer = Observer::connect(&self.socket()).expect("the edge listens");
        let regions = observer.regions().iter();
        regions.map(|region| region.view().counter(cell)).sum()
    }

    /// Waits until a counter, summed over all workers, has reached `value`; beyond it is wrong.
    pub fn wait_for_counter(&self, cell: impl Into<CellIndex> + Copy, value: u64) {
        self.wait_for_sum(cell, |sum| {
            assert!(sum <= value, "counted {sum} of {value}");
            sum == value
        });
    }

    /// Waits until a gauge has `value`. Workers publish gauges at the end of a duty cycle, so they
    /// may lag behind the answer to a command.
    pub fn wait_for_gauge(&self, gauge: Counter, value: u64) {
        self.wait_for_sum(gauge, |sum| sum == value);
    }

    fn wait_for_sum(&self, cell: impl Into<CellIndex> + Copy, is_it: impl Fn(u64) -> bool) {
        let observer = Observer::connect(&self.socket()).expect("the edge listens");
        wait_until("a counter has its value", || {
            let regions = observer.regions().iter();
            let sum = regions.map(|region| region.view().counter(cell)).sum();
            is_it(sum).then_some(())
        });
    }

    /// Names of the daemon's threads, those that the kernel made for io_uring among them.
    pub fn thread_names(&self) -> Vec<String> {
        let tasks = format!("/proc/{}/task", self.child.id());
        let name = |task: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
        };
        let tasks = std::fs::read_dir(tasks).expect("our child");
        tasks
            .filter_map(name)
            .map(|name| name.trim().to_owned())
            .collect()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("our child");
    }

    pub fn wait_for_end(&mut self) -> ExitStatus {
        wait_until("the edge has ended", || {
            self.child.try_wait().expect("our child")
        })
    }
}

fn daemon(dir: &Path) -> Process {
    let mut daemon = Process::new(env!("CARGO_BIN_EXE_trunkline-edge"));
    daemon
        .arg("--config")
        .arg(dir.join("trunkline.toml"))
        .stdin(Stdio::null());
    daemon
}

impl Drop for EdgeProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A control plane that says what the test says.
pub struct Control {
    pub connection: ControlConnection,
    pub ends: Vec<ControlEnd>,
    pub epoch: u32,
    events: Vec<VecDeque<Event>>,
    next_correlation: u64,
    next_serial: u32,
    next_port: Vec<u16>,
}

impl Control {
    pub fn connect(socket: &Path, epoch: u32) -> Result<Self, ConnectError> {
        let (connection, ends) = ControlConnection::connect(socket, Epoch(epoch))?;
        Ok(Self {
            connection,
            epoch,
            events: ends.iter().map(|_| VecDeque::new()).collect(),
            next_correlation: u64::from(epoch) << 32,
            next_serial: 0,
            next_port: ends.iter().map(|end| end.ports().first()).collect(),
            ends,
        })
    }

    pub fn send(&mut self, worker: usize, command: Command) -> Correlation {
        self.next_correlation += 1;
        let correlation = Correlation(self.next_correlation);
        let command = CorrelatedCommand {
            correlation,
            command,
        };
        self.ends[worker].send_command(&command).expect("room");
        correlation
    }

    /// Sends a command and waits for its answer.
    pub fn ask(&mut self, worker: usize, command: Command) -> Result<(), Refusal> {
        let correlation = self.send(worker, command);
        self.answer(worker, correlation)
    }

    pub fn answer(&mut self, worker: usize, correlation: Correlation) -> Result<(), Refusal> {
        self.wait_for(worker, |event| match event {
            Event::CommandDone {
                correlation: of,
                result,
            } if *of == correlation => Some(*result),
            _ => None,
        })
    }

    /// Waits for an event that `pick` picks; others are kept.
    pub fn wait_for<T>(&mut self, worker: usize, mut pick: impl FnMut(&Event) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        let mut looked_at = 0;
        loop {
            while looked_at < self.events[worker].len() {
                if let Some(picked) = pick(&self.events[worker][looked_at]) {
                    self.events[worker].remove(looked_at);
                    return picked;
                }
                looked_at += 1;
            }
            assert!(Instant::now() < until, "waited in vain for an event");
            self.read_events(worker);
        }
    }

    /// Events that nobody waited for.
    pub fn other_events(&mut self, worker: usize) -> Vec<Event> {
        while let Ok(Some(event)) = self.ends[worker].recv_event() {
            self.events[worker].push_back(event);
        }
        self.events[worker].drain(..).collect()
    }

    fn read_events(&mut self, worker: usize) {
        let end = &mut self.ends[worker];
        end.beat(monotonic_now());
        if end.before_wait() {
            let mut fds = [PollFd::new(&*end, PollFlags::IN)];
            let timeout = Timespec {
                tv_sec: 0,
                tv_nsec: 50_000_000,
            };
            let _ = poll(&mut fds, Some(&timeout));
            end.after_wait();
        }
        end.silence_doorbell();
        while let Some(event) = end.recv_event().expect("the worker is sound") {
            self.events[worker].push_back(event);
        }
    }

    pub fn new_session(&mut self) -> SessionId {
        self.next_serial += 1;
        SessionId::new(Epoch(self.epoch), self.next_serial)
    }

    /// Opens a leg on the next free pair of the worker's ports.
    pub fn open_leg(
        &mut self,
        worker: usize,
        session: SessionId,
        leg: LegIndex,
        ip: IpAddr,
        rtcp: RtcpMode,
    ) -> LocalMedia {
        let ports = self.ends[worker].ports();
        loop {
            let port = self.next_port[worker];
            assert!(port < ports.last(), "no port is free");
            self.next_port[worker] = port + 2;
            let local = LocalMedia {
                rtp: SocketAddr::new(ip, port),
                rtcp,
                ssrc: Ssrc(0x5000_0000 | u32::from(port)),
            };
            let open = Command::OpenLeg {
                session,
                leg,
                local,
            };
            match self.ask(worker, open) {
                Ok(()) => return local,
                Err(Refusal::AddressInUse) => {}
                Err(refusal) => panic!("{refusal}"),
            }
        }
    }

    pub fn configure(
        &mut self,
        worker: usize,
        session: SessionId,
        leg: LegIndex,
        config: LegConfig,
    ) {
        let configure = Command::ConfigureLeg {
            session,
            leg,
            config,
        };
        assert_eq!(self.ask(worker, configure), Ok(()));
    }

    /// A call between two fresh peers, both legs exact and both ways.
    pub fn call(&mut self, worker: usize, ips: [IpAddr; 2], rtcp: [RtcpMode; 2]) -> Call {
        let session = self.new_session();
        let peers = ips.map(Peer::new);
        let locals = [
            self.open_leg(worker, session, A, ips[0], rtcp[0]),
            self.open_leg(worker, session, B, ips[1], rtcp[1]),
        ];
        for leg in LegIndex::ALL {
            let index = leg.as_usize();
            let config = peers[index].config(rtcp[index]);
            self.configure(worker, session, leg, config);
        }
        Call {
            worker,
            session,
            locals,
            peers,
        }
    }

    pub fn simple_call(&mut self, worker: usize) -> Call {
        self.call(worker, [V4, V4], [RtcpMode::Separate; 2])
    }

    pub fn close(&mut self, call: &Call) {
        let session = call.session;
        assert_eq!(
            self.ask(call.worker, Command::CloseSession { session }),
            Ok(())
        );
    }
}

/// Two peers and the session between them.
pub struct Call {
    pub worker: usize,
    pub session: SessionId,
    /// Indexed by leg.
    pub locals: [LocalMedia; 2],
    pub peers: [Peer; 2],
}

impl Call {
    /// A's peer sends one packet and B's peer gets it.
    pub fn pass_a_to_b(&self, sequence: u16, payload: &[u8]) -> Vec<u8> {
        let [a, b] = &self.peers;
        a.send_rtp(self.locals[0].rtp, &rtp(0, sequence, 7, payload));
        b.receive_rtp()
    }

    /// The other way.
    pub fn pass_b_to_a(&self, sequence: u16, payload: &[u8]) -> Vec<u8> {
        let [a, b] = &self.peers;
        b.send_rtp(self.locals[1].rtp, &rtp(0, sequence, 9, payload));
        a.receive_rtp()
    }
}

/// A party outside: two sockets, one above the other.
pub struct Peer {
    pub rtp: UdpSocket,
    pub rtcp: UdpSocket,
}

impl Peer {
    pub fn new(ip: IpAddr) -> Self {
        let bind = |port| -> std::io::Result<UdpSocket> {
            let socket = UdpSocket::bind((ip, port))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(socket)
        };
        wait_until("two neighbouring ports are free", || {
            let rtp = bind(0).ok()?;
            let port = rtp.local_addr().ok()?.port().checked_add(1)?;
            let rtcp = bind(port).ok()?;
            Some(Self { rtp, rtcp })
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.rtp.local_addr().expect("bound")
    }

    pub fn config(&self, rtcp: RtcpMode) -> LegConfig {
        let remote_rtcp = match rtcp {
            RtcpMode::Muxed => self.address(),
            RtcpMode::Separate => self.rtcp.local_addr().expect("bound"),
        };
        let same = |payload_type: u8| {
            let payload_type = PayloadType::new(payload_type).expect("below 128");
            PayloadRoute {
                from: payload_type,
                to: payload_type,
                clock_rate: ClockRateHz::NARROWBAND,
            }
        };
        LegConfig {
            remote_rtp: Some(self.address()),
            remote_rtcp: Some(remote_rtcp),
            source: SourcePolicy::Exact,
            direction: MediaDirection::SendReceive,
            routes: PayloadRoutes::new(vec![same(0), same(8), same(101)]).expect("no duplicates"),
            crypto: None,
            timeouts: MediaTimeouts::OFF,
        }
    }

    pub fn send_rtp(&self, to: SocketAddr, packet: &[u8]) {
        self.rtp.send_to(packet, to).expect("loopback takes it");
    }

    pub fn receive_rtp(&self) -> Vec<u8> {
        receive(&self.rtp).expect("a packet")
    }

    pub fn receive_rtcp(&self) -> Vec<u8> {
        receive(&self.rtcp).expect("a packet")
    }

    /// Whether nothing waits on either socket. To be asked after something that was sent later
    /// has arrived elsewhere.
    pub fn has_heard_nothing(&self) -> bool {
        [&self.rtp, &self.rtcp].into_iter().all(|socket| {
            socket.set_nonblocking(true).expect("a socket");
            let nothing = receive(socket).is_none();
            socket.set_nonblocking(false).expect("a socket");
            nothing
        })
    }
}

fn receive(socket: &UdpSocket) -> Option<Vec<u8>> {
    let mut packet = vec![0; 4096];
    let (len, _) = socket.recv_from(&mut packet).ok()?;
    packet.truncate(len);
    Some(packet)
}

/// An RTP packet; the timestamp follows the sequence at 20 ms each.
pub fn rtp(payload_type: u8, sequence: u16, ssrc: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, payload_type];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&(u32::from(sequence) * 160).to_be_bytes());
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

pub fn receiver_report(ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 201, 0, 1];
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet
}

pub fn sequence_of(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[2], packet[3]])
}

pub fn ssrc_of(packet: &[u8]) -> Ssrc {
    Ssrc(u32::from_be_bytes([
        packet[8], packet[9], packet[10], packet[11],
    ]))
}

/// All counters that must balance at rest.
pub fn is_at_rest(edge: &EdgeProcess) -> bool {
    edge.counter(Counter::BuffersInFlight) == 0
        && edge.counter(Counter::SocketsOpen) == 0
        && edge.counter(Counter::SessionsActive) == 0
}
