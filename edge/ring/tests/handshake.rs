//! The edge's socket: who is let in, who is refused and with which words, who is noticed leaving.

mod common;

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::{command, done, dup_fds, query};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketType, connect, recv, send, socket,
};
use trunkline_edge_api::handshake::{EdgeMessage, Hello, RefusalCode, Refused, Role};
use trunkline_edge_api::{API_VERSION, ApiVersion, Counter, Epoch, WorkerIndex};
use trunkline_ring::handshake::{
    BindError, ConnectError, ControlConnection, EdgeListener, ListenerEvent, Observer,
};
use trunkline_ring::{RegionSpec, WorkerEnd, WorkerFds};

const GENERATION: u64 = 1;

/// An edge of two workers whose listener runs on a thread until this is dropped.
struct Edge {
    _directory: tempfile::TempDir,
    path: PathBuf,
    workers: Vec<WorkerEnd>,
    events: std::sync::mpsc::Receiver<ListenerEvent>,
    stop: Option<std::io::PipeWriter>,
    thread: Option<thread::JoinHandle<()>>,
}

fn workers() -> (Vec<WorkerEnd>, Vec<WorkerFds>) {
    (0..2)
        .map(|index| {
            let spec = RegionSpec {
                worker: WorkerIndex(index),
                ..common::spec()
            };
            WorkerEnd::create(&spec).expect("created")
        })
        .unzip()
}

