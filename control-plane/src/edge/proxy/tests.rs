use trunkline_edge_api::Event;

use super::*;
use trunkline_edge_api::{
    LegCrypto, MediaDirection, MediaTimeouts, PayloadRoutes, PortRange, SourcePolicy, SrtpKey,
    SrtpSuite,
};

use crate::edge::PortPool;

mod busy;
mod figures;
mod ports;

pub(super) const NOW: MonoTime = MonoTime(1_000_000_000);
pub(super) const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(std::net::Ipv4Addr::LOCALHOST); 2];
const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);
pub(super) const WORKER: WorkerIndex = WorkerIndex(0);

pub(super) fn workers(count: u16) -> Vec<WorkerInfo> {
    let range = PortRange::new(30_000, 30_019).expect("valid");
    (0..count)
        .map(|i| WorkerInfo {
            worker: WorkerIndex(i),
            ports: range.slice(WorkerIndex(i), count).expect("wide enough"),
            generation: 1,
        })
        .collect()
}

pub(super) fn proxy() -> EdgeProxy {
    let mut proxy = EdgeProxy::new(Epoch(7), vec![LOOPBACK[0], V6]);
    proxy.handle_connected(&workers(1));
    assert_eq!(
        commands(&mut proxy, WORKER)
            .into_iter()
            .map(|c| c.command)
            .collect::<Vec<_>>(),
        [Command::CloseOtherEpochs { keep: Epoch(7) }]
    );
    proxy
}

/// The first worker's ports on the IPv4 address.
fn pool(proxy: &EdgeProxy) -> &PortPool {
    let (_, pools) = proxy.port_pools().next().expect("one worker");
    pools.get(LOOPBACK[0]).expect("bound there")
}

pub(super) fn commands(proxy: &mut EdgeProxy, worker: WorkerIndex) -> Vec<CorrelatedCommand> {
    std::iter::from_fn(|| {
        let command = proxy.peek_command(worker)?.clone();
        proxy.command_sent(worker);
        Some(command)
    })
    .collect()
}

pub(super) fn answer(
    proxy: &mut EdgeProxy,
    command: &CorrelatedCommand,
    result: Result<(), Refusal>,
) {
    proxy.handle_event(
        NOW,
        Event::CommandDone {
            correlation: command.correlation,
            result,
        },
    );
}

pub(super) fn opened(proxy: &mut EdgeProxy) -> (SessionId, LocalPair) {
    let id = proxy
        .open(NOW, LOOPBACK, [Ssrc(1), Ssrc(2)])
        .expect("ports are free");
    for command in commands(proxy, WORKER) {
        answer(proxy, &command, Ok(()));
    }
    match proxy.poll_event() {
        Some(MediaEvent::Opened { session, local }) if session == id => (id, local),
        other => panic!("expected the session to open, got {other:?}"),
    }
}

pub(super) fn config() -> LegConfig {
    LegConfig {
        remote_rtp: None,
        remote_rtcp: None,
        source: SourcePolicy::Nobody,
        direction: MediaDirection::Inactive,
        routes: PayloadRoutes::default(),
        crypto: None,
        timeouts: MediaTimeouts::OFF,
    }
}

#[test]
fn session_opens_only_after_both_legs_are_bound() {
    let mut proxy = proxy();
    let id = proxy
        .open(NOW, LOOPBACK, [Ssrc(1), Ssrc(2)])
        .expect("ports are free");
    let sent = commands(&mut proxy, WORKER);
    assert_eq!(sent.len(), 2);
    answer(&mut proxy, &sent[0], Ok(()));
    assert_eq!(proxy.poll_event(), None);
    answer(&mut proxy, &sent[1], Ok(()));
    let Some(MediaEvent::Opened { session, local }) = proxy.poll_event() else {
        panic!("both legs are bound");
    };
    assert_eq!(session, id);
    assert_eq!([local[0].rtp.port(), local[1].rtp.port()], [30_000, 30_002]);
    assert_eq!([local[0].ssrc, local[1].ssrc], [Ssrc(1), Ssrc(2)]);
}

