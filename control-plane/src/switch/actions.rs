//! What an operator may have done to a live call: play, record, send digits, mute, listen, copy.
//!
//! Files are named relative to the directories of `[media]`, and never leave them.

use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use trunkline_edge_api::{
    AudioCodec, Digit, DigitMethod, DigitString, FilePath, LegFunctions, LegIndex, LiveLevel,
    MediaFork, MonoTime, PlaybackMode, RecordingFormat, RecordingTracks, SessionId, Ssrc,
};

use super::Switch;
use super::calls::CallKey;
use crate::edge::{FunctionError, Piece, PlayList, PromptFile, RecordingPlan, Ticket};
use crate::tones;

/// Where files are, and what the edge can make of audio.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaPolicy {
    /// What may be played lies under it.
    pub prompts_dir: PathBuf,
    /// Recordings go under it.
    pub recordings_dir: PathBuf,
    /// What is offered beside a peer's own formats, in this order.
    pub codecs: Vec<AudioCodec>,
    /// What a held side hears where its tenant says nothing; under `prompts_dir`.
    pub hold_music: Option<String>,
    /// Whether events of a call say which digit was pressed.
    pub shows_digits: bool,
}

/// Which side of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The caller.
    #[default]
    A,
    /// The callee.
    B,
}

impl From<LegIndex> for Side {
    fn from(leg: LegIndex) -> Self {
        match leg {
            LegIndex::A => Side::A,
            LegIndex::B => Side::B,
        }
    }
}

impl From<Side> for LegIndex {
    fn from(side: Side) -> Self {
        match side {
            Side::A => LegIndex::A,
            Side::B => LegIndex::B,
        }
    }
}

/// Whose audio goes into a file, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum RecordingForm {
    /// The caller left, the callee right.
    #[default]
    Stereo,
    /// Both, added up.
    Mixed,
    /// The packets of both.
    Pcap,
}

/// What may be listened for in a side's audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Ear {
    /// Digits as tones (ITU-T Q.24). What is found goes on as telephone events where that side
    /// agreed on none and the other one did.
    Tones,
    /// Whether the side speaks.
    Activity,
    /// The beep of an answering machine.
    Beep,
    /// Call progress tones and fax machines.
    Progress,
}

/// What is to be done to a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
pub enum CallAction {
    /// Play to one side, in place of what it hears or over it.
    Play {
        /// A file under `[media] prompts_dir`, `tone:NAME`, `tone:%(on,off,f1,f2)` or
        /// `silence:MILLISECONDS`.
        source: String,
        /// Which side hears it.
        #[serde(default)]
        leg: Side,
        /// Until stopped.
        #[serde(default, rename = "loop")]
        loops: bool,
        /// Over what the side hears otherwise, which goes on.
        #[serde(default)]
        into: bool,
        /// By how many dB that is softer meanwhile, 0 to 60.
        #[serde(default)]
        softer_db: u8,
    },
    /// Play no more.
    Stop {
        /// To which side.
        #[serde(default)]
        leg: Side,
    },
    /// Record the call.
    RecordStart {
        /// A file under `[media] recordings_dir` that does not exist.
        path: String,
        /// What it holds.
        #[serde(default)]
        form: RecordingForm,
    },
    /// Record no more.
    RecordStop,
    /// Leave out what comes next.
    RecordPause,
    /// Go on after a pause.
    RecordResume,
    /// Send digits to one side.
    Digits {
        /// `0` to `9`, `*`, `#`, `A` to `D`; at most 64.
        digits: String,
        /// To which side.
        #[serde(default)]
        leg: Side,
        /// As tones, whatever the side takes.
        #[serde(default)]
        inband: bool,
    },
    /// What a side says reaches nobody.
    Mute {
        /// Which side.
        #[serde(default)]
        leg: Side,
    },
    /// It does again.
    Unmute {
        /// Which side.
        #[serde(default)]
        leg: Side,
    },
    /// A side is sent nothing of what the other one says.
    Deafen {
        /// Which side.
        #[serde(default)]
        leg: Side,
    },
    /// It is again.
    Undeafen {
        /// Which side.
        #[serde(default)]
        leg: Side,
    },
    /// Listen to what a side says, and tell what is heard as an event of the call.
    Detect {
        /// For what.
        what: Ear,
        /// Or no longer.
        on: bool,
        /// Which side.
        #[serde(default)]
        leg: Side,
    },
    /// Keep a side's digits from the other side, from recordings, copies and the log.
    HideDigits {
        /// Or no longer.
        on: bool,
        /// Which side.
        #[serde(default)]
        leg: Side,
    },
    /// Copy what a side says to another address, as RTP.
    Fork {
        /// Where to; `None`: no more.
        #[serde(default)]
        to: Option<SocketAddr>,
        /// Which side.
        #[serde(default)]
        leg: Side,
    },
}

