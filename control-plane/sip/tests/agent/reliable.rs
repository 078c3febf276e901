//! A caller's leg before its answer: reliable provisional responses (RFC 3262), UPDATE (RFC 3311),
//! late offers.

use sipx_sip::HeaderName;
use trunkline_sip::{AgentEvent, EndedBy, LegError, SipLegId};

use crate::support::*;

pub(crate) const THEIRS: &str = "v=0\r\no=peer 1 2 IN IP4 198.51.100.9\r\n";
pub(crate) const OURS: &str = "v=0\r\no=us 1 2 IN IP4 203.0.113.1\r\n";

/// Puts header lines before the end of a head.
pub(crate) fn with(text: &str, lines: &str) -> String {
    text.replacen("Contact:", &format!("{lines}Contact:"), 1)
}

/// A caller that understands 100rel and UPDATE.
fn called(bench: &mut Bench, sdp: &str, lines: &str) -> SipLegId {
    let allow = format!("{lines}Allow: INVITE, ACK, BYE, CANCEL, UPDATE, PRACK\r\n");
    bench.receive(&with(&invite("in-1", "z9hG4bKinvite", sdp), &allow));
    let AgentEvent::Invite { leg, .. } = bench.event() else {
        panic!("an INVITE");
    };
    leg
}

fn ringing(bench: &mut Bench, sdp: &str, early: Option<&str>) -> (SipLegId, Sent) {
    let leg = called(bench, sdp, "Supported: timer, 100rel\r\n");
    bench
        .agent
        .provisional(bench.now, leg, 183, early.map(body))
        .expect("rings");
    let sent = bench.sent_one();
    assert_eq!(sent.label(), "183 INVITE");
    (leg, sent)
}

fn is_reliable(sent: &Sent) -> bool {
    sent.header(HeaderName::Require) == "100rel" && !sent.header(HeaderName::RSeq).is_empty()
}

fn prack_with(reliable: &Sent, cseq: u32, rack: &str, sdp: &str) -> String {
    let tag = reliable.tag(HeaderName::To);
    let plain = in_dialog("PRACK", "in-1", cseq, &format!("z9hG4bKp{cseq}"), &tag, sdp);
    with(&plain, &format!("RAck: {rack}\r\n"))
}

fn prack(reliable: &Sent, cseq: u32, sdp: &str) -> String {
    let rack = format!("{} 1 INVITE", reliable.header(HeaderName::RSeq));
    prack_with(reliable, cseq, &rack, sdp)
}

fn update(reliable: &Sent, cseq: u32, sdp: &str) -> String {
    let tag = reliable.tag(HeaderName::To);
    in_dialog(
        "UPDATE",
        "in-1",
        cseq,
        &format!("z9hG4bKu{cseq}"),
        &tag,
        sdp,
    )
}

/// Ends the call of `leg` and looks that nothing is left.
pub(crate) fn finish(mut bench: Bench, leg: SipLegId) {
    bench.agent.hangup(bench.now, leg, None).expect("lives");
    bench.sent();
    bench.events();
    bench.assert_nothing_is_left();
}

#[test]
fn reliable_response_is_repeated_with_doubling_waits_until_its_prack() {
    let mut bench = Bench::new();
    let (leg, first) = ringing(&mut bench, OFFER, None);
    assert!(is_reliable(&first));
    let mut waits = Vec::new();
    for wait in [500, 1_000, 2_000, 4_000, 8_000] {
        bench.advance(wait - 1);
        assert!(bench.sent().is_empty());
        bench.advance(1);
        waits.push(bench.sent_one().text);
    }
    assert!(waits.iter().all(|copy| *copy == first.text));
    let prack = prack(&first, 2, "");
    bench.receive(&prack);
    assert_eq!(bench.sent_one().label(), "200 PRACK");
    bench.advance(40_000);
    assert!(bench.sent().is_empty());
    finish(bench, leg);
}

