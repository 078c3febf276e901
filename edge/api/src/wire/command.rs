//! Commands: kinds and bodies.

use super::codec::{Reader, Writer};
use super::{DecodeError, DecodeFault, MessageBuf, bad};
use crate::command::{Command, CorrelatedCommand, LocalMedia, MediaDirection, RtcpMode};
use crate::function::{ConferenceId, PromptId, RecordingId};
use crate::vocabulary::{Epoch, Ssrc};

/// Numbers of the commands. ABI: never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum CommandKind {
    /// [`Command::OpenLeg`].
    OpenLeg = 10,
    /// [`Command::ConfigureLeg`].
    ConfigureLeg = 11,
    /// [`Command::CloseLeg`].
    CloseLeg = 12,
    /// [`Command::CloseSession`].
    CloseSession = 13,
    /// [`Command::QuerySession`].
    QuerySession = 20,
    /// [`Command::QueryAllSessions`].
    QueryAllSessions = 21,
    /// [`Command::CloseOtherEpochs`].
    CloseOtherEpochs = 30,
    /// [`Command::SetLegAudio`]. Since 1.2.
    SetLegAudio = 40,
    /// [`Command::SetLegFunctions`]. Since 1.2.
    SetLegFunctions = 41,
    /// [`Command::LoadPrompt`]. Since 1.2.
    LoadPrompt = 50,
    /// [`Command::UnloadPrompt`]. Since 1.2.
    UnloadPrompt = 51,
    /// [`Command::Play`]. Since 1.2.
    Play = 52,
    /// [`Command::StopPlaying`]. Since 1.2.
    StopPlaying = 53,
    /// [`Command::StartRecording`]. Since 1.2.
    StartRecording = 60,
    /// [`Command::StopRecording`]. Since 1.2.
    StopRecording = 61,
    /// [`Command::SendDigits`]. Since 1.2.
    SendDigits = 62,
    /// [`Command::SetFork`]. Since 1.2.
    SetFork = 63,
    /// [`Command::JoinConference`]. Since 1.2.
    JoinConference = 70,
    /// [`Command::LeaveConference`]. Since 1.2.
    LeaveConference = 71,
    /// [`Command::SetConference`]. Since 1.2.
    SetConference = 72,
    /// [`Command::CloseConference`]. Since 1.2.
    CloseConference = 73,
}

impl TryFrom<u16> for CommandKind {
    type Error = u16;

    fn try_from(value: u16) -> Result<Self, u16> {
        Ok(match value {
            10 => Self::OpenLeg,
            11 => Self::ConfigureLeg,
            12 => Self::CloseLeg,
            13 => Self::CloseSession,
            20 => Self::QuerySession,
            21 => Self::QueryAllSessions,
            30 => Self::CloseOtherEpochs,
            40 => Self::SetLegAudio,
            41 => Self::SetLegFunctions,
            50 => Self::LoadPrompt,
            51 => Self::UnloadPrompt,
            52 => Self::Play,
            53 => Self::StopPlaying,
            60 => Self::StartRecording,
            61 => Self::StopRecording,
            62 => Self::SendDigits,
            63 => Self::SetFork,
            70 => Self::JoinConference,
            71 => Self::LeaveConference,
            72 => Self::SetConference,
            73 => Self::CloseConference,
            other => return Err(other),
        })
    }
}

