//! One message or more for every category of RFC 4475 and RFC 5118, of our own making, with what
//! it is owed: a call, a place among the requests passed up, a status, or silence.
//!
//! What is read by a well-formed message's other readers, too: [`rsip`] must agree where it can
//! read it at all.

use bytes::Bytes;
use sipx_sip::{Limits, parse_datagram};
use trunkline_sip::AgentEvent;

use crate::support::*;

/// What a message is owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owed {
    /// It begins a call.
    Call,
    /// It is passed up.
    Request,
    /// It is answered at once.
    Status(&'static str),
    /// Nobody is answered, and it is counted as malformed.
    Silence,
    /// Nobody is answered: it is a response to nothing.
    Stray,
}

use Owed::{Call, Request, Silence, Status, Stray};

/// An INVITE of the peer with another request line and other header lines. What `lines` names
/// stands instead of the usual row.
fn message(start: &str, lines: &[&str], body: &str) -> String {
    let method = start.split(' ').next().unwrap_or_default();
    let usual = [
        format!("Via: SIP/2.0/UDP {PEER};branch=z9hG4bKtorture"),
        "Max-Forwards: 70".to_owned(),
        "From: <sip:alice@carrier.example>;tag=a1".to_owned(),
        "To: <sip:+15550100@203.0.113.1>".to_owned(),
        "Call-ID: torture".to_owned(),
        format!("CSeq: 7 {method}"),
        format!("Contact: <sip:alice@{PEER}>"),
        format!("Content-Length: {}", body.len()),
    ];
    let name_of = |line: &str| {
        let name = line.split(':').next().unwrap_or_default();
        name.trim().to_ascii_lowercase()
    };
    let mut text = format!("{start}\r\n");
    for row in usual {
        if !lines.iter().any(|line| name_of(line) == name_of(&row)) {
            text.push_str(&format!("{row}\r\n"));
        }
    }
    for line in lines.iter().filter(|line| !line.ends_with(": -")) {
        text.push_str(&format!("{line}\r\n"));
    }
    format!("{text}\r\n{body}")
}

const START: &str = "INVITE sip:+15550100@203.0.113.1 SIP/2.0";
const OPTIONS: &str = "OPTIONS sip:203.0.113.1 SIP/2.0";
const REGISTER: &str = "REGISTER sip:203.0.113.1 SIP/2.0";

fn call(lines: &[&str]) -> String {
    message(START, lines, "")
}

/// What came of `bytes`.
fn owed_to(bytes: &[u8]) -> Owed {
    let mut bench = Bench::new();
    let bytes = Bytes::copy_from_slice(bytes);
    match parse_datagram(bytes.clone(), &Limits::datagram()) {
        Ok(message) => bench
            .agent
            .handle_message(bench.now, bench.flow.clone(), message),
        Err(error) => bench.agent.handle_malformed(&bench.flow, &bytes, &error),
    }
    let events = bench.events();
    let sent = bench.sent();
    let owed = match (&events[..], &sent[..]) {
        ([AgentEvent::Invite { .. }], []) => Call,
        ([AgentEvent::Request { .. }], []) => Request,
        ([], [sent]) => Status(sent.label().leak()),
        ([], []) if bench.agent.counters().malformed == 1 => Silence,
        ([], []) => Stray,
        other => panic!("{other:?}"),
    };
    for event in events {
        match event {
            AgentEvent::Invite { leg, .. } => {
                bench.agent.hangup(bench.now, leg, None).expect("begun");
            }
            AgentEvent::Request { id, .. } => {
                let empty = (Vec::new(), Bytes::new());
                bench
                    .agent
                    .respond(bench.now, id, 200, empty.0, empty.1)
                    .expect("waits");
            }
            _ => {}
        }
    }
    bench.events();
    bench.assert_nothing_is_left();
    owed
}

