//! What peers should not send, to sessions that do everything at once.

use super::*;
use trunkline_edge_api::LiveLevel;

/// A has whatever it likes, B has PCMA; A is listened to, tapped, and played over towards B.
fn busy_call() -> Call {
    let format = |codec, number, hz, channels| AudioFormat {
        codec,
        payload_type: pt(number),
        clock_rate: ClockRateHz::new(hz).expect("a clock"),
        channels,
        ..g711(AudioCodec::Pcmu)
    };
    let mut formats = vec![
        g711(AudioCodec::Pcmu),
        g711(AudioCodec::Pcma),
        format(AudioCodec::G722, 9, 8_000, 1),
        format(AudioCodec::L16, 97, 8_000, 1),
    ];
    if cfg!(feature = "opus") {
        formats.push(format(AudioCodec::Opus, 111, 48_000, 2));
    }
    let a = LegAudio {
        receive: AudioFormats::new(formats).expect("distinct"),
        ..audio(g711(AudioCodec::Pcmu), true)
    };
    let mut call = Call::new(&[], [a, audio(g711(AudioCodec::Pcma), true)]);
    let all = LegFunctions {
        detects_tones: true,
        reports_activity: true,
        detects_beep: true,
        detects_progress: true,
        ..LegFunctions::default()
    };
    call.command(SessionCommand::SetFunctions(A, all));
    call.command(SessionCommand::SetTapped(A, true));
    call
}

const NUMBERS: [u8; 5] = [0, 8, 9, 97, 111];

/// Half of the tests have something played over what A says.
fn play_over(call: &mut Call) {
    let playback = Playback {
        id: PlaybackId(1),
        sources: PlaySources::new(vec![tone(1_000)]).expect("one"),
        rounds: 0,
        ends_on_digit: false,
        mode: PlaybackMode::Into(LiveLevel::UNCHANGED),
    };
    let prepared = PreparedPlayback {
        playback,
        prompts: Vec::new(),
        tones: Vec::new(),
    };
    call.command(SessionCommand::Play(B, prepared));
}

/// The call is as good as new: A is heard by B, and B by A.
fn assert_well(call: &mut Call, first: u16) {
    call.take_sent(B);
    for n in 0..50 {
        let _ = call.speak(A, 0, first.wrapping_add(n), &[0x10; 160]);
        let back = call.speak(B, 8, n, &[0x55; 160]);
        assert!(matches!(back, Verdict::Forward(_) | Verdict::Consumed));
        call.pass(20);
    }
    let sent = call.take_sent(B);
    assert!((40..=60).contains(&sent.len()), "{}", sent.len());
    assert_one_stream(&sent, SSRC[1]);
    let loud = sent
        .iter()
        .filter(|out| energy(&out.payload, Law::A) > 5_000.0);
    assert!(loud.count() >= 40);
}

fn pseudo_random(state: &mut u32) -> u32 {
    *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    *state >> 8
}

#[test]
fn truncated_and_oversized_frames_of_every_codec_are_counted_and_harm_nothing() {
    for plays in [false, true] {
        let mut call = busy_call();
        if plays {
            play_over(&mut call);
        }
        let mut random = 7;
        let mut bad = 0;
        for n in 0..2_000u16 {
            let len = match n % 4 {
                0 => 0,
                1 => 1,
                2 => 1_440,
                _ => pseudo_random(&mut random) as usize % 1_440,
            };
            let payload: Vec<u8> = (0..len).map(|_| pseudo_random(&mut random) as u8).collect();
            let number = NUMBERS[usize::from(n / 8) % NUMBERS.len()];
            let verdict = call.speak(A, number, n, &payload);
            bad += u32::from(verdict == Verdict::Drop(DropReason::BadAudioFrame));
            if n % 2 == 1 {
                call.pass(20);
            }
        }
        assert!(plays || bad > 100, "{bad} frames were counted");
        // A header that claims more than there is: contributing sources, an extension, padding.
        for first in [0x8f, 0x90, 0xa0] {
            let mut packet = rtp(0, 1, 1, &[0xff; 8]);
            packet[0] = first;
            let verdict = call.receive(A, &packet);
            assert_eq!(
                verdict,
                Verdict::Drop(DropReason::MalformedRtp),
                "{first:x}"
            );
        }
        assert_well(&mut call, 2_000);
    }
}

