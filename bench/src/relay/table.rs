//! What the rounds come to.

use anyhow::Result;
use serde_json::json;

use super::round::Round;
use crate::report::Report;
use crate::rig::generator::PACKET_LEN;
use crate::rig::window::Step;

/// All rounds of one relay on one path.
struct Summary<'a> {
    relay: &'static str,
    path: &'static str,
    rounds: Vec<&'a Round>,
}

impl Summary<'_> {
    /// Mean over the rounds that have the figure.
    fn mean(&self, figure: impl Fn(&Round) -> Option<f64>) -> Option<f64> {
        let figures: Vec<f64> = self
            .rounds
            .iter()
            .filter_map(|round| figure(round))
            .collect();
        let count = figures.len() as f64;
        (count > 0.0).then(|| figures.iter().sum::<f64>() / count)
    }

    fn at_80_percent(&self, figure: impl Fn(&Step) -> Option<f64>) -> Option<f64> {
        self.mean(|round| figure(round.at_80_percent.as_ref()?))
    }

    /// Forwarded at twice (0) or three times (1) the peak, as a share of it.
    fn overload(&self, index: usize) -> Option<f64> {
        self.mean(|round| Some(round.overload.get(index)?.forwarded / round.peak))
    }

    fn peak(&self) -> Option<f64> {
        self.mean(|round| Some(round.peak))
    }
}

pub(super) fn report(
    results: &[Round],
    calls: u32,
    seconds: u64,
    peer_version: &str,
) -> Result<Report> {
    let mut report = Report::new(
        "relay",
        "RTP through one core of a relay",
        &[
            "relay",
            "path",
            "peak/s",
            "sustained/s",
            "at 2× peak",
            "at 3× peak",
            "80 %: core µs/packet",
            "80 %: core idle %",
            "p50 µs",
            "p99 µs",
            "p99.9 µs",
            "p99 µs, realtime",
            "p99.9 µs, realtime",
            "KiB/call",
        ],
    );
    let summaries = summarise(results);
    for summary in &summaries {
        let latency = |pick: fn(&crate::quantiles::Quantiles) -> f64| {
            summary.at_80_percent(|step| step.latency_us.as_ref().map(pick))
        };
        let realtime = |pick: fn(&crate::quantiles::Quantiles) -> f64| {
            summary.mean(|round| {
                let step = round.at_80_percent_realtime.as_ref()?;
                step.latency_us.as_ref().map(pick)
            })
        };
        report.rows.push(vec![
            json!(summary.relay),
            json!(summary.path),
            json!(summary.peak()),
            json!(summary.mean(|round| Some(round.sustained))),
            json!(summary.overload(0)),
            json!(summary.overload(1)),
            json!(summary.at_80_percent(|step| Some(step.core_us_per_packet))),
            json!(summary.at_80_percent(|step| Some(step.idle * 100.0))),
            json!(latency(|latency| latency.p50)),
            json!(latency(|latency| latency.p99)),
            json!(latency(|latency| latency.p999)),
            json!(realtime(|latency| latency.p99)),
            json!(realtime(|latency| latency.p999)),
            json!(summary.mean(|round| Some(round.bytes_per_call / 1024.0))),
        ]);
    }
    compare(&summaries, &mut report);
    for summary in &summaries {
        tell_spray(summary, &mut report);
    }
    tell_preemptions(&summaries, &mut report);
    tell_noise(results, &mut report);
    report.details = serde_json::to_value(results)?;
    report.method = vec![
        format!(
            "{calls} calls of two legs, RTCP on ports of its own; {PACKET_LEN}-byte RTP packets spread round robin over all flows, both directions; {seconds} s per rate. Each relay starts afresh for its turn, and every flow is checked first, SRTP opened with the other side's key."
        ),
        "Two network namespaces joined by a veth pair with static neighbours. The relay, one worker or one thread, is pinned to core 1, and receive is steered there (rps_cpus): core 1 carries softirq receive, relay and transmit. The kernel's backlog holds 4,096 packets, as a NIC's ring would.".to_owned(),
        "The generator has core 0: one thread, sendmmsg of at most 16 packets, never more than 1 ms of lost time made up for. The far end is an XDP program that counts RTP, reads the stamp and drops the packet in the driver.".to_owned(),
        format!(
            "Peer: rtpengine {peer_version} (Debian), `--table=-1 --num-threads=1`, offer and answer over ng."
        ),
        "Peak: highest forwarded rate on a ladder of steps of 1.2; sustained: highest with at most 0.1 % lost or still under way 5 ms after the end; at 2× and 3× peak: forwarded as a share of the peak. Latency, of a fresh process: from the generator's send call to the far end's driver at 80 % of sustained, packets sent one by one, nine windows of half a second of which the one with the median p99 is told, relay and generator at nice −10 because the machine is shared; then the same with all of the relay's threads under SCHED_FIFO (realtime), where no other process gets the core before them; for SRTP of packets that the relay decrypts. Core time is everything core 1 did, from /proc/stat. A step during which other processes used more than 3 % of a core is done again. Figures are means over the rounds, of which protected paths have one; all rounds are in the JSON.".to_owned(),
        "KiB/call: growth of resident memory from 100 calls to all of them, media flowing, over the calls added.".to_owned(),
    ];
    Ok(report)
}