#[test]
fn busy_port_is_set_aside_and_the_next_one_tried() {
    let mut proxy = proxy();
    proxy
        .open(NOW, LOOPBACK, [Ssrc(1), Ssrc(2)])
        .expect("ports are free");
    let sent = commands(&mut proxy, WORKER);
    answer(&mut proxy, &sent[0], Err(Refusal::AddressInUse));
    answer(&mut proxy, &sent[1], Ok(()));
    let retry = commands(&mut proxy, WORKER);
    answer(&mut proxy, &retry[0], Ok(()));
    let Some(MediaEvent::Opened { local, .. }) = proxy.poll_event() else {
        panic!("the next port was free");
    };
    assert_eq!(local[0].rtp.port(), 30_004);
    let pool = pool(&proxy);
    assert_eq!(pool.set_aside_total(), 1);
}

#[test]
fn range_held_by_another_program_refuses_the_call_and_leaks_no_port() {
    let mut proxy = proxy();
    let id = proxy
        .open(NOW, LOOPBACK, [Ssrc(1), Ssrc(2)])
        .expect("ports are free");
    loop {
        let sent = commands(&mut proxy, WORKER);
        if sent
            .iter()
            .any(|c| matches!(c.command, Command::CloseSession { .. }))
        {
            break;
        }
        assert!(!sent.is_empty(), "the proxy gave up without saying so");
        for command in sent {
            answer(&mut proxy, &command, Err(Refusal::AddressInUse));
        }
    }
    assert_eq!(
        proxy.poll_event(),
        Some(MediaEvent::Refused {
            session: id,
            refusal: Refusal::AddressInUse
        })
    );
    assert_eq!(proxy.session_count(), 0);
    let pool = pool(&proxy);
    let back_in_use = u64::from(pool.free_count()) + pool.set_aside_total();
    assert_eq!(back_in_use, u64::from(pool.capacity()));
}

#[test]
fn closed_session_reports_its_figures_and_frees_its_ports() {
    let mut proxy = proxy();
    let (id, _) = opened(&mut proxy);
    proxy.close(NOW, id);
    assert!(matches!(
        commands(&mut proxy, WORKER)[..],
        [CorrelatedCommand { command: Command::CloseSession { session }, .. }] if session == id
    ));
    let legs = [
        LegReport {
            rx_packets: 5,
            ..LegReport::default()
        },
        LegReport::default(),
    ];
    let report = SessionReport { session: id, legs };
    proxy.handle_event(
        NOW,
        Event::SessionClosed {
            cause: CloseCause::Commanded,
            report,
        },
    );
    assert_eq!(
        proxy.poll_event(),
        Some(MediaEvent::Closed {
            session: id,
            cause: Some(CloseCause::Commanded),
            legs: Some(legs)
        })
    );
    let pool = pool(&proxy);
    assert_eq!(pool.free_count(), pool.capacity());
    assert_eq!(proxy.session_count(), 0);
}

#[test]
fn closing_that_nobody_confirms_ends_after_its_timeout() {
    let mut proxy = proxy();
    let (id, _) = opened(&mut proxy);
    proxy.close(NOW, id);
    let deadline = proxy.poll_timeout().expect("closing is guarded");
    proxy.handle_timeout(MonoTime(deadline.0 - 1));
    assert_eq!(proxy.poll_event(), None);
    proxy.handle_timeout(deadline);
    assert_eq!(
        proxy.poll_event(),
        Some(MediaEvent::Closed {
            session: id,
            cause: None,
            legs: None
        })
    );
}

#[test]
fn restarted_edge_hears_every_session_again_on_the_same_ports() {
    let mut proxy = proxy();
    let (id, local) = opened(&mut proxy);
    proxy.configure(id, LegIndex::A, config());
    commands(&mut proxy, WORKER);

    proxy.handle_disconnected();
    assert_eq!(
        proxy.open(NOW, LOOPBACK, [Ssrc(3), Ssrc(4)]),
        Err(MediaRefused::EdgeAway)
    );
    proxy.handle_connected(&workers(1));
    let said: Vec<Command> = commands(&mut proxy, WORKER)
        .into_iter()
        .map(|c| c.command)
        .collect();
    assert_eq!(
        said,
        [
            Command::CloseOtherEpochs { keep: Epoch(7) },
            Command::OpenLeg {
                session: id,
                leg: LegIndex::A,
                local: local[0]
            },
            Command::ConfigureLeg {
                session: id,
                leg: LegIndex::A,
                config: config()
            },
            Command::OpenLeg {
                session: id,
                leg: LegIndex::B,
                local: local[1]
            },
        ]
    );
}

