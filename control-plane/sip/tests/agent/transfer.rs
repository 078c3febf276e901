//! REFER and Replaces: RFC 3515, RFC 3891, RFC 4488.

use sipx_sip::HeaderName;
use trunkline_sip::{
    AgentEvent, EndedBy, LegError, ReferRequest, ReferTarget, Replaces, ReplacesError, SipLegId,
};

use crate::support::*;

/// The peer's REFER in the dialog of `incoming_confirmed`.
fn refer(tag: &str, cseq: u32, refer_to: &str, more: &str) -> String {
    let plain = in_dialog(
        "REFER",
        "in-1",
        cseq,
        &format!("z9hG4bKrefer{cseq}"),
        tag,
        "",
    );
    plain.replace(
        "Content-Length",
        &format!("Refer-To: {refer_to}\r\n{more}Content-Length"),
    )
}

/// A confirmed call on which the peer's REFER waits.
fn asked(bench: &mut Bench, more: &str) -> (SipLegId, String) {
    let (leg, tag) = bench.incoming_confirmed();
    bench.receive(&refer(&tag, 2, "<sip:carol@example.com>", more));
    assert!(bench.sent().is_empty());
    (leg, tag)
}

fn accepted(bench: &mut Bench) -> (SipLegId, String, Sent) {
    let (leg, tag) = asked(bench, "");
    bench.event();
    bench.agent.accept_refer(bench.now, leg).expect("waits");
    let sent = bench.sent();
    assert_eq!(labels(&sent), ["202 REFER", "NOTIFY"]);
    (leg, tag, sent.into_iter().nth(1).expect("two"))
}

fn state_of(notify: &Sent) -> String {
    notify.header(HeaderName::SubscriptionState)
}

#[test]
fn refer_is_accepted_and_its_course_told_in_notifys() {
    let mut bench = Bench::new();
    let (leg, tag) = bench.incoming_confirmed();
    let more = "Referred-By: <sip:alice@carrier.example>\r\n";
    bench.receive(&refer(
        &tag,
        2,
        "<sip:carol@example.com;transport=tcp>",
        more,
    ));
    let AgentEvent::Refer {
        leg: on,
        refer_to,
        referred_by,
        wants_notify,
    } = bench.event()
    else {
        panic!("a REFER");
    };
    assert_eq!((on, wants_notify), (leg, true));
    assert_eq!(
        refer_to.uri.to_string(),
        "sip:carol@example.com;transport=tcp"
    );
    assert!(refer_to.replaces.is_none());
    assert_eq!(
        referred_by.as_deref(),
        Some(&b"<sip:alice@carrier.example>"[..])
    );

    bench.agent.accept_refer(bench.now, leg).expect("waits");
    let sent = bench.sent();
    assert_eq!(labels(&sent), ["202 REFER", "NOTIFY"]);
    assert!(sent[0].headers(HeaderName::ReferSub).is_empty());
    let trying = &sent[1];
    assert_eq!(trying.header(HeaderName::Event), "refer;id=2");
    assert_eq!(state_of(trying), "active;expires=300");
    assert_eq!(
        trying.header(HeaderName::ContentType),
        "message/sipfrag;version=2.0"
    );
    assert_eq!(trying.body(), "SIP/2.0 100 Trying\r\n");
    assert_eq!(trying.request_uri(), format!("sip:alice@{PEER}"));

    // What happens while a NOTIFY is out is told by the last.
    bench
        .agent
        .notify_refer(bench.now, leg, 180, None, false)
        .expect("stands");
    bench
        .agent
        .notify_refer(bench.now, leg, 183, None, false)
        .expect("stands");
    assert!(bench.sent().is_empty());
    bench.receive(&reply(trying, 200, "", ""));
    let progress = bench.sent_one();
    assert_eq!(progress.body(), "SIP/2.0 183 Session Progress\r\n");
    bench.receive(&reply(&progress, 200, "", ""));
    bench
        .agent
        .notify_refer(bench.now, leg, 200, Some("Fine\r\nX: y"), true)
        .expect("stands");
    let last = bench.sent_one();
    assert_eq!(last.body(), "SIP/2.0 200 FineX: y\r\n");
    assert_eq!(state_of(&last), "terminated;reason=noresource");
    bench.receive(&reply(&last, 200, "", ""));

    // The subscription is over: nobody is told, and a new REFER may come.
    bench
        .agent
        .notify_refer(bench.now, leg, 486, None, true)
        .expect("harmless");
    assert!(bench.sent().is_empty());
    bench.receive(&refer(&tag, 3, "tel:+15550100", ""));
    let AgentEvent::Refer { refer_to, .. } = bench.event() else {
        panic!("a REFER");
    };
    assert_eq!(refer_to.uri.to_string(), "tel:+15550100");
    bench
        .agent
        .reject_refer(bench.now, leg, 603)
        .expect("waits");
    assert_eq!(bench.sent_one().label(), "603 REFER");
    bench.agent.hangup(bench.now, leg, None).expect("stands");
    bench.event();
    bench.assert_nothing_is_left();
}

