//! Where messages go: the rules that keep a call from dropping after 32 s.

use sipx_sip::HeaderName;
use trunkline_sip::{AgentEvent, ConnectionId, Flow, TransportKind};

use crate::support::*;

const TWO_ROUTES: &str = "Record-Route: <sip:198.51.100.9;transport=udp;r2=on;lr>\r\n\
     Record-Route: <sip:10.0.0.1;transport=tcp;r2=on;lr>\r\n";

#[test]
fn caller_behind_a_double_record_route_gets_its_bye_along_the_routes() {
    let mut bench = Bench::new();
    let text = invite("in-1", "z9hG4bKi", OFFER)
        .replace("Max-Forwards", &format!("{TWO_ROUTES}Max-Forwards"))
        .replace("<sip:alice@198.51.100.9:5060>", "<sip:alice@10.1.2.3:5062>");
    bench.receive(&text);
    let AgentEvent::Invite { leg, .. } = bench.event() else {
        panic!("an INVITE event");
    };
    bench
        .agent
        .provisional(bench.now, leg, 180, None)
        .expect("rings");
    bench
        .agent
        .answer(bench.now, leg, body(ANSWER))
        .expect("answers");
    let sent = bench.sent();
    for response in &sent {
        assert_eq!(
            response.headers(HeaderName::RecordRoute),
            [
                "<sip:198.51.100.9;transport=udp;r2=on;lr>",
                "<sip:10.0.0.1;transport=tcp;r2=on;lr>"
            ],
            "{}",
            response.label()
        );
    }
    let tag = sent[1].tag(HeaderName::To);
    bench.receive(&in_dialog("ACK", "in-1", 1, "z9hG4bKa", &tag, ""));
    bench.agent.hangup(bench.now, leg, None).expect("hangs up");
    let bye = bench.sent_one();
    assert_eq!(bye.request_uri(), "sip:alice@10.1.2.3:5062");
    assert_eq!(
        bye.headers(HeaderName::Route),
        [
            "<sip:198.51.100.9;transport=udp;r2=on;lr>",
            "<sip:10.0.0.1;transport=tcp;r2=on;lr>"
        ]
    );
    assert_eq!(bye.transmit.flow, Flow::udp(address(US), address(PEER)));
}

#[test]
fn callee_behind_a_double_record_route_gets_ack_and_bye_along_the_reversed_routes() {
    let mut bench = Bench::new();
    let (leg, invite) = bench.outgoing();
    let routes = "Record-Route: <sip:10.0.0.1;transport=tcp;r2=on;lr>, \
                  <sip:198.51.100.9:5070;transport=tcp;r2=on;lr>\r\n";
    let ok = reply(&invite, 200, "b1", OFFER)
        .replace("From:", &format!("{routes}From:"))
        .replace(
            "Contact: <sip:bob@198.51.100.9:5060>",
            "Contact: <sip:bob@192.168.1.9:5080>",
        );
    bench.receive(&ok);
    bench.agent.hangup(bench.now, leg, None).expect("hangs up");
    let sent = bench.sent();
    assert_eq!(labels(&sent), ["ACK", "BYE"]);
    for message in &sent {
        assert_eq!(message.request_uri(), "sip:bob@192.168.1.9:5080");
        assert_eq!(
            message.headers(HeaderName::Route),
            [
                "<sip:198.51.100.9:5070;transport=tcp;r2=on;lr>",
                "<sip:10.0.0.1;transport=tcp;r2=on;lr>"
            ]
        );
        // The transport switch between the two hops is the Route's to say.
        assert_eq!(message.transmit.flow.kind, TransportKind::Tcp);
        assert_eq!(message.transmit.flow.remote, address("198.51.100.9:5070"));
        assert!(
            message
                .header(HeaderName::Via)
                .starts_with("SIP/2.0/TCP 203.0.113.1:5060;")
        );
    }
}

#[test]
fn phone_behind_nat_is_reached_on_its_flow_by_the_contact_it_gave() {
    let mut bench = Bench::new();
    bench.flow.remote = address("198.51.100.9:40123");
    let text = invite("in-1", "z9hG4bKi", OFFER).replace("198.51.100.9:5060", "192.168.1.20:5060");
    bench.receive(&text);
    let AgentEvent::Invite { leg, request, .. } = bench.event() else {
        panic!("an INVITE event");
    };
    let via = request.headers.value(&HeaderName::Via).expect("a Via");
    let via = String::from_utf8_lossy(&via).into_owned();
    assert!(
        via.contains(";rport=40123") && via.contains(";received=198.51.100.9"),
        "{via}"
    );
    bench
        .agent
        .answer(bench.now, leg, body(ANSWER))
        .expect("answers");
    let ok = bench.sent_one();
    assert_eq!(ok.transmit.flow.remote, address("198.51.100.9:40123"));
    assert_eq!(ok.header(HeaderName::Via), via);
    let tag = ok.tag(HeaderName::To);
    bench.receive(&in_dialog("ACK", "in-1", 1, "z9hG4bKa", &tag, ""));
    bench.agent.hangup(bench.now, leg, None).expect("hangs up");
    let bye = bench.sent_one();
    assert_eq!(bye.request_uri(), "sip:alice@192.168.1.20:5060");
    assert_eq!(bye.transmit.flow.remote, address("198.51.100.9:40123"));
}

