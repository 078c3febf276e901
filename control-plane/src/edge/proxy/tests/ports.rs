//! Sessions on several addresses, and what becomes of them when ports run out.

use super::*;

/// Opens sessions on `ips` until one is refused.
fn fill(proxy: &mut EdgeProxy, ips: [IpAddr; 2]) -> (usize, MediaRefused) {
    let mut count = 0;
    loop {
        match proxy.open(NOW, ips, [Ssrc(1), Ssrc(2)]) {
            Ok(_) => count += 1,
            Err(reason) => return (count, reason),
        }
        assert!(count < 1_000, "the ports never run out");
    }
}

#[test]
fn bridged_session_takes_a_port_of_each_family() {
    let mut proxy = proxy();
    proxy
        .open(NOW, [LOOPBACK[0], V6], [Ssrc(1), Ssrc(2)])
        .expect("ports are free");
    for command in commands(&mut proxy, WORKER) {
        answer(&mut proxy, &command, Ok(()));
    }
    let Some(MediaEvent::Opened { local, .. }) = proxy.poll_event() else {
        panic!("both legs are bound");
    };
    let expected = [(LOOPBACK[0], 30_000), (V6, 30_000)].map(SocketAddr::from);
    assert_eq!(local.map(|local| local.rtp), expected);
}

#[test]
fn full_address_refuses_only_the_sessions_that_need_it() {
    let mut proxy = proxy();
    // Ten pairs on each address; two for a call within one.
    assert_eq!(fill(&mut proxy, LOOPBACK), (5, MediaRefused::NoPorts));
    assert_eq!(
        fill(&mut proxy, [LOOPBACK[0], V6]),
        (0, MediaRefused::NoPorts)
    );
    assert_eq!(fill(&mut proxy, [V6, V6]), (5, MediaRefused::NoPorts));
    assert_eq!(proxy.counters().refused, [0, 3, 0, 0]);
    assert_eq!(pool(&proxy).used_count(), 10);
}

#[test]
fn sessions_spread_over_the_workers_until_all_are_full() {
    let mut proxy = EdgeProxy::new(Epoch(7), vec![LOOPBACK[0]]);
    proxy.handle_connected(&workers(2));
    // Ten pairs in all, five a worker: two calls each.
    assert_eq!(fill(&mut proxy, LOOPBACK), (4, MediaRefused::NoPorts));
    let opened = [0, 1].map(|worker| {
        let sent = commands(&mut proxy, WorkerIndex(worker));
        let is_open = |c: &&CorrelatedCommand| matches!(c.command, Command::OpenLeg { .. });
        sent.iter().filter(is_open).count()
    });
    assert_eq!(opened, [4, 4], "two legs a call");
}

#[test]
fn worker_whose_ports_come_back_after_their_time_aside_is_used_again() {
    let mut proxy = proxy();
    let range_is_held = || Err(Refusal::AddressInUse);
    proxy
        .open(NOW, LOOPBACK, [Ssrc(1), Ssrc(2)])
        .expect("ports are free");
    while !matches!(proxy.poll_event(), Some(MediaEvent::Refused { .. })) {
        for command in commands(&mut proxy, WORKER) {
            answer(&mut proxy, &command, range_is_held());
        }
    }
    let soon = NOW.plus_secs(59);
    assert!(proxy.open(soon, LOOPBACK, [Ssrc(1), Ssrc(2)]).is_err());
    let later = NOW.plus_secs(61);
    assert!(proxy.open(later, LOOPBACK, [Ssrc(1), Ssrc(2)]).is_ok());
}

#[test]
fn without_an_edge_sessions_are_refused_and_counted() {
    let mut proxy = proxy();
    proxy.handle_disconnected();
    assert_eq!(fill(&mut proxy, LOOPBACK), (0, MediaRefused::EdgeAway));
    assert_eq!(proxy.counters().refused, [1, 0, 0, 0]);
}

#[test]
fn commands_are_counted_by_worker_name_and_result() {
    let mut proxy = proxy();
    let (id, _) = opened(&mut proxy);
    proxy.close(NOW, id);
    for command in commands(&mut proxy, WORKER) {
        answer(&mut proxy, &command, Err(Refusal::NoSuchLeg));
        // An answer that comes twice is counted once.
        answer(&mut proxy, &command, Ok(()));
    }
    let counts = proxy.command_counts();
    let count = |op, result| counts.get(&(WORKER, op, result)).copied();
    assert_eq!(count("open_leg", CommandResult::Done), Some(2));
    assert_eq!(count("close_session", CommandResult::Refused), Some(1));
    assert_eq!(count("close_session", CommandResult::Done), None);
}
