//! How a side that is about to wait in the kernel makes sure to be woken.
//!
//! Writing an eventfd is a system call, so a sender makes it only when the receiver sleeps. The
//! receiver says so in a word of the region, then looks at the ring once more; the sender writes
//! to the ring, then looks at that word. Both put a sequentially consistent fence between their
//! two steps, so at least one of them sees what the other did:
//!
//! ```text
//! receiver                         sender
//!   announce: sleeping = 1           head = …
//!   fence                            fence
//!   head unchanged? then wait        peer_sleeps: sleeping = 1? then write the eventfd
//! ```
//!
//! Only the receiver writes its word. A sender may so write the eventfd more than once before the
//! receiver is up; that costs a system call, and no wake-up depends on a sender that was killed
//! between two steps having cleared anything. What such a sender did not ring for, the receiver
//! finds when its wait times out: both daemons wake for their heartbeats anyway.

use crate::sync::{AtomicU64, Ordering, fence};

/// Says that this side is about to wait. It must look at its ring once more before it does.
pub fn announce(sleeping: &AtomicU64) {
    sleeping.store(1, Ordering::Relaxed);
    fence(Ordering::SeqCst);
}

/// Says that this side is awake.
pub fn retract(sleeping: &AtomicU64) {
    sleeping.store(0, Ordering::Relaxed);
}

/// Whether the peer may be waiting. To be asked after the ring was written.
#[must_use]
pub fn peer_sleeps(sleeping: &AtomicU64) -> bool {
    fence(Ordering::SeqCst);
    sleeping.load(Ordering::Relaxed) != 0
}
