use bytes::Bytes;
use proptest::prelude::*;
use sipx_sip::auth::{self, Challenge};
use sipx_sip::{Limits, Message, parse_datagram};

use super::*;

const PHONE: &str = "198.51.100.20";
const REALM: &str = "trunkline";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn at(secs: u64) -> MonoTime {
    MonoTime::default().plus_secs(1_000 + secs)
}

fn server() -> DigestServer {
    DigestServer::new(DigestConfig::new(REALM), [7; 32]).expect("a plain realm")
}

fn password_of(user: &str) -> Option<Ha1> {
    (user == "1001").then(|| ha1("1001", REALM, "s3cret"))
}

fn register(authorizations: &[String]) -> Request {
    let mut text = "REGISTER sip:trunkline.example.com SIP/2.0\r\n\
        Via: SIP/2.0/UDP 198.51.100.20;branch=z9hG4bK1\r\n\
        From: <sip:1001@trunkline.example.com>;tag=1\r\n\
        To: <sip:1001@trunkline.example.com>\r\n\
        Call-ID: a\r\nCSeq: 1 REGISTER\r\n"
        .to_owned();
    for value in authorizations {
        text.push_str(&format!("Authorization: {value}\r\n"));
    }
    text.push_str("Content-Length: 0\r\n\r\n");
    match parse_datagram(Bytes::from(text), &Limits::datagram()).expect("well-formed") {
        Message::Request(request) => request,
        Message::Response(_) => unreachable!("it begins with a method"),
    }
}

/// What a client with `password` sends in answer to the challenge for `algorithm`.
fn answer(challenges: &[Header], algorithm: &str, password: &str, nc: u32) -> String {
    answer_at(
        challenges,
        algorithm,
        password,
        nc,
        "sip:trunkline.example.com",
    )
}

fn answer_at(challenges: &[Header], algorithm: &str, password: &str, nc: u32, uri: &str) -> String {
    let challenge = challenges
        .iter()
        .filter_map(|header| Challenge::parse(&header.value(), false))
        .find(|challenge| challenge.algorithm.as_str() == algorithm)
        .expect("the algorithm is offered");
    let credentials = auth::Credentials::new("1001", password);
    auth::respond(&challenge, &credentials, "REGISTER", uri, nc, "0a4f113b")
}

fn verify(server: &mut DigestServer, secs: u64, value: &str) -> Result<String, DigestError> {
    server.verify(
        at(secs),
        ip(PHONE),
        &register(&[value.to_owned()]),
        password_of,
    )
}

#[test]
fn responses_are_those_of_rfc_7616_section_3_9_1() {
    let stored = ha1("Mufasa", "http-auth@example.org", "Circle of Life");
    let rows = [
        (
            Algorithm::Md5,
            stored.md5.to_vec(),
            "8ca523f5e9506fed4657c9700eebdbec",
        ),
        (
            Algorithm::Sha256,
            stored.sha256.to_vec(),
            "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
        ),
    ];
    for (algorithm, ha1, response) in rows {
        let value = format!(
            "Digest username=\"Mufasa\", realm=\"http-auth@example.org\", \
             uri=\"/dir/index.html\", algorithm={}, \
             nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", nc=00000001, \
             cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", qop=auth, \
             response=\"{response}\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"",
            algorithm.token()
        );
        let parameters = credentials::parameters(value.as_bytes()).expect("well-formed");
        let credentials = Credentials::new(&parameters).expect("complete");
        assert_eq!(
            credentials.expected_response(algorithm, &ha1, b"GET"),
            credentials.response
        );
    }
}

#[test]
fn right_password_is_accepted_in_each_algorithm_and_in_the_order_of_the_settings() {
    let config = DigestConfig {
        algorithms: vec![Algorithm::Md5, Algorithm::Sha256, Algorithm::Sha512256],
        ..DigestConfig::new(REALM)
    };
    let mut server = DigestServer::new(config, [7; 32]).expect("a plain realm");
    let challenges = server.challenge(at(0), ip(PHONE), false);
    let first = Challenge::parse(&challenges[0].value(), false).expect("well-formed");
    assert_eq!(first.algorithm, auth::Algorithm::Md5);
    assert!(!first.stale && first.qop_auth);
    for (nc, algorithm) in [(1, "SHA-256"), (2, "MD5"), (3, "SHA-512-256")] {
        let value = answer(&challenges, algorithm, "s3cret", nc);
        assert_eq!(
            verify(&mut server, 1, &value),
            Ok("1001".to_owned()),
            "{algorithm}"
        );
    }
}

