//! Prompts: a helper thread that reads files and encodes them, so that no worker does.
//!
//! A worker asks through its [`PromptHandle`] and finds the answer there some milliseconds later;
//! it never waits. What is loaded is known to every worker before the one that asked is told, so
//! that control may play it anywhere as soon as its command is done. Payloads are made when a leg
//! first needs them, once for each format, and shared; those of tones as well, which nobody loads.
//!
//! Files are read whole and never mapped: one that is truncated while it is played must not end
//! the process. Memory is given back by the helper thread, too: freeing megabytes takes a packet
//! thread longer than it has.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use tracing::{info, warn};
use trunkline_edge_api::{AudioFormat, Correlation, FilePath, PromptId, RawAudio, Refusal, Tone};
use trunkline_media::prompt::{EncodedPrompt, Prompt, PromptFormat, PromptLimits};

mod tones;

use tones::{Fetched, KnownTones, ToneKey, ToneShelf};

/// Requests of all workers that wait for the helper.
const REQUESTS_MAX: usize = 1_024;

/// News that wait for one worker. It looks once in each duty cycle.
const NEWS_MAX: usize = 1_024;

/// The helper looks for memory to give back this often.
const LOOK_ROUND: Duration = Duration::from_millis(500);

/// What prompts may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromptSettings {
    /// Of one prompt.
    pub limits: PromptLimits,
    /// Longest file that is read, bytes.
    pub file_bytes_max: u64,
    /// All prompts together, samples and payloads, bytes.
    pub bytes_max: u64,
    /// Prompts at once.
    pub prompts_max: usize,
}

impl Default for PromptSettings {
    /// Files of up to half an hour of 16-bit stereo at 48 kHz, and 512 MB for all prompts.
    fn default() -> Self {
        Self {
            limits: PromptLimits::default(),
            file_bytes_max: 384 << 20,
            bytes_max: 512 << 20,
            prompts_max: 10_000,
        }
    }
}

/// Figures of the prompts.
#[derive(Debug, Default)]
pub struct PromptCounters {
    /// Files read and accepted.
    pub loaded: AtomicU64,
    /// Requests that were refused.
    pub refused: AtomicU64,
    /// Times that a prompt or a tone was encoded.
    pub encoded: AtomicU64,
    /// Prompts that are loaded.
    pub prompts: AtomicU64,
    /// Memory in use, bytes; what is unloaded and still played is part of it.
    pub bytes: AtomicU64,
}

/// The helper thread. Ends when all its handles are gone.
#[derive(Debug)]
pub struct PromptLoader {
    thread: JoinHandle<()>,
    counters: Arc<PromptCounters>,
}

impl PromptLoader {
    /// Starts the helper, and makes a handle for each of `workers` workers.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn start(workers: u16, settings: PromptSettings) -> io::Result<(Self, Vec<PromptHandle>)> {
        let counters = Arc::new(PromptCounters::default());
        let (requests, inbox) = bounded(REQUESTS_MAX);
        let (outboxes, handles) = (0..workers)
            .map(|worker| {
                let (outbox, news) = bounded(NEWS_MAX);
                (outbox, PromptHandle::new(worker, requests.clone(), news))
            })
            .unzip();
        let library = Library {
            settings,
            outboxes,
            entries: HashMap::new(),
            retired: Vec::new(),
            tones: ToneShelf::default(),
            counters: Arc::clone(&counters),
        };
        let thread = Builder::new()
            .name("prompts".to_owned())
            .spawn(move || library.run(&inbox))?;
        Ok((Self { thread, counters }, handles))
    }

    /// Its figures; may be kept and read on any thread.
    #[must_use]
    pub fn counters(&self) -> &Arc<PromptCounters> {
        &self.counters
    }

    /// Whether its thread lives.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }
}

#[derive(Debug)]
struct Request {
    worker: u16,
    what: Wanted,
}

#[derive(Debug)]
enum Wanted {
    Load {
        correlation: Correlation,
        prompt: PromptId,
        path: FilePath,
        raw: Option<RawAudio>,
    },
    Unload {
        correlation: Correlation,
        prompt: PromptId,
    },
    Encode {
        prompt: PromptId,
        format: AudioFormat,
    },
    EncodeTone {
        tone: Tone,
        format: AudioFormat,
    },
}

