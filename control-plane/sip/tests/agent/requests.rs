//! Requests outside dialogs and inside them, and what is refused.

use bytes::Bytes;
use sipx_sip::{Header, HeaderName, Method};
use trunkline_sip::{AgentConfig, AgentEvent, EndedBy, InviteError, RespondError};

use crate::support::*;

fn request(method: &str, more: &str) -> String {
    format!(
        "{method} sip:203.0.113.1 SIP/2.0\r\nVia: SIP/2.0/UDP {PEER};branch=z9hG4bK{method}1\r\n\
         Max-Forwards: 70\r\nFrom: <sip:alice@carrier.example>;tag=a1\r\n\
         To: <sip:203.0.113.1>\r\nCall-ID: out-1\r\nCSeq: 1 {method}\r\n{more}\r\n"
    )
}

fn answer_to(text: &str) -> Sent {
    let mut bench = Bench::new();
    bench.receive(text);
    let sent = bench.sent_one();
    assert!(
        bench.events().is_empty(),
        "refused requests are not passed up"
    );
    bench.assert_nothing_is_left();
    sent
}

#[test]
fn register_and_options_are_passed_up_and_answered_once() {
    for method in ["REGISTER", "OPTIONS"] {
        let mut bench = Bench::new();
        let text = request(method, "");
        bench.receive(&text);
        let id = request_id(&bench.event());
        bench.receive(&text);
        assert!(bench.events().is_empty() && bench.sent().is_empty());
        let headers = vec![Header::build(HeaderName::Expires, "60").expect("valid")];
        bench
            .agent
            .respond(bench.now, id, 200, headers, Bytes::new())
            .expect("waits");
        let ok = bench.sent_one();
        assert_eq!(ok.label(), format!("200 {method}"));
        assert_eq!(ok.header(HeaderName::Expires), "60");
        assert_eq!(ok.tag(HeaderName::To).len(), 16);
        assert_eq!(
            bench
                .agent
                .respond(bench.now, id, 200, Vec::new(), Bytes::new()),
            Err(RespondError::UnknownRequest)
        );
        bench.receive(&text);
        assert_eq!(bench.sent_one().text, ok.text);
        bench.assert_nothing_is_left();
    }
}

#[test]
fn request_nobody_answers_is_given_up() {
    let mut bench = Bench::new();
    bench.receive(&request("OPTIONS", ""));
    let id = request_id(&bench.event());
    bench.advance(32_000);
    assert_eq!(
        bench
            .agent
            .respond(bench.now, id, 200, Vec::new(), Bytes::new()),
        Err(RespondError::UnknownRequest)
    );
    assert_eq!(bench.agent.counters().requests_abandoned, 1);
    bench.assert_nothing_is_left();
}

#[test]
fn what_cannot_be_served_is_refused_with_the_right_status() {
    let long_hops = request("INVITE", "Contact: <sip:alice@198.51.100.9>\r\n");
    for (text, status) in [
        (request("BYE", ""), "481 BYE"),
        (request("INFO", ""), "481 INFO"),
        (request("UPDATE", ""), "481 UPDATE"),
        (request("PRACK", ""), "481 PRACK"),
        (request("NOTIFY", ""), "481 NOTIFY"),
        (request("MESSAGE", ""), "405 MESSAGE"),
        (request("SUBSCRIBE", ""), "405 SUBSCRIBE"),
        (request("REFER", ""), "403 REFER"),
        (request("FROBNICATE", ""), "501 FROBNICATE"),
        (
            request("OPTIONS", "Require: 100rel, foo\r\n"),
            "420 OPTIONS",
        ),
        (
            long_hops.replace("Max-Forwards: 70", "Max-Forwards: 0"),
            "483 INVITE",
        ),
        (
            long_hops.replace("Contact", "Require: precondition\r\nContact"),
            "420 INVITE",
        ),
        (request("INVITE", ""), "400 INVITE"),
        (
            request(
                "INVITE",
                "Contact: <sip:a@h>\r\nContent-Type: text/plain\r\n",
            ) + "hello",
            "415 INVITE",
        ),
        (
            request(
                "INVITE",
                "Contact: <sip:a@h>\r\nContent-Type: application/sdp\r\nContent-Encoding: gzip\r\n",
            ) + "v=0",
            "415 INVITE",
        ),
        (
            request("INVITE", "Contact: <sip:a@h>\r\n") + "v=0",
            "415 INVITE",
        ),
        (
            request("OPTIONS", "").replace("1 OPTIONS", "1 INVITE"),
            "400 INVITE",
        ),
        (
            request("OPTIONS", "").replace("CSeq: 1", "CSeq: x"),
            "400 OPTIONS",
        ),
        (
            request("OPTIONS", "From: <sip:b@h>;tag=2\r\n"),
            "400 OPTIONS",
        ),
        (
            request("OPTIONS", "").replace("SIP/2.0\r\nVia", "SIP/3.0\r\nVia"),
            "505 OPTIONS",
        ),
        (
            request("OPTIONS", "").replace("sip:203.0.113.1 ", "mailto:a@b "),
            "416 OPTIONS",
        ),
    ] {
        let sent = answer_to(&text);
        assert_eq!(sent.label(), status, "{text}");
        assert_eq!(sent.transmit.flow.remote, address(PEER));
        assert!(!sent.tag(HeaderName::To).is_empty());
        let needed = match &status[..3] {
            "405" | "501" => Some(HeaderName::Allow),
            "415" => Some(HeaderName::Accept),
            "420" => Some(HeaderName::Unsupported),
            _ => None,
        };
        if let Some(name) = needed {
            assert!(!sent.header(name.clone()).is_empty(), "{name} in {status}");
        }
    }
    assert_eq!(
        answer_to(&request("OPTIONS", "Require: 100rel, foo\r\n")).header(HeaderName::Unsupported),
        "foo"
    );
}

