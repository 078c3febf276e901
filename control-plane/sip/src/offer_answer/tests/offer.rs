//! Which offers are taken, and what is passed on of them.

use super::*;

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
    let plain = || pcmu(CALLER);
    let rows: Vec<(&str, String, u16)> = vec![
        ("Chrome: DTLS-SRTP only", CHROME_OFFER.to_owned(), 488),
        ("SDES only", plain().replace("RTP/AVP", "RTP/SAVP"), 488),
        ("numbers that mean nothing", sdp(CALLER, "19 77", &[]), 488),
        (
            "G.722 at the wrong clock",
            sdp(CALLER, "96", &["rtpmap:96 G722/16000"]),
            488,
        ),
        (
            "mono Opus",
            sdp(CALLER, "96", &["rtpmap:96 opus/48000"]),
            488,
        ),
        (
            "events alone",
            sdp(CALLER, "101", &["rtpmap:101 telephone-event/8000"]),
            488,
        ),
        (
            "redundancy of what is not there",
            sdp(CALLER, "96", &["rtpmap:96 red/8000"]),
            488,
        ),
        ("video only", plain().replace("m=audio", "m=video"), 488),
        (
            "audio refused",
            plain().replace("m=audio 4000", "m=audio 0"),
            488,
        ),
        ("multicast", pcmu("224.2.1.1:4000"), 488),
        ("loopback of a stranger", pcmu("127.0.0.1:4000"), 488),
        ("loopback in disguise", pcmu("[::ffff:127.0.0.1]:4000"), 488),
        ("broadcast", pcmu("255.255.255.255:4000"), 488),
        (
            "a=rtcp to multicast",
            sdp(CALLER, "0", &["rtcp:4001 IN IP4 239.1.1.1"]),
            488,
        ),
        (
            "host name",
            plain().replace("c=IN IP4 198.51.100.7", "c=IN IP4 media.example.com"),
            488,
        ),
        (
            "no c= at all",
            plain().replace("c=IN IP4 198.51.100.7\r\n", ""),
            488,
        ),
        (
            "17 lines",
            format!("{}{}", plain(), "m=audio 0 RTP/AVP 0\r\n".repeat(16)),
            488,
        ),
        ("empty", String::new(), 400),
        ("not SDP", "hello\r\n".to_owned(), 400),
        ("port beyond 65535", plain().replace("4000", "70000"), 400),
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
fn extra_lines_before_the_audio_keep_their_place() {
    let offer = format!(
        "{}m=audio 5000 RTP/SAVP 0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x\r\n\
         m=audio 5002 RTP/AVP 0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n",
        "v=0\r\no=- 1 1 IN IP4 198.51.100.7\r\ns=-\r\nc=IN IP4 198.51.100.7\r\nt=0 0\r\n"
    );
    let (media, _, to_caller) = answered(&offer, &pcmu(CALLEE));
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
