//! One relay, measured once: the ladder of rates, overload, latency, spray, memory.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use trunkline_edge_api::SrtpSuite;

use crate::rig::generator::suite_name;
use crate::rig::peer::{CallMedia, MediaLeg, Realtime, Relay, resident_bytes, set_priority};
use crate::rig::window::{Manner, ONE_BY_ONE, Rig, Step};
use crate::rig::wire::Wire;

/// Loss up to which a rate counts as sustained: 0.1 %.
const SUSTAINED_LOSS: f64 = 0.001;
/// The ladder's first rate, packets per second, and its step.
const LADDER_START: f64 = 70_000.0;
const LADDER_STEP: f64 = 1.2;
/// The ladder ends with the first rate that is this many times what was forwarded at most. Less
/// would take a moment of noise for the peak.
const BEYOND_PEAK: f64 = 1.5;
/// A generator that offers less than this share of what it should is at its own end.
const GENERATOR_SHARE: f64 = 0.9;
/// Below this even a slow relay sustains; lower rates are not looked for.
const LOWEST_RATE: f64 = 20_000.0;
/// Priority of relay and generator while latency is read, as nice(1) counts it: on a machine that
/// others use too, their moments would be told for the relay's.
const LATENCY_PRIORITY: i32 = -10;
/// Latency is read in this many windows of this length, and the window with the median p99 stands
/// for them: one moment of another process, or of the hypervisor, would else be all that a p99.9
/// tells.
const LATENCY_WINDOWS: usize = 9;
const LATENCY_WINDOW: Duration = Duration::from_millis(500);
/// Calls that stand before memory is first looked at, so that what is touched once is in it.
const WARM_CALLS: u32 = 100;

/// What one relay came to.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Round {
    pub(super) relay: &'static str,
    pub(super) path: &'static str,
    pub(super) steps: Vec<Step>,
    /// The highest rate forwarded, packets per second.
    pub(super) peak: f64,
    /// The highest rate forwarded with at most 0.1 % lost.
    pub(super) sustained: f64,
    /// At twice and three times the peak.
    pub(super) overload: Vec<Step>,
    /// At 80 % of what is sustained.
    pub(super) at_80_percent: Option<Step>,
    /// The same while the relay goes before everything else on its core.
    pub(super) at_80_percent_realtime: Option<Step>,
    /// At a tenth of what is sustained, without and with ten times as much from an attacker.
    pub(super) spray: Option<[Step; 2]>,
    /// Resident bytes per call, from the difference between few calls and all of them.
    pub(super) bytes_per_call: f64,
    pub(super) figures: Vec<(&'static str, u64)>,
}

/// What a round needs.
pub(super) struct Bench {
    pub(super) rig: Rig,
    pub(super) calls: u32,
    /// Rates to offer instead of the ladder; nothing else is measured then.
    pub(super) rates: Vec<f64>,
}

impl Bench {
    /// Measures what `start` starts. Latency is a fresh process's: some relays never recover from
    /// the overload that the ladder ends with.
    pub(super) fn measure(
        &mut self,
        name: &'static str,
        start: impl Fn(&Wire) -> Result<Box<dyn Relay>>,
        suite: Option<SrtpSuite>,
    ) -> Result<Round> {
        let mut relay = start(&self.rig.wire)?;
        let mut round = Round {
            relay: name,
            path: suite_name(suite),
            steps: Vec::new(),
            peak: 0.0,
            sustained: 0.0,
            overload: Vec::new(),
            at_80_percent: None,
            at_80_percent_realtime: None,
            spray: None,
            bytes_per_call: self.open_calls(relay.as_mut(), suite)?,
            figures: Vec::new(),
        };
        if self.rates.is_empty() {
            self.climb(relay.as_mut(), &mut round)?;
            for factor in [2.0, 3.0] {
                let rate = round.peak * factor;
                let step = self.rig.run(relay.as_mut(), rate, Manner::default())?;
                round.overload.push(step);
            }
            round.figures = relay.figures();
            relay.stop()?;
            relay = start(&self.rig.wire)?;
            self.open_calls(relay.as_mut(), suite)?;
            set_priority(relay.process_id(), LATENCY_PRIORITY)?;
            set_priority(std::process::id(), LATENCY_PRIORITY)?;
            let looked = self.look_at_latency(relay.as_mut(), suite, &mut round);
            set_priority(std::process::id(), 0)?;
            looked?;
        } else {
            set_priority(relay.process_id(), LATENCY_PRIORITY)?;
            set_priority(std::process::id(), LATENCY_PRIORITY)?;
            for rate in self.rates.clone() {
                let manner = Manner {
                    reads_latency: true,
                    ..Manner::default()
                };
                let step = self.rig.run(relay.as_mut(), rate, manner)?;
                round.take(step);
            }
            round.figures = relay.figures();
        }
        relay.stop()?;
        Ok(round)
    }