#[derive(Debug)]
enum News {
    Loaded(PromptId, Arc<Prompt>),
    Unloaded(PromptId),
    Encoded(PromptId, PromptFormat, Result<Arc<EncodedPrompt>, Refusal>),
    ToneEncoded(ToneKey, Result<Arc<EncodedPrompt>, Refusal>),
    TonesForgotten,
    Answer(Correlation, Result<(), Refusal>),
}

/// The answer to a [`PromptHandle::load`] or [`PromptHandle::unload`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromptAnswer {
    /// As it was asked.
    pub correlation: Correlation,
    /// `Ok`: every worker can play it, or has forgotten it.
    pub result: Result<(), Refusal>,
}

/// What became of the payloads of a prompt.
#[derive(Debug, Clone)]
pub enum Payloads {
    /// Here they are.
    Ready(Arc<EncodedPrompt>),
    /// They are being made; ask again in the next duty cycle.
    Pending,
    /// They cannot be had.
    Refused(Refusal),
}

impl From<Result<Arc<EncodedPrompt>, Refusal>> for Payloads {
    fn from(result: Result<Arc<EncodedPrompt>, Refusal>) -> Self {
        match result {
            Ok(encoded) => Self::Ready(encoded),
            Err(refusal) => Self::Refused(refusal),
        }
    }
}

/// A worker's end of the prompts. No call waits.
#[derive(Debug)]
pub struct PromptHandle {
    worker: u16,
    requests: Sender<Request>,
    news: Receiver<News>,
    known: HashMap<PromptId, Known>,
    tones: KnownTones,
    /// Answers that were met while something else was looked for.
    answers: Vec<PromptAnswer>,
}

#[derive(Debug)]
struct Known {
    prompt: Arc<Prompt>,
    /// Few: one for each format of the worker's legs.
    encoded: Vec<(PromptFormat, Payloads)>,
}

impl PromptHandle {
    fn new(worker: u16, requests: Sender<Request>, news: Receiver<News>) -> Self {
        Self {
            worker,
            requests,
            news,
            known: HashMap::new(),
            tones: KnownTones::default(),
            answers: Vec::new(),
        }
    }

    /// Asks for a file to be loaded; [`Self::poll_answer`] tells under `correlation` when it is.
    ///
    /// # Errors
    /// [`Refusal::WorkerBusy`] when too many requests wait.
    pub fn load(
        &mut self,
        correlation: Correlation,
        prompt: PromptId,
        path: &FilePath,
        raw: Option<RawAudio>,
    ) -> Result<(), Refusal> {
        let path = path.clone();
        self.ask(Wanted::Load {
            correlation,
            prompt,
            path,
            raw,
        })
    }

    /// Asks for a prompt to be forgotten. Whoever holds its payloads plays on.
    ///
    /// # Errors
    /// [`Refusal::WorkerBusy`] when too many requests wait.
    pub fn unload(&mut self, correlation: Correlation, prompt: PromptId) -> Result<(), Refusal> {
        self.ask(Wanted::Unload {
            correlation,
            prompt,
        })
    }

    /// The samples of a prompt, for a mix; `None` when it is not loaded.
    pub fn samples(&mut self, prompt: PromptId) -> Option<Arc<Prompt>> {
        if !self.known.contains_key(&prompt) {
            self.read_news();
        }
        let known = self.known.get(&prompt)?;
        Some(Arc::clone(&known.prompt))
    }

    /// The payloads of a prompt for a leg that is sent `format`.
    pub fn payloads(&mut self, prompt: PromptId, format: &AudioFormat) -> Payloads {
        self.read_news();
        let Some(known) = self.known.get_mut(&prompt) else {
            return Payloads::Refused(Refusal::NoSuchPrompt);
        };
        let wanted = PromptFormat::of(format);
        if let Some(at) = known.encoded.iter().position(|(of, _)| *of == wanted) {
            // A refusal is told once: memory may be free when the prompt is played again.
            return match &known.encoded[at].1 {
                Payloads::Refused(_) => known.encoded.swap_remove(at).1,
                payloads => payloads.clone(),
            };
        }
        let request = Wanted::Encode {
            prompt,
            format: *format,
        };
        // A full queue is asked again in the next cycle.
        if self.ask(request).is_ok()
            && let Some(known) = self.known.get_mut(&prompt)
        {
            known.encoded.push((wanted, Payloads::Pending));
        }
        Payloads::Pending
    }

