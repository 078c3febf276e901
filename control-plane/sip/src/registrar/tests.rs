use std::net::SocketAddr;

use bytes::Bytes;
use proptest::prelude::*;
use sipx_sip::{Limits, Message, parse_datagram};

use super::*;

const NAT: &str = "198.51.100.20:41000";

fn at(secs: u64) -> MonoTime {
    MonoTime::default().plus_secs(100 + secs)
}

fn flow(remote: &str) -> Flow {
    let local: SocketAddr = "192.0.2.1:5060".parse().expect("valid");
    Flow::udp(local, remote.parse().expect("valid"))
}

fn register(call_id: &str, cseq: u32, headers: &str) -> Request {
    let text = format!(
        "REGISTER sip:trunkline SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.7;branch=z9hG4bK1\r\n\
         From: <sip:1001@trunkline>;tag=1\r\nTo: <sip:1001@trunkline>\r\n\
         Call-ID: {call_id}\r\nCSeq: {cseq} REGISTER\r\n{headers}\r\n"
    );
    match parse_datagram(Bytes::from(text), &Limits::datagram()).expect("well-formed") {
        Message::Request(request) => request,
        Message::Response(_) => unreachable!("it begins with a method"),
    }
}

/// Registers over the NAT'd flow and gives the contacts of the 200, or the status.
fn put(
    registrar: &mut Registrar,
    secs: u64,
    call_id: &str,
    cseq: u32,
    headers: &str,
) -> Result<Vec<String>, u16> {
    let request = register(call_id, cseq, headers);
    let result = registrar.handle_register(at(secs), "1001", &request, &flow(NAT));
    assert!(registrar.len() <= registrar.config.bindings_max);
    result
        .map(|headers| named(&headers, &HeaderName::Contact))
        .map_err(|error| error.status())
}

fn values(headers: &[Header]) -> Vec<String> {
    let text = |header: &Header| String::from_utf8_lossy(&header.value()).into_owned();
    headers.iter().map(text).collect()
}

fn table() -> Registrar {
    Registrar::new(RegistrarConfig::default())
}

const PHONE: &str = "Contact: <sip:1001@10.0.0.7:5060>\r\n";

#[test]
fn phone_behind_nat_is_reached_where_its_register_came_from() {
    let mut table = table();
    let contacts = put(&mut table, 0, "a", 1, PHONE).expect("valid");
    assert_eq!(contacts, ["<sip:1001@10.0.0.7:5060>;expires=3600"]);
    let bindings = table.bindings(at(1), "1001");
    assert_eq!(bindings[0].contact.to_string(), "sip:1001@10.0.0.7:5060");
    assert_eq!(bindings[0].flow, flow(NAT));
    assert!(bindings[0].is_behind_nat());
    assert!(table.bindings(at(1), "1002").is_empty());
}

#[test]
fn phone_at_the_address_it_names_is_not_behind_nat() {
    let mut table = table();
    let request = register("a", 1, "m: <sip:1001@198.51.100.20:5060>\r\n");
    table
        .handle_register(at(0), "1001", &request, &flow(NAT))
        .expect("valid");
    assert!(!table.bindings(at(0), "1001")[0].is_behind_nat());
}

#[test]
fn interval_comes_from_contact_then_header_then_default_within_bounds() {
    let rows: &[(&str, Result<u32, u16>)] = &[
        (
            "Contact: <sip:a@10.0.0.7>;expires=120\r\nExpires: 600\r\n",
            Ok(120),
        ),
        ("Contact: <sip:a@10.0.0.7>\r\nExpires: 600\r\n", Ok(600)),
        ("Contact: <sip:a@10.0.0.7>\r\n", Ok(3_600)),
        ("Contact: <sip:a@10.0.0.7>;expires=86400\r\n", Ok(3_600)),
        (
            "Contact: <sip:a@10.0.0.7>;expires=4294967296\r\n",
            Ok(3_600),
        ),
        ("Contact: <sip:a@10.0.0.7>;expires=soon\r\n", Ok(3_600)),
        ("Contact: <sip:a@10.0.0.7>\r\nExpires: never\r\n", Ok(3_600)),
        ("Contact: <sip:a@10.0.0.7>;expires=60\r\n", Ok(60)),
        ("Contact: <sip:a@10.0.0.7>;expires=59\r\n", Err(423)),
        ("Contact: <sip:a@10.0.0.7>\r\nExpires: 1\r\n", Err(423)),
    ];
    for (headers, expected) in rows {
        let expected = expected.map(|secs| vec![format!("<sip:a@10.0.0.7>;expires={secs}")]);
        assert_eq!(put(&mut table(), 0, "a", 1, headers), expected, "{headers}");
    }
    let brief = RegisterError::IntervalTooBrief { min_secs: 60 };
    assert_eq!(values(&brief.headers()), ["60"]);
    assert_eq!(brief.headers()[0].name(), &HeaderName::MinExpires);
}

