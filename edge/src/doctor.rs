//! `trunkline-edge doctor`: what this machine lets the edge do, and the command for what it does not.
//!
//! [`Doctor::examine`] asks the kernel, as the user who runs it and without a running edge's help;
//! what the answers mean is decided by functions of the answers alone. Locked memory is not looked
//! at: since Linux 5.12 io_uring charges it to the cgroup, and a kernel that still refuses is heard
//! through the probe.

use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;

use serde_json::{Value, json};
use trunkline_edge_api::config::{EdgeDocument, IoChoice};
use trunkline_edge_api::{IoTier, PortRange};
use trunkline_ring::handshake::Observer;

use crate::config::Settings;
use crate::edge::raise_file_limit;
use crate::tier::{RECEIVE_BUFFER_LEN, TierError, TierSettings, probe};
use crate::uring::UringError;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Fine,
    /// The edge runs, and worse than it could.
    Degraded,
    /// The edge does not start, or calls fail.
    Broken,
}

impl State {
    const fn name(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Degraded => "degraded",
            Self::Broken => "broken",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    check: &'static str,
    state: State,
    text: String,
    /// The command, or the line of the configuration, that changes it.
    fix: Option<String>,
}

impl Finding {
    fn fine(check: &'static str, text: impl Into<String>) -> Self {
        Self {
            check,
            state: State::Fine,
            text: text.into(),
            fix: None,
        }
    }

    fn degraded(check: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            state: State::Degraded,
            fix: Some(fix.into()),
            ..Self::fine(check, text)
        }
    }

    fn broken(check: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            state: State::Broken,
            ..Self::degraded(check, text, fix)
        }
    }
}

/// Everything that was found.
pub struct Doctor {
    /// What a worker that started now would run on; `None` if it would not start.
    tier: Option<IoTier>,
    findings: Vec<Finding>,
}

impl Doctor {
    /// Looks at this machine with the eyes of an edge that has this configuration. Raises this
    /// process's limit of file descriptors and binds sockets, one at a time.
    #[must_use]
    pub fn examine(document: &EdgeDocument, settings: &Settings) -> Self {
        let files_max = raise_file_limit(settings);
        let probed = probe(TierSettings {
            io: settings.io,
            sockets_max: settings.sockets_max(files_max),
            dscp: settings.dscp,
        });
        let tier = probed.as_ref().ok().map(|(tier, _)| *tier);
        let running = running_tiers(settings);
        let mut findings = vec![
            judge_tier(settings.io, &probed, kernel().as_deref()),
            judge_running(tier, running.as_deref()),
            judge_files(files_max, settings),
            judge_receive_buffer(sysctl("net/core/rmem_max").and_then(|text| text.parse().ok())),
        ];
        let addresses = &document.edge.bound_addresses();
        findings.extend(addresses.iter().map(|&address| judge_address(address)));
        let taken = taken_ports(addresses, document.edge.ports);
        findings.push(judge_ports(document.edge.ports, &taken, running.is_some()));
        findings.push(judge_port_reserve(
            document.edge.ports,
            &sysctl("net/ipv4/ip_local_port_range").unwrap_or_default(),
            &sysctl("net/ipv4/ip_local_reserved_ports").unwrap_or_default(),
        ));
        Self { tier, findings }
    }

    /// The worst of what was found.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.findings
            .iter()
            .any(|finding| finding.state == State::Broken)
    }

    /// For programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let finding = |finding: &Finding| {
            json!({
                "check": finding.check,
                "state": finding.state.name(),
                "text": finding.text,
                "fix": finding.fix,
            })
        };
        json!({
            "io": self.tier.map(IoTier::name),
            "findings": self.findings.iter().map(finding).collect::<Vec<_>>(),
        })
    }

    /// For people: a line for each finding, and one for what fixes it.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        for finding in &self.findings {
            let (state, check) = (finding.state.name(), finding.check);
            // Writing to a String never fails.
            let _ = writeln!(out, "{state:<9} {check:<15} {}", finding.text);
            if let Some(fix) = &finding.fix {
                let _ = writeln!(out, "{:26}fix: {fix}", "");
            }
        }
        out
    }
}

