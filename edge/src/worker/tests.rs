//! What can only be seen from inside: a worker driven cycle by cycle, with a control at the other
//! end of its rings.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use crossbeam::channel::Receiver;
use trunkline_edge_api::command::CorrelatedCommand;
use trunkline_edge_api::config::IoChoice;
use trunkline_edge_api::layout::{EVENT_RING_LEN, RING_LEN_MIN, RegionLayout};
use trunkline_edge_api::{
    AudioCodec, AudioFormat, AudioFormats, ClockRateHz, Command, Epoch, Histogram, HistogramCell,
    LegAudio, LegConfig, LegIndex, LocalMedia, MediaDirection, MediaTimeouts, OpusOptions,
    PacketTime, PayloadRoute, PayloadRoutes, PayloadType, PlaySource, PlaySources, Playback,
    PlaybackId, PlaybackMode, PortRange, RtcpMode, SessionId, SourcePolicy, Ssrc, Tone,
    WorkerIndex,
};
use trunkline_ring::{ControlEnd, Doorbells, Region};

use super::*;
use crate::each_tier::on_each_tier;
use crate::prompts::{Payloads, PromptLoader, PromptSettings};
use crate::recording::{Recorder, RecorderLimits};

const PATIENCE: Duration = Duration::from_secs(10);

/// A payload that makes its session panic.
const POISON: &[u8] = b"panic, please";

pub(super) fn panic_on_demand(packet: &[u8]) {
    assert!(!packet.ends_with(POISON), "asked for");
}

/// Of a session that panics when its timer runs out.
const POISONED_SERIAL: u32 = 13;
const POISONED: SessionId = SessionId::new(Epoch(1), POISONED_SERIAL);

pub(super) fn panic_when_timed(session: SessionId) {
    assert!(session != POISONED, "asked for");
}

/// The helpers of a single worker; their threads end with their handles.
fn helpers() -> Helpers {
    let (_, prompts) = PromptLoader::start(1, PromptSettings::default()).expect("a thread");
    let limits = RecorderLimits {
        recordings_max: 8,
        blocks_max: 8,
    };
    let (_, recorders) = Recorder::start(1, &limits, IoChoice::Auto).expect("a thread");
    let (prompts, recorder) = prompts.into_iter().zip(recorders).next().expect("one");
    Helpers { prompts, recorder }
}

struct Bench {
    worker: Worker,
    control: ControlEnd,
    shared: Arc<Shared>,
    notices: Receiver<Notice>,
    next_correlation: u64,
    ended: bool,
}

impl Bench {
    fn new(tier: IoTier, event_ring_len: usize, sessions_max: u32) -> Self {
        panic_message::keep_on_this_thread();
        let ports = PortRange::new(1_024, u16::MAX).expect("a range");
        let layout = RegionLayout::with_rings(
            WorkerIndex(0),
            1,
            ports,
            1 << 16,
            event_ring_len,
            event_ring_len / 4,
        );
        let (region, fd) = Region::create_with_layout(layout, 1).expect("a region");
        let doorbells = Doorbells::create().expect("eventfds");
        let theirs = Doorbells {
            to_worker: doorbells.to_worker.try_clone().expect("an fd"),
            to_control: doorbells.to_control.try_clone().expect("an fd"),
        };
        let (_, attention) = UnixStream::pair().expect("a pipe");
        attention.set_nonblocking(true).expect("a pipe");
        let (shared, notices) = Shared::new(attention, monotonic_now());
        let shared = Arc::new(shared);
        shared.control_arrived();
        let settings = WorkerSettings {
            sessions_max,
            tier: TierSettings {
                io: match tier {
                    IoTier::IoUring => IoChoice::IoUring,
                    IoTier::Epoll => IoChoice::Epoll,
                },
                sockets_max: 4 * sessions_max,
                dscp: 46,
            },
            orphan_timeout_secs: 60,
        };
        let end = WorkerEnd::new(region, doorbells);
        let (worker, fallback) = Worker::new(end, settings, Arc::clone(&shared), helpers())
            .expect("the tier works here");
        assert!(fallback.is_none());
        let region = Region::open(fd.as_fd()).expect("sound");
        Self {
            worker,
            control: ControlEnd::attach(region, theirs, Epoch(1), monotonic_now()),
            shared,
            notices,
            next_correlation: 0,
            ended: false,
        }
    }

