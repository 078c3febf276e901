//! What media functions cost: whole sessions in memory, driven as a worker drives them, on one
//! pinned core.
//!
//! ```text
//!   peers' packets -> MediaSession::handle_packet -> handle_tick -> poll_transmit -> (nowhere)
//!                          |-> tap -> RecorderHandle -> recorder's thread
//!                          |-> hear -> Conference::mix -> send_mix
//! ```
//!
//! Sockets, system calls and SRTP are left out of that: it tells what functions cost.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use trunkline_edge::recording::{Recorder, RecorderHandle, RecorderLimits};
use trunkline_edge_api::config::IoChoice;
use trunkline_edge_api::{
    AudioCodec, ConferenceId, FilePath, LegFunctions, LegIndex, Membership, PlaySource,
    PlaySources, Playback, PlaybackId, PlaybackMode, PromptId, Recording, RecordingFormat,
    RecordingId, RecordingTracks, SessionId, Tone, ToneSegment,
};
use trunkline_media::SampleRate;
use trunkline_media::conference::{Announcements, Conference, MEMBERS_MAX};
use trunkline_media::prompt::{EncodedPrompt, Prompt, PromptLimits};
use trunkline_media::session::{PreparedPlayback, SessionCommand};
use trunkline_ring::monotonic_now;

use super::call::Call;
use super::load::{Calls, Load, Recorded, Room, Rooms};
use super::stopwatch::{BATCH_FRAMES, BATCHES, Cost, measure as measure_load};
use super::{FRAMES_PER_SECOND, MediaArguments};
use crate::allocation_counter::CountingAllocator;
use crate::report::{Report, Table};
use crate::rig::pin;
use crate::rig::voice::{Voice, format, leg_audio, wav};
use crate::rig::wire::RELAY_CORE;

/// Members of the conferences.
const MEMBERS: usize = 600;
/// Longest wait for the recorder to end.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What the sessions of a kind do.
#[derive(Debug, Clone, Copy)]
enum Doing {
    /// Two legs, nothing known of their audio.
    Relay,
    /// Two legs, transcoded where their codecs differ.
    Talk,
    /// The same, where Opus peers send what they encoded from 8 kHz.
    TalkNarrowband,
    /// Two legs; both are listened to for digits in the audio.
    HearDigits,
    /// Two legs; both are tapped, and nobody takes it further.
    Tapped,
    /// Two legs, recorded into one file.
    Recorded,
    /// One leg, which is played a prompt without end.
    PlayPrompt,
    /// One leg, which is played a tone without end.
    PlayTone,
    /// Members of conferences of so many, of whom so many speak.
    Confer { members: usize, talkers: usize },
}

use AudioCodec::{G722, Opus, Pcma, Pcmu};

struct Kind {
    name: &'static str,
    doing: Doing,
    codecs: &'static [AudioCodec],
}

const fn kind(name: &'static str, doing: Doing, codecs: &'static [AudioCodec]) -> Kind {
    Kind {
        name,
        doing,
        codecs,
    }
}

const fn confer(members: usize, talkers: usize) -> Doing {
    Doing::Confer { members, talkers }
}

const KINDS: [Kind; 22] = [
    kind(RELAY, Doing::Relay, &[Pcmu, Pcmu]),
    kind("PCMU, relayed, audio known", Doing::Talk, &[Pcmu, Pcmu]),
    kind(LAWS, Doing::Talk, &[Pcmu, Pcma]),
    kind(WIDE, Doing::Talk, &[G722, Pcmu]),
    kind(OPUS, Doing::Talk, &[Opus, Pcmu]),
    kind(
        "Opus ↔ PCMU, peer sends narrowband",
        Doing::TalkNarrowband,
        &[Opus, Pcmu],
    ),
    kind("Opus ↔ G.722", Doing::Talk, &[Opus, G722]),
    kind("plays a prompt to PCMU", Doing::PlayPrompt, &[Pcmu]),
    kind("plays a prompt to G.722", Doing::PlayPrompt, &[G722]),
    kind("plays a prompt to Opus", Doing::PlayPrompt, &[Opus]),
    kind("plays a tone to PCMU", Doing::PlayTone, &[Pcmu]),
    kind("plays a tone to Opus", Doing::PlayTone, &[Opus]),
    kind("PCMU, relayed and tapped", Doing::Tapped, &[Pcmu, Pcmu]),
    kind(RECORDED, Doing::Recorded, &[Pcmu, Pcmu]),
    kind(
        "PCMU, relayed, in-band digits heard",
        Doing::HearDigits,
        &[Pcmu, Pcmu],
    ),
    kind(
        "G.722, relayed, in-band digits heard",
        Doing::HearDigits,
        &[G722, G722],
    ),
    kind("PCMU member, 3 of 600 speak", confer(600, 3), &[Pcmu]),
    kind("PCMU member, all of 600 speak", confer(600, 600), &[Pcmu]),
    kind(
        "PCMU member, 200 of 3, one each speaks",
        confer(3, 1),
        &[Pcmu],
    ),
    kind("G.722 member, 3 of 600 speak", confer(600, 3), &[G722]),
    kind("Opus member, 3 of 600 speak", confer(600, 3), &[Opus]),
    kind(
        "Opus member, 200 of 3, one each speaks",
        confer(3, 1),
        &[Opus],
    ),
];

