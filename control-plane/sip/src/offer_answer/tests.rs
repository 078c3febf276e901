mod bodies;
mod properties;
mod sdes;
mod transcoding;

use std::net::{IpAddr, SocketAddr};

use sipx_sdp::Direction;
use trunkline_edge_api::{
    LegConfig, LegIndex, MediaDirection, PortRange, RtcpMode, SourceNetwork, SourceNetworks,
    SourcePolicy,
};

use super::*;
use crate::entropy::SeededEntropy;
use bodies::*;

const OURS: &str = "192.0.2.1";

fn addresses() -> MediaAddresses {
    MediaAddresses::new(&[ip(OURS).into(), ip("2001:db8::1").into()]).expect("two")
}

fn negotiation(policies: [SrtpPolicy; 2]) -> MediaNegotiation {
    MediaNegotiation::new(
        addresses(),
        policies,
        KeySource::draw(&mut SeededEntropy::new(7)),
    )
}

fn plain_negotiation() -> MediaNegotiation {
    negotiation([SrtpPolicy::Off; 2])
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address with port")
}

fn local(port: u16) -> LocalDescription {
    LocalDescription {
        rtp: SocketAddr::new(ip(OURS), port),
        rtcp: RtcpMode::Separate,
        session_id: u64::from(port) << 20,
    }
}

const LOCAL_A: u16 = 30_000;
const LOCAL_B: u16 = 30_002;

fn text(body: &Bytes) -> &str {
    std::str::from_utf8(body).expect("what we write is ASCII")
}

/// One audio line at `addr` with `formats` and the attribute lines given.
fn sdp(addr: &str, formats: &str, attributes: &[&str]) -> String {
    let addr: SocketAddr = addr.parse().expect("an address with port");
    let family = if addr.is_ipv4() { "IP4" } else { "IP6" };
    let mut body = format!(
        "v=0\r\no=- 1 1 IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP {formats}\r\n",
        ip = addr.ip(),
        port = addr.port()
    );
    for attribute in attributes {
        body.push_str(&format!("a={attribute}\r\n"));
    }
    body
}

/// A call up to the caller's answer.
fn answered(offer: &str, answer: &str) -> (MediaNegotiation, Bytes, Bytes) {
    let mut media = plain_negotiation();
    media.offer_from_caller(offer.as_bytes()).expect("an offer");
    let to_callee = media.offer_for_callee(local(LOCAL_B)).expect("in order");
    media
        .answer_from_callee(answer.as_bytes())
        .expect("an answer");
    let to_caller = media.answer_for_caller(local(LOCAL_A)).expect("in order");
    (media, to_callee, to_caller)
}

fn audio_of(body: &Bytes) -> RemoteAudio {
    RemoteAudio::parse(body, &addresses(), SrtpPolicy::Off).expect("what we write can be read")
}

/// `payload type=encoding` in order, for short tables.
fn formats(audio: &RemoteAudio) -> Vec<String> {
    let format =
        |codec: &AudioCodec| format!("{}={}", codec.payload_type.get(), codec.encoding.rtpmap());
    audio.codecs.iter().map(format).collect()
}

fn route_numbers(config: &LegConfig) -> Vec<(u8, u8)> {
    let routes = config.routes.as_slice().iter();
    routes
        .map(|route| (route.from.get(), route.to.get()))
        .collect()
}

fn version(body: &Bytes) -> u64 {
    let session = sipx_sdp::parse(text(body)).expect("what we write can be read");
    session.origin.session_version
}

