//! Figures that are read when somebody scrapes: the workers' and the CDR writer's.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, GaugeVec, Opts};
use trunkline_edge_api::config::MEDIA_ADDRESSES_MAX;
use trunkline_edge_api::counters::CELL_COUNT;
use trunkline_edge_api::{Counter, DropReason, Histogram, HistogramCell, WorkerIndex};
use trunkline_ring::ControlEnd;

use crate::cdr::CdrStatus;

mod histograms;

/// As many workers as the configuration allows.
const WORKERS_MAX: usize = 256;

/// Where a worker's counters can be read.
pub trait WorkerCounters {
    /// The value of a plain counter.
    fn counter(&self, counter: Counter) -> u64;
    /// Packets dropped for one reason.
    fn dropped(&self, reason: DropReason) -> u64;
    /// A cell of a distribution.
    fn histogram(&self, cell: HistogramCell) -> u64;
}

impl WorkerCounters for ControlEnd {
    fn counter(&self, counter: Counter) -> u64 {
        ControlEnd::counter(self, counter)
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        ControlEnd::counter(self, reason)
    }

    fn histogram(&self, cell: HistogramCell) -> u64 {
        ControlEnd::counter(self, cell)
    }
}

/// The workers' figures of a moment ago. The call thread writes, the scrape reads; neither
/// waits for the other. Figures of one worker need not fit together.
#[derive(Debug)]
pub struct WorkerPage {
    workers: [OnceLock<Box<Row>>; WORKERS_MAX],
    /// By their place in `[edge] media_addresses`.
    interfaces: OnceLock<Vec<String>>,
}

#[derive(Debug)]
struct Row {
    is_live: AtomicBool,
    cells: [AtomicU64; CELL_COUNT],
    /// By interface.
    ports: [Ports; MEDIA_ADDRESSES_MAX],
}

/// Media port pairs of a worker on one interface.
#[derive(Debug)]
struct Ports {
    used: AtomicU64,
    capacity: AtomicU64,
}

impl Default for WorkerPage {
    fn default() -> Self {
        Self {
            workers: [const { OnceLock::new() }; WORKERS_MAX],
            interfaces: OnceLock::new(),
        }
    }
}

impl WorkerPage {
    /// Names the entries of `[edge] media_addresses`, in their order. Done once, at start; later
    /// names are not taken.
    pub fn name_interfaces(&self, names: Vec<String>) {
        self.interfaces.get_or_init(|| names);
    }

    /// Copies a worker's counters. A new generation begins at zero; Prometheus takes that for
    /// the restart it is.
    pub fn publish(&self, worker: WorkerIndex, counters: &impl WorkerCounters) {
        let Some(row) = self.row(worker) else { return };
        for counter in Counter::ALL {
            if let Some(cell) = row.cells.get(counter.cell()) {
                cell.store(counters.counter(counter), Relaxed);
            }
        }
        for reason in DropReason::ALL {
            if let Some(cell) = row.cells.get(reason.cell()) {
                cell.store(counters.dropped(reason), Relaxed);
            }
        }
        for cell in Histogram::ALL
            .iter()
            .flat_map(|histogram| histogram.cells())
        {
            if let Some(shown) = row.cells.get(cell.cell()) {
                shown.store(counters.histogram(cell), Relaxed);
            }
        }
        row.is_live.store(true, Relaxed);
    }

    /// Media port pairs of a worker on the interface at this place of the list: in use or set
    /// aside, and in all.
    pub fn publish_ports(&self, worker: WorkerIndex, interface: usize, used: u32, capacity: u32) {
        let row = self.row(worker);
        if let Some(ports) = row.and_then(|row| row.ports.get(interface)) {
            ports.used.store(u64::from(used), Relaxed);
            ports.capacity.store(u64::from(capacity), Relaxed);
        }
    }

    /// The edge is gone: its figures are of no moment any more and are no longer shown.
    pub fn clear(&self) {
        for row in self.workers.iter().filter_map(OnceLock::get) {
            row.is_live.store(false, Relaxed);
        }
    }

