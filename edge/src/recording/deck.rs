//! All recordings of the edge, without I/O: notes of workers in, jobs for the disk out.
//!
//! ```text
//!   Creating -> Running <-> write -> Sealing -> Syncing -> Reading (SHA-256) -> finished
//!       \                     \________ disk full _______________________/
//!        \-> finished (cannot create)
//! ```
//!
//! Each recording has one job under way at most, so its writes happen in order: audio first, then
//! the header that claims it.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::PathBuf;

use sha2::{Digest, Sha256};
use trunkline_edge_api::{MonoTime, Recording, RecordingEnd, RecordingOutcome};
use trunkline_media::recording::{Tape, TapeSpec, TappedPacket};

use super::RecorderCounters;
use super::block::{Block, Note, What};
use super::handle::Finished;

/// Length of the buffers that go to the disk and back.
pub(super) const BUFFER_LEN: usize = 64 * 1_024;

/// Buffers that are kept while no job needs them.
const SPARE_BUFFERS_MAX: usize = 64;

/// A recording by the worker that asked for it, and its slot there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) worker: u16,
    pub(super) slot: u32,
}

/// Something for the disk to do.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) key: Key,
    pub(super) task: Task,
}

#[derive(Debug)]
pub(super) enum Task {
    /// Create the file, or open the one that an earlier life of the edge left.
    Create { path: PathBuf },
    /// Write all of the buffer.
    Write { offset: u64, buffer: Vec<u8> },
    /// Bring everything to the disk.
    Sync,
    /// Fill the buffer, up to its capacity or the end of the file.
    Read { offset: u64, buffer: Vec<u8> },
    /// Forget the file.
    Close,
}

/// What became of a job.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) key: Key,
    pub(super) outcome: Outcome,
}

#[derive(Debug)]
pub(super) enum Outcome {
    Created(io::Result<Opened>),
    Written {
        /// The buffer comes back.
        buffer: Vec<u8>,
        /// Bytes that are in the file.
        len: usize,
        error: Option<io::Error>,
    },
    Synced(io::Result<()>),
    Read {
        buffer: Vec<u8>,
        error: Option<io::Error>,
    },
    Closed,
}

/// A file that can be written.
#[derive(Debug)]
pub(super) enum Opened {
    /// It is new.
    New,
    /// It was there.
    Existing(ExistingFile),
}

/// A file that an earlier life of the edge may have left.
#[derive(Debug)]
pub(super) struct ExistingFile {
    /// Its first bytes.
    pub(super) head: Vec<u8>,
    pub(super) len: u64,
    /// How long ago it was last written.
    pub(super) idle_nanos: u64,
}

/// Every recording, and what they want of the disk.
#[derive(Debug)]
pub(super) struct Deck<'a> {
    recordings: HashMap<Key, Recorded>,
    /// Those that may have a job, each once.
    ready: VecDeque<Key>,
    buffers: Vec<Vec<u8>>,
    finished: VecDeque<(u16, Finished)>,
    counters: &'a RecorderCounters,
    /// Nanoseconds from the monotonic clock to 1970.
    wall_clock_offset: u64,
}

impl<'a> Deck<'a> {
    /// `wall_clock_nanos` is `now` in nanoseconds since 1970.
    pub(super) fn new(
        counters: &'a RecorderCounters,
        now: MonoTime,
        wall_clock_nanos: u64,
    ) -> Self {
        Self {
            recordings: HashMap::new(),
            ready: VecDeque::new(),
            buffers: Vec::new(),
            finished: VecDeque::new(),
            counters,
            wall_clock_offset: wall_clock_nanos.wrapping_sub(now.0),
        }
    }

    /// Takes what a worker noted, and leaves the block empty.
    pub(super) fn handle_block(&mut self, worker: u16, block: &mut Block) {
        block.drain(|note, packet| self.handle_note(worker, note, packet));
    }

    fn handle_note(&mut self, worker: u16, note: Note, packet: &[u8]) {
        let key = Key {
            worker,
            slot: note.slot,
        };
        if let What::Start { recording, at } = &note.what {
            self.start(key, recording, *at);
            return;
        }
        let Some(recorded) = self.recordings.get_mut(&key) else {
            return;
        };
        if recorded.cause.is_some() {
            return;
        }
        match note.what {
            What::Packet {
                leg,
                arrival,
                format,
                follows_drop,
                ..
            } => {
                self.counters.packets_taken.add(1);
                if follows_drop {
                    recorded.tape.handle_drop(arrival);
                }
                recorded.tape.handle_packet(&TappedPacket {
                    arrival,
                    leg,
                    format,
                    packet,
                });
            }
            What::Suppress { leg, from, to } => recorded.tape.suppress(leg, from, to),
            What::Pause { paused, at } => recorded.tape.pause(at, paused),
            What::Stop { at } => {
                recorded.stop(at, RecordingEnd::Stopped);
                self.set_ready(key);
            }
            What::Start { .. } => {}
        }
    }

