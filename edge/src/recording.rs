//! The recorder: one thread that turns what workers tap into files.
//!
//! ```text
//!   worker 0 --blocks--> \                       / io_uring (many writes at once)
//!   worker 1 --blocks-->   recorder: tapes, jobs
//!      ^------ended------ /                      \ plain writes, one after the other
//! ```
//!
//! A worker's [`RecorderHandle`] never waits: packets are copied into blocks of a fixed number and
//! size, and dropped, and counted, when all of them are full. Decoding, mixing and writing are the
//! recorder's. Where the disk is slow its recordings lose audio, where it is full they end; calls
//! and other recordings do not notice.
//!
//! The recorder looks round every some milliseconds instead of being woken: a worker makes no
//! system call for it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle, sleep};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam::channel::bounded;
use crossbeam::queue::ArrayQueue;
use trunkline_edge_api::MonoTime;
use trunkline_edge_api::config::IoChoice;
use trunkline_ring::monotonic_now;

mod block;
mod deck;
mod disk;
mod handle;
mod uring_disk;

use deck::Deck;
use disk::PlainDisk;
use handle::Queues;
pub use handle::{RecorderHandle, RecordingEnded, RecordingSlot};
use uring_disk::UringDisk;

/// The recorder looks for blocks this often.
const LOOK_ROUND: Duration = Duration::from_millis(10);

/// How long jobs may go to the kernel while more blocks wait.
const SHORTEST_WAIT: Duration = Duration::from_micros(500);

/// Recordings are brought up to date this often, nanoseconds.
const TICK_NANOS: u64 = 100_000_000;

/// What arrived so long ago has reached the recorder, nanoseconds: a block waits for 20 ms in a
/// worker, and for the rest of that worker's duty cycle.
const DELIVERY_NANOS_MAX: u64 = 60_000_000;

/// Blocks of one worker that are taken before the next worker's.
const BLOCKS_PER_TURN: usize = 64;

/// Jobs done before blocks are looked for again, by the driver that does one after the other.
const JOBS_PER_TURN: usize = 16;

/// What each worker may use of the recorder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecorderLimits {
    /// Recordings of one worker at once.
    pub recordings_max: u32,
    /// Blocks of one worker, 27 KB each; all are made at start. Full blocks are what the recorder
    /// may be behind: at 1,000 recorded G.711 calls, 100,000 packets each second, 512 of them last
    /// for half a second.
    pub blocks_max: u32,
}

impl RecorderLimits {
    /// As many blocks as `bytes` hold, two at least: one to fill, one on its way.
    #[must_use]
    pub fn of_memory(recordings_max: u32, bytes: u64) -> Self {
        let blocks = bytes / block::MEMORY_BYTES;
        Self {
            recordings_max,
            blocks_max: u32::try_from(blocks).unwrap_or(u32::MAX).max(2),
        }
    }
}

impl Default for RecorderLimits {
    fn default() -> Self {
        Self {
            recordings_max: 2_000,
            blocks_max: 512,
        }
    }
}

/// A figure that one thread adds to and others read.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    fn add(&self, count: u64) {
        if count > 0 {
            self.0.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// The sum so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Figures of the recorder, over all workers.
#[derive(Debug, Default)]
pub struct RecorderCounters {
    /// Packets that reached a recording.
    pub packets_taken: Count,
    /// Packets that a worker dropped because all its blocks were full.
    pub packets_dropped: Count,
    /// Recordings begun.
    pub recordings_started: Count,
    /// Recordings whose end was told, for whatever reason.
    pub recordings_finished: Count,
    /// Those of them that ended otherwise than by being stopped.
    pub recordings_failed: Count,
    /// Bytes written, headers included.
    pub bytes_written: Count,
    /// Files that could not be created, written or synchronised.
    pub disk_errors: Count,
}

/// How the recorder does I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecorderTier {
    /// io_uring, through tokio-uring.
    IoUring,
    /// Plain system calls.
    Plain,
}

/// The recorder's thread.
#[derive(Debug)]
pub struct Recorder {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
    counters: Arc<RecorderCounters>,
    tier: RecorderTier,
}

