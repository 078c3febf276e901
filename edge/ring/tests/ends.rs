//! A worker's end and control's end of one region, in one process.

mod common;

use std::os::fd::AsFd;

use common::{
    Random, Raw, command, done, dup_doorbells, query, region_and_raw, reported, small_layout,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use trunkline_edge_api::layout::{RegionLayout, WORD_LEN, word};
use trunkline_edge_api::wire::DecodeFault;
use trunkline_edge_api::{
    CloseCause, Correlation, Counter, DropReason, Epoch, Event, LegReport, MonoTime, SessionId,
    SessionReport,
};
use trunkline_ring::{ControlEnd, Doorbells, RecvError, Region, RingFault, SendError, WorkerEnd};

struct Ends {
    worker: WorkerEnd,
    control: ControlEnd,
    raw: Raw,
    doorbells: Doorbells,
    fd: std::os::fd::OwnedFd,
}

impl Ends {
    fn new(layout: RegionLayout) -> Self {
        let (region, fd, raw) = region_and_raw(layout);
        let doorbells = Doorbells::create().expect("eventfds");
        let worker = WorkerEnd::new(region, dup_doorbells(&doorbells));
        let control = attach(&fd, &doorbells, 1);
        Self {
            worker,
            control,
            raw,
            doorbells,
            fd,
        }
    }

    /// The first control has died; another takes over.
    fn next_control(&mut self, epoch: u32) {
        self.control = attach(&self.fd, &self.doorbells, epoch);
    }
}

fn attach(fd: impl AsFd, doorbells: &Doorbells, epoch: u32) -> ControlEnd {
    let region = Region::open(fd).expect("sound");
    ControlEnd::attach(region, dup_doorbells(doorbells), Epoch(epoch), MonoTime(1))
}

fn closed(serial: u32) -> Event {
    let session = SessionId::new(Epoch(1), serial);
    let report = SessionReport {
        session,
        legs: [LegReport::default(); 2],
    };
    Event::SessionClosed {
        cause: CloseCause::Commanded,
        report,
    }
}

fn is_readable(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    poll(
        &mut fds,
        Some(&Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        }),
    )
    .expect("polled")
        == 1
}

/// All events there are; fails on an error.
fn events(control: &mut ControlEnd) -> Vec<Event> {
    std::iter::from_fn(|| control.recv_event().expect("sound")).collect()
}

#[test]
fn commands_and_events_arrive_as_sent_and_are_counted() {
    let mut ends = Ends::new(common::layout());
    for serial in 0..100 {
        ends.control
            .send_command(&command(Epoch(1), serial))
            .expect("room");
    }
    for serial in 0..100 {
        assert_eq!(
            ends.worker.recv_command(),
            Ok(Some(command(Epoch(1), serial)))
        );
        ends.worker.send_event(&done(serial.into())).expect("room");
    }
    assert_eq!(ends.worker.recv_command(), Ok(None));
    assert_eq!(
        events(&mut ends.control),
        (0..100).map(done).collect::<Vec<_>>()
    );
    assert_eq!(ends.control.counter(Counter::Commands), 100);
    assert_eq!(ends.control.counter(Counter::Events), 100);
    assert_eq!(ends.control.counter(Counter::EventsDropped), 0);
}

#[test]
fn full_command_ring_refuses_and_everybody_sees_it() {
    let mut ends = Ends::new(small_layout());
    let mut sent = 0;
    while ends.control.send_command(&query(sent)).is_ok() {
        sent += 1;
    }
    assert_eq!(
        ends.control.send_command(&query(sent)),
        Err(SendError::Full)
    );
    assert_eq!(ends.control.view().commands_full_count(), 2);
    assert_eq!(ends.worker.view().commands_full_count(), 2);
    assert_eq!(ends.control.view().commands_waiting_len(), 8184);
    let region = Region::open_read_only(&ends.fd).expect("sound");
    assert_eq!(region.view().commands_full_count(), 2);

    assert_eq!(ends.worker.recv_command(), Ok(Some(query(0))));
    ends.control.send_command(&query(sent)).expect("room again");
    for correlation in 1..=sent {
        assert_eq!(ends.worker.recv_command(), Ok(Some(query(correlation))));
    }
}

