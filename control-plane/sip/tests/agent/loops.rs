//! Requests that have travelled too far or in a circle, and why calls end: RFC 3261 §16.3,
//! RFC 3326.

use sipx_sip::{Header, HeaderName};
use trunkline_sip::{AgentEvent, EndCause, EndedBy};

use crate::support::*;

/// Our INVITE as a proxy sends it back to us.
fn returned(invite: &Sent, target: &str) -> String {
    let own = format!("INVITE {}", invite.request_uri());
    assert!(invite.text.starts_with(&own));
    invite
        .text
        .replacen(&own, &format!("INVITE {target}"), 1)
        .replacen(
            "Via:",
            &format!("Via: SIP/2.0/UDP {PEER};branch=z9hG4bKproxy\r\nVia:"),
            1,
        )
}

#[test]
fn our_own_invite_that_comes_back_as_it_was_gets_482() {
    let mut bench = Bench::new();
    let (leg, invite) = bench.outgoing();
    bench.receive(&returned(&invite, &invite.request_uri()));
    assert_eq!(bench.sent_one().label(), "482 INVITE");
    assert!(bench.events().is_empty());
    bench.agent.cancel(bench.now, leg).expect("rings");
    bench.events();
    bench.receive(&reply(&invite, 482, "p1", ""));
    bench.assert_nothing_is_left();
}

#[test]
fn our_own_invite_that_comes_back_for_somebody_else_is_a_call() {
    let mut bench = Bench::new();
    let (leg, invite) = bench.outgoing();
    bench.receive(&returned(&invite, "sip:+15550199@203.0.113.1"));
    let AgentEvent::Invite { leg: new, .. } = bench.event() else {
        panic!("an INVITE");
    };
    for leg in [leg, new] {
        bench.agent.hangup(bench.now, leg, None).expect("lives");
    }
    bench.events();
    bench.receive(&reply(&invite, 487, "p1", ""));
    bench.assert_nothing_is_left();
}

#[test]
fn invite_with_no_hop_left_gets_483_and_one_with_one_is_let_in() {
    for (hops, label) in [("0", Some("483 INVITE")), ("1", None)] {
        let mut bench = Bench::new();
        let text = invite("in-1", "z9hG4bKinvite", OFFER);
        bench.receive(&text.replace("Max-Forwards: 70", &format!("Max-Forwards: {hops}")));
        match label {
            Some(label) => assert_eq!(bench.sent_one().label(), label),
            None => {
                let AgentEvent::Invite { leg, .. } = bench.event() else {
                    panic!("an INVITE");
                };
                // What it is sent on with is one less.
                let mut request = invite_request(bench.flow.clone());
                request.max_forwards = 0;
                let onward = bench.agent.invite(bench.now, request).expect("sends");
                assert_eq!(bench.sent_one().header(HeaderName::MaxForwards), "0");
                for leg in [leg, onward] {
                    bench.agent.hangup(bench.now, leg, None).expect("lives");
                }
                bench.events();
            }
        }
        bench.assert_nothing_is_left();
    }
}

#[test]
fn options_with_no_hop_left_are_for_us() {
    let mut bench = Bench::new();
    bench.receive(&format!(
        "OPTIONS sip:203.0.113.1 SIP/2.0\r\nVia: SIP/2.0/UDP {PEER};branch=z9hG4bKo\r\n\
         Max-Forwards: 0\r\nFrom: <sip:alice@carrier.example>;tag=a1\r\n\
         To: <sip:203.0.113.1>\r\nCall-ID: o\r\nCSeq: 1 OPTIONS\r\n\r\n"
    ));
    assert!(matches!(bench.event(), AgentEvent::Request { .. }));
}

// ---- why calls end ------------------------------------------------------------------------------