#[test]
fn missing_max_forwards_is_forgiven() {
    let mut bench = Bench::new();
    bench.receive(&request("OPTIONS", "").replace("Max-Forwards: 70\r\n", ""));
    assert!(matches!(bench.event(), AgentEvent::Request { .. }));
}

#[test]
fn compact_and_folded_headers_make_a_call() {
    let mut bench = Bench::new();
    bench.receive(&format!(
        "INVITE sip:+15550100@203.0.113.1 SIP/2.0\r\nv: SIP/2.0/UDP\r\n {PEER};branch=z9hG4bKc\r\n\
         Max-Forwards: 70\r\nf: \"A\"\r\n <sip:alice@carrier.example>;tag=a1\r\n\
         t: <sip:+15550100@203.0.113.1>\r\ni: c-1\r\nCSeq: 1 INVITE\r\nm: <sip:alice@{PEER}>\r\n\
         c: application/sdp\r\nk: timer\r\n\r\n{OFFER}"
    ));
    let AgentEvent::Invite { leg, request, .. } = bench.event() else {
        panic!("an INVITE event");
    };
    assert_eq!(
        &request.body()[..],
        OFFER.as_bytes(),
        "the body runs to the datagram's end"
    );
    bench
        .agent
        .reject(bench.now, leg, 486, Some("Am Telefon"), vec![])
        .expect("rejects");
    let busy = bench.sent_one();
    assert!(busy.text.starts_with("SIP/2.0 486 Am Telefon\r\n"));
    assert!(
        busy.header(HeaderName::From)
            .ends_with("<sip:alice@carrier.example>;tag=a1")
    );
}

#[test]
fn options_and_info_inside_a_dialog_are_answered_without_the_call_machine() {
    let mut bench = Bench::new();
    let (_, tag) = bench.incoming_confirmed();
    for (cseq, text, label) in [
        (
            2,
            in_dialog("OPTIONS", "in-1", 2, "z9hG4bK2", &tag, ""),
            "200 OPTIONS",
        ),
        (
            3,
            in_dialog("INFO", "in-1", 3, "z9hG4bK3", &tag, ""),
            "200 INFO",
        ),
        (
            4,
            in_dialog("INFO", "in-1", 4, "z9hG4bK4", &tag, "Signal=5"),
            "415 INFO",
        ),
        (
            5,
            in_dialog("PUBLISH", "in-1", 5, "z9hG4bK5", &tag, ""),
            "405 PUBLISH",
        ),
        (
            6,
            in_dialog("PRACK", "in-1", 6, "z9hG4bK6", &tag, ""),
            "400 PRACK",
        ),
        (
            7,
            in_dialog("FROBNICATE", "in-1", 7, "z9hG4bK7", &tag, ""),
            "501 FROBNICATE",
        ),
    ] {
        bench.receive(&text);
        assert_eq!(bench.sent_one().label(), label, "{cseq}");
    }
    assert!(bench.events().is_empty());
}