#[test]
fn reserve_of_the_event_ring_is_for_events_that_must_arrive() {
    let mut ends = Ends::new(small_layout());
    assert!(ends.control.take_resync(), "due after attaching");
    let mut informative = 0;
    while ends.worker.send_event(&reported(1, informative)).is_ok() {
        informative += 1;
    }
    let mut closings = 0;
    while ends.worker.send_event(&closed(closings)).is_ok() {
        closings += 1;
        assert!(!ends.control.take_resync());
    }
    // 6144 bytes and the reserve of 2048, at 280 bytes each.
    assert_eq!((informative, closings), (21, 8));
    assert!(ends.control.take_resync(), "a closing was lost");
    assert!(!ends.control.take_resync());
    assert_eq!(ends.control.view().resync_count(), 1);
    assert_eq!(ends.control.view().events_full_count(), 2);
    assert_eq!(ends.control.counter(Counter::EventsDropped), 2);

    let expected = (0..21).map(|i| reported(1, i)).chain((0..8).map(closed));
    assert_eq!(events(&mut ends.control), expected.collect::<Vec<_>>());
}

#[test]
fn command_waits_until_there_is_room_for_its_answer() {
    let mut ends = Ends::new(small_layout());
    ends.control.send_command(&query(1)).expect("room");
    while ends.worker.send_event(&closed(0)).is_ok() {}
    assert_eq!(ends.worker.recv_command(), Ok(None));
    assert!(ends.worker.before_wait(), "nothing that it could do");
    ends.worker.silence_doorbell();

    while ends.control.recv_event() != Ok(None) {}
    assert!(is_readable(ends.worker.doorbell()), "rung for the room");
    assert_eq!(ends.worker.recv_command(), Ok(Some(query(1))));
    ends.worker.send_event(&done(1)).expect("the answer fits");
}

#[test]
fn doorbells_ring_only_for_those_who_sleep() {
    let mut ends = Ends::new(common::layout());
    ends.worker.after_wait();
    ends.worker.silence_doorbell();
    ends.control.send_command(&query(1)).expect("room");
    assert!(!is_readable(ends.worker.doorbell()));
    assert!(!ends.worker.before_wait(), "a command waits");
    assert_eq!(ends.worker.recv_command(), Ok(Some(query(1))));
    assert!(ends.worker.before_wait());
    ends.control.send_command(&query(2)).expect("room");
    assert!(is_readable(ends.worker.doorbell()));
    ends.worker.after_wait();
    ends.worker.silence_doorbell();
    assert!(!is_readable(ends.worker.doorbell()));

    ends.control.after_wait();
    ends.control.silence_doorbell();
    ends.worker.send_event(&done(1)).expect("room");
    assert!(!is_readable(ends.control.doorbell()));
    assert!(!ends.control.before_wait(), "an event waits");
    assert_eq!(ends.control.recv_event(), Ok(Some(done(1))));
    assert!(ends.control.before_wait());
    ends.worker.send_event(&done(2)).expect("room");
    assert!(is_readable(ends.control.doorbell()));
}

#[test]
fn ends_that_never_speak_of_sleep_are_always_rung() {
    let mut ends = Ends::new(common::layout());
    ends.worker.silence_doorbell();
    ends.control.silence_doorbell();
    ends.control.send_command(&query(1)).expect("room");
    ends.worker.send_event(&done(1)).expect("room");
    assert!(is_readable(ends.worker.doorbell()));
    assert!(is_readable(&ends.control));
}

#[test]
fn counters_heartbeats_and_names_are_seen_by_the_other_side() {
    let ends = Ends::new(common::layout());
    let cells = ends.worker.counters();
    cells.add(DropReason::SourceNotAllowed, 2);
    cells.add(DropReason::SourceNotAllowed, 3);
    cells.set(Counter::SessionsActive, 9);
    cells.max(Counter::CycleMaxNanos, 50);
    cells.max(Counter::CycleMaxNanos, 40);
    assert_eq!(ends.control.counter(DropReason::SourceNotAllowed), 5);
    assert_eq!(ends.control.counter(Counter::SessionsActive), 9);
    assert_eq!(ends.control.counter(Counter::CycleMaxNanos), 50);

    assert_eq!(ends.control.edge_heartbeat(), MonoTime(0));
    ends.worker.beat(MonoTime(77));
    assert_eq!(ends.control.edge_heartbeat(), MonoTime(77));
    assert_eq!(ends.worker.control_heartbeat(), Some(MonoTime(1)));
    ends.control.beat(MonoTime(78));
    assert_eq!(ends.worker.control_heartbeat(), Some(MonoTime(78)));
    assert_eq!(ends.worker.view().control_pid(), Some(std::process::id()));
    assert_eq!(ends.worker.view().control_epoch(), Epoch(1));
    assert_eq!(ends.control.ports(), common::spec().ports);
}

