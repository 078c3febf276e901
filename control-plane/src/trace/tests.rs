use super::*;

const INVITE: &str = "INVITE sip:+12025550101@192.0.2.1 SIP/2.0\r\n\
    Via: SIP/2.0/UDP 192.0.2.2;branch=z9hG4bK1\r\nFrom: <sip:+1@192.0.2.2>;tag=1\r\n\
    To: <sip:+12025550101@192.0.2.1>\r\nCall-ID: a@carrier\r\nCSeq: 1 INVITE\r\n\
    Authorization: Digest username=\"ada\",\r\n response=\"0123\"\r\n\
    Contact: <sip:192.0.2.2>\r\nContent-Type: application/sdp\r\nContent-Length: 110\r\n\r\n\
    v=0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:c2VjcmV0\r\na=ice-pwd:hush\r\na=sendrecv\r\n";

fn flow() -> Flow {
    let local = "192.0.2.1:5060".parse().expect("valid");
    Flow::udp(local, "192.0.2.2:5070".parse().expect("valid"))
}

fn record(trace: &mut Trace, unix_ms: i64, direction: Direction, call_id: &str, text: &str) {
    let bytes = Bytes::from(text.to_owned());
    trace.record(unix_ms, direction, &flow(), call_id.as_bytes(), bytes);
}

fn answer(call_id: &str) -> String {
    format!("SIP/2.0 180 Ringing\r\nCall-ID: {call_id}\r\nCSeq: 1 INVITE\r\n\r\n")
}

fn call() -> Vec<TracedMessage> {
    let mut trace = Trace::new(1 << 20);
    record(&mut trace, 1_000, Direction::Received, "a@carrier", INVITE);
    trace.belongs_to(b"a@carrier", "call-1");
    trace.belongs_to(b"b@us", "call-1");
    record(&mut trace, 1_002, Direction::Sent, "b@us", INVITE);
    record(
        &mut trace,
        1_500,
        Direction::Received,
        "b@us",
        &answer("b@us"),
    );
    record(
        &mut trace,
        1_501,
        Direction::Sent,
        "a@carrier",
        &answer("a@carrier"),
    );
    record(
        &mut trace,
        1_502,
        Direction::Received,
        "other",
        &answer("other"),
    );
    let traced = trace.messages("call-1");
    assert_eq!(trace.messages("a@carrier").len(), 2);
    assert_eq!(trace.messages("other").len(), 1);
    assert!(trace.messages("call-2").is_empty());
    traced.iter().map(TracedMessage::from).collect()
}

#[test]
fn both_dialogs_of_a_call_are_found_in_the_order_of_the_wire() {
    let dialogs: Vec<_> = call().into_iter().map(|m| m.sip_call_id).collect();
    assert_eq!(dialogs, ["a@carrier", "b@us", "b@us", "a@carrier"]);
}

#[test]
fn memory_is_bounded_and_the_oldest_is_forgotten_with_its_dialog() {
    let mut trace = Trace::new(4 * (answer("dialog-00").len() + ENTRY_COST));
    for n in 10..50 {
        let call_id = format!("dialog-{n}");
        record(&mut trace, n, Direction::Sent, &call_id, &answer(&call_id));
        trace.belongs_to(call_id.as_bytes(), "call");
    }
    let left: Vec<_> = trace.messages("call").iter().map(|m| m.unix_ms).collect();
    assert_eq!(left, [46, 47, 48, 49]);
    assert_eq!((trace.dialogs.len(), trace.expected.len()), (4, 0));
    assert!(trace.bytes() <= trace.bytes_max);
    // One that is larger than everything together is not kept, and takes nothing with it.
    record(&mut trace, 99, Direction::Sent, "huge", &"x".repeat(9_000));
    assert_eq!(trace.messages("call").len(), 4);
    for n in 0..1_000 {
        trace.belongs_to(format!("never-{n}").as_bytes(), "call");
    }
    assert_eq!(trace.expected.len(), EXPECTED_MAX);
}

#[test]
fn nothing_is_kept_when_it_is_off() {
    let mut trace = Trace::new(0);
    record(&mut trace, 1, Direction::Sent, "a", "");
    trace.belongs_to(b"a", "call");
    assert!(trace.entries.is_empty() && trace.dialogs.is_empty() && trace.expected.is_empty());
}

#[test]
fn secrets_are_crossed_out_and_nothing_else_changes() {
    let masked = String::from_utf8(mask(INVITE.as_bytes())).expect("still text");
    assert_eq!(masked.len(), INVITE.len());
    for secret in ["ada", "0123", "c2VjcmV0", "hush"] {
        assert!(!masked.contains(secret), "{secret} in {masked}");
    }
    assert!(
        masked.contains("Authorization: xxxxxx xxxxxxxxxxxxxxx\r\n xxxxxxxxxxxxxxx\r\nContact:")
    );
    assert!(masked.contains("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:xxxxxxxx\r\n"));
    assert!(masked.ends_with("a=ice-pwd:xxxx\r\na=sendrecv\r\n"));
    for (body, shown) in [
        (
            "application/dtmf-relay\r\n\r\nSignal=5\r\nDuration=160\r\n",
            "Signal=x\r\nDuration=160\r\n",
        ),
        (
            "application/dtmf-relay\r\n\r\nsignal= #\r\n",
            "signal= x\r\n",
        ),
        ("application/dtmf\r\n\r\n7", "\r\n\r\nx"),
        ("text/plain\r\n\r\nSignal=5", "Signal=5"),
    ] {
        let info = format!("INFO sip:a SIP/2.0\r\nContent-Type: {body}");
        let masked = String::from_utf8(mask(info.as_bytes())).expect("still text");
        assert!(masked.ends_with(shown), "{masked}");
    }
}