#[test]
fn password_stored_before_an_algorithm_was_known_does_not_serve_it() {
    let config = DigestConfig {
        algorithms: vec![Algorithm::Sha512256],
        ..DigestConfig::new(REALM)
    };
    let mut server = DigestServer::new(config, [7; 32]).expect("a plain realm");
    let challenges = server.challenge(at(0), ip(PHONE), false);
    let value = answer(&challenges, "SHA-512-256", "s3cret", 1);
    let result = server.verify(at(1), ip(PHONE), &register(&[value]), |user| {
        let stored = password_of(user)?;
        Some(Ha1 {
            sha512_256: None,
            ..stored
        })
    });
    assert_eq!(result, Err(DigestError::NotStored));
}

#[test]
fn algorithm_that_is_not_offered_is_not_accepted_either() {
    let config = DigestConfig {
        algorithms: vec![Algorithm::Sha256],
        ..DigestConfig::new(REALM)
    };
    let mut strict = DigestServer::new(config, [7; 32]).expect("a plain realm");
    let challenges = strict.challenge(at(0), ip(PHONE), false);
    assert_eq!(challenges.len(), 1);
    // The nonce is as good as any; only the hash is not.
    let both = server().challenge(at(0), ip(PHONE), false);
    let md5 = answer(&both, "MD5", "s3cret", 1);
    assert_eq!(
        verify(&mut strict, 1, &md5),
        Err(DigestError::NoCredentials)
    );
    let sha256 = answer(&challenges, "SHA-256", "s3cret", 1);
    assert_eq!(verify(&mut strict, 1, &sha256), Ok("1001".to_owned()));
}

#[test]
fn credentials_are_refused_for_the_right_reason() {
    let mut server = server();
    let challenges = server.challenge(at(0), ip(PHONE), false);
    let good = answer(&challenges, "SHA-256", "s3cret", 1);
    let rows = [
        (
            "wrong password",
            answer(&challenges, "SHA-256", "guess", 1),
            DigestError::WrongResponse,
        ),
        (
            "unknown user",
            good.replace("\"1001\"", "\"1002\""),
            DigestError::UnknownUser,
        ),
        (
            "another realm",
            good.replace(REALM, "asterisk"),
            DigestError::NoCredentials,
        ),
        (
            "an algorithm not offered",
            good.replace("SHA-256", "SHA-512-256"),
            DigestError::NoCredentials,
        ),
        (
            "session variant",
            good.replace("SHA-256", "SHA-256-sess"),
            DigestError::NoCredentials,
        ),
        (
            "basic",
            "Basic MTAwMTpzM2NyZXQ=".to_owned(),
            DigestError::NoCredentials,
        ),
        (
            "auth-int",
            good.replace("qop=auth", "qop=auth-int"),
            DigestError::Malformed,
        ),
        (
            "count 0",
            good.replace("nc=00000001", "nc=00000000"),
            DigestError::Malformed,
        ),
        (
            "count not hexadecimal",
            good.replace("nc=00000001", "nc=+0000001"),
            DigestError::Malformed,
        ),
        (
            "no count",
            good.replace("nc=00000001, ", ""),
            DigestError::Malformed,
        ),
        (
            "count changed",
            good.replace("nc=00000001", "nc=00000002"),
            DigestError::WrongResponse,
        ),
        (
            "response not hexadecimal",
            good.replace("response=\"", "response=\"x"),
            DigestError::Malformed,
        ),
        (
            "made for another user's URI",
            answer_at(
                &challenges,
                "MD5",
                "s3cret",
                1,
                "sip:1002@trunkline.example.com",
            ),
            DigestError::UriMismatch,
        ),
        (
            "made for another host",
            answer_at(&challenges, "MD5", "s3cret", 1, "sip:other.example.com"),
            DigestError::UriMismatch,
        ),
    ];
    for (name, value, expected) in rows {
        assert_eq!(
            verify(&mut server, 1, &value),
            Err(expected),
            "{name}: {value}"
        );
    }
    let none = server.verify(at(1), ip(PHONE), &register(&[]), password_of);
    assert_eq!(none, Err(DigestError::NoCredentials));
    assert_eq!(
        server.mint.used_len(),
        0,
        "only a right password costs memory"
    );
}