const RELAY: &str = "PCMU, relayed";
const LAWS: &str = "PCMU ↔ PCMA";
const WIDE: &str = "G.722 ↔ PCMU";
const OPUS: &str = "Opus ↔ PCMU";
const RECORDED: &str = "PCMU, relayed and recorded";

impl Kind {
    /// Sessions, and packets that come and go for each in 20 ms.
    fn size(&self, arguments: &MediaArguments) -> (usize, usize) {
        match self.doing {
            Doing::Confer { .. } => (MEMBERS, 1),
            _ => (arguments.sessions as usize, self.codecs.len()),
        }
    }

    fn calls(&self, count: usize) -> Result<Vec<Call>> {
        let voices = self
            .codecs
            .iter()
            .map(|codec| {
                let voice = match self.doing {
                    Doing::TalkNarrowband => Voice::at(*codec, SampleRate::Hz8000)?,
                    _ => Voice::new(*codec)?,
                };
                Ok(Arc::new(voice))
            })
            .collect::<Result<Vec<_>>>()?;
        (0..count)
            .map(|number| {
                let mut call = Call::new(&voices, self.codecs, number)?;
                if !matches!(self.doing, Doing::Relay) {
                    for (leg, codec) in LegIndex::ALL.into_iter().zip(self.codecs) {
                        let audio = Some(Box::new(leg_audio(*codec)));
                        call.command(SessionCommand::SetAudio(leg, audio))?;
                    }
                }
                Ok(call)
            })
            .collect()
    }

    /// For every session and leg, what else it is told.
    fn each_leg(
        &self,
        calls: &mut [Call],
        command: impl Fn(LegIndex) -> SessionCommand,
    ) -> Result<()> {
        for call in calls {
            for (leg, _) in LegIndex::ALL.into_iter().zip(self.codecs) {
                call.command(command(leg))?;
            }
        }
        Ok(())
    }

    /// All but recordings.
    fn load(&self, count: usize) -> Result<Box<dyn Load>> {
        let mut calls = self.calls(count)?;
        match self.doing {
            Doing::Relay | Doing::Talk | Doing::TalkNarrowband | Doing::Recorded => {}
            Doing::HearDigits => {
                let functions = LegFunctions {
                    detects_tones: true,
                    ..LegFunctions::default()
                };
                self.each_leg(&mut calls, |leg| {
                    SessionCommand::SetFunctions(leg, functions)
                })?;
            }
            Doing::Tapped => {
                self.each_leg(&mut calls, |leg| SessionCommand::SetTapped(leg, true))?;
            }
            Doing::PlayPrompt | Doing::PlayTone => {
                let prepared = self.playback()?;
                self.each_leg(&mut calls, |leg| {
                    SessionCommand::Play(leg, prepared.clone())
                })?;
            }
            Doing::Confer { members, talkers } => {
                return Ok(Box::new(self.rooms(calls, members, talkers)?));
            }
        }
        Ok(Box::new(Calls::new(calls)))
    }

    fn playback(&self) -> Result<PreparedPlayback> {
        let (source, prompts, tones) = match self.doing {
            Doing::PlayTone => {
                // Ringback of North America; the pause is sent too.
                let segment = ToneSegment {
                    on_millis: 2_000,
                    off_millis: 4_000,
                    frequencies_hz: [440, 480],
                };
                let tone = Tone::new(&[segment], Tone::LEVEL_DBM0).context("a playable tone")?;
                let payloads = EncodedPrompt::of_tone(&tone, &format(self.codecs[0]))?;
                let tones = vec![(tone, Arc::new(payloads))];
                (PlaySource::Tone(tone), Vec::new(), tones)
            }
            _ => {
                let prompt = Prompt::parse(&wav(), None, &PromptLimits::default())?;
                let encoded = prompt.encode_for(&format(self.codecs[0]))?;
                let prompts = vec![Arc::new(encoded)];
                (PlaySource::Prompt(PromptId(1)), prompts, Vec::new())
            }
        };
        Ok(PreparedPlayback {
            playback: Playback {
                id: PlaybackId(1),
                sources: PlaySources::new(vec![source]).context("one source")?,
                rounds: 0,
                ends_on_digit: false,
                mode: PlaybackMode::Replace,
            },
            prompts,
            tones,
        })
    }

    fn rooms(&self, mut calls: Vec<Call>, members: usize, talkers: usize) -> Result<Rooms> {
        let tones = Arc::new(Announcements::default());
        let membership = Membership {
            conference: ConferenceId(1),
            muted: false,
            deaf: false,
            whispers_to: None,
        };
        self.each_leg(&mut calls, |leg| SessionCommand::SetSeated(leg, true))?;
        let mut rooms: Vec<Room> = Vec::new();
        for (number, mut call) in calls.into_iter().enumerate() {
            if number % members >= talkers {
                call.silence_peers();
            }
            if number % members == 0 {
                rooms.push(Room {
                    conference: Conference::new(MEMBERS_MAX, Arc::clone(&tones)),
                    members: Vec::new(),
                });
            }
            let room = rooms.last_mut().context("the first made one")?;
            let format = call.session.seat_format(LegIndex::A);
            let key = (SessionId(number as u64), LegIndex::A);
            let slot = room
                .conference
                .join(key, &format.context("not seated")?, &membership)
                .ok()
                .context("the conference takes nobody more")?;
            room.members.push((call, slot));
        }
        Rooms::new(rooms)
    }

