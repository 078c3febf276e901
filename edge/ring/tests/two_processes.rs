//! Two processes on one region, one of them killed with SIGKILL wherever it happens to be.
//!
//! The other side is this test binary, started again with [`ROLE`] set. It never ends by itself:
//! an exit status other than "killed" means that it saw something wrong.

mod common;

use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{Random, command, done, reported};
use rustix::process::{Signal, set_parent_process_death_signal};
use trunkline_edge_api::{Correlation, Epoch, Event, MonoTime};
use trunkline_ring::handshake::{ControlConnection, EdgeListener, ListenerEvent};
use trunkline_ring::{ControlEnd, Doorbells, Region, SendError, WorkerEnd};

const ROLE: &str = "TRUNKLINE_TEST_ROLE";
const PLACE: &str = "TRUNKLINE_TEST_PLACE";
const LIFE: &str = "TRUNKLINE_TEST_LIFE";

/// Lives of the side that is killed.
const LIVES: u32 = 40;

/// Longest wait for anything; nothing here takes a hundredth of it.
const PATIENCE: Duration = Duration::from_secs(30);

fn start(test: &str, role: &str, place: &str, life: u32) -> Child {
    Command::new("/proc/self/exe")
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(PLACE, place)
        .env(LIFE, life.to_string())
        .stdout(Stdio::null())
        .spawn()
        .expect("the test binary runs")
}

fn kill(mut child: Child) {
    let already = child.try_wait().expect("it is our child");
    assert_eq!(
        already, None,
        "the other side saw something wrong and ended"
    );
    child.kill().expect("it is our child");
    let status = child.wait().expect("it is our child");
    assert_eq!(status.signal(), Some(9));
}

fn place() -> String {
    std::env::var(PLACE).expect("set by the parent")
}

fn life() -> u32 {
    std::env::var(LIFE)
        .expect("set by the parent")
        .parse()
        .expect("a number")
}

/// Whether this process is the other side. Then it must not outlive a test that failed.
fn is_child(role: &str) -> bool {
    let is_child = std::env::var(ROLE).is_ok_and(|value| value == role);
    if is_child {
        set_parent_process_death_signal(Some(Signal::KILL)).expect("allowed to everybody");
    }
    is_child
}