    fn send(&mut self, command: Command) -> Correlation {
        self.next_correlation += 1;
        let correlation = Correlation(self.next_correlation);
        let command = CorrelatedCommand {
            correlation,
            command,
        };
        self.control.send_command(&command).expect("room");
        correlation
    }

    /// Drives the worker until it says something.
    fn event(&mut self) -> Event {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(event) = self.control.recv_event().expect("sound") {
                return event;
            }
            assert!(
                Instant::now() < until && !self.ended,
                "it has nothing to say"
            );
            self.cycle();
        }
    }

    fn cycle(&mut self) {
        self.ended = self.worker.duty_cycle().expect("the tier works") == Life::IsOver;
    }

    fn ask(&mut self, command: Command) -> Result<(), Refusal> {
        let asked = self.send(command);
        match self.event() {
            Event::CommandDone {
                correlation,
                result,
            } if correlation == asked => result,
            other => panic!("expected the answer, got {other:?}"),
        }
    }

    /// Both legs between `peers`.
    fn call(&mut self, serial: u32, peers: [&UdpSocket; 2]) -> [SocketAddr; 2] {
        let session = SessionId::new(Epoch(1), serial);
        LegIndex::ALL.map(|leg| {
            let local = free_address();
            let open = Command::OpenLeg {
                session,
                leg,
                local: media_at(local),
            };
            assert_eq!(self.ask(open), Ok(()));
            let remote = peers[leg.as_usize()].local_addr().expect("bound");
            let configure = Command::ConfigureLeg {
                session,
                leg,
                config: config(remote),
            };
            assert_eq!(self.ask(configure), Ok(()));
            local
        })
    }
}

fn free_address() -> SocketAddr {
    let probe = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    probe.local_addr().expect("bound")
}

fn media_at(rtp: SocketAddr) -> LocalMedia {
    LocalMedia {
        rtp,
        rtcp: RtcpMode::Muxed,
        ssrc: Ssrc(1),
    }
}

fn config(remote: SocketAddr) -> LegConfig {
    let route = PayloadRoute {
        from: PayloadType::PCMU,
        to: PayloadType::PCMU,
        clock_rate: ClockRateHz::NARROWBAND,
    };
    LegConfig {
        remote_rtp: Some(remote),
        remote_rtcp: Some(remote),
        source: SourcePolicy::Exact,
        direction: MediaDirection::SendReceive,
        routes: PayloadRoutes::new(vec![route]).expect("one"),
        crypto: None,
        timeouts: MediaTimeouts::OFF,
    }
}

fn peer() -> UdpSocket {
    let peer = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    peer.set_read_timeout(Some(PATIENCE)).expect("a socket");
    peer
}

fn rtp(payload: &[u8]) -> Vec<u8> {
    let header = [0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7];
    [header.as_slice(), payload].concat()
}

fn media_started(event: &Event) -> bool {
    matches!(event, Event::MediaStarted { .. })
}

on_each_tier! {
    panicking_session_is_closed_alone,
    session_that_panics_when_its_timer_runs_out_is_closed_alone,
    draining_worker_takes_no_new_session_and_ends_when_the_last_is_closed,
    query_of_more_sessions_than_the_ring_holds_is_answered_in_portions,
    query_of_a_control_that_has_gone_holds_up_nothing,
    leg_connects_when_its_peer_is_heard_and_dissolves_when_another_is_named,
    connection_of_a_silent_peer_is_dissolved_and_made_again,
    leg_that_learns_its_peer_never_connects,
    commands_are_answered_within_a_few_cycles_of_a_flood,
    worker_that_never_waits_refuses_new_sessions_and_only_those,
    legs_that_hear_the_same_tone_share_its_payloads,
}

