//! The connection to the edge process: handshake, rings, wake-ups.
//!
//! Lives on the call thread. Nothing here waits for the edge except [`EdgeLink::connect`], which
//! does its waiting on a helper thread, and [`EdgeLink::readable`], which the call thread awaits
//! among its other sources.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};

use tokio::io::unix::AsyncFd;
use trunkline_edge_api::{Epoch, Event, MonoTime, WorkerIndex};
use trunkline_ring::handshake::{ConnectError, ControlConnection};
use trunkline_ring::{ControlEnd, RecvError, SendError};

use super::proxy::{EdgeProxy, WorkerInfo};

/// Events taken from one worker before the call thread looks at its other sources.
const EVENTS_PER_TURN_MAX: usize = 256;

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The handshake failed.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The runtime could not watch a descriptor.
    #[error("cannot watch the edge's descriptors: {0}")]
    Watch(#[from] io::Error),
    /// The helper thread died.
    #[error("the thread that connects to the edge failed")]
    Helper,
}

/// Why [`EdgeLink::readable`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkEvent {
    /// A worker may have events.
    Events,
    /// The edge process is gone; drop the link and connect anew.
    HungUp,
}

/// A live connection to one edge process.
#[derive(Debug)]
pub struct EdgeLink {
    ends: Vec<AsyncFd<ControlEnd>>,
    connection: AsyncFd<Connection>,
}

impl EdgeLink {
    /// Takes control of the edge that listens at `path`.
    ///
    /// # Errors
    /// [`LinkError`]; its text says what to do.
    pub async fn connect(path: &Path, epoch: Epoch) -> Result<Self, LinkError> {
        let path = PathBuf::from(path);
        let connected =
            tokio::task::spawn_blocking(move || ControlConnection::connect(&path, epoch));
        let (connection, ends) = connected.await.map_err(|_| LinkError::Helper)??;
        let mut link = Self {
            ends: ends.into_iter().map(watch).collect::<io::Result<_>>()?,
            connection: watch(Connection(connection))?,
        };
        for end in &mut link.ends {
            // True once after attaching; the replay that follows a connection covers it.
            let _ = end.get_mut().take_resync();
        }
        Ok(link)
    }

    /// The workers, in order.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerInfo> {
        let ends = self.ends.iter().map(AsyncFd::get_ref);
        ends.map(|end| WorkerInfo {
            worker: end.worker(),
            ports: end.ports(),
            generation: end.generation(),
        })
        .collect()
    }

    /// The rings' ends, for their counters.
    pub fn ends(&self) -> impl Iterator<Item = &ControlEnd> {
        self.ends.iter().map(AsyncFd::get_ref)
    }

    /// Says that control lives.
    pub fn beat(&self, now: MonoTime) {
        for end in self.ends() {
            end.beat(now);
        }
    }

    /// Waits until a worker has events or the edge is gone. Cancel-safe.
    pub async fn readable(&mut self) -> LinkEvent {
        let ends: Vec<&ControlEnd> = self.ends().collect();
        // Every end announces, also when another already has something to read.
        let mut may_wait = true;
        for end in &ends {
            may_wait &= end.before_wait();
        }
        let awake = AfterWait(&ends);
        if !may_wait {
            return LinkEvent::Events;
        }
        let event = poll_fn(|context| self.poll_readable(context)).await;
        drop(awake);
        event
    }

    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<LinkEvent> {
        if let Poll::Ready(ready) = self.connection.poll_read_ready(context) {
            if self.connection.get_ref().0.has_hung_up() {
                return Poll::Ready(LinkEvent::HungUp);
            }
            if let Ok(mut guard) = ready {
                guard.clear_ready();
            }
            context.waker().wake_by_ref();
        }
        let mut has_events = false;
        for end in &self.ends {
            if let Poll::Ready(ready) = end.poll_read_ready(context) {
                if let Ok(mut guard) = ready {
                    guard.get_inner().silence_doorbell();
                    guard.clear_ready();
                }
                has_events = true;
            }
        }
        if has_events {
            Poll::Ready(LinkEvent::Events)
        } else {
            Poll::Pending
        }
    }

    /// Takes what the workers have said, into `events`; a bounded number, more may be left.
    pub fn receive(&mut self, proxy: &mut EdgeProxy, events: &mut Vec<Event>) {
        for end in &mut self.ends {
            let end = end.get_mut();
            for _ in 0..EVENTS_PER_TURN_MAX {
                match end.recv_event() {
                    Ok(Some(event)) => events.push(event),
                    Ok(None) => break,
                    Err(RecvError::Undecodable(error)) => {
                        tracing::warn!(worker = %end.worker(), %error, "event skipped");
                    }
                    Err(RecvError::Poisoned(fault)) => {
                        tracing::error!(worker = %end.worker(), %fault, "rings taken anew");
                        end.reattach();
                        break;
                    }
                }
            }
            if end.take_resync() {
                tracing::warn!(worker = %end.worker(), "events were lost; saying all again");
                proxy.handle_resync(end.worker());
            }
        }
    }

    /// Puts the proxy's commands on the rings, as far as there is room.
    pub fn send(&mut self, proxy: &mut EdgeProxy) {
        for (index, end) in self.ends.iter_mut().enumerate() {
            let (worker, end) = (WorkerIndex(index as u16), end.get_mut());
            while let Some(command) = proxy.peek_command(worker) {
                match end.send_command(command) {
                    Ok(()) => proxy.command_sent(worker),
                    Err(SendError::Full) => {
                        proxy.ring_was_full();
                        break;
                    }
                    Err(SendError::Poisoned(fault)) => {
                        tracing::error!(%worker, %fault, "rings taken anew");
                        end.reattach();
                        proxy.handle_resync(worker);
                        break;
                    }
                }
            }
        }
    }
}

/// Watches a descriptor for readability. `T` owns its descriptor and never exchanges it, which is
/// what the unsafe successor of this constructor asks for; both types here do.
#[expect(
    deprecated,
    reason = "the successor is unsafe, and this crate forbids unsafe code"
)]
fn watch<T: AsRawFd>(inner: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::new(inner)
}

/// Readable when the edge has gone.
#[derive(Debug)]
struct Connection(ControlConnection);

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Takes the announcement to sleep back, also when the wait was cancelled.
struct AfterWait<'a>(&'a [&'a ControlEnd]);

impl Drop for AfterWait<'_> {
    fn drop(&mut self) {
        for end in self.0 {
            end.after_wait();
        }
    }
}
