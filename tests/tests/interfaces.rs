//! Media addresses: bridged between families, advertised behind NAT, and used up.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, in helpers too"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::Value;
use trunkline_testkit::conversation::finish;
use trunkline_testkit::daemons::Daemons;
use trunkline_testkit::phone::{EndCause, Phone, PhoneConfig};
use trunkline_testkit::rtp::MediaHub;
use trunkline_testkit::sdp::AudioDescription;
use trunkline_testkit::site::{MediaAddress, Member, Site};
use trunkline_testkit::speech;
use trunkline_tests::call::{LIMIT, place};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

fn site() -> Site {
    Site::with_members(vec![Member::numbered(0)])
}

/// Member 0's phone on IPv6, media and signalling.
fn phone_v6(daemons: &Daemons) -> Phone {
    let member = daemons.member(0).unwrap();
    let config = PhoneConfig::udp(&member.user, daemons.sip_v6());
    let phone = daemons.registered(config.with_password(&member.password));
    phone.unwrap()
}

#[test]
fn trunk_on_ipv4_and_phone_on_ipv6_hear_each_other() {
    let daemons = Daemons::start(site()).unwrap();
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), phone_v6(&daemons));
    let did = daemons.member(0).unwrap().did.clone();
    let call = place(&hub, &carrier, &did, &phone).unwrap();
    assert_eq!(call.outgoing.remote_media().unwrap().rtp.ip(), V4);
    assert_eq!(call.incoming.remote_media().unwrap().rtp.ip(), V6);
    let heard = call.talk(100).unwrap();
    assert!(heard.is_perfect(), "{heard:?}");

    // The other family has the other port pairs.
    for ip in ["127.0.0.1", "::1"] {
        let labels = [("interface", ip)];
        daemons
            .wait_metric("trunkline_ports_used", &labels, 1.0)
            .unwrap();
    }
    call.hang_up().unwrap();
    daemons
        .wait_metric("trunkline_ports_used", &[], 0.0)
        .unwrap();
}

#[test]
fn trunk_on_ipv6_and_phone_on_ipv4_hear_each_other() {
    let site = Site {
        trunk_sources: vec!["::1/128".to_owned()],
        ..site()
    };
    let daemons = Daemons::start(site).unwrap();
    let hub = MediaHub::start().unwrap();
    let carrier = Phone::start(PhoneConfig::udp("+15559990000", daemons.sip_v6())).unwrap();
    let phone = daemons.member_phone(0).unwrap();
    let did = daemons.member(0).unwrap().did.clone();
    let call = place(&hub, &carrier, &did, &phone).unwrap();
    assert_eq!(call.outgoing.remote_media().unwrap().rtp.ip(), V6);
    assert_eq!(call.incoming.remote_media().unwrap().rtp.ip(), V4);
    let heard = call.talk(100).unwrap();
    assert!(heard.is_perfect(), "{heard:?}");
    call.hang_up().unwrap();
}

#[test]
fn offer_of_a_family_that_is_not_ours_is_refused() {
    let daemons = Daemons::start_with(site(), |node| node.media_addresses = vec![V4.into()]);
    let daemons = daemons.unwrap();
    let (carrier, _phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let offer = AudioDescription::pcmu(SocketAddr::new(V6, 4_000));
    let call = carrier
        .call(&daemons.member(0).unwrap().did, offer)
        .unwrap();
    assert_eq!(call.wait_ended(LIMIT).unwrap(), EndCause::Rejected(488));
}

/// Bound where the trunk's packets arrive after a 1:1 NAT, told by the address before it.
const BOUND: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
const ADVERTISED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 4));

/// A node with an outside behind a NAT and an inside without, and who uses which.
fn translated() -> Daemons {
    let site = Site {
        trunk_media: Some("outside"),
        tenant_media: Some("inside"),
        ..site()
    };
    let addresses = [
        MediaAddress {
            address: BOUND,
            advertise: Some(ADVERTISED),
            name: Some("outside"),
        },
        MediaAddress {
            address: V4,
            advertise: None,
            name: Some("inside"),
        },
    ];
    Daemons::start_with(site, |node| node.media_addresses = addresses.to_vec()).unwrap()
}

#[test]
fn sdp_names_the_advertised_address_and_the_edge_binds_the_other() {
    const FRAMES: usize = 50;
    let daemons = translated();
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let did = daemons.member(0).unwrap().did.clone();
    let call = place(&hub, &carrier, &did, &phone).unwrap();

    let told = call.outgoing.remote_media().unwrap().rtp;
    assert_eq!(told.ip(), ADVERTISED);
    let to_callee_leg = call.incoming.remote_media().unwrap().rtp;
    assert_eq!(to_callee_leg.ip(), V4);
    // What the NAT does on the way in: the port stays, the address becomes ours.
    let to_caller_leg = SocketAddr::new(BOUND, told.port());
    call.caller_rtp
        .speak(to_caller_leg, 0, speech::caller(), FRAMES);
    call.callee_rtp
        .speak(to_callee_leg, 0, speech::callee(), FRAMES);
    let heard = finish(&call.caller(), &call.callee(), FRAMES).unwrap();
    assert!(heard.is_perfect(), "{heard:?}");
    call.hang_up().unwrap();

    let status = daemons.control_command(&["status".as_ref()]).unwrap();
    assert!(
        status.contains("media     outside: 127.0.0.3 as 127.0.0.4, 0 of "),
        "{status}"
    );
}

