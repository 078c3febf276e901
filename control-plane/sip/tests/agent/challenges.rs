//! Requests of ours outside dialogs, and challenges to any request of ours: RFC 3261 §22.

use std::sync::Arc;

use bytes::Bytes;
use sipx_sip::{Header, HeaderName, Method};
use trunkline_sip::{
    AgentConfig, AgentEvent, ClientCredentials, ClientRequest, ClientRequestId, RequestError,
    RequestSequence,
};

use crate::support::*;

const CHALLENGE: &str =
    "WWW-Authenticate: Digest realm=\"carrier\", nonce=\"n1\", algorithm=SHA-256, qop=\"auth\"\r\n";

fn credentials() -> Option<Arc<ClientCredentials>> {
    let credentials = ClientCredentials::with_password("trunk", "s3cret");
    Some(Arc::new(credentials))
}

fn register(flow: trunkline_sip::Flow) -> ClientRequest {
    let us = trunkline_sip::NameAddr {
        display_name: None,
        uri: uri("sip:trunk@carrier.example"),
    };
    ClientRequest {
        method: Method::Register,
        target: uri("sip:carrier.example"),
        flow,
        from: us.clone(),
        to: us,
        headers: vec![Header::build(HeaderName::Expires, "3600").expect("valid")],
        body: Bytes::new(),
        credentials: credentials(),
        sequence: None,
    }
}

fn registering(bench: &mut Bench) -> (ClientRequestId, Sent) {
    let request = register(bench.flow.clone());
    let id = bench.agent.request(bench.now, request).expect("sends");
    let sent = bench.sent_one();
    assert_eq!(sent.label(), "REGISTER");
    (id, sent)
}

/// The peer's refusal, with more headers.
fn challenge(request: &Sent, status: u16, more: &str) -> String {
    let plain = reply(request, status, "c1", "");
    plain.replace("Content-Length", &format!("{more}Content-Length"))
}

fn cseq(sent: &Sent) -> u32 {
    let value = sent.header(HeaderName::CSeq);
    let number = value.split(' ').next().unwrap_or_default();
    number.parse().expect("a number")
}

fn assert_is_next_attempt(again: &Sent, first: &Sent) {
    assert_eq!(again.label(), first.label());
    assert_eq!(cseq(again), cseq(first) + 1);
    assert_ne!(again.branch(), first.branch());
    for name in [HeaderName::CallId, HeaderName::From, HeaderName::To] {
        assert_eq!(again.header(name.clone()), first.header(name));
    }
    assert_eq!(again.request_uri(), first.request_uri());
    assert_eq!(again.body(), first.body());
    assert!(again.header(HeaderName::Authorization).contains("nonce="));
}

#[test]
fn register_has_a_contact_and_is_answered_once() {
    let mut bench = Bench::new();
    let (id, sent) = registering(&mut bench);
    assert_eq!(
        sent.header(HeaderName::Contact),
        format!("<sip:trunk@{US}>")
    );
    assert_eq!(sent.header(HeaderName::Expires), "3600");
    assert_eq!(sent.header(HeaderName::MaxForwards), "70");
    assert_eq!(cseq(&sent), 1);
    bench.receive(&reply(&sent, 100, "", ""));
    assert!(bench.events().is_empty());
    let ok = reply(&sent, 200, "r1", "");
    bench.receive(&ok);
    let AgentEvent::Response {
        id: answered,
        status,
        response,
        sequence,
    } = bench.event()
    else {
        panic!("a response");
    };
    assert_eq!((answered, status), (id, 200));
    assert!(response.is_some());
    bench.receive(&ok);
    assert!(bench.events().is_empty());

    let again = ClientRequest {
        sequence: Some(sequence),
        ..register(bench.flow.clone())
    };
    bench.agent.request(bench.now, again).expect("sends");
    let refreshed = bench.sent_one();
    assert_eq!(cseq(&refreshed), 2);
    assert_eq!(
        refreshed.header(HeaderName::CallId),
        sent.header(HeaderName::CallId)
    );
    bench.receive(&reply(&refreshed, 200, "r1", ""));
    bench.event();
    bench.assert_nothing_is_left();
}

