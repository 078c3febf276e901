//! Offers inside a session: re-INVITE both ways, UPDATE from the peer, glare.

use sipx_sip::HeaderName;
use trunkline_sip::{AgentEvent, EndedBy, LegError};

use crate::support::*;

const HOLD: &str = "v=0\r\na=sendonly\r\n";
const HELD: &str = "v=0\r\na=recvonly\r\n";

#[test]
fn re_invite_of_the_peer_is_offered_answered_and_acknowledged() {
    let mut bench = Bench::new();
    let (leg, tag) = bench.incoming_confirmed();
    bench.receive(&in_dialog("INVITE", "in-1", 2, "z9hG4bKr", &tag, HOLD));
    assert!(matches!(bench.event(), AgentEvent::Offer { sdp, .. } if sdp == HOLD));
    bench
        .agent
        .accept_offer(bench.now, leg, body(HELD))
        .expect("accepts");
    let ok = bench.sent_one();
    assert_eq!(
        (ok.label().as_str(), ok.body().as_str()),
        ("200 INVITE", HELD)
    );
    assert_eq!(ok.tag(HeaderName::To), tag);
    bench.advance(500);
    assert_eq!(bench.sent_one().label(), "200 INVITE");
    bench.receive(&in_dialog("ACK", "in-1", 2, "z9hG4bKs", &tag, ""));
    bench.advance(10_000);
    assert!(bench.sent().is_empty());
    assert!(bench.events().is_empty(), "the call was confirmed long ago");
    bench.agent.hangup(bench.now, leg, None).expect("hangs up");
    bench.events();
    bench.assert_nothing_is_left();
}

#[test]
fn refused_offer_leaves_the_session_open_for_the_next() {
    let mut bench = Bench::new();
    let (leg, tag) = bench.incoming_confirmed();
    bench.receive(&in_dialog("INVITE", "in-1", 2, "z9hG4bKr", &tag, HOLD));
    bench.events();
    assert_eq!(
        bench.agent.reinvite(bench.now, leg, body(OFFER)),
        Err(LegError::OfferPending)
    );
    bench
        .agent
        .reject_offer(bench.now, leg, 488)
        .expect("refuses");
    assert_eq!(bench.sent_one().label(), "488 INVITE");
    assert_eq!(
        bench.agent.reject_offer(bench.now, leg, 488),
        Err(LegError::WrongState)
    );
    bench.receive(&in_dialog("INVITE", "in-1", 3, "z9hG4bKt", &tag, HOLD));
    assert!(matches!(bench.event(), AgentEvent::Offer { .. }));
    bench.agent.hangup(bench.now, leg, None).expect("hangs up");
    let sent = labels(&bench.sent());
    assert!(sent.contains(&"BYE".to_owned()) && sent.contains(&"487 INVITE".to_owned()));
    bench.events();
    bench.assert_nothing_is_left();
}

#[test]
fn second_offer_before_the_first_is_answered_gets_500_and_a_wait() {
    let mut bench = Bench::new();
    let (_, tag) = bench.incoming_confirmed();
    bench.receive(&in_dialog("INVITE", "in-1", 2, "z9hG4bKr", &tag, HOLD));
    bench.events();
    bench.receive(&in_dialog("UPDATE", "in-1", 3, "z9hG4bKu", &tag, HOLD));
    let refusal = bench.sent_one();
    assert_eq!(refusal.label(), "500 UPDATE");
    let wait: u64 = refusal
        .header(HeaderName::RetryAfter)
        .parse()
        .expect("seconds");
    assert!(wait <= 10);
    assert!(bench.events().is_empty());
}

#[test]
fn update_with_an_offer_is_answered_like_a_re_invite_without_ack() {
    let mut bench = Bench::new();
    let (leg, invite) = bench.outgoing_confirmed();
    bench.receive(&from_callee(&invite, "UPDATE", 1, "z9hG4bKu", HOLD));
    assert!(matches!(bench.event(), AgentEvent::Offer { sdp, .. } if sdp == HOLD));
    bench
        .agent
        .accept_offer(bench.now, leg, body(HELD))
        .expect("accepts");
    let ok = bench.sent_one();
    assert_eq!(
        (ok.label().as_str(), ok.body().as_str()),
        ("200 UPDATE", HELD)
    );
    bench.advance(40_000);
    assert!(bench.sent().is_empty(), "nobody acknowledges an UPDATE");
    bench
        .agent
        .reinvite(bench.now, leg, body(OFFER))
        .expect("the session is free again");
    bench.receive(&from_callee(&invite, "BYE", 2, "z9hG4bKb", ""));
    assert_eq!(ended_by(&bench.event()), EndedBy::Bye);
    bench.assert_nothing_is_left();
}

