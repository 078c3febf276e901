use trunkline_edge_api::{ClockRateHz, Digit, MonoTime};

use super::*;

const CLOCK: ClockRateHz = ClockRateHz::NARROWBAND;

/// A packet as it arrives: milliseconds, timestamp, marker, code, end, duration in units.
type Arrival = (u64, u32, bool, u8, bool, u16);

fn feed(detector: &mut EventDetector, arrivals: &[Arrival]) -> Vec<DigitEvent> {
    let mut told = Vec::new();
    for &(millis, timestamp, marker, event, is_end, duration) in arrivals {
        let report = EventReport {
            event,
            is_end,
            volume: 10,
            duration,
        };
        let now = MonoTime(0).plus_millis(millis);
        detector.handle_timeout(now);
        detector.handle_packet(now, CLOCK, timestamp, marker, &report.to_bytes());
        told.extend(std::iter::from_fn(|| detector.poll_event()));
    }
    told
}

fn heard(arrivals: &[Arrival]) -> Vec<DigitEvent> {
    feed(&mut EventDetector::new(), arrivals)
}

fn began(code: u8) -> DigitEvent {
    DigitEvent::Began(Digit::from_event(code).unwrap())
}

fn ended(code: u8, duration_millis: u32) -> DigitEvent {
    DigitEvent::Ended(HeardDigit {
        digit: Digit::from_event(code).unwrap(),
        duration_millis,
        level_dbm0: -10,
    })
}

/// A press of 100 ms as phones send it.
fn press(at_millis: u64, timestamp: u32, code: u8) -> Vec<Arrival> {
    let mut packets = vec![(at_millis, timestamp, true, code, false, 160)];
    for update in 2..5u16 {
        let at = at_millis + 20 * u64::from(update - 1);
        packets.push((at, timestamp, false, code, false, 160 * update));
    }
    for repeat in 0..3 {
        let at = at_millis + 80 + 20 * repeat;
        packets.push((at, timestamp, false, code, true, 800));
    }
    packets
}

#[test]
fn a_press_is_told_once_when_it_begins_and_once_when_it_ends() {
    assert_eq!(heard(&press(0, 7_200, 5)), [began(5), ended(5, 100)]);
}

#[test]
fn any_packets_but_all_of_a_press_may_be_lost() {
    let whole = press(0, 7_200, 5);
    for kept in 1u32..1 << whole.len() {
        let mut detector = EventDetector::new();
        let arrived: Vec<Arrival> = whole
            .iter()
            .enumerate()
            .filter(|(index, _)| kept & (1 << index) != 0)
            .map(|(_, packet)| *packet)
            .collect();
        let mut told = feed(&mut detector, &arrived);
        detector.handle_timeout(MonoTime(0).plus_millis(1_000));
        told.extend(std::iter::from_fn(|| detector.poll_event()));
        let longest = arrived.iter().map(|packet| packet.5).max().unwrap();
        let millis = u32::from(longest) / 8;
        assert_eq!(told, [began(5), ended(5, millis)], "kept {kept:b}");
    }
}

#[test]
fn any_order_of_arrival_tells_a_press_once() {
    let whole = press(0, 7_200, 5);
    // Every rotation and every exchange of two packets.
    for first in 0..whole.len() {
        for second in 0..whole.len() {
            let mut arrived = whole.clone();
            arrived.swap(first, second);
            arrived.rotate_left(first);
            let digits = heard(&arrived);
            assert_eq!(digits[0], began(5));
            assert_eq!(digits.len(), 2, "{first} {second}");
        }
    }
}

#[test]
fn the_longest_duration_counts_though_a_shorter_one_arrives_after_it() {
    let mut detector = EventDetector::new();
    let packet = |duration| (0, 7_200, false, 5, false, duration);
    feed(&mut detector, &[packet(160), packet(480), packet(320)]);
    detector.finish();
    assert_eq!(detector.poll_event(), Some(ended(5, 60)));
}

#[test]
fn duplicates_are_counted_and_not_told() {
    let mut twice = press(0, 7_200, 5);
    twice.extend(press(0, 7_200, 5));
    let mut detector = EventDetector::new();
    assert_eq!(feed(&mut detector, &twice), [began(5), ended(5, 100)]);
    assert_eq!(detector.counts().digits, 1);
    assert_eq!(detector.counts().repeats, 2 + 7);
}