#[test]
fn command_that_is_no_message_is_skipped_and_can_be_answered() {
    let mut ends = Ends::new(common::layout());
    ends.control.send_command(&query(7)).expect("room");
    ends.control.send_command(&query(8)).expect("room");
    // The kind stands in the first two bytes behind the length word.
    ends.raw
        .write(ends.worker_ring_offset() + WORD_LEN, &999u16.to_le_bytes());
    let Err(RecvError::Undecodable(error)) = ends.worker.recv_command() else {
        panic!("kind 999 is not known");
    };
    assert_eq!(error.correlation, Some(Correlation(7)));
    assert_eq!(error.fault, DecodeFault::UnknownKind(999));
    assert_eq!(ends.worker.recv_command(), Ok(Some(query(8))));
    assert_eq!(ends.control.counter(Counter::CommandsUndecodable), 1);
}

impl Ends {
    fn worker_ring_offset(&self) -> usize {
        common::layout().commands.offset
    }
}

#[test]
fn fresh_control_continues_where_the_dead_one_stopped() {
    let mut ends = Ends::new(common::layout());
    assert!(ends.control.take_resync());
    ends.control.send_command(&query(1)).expect("room");
    ends.control.send_command(&query(2)).expect("room");
    assert_eq!(ends.worker.recv_command(), Ok(Some(query(1))));
    ends.worker.send_event(&done(1)).expect("room");
    ends.worker.send_event(&closed(1)).expect("room");
    assert_eq!(ends.control.recv_event(), Ok(Some(done(1))));

    ends.next_control(2);
    assert!(ends.control.take_resync(), "due after attaching");
    assert!(!ends.control.take_resync());
    assert_eq!(ends.worker.view().control_epoch(), Epoch(2));
    assert_eq!(ends.worker.view().control_attach_count(), 2);
    assert_eq!(ends.control.recv_event(), Ok(Some(closed(1))));
    ends.control.send_command(&query(3)).expect("room");
    assert_eq!(ends.worker.recv_command(), Ok(Some(query(2))));
    assert_eq!(ends.worker.recv_command(), Ok(Some(query(3))));
}

#[test]
fn impossible_command_head_poisons_the_worker_until_a_fresh_control_comes() {
    let mut ends = Ends::new(common::layout());
    ends.raw.set_word(word::COMMANDS_HEAD, 1 << 40);
    let fault = RingFault::Indices {
        head: 1 << 40,
        tail: 0,
        capacity: 1 << 17,
    };
    assert_eq!(ends.worker.recv_command(), Err(RecvError::Poisoned(fault)));
    assert_eq!(ends.worker.recv_command(), Ok(None), "told once");
    assert_eq!(ends.worker.fault(), Some(fault));
    assert_eq!(
        ends.worker.send_event(&done(1)),
        Err(SendError::Poisoned(fault))
    );
    assert!(ends.worker.view().worker_is_poisoned());
    assert!(ends.worker.before_wait(), "nothing that it could do");

    ends.next_control(2);
    assert!(!ends.worker.before_wait(), "a fresh control came");
    ends.control.send_command(&query(1)).expect("room");
    assert_eq!(ends.worker.recv_command(), Ok(Some(query(1))));
    assert_eq!(ends.worker.fault(), None);
    ends.worker.send_event(&done(1)).expect("room");
    assert_eq!(events(&mut ends.control), [done(1)]);
    assert!(!ends.worker.view().worker_is_poisoned());
}

#[test]
fn control_whose_commands_make_no_sense_learns_of_it_and_can_start_anew() {
    let mut ends = Ends::new(common::layout());
    ends.control.send_command(&query(1)).expect("room");
    ends.raw
        .set_word(common::layout().commands.first_word(), 0xdead);
    assert_eq!(
        ends.worker.recv_command(),
        Err(RecvError::Poisoned(RingFault::Length { word: 0xdead }))
    );
    assert!(!ends.control.before_wait(), "there is something to be told");
    let fault = RingFault::RefusedByWorker;
    assert_eq!(ends.control.recv_event(), Err(RecvError::Poisoned(fault)));
    assert_eq!(ends.control.recv_event(), Ok(None), "told once");
    assert_eq!(
        ends.control.send_command(&query(2)),
        Err(SendError::Poisoned(fault))
    );
    assert!(ends.control.take_resync());

    ends.control.reattach();
    assert!(ends.control.take_resync(), "due after attaching");
    assert_eq!(
        ends.control.recv_event(),
        Ok(None),
        "the old refusal is not for this attachment"
    );
    ends.control.send_command(&query(3)).expect("room");
    assert_eq!(ends.worker.recv_command(), Ok(Some(query(3))));
}

