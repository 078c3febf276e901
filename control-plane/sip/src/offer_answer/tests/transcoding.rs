//! Which audio crosses as it is, and which is converted into what.

use trunkline_edge_api::{AudioCodec as Codec, AudioFormat, LegAudio};

use super::super::transcoding::{cheapest_pair, cost};
use super::*;

const ALL: [Codec; 4] = [Codec::Pcmu, Codec::Pcma, Codec::G722, Codec::Opus];

fn policy(codecs: &[Codec]) -> TranscodingPolicy {
    TranscodingPolicy {
        transcode: Transcode::WhenNeeded,
        codecs: codecs.to_vec(),
    }
}

fn converting(codecs: &[Codec]) -> MediaNegotiation {
    let mut media = plain_negotiation();
    for leg in LegIndex::ALL {
        media.allow_transcoding(leg, policy(codecs));
    }
    media
}

/// A stream with formats as `number name/clock`, written together: `"0 PCMU/8000, 96 opus/48000/2"`.
fn described(addr: &str, formats: &str, more: &[&str]) -> String {
    let formats: Vec<&str> = formats.split(", ").collect();
    let numbers: Vec<&str> = formats
        .iter()
        .filter_map(|format| format.split(' ').next())
        .collect();
    let maps: Vec<String> = formats
        .iter()
        .map(|format| format!("rtpmap:{format}"))
        .collect();
    let lines: Vec<&str> = maps
        .iter()
        .map(String::as_str)
        .chain(more.iter().copied())
        .collect();
    sdp(addr, &numbers.join(" "), &lines)
}

fn caller(formats: &str) -> String {
    described("198.51.100.7:4000", formats, &[])
}

fn callee(formats: &str) -> String {
    described("198.51.100.8:5000", formats, &[])
}

/// A converting call up to the caller's answer: both descriptions of ours.
fn converted(
    media: &mut MediaNegotiation,
    offer: &str,
    answer: &str,
) -> (RemoteAudio, RemoteAudio) {
    media.offer_from_caller(offer.as_bytes()).expect("an offer");
    let to_callee = media.offer_for_callee(local(LOCAL_B)).expect("in order");
    media
        .answer_from_callee(answer.as_bytes())
        .expect("an answer");
    let to_caller = media.answer_for_caller(local(LOCAL_A)).expect("in order");
    (audio_of(&to_callee), audio_of(&to_caller))
}

fn both(media: &MediaNegotiation) -> [LegAudio; 2] {
    LegIndex::ALL.map(|leg| media.leg_audio(leg).expect("a format that the edge knows"))
}

fn short(format: &AudioFormat) -> (Codec, u8, u32) {
    let (number, clock) = (format.payload_type.get(), format.clock_rate.get());
    (format.codec, number, clock)
}

#[test]
fn far_side_is_offered_the_callers_formats_first_and_then_the_list() {
    let rows: &[(&str, &[Codec], &[&str])] = &[
        (
            "0 PCMU/8000, 101 telephone-event/8000",
            &ALL,
            &[
                "0=PCMU/8000",
                "101=telephone-event/8000",
                "8=PCMA/8000",
                "9=G722/8000",
                "111=opus/48000/2",
                "110=telephone-event/48000",
            ],
        ),
        (
            "8 PCMA/8000",
            &[Codec::Opus, Codec::Pcmu],
            &[
                "8=PCMA/8000",
                "111=opus/48000/2",
                "0=PCMU/8000",
                "101=telephone-event/8000",
                "110=telephone-event/48000",
            ],
        ),
        // The wanted numbers are taken.
        (
            "111 PCMU/8000, 101 opus/48000/2",
            &[Codec::G722],
            &[
                "0=PCMU/8000",
                "101=opus/48000/2",
                "9=G722/8000",
                "96=telephone-event/8000",
                "110=telephone-event/48000",
            ],
        ),
        // Nothing to convert from: nothing is added.
        ("18 G729/8000", &ALL, &["18=G729/8000"]),
        // Nothing to convert to.
        (
            "0 PCMU/8000",
            &[],
            &["0=PCMU/8000", "101=telephone-event/8000"],
        ),
    ];
    for (offer, list, expected) in rows {
        let mut media = converting(list);
        media
            .offer_from_caller(caller(offer).as_bytes())
            .expect(offer);
        let body = media.offer_for_callee(local(LOCAL_B)).expect(offer);
        assert_eq!(formats(&audio_of(&body)), *expected, "{offer}");
    }
}

