use proptest::prelude::*;
use trunkline_edge_api::{ClockRateHz, MonoTime};

use super::*;
use crate::rewrite::Position;

/// What leg A sends to the peer whose RTCP is translated, and what leg B sends onward.
const LEG_A: Ssrc = Ssrc(0xaaaa_aaaa);
const LEG_B: Ssrc = Ssrc(0xbbbb_bbbb);
/// SSRCs that the two peers chose.
const PEER_A: Ssrc = Ssrc(7);
const PEER_B: Ssrc = Ssrc(9);

struct Streams {
    leg_a: OutgoingStream,
    leg_b: OutgoingStream,
    /// Sent minus received on leg B.
    timestamp_offset: u32,
    /// Sent minus received on leg A.
    sequence_offset: u16,
}

impl Streams {
    /// Both peers have sent two packets of 160 payload bytes: A's peer 1000 and 1001 at
    /// timestamps 0 and 160, B's peer 2000 and 2001.
    fn flowing() -> Self {
        let mut leg_a = OutgoingStream::new(LEG_A);
        let mut leg_b = OutgoingStream::new(LEG_B);
        let send = |stream: &mut OutgoingStream, source, sequence, timestamp| {
            let incoming = Position {
                sequence,
                timestamp,
            };
            stream
                .place(MonoTime(0), source, incoming, ClockRateHz::NARROWBAND, 160)
                .expect("in sequence")
        };
        let to_b = send(&mut leg_b, PEER_A, 1_000, 0);
        send(&mut leg_b, PEER_A, 1_001, 160);
        let to_a = send(&mut leg_a, PEER_B, 2_000, 0);
        send(&mut leg_a, PEER_B, 2_001, 160);
        Self {
            leg_a,
            leg_b,
            timestamp_offset: to_b.timestamp,
            sequence_offset: to_a.sequence.wrapping_sub(2_000),
        }
    }

    fn idle() -> Self {
        Self {
            leg_a: OutgoingStream::new(LEG_A),
            leg_b: OutgoingStream::new(LEG_B),
            timestamp_offset: 0,
            sequence_offset: 0,
        }
    }

    /// The translation of what A's peer sent.
    fn translate(&self, packet: &[u8]) -> Result<Vec<u8>, MalformedRtcp> {
        let mut packet = packet.to_vec();
        let translation = Translation {
            onward: &self.leg_b,
            reported: &self.leg_a,
        };
        let len = translate(&mut packet, translation)?;
        packet.truncate(len);
        Ok(packet)
    }

    /// How A's peer numbers the packet that B's peer numbered `sequence`.
    fn seen_by_peer_a(&self, sequence: u16) -> u32 {
        u32::from(sequence.wrapping_add(self.sequence_offset))
    }
}

fn packet(first_byte: u8, packet_type: u8, words: &[u32]) -> Vec<u8> {
    let mut bytes = vec![first_byte, packet_type];
    bytes.extend_from_slice(&(words.len() as u16).to_be_bytes());
    bytes.extend(words.iter().flat_map(|word| word.to_be_bytes()));
    bytes
}

/// Fraction lost, jitter, LSR and DLSR are recognisable and must survive.
fn block(about: Ssrc, highest: u32) -> [u32; 6] {
    [about.0, 0x0500_0007, highest, 33, 0x1111_2222, 0x3333]
}

