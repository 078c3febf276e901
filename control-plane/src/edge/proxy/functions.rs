//! What sessions do beside relaying, as it is wanted: formats, switches, play, record, digits,
//! copies, conferences.
//!
//! Like the rest of the proxy this is wanted state first and commands second: a fresh edge is told
//! all of it again. Three things do not repeat as they are:
//!
//! | what | on a fresh edge |
//! |---|---|
//! | a playback | begins anew, once its files are loaded there |
//! | a recording | goes on in its file; one of packets in another, whose name has a number |
//! | digits to send | are not sent again |
//!
//! A request may carry a [`Ticket`]; its outcome is then told in a
//! [`super::MediaEvent::Outcome`] with it.

use trunkline_edge_api::{
    Command, ConferenceId, Correlation, Digit, DigitMethod, DigitString, DigitsId, DigitsToSend,
    FilePath, LegAudio, LegFunctions, LegIndex, MediaFork, Membership, MonoTime, PlaySource,
    PlaySources, Playback, PlaybackId, PlaybackMode, Recording, RecordingFormat, RecordingId,
    RecordingTracks, SessionId, Tone,
};

use trunkline_sip::offer_answer::Conversion;

use super::commands::Subject;
use super::{EdgeProxy, Session, SessionState, entry_is_opening};

mod answers;
mod conferences;
mod prompts;
mod replay;

pub(super) use conferences::Conferences;
pub use prompts::PromptFile;
pub(super) use prompts::Prompts;

/// How long each digit that we send sounds, and the pause after it, milliseconds: well above the
/// 40 ms that every receiver must hear (ITU-T Q.24), and fast enough for nobody to notice.
const DIGIT_ON_MILLIS: u16 = 100;
const DIGIT_OFF_MILLIS: u16 = 80;

/// Names a request whose outcome somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Why a function could not even be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum FunctionError {
    /// The session is over or not open yet.
    #[error("the call has no media session at present")]
    NoSession,
    /// The leg's audio only passes through, or nothing is agreed yet.
    #[error(
        "the leg has no audio that the edge could decode; it is agreed on nothing, or on a codec that is only relayed"
    )]
    NoAudio,
    /// The worker does not keep up.
    #[error("the media edge is too busy")]
    EdgeBusy,
    /// There is a recording already.
    #[error("the call is being recorded already; stop that recording first")]
    AlreadyRecording,
    /// There is none.
    #[error("the call is not being recorded")]
    NotRecording,
    /// The path would be too long for the edge.
    #[error("the path is too long")]
    PathTooLong,
    /// Nothing to play, or too many pieces.
    #[error("there is nothing to play, or more than 16 pieces")]
    PlayList,
}

/// One piece of what is to be played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// A file.
    File(PromptFile),
    /// One pass of a tone's cadence.
    Tone(Tone),
    /// Nothing, for so many milliseconds.
    Silence {
        /// How long.
        millis: u32,
    },
}

/// What is to be played.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlayList {
    /// One to sixteen, one after the other.
    pub pieces: Vec<Piece>,
    /// How often all of them; 0: until stopped.
    pub rounds: u16,
    /// Whether a digit of the peer ends it.
    pub ends_on_digit: bool,
    /// What becomes of what the peer hears otherwise.
    pub mode: PlaybackMode,
}

/// What is to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordingPlan {
    /// Whose recording it is.
    pub of: RecordingOf,
    /// A file that does not exist.
    pub path: FilePath,
    /// Its form.
    pub format: RecordingFormat,
    /// Whose audio.
    pub tracks: RecordingTracks,
}

/// Whose recording it is; comes back with [`super::MediaEvent::RecordingEnded`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordingOf {
    /// A call's.
    Call {
        /// Its id, as records and logs have it.
        call_id: String,
        /// Whose call.
        tenant: Option<String>,
    },
    /// A conference's.
    Conference {
        /// Whose conference.
        tenant: String,
        /// Its name.
        name: String,
    },
}

/// What an answer of a worker is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) what: What,
    pub(super) ticket: Option<Ticket>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Audio(SessionId, LegIndex),
    Play(SessionId, LegIndex, PlaybackId),
    Record(SessionId, RecordingId),
    Prompt(trunkline_edge_api::PromptId),
    Join(SessionId, LegIndex),
    RecordConference(ConferenceId, RecordingId),
    /// A change that nothing here depends on.
    Change,
}

