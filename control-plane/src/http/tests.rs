use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use trunkline_edge_api::MonoTime;

use super::*;
use crate::cdr;
use crate::store::{self, StoreOptions};

struct Fixture {
    health: Arc<Health>,
    sources: HttpSources,
    server: HttpServer,
    dir: tempfile::TempDir,
    _writer: cdr::CdrWriter,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut options = StoreOptions::new(dir.path().join("trunkline.db"), "trunkline");
        options.busy_timeout = Duration::from_millis(50);
        let (store, _) = store::open(options).expect("opened");
        let (writer, _) =
            cdr::spawn(&dir.path().join("cdr.spool"), store.clone()).expect("spawned");
        let health = Arc::new(Health::default());
        let sources = HttpSources {
            metrics: Arc::new(Metrics::new().expect("made")),
            health: Arc::clone(&health),
            store,
            cdr: writer.status(),
            calls: answering_call_thread(),
        };
        let config = HttpConfig {
            listen: "127.0.0.1:0".parse().expect("address"),
        };
        Self {
            health,
            server: spawn(&config, sources.clone()).expect("bound"),
            sources,
            dir,
            _writer: writer,
        }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.server.local_addr()).expect("connected")
    }

    /// Status line and headers, then the body.
    fn get(&self, path: &str) -> (String, String) {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }

    fn post(&self, path: &str, kind: &str, body: &str) -> (String, String) {
        self.ask(&format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    fn ask(&self, request: &str) -> (String, String) {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .expect("answered and closed");
        let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
        (head.to_owned(), body.to_owned())
    }
}

/// Knows the call 1-0, of which it can do everything but record.
fn answering_call_thread() -> mpsc::Sender<OperatorRequest> {
    use crate::operator::tests::answer_about_events_and_conferences;
    use crate::operator::{ActFailed, CallsReport};
    use crate::switch::CallAction;
    let (calls, mut requests) = mpsc::channel(4);
    std::thread::spawn(move || {
        while let Some(request) = requests.blocking_recv() {
            match request {
                OperatorRequest::Calls { limit, reply } => {
                    let _ = reply.send(CallsReport {
                        total: limit,
                        calls: Vec::new(),
                    });
                }
                OperatorRequest::Act {
                    call_id,
                    action,
                    reply,
                } => {
                    let _ = reply.send(match (call_id.as_str(), action) {
                        ("1-0", CallAction::RecordStop) => {
                            Err(ActFailed::Refused("not recording".to_owned()))
                        }
                        ("1-0", _) => Ok(()),
                        _ => Err(ActFailed::NotFound("no such call".to_owned())),
                    });
                }
                request => answer_about_events_and_conferences(request),
            }
        }
    });
    calls
}

#[test]
fn actions_on_calls_are_carried_out_or_refused_with_the_reason() {
    let fixture = Fixture::new();
    let json = "application/json";
    let play = r#"{"action":"play","source":"tone:ringback","loop":true}"#;
    let rows = [
        ("1-0", json, play, "204", ""),
        (
            "1-0",
            json,
            r#"{"action":"fork","to":"192.0.2.9:4000","leg":"b"}"#,
            "204",
            "",
        ),
        ("1-1", json, play, "404", "no such call"),
        (
            "1-0",
            json,
            r#"{"action":"record_stop"}"#,
            "409",
            "not recording",
        ),
        (
            "1-0",
            json,
            r#"{"action":"sing"}"#,
            "422",
            "unknown variant",
        ),
        ("1-0", json, r#"{"action":"play"}"#, "422", "missing field"),
        ("1-0", json, r#"{"action":"#, "400", "parse"),
        // What a page of another origin could send without asking.
        ("1-0", "text/plain", play, "415", ""),
    ];
    for (call, kind, body, status, reason) in rows {
        let (head, answer) = fixture.post(&format!("/api/v1/calls/{call}/actions"), kind, body);
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status}")),
            "{body}: {head}"
        );
        assert!(answer.contains(reason), "{body}: {answer}");
    }
    let large = format!(r#"{{"action":"play","source":"{}"}}"#, "x".repeat(5_000));
    let (head, _) = fixture.post("/api/v1/calls/1-0/actions", json, &large);
    assert!(head.starts_with("HTTP/1.1 413"), "{head}");
    let (_, body) = fixture.get("/api/v1/calls?limit=3");
    let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(body["total"], 3);
}

#[test]
fn events_of_a_call_come_as_a_list_or_as_a_stream_that_ends_with_it() {
    let fixture = Fixture::new();
    let (head, body) = fixture.get("/api/v1/calls/1-0/events");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(body["events"][1]["seq"], 2);
    let stream = |last: &str| {
        fixture.ask(&format!(
            "GET /api/v1/calls/1-0/events HTTP/1.1\r\nHost: localhost\r\n\
             Accept: text/event-stream\r\n{last}\r\n"
        ))
    };
    for (last, expected) in [
        ("", &["1", "2", "3", "4"][..]),
        ("Last-Event-ID: 1\r\n", &["2", "3", "4"]),
    ] {
        let (head, body) = stream(last);
        assert!(head.contains("text/event-stream"), "{head}");
        let ids = body.lines().filter_map(|line| line.strip_prefix("id: "));
        assert_eq!(Vec::from_iter(ids), expected, "{body}");
        assert!(body.contains("event: speech_began\n"), "{body}");
    }
    for path in ["/api/v1/calls/1-9/events", "/api/v1/calls/x/events"] {
        let (head, _) = fixture.get(path);
        assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    }
}

#[test]
fn connection_lives_longer_when_its_handler_says_so() {
    let life = ConnectionLife::default();
    life.extend(Duration::from_secs(2));
    assert_eq!(life.take_extension(), Duration::from_secs(2));
    assert_eq!(life.take_extension(), Duration::ZERO, "once");
}

#[test]
fn conferences_and_recordings_are_listed_and_conferences_acted_on() {
    let fixture = Fixture::new();
    let (_, body) = fixture.get("/api/v1/conferences");
    let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(body[0]["name"], "standup");
    let rows = [
        ("standup", r#"{"action":"lock"}"#, "204"),
        ("standup?tenant=acme", r#"{"action":"lock"}"#, "204"),
        ("standup?tenant=other", r#"{"action":"lock"}"#, "404"),
        ("standup", r#"{"action":"mute","member":"1-0"}"#, "409"),
        ("standup", r#"{"action":"mute"}"#, "422"),
        ("other", r#"{"action":"lock"}"#, "404"),
    ];
    for (name, body, status) in rows {
        let (name, query) = name.split_once('?').unwrap_or((name, ""));
        let path = format!("/api/v1/conferences/{name}/actions?{query}");
        let (head, _) = fixture.post(&path, "application/json", body);
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status}")),
            "{path} {body}: {head}"
        );
    }
    let (head, body) = fixture.get("/api/v1/recordings?limit=3");
    assert!(
        head.starts_with("HTTP/1.1 200") && body == "[]",
        "{head}{body}"
    );
}

#[test]
fn healthz_follows_the_call_thread() {
    let fixture = Fixture::new();
    assert!(fixture.get("/healthz").0.starts_with("HTTP/1.1 503"));
    fixture.health.beat(monotonic_now());
    assert_eq!(fixture.get("/healthz").1, "ok\n");
    let long_ago = MonoTime(monotonic_now().0 - 6_000_000_000);
    fixture.health.beat(long_ago);
    assert!(fixture.get("/healthz").0.starts_with("HTTP/1.1 503"));
}

#[test]
fn readyz_names_what_is_missing() {
    let fixture = Fixture::new();
    fixture.health.beat(monotonic_now());
    let (head, body) = fixture.get("/readyz");
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(body["ready"], false);
    let failed: Vec<_> = body["checks"]
        .as_array()
        .expect("checks")
        .iter()
        .filter(|check| check["ok"] == false)
        .collect();
    assert_eq!(failed.len(), 1, "{body}");
    assert_eq!(failed[0]["name"], "edge");

    fixture.health.set_edge_connected(true);
    assert!(fixture.get("/readyz").0.starts_with("HTTP/1.1 200"));

    fixture.health.set_draining();
    assert!(fixture.get("/readyz").1.contains("the daemon is stopping"));
}

#[test]
fn readyz_stays_ready_while_another_process_writes() {
    let fixture = Fixture::new();
    fixture.health.beat(monotonic_now());
    fixture.health.set_edge_connected(true);
    let path = fixture.dir.path().join("trunkline.db");
    let lock = crate::store::tests::Lock::take(&path);
    assert!(fixture.get("/readyz").0.starts_with("HTTP/1.1 200"));
    lock.release();
}

#[test]
fn metrics_are_prometheus_text() {
    let fixture = Fixture::new();
    let (head, body) = fixture.get("/metrics");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    assert!(body.contains("\ntrunkline_build_info{"), "{body}");
}

#[test]
fn other_paths_and_methods_are_refused() {
    let fixture = Fixture::new();
    assert!(fixture.get("/").0.starts_with("HTTP/1.1 404"));
    let mut stream = fixture.connect();
    write!(
        stream,
        "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    )
    .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
}

#[test]
fn garbage_and_silence_do_not_keep_others_out() {
    let fixture = Fixture::new();
    fixture.health.beat(monotonic_now());
    let _silent: Vec<_> = (0..CONNECTION_COUNT_MAX - 1)
        .map(|_| fixture.connect())
        .collect();
    let mut garbage = fixture.connect();
    // The server may cut the connection before it has read everything.
    let _ = garbage.write_all(&[0xff; 100_000]);
    drop(garbage);
    assert_eq!(fixture.get("/healthz").1, "ok\n");
}

#[test]
fn silent_connections_are_cut_in_the_end() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        use axum::serve::Listener as _;
        let inner = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("bound");
        let mut listener = LimitedListener::new(inner, 1, Duration::from_millis(20));
        let address = listener.local_addr().expect("bound");
        let _client = TcpStream::connect(address).expect("connected");
        let (mut stream, _) = listener.accept().await;
        let mut byte = [0];
        let begun = Instant::now();
        let read = tokio::io::AsyncReadExt::read(&mut stream, &mut byte).await;
        assert_eq!(
            read.map_err(|error| error.kind()),
            Err(io::ErrorKind::TimedOut)
        );
        assert!(begun.elapsed() >= Duration::from_millis(20));
    });
}

#[test]
fn address_in_use_is_named() {
    let fixture = Fixture::new();
    let config = HttpConfig {
        listen: fixture.server.local_addr(),
    };
    let error = spawn(&config, fixture.sources.clone())
        .expect_err("in use")
        .to_string();
    let expected = format!("[http] listen = \"{}\": ", config.listen);
    assert!(error.starts_with(&expected), "{error}");
}

#[test]
fn server_stops_when_told_even_with_a_silent_client() {
    let fixture = Fixture::new();
    let address = fixture.server.local_addr();
    let _silent = fixture.connect();
    let begun = Instant::now();
    fixture.server.stop();
    assert!(begun.elapsed() < CONNECTION_LIFE_MAX);
    assert!(TcpStream::connect(address).is_err());
}
