//! Figures of live sessions, on demand.

use super::*;

fn queries(proxy: &mut EdgeProxy) -> Vec<CorrelatedCommand> {
    let mut sent = commands(proxy, WORKER);
    sent.retain(|c| matches!(c.command, Command::QuerySession { .. }));
    sent
}

fn report(proxy: &mut EdgeProxy, query: &CorrelatedCommand, session: SessionId, rx_packets: u64) {
    let legs = [LegReport {
        rx_packets,
        ..LegReport::default()
    }; 2];
    let reported = Event::SessionReported {
        correlation: query.correlation,
        report: SessionReport { session, legs },
    };
    proxy.handle_event(NOW, reported);
}

#[test]
fn figures_are_asked_for_once_and_kept_for_a_second() {
    let mut proxy = proxy();
    let (id, _) = opened(&mut proxy);
    assert_eq!(proxy.figures(NOW, id), None);
    proxy.query(NOW, id);
    proxy.query(NOW, id);
    assert!(proxy.is_querying());
    let sent = queries(&mut proxy);
    assert_eq!(sent.len(), 1, "they are on their way");
    report(&mut proxy, &sent[0], id, 7);
    assert!(proxy.is_querying(), "the answer is still to come");
    answer(&mut proxy, &sent[0], Ok(()));
    assert!(!proxy.is_querying());

    let rx_packets = |now| Some(proxy.figures(now, id)?[1].rx_packets);
    assert_eq!(rx_packets(NOW.plus_millis(1_000)), Some(7));
    assert_eq!(rx_packets(NOW.plus_millis(1_001)), None);
    proxy.query(NOW.plus_millis(1_000), id);
    assert!(
        queries(&mut proxy).is_empty(),
        "they are still those of now"
    );
    proxy.query(NOW.plus_millis(1_001), id);
    assert_eq!(queries(&mut proxy).len(), 1);
}

#[test]
fn session_that_the_edge_does_not_know_keeps_nobody_waiting() {
    let mut proxy = proxy();
    let (id, _) = opened(&mut proxy);
    proxy.query(NOW, id);
    for query in queries(&mut proxy) {
        answer(&mut proxy, &query, Err(Refusal::NoSuchLeg));
    }
    assert!(!proxy.is_querying());
    assert_eq!(proxy.figures(NOW, id), None);
}

#[test]
fn lost_answers_and_lost_edges_keep_nobody_waiting() {
    let mut proxy = proxy();
    let (id, _) = opened(&mut proxy);
    proxy.query(NOW, id);
    proxy.handle_resync(WORKER);
    assert!(!proxy.is_querying());
    proxy.query(NOW, id);
    proxy.handle_disconnected();
    assert!(!proxy.is_querying());
    proxy.query(NOW, id);
    assert!(!proxy.is_querying(), "nobody is there to answer");
}

#[test]
fn only_so_many_sessions_are_asked_about_at_one_time() {
    let mut proxy = EdgeProxy::new(Epoch(7), vec![LOOPBACK[0]]);
    let range = PortRange::new(30_000, 32_999).expect("valid");
    proxy.handle_connected(&[WorkerInfo {
        worker: WORKER,
        ports: range,
        generation: 1,
    }]);
    commands(&mut proxy, WORKER);
    let ids: Vec<SessionId> = (0..QUERIES_MAX + 1).map(|_| opened(&mut proxy).0).collect();
    for &id in &ids {
        proxy.query(NOW, id);
    }
    let sent = queries(&mut proxy);
    assert_eq!(sent.len(), QUERIES_MAX);
    answer(&mut proxy, &sent[0], Ok(()));
    proxy.query(NOW, ids[QUERIES_MAX]);
    assert_eq!(queries(&mut proxy).len(), 1, "a place has come free");
}