#[test]
fn real_offers_are_read_and_what_can_cross_is_passed_on() {
    let rows: &[(&str, &str, &str, &[&str])] = &[
        (
            "Twilio",
            TWILIO_OFFER,
            "168.86.128.7:15342",
            &["0=PCMU/8000", "101=telephone-event/8000"],
        ),
        (
            "Telnyx",
            TELNYX_OFFER,
            "198.51.100.40:21886",
            &[
                "9=G722/8000",
                "0=PCMU/8000",
                "8=PCMA/8000",
                "18=G729/8000",
                "101=telephone-event/8000",
                "13=CN/8000",
            ],
        ),
        ("SIPp", SIPP_OFFER, "203.0.113.9:6000", &["0=PCMU/8000"]),
        (
            "Linphone",
            LINPHONE_OFFER,
            "203.0.113.20:7078",
            &[
                "96=opus/48000/2",
                "97=speex/16000",
                "98=speex/8000",
                "0=PCMU/8000",
                "8=PCMA/8000",
                "9=G722/8000",
                "101=telephone-event/48000",
                "99=telephone-event/8000",
            ],
        ),
        (
            "IPv6 phone",
            IPV6_OFFER,
            "[2001:db8::77]:4000",
            &["8=PCMA/8000", "97=telephone-event/8000"],
        ),
    ];
    for (name, offer, rtp, expected) in rows {
        let mut media = plain_negotiation();
        media.offer_from_caller(offer.as_bytes()).expect(name);
        let caller =
            RemoteAudio::parse(offer.as_bytes(), &addresses(), SrtpPolicy::Off).expect(name);
        assert_eq!(caller.rtp, Some(addr(rtp)), "{name}");
        let forwarded = audio_of(&media.offer_for_callee(local(LOCAL_B)).expect(name));
        assert_eq!(formats(&forwarded), *expected, "{name}");
        assert_eq!(
            forwarded.rtp,
            Some(SocketAddr::new(ip(OURS), LOCAL_B)),
            "{name}"
        );
        assert!(forwarded.rtcp_mux, "{name}");
        assert_eq!(
            forwarded.rtcp.map(|rtcp| rtcp.port()),
            Some(LOCAL_B + 1),
            "{name}"
        );
    }
}

#[test]
fn unusable_offers_are_refused_with_the_right_status() {
    let pcmu = |attributes: &[&str]| sdp("198.51.100.7:4000", "0", attributes);
    let at = |rtp: &str| sdp(rtp, "0", &[]);
    let rows: Vec<(&str, String, u16)> = vec![
        ("Chrome: DTLS-SRTP only", CHROME_OFFER.to_owned(), 488),
        ("SDES only", pcmu(&[]).replace("RTP/AVP", "RTP/SAVP"), 488),
        (
            "numbers that mean nothing",
            sdp("198.51.100.7:4000", "19 77", &[]),
            488,
        ),
        (
            "G.722 at the wrong clock",
            sdp("198.51.100.7:4000", "96", &["rtpmap:96 G722/16000"]),
            488,
        ),
        (
            "mono Opus",
            sdp("198.51.100.7:4000", "96", &["rtpmap:96 opus/48000"]),
            488,
        ),
        (
            "events alone",
            sdp(
                "198.51.100.7:4000",
                "101",
                &["rtpmap:101 telephone-event/8000"],
            ),
            488,
        ),
        (
            "redundancy of what is not there",
            sdp("198.51.100.7:4000", "96", &["rtpmap:96 red/8000"]),
            488,
        ),
        ("video only", pcmu(&[]).replace("m=audio", "m=video"), 488),
        (
            "audio refused",
            pcmu(&[]).replace("m=audio 4000", "m=audio 0"),
            488,
        ),
        ("multicast", at("224.2.1.1:4000"), 488),
        ("loopback of a stranger", at("127.0.0.1:4000"), 488),
        ("loopback in disguise", at("[::ffff:127.0.0.1]:4000"), 488),
        ("broadcast", at("255.255.255.255:4000"), 488),
        (
            "a=rtcp to multicast",
            pcmu(&["rtcp:4001 IN IP4 239.1.1.1"]),
            488,
        ),
        (
            "host name",
            pcmu(&[]).replace("c=IN IP4 198.51.100.7", "c=IN IP4 media.example.com"),
            488,
        ),
        (
            "no c= at all",
            pcmu(&[]).replace("c=IN IP4 198.51.100.7\r\n", ""),
            488,
        ),
        (
            "17 lines",
            format!("{}{}", pcmu(&[]), "m=audio 0 RTP/AVP 0\r\n".repeat(16)),
            488,
        ),
        ("empty", String::new(), 400),
        ("not SDP", "hello\r\n".to_owned(), 400),
        ("port beyond 65535", pcmu(&[]).replace("4000", "70000"), 400),
    ];
    for (name, offer, status) in rows {
        let mut media = plain_negotiation();
        let result = media.offer_from_caller(offer.as_bytes());
        assert_eq!(
            result.map_err(|error| error.status()),
            Err(status),
            "{name}"
        );
    }
}

