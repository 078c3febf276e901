use std::collections::HashMap;

use bytes::Bytes;

use super::*;
use crate::entropy::SeededEntropy;

const ALL: &[TransportKind] = &[TransportKind::Udp, TransportKind::Tcp, TransportKind::Tls];

/// A small DNS. What is not in it does not exist.
#[derive(Default)]
struct Zone {
    answers: HashMap<Question, Answer>,
    asked: std::cell::RefCell<Vec<Question>>,
}

impl Zone {
    fn with(mut self, question: Question, ttl_secs: u32, records: Option<Records>) -> Self {
        self.answers.insert(question, Answer { records, ttl_secs });
        self
    }

    fn naptr(self, name: &str, rows: &[(u16, u16, &str, &str)]) -> Self {
        let records = rows
            .iter()
            .map(|(order, preference, services, to)| NaptrRecord {
                order: *order,
                preference: *preference,
                flags: "s".to_owned(),
                services: (*services).to_owned(),
                replacement: (*to).to_owned(),
            });
        let records = Some(Records::Naptr(records.collect()));
        self.with(Question::Naptr(name.to_owned()), 3_600, records)
    }

    fn srv(self, name: &str, rows: &[(u16, u16, u16, &str)]) -> Self {
        let records = rows
            .iter()
            .map(|(priority, weight, port, target)| SrvRecord {
                priority: *priority,
                weight: *weight,
                port: *port,
                target: (*target).to_owned(),
            });
        let records = Some(Records::Srv(records.collect()));
        self.with(Question::Srv(name.to_owned()), 600, records)
    }

    fn host(self, name: &str, addresses: &[&str]) -> Self {
        let addresses = addresses.iter().map(|ip| ip.parse().expect("an address"));
        let records = Some(Records::Addresses(addresses.collect()));
        self.with(Question::Addresses(name.to_owned()), 60, records)
    }

    fn answer(&self, question: &Question) -> Answer {
        self.asked.borrow_mut().push(question.clone());
        let nothing = || match question {
            Question::Naptr(_) => Records::Naptr(Vec::new()),
            Question::Srv(_) => Records::Srv(Vec::new()),
            Question::Addresses(_) => Records::Addresses(Vec::new()),
        };
        self.answers
            .get(question)
            .cloned()
            .unwrap_or_else(|| Answer {
                records: Some(nothing()),
                ttl_secs: 900,
            })
    }

    fn locate_by(
        &self,
        uri: &str,
        kinds: &[TransportKind],
        seed: u64,
    ) -> Result<Located, LocateError> {
        let uri = Uri::parse(Bytes::copy_from_slice(uri.as_bytes())).expect("a URI");
        let mut location = Location::new(&uri, kinds);
        let mut entropy = SeededEntropy::new(seed);
        for _ in 0..4 {
            let questions = location.questions();
            if questions.is_empty() {
                return location.finish();
            }
            location.handle_answers(|question| self.answer(question), &mut entropy);
        }
        panic!("asks on and on: {location:?}");
    }

    fn hops(&self, uri: &str) -> String {
        match self.locate_by(uri, ALL, 1) {
            Ok(located) => shown(&located),
            Err(error) => error.to_string(),
        }
    }
}

fn shown(located: &Located) -> String {
    let hop = |hop: &Hop| format!("{} {}", hop.kind.name(), hop.address);
    located.hops.iter().map(hop).collect::<Vec<_>>().join(", ")
}

fn carrier() -> Zone {
    Zone::default()
        .naptr(
            "carrier.example",
            &[
                (20, 10, "SIP+D2U", "_sip._udp.carrier.example"),
                (10, 50, "SIP+D2T", "_sip._tcp.carrier.example"),
                (10, 20, "SIPS+D2T", "_sips._tcp.carrier.example"),
                (1, 1, "E2U+sip", "elsewhere.example"),
            ],
        )
        .srv(
            "_sips._tcp.carrier.example",
            &[(1, 0, 5061, "a.carrier.example")],
        )
        .srv(
            "_sip._tcp.carrier.example",
            &[(1, 0, 5080, "a.carrier.example")],
        )
        .srv(
            "_sip._udp.carrier.example",
            &[
                (20, 0, 5060, "b.carrier.example"),
                (10, 0, 5070, "a.carrier.example"),
            ],
        )
        .host("a.carrier.example", &["192.0.2.1", "2001:db8::1"])
        .host("b.carrier.example", &["192.0.2.2"])
        .host("carrier.example", &["192.0.2.9"])
}