    /// Returns the resident bytes that a call adds.
    fn open_calls(&mut self, relay: &mut dyn Relay, suite: Option<SrtpSuite>) -> Result<f64> {
        let peer = self.rig.generator.address()?;
        let warm_calls = WARM_CALLS.min(self.calls / 2);
        let media = CallMedia::pcmu(suite);
        self.rig.generator.forget_legs();
        let legs = relay.open_calls(warm_calls, peer, &media)?;
        let few = self.settle(relay, &legs)?;
        let legs = relay.open_calls(self.calls - warm_calls, peer, &media)?;
        let all = self.settle(relay, &legs)?;
        Ok(all.saturating_sub(few) as f64 / f64::from(self.calls - warm_calls))
    }

    /// Sees every flow come through and some media on it; resident bytes then.
    fn settle(&mut self, relay: &mut dyn Relay, legs: &[MediaLeg]) -> Result<u64> {
        self.rig.generator.add_legs(legs, &[]);
        self.rig.check_flows()?;
        relay.keep_in_touch()?;
        let step = self.rig.step;
        self.rig
            .generator
            .offer(20_000.0, Duration::from_secs(1), step, 0, ONE_BY_ONE)?;
        resident_bytes(relay.process_id())
    }

    /// Down to a rate that is sustained, then up beyond the peak: what a relay does not recover
    /// from comes last.
    fn climb(&mut self, relay: &mut dyn Relay, round: &mut Round) -> Result<()> {
        let mut rate = LADDER_START;
        while rate >= LOWEST_RATE {
            let step = self.rig.run(relay, rate, Manner::default())?;
            round.take(step);
            if round.sustained > 0.0 {
                break;
            }
            rate /= LADDER_STEP;
        }
        let mut rate = LADDER_START * LADDER_STEP;
        loop {
            let step = self.rig.run(relay, rate, Manner::default())?;
            let is_generators_end = step.offered < GENERATOR_SHARE * rate;
            round.take(step);
            if is_generators_end || rate > BEYOND_PEAK * round.peak {
                break;
            }
            rate *= LADDER_STEP;
        }
        Ok(())
    }

    fn look_at_latency(
        &mut self,
        relay: &mut dyn Relay,
        suite: Option<SrtpSuite>,
        round: &mut Round,
    ) -> Result<()> {
        if round.sustained == 0.0 {
            return Ok(());
        }
        let quiet = Manner {
            reads_latency: true,
            ..Manner::default()
        };
        let rate = 0.8 * round.sustained;
        round.at_80_percent = Some(self.median_window(relay, rate, quiet)?);
        let realtime = Realtime::of(relay.process_id())?;
        round.at_80_percent_realtime = Some(self.median_window(relay, rate, quiet)?);
        drop(realtime);
        set_priority(relay.process_id(), LATENCY_PRIORITY)?;
        // What an attacker sends to a protected leg cannot be told apart at the far end.
        if suite.is_none() {
            let sprayed = Manner {
                sprayed_per_call: 10,
                ..quiet
            };
            let rate = 0.1 * round.sustained;
            round.spray = Some([
                self.median_window(relay, rate, quiet)?,
                self.median_window(relay, rate, sprayed)?,
            ]);
        }
        Ok(())
    }

    /// The window with the median p99; losses are those of all windows.
    fn median_window(&mut self, relay: &mut dyn Relay, rate: f64, manner: Manner) -> Result<Step> {
        let length = std::mem::replace(&mut self.rig.length, LATENCY_WINDOW);
        let windows: Result<Vec<Step>> = (0..LATENCY_WINDOWS)
            .map(|_| self.rig.run(relay, rate, manner))
            .collect();
        self.rig.length = length;
        let mut windows = windows?;
        let loss = windows.iter().map(|step| step.loss).sum::<f64>() / windows.len() as f64;
        let leaked = windows.iter().map(|step| step.leaked).sum();
        windows.sort_by(|one, other| {
            let p99 = |step: &Step| step.latency_us.map_or(f64::INFINITY, |latency| latency.p99);
            p99(one).total_cmp(&p99(other))
        });
        let median = windows.swap_remove(windows.len() / 2);
        Ok(Step {
            loss,
            leaked,
            ..median
        })
    }
}

impl Round {
    fn take(&mut self, step: Step) {
        self.peak = self.peak.max(step.forwarded);
        if step.loss <= SUSTAINED_LOSS {
            self.sustained = self.sustained.max(step.forwarded);
        }
        self.steps.push(step);
    }
}
