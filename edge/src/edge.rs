//! The edge as a whole: starts the workers, hands their regions out, logs for them, stops them.
//!
//! All of this is the main thread's. Workers never wait for it.

use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam::channel::{Receiver, bounded};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tracing::{error, info, warn};
use trunkline_edge_api::{IoTier, WorkerIndex};
use trunkline_ring::handshake::{BindError, EdgeListener, ListenerEvent};
use trunkline_ring::{RegionError, RegionSpec, WorkerEnd, monotonic_now};

use crate::config::Settings;
use crate::panic_message;
use crate::prompts::PromptLoader;
use crate::recording::Recorder;
use crate::shared::{Notice, NoticeKind, Shared};
use crate::tier::{TierError, TierSettings};
use crate::uring::UringError;
use crate::worker::{Helpers, Life, Worker, WorkerSettings};

/// The main thread looks round this often even if nothing wakes it.
const LOOK_ROUND: Duration = Duration::from_millis(500);

/// Longest time that stopping may take. Closing 5,000 sessions takes some 200 ms.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// File under `run_dir` that holds the last generation.
const GENERATION_FILE: &str = "edge.generation";

/// Why the edge did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The generation cannot be read or written.
    #[error("cannot keep {path}: {error}; [node] run_dir must exist and be writable")]
    Generation {
        /// The file.
        path: String,
        /// What went wrong.
        error: io::Error,
    },
    /// A worker's region cannot be made.
    #[error("worker {worker}: {error}")]
    Region {
        /// Whose.
        worker: u16,
        /// What went wrong.
        error: RegionError,
    },
    /// A worker cannot do I/O.
    #[error("worker {worker}: {error}")]
    Tier {
        /// Whose.
        worker: u16,
        /// What to change.
        error: TierError,
    },
    /// The handshake socket cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Threads or pipes cannot be made.
    #[error("cannot {action}: {error}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What went wrong.
        error: io::Error,
    },
}

/// Why the edge stopped without being told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A worker ended; without it its calls have no media, so the edge ends as a whole.
    #[error("worker {worker} failed: {cause}")]
    WorkerFailed {
        /// Which.
        worker: u16,
        /// Why.
        cause: String,
    },
    /// Workers did not finish in time when the edge was told to stop.
    #[error("{count} workers did not stop within {} s", STOP_TIMEOUT.as_secs())]
    StopTimedOut {
        /// How many.
        count: usize,
    },
    /// `poll(2)` failed.
    #[error("cannot serve the handshake socket: {0}")]
    Poll(io::Error),
}

/// A running edge.
pub struct Edge {
    listener: EdgeListener,
    shared: Arc<Shared>,
    notices: Receiver<Notice>,
    /// Readable when something wants the main thread's attention.
    attention: UnixStream,
    /// Written for that.
    waker: UnixStream,
    workers: Vec<WorkerThread>,
    recorder: Recorder,
}

struct WorkerThread {
    index: u16,
    thread: JoinHandle<Result<(), String>>,
}

