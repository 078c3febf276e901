use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::*;

mod tls;
mod web;

/// Longer than anything here takes on a loaded machine; reached only when a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

fn listen(transport: TransportKind, address: &str) -> SipListen {
    SipListen {
        transport,
        address: address.parse().expect("an address"),
        advertise: None,
    }
}

/// No certificates, any origin.
fn options(limits: TransportLimits) -> TransportOptions {
    TransportOptions {
        limits,
        websocket: WebSocketConfig {
            origins: Vec::new(),
            ping_interval_secs: 0,
        },
        tls: watch::Sender::new(None).subscribe(),
    }
}

/// UDP and TCP on loopback ports of the kernel's choice.
fn bind(limits: TransportLimits) -> (Transport, SocketAddr, SocketAddr) {
    let listen = [
        listen(TransportKind::Udp, "127.0.0.1:0"),
        listen(TransportKind::Tcp, "127.0.0.1:0"),
    ];
    let transport = Transport::bind(&listen, options(limits)).expect("loopback");
    let [udp, tcp] = [0, 1].map(|index: usize| transport.bound()[index].address);
    (transport, udp, tcp)
}

fn message(call_id: &str, body: &str) -> String {
    format!(
        "OPTIONS sip:127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1;branch=z9hG4bK{call_id}\r\n\
         From: <sip:a@127.0.0.1>;tag=1\r\nTo: <sip:b@127.0.0.1>\r\nCall-ID: {call_id}\r\n\
         CSeq: 1 OPTIONS\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn transmit(flow: Flow, bytes: impl Into<Bytes>) -> Transmit {
    Transmit {
        flow,
        bytes: bytes.into(),
        id: None,
    }
}

/// Receives until `count` things happened.
async fn receive(transport: &mut Transport, count: usize) -> Vec<Inbound> {
    let mut out = Vec::new();
    while out.len() < count {
        timeout(PATIENCE, transport.recv(&mut out))
            .await
            .expect("something happens");
    }
    out
}

/// Lets the transport work for a moment without expecting anything.
async fn run_for(transport: &mut Transport, time: Duration, out: &mut Vec<Inbound>) {
    let _ = timeout(time, async {
        loop {
            transport.recv(out).await;
        }
    })
    .await;
}

fn call_id(inbound: &Inbound) -> String {
    let Inbound::Message { message, .. } = inbound else {
        panic!("not a message: {inbound:?}");
    };
    let header = message
        .headers()
        .get(&sipx_sip::HeaderName::CallId)
        .expect("present");
    String::from_utf8(header.value().into_owned()).expect("ASCII")
}

fn flow_of(inbound: &Inbound) -> Flow {
    match inbound {
        Inbound::Message { flow, .. }
        | Inbound::Malformed { flow, .. }
        | Inbound::ConnectionClosed { flow, .. } => flow.clone(),
        Inbound::Undelivered { transmit } => transmit.flow.clone(),
    }
}

fn close_reason(inbound: &Inbound) -> Option<CloseReason> {
    match inbound {
        Inbound::ConnectionClosed { reason, .. } => Some(*reason),
        _ => None,
    }
}

#[tokio::test]
async fn datagrams_are_received_and_answered_over_both_families() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listen = [listen(TransportKind::Udp, address)];
        let Ok(mut transport) = Transport::bind(&listen, options(TransportLimits::default()))
        else {
            // A machine without IPv6.
            assert!(address.starts_with('['));
            continue;
        };
        let local = transport.bound()[0].address;
        let peer = UdpSocket::bind(address).await.expect("loopback");
        peer.send_to(message("one", "").as_bytes(), local)
            .await
            .expect("sent");
        let got = receive(&mut transport, 1).await;
        assert_eq!(call_id(&got[0]), "one");
        let flow = flow_of(&got[0]);
        let expected = Flow {
            ends: Some(Arc::clone(transport.ends())),
            ..Flow::udp(local, peer.local_addr().expect("bound"))
        };
        assert_eq!(flow, expected);
        transport
            .send(&transmit(flow, "SIP/2.0 200 OK\r\n\r\n"))
            .expect("taken");
        let mut buffer = [0; 100];
        let (len, from) = peer.recv_from(&mut buffer).await.expect("received");
        assert_eq!(
            (&buffer[..len], from),
            (&b"SIP/2.0 200 OK\r\n\r\n"[..], local)
        );
    }
}