fn sdes(ssrc: Ssrc, items: &[(u8, &str)]) -> Vec<u8> {
    let mut bytes = vec![0x81, 202, 0, 0];
    bytes.extend_from_slice(&ssrc.0.to_be_bytes());
    for (kind, text) in items {
        bytes.extend_from_slice(&[*kind, text.len() as u8]);
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let words_less_one = (bytes.len() / 4 - 1) as u16;
    bytes[2..4].copy_from_slice(&words_less_one.to_be_bytes());
    bytes
}

#[test]
fn sender_report_tells_our_time_and_our_counts() {
    let streams = Streams::flowing();
    let sr = packet(
        0x80,
        200,
        &[PEER_A.0, 0x1234_5678, 0x9abc_def0, 160, 5_000, 800_000],
    );
    let expected = packet(
        0x80,
        200,
        &[
            LEG_B.0,
            0x1234_5678,
            0x9abc_def0,
            streams.timestamp_offset.wrapping_add(160),
            2,
            320,
        ],
    );
    assert_eq!(streams.translate(&sr), Ok(expected));
}

#[test]
fn sender_report_of_another_source_becomes_a_receiver_report_with_its_blocks() {
    let streams = Streams::flowing();
    let highest = streams.seen_by_peer_a(2_001);
    let mut words = vec![0x4444, 1, 2, 3, 4, 5];
    words.extend(block(LEG_A, highest));
    let mut expected = vec![LEG_B.0];
    expected.extend(block(PEER_B, 2_001));
    assert_eq!(
        streams.translate(&packet(0x81, 200, &words)),
        Ok(packet(0x81, 201, &expected))
    );
}

#[test]
fn block_about_our_stream_is_handed_to_the_source_behind_it_and_others_are_left_out() {
    let streams = Streams::flowing();
    let highest = streams.seen_by_peer_a(2_000);
    let mut words = vec![PEER_A.0];
    words.extend(block(Ssrc(0x5555), highest));
    words.extend(block(LEG_A, highest));
    words.extend(block(LEG_B, highest));
    let mut expected = vec![LEG_B.0];
    expected.extend(block(PEER_B, 2_000));
    assert_eq!(
        streams.translate(&packet(0x83, 201, &words)),
        Ok(packet(0x81, 201, &expected))
    );
}

#[test]
fn block_before_the_far_peer_has_sent_is_left_out() {
    let mut words = vec![PEER_A.0];
    words.extend(block(LEG_A, 1));
    assert_eq!(
        Streams::idle().translate(&packet(0x81, 201, &words)),
        Ok(packet(0x80, 201, &[LEG_B.0]))
    );
}

#[test]
fn description_keeps_only_a_canonical_name_that_names_no_host() {
    let streams = Streams::flowing();
    let mut compound = packet(0x80, 201, &[PEER_A.0]);
    compound.extend(sdes(
        PEER_A,
        &[(2, "Alice"), (1, "alice@192.168.1.5"), (6, "phone 1.0")],
    ));
    let translated = streams.translate(&compound).expect("valid");
    assert_eq!(validate(&translated), Ok(()));
    let description = &translated[8..];
    assert_eq!(description[..2], [0x81, 202]);
    assert_eq!(description[4..8], LEG_B.0.to_be_bytes());
    assert_eq!(description[8..10], [1, 17]);
    assert!(description[10..27].iter().all(u8::is_ascii_hexdigit));
    assert!(description[27..].iter().all(|&byte| byte == 0));
    assert_eq!(description.len(), 28);
    assert_eq!(
        streams.translate(&compound),
        Ok(translated),
        "the name is stable"
    );
}

#[test]
fn description_of_a_contributor_is_left_out() {
    let streams = Streams::flowing();
    let mut compound = packet(0x80, 201, &[PEER_A.0]);
    compound.extend(sdes(Ssrc(0x6666), &[(1, "mixed@in")]));
    assert_eq!(
        streams.translate(&compound),
        Ok(packet(0x80, 201, &[LEG_B.0]))
    );
}

#[test]
fn goodbye_of_the_source_keeps_its_reason() {
    let streams = Streams::flowing();
    let bye = packet(0x82, 203, &[0x6666, PEER_A.0, 0x0362_7965]);
    let expected = packet(0x81, 203, &[LEG_B.0, 0x0362_7965]);
    assert_eq!(streams.translate(&bye), Ok(expected));
}

#[test]
fn goodbye_of_another_source_and_a_four_byte_goodbye_are_left_out() {
    let streams = Streams::flowing();
    assert_eq!(streams.translate(&packet(0x81, 203, &[0x6666])), Ok(vec![]));
    assert_eq!(streams.translate(&packet(0x80, 203, &[])), Ok(vec![]));
}

#[test]
fn peer_that_never_sent_rtp_is_known_by_its_report() {
    let streams = Streams::idle();
    let mut compound = packet(0x80, 201, &[0x7777]);
    compound.extend(packet(0x81, 203, &[0x7777]));
    let mut expected = packet(0x80, 201, &[LEG_B.0]);
    expected.extend(packet(0x81, 203, &[LEG_B.0]));
    assert_eq!(streams.translate(&compound), Ok(expected));
}

#[test]
fn app_is_passed_under_our_ssrc() {
    let app = packet(0x85, 204, &[PEER_A.0, 0x6e61_6d65, 1, 2]);
    let expected = packet(0x85, 204, &[LEG_B.0, 0x6e61_6d65, 1, 2]);
    assert_eq!(Streams::flowing().translate(&app), Ok(expected));
}

#[test]
fn generic_nack_asks_the_source_for_its_own_numbers() {
    let streams = Streams::flowing();
    let lost = streams.seen_by_peer_a(2_001) << 16 | 0b101;
    let before_first = streams.seen_by_peer_a(1_990) << 16;
    let nack = packet(0x81, 205, &[PEER_A.0, LEG_A.0, before_first, lost]);
    let expected = packet(0x81, 205, &[LEG_B.0, PEER_B.0, 2_001 << 16 | 0b101]);
    assert_eq!(streams.translate(&nack), Ok(expected));
}

#[test]
fn what_holds_untranslated_numbers_is_left_out() {
    let streams = Streams::flowing();
    let rows = [
        (
            "transport-wide feedback",
            packet(0x8f, 205, &[PEER_A.0, LEG_A.0, 1]),
        ),
        (
            "payload-specific feedback",
            packet(0x81, 206, &[PEER_A.0, LEG_A.0]),
        ),
        (
            "extended report",
            packet(0x80, 207, &[PEER_A.0, 0x0400_0002, 1, 2]),
        ),
        ("unassigned type", packet(0x80, 222, &[PEER_A.0])),
    ];
    for (name, packet) in rows {
        assert_eq!(streams.translate(&packet), Ok(vec![]), "{name}");
    }
}

#[test]
fn padding_is_left_out() {
    let padded = packet(0xa0, 201, &[PEER_A.0, 0, 8]);
    assert_eq!(
        Streams::flowing().translate(&padded),
        Ok(packet(0x80, 201, &[LEG_B.0]))
    );
}

#[test]
fn malformed_compound_is_refused_and_left_unchanged() {
    let rr = packet(0x80, 201, &[PEER_A.0]);
    let with_tail = |tail: &[u8]| [rr.as_slice(), tail].concat();
    let rows = [
        ("empty", vec![]),
        ("three bytes", vec![0x80, 201, 0]),
        ("RR of four bytes", packet(0x80, 201, &[])),
        ("version 1", packet(0x40, 201, &[PEER_A.0])),
        ("type outside the range", packet(0x80, 100, &[PEER_A.0])),
        ("length beyond the end", vec![0x80, 201, 0, 9, 0, 0, 0, 7]),
        (
            "more blocks than bytes",
            packet(0x82, 201, &[PEER_A.0, 1, 2, 3, 4, 5, 6]),
        ),
        (
            "SR without sender information",
            packet(0x80, 200, &[PEER_A.0]),
        ),
        ("more leaving than bytes", packet(0x82, 203, &[PEER_A.0])),
        (
            "reason beyond the packet",
            packet(0x81, 203, &[PEER_A.0, 0x0462_7965]),
        ),
        (
            "chunk without end",
            packet(0x81, 202, &[PEER_A.0, 0x0102_6161]),
        ),
        (
            "item beyond the packet",
            packet(0x81, 202, &[PEER_A.0, 0x0109_6161]),
        ),
        ("chunk missing", packet(0x82, 202, &[PEER_A.0, 0])),
        ("APP without name", packet(0x80, 204, &[PEER_A.0])),
        ("padding of zero", packet(0xa0, 201, &[PEER_A.0, 0])),
        ("padding off the grid", packet(0xa0, 201, &[PEER_A.0, 3])),
        (
            "padding over the content",
            packet(0xa0, 201, &[PEER_A.0, 8]),
        ),
        (
            "padding not in the last packet",
            [packet(0xa0, 201, &[PEER_A.0, 4]), rr.clone()].concat(),
        ),
        ("second packet cut", with_tail(&[0x80, 203, 0])),
        ("second packet wrong", with_tail(&[0, 0, 0, 0])),
    ];
    let streams = Streams::flowing();
    for (name, malformed) in rows {
        let mut bytes = malformed.clone();
        let translation = Translation {
            onward: &streams.leg_b,
            reported: &streams.leg_a,
        };
        assert_eq!(
            translate(&mut bytes, translation),
            Err(MalformedRtcp),
            "{name}"
        );
        assert_eq!(bytes, malformed, "{name}");
    }
}

/// One packet of a compound, of any type, mostly about SSRCs that mean something.
fn any_packet() -> impl Strategy<Value = Vec<u8>> {
    let ssrc = prop_oneof![
        Just(PEER_A.0),
        Just(PEER_B.0),
        Just(LEG_A.0),
        Just(LEG_B.0),
        any::<u32>()
    ];
    let words = proptest::collection::vec(ssrc.clone(), 0..20);
    let described = (
        ssrc.prop_map(Ssrc),
        proptest::collection::vec((1u8..9, "[a-z@.]{0,40}"), 0..4),
    );
    prop_oneof![
        (0u8..4, 192u8..=223, words).prop_map(|(count, code, words)| packet(
            0x80 | count,
            code,
            &words
        )),
        described.prop_map(|(ssrc, items)| {
            let items: Vec<_> = items
                .iter()
                .map(|(kind, text)| (*kind, text.as_str()))
                .collect();
            sdes(ssrc, &items)
        }),
    ]
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Streams::flowing().translate(&bytes);
        let _ = Streams::idle().translate(&bytes);
    }

    #[test]
    fn translation_is_valid_not_longer_and_names_no_peer(
        packets in proptest::collection::vec(any_packet(), 1..5),
    ) {
        let compound = packets.concat();
        let accepted = validate(&compound).is_ok();
        match Streams::flowing().translate(&compound) {
            Err(MalformedRtcp) => prop_assert!(!accepted),
            Ok(translated) => {
                prop_assert!(accepted);
                prop_assert!(translated.len() <= compound.len());
                if translated.is_empty() {
                    return Ok(());
                }
                prop_assert_eq!(validate(&translated), Ok(()));
                let mut at = 0;
                while let Some(part) = packet_at(&translated, at) {
                    prop_assert_eq!(read_u32(&translated, at + 4), LEG_B.0);
                    at = part.end;
                }
            }
        }
    }
}
