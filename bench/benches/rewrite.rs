//! The rewrite path: what one packet costs from the worker's buffer to the verdict, without the
//! kernel. Times by criterion (for comparison between two builds), and a report of nanoseconds
//! and allocations per packet in `bench/results/rewrite.*`.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use criterion::{Criterion, Throughput};
use serde_json::json;
use trunkline_bench::allocation_counter::CountingAllocator;
use trunkline_bench::report::Report;
use trunkline_edge_api::{
    ClockRateHz, LegConfig, LegIndex, LocalMedia, MediaDirection, MonoTime, PayloadRoute,
    PayloadRoutes, PayloadType, RtcpMode, SourcePolicy, Ssrc,
};
use trunkline_media::session::{MediaSession, RxMeta, SessionCommand, SocketKind, Verdict};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

/// 20 ms of G.711 behind a bare RTP header.
const RTP_LEN: usize = 172;
/// Packets per batch of the report.
const BATCH: u32 = 100_000;
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
        };
        session
            .handle_command(SessionCommand::OpenLeg(leg, local))
            .expect("the leg opens");
        session
            .handle_command(SessionCommand::ConfigureLeg(leg, config))
            .expect("the leg takes its configuration");
    }
    session
}

/// What arrives, packet after packet.
struct Feed {
    packet: [u8; RTP_LEN],
    meta: RxMeta,
    sequence: u32,
}

impl Feed {
    fn new(payload_type: u8, source: SocketAddr) -> Self {
        let mut packet = [0xd5; RTP_LEN];
        packet[0] = 0x80;
        packet[1] = payload_type;
        Self {
            packet,
            meta: RxMeta {
                source,
                socket: SocketKind::Rtp,
                truncated: false,
            },
            sequence: 0,
        }
    }

    /// Writes the next header over the rewritten one, as the kernel would bring a new packet.
    fn arrive(&mut self) -> MonoTime {
        self.sequence = self.sequence.wrapping_add(1);
        self.packet[2..4].copy_from_slice(&(self.sequence as u16).to_be_bytes());
        self.packet[4..8].copy_from_slice(&self.sequence.wrapping_mul(160).to_be_bytes());
        self.packet[8..12].copy_from_slice(&0xfeed_beefu32.to_be_bytes());
        MonoTime(u64::from(self.sequence) * 20_000_000)
    }
}

/// One thing to measure: returns the verdict on the next packet.
struct Case {
    name: &'static str,
    step: Box<dyn FnMut() -> Verdict>,
}

fn cases() -> Vec<Case> {
    let relay = |name, payload_type, far_event| {
        let mut session = session(far_event);
        let mut feed = Feed::new(payload_type, peer(LegIndex::A));
        Case {
            name,
            step: Box::new(move || {
                let now = feed.arrive();
                session.handle_packet(now, LegIndex::A, &feed.meta, &mut feed.packet)
            }),
        }
    };
    let mut many: Vec<MediaSession> = (0..MANY_SESSIONS).map(|_| session(101)).collect();
    let mut many_feed = Feed::new(0, peer(LegIndex::A));
    let mut turn = 0;
    let mut stranger_session = session(101);
    let mut stranger = Feed::new(0, address(66, 6_666));
    let mut idle = Feed::new(0, peer(LegIndex::A));
    vec![
        Case {
            name: "header written, nothing relayed (to subtract)",
            step: Box::new(move || {
                black_box(idle.arrive());
                black_box(&mut idle.packet);
                Verdict::Consumed
            }),
        },
        relay("RTP, same payload number", 0, 101),
        relay("RTP, payload number mapped", 101, 96),
        Case {
            name: "RTP, 1,000 sessions in turn",
            step: Box::new(move || {
                let now = many_feed.arrive();
                turn = (turn + 1) % MANY_SESSIONS;
                many[turn].handle_packet(now, LegIndex::A, &many_feed.meta, &mut many_feed.packet)
            }),
        },
        Case {
            name: "RTP of a stranger, dropped",
            step: Box::new(move || {
                let now = stranger.arrive();
                stranger_session.handle_packet(
                    now,
                    LegIndex::A,
                    &stranger.meta,
                    &mut stranger.packet,
                )
            }),
        },
    ]
}

/// Mean nanoseconds of one batch, and its allocations.
fn batch(case: &mut Case) -> (f64, u64) {
    let allocations = ALLOCATOR.count();
    let started = Instant::now();
    for _ in 0..BATCH {
        let _ = black_box((case.step)());
    }
    let spent = started.elapsed();
    (
        spent.as_secs_f64() * 1e9 / f64::from(BATCH),
        ALLOCATOR.count() - allocations,
    )
}

fn report() -> anyhow::Result<()> {
    let mut report = Report::new(
        "rewrite",
        "The rewrite path: one packet from buffer to verdict",
        &["case", "ns/packet", "net of header", "allocations/packet"],
    );
    let mut overhead = 0.0;
    for mut case in cases() {
        batch(&mut case);
        let mut means = Vec::with_capacity(BATCHES);
        let mut allocations = 0;
        for _ in 0..BATCHES {
            let (mean, count) = batch(&mut case);
            means.push(mean);
            allocations += count;
        }
        means.sort_unstable_by(f64::total_cmp);
        let median = means[BATCHES / 2];
        if report.rows.is_empty() {
            overhead = median;
        }
        let per_packet = allocations as f64 / (f64::from(BATCH) * BATCHES as f64);
        report.rows.push(vec![
            json!(case.name),
            json!(median),
            json!(median - overhead),
            json!(per_packet),
        ]);
    }
    report.method = vec![
        format!(
            "`MediaSession::handle_packet` on {RTP_LEN}-byte RTP packets in memory, one thread, bench profile (release, fat LTO)."
        ),
        format!(
            "Median over {BATCHES} batches of {BATCH} packets; the header is written anew before each packet, and that cost is measured by the first row."
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
        group.bench_function(case.name, |bencher| bencher.iter(|| (case.step)()));
    }
    group.finish();
    criterion.final_summary();
    // `cargo test --benches` only wants to see that everything runs.
    if std::env::args().any(|argument| argument == "--bench") {
        report().expect("bench/results is writable");
    }
}
