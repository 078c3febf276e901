//! The workers' distributions in the form of Prometheus: cumulative buckets in base units.

use prometheus::core::Desc;
use prometheus::proto::{Bucket, Histogram as Sample, LabelPair, Metric, MetricFamily, MetricType};
use trunkline_edge_api::Histogram;

use super::Row;

/// How a distribution appears. Exhaustive on purpose: a new one does not compile until it has its
/// place.
fn place(histogram: Histogram) -> (&'static str, &'static str, f64) {
    match histogram {
        Histogram::JitterMicros => (
            "trunkline_rtp_jitter_seconds",
            "Interarrival jitter (RFC 3550) of each leg's peer at the session's end.",
            1e-6,
        ),
        Histogram::MosCenti => (
            "trunkline_rtp_mos",
            "Mean opinion score (E-model) of each leg's peer at the session's end.",
            1e-2,
        ),
        Histogram::ForwardLatencyNanos => (
            "trunkline_rtp_forward_latency_seconds",
            "From a packet's arrival to its hand-over to the kernel, of a sample of packets.",
            1e-9,
        ),
    }
}

pub(super) fn descriptions() -> prometheus::Result<Vec<Desc>> {
    Histogram::ALL
        .iter()
        .map(|&histogram| {
            let (name, help, _) = place(histogram);
            let labels = vec!["worker".to_owned()];
            Desc::new(name.to_owned(), help.to_owned(), labels, Default::default())
        })
        .collect()
}

/// One family for each distribution, with a sample for each of the `rows`.
pub(super) fn families<'r>(
    rows: impl Iterator<Item = (usize, &'r Row)> + Clone,
) -> impl Iterator<Item = MetricFamily> {
    Histogram::ALL.into_iter().map(move |histogram| {
        let (name, help, _) = place(histogram);
        let samples = rows
            .clone()
            .map(|(worker, row)| sample(histogram, worker, row))
            .collect();
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(samples);
        family
    })
}

/// Buckets and sum may be of different moments; the count is that of the buckets.
fn sample(histogram: Histogram, worker: usize, row: &Row) -> Metric {
    let (.., scale) = place(histogram);
    let mut count = 0;
    let buckets = histogram
        .bounds()
        .iter()
        .enumerate()
        .map(|(index, &bound)| {
            count += row.get(histogram.cell(index));
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound as f64 * scale);
            bucket.set_cumulative_count(count);
            bucket
        })
        .collect();
    count += row.get(histogram.cell(histogram.bounds().len()));
    let mut sample = Sample::default();
    sample.set_bucket(buckets);
    sample.set_sample_count(count);
    sample.set_sample_sum(row.get(histogram.sum_cell()) as f64 * scale);
    let mut label = LabelPair::default();
    label.set_name("worker".to_owned());
    label.set_value(worker.to_string());
    let mut metric = Metric::from_label(vec![label]);
    metric.set_histogram(sample);
    metric
}
