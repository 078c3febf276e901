//! Hostile input on every socket: the daemons live and the next call works.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, in helpers too"
)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use trunkline_testkit::daemons::Daemons;
use trunkline_testkit::http;
use trunkline_testkit::rtp::MediaHub;
use trunkline_testkit::site::{Member, Site};
use trunkline_tests::call::{LIMIT, place, prove_service};

/// SIP that is wrong in one way each. `{}` is where the sender's address belongs.
const MALFORMED_SIP: &[&str] = &[
    "",
    "\r\n\r\n",
    "\0\0\0\0",
    "INVITE",
    "INVITE sip:x SIP/2.0\r\n\r\n",
    "INVITE sip:+15550100000@127.0.0.1 SIP/3.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bK1\r\n\r\n",
    "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP {};branch=z9hG4bKnobody\r\nCSeq: 1 INVITE\r\n\r\n",
    "SIP/2.0 999 What\r\n\r\n",
    // Content-Length beyond the datagram, negative, and enormous.
    "OPTIONS sip:x SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bK2\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:x>\r\nCall-ID: m1\r\nCSeq: 1 OPTIONS\r\nContent-Length: 9999\r\n\r\n",
    "OPTIONS sip:x SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bK3\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:x>\r\nCall-ID: m2\r\nCSeq: 1 OPTIONS\r\nContent-Length: -1\r\n\r\n",
    "OPTIONS sip:x SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bK4\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:x>\r\nCall-ID: m3\r\nCSeq: 1 OPTIONS\r\nContent-Length: 99999999999999999999\r\n\r\n",
    // CSeq of another method, out of range, and no number.
    "INVITE sip:x SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bK5\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:x>\r\nCall-ID: m4\r\nCSeq: 1 BYE\r\n\r\n",
    "INVITE sip:x SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bK6\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:x>\r\nCall-ID: m5\r\nCSeq: 4294967296 INVITE\r\n\r\n",
    "INVITE sip:x SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bK7\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:x>\r\nCall-ID: m6\r\nCSeq: INVITE\r\n\r\n",
    // A Via that names somebody else, one without a branch, and one that is no Via.
    "OPTIONS sip:x SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:1;branch=z9hG4bK8\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:x>\r\nCall-ID: m7\r\nCSeq: 1 OPTIONS\r\n\r\n",
    "OPTIONS sip:x SIP/2.0\r\nVia: SIP/2.0/UDP {}\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:x>\r\nCall-ID: m8\r\nCSeq: 1 OPTIONS\r\n\r\n",
    "OPTIONS sip:x SIP/2.0\r\nVia: ;;;===\r\nFrom: <\r\nTo: >\r\nCall-ID:\r\nCSeq: 1 OPTIONS\r\n\r\n",
    // Dialog requests of no dialog.
    "BYE sip:x SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bK9\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:x>;tag=2\r\nCall-ID: m9\r\nCSeq: 1 BYE\r\n\r\n",
    "ACK sip:x SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bKa\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:x>;tag=2\r\nCall-ID: ma\r\nCSeq: 1 ACK\r\n\r\n",
    "CANCEL sip:x SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bKb\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:x>\r\nCall-ID: mb\r\nCSeq: 1 CANCEL\r\n\r\n",
    // Max-Forwards spent, a required extension nobody has, a method nobody knows.
    "OPTIONS sip:x SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bKc\r\nMax-Forwards: 0\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:x>\r\nCall-ID: mc\r\nCSeq: 1 OPTIONS\r\n\r\n",
    "INVITE sip:x SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bKd\r\nRequire: nothing-of-the-kind\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:x>\r\nCall-ID: md\r\nCSeq: 1 INVITE\r\n\r\n",
    "JUMP sip:x SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bKe\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:x>\r\nCall-ID: me\r\nCSeq: 1 JUMP\r\n\r\n",
    // A REGISTER without Contact, with a wild expiry, with two thousand octets of a digest.
    "REGISTER sip:x SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bKf\r\nFrom: <sip:member0@b>;tag=1\r\nTo: <sip:member0@b>\r\nCall-ID: mf\r\nCSeq: 1 REGISTER\r\n\r\n",
    "REGISTER sip:x SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bKg\r\nContact: *\r\nExpires: 4294967296\r\nFrom: <sip:member0@b>;tag=1\r\nTo: <sip:member0@b>\r\nCall-ID: mg\r\nCSeq: 1 REGISTER\r\n\r\n",
    "REGISTER sip:x SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bKh\r\nAuthorization: Digest username=\"member0\", realm=\"trunkline\", nonce=\"\", uri=\"\", response=\"\", qop=auth, nc=zzzzzzzz, cnonce=\"\"\r\nFrom: <sip:member0@b>;tag=1\r\nTo: <sip:member0@b>\r\nCall-ID: mh\r\nCSeq: 1 REGISTER\r\n\r\n",
];

