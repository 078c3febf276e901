//! Which address a leg has, whom it hears, and where it never sends.

use super::*;

#[test]
fn loopback_and_one_family_follow_from_our_own_addresses() {
    let loopback = MediaAddresses::new(&[ip("127.0.0.1").into()]).expect("one");
    let offer = pcmu("127.0.0.1:4000");
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
        let (media, _, to_caller) = answered(&sdp(CALLER, "0", attributes), &pcmu(CALLEE));
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
        .answer_from_callee(pcmu(CALLEE).as_bytes())
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
        let offer = pcmu(named);
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
    let ours = pcmu("192.0.2.1:30002");
    assert_eq!(
        media.answer_from_callee(ours.as_bytes()),
        Err(OfferAnswerError::AddressRefused(addr("192.0.2.1:30002")))
    );
    let rtcp = sdp(CALLEE, "0", &["rtcp:30003 IN IP4 192.0.2.1"]);
    assert_eq!(
        media.answer_from_callee(rtcp.as_bytes()),
        Err(OfferAnswerError::AddressRefused(addr("192.0.2.1:30003")))
    );
}

/// An address behind a 1:1 NAT with two names, one on each side, and one of each family beside it.
fn several() -> MediaAddresses {
    let entry = |name: &str, address: &str, advertise: &str| MediaAddress {
        name: name.to_owned(),
        address: ip(address),
        advertise: ip(advertise),
    };
    MediaAddresses::new(&[
        entry("inside", "10.0.0.5", "10.0.0.5"),
        entry("outside", "10.0.0.5", "203.0.113.5"),
        entry("other", "192.0.2.1", "192.0.2.1"),
        entry("six", "2001:db8::1", "2001:db8::1"),
    ])
    .expect("several")
    .with_ports(PortRange::new(30_000, 30_099).expect("a range"))
}

fn with_several() -> MediaNegotiation {
    let keys = KeySource::draw(&mut SeededEntropy::new(7));
    MediaNegotiation::new(several(), [SrtpPolicy::Off; 2], keys)
}

fn bound(address: &MediaAddress, port: u16) -> LocalDescription {
    LocalDescription {
        rtp: SocketAddr::new(address.address, port),
        ..local(port)
    }
}

/// A call between these parties, each on the address it settled on: where each is told to send.
fn told(
    media: &mut MediaNegotiation,
    offer: &str,
    answer: &str,
    signalling: [&str; 2],
) -> [SocketAddr; 2] {
    media.offer_from_caller(offer.as_bytes()).expect("an offer");
    let [caller, callee] = media.settle_addresses(signalling.map(ip));
    let to_callee = media.offer_for_callee(bound(&callee, LOCAL_B));
    let to_callee = to_callee.expect("in order");
    media
        .answer_from_callee(answer.as_bytes())
        .expect("an answer");
    let to_caller = media.answer_for_caller(bound(&caller, LOCAL_A));
    let to_caller = to_caller.expect("in order");
    [to_caller, to_callee].map(|body| audio_of(&body).rtp.expect("not held"))
}

#[test]
fn each_peer_is_told_the_address_that_is_advertised_on_its_leg() {
    let v4 = ["198.51.100.7", "198.51.100.8"];
    let rows = [
        // Who names none gets the first of its family.
        ([None, None], ["10.0.0.5:30000", "10.0.0.5:30002"]),
        (
            [Some("outside"), None],
            ["203.0.113.5:30000", "10.0.0.5:30002"],
        ),
        (
            [Some("other"), Some("outside")],
            ["192.0.2.1:30000", "203.0.113.5:30002"],
        ),
    ];
    for (named, expected) in rows {
        let mut media = with_several();
        for (leg, name) in LegIndex::ALL.into_iter().zip(named) {
            if let Some(name) = name {
                media.use_interface(leg, name).expect("known");
            }
        }
        let told = told(&mut media, &pcmu(CALLER), &pcmu(CALLEE), v4);
        assert_eq!(told, expected.map(addr), "{named:?}");
    }
}

#[test]
fn call_between_the_families_has_an_address_of_each() {
    let v6_phone = "[2001:db8::77]:4000";
    let signalling = ["198.51.100.7", "2001:db8::77"];
    let mut media = with_several();
    let heard = told(&mut media, &pcmu(CALLER), &pcmu(v6_phone), signalling);
    assert_eq!(heard, ["10.0.0.5:30000", "[2001:db8::1]:30002"].map(addr));
    let config = media.leg_config(LegIndex::B, None);
    assert_eq!(config.remote_rtp, Some(addr(v6_phone)));

    // Offer IPv6, answer IPv4; and a phone that is reached through a dual-stack socket.
    let signalling = ["2001:db8::77", "::ffff:198.51.100.8"];
    let mut media = with_several();
    let heard = told(&mut media, &pcmu(v6_phone), &pcmu(CALLEE), signalling);
    assert_eq!(heard, ["[2001:db8::1]:30000", "10.0.0.5:30002"].map(addr));
}