/// Wanted of one leg.
#[derive(Debug, Default)]
pub(super) struct LegWanted {
    /// Its formats, whether the edge has been told or not.
    audio: Option<LegAudio>,
    /// The edge knows of formats.
    is_audio_said: bool,
    /// The answer to `SetLegAudio` without which the leg is not settled.
    pub(super) setting_audio: Option<Correlation>,
    switches: LegFunctions,
    playback: Option<WantedPlayback>,
    fork: Option<MediaFork>,
    membership: Option<Membership>,
}

#[derive(Debug)]
struct WantedPlayback {
    playback: Playback,
    /// Until its files are loaded.
    is_waiting: bool,
    ticket: Option<Ticket>,
}

/// Wanted of a session as a whole.
#[derive(Debug, Default)]
pub(super) struct SessionWanted {
    pub(super) legs: [LegWanted; 2],
    /// How much of what the peers send needs the edge to reach the other side.
    conversion: Conversion,
    /// Something beside relaying was asked for: the edge knows the formats from then on.
    is_serving: bool,
    recording: Option<WantedRecording>,
}

#[derive(Debug)]
struct WantedRecording {
    of: RecordingOf,
    recording: Recording,
    /// As it was asked for.
    path: FilePath,
    /// Counts the edges that it was begun on.
    part: u32,
}

impl WantedRecording {
    /// The same in the next file.
    fn renew(&mut self, id: RecordingId) -> Option<()> {
        self.part += 1;
        self.recording.id = id;
        self.recording.path = numbered(&self.path, self.part)?;
        Some(())
    }
}

/// `call.wav` as `call-2.wav`.
fn numbered(path: &FilePath, part: u32) -> Option<FilePath> {
    let path = path.as_str();
    let (directory, name) = path.rsplit_once('/')?;
    FilePath::new(&match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => {
            format!("{directory}/{stem}-{part}.{extension}")
        }
        _ => format!("{directory}/{name}-{part}"),
    })
}

/// A recording of which the edge owes us the end.
#[derive(Debug)]
pub(super) struct OwedRecording {
    of: RecordingOf,
    session: Option<SessionId>,
    worker: usize,
    path: FilePath,
}

impl EdgeProxy {
    /// States both legs' formats, as far as the edge can decode them. With [`Conversion::Full`]
    /// [`super::MediaEvent::Configured`] waits for the edge to take them, and a refusal ends the session;
    /// with [`Conversion::Partial`] a refusal costs what could be converted, say digits.
    pub fn set_audio(
        &mut self,
        session: SessionId,
        audio: [Option<LegAudio>; 2],
        conversion: Conversion,
    ) {
        let Some(entry) = self.open_entry(session) else {
            return;
        };
        let wanted = &mut entry.wanted;
        wanted.conversion = conversion;
        let is_known = conversion != Conversion::None || wanted.is_serving;
        let mut changed = [false; 2];
        for ((leg, audio), changed) in wanted.legs.iter_mut().zip(audio).zip(&mut changed) {
            *changed = (leg.audio != audio && (is_known || leg.is_audio_said))
                || leg.is_audio_said != (is_known && audio.is_some());
            leg.audio = audio;
        }
        for leg in LegIndex::ALL {
            if changed[leg.as_usize()] {
                self.send_audio(session, leg);
            }
        }
    }

    /// Has the edge know the session's formats from now on.
    fn serve(&mut self, session: SessionId) -> Result<(), FunctionError> {
        let entry = self.open_entry(session).ok_or(FunctionError::NoSession)?;
        let worker = entry.worker;
        let has_begun = std::mem::replace(&mut entry.wanted.is_serving, true);
        let is_known = has_begun || entry.wanted.conversion != Conversion::None;
        if self.commands.is_full(worker) {
            return Err(FunctionError::EdgeBusy);
        }
        if !is_known {
            for leg in LegIndex::ALL {
                self.send_audio(session, leg);
            }
        }
        Ok(())
    }

