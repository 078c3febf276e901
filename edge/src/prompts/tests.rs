use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Instant;

use tempfile::tempdir;
use trunkline_edge_api::{
    AudioCodec, ClockRateHz, OpusOptions, PacketTime, PayloadType, ToneSegment,
};
use trunkline_media::SampleRate;

use super::tones::TONES_MAX;
use super::*;

fn pcmu() -> AudioFormat {
    AudioFormat {
        codec: AudioCodec::Pcmu,
        payload_type: PayloadType::PCMU,
        clock_rate: ClockRateHz::NARROWBAND,
        channels: 1,
        packet_time: PacketTime::MS_20,
        opus: OpusOptions::default(),
    }
}

/// A WAV file of `millis` at 8 kHz.
fn wav(dir: &Path, name: &str, millis: u32) -> PathBuf {
    let len = millis * 16;
    let mut file = b"RIFF".to_vec();
    file.extend((len + 36).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend(8_000u32.to_le_bytes());
    file.extend(16_000u32.to_le_bytes());
    file.extend(b"\x02\0\x10\0data");
    file.extend(len.to_le_bytes());
    file.resize(file.len() + len as usize, 3);
    let path = dir.join(name);
    std::fs::write(&path, file).unwrap();
    path
}

fn file_path(path: &Path) -> FilePath {
    FilePath::new(path.to_str().unwrap()).unwrap()
}

fn wait<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "nothing came");
        sleep(Duration::from_millis(1));
    }
}

fn load(handle: &mut PromptHandle, id: u64, path: &Path) -> Result<(), Refusal> {
    let correlation = Correlation(1_000 + id);
    handle.load(correlation, PromptId(id), &file_path(path), None)?;
    let answer = wait(|| handle.poll_answer());
    assert_eq!(answer.correlation, correlation);
    answer.result
}

fn payloads(handle: &mut PromptHandle, id: u64) -> Arc<EncodedPrompt> {
    wait(|| match handle.payloads(PromptId(id), &pcmu()) {
        Payloads::Ready(encoded) => Some(encoded),
        Payloads::Pending => None,
        Payloads::Refused(refusal) => panic!("{refusal}"),
    })
}

#[test]
fn what_one_worker_loaded_every_worker_plays_and_its_payloads_are_made_once() {
    let dir = tempdir().unwrap();
    let path = wav(dir.path(), "a.wav", 1_000);
    let (loader, mut handles) = PromptLoader::start(3, PromptSettings::default()).unwrap();
    assert_eq!(load(&mut handles[1], 7, &path), Ok(()));
    // The answer came last: nobody has to wait any more.
    for handle in &mut handles {
        let prompt = handle.samples(PromptId(7)).expect("known by now");
        assert_eq!(prompt.samples(SampleRate::Hz8000).unwrap().len(), 8_000);
    }
    let encoded: Vec<_> = handles
        .iter_mut()
        .map(|handle| payloads(handle, 7))
        .collect();
    assert_eq!(encoded[0].packet_count(), 50);
    assert!(encoded.iter().all(|other| Arc::ptr_eq(other, &encoded[0])));
    assert_eq!(loader.counters().encoded.load(Ordering::Relaxed), 1);
    let bytes = loader.counters().bytes.load(Ordering::Relaxed);
    assert_eq!(bytes, 16_000 + 8_000 + 50 * 4);
}

#[test]
fn loading_again_does_nothing_and_reads_no_file() {
    let dir = tempdir().unwrap();
    let path = wav(dir.path(), "a.wav", 100);
    let (loader, mut handles) = PromptLoader::start(1, PromptSettings::default()).unwrap();
    assert_eq!(load(&mut handles[0], 7, &path), Ok(()));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(load(&mut handles[0], 7, &path), Ok(()));
    assert_eq!(loader.counters().loaded.load(Ordering::Relaxed), 1);
    assert_eq!(
        load(&mut handles[0], 8, &path),
        Err(Refusal::PromptUnreadable)
    );
}