#[test]
fn copy_of_a_prack_is_answered_alike_and_a_stray_one_with_481() {
    let mut bench = Bench::new();
    let (leg, first) = ringing(&mut bench, OFFER, None);
    let rseq: u32 = first.header(HeaderName::RSeq).parse().expect("a number");
    for (cseq, rack, label) in [
        (2, format!("{} 1 INVITE", rseq + 1), "481 PRACK"),
        (3, format!("{rseq} 2 INVITE"), "481 PRACK"),
        (4, format!("{rseq} 1 UPDATE"), "481 PRACK"),
        (5, "x".to_owned(), "400 PRACK"),
        (6, format!("{rseq} 1 INVITE"), "200 PRACK"),
        (6, format!("{rseq} 1 INVITE"), "200 PRACK"),
        (7, format!("{rseq} 1 INVITE"), "481 PRACK"),
    ] {
        bench.receive(&prack_with(&first, cseq, &rack, ""));
        assert_eq!(bench.sent_one().label(), label, "{rack}");
    }
    finish(bench, leg);
}

#[test]
fn response_nobody_acknowledges_ends_the_call_with_504() {
    let mut bench = Bench::new();
    let (_, first) = ringing(&mut bench, OFFER, None);
    bench.advance(31_999);
    assert!(bench.sent().iter().all(|sent| sent.text == first.text));
    assert!(bench.events().is_empty());
    bench.advance(1);
    assert_eq!(labels(&bench.sent()), ["504 INVITE"]);
    assert_eq!(ended_by(&bench.event()), EndedBy::PrackTimeout);
    bench.assert_nothing_is_left();
}

#[test]
fn responses_wait_for_the_prack_before_them_and_the_last_of_them_counts() {
    let mut bench = Bench::new();
    let (leg, first) = ringing(&mut bench, OFFER, None);
    for (status, sdp) in [(180, Some(ANSWER)), (181, None), (182, None)] {
        bench
            .agent
            .provisional(bench.now, leg, status, sdp.map(body))
            .expect("waits");
    }
    assert!(bench.sent().is_empty());
    bench.receive(&prack(&first, 2, ""));
    let sent = bench.sent();
    assert_eq!(labels(&sent), ["200 PRACK", "182 INVITE"]);
    assert_eq!(sent[1].body(), ANSWER);
    let numbers = [&first, &sent[1]].map(|sent| {
        let number: u32 = sent.header(HeaderName::RSeq).parse().expect("a number");
        number
    });
    assert_eq!(numbers[1], numbers[0] + 1);
    finish(bench, leg);
}

#[test]
fn answer_waits_for_the_prack_and_describes_nothing_twice() {
    let mut bench = Bench::new();
    let (leg, first) = ringing(&mut bench, OFFER, Some(ANSWER));
    assert_eq!(first.body(), ANSWER);
    bench
        .agent
        .answer(bench.now, leg, body(ANSWER))
        .expect("waits");
    assert!(bench.sent().is_empty());
    assert_eq!(
        bench.agent.answer(bench.now, leg, body(ANSWER)),
        Err(LegError::WrongState)
    );
    assert_eq!(
        bench.agent.provisional(bench.now, leg, 180, None),
        Err(LegError::WrongState)
    );
    bench.receive(&prack(&first, 2, ""));
    let sent = bench.sent();
    assert_eq!(labels(&sent), ["200 PRACK", "200 INVITE"]);
    assert_eq!(sent[1].body(), "");
    let tag = first.tag(HeaderName::To);
    bench.receive(&in_dialog("ACK", "in-1", 1, "z9hG4bKack", &tag, ""));
    assert!(matches!(
        bench.event(),
        AgentEvent::Confirmed { sdp: None, .. }
    ));
    finish(bench, leg);
}

#[test]
fn reliability_is_for_the_caller_to_choose() {
    for (lines, reliable) in [
        ("", false),
        ("Supported: timer\r\n", false),
        ("k: 100rel\r\n", true),
        ("Require: 100rel\r\n", true),
    ] {
        let mut bench = Bench::new();
        let leg = called(&mut bench, OFFER, lines);
        bench
            .agent
            .provisional(bench.now, leg, 180, None)
            .expect("rings");
        assert_eq!(is_reliable(&bench.sent_one()), reliable, "{lines:?}");
        bench
            .agent
            .reject(bench.now, leg, 486, None, Vec::new())
            .expect("rings");
        assert_eq!(bench.sent_one().label(), "486 INVITE");
        bench.event();
        bench.assert_nothing_is_left();
    }
}