#[test]
fn loopback_and_one_family_follow_from_our_own_addresses() {
    let loopback = MediaAddresses::new(&[ip("127.0.0.1").into()]).expect("one");
    let offer = sdp("127.0.0.1:4000", "0", &[]);
    assert!(RemoteAudio::parse(offer.as_bytes(), &loopback, SrtpPolicy::Off).is_ok());
    assert_eq!(
        RemoteAudio::parse(IPV6_OFFER.as_bytes(), &loopback, SrtpPolicy::Off),
        Err(OfferAnswerError::AddressFamily(ip("2001:db8::77")))
    );
    assert_eq!(MediaAddresses::new(&[]), None);
}

#[test]
fn caller_leg_binds_the_family_of_the_offer() {
    for (offer, expected) in [(IPV6_OFFER, "2001:db8::1"), (TWILIO_OFFER, OURS)] {
        let mut media = plain_negotiation();
        media.offer_from_caller(offer.as_bytes()).expect("an offer");
        let [caller, callee] = media.settle_addresses([ip("192.0.2.9"), ip("192.0.2.9")]);
        assert_eq!(caller.address, ip(expected));
        assert_eq!(callee.address, ip(OURS));
    }
}

#[test]
fn answer_keeps_the_callers_numbers_and_the_callees_order() {
    let callee = sdp(
        "198.51.100.7:4000",
        "8 0 120",
        &[
            "rtpmap:120 telephone-event/8000",
            "fmtp:120 0-16",
            "ptime:30",
        ],
    );
    let (media, to_callee, to_caller) = answered(TELNYX_OFFER, &callee);
    let answer = audio_of(&to_caller);
    assert_eq!(
        formats(&answer),
        ["8=PCMA/8000", "0=PCMU/8000", "101=telephone-event/8000"]
    );
    assert_eq!(answer.ptime_ms, Some(30));
    assert_eq!(audio_of(&to_callee).ptime_ms, Some(20));
    assert!(
        text(&to_caller).contains("a=fmtp:101 0-16\r\n"),
        "{}",
        text(&to_caller)
    );

    // The callee numbered events 120 although 101 was offered: 101 is what it should send, 120
    // what it must be sent, and what it may well send too.
    let to_b = media.leg_config(LegIndex::A, None);
    let to_a = media.leg_config(LegIndex::B, None);
    assert_eq!(route_numbers(&to_b), [(8, 8), (0, 0), (101, 120)]);
    assert_eq!(
        route_numbers(&to_a),
        [(0, 0), (8, 8), (101, 101), (120, 101)]
    );
}

#[test]
fn descriptions_are_ours_alone() {
    let (_, to_callee, to_caller) = answered(LINPHONE_OFFER, LINPHONE_ANSWER);
    assert_eq!(
        text(&to_callee),
        "v=0\r\n\
         o=- 31459377152 1 IN IP4 192.0.2.1\r\n\
         s=-\r\n\
         c=IN IP4 192.0.2.1\r\n\
         t=0 0\r\n\
         m=audio 30002 RTP/AVP 96 97 98 0 8 9 101 99\r\n\
         a=rtpmap:96 opus/48000/2\r\n\
         a=fmtp:96 useinbandfec=1\r\n\
         a=rtpmap:97 speex/16000\r\n\
         a=fmtp:97 vbr=on\r\n\
         a=rtpmap:98 speex/8000\r\n\
         a=fmtp:98 vbr=on\r\n\
         a=rtpmap:0 PCMU/8000\r\n\
         a=rtpmap:8 PCMA/8000\r\n\
         a=rtpmap:9 G722/8000\r\n\
         a=rtpmap:101 telephone-event/48000\r\n\
         a=rtpmap:99 telephone-event/8000\r\n\
         a=sendrecv\r\n\
         a=rtcp:30003\r\n\
         a=rtcp-mux\r\n"
    );
    assert_eq!(
        text(&to_caller),
        "v=0\r\n\
         o=- 31457280000 1 IN IP4 192.0.2.1\r\n\
         s=-\r\n\
         c=IN IP4 192.0.2.1\r\n\
         t=0 0\r\n\
         m=audio 30000 RTP/AVP 96 101\r\n\
         a=rtpmap:96 opus/48000/2\r\n\
         a=fmtp:96 useinbandfec=1\r\n\
         a=rtpmap:101 telephone-event/48000\r\n\
         a=sendrecv\r\n\
         a=rtcp:30001\r\n\
         m=video 0 RTP/AVP 97\r\n"
    );
}

