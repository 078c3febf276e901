//! A window of offered load: what a relay made of so many packets a second, and what it took.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::far_end::{Arrived, FarEnd};
use super::generator::Generator;
use super::peer::{CoreTicks, Relay, cpu_time, preemptions, user_seconds_of_all};
use super::wire::{ATTACKER_IP, Drops, GENERATOR_CORE, GENERATOR_IP, Wire};
use crate::quantiles::Quantiles;

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
/// Packets of a latency run go one by one: in a batch they would wait for each other.
pub(crate) const ONE_BY_ONE: usize = 1;

/// What one rate came to.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Step {
    pub(crate) wanted: f64,
    pub(crate) offered: f64,
    pub(crate) forwarded: f64,
    /// 0 … 1.
    pub(crate) loss: f64,
    /// Shares of the relay's core.
    pub(crate) idle: f64,
    pub(crate) stolen: f64,
    /// User time of processes that are neither relay nor generator, in cores.
    pub(crate) foreign: f64,
    /// How often the relay had to leave its core to others although it had work to do.
    pub(crate) preempted: u64,
    /// Time of the relay's core per packet that was forwarded, microseconds: all of it, softirq
    /// too.
    pub(crate) core_us_per_packet: f64,
    /// User and system time of the relay's process per packet, microseconds.
    pub(crate) process_us_per_packet: f64,
    /// How long after the step packets still came, milliseconds.
    pub(crate) drained_after_ms: u64,
    pub(crate) lost_in_backlog: u64,
    pub(crate) lost_in_sockets: u64,
    pub(crate) generator_late_us: Option<Quantiles>,
    pub(crate) latency_us: Option<Quantiles>,
    /// Packets of an attacker that came through.
    pub(crate) leaked: u64,
}

/// How a step offers its packets.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Manner {
    pub(crate) reads_latency: bool,
    /// Packets of the attacker after each of the calls'.
    pub(crate) sprayed_per_call: u32,
    /// Nobody waits for what is still under way: the relay sends on its own, or has no step more.
    pub(crate) ends_at_once: bool,
}

/// Both ends of the wire, without a relay.
pub(crate) struct Rig {
    pub(crate) far_end: FarEnd,
    pub(crate) generator: Generator,
    /// The last window's number, which its packets carry.
    pub(crate) step: u32,
    /// Of the windows that follow.
    pub(crate) length: Duration,
    /// Goes last: the others stand on it.
    pub(crate) wire: Wire,
}

impl Rig {
    /// Lays the wire and pins this thread, the generator, to its core; it makes up for at most
    /// `catch_up_max` of lost time. Needs root, two cores, iproute2 and clang.
    pub(crate) fn set_up(length: Duration, catch_up_max: Duration) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        ensure!(
            cores >= 2,
            "this measurement needs two cores: one for the relay, one for the generator"
        );
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
        }
        let directory = tempfile::tempdir()?;
        let wire = Wire::lay()?;
        let far_end = FarEnd::attach(&wire, directory.path())?;
        let generator = Generator::new(
            wire.generator_socket(GENERATOR_IP)?,
            wire.generator_socket(ATTACKER_IP)?,
            catch_up_max,
            interrupted,
        )?;
        super::pin(GENERATOR_CORE)?;
        Ok(Self {
            far_end,
            generator,
            step: 0,
            length,
            wire,
        })
    }

    /// Sees every flow come through the relay.
    pub(crate) fn check_flows(&mut self) -> Result<()> {
        self.far_end.pass(true)?;
        self.step += 1;
        let checked = self.generator.check_flows(self.step);
        self.far_end.pass(false)?;
        checked
    }

    /// One step, again if others disturbed it.
    pub(crate) fn run(&mut self, relay: &mut dyn Relay, rate: f64, manner: Manner) -> Result<Step> {
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

    pub(crate) fn attempt(
        &mut self,
        relay: &mut dyn Relay,
        rate: f64,
        manner: Manner,
    ) -> Result<Step> {
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
        let preempted = preemptions(relay.process_id())?;
        let ticks = CoreTicks::now()?;
        let sent = self.generator.offer(
            rate,
            self.length,
            self.step,
            manner.sprayed_per_call,
            batch_len_max,
        )?;
        let (idle, stolen) = CoreTicks::now()?.shares_since(&ticks);
        let preempted = preemptions(relay.process_id())? - preempted;
        let all_user = user_seconds_of_all()? - all_user;
        let (cpu_after, own_after) = (cpu_time(&process_id)?, cpu_time("self")?);
        let cpu_spent = cpu_after.user + cpu_after.system - cpu.user - cpu.system;
        let known_user = cpu_after.user - cpu.user + own_after.user - own_cpu.user;
        std::thread::sleep(GRACE);
        let in_time = self.far_end.arrived()?;
        let (after, drained_after_ms) = if manner.ends_at_once {
            (in_time, 0)
        } else {
            self.drain(in_time)?
        };
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
            preempted,
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
            "    {:>7.0}/s offered  {:>7.0}/s forwarded  {:>7.3} % lost (backlog {}, sockets {})  core {:.0} % idle, drained after {} ms{latency}  (preempted {} times, generator p99.9 late {late:.0} us)",
            self.offered,
            self.forwarded,
            self.loss * 100.0,
            self.lost_in_backlog,
            self.lost_in_sockets,
            self.idle * 100.0,
            self.drained_after_ms,
            self.preempted,
        );
    }
}
