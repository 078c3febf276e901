//! Metrics: every name, label and bucket, and the exporter behind them.
//!
//! Names begin with `trunkline_`, units are seconds and bytes, and no label has unbounded values:
//! never a call id, a number or an address. Each metric has one function or one row, so that a
//! name always comes with the same labels; the exporter would drop a sample that does not.
//!
//! | who knows | how it gets here |
//! |---|---|
//! | the call thread | owns a [`CallMetrics`]: kept handles, one atomic addition each |
//! | a packet worker | counts in its region; the call thread copies that into the [`WorkerPage`] |
//! | the CDR writer | its [`CdrStatus`], read at each scrape |

use std::collections::HashMap;
use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use prometheus::{Encoder, HistogramOpts, Registry, TextEncoder};
use trunkline_sip::AgentCounters;

use crate::cdr::{CallDirection, CallRecord, CallResult, CdrStatus};
use crate::edge::proxy::{CommandCounts, ProxyCounters};
use crate::switch::TrunkView;
use crate::trace::exporter::ExportCounters;
use crate::transport::TransportCounters;
use crate::trunk::policy::Refusal;

mod edge;
mod scrape;
mod sip;
#[cfg(test)]
mod tests;
mod trace;
mod transport;
mod trunks;

use edge::EdgeMetrics;
pub use scrape::{WorkerCounters, WorkerPage};
use sip::SipMetrics;
use trace::TraceMetrics;
use transport::TransportMetrics;
use trunks::TrunkMetrics;

/// Trunks that get a label value of their own. Names of a site's whole history stay in the
/// registry; past this many, new ones count as `other`.
const TRUNK_LABELS_MAX: usize = 1_000;

/// `trunk` of calls that no trunk brought.
const NO_TRUNK: &str = "none";

/// From a quarter of the 2 ms that set-up may take on one machine to the longest ringing time.
const SETUP_BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0,
];

/// From a misdial to a long meeting.
const DURATION_BUCKETS: &[f64] = &[
    1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0,
];

static METADATA: Metadata<'static> =
    Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// The exporter did not take a metric: two of them claim one name.
#[derive(Debug, thiserror::Error)]
#[error("metrics: {0}")]
pub struct MetricsError(#[from] prometheus::Error);

/// All metrics of this process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    recorder: metrics_prometheus::Recorder,
    workers: Arc<WorkerPage>,
}

impl Metrics {
    /// A registry of its own; nothing is global.
    ///
    /// # Errors
    /// Two metrics claim one name, which a test rules out.
    pub fn new() -> Result<Self, MetricsError> {
        let registry = Registry::new();
        let recorder = metrics_prometheus::Recorder::builder()
            .with_registry(registry.clone())
            .build();
        let workers = Arc::new(WorkerPage::default());
        registry.register(Box::new(scrape::WorkerCollector::new(Arc::clone(
            &workers,
        ))?))?;
        let metrics = Self {
            registry,
            recorder,
            workers,
        };
        let version = Label::new("version", env!("CARGO_PKG_VERSION"));
        metrics
            .gauge(
                "trunkline_build_info",
                "Release that is running; always 1.",
                vec![version],
            )
            .set(1.0);
        Ok(metrics)
    }

    /// The call thread's part. Made once.
    ///
    /// # Errors
    /// It was made before.
    pub fn call_metrics(&self) -> Result<CallMetrics, MetricsError> {
        CallMetrics::new(self)
    }

    /// Where the call thread leaves what the workers count.
    #[must_use]
    pub fn workers(&self) -> Arc<WorkerPage> {
        Arc::clone(&self.workers)
    }

    /// Shows the CDR writer's figures from now on.
    ///
    /// # Errors
    /// It was called before.
    pub fn watch_cdr(&self, status: Arc<CdrStatus>) -> Result<(), MetricsError> {
        let collector = scrape::CdrCollector::new(status)?;
        Ok(self.registry.register(Box::new(collector))?)
    }

    /// Everything in Prometheus text format 0.0.4.
    ///
    /// # Errors
    /// The exporter cannot write a sample.
    pub fn render(&self) -> Result<Vec<u8>, MetricsError> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    fn counter(&self, name: &'static str, help: &'static str, labels: Vec<Label>) -> Counter {
        self.recorder
            .describe_counter(name.into(), None, help.into());
        let key = Key::from_parts(name, labels);
        self.recorder.register_counter(&key, &METADATA)
    }

    fn gauge(&self, name: &'static str, help: &'static str, labels: Vec<Label>) -> Gauge {
        self.recorder.describe_gauge(name.into(), None, help.into());
        let key = Key::from_parts(name, labels);
        self.recorder.register_gauge(&key, &METADATA)
    }

    fn histogram(
        &self,
        name: &'static str,
        help: &'static str,
        buckets: &[f64],
    ) -> Result<Histogram, MetricsError> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let histogram = prometheus::Histogram::with_opts(options)?;
        self.recorder.try_register_metric(histogram)?;
        Ok(self
            .recorder
            .register_histogram(&Key::from_name(name), &METADATA))
    }
}

/// A counter that follows a total kept elsewhere. The exporter can only add, and setting it back
/// between two additions would look like a restart to Prometheus.
#[derive(Debug)]
struct Follower {
    counter: Counter,
    seen: u64,
}

impl Follower {
    fn new(counter: Counter) -> Self {
        Self { counter, seen: 0 }
    }

    fn follow(&mut self, total: u64) {
        self.counter.increment(total.saturating_sub(self.seen));
        self.seen = self.seen.max(total);
    }
}