#[test]
fn one_side_that_is_off_keeps_the_call_a_relay() {
    for off in LegIndex::ALL {
        let mut media = converting(&ALL);
        media.allow_transcoding(off, TranscodingPolicy::off());
        media
            .offer_from_caller(caller("0 PCMU/8000").as_bytes())
            .expect("an offer");
        let body = media.offer_for_callee(local(LOCAL_B)).expect("in order");
        assert_eq!(formats(&audio_of(&body)), ["0=PCMU/8000"]);
        let answer = callee("9 G722/8000");
        assert_eq!(
            media.answer_from_callee(answer.as_bytes()),
            Err(OfferAnswerError::NoCommonCodec)
        );
    }
}

/// Caller's formats, callee's answer, what the caller is answered, the audio on both sides,
/// whether the edge must convert.
type Row = (
    &'static str,
    &'static str,
    &'static [&'static str],
    [&'static str; 2],
    Conversion,
);

const SETTLED: &[Row] = &[
    // A common codec is relayed, whatever else the answer has first.
    (
        "0 PCMU/8000",
        "0 PCMU/8000",
        &["0=PCMU/8000"],
        ["PCMU", "PCMU"],
        Conversion::None,
    ),
    (
        "0 PCMU/8000, 8 PCMA/8000",
        "8 PCMA/8000, 0 PCMU/8000",
        &["8=PCMA/8000", "0=PCMU/8000"],
        ["PCMA", "PCMA"],
        Conversion::None,
    ),
    // The callee may send what the caller has not: converted if it comes.
    (
        "0 PCMU/8000",
        "9 G722/8000, 0 PCMU/8000",
        &["0=PCMU/8000"],
        ["PCMU", "PCMU"],
        Conversion::Partial,
    ),
    // No common one: the cheapest pair.
    (
        "0 PCMU/8000",
        "8 PCMA/8000",
        &["0=PCMU/8000"],
        ["PCMU", "PCMA"],
        Conversion::Full,
    ),
    (
        "0 PCMU/8000",
        "111 opus/48000/2",
        &["0=PCMU/8000"],
        ["PCMU", "opus"],
        Conversion::Full,
    ),
    (
        "0 PCMU/8000, 8 PCMA/8000",
        "111 opus/48000/2, 9 G722/8000",
        &["0=PCMU/8000"],
        ["PCMU", "G722"],
        Conversion::Full,
    ),
    (
        "96 opus/48000/2, 9 G722/8000, 8 PCMA/8000",
        "0 PCMU/8000",
        &["8=PCMA/8000"],
        ["PCMA", "PCMU"],
        Conversion::Full,
    ),
    (
        "18 G729/8000, 96 opus/48000/2",
        "9 G722/8000",
        &["96=opus/48000/2"],
        ["opus", "G722"],
        Conversion::Full,
    ),
    // What is not understood is relayed.
    (
        "18 G729/8000",
        "18 G729/8000",
        &["18=G729/8000"],
        ["G729", "G729"],
        Conversion::None,
    ),
    (
        "97 speex/16000, 0 PCMU/8000",
        "97 SPEEX/16000",
        &["97=SPEEX/16000"],
        ["speex", "speex"],
        Conversion::None,
    ),
    // Events: routed at one clock, the edge's business at two or when one side has none.
    (
        "0 PCMU/8000, 96 telephone-event/8000",
        "9 G722/8000, 101 telephone-event/8000",
        &["0=PCMU/8000", "96=telephone-event/8000"],
        ["PCMU", "G722"],
        Conversion::Full,
    ),
    (
        "0 PCMU/8000, 96 telephone-event/8000",
        "111 opus/48000/2, 110 telephone-event/48000",
        &["0=PCMU/8000", "96=telephone-event/8000"],
        ["PCMU", "opus"],
        Conversion::Full,
    ),
    (
        "0 PCMU/8000, 96 telephone-event/8000",
        "0 PCMU/8000",
        &["0=PCMU/8000", "96=telephone-event/8000"],
        ["PCMU", "PCMU"],
        Conversion::Partial,
    ),
    (
        "0 PCMU/8000",
        "0 PCMU/8000, 101 telephone-event/8000",
        &["0=PCMU/8000"],
        ["PCMU", "PCMU"],
        Conversion::Partial,
    ),
    // Comfort noise is taken where the edge makes the audio, and no reason to make it.
    (
        "0 PCMU/8000, 13 CN/8000",
        "0 PCMU/8000",
        &["0=PCMU/8000"],
        ["PCMU", "PCMU"],
        Conversion::None,
    ),
    (
        "0 PCMU/8000, 13 CN/8000",
        "9 G722/8000",
        &["0=PCMU/8000", "13=CN/8000"],
        ["PCMU", "G722"],
        Conversion::Full,
    ),
];