#[test]
fn events_are_dropped_when_their_clock_is_not_that_of_the_audio() {
    let opus_with_narrowband_events = sdp(
        "198.51.100.7:4000",
        "96 99",
        &["rtpmap:96 opus/48000/2", "rtpmap:99 telephone-event/8000"],
    );
    let (_, _, to_caller) = answered(LINPHONE_OFFER, &opus_with_narrowband_events);
    assert_eq!(formats(&audio_of(&to_caller)), ["96=opus/48000/2"]);
}

#[test]
fn answer_without_a_common_codec_is_refused_and_the_earlier_answer_stays() {
    let (mut media, _, _) = answered(TELNYX_OFFER, &sdp("198.51.100.7:4000", "0", &[]));
    let before = media.leg_config(LegIndex::A, None);
    let opus = sdp("198.51.100.7:4000", "96", &["rtpmap:96 opus/48000/2"]);
    assert_eq!(
        media.answer_from_callee(opus.as_bytes()),
        Err(OfferAnswerError::NoCommonCodec)
    );
    assert_eq!(media.leg_config(LegIndex::A, None), before);
}

#[test]
fn repeated_answer_repeats_the_body_and_a_new_one_raises_the_version() {
    let (mut media, _, early) = answered(SIPP_OFFER, &sdp("198.51.100.7:4000", "0", &[]));
    assert_eq!(version(&early), 1);
    // The callee moves: nothing that the caller is told changes.
    media
        .answer_from_callee(sdp("198.51.100.8:4400", "0", &[]).as_bytes())
        .expect("an answer");
    assert_eq!(
        media.answer_for_caller(local(LOCAL_A)).expect("answered"),
        early
    );
    assert_eq!(
        media.leg_config(LegIndex::B, None).remote_rtp,
        Some(addr("198.51.100.8:4400"))
    );
    media
        .answer_from_callee(sdp("198.51.100.8:4400", "0", &["ptime:30"]).as_bytes())
        .expect("an answer");
    let changed = media.answer_for_caller(local(LOCAL_A)).expect("answered");
    assert_eq!(version(&changed), 2);
}

#[test]
fn next_callee_gets_a_session_of_its_own() {
    let (mut media, _, _) = answered(SIPP_OFFER, &sdp("198.51.100.7:4000", "0", &[]));
    let to_second = media.offer_for_callee(local(30_010)).expect("in order");
    assert!(text(&to_second).starts_with("v=0\r\no=- 31467765760 1 IN IP4"));
    assert_eq!(
        media.leg_config(LegIndex::B, None).source,
        SourcePolicy::Nobody
    );
    media
        .answer_from_callee(sdp("203.0.113.50:5000", "0", &[]).as_bytes())
        .expect("an answer");
    let config = media.leg_config(LegIndex::B, None);
    assert_eq!(config.remote_rtp, Some(addr("203.0.113.50:5000")));
}

