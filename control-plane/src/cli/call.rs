//! `call`: what is done to a live call, and what has happened in it.

use std::io::Write;
use std::net::SocketAddr;

use anyhow::bail;
use clap::Subcommand;

use super::commands::{UNEXPECTED_REPLY, write_json};
use super::table::{or_dash, utc, write_table};
use crate::config::ControlConfig;
use crate::operator::{self, Reply, Request};
use crate::switch::{CallAction, CallEvent, CallEventKind, Ear, EventsReport, RecordingForm, Side};

#[derive(Debug, Subcommand)]
pub(super) enum CallCommand {
    /// Show what has happened in the call's media
    Events {
        /// And what happens from now on, until the call is over
        #[arg(long)]
        follow: bool,
    },
    #[command(flatten)]
    Act(CallAct),
}

#[derive(Debug, Subcommand)]
pub(super) enum CallAct {
    /// Play to one side, in place of what it hears or over it
    Play {
        /// A file under [media] prompts_dir; tone:ringback, busy, congestion or sit;
        /// tone:%(on,off,f1,f2); silence:MILLISECONDS
        source: String,
        /// Until stopped
        #[arg(long = "loop")]
        loops: bool,
        /// Over what the side hears otherwise, which goes on
        #[arg(long)]
        into: bool,
        /// By how many dB that is softer meanwhile, 0 to 60
        #[arg(long, value_name = "DB", default_value_t = 0, requires = "into")]
        softer: u8,
        /// a: the caller, b: the callee
        #[arg(long, default_value = "a")]
        leg: Side,
    },
    /// Play no more
    Stop {
        /// a: the caller, b: the callee
        #[arg(long, default_value = "a")]
        leg: Side,
    },
    /// Record the call
    Record {
        #[command(subcommand)]
        command: RecordCommand,
    },
    /// Send digits to one side
    Digits {
        /// 0 to 9, *, #, A to D
        digits: String,
        /// a: the caller, b: the callee
        #[arg(long, default_value = "a")]
        leg: Side,
        /// As tones, whatever the side takes
        #[arg(long)]
        inband: bool,
    },
    /// What a side says reaches nobody
    Mute {
        /// a: the caller, b: the callee
        #[arg(long, default_value = "a")]
        leg: Side,
    },
    /// It does again
    Unmute {
        /// a: the caller, b: the callee
        #[arg(long, default_value = "a")]
        leg: Side,
    },
    /// A side is sent nothing of what the other one says
    Deafen {
        /// a: the caller, b: the callee
        #[arg(long, default_value = "a")]
        leg: Side,
    },
    /// It is again
    Undeafen {
        /// a: the caller, b: the callee
        #[arg(long, default_value = "a")]
        leg: Side,
    },
    /// Listen to what a side says; `events` shows what is heard
    Detect {
        /// For what
        what: Ear,
        /// Or no longer
        switch: Switch,
        /// a: the caller, b: the callee
        #[arg(long, default_value = "a")]
        leg: Side,
    },
    /// Keep a side's digits from the other side, from recordings and the log
    HideDigits {
        /// Or no longer
        switch: Switch,
        /// a: the caller, b: the callee
        #[arg(long, default_value = "a")]
        leg: Side,
    },
    /// Copy what a side says to another address, as RTP
    Fork {
        /// ADDRESS:PORT, or none
        to: ForkTarget,
        /// a: the caller, b: the callee
        #[arg(long, default_value = "a")]
        leg: Side,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum RecordCommand {
    /// Begin
    Start {
        /// A file under [media] recordings_dir that does not exist
        path: String,
        /// Caller left, callee right (the default)
        #[arg(long, conflicts_with_all = ["mixed", "pcap"])]
        stereo: bool,
        /// Both added up
        #[arg(long, conflicts_with = "pcap")]
        mixed: bool,
        /// The packets
        #[arg(long)]
        pcap: bool,
    },
    /// End
    Stop,
    /// Leave out what comes next
    Pause,
    /// Go on after a pause
    Resume,
}

/// Whether something is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Switch {
    /// It is.
    On,
    /// It is no longer.
    Off,
}

/// Where a copy goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct ForkTarget(Option<SocketAddr>);

impl std::str::FromStr for ForkTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(None)),
            _ => text
                .parse()
                .map(|to| Self(Some(to)))
                .map_err(|_| "must be ADDRESS:PORT or none".to_owned()),
        }
    }
}

impl CallAct {
    pub(super) fn action(&self) -> CallAction {
        match self {
            Self::Play {
                source,
                loops,
                into,
                softer,
                leg,
            } => CallAction::Play {
                source: source.clone(),
                leg: *leg,
                loops: *loops,
                into: *into,
                softer_db: *softer,
            },
            Self::Stop { leg } => CallAction::Stop { leg: *leg },
            Self::Record { command } => match command {
                RecordCommand::Start {
                    path, mixed, pcap, ..
                } => CallAction::RecordStart {
                    path: path.clone(),
                    form: match (mixed, pcap) {
                        (true, _) => RecordingForm::Mixed,
                        (_, true) => RecordingForm::Pcap,
                        _ => RecordingForm::Stereo,
                    },
                },
                RecordCommand::Stop => CallAction::RecordStop,
                RecordCommand::Pause => CallAction::RecordPause,
                RecordCommand::Resume => CallAction::RecordResume,
            },
            Self::Digits {
                digits,
                leg,
                inband,
            } => CallAction::Digits {
                digits: digits.clone(),
                leg: *leg,
                inband: *inband,
            },
            Self::Mute { leg } => CallAction::Mute { leg: *leg },
            Self::Unmute { leg } => CallAction::Unmute { leg: *leg },
            Self::Deafen { leg } => CallAction::Deafen { leg: *leg },
            Self::Undeafen { leg } => CallAction::Undeafen { leg: *leg },
            Self::Detect { what, switch, leg } => CallAction::Detect {
                what: *what,
                on: *switch == Switch::On,
                leg: *leg,
            },
            Self::HideDigits { switch, leg } => CallAction::HideDigits {
                on: *switch == Switch::On,
                leg: *leg,
            },
            Self::Fork { to, leg } => CallAction::Fork {
                to: to.0,
                leg: *leg,
            },
        }
    }
}