#[test]
fn impossible_event_tail_poisons_the_worker_until_a_fresh_control_comes() {
    let mut ends = Ends::new(small_layout());
    ends.raw.set_word(word::EVENTS_TAIL, 1 << 50);
    let mut sent = 0;
    let error = loop {
        match ends.worker.send_event(&done(sent)) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, SendError::Poisoned(RingFault::Indices { tail, .. }) if tail == 1 << 50)
    );
    ends.next_control(2);
    ends.worker.send_event(&done(9)).expect("room");
    assert_eq!(events(&mut ends.control), [done(9)]);
}

#[test]
fn impossible_words_of_the_worker_poison_control() {
    let mut ends = Ends::new(small_layout());
    ends.raw.set_word(word::EVENTS_HEAD, u64::MAX);
    let fault = RingFault::Indices {
        head: u64::MAX,
        tail: 0,
        capacity: 1024,
    };
    assert_eq!(ends.control.recv_event(), Err(RecvError::Poisoned(fault)));
    assert_eq!(ends.control.recv_event(), Ok(None));
    assert_eq!(ends.control.fault(), Some(fault));
    assert_eq!(
        ends.control.send_command(&query(1)),
        Err(SendError::Poisoned(fault))
    );
    assert!(ends.control.before_wait());
}

#[test]
fn worker_that_takes_over_a_damaged_region_asks_for_a_resync() {
    let mut ends = Ends::new(common::layout());
    assert!(ends.control.take_resync());
    ends.raw.set_word(word::COMMANDS_TAIL, 5);
    let region = Region::open(&ends.fd).expect("the header is sound");
    ends.worker = WorkerEnd::new(region, dup_doorbells(&ends.doorbells));
    assert!(ends.control.take_resync());
    ends.control.reattach();
    ends.control.send_command(&query(1)).expect("room");
    assert_eq!(ends.worker.recv_command(), Ok(Some(query(1))));
}

/// Whatever stands behind the fixed header: every call returns, and a fresh control and worker
/// talk again.
#[test]
fn random_words_anywhere_neither_stop_nor_break_an_end() {
    let mut random = Random(4711);
    for round in 0..300 {
        let mut ends = Ends::new(small_layout());
        let word_count = small_layout().region_len / WORD_LEN;
        for _ in 0..1 + random.below(20) {
            let index = match random.below(3) {
                0 => {
                    word::FIXED_COUNT
                        + random.below((word::COUNT - word::FIXED_COUNT) as u64) as usize
                }
                _ => {
                    word::FIXED_COUNT
                        + random.below((word_count - word::FIXED_COUNT) as u64) as usize
                }
            };
            let value = match random.below(3) {
                0 => random.next(),
                1 => random.below(2048),
                _ => u64::MAX - random.below(4),
            };
            ends.raw.set_word(index, value);
            for serial in 0..20 {
                let _ = ends.control.send_command(&command(Epoch(1), serial));
                let _ = ends.worker.recv_command();
                let _ = ends.worker.send_event(&reported(1, serial));
                let _ = ends.control.recv_event();
            }
            let _ = (ends.worker.before_wait(), ends.control.before_wait());
            let _ = (
                ends.control.take_resync(),
                ends.control.view().events_waiting_len(),
            );
        }
        let region = Region::open(&ends.fd).expect("the fixed header is untouched");
        ends.worker = WorkerEnd::new(region, dup_doorbells(&ends.doorbells));
        ends.next_control(2);
        // What the random words left in the rings may cost one more fresh start.
        for _ in 0..2 {
            while let Ok(Some(_)) | Err(RecvError::Undecodable(_)) = ends.worker.recv_command() {}
            while let Ok(Some(_)) | Err(RecvError::Undecodable(_)) = ends.control.recv_event() {}
            if ends.control.fault().is_some() || ends.worker.fault().is_some() {
                ends.control.reattach();
            }
        }
        ends.control
            .send_command(&query(1))
            .unwrap_or_else(|e| panic!("round {round}: {e}"));
        assert_eq!(
            ends.worker.recv_command(),
            Ok(Some(query(1))),
            "round {round}"
        );
        ends.worker
            .send_event(&done(1))
            .unwrap_or_else(|e| panic!("round {round}: {e}"));
        assert_eq!(
            ends.control.recv_event(),
            Ok(Some(done(1))),
            "round {round}"
        );
    }
}