#[tokio::test]
async fn burst_of_a_thousand_datagrams_arrives_whole_and_in_turns_of_64() {
    let (mut transport, udp, _) = bind(TransportLimits::default());
    let peer = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
    // The kernel holds them all before the first is taken.
    for index in 0..1_000 {
        let text = message(&index.to_string(), &"x".repeat(600));
        peer.send_to(text.as_bytes(), udp).await.expect("sent");
    }
    let mut got = Vec::new();
    while got.len() < 1_000 {
        let before = got.len();
        timeout(PATIENCE, transport.recv(&mut got))
            .await
            .expect("all arrive");
        assert!(got.len() - before <= 64);
    }
    let ids: Vec<String> = got.iter().map(call_id).collect();
    assert_eq!(
        ids,
        (0..1_000)
            .map(|index| index.to_string())
            .collect::<Vec<_>>()
    );
    assert_eq!(transport.counters().udp_messages_received, 1_000);
}

#[tokio::test]
async fn keepalive_datagrams_are_counted_and_garbage_is_handed_on() {
    let (mut transport, udp, _) = bind(TransportLimits::default());
    let peer = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
    for datagram in [&b"\r\n\r\n"[..], b"", b"\0\0\0\0", b"\x80\0garbage"] {
        peer.send_to(datagram, udp).await.expect("sent");
    }
    let got = receive(&mut transport, 1).await;
    assert!(
        matches!(&got[0], Inbound::Malformed { bytes, .. } if bytes == &b"\x80\0garbage"[..]),
        "{got:?}"
    );
    let counters = transport.counters();
    assert_eq!((counters.udp_keepalives, counters.udp_malformed), (3, 1));
}

#[tokio::test]
async fn datagram_that_the_network_refuses_is_an_error_at_once() {
    let (mut transport, udp, _) = bind(TransportLimits::default());
    let mut out = Vec::new();
    // The runtime learns at its first turn that the socket can be written to.
    run_for(&mut transport, Duration::from_millis(1), &mut out).await;
    let flow = Flow::udp(udp, "127.0.0.1:9".parse().expect("valid"));
    let too_long = transmit(flow.clone(), vec![b'x'; 65_530]);
    assert!(matches!(transport.send(&too_long), Err(SendError::Io(_))));
    let elsewhere = Flow {
        local: "127.0.0.1:1".parse().expect("valid"),
        ..flow
    };
    let result = transport.send(&transmit(elsewhere, "x"));
    assert!(matches!(result, Err(SendError::NoListener(_))));
    assert_eq!(transport.counters().udp_send_errors, 1);
}

#[tokio::test]
async fn backlog_is_bounded_and_goes_out_in_order() {
    let limits = TransportLimits {
        udp_backlog_len_max: 3,
        ..TransportLimits::default()
    };
    let (mut transport, udp, _) = bind(limits);
    let peer = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
    let flow = Flow::udp(udp, peer.local_addr().expect("bound"));
    // Before the runtime's first turn a socket counts as not writable: all of these wait.
    for text in ["1", "2", "3"] {
        transport.send(&transmit(flow.clone(), text)).expect("room");
    }
    let fourth = transport.send(&transmit(flow.clone(), "4"));
    assert!(matches!(fourth, Err(SendError::BacklogFull)), "{fourth:?}");
    let mut out = Vec::new();
    run_for(&mut transport, Duration::from_millis(100), &mut out).await;
    transport
        .send(&transmit(flow, "5"))
        .expect("no backlog now");
    let mut buffer = [0; 1];
    for expected in [b"1", b"2", b"3", b"5"] {
        timeout(PATIENCE, peer.recv_from(&mut buffer))
            .await
            .expect("arrives")
            .expect("bound");
        assert_eq!(&buffer, expected);
    }
    let counters = transport.counters();
    assert_eq!((counters.udp_backlogged, counters.udp_backlog_full), (3, 1));
    assert_eq!(counters.udp_messages_sent, 4);
}

