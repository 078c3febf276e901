use sipx_sip::{Limits, Uri, parse_datagram};

use super::*;

fn request(head: &str) -> Request {
    let text = format!("{head}\r\n\r\n");
    match parse_datagram(Bytes::from(text), &Limits::datagram()).expect("parses") {
        Message::Request(request) => request,
        Message::Response(_) => panic!("a request was written"),
    }
}

fn stamped(via: &str, source: &str) -> (String, String) {
    let mut request = request(&format!(
        "OPTIONS sip:a SIP/2.0\r\nVia: {via}\r\nVia: other"
    ));
    let flow = Flow::udp(
        "192.0.2.1:5060".parse().expect("valid"),
        source.parse().expect("valid"),
    );
    let reply = stamp_via(&mut request.headers, &flow).expect("usable");
    let value = request.headers.value(&HeaderName::Via).expect("kept");
    assert_eq!(request.headers.count(&HeaderName::Via), 2);
    (
        String::from_utf8_lossy(&value).into_owned(),
        reply.remote.to_string(),
    )
}

#[test]
fn via_takes_received_and_rport_and_the_response_follows_them() {
    for (via, source, stamped_via, reply_to) in [
        // Nothing to note: the sender wrote where it sends from.
        (
            "SIP/2.0/UDP 198.51.100.1:5070;branch=z9hG4bKa",
            "198.51.100.1:40000",
            "SIP/2.0/UDP 198.51.100.1:5070;branch=z9hG4bKa",
            "198.51.100.1:5070",
        ),
        // Behind NAT without rport: the port it wrote, at the address seen.
        (
            "SIP/2.0/UDP 10.0.0.9;branch=z9hG4bKa",
            "198.51.100.1:40000",
            "SIP/2.0/UDP 10.0.0.9;branch=z9hG4bKa;received=198.51.100.1",
            "198.51.100.1:5060",
        ),
        // RFC 3581: both, even where the address is right.
        (
            "SIP/2.0/UDP 198.51.100.1:5070;rport;branch=z9hG4bKa",
            "198.51.100.1:40000",
            "SIP/2.0/UDP 198.51.100.1:5070;rport=40000;branch=z9hG4bKa;received=198.51.100.1",
            "198.51.100.1:40000",
        ),
        // A second hop on the same row stays as it was.
        (
            "SIP / 2.0 / UDP host.example ; branch=z9hG4bKa ; RPORT , SIP/2.0/UDP b;rport",
            "[2001:db8::7]:40000",
            "SIP / 2.0 / UDP host.example ; branch=z9hG4bKa ;rport=40000;received=2001:db8::7\
             , SIP/2.0/UDP b;rport",
            "[2001:db8::7]:40000",
        ),
        // A quoted string that looks like the parameter.
        (
            "SIP/2.0/UDP h;branch=z9hG4bKa;x=\"a;rport\\\";rport\";rport=1",
            "198.51.100.1:40000",
            "SIP/2.0/UDP h;branch=z9hG4bKa;x=\"a;rport\\\";rport\";rport=40000\
             ;received=198.51.100.1",
            "198.51.100.1:40000",
        ),
    ] {
        assert_eq!(
            stamped(via, source),
            (stamped_via.to_owned(), reply_to.to_owned()),
            "{via}"
        );
    }
}

#[test]
fn request_without_usable_via_cannot_be_answered() {
    let flow = Flow::udp(
        "192.0.2.1:5060".parse().expect("valid"),
        "192.0.2.2:5060".parse().expect("valid"),
    );
    for head in [
        "OPTIONS sip:a SIP/2.0\r\nTo: x",
        "OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0",
    ] {
        let mut request = request(head);
        assert_eq!(stamp_via(&mut request.headers, &flow), Err(NoUsableVia));
    }
}

#[test]
fn local_tag_reads_only_what_it_writes() {
    let tag = LocalTag(0x00ab_cdef_0123_4567);
    assert_eq!(LocalTag::parse(tag.to_string().as_bytes()), Some(tag));
    for other in [
        "",
        "00ABCDEF01234567",
        "abcdef01234567",
        "+0abcdef01234567",
        "as1234",
    ] {
        assert_eq!(LocalTag::parse(other.as_bytes()), None, "{other}");
    }
}

#[test]
fn display_name_is_quoted_and_loses_control_characters() {
    let address = NameAddr {
        display_name: Some("Bob \"\\\"\r\nVia: x".to_owned()),
        uri: Uri::parse(Bytes::from_static(b"sip:bob@192.0.2.1")).expect("valid"),
    };
    assert_eq!(
        name_addr_value(&address),
        br#""Bob \"\\\"Via: x" <sip:bob@192.0.2.1>"#
    );
}

#[test]
fn header_value_that_could_end_a_line_is_defused() {
    let built = header(HeaderName::Subject, "a\r\nInjected: b\0");
    assert_eq!(built.raw_value(), b"a  Injected: b ");
}

#[test]
fn response_takes_a_tag_only_where_to_has_none() {
    let tag = LocalTag(1);
    for (to, expected) in [
        ("<sip:b@h>", "<sip:b@h>;tag=0000000000000001"),
        ("sip:b@h;x=1", "sip:b@h;x=1;tag=0000000000000001"),
        ("<sip:b@h>;tag=theirs", "<sip:b@h>;tag=theirs"),
    ] {
        let request = request(&format!(
            "OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKa\r\nFrom: <sip:a@h>;tag=f\
             \r\nTo: {to}\r\nCall-ID: c\r\nCSeq: 1 OPTIONS"
        ));
        let response = response_to(&request, 486, None, Some(tag)).expect("answerable");
        assert_eq!(
            response.headers.value(&HeaderName::To).as_deref(),
            Some(expected.as_bytes())
        );
        assert_eq!(&response.reason[..], b"Busy Here");
    }
}
