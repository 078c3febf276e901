//! Where in time audio stands in the file, whatever the network and the sender do.

use super::*;

#[test]
fn reordered_packets_and_jitter_leave_no_trace() {
    let smooth = {
        let mut recorder = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::LegA);
        let mut sender = Sender::new(LegIndex::A);
        for n in 0..100 {
            sender.send(&mut recorder, at(20 * n));
        }
        recorder.stop(at(2_000))
    };
    let mut recorder = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::LegA);
    let mut sender = Sender::new(LegIndex::A);
    let packets: Vec<Vec<u8>> = (0..100).map(|_| sender.packet(160)).collect();
    // Pairs swapped, everything but the first up to 45 ms late.
    let order: Vec<usize> = (0..100).map(|n| if n < 2 { n } else { n ^ 1 }).collect();
    for (n, index) in order.into_iter().enumerate() {
        let jitter = if n == 0 { 0 } else { (n * 37 % 45) as u64 };
        let now = at((20 * n as u64).max(20 * n as u64 + jitter - jitter % 20));
        give(&mut recorder, LegIndex::A, now, &packets[index]);
        recorder.tick(now);
    }
    let stats = recorder.tape.stats();
    assert!(recorder.stop(at(2_000)) == smooth);
    assert_eq!((stats.late_packets, stats.missing_packets), (0, 0));
}

#[test]
fn lost_packets_take_their_time_and_are_counted() {
    let mut recorder = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::LegA);
    let mut sender = Sender::new(LegIndex::A);
    for n in 0..200 {
        if n == 50 || (100..110).contains(&n) {
            sender.skip(160);
        } else {
            sender.send(&mut recorder, at(20 * n));
        }
        recorder.tick(at(20 * n));
    }
    let samples = recorder.stop(at(4_000));
    assert_eq!(samples.len(), 32_000);
    assert_eq!(recorder.tape.stats().missing_packets, 11);
    // What follows a gap stands where it stood without one, once concealment has faded out.
    let step = 2.0 * PI * 400.0 / 8_000.0;
    for n in (0..8_000).chain(8_240..16_000).chain(17_680..32_000) {
        let sent = Law::Mu.decode(Law::Mu.encode((8_000.0 * (step * n as f64).sin()) as i16));
        assert_eq!(samples[n], sent, "sample {n}");
    }
    assert_eq!(
        loudness(&samples[16_800..17_600]),
        0.0,
        "no concealment beyond 60 ms"
    );
}

#[test]
fn what_was_dropped_on_the_way_here_is_silence() {
    let mut recorder = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::LegA);
    let mut sender = Sender::new(LegIndex::A);
    for n in 0..100 {
        if (50..53).contains(&n) {
            sender.skip(160);
        } else {
            if n == 53 {
                recorder.tape.handle_drop(at(20 * n));
            }
            sender.send(&mut recorder, at(20 * n));
        }
        recorder.tick(at(20 * n));
    }
    let samples = recorder.stop(at(2_000));
    assert_eq!(loudness(&samples[8_000..8_480]), 0.0, "nothing is made up");
    assert_eq!(loud_millis(&samples).len(), 194);
}

#[test]
fn silence_that_was_not_sent_is_silence() {
    let mut recorder = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::LegA);
    let mut sender = Sender::new(LegIndex::A);
    for n in 0..300u64 {
        // DTX: for two seconds of every three nothing is sent, sequence numbers go on.
        if n % 150 < 50 {
            sender.send(&mut recorder, at(20 * n));
        } else {
            let sequence = sender.sequence;
            sender.skip(160);
            sender.sequence = sequence;
        }
        recorder.tick(at(20 * n));
    }
    let samples = recorder.stop(at(6_000));
    let loud = loud_millis(&samples);
    let expected: Vec<usize> = (0..1_000).chain(3_000..4_000).step_by(10).collect();
    assert_eq!(loud, expected);
}

type Jump = fn(u32) -> u32;

