//! Digits in INFO requests, both ways.

use sipx_sip::HeaderName;
use trunkline_edge_api::Digit;
use trunkline_sip::{AgentEvent, InfoDigit, LegError};

use crate::support::*;

/// An INFO of the peer in the dialog of [`Bench::incoming_confirmed`].
fn info(cseq: u32, tag: &str, head: &str, text: &str) -> String {
    in_dialog("INFO", "in-1", cseq, &format!("z9hG4bK{cseq}"), tag, "").replace(
        "Content-Length: 0\r\n\r\n",
        &format!("{head}Content-Length: {}\r\n\r\n{text}", text.len()),
    )
}

fn digit(symbol: char) -> InfoDigit {
    InfoDigit {
        digit: Digit::from_char(symbol).expect("a DTMF signal"),
        duration_millis: 160,
    }
}

#[test]
fn digit_of_the_peer_is_answered_and_told_once() {
    let mut bench = Bench::new();
    let (leg, tag) = bench.incoming_confirmed();
    let relay = "Content-Type: application/dtmf-relay\r\n";
    let text = info(2, &tag, relay, "Signal=5\r\nDuration=200\r\n");
    bench.receive(&text);
    bench.receive(&text);
    assert_eq!(labels(&bench.sent()), ["200 INFO", "200 INFO"]);
    match bench.event() {
        AgentEvent::Digit { leg: heard, digit } => {
            assert_eq!(heard, leg);
            assert_eq!((digit.digit.as_char(), digit.duration_millis), ('5', 200));
        }
        other => panic!("a digit, not {other:?}"),
    }
    let plain = "Content-Type: application/dtmf\r\n";
    bench.receive(&info(3, &tag, plain, "#"));
    assert_eq!(bench.sent_one().label(), "200 INFO");
    assert!(matches!(bench.event(), AgentEvent::Digit { .. }));
}

#[test]
fn what_is_no_digit_is_refused_and_says_what_would_be_taken() {
    let mut bench = Bench::new();
    let (_, tag) = bench.incoming_confirmed();
    let relay = "Content-Type: application/dtmf-relay\r\n";
    let rows = [
        (relay, "Signal=16\r\n", "400 INFO", ""),
        (
            "Content-Type: application/media_control+xml\r\n",
            "<x/>",
            "415 INFO",
            "application/dtmf-relay, application/dtmf",
        ),
        (
            "",
            "Signal=5",
            "415 INFO",
            "application/dtmf-relay, application/dtmf",
        ),
    ];
    for (cseq, (head, text, label, accept)) in (2..).zip(rows) {
        bench.receive(&info(cseq, &tag, head, text));
        let sent = bench.sent_one();
        assert_eq!(sent.label(), label);
        assert_eq!(sent.header(HeaderName::Accept), accept);
        assert!(bench.events().is_empty(), "nothing is told of {text:?}");
    }
}

#[test]
fn info_package_is_refused_with_the_empty_list_of_those_we_take() {
    let mut bench = Bench::new();
    let (_, tag) = bench.incoming_confirmed();
    let head = "Info-Package: trunkline-test\r\nContent-Type: application/dtmf-relay\r\n";
    bench.receive(&info(2, &tag, head, "Signal=5"));
    let sent = bench.sent_one();
    assert_eq!(sent.label(), "469 INFO");
    assert!(sent.text.contains("\r\nRecv-Info:"), "{}", sent.text);
    assert!(bench.events().is_empty());
}

#[test]
fn digits_leave_in_order_each_after_the_answer_to_the_one_before() {
    let mut bench = Bench::new();
    let (leg, invite) = bench.outgoing_confirmed();
    for symbol in "1#9".chars() {
        bench
            .agent
            .send_digit(bench.now, leg, digit(symbol))
            .expect("the session stands");
    }
    let mut cseq_last = 1;
    for (symbol, status) in "1#9".chars().zip([200, 415, 200]) {
        let sent = bench.sent_one();
        assert_eq!(sent.label(), "INFO");
        assert_eq!(sent.body(), format!("Signal={symbol}\r\nDuration=160\r\n"));
        assert_eq!(
            sent.header(HeaderName::ContentType),
            "application/dtmf-relay"
        );
        assert_eq!(
            sent.header(HeaderName::CallId),
            invite.header(HeaderName::CallId)
        );
        let cseq: u32 = sent
            .header(HeaderName::CSeq)
            .split(' ')
            .next()
            .and_then(|number| number.parse().ok())
            .expect("a number");
        assert_eq!(cseq, cseq_last + 1);
        cseq_last = cseq;
        bench.receive(&reply(&sent, status, "b1", ""));
    }
    assert!(bench.sent().is_empty());
    bench.agent.hangup(bench.now, leg, None).expect("hangs up");
    bench.events();
    bench.assert_nothing_is_left();
}

#[test]
fn silence_of_the_peer_costs_one_digit_and_not_the_rest() {
    let mut bench = Bench::new();
    let (leg, _) = bench.outgoing_confirmed();
    for symbol in "12".chars() {
        bench
            .agent
            .send_digit(bench.now, leg, digit(symbol))
            .expect("the session stands");
    }
    bench.sent();
    bench.advance(32_000);
    let sent = bench.sent();
    let last = sent.last().expect("the second digit");
    assert!(last.body().starts_with("Signal=2"), "{}", last.text);
    assert!(bench.events().is_empty(), "the call goes on");
}

#[test]
fn digits_that_nobody_answers_are_bounded() {
    let mut bench = Bench::new();
    let (leg, _) = bench.outgoing_confirmed();
    let mut send = || bench.agent.send_digit(bench.now, leg, digit('1'));
    let taken = (0..200).filter(|_| send().is_ok()).count();
    assert_eq!(taken, 65, "one on its way and 64 that wait");
    assert_eq!(send(), Err(LegError::TooManyDigits));
    assert_eq!(labels(&bench.sent()), ["INFO"]);
    bench.agent.hangup(bench.now, leg, None).expect("hangs up");
    bench.events();
    bench.assert_nothing_is_left();
}

#[test]
fn digit_before_the_session_stands_is_refused() {
    let mut bench = Bench::new();
    let (leg, _) = bench.outgoing();
    assert_eq!(
        bench.agent.send_digit(bench.now, leg, digit('1')),
        Err(LegError::WrongState)
    );
}
