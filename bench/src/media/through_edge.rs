//! What one worker of the real edge carries, beside rtpengine where it does the same.

use std::cell::Cell;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::{Value, json};
use trunkline_edge_api::{
    AudioCodec, Command, ConferenceId, FilePath, LegIndex, Membership, PlaySource, PlaySources,
    Playback, PlaybackId, PlaybackMode, PromptId, Recording, RecordingFormat, RecordingId,
    RecordingTracks, SessionId,
};
use trunkline_media::SampleRate;
use trunkline_testkit::daemons::Binaries;

use super::carried::{Carried, End, Search, WARM_UP};
use super::{MediaArguments, digits};
use crate::report::Report;
use crate::rig::edge::{EdgeUnderTest, LegSetup};
use crate::rig::peer::{CallMedia, MediaLeg, Relay};
use crate::rig::rtpengine::Rtpengine;
use crate::rig::voice::{Voice, wav};
use crate::rig::window::Rig;
use crate::rig::wire::{GENERATOR_CORE, RELAY_CORE, Wire};

use AudioCodec::{G722, Opus, Pcma, Pcmu};

/// Of the report's first table.
pub(super) const COLUMNS: [&str; 10] = [
    "sessions",
    "by",
    "carried",
    "wanted",
    "packets/s",
    "peak packets/s",
    "core busy %",
    "sessions/core by CPU",
    "core µs/session and 20 ms",
    "of it the process's",
];

const RELAY: &str = "PCMU, relayed";
const LAWS: &str = "PCMU ↔ PCMA";
const WIDE: &str = "G.722 ↔ PCMU";
const OPUS: &str = "Opus ↔ PCMU";
const RECORDED: &str = "PCMU, relayed and recorded";

/// A generator that was kept from its core makes up for this much: every call's packet counts, and
/// a relay's socket holds more.
const CATCH_UP_MAX: Duration = Duration::from_millis(10);

/// Sessions of one leg: the edge's ports allow twice as many.
const SINGLE_LEGS_MAX: u32 = 5_000;
/// Calls, four ports each.
const CALLS_MAX: u32 = 4_000;
/// The edge has at most so many conferences at once.
const CONFERENCES_MAX: u32 = 1_000;
const PROMPT: PromptId = PromptId(1);

/// What sessions do.
#[derive(Debug, Clone, Copy)]
enum Doing {
    /// Two legs, transcoded where their codecs differ.
    Talk([AudioCodec; 2]),
    /// Two legs that are relayed and recorded into one file.
    Record(AudioCodec),
    /// One leg, which is played a prompt without end.
    Play(AudioCodec),
    /// Members of conferences of so many, one of whom speaks.
    Confer { codec: AudioCodec, members: u32 },
}

struct Kind {
    name: &'static str,
    doing: Doing,
    /// What Opus peers encode from: 48 kHz as browsers do, or 8 kHz when they are asked to.
    opus_rate: SampleRate,
    /// Guesses where to begin: ours and the peer's.
    first: [u32; 2],
    /// Sessions that one core should carry.
    wanted: Option<u32>,
}

const fn kind(name: &'static str, doing: Doing, first: [u32; 2]) -> Kind {
    Kind {
        name,
        doing,
        opus_rate: SampleRate::Hz48000,
        first,
        wanted: None,
    }
}

const KINDS: [Kind; 11] = [
    kind(RELAY, Doing::Talk([Pcmu, Pcmu]), [1_700, 840]),
    kind(LAWS, Doing::Talk([Pcmu, Pcma]), [1_420, 340]),
    Kind {
        wanted: Some(500),
        ..kind(WIDE, Doing::Talk([G722, Pcmu]), [400, 195])
    },
    Kind {
        wanted: Some(250),
        ..kind(OPUS, Doing::Talk([Opus, Pcmu]), [148, 37])
    },
    Kind {
        opus_rate: SampleRate::Hz8000,
        ..kind(
            "Opus ↔ PCMU, peer sends narrowband",
            Doing::Talk([Opus, Pcmu]),
            [190, 37],
        )
    },
    kind("Opus ↔ G.722", Doing::Talk([Opus, G722]), [91, 28]),
    kind(RECORDED, Doing::Record(Pcmu), [1_020, 0]),
    kind("plays a prompt to PCMU", Doing::Play(Pcmu), [1_920, 0]),
    kind("plays a prompt to Opus", Doing::Play(Opus), [1_920, 0]),
    Kind {
        wanted: Some(600),
        ..kind(
            "PCMU members, conferences of 3",
            Doing::Confer {
                codec: Pcmu,
                members: 3,
            },
            [1_920, 0],
        )
    },
    Kind {
        wanted: Some(600),
        ..kind(
            "PCMU members, conferences of 600",
            Doing::Confer {
                codec: Pcmu,
                members: 600,
            },
            [1_920, 0],
        )
    },
];

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum Candidate {
    Trunkline,
    Rtpengine,
}

