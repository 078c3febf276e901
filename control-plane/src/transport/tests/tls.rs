//! Two transports of ours over TLS. That others understand it, too, is for the system tests.

use std::path::Path;

use trunkline_sip::Hop;
use trunkline_testkit::certificates::{Authority, Certificate};

use super::*;
use crate::config::{KeyPairFiles, TlsFiles, VerifyClients};
use crate::transport::tls::TlsKeeper;

/// A directory with an authority and what it signed.
struct Fixture {
    dir: tempfile::TempDir,
    authority: Authority,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let authority = Authority::new(dir.path(), "ours").expect("written");
        Self { dir, authority }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn certificate(&self, stem: &str, names: &[&str]) -> Certificate {
        let issued = self.authority.issue(self.path(), stem, names);
        issued.expect("written")
    }

    fn files(&self, certificates: &[&Certificate]) -> TlsFiles {
        let pair = |certificate: &&Certificate| KeyPairFiles {
            certificate_file: certificate.certificate_file.clone(),
            key_file: certificate.key_file.clone(),
        };
        TlsFiles {
            pairs: certificates.iter().map(pair).collect(),
            ca_file: self.authority.file.clone(),
            client_ca_file: None,
            verify_clients: VerifyClients::Off,
        }
    }
}

/// A transport with one TLS socket, and what keeps its certificates.
fn node(files: TlsFiles, limits: TransportLimits) -> (Transport, TlsKeeper, SocketAddr) {
    let keeper = TlsKeeper::open(Some(files)).expect("good files");
    let options = TransportOptions {
        tls: keeper.contexts(),
        ..options(limits)
    };
    let listen = [listen(TransportKind::Tls, "127.0.0.1:0")];
    let transport = Transport::bind(&listen, options).expect("loopback");
    let address = transport.bound()[0].address;
    (transport, keeper, address)
}

fn towards(from: &Transport, to: SocketAddr, domain: Option<&str>) -> Flow {
    let hop = Hop {
        kind: TransportKind::Tls,
        address: to,
        domain: domain.map(Into::into),
    };
    from.ends().flow_to(&hop).expect("a TLS socket of ours")
}

/// Sends one message from `from` and gives what became of it: what `to` heard, or why not.
async fn deliver(
    from: &mut Transport,
    to: &mut Transport,
    flow: Flow,
) -> Result<Flow, CloseReason> {
    from.send(&transmit(flow, message("over-tls", "v=0")))
        .expect("taken");
    let (mut heard, mut lost) = (Vec::new(), Vec::new());
    let outcome = timeout(PATIENCE, async {
        loop {
            tokio::select! {
                () = to.recv(&mut heard) => {
                    let found = heard.iter().find(|i| matches!(i, Inbound::Message { .. }));
                    if let Some(found) = found {
                        return Ok(flow_of(found));
                    }
                }
                () = from.recv(&mut lost) => {
                    if let Some(reason) = lost.iter().find_map(close_reason) {
                        // In TLS 1.3 a client has finished before the server judges its certificate:
                        // the message may have gone out by then.
                        let is_told = matches!(&lost[0], Inbound::Undelivered { .. });
                        let never_opened = reason == CloseReason::HandshakeFailed;
                        assert!(is_told || !never_opened, "what was lost comes first: {lost:?}");
                        return Err(reason);
                    }
                }
            }
        }
    });
    outcome.await.expect("something happens")
}

