use trunkline_edge_api::{
    ClockRateHz, Digit, DigitMethod, DigitString, DigitsId, DigitsToSend, MonoTime,
};

use super::*;
use crate::dtmf::{DigitEvent, EventDetector};

fn string(id: u32, digits: &str, on_millis: u16, off_millis: u16) -> DigitsToSend {
    let digits = digits.chars().map(|c| Digit::from_char(c).unwrap());
    DigitsToSend {
        id: DigitsId(id),
        digits: DigitString::new(digits.collect::<Vec<_>>()).unwrap(),
        on_millis,
        off_millis,
        method: DigitMethod::Preferred,
    }
}

/// A packet and when it was sent, milliseconds.
type Sent = (u64, EventPacket, EventReport);

/// Asks every `tick` milliseconds until nothing is left to send.
fn run(sender: &mut EventSender, clock: ClockRateHz, tick: u64) -> Vec<Sent> {
    let mut sent = Vec::new();
    for millis in (0..200_000).step_by(tick as usize) {
        let now = MonoTime(0).plus_millis(millis);
        let stream = (millis * u64::from(clock.get()) / 1_000) as u32;
        while let Some(packet) = sender.poll(now, stream) {
            sent.push((millis, packet, EventReport::from_bytes(packet.payload)));
        }
        if sender.poll_timeout().is_none() {
            return sent;
        }
    }
    panic!("never done");
}

fn digits_heard(sent: &[Sent], clock: ClockRateHz) -> Vec<(char, u32)> {
    let mut detector = EventDetector::new();
    let mut heard = Vec::new();
    for (millis, packet, _) in sent {
        let now = MonoTime(0).plus_millis(*millis);
        detector.handle_timeout(now);
        detector.handle_packet(now, clock, packet.timestamp, packet.marker, &packet.payload);
        while let Some(event) = detector.poll_event() {
            if let DigitEvent::Ended(ended) = event {
                heard.push((ended.digit.as_char(), ended.duration_millis));
            }
        }
    }
    heard
}

#[test]
fn a_digit_of_60_ms_is_sent_as_the_modules_description_shows() {
    let mut sender = EventSender::new(ClockRateHz::NARROWBAND);
    sender.send(&string(1, "5", 60, 100)).unwrap();
    let sent: Vec<_> = run(&mut sender, ClockRateHz::NARROWBAND, 10)
        .into_iter()
        .map(|(at, packet, report)| {
            (
                at,
                packet.timestamp,
                packet.marker,
                report.is_end,
                report.duration,
            )
        })
        .collect();
    assert_eq!(
        sent,
        [
            (0, 0, true, false, 160),
            (20, 0, false, false, 320),
            (40, 0, false, true, 480),
            (60, 0, false, true, 480),
            (80, 0, false, true, 480),
        ]
    );
}

#[test]
fn every_event_has_one_timestamp_one_marker_rising_durations_and_three_ends() {
    for clock in [ClockRateHz::NARROWBAND, ClockRateHz::OPUS] {
        let mut sender = EventSender::new(clock);
        sender
            .send(&string(1, "0123456789*#ABCD", 130, 70))
            .unwrap();
        let sent = run(&mut sender, clock, 10);
        let events: Vec<&[Sent]> = sent
            .chunk_by(|one, two| one.1.timestamp == two.1.timestamp)
            .collect();
        assert_eq!(events.len(), 16);
        for (index, event) in events.iter().enumerate() {
            assert_eq!(event[0].0, 200 * index as u64, "digits begin evenly");
            assert!(
                event
                    .iter()
                    .all(|(_, _, report)| report.event == index as u8)
            );
            assert_eq!(
                event.iter().filter(|(_, packet, _)| packet.marker).count(),
                1
            );
            assert!(event[0].1.marker);
            let ends = event.iter().filter(|(_, _, report)| report.is_end).count();
            assert_eq!(ends, usize::from(FINAL_REPORTS));
            let rising = &event[..event.len() - 2];
            assert!(
                rising
                    .windows(2)
                    .all(|pair| pair[0].2.duration < pair[1].2.duration)
            );
            let full = clock.get() * 130 / 1_000;
            assert!(
                event[event.len() - 3..]
                    .iter()
                    .all(|(_, _, report)| u32::from(report.duration) == full)
            );
        }
    }
}

#[test]
fn what_is_sent_is_heard_whatever_the_clock_and_the_callers_pace() {
    for clock in [8_000, 16_000, 48_000].map(|hz| ClockRateHz::new(hz).unwrap()) {
        for tick in [1, 5, 10, 20, 30, 170] {
            for (on, off) in [(40, 40), (45, 40), (100, 100), (2_000, 40)] {
                let mut sender = EventSender::new(clock);
                sender.send(&string(1, "112233#*", on, off)).unwrap();
                let sent = run(&mut sender, clock, tick);
                let heard = digits_heard(&sent, clock);
                let expected: Vec<_> = "112233#*"
                    .chars()
                    .map(|digit| (digit, u32::from(on)))
                    .collect();
                assert_eq!(heard, expected, "{clock:?} every {tick} ms, {on}/{off}");
            }
        }
    }
}

