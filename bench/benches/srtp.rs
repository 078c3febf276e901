//! SRTP alone: what protecting and opening one packet costs per suite, without the kernel and
//! without a session around it. Times by criterion (for comparison between two builds), and a
//! report of nanoseconds and allocations per packet in `bench/results/srtp.*`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use trunkline_bench::allocation_counter::CountingAllocator;
use trunkline_bench::report::Report;
use trunkline_edge_api::Ssrc;
use trunkline_edge_api::crypto::{SrtpKey, SrtpSuite};
use trunkline_media::PacketBuf;
use trunkline_media::srtp::{OVERHEAD_MAX, OpenContext, SealContext};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

/// 20 ms of G.711 behind a bare RTP header.
const RTP_LEN: usize = 12 + 160;
/// Packets that lie ready when the clock starts.
const BURST: usize = 256;
/// Bursts per batch of the report.
const BATCH_BURSTS: usize = 100;
/// Batches of the report; the median of their means is reported.
const BATCHES: usize = 101;

const SSRC: Ssrc = Ssrc(0xfeed_beef);

/// Nanoseconds per packet that the specification allows to protect one.
fn target_nanos(suite: SrtpSuite) -> u32 {
    match suite {
        SrtpSuite::AeadAes128Gcm | SrtpSuite::AeadAes256Gcm => 90,
        _ => 170,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Protect,
    Open,
}

struct Case {
    name: String,
    suite: SrtpSuite,
    way: Way,
    seal: SealContext,
    open: OpenContext,
    packets: Vec<([u8; RTP_LEN + OVERHEAD_MAX], usize)>,
    sequence: u16,
}

impl Case {
    fn new(suite: SrtpSuite, way: Way) -> Self {
        let bytes: Vec<u8> = (0..suite.key_len() + suite.salt_len())
            .map(|n| (n * 29) as u8)
            .collect();
        let key = SrtpKey::new(suite, &bytes).expect("the suite's length");
        let verb = match way {
            Way::Protect => "protect",
            Way::Open => "open",
        };
        Self {
            name: format!("{}, {verb}", suite.sdes_name()),
            suite,
            way,
            seal: SealContext::new(suite, &key, SSRC),
            open: OpenContext::new(suite, &key),
            packets: vec![([0xd5; RTP_LEN + OVERHEAD_MAX], RTP_LEN); BURST],
            sequence: 0,
        }
    }

    /// Writes the next headers, and seals what is to be opened.
    fn arrive(&mut self) {
        for (packet, len) in &mut self.packets {
            self.sequence = self.sequence.wrapping_add(1);
            packet[..2].copy_from_slice(&[0x80, 0]);
            packet[2..4].copy_from_slice(&self.sequence.to_be_bytes());
            packet[8..12].copy_from_slice(&SSRC.0.to_be_bytes());
            *len = RTP_LEN;
            if self.way == Way::Open {
                let mut buf = PacketBuf::new(packet, RTP_LEN);
                self.seal.seal_rtp(&mut buf).expect("a new number");
                *len = buf.len();
            }
        }
    }

    /// Takes one burst and returns the nanoseconds of processor time it took, without its
    /// arrival.
    fn burst(&mut self) -> f64 {
        self.arrive();
        let mut done = 0;
        let started = thread_nanos();
        for (packet, len) in &mut self.packets {
            let mut buf = PacketBuf::new(packet, *len);
            let result = match self.way {
                Way::Protect => self.seal.seal_rtp(&mut buf),
                Way::Open => self.open.open_rtp(&mut buf),
            };
            done += usize::from(black_box(result).is_ok());
        }
        let spent = thread_nanos() - started;
        // What is measured must be what the name says.
        assert_eq!(done, BURST);
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

fn cases() -> impl Iterator<Item = Case> {
    SrtpSuite::ALL
        .into_iter()
        .flat_map(|suite| [Way::Protect, Way::Open].map(|way| Case::new(suite, way)))
}

/// Processor time of this thread: what others do on the machine meanwhile is not in it.
fn thread_nanos() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn report() -> anyhow::Result<()> {
    let mut report = Report::new(
        "srtp",
        "SRTP: one packet protected or opened",
        &[
            "case",
            "ns/packet",
            "best batch",
            "target",
            "allocations/packet",
        ],
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
        let target = match case.way {
            Way::Protect => format!("<= {}", target_nanos(case.suite)),
            Way::Open => "-".to_owned(),
        };
        report.rows.push(vec![
            json!(case.name),
            json!(means[BATCHES / 2]),
            json!(means[0]),
            json!(target),
            json!(allocations as f64 / packets),
        ]);
    }
    report.method = vec![
        format!(
            "`SealContext::seal_rtp` and `OpenContext::open_rtp` on {RTP_LEN}-byte RTP packets (160 of payload) in memory, in place, one thread, bench profile (release, fat LTO)."
        ),
        format!(
            "Bursts of {BURST} packets that lie ready before the clock starts; processor time of the thread; median and best over {BATCHES} batches of {} packets.",
            BATCH_BURSTS * BURST
        ),
        "Allocations are counted by a global allocator around the same loop.".to_owned(),
    ];
    report.publish()
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("srtp");
    group.throughput(Throughput::Elements(1));
    for mut case in cases() {
        let name = case.name.clone();
        group.bench_function(name, |bencher| {
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
