use proptest::prelude::*;

use super::*;

const PTIME_NANOS: u64 = 20_000_000;
const SAMPLES: u32 = 160;

fn header(sequence: u16, timestamp: u32) -> RtpHeader {
    RtpHeader {
        marker: false,
        payload_type: PayloadType::PCMU,
        sequence,
        timestamp,
        ssrc: Ssrc(7),
        header_len: 12,
        payload_len: 160,
    }
}

/// Packet `n` of a stream that begins at `first`, sent on time, arriving `late_nanos` after that.
fn arrive(stats: &mut ReceiveStats, first: u16, n: i64, late_nanos: u64) {
    let sequence = first.wrapping_add(n as u16);
    let timestamp = (n as u32).wrapping_mul(SAMPLES);
    let sent = 1_000_000_000 + n as u64 * PTIME_NANOS;
    let now = MonoTime(sent + late_nanos);
    stats.receive(now, &header(sequence, timestamp), ClockRateHz::NARROWBAND);
}

fn after(first: u16, order: &[i64]) -> ReceiveStats {
    let mut stats = ReceiveStats::default();
    for &n in order {
        arrive(&mut stats, first, n, 0);
    }
    stats
}

/// (order of arrival, lost, reordered, duplicates), each from the middle of the number space and
/// over its end.
#[test]
fn each_packet_counts_as_what_it_is() {
    let rows: &[(&[i64], u64, u64, u64)] = &[
        (&[0, 1, 2, 3], 0, 0, 0),
        (&[0, 1, 3, 4], 1, 0, 0),
        (&[0, 1, 3, 2, 4], 0, 1, 0),
        (&[0, 1, 1, 2], 0, 0, 1),
        (&[0, 0], 0, 0, 1),
        (&[0, 2, 1, 1, 3], 0, 1, 1),
        (&[2, 0, 1, 3], 0, 2, 0),
        (&[2, 0, 3], 1, 1, 0),
        (&[0, 10, 11], 9, 0, 0),
        (&[0, 80, 10, 81], 78, 1, 0),
        (&[0, 2000, 2001], 1999, 0, 0),
        // Too far back to know a duplicate: counted as late.
        (&[0, 1, 70, 1], 67, 1, 0),
        // A single stray from nowhere is not counted at all.
        (&[0, 1, 9000, 2], 0, 0, 0),
        // Two in sequence are a new numbering; what was lost before stays lost.
        (&[0, 2, 9000, 9001, 9002], 1, 0, 0),
    ];
    for &(order, lost, reordered, duplicates) in rows {
        for first in [1_000, 65_535, 65_534, 0] {
            let stats = after(first, order);
            assert_eq!(
                (stats.lost(), stats.reordered(), stats.duplicates()),
                (lost, reordered, duplicates),
                "{order:?} from {first}"
            );
        }
    }
}

#[test]
fn sequence_is_extended_over_each_wrap() {
    let mut stats = ReceiveStats::default();
    for n in 0..200_000 {
        arrive(&mut stats, 65_000, n, 0);
    }
    let block = stats.take_report_block().expect("heard");
    assert_eq!(block.highest_sequence, 65_000 + 199_999);
    assert_eq!(stats.lost(), 0);
}

#[test]
fn another_ssrc_begins_anew_and_keeps_what_was_lost() {
    let mut stats = after(10, &[0, 2]);
    let mut other = header(500, 9);
    other.ssrc = Ssrc(8);
    stats.receive(MonoTime(5), &other, ClockRateHz::NARROWBAND);
    other.sequence = 503;
    stats.receive(MonoTime(6), &other, ClockRateHz::NARROWBAND);
    assert_eq!(stats.lost(), 3);
    let block = stats.take_report_block().expect("heard");
    assert_eq!((block.about, block.cumulative_lost), (Ssrc(8), 2));
}

/// RFC 3550 A.8 by hand: J += (|D| - J) / 16, D of 80, 80 and 0 units, in sixteenths 80, 155, 145.
#[test]
fn jitter_follows_the_rfc_step_by_step() {
    let mut stats = ReceiveStats::default();
    let late = [0, 10_000_000, 0, 0];
    let mut seen = Vec::new();
    for (n, late) in late.into_iter().enumerate() {
        arrive(&mut stats, 1, n as i64, late);
        seen.push(stats.run.as_ref().expect("heard").jitter_q4);
    }
    assert_eq!(seen, [0, 80, 155, 145]);
    assert_eq!(stats.jitter_micros(), 9 * 125);
    assert_eq!(stats.jitter_max_micros(), 9 * 125);
}