    fn start(&mut self, key: Key, recording: &Recording, at: MonoTime) {
        let spec = TapeSpec {
            id: recording.id,
            format: recording.format,
            tracks: recording.tracks,
            paused: recording.paused,
        };
        let recorded = Recorded {
            tape: Tape::new(&spec, at, at.0.wrapping_add(self.wall_clock_offset)),
            path: PathBuf::from(recording.path.as_str()),
            state: State::Creating,
            is_busy: false,
            is_ready: false,
            cause: None,
        };
        self.recordings.insert(key, recorded);
        self.set_ready(key);
        self.counters.recordings_started.add(1);
    }

    /// Time has passed, and every packet that arrived before `now` was given.
    pub(super) fn handle_timeout(&mut self, now: MonoTime) {
        for (key, recorded) in &mut self.recordings {
            if recorded.cause.is_some() {
                continue;
            }
            recorded.tape.handle_timeout(now);
            if recorded.tape.is_full() {
                recorded.stop(now, RecordingEnd::FileFull);
            }
            if !recorded.is_busy && !std::mem::replace(&mut recorded.is_ready, true) {
                self.ready.push_back(*key);
            }
        }
    }

    /// Ends every recording: the edge stops.
    pub(super) fn stop_all(&mut self, now: MonoTime) {
        let keys: Vec<Key> = self.recordings.keys().copied().collect();
        for key in keys {
            if let Some(recorded) = self.recordings.get_mut(&key) {
                recorded.stop(now, RecordingEnd::Stopped);
            }
            self.set_ready(key);
        }
    }

    /// Whether no recording is left.
    pub(super) fn is_empty(&self) -> bool {
        self.recordings.is_empty()
    }

    /// The next thing for the disk to do.
    pub(super) fn poll_job(&mut self) -> Option<Job> {
        while let Some(key) = self.ready.pop_front() {
            let Some(recorded) = self.recordings.get_mut(&key) else {
                continue;
            };
            recorded.is_ready = false;
            if recorded.is_busy {
                continue;
            }
            if let Some(task) = recorded.next_task(&mut self.buffers) {
                recorded.is_busy = true;
                return Some(Job { key, task });
            }
        }
        None
    }

    /// Takes what became of a job.
    pub(super) fn handle_done(&mut self, done: Done) {
        let Done { key, outcome } = done;
        let Some(recorded) = self.recordings.get_mut(&key) else {
            return;
        };
        recorded.is_busy = false;
        match outcome {
            Outcome::Created(result) => {
                let is_failed = result.is_err();
                recorded.handle_created(result);
                self.counters.disk_errors.add(u64::from(is_failed));
            }
            Outcome::Written { buffer, len, error } => {
                self.counters.bytes_written.add(len as u64);
                self.counters.disk_errors.add(u64::from(error.is_some()));
                recorded.handle_written(len, error);
                self.keep(buffer);
            }
            Outcome::Synced(result) => {
                self.counters.disk_errors.add(u64::from(result.is_err()));
                recorded.handle_synced(result);
            }
            Outcome::Read { buffer, error } => {
                recorded.handle_read(&buffer, error);
                self.keep(buffer);
            }
            Outcome::Closed => recorded.handle_closed(),
        }
        self.set_ready(key);
        self.take_out_if_over(key);
    }

    /// A recording that is over, and whose it was.
    pub(super) fn poll_finished(&mut self) -> Option<(u16, Finished)> {
        self.finished.pop_front()
    }

    fn set_ready(&mut self, key: Key) {
        if let Some(recorded) = self.recordings.get_mut(&key)
            && !recorded.is_busy
            && !std::mem::replace(&mut recorded.is_ready, true)
        {
            self.ready.push_back(key);
        }
    }

    fn keep(&mut self, buffer: Vec<u8>) {
        if self.buffers.len() < SPARE_BUFFERS_MAX {
            self.buffers.push(buffer);
        }
    }

    fn take_out_if_over(&mut self, key: Key) {
        let Some(recorded) = self.recordings.get(&key) else {
            return;
        };
        let State::Over { digest } = &recorded.state else {
            return;
        };
        let outcome = recorded.outcome(digest.as_ref());
        self.counters.recordings_finished.add(1);
        if outcome.cause != RecordingEnd::Stopped {
            self.counters.recordings_failed.add(1);
        }
        let slot = key.slot;
        self.finished
            .push_back((key.worker, Finished { slot, outcome }));
        self.recordings.remove(&key);
    }
}

/// One recording and its file.
#[derive(Debug)]
struct Recorded {
    tape: Tape,
    path: PathBuf,
    state: State,
    /// A job is under way.
    is_busy: bool,
    /// It stands among those that may have a job.
    is_ready: bool,
    /// Why it takes nothing more.
    cause: Option<RecordingEnd>,
}