impl Edge {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("edge.sock");
        let (workers, fds) = workers();
        let mut listener = EdgeListener::bind(&path, GENERATION, fds).expect("bound");
        let (tell, events) = std::sync::mpsc::channel();
        let (wake, stop) = std::io::pipe().expect("a pipe");
        let thread = thread::spawn(move || {
            while !is_readable(&wake) {
                let event = listener.wait(Some(wake.as_fd()), Duration::from_secs(10));
                if let Some(event) = event.expect("poll works") {
                    let _ = tell.send(event);
                }
            }
        });
        Self {
            _directory: directory,
            path,
            workers,
            events,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn next_event(&self) -> ListenerEvent {
        self.events
            .recv_timeout(Duration::from_secs(10))
            .expect("an event")
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the listener did not panic");
        }
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

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A connection that speaks for itself.
fn raw_client(path: &Path) -> OwnedFd {
    let socket = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).expect("a socket");
    connect(&socket, &SocketAddrUnix::new(path).expect("short")).expect("connected");
    socket
}

fn answer(socket: &OwnedFd) -> Option<EdgeMessage> {
    let mut buf = [0u8; 2048];
    let (_, len) = recv(socket, &mut buf[..], RecvFlags::empty()).expect("an answer");
    (len > 0).then(|| EdgeMessage::decode(&buf[..len]).expect("readable"))
}

fn refusal(socket: &OwnedFd) -> Refused {
    match answer(socket) {
        Some(EdgeMessage::Refused(refused)) => refused,
        other => panic!("{other:?} is no refusal"),
    }
}

fn hello(role: Role) -> Hello {
    Hello {
        version: API_VERSION,
        role,
        pid: std::process::id(),
        epoch: Epoch(1),
    }
}

#[test]
fn control_gets_every_worker_and_talks_to_each() {
    let mut edge = Edge::start();
    let (connection, mut ends) = ControlConnection::connect(&edge.path, Epoch(3)).expect("let in");
    let pid = std::process::id();
    assert_eq!(
        edge.next_event(),
        ListenerEvent::ControlArrived {
            pid,
            epoch: Epoch(3)
        }
    );
    assert_eq!(connection.welcome().worker_count, 2);
    assert_eq!(connection.welcome().generation, GENERATION);
    assert_eq!(connection.welcome().pid, pid);
    for (index, (control, worker)) in ends.iter_mut().zip(&mut edge.workers).enumerate() {
        assert_eq!(control.worker(), WorkerIndex(index as u16));
        control
            .send_command(&command(Epoch(3), index as u32))
            .expect("room");
        assert!(is_readable(worker.doorbell()));
        assert_eq!(
            worker.recv_command(),
            Ok(Some(command(Epoch(3), index as u32)))
        );
        control.silence_doorbell();
        worker.send_event(&done(1)).expect("room");
        assert!(is_readable(control.doorbell()));
        assert_eq!(control.recv_event(), Ok(Some(done(1))));
        assert_eq!(worker.view().control_epoch(), Epoch(3));
        assert!(worker.control_heartbeat().is_some());
    }
    assert!(!connection.has_hung_up());
}

#[test]
fn second_control_is_refused_by_name_until_the_first_and_its_ends_are_gone() {
    let edge = Edge::start();
    let (first, ends) = ControlConnection::connect(&edge.path, Epoch(1)).expect("let in");
    let connect = || ControlConnection::connect(&edge.path, Epoch(2));
    let Err(ConnectError::Refused(refused)) = connect() else {
        panic!("two controls");
    };
    assert_eq!(refused.code, Some(RefusalCode::ControlPresent));
    let pid = std::process::id();
    assert!(
        refused.text.contains(&format!("PID {pid}")),
        "{}",
        refused.text
    );

    drop(first);
    assert!(connect().is_err(), "an end of the first can still write");
    drop(ends);
    let (_second, _ends) = connect().expect("the place is free");
    let mut events = Vec::new();
    until("the second has arrived", || {
        events.extend(edge.events.try_iter());
        events.contains(&ListenerEvent::ControlArrived {
            pid,
            epoch: Epoch(2),
        })
    });
    assert!(events.contains(&ListenerEvent::ControlLeft {
        pid,
        epoch: Epoch(1)
    }));
}

#[test]
fn commands_of_a_control_that_left_are_followed_by_those_of_the_next() {
    let mut edge = Edge::start();
    let (first, mut ends) = ControlConnection::connect(&edge.path, Epoch(1)).expect("let in");
    ends[0].send_command(&query(1)).expect("room");
    drop((first, ends));
    let (_second, mut ends) = ControlConnection::connect(&edge.path, Epoch(2)).expect("let in");
    ends[0].send_command(&query(2)).expect("room");
    assert_eq!(edge.workers[0].recv_command(), Ok(Some(query(1))));
    assert_eq!(edge.workers[0].recv_command(), Ok(Some(query(2))));
}

#[test]
fn control_learns_of_the_edges_end() {
    let edge = Edge::start();
    let (connection, _ends) = ControlConnection::connect(&edge.path, Epoch(1)).expect("let in");
    assert!(!is_readable(&connection));
    drop(edge);
    assert!(connection.has_hung_up());
    assert!(is_readable(&connection));
}

#[test]
fn observers_read_counters_while_control_works_and_are_limited() {
    let edge = Edge::start();
    let _control = ControlConnection::connect(&edge.path, Epoch(1)).expect("let in");
    edge.workers[1].counters().add(Counter::RxRtpPackets, 5);
    let mut observers: Vec<Observer> = (0..8)
        .map(|_| Observer::connect(&edge.path).expect("let in"))
        .collect();
    let regions = observers[0].regions();
    assert_eq!(regions.len(), 2);
    assert_eq!(regions[0].view().counter(Counter::RxRtpPackets), 0);
    assert_eq!(regions[1].view().counter(Counter::RxRtpPackets), 5);
    assert_eq!(observers[0].welcome().worker_count, 2);

    let Err(ConnectError::Refused(refused)) = Observer::connect(&edge.path) else {
        panic!("a ninth observer");
    };
    assert_eq!(refused.code, Some(RefusalCode::TooManyObservers));
    observers.pop();
    until("the place of the one who left is free", || {
        Observer::connect(&edge.path).is_ok()
    });
}

#[test]
fn hello_of_another_major_version_is_refused_saying_what_to_do() {
    let edge = Edge::start();
    let client = raw_client(&edge.path);
    let version = ApiVersion {
        major: API_VERSION.major + 1,
        minor: 4,
    };
    let bytes = Hello {
        version,
        ..hello(Role::Control)
    }
    .encode();
    send(&client, &bytes, SendFlags::empty()).expect("sent");
    let refused = refusal(&client);
    assert_eq!(refused.code, Some(RefusalCode::VersionMismatch));
    for part in [
        "install the same release",
        &version.to_string(),
        &API_VERSION.to_string(),
    ] {
        assert!(
            refused.text.contains(part),
            "{:?} does not say {part}",
            refused.text
        );
    }
    assert_eq!(answer(&client), None, "the connection is closed");
}

#[test]
fn hello_of_another_minor_version_is_welcome() {
    let edge = Edge::start();
    let client = raw_client(&edge.path);
    let version = ApiVersion {
        minor: API_VERSION.minor + 7,
        ..API_VERSION
    };
    let mut bytes = Hello {
        version,
        ..hello(Role::Observer)
    }
    .encode();
    bytes.extend_from_slice(b"and what later versions say");
    send(&client, &bytes, SendFlags::empty()).expect("sent");
    assert!(matches!(answer(&client), Some(EdgeMessage::Welcome(_))));
}

#[test]
fn garbage_for_a_hello_is_refused() {
    let edge = Edge::start();
    let long = vec![7; 60_000];
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0],
        &[10, 0, 0, 0, 0, 0, 1, 0, 9],
        &long,
    ] {
        let client = raw_client(&edge.path);
        send(&client, garbage, SendFlags::empty()).expect("sent");
        let mut buf = [0u8; 2048];
        match recv(&client, &mut buf[..], RecvFlags::empty()) {
            Ok((_, 0)) | Err(_) => {}
            Ok((_, len)) => {
                let message = EdgeMessage::decode(&buf[..len]);
                assert!(
                    matches!(message, Ok(EdgeMessage::Refused(_))),
                    "{message:?}"
                );
            }
        }
    }
    ControlConnection::connect(&edge.path, Epoch(1)).expect("the edge is well");
}