#[test]
fn neither_address_of_our_own_sockets_is_relayed_to() {
    let daemons = translated();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let did = &daemons.member(0).unwrap().did;
    let (first, _) = daemons.node().ports.split_once('-').unwrap();
    let port = first.parse().unwrap();
    for ours in [BOUND, ADVERTISED, V4] {
        let offer = AudioDescription::pcmu(SocketAddr::new(ours, port));
        let call = carrier.call(did, offer).unwrap();
        assert_eq!(
            call.wait_ended(LIMIT).unwrap(),
            EndCause::Rejected(488),
            "{ours}"
        );
    }
    assert_eq!(phone.waiting_call_count(), 0);

    // Nor when the called side names it.
    for ours in [BOUND, ADVERTISED, V4] {
        let offer = AudioDescription::pcmu("127.0.0.2:4000".parse().unwrap());
        let outgoing = carrier.call(did, offer).unwrap();
        let incoming = phone.wait_call(LIMIT).unwrap();
        let answer = AudioDescription::pcmu(SocketAddr::new(ours, port));
        incoming.answer(&answer).unwrap();
        assert_eq!(
            outgoing.wait_ended(LIMIT).unwrap(),
            EndCause::Rejected(488),
            "{ours}"
        );
    }
}

#[test]
fn call_that_finds_no_port_is_told_to_come_back_and_the_reason_is_seen_everywhere() {
    // Two pairs a worker: one call each.
    let daemons = Daemons::start_with(site(), |node| {
        let (first, _) = node.ports.split_once('-').unwrap();
        let first: u16 = first.parse().unwrap();
        node.ports = format!("{first}-{}", first + 7);
    });
    let daemons = daemons.unwrap();
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let did = daemons.member(0).unwrap().did.clone();
    let calls = [0, 1].map(|_| place(&hub, &carrier, &did, &phone).unwrap());
    let on_v4 = [("interface", "127.0.0.1")];
    for name in ["trunkline_ports_used", "trunkline_ports_capacity"] {
        daemons.wait_metric(name, &on_v4, 4.0).unwrap();
    }

    let media = AudioDescription::pcmu("127.0.0.2:4000".parse().unwrap());
    let refused = carrier.call(&did, media).unwrap();
    assert_eq!(refused.wait_ended(LIMIT).unwrap(), EndCause::Rejected(503));
    let retry_after = refused.header("Retry-After").unwrap();
    assert!(retry_after.trim().parse::<u32>().unwrap() > 0);
    assert_eq!(phone.waiting_call_count(), 0);
    let reason = [("reason", "no_ports")];
    daemons
        .wait_metric("trunkline_media_refused_total", &reason, 1.0)
        .unwrap();
    let status = daemons.control_command(&["status".as_ref()]).unwrap();
    assert!(
        status.contains("media     127.0.0.1: 127.0.0.1, 4 of 4 port pairs"),
        "{status}"
    );
    assert!(daemons.logs().contains("all media ports are in use"));
    let records = daemons.wait_cdrs(1, LIMIT).unwrap();
    assert_eq!(records[0]["end_cause"], "no_media_ports");
    assert_eq!(records[0]["sip_status"], 503);

    // The calls that stand did not notice, and their ports come back.
    for call in &calls {
        let heard = call.talk(25).unwrap();
        assert!(heard.is_perfect(), "{heard:?}");
        call.hang_up().unwrap();
    }
    daemons
        .wait_metric("trunkline_ports_used", &on_v4, 0.0)
        .unwrap();
    let call = place(&hub, &carrier, &did, &phone).unwrap();
    call.hang_up().unwrap();
}

#[test]
fn site_that_names_an_interface_nobody_has_is_refused_with_its_line() {
    let daemons = Daemons::start(site()).unwrap();
    let wrong = Site {
        trunk_media: Some("outside"),
        ..site()
    };
    let file = wrong.write(&daemons.path().join("wrong")).unwrap();
    let output = daemons
        .control_output(&["apply".as_ref(), file.as_os_str()])
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    for part in [
        "site.toml:9: ",
        "[[trunk]] media",
        "\"outside\"",
        "127.0.0.1, ::1",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let calls = daemons.control_command(&["calls".as_ref(), "--json".as_ref()]);
    let calls: Value = serde_json::from_str(&calls.unwrap()).unwrap();
    assert_eq!(calls["total"], 0);
}