#[test]
fn direction_crosses_the_call_unmirrored_and_the_edge_sees_both_legs() {
    use Direction::{Inactive, RecvOnly, SendOnly, SendRecv};
    use MediaDirection as Edge;
    // offer, callee's answer, answer to the caller, edge's view of A and of B
    let rows = [
        (
            SendRecv,
            SendRecv,
            SendRecv,
            Edge::SendReceive,
            Edge::SendReceive,
        ),
        (
            SendOnly,
            RecvOnly,
            RecvOnly,
            Edge::ReceiveOnly,
            Edge::SendOnly,
        ),
        (
            RecvOnly,
            SendOnly,
            SendOnly,
            Edge::SendOnly,
            Edge::ReceiveOnly,
        ),
        (
            SendRecv,
            SendOnly,
            SendOnly,
            Edge::SendOnly,
            Edge::ReceiveOnly,
        ),
        (SendRecv, Inactive, Inactive, Edge::Inactive, Edge::Inactive),
        (Inactive, Inactive, Inactive, Edge::Inactive, Edge::Inactive),
        // An answer that claims more than the offer allows is cut down (RFC 3264 §6.1).
        (
            SendOnly,
            SendRecv,
            RecvOnly,
            Edge::ReceiveOnly,
            Edge::SendOnly,
        ),
        (Inactive, SendRecv, Inactive, Edge::Inactive, Edge::Inactive),
    ];
    for (offer, answer, expected, edge_a, edge_b) in rows {
        let name = format!("{offer:?} answered {answer:?}");
        let (media, to_callee, to_caller) = answered(
            &sdp("198.51.100.7:4000", "0", &[offer.as_str()]),
            &sdp("198.51.100.8:4000", "0", &[answer.as_str()]),
        );
        assert_eq!(audio_of(&to_callee).direction, offer, "{name}");
        assert_eq!(audio_of(&to_caller).direction, expected, "{name}");
        assert_eq!(
            media.leg_config(LegIndex::A, None).direction,
            edge_a,
            "{name}"
        );
        assert_eq!(
            media.leg_config(LegIndex::B, None).direction,
            edge_b,
            "{name}"
        );
    }
}

#[test]
fn every_dialect_of_hold_reaches_the_far_leg_and_is_undone() {
    let active = sdp("198.51.100.7:4000", "0", &[]);
    let held_address = active.replace("198.51.100.7", "0.0.0.0");
    let session_level = active.replace("t=0 0\r\n", "t=0 0\r\na=sendonly\r\n");
    let invalid_name = active.replace("c=IN IP4 198.51.100.7", "c=IN IP4 host.invalid");
    let rows = [
        (
            "a=sendonly",
            sdp("198.51.100.7:4000", "0", &["sendonly"]),
            Direction::SendOnly,
        ),
        (
            "a=inactive",
            sdp("198.51.100.7:4000", "0", &["inactive"]),
            Direction::Inactive,
        ),
        ("session level", session_level, Direction::SendOnly),
        ("c=0.0.0.0", held_address.clone(), Direction::SendOnly),
        (
            "c=0.0.0.0 and inactive",
            format!("{held_address}a=inactive\r\n"),
            Direction::Inactive,
        ),
        (
            "c=0.0.0.0 and recvonly",
            format!("{held_address}a=recvonly\r\n"),
            Direction::Inactive,
        ),
        (".invalid", invalid_name, Direction::SendOnly),
    ];
    for from in LegIndex::ALL {
        for (name, hold, expected) in &rows {
            let (mut media, _, _) = answered(SIPP_OFFER, &sdp("198.51.100.8:4000", "0", &[]));
            let to_far = media.reoffer(from, hold.as_bytes()).expect(name);
            assert_eq!(audio_of(&to_far).direction, *expected, "{name}");
            assert_eq!(
                audio_of(&to_far).rtp.map(|rtp| rtp.ip()),
                Some(ip(OURS)),
                "{name}"
            );
            let far_answer = sdp("198.51.100.8:4000", "0", &[expected.mirrored().as_str()]);
            let back = media
                .reanswer(from.far(), far_answer.as_bytes())
                .expect(name);
            assert_eq!(audio_of(&back).direction, expected.mirrored(), "{name}");
            assert!(!media.leg_config(from, None).direction.sends(), "{name}");
            if name.starts_with("c=") {
                assert_eq!(
                    media.leg_config(from, None).source,
                    SourcePolicy::Nobody,
                    "{name}"
                );
            }

            let to_far = media.reoffer(from, active.as_bytes()).expect(name);
            assert_eq!(audio_of(&to_far).direction, Direction::SendRecv, "{name}");
            let far_answer = sdp("198.51.100.8:4000", "0", &[]);
            media
                .reanswer(from.far(), far_answer.as_bytes())
                .expect(name);
            let config = media.leg_config(from, None);
            assert_eq!(config.direction, MediaDirection::SendReceive, "{name}");
            assert_eq!(config.remote_rtp, Some(addr("198.51.100.7:4000")), "{name}");
        }
    }
}

