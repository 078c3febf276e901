//! What control may ask, how often it may ask it, and what it is refused.

mod support;

use std::net::{SocketAddr, UdpSocket};

use support::{A, B, EdgeProcess, Peer, V4, is_at_rest, on_each_tier, rtp, wait_until};
use trunkline_edge_api::{
    CloseCause, Command, Counter, Epoch, Event, IoTier, LegIndex, LegReport, LocalMedia, PortRange,
    Refusal, RtcpMode, SessionId, Ssrc,
};

const ONE_WORKER: &str = "workers = 1\nsessions_max = 4";

on_each_tier! {
    open_leg_holds_its_ports_until_it_is_closed,
    next_callee_takes_the_place_of_a_closed_leg,
    repeated_commands_change_nothing_and_are_answered_alike,
    commands_that_cannot_be_are_refused_and_change_nothing,
    full_table_refuses_one_more_and_takes_it_when_there_is_room,
    reports_tell_what_each_leg_heard_and_sent,
    sessions_of_other_epochs_are_closed_before_the_answer,
    commands_in_a_row_are_carried_out_in_order,
}

/// Whether everybody else could bind the leg's ports now.
fn are_free(local: LocalMedia) -> bool {
    let addresses = [Some(local.rtp), local.rtcp_addr()];
    addresses
        .into_iter()
        .flatten()
        .all(|address| UdpSocket::bind(address).is_ok())
}

fn open_leg_holds_its_ports_until_it_is_closed(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let mut control = edge.connect(1);
    let call = control.simple_call(0);
    assert!(!are_free(call.locals[0]) && !are_free(call.locals[1]));
    let session = call.session;
    assert_eq!(
        control.ask(0, Command::CloseLeg { session, leg: B }),
        Ok(())
    );
    wait_until("the leg's ports are free", || {
        are_free(call.locals[1]).then_some(())
    });
    assert!(!are_free(call.locals[0]), "the other leg stays");
    edge.wait_for_gauge(Counter::SessionsActive, 1);
    control.close(&call);
    wait_until("all ports are free", || {
        are_free(call.locals[0]).then_some(())
    });
    wait_until("everything is given back", || {
        is_at_rest(&edge).then_some(())
    });
}

fn next_callee_takes_the_place_of_a_closed_leg(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let mut control = edge.connect(1);
    let mut call = control.simple_call(0);
    let first = support::sequence_of(&call.pass_b_to_a(10, b"first callee"));
    let session = call.session;
    // Not waited for: the next leg may be opened while the last one still closes.
    let closing = control.send(0, Command::CloseLeg { session, leg: B });
    call.peers[1] = Peer::new(V4);
    call.locals[1] = control.open_leg(0, session, B, V4, RtcpMode::Separate);
    assert_eq!(control.answer(0, closing), Ok(()));
    let config = call.peers[1].config(RtcpMode::Separate);
    control.configure(0, session, B, config);
    call.peers[1].send_rtp(call.locals[1].rtp, &rtp(0, 7_000, 4_711, b"second callee"));
    let packet = call.peers[0].receive_rtp();
    assert_eq!(packet[12..], *b"second callee");
    assert_eq!(support::sequence_of(&packet), first.wrapping_add(1));
}

fn repeated_commands_change_nothing_and_are_answered_alike(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let mut control = edge.connect(1);
    let call = control.simple_call(0);
    let session = call.session;
    let before = support::sequence_of(&call.pass_a_to_b(1, b"before"));
    for leg in LegIndex::ALL {
        let local = call.locals[leg.as_usize()];
        let config = call.peers[leg.as_usize()].config(RtcpMode::Separate);
        for _ in 0..3 {
            let config = config.clone();
            assert_eq!(
                control.ask(
                    0,
                    Command::OpenLeg {
                        session,
                        leg,
                        local
                    }
                ),
                Ok(())
            );
            assert_eq!(
                control.ask(
                    0,
                    Command::ConfigureLeg {
                        session,
                        leg,
                        config
                    }
                ),
                Ok(())
            );
        }
    }
    let after = support::sequence_of(&call.pass_a_to_b(2, b"after"));
    assert_eq!(after, before.wrapping_add(1), "the stream goes on");
    edge.wait_for_gauge(Counter::SocketsOpen, 4);
    assert_eq!(edge.counter(Counter::SessionsOpened), 1);
    for _ in 0..3 {
        assert_eq!(
            control.ask(0, Command::CloseLeg { session, leg: B }),
            Ok(())
        );
    }
    for _ in 0..3 {
        assert_eq!(control.ask(0, Command::CloseSession { session }), Ok(()));
        assert_eq!(
            control.ask(0, Command::CloseLeg { session, leg: A }),
            Ok(())
        );
    }
    let closed = |event: &Event| matches!(event, Event::SessionClosed { .. });
    let told = control
        .other_events(0)
        .iter()
        .filter(|event| closed(event))
        .count();
    assert_eq!(told, 1, "a session ends once");
    assert_eq!(edge.counter(Counter::CommandsRefused), 0);
}

