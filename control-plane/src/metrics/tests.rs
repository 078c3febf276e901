use std::collections::BTreeSet;

use trunkline_edge_api::{Counter, DropReason, HistogramCell, WorkerIndex};
use trunkline_sip::AgentCounters;

use super::*;
use crate::cdr::tests::record;
use crate::edge::proxy::CommandResult;
use crate::transport::StreamCounters;

/// A worker whose every cell holds its own index plus 1,000, so one more refusal than commands.
struct Counted;

impl WorkerCounters for Counted {
    fn counter(&self, counter: Counter) -> u64 {
        1_000 + counter.cell() as u64
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        1_000 + reason.cell() as u64
    }

    fn histogram(&self, cell: HistogramCell) -> u64 {
        match cell {
            HistogramCell::Bucket(_, bucket) => bucket as u64 + 1,
            HistogramCell::Sum(_) => 3_000_000,
        }
    }
}

fn text(metrics: &Metrics) -> String {
    String::from_utf8(metrics.render().expect("rendered")).expect("text")
}

fn value(text: &str, sample: &str) -> f64 {
    text.lines()
        .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))
        .unwrap_or_else(|| panic!("{sample} is missing in:\n{text}"))
        .parse()
        .expect("number")
}

#[test]
fn every_metric_shows_every_sample() {
    let metrics = Metrics::new().expect("made");
    let mut calls = metrics.call_metrics().expect("made");
    metrics.watch_cdr(Arc::default()).expect("watched");
    for (i, direction) in CallDirection::ALL.iter().enumerate() {
        calls.set_calls_active(*direction, i + 5);
    }
    let mut inbound = record("a", 0);
    calls.observe_record(&inbound);
    inbound.trunk = None;
    inbound.result = CallResult::Busy;
    (inbound.answer_unix_ms, inbound.setup_ms) = (None, None);
    calls.observe_record(&inbound);
    calls.set_registrations_active(7);
    let counters = AgentCounters {
        retransmissions_sent: 11,
        malformed: 12,
        refused_overload: 13,
        responses_unmatched: 14,
        acks_unmatched: 15,
        dialogs_unknown: 16,
        late_answers: 17,
        requests_abandoned: 18,
        transport_errors: 19,
        ..AgentCounters::default()
    };
    calls.publish_sip(&counters, 21);
    // Totals, not steps: publishing them again adds nothing.
    calls.publish_sip(&counters, 21);
    let proxy = ProxyCounters {
        ring_full: 22,
        replayed: 23,
        refused: [26, 27, 28, 29],
    };
    let mut commands = CommandCounts::new();
    commands.insert((WorkerIndex(1), "open_leg", CommandResult::Done), 30);
    commands.insert((WorkerIndex(1), "open_leg", CommandResult::Refused), 31);
    calls.publish_proxy(&proxy, &commands);
    calls.publish_proxy(&proxy, &commands);
    let page = metrics.workers();
    page.name_interfaces(vec!["outside".to_owned(), "::1".to_owned()]);
    page.publish(WorkerIndex(1), &Counted);
    page.publish_ports(WorkerIndex(1), 0, 24, 25);
    page.publish_ports(WorkerIndex(1), 1, 3, 25);
    // A place that no list has is nobody's.
    page.publish_ports(WorkerIndex(1), 99, 1, 1);

    let text = text(&metrics);
    for (sample, expected) in [
        ("trunkline_calls_active{direction=\"inbound\"}", 5.0),
        ("trunkline_calls_active{direction=\"outbound\"}", 6.0),
        ("trunkline_calls_active{direction=\"internal\"}", 7.0),
        (
            "trunkline_calls_total{direction=\"inbound\",result=\"answered\",trunk=\"carrier-1\"}",
            1.0,
        ),
        (
            "trunkline_calls_total{direction=\"inbound\",result=\"busy\",trunk=\"none\"}",
            1.0,
        ),
        (
            "trunkline_calls_total{direction=\"internal\",result=\"failed\",trunk=\"none\"}",
            0.0,
        ),
        ("trunkline_call_setup_seconds_count", 1.0),
        ("trunkline_call_setup_seconds_bucket{le=\"5\"}", 1.0),
        ("trunkline_call_setup_seconds_bucket{le=\"2\"}", 0.0),
        ("trunkline_call_duration_seconds_sum", 60.0),
        ("trunkline_registrations_active", 7.0),
        (
            "trunkline_sip_requests_total{direction=\"in\",method=\"INVITE\"}",
            0.0,
        ),
        (
            "trunkline_sip_requests_total{direction=\"out\",method=\"other\"}",
            0.0,
        ),
        (
            "trunkline_sip_responses_total{code=\"2xx\",direction=\"in\",method=\"INVITE\"}",
            0.0,
        ),
        (
            "trunkline_sip_responses_total{code=\"6xx\",direction=\"out\",method=\"other\"}",
            0.0,
        ),
        ("trunkline_sip_retransmissions_total", 11.0),
        (
            "trunkline_sip_messages_discarded_total{reason=\"malformed\"}",
            12.0,
        ),
        ("trunkline_sip_refused_overload_total", 13.0),
        (
            "trunkline_sip_messages_discarded_total{reason=\"unmatched_response\"}",
            14.0,
        ),
        (
            "trunkline_sip_messages_discarded_total{reason=\"unmatched_ack\"}",
            15.0,
        ),
        (
            "trunkline_sip_messages_discarded_total{reason=\"unknown_dialog\"}",
            16.0,
        ),
        ("trunkline_sip_late_answers_total", 17.0),
        ("trunkline_sip_requests_abandoned_total", 18.0),
        ("trunkline_sip_transport_errors_total", 19.0),
        ("trunkline_sip_transactions_active", 21.0),
        ("trunkline_ring_full_total", 22.0),
        ("trunkline_ring_sessions_replayed_total", 23.0),
        (
            "trunkline_rtp_packets_total{direction=\"in\",worker=\"1\"}",
            1_000.0,
        ),
        (
            "trunkline_rtp_packets_total{direction=\"out\",worker=\"1\"}",
            1_002.0,
        ),
        (
            "trunkline_rtp_bytes_total{direction=\"in\",worker=\"1\"}",
            1_001.0,
        ),
        (
            "trunkline_rtcp_packets_total{direction=\"out\",worker=\"1\"}",
            1_005.0,
        ),
        (
            "trunkline_rtp_dropped_packets_total{reason=\"source_not_allowed\",worker=\"1\"}",
            1_071.0,
        ),
        (
            "trunkline_ring_commands_total{op=\"open_leg\",result=\"done\",worker=\"1\"}",
            30.0,
        ),
        (
            "trunkline_ring_commands_total{op=\"open_leg\",result=\"refused\",worker=\"1\"}",
            31.0,
        ),
        ("trunkline_media_refused_total{reason=\"edge_away\"}", 26.0),
        ("trunkline_media_refused_total{reason=\"no_ports\"}", 27.0),
        ("trunkline_media_refused_total{reason=\"edge_busy\"}", 28.0),
        (
            "trunkline_media_refused_total{reason=\"edge_refused\"}",
            29.0,
        ),
        (
            "trunkline_worker_commands_total{result=\"done\",worker=\"1\"}",
            0.0,
        ),
        (
            "trunkline_worker_commands_total{result=\"refused\",worker=\"1\"}",
            1_007.0,
        ),
        (
            "trunkline_ring_events_total{result=\"dropped\",worker=\"1\"}",
            1_010.0,
        ),
        ("trunkline_sessions_active{worker=\"1\"}", 1_014.0),
        (
            "trunkline_sessions_lost_total{reason=\"orphaned\",worker=\"1\"}",
            1_018.0,
        ),
        (
            "trunkline_ports_used{interface=\"outside\",worker=\"1\"}",
            24.0,
        ),
        ("trunkline_ports_used{interface=\"::1\",worker=\"1\"}", 3.0),
        (
            "trunkline_ports_capacity{interface=\"::1\",worker=\"1\"}",
            25.0,
        ),
        ("trunkline_cdr_records_total{result=\"lost\"}", 0.0),
        ("trunkline_cdr_spool_bytes", 0.0),
        ("trunkline_cdr_records_in_memory", 0.0),
    ] {
        assert_eq!(value(&text, sample), expected, "{sample}");
    }
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        value(
            &text,
            &format!("trunkline_build_info{{version=\"{version}\"}}")
        ),
        1.0
    );
    let nanos = value(&text, "trunkline_worker_busy_seconds_total{worker=\"1\"}");
    assert!((nanos - 1_012e-9).abs() < 1e-12);
}