/// Why it cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// No live call has this id.
    #[error("there is no live call {0}; `trunkline-control calls` lists them")]
    NoSuchCall(String),
    /// No conference of this name has members.
    #[error(
        "nobody is in a conference {0}; `trunkline-control conferences` lists those with members"
    )]
    NoSuchConference(String),
    /// Conferences of several tenants have the name.
    #[error("several tenants have a conference {name}; add the tenant, one of: {tenants}")]
    AmbiguousConference {
        /// The name.
        name: String,
        /// Whose they are.
        tenants: String,
    },
    /// The call is not in the conference.
    #[error("call {0} is not in this conference; `trunkline-control conferences` lists who is")]
    NoSuchMember(String),
    /// A whisper needs two.
    #[error("a member cannot whisper to itself")]
    WhisperToSelf,
    /// The file lies elsewhere, or its name cannot be one.
    #[error("{0:?} is no file below the directory that [media] names")]
    Path(String),
    /// Not a tone.
    #[error("{0:?} is no tone; say tone:ringback, busy, congestion, sit or tone:%(on,off,f1,f2)")]
    Tone(String),
    /// Not milliseconds.
    #[error("{0:?} is no time; say for example silence:500")]
    Silence(String),
    /// Not a level.
    #[error("live audio can be softer by 0 to 60 dB, not by {0}")]
    Softer(u8),
    /// Not digits.
    #[error("1 to 64 of 0-9, *, # and A-D make digits")]
    Digits,
    /// Media is not sent there.
    #[error("{0} is no address that media may be sent to")]
    Address(SocketAddr),
    /// The edge cannot be asked.
    #[error(transparent)]
    Function(#[from] FunctionError),
}

impl ActionError {
    /// Whether what was named is not there, rather than not to be done.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::NoSuchCall(_) | Self::NoSuchConference(_) | Self::NoSuchMember(_)
        )
    }
}