#[test]
fn silent_clients_delay_nobody_and_are_sent_away() {
    let edge = Edge::start();
    let silent: Vec<OwnedFd> = (0..7).map(|_| raw_client(&edge.path)).collect();
    let before = Instant::now();
    let _control = ControlConnection::connect(&edge.path, Epoch(1)).expect("let in");
    assert!(
        before.elapsed() < Duration::from_secs(2),
        "waited for the silent"
    );
    for client in &silent {
        assert_eq!(refusal(client).code, Some(RefusalCode::HelloTimeout));
    }
}

#[test]
fn more_silent_clients_than_are_heard_at_once_do_not_lock_the_door() {
    let edge = Edge::start();
    let _silent: Vec<OwnedFd> = (0..20).map(|_| raw_client(&edge.path)).collect();
    until("control is let in", || {
        ControlConnection::connect(&edge.path, Epoch(1)).is_ok()
    });
}

#[test]
fn client_that_hangs_up_at_once_changes_nothing() {
    let edge = Edge::start();
    for _ in 0..50 {
        let client = raw_client(&edge.path);
        send(&client, &hello(Role::Control).encode(), SendFlags::empty()).expect("sent");
    }
    until("control is let in", || {
        ControlConnection::connect(&edge.path, Epoch(9)).is_ok()
    });
}

#[test]
fn client_of_another_user_is_refused_by_the_edge_itself() {
    const NAME: &str = "client_of_another_user_is_refused_by_the_edge_itself";
    const PLACE: &str = "TRUNKLINE_TEST_PLACE";
    const NOBODY: u32 = 65_534;
    if let Ok(path) = std::env::var(PLACE) {
        match Observer::connect(Path::new(&path)) {
            Err(ConnectError::Refused(refused)) => println!("{:?} {refused}", refused.code),
            other => println!("{other:?}"),
        }
        return;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("only root can become another user: not tried");
        return;
    }
    let edge = Edge::start();
    // As if somebody had opened the doors that the file modes close.
    for path in [edge.path.as_path(), edge.path.parent().expect("has one")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("own file");
    }
    let output = Command::new("/proc/self/exe")
        .args(["--exact", NAME, "--nocapture"])
        .env(PLACE, &edge.path)
        .uid(NOBODY)
        .output()
        .expect("the test binary runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("Some(NotPermitted) user 65534 may not connect"),
        "{said}"
    );
    assert!(matches!(
        edge.next_event(),
        ListenerEvent::Refused {
            uid: NOBODY,
            refused: Refused { .. },
            ..
        }
    ));
}

#[test]
fn socket_file_is_for_user_and_group_whatever_the_umask() {
    let edge = Edge::start();
    let metadata = fs::metadata(&edge.path).expect("there");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
}

#[test]
fn stale_socket_file_is_replaced_and_a_living_edges_is_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("edge.sock");
    let stale = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).expect("a socket");
    rustix::net::bind(&stale, &SocketAddrUnix::new(&path).expect("short")).expect("bound");
    drop(stale);
    assert!(path.exists());

    let (_workers, fds) = workers();
    let again = fds.iter().map(dup_fds).collect();
    let first = EdgeListener::bind(&path, GENERATION, fds).expect("nobody listens");
    let error = EdgeListener::bind(&path, GENERATION, again).expect_err("somebody listens");
    let BindError::InUse { pid, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(pid, std::process::id());
    assert!(path.exists());
    drop(first);
    assert!(!path.exists());
}

#[test]
fn file_that_is_no_socket_is_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("edge.sock");
    fs::write(&path, "precious").expect("written");
    let error = EdgeListener::bind(&path, GENERATION, Vec::new()).expect_err("a file");
    assert!(matches!(error, BindError::NotASocket { .. }), "{error}");
    assert_eq!(fs::read_to_string(&path).expect("there"), "precious");
}

#[test]
fn connecting_where_nobody_listens_says_what_to_look_at() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("edge.sock");
    let error = Observer::connect(&path).expect_err("nobody").to_string();
    assert!(error.contains("is trunkline-edge running"), "{error}");
    assert!(error.contains("edge.sock"), "{error}");
}

#[test]
fn edge_that_says_nothing_is_given_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("edge.sock");
    let (_workers, fds) = workers();
    // Bound and listening, but nobody calls wait().
    let _listener = EdgeListener::bind(&path, GENERATION, fds).expect("bound");
    let before = Instant::now();
    assert!(matches!(
        Observer::connect(&path),
        Err(ConnectError::Lost { .. })
    ));
    assert!(before.elapsed() < Duration::from_secs(9));
}