const DISTRIBUTIONS: [&str; 3] = [
    "trunkline_rtp_jitter_seconds",
    "trunkline_rtp_mos",
    "trunkline_rtp_forward_latency_seconds",
];

#[test]
fn distributions_are_cumulative_and_in_base_units() {
    let metrics = Metrics::new().expect("made");
    metrics.workers().publish(WorkerIndex(0), &Counted);
    let text = text(&metrics);
    for (sample, expected) in [
        // Counted puts n + 1 values into bucket n.
        (
            "trunkline_rtp_jitter_seconds_bucket{worker=\"0\",le=\"0.0005\"}",
            1.0,
        ),
        (
            "trunkline_rtp_jitter_seconds_bucket{worker=\"0\",le=\"0.001\"}",
            3.0,
        ),
        (
            "trunkline_rtp_jitter_seconds_bucket{worker=\"0\",le=\"+Inf\"}",
            78.0,
        ),
        ("trunkline_rtp_jitter_seconds_count{worker=\"0\"}", 78.0),
        ("trunkline_rtp_jitter_seconds_sum{worker=\"0\"}", 3.0),
        ("trunkline_rtp_mos_sum{worker=\"0\"}", 30_000.0),
        (
            "trunkline_rtp_forward_latency_seconds_count{worker=\"0\"}",
            91.0,
        ),
    ] {
        assert!(
            (value(&text, sample) - expected).abs() < 1e-9,
            "{sample}\n{text}"
        );
    }
}

