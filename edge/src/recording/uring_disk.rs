//! The driver that keeps many jobs under way at once, through tokio-uring: a slow write or fsync of
//! one recording delays no other.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_uring::fs::{File, OpenOptions};

use super::deck::{Done, Job, Key, Opened, Outcome, Task};
use super::disk::{MODE, create};

/// Jobs under way at most. With their buffers that is 8 MB.
const JOBS_MAX: usize = 128;

/// Submission queue entries; a job takes one at a time.
const ENTRIES: u32 = 256;

/// The ring's runtime, if this machine allows one.
pub(super) fn runtime() -> io::Result<tokio_uring::Runtime> {
    tokio_uring::Runtime::new(tokio_uring::builder().entries(ENTRIES))
}

/// A job that is done, and the file, where it opened one.
#[derive(Debug)]
struct Ended {
    done: Done,
    opened: Option<File>,
}

/// Jobs under way, and those that are done. Lives on one thread inside [`runtime`].
#[derive(Debug, Default)]
pub(super) struct UringDisk {
    files: HashMap<Key, Rc<File>>,
    under_way: usize,
    done: Rc<RefCell<VecDeque<Ended>>>,
    something_is_done: Rc<Notify>,
}

impl UringDisk {
    /// Whether it takes one more job.
    pub(super) fn has_room(&self) -> bool {
        self.under_way < JOBS_MAX
    }

    /// Begins a job.
    pub(super) fn submit(&mut self, job: Job) {
        let Job { key, task } = job;
        self.under_way += 1;
        let file = match task {
            Task::Close => self.files.remove(&key),
            _ => self.files.get(&key).cloned(),
        };
        let done = Rc::clone(&self.done);
        let something_is_done = Rc::clone(&self.something_is_done);
        tokio_uring::spawn(async move {
            let (outcome, opened) = match task {
                Task::Create { path } => open(path).await,
                task => (run(file, task).await, None),
            };
            let done_job = Done { key, outcome };
            done.borrow_mut().push_back(Ended {
                done: done_job,
                opened,
            });
            something_is_done.notify_one();
        });
    }

    /// The next job that is done.
    pub(super) fn poll_done(&mut self) -> Option<Done> {
        let Ended { done, opened } = self.done.borrow_mut().pop_front()?;
        self.under_way -= 1;
        if let Some(file) = opened {
            self.files.insert(done.key, Rc::new(file));
        }
        Some(done)
    }

    /// Waits until a job is done, or `timeout` has passed.
    pub(super) async fn wait(&self, timeout: Duration) {
        let _ = tokio::time::timeout(timeout, self.something_is_done.notified()).await;
    }
}

/// As [`create`] does, but a new file is made without holding up the thread: journals may be slow.
async fn open(path: PathBuf) -> (Outcome, Option<File>) {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    options.mode(MODE).custom_flags(libc::O_NOFOLLOW);
    let created = match options.open(&path).await {
        Ok(file) => Ok((file, Opened::New)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            create(&path).map(|(file, opened)| (File::from_std(file), opened))
        }
        Err(error) => Err(error),
    };
    match created {
        Ok((file, opened)) => (Outcome::Created(Ok(opened)), Some(file)),
        Err(error) => (Outcome::Created(Err(error)), None),
    }
}

async fn run(file: Option<Rc<File>>, task: Task) -> Outcome {
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    match (task, file) {
        (Task::Write { offset, buffer }, Some(file)) => write_all(&file, buffer, offset).await,
        (Task::Write { buffer, .. }, None) => Outcome::Written {
            buffer,
            len: 0,
            error: Some(missing()),
        },
        (Task::Sync, Some(file)) => Outcome::Synced(file.sync_all().await),
        (Task::Sync, None) => Outcome::Synced(Err(missing())),
        (Task::Read { offset, buffer }, Some(file)) => {
            let (result, mut buffer) = file.read_at(buffer, offset).await;
            // The length is how far the buffer has been written, not how much was read.
            buffer.truncate(*result.as_ref().unwrap_or(&0));
            Outcome::Read {
                buffer,
                error: result.err(),
            }
        }
        (Task::Read { buffer, .. }, None) => Outcome::Read {
            buffer,
            error: Some(missing()),
        },
        (Task::Close, Some(file)) => {
            if let Ok(file) = Rc::try_unwrap(file) {
                // What close could tell, sync has told.
                let _ = file.close().await;
            }
            Outcome::Closed
        }
        (Task::Close | Task::Create { .. }, _) => Outcome::Closed,
    }
}

/// Writes all of the buffer, or as much as the disk takes.
async fn write_all(file: &File, mut buffer: Vec<u8>, offset: u64) -> Outcome {
    use tokio_uring::buf::BoundedBuf;

    let mut written = 0;
    while written < buffer.len() {
        let at = offset + written as u64;
        let (result, slice) = file.write_at(buffer.slice(written..), at).submit().await;
        buffer = slice.into_inner();
        let error = match result {
            Ok(0) => io::ErrorKind::WriteZero.into(),
            Ok(len) => {
                written += len;
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => error,
        };
        return Outcome::Written {
            buffer,
            len: written,
            error: Some(error),
        };
    }
    Outcome::Written {
        buffer,
        len: written,
        error: None,
    }
}
