//! What the main thread and the workers share: a few words, none of them ever waited for.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam::channel::{Receiver, Sender, bounded};
use trunkline_edge_api::{MonoTime, SessionId, WorkerIndex};

/// Notices that wait for the main thread. More are dropped: they are for people, and everything
/// they speak of is counted.
const NOTICES_MAX: usize = 256;

/// What a worker wants logged. Workers do not log themselves: a full pipe behind standard error
/// would hold up media.
#[derive(Debug)]
pub(crate) struct Notice {
    pub(crate) worker: WorkerIndex,
    pub(crate) kind: NoticeKind,
}

#[derive(Debug)]
pub(crate) enum NoticeKind {
    /// The kernel refused a media socket for a reason that control has no word for.
    SocketFailed {
        local: std::net::SocketAddr,
        error: std::io::Error,
    },
    /// Control's words in the region make no sense.
    RingFault(trunkline_ring::RingFault),
    /// A session was closed because its code panicked.
    SessionPanicked { session: SessionId, message: String },
    /// A session was closed because neither control nor media were seen.
    SessionOrphaned { session: SessionId },
}

/// Shared by all threads of the edge.
pub(crate) struct Shared {
    is_stopping: AtomicBool,
    /// When control left, on the monotonic clock; 0 while it is connected.
    control_left_at: AtomicU64,
    notices: Sender<Notice>,
    /// Written to wake the main thread; non-blocking.
    attention: UnixStream,
}

impl Shared {
    /// Control counts as gone since `now`, until it connects. The receiver is the main thread's;
    /// `attention` wakes it and must be non-blocking.
    pub(crate) fn new(attention: UnixStream, now: MonoTime) -> (Self, Receiver<Notice>) {
        let (notices, receiver) = bounded(NOTICES_MAX);
        let shared = Self {
            is_stopping: AtomicBool::new(false),
            control_left_at: AtomicU64::new(now.0.max(1)),
            notices,
            attention,
        };
        (shared, receiver)
    }

    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        self.wake_main();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    pub(crate) fn control_arrived(&self) {
        self.control_left_at.store(0, Ordering::Relaxed);
    }

    pub(crate) fn control_left(&self, now: MonoTime) {
        self.control_left_at.store(now.0.max(1), Ordering::Relaxed);
    }

    /// When control's connection ended; `None` while it stands.
    pub(crate) fn control_left_at(&self) -> Option<MonoTime> {
        match self.control_left_at.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(MonoTime(nanos)),
        }
    }

    pub(crate) fn notify(&self, notice: Notice) {
        if self.notices.try_send(notice).is_ok() {
            self.wake_main();
        }
    }

    /// Makes the main thread look round. A full pipe means that it is about to.
    pub(crate) fn wake_main(&self) {
        let _ = (&self.attention).write(&[1]);
    }
}