#[test]
fn uri_may_differ_in_port_and_parameters() {
    let mut server = server();
    let challenges = server.challenge(at(0), ip(PHONE), false);
    for (nc, uri) in [
        (1, "sip:trunkline.example.com:5060"),
        (2, "sip:TRUNKLINE.example.com;transport=tcp"),
    ] {
        let value = answer_at(&challenges, "SHA-256", "s3cret", nc, uri);
        assert!(verify(&mut server, 1, &value).is_ok(), "{uri}");
    }
}

#[test]
fn ours_is_found_among_credentials_for_others() {
    let mut server = server();
    let challenges = server.challenge(at(0), ip(PHONE), false);
    let good = answer(&challenges, "MD5", "s3cret", 1);
    let request = register(&[good.replace(REALM, "asterisk"), good]);
    assert!(
        server
            .verify(at(1), ip(PHONE), &request, password_of)
            .is_ok()
    );
}

#[test]
fn old_foreign_or_forged_nonce_is_stale_only_with_the_right_password() {
    let mut server = server();
    let challenges = server.challenge(at(0), ip(PHONE), false);
    let good = answer(&challenges, "SHA-256", "s3cret", 1);
    assert!(verify(&mut server, 300, &good).is_ok());
    let late = answer(&challenges, "SHA-256", "s3cret", 2);
    assert_eq!(verify(&mut server, 301, &late), Err(DigestError::Stale));
    let late_and_wrong = answer(&challenges, "SHA-256", "guess", 2);
    assert_eq!(
        verify(&mut server, 301, &late_and_wrong),
        Err(DigestError::WrongResponse)
    );

    // Another source took the nonce along.
    let request = register(&[answer(&challenges, "SHA-256", "s3cret", 3)]);
    let elsewhere = server.verify(at(2), ip("203.0.113.5"), &request, password_of);
    assert_eq!(elsewhere, Err(DigestError::Stale));

    // The process was restarted.
    let mut restarted = DigestServer::new(DigestConfig::new(REALM), [8; 32]).expect("plain");
    let result = verify(
        &mut restarted,
        2,
        &answer(&challenges, "SHA-256", "s3cret", 4),
    );
    assert_eq!(result, Err(DigestError::Stale));
    let again = restarted.challenge(at(2), ip(PHONE), result.is_err_and(DigestError::is_stale));
    assert!(
        Challenge::parse(&again[0].value(), false)
            .expect("well-formed")
            .stale
    );
    assert!(verify(&mut restarted, 3, &answer(&again, "SHA-256", "s3cret", 1)).is_ok());
}

#[test]
fn source_may_change_when_nonces_are_not_bound_to_it() {
    let config = DigestConfig {
        bind_source: false,
        ..DigestConfig::new(REALM)
    };
    let mut server = DigestServer::new(config, [7; 32]).expect("plain");
    let challenges = server.challenge(at(0), ip(PHONE), false);
    let request = register(&[answer(&challenges, "SHA-256", "s3cret", 1)]);
    assert!(
        server
            .verify(at(1), ip("203.0.113.5"), &request, password_of)
            .is_ok()
    );
}

#[test]
fn counts_may_overtake_each_other_but_never_repeat() {
    let mut server = server();
    let challenges = server.challenge(at(0), ip(PHONE), false);
    let rows = [
        (5, Ok(())),
        (3, Ok(())),
        (4, Ok(())),
        (3, Err(DigestError::Replayed)),
        (5, Err(DigestError::Replayed)),
        (200, Ok(())),
        (137, Ok(())),
        // 64 behind the highest and more: no longer known.
        (136, Err(DigestError::Replayed)),
        (u32::MAX, Ok(())),
        (u32::MAX, Err(DigestError::Replayed)),
    ];
    for (nc, expected) in rows {
        let value = answer(&challenges, "SHA-256", "s3cret", nc);
        assert_eq!(
            verify(&mut server, 1, &value).map(|_| ()),
            expected,
            "nc {nc}"
        );
    }
}