impl Edge {
    /// Starts the workers and begins to listen.
    ///
    /// # Errors
    /// [`StartError`]; its text says what to change.
    pub fn start(settings: &Settings) -> Result<Self, StartError> {
        let generation = next_generation(&settings.run_dir)?;
        let worker_settings = WorkerSettings {
            sessions_max: settings.sessions_max,
            tier: TierSettings {
                io: settings.io,
                sockets_max: allowed_sockets(settings),
                dscp: settings.dscp,
            },
            orphan_timeout_secs: settings.orphan_timeout_secs,
        };
        let (attention, waker) = attention_pipe().map_err(|error| StartError::Io {
            action: "make a pipe",
            error,
        })?;
        let shared_waker = waker.try_clone().map_err(|error| StartError::Io {
            action: "make a pipe",
            error,
        })?;
        let (shared, notices) = Shared::new(shared_waker, monotonic_now());
        let shared = Arc::new(shared);
        let count = settings.slices.len() as u16;
        let helper_failed = |action| move |error| StartError::Io { action, error };
        let (_, prompts) = PromptLoader::start(count, settings.prompts)
            .map_err(helper_failed("start the thread that loads prompts"))?;
        let (recorder, recorders) = Recorder::start(count, &settings.recorder, settings.io)
            .map_err(helper_failed("start the recorder"))?;
        let helpers = prompts
            .into_iter()
            .zip(recorders)
            .map(|(prompts, recorder)| Helpers { prompts, recorder });
        let mut workers = Vec::new();
        let mut tiers = Vec::new();
        let mut handed_out = Vec::new();
        for ((index, ports), helpers) in (0u16..).zip(&settings.slices).zip(helpers) {
            let spec = RegionSpec {
                worker: WorkerIndex(index),
                generation,
                ports: *ports,
                edge_pid: std::process::id(),
            };
            let started = WorkerEnd::create(&spec)
                .map_err(|error| StartError::Region {
                    worker: index,
                    error,
                })
                .and_then(|(end, fds)| {
                    handed_out.push(fds);
                    start_worker(index, end, worker_settings, Arc::clone(&shared), helpers)
                });
            match started {
                Ok((worker, tier)) => {
                    workers.push(worker);
                    tiers.push(tier);
                }
                Err(error) => {
                    shared.stop();
                    return Err(error);
                }
            }
        }
        let listener = match EdgeListener::bind(&settings.socket_path, generation, handed_out) {
            Ok(listener) => listener,
            Err(error) => {
                shared.stop();
                return Err(error.into());
            }
        };
        // Once, whatever the number of workers: the kernel tells all of them the same.
        if let Some(refused) = tiers.iter().find_map(|tier| tier.fallback.as_ref()) {
            warn!("running on epoll, which costs more per packet: {refused}");
        }
        info!(
            generation,
            workers = workers.len(),
            io = io_names(&tiers),
            socket = %settings.socket_path.display(),
            "edge is up"
        );
        Ok(Self {
            listener,
            shared,
            notices,
            attention,
            waker,
            workers,
            recorder,
        })
    }

    /// A writer that wakes [`Self::run`], for signal handlers; non-blocking.
    ///
    /// # Errors
    /// Out of file descriptors.
    pub fn waker(&self) -> io::Result<UnixStream> {
        self.waker.try_clone()
    }

