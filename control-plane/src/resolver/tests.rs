use bytes::Bytes;
use tokio::time::timeout;
use trunkline_testkit::dns::{DnsServer, Record};

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

fn config(server: &DnsServer) -> DnsConfig {
    DnsConfig {
        servers: vec![server.address()],
        timeout_ms: 200,
        attempts: 1,
    }
}

fn resolver(server: &DnsServer) -> Resolver {
    let kinds = vec![TransportKind::Udp, TransportKind::Tcp, TransportKind::Tls];
    Resolver::spawn(&config(server), kinds).expect("a thread")
}

fn uri(text: &'static str) -> Uri {
    Uri::parse(Bytes::from_static(text.as_bytes())).expect("a URI")
}

async fn ask(resolver: &mut Resolver, text: &'static str) -> Result<Located, LocateError> {
    resolver.ask(7, uri(text)).expect("room");
    let resolved = timeout(PATIENCE, resolver.recv()).await.expect("answered");
    assert_eq!(resolved.ticket, 7);
    resolved.outcome
}

fn hops(outcome: Result<Located, LocateError>) -> Vec<String> {
    let hops = outcome.expect("located").hops.into_iter();
    hops.map(|hop| format!("{} {}", hop.kind.name(), hop.address))
        .collect()
}

fn address(text: &str) -> Record {
    Record::Address(text.parse().expect("an address"))
}

fn srv(priority: u16, port: u16, target: &str) -> Record {
    Record::Srv {
        priority,
        weight: 10,
        port,
        target: target.to_owned(),
    }
}

#[tokio::test]
async fn records_of_a_real_server_lead_to_hops_in_order() {
    let server = DnsServer::start().expect("loopback");
    let naptr = |order, service: &str, replacement: &str| Record::Naptr {
        order,
        preference: 1,
        service: service.to_owned(),
        replacement: replacement.to_owned(),
    };
    server.set(
        "carrier.test",
        300,
        &[
            naptr(20, "SIP+D2U", "_sip._udp.carrier.test"),
            naptr(10, "SIPS+D2T", "_sips._tcp.carrier.test"),
        ],
    );
    let tls = [srv(1, 5061, "a.carrier.test")];
    server.set("_sips._tcp.carrier.test", 300, &tls);
    let udp = [
        srv(20, 5070, "a.carrier.test"),
        srv(10, 5080, "b.carrier.test"),
    ];
    server.set("_sip._udp.carrier.test", 300, &udp);
    server.set(
        "a.carrier.test",
        60,
        &[address("::9"), address("127.0.0.9")],
    );
    server.set("b.carrier.test", 300, &[address("127.0.0.8")]);

    let mut resolver = resolver(&server);
    let located = ask(&mut resolver, "sip:carrier.test")
        .await
        .expect("located");
    assert!(
        (50..=60).contains(&located.ttl_secs),
        "{}",
        located.ttl_secs
    );
    assert_eq!(located.hops[0].domain.as_deref(), Some("carrier.test"));
    assert_eq!(
        hops(Ok(located)),
        [
            "tls 127.0.0.9:5061",
            "tls [::9]:5061",
            "udp 127.0.0.8:5080",
            "udp 127.0.0.9:5070",
            "udp [::9]:5070"
        ]
    );
}

#[tokio::test]
async fn answer_is_kept_as_long_as_it_lives_and_absence_too() {
    let server = DnsServer::start().expect("loopback");
    server.set("pbx.test", 300, &[address("127.0.0.5")]);
    let mut resolver = resolver(&server);
    for _ in 0..3 {
        let outcome = ask(&mut resolver, "sip:pbx.test:5060").await;
        assert_eq!(hops(outcome), ["udp 127.0.0.5:5060"]);
        let outcome = ask(&mut resolver, "sip:nobody.test:5060").await;
        assert_eq!(outcome, Err(LocateError::NoAddress));
    }
    // A and AAAA, once each.
    assert_eq!(server.asked_count("pbx.test"), 2);
    assert!(server.asked_count("nobody.test") <= 2);
    let counters = resolver.counters();
    assert_eq!((counters.located, counters.absent), (3, 3));
}

#[tokio::test]
async fn changed_record_is_seen_when_the_old_one_has_lived() {
    let server = DnsServer::start().expect("loopback");
    // Below the least lifetime, which takes its place.
    server.set("moving.test", 1, &[address("127.0.0.5")]);
    let mut resolver = resolver(&server);
    let located = ask(&mut resolver, "sip:moving.test:5060")
        .await
        .expect("located");
    assert_eq!(located.ttl_secs, 5);
    server.set("moving.test", 1, &[address("127.0.0.6")]);
    let again = ask(&mut resolver, "sip:moving.test:5060").await;
    assert_eq!(hops(again), ["udp 127.0.0.5:5060"], "the cache answers");
    let changed = timeout(PATIENCE, async {
        loop {
            let hops = hops(ask(&mut resolver, "sip:moving.test:5060").await);
            if hops != ["udp 127.0.0.5:5060"] {
                return hops;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    assert_eq!(changed.await.expect("refreshed"), ["udp 127.0.0.6:5060"]);
}

#[tokio::test]
async fn silent_server_costs_its_timeout_and_is_told_from_an_absent_name() {
    let server = DnsServer::start().expect("loopback");
    server.set_silent(true);
    let mut resolver = resolver(&server);
    let outcome = ask(&mut resolver, "sip:pbx.test:5060").await;
    assert_eq!(outcome, Err(LocateError::Unanswered));
    server.set_silent(false);
    server.set("pbx.test", 60, &[address("127.0.0.5")]);
    let outcome = ask(&mut resolver, "sip:pbx.test:5060").await;
    assert_eq!(hops(outcome), ["udp 127.0.0.5:5060"], "silence is not kept");
}

#[tokio::test]
async fn questions_are_bounded_and_each_is_answered_once() {
    let server = DnsServer::start().expect("loopback");
    let mut resolver = resolver(&server);
    let mut taken = 0;
    while resolver.ask(taken, uri("sip:192.0.2.1")).is_ok() {
        taken += 1;
        assert!(taken <= OUTSTANDING_MAX as u64);
    }
    assert_eq!(taken, OUTSTANDING_MAX as u64);
    assert_eq!(resolver.counters().refused_busy, 1);
    let mut tickets = std::collections::BTreeSet::new();
    for _ in 0..taken {
        let resolved = timeout(PATIENCE, resolver.recv()).await.expect("answered");
        tickets.insert(resolved.ticket);
    }
    assert_eq!(tickets.len(), OUTSTANDING_MAX);
    assert!(resolver.ask(0, uri("sip:192.0.2.1")).is_ok(), "room again");
}

#[tokio::test]
async fn names_of_the_hosts_file_are_known() {
    let server = DnsServer::start().expect("loopback");
    let locator = Locator::new(&config(&server), vec![TransportKind::Udp]);
    let located = locator.locate(&uri("sip:localhost:5060")).await;
    assert!(hops(located).contains(&"udp 127.0.0.1:5060".to_owned()));
}
