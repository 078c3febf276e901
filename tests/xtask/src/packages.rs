//! The Debian packages that tests and benches need beyond a Rust toolchain and a C compiler:
//! the one list of them.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

/// A program and the Debian package it comes from.
struct Needed {
    program: &'static str,
    package: &'static str,
    what_for: &'static str,
}

const NEEDED: [Needed; 1] = [Needed {
    program: "sipp",
    package: "sip-tester",
    what_for: "SIP scenarios under tests/sipp",
}];

/// Makes sure that every program is there: installs the packages when it may, else says which
/// are missing and how to get them.
pub(crate) fn ensure() -> Result<()> {
    let missing: Vec<&Needed> = NEEDED
        .iter()
        .filter(|needed| !starts(needed.program))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|needed| needed.package).collect();
    let install = format!(
        "apt-get install --yes --no-install-recommends {}",
        packages.join(" ")
    );
    if is_root() && starts("apt-get") {
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

fn starts(program: &str) -> bool {
    Command::new(program)
        .arg("-v")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

fn is_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
