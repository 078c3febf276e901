//! What is on the disk, at every moment and at the end.

use super::*;
use crate::prompt::{Prompt, PromptLimits};

#[test]
fn the_file_plays_at_every_moment() {
    let mut recorder = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::LegA);
    let mut sender = Sender::new(LegIndex::A);
    assert!(recorder.write());
    assert_eq!(recorder.samples(), [], "a header from the beginning");
    for n in 0..500u64 {
        sender.send(&mut recorder, at(20 * n));
        recorder.tick(at(20 * n));
        let claimed = recorder.samples().len() as u64;
        let owed = 20 * n * 8;
        assert!(claimed <= owed, "{n}");
        // Up to a second since the header was written, and what is held back.
        assert!(claimed + 8 * 1_560 >= owed, "{n}: {claimed} of {owed}");
        let prompt = Prompt::parse(&recorder.file, None, &PromptLimits::default());
        assert_eq!(
            prompt.is_ok(),
            claimed > 0,
            "and it may be played to a caller"
        );
    }
}

#[test]
fn a_file_goes_on_where_an_earlier_life_left_it() {
    let mut recorder = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::LegA);
    let mut sender = Sender::new(LegIndex::A);
    for n in 0..150u64 {
        sender.send(&mut recorder, at(20 * n));
        recorder.tick(at(20 * n));
    }
    let mut file = recorder.file;
    let present = (file.len() - Tape::resume_head_len()) / 2;
    // A write that was interrupted.
    file.push(0x55);
    let mut other = Recorder::with(&TapeSpec {
        id: RecordingId(9),
        ..spec(RecordingFormat::Wav8k, RecordingTracks::LegA)
    });
    assert!(
        !other.tape.resume(&file, file.len() as u64, 0),
        "another recording's"
    );
    let mut stereo = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::Stereo);
    assert!(
        !stereo.tape.resume(&file, file.len() as u64, 0),
        "another form"
    );
    let mut resumed = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::LegA);
    assert!(!resumed.tape.resume(&file[..20], 20, 0), "cut");
    assert!(resumed.tape.resume(&file, file.len() as u64, 500_000_000));
    resumed.file = file;
    for n in 0..50u64 {
        sender.send(&mut resumed, at(20 * n));
        resumed.tick(at(20 * n));
    }
    let samples = resumed.stop(at(1_000));
    assert_eq!(samples.len(), present + 4_000 + 8_000);
    assert!(loudness(&samples[..present]) > 5_000.0);
    assert_eq!(loudness(&samples[present..present + 4_000]), 0.0);
    assert!(loudness(&samples[present + 4_000..]) > 5_000.0);
}

#[test]
fn a_full_disk_leaves_a_file_that_claims_what_it_holds() {
    let mut recorder = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::LegA);
    recorder.room = 20_001;
    let mut sender = Sender::new(LegIndex::A);
    let mut n = 0;
    loop {
        sender.send(&mut recorder, at(20 * n));
        if !recorder.tick(at(20 * n)) {
            break;
        }
        n += 1;
        assert!(n < 1_000, "the disk is full");
    }
    let header = recorder.tape.closing_header().expect("WAV has one");
    recorder.file[..header.len()].copy_from_slice(&header);
    let samples = recorder.samples();
    assert_eq!(samples.len(), (20_001 - header.len()) / 2);
    assert!(loudness(&samples) > 5_000.0);
    assert_eq!(recorder.tape.file_len(), 20_001);
}

#[test]
fn what_a_slow_disk_does_not_take_is_silence_of_the_same_length() {
    let mut recorder = Recorder::new(RecordingFormat::Wav16k, RecordingTracks::Stereo);
    let mut sender = Sender::new(LegIndex::A);
    assert!(recorder.write());
    for n in 0..1_000u64 {
        sender.send(&mut recorder, at(20 * n));
        // The disk hangs from the second second to the twelfth.
        recorder.tape.handle_timeout(at(20 * n));
        if !(100..600).contains(&n) {
            assert!(recorder.write());
        }
    }
    let samples = recorder.stop(at(20_000));
    assert_eq!(samples.len(), 2 * 20 * 16_000);
    let overrun = recorder.tape.stats().overrun_packets;
    // Four of the ten seconds were kept.
    assert!((250..=350).contains(&overrun), "{overrun}");
    assert!(loudness(&samples[2 * 15 * 16_000..]) > 3_000.0);
}

#[test]
fn packets_are_kept_as_they_came_under_addresses_of_nobody() {
    let mut recorder = Recorder::new(RecordingFormat::Pcap, RecordingTracks::Mixed);
    assert!(recorder.write());
    assert_eq!(recorder.file.len(), 24, "a header from the beginning");
    let (mut a, mut b) = (Sender::new(LegIndex::A), Sender::new(LegIndex::B));
    let mut sent = Vec::new();
    for n in 0..100u64 {
        for sender in [&mut a, &mut b] {
            let packet = sender.packet(160);
            give(&mut recorder, sender.leg, at(20 * n), &packet);
            sent.push((sender.leg, at(20 * n), packet));
        }
        if n == 50 {
            recorder.tape.suppress(LegIndex::A, at(900), at(1_000));
        }
        recorder.tick(at(20 * n));
    }
    recorder.tape.stop(at(2_000));
    assert!(recorder.write());
    let hidden = at(840)..=at(1_060);
    sent.retain(|(leg, at, _)| *leg == LegIndex::B || !hidden.contains(at));
    let word = |at: usize| u32::from_le_bytes(recorder.file[at..at + 4].try_into().unwrap());
    assert_eq!((word(0), word(20)), (0xa1b2_3c4d, 101));
    let mut offset = 24;
    for (leg, arrival, packet) in sent {
        let nanos = WALL_CLOCK + arrival.0 - START.0;
        assert_eq!(u64::from(word(offset)), nanos / 1_000_000_000);
        assert_eq!(u64::from(word(offset + 4)), nanos % 1_000_000_000);
        let len = word(offset + 8) as usize;
        assert_eq!((len, word(offset + 12) as usize), (28 + packet.len(), len));
        let ip = &recorder.file[offset + 16..offset + 16 + len];
        let words = ip[..20]
            .chunks(2)
            .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
        let sum: u32 = words.sum();
        assert_eq!(
            (sum & 0xffff) + (sum >> 16),
            0xffff,
            "the header's checksum"
        );
        assert_eq!(ip[15], leg as u8 + 1);
        assert_eq!(&ip[28..], packet);
        offset += 16 + len;
    }
    assert_eq!(offset, recorder.file.len());
}

#[test]
fn a_wav_file_ends_before_its_sizes_overflow() {
    let mut tape = Tape::new(
        &spec(RecordingFormat::Wav16k, RecordingTracks::Stereo),
        START,
        WALL_CLOCK,
    );
    let head = tape.closing_header().expect("WAV has one");
    // As if it had run for 18 hours and some minutes.
    assert!(tape.resume(&head, u64::from(u32::MAX) - 64_000, 0));
    assert!(!tape.is_full());
    for n in 0..30 {
        tape.handle_timeout(at(100 * n));
    }
    assert!(tape.is_full());
    let mut buffer = Vec::with_capacity(1 << 20);
    let mut end = 0;
    while let Some(offset) = tape.poll_write(&mut buffer) {
        end = end.max(offset + buffer.len() as u64);
        tape.handle_written(buffer.len());
    }
    assert!(
        end <= u64::from(u32::MAX) && end > u64::from(u32::MAX) - 8,
        "{end}"
    );
}
