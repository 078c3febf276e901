//! Digits that the edge sends.

use super::*;

#[test]
fn digits_are_sent_as_rfc_4733_asks() {
    let mut call = Call::relayed();
    let _ = call.speak(A, 0, 0, &[0xff; 160]);
    call.pass(20);
    call.command(SessionCommand::SendDigits(
        B,
        digits(1, "4#", DigitMethod::Preferred),
    ));
    call.command(SessionCommand::SendDigits(
        B,
        digits(1, "4#", DigitMethod::Preferred),
    ));
    call.pass(600);
    let sent = call.take_sent(B);
    assert_one_stream(&sent, SSRC[1]);
    let events: Vec<&Out> = sent
        .iter()
        .filter(|out| out.header.payload_type == pt(EVENTS))
        .collect();
    let timestamps: Vec<u32> = events.iter().map(|out| out.header.timestamp).collect();
    let mut distinct = timestamps.clone();
    distinct.dedup();
    assert_eq!(distinct.len(), 2, "one for each digit: {timestamps:?}");
    for (at, code) in distinct.iter().zip([4u8, 11]) {
        let of_digit: Vec<&&Out> = events
            .iter()
            .filter(|out| out.header.timestamp == *at)
            .collect();
        assert!(of_digit[0].header.marker);
        assert!(of_digit[1..].iter().all(|out| !out.header.marker));
        let ends = of_digit
            .iter()
            .filter(|out| out.payload[1] & 0x80 != 0)
            .count();
        assert_eq!(ends, 3);
        assert!(of_digit.iter().all(|out| out.payload[0] == code));
        let last = of_digit.last().expect("some");
        assert_eq!(last.payload[2..4], 800u16.to_be_bytes());
    }
    let done = SessionEvent::DigitsSent {
        leg: B,
        digits: DigitsId(1),
    };
    assert_eq!(call.events, [done]);
}

#[test]
fn digits_that_begin_a_stream_are_stamped_one_after_the_other() {
    let mut call = Call::relayed();
    let send = digits(1, "12#", DigitMethod::Preferred);
    call.command(SessionCommand::SendDigits(B, send));
    call.pass(900);
    let mut timestamps: Vec<u32> = call
        .take_sent(B)
        .iter()
        .map(|out| out.header.timestamp)
        .collect();
    timestamps.dedup();
    assert_eq!(timestamps.len(), 3, "{timestamps:?}");
    for pair in timestamps.windows(2) {
        // 100 ms of tone, the repeated ends, 60 ms of pause.
        let apart = pair[1].wrapping_sub(pair[0]);
        assert!((1_280..2_400).contains(&apart), "{apart}");
    }
}

#[test]
fn audio_after_an_event_is_stamped_behind_its_end() {
    let mut call = Call::relayed();
    let _ = call.speak(A, 0, 0, &[0xff; 160]);
    call.pass(20);
    call.command(SessionCommand::SendDigits(
        B,
        digits(1, "4", DigitMethod::Preferred),
    ));
    call.pass(300);
    let _ = call.speak(A, 0, 16, &[0xff; 160]);
    let sent = call.take_sent(B);
    let (events, audio) = sent.split_at(sent.len() - 1);
    let began = events.last().expect("an event").header.timestamp;
    let behind = audio[0].header.timestamp.wrapping_sub(began);
    assert!((800..8_000).contains(&behind), "{behind}");
}

#[test]
fn digits_can_be_sent_as_tones() {
    let mut call = Call::relayed();
    call.command(SessionCommand::SendDigits(
        B,
        digits(9, "12", DigitMethod::InBand),
    ));
    call.pass(500);
    let sent = call.take_sent(B);
    let loud: String = sent
        .iter()
        .map(|out| {
            if energy(&out.payload, Law::Mu) > 1_000.0 {
                '#'
            } else {
                '.'
            }
        })
        .collect();
    assert_eq!(loud, "#####...#####...");
    assert_one_stream(&sent, SSRC[1]);
    assert_eq!(call.events.len(), 1);
}

