//! What 20 ms of a load cost.

use anyhow::{Result, ensure};
use rustix::time::{ClockId, clock_gettime};

use super::load::Load;
use crate::allocation_counter::CountingAllocator;

/// Frames before the measurement: buffers fill, codecs and gates settle.
const WARM_UP_FRAMES: usize = 60;
/// Frames per batch.
pub(super) const BATCH_FRAMES: usize = 15;
/// Batches; the median of their means is reported. Together all of the recorded speech.
pub(super) const BATCHES: usize = 19;

/// What one direction of one session costs per 20 ms.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    /// Nanoseconds: median over the batches.
    pub(super) median_nanos: f64,
    /// Nanoseconds: the best batch.
    pub(super) best_nanos: f64,
    /// Nanoseconds: the worst batch.
    pub(super) worst_nanos: f64,
    /// Heap allocations, of all threads.
    pub(super) allocations: f64,
    /// Nanoseconds of other threads' processor time.
    pub(super) beside_nanos: f64,
}

/// Measures `load`, out of which `streams` packets should come every 20 ms.
pub(super) fn measure(
    load: &mut dyn Load,
    streams: usize,
    allocator: &CountingAllocator,
) -> Result<Cost> {
    for _ in 0..WARM_UP_FRAMES {
        load.arrive();
        load.take();
    }
    let mut means = Vec::with_capacity(BATCHES);
    let mut sent = 0;
    let mut allocations = 0;
    let beside = nanos(ClockId::ProcessCPUTime) - nanos(ClockId::ThreadCPUTime);
    for _ in 0..BATCHES {
        let mut spent = 0.0;
        for _ in 0..BATCH_FRAMES {
            load.arrive();
            let allocated = allocator.count();
            let started = nanos(ClockId::ThreadCPUTime);
            sent += load.take();
            spent += nanos(ClockId::ThreadCPUTime) - started;
            allocations += allocator.count() - allocated;
        }
        means.push(spent / (BATCH_FRAMES * streams) as f64);
    }
    let beside = nanos(ClockId::ProcessCPUTime) - nanos(ClockId::ThreadCPUTime) - beside;
    means.sort_unstable_by(f64::total_cmp);
    let frames = (BATCHES * BATCH_FRAMES * streams) as f64;
    // What is measured must be what the name says: nobody's packets stay away.
    ensure!(
        (sent as f64 / frames - 1.0).abs() < 0.001,
        "{sent} packets left in place of {frames}"
    );
    Ok(Cost {
        median_nanos: means[BATCHES / 2],
        best_nanos: means[0],
        worst_nanos: means[BATCHES - 1],
        allocations: allocations as f64 / frames,
        beside_nanos: beside / frames,
    })
}

fn nanos(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}
