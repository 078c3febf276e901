//! Browsers, as far as the protocol goes: tungstenite's client against our server.

use tokio_tungstenite::tungstenite;
use tungstenite::client::IntoClientRequest;
use tungstenite::http::{HeaderValue, header};
use tungstenite::{Message as Frame, WebSocket};

use super::*;

fn node(websocket: WebSocketConfig, limits: TransportLimits) -> (Transport, SocketAddr) {
    let options = TransportOptions {
        websocket,
        ..options(limits)
    };
    let listen = [listen(TransportKind::Ws, "127.0.0.1:0")];
    let transport = Transport::bind(&listen, options).expect("loopback");
    let address = transport.bound()[0].address;
    (transport, address)
}

fn from_anywhere() -> WebSocketConfig {
    WebSocketConfig {
        origins: Vec::new(),
        ping_interval_secs: 0,
    }
}

/// A browser on a thread of its own, which does `talk` once it is connected.
fn browser<T: Send + 'static>(
    address: SocketAddr,
    protocol: Option<&'static str>,
    origin: Option<&'static str>,
    talk: impl FnOnce(WebSocket<std::net::TcpStream>) -> T + Send + 'static,
) -> tokio::task::JoinHandle<Result<T, String>> {
    tokio::task::spawn_blocking(move || {
        let mut request = format!("ws://{address}/sip")
            .into_client_request()
            .expect("a URL");
        let headers = request.headers_mut();
        if let Some(protocol) = protocol {
            let protocol = HeaderValue::from_static(protocol);
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
        }
        let stream = std::net::TcpStream::connect(address).expect("listening");
        stream.set_read_timeout(Some(PATIENCE)).expect("supported");
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => Ok(talk(socket)),
            Err(error) => Err(error.to_string()),
        }
    })
}

fn send(socket: &mut WebSocket<std::net::TcpStream>, call_id: &str) {
    let text = message(call_id, "v=0");
    socket.send(Frame::text(text)).expect("open");
}