#[test]
fn update_without_an_offer_refreshes_the_target() {
    let mut bench = Bench::new();
    let (leg, invite) = bench.outgoing_confirmed();
    let update = from_callee(&invite, "UPDATE", 1, "z9hG4bKu", "");
    bench.receive(&update.replace(
        "<sip:bob@198.51.100.9:5060>\r\nContent",
        "<sip:bob@198.51.100.9:5090>\r\nContent",
    ));
    assert_eq!(bench.sent_one().label(), "200 UPDATE");
    assert!(bench.events().is_empty());
    bench.agent.hangup(bench.now, leg, None).expect("hangs up");
    let bye = bench.sent_one();
    assert_eq!(bye.request_uri(), "sip:bob@198.51.100.9:5090");
    assert_eq!(bye.transmit.flow.remote.port(), 5090);
}

#[test]
fn update_before_the_answer_is_refused_as_rfc_3311_says() {
    let mut bench = Bench::new();
    let (leg, _) = bench.incoming();
    bench
        .agent
        .provisional(bench.now, leg, 180, None)
        .expect("rings");
    let tag = bench.sent_one().tag(HeaderName::To);
    bench.receive(&in_dialog("UPDATE", "in-1", 2, "z9hG4bKu", &tag, HOLD));
    assert_eq!(bench.sent_one().label(), "500 UPDATE");
    let (_, invite) = bench.outgoing();
    bench.receive(&reply(&invite, 183, "b1", ANSWER));
    bench.receive(&from_callee(&invite, "UPDATE", 1, "z9hG4bKv", HOLD));
    assert_eq!(bench.sent_one().label(), "491 UPDATE");
    bench.receive(&from_callee(&invite, "UPDATE", 2, "z9hG4bKw", ""));
    assert_eq!(bench.sent_one().label(), "200 UPDATE");
}

#[test]
fn re_invite_without_an_offer_is_offered_what_stands_and_answers_in_its_ack() {
    let mut bench = Bench::new();
    let (_, tag) = bench.incoming_confirmed();
    bench.receive(&in_dialog("INVITE", "in-1", 2, "z9hG4bKr", &tag, ""));
    let ok = bench.sent_one();
    assert_eq!(
        (ok.label().as_str(), ok.body().as_str()),
        ("200 INVITE", ANSWER)
    );
    bench.receive(&in_dialog("ACK", "in-1", 2, "z9hG4bKs", &tag, HOLD));
    assert!(matches!(bench.event(), AgentEvent::AnswerInAck { sdp, .. } if sdp == HOLD));
}

#[test]
fn answer_in_the_ack_of_a_late_offer_comes_with_confirmed() {
    let mut bench = Bench::new();
    bench.receive(&invite("in-1", "z9hG4bKinvite", ""));
    let AgentEvent::Invite { leg, request, .. } = bench.event() else {
        panic!("an INVITE event");
    };
    assert!(request.body().is_empty());
    bench
        .agent
        .answer(bench.now, leg, body(OFFER))
        .expect("offers");
    let tag = bench.sent_one().tag(HeaderName::To);
    bench.receive(&in_dialog("ACK", "in-1", 1, "z9hG4bKa", &tag, ANSWER));
    assert!(matches!(bench.event(), AgentEvent::Confirmed { sdp: Some(sdp), .. } if sdp == ANSWER));
}

#[test]
fn re_invite_that_overtakes_the_ack_confirms_the_call() {
    let mut bench = Bench::new();
    let (leg, _) = bench.incoming();
    bench
        .agent
        .answer(bench.now, leg, body(ANSWER))
        .expect("answers");
    let tag = bench.sent_one().tag(HeaderName::To);
    bench.receive(&in_dialog("INVITE", "in-1", 2, "z9hG4bKr", &tag, HOLD));
    let events = bench.events();
    assert!(matches!(events[0], AgentEvent::Confirmed { sdp: None, .. }));
    assert!(matches!(events[1], AgentEvent::Offer { .. }));
    bench.receive(&in_dialog("ACK", "in-1", 1, "z9hG4bKa", &tag, ""));
    bench
        .agent
        .accept_offer(bench.now, leg, body(HELD))
        .expect("accepts");
    assert_eq!(labels(&bench.sent()), ["200 INVITE"]);
}