#[test]
fn timestamps_that_jump_or_stand_still_do_not_move_the_audio() {
    // Each row: what happens to the timestamps at the pause from 1 s to 3 s.
    let rows: [(&str, Jump); 4] = [
        ("they stand still", |timestamp| timestamp),
        ("half a cycle ahead", |timestamp| timestamp ^ 0x8000_0000),
        ("back by an hour", |timestamp| {
            timestamp.wrapping_sub(28_800_000)
        }),
        ("ahead by an hour", |timestamp| {
            timestamp.wrapping_add(28_800_000)
        }),
    ];
    for (name, jump) in rows {
        let mut recorder = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::LegA);
        let mut sender = Sender::new(LegIndex::A);
        for n in 0..250u64 {
            if n == 50 {
                sender.timestamp = jump(sender.timestamp);
            }
            if !(50..150).contains(&n) {
                sender.send(&mut recorder, at(20 * n));
            }
            recorder.tick(at(20 * n));
        }
        let samples = recorder.stop(at(5_000));
        assert_eq!(samples.len(), 40_000, "{name}");
        let loud = loud_millis(&samples);
        let second = loud.iter().position(|&millis| millis >= 1_000).expect(name);
        assert!(
            (2_980..=3_020).contains(&loud[second]),
            "{name}: {}",
            loud[second]
        );
        assert!((298..=302).contains(&loud.len()), "{name}: {}", loud.len());
    }
}

#[test]
fn a_sender_that_begins_anew_is_followed() {
    let mut recorder = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::LegA);
    let mut sender = Sender::new(LegIndex::A);
    for n in 0..150 {
        if n == 75 {
            sender = Sender {
                ssrc: 99,
                sequence: 3,
                timestamp: 5,
                ..sender
            };
        }
        sender.send(&mut recorder, at(20 * n));
    }
    let samples = recorder.stop(at(3_000));
    assert_eq!(loud_millis(&samples).len(), 300);
    assert_eq!(samples.len(), 24_000);
}

#[test]
fn a_stalled_network_loses_nothing_that_arrives_within_a_second() {
    let mut recorder = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::LegA);
    let mut sender = Sender::new(LegIndex::A);
    for n in 0..500u64 {
        // What is sent from 2.0 to 2.7 s arrives at once at 2.7 s.
        let arrival = if (100..135).contains(&n) {
            2_700
        } else {
            20 * n
        };
        sender.send(&mut recorder, at(arrival));
        recorder.tick(at(arrival));
    }
    let samples = recorder.stop(at(10_000));
    let loud = loud_millis(&samples);
    // All but the stall itself: what came late is played a little faster until it is caught up.
    assert!((925..=960).contains(&loud.len()), "{}", loud.len());
    assert_eq!(recorder.tape.stats().surplus_packets, 0);
    // The last second is where it belongs again.
    let early = loud.iter().take_while(|&&millis| millis < 9_000).count();
    assert!(loud.len() - early >= 98, "the call goes on to its end");
}

#[test]
fn a_clock_that_is_off_stays_in_step_for_an_hour() {
    for (name, drift_ppm) in [("fast", 200i64), ("slow", -200)] {
        let mut recorder = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::LegA);
        let mut sender = Sender::new(LegIndex::A);
        let mut arrival_micros = 0u64;
        let mut last_burst = 0;
        while arrival_micros < 3_600_000_000 {
            // A second of tone in every ten; quiet noise else.
            let is_loud = (arrival_micros / 1_000_000).is_multiple_of(10);
            sender.amplitude = if is_loud { 8_000.0 } else { 60.0 };
            if is_loud && arrival_micros / 10_000_000 > last_burst {
                last_burst = arrival_micros / 10_000_000;
            }
            let now = START.plus_nanos(arrival_micros * 1_000);
            let packet = sender.packet(160);
            give(&mut recorder, LegIndex::A, now, &packet);
            recorder.tick(now);
            arrival_micros += (20_000 - 20_000 * drift_ppm / 1_000_000) as u64;
        }
        let samples = recorder.stop(at(3_600_000));
        let off = samples.len() as i64 - 3_600 * 8_000;
        assert!(off.abs() <= 600, "{name}: {off}");
        // Every burst begins where the clock says: 720 ms would be the error without correction.
        for burst in (0..360).step_by(30) {
            let begin = burst * 80_000;
            let from = begin.max(1_600) - 1_600;
            let loud = samples[from..begin + 3_200]
                .iter()
                .position(|s| s.abs() > 2_000)
                .expect(name);
            let off = (from + loud) as i64 - begin as i64;
            assert!(
                off.abs() <= 600,
                "{name}: burst {burst} is off by {off} samples"
            );
        }
        assert_eq!(recorder.tape.stats().surplus_packets, 0, "{name}");
    }
}

#[test]
fn a_sender_faster_than_time_is_bounded() {
    let mut recorder = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::LegA);
    let mut sender = Sender::new(LegIndex::A);
    for n in 0..5_000u64 {
        sender.send(&mut recorder, at(2 * n));
        recorder.tick(at(2 * n));
    }
    let samples = recorder.stop(at(10_000));
    assert!(samples.len() <= 81_000, "{}", samples.len());
    assert!(recorder.tape.stats().surplus_packets > 3_000);
}
