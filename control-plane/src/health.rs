//! What the call thread says about itself, for `/healthz`, `/readyz` and `status`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use trunkline_edge_api::MonoTime;

/// A call thread that has not gone round for this long is stuck: it wakes at least once a second.
const BEAT_AGE_MAX_NANOS: u64 = 5_000_000_000;

/// Written by the call thread, read by everybody. No figure waits for another.
#[derive(Debug, Default)]
pub struct Health {
    beat: AtomicU64,
    edge_connected: AtomicBool,
    draining: AtomicBool,
}

impl Health {
    /// The call thread goes round. Called at least once a second.
    pub fn beat(&self, now: MonoTime) {
        self.beat.store(now.0, Relaxed);
    }

    /// Whether the edge's rings are attached.
    pub fn set_edge_connected(&self, connected: bool) {
        self.edge_connected.store(connected, Relaxed);
    }

    /// No new calls are taken any more.
    pub fn set_draining(&self) {
        self.draining.store(true, Relaxed);
    }

    /// Whether the call thread goes round. Not before its first [`Self::beat`].
    #[must_use]
    pub fn is_alive(&self, now: MonoTime) -> bool {
        let beat = self.beat.load(Relaxed);
        beat != 0 && now.nanos_since(MonoTime(beat)) <= BEAT_AGE_MAX_NANOS
    }

    /// Whether the edge's rings are attached.
    #[must_use]
    pub fn is_edge_connected(&self) -> bool {
        self.edge_connected.load(Relaxed)
    }

    /// Whether the daemon is stopping.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }
}
