use sipx_sip::{Limits, Message, parse_datagram};

use super::*;

fn message(text: &str) -> Message {
    parse_datagram(Bytes::from(format!("{text}\r\n\r\n")), &Limits::datagram()).expect("parses")
}

fn flow(remote: &str) -> Flow {
    Flow::udp(
        "203.0.113.1:5060".parse().expect("valid"),
        remote.parse().expect("valid"),
    )
}

fn called(contact_and_routes: &str) -> Result<Dialog, NoDialog> {
    let text = format!(
        "INVITE sip:+15550100@203.0.113.1 SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.9;branch=z9hG4bKa\
         \r\nf: \"Alice\" <sip:alice@carrier.example>;tag=a1\r\nt: <sip:+15550100@203.0.113.1>\r\n\
         i: call-1\r\nCSeq: 7 INVITE\r\n{contact_and_routes}"
    );
    let Message::Request(request) = message(&text) else {
        panic!("a request was written");
    };
    Dialog::called(&request, flow("198.51.100.9:5060"), LocalTag(5))
}

fn routes(request: &Request) -> Vec<String> {
    request
        .headers
        .get_all(&HeaderName::Route)
        .map(|row| String::from_utf8_lossy(row.raw_value()).into_owned())
        .collect()
}

#[test]
fn bye_of_the_uas_names_the_private_contact_and_goes_to_the_first_of_two_routes() {
    let mut dialog = called(
        "m: <sip:alice@10.1.2.3:5062;ob>\r\n\
         Record-Route: <sip:198.51.100.9;transport=udp;r2=on;lr>, <sip:10.0.0.1;r2=on;lr>",
    )
    .expect("forms a dialog");
    let cseq = dialog.next_cseq();
    let (bye, flow) = dialog.request(Method::Bye, cseq, 1);
    assert_eq!(bye.uri.to_bytes(), &b"sip:alice@10.1.2.3:5062;ob"[..]);
    assert_eq!(
        routes(&bye),
        [
            "<sip:198.51.100.9;transport=udp;r2=on;lr>",
            "<sip:10.0.0.1;r2=on;lr>"
        ]
    );
    assert_eq!(flow.remote.to_string(), "198.51.100.9:5060");
    assert_eq!(
        bye.headers.value(&HeaderName::To).as_deref(),
        Some(&b"\"Alice\" <sip:alice@carrier.example>;tag=a1"[..])
    );
    assert_eq!(
        bye.headers.value(&HeaderName::From).as_deref(),
        Some(&b"<sip:+15550100@203.0.113.1>;tag=0000000000000005"[..])
    );
    assert_eq!(
        bye.headers.value(&HeaderName::CSeq).as_deref(),
        Some(&b"1 BYE"[..])
    );
}

#[test]
fn ack_of_the_uac_reverses_the_routes_and_follows_their_transport() {
    let target = Uri::parse(Bytes::from_static(b"sip:bob@198.51.100.9")).expect("valid");
    let mut dialog = Dialog::calling(
        Bytes::from_static(b"call-2"),
        LocalTag(9),
        b"<sip:us@203.0.113.1>",
        Bytes::from_static(b"<sip:bob@198.51.100.9>"),
        target,
        Bytes::from_static(b"<sip:us@203.0.113.1>"),
        flow("198.51.100.9:5060"),
    );
    let Message::Response(ok) = message(
        "SIP/2.0 200 OK\r\nRecord-Route: <sip:10.0.0.1;transport=udp;r2=on;lr>\r\n\
         Record-Route: <sip:198.51.100.9:5070;transport=tcp;r2=on;lr>;tag=\"a b\"\r\n\
         To: <sip:bob@198.51.100.9>;tag=b1\r\nContact: <sip:bob@192.168.7.7:5080>",
    ) else {
        panic!("a response was written");
    };
    dialog.adopt(&ok);
    let (ack, flow) = dialog.request(Method::Ack, 1, 1);
    assert_eq!(ack.uri.to_bytes(), &b"sip:bob@192.168.7.7:5080"[..]);
    assert_eq!(
        routes(&ack),
        [
            "<sip:198.51.100.9:5070;transport=tcp;r2=on;lr>;tag=\"a b\"",
            "<sip:10.0.0.1;transport=udp;r2=on;lr>"
        ]
    );
    assert_eq!(flow.kind, crate::flow::TransportKind::Tcp);
    assert_eq!(flow.remote.to_string(), "198.51.100.9:5070");
    assert_eq!(dialog.remote_tag.as_deref(), Some(&b"b1"[..]));
}

#[test]
fn strict_router_takes_the_request_uri_and_the_target_goes_last() {
    let dialog = called(
        "Contact: <sip:alice@10.1.2.3>\r\nRecord-Route: <sip:198.51.100.9>\r\n\
         Record-Route: <sip:198.51.100.8;lr>",
    )
    .expect("forms a dialog");
    let (bye, flow) = dialog.request(Method::Bye, 1, 1);
    assert_eq!(bye.uri.to_bytes(), &b"sip:198.51.100.9"[..]);
    assert_eq!(
        routes(&bye),
        ["<sip:198.51.100.8;lr>", "<sip:alice@10.1.2.3>"]
    );
    assert_eq!(flow.remote.to_string(), "198.51.100.9:5060");
}

#[test]
fn contact_behind_nat_is_named_but_the_flow_is_kept() {
    let dialog = called("Contact: <sip:alice@192.168.1.20:5062>").expect("forms a dialog");
    let (bye, flow) = dialog.request(Method::Bye, 1, 1);
    assert_eq!(bye.uri.to_bytes(), &b"sip:alice@192.168.1.20:5062"[..]);
    assert_eq!(flow.remote.to_string(), "198.51.100.9:5060");
}

#[test]
fn request_uri_of_a_contact_with_headers_has_none() {
    let dialog = called("Contact: <sip:alice@198.51.100.9?Subject=x&Subject=y&a=b>").expect("ok");
    let (bye, _) = dialog.request(Method::Bye, 1, 1);
    assert_eq!(bye.uri.to_bytes(), &b"sip:alice@198.51.100.9"[..]);
}

#[test]
fn message_that_cannot_form_a_dialog_says_why() {
    let many = "Record-Route: <sip:198.51.100.9;lr>\r\n".repeat(ROUTES_MAX + 1);
    for (rows, why) in [
        ("Subject: x".to_owned(), "Missing Contact"),
        (
            "Contact: <mailto:alice@example.com>".to_owned(),
            "Bad Contact",
        ),
        ("Contact: <sip:239.1.1.1>".to_owned(), "Bad Contact"),
        ("Contact: *".to_owned(), "Bad Contact"),
        (
            "Contact: <sip:a@h>\r\nRecord-Route: <sip:".to_owned(),
            "Bad Record-Route",
        ),
        (
            format!("Contact: <sip:a@h>\r\n{many}Subject: x"),
            "Bad Record-Route",
        ),
    ] {
        assert_eq!(
            called(&rows).expect_err("no dialog"),
            NoDialog(why),
            "{rows}"
        );
    }
}