#[test]
fn silence_is_reported_as_408_and_a_failed_transport_as_503() {
    let mut bench = Bench::new();
    registering(&mut bench);
    bench.advance(31_999);
    assert!(bench.events().is_empty());
    bench.advance(1);
    assert!(matches!(
        bench.event(),
        AgentEvent::Response {
            status: 408,
            response: None,
            ..
        }
    ));
    let (_, sent) = registering_again(&mut bench);
    let id = sent.transmit.id.expect("somebody waits");
    bench.agent.handle_transport_error(bench.now, &id);
    assert!(matches!(
        bench.event(),
        AgentEvent::Response {
            status: 503,
            response: None,
            ..
        }
    ));
    bench.assert_nothing_is_left();
}

fn registering_again(bench: &mut Bench) -> (ClientRequestId, Sent) {
    bench.sent();
    registering(bench)
}

#[test]
fn challenged_register_is_sent_again_with_credentials() {
    for on_tcp in [false, true] {
        let mut bench = if on_tcp {
            Bench::on_tcp()
        } else {
            Bench::new()
        };
        let (id, first) = registering(&mut bench);
        bench.receive(&challenge(&first, 401, CHALLENGE));
        assert!(bench.events().is_empty());
        let again = bench.sent_one();
        assert_is_next_attempt(&again, &first);
        assert_eq!(again.header(HeaderName::Expires), "3600");
        bench.receive(&reply(&again, 200, "r1", ""));
        let AgentEvent::Response {
            id: answered,
            status,
            sequence,
            ..
        } = bench.event()
        else {
            panic!("a response");
        };
        assert_eq!((answered, status, sequence.cseq), (id, 200, 2));
        bench.assert_nothing_is_left();
    }
}

#[test]
fn wrong_password_is_told_at_the_second_refusal() {
    let mut bench = Bench::new();
    let (_, first) = registering(&mut bench);
    bench.receive(&challenge(&first, 401, CHALLENGE));
    let again = bench.sent_one();
    bench.receive(&challenge(&again, 401, &CHALLENGE.replace("n1", "n2")));
    assert!(matches!(
        bench.event(),
        AgentEvent::Response { status: 401, .. }
    ));
    assert!(bench.sent().is_empty());
    bench.assert_nothing_is_left();
}

#[test]
fn stale_nonce_is_answered_once_more() {
    let mut bench = Bench::new();
    let (_, first) = registering(&mut bench);
    bench.receive(&challenge(&first, 401, CHALLENGE));
    let again = bench.sent_one();
    let stale = CHALLENGE
        .replace("n1", "n2")
        .replace("qop", "stale=true, qop");
    bench.receive(&challenge(&again, 401, &stale));
    let third = bench.sent_one();
    assert_is_next_attempt(&third, &again);
    assert!(
        third
            .header(HeaderName::Authorization)
            .contains("nonce=\"n2\"")
    );
    bench.receive(&reply(&third, 200, "r1", ""));
    assert!(matches!(
        bench.event(),
        AgentEvent::Response { status: 200, .. }
    ));
    bench.assert_nothing_is_left();
}

#[test]
fn count_of_a_nonce_that_is_used_again_rises() {
    let mut bench = Bench::new();
    for count in ["nc=00000001", "nc=00000002"] {
        let (_, first) = registering_again(&mut bench);
        bench.receive(&challenge(&first, 401, CHALLENGE));
        let again = bench.sent_one();
        assert!(again.header(HeaderName::Authorization).contains(count));
        bench.receive(&reply(&again, 200, "r1", ""));
        bench.event();
    }
    bench.assert_nothing_is_left();
}

#[test]
fn without_credentials_a_challenge_is_a_status_like_any_other() {
    let mut bench = Bench::new();
    let request = ClientRequest {
        credentials: None,
        ..register(bench.flow.clone())
    };
    bench.agent.request(bench.now, request).expect("sends");
    let sent = bench.sent_one();
    bench.receive(&challenge(&sent, 401, CHALLENGE));
    assert!(matches!(
        bench.event(),
        AgentEvent::Response {
            status: 401,
            response: Some(_),
            ..
        }
    ));
    bench.assert_nothing_is_left();
}