#[test]
fn refer_without_subscription_is_accepted_and_never_told() {
    let mut bench = Bench::new();
    let (leg, _) = asked(&mut bench, "Refer-Sub: false\r\nSupported: norefersub\r\n");
    assert!(matches!(
        bench.event(),
        AgentEvent::Refer {
            wants_notify: false,
            ..
        }
    ));
    bench.agent.accept_refer(bench.now, leg).expect("waits");
    let accepted = bench.sent_one();
    assert_eq!(accepted.label(), "202 REFER");
    assert_eq!(accepted.header(HeaderName::ReferSub), "false");
    bench
        .agent
        .notify_refer(bench.now, leg, 200, None, true)
        .expect("harmless");
    assert!(bench.sent().is_empty());
    bench.agent.hangup(bench.now, leg, None).expect("stands");
    bench.event();
    bench.assert_nothing_is_left();
}

#[test]
fn second_refer_waits_its_turn_and_what_cannot_be_followed_is_refused() {
    let mut bench = Bench::new();
    let (leg, tag) = bench.incoming_confirmed();
    for (number, refer_to, status) in [
        (2, "<mailto:a@b>", "416 REFER"),
        (3, "<sip:a@b>, <sip:c@d>", "400 REFER"),
        (4, "<sip:a@b;method=BYE>", "501 REFER"),
        (5, "<sip:a@b?Replaces=x>", "400 REFER"),
    ] {
        bench.receive(&refer(&tag, number, refer_to, ""));
        assert_eq!(bench.sent_one().label(), status);
    }
    bench.receive(&refer(&tag, 6, "<sip:a@b>", ""));
    bench.event();
    bench.receive(&refer(&tag, 7, "<sip:c@d>", ""));
    assert_eq!(bench.sent_one().label(), "491 REFER");
    assert_eq!(
        bench.agent.reject_refer(bench.now, leg, 200),
        Err(LegError::Status(200))
    );
    assert_eq!(
        bench.agent.notify_refer(bench.now, leg, 180, None, false),
        Err(LegError::WrongState)
    );
    bench.agent.hangup(bench.now, leg, None).expect("stands");
    assert_eq!(labels(&bench.sent()), ["BYE", "481 REFER"]);
    bench.event();
    bench.assert_nothing_is_left();
}

#[test]
fn refer_on_a_call_that_nobody_answered_is_refused() {
    let mut bench = Bench::new();
    let (leg, _) = bench.incoming();
    bench
        .agent
        .provisional(bench.now, leg, 180, None)
        .expect("rings");
    let tag = bench.sent_one().tag(HeaderName::To);
    bench.receive(&refer(&tag, 2, "<sip:a@b>", ""));
    assert_eq!(bench.sent_one().label(), "403 REFER");
    bench.agent.hangup(bench.now, leg, None).expect("stands");
    bench.event();
    bench.assert_nothing_is_left();
}

#[test]
fn peer_that_refuses_a_notify_hears_no_more() {
    for status in [481, 405, 500] {
        let mut bench = Bench::new();
        let (leg, _, notify) = accepted(&mut bench);
        bench.receive(&reply(&notify, status, "", ""));
        bench
            .agent
            .notify_refer(bench.now, leg, 200, None, true)
            .expect("harmless");
        assert!(bench.sent().is_empty());
        bench.agent.hangup(bench.now, leg, None).expect("stands");
        bench.event();
        bench.assert_nothing_is_left();
    }
}

#[test]
fn subscription_runs_out_with_a_last_notify() {
    let mut bench = Bench::new();
    let (leg, _, notify) = accepted(&mut bench);
    bench.receive(&reply(&notify, 200, "", ""));
    bench.advance(299_999);
    assert!(bench.sent().is_empty());
    bench.advance(1);
    let last = bench.sent_one();
    assert_eq!(state_of(&last), "terminated;reason=timeout");
    bench.receive(&reply(&last, 200, "", ""));
    bench
        .agent
        .notify_refer(bench.now, leg, 200, None, true)
        .expect("harmless");
    assert!(bench.sent().is_empty());
    bench.agent.hangup(bench.now, leg, None).expect("stands");
    bench.event();
    bench.assert_nothing_is_left();
}

