//! How commands, events and counters travel: a sealed shared-memory region per worker.
//!
//! ```text
//!  control                       region (memfd)                        worker
//!  ControlEnd ── send_command ──► command ring ──── recv_command ──► WorkerEnd
//!      ▲  ╰───── eventfd, only while the worker sleeps ─────────────────► │
//!      ╰──────── recv_event ───── event ring ◄───── send_event ───────────╯
//!                counter ──────── counters page ◄── CounterCells
//! ```
//!
//! What may be said is `trunkline-edge-api`'s business; this crate moves the bytes.
//!
//! - [`queue`]: a single-producer single-consumer ring of byte records. Never waits.
//! - [`sleep`]: how a side that is about to wait in the kernel makes sure to be woken.
//! - [`Region`]: the mapped memory, checked before use.
//! - [`WorkerEnd`], [`ControlEnd`]: one side each of a worker's two rings.
//! - [`ObservedRegion`]: counters and heartbeats, read-only, for `status`.
//! - [`handshake`]: the Unix socket on which the edge hands regions out.
//!
//! # What a peer may do to us
//!
//! Nothing worse than to go silent. The region is used as `&[AtomicU64]`, so a peer that writes
//! where it should not causes wrong values, never undefined behaviour; it is sealed against
//! shrinking, so no access faults; bytes are copied out before they are looked at; and an index or
//! length that cannot be is a [`RingFault`], after which that end neither reads nor writes until
//! a fresh control attaches (see [`ControlEnd`]).
//!
//! # Who dies and what is left
//!
//! A record becomes visible with the store of the head index that follows its bytes, so a writer
//! killed in the middle of one leaves nothing to see. A reader counts a record as read before it
//! hands it out: a reader that is killed may lose the one record in its hands, none is delivered
//! twice. Indices live in the region, so whoever comes next continues where the dead one was.

#[cfg(not(target_pointer_width = "64"))]
compile_error!("the region is read as 64-bit atomics, which this target does not have");

pub mod queue;
pub mod sleep;
mod sync;

#[cfg(not(loom))]
mod control;
#[cfg(not(loom))]
mod counters;
#[cfg(not(loom))]
mod doorbell;
#[cfg(not(loom))]
pub mod handshake;
#[cfg(not(loom))]
mod mapping;
#[cfg(not(loom))]
mod region;
#[cfg(not(loom))]
mod view;
#[cfg(not(loom))]
mod worker;

#[cfg(not(loom))]
pub use self::{
    control::ControlEnd,
    counters::{CellIndex, CounterCells},
    doorbell::Doorbells,
    region::{ObservedRegion, Region, RegionError, RegionSpec},
    view::RegionView,
    worker::{WorkerEnd, WorkerFds},
};
pub use queue::RingFault;

use trunkline_edge_api::wire::DecodeError;

/// Why a message was not sent. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The ring has no room for it, or what room there is is kept for events that must arrive.
    /// Counted in the region, where `status` shows it.
    #[error("the ring is full")]
    Full,
    /// The peer's words make no sense; the end is out of use.
    #[error("the ring is out of use: {0}")]
    Poisoned(RingFault),
}

/// Why a message was not received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecvError {
    /// A record was taken off the ring, but its bytes are no message. The next may be one.
    #[error("undecodable message: {0}")]
    Undecodable(#[from] DecodeError),
    /// The peer's words make no sense; the end is out of use. Told once: from then on there is
    /// nothing to receive, and `fault()` says why.
    #[error("the ring is out of use: {0}")]
    Poisoned(RingFault),
}

/// Now on `CLOCK_MONOTONIC`, the clock of all heartbeats.
#[cfg(not(loom))]
#[must_use]
pub fn monotonic_now() -> trunkline_edge_api::MonoTime {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    trunkline_edge_api::MonoTime(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
}