#[test]
fn cancelled_re_invite_leaves_the_session_as_it_was() {
    let mut bench = Bench::new();
    let (leg, tag) = bench.incoming_confirmed();
    let reinvite = in_dialog("INVITE", "in-1", 2, "z9hG4bKr", &tag, HOLD);
    bench.receive(&reinvite);
    bench.events();
    bench.receive(&cancel_of(&reinvite).replace("2 INVITE", "2 CANCEL"));
    assert_eq!(labels(&bench.sent()), ["200 CANCEL", "487 INVITE"]);
    assert!(matches!(bench.event(), AgentEvent::OfferCancelled { .. }));
    assert_eq!(
        bench.agent.accept_offer(bench.now, leg, body(HELD)),
        Err(LegError::WrongState)
    );
    bench
        .agent
        .reinvite(bench.now, leg, body(OFFER))
        .expect("the session is free");
}

#[test]
fn our_re_invite_is_answered_and_its_copies_acknowledged() {
    let mut bench = Bench::new();
    let (leg, tag) = bench.incoming_confirmed();
    bench
        .agent
        .reinvite(bench.now, leg, body(HOLD))
        .expect("offers");
    let reinvite = bench.sent_one();
    assert_eq!(reinvite.label(), "INVITE");
    assert_eq!(reinvite.tag(HeaderName::From), tag);
    assert_eq!(reinvite.tag(HeaderName::To), "a1");
    assert_eq!(reinvite.request_uri(), "sip:alice@198.51.100.9:5060");
    bench.receive(&reply(&reinvite, 100, "", ""));
    bench.receive(&reply(&reinvite, 200, "", HELD));
    let ack = bench.sent_one();
    assert_eq!(ack.header(HeaderName::CSeq), "1 ACK");
    // The 2xx refreshed the target.
    assert_eq!(ack.request_uri(), "sip:bob@198.51.100.9:5060");
    assert!(
        matches!(bench.event(), AgentEvent::OfferAnswered { result: Ok(sdp), .. } if sdp == HELD)
    );
    bench.receive(&reply(&reinvite, 200, "", HELD));
    assert_eq!(bench.sent_one().text, ack.text);
    assert!(bench.events().is_empty());
    bench.agent.hangup(bench.now, leg, None).expect("hangs up");
    bench.events();
    bench.assert_nothing_is_left();
}

#[test]
fn refused_re_invite_reports_its_status_and_the_call_goes_on() {
    let mut bench = Bench::new();
    let (leg, invite) = bench.outgoing_confirmed();
    bench
        .agent
        .reinvite(bench.now, leg, body(HOLD))
        .expect("offers");
    let reinvite = bench.sent_one();
    bench.receive(&reply(&reinvite, 488, "", ""));
    assert_eq!(bench.sent_one().label(), "ACK");
    assert!(matches!(
        bench.event(),
        AgentEvent::OfferAnswered {
            result: Err(488),
            ..
        }
    ));
    // A late copy of the first answer is still acknowledged and nothing else.
    bench.receive(&reply(&invite, 200, "b1", OFFER));
    assert_eq!(labels(&bench.sent()), ["ACK"]);
    bench
        .agent
        .reinvite(bench.now, leg, body(HOLD))
        .expect("tries again");
}

#[test]
fn dialog_the_peer_has_lost_is_ended_with_a_bye() {
    for status in [481, 408] {
        let mut bench = Bench::new();
        let (leg, _) = bench.outgoing_confirmed();
        bench
            .agent
            .reinvite(bench.now, leg, body(HOLD))
            .expect("offers");
        let reinvite = bench.sent_one();
        bench.receive(&reply(&reinvite, status, "", ""));
        assert_eq!(labels(&bench.sent()), ["ACK", "BYE"]);
        let events = bench.events();
        assert!(
            matches!(events[0], AgentEvent::OfferAnswered { result: Err(s), .. } if s == status)
        );
        assert_eq!(ended_by(&events[1]), EndedBy::DialogLost);
        bench.assert_nothing_is_left();
    }
}