#[test]
fn peer_unsubscribes_and_hears_the_last_of_it() {
    let mut bench = Bench::new();
    let (leg, tag, notify) = accepted(&mut bench);
    bench.receive(&reply(&notify, 200, "", ""));
    let subscribe = |cseq, event: &str, expires: u32| {
        let plain = in_dialog(
            "SUBSCRIBE",
            "in-1",
            cseq,
            &format!("z9hG4bKs{cseq}"),
            &tag,
            "",
        );
        let more = format!("Event: {event}\r\nExpires: {expires}\r\nContent-Length");
        plain.replace("Content-Length", &more)
    };
    bench.receive(&subscribe(3, "refer;id=9", 60));
    assert_eq!(bench.sent_one().label(), "481 SUBSCRIBE");
    bench.receive(&subscribe(4, "refer;id=2", 60));
    let sent = bench.sent();
    assert_eq!(labels(&sent), ["200 SUBSCRIBE", "NOTIFY"]);
    assert_eq!(sent[0].header(HeaderName::Expires), "60");
    assert_eq!(state_of(&sent[1]), "active;expires=60");
    bench.receive(&reply(&sent[1], 200, "", ""));
    bench.receive(&subscribe(5, "refer", 0));
    let sent = bench.sent();
    assert_eq!(labels(&sent), ["200 SUBSCRIBE", "NOTIFY"]);
    assert_eq!(state_of(&sent[1]), "terminated;reason=timeout");
    bench.receive(&reply(&sent[1], 200, "", ""));
    bench.receive(&subscribe(6, "refer", 60));
    assert_eq!(bench.sent_one().label(), "489 SUBSCRIBE");
    bench.agent.hangup(bench.now, leg, None).expect("stands");
    bench.event();
    bench.assert_nothing_is_left();
}

#[test]
fn transferor_that_hangs_up_hears_no_more_and_leaves_nothing() {
    let mut bench = Bench::new();
    let (leg, tag, notify) = accepted(&mut bench);
    bench.receive(&in_dialog("BYE", "in-1", 3, "z9hG4bKbye", &tag, ""));
    assert_eq!(bench.sent_one().label(), "200 BYE");
    assert_eq!(ended_by(&bench.event()), EndedBy::Bye);
    assert_eq!(
        bench.agent.notify_refer(bench.now, leg, 200, None, true),
        Err(LegError::UnknownLeg)
    );
    bench.receive(&reply(&notify, 200, "", ""));
    bench.assert_nothing_is_left();
}

// ---- ours ---------------------------------------------------------------------------------------

fn notify(invite: &Sent, cseq: u32, event: &str, state: &str, frag: &str) -> String {
    let plain = from_callee(invite, "NOTIFY", cseq, &format!("z9hG4bKn{cseq}"), frag);
    plain.replace("application/sdp", "message/sipfrag").replace(
        "Content-Length",
        &format!("Event: {event}\r\nSubscription-State: {state}\r\nContent-Length"),
    )
}

fn carol(wants_notify: bool) -> ReferRequest {
    ReferRequest {
        target: ReferTarget {
            uri: uri("sip:carol@example.com"),
            replaces: Replaces::parse(b"c9@h;to-tag=t;from-tag=f"),
        },
        referred_by: Some(body("<sip:alice@example.com>")),
        wants_notify,
    }
}