    /// Tells the edge what formats a leg has, or that it need not know.
    fn send_audio(&mut self, session: SessionId, leg: LegIndex) {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return;
        };
        let is_known = entry.wanted.conversion != Conversion::None || entry.wanted.is_serving;
        let is_awaited = entry.wanted.conversion == Conversion::Full;
        let wanted = &mut entry.wanted.legs[leg.as_usize()];
        let audio = wanted.audio.clone().filter(|_| is_known).map(Box::new);
        if audio.is_none() && !wanted.is_audio_said {
            return;
        }
        wanted.is_audio_said = audio.is_some();
        let worker = entry.worker;
        let command = Command::SetLegAudio {
            session,
            leg,
            audio,
        };
        let correlation = self.ask(worker, command, What::Audio(session, leg), None);
        if let Some(entry) = self.sessions.get_mut(&session) {
            entry.wanted.legs[leg.as_usize()].setting_audio = is_awaited.then_some(correlation);
        }
    }

    /// A leg's switches.
    #[must_use]
    pub fn functions(&self, session: SessionId, leg: LegIndex) -> Option<LegFunctions> {
        let wanted = &self.sessions.get(&session)?.wanted;
        Some(wanted.legs[leg.as_usize()].switches)
    }

    /// Turns a leg's switches.
    ///
    /// # Errors
    /// [`FunctionError::NoSession`], [`FunctionError::EdgeBusy`].
    pub fn set_functions(
        &mut self,
        session: SessionId,
        leg: LegIndex,
        switches: LegFunctions,
        ticket: Option<Ticket>,
    ) -> Result<(), FunctionError> {
        let looks_into_audio = switches.detects_tones
            || switches.reports_activity
            || switches.detects_beep
            || switches.detects_progress;
        if looks_into_audio || switches.hides_digits {
            self.serve(session)?;
        }
        let entry = self.open_entry(session).ok_or(FunctionError::NoSession)?;
        entry.wanted.legs[leg.as_usize()].switches = switches;
        self.send_switches(session, leg, ticket);
        Ok(())
    }

    fn send_switches(&mut self, session: SessionId, leg: LegIndex, ticket: Option<Ticket>) {
        if let Some(entry) = self.sessions.get(&session) {
            let functions = entry.wanted.legs[leg.as_usize()].switches;
            let command = Command::SetLegFunctions {
                session,
                leg,
                functions,
            };
            self.ask(entry.worker, command, What::Change, ticket);
        }
    }

    /// Plays to a leg's peer, in place of what it hears or over it.
    ///
    /// # Errors
    /// Whatever keeps it from being asked for; what the edge says to it comes later.
    pub fn play(
        &mut self,
        now: MonoTime,
        session: SessionId,
        leg: LegIndex,
        list: PlayList,
        ticket: Option<Ticket>,
    ) -> Result<PlaybackId, FunctionError> {
        self.serve(session)?;
        let entry = self.open_entry(session).ok_or(FunctionError::NoSession)?;
        let has_audio = |leg: LegIndex| entry.wanted.legs[leg.as_usize()].audio.is_some();
        let needs_live = matches!(list.mode, PlaybackMode::Into(_))
            && entry.wanted.legs[leg.as_usize()].membership.is_none();
        if !has_audio(leg) || (needs_live && !has_audio(leg.far())) {
            return Err(FunctionError::NoAudio);
        }
        if !(1..=PlaySources::LEN_MAX).contains(&list.pieces.len()) {
            return Err(FunctionError::PlayList);
        }
        let sources = list.pieces.into_iter().map(|piece| match piece {
            Piece::File(file) => PlaySource::Prompt(self.prompts.use_file(now, self.epoch, file)),
            Piece::Tone(tone) => PlaySource::Tone(tone),
            Piece::Silence { millis } => PlaySource::Silence { millis },
        });
        let sources = PlaySources::new(sources.collect()).ok_or(FunctionError::PlayList)?;
        let id = PlaybackId(self.function_ids.next());
        let wanted = WantedPlayback {
            playback: Playback {
                id,
                sources,
                rounds: list.rounds,
                ends_on_digit: list.ends_on_digit,
                mode: list.mode,
            },
            is_waiting: true,
            ticket,
        };
        if let Some(entry) = self.open_entry(session) {
            entry.wanted.legs[leg.as_usize()].playback = Some(wanted);
        }
        self.send_play(session, leg);
        Ok(id)
    }

    /// Says `Play`, or `LoadPrompt` for what it still lacks.
    fn send_play(&mut self, session: SessionId, leg: LegIndex) {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return;
        };
        let worker = entry.worker;
        let Some(wanted) = &mut entry.wanted.legs[leg.as_usize()].playback else {
            return;
        };
        let mut missing = Vec::new();
        for source in wanted.playback.sources.as_slice() {
            if let PlaySource::Prompt(prompt) = source
                && !self.prompts.is_loaded(*prompt)
            {
                missing.push(*prompt);
            }
        }
        wanted.is_waiting = !missing.is_empty();
        if missing.is_empty() {
            let playback = wanted.playback.clone();
            let (id, ticket) = (playback.id, wanted.ticket.take());
            let command = Command::Play {
                session,
                leg,
                playback,
            };
            self.ask(worker, command, What::Play(session, leg, id), ticket);
            return;
        }
        for prompt in missing {
            if let Some(command) = self.prompts.load(prompt) {
                self.ask(worker, command, What::Prompt(prompt), None);
            }
        }
    }

    /// Ends what is played to a leg's peer. Nothing happens when nothing is.
    ///
    /// # Errors
    /// [`FunctionError::NoSession`].
    pub fn stop_playing(
        &mut self,
        session: SessionId,
        leg: LegIndex,
        ticket: Option<Ticket>,
    ) -> Result<(), FunctionError> {
        let entry = self.open_entry(session).ok_or(FunctionError::NoSession)?;
        entry.wanted.legs[leg.as_usize()].playback = None;
        let worker = entry.worker;
        let command = Command::StopPlaying { session, leg };
        self.ask(worker, command, What::Change, ticket);
        Ok(())
    }

    /// What is being played to a leg's peer.
    #[must_use]
    pub fn playback(&self, session: SessionId, leg: LegIndex) -> Option<PlaybackId> {
        let wanted = &self.sessions.get(&session)?.wanted.legs[leg.as_usize()];
        Some(wanted.playback.as_ref()?.playback.id)
    }

    /// Records a session.
    ///
    /// # Errors
    /// Whatever keeps it from being asked for; what the edge says to it comes later.
    pub fn record(
        &mut self,
        session: SessionId,
        plan: RecordingPlan,
        ticket: Option<Ticket>,
    ) -> Result<RecordingId, FunctionError> {
        let entry = self.open_entry(session).ok_or(FunctionError::NoSession)?;
        if entry.wanted.recording.is_some() {
            return Err(FunctionError::AlreadyRecording);
        }
        self.serve(session)?;
        let id = self.recording_id();
        let recording = Recording {
            id,
            path: plan.path.clone(),
            format: plan.format,
            tracks: plan.tracks,
            paused: false,
        };
        let entry = self.open_entry(session).ok_or(FunctionError::NoSession)?;
        entry.wanted.recording = Some(WantedRecording {
            of: plan.of,
            recording,
            path: plan.path,
            part: 1,
        });
        self.send_recording(session, ticket);
        Ok(id)
    }

    fn send_recording(&mut self, session: SessionId, ticket: Option<Ticket>) {
        let Some(entry) = self.sessions.get(&session) else {
            return;
        };
        let worker = entry.worker;
        let Some(wanted) = &entry.wanted.recording else {
            return;
        };
        let recording = wanted.recording.clone();
        let id = recording.id;
        let owed = OwedRecording {
            of: wanted.of.clone(),
            session: Some(session),
            worker,
            path: recording.path.clone(),
        };
        self.recordings.insert(id, owed);
        let command = Command::StartRecording { session, recording };
        self.ask(worker, command, What::Record(session, id), ticket);
    }

    /// Has a recording rest, or go on.
    ///
    /// # Errors
    /// [`FunctionError::NoSession`], [`FunctionError::NotRecording`].
    pub fn pause_recording(
        &mut self,
        session: SessionId,
        paused: bool,
        ticket: Option<Ticket>,
    ) -> Result<(), FunctionError> {
        let entry = self.open_entry(session).ok_or(FunctionError::NoSession)?;
        let wanted = entry.wanted.recording.as_mut();
        wanted.ok_or(FunctionError::NotRecording)?.recording.paused = paused;
        self.send_recording(session, ticket);
        Ok(())
    }

    /// Ends a session's recording; [`super::MediaEvent::RecordingEnded`] follows.
    ///
    /// # Errors
    /// [`FunctionError::NoSession`], [`FunctionError::NotRecording`].
    pub fn stop_recording(
        &mut self,
        session: SessionId,
        ticket: Option<Ticket>,
    ) -> Result<(), FunctionError> {
        let entry = self.open_entry(session).ok_or(FunctionError::NoSession)?;
        let worker = entry.worker;
        let wanted = entry.wanted.recording.take();
        let recording = wanted.ok_or(FunctionError::NotRecording)?.recording.id;
        let command = Command::StopRecording { session, recording };
        self.ask(worker, command, What::Change, ticket);
        Ok(())
    }

    /// The file that a session is being recorded into.
    #[must_use]
    pub fn recording(&self, session: SessionId) -> Option<&Recording> {
        let wanted = self.sessions.get(&session)?.wanted.recording.as_ref()?;
        Some(&wanted.recording)
    }

    /// Whether a recording of this call has not ended yet.
    #[must_use]
    pub fn owes_recording_of(&self, call_id: &str) -> bool {
        let is_of =
            |of: &RecordingOf| matches!(of, RecordingOf::Call { call_id: id, .. } if id == call_id);
        self.recordings.values().any(|owed| is_of(&owed.of))
    }

    /// Sends digits to a leg's peer in the media.
    ///
    /// # Errors
    /// Whatever keeps it from being asked for; what the edge says to it comes later.
    pub fn send_digits(
        &mut self,
        session: SessionId,
        leg: LegIndex,
        digits: DigitString,
        method: DigitMethod,
        ticket: Option<Ticket>,
    ) -> Result<DigitsId, FunctionError> {
        self.serve(session)?;
        let entry = self.open_entry(session).ok_or(FunctionError::NoSession)?;
        if entry.wanted.legs[leg.as_usize()].audio.is_none() {
            return Err(FunctionError::NoAudio);
        }
        let worker = entry.worker;
        let id = DigitsId(self.function_ids.next());
        let digits = DigitsToSend {
            id,
            digits,
            on_millis: DIGIT_ON_MILLIS,
            off_millis: DIGIT_OFF_MILLIS,
            method,
        };
        let command = Command::SendDigits {
            session,
            leg,
            digits,
        };
        self.ask(worker, command, What::Change, ticket);
        Ok(id)
    }

    /// Copies what a leg's peer says to a second address, or ceases to.
    ///
    /// # Errors
    /// [`FunctionError::NoSession`].
    pub fn set_fork(
        &mut self,
        session: SessionId,
        leg: LegIndex,
        fork: Option<MediaFork>,
        ticket: Option<Ticket>,
    ) -> Result<(), FunctionError> {
        let entry = self.open_entry(session).ok_or(FunctionError::NoSession)?;
        entry.wanted.legs[leg.as_usize()].fork = fork;
        let worker = entry.worker;
        let command = Command::SetFork { session, leg, fork };
        self.ask(worker, command, What::Change, ticket);
        Ok(())
    }

    pub(super) fn ask(
        &mut self,
        worker: usize,
        command: Command,
        what: What,
        ticket: Option<Ticket>,
    ) -> Correlation {
        let subject = Subject::Function(Asked { what, ticket });
        self.commands.push(worker, command, subject)
    }

    /// Whether a leg that this is about is not bound yet on a fresh edge.
    fn is_rebinding(&self, what: What) -> bool {
        let (What::Audio(session, _)
        | What::Play(session, ..)
        | What::Record(session, _)
        | What::Join(session, _)) = what
        else {
            return false;
        };
        let session = self.sessions.get(&session);
        session.is_some_and(|session| {
            let mut legs = LegIndex::ALL.into_iter();
            legs.any(|leg| entry_is_opening(session, leg))
        })
    }

    /// A session that is not closing.
    fn open_entry(&mut self, session: SessionId) -> Option<&mut Session> {
        let entry = self.sessions.get_mut(&session)?;
        (!matches!(entry.state, SessionState::Closing { .. })).then_some(entry)
    }

    fn is_open(&self, session: SessionId) -> bool {
        let entry = self.sessions.get(&session);
        entry.is_some_and(|entry| entry.state == SessionState::Open)
    }

    fn recording_id(&mut self) -> RecordingId {
        let serial = u64::from(self.function_ids.next());
        RecordingId(u64::from(self.epoch.0) << 32 | serial)
    }
}

impl SessionWanted {
    fn is_recording_as(&self, id: RecordingId) -> bool {
        let wanted = self.recording.as_ref();
        wanted.is_some_and(|wanted| wanted.recording.id == id)
    }
}

/// Ids of playbacks, digits and recordings, below 2^31: the edge uses the rest for its own.
#[derive(Debug, Default)]
pub(super) struct FunctionIds(u32);

impl FunctionIds {
    pub(super) fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(1) & (u32::MAX >> 1);
        self.0
    }
}

/// One digit as the string that [`EdgeProxy::send_digits`] takes.
#[must_use]
pub fn single_digit(digit: Digit) -> DigitString {
    DigitString::new(vec![digit]).expect("one digit is not too many")
}

#[cfg(test)]
mod tests;