#[test]
fn answers_settle_on_relay_or_on_the_cheapest_pair() {
    for (offer, answer, to_caller, audio, converts) in SETTLED {
        let name = format!("{offer} / {answer}");
        let mut media = converting(&ALL);
        let (_, ours) = converted(&mut media, &caller(offer), &callee(answer));
        assert_eq!(formats(&ours), *to_caller, "{name}");
        let used = LegIndex::ALL.map(|leg| media.audio(leg).expect("agreed"));
        assert!(
            used[0].name().eq_ignore_ascii_case(audio[0])
                && used[1].name().eq_ignore_ascii_case(audio[1]),
            "{name}: {used:?}"
        );
        assert_eq!(media.conversion(), *converts, "{name}");
        if *converts != Conversion::None {
            both(&media);
        }
    }
}

#[test]
fn events_are_routed_at_one_clock_beside_converted_audio() {
    let mut media = converting(&ALL);
    converted(
        &mut media,
        &caller("0 PCMU/8000, 96 telephone-event/8000"),
        &callee("9 G722/8000, 101 telephone-event/8000"),
    );
    let [a, b] = LegIndex::ALL.map(|leg| media.leg_config(leg, None));
    assert_eq!(route_numbers(&a), [(96, 101)]);
    // The callee was offered the caller's number for it and is heard under both.
    assert_eq!(route_numbers(&b), [(96, 96), (101, 96)]);
}

