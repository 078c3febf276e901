use proptest::prelude::*;
use trunkline_edge_api::Ssrc;

use super::*;

/// RTP units of 20 ms at 8 kHz.
const FRAME: u32 = 160;

/// What was heard, in the order of play.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// The packet whose payload begins with this number.
    Packet(u32),
    Pause,
    Missing(u32),
    Silence(u32),
    Starved(u32),
}

/// A buffer, a clock that pulls 20 ms every 20 ms, and a sender.
struct Rig {
    buffer: JitterBuffer,
    now: MonoTime,
    /// Units that were pulled beyond what the clock asked for.
    ahead: u32,
    heard: Vec<Heard>,
    ssrc: Ssrc,
    sequence: u16,
    timestamp: u32,
    /// Units in a packet.
    units: u32,
    count: u32,
}

impl Rig {
    fn new() -> Self {
        Self {
            buffer: JitterBuffer::new(ClockRateHz::NARROWBAND, 160),
            now: MonoTime(1_000_000_000),
            ahead: 0,
            heard: Vec::new(),
            ssrc: Ssrc(7),
            sequence: 65_500,
            timestamp: 0xffff_ff00,
            units: FRAME,
            count: 0,
        }
    }

    /// The next packet, as the sender numbers it.
    fn next(&mut self) -> (RtpHeader, u32) {
        let header = RtpHeader {
            marker: false,
            payload_type: PayloadType::PCMU,
            sequence: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
            header_len: 12,
            payload_len: 4,
        };
        let number = self.count;
        self.count += 1;
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(self.units);
        (header, number)
    }

    fn insert(&mut self, packet: (RtpHeader, u32)) -> Inserted {
        let (header, number) = packet;
        let kind = PacketKind::Sound { units: self.units };
        self.buffer
            .insert(self.now, &header, kind, &number.to_be_bytes())
    }

    fn send(&mut self) {
        let packet = self.next();
        let _ = self.insert(packet);
    }

    fn send_kind(&mut self, kind: PacketKind) -> Inserted {
        let (header, number) = self.next();
        self.buffer
            .insert(self.now, &header, kind, &number.to_be_bytes())
    }

    /// 20 ms pass and are heard.
    fn tick(&mut self) {
        while self.ahead < FRAME {
            let wanted = FRAME - self.ahead;
            let (heard, units) = match self.buffer.pull(self.now, wanted) {
                Pulled::Sound {
                    payload,
                    units,
                    skip_units,
                    ..
                } => (Heard::Packet(number_of(payload)), units - skip_units),
                Pulled::Pause { units, .. } => (Heard::Pause, units),
                Pulled::Missing { units, .. } => (Heard::Missing(units), units),
                Pulled::Silence { units } => (Heard::Silence(units), units),
                Pulled::Starved { units } => (Heard::Starved(units), units),
            };
            self.heard.push(heard);
            self.ahead += units;
        }
        self.ahead -= FRAME;
        self.now = self.now.plus_millis(20);
    }

    fn run(&mut self, packets: u32) {
        for _ in 0..packets {
            self.send();
            self.tick();
        }
    }

    fn packets_heard(&self) -> Vec<u32> {
        self.heard
            .iter()
            .filter_map(|heard| match heard {
                Heard::Packet(number) => Some(*number),
                _ => None,
            })
            .collect()
    }

    fn concealed(&self) -> u32 {
        self.heard
            .iter()
            .map(|heard| match heard {
                Heard::Missing(units) | Heard::Starved(units) => *units,
                _ => 0,
            })
            .sum()
    }
}

fn number_of(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload.try_into().expect("four bytes"))
}

#[test]
fn even_stream_is_heard_whole_and_in_order_after_the_initial_delay() {
    let mut rig = Rig::new();
    rig.run(500);
    assert_eq!(rig.heard[..2], [Heard::Silence(160); 2], "40 ms");
    assert_eq!(rig.packets_heard(), (0..498).collect::<Vec<_>>());
    assert_eq!(rig.concealed(), 0);
    assert_eq!(rig.buffer.stats().depth_max_millis, 60);
}

#[test]
fn overtaken_packet_is_heard_in_its_place_and_a_second_copy_never() {
    let mut rig = Rig::new();
    rig.run(10);
    let (overtaken, copy) = (rig.next(), rig.next());
    assert_eq!(rig.insert(copy), Inserted::Taken);
    assert_eq!(rig.insert(overtaken), Inserted::Taken);
    assert_eq!(rig.insert(copy), Inserted::Duplicate);
    assert_eq!(rig.insert(overtaken), Inserted::Duplicate);
    rig.tick();
    rig.tick();
    rig.run(10);
    let heard = rig.packets_heard();
    assert_eq!(heard, (0..heard.len() as u32).collect::<Vec<_>>());
    assert_eq!(rig.buffer.stats().duplicates, 2);
}