#[test]
fn files_that_cannot_be_played_are_refused_for_their_reason() {
    let dir = tempdir().unwrap();
    let settings = PromptSettings {
        limits: PromptLimits {
            duration_max_secs: 2,
            bytes_max: 1 << 20,
        },
        file_bytes_max: 60_000,
        bytes_max: 40_000,
        prompts_max: 3,
    };
    let (loader, mut handles) = PromptLoader::start(1, settings).unwrap();
    let handle = &mut handles[0];
    let text = dir.path().join("text.wav");
    std::fs::write(&text, "this is no audio at all").unwrap();
    let fifo = dir.path().join("fifo.wav");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let rows = [
        (text, Refusal::PromptUnsupported),
        (dir.path().join("missing.wav"), Refusal::PromptUnreadable),
        (dir.path().to_owned(), Refusal::PromptUnreadable),
        (fifo, Refusal::PromptUnreadable),
        (PathBuf::from("/dev/zero"), Refusal::PromptUnreadable),
        (wav(dir.path(), "long.wav", 2_500), Refusal::PromptTooLong),
        (wav(dir.path(), "huge.wav", 5_000), Refusal::PromptTooLong),
    ];
    for (n, (path, refusal)) in (0..).zip(&rows) {
        assert_eq!(load(handle, n, path), Err(*refusal), "{}", path.display());
    }
    let second = wav(dir.path(), "second.wav", 1_000);
    assert_eq!(load(handle, 20, &second), Ok(()));
    assert_eq!(load(handle, 21, &second), Ok(()));
    assert_eq!(
        load(handle, 22, &second),
        Err(Refusal::PromptCacheFull),
        "memory"
    );
    let short = wav(dir.path(), "short.wav", 10);
    assert_eq!(load(handle, 23, &short), Ok(()));
    assert_eq!(
        load(handle, 24, &short),
        Err(Refusal::PromptCacheFull),
        "number"
    );
    // Payloads count as well.
    let first = wait(|| match handle.payloads(PromptId(20), &pcmu()) {
        Payloads::Pending => None,
        other => Some(other),
    });
    assert!(
        matches!(first, Payloads::Refused(Refusal::PromptCacheFull)),
        "{first:?}"
    );
    let unknown = handle.payloads(PromptId(99), &pcmu());
    assert!(matches!(unknown, Payloads::Refused(Refusal::NoSuchPrompt)));
    assert_eq!(loader.counters().refused.load(Ordering::Relaxed), 10);
}

#[test]
fn what_is_forgotten_plays_on_and_gives_its_memory_back_afterwards() {
    let dir = tempdir().unwrap();
    let path = wav(dir.path(), "a.wav", 1_000);
    let (loader, mut handles) = PromptLoader::start(2, PromptSettings::default()).unwrap();
    assert_eq!(load(&mut handles[0], 7, &path), Ok(()));
    let encoded = payloads(&mut handles[0], 7);
    handles[1].unload(Correlation(5), PromptId(7)).unwrap();
    let answer = wait(|| handles[1].poll_answer());
    assert_eq!(
        (answer.correlation, answer.result),
        (Correlation(5), Ok(()))
    );
    for handle in &mut handles {
        assert!(matches!(
            handle.payloads(PromptId(7), &pcmu()),
            Payloads::Refused(Refusal::NoSuchPrompt)
        ));
    }
    assert_eq!(encoded.payload(49).unwrap().len(), 160);
    let bytes = || loader.counters().bytes.load(Ordering::Relaxed);
    assert!(bytes() > 0, "it is still played");
    drop(encoded);
    wait(|| (bytes() == 0).then_some(()));
    // Under its id another file may come.
    assert_eq!(load(&mut handles[0], 7, &path), Ok(()));
}

/// A tone of one second whose frequency is its name.
fn tone(frequency_hz: u16) -> Tone {
    let segment = ToneSegment {
        on_millis: 400,
        off_millis: 600,
        frequencies_hz: [frequency_hz, 0],
    };
    Tone::new(&[segment], Tone::LEVEL_DBM0).expect("a playable tone")
}

