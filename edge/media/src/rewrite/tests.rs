use proptest::prelude::*;

use super::*;

const OWN: Ssrc = Ssrc(0x1234_5678);
const CLOCK: ClockRateHz = ClockRateHz::NARROWBAND;

struct Sender {
    stream: OutgoingStream,
    now: MonoTime,
}

impl Sender {
    fn new() -> Self {
        Self {
            stream: OutgoingStream::new(OWN),
            now: MonoTime(0),
        }
    }

    fn send(&mut self, ssrc: u32, sequence: u16, timestamp: u32) -> Position {
        self.offer(ssrc, sequence, timestamp).expect("a place")
    }

    fn offer(&mut self, ssrc: u32, sequence: u16, timestamp: u32) -> Option<Position> {
        let incoming = Position {
            sequence,
            timestamp,
        };
        self.stream
            .place(self.now, Ssrc(ssrc), incoming, CLOCK, 160)
    }

    fn wait_millis(&mut self, millis: u64) {
        self.now = self.now.plus_millis(millis);
    }
}

#[test]
fn first_sequence_number_lies_in_the_lower_half() {
    for ssrc in (0..1_000).map(|n| Ssrc(n * 7_919)) {
        let (sequence, _) = first_position(ssrc);
        assert!((128..0x8000).contains(&sequence), "{ssrc:?}");
    }
}

#[test]
fn loss_and_reordering_reach_the_receiver_as_they_are() {
    let mut sender = Sender::new();
    let first = sender.send(7, 100, 1_000);
    let after_loss = sender.send(7, 103, 1_480);
    let late = sender.send(7, 102, 1_320);
    assert_eq!(after_loss.sequence.wrapping_sub(first.sequence), 3);
    assert_eq!(after_loss.timestamp.wrapping_sub(first.timestamp), 480);
    assert_eq!(late.sequence.wrapping_sub(first.sequence), 2);
    assert_eq!(late.timestamp.wrapping_sub(first.timestamp), 320);
}

#[test]
fn new_source_continues_by_one_and_by_the_time_that_passed() {
    let mut sender = Sender::new();
    sender.send(7, 65_535, u32::MAX - 80);
    sender.wait_millis(20);
    let before = sender.send(7, 0, 79);
    sender.wait_millis(500);
    let after = sender.send(9, 30_000, 5);
    assert_eq!(after.sequence, before.sequence.wrapping_add(1));
    assert_eq!(after.timestamp.wrapping_sub(before.timestamp), 4_000);
    let next = sender.send(9, 30_001, 165);
    assert_eq!(next.sequence, after.sequence.wrapping_add(1));
    assert_eq!(next.timestamp.wrapping_sub(after.timestamp), 160);
}

#[test]
fn new_source_after_a_late_packet_continues_from_the_newest() {
    let mut sender = Sender::new();
    sender.send(7, 100, 0);
    let newest = sender.send(7, 105, 800);
    sender.send(7, 101, 160);
    let after = sender.send(9, 1, 0);
    assert_eq!(after.sequence, newest.sequence.wrapping_add(1));
}

#[test]
fn two_sources_in_one_instant_get_different_timestamps() {
    let mut sender = Sender::new();
    let before = sender.send(7, 1, 0);
    let after = sender.send(9, 1, 0);
    assert_ne!(before.timestamp, after.timestamp);
}

#[test]
fn source_that_restarts_its_numbering_goes_on_without_a_gap() {
    for restart in [1_000, 20_000] {
        let mut sender = Sender::new();
        let before = sender.send(7, 10_000, 0);
        assert_eq!(sender.offer(7, restart, 160), None, "it may be a stray");
        let after = sender.send(7, restart + 1, 320);
        assert_eq!(after.sequence, before.sequence.wrapping_add(1));
        assert_eq!(sender.stream.packets(), 2);
    }
}

#[test]
fn restart_after_a_silence_is_believed_at_once() {
    let mut sender = Sender::new();
    let before = sender.send(7, 10_000, 0);
    sender.wait_millis(1_000);
    let after = sender.send(7, 1_000, 160);
    assert_eq!(after.sequence, before.sequence.wrapping_add(1));
    assert_eq!(after.timestamp.wrapping_sub(before.timestamp), 8_000);
}