#[test]
fn packet_that_comes_after_its_loss_was_concealed_is_late() {
    let mut rig = Rig::new();
    rig.run(10);
    let lost = rig.next();
    rig.tick();
    rig.run(5);
    assert_eq!(rig.insert(lost), Inserted::Late);
    rig.run(5);
    assert!(rig.heard.contains(&Heard::Missing(160)), "{:?}", rig.heard);
    assert!(!rig.packets_heard().contains(&10));
    assert_eq!(rig.buffer.stats().late, 1);
}

#[test]
fn loss_names_the_packet_that_may_describe_it() {
    let mut rig = Rig::new();
    rig.run(3);
    rig.next();
    rig.next();
    rig.send();
    while rig.packets_heard().last() != Some(&2) {
        rig.tick();
    }
    let first = rig.buffer.pull(rig.now, FRAME);
    assert!(
        matches!(
            first,
            Pulled::Missing {
                units: FRAME,
                following: None
            }
        ),
        "{first:?}"
    );
    let Pulled::Missing {
        units: FRAME,
        following: Some(following),
    } = rig.buffer.pull(rig.now, FRAME)
    else {
        panic!("the second loss stands right before a packet");
    };
    assert_eq!(number_of(following.payload), 5);
    let next = rig.buffer.pull(rig.now, FRAME);
    assert!(matches!(next, Pulled::Sound { .. }), "{next:?}");
}

#[test]
fn pause_of_the_sender_is_no_loss_and_nothing_of_the_next_words_is_cut() {
    for pause_frames in [3, 9, 50, 3_000] {
        let mut rig = Rig::new();
        rig.run(50);
        for _ in 0..pause_frames {
            rig.timestamp = rig.timestamp.wrapping_add(FRAME);
            rig.tick();
        }
        rig.run(50);
        (0..10).for_each(|_| rig.tick());
        assert_eq!(rig.packets_heard(), (0..100).collect::<Vec<_>>());
        let missing = rig.heard.iter().any(|h| matches!(h, Heard::Missing(_)));
        assert!(!missing, "{pause_frames}: {:?}", rig.heard);
        assert!(rig.concealed() <= 2 * PAUSE_AFTER_MILLIS * 8);
    }
}

#[test]
fn announced_pause_is_silent_from_its_first_frame() {
    let mut rig = Rig::new();
    rig.run(50);
    assert_eq!(
        rig.send_kind(PacketKind::Pause { units: 0 }),
        Inserted::Taken
    );
    (0..100).for_each(|_| rig.tick());
    assert_eq!(rig.concealed(), 0, "{:?}", rig.heard);
    assert!(rig.heard.contains(&Heard::Pause));
}

#[test]
fn telephone_events_between_the_words_are_no_loss() {
    let mut rig = Rig::new();
    rig.run(50);
    for _ in 0..30 {
        let _ = rig.send_kind(PacketKind::Other);
        rig.tick();
    }
    rig.run(52);
    assert_eq!(rig.concealed(), 0, "{:?}", rig.heard);
    let heard = rig.packets_heard();
    assert!(heard.len() >= 100 && heard.is_sorted(), "{heard:?}");
}

#[test]
fn timestamps_that_stand_still_in_silence_do_not_add_delay() {
    for pause_frames in [4, 12, 40, 500] {
        let mut rig = Rig::new();
        for _ in 0..100 {
            rig.run(25);
            (0..pause_frames).for_each(|_| rig.tick());
        }
        assert_eq!(rig.packets_heard(), (0..2_500).collect::<Vec<_>>());
        rig.run(25);
        let waiting = rig.buffer.stats().depth_millis;
        assert!(waiting <= 60, "{pause_frames}: {waiting} ms");
    }
}

#[test]
fn first_word_after_timestamps_stood_still_waits_like_any_other() {
    for pause_frames in [20, 40, 500] {
        let mut rig = Rig::new();
        rig.run(100);
        (0..pause_frames).for_each(|_| rig.tick());
        let already_heard = rig.packets_heard().len();
        rig.run(1);
        assert_eq!(rig.packets_heard().len(), already_heard, "{pause_frames}");
        rig.run(9);
        assert_eq!(rig.concealed(), PAUSE_AFTER_MILLIS * 8, "only the pause");
    }
}

#[test]
fn nothing_is_shortened_while_packets_do_not_wait() {
    let mut rig = Rig::new();
    rig.run(300);
    let _ = rig.send_kind(PacketKind::Pause { units: 0 });
    (0..8).for_each(|_| rig.tick());
    for _ in 0..8 {
        rig.run(1);
        assert_ne!(rig.buffer.adjustment(20), Adjustment::Shorten);
    }
}

