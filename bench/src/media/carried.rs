//! The most sessions that one core carries.
//!
//! All sessions of a step are opened on a relay that has just started, before any media flows: a
//! worker turns new calls away when it is busy, and what is looked for lies beyond that. Then every
//! peer sends its 50 packets a second, and what reaches the far end is counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;
use trunkline_edge_api::Counter;

use super::FRAMES_PER_SECOND;
use crate::rig::peer::{MediaLeg, Relay, cpu_time, set_priority, thread_named};
use crate::rig::voice::Voice;
use crate::rig::window::{Manner, Rig};
use crate::rig::wire::Wire;

/// Loss up to which sessions count as carried: 0.1 %.
const CARRIED_LOSS: f64 = 0.001;
/// How long media flows before it is looked at.
pub(super) const WARM_UP: Duration = Duration::from_secs(1);
/// How long nobody speaks then: what came while a relay was still settling is out of the way.
const REST: Duration = Duration::from_millis(300);
/// Priority of relay and generator, as nice(1) counts it: the machine is shared, and others'
/// moments would be told for the relay's.
const PRIORITY: i32 = -10;
/// A generator that sends less than this share of what it should is at its own end.
const GENERATOR_SHARE: f64 = 0.98;
/// The search ends when what was lost is at most this many times what was carried.
const RESOLUTION: f64 = 1.05;
/// How far the search goes up at once, at most.
const LEAP_MAX: f64 = 1.6;
/// Steps of a search at most.
const STEPS_MAX: usize = 6;
/// A step during which others used more of a core than this says nothing of what was lost.
const FOREIGN_MAX: f64 = 0.03;
/// How often a step is done again for that.
const ATTEMPTS_MAX: usize = 3;
const PATIENCE: Duration = Duration::from_secs(2);

/// Opens so many sessions, all of whose peers are at that address.
pub(super) type Open<'a> =
    dyn Fn(&Wire, SocketAddr, u32) -> Result<(Box<dyn Relay>, Vec<MediaLeg>)> + 'a;

/// What is looked for.
pub(super) struct Search<'a> {
    /// Of the legs in turn.
    pub(super) voices: Vec<Arc<Voice>>,
    /// What legs are sent does not follow what is received: the worker's clock makes it.
    pub(super) is_clocked: bool,
    /// A guess, and how many can be opened.
    pub(super) first: u32,
    pub(super) last: u32,
    /// Sessions come in groups of so many.
    pub(super) group: u32,
    pub(super) open: &'a Open<'a>,
}

/// What so many sessions came to.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Step {
    pub(super) sessions: u32,
    /// Packets per second.
    pub(super) offered: f64,
    pub(super) forwarded: f64,
    /// Of what peers should have been sent, and of what they sent: 0 … 1.
    pub(super) loss: f64,
    pub(super) loss_inward: f64,
    /// Packets that recordings lost.
    pub(super) unrecorded: u64,
    /// Ticks that came a packet time late.
    pub(super) late_ticks: u64,
    /// Share of the relay's core, softirq and all threads.
    pub(super) busy: f64,
    /// User and system time of the relay's process, microseconds per session and 20 ms.
    pub(super) process_us: f64,
    /// The same of the recorder's thread alone.
    pub(super) recorder_us: f64,
    /// User time of other processes, in cores.
    pub(super) foreign: f64,
    /// The generator kept its pace.
    pub(super) is_paced: bool,
    pub(super) is_carried: bool,
}

/// Where a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum End {
    /// Packets stayed away.
    Lost,
    /// More could not be opened, or the generator came to its end.
    NotReached,
}

/// What a search came to.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Carried {
    pub(super) steps: Vec<Step>,
    pub(super) end: End,
}

impl Carried {
    /// The step with the most sessions that were carried.
    pub(super) fn best(&self) -> Option<&Step> {
        let carried = self.steps.iter().filter(|step| step.is_carried);
        carried.max_by_key(|step| step.sessions)
    }

    /// The highest rate forwarded, packets per second, whatever was lost.
    pub(super) fn peak(&self) -> f64 {
        let rates = self.steps.iter().map(|step| step.forwarded);
        rates.fold(0.0, f64::max)
    }
}

impl Step {
    /// How many sessions like these fill the core, going by the time they take of it.
    pub(super) fn by_cpu(&self) -> f64 {
        f64::from(self.sessions) / self.busy.max(f64::EPSILON)
    }
}

