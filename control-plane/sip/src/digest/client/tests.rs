use bytes::Bytes;
use sipx_sip::{Method, Uri};

use super::*;

fn request(uri: &str, method: Method) -> Request {
    let uri = Uri::parse(Bytes::copy_from_slice(uri.as_bytes())).expect("a URI");
    let mut request = Request::new(method, uri);
    let length = Header::build(HeaderName::ContentLength, "0").expect("valid");
    request.headers.push(length);
    request
}

fn headers(rows: &[(HeaderName, &str)]) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in rows {
        headers.push(Header::build(name.clone(), (*value).to_owned()).expect("valid"));
    }
    headers
}

fn www(value: &str) -> Headers {
    headers(&[(HeaderName::WwwAuthenticate, value)])
}

fn password() -> ClientCredentials {
    ClientCredentials::with_password("alice", "s3cret")
}

/// What is sent in answer, as parameter by parameter.
fn answer_to(challenges: &Headers, credentials: &ClientCredentials) -> Option<String> {
    let mut request = request("sip:registrar.example.com", Method::Register);
    let mut given = AnswersGiven::default();
    authorize(&mut request, challenges, credentials, &mut given, 7, |_| 1).then(|| {
        let value = request.headers.value(&HeaderName::Authorization);
        String::from_utf8(value.expect("one").into_owned()).expect("text")
    })
}

fn parameter(value: &str, name: &str) -> String {
    let parameters = credentials::parameters(value.as_bytes()).expect("digest");
    parameters.raw(name).unwrap_or_default().to_owned()
}

/// The examples of RFC 7616 §3.9 use a path for the URI, which no SIP request has: the rest of
/// their values is compared with an implementation that is tested against them.
#[test]
fn responses_agree_with_an_independent_implementation() {
    let hashed =
        |hash, user: &str, realm: &str, password: &str, nonce: &str, uri: &str, cn: &str| {
            let challenge = Challenge {
                asker: Asker::Server,
                realm: realm.to_owned(),
                nonce: nonce.to_owned(),
                opaque: None,
                algorithm: None,
                hash,
                is_session: false,
                qop: Qop::Auth,
                stale: false,
            };
            let credentials = ClientCredentials::with_password(user, password);
            let request = request(uri, Method::Other(Bytes::from_static(b"GET")));
            let answer = challenge.answer(&credentials, &request, 1, cn);
            let value = answer.expect("answered");
            parameter(&String::from_utf8_lossy(&value.value()), "response")
        };
    let (nonce, cnonce) = (
        "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
        "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
    );
    for (hash, algorithm) in [
        (Hash::Md5, sipx_sip::auth::Algorithm::Md5),
        (Hash::Sha256, sipx_sip::auth::Algorithm::Sha256),
        (Hash::Sha512Of256, sipx_sip::auth::Algorithm::Sha512_256),
    ] {
        let (user, realm, password) = ("Mufasa", "http-auth@example.org", "Circle of Life");
        let uri = "sip:example.org";
        let challenge = sipx_sip::auth::Challenge {
            realm: realm.to_owned(),
            nonce: nonce.to_owned(),
            opaque: None,
            algorithm,
            qop_auth: true,
            stale: false,
            from_proxy: false,
        };
        let theirs = sipx_sip::auth::respond(
            &challenge,
            &sipx_sip::auth::Credentials::new(user, password),
            "GET",
            uri,
            1,
            cnonce,
        );
        assert_eq!(
            hashed(hash, user, realm, password, nonce, uri, cnonce),
            parameter(&theirs, "response"),
            "{hash:?}"
        );
    }
}

#[test]
fn session_algorithms_agree_with_an_independent_implementation() {
    for token in ["MD5-sess", "SHA-256-sess", "SHA-512-256-sess"] {
        let offer = format!(
            "Digest realm=\"r\", nonce=\"n\", algorithm={token}, qop=\"auth\", opaque=\"o\""
        );
        let ours = answer_to(&www(&offer), &password()).expect("answered");
        let challenge = sipx_sip::auth::Challenge::parse(offer.as_bytes(), false);
        let theirs = sipx_sip::auth::respond(
            &challenge.expect("readable"),
            &sipx_sip::auth::Credentials::new("alice", "s3cret"),
            "REGISTER",
            "sip:registrar.example.com",
            1,
            "0000000000000007",
        );
        for name in [
            "response",
            "opaque",
            "algorithm",
            "nc",
            "cnonce",
            "qop",
            "uri",
        ] {
            assert_eq!(parameter(&ours, name), parameter(&theirs, name), "{token}");
        }
    }
}

#[test]
fn strongest_algorithm_is_answered_wherever_its_row_stands() {
    let row = |algorithm: &str| {
        format!("Digest realm=\"r\", nonce=\"n\", algorithm={algorithm}, qop=\"auth\"")
    };
    for (rows, taken) in [
        (vec!["MD5", "SHA-256", "SHA-512-256"], "SHA-512-256"),
        (vec!["SHA-512-256", "MD5"], "SHA-512-256"),
        (vec!["sha-256", "MD5"], "sha-256"),
        (vec!["MD5", "SHA-256"], "SHA-256"),
        (vec!["FOO-9", "MD5"], "MD5"),
    ] {
        let rows: Vec<String> = rows.into_iter().map(row).collect();
        let rows: Vec<_> = rows
            .iter()
            .map(|row| (HeaderName::WwwAuthenticate, row.as_str()))
            .collect();
        let answer = answer_to(&headers(&rows), &password()).expect("answered");
        assert_eq!(parameter(&answer, "algorithm"), taken);
    }
}