#[tokio::test]
async fn message_and_its_answer_share_one_encrypted_connection() {
    let fixture = Fixture::new();
    let certificate = fixture.certificate("sip", &["sip.test", "127.0.0.1"]);
    let files = fixture.files(&[&certificate]);
    let (mut server, _server_keeper, address) = node(files.clone(), TransportLimits::default());
    let (mut client, _client_keeper, _) = node(files, TransportLimits::default());

    let flow = towards(&client, address, Some("sip.test"));
    let heard = deliver(&mut client, &mut server, flow.clone()).await;
    let heard = heard.expect("delivered");
    assert_eq!((heard.kind, heard.local), (TransportKind::Tls, address));
    server
        .send(&transmit(heard, message("back", "")))
        .expect("taken");
    let (mut out, mut aside) = (Vec::new(), Vec::new());
    let back = timeout(PATIENCE, async {
        while out.is_empty() {
            tokio::select! {
                () = client.recv(&mut out) => {}
                () = server.recv(&mut aside) => {}
            }
        }
    });
    back.await.expect("it comes");
    assert_eq!(call_id(&out[0]), "back");
    // The second request takes the connection that is there.
    deliver(&mut client, &mut server, flow)
        .await
        .expect("delivered");
    let counters = client.counters();
    assert_eq!((counters.tls.opened, counters.tls.messages_sent), (1, 2));
    assert_eq!(server.counters().tls.accepted, 1);
    assert_eq!(server.counters().handshakes_active, 0);
}

#[tokio::test]
async fn long_message_arrives_whole_whatever_the_record_size() {
    let fixture = Fixture::new();
    let certificate = fixture.certificate("sip", &["sip.test"]);
    let files = fixture.files(&[&certificate]);
    let (mut server, _a, address) = node(files.clone(), TransportLimits::default());
    let (mut client, _b, _) = node(files, TransportLimits::default());
    let body = "x".repeat(60_000);
    let flow = towards(&client, address, Some("sip.test"));
    for _ in 0..4 {
        client
            .send(&transmit(flow.clone(), message("long", &body)))
            .expect("taken");
    }
    let (mut heard, mut aside) = (Vec::new(), Vec::new());
    let all = timeout(PATIENCE, async {
        while heard.len() < 4 {
            tokio::select! {
                () = server.recv(&mut heard) => {}
                () = client.recv(&mut aside) => {}
            }
        }
    });
    all.await.expect("all arrive");
    for inbound in &heard {
        let Inbound::Message { message, .. } = inbound else {
            panic!("{inbound:?}");
        };
        assert_eq!(message.body().len(), body.len());
    }
}

#[tokio::test]
async fn server_must_prove_the_domain_of_the_uri() {
    let fixture = Fixture::new();
    let stranger = Authority::new(fixture.path(), "stranger").expect("written");
    let by_stranger = stranger
        .issue(fixture.path(), "stranger", &["sip.test"])
        .expect("written");
    let expired = fixture
        .authority
        .issue_until(fixture.path(), "expired", &["sip.test"], 2021)
        .expect("written");
    let named = fixture.certificate("named", &["sip.test"]);
    let starred = fixture.certificate("starred", &["*.star.test"]);
    // RFC 5922 §7.1: with a SIP URI in it, the DNS name does not count.
    let by_uri = fixture.certificate("by-uri", &["other.test", "sip:sip.test"]);
    let rows = [
        (&named, Some("sip.test"), true),
        (&named, Some("SIP.test"), true),
        (&named, Some("other.test"), false),
        (&named, None, false),
        (&starred, Some("sip.star.test"), true),
        (&starred, Some("sip.test"), false),
        (&by_uri, Some("sip.test"), true),
        (&by_uri, Some("other.test"), false),
        (&by_stranger, Some("sip.test"), false),
        (&expired, Some("sip.test"), false),
    ];
    for (certificate, domain, is_proof) in rows {
        let (mut server, _a, address) =
            node(fixture.files(&[certificate]), TransportLimits::default());
        let (mut client, _b, _) = node(fixture.files(&[&named]), TransportLimits::default());
        let flow = towards(&client, address, domain);
        let outcome = deliver(&mut client, &mut server, flow).await;
        match outcome {
            Ok(_) => assert!(is_proof, "{certificate:?} passed for {domain:?}"),
            Err(reason) => {
                assert!(!is_proof, "{certificate:?} refused for {domain:?}");
                assert_eq!(reason, CloseReason::HandshakeFailed);
                assert_eq!(client.counters().tls.handshake_failed, 1);
            }
        }
    }
}

