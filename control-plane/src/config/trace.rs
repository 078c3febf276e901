//! `[trace]`.

use std::net::SocketAddr;

use trunkline_edge_api::config::{KeyDefault, KeySpec, Section, SectionSpec};

/// `[trace]`.
pub(super) static TRACE: SectionSpec = SectionSpec {
    name: "trace",
    effect: "What is remembered of SIP messages, for `trunkline-control trace`. Passwords, keys and \
             digits are crossed out in whatever leaves the process.",
    keys: &[
        KeySpec {
            name: "memory_mib",
            form: "a number from 0 to 4096",
            default: KeyDefault::Literal("32"),
            effect: "Memory for the latest messages, MiB: some 35,000 of them in 32. 0: none.",
        },
        KeySpec {
            name: "hep",
            form: "\"ADDRESS:PORT\" of a capture server, or \"\" for none",
            default: KeyDefault::Literal("\"\""),
            effect: "Every message is sent there, too (HEP version 3 over UDP; Homer, sipcapture).",
        },
        KeySpec {
            name: "hep_id",
            form: "a number from 0 to 4294967295",
            default: KeyDefault::Literal("0"),
            effect: "What this node is called at the capture server.",
        },
    ],
};

/// `[trace]`, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceConfig {
    /// Bytes of messages that are remembered.
    pub bytes_max: usize,
    /// The capture server.
    pub hep: Option<SocketAddr>,
    /// This node's name there.
    pub hep_id: u32,
}

pub(super) fn read(section: &Section<'_>) -> Option<TraceConfig> {
    let memory_mib = section.value("memory_mib", |v| v.as_number(0..=4_096_usize));
    let hep = section.value("hep", |v| match v.as_str()? {
        "" => Some(None),
        address => address.parse().ok().map(Some),
    });
    let hep_id = section.value("hep_id", |v| v.as_number(0..=u32::MAX));
    Some(TraceConfig {
        bytes_max: memory_mib? << 20,
        hep: hep?,
        hep_id: hep_id?,
    })
}
