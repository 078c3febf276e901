use bytes::Bytes;
use proptest::prelude::*;
use rsip::headers::untyped::ToTypedHeader;
use rsip::message::HeadersExt;
use sipx_sip::{Limits, Message, parse_datagram};

use super::*;

fn invite_bytes(uri: &str, to: &str, from: &str, headers: &[u8]) -> Vec<u8> {
    let mut text = format!(
        "INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.1:5060;branch=z9hG4bK1\r\n\
         Max-Forwards: 70\r\nFrom: {from}\r\nTo: {to}\r\nCall-ID: a\r\nCSeq: 1 INVITE\r\n"
    )
    .into_bytes();
    text.extend_from_slice(headers);
    text.extend_from_slice(b"Content-Length: 0\r\n\r\n");
    text
}

fn parse(bytes: Vec<u8>) -> Request {
    match parse_datagram(Bytes::from(bytes), &Limits::datagram()).expect("well-formed") {
        Message::Request(request) => request,
        Message::Response(_) => unreachable!("it begins with a method"),
    }
}

fn invite(uri: &str, from: &str, headers: &str) -> Request {
    parse(invite_bytes(
        uri,
        "<sip:+442071838750@192.0.2.1>",
        from,
        headers.as_bytes(),
    ))
}

#[test]
fn numbers_are_normalised_in_every_form_that_carriers_write() {
    let rows = [
        ("+442071838750", Some("+442071838750")),
        ("442071838750", Some("+442071838750")),
        ("00442071838750", Some("+442071838750")),
        ("+44 (20) 7183-8750", Some("+442071838750")),
        ("+44.20.7183.8750", Some("+442071838750")),
        (" +1-555-012-3456 ", Some("+15550123456")),
        ("+123456789012345", Some("+123456789012345")),
        ("00123456789012345", Some("+123456789012345")),
        ("+1234567890123456", None),
        ("02071838750", None),
        ("+02071838750", None),
        ("+0044207183875", None),
        ("101", None),
        ("+1", None),
        ("", None),
        ("+", None),
        ("alice", None),
        ("+44x2071838750", None),
        ("+44٢٠٧١٨٣٨٧٥٠", None),
        ("1-800-FLOWERS", None),
    ];
    for (text, expected) in rows {
        assert_eq!(e164(text).as_deref(), expected, "{text}");
    }
}

#[test]
fn called_party_is_the_request_uris_user_else_tos() {
    let rows = [
        (
            "sip:+442071838750@192.0.2.1",
            "+442071838750",
            Some("+442071838750"),
        ),
        (
            "sip:442071838750@192.0.2.1;user=phone",
            "442071838750",
            Some("+442071838750"),
        ),
        ("sip:101@trunkline", "101", None),
        (
            "sip:%2B442071838750@192.0.2.1",
            "+442071838750",
            Some("+442071838750"),
        ),
        (
            "tel:+44-20-7183-8750",
            "+44-20-7183-8750",
            Some("+442071838750"),
        ),
        (
            "tel:7183-8750;phone-context=+4420",
            "+44207183-8750",
            Some("+442071838750"),
        ),
        ("tel:7183;phone-context=example.com", "7183", None),
        (
            "sip:+442071838750;npdi;rn=+442071@192.0.2.1;user=phone",
            "+442071838750",
            Some("+442071838750"),
        ),
        ("sip:alice.b%C3%BCro@trunkline", "alice.büro", None),
        ("sip:al;ice@trunkline", "al;ice", None),
        ("sip:192.0.2.1:5060", "+442071838750", Some("+442071838750")),
    ];
    for (uri, user, number) in rows {
        let called = called(&invite(uri, "<sip:a@b>;tag=1", "")).expect(uri);
        assert_eq!(
            (called.as_str(), e164(&called).as_deref()),
            (user, number),
            "{uri}"
        );
    }
    let nobody = parse(invite_bytes(
        "sip:192.0.2.1",
        "<sip:192.0.2.1>",
        "<sip:a@b>;tag=1",
        b"",
    ));
    assert_eq!(called(&nobody), None);
}

