use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use trunkline_sip::flow::Flow;

use super::*;
use crate::cdr;
use crate::site::tests::{SMALL_SITE, site};
use crate::store::{self, ApplyOptions, StoreHandle, StoreOptions};
use crate::trace::Direction;
use crate::transport::tls::TlsKeeper;

/// As where no socket speaks TLS.
fn no_tls() -> Arc<TlsKeeper> {
    Arc::new(TlsKeeper::open(None).expect("nothing to read"))
}

struct Fixture {
    dir: tempfile::TempDir,
    store: StoreHandle,
    server: OperatorServer,
    _writer: cdr::CdrWriter,
}

impl Fixture {
    /// `serve` is the call thread; it ends when the server does.
    fn new(mut serve: impl FnMut(OperatorRequest) + Send + 'static) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (store, _) =
            store::open(StoreOptions::new(dir.path().join("t.db"), "trunkline")).expect("opened");
        let (writer, _) =
            cdr::spawn(&dir.path().join("cdr.spool"), store.clone()).expect("spawned");
        let (calls, mut requests) = mpsc::channel(4);
        std::thread::spawn(move || {
            while let Some(request) = requests.blocking_recv() {
                serve(request);
            }
        });
        let sources = OperatorSources {
            node: "here".to_owned(),
            calls,
            store: store.clone(),
            cdr: writer.status(),
            tls: no_tls(),
        };
        let server = spawn(&dir.path().join("control.sock"), sources).expect("bound");
        Self {
            dir,
            store,
            server,
            _writer: writer,
        }
    }

