//! What the measurement asks of a relay, whoever made it.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, setpriority_process};
use trunkline_edge_api::{AudioCodec, SrtpKey, SrtpSuite};

use super::wire::RELAY_CORE;

/// `USER_HZ`, in which /proc counts CPU time: 100 on every Linux that Trunkline runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Longest time that ending may take.
pub(crate) const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What the two legs of a call carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CallMedia {
    /// What each leg's peer sends and is sent, in 20 ms packets; transcoded where they differ.
    pub(crate) codecs: [AudioCodec; 2],
    /// How the second leg is protected; `None`: plain RTP, as the first always is.
    pub(crate) suite: Option<SrtpSuite>,
}

impl CallMedia {
    /// Relayed, not transcoded.
    pub(crate) const fn pcmu(suite: Option<SrtpSuite>) -> Self {
        Self {
            codecs: [AudioCodec::Pcmu, AudioCodec::Pcmu],
            suite,
        }
    }

    /// Plain RTP on both legs.
    pub(crate) const fn plain(codecs: [AudioCodec; 2]) -> Self {
        Self {
            codecs,
            suite: None,
        }
    }
}

/// A leg of a call as its peer knows it.
#[derive(Debug)]
pub(crate) struct MediaLeg {
    /// The relay's RTP address.
    pub(crate) relay: SocketAddr,
    /// `None` for plain RTP.
    pub(crate) crypto: Option<LegKeys>,
}

/// Keys of a protected leg (RFC 4568).
#[derive(Debug)]
pub(crate) struct LegKeys {
    pub(crate) suite: SrtpSuite,
    pub(crate) to_relay: SrtpKey,
    pub(crate) from_relay: SrtpKey,
}

/// A relay process under test.
pub(crate) trait Relay {
    /// Opens `count` calls more; both peers of each are `peer`. Legs of one call are neighbours in
    /// what is returned. RTCP has ports of its own.
    fn open_calls(
        &mut self,
        count: u32,
        peer: SocketAddr,
        media: &CallMedia,
    ) -> Result<Vec<MediaLeg>>;

    /// Whatever has to be done between two steps; an error when the relay is gone.
    fn keep_in_touch(&mut self) -> Result<()>;

    fn process_id(&self) -> u32;

    /// Ends it in good order: one that is killed leaves its ports to the kernel for a while, and
    /// the next relay wants the same ones.
    fn stop(&mut self) -> Result<()>;

    /// What it counted, for who looks into a result; may be empty.
    fn figures(&self) -> Vec<(&'static str, u64)>;
}

/// Sets the priority of all threads of a process, as nice(1) counts it.
pub(crate) fn set_priority(process_id: u32, priority: i32) -> Result<()> {
    for task in fs::read_dir(format!("/proc/{process_id}/task"))? {
        let thread: i32 = task?.file_name().to_string_lossy().parse()?;
        setpriority_process(Pid::from_raw(thread), priority)?;
    }
    Ok(())
}

/// How often the threads of a process had to leave their core to others although they had work to
/// do, since they began.
pub(crate) fn preemptions(process_id: u32) -> Result<u64> {
    let mut count = 0;
    for task in fs::read_dir(format!("/proc/{process_id}/task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        count += status
            .lines()
            .find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"))
            .and_then(|rest| rest.trim().parse::<u64>().ok())
            .context("/proc/<pid>/task/<tid>/status tells no switches")?;
    }
    Ok(count)
}

/// How long realtime threads may have a core to themselves, microseconds of each second; -1: for
/// ever.
const REALTIME_SYSCTL: &str = "/proc/sys/kernel/sched_rt_runtime_us";

/// While this lives, all threads of a process go before every other on their core (`SCHED_FIFO`),
/// as one would have a relay run whose machine has other work, too.
pub(crate) struct Realtime {
    process_id: u32,
    limit_before: String,
}

impl Realtime {
    /// Needs root and chrt(1).
    pub(crate) fn of(process_id: u32) -> Result<Self> {
        let limit_before = fs::read_to_string(REALTIME_SYSCTL)?;
        fs::write(REALTIME_SYSCTL, "-1")?;
        let realtime = Self {
            process_id,
            limit_before,
        };
        realtime.schedule(&["--fifo", "--all-tasks", "--pid", "1"])?;
        Ok(realtime)
    }

    fn schedule(&self, arguments: &[&str]) -> Result<()> {
        let status = Command::new("chrt")
            .args(arguments)
            .arg(self.process_id.to_string())
            .status()
            .context("chrt does not start (Debian package util-linux)")?;
        ensure!(status.success(), "chrt says {status}");
        Ok(())
    }
}

impl Drop for Realtime {
    fn drop(&mut self) {
        // The process may be gone; of the rest nothing can be done about what cannot be put back.
        let _ = self.schedule(&["--other", "--all-tasks", "--pid", "0"]);
        let _ = fs::write(REALTIME_SYSCTL, &self.limit_before);
    }
}

/// Resident memory of a process, bytes.
pub(crate) fn resident_bytes(process_id: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process_id}/status"))?;
    let kilobytes: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse().ok())
        .context("/proc/<pid>/status has no VmRSS")?;
    Ok(kilobytes * 1024)
}

