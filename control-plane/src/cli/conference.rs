//! `conferences` and `conference`: who is in which, and what is done to them.

use std::io::Write;

use anyhow::bail;
use clap::Subcommand;

use super::commands::{UNEXPECTED_REPLY, write_json};
use super::table::{duration, or_dash, write_table};
use crate::config::ControlConfig;
use crate::operator::{self, Reply, Request};
use crate::site::Name;
use crate::switch::{ConferenceAction, ConferenceView, MemberView};

#[derive(Debug, Subcommand)]
pub(super) enum ConferenceCommand {
    /// A member is not heard by the others
    Mute {
        /// The member's call, as `conferences` shows it
        member: String,
    },
    /// It is again
    Unmute {
        /// The member's call
        member: String,
    },
    /// A member does not hear the others
    Deafen {
        /// The member's call
        member: String,
    },
    /// It does again
    Undeafen {
        /// The member's call
        member: String,
    },
    /// A member is heard by one other alone, while it hears everybody
    Whisper {
        /// The member's call
        member: String,
        /// The call of who hears it
        #[arg(long)]
        to: String,
    },
    /// It is heard by everybody again
    Unwhisper {
        /// The member's call
        member: String,
    },
    /// Hang up on a member
    Kick {
        /// The member's call
        member: String,
    },
    /// Let nobody else join until the last member has left
    Lock,
    /// Let everybody join again
    Unlock,
    /// Record what everybody hears
    Record {
        #[command(subcommand)]
        command: MixRecordCommand,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum MixRecordCommand {
    /// Begin
    Start {
        /// A file under [media] recordings_dir that does not exist
        path: String,
    },
    /// End
    Stop,
    /// Leave out what comes next
    Pause,
    /// Go on after a pause
    Resume,
}

impl ConferenceCommand {
    pub(super) fn action(&self) -> ConferenceAction {
        let owned = str::to_owned;
        match self {
            Self::Mute { member } => ConferenceAction::Mute {
                member: owned(member),
            },
            Self::Unmute { member } => ConferenceAction::Unmute {
                member: owned(member),
            },
            Self::Deafen { member } => ConferenceAction::Deafen {
                member: owned(member),
            },
            Self::Undeafen { member } => ConferenceAction::Undeafen {
                member: owned(member),
            },
            Self::Whisper { member, to } => ConferenceAction::Whisper {
                member: owned(member),
                to: owned(to),
            },
            Self::Unwhisper { member } => ConferenceAction::Unwhisper {
                member: owned(member),
            },
            Self::Kick { member } => ConferenceAction::Kick {
                member: owned(member),
            },
            Self::Lock => ConferenceAction::Lock,
            Self::Unlock => ConferenceAction::Unlock,
            Self::Record { command } => match command {
                MixRecordCommand::Start { path } => {
                    ConferenceAction::RecordStart { path: owned(path) }
                }
                MixRecordCommand::Stop => ConferenceAction::RecordStop,
                MixRecordCommand::Pause => ConferenceAction::RecordPause,
                MixRecordCommand::Resume => ConferenceAction::RecordResume,
            },
        }
    }
}

pub(super) fn run(
    config: &ControlConfig,
    (tenant, name): (Option<&Name>, &Name),
    command: &ConferenceCommand,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let request = Request::Confer {
        tenant: tenant.map(ToString::to_string),
        name: name.to_string(),
        action: command.action(),
    };
    let Reply::Done = operator::ask(&config.node.control_socket(), request)? else {
        bail!(UNEXPECTED_REPLY);
    };
    if json {
        let done = serde_json::json!({ "conference": name.as_str(), "done": true });
        return write_json(out, &done);
    }
    Ok(writeln!(out, "done")?)
}

pub(super) fn list(config: &ControlConfig, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let reply = operator::ask(&config.node.control_socket(), Request::Conferences)?;
    let Reply::Conferences { conferences } = reply else {
        bail!(UNEXPECTED_REPLY);
    };
    if json {
        return write_json(out, &conferences);
    }
    let rows: Vec<_> = conferences
        .iter()
        .flat_map(|room| room.members.iter().map(move |member| row(room, member)))
        .collect();
    let titles = [
        "TENANT",
        "CONFERENCE",
        "MEMBER",
        "CALLER",
        "CODEC",
        "JOINED",
        "STATE",
    ];
    write_table(out, titles, &rows)?;
    for room in &conferences {
        let of = format!("{}/{}", room.tenant, room.name);
        if room.locked {
            writeln!(out, "{of} is locked")?;
        }
        if let Some(path) = &room.recording {
            let rests = if room.recording_paused {
                ", paused"
            } else {
                ""
            };
            writeln!(out, "{of} is recorded into {path}{rests}")?;
        }
    }
    Ok(())
}

fn row(room: &ConferenceView, member: &MemberView) -> [String; 7] {
    let mut state = Vec::new();
    for (is_so, word) in [
        (member.speaking, "speaking"),
        (member.muted, "muted"),
        (member.deaf, "deaf"),
    ] {
        state.extend(is_so.then(|| word.to_owned()));
    }
    let whispers = member.whispers_to.as_ref();
    state.extend(whispers.map(|to| format!("whispers to {to}")));
    [
        room.tenant.clone(),
        room.name.clone(),
        member.call_id.clone(),
        member.caller.clone(),
        or_dash(member.codec.as_deref()),
        duration(member.joined_ms),
        state.join(", "),
    ]
}
