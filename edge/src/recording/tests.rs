//! The recorder as a whole, on real files, in both tiers.

use std::path::Path;
use std::process::Command;

use sha2::{Digest, Sha256};
use tempfile::{TempDir, tempdir};
use trunkline_edge_api::{
    AudioCodec, AudioFormat, ClockRateHz, FilePath, LegIndex, OpusOptions, PacketTime, PayloadType,
    Recording, RecordingEnd, RecordingFormat, RecordingId, RecordingTracks, Refusal,
};
use trunkline_media::SampleRate;
use trunkline_media::prompt::{Prompt, PromptLimits};

use super::*;

const SMALL: RecorderLimits = RecorderLimits {
    recordings_max: 4,
    blocks_max: 8,
};

fn pcmu() -> Option<AudioFormat> {
    Some(AudioFormat {
        codec: AudioCodec::Pcmu,
        payload_type: PayloadType::PCMU,
        clock_rate: ClockRateHz::NARROWBAND,
        channels: 1,
        packet_time: PacketTime::MS_20,
        opus: OpusOptions::default(),
    })
}

fn recording(id: u64, path: &Path) -> Recording {
    Recording {
        id: RecordingId(id),
        path: FilePath::new(path.to_str().unwrap()).unwrap(),
        format: RecordingFormat::Wav8k,
        tracks: RecordingTracks::Stereo,
        paused: false,
    }
}

fn packet(n: u64) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend((n as u16).to_be_bytes());
    packet.extend((n as u32 * 160).to_be_bytes());
    packet.extend([0, 0, 0, 1]);
    packet.extend([0x90; 160]);
    packet
}

/// A recorder with one worker in each tier that this machine has.
fn each_tier(limits: &RecorderLimits, test: impl Fn(&TempDir, Recorder, RecorderHandle)) {
    for io in [IoChoice::Epoll, IoChoice::Auto] {
        let (recorder, mut handles) = Recorder::start(1, limits, io).unwrap();
        let expected = match (io, uring_disk::runtime()) {
            (IoChoice::Auto, Ok(_)) => RecorderTier::IoUring,
            _ => RecorderTier::Plain,
        };
        assert_eq!(recorder.tier(), expected);
        test(&tempdir().unwrap(), recorder, handles.remove(0));
    }
}

/// Waits for a recording to be told as over, as a worker does.
fn wait_for_end(handle: &mut RecorderHandle) -> RecordingEnded {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        handle.flush(monotonic_now());
        if let Some(ended) = handle.poll_finished() {
            return ended;
        }
        assert!(Instant::now() < until, "the recording never ended");
        sleep(Duration::from_millis(2));
    }
}

/// Records `millis` of both legs in real time.
fn record(handle: &mut RecorderHandle, slot: RecordingSlot, millis: u64) {
    let start = monotonic_now();
    for n in 0..millis / 20 {
        let now = start.plus_millis(20 * n);
        while monotonic_now() < now {
            sleep(Duration::from_millis(1));
            handle.flush(monotonic_now());
        }
        for leg in LegIndex::ALL {
            handle.tap(slot, leg, monotonic_now(), pcmu(), &packet(n));
        }
    }
}

