//! Input that is wrong, on purpose or not: never a panic, an answer where one is owed, and
//! nothing kept.

use bytes::Bytes;
use proptest::prelude::*;
use sipx_sip::{HeaderName, Limits, parse_datagram};
use trunkline_sip::{AgentEvent, ClientCredentials};

use crate::support::*;

/// Hands over bytes as a transport does.
fn feed(bench: &mut Bench, bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    match parse_datagram(bytes.clone(), &Limits::datagram()) {
        Ok(message) => bench
            .agent
            .handle_message(bench.now, bench.flow.clone(), message),
        Err(error) => bench.agent.handle_malformed(&bench.flow, &bytes, &error),
    }
}

fn good_options() -> String {
    "OPTIONS sip:203.0.113.1 SIP/2.0\r\nv: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKx;rport\r\n\
     f: <sip:a@h>;tag=1\r\nt: <sip:b@h>\r\ni: mal-1\r\nCSeq: 4 OPTIONS\r\nMax-Forwards: 9\r\n\
     Content-Length: 0\r\n\r\n"
        .to_owned()
}

#[test]
fn request_that_does_not_parse_is_answered_400_where_it_came_from() {
    let long = "x".repeat(9_000);
    for text in [
        good_options().replace("sip:203.0.113.1 SIP", "<sip:203.0.113.1> SIP"),
        good_options().replace("Max-Forwards: 9", "Max-Forwards 9"),
        good_options().replace("Content-Length: 0", "Content-Length: 400"),
        good_options().replace("Content-Length: 0", "Content-Length: -1"),
        good_options().replace("Max-Forwards: 9", &format!("X: {long}")),
        good_options().replace("t: <sip:b@h>", "t:\r\n <sip:b@h>\r\n: nameless"),
    ] {
        let mut bench = Bench::new();
        feed(&mut bench, text.as_bytes());
        let sent = bench.sent_one();
        assert_eq!(sent.label(), "400 OPTIONS", "{text}");
        assert_eq!(sent.header(HeaderName::To), "<sip:b@h>");
        assert_eq!(
            sent.header(HeaderName::Via),
            "SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKx;rport=5060;received=198.51.100.9"
        );
        assert_eq!(bench.agent.counters().malformed, 1);
        bench.assert_nothing_is_left();
    }
}

#[test]
fn request_that_is_too_long_is_told_so() {
    let limits = Limits {
        max_message_bytes: 1_500,
        max_body_bytes: 100,
        ..Limits::datagram()
    };
    let body =
        good_options().replace("Content-Length: 0", "Content-Length: 101") + &"x".repeat(101);
    let message = good_options() + &"x".repeat(1_500);
    for (text, label) in [(body, "413 OPTIONS"), (message, "513 OPTIONS")] {
        let mut bench = Bench::new();
        let bytes = Bytes::from(text);
        let error = parse_datagram(bytes.clone(), &limits).expect_err("too long");
        bench.agent.handle_malformed(&bench.flow, &bytes, &error);
        assert_eq!(bench.sent_one().label(), label);
    }
}

#[test]
fn what_cannot_be_answered_is_counted_in_silence() {
    for text in [
        String::new(),
        "\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "\0\u{1}\u{2}".to_owned(),
        good_options().replace("OPTIONS sip:203.0.113.1 ", "SIP/2.0 9999 "),
        good_options().replace("OPTIONS sip", "ACK <sip"),
        good_options()
            .replace("sip:203", "<sip:203")
            .replace("v: SIP/2.0/UDP 10.0.0.1", "v: x"),
        good_options()
            .replace("sip:203", "<sip:203")
            .replace("i: mal-1\r\n", ""),
    ] {
        let mut bench = Bench::new();
        feed(&mut bench, text.as_bytes());
        assert!(bench.sent().is_empty(), "{text:?}");
        assert_eq!(bench.agent.counters().malformed, 1, "{text:?}");
        bench.assert_nothing_is_left();
    }
}

#[test]
fn line_breaks_cannot_be_smuggled_through_a_reason_or_a_name() {
    let mut bench = Bench::new();
    let (leg, _) = bench.incoming();
    bench
        .agent
        .reject(
            bench.now,
            leg,
            486,
            Some("Busy\r\nInjected: yes"),
            Vec::new(),
        )
        .expect("rejects");
    assert!(!bench.sent_one().text.contains("\nInjected"));
    let mut request = invite_request(udp_flow());
    request.from.display_name = Some("A\"\r\nInjected: yes".to_owned());
    let leg = bench.agent.invite(bench.now, request).expect("sends");
    let invite = bench.sent_one();
    assert!(!invite.text.contains("\nInjected"));
    bench.receive(&reply(&invite, 180, "b", ""));
    bench
        .agent
        .hangup(bench.now, leg, Some("x\r\nInjected: yes"))
        .expect("hangs up");
    assert!(!bench.sent_one().text.contains("\nInjected"));
}