    /// Measured recordings, and how many packets they lost.
    fn recorded(
        &self,
        count: usize,
        recorder: &mut RecorderHandle,
        allocator: &CountingAllocator,
    ) -> Result<(Cost, u64)> {
        let directory = tempfile::tempdir()?;
        let mut calls = self.calls(count)?;
        self.each_leg(&mut calls, |leg| SessionCommand::SetTapped(leg, true))?;
        let calls = calls
            .into_iter()
            .enumerate()
            .map(|(number, call)| {
                let path = directory.path().join(format!("{number}.wav"));
                let recording = Recording {
                    id: RecordingId(number as u64),
                    path: path
                        .to_str()
                        .and_then(FilePath::new)
                        .context("a plain path")?,
                    format: RecordingFormat::Wav8k,
                    tracks: RecordingTracks::Mixed,
                    paused: false,
                };
                let slot = recorder.start(&recording, monotonic_now())?;
                Ok((call, slot))
            })
            .collect::<Result<_>>()?;
        let mut load = Recorded::new(calls, recorder);
        let cost = measure_load(&mut load, count * self.codecs.len(), allocator)?;
        Ok((cost, load.finish()?))
    }
}

/// Measures all kinds, or those whose name is asked for. `allocator` is this program's.
pub(super) fn measure(
    arguments: &MediaArguments,
    allocator: &CountingAllocator,
    report: &mut Report,
) -> Result<()> {
    // Before this thread is pinned: the recorder is not.
    let (recorder, handles) = Recorder::start(1, &RecorderLimits::default(), IoChoice::Auto)?;
    let mut handle = handles.into_iter().next().context("no worker's handle")?;
    pin(RELAY_CORE)?;
    let mut table = Table::new(
        "Whole sessions in memory, without sockets",
        &[
            "sessions",
            "ns/frame",
            "best batch",
            "worst batch",
            "allocations/frame",
            "sessions/core without the kernel",
        ],
    );
    for kind in KINDS.iter().filter(|kind| arguments.wants(kind.name)) {
        eprintln!("{}", kind.name);
        let (sessions, streams) = kind.size(arguments);
        let (cost, lost) = match kind.doing {
            Doing::Recorded => {
                let (cost, lost) = kind.recorded(sessions, &mut handle, allocator)?;
                (cost, Some(lost))
            }
            _ => {
                let mut load = kind.load(sessions)?;
                let cost = measure_load(load.as_mut(), sessions * streams, allocator);
                (cost.with_context(|| kind.name.to_owned())?, None)
            }
        };
        let per_core = 1e9 / (FRAMES_PER_SECOND * streams as f64 * cost.median_nanos);
        table.rows.push(vec![
            json!(kind.name),
            json!(cost.median_nanos),
            json!(cost.best_nanos),
            json!(cost.worst_nanos),
            json!(cost.allocations),
            json!(per_core.round()),
        ]);
        if let Some(lost) = lost {
            report.findings.push(format!(
                "{sessions} recorded calls in memory at their real pace lost {lost} packets; the recorder's thread ({:?}) took {:.1} µs of another core per call and 20 ms: one core of it for {:.0} calls.",
                recorder.tier(),
                cost.beside_nanos * streams as f64 / 1e3,
                1e9 / (FRAMES_PER_SECOND * streams as f64 * cost.beside_nanos)
            ));
        }
    }
    drop(handle);
    ensure!(recorder.stop(STOP_LIMIT), "the recorder does not end");
    report.further.push(table);
    report.method.extend([
        format!(
            "In memory: {} sessions of each kind ({MEMBERS} members of conferences) live at once in one thread on core {RELAY_CORE}; each peer sends numbered RTP with 20 ms of recorded speech, no two the same at the same time, without loss, SRTP off. Listeners of a conference send encoded silence.",
            arguments.sessions
        ),
        "In memory a frame is one packet of a peer and the one that is sent for it: a call of two legs has 100 a second, a leg that is played to or sits in a conference 50. Timed from `MediaSession::handle_packet` on a packet in memory to the packet that `poll_transmit` or `send_mix` made, with the ticks of 10 ms and the mixing in between; each kind must send as many packets as it gets. User-space processor time of the functions alone.".to_owned(),
        format!(
            "In memory: processor time of the thread; median, best and worst of {BATCHES} batches of {BATCH_FRAMES} frames of every session. Allocations are counted by a global allocator while frames are handled. Recorded calls run in real time beside the recorder's thread, whose allocations are counted with them."
        ),
    ]);
    Ok(())
}