fn secured() -> LegConfig {
    let suite = SrtpSuite::AeadAes128Gcm;
    let key = SrtpKey::new(suite, &[7; 28]).expect("28 bytes");
    let crypto = LegCrypto {
        suite,
        send: key.clone(),
        receive: key,
    };
    LegConfig {
        crypto: Some(crypto),
        ..config()
    }
}

#[test]
fn protected_session_ends_with_its_edge_and_outlives_a_lost_connection() {
    let mut proxy = proxy();
    let (plain, _) = opened(&mut proxy);
    let (protected, _) = opened(&mut proxy);
    proxy.configure(plain, LegIndex::A, config());
    proxy.configure(protected, LegIndex::B, secured());
    commands(&mut proxy, WORKER);

    proxy.handle_disconnected();
    proxy.handle_connected(&workers(1));
    assert_eq!((proxy.poll_event(), proxy.session_count()), (None, 2));

    let mut restarted = workers(1);
    restarted[0].generation = 2;
    proxy.handle_disconnected();
    proxy.handle_connected(&restarted);
    let ended = MediaEvent::Closed {
        session: protected,
        cause: None,
        legs: None,
    };
    assert_eq!(proxy.poll_event(), Some(ended));
    assert_eq!((proxy.poll_event(), proxy.session_count()), (None, 1));
    let said = commands(&mut proxy, WORKER);
    let is_about_it = |c: &CorrelatedCommand| c.command.session() == Some(protected);
    assert!(!said.iter().any(is_about_it), "its keys are not used again");
    assert!(said.iter().any(|c| c.command.session() == Some(plain)));
}

/// A second binding would seal other payloads under indices that were used.
#[test]
fn protected_session_whose_end_was_lost_is_not_opened_again() {
    let resync: fn(&mut EdgeProxy) = |proxy| proxy.handle_resync(WORKER);
    let reconnect: fn(&mut EdgeProxy) = |proxy| {
        proxy.handle_disconnected();
        proxy.handle_connected(&workers(1));
    };
    for say_again in [resync, reconnect] {
        let mut proxy = proxy();
        let (plain, _) = opened(&mut proxy);
        let (protected, _) = opened(&mut proxy);
        proxy.configure(plain, LegIndex::A, config());
        proxy.configure(protected, LegIndex::B, secured());
        for command in commands(&mut proxy, WORKER) {
            answer(&mut proxy, &command, Ok(()));
        }
        while proxy.poll_event().is_some() {}

        say_again(&mut proxy);
        let said = commands(&mut proxy, WORKER);
        let opens = |session| {
            let about = said.iter().filter(|c| c.command.session() == Some(session));
            about
                .filter(|c| matches!(c.command, Command::OpenLeg { .. }))
                .count()
        };
        assert_eq!((opens(plain), opens(protected)), (2, 0));
        let configure = said
            .iter()
            .find(|c| c.command.session() == Some(protected))
            .expect("its configuration is said again");
        answer(&mut proxy, configure, Err(Refusal::NoSuchLeg));
        let ended = MediaEvent::Closed {
            session: protected,
            cause: None,
            legs: None,
        };
        assert_eq!(proxy.poll_event(), Some(ended));
        assert_eq!(proxy.session_count(), 1);
    }
}

/// The answer to its binding is among what was lost: it may have been bound and closed.
#[test]
fn protected_session_of_which_nobody_knows_whether_it_is_bound_ends() {
    let mut proxy = proxy();
    let id = proxy
        .open(NOW, LOOPBACK, [Ssrc(1), Ssrc(2)])
        .expect("ports are free");
    proxy.configure(id, LegIndex::A, secured());
    commands(&mut proxy, WORKER);
    proxy.handle_resync(WORKER);
    let said: Vec<Command> = commands(&mut proxy, WORKER)
        .into_iter()
        .map(|c| c.command)
        .collect();
    assert_eq!(said, [Command::CloseSession { session: id }]);
    assert_eq!(proxy.session_count(), 0);
}

