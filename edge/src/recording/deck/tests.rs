use std::collections::BTreeMap;

use trunkline_edge_api::{
    AudioCodec, AudioFormat, ClockRateHz, FilePath, LegIndex, OpusOptions, PacketTime, PayloadType,
    RecordingFormat, RecordingId, RecordingTracks,
};

use super::*;

const START: MonoTime = MonoTime(9_000_000_000);

fn at(millis: u64) -> MonoTime {
    START.plus_millis(millis)
}

/// A disk in memory, with the faults of real ones.
#[derive(Debug, Default)]
struct FakeDisk {
    files: BTreeMap<PathBuf, Vec<u8>>,
    open: BTreeMap<Key, PathBuf>,
    /// Bytes that all files together may have.
    room: Option<usize>,
    fails_sync: bool,
    fails_read: bool,
    /// Jobs are kept instead of done.
    hangs: bool,
    waiting: Vec<Job>,
}

impl FakeDisk {
    fn run(&mut self, job: Job) -> Done {
        let Job { key, task } = job;
        let outcome = match task {
            Task::Create { path } => Outcome::Created(self.create(key, path)),
            Task::Write { offset, buffer } => self.write(key, offset, buffer),
            Task::Sync if self.fails_sync => Outcome::Synced(Err(io::ErrorKind::Other.into())),
            Task::Sync => Outcome::Synced(Ok(())),
            Task::Read { buffer, .. } if self.fails_read => Outcome::Read {
                buffer,
                error: Some(io::ErrorKind::Other.into()),
            },
            Task::Read { offset, mut buffer } => {
                let file = &self.files[&self.open[&key]];
                let rest = &file[(offset as usize).min(file.len())..];
                buffer.extend_from_slice(&rest[..rest.len().min(buffer.capacity())]);
                Outcome::Read {
                    buffer,
                    error: None,
                }
            }
            Task::Close => {
                assert!(self.open.remove(&key).is_some(), "closed once");
                Outcome::Closed
            }
        };
        Done { key, outcome }
    }

    fn create(&mut self, key: Key, path: PathBuf) -> io::Result<Opened> {
        if path.starts_with("/missing") {
            return Err(io::ErrorKind::NotFound.into());
        }
        let opened = match self.files.get(&path) {
            Some(file) => Opened::Existing(ExistingFile {
                head: file[..file.len().min(Tape::resume_head_len())].to_vec(),
                len: file.len() as u64,
                idle_nanos: 1_000_000_000,
            }),
            None => Opened::New,
        };
        self.files.entry(path.clone()).or_default();
        self.open.insert(key, path);
        Ok(opened)
    }

    fn write(&mut self, key: Key, offset: u64, buffer: Vec<u8>) -> Outcome {
        let used: usize = self.files.values().map(Vec::len).sum();
        let file = self.files.get_mut(&self.open[&key]).expect("open");
        let offset = offset as usize;
        let grows = (offset + buffer.len()).saturating_sub(file.len());
        let missing = grows.saturating_sub(self.room.unwrap_or(usize::MAX).saturating_sub(used));
        let len = buffer.len() - missing;
        file.resize(file.len().max(offset + len), 0);
        file[offset..offset + len].copy_from_slice(&buffer[..len]);
        let error = (missing > 0).then(|| io::ErrorKind::StorageFull.into());
        Outcome::Written { buffer, len, error }
    }

    fn file(&self, path: &str) -> &[u8] {
        &self.files[&PathBuf::from(path)]
    }
}

fn recording(id: u64, path: &str) -> Recording {
    Recording {
        id: RecordingId(id),
        path: FilePath::new(path).expect("sound"),
        format: RecordingFormat::Wav8k,
        tracks: RecordingTracks::LegA,
        paused: false,
    }
}

fn key(slot: u32) -> Key {
    Key { worker: 0, slot }
}

/// A deck, its disk and what it said.
struct Studio<'a> {
    deck: Deck<'a>,
    disk: FakeDisk,
    finished: Vec<Finished>,
}

impl<'a> Studio<'a> {
    fn new(counters: &'a RecorderCounters) -> Self {
        Self {
            deck: Deck::new(counters, START, 0),
            disk: FakeDisk::default(),
            finished: Vec::new(),
        }
    }

    fn tell(&mut self, slot: u32, what: What) {
        let mut block = Block::new();
        block.push(slot, what);
        self.deck.handle_block(0, &mut block);
        assert!(block.is_empty());
    }

    fn start(&mut self, slot: u32, path: &str) {
        let recording = Box::new(recording(u64::from(slot), path));
        self.tell(
            slot,
            What::Start {
                recording,
                at: START,
            },
        );
    }