fn kernel() -> Option<String> {
    sysctl("kernel/osrelease")
}

/// What stands in `/proc/sys`, trimmed.
fn sysctl(name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
    Some(text.trim().to_owned())
}

/// What the workers of a running edge run on; `None` when none answers.
fn running_tiers(settings: &Settings) -> Option<Vec<Option<IoTier>>> {
    let observer = Observer::connect(&settings.socket_path).ok()?;
    let regions = observer.regions().iter();
    Some(regions.map(|region| region.view().io_tier()).collect())
}

fn judge_tier(
    choice: IoChoice,
    probed: &Result<(IoTier, Option<UringError>), TierError>,
    kernel: Option<&str>,
) -> Finding {
    const CHECK: &str = "io";
    let kernel = kernel.unwrap_or("unknown");
    match probed {
        Ok((IoTier::IoUring, _)) => {
            Finding::fine(CHECK, format!("io_uring: Linux {kernel} allows it"))
        }
        Ok((IoTier::Epoll, Some(refused))) => Finding::degraded(
            CHECK,
            format!("epoll, because on Linux {kernel}: {refused}"),
            fix_of(refused),
        ),
        Ok((IoTier::Epoll, None)) if choice == IoChoice::Epoll => {
            Finding::fine(CHECK, "epoll, because [edge] io = \"epoll\"")
        }
        Ok((IoTier::Epoll, None)) => Finding::fine(CHECK, "epoll"),
        Err(error) => {
            let fix = match error {
                TierError::Uring(refused) => fix_of(refused),
                TierError::Epoll(_) => "LimitNOFILE= in the unit",
            };
            Finding::broken(CHECK, format!("on Linux {kernel}: {error}"), fix)
        }
    }
}

fn fix_of(refused: &UringError) -> &'static str {
    match refused {
        UringError::Disabled { .. } => "sysctl -w kernel.io_uring_disabled=0",
        UringError::Forbidden(_) => {
            "SystemCallFilter=io_uring_setup io_uring_enter io_uring_register in the unit, or the \
             same in the container's seccomp profile"
        }
        UringError::KernelTooOld { .. } => "boot Linux 6.1 or later",
        UringError::NoMemory(_) => "LimitMEMLOCK=infinity in the unit",
        UringError::TooManyFiles { .. } => {
            "LimitNOFILE= in the unit, or a lower [edge] sessions_max"
        }
        UringError::Other { .. } => "[edge] io = \"epoll\" to be rid of the attempt",
    }
}

fn judge_running(would_run: Option<IoTier>, running: Option<&[Option<IoTier>]>) -> Finding {
    const CHECK: &str = "running edge";
    let Some(running) = running else {
        return Finding::fine(CHECK, "none answers");
    };
    let mut names: Vec<_> = running
        .iter()
        .map(|tier| tier.map_or("an older release's I/O", IoTier::name))
        .collect();
    names.sort_unstable();
    names.dedup();
    let text = format!("{} workers on {}", running.len(), names.join(" and "));
    let is_behind = would_run == Some(IoTier::IoUring) && running.contains(&Some(IoTier::Epoll));
    if is_behind {
        let text = format!("{text}, though io_uring could be had now");
        Finding::degraded(CHECK, text, "restart trunkline-edge when calls allow")
    } else {
        Finding::fine(CHECK, text)
    }
}

fn judge_files(files_max: u64, settings: &Settings) -> Finding {
    const CHECK: &str = "descriptors";
    let wanted = settings.files_wanted();
    if files_max >= wanted {
        return Finding::fine(CHECK, format!("{files_max} allowed, {wanted} wanted"));
    }
    let sessions = settings.sockets_max(files_max) / 4;
    Finding::degraded(
        CHECK,
        format!(
            "{files_max} allowed, {wanted} wanted: {sessions} of {} sessions on each worker",
            settings.sessions_max
        ),
        format!("LimitNOFILE={wanted} in the unit, or [edge] sessions_max = {sessions}"),
    )
}