#[test]
fn caller_that_hangs_up_while_a_response_is_out_leaves_nothing() {
    for method in ["CANCEL", "BYE"] {
        let mut bench = Bench::new();
        let (_, first) = ringing(&mut bench, OFFER, Some(ANSWER));
        bench.receive(&prack(&first, 2, THEIRS));
        bench.event();
        let tag = first.tag(HeaderName::To);
        bench.receive(&match method {
            "CANCEL" => cancel_of(&invite("in-1", "z9hG4bKinvite", OFFER)),
            _ => in_dialog("BYE", "in-1", 3, "z9hG4bKbye", &tag, ""),
        });
        let labels = labels(&bench.sent());
        assert!(labels.contains(&"487 INVITE".to_owned()), "{labels:?}");
        assert!(labels.contains(&"487 PRACK".to_owned()), "{labels:?}");
        bench.event();
        bench.assert_nothing_is_left();
    }
}

#[test]
fn offer_of_ours_in_a_reliable_response_is_answered_in_its_prack() {
    let mut bench = Bench::new();
    let (leg, first) = ringing(&mut bench, "", Some(OURS));
    assert!(is_reliable(&first));
    assert_eq!(first.body(), OURS);
    bench.receive(&prack(&first, 2, THEIRS));
    assert_eq!(bench.sent_one().label(), "200 PRACK");
    let AgentEvent::AnswerInPrack { sdp, .. } = bench.event() else {
        panic!("an answer");
    };
    assert_eq!(sdp, THEIRS);
    bench
        .agent
        .answer(bench.now, leg, body(OURS))
        .expect("answers");
    assert_eq!(bench.sent_one().body(), "");
    let tag = first.tag(HeaderName::To);
    bench.receive(&in_dialog("ACK", "in-1", 1, "z9hG4bKack", &tag, THEIRS));
    assert!(matches!(
        bench.event(),
        AgentEvent::Confirmed { sdp: None, .. }
    ));
    finish(bench, leg);
}

#[test]
fn caller_that_offers_nothing_and_cannot_acknowledge_is_offered_in_the_2xx() {
    let mut bench = Bench::new();
    let leg = called(&mut bench, "", "");
    bench
        .agent
        .provisional(bench.now, leg, 183, Some(body(OURS)))
        .expect("rings");
    assert_eq!(
        bench.sent_one().body(),
        "",
        "an offer that may be lost is none"
    );
    bench
        .agent
        .answer(bench.now, leg, body(OURS))
        .expect("answers");
    let ok = bench.sent_one();
    assert_eq!(ok.body(), OURS);
    let tag = ok.tag(HeaderName::To);
    bench.receive(&in_dialog("ACK", "in-1", 1, "z9hG4bKack", &tag, THEIRS));
    let AgentEvent::Confirmed { sdp: Some(sdp), .. } = bench.event() else {
        panic!("an answer");
    };
    assert_eq!(sdp, THEIRS);
    finish(bench, leg);
}

#[test]
fn ringing_without_our_offer_is_not_sent_reliably_to_who_made_none() {
    let mut bench = Bench::new();
    let (leg, first) = ringing(&mut bench, "", None);
    assert!(!is_reliable(&first));
    finish(bench, leg);
}

#[test]
fn offer_in_a_prack_is_answered_or_refused_in_its_response() {
    for accepts in [true, false] {
        let mut bench = Bench::new();
        let (leg, first) = ringing(&mut bench, OFFER, Some(ANSWER));
        bench.receive(&prack(&first, 2, THEIRS));
        assert!(bench.sent().is_empty());
        let AgentEvent::Offer { sdp, .. } = bench.event() else {
            panic!("an offer");
        };
        assert_eq!(sdp, THEIRS);
        if accepts {
            bench
                .agent
                .accept_offer(bench.now, leg, body(OURS))
                .expect("waits");
            let ok = bench.sent_one();
            assert_eq!(
                (ok.label().as_str(), ok.body().as_str()),
                ("200 PRACK", OURS)
            );
        } else {
            bench
                .agent
                .reject_offer(bench.now, leg, 488)
                .expect("waits");
            assert_eq!(bench.sent_one().label(), "488 PRACK");
        }
        assert_eq!(
            bench.agent.accept_offer(bench.now, leg, body(OURS)),
            Err(LegError::WrongState)
        );
        finish(bench, leg);
    }
}