pub(super) fn run(
    config: &ControlConfig,
    call_id: &str,
    command: &CallCommand,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    match command {
        CallCommand::Events { follow: true } => follow(config, call_id, json, out),
        CallCommand::Events { follow: false } => events(config, call_id, json, out),
        CallCommand::Act(act) => {
            let request = Request::Act {
                call_id: call_id.to_owned(),
                action: act.action(),
            };
            let Reply::Done = operator::ask(&config.node.control_socket(), request)? else {
                bail!(UNEXPECTED_REPLY);
            };
            if json {
                let done = serde_json::json!({ "call_id": call_id, "done": true });
                return write_json(out, &done);
            }
            Ok(writeln!(out, "done")?)
        }
    }
}

fn events(
    config: &ControlConfig,
    call_id: &str,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let request = Request::Events {
        call_id: call_id.to_owned(),
        follow: false,
    };
    let Reply::Events(report) = operator::ask(&config.node.control_socket(), request)? else {
        bail!(UNEXPECTED_REPLY);
    };
    if json {
        return write_json(out, &report);
    }
    write_forgotten(out, &report)?;
    let rows: Vec<_> = report.events.iter().map(row).collect();
    Ok(write_table(out, ["TIME", "LEG", "EVENT", ""], &rows)?)
}

fn write_forgotten(out: &mut dyn Write, report: &EventsReport) -> std::io::Result<()> {
    match report.forgotten {
        0 => Ok(()),
        count => writeln!(out, "{count} earlier events are forgotten"),
    }
}

/// One line an event, as it happens; with `json` one object a line.
fn follow(
    config: &ControlConfig,
    call_id: &str,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut last_seq = 0;
    let mut write = |event: &CallEvent| -> anyhow::Result<()> {
        let missed = event.seq.saturating_sub(last_seq + 1);
        last_seq = event.seq;
        if json {
            serde_json::to_writer(&mut *out, event)?;
            writeln!(out)?;
        } else {
            if missed > 0 {
                writeln!(out, "{missed} events were missed")?;
            }
            let [time, leg, name, more] = row(event);
            let line = format!("{time}  {leg}  {name}  {more}");
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(out.flush()?)
    };
    let mut written = Ok(());
    operator::follow(&config.node.control_socket(), call_id, |reply| {
        written = match reply {
            Reply::Events(report) => report.events.iter().try_for_each(&mut write),
            Reply::Event { happened } => write(&happened),
            _ => Ok(()),
        };
        written.is_ok()
    })?;
    written
}

/// Time, leg, name and particulars.
fn row(event: &CallEvent) -> [String; 4] {
    let leg = event.leg.map(|leg| match leg {
        Side::A => "a",
        Side::B => "b",
    });
    let (name, more) = match &event.kind {
        CallEventKind::Digit {
            source,
            duration_ms,
            value,
        } => {
            let way = words(source);
            let value = value.map_or_else(String::new, |value| format!(" {value}"));
            ("digit", format!("{way}, {duration_ms} ms{value}"))
        }
        CallEventKind::SpeechBegan => ("speech began", String::new()),
        CallEventKind::SpeechEnded => ("speech ended", String::new()),
        CallEventKind::Beep {
            frequency_hz,
            duration_ms,
        } => ("beep", format!("{frequency_hz} Hz, {duration_ms} ms")),
        CallEventKind::Progress {
            signal,
            frequencies_hz,
        } => {
            let heard = frequencies_hz.iter().filter(|hz| **hz != 0);
            let heard: Vec<String> = heard.map(ToString::to_string).collect();
            (
                "progress",
                format!("{}, {} Hz", words(signal), heard.join(" ")),
            )
        }
        CallEventKind::DigitsSent => ("digits sent", String::new()),
        CallEventKind::PlaybackEnded { cause, played_ms } => {
            let cause = words(cause);
            ("playback ended", format!("{cause} after {played_ms} ms"))
        }
        CallEventKind::NotPlayed { reason } => ("not played", reason.clone()),
        CallEventKind::RecordingEnded(ending) => {
            let sum = or_dash(ending.sha256.as_deref());
            let (path, cause, ms) = (&ending.path, ending.cause, ending.duration_ms);
            (
                "recording ended",
                format!("{path}: {cause}, {ms} ms, sha256 {sum}"),
            )
        }
        CallEventKind::CallEnded => ("call ended", String::new()),
    };
    [utc(event.at_unix_ms), or_dash(leg), name.to_owned(), more]
}

/// A value as JSON names it.
fn words(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}