#[test]
fn a_call_is_recorded_whole() {
    each_tier(&SMALL, |dir, recorder, mut handle| {
        let path = dir.path().join("call.wav");
        let slot = handle
            .start(&recording(77, &path), monotonic_now())
            .unwrap();
        record(&mut handle, slot, 1_500);
        let stopped = monotonic_now();
        handle.stop(slot, stopped);
        let ended = wait_for_end(&mut handle);
        assert_eq!((ended.recording, ended.slot), (RecordingId(77), slot));
        let outcome = ended.outcome;
        assert_eq!(
            (outcome.cause, outcome.lost_packets),
            (RecordingEnd::Stopped, 0)
        );
        let file = std::fs::read(&path).unwrap();
        assert_eq!(outcome.bytes, file.len() as u64);
        assert_eq!(outcome.sha256, <[u8; 32]>::from(Sha256::digest(&file)));
        assert!((1_480..1_700).contains(&outcome.duration_millis));
        let prompt = Prompt::parse(&file, None, &PromptLimits::default()).unwrap();
        let samples = prompt.samples(SampleRate::Hz8000).unwrap();
        let loud = samples.iter().filter(|s| s.abs() > 1_000).count();
        assert!(loud >= 74 * 160, "{loud} of {} samples", samples.len());
        let counters = Arc::clone(recorder.counters());
        assert_eq!(counters.packets_taken.get(), 150);
        assert_eq!(counters.packets_dropped.get(), 0);
        assert!(recorder.is_running());
        drop(handle);
        assert!(recorder.stop(Duration::from_secs(5)));
        assert_eq!(counters.recordings_finished.get(), 1);
    });
}

