//! A callee's leg before its answer: the branches of a forked INVITE, their reliable provisional
//! responses (RFC 3262) and offers (RFC 3311), and 2xx responses that make an offer.

use sipx_sip::HeaderName;
use trunkline_sip::{AgentEvent, InviteRequest, LegError, SipLegId};

use crate::reliable::{OURS, THEIRS, finish, with};
use crate::support::*;

fn calling_late(bench: &mut Bench) -> (SipLegId, Sent) {
    let request = InviteRequest {
        offer: bytes::Bytes::new(),
        ..invite_request(bench.flow.clone())
    };
    let leg = bench.agent.invite(bench.now, request).expect("sends");
    let invite = bench.sent_one();
    assert!(invite.headers(HeaderName::ContentType).is_empty());
    (leg, invite)
}

/// A reliable response of the branch `tag`.
fn reliable(invite: &Sent, status: u16, tag: &str, rseq: u32, sdp: &str) -> String {
    let lines = format!(
        "Require: 100rel\r\nRSeq: {rseq}\r\nAllow: INVITE, UPDATE\r\n\
         Record-Route: <sip:198.51.100.40;lr;{tag}>\r\n"
    );
    with(&reply(invite, status, tag, sdp), &lines)
}

/// An UPDATE of the branch `tag`.
fn branch_update(invite: &Sent, cseq: u32, tag: &str, sdp: &str) -> String {
    let text = from_callee(invite, "UPDATE", cseq, &format!("z9hG4bK{tag}{cseq}"), sdp);
    text.replace("tag=b1", &format!("tag={tag}"))
}

fn progress(event: &AgentEvent) -> (u16, u8, Option<String>) {
    match event {
        AgentEvent::Progress {
            status, fork, sdp, ..
        } => {
            let sdp = sdp
                .as_ref()
                .map(|sdp| String::from_utf8_lossy(sdp).into_owned());
            (*status, *fork, sdp)
        }
        other => panic!("progress, not {other:?}"),
    }
}

#[test]
fn reliable_response_is_acknowledged_once_in_its_early_dialog() {
    let mut bench = Bench::new();
    let (leg, invite) = bench.outgoing();
    assert!(invite.header(HeaderName::Supported).contains("100rel"));
    let ringing = reliable(&invite, 183, "b1", 77, THEIRS);
    bench.receive(&ringing);
    let prack = bench.sent_one();
    assert_eq!(prack.label(), "PRACK");
    assert_eq!(prack.header(HeaderName::RAck), "77 1 INVITE");
    assert_eq!(prack.request_uri(), format!("sip:bob@{PEER}"));
    assert_eq!(
        prack.headers(HeaderName::Route),
        ["<sip:198.51.100.40;lr;b1>"]
    );
    assert!(prack.header(HeaderName::To).ends_with(";tag=b1"));
    assert_eq!(prack.transmit.flow.remote.to_string(), "198.51.100.40:5060");
    assert_eq!(progress(&bench.event()), (183, 0, Some(THEIRS.to_owned())));
    // A copy, and one whose forerunner is lost.
    bench.receive(&ringing);
    bench.receive(&reliable(&invite, 180, "b1", 79, ""));
    assert!(bench.sent().is_empty() && bench.events().is_empty());
    bench.receive(&reliable(&invite, 180, "b1", 78, ""));
    assert_eq!(bench.sent_one().header(HeaderName::RAck), "78 1 INVITE");
    assert_eq!(progress(&bench.event()), (180, 0, None));
    // The exchange is over: what the 2xx describes is not heard.
    bench.receive(&reply(&invite, 200, "b1", OFFER));
    let AgentEvent::Answered { fork: 0, sdp, .. } = bench.event() else {
        panic!("an answer");
    };
    assert_eq!(sdp.as_deref(), Some(THEIRS.as_bytes()));
    finish(bench, leg);
}

#[test]
fn lost_prack_is_repeated_by_its_transaction() {
    let mut bench = Bench::new();
    let (leg, invite) = bench.outgoing();
    let ringing = reliable(&invite, 183, "b1", 1, THEIRS);
    bench.receive(&ringing);
    let prack = bench.sent_one();
    bench.advance(500);
    assert_eq!(bench.sent_one().text, prack.text);
    bench.receive(&ringing);
    assert!(bench.sent().is_empty());
    bench.receive(&reply(&prack, 200, "b1", ""));
    bench.advance(60_000);
    assert!(bench.sent().is_empty());
    bench.events();
    finish(bench, leg);
}

#[test]
fn number_without_require_is_an_ordinary_response() {
    let mut bench = Bench::new();
    let (leg, invite) = bench.outgoing();
    bench.receive(&with(&reply(&invite, 183, "b1", THEIRS), "RSeq: 5\r\n"));
    assert!(bench.sent().is_empty());
    bench.event();
    finish(bench, leg);
}