#[test]
fn port_that_a_killed_edge_still_holds_is_bound_again_until_it_is_free() {
    let mut proxy = proxy();
    let (id, local) = opened(&mut proxy);
    proxy.handle_disconnected();
    proxy.handle_connected(&workers(1));
    let said = commands(&mut proxy, WORKER);
    answer(&mut proxy, &said[1], Err(Refusal::AddressInUse));
    answer(&mut proxy, &said[2], Ok(()));
    assert_eq!(proxy.poll_event(), None);

    let retry_at = proxy.poll_timeout().expect("a retry is due");
    proxy.handle_timeout(retry_at);
    let retried = commands(&mut proxy, WORKER);
    assert_eq!(
        retried[0].command,
        Command::OpenLeg {
            session: id,
            leg: LegIndex::A,
            local: local[0]
        }
    );
    answer(&mut proxy, &retried[0], Ok(()));
    assert_eq!(
        proxy.poll_event(),
        None,
        "the call goes on and nobody is told"
    );
    assert_eq!(proxy.session_count(), 1);
}

#[test]
fn session_whose_worker_is_gone_after_a_restart_is_given_up() {
    let mut proxy = EdgeProxy::new(Epoch(7), vec![LOOPBACK[0], V6]);
    proxy.handle_connected(&workers(2));
    for worker in [WorkerIndex(0), WorkerIndex(1)] {
        commands(&mut proxy, worker);
    }
    // Two sessions, one on each worker: the emptier worker takes the next.
    let ids: Vec<SessionId> = (0..2)
        .map(|_| {
            proxy
                .open(NOW, LOOPBACK, [Ssrc(1), Ssrc(2)])
                .expect("ports are free")
        })
        .collect();
    proxy.handle_disconnected();
    let fewer = &workers(2)[..1];
    proxy.handle_connected(fewer);
    let lost: Vec<SessionId> = std::iter::from_fn(|| proxy.poll_event())
        .map(|event| match event {
            MediaEvent::Refused { session, .. } => session,
            other => panic!("unexpected {other:?}"),
        })
        .collect();
    assert_eq!(lost.len(), 1);
    assert!(ids.contains(&lost[0]));
    assert_eq!(proxy.session_count(), 1);
}

#[test]
fn exhausted_ports_refuse_the_next_session() {
    let mut proxy = proxy();
    for _ in 0..5 {
        opened(&mut proxy);
    }
    assert_eq!(
        proxy.open(NOW, LOOPBACK, [Ssrc(1), Ssrc(2)]),
        Err(MediaRefused::NoPorts)
    );
}

#[test]
fn configured_is_told_once_the_worker_has_taken_both_legs() {
    let mut proxy = proxy();
    let (id, _) = opened(&mut proxy);
    proxy.configure(id, LegIndex::A, config());
    proxy.configure(id, LegIndex::B, config());
    let sent = commands(&mut proxy, WORKER);
    answer(&mut proxy, &sent[0], Ok(()));
    assert_eq!(proxy.poll_event(), None);
    answer(&mut proxy, &sent[1], Ok(()));
    assert_eq!(
        proxy.poll_event(),
        Some(MediaEvent::Configured { session: id })
    );
}

#[test]
fn only_the_newest_configuration_of_a_leg_counts() {
    let mut proxy = proxy();
    let (id, _) = opened(&mut proxy);
    proxy.configure(id, LegIndex::A, config());
    proxy.configure(id, LegIndex::A, config());
    let sent = commands(&mut proxy, WORKER);
    answer(&mut proxy, &sent[0], Ok(()));
    assert_eq!(proxy.poll_event(), None);
    answer(&mut proxy, &sent[1], Ok(()));
    assert_eq!(
        proxy.poll_event(),
        Some(MediaEvent::Configured { session: id })
    );
}

#[test]
fn refused_configuration_gives_the_session_up() {
    let mut proxy = proxy();
    let (id, _) = opened(&mut proxy);
    proxy.configure(id, LegIndex::B, config());
    let sent = commands(&mut proxy, WORKER);
    answer(&mut proxy, &sent[0], Err(Refusal::AddressMismatch));
    assert_eq!(
        proxy.poll_event(),
        Some(MediaEvent::Refused {
            session: id,
            refusal: Refusal::AddressMismatch
        })
    );
    assert_eq!(proxy.session_count(), 0);
    let pool = pool(&proxy);
    assert_eq!(pool.free_count(), pool.capacity());
}
