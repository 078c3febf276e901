use bytes::Bytes;

use super::*;
use crate::locate::Hop;

fn flow(remote: &str) -> Flow {
    Flow::udp(
        "203.0.113.1:5060".parse().expect("valid"),
        remote.parse().expect("valid"),
    )
}

fn remote_after(flow: &Flow, uri: &'static str) -> String {
    let uri = Uri::parse(Bytes::from_static(uri.as_bytes())).expect("valid");
    flow.towards(&uri).remote.to_string()
}

#[test]
fn numeric_hop_is_taken_as_written_and_a_name_keeps_the_flow() {
    let from_proxy = flow("198.51.100.9:5070");
    for (uri, remote) in [
        ("sip:198.51.100.7:5080;lr", "198.51.100.7:5080"),
        ("sip:198.51.100.7", "198.51.100.7:5060"),
        ("sip:bob@pbx.example.com", "198.51.100.9:5070"),
        // Behind NAT: a private contact seen from a public address.
        ("sip:bob@192.168.1.20:5062", "198.51.100.9:5070"),
        ("sip:bob@100.64.3.4", "198.51.100.9:5070"),
        ("sip:bob@0.0.0.0", "198.51.100.9:5070"),
        ("sip:bob@[2001:db8::1]", "198.51.100.9:5070"),
    ] {
        assert_eq!(remote_after(&from_proxy, uri), remote, "{uri}");
    }
}

#[test]
fn softphone_on_our_own_host_is_reached_where_it_is_seen() {
    let local = Flow::udp(
        "127.0.0.1:5060".parse().expect("valid"),
        "127.0.0.1:40000".parse().expect("valid"),
    );
    assert_eq!(
        remote_after(&local, "sip:bob@192.168.1.20:5062"),
        "127.0.0.1:40000"
    );
    assert_eq!(
        remote_after(&local, "sip:bob@127.0.0.1:5062"),
        "127.0.0.1:5062"
    );
}

#[test]
fn private_contact_inside_a_private_network_is_reached_directly() {
    assert_eq!(
        remote_after(&flow("10.0.0.1:5060"), "sip:bob@10.0.0.5:5062"),
        "10.0.0.5:5062"
    );
}

#[test]
fn tcp_hop_reuses_the_connection_and_a_udp_hop_leaves_it() {
    let on_tcp = Flow {
        kind: TransportKind::Tcp,
        connection: Some(ConnectionId(4)),
        ..flow("198.51.100.9:41000")
    };
    let tcp = Uri::parse(Bytes::from_static(
        b"sip:198.51.100.9:5060;transport=TCP;lr",
    ));
    let next = on_tcp.towards(&tcp.expect("valid"));
    assert_eq!(next.connection, Some(ConnectionId(4)));
    assert_eq!(next.remote.port(), 5060);
    let udp = Uri::parse(Bytes::from_static(b"sip:198.51.100.9;transport=udp;lr"));
    let next = on_tcp.towards(&udp.expect("valid"));
    assert_eq!((next.kind, next.connection), (TransportKind::Udp, None));
}

fn ends() -> Arc<LocalEnds> {
    let end = |kind, address: &str, advertised: Option<&str>| LocalEnd {
        kind,
        address: address.parse().expect("valid"),
        advertised: advertised.map(Into::into),
    };
    Arc::new(LocalEnds::new(vec![
        end(TransportKind::Tls, "10.0.0.1:5061", None),
        end(TransportKind::Udp, "203.0.113.1:5060", None),
        end(
            TransportKind::Tls,
            "203.0.113.1:5061",
            Some("sip.example.com:5061"),
        ),
        end(TransportKind::Udp, "[2001:db8::1]:5060", None),
        end(TransportKind::Wss, "203.0.113.1:443", None),
        end(TransportKind::Udp, "127.0.0.1:5060", None),
    ]))
}

fn uri(text: &'static str) -> Uri {
    Uri::parse(Bytes::from_static(text.as_bytes())).expect("valid")
}

#[test]
fn hop_of_another_transport_leaves_from_the_socket_of_that_transport_and_names_it() {
    let on_udp = Flow {
        ends: Some(ends()),
        ..flow("198.51.100.9:5060")
    };
    assert_eq!(on_udp.sent_by(), "203.0.113.1:5060");
    let next = on_udp.towards(&uri("sip:198.51.100.9;transport=tls;lr"));
    assert_eq!(
        (next.kind, next.local.to_string(), next.remote.port()),
        (TransportKind::Tls, "203.0.113.1:5061".to_owned(), 5061)
    );
    assert_eq!(next.sent_by(), "sip.example.com:5061");
    assert_eq!(next.local_host(), "sip.example.com");
    // RFC 3261 §26.2.2: a sips hop is reached over TLS whatever the parameter says.
    let secure = on_udp.towards(&uri("sips:198.51.100.9;transport=tcp"));
    assert_eq!(secure.kind, TransportKind::Tls);
    // Nothing listens on TCP here: the flow that works is kept.
    let tcp = on_udp.towards(&uri("sip:198.51.100.9;transport=tcp"));
    assert_eq!((tcp.kind, tcp.remote), (on_udp.kind, on_udp.remote));
}

#[test]
fn browser_is_reached_on_its_connection_whatever_its_contact_says() {
    let on_wss = Flow {
        kind: TransportKind::Wss,
        connection: Some(ConnectionId(9)),
        ..flow("198.51.100.9:41000")
    };
    for contact in [
        "sip:a1b2@df7jal23ls0d.invalid;transport=ws",
        "sip:alice@198.51.100.9:5060;transport=tcp",
        "sips:alice@198.51.100.77;transport=ws",
    ] {
        assert_eq!(on_wss.towards(&uri(contact)), on_wss, "{contact}");
    }
}

#[test]
fn certificate_name_is_kept_for_the_same_peer_and_dropped_for_another() {
    let on_tls = Flow {
        kind: TransportKind::Tls,
        connection: Some(ConnectionId(4)),
        domain: Some("sip.carrier.example".into()),
        ..flow("198.51.100.9:5061")
    };
    let same = on_tls.towards(&uri("sip:198.51.100.9:5061;transport=tls"));
    assert_eq!(same.domain.as_deref(), Some("sip.carrier.example"));
    let other = on_tls.towards(&uri("sip:198.51.100.10:5061;transport=tls"));
    assert_eq!(other.domain, None);
}

#[test]
fn located_hop_leaves_from_the_socket_that_reaches_it() {
    let ends = ends();
    let local = |kind, address: &str| {
        let hop = Hop {
            kind,
            address: address.parse().expect("valid"),
            domain: None,
        };
        ends.flow_to(&hop).map(|flow| flow.local.to_string())
    };
    let rows = [
        (
            TransportKind::Tls,
            "198.51.100.9:5061",
            Some("203.0.113.1:5061"),
        ),
        (TransportKind::Tls, "10.0.0.9:5061", Some("10.0.0.1:5061")),
        (
            TransportKind::Udp,
            "[2001:db8::9]:5060",
            Some("[2001:db8::1]:5060"),
        ),
        (TransportKind::Udp, "127.0.0.9:5060", Some("127.0.0.1:5060")),
        (TransportKind::Tcp, "198.51.100.9:5060", None),
        (TransportKind::Tls, "[2001:db8::9]:5061", None),
    ];
    for (kind, address, expected) in rows {
        assert_eq!(
            local(kind, address).as_deref(),
            expected,
            "{kind:?} {address}"
        );
    }
    assert_eq!(ends.kinds(), [TransportKind::Tls, TransportKind::Udp]);
}