#[test]
fn caller_is_taken_from_from_with_its_name() {
    let rows = [
        (
            "\"Ann \\\"A\\\" Other\" <sip:+15550123456@h>;tag=1",
            "+15550123456",
            Some("Ann \"A\" Other"),
        ),
        ("Ann Other <sip:ann@h>;tag=1", "ann", Some("Ann Other")),
        ("sip:+15550123456@h;tag=1", "+15550123456", None),
        ("<sip:02071838750@h>;tag=1", "02071838750", None),
        ("<sip:5550123456@h>;tag=1", "5550123456", None),
        ("<sip:0015550123456@h>;tag=1", "+15550123456", None),
        ("\"\" <sip:ann@h>;tag=1", "ann", None),
        ("<tel:+1-555-012-3456>;tag=1", "+15550123456", None),
        ("<sip:h>;tag=1", "anonymous", None),
    ];
    for (from, number, name) in rows {
        let caller = caller(&invite("sip:101@h", from, ""), true);
        assert_eq!(caller.number, number, "{from}");
        assert_eq!(caller.display_name.as_deref(), name, "{from}");
        assert!(!caller.is_withheld, "{from}");
    }
}

#[test]
fn asserted_identity_is_believed_from_trunks_alone() {
    let from = "\"Ann\" <sip:ann@pbx.example>;tag=1";
    let headers = "P-Asserted-Identity: <sip:ann@pbx.example>, <tel:+15550123456>\r\n";
    let request = invite("sip:101@h", from, headers);
    let trusted = caller(&request, true);
    assert_eq!(trusted.number, "+15550123456");
    assert_eq!(trusted.display_name.as_deref(), Some("Ann"));
    assert_eq!(caller(&request, false).number, "ann");
}

#[test]
fn verstat_and_other_parameters_inside_an_asserted_uri_do_no_harm() {
    let headers = "P-Asserted-Identity: \"Bob\" \
        <sip:+15550123456;verstat=TN-Validation-Passed@h;user=phone>\r\n";
    let caller = caller(&invite("sip:101@h", "<sip:x@h>;tag=1", headers), true);
    assert_eq!(caller.number, "+15550123456");
    assert_eq!(caller.display_name.as_deref(), Some("Bob"));
}

#[test]
fn anonymous_caller_has_no_number_unless_the_trunk_knows_it() {
    let anonymous = "\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=1";
    let caller_of = |headers: &str| caller(&invite("sip:101@h", anonymous, headers), true);
    let unknown = caller_of("");
    assert_eq!(
        (unknown.number.as_str(), unknown.display_name),
        (ANONYMOUS, None)
    );
    assert!(unknown.is_withheld);
    let known = caller_of("P-Asserted-Identity: <sip:+15550123456@h>\r\nPrivacy: id\r\n");
    assert_eq!(known.number, "+15550123456");
    assert!(known.is_withheld);
}

#[test]
fn peer_is_behind_nat_when_its_contact_is_not_where_we_see_it() {
    let flow = Flow::udp(
        "192.0.2.1:5060".parse().expect("valid"),
        "198.51.100.1:41000".parse().expect("valid"),
    );
    let rows = [
        ("Contact: <sip:a@10.0.0.7>\r\n", true),
        ("Contact: <sip:a@198.51.100.1:5060>\r\n", false),
        ("m: <sip:a@8sjd9.invalid;transport=ws>\r\n", true),
        ("Contact: <sip:a@phone.example>\r\n", false),
        ("", false),
    ];
    for (headers, expected) in rows {
        let request = invite("sip:101@h", "<sip:ann@h>;tag=1", headers);
        assert_eq!(is_behind_nat(&request, &flow), expected, "{headers}");
    }
}