#[test]
fn refused_reoffer_leaves_what_was_agreed() {
    let (mut media, first, _) = answered(TELNYX_OFFER, &sdp("198.51.100.8:4000", "0", &[]));
    let before = LegIndex::ALL.map(|leg| media.leg_config(leg, None));
    let new_codec = sdp("198.51.100.9:4444", "8", &["sendonly"]);

    let refused = media
        .reoffer(LegIndex::A, new_codec.as_bytes())
        .expect("valid");
    assert_eq!(version(&refused), version(&first) + 1);
    assert_eq!(
        media
            .reoffer(LegIndex::B, new_codec.as_bytes())
            .map_err(|error| error.status()),
        Err(491)
    );
    media.abandon_reoffer();
    assert_eq!(LegIndex::ALL.map(|leg| media.leg_config(leg, None)), before);

    // The far leg answers with something else than it was offered.
    media
        .reoffer(LegIndex::A, new_codec.as_bytes())
        .expect("valid");
    let wrong = sdp("198.51.100.8:4000", "0", &[]);
    assert_eq!(
        media.reanswer(LegIndex::B, wrong.as_bytes()),
        Err(OfferAnswerError::NoCommonCodec)
    );
    assert_eq!(LegIndex::ALL.map(|leg| media.leg_config(leg, None)), before);

    // A version that was refused is not used for another body.
    let next = media.reoffer(LegIndex::A, sdp("198.51.100.9:4444", "0", &[]).as_bytes());
    assert_eq!(version(&next.expect("valid")), version(&refused) + 1);
}

#[test]
fn reoffer_from_the_callee_keeps_each_legs_numbers_and_lines() {
    // The caller offered video too, so its leg has two lines for good; it numbers Opus 96.
    let (mut media, _, _) = answered(LINPHONE_OFFER, LINPHONE_ANSWER);
    let reoffer = sdp(
        "198.51.100.8:4000",
        "0 111 96",
        &["rtpmap:111 opus/48000/2", "rtpmap:96 telephone-event/8000"],
    );
    let to_caller = media
        .reoffer(LegIndex::B, reoffer.as_bytes())
        .expect("valid");
    assert_eq!(
        formats(&audio_of(&to_caller)),
        ["0=PCMU/8000", "96=opus/48000/2", "99=telephone-event/8000"]
    );
    assert!(text(&to_caller).ends_with("m=video 0 RTP/AVP 97\r\n"));
    assert_eq!(version(&to_caller), 2);

    let answer = sdp(
        "203.0.113.20:7078",
        "96 0 99",
        &["rtpmap:96 opus/48000/2", "rtpmap:99 telephone-event/8000"],
    );
    let answer = answer + "m=video 0 RTP/AVP 97\r\n";
    let to_callee = media
        .reanswer(LegIndex::A, answer.as_bytes())
        .expect("valid");
    assert_eq!(
        formats(&audio_of(&to_callee)),
        ["111=opus/48000/2", "0=PCMU/8000", "96=telephone-event/8000"]
    );
    assert_eq!(
        route_numbers(&media.leg_config(LegIndex::B, None)),
        [(111, 96), (0, 0), (96, 99)]
    );
    assert_eq!(
        route_numbers(&media.leg_config(LegIndex::A, None)),
        [(0, 0), (96, 111), (99, 96)]
    );
}