fn panicking_session_is_closed_alone(tier: IoTier) {
    let mut bench = Bench::new(tier, EVENT_RING_LEN, 4);
    let peers = [peer(), peer(), peer(), peer()];
    let sick = bench.call(1, [&peers[0], &peers[1]]);
    let sound = bench.call(2, [&peers[2], &peers[3]]);
    peers[0]
        .send_to(&rtp(POISON), sick[0])
        .expect("loopback takes it");
    let Event::SessionClosed { cause, report } = bench.event() else {
        panic!("expected the end of the session");
    };
    assert_eq!(cause, CloseCause::Panicked);
    assert_eq!(report.session, SessionId::new(Epoch(1), 1));
    assert_eq!(bench.control.counter(Counter::SessionsPanicked), 1);
    let notice = bench.notices.try_recv().expect("it is logged");
    let NoticeKind::SessionPanicked { message, .. } = notice.kind else {
        panic!("expected the panic, got {notice:?}");
    };
    assert!(message.contains("asked for"), "{message}");

    peers[2]
        .send_to(&rtp(b"unharmed"), sound[0])
        .expect("loopback takes it");
    assert!(media_started(&bench.event()));
    bench.cycle();
    let mut packet = [0; 64];
    let len = peers[3].recv(&mut packet).expect("it is relayed");
    assert_eq!(packet[12..len], *b"unharmed");
    bench.cycle();
    bench.cycle();
    assert_eq!(bench.control.counter(Counter::BuffersInFlight), 0);
    assert_eq!(bench.control.counter(Counter::SessionsActive), 1);
}

/// Its first report of its own is due within 3.75 s (RFC 3550 §6.2).
fn session_that_panics_when_its_timer_runs_out_is_closed_alone(tier: IoTier) {
    let mut bench = Bench::new(tier, EVENT_RING_LEN, 4);
    let peers = [peer(), peer(), peer(), peer()];
    bench.call(POISONED_SERIAL, [&peers[0], &peers[1]]);
    let sound = bench.call(1, [&peers[2], &peers[3]]);
    let Event::SessionClosed { cause, report } = bench.event() else {
        panic!("expected the end of the session");
    };
    assert_eq!(
        (cause, report.session),
        (CloseCause::Panicked, POISONED),
        "{tier:?}"
    );
    assert_eq!(bench.control.counter(Counter::SessionsPanicked), 1);

    peers[2]
        .send_to(&rtp(b"unharmed"), sound[0])
        .expect("loopback takes it");
    assert!(media_started(&bench.event()));
    bench.cycle();
    let mut packet = [0; 64];
    let mut relayed = || {
        let len = peers[3].recv(&mut packet).expect("it is relayed");
        packet[..len].ends_with(b"unharmed")
    };
    // A report of the sound session may come before.
    assert!(relayed() || relayed() || relayed());
    assert_eq!(bench.control.counter(Counter::SessionsActive), 1);
}

fn draining_worker_takes_no_new_session_and_ends_when_the_last_is_closed(tier: IoTier) {
    let mut bench = Bench::new(tier, EVENT_RING_LEN, 4);
    let peers = [peer(), peer()];
    bench.call(1, [&peers[0], &peers[1]]);
    bench.shared.stop();
    bench.cycle();
    assert!(!bench.ended, "its sockets still close");
    let open = Command::OpenLeg {
        session: SessionId::new(Epoch(1), 2),
        leg: LegIndex::A,
        local: media_at(free_address()),
    };
    assert_eq!(bench.ask(open), Err(Refusal::Draining));
    let Event::SessionClosed { cause, .. } = bench.event() else {
        panic!("expected the end of the session");
    };
    assert_eq!(cause, CloseCause::EdgeStopped);
    while !bench.ended {
        bench.cycle();
    }
}

