//! The races of a call's beginning and end, each from the agent's side of the wire.

use sipx_sip::HeaderName;
use trunkline_sip::{AgentEvent, EndedBy, LegError};

use crate::support::*;

#[test]
fn call_from_the_peer_is_answered_and_hung_up_by_the_peer() {
    let mut bench = Bench::new();
    let (leg, _) = bench.incoming();
    bench.advance(200);
    assert_eq!(bench.sent_one().label(), "100 INVITE");
    bench
        .agent
        .provisional(bench.now, leg, 180, None)
        .expect("rings");
    assert_eq!(bench.sent_one().label(), "180 INVITE");
    bench
        .agent
        .provisional(bench.now, leg, 183, Some(body(ANSWER)))
        .expect("early media");
    assert_eq!(bench.sent_one().body(), ANSWER);
    bench
        .agent
        .answer(bench.now, leg, body(ANSWER))
        .expect("answers");
    let ok = bench.sent_one();
    assert_eq!(
        ok.header(HeaderName::Contact),
        "<sip:+15550100@203.0.113.1:5060>"
    );
    let tag = ok.tag(HeaderName::To);
    bench.receive(&in_dialog("ACK", "in-1", 1, "z9hG4bKa", &tag, ""));
    assert!(matches!(
        bench.event(),
        AgentEvent::Confirmed { sdp: None, .. }
    ));
    bench.advance(60_000);
    assert!(
        bench.sent().is_empty(),
        "an acknowledged 200 is not repeated"
    );
    bench.receive(&in_dialog("BYE", "in-1", 2, "z9hG4bKb", &tag, ""));
    assert_eq!(bench.sent_one().label(), "200 BYE");
    assert_eq!(ended_by(&bench.event()), EndedBy::Bye);
    assert_eq!(
        bench.agent.hangup(bench.now, leg, None),
        Err(LegError::UnknownLeg)
    );
    bench.assert_nothing_is_left();
}

#[test]
fn call_to_the_peer_is_acknowledged_and_hung_up_by_us() {
    let mut bench = Bench::new();
    let (leg, invite) = bench.outgoing();
    assert_eq!(invite.header(HeaderName::MaxForwards), "69");
    assert_eq!(invite.body(), OFFER);
    bench.receive(&reply(&invite, 100, "", ""));
    assert!(bench.events().is_empty(), "100 is nobody's business");
    bench.receive(&reply(&invite, 183, "b1", ANSWER));
    assert!(matches!(
        bench.event(),
        AgentEvent::Progress {
            status: 183,
            sdp: Some(_),
            ..
        }
    ));
    bench.receive(&reply(&invite, 200, "b1", OFFER));
    let ack = bench.sent_one();
    assert_eq!(ack.label(), "ACK");
    assert_eq!(ack.request_uri(), "sip:bob@198.51.100.9:5060");
    assert_eq!(ack.header(HeaderName::CSeq), "1 ACK");
    assert_ne!(ack.branch(), invite.branch());
    bench
        .agent
        .hangup(bench.now, leg, Some("Q.850;cause=16"))
        .expect("hangs up");
    let bye = bench.sent_one();
    assert_eq!(bye.label(), "BYE");
    assert_eq!(bye.header(HeaderName::Reason), "Q.850;cause=16");
    assert_eq!(bye.header(HeaderName::CSeq), "2 BYE");
    bench.receive(&reply(&bye, 200, "", ""));
    let events = bench.events();
    assert!(matches!(
        events[0],
        AgentEvent::Answered { sdp: Some(_), .. }
    ));
    assert_eq!(ended_by(&events[1]), EndedBy::LocalHangup);
    assert_eq!(events.len(), 2);
    bench.assert_nothing_is_left();
}

#[test]
fn the_answer_without_sdp_takes_the_one_of_its_183() {
    let mut bench = Bench::new();
    let (_, invite) = bench.outgoing();
    bench.receive(&reply(&invite, 183, "b1", ANSWER));
    bench.receive(&reply(&invite, 200, "b1", ""));
    let events = bench.events();
    assert!(matches!(&events[1], AgentEvent::Answered { sdp: Some(sdp), .. } if sdp == ANSWER));
}

