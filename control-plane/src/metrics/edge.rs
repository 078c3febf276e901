//! What control counts of its talk with the edge.

use std::collections::HashMap;

use metrics::{Key, Label};
use trunkline_edge_api::WorkerIndex;

use super::{Follower, METADATA, Metrics};
use crate::edge::MediaRefused;
use crate::edge::proxy::{CommandCounts, CommandResult, ProxyCounters};

/// Followers of the proxy's counters.
#[derive(Debug)]
pub(super) struct EdgeMetrics {
    ring_full: Follower,
    ring_replayed: Follower,
    /// In the order of [`MediaRefused::ALL`].
    refused: [Follower; MediaRefused::ALL.len()],
    /// Bounded by the workers and kinds of commands there are; each appears with its first answer.
    commands: HashMap<(WorkerIndex, &'static str, CommandResult), Follower>,
    recorder: metrics_prometheus::Recorder,
}

impl EdgeMetrics {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let follower = |name, help, labels| Follower::new(metrics.counter(name, help, labels));
        Self {
            ring_full: follower(
                "trunkline_ring_full_total",
                "Times a command waited because a worker's ring had no room.",
                vec![],
            ),
            ring_replayed: follower(
                "trunkline_ring_sessions_replayed_total",
                "Sessions brought back after a restart of the edge.",
                vec![],
            ),
            refused: MediaRefused::ALL.map(|reason| {
                follower(
                    "trunkline_media_refused_total",
                    "Calls that could not have a media session, by reason; their callers got 503.",
                    vec![Label::new("reason", reason.as_str())],
                )
            }),
            commands: HashMap::new(),
            recorder: metrics.recorder.clone(),
        }
    }

    pub(super) fn publish(&mut self, counters: &ProxyCounters, commands: &CommandCounts) {
        self.ring_full.follow(counters.ring_full);
        self.ring_replayed.follow(counters.replayed);
        for (follower, &total) in self.refused.iter_mut().zip(&counters.refused) {
            follower.follow(total);
        }
        for (&id, &total) in commands {
            let recorder = &self.recorder;
            let follower = self
                .commands
                .entry(id)
                .or_insert_with(|| command_counter(recorder, id));
            follower.follow(total);
        }
    }
}

fn command_counter(
    recorder: &metrics_prometheus::Recorder,
    (worker, op, result): (WorkerIndex, &'static str, CommandResult),
) -> Follower {
    use metrics::Recorder;

    let name = "trunkline_ring_commands_total";
    recorder.describe_counter(
        name.into(),
        None,
        "Commands that workers answered, by command and result.".into(),
    );
    let labels = vec![
        Label::new("worker", worker.0.to_string()),
        Label::new("op", op),
        Label::new("result", result.as_str()),
    ];
    Follower::new(recorder.register_counter(&Key::from_parts(name, labels), &METADATA))
}
