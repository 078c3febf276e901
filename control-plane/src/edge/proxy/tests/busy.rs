//! Workers that are past their capacity.

use super::*;

const BUSY: Result<(), Refusal> = Err(Refusal::WorkerBusy);

/// A proxy with two workers, and what it sent for one new session: to the first of them.
fn opening() -> (EdgeProxy, SessionId, Vec<CorrelatedCommand>) {
    let mut proxy = EdgeProxy::new(Epoch(7), vec![LOOPBACK[0], V6]);
    proxy.handle_connected(&workers(2));
    for worker in [WORKER, WorkerIndex(1)] {
        commands(&mut proxy, worker);
    }
    let id = proxy
        .open(NOW, LOOPBACK, [Ssrc(1), Ssrc(2)])
        .expect("ports are free");
    let sent = commands(&mut proxy, WORKER);
    assert_eq!(sent.len(), 2, "the first has as much room as the other");
    (proxy, id, sent)
}

fn refused(id: SessionId) -> Option<MediaEvent> {
    Some(MediaEvent::Refused {
        session: id,
        refusal: Refusal::WorkerBusy,
    })
}

#[test]
fn session_that_a_busy_worker_refuses_tries_another() {
    let (mut proxy, id, sent) = opening();
    answer(&mut proxy, &sent[0], BUSY);
    assert!(
        commands(&mut proxy, WorkerIndex(1)).is_empty(),
        "the other leg may be taken"
    );
    answer(&mut proxy, &sent[1], BUSY);
    let again = commands(&mut proxy, WorkerIndex(1));
    assert_eq!(again.len(), 2);
    for command in &again {
        answer(&mut proxy, command, Ok(()));
    }
    let Some(MediaEvent::Opened { session, local }) = proxy.poll_event() else {
        panic!("the other worker took it");
    };
    assert_eq!(session, id);
    let slice = workers(2)[1].ports;
    let range = slice.first()..=slice.last();
    assert!(local.iter().all(|local| range.contains(&local.rtp.port())));
    assert_eq!(
        pool(&proxy).used_count(),
        0,
        "the busy one has its ports back"
    );

    proxy
        .open(NOW, LOOPBACK, [Ssrc(3), Ssrc(4)])
        .expect("ports are free");
    assert!(
        commands(&mut proxy, WORKER).is_empty(),
        "it is not asked first now"
    );
    assert_eq!(commands(&mut proxy, WorkerIndex(1)).len(), 2);
}

#[test]
fn session_that_every_worker_refuses_is_refused() {
    let (mut proxy, id, sent) = opening();
    for command in &sent {
        answer(&mut proxy, command, BUSY);
    }
    for command in commands(&mut proxy, WorkerIndex(1)) {
        answer(&mut proxy, &command, BUSY);
    }
    assert_eq!(proxy.poll_event(), refused(id));
    assert_eq!(proxy.session_count(), 0);
}

#[test]
fn session_of_which_a_busy_worker_took_one_leg_is_closed_there_and_refused() {
    let (mut proxy, id, sent) = opening();
    answer(&mut proxy, &sent[0], BUSY);
    answer(&mut proxy, &sent[1], Ok(()));
    assert_eq!(proxy.poll_event(), refused(id));
    let closing = commands(&mut proxy, WORKER);
    assert_eq!(closing[0].command, Command::CloseSession { session: id });
    assert!(commands(&mut proxy, WorkerIndex(1)).is_empty());
}