    fn row(&self, worker: WorkerIndex) -> Option<&Row> {
        let row = self.workers.get(usize::from(worker.0))?;
        Some(row.get_or_init(|| {
            Box::new(Row {
                is_live: AtomicBool::new(false),
                cells: [const { AtomicU64::new(0) }; CELL_COUNT],
                ports: [const {
                    Ports {
                        used: AtomicU64::new(0),
                        capacity: AtomicU64::new(0),
                    }
                }; MEDIA_ADDRESSES_MAX],
            })
        }))
    }
}

impl Row {
    fn get(&self, cell: usize) -> u64 {
        self.cells.get(cell).map_or(0, |cell| cell.load(Relaxed))
    }

    /// The page counts refused commands among all of them; a sample counts once.
    fn sample(&self, counter: Counter) -> u64 {
        let value = self.get(counter.cell());
        match counter {
            Counter::Commands => value.saturating_sub(self.get(Counter::CommandsRefused.cell())),
            _ => value,
        }
    }
}

/// Where a worker's counter appears.
struct Place {
    family: usize,
    /// Value of the family's second label, where it has one.
    label: Option<&'static str>,
    /// To the base unit.
    scale: f64,
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

struct Family {
    kind: Kind,
    name: &'static str,
    help: &'static str,
    /// Beside `worker`.
    label: Option<&'static str>,
}

macro_rules! families {
    ($($id:ident: $kind:ident $name:literal $([$label:literal])? $help:literal;)*) => {
        #[allow(clippy::upper_case_acronyms, reason = "the constants number a table")]
        #[derive(Clone, Copy)]
        enum Id { $($id,)* }

        static FAMILIES: &[Family] = &[$(Family {
            kind: Kind::$kind,
            name: $name,
            help: $help,
            label: families!(@label $($label)?),
        },)*];
    };
    (@label $label:literal) => { Some($label) };
    (@label) => { None };
}

families! {
    RtpPackets: Counter "trunkline_rtp_packets_total" ["direction"]
        "RTP packets accepted from peers (in) and handed to the kernel (out).";
    RtpBytes: Counter "trunkline_rtp_bytes_total" ["direction"]
        "Bytes of those, RTP header included, UDP and IP not.";
    RtcpPackets: Counter "trunkline_rtcp_packets_total" ["direction"]
        "RTCP packets accepted from peers (in) and handed to the kernel (out).";
    Dropped: Counter "trunkline_rtp_dropped_packets_total" ["reason"]
        "Packets on media sockets that went no further, by reason.";
    WorkerCommands: Counter "trunkline_worker_commands_total" ["result"]
        "Commands that a worker took from its ring.";
    RingEvents: Counter "trunkline_ring_events_total" ["result"]
        "Events of a worker that found room on its ring, or did not.";
    BusyCycles: Counter "trunkline_worker_busy_cycles_total"
        "Duty cycles that did work.";
    BusySeconds: Counter "trunkline_worker_busy_seconds_total"
        "Time spent in those.";
    CycleMax: Gauge "trunkline_worker_cycle_max_seconds"
        "The longest duty cycle since the worker's start.";
    Sessions: Gauge "trunkline_sessions_active"
        "Open media sessions.";
    Sockets: Gauge "trunkline_sockets_open"
        "Bound media sockets.";
    SessionsOpened: Counter "trunkline_sessions_opened_total"
        "Media sessions opened.";
    SessionsLost: Counter "trunkline_sessions_lost_total" ["reason"]
        "Media sessions that ended without control's wish.";
    BuffersExhausted: Counter "trunkline_worker_rx_buffers_exhausted_total"
        "Times the receive buffer ring ran empty.";
    Rearmed: Counter "trunkline_worker_rx_rearmed_total"
        "Times a multishot receive ended and was armed again.";
    CqOverflows: Counter "trunkline_worker_cq_overflows_total"
        "Times the completion queue overflowed.";
    BuffersInFlight: Gauge "trunkline_worker_buffers_in_flight"
        "Receive buffers held by sends in flight.";
    MediaTimeouts: Counter "trunkline_media_timeouts_total"
        "Times a leg's peer was silent for longer than [media] allows.";
    RtcpGenerated: Counter "trunkline_rtcp_generated_total"
        "RTCP packets made by the edge because the far peer's could not be passed on.";
    SocketsConnected: Gauge "trunkline_sockets_connected"
        "Media sockets connected to their proven peer.";
    SendsRetried: Counter "trunkline_sends_retried_total"
        "Sends repeated after the kernel gave back a stored ICMP error.";
    SessionsRefused: Counter "trunkline_sessions_refused_total" ["reason"]
        "Media sessions that a worker did not take.";
    PlaybacksActive: Gauge "trunkline_playbacks_active"
        "Prompts and tones that are played now.";
    RecordingsActive: Gauge "trunkline_recordings_active"
        "Recordings that run now.";
    ConferenceMembers: Gauge "trunkline_conference_members"
        "Legs that are in a conference.";
    DigitsReceived: Counter "trunkline_digits_received_total"
        "DTMF digits that peers have pressed.";
    PacketsEncoded: Counter "trunkline_packets_encoded_total"
        "RTP packets that were transcoded, played or mixed.";
    PacketsConcealed: Counter "trunkline_packets_concealed_total"
        "Packets' worth of audio that was missing and was made up.";
    RecordingPacketsLost: Counter "trunkline_recording_packets_lost_total"
        "Packets that a recording lost because the disk could not follow.";
    PacketsForked: Counter "trunkline_packets_forked_total"
        "Copies of media sent to a second address.";
    TicksLate: Counter "trunkline_ticks_late_total"
        "Ticks of clocked media that came a packet time late or later.";
    PortsUsed: Gauge "trunkline_ports_used" ["interface"]
        "Media port pairs in use or set aside. Interfaces on one address share them.";
    PortsCapacity: Gauge "trunkline_ports_capacity" ["interface"]
        "Media port pairs of the worker's slice. Interfaces on one address share them.";
}

/// Exhaustive on purpose: a new counter does not compile until it has its place.
fn place(counter: Counter) -> Place {
    let (family, label, scale) = match counter {
        Counter::RxRtpPackets => (Id::RtpPackets, Some("in"), 1.0),
        Counter::TxRtpPackets => (Id::RtpPackets, Some("out"), 1.0),
        Counter::RxRtpBytes => (Id::RtpBytes, Some("in"), 1.0),
        Counter::TxRtpBytes => (Id::RtpBytes, Some("out"), 1.0),
        Counter::RxRtcpPackets => (Id::RtcpPackets, Some("in"), 1.0),
        Counter::TxRtcpPackets => (Id::RtcpPackets, Some("out"), 1.0),
        Counter::Commands => (Id::WorkerCommands, Some("done"), 1.0),
        Counter::CommandsRefused => (Id::WorkerCommands, Some("refused"), 1.0),
        Counter::CommandsUndecodable => (Id::WorkerCommands, Some("undecodable"), 1.0),
        Counter::Events => (Id::RingEvents, Some("sent"), 1.0),
        Counter::EventsDropped => (Id::RingEvents, Some("dropped"), 1.0),
        Counter::BusyCycles => (Id::BusyCycles, None, 1.0),
        Counter::BusyNanos => (Id::BusySeconds, None, 1e-9),
        Counter::CycleMaxNanos => (Id::CycleMax, None, 1e-9),
        Counter::SessionsActive => (Id::Sessions, None, 1.0),
        Counter::SocketsOpen => (Id::Sockets, None, 1.0),
        Counter::SessionsOpened => (Id::SessionsOpened, None, 1.0),
        Counter::SessionsPanicked => (Id::SessionsLost, Some("panicked"), 1.0),
        Counter::SessionsOrphaned => (Id::SessionsLost, Some("orphaned"), 1.0),
        Counter::RxBuffersExhausted => (Id::BuffersExhausted, None, 1.0),
        Counter::RxRearmed => (Id::Rearmed, None, 1.0),
        Counter::CqOverflows => (Id::CqOverflows, None, 1.0),
        Counter::BuffersInFlight => (Id::BuffersInFlight, None, 1.0),
        Counter::MediaTimeouts => (Id::MediaTimeouts, None, 1.0),
        Counter::RtcpGenerated => (Id::RtcpGenerated, None, 1.0),
        Counter::SocketsConnected => (Id::SocketsConnected, None, 1.0),
        Counter::SendsRetried => (Id::SendsRetried, None, 1.0),
        Counter::SessionsRefusedBusy => (Id::SessionsRefused, Some("busy"), 1.0),
        Counter::PlaybacksActive => (Id::PlaybacksActive, None, 1.0),
        Counter::RecordingsActive => (Id::RecordingsActive, None, 1.0),
        Counter::ConferenceMembers => (Id::ConferenceMembers, None, 1.0),
        Counter::DigitsReceived => (Id::DigitsReceived, None, 1.0),
        Counter::PacketsEncoded => (Id::PacketsEncoded, None, 1.0),
        Counter::PacketsConcealed => (Id::PacketsConcealed, None, 1.0),
        Counter::RecordingPacketsLost => (Id::RecordingPacketsLost, None, 1.0),
        Counter::PacketsForked => (Id::PacketsForked, None, 1.0),
        Counter::TicksLate => (Id::TicksLate, None, 1.0),
    };
    Place {
        family: family as usize,
        label,
        scale,
    }
}

/// One family while it is filled for a scrape.
enum Filled {
    Counter(CounterVec),
    Gauge(GaugeVec),
}

impl Filled {
    fn new(family: &Family) -> prometheus::Result<Self> {
        let options = Opts::new(family.name, family.help);
        let labels: Vec<&str> = ["worker"].into_iter().chain(family.label).collect();
        Ok(match family.kind {
            Kind::Counter => Self::Counter(CounterVec::new(options, &labels)?),
            Kind::Gauge => Self::Gauge(GaugeVec::new(options, &labels)?),
        })
    }

