//! Two legs, fed by hand over the real rings, relayed over real sockets.

mod support;

use std::net::UdpSocket;

use support::{
    A, B, EdgeProcess, PATIENCE, Peer, V4, V6, on_each_tier, receiver_report, rtp, sequence_of,
    ssrc_of,
};
use trunkline_edge_api::{
    ClockRateHz, Command, Counter, DropReason, Event, IoTier, LegIndex, MediaDirection,
    PayloadRoute, PayloadRoutes, PayloadType, RtcpMode, SourcePolicy,
};

const ONE_WORKER: &str = "workers = 1\nsessions_max = 8";

on_each_tier! {
    payload_crosses_both_ways_byte_for_byte,
    peer_sees_one_stream_under_the_legs_ssrc,
    rtcp_crosses_on_separate_and_on_multiplexed_ports,
    media_crosses_between_ipv4_and_ipv6,
    stranger_is_neither_heard_nor_answered,
    peer_behind_nat_is_answered_where_it_sends_from,
    payload_types_are_numbered_as_each_peer_does,
    hold_stops_media_and_leaves_rtcp,
    whatever_arrives_is_dropped_and_counted_and_the_call_goes_on,
    two_workers_relay_side_by_side,
    hundred_concurrent_calls_lose_nothing,
    audio_never_reaches_the_call_that_has_the_port_next,
    flood_costs_packets_and_nothing_else,
}

fn payload_crosses_both_ways_byte_for_byte(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let mut control = edge.connect(1);
    let call = control.simple_call(0);
    for n in 0..300u16 {
        let payload: Vec<u8> = (0..usize::from(n) * 5)
            .map(|i| (i * 7) as u8 ^ n as u8)
            .collect();
        assert_eq!(call.pass_a_to_b(n, &payload)[12..], payload);
        assert_eq!(call.pass_b_to_a(n, &payload)[12..], payload);
    }
    edge.wait_for_counter(Counter::TxRtpPackets, 600);
    assert_eq!(edge.counter(Counter::RxRtpPackets), 600);
    edge.wait_for_gauge(Counter::BuffersInFlight, 0);
}

fn peer_sees_one_stream_under_the_legs_ssrc(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let mut control = edge.connect(1);
    let call = control.simple_call(0);
    let [a, b] = &call.peers;
    let mut expected = sequence_of(&call.pass_a_to_b(65_000, b"first"));
    for (ssrc, first) in [(7, 65_001u16), (1_234, 9), (7, 500)] {
        for n in 0..600 {
            a.send_rtp(
                call.locals[0].rtp,
                &rtp(0, first.wrapping_add(n), ssrc, b"audio"),
            );
            let packet = b.receive_rtp();
            expected = expected.wrapping_add(1);
            assert_eq!(sequence_of(&packet), expected);
            assert_eq!(ssrc_of(&packet), call.locals[1].ssrc);
        }
    }
}

fn rtcp_crosses_on_separate_and_on_multiplexed_ports(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let mut control = edge.connect(1);
    let modes = [
        [RtcpMode::Separate, RtcpMode::Separate],
        [RtcpMode::Separate, RtcpMode::Muxed],
        [RtcpMode::Muxed, RtcpMode::Muxed],
    ];
    for [mode_a, mode_b] in modes {
        let call = control.call(0, [V4, V4], [mode_a, mode_b]);
        let send = |leg: LegIndex, mode| {
            let (peer, local) = (&call.peers[leg.as_usize()], call.locals[leg.as_usize()]);
            let report = receiver_report(leg as u32 + 7);
            let (socket, to) = match mode {
                RtcpMode::Separate => (&peer.rtcp, local.rtcp_addr().expect("separate")),
                RtcpMode::Muxed => (&peer.rtp, local.rtp),
            };
            socket.send_to(&report, to).expect("loopback takes it");
        };
        let receive = |leg: LegIndex, mode| match mode {
            RtcpMode::Separate => call.peers[leg.as_usize()].receive_rtcp(),
            RtcpMode::Muxed => call.peers[leg.as_usize()].receive_rtp(),
        };
        send(A, mode_a);
        assert_eq!(receive(B, mode_b), receiver_report(call.locals[1].ssrc.0));
        send(B, mode_b);
        assert_eq!(receive(A, mode_a), receiver_report(call.locals[0].ssrc.0));
        control.close(&call);
    }
    // Both peers of each call got a BYE at its end.
    edge.wait_for_counter(Counter::RtcpGenerated, 6);
    edge.wait_for_counter(Counter::TxRtcpPackets, 12);
    assert_eq!(edge.counter(Counter::RxRtcpPackets), 6);
}

