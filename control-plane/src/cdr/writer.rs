//! The thread between the call thread, the spool and the store.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::DetailRecord;
use super::spool::Spool;
use crate::store::{PendingAdd, StoreHandle};

/// Records between the call thread and the writer: at 500 calls a second, eight seconds of a
/// writer that stands still.
const QUEUE_LEN: usize = 4096;

/// Records that wait in memory while the spool cannot be written, about 1 KB each.
const MEMORY_COUNT_MAX: usize = 10_000;

/// Records per append and per delivery.
const BATCH_COUNT: usize = 256;

/// Spool length at which appends are refused: a quarter of a million calls without a store.
const SPOOL_LEN_MAX: u64 = 256 << 20;

/// How long after a failure the spool or the store is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How often an answer of the store is looked for while new records may come in.
const ANSWER_POLL: Duration = Duration::from_millis(5);

/// How long a planned stop waits for the store. What it does not take stays in the spool.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Where the call thread leaves its records. The writer's thread ends, with everything written,
/// when the last of these is dropped.
#[derive(Debug, Clone)]
pub struct CdrWriter {
    queue: SyncSender<DetailRecord>,
    status: Arc<CdrStatus>,
}

impl CdrWriter {
    /// Hands `record` over. Never waits; when the writer has stood still for so long that there
    /// is no room, the record is lost, counted, and `false` comes back.
    pub fn submit(&self, record: impl Into<DetailRecord>) -> bool {
        self.status.submitted.fetch_add(1, Relaxed);
        let taken = self.queue.try_send(record.into()).is_ok();
        if !taken {
            self.status.lost.fetch_add(1, Relaxed);
        }
        taken
    }

    /// How the writer is doing.
    #[must_use]
    pub fn status(&self) -> Arc<CdrStatus> {
        Arc::clone(&self.status)
    }
}

/// What `/readyz` and `/metrics` show of the writer. Read from any thread.
#[derive(Debug, Default)]
pub struct CdrStatus {
    submitted: AtomicU64,
    stored: AtomicU64,
    lost: AtomicU64,
    rejected: AtomicU64,
    in_memory: AtomicU64,
    spool_bytes: AtomicU64,
    spool_fails: AtomicBool,
    store_fails: AtomicBool,
}

impl CdrStatus {
    /// Records that the call thread has handed over.
    #[must_use]
    pub fn submitted_total(&self) -> u64 {
        self.submitted.load(Relaxed)
    }

    /// Records that the store has taken, those of an earlier life's spool included.
    #[must_use]
    pub fn stored_total(&self) -> u64 {
        self.stored.load(Relaxed)
    }

    /// Records that found no room anywhere.
    #[must_use]
    pub fn lost_total(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Lines of the spool that held no record and were moved aside.
    #[must_use]
    pub fn rejected_total(&self) -> u64 {
        self.rejected.load(Relaxed)
    }

    /// Records in memory only, because the spool cannot be written.
    #[must_use]
    pub fn in_memory(&self) -> u64 {
        self.in_memory.load(Relaxed)
    }

    /// Bytes in the spool that the store does not have yet.
    #[must_use]
    pub fn spool_bytes(&self) -> u64 {
        self.spool_bytes.load(Relaxed)
    }

    /// Why records may be in danger; `None` when all is well. A store that does not answer is
    /// none of these: the spool holds.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.spool_fails.load(Relaxed).then(|| {
            format!(
                "the CDR spool cannot be written; {} records wait in memory (room for {MEMORY_COUNT_MAX}), {} lost",
                self.in_memory(),
                self.lost_total()
            )
        })
    }

    /// Whether the last delivery to the store failed.
    #[must_use]
    pub fn store_fails(&self) -> bool {
        self.store_fails.load(Relaxed)
    }
}

/// The writer's thread.
#[derive(Debug)]
pub struct CdrWriterThread(std::thread::JoinHandle<()>);

impl CdrWriterThread {
    /// Waits until everything is written. Blocks for as long as a [`CdrWriter`] lives.
    pub fn join(self) {
        // A panic has already been reported by the panic hook, and the spool holds the records.
        let _ = self.0.join();
    }
}