impl Candidate {
    const ALL: [Self; 2] = [Self::Trunkline, Self::Rtpengine];

    const fn name(self) -> &'static str {
        match self {
            Self::Trunkline => "trunkline io_uring",
            Self::Rtpengine => "rtpengine",
        }
    }
}

/// One search and whose it was.
#[derive(Serialize)]
struct Found {
    name: &'static str,
    by: Candidate,
    #[serde(flatten)]
    carried: Carried,
}

/// Measures all kinds, or those whose name is asked for.
pub(super) fn measure(
    arguments: &MediaArguments,
    length: Duration,
    report: &mut Report,
) -> Result<()> {
    let peer_version = Rtpengine::version()?;
    let binaries = Binaries::find()?;
    let directory = tempfile::tempdir()?;
    let mut rig = Rig::set_up(length, CATCH_UP_MAX)?;
    rig.generator
        .coalesce(Duration::from_micros(arguments.coalesce_us));
    let mut found: Vec<Found> = Vec::new();
    for kind in KINDS.iter().filter(|kind| arguments.wants(kind.name)) {
        let bench = Bench {
            kind,
            binaries: &binaries,
            directory: directory.path(),
            round: Cell::new(0),
        };
        for (by, first) in Candidate::ALL.into_iter().zip(kind.first) {
            if first == 0 {
                continue;
            }
            eprintln!("{}: {}", by.name(), kind.name);
            let carried = match bench.search(&mut rig, by, first) {
                Ok(carried) => carried,
                // The others still tell something.
                Err(error) => {
                    eprintln!("  {error:#}");
                    let title = format!("{} {}: not measured: {error:#}", by.name(), kind.name);
                    report.findings.push(title);
                    continue;
                }
            };
            report.rows.push(row(kind, by, &carried));
            found.push(Found {
                name: kind.name,
                by,
                carried,
            });
        }
    }
    compare(&found, report);
    report
        .method
        .extend(method(length, arguments.coalesce_us, &peer_version));
    if arguments.wants(digits::NAME) {
        digits::measure(&mut rig, &binaries, report);
    }
    report.details = json!({ "through the edge": found });
    Ok(())
}

fn row(kind: &Kind, by: Candidate, carried: &Carried) -> Vec<Value> {
    let best = carried.best();
    let figure = |figure: &dyn Fn(&super::carried::Step) -> f64| best.map(figure);
    vec![
        json!(kind.name),
        json!(by.name()),
        match (best, carried.end) {
            (Some(step), End::Lost) => json!(step.sessions),
            (Some(step), End::NotReached) => json!(format!(">= {}", step.sessions)),
            (None, _) => Value::Null,
        },
        match (kind.wanted, by) {
            (Some(wanted), Candidate::Trunkline) => json!(format!(">= {wanted}")),
            _ => Value::Null,
        },
        json!(figure(&|step| step.forwarded)),
        json!(carried.peak()),
        json!(figure(&|step| 100.0 * step.busy)),
        json!(figure(&|step| step.by_cpu().round())),
        json!(figure(&|step| 20_000.0 / step.by_cpu())),
        json!(figure(&|step| step.process_us)),
    ]
}

