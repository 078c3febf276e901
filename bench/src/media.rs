//! What media functions cost: whole sessions in memory, driven as a worker drives them, on one
//! pinned core.
//!
//! ```text
//!   peers' packets -> MediaSession::handle_packet -> handle_tick -> poll_transmit -> (nowhere)
//!                          |-> tap -> RecorderHandle -> recorder's thread
//!                          |-> hear -> Conference::mix -> send_mix
//! ```
//!
//! Sockets, system calls and SRTP are left out of that: it tells what functions cost. How many
//! calls the real edge then carries is found by adding calls until packets stay away.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::{Value, json};
use trunkline_edge::recording::{Recorder, RecorderHandle, RecorderLimits};
use trunkline_edge_api::config::IoChoice;
use trunkline_edge_api::{
    AudioCodec, ConferenceId, FilePath, LegFunctions, LegIndex, Membership, PlaySource,
    PlaySources, Playback, PlaybackId, PlaybackMode, PromptId, Recording, RecordingFormat,
    RecordingId, RecordingTracks, SessionId, Tone, ToneSegment,
};
use trunkline_media::SampleRate;
use trunkline_media::conference::{Announcements, Conference, MEMBERS_MAX};
use trunkline_media::prompt::{Prompt, PromptLimits};
use trunkline_media::session::{PreparedPlayback, SessionCommand};
use trunkline_ring::monotonic_now;
use trunkline_testkit::daemons::Binaries;

use crate::allocation_counter::CountingAllocator;
use crate::relay::pin;
use crate::relay::wire::{GENERATOR_CORE, Wire};
use crate::report::{Machine, Report};

mod call;
mod carried;
mod load;
mod stopwatch;
mod voice;

use call::Call;
use carried::{Climb, End, Ladder, climb};
use load::{Calls, Load, Recorded, Room, Rooms};
use stopwatch::{BATCH_FRAMES, BATCHES, Cost, measure as measure_load};
use voice::{Voice, format, leg_audio};

/// Packets per second and direction.
const FRAMES_PER_SECOND: f64 = 50.0;
/// Members of the conferences.
const MEMBERS: usize = 600;
/// The core of the sessions.
const CORE: usize = 0;
/// Longest wait for the recorder to end.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// How much.
#[derive(Args)]
pub struct MediaArguments {
    /// Sessions that live at once, of each kind
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    sessions: u32,
    /// Only kinds whose name contains this; nothing is written
    #[arg(long)]
    only: Option<String>,
    /// Leave out the real edge, which needs root and two cores
    #[arg(long)]
    in_memory: bool,
}

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
    /// Sessions that one core should carry.
    target: Option<f64>,
}

const fn kind(name: &'static str, doing: Doing, codecs: &'static [AudioCodec]) -> Kind {
    Kind {
        name,
        doing,
        codecs,
        target: None,
    }
}

const fn confer(members: usize, talkers: usize) -> Doing {
    Doing::Confer { members, talkers }
}

const KINDS: [Kind; 22] = [
    kind(RELAY, Doing::Relay, &[Pcmu, Pcmu]),
    kind("PCMU, relayed, audio known", Doing::Talk, &[Pcmu, Pcmu]),
    kind(LAWS, Doing::Talk, &[Pcmu, Pcma]),
    Kind {
        target: Some(500.0),
        ..kind(WIDE, Doing::Talk, &[G722, Pcmu])
    },
    Kind {
        target: Some(250.0),
        ..kind(OPUS, Doing::Talk, &[Opus, Pcmu])
    },
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
    Kind {
        target: Some(600.0),
        ..kind("PCMU member, 3 of 600 speak", confer(600, 3), &[Pcmu])
    },
    Kind {
        target: Some(600.0),
        ..kind("PCMU member, all of 600 speak", confer(600, 600), &[Pcmu])
    },
    Kind {
        target: Some(600.0),
        ..kind(
            "PCMU member, 200 of 3, one each speaks",
            confer(3, 1),
            &[Pcmu],
        )
    },
    kind("G.722 member, 3 of 600 speak", confer(600, 3), &[G722]),
    kind("Opus member, 3 of 600 speak", confer(600, 3), &[Opus]),
    kind(
        "Opus member, 200 of 3, one each speaks",
        confer(3, 1),
        &[Opus],
    ),
];

