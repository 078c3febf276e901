//! Session timers: RFC 4028, in both roles.

use sipx_sip::HeaderName;
use trunkline_sip::{AgentConfig, AgentEvent, EndedBy, SipLegId};

use crate::support::*;

const THEIRS: &str = "v=0\r\no=peer 1 2 IN IP4 198.51.100.9\r\n";
const INTERVAL_MS: u64 = 1_800_000;
/// Half an interval and its last 32 s.
const HALF_MS: u64 = INTERVAL_MS / 2;
const LAST_MS: u64 = INTERVAL_MS - 32_000;

fn with(text: &str, lines: &str) -> String {
    text.replacen("Contact:", &format!("{lines}Contact:"), 1)
}

fn expires(sent: &Sent) -> String {
    sent.header(HeaderName::SessionExpires)
}

// ---- the peer asks ------------------------------------------------------------------------------

/// The peer calls with `lines` in its INVITE and is answered: our 2xx.
fn answered(bench: &mut Bench, lines: &str) -> (SipLegId, Sent) {
    bench.receive(&with(&invite("in-1", "z9hG4bKinvite", OFFER), lines));
    let AgentEvent::Invite { leg, .. } = bench.event() else {
        panic!("an INVITE");
    };
    bench
        .agent
        .answer(bench.now, leg, body(ANSWER))
        .expect("answers");
    let ok = bench.sent_one();
    let tag = ok.tag(HeaderName::To);
    bench.receive(&in_dialog("ACK", "in-1", 1, "z9hG4bKack", &tag, ""));
    bench.event();
    (leg, ok)
}

#[test]
fn refresher_is_elected_as_table_2_of_rfc_4028_has_it() {
    for (lines, agreed, requires) in [
        ("", "", false),
        ("Supported: timer\r\n", "1800;refresher=uas", true),
        ("k: timer\r\nx: 600\r\n", "600;refresher=uas", true),
        (
            "Supported: timer\r\nSession-Expires: 600;refresher=uac\r\n",
            "600;refresher=uac",
            true,
        ),
        (
            "Supported: timer\r\nSession-Expires: 600;refresher=uas\r\n",
            "600;refresher=uas",
            true,
        ),
        // Put there by a proxy, for a caller that does not know it.
        ("Session-Expires: 600\r\n", "600;refresher=uas", false),
        (
            "Supported: timer\r\nMin-SE: 3600\r\n",
            "3600;refresher=uas",
            true,
        ),
        (
            "Supported: timer\r\nSession-Expires: 999999999\r\n",
            "86400;refresher=uas",
            true,
        ),
    ] {
        let mut bench = Bench::new();
        let (leg, ok) = answered(&mut bench, lines);
        assert_eq!(expires(&ok), agreed, "{lines:?}");
        assert_eq!(
            ok.header(HeaderName::Require) == "timer",
            requires,
            "{lines:?}"
        );
        bench.agent.hangup(bench.now, leg, None).expect("stands");
        bench.events();
        bench.assert_nothing_is_left();
    }
}

#[test]
fn interval_that_is_too_short_gets_422_and_one_that_cannot_be_read_400() {
    let mut bench = Bench::with(AgentConfig {
        min_se_secs: 120,
        ..AgentConfig::default()
    });
    let ask = |lines: &str| with(&invite("in-1", "z9hG4bKinvite", OFFER), lines);
    bench.receive(&ask("Supported: timer\r\nSession-Expires: 119\r\n"));
    let refused = bench.sent_one();
    assert_eq!(refused.label(), "422 INVITE");
    assert_eq!(refused.header(HeaderName::MinSe), "120");
    bench.receive(&ask("Session-Expires: soon\r\n"));
    assert_eq!(bench.sent_one().label(), "400 INVITE");
    assert!(bench.events().is_empty());

    let (leg, tag) = bench.incoming_confirmed();
    for method in ["INVITE", "UPDATE"] {
        let cseq = if method == "INVITE" { 2 } else { 3 };
        let text = in_dialog(method, "in-1", cseq, &format!("z9hG4bK{cseq}"), &tag, OFFER);
        bench.receive(&with(&text, "Supported: timer\r\nSession-Expires: 100\r\n"));
        let refused = bench.sent_one();
        assert_eq!(refused.label(), format!("422 {method}"));
        assert_eq!(refused.header(HeaderName::MinSe), "120");
    }
    assert!(bench.events().is_empty());
    bench.agent.hangup(bench.now, leg, None).expect("stands");
    bench.events();
    bench.assert_nothing_is_left();
}

