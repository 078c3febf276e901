//! The house rule: rooms depend on each other one way only.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Direct normal dependencies of each crate of the workspace, as `cargo metadata` states them.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let packages = metadata["packages"].as_array().expect("a list");
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("a list");
            // A kind is stated for dev- and build-dependencies only.
            let normal = dependencies
                .iter()
                .filter(|dependency| dependency["kind"].is_null());
            (
                text(&package["name"]),
                normal.map(|dependency| text(&dependency["name"])).collect(),
            )
        })
        .collect()
}

#[test]
fn rooms_depend_on_each_other_one_way_only() {
    let graph = dependencies();
    let ours = |name: &str| -> BTreeSet<&str> {
        let normal = graph
            .get(name)
            .unwrap_or_else(|| panic!("there is no crate {name}"));
        normal
            .iter()
            .map(String::as_str)
            .filter(|d| d.starts_with("trunkline"))
            .collect()
    };
    let api = "trunkline-edge-api";
    let allowed: [(&str, &[&str]); 6] = [
        ("trunkline-edge-api", &[]),
        ("trunkline-ring", &[api]),
        ("trunkline-media", &[api]),
        ("trunkline-sip", &[api]),
        (
            "trunkline-edge",
            &[api, "trunkline-media", "trunkline-ring"],
        ),
        (
            "trunkline-control",
            &[api, "trunkline-ring", "trunkline-sip"],
        ),
    ];
    for (name, allowed) in allowed {
        let stray: Vec<_> = ours(name)
            .into_iter()
            .filter(|d| !allowed.contains(d))
            .collect();
        assert!(stray.is_empty(), "{name} must not depend on {stray:?}");
    }
}

#[test]
fn pure_crates_know_no_io() {
    let graph = dependencies();
    for name in ["trunkline-edge-api", "trunkline-media", "trunkline-sip"] {
        for banned in [
            "io-uring",
            "tokio",
            "tokio-uring",
            "rustix",
            "libc",
            "mio",
            "socket2",
        ] {
            assert!(
                !graph[name].contains(banned),
                "{name} must not depend on {banned}"
            );
        }
    }
}