#[test]
fn unacknowledged_200_is_repeated_up_to_t2_and_then_hung_up() {
    let mut bench = Bench::new();
    let (leg, _) = bench.incoming();
    bench
        .agent
        .answer(bench.now, leg, body(ANSWER))
        .expect("answers");
    let mut times = Vec::new();
    let start = bench.now;
    for _ in 0..320 {
        for sent in bench.sent() {
            times.push((bench.now.nanos_since(start) / 1_000_000, sent.label()));
        }
        bench.advance(100);
    }
    let repeats: Vec<u64> = times.iter().map(|(at, _)| *at).collect();
    assert_eq!(
        repeats,
        [
            0, 500, 1500, 3500, 7500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500
        ]
    );
    assert!(times.iter().all(|(_, label)| label == "200 INVITE"));
    bench.advance(100);
    assert_eq!(bench.sent_one().label(), "BYE");
    assert_eq!(ended_by(&bench.event()), EndedBy::AckTimeout);
    bench.assert_nothing_is_left();
}

#[test]
fn hangup_before_the_ack_waits_for_it() {
    let mut bench = Bench::new();
    let (leg, _) = bench.incoming();
    bench
        .agent
        .answer(bench.now, leg, body(ANSWER))
        .expect("answers");
    let tag = bench.sent_one().tag(HeaderName::To);
    bench.agent.hangup(bench.now, leg, None).expect("hangs up");
    assert_eq!(ended_by(&bench.event()), EndedBy::LocalHangup);
    assert!(bench.sent().is_empty(), "no BYE before the ACK");
    assert_eq!(bench.agent.legs_len(), 0);
    bench.advance(500);
    assert_eq!(bench.sent_one().label(), "200 INVITE");
    bench.receive(&in_dialog("ACK", "in-1", 1, "z9hG4bKa", &tag, ""));
    assert_eq!(bench.sent_one().label(), "BYE");
    bench.assert_nothing_is_left();
}

#[test]
fn hangup_before_an_ack_that_never_comes_ends_with_a_bye() {
    let mut bench = Bench::new();
    let (leg, _) = bench.incoming();
    bench
        .agent
        .answer(bench.now, leg, body(ANSWER))
        .expect("answers");
    bench.agent.hangup(bench.now, leg, None).expect("hangs up");
    bench.sent();
    bench.events();
    bench.advance(32_000);
    assert!(labels(&bench.sent()).contains(&"BYE".to_owned()));
    bench.assert_nothing_is_left();
}

#[test]
fn bye_that_overtakes_the_ack_ends_the_call() {
    let mut bench = Bench::new();
    let (leg, _) = bench.incoming();
    bench
        .agent
        .answer(bench.now, leg, body(ANSWER))
        .expect("answers");
    let tag = bench.sent_one().tag(HeaderName::To);
    bench.receive(&in_dialog("BYE", "in-1", 2, "z9hG4bKb", &tag, ""));
    assert_eq!(bench.sent_one().label(), "200 BYE");
    assert_eq!(ended_by(&bench.event()), EndedBy::Bye);
    bench.receive(&in_dialog("ACK", "in-1", 1, "z9hG4bKa", &tag, ""));
    bench.advance(5_000);
    assert!(
        bench.sent().is_empty(),
        "the 200 to the INVITE is not repeated"
    );
    bench.assert_nothing_is_left();
}

#[test]
fn bye_of_the_caller_before_the_answer_ends_the_invite() {
    let mut bench = Bench::new();
    let (leg, _) = bench.incoming();
    bench
        .agent
        .provisional(bench.now, leg, 180, None)
        .expect("rings");
    let tag = bench.sent_one().tag(HeaderName::To);
    bench.receive(&in_dialog("BYE", "in-1", 2, "z9hG4bKb", &tag, ""));
    assert_eq!(labels(&bench.sent()), ["200 BYE", "487 INVITE"]);
    assert_eq!(ended_by(&bench.event()), EndedBy::Bye);
    bench.assert_nothing_is_left();
}