#[test]
fn unusable_registers_change_nothing() {
    let rows = [
        ("Contact: *\r\n", 400),
        ("Contact: *\r\nExpires: 60\r\n", 400),
        ("Contact: *, <sip:a@10.0.0.8>\r\nExpires: 0\r\n", 400),
        (
            "Contact: *\r\nContact: <sip:a@10.0.0.8>\r\nExpires: 0\r\n",
            400,
        ),
        ("Contact: tel:+442071838750\r\n", 400),
        ("Contact: <sip:a@10.0.0.8\r\n", 400),
        ("Contact: \r\n", 400),
        (
            "Contact: <sip:a@10.0.0.8>, <sip:a@10.0.0.9>;expires=3\r\n",
            423,
        ),
    ];
    for (headers, status) in rows {
        let mut table = table();
        let before = put(&mut table, 0, "a", 1, PHONE);
        assert_eq!(
            put(&mut table, 0, "a", 2, headers),
            Err(status),
            "{headers}"
        );
        assert_eq!(put(&mut table, 0, "a", 3, ""), before, "{headers}");
    }
}

#[test]
fn query_lists_every_binding_with_the_time_left() {
    let mut table = table();
    put(&mut table, 0, "a", 1, "Contact: <sip:a@10.0.0.7>;q=0.5\r\n").expect("valid");
    put(
        &mut table,
        10,
        "b",
        1,
        "Contact: <sip:b@10.0.0.8>;q=1.0;expires=600\r\n",
    )
    .expect("valid");
    assert_eq!(
        put(&mut table, 20, "c", 1, "").expect("valid"),
        [
            "<sip:a@10.0.0.7>;expires=3580;q=0.500",
            "<sip:b@10.0.0.8>;expires=590"
        ]
    );
    let best: Vec<_> = table.bindings(at(20), "1001");
    assert_eq!(best[0].contact.to_string(), "sip:b@10.0.0.8");
}

#[test]
fn latest_phone_comes_first_among_equals() {
    let mut table = table();
    put(&mut table, 0, "a", 1, "Contact: <sip:a@10.0.0.7>\r\n").expect("valid");
    put(&mut table, 1, "b", 1, "Contact: <sip:b@10.0.0.8>\r\n").expect("valid");
    put(&mut table, 2, "a", 2, "Contact: <sip:a@10.0.0.7>\r\n").expect("valid");
    assert_eq!(
        table.bindings(at(3), "1001")[0].contact.to_string(),
        "sip:a@10.0.0.7"
    );
    assert_eq!(table.len(), 2);
}

#[test]
fn older_register_of_the_same_call_id_is_refused_and_another_call_id_starts_anew() {
    let mut table = table();
    put(&mut table, 0, "a", 7, PHONE).expect("valid");
    assert_eq!(put(&mut table, 1, "a", 7, PHONE), Err(500));
    assert_eq!(
        put(&mut table, 1, "a", 6, "Contact: *\r\nExpires: 0\r\n"),
        Err(500)
    );
    assert!(put(&mut table, 1, "rebooted", 1, PHONE).is_ok());
    assert_eq!(table.len(), 1);
}