#[test]
fn requests_outside_dialogs_are_bounded_and_of_the_right_kind() {
    let mut bench = Bench::with(AgentConfig {
        transactions_max: 1,
        ..AgentConfig::default()
    });
    for method in [Method::Invite, Method::Bye, Method::Cancel, Method::Ack] {
        let request = ClientRequest {
            method,
            ..register(bench.flow.clone())
        };
        let refused = bench.agent.request(bench.now, request);
        assert!(matches!(refused, Err(RequestError::Method(_))));
    }
    let elsewhere = ClientRequest {
        target: uri("tel:+15550100"),
        ..register(bench.flow.clone())
    };
    let refused = bench.agent.request(bench.now, elsewhere);
    assert_eq!(refused, Err(RequestError::Target));
    registering(&mut bench);
    let request = register(bench.flow.clone());
    let refused = bench.agent.request(bench.now, request);
    assert_eq!(refused, Err(RequestError::Overloaded));
    bench.advance(32_000);
    bench.event();
    bench.assert_nothing_is_left();
}

#[test]
fn message_carries_its_body_and_goes_through_the_outbound_proxy() {
    let mut bench = Bench::new();
    let row = |name, value: &str| Header::build(name, value.to_owned()).expect("valid");
    let request = ClientRequest {
        method: Method::Message,
        target: uri("sip:bob@example.com?subject=x"),
        headers: vec![
            row(HeaderName::Route, "<sip:198.51.100.9;lr>"),
            row(HeaderName::ContentType, "text/plain"),
            row(HeaderName::CSeq, "99 MESSAGE"),
        ],
        body: body("hello"),
        sequence: Some(RequestSequence {
            call_id: body("ours"),
            cseq: 7,
        }),
        ..register(bench.flow.clone())
    };
    bench.agent.request(bench.now, request).expect("sends");
    let sent = bench.sent_one();
    assert_eq!(sent.request_uri(), "sip:bob@example.com");
    assert_eq!(sent.headers(HeaderName::Route), ["<sip:198.51.100.9;lr>"]);
    assert_eq!(sent.headers(HeaderName::CSeq), ["8 MESSAGE"]);
    assert_eq!(sent.header(HeaderName::CallId), "ours");
    assert!(sent.headers(HeaderName::Contact).is_empty());
    assert_eq!(sent.body(), "hello");
    bench.receive(&reply(&sent, 202, "m1", ""));
    assert!(matches!(
        bench.event(),
        AgentEvent::Response { status: 202, .. }
    ));
    bench.assert_nothing_is_left();
}

// ---- challenges on a leg ------------------------------------------------------------------------

fn calling(bench: &mut Bench) -> (trunkline_sip::SipLegId, Sent) {
    let mut request = invite_request(bench.flow.clone());
    request.credentials = credentials();
    request.headers =
        vec![Header::build(HeaderName::PAssertedIdentity, "<tel:+15550100>").expect("valid")];
    let leg = bench.agent.invite(bench.now, request).expect("sends");
    (leg, bench.sent_one())
}

/// The INVITE challenged once; the leg and the second INVITE.
fn calling_with_credentials(bench: &mut Bench) -> (trunkline_sip::SipLegId, Sent) {
    let (leg, first) = calling(bench);
    bench.receive(&challenge(&first, 407, &CHALLENGE.replace("WWW", "Proxy")));
    let sent = bench.sent();
    assert_eq!(labels(&sent), ["ACK", "INVITE"]);
    let again = sent.into_iter().nth(1).expect("two");
    assert_eq!(cseq(&again), 2);
    assert_ne!(again.branch(), first.branch());
    assert_eq!(again.tag(HeaderName::From), first.tag(HeaderName::From));
    assert!(
        again
            .header(HeaderName::ProxyAuthorization)
            .contains("response=")
    );
    assert_eq!(
        again.header(HeaderName::PAssertedIdentity),
        "<tel:+15550100>"
    );
    assert_eq!(again.header(HeaderName::MaxForwards), "69");
    assert_eq!(
        again.header(HeaderName::To),
        first.header(HeaderName::To),
        "no tag of the 407"
    );
    (leg, again)
}

#[test]
fn challenged_invite_is_sent_again_and_its_ack_has_the_credentials() {
    let mut bench = Bench::new();
    let (leg, invite) = calling_with_credentials(&mut bench);
    bench.receive(&reply(&invite, 180, "b1", ""));
    assert!(matches!(bench.event(), AgentEvent::Progress { .. }));
    bench.receive(&reply(&invite, 200, "b1", OFFER));
    let ack = bench.sent_one();
    assert_eq!((ack.label().as_str(), cseq(&ack)), ("ACK", 2));
    assert_eq!(
        ack.header(HeaderName::ProxyAuthorization),
        invite.header(HeaderName::ProxyAuthorization)
    );
    assert!(matches!(bench.event(), AgentEvent::Answered { .. }));
    bench.agent.hangup(bench.now, leg, None).expect("stands");
    assert_eq!(cseq(&bench.sent_one()), 3);
    bench.event();
    bench.assert_nothing_is_left();
}