#[test]
fn dialog_on_tcp_stays_on_its_connection_and_says_so_in_contact_and_via() {
    let mut bench = Bench::on_tcp();
    let text = invite("in-1", "z9hG4bKi", OFFER).replace("SIP/2.0/UDP", "SIP/2.0/TCP");
    bench.receive(&text.replace(
        "<sip:alice@198.51.100.9:5060>",
        "<sip:alice@198.51.100.9:5060;transport=tcp>",
    ));
    let AgentEvent::Invite { leg, .. } = bench.event() else {
        panic!("an INVITE event");
    };
    bench
        .agent
        .answer(bench.now, leg, body(ANSWER))
        .expect("answers");
    let ok = bench.sent_one();
    assert_eq!(ok.transmit.flow.connection, Some(ConnectionId(1)));
    assert_eq!(ok.transmit.flow.remote, address(PEER));
    assert_eq!(
        ok.header(HeaderName::Contact),
        "<sip:+15550100@203.0.113.1:5060;transport=tcp>"
    );
    let tag = ok.tag(HeaderName::To);
    bench.receive(&in_dialog("ACK", "in-1", 1, "z9hG4bKa", &tag, ""));
    bench.agent.hangup(bench.now, leg, None).expect("hangs up");
    let bye = bench.sent_one();
    assert_eq!(bye.transmit.flow.connection, Some(ConnectionId(1)));
    assert_eq!(
        bye.transmit.flow.remote,
        address(PEER),
        "for the case that it has closed"
    );
    assert!(bye.header(HeaderName::Via).starts_with("SIP/2.0/TCP "));
}

#[test]
fn contact_by_name_keeps_the_flow() {
    let mut bench = Bench::new();
    let (leg, invite) = bench.outgoing();
    let ok = reply(&invite, 200, "b1", OFFER).replace(
        "Contact: <sip:bob@198.51.100.9:5060>",
        "Contact: <sip:bob@pbx.example.com>",
    );
    bench.receive(&ok);
    bench.agent.hangup(bench.now, leg, None).expect("hangs up");
    for message in bench.sent() {
        assert_eq!(message.request_uri(), "sip:bob@pbx.example.com");
        assert_eq!(message.transmit.flow.remote, address(PEER));
    }
}

#[test]
fn first_hop_of_an_invite_is_the_flow_it_was_given() {
    let mut bench = Bench::new();
    let mut request = invite_request(udp_flow());
    request.target = uri("sip:bob@192.0.2.77:5099;ob?Subject=x");
    bench.agent.invite(bench.now, request).expect("sends");
    let invite = bench.sent_one();
    assert_eq!(invite.request_uri(), "sip:bob@192.0.2.77:5099;ob");
    assert_eq!(invite.transmit.flow, udp_flow());
}

#[test]
fn response_without_rport_goes_to_the_port_in_via() {
    let mut bench = Bench::new();
    bench.flow.remote = address("198.51.100.9:40123");
    let text = invite("in-1", "z9hG4bKi", OFFER).replace(";rport", "");
    bench.receive(&text.replace("Max-Forwards: 70", "Max-Forwards: 0"));
    assert_eq!(bench.sent_one().transmit.flow.remote, address(PEER));
}

#[test]
fn ipv6_peers_are_written_with_brackets() {
    let mut bench = Bench::new();
    let flow = Flow::udp(address("[2001:db8::1]:5060"), address("[2001:db8::9]:5060"));
    let leg = bench
        .agent
        .invite(bench.now, invite_request(flow))
        .expect("sends");
    let invite = bench.sent_one();
    assert!(
        invite
            .header(HeaderName::Via)
            .starts_with("SIP/2.0/UDP [2001:db8::1]:5060;branch=z9hG4bK")
    );
    bench.receive(&reply(&invite, 200, "b1", OFFER).replace(
        "bob@198.51.100.9:5060>\r\nContent",
        "bob@[2001:db8::9]:5080>\r\nContent",
    ));
    bench.agent.hangup(bench.now, leg, None).expect("hangs up");
    for message in bench.sent() {
        assert_eq!(message.transmit.flow.remote, address("[2001:db8::9]:5080"));
    }
}