#[test]
fn what_a_uri_says_itself_is_not_asked_for() {
    let rows = [
        ("sip:192.0.2.7", "udp 192.0.2.7:5060"),
        ("sip:192.0.2.7:5070;transport=tcp", "tcp 192.0.2.7:5070"),
        ("sips:192.0.2.7", "tls 192.0.2.7:5061"),
        ("sip:[2001:db8::7];transport=tls", "tls [2001:db8::7]:5061"),
        // A port without a transport: UDP, and TLS for sips (RFC 3263 §4.1).
        ("sip:carrier.example:5090", "udp 192.0.2.9:5090"),
        ("sips:carrier.example:5090", "tls 192.0.2.9:5090"),
        (
            "sip:CARRIER.example.:5090;transport=tcp",
            "tcp 192.0.2.9:5090",
        ),
        // A transport without a port: its SRV records.
        (
            "sip:carrier.example;transport=udp",
            "udp 192.0.2.1:5070, udp [2001:db8::1]:5070, udp 192.0.2.2:5060",
        ),
        ("sip:nothing.example", "the DNS has no address for it"),
        (
            "sip:carrier.example;transport=sctp",
            "no socket of [sip] listen speaks the transport of the URI",
        ),
        (
            "sip:carrier.example;transport=ws",
            "no socket of [sip] listen speaks the transport of the URI",
        ),
        ("tel:+15551234", "not a SIP URI"),
    ];
    for (uri, expected) in rows {
        assert_eq!(carrier().hops(uri), expected, "{uri}");
    }
    let zone = carrier();
    assert_eq!(zone.hops("sip:carrier.example:5090"), "udp 192.0.2.9:5090");
    let only = [Question::Addresses("carrier.example".to_owned())];
    assert_eq!(*zone.asked.borrow(), only);
}

#[test]
fn naptr_decides_the_transport_and_srv_the_hosts() {
    assert_eq!(
        carrier().hops("sip:carrier.example"),
        "tls 192.0.2.1:5061, tls [2001:db8::1]:5061, tcp 192.0.2.1:5080, tcp [2001:db8::1]:5080, \
         udp 192.0.2.1:5070, udp [2001:db8::1]:5070, udp 192.0.2.2:5060"
    );
    // A sips URI never leaves TLS.
    assert_eq!(
        carrier().hops("sips:carrier.example"),
        "tls 192.0.2.1:5061, tls [2001:db8::1]:5061"
    );
    // What we do not speak is passed over.
    let located = carrier().locate_by("sip:carrier.example", &[TransportKind::Udp], 1);
    let located = located.expect("located");
    assert_eq!(
        shown(&located),
        "udp 192.0.2.1:5070, udp [2001:db8::1]:5070, udp 192.0.2.2:5060"
    );
    assert_eq!(
        carrier().locate_by("sips:carrier.example", &[TransportKind::Udp], 1),
        Err(LocateError::Transport)
    );
}

#[test]
fn certificate_must_name_the_domain_of_the_uri_and_not_the_host_that_serves_it() {
    let located = carrier().locate_by("sips:carrier.example", ALL, 1);
    let hops = located.expect("located").hops;
    assert!(
        hops.iter()
            .all(|hop| hop.domain.as_deref() == Some("carrier.example"))
    );
    let located = carrier().locate_by("sips:192.0.2.7", ALL, 1);
    assert_eq!(located.expect("located").hops[0].domain, None);
}

#[test]
fn without_naptr_every_transport_is_looked_for_and_without_srv_the_host_itself_is_taken() {
    let zone = Zone::default()
        .srv(
            "_sip._tcp.small.example",
            &[(1, 1, 5062, "pbx.small.example")],
        )
        .host("pbx.small.example", &["198.51.100.1"])
        .host("tiny.example", &["198.51.100.2", "198.51.100.3"]);
    assert_eq!(zone.hops("sip:small.example"), "tcp 198.51.100.1:5062");
    assert_eq!(
        zone.hops("sip:tiny.example"),
        "udp 198.51.100.2:5060, udp 198.51.100.3:5060"
    );
    assert_eq!(
        zone.hops("sips:tiny.example"),
        "tls 198.51.100.2:5061, tls 198.51.100.3:5061"
    );
    let by_tcp = zone.locate_by("sip:tiny.example", &[TransportKind::Tcp], 1);
    assert_eq!(
        shown(&by_tcp.expect("located")),
        "tcp 198.51.100.2:5060, tcp 198.51.100.3:5060"
    );
}

