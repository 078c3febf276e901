//! What the tests of this crate share.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use trunkline_edge_api::command::CorrelatedCommand;
use trunkline_edge_api::layout::{RegionLayout, WORD_LEN};
use trunkline_edge_api::{
    ClockRateHz, Command, Correlation, Epoch, Event, LegConfig, LegIndex, LegReport,
    MediaDirection, MediaTimeouts, PayloadRoute, PayloadRoutes, PayloadType, PortRange, SessionId,
    SessionReport, SourcePolicy, WorkerIndex,
};
use trunkline_ring::{Doorbells, Region, RegionSpec, WorkerFds};

pub(crate) fn spec() -> RegionSpec {
    RegionSpec {
        worker: WorkerIndex(0),
        generation: 1,
        ports: PortRange::new(30_000, 30_999).expect("valid range"),
        edge_pid: std::process::id(),
    }
}

pub(crate) fn layout() -> RegionLayout {
    let spec = spec();
    RegionLayout::new(spec.worker, spec.generation, spec.ports)
}

/// The smallest rings, so that they are soon full and often wrap.
pub(crate) fn small_layout() -> RegionLayout {
    let spec = spec();
    RegionLayout::with_rings(spec.worker, spec.generation, spec.ports, 8192, 8192, 2048)
}

pub(crate) fn dup(fd: impl AsFd) -> OwnedFd {
    fd.as_fd()
        .try_clone_to_owned()
        .expect("a descriptor is free")
}

pub(crate) fn dup_doorbells(doorbells: &Doorbells) -> Doorbells {
    Doorbells {
        to_worker: dup(&doorbells.to_worker),
        to_control: dup(&doorbells.to_control),
    }
}

pub(crate) fn dup_fds(fds: &WorkerFds) -> WorkerFds {
    WorkerFds {
        worker: fds.worker,
        region: dup(&fds.region),
        doorbells: dup_doorbells(&fds.doorbells),
    }
}

/// A region and a way to write into it as a peer gone wrong would.
pub(crate) fn region_and_raw(layout: RegionLayout) -> (Region, OwnedFd, Raw) {
    let (region, fd) = Region::create_with_layout(layout, std::process::id()).expect("created");
    let raw = Raw(dup(&fd).into());
    (region, fd, raw)
}

pub(crate) struct Raw(pub(crate) File);

impl Raw {
    pub(crate) fn set_word(&self, index: usize, value: u64) {
        self.write(index * WORD_LEN, &value.to_le_bytes());
    }

    pub(crate) fn word(&self, index: usize) -> u64 {
        let mut bytes = [0; WORD_LEN];
        self.0
            .read_exact_at(&mut bytes, (index * WORD_LEN) as u64)
            .expect("inside the region");
        u64::from_le_bytes(bytes)
    }

    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        self.0
            .write_all_at(bytes, offset as u64)
            .expect("inside the region");
    }
}

/// The `serial`-th command of an epoch. Its length and every byte of it follow from the two, so
/// that a torn or foreign record does not equal it.
pub(crate) fn command(epoch: Epoch, serial: u32) -> CorrelatedCommand {
    let routes = (0..serial % 33)
        .map(|i| PayloadRoute {
            from: PayloadType::new(i as u8).expect("below 128"),
            to: PayloadType::new(((serial + i) % 128) as u8).expect("below 128"),
            clock_rate: ClockRateHz::new(1 + serial % 300_000).expect("in range"),
        })
        .collect();
    let session = SessionId::new(epoch, serial);
    CorrelatedCommand {
        correlation: Correlation(session.0),
        command: Command::ConfigureLeg {
            session,
            leg: LegIndex::A,
            config: LegConfig {
                remote_rtp: Some(([127, 0, 0, 1], serial as u16).into()),
                remote_rtcp: None,
                source: SourcePolicy::Exact,
                direction: MediaDirection::SendReceive,
                routes: PayloadRoutes::new(routes).expect("distinct"),
                crypto: None,
                timeouts: MediaTimeouts::OFF,
            },
        },
    }
}

pub(crate) fn query(correlation: u64) -> CorrelatedCommand {
    CorrelatedCommand {
        correlation: Correlation(correlation),
        command: Command::QueryAllSessions,
    }
}

pub(crate) fn done(correlation: u64) -> Event {
    Event::CommandDone {
        correlation: Correlation(correlation),
        result: Ok(()),
    }
}

/// A report whose every figure follows from the arguments.
pub(crate) fn reported(life: u32, serial: u32) -> Event {
    let session = SessionId::new(Epoch(life), serial);
    let leg = |offset: u64| LegReport {
        rx_packets: session.0 ^ offset,
        rx_bytes: session.0 ^ (offset + 1),
        tx_packets: session.0 ^ (offset + 2),
        tx_bytes: session.0 ^ (offset + 3),
        rx_rtcp_packets: session.0 ^ (offset + 4),
        tx_rtcp_packets: session.0 ^ (offset + 5),
        dropped_packets: session.0 ^ (offset + 6),
        ..LegReport::default()
    };
    Event::SessionReported {
        correlation: Correlation(session.0),
        report: SessionReport {
            session,
            legs: [leg(1), leg(11)],
        },
    }
}

/// Small, fast, and the same on every run for the same seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