#[test]
fn forked_responses_are_reported_apart_and_acknowledged_each_in_its_dialog() {
    let mut bench = Bench::new();
    let (leg, invite) = bench.outgoing();
    bench.receive(&reply(&invite, 183, "b1", OFFER));
    bench.receive(&reliable(&invite, 183, "b2", 9, THEIRS));
    bench.receive(&reply(&invite, 180, "b1", ""));
    let seen: Vec<_> = bench.events().iter().map(progress).collect();
    assert_eq!(
        seen,
        [
            (183, 0, Some(OFFER.to_owned())),
            (183, 1, Some(THEIRS.to_owned())),
            (180, 0, None)
        ]
    );
    let prack = bench.sent_one();
    assert!(prack.header(HeaderName::To).ends_with(";tag=b2"));
    // The first branch answers without a description: its early one stands.
    bench.receive(&reply(&invite, 200, "b1", ""));
    let ack = bench.sent_one();
    assert!(ack.header(HeaderName::To).ends_with(";tag=b1"));
    let AgentEvent::Answered { fork: 0, sdp, .. } = bench.event() else {
        panic!("an answer");
    };
    assert_eq!(sdp.as_deref(), Some(OFFER.as_bytes()));
    // The second answers, too: ACK and BYE.
    bench.receive(&reply(&invite, 200, "b2", THEIRS));
    let sent = bench.sent();
    assert_eq!(labels(&sent), ["ACK", "BYE"]);
    assert!(
        sent.iter()
            .all(|sent| sent.header(HeaderName::To).ends_with(";tag=b2"))
    );
    finish(bench, leg);
}

#[test]
fn branches_beyond_the_bound_are_not_heard_but_may_answer() {
    let mut bench = Bench::new();
    let (leg, invite) = bench.outgoing();
    for branch in 0..20 {
        bench.receive(&reply(&invite, 180, &format!("b{branch}"), ""));
    }
    assert_eq!(bench.events().len(), 8);
    bench.receive(&reply(&invite, 200, "b19", OFFER));
    assert!(matches!(
        bench.event(),
        AgentEvent::Answered { sdp: Some(_), .. }
    ));
    finish(bench, leg);
}

#[test]
fn callees_offer_in_a_reliable_response_is_answered_in_our_prack() {
    let mut bench = Bench::new();
    let (leg, invite) = calling_late(&mut bench);
    let ringing = reliable(&invite, 183, "b1", 1, THEIRS);
    bench.receive(&ringing);
    assert!(bench.sent().is_empty(), "the PRACK owes an answer");
    let events = bench.events();
    assert_eq!(progress(&events[0]), (183, 0, None));
    assert!(matches!(&events[1], AgentEvent::Offer { sdp, .. } if sdp == THEIRS));
    bench.receive(&ringing);
    assert!(bench.sent().is_empty());
    assert_eq!(
        bench.agent.reject_offer(bench.now, leg, 488),
        Err(LegError::WrongState)
    );
    bench
        .agent
        .accept_offer(bench.now, leg, body(OURS))
        .expect("waits");
    let prack = bench.sent_one();
    assert_eq!(
        (prack.label().as_str(), prack.body().as_str()),
        ("PRACK", OURS)
    );
    bench.receive(&reply(&invite, 200, "b1", ""));
    let ack = bench.sent_one();
    assert_eq!((ack.label().as_str(), ack.body().as_str()), ("ACK", ""));
    assert!(matches!(
        bench.event(),
        AgentEvent::Answered { sdp: Some(_), .. }
    ));
    finish(bench, leg);
}

#[test]
fn offer_in_an_unreliable_response_is_none() {
    let mut bench = Bench::new();
    let (leg, invite) = calling_late(&mut bench);
    bench.receive(&reply(&invite, 183, "b1", THEIRS));
    assert_eq!(progress(&bench.event()), (183, 0, None));
    finish(bench, leg);
}

#[test]
fn ack_to_a_2xx_with_an_offer_waits_for_the_answer() {
    let mut bench = Bench::new();
    let (leg, invite) = calling_late(&mut bench);
    let ok = reply(&invite, 200, "b1", THEIRS);
    bench.receive(&ok);
    bench.receive(&ok);
    assert!(bench.sent().is_empty(), "no ACK, and no BYE to ourselves");
    let events = bench.events();
    assert!(matches!(
        &events[..],
        [
            AgentEvent::Answered { sdp: None, .. },
            AgentEvent::Offer { .. }
        ]
    ));
    assert_eq!(
        bench.agent.reinvite(bench.now, leg, body(OURS)),
        Err(LegError::OfferPending)
    );
    bench
        .agent
        .accept_offer(bench.now, leg, body(OURS))
        .expect("waits");
    let ack = bench.sent_one();
    assert_eq!((ack.label().as_str(), ack.body().as_str()), ("ACK", OURS));
    bench.receive(&ok);
    assert_eq!(bench.sent_one().text, ack.text);
    // Another branch answers with an offer of its own: ACK and BYE.
    bench.receive(&reply(&invite, 200, "b2", THEIRS));
    assert_eq!(labels(&bench.sent()), ["ACK", "BYE"]);
    finish(bench, leg);
}