/// What the call thread counts. It is owned, not shared: a look-up by label needs no lock.
#[derive(Debug)]
pub struct CallMetrics {
    calls_active: HashMap<CallDirection, Gauge>,
    calls: HashMap<(CallDirection, String, CallResult), Counter>,
    trunk_labels: std::collections::HashSet<String>,
    call_setup: Histogram,
    call_duration: Histogram,
    sip: SipMetrics,
    transport: TransportMetrics,
    trace: TraceMetrics,
    trunks: TrunkMetrics,
    registrations_active: Gauge,
    edge: EdgeMetrics,
    /// To make counters for trunks that appear later.
    recorder: metrics_prometheus::Recorder,
}

impl CallMetrics {
    fn new(metrics: &Metrics) -> Result<Self, MetricsError> {
        let active = |direction: &CallDirection| {
            let gauge = metrics.gauge(
                "trunkline_calls_active",
                "Calls now, by direction.",
                vec![Label::new("direction", direction.as_str())],
            );
            (*direction, gauge)
        };
        let mut this = Self {
            calls_active: CallDirection::ALL.iter().map(active).collect(),
            calls: HashMap::new(),
            trunk_labels: std::collections::HashSet::new(),
            call_setup: metrics.histogram(
                "trunkline_call_setup_seconds",
                "From the caller's INVITE to the callee's answer.",
                SETUP_BUCKETS,
            )?,
            call_duration: metrics.histogram(
                "trunkline_call_duration_seconds",
                "From the answer to the end of the call.",
                DURATION_BUCKETS,
            )?,
            sip: SipMetrics::new(metrics),
            transport: TransportMetrics::new(metrics),
            trace: TraceMetrics::new(metrics),
            trunks: TrunkMetrics::new(metrics),
            registrations_active: metrics.gauge(
                "trunkline_registrations_active",
                "Registered contacts.",
                vec![],
            ),
            edge: EdgeMetrics::new(metrics),
            recorder: metrics.recorder.clone(),
        };
        // A ratio of failures needs both sides from the first scrape on.
        for direction in [CallDirection::Inbound, CallDirection::Internal] {
            for result in [CallResult::Answered, CallResult::Failed] {
                this.calls_total(direction, NO_TRUNK, result).increment(0);
            }
        }
        Ok(this)
    }

    /// Calls in any state, of one direction.
    pub fn set_calls_active(&mut self, direction: CallDirection, count: usize) {
        if let Some(gauge) = self.calls_active.get(&direction) {
            gauge.set(count as f64);
        }
    }

    /// A call is over: counts it by its result, and its times.
    pub fn observe_record(&mut self, record: &CallRecord) {
        let trunk = self.trunk_label(record.trunk.as_deref());
        self.calls_total(record.direction, &trunk, record.result)
            .increment(1);
        if let Some(setup_ms) = record.setup_ms {
            self.call_setup.record(setup_ms as f64 / 1e3);
        }
        if record.answer_unix_ms.is_some() {
            self.call_duration.record(record.duration_ms as f64 / 1e3);
        }
    }

    /// Follows the user agent's counters. Called a few times a second.
    pub fn publish_sip(&mut self, counters: &AgentCounters, transactions_active: usize) {
        self.sip.publish(counters, transactions_active);
    }

    /// Follows the SIP sockets' counters. Called a few times a second.
    pub fn publish_transport(&mut self, counters: &TransportCounters) {
        self.transport.publish(counters);
    }

    /// Follows the memory of SIP messages and, where they go to a capture server, its counters.
    pub fn publish_trace(&mut self, bytes: usize, exported: Option<&ExportCounters>) {
        self.trace.publish(bytes, exported);
    }

    /// Registered contacts.
    pub fn set_registrations_active(&mut self, count: usize) {
        self.registrations_active.set(count as f64);
    }

    /// Follows the edge proxy's counters. Called a few times a second.
    pub fn publish_proxy(&mut self, counters: &ProxyCounters, commands: &CommandCounts) {
        self.edge.publish(counters, commands);
    }

    /// How trunks stand. Called a few times a second.
    pub fn publish_trunks(&mut self, views: Vec<TrunkView>) {
        let views: Vec<_> = views
            .into_iter()
            .map(|view| (self.trunk_label(Some(&view.configured.name)), view))
            .filter(|(label, view)| *label == view.configured.name)
            .collect();
        self.trunks.publish(&views);
    }

    /// Follows the counts of outbound calls that were not let out.
    pub fn publish_outbound_refusals(&mut self, refusals: impl Iterator<Item = (Refusal, u64)>) {
        self.trunks.publish_refusals(refusals);
    }

    fn calls_total(
        &mut self,
        direction: CallDirection,
        trunk: &str,
        result: CallResult,
    ) -> &Counter {
        let recorder = &self.recorder;
        self.calls
            .entry((direction, trunk.to_owned(), result))
            .or_insert_with(|| {
                let name = "trunkline_calls_total";
                recorder.describe_counter(
                    name.into(),
                    None,
                    "Calls that are over, by result.".into(),
                );
                let labels = vec![
                    Label::new("direction", direction.as_str()),
                    Label::new("trunk", trunk.to_owned()),
                    Label::new("result", result.as_str()),
                ];
                recorder.register_counter(&Key::from_parts(name, labels), &METADATA)
            })
    }

    fn trunk_label(&mut self, trunk: Option<&str>) -> String {
        let Some(trunk) = trunk else {
            return NO_TRUNK.to_owned();
        };
        if !self.trunk_labels.contains(trunk) {
            if self.trunk_labels.len() >= TRUNK_LABELS_MAX {
                return "other".to_owned();
            }
            self.trunk_labels.insert(trunk.to_owned());
        }
        trunk.to_owned()
    }
}
