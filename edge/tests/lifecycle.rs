//! Who may die, and what goes on: control, the edge, and a call that nobody owns any more.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command as Process, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use support::{Control, EdgeProcess, Peer, V4, on_each_tier, rtp, sequence_of, wait_until};
use trunkline_edge_api::{
    CloseCause, Command, Counter, Epoch, Event, IoTier, LegIndex, RtcpMode, SessionId,
};

const ONE_WORKER: &str = "workers = 1\nsessions_max = 8";

on_each_tier! {
    control_killed_in_mid_call_costs_no_packet_and_the_next_one_can_hang_up,
    next_control_keeps_what_it_knows_and_closes_the_rest,
    second_control_is_let_in_only_after_the_first,
    session_without_control_and_media_closes_itself_and_one_with_media_stays,
    silent_session_stays_while_control_is_there,
    edge_told_to_stop_closes_its_sessions_and_says_so,
    edge_that_is_restarted_has_a_higher_generation,
    doctor_says_what_would_run_and_what_runs,
    status_names_every_counter,
    second_edge_in_the_same_directory_is_refused,
}

const SOCKET_VARIABLE: &str = "TRUNKLINE_TEST_EDGE_SOCKET";

/// Not a test of its own: the control that [`ControlProcess`] runs and kills. Reads two addresses,
/// sets a call up between them, prints where its legs listen, and beats until it is killed.
#[test]
#[ignore = "the process that other tests kill"]
fn control_to_be_killed() {
    let Some(socket) = std::env::var_os(SOCKET_VARIABLE) else {
        return;
    };
    let mut control = Control::connect(&PathBuf::from(socket), 1).expect("the edge listens");
    let session = control.new_session();
    let mut lines = std::io::stdin().lines();
    let mut locals = Vec::new();
    for leg in LegIndex::ALL {
        let remote = lines.next().expect("two lines").expect("text");
        let local = control.open_leg(0, session, leg, V4, RtcpMode::Muxed);
        let mut config = Peer::new(V4).config(RtcpMode::Muxed);
        config.remote_rtp = Some(remote.parse().expect("an address"));
        config.remote_rtcp = config.remote_rtp;
        control.configure(0, session, leg, config);
        locals.push(local.rtp.to_string());
    }
    println!("\nCALL {}", locals.join(" "));
    loop {
        for end in &control.ends {
            end.beat(trunkline_ring::monotonic_now());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A control in a process of its own, with one call set up.
struct ControlProcess {
    child: Child,
    locals: Vec<std::net::SocketAddr>,
}

impl ControlProcess {
    fn start(edge: &EdgeProcess, peers: [&Peer; 2]) -> Self {
        let mut child = Process::new(std::env::current_exe().expect("known"))
            .args([
                "--exact",
                "control_to_be_killed",
                "--ignored",
                "--nocapture",
            ])
            .env(SOCKET_VARIABLE, edge.socket())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this binary");
        let mut stdin = child.stdin.take().expect("piped");
        for peer in peers {
            writeln!(stdin, "{}", peer.address()).expect("it reads");
        }
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let locals = stdout
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("CALL ").map(str::to_owned))
            .expect("the call is set up");
        let locals = locals
            .split(' ')
            .map(|local| local.parse().expect("an address"))
            .collect();
        Self { child, locals }
    }

    fn kill(&mut self) {
        self.child.kill().expect("our child");
        self.child.wait().expect("our child");
    }
}

impl Drop for ControlProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn control_killed_in_mid_call_costs_no_packet_and_the_next_one_can_hang_up(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let [a, b] = [Peer::new(V4), Peer::new(V4)];
    let mut control = ControlProcess::start(&edge, [&a, &b]);
    let mut expected = None;
    for n in 0..600u16 {
        if n == 200 {
            control.kill();
        }
        a.send_rtp(control.locals[0], &rtp(0, n, 7, &n.to_be_bytes()));
        let packet = b.receive_rtp();
        assert_eq!(packet[12..], n.to_be_bytes());
        let sequence = sequence_of(&packet);
        assert!(expected.is_none_or(|expected| expected == sequence));
        expected = Some(sequence.wrapping_add(1));
    }
    assert!(
        edge.status(&[]).contains("tx_rtp_packets"),
        "status works without control"
    );

    let mut next = edge.connect(2);
    assert!(next.ends[0].take_resync(), "it has to ask");
    let query = next.send(0, Command::QueryAllSessions);
    assert_eq!(next.answer(0, query), Ok(()));
    let report = next.wait_for(0, |event| match event {
        Event::SessionReported { report, .. } => Some(*report),
        _ => None,
    });
    let session = SessionId::new(Epoch(1), 1);
    assert_eq!(report.session, session);
    assert_eq!(report.legs[0].rx_packets, 600);
    assert_eq!(report.legs[1].tx_packets, 600);
    assert_eq!(next.ask(0, Command::CloseSession { session }), Ok(()));
}

fn next_control_keeps_what_it_knows_and_closes_the_rest(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let mut first = edge.connect(1);
    let call = first.simple_call(0);
    drop(first);
    let mut second = edge.connect(2);
    assert_eq!(call.pass_a_to_b(1, b"goes on")[12..], *b"goes on");
    let keep = Command::CloseOtherEpochs { keep: Epoch(2) };
    assert_eq!(second.ask(0, keep), Ok(()));
    let (cause, report) = second.wait_for(0, |event| match event {
        Event::SessionClosed { cause, report } => Some((*cause, *report)),
        _ => None,
    });
    assert_eq!(
        (cause, report.session),
        (CloseCause::Commanded, call.session)
    );
}

fn second_control_is_let_in_only_after_the_first(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let first = edge.connect(1);
    let refused = Control::connect(&edge.socket(), 2);
    assert!(refused.is_err_and(|error| error.to_string().contains("control")));
    drop(first);
    wait_until("the place is free", || {
        Control::connect(&edge.socket(), 2).ok()
    });
}

fn session_without_control_and_media_closes_itself_and_one_with_media_stays(tier: IoTier) {
    let edge = EdgeProcess::start(
        tier,
        "workers = 1\nsessions_max = 8\norphan_timeout_secs = 1",
    );
    let mut control = edge.connect(1);
    let silent = control.simple_call(0);
    let alive = control.simple_call(0);
    drop(control);
    wait_until("the silent call is closed", || {
        assert_eq!(alive.pass_a_to_b(1, b"talking")[12..], *b"talking");
        (edge.counter(Counter::SessionsOrphaned) > 0).then_some(())
    });
    assert_eq!(edge.counter(Counter::SessionsOrphaned), 1);
    edge.wait_for_gauge(Counter::SessionsActive, 1);
    // It ends in silence, too.
    edge.wait_for_counter(Counter::SessionsOrphaned, 2);
    let mut control = edge.connect(2);
    let told: Vec<_> = [(); 2]
        .map(|()| {
            control.wait_for(0, |event| match event {
                Event::SessionClosed { cause, report } => Some((*cause, report.session)),
                _ => None,
            })
        })
        .to_vec();
    assert_eq!(
        told,
        [
            (CloseCause::Orphaned, silent.session),
            (CloseCause::Orphaned, alive.session)
        ]
    );
}

fn silent_session_stays_while_control_is_there(tier: IoTier) {
    let edge = EdgeProcess::start(
        tier,
        "workers = 1\nsessions_max = 8\norphan_timeout_secs = 1",
    );
    let mut control = edge.connect(1);
    let call = control.simple_call(0);
    let until = std::time::Instant::now() + Duration::from_millis(2_500);
    wait_until("2.5 timeouts have passed", || {
        (std::time::Instant::now() > until).then_some(())
    });
    assert_eq!(call.pass_a_to_b(1, b"still here")[12..], *b"still here");
    assert_eq!(edge.counter(Counter::SessionsOrphaned), 0);
}

fn edge_told_to_stop_closes_its_sessions_and_says_so(tier: IoTier) {
    let mut edge = EdgeProcess::start(tier, "workers = 2\nsessions_max = 8");
    let mut control = edge.connect(1);
    let calls = [control.simple_call(0), control.simple_call(1)];
    for call in &calls {
        call.pass_a_to_b(1, b"last words");
    }
    edge.signal(Signal::TERM);
    for call in &calls {
        let (cause, report) = control.wait_for(call.worker, |event| match event {
            Event::SessionClosed { cause, report } => Some((*cause, *report)),
            _ => None,
        });
        assert_eq!(
            (cause, report.session),
            (CloseCause::EdgeStopped, call.session)
        );
        assert_eq!(report.legs[0].rx_packets, 1);
    }
    assert_eq!(edge.wait_for_end().code(), Some(0));
    wait_until("control sees it", || {
        control.connection.has_hung_up().then_some(())
    });
    for call in &calls {
        std::net::UdpSocket::bind(call.locals[0].rtp).expect("the port is free");
    }
}

fn edge_that_is_restarted_has_a_higher_generation(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let first = edge.connect(1).ends[0].generation();
    let edge = edge.restart();
    assert!(edge.connect(1).ends[0].generation() > first);
}

fn doctor_says_what_would_run_and_what_runs(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let found = edge.doctor();
    assert_eq!(found["io"], tier.name());
    let findings = found["findings"].as_array().expect("a list");
    let text_of = |check: &str| {
        let finding = findings.iter().find(|finding| finding["check"] == check);
        finding.and_then(|finding| finding["text"].as_str())
    };
    let runs = format!("1 workers on {}", tier.name());
    assert_eq!(text_of("running edge"), Some(runs.as_str()));
    for finding in findings {
        assert_eq!(
            finding["state"] == "fine",
            finding["fix"].is_null(),
            "{finding}"
        );
    }
}

fn status_names_every_counter(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let mut control = edge.connect(1);
    let call = control.simple_call(0);
    call.pass_a_to_b(1, b"one");
    let status: serde_json::Value = serde_json::from_str(&edge.status(&["--json"])).expect("JSON");
    let worker = &status["workers"][0];
    assert_eq!(worker["counters"]["rx_rtp_packets"], 1);
    assert_eq!(worker["drops"]["source_not_allowed"], 0);
    assert_eq!(worker["control_pid"], std::process::id());
    assert_eq!(worker["io"], tier.name());
    assert!(
        worker["heartbeat_age_ms"]
            .as_u64()
            .is_some_and(|age| age < 5_000)
    );
    let counters = worker["counters"].as_object().expect("an object");
    assert_eq!(counters.len(), Counter::ALL.len());
    let text = edge.status(&[]);
    assert!(text.contains("rx_rtp_packets"), "{text}");
    assert!(
        text.contains(&format!(", {}, heartbeat", tier.name())),
        "{text}"
    );
}

#[test]
fn configuration_that_cannot_be_used_ends_with_code_2_and_says_why() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("trunkline.toml");
    let rows = [
        ("[edge]\nworkers = 0\n", "workers"),
        ("[edge]\nprots = \"30000-30100\"\n", "prots"),
        (
            "[edge]\nworkers = 9\nports = \"30000-30009\"\n",
            "[edge] ports",
        ),
        (
            "[sip]\nanything = 1\n[edge]\nsessions_max = -1\n",
            "sessions_max",
        ),
    ];
    for (text, named) in rows {
        std::fs::write(&path, text).expect("writable");
        let output = Process::new(env!("CARGO_BIN_EXE_trunkline-edge"))
            .args(["--check-config", "--config"])
            .arg(&path)
            .output()
            .expect("the daemon is built");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}: {said}");
        assert!(said.contains(named), "{text}: {said}");
        assert!(said.contains("trunkline.toml"), "{text}: {said}");
    }
    std::fs::write(&path, "[sip]\nanything = 1\n[edge]\nworkers = 1\n").expect("writable");
    let output = Process::new(env!("CARGO_BIN_EXE_trunkline-edge"))
        .args(["--check-config", "--config"])
        .arg(&path)
        .output()
        .expect("the daemon is built");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn edge_without_a_run_directory_says_what_to_change() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("trunkline.toml");
    std::fs::write(&path, "[node]\nrun_dir = \"/nonexistent/run\"\n").expect("writable");
    let output = Process::new(env!("CARGO_BIN_EXE_trunkline-edge"))
        .arg("--config")
        .arg(&path)
        .output()
        .expect("the daemon is built");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("run_dir"),
        "{output:?}"
    );
}

fn second_edge_in_the_same_directory_is_refused(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let output = edge.start_another();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("run_dir"),
        "{output:?}"
    );
    let mut control = edge.connect(1);
    let call = control.simple_call(0);
    assert_eq!(call.pass_a_to_b(1, b"unharmed")[12..], *b"unharmed");
}