    fn set(&self, labels: &[&str], value: f64) {
        match self {
            Self::Counter(family) => {
                if let Ok(counter) = family.get_metric_with_label_values(labels) {
                    counter.inc_by(value);
                }
            }
            Self::Gauge(family) => {
                if let Ok(gauge) = family.get_metric_with_label_values(labels) {
                    gauge.set(value);
                }
            }
        }
    }

    fn as_collector(&self) -> &dyn Collector {
        match self {
            Self::Counter(family) => family,
            Self::Gauge(family) => family,
        }
    }
}

fn empty_families() -> prometheus::Result<Vec<Filled>> {
    FAMILIES.iter().map(Filled::new).collect()
}

/// Shows a [`WorkerPage`].
pub(super) struct WorkerCollector {
    page: Arc<WorkerPage>,
    descriptions: Vec<Desc>,
}

impl WorkerCollector {
    pub(super) fn new(page: Arc<WorkerPage>) -> prometheus::Result<Self> {
        let descriptions = empty_families()?
            .iter()
            .flat_map(|family| family.as_collector().desc().into_iter().cloned())
            .chain(histograms::descriptions()?)
            .collect();
        Ok(Self { page, descriptions })
    }
}

impl Collector for WorkerCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    /// Filled anew for each scrape, so that two scrapes at once do not mix.
    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(families) = empty_families() else {
            return Vec::new();
        };
        let set = |family: usize, labels: &[&str], value: f64| {
            if let Some(family) = families.get(family) {
                family.set(labels, value);
            }
        };
        for (index, row) in self.page.workers.iter().enumerate() {
            let Some(row) = row.get().filter(|row| row.is_live.load(Relaxed)) else {
                continue;
            };
            let worker = index.to_string();
            for counter in Counter::ALL {
                let place = place(counter);
                let labels: Vec<&str> = [worker.as_str()].into_iter().chain(place.label).collect();
                set(
                    place.family,
                    &labels,
                    row.sample(counter) as f64 * place.scale,
                );
            }
            for reason in DropReason::ALL {
                let labels = [worker.as_str(), reason.name()];
                set(Id::Dropped as usize, &labels, row.get(reason.cell()) as f64);
            }
            let interfaces = self.page.interfaces.get().into_iter().flatten();
            for (interface, ports) in interfaces.zip(&row.ports) {
                let labels = [worker.as_str(), interface];
                let value = |cell: &AtomicU64| cell.load(Relaxed) as f64;
                set(Id::PortsUsed as usize, &labels, value(&ports.used));
                set(Id::PortsCapacity as usize, &labels, value(&ports.capacity));
            }
        }
        let rows = self.page.workers.iter().enumerate();
        let live = rows
            .filter_map(|(index, row)| Some((index, row.get()?.as_ref())))
            .filter(|(_, row): &(usize, &Row)| row.is_live.load(Relaxed));
        families
            .iter()
            .flat_map(|family| family.as_collector().collect())
            .chain(histograms::families(live))
            .filter(|family| !family.get_metric().is_empty())
            .collect()
    }
}