#[test]
fn both_sides_hang_up_at_once_and_both_byes_get_200() {
    let mut bench = Bench::new();
    let (leg, tag) = bench.incoming_confirmed();
    bench.agent.hangup(bench.now, leg, None).expect("hangs up");
    let bye = bench.sent_one();
    bench.receive(&in_dialog("BYE", "in-1", 2, "z9hG4bKb", &tag, ""));
    assert_eq!(bench.sent_one().label(), "200 BYE");
    bench.receive(&reply(&bye, 200, "", ""));
    assert_eq!(ended_by(&bench.event()), EndedBy::LocalHangup);
    bench.assert_nothing_is_left();
}

#[test]
fn cancel_ends_the_ringing_leg_with_487() {
    let mut bench = Bench::new();
    let (_, invite) = bench.incoming();
    bench.receive(&cancel_of(&invite));
    let sent = bench.sent();
    assert_eq!(labels(&sent), ["200 CANCEL", "487 INVITE"]);
    assert_eq!(sent[0].tag(HeaderName::To), sent[1].tag(HeaderName::To));
    assert_eq!(ended_by(&bench.event()), EndedBy::Cancelled);
    bench.receive(&cancel_of(&invite));
    assert_eq!(bench.sent_one().label(), "200 CANCEL");
    // The ACK stops the 487, so that the next second is silent.
    let ack = invite
        .replace("INVITE sip", "ACK sip")
        .replace("1 INVITE", "1 ACK");
    bench.receive(&ack);
    bench.advance(1_000);
    assert!(bench.sent().is_empty());
    bench.assert_nothing_is_left();
}

#[test]
fn cancel_that_crosses_our_200_has_no_effect() {
    let mut bench = Bench::new();
    let (leg, invite) = bench.incoming();
    bench
        .agent
        .answer(bench.now, leg, body(ANSWER))
        .expect("answers");
    let tag = bench.sent_one().tag(HeaderName::To);
    bench.receive(&cancel_of(&invite));
    assert_eq!(bench.sent_one().label(), "200 CANCEL");
    assert!(bench.events().is_empty());
    bench.receive(&in_dialog("ACK", "in-1", 1, "z9hG4bKa", &tag, ""));
    assert!(matches!(bench.event(), AgentEvent::Confirmed { .. }));
    bench.receive(&in_dialog("BYE", "in-1", 2, "z9hG4bKb", &tag, ""));
    bench.events();
    bench.assert_nothing_is_left();
}

#[test]
fn cancel_of_an_unknown_invite_gets_481() {
    let mut bench = Bench::new();
    bench.receive(&cancel_of(&invite("in-9", "z9hG4bKnone", OFFER)));
    assert_eq!(bench.sent_one().label(), "481 CANCEL");
    bench.assert_nothing_is_left();
}

#[test]
fn our_cancel_waits_for_a_provisional_response() {
    let mut bench = Bench::new();
    let (leg, invite) = bench.outgoing();
    bench.agent.cancel(bench.now, leg).expect("cancels");
    assert_eq!(ended_by(&bench.event()), EndedBy::LocalHangup);
    assert!(bench.sent().is_empty());
    bench.receive(&reply(&invite, 180, "b1", ""));
    let cancel = bench.sent_one();
    assert_eq!(cancel.label(), "CANCEL");
    assert_eq!(cancel.branch(), invite.branch());
    assert_eq!(cancel.request_uri(), invite.request_uri());
    assert_eq!(cancel.header(HeaderName::CSeq), "1 CANCEL");
    bench.receive(&reply(&invite, 180, "b1", ""));
    assert!(bench.sent().is_empty(), "one CANCEL is enough");
    bench.receive(&reply(&cancel, 200, "b1", ""));
    bench.receive(&reply(&invite, 487, "b1", ""));
    assert_eq!(bench.sent_one().label(), "ACK");
    bench.assert_nothing_is_left();
}