#[test]
fn the_same_key_twice_is_two_digits_even_when_all_ends_are_lost() {
    let arrivals = [
        (0, 1_000, true, 1, false, 160),
        (20, 1_000, false, 1, false, 320),
        (120, 1_960, true, 1, false, 160),
        (140, 1_960, false, 1, true, 320),
    ];
    assert_eq!(
        heard(&arrivals),
        [began(1), ended(1, 40), began(1), ended(1, 40)]
    );
}

#[test]
fn a_key_that_overlaps_the_one_before_ends_it() {
    let arrivals = [
        (0, 1_000, true, 1, false, 160),
        (20, 1_000, false, 1, false, 320),
        (30, 1_240, true, 2, false, 160),
        (40, 1_000, false, 1, false, 480),
        (60, 1_000, false, 1, true, 640),
        (70, 1_240, false, 2, true, 480),
    ];
    assert_eq!(
        heard(&arrivals),
        [began(1), ended(1, 40), began(2), ended(2, 60)]
    );
}

#[test]
fn packets_of_an_earlier_press_that_come_late_are_not_a_digit() {
    let mut arrivals = press(0, 1_000, 1);
    let late = arrivals.remove(1);
    arrivals.extend(press(200, 2_600, 2));
    arrivals.insert(9, (250, late.1, late.2, late.3, late.4, late.5));
    let mut detector = EventDetector::new();
    assert_eq!(
        feed(&mut detector, &arrivals),
        [began(1), ended(1, 100), began(2), ended(2, 100)]
    );
    // A press of which nothing else arrived, and which would come out in the wrong place.
    let told = feed(&mut detector, &[(400, 2_000, false, 3, true, 400)]);
    assert_eq!(told, []);
    assert_eq!(detector.counts().late, 1);
}

#[test]
fn timestamps_wrap_around_within_and_between_presses() {
    let mut arrivals = press(0, u32::MAX - 300, 8);
    arrivals.extend(press(200, 1_300, 9));
    assert_eq!(
        heard(&arrivals),
        [began(8), ended(8, 100), began(9), ended(9, 100)]
    );
}

#[test]
fn a_sender_that_restarts_its_clock_is_heard() {
    let mut arrivals = press(0, 3_000_000_000, 8);
    arrivals.extend(press(200, 2_000_000_000, 9));
    assert_eq!(heard(&arrivals).len(), 4);
}

#[test]
fn a_long_press_in_segments_is_one_digit() {
    // 20 s at 8 kHz: two full segments and a rest, RFC 4733 §2.5.1.3.
    let mut arrivals = Vec::new();
    let mut timestamp = 500u32;
    let mut at = 0;
    for segment in 0..3u32 {
        let len = if segment == 2 { 28_930 } else { 0xffff };
        for units in (160..=len).step_by(400).chain([len]) {
            let marker = arrivals.is_empty();
            at += 50;
            arrivals.push((at, timestamp, marker, 4, false, units as u16));
        }
        timestamp = timestamp.wrapping_add(0xffff);
    }
    arrivals.last_mut().unwrap().4 = true;
    assert_eq!(heard(&arrivals), [began(4), ended(4, 20_000)]);
    // The reports of whole segments lost.
    arrivals.retain(|packet| packet.5 != 0xffff);
    assert_eq!(heard(&arrivals), [began(4), ended(4, 20_000)]);
}

#[test]
fn a_sender_that_moves_the_timestamp_within_an_event_is_heard_once() {
    let mut arrivals: Vec<Arrival> = (0u16..5)
        .map(|update| {
            let timestamp = 1_000 + 160 * u32::from(update);
            let duration = 160 * (update + 1);
            (
                20 * u64::from(update),
                timestamp,
                update == 0,
                6,
                false,
                duration,
            )
        })
        .collect();
    for repeat in 0..3u32 {
        let timestamp = 1_800 + 160 * repeat;
        arrivals.push((100 + 20 * u64::from(repeat), timestamp, false, 6, true, 960));
    }
    let told = heard(&arrivals);
    assert_eq!(told[0], began(6));
    assert_eq!(told.len(), 2);
}