/// Shows a [`CdrStatus`].
pub(super) struct CdrCollector {
    status: Arc<CdrStatus>,
    records: Desc,
    gauges: [Desc; 2],
}

const CDR_RECORDS: (&str, &str) = (
    "trunkline_cdr_records_total",
    "Call records: handed over by calls, taken by the store, lost, moved aside as unreadable.",
);
const CDR_GAUGES: [(&str, &str); 2] = [
    (
        "trunkline_cdr_spool_bytes",
        "Call records in the spool that the store does not have yet.",
    ),
    (
        "trunkline_cdr_records_in_memory",
        "Call records in memory only, because the spool cannot be written.",
    ),
];

fn cdr_records() -> prometheus::Result<CounterVec> {
    CounterVec::new(Opts::new(CDR_RECORDS.0, CDR_RECORDS.1), &["result"])
}

fn cdr_gauge((name, help): (&str, &str)) -> prometheus::Result<prometheus::Gauge> {
    prometheus::Gauge::with_opts(Opts::new(name, help))
}

impl CdrCollector {
    pub(super) fn new(status: Arc<CdrStatus>) -> prometheus::Result<Self> {
        let desc = |collector: &dyn Collector| {
            let first = collector.desc().first().map(|desc| (*desc).clone());
            first.ok_or_else(|| prometheus::Error::Msg("a metric has a description".to_owned()))
        };
        let [spool, memory] = CDR_GAUGES;
        Ok(Self {
            status,
            records: desc(&cdr_records()?)?,
            gauges: [desc(&cdr_gauge(spool)?)?, desc(&cdr_gauge(memory)?)?],
        })
    }
}

impl Collector for CdrCollector {
    fn desc(&self) -> Vec<&Desc> {
        std::iter::once(&self.records).chain(&self.gauges).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Vec::new();
        if let Ok(records) = cdr_records() {
            for (result, total) in [
                ("submitted", self.status.submitted_total()),
                ("stored", self.status.stored_total()),
                ("lost", self.status.lost_total()),
                ("rejected", self.status.rejected_total()),
            ] {
                if let Ok(counter) = records.get_metric_with_label_values(&[result]) {
                    counter.inc_by(total as f64);
                }
            }
            families.extend(records.collect());
        }
        let values = [self.status.spool_bytes(), self.status.in_memory()];
        for (gauge, value) in CDR_GAUGES.into_iter().zip(values) {
            if let Ok(gauge) = cdr_gauge(gauge) {
                gauge.set(value as f64);
                families.extend(gauge.collect());
            }
        }
        families
    }
}