fn summarise(results: &[Round]) -> Vec<Summary<'_>> {
    let mut summaries: Vec<Summary<'_>> = Vec::new();
    for round in results {
        let known = summaries
            .iter_mut()
            .find(|summary| summary.relay == round.relay && summary.path == round.path);
        match known {
            Some(summary) => summary.rounds.push(round),
            None => summaries.push(Summary {
                relay: round.relay,
                path: round.path,
                rounds: vec![round],
            }),
        }
    }
    summaries
}

/// The ratios of peaks that the specification speaks of.
fn compare(summaries: &[Summary<'_>], report: &mut Report) {
    const URING: &str = "trunkline io_uring";
    const CM: &str = "AES_CM_128_HMAC_SHA1_80";
    const GCM: &str = "AEAD_AES_128_GCM";
    let peak = |relay: &str, path: &str| {
        summaries
            .iter()
            .find(|summary| summary.relay == relay && summary.path == path)
            .and_then(Summary::peak)
    };
    for (name, of, to) in [
        ("plain_vs_rtpengine", (URING, "RTP"), ("rtpengine", "RTP")),
        (
            "plain_epoll_vs_rtpengine",
            ("trunkline epoll", "RTP"),
            ("rtpengine", "RTP"),
        ),
        (
            "plain_uring_vs_epoll",
            (URING, "RTP"),
            ("trunkline epoll", "RTP"),
        ),
        ("srtp_cm_vs_plain", (URING, CM), (URING, "RTP")),
        ("srtp_gcm_vs_plain", (URING, GCM), (URING, "RTP")),
        ("srtp_cm_vs_rtpengine", (URING, CM), ("rtpengine", CM)),
        ("srtp_gcm_vs_rtpengine", (URING, GCM), ("rtpengine", GCM)),
    ] {
        if let (Some(of), Some(to)) = (peak(of.0, of.1), peak(to.0, to.1)) {
            report.ratios.insert(name.to_owned(), of / to);
        }
    }
}

fn tell_spray(summary: &Summary<'_>, report: &mut Report) {
    for [quiet, sprayed] in summary
        .rounds
        .iter()
        .filter_map(|round| round.spray.as_ref())
    {
        let p99 = |step: &Step| step.latency_us.map_or(f64::NAN, |latency| latency.p99);
        report.findings.push(format!(
            "{} {}: calls at {:.0}/s with ten times as much from an attacker: {:.3} % of their packets lost, p99 {:.0} µs (alone {:.3} % and {:.0} µs), {} of the attacker's packets leaked",
            summary.relay,
            summary.path,
            sprayed.offered,
            sprayed.loss * 100.0,
            p99(sprayed),
            quiet.loss * 100.0,
            p99(quiet),
            sprayed.leaked
        ));
    }
}

/// Whether it was others who made packets wait.
fn tell_preemptions(summaries: &[Summary<'_>], report: &mut Report) {
    for summary in summaries {
        let preempted = |pick: fn(&Round) -> Option<&Step>| {
            summary.mean(|round| Some(pick(round)?.preempted as f64))
        };
        let shared = preempted(|round| round.at_80_percent.as_ref());
        let realtime = preempted(|round| round.at_80_percent_realtime.as_ref());
        if let (Some(shared), Some(realtime)) = (shared, realtime) {
            report.findings.push(format!(
                "{} {}: in the half second of which latency is told at 80 %, other processes took the core from it {shared:.0} times at nice −10, {realtime:.0} times as realtime",
                summary.relay, summary.path
            ));
        }
    }
}

/// What else the machine did meanwhile.
fn tell_noise(results: &[Round], report: &mut Report) {
    let steps = || {
        results.iter().flat_map(|round| {
            let latency = round.at_80_percent.iter();
            let realtime = round.at_80_percent_realtime.iter();
            let ladder = round.steps.iter().chain(&round.overload);
            ladder.chain(latency).chain(realtime)
        })
    };
    let stolen = steps().map(|step| step.stolen).fold(0.0, f64::max);
    let late = steps()
        .filter(|step| step.latency_us.is_some())
        .filter_map(|step| Some(step.generator_late_us?.p999))
        .fold(0.0, f64::max);
    let foreign = steps().map(|step| step.foreign).fold(0.0, f64::max);
    report.findings.push(format!(
        "noise: others used at most {foreign:.2} cores in a step; at most {:.1} % of core 1 taken by the hypervisor in a step; in latency runs the generator sent 99.9 % of its packets at most {late:.0} µs late",
        stolen * 100.0
    ));
}