fn media_crosses_between_ipv4_and_ipv6(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let mut control = edge.connect(1);
    let call = control.call(0, [V4, V6], [RtcpMode::Separate; 2]);
    assert_eq!(call.pass_a_to_b(1, b"to six")[12..], *b"to six");
    assert_eq!(call.pass_b_to_a(1, b"to four")[12..], *b"to four");
    let six = control.call(0, [V6, V6], [RtcpMode::Muxed; 2]);
    assert_eq!(six.pass_a_to_b(1, b"six to six")[12..], *b"six to six");
}

fn stranger_is_neither_heard_nor_answered(tier: IoTier) {
    const SPRAYED: u64 = 200;
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let mut control = edge.connect(1);
    let call = control.simple_call(0);
    let stranger = Peer::new(V4);
    let spray = |n: u16| {
        for local in call.locals {
            stranger.send_rtp(local.rtp, &rtp(0, n, 666, b"injected"));
        }
        let rtcp = call.locals[0].rtcp_addr().expect("separate");
        stranger
            .rtcp
            .send_to(&[0x80, 203, 0, 0], rtcp)
            .expect("loopback takes it");
        assert_eq!(call.pass_a_to_b(n, b"audio")[12..], *b"audio");
        assert_eq!(call.pass_b_to_a(n, b"audio")[12..], *b"audio");
    };
    // Before the peers are heard the gate sees all of it.
    spray(0);
    edge.wait_for_counter(DropReason::SourceNotAllowed, 3);
    edge.wait_for_gauge(Counter::SocketsConnected, 2);
    // Then the kernel turns away what comes to a connected socket; RTCP has one of its own.
    for n in 1..SPRAYED as u16 {
        spray(n);
    }
    edge.wait_for_counter(DropReason::SourceNotAllowed, 3 + SPRAYED - 1);
    assert!(stranger.has_heard_nothing());
    assert!(call.peers.iter().all(Peer::has_heard_nothing));
    edge.wait_for_counter(Counter::TxRtpPackets, 2 * SPRAYED);
}

fn peer_behind_nat_is_answered_where_it_sends_from(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let mut control = edge.connect(1);
    let session = control.new_session();
    let [natted, other, late, rebound] = [(); 4].map(|()| Peer::new(V4));
    let local_a = control.open_leg(0, session, A, V4, RtcpMode::Separate);
    let local_b = control.open_leg(0, session, B, V4, RtcpMode::Separate);
    let mut config = natted.config(RtcpMode::Separate);
    config.source = SourcePolicy::LearnPort { ip: V4 };
    config.remote_rtp = Some("10.255.255.1:4000".parse().expect("an address"));
    config.remote_rtcp = Some("10.255.255.1:4001".parse().expect("an address"));
    control.configure(0, session, A, config);
    control.configure(0, session, B, other.config(RtcpMode::Separate));

    natted.send_rtp(local_a.rtp, &rtp(0, 1, 7, b"here I am"));
    assert_eq!(other.receive_rtp()[12..], *b"here I am");
    other.send_rtp(local_b.rtp, &rtp(0, 1, 9, b"there you are"));
    assert_eq!(natted.receive_rtp()[12..], *b"there you are");

    late.send_rtp(local_a.rtp, &rtp(0, 2, 8, b"me too"));
    edge.wait_for_counter(DropReason::SourceNotAllowed, 1);
    other.send_rtp(local_b.rtp, &rtp(0, 2, 9, b"still there"));
    assert_eq!(natted.receive_rtp()[12..], *b"still there");
    assert!(late.has_heard_nothing() && other.has_heard_nothing());
    let source = control.wait_for(0, |event| match event {
        Event::MediaStarted { leg: A, source, .. } => Some(*source),
        _ => None,
    });
    assert_eq!(source, natted.address());

    rebound.send_rtp(local_a.rtp, &rtp(0, 3, 7, b"the NAT gave me another port"));
    assert_eq!(other.receive_rtp()[12..], *b"the NAT gave me another port");
    other.send_rtp(local_b.rtp, &rtp(0, 3, 9, b"I see"));
    assert_eq!(rebound.receive_rtp()[12..], *b"I see");
    assert!(natted.has_heard_nothing());
}

