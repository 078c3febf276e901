//! The Debian packages that tests and benches need beyond a Rust toolchain and a C compiler:
//! the one list of them.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

/// A program and the Debian package it comes from.
pub(crate) struct Needed {
    program: &'static str,
    package: &'static str,
    what_for: &'static str,
}

impl Needed {
    /// Whether its program is there.
    pub(crate) fn is_installed(&self) -> bool {
        is_installed(self.program)
    }
}

/// To build libopus; without them, and without the feature `opus`, the edge has no Opus.
pub(crate) const LIBOPUS: [Needed; 2] = [
    Needed {
        program: "cmake",
        package: "cmake",
        what_for: "building libopus",
    },
    Needed {
        program: "make",
        package: "make",
        what_for: "building libopus",
    },
];

/// For the system tests.
pub(crate) const SIPP: Needed = Needed {
    program: "sipp",
    package: "sip-tester",
    what_for: "SIP scenarios under tests/sipp",
};

/// For the system tests and `bench setup`.
pub(crate) const TCPDUMP: Needed = Needed {
    program: "tcpdump",
    package: "tcpdump",
    what_for: "reading captures, and setup times from the wire",
};

/// For `bench relay`.
pub(crate) const IPROUTE: Needed = Needed {
    program: "ip",
    package: "iproute2",
    what_for: "the veth pair between generator and relay",
};

/// For `bench relay`.
pub(crate) const CLANG: Needed = Needed {
    program: "clang",
    package: "clang",
    what_for: "the BPF program at the far end",
};

/// For `bench relay`.
pub(crate) const RTPENGINE: Needed = Needed {
    program: "rtpengine",
    package: "rtpengine-daemon",
    what_for: "the peer to compare with",
};

/// Makes sure that every program is there: installs the packages when it may, else says which
/// are missing and how to get them.
pub(crate) fn ensure(needed: &[Needed]) -> Result<()> {
    let missing: Vec<&Needed> = needed
        .iter()
        .filter(|needed| !needed.is_installed())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|needed| needed.package).collect();
    let install = format!(
        "apt-get install --yes --no-install-recommends {}",
        packages.join(" ")
    );
    if is_root() && is_installed("apt-get") {
        println!("installing {}", packages.join(" "));
        let apt = |arguments: &[&str]| {
            Command::new("apt-get")
                .args(arguments)
                .env("DEBIAN_FRONTEND", "noninteractive")
                .stdin(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        };
        let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
        arguments.extend(&packages);
        // A fresh machine has no package lists; one that has them needs no update.
        if apt(&arguments) || (apt(&["update"]) && apt(&arguments)) {
            return Ok(());
        }
    }
    let list: Vec<String> = missing
        .iter()
        .map(|needed| {
            format!(
                "{} (package {}) for {}",
                needed.program, needed.package, needed.what_for
            )
        })
        .collect();
    bail!("missing: {}. As root: {install}", list.join(", "))
}

/// Looks along PATH; starting a program to see whether it starts may do something.
fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

fn is_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
