//! What the user agent counts.

use metrics::{Gauge, Label};
use trunkline_sip::AgentCounters;

use super::{Follower, Metrics};

/// What [`AgentCounters`] holds, one follower each.
#[derive(Debug)]
pub(super) struct SipMetrics {
    /// By the order of [`trunkline_sip::agent`]'s method counts.
    requests_in: Vec<Follower>,
    requests_out: Vec<Follower>,
    /// By the order of [`trunkline_sip::agent`]'s response counts.
    responses_in: Vec<Follower>,
    responses_out: Vec<Follower>,
    retransmissions: Follower,
    refused_overload: Follower,
    /// Messages of the kinds below.
    discarded: [Follower; 4],
    late_answers: Follower,
    requests_abandoned: Follower,
    transport_errors: Follower,
    transactions_active: Gauge,
}

impl SipMetrics {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let follower = |name, help, labels| Follower::new(metrics.counter(name, help, labels));
        let plain = |name, help| follower(name, help, vec![]);
        let zero = AgentCounters::default();
        let requests = |direction: &'static str| {
            let follower = |(method, _): (&'static str, u64)| {
                follower(
                    "trunkline_sip_requests_total",
                    "SIP requests, copies that arrived included, retransmissions sent not.",
                    vec![
                        Label::new("method", method),
                        Label::new("direction", direction),
                    ],
                )
            };
            zero.requests_received.iter().map(follower).collect()
        };
        let responses = |direction: &'static str| {
            let follower = |(method, class, _): (&'static str, &'static str, u64)| {
                follower(
                    "trunkline_sip_responses_total",
                    "SIP responses by the method of their request and by class, copies that \
                     arrived included, retransmissions sent not.",
                    vec![
                        Label::new("method", method),
                        Label::new("code", class),
                        Label::new("direction", direction),
                    ],
                )
            };
            zero.responses_received.iter().map(follower).collect()
        };
        let discarded = |reason: &'static str| {
            follower(
                "trunkline_sip_messages_discarded_total",
                "SIP messages that nothing could be done with, by reason.",
                vec![Label::new("reason", reason)],
            )
        };
        Self {
            requests_in: requests("in"),
            requests_out: requests("out"),
            responses_in: responses("in"),
            responses_out: responses("out"),
            retransmissions: plain(
                "trunkline_sip_retransmissions_total",
                "SIP messages sent again, by a timer or because the peer asked again.",
            ),
            refused_overload: plain(
                "trunkline_sip_refused_overload_total",
                "New SIP requests refused with 503 because a limit was reached.",
            ),
            discarded: [
                "malformed",
                "unmatched_response",
                "unmatched_ack",
                "unknown_dialog",
            ]
            .map(discarded),
            late_answers: plain(
                "trunkline_sip_late_answers_total",
                "Answers that came after a CANCEL or from a further branch; ended with ACK and BYE.",
            ),
            requests_abandoned: plain(
                "trunkline_sip_requests_abandoned_total",
                "SIP requests that were not answered within 64*T1 and were given up.",
            ),
            transport_errors: plain(
                "trunkline_sip_transport_errors_total",
                "SIP messages that the transport could not deliver.",
            ),
            transactions_active: metrics.gauge(
                "trunkline_sip_transactions_active",
                "Open SIP transactions.",
                vec![],
            ),
        }
    }

    /// Follows the agent's counters.
    pub(super) fn publish(&mut self, counters: &AgentCounters, transactions_active: usize) {
        let requests = [
            (&mut self.requests_in, &counters.requests_received),
            (&mut self.requests_out, &counters.requests_sent),
        ];
        for (followers, counts) in requests {
            for (follower, (_, total)) in followers.iter_mut().zip(counts.iter()) {
                follower.follow(total);
            }
        }
        let responses = [
            (&mut self.responses_in, &counters.responses_received),
            (&mut self.responses_out, &counters.responses_sent),
        ];
        for (followers, counts) in responses {
            for (follower, (_, _, total)) in followers.iter_mut().zip(counts.iter()) {
                follower.follow(total);
            }
        }
        let discarded = [
            counters.malformed,
            counters.responses_unmatched,
            counters.acks_unmatched,
            counters.dialogs_unknown,
        ];
        for (follower, total) in self.discarded.iter_mut().zip(discarded) {
            follower.follow(total);
        }
        self.retransmissions.follow(counters.retransmissions_sent);
        self.refused_overload.follow(counters.refused_overload);
        self.late_answers.follow(counters.late_answers);
        self.requests_abandoned.follow(counters.requests_abandoned);
        self.transport_errors.follow(counters.transport_errors);
        self.transactions_active.set(transactions_active as f64);
    }
}