/// Opens the spool at `path` and starts the writer. What an earlier life left there goes to the
/// store first.
///
/// # Errors
/// The spool cannot be opened, or another process has it open.
pub fn spawn(path: &Path, store: StoreHandle) -> io::Result<(CdrWriter, CdrWriterThread)> {
    let (spool, torn) = Spool::open(path, SPOOL_LEN_MAX)?;
    if torn > 0 {
        tracing::warn!(
            bytes = torn,
            "the spool ended in a torn line, which was cut off"
        );
    }
    spawn_with(spool, store)
}

pub(super) fn spawn_with(
    spool: Spool,
    store: StoreHandle,
) -> io::Result<(CdrWriter, CdrWriterThread)> {
    let (queue, receiver) = sync_channel(QUEUE_LEN);
    let status = Arc::new(CdrStatus::default());
    let writer = Writer {
        queue: receiver,
        waiting: VecDeque::new(),
        spool,
        spool_retry_at: None,
        store,
        delivery: Delivery::Idle,
        status: Arc::clone(&status),
    };
    let thread = std::thread::Builder::new()
        .name("cdr".to_owned())
        .spawn(move || writer.run())?;
    Ok((CdrWriter { queue, status }, CdrWriterThread(thread)))
}

struct Writer {
    queue: Receiver<DetailRecord>,
    /// Records that are not durable yet.
    waiting: VecDeque<DetailRecord>,
    spool: Spool,
    /// Set while the spool fails.
    spool_retry_at: Option<Instant>,
    store: StoreHandle,
    delivery: Delivery,
    status: Arc<CdrStatus>,
}

enum Delivery {
    Idle,
    /// A batch of the spool up to `end` is with the store.
    FromSpool {
        pending: PendingAdd,
        end: u64,
    },
    /// The first `count` waiting records are with the store because the spool fails.
    FromMemory {
        pending: PendingAdd,
        count: usize,
    },
    /// The last one failed.
    Failed {
        retry_at: Instant,
    },
}