#[test]
fn silence_to_our_re_invite_ends_the_call() {
    let mut bench = Bench::new();
    let (leg, _) = bench.outgoing_confirmed();
    bench
        .agent
        .reinvite(bench.now, leg, body(HOLD))
        .expect("offers");
    bench.advance(32_000);
    let events = bench.events();
    assert!(matches!(
        events[0],
        AgentEvent::OfferAnswered {
            result: Err(408),
            ..
        }
    ));
    assert_eq!(ended_by(&events[1]), EndedBy::DialogLost);
    bench.assert_nothing_is_left();
}

#[test]
fn hangup_during_our_re_invite_acknowledges_its_late_answer() {
    let mut bench = Bench::new();
    let (leg, _) = bench.outgoing_confirmed();
    bench
        .agent
        .reinvite(bench.now, leg, body(HOLD))
        .expect("offers");
    let reinvite = bench.sent_one();
    bench.receive(&reply(&reinvite, 100, "", ""));
    bench.agent.hangup(bench.now, leg, None).expect("hangs up");
    assert_eq!(bench.sent_one().label(), "BYE");
    bench.receive(&reply(&reinvite, 200, "", HELD));
    assert_eq!(bench.sent_one().label(), "ACK");
    assert_eq!(ended_by(&bench.event()), EndedBy::LocalHangup);
    bench.assert_nothing_is_left();
}

#[test]
fn hangup_during_our_re_invite_leaves_nothing_even_without_its_answer() {
    let mut bench = Bench::new();
    let (leg, _) = bench.outgoing_confirmed();
    bench
        .agent
        .reinvite(bench.now, leg, body(HOLD))
        .expect("offers");
    let reinvite = bench.sent_one();
    bench.receive(&reply(&reinvite, 100, "", ""));
    bench.agent.hangup(bench.now, leg, None).expect("hangs up");
    bench.events();
    bench.assert_nothing_is_left();
}

#[test]
fn glare_owner_of_the_call_id_waits_2_to_4_seconds_and_the_other_up_to_2() {
    for (outgoing, earliest, latest) in [(true, 2_100, 4_000), (false, 0, 2_000)] {
        let mut bench = Bench::new();
        let leg = if outgoing {
            bench.outgoing_confirmed().0
        } else {
            bench.incoming_confirmed().0
        };
        bench
            .agent
            .reinvite(bench.now, leg, body(HOLD))
            .expect("offers");
        let first = bench.sent_one();
        bench.receive(&reply(&first, 491, "", ""));
        assert_eq!(bench.sent_one().label(), "ACK");
        assert!(bench.events().is_empty());
        let start = bench.now;
        let retry = loop {
            bench.advance(10);
            let sent = bench.sent();
            if let Some(retry) = sent.into_iter().find(|sent| sent.label() == "INVITE") {
                break retry;
            }
        };
        let waited = bench.now.nanos_since(start) / 1_000_000;
        assert!((earliest..=latest + 10).contains(&waited), "{waited} ms");
        assert_eq!(retry.body(), HOLD);
        assert_ne!(retry.branch(), first.branch());
        bench.receive(&reply(&retry, 200, "", HELD));
        assert!(matches!(
            bench.event(),
            AgentEvent::OfferAnswered { result: Ok(_), .. }
        ));
        bench.agent.hangup(bench.now, leg, None).expect("hangs up");
        bench.events();
        bench.assert_nothing_is_left();
    }
}

#[test]
fn glare_three_times_over_is_reported() {
    let mut bench = Bench::new();
    let (leg, _) = bench.outgoing_confirmed();
    bench
        .agent
        .reinvite(bench.now, leg, body(HOLD))
        .expect("offers");
    for _ in 0..3 {
        let sent = bench.sent();
        let reinvite = sent
            .iter()
            .find(|sent| sent.label() == "INVITE")
            .expect("tries")
            .clone();
        bench.receive(&reply(&reinvite, 491, "", ""));
        bench.advance(4_000);
    }
    assert!(matches!(
        bench.event(),
        AgentEvent::OfferAnswered {
            result: Err(491),
            ..
        }
    ));
}