fn commands_that_cannot_be_are_refused_and_change_nothing(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let mut control = edge.connect(1);
    let call = control.simple_call(0);
    let ports = control.ends[0].ports();
    let fresh = control.new_session();
    let taken = hold_an_upper_port(ports);
    let taken_address = taken.local_addr().expect("bound");
    let at = |ip: &str, port: u16, rtcp| LocalMedia {
        rtp: SocketAddr::new(ip.parse().expect("an address"), port),
        rtcp,
        ssrc: Ssrc(1),
    };
    let open = |session, local| Command::OpenLeg {
        session,
        leg: A,
        local,
    };
    let free_port = ports.last() - 1;
    let ours = call.locals[0].rtp.port();
    let config = call.peers[0].config(RtcpMode::Separate);
    let mut wrong_family = config.clone();
    wrong_family.remote_rtp = Some("[::1]:4000".parse().expect("an address"));
    let rows = [
        (
            "another process holds it",
            open(
                fresh,
                at("127.0.0.1", taken_address.port(), RtcpMode::Muxed),
            ),
            Refusal::AddressInUse,
        ),
        (
            "another session holds it",
            open(fresh, at("127.0.0.1", ours, RtcpMode::Muxed)),
            Refusal::AddressInUse,
        ),
        (
            "its RTCP port is held",
            open(
                fresh,
                at("127.0.0.1", taken_address.port() - 1, RtcpMode::Separate),
            ),
            Refusal::AddressInUse,
        ),
        (
            "no address of this machine",
            open(fresh, at("192.0.2.1", free_port, RtcpMode::Muxed)),
            Refusal::AddressNotAvailable,
        ),
        (
            "below the slice",
            open(fresh, at("127.0.0.1", ports.first() - 1, RtcpMode::Muxed)),
            Refusal::AddressMismatch,
        ),
        (
            "above the slice",
            open(fresh, at("127.0.0.1", ports.last() + 1, RtcpMode::Muxed)),
            Refusal::AddressMismatch,
        ),
        (
            "RTCP above the slice",
            open(fresh, at("127.0.0.1", ports.last(), RtcpMode::Separate)),
            Refusal::AddressMismatch,
        ),
        (
            "every address",
            open(fresh, at("0.0.0.0", free_port, RtcpMode::Muxed)),
            Refusal::AddressMismatch,
        ),
        (
            "a group's address",
            open(fresh, at("ff02::1", free_port, RtcpMode::Muxed)),
            Refusal::AddressMismatch,
        ),
        (
            "open elsewhere",
            open(call.session, at("127.0.0.1", free_port, RtcpMode::Muxed)),
            Refusal::LegOpenElsewhere,
        ),
        (
            "no such session",
            Command::ConfigureLeg {
                session: fresh,
                leg: A,
                config: config.clone(),
            },
            Refusal::NoSuchLeg,
        ),
        (
            "no session to ask about",
            Command::QuerySession { session: fresh },
            Refusal::NoSuchLeg,
        ),
        (
            "another family",
            Command::ConfigureLeg {
                session: call.session,
                leg: A,
                config: wrong_family,
            },
            Refusal::AddressMismatch,
        ),
    ];
    let row_count = rows.len() as u64;
    for (name, command, refusal) in rows {
        assert_eq!(control.ask(0, command), Err(refusal), "{name}");
    }
    assert_eq!(edge.counter(Counter::CommandsRefused), row_count);
    edge.wait_for_gauge(Counter::SessionsActive, 1);
    edge.wait_for_gauge(Counter::SocketsOpen, 4);
    assert_eq!(call.pass_a_to_b(1, b"untouched")[12..], *b"untouched");
}

/// Holds the upper port of a pair whose lower one is free. Not of the last pair: that is for the
/// test to try.
fn hold_an_upper_port(ports: PortRange) -> UdpSocket {
    let pairs: Vec<u16> = ports.pairs().collect();
    let hold = |&port: &u16| {
        UdpSocket::bind((V4, port)).ok()?;
        UdpSocket::bind((V4, port + 1)).ok()
    };
    let free = pairs.iter().rev().skip(1).find_map(hold);
    free.expect("most ports are free")
}