fn query_of_more_sessions_than_the_ring_holds_is_answered_in_portions(tier: IoTier) {
    const SESSIONS: u32 = 120;
    let mut bench = Bench::new(tier, RING_LEN_MIN, SESSIONS);
    for serial in 0..SESSIONS {
        let open = Command::OpenLeg {
            session: SessionId::new(Epoch(1), serial),
            leg: LegIndex::A,
            local: media_at(free_address()),
        };
        assert_eq!(bench.ask(open), Ok(()));
    }
    let asked = bench.send(Command::QueryAllSessions);
    // The next command waits until the query is answered.
    let session = SessionId::new(Epoch(1), 0);
    let closing = bench.send(Command::CloseSession { session });
    for _ in 0..5 {
        bench.cycle();
    }
    assert_eq!(
        bench.control.counter(Counter::SessionsActive),
        u64::from(SESSIONS)
    );
    let mut reported = Vec::new();
    loop {
        match bench.event() {
            Event::SessionReported {
                correlation,
                report,
            } => {
                assert_eq!(correlation, asked);
                reported.push(report.session);
            }
            Event::CommandDone {
                correlation,
                result: Ok(()),
            } => {
                assert_eq!(correlation, asked);
                break;
            }
            other => panic!("expected reports, got {other:?}"),
        }
    }
    let all: Vec<_> = (0..SESSIONS)
        .map(|serial| SessionId::new(Epoch(1), serial))
        .collect();
    reported.sort_unstable();
    assert_eq!(reported, all);
    assert!(matches!(bench.event(), Event::SessionClosed { .. }));
    let Event::CommandDone { correlation, .. } = bench.event() else {
        panic!("expected the answer");
    };
    assert_eq!(correlation, closing);
}

fn query_of_a_control_that_has_gone_holds_up_nothing(tier: IoTier) {
    let mut bench = Bench::new(tier, RING_LEN_MIN, 64);
    for serial in 0..64 {
        let open = Command::OpenLeg {
            session: SessionId::new(Epoch(1), serial),
            leg: LegIndex::A,
            local: media_at(free_address()),
        };
        assert_eq!(bench.ask(open), Ok(()));
    }
    bench.send(Command::QueryAllSessions);
    bench.cycle();
    assert!(
        bench.worker.query.is_some(),
        "the ring is too small for all"
    );
    let long_ago = MonoTime(1);
    bench.shared.control_left(long_ago);
    bench.control.beat(long_ago);
    bench.cycle();
    assert!(bench.worker.query.is_none());
}

/// Sends RTP and drives the worker until the far peer has it.
fn relay(bench: &mut Bench, from: &UdpSocket, to: SocketAddr, far: &UdpSocket) {
    from.send_to(&rtp(b"hello"), to).expect("loopback takes it");
    far.set_read_timeout(Some(Duration::from_millis(1)))
        .expect("a socket");
    let until = Instant::now() + PATIENCE;
    while far.recv(&mut [0; 64]).is_err() {
        assert!(Instant::now() < until, "nothing comes");
        bench.cycle();
    }
    // Its completion, and the counters.
    bench.cycle();
    bench.cycle();
}

fn connected(bench: &Bench) -> u64 {
    bench.control.counter(Counter::SocketsConnected)
}

