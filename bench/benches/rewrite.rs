//! The rewrite path: what one packet costs from the worker's buffer to the verdict, without the
//! kernel. Times by criterion (for comparison between two builds), and a report of nanoseconds
//! and allocations per packet in `bench/results/rewrite.*`.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use criterion::{Criterion, Throughput};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use trunkline_bench::allocation_counter::CountingAllocator;
use trunkline_bench::report::Report;
use trunkline_edge_api::{
    ClockRateHz, LegConfig, LegIndex, LocalMedia, MediaDirection, MediaTimeouts, MonoTime,
    PayloadRoute, PayloadRoutes, PayloadType, RtcpMode, SourcePolicy, Ssrc,
};
use trunkline_media::session::{MediaSession, RxMeta, SessionCommand, SocketKind, Verdict};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

/// 20 ms of G.711 behind a bare RTP header.
const RTP_LEN: usize = 172;
/// Packets that a worker may find at once.
const BURST: usize = 256;
/// Bursts per batch of the report.
const BATCH_BURSTS: usize = 400;
/// Batches of the report; the median of their means is reported.
const BATCHES: usize = 101;

/// Sessions of a busy worker: their state does not fit the first two cache levels.
const MANY_SESSIONS: usize = 1_000;

fn address(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(192, 0, 2, host), port))
}

fn peer(leg: LegIndex) -> SocketAddr {
    match leg {
        LegIndex::A => address(1, 4_000),
        LegIndex::B => address(2, 5_000),
    }
}

/// Two legs relaying PCMU as 0 and telephone-event as 101 ↔ `far_event`.
fn session(far_event: u8) -> MediaSession {
    let number = |value| PayloadType::new(value).expect("a payload type");
    let mut session = MediaSession::new();
    for leg in LegIndex::ALL {
        let (near, far) = match leg {
            LegIndex::A => (101, far_event),
            LegIndex::B => (far_event, 101),
        };
        let routes = PayloadRoutes::new(vec![
            PayloadRoute {
                from: PayloadType::PCMU,
                to: PayloadType::PCMU,
                clock_rate: ClockRateHz::NARROWBAND,
            },
            PayloadRoute {
                from: number(near),
                to: number(far),
                clock_rate: ClockRateHz::NARROWBAND,
            },
        ])
        .expect("two routes");
        let local = LocalMedia {
            rtp: address(9, 30_000 + 2 * leg as u16),
            rtcp: RtcpMode::Muxed,
            ssrc: Ssrc(0x1000_0000 + leg as u32),
        };
        let config = LegConfig {
            remote_rtp: Some(peer(leg)),
            remote_rtcp: Some(peer(leg)),
            source: SourcePolicy::Exact,
            direction: MediaDirection::SendReceive,
            routes,
            crypto: None,
            timeouts: MediaTimeouts::OFF,
        };
        session
            .handle_command(MonoTime(0), SessionCommand::OpenLeg(leg, local))
            .expect("the leg opens");
        session
            .handle_command(MonoTime(0), SessionCommand::ConfigureLeg(leg, config))
            .expect("the leg takes its configuration");
    }
    session
}

/// Packets as the kernel leaves them in a worker's buffers: written before they are looked at.
struct Feed {
    packets: Vec<[u8; RTP_LEN]>,
    payload_type: u8,
    meta: RxMeta,
    sequence: u32,
}

impl Feed {
    fn new(payload_type: u8, source: SocketAddr) -> Self {
        Self {
            packets: vec![[0xd5; RTP_LEN]; BURST],
            payload_type,
            meta: RxMeta {
                source,
                socket: SocketKind::Rtp,
                truncated: false,
            },
            sequence: 0,
        }
    }

    /// Writes the next [`BURST`] headers over the rewritten ones.
    fn arrive(&mut self) {
        for packet in &mut self.packets {
            self.sequence = self.sequence.wrapping_add(1);
            packet[0] = 0x80;
            packet[1] = self.payload_type;
            packet[2..4].copy_from_slice(&(self.sequence as u16).to_be_bytes());
            packet[4..8].copy_from_slice(&self.sequence.wrapping_mul(160).to_be_bytes());
            packet[8..12].copy_from_slice(&0xfeed_beefu32.to_be_bytes());
        }
        black_box(&mut self.packets);
    }