#[test]
fn leg_that_is_bound_takes_no_address_of_the_other_family() {
    let v6 = pcmu("[2001:db8::77]:4000");
    let refused = OfferAnswerError::AddressFamily(ip("2001:db8::77"));

    // The callee answers with another family than its leg was bound for.
    let mut media = with_several();
    media
        .offer_from_caller(pcmu(CALLER).as_bytes())
        .expect("an offer");
    let [_, callee] = media.settle_addresses(["198.51.100.7", "198.51.100.8"].map(ip));
    media
        .offer_for_callee(bound(&callee, LOCAL_B))
        .expect("in order");
    let answered = media.answer_from_callee(v6.as_bytes());
    assert_eq!(answered, Err(refused.clone()));

    // The caller moves to it in mid-call.
    let mut media = with_several();
    told(
        &mut media,
        &pcmu(CALLER),
        &pcmu(CALLEE),
        ["198.51.100.7", "198.51.100.8"],
    );
    assert_eq!(
        media.reoffer(LegIndex::A, v6.as_bytes()),
        Err(refused.clone())
    );

    // The site file names an address of the other family for the caller.
    let mut media = with_several();
    media.use_interface(LegIndex::A, "outside").expect("known");
    assert_eq!(media.offer_from_caller(v6.as_bytes()), Err(refused));
}

#[test]
fn caller_that_holds_from_the_start_is_bound_where_its_signalling_comes_from() {
    let held = pcmu(CALLER).replace("c=IN IP4 198.51.100.7", "c=IN IP4 0.0.0.0");
    for (signalling, expected) in [
        ("2001:db8::77", "2001:db8::1"),
        ("198.51.100.7", "10.0.0.5"),
    ] {
        let mut media = with_several();
        media.offer_from_caller(held.as_bytes()).expect("an offer");
        let [caller, _] = media.settle_addresses([ip(signalling), ip("198.51.100.8")]);
        assert_eq!(caller.address, ip(expected), "{signalling}");
    }
}

#[test]
fn unknown_interface_is_refused_by_its_name() {
    let unknown = with_several().use_interface(LegIndex::B, "backside");
    assert_eq!(
        unknown.map_err(|error| error.to_string()),
        Err("no [edge] media_addresses entry is named \"backside\"".to_owned())
    );
}

#[test]
fn sockets_are_ours_by_the_bound_and_by_the_advertised_address_of_every_interface() {
    for leg_uses in ["inside", "outside", "other"] {
        let ours = several().named(leg_uses).expect("known");
        for (named, is_refused) in [
            ("10.0.0.5:30000", true),
            ("203.0.113.5:30000", true),
            ("203.0.113.5:30099", true),
            ("192.0.2.1:30050", true),
            ("203.0.113.5:30100", false),
            ("203.0.113.6:30000", false),
        ] {
            let parsed = RemoteAudio::parse(pcmu(named).as_bytes(), &ours, SrtpPolicy::Off);
            let refusal = Err(OfferAnswerError::AddressRefused(addr(named)));
            assert_eq!(
                parsed.map(|_| ()) == refusal,
                is_refused,
                "{named} on {leg_uses}"
            );
        }
    }
}

#[test]
fn own_sockets_are_known_by_what_the_peer_is_told_even_without_the_port_range() {
    let translated = MediaAddress {
        name: "outside".to_owned(),
        address: ip("10.0.0.5"),
        advertise: ip("203.0.113.5"),
    };
    let ours = MediaAddresses::new(std::slice::from_ref(&translated)).expect("one");
    let keys = KeySource::draw(&mut SeededEntropy::new(7));
    let mut media = MediaNegotiation::new(ours, [SrtpPolicy::Off; 2], keys);
    media
        .offer_from_caller(pcmu(CALLER).as_bytes())
        .expect("an offer");
    media.settle_addresses(["198.51.100.7", "198.51.100.8"].map(ip));
    media
        .offer_for_callee(bound(&translated, LOCAL_B))
        .expect("in order");
    for named in ["203.0.113.5:30002", "10.0.0.5:30003"] {
        assert_eq!(
            media.answer_from_callee(pcmu(named).as_bytes()),
            Err(OfferAnswerError::AddressRefused(addr(named)))
        );
    }
}
