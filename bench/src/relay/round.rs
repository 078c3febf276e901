//! One relay, measured once: the ladder of rates, overload, latency, spray, memory.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use trunkline_edge_api::SrtpSuite;

use super::far_end::{Arrived, FarEnd};
use super::generator::Generator;
use super::peer::{CoreTicks, Relay, cpu_time, resident_bytes, set_priority, user_seconds_of_all};
use super::wire::{Drops, Wire};
use crate::quantiles::Quantiles;

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
/// Packets of a latency run go one by one: in a batch they would wait for each other.
const ONE_BY_ONE: usize = 1;
/// Packets that come later than this after a step count as lost: they waited in a queue that would
/// only have grown.
const GRACE: Duration = Duration::from_millis(5);
/// Longest wait for a relay to get rid of what it has queued, before the next step.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// A step during which others used more of a core than this is done again.
const FOREIGN_MAX: f64 = 0.03;
/// How often at most, and how long others are given to finish.
const ATTEMPTS_MAX: usize = 6;
const PATIENCE: Duration = Duration::from_secs(3);
/// Calls that stand before memory is first looked at, so that what is touched once is in it.
const WARM_CALLS: u32 = 100;

/// What one rate came to.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Step {
    pub(super) wanted: f64,
    pub(super) offered: f64,
    pub(super) forwarded: f64,
    /// 0 … 1.
    pub(super) loss: f64,
    /// Shares of the relay's core.
    pub(super) idle: f64,
    pub(super) stolen: f64,
    /// User time of processes that are neither relay nor generator, in cores.
    pub(super) foreign: f64,
    /// Time of the relay's core per packet that was forwarded, microseconds: all of it, softirq
    /// too.
    pub(super) core_us_per_packet: f64,
    /// User and system time of the relay's process per packet, microseconds.
    pub(super) process_us_per_packet: f64,
    /// How long after the step packets still came, milliseconds.
    pub(super) drained_after_ms: u64,
    pub(super) lost_in_backlog: u64,
    pub(super) lost_in_sockets: u64,
    pub(super) generator_late_us: Option<Quantiles>,
    pub(super) latency_us: Option<Quantiles>,
    /// Packets of an attacker that came through.
    pub(super) leaked: u64,
}

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
    /// At a tenth of what is sustained, without and with ten times as much from an attacker.
    pub(super) spray: Option<[Step; 2]>,
    /// Resident bytes per call, from the difference between few calls and all of them.
    pub(super) bytes_per_call: f64,
    pub(super) figures: Vec<(&'static str, u64)>,
}

/// What a round needs.
pub(super) struct Bench<'a> {
    pub(super) wire: &'a Wire,
    pub(super) far_end: &'a mut FarEnd,
    pub(super) generator: &'a mut Generator,
    pub(super) step: u32,
    pub(super) calls: u32,
    pub(super) length: Duration,
    /// Rates to offer instead of the ladder; nothing else is measured then.
    pub(super) rates: Vec<f64>,
}

/// How a step offers its packets.
#[derive(Clone, Copy, Default)]
struct Manner {
    reads_latency: bool,
    /// Packets of the attacker after each of the calls'.
    sprayed_per_call: u32,
}

