//! The built `trunkline-control`, as an operator and systemd use it. No edge runs here.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);

struct Node {
    dir: tempfile::TempDir,
    http: SocketAddr,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (http, sip) = (free_port(), free_port());
        let path = dir.path().display();
        let config = format!(
            "[node]\nrun_dir = \"{path}\"\nstate_dir = \"{path}\"\nlog_format = \"json\"\n\
             [sip]\nlisten = [\"udp:{sip}\", \"tcp:{sip}\"]\n[http]\nlisten = \"{http}\"\n"
        );
        let node = Self { dir, http };
        node.write("trunkline.toml", &config);
        node.write(
            "site.toml",
            "[[tenant]]\nname = \"acme\"\n\n[[member]]\ntenant = \"acme\"\nextension = \"101\"\n\
             name = \"Ada\"\nsip_user = \"ada\"\npassword_file = \"ada\"\n\n\
             [[did]]\nnumber = \"+442071838750\"\ntenant = \"acme\"\nmember = \"101\"\n",
        );
        node.write("ada", "secret\n");
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("written");
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trunkline-control"));
        command.arg("--config").arg(self.path("trunkline.toml"));
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().expect("started")
    }

    fn apply(&self) -> String {
        let site = self.path("site.toml");
        let output = self.output(&["apply", site.to_str().expect("text")]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.http).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn start(&self) -> Daemon {
        let log = std::fs::File::create(self.path("log")).expect("created");
        let child = self.command().stderr(log).spawn().expect("started");
        let daemon = Daemon(child);
        let deadline = Instant::now() + LIMIT;
        while !self
            .get("/healthz")
            .is_some_and(|answer| answer.contains(" 200 "))
        {
            assert!(Instant::now() < deadline, "{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).expect("there")
    }
}

struct Daemon(Child);

impl Daemon {
    fn terminate(&mut self) -> std::process::ExitStatus {
        let id = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("signalled");
        self.0.wait().expect("ended")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").expect("bound");
    socket.local_addr().expect("bound")
}

#[test]
fn exit_codes_tell_a_wrong_file_from_a_failure() {
    let node = Node::new();
    assert_eq!(node.output(&["--check-config"]).status.code(), Some(0));
    assert_eq!(node.output(&["status"]).status.code(), Some(1));
    assert_eq!(node.output(&["--no-such-option"]).status.code(), Some(2));
    node.write("trunkline.toml", "[sip]\nring_timeout_secs = 0\n");
    for arguments in [&["--check-config"][..], &[], &["status"]] {
        let output = node.output(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        let expected =
            "trunkline.toml:2: [sip] ring_timeout_secs = 0: expected seconds, from 1 to 600";
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn reader_that_hangs_up_is_no_failure() {
    let node = Node::new();
    let mut child = node
        .command()
        .arg("config-reference")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ended");
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
}

#[test]
fn daemon_without_edge_is_healthy_but_not_ready_and_takes_an_apply_at_once() {
    let node = Node::new();
    let mut daemon = node.start();
    let ready = node.get("/readyz").expect("answered");
    assert!(
        ready.contains(" 503 ") && ready.contains("is trunkline-edge running"),
        "{ready}"
    );
    let metrics = node.get("/metrics").expect("answered");
    assert!(
        metrics.contains("trunkline_calls_active{direction=\"inbound\"} 0"),
        "{metrics}"
    );

    assert!(node.apply().ends_with("the running daemon follows it\n"));
    let status = node.output(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("JSON");
    assert_eq!(status["directory"]["members"], 1);
    assert_eq!(status["call_thread"]["edge_connected"], false);
    let calls = node.output(&["calls"]);
    assert!(
        String::from_utf8_lossy(&calls.stdout).ends_with("0 of 0 calls\n"),
        "{calls:?}"
    );

    assert!(daemon.terminate().success(), "{}", node.log());
    assert!(!node.path("control.sock").exists());
    for line in node.log().lines() {
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(line);
        assert!(parsed.is_ok(), "{line}");
    }
}

#[test]
fn second_daemon_on_the_same_state_is_refused() {
    let node = Node::new();
    let _first = node.start();
    let second = node.output(&[]);
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("another trunkline-control"), "{said}");
}

#[test]
fn daemon_that_was_killed_starts_again_with_what_was_applied() {
    let node = Node::new();
    node.apply();
    drop(node.start());
    assert!(Path::new(&node.path("control.sock")).exists());
    let _daemon = node.start();
    let status = node.output(&["status"]);
    let said = String::from_utf8_lossy(&status.stdout);
    assert!(said.contains("0 trunks, 1 members, 1 DIDs"), "{said}");
}