#[test]
fn form_without_qop_is_accepted_once_per_nonce() {
    let mut server = server();
    let challenges = server.challenge(at(0), ip(PHONE), false);
    let challenge = challenges
        .iter()
        .filter_map(|header| Challenge::parse(&header.value(), false))
        .next_back()
        .expect("MD5 comes last");
    let legacy = Challenge {
        qop_auth: false,
        ..challenge
    };
    let credentials = auth::Credentials::new("1001", "s3cret");
    let uri = "sip:trunkline.example.com";
    let value = auth::respond(&legacy, &credentials, "REGISTER", uri, 1, "x");
    assert!(!value.contains("qop"));
    assert!(verify(&mut server, 1, &value).is_ok());
    assert_eq!(verify(&mut server, 1, &value), Err(DigestError::Replayed));
}

#[test]
fn remembered_nonces_are_bounded_and_forgetting_one_ends_it() {
    let config = DigestConfig {
        nonces_max: 3,
        ..DigestConfig::new(REALM)
    };
    let mut server = DigestServer::new(config, [7; 32]).expect("plain");
    let nonces: Vec<_> = (0..5)
        .map(|i| server.challenge(at(i), ip(PHONE), false))
        .collect();
    for challenges in &nonces {
        assert!(verify(&mut server, 10, &answer(challenges, "MD5", "s3cret", 1)).is_ok());
        assert!(server.mint.used_len() <= 3);
    }
    for (index, challenges) in nonces.iter().enumerate() {
        let replay = verify(&mut server, 11, &answer(challenges, "MD5", "s3cret", 1));
        let expected = if index < 2 {
            DigestError::Stale
        } else {
            DigestError::Replayed
        };
        assert_eq!(replay, Err(expected), "nonce {index}");
    }
    let fresh = server.challenge(at(400), ip(PHONE), false);
    assert!(verify(&mut server, 400, &answer(&fresh, "MD5", "s3cret", 1)).is_ok());
    assert!(
        server.mint.used_len() <= 2,
        "expired ones go as new ones come"
    );
}

#[test]
fn two_challenges_of_one_nanosecond_differ() {
    let mut server = server();
    let [a, b] = [(), ()].map(|()| server.challenge(at(0), ip(PHONE), false));
    assert_ne!(a[0].value(), b[0].value());
}

#[test]
fn realm_that_would_break_the_header_is_refused() {
    for realm in ["", "a\"b", "a\\b", "a\r\nb", "Büro"] {
        assert!(
            DigestServer::new(DigestConfig::new(realm), [0; 32]).is_err(),
            "{realm:?}"
        );
    }
}

#[test]
fn secrets_do_not_print() {
    let stored = ha1("1001", REALM, "s3cret");
    assert_eq!(format!("{stored:?}"), "Ha1(redacted)");
    assert!(!format!("{:?}", server()).contains('7'));
}

#[test]
fn quoted_username_is_unescaped_before_it_is_looked_up() {
    let value = b"Digest username=\"a\\\"b\\\\c\", realm=\"trunkline\", nonce=\"x\", uri=\"sip:a\", response=\"00\"";
    let parameters = credentials::parameters(value).expect("well-formed");
    let credentials = Credentials::new(&parameters).expect("complete");
    assert_eq!(credentials.username, "a\"b\\c");
}

proptest! {
    #[test]
    fn no_authorization_header_panics(value in prop::collection::vec(any::<u8>(), 0..300)) {
        let value = [b"Digest ".as_slice(), &value].concat();
        if let Some(parameters) = credentials::parameters(&value) {
            let _ = Credentials::new(&parameters);
        }
    }

    #[test]
    fn no_mangled_answer_is_accepted(at_byte in any::<prop::sample::Index>(), byte in b' '..=b'~') {
        let mut server = server();
        let challenges = server.challenge(at(0), ip(PHONE), false);
        let good = answer(&challenges, "SHA-256", "s3cret", 1);
        let response = good.find("response=\"").expect("present") + "response=\"".len();
        let mut mangled = good.clone().into_bytes();
        let index = response + at_byte.index(64);
        prop_assume!(!mangled[index].eq_ignore_ascii_case(&byte));
        mangled[index] = byte;
        let mangled = String::from_utf8(mangled).expect("ASCII");
        prop_assert!(verify(&mut server, 1, &mangled).is_err());
    }
}