fn assert_owed(rows: Vec<(&str, String, Owed)>) {
    let mut wrong = Vec::new();
    for (name, text, owed) in rows {
        let got = owed_to(text.as_bytes());
        if got != owed {
            wrong.push(format!("{name}: owed {owed:?}, got {got:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn valid_messages_of_rfc_4475_section_3_1_1_are_served() {
    let long = "x".repeat(1_500);
    assert_owed(vec![
        (
            "3.1.1.1 folded and spaced",
            call(&[
                "To:\r\n  \"J Rosenberg \\\\\\\"\"\r\n   <sip:jdrosen@203.0.113.1>",
                "from  :   \"J \\\\\"\r\n  <sip:jdrosen@carrier.example>\r\n ;\r\n tag = 98asjd8",
                "MaX-fOrWaRdS: 0068",
                "CSeq: 0009\r\n  INVITE",
                "NewFangledHeader:   newfangled value\r\n continued",
                "UnknownHeaderWithUnusualValue: ;;,,;;,;",
            ]),
            Call,
        ),
        (
            "3.1.1.2 wide range of characters",
            message(
                "!interesting-Method0123456789_*+`.%indeed'~ sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*@203.0.113.1 SIP/2.0",
                &["CSeq: 139122385 !interesting-Method0123456789_*+`.%indeed'~"],
                "",
            ),
            Status("501 !interesting-Method0123456789_*+`.%indeed'~"),
        ),
        (
            "3.1.1.3 percent escapes",
            message(
                "INVITE sip:sips%3Auser%40example.com@203.0.113.1 SIP/2.0",
                &["Contact: <sip:cal%6Cer@198.51.100.9;%6C%72;n%61me=v%61lue%25%34%31>"],
                "",
            ),
            Call,
        ),
        (
            "3.1.1.4 escaped nulls",
            message(
                REGISTER,
                &[
                    "To: sip:null-%00-null@example.com",
                    "From: sip:null-%00-null@example.com;tag=839923423",
                    "Contact: <sip:%00@198.51.100.9>",
                ],
                "",
            ),
            Request,
        ),
        (
            "3.1.1.5 percent that escapes nothing",
            message(
                "RE%47IST%45R sip:203.0.113.1 SIP/2.0",
                &["CSeq: 29344 RE%47IST%45R"],
                "",
            ),
            Status("501 RE%47IST%45R"),
        ),
        (
            "3.1.1.6 no space before the bracket",
            message(
                OPTIONS,
                &["From: caller<sip:caller@example.com>;tag=323"],
                "",
            ),
            Request,
        ),
        (
            "3.1.1.7 long values",
            call(&[
                &format!("From: \"{long}\" <sip:{long}@carrier.example>;tag=1;{long}"),
                &format!("X-Long: {long}"),
            ]),
            Call,
        ),
        (
            "3.1.1.8 octets behind the message",
            message(REGISTER, &[], "") + "INVITE sip:joe@example.com SIP/2.0\r\nt: <sip:joe>\r\n",
            Request,
        ),
        (
            "3.1.1.9 semicolons in the user part",
            message(
                "OPTIONS sip:user;par=u%40example.net@203.0.113.1 SIP/2.0",
                &[],
                "",
            ),
            Request,
        ),
        (
            "3.1.1.10 transports nobody knows",
            message(
                OPTIONS,
                &["Via: SIP/2.0/UDP 198.51.100.9;branch=z9hG4bKkdjuw\r\n\
                     Via: SIP/2.0/SCTP t2.example.com;branch=z9hG4bK2\r\n\
                     Via: SIP/2.0/UNKNOWN t4.example.com;branch=z9hG4bK4"],
                "",
            ),
            Request,
        ),
        (
            "3.1.1.11 body in parts",
            message(
                START,
                &["Content-Type: multipart/mixed;boundary=7a9cbec02ceef655"],
                "--7a9cbec02ceef655\r\nContent-Type: text/plain\r\n\r\nhi\r\n--7a9cbec02ceef655--\r\n",
            ),
            // Valid, and of a kind we do not take.
            Status("415 INVITE"),
        ),
    ]);
}

#[test]
fn unusual_reason_phrases_end_a_call_as_any_other() {
    for phrase in ["= 2**3 * 5**2 \u{448}\u{438}\u{444}\u{440}", ""] {
        let mut bench = Bench::new();
        let (_, invite) = bench.outgoing();
        let text = reply(&invite, 404, "b1", "").replace("Whatever", phrase);
        bench.receive(&text);
        let AgentEvent::Rejected { status, reason, .. } = bench.event() else {
            panic!("a refusal");
        };
        assert_eq!((status, reason.as_str()), (404, phrase));
        bench.assert_nothing_is_left();
    }
}

#[test]
fn invalid_messages_of_rfc_4475_section_3_1_2_get_what_they_are_owed() {
    assert_owed(vec![
        (
            "3.1.2.1 stray separators",
            call(&[
                "To: \"Joe\" <sip:joe@example.org>;;,;,,",
                "Contact: \"Joe\" <sip:joe@198.51.100.9>;;;;",
            ]),
            Status("400 INVITE"),
        ),
        (
            "3.1.2.2 length beyond the datagram",
            call(&["Content-Length: 9999"]),
            Status("400 INVITE"),
        ),
        (
            "3.1.2.3 negative length",
            call(&["Content-Length: -999"]),
            Status("400 INVITE"),
        ),
        (
            "3.1.2.4 scalars that are too large",
            message(
                REGISTER,
                &["CSeq: 36893488147419103232 REGISTER", "Max-Forwards: 300"],
                "",
            ),
            Status("400 REGISTER"),
        ),
        (
            "3.1.2.5 the same in a response",
            "SIP/2.0 503 Service Unavailable\r\nVia: SIP/2.0/UDP 203.0.113.1;branch=z9hG4bKx\r\n\
             Call-ID: scalarlg\r\nFrom: <sip:u@h>;tag=1\r\nTo: <sip:u@h>;tag=2\r\n\
             CSeq: 9292394834772304023312 OPTIONS\r\nRetry-After: 949302838503028349304023988\r\n\
             Content-Length: 0\r\n\r\n"
                .to_owned(),
            Stray,
        ),
        (
            "3.1.2.6 display name without its end",
            call(&["To: \"Mr. J. User <sip:j.user@example.com>"]),
            Status("400 INVITE"),
        ),
        (
            "3.1.2.7 target in brackets",
            message("INVITE <sip:user@203.0.113.1> SIP/2.0", &[], ""),
            Status("400 INVITE"),
        ),
        (
            "3.1.2.8 space inside the target",
            message("INVITE sip:user@203.0.113.1; lr SIP/2.0", &[], ""),
            Status("400 INVITE"),
        ),
        (
            "3.1.2.9 several spaces in the request line",
            message("INVITE  sip:user@203.0.113.1  SIP/2.0", &[], ""),
            Status("400 INVITE"),
        ),
        (
            "3.1.2.10 space at its end",
            message("OPTIONS sip:203.0.113.1 SIP/2.0 ", &[], ""),
            Status("400 OPTIONS"),
        ),
        (
            "3.1.2.11 headers in the target",
            message(
                "INVITE sip:user@203.0.113.1?Route=%3Csip:h%3E SIP/2.0",
                &[],
                "",
            ),
            Status("400 INVITE"),
        ),
        (
            "3.1.2.12 date of no time zone there is",
            call(&["Date: Fri, 01 Jan 2010 16:00:00 EST"]),
            Call,
        ),
        (
            "3.1.2.13 parameters that belong to nobody",
            message(
                REGISTER,
                &["Contact: sip:user@198.51.100.9?Route=%3Csip:h%3E"],
                "",
            ),
            // The registrar reads contacts, and has its own word for it.
            Request,
        ),
        (
            "3.1.2.14 spaces around an address",
            call(&["To: \"Watson, Thomas\" < sip:t.watson@example.org >"]),
            Status("400 INVITE"),
        ),
        (
            "3.1.2.15 display name of no tokens",
            message(
                OPTIONS,
                &["From: Bell, Alexander <sip:a.g.bell@example.com>;tag=43"],
                "",
            ),
            Status("400 OPTIONS"),
        ),
        (
            "3.1.2.16 version",
            message("OPTIONS sip:203.0.113.1 SIP/7.0", &[], ""),
            Status("505 OPTIONS"),
        ),
        (
            "3.1.2.17 method of another",
            message(OPTIONS, &["CSeq: 8 INVITE"], ""),
            Status("400 INVITE"),
        ),
        (
            "3.1.2.18 unknown method of another",
            message("NEWMETHOD sip:203.0.113.1 SIP/2.0", &["CSeq: 8 INVITE"], ""),
            Status("400 INVITE"),
        ),
        (
            "3.1.2.19 status of four digits",
            "SIP/2.0 4294967301 better not\r\nVia: SIP/2.0/UDP 203.0.113.1;branch=z9hG4bKx\r\n\
             Call-ID: b\r\nFrom: <sip:u@h>;tag=1\r\nTo: <sip:u@h>;tag=2\r\nCSeq: 3 INVITE\r\n\
             Content-Length: 0\r\n\r\n"
                .to_owned(),
            Silence,
        ),
    ]);
}

#[test]
fn requests_of_rfc_4475_sections_3_2_and_3_3_get_what_they_are_owed() {
    assert_owed(vec![
        (
            "3.2.1 branch of nothing but the cookie",
            call(&["Via: SIP/2.0/UDP 198.51.100.9;branch=z9hG4bK"]),
            Call,
        ),
        (
            "3.3.1 without From",
            call(&["From: -"]),
            // A response copies it, so none can be made.
            Silence,
        ),
        (
            "3.3.1 without To, Call-ID and CSeq nobody can be answered",
            call(&["To: -", "Call-ID: -", "CSeq: -"]),
            Silence,
        ),
        (
            "3.3.2 unknown scheme",
            message(
                "OPTIONS nobodyKnowsThisScheme:totallyopaquecontent SIP/2.0",
                &[],
                "",
            ),
            Status("416 OPTIONS"),
        ),
        (
            "3.3.3 known scheme of no use here",
            message("OPTIONS soap.beep://192.0.2.103:3002 SIP/2.0", &[], ""),
            Status("416 OPTIONS"),
        ),
        (
            "3.3.4 unknown schemes in headers",
            message(
                REGISTER,
                &[
                    "To: isbn:2983792873",
                    "From: <http://www.example.com>;tag=3234233",
                    "Contact: <name:John_Smith>",
                ],
                "",
            ),
            Request,
        ),
        (
            "3.3.5 options that nobody has",
            call(&["Require: nothingSupportsThis, nothingSupportsThisEither"]),
            Status("420 INVITE"),
        ),
        (
            "3.3.6 unknown body",
            message(START, &["Content-Type: application/unknownformat"], "<x/>"),
            Status("415 INVITE"),
        ),
        (
            "3.3.7 unknown authorization",
            message(
                REGISTER,
                &["Authorization: NoOneKnowsThisScheme opaque=here"],
                "",
            ),
            Request,
        ),
        (
            "3.3.8 single values twice",
            call(&["CSeq: 5 INVITE\r\nCSeq: 59 INVITE"]),
            Status("400 INVITE"),
        ),
        (
            "3.3.8 lengths that differ",
            call(&["Content-Length: 0\r\nContent-Length: 8"]),
            Status("400 INVITE"),
        ),
        (
            "3.3.9 multiple lengths that are alike",
            call(&["Content-Length: 0\r\nContent-Length: 0"]),
            Status("400 INVITE"),
        ),
        (
            "3.3.10 response for everybody",
            "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 255.255.255.255;branch=z9hG4bKx\r\n\
             Call-ID: b\r\nFrom: <sip:u@h>;tag=1\r\nTo: <sip:u@h>;tag=2\r\nCSeq: 3 INVITE\r\n\
             Contact: <sip:u@198.51.100.9>\r\nContent-Length: 0\r\n\r\n"
                .to_owned(),
            Stray,
        ),
        (
            "3.3.11 no hop left",
            call(&["Max-Forwards: 0"]),
            Status("483 INVITE"),
        ),
        (
            "3.3.12 parameter of the contact",
            message(
                REGISTER,
                &["Contact: sip:+19725552222@198.51.100.9;unknownparam"],
                "",
            ),
            Request,
        ),
        (
            "3.3.13 parameter of its address",
            message(
                REGISTER,
                &["Contact: <sip:+19725552222@198.51.100.9;unknownparam>"],
                "",
            ),
            Request,
        ),
        (
            "3.3.14 headers in its address",
            message(
                REGISTER,
                &["Contact: <sip:user@198.51.100.9?Route=%3Csip:h%3E>"],
                "",
            ),
            Request,
        ),
        (
            "3.3.15 takes another body than it offers",
            message(START, &["Accept: text/nobodyKnowsThis"], ""),
            // What the 2xx describes is for the offer to say; 406 would be for a proxy's taste.
            Call,
        ),
        (
            "3.4.1 as RFC 2543 wrote it",
            message(
                START,
                &[
                    "Via: SIP/2.0/UDP 198.51.100.9",
                    "From: <sip:c-user@carrier.example>",
                    "Max-Forwards: -",
                ],
                "",
            ),
            Call,
        ),
    ]);
}

#[test]
fn addresses_of_rfc_5118_are_read_or_refused() {
    assert_owed(vec![
        (
            "4.1 valid reference",
            message(
                "REGISTER sip:[2001:db8::10] SIP/2.0",
                &[
                    "Via: SIP/2.0/UDP [2001:db8::9:1];branch=z9hG4bKas3-111",
                    "Contact: <sip:caller@[2001:db8::1]>",
                ],
                "",
            ),
            Request,
        ),
        (
            "4.2 target without brackets",
            message("REGISTER sip:2001:db8::10 SIP/2.0", &[], ""),
            Status("400 REGISTER"),
        ),
        (
            "4.3 port that is part of the address",
            message("REGISTER sip:[2001:db8::10:5070] SIP/2.0", &[], ""),
            Request,
        ),
        (
            "4.4 port behind the brackets",
            message("REGISTER sip:[2001:db8::10]:5070 SIP/2.0", &[], ""),
            Request,
        ),
        (
            "4.5 received with brackets",
            message(
                OPTIONS,
                &["Via: SIP/2.0/UDP [2001:db8::9:1];received=[2001:db8::9:255];branch=z9hG4bKas3"],
                "",
            ),
            Request,
        ),
        (
            "4.5 received without them",
            message(
                OPTIONS,
                &["Via: SIP/2.0/UDP [2001:db8::9:1];received=2001:db8::9:255;branch=z9hG4bKas3"],
                "",
            ),
            Request,
        ),
        (
            "4.5 sent-by without them",
            message(
                OPTIONS,
                &["Via: SIP/2.0/UDP 2001:db8::9:1;branch=z9hG4bKas3"],
                "",
            ),
            Silence,
        ),
        (
            "4.6 and 4.8 addresses in the description",
            message(
                START,
                &["Content-Type: application/sdp"],
                "v=0\r\no=a 1 1 IN IP6 2001:db8::20\r\ns=-\r\nc=IN IP6 2001:db8::20\r\nt=0 0\r\n\
                 m=audio 42000 RTP/AVP 0\r\nm=video 6000 RTP/AVP 31\r\nc=IN IP4 192.0.2.20\r\n",
            ),
            Call,
        ),
        (
            "4.7 both families in the headers",
            message(
                "INVITE sip:user@[2001:db8::10] SIP/2.0",
                &[
                    "Via: SIP/2.0/UDP [2001:db8::9:1]:6050;branch=z9hG4bKas3-111\r\n\
                     Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKjhja8781hjuaij65144",
                    "Contact: \"Caller\" <sip:caller@192.0.2.1>",
                ],
                "",
            ),
            Call,
        ),
        (
            "4.9 addresses mapped from IPv4",
            message(
                START,
                &[
                    "Via: SIP/2.0/UDP [::ffff:192.0.2.10]:19823;branch=z9hG4bKbh19",
                    "Contact: \"T. desk phone\" <sip:ted@[::ffff:192.0.2.2]>",
                ],
                "",
            ),
            Call,
        ),
        (
            "4.10 three colons of an early grammar",
            message("OPTIONS sip:user@[2001:db8:::192.0.2.1] SIP/2.0", &[], ""),
            // RFC 5118 §4.10 asks for leniency: the grammar that made it was the RFC's own.
            Request,
        ),
    ]);
}