#[test]
fn legs_say_what_each_peer_sends_and_wants() {
    let mut media = converting(&ALL);
    let offer = described(
        "198.51.100.7:4000",
        "0 PCMU/8000, 96 telephone-event/8000, 13 CN/8000",
        &["ptime:30", "maxptime:40"],
    );
    let answer = described(
        "198.51.100.8:5000",
        "120 opus/48000/2, 121 telephone-event/48000",
        &[
            "fmtp:120 useinbandfec=1;usedtx=1;maxplaybackrate=16000;maxaveragebitrate=24000",
            "ptime:50",
        ],
    );
    let (_, to_caller) = converted(&mut media, &offer, &answer);
    assert_eq!((to_caller.ptime_ms, to_caller.maxptime_ms), (None, None));
    let [a, b] = both(&media);

    let receive: Vec<_> = a.receive.as_slice().iter().map(short).collect();
    assert_eq!(receive, [(Codec::Pcmu, 0, 8_000)]);
    assert_eq!(short(&a.send), (Codec::Pcmu, 0, 8_000));
    assert_eq!(a.send.packet_time.millis(), 30);
    let events = |events: Option<trunkline_edge_api::TelephoneEventFormat>| {
        events.map(|format| (format.payload_type.get(), format.clock_rate.get()))
    };
    assert_eq!(events(a.receive_events), Some((96, 8_000)));
    assert_eq!(events(a.send_events), Some((96, 8_000)));
    assert_eq!(a.comfort_noise.map(|number| number.get()), Some(13));

    // We offered 111 and 110, the callee writes 120 and 121: it is heard under both, and is sent
    // its own.
    let receive: Vec<_> = b.receive.as_slice().iter().map(short).collect();
    assert_eq!(
        receive,
        [(Codec::Opus, 111, 48_000), (Codec::Opus, 120, 48_000)]
    );
    assert_eq!(short(&b.send), (Codec::Opus, 120, 48_000));
    assert_eq!(events(b.receive_events), Some((110, 48_000)));
    assert_eq!(events(b.send_events), Some((121, 48_000)));
    assert_eq!(b.comfort_noise, None);
    assert_eq!(b.send.packet_time.millis(), 40, "Opus has no 50 ms");
    assert_eq!(
        b.send.opus,
        trunkline_edge_api::OpusOptions {
            in_band_fec: true,
            dtx: true,
            constant_bitrate: false,
            playback_rate_max_hz: 16_000,
            bitrate_max: 24_000,
        }
    );
}

#[test]
fn opus_caller_is_asked_for_no_more_bandwidth_than_the_far_side_has() {
    let mut media = converting(&ALL);
    media
        .offer_from_caller(caller("96 opus/48000/2").as_bytes())
        .expect("an offer");
    media.offer_for_callee(local(LOCAL_B)).expect("in order");
    media
        .answer_from_callee(callee("0 PCMU/8000").as_bytes())
        .expect("an answer");
    let body = media.answer_for_caller(local(LOCAL_A)).expect("in order");
    let fmtp = "a=fmtp:96 minptime=10;useinbandfec=1;maxplaybackrate=8000;\
                sprop-maxcapturerate=8000\r\n";
    assert!(text(&body).contains(fmtp), "{}", text(&body));
}

#[test]
fn opus_is_offered_with_the_bandwidth_of_what_it_would_be_converted_to() {
    let narrow = ";maxplaybackrate=8000;sprop-maxcapturerate=8000";
    let wide = ";maxplaybackrate=16000;sprop-maxcapturerate=16000";
    let rows = [
        ("0 PCMU/8000", narrow),
        ("9 G722/8000", wide),
        // G.711 is what it would be converted to, the cheaper of the two.
        ("9 G722/8000, 8 PCMA/8000", narrow),
        ("18 G729/8000, 0 PCMU/8000", narrow),
        ("97 L16/48000", ""),
    ];
    for (offer, bandwidth) in rows {
        let mut media = converting(&ALL);
        media
            .offer_from_caller(caller(offer).as_bytes())
            .expect("an offer");
        let body = media.offer_for_callee(local(LOCAL_B)).expect("in order");
        let fmtp = format!("a=fmtp:111 minptime=10;useinbandfec=1{bandwidth}\r\n");
        assert!(text(&body).contains(&fmtp), "{offer}: {}", text(&body));
    }
}

#[test]
fn opus_caller_without_a_far_side_is_asked_for_no_more_than_is_mixed_and_recorded() {
    let mut media = plain_negotiation();
    media
        .offer_from_caller(caller("111 opus/48000/2").as_bytes())
        .expect("an offer");
    let body = media.answer_alone(local(LOCAL_A)).expect("in order");
    let bandwidth = "maxplaybackrate=16000;sprop-maxcapturerate=16000\r\n";
    assert!(text(&body).contains(bandwidth), "{}", text(&body));
}

