//! The spool file: JSON lines, appended and synced, emptied once the store has them.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::DetailRecord;

/// Lines that hold no record are moved to a file of this extension for somebody to look at.
const REJECTED_EXTENSION: &str = "rejected";

/// An open spool. One process at a time: the file is locked.
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    path: PathBuf,
    /// Bytes of whole, synced lines.
    len: u64,
    /// Bytes of those that the store has.
    delivered: u64,
    /// Appends that would make the file longer are refused.
    len_max: u64,
    /// A failed append may have left part of a line behind `len`.
    tail_is_dirty: bool,
}

/// Records to deliver, and where the next ones begin.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) records: Vec<DetailRecord>,
    /// Lines that could not be read, moved aside.
    pub(super) rejected_count: u64,
    /// For [`Spool::mark_delivered`].
    pub(super) end: u64,
}

impl Spool {
    /// Opens the spool at `path`, creating it when it does not exist. A torn last line, left by a
    /// process that died while writing, is cut off: its record was never promised to anybody.
    /// Gives the number of bytes cut.
    pub(super) fn open(path: &Path, len_max: u64) -> io::Result<(Self, u64)> {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    "another trunkline-control has it open; stop that one first",
                ));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let whole = whole_lines_len(&file)?;
        let torn = file.metadata()?.len() - whole;
        if torn > 0 {
            file.set_len(whole)?;
        }
        // The directory entry of a new file must be as durable as its lines.
        if let Some(dir) = path.parent() {
            File::open(dir)?.sync_all()?;
        }
        let spool = Self {
            file,
            path: path.to_owned(),
            len: whole,
            delivered: 0,
            len_max,
            tail_is_dirty: false,
        };
        Ok((spool, torn))
    }

    /// Appends all of `records` and syncs, or leaves the spool as it was.
    pub(super) fn append<'a>(
        &mut self,
        records: impl Iterator<Item = &'a DetailRecord>,
    ) -> io::Result<()> {
        if self.tail_is_dirty {
            self.file.set_len(self.len)?;
            self.tail_is_dirty = false;
        }
        let mut lines = Vec::new();
        for record in records {
            serde_json::to_writer(&mut lines, record)?;
            lines.push(b'\n');
        }
        let len = self.len.saturating_add(lines.len() as u64);
        if len > self.len_max {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!("the spool has reached its {} bytes", self.len_max),
            ));
        }
        self.tail_is_dirty = true;
        self.file.write_all(&lines)?;
        self.file.sync_data()?;
        self.tail_is_dirty = false;
        self.len = len;
        Ok(())
    }

    /// Up to `count_max` records that have not been delivered. Asking again without
    /// [`Self::mark_delivered`] gives the same.
    pub(super) fn next_batch(&mut self, count_max: usize) -> io::Result<Batch> {
        let mut batch = Batch {
            records: Vec::new(),
            rejected_count: 0,
            end: self.delivered,
        };
        self.file.seek(SeekFrom::Start(self.delivered))?;
        let mut reader = BufReader::new(&self.file);
        let mut line = Vec::new();
        while batch.end < self.len && batch.records.len() < count_max {
            line.clear();
            let read = reader.read_until(b'\n', &mut line)? as u64;
            if read == 0 {
                break;
            }
            batch.end += read;
            match serde_json::from_slice(&line) {
                Ok(record) => batch.records.push(record),
                Err(error) => {
                    tracing::error!(%error, spool = %self.path.display(),
                        "a line of the spool holds no call record; moved aside");
                    self.set_aside(&line)?;
                    batch.rejected_count += 1;
                }
            }
        }
        Ok(batch)
    }

    fn set_aside(&self, line: &[u8]) -> io::Result<()> {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(self.path.with_extension(REJECTED_EXTENSION))?
            .write_all(line)
    }

    /// The store has everything up to `end`. The file is emptied when that is all of it; should
    /// that be undone by a power cut, the lines are delivered again and the store ignores them.
    pub(super) fn mark_delivered(&mut self, end: u64) -> io::Result<()> {
        self.delivered = end.min(self.len);
        if self.delivered == self.len && self.len > 0 {
            self.file.set_len(0)?;
            self.len = 0;
            self.delivered = 0;
            self.tail_is_dirty = false;
        }
        Ok(())
    }

    /// Bytes that the store does not have yet.
    pub(super) fn undelivered_len(&self) -> u64 {
        self.len - self.delivered
    }
}

/// Length of `file` up to and with its last line end.
fn whole_lines_len(file: &File) -> io::Result<u64> {
    let mut reader = BufReader::new(file);
    reader.seek(SeekFrom::Start(0))?;
    let (mut whole, mut position) = (0, 0);
    loop {
        let chunk = reader.fill_buf()?;
        if chunk.is_empty() {
            return Ok(whole);
        }
        if let Some(at) = chunk.iter().rposition(|&byte| byte == b'\n') {
            whole = position + at as u64 + 1;
        }
        let len = chunk.len();
        position += len as u64;
        reader.consume(len);
    }
}