    /// 20 ms of a loud something arrive.
    fn packet(&mut self, slot: u32, n: u64) {
        let mut packet = vec![0x80, 0];
        packet.extend((n as u16).to_be_bytes());
        packet.extend((n as u32 * 160).to_be_bytes());
        packet.extend([0, 0, 0, 1]);
        packet.extend([0x90; 160]);
        let format = AudioFormat {
            codec: AudioCodec::Pcmu,
            payload_type: PayloadType::PCMU,
            clock_rate: ClockRateHz::NARROWBAND,
            channels: 1,
            packet_time: PacketTime::MS_20,
            opus: OpusOptions::default(),
        };
        let mut block = Block::new();
        let facts = (LegIndex::A, at(20 * n), Some(format));
        block.push_packet(slot, facts, false, [&packet, &[]]);
        self.deck.handle_block(0, &mut block);
    }

    fn tick(&mut self, now: MonoTime) {
        self.deck.handle_timeout(now);
        self.work();
    }

    fn work(&mut self) {
        if !self.disk.hangs {
            for job in std::mem::take(&mut self.disk.waiting) {
                let done = self.disk.run(job);
                self.deck.handle_done(done);
            }
        }
        while let Some(job) = self.deck.poll_job() {
            if self.disk.hangs {
                self.disk.waiting.push(job);
                continue;
            }
            let done = self.disk.run(job);
            self.deck.handle_done(done);
        }
        while let Some((worker, finished)) = self.deck.poll_finished() {
            assert_eq!(worker, 0);
            self.finished.push(finished);
        }
    }

    fn stop(&mut self, slot: u32, now: MonoTime) {
        self.tell(slot, What::Stop { at: now });
        self.work();
    }

    fn outcome(&self, slot: u32) -> RecordingOutcome {
        let of_slot = |finished: &&Finished| finished.slot == slot;
        let all: Vec<_> = self.finished.iter().filter(of_slot).collect();
        assert_eq!(all.len(), 1, "told once");
        all[0].outcome
    }
}

/// Bytes of audio that the header of a WAV file claims.
fn claimed(file: &[u8]) -> usize {
    let at = Tape::resume_head_len() - 4;
    u32::from_le_bytes(file[at..at + 4].try_into().expect("four bytes")) as usize
}

#[test]
fn a_stopped_recording_is_told_with_its_length_and_hash() {
    let counters = RecorderCounters::default();
    let mut studio = Studio::new(&counters);
    studio.start(3, "/r/a.wav");
    for n in 0..500 {
        studio.packet(3, n);
        studio.tick(at(20 * n));
    }
    studio.stop(3, at(10_000));
    let outcome = studio.outcome(3);
    let file = studio.disk.file("/r/a.wav");
    assert_eq!(outcome.cause, RecordingEnd::Stopped);
    assert_eq!((outcome.duration_millis, outcome.lost_packets), (10_000, 0));
    assert_eq!(outcome.bytes, file.len() as u64);
    assert_eq!(claimed(file), 160_000);
    assert_eq!(outcome.sha256, <[u8; 32]>::from(Sha256::digest(file)));
    assert!(studio.deck.is_empty() && studio.disk.open.is_empty());
    assert_eq!(counters.packets_taken.get(), 500);
    assert_eq!(counters.recordings_failed.get(), 0);
}

#[test]
fn a_full_disk_ends_what_wrote_to_it_and_nothing_else() {
    let counters = RecorderCounters::default();
    let mut studio = Studio::new(&counters);
    studio.start(0, "/r/a.wav");
    studio.start(1, "/r/b.wav");
    for n in 0..500 {
        studio.packet(0, n);
        studio.packet(1, n);
        if n == 200 {
            // Room for a's next write, not for b's.
            let used: usize = studio.disk.files.values().map(Vec::len).sum();
            studio.disk.room = Some(used + 17_000);
        }
        if studio.finished.len() == 1 {
            studio.disk.room = None;
        }
        studio.tick(at(20 * n));
    }
    assert_eq!(studio.finished.len(), 1);
    let failed = studio.finished[0].slot;
    let outcome = studio.outcome(failed);
    assert_eq!(outcome.cause, RecordingEnd::DiskFull);
    let other = 1 - failed;
    studio.stop(other, at(10_000));
    assert_eq!(studio.outcome(other).cause, RecordingEnd::Stopped);
    assert_eq!(studio.outcome(other).duration_millis, 10_000);
    let path = ["/r/a.wav", "/r/b.wav"][failed as usize];
    let file = studio.disk.file(path);
    let audio = file.len() - Tape::resume_head_len();
    assert_eq!(
        claimed(file),
        audio - audio % 2,
        "the header claims what is there"
    );
    assert_eq!(outcome.bytes, file.len() as u64);
    assert_eq!(outcome.sha256, <[u8; 32]>::from(Sha256::digest(file)));
    assert_eq!(counters.recordings_failed.get(), 1);
    assert_eq!(counters.disk_errors.get(), 1);
}

