//! What the benches of a single packet share: packets in bursts, the time of a burst, and its
//! mean per packet, for criterion and for a report.

use std::time::Duration;

use criterion::{Criterion, Throughput};
use rustix::time::{ClockId, clock_gettime};
use trunkline_bench::allocation_counter::CountingAllocator;

/// Packets that lie ready when the clock starts.
pub(crate) const BURST: usize = 256;
/// Bursts per batch of the report.
const BATCH_BURSTS: usize = 200;
/// Batches of the report; the median of their means is reported.
const BATCHES: usize = 101;
/// Readings from which the clock's own cost is taken.
const CLOCK_READINGS: usize = 1_001;

/// One thing to measure.
pub(crate) trait PerPacket {
    /// What is measured.
    fn name(&self) -> &str;

    /// Makes [`BURST`] packets ready. Not timed.
    fn arrive(&mut self);

    /// Takes each of them, and counts those that became what the name says.
    fn take(&mut self) -> usize;
}

/// What one packet costs.
pub(crate) struct Figures {
    /// Nanoseconds: median over the batches.
    pub(crate) median: f64,
    /// Nanoseconds: the best batch.
    pub(crate) best: f64,
    /// Heap allocations.
    pub(crate) allocations: f64,
}

/// A clock that knows what reading it costs.
struct Stopwatch {
    reading_nanos: f64,
}

impl Stopwatch {
    fn new() -> Self {
        let mut readings: Vec<f64> = (0..CLOCK_READINGS)
            .map(|_| {
                let started = thread_nanos();
                thread_nanos() - started
            })
            .collect();
        readings.sort_unstable_by(f64::total_cmp);
        Self {
            reading_nanos: readings[CLOCK_READINGS / 2],
        }
    }

    /// Nanoseconds of processor time that one burst takes, without its arrival.
    fn burst(&self, case: &mut impl PerPacket) -> f64 {
        case.arrive();
        let started = thread_nanos();
        let done = case.take();
        let spent = thread_nanos() - started - self.reading_nanos;
        assert_eq!(done, BURST, "{}", case.name());
        spent
    }
}

/// Processor time of this thread: what others do on the machine meanwhile is not in it.
fn thread_nanos() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// Figures of `case` for a report.
pub(crate) fn measure(case: &mut impl PerPacket, allocator: &CountingAllocator) -> Figures {
    let stopwatch = Stopwatch::new();
    let mut batch = || {
        let spent: f64 = (0..BATCH_BURSTS).map(|_| stopwatch.burst(case)).sum();
        spent / (BATCH_BURSTS * BURST) as f64
    };
    batch();
    let mut means = Vec::with_capacity(BATCHES);
    let allocations = allocator.count();
    means.extend((0..BATCHES).map(|_| batch()));
    let allocations = allocator.count() - allocations;
    means.sort_unstable_by(f64::total_cmp);
    Figures {
        median: means[BATCHES / 2],
        best: means[0],
        allocations: allocations as f64 / (BATCHES * BATCH_BURSTS * BURST) as f64,
    }
}

/// How [`measure`] does it, for a report's method.
pub(crate) fn method() -> [String; 2] {
    [
        format!(
            "Bursts of {BURST} packets that lie ready before the clock starts; processor time of the thread, without the reading of the clock; median and best over {BATCHES} batches of {} packets.",
            BATCH_BURSTS * BURST
        ),
        "Allocations are counted by a global allocator around the same loop.".to_owned(),
    ]
}

/// Times by criterion, for comparison between two builds.
pub(crate) fn compare<C: PerPacket>(group: &str, cases: impl IntoIterator<Item = C>) {
    let stopwatch = Stopwatch::new();
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group(group);
    group.throughput(Throughput::Elements(1));
    for mut case in cases {
        let name = case.name().to_owned();
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|packets| {
                let bursts = packets.div_ceil(BURST as u64);
                let nanos: f64 = (0..bursts).map(|_| stopwatch.burst(&mut case)).sum();
                let share = packets as f64 / (bursts * BURST as u64) as f64;
                Duration::from_nanos((nanos * share).max(0.0) as u64)
            });
        });
    }
    group.finish();
    criterion.final_summary();
}

/// Whether a report is asked for: `cargo test --benches` only wants to see that everything runs.
pub(crate) fn is_measuring() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}