#[test]
fn the_200_that_crosses_our_cancel_is_acknowledged_and_hung_up() {
    let mut bench = Bench::new();
    let (leg, invite) = bench.outgoing();
    bench.receive(&reply(&invite, 180, "b1", ""));
    bench.events();
    bench
        .agent
        .hangup(bench.now, leg, Some("SIP;cause=200"))
        .expect("cancels");
    let cancel = bench.sent_one();
    assert_eq!(cancel.header(HeaderName::Reason), "SIP;cause=200");
    bench.receive(&reply(&invite, 200, "b1", OFFER));
    let sent = bench.sent();
    assert_eq!(labels(&sent), ["ACK", "BYE"]);
    assert_eq!(sent[1].header(HeaderName::CSeq), "2 BYE");
    assert_eq!(sent[1].tag(HeaderName::To), "b1");
    bench.receive(&reply(&invite, 200, "b1", OFFER));
    assert_eq!(
        bench.sent_one().label(),
        "ACK",
        "a copy of the 200 gets its ACK and no more"
    );
    assert_eq!(ended_by(&bench.event()), EndedBy::LocalHangup);
    bench.assert_nothing_is_left();
}

#[test]
fn cancelled_invite_without_a_final_response_is_given_up() {
    let mut bench = Bench::new();
    let (leg, invite) = bench.outgoing();
    bench.receive(&reply(&invite, 180, "b1", ""));
    bench.agent.cancel(bench.now, leg).expect("cancels");
    bench.events();
    bench.assert_nothing_is_left();
}

#[test]
fn invite_nobody_answers_is_rejected_with_408() {
    let mut bench = Bench::new();
    let (leg, _) = bench.outgoing();
    bench.advance(32_000);
    let AgentEvent::Rejected {
        leg: of, status, ..
    } = bench.event()
    else {
        panic!("a rejection");
    };
    assert_eq!((of, status), (leg, 408));
    assert_eq!(
        bench.sent().len(),
        6,
        "500 ms doubling: copies at 0.5 … 31.5 s"
    );
    bench.assert_nothing_is_left();
}

#[test]
fn rejection_is_acknowledged_by_the_transaction_and_reported_once() {
    let mut bench = Bench::new();
    let (leg, invite) = bench.outgoing();
    bench.receive(&reply(&invite, 486, "b1", ""));
    let ack = bench.sent_one();
    assert_eq!(
        (ack.label().as_str(), ack.branch()),
        ("ACK", invite.branch())
    );
    bench.receive(&reply(&invite, 486, "b1", ""));
    assert_eq!(bench.sent_one().label(), "ACK");
    let event = bench.event();
    assert!(
        matches!(&event, AgentEvent::Rejected { leg: of, status: 486, reason, .. }
            if *of == leg && reason == "Whatever")
    );
    bench.assert_nothing_is_left();
}

#[test]
fn copy_of_the_200_gets_the_same_ack() {
    let mut bench = Bench::new();
    let (leg, invite) = bench.outgoing();
    bench.receive(&reply(&invite, 200, "b1", OFFER));
    let first = bench.sent_one();
    bench.advance(500);
    bench.receive(&reply(&invite, 200, "b1", OFFER));
    assert_eq!(bench.sent_one().text, first.text);
    assert_eq!(bench.events().len(), 1);
    bench.agent.hangup(bench.now, leg, None).expect("hangs up");
    bench.receive(&reply(&invite, 200, "b1", OFFER));
    assert_eq!(
        labels(&bench.sent()),
        ["BYE", "ACK"],
        "even after the hangup"
    );
    bench.events();
    bench.assert_nothing_is_left();
}

#[test]
fn further_branches_of_a_fork_are_acknowledged_and_hung_up() {
    let mut bench = Bench::new();
    let (leg, invite) = bench.outgoing();
    for branch in ["b1", "b2"] {
        bench.receive(&reply(&invite, 183, branch, ANSWER));
    }
    bench.receive(&reply(&invite, 200, "b2", OFFER));
    assert_eq!(bench.sent_one().tag(HeaderName::To), "b2");
    bench.receive(&reply(&invite, 200, "b1", OFFER));
    let sent = bench.sent();
    assert_eq!(labels(&sent), ["ACK", "BYE"]);
    assert!(
        sent.iter()
            .all(|message| message.tag(HeaderName::To) == "b1")
    );
    bench.receive(&reply(&invite, 200, "b1", OFFER));
    assert_eq!(bench.sent_one().tag(HeaderName::To), "b1");
    bench.agent.hangup(bench.now, leg, None).expect("hangs up");
    assert_eq!(bench.sent_one().tag(HeaderName::To), "b2");
    assert_eq!(bench.agent.counters().late_answers, 1);
    bench.events();
    bench.assert_nothing_is_left();
}