impl Search<'_> {
    /// Goes up from the guess until packets are lost, then in between.
    pub(super) fn run(&self, rig: &mut Rig) -> Result<Carried> {
        set_priority(std::process::id(), PRIORITY)?;
        let mut steps: Vec<Step> = Vec::new();
        let (mut carried, mut lost) = (0, None);
        let mut wanted = self.first;
        let mut end = End::Lost;
        while steps.len() < STEPS_MAX {
            let step = self.step(rig, wanted, steps.is_empty())?;
            let (is_carried, is_paced) = (step.is_carried, step.is_paced);
            let (busy, delivered) = (step.busy, step.forwarded / step.offered.max(1.0));
            if !is_paced {
                end = End::NotReached;
                break;
            }
            steps.push(step);
            if is_carried {
                carried = wanted;
            } else {
                lost = Some(wanted);
            }
            let next = match lost {
                Some(lost) if carried > 0 => f64::from(carried + lost) / 2.0,
                // Nothing yet: what came through says where to look.
                Some(lost) => f64::from(lost) * (0.95 * delivered).clamp(0.3, 0.9),
                None => f64::from(carried) * (1.0 / busy.max(0.1)).clamp(1.08, LEAP_MAX),
            };
            let next = (next as u32 / self.group).max(1) * self.group;
            let is_found = lost.is_some_and(|lost| {
                next <= carried || f64::from(lost) <= RESOLUTION * f64::from(carried)
            });
            if is_found || next == wanted {
                break;
            }
            if next > self.last {
                end = End::NotReached;
                break;
            }
            wanted = next;
        }
        Ok(Carried { steps, end })
    }

    /// One step, again if it was lost while others disturbed it.
    fn step(&self, rig: &mut Rig, sessions: u32, is_first: bool) -> Result<Step> {
        for _ in 1..ATTEMPTS_MAX {
            let step = self.attempt(rig, sessions, is_first)?;
            let is_disturbed = step.foreign > FOREIGN_MAX && !step.is_carried;
            if step.is_paced && !is_disturbed {
                return Ok(step);
            }
            eprintln!("    disturbed: others used {:.2} cores", step.foreign);
            std::thread::sleep(PATIENCE);
        }
        self.attempt(rig, sessions, is_first)
    }

    fn attempt(&self, rig: &mut Rig, sessions: u32, is_first: bool) -> Result<Step> {
        let peer = rig.generator.address()?;
        rig.generator.forget_legs();
        let (mut relay, legs) = (self.open)(&rig.wire, peer, sessions)?;
        ensure!(!legs.is_empty(), "nothing to send into");
        rig.generator.add_legs(&legs, &self.voices);
        relay.keep_in_touch()?;
        // What is measured must be what the name says.
        if is_first {
            rig.check_flows()?;
            relay.keep_in_touch()?;
        }
        let rate = legs.len() as f64 * FRAMES_PER_SECOND;
        set_priority(relay.process_id(), PRIORITY)?;
        rig.generator
            .offer(rate, WARM_UP, rig.step, 0, usize::MAX)?;
        std::thread::sleep(REST);
        relay.keep_in_touch()?;

        let process = relay.process_id();
        let recorder = thread_named(process, "recorder")?;
        let recorder_seconds = || recorder.as_deref().map_or(Ok(0.0), seconds_of);
        let figures = relay.figures();
        let recorder_before = recorder_seconds()?;
        let manner = Manner {
            ends_at_once: true,
            ..Manner::default()
        };
        let window = rig.attempt(relay.as_mut(), rate, manner)?;
        let recorder_spent = recorder_seconds()? - recorder_before;
        let after = relay.figures();
        relay.stop()?;

        let counted = |counter: Counter| {
            let value = |figures: &[(&str, u64)]| {
                let found = figures.iter().find(|(name, _)| *name == counter.name());
                found.map_or(0, |(_, count)| *count)
            };
            value(&after) - value(&figures)
        };
        let seconds = rig.length.as_secs_f64();
        let sent = window.offered * seconds;
        // One packet of each leg may lie on either side of the window's ends.
        let (excused, loss_inward) = match self.is_clocked {
            true => (
                1.0 / (FRAMES_PER_SECOND * seconds),
                (1.0 - counted(Counter::RxRtpPackets) as f64 / sent).max(0.0),
            ),
            false => (0.0, 0.0),
        };
        let loss = (1.0 - window.forwarded / rate.min(window.offered) - excused).max(0.0);
        let unrecorded = counted(Counter::RecordingPacketsLost);
        let frames = f64::from(sessions) * FRAMES_PER_SECOND * seconds;
        let step = Step {
            sessions,
            offered: window.offered,
            forwarded: window.forwarded,
            loss,
            loss_inward,
            unrecorded,
            late_ticks: counted(Counter::TicksLate),
            busy: 1.0 - window.idle,
            process_us: window.process_us_per_packet * window.forwarded * seconds / frames,
            recorder_us: recorder_spent * 1e6 / frames,
            foreign: window.foreign,
            is_paced: window.offered >= GENERATOR_SHARE * rate,
            is_carried: loss.max(loss_inward) <= CARRIED_LOSS && unrecorded == 0,
        };
        eprintln!(
            "  {sessions} sessions: {:.3} % lost, inward {:.3} %, {unrecorded} unrecorded, core {:.0} % busy, {:.1} us per session and 20 ms{}",
            100.0 * step.loss,
            100.0 * step.loss_inward,
            100.0 * step.busy,
            step.process_us,
            if step.is_paced {
                ""
            } else {
                ", generator late"
            }
        );
        Ok(step)
    }
}

fn seconds_of(thread: &str) -> Result<f64> {
    Ok(cpu_time(thread)?.total())
}
