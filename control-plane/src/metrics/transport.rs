//! What the SIP sockets count.

use metrics::{Gauge, Label};

use super::{Follower, Metrics};
use crate::transport::TransportCounters;

/// Transport, event, and where its count stands.
type Row = (&'static str, &'static str, fn(&TransportCounters) -> u64);

/// Every counter of [`TransportCounters`]; messages are in `trunkline_sip_messages_total`, the
/// rest in `trunkline_sip_transport_events_total`.
const EVENTS: &[Row] = &[
    ("udp", "malformed", |c| c.udp_malformed),
    ("udp", "keepalive", |c| c.udp_keepalives),
    ("udp", "receive_error", |c| c.udp_receive_errors),
    ("udp", "send_error", |c| c.udp_send_errors),
    ("udp", "backlogged", |c| c.udp_backlogged),
    ("udp", "backlog_full", |c| c.udp_backlog_full),
    ("tcp", "malformed", |c| c.tcp_malformed),
    ("tcp", "keepalive", |c| c.tcp_keepalives),
    ("tcp", "undelivered", |c| c.tcp_undelivered),
    ("tcp", "accepted", |c| c.tcp_accepted),
    ("tcp", "opened", |c| c.tcp_opened),
    ("tcp", "refused_full", |c| c.tcp_refused_full),
    ("tcp", "refused_source", |c| c.tcp_refused_source),
    ("tcp", "accept_error", |c| c.tcp_accept_errors),
    ("tcp", "closed", |c| c.tcp_closed),
    ("tcp", "failed", |c| c.tcp_failed),
    ("tcp", "connect_failed", |c| c.tcp_connect_failed),
    ("tcp", "cut_slow_reader", |c| c.tcp_cut_slow_reader),
    ("tcp", "cut_idle", |c| c.tcp_cut_idle),
    ("tcp", "cut_partial_message", |c| c.tcp_cut_partial_message),
    ("tcp", "cut_malformed", |c| c.tcp_cut_malformed),
];

const MESSAGES: &[Row] = &[
    ("udp", "in", |c| c.udp_messages_received),
    ("udp", "out", |c| c.udp_messages_sent),
    ("tcp", "in", |c| c.tcp_messages_received),
    ("tcp", "out", |c| c.tcp_messages_sent),
];

/// One follower for each count.
#[derive(Debug)]
pub(super) struct TransportMetrics {
    events: Vec<Follower>,
    messages: Vec<Follower>,
    connections_active: Gauge,
}

impl TransportMetrics {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let followers = |rows: &[Row], name, help, label: &'static str| {
            let follower = |&(transport, value, _): &Row| {
                let labels = vec![Label::new("transport", transport), Label::new(label, value)];
                Follower::new(metrics.counter(name, help, labels))
            };
            rows.iter().map(follower).collect()
        };
        Self {
            events: followers(
                EVENTS,
                "trunkline_sip_transport_events_total",
                "What happened on the SIP sockets besides messages.",
                "event",
            ),
            messages: followers(
                MESSAGES,
                "trunkline_sip_messages_total",
                "SIP messages that were read whole or given to the kernel.",
                "direction",
            ),
            connections_active: metrics.gauge(
                "trunkline_sip_connections_active",
                "SIP stream connections now.",
                vec![],
            ),
        }
    }

    pub(super) fn publish(&mut self, counters: &TransportCounters) {
        let rows = EVENTS.iter().chain(MESSAGES);
        for ((.., read), follower) in rows.zip(self.events.iter_mut().chain(&mut self.messages)) {
            follower.follow(read(counters));
        }
        self.connections_active
            .set(counters.tcp_connections_active as f64);
    }
}
