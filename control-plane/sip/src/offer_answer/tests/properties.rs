//! What must hold for any input.

use proptest::prelude::*;

use super::*;

/// Lines that make the parser go deep, mixed at random.
fn sdp_line() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("v=0".to_owned()),
        Just("o=- 1 1 IN IP4 198.51.100.7".to_owned()),
        Just("c=IN IP4 0.0.0.0".to_owned()),
        Just("c=IN IP6 ::".to_owned()),
        Just("a=rtcp-mux".to_owned()),
        "c=IN IP4 [0-9.]{1,15}",
        "m=(audio|video|x) [0-9]{1,6} (RTP/AVP|RTP/AVPF|RTP/SAVP)( [0-9]{1,3}){0,6}",
        "a=rtpmap:[0-9]{1,3} (opus/48000/2|PCMU/8000|telephone-event/[0-9]{1,6}|G722/8000)",
        "a=(fmtp|rtcp|ptime|maxptime|crypto):[ -~]{0,20}",
        "a=(sendonly|recvonly|inactive|sendrecv)",
        "[a-z]=\\PC{0,20}",
    ]
}

pub(super) fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..400),
        prop::collection::vec(sdp_line(), 0..24).prop_map(|lines| lines.join("\r\n").into_bytes()),
        // Real bodies with some bytes overwritten, Latin-1 among them.
        (
            prop::sample::select(vec![TELNYX_OFFER, LINPHONE_OFFER, CHROME_OFFER, IPV6_OFFER]),
            prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6)
        )
            .prop_map(|(base, edits)| {
                let mut body = base.as_bytes().to_vec();
                for (index, byte) in edits {
                    let at = index.index(body.len());
                    body[at] = byte;
                }
                body
            }),
    ]
}

/// Formats with the numbers and order that a generated endpoint gives them; PCMU is always one.
pub(super) fn generated_description(port: u16) -> impl Strategy<Value = String> {
    let formats = vec![
        "PCMU/8000",
        "PCMA/8000",
        "G722/8000",
        "opus/48000/2",
        "telephone-event/8000",
        "telephone-event/48000",
        "G729/8000",
        "speex/16000",
    ];
    let count = formats.len();
    let numbers: Vec<u8> = (96..128).collect();
    (
        Just(formats).prop_shuffle(),
        Just(numbers).prop_shuffle(),
        1..=count,
        any::<bool>(),
    )
        .prop_map(move |(formats, numbers, count, mux)| {
            let picked: Vec<(u8, &str)> = numbers
                .into_iter()
                .zip(formats)
                .enumerate()
                .filter(|(at, (_, format))| *at < count || *format == "PCMU/8000")
                .map(|(_, picked)| picked)
                .collect();
            let list: Vec<String> = picked
                .iter()
                .map(|(number, _)| number.to_string())
                .collect();
            let mut lines: Vec<String> = picked
                .iter()
                .map(|(number, format)| format!("rtpmap:{number} {format}"))
                .collect();
            if mux {
                lines.push("rtcp-mux".to_owned());
            }
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            sdp(&format!("198.51.100.7:{port}"), &list.join(" "), &lines)
        })
}

/// `near → far` and `far → near` are the same pairs, turned round.
fn assert_inverse(near: &LegConfig, far: &LegConfig) {
    let mut there = route_numbers(near);
    let mut back: Vec<_> = route_numbers(far)
        .iter()
        .map(|&(from, to)| (to, from))
        .collect();
    there.sort_unstable();
    back.sort_unstable();
    assert_eq!(there, back);
}

/// The same clocks run both ways, whatever numbers the endpoints gave.
fn assert_same_formats(near: &LegConfig, far: &LegConfig) {
    let clocks = |config: &LegConfig| {
        let routes = config.routes.as_slice().iter();
        // By destination: a second number that a peer is also heard under counts once.
        let mut clocks: Vec<_> = routes.map(|r| (r.to.get(), r.clock_rate.get())).collect();
        clocks.sort_unstable();
        clocks.dedup();
        let mut clocks: Vec<u32> = clocks.into_iter().map(|(_, clock)| clock).collect();
        clocks.sort_unstable();
        clocks
    };
    assert_eq!(clocks(near), clocks(far));
}

/// Answers as RFC 3264 §6.1 asks: the offer's numbers, a choice of its formats in any order, PCMU
/// among them.
fn well_behaved_answer(offer: &RemoteAudio, order: &[prop::sample::Index]) -> String {
    let mut codecs = offer.codecs.clone();
    for (at, index) in order.iter().enumerate().take(codecs.len()) {
        let other = index.index(codecs.len());
        codecs.swap(at, other);
    }
    let pcmu = codecs
        .iter()
        .find(|codec| codec.encoding == Encoding::Pcmu)
        .cloned();
    codecs.truncate(order.len());
    if codecs.iter().all(|codec| codec.encoding != Encoding::Pcmu) {
        codecs.extend(pcmu);
    }
    let numbers: Vec<String> = codecs
        .iter()
        .map(|c| c.payload_type.get().to_string())
        .collect();
    let maps: Vec<String> = codecs
        .iter()
        .map(|c| format!("rtpmap:{} {}", c.payload_type.get(), c.encoding.rtpmap()))
        .collect();
    let maps: Vec<&str> = maps.iter().map(String::as_str).collect();
    sdp("198.51.100.8:5000", &numbers.join(" "), &maps)
}