fn read_text(socket: &mut WebSocket<std::net::TcpStream>) -> String {
    match socket.read().expect("open") {
        Frame::Text(text) => text.to_string(),
        Frame::Binary(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        other => panic!("not a message: {other:?}"),
    }
}

#[tokio::test]
async fn each_websocket_message_is_one_sip_message_and_answers_come_back_on_it() {
    let (mut transport, address) = node(from_anywhere(), TransportLimits::default());
    let browser = browser(address, Some("sip"), None, |mut socket| {
        send(&mut socket, "text");
        let binary = message("binary", "v=0").into_bytes();
        socket.send(Frame::binary(binary)).expect("open");
        // RFC 7118 does not ask for Content-Length: the frame says how long it is.
        let without_length = message("short", "").replace("Content-Length: 0\r\n", "");
        assert!(!without_length.contains("Content-Length"));
        socket.send(Frame::text(without_length)).expect("open");
        read_text(&mut socket)
    });
    let got = receive(&mut transport, 3).await;
    let ids: Vec<String> = got.iter().map(call_id).collect();
    assert_eq!(ids, ["text", "binary", "short"]);
    let flow = flow_of(&got[0]);
    assert_eq!((flow.kind, flow.local), (TransportKind::Ws, address));
    transport
        .send(&transmit(flow.clone(), "SIP/2.0 200 OK\r\n\r\n"))
        .expect("taken");
    let mut out = Vec::new();
    let answer = timeout(PATIENCE, async {
        tokio::select! {
            answer = browser => answer.expect("no panic").expect("connected"),
            () = run_for(&mut transport, PATIENCE, &mut out) => panic!("no answer"),
        }
    });
    assert_eq!(answer.await.expect("in time"), "SIP/2.0 200 OK\r\n\r\n");

    // It has gone: nobody can call it back.
    while !out.iter().any(|inbound| close_reason(inbound).is_some()) {
        timeout(PATIENCE, transport.recv(&mut out))
            .await
            .expect("noticed");
    }
    let gone = transport.send(&transmit(flow, "x"));
    assert!(matches!(gone, Err(SendError::ConnectionGone)), "{gone:?}");
}

#[tokio::test]
async fn who_does_not_ask_for_sip_or_comes_from_elsewhere_is_refused() {
    let only_ours = WebSocketConfig {
        origins: vec!["https://phone.example.com".to_owned()],
        ping_interval_secs: 0,
    };
    let rows = [
        (from_anywhere(), Some("sip"), None, Ok(())),
        (from_anywhere(), Some("chat, sip"), None, Ok(())),
        (from_anywhere(), Some("xmpp"), None, Err("400")),
        (from_anywhere(), None, None, Err("400")),
        (
            only_ours.clone(),
            Some("sip"),
            Some("https://Phone.example.com"),
            Ok(()),
        ),
        (
            only_ours.clone(),
            Some("sip"),
            Some("https://evil.example"),
            Err("403"),
        ),
        (only_ours, Some("sip"), None, Err("403")),
    ];
    for (websocket, protocol, origin, expected) in rows {
        let (mut transport, address) = node(websocket, TransportLimits::default());
        let browser = browser(address, protocol, origin, |mut socket| {
            send(&mut socket, "in");
        });
        let mut out = Vec::new();
        let outcome = tokio::select! {
            outcome = browser => outcome.expect("no panic"),
            () = run_for(&mut transport, PATIENCE, &mut out) => panic!("no end"),
        };
        match expected {
            Ok(()) => assert_eq!(outcome, Ok(()), "{protocol:?} {origin:?}"),
            Err(status) => {
                let error = outcome.expect_err("refused");
                assert!(error.contains(status), "{protocol:?} {origin:?}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn keepalives_of_both_kinds_are_answered_and_reach_nobody() {
    let (mut transport, address) = node(from_anywhere(), TransportLimits::default());
    let browser = browser(address, Some("sip"), None, |mut socket| {
        socket.send(Frame::text("\r\n\r\n")).expect("open");
        assert_eq!(read_text(&mut socket), "\r\n");
        socket
            .send(Frame::Ping(b"are you there".to_vec().into()))
            .expect("open");
        let pong = socket.read().expect("open");
        assert!(
            matches!(&pong, Frame::Pong(text) if &text[..] == b"are you there"),
            "{pong:?}"
        );
    });
    let mut out = Vec::new();
    tokio::select! {
        outcome = browser => outcome.expect("no panic").expect("connected"),
        () = run_for(&mut transport, PATIENCE, &mut out) => panic!("no end"),
    }
    run_for(&mut transport, Duration::from_millis(50), &mut out).await;
    assert!(
        !out.iter()
            .any(|inbound| matches!(inbound, Inbound::Message { .. }))
    );
    assert_eq!(transport.counters().ws.keepalives, 2);
}

#[tokio::test]
async fn silent_browser_is_pinged_and_one_that_answers_stays() {
    let websocket = WebSocketConfig {
        origins: Vec::new(),
        ping_interval_secs: 1,
    };
    let (mut transport, address) = node(websocket, TransportLimits::default());
    // It reads, and so answers pings, or does not.
    let lively = browser(address, Some("sip"), None, |mut socket| {
        let until = std::time::Instant::now() + Duration::from_secs(5);
        let mut pings = 0;
        while std::time::Instant::now() < until {
            if matches!(socket.read(), Ok(Frame::Ping(_))) {
                pings += 1;
            }
        }
        pings
    });
    let deaf = browser(address, Some("sip"), None, |socket| {
        std::thread::sleep(Duration::from_secs(5));
        drop(socket);
    });
    let mut out = Vec::new();
    let pings = tokio::select! {
        pings = lively => pings.expect("no panic").expect("connected"),
        () = run_for(&mut transport, PATIENCE, &mut out) => panic!("no end"),
    };
    assert!(pings >= 3, "{pings} pings");
    assert_eq!(transport.counters().ws.cut_idle, 1);
    deaf.await.expect("no panic").expect("connected");
}

#[tokio::test]
async fn nonsense_in_a_message_is_told_and_nonsense_in_a_frame_ends_the_connection() {
    let limits = TransportLimits {
        message_len_max: 2_000,
        ..TransportLimits::default()
    };
    let (mut transport, address) = node(from_anywhere(), limits);
    let browser = browser(address, Some("sip"), None, |mut socket| {
        socket.send(Frame::text("not SIP at all")).expect("open");
        send(&mut socket, "after");
        socket.send(Frame::text("x".repeat(3_000))).expect("open");
        socket.read().is_err()
    });
    let mut out = Vec::new();
    let is_closed = tokio::select! {
        outcome = browser => outcome.expect("no panic").expect("connected"),
        () = run_for(&mut transport, PATIENCE, &mut out) => panic!("no end"),
    };
    // The browser may be gone before its end has been told here.
    while out.len() < 3 {
        let told = timeout(PATIENCE, transport.recv(&mut out)).await;
        told.expect("told of the end");
    }
    assert!(is_closed || transport.counters().ws.cut_malformed == 1);
    assert!(matches!(out[0], Inbound::Malformed { .. }), "{out:?}");
    assert_eq!(call_id(&out[1]), "after");
    assert_eq!(close_reason(&out[2]), Some(CloseReason::Malformed));
}

#[tokio::test]
async fn http_that_never_becomes_a_websocket_is_cut() {
    let limits = TransportLimits {
        handshake_timeout_secs: 1,
        ..TransportLimits::default()
    };
    let (mut transport, address) = node(from_anywhere(), limits);
    let mut slow = TcpStream::connect(address).await.expect("accepted");
    slow.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n")
        .await
        .expect("open");
    let got = receive(&mut transport, 1).await;
    assert_eq!(close_reason(&got[0]), Some(CloseReason::HandshakeTimeout));

    let mut sip = TcpStream::connect(address).await.expect("accepted");
    sip.write_all(message("plain", "").as_bytes())
        .await
        .expect("open");
    let got = receive(&mut transport, 1).await;
    assert_eq!(close_reason(&got[0]), Some(CloseReason::HandshakeFailed));
    let mut answer = String::new();
    sip.read_to_string(&mut answer)
        .await
        .expect("closed in order");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}