proptest::proptest! {
    #[test]
    fn no_message_breaks_the_mask(message in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        proptest::prop_assert_eq!(mask(&message).len(), message.len());
    }
}

#[test]
fn ladder_has_a_column_for_each_dialog() {
    let text = ladder::write(&call(), false);
    let rows = [
        "A  192.0.2.2:5070 udp  Call-ID a@carrier",
        "B  192.0.2.2:5070 udp  Call-ID b@us",
        "",
        "time (UTC)      after s  A                                 B",
        "00:00:01.000      0.000  INVITE + SDP ──▶                  │",
        "00:00:01.002      0.002  │                                 ◀── INVITE + SDP",
        "00:00:01.500      0.500  │                                 180 (INVITE) ──▶",
        "00:00:01.501      0.501  ◀── 180 (INVITE)                  │",
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), rows, "\n{text}");
    assert!(ladder::write(&call(), true).contains("    SIP/2.0 180 Ringing\n"));
    assert_eq!(ladder::write(&[], true), "");
}

#[test]
fn call_id_of_our_own_message_is_found_in_its_header_alone() {
    assert_eq!(call_id_of(INVITE.as_bytes()), Some(&b"a@carrier"[..]));
    assert_eq!(call_id_of(b"OPTIONS"), None);
    assert_eq!(
        call_id_of(b"SIP/2.0 200 OK\r\nv: x\r\ni : b@c\r\n\r\n"),
        Some(&b"b@c"[..])
    );
    assert_eq!(
        call_id_of(b"OPTIONS x\r\nTo: a\r\n\r\nCall-ID: body\r\n"),
        None
    );
}

#[test]
fn hep_packet_carries_addresses_time_and_the_masked_message() {
    let traced = Traced {
        unix_ms: 1_700_000_000_123,
        direction: Direction::Received,
        flow: flow(),
        dialog: Arc::from(&b"a@carrier"[..]),
        bytes: Bytes::from_static(INVITE.as_bytes()),
    };
    let packet = hep::write(&traced, 7).expect("short enough");
    assert_eq!(&packet[..4], b"HEP3");
    assert_eq!(
        usize::from(u16::from_be_bytes([packet[4], packet[5]])),
        packet.len()
    );
    let mut chunks = std::collections::BTreeMap::new();
    let mut rest = &packet[6..];
    while let [0, 0, kind_high, kind_low, len_high, len_low, ..] = *rest {
        let len = usize::from(u16::from_be_bytes([len_high, len_low]));
        chunks.insert(
            u16::from_be_bytes([kind_high, kind_low]),
            rest[6..len].to_vec(),
        );
        rest = &rest[len..];
    }
    assert!(rest.is_empty());
    let expected: [(u16, Vec<u8>); 11] = [
        (1, vec![2]),
        (2, vec![17]),
        (3, vec![192, 0, 2, 2]),
        (4, vec![192, 0, 2, 1]),
        (7, 5070u16.to_be_bytes().into()),
        (8, 5060u16.to_be_bytes().into()),
        (9, 1_700_000_000u32.to_be_bytes().into()),
        (10, 123_000u32.to_be_bytes().into()),
        (11, vec![1]),
        (12, 7u32.to_be_bytes().into()),
        (15, mask(INVITE.as_bytes())),
    ];
    for (kind, value) in &expected {
        assert_eq!(chunks.get(kind), Some(value), "chunk {kind}");
    }
    let huge = Traced {
        bytes: Bytes::from(vec![b'x'; 70_000]),
        ..traced
    };
    assert_eq!(hep::write(&huge, 7), None);
}

#[test]
fn capture_file_has_a_whole_packet_for_each_message() {
    let messages = call();
    let file = pcap::write(&messages);
    let mut rest = &file[24..];
    for message in &messages {
        let (record, packet) = rest.split_at(16);
        let len = u32::from_le_bytes(record[8..12].try_into().expect("four")) as usize;
        let micros = u32::from_le_bytes(record[4..8].try_into().expect("four"));
        assert_eq!(
            u64::from(micros),
            message.unix_ms.unsigned_abs() % 1_000 * 1_000
        );
        let packet = &packet[..len];
        assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), len);
        let source: [u8; 4] = packet[12..16].try_into().expect("four");
        let is_from_peer = source == [192, 0, 2, 2];
        assert_eq!(is_from_peer, message.direction == Direction::Received);
        assert_eq!(&packet[28..], message.text.as_bytes());
        rest = &rest[16 + len..];
    }
    assert!(rest.is_empty());
}