    fn now(&self) -> MonoTime {
        MonoTime(u64::from(self.sequence) * 20_000_000)
    }
}

/// One thing to measure: bursts of packets into one session or several in turn.
struct Case {
    name: &'static str,
    feed: Feed,
    sessions: Vec<MediaSession>,
    turn: usize,
    forwards: bool,
}

fn cases() -> Vec<Case> {
    let case = |name, payload_type, far_event| Case {
        name,
        feed: Feed::new(payload_type, peer(LegIndex::A)),
        sessions: vec![session(far_event)],
        turn: 0,
        forwards: true,
    };
    vec![
        case("RTP, same payload number", 0, 101),
        case("RTP, payload number mapped", 101, 96),
        Case {
            sessions: (0..MANY_SESSIONS).map(|_| session(101)).collect(),
            ..case("RTP, 1,000 sessions in turn", 0, 101)
        },
        Case {
            feed: Feed::new(0, address(66, 6_666)),
            forwards: false,
            ..case("RTP of a stranger, dropped", 0, 101)
        },
    ]
}

impl Case {
    /// Takes one burst and returns the nanoseconds of processor time it took, without its
    /// arrival.
    fn burst(&mut self) -> f64 {
        self.feed.arrive();
        let now = self.feed.now();
        let count = self.sessions.len();
        let mut forwarded = 0;
        let started = thread_nanos();
        for packet in &mut self.feed.packets {
            self.turn = if self.turn + 1 < count {
                self.turn + 1
            } else {
                0
            };
            let verdict =
                self.sessions[self.turn].handle_packet(now, LegIndex::A, &self.feed.meta, packet);
            forwarded += usize::from(matches!(black_box(verdict), Verdict::Forward(_)));
        }
        let spent = thread_nanos() - started;
        // What is measured must be what the name says.
        assert_eq!(forwarded, if self.forwards { BURST } else { 0 });
        spent
    }

    /// Mean nanoseconds per packet of one batch, and the batch's allocations.
    fn batch(&mut self) -> (f64, u64) {
        let allocations = ALLOCATOR.count();
        let spent: f64 = (0..BATCH_BURSTS).map(|_| self.burst()).sum();
        (
            spent / (BATCH_BURSTS * BURST) as f64,
            ALLOCATOR.count() - allocations,
        )
    }
}

/// Processor time of this thread: what others do on the machine meanwhile is not in it.
fn thread_nanos() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn report() -> anyhow::Result<()> {
    let mut report = Report::new(
        "rewrite",
        "The rewrite path: one packet from buffer to verdict",
        &["case", "ns/packet", "best batch", "allocations/packet"],
    );
    for mut case in cases() {
        case.batch();
        let mut means = Vec::with_capacity(BATCHES);
        let mut allocations = 0;
        for _ in 0..BATCHES {
            let (mean, count) = case.batch();
            means.push(mean);
            allocations += count;
        }
        means.sort_unstable_by(f64::total_cmp);
        let packets = (BATCHES * BATCH_BURSTS * BURST) as f64;
        report.rows.push(vec![
            json!(case.name),
            json!(means[BATCHES / 2]),
            json!(means[0]),
            json!(allocations as f64 / packets),
        ]);
    }
    report.method = vec![
        format!(
            "`MediaSession::handle_packet` on {RTP_LEN}-byte RTP packets in memory, one thread, bench profile (release, fat LTO)."
        ),
        format!(
            "Bursts of {BURST} packets, whose headers are written before the clock starts; processor time of the thread; median and best over {BATCHES} batches of {} packets.",
            BATCH_BURSTS * BURST
        ),
        "Allocations are counted by a global allocator around the same loop.".to_owned(),
    ];
    report.publish()
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("rewrite");
    group.throughput(Throughput::Elements(1));
    for mut case in cases() {
        group.bench_function(case.name, |bencher| {
            bencher.iter_custom(|packets| {
                let bursts = packets.div_ceil(BURST as u64);
                let nanos: f64 = (0..bursts).map(|_| case.burst()).sum();
                let share = packets as f64 / (bursts * BURST as u64) as f64;
                Duration::from_nanos((nanos * share) as u64)
            });
        });
    }
    group.finish();
    criterion.final_summary();
    // `cargo test --benches` only wants to see that everything runs.
    if std::env::args().any(|argument| argument == "--bench") {
        report().expect("bench/results is writable");
    }
}