/// RTP and RTCP that are wrong in one way each.
const MALFORMED_MEDIA: &[&[u8]] = &[
    b"",
    b"\x80",
    b"\x80\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00",
    b"\x8f\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01",
    b"\x90\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01\xbe\xde\xff\xff",
    b"\xa0\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01\xff",
    b"\x80\xc8\x00\x01",
    b"\x80\xc8\xff\xff\x00\x00\x00\x01",
    b"\x81\xc8\x00\x01\x00\x00\x00\x01",
    b"\x00\x01\x00\x00\x21\x12\xa4\x42aaaaaaaaaaaa",
    b"\x16\xfe\xff\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff",
    b"\x40\x00\x00\x00",
    b"\xff\xff\xff\xff",
];

fn daemons() -> Daemons {
    Daemons::start(Site::with_members(vec![Member::numbered(0)])).unwrap()
}

#[test]
fn malformed_sip_over_udp_is_survived() {
    let mut daemons = daemons();
    // From the trunk's address too: what comes from there is not trusted to be well formed.
    for source in ["127.0.0.1:0", "127.0.0.2:0", "127.0.0.9:0"] {
        let socket = UdpSocket::bind(source).unwrap();
        let own = socket.local_addr().unwrap().to_string();
        for shot in MALFORMED_SIP {
            socket
                .send_to(shot.replace("{}", &own).as_bytes(), daemons.sip())
                .unwrap();
        }
        let long = format!(
            "OPTIONS sip:x SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bKl\r\nX: {}\r\n\r\n",
            "y".repeat(60_000)
        );
        socket.send_to(long.as_bytes(), daemons.sip()).unwrap();
        let many = format!(
            "OPTIONS sip:x SIP/2.0\r\n{}\r\n",
            format!("Via: SIP/2.0/UDP {own};branch=z9hG4bKm\r\n").repeat(1_000)
        );
        socket.send_to(many.as_bytes(), daemons.sip()).unwrap();
    }
    prove_service(&mut daemons).unwrap();
}

#[test]
fn every_cut_of_a_good_invite_is_survived() {
    let mut daemons = daemons();
    let socket = UdpSocket::bind("127.0.0.2:0").unwrap();
    let own = socket.local_addr().unwrap();
    let did = daemons.member(0).unwrap().did.clone();
    let sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.2\r\ns=-\r\nc=IN IP4 127.0.0.2\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
    for cut in 0..sdp.len() {
        // The branch and Call-ID change, so that each is a request of its own.
        let invite = format!(
            "INVITE sip:{did}@{} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bKcut{cut}\r\nMax-Forwards: 70\r\nFrom: <sip:a@b>;tag={cut}\r\nTo: <sip:{did}@b>\r\nCall-ID: cut{cut}\r\nCSeq: 1 INVITE\r\nContact: <sip:a@{own}>\r\nContent-Type: application/sdp\r\nContent-Length: {cut}\r\n\r\n{}",
            daemons.sip(),
            &sdp[..cut]
        );
        socket.send_to(invite.as_bytes(), daemons.sip()).unwrap();
        let whole = invite.len();
        socket
            .send_to(&invite.as_bytes()[..whole * cut / sdp.len()], daemons.sip())
            .unwrap();
    }
    prove_service(&mut daemons).unwrap();
}