/// Writes a command's bytes to the front of `buf` and returns them.
pub fn encode_command<'b>(message: &CorrelatedCommand, buf: &'b mut MessageBuf) -> &'b [u8] {
    let mut w = Writer::new(buf);
    let kind = match message.command {
        Command::OpenLeg { .. } => CommandKind::OpenLeg,
        Command::ConfigureLeg { .. } => CommandKind::ConfigureLeg,
        Command::CloseLeg { .. } => CommandKind::CloseLeg,
        Command::CloseSession { .. } => CommandKind::CloseSession,
        Command::QuerySession { .. } => CommandKind::QuerySession,
        Command::QueryAllSessions => CommandKind::QueryAllSessions,
        Command::CloseOtherEpochs { .. } => CommandKind::CloseOtherEpochs,
        Command::SetLegAudio { .. } => CommandKind::SetLegAudio,
        Command::SetLegFunctions { .. } => CommandKind::SetLegFunctions,
        Command::LoadPrompt { .. } => CommandKind::LoadPrompt,
        Command::UnloadPrompt { .. } => CommandKind::UnloadPrompt,
        Command::Play { .. } => CommandKind::Play,
        Command::StopPlaying { .. } => CommandKind::StopPlaying,
        Command::StartRecording { .. } => CommandKind::StartRecording,
        Command::StopRecording { .. } => CommandKind::StopRecording,
        Command::SendDigits { .. } => CommandKind::SendDigits,
        Command::SetFork { .. } => CommandKind::SetFork,
        Command::JoinConference { .. } => CommandKind::JoinConference,
        Command::LeaveConference { .. } => CommandKind::LeaveConference,
        Command::SetConference { .. } => CommandKind::SetConference,
        Command::CloseConference { .. } => CommandKind::CloseConference,
    };
    w.head(kind as u16, message.correlation);
    match &message.command {
        Command::OpenLeg {
            session,
            leg,
            local,
        } => {
            w.u64(session.0);
            w.u8(*leg as u8);
            w.u8(local.rtcp as u8);
            w.u16(0);
            w.u32(local.ssrc.0);
            w.socket_addr(Some(local.rtp));
        }
        Command::ConfigureLeg {
            session,
            leg,
            config,
        } => {
            w.u64(session.0);
            w.u8(*leg as u8);
            w.u8(config.direction as u8);
            w.leg_config(config);
        }
        Command::CloseLeg { session, leg } => {
            w.u64(session.0);
            w.u8(*leg as u8);
        }
        Command::CloseSession { session } | Command::QuerySession { session } => w.u64(session.0),
        Command::QueryAllSessions => {}
        Command::CloseOtherEpochs { keep } => w.u32(keep.0),
        Command::SetLegAudio {
            session,
            leg,
            audio,
        } => {
            w.leg_of(*session, *leg);
            w.leg_audio(audio.as_deref());
        }
        Command::SetLegFunctions {
            session,
            leg,
            functions,
        } => {
            w.leg_of(*session, *leg);
            w.leg_functions(*functions);
        }
        Command::LoadPrompt { prompt, path, raw } => {
            w.u64(prompt.0);
            w.raw_audio(*raw);
            w.path(path);
        }
        Command::UnloadPrompt { prompt } => w.u64(prompt.0),
        Command::Play {
            session,
            leg,
            playback,
        } => {
            w.leg_of(*session, *leg);
            w.playback(playback);
        }
        Command::StopPlaying { session, leg } | Command::LeaveConference { session, leg } => {
            w.leg_of(*session, *leg);
        }
        Command::StartRecording { session, recording } => {
            w.u64(session.0);
            w.recording(recording);
        }
        Command::StopRecording { session, recording } => {
            w.u64(session.0);
            w.u64(recording.0);
        }
        Command::SendDigits {
            session,
            leg,
            digits,
        } => {
            w.leg_of(*session, *leg);
            w.digits(digits);
        }
        Command::SetFork { session, leg, fork } => {
            w.leg_of(*session, *leg);
            w.fork(*fork);
        }
        Command::JoinConference {
            session,
            leg,
            membership,
        } => {
            w.leg_of(*session, *leg);
            w.membership(membership);
        }
        Command::SetConference {
            conference,
            settings,
        } => {
            w.u64(conference.0);
            w.conference_settings(settings);
        }
        Command::CloseConference { conference } => w.u64(conference.0),
    }
    w.finish()
}

/// Reads a command.
///
/// # Errors
/// [`DecodeError`] for anything but a well-formed command of this major version.
pub fn decode_command(bytes: &[u8]) -> Result<CorrelatedCommand, DecodeError> {
    let (mut r, kind, correlation) = Reader::begin(bytes)?;
    let kind = CommandKind::try_from(kind)
        .map_err(DecodeFault::UnknownKind)
        .map_err(|fault| fault.of(correlation))?;
    read_command(&mut r, kind)
        .map(|command| CorrelatedCommand {
            correlation,
            command,
        })
        .map_err(|fault| fault.of(correlation))
}

