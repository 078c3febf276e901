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
