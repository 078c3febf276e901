//! What each side is told once the callee has answered.

use super::*;

#[test]
fn answer_keeps_the_callers_numbers_and_the_callees_order() {
    let callee = sdp(
        CALLER,
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
        CALLER,
        "96 99",
        &["rtpmap:96 opus/48000/2", "rtpmap:99 telephone-event/8000"],
    );
    let (_, _, to_caller) = answered(LINPHONE_OFFER, &opus_with_narrowband_events);
    assert_eq!(formats(&audio_of(&to_caller)), ["96=opus/48000/2"]);
}

#[test]
fn answer_without_a_common_codec_is_refused_and_the_earlier_answer_stays() {
    let (mut media, _, _) = answered(TELNYX_OFFER, &pcmu(CALLER));
    let before = media.leg_config(LegIndex::A, None);
    let opus = sdp(CALLER, "96", &["rtpmap:96 opus/48000/2"]);
    assert_eq!(
        media.answer_from_callee(opus.as_bytes()),
        Err(OfferAnswerError::NoCommonCodec)
    );
    assert_eq!(media.leg_config(LegIndex::A, None), before);
}

#[test]
fn repeated_answer_repeats_the_body_and_a_new_one_raises_the_version() {
    let (mut media, _, early) = answered(SIPP_OFFER, &pcmu(CALLER));
    assert_eq!(version(&early), 1);
    // The callee moves: nothing that the caller is told changes.
    media
        .answer_from_callee(pcmu("198.51.100.8:4400").as_bytes())
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
    let (mut media, _, _) = answered(SIPP_OFFER, &pcmu(CALLER));
    let to_second = media.offer_for_callee(local(30_010)).expect("in order");
    assert!(text(&to_second).starts_with("v=0\r\no=- 31467765760 1 IN IP4"));
    assert_eq!(
        media.leg_config(LegIndex::B, None).source,
        SourcePolicy::Nobody
    );
    media
        .answer_from_callee(pcmu("203.0.113.50:5000").as_bytes())
        .expect("an answer");
    let config = media.leg_config(LegIndex::B, None);
    assert_eq!(config.remote_rtp, Some(addr("203.0.113.50:5000")));
}

#[test]
fn answer_on_another_line_than_the_offer_is_refused() {
    let mut media = plain_negotiation();
    media
        .offer_from_caller(SIPP_OFFER.as_bytes())
        .expect("an offer");
    media.offer_for_callee(local(LOCAL_B)).expect("in order");
    let body = pcmu(CALLEE);
    let shifted = body.replace("m=audio", "m=audio 0 RTP/AVP 0\r\nm=audio");
    assert_eq!(
        media.answer_from_callee(shifted.as_bytes()),
        Err(OfferAnswerError::AnswerMismatch)
    );
}
