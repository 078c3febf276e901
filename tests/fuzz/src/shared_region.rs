//! A shared region whose words a peer has overwritten with anything.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use trunkline_edge_api::layout::{RING_LEN_MIN, RegionLayout};
use trunkline_edge_api::{Counter, Epoch, Event, MonoTime, PortRange, WorkerIndex};
use trunkline_ring::{ControlEnd, Doorbells, Region, WorkerEnd};

use crate::packets::Script;

/// Records that one end takes before it gives up: more than fit.
const RECORDS_MAX: usize = 4_096;

/// Overwrites words of a live region and lets both ends go on: neither panics nor loops, and
/// whoever opens the region anew either finds it sound or says what is wrong.
///
/// The input is a list of writes: 3 bytes of offset in words, and a chunk to write there.
pub fn ring(input: &[u8]) {
    let ports = PortRange::new(30_000, 30_099).expect("a range");
    let layout = RegionLayout::with_rings(
        WorkerIndex(0),
        1,
        ports,
        RING_LEN_MIN,
        RING_LEN_MIN,
        RING_LEN_MIN / 4,
    );
    let region_len = layout.region_len as u64;
    let Ok((region, fd)) = Region::create_with_layout(layout, 1) else {
        return;
    };
    let Ok(doorbells) = Doorbells::create() else {
        return;
    };
    let (Ok(to_worker), Ok(to_control)) = (
        doorbells.to_worker.try_clone(),
        doorbells.to_control.try_clone(),
    ) else {
        return;
    };
    let theirs = Doorbells {
        to_worker,
        to_control,
    };
    let file = File::from(clone(&fd));
    let mut worker = WorkerEnd::new(region, doorbells);
    let opened = Region::open(&fd).expect("it was made just now");
    let mut control = ControlEnd::attach(opened, theirs, Epoch(1), MonoTime(1));

    let mut script = Script::new(input);
    while let (Some(high), Some(low), Some(chunk)) = (script.byte(), script.byte(), script.chunk())
    {
        let word = u64::from(u16::from_be_bytes([high, low]));
        let offset = word * 8 % region_len;
        let len = chunk.len().min((region_len - offset) as usize);
        // A memfd of this length takes every write inside it.
        let _ = file.write_at(&chunk[..len], offset);
        both_go_on(&mut worker, &mut control);
    }
    if let Ok(region) = Region::open(&fd) {
        let view = region.view();
        let _ = (view.counter(Counter::Commands), view.commands_waiting_len());
    }
}

fn both_go_on(worker: &mut WorkerEnd, control: &mut ControlEnd) {
    for _ in 0..RECORDS_MAX {
        match worker.recv_command() {
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => break,
        }
    }
    let event = Event::CommandDone {
        correlation: trunkline_edge_api::Correlation(1),
        result: Ok(()),
    };
    let _ = worker.send_event(&event);
    let _ = worker.before_wait();
    worker.after_wait();
    for _ in 0..RECORDS_MAX {
        match control.recv_event() {
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => break,
        }
    }
    let _ = control.take_resync();
    let _ = (control.counter(Counter::Commands), control.edge_heartbeat());
}

fn clone(fd: &OwnedFd) -> OwnedFd {
    fd.try_clone().expect("there are descriptors left")
}
