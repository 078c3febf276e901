//! What the measurements of media share: a wire, a relay at one end of it, a generator and a far
//! end at the other.
//!
//! ```text
//!   core 0: generator ──veth──▶ core 1: softirq receive, relay, transmit ──veth──▶ far end (XDP)
//! ```

use anyhow::Result;
use rustix::thread::{CpuSet, sched_setaffinity};

pub(crate) mod edge;
pub(crate) mod far_end;
pub(crate) mod generator;
pub(crate) mod peer;
pub(crate) mod rtpengine;
pub(crate) mod voice;
pub(crate) mod window;
pub(crate) mod wire;

/// Binds this thread, and those that it starts, to one core.
pub(crate) fn pin(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores)?;
    Ok(())
}