#[test]
fn a_file_that_cannot_be_created_is_told_and_leaves_others_files_alone() {
    let counters = RecorderCounters::default();
    let mut studio = Studio::new(&counters);
    studio
        .disk
        .files
        .insert("/r/b.wav".into(), b"precious".to_vec());
    studio.start(0, "/missing/a.wav");
    studio.start(1, "/r/b.wav");
    studio.packet(0, 0);
    studio.work();
    for slot in [0, 1] {
        let outcome = studio.outcome(slot);
        assert_eq!(outcome.cause, RecordingEnd::CannotCreate);
        assert_eq!((outcome.bytes, outcome.duration_millis), (0, 0));
        assert_eq!(outcome.sha256, [0; 32]);
        // The worker does not know yet.
        studio.packet(slot, 1);
        studio.stop(slot, at(50));
    }
    assert_eq!(studio.disk.file("/r/b.wav"), b"precious");
    assert!(studio.deck.is_empty() && studio.disk.open.is_empty());
    assert_eq!(counters.recordings_failed.get(), 2);
}

#[test]
fn a_recording_goes_on_in_the_file_of_an_earlier_life() {
    let counters = RecorderCounters::default();
    let mut studio = Studio::new(&counters);
    studio.start(5, "/r/a.wav");
    for n in 0..200 {
        studio.packet(5, n);
        studio.tick(at(20 * n));
    }
    // Killed; nothing but the file is left.
    let file = studio.disk.file("/r/a.wav").to_vec();
    let present = file.len() - Tape::resume_head_len();
    let mut studio = Studio::new(&counters);
    studio.disk.files.insert("/r/a.wav".into(), file);
    studio.start(5, "/r/a.wav");
    for n in 0..100 {
        studio.packet(5, n);
        studio.tick(at(20 * n));
    }
    studio.stop(5, at(2_000));
    let outcome = studio.outcome(5);
    assert_eq!(outcome.cause, RecordingEnd::Stopped);
    // What was there, a second of silence, and two seconds.
    let expected = present + 16_000 + 32_000;
    assert_eq!(claimed(studio.disk.file("/r/a.wav")), expected);
    assert_eq!(outcome.duration_millis, expected as u64 / 16);
}

#[test]
fn a_disk_that_hangs_costs_audio_but_no_memory_without_limit() {
    let counters = RecorderCounters::default();
    let mut studio = Studio::new(&counters);
    studio.start(0, "/r/a.wav");
    studio.work();
    for n in 0..3_000 {
        studio.disk.hangs = (100..2_500).contains(&n);
        studio.packet(0, n);
        studio.tick(at(20 * n));
        assert!(studio.disk.waiting.len() <= 1, "one job for each recording");
        assert!(studio.deck.ready.len() <= 1);
    }
    studio.stop(0, at(60_000));
    let outcome = studio.outcome(0);
    assert_eq!(
        outcome.duration_millis, 60_000,
        "silence stands for what was lost"
    );
    assert!(outcome.lost_packets > 1_000, "{}", outcome.lost_packets);
}

#[test]
fn errors_of_sync_and_of_reading_again_are_told() {
    let counters = RecorderCounters::default();
    let mut studio = Studio::new(&counters);
    studio.disk.fails_sync = true;
    studio.start(0, "/r/a.wav");
    studio.packet(0, 0);
    studio.stop(0, at(100));
    assert_eq!(studio.outcome(0).cause, RecordingEnd::WriteFailed);
    let mut studio = Studio::new(&counters);
    studio.disk.fails_read = true;
    studio.start(0, "/r/a.wav");
    studio.stop(0, at(100));
    let outcome = studio.outcome(0);
    assert_eq!(outcome.cause, RecordingEnd::Stopped);
    assert_eq!(outcome.sha256, [0; 32]);
    assert_eq!(outcome.bytes, studio.disk.file("/r/a.wav").len() as u64);
}

#[test]
fn stopping_the_edge_completes_every_file() {
    let counters = RecorderCounters::default();
    let mut studio = Studio::new(&counters);
    for slot in 0..50 {
        studio.start(slot, &format!("/r/{slot}.wav"));
        studio.packet(slot, 0);
    }
    studio.deck.stop_all(at(500));
    studio.deck.stop_all(at(900));
    studio.work();
    assert!(studio.deck.is_empty());
    for slot in 0..50 {
        assert_eq!(studio.outcome(slot).duration_millis, 500);
    }
}

#[test]
fn notes_for_nobody_are_ignored() {
    let counters = RecorderCounters::default();
    let mut studio = Studio::new(&counters);
    studio.packet(7, 0);
    studio.tell(
        7,
        What::Pause {
            paused: true,
            at: START,
        },
    );
    studio.stop(7, at(10));
    let done = Done {
        key: key(7),
        outcome: Outcome::Closed,
    };
    studio.deck.handle_done(done);
    assert!(studio.finished.is_empty());
}