    /// The payloads of one pass of a tone for a leg that is sent `format`. Refused: each leg makes
    /// its own.
    pub fn tone_payloads(&mut self, tone: &Tone, format: &AudioFormat) -> Payloads {
        self.read_news();
        if !tones::is_kept(tone, format) {
            return Payloads::Refused(Refusal::PromptTooLong);
        }
        let key = ToneKey {
            tone: *tone,
            format: PromptFormat::of(format),
        };
        if let Some(payloads) = self.tones.look_up(&key) {
            return payloads;
        }
        let request = Wanted::EncodeTone {
            tone: *tone,
            format: *format,
        };
        if self.ask(request).is_ok() {
            self.tones.set(key, Payloads::Pending);
        }
        Payloads::Pending
    }

    /// The next answer. Once in each duty cycle, until `None`.
    pub fn poll_answer(&mut self) -> Option<PromptAnswer> {
        self.read_news();
        self.answers.pop()
    }

    fn ask(&self, what: Wanted) -> Result<(), Refusal> {
        let request = Request {
            worker: self.worker,
            what,
        };
        self.requests
            .try_send(request)
            .map_err(|error| match error {
                TrySendError::Full(_) | TrySendError::Disconnected(_) => Refusal::WorkerBusy,
            })
    }

    fn read_news(&mut self) {
        while let Ok(news) = self.news.try_recv() {
            match news {
                News::Loaded(id, prompt) => {
                    let encoded = Vec::new();
                    self.known.insert(id, Known { prompt, encoded });
                }
                News::Unloaded(id) => {
                    self.known.remove(&id);
                }
                News::Encoded(id, format, result) => {
                    if let Some(known) = self.known.get_mut(&id) {
                        known.encoded.retain(|(of, _)| *of != format);
                        known.encoded.push((format, result.into()));
                    }
                }
                News::ToneEncoded(key, result) => self.tones.set(key, result.into()),
                News::TonesForgotten => self.tones.forget(),
                News::Answer(correlation, result) => self.answers.push(PromptAnswer {
                    correlation,
                    result,
                }),
            }
        }
    }
}

/// What the helper keeps.
struct Library {
    settings: PromptSettings,
    /// By worker.
    outboxes: Vec<Sender<News>>,
    entries: HashMap<PromptId, Entry>,
    /// Unloaded, and perhaps played still.
    retired: Vec<Entry>,
    tones: ToneShelf,
    counters: Arc<PromptCounters>,
}

struct Entry {
    prompt: Arc<Prompt>,
    encoded: Vec<Arc<EncodedPrompt>>,
}

impl Entry {
    fn memory_bytes(&self) -> u64 {
        let encoded: u64 = self
            .encoded
            .iter()
            .map(|encoded| encoded.memory_bytes())
            .sum();
        self.prompt.memory_bytes() + encoded
    }

    /// Whether nobody but the helper holds it.
    fn is_unused(&self) -> bool {
        Arc::strong_count(&self.prompt) == 1
            && self
                .encoded
                .iter()
                .all(|encoded| Arc::strong_count(encoded) == 1)
    }
}