    /// Serves until `stop` is set, then closes every session and returns.
    ///
    /// # Errors
    /// [`RunError`]. The process is then of no use and should end: worker threads may still run.
    pub fn run(mut self, stop: &AtomicBool) -> Result<(), RunError> {
        let mut recorder_is_missed = false;
        while !stop.load(Ordering::Relaxed) {
            self.look_round(LOOK_ROUND)?;
            if let Some(worker) = self.finished_worker() {
                return Err(worker);
            }
            if !self.recorder.is_running() && !recorder_is_missed {
                error!("the recorder has died: no call is recorded until the edge is restarted");
                recorder_is_missed = true;
            }
        }
        info!("edge is stopping");
        self.shared.stop();
        let until = Instant::now() + STOP_TIMEOUT;
        while self
            .workers
            .iter()
            .any(|worker| !worker.thread.is_finished())
        {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let running = |worker: &&WorkerThread| !worker.thread.is_finished();
                let count = self.workers.iter().filter(running).count();
                return Err(RunError::StopTimedOut { count });
            }
            self.look_round(left.min(LOOK_ROUND))?;
        }
        self.log_notices();
        while let Some(worker) = self.workers.pop() {
            outcome_of(worker)?;
        }
        if !self
            .recorder
            .stop(until.saturating_duration_since(Instant::now()))
        {
            warn!("recordings were still being written; their files end where they are");
        }
        info!("edge has stopped");
        Ok(())
    }

    fn look_round(&mut self, timeout: Duration) -> Result<(), RunError> {
        let event = self
            .listener
            .wait(Some(self.attention.as_fd()), timeout)
            .map_err(|errno| RunError::Poll(errno.into()))?;
        if let Some(event) = event {
            self.handle_listener_event(event);
        }
        let mut bytes = [0; 256];
        // Non-blocking: empty is an error, and then there is nothing more.
        while matches!(self.attention.read(&mut bytes), Ok(1..)) {}
        self.log_notices();
        Ok(())
    }

    fn handle_listener_event(&self, event: ListenerEvent) {
        match event {
            ListenerEvent::ControlArrived { pid, epoch } => {
                self.shared.control_arrived();
                info!(pid, epoch = epoch.0, "control has connected");
            }
            ListenerEvent::ControlLeft { pid, epoch } => {
                self.shared.control_left(monotonic_now());
                warn!(pid, epoch = epoch.0, "control has gone; calls go on");
            }
            ListenerEvent::ObserverArrived { pid } => info!(pid, "an observer has connected"),
            ListenerEvent::ObserverLeft { pid } => info!(pid, "an observer has gone"),
            ListenerEvent::Refused { pid, uid, refused } => {
                warn!(pid, uid, "a client was refused: {refused}");
            }
            ListenerEvent::AcceptFailed { errno } => warn!("cannot accept a client: {errno}"),
        }
    }

    fn log_notices(&self) {
        for Notice { worker, kind } in self.notices.try_iter() {
            match kind {
                NoticeKind::SocketFailed { local, error } => {
                    warn!(%worker, %local, "the kernel refused a media socket: {error}");
                }
                NoticeKind::RingFault(fault) => {
                    error!(%worker, "control's side of the ring is out of order: {fault}");
                }
                NoticeKind::SessionPanicked { session, message } => {
                    error!(%worker, %session, "session closed, its code panicked: {message}");
                }
                NoticeKind::SessionOrphaned { session } => {
                    warn!(%worker, %session, "session closed: neither control nor media");
                }
            }
        }
    }

    fn finished_worker(&mut self) -> Option<RunError> {
        let at = self
            .workers
            .iter()
            .position(|worker| worker.thread.is_finished())?;
        let worker = self.workers.swap_remove(at);
        let index = worker.index;
        let unasked = RunError::WorkerFailed {
            worker: index,
            cause: "it ended without being told to".to_owned(),
        };
        Some(outcome_of(worker).err().unwrap_or(unasked))
    }
}

fn outcome_of(worker: WorkerThread) -> Result<(), RunError> {
    let index = worker.index;
    let outcome = worker.thread.join();
    outcome
        .unwrap_or_else(|_| Err("its thread panicked outside its work".to_owned()))
        .map_err(|cause| RunError::WorkerFailed {
            worker: index,
            cause,
        })
}

/// How a worker does I/O, and why not on io_uring where that was tried first.
struct WorkerTier {
    kind: IoTier,
    fallback: Option<UringError>,
}

/// The tiers that run, each once.
fn io_names(tiers: &[WorkerTier]) -> String {
    let mut names: Vec<_> = tiers.iter().map(|tier| tier.kind.name()).collect();
    names.sort_unstable();
    names.dedup();
    names.join(" and ")
}

/// Starts a worker's thread and waits until its I/O stands.
fn start_worker(
    index: u16,
    end: WorkerEnd,
    settings: WorkerSettings,
    shared: Arc<Shared>,
    helpers: Helpers,
) -> Result<(WorkerThread, WorkerTier), StartError> {
    let (ready, is_ready) = bounded(1);
    let thread = Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || {
            panic_message::keep_on_this_thread();
            pin(index);
            let outcome = match Worker::new(end, settings, Arc::clone(&shared), helpers) {
                Ok((worker, fallback)) => {
                    let kind = worker.io_tier();
                    let _ = ready.send(Ok(WorkerTier { kind, fallback }));
                    work(worker)
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                    Ok(())
                }
            };
            shared.wake_main();
            outcome
        })
        .map_err(|error| StartError::Io {
            action: "start a worker's thread",
            error,
        })?;
    match is_ready.recv() {
        Ok(Ok(tier)) => Ok((WorkerThread { index, thread }, tier)),
        Ok(Err(error)) => Err(StartError::Tier {
            worker: index,
            error,
        }),
        Err(_) => Err(StartError::Io {
            action: "start a worker",
            error: io::Error::other("its thread panicked"),
        }),
    }
}