#[test]
fn our_refer_is_followed_through_its_notifys() {
    let mut bench = Bench::new();
    let (leg, invite) = bench.outgoing_confirmed();
    bench
        .agent
        .refer(bench.now, leg, &carol(true))
        .expect("stands");
    let refer = bench.sent_one();
    assert_eq!(refer.label(), "REFER");
    assert_eq!(
        refer.header(HeaderName::ReferTo),
        "<sip:carol@example.com?Replaces=c9%40h%3Bto-tag%3Dt%3Bfrom-tag%3Df>"
    );
    assert_eq!(
        refer.header(HeaderName::ReferredBy),
        "<sip:alice@example.com>"
    );
    assert_eq!(
        bench.agent.refer(bench.now, leg, &carol(true)),
        Err(LegError::ReferPending)
    );
    // The first NOTIFY may overtake the 202.
    bench.receive(&notify(
        &invite,
        1,
        "refer",
        "active;expires=60",
        "SIP/2.0 100 Trying\r\n",
    ));
    assert_eq!(bench.sent_one().label(), "200 NOTIFY");
    assert!(matches!(
        bench.event(),
        AgentEvent::ReferProgress {
            status: Some(100),
            is_final: false,
            ..
        }
    ));
    bench.receive(&reply(&refer, 202, "b1", ""));
    assert!(matches!(
        bench.event(),
        AgentEvent::ReferAnswered {
            status: 202,
            will_notify: true,
            ..
        }
    ));
    let id = refer.header(HeaderName::CSeq);
    let id = id.split(' ').next().unwrap_or_default();
    bench.receive(&notify(
        &invite,
        2,
        "refer;id=77",
        "active",
        "SIP/2.0 180 Ringing\r\n",
    ));
    assert_eq!(bench.sent_one().label(), "481 NOTIFY");
    let event = format!("refer;id={id}");
    bench.receive(&notify(
        &invite,
        3,
        &event,
        "terminated;reason=noresource",
        "SIP/2.0 200 OK\r\n",
    ));
    assert_eq!(bench.sent_one().label(), "200 NOTIFY");
    assert!(matches!(
        bench.event(),
        AgentEvent::ReferProgress {
            status: Some(200),
            is_final: true,
            ..
        }
    ));
    bench.receive(&notify(&invite, 4, &event, "active", "SIP/2.0 200 OK\r\n"));
    assert_eq!(bench.sent_one().label(), "481 NOTIFY");
    bench.receive(&notify(&invite, 5, "talk", "active", ""));
    assert_eq!(bench.sent_one().label(), "489 NOTIFY");
    bench.agent.hangup(bench.now, leg, None).expect("stands");
    bench.event();
    bench.assert_nothing_is_left();
}

#[test]
fn our_refer_without_subscription_ends_with_its_answer() {
    let mut bench = Bench::new();
    let (leg, _) = bench.outgoing_confirmed();
    for (more, will_notify) in [("Refer-Sub: false\r\n", false), ("", true)] {
        bench
            .agent
            .refer(bench.now, leg, &carol(false))
            .expect("stands");
        let refer = bench.sent_one();
        assert_eq!(refer.header(HeaderName::ReferSub), "false");
        let accepted = reply(&refer, 202, "b1", "");
        bench.receive(&accepted.replace("Content-Length", &format!("{more}Content-Length")));
        let AgentEvent::ReferAnswered {
            will_notify: told, ..
        } = bench.event()
        else {
            panic!("an answer");
        };
        assert_eq!(told, will_notify);
    }
    bench.agent.hangup(bench.now, leg, None).expect("stands");
    bench.event();
    bench.assert_nothing_is_left();
}

#[test]
fn refused_lost_and_forgotten_refers_are_told() {
    let mut bench = Bench::new();
    let (leg, _) = bench.outgoing_confirmed();
    bench
        .agent
        .refer(bench.now, leg, &carol(true))
        .expect("stands");
    let refer = bench.sent_one();
    bench.receive(&reply(&refer, 603, "b1", ""));
    assert!(matches!(
        bench.event(),
        AgentEvent::ReferAnswered {
            status: 603,
            will_notify: false,
            ..
        }
    ));
    bench
        .agent
        .refer(bench.now, leg, &carol(true))
        .expect("free again");
    bench.advance(32_000);
    assert!(matches!(
        bench.event(),
        AgentEvent::ReferAnswered {
            status: 408,
            will_notify: false,
            ..
        }
    ));
    bench.sent();
    bench
        .agent
        .refer(bench.now, leg, &carol(true))
        .expect("free again");
    let refer = bench.sent_one();
    bench.receive(&reply(&refer, 202, "b1", ""));
    bench.event();
    bench.advance(300_000);
    assert!(matches!(
        bench.event(),
        AgentEvent::ReferProgress {
            status: None,
            is_final: true,
            ..
        }
    ));
    bench.agent.hangup(bench.now, leg, None).expect("stands");
    bench.event();
    bench.assert_nothing_is_left();
}

// ---- Replaces -----------------------------------------------------------------------------------

/// An INVITE of another peer that wants the place of a dialog.
fn replacing(value: &str) -> String {
    invite("in-9", "z9hG4bKreplacing", OFFER).replace(
        "Content-Type",
        &format!("Require: replaces\r\nReplaces: {value}\r\nContent-Type"),
    )
}

#[test]
fn invite_with_replaces_names_the_confirmed_leg() {
    let mut bench = Bench::new();
    let (leg, tag) = bench.incoming_confirmed();
    bench.receive(&replacing(&format!("in-1;from-tag=a1;to-tag={tag}")));
    let AgentEvent::Invite {
        leg: new, replaces, ..
    } = bench.event()
    else {
        panic!("an INVITE");
    };
    assert_eq!(replaces, Some(leg));
    bench
        .agent
        .answer(bench.now, new, body(ANSWER))
        .expect("answers");
    assert_eq!(bench.sent_one().label(), "200 INVITE");
    bench.agent.hangup(bench.now, leg, None).expect("stands");
    assert_eq!(bench.sent_one().label(), "BYE");
    bench.agent.hangup(bench.now, new, None).expect("stands");
    bench.events();
    bench.assert_nothing_is_left();
}

