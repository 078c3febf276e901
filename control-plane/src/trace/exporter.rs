//! Sends what is traced to a capture server, from a thread of its own.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use super::{Traced, hep};

/// Messages that may wait for the thread: a second of a busy node.
const WAITING_MAX: usize = 16_384;

/// Counts since the start.
#[derive(Debug, Default)]
pub struct ExportCounters {
    sent: AtomicU64,
    lost: AtomicU64,
}

impl ExportCounters {
    /// Messages given to the network.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Messages that found no room, were too long, or that the network refused.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// A running exporter. Dropping it stops the thread once it has sent what waits.
#[derive(Debug)]
pub struct Exporter {
    waiting: Option<SyncSender<Traced>>,
    counters: Arc<ExportCounters>,
    thread: Option<JoinHandle<()>>,
}

impl Exporter {
    /// Exports to `server` under the name `agent`.
    ///
    /// # Errors
    /// No socket, or no thread.
    pub fn spawn(server: SocketAddr, agent: u32) -> io::Result<Self> {
        let any: SocketAddr = match server {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0u16; 8], 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect(server)?;
        let counters = Arc::new(ExportCounters::default());
        let (waiting, received) = sync_channel(WAITING_MAX);
        let thread = std::thread::Builder::new().name("hep".to_owned()).spawn({
            let counters = Arc::clone(&counters);
            move || run(&socket, agent, &received, &counters)
        })?;
        Ok(Self {
            waiting: Some(waiting),
            counters,
            thread: Some(thread),
        })
    }

    /// Hands a message over; one that finds no room is lost and counted.
    pub fn submit(&self, traced: Traced) {
        let Some(waiting) = &self.waiting else {
            return;
        };
        match waiting.try_send(traced) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.counters.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Its counts.
    #[must_use]
    pub fn counters(&self) -> &ExportCounters {
        &self.counters
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.waiting = None;
        if let Some(thread) = self.thread.take() {
            // A panic in there has been reported by the hook.
            let _ = thread.join();
        }
    }
}

fn run(socket: &UdpSocket, agent: u32, received: &Receiver<Traced>, counters: &ExportCounters) {
    for traced in received {
        let is_sent = hep::write(&traced, agent).is_some_and(|packet| socket.send(&packet).is_ok());
        let count = if is_sent {
            &counters.sent
        } else {
            &counters.lost
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}