fn read_command(r: &mut Reader<'_>, kind: CommandKind) -> Result<Command, DecodeFault> {
    Ok(match kind {
        CommandKind::OpenLeg => {
            let session = r.session()?;
            let leg = r.leg()?;
            let rtcp = r.enumerated::<RtcpMode>("rtcp")?;
            r.u16("reserved")?;
            let ssrc = Ssrc(r.u32("ssrc")?);
            let rtp = r.socket_addr("local")?.ok_or(bad("local", 0))?;
            Command::OpenLeg {
                session,
                leg,
                local: LocalMedia { rtp, rtcp, ssrc },
            }
        }
        CommandKind::ConfigureLeg => {
            let session = r.session()?;
            let leg = r.leg()?;
            let direction = r.enumerated::<MediaDirection>("direction")?;
            Command::ConfigureLeg {
                session,
                leg,
                config: r.leg_config(direction)?,
            }
        }
        CommandKind::CloseLeg => Command::CloseLeg {
            session: r.session()?,
            leg: r.leg()?,
        },
        CommandKind::CloseSession => Command::CloseSession {
            session: r.session()?,
        },
        CommandKind::QuerySession => Command::QuerySession {
            session: r.session()?,
        },
        CommandKind::QueryAllSessions => Command::QueryAllSessions,
        CommandKind::CloseOtherEpochs => Command::CloseOtherEpochs {
            keep: Epoch(r.u32("keep")?),
        },
        CommandKind::SetLegAudio => {
            let (session, leg) = r.leg_of()?;
            Command::SetLegAudio {
                session,
                leg,
                audio: r.leg_audio()?.map(Box::new),
            }
        }
        CommandKind::SetLegFunctions => {
            let (session, leg) = r.leg_of()?;
            Command::SetLegFunctions {
                session,
                leg,
                functions: r.leg_functions()?,
            }
        }
        CommandKind::LoadPrompt => Command::LoadPrompt {
            prompt: PromptId(r.u64("prompt")?),
            raw: r.raw_audio()?,
            path: r.path()?,
        },
        CommandKind::UnloadPrompt => Command::UnloadPrompt {
            prompt: PromptId(r.u64("prompt")?),
        },
        CommandKind::Play => {
            let (session, leg) = r.leg_of()?;
            Command::Play {
                session,
                leg,
                playback: r.playback()?,
            }
        }
        CommandKind::StopPlaying => {
            let (session, leg) = r.leg_of()?;
            Command::StopPlaying { session, leg }
        }
        CommandKind::StartRecording => Command::StartRecording {
            session: r.session()?,
            recording: r.recording()?,
        },
        CommandKind::StopRecording => Command::StopRecording {
            session: r.session()?,
            recording: RecordingId(r.u64("recording")?),
        },
        CommandKind::SendDigits => {
            let (session, leg) = r.leg_of()?;
            Command::SendDigits {
                session,
                leg,
                digits: r.digits()?,
            }
        }
        CommandKind::SetFork => {
            let (session, leg) = r.leg_of()?;
            Command::SetFork {
                session,
                leg,
                fork: r.fork()?,
            }
        }
        CommandKind::JoinConference => {
            let (session, leg) = r.leg_of()?;
            Command::JoinConference {
                session,
                leg,
                membership: r.membership()?,
            }
        }
        CommandKind::LeaveConference => {
            let (session, leg) = r.leg_of()?;
            Command::LeaveConference { session, leg }
        }
        CommandKind::SetConference => Command::SetConference {
            conference: ConferenceId(r.u64("conference")?),
            settings: Box::new(r.conference_settings()?),
        },
        CommandKind::CloseConference => Command::CloseConference {
            conference: ConferenceId(r.u64("conference")?),
        },
    })
}