#[derive(Debug)]
enum State {
    Creating,
    Running,
    /// The disk failed: the header is told what is there, if that can still be written.
    Sealing,
    Syncing,
    Reading {
        offset: u64,
        hash: Sha256,
    },
    Closing {
        digest: Option<FileDigest>,
    },
    Over {
        digest: Option<FileDigest>,
    },
}

/// What reading the file again told.
#[derive(Debug, Clone, Copy)]
struct FileDigest {
    len: u64,
    sha256: [u8; 32],
}

impl Recorded {
    fn stop(&mut self, now: MonoTime, cause: RecordingEnd) {
        if self.cause.is_none() {
            self.tape.stop(now);
            self.cause = Some(cause);
        }
    }

    fn next_task(&mut self, buffers: &mut Vec<Vec<u8>>) -> Option<Task> {
        let mut buffer = buffers
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(BUFFER_LEN));
        buffer.clear();
        let task = match &self.state {
            State::Creating => Task::Create {
                path: self.path.clone(),
            },
            State::Running => {
                if let Some(offset) = self.tape.poll_write(&mut buffer) {
                    return Some(Task::Write { offset, buffer });
                }
                if self.cause.is_none() {
                    buffers.push(buffer);
                    return None;
                }
                self.state = State::Syncing;
                Task::Sync
            }
            State::Sealing => {
                if let Some(header) = self.tape.closing_header() {
                    buffer.extend_from_slice(&header);
                    return Some(Task::Write { offset: 0, buffer });
                }
                self.state = State::Syncing;
                Task::Sync
            }
            State::Syncing => Task::Sync,
            State::Reading { offset, .. } => {
                let offset = *offset;
                return Some(Task::Read { offset, buffer });
            }
            State::Closing { .. } | State::Over { .. } => Task::Close,
        };
        buffers.push(buffer);
        Some(task)
    }

    fn handle_created(&mut self, result: io::Result<Opened>) {
        self.state = match result {
            Ok(Opened::New) => State::Running,
            Ok(Opened::Existing(file))
                if self.tape.resume(&file.head, file.len, file.idle_nanos) =>
            {
                State::Running
            }
            Ok(Opened::Existing(_)) => {
                self.cause = Some(RecordingEnd::CannotCreate);
                State::Closing { digest: None }
            }
            Err(_) => {
                self.cause = Some(RecordingEnd::CannotCreate);
                State::Over { digest: None }
            }
        };
    }

    fn handle_written(&mut self, len: usize, error: Option<io::Error>) {
        if matches!(self.state, State::Sealing) {
            // What the header could not be told, the file's length still tells.
            self.state = State::Syncing;
            return;
        }
        self.tape.handle_written(len);
        if let Some(error) = error {
            self.cause = Some(cause_of(&error));
            self.state = State::Sealing;
        }
    }

    fn handle_synced(&mut self, result: io::Result<()>) {
        if let Err(error) = result
            && matches!(self.cause, None | Some(RecordingEnd::Stopped))
        {
            self.cause = Some(cause_of(&error));
        }
        self.state = State::Reading {
            offset: 0,
            hash: Sha256::new(),
        };
    }

    fn handle_read(&mut self, bytes: &[u8], error: Option<io::Error>) {
        let State::Reading { offset, hash } = &mut self.state else {
            return;
        };
        if error.is_some() {
            self.state = State::Closing { digest: None };
        } else if bytes.is_empty() {
            let digest = FileDigest {
                len: *offset,
                sha256: hash.clone().finalize().into(),
            };
            self.state = State::Closing {
                digest: Some(digest),
            };
        } else {
            *offset += bytes.len() as u64;
            hash.update(bytes);
        }
    }

    fn handle_closed(&mut self) {
        if let State::Closing { digest } = self.state {
            self.state = State::Over { digest };
        }
    }

    fn outcome(&self, digest: Option<&FileDigest>) -> RecordingOutcome {
        let cause = self.cause.unwrap_or(RecordingEnd::Stopped);
        let has_file = cause != RecordingEnd::CannotCreate;
        RecordingOutcome {
            cause,
            duration_millis: if has_file {
                self.tape.duration_millis()
            } else {
                0
            },
            bytes: digest.map_or_else(|| self.tape.file_len(), |digest| digest.len),
            lost_packets: self.tape.stats().overrun_packets,
            sha256: digest.map_or([0; 32], |digest| digest.sha256),
        }
    }
}

/// What a failed write means for its recording.
fn cause_of(error: &io::Error) -> RecordingEnd {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => RecordingEnd::DiskFull,
        io::ErrorKind::FileTooLarge => RecordingEnd::FileFull,
        _ => RecordingEnd::WriteFailed,
    }
}

#[cfg(test)]
mod tests;