#[test]
fn agent_that_asks_for_no_timer_still_serves_who_does() {
    let mut bench = Bench::with(AgentConfig {
        session_expires_secs: 0,
        ..AgentConfig::default()
    });
    let (leg, ok) = answered(&mut bench, "Supported: timer\r\n");
    assert_eq!(expires(&ok), "");
    bench.agent.hangup(bench.now, leg, None).expect("stands");
    bench.sent();
    bench.events();
    let (leg, invite) = bench.outgoing();
    assert_eq!(expires(&invite), "");
    bench.agent.cancel(bench.now, leg).expect("rings");
    bench.sent();
    bench.events();
    bench.receive(&reply(&invite, 487, "b1", ""));
    bench.assert_nothing_is_left();

    let mut bench = Bench::with(AgentConfig {
        session_expires_secs: 0,
        ..AgentConfig::default()
    });
    let (leg, ok) = answered(&mut bench, "Supported: timer\r\nSession-Expires: 600\r\n");
    assert_eq!(expires(&ok), "600;refresher=uas");
    bench.agent.hangup(bench.now, leg, None).expect("stands");
    bench.events();
    bench.assert_nothing_is_left();
}

#[test]
fn peer_that_does_not_refresh_in_time_is_hung_up() {
    let mut bench = Bench::new();
    answered(
        &mut bench,
        "Supported: timer\r\nSession-Expires: 1800;refresher=uac\r\n",
    );
    bench.advance(LAST_MS - 1);
    assert!(bench.sent().is_empty() && bench.events().is_empty());
    bench.advance(1);
    let bye = bench.sent_one();
    assert_eq!(bye.label(), "BYE");
    assert!(bye.header(HeaderName::Reason).starts_with("SIP;cause=408"));
    assert_eq!(ended_by(&bench.event()), EndedBy::SessionExpired);
    bench.assert_nothing_is_left();
}

#[test]
fn peers_refresh_starts_the_interval_anew() {
    let mut bench = Bench::new();
    let asks = "Supported: timer\r\nSession-Expires: 1800;refresher=uac\r\n";
    let (_, ok) = answered(&mut bench, asks);
    let tag = ok.tag(HeaderName::To);
    bench.advance(HALF_MS);
    let update = in_dialog("UPDATE", "in-1", 2, "z9hG4bKu", &tag, "");
    bench.receive(&with(&update, asks));
    let ok = bench.sent_one();
    assert_eq!(ok.label(), "200 UPDATE");
    assert_eq!(expires(&ok), "1800;refresher=uac");
    bench.advance(LAST_MS - 1);
    assert!(bench.sent().is_empty() && bench.events().is_empty());
    // A re-INVITE refreshes, too.
    let reinvite = in_dialog("INVITE", "in-1", 3, "z9hG4bKr", &tag, OFFER);
    bench.receive(&with(&reinvite, asks));
    let AgentEvent::Offer { leg, .. } = bench.event() else {
        panic!("an offer");
    };
    bench
        .agent
        .accept_offer(bench.now, leg, body(ANSWER))
        .expect("waits");
    assert_eq!(expires(&bench.sent_one()), "1800;refresher=uac");
    bench.receive(&in_dialog("ACK", "in-1", 3, "z9hG4bKack3", &tag, ""));
    bench.advance(LAST_MS - 1);
    assert!(bench.sent().is_empty() && bench.events().is_empty());
    bench.advance(1);
    assert_eq!(bench.sent_one().label(), "BYE");
    bench.events();
    bench.assert_nothing_is_left();
}

// ---- we ask -------------------------------------------------------------------------------------

/// We call, and the peer answers with `lines`.
fn called(bench: &mut Bench, lines: &str) -> (SipLegId, Sent) {
    let (leg, invite) = bench.outgoing();
    assert_eq!(expires(&invite), "1800");
    assert!(invite.header(HeaderName::Supported).contains("timer"));
    bench.receive(&with(&reply(&invite, 200, "b1", OFFER), lines));
    assert_eq!(bench.sent_one().label(), "ACK");
    bench.event();
    (leg, invite)
}

#[test]
fn interval_is_raised_to_what_a_422_asks_for() {
    let mut bench = Bench::new();
    let (leg, invite) = bench.outgoing();
    bench.receive(&with(&reply(&invite, 422, "c1", ""), "Min-SE: 3600\r\n"));
    let sent = bench.sent();
    assert_eq!(labels(&sent), ["ACK", "INVITE"]);
    let again = &sent[1];
    assert_eq!(expires(again), "3600");
    assert_eq!(again.header(HeaderName::MinSe), "3600");
    assert_eq!(again.header(HeaderName::CSeq), "2 INVITE");
    assert_eq!(
        again.header(HeaderName::CallId),
        invite.header(HeaderName::CallId)
    );
    assert_eq!(
        again.header(HeaderName::From),
        invite.header(HeaderName::From)
    );
    let ok = reply(again, 200, "b1", OFFER);
    bench.receive(&with(&ok, "Session-Expires: 3600;refresher=uac\r\n"));
    assert_eq!(bench.sent_one().header(HeaderName::CSeq), "2 ACK");
    bench.event();
    bench.agent.hangup(bench.now, leg, None).expect("stands");
    bench.events();
    bench.assert_nothing_is_left();
}