fn payload_types_are_numbered_as_each_peer_does(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let mut control = edge.connect(1);
    let call = control.simple_call(0);
    let opus = |from, to| PayloadRoute {
        from: PayloadType::new(from).expect("below 128"),
        to: PayloadType::new(to).expect("below 128"),
        clock_rate: ClockRateHz::OPUS,
    };
    for (leg, from, to) in [(A, 111, 96), (B, 96, 111)] {
        let mut config = call.peers[leg.as_usize()].config(RtcpMode::Separate);
        config.routes = PayloadRoutes::new(vec![opus(from, to)]).expect("one");
        control.configure(0, call.session, leg, config);
    }
    let [a, b] = &call.peers;
    a.send_rtp(call.locals[0].rtp, &rtp(0x80 | 111, 1, 7, b"opus"));
    assert_eq!(b.receive_rtp()[1], 0x80 | 96, "the marker stays");
    b.send_rtp(call.locals[1].rtp, &rtp(96, 1, 9, b"opus"));
    assert_eq!(a.receive_rtp()[1], 111);
    a.send_rtp(call.locals[0].rtp, &rtp(0, 2, 7, b"not agreed"));
    edge.wait_for_counter(DropReason::PayloadTypeNotNegotiated, 1);
}

fn hold_stops_media_and_leaves_rtcp(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let mut control = edge.connect(1);
    let call = control.simple_call(0);
    let mut held = call.peers[0].config(RtcpMode::Separate);
    held.direction = MediaDirection::Inactive;
    control.configure(0, call.session, A, held);
    let [a, b] = &call.peers;
    a.send_rtp(call.locals[0].rtp, &rtp(0, 1, 7, b"held"));
    b.send_rtp(call.locals[1].rtp, &rtp(0, 1, 9, b"held"));
    edge.wait_for_counter(DropReason::DirectionInactive, 2);
    let rtcp = call.locals[0].rtcp_addr().expect("separate");
    a.rtcp
        .send_to(&receiver_report(7), rtcp)
        .expect("loopback takes it");
    b.receive_rtcp();
    let resumed = call.peers[0].config(RtcpMode::Separate);
    control.configure(0, call.session, A, resumed);
    assert_eq!(call.pass_a_to_b(2, b"resumed")[12..], *b"resumed");
}