#[test]
fn other_programs_can_read_the_file() {
    if Command::new("soxi").arg("--version").output().is_err() {
        eprintln!("soxi is not installed: its verdict is missing here");
        return;
    }
    each_tier(&SMALL, |dir, _recorder, mut handle| {
        let path = dir.path().join("call.wav");
        let slot = handle
            .start(&recording(77, &path), monotonic_now())
            .unwrap();
        record(&mut handle, slot, 200);
        handle.stop(slot, monotonic_now());
        let ended = wait_for_end(&mut handle);
        let soxi = |option: &str| {
            let output = Command::new("soxi")
                .arg(option)
                .arg(&path)
                .output()
                .unwrap();
            assert!(output.stderr.is_empty(), "{output:?}");
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        assert_eq!(soxi("-r"), "8000");
        assert_eq!(soxi("-c"), "2");
        assert_eq!(soxi("-b"), "16");
        let samples: u64 = soxi("-s").parse().unwrap();
        assert_eq!(samples / 8, ended.outcome.duration_millis);
    });
}

#[test]
fn other_programs_can_read_the_packets() {
    if Command::new("tcpdump").arg("--version").output().is_err() {
        eprintln!("tcpdump is not installed: its verdict is missing here");
        return;
    }
    each_tier(&SMALL, |dir, _recorder, mut handle| {
        let path = dir.path().join("call.pcap");
        let mut recording = recording(77, &path);
        recording.format = RecordingFormat::Pcap;
        let slot = handle.start(&recording, monotonic_now()).unwrap();
        record(&mut handle, slot, 200);
        handle.stop(slot, monotonic_now());
        wait_for_end(&mut handle);
        // -vv checks checksums.
        let output = Command::new("tcpdump")
            .args(["-vvnr"])
            .arg(&path)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let from = |peer: &str| {
            text.matches(&format!("{peer}.5004 > 192.0.2.254.5004:"))
                .count()
        };
        assert_eq!((from("192.0.2.1"), from("192.0.2.2")), (10, 10), "{text}");
        assert!(!text.contains("bad"), "{text}");
    });
}

#[test]
fn a_directory_that_is_missing_ends_that_recording_alone() {
    each_tier(&SMALL, |dir, _recorder, mut handle| {
        let now = monotonic_now();
        let bad = dir.path().join("missing").join("a.wav");
        let bad = handle.start(&recording(1, &bad), now).unwrap();
        let good = dir.path().join("b.wav");
        let good = handle.start(&recording(2, &good), now).unwrap();
        let ended = wait_for_end(&mut handle);
        assert_eq!(
            (ended.slot, ended.outcome.cause),
            (bad, RecordingEnd::CannotCreate)
        );
        // Its slot is stale now, whoever uses it next.
        handle.tap(bad, LegIndex::A, now, pcmu(), &packet(0));
        handle.stop(bad, now);
        handle.tap(good, LegIndex::A, now, pcmu(), &packet(0));
        handle.stop(good, monotonic_now());
        let ended = wait_for_end(&mut handle);
        assert_eq!(
            (ended.slot, ended.outcome.cause),
            (good, RecordingEnd::Stopped)
        );
        assert_eq!(handle.poll_finished(), None);
    });
}

#[test]
fn samples_of_a_mix_are_recorded_like_packets() {
    each_tier(&SMALL, |dir, _recorder, mut handle| {
        let path = dir.path().join("mix.wav");
        let mut recording = recording(3, &path);
        recording.format = RecordingFormat::Wav16k;
        recording.tracks = RecordingTracks::LegA;
        let start = monotonic_now();
        let slot = handle.start(&recording, start).unwrap();
        for n in 0..100i16 {
            let now = start.plus_millis(20 * n as u64);
            handle.tap_samples(slot, LegIndex::A, now, SampleRate::Hz16000, &[100 + n; 320]);
        }
        handle.stop(slot, start.plus_millis(2_000));
        let ended = wait_for_end(&mut handle);
        assert_eq!(ended.outcome.duration_millis, 2_000);
        let file = std::fs::read(&path).unwrap();
        let audio = &file[file.len() - 64_000..];
        for (n, frame) in audio.chunks(640).enumerate() {
            let expected = (100 + n as i16).to_le_bytes();
            assert!(
                frame.chunks(2).all(|sample| sample == expected),
                "frame {n}"
            );
        }
    });
}

#[test]
fn a_full_queue_drops_packets_and_counts_them_but_loses_no_order() {
    // Nobody takes anything out of these queues.
    let counters = Arc::new(RecorderCounters::default());
    let queues = Arc::new(Queues {
        full: ArrayQueue::new(2),
        empty: ArrayQueue::new(2),
        finished: ArrayQueue::new(4),
    });
    let limits = RecorderLimits {
        recordings_max: 4,
        blocks_max: 2,
    };
    let mut handle = RecorderHandle::new(Arc::clone(&queues), Arc::clone(&counters), &limits);
    let now = MonoTime(1_000_000_000);
    let path = Path::new("/r/a.wav");
    let slot = handle.start(&recording(1, path), now).unwrap();
    for n in 0..1_000 {
        handle.tap(slot, LegIndex::A, now, pcmu(), &packet(n));
    }
    let dropped = counters.packets_dropped.get();
    assert!((700..1_000).contains(&dropped), "{dropped}");
    handle.suppress(slot, LegIndex::A, (now, now.plus_millis(80)), now);
    handle.stop(slot, now);
    assert_eq!(
        handle.start(&recording(2, path), now),
        Err(Refusal::TooManyRecordings)
    );
    handle.tap(slot, LegIndex::A, now, pcmu(), &packet(0));
    assert_eq!(counters.packets_dropped.get(), dropped, "it is stopped");
    // The recorder comes back: what is owed goes first.
    let mut notes = Vec::new();
    let mut take = || {
        while let Some(mut block) = queues.full.pop() {
            block.drain(|note, _| notes.push(note.what));
            queues.empty.push(block).unwrap();
        }
    };
    take();
    handle.flush(now);
    handle.flush(now.plus_millis(20));
    take();
    let tail = &notes[notes.len() - 2..];
    assert!(
        matches!(
            tail,
            [block::What::Suppress { .. }, block::What::Stop { .. }]
        ),
        "{tail:?}"
    );
    assert!(matches!(notes[0], block::What::Start { .. }));
    assert_eq!(notes.len() as u64, 1 + (1_000 - dropped) + 2);
    let outcome = trunkline_edge_api::RecordingOutcome {
        cause: RecordingEnd::Stopped,
        duration_millis: 1,
        bytes: 1,
        lost_packets: 5,
        sha256: [0; 32],
    };
    let finished = handle::Finished { slot: 0, outcome };
    queues.finished.push(finished).unwrap();
    let ended = handle.poll_finished().unwrap();
    assert_eq!(ended.outcome.lost_packets, 5 + dropped);
}

#[test]
fn more_recordings_than_slots_are_refused_until_one_ends() {
    each_tier(&SMALL, |dir, _recorder, mut handle| {
        let start = |handle: &mut RecorderHandle, n: u64| {
            let path = dir.path().join(format!("{n}.wav"));
            handle.start(&recording(n, &path), monotonic_now())
        };
        let slots: Vec<_> = (0..4).map(|n| start(&mut handle, n).unwrap()).collect();
        assert_eq!(start(&mut handle, 4), Err(Refusal::TooManyRecordings));
        handle.stop(slots[2], monotonic_now());
        assert_eq!(wait_for_end(&mut handle).slot, slots[2]);
        let again = start(&mut handle, 5).unwrap();
        assert_ne!(again, slots[2], "the old name stays stale");
    });
}

#[test]
fn stopping_the_recorder_completes_what_runs() {
    each_tier(&SMALL, |dir, recorder, mut handle| {
        let path = dir.path().join("a.wav");
        let slot = handle.start(&recording(1, &path), monotonic_now()).unwrap();
        record(&mut handle, slot, 300);
        drop(handle);
        assert!(recorder.stop(Duration::from_secs(5)));
        let file = std::fs::read(&path).unwrap();
        let prompt = Prompt::parse(&file, None, &PromptLimits::default()).unwrap();
        assert!(
            prompt.duration_millis() >= 300,
            "{}",
            prompt.duration_millis()
        );
    });
}

/// Where the child of the next test records to; without it the child does nothing.
const CHILD_DIR: &str = "TRUNKLINE_TEST_RECORDER_DIR";

#[test]
#[ignore = "run by a_killed_edge_leaves_files_that_play, which kills it"]
fn records_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    let (_recorder, mut handles) = Recorder::start(2, &SMALL, IoChoice::Auto).unwrap();
    let mut handle = handles.remove(0);
    let path = Path::new(&dir).join("call.wav");
    let slot = handle.start(&recording(1, &path), monotonic_now()).unwrap();
    record(&mut handle, slot, 60_000);
}