impl Bench<'_> {
    /// Measures what `start` starts. Latency is a fresh process's: some relays never recover from
    /// the overload that the ladder ends with.
    pub(super) fn measure(
        &mut self,
        name: &'static str,
        start: impl Fn() -> Result<Box<dyn Relay>>,
        suite: Option<SrtpSuite>,
    ) -> Result<Round> {
        let mut relay = start()?;
        let mut round = Round {
            relay: name,
            path: super::generator::suite_name(suite),
            steps: Vec::new(),
            peak: 0.0,
            sustained: 0.0,
            overload: Vec::new(),
            at_80_percent: None,
            spray: None,
            bytes_per_call: self.open_calls(relay.as_mut(), suite)?,
            figures: Vec::new(),
        };
        if self.rates.is_empty() {
            self.climb(relay.as_mut(), &mut round)?;
            for factor in [2.0, 3.0] {
                let rate = round.peak * factor;
                let step = self.run(relay.as_mut(), rate, Manner::default())?;
                round.overload.push(step);
            }
            round.figures = relay.figures();
            relay.stop()?;
            relay = start()?;
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
                let step = self.run(relay.as_mut(), rate, manner)?;
                round.take(step);
            }
            round.figures = relay.figures();
        }
        relay.stop()?;
        Ok(round)
    }

    /// Returns the resident bytes that a call adds.
    fn open_calls(&mut self, relay: &mut dyn Relay, suite: Option<SrtpSuite>) -> Result<f64> {
        let peer = self.generator.address()?;
        let warm_calls = WARM_CALLS.min(self.calls / 2);
        self.generator.forget_legs();
        let legs = relay.open_calls(warm_calls, peer, suite)?;
        let few = self.settle(relay, &legs)?;
        let legs = relay.open_calls(self.calls - warm_calls, peer, suite)?;
        let all = self.settle(relay, &legs)?;
        Ok(all.saturating_sub(few) as f64 / f64::from(self.calls - warm_calls))
    }

    /// Sees every flow come through and some media on it; resident bytes then.
    fn settle(&mut self, relay: &mut dyn Relay, legs: &[super::peer::MediaLeg]) -> Result<u64> {
        self.generator.add_legs(legs);
        self.far_end.pass(true)?;
        self.step += 1;
        let checked = self.generator.check_flows(self.step);
        self.far_end.pass(false)?;
        checked?;
        relay.keep_in_touch()?;
        self.generator
            .offer(20_000.0, Duration::from_secs(1), self.step, 0, ONE_BY_ONE)?;
        resident_bytes(relay.process_id())
    }

    /// Down to a rate that is sustained, then up beyond the peak: what a relay does not recover
    /// from comes last.
    fn climb(&mut self, relay: &mut dyn Relay, round: &mut Round) -> Result<()> {
        let mut rate = LADDER_START;
        while rate >= LOWEST_RATE {
            let step = self.run(relay, rate, Manner::default())?;
            round.take(step);
            if round.sustained > 0.0 {
                break;
            }
            rate /= LADDER_STEP;
        }
        let mut rate = LADDER_START * LADDER_STEP;
        loop {
            let step = self.run(relay, rate, Manner::default())?;
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
            sprayed_per_call: 0,
        };
        round.at_80_percent = Some(self.median_window(relay, 0.8 * round.sustained, quiet)?);
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
        let length = std::mem::replace(&mut self.length, LATENCY_WINDOW);
        let windows: Result<Vec<Step>> = (0..LATENCY_WINDOWS)
            .map(|_| self.run(relay, rate, manner))
            .collect();
        self.length = length;
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

    /// One step, again if others disturbed it.
    fn run(&mut self, relay: &mut dyn Relay, rate: f64, manner: Manner) -> Result<Step> {
        for _ in 1..ATTEMPTS_MAX {
            let step = self.attempt(relay, rate, manner)?;
            if step.foreign <= FOREIGN_MAX {
                return Ok(step);
            }
            eprintln!("    disturbed: others used {:.2} cores", step.foreign);
            std::thread::sleep(PATIENCE);
        }
        self.attempt(relay, rate, manner)
    }

    fn attempt(&mut self, relay: &mut dyn Relay, rate: f64, manner: Manner) -> Result<Step> {
        relay.keep_in_touch()?;
        self.step += 1;
        if manner.reads_latency {
            self.far_end.observe(self.step)?;
        }
        let batch_len_max = if manner.reads_latency {
            ONE_BY_ONE
        } else {
            usize::MAX
        };
        let arrived = self.far_end.arrived()?;
        let drops = self.wire.drops()?;
        let process_id = relay.process_id().to_string();
        let (cpu, own_cpu) = (cpu_time(&process_id)?, cpu_time("self")?);
        let all_user = user_seconds_of_all()?;
        let ticks = CoreTicks::now()?;
        let sent = self.generator.offer(
            rate,
            self.length,
            self.step,
            manner.sprayed_per_call,
            batch_len_max,
        )?;
        let (idle, stolen) = CoreTicks::now()?.shares_since(&ticks);
        let all_user = user_seconds_of_all()? - all_user;
        let (cpu_after, own_after) = (cpu_time(&process_id)?, cpu_time("self")?);
        let cpu_spent = cpu_after.user + cpu_after.system - cpu.user - cpu.system;
        let known_user = cpu_after.user - cpu.user + own_after.user - own_cpu.user;
        std::thread::sleep(GRACE);
        let in_time = self.far_end.arrived()?;
        let (after, drained_after_ms) = self.drain(in_time)?;
        let Drops { sockets, backlog } = self.wire.drops()?;
        let seconds = self.length.as_secs_f64();
        let forwarded = (in_time.rtp - arrived.rtp) as f64;
        let offered = (sent.packets - sent.sprayed) as f64;
        let step = Step {
            wanted: rate,
            offered: offered / seconds,
            forwarded: forwarded / seconds,
            loss: (1.0 - forwarded / offered.max(1.0)).max(0.0),
            idle,
            stolen,
            foreign: (all_user - known_user).max(0.0) / seconds,
            core_us_per_packet: (1.0 - idle) * seconds * 1e6 / forwarded.max(1.0),
            process_us_per_packet: cpu_spent * 1e6 / forwarded.max(1.0),
            drained_after_ms,
            lost_in_backlog: backlog - drops.backlog,
            lost_in_sockets: sockets - drops.sockets,
            generator_late_us: sent.lateness_us,
            latency_us: if manner.reads_latency {
                self.far_end.latency_us()?
            } else {
                None
            },
            leaked: after.sprayed - arrived.sprayed,
        };
        step.tell();
        Ok(step)
    }

    /// Waits until nothing more comes; what has come then, and how long that took, milliseconds.
    fn drain(&self, mut last: Arrived) -> Result<(Arrived, u64)> {
        const LOOK: Duration = Duration::from_millis(50);
        let mut waited = GRACE;
        let mut drained_after = Duration::ZERO;
        while waited < DRAIN_MAX {
            std::thread::sleep(LOOK);
            waited += LOOK;
            let now = self.far_end.arrived()?;
            if now.rtp == last.rtp && now.sprayed == last.sprayed {
                break;
            }
            drained_after = waited;
            last = now;
        }
        Ok((last, drained_after.as_millis() as u64))
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

impl Step {
    /// For who waits.
    fn tell(&self) {
        let latency = self.latency_us.map_or_else(String::new, |latency| {
            format!(
                ", p50 {} p99 {} p99.9 {} max {:.0} us",
                latency.p50, latency.p99, latency.p999, latency.max
            )
        });
        let late = self.generator_late_us.map_or(0.0, |late| late.p999);
        eprintln!(
            "    {:>7.0}/s offered  {:>7.0}/s forwarded  {:>7.3} % lost (backlog {}, sockets {})  core {:.0} % idle, drained after {} ms{latency}  (generator p99.9 late {late} us)",
            self.offered,
            self.forwarded,
            self.loss * 100.0,
            self.lost_in_backlog,
            self.lost_in_sockets,
            self.idle * 100.0,
            self.drained_after_ms,
        );
    }
}