#[test]
fn request_that_demands_an_option_inside_a_dialog_gets_420() {
    let mut bench = Bench::new();
    let (_, tag) = bench.incoming_confirmed();
    let update = in_dialog("UPDATE", "in-1", 2, "z9hG4bK2", &tag, OFFER);
    bench.receive(&update.replace("Max-Forwards", "Require: precondition\r\nMax-Forwards"));
    assert_eq!(bench.sent_one().label(), "420 UPDATE");
    assert!(bench.events().is_empty());
}

#[test]
fn request_out_of_order_gets_500_and_changes_nothing() {
    let mut bench = Bench::new();
    let (_, tag) = bench.incoming_confirmed();
    bench.receive(&in_dialog("OPTIONS", "in-1", 9, "z9hG4bK9", &tag, ""));
    assert_eq!(bench.sent_one().label(), "200 OPTIONS");
    for (cseq, branch) in [(8, "z9hG4bK8"), (9, "z9hG4bK9b")] {
        bench.receive(&in_dialog("BYE", "in-1", cseq, branch, &tag, ""));
        assert_eq!(bench.sent_one().label(), "500 BYE");
    }
    assert!(bench.events().is_empty());
    bench.receive(&in_dialog("BYE", "in-1", 10, "z9hG4bK10", &tag, ""));
    assert_eq!(bench.sent_one().label(), "200 BYE");
    assert_eq!(ended_by(&bench.event()), EndedBy::Bye);
    bench.assert_nothing_is_left();
}

#[test]
fn dialog_is_found_only_where_tags_and_call_id_agree() {
    let mut bench = Bench::new();
    let (_, tag) = bench.incoming_confirmed();
    let bye = in_dialog("BYE", "in-1", 2, "z9hG4bKb", &tag, "");
    for other in [
        bye.replace(&tag, "0123456789abcdef"),
        bye.replace(&tag, "x"),
        bye.replace("tag=a1", "tag=a2"),
        bye.replace(";tag=a1", ""),
        bye.replace("Call-ID: in-1", "Call-ID: in-2"),
    ] {
        bench.receive(&other);
        assert_eq!(bench.sent_one().label(), "481 BYE", "{other}");
    }
    assert_eq!(bench.agent.counters().dialogs_unknown, 5);
    assert!(bench.events().is_empty());
    bench.receive(&bye);
    assert_eq!(bench.sent_one().label(), "200 BYE");
}

#[test]
fn stray_ack_and_stray_response_are_counted_and_not_answered() {
    let mut bench = Bench::new();
    bench.receive(&in_dialog(
        "ACK",
        "in-9",
        1,
        "z9hG4bKa",
        "0123456789abcdef",
        "",
    ));
    bench.receive(&request("ACK", ""));
    let mut other = Bench::new();
    let (_, invite) = other.outgoing();
    bench.receive(&reply(&invite, 180, "b1", ""));
    bench.receive(&reply(&invite, 486, "b1", ""));
    assert!(bench.sent().is_empty());
    assert_eq!(bench.agent.counters().acks_unmatched, 2);
    assert_eq!(bench.agent.counters().responses_unmatched, 2);
    bench.assert_nothing_is_left();
}

#[test]
fn full_table_answers_503_but_serves_its_dialogs() {
    let config = AgentConfig {
        transactions_max: 4,
        ..AgentConfig::default()
    };
    let mut bench = Bench::with(config);
    let (_, tag) = bench.incoming_confirmed();
    for index in 0..3 {
        bench.receive(&request("OPTIONS", "").replace("OPTIONS1", &format!("o{index}")));
        assert!(matches!(bench.event(), AgentEvent::Request { .. }));
    }
    for text in [
        request("OPTIONS", ""),
        request("REGISTER", ""),
        invite("in-2", "z9hG4bKsecond", OFFER),
    ] {
        bench.receive(&text);
        let refusal = bench.sent_one();
        assert!(refusal.label().starts_with("503"), "{}", refusal.label());
        assert_eq!(refusal.header(HeaderName::RetryAfter), "5");
    }
    assert_eq!(
        bench.agent.invite(bench.now, invite_request(udp_flow())),
        Err(InviteError::Overloaded)
    );
    assert_eq!(bench.agent.counters().refused_overload, 3);
    assert_eq!(bench.agent.transactions_len(), 4);
    // The call that stands is served: its hold, and beyond the quarter at least its BYE.
    bench.receive(&in_dialog("INVITE", "in-1", 2, "z9hG4bKr", &tag, OFFER));
    assert!(matches!(bench.event(), AgentEvent::Offer { .. }));
    bench.receive(&in_dialog("BYE", "in-1", 3, "z9hG4bKb", &tag, ""));
    let sent = labels(&bench.sent());
    assert!(sent.contains(&"200 BYE".to_owned()), "{sent:?}");
    assert_eq!(ended_by(&bench.event()), EndedBy::Bye);
    bench.assert_nothing_is_left();
}

