//! Keeping the counters page up to date.

use trunkline_edge_api::{Counter, DropReason, Histogram, MonoTime};
use trunkline_media::MediaKind;
use trunkline_ring::CounterCells;

use crate::tier::TierCounters;

/// Counts one packet that a peer sent and that its session accepted.
#[inline]
pub(crate) fn count_received(cells: &CounterCells, kind: MediaKind, len: usize) {
    match kind {
        MediaKind::Rtp => {
            cells.add(Counter::RxRtpPackets, 1);
            cells.add(Counter::RxRtpBytes, len as u64);
        }
        MediaKind::Rtcp => cells.add(Counter::RxRtcpPackets, 1),
    }
}

/// Counts one packet that the kernel took.
#[inline]
pub(crate) fn count_sent(cells: &CounterCells, kind: MediaKind, len: usize) {
    match kind {
        MediaKind::Rtp => {
            cells.add(Counter::TxRtpPackets, 1);
            cells.add(Counter::TxRtpBytes, len as u64);
        }
        MediaKind::Rtcp => cells.add(Counter::TxRtcpPackets, 1),
    }
}

/// Counts one packet that went no further.
#[inline]
pub(crate) fn count_dropped(cells: &CounterCells, reason: DropReason) {
    cells.add(reason, 1);
}

/// A duty cycle that did work.
pub(crate) fn count_busy_cycle(cells: &CounterCells, start: MonoTime, end: MonoTime) {
    let nanos = end.nanos_since(start);
    cells.add(Counter::BusyCycles, 1);
    cells.add(Counter::BusyNanos, nanos);
    cells.max(Counter::CycleMaxNanos, nanos);
}

/// A duty cycle that sent packets on: `start` is when it found them, `end` when the kernel had the
/// last of them. One value per cycle, so it costs a few nanoseconds per packet at most.
pub(crate) fn observe_forwarding(cells: &CounterCells, start: MonoTime, end: MonoTime) {
    cells.observe(Histogram::ForwardLatencyNanos, end.nanos_since(start));
}

/// What others count and the page shows.
pub(crate) fn publish_gauges(cells: &CounterCells, tier: &TierCounters, session_count: usize) {
    cells.set(Counter::SessionsActive, session_count as u64);
    cells.set(Counter::SocketsOpen, tier.sockets_open);
    cells.set(Counter::BuffersInFlight, tier.buffers_in_flight);
    cells.set(Counter::RxBuffersExhausted, tier.rx_buffers_exhausted);
    cells.set(Counter::RxRearmed, tier.rx_rearmed);
    cells.set(Counter::CqOverflows, tier.cq_overflows);
    cells.set(Counter::SocketsConnected, tier.sockets_connected);
    cells.set(Counter::SendsRetried, tier.sends_retried);
}