#[test]
fn single_stray_packet_does_not_move_the_stream() {
    let mut sender = Sender::new();
    let before = sender.send(7, 10_000, 0);
    assert_eq!(sender.offer(7, 9_000, 0), None);
    let after = sender.send(7, 10_001, 160);
    assert_eq!(after.sequence, before.sequence.wrapping_add(1));
    assert_eq!(sender.offer(7, 9_001, 0), None, "10 001 came between");
}

#[test]
fn number_of_an_earlier_source_is_never_used_again() {
    let mut sender = Sender::new();
    sender.send(7, 500, 0);
    let first = sender.send(9, 20, 0);
    assert_eq!(sender.offer(9, 19, 0), None, "its number was 500's");
    let next = sender.send(9, 21, 0);
    assert_eq!(next.sequence, first.sequence.wrapping_add(1));
    assert_eq!(sender.send(9, 20, 0), first, "a duplicate stays one");
}

#[test]
fn packets_that_the_very_first_has_overtaken_still_have_a_place() {
    let mut sender = Sender::new();
    let first = sender.send(7, 50, 0);
    let overtaken = sender.send(7, 49, 0);
    assert_eq!(overtaken.sequence, first.sequence - 1);
}

#[test]
fn reported_sequence_is_translated_back_over_a_wrap() {
    let mut sender = Sender::new();
    let first = sender.send(7, 65_500, 0);
    for n in 1..200u16 {
        sender.send(7, 65_500u16.wrapping_add(n), 0);
    }
    let highest_sent = u32::from(first.sequence) + 199;
    assert_eq!(
        sender.stream.sequence_received(highest_sent),
        Some(65_500 + 199)
    );
}

#[test]
fn reported_cycle_count_of_a_late_listener_does_not_matter() {
    let mut sender = Sender::new();
    sender.send(7, 0, 0);
    for n in 1..70_000u32 {
        sender.send(7, n as u16, 0);
    }
    let newest = sender.send(7, 70_000u32 as u16, 0);
    let heard_from_now_on = u32::from(newest.sequence);
    assert_eq!(
        sender.stream.sequence_received(heard_from_now_on),
        Some(70_000)
    );
}

#[test]
fn report_about_an_earlier_source_has_no_translation() {
    let mut sender = Sender::new();
    let old = sender.send(7, 500, 0);
    let new = sender.send(9, 20, 0);
    assert_eq!(
        sender.stream.sequence_received(u32::from(old.sequence)),
        None
    );
    assert_eq!(
        sender.stream.sequence_received(u32::from(new.sequence)),
        Some(20)
    );
    assert_eq!(sender.stream.timestamp_sent(Ssrc(7), 0), None);
}

#[test]
fn idle_stream_translates_nothing() {
    let stream = OutgoingStream::new(OWN);
    assert_eq!(stream.source(), None);
    assert_eq!(stream.sequence_received(0), None);
    assert_eq!(stream.timestamp_sent(Ssrc(7), 0), None);
}

proptest! {
    /// Sources follow each other, each sending in order from an arbitrary start: whoever receives
    /// sees one unbroken sequence and a timestamp that never goes back.
    #[test]
    fn receiver_sees_one_unbroken_stream(
        sources in proptest::collection::vec((any::<u32>(), any::<u16>(), any::<u32>(), 1usize..50), 1..8),
    ) {
        let mut sender = Sender::new();
        let mut previous: Option<Position> = None;
        for (ssrc, sequence, timestamp, count) in sources {
            for n in 0..count {
                let restarts_source = n == 0 && sender.stream.source() == Some(Ssrc(ssrc));
                prop_assume!(!restarts_source);
                let sent = sender.send(
                    ssrc,
                    sequence.wrapping_add(n as u16),
                    timestamp.wrapping_add(160 * n as u32),
                );
                if let Some(previous) = previous {
                    prop_assert_eq!(sent.sequence, previous.sequence.wrapping_add(1));
                    prop_assert_eq!(sent.timestamp.wrapping_sub(previous.timestamp), 160);
                }
                previous = Some(sent);
                sender.wait_millis(20);
            }
        }
    }
}