#[test]
fn service_that_says_it_is_not_there_is_believed() {
    let zone = Zone::default()
        .srv("_sip._udp.gone.example", &[(0, 0, 0, "")])
        .host("gone.example", &["198.51.100.2"]);
    assert_eq!(
        zone.hops("sip:gone.example"),
        "the DNS has no address for it"
    );
}

#[test]
fn host_without_an_address_is_passed_over() {
    let zone = carrier().host("a.carrier.example", &[]);
    assert_eq!(zone.hops("sip:carrier.example"), "udp 192.0.2.2:5060");
}

#[test]
fn silence_of_the_dns_is_told_from_an_empty_answer() {
    let silent = Zone::default().with(Question::Addresses("x.example".to_owned()), 30, None);
    assert_eq!(
        silent.locate_by("sip:x.example", ALL, 1),
        Err(LocateError::Unanswered)
    );
    // What was answered is used all the same.
    let half = carrier().with(
        Question::Addresses("a.carrier.example".to_owned()),
        30,
        None,
    );
    assert_eq!(half.hops("sip:carrier.example"), "udp 192.0.2.2:5060");
}

#[test]
fn outcome_holds_as_long_as_its_shortest_record() {
    let ttl = |uri| carrier().locate_by(uri, ALL, 1).expect("located").ttl_secs;
    assert_eq!(ttl("sip:carrier.example"), 60);
    assert_eq!(ttl("sip:192.0.2.7"), LIFETIME_MAX_SECS);
}

#[test]
fn weights_share_the_first_place_and_priorities_never_mix() {
    let zone = Zone::default()
        .srv(
            "_sip._udp.w.example",
            &[
                (10, 60, 5060, "a.example"),
                (10, 20, 5060, "b.example"),
                (10, 20, 5060, "c.example"),
                (20, 65_535, 5060, "d.example"),
            ],
        )
        .host("a.example", &["192.0.2.1"])
        .host("b.example", &["192.0.2.2"])
        .host("c.example", &["192.0.2.3"])
        .host("d.example", &["192.0.2.4"]);
    let mut first = HashMap::new();
    for seed in 0..2_000 {
        let located = zone.locate_by("sip:w.example;transport=udp", ALL, seed);
        let hops = located.expect("located").hops;
        assert_eq!(hops.len(), 4);
        assert_eq!(hops[3].address.to_string(), "192.0.2.4:5060");
        *first.entry(hops[0].address.ip().to_string()).or_insert(0) += 1;
    }
    let share = |ip: &str| first.get(ip).copied().unwrap_or(0);
    assert!((1_100..1_300).contains(&share("192.0.2.1")), "{first:?}");
    assert!((320..480).contains(&share("192.0.2.2")), "{first:?}");
    assert!((320..480).contains(&share("192.0.2.3")), "{first:?}");
}

#[test]
fn hostile_zone_is_bounded() {
    let names: Vec<String> = (0..500).map(|n| format!("h{n}.example")).collect();
    let rows: Vec<_> = names
        .iter()
        .map(|name| (1, 1, 5060, name.as_str()))
        .collect();
    let addresses: Vec<String> = (0..250).map(|n| format!("192.0.2.{n}")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let mut zone = Zone::default().srv("_sip._udp.big.example", &rows);
    for name in &names {
        zone = zone.host(name, &addresses);
    }
    let located = zone.locate_by("sip:big.example;transport=udp", ALL, 3);
    assert_eq!(located.expect("located").hops.len(), HOPS_MAX);
    assert!(zone.asked.borrow().len() <= HOSTS_MAX + 1);
    let long = format!("sip:{}.example", "x".repeat(300));
    assert_eq!(zone.locate_by(&long, ALL, 1), Err(LocateError::Name));
}