#[test]
fn timestamps_may_jump_or_never_move() {
    for jump in [1 << 31, 0x7fff_ffff, 80_000, 4_000, 0u32.wrapping_sub(500)] {
        let mut rig = Rig::new();
        rig.run(100);
        rig.timestamp = rig.timestamp.wrapping_add(jump);
        rig.run(100);
        (0..10).for_each(|_| rig.tick());
        assert_eq!(rig.packets_heard(), (0..200).collect::<Vec<_>>(), "{jump}");
        assert_eq!(rig.buffer.stats().restarts, 1, "{jump}");
        assert!(rig.buffer.stats().depth_max_millis <= 100);
    }
    let mut rig = Rig::new();
    for _ in 0..200 {
        rig.timestamp = 5;
        rig.run(1);
    }
    assert_eq!(rig.packets_heard(), (0..198).collect::<Vec<_>>());
}

#[test]
fn another_ssrc_goes_on_where_the_first_one_ended() {
    let mut rig = Rig::new();
    rig.run(100);
    (rig.ssrc, rig.sequence, rig.timestamp) = (Ssrc(9), 3, 0x4000_0000);
    rig.run(102);
    assert_eq!(rig.packets_heard(), (0..200).collect::<Vec<_>>());
    assert_eq!(rig.concealed(), 0);
}

#[test]
fn packets_of_any_length_are_heard_whole() {
    for units in [80, 240, 480, 960] {
        let mut rig = Rig::new();
        rig.units = units;
        let mut sent_units = 0;
        for tick in 0..600 {
            while sent_units <= tick * FRAME {
                rig.send();
                sent_units += units;
            }
            rig.tick();
        }
        let heard = rig.packets_heard();
        assert_eq!(heard, (0..heard.len() as u32).collect::<Vec<_>>());
        assert!(heard.len() as u32 >= 590 * FRAME / units, "{units}");
        assert_eq!(rig.concealed(), 0, "{units}: {:?}", rig.heard);
    }
}

#[test]
fn jitter_raises_the_delay_until_hardly_a_packet_is_late_and_a_pause_takes_it_back() {
    let mut rig = Rig::new();
    let mut state = 1u32;
    let mut on_the_way: Vec<(u64, (RtpHeader, u32))> = Vec::new();
    let mut run = |rig: &mut Rig, frames: u64, jitter_millis: u32| {
        for _ in 0..frames {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let delay = u64::from((state >> 8) % (jitter_millis + 1));
            on_the_way.push((rig.now.plus_millis(delay).0, rig.next()));
            let now = rig.now.0;
            on_the_way.sort_by_key(|&(at, _)| at);
            let due = on_the_way.partition_point(|&(at, _)| at <= now);
            for (at, packet) in on_the_way.drain(..due) {
                rig.now = MonoTime(at);
                let _ = rig.insert(packet);
            }
            rig.now = MonoTime(now);
            rig.tick();
        }
    };
    run(&mut rig, 500, 100);
    let concealed_while_learning = rig.concealed();
    run(&mut rig, 2_000, 100);
    let target = rig.buffer.stats().target_millis;
    assert!((80..=110).contains(&target), "{target} ms");
    let concealed = (rig.concealed() - concealed_while_learning) / FRAME;
    assert!(concealed < 60, "{concealed} of 2,000");
    run(&mut rig, 1_000, 0);
    assert_eq!(rig.buffer.stats().target_millis, DELAY_MIN_MILLIS);
    for _ in 0..20 {
        rig.timestamp = rig.timestamp.wrapping_add(FRAME);
        rig.tick();
    }
    rig.run(10);
    assert!(rig.buffer.stats().depth_millis <= 40);
}

#[test]
fn burst_after_a_stall_is_cut_down_to_what_should_wait() {
    let mut rig = Rig::new();
    rig.run(100);
    for _ in 0..100 {
        rig.tick();
    }
    for _ in 0..100 {
        rig.send();
    }
    rig.run(10);
    assert!(rig.buffer.stats().depth_millis <= DEPTH_MAX_MILLIS);
    let heard = rig.packets_heard();
    assert!(heard.is_sorted(), "{heard:?}");
    assert_eq!(rig.buffer.stats().late, 0);
    rig.run(200);
    let delay = 409 - rig.packets_heard().last().expect("something was heard");
    assert!(delay * 20 <= DEPTH_MAX_MILLIS, "{delay} packets behind");
}