#[test]
fn malformed_sip_over_tcp_costs_one_connection() {
    let mut daemons = daemons();
    let mut open = Vec::new();
    for shot in MALFORMED_SIP {
        let mut stream = TcpStream::connect(daemons.sip()).unwrap();
        let own = stream.local_addr().unwrap().to_string();
        // The server may close before everything is written; that is its right.
        let _ = stream.write_all(shot.replace("{}", &own).replace("/UDP", "/TCP").as_bytes());
        open.push(stream);
    }
    let mut endless = TcpStream::connect(daemons.sip()).unwrap();
    endless
        .set_write_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let line = format!("X: {}\r\n", "y".repeat(8_000));
    let _ = endless.write_all(b"OPTIONS sip:x SIP/2.0\r\n");
    let mut refused = false;
    for _ in 0..4_000 {
        if endless.write_all(line.as_bytes()).is_err() {
            refused = true;
            break;
        }
    }
    assert!(refused, "32 MB of one header section were taken");
    prove_service(&mut daemons).unwrap();
    drop(open);
}

#[test]
fn idle_tcp_connections_do_not_keep_others_out() {
    let mut daemons = daemons();
    let _idle: Vec<TcpStream> = (0..200)
        .map(|_| TcpStream::connect(daemons.sip()).unwrap())
        .collect();
    prove_service(&mut daemons).unwrap();
}

#[test]
fn malformed_media_from_the_peer_itself_is_dropped_and_counted() {
    let mut daemons = daemons();
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let call = place(&hub, &carrier, &daemons.member(0).unwrap().did, &phone).unwrap();
    assert!(call.talk(10).unwrap().is_perfect());
    let target = call.outgoing.remote_media().unwrap().rtp;
    call.callee_rtp.clear();
    for packet in MALFORMED_MEDIA {
        call.caller_rtp.send_raw(target, packet).unwrap();
    }
    call.caller_rtp.send_raw(target, &[0x80; 9_000]).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(call.callee_rtp.received_count(), 0);
    let wrong = (MALFORMED_MEDIA.len() + 1) as f64;
    daemons
        .wait_metric("trunkline_rtp_dropped_packets_total", &[], wrong)
        .unwrap();

    let heard = call.talk(25).unwrap();
    assert!(heard.is_perfect(), "{heard:?}");
    call.hang_up().unwrap();
    prove_service(&mut daemons).unwrap();
}

#[test]
fn malformed_http_is_survived() {
    let mut daemons = daemons();
    for shot in [
        &b"\0\0\0\0"[..],
        b"GET\r\n\r\n",
        b"GET /metrics HTTP/9.9\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ] {
        let mut stream = TcpStream::connect(daemons.http()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        let _ = stream.write_all(shot);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!String::from_utf8_lossy(&answer).contains("root:"));
    }
    assert_eq!(http::get(daemons.http(), "/nothing").unwrap().0, 404);
    assert_eq!(http::get(daemons.http(), "/healthz").unwrap().0, 200);
    prove_service(&mut daemons).unwrap();
}

#[test]
fn garbage_on_the_daemons_own_sockets_is_refused() {
    use std::os::unix::net::UnixStream;

    let mut daemons = daemons();
    for name in ["edge.sock", "control.sock"] {
        let path = daemons.node().run_dir.join(name);
        for shot in [&b""[..], b"\0", b"GET / HTTP/1.1\r\n\r\n", &[0xff; 4096]] {
            // The edge's socket may be of another type than a stream; then it cannot even be
            // connected to, which is a refusal as well.
            let Ok(mut stream) = UnixStream::connect(&path) else {
                continue;
            };
            let _ = stream.write_all(shot);
        }
    }
    prove_service(&mut daemons).unwrap();
}

#[test]
fn flood_of_invites_from_nowhere_leaves_the_trunk_served() {
    let mut daemons = daemons();
    let server: SocketAddr = daemons.sip();
    let socket = UdpSocket::bind("127.0.0.77:0").unwrap();
    let own = socket.local_addr().unwrap();
    for n in 0..20_000 {
        let invite = format!(
            "INVITE sip:+15550100000@{server} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bKf{n}\r\nMax-Forwards: 70\r\nFrom: <sip:a@b>;tag={n}\r\nTo: <sip:x@b>\r\nCall-ID: f{n}\r\nCSeq: 1 INVITE\r\nContact: <sip:a@{own}>\r\nContent-Length: 0\r\n\r\n"
        );
        socket.send_to(invite.as_bytes(), server).unwrap();
    }
    std::thread::sleep(LIMIT / 5);
    prove_service(&mut daemons).unwrap();
}
