//! Both real binaries under test, with configuration, directories and ports of their own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::http;
use crate::phone::{Phone, PhoneConfig};
use crate::ports::PortBlock;
use crate::process::Process;
use crate::site::{Member, Node, Site};

/// How long both daemons may take until `/readyz` says 200. A loaded test machine is slow, but
/// not this slow.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// How long a daemon may take to stop when asked to.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How long a figure may take to the metrics page.
const METRIC_LIMIT: Duration = Duration::from_secs(2);
/// Longest wait for an operator command.
const COMMAND_LIMIT: Duration = Duration::from_secs(20);

/// The two binaries.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// `trunkline-edge`.
    pub edge: PathBuf,
    /// `trunkline-control`.
    pub control: PathBuf,
}

impl Binaries {
    /// The ones beside the running program: a test lies in `target/<profile>/deps`, a bench or
    /// `xtask` in `target/<profile>`.
    pub fn find() -> Result<Self> {
        let program = std::env::current_exe()?;
        for directory in program.ancestors().skip(1).take(2) {
            let found = Self {
                edge: directory.join("trunkline-edge"),
                control: directory.join("trunkline-control"),
            };
            if found.edge.is_file() && found.control.is_file() {
                return Ok(found);
            }
        }
        bail!(
            "the daemons are not built beside {}: run `cargo build -p trunkline-edge -p trunkline-control`",
            program.display()
        )
    }
}

/// Both daemons, running with a site applied. Dropping it kills them by their process ids; the
/// directory is kept when the test panics.
pub struct Daemons {
    binaries: Binaries,
    directory: Option<tempfile::TempDir>,
    node: Node,
    site: Site,
    ports: PortBlock,
    edge: Option<Process>,
    control: Option<Process>,
}

impl Daemons {
    /// Starts both with two workers, waits until they are ready and applies `site`.
    pub fn start(site: Site) -> Result<Self> {
        Self::start_with(site, |_| {})
    }

    /// The same with a change to the configuration first.
    pub fn start_with(site: Site, change: impl FnOnce(&mut Node)) -> Result<Self> {
        let binaries = Binaries::find()?;
        let directory = tempfile::Builder::new().prefix("trunkline-").tempdir()?;
        let mut ports = PortBlock::claim()?;
        let sip_port = ports.next_port()?;
        let mut node = Node {
            run_dir: directory.path().join("run"),
            state_dir: directory.path().join("state"),
            log: "info".to_owned(),
            workers: 2,
            media_addresses: vec![
                IpAddr::from(Ipv4Addr::LOCALHOST).into(),
                IpAddr::from(Ipv6Addr::LOCALHOST).into(),
            ],
            ports: ports.media_range(),
            sip: vec![
                SocketAddr::from((Ipv4Addr::LOCALHOST, sip_port)),
                SocketAddr::from((Ipv6Addr::LOCALHOST, sip_port)),
            ],
            ring_timeout_secs: 30,
            sip_more: String::new(),
            http: SocketAddr::from((Ipv4Addr::LOCALHOST, ports.next_port()?)),
            more: String::new(),
        };
        change(&mut node);
        for path in [&node.run_dir, &node.state_dir] {
            std::fs::create_dir_all(path)?;
        }
        std::fs::write(directory.path().join("trunkline.toml"), node.to_toml())?;
        let mut daemons = Self {
            binaries,
            directory: Some(directory),
            node,
            site,
            ports,
            edge: None,
            control: None,
        };
        daemons.start_edge()?;
        daemons.start_control()?;
        daemons.wait_ready()?;
        let site_file = daemons.site.write(&daemons.path().join("site"))?;
        daemons.apply(&site_file)?;
        Ok(daemons)
    }