#[test]
fn unregistering_one_or_all_removes_them() {
    let mut table = table();
    put(&mut table, 0, "a", 1, PHONE).expect("valid");
    put(&mut table, 0, "b", 1, "Contact: <sip:b@10.0.0.8>\r\n").expect("valid");
    let left = put(
        &mut table,
        1,
        "a",
        2,
        "Contact: <sip:1001@10.0.0.7:5060>;expires=0\r\n",
    );
    assert_eq!(left.expect("valid"), ["<sip:b@10.0.0.8>;expires=3599"]);
    assert_eq!(
        put(&mut table, 2, "a", 3, "Contact: *\r\nExpires: 0\r\n"),
        Ok(vec![])
    );
    assert!(table.is_empty());
    assert_eq!(table.poll_timeout(), None);
}

#[test]
fn instance_that_moves_replaces_its_old_contact_and_another_flow_of_it_does_not() {
    let mut table = table();
    let contact = |port: u16, reg_id: u8| {
        format!(
            "Supported: outbound\r\n\
             Contact: <sip:1001@10.0.0.7:{port}>;+sip.instance=\"<urn:uuid:1>\";reg-id={reg_id}\r\n"
        )
    };
    put(&mut table, 0, "a", 1, &contact(5060, 1)).expect("valid");
    let moved = put(&mut table, 1, "b", 1, &contact(5062, 1)).expect("valid");
    assert_eq!(
        moved,
        ["<sip:1001@10.0.0.7:5062>;expires=3600;+sip.instance=\"<urn:uuid:1>\";reg-id=1"]
    );
    assert_eq!(
        put(&mut table, 2, "c", 1, &contact(5064, 2)).map(|all| all.len()),
        Ok(2)
    );
    // Two ways to one phone: it is rung once, over the way it used last.
    let ways = table.bindings(at(3), "1001");
    assert_eq!(ways.len(), 1);
    assert_eq!(ways[0].contact.to_string(), "sip:1001@10.0.0.7:5064");
}

#[test]
fn reg_id_means_nothing_without_outbound_and_is_refused_behind_a_proxy_that_keeps_no_flow() {
    let contact = "Contact: <sip:1@10.0.0.7>;+sip.instance=\"<urn:uuid:1>\";reg-id=2\r\n";
    let without = put(&mut table(), 0, "a", 1, contact).expect("valid");
    assert_eq!(
        without,
        ["<sip:1@10.0.0.7>;expires=3600;+sip.instance=\"<urn:uuid:1>\""]
    );
    let outbound = format!("Supported: path, outbound\r\n{contact}");
    let through = |path: &str| put(&mut table(), 0, "a", 1, &format!("{path}{outbound}"));
    assert_eq!(through("Path: <sip:198.51.100.20:41000;lr>\r\n"), Err(439));
    assert!(through("Path: <sip:198.51.100.20:41000;lr;ob>\r\n").is_ok());
    // The edge proxy is the last, the one on top stands next to us.
    assert!(through("Path: <sip:inner;lr>, <sip:edge;lr;ob>\r\n").is_ok());
    assert_eq!(
        through("Path: <sip:inner;lr;ob>\r\nPath: <sip:edge;lr>\r\n"),
        Err(439)
    );
}

/// Headers of a 200 by name.
fn named(headers: &[Header], name: &HeaderName) -> Vec<String> {
    let of_name = headers.iter().filter(|header| header.name() == name);
    values(&of_name.cloned().collect::<Vec<_>>())
}

fn ok(headers: &str) -> (Registrar, Vec<Header>) {
    let mut table = table();
    let on_tcp = Flow::tcp(flow(NAT).local, flow(NAT).remote, Some(ConnectionId(1)));
    let answer = table
        .handle_register(at(0), "1001", &register("a", 1, headers), &on_tcp)
        .expect("valid");
    (table, answer)
}