#[test]
fn peer_that_asks_for_the_impossible_is_given_up() {
    for lines in [
        "",
        "Min-SE: 1800\r\n",
        "Min-SE: 999999\r\n",
        "Min-SE: x\r\n",
    ] {
        let mut bench = Bench::new();
        let (_, invite) = bench.outgoing();
        bench.receive(&with(&reply(&invite, 422, "c1", ""), lines));
        assert_eq!(labels(&bench.sent()), ["ACK"]);
        assert!(matches!(
            bench.event(),
            AgentEvent::Rejected { status: 422, .. }
        ));
        bench.assert_nothing_is_left();
    }
    let mut bench = Bench::new();
    let (_, mut invite) = bench.outgoing();
    for least in [2_000, 3_000, 4_000] {
        let lines = format!("Min-SE: {least}\r\n");
        bench.receive(&with(&reply(&invite, 422, "c1", ""), &lines));
        invite = bench.sent().pop().expect("another");
        assert_eq!(invite.label(), "INVITE");
    }
    bench.receive(&with(&reply(&invite, 422, "c1", ""), "Min-SE: 5000\r\n"));
    assert!(matches!(
        bench.event(),
        AgentEvent::Rejected { status: 422, .. }
    ));
    bench.assert_nothing_is_left();
}

#[test]
fn session_is_refreshed_by_update_where_the_peer_takes_it() {
    let mut bench = Bench::new();
    let (leg, _) = called(
        &mut bench,
        "Allow: INVITE, UPDATE\r\nRequire: timer\r\nSession-Expires: 1800;refresher=uac\r\n",
    );
    for _ in 0..3 {
        bench.advance(HALF_MS - 1);
        assert!(bench.sent().is_empty());
        bench.advance(1);
        let update = bench.sent_one();
        assert_eq!(
            (update.label().as_str(), update.body().as_str()),
            ("UPDATE", "")
        );
        assert_eq!(expires(&update), "1800;refresher=uac");
        let ok = reply(&update, 200, "b1", "");
        bench.receive(&with(&ok, "Session-Expires: 1800;refresher=uac\r\n"));
    }
    assert!(bench.events().is_empty());
    bench.agent.hangup(bench.now, leg, None).expect("stands");
    bench.events();
    bench.assert_nothing_is_left();
}

#[test]
fn session_is_refreshed_by_reinvite_where_the_peer_takes_no_update() {
    let mut bench = Bench::new();
    let agreed = "Session-Expires: 1800;refresher=uac\r\n";
    let (leg, _) = called(&mut bench, agreed);
    bench.advance(HALF_MS);
    let reinvite = bench.sent_one();
    assert_eq!(reinvite.label(), "INVITE");
    assert_eq!(reinvite.body(), OFFER, "the description that stands");
    bench.receive(&with(&reply(&reinvite, 200, "b1", OFFER), agreed));
    assert_eq!(bench.sent_one().label(), "ACK");
    assert!(bench.events().is_empty(), "nothing has changed");
    bench.advance(HALF_MS);
    let reinvite = bench.sent_one();
    bench.receive(&with(&reply(&reinvite, 200, "b1", THEIRS), agreed));
    assert_eq!(bench.sent_one().label(), "ACK");
    let AgentEvent::AnswerInAck { sdp, .. } = bench.event() else {
        panic!("news");
    };
    assert_eq!(sdp, THEIRS);
    bench.agent.hangup(bench.now, leg, None).expect("stands");
    bench.events();
    bench.assert_nothing_is_left();
}

#[test]
fn peer_that_took_update_once_and_does_not_now_is_reinvited() {
    let mut bench = Bench::new();
    let (leg, _) = called(
        &mut bench,
        "Allow: INVITE, UPDATE\r\nSession-Expires: 1800;refresher=uac\r\n",
    );
    bench.advance(HALF_MS);
    let update = bench.sent_one();
    bench.receive(&reply(&update, 501, "b1", ""));
    bench.advance(0);
    assert_eq!(bench.sent_one().label(), "INVITE");
    bench.agent.hangup(bench.now, leg, None).expect("stands");
    bench.events();
    bench.assert_nothing_is_left();
}