impl Writer {
    fn run(mut self) {
        loop {
            let timeout = self.turn(Instant::now());
            match self.queue.recv_timeout(timeout) {
                Ok(record) => self.take(record),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let deadline = Instant::now() + STOP_PATIENCE;
        while self.has_work() && Instant::now() < deadline {
            let timeout = self.turn(Instant::now());
            std::thread::sleep(timeout.min(ANSWER_POLL));
        }
        for record in &self.waiting {
            tracing::error!(
                record = record.id(),
                "call record lost: the spool could not be written"
            );
        }
    }

    fn take(&mut self, first: DetailRecord) {
        self.wait_in_memory(first);
        for _ in 1..BATCH_COUNT {
            match self.queue.try_recv() {
                Ok(record) => self.wait_in_memory(record),
                Err(_) => break,
            }
        }
    }

    fn wait_in_memory(&mut self, record: DetailRecord) {
        if self.waiting.len() < MEMORY_COUNT_MAX {
            self.waiting.push_back(record);
        } else {
            tracing::error!(
                record = record.id(),
                "call record lost: no room in spool or memory"
            );
            self.status.lost.fetch_add(1, Relaxed);
        }
    }

    fn has_work(&self) -> bool {
        !self.waiting.is_empty()
            || self.spool.undelivered_len() > 0
            || matches!(
                self.delivery,
                Delivery::FromSpool { .. } | Delivery::FromMemory { .. }
            )
    }

    /// Does what can be done now, and says how long nothing else can.
    fn turn(&mut self, now: Instant) -> Duration {
        self.write_spool(now);
        self.finish_delivery(now);
        self.begin_delivery(now);
        self.status
            .in_memory
            .store(self.waiting.len() as u64, Relaxed);
        self.status
            .spool_bytes
            .store(self.spool.undelivered_len(), Relaxed);
        match self.delivery {
            Delivery::FromSpool { .. } | Delivery::FromMemory { .. } => ANSWER_POLL,
            Delivery::Idle | Delivery::Failed { .. } => RETRY_AFTER,
        }
    }

    fn write_spool(&mut self, now: Instant) {
        if self.waiting.is_empty() || self.spool_retry_at.is_some_and(|at| now < at) {
            return;
        }
        // The store is looking at the first of them; they must stay where they are.
        if matches!(self.delivery, Delivery::FromMemory { .. }) {
            return;
        }
        while !self.waiting.is_empty() {
            let count = self.waiting.len().min(BATCH_COUNT);
            match self.spool.append(self.waiting.iter().take(count)) {
                Ok(()) => {
                    self.waiting.drain(..count);
                    if self.spool_retry_at.take().is_some() {
                        self.status.spool_fails.store(false, Relaxed);
                        tracing::info!("the CDR spool can be written again");
                    }
                }
                Err(error) => {
                    if self.spool_retry_at.is_none() {
                        tracing::error!(%error, "the CDR spool cannot be written; records wait in memory");
                    }
                    self.status.spool_fails.store(true, Relaxed);
                    self.spool_retry_at = Some(now + RETRY_AFTER);
                    return;
                }
            }
        }
    }

    fn finish_delivery(&mut self, now: Instant) {
        let result = match &mut self.delivery {
            Delivery::FromSpool { pending, .. } | Delivery::FromMemory { pending, .. } => {
                pending.poll()
            }
            Delivery::Idle | Delivery::Failed { .. } => None,
        };
        let Some(result) = result else { return };
        match (
            result,
            std::mem::replace(&mut self.delivery, Delivery::Idle),
        ) {
            (Ok(added), Delivery::FromSpool { end, .. }) => {
                self.stored(added);
                if let Err(error) = self.spool.mark_delivered(end) {
                    tracing::warn!(%error, "the CDR spool cannot be emptied; it is tried again");
                }
            }
            (Ok(added), Delivery::FromMemory { count, .. }) => {
                self.stored(added);
                self.waiting.drain(..count);
                if self.waiting.is_empty() {
                    self.spool_retry_at = None;
                    self.status.spool_fails.store(false, Relaxed);
                }
            }
            (Err(error), _) => self.delivery_failed(now, &error.to_string()),
            (Ok(_), Delivery::Idle | Delivery::Failed { .. }) => {}
        }
    }

    fn stored(&self, added: u64) {
        self.status.stored.fetch_add(added, Relaxed);
        if self.status.store_fails.swap(false, Relaxed) {
            tracing::info!("the store takes call records again");
        }
    }

    fn delivery_failed(&mut self, now: Instant, error: &str) {
        if !self.status.store_fails.swap(true, Relaxed) {
            tracing::warn!(
                error,
                "the store does not take call records; the spool holds them"
            );
        }
        self.delivery = Delivery::Failed {
            retry_at: now + RETRY_AFTER,
        };
    }

    fn begin_delivery(&mut self, now: Instant) {
        match self.delivery {
            Delivery::FromSpool { .. } | Delivery::FromMemory { .. } => return,
            Delivery::Failed { retry_at } if now < retry_at => return,
            Delivery::Idle | Delivery::Failed { .. } => self.delivery = Delivery::Idle,
        }
        if self.spool.undelivered_len() > 0 {
            self.begin_from_spool(now);
        } else if self.spool_retry_at.is_some() && !self.waiting.is_empty() {
            let count = self.waiting.len().min(BATCH_COUNT);
            let records = self.waiting.iter().take(count).cloned().collect();
            match self.store.try_add_records(records) {
                Ok(pending) => self.delivery = Delivery::FromMemory { pending, count },
                Err(error) => self.delivery_failed(now, &error.to_string()),
            }
        }
    }

    fn begin_from_spool(&mut self, now: Instant) {
        let batch = match self.spool.next_batch(BATCH_COUNT) {
            Ok(batch) => batch,
            Err(error) => return self.delivery_failed(now, &error.to_string()),
        };
        self.status
            .rejected
            .fetch_add(batch.rejected_count, Relaxed);
        match self.store.try_add_records(batch.records) {
            Ok(pending) => {
                self.delivery = Delivery::FromSpool {
                    pending,
                    end: batch.end,
                };
            }
            Err(error) => self.delivery_failed(now, &error.to_string()),
        }
    }
}
