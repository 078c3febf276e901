//! Files that the edge has read for play.
//!
//! One id stands for one file as it was when it was loaded. A file that nothing has played for
//! [`KEEP_SECS`] is unloaded, so that a changed one is read again before long and memory is not
//! held for what nobody hears.

use std::collections::{HashMap, HashSet};

use trunkline_edge_api::{
    AudioCodec, Command, Epoch, FilePath, MonoTime, PlaySource, PromptId, RawAudio,
};

use super::What;
use crate::edge::proxy::EdgeProxy;

/// How long a file stays loaded that nothing plays, seconds.
const KEEP_SECS: u64 = 60;

/// A file to play, and how to read it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PromptFile {
    path: FilePath,
    raw: Option<(AudioCodec, u32)>,
}

impl PromptFile {
    /// By the name's ending: `.ulaw` and `.alaw` at 8 kHz, `.g722` at 16 kHz, `.sln` (or `.raw`)
    /// and `.sln16` as 16-bit samples at 8 and 16 kHz; everything else is WAV.
    #[must_use]
    pub fn new(path: FilePath) -> Self {
        let ending = path.as_str().rsplit_once('.').map(|(_, ending)| ending);
        let raw = match ending.map(str::to_ascii_lowercase).as_deref() {
            Some("ulaw") => Some((AudioCodec::Pcmu, 8_000)),
            Some("alaw") => Some((AudioCodec::Pcma, 8_000)),
            Some("g722") => Some((AudioCodec::G722, 16_000)),
            Some("sln" | "raw") => Some((AudioCodec::L16, 8_000)),
            Some("sln16") => Some((AudioCodec::L16, 16_000)),
            _ => None,
        };
        Self { path, raw }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No edge knows it.
    Unsaid,
    Loading,
    Loaded,
}

#[derive(Debug)]
struct Entry {
    file: PromptFile,
    state: State,
    used_at: MonoTime,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(in crate::edge::proxy) struct Prompts {
    by_file: HashMap<PromptFile, PromptId>,
    entries: HashMap<PromptId, Entry>,
    serial: u32,
    sweep_at: Option<MonoTime>,
}

impl Prompts {
    /// The id of a file from now on.
    pub(super) fn use_file(&mut self, now: MonoTime, epoch: Epoch, file: PromptFile) -> PromptId {
        self.sweep_at.get_or_insert(now.plus_secs(KEEP_SECS));
        if let Some(&id) = self.by_file.get(&file)
            && let Some(entry) = self.entries.get_mut(&id)
        {
            entry.used_at = now;
            return id;
        }
        self.serial += 1;
        let id = PromptId(u64::from(epoch.0) << 32 | u64::from(self.serial));
        self.by_file.insert(file.clone(), id);
        let entry = Entry {
            file,
            state: State::Unsaid,
            used_at: now,
        };
        self.entries.insert(id, entry);
        id
    }

    pub(super) fn is_loaded(&self, id: PromptId) -> bool {
        let entry = self.entries.get(&id);
        entry.is_some_and(|entry| entry.state == State::Loaded)
    }

    /// The command that loads it; `None` when it is on its way.
    pub(super) fn load(&mut self, id: PromptId) -> Option<Command> {
        let entry = self.entries.get_mut(&id)?;
        if entry.state != State::Unsaid {
            return None;
        }
        entry.state = State::Loading;
        Some(Command::LoadPrompt {
            prompt: id,
            path: entry.file.path.clone(),
            raw: entry.file.raw.map(|(codec, sample_rate_hz)| RawAudio {
                codec,
                sample_rate_hz,
            }),
        })
    }

    pub(super) fn answered(&mut self, id: PromptId, is_loaded: bool) {
        if is_loaded {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.state = State::Loaded;
            }
        } else if let Some(entry) = self.entries.remove(&id) {
            // The next one who asks for the file may find it mended.
            self.by_file.remove(&entry.file);
        }
    }

    /// The answers that were awaited are lost, or the process is gone that had the files.
    pub(in crate::edge::proxy) fn unloaded(&mut self) {
        for entry in self.entries.values_mut() {
            entry.state = State::Unsaid;
        }
    }

    pub(in crate::edge::proxy) fn poll_timeout(&self) -> Option<MonoTime> {
        self.sweep_at
    }
}

impl EdgeProxy {
    /// Unloads what nothing has played for a while.
    pub(in crate::edge::proxy) fn sweep_prompts(&mut self, now: MonoTime) {
        if self.prompts.sweep_at.is_none_or(|at| at > now) {
            return;
        }
        let wanted = self
            .sessions
            .values()
            .flat_map(|session| &session.wanted.legs);
        let playbacks = wanted.filter_map(|leg| leg.playback.as_ref());
        let sources = playbacks.flat_map(|wanted| wanted.playback.sources.as_slice());
        let in_use: HashSet<PromptId> = sources
            .filter_map(|source| match source {
                PlaySource::Prompt(prompt) => Some(*prompt),
                _ => None,
            })
            .collect();
        let is_idle = |id: &PromptId, entry: &mut Entry| {
            !in_use.contains(id) && entry.used_at.plus_secs(KEEP_SECS) <= now
        };
        let prompts = &mut self.prompts;
        let idle: Vec<(PromptId, Entry)> = prompts.entries.extract_if(is_idle).collect();
        prompts.sweep_at = (!prompts.entries.is_empty()).then(|| now.plus_secs(KEEP_SECS));
        for (prompt, entry) in idle {
            self.prompts.by_file.remove(&entry.file);
            if entry.state != State::Unsaid {
                self.ask(0, Command::UnloadPrompt { prompt }, What::Change, None);
            }
        }
    }
}