proptest! {
    #[test]
    fn no_body_panics_at_any_step(offer in body(), answer in body(), again in body()) {
        let mut media = plain_negotiation();
        let _ = media.offer_from_caller(&offer);
        let _ = media.offer_for_callee(local(LOCAL_B));
        let _ = media.answer_from_callee(&answer);
        let _ = media.answer_for_caller(local(LOCAL_A));
        for leg in LegIndex::ALL {
            let _ = media.reoffer(leg, &again);
            let _ = media.reanswer(leg.far(), &answer);
            let _ = media.leg_config(leg, None);
        }
    }

    #[test]
    fn what_we_write_can_be_read_whatever_was_offered(offer in body()) {
        let mut media = plain_negotiation();
        if media.offer_from_caller(&offer).is_ok() {
            let ours = media.offer_for_callee(local(LOCAL_B)).expect("in order");
            prop_assert!(ours.iter().all(|byte| byte.is_ascii()) || offer.iter().any(|b| !b.is_ascii()));
            prop_assert!(!text(&ours).replace("\r\n", "").contains(['\r', '\n']));
            audio_of(&ours);
        }
    }

    #[test]
    fn answers_hold_only_offered_formats(
        offer in generated_description(4000),
        answer in generated_description(5000),
        reoffer in generated_description(6000),
        reanswer in generated_description(7000),
    ) {
        let mut media = plain_negotiation();
        media.offer_from_caller(offer.as_bytes()).expect("it has PCMU");
        media.offer_for_callee(local(LOCAL_B)).expect("in order");
        media.answer_from_callee(answer.as_bytes()).expect("it has PCMU");
        let to_caller = audio_of(&media.answer_for_caller(local(LOCAL_A)).expect("answered"));
        let offered = RemoteAudio::parse(offer.as_bytes(), &addresses(), SrtpPolicy::Off).expect("accepted above");
        for codec in &to_caller.codecs {
            let theirs = codec::number_of(&offered.codecs, codec.encoding);
            prop_assert_eq!(theirs, Some(codec.payload_type));
        }
        let [a, b] = LegIndex::ALL.map(|leg| media.leg_config(leg, None));
        assert_same_formats(&a, &b);

        // The callee re-offers with numbers that may clash with anything so far.
        media.reoffer(LegIndex::B, reoffer.as_bytes()).expect("it has PCMU");
        let back = media.reanswer(LegIndex::A, reanswer.as_bytes()).expect("it has PCMU");
        let offered = RemoteAudio::parse(reoffer.as_bytes(), &addresses(), SrtpPolicy::Off).expect("accepted");
        for codec in &audio_of(&back).codecs {
            let theirs = codec::number_of(&offered.codecs, codec.encoding);
            prop_assert_eq!(theirs, Some(codec.payload_type));
        }
        let [a, b] = LegIndex::ALL.map(|leg| media.leg_config(leg, None));
        assert_same_formats(&a, &b);
    }

    #[test]
    fn routes_of_both_legs_are_inverse_when_the_answer_keeps_the_numbers(
        offer in generated_description(4000),
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..8),
        reoffer in generated_description(6000),
        reorder in prop::collection::vec(any::<prop::sample::Index>(), 1..8),
    ) {
        let mut media = plain_negotiation();
        media.offer_from_caller(offer.as_bytes()).expect("it has PCMU");
        let to_callee = audio_of(&media.offer_for_callee(local(LOCAL_B)).expect("in order"));
        let answer = well_behaved_answer(&to_callee, &order);
        media.answer_from_callee(answer.as_bytes()).expect("it has PCMU");
        media.answer_for_caller(local(LOCAL_A)).expect("answered");
        let [a, b] = LegIndex::ALL.map(|leg| media.leg_config(leg, None));
        prop_assert!(!a.routes.as_slice().is_empty());
        assert_inverse(&a, &b);

        let to_caller = media.reoffer(LegIndex::B, reoffer.as_bytes()).expect("it has PCMU");
        let answer = well_behaved_answer(&audio_of(&to_caller), &reorder);
        media.reanswer(LegIndex::A, answer.as_bytes()).expect("it has PCMU");
        let [a, b] = LegIndex::ALL.map(|leg| media.leg_config(leg, None));
        assert_inverse(&a, &b);
    }
}