fn leg_connects_when_its_peer_is_heard_and_dissolves_when_another_is_named(tier: IoTier) {
    let mut bench = Bench::new(tier, EVENT_RING_LEN, 4);
    let [first, far, second] = [peer(), peer(), peer()];
    let [leg_a, leg_b] = bench.call(1, [&first, &far]);
    assert_eq!(connected(&bench), 0, "nobody was heard");
    second
        .send_to(&rtp(b"stranger"), leg_a)
        .expect("loopback takes it");
    while bench.control.counter(DropReason::SourceNotAllowed) == 0 {
        bench.cycle();
    }
    assert_eq!(connected(&bench), 0, "that was somebody else");
    relay(&mut bench, &first, leg_a, &far);
    assert_eq!(connected(&bench), 1);
    relay(&mut bench, &far, leg_b, &first);
    assert_eq!(connected(&bench), 2);
    let latencies = Histogram::ForwardLatencyNanos;
    let observed: u64 = latencies
        .cells()
        .filter(|cell| *cell != HistogramCell::Sum(latencies))
        .map(|cell| bench.control.counter(cell))
        .sum();
    assert_eq!(observed, 2, "one for each packet that went on");

    while let Ok(Some(_)) = bench.control.recv_event() {}
    let configure = |remote: &UdpSocket| Command::ConfigureLeg {
        session: SessionId::new(Epoch(1), 1),
        leg: LegIndex::A,
        config: config(remote.local_addr().expect("bound")),
    };
    assert_eq!(bench.ask(configure(&first)), Ok(()));
    bench.cycle();
    assert_eq!(connected(&bench), 2, "nothing has changed");
    assert_eq!(bench.ask(configure(&second)), Ok(()));
    bench.cycle();
    assert_eq!(connected(&bench), 1);
    relay(&mut bench, &second, leg_a, &far);
    assert_eq!(connected(&bench), 2);
    let close = Command::CloseSession {
        session: SessionId::new(Epoch(1), 1),
    };
    bench.send(close);
    while bench.control.counter(Counter::SocketsOpen) > 0 {
        bench.cycle();
    }
    assert_eq!(connected(&bench), 0);
}

fn connection_of_a_silent_peer_is_dissolved_and_made_again(tier: IoTier) {
    let mut bench = Bench::new(tier, EVENT_RING_LEN, 4);
    let [near, far] = [peer(), peer()];
    let [leg_a, _] = bench.call(1, [&near, &far]);
    relay(&mut bench, &near, leg_a, &far);
    let now = monotonic_now();
    bench.worker.expire_connection_timers(now.plus_secs(6));
    bench.cycle();
    assert_eq!(connected(&bench), 1, "it was heard since");
    bench.worker.expire_connection_timers(now.plus_secs(12));
    bench.cycle();
    assert_eq!(connected(&bench), 0);
    relay(&mut bench, &near, leg_a, &far);
    assert_eq!(connected(&bench), 1);
}

fn leg_that_learns_its_peer_never_connects(tier: IoTier) {
    let mut bench = Bench::new(tier, EVENT_RING_LEN, 4);
    let [near, far] = [peer(), peer()];
    let [leg_a, leg_b] = bench.call(1, [&near, &far]);
    let remote = near.local_addr().expect("bound");
    let natted = LegConfig {
        source: SourcePolicy::LearnPort { ip: remote.ip() },
        ..config(remote)
    };
    let configure = Command::ConfigureLeg {
        session: SessionId::new(Epoch(1), 1),
        leg: LegIndex::A,
        config: natted,
    };
    assert_eq!(bench.ask(configure), Ok(()));
    relay(&mut bench, &near, leg_a, &far);
    assert_eq!(connected(&bench), 0);
    relay(&mut bench, &far, leg_b, &near);
    assert_eq!(connected(&bench), 1);
}

