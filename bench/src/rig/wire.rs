//! The wire between generator and relay: a veth pair with each end in a network namespace of its
//! own.
//!
//! Receive packet steering on the relay's end puts the whole cost of a relay on core 1: softirq
//! receive, the relay itself, transmit. The generator has core 0 for itself.

use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Namespaces and ends of the pair.
const RELAY_NAMESPACE: &str = "tl-bench-relay";
const GENERATOR_NAMESPACE: &str = "tl-bench-gen";
const RELAY_END: &str = "tlb-relay";
pub(crate) const GENERATOR_END: &str = "tlb-gen";
/// From the block for benchmarks (RFC 2544, 198.18.0.0/15), which no host has.
pub(crate) const RELAY_IP: Ipv4Addr = Ipv4Addr::new(198, 18, 77, 1);
pub(crate) const GENERATOR_IP: Ipv4Addr = Ipv4Addr::new(198, 18, 77, 2);
/// Of somebody whom no call names.
pub(crate) const ATTACKER_IP: Ipv4Addr = Ipv4Addr::new(198, 18, 77, 3);

/// Core of the relay and all that the kernel does for it.
pub(crate) const RELAY_CORE: usize = 1;
/// Core of the generator.
pub(crate) const GENERATOR_CORE: usize = 0;

/// Packets that the kernel holds between driver and softirq, per core. The default of 1,000 is
/// less than what a veth sender can hand over while the relay's core finishes one system call; a
/// NIC's ring holds 4,096.
const BACKLOG_MAX: u32 = 4_096;
const BACKLOG_SYSCTL: &str = "/proc/sys/net/core/netdev_max_backlog";

/// One of the wire's ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Relay,
    Generator,
}

impl Side {
    const fn namespace(self) -> &'static str {
        match self {
            Self::Relay => RELAY_NAMESPACE,
            Self::Generator => GENERATOR_NAMESPACE,
        }
    }

    const fn interface(self) -> &'static str {
        match self {
            Self::Relay => RELAY_END,
            Self::Generator => GENERATOR_END,
        }
    }
}

/// The pair; taken down when dropped.
pub(crate) struct Wire {
    backlog_before: String,
}

impl Wire {
    /// Sets the pair up; needs root and iproute2.
    pub(crate) fn lay() -> Result<Self> {
        take_down();
        let backlog_before = std::fs::read_to_string(BACKLOG_SYSCTL)?;
        let wire = Self { backlog_before };
        ip(&["netns", "add", RELAY_NAMESPACE])?;
        ip(&["netns", "add", GENERATOR_NAMESPACE])?;
        ip(&[
            "link",
            "add",
            RELAY_END,
            "netns",
            RELAY_NAMESPACE,
            "type",
            "veth",
            "peer",
            "name",
            GENERATOR_END,
            "netns",
            GENERATOR_NAMESPACE,
        ])?;
        for (side, addresses) in [
            (Side::Relay, &[RELAY_IP][..]),
            (Side::Generator, &[GENERATOR_IP, ATTACKER_IP]),
        ] {
            for address in addresses {
                let address = format!("{address}/29");
                inside(side, &["addr", "add", &address, "dev", side.interface()])?;
            }
            inside(side, &["link", "set", side.interface(), "up"])?;
            inside(side, &["link", "set", "lo", "up"])?;
        }
        // Neighbour discovery in the middle of a step would be loss.
        let relay_mac = mac(Side::Relay)?;
        let generator_mac = mac(Side::Generator)?;
        for (side, ip, mac) in [
            (Side::Relay, GENERATOR_IP, &generator_mac),
            (Side::Relay, ATTACKER_IP, &generator_mac),
            (Side::Generator, RELAY_IP, &relay_mac),
        ] {
            let ip = ip.to_string();
            let permanent = ["nud", "permanent", "dev", side.interface()];
            let neighbour = [&["neigh", "replace", &ip, "lladdr", mac], &permanent[..]];
            inside(side, &neighbour.concat())?;
        }
        let mask = 1 << RELAY_CORE;
        let steer = format!("echo {mask} > /sys/class/net/{RELAY_END}/queues/rx-0/rps_cpus");
        run(
            "ip",
            &["netns", "exec", RELAY_NAMESPACE, "sh", "-c", &steer],
        )?;
        std::fs::write(BACKLOG_SYSCTL, BACKLOG_MAX.to_string())?;
        Ok(wire)
    }