#[test]
fn jitter_is_a_time_whatever_the_clock() {
    for (clock, samples) in [
        (ClockRateHz::NARROWBAND, 160),
        (ClockRateHz::OPUS, 960),
        (ClockRateHz::G722_RTP, 160),
    ] {
        let mut stats = ReceiveStats::default();
        for n in 0..2_000u32 {
            // Every other packet is 4 ms late, so every step is 4 ms.
            let late = u64::from(n % 2) * 4_000_000;
            let now = MonoTime(u64::from(n) * PTIME_NANOS + late);
            stats.receive(now, &header(n as u16, n.wrapping_mul(samples)), clock);
        }
        let jitter = stats.jitter_micros();
        assert!((3_800..=4_000).contains(&jitter), "{clock:?}: {jitter}");
    }
}

#[test]
fn change_of_clock_keeps_the_jitter_and_adds_none() {
    let mut stats = ReceiveStats::default();
    for n in 0..200 {
        arrive(&mut stats, 1, n, (n as u64 % 2) * 4_000_000);
    }
    let before = stats.jitter_micros();
    for n in 200..202u32 {
        let now = MonoTime(1_000_000_000 + u64::from(n) * PTIME_NANOS);
        stats.receive(now, &header(1 + n as u16, 77 + n * 960), ClockRateHz::OPUS);
    }
    let after = stats.jitter_micros();
    assert!(
        after <= before && after * 10 >= before * 8,
        "{before} {after}"
    );
    assert_eq!(stats.clock_hz(), Some(48_000));
}

#[test]
fn updates_of_one_telephone_event_are_not_jitter() {
    let mut stats = after(1, &[0, 1, 2]);
    for n in 3..20u64 {
        let now = MonoTime(1_000_000_000 + n * PTIME_NANOS);
        let event = header(1 + n as u16, 3 * SAMPLES);
        stats.receive(now, &event, ClockRateHz::NARROWBAND);
    }
    arrive(&mut stats, 1, 20, 0);
    assert_eq!(stats.jitter_max_micros(), 0);
    assert_eq!(stats.lost(), 0);
}

#[test]
fn timestamp_that_leaps_is_not_jitter() {
    let mut stats = after(1, &[0, 1]);
    let leapt = header(3, 0xdead_beef);
    stats.receive(MonoTime(1_040_000_000), &leapt, ClockRateHz::NARROWBAND);
    assert_eq!(stats.jitter_micros(), 0);
}

#[test]
fn fraction_lost_is_of_what_came_since_the_last_block() {
    let mut stats = after(1, &[0, 1, 2, 3]);
    assert_eq!(stats.take_report_block().expect("heard").fraction_lost, 0);
    for n in [4, 6, 8, 10] {
        arrive(&mut stats, 1, n, 0);
    }
    let block = stats.take_report_block().expect("heard");
    assert_eq!((block.fraction_lost, block.cumulative_lost), (109, 3));
    assert_eq!(stats.take_report_block().expect("heard").fraction_lost, 0);
}

#[test]
fn every_twentieth_packet_missing_is_five_percent() {
    let mut stats = ReceiveStats::default();
    for n in (0..2_000).filter(|n| n % 20 != 19) {
        arrive(&mut stats, 60_000, n, 0);
    }
    let heard = stats.listener_input().expect("heard");
    // The last gap is not yet seen.
    assert_eq!((heard.received, heard.lost, heard.gaps), (1_900, 99, 99));
    // Ppl 4.952, Ie,eff 15.654, R 77.55.
    assert_eq!(super::super::emodel::mos_centi(&heard, 0), 393);
}

proptest! {
    /// Whatever comes in whatever order within the window: nothing is counted twice or forgotten.
    #[test]
    fn counts_agree_with_a_plain_list(
        first: u16,
        steps in prop::collection::vec((0u8..4, 0i64..20), 1..300),
    ) {
        let mut stats = ReceiveStats::default();
        let (mut newest, mut seen) = (0i64, std::collections::BTreeSet::from([0i64]));
        let (mut reordered, mut duplicates) = (0, 0);
        arrive(&mut stats, first, 100, 0);
        for (kind, distance) in steps {
            let n = if kind == 0 { newest - distance } else { newest + distance };
            arrive(&mut stats, first, 100 + n, 0);
            if !seen.insert(n) {
                duplicates += 1;
            } else if n < newest {
                reordered += 1;
            }
            newest = newest.max(n);
        }
        let lowest = *seen.first().expect("one");
        let expected = (newest - lowest + 1) as u64;
        prop_assert_eq!(stats.lost(), expected - seen.len() as u64);
        prop_assert_eq!((stats.reordered(), stats.duplicates()), (reordered, duplicates));
    }

    #[test]
    fn no_header_makes_it_panic(
        packets in prop::collection::vec((any::<u64>(), any::<u16>(), any::<u32>(), 0u32..3, 1u32..=384_000), 1..200),
    ) {
        let mut stats = ReceiveStats::default();
        for (now, sequence, timestamp, ssrc, hz) in packets {
            let packet = RtpHeader { ssrc: Ssrc(ssrc), ..header(sequence, timestamp) };
            stats.receive(MonoTime(now), &packet, ClockRateHz::new(hz).expect("in range"));
            let _ = (stats.jitter_micros(), stats.lost(), stats.take_report_block());
        }
    }
}
