//! Another reader's word: what the agent writes, and well-formed messages of peers, mean to rsip
//! what they mean to us. rsip reads neither compact names nor dots in user parts, so these are
//! tested elsewhere.

use bytes::Bytes;
use proptest::prelude::*;
use rsip::headers::untyped::{ToTypedHeader, UntypedHeader};
use rsip::message::HeadersExt;
use sipx_sip::headers::{CSeq, CallId, Contact, From, MaxForwards, To};
use sipx_sip::{Header, HeaderName, Limits, Message, Via, parse_datagram};
use trunkline_sip::{AgentEvent, InviteRequest, ReferRequest, ReferTarget};

use crate::support::*;

/// What decides where a message belongs and goes.
#[derive(Debug, PartialEq, Eq)]
struct Reading {
    start: String,
    call_id: String,
    cseq: (u32, String),
    from_tag: Option<String>,
    to_tag: Option<String>,
    branch: Option<String>,
    contact: Option<String>,
    max_forwards: Option<u32>,
    body: Vec<u8>,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn ours(bytes: &Bytes) -> Reading {
    let message = parse_datagram(bytes.clone(), &Limits::datagram()).expect("well-formed");
    let headers = message.headers();
    let cseq = headers.typed::<CSeq>().expect("present").expect("readable");
    let tag = |tag: Option<&[u8]>| tag.map(text);
    let from = headers.typed::<From>().expect("present").expect("readable");
    let to = headers.typed::<To>().expect("present").expect("readable");
    let via = headers.typed::<Via>().expect("present").expect("readable");
    Reading {
        start: match &message {
            Message::Request(request) => format!("{} {}", request.method, request.uri),
            Message::Response(response) => response.status.to_string(),
        },
        call_id: match headers.typed::<CallId>() {
            Some(Ok(CallId(value))) => text(&value),
            other => panic!("{other:?}"),
        },
        cseq: (cseq.sequence, cseq.method.to_string()),
        from_tag: tag(from.tag()),
        to_tag: tag(to.tag()),
        branch: via.branch().map(text),
        contact: match headers.typed::<Contact>() {
            Some(Ok(Contact(address))) => Some(address.uri.to_string()),
            _ => None,
        },
        max_forwards: match headers.typed::<MaxForwards>() {
            Some(Ok(MaxForwards(hops))) => Some(u32::from(hops)),
            _ => None,
        },
        body: message.body().to_vec(),
    }
}

fn theirs(bytes: &Bytes) -> Reading {
    let message = rsip::SipMessage::try_from(bytes.to_vec()).expect("rsip reads it");
    let via = message
        .via_header()
        .expect("present")
        .typed()
        .expect("readable");
    let cseq = message
        .cseq_header()
        .expect("present")
        .typed()
        .expect("readable");
    let from = message
        .from_header()
        .expect("present")
        .typed()
        .expect("readable");
    let to = message
        .to_header()
        .expect("present")
        .typed()
        .expect("readable");
    let call_id = message.call_id_header().expect("present");
    Reading {
        start: match &message {
            rsip::SipMessage::Request(request) => format!("{} {}", request.method, request.uri),
            rsip::SipMessage::Response(response) => response.status_code.code().to_string(),
        },
        call_id: call_id.value().to_owned(),
        cseq: (cseq.seq, cseq.method.to_string()),
        from_tag: from.tag().map(|tag| tag.value().to_owned()),
        to_tag: to.tag().map(|tag| tag.value().to_owned()),
        branch: via.branch().map(|branch| branch.value().to_owned()),
        contact: message
            .contact_header()
            .ok()
            .map(|contact| contact.typed().expect("readable").uri.to_string()),
        max_forwards: message
            .max_forwards_header()
            .ok()
            .map(|hops| hops.num().expect("a number")),
        body: match &message {
            rsip::SipMessage::Request(request) => request.body.clone(),
            rsip::SipMessage::Response(response) => response.body.clone(),
        },
    }
}

/// Everything the agent sends in a life with every request it knows.
fn everything_we_write() -> Vec<Sent> {
    let mut all = Vec::new();
    let mut bench = Bench::new();
    let mut request = InviteRequest {
        headers: vec![
            Header::build(HeaderName::PAssertedIdentity, "<sip:+15550100@h>").expect("valid"),
        ],
        ..invite_request(bench.flow.clone())
    };
    request.from.display_name = Some("Alice \"A\" B".to_owned());
    let leg = bench.agent.invite(bench.now, request).expect("sends");
    let invite_out = bench.sent_one();
    let ringing = reply(&invite_out, 183, "b1", ANSWER);
    bench.receive(&ringing.replacen("Contact:", "Require: 100rel\r\nRSeq: 1\r\nContact:", 1));
    bench.receive(&reply(&invite_out, 200, "b1", ANSWER));
    bench.receive(&reply(&invite_out, 200, "b2", ANSWER));
    all.push(invite_out);
    let refer = ReferRequest {
        target: ReferTarget {
            uri: uri("sip:carol@example.com"),
            replaces: None,
        },
        referred_by: None,
        wants_notify: false,
    };
    bench.agent.refer(bench.now, leg, &refer).expect("stands");
    bench
        .agent
        .reinvite(bench.now, leg, body(OFFER))
        .expect("stands");
    bench
        .agent
        .hangup(bench.now, leg, Some("Q.850;cause=16"))
        .expect("stands");
    all.append(&mut bench.sent());

    let mut bench = Bench::new();
    let (leg, tag) = bench.incoming_confirmed();
    let refer = in_dialog("REFER", "in-1", 2, "z9hG4bKr", &tag, "");
    bench.receive(&refer.replacen("Contact:", "Refer-To: <sip:c@h>\r\nContact:", 1));
    bench.agent.accept_refer(bench.now, leg).expect("waits");
    bench.receive(&in_dialog("PUBLISH", "in-1", 3, "z9hG4bKp", &tag, ""));
    bench.receive(&in_dialog("OPTIONS", "in-1", 4, "z9hG4bKo", &tag, ""));
    bench.receive(&in_dialog("BYE", "in-1", 5, "z9hG4bKb", &tag, ""));
    all.append(&mut bench.sent());
    let (leg, invite_out) = bench.outgoing();
    bench.receive(&reply(&invite_out, 180, "b1", ""));
    bench.agent.cancel(bench.now, leg).expect("rings");
    all.append(&mut bench.sent());
    all
}

#[test]
fn what_we_write_means_the_same_to_another_reader() {
    let sent = everything_we_write();
    assert!(sent.len() >= 14, "{:?}", labels(&sent));
    for sent in sent {
        let bytes = &sent.transmit.bytes;
        assert_eq!(ours(bytes), theirs(bytes), "{}", sent.text);
    }
}

fn well_formed() -> impl Strategy<Value = String> {
    let user = "[a-z][a-z0-9-]{0,12}|\\+[1-9][0-9]{6,14}";
    let host = "[a-z]{1,8}\\.example|192\\.0\\.2\\.[1-9]";
    let uri = (user, host, prop::option::of(1u16..)).prop_map(|(user, host, port)| {
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        format!("sip:{user}@{host}{port}")
    });
    let token = "[A-Za-z0-9.!%*_+~-]{1,24}";
    let method = prop::sample::select(vec!["INVITE", "OPTIONS", "REGISTER", "BYE"]);
    (
        (uri.clone(), uri.clone(), uri.clone(), uri),
        (token, token, token),
        method,
        (0..=255u8, 1..=i32::MAX, prop::option::of("[ -~]{1,80}")),
    )
        .prop_map(
            |((target, from, to, contact), (call_id, tag, branch), method, more)| {
                let (hops, number, body) = more;
                let body = body.unwrap_or_default();
                format!(
                    "{method} {target} SIP/2.0\r\n\
                 Via: SIP/2.0/UDP 198.51.100.9:5060;branch=z9hG4bK{branch}\r\n\
                 Max-Forwards: {hops}\r\nFrom: \"A B\" <{from}>;tag={tag}\r\nTo: <{to}>\r\n\
                 Call-ID: {call_id}@h\r\nCSeq: {number} {method}\r\nContact: <{contact}>\r\n\
                 Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )
            },
        )
}

proptest! {
    #[test]
    fn requests_of_peers_mean_the_same_to_another_reader(request in well_formed()) {
        let bytes = Bytes::from(request);
        prop_assert_eq!(ours(&bytes), theirs(&bytes));
    }

    #[test]
    fn response_to_a_peer_names_its_request_to_another_reader(request in well_formed()) {
        let mut bench = Bench::new();
        bench.receive(&request.replacen("text/plain", "application/sdp", 1));
        if let Some(AgentEvent::Invite { leg, .. }) = bench.events().pop() {
            bench.agent.hangup(bench.now, leg, None).expect("begun");
        }
        let asked = theirs(&Bytes::from(request));
        if let Some(sent) = bench.sent().pop() {
            let answered = theirs(&sent.transmit.bytes);
            prop_assert_eq!(
                (answered.call_id, answered.cseq, answered.from_tag, answered.branch),
                (asked.call_id, asked.cseq, asked.from_tag, asked.branch)
            );
            prop_assert!(answered.to_tag.is_some());
        }
    }
}
