//! A trace as a ladder for people: a column for each dialog, a line for each message.

use std::fmt::Write as _;

use super::{Direction, TracedMessage};

/// Characters of a dialog's column.
const COLUMN: usize = 34;

/// Dialogs that get a column of their own; the rest share the last.
const COLUMNS_MAX: usize = 4;

const MILLIS_PER_DAY: i64 = 86_400_000;

/// The ladder, with every message in full under its line if `full`. Empty for no messages.
#[must_use]
pub fn write(messages: &[TracedMessage], full: bool) -> String {
    let Some(first) = messages.first() else {
        return String::new();
    };
    let mut dialogs: Vec<&str> = Vec::new();
    let mut out = String::new();
    for message in messages {
        if !dialogs.contains(&message.sip_call_id.as_str()) {
            dialogs.push(&message.sip_call_id);
            let letter = letter(dialogs.len() - 1);
            let _ = writeln!(
                out,
                "{letter}  {} {}  Call-ID {}",
                message.remote,
                message.transport.to_lowercase(),
                message.sip_call_id
            );
        }
    }
    let columns = dialogs.len().min(COLUMNS_MAX);
    let _ = write!(out, "\n{:<14}{:>9}  ", "time (UTC)", "after s");
    for column in 0..columns {
        let _ = write!(out, "{:<COLUMN$}", letter(column));
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    for message in messages {
        let dialog = dialogs.iter().position(|id| *id == message.sip_call_id);
        let own = dialog.unwrap_or(0).min(columns - 1);
        let after = message.unix_ms - first.unix_ms;
        let _ = write!(
            out,
            "{:<14}{:>5}.{:03}  ",
            clock(message.unix_ms),
            after / 1_000,
            after.rem_euclid(1_000)
        );
        for column in 0..columns {
            let cell = if column == own {
                cell(message)
            } else {
                "│".to_owned()
            };
            let _ = write!(out, "{cell:<COLUMN$}");
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
        if full {
            for line in message.text.lines() {
                let _ = writeln!(out, "    {line}");
            }
        }
    }
    out
}

fn letter(index: usize) -> char {
    char::from(b'A' + index.min(COLUMNS_MAX - 1) as u8)
}

fn cell(message: &TracedMessage) -> String {
    let summary = summary(&message.text);
    match message.direction {
        Direction::Received => format!("{summary} ──▶"),
        Direction::Sent => format!("◀── {summary}"),
    }
}

/// `INVITE + SDP`, `180 Ringing`, `200 OK (INVITE) + SDP`.
fn summary(text: &str) -> String {
    let first = text.lines().next().unwrap_or_default();
    let mut words = first.split(' ');
    let mut summary = match words.next() {
        Some("SIP/2.0") => {
            let status = words.next().unwrap_or_default();
            let method = header(text, "CSeq")
                .and_then(|cseq| cseq.split_ascii_whitespace().nth(1))
                .unwrap_or_default();
            format!("{status} ({method})")
        }
        Some(method) => method.to_owned(),
        None => String::new(),
    };
    let is_sdp = header(text, "Content-Type")
        .or_else(|| header(text, "c"))
        .is_some_and(|kind| kind.contains("sdp"));
    if is_sdp && text.contains("\r\n\r\nv=") {
        summary.push_str(" + SDP");
    }
    summary.chars().take(COLUMN - 6).collect()
}

fn header<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(':'))
        .find(|(found, _)| found.trim().eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

/// Time of day.
fn clock(unix_ms: i64) -> String {
    let millis = unix_ms.rem_euclid(MILLIS_PER_DAY);
    let (secs, millis) = (millis / 1_000, millis % 1_000);
    let (hours, minutes, secs) = (secs / 3_600, secs / 60 % 60, secs % 60);
    format!("{hours:02}:{minutes:02}:{secs:02}.{millis:03}")
}