#[test]
fn late_offer_that_is_refused_or_left_is_acknowledged_and_hung_up() {
    type Way = fn(&mut Bench, SipLegId, &Sent);
    let refuse: Way = |bench, leg, _| {
        let refused = bench.agent.reject_offer(bench.now, leg, 488);
        refused.expect("waits");
    };
    let hangup: Way = |bench, leg, _| {
        bench.agent.hangup(bench.now, leg, None).expect("lives");
    };
    let bye: Way = |bench, _, invite| {
        bench.receive(&from_callee(invite, "BYE", 1, "z9hG4bKbye", ""));
    };
    for (way, expected) in [
        (refuse, ["ACK", "BYE"]),
        (hangup, ["ACK", "BYE"]),
        (bye, ["200 BYE", "ACK"]),
    ] {
        let mut bench = Bench::new();
        let (leg, invite) = calling_late(&mut bench);
        bench.receive(&reply(&invite, 200, "b1", THEIRS));
        bench.events();
        way(&mut bench, leg, &invite);
        assert_eq!(labels(&bench.sent()), expected);
        assert!(matches!(bench.event(), AgentEvent::Ended { .. }));
        bench.assert_nothing_is_left();
    }
}

#[test]
fn callees_update_before_the_answer_is_an_offer_of_its_branch() {
    let mut bench = Bench::new();
    let (leg, invite) = bench.outgoing();
    bench.receive(&reply(&invite, 183, "b1", THEIRS));
    bench.receive(&branch_update(&invite, 1, "b1", OFFER));
    assert_eq!(
        bench.sent_one().label(),
        "491 UPDATE",
        "ours has no sure answer"
    );
    bench.receive(&branch_update(&invite, 1, "b9", OFFER));
    assert_eq!(bench.sent_one().label(), "481 UPDATE");
    bench.receive(&reliable(&invite, 183, "b2", 1, THEIRS));
    bench.sent();
    bench.events();
    bench.receive(&branch_update(&invite, 2, "b2", OFFER));
    assert!(matches!(bench.event(), AgentEvent::Offer { .. }));
    bench.receive(&branch_update(&invite, 3, "b2", OFFER));
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
    bench.receive(&branch_update(&invite, 4, "b2", THEIRS));
    bench.event();
    bench
        .agent
        .reject_offer(bench.now, leg, 488)
        .expect("waits");
    assert_eq!(bench.sent_one().label(), "488 UPDATE");
    // The answer comes while one is open.
    bench.receive(&branch_update(&invite, 5, "b2", THEIRS));
    bench.event();
    bench.receive(&reply(&invite, 200, "b2", ""));
    assert_eq!(labels(&bench.sent()), ["491 UPDATE", "ACK"]);
    let events = bench.events();
    let [
        AgentEvent::OfferCancelled { .. },
        AgentEvent::Answered { fork: 1, sdp, .. },
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!(
        sdp.as_deref(),
        Some(OFFER.as_bytes()),
        "the offer that we accepted"
    );
    finish(bench, leg);
}

#[test]
fn our_update_before_the_answer_may_be_answered_after_it() {
    let mut bench = Bench::new();
    let (leg, invite) = bench.outgoing();
    assert_eq!(
        bench.agent.reinvite(bench.now, leg, body(OURS)),
        Err(LegError::WrongState)
    );
    bench.receive(&reliable(&invite, 183, "b1", 1, THEIRS));
    bench.sent();
    bench.events();
    bench
        .agent
        .reinvite(bench.now, leg, body(OURS))
        .expect("settled");
    let ours = bench.sent_one();
    assert_eq!(ours.label(), "UPDATE");
    assert!(ours.header(HeaderName::To).ends_with(";tag=b1"));
    bench.receive(&reply(&invite, 200, "b1", ""));
    assert_eq!(bench.sent_one().label(), "ACK");
    assert!(matches!(bench.event(), AgentEvent::Answered { .. }));
    assert_eq!(
        bench.agent.reinvite(bench.now, leg, body(OURS)),
        Err(LegError::OfferPending)
    );
    bench.receive(&reply(&ours, 200, "b1", OFFER));
    assert!(matches!(
        bench.event(),
        AgentEvent::OfferAnswered { result: Ok(_), .. }
    ));
    bench
        .agent
        .reinvite(bench.now, leg, body(OURS))
        .expect("idle again");
    finish(bench, leg);
}

#[test]
fn callee_that_refuses_after_ringing_reliably_leaves_nothing() {
    let mut bench = Bench::new();
    let (_, invite) = bench.outgoing();
    bench.receive(&reliable(&invite, 183, "b1", 1, THEIRS));
    bench.receive(&branch_update(&invite, 1, "b1", OFFER));
    bench.sent();
    bench.receive(&reply(&invite, 486, "b1", ""));
    assert_eq!(labels(&bench.sent()), ["ACK", "487 UPDATE"]);
    bench.events();
    bench.assert_nothing_is_left();
}