#[test]
fn an_end_that_never_comes_is_told_when_the_time_is_up() {
    let mut detector = EventDetector::new();
    let told = feed(&mut detector, &press(0, 1_000, 7)[..3]);
    assert_eq!(told, [began(7)]);
    let due = detector.poll_timeout().unwrap();
    assert_eq!(due, MonoTime(40_000_000 + END_LOST_NANOS));
    detector.handle_timeout(MonoTime(due.0 - 1));
    assert_eq!(detector.poll_event(), None);
    detector.handle_timeout(due);
    assert_eq!(detector.poll_event(), Some(ended(7, 60)));
    assert_eq!(detector.poll_timeout(), None);
    // The end was only late.
    assert_eq!(
        feed(&mut detector, &[(500, 1_000, false, 7, true, 800)]),
        []
    );
}

#[test]
fn the_last_digit_before_a_hang_up_is_told() {
    let mut detector = EventDetector::new();
    feed(&mut detector, &press(0, 1_000, 7)[..1]);
    detector.finish();
    assert_eq!(detector.poll_event(), Some(ended(7, 20)));
    detector.finish();
    assert_eq!(detector.poll_event(), None);
}

#[test]
fn events_that_are_no_digits_are_counted_once_each() {
    let mut detector = EventDetector::new();
    let told = feed(
        &mut detector,
        &[
            (0, 1_000, true, 16, false, 160),
            (20, 1_000, false, 16, true, 320),
            (40, 3_000, true, 255, true, 320),
        ],
    );
    assert_eq!(told, []);
    assert_eq!(detector.counts().other_events, 2);
    assert_eq!(detector.counts().digits, 0);
}

#[test]
fn packets_too_short_for_an_event_are_counted() {
    let mut detector = EventDetector::new();
    for payload in [&[][..], &[1], &[1, 2, 3]] {
        detector.handle_packet(MonoTime(0), CLOCK, 0, true, payload);
    }
    assert_eq!(detector.counts().malformed, 3);
    assert_eq!(detector.poll_event(), None);
}

#[test]
fn short_events_in_one_packet_are_told_in_order() {
    let mut detector = EventDetector::new();
    let payload = [
        1, 0x8a, 0x01, 0x90, 2, 0x8a, 0x01, 0x90, 3, 0x8a, 0x01, 0x90, 4, 0x8a, 0x01, 0x90,
    ];
    detector.handle_packet(MonoTime(0), CLOCK, 100, true, &payload);
    let told: Vec<DigitEvent> = std::iter::from_fn(|| detector.poll_event()).collect();
    assert_eq!(told.len(), 8);
    assert_eq!(told[6..], [began(4), ended(4, 50)]);
    assert_eq!(detector.counts().untold, 0);
}

#[test]
fn a_thousand_digits_per_second_are_bounded_and_counted() {
    let mut detector = EventDetector::new();
    let mut told = 0;
    for index in 0u32..10_000 {
        let packet = (
            u64::from(index),
            index * 8,
            true,
            (index % 16) as u8,
            true,
            8,
        );
        told += feed(&mut detector, &[packet]).len();
    }
    // Ten seconds.
    let digits = DIGITS_BURST_MAX + 9_999 * DIGITS_PER_SECOND_MAX / 1_000;
    assert_eq!(told as u64, 2 * digits);
    assert_eq!(detector.counts().digits, digits);
    assert_eq!(detector.counts().over_rate, 10_000 - digits);
    // And later digits are heard again.
    assert_eq!(feed(&mut detector, &press(20_000, 1_000_000, 3)).len(), 2);
}

#[test]
fn the_fastest_digits_that_anybody_sends_are_all_told() {
    let mut detector = EventDetector::new();
    let mut told = 0;
    for index in 0u32..1_000 {
        let at = u64::from(index) * 80;
        let timestamp = index * 640;
        told += feed(
            &mut detector,
            &[
                (at, timestamp, true, 1, false, 160),
                (at + 20, timestamp, false, 1, true, 320),
            ],
        )
        .len();
    }
    assert_eq!(told, 2_000);
}

#[test]
fn durations_are_of_the_clock_that_the_event_has() {
    let mut detector = EventDetector::new();
    let payload = EventReport {
        event: 1,
        is_end: true,
        volume: 10,
        duration: 4_800,
    }
    .to_bytes();
    detector.handle_packet(MonoTime(0), ClockRateHz::OPUS, 0, true, &payload);
    assert_eq!(detector.poll_event(), Some(began(1)));
    assert_eq!(detector.poll_event(), Some(ended(1, 100)));
}