#[tokio::test]
async fn stream_may_come_byte_by_byte_or_ten_messages_at_once() {
    let (mut transport, _, tcp) = bind(TransportLimits::default());
    let mut peer = TcpStream::connect(tcp).await.expect("listening");
    peer.set_nodelay(true).expect("supported");
    for byte in message("slow", "v=0").bytes() {
        peer.write_all(&[byte]).await.expect("open");
        tokio::task::yield_now().await;
    }
    let got = receive(&mut transport, 1).await;
    assert_eq!(call_id(&got[0]), "slow");
    let flow = flow_of(&got[0]);
    assert_eq!(flow.local, tcp);
    assert_eq!(flow.remote, peer.local_addr().expect("bound"));
    assert!(flow.connection.is_some());

    let ten: String = (0..10)
        .map(|index| message(&index.to_string(), "body"))
        .collect();
    peer.write_all(ten.as_bytes()).await.expect("open");
    let got = receive(&mut transport, 10).await;
    let ids: Vec<String> = got.iter().map(call_id).collect();
    assert_eq!(
        ids,
        (0..10).map(|index| index.to_string()).collect::<Vec<_>>()
    );
    assert!(got.iter().all(|inbound| flow_of(inbound) == flow));
}

#[tokio::test]
async fn answer_takes_the_connection_and_another_request_reuses_it() {
    let (mut transport, _, tcp) = bind(TransportLimits::default());
    let mut peer = TcpStream::connect(tcp).await.expect("listening");
    peer.write_all(message("a", "").as_bytes())
        .await
        .expect("open");
    let flow = flow_of(&receive(&mut transport, 1).await[0]);
    transport
        .send(&transmit(flow.clone(), "first "))
        .expect("taken");
    // The same peer, by address alone and by a connection that is long gone.
    for connection in [None, Some(ConnectionId(999))] {
        let flow = Flow {
            connection,
            ..flow.clone()
        };
        transport.send(&transmit(flow, "again ")).expect("taken");
    }
    let mut buffer = [0; 18];
    let mut out = Vec::new();
    tokio::select! {
        read = peer.read_exact(&mut buffer) => { read.expect("all arrive"); }
        () = run_for(&mut transport, PATIENCE, &mut out) => panic!("nothing arrived"),
    }
    assert_eq!(&buffer, b"first again again ");
    assert_eq!(transport.counters().tcp.opened, 0);
}

#[tokio::test]
async fn request_to_a_new_peer_opens_a_connection_and_its_answer_names_our_listener() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listen = [listen(TransportKind::Tcp, address)];
        let Ok(mut transport) = Transport::bind(&listen, options(TransportLimits::default()))
        else {
            // A machine without IPv6.
            assert!(address.starts_with('['));
            continue;
        };
        let tcp = transport.bound()[0].address;
        let listener = TcpListener::bind(address).await.expect("loopback");
        let remote = listener.local_addr().expect("bound");
        let flow = Flow::tcp(tcp, remote, None);
        for call_id in ["out", "out2"] {
            transport
                .send(&transmit(flow.clone(), message(call_id, "")))
                .expect("taken");
        }
        let (mut stream, source) = listener.accept().await.expect("it connects");
        assert_eq!(source.ip(), tcp.ip());
        let mut text = vec![0; message("out", "").len() + message("out2", "").len()];
        stream
            .read_exact(&mut text)
            .await
            .expect("both on one connection");
        stream
            .write_all(message("back", "").as_bytes())
            .await
            .expect("open");
        let got = receive(&mut transport, 1).await;
        assert_eq!(call_id(&got[0]), "back");
        assert_eq!(
            (flow_of(&got[0]).local, flow_of(&got[0]).remote),
            (tcp, remote)
        );
        assert_eq!(transport.counters().tcp.opened, 1);
    }
}

#[tokio::test]
async fn message_for_a_peer_that_refuses_connections_comes_back() {
    let (mut transport, _, tcp) = bind(TransportLimits::default());
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let remote = closed.local_addr().expect("bound");
    drop(closed);
    transport
        .send(&transmit(Flow::tcp(tcp, remote, None), "lost"))
        .expect("taken");
    let got = receive(&mut transport, 2).await;
    assert!(
        matches!(&got[0], Inbound::Undelivered { transmit } if transmit.bytes == "lost"),
        "{got:?}"
    );
    assert_eq!(close_reason(&got[1]), Some(CloseReason::ConnectFailed));
    let counters = transport.counters();
    assert_eq!(
        (counters.tcp.connect_failed, counters.connections_active),
        (1, 0)
    );
}

