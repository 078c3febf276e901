use trunkline_edge_api::crypto::SrtpSuite;

use super::*;
use SrtpPolicy::{Off, Preferred, Required};

const A: LegIndex = LegIndex::A;
const B: LegIndex = LegIndex::B;

/// 30 bytes for AES_CM_128, 28 for AEAD_AES_128_GCM, in base64. Keys of RFC 4568 §6.1 and ours.
const CM_KEY: &str = "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";
const OTHER_CM_KEY: &str = "PS1uQCVeeCFCanVmcjkpPywjNWhcYD0mXXtxaVBR";
const GCM_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGw==";

/// One audio line over RTP/SAVP with these `a=crypto` values.
fn savp(addr: &str, crypto: &[String]) -> String {
    let lines: Vec<String> = crypto.iter().map(|line| format!("crypto:{line}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    sdp(addr, "0", &lines).replace("RTP/AVP", "RTP/SAVP")
}

fn cm(tag: u32, key: &str) -> String {
    format!("{tag} AES_CM_128_HMAC_SHA1_80 inline:{key}")
}

fn gcm(tag: u32) -> String {
    format!("{tag} AEAD_AES_128_GCM inline:{GCM_KEY}")
}

fn plain(addr: &str) -> String {
    sdp(addr, "0", &[])
}

/// The lines of a body we wrote.
fn crypto_of(body: &Bytes) -> Vec<CryptoLine> {
    RemoteAudio::parse(body, &addresses(), Preferred)
        .expect("what we write can be read")
        .crypto
}

/// An answer to our offer `body` that takes its line `at` with `key`.
fn accepting(body: &Bytes, at: usize, key: &str) -> String {
    let line = &crypto_of(body)[at];
    let value = format!("{} {} inline:{key}", line.tag, line.suite.sdes_name());
    savp("198.51.100.8:4000", &[value])
}

fn status(result: Result<(), OfferAnswerError>) -> Option<u16> {
    result.err().map(|error| error.status())
}

#[test]
fn policy_decides_what_a_caller_may_offer() {
    let secure = savp(CALLER, &[cm(1, CM_KEY)]);
    let both = format!(
        "{}m=audio 4002 RTP/SAVP 0\r\na=crypto:{}\r\n",
        plain(CALLER),
        cm(1, CM_KEY)
    );
    // offer, policy, status, whether the call is protected
    let rows = [
        ("plain", plain(CALLER), Off, None, false),
        ("plain", plain(CALLER), Preferred, None, false),
        ("plain", plain(CALLER), Required, Some(488), false),
        ("secure", secure.clone(), Off, Some(488), false),
        ("secure", secure.clone(), Preferred, None, true),
        ("secure", secure, Required, None, true),
        ("both", both.clone(), Off, None, false),
        ("both", both.clone(), Preferred, None, true),
        ("both", both, Required, None, true),
    ];
    for (name, offer, policy, refused, is_protected) in rows {
        let mut media = negotiation([policy, Off]);
        let result = media.offer_from_caller(offer.as_bytes());
        assert_eq!(status(result), refused, "{name}, {policy}");
        if refused.is_some() {
            continue;
        }
        media.offer_for_callee(local(LOCAL_B)).expect("in order");
        media
            .answer_from_callee(plain(CALLEE).as_bytes())
            .expect("an answer");
        let answer = media.answer_for_caller(local(LOCAL_A)).expect("in order");
        assert_eq!(
            crypto_of(&answer).len(),
            usize::from(is_protected),
            "{name}, {policy}"
        );
        assert_eq!(
            media.leg_config(A, None).crypto.is_some(),
            is_protected,
            "{name}, {policy}"
        );
        assert!(
            media.leg_config(B, None).crypto.is_none(),
            "{name}, {policy}"
        );
    }
}

#[test]
fn line_that_cannot_be_acted_on_is_passed_over() {
    let rows = [
        ("lifetime", format!("{}|2^31", cm(1, CM_KEY)), None),
        (
            "decimal lifetime",
            format!("{}|1048576", cm(1, CM_KEY)),
            None,
        ),
        ("window size", format!("{} WSH=128", cm(1, CM_KEY)), None),
        (
            "padded key",
            format!("1 AEAD_AES_128_GCM inline:{GCM_KEY}"),
            None,
        ),
        (
            "unpadded key",
            format!(
                "1 AEAD_AES_128_GCM inline:{}",
                GCM_KEY.trim_end_matches('=')
            ),
            None,
        ),
        (
            "name in lower case",
            cm(1, CM_KEY)
                .to_lowercase()
                .replace(&CM_KEY.to_lowercase(), CM_KEY),
            None,
        ),
        ("MKI", format!("{}|1:4", cm(1, CM_KEY)), Some(488)),
        (
            "lifetime and MKI",
            format!("{}|2^20|1:4", cm(1, CM_KEY)),
            Some(488),
        ),
        (
            "two keys",
            format!("{};inline:{OTHER_CM_KEY}", cm(1, CM_KEY)),
            Some(488),
        ),
        (
            "unencrypted",
            format!("{} UNENCRYPTED_SRTP", cm(1, CM_KEY)),
            Some(488),
        ),
        (
            "unknown suite",
            format!("1 F8_128_HMAC_SHA1_80 inline:{CM_KEY}"),
            Some(488),
        ),
        (
            "key of another suite",
            format!("1 AEAD_AES_128_GCM inline:{CM_KEY}"),
            Some(488),
        ),
        ("no key", "1 AES_CM_128_HMAC_SHA1_80".to_owned(), Some(488)),
        (
            "no tag",
            format!("x AES_CM_128_HMAC_SHA1_80 inline:{CM_KEY}"),
            Some(488),
        ),
        ("long tag", cm(1_234_567_890, CM_KEY), Some(488)),
        ("nothing", String::new(), Some(488)),
    ];
    for (name, line, refused) in rows {
        let offer = savp(CALLER, &[line]);
        let mut media = negotiation([Preferred, Off]);
        let result = media.offer_from_caller(offer.as_bytes());
        assert_eq!(status(result), refused, "{name}");
    }
}

#[test]
fn answer_takes_the_best_line_and_repeats_its_tag() {
    let offer = savp(
        CALLER,
        &[
            format!("3 AES_CM_128_HMAC_SHA1_32 inline:{CM_KEY}"),
            cm(5, OTHER_CM_KEY),
            gcm(9),
        ],
    );
    let mut media = negotiation([Required, Off]);
    media.offer_from_caller(offer.as_bytes()).expect("an offer");
    media.offer_for_callee(local(LOCAL_B)).expect("in order");
    media
        .answer_from_callee(plain(CALLEE).as_bytes())
        .expect("an answer");
    let answer = media.answer_for_caller(local(LOCAL_A)).expect("in order");
    let [line] = &crypto_of(&answer)[..] else {
        panic!("one line: {answer:?}");
    };
    assert_eq!((line.tag, line.suite), (9, SrtpSuite::AeadAes128Gcm));
    assert!(text(&answer).contains("m=audio 30000 RTP/SAVP 0"));
    let crypto = media.leg_config(A, None).crypto.expect("protected");
    assert_eq!(crypto.send, line.key, "what we send is under our key");
    let theirs: Vec<u8> = (0..28).collect();
    assert_eq!(
        crypto.receive.key_and_salt(),
        theirs,
        "what they send is under theirs"
    );
}

#[test]
fn offer_has_full_tags_only_and_a_key_of_its_own_for_each_suite() {
    let mut media = negotiation([Off, Required]);
    media
        .offer_from_caller(plain(CALLER).as_bytes())
        .expect("an offer");
    let offer = media.offer_for_callee(local(LOCAL_B)).expect("in order");
    let lines = crypto_of(&offer);
    let suites: Vec<_> = lines.iter().map(|line| line.suite.sdes_name()).collect();
    assert_eq!(
        suites,
        [
            "AEAD_AES_128_GCM",
            "AES_CM_128_HMAC_SHA1_80",
            "AEAD_AES_256_GCM",
            "AES_256_CM_HMAC_SHA1_80"
        ]
    );
    for (at, line) in lines.iter().enumerate() {
        assert!(
            lines[..at]
                .iter()
                .all(|other| other.key != line.key && other.tag != line.tag)
        );
    }
    let again = media.offer_for_callee(local(LOCAL_B)).expect("in order");
    assert!(
        crypto_of(&again).iter().all(|line| !lines.contains(line)),
        "new callee, new keys"
    );
}

#[test]
fn both_sides_protected_have_four_different_keys() {
    let mut media = negotiation([Preferred, Preferred]);
    media
        .offer_from_caller(savp(CALLER, &[cm(1, CM_KEY)]).as_bytes())
        .expect("an offer");
    let offer = media.offer_for_callee(local(LOCAL_B)).expect("in order");
    let answer = accepting(&offer, 1, OTHER_CM_KEY);
    media
        .answer_from_callee(answer.as_bytes())
        .expect("an answer");
    media.answer_for_caller(local(LOCAL_A)).expect("in order");
    let [a, b] = [A, B].map(|leg| media.leg_config(leg, None).crypto.expect("protected"));
    assert_eq!(
        (a.suite, b.suite),
        (
            SrtpSuite::AesCm128HmacSha1_80,
            SrtpSuite::AesCm128HmacSha1_80
        )
    );
    let keys = [a.send, a.receive, b.send, b.receive];
    for (at, key) in keys.iter().enumerate() {
        assert!(!keys[..at].contains(key));
    }
}

#[test]
fn answer_that_is_not_of_our_offer_is_refused() {
    let rows = [
        ("plain", plain(CALLEE)),
        ("no line", savp(CALLEE, &[])),
        ("unknown tag", savp(CALLEE, &[cm(77, CM_KEY)])),
        ("tag of another suite", savp(CALLEE, &[cm(1, CM_KEY)])),
        ("two lines", savp(CALLEE, &[gcm(1), cm(2, CM_KEY)])),
    ];
    for (name, answer) in rows {
        let mut media = negotiation([Off, Required]);
        media
            .offer_from_caller(plain(CALLER).as_bytes())
            .expect("an offer");
        media.offer_for_callee(local(LOCAL_B)).expect("in order");
        let result = media.answer_from_callee(answer.as_bytes());
        assert_eq!(status(result), Some(488), "{name}");
        assert!(media.leg_config(B, None).crypto.is_none(), "{name}");
    }
    // And keys in an answer to plain RTP protect nothing.
    let mut media = negotiation([Off, Off]);
    media
        .offer_from_caller(plain(CALLER).as_bytes())
        .expect("an offer");
    media.offer_for_callee(local(LOCAL_B)).expect("in order");
    let result = media.answer_from_callee(savp(CALLEE, &[cm(1, CM_KEY)]).as_bytes());
    assert_eq!(status(result), Some(488));
}

#[test]
fn callee_that_refuses_srtp_is_asked_again_only_where_it_is_preferred() {
    for (policy, concedes) in [(Off, false), (Preferred, true), (Required, false)] {
        let mut media = negotiation([Off, policy]);
        media
            .offer_from_caller(plain(CALLER).as_bytes())
            .expect("an offer");
        media.offer_for_callee(local(LOCAL_B)).expect("in order");
        assert_eq!(media.concede_plain_rtp(LegIndex::B), concedes, "{policy}");
        assert!(!media.concede_plain_rtp(LegIndex::B), "{policy}: once");
        if concedes {
            let offer = media.offer_for_callee(local(LOCAL_B)).expect("in order");
            assert!(crypto_of(&offer).is_empty());
            assert!(text(&offer).contains("m=audio 30002 RTP/AVP 0"));
        }
    }
}

/// A protected call on both sides: what the caller offered and what the callee answered.
fn protected() -> MediaNegotiation {
    let mut media = negotiation([Required, Required]);
    media
        .offer_from_caller(savp(CALLER, &[cm(1, CM_KEY)]).as_bytes())
        .expect("an offer");
    let offer = media.offer_for_callee(local(LOCAL_B)).expect("in order");
    let answer = accepting(&offer, 0, GCM_KEY);
    media
        .answer_from_callee(answer.as_bytes())
        .expect("an answer");
    media.answer_for_caller(local(LOCAL_A)).expect("in order");
    media
}

fn keys(media: &MediaNegotiation) -> [trunkline_edge_api::LegCrypto; 2] {
    [A, B].map(|leg| media.leg_config(leg, None).crypto.expect("protected"))
}

#[test]
fn reinvite_that_keeps_its_key_keeps_all_keys() {
    let mut media = protected();
    let before = keys(&media);
    // The caller moves and lists another suite first; its key in force is still offered.
    let moved = savp("198.51.100.7:4444", &[gcm(1), cm(4, CM_KEY)]);
    let offer = media.reoffer(A, moved.as_bytes()).expect("valid");
    let [line] = &crypto_of(&offer)[..] else {
        panic!("the line in force alone: {offer:?}");
    };
    assert_eq!((line.suite, &line.key), (before[1].suite, &before[1].send));
    let answer = media
        .reanswer(B, accepting(&offer, 0, GCM_KEY).as_bytes())
        .expect("valid");
    assert_eq!(keys(&media), before);
    assert_eq!(
        crypto_of(&answer)[0].tag,
        4,
        "the tag is that of this offer"
    );
}

#[test]
fn peer_that_changes_its_key_gets_a_new_one_of_ours() {
    let mut media = protected();
    let before = keys(&media);
    let rekeyed = savp(CALLER, &[cm(1, OTHER_CM_KEY)]);
    let offer = media.reoffer(A, rekeyed.as_bytes()).expect("valid");
    media
        .reanswer(B, accepting(&offer, 0, GCM_KEY).as_bytes())
        .expect("valid");
    let after = keys(&media);
    assert_ne!(after[0].receive, before[0].receive);
    assert_ne!(after[0].send, before[0].send);
    assert_eq!(after[1], before[1], "the other leg is not concerned");
}

#[test]
fn reinvite_down_to_plain_rtp_is_refused_where_srtp_is_required() {
    let mut media = protected();
    let before = keys(&media);
    let refused = media.reoffer(A, plain(CALLER).as_bytes());
    assert_eq!(refused, Err(OfferAnswerError::SrtpRequired));
    assert_eq!(keys(&media), before);
}

#[test]
fn keys_are_not_printed() {
    let mut media = protected();
    let offer = media
        .reoffer(A, savp(CALLER, &[cm(1, CM_KEY)]).as_bytes())
        .expect("valid");
    let printed = format!("{media:?}");
    for line in crypto_of(&offer) {
        let value = line.to_value();
        let key = value.rsplit(':').next().expect("a key");
        assert!(!printed.contains(key));
    }
    assert!(!printed.contains(CM_KEY) && printed.contains("redacted"));
}