#[test]
fn update_before_the_first_exchange_is_over_is_refused_as_rfc_3311_has_it() {
    // Our answer is not out yet.
    let mut bench = Bench::new();
    let (leg, first) = ringing(&mut bench, OFFER, None);
    bench.receive(&update(&first, 2, THEIRS));
    let refused = bench.sent_one();
    assert_eq!(refused.label(), "500 UPDATE");
    let wait: u32 = refused
        .header(HeaderName::RetryAfter)
        .parse()
        .expect("a number");
    assert!(wait <= 10);
    finish(bench, leg);

    // Our own offer is open.
    let mut bench = Bench::new();
    let (leg, first) = ringing(&mut bench, "", Some(OURS));
    bench.receive(&update(&first, 2, THEIRS));
    assert_eq!(bench.sent_one().label(), "491 UPDATE");
    finish(bench, leg);
}

#[test]
fn update_before_the_answer_is_an_offer_once_the_first_is_settled() {
    let mut bench = Bench::new();
    let (leg, first) = ringing(&mut bench, OFFER, Some(ANSWER));
    bench.receive(&prack(&first, 2, ""));
    bench.sent();
    bench.receive(&update(&first, 3, THEIRS));
    assert!(matches!(bench.event(), AgentEvent::Offer { .. }));
    bench.receive(&update(&first, 4, THEIRS));
    assert_eq!(bench.sent_one().label(), "500 UPDATE");
    bench
        .agent
        .accept_offer(bench.now, leg, body(OURS))
        .expect("waits");
    let ok = bench.sent_one();
    assert_eq!(
        (ok.label().as_str(), ok.body().as_str()),
        ("200 UPDATE", OURS)
    );
    // One that nobody answers before the call is.
    bench.receive(&update(&first, 5, THEIRS));
    bench.event();
    bench
        .agent
        .answer(bench.now, leg, body(OURS))
        .expect("answers");
    assert_eq!(labels(&bench.sent()), ["491 UPDATE", "200 INVITE"]);
    finish(bench, leg);
}

#[test]
fn our_update_before_the_answer_holds_the_answer_back() {
    for status in [200, 488, 408] {
        let mut bench = Bench::new();
        let (leg, first) = ringing(&mut bench, OFFER, None);
        assert_eq!(
            bench.agent.reinvite(bench.now, leg, body(OURS)),
            Err(LegError::WrongState),
            "our answer is not out yet"
        );
        bench.receive(&prack(&first, 2, ""));
        bench
            .agent
            .provisional(bench.now, leg, 183, Some(body(ANSWER)))
            .expect("rings");
        let second = bench.sent().pop().expect("183");
        bench.receive(&prack(&second, 3, ""));
        bench.sent();
        bench
            .agent
            .reinvite(bench.now, leg, body(OURS))
            .expect("settled");
        let ours = bench.sent_one();
        assert_eq!(
            (ours.label().as_str(), ours.body().as_str()),
            ("UPDATE", OURS)
        );
        assert_eq!(
            bench.agent.reinvite(bench.now, leg, body(OURS)),
            Err(LegError::OfferPending)
        );
        bench.receive(&update(&second, 4, THEIRS));
        assert_eq!(bench.sent_one().label(), "491 UPDATE", "they cross");
        bench
            .agent
            .answer(bench.now, leg, body(OURS))
            .expect("waits");
        assert!(bench.sent().is_empty());
        match status {
            408 => bench.advance(32_000),
            _ => bench.receive(&reply(
                &ours,
                status,
                "a1",
                if status == 200 { THEIRS } else { "" },
            )),
        }
        let sent = bench.sent();
        assert_eq!(sent.last().expect("the answer").label(), "200 INVITE");
        let AgentEvent::OfferAnswered { result, .. } = bench.event() else {
            panic!("an outcome");
        };
        match status {
            200 => assert_eq!(result, Ok(body(THEIRS))),
            _ => assert_eq!(result, Err(status)),
        }
        finish(bench, leg);
    }
}

#[test]
fn update_is_not_sent_to_a_caller_that_does_not_take_it() {
    let mut bench = Bench::new();
    let text = with(
        &invite("in-1", "z9hG4bKinvite", OFFER),
        "Supported: 100rel\r\n",
    );
    bench.receive(&text);
    let AgentEvent::Invite { leg, .. } = bench.event() else {
        panic!("an INVITE");
    };
    bench
        .agent
        .provisional(bench.now, leg, 183, Some(body(ANSWER)))
        .expect("rings");
    let first = bench.sent_one();
    bench.receive(&prack(&first, 2, ""));
    bench.sent();
    assert_eq!(
        bench.agent.reinvite(bench.now, leg, body(OURS)),
        Err(LegError::WrongState)
    );
    finish(bench, leg);
}
