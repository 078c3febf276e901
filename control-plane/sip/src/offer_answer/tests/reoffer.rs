//! Direction, hold and whatever else changes inside a call.

use super::*;

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
            &sdp(CALLER, "0", &[offer.as_str()]),
            &sdp(CALLEE, "0", &[answer.as_str()]),
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
    let active = pcmu(CALLER);
    let held_address = active.replace("198.51.100.7", "0.0.0.0");
    let session_level = active.replace("t=0 0\r\n", "t=0 0\r\na=sendonly\r\n");
    let invalid_name = active.replace("c=IN IP4 198.51.100.7", "c=IN IP4 host.invalid");
    let rows = [
        (
            "a=sendonly",
            sdp(CALLER, "0", &["sendonly"]),
            Direction::SendOnly,
        ),
        (
            "a=inactive",
            sdp(CALLER, "0", &["inactive"]),
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
            let (mut media, _, _) = answered(SIPP_OFFER, &pcmu(CALLEE));
            let to_far = media.reoffer(from, hold.as_bytes()).expect(name);
            assert_eq!(audio_of(&to_far).direction, *expected, "{name}");
            assert_eq!(
                audio_of(&to_far).rtp.map(|rtp| rtp.ip()),
                Some(ip(OURS)),
                "{name}"
            );
            let far_answer = sdp(CALLEE, "0", &[expected.mirrored().as_str()]);
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
            let far_answer = pcmu(CALLEE);
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
    let (mut media, first, _) = answered(TELNYX_OFFER, &pcmu(CALLEE));
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
    let wrong = pcmu(CALLEE);
    assert_eq!(
        media.reanswer(LegIndex::B, wrong.as_bytes()),
        Err(OfferAnswerError::NoCommonCodec)
    );
    assert_eq!(LegIndex::ALL.map(|leg| media.leg_config(leg, None)), before);

    // A version that was refused is not used for another body.
    let next = media.reoffer(LegIndex::A, pcmu("198.51.100.9:4444").as_bytes());
    assert_eq!(version(&next.expect("valid")), version(&refused) + 1);
}

#[test]
fn reoffer_from_the_callee_keeps_each_legs_numbers_and_lines() {
    // The caller offered video too, so its leg has two lines for good; it numbers Opus 96.
    let (mut media, _, _) = answered(LINPHONE_OFFER, LINPHONE_ANSWER);
    let reoffer = sdp(
        CALLEE,
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
    let events = sdp(CALLER, "0 97", &["rtpmap:97 telephone-event/8000"]);
    let (mut media, _, _) = answered(&events, &events.replace("198.51.100.7", "198.51.100.8"));
    let opus = sdp(CALLER, "0 97", &["rtpmap:97 opus/48000/2"]);
    let to_far = media.reoffer(LegIndex::A, opus.as_bytes()).expect("valid");
    assert_eq!(
        formats(&audio_of(&to_far)),
        ["0=PCMU/8000", "96=opus/48000/2"]
    );
}