#[test]
fn copies_of_the_2xx_are_acknowledged_after_the_refused_attempt_is_forgotten() {
    let mut bench = Bench::new();
    let (leg, invite) = calling_with_credentials(&mut bench);
    bench.advance(20_000);
    bench.receive(&reply(&invite, 180, "b1", ""));
    bench.sent();
    bench.advance(11_500);
    bench.receive(&reply(&invite, 200, "b1", OFFER));
    let ack = bench.sent_one();
    bench.events();
    bench.advance(1_000);
    bench.receive(&reply(&invite, 200, "b1", OFFER));
    assert_eq!(bench.sent_one().text, ack.text);
    bench.agent.hangup(bench.now, leg, None).expect("stands");
    bench.events();
    bench.assert_nothing_is_left();
}

#[test]
fn refused_credentials_end_the_leg_with_the_status() {
    let mut bench = Bench::new();
    let (_, invite) = calling_with_credentials(&mut bench);
    bench.receive(&challenge(&invite, 407, &CHALLENGE.replace("WWW", "Proxy")));
    assert!(matches!(
        bench.event(),
        AgentEvent::Rejected {
            status: 407,
            response: Some(_),
            ..
        }
    ));
    assert_eq!(bench.sent_one().label(), "ACK");
    bench.assert_nothing_is_left();
}

#[test]
fn challenge_to_a_call_that_was_given_up_is_not_answered() {
    let mut bench = Bench::new();
    let (leg, first) = calling(&mut bench);
    bench.agent.cancel(bench.now, leg).expect("rings");
    bench.event();
    bench.receive(&challenge(&first, 401, CHALLENGE));
    assert_eq!(bench.sent_one().label(), "ACK");
    bench.assert_nothing_is_left();
}

#[test]
fn second_attempt_can_be_cancelled() {
    let mut bench = Bench::new();
    let (leg, invite) = calling_with_credentials(&mut bench);
    bench.receive(&reply(&invite, 180, "b1", ""));
    bench.events();
    bench.agent.cancel(bench.now, leg).expect("rings");
    let cancel = bench.sent_one();
    assert_eq!((cancel.label().as_str(), cseq(&cancel)), ("CANCEL", 2));
    assert_eq!(cancel.branch(), invite.branch());
    bench.receive(&reply(&cancel, 200, "b1", ""));
    bench.receive(&reply(&invite, 487, "b1", ""));
    assert_eq!(bench.sent_one().label(), "ACK");
    bench.event();
    bench.assert_nothing_is_left();
}

#[test]
fn challenged_reinvite_and_bye_are_sent_again_in_their_dialog() {
    let mut bench = Bench::new();
    let (leg, invite) = calling_with_credentials(&mut bench);
    bench.receive(&reply(&invite, 200, "b1", OFFER));
    bench.sent();
    bench.events();

    bench
        .agent
        .reinvite(bench.now, leg, body(ANSWER))
        .expect("stands");
    let reinvite = bench.sent_one();
    bench.receive(&challenge(&reinvite, 401, CHALLENGE));
    let sent = bench.sent();
    assert_eq!(labels(&sent), ["ACK", "INVITE"]);
    assert_is_next_attempt(&sent[1], &reinvite);
    bench.receive(&reply(&sent[1], 200, "b1", OFFER));
    assert_eq!(bench.sent_one().label(), "ACK");
    assert!(matches!(
        bench.event(),
        AgentEvent::OfferAnswered { result: Ok(_), .. }
    ));

    bench
        .agent
        .hangup(bench.now, leg, Some("Q.850;cause=16"))
        .expect("stands");
    let bye = bench.sent_one();
    bench.event();
    bench.receive(&challenge(&bye, 401, &CHALLENGE.replace("n1", "n9")));
    let again = bench.sent_one();
    assert_is_next_attempt(&again, &bye);
    assert_eq!(again.header(HeaderName::Reason), "Q.850;cause=16");
    bench.receive(&reply(&again, 200, "b1", ""));
    bench.assert_nothing_is_left();
}