/// Milliseconds from the moment at which a key was let go, as its sender says it, until it is told.
/// The packets of the key come as `late_millis` has it, and of the three ends those of `lost` do not.
fn told_after(call: &mut Call, first: u16, late_millis: u64, lost: usize) -> u64 {
    let timestamp = u32::from(first) * STEP;
    let before = call.events.len();
    let mut let_go_at = None;
    for (n, (is_end, millis)) in (0..).zip([
        (false, 20),
        (false, 40),
        (false, 60),
        (true, 80),
        (true, 80),
        (true, 80),
    ]) {
        if is_end {
            let_go_at.get_or_insert(call.now);
        }
        if !(is_end && usize::from(n) < 3 + lost) {
            let marker = u8::from(n == 0) << 7;
            let report = event('5', is_end, millis);
            let packet = rtp(marker | EVENTS, first + n, timestamp, &report);
            call.pass(late_millis);
            let _ = call.receive(A, &packet);
            if call.events.len() > before {
                let told = call.now.nanos_since(let_go_at.expect("it was let go"));
                return told / 1_000_000 - late_millis;
            }
            call.pass(20 - late_millis);
        } else {
            call.pass(20);
        }
    }
    panic!("it was never told");
}

#[test]
fn key_is_told_within_50_ms_of_its_end_whatever_else_hears_the_leg() {
    let mut call = Call::relayed();
    let all = LegFunctions {
        detects_tones: true,
        reports_activity: true,
        ..LegFunctions::default()
    };
    call.command(SessionCommand::SetFunctions(A, all));
    for (row, (late_millis, lost, most)) in
        [(0, 0, 0), (10, 0, 0), (0, 1, 20), (0, 2, 40), (10, 2, 40)]
            .into_iter()
            .enumerate()
    {
        let first = 100 + 50 * row as u16;
        for n in first - 30..first {
            let _ = call.speak(A, 0, n, &[0xff; 160]);
            call.pass(20);
        }
        let after = told_after(&mut call, first, late_millis, lost);
        assert!(after <= most, "{after} ms in row {row}");
        call.pass(400);
    }
}

/// What the jitter buffer, a frame of the ears and the certainty of a detector take.
#[test]
fn tone_of_a_key_is_told_within_110_ms_of_its_end() {
    let mut slowest = 0;
    // The tone begins and ends anywhere in a packet.
    for offset in [0u32, 37, 80, 123] {
        let mut call = Call::relayed();
        let wanted = LegFunctions {
            detects_tones: true,
            ..LegFunctions::default()
        };
        call.command(SessionCommand::SetFunctions(A, wanted));
        let (begins, ends) = (8_000 + offset, 8_800 + offset);
        let mut told_at = None;
        for n in 0..80u16 {
            // A packet leaves when its last sample was heard.
            call.pass(20);
            let samples = u32::from(n) * STEP..u32::from(n + 1) * STEP;
            let payload: Vec<u8> = samples
                .map(|n| {
                    let of = |hz: f64| (f64::from(n) * std::f64::consts::TAU * hz / 8_000.0).sin();
                    let is_on = (begins..ends).contains(&n);
                    let sample = if is_on { of(770.0) + of(1_336.0) } else { 0.0 };
                    Law::Mu.encode((4_000.0 * sample) as i16)
                })
                .collect();
            let _ = call.speak(A, 0, n, &payload);
            if !call.events.is_empty() {
                told_at.get_or_insert(call.now);
            }
        }
        let ended_at = START.plus_nanos(u64::from(ends) * 125_000);
        let after = told_at.expect("it was heard").nanos_since(ended_at) / 1_000_000;
        slowest = slowest.max(after);
    }
    eprintln!("a tone is told {slowest} ms after its end at most");
    assert!((20..=110).contains(&slowest), "{slowest}");
}