#[test]
fn a_killed_edge_leaves_files_that_play() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("call.wav");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "recording::tests::records_until_it_is_killed",
        ])
        .env(CHILD_DIR, dir.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    let claims = |file: &[u8]| {
        let prompt = Prompt::parse(file, None, &PromptLimits::default()).ok()?;
        Some(prompt.duration_millis())
    };
    loop {
        sleep(Duration::from_millis(50));
        let millis = std::fs::read(&path).ok().and_then(|file| claims(&file));
        if millis.is_some_and(|millis| millis >= 2_000) {
            break;
        }
        assert!(Instant::now() < until, "the child does not record");
    }
    // SIGKILL.
    child.kill().unwrap();
    child.wait().unwrap();
    let file = std::fs::read(&path).unwrap();
    let millis = claims(&file).expect("it plays");
    let present = (file.len() - trunkline_media::recording::Tape::resume_head_len()) as u64 / 32;
    assert!(
        present <= millis + 1_200,
        "{present} ms are there, {millis} ms are claimed"
    );
    // The next life goes on in it.
    let (_recorder, mut handles) = Recorder::start(1, &SMALL, IoChoice::Auto).unwrap();
    let mut handle = handles.remove(0);
    let slot = handle.start(&recording(1, &path), monotonic_now()).unwrap();
    record(&mut handle, slot, 200);
    handle.stop(slot, monotonic_now());
    let outcome = wait_for_end(&mut handle).outcome;
    assert_eq!(outcome.cause, RecordingEnd::Stopped);
    assert!(outcome.duration_millis >= present + 200, "{outcome:?}");
    let file = std::fs::read(&path).unwrap();
    assert_eq!(claims(&file), Some(outcome.duration_millis));
}