/// Writes commands as fast as it can; every answer it reads must be whole and later than the last.
fn flooding_control() -> ! {
    let epoch = Epoch(life());
    let (_connection, mut ends) =
        ControlConnection::connect(Path::new(&place()), epoch).expect("the place is free");
    let control = &mut ends[0];
    let mut serial = 0;
    let mut answered: Option<Correlation> = None;
    loop {
        match control.send_command(&command(epoch, serial)) {
            Ok(()) => serial += 1,
            Err(SendError::Full) => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
        while let Some(event) = control.recv_event().expect("only whole events") {
            let Event::CommandDone { correlation, .. } = event else {
                panic!("{event:?} was never sent");
            };
            assert!(
                answered < Some(correlation),
                "{correlation:?} after {answered:?}"
            );
            answered = Some(correlation);
        }
    }
}

/// What the worker has got from one control.
#[derive(Debug, Default, Clone, Copy)]
struct Heard {
    epoch: u32,
    next_serial: u32,
}

impl Heard {
    /// Takes and answers all commands there are. Each must be the next of its control or the
    /// first of a later one.
    fn drain(&mut self, worker: &mut WorkerEnd) {
        while let Some(received) = worker.recv_command().expect("only whole commands") {
            let session = received.command.session().expect("each names one");
            if session.epoch().0 > self.epoch {
                *self = Heard {
                    epoch: session.epoch().0,
                    next_serial: 0,
                };
            }
            assert_eq!(received, command(Epoch(self.epoch), self.next_serial));
            self.next_serial += 1;
            worker
                .send_event(&done(received.correlation.0))
                .expect("room is kept for answers");
        }
    }
}

#[test]
fn control_killed_in_mid_write_leaves_whole_commands_and_a_place_for_the_next() {
    const NAME: &str = "control_killed_in_mid_write_leaves_whole_commands_and_a_place_for_the_next";
    if is_child("control") {
        flooding_control();
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("edge.sock");
    let (mut worker, fds) = WorkerEnd::create(&common::spec()).expect("created");
    let mut listener = EdgeListener::bind(&path, 1, vec![fds]).expect("bound");
    let mut random = Random(0xc0ffee);
    let mut heard = Heard::default();
    let mut total = 0;
    for life in 1..=LIVES {
        let child = start(NAME, "control", path.to_str().expect("UTF-8"), life);
        let deadline = Instant::now() + PATIENCE;
        while heard.epoch < life {
            assert!(
                Instant::now() < deadline,
                "nothing came from control {life}"
            );
            let event = listener
                .wait(None, Duration::from_millis(1))
                .expect("poll works");
            if let Some(ListenerEvent::Refused { refused, .. }) = event {
                panic!("control {life} was refused: {refused}");
            }
            heard.drain(&mut worker);
        }
        let until = Instant::now() + Duration::from_micros(random.below(3_000));
        while Instant::now() < until {
            heard.drain(&mut worker);
        }
        if random.below(2) == 0 {
            // Let it run into the full ring now and then.
            thread::sleep(Duration::from_millis(random.below(10)));
        }
        kill(child);
        heard.drain(&mut worker);
        assert_eq!(heard.epoch, life);
        total += heard.next_serial;
    }
    assert!(
        total > LIVES * 100,
        "only {total} commands: the kills cannot have hit writes"
    );
    assert_eq!(worker.fault(), None);
}

/// Answers commands and reports as fast as it can.
fn flooding_worker() -> ! {
    let memory = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(place())
        .expect("there");
    let region = Region::open(&memory).expect("sound");
    let mut worker = WorkerEnd::new(region, Doorbells::create().expect("eventfds"));
    let life = life();
    let mut serial = 0;
    let mut beats = 1;
    loop {
        beats += 1;
        worker.beat(MonoTime(beats));
        if let Some(received) = worker.recv_command().expect("only whole commands") {
            let session = received.command.session().expect("each names one");
            assert_eq!(received, command(session.epoch(), session.0 as u32));
            worker
                .send_event(&done(received.correlation.0))
                .expect("room is kept for answers");
        }
        match worker.send_event(&reported(life, serial)) {
            Ok(()) => serial += 1,
            Err(SendError::Full) => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn worker_killed_in_mid_write_leaves_whole_events_and_a_place_for_the_next() {
    const NAME: &str = "worker_killed_in_mid_write_leaves_whole_events_and_a_place_for_the_next";
    if is_child("worker") {
        flooding_worker();
    }
    let (region, fd) =
        Region::create_with_layout(common::layout(), std::process::id()).expect("created");
    let place = format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
    let doorbells = Doorbells::create().expect("eventfds");
    let mut control = ControlEnd::attach(region, doorbells, Epoch(1), MonoTime(1));
    let mut random = Random(0xbeef);
    let mut commands = 0;
    let mut answers = 0;
    let mut last_answer = None;
    let mut total = 0;
    for life in 1..=LIVES {
        let child = start(NAME, "worker", &place, life);
        let mut next_serial = 0;
        let mut drain = |control: &mut ControlEnd| {
            while let Some(event) = control.recv_event().expect("only whole events") {
                if let Event::CommandDone { correlation, .. } = event {
                    assert!(last_answer < Some(correlation));
                    last_answer = Some(correlation);
                    answers += 1;
                } else {
                    assert_eq!(event, reported(life, next_serial));
                    next_serial += 1;
                }
            }
            next_serial
        };
        let deadline = Instant::now() + PATIENCE;
        while drain(&mut control) == 0 {
            assert!(Instant::now() < deadline, "nothing came from worker {life}");
            thread::yield_now();
        }
        let until = Instant::now() + Duration::from_micros(random.below(3_000));
        while Instant::now() < until {
            if control.send_command(&command(Epoch(1), commands)).is_ok() {
                commands += 1;
            }
            drain(&mut control);
        }
        if random.below(2) == 0 {
            thread::sleep(Duration::from_millis(random.below(10)));
        }
        kill(child);
        total += drain(&mut control);
    }
    assert!(
        total > LIVES * 100,
        "only {total} events: the kills cannot have hit writes"
    );
    // Each death may cost the one command in the worker's hands, and no other.
    let read = commands - waiting_commands(&control, commands);
    assert!(
        answers <= read && answers + LIVES >= read,
        "{answers} answers to {read} commands"
    );
    assert_eq!(control.fault(), None);
}

/// How many of the last commands the worker has not read: their bytes are what waits.
fn waiting_commands(control: &ControlEnd, sent: u32) -> u32 {
    let mut len = control.view().commands_waiting_len();
    let mut buf = [0; trunkline_edge_api::wire::MESSAGE_LEN_MAX];
    let mut count = 0;
    while len > 0 {
        count += 1;
        let command = command(Epoch(1), sent - count);
        let bytes = trunkline_edge_api::wire::encode_command(&command, &mut buf);
        len -= trunkline_edge_api::layout::record_len(bytes.len());
    }
    count
}