#[test]
fn dynamic_number_of_a_leg_is_not_given_to_another_format() {
    // 97 is Opus on leg A; on leg B it already means events when Opus comes along.
    let events = sdp(
        "198.51.100.7:4000",
        "0 97",
        &["rtpmap:97 telephone-event/8000"],
    );
    let (mut media, _, _) = answered(&events, &events.replace("198.51.100.7", "198.51.100.8"));
    let opus = sdp("198.51.100.7:4000", "0 97", &["rtpmap:97 opus/48000/2"]);
    let to_far = media.reoffer(LegIndex::A, opus.as_bytes()).expect("valid");
    assert_eq!(
        formats(&audio_of(&to_far)),
        ["0=PCMU/8000", "96=opus/48000/2"]
    );
}

#[test]
fn rtcp_goes_where_each_leg_agreed() {
    let mux = ["rtcp-mux"];
    let rows: &[(&str, &[&str], Option<&str>)] = &[
        ("port above", &[], Some("198.51.100.7:4001")),
        (
            "a=rtcp with port",
            &["rtcp:4711"],
            Some("198.51.100.7:4711"),
        ),
        (
            "a=rtcp with address",
            &["rtcp:4711 IN IP4 198.51.100.99"],
            Some("198.51.100.99:4711"),
        ),
        ("none", &["rtcp:0"], None),
        ("muxed", &mux, Some("198.51.100.7:4000")),
        (
            "muxed with fallback",
            &["rtcp:4001", "rtcp-mux"],
            Some("198.51.100.7:4000"),
        ),
    ];
    for (name, attributes, rtcp) in rows {
        let (media, _, to_caller) = answered(
            &sdp("198.51.100.7:4000", "0", attributes),
            &sdp("198.51.100.8:4000", "0", &[]),
        );
        let a = media.leg_config(LegIndex::A, None);
        assert_eq!(a.remote_rtcp, rtcp.map(addr), "{name}");
        let b = media.leg_config(LegIndex::B, None);
        assert_eq!(b.remote_rtcp, Some(addr("198.51.100.8:4001")), "{name}");
        assert_eq!(
            audio_of(&to_caller).rtcp_mux,
            attributes.contains(&"rtcp-mux"),
            "{name}"
        );
    }
}

#[test]
fn source_policy_is_exact_unless_the_peer_is_behind_nat() {
    let mut media = plain_negotiation();
    let silent = media.leg_config(LegIndex::A, None);
    assert_eq!(
        (silent.source.clone(), silent.direction),
        (SourcePolicy::Nobody, MediaDirection::Inactive)
    );
    media
        .offer_from_caller(SIPP_OFFER.as_bytes())
        .expect("an offer");
    media.offer_for_callee(local(LOCAL_B)).expect("in order");
    for leg in LegIndex::ALL {
        assert_eq!(
            media.leg_config(leg, None),
            silent,
            "nobody is heard before the answer"
        );
    }
    media
        .answer_from_callee(sdp("198.51.100.8:4000", "0", &[]).as_bytes())
        .expect("an answer");
    assert_eq!(
        media.leg_config(LegIndex::A, None).source,
        SourcePolicy::Exact
    );
    assert_eq!(
        media
            .leg_config(LegIndex::B, Some(ip("198.51.100.200")))
            .source,
        SourcePolicy::LearnPort {
            ip: ip("198.51.100.200")
        }
    );
    let network = SourceNetwork::new(ip("203.0.113.0"), 24).expect("a network");
    let networks = SourceNetworks::new(&[network]).expect("one");
    media.accept_media_from(LegIndex::A, networks.clone());
    assert_eq!(
        media.leg_config(LegIndex::A, None).source,
        SourcePolicy::Networks(networks)
    );
    assert_eq!(
        media.leg_config(LegIndex::B, None).source,
        SourcePolicy::Exact,
        "the other leg's peer is not listed"
    );
}

