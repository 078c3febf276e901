//! The eventfds of a worker's two rings.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io;

/// The two eventfds of a region, non-blocking and closed on exec. Readable: look at the ring.
#[derive(Debug)]
pub struct Doorbells {
    /// Written by control when the worker sleeps.
    pub to_worker: OwnedFd,
    /// Written by the worker when control sleeps.
    pub to_control: OwnedFd,
}

impl Doorbells {
    /// Makes a pair.
    ///
    /// # Errors
    /// The kernel's: out of file descriptors.
    pub fn create() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self {
            to_worker: eventfd(0, flags)?,
            to_control: eventfd(0, flags)?,
        })
    }
}

/// Makes the eventfd readable. That it may already be so, to the brim, changes nothing.
pub(crate) fn ring(fd: impl AsFd) {
    // EAGAIN means that the count is at its maximum, and then the fd is readable.
    let _ = io::retry_on_intr(|| io::write(&fd, &1u64.to_ne_bytes()));
}

/// Makes the eventfd unreadable until it rings again.
pub(crate) fn silence(fd: impl AsFd) {
    let mut count = [0; 8];
    // EAGAIN means that it had not rung.
    let _ = io::retry_on_intr(|| io::read(&fd, &mut count));
}