#[test]
fn reason_of_a_bye_is_told_to_the_user() {
    let both = EndCause {
        q850: Some(31),
        sip: Some(503),
    };
    for (lines, cause) in [
        ("", EndCause::NONE),
        (
            "Reason: Q.850;cause=16;text=\"Normal, clearing\"\r\n",
            EndCause::q850(16),
        ),
        ("Reason: q.850 ; cause=17\r\n", EndCause::q850(17)),
        (
            "Reason: SIP;cause=200;text=\"Call completed elsewhere\"\r\n",
            EndCause::sip(200),
        ),
        ("Reason: Q.850;cause=31, SIP;cause=503\r\n", both),
        ("Reason: SIP;cause=503\r\nReason: Q.850;cause=31\r\n", both),
        (
            "Reason: Q.850;cause=31, Q.850;cause=16, SIP;cause=503\r\n",
            both,
        ),
        ("Reason: X;cause=1\r\n", EndCause::NONE),
        ("Reason: Q.850;cause=128\r\n", EndCause::NONE),
        ("Reason: SIP;cause=99\r\n", EndCause::NONE),
        (
            "Reason: garbage\r\nReason: Q.850;cause=1\r\n",
            EndCause::q850(1),
        ),
    ] {
        let mut bench = Bench::new();
        let (_, tag) = bench.incoming_confirmed();
        let bye = in_dialog("BYE", "in-1", 2, "z9hG4bKbye", &tag, "");
        bench.receive(&bye.replace("Contact:", &format!("{lines}Contact:")));
        bench.sent();
        let AgentEvent::Ended {
            by, cause: told, ..
        } = bench.event()
        else {
            panic!("an end");
        };
        assert_eq!((by, told), (EndedBy::Bye, cause), "{lines}");
        bench.assert_nothing_is_left();
    }
}

#[test]
fn reason_of_a_cancel_and_of_a_refusal_is_told_to_the_user() {
    let mut bench = Bench::new();
    let (_, text) = bench.incoming();
    let cancel = cancel_of(&text);
    bench.receive(&cancel.replace("Contact:", "Reason: SIP;cause=200\r\nContact:"));
    bench.sent();
    let AgentEvent::Ended { by, cause, .. } = bench.event() else {
        panic!("an end");
    };
    assert_eq!((by, cause), (EndedBy::Cancelled, EndCause::sip(200)));

    let (_, invite) = bench.outgoing();
    let busy = reply(&invite, 486, "b1", "");
    bench.receive(&busy.replace("Contact:", "Reason: Q.850;cause=17\r\nContact:"));
    let AgentEvent::Rejected {
        status,
        cause,
        response,
        ..
    } = bench.event()
    else {
        panic!("a refusal");
    };
    assert_eq!((status, cause), (486, EndCause::q850(17)));
    assert!(response.is_some());
    bench.assert_nothing_is_left();
}

#[test]
fn reason_of_the_user_goes_into_whatever_ends_the_leg() {
    let cause = EndCause {
        q850: Some(16),
        sip: Some(200),
    };
    let value = cause.header_value().expect("two causes");
    assert_eq!(value, "Q.850;cause=16, SIP;cause=200");
    assert_eq!(EndCause::NONE.header_value(), None);

    // 480 to a ringing caller, and a refusal.
    let mut bench = Bench::new();
    let (leg, _) = bench.incoming();
    bench
        .agent
        .hangup(bench.now, leg, Some(&value))
        .expect("rings");
    let refused = bench.sent_one();
    assert_eq!(refused.label(), "480 INVITE");
    assert_eq!(refused.header(HeaderName::Reason), value);
    bench.event();
    bench.assert_nothing_is_left();
    let mut bench = Bench::new();
    let (leg, _) = bench.incoming();
    let rows = vec![Header::build(HeaderName::Reason, value.clone()).expect("valid")];
    bench
        .agent
        .reject(bench.now, leg, 486, None, rows)
        .expect("rings");
    assert_eq!(bench.sent_one().header(HeaderName::Reason), value);
    bench.event();
    bench.assert_nothing_is_left();

    // CANCEL, at once and owed, and BYE.
    for rings in [true, false] {
        let mut bench = Bench::new();
        let (leg, invite) = bench.outgoing();
        if rings {
            bench.receive(&reply(&invite, 180, "b1", ""));
            bench.event();
        }
        bench
            .agent
            .hangup(bench.now, leg, Some(&value))
            .expect("rings");
        if !rings {
            bench.receive(&reply(&invite, 100, "", ""));
        }
        let cancel = bench.sent_one();
        assert_eq!(cancel.label(), "CANCEL");
        assert_eq!(cancel.header(HeaderName::Reason), value);
        bench.receive(&reply(&invite, 487, "b1", ""));
        bench.event();
        bench.assert_nothing_is_left();
    }
    let mut bench = Bench::new();
    let (leg, _) = bench.outgoing_confirmed();
    bench
        .agent
        .hangup(bench.now, leg, Some(&value))
        .expect("stands");
    assert_eq!(bench.sent_one().header(HeaderName::Reason), value);
    bench.event();
    bench.assert_nothing_is_left();
}