#[tokio::test]
async fn peer_that_does_not_read_is_cut_while_others_are_served() {
    let limits = TransportLimits {
        write_queue_bytes_max: 64 * 1024,
        ..TransportLimits::default()
    };
    let (mut transport, _, tcp) = bind(limits);
    let mut deaf = TcpStream::connect(tcp).await.expect("listening");
    let mut other = TcpStream::connect(tcp).await.expect("listening");
    deaf.write_all(message("deaf", "").as_bytes())
        .await
        .expect("open");
    let deaf_flow = flow_of(&receive(&mut transport, 1).await[0]);
    other
        .write_all(message("other", "").as_bytes())
        .await
        .expect("open");
    let other_flow = flow_of(&receive(&mut transport, 1).await[0]);

    let mut out = Vec::new();
    let mut sent = 0;
    // The kernel's buffers take some megabytes before anything piles up here.
    let refused = loop {
        match transport.send(&transmit(deaf_flow.clone(), vec![b'x'; 16_000])) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 10_000, "the peer was never cut");
        run_for(&mut transport, Duration::from_micros(200), &mut out).await;
    };
    assert!(
        matches!(refused, SendError::ConnectionClosing),
        "{refused:?}"
    );

    transport
        .send(&transmit(other_flow, "served"))
        .expect("taken");
    let mut buffer = [0; 6];
    tokio::select! {
        read = other.read_exact(&mut buffer) => { read.expect("arrives"); }
        () = run_for(&mut transport, PATIENCE, &mut out) => panic!("nothing arrived"),
    }
    while !out
        .iter()
        .any(|inbound| close_reason(inbound) == Some(CloseReason::SlowReader))
    {
        timeout(PATIENCE, transport.recv(&mut out))
            .await
            .expect("it is cut");
    }
    let undelivered = out
        .iter()
        .filter(|i| matches!(i, Inbound::Undelivered { .. }))
        .count();
    assert!(
        (1..=5).contains(&undelivered),
        "what waited comes back: {undelivered}"
    );
    let counters = transport.counters();
    assert_eq!(
        (counters.tcp.cut_slow_reader, counters.connections_active),
        (1, 1)
    );
}

#[tokio::test]
async fn connections_are_limited_in_all_and_per_source() {
    let limits = TransportLimits {
        connections_max: 3,
        connections_per_source_max: 2,
        ..TransportLimits::default()
    };
    let (mut transport, _, tcp) = bind(limits);
    let mut out = Vec::new();
    let mut peers = Vec::new();
    for _ in 0..3 {
        peers.push(TcpStream::connect(tcp).await.expect("the kernel accepts"));
    }
    run_for(&mut transport, Duration::from_millis(200), &mut out).await;
    let mut buffer = [0; 1];
    let third = timeout(PATIENCE, peers[2].read(&mut buffer))
        .await
        .expect("closed at once");
    assert!(matches!(third, Ok(0) | Err(_)), "{third:?}");
    assert_eq!(transport.counters().tcp.accepted, 2);
    assert_eq!(transport.counters().tcp.refused_source, 1);

    // One more may be opened by us; then the table is full.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let remote = listener.local_addr().expect("bound");
    transport
        .send(&transmit(Flow::tcp(tcp, remote, None), "x"))
        .expect("room for one");
    let elsewhere = Flow::tcp(tcp, "127.0.0.1:9".parse().expect("valid"), None);
    let result = transport.send(&transmit(elsewhere, "x"));
    assert!(
        matches!(result, Err(SendError::TooManyConnections)),
        "{result:?}"
    );

    let socket = tokio::net::TcpSocket::new_v4().expect("supported");
    socket
        .bind("127.0.0.2:0".parse().expect("valid"))
        .expect("all of 127/8 is loopback");
    let mut neighbour = socket.connect(tcp).await.expect("the kernel accepts");
    run_for(&mut transport, Duration::from_millis(200), &mut out).await;
    let refused = timeout(PATIENCE, neighbour.read(&mut buffer))
        .await
        .expect("closed at once");
    assert!(matches!(refused, Ok(0) | Err(_)), "{refused:?}");
    assert_eq!(transport.counters().tcp.refused_full, 2);

    // A closed one makes room, for its source, too.
    drop(peers.remove(0));
    while !out
        .iter()
        .any(|inbound| close_reason(inbound) == Some(CloseReason::Peer))
    {
        timeout(PATIENCE, transport.recv(&mut out))
            .await
            .expect("it is noticed");
    }
    let mut again = TcpStream::connect(tcp).await.expect("listening");
    again
        .write_all(message("again", "").as_bytes())
        .await
        .expect("open");
    let got = receive(&mut transport, 1).await;
    assert_eq!(call_id(&got[0]), "again");
}