/// What the specification speaks of.
fn compare(found: &[Found], report: &mut Report) {
    let carried = |name: &str, by: Candidate| {
        let of = |found: &&Found| found.name == name && found.by == by;
        let step = found.iter().find(of)?.carried.best()?;
        Some((f64::from(step.sessions), step.by_cpu()))
    };
    use Candidate::{Rtpengine, Trunkline};
    for kind in &KINDS {
        let Some((ours, ours_by_cpu)) = carried(kind.name, Trunkline) else {
            continue;
        };
        if let Some(wanted) = kind.wanted {
            let name = format!("{}: carried over the {wanted} wanted", kind.name);
            report.ratios.insert(name, ours / f64::from(wanted));
        }
        if let Some((peers, peers_by_cpu)) = carried(kind.name, Rtpengine) {
            let name = format!("{}: carried over rtpengine's", kind.name);
            report.ratios.insert(name, ours / peers);
            let name = format!("{}: by CPU over rtpengine's", kind.name);
            report.ratios.insert(name, ours_by_cpu / peers_by_cpu);
        }
    }
    for name in [LAWS, RECORDED] {
        let both = (carried(name, Trunkline), carried(RELAY, Trunkline));
        if let (Some(this), Some(relay)) = both {
            let title = format!("{name}: carried over relayed (0.7 wanted)");
            report.ratios.insert(title, this.0 / relay.0);
            let title = format!("{name}: by CPU over relayed");
            report.ratios.insert(title, this.1 / relay.1);
        }
    }
    if let Some(found) = found.iter().find(|found| found.name == RECORDED)
        && let Some(step) = found.carried.best()
    {
        report.findings.push(format!(
            "The recorder's thread shares the worker's core here: {:.1} of the {:.1} µs that the process takes per recorded call and 20 ms are its own.",
            step.recorder_us, step.process_us
        ));
    }
}

/// One kind of sessions, to be opened again and again.
struct Bench<'a> {
    kind: &'a Kind,
    binaries: &'a Binaries,
    /// Where prompts lie and recordings go.
    directory: &'a Path,
    round: Cell<u32>,
}

impl Bench<'_> {
    fn search(&self, rig: &mut Rig, by: Candidate, first: u32) -> Result<Carried> {
        let (codecs, is_clocked, last, group): (&[AudioCodec], _, _, _) = match &self.kind.doing {
            Doing::Talk(codecs) => (codecs, false, CALLS_MAX, 1),
            Doing::Record(codec) => (std::slice::from_ref(codec), false, CALLS_MAX, 1),
            Doing::Play(codec) => (std::slice::from_ref(codec), true, SINGLE_LEGS_MAX, 1),
            Doing::Confer { codec, members } => {
                let last = SINGLE_LEGS_MAX.min(CONFERENCES_MAX * members);
                // A big conference need not be full.
                let group = if *members > 100 { 1 } else { *members };
                (std::slice::from_ref(codec), true, last, group)
            }
        };
        let mut voices = codecs
            .iter()
            .map(|codec| match codec {
                Opus => Voice::at(Opus, self.kind.opus_rate),
                codec => Voice::new(*codec),
            })
            .collect::<Result<Vec<_>>>()?;
        if let Doing::Confer { members, .. } = self.kind.doing {
            let listeners: Vec<Voice> = (1..members).map(|_| voices[0].silent()).collect();
            voices.extend(listeners);
        }
        let open = |wire: &Wire, peer, count| self.open(wire, by, peer, count);
        let search = Search {
            voices: voices.into_iter().map(Arc::new).collect(),
            is_clocked,
            first,
            last,
            group,
            open: &open,
        };
        search.run(rig)
    }

    fn open(
        &self,
        wire: &Wire,
        by: Candidate,
        peer: SocketAddr,
        count: u32,
    ) -> Result<(Box<dyn Relay>, Vec<MediaLeg>)> {
        if by == Candidate::Rtpengine {
            let Doing::Talk(codecs) = self.kind.doing else {
                anyhow::bail!("not measured with rtpengine");
            };
            let mut relay = Rtpengine::start(wire)?;
            let legs = relay.open_calls(count, peer, &CallMedia::plain(codecs))?;
            return Ok((Box::new(relay), legs));
        }
        let mut edge = EdgeUnderTest::start(self.binaries, wire, "io_uring")?;
        let legs = match self.kind.doing {
            Doing::Talk(codecs) => edge.open_calls(count, peer, &CallMedia::plain(codecs))?,
            Doing::Record(codec) => self.record(&mut edge, codec, peer, count)?,
            Doing::Play(codec) => self.play(&mut edge, codec, peer, count)?,
            Doing::Confer { codec, members } => confer(&mut edge, codec, members, peer, count)?,
        };
        Ok((Box::new(edge), legs))
    }

    fn record(
        &self,
        edge: &mut EdgeUnderTest,
        codec: AudioCodec,
        peer: SocketAddr,
        count: u32,
    ) -> Result<Vec<MediaLeg>> {
        let round = self.round.replace(self.round.get() + 1);
        // Those of the step before have done their part.
        let place = self.directory.join("recordings");
        let _ = fs::remove_dir_all(&place);
        fs::create_dir(&place)?;
        let mut legs = Vec::new();
        let setups = [LegSetup::heard(codec), LegSetup::heard(codec)];
        for number in 0..count {
            let (session, opened) = edge.open_session(peer, &setups)?;
            edge.command(Command::StartRecording {
                session,
                recording: Recording {
                    id: RecordingId(u64::from(round) << 32 | u64::from(number)),
                    path: file_path(&place.join(format!("{number}.wav")))?,
                    format: RecordingFormat::Wav8k,
                    tracks: RecordingTracks::Mixed,
                    paused: false,
                },
            })?;
            legs.extend(opened);
        }
        Ok(legs)
    }

    fn play(
        &self,
        edge: &mut EdgeUnderTest,
        codec: AudioCodec,
        peer: SocketAddr,
        count: u32,
    ) -> Result<Vec<MediaLeg>> {
        let path = self.directory.join("prompt.wav");
        fs::write(&path, wav())?;
        edge.command(Command::LoadPrompt {
            prompt: PROMPT,
            path: file_path(&path)?,
            raw: None,
        })?;
        let sources = PlaySources::new(vec![PlaySource::Prompt(PROMPT)]).context("one source")?;
        let mut legs = Vec::new();
        for _ in 0..count {
            let (session, opened) = edge.open_session(peer, &[LegSetup::heard(codec)])?;
            edge.command(Command::Play {
                session,
                leg: LegIndex::A,
                playback: Playback {
                    id: PlaybackId(1),
                    sources: sources.clone(),
                    rounds: 0,
                    ends_on_digit: false,
                    mode: PlaybackMode::Replace,
                },
            })?;
            legs.extend(opened);
        }
        Ok(legs)
    }
}