    /// A command that runs `program` at the relay's end, on the relay's core.
    pub(crate) fn relay_command(&self, program: &std::ffi::OsStr) -> Command {
        let mut command = Command::new("taskset");
        command
            .args(["-c", &RELAY_CORE.to_string()])
            .args(["ip", "netns", "exec", RELAY_NAMESPACE])
            .arg(program);
        command
    }

    /// Runs `code` on a thread at that end. Sockets stay in the namespace that they were made in.
    pub(crate) fn inside<T: Send>(
        &self,
        side: Side,
        code: impl FnOnce() -> Result<T> + Send,
    ) -> Result<T> {
        // A namespace is a thread's: one of its own goes there and ends.
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let namespace = File::open(format!("/run/netns/{}", side.namespace()))?;
                move_into_link_name_space(
                    std::os::fd::AsFd::as_fd(&namespace),
                    Some(LinkNameSpaceType::Network),
                )?;
                code()
            });
            thread
                .join()
                .unwrap_or_else(|_| bail!("the thread in {} panicked", side.namespace()))
        })
    }

    /// A socket at the generator's side.
    pub(crate) fn generator_socket(&self, ip: Ipv4Addr) -> Result<UdpSocket> {
        self.inside(Side::Generator, move || Ok(UdpSocket::bind((ip, 0))?))
    }

    /// What the kernel dropped on the relay's side for want of room.
    pub(crate) fn drops(&self) -> Result<Drops> {
        self.inside(Side::Relay, || {
            let snmp = std::fs::read_to_string("/proc/thread-self/net/snmp")?;
            let mut udp = snmp.lines().filter_map(|line| line.strip_prefix("Udp: "));
            let (names, values) = (udp.next().context("no Udp")?, udp.next().context("no Udp")?);
            let sockets = names
                .split(' ')
                .zip(values.split(' '))
                .find_map(|(name, value)| (name == "RcvbufErrors").then(|| value.parse()))
                .context("no RcvbufErrors")??;
            let softnet = std::fs::read_to_string("/proc/net/softnet_stat")?;
            let backlog = softnet
                .lines()
                .nth(RELAY_CORE)
                .and_then(|line| line.split(' ').nth(1))
                .and_then(|dropped| u64::from_str_radix(dropped, 16).ok())
                .context("/proc/net/softnet_stat is short")?;
            Ok(Drops { sockets, backlog })
        })
    }
}

/// Totals since the wire was laid, or since boot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drops {
    /// At full receive buffers of sockets.
    pub(crate) sockets: u64,
    /// Before the relay's core took them.
    pub(crate) backlog: u64,
}

impl Drop for Wire {
    fn drop(&mut self) {
        // Nothing can be done about what cannot be put back.
        let _ = std::fs::write(BACKLOG_SYSCTL, &self.backlog_before);
        take_down();
    }
}

/// Removes what an earlier run left; silent when there is nothing. The pair goes with its ends.
fn take_down() {
    for side in [Side::Relay, Side::Generator] {
        let _ = inside(side, &["link", "del", side.interface()]);
        let _ = ip(&["netns", "del", side.namespace()]);
    }
}

fn inside(side: Side, arguments: &[&str]) -> Result<()> {
    ip(&[&["-n", side.namespace()], arguments].concat())
}

fn ip(arguments: &[&str]) -> Result<()> {
    run("ip", arguments).map(|_| ())
}

fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("{program} does not start"))?;
    ensure!(
        output.status.success(),
        "{program} {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn mac(side: Side) -> Result<String> {
    let shown = run(
        "ip",
        &[
            "-n",
            side.namespace(),
            "-o",
            "link",
            "show",
            side.interface(),
        ],
    )?;
    shown
        .split_once("link/ether ")
        .and_then(|(_, rest)| rest.split(' ').next())
        .map(str::to_owned)
        .with_context(|| format!("no address in {shown}"))
}
