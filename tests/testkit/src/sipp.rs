//! SIPp 3.6 as a child process: one party of a scenario, graded by its exit code.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::process::Process;

/// One SIPp process.
#[derive(Debug, Clone)]
pub struct Sipp {
    /// What messages and errors are called after in the working directory.
    pub name: String,
    /// The scenario file.
    pub scenario: PathBuf,
    /// Address and port of its signalling.
    pub local: SocketAddr,
    /// Port of its media; all its calls send from there and name it in their SDP.
    pub media_port: u16,
    /// Whom it talks to.
    pub server: SocketAddr,
    /// Over TCP (one connection) instead of UDP.
    pub tcp: bool,
    /// Calls to make or take before it ends.
    pub calls: u32,
    /// Calls begun per second.
    pub rate: u32,
    /// `-key name value`: what a scenario finds in `[name]`.
    pub keys: Vec<(String, String)>,
    /// Further arguments.
    pub arguments: Vec<String>,
    /// `-timeout`: SIPp ends itself, failed, after this long.
    pub limit: Duration,
}

/// A SIPp that runs.
pub struct Running {
    process: Process,
    name: String,
    limit: Duration,
    directory: PathBuf,
}

impl Sipp {
    /// One call of `scenario` from `local` to `server` over UDP.
    #[must_use]
    pub fn new(
        name: &str,
        scenario: &Path,
        local: SocketAddr,
        media_port: u16,
        server: SocketAddr,
    ) -> Self {
        Self {
            name: name.to_owned(),
            scenario: scenario.to_owned(),
            local,
            media_port,
            server,
            tcp: false,
            calls: 1,
            rate: 10,
            keys: Vec::new(),
            arguments: Vec::new(),
            limit: Duration::from_secs(30),
        }
    }

    /// Starts it in `directory`, where its message and error logs stay.
    pub fn spawn(&self, directory: &Path) -> Result<Running> {
        let ip = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let log = |kind: &str| directory.join(format!("{}.{kind}.log", self.name));
        let mut command = Command::new("sipp");
        command
            .current_dir(directory)
            .arg(self.server.to_string())
            .arg("-sf")
            .arg(&self.scenario)
            .args(["-i", &ip(self.local.ip())])
            .args(["-mi", &ip(self.local.ip())])
            .args(["-p", &self.local.port().to_string()])
            .args(["-mp", &self.media_port.to_string()])
            .args(["-t", if self.tcp { "t1" } else { "u1" }])
            .args(["-m", &self.calls.to_string()])
            .args(["-r", &self.rate.to_string()])
            .args(["-timeout", &self.limit.as_secs().to_string()])
            .arg("-timeout_error")
            .args(["-nostdin", "-bind_local", "-trace_err", "-error_file"])
            .arg(log("errors"))
            .args(["-trace_msg", "-message_file"])
            .arg(log("messages"));
        for (key, value) in &self.keys {
            command.args(["-key", key, value]);
        }
        command.args(&self.arguments);
        let process = Process::spawn(&self.name, &mut command, &log("screen"))
            .context("SIPp is missing? Debian and Ubuntu: apt-get install sip-tester")?;
        Ok(Running {
            process,
            name: self.name.clone(),
            limit: self.limit,
            directory: directory.to_owned(),
        })
    }
}

impl Running {
    /// Waits for the end and grades it: exit code 0 is all calls successful. The error holds
    /// what SIPp found wrong and the messages it saw.
    pub fn grade(mut self) -> Result<()> {
        let status = self.process.wait(self.limit + Duration::from_secs(10))?;
        let Some(status) = status else {
            self.process.kill()?;
            bail!("SIPp {} did not end by itself", self.name);
        };
        match status.code() {
            Some(0) => Ok(()),
            code => bail!(
                "SIPp {} ended with {}\n{}{}",
                self.name,
                meaning(code),
                self.log("errors"),
                self.log("messages")
            ),
        }
    }

    /// Whether it has ended already.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.process.try_wait()?.is_some())
    }

    fn log(&self, kind: &str) -> String {
        let path = self.directory.join(format!("{}.{kind}.log", self.name));
        let text = std::fs::read(&path)
            .map(|octets| String::from_utf8_lossy(&octets).into_owned())
            .unwrap_or_default();
        let start = text.len().saturating_sub(8_000);
        let start = (start..text.len())
            .find(|index| text.is_char_boundary(*index))
            .unwrap_or(0);
        format!("--- {}\n{}\n", path.display(), &text[start..])
    }
}

/// SIPp's exit codes, from its manual.
fn meaning(code: Option<i32>) -> String {
    match code {
        Some(1) => "1: at least one call failed".to_owned(),
        Some(97) => "97: exit on internal command, calls may have been processed".to_owned(),
        Some(99) => "99: normal exit without calls processed".to_owned(),
        Some(255) => "255: fatal error".to_owned(),
        Some(254) => "254: connection error".to_owned(),
        Some(253) => "253: RTP validation failure".to_owned(),
        Some(other) => other.to_string(),
        None => "a signal".to_owned(),
    }
}

/// Whether SIPp can be started at all.
#[must_use]
pub fn is_installed() -> bool {
    Command::new("sipp")
        .arg("-v")
        .output()
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("SIPp"))
}