#[test]
fn early_dialog_of_ours_is_replaced_and_one_of_the_peer_is_not() {
    let mut bench = Bench::new();
    let (leg, invite) = bench.outgoing();
    bench.receive(&reply(&invite, 180, "b1", ""));
    bench.event();
    let (call_id, ours) = (
        invite.header(HeaderName::CallId),
        invite.tag(HeaderName::From),
    );
    bench.receive(&replacing(&format!(
        "{call_id};to-tag={ours};from-tag=b1;early-only"
    )));
    let AgentEvent::Invite {
        leg: new, replaces, ..
    } = bench.event()
    else {
        panic!("an INVITE");
    };
    assert_eq!(replaces, Some(leg));
    bench
        .agent
        .reject(bench.now, new, 603, None, Vec::new())
        .expect("waits");
    bench.agent.cancel(bench.now, leg).expect("rings");
    bench.events();
    bench.assert_nothing_is_left();

    let mut bench = Bench::new();
    let (leg, _) = bench.incoming();
    bench
        .agent
        .provisional(bench.now, leg, 180, None)
        .expect("rings");
    let tag = bench.sent_one().tag(HeaderName::To);
    bench.receive(&replacing(&format!("in-1;to-tag={tag};from-tag=a1")));
    assert_eq!(bench.sent_one().label(), "481 INVITE");
}

#[test]
fn replaces_that_names_nothing_is_refused_with_its_status() {
    let mut bench = Bench::new();
    let (leg, tag) = bench.incoming_confirmed();
    for (value, status) in [
        (
            format!("in-1;to-tag={tag};from-tag=a1;early-only"),
            "486 INVITE",
        ),
        (format!("in-2;to-tag={tag};from-tag=a1"), "481 INVITE"),
        (format!("in-1;to-tag={tag};from-tag=a2"), "481 INVITE"),
        (
            "in-1;to-tag=0123456789abcdef;from-tag=a1".to_owned(),
            "481 INVITE",
        ),
        ("in-1;to-tag=x".to_owned(), "400 INVITE"),
        (
            format!("in-1;to-tag={tag};from-tag=a1\r\nReplaces: b;to-tag=1;from-tag=2"),
            "400 INVITE",
        ),
    ] {
        bench.receive(&replacing(&value));
        assert_eq!(bench.sent_one().label(), status, "{value}");
        assert!(bench.events().is_empty());
    }
    bench.agent.hangup(bench.now, leg, None).expect("stands");
    bench.event();
    bench.sent();
    bench.receive(&replacing(&format!("in-1;to-tag={tag};from-tag=a1")));
    assert_eq!(bench.sent_one().label(), "603 INVITE");
    bench.assert_nothing_is_left();
}

#[test]
fn attended_transfer_between_two_calls_of_one_phone_is_resolved_here() {
    let mut bench = Bench::new();
    let (first, tag) = bench.incoming_confirmed();
    let (second, _) = bench.outgoing_confirmed();
    let name = bench.agent.dialog_of_leg(second).expect("has a name");
    // The phone names its dialog as we would read it: our tag is the `to-tag`.
    let name = format!(
        "{}%3Bto-tag%3D{}%3Bfrom-tag%3D{}",
        String::from_utf8_lossy(&name.call_id),
        String::from_utf8_lossy(&name.from_tag),
        String::from_utf8_lossy(&name.to_tag)
    );
    bench.receive(&refer(
        &tag,
        2,
        &format!("<sip:bob@203.0.113.1?Replaces={name}>"),
        "",
    ));
    let AgentEvent::Refer { leg, refer_to, .. } = bench.event() else {
        panic!("a REFER");
    };
    assert_eq!(leg, first);
    let replaces = refer_to.replaces.expect("an attended transfer");
    assert_eq!(bench.agent.leg_of_dialog(&replaces), Ok(second));
    let elsewhere = Replaces {
        call_id: body("x"),
        ..replaces
    };
    assert_eq!(
        bench.agent.leg_of_dialog(&elsewhere),
        Err(ReplacesError::Unknown)
    );
    for leg in [first, second] {
        bench.agent.hangup(bench.now, leg, None).expect("stands");
    }
    bench.events();
    bench.assert_nothing_is_left();
}