#[test]
fn uri_of_a_user_escapes_what_the_grammar_forbids() {
    let rows = [
        (
            "+15550123456",
            "trunkline",
            Some("sip:+15550123456@trunkline"),
        ),
        (
            "alice.büro",
            "192.0.2.1",
            Some("sip:alice.b%C3%BCro@192.0.2.1"),
        ),
        ("a@b;c\r\n", "h", Some("sip:a%40b%3Bc%0D%0A@h")),
        ("alice", "2001:db8::1", Some("sip:alice@[2001:db8::1]")),
        ("alice", "[2001:db8::1]", Some("sip:alice@[2001:db8::1]")),
        ("", "h", None),
        ("a", "", None),
        ("a", "h\r\nX: y", None),
    ];
    for (user, host, expected) in rows {
        let uri = user_at(user, host).map(|uri| uri.to_string());
        assert_eq!(uri.as_deref(), expected, "{user}");
    }
}

#[test]
fn hops_and_call_id_are_read_with_defaults() {
    let request = invite("sip:101@h", "<sip:ann@h>;tag=1", "");
    assert_eq!(
        (max_forwards(&request), call_id(&request).as_str()),
        (70, "a")
    );
    let text = b"INVITE sip:a@h SIP/2.0\r\nMax-Forwards: many\r\nFrom: <sip:a@b>\r\n\r\n";
    let bare = parse(text.to_vec());
    assert_eq!((max_forwards(&bare), call_id(&bare).as_str()), (70, ""));
}

#[test]
fn privacy_header_withholds_for_the_values_that_concern_identity() {
    let rows = [
        ("id", true),
        ("user;critical", true),
        ("header", true),
        ("none", false),
        ("session", false),
    ];
    for (value, expected) in rows {
        let request = invite(
            "sip:101@h",
            "<sip:ann@h>;tag=1",
            &format!("Privacy: {value}\r\n"),
        );
        assert_eq!(caller(&request, false).is_withheld, expected, "{value}");
    }
}

#[test]
fn bytes_that_are_not_text_are_replaced_and_control_characters_dropped() {
    let mut bytes = invite_bytes(
        "sip:101@h",
        "<sip:101@h>",
        "\"@\" <sip:null-%00-%FF@h>;tag=1",
        b"",
    );
    let at = bytes
        .iter()
        .position(|byte| *byte == b'@')
        .expect("the URI's");
    let name = bytes[at + 1..]
        .windows(3)
        .position(|w| w == b"\"@\"")
        .expect("present")
        + at
        + 2;
    bytes[name] = 0xe9;
    let caller = caller(&parse(bytes), false);
    assert_eq!(caller.display_name.as_deref(), Some("\u{fffd}"));
    assert_eq!(caller.number, "null--\u{fffd}");
}

#[test]
fn numbers_do_not_print() {
    let request = invite("sip:101@h", "\"Ann\" <sip:+15550123456@h>;tag=1", "");
    let shown = format!("{:?}", caller(&request, false));
    assert!(shown.contains("…56"), "{shown}");
    assert!(!shown.contains("555") && !shown.contains("Ann"), "{shown}");
}

/// Parts of an INVITE that both parsers must understand alike. rsip loses user parts with dots and
/// reads neither compact header names nor `tel:` URIs, so these are tested above.
fn well_formed() -> impl Strategy<Value = (String, String, String)> {
    let user = "[a-z][a-z0-9-]{0,12}|\\+[1-9][0-9]{6,14}|[0-9]{2,5}";
    let host = "[a-z]{1,8}\\.example|192\\.0\\.2\\.[1-9]";
    let uri = (user, host, prop::option::of(1u16..), any::<bool>()).prop_map(
        |(user, host, port, phone)| {
            let port = port.map_or_else(String::new, |port| format!(":{port}"));
            let phone = if phone { ";user=phone" } else { "" };
            format!("sip:{user}@{host}{port}{phone}")
        },
    );
    (uri.clone(), uri, "[A-Za-z][A-Za-z0-9 ]{0,20}[A-Za-z]")
}