const fn ladder(
    name: &'static str,
    codecs: [AudioCodec; 2],
    [first, step, last]: [u32; 3],
) -> Ladder {
    Ladder {
        name,
        codecs,
        first,
        step,
        last,
    }
}

/// How calls are added, and how many one core should carry.
const LADDERS: [(Ladder, Option<u32>); 4] = [
    (ladder(RELAY, [Pcmu, Pcmu], [1_000, 200, 3_600]), None),
    (ladder(LAWS, [Pcmu, Pcma], [1_000, 200, 3_600]), None),
    (ladder(WIDE, [G722, Pcmu], [400, 50, 1_200]), Some(500)),
    (ladder(OPUS, [Opus, Pcmu], [120, 20, 400]), Some(250)),
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
        let (source, prompts) = match self.doing {
            Doing::PlayTone => {
                // Ringback of North America; the pause is sent too.
                let segment = ToneSegment {
                    on_millis: 2_000,
                    off_millis: 4_000,
                    frequencies_hz: [440, 480],
                };
                let tone = Tone::new(&[segment], Tone::LEVEL_DBM0).context("a playable tone")?;
                (PlaySource::Tone(tone), Vec::new())
            }
            _ => {
                let prompt = Prompt::parse(&voice::wav(), None, &PromptLimits::default())?;
                let encoded = prompt.encode_for(&format(self.codecs[0]))?;
                (PlaySource::Prompt(PromptId(1)), vec![Arc::new(encoded)])
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

/// Measures, and publishes `bench/results/media.*`. `allocator` is this program's.
pub fn measure(arguments: &MediaArguments, allocator: &CountingAllocator) -> Result<()> {
    // Before this thread is pinned: the recorder is not.
    let machine = Machine::this();
    let (recorder, handles) = Recorder::start(1, &RecorderLimits::default(), IoChoice::Auto)?;
    let mut handle = handles.into_iter().next().context("no worker's handle")?;
    pin(CORE)?;

    let mut report = Report::new(
        "media",
        "Media functions: whole sessions on one core, without sockets",
        &[
            "sessions",
            "ns/frame",
            "best batch",
            "worst batch",
            "allocations/frame",
            "sessions/core by CPU",
            "wanted",
        ],
    );
    report.machine = machine;
    let mut relay_nanos = None;
    for kind in &KINDS {
        let is_wanted = |only: &String| kind.name.contains(only.as_str());
        if !arguments.only.as_ref().is_none_or(is_wanted) {
            continue;
        }
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
        report.rows.push(vec![
            json!(kind.name),
            json!(cost.median_nanos),
            json!(cost.best_nanos),
            json!(cost.worst_nanos),
            json!(cost.allocations),
            json!(per_core.round()),
            kind.target
                .map_or(Value::Null, |target| json!(format!(">= {target}"))),
        ]);
        if let Some(target) = kind.target {
            let name = format!(
                "{}: sessions per core by CPU over the {target} wanted",
                kind.name
            );
            report.ratios.insert(name, per_core / target);
        }
        if kind.name == RELAY {
            relay_nanos = Some(cost.median_nanos);
        }
        if let (LAWS, Some(relay_nanos)) = (kind.name, relay_nanos) {
            report.findings.push(format!(
                "PCMU ↔ PCMA takes {:.0} ns a packet more than relaying; what share of the relay's packets per second that leaves depends on what the kernel takes per packet, which `relay` measures.",
                cost.median_nanos - relay_nanos
            ));
        }
        if let Some(lost) = lost {
            report.findings.push(format!(
                "{sessions} recorded calls at their real pace lost {lost} packets; the recorder's thread ({:?}) took {:.1} µs of another core per call and 20 ms: one core of it for {:.0} calls.",
                recorder.tier(),
                cost.beside_nanos * streams as f64 / 1e3,
                1e9 / (FRAMES_PER_SECOND * streams as f64 * cost.beside_nanos)
            ));
        }
    }
    drop(handle);
    anyhow::ensure!(recorder.stop(STOP_LIMIT), "the recorder does not end");
    report.method = method(arguments);
    if !arguments.in_memory {
        carry(arguments, &mut report)?;
    }
    if arguments.only.is_some() {
        print!("{}", report.to_markdown());
        return Ok(());
    }
    report.publish()
}

/// Calls through the real edge.
fn carry(arguments: &MediaArguments, report: &mut Report) -> Result<()> {
    let binaries = Binaries::find()?;
    let wire = Wire::lay()?;
    pin(GENERATOR_CORE)?;
    let mut climbs: Vec<Climb> = Vec::new();
    for (ladder, target) in &LADDERS {
        let is_wanted = |only: &String| ladder.name.contains(only.as_str());
        if !arguments.only.as_ref().is_none_or(is_wanted) {
            continue;
        }
        eprintln!("the edge: {}", ladder.name);
        let climb = climb(ladder, &binaries, &wire)?;
        let carried = climb.carried();
        let end = match climb.end() {
            End::Lost => "more lost packets",
            End::Refused => {
                "then the worker refused more as past its capacity, having lost nothing to speak of: a lower bound"
            }
            End::NotReached => "more could not be offered: a lower bound",
        };
        report.findings.push(format!(
            "{}: one worker of the real edge carried {carried} calls with at most 0.1 % of their packets lost; {end}.",
            ladder.name
        ));
        if let (Some(target), End::Lost) = (target, climb.end()) {
            let name = format!(
                "{}: calls through the edge over the {target} wanted",
                ladder.name
            );
            let ratio = f64::from(carried) / f64::from(*target);
            report.ratios.insert(name, ratio);
        }
        climbs.push(climb);
    }
    let lost_at = |name| {
        let climb = climbs.iter().find(|climb| climb.name == name)?;
        (climb.end() == End::Lost).then(|| climb.carried())
    };
    if let (Some(laws), Some(relay)) = (lost_at(LAWS), lost_at(RELAY)) {
        let name = format!("{LAWS} over {RELAY}: calls through the edge (0.7 wanted)");
        report
            .ratios
            .insert(name, f64::from(laws) / f64::from(relay));
    }
    report.method.push(
        "Calls through the edge: one worker on io_uring, pinned to a core with all that the kernel does for it, over a veth pair between network namespaces; a generator on the other core sends every leg's 50 packets a second from one socket and counts what the kernel hands to it. Calls are added step by step; each step stands for 1 s before it is looked at for 2 s. One ladder for each pair.".to_owned(),
    );
    report.details = json!({ "calls through the edge": climbs });
    Ok(())
}

fn method(arguments: &MediaArguments) -> Vec<String> {
    vec![
        format!(
            "{} sessions of each kind ({MEMBERS} members of conferences) live at once in one thread on core {CORE}; each peer sends numbered RTP with 20 ms of recorded speech, no two the same at the same time, without loss, SRTP off. Listeners of a conference send encoded silence.",
            arguments.sessions
        ),
        "A frame is one packet of a peer and the one that is sent for it: a call of two legs has 100 a second, a leg that is played to or sits in a conference 50. Timed from `MediaSession::handle_packet` on a packet in memory to the packet that `poll_transmit` or `send_mix` made, with the ticks of 10 ms and the mixing in between; each kind must send as many packets as it gets.".to_owned(),
        "User-space processor time of the functions alone: receiving and sending in the kernel, SRTP, RTCP and the worker's own tables are not in it, so `sessions/core by CPU` is an upper bound, not a number of calls that a machine carries.".to_owned(),
        format!(
            "Processor time of the thread; median, best and worst of {BATCHES} batches of {BATCH_FRAMES} frames of every session. Opus as the edge runs it: complexity 5, towards PCMU at 8 kHz; what Opus peers send was encoded from 48 kHz."
        ),
        "Allocations are counted by a global allocator while frames are handled. Recorded calls run in real time beside the recorder's thread, whose allocations are counted with them.".to_owned(),
    ]
}