#[tokio::test]
async fn connection_proven_for_one_domain_is_not_used_for_another_at_the_same_address() {
    let fixture = Fixture::new();
    let certificate = fixture.certificate("sip", &["one.test"]);
    let files = fixture.files(&[&certificate]);
    let (mut server, _a, address) = node(files.clone(), TransportLimits::default());
    let (mut client, _b, _) = node(files, TransportLimits::default());
    let one = towards(&client, address, Some("one.test"));
    deliver(&mut client, &mut server, one)
        .await
        .expect("delivered");
    let two = towards(&client, address, Some("two.test"));
    let outcome = deliver(&mut client, &mut server, two).await;
    assert_eq!(outcome, Err(CloseReason::HandshakeFailed));
}

#[tokio::test]
async fn client_must_show_a_certificate_where_one_is_required() {
    let fixture = Fixture::new();
    let stranger = Authority::new(fixture.path(), "stranger").expect("written");
    let ours = fixture.certificate("ours", &["sip.test"]);
    let theirs = stranger
        .issue(fixture.path(), "theirs", &["sip.test"])
        .expect("written");
    for (verify, shown, is_let_in) in [
        (VerifyClients::Required, Some(&ours), true),
        (VerifyClients::Required, Some(&theirs), false),
        (VerifyClients::Required, None, false),
        (VerifyClients::Optional, None, true),
        (VerifyClients::Optional, Some(&theirs), false),
        (VerifyClients::Off, Some(&theirs), true),
    ] {
        let files = TlsFiles {
            client_ca_file: Some(fixture.authority.file.clone()),
            verify_clients: verify,
            ..fixture.files(&[&ours])
        };
        let (mut server, _a, address) = node(files, TransportLimits::default());
        let shown_files: Vec<&Certificate> = shown.into_iter().collect();
        let (mut client, _b, _) = node(fixture.files(&shown_files), TransportLimits::default());
        let flow = towards(&client, address, Some("sip.test"));
        let outcome = deliver(&mut client, &mut server, flow).await;
        assert_eq!(
            outcome.is_ok(),
            is_let_in,
            "{verify:?} {shown:?}: {outcome:?}"
        );
    }
}

#[tokio::test]
async fn each_name_gets_its_certificate_and_an_unknown_one_the_first() {
    let fixture = Fixture::new();
    let first = fixture.certificate("first", &["first.test"]);
    let second = fixture.certificate("second", &["second.test", "*.many.test"]);
    let (mut server, _a, address) = node(
        fixture.files(&[&first, &second]),
        TransportLimits::default(),
    );
    for (domain, is_served) in [
        ("first.test", true),
        ("second.test", true),
        ("any.many.test", true),
        ("third.test", false),
    ] {
        let (mut client, _b, _) = node(fixture.files(&[&first]), TransportLimits::default());
        let flow = towards(&client, address, Some(domain));
        let outcome = deliver(&mut client, &mut server, flow).await;
        assert_eq!(outcome.is_ok(), is_served, "{domain}: {outcome:?}");
    }
}