fn commands_are_answered_within_a_few_cycles_of_a_flood(tier: IoTier) {
    const COMMANDS: usize = 64;
    let mut bench = Bench::new(tier, EVENT_RING_LEN, 4);
    let [near, far] = [peer(), peer()];
    let [leg_a, _] = bench.call(1, [&near, &far]);
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = near.send_to(&rtp(b"flood"), leg_a);
            }
        });
        while bench.control.counter(Counter::RxRtpPackets) < 100 {
            bench.cycle();
        }
        let mut unanswered: Vec<_> = (0..COMMANDS)
            .map(|_| {
                let session = SessionId::new(Epoch(1), 9);
                bench.send(Command::QuerySession { session })
            })
            .collect();
        for _ in 0..=COMMANDS / COMMANDS_PER_CYCLE {
            let before = bench.control.counter(Counter::RxRtpPackets);
            bench.cycle();
            let taken = bench.control.counter(Counter::RxRtpPackets) - before;
            assert!(taken <= BATCHES_PER_CYCLE as u64 * 64, "{taken}");
            while let Some(event) = bench.control.recv_event().expect("sound") {
                if let Event::CommandDone { correlation, .. } = event {
                    unanswered.retain(|&asked| asked != correlation);
                }
            }
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(unanswered, []);
    });
}

fn worker_that_never_waits_refuses_new_sessions_and_only_those(tier: IoTier) {
    let mut bench = Bench::new(tier, EVENT_RING_LEN, 4);
    let [near, far] = [peer(), peer()];
    let [leg_a, _] = bench.call(1, [&near, &far]);
    let open = |serial, leg| Command::OpenLeg {
        session: SessionId::new(Epoch(1), serial),
        leg,
        local: media_at(free_address()),
    };
    assert_eq!(bench.ask(open(2, LegIndex::A)), Ok(()));
    for _ in 0..2_100 {
        // More than one: the kernel may hand over both a packet and a send within one cycle.
        for _ in 0..2 {
            near.send_to(&rtp(b"more"), leg_a)
                .expect("loopback takes it");
        }
        bench.cycle();
    }
    while let Ok(Some(_)) = bench.control.recv_event() {}
    assert_eq!(
        bench.ask(open(3, LegIndex::A)),
        Err(Refusal::WorkerBusy),
        "all cycles had media"
    );
    assert_eq!(bench.control.counter(Counter::SessionsRefusedBusy), 1);
    assert_eq!(
        bench.ask(open(2, LegIndex::B)),
        Ok(()),
        "a call that stands gets its other leg"
    );
    while bench.worker.capacity.is_exceeded() {
        bench.cycle();
    }
    assert_eq!(bench.ask(open(3, LegIndex::A)), Ok(()), "it waits again");
}

fn legs_that_hear_the_same_tone_share_its_payloads(tier: IoTier) {
    let mut bench = Bench::new(tier, EVENT_RING_LEN, 4);
    let peers = [peer(), peer()];
    bench.call(1, [&peers[0], &peers[1]]);
    let format = AudioFormat {
        codec: AudioCodec::Pcmu,
        payload_type: PayloadType::PCMU,
        clock_rate: ClockRateHz::NARROWBAND,
        channels: 1,
        packet_time: PacketTime::MS_20,
        opus: OpusOptions::default(),
    };
    let tone: Tone = "%(1000,4000,425)".parse().expect("a tone");
    for leg in LegIndex::ALL {
        let session = SessionId::new(Epoch(1), 1);
        let audio = LegAudio {
            receive: AudioFormats::new(vec![format]).expect("one"),
            send: format,
            receive_events: None,
            send_events: None,
            comfort_noise: None,
        };
        let audio = Some(Box::new(audio));
        let set = Command::SetLegAudio {
            session,
            leg,
            audio,
        };
        assert_eq!(bench.ask(set), Ok(()));
        let playback = Playback {
            id: PlaybackId(1),
            sources: PlaySources::new(vec![PlaySource::Tone(tone)]).expect("one"),
            rounds: 0,
            ends_on_digit: false,
            mode: PlaybackMode::Replace,
        };
        let play = Command::Play {
            session,
            leg,
            playback,
        };
        assert_eq!(bench.ask(play), Ok(()));
    }
    let library = &mut bench.worker.functions.prompts;
    let Payloads::Ready(payloads) = library.tone_payloads(&tone, &format) else {
        panic!("they were made before the first leg was played to");
    };
    // The helper, the worker, two legs, and this test.
    assert_eq!(Arc::strong_count(&payloads), 5);
}
