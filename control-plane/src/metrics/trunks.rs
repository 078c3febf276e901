//! How trunks stand, and why calls did not go out.

use std::collections::HashMap;

use metrics::{Gauge, Key, Label, Recorder};

use super::{Follower, METADATA, Metrics};
use crate::switch::TrunkView;
use crate::trunk::health::HealthState;
use crate::trunk::policy::Refusal;
use crate::trunk::registration::RegistrationState;

/// What one trunk shows.
#[derive(Debug)]
struct OneTrunk {
    up: Gauge,
    registered: Gauge,
    channels: Gauge,
    rtt_seconds: Gauge,
    /// In the order of [`counts`].
    counts: Vec<Follower>,
}

/// All of them, and the door.
#[derive(Debug)]
pub(super) struct TrunkMetrics {
    trunks: HashMap<String, OneTrunk>,
    refusals: Vec<(Refusal, Follower)>,
    recorder: metrics_prometheus::Recorder,
}

/// The counted outcomes of calls to a trunk, by the label `outcome`.
fn counts(view: &TrunkView) -> [(&'static str, u64); 6] {
    let counts = &view.counts;
    [
        ("attempt", counts.attempts),
        ("answered", counts.answered),
        ("failed", counts.failed),
        ("failover", counts.failovers),
        ("paced_out", counts.paced_out),
        ("channels_full", counts.channels_full),
    ]
}

impl TrunkMetrics {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let refusal = |refusal: &Refusal| {
            let counter = metrics.counter(
                "trunkline_outbound_refused_total",
                "Outbound calls that were not let out, by reason.",
                vec![Label::new("reason", refusal.as_str())],
            );
            (*refusal, Follower::new(counter))
        };
        Self {
            trunks: HashMap::new(),
            refusals: Refusal::ALL.iter().map(refusal).collect(),
            recorder: metrics.recorder.clone(),
        }
    }

    pub(super) fn publish(&mut self, views: &[(String, TrunkView)]) {
        for (label, view) in views {
            let recorder = &self.recorder;
            let one = self
                .trunks
                .entry(label.clone())
                .or_insert_with(|| OneTrunk::new(recorder, label, view));
            one.up.set(match view.state {
                HealthState::Up => 1.0,
                HealthState::Unknown => 0.5,
                HealthState::Down => 0.0,
            });
            let registration = view.registration.as_ref();
            let is_registered =
                registration.is_some_and(|it| it.state == RegistrationState::Registered);
            one.registered.set(f64::from(u8::from(is_registered)));
            one.channels.set(f64::from(view.channels));
            let rtt = view.destinations.iter().find_map(|it| it.rtt_micros);
            one.rtt_seconds.set(f64::from(rtt.unwrap_or(0)) / 1e6);
            for (follower, (_, total)) in one.counts.iter_mut().zip(counts(view)) {
                follower.follow(total);
            }
        }
    }

    pub(super) fn publish_refusals(&mut self, refusals: impl Iterator<Item = (Refusal, u64)>) {
        for (refusal, total) in refusals {
            for (known, follower) in &mut self.refusals {
                if *known == refusal {
                    follower.follow(total);
                }
            }
        }
    }
}

impl OneTrunk {
    fn new(recorder: &metrics_prometheus::Recorder, trunk: &str, view: &TrunkView) -> Self {
        let label = || Label::new("trunk", trunk.to_owned());
        let gauge = |name: &'static str, help: &'static str| {
            recorder.describe_gauge(name.into(), None, help.into());
            recorder.register_gauge(&Key::from_parts(name, vec![label()]), &METADATA)
        };
        let count = |(outcome, _): (&'static str, u64)| {
            let name = "trunkline_trunk_calls_total";
            let help = "Calls to a trunk by what became of them, and those it had no room for.";
            recorder.describe_counter(name.into(), None, help.into());
            let labels = vec![label(), Label::new("outcome", outcome)];
            Follower::new(recorder.register_counter(&Key::from_parts(name, labels), &METADATA))
        };
        Self {
            up: gauge(
                "trunkline_trunk_up",
                "Whether a destination of the trunk answers: 1, 0, or 0.5 when nobody has asked.",
            ),
            registered: gauge(
                "trunkline_trunk_registered",
                "Whether we are registered at the trunk.",
            ),
            channels: gauge(
                "trunkline_trunk_channels",
                "Calls through the trunk now, both ways.",
            ),
            rtt_seconds: gauge(
                "trunkline_trunk_rtt_seconds",
                "From OPTIONS to the trunk's answer; 0 when it was never measured.",
            ),
            counts: counts(view).map(count).into(),
        }
    }
}
