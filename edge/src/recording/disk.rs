//! Opening files for recordings, and the driver that does one job after the other with plain
//! system calls: for machines where io_uring is forbidden.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::SystemTime;

use trunkline_media::recording::Tape;

use super::deck::{Done, ExistingFile, Job, Key, Opened, Outcome, Task};

/// Owner reads and writes, the group reads: calls are nobody else's business.
pub(super) const MODE: u32 = 0o640;

/// Creates the file of a recording. Where it exists already it is opened, and looked at by the
/// caller: it may be what an earlier life of the edge left. A symbolic link is refused, and so is
/// anything but a regular file.
///
/// # Errors
/// The directory does not exist, may not be written, or the path names something else.
pub(super) fn create(path: &Path) -> io::Result<(File, Opened)> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(MODE);
    options.custom_flags(libc::O_NOFOLLOW);
    match options.clone().create_new(true).open(path) {
        Ok(file) => Ok((file, Opened::New)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Opening a FIFO would wait for its other end.
            options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
            let file = options.open(path)?;
            let opened = existing(&file)?;
            Ok((file, Opened::Existing(opened)))
        }
        Err(error) => Err(error),
    }
}

fn existing(file: &File) -> io::Result<ExistingFile> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    // io_uring would take it as a wish never to wait for the disk.
    let flags = rustix::fs::fcntl_getfl(file)?;
    rustix::fs::fcntl_setfl(file, flags - rustix::fs::OFlags::NONBLOCK)?;
    let mut head = vec![0; Tape::resume_head_len()];
    let len = file.read_at(&mut head, 0)?;
    head.truncate(len);
    let idle = SystemTime::now()
        .duration_since(metadata.modified()?)
        .unwrap_or_default();
    Ok(ExistingFile {
        head,
        len: metadata.len(),
        idle_nanos: u64::try_from(idle.as_nanos()).unwrap_or(u64::MAX),
    })
}

/// Does jobs one by one, each to its end.
#[derive(Debug, Default)]
pub(super) struct PlainDisk {
    files: HashMap<Key, File>,
}

impl PlainDisk {
    pub(super) fn run(&mut self, job: Job) -> Done {
        let Job { key, task } = job;
        let outcome = match task {
            Task::Create { path } => Outcome::Created(create(&path).map(|(file, opened)| {
                self.files.insert(key, file);
                opened
            })),
            Task::Close => {
                self.files.remove(&key);
                Outcome::Closed
            }
            Task::Write { offset, buffer } => {
                let (len, error) = match self.file(key) {
                    Ok(file) => write_all(file, &buffer, offset),
                    Err(error) => (0, Some(error)),
                };
                Outcome::Written { buffer, len, error }
            }
            Task::Sync => Outcome::Synced(self.file(key).and_then(File::sync_all)),
            Task::Read { offset, mut buffer } => {
                buffer.resize(buffer.capacity(), 0);
                let read = self
                    .file(key)
                    .and_then(|file| file.read_at(&mut buffer, offset));
                buffer.truncate(*read.as_ref().unwrap_or(&0));
                Outcome::Read {
                    buffer,
                    error: read.err(),
                }
            }
        };
        Done { key, outcome }
    }

    fn file(&self, key: Key) -> io::Result<&File> {
        self.files
            .get(&key)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Writes all of `bytes`, or as much as the disk takes.
fn write_all(file: &File, bytes: &[u8], offset: u64) -> (usize, Option<io::Error>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write_at(&bytes[written..], offset + written as u64) {
            Ok(0) => return (written, Some(io::ErrorKind::WriteZero.into())),
            Ok(len) => written += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Some(error)),
        }
    }
    (written, None)
}

#[cfg(test)]
mod tests;