#[test]
fn branches_of_a_fork_number_their_requests_each_for_itself() {
    let mut bench = Bench::new();
    let (_, invite) = bench.outgoing();
    bench.receive(&reply(&invite, 180, "b7", ""));
    let early = from_callee(&invite, "OPTIONS", 900, "z9hG4bKo", "");
    bench.receive(&early.replace("tag=b1", "tag=b7"));
    assert_eq!(bench.sent_one().label(), "200 OPTIONS");
    bench.receive(&reply(&invite, 200, "b1", OFFER));
    bench.sent();
    bench.events();
    bench.receive(&from_callee(&invite, "BYE", 1, "z9hG4bKb", ""));
    assert_eq!(bench.sent_one().label(), "200 BYE");
    assert_eq!(ended_by(&bench.event()), EndedBy::Bye);
    bench.assert_nothing_is_left();
}

#[test]
fn answers_of_a_hundred_branches_are_bounded() {
    let mut bench = Bench::new();
    let (leg, invite) = bench.outgoing();
    for branch in 0..100 {
        bench.receive(&reply(&invite, 200, &format!("b{branch}"), OFFER));
    }
    let sent = labels(&bench.sent());
    assert_eq!(sent.iter().filter(|label| *label == "ACK").count(), 8);
    bench.agent.hangup(bench.now, leg, None).expect("hangs up");
    bench.events();
    bench.assert_nothing_is_left();
}

#[test]
fn copy_of_an_invite_is_absorbed_and_a_second_path_gets_482() {
    let mut bench = Bench::new();
    let (leg, invite) = bench.incoming();
    bench.receive(&invite);
    assert!(bench.sent().is_empty() && bench.events().is_empty());
    bench
        .agent
        .provisional(bench.now, leg, 180, None)
        .expect("rings");
    bench.sent();
    bench.receive(&invite);
    assert_eq!(bench.sent_one().label(), "180 INVITE");
    bench.receive(&invite.replace("z9hG4bKinvite", "z9hG4bKother"));
    assert_eq!(bench.sent_one().label(), "482 INVITE");
    bench
        .agent
        .reject(bench.now, leg, 486, None, Vec::new())
        .expect("rejects");
    assert_eq!(ended_by(&bench.event()), EndedBy::Refused);
    bench.assert_nothing_is_left();
    bench.receive(&invite);
    assert!(
        matches!(bench.event(), AgentEvent::Invite { .. }),
        "a later call is a new one"
    );
}

#[test]
fn copy_of_a_bye_gets_its_200_again() {
    let mut bench = Bench::new();
    let (_, tag) = bench.incoming_confirmed();
    let bye = in_dialog("BYE", "in-1", 2, "z9hG4bKb", &tag, "");
    bench.receive(&bye);
    let first = bench.sent_one();
    bench.events();
    bench.advance(500);
    bench.receive(&bye);
    assert_eq!(bench.sent_one().text, first.text);
    assert!(bench.events().is_empty());
    bench.assert_nothing_is_left();
}

#[test]
fn hangup_of_a_ringing_caller_is_480_and_of_an_ended_leg_nothing() {
    let mut bench = Bench::new();
    let (leg, _) = bench.incoming();
    bench
        .agent
        .hangup(bench.now, leg, Some("Q.850;cause=19"))
        .expect("hangs up");
    let refusal = bench.sent_one();
    assert_eq!(refusal.label(), "480 INVITE");
    assert_eq!(refusal.header(HeaderName::Reason), "Q.850;cause=19");
    assert_eq!(ended_by(&bench.event()), EndedBy::LocalHangup);
    assert_eq!(
        bench.agent.hangup(bench.now, leg, None),
        Err(LegError::UnknownLeg)
    );
    assert_eq!(
        bench.agent.answer(bench.now, leg, body("")),
        Err(LegError::UnknownLeg)
    );
    bench.assert_nothing_is_left();
}