fn judge_receive_buffer(rmem_max: Option<usize>) -> Finding {
    const CHECK: &str = "receive buffer";
    match rmem_max {
        Some(len) if len < RECEIVE_BUFFER_LEN => Finding::degraded(
            CHECK,
            format!("net.core.rmem_max = {len} cuts each socket's {RECEIVE_BUFFER_LEN} bytes"),
            format!("sysctl -w net.core.rmem_max={RECEIVE_BUFFER_LEN}"),
        ),
        Some(len) => Finding::fine(CHECK, format!("net.core.rmem_max = {len} is enough")),
        None => Finding::fine(CHECK, "net.core.rmem_max is not shown here"),
    }
}

fn judge_address(address: IpAddr) -> Finding {
    const CHECK: &str = "media address";
    match UdpSocket::bind((address, 0)) {
        Ok(_) => Finding::fine(CHECK, format!("{address} is here")),
        Err(error) => Finding::broken(
            CHECK,
            format!("{address} cannot be bound: {error}"),
            format!(
                "ip address add {address} dev INTERFACE, or name another in [edge] media_addresses"
            ),
        ),
    }
}

/// Media ports that somebody holds on any of the addresses that are here.
fn taken_ports(addresses: &[IpAddr], ports: PortRange) -> Vec<u16> {
    let is_here = |address: &&IpAddr| UdpSocket::bind((**address, 0)).is_ok();
    let here: Vec<_> = addresses.iter().filter(is_here).collect();
    let is_taken = |port: &u16| {
        here.iter()
            .any(|address| UdpSocket::bind(SocketAddr::new(**address, *port)).is_err())
    };
    (ports.first()..=ports.last()).filter(is_taken).collect()
}

fn judge_ports(ports: PortRange, taken: &[u16], edge_runs: bool) -> Finding {
    const CHECK: &str = "ports";
    let range = format!("{}-{}", ports.first(), ports.last());
    match (taken, edge_runs) {
        ([], _) => Finding::fine(CHECK, format!("all of {range} are free")),
        // They may be its own calls'.
        (_, true) => Finding::fine(CHECK, format!("{} of {range} are in use", taken.len())),
        ([first, ..], false) => Finding::degraded(
            CHECK,
            format!(
                "{} of {range} are held by others, {first} the first",
                taken.len()
            ),
            format!("ss -lunp 'sport = :{first}' shows who; or move [edge] ports"),
        ),
    }
}

/// Ports that the kernel gives to sockets that do not care are gone when a call wants them.
fn judge_port_reserve(ports: PortRange, local_range: &str, reserved: &str) -> Finding {
    const CHECK: &str = "port reserve";
    let range = format!("{}-{}", ports.first(), ports.last());
    let mut bounds = local_range.split_whitespace().map(str::parse::<u16>);
    let (Some(Ok(low)), Some(Ok(high))) = (bounds.next(), bounds.next()) else {
        return Finding::fine(CHECK, "the kernel does not show its own range here");
    };
    let reserved: Vec<_> = reserved.split(',').filter_map(parse_range).collect();
    let is_exposed = |port: &u16| {
        (low..=high).contains(port) && !reserved.iter().any(|range| range.contains(port))
    };
    let exposed = (ports.first()..=ports.last()).filter(is_exposed).count();
    if exposed == 0 {
        return Finding::fine(CHECK, format!("{range} are given to nobody else"));
    }
    let fix = reserved
        .iter()
        .map(|range| format!("{}-{}", range.start(), range.end()))
        .chain([range.clone()])
        .collect::<Vec<_>>()
        .join(",");
    Finding::degraded(
        CHECK,
        format!("the kernel may give {exposed} of {range} to any program ({low}-{high})"),
        format!("sysctl -w net.ipv4.ip_local_reserved_ports={fix}"),
    )
}

/// `"5060"` or `"30000-39999"`.
fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
}

#[cfg(test)]
mod tests;