impl Recorder {
    /// Starts the recorder, and makes a handle for each of `workers` workers.
    ///
    /// # Errors
    /// No thread can be made, or `io` insists on io_uring and this machine forbids it.
    pub fn start(
        workers: u16,
        limits: &RecorderLimits,
        io: IoChoice,
    ) -> io::Result<(Self, Vec<RecorderHandle>)> {
        let counters = Arc::new(RecorderCounters::default());
        let stop = Arc::new(AtomicBool::new(false));
        let places = |count: u32| (count as usize).max(1);
        let queues: Vec<Arc<Queues>> = (0..workers)
            .map(|_| {
                Arc::new(Queues {
                    full: ArrayQueue::new(places(limits.blocks_max)),
                    empty: ArrayQueue::new(places(limits.blocks_max)),
                    finished: ArrayQueue::new(places(limits.recordings_max)),
                })
            })
            .collect();
        let handles = queues
            .iter()
            .map(|queues| RecorderHandle::new(Arc::clone(queues), Arc::clone(&counters), limits))
            .collect();
        let (ready, is_ready) = bounded(1);
        let work = Work {
            queues,
            stop: Arc::clone(&stop),
            last_tick: MonoTime(0),
        };
        let thread_counters = Arc::clone(&counters);
        let thread = Builder::new().name("recorder".to_owned()).spawn(move || {
            let runtime = match io {
                IoChoice::Epoll => None,
                IoChoice::Auto => uring_disk::runtime().ok(),
                IoChoice::IoUring => match uring_disk::runtime() {
                    Ok(runtime) => Some(runtime),
                    Err(error) => {
                        let _ = ready.send(Err(error));
                        return;
                    }
                },
            };
            let deck = Deck::new(&thread_counters, monotonic_now(), wall_clock_nanos());
            match runtime {
                Some(runtime) => {
                    let _ = ready.send(Ok(RecorderTier::IoUring));
                    runtime.block_on(work.run_on_uring(deck));
                }
                None => {
                    let _ = ready.send(Ok(RecorderTier::Plain));
                    work.run_plain(deck);
                }
            }
        })?;
        let tier = is_ready
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the recorder's thread panicked")))?;
        let recorder = Self {
            thread,
            stop,
            counters,
            tier,
        };
        Ok((recorder, handles))
    }

    /// How it does I/O.
    #[must_use]
    pub fn tier(&self) -> RecorderTier {
        self.tier
    }

    /// Its figures; may be kept and read on any thread.
    #[must_use]
    pub fn counters(&self) -> &Arc<RecorderCounters> {
        &self.counters
    }

    /// Whether its thread lives. It ends by itself only by a bug.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Ends all recordings and completes their files; `false` when that took longer than
    /// `timeout`. Workers have stopped before.
    pub fn stop(self, timeout: Duration) -> bool {
        self.stop.store(true, Ordering::Release);
        let until = Instant::now() + timeout;
        while !self.thread.is_finished() {
            if Instant::now() >= until {
                return false;
            }
            sleep(LOOK_ROUND);
        }
        self.thread.join().is_ok()
    }
}

fn wall_clock_nanos() -> u64 {
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
}

/// How far a look at the queues came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Intake {
    /// There is more.
    More,
    /// Everything was taken.
    Drained,
    /// Everything was taken, and the recorder is to end.
    Over,
}

/// What the thread does beside I/O.
struct Work {
    queues: Vec<Arc<Queues>>,
    stop: Arc<AtomicBool>,
    last_tick: MonoTime,
}

impl Work {
    fn run_plain(mut self, mut deck: Deck<'_>) {
        let mut disk = PlainDisk::default();
        loop {
            let intake = self.take_in(&mut deck);
            let mut jobs = 0;
            while jobs < JOBS_PER_TURN
                && let Some(job) = deck.poll_job()
            {
                deck.handle_done(disk.run(job));
                jobs += 1;
            }
            self.tell_finished(&mut deck);
            if intake == Intake::Over && deck.is_empty() {
                return;
            }
            if jobs < JOBS_PER_TURN && intake != Intake::More {
                sleep(LOOK_ROUND);
            }
        }
    }

    async fn run_on_uring(mut self, mut deck: Deck<'_>) {
        let mut disk = UringDisk::default();
        loop {
            let intake = self.take_in(&mut deck);
            while let Some(done) = disk.poll_done() {
                deck.handle_done(done);
            }
            while disk.has_room()
                && let Some(job) = deck.poll_job()
            {
                disk.submit(job);
            }
            self.tell_finished(&mut deck);
            if intake == Intake::Over && deck.is_empty() {
                return;
            }
            // Jobs go to the kernel while the thread waits, if ever so shortly.
            let pause = match intake {
                Intake::More => SHORTEST_WAIT,
                Intake::Drained | Intake::Over => LOOK_ROUND,
            };
            disk.wait(pause).await;
        }
    }

    /// Takes what workers handed over.
    fn take_in(&mut self, deck: &mut Deck<'_>) -> Intake {
        // Read first: what is handed over before this is then in the queues.
        let goes_on = !self.stop.load(Ordering::Acquire);
        let now = monotonic_now();
        let mut is_drained = true;
        for (worker, queues) in (0u16..).zip(&self.queues) {
            let mut taken = 0;
            while taken < BLOCKS_PER_TURN
                && let Some(mut block) = queues.full.pop()
            {
                deck.handle_block(worker, &mut block);
                // There are as many places as blocks.
                let _ = queues.empty.push(block);
                taken += 1;
            }
            is_drained &= taken < BLOCKS_PER_TURN;
        }
        if !is_drained {
            return Intake::More;
        }
        if !goes_on {
            deck.stop_all(now);
            return Intake::Over;
        }
        if now.nanos_since(self.last_tick) >= TICK_NANOS {
            self.last_tick = now;
            deck.handle_timeout(MonoTime(now.0.saturating_sub(DELIVERY_NANOS_MAX)));
        }
        Intake::Drained
    }

    fn tell_finished(&self, deck: &mut Deck<'_>) {
        while let Some((worker, finished)) = deck.poll_finished() {
            if let Some(queues) = self.queues.get(usize::from(worker)) {
                // There are as many places as slots.
                let _ = queues.finished.push(finished);
            }
        }
    }
}

#[cfg(test)]
mod tests;