/// A worker's whole life. A panic that reaches this point is the worker's own, not a session's:
/// the edge ends, and its restart brings the calls back.
fn work(mut worker: Worker) -> Result<(), String> {
    let life = catch_unwind(AssertUnwindSafe(|| {
        loop {
            match worker.duty_cycle() {
                Ok(Life::GoesOn) => {}
                Ok(Life::IsOver) => return Ok(()),
                Err(error) => return Err(format!("{}: {error}", worker.io_tier().name())),
            }
        }
    }));
    life.unwrap_or_else(|_| Err(panic_message::take()))
}

/// Pins this thread to the `index`-th processor that the process may use; with more workers than
/// processors they share. A kernel that refuses costs cache misses, not calls.
fn pin(index: u16) {
    let Ok(allowed) = sched_getaffinity(None) else {
        return;
    };
    let processors: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|&cpu| allowed.is_set(cpu))
        .collect();
    if processors.is_empty() {
        return;
    }
    let mut own = CpuSet::new();
    own.set(processors[usize::from(index) % processors.len()]);
    let _ = sched_setaffinity(None, &own);
}

/// Raises the limit of file descriptors as far as is wanted and allowed; the limit then.
pub(crate) fn raise_file_limit(settings: &Settings) -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = settings.files_wanted();
    let reachable = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let mut files_max = current.unwrap_or(u64::MAX);
    if files_max < reachable {
        let raised = Rlimit {
            current: Some(reachable),
            maximum,
        };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            files_max = reachable;
        }
    }
    files_max
}

/// Sockets of each worker, and a warning when the limit of file descriptors leaves too few.
fn allowed_sockets(settings: &Settings) -> u32 {
    let wanted = settings.files_wanted();
    let files_max = raise_file_limit(settings);
    let sockets_max = settings.sockets_max(files_max);
    if sockets_max < settings.sockets_wanted() {
        warn!(
            "only {sockets_max} sockets for each worker, {} sessions take {}: raise LimitNOFILE \
             of the unit to {wanted} or lower [edge] sessions_max",
            settings.sessions_max,
            settings.sockets_wanted(),
        );
    }
    sockets_max
}

/// This life of the edge: higher than the last one in the file, and at least the wall clock in
/// seconds, so that it rises over a reboot, which empties `run_dir`, and over a clock that was set
/// back, which the file outlives.
fn next_generation(run_dir: &Path) -> Result<u64, StartError> {
    let path = run_dir.join(GENERATION_FILE);
    let keep = || -> io::Result<u64> {
        let last: u64 = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().unwrap_or(0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let clock = SystemTime::now().duration_since(UNIX_EPOCH);
        let clock_secs = clock.map_or(0, |since_epoch| since_epoch.as_secs());
        let generation = clock_secs.max(last.saturating_add(1));
        let fresh = path.with_extension("generation.new");
        fs::write(&fresh, format!("{generation}\n"))?;
        fs::rename(&fresh, &path)?;
        Ok(generation)
    };
    keep().map_err(|error| StartError::Generation {
        path: path.display().to_string(),
        error,
    })
}

fn attention_pipe() -> io::Result<(UnixStream, UnixStream)> {
    let (reader, writer) = UnixStream::pair()?;
    reader.set_nonblocking(true)?;
    writer.set_nonblocking(true)?;
    Ok((reader, writer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_rises_with_every_start_and_over_a_clock_set_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = next_generation(dir.path()).expect("writable");
        let second = next_generation(dir.path()).expect("writable");
        assert!(second > first);
        let ahead = u64::from(u32::MAX) * 10;
        fs::write(dir.path().join(GENERATION_FILE), format!("{ahead}\n")).expect("writable");
        assert_eq!(next_generation(dir.path()).expect("writable"), ahead + 1);
    }

    #[test]
    fn missing_run_dir_is_named() {
        let error = next_generation(Path::new("/nonexistent/run")).expect_err("no such place");
        assert!(error.to_string().contains("run_dir"), "{error}");
    }
}