/// Messages of every kind a call has, for mutation.
fn corpus() -> Vec<String> {
    let mut bench = Bench::new();
    let (_, invite_out) = bench.outgoing();
    let tag = "0123456789abcdef";
    vec![
        invite("in-1", "z9hG4bKi", OFFER),
        cancel_of(&invite("in-1", "z9hG4bKi", OFFER)),
        in_dialog("ACK", "in-1", 1, "z9hG4bKa", tag, ""),
        in_dialog("INVITE", "in-1", 2, "z9hG4bKr", tag, OFFER),
        in_dialog("UPDATE", "in-1", 3, "z9hG4bKu", tag, OFFER),
        in_dialog("INFO", "in-1", 4, "z9hG4bKf", tag, "x"),
        in_dialog("BYE", "in-1", 5, "z9hG4bKb", tag, ""),
        reply(&invite_out, 180, "b1", ANSWER),
        reply(&invite_out, 200, "b1", ANSWER),
        reply(&invite_out, 486, "b1", ""),
        reply(&invite_out, 422, "b1", "").replace("Contact", "Min-SE: 3600\r\nContact"),
        reply(&invite_out, 401, "b1", "").replace(
            "Contact",
            "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", qop=\"auth\"\r\nContact",
        ),
        reply(&invite_out, 183, "b1", ANSWER)
            .replace("Contact", "Require: 100rel\r\nRSeq: 1\r\nContact"),
        from_callee(&invite_out, "UPDATE", 1, "z9hG4bKv", OFFER),
        invite("in-1", "z9hG4bKi", OFFER).replace(
            "Contact",
            "Supported: 100rel, timer\r\nSession-Expires: 90;refresher=uac\r\nContact",
        ),
        invite("in-2", "z9hG4bKj", "").replace("Contact", "Require: 100rel\r\nContact"),
        in_dialog("PRACK", "in-1", 2, "z9hG4bKp", tag, OFFER)
            .replace("Contact", "RAck: 1 1 INVITE\r\nContact"),
        in_dialog("REFER", "in-1", 6, "z9hG4bKq", tag, "").replace(
            "Contact",
            "Refer-To: <sip:b@h?Replaces=c%3Bto-tag%3D1%3Bfrom-tag%3D2>\r\nContact",
        ),
        in_dialog("NOTIFY", "in-1", 7, "z9hG4bKn", tag, "SIP/2.0 200 OK").replace(
            "Contact",
            "Event: refer\r\nSubscription-State: active;expires=60\r\nContact",
        ),
        in_dialog("SUBSCRIBE", "in-1", 8, "z9hG4bKs", tag, "")
            .replace("Contact", "Event: refer\r\nExpires: 0\r\nContact"),
        good_options(),
    ]
}

#[derive(Debug, Clone)]
enum Mutation {
    Set { at: usize, byte: u8 },
    Cut { at: usize, len: usize },
    Repeat { at: usize, len: usize },
    Splice { at: usize, with: usize, from: usize },
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        4 => (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set { at, byte }),
        2 => (any::<usize>(), 0..40_usize).prop_map(|(at, len)| Mutation::Cut { at, len }),
        2 => (any::<usize>(), 0..200_usize).prop_map(|(at, len)| Mutation::Repeat { at, len }),
        1 => (any::<usize>(), any::<usize>(), any::<usize>())
            .prop_map(|(at, with, from)| Mutation::Splice { at, with, from }),
    ]
}

fn mutate(corpus: &[String], mut bytes: Vec<u8>, mutations: &[Mutation]) -> Vec<u8> {
    for mutation in mutations {
        if bytes.is_empty() {
            break;
        }
        match *mutation {
            Mutation::Set { at, byte } => {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            Mutation::Cut { at, len } => {
                let at = at % bytes.len();
                let end = (at + len).min(bytes.len());
                bytes.drain(at..end);
            }
            Mutation::Repeat { at, len } => {
                let at = at % bytes.len();
                let end = (at + len).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            Mutation::Splice { at, with, from } => {
                let other = corpus[with % corpus.len()].as_bytes();
                bytes.truncate(at % bytes.len());
                bytes.extend_from_slice(&other[from % other.len()..]);
            }
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn mutated_messages_never_panic_and_leave_nothing(
        picks in prop::collection::vec(
            (any::<usize>(), prop::collection::vec(mutation(), 0..5)),
            1..12,
        ),
        answers in any::<u8>(),
    ) {
        let corpus = corpus();
        let mut bench = Bench::new();
        // The same call that the corpus answers, so that its responses find their transaction.
        let mut request = invite_request(bench.flow.clone());
        let us = ClientCredentials::with_password("us", "s3cret");
        request.credentials = Some(std::sync::Arc::new(us));
        let mut legs = vec![bench.agent.invite(bench.now, request).expect("sends")];
        let mut ours: Option<String> = None;
        for (index, (pick, mutations)) in picks.iter().enumerate() {
            let mut base = corpus[pick % corpus.len()].clone();
            // The peer's requests name the dialog that there is.
            if let Some(tag) = &ours {
                base = base.replace("0123456789abcdef", tag);
            }
            let base = base.into_bytes();
            feed(&mut bench, &mutate(&corpus, base, mutations));
            for event in bench.events() {
                match event {
                    AgentEvent::Invite { leg, .. } => {
                        legs.push(leg);
                        if answers & 0x80 != 0 {
                            bench.agent.provisional(bench.now, leg, 183, Some(body(ANSWER))).expect("new leg");
                        }
                        if answers & 1 << (index % 8) != 0 {
                            bench.agent.answer(bench.now, leg, body(ANSWER)).expect("new leg");
                        }
                    }
                    AgentEvent::Offer { leg, .. } => {
                        bench.agent.accept_offer(bench.now, leg, body(ANSWER)).expect("offer");
                    }
                    AgentEvent::Refer { leg, .. } => {
                        bench.agent.accept_refer(bench.now, leg).expect("it waits");
                    }
                    _ => {}
                }
            }
            for sent in bench.sent() {
                if sent.label().ends_with(" INVITE") {
                    ours = Some(sent.tag(HeaderName::To));
                }
            }
            bench.advance(700);
        }
        bench.events();
        for leg in legs {
            // Those that ended by themselves are unknown by now.
            let _ = bench.agent.hangup(bench.now, leg, None);
        }
        bench.events();
        bench.assert_nothing_is_left();
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut bench = Bench::new();
        feed(&mut bench, &bytes);
        bench.assert_nothing_is_left();
    }
}
