//! What the SIP sockets count.

use metrics::{Gauge, Label};

use super::{Follower, Metrics};
use crate::transport::{StreamCounters, TransportCounters};

/// Transport, event, and where its count stands.
type UdpRow = (&'static str, fn(&TransportCounters) -> u64);

/// Event, and where its count stands.
type StreamRow = (&'static str, fn(&StreamCounters) -> u64);

/// Every counter of [`TransportCounters`]; messages are in `trunkline_sip_messages_total`, the
/// rest in `trunkline_sip_transport_events_total`.
const UDP_EVENTS: &[UdpRow] = &[
    ("malformed", |c| c.udp_malformed),
    ("keepalive", |c| c.udp_keepalives),
    ("receive_error", |c| c.udp_receive_errors),
    ("send_error", |c| c.udp_send_errors),
    ("backlogged", |c| c.udp_backlogged),
    ("backlog_full", |c| c.udp_backlog_full),
];

const UDP_MESSAGES: &[UdpRow] = &[
    ("in", |c| c.udp_messages_received),
    ("out", |c| c.udp_messages_sent),
];

const STREAM_EVENTS: &[StreamRow] = &[
    ("malformed", |c| c.malformed),
    ("keepalive", |c| c.keepalives),
    ("undelivered", |c| c.undelivered),
    ("accepted", |c| c.accepted),
    ("opened", |c| c.opened),
    ("refused_full", |c| c.refused_full),
    ("refused_source", |c| c.refused_source),
    ("refused_handshakes", |c| c.refused_handshakes),
    ("accept_error", |c| c.accept_errors),
    ("closed", |c| c.closed),
    ("failed", |c| c.failed),
    ("connect_failed", |c| c.connect_failed),
    ("handshake_failed", |c| c.handshake_failed),
    ("handshake_timeout", |c| c.handshake_timeout),
    ("cut_slow_reader", |c| c.cut_slow_reader),
    ("cut_idle", |c| c.cut_idle),
    ("cut_partial_message", |c| c.cut_partial_message),
    ("cut_malformed", |c| c.cut_malformed),
];

const STREAM_MESSAGES: &[StreamRow] = &[
    ("in", |c| c.messages_received),
    ("out", |c| c.messages_sent),
];

/// A kind of connections, with where its counts stand.
type StreamKind = (&'static str, fn(&TransportCounters) -> &StreamCounters);

const STREAMS: &[StreamKind] = &[
    ("tcp", |c| &c.tcp),
    ("tls", |c| &c.tls),
    ("ws", |c| &c.ws),
    ("wss", |c| &c.wss),
];

/// The counts of a table, in the order of its rows: UDP's, then each kind's.
fn counts<'a>(
    udp: &'a [UdpRow],
    stream: &'a [StreamRow],
    counters: &'a TransportCounters,
) -> impl Iterator<Item = (&'static str, &'static str, u64)> + 'a {
    let of_udp = udp
        .iter()
        .map(|(event, read)| ("udp", *event, read(counters)));
    let of_streams = STREAMS.iter().flat_map(move |(kind, of_kind)| {
        let counters = of_kind(counters);
        let row = move |(event, read): &StreamRow| (*kind, *event, read(counters));
        stream.iter().map(row)
    });
    of_udp.chain(of_streams)
}

/// One follower for each count.
#[derive(Debug)]
pub(super) struct TransportMetrics {
    events: Vec<Follower>,
    messages: Vec<Follower>,
    connections_active: Gauge,
    handshakes_active: Gauge,
}

impl TransportMetrics {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let none = TransportCounters::default();
        let followers = |udp, stream, name, help, label: &'static str| {
            let follower = |(transport, value, _)| {
                let labels = vec![Label::new("transport", transport), Label::new(label, value)];
                Follower::new(metrics.counter(name, help, labels))
            };
            counts(udp, stream, &none).map(follower).collect()
        };
        Self {
            events: followers(
                UDP_EVENTS,
                STREAM_EVENTS,
                "trunkline_sip_transport_events_total",
                "What happened on the SIP sockets besides messages.",
                "event",
            ),
            messages: followers(
                UDP_MESSAGES,
                STREAM_MESSAGES,
                "trunkline_sip_messages_total",
                "SIP messages that were read whole or given to the kernel.",
                "direction",
            ),
            connections_active: metrics.gauge(
                "trunkline_sip_connections_active",
                "SIP stream connections now.",
                vec![],
            ),
            handshakes_active: metrics.gauge(
                "trunkline_sip_handshakes_active",
                "Accepted SIP connections whose TLS or WebSocket handshake is not done.",
                vec![],
            ),
        }
    }

    pub(super) fn publish(&mut self, counters: &TransportCounters) {
        let events = counts(UDP_EVENTS, STREAM_EVENTS, counters);
        for ((.., count), follower) in events.zip(&mut self.events) {
            follower.follow(count);
        }
        let messages = counts(UDP_MESSAGES, STREAM_MESSAGES, counters);
        for ((.., count), follower) in messages.zip(&mut self.messages) {
            follower.follow(count);
        }
        self.connections_active
            .set(counters.connections_active as f64);
        self.handshakes_active
            .set(counters.handshakes_active as f64);
    }
}
