//! Audio through both daemons, packet by packet.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, in helpers too"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use trunkline_testkit::daemons::Daemons;
use trunkline_testkit::phone::{Phone, PhoneConfig};
use trunkline_testkit::rtp::{MediaHub, compare};
use trunkline_testkit::sdp::{AudioDescription, Codec, Direction};
use trunkline_testkit::site::{Member, Site};
use trunkline_testkit::{conversation, speech};
use trunkline_tests::call::{LIMIT, place};
use trunkline_tests::sipp_case::wait_idle;

/// Two seconds of speech.
const FRAMES: usize = 100;

fn daemons(members: u16) -> Daemons {
    Daemons::start(Site::with_members(
        (0..members).map(Member::numbered).collect(),
    ))
    .unwrap()
}

#[test]
fn speech_goes_both_ways_byte_for_byte_and_nothing_is_left_after_the_call() {
    let daemons = daemons(1);
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let call = place(&hub, &carrier, &daemons.site().members[0].did, &phone).unwrap();
    let heard = call.talk(FRAMES).unwrap();
    assert!(heard.is_perfect(), "{heard:?}");
    call.hang_up().unwrap();
    wait_idle(&daemons, LIMIT).unwrap();
}

#[test]
fn phone_over_tcp_hears_and_is_heard_and_can_hang_up() {
    let daemons = daemons(1);
    let hub = MediaHub::start().unwrap();
    let member = daemons.member(0).unwrap();
    let phone = daemons
        .registered(
            PhoneConfig::udp(&member.user, daemons.sip())
                .with_password(&member.password)
                .over_tcp(),
        )
        .unwrap();
    let carrier = daemons.carrier().unwrap();
    let call = place(&hub, &carrier, &member.did, &phone).unwrap();
    let heard = call.talk(FRAMES).unwrap();
    assert!(heard.is_perfect(), "{heard:?}");
    call.incoming.hang_up(LIMIT).unwrap();
    call.outgoing.wait_ended(LIMIT).unwrap();
    assert!(!phone.is_closed());
}

#[test]
fn phone_on_ipv6_talks_with_a_carrier_on_ipv4() {
    let daemons = daemons(1);
    let hub = MediaHub::start().unwrap();
    let member = daemons.member(0).unwrap();
    let phone = daemons
        .registered(
            PhoneConfig::udp(&member.user, daemons.sip_v6()).with_password(&member.password),
        )
        .unwrap();
    assert_eq!(phone.local_addr().ip(), IpAddr::V6(Ipv6Addr::LOCALHOST));
    let carrier = daemons.carrier().unwrap();
    let call = place(&hub, &carrier, &member.did, &phone).unwrap();
    assert!(call.incoming.remote_media().unwrap().rtp.is_ipv6());
    assert!(call.outgoing.remote_media().unwrap().rtp.is_ipv4());
    let heard = call.talk(FRAMES).unwrap();
    assert!(heard.is_perfect(), "{heard:?}");
    call.hang_up().unwrap();
}

#[test]
fn member_calls_a_member_by_extension() {
    let daemons = daemons(2);
    let hub = MediaHub::start().unwrap();
    let (one, other) = (
        daemons.member_phone(0).unwrap(),
        daemons.member_phone(1).unwrap(),
    );
    let extension = daemons.member(1).unwrap().extension.clone();
    let call = place(&hub, &one, &extension, &other).unwrap();
    let heard = call.talk(FRAMES).unwrap();
    assert!(heard.is_perfect(), "{heard:?}");
    call.hang_up().unwrap();
}

#[test]
fn caller_hears_early_media_before_the_answer() {
    let daemons = daemons(1);
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let caller_rtp = hub.endpoint(carrier.local_addr().ip()).unwrap();
    let callee_rtp = hub.endpoint(phone.local_addr().ip()).unwrap();
    let outgoing = carrier
        .call(
            &daemons.member(0).unwrap().did,
            AudioDescription::pcmu(caller_rtp.local_addr()),
        )
        .unwrap();
    let incoming = phone.wait_call(LIMIT).unwrap();
    incoming
        .progress(&AudioDescription::pcmu(callee_rtp.local_addr()))
        .unwrap();
    outgoing.wait_provisional(183, LIMIT).unwrap();
    let announcement = conversation::Party {
        call: &incoming,
        rtp: &callee_rtp,
    };
    conversation::begin(&announcement, speech::callee(), 50).unwrap();
    assert!(callee_rtp.wait_spoken(LIMIT));
    std::thread::sleep(Duration::from_millis(200));
    let heard = compare(&callee_rtp.sent(), &caller_rtp.received(), 8_000);
    assert!(heard.payload_identical && heard.lost == 0, "{heard:?}");
    outgoing.cancel();
    outgoing.wait_ended(LIMIT).unwrap();
    incoming.wait_ended(LIMIT).unwrap();
    wait_idle(&daemons, LIMIT).unwrap();
}

#[test]
fn held_phone_hears_nothing_until_the_call_is_taken_back() {
    let daemons = daemons(1);
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let call = place(&hub, &carrier, &daemons.member(0).unwrap().did, &phone).unwrap();
    assert!(call.talk(25).unwrap().is_perfect());

    let mut hold = AudioDescription::pcmu(call.caller_rtp.local_addr());
    hold.direction = Direction::Inactive;
    let answer = call.outgoing.reinvite(hold, LIMIT).unwrap();
    assert_eq!(answer.direction, Direction::Inactive);
    assert_eq!(call.incoming.reoffers()[0].direction, Direction::Inactive);
    let heard = call.talk(25).unwrap();
    assert_eq!((heard.caller.received, heard.callee.received), (0, 0));

    let back = AudioDescription::pcmu(call.caller_rtp.local_addr());
    call.outgoing.reinvite(back, LIMIT).unwrap();
    let heard = call.talk(25).unwrap();
    assert!(heard.is_perfect(), "{heard:?}");
    call.hang_up().unwrap();
}