#[test]
fn path_is_given_back_and_becomes_the_route_of_what_is_sent_to_the_phone() {
    let (table, answer) = ok(&format!(
        "Supported: path\r\nPath: <sip:inner.example.com;lr>\r\n\
         Path: <sip:token@edge.example.com;lr>\r\n{PHONE}"
    ));
    let rows = [
        "<sip:inner.example.com;lr>",
        "<sip:token@edge.example.com;lr>",
    ];
    assert_eq!(named(&answer, &HeaderName::Path), rows);
    let bindings = table.bindings(at(1), "1001");
    assert_eq!(values(&bindings[0].routes()), rows);
    // The proxy sees to its phones' NAT; the address of the flow is the proxy's own.
    assert!(!bindings[0].is_behind_nat());
    // Kept for a phone that does not know of it, too, but not shown to it (RFC 3327 §5.3).
    let (table, answer) = ok(&format!("Path: <sip:edge.example.com;lr>\r\n{PHONE}"));
    assert!(named(&answer, &HeaderName::Path).is_empty());
    assert_eq!(table.bindings(at(1), "1001")[0].routes().len(), 1);
}

#[test]
fn path_is_bounded() {
    let row = "Path: <sip:edge.example.com;lr>\r\n";
    let too_many = row.repeat(5) + PHONE;
    assert_eq!(put(&mut table(), 0, "a", 1, &too_many), Err(400));
    let too_long = format!("Path: <sip:{}@edge;lr>\r\n{PHONE}", "x".repeat(600));
    assert_eq!(put(&mut table(), 0, "a", 1, &too_long), Err(400));
    assert_eq!(
        put(
            &mut table(),
            0,
            "a",
            1,
            &format!("Path: <sip:edge\r\n{PHONE}")
        ),
        Err(400)
    );
}

#[test]
fn outbound_in_use_is_said_with_the_time_between_keepalives_on_a_stream() {
    let contact = "Contact: <sip:1@10.0.0.7>;+sip.instance=\"<urn:uuid:1>\";reg-id=1\r\n";
    let (_, answer) = ok(&format!("Supported: outbound\r\n{contact}"));
    assert_eq!(named(&answer, &HeaderName::Require), ["outbound"]);
    assert_eq!(named(&answer, &HeaderName::FlowTimer), ["120"]);
    let (_, answer) = ok(PHONE);
    assert!(named(&answer, &HeaderName::Require).is_empty());
    assert_eq!(
        named(&answer, &HeaderName::Supported),
        ["path, outbound, gruu"]
    );
}

#[test]
fn phone_that_asks_gets_a_public_gruu_that_names_it_alone() {
    let contact = "Contact: <sip:1@10.0.0.7>;+sip.instance=\"<urn:uuid:1>\"\r\n";
    let (table, answer) = ok(&format!("Supported: gruu\r\n{contact}"));
    assert_eq!(
        named(&answer, &HeaderName::Contact),
        [
            "<sip:1@10.0.0.7>;expires=3600;+sip.instance=\"<urn:uuid:1>\";\
             pub-gruu=\"sip:1001@trunkline;gr=urn:uuid:1\""
        ]
    );
    let binding = table.bindings(at(1), "1001")[0];
    assert!(binding.is_instance(b"urn:uuid:1"));
    assert!(!binding.is_instance(b"urn:uuid:2"));
    let (_, answer) = ok(contact);
    assert!(!named(&answer, &HeaderName::Contact)[0].contains("gruu"));
}

#[test]
fn service_route_names_the_address_and_transport_the_register_came_to() {
    let mut table = Registrar::new(RegistrarConfig {
        gives_service_route: true,
        ..RegistrarConfig::default()
    });
    let mut route = |flow: &Flow| {
        let answer = table
            .handle_register(at(0), "1001", &register("a", 1, ""), flow)
            .expect("valid");
        named(&answer, &HeaderName::ServiceRoute)
    };
    assert_eq!(route(&flow(NAT)), ["<sip:192.0.2.1:5060;lr>"]);
    let tcp = Flow::tcp(flow(NAT).local, flow(NAT).remote, None);
    assert_eq!(route(&tcp), ["<sip:192.0.2.1:5060;transport=tcp;lr>"]);
}