#[test]
fn every_worker_counter_has_a_sample_of_its_own() {
    let metrics = Metrics::new().expect("made");
    metrics.workers().publish(WorkerIndex(0), &Counted);
    let text = text(&metrics);
    let samples: BTreeSet<&str> = text
        .lines()
        .filter(|line| line.contains("worker=\"0\"") && !line.contains("trunkline_ports_"))
        .filter(|line| !DISTRIBUTIONS.iter().any(|name| line.starts_with(name)))
        .collect();
    assert_eq!(
        samples.len(),
        Counter::ALL.len() + DropReason::ALL.len(),
        "{text}"
    );
}

#[test]
fn every_name_is_ours_and_every_counter_ends_in_total() {
    let metrics = Metrics::new().expect("made");
    let _calls = metrics.call_metrics().expect("made");
    metrics.watch_cdr(Arc::default()).expect("watched");
    metrics.workers().publish(WorkerIndex(0), &Counted);
    for line in text(&metrics)
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
    {
        let (name, kind) = line.split_once(' ').expect("name and kind");
        assert!(name.starts_with("trunkline_"), "{name}");
        assert_eq!(
            kind == "counter",
            name.ends_with("_total"),
            "{name} is a {kind}"
        );
    }
}

#[test]
fn counter_never_goes_back() {
    let metrics = Metrics::new().expect("made");
    let mut calls = metrics.call_metrics().expect("made");
    for malformed in [5, 3, 9] {
        let counters = AgentCounters {
            malformed,
            ..AgentCounters::default()
        };
        calls.publish_sip(&counters, 0);
    }
    let sample = "trunkline_sip_messages_discarded_total{reason=\"malformed\"}";
    assert_eq!(value(&text(&metrics), sample), 9.0);
}

#[test]
fn workers_of_an_edge_that_is_gone_are_not_shown() {
    let metrics = Metrics::new().expect("made");
    metrics.workers().publish(WorkerIndex(0), &Counted);
    metrics.workers().clear();
    assert!(!text(&metrics).contains("worker="));
    metrics.workers().publish(WorkerIndex(u16::MAX), &Counted);
    assert!(!text(&metrics).contains("worker="));
}

#[test]
fn trunk_labels_are_bounded() {
    let metrics = Metrics::new().expect("made");
    let mut calls = metrics.call_metrics().expect("made");
    for i in 0..TRUNK_LABELS_MAX + 10 {
        let mut record = record("a", 0);
        record.trunk = Some(format!("t{i}"));
        calls.observe_record(&record);
    }
    let text = text(&metrics);
    let sample = "trunkline_calls_total{direction=\"inbound\",result=\"answered\",trunk=\"other\"}";
    assert_eq!(value(&text, sample), 10.0);
    assert!(text.contains("trunk=\"t999\"") && !text.contains("trunk=\"t1000\""));
}

#[test]
fn sip_sockets_show_what_they_count() {
    let metrics = Metrics::new().expect("made");
    let mut calls = metrics.call_metrics().expect("made");
    calls.publish_transport(&TransportCounters {
        udp_messages_received: 3,
        tcp: StreamCounters {
            cut_slow_reader: 2,
            ..StreamCounters::default()
        },
        connections_active: 4,
        ..TransportCounters::default()
    });
    let text = text(&metrics);
    for (sample, expected) in [
        (
            "trunkline_sip_messages_total{direction=\"in\",transport=\"udp\"}",
            3.0,
        ),
        (
            "trunkline_sip_messages_total{direction=\"out\",transport=\"udp\"}",
            0.0,
        ),
        (
            "trunkline_sip_transport_events_total{event=\"cut_slow_reader\",transport=\"tcp\"}",
            2.0,
        ),
        ("trunkline_sip_connections_active", 4.0),
    ] {
        assert!(
            (value(&text, sample) - expected).abs() < f64::EPSILON,
            "{sample}"
        );
    }
}