    fn answering() -> Self {
        Self::new(|request| match request {
            OperatorRequest::Status(reply) => {
                let status = CallThreadStatus {
                    calls_active: 3,
                    ..CallThreadStatus::default()
                };
                let _ = reply.send(status);
            }
            OperatorRequest::Calls { limit, reply } => {
                let _ = reply.send(CallsReport {
                    total: limit,
                    calls: Vec::new(),
                });
            }
            OperatorRequest::Act { call_id, reply, .. } => {
                let known = call_id == "1-0";
                let failed = ActFailed::NotFound(format!("no {call_id}"));
                let _ = reply.send(if known { Ok(()) } else { Err(failed) });
            }
            request => answer_about_events_and_conferences(request),
        })
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    fn exchange(&self, line: &[u8]) -> String {
        let mut stream = UnixStream::connect(self.path()).expect("connected");
        stream.write_all(line).expect("sent");
        let mut reply = String::new();
        BufReader::new(stream)
            .read_line(&mut reply)
            .expect("answered");
        reply
    }
}

/// An event of a call, by its number.
pub(crate) fn event(seq: u64) -> CallEvent {
    CallEvent {
        seq,
        at_unix_ms: 7,
        leg: None,
        kind: crate::switch::CallEventKind::SpeechBegan,
    }
}

/// A call thread that knows the call 1-0, in which two things have happened and two more do, and
/// the conference standup of the tenant acme, which can be locked and nothing else.
pub(crate) fn answer_about_events_and_conferences(request: OperatorRequest) {
    let report = |is_over| EventsReport {
        call_id: "1-0".to_owned(),
        forgotten: 0,
        is_over,
        events: vec![event(1), event(2)],
    };
    let no_such_call = |id| ActFailed::NotFound(format!("no call {id}"));
    match request {
        OperatorRequest::Trace { id, reply } => {
            let traced = Traced {
                unix_ms: 5,
                direction: Direction::Received,
                flow: Flow::udp(peer(), peer()),
                dialog: Arc::from(id.as_bytes()),
                bytes: Bytes::from_static(
                    b"OPTIONS sip:a SIP/2.0\r\nAuthorization: Digest x\r\n\r\n",
                ),
            };
            let _ = reply.send(if id == "1-0" {
                vec![traced]
            } else {
                Vec::new()
            });
        }
        OperatorRequest::Trunks(reply) => drop(reply.send(Vec::new())),
        OperatorRequest::Conferences(reply) => {
            let _ = reply.send(vec![ConferenceView {
                tenant: "acme".to_owned(),
                name: "standup".to_owned(),
                locked: true,
                recording: None,
                recording_paused: false,
                members: Vec::new(),
            }]);
        }
        OperatorRequest::Confer {
            tenant,
            name,
            action,
            reply,
        } => {
            let is_known = name == "standup" && tenant.is_none_or(|tenant| tenant == "acme");
            let _ = reply.send(match (is_known, action) {
                (false, _) => Err(ActFailed::NotFound(format!("no conference {name}"))),
                (true, ConferenceAction::Lock) => Ok(()),
                (true, _) => Err(ActFailed::Refused("not now".to_owned())),
            });
        }
        OperatorRequest::Events { call_id, reply } => {
            let is_known = call_id == "1-0";
            let report = is_known.then(|| report(false));
            let _ = reply.send(report.ok_or_else(|| no_such_call(call_id)));
        }
        OperatorRequest::Follow { call_id, reply } => {
            let following = (call_id == "1-0").then(|| {
                let (tell, events) = mpsc::channel(FOLLOWED_MAX);
                for seq in [3, 4] {
                    tell.try_send(event(seq)).expect("room");
                }
                Following {
                    report: report(false),
                    events,
                }
            });
            let _ = reply.send(following.ok_or_else(|| no_such_call(call_id)));
        }
        OperatorRequest::Status(_)
        | OperatorRequest::Calls { .. }
        | OperatorRequest::Act { .. } => {}
    }
}

#[test]
fn who_follows_a_call_is_told_what_was_and_what_is_until_it_is_over() {
    let fixture = Fixture::answering();
    let mut told = Vec::new();
    follow(&fixture.path(), "1-0", |reply| {
        match reply {
            Reply::Events(report) => told.extend(report.events.iter().map(|event| event.seq)),
            Reply::Event { happened } => told.push(happened.seq),
            Reply::Over => told.push(0),
            other => panic!("{other:?}"),
        }
        true
    })
    .expect("followed");
    assert_eq!(told, [1, 2, 3, 4, 0]);
    let error = follow(&fixture.path(), "1-9", |_| true).expect_err("unknown");
    assert_eq!(error.to_string(), "no call 1-9");
    let line = fixture.exchange(b"{\"request\":\"events\",\"call_id\":\"1-0\"}\n");
    assert!(
        line.starts_with("{\"reply\":\"events\",\"call_id\":\"1-0\""),
        "{line}"
    );
}

fn peer() -> std::net::SocketAddr {
    "192.0.2.1:5060".parse().expect("an address")
}

#[test]
fn trace_leaves_the_daemon_masked() {
    let fixture = Fixture::answering();
    let trace = |id: &str| {
        let request = Request::Trace { id: id.to_owned() };
        match ask(&fixture.path(), request) {
            Ok(Reply::Trace { messages }) => messages,
            other => panic!("{other:?}"),
        }
    };
    let messages = trace("1-0");
    assert_eq!(
        messages[0].text,
        "OPTIONS sip:a SIP/2.0\r\nAuthorization: xxxxxx x\r\n\r\n"
    );
    assert!(trace("2-0").is_empty());
}

#[test]
fn conferences_are_listed_and_acted_on() {
    let fixture = Fixture::answering();
    let line = fixture.exchange(b"{\"request\":\"conferences\"}\n");
    assert!(line.contains("\"name\":\"standup\""), "{line}");
    let confer = |tenant: Option<&str>, action| {
        let request = Request::Confer {
            tenant: tenant.map(str::to_owned),
            name: "standup".to_owned(),
            action,
        };
        ask(&fixture.path(), request).map_err(|error| error.to_string())
    };
    assert_eq!(confer(None, ConferenceAction::Lock), Ok(Reply::Done));
    assert_eq!(
        confer(Some("other"), ConferenceAction::Lock),
        Err("no conference standup".to_owned())
    );
    assert_eq!(
        confer(Some("acme"), ConferenceAction::Unlock),
        Err("not now".to_owned())
    );
}

#[test]
fn status_joins_the_call_thread_the_store_and_the_spool() {
    let fixture = Fixture::answering();
    let Ok(Reply::Status(status)) = ask(&fixture.path(), Request::Status) else {
        panic!("status was not answered");
    };
    assert_eq!(status.node, "here");
    assert_eq!(status.pid, std::process::id());
    assert_eq!(status.call_thread.map(|c| c.calls_active), Some(3));
    assert_eq!((status.store_problem, status.cdr_problem), (None, None));
}

#[test]
fn calls_are_asked_of_the_call_thread_with_a_bounded_limit() {
    let fixture = Fixture::answering();
    let total = |limit| match ask(&fixture.path(), Request::Calls { limit }) {
        Ok(Reply::Calls(report)) => report.total,
        other => panic!("{other:?}"),
    };
    assert_eq!(total(7), 7);
    assert_eq!(total(usize::MAX), CALLS_LIMIT_MAX);
}

#[test]
fn actions_are_asked_of_the_call_thread_and_its_reasons_told() {
    let fixture = Fixture::answering();
    let act = |call_id: &str| Request::Act {
        call_id: call_id.to_owned(),
        action: CallAction::RecordPause,
    };
    assert!(matches!(ask(&fixture.path(), act("1-0")), Ok(Reply::Done)));
    let refused = ask(&fixture.path(), act("1-9")).expect_err("refused");
    assert_eq!(refused.to_string(), "no 1-9");
    let line = fixture
        .exchange(b"{\"request\":\"act\",\"call_id\":\"1-0\",\"action\":{\"action\":\"mute\"}}\n");
    assert_eq!(line, "{\"reply\":\"done\"}\n");
}

#[test]
fn reload_shows_routing_what_another_process_applied() {
    let fixture = Fixture::answering();
    let (other, _) = store::open(StoreOptions::new(
        fixture.dir.path().join("t.db"),
        "trunkline",
    ))
    .expect("opened");
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("runtime")
        .block_on(other.apply(site(SMALL_SITE), ApplyOptions::default()))
        .expect("applied");
    assert_eq!(fixture.store.routing().borrow().counts(), (0, 0, 0));
    assert!(matches!(
        ask(&fixture.path(), Request::Reload),
        Ok(Reply::Done)
    ));
    assert_eq!(fixture.store.routing().borrow().counts(), (1, 2, 1));
}

#[test]
fn call_thread_that_stands_still_costs_its_part_of_the_answer_only() {
    let fixture = Fixture::new(std::mem::forget);
    let Ok(Reply::Status(status)) = ask(&fixture.path(), Request::Status) else {
        panic!("status was not answered");
    };
    assert_eq!(status.call_thread, None);
    assert_eq!(status.store_problem, None);
    let calls = ask(&fixture.path(), Request::Calls { limit: 1 }).expect_err("no answer");
    assert!(
        calls.to_string().contains("did not answer within 2 s"),
        "{calls}"
    );
}

#[test]
fn nonsense_is_answered_with_an_error() {
    let fixture = Fixture::answering();
    for line in [
        &b"\n"[..],
        b"hello\n",
        b"{\"request\":\"sing\"}\n",
        b"{\"request\":\"calls\"}\n",
        b"{\"request\":\"calls\",\"limit\":-1}\n",
        b"\xff\xfe\n",
    ] {
        let reply = fixture.exchange(line);
        assert!(
            reply.starts_with("{\"reply\":\"error\",\"message\":\"not a request"),
            "{reply}"
        );
    }
    let endless = fixture.exchange(&[b'x'; 5000]);
    assert!(endless.contains("at most 4096 bytes"), "{endless}");
    assert!(ask(&fixture.path(), Request::Status).is_ok());
}

#[test]
fn one_connection_may_ask_several_times() {
    let fixture = Fixture::answering();
    let mut stream = UnixStream::connect(fixture.path()).expect("connected");
    let mut reader = BufReader::new(stream.try_clone().expect("cloned"));
    for _ in 0..3 {
        stream
            .write_all(b"{\"request\":\"reload\"}\n")
            .expect("sent");
        let mut reply = String::new();
        reader.read_line(&mut reply).expect("answered");
        assert_eq!(reply, "{\"reply\":\"done\"}\n");
    }
}

#[test]
fn nobody_at_the_socket_is_said_so() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("control.sock");
    assert!(matches!(
        ask(&path, Request::Status),
        Err(AskError::NotRunning(_))
    ));
    // The socket of a daemon that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
    let error = ask(&path, Request::Status).expect_err("nobody").to_string();
    assert!(error.starts_with("no daemon is running: "), "{error}");
}

#[test]
fn second_daemon_is_refused_and_a_dead_one_replaced() {
    let fixture = Fixture::answering();
    let sources = || OperatorSources {
        node: "second".to_owned(),
        calls: mpsc::channel(1).0,
        store: fixture.store.clone(),
        cdr: fixture._writer.status(),
        tls: no_tls(),
    };
    let error = spawn(&fixture.path(), sources())
        .expect_err("taken")
        .to_string();
    assert!(
        error.contains("another trunkline-control listens here"),
        "{error}"
    );

    let other = fixture.dir.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&other).expect("bound"));
    let second = spawn(&other, sources()).expect("replaced");
    assert!(ask(&other, Request::Reload).is_ok());
    second.stop();
    assert!(!other.exists());
}

#[test]
fn socket_is_closed_to_others() {
    let fixture = Fixture::answering();
    let mode = std::fs::metadata(fixture.path())
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o660);
    let path = fixture.path();
    fixture.server.stop();
    assert!(!path.exists());
}