#[test]
fn contacts_and_registrations_are_bounded_but_refreshing_stays_possible() {
    let mut table = Registrar::new(RegistrarConfig {
        contacts_max: 2,
        bindings_max: 3,
        ..RegistrarConfig::default()
    });
    let contact = |n: u32| format!("Contact: <sip:{n}@10.0.0.7>\r\n");
    for n in 0..2 {
        put(&mut table, 0, "a", n, &contact(n)).expect("room");
    }
    assert_eq!(put(&mut table, 0, "a", 9, &contact(2)), Err(403));
    assert_eq!(
        put(
            &mut table,
            0,
            "x",
            9,
            &(contact(5) + &contact(6) + &contact(7) + &contact(8))
        ),
        Err(403)
    );
    let other = register("b", 1, &contact(7));
    assert!(
        table
            .handle_register(at(0), "1002", &other, &flow(NAT))
            .is_ok()
    );
    let third = table.handle_register(at(0), "1003", &other, &flow(NAT));
    assert_eq!(third.as_ref().err().map(RegisterError::status), Some(503));
    assert_eq!(values(&third.expect_err("full").headers()), ["60"]);
    assert!(put(&mut table, 1, "a", 10, &contact(0)).is_ok());
    // An expired one makes room.
    assert!(
        table
            .handle_register(at(3_600), "1003", &other, &flow(NAT))
            .is_ok()
    );
}

#[test]
fn bindings_end_at_their_own_time() {
    let mut table = table();
    put(
        &mut table,
        0,
        "a",
        1,
        "Contact: <sip:a@10.0.0.7>;expires=60\r\n",
    )
    .expect("valid");
    put(
        &mut table,
        0,
        "b",
        1,
        "Contact: <sip:b@10.0.0.7>;expires=90\r\n",
    )
    .expect("valid");
    assert_eq!(table.poll_timeout(), Some(at(60)));
    assert_eq!(
        table.bindings(at(60), "1001").len(),
        1,
        "also before the timeout is handled"
    );
    table.handle_timeout(at(60));
    assert_eq!((table.len(), table.poll_timeout()), (1, Some(at(90))));
    // A refresh moves the time.
    put(
        &mut table,
        80,
        "b",
        2,
        "Contact: <sip:b@10.0.0.7>;expires=90\r\n",
    )
    .expect("valid");
    table.handle_timeout(at(90));
    assert_eq!((table.len(), table.poll_timeout()), (1, Some(at(170))));
    table.handle_timeout(at(170));
    assert_eq!((table.len(), table.poll_timeout()), (0, None));
}

#[test]
fn closed_connection_takes_its_bindings_along_and_no_others() {
    let mut table = table();
    let on = |id: u64| Flow::tcp(flow(NAT).local, flow(NAT).remote, Some(ConnectionId(id)));
    for (aor, id) in [("1001", 4), ("1002", 5), ("1003", 4)] {
        table
            .handle_register(at(0), aor, &register("a", 1, PHONE), &on(id))
            .expect("valid");
    }
    put(&mut table, 0, "b", 1, "Contact: <sip:b@10.0.0.8>\r\n").expect("valid");
    table.handle_connection_closed(ConnectionId(4));
    let left = |aor: &str| table.bindings(at(1), aor).len();
    assert_eq!((left("1001"), left("1002"), left("1003")), (1, 1, 0));
    table.handle_connection_closed(ConnectionId(5));
    table.remove("1001");
    assert!(table.is_empty() && table.connections.is_empty() && table.expiries.is_empty());
}

proptest! {
    #[test]
    fn no_contact_panics_and_the_indices_agree(
        contacts in prop::collection::vec("[ -~]{0,40}|<sip:[a-c]@10\\.0\\.0\\.[1-3]>(;expires=[0-9]{1,4})?(;q=[0-9.]{0,4})?", 0..12),
        secs in prop::collection::vec(0u64..5_000, 0..12),
    ) {
        let mut table = Registrar::new(RegistrarConfig { contacts_max: 3, ..RegistrarConfig::default() });
        for (index, contact) in contacts.iter().enumerate() {
            let request = register("a", index as u32, &format!("Contact: {contact}\r\n"));
            let _ = table.handle_register(at(0), "1001", &request, &flow(NAT));
            prop_assert!(table.len() <= 3);
        }
        let mut secs = secs;
        secs.sort_unstable();
        for secs in secs {
            table.handle_timeout(at(secs));
            let live = table.bindings(at(secs), "1001").len();
            prop_assert_eq!(live, table.len());
            prop_assert_eq!(live == 0, table.poll_timeout().is_none());
        }
    }
}