fn whatever_arrives_is_dropped_and_counted_and_the_call_goes_on(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let mut control = edge.connect(1);
    let call = control.simple_call(0);
    let rows: [(DropReason, Vec<u8>); 8] = [
        (DropReason::NotMedia, vec![]),
        (DropReason::NotMedia, vec![0xff; 100]),
        (
            DropReason::UnexpectedStun,
            vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42],
        ),
        (DropReason::UnexpectedDtls, vec![22, 254, 253, 0]),
        (
            DropReason::MalformedRtp,
            vec![0xbf, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1],
        ),
        (DropReason::WrongSocket, receiver_report(7)),
        (DropReason::Oversize, vec![0x80; 3_000]),
        (DropReason::NoDestination, rtp(0, 1, 7, b"nobody there")),
    ];
    let [a, _] = &call.peers;
    for (reason, datagram) in rows {
        if reason == DropReason::NoDestination {
            let mut config = call.peers[1].config(RtcpMode::Separate);
            config.remote_rtp = None;
            control.configure(0, call.session, B, config);
        }
        let before = edge.counter(reason);
        a.send_rtp(call.locals[0].rtp, &datagram);
        edge.wait_for_counter(reason, before + 1);
    }
    let rtcp = call.locals[0].rtcp_addr().expect("separate");
    a.rtcp
        .send_to(&[0x80, 201, 0, 9, 1, 2, 3, 4], rtcp)
        .expect("loopback takes it");
    edge.wait_for_counter(DropReason::MalformedRtcp, 1);
    control.configure(0, call.session, B, call.peers[1].config(RtcpMode::Separate));
    assert_eq!(call.pass_a_to_b(2, b"unharmed")[12..], *b"unharmed");
    control.close(&call);
    let report = control.wait_for(0, |event| match event {
        Event::SessionClosed { report, .. } => Some(*report),
        _ => None,
    });
    assert_eq!(report.session, call.session);
    assert_eq!(report.legs[0].dropped_packets, 9);
    assert_eq!(report.legs[1].tx_packets, 1);
}

fn two_workers_relay_side_by_side(tier: IoTier) {
    let edge = EdgeProcess::start(tier, "workers = 2\nsessions_max = 8");
    let mut control = edge.connect(1);
    assert_eq!(control.ends.len(), 2);
    let calls = [control.simple_call(0), control.simple_call(1)];
    for n in 0..100 {
        for call in &calls {
            let payload = call.session.to_string();
            assert_eq!(
                call.pass_a_to_b(n, payload.as_bytes())[12..],
                *payload.as_bytes()
            );
            assert_eq!(
                call.pass_b_to_a(n, payload.as_bytes())[12..],
                *payload.as_bytes()
            );
        }
    }
    for end in &control.ends {
        assert_eq!(
            end.counter(Counter::RxRtpPackets),
            200,
            "worker {}",
            end.worker()
        );
        assert_eq!(end.counter(Counter::SessionsActive), 1);
    }
}

fn hundred_concurrent_calls_lose_nothing(tier: IoTier) {
    const CALLS: usize = 100;
    const PACKETS: u16 = 50;
    let settings = format!("workers = 2\nsessions_max = {CALLS}");
    let edge = EdgeProcess::start_with_ports(tier, &settings, 8 * CALLS as u16);
    let mut control = edge.connect(1);
    let calls: Vec<_> = (0..CALLS).map(|n| control.simple_call(n % 2)).collect();
    for n in 0..PACKETS {
        for call in &calls {
            let [a, b] = &call.peers;
            let payload = format!("{} {n}", call.session);
            a.send_rtp(call.locals[0].rtp, &rtp(0, n, 7, payload.as_bytes()));
            b.send_rtp(call.locals[1].rtp, &rtp(0, n, 9, payload.as_bytes()));
        }
        for call in &calls {
            let payload = format!("{} {n}", call.session);
            for peer in &call.peers {
                assert_eq!(peer.receive_rtp()[12..], *payload.as_bytes());
            }
        }
    }
    edge.wait_for_counter(Counter::TxRtpPackets, 2 * CALLS as u64 * u64::from(PACKETS));
    let dropped: u64 = DropReason::ALL
        .iter()
        .map(|&reason| edge.counter(reason))
        .sum();
    assert_eq!(dropped, 0);
    for call in &calls {
        control.close(call);
    }
    support::wait_until("everything is given back", || {
        support::is_at_rest(&edge).then_some(())
    });
    let threads = edge.thread_names();
    assert!(threads.iter().any(|name| name == "worker-1"));
    let punted = threads
        .iter()
        .filter(|name| name.starts_with("iou-"))
        .count();
    assert_eq!(punted, 0, "work was handed to kernel threads: {threads:?}");
}