fn full_table_refuses_one_more_and_takes_it_when_there_is_room(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let mut control = edge.connect(1);
    let calls: Vec<_> = (0..4).map(|_| control.simple_call(0)).collect();
    let session = control.new_session();
    let local = LocalMedia {
        rtp: SocketAddr::new(V4, control.ends[0].ports().last() - 1),
        rtcp: RtcpMode::Muxed,
        ssrc: Ssrc(1),
    };
    let open = Command::OpenLeg {
        session,
        leg: A,
        local,
    };
    assert_eq!(control.ask(0, open.clone()), Err(Refusal::SessionTableFull));
    for call in &calls[1..] {
        assert_eq!(call.pass_a_to_b(1, b"still here")[12..], *b"still here");
    }
    control.close(&calls[0]);
    assert_eq!(control.ask(0, open), Ok(()));
}

fn reports_tell_what_each_leg_heard_and_sent(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let mut control = edge.connect(1);
    let calls = [control.simple_call(0), control.simple_call(0)];
    for n in 0..5 {
        calls[0].pass_a_to_b(n, &[0; 160]);
    }
    let session = calls[0].session;
    let query = control.send(0, Command::QuerySession { session });
    let report = control.wait_for(0, |event| match event {
        Event::SessionReported {
            correlation,
            report,
        } if *correlation == query => Some(*report),
        _ => None,
    });
    assert_eq!(control.answer(0, query), Ok(()));
    let heard = LegReport {
        rx_packets: 5,
        rx_bytes: 5 * 172,
        ..LegReport::default()
    };
    let sent = LegReport {
        tx_packets: 5,
        tx_bytes: 5 * 172,
        ..LegReport::default()
    };
    // How evenly they came is this machine's affair; that it is measured is not.
    let [mut a, b] = report.legs;
    assert!((420..=441).contains(&a.mos_centi), "{a:?}");
    (a.jitter_micros, a.jitter_max_micros, a.mos_centi) = (0, 0, 0);
    assert_eq!([a, b], [heard, sent]);

    let query = control.send(0, Command::QueryAllSessions);
    assert_eq!(control.answer(0, query), Ok(()));
    let mut reported: Vec<SessionId> = Vec::new();
    for event in control.other_events(0) {
        if let Event::SessionReported {
            correlation,
            report,
        } = event
        {
            assert_eq!(correlation, query);
            reported.push(report.session);
        }
    }
    reported.sort_unstable();
    assert_eq!(reported, [calls[0].session, calls[1].session]);
}

fn sessions_of_other_epochs_are_closed_before_the_answer(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let mut control = edge.connect(5);
    let old = [control.simple_call(0), control.simple_call(0)];
    control.epoch = 6;
    let kept = control.simple_call(0);
    let command = Command::CloseOtherEpochs { keep: Epoch(6) };
    assert_eq!(control.ask(0, command.clone()), Ok(()));
    let mut closed: Vec<_> = Vec::new();
    for event in control.other_events(0) {
        if let Event::SessionClosed { cause, report } = event {
            assert_eq!(cause, CloseCause::Commanded);
            closed.push(report.session);
        }
    }
    closed.sort_unstable();
    assert_eq!(closed, old.each_ref().map(|call| call.session));
    for call in &old {
        wait_until("their ports are free", || {
            are_free(call.locals[0]).then_some(())
        });
    }
    assert_eq!(
        control.ask(0, command),
        Ok(()),
        "again, and nothing is left to do"
    );
    assert_eq!(kept.pass_a_to_b(1, b"kept")[12..], *b"kept");
}

fn commands_in_a_row_are_carried_out_in_order(tier: IoTier) {
    let edge = EdgeProcess::start(tier, "workers = 1\nsessions_max = 16");
    let mut control = edge.connect(1);
    let ports = control.ends[0].ports();
    let mut awaited = Vec::new();
    let pairs: Vec<u16> = ports.pairs().collect();
    for (n, &port) in (0..200).zip(pairs.iter().cycle()) {
        let session = SessionId::new(Epoch(1), n);
        let local = LocalMedia {
            rtp: SocketAddr::new(V4, port),
            rtcp: RtcpMode::Separate,
            ssrc: Ssrc(n),
        };
        let open = Command::OpenLeg {
            session,
            leg: A,
            local,
        };
        awaited.push((control.send(0, open), true));
        awaited.push((control.send(0, Command::CloseSession { session }), false));
    }
    for (correlation, may_be_busy) in awaited {
        match control.answer(0, correlation) {
            Ok(()) => {}
            Err(Refusal::AddressInUse | Refusal::SessionTableFull) if may_be_busy => {}
            Err(refusal) => panic!("{refusal}"),
        }
    }
    wait_until("everything is given back", || {
        is_at_rest(&edge).then_some(())
    });
}