#[test]
fn relay_without_conversion_still_says_what_can_be_played_and_recorded() {
    let mut media = plain_negotiation();
    converted(
        &mut media,
        &caller("8 PCMA/8000, 0 PCMU/8000, 101 telephone-event/8000"),
        &callee("0 PCMU/8000, 101 telephone-event/8000"),
    );
    assert_eq!(media.conversion(), Conversion::None);
    for audio in both(&media) {
        assert_eq!(short(&audio.send), (Codec::Pcmu, 0, 8_000));
        assert!(audio.receive_events.is_some() && audio.send_events.is_some());
    }
    let mut media = plain_negotiation();
    converted(&mut media, &caller("18 G729/8000"), &callee("18 G729/8000"));
    assert_eq!(media.leg_audio(LegIndex::A), None);
}

#[test]
fn re_offer_that_finds_a_common_codec_ends_the_conversion_and_back() {
    let mut media = converting(&ALL);
    converted(&mut media, &caller("0 PCMU/8000"), &callee("9 G722/8000"));
    assert_ne!(media.conversion(), Conversion::None);

    let body = media
        .reoffer(LegIndex::B, callee("9 G722/8000, 0 PCMU/8000").as_bytes())
        .expect("an offer");
    assert_eq!(
        formats(&audio_of(&body))[..2],
        ["9=G722/8000", "0=PCMU/8000"]
    );
    let body = media
        .reanswer(LegIndex::A, caller("0 PCMU/8000").as_bytes())
        .expect("an answer");
    assert_eq!(formats(&audio_of(&body)), ["0=PCMU/8000"]);
    assert_eq!(media.conversion(), Conversion::None);
    assert_eq!(
        route_numbers(&media.leg_config(LegIndex::A, None)),
        [(0, 0)]
    );

    let hold = described("198.51.100.8:5000", "111 opus/48000/2", &["sendonly"]);
    media
        .reoffer(LegIndex::B, hold.as_bytes())
        .expect("an offer");
    let held = described("198.51.100.7:4000", "0 PCMU/8000", &["recvonly"]);
    let body = media
        .reanswer(LegIndex::A, held.as_bytes())
        .expect("an answer");
    assert_eq!(formats(&audio_of(&body)), ["111=opus/48000/2"]);
    assert_eq!(audio_of(&body).direction, Direction::RecvOnly);
    assert_ne!(media.conversion(), Conversion::None);
    let [a, b] = LegIndex::ALL.map(|leg| media.leg_config(leg, None));
    assert_eq!(a.direction, MediaDirection::SendOnly);
    assert_eq!(b.direction, MediaDirection::ReceiveOnly);
}

#[test]
fn every_pair_has_a_cost_and_the_order_of_costs_is_that_of_the_work() {
    let l16 = |hz| Encoding::L16 {
        clock_rate: trunkline_edge_api::ClockRateHz::new(hz).expect("a rate"),
    };
    let opus = Encoding::Opus;
    let cheaper = [
        (Encoding::Pcmu, Encoding::Pcma),
        (Encoding::Pcmu, l16(16_000)),
        (Encoding::Pcmu, Encoding::G722),
        (Encoding::Pcmu, opus),
        (Encoding::G722, opus),
        (l16(48_000), opus),
    ];
    let costs: Vec<u32> = cheaper
        .iter()
        .map(|(a, b)| cost(a, b).expect("the edge knows both"))
        .collect();
    assert!(costs.is_sorted_by(|a, b| a < b), "{costs:?}");
    for (a, b) in &cheaper {
        assert_eq!(cost(a, b), cost(b, a));
    }
    let g729 = audio_of(&Bytes::from(caller("18 G729/8000"))).codecs;
    assert_eq!(cost(&g729[0].encoding, &Encoding::Pcmu), None);
    assert_eq!(cheapest_pair(&g729, &g729), None);
}