fn tone_payloads(handle: &mut PromptHandle, tone: &Tone, format: &AudioFormat) -> Payloads {
    wait(|| match handle.tone_payloads(tone, format) {
        Payloads::Pending => None,
        payloads => Some(payloads),
    })
}

fn ready(payloads: Payloads) -> Arc<EncodedPrompt> {
    match payloads {
        Payloads::Ready(payloads) => payloads,
        other => panic!("{other:?}"),
    }
}

#[test]
fn tone_is_made_once_for_each_format_and_shared_by_all_workers() {
    let (loader, mut handles) = PromptLoader::start(2, PromptSettings::default()).unwrap();
    let made: Vec<_> = handles
        .iter_mut()
        .flat_map(|handle| [425, 425, 440].map(|hz| tone_payloads(handle, &tone(hz), &pcmu())))
        .map(ready)
        .collect();
    assert_eq!(made[0].packet_count(), 50);
    assert!([1, 3, 4].iter().all(|&n| Arc::ptr_eq(&made[n], &made[0])));
    assert!(Arc::ptr_eq(&made[2], &made[5]) && !Arc::ptr_eq(&made[2], &made[0]));
    let alaw = AudioFormat {
        codec: AudioCodec::Pcma,
        ..pcmu()
    };
    let other = ready(tone_payloads(&mut handles[0], &tone(425), &alaw));
    assert_ne!(other.payload(3), made[0].payload(3));
    assert_eq!(loader.counters().encoded.load(Ordering::Relaxed), 3);
}

#[test]
fn many_tones_take_no_more_than_their_shelf_and_what_is_played_plays_on() {
    let (loader, mut handles) = PromptLoader::start(2, PromptSettings::default()).unwrap();
    let [one, two] = &mut handles[..] else {
        panic!("two workers")
    };
    let played = ready(tone_payloads(one, &tone(425), &pcmu()));
    let again = ready(tone_payloads(two, &tone(425), &pcmu()));
    for n in 0..3 * TONES_MAX as u16 {
        ready(tone_payloads(one, &tone(500 + n), &pcmu()));
    }
    assert!(Arc::ptr_eq(&played, &again));
    assert_eq!(played.payload(49).map(<[u8]>::len), Some(160));
    // Nobody keeps what was taken off the shelf but who plays it.
    let fresh = ready(tone_payloads(two, &tone(425), &pcmu()));
    assert!(!Arc::ptr_eq(&played, &fresh));
    let shelf = TONES_MAX as u64 * fresh.memory_bytes();
    drop((played, again));
    let bytes = || loader.counters().bytes.load(Ordering::Relaxed);
    wait(|| {
        two.poll_answer();
        (bytes() <= shelf).then_some(())
    });
}

#[test]
fn tone_that_is_too_long_or_finds_no_memory_is_left_to_each_leg() {
    let settings = PromptSettings {
        bytes_max: 5_000,
        ..PromptSettings::default()
    };
    let (loader, mut handles) = PromptLoader::start(1, settings).unwrap();
    let refused = tone_payloads(&mut handles[0], &tone(425), &pcmu());
    assert!(matches!(
        refused,
        Payloads::Refused(Refusal::PromptCacheFull)
    ));
    let minute = ToneSegment {
        on_millis: 60_000,
        off_millis: 0,
        frequencies_hz: [425, 0],
    };
    let two_minutes = Tone::new(&[minute; 2], Tone::LEVEL_DBM0).expect("a playable tone");
    let refused = handles[0].tone_payloads(&two_minutes, &pcmu());
    assert!(matches!(refused, Payloads::Refused(Refusal::PromptTooLong)));
    assert_eq!(loader.counters().encoded.load(Ordering::Relaxed), 0);
}

#[test]
fn the_helper_ends_with_its_last_handle() {
    let (loader, handles) = PromptLoader::start(2, PromptSettings::default()).unwrap();
    assert!(loader.is_running());
    drop(handles);
    wait(|| (!loader.is_running()).then_some(()));
}