#[tokio::test]
async fn ping_gets_its_pong() {
    let (mut transport, _, tcp) = bind(TransportLimits::default());
    let mut peer = TcpStream::connect(tcp).await.expect("listening");
    peer.write_all(b"\r\n\r\n").await.expect("open");
    let mut buffer = [0; 2];
    let mut out = Vec::new();
    tokio::select! {
        read = peer.read_exact(&mut buffer) => { read.expect("arrives"); }
        () = run_for(&mut transport, PATIENCE, &mut out) => panic!("no pong"),
    }
    assert_eq!(&buffer, b"\r\n");
    assert!(out.is_empty(), "{out:?}");
}

#[tokio::test]
async fn malformed_stream_is_handed_on_answered_and_closed() {
    let (mut transport, _, tcp) = bind(TransportLimits::default());
    let mut peer = TcpStream::connect(tcp).await.expect("listening");
    let bad = "OPTIONS sip:a@b SIP/2.0\r\nCall-ID: bad\r\nContent-Length: five\r\n\r\n";
    let stream = message("good", "") + bad + &message("never read", "");
    peer.write_all(stream.as_bytes()).await.expect("open");
    let got = receive(&mut transport, 2).await;
    assert_eq!(call_id(&got[0]), "good");
    let Inbound::Malformed { flow, bytes, .. } = &got[1] else {
        panic!("not malformed: {:?}", got[1]);
    };
    assert_eq!(bytes, bad.as_bytes());
    transport
        .send(&transmit(flow.clone(), "SIP/2.0 400 Bad Request\r\n\r\n"))
        .expect("taken");
    let mut text = String::new();
    let mut out = Vec::new();
    tokio::select! {
        read = peer.read_to_string(&mut text) => { read.expect("closed in order"); }
        () = run_for(&mut transport, PATIENCE, &mut out) => panic!("not closed"),
    }
    assert_eq!(text, "SIP/2.0 400 Bad Request\r\n\r\n");
    while out.is_empty() {
        timeout(PATIENCE, transport.recv(&mut out))
            .await
            .expect("told");
    }
    assert_eq!(close_reason(&out[0]), Some(CloseReason::Malformed));
}

#[tokio::test]
async fn silent_idle_and_half_finished_connections_are_closed() {
    // The exact times are those of the clock's own tests.
    let limits = TransportLimits {
        idle_timeout_secs: 2,
        partial_message_timeout_secs: 1,
        ..TransportLimits::default()
    };
    let (mut transport, _, tcp) = bind(limits);
    let half = message("b", "12345");
    let rows = [
        (String::new(), CloseReason::PartialMessage),
        ("OPTIONS sip:a@b".to_owned(), CloseReason::PartialMessage),
        (message("a", ""), CloseReason::Idle),
        (
            message("a", "") + &half[..half.len() - 5],
            CloseReason::PartialMessage,
        ),
    ];
    let mut peers = Vec::new();
    for (text, expected) in rows {
        let mut peer = TcpStream::connect(tcp).await.expect("listening");
        peer.write_all(text.as_bytes()).await.expect("open");
        peers.push((peer.local_addr().expect("bound"), expected, peer));
    }
    let mut out = Vec::new();
    while out.iter().filter_map(close_reason).count() < peers.len() {
        timeout(PATIENCE, transport.recv(&mut out))
            .await
            .expect("all are closed");
    }
    for (address, expected, _) in peers {
        let its = out
            .iter()
            .filter(|inbound| flow_of(inbound).remote == address);
        assert_eq!(its.filter_map(close_reason).next(), Some(expected));
    }
    let counters = transport.counters();
    assert_eq!(
        (counters.tcp.cut_partial_message, counters.tcp.cut_idle),
        (3, 1)
    );
}

#[tokio::test]
async fn address_in_use_is_named() {
    let (_transport, udp, tcp) = bind(TransportLimits::default());
    for (transport, address) in [(TransportKind::Udp, udp), (TransportKind::Tcp, tcp)] {
        let again = [listen(transport, &address.to_string())];
        let error = Transport::bind(&again, options(TransportLimits::default()))
            .err()
            .expect("taken");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