#[test]
fn more_formats_than_are_read_cost_the_unknown_ones_first() {
    let mut list: Vec<String> = (96..116).map(|n| format!("{n} X{n}/8000")).collect();
    list.push("0 PCMU/8000".to_owned());
    list.push("120 telephone-event/8000".to_owned());
    let audio = audio_of(&Bytes::from(caller(&list.join(", "))));
    assert_eq!(audio.codecs.len(), 12);
    let names = formats(&audio);
    assert!(names.contains(&"0=PCMU/8000".to_owned()));
    assert!(names.contains(&"120=telephone-event/8000".to_owned()));
}

mod properties {
    use proptest::prelude::*;

    use super::super::properties::{body, generated_description};
    use super::*;

    proptest! {
        #[test]
        fn no_body_panics_where_the_edge_may_convert(
            offer in body(), answer in body(), again in body(),
        ) {
            let mut media = converting(&ALL);
            let _ = media.offer_from_caller(&offer);
            let _ = media.offer_for_callee(local(LOCAL_B));
            let _ = media.answer_from_callee(&answer);
            let _ = media.answer_for_caller(local(LOCAL_A));
            for leg in LegIndex::ALL {
                let _ = media.reoffer(leg, &again);
                let _ = media.reanswer(leg.far(), &answer);
                let _ = (media.leg_config(leg, None), media.leg_audio(leg));
            }
        }

        /// What a peer may send always arrives somehow: routed, or by way of the edge.
        #[test]
        fn nothing_in_force_is_lost(
            offer in generated_description(4000),
            answer in generated_description(5000),
        ) {
            let mut media = converting(&ALL);
            let (_, to_caller) = converted(&mut media, &offer, &answer);
            let to_callee = media.leg(LegIndex::B).agreed.clone().expect("agreed").codecs;
            for (leg, codecs) in LegIndex::ALL.into_iter().zip([to_caller.codecs, to_callee]) {
                let config = media.leg_config(leg, None);
                for codec in &codecs {
                    let mut routes = config.routes.as_slice().iter();
                    let is_routed = routes.any(|route| route.from == codec.payload_type);
                    if is_routed || matches!(codec.encoding, Encoding::ComfortNoise { .. }) {
                        continue;
                    }
                    prop_assert_ne!(media.conversion(), Conversion::None);
                    let audio = media.leg_audio(leg);
                    let Some(audio) = audio else { continue };
                    let is_known = audio.receive.find(codec.payload_type).is_some()
                        || audio.receive_events.is_some_and(|e| e.payload_type == codec.payload_type)
                        || matches!(codec.encoding, Encoding::TelephoneEvent { .. });
                    prop_assert!(is_known, "{codec:?} has no way");
                }
            }
        }
    }
}

#[test]
fn caller_answered_alone_gets_its_favourite_of_what_the_edge_knows() {
    let rows = [
        ("0 PCMU/8000, 8 PCMA/8000", vec!["0=PCMU/8000"]),
        (
            "18 G729/8000, 96 opus/48000/2, 0 PCMU/8000, 101 telephone-event/48000, 100 telephone-event/8000",
            vec!["96=opus/48000/2", "101=telephone-event/48000"],
        ),
        (
            "9 G722/8000, 101 telephone-event/8000, 13 CN/8000",
            vec!["9=G722/8000", "101=telephone-event/8000", "13=CN/8000"],
        ),
    ];
    for (offer, expected) in rows {
        let mut media = plain_negotiation();
        media
            .offer_from_caller(caller(offer).as_bytes())
            .expect(offer);
        let body = media.answer_alone(local(LOCAL_A)).expect(offer);
        assert_eq!(formats(&audio_of(&body)), expected, "{offer}");
        let config = media.leg_config(LegIndex::A, None);
        assert_eq!(config.remote_rtp, Some(addr("198.51.100.7:4000")));
        assert_eq!(config.direction, MediaDirection::SendReceive);
        assert!(config.routes.as_slice().is_empty());
        assert!(media.leg_audio(LegIndex::A).is_some());
        assert_eq!(media.conversion(), Conversion::Full);
    }
    let mut media = plain_negotiation();
    media
        .offer_from_caller(caller("18 G729/8000").as_bytes())
        .expect("an offer");
    assert_eq!(
        media.answer_alone(local(LOCAL_A)),
        Err(OfferAnswerError::NoCommonCodec)
    );
}

