//! `trunkline-edge status`: the counters pages, read as an observer. Works while control is down.

use std::fmt::Write;
use std::path::Path;

use serde_json::{Map, Value, json};
use trunkline_edge_api::{Counter, DropReason, Histogram, HistogramCell, IoTier, MonoTime};
use trunkline_ring::handshake::{ConnectError, Observer};
use trunkline_ring::{RegionView, monotonic_now};

/// The state of an edge at one moment.
pub struct Status {
    observer: Observer,
    now: MonoTime,
}

impl Status {
    /// Asks the edge that listens at `socket_path`.
    ///
    /// # Errors
    /// [`ConnectError`]; its text says what to do.
    pub fn read(socket_path: &Path) -> Result<Self, ConnectError> {
        Ok(Self {
            observer: Observer::connect(socket_path)?,
            now: monotonic_now(),
        })
    }

    /// For programs. Counters and drop reasons have the names of [`Counter::name`] and
    /// [`DropReason::name`]; all of them are there, with zeros. A histogram has its bounds, one
    /// bucket more than bounds, and the sum.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let welcome = self.observer.welcome();
        let workers: Vec<Value> = self.views().map(|view| self.worker_json(&view)).collect();
        json!({
            "version": welcome.version.to_string(),
            "pid": welcome.pid,
            "generation": welcome.generation,
            "workers": workers,
        })
    }

    /// For people: what is not zero.
    #[must_use]
    pub fn to_text(&self) -> String {
        let welcome = self.observer.welcome();
        let mut out = String::new();
        // Writing to a String never fails.
        let _ = writeln!(
            out,
            "edge     pid {}, generation {}, API {}",
            welcome.pid, welcome.generation, welcome.version
        );
        for view in self.views() {
            let _ = self.write_worker(&mut out, &view);
        }
        out
    }

    fn views(&self) -> impl Iterator<Item = RegionView<'_>> {
        self.observer.regions().iter().map(|region| region.view())
    }

    fn millis_since(&self, then: MonoTime) -> u64 {
        self.now.nanos_since(then) / 1_000_000
    }

    fn worker_json(&self, view: &RegionView<'_>) -> Value {
        let named = |name: &str, value: u64| (name.to_owned(), Value::from(value));
        let counters: Map<_, _> = Counter::ALL
            .iter()
            .map(|&counter| named(counter.name(), view.counter(counter)))
            .collect();
        let drops: Map<_, _> = DropReason::ALL
            .iter()
            .map(|&reason| named(reason.name(), view.counter(reason)))
            .collect();
        let histograms: Map<_, _> = Histogram::ALL
            .iter()
            .map(|&histogram| (histogram.name().to_owned(), histogram_json(view, histogram)))
            .collect();
        let heartbeat_age_ms = self.millis_since(view.edge_heartbeat());
        let control_age_ms = view.control_heartbeat().map(|beat| self.millis_since(beat));
        json!({
            "worker": view.worker().0,
            "ports": format!("{}-{}", view.ports().first(), view.ports().last()),
            "io": view.io_tier().map(IoTier::name),
            "heartbeat_age_ms": heartbeat_age_ms,
            "control_pid": view.control_pid(),
            "control_heartbeat_age_ms": control_age_ms,
            "commands_full": view.commands_full_count(),
            "events_full": view.events_full_count(),
            "resyncs": view.resync_count(),
            "counters": counters,
            "drops": drops,
            "histograms": histograms,
        })
    }

    fn write_worker(&self, out: &mut String, view: &RegionView<'_>) -> std::fmt::Result {
        writeln!(
            out,
            "worker {} ports {}-{}, {}, heartbeat {} ms ago",
            view.worker(),
            view.ports().first(),
            view.ports().last(),
            view.io_tier().map_or("unknown I/O", IoTier::name),
            self.millis_since(view.edge_heartbeat()),
        )?;
        match (view.control_pid(), view.control_heartbeat()) {
            (Some(pid), Some(beat)) => writeln!(
                out,
                "  control            pid {pid}, heartbeat {} ms ago",
                self.millis_since(beat)
            )?,
            _ => writeln!(out, "  control            never connected")?,
        }
        let counters = Counter::ALL
            .iter()
            .map(|&c| ("", c.name(), view.counter(c)));
        let drops = DropReason::ALL
            .iter()
            .map(|&reason| ("dropped ", reason.name(), view.counter(reason)));
        for (kind, name, value) in counters.chain(drops).filter(|(.., value)| *value != 0) {
            writeln!(out, "  {:<34} {value}", format!("{kind}{name}"))?;
        }
        for histogram in Histogram::ALL {
            let (buckets, sum) = histogram_cells(view, histogram);
            let count: u64 = buckets.iter().sum();
            if let Some(mean) = sum.checked_div(count) {
                let name = format!("{} mean", histogram.name());
                writeln!(out, "  {name:<34} {mean} of {count}")?;
            }
        }
        Ok(())
    }
}

/// The buckets, then the sum.
fn histogram_cells(view: &RegionView<'_>, histogram: Histogram) -> (Vec<u64>, u64) {
    let buckets = (0..=histogram.bounds().len())
        .map(|bucket| view.counter(HistogramCell::Bucket(histogram, bucket)))
        .collect();
    (buckets, view.counter(HistogramCell::Sum(histogram)))
}

fn histogram_json(view: &RegionView<'_>, histogram: Histogram) -> Value {
    let (buckets, sum) = histogram_cells(view, histogram);
    json!({ "bounds": histogram.bounds(), "buckets": buckets, "sum": sum })
}
