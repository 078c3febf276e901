//! `trace`: what was on the wire of a call.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};

use super::commands::{UNEXPECTED_REPLY, write_json};
use crate::config::ControlConfig;
use crate::operator::{self, Reply, Request};
use crate::trace::{ladder, pcap};

/// In which form.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
pub(super) struct TraceForm {
    /// Show every message in full
    #[arg(long)]
    full: bool,
    /// Write a capture file for Wireshark, tshark or sngrep
    #[arg(long, value_name = "FILE")]
    pcap: Option<std::path::PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(
    config: &ControlConfig,
    id: String,
    form: &TraceForm,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let request = Request::Trace { id: id.clone() };
    let reply = operator::ask(&config.node.control_socket(), request)?;
    let Reply::Trace { messages } = reply else {
        bail!(UNEXPECTED_REPLY);
    };
    if messages.is_empty() {
        bail!(
            "nothing is remembered of {id}: `calls` and `cdr` show call ids, a Call-ID of SIP does, \
             too; the oldest messages are forgotten first ([trace] memory_mib)"
        );
    }
    if form.json {
        return write_json(out, &messages);
    }
    if let Some(path) = &form.pcap {
        save(path, &pcap::write(&messages))?;
        writeln!(out, "{}: {} messages", path.display(), messages.len())?;
        return Ok(());
    }
    write!(out, "{}", ladder::write(&messages, form.full))?;
    Ok(())
}

/// Numbers and addresses are in it, so it is for its owner alone.
fn save(path: &Path, capture: &[u8]) -> anyhow::Result<()> {
    let open = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let written = open.and_then(|mut file| file.write_all(capture));
    written.with_context(|| path.display().to_string())
}