    /// Where configuration, logs and state lie.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory
            .as_ref()
            .map_or(Path::new("."), tempfile::TempDir::path)
    }

    /// The configuration file.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.path().join("trunkline.toml")
    }

    /// What the configuration says.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// What was applied.
    #[must_use]
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Where SIP is served over IPv4, UDP and TCP.
    #[must_use]
    pub fn sip(&self) -> SocketAddr {
        self.node.sip[0]
    }

    /// Where SIP is served over IPv6, UDP and TCP.
    #[must_use]
    pub fn sip_v6(&self) -> SocketAddr {
        *self
            .node
            .sip
            .iter()
            .find(|address| address.is_ipv6())
            .expect("the default node listens on IPv6")
    }

    /// Where `/metrics`, `/healthz` and `/readyz` are.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.node.http
    }

    /// A port of this test's block for helpers such as SIPp.
    pub fn next_port(&mut self) -> Result<u16> {
        self.ports.next_port()
    }

    /// A registered phone of member `index`, over UDP and IPv4.
    pub fn member_phone(&self, index: usize) -> Result<Phone> {
        let member = self.member(index)?;
        self.registered(PhoneConfig::udp(&member.user, self.sip()).with_password(&member.password))
    }

    /// Starts a phone and registers it; anything but 200 is an error.
    pub fn registered(&self, config: PhoneConfig) -> Result<Phone> {
        let user = config.user.clone();
        let phone = Phone::start(config)?;
        match phone.register(300, Duration::from_secs(5))? {
            200 => Ok(phone),
            status => bail!("REGISTER of {user} was answered {status}"),
        }
    }

    /// The carrier: a phone at 127.0.0.2, where the trunk's calls come from.
    pub fn carrier(&self) -> Result<Phone> {
        Phone::start(
            PhoneConfig::udp("+15559990000", self.sip())
                .from_address(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2))),
        )
    }

    /// Member `index` of the site.
    pub fn member(&self, index: usize) -> Result<&Member> {
        self.site
            .members
            .get(index)
            .with_context(|| format!("the site has no member {index}"))
    }

    /// Starts the edge.
    pub fn start_edge(&mut self) -> Result<()> {
        let mut command = Command::new(&self.binaries.edge);
        command.arg("--config").arg(self.config_path());
        self.edge = Some(Process::spawn(
            "trunkline-edge",
            &mut command,
            &self.path().join("edge.log"),
        )?);
        Ok(())
    }

    /// Starts control.
    pub fn start_control(&mut self) -> Result<()> {
        let mut command = Command::new(&self.binaries.control);
        command.arg("--config").arg(self.config_path());
        self.control = Some(Process::spawn(
            "trunkline-control",
            &mut command,
            &self.path().join("control.log"),
        )?);
        Ok(())
    }

    /// Waits until `/readyz` says 200; an error names the daemon that ended instead.
    pub fn wait_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        let mut last = String::from("nothing listens yet");
        while Instant::now() < deadline {
            self.check_alive()?;
            match http::get(self.node.http, "/readyz") {
                Ok((200, _)) => return Ok(()),
                Ok((status, body)) => last = format!("{status} {}", body.trim()),
                Err(error) => last = format!("{error:#}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!(
            "/readyz was not 200 within {READY_LIMIT:?}; last: {last}\n{}",
            self.logs()
        )
    }

    /// An error, with the logs, when a daemon that should run has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        for (name, process) in [("edge", &mut self.edge), ("control", &mut self.control)] {
            if let Some(process) = process
                && let Some(status) = process.try_wait()?
            {
                bail!("trunkline-{name} ended with {status}\n{}", process.output());
            }
        }
        Ok(())
    }

    /// `kill -9` of the edge.
    pub fn kill_edge(&mut self) -> Result<()> {
        self.edge.take().context("the edge does not run")?.kill()?;
        Ok(())
    }

    /// `kill -9` of control.
    pub fn kill_control(&mut self) -> Result<()> {
        self.control
            .take()
            .context("control does not run")?
            .kill()?;
        Ok(())
    }

    /// Stops both as systemd would: SIGTERM, control first. An error when one exits with
    /// anything but 0.
    pub fn stop(&mut self) -> Result<()> {
        for (name, process) in [("control", self.control.take()), ("edge", self.edge.take())] {
            let Some(mut process) = process else {
                continue;
            };
            let status = process.terminate(STOP_LIMIT)?;
            if !status.success() {
                bail!(
                    "trunkline-{name} stopped with {status}\n{}",
                    process.output()
                );
            }
        }
        Ok(())
    }

    /// Resident memory and identity of the edge process, `None` when it does not run.
    #[must_use]
    pub fn edge_id(&self) -> Option<u32> {
        self.edge.as_ref().map(Process::id)
    }

    /// Process id of control, `None` when it does not run.
    #[must_use]
    pub fn control_id(&self) -> Option<u32> {
        self.control.as_ref().map(Process::id)
    }

    /// `trunkline-control apply`.
    pub fn apply(&self, site_file: &Path) -> Result<String> {
        self.control_command(&["apply".as_ref(), site_file.as_os_str()])
    }

    /// Runs an operator command of control and returns what it printed; a failure is an error
    /// with everything it said.
    pub fn control_command(&self, arguments: &[&std::ffi::OsStr]) -> Result<String> {
        let output = self.control_output(arguments)?;
        if !output.status.success() {
            bail!(
                "trunkline-control {arguments:?} ended with {}\n{}{}\n{}",
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr),
                self.logs()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs an operator command of control and returns its output whatever its exit status.
    pub fn control_output(&self, arguments: &[&std::ffi::OsStr]) -> Result<Output> {
        run_limited(
            Command::new(&self.binaries.control)
                .arg("--config")
                .arg(self.config_path())
                .args(arguments),
        )
    }

    /// Runs an operator command of the edge and returns its output whatever its exit status.
    pub fn edge_output(&self, arguments: &[&std::ffi::OsStr]) -> Result<Output> {
        run_limited(
            Command::new(&self.binaries.edge)
                .arg("--config")
                .arg(self.config_path())
                .args(arguments),
        )
    }

    /// All call detail records, as `cdr --json` prints them: one object per line or one array.
    pub fn cdrs(&self) -> Result<Vec<serde_json::Value>> {
        let text = self.control_command(&["cdr".as_ref(), "--json".as_ref()])?;
        let mut records = Vec::new();
        for value in serde_json::Deserializer::from_str(&text).into_iter() {
            match value.context("cdr --json printed something else")? {
                serde_json::Value::Array(list) => records.extend(list),
                record => records.push(record),
            }
        }
        Ok(records)
    }

    /// Waits until there are `count` call detail records; the store is off the call path.
    pub fn wait_cdrs(&self, count: usize, limit: Duration) -> Result<Vec<serde_json::Value>> {
        let deadline = Instant::now() + limit;
        loop {
            let records = self.cdrs()?;
            if records.len() >= count {
                return Ok(records);
            }
            if Instant::now() >= deadline {
                bail!(
                    "{} of {count} CDRs within {limit:?}: {records:?}",
                    records.len()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The metrics page.
    pub fn metrics(&self) -> Result<String> {
        match http::get(self.node.http, "/metrics")? {
            (200, text) => Ok(text),
            (status, text) => bail!("/metrics answered {status}: {text}"),
        }
    }

    /// Sum of a metric over the labels not named; 0 when there is no such sample.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        Ok(http::metric(&self.metrics()?, name, labels).unwrap_or(0.0))
    }

    /// Waits until a metric, summed as by [`Self::metric`], has the value: gauges and the edge's
    /// counters are brought to the page a few times a second. The error tells the last value.
    pub fn wait_metric(&self, name: &str, labels: &[(&str, &str)], wanted: f64) -> Result<()> {
        let deadline = Instant::now() + METRIC_LIMIT;
        loop {
            let value = self.metric(name, labels)?;
            if value == wanted {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("{name} {labels:?} is {value}, not {wanted}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What both daemons wrote.
    #[must_use]
    pub fn logs(&self) -> String {
        let read = |name: &str| {
            std::fs::read(self.path().join(name))
                .map(|octets| String::from_utf8_lossy(&octets).into_owned())
                .unwrap_or_default()
        };
        format!(
            "--- edge.log\n{}--- control.log\n{}",
            read("edge.log"),
            read("control.log")
        )
    }

    /// Keeps the directory after this value is gone and returns its path.
    pub fn keep(&mut self) -> PathBuf {
        match self.directory.take() {
            Some(directory) => directory.keep(),
            None => PathBuf::from("."),
        }
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(page) = self.metrics()
        {
            let telling = |line: &&str| {
                let counts = [
                    "dropped",
                    "refused",
                    "lost",
                    "malformed",
                    "full",
                    "retransmissions",
                ];
                counts.iter().any(|word| line.contains(word))
                    && !line.starts_with('#')
                    && !line.ends_with(" 0")
            };
            for line in page.lines().filter(telling) {
                eprintln!("{line}");
            }
        }
        self.control = None;
        self.edge = None;
        if std::thread::panicking() && self.directory.is_some() {
            eprintln!("{}", tail(&self.logs(), 60));
            eprintln!(
                "configuration and logs are kept in {}",
                self.keep().display()
            );
        }
    }
}

/// The last `count` lines.
fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Runs a command that must end by itself.
fn run_limited(command: &mut Command) -> Result<Output> {
    use std::io::Read as _;
    use std::process::Stdio;

    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let mut stdout = child.stdout.take().context("stdout is piped")?;
    let mut stderr = child.stderr.take().context("stderr is piped")?;
    let errors = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stderr.read_to_end(&mut text);
        text
    });
    let output = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stdout.read_to_end(&mut text);
        text
    });
    let deadline = Instant::now() + COMMAND_LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            bail!("{command:?} did not end within {COMMAND_LIMIT:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Ok(Output {
        status,
        stdout: output.join().unwrap_or_default(),
        stderr: errors.join().unwrap_or_default(),
    })
}
