//! The far end: a BPF program on the generator's side of the wire that counts what a relay sent,
//! reads how long it was on its way, and drops it in the driver.
//!
//! A receiving socket would cost the generator's core more than sending does; the ladder would
//! then end at the generator's limit, not the relay's.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use aya::Ebpf;
use aya::maps::{Array, MapData};
use aya::programs::{Xdp, XdpMode};

use super::wire::{GENERATOR_END, Side, Wire};
use crate::quantiles::Quantiles;

const SOURCE: &str = include_str!("far_end.bpf.c");

/// Cells and settings of the program, as it numbers them.
const CELL_RTP: u32 = 0;
const CELL_SPRAYED: u32 = 1;
const CELL_LATENCY_MAX: u32 = 2;
const CELL_LATENCY_BASE: u32 = 16;
/// One per microsecond; the last holds what took longer.
const LATENCY_BUCKETS: u32 = 16_384;
const SETTING_STEP: u32 = 0;
const SETTING_PASSES: u32 = 1;

/// First bytes of a payload, by which the program tells whose packet it is.
pub(crate) const MAGIC_CALL: u32 = 0x544c_4243;
/// The same of a packet that no relay should let through.
pub(crate) const MAGIC_SPRAY: u32 = 0x544c_4253;

/// The loaded program; unloaded when dropped.
pub(crate) struct FarEnd {
    cells: Array<MapData, u64>,
    settings: Array<MapData, u32>,
    _program: Ebpf,
}

/// RTP packets that have arrived so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrived {
    /// The calls' own.
    pub(crate) rtp: u64,
    /// The attacker's.
    pub(crate) sprayed: u64,
}

impl FarEnd {
    /// Compiles the program into `directory` and attaches it to the generator's end of `wire`.
    pub(crate) fn attach(wire: &Wire, directory: &Path) -> Result<Self> {
        let source = directory.join("far_end.bpf.c");
        let object = directory.join("far_end.bpf.o");
        std::fs::write(&source, SOURCE)?;
        let output = Command::new("clang")
            .args(["-O2", "-g", "-target", "bpf", "-c"])
            // Debian keeps <asm/types.h> below the host's triplet, where this target does not look.
            .arg(format!(
                "-I/usr/include/{}-linux-gnu",
                std::env::consts::ARCH
            ))
            .arg(&source)
            .arg("-o")
            .arg(&object)
            .output()
            .context("clang does not start (Debian package clang)")?;
        ensure!(
            output.status.success(),
            "clang: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let bytes = std::fs::read(&object)?;
        let mut program = Ebpf::load(&bytes).context("the kernel refuses the far end's program")?;
        let settings = program.take_map("settings").context("no settings")?;
        let cells = program.take_map("cells").context("no cells")?;
        // An interface is found in the namespace of the thread that looks for it.
        let program = wire.inside(Side::Generator, move || {
            let xdp: &mut Xdp = program
                .program_mut("far_end")
                .context("no program")?
                .try_into()?;
            xdp.load()?;
            xdp.attach(GENERATOR_END, XdpMode::Driver)?;
            Ok(program)
        })?;
        Ok(Self {
            cells: cells.try_into()?,
            settings: settings.try_into()?,
            _program: program,
        })
    }

    /// Lets everything through to sockets, for a look at what a relay makes of the packets.
    pub(crate) fn pass(&mut self, passes: bool) -> Result<()> {
        Ok(self.settings.set(SETTING_PASSES, u32::from(passes), 0)?)
    }

    pub(crate) fn arrived(&self) -> Result<Arrived> {
        Ok(Arrived {
            rtp: self.cells.get(&CELL_RTP, 0)?,
            sprayed: self.cells.get(&CELL_SPRAYED, 0)?,
        })
    }

    /// Observes latencies of packets that carry `step` from now on, and of no others.
    pub(crate) fn observe(&mut self, step: u32) -> Result<()> {
        self.settings.set(SETTING_STEP, step, 0)?;
        self.cells.set(CELL_LATENCY_MAX, 0, 0)?;
        for bucket in 0..LATENCY_BUCKETS {
            self.cells.set(CELL_LATENCY_BASE + bucket, 0, 0)?;
        }
        Ok(())
    }

    /// Latencies since [`Self::observe`], microseconds, each rounded up to a whole one; `None`
    /// when no packet could be read.
    pub(crate) fn latency_us(&self) -> Result<Option<Quantiles>> {
        let counts = (0..LATENCY_BUCKETS)
            .map(|bucket| self.cells.get(&(CELL_LATENCY_BASE + bucket), 0))
            .collect::<Result<Vec<u64>, _>>()?;
        let max_us = self.cells.get(&CELL_LATENCY_MAX, 0)? as f64 / 1e3;
        Ok(Quantiles::of_buckets(&counts, max_us))
    }
}