/// CPU time of a process so far, seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CpuTime {
    pub(crate) user: f64,
    pub(crate) system: f64,
}

impl CpuTime {
    pub(crate) fn total(self) -> f64 {
        self.user + self.system
    }
}

/// `process` is a process id, or `self`; with `/task/<id>` behind it, one thread is meant.
pub(crate) fn cpu_time(process: &str) -> Result<CpuTime> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The command name, in parentheses, may hold spaces; utime and stime are the 12th and 13th
    // fields after it.
    let (_, fields) = stat
        .rsplit_once(')')
        .context("/proc/<pid>/stat has no name")?;
    let mut ticks = fields.split_whitespace().skip(11);
    let mut seconds = || -> Result<f64> {
        let ticks: f64 = ticks.next().context("/proc/<pid>/stat is short")?.parse()?;
        Ok(ticks / TICKS_PER_SECOND)
    };
    Ok(CpuTime {
        user: seconds()?,
        system: seconds()?,
    })
}

/// The thread of a process that has this name, as [`cpu_time`] wants it; `None` when none has.
pub(crate) fn thread_named(process_id: u32, name: &str) -> Result<Option<String>> {
    for task in fs::read_dir(format!("/proc/{process_id}/task"))? {
        let path = task?.path();
        if fs::read_to_string(path.join("comm"))?.trim_end() == name {
            let thread = path.strip_prefix("/proc").unwrap_or(&path);
            return Ok(Some(thread.display().to_string()));
        }
    }
    Ok(None)
}

/// User time of everything on all cores since boot, seconds.
pub(crate) fn user_seconds_of_all() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let ticks: f64 = stat
        .lines()
        .next()
        .context("/proc/stat is empty")?
        .split_whitespace()
        .skip(1)
        .take(2)
        .map(|field| field.parse::<f64>())
        .sum::<Result<f64, _>>()?;
    Ok(ticks / TICKS_PER_SECOND)
}

/// What the kernel says the relay's core did since boot, in ticks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CoreTicks {
    idle: u64,
    stolen: u64,
    all: u64,
}

impl CoreTicks {
    pub(crate) fn now() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let prefix = format!("cpu{RELAY_CORE} ");
        let line = stat
            .lines()
            .find_map(|line| line.strip_prefix(prefix.as_str()))
            .context("/proc/stat does not know the relay's core")?;
        // user nice system idle iowait irq softirq steal; guest time is in user already.
        let ticks: Vec<u64> = line
            .split_whitespace()
            .take(8)
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            idle: ticks.get(3..5).context("/proc/stat is short")?.iter().sum(),
            stolen: *ticks.get(7).context("/proc/stat is short")?,
            all: ticks.iter().sum(),
        })
    }

    /// Shares since `earlier`, 0 … 1: idle, and taken by the hypervisor.
    pub(crate) fn shares_since(&self, earlier: &Self) -> (f64, f64) {
        let all = self.all.saturating_sub(earlier.all).max(1) as f64;
        (
            self.idle.saturating_sub(earlier.idle) as f64 / all,
            self.stolen.saturating_sub(earlier.stolen) as f64 / all,
        )
    }
}