#[test]
fn peer_that_offers_during_our_wait_wins_the_glare() {
    let mut bench = Bench::new();
    let (leg, invite) = bench.outgoing_confirmed();
    bench
        .agent
        .reinvite(bench.now, leg, body(HOLD))
        .expect("offers");
    let ours = bench.sent_one();
    bench.receive(&from_callee(&invite, "INVITE", 1, "z9hG4bKr", HOLD));
    assert_eq!(bench.sent_one().label(), "491 INVITE");
    bench.receive(&reply(&ours, 491, "", ""));
    bench.sent();
    bench.receive(&from_callee(&invite, "INVITE", 2, "z9hG4bKs", HOLD));
    let events = bench.events();
    assert!(matches!(
        events[0],
        AgentEvent::OfferAnswered {
            result: Err(491),
            ..
        }
    ));
    assert!(matches!(events[1], AgentEvent::Offer { .. }));
    bench
        .agent
        .accept_offer(bench.now, leg, body(HELD))
        .expect("accepts");
    bench.receive(&from_callee(&invite, "ACK", 2, "z9hG4bKt", ""));
    bench.sent();
    bench.advance(10_000);
    let sent = labels(&bench.sent());
    assert!(
        !sent.contains(&"INVITE".to_owned()),
        "our re-INVITE is given up"
    );
    bench.agent.hangup(bench.now, leg, None).expect("hangs up");
    bench.events();
    bench.assert_nothing_is_left();
}

#[test]
fn unacknowledged_re_invite_answer_ends_the_call() {
    let mut bench = Bench::new();
    let (leg, tag) = bench.incoming_confirmed();
    bench.receive(&in_dialog("INVITE", "in-1", 2, "z9hG4bKr", &tag, HOLD));
    bench.events();
    bench
        .agent
        .accept_offer(bench.now, leg, body(HELD))
        .expect("accepts");
    bench.advance(32_000);
    assert_eq!(ended_by(&bench.event()), EndedBy::AckTimeout);
    assert!(labels(&bench.sent()).contains(&"BYE".to_owned()));
    bench.assert_nothing_is_left();
}

#[test]
fn re_invite_from_a_new_connection_moves_the_dialog_there() {
    let mut bench = Bench::on_tcp();
    let (leg, tag) = bench.incoming_confirmed();
    let reinvite = in_dialog("INVITE", "in-1", 2, "z9hG4bKr", &tag, HOLD);
    bench.receive_on(tcp_flow(2), &reinvite);
    bench.events();
    bench
        .agent
        .accept_offer(bench.now, leg, body(HELD))
        .expect("accepts");
    assert_eq!(
        bench.sent_one().transmit.flow.connection,
        Some(trunkline_sip::ConnectionId(2))
    );
    bench.agent.hangup(bench.now, leg, None).expect("hangs up");
    assert_eq!(
        bench.sent_one().transmit.flow.connection,
        Some(trunkline_sip::ConnectionId(2))
    );
}

#[test]
fn update_that_crosses_our_re_invite_gets_491_and_both_go_on() {
    let mut bench = Bench::new();
    let (leg, invite) = bench.outgoing_confirmed();
    bench
        .agent
        .reinvite(bench.now, leg, body(ANSWER))
        .expect("stands");
    let reinvite = bench.sent_one();
    bench.receive(&from_callee(&invite, "UPDATE", 1, "z9hG4bKu1", OFFER));
    assert_eq!(bench.sent_one().label(), "491 UPDATE");
    bench.receive(&reply(&reinvite, 491, "b1", ""));
    assert_eq!(bench.sent_one().label(), "ACK");
    assert!(bench.events().is_empty());
    // The peer does not own the Call-ID and comes first.
    bench.advance(2_000);
    bench.receive(&from_callee(&invite, "UPDATE", 2, "z9hG4bKu2", OFFER));
    let events = bench.events();
    let [
        AgentEvent::OfferAnswered {
            result: Err(491), ..
        },
        AgentEvent::Offer { .. },
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    bench
        .agent
        .accept_offer(bench.now, leg, body(ANSWER))
        .expect("waits");
    assert_eq!(bench.sent_one().label(), "200 UPDATE");
    bench.agent.hangup(bench.now, leg, None).expect("stands");
    bench.events();
    bench.assert_nothing_is_left();
}