fn confer(
    edge: &mut EdgeUnderTest,
    codec: AudioCodec,
    members: u32,
    peer: SocketAddr,
    count: u32,
) -> Result<Vec<MediaLeg>> {
    let mut opened: Vec<(SessionId, Vec<MediaLeg>)> = Vec::new();
    for _ in 0..count {
        opened.push(edge.open_session(peer, &[LegSetup::heard(codec)])?);
    }
    for ((session, _), number) in opened.iter().zip(0..) {
        edge.command(Command::JoinConference {
            session: *session,
            leg: LegIndex::A,
            membership: Membership {
                conference: ConferenceId(u64::from(number / members)),
                muted: false,
                deaf: false,
                whispers_to: None,
            },
        })?;
    }
    Ok(opened.into_iter().flat_map(|(_, legs)| legs).collect())
}

fn file_path(path: &Path) -> Result<FilePath> {
    let path = path.to_str().and_then(FilePath::new);
    path.context("a path that the edge would not take")
}

fn method(length: Duration, coalesce_us: u64, peer_version: &str) -> Vec<String> {
    vec![
        format!(
            "Through the edge: one worker on io_uring, all threads of its process and all that the kernel does for it on core {RELAY_CORE}; rtpengine, all of its threads, the same (taskset; receive steered by rps_cpus). Both have nice −10, for the machine is shared. A veth pair between network namespaces; the generator has core {GENERATOR_CORE}, its far end is an XDP program that counts RTP and drops it in the driver."
        ),
        format!(
            "All sessions of a step are opened on a fresh process before any media flows; then every leg's peer sends 50 packets a second of recorded speech, spread evenly and handed over in groups every {coalesce_us} µs, as a NIC's interrupts would, no two legs the same at the same time; {} s pass before the {} s that count. Carried: at most 0.1 % of the packets stayed away, or were still under way 5 ms after the end, and no recording lost any; more are tried until more are lost, then in between, to 5 %. A step that lost packets while other processes used more than 3 % of a core is done again.",
            WARM_UP.as_secs(),
            length.as_secs()
        ),
        "Sessions that are played to or confer are one leg each, whose peer sends too; what they are sent follows the worker's clock, so one packet of each leg is excused at the window's ends, and what their peers sent must have been received to 99.9 %.".to_owned(),
        "By CPU: sessions carried over the busy share of the core, softirq and all threads, from /proc/stat: what the core would carry if nothing came in bursts. The process's share is its user and system time.".to_owned(),
        format!(
            "Opus: 20 ms, ours with complexity 5. rtpengine {peer_version} (Debian), `--table=-1 --num-threads=1`, codecs masked and transcoded over ng; its Opus is libavcodec's, which knows no other complexity here than libopus' highest (10), at 48 kHz in stereo, as SDP has it."
        ),
    ]
}
