//! The wire between generator and edge.
//!
//! Over loopback the sender's core does the receiver's work, so a generator on core 1 would pay
//! for what the edge costs. A veth pair with one end in a network namespace, and receive packet
//! steering on both ends, puts each side's whole cost on its own core: core 0 carries softirq
//! receive, relay and transmit of the edge, core 1 the generator.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Namespace of the generator, its end of the pair, and the edge's end.
const NAMESPACE: &str = "trunkline-bench";
const GENERATOR_END: &str = "tl-bench-gen";
const EDGE_END: &str = "tl-bench-edge";
/// From the block for benchmarks (RFC 2544, 198.18.0.0/15), which no host has.
const GENERATOR_IP: Ipv4Addr = Ipv4Addr::new(198, 18, 77, 2);
const EDGE_IP: Ipv4Addr = Ipv4Addr::new(198, 18, 77, 1);

/// What lies between the two.
pub(super) enum Wire {
    /// `lo`.
    Loopback,
    /// The pair; taken down when dropped.
    Veth,
}

impl Wire {
    /// Sets the pair up; needs root and iproute2.
    pub(super) fn veth() -> Result<Self> {
        take_down();
        ip(&["netns", "add", NAMESPACE])?;
        let wire = Self::Veth;
        ip(&[
            "link",
            "add",
            EDGE_END,
            "type",
            "veth",
            "peer",
            "name",
            GENERATOR_END,
            "netns",
            NAMESPACE,
        ])?;
        ip(&["addr", "add", &format!("{EDGE_IP}/30"), "dev", EDGE_END])?;
        ip(&["link", "set", EDGE_END, "up"])?;
        let inside = |arguments: &[&str]| ip(&[&["-n", NAMESPACE], arguments].concat());
        inside(&[
            "addr",
            "add",
            &format!("{GENERATOR_IP}/30"),
            "dev",
            GENERATOR_END,
        ])?;
        inside(&["link", "set", GENERATOR_END, "up"])?;
        inside(&["link", "set", "lo", "up"])?;
        // Neighbour discovery in the middle of a step would be loss.
        let edge_mac = mac(&["link", "show", EDGE_END])?;
        let generator_mac = mac(&["-n", NAMESPACE, "link", "show", GENERATOR_END])?;
        let neighbour = |ip: Ipv4Addr, mac: &str, end: &str| -> Vec<String> {
            [
                "neigh",
                "replace",
                &ip.to_string(),
                "lladdr",
                mac,
                "dev",
                end,
                "nud",
                "permanent",
            ]
            .map(str::to_owned)
            .to_vec()
        };
        let outside = neighbour(GENERATOR_IP, &generator_mac, EDGE_END);
        ip(&outside.iter().map(String::as_str).collect::<Vec<_>>())?;
        let within = neighbour(EDGE_IP, &edge_mac, GENERATOR_END);
        inside(&within.iter().map(String::as_str).collect::<Vec<_>>())?;
        // Masks of cores: 1 is core 0, 2 is core 1.
        steer(&[], EDGE_END, "1")?;
        steer(&["ip", "netns", "exec", NAMESPACE], GENERATOR_END, "2")?;
        Ok(wire)
    }

    /// The edge's media address.
    pub(super) fn edge_ip(&self) -> IpAddr {
        match self {
            Self::Loopback => Ipv4Addr::LOCALHOST.into(),
            Self::Veth => EDGE_IP.into(),
        }
    }

    /// A socket at the generator's end.
    pub(super) fn generator_socket(&self) -> Result<UdpSocket> {
        match self {
            Self::Loopback => Ok(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?),
            // A namespace is a thread's, and a socket stays in the one it was made in: a thread
            // of its own makes it and ends.
            Self::Veth => std::thread::spawn(|| {
                let namespace = File::open(format!("/run/netns/{NAMESPACE}"))?;
                move_into_link_name_space(
                    std::os::fd::AsFd::as_fd(&namespace),
                    Some(LinkNameSpaceType::Network),
                )?;
                Ok(UdpSocket::bind((GENERATOR_IP, 0))?)
            })
            .join()
            .unwrap_or_else(|_| bail!("the thread in the namespace panicked")),
        }
    }

    /// For the report.
    pub(super) fn describe(&self) -> &'static str {
        match self {
            Self::Loopback => {
                "Loopback: the kernel receives for the edge on the generator's core, so the generator's end is reached first and the edge's own core carries only wake-up, relay and transmit. Run as root for a veth pair."
            }
            Self::Veth => {
                "A veth pair, the generator's end in a network namespace, receive steered (rps_cpus) to core 0 for the edge and core 1 for the generator: core 0 carries softirq receive, relay and transmit."
            }
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if matches!(self, Self::Veth) {
            take_down();
        }
    }
}

/// Removes what an earlier run left; silent when there is nothing.
fn take_down() {
    for arguments in [&["netns", "del", NAMESPACE][..], &["link", "del", EDGE_END]] {
        let _ = Command::new("ip").args(arguments).output();
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .context("ip does not start (Debian package iproute2)")?;
    ensure!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

fn mac(arguments: &[&str]) -> Result<String> {
    let output = Command::new("ip").arg("-o").args(arguments).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_once("link/ether ")
        .and_then(|(_, rest)| rest.split(' ').next())
        .map(str::to_owned)
        .with_context(|| format!("no address in {text}"))
}

fn steer(prefix: &[&str], end: &str, mask: &str) -> Result<()> {
    let script = format!("echo {mask} > /sys/class/net/{end}/queues/rx-0/rps_cpus");
    let line = [prefix, &["sh", "-c", &script]].concat();
    let output = Command::new(line[0]).args(&line[1..]).output()?;
    ensure!(
        output.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