#[test]
fn caller_answered_alone_may_hold_and_come_back() {
    let mut media = plain_negotiation();
    media
        .offer_from_caller(caller("0 PCMU/8000").as_bytes())
        .expect("an offer");
    media.answer_alone(local(LOCAL_A)).expect("in order");
    let hold = described("198.51.100.7:4000", "0 PCMU/8000", &["sendonly"]);
    let body = media.reanswer_alone(hold.as_bytes()).expect("an offer");
    assert_eq!(audio_of(&body).direction, Direction::RecvOnly);
    assert!(media.holds(LegIndex::A));
    assert_eq!(version(&body), 2);
    let bad = caller("18 G729/8000");
    assert_eq!(
        media.reanswer_alone(bad.as_bytes()),
        Err(OfferAnswerError::NoCommonCodec)
    );
    let config = media.leg_config(LegIndex::A, None);
    assert_eq!(config.direction, MediaDirection::ReceiveOnly);
}

#[test]
fn hold_without_media_still_lets_the_held_side_hear_music() {
    for (has_music, expected) in [(false, Direction::Inactive), (true, Direction::SendOnly)] {
        let mut media = plain_negotiation();
        if has_music {
            media.keep_held_listening();
        }
        converted(&mut media, &caller("0 PCMU/8000"), &callee("0 PCMU/8000"));
        let hold = described("198.51.100.8:5000", "0 PCMU/8000", &["inactive"]);
        let body = media
            .reoffer(LegIndex::B, hold.as_bytes())
            .expect("an offer");
        assert_eq!(audio_of(&body).direction, expected);
        let listens = described("198.51.100.7:4000", "0 PCMU/8000", &["recvonly"]);
        let back = media
            .reanswer(LegIndex::A, listens.as_bytes())
            .expect("an answer");
        assert_eq!(audio_of(&back).direction, Direction::Inactive);
        assert!(media.holds(LegIndex::B) && !media.holds(LegIndex::A));
        let config = media.leg_config(LegIndex::A, None);
        assert_eq!(config.direction.sends(), has_music);
    }
}

#[test]
fn events_are_withheld_from_a_peer_whose_digits_travel_otherwise() {
    let both_have = "0 PCMU/8000, 101 telephone-event/8000";
    for (withheld, transcodes, to_callee, to_caller) in [
        (
            LegIndex::B,
            false,
            vec!["0=PCMU/8000"],
            vec!["0=PCMU/8000", "101=telephone-event/8000"],
        ),
        (
            LegIndex::A,
            false,
            vec!["0=PCMU/8000", "101=telephone-event/8000"],
            vec!["0=PCMU/8000"],
        ),
        (
            LegIndex::B,
            true,
            vec!["0=PCMU/8000"],
            vec!["0=PCMU/8000", "101=telephone-event/8000"],
        ),
    ] {
        let mut media = if transcodes {
            converting(&[])
        } else {
            plain_negotiation()
        };
        media.withhold_events(withheld);
        let (callee_sees, caller_sees) =
            converted(&mut media, &caller(both_have), &callee(both_have));
        assert_eq!(formats(&callee_sees), to_callee, "{withheld:?}");
        assert_eq!(formats(&caller_sees), to_caller, "{withheld:?}");
        assert_ne!(
            media.conversion(),
            Conversion::None,
            "events end at the edge"
        );
        let audio = media.leg_audio(withheld).expect("G.711");
        assert_eq!((audio.receive_events, audio.send_events), (None, None));
        let config = media.leg_config(withheld.far(), None);
        assert_eq!(route_numbers(&config), [(0, 0)]);
    }
}