proptest! {
    #[test]
    fn users_and_names_are_those_that_rsip_reads((uri, from, name) in well_formed()) {
        let from = format!("\"{name}\" <{from}>;tag=1");
        let bytes = invite_bytes(&uri, &format!("<{uri}>"), &from, b"");
        let theirs = rsip::Request::try_from(bytes.clone()).expect("rsip reads it");
        let their_from = theirs.from_header().expect("present").typed().expect("well-formed");
        let ours = parse(bytes);

        let called = called(&ours);
        prop_assert_eq!(called, theirs.uri.user().map(str::to_owned));
        let caller = caller(&ours, false);
        prop_assert_eq!(Some(caller.number.as_str()), their_from.uri.user());
        // rsip keeps the quotes.
        let theirs = their_from.display_name.map(|name| name.trim_matches('"').to_owned());
        prop_assert_eq!(caller.display_name, theirs);
    }

    #[test]
    fn no_header_panics(from in prop::collection::vec(any::<u8>(), 0..80), pai in "[ -~]{0,80}", text in "\\PC{0,40}") {
        let mut headers = b"P-Asserted-Identity: ".to_vec();
        headers.extend_from_slice(pai.as_bytes());
        headers.extend_from_slice(b"\r\nPrivacy: ");
        headers.extend(from.iter().filter(|byte| !matches!(byte, b'\r' | b'\n')));
        headers.extend_from_slice(b"\r\nX-Name: ");
        headers.extend(from.iter().filter(|byte| !matches!(byte, b'\r' | b'\n')));
        headers.extend_from_slice(b"\r\n");
        let request = parse(invite_bytes("sip:101@h", "<sip:101@h>", "<sip:a@b>;tag=1", &headers));
        for is_trusted in [true, false] {
            let _ = format!("{:?}", caller(&request, is_trusted));
        }
        if let Some(number) = e164(&text) {
            prop_assert!((8..=16).contains(&number.len()));
            prop_assert_eq!(e164(&number), Some(number));
        }
    }
}

#[test]
fn what_a_trunk_says_of_the_number_is_believed_wherever_it_writes_it() {
    let stranger = "<sip:+15551110000;verstat=TN-Validation-Passed@192.0.2.9>;tag=1";
    for (from, headers, verstat) in [
        (
            "<sip:+15551110000@192.0.2.9>;tag=1",
            "P-Asserted-Identity: <sip:+15551110000@sip.telnyx.com;verstat=TN-Validation-Passed-A>\r\n",
            Some("TN-Validation-Passed-A"),
        ),
        (
            "<sip:+15551110000@192.0.2.9>;tag=1",
            "P-Asserted-Identity: <tel:+15551110000;verstat=TN-Validation-Failed>\r\n",
            Some("TN-Validation-Failed"),
        ),
        (stranger, "", Some("TN-Validation-Passed")),
        (
            "<sip:+15551110000@192.0.2.9>;tag=1",
            "P-Asserted-Identity: <sip:+15551110000@h;verstat=anything>\r\n",
            None,
        ),
        ("<sip:+15551110000@192.0.2.9>;tag=1", "", None),
    ] {
        let request = invite("sip:+442071838750@192.0.2.1", from, headers);
        let caller = caller(&request, true);
        assert_eq!(caller.verstat, verstat, "{from} {headers}");
        assert_eq!(caller.number, "+15551110000");
    }
    let request = invite("sip:+442071838750@192.0.2.1", stranger, "");
    assert_eq!(caller(&request, false).verstat, None);
}

#[test]
fn diversions_go_on_with_the_call_unless_history_is_to_be_hidden() {
    let rows = "Diversion: <sip:+15558880000@pstn.example>;reason=unconditional\r\n\
                History-Info: <sip:+15558880000@pstn.example>;index=1\r\nX-Other: 1\r\n";
    let from = "<sip:+15551110000@192.0.2.9>;tag=1";
    let passed = |rows: &str| {
        let request = invite("sip:+442071838750@192.0.2.1", from, rows);
        diversions(&request)
            .iter()
            .map(|row| row.name().to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(passed(rows), ["Diversion", "History-Info"]);
    for privacy in ["history", "header; history", "id"] {
        let hidden = passed(&format!("{rows}Privacy: {privacy}\r\n"));
        assert!(hidden.is_empty(), "{privacy}");
    }
    let many = "Diversion: <sip:+15558880000@pstn.example>\r\n".repeat(40);
    assert_eq!(passed(&many).len(), DIVERSIONS_MAX);
}