#[test]
fn what_nobody_pulls_pushes_out_the_oldest() {
    let mut rig = Rig::new();
    rig.run(10);
    for _ in 0..1_000 {
        rig.send();
        rig.now = rig.now.plus_millis(20);
        assert!(rig.buffer.stats().depth_millis <= DEPTH_MAX_MILLIS);
    }
    rig.run(3);
    assert!(rig.packets_heard().last() > Some(&990), "{:?}", rig.heard);
    assert_eq!(rig.buffer.stats().restarts, 0);
}

#[test]
fn sound_of_no_length_or_too_much_of_it_is_refused() {
    let mut rig = Rig::new();
    let units = PACKET_MAX_MILLIS * 8;
    for (kind, inserted) in [
        (PacketKind::Sound { units: 0 }, Inserted::Unusable),
        (PacketKind::Sound { units: units + 1 }, Inserted::Unusable),
        (PacketKind::Sound { units }, Inserted::Taken),
    ] {
        assert_eq!(rig.send_kind(kind), inserted, "{kind:?}");
    }
    let (header, _) = rig.next();
    let kind = PacketKind::Sound { units: 1 };
    let inserted = rig.buffer.insert(rig.now, &header, kind, &[0; 161]);
    assert_eq!(inserted, Inserted::Unusable);
    assert_eq!(rig.buffer.stats().unusable, 3);
}

/// One thing that may happen.
#[derive(Debug, Clone)]
enum Step {
    Packet {
        ssrc: u32,
        sequence: u16,
        timestamp: u32,
        kind: u8,
        units: u32,
        len: usize,
    },
    Pull(u32),
    Wait(u64),
    SetClock(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let near = (0u16..200, 0u32..40_000);
    let far = (any::<u16>(), any::<u32>());
    let packet = (
        0u32..2,
        prop_oneof![near, far],
        0u8..8,
        prop_oneof![0u32..1_000, any::<u32>()],
        0usize..40,
    )
        .prop_map(
            |(ssrc, (sequence, timestamp), kind, units, len)| Step::Packet {
                ssrc,
                sequence,
                timestamp,
                kind,
                units,
                len,
            },
        );
    let step = prop_oneof![
        6 => packet,
        4 => (1u32..1_000).prop_map(Step::Pull),
        3 => prop_oneof![0u64..40_000_000, any::<u64>().prop_map(|n| n >> 10)].prop_map(Step::Wait),
        1 => prop_oneof![Just(8_000u32), Just(48_000)].prop_map(Step::SetClock),
    ];
    proptest::collection::vec(step, 0..400)
}

proptest! {
    /// Whatever comes: no panic, no more waits than may, and each packet is heard at most once.
    #[test]
    fn any_stream_is_bounded_and_never_repeats(steps in steps()) {
        let mut buffer = JitterBuffer::new(ClockRateHz::NARROWBAND, 32);
        let mut now = MonoTime(0);
        let mut taken = 0u64;
        let mut heard = 0u64;
        for step in steps {
            match step {
                Step::Packet { ssrc, sequence, timestamp, kind, units, len } => {
                    let header = RtpHeader {
                        marker: false,
                        payload_type: PayloadType::PCMU,
                        sequence,
                        timestamp,
                        ssrc: Ssrc(ssrc),
                        header_len: 12,
                        payload_len: len,
                    };
                    let is_other = kind == 7;
                    let kind = match kind {
                        0..=5 => PacketKind::Sound { units },
                        6 => PacketKind::Pause { units },
                        _ => PacketKind::Other,
                    };
                    let inserted = buffer.insert(now, &header, kind, &vec![0; len]);
                    taken += u64::from(inserted == Inserted::Taken && !is_other);
                }
                Step::Pull(units) => {
                    let pulled = buffer.pull(now, units);
                    let is_packet = matches!(pulled, Pulled::Sound { .. } | Pulled::Pause { .. });
                    heard += u64::from(is_packet);
                    let (Pulled::Sound { units: pulled, .. }
                    | Pulled::Pause { units: pulled, .. }
                    | Pulled::Missing { units: pulled, .. }
                    | Pulled::Silence { units: pulled }
                    | Pulled::Starved { units: pulled }) = pulled;
                    prop_assert!(pulled <= units.max(120 * 48), "{pulled}");
                }
                Step::Wait(nanos) => now = now.plus_nanos(nanos),
                Step::SetClock(hz) => {
                    buffer.set_clock_rate(ClockRateHz::new(hz).expect("a clock rate"));
                }
            }
            let stats = buffer.stats();
            prop_assert!(stats.depth_millis <= DEPTH_MAX_MILLIS);
            prop_assert!((DELAY_MIN_MILLIS..=DELAY_MAX_MILLIS).contains(&stats.target_millis));
            prop_assert!(heard + stats.flushed <= taken);
        }
    }
}
