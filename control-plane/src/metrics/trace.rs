//! What is remembered of SIP messages, and given to a capture server.

use metrics::{Gauge, Label};

use super::{Follower, Metrics};
use crate::trace::exporter::ExportCounters;

#[derive(Debug)]
pub(super) struct TraceMetrics {
    bytes: Gauge,
    sent: Follower,
    lost: Follower,
}

impl TraceMetrics {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let exported = |result| {
            Follower::new(metrics.counter(
                "trunkline_trace_exported_total",
                "SIP messages for the capture server: sent, or lost because it was not kept up with.",
                vec![Label::new("result", result)],
            ))
        };
        Self {
            bytes: metrics.gauge(
                "trunkline_trace_bytes",
                "Memory that remembered SIP messages take.",
                vec![],
            ),
            sent: exported("sent"),
            lost: exported("lost"),
        }
    }

    pub(super) fn publish(&mut self, bytes: usize, exported: Option<&ExportCounters>) {
        self.bytes.set(bytes as f64);
        if let Some(exported) = exported {
            self.sent.follow(exported.sent());
            self.lost.follow(exported.lost());
        }
    }
}