#[test]
fn payload_type_that_changes_with_every_packet_leaves_one_stream() {
    for plays in [false, true] {
        let mut call = busy_call();
        if plays {
            play_over(&mut call);
        }
        for n in 0..500u16 {
            let number = NUMBERS[usize::from(n) % 4];
            let payload = vec![0x10; if number == 97 { 320 } else { 160 }];
            let verdict = call.speak(A, number, n, &payload);
            assert!(!matches!(verdict, Verdict::Drop(_)), "{n}: {verdict:?}");
            call.pass(20);
        }
        let sent = call.take_sent(B);
        assert_one_stream(&sent, SSRC[1]);
        assert!((450..=550).contains(&sent.len()), "{}", sent.len());
        assert_well(&mut call, 500);
    }
}

#[test]
fn timestamps_that_jump_by_half_their_range_lose_no_more_than_a_moment() {
    for plays in [false, true] {
        let mut call = busy_call();
        if plays {
            play_over(&mut call);
        }
        let mut jumps = 0u32;
        for n in 0..1_000u16 {
            if n % 50 == 0 {
                jumps += 1;
            }
            let timestamp = (u32::from(n) * STEP).wrapping_add(jumps << 31);
            // Linear: what is relayed through a table keeps its sender's timestamps.
            let _ = call.receive(A, &rtp(97, n, timestamp, &[0x20; 320]));
            call.pass(20);
        }
        let sent = call.take_sent(B);
        assert_one_stream(&sent, SSRC[1]);
        let loud = sent
            .iter()
            .filter(|out| energy(&out.payload, Law::A) > 5_000.0);
        let loud = loud.count();
        assert!(loud > 900, "{loud} of 1,000 packets were heard");
        // Time did not run away with the peer's: 20 s are 20 s.
        let newest = sent.last().expect("some").header.timestamp;
        let total = newest.wrapping_sub(sent[0].header.timestamp);
        assert!(total.abs_diff(1_000 * STEP) < 40 * STEP, "{total}");
        assert_well(&mut call, 1_000);
    }
}

#[test]
fn hour_of_silence_of_either_kind_leaves_a_call_as_it_was() {
    for sends_silence in [false, true] {
        let mut call = busy_call();
        let _ = call.speak(A, 0, 0, &[0x10; 160]);
        let mut n = 0u16;
        for _ in 0..3_600 * 50 {
            n = n.wrapping_add(1);
            if sends_silence {
                let timestamp = u32::from(n) * STEP;
                let _ = call.receive(A, &rtp(0, n, timestamp, &[0xff; 160]));
                call.out.clear();
            }
            call.pass(20);
        }
        let told = |event: &SessionEvent| !matches!(event, SessionEvent::ActivityChanged { .. });
        assert_eq!(call.events.iter().filter(|event| told(event)).count(), 0);
        assert!(call.events.len() <= 2, "{:?}", call.events);
        // It is heard again, and so is a key.
        assert_well(&mut call, n.wrapping_add(1));
        let first = n.wrapping_add(60);
        press(&mut call, '7', first);
        let keys = call
            .events
            .iter()
            .filter(|event| matches!(event, SessionEvent::DigitReceived { leg: A, .. }));
        assert_eq!(keys.count(), 1);
    }
}

#[test]
fn thousand_digits_a_second_are_bounded_and_a_later_key_counts() {
    let mut call = busy_call();
    for n in 0..2_000u32 {
        let symbol = ['1', '2', '3', '4', '5'][n as usize % 5];
        let payload = event(symbol, true, 40);
        let packet = rtp(0x80 | EVENTS, n as u16, n * 8, &payload);
        let _ = call.receive(A, &packet);
        if n % 10 == 9 {
            call.pass(10);
        }
    }
    let keys = |call: &Call| {
        let is_key = |event: &&SessionEvent| matches!(event, SessionEvent::DigitReceived { .. });
        call.events.iter().filter(is_key).count()
    };
    // A burst of 32, then 25 each second.
    let heard = keys(&call);
    assert!((32..=90).contains(&heard), "{heard}");
    // What B is told of them ends, too.
    call.pass(120_000);
    call.take_sent(B);
    call.pass(2_000);
    assert_eq!(call.take_sent(B), []);
    press(&mut call, '7', 3_000);
    assert_eq!(keys(&call), heard + 1);
    assert_well(&mut call, 3_010);
}