impl Library {
    fn run(mut self, inbox: &Receiver<Request>) {
        loop {
            match inbox.recv_timeout(LOOK_ROUND) {
                Ok(request) => self.handle(request),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.retired.retain(|entry| !entry.is_unused());
            self.tones.tidy();
            self.publish();
        }
    }

    fn handle(&mut self, request: Request) {
        let Request { worker, what } = request;
        match what {
            Wanted::Load {
                correlation,
                prompt,
                path,
                raw,
            } => {
                let result = self.load(prompt, &path, raw);
                self.count_refusal(&result);
                self.publish();
                self.tell(worker, News::Answer(correlation, result));
            }
            Wanted::Unload {
                correlation,
                prompt,
            } => {
                if let Some(entry) = self.entries.remove(&prompt) {
                    self.tell_all(|| News::Unloaded(prompt));
                    self.retired.push(entry);
                }
                self.tell(worker, News::Answer(correlation, Ok(())));
            }
            Wanted::Encode { prompt, format } => {
                let result = self.encode(prompt, &format);
                self.count_refusal(&result);
                let format = PromptFormat::of(&format);
                self.tell(worker, News::Encoded(prompt, format, result));
            }
            Wanted::EncodeTone { tone, format } => {
                let result = self.encode_tone(&tone, &format);
                self.count_refusal(&result);
                let format = PromptFormat::of(&format);
                self.tell(worker, News::ToneEncoded(ToneKey { tone, format }, result));
            }
        }
    }

    fn count_refusal<T>(&self, result: &Result<T, Refusal>) {
        if result.is_err() {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn load(
        &mut self,
        id: PromptId,
        path: &FilePath,
        raw: Option<RawAudio>,
    ) -> Result<(), Refusal> {
        if self.entries.contains_key(&id) {
            return Ok(());
        }
        if self.entries.len() >= self.settings.prompts_max {
            return Err(Refusal::PromptCacheFull);
        }
        let path = path.as_str();
        let file = read_whole(path, self.settings.file_bytes_max).map_err(|error| {
            warn!(path, "a prompt cannot be read: {error}");
            match error.kind() {
                io::ErrorKind::FileTooLarge => Refusal::PromptTooLong,
                _ => Refusal::PromptUnreadable,
            }
        })?;
        let prompt = Prompt::parse(&file, raw, &self.settings.limits).map_err(|error| {
            warn!(path, "a prompt cannot be played: {error}");
            error.refusal()
        })?;
        if self.memory_bytes() + prompt.memory_bytes() > self.settings.bytes_max {
            warn!(path, "no memory is left for the prompt");
            return Err(Refusal::PromptCacheFull);
        }
        info!(path, millis = prompt.duration_millis(), "prompt loaded");
        let prompt = Arc::new(prompt);
        self.tell_all(|| News::Loaded(id, Arc::clone(&prompt)));
        let encoded = Vec::new();
        self.entries.insert(id, Entry { prompt, encoded });
        self.counters.loaded.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn encode(
        &mut self,
        id: PromptId,
        format: &AudioFormat,
    ) -> Result<Arc<EncodedPrompt>, Refusal> {
        let in_use = self.memory_bytes();
        let entry = self.entries.get_mut(&id).ok_or(Refusal::NoSuchPrompt)?;
        let wanted = PromptFormat::of(format);
        if let Some(encoded) = entry
            .encoded
            .iter()
            .find(|encoded| encoded.format() == wanted)
        {
            return Ok(Arc::clone(encoded));
        }
        let encoded = entry.prompt.encode_for(format).map_err(|error| {
            warn!(prompt = id.0, "{error}");
            Refusal::FormatUnsupported
        })?;
        if in_use + encoded.memory_bytes() > self.settings.bytes_max {
            warn!(prompt = id.0, "no memory is left for the prompt's payloads");
            return Err(Refusal::PromptCacheFull);
        }
        let encoded = Arc::new(encoded);
        entry.encoded.push(Arc::clone(&encoded));
        self.counters.encoded.fetch_add(1, Ordering::Relaxed);
        Ok(encoded)
    }

    fn encode_tone(
        &mut self,
        tone: &Tone,
        format: &AudioFormat,
    ) -> Result<Arc<EncodedPrompt>, Refusal> {
        let room_bytes = self.settings.bytes_max.saturating_sub(self.memory_bytes());
        let Fetched {
            payloads,
            is_new,
            was_emptied,
        } = self.tones.fetch(tone, format, room_bytes)?;
        if was_emptied {
            self.tell_all(|| News::TonesForgotten);
        }
        self.counters
            .encoded
            .fetch_add(u64::from(is_new), Ordering::Relaxed);
        Ok(payloads)
    }

    fn memory_bytes(&self) -> u64 {
        let entries = self.entries.values().chain(&self.retired);
        entries.map(Entry::memory_bytes).sum::<u64>() + self.tones.memory_bytes()
    }

    fn publish(&self) {
        let counters = &self.counters;
        counters
            .prompts
            .store(self.entries.len() as u64, Ordering::Relaxed);
        counters.bytes.store(self.memory_bytes(), Ordering::Relaxed);
    }

    fn tell_all(&self, news: impl Fn() -> News) {
        for outbox in &self.outboxes {
            // Waits for a worker that is behind; one that is gone has dropped its end.
            let _ = outbox.send(news());
        }
    }

    fn tell(&self, worker: u16, news: News) {
        if let Some(outbox) = self.outboxes.get(usize::from(worker)) {
            let _ = outbox.send(news);
        }
    }
}

/// Reads a regular file of at most `bytes_max` bytes.
fn read_whole(path: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
    // Opening a FIFO would wait for its other end.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    if metadata.len() > bytes_max {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    // It may grow meanwhile.
    file.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