#[test]
fn a_press_beyond_16_bits_is_sent_in_segments() {
    let mut sender = EventSender::new(ClockRateHz::OPUS);
    sender.send(&string(1, "9", 2_000, 100)).unwrap();
    let sent = run(&mut sender, ClockRateHz::OPUS, 10);
    assert_eq!(
        sent.iter().filter(|(_, packet, _)| packet.marker).count(),
        1
    );
    let full: Vec<&Sent> = sent
        .iter()
        .filter(|(_, _, report)| report.duration == u16::MAX)
        .collect();
    assert_eq!(full.len(), usize::from(FINAL_REPORTS));
    assert!(
        full.iter()
            .all(|(_, packet, report)| packet.timestamp == 0 && !report.is_end)
    );
    let (_, last, report) = sent.last().unwrap();
    assert_eq!(last.timestamp, 0xffff);
    assert_eq!(u32::from(report.duration), 96_000 - 0xffff);
    assert!(report.is_end);
    let heard = digits_heard(&sent, ClockRateHz::OPUS);
    assert_eq!(heard, [('9', 2_000)]);
}

#[test]
fn a_late_caller_finds_the_right_duration_and_no_burst() {
    let mut sender = EventSender::new(ClockRateHz::NARROWBAND);
    sender.send(&string(1, "5", 500, 100)).unwrap();
    let at = |millis| MonoTime(0).plus_millis(millis);
    assert!(sender.poll(at(0), 0).is_some());
    assert_eq!(sender.poll(at(0), 0), None);
    let late = sender.poll(at(205), 1_640).unwrap();
    assert_eq!(EventReport::from_bytes(late.payload).duration, 11 * 160);
    assert_eq!(sender.poll(at(205), 1_640), None);
    assert_eq!(sender.poll_timeout(), Some(at(220)));
}

#[test]
fn two_events_never_share_a_timestamp_though_the_streams_clock_stands_still() {
    let mut sender = EventSender::new(ClockRateHz::NARROWBAND);
    sender.send(&string(1, "11", 40, 40)).unwrap();
    let mut timestamps = Vec::new();
    for millis in 0..400 {
        while let Some(packet) = sender.poll(MonoTime(0).plus_millis(millis), 5_000) {
            timestamps.push(packet.timestamp);
        }
    }
    timestamps.dedup();
    assert_eq!(timestamps, [5_000, 5_320]);
}

#[test]
fn strings_follow_one_another_and_each_is_told_when_done() {
    let mut sender = EventSender::new(ClockRateHz::NARROWBAND);
    sender.send(&string(1, "12", 50, 50)).unwrap();
    sender.send(&string(2, "3", 50, 50)).unwrap();
    let mut done = Vec::new();
    for millis in 0..1_000 {
        while sender
            .poll(MonoTime(0).plus_millis(millis), millis as u32 * 8)
            .is_some()
        {}
        while let Some(id) = sender.poll_done() {
            done.push((millis, id));
        }
    }
    assert_eq!(done, [(200, DigitsId(1)), (300, DigitsId(2))]);
}

#[test]
fn saying_a_string_again_changes_nothing() {
    let mut sender = EventSender::new(ClockRateHz::NARROWBAND);
    let digits = string(1, "12", 50, 50);
    for _ in 0..3 {
        sender.send(&digits).unwrap();
    }
    let sent = run(&mut sender, ClockRateHz::NARROWBAND, 10);
    assert_eq!(digits_heard(&sent, ClockRateHz::NARROWBAND).len(), 2);
    sender.send(&digits).unwrap();
    assert_eq!(sender.poll_timeout(), None);
}

#[test]
fn a_string_that_finds_no_room_is_refused_whole() {
    let mut sender = EventSender::new(ClockRateHz::NARROWBAND);
    let long = "1".repeat(DigitString::LEN_MAX);
    sender.send(&string(1, &long, 40, 40)).unwrap();
    sender.send(&string(2, &long, 40, 40)).unwrap();
    assert_eq!(sender.send(&string(3, "9", 40, 40)), Err(DigitsRefused));
    let sent = run(&mut sender, ClockRateHz::NARROWBAND, 10);
    let heard = digits_heard(&sent, ClockRateHz::NARROWBAND);
    assert_eq!(heard.len(), 2 * DigitString::LEN_MAX);
    assert!(heard.iter().all(|(digit, _)| *digit == '1'));
    sender.send(&string(3, "9", 40, 40)).unwrap();
    assert!(sender.poll_timeout().is_some());
}

#[test]
fn audio_gives_way_while_a_key_is_pressed_and_comes_back_in_the_pause() {
    let mut sender = EventSender::new(ClockRateHz::NARROWBAND);
    sender.send(&string(1, "1", 60, 100)).unwrap();
    let mut sounding = Vec::new();
    for millis in (0..160).step_by(20) {
        while sender.poll(MonoTime(0).plus_millis(millis), 0).is_some() {}
        sounding.push(sender.is_sounding());
    }
    assert_eq!(sounding[..4], [true, true, false, false]);
}
