//! What media functions cost: calls, members and playbacks that one core of the real edge carries,
//! beside rtpengine where it does the same; how soon a digit is told; and what a frame costs in
//! memory.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;

use crate::allocation_counter::CountingAllocator;
use crate::report::{Machine, Report};

mod call;
mod carried;
mod digits;
mod frames;
mod load;
mod stopwatch;
mod through_edge;

/// Packets per second and direction.
const FRAMES_PER_SECOND: f64 = 50.0;

/// How much.
#[derive(Args)]
pub struct MediaArguments {
    /// Sessions that live at once in memory, of each kind
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    sessions: u32,
    /// Seconds for which sessions through the edge are looked at
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Microseconds for which the generator gathers packets, as a NIC does before it interrupts;
    /// 0: it sends each when it is due
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(..=1_000))]
    coalesce_us: u64,
    /// Only kinds whose name contains this; nothing is written
    #[arg(long)]
    only: Option<String>,
    /// Leave out the real edge, which needs root and two cores; nothing is written
    #[arg(long)]
    in_memory: bool,
    /// Leave out sessions in memory; nothing is written
    #[arg(long, conflicts_with = "in_memory")]
    through_edge: bool,
}

impl MediaArguments {
    /// Whether kinds of this name are asked for.
    fn wants(&self, name: &str) -> bool {
        let only = self.only.as_ref();
        only.is_none_or(|only| name.contains(only.as_str()))
    }
}

/// Measures, and publishes `bench/results/media.*`. `allocator` is this program's.
pub fn measure(arguments: &MediaArguments, allocator: &CountingAllocator) -> Result<()> {
    // Before anything is pinned: what is pinned sees one core.
    let machine = Machine::this();
    let mut report = Report::new(
        "media",
        "Media functions on one core",
        &through_edge::COLUMNS,
    );
    report.machine = machine;
    if !arguments.through_edge {
        // On a thread of its own: it is pinned to another core than what follows.
        std::thread::scope(|scope| {
            let frames = scope.spawn(|| frames::measure(arguments, allocator, &mut report));
            frames
                .join()
                .unwrap_or_else(|_| bail!("the thread of the sessions in memory panicked"))
        })?;
    }
    if !arguments.in_memory {
        through_edge::measure(
            arguments,
            Duration::from_secs(arguments.seconds),
            &mut report,
        )?;
    }
    if arguments.only.is_some() || arguments.in_memory || arguments.through_edge {
        print!("{}", report.to_markdown());
        return Ok(());
    }
    report.publish()
}