#[test]
fn qop_is_chosen_from_the_list_and_left_out_where_there_is_none() {
    for (qop, sent) in [
        (", qop=\"auth\"", "auth"),
        (", qop=\"auth,auth-int\"", "auth"),
        (", qop=\"auth-int, auth\"", "auth"),
        (", qop=\"auth-int\"", "auth-int"),
        (", qop=auth", "auth"),
        ("", ""),
    ] {
        let offer = format!("Digest realm=\"r\",nonce=\"n\"{qop}");
        let answer = answer_to(&www(&offer), &password()).expect("answered");
        assert_eq!(parameter(&answer, "qop"), sent, "{offer}");
        assert_eq!(parameter(&answer, "nc").is_empty(), sent.is_empty());
        assert_eq!(parameter(&answer, "algorithm"), "", "none was named");
    }
}

#[test]
fn body_is_hashed_where_nothing_but_auth_int_is_offered() {
    let with_body = |body: &'static [u8]| {
        let mut request = request("sip:a@b", Method::Message);
        request.set_body(Bytes::from_static(body));
        let mut given = AnswersGiven::default();
        let offer = www("Digest realm=\"r\", nonce=\"n\", qop=\"auth-int\"");
        assert!(authorize(
            &mut request,
            &offer,
            &password(),
            &mut given,
            7,
            |_| 1
        ));
        let value = request
            .headers
            .value(&HeaderName::Authorization)
            .expect("one");
        parameter(&String::from_utf8_lossy(&value), "response")
    };
    assert_ne!(with_body(b"one"), with_body(b"two"));
}

#[test]
fn what_cannot_be_answered_is_not() {
    for offer in [
        "Basic realm=\"r\"",
        "Digest realm=\"r\", nonce=\"n\", algorithm=SHA3-512",
        "Digest realm=\"r\", nonce=\"n\", qop=\"other\"",
        "Digest realm=\"r\", nonce=\"n\", algorithm=MD5-sess",
        "Digest realm=\"r\"",
        "Digest nonce=\"n\"",
        "",
    ] {
        assert_eq!(answer_to(&www(offer), &password()), None, "{offer}");
    }
}

#[test]
fn stored_hash_answers_its_own_realm_in_the_algorithms_it_has() {
    let of_old = super::super::Ha1 {
        sha512_256: None,
        ..super::super::ha1("alice", "r", "s3cret")
    };
    let with = |ha1| ClientCredentials {
        username: "alice".to_owned(),
        secret: Secret::Ha1 {
            realm: "r".to_owned(),
            ha1,
        },
    };
    let credentials = with(super::super::ha1("alice", "r", "s3cret"));
    let unknown = www("Digest realm=\"r\", nonce=\"n\", algorithm=SHA-512-256, qop=\"auth\"");
    assert_eq!(answer_to(&unknown, &with(of_old)), None);
    for algorithm in ["MD5", "SHA-256", "SHA-512-256"] {
        let offer = format!("Digest realm=\"r\", nonce=\"n\", algorithm={algorithm}, qop=\"auth\"");
        let answer = answer_to(&www(&offer), &credentials);
        assert!(answer.is_some(), "{algorithm}");
        assert_eq!(answer, answer_to(&www(&offer), &password()));
    }
    let elsewhere = www("Digest realm=\"other\", nonce=\"n\", algorithm=MD5");
    assert_eq!(answer_to(&elsewhere, &credentials), None);
}

#[test]
fn refused_answer_is_repeated_once_for_a_stale_nonce_and_never_else() {
    let plain = www("Digest realm=\"r\", nonce=\"n2\", qop=\"auth\"");
    let stale = www("Digest realm=\"r\", nonce=\"n2\", qop=\"auth\", stale=TRUE");
    let mut request = request("sip:registrar.example.com", Method::Register);
    let mut given = AnswersGiven::default();
    let mut again = |challenges: &Headers| {
        authorize(&mut request, challenges, &password(), &mut given, 7, |_| 1)
    };
    assert!(again(&www(
        "Digest realm=\"r\", nonce=\"n1\", qop=\"auth\""
    )));
    assert!(!again(&plain));
    assert!(again(&stale));
    assert!(!again(&stale));
    let rows: Vec<_> = request
        .headers
        .get_all(&HeaderName::Authorization)
        .collect();
    assert_eq!(rows.len(), 1);
    assert!(String::from_utf8_lossy(&rows[0].value()).contains("nonce=\"n2\""));
}

#[test]
fn proxy_and_server_are_both_answered_and_nobody_for_ever() {
    let mut request = request("sip:bob@example.com", Method::Invite);
    let mut given = AnswersGiven::default();
    let mut again = |name: HeaderName, realm: &str| {
        let challenges = headers(&[(name, &format!("Digest realm=\"{realm}\", nonce=\"n\""))]);
        authorize(&mut request, &challenges, &password(), &mut given, 7, |_| 1)
    };
    assert!(again(HeaderName::ProxyAuthenticate, "proxy"));
    assert!(again(HeaderName::WwwAuthenticate, "server"));
    assert!(again(HeaderName::ProxyAuthenticate, "second"));
    assert!(again(HeaderName::ProxyAuthenticate, "third"));
    assert!(!again(HeaderName::ProxyAuthenticate, "fourth"));
    assert_eq!(request.headers.count(&HeaderName::ProxyAuthorization), 3);
    assert_eq!(request.headers.count(&HeaderName::Authorization), 1);
}

#[test]
fn secrets_do_not_print() {
    assert!(!format!("{:?}", password()).contains("s3cret"));
    assert!(!format!("{:?}", password().secret).contains("s3cret"));
}