#[test]
fn peer_that_names_any_of_our_media_sockets_is_refused() {
    let ports = PortRange::new(30_000, 30_099).expect("a range");
    let ours = addresses().with_ports(ports);
    let rows = [
        ("192.0.2.1:30000", true),
        ("192.0.2.1:30098", true),
        ("192.0.2.1:30100", false),
        ("192.0.2.1:29998", false),
        ("192.0.2.2:30000", false),
    ];
    for (named, is_refused) in rows {
        let offer = sdp(named, "0", &[]);
        let parsed = RemoteAudio::parse(offer.as_bytes(), &ours, SrtpPolicy::Off);
        let refusal = Err(OfferAnswerError::AddressRefused(
            named.parse().expect("an address"),
        ));
        assert_eq!(parsed.map(|_| ()) == refusal, is_refused, "{named}");
    }
}

#[test]
fn peer_that_names_our_own_socket_is_refused() {
    let mut media = plain_negotiation();
    media
        .offer_from_caller(SIPP_OFFER.as_bytes())
        .expect("an offer");
    media.offer_for_callee(local(LOCAL_B)).expect("in order");
    let ours = sdp("192.0.2.1:30002", "0", &[]);
    assert_eq!(
        media.answer_from_callee(ours.as_bytes()),
        Err(OfferAnswerError::AddressRefused(addr("192.0.2.1:30002")))
    );
    let rtcp = sdp("198.51.100.8:4000", "0", &["rtcp:30003 IN IP4 192.0.2.1"]);
    assert_eq!(
        media.answer_from_callee(rtcp.as_bytes()),
        Err(OfferAnswerError::AddressRefused(addr("192.0.2.1:30003")))
    );
}

#[test]
fn extra_lines_before_the_audio_keep_their_place() {
    let offer = format!(
        "{}m=audio 5000 RTP/SAVP 0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x\r\n\
         m=audio 5002 RTP/AVP 0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n",
        "v=0\r\no=- 1 1 IN IP4 198.51.100.7\r\ns=-\r\nc=IN IP4 198.51.100.7\r\nt=0 0\r\n"
    );
    let (media, _, to_caller) = answered(&offer, &sdp("198.51.100.8:4000", "0", &[]));
    let lines: Vec<_> = text(&to_caller)
        .lines()
        .filter(|line| line.starts_with("m="))
        .collect();
    assert_eq!(
        lines,
        [
            "m=audio 0 RTP/SAVP 0",
            "m=audio 30000 RTP/AVP 0",
            "m=application 0 UDP/DTLS/SCTP webrtc-datachannel"
        ]
    );
    let config = media.leg_config(LegIndex::A, None);
    assert_eq!(config.remote_rtp, Some(addr("198.51.100.7:5002")));
}

#[test]
fn answer_on_another_line_than_the_offer_is_refused() {
    let mut media = plain_negotiation();
    media
        .offer_from_caller(SIPP_OFFER.as_bytes())
        .expect("an offer");
    media.offer_for_callee(local(LOCAL_B)).expect("in order");
    let body = sdp("198.51.100.8:4000", "0", &[]);
    let shifted = body.replace("m=audio", "m=audio 0 RTP/AVP 0\r\nm=audio");
    assert_eq!(
        media.answer_from_callee(shifted.as_bytes()),
        Err(OfferAnswerError::AnswerMismatch)
    );
}

#[test]
fn steps_out_of_order_are_refused_and_harmless() {
    let body = sdp("198.51.100.8:4000", "0", &[]);
    let mut media = plain_negotiation();
    let out_of_order = Err(OfferAnswerError::OutOfOrder);
    assert_eq!(media.offer_for_callee(local(LOCAL_B)), out_of_order);
    assert_eq!(
        media.answer_from_callee(body.as_bytes()),
        Err(OfferAnswerError::OutOfOrder)
    );
    assert_eq!(media.answer_for_caller(local(LOCAL_A)), out_of_order);
    assert_eq!(media.reoffer(LegIndex::A, body.as_bytes()), out_of_order);
    assert_eq!(media.reanswer(LegIndex::B, body.as_bytes()), out_of_order);
    media.abandon_reoffer();
    assert_eq!(media.offer_from_caller(body.as_bytes()), Ok(()));
}