impl Switch {
    /// Does something to a live call. Its outcome comes with the ticket.
    ///
    /// # Errors
    /// What kept the edge from being asked.
    pub fn act(
        &mut self,
        now: MonoTime,
        call_id: &str,
        action: CallAction,
        ticket: Ticket,
    ) -> Result<(), ActionError> {
        let no_such_call = || ActionError::NoSuchCall(call_id.to_owned());
        let key = self.key_of(call_id).ok_or_else(no_such_call)?;
        let entry = self.calls.get(&key).ok_or_else(no_such_call)?;
        let session = entry.session.ok_or(FunctionError::NoSession)?;
        let ticket = Some(ticket);
        let prompts_dir = self.config.media.prompts_dir.clone();
        let recordings_dir = &self.config.media.recordings_dir;
        let proxy = &mut self.proxy;
        match action {
            CallAction::Play {
                source,
                leg,
                loops,
                into,
                softer_db,
            } => {
                let level = LiveLevel::softer_by_db(softer_db);
                let level = level.ok_or(ActionError::Softer(softer_db))?;
                let list = PlayList {
                    pieces: vec![piece(&prompts_dir, &source)?],
                    rounds: u16::from(!loops),
                    ends_on_digit: false,
                    mode: match into {
                        true => PlaybackMode::Into(level),
                        false => PlaybackMode::Replace,
                    },
                };
                proxy.play(now, session, leg.into(), list, ticket)?;
            }
            CallAction::Stop { leg } => proxy.stop_playing(session, leg.into(), ticket)?,
            CallAction::RecordStart { path, form } => {
                let (format, tracks) = match form {
                    RecordingForm::Stereo => (RecordingFormat::Wav8k, RecordingTracks::Stereo),
                    RecordingForm::Mixed => (RecordingFormat::Wav8k, RecordingTracks::Mixed),
                    RecordingForm::Pcap => (RecordingFormat::Pcap, RecordingTracks::Stereo),
                };
                let path = file_below(recordings_dir, &path)?;
                let plan = RecordingPlan {
                    of: entry.recording_of(),
                    path,
                    format,
                    tracks,
                };
                proxy.record(session, plan, ticket)?;
            }
            CallAction::RecordStop => proxy.stop_recording(session, ticket)?,
            CallAction::RecordPause => proxy.pause_recording(session, true, ticket)?,
            CallAction::RecordResume => proxy.pause_recording(session, false, ticket)?,
            CallAction::Digits {
                digits,
                leg,
                inband,
            } => {
                let digits: Option<Vec<Digit>> = digits.chars().map(Digit::from_char).collect();
                let digits = digits.and_then(DigitString::new);
                let digits = digits.ok_or(ActionError::Digits)?;
                let method = if inband {
                    DigitMethod::InBand
                } else {
                    DigitMethod::Preferred
                };
                proxy.send_digits(session, leg.into(), digits, method, ticket)?;
            }
            CallAction::Mute { leg } => {
                self.switch_on(key, session, leg, ticket, |wanted| wanted.muted = true)?;
            }
            CallAction::Unmute { leg } => {
                self.switch_on(key, session, leg, ticket, |wanted| wanted.muted = false)?;
            }
            CallAction::Deafen { leg } => {
                self.switch_on(key, session, leg, ticket, |wanted| wanted.deaf = true)?;
            }
            CallAction::Undeafen { leg } => {
                self.switch_on(key, session, leg, ticket, |wanted| wanted.deaf = false)?;
            }
            CallAction::Detect { what, on, leg } => {
                let ear = |wanted: &mut LegFunctions| match what {
                    Ear::Tones => wanted.detects_tones = on,
                    Ear::Activity => wanted.reports_activity = on,
                    Ear::Beep => wanted.detects_beep = on,
                    Ear::Progress => wanted.detects_progress = on,
                };
                self.switch_on(key, session, leg, ticket, ear)?;
            }
            CallAction::HideDigits { on, leg } => {
                self.switch_on(key, session, leg, ticket, |wanted| wanted.hides_digits = on)?;
            }
            CallAction::Fork { to, leg } => {
                let ssrc = Ssrc(self.entropy.next_u64() as u32);
                let fork = to.map(|to| MediaFork { to, ssrc });
                if let Some(MediaFork { to, .. }) = fork
                    && !self.config.media_addresses.may_send_to(to)
                {
                    return Err(ActionError::Address(to));
                }
                self.proxy.set_fork(session, leg.into(), fork, ticket)?;
            }
        }
        Ok(())
    }

    /// Turns an operator's switches of a leg. What the call itself wants of it stays.
    fn switch_on(
        &mut self,
        key: CallKey,
        session: SessionId,
        leg: Side,
        ticket: Option<Ticket>,
        change: impl FnOnce(&mut LegFunctions),
    ) -> Result<(), FunctionError> {
        let entry = self.calls.get_mut(&key).ok_or(FunctionError::NoSession)?;
        let leg = LegIndex::from(leg);
        let mut switches = entry.switches[leg.as_usize()];
        change(&mut switches.by_operator);
        self.proxy
            .set_functions(session, leg, switches.together(), ticket)?;
        entry.switches[leg.as_usize()] = switches;
        Ok(())
    }