#[test]
fn reinvite_to_another_address_moves_the_audio_and_keeps_our_port() {
    let daemons = daemons(1);
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let mut call = place(&hub, &carrier, &daemons.member(0).unwrap().did, &phone).unwrap();
    assert!(call.talk(25).unwrap().is_perfect());
    let port = call.outgoing.remote_media().unwrap().rtp;

    let moved = hub.endpoint(carrier.local_addr().ip()).unwrap();
    let answer = call
        .outgoing
        .reinvite(AudioDescription::pcmu(moved.local_addr()), LIMIT)
        .unwrap();
    assert_eq!(answer.rtp, port);
    let left = std::mem::replace(&mut call.caller_rtp, moved);
    left.clear();
    let heard = call.talk(50).unwrap();
    assert!(heard.is_perfect(), "{heard:?}");
    assert_eq!(left.received_count(), 0);
    call.hang_up().unwrap();
}

#[test]
fn codec_numbers_are_each_sides_own() {
    let daemons = daemons(1);
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let caller_rtp = hub.endpoint(carrier.local_addr().ip()).unwrap();
    let callee_rtp = hub.endpoint(phone.local_addr().ip()).unwrap();
    let mut offer = AudioDescription::pcmu(caller_rtp.local_addr());
    offer.codecs = vec![
        Codec::new(9, "G722/8000"),
        Codec::new(111, "opus/48000/2"),
        Codec::pcmu(),
        Codec::telephone_event(96),
    ];
    let outgoing = carrier
        .call(&daemons.member(0).unwrap().did, offer)
        .unwrap();
    let incoming = phone.wait_call(LIMIT).unwrap();
    let offered = incoming.remote_media().unwrap();
    let names: Vec<&str> = offered.codecs.iter().map(|c| c.rtpmap.as_str()).collect();
    assert!(names.contains(&"PCMU/8000"), "{names:?}");
    assert!(names.contains(&"opus/48000/2"), "{names:?}");

    incoming
        .answer(&AudioDescription::pcmu(callee_rtp.local_addr()))
        .unwrap();
    outgoing.wait_answered(LIMIT).unwrap();
    let answered = outgoing.remote_media().unwrap();
    let numbers: Vec<(u8, &str)> = answered
        .codecs
        .iter()
        .map(|codec| (codec.payload_type, codec.rtpmap.as_str()))
        .collect();
    assert_eq!(numbers, [(0, "PCMU/8000"), (96, "telephone-event/8000")]);
    outgoing.hang_up(LIMIT).unwrap();
}

#[test]
fn hundred_calls_at_once_lose_no_packet() {
    const CALLS: usize = 100;
    /// Four seconds, so that all calls speak at the same time for most of it.
    const FRAMES: usize = 200;
    let daemons = daemons(CALLS as u16);
    let hub = MediaHub::start().unwrap();
    let carrier = daemons.carrier().unwrap();
    let phones: Vec<Phone> = (0..CALLS)
        .map(|index| daemons.member_phone(index).unwrap())
        .collect();
    let calls: Vec<_> = phones
        .iter()
        .zip(&daemons.site().members)
        .map(|(phone, member)| place(&hub, &carrier, &member.did, phone).unwrap())
        .collect();

    for call in &calls {
        conversation::begin_both(&call.caller(), &call.callee(), FRAMES).unwrap();
    }
    let mut lost = 0;
    for (index, call) in calls.iter().enumerate() {
        let heard = conversation::finish(&call.caller(), &call.callee(), FRAMES).unwrap();
        lost += heard.caller.lost + heard.callee.lost;
        assert!(heard.is_perfect(), "call {index}: {heard:?}");
    }
    assert_eq!(lost, 0);
    for call in &calls {
        call.hang_up().unwrap();
    }
    wait_idle(&daemons, Duration::from_secs(10)).unwrap();
}

#[test]
fn stranger_who_sprays_the_media_ports_gets_nothing_and_gives_nothing() {
    let daemons = daemons(1);
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let call = place(&hub, &carrier, &daemons.member(0).unwrap().did, &phone).unwrap();
    let stranger = hub
        .endpoint(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 66)))
        .unwrap();
    // The right address with a wrong port is a stranger, too.
    let neighbour = hub.endpoint(carrier.local_addr().ip()).unwrap();
    let targets = [
        call.outgoing.remote_media().unwrap().rtp,
        call.incoming.remote_media().unwrap().rtp,
    ];

    conversation::begin_both(&call.caller(), &call.callee(), FRAMES).unwrap();
    let packet = {
        let mut packet = vec![0x80, 0, 0, 1, 0, 0, 0, 1, 0x66, 0x66, 0x66, 0x66];
        packet.extend_from_slice(&[0x55; 160]);
        packet
    };
    // Ten times the call's packet rate, for its whole length.
    for _ in 0..FRAMES {
        for _ in 0..5 {
            for target in targets {
                stranger.send_raw(target, &packet).unwrap();
                neighbour.send_raw(target, &packet).unwrap();
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let heard = conversation::finish(&call.caller(), &call.callee(), FRAMES).unwrap();
    assert!(heard.is_perfect(), "{heard:?}");
    assert_eq!(stranger.received_count() + stranger.unparsable_count(), 0);
    assert_eq!(neighbour.received_count() + neighbour.unparsable_count(), 0);
    // Once both peers were heard the kernel turned the strangers away, before any count of ours.
    daemons
        .wait_metric("trunkline_sockets_connected", &[], 2.0)
        .unwrap();
    call.hang_up().unwrap();
}