#[test]
fn refresh_that_is_refused_is_tried_again_until_the_session_is_over() {
    let mut bench = Bench::new();
    called(
        &mut bench,
        "Allow: INVITE, UPDATE\r\nSession-Expires: 1800;refresher=uac\r\n",
    );
    let mut tries = 0;
    let ended = loop {
        bench.advance(1_000);
        for sent in bench.sent() {
            match sent.label().as_str() {
                "UPDATE" => {
                    tries += 1;
                    bench.receive(&reply(&sent, 503, "b1", ""));
                }
                label => assert_eq!(label, "BYE"),
            }
        }
        if let Some(event) = bench.events().pop() {
            break ended_by(&event);
        }
    };
    assert_eq!(ended, EndedBy::SessionExpired);
    assert!((3..200).contains(&tries), "{tries}");
    bench.assert_nothing_is_left();
}

#[test]
fn refresh_that_nobody_answers_ends_the_call() {
    for (lines, status) in [
        ("Allow: UPDATE\r\n", Some(481)),
        ("Allow: UPDATE\r\n", None),
        ("", Some(481)),
        ("", None),
    ] {
        let mut bench = Bench::new();
        let agreed = format!("{lines}Session-Expires: 1800;refresher=uac\r\n");
        called(&mut bench, &agreed);
        bench.advance(HALF_MS);
        let refresh = bench.sent_one();
        match status {
            Some(status) => bench.receive(&reply(&refresh, status, "b1", "")),
            None => bench.advance(32_000),
        }
        assert_eq!(ended_by(&bench.event()), EndedBy::DialogLost);
        assert!(labels(&bench.sent()).contains(&"BYE".to_owned()));
        bench.assert_nothing_is_left();
    }
}

#[test]
fn refresh_waits_for_an_open_offer_and_meets_glare() {
    let mut bench = Bench::new();
    let agreed = "Session-Expires: 1800;refresher=uac\r\n";
    let (leg, invite) = called(&mut bench, agreed);
    bench.advance(HALF_MS - 1_000);
    bench.receive(&from_callee(&invite, "INVITE", 1, "z9hG4bKr", THEIRS));
    assert!(matches!(bench.event(), AgentEvent::Offer { .. }));
    bench.advance(1_500);
    assert_eq!(labels(&bench.sent()), ["100 INVITE"], "an offer is open");
    bench
        .agent
        .reject_offer(bench.now, leg, 488)
        .expect("waits");
    assert_eq!(bench.sent_one().label(), "488 INVITE");
    bench.receive(&from_callee(&invite, "ACK", 1, "z9hG4bKr", ""));
    bench.advance(2_000);
    let refresh = bench.sent().swap_remove(0);
    assert_eq!(refresh.label(), "INVITE");
    bench.receive(&from_callee(&invite, "UPDATE", 2, "z9hG4bKu", THEIRS));
    assert_eq!(bench.sent_one().label(), "491 UPDATE");
    bench.receive(&reply(&refresh, 491, "b1", ""));
    assert_eq!(bench.sent_one().label(), "ACK");
    bench.advance(2_000);
    let again = bench.sent_one();
    assert_eq!(again.label(), "INVITE");
    bench.receive(&with(&reply(&again, 200, "b1", OFFER), agreed));
    bench.sent();
    bench.agent.hangup(bench.now, leg, None).expect("stands");
    bench.events();
    bench.assert_nothing_is_left();
}

#[test]
fn timer_ends_where_the_peer_no_longer_speaks_of_it() {
    let mut bench = Bench::new();
    let (leg, _) = called(
        &mut bench,
        "Allow: UPDATE\r\nSession-Expires: 1800;refresher=uas\r\n",
    );
    bench
        .agent
        .reinvite(bench.now, leg, body(OFFER))
        .expect("stands");
    let reinvite = bench.sent_one();
    assert_eq!(expires(&reinvite), "1800;refresher=uas");
    bench.receive(&reply(&reinvite, 200, "b1", OFFER));
    bench.sent();
    bench.events();
    bench.advance(3 * INTERVAL_MS);
    assert!(bench.sent().is_empty() && bench.events().is_empty());
    bench.agent.hangup(bench.now, leg, None).expect("stands");
    bench.events();
    bench.assert_nothing_is_left();
}

#[test]
fn refresh_is_driven_no_faster_than_the_rfc_allows() {
    let mut bench = Bench::new();
    let (leg, _) = called(&mut bench, "Allow: UPDATE\r\nSession-Expires: 1\r\n");
    bench.advance(44_999);
    assert!(bench.sent().is_empty());
    bench.advance(1);
    assert_eq!(bench.sent_one().label(), "UPDATE");
    bench.agent.hangup(bench.now, leg, None).expect("stands");
    bench.events();
    bench.assert_nothing_is_left();
}