#[tokio::test]
async fn new_certificate_serves_new_handshakes_and_leaves_connections_alone() {
    let fixture = Fixture::new();
    let old = fixture.certificate("sip", &["old.test"]);
    let (mut server, keeper, address) = node(fixture.files(&[&old]), TransportLimits::default());
    let (mut client, _a, _) = node(fixture.files(&[&old]), TransportLimits::default());
    let to_old = towards(&client, address, Some("old.test"));
    deliver(&mut client, &mut server, to_old.clone())
        .await
        .expect("delivered");

    // Broken in each way there is: refused with its reason, the old one stays.
    let pem = std::fs::read(&old.certificate_file).expect("there");
    let other = fixture.certificate("other", &["old.test"]);
    std::fs::copy(&other.certificate_file, &old.certificate_file).expect("copied");
    let problem = keeper.reload().expect_err("not its key");
    assert!(
        problem.contains("not the key of the certificate"),
        "{problem}"
    );
    std::fs::write(&old.certificate_file, "nonsense").expect("written");
    let problem = keeper.reload().expect_err("no certificate");
    assert!(problem.contains("no certificate in PEM form"), "{problem}");
    std::fs::remove_file(&old.certificate_file).expect("removed");
    let problem = keeper.reload().expect_err("no file");
    assert!(problem.contains("sip.pem"), "{problem}");
    let issued = fixture
        .authority
        .issue_until(fixture.path(), "sip", &["old.test"], 2021);
    issued.expect("written");
    let problem = keeper.reload().expect_err("expired");
    assert!(problem.contains("has expired"), "{problem}");
    let status = keeper.status().expect("TLS is spoken");
    assert_eq!(status.reload_problem.as_deref(), Some(problem.as_str()));
    assert_eq!(status.certificates[0].names, ["old.test"]);
    let (mut late, _b, _) = node(fixture.files(&[&other]), TransportLimits::default());
    let flow = towards(&late, address, Some("old.test"));
    deliver(&mut late, &mut server, flow)
        .await
        .expect("the old one serves");

    std::fs::write(&old.certificate_file, pem).expect("written");
    fixture.certificate("sip", &["new.test"]);
    assert_eq!(keeper.reload(), Ok(1));
    let status = keeper.status().expect("TLS is spoken");
    assert_eq!(status.reload_problem, None);
    assert_eq!(status.certificates[0].names, ["new.test"]);
    // The connection that stands goes on; a new one meets the new certificate.
    deliver(&mut client, &mut server, to_old)
        .await
        .expect("delivered");
    assert_eq!(client.counters().tls.opened, 1);
    for (domain, is_served) in [("new.test", true), ("old.test", false)] {
        let (mut fresh, _c, _) = node(fixture.files(&[&other]), TransportLimits::default());
        let flow = towards(&fresh, address, Some(domain));
        let outcome = deliver(&mut fresh, &mut server, flow).await;
        assert_eq!(outcome.is_ok(), is_served, "{domain}: {outcome:?}");
    }
}

#[tokio::test]
async fn half_open_handshakes_are_bounded_and_end_while_others_are_served() {
    let fixture = Fixture::new();
    let certificate = fixture.certificate("sip", &["sip.test"]);
    let files = fixture.files(&[&certificate]);
    let limits = TransportLimits {
        handshakes_max: 8,
        handshake_timeout_secs: 1,
        ..TransportLimits::default()
    };
    let (mut server, _a, address) = node(files.clone(), limits);
    let (mut client, _b, _) = node(files, TransportLimits::default());
    let flow = towards(&client, address, Some("sip.test"));
    deliver(&mut client, &mut server, flow.clone())
        .await
        .expect("delivered");

    let mut silent = Vec::new();
    for _ in 0..12 {
        let mut peer = TcpStream::connect(address).await.expect("accepted");
        // The beginning of a ClientHello, and no more.
        peer.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01])
            .await
            .expect("open");
        silent.push(peer);
    }
    let mut out = Vec::new();
    run_for(&mut server, Duration::from_millis(300), &mut out).await;
    assert_eq!(server.counters().handshakes_active, 8);
    assert_eq!(server.counters().tls.refused_handshakes, 4);
    deliver(&mut client, &mut server, flow)
        .await
        .expect("who has shaken hands is served");
    let ended = timeout(PATIENCE, async {
        while server.counters().tls.handshake_timeout < 8 {
            server.recv(&mut out).await;
        }
    });
    ended.await.expect("all end");
    assert_eq!(server.counters().handshakes_active, 0);
    assert_eq!(server.counters().connections_active, 1);
}

#[tokio::test]
async fn plain_sip_on_a_tls_socket_is_no_handshake() {
    let fixture = Fixture::new();
    let certificate = fixture.certificate("sip", &["sip.test"]);
    let (mut server, _a, address) =
        node(fixture.files(&[&certificate]), TransportLimits::default());
    let mut peer = TcpStream::connect(address).await.expect("accepted");
    peer.write_all(message("plain", "").as_bytes())
        .await
        .expect("open");
    let got = receive(&mut server, 1).await;
    assert_eq!(close_reason(&got[0]), Some(CloseReason::HandshakeFailed));
    assert_eq!(server.counters().tls.messages_received, 0);
}