    /// The live call of an id as records and logs have it.
    pub(super) fn key_of(&self, call_id: &str) -> Option<CallKey> {
        let key = self.key_in(call_id)?;
        self.calls.contains_key(&key).then_some(key)
    }

    /// The call of this life of control that has, or had, that id.
    pub(super) fn key_in(&self, call_id: &str) -> Option<CallKey> {
        let (epoch, serial) = call_id.split_once('-')?;
        let epoch = u32::from_str_radix(epoch, 16).ok()?;
        let key = CallKey(u64::from_str_radix(serial, 16).ok()?);
        (epoch == self.config.epoch.0).then_some(key)
    }
}

/// What a caller hears while somewhere a phone rings, where its tenant says nothing.
pub(super) fn default_ringback() -> Piece {
    Piece::Tone(tones::ringback())
}

pub(super) fn piece(prompts_dir: &Path, source: &str) -> Result<Piece, ActionError> {
    if let Some(tone) = source.strip_prefix("tone:") {
        let tone = tones::named(tone).ok_or_else(|| ActionError::Tone(tone.to_owned()))?;
        return Ok(Piece::Tone(tone));
    }
    if let Some(millis) = source.strip_prefix("silence:") {
        let millis = millis
            .parse()
            .map_err(|_| ActionError::Silence(millis.to_owned()))?;
        return Ok(Piece::Silence { millis });
    }
    Ok(Piece::File(PromptFile::new(file_below(
        prompts_dir,
        source,
    )?)))
}

/// The absolute path of `name` below `directory`: relative to it, or already absolute.
///
/// # Errors
/// It would lie elsewhere, or is too long.
pub(crate) fn file_below(directory: &Path, name: &str) -> Result<FilePath, ActionError> {
    let error = || ActionError::Path(name.to_owned());
    let path = directory.join(name);
    let below = path.strip_prefix(directory).map_err(|_| error())?;
    let mut parts = below.components();
    let is_below = parts.all(|part| matches!(part, Component::Normal(_)));
    if !is_below || below.as_os_str().is_empty() {
        return Err(error());
    }
    path.to_str().and_then(FilePath::new).ok_or_else(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_never_leave_their_directory() {
        let directory = Path::new("/var/lib/trunkline/prompts");
        let rows = [
            ("hold.wav", Some("/var/lib/trunkline/prompts/hold.wav")),
            (
                "en/hello.wav",
                Some("/var/lib/trunkline/prompts/en/hello.wav"),
            ),
            (
                "/var/lib/trunkline/prompts/hold.wav",
                Some("/var/lib/trunkline/prompts/hold.wav"),
            ),
            ("../trunkline.db", None),
            ("en/../../trunkline.db", None),
            ("/etc/passwd", None),
            ("/var/lib/trunkline/prompts2/a.wav", None),
            ("", None),
            ("/var/lib/trunkline/prompts", None),
            ("a\0b.wav", None),
        ];
        for (name, expected) in rows {
            let path = file_below(directory, name).ok();
            assert_eq!(path.as_ref().map(FilePath::as_str), expected, "{name:?}");
        }
    }

    #[test]
    fn sources_are_files_tones_and_silence() {
        let directory = Path::new("/prompts");
        let is_tone = |source: &str| matches!(piece(directory, source), Ok(Piece::Tone(_)));
        for (name, _) in tones::NAMED {
            assert!(is_tone(&format!("tone:{name}")), "{name}");
        }
        assert!(is_tone("tone:%(1000,4000,425)"));
        assert_eq!(
            piece(directory, "silence:500"),
            Ok(Piece::Silence { millis: 500 })
        );
        assert!(matches!(piece(directory, "a.wav"), Ok(Piece::File(_))));
        for source in ["tone:loud", "tone:", "silence:", "silence:long", "../a.wav"] {
            assert!(piece(directory, source).is_err(), "{source}");
        }
    }
}