/// Ports and slots change hands while media keeps arriving. Every payload names the call that it
/// belongs to; nobody may hear another's.
fn audio_never_reaches_the_call_that_has_the_port_next(tier: IoTier) {
    let edge = EdgeProcess::start(tier, "workers = 1\nsessions_max = 4");
    let mut control = edge.connect(1);
    let mut call = control.simple_call(0);
    for round in 0..100u16 {
        let payload = round.to_be_bytes();
        for n in 0..20 {
            let [a, b] = &call.peers;
            a.send_rtp(call.locals[0].rtp, &rtp(0, n, 7, &payload));
            b.send_rtp(call.locals[1].rtp, &rtp(0, n, 9, &payload));
        }
        let session = control.new_session();
        let close = control.send(
            0,
            Command::CloseSession {
                session: call.session,
            },
        );
        let peers = [Peer::new(V4), Peer::new(V4)];
        assert_eq!(control.answer(0, close), Ok(()));
        for leg in LegIndex::ALL {
            let local = call.locals[leg.as_usize()];
            support::wait_until("the port is free again", || {
                control
                    .ask(
                        0,
                        Command::OpenLeg {
                            session,
                            leg,
                            local,
                        },
                    )
                    .ok()
            });
            let config = peers[leg.as_usize()].config(RtcpMode::Separate);
            control.configure(0, session, leg, config);
        }
        let next = support::Call {
            session,
            peers,
            ..call
        };
        let fresh = (round + 1).to_be_bytes();
        assert_eq!(next.pass_a_to_b(1, &fresh)[12..], fresh);
        assert_eq!(next.pass_b_to_a(1, &fresh)[12..], fresh);
        assert!(next.peers.iter().all(Peer::has_heard_nothing));
        for peer in &call.peers {
            peer.rtp.set_nonblocking(true).expect("a socket");
            let mut packet = [0; 64];
            while let Ok(len) = peer.rtp.recv(&mut packet) {
                assert_eq!(packet[12..len], payload);
            }
        }
        call = next;
    }
    control.close(&call);
    support::wait_until("everything is given back", || {
        support::is_at_rest(&edge).then_some(())
    });
}

fn flood_costs_packets_and_nothing_else(tier: IoTier) {
    const FLOOD: usize = 30_000;
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let mut control = edge.connect(1);
    let call = control.simple_call(0);
    let flooder = UdpSocket::bind((V4, 0)).expect("loopback");
    for n in 0..FLOOD {
        let local = call.locals[n % 2];
        flooder
            .send_to(&rtp(0, n as u16, 666, &[0; 160]), local.rtp)
            .expect("loopback takes it");
    }
    // What the socket's buffer could not hold the kernel has dropped; the peer tries until it is
    // heard.
    let [a, b] = &call.peers;
    b.rtp
        .set_read_timeout(Some(std::time::Duration::from_millis(50)))
        .expect("a socket");
    let heard = support::wait_until("the call is heard again", || {
        a.send_rtp(call.locals[0].rtp, &rtp(0, 1, 7, b"after the flood"));
        let mut packet = [0; 64];
        let len = b.rtp.recv(&mut packet).ok()?;
        Some(packet[12..len].to_vec())
    });
    assert_eq!(heard, b"after the flood");
    b.rtp.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let refused = edge.counter(DropReason::SourceNotAllowed);
    assert!(refused > 0 && refused <= FLOOD as u64, "{refused}");
    control.close(&call);
    support::wait_until("everything is given back", || {
        support::is_at_rest(&edge).then_some(())
    });
}