#[test]
fn calls_that_do_not_fit_the_state_change_nothing() {
    let mut bench = Bench::new();
    let (leg, _) = bench.incoming();
    let now = bench.now;
    assert_eq!(bench.agent.cancel(now, leg), Err(LegError::WrongState));
    assert_eq!(
        bench.agent.reinvite(now, leg, body(OFFER)),
        Err(LegError::WrongState)
    );
    assert_eq!(
        bench.agent.accept_offer(now, leg, body(OFFER)),
        Err(LegError::WrongState)
    );
    assert_eq!(
        bench.agent.provisional(now, leg, 200, None),
        Err(LegError::Status(200))
    );
    assert_eq!(
        bench.agent.reject(now, leg, 200, None, vec![]),
        Err(LegError::Status(200))
    );
    let (out, _) = bench.outgoing();
    assert_eq!(
        bench.agent.answer(now, out, body(ANSWER)),
        Err(LegError::WrongState)
    );
    assert!(bench.sent().is_empty());
    bench
        .agent
        .answer(now, leg, body(ANSWER))
        .expect("still possible");
}

#[test]
fn undeliverable_invite_is_rejected_with_503_and_a_lost_ringing_ends_its_leg() {
    let mut bench = Bench::new();
    let (_, invite) = bench.outgoing();
    let id = invite.transmit.id.expect("belongs to a transaction");
    bench.agent.handle_transport_error(bench.now, &id);
    assert!(matches!(
        bench.event(),
        AgentEvent::Rejected { status: 503, .. }
    ));
    assert_eq!(bench.agent.poll_timeout(), None, "its timers go with it");
    let (leg, _) = bench.incoming();
    bench
        .agent
        .provisional(bench.now, leg, 180, None)
        .expect("rings");
    let id = bench
        .sent_one()
        .transmit
        .id
        .expect("belongs to a transaction");
    bench.agent.handle_transport_error(bench.now, &id);
    assert_eq!(ended_by(&bench.event()), EndedBy::TransportFailed);
    bench.assert_nothing_is_left();
}

#[test]
fn closed_connection_fails_what_waits_on_it_and_no_dialog() {
    let mut bench = Bench::on_tcp();
    let (confirmed, _) = bench.outgoing_confirmed();
    let (waiting, _) = bench.outgoing();
    bench
        .agent
        .handle_connection_closed(bench.now, trunkline_sip::ConnectionId(1));
    let AgentEvent::Rejected { leg, status, .. } = bench.event() else {
        panic!("a rejection");
    };
    assert_eq!((leg, status), (waiting, 503));
    bench
        .agent
        .hangup(bench.now, confirmed, None)
        .expect("lives on");
    assert_eq!(bench.sent_one().label(), "BYE");
    bench.events();
    bench.assert_nothing_is_left();
}

#[test]
fn answer_to_an_invite_of_a_dead_process_gets_ack_and_bye_where_it_came_from() {
    let mut old = Bench::new();
    let (_, invite) = old.outgoing();
    let mut bench = Bench::new();
    let answer = reply(&invite, 200, "b1", OFFER);
    bench.receive(&answer);
    let sent = bench.sent();
    assert_eq!(labels(&sent), ["ACK", "BYE"]);
    for message in &sent {
        assert_eq!(message.transmit.flow.remote, address(PEER));
        assert_eq!(message.tag(HeaderName::To), "b1");
        assert_eq!(
            message.header(HeaderName::From),
            invite.header(HeaderName::From)
        );
    }
    // One that was never sent from here is none of our business.
    bench.receive(&answer.replace("203.0.113.1:5060;branch", "203.0.113.7:5060;branch"));
    assert!(bench.sent().is_empty());
    bench.assert_nothing_is_left();
}