#[test]
fn full_house_refuses_calls_until_one_ends() {
    let config = AgentConfig {
        legs_max: 1,
        ..AgentConfig::default()
    };
    let mut bench = Bench::with(config);
    let (leg, _) = bench.incoming();
    bench.receive(&invite("in-2", "z9hG4bKsecond", OFFER));
    assert_eq!(bench.sent_one().label(), "503 INVITE");
    bench
        .agent
        .reject(bench.now, leg, 486, None, Vec::new())
        .expect("rejects");
    bench.receive(&invite("in-3", "z9hG4bKthird", OFFER));
    assert_eq!(bench.events().len(), 2, "an end and a new call");
}

#[test]
fn flood_inside_one_dialog_is_bounded() {
    let mut bench = Bench::new();
    let (leg, tag) = bench.incoming_confirmed();
    for cseq in 2..202 {
        bench.receive(&in_dialog(
            "INFO",
            "in-1",
            cseq,
            &format!("z9hG4bK{cseq}"),
            &tag,
            "",
        ));
    }
    let sent = labels(&bench.sent());
    assert!(bench.agent.transactions_len() <= 64);
    assert_eq!(
        sent.iter().filter(|label| *label == "503 INFO").count(),
        137
    );
    bench.agent.hangup(bench.now, leg, None).expect("hangs up");
    bench.events();
    bench.assert_nothing_is_left();
}

#[test]
fn what_goes_in_and_out_is_counted_by_method_and_class() {
    let mut bench = Bench::new();
    let (_, tag) = bench.incoming_confirmed();
    bench.receive(&in_dialog("BYE", "in-1", 2, "z9hG4bKb", &tag, ""));
    bench.receive(&in_dialog("BYE", "in-1", 2, "z9hG4bKb", &tag, ""));
    let counters = bench.agent.counters();
    assert_eq!(counters.requests_received.get(&Method::Invite), 1);
    assert_eq!(counters.requests_received.get(&Method::Ack), 1);
    assert_eq!(counters.requests_received.get(&Method::Bye), 2);
    assert_eq!(counters.responses_sent.get(&Method::Invite, 2), 1);
    assert_eq!(counters.responses_sent.get(&Method::Bye, 2), 1);
    assert_eq!(counters.retransmissions_sent, 1);
    assert_eq!(
        counters
            .requests_received
            .iter()
            .map(|(_, count)| count)
            .sum::<u64>(),
        4
    );
}

#[test]
fn nothing_of_one_leg_appears_on_the_other() {
    let mut bench = Bench::new();
    let caller = invite("caller-call-id", "z9hG4bKcaller", OFFER)
        .replace("Max-Forwards", "X-Secret: caller\r\nMax-Forwards");
    bench.receive(&caller);
    bench.events();
    let (_, callee) = bench.outgoing();
    for secret in [
        "caller-call-id",
        "z9hG4bKcaller",
        "tag=a1",
        "X-Secret",
        "carrier.example",
    ] {
        assert!(!callee.text.contains(secret), "{secret}");
    }
}

#[test]
fn headers_of_the_user_cannot_replace_those_of_the_agent() {
    let mut bench = Bench::new();
    let mut request = invite_request(udp_flow());
    request.headers = vec![
        Header::build(HeaderName::CallId, "mine").expect("valid"),
        Header::build(HeaderName::ContentLength, "9").expect("valid"),
        Header::build(HeaderName::PAssertedIdentity, "<sip:+15550100@h>").expect("valid"),
    ];
    bench.agent.invite(bench.now, request).expect("sends");
    let invite = bench.sent_one();
    assert_eq!(invite.headers(HeaderName::CallId).len(), 1);
    assert_ne!(invite.header(HeaderName::CallId), "mine");
    assert_eq!(invite.headers(HeaderName::ContentLength).len(), 1);
    assert_eq!(
        invite.header(HeaderName::PAssertedIdentity),
        "<sip:+15550100@h>"
    );
}
