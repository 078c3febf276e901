//! Conferences: what a member costs per frame of 20 ms, from its packet in the worker's buffer to
//! the packet it is sent, without the kernel. A report by kind of conference, with the loop's four
//! parts apart, in `bench/results/conference.*`.

use std::hint::black_box;
use std::sync::Arc;

use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use trunkline_bench::allocation_counter::CountingAllocator;
use trunkline_bench::report::Report;
use trunkline_edge_api::{
    AudioCodec, AudioFormat, AudioFormats, ClockRateHz, ConferenceId, LegAudio, LegIndex,
    Membership, MonoTime, OpusOptions, PacketTime, PayloadType, SessionId, Ssrc,
};
use trunkline_media::clocked_input::{ClockedInput, ReadKind};
use trunkline_media::codec::{ENCODED_LEN_MAX, Encoder};
use trunkline_media::conference::{
    Announcements, Conference, FRAME_MILLIS, MEMBERS_MAX, MemberSlot, MixOutput,
};
use trunkline_media::rtp::RtpHeader;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

/// Bytes of a bare RTP header.
const HEADER_LEN: usize = 12;
/// Frames before the measurement: buffers fill and gates settle.
const WARM_UP_FRAMES: u64 = 100;
/// Frames of the measurement, 20 s.
const FRAMES: u64 = 1_000;
/// The target of one core: members that send and are sent 50 packets a second.
const MEMBERS_WANTED: f64 = 600.0;

/// One kind of conference.
struct Kind {
    name: &'static str,
    conferences: usize,
    members: usize,
    talkers: usize,
    codec: AudioCodec,
}

const fn kind(
    name: &'static str,
    conferences: usize,
    members: usize,
    talkers: usize,
    codec: AudioCodec,
) -> Kind {
    Kind {
        name,
        conferences,
        members,
        talkers,
        codec,
    }
}

const KINDS: [Kind; 8] = [
    kind("PCMU, nobody speaks", 1, 600, 0, AudioCodec::Pcmu),
    kind("PCMU, 3 of 600 speak", 1, 600, 3, AudioCodec::Pcmu),
    kind("PCMU, 60 of 600 speak", 1, 600, 60, AudioCodec::Pcmu),
    kind("PCMU, all of 600 speak", 1, 600, 600, AudioCodec::Pcmu),
    kind(
        "PCMU, 200 of 3, one each speaks",
        200,
        3,
        1,
        AudioCodec::Pcmu,
    ),
    kind("G.722, 3 of 600 speak", 1, 600, 3, AudioCodec::G722),
    kind(
        "G.722, 200 of 3, one each speaks",
        200,
        3,
        1,
        AudioCodec::G722,
    ),
    kind("Opus, 3 of 60 speak", 1, 60, 3, AudioCodec::Opus),
];

fn format(codec: AudioCodec) -> AudioFormat {
    let (payload_type, clock_rate) = match codec {
        AudioCodec::Opus => (PayloadType::new(111), ClockRateHz::OPUS),
        AudioCodec::G722 => (Some(PayloadType::G722), ClockRateHz::G722_RTP),
        _ => (Some(PayloadType::PCMU), ClockRateHz::NARROWBAND),
    };
    AudioFormat {
        codec,
        payload_type: payload_type.expect("below 128"),
        clock_rate,
        channels: 1,
        packet_time: PacketTime::MS_20,
        opus: OpusOptions::default(),
    }
}

/// A leg of the worker.
struct Member {
    slot: MemberSlot,
    input: ClockedInput,
    encoder: Encoder,
    header: RtpHeader,
    speaks: bool,
    packet: [u8; HEADER_LEN + ENCODED_LEN_MAX],
    packet_len: usize,
}

struct Room {
    conference: Conference,
    members: Vec<Member>,
}

/// Nanoseconds of processor time by part.
#[derive(Clone, Copy, Default)]
struct Spent {
    receive: f64,
    read: f64,
    mix: f64,
    send: f64,
}

impl Spent {
    fn all(self) -> f64 {
        self.receive + self.read + self.mix + self.send
    }
}

struct Bench {
    rooms: Vec<Room>,
    /// Payloads of somebody who speaks, and of somebody who does not.
    speech: Vec<Vec<u8>>,
    quiet: Vec<u8>,
    /// RTP units of a packet.
    units: u32,
    frame: u64,
}

/// A voice of 140 Hz with harmonics, a little noise, and a syllable every 200 ms.
fn voice(n: usize, sample_hz: f32) -> i16 {
    let seconds = n as f32 / sample_hz;
    let phase = std::f32::consts::TAU * 140.0 * seconds;
    let syllable = (std::f32::consts::TAU * 2.5 * seconds).sin().abs();
    let noise = ((n as u32).wrapping_mul(2_654_435_761) >> 20) as f32 / 4_096.0 - 0.5;
    let sound = phase.sin() + 0.6 * (2.0 * phase).sin() + 0.3 * (5.0 * phase).sin() + 0.2 * noise;
    (5_000.0 * syllable * sound) as i16
}

impl Bench {
    fn new(kind: &Kind) -> Self {
        let format = format(kind.codec);
        let rate = Conference::rate_for(&format);
        let tones = Arc::new(Announcements::default());
        let audio = LegAudio {
            receive: AudioFormats::new(vec![format]).expect("one format"),
            send: format,
            receive_events: None,
            send_events: None,
            comfort_noise: Some(PayloadType::CN),
        };
        let membership = Membership {
            conference: ConferenceId(1),
            muted: false,
            deaf: false,
            whispers_to: None,
        };
        let rooms = (0..kind.conferences)
            .map(|room| {
                let mut conference = Conference::new(MEMBERS_MAX, Arc::clone(&tones));
                let members = (0..kind.members)
                    .map(|n| {
                        let number = (room * kind.members + n) as u64;
                        let key = (SessionId(number), LegIndex::A);
                        Member {
                            slot: conference
                                .join(key, &format, &membership)
                                .expect("there is room"),
                            input: ClockedInput::new(&audio, rate).expect("a codec of ours"),
                            encoder: Encoder::new(&format, rate).expect("a codec of ours"),
                            header: RtpHeader {
                                marker: false,
                                payload_type: format.payload_type,
                                sequence: number as u16,
                                timestamp: number as u32,
                                ssrc: Ssrc(number as u32),
                                header_len: HEADER_LEN,
                                payload_len: 160,
                            },
                            speaks: n < kind.talkers,
                            packet: [0; HEADER_LEN + ENCODED_LEN_MAX],
                            packet_len: 0,
                        }
                    })
                    .collect();
                Room {
                    conference,
                    members,
                }
            })
            .collect();
        let mut encoder = Encoder::new(&format, rate).expect("a codec of ours");
        let len = rate.samples(FRAME_MILLIS);
        let mut encode = |pcm: &[i16]| {
            let mut payload = vec![0; ENCODED_LEN_MAX];
            let len = encoder.encode(pcm, &mut payload).expect("a frame");
            payload.truncate(len);
            payload
        };
        let speech = (0..100)
            .map(|frame| {
                let pcm: Vec<i16> = (frame * len..frame * len + len)
                    .map(|n| voice(n, rate.hz() as f32))
                    .collect();
                encode(&pcm)
            })
            .collect();
        let quiet = encode(&vec![0; len]);
        Self {
            rooms,
            speech,
            quiet,
            units: format.clock_rate.get() / 1_000 * FRAME_MILLIS,
            frame: 0,
        }
    }

    /// Everything that happens in 20 ms.
    fn frame(&mut self, spent: &mut Spent) {
        let now = MonoTime(1).plus_millis(u64::from(FRAME_MILLIS) * self.frame);
        self.frame += 1;
        let started = thread_nanos();
        for room in &mut self.rooms {
            for (n, member) in room.members.iter_mut().enumerate() {
                let place = (self.frame as usize + 7 * n) % self.speech.len();
                let payload = if member.speaks {
                    &self.speech[place]
                } else {
                    &self.quiet
                };
                let _ = black_box(member.input.receive(now, &member.header, payload));
                member.header.sequence = member.header.sequence.wrapping_add(1);
                member.header.timestamp = member.header.timestamp.wrapping_add(self.units);
            }
        }
        let received = thread_nanos();
        for room in &mut self.rooms {
            for member in &mut room.members {
                let mut pcm = [0; 320];
                let pcm = &mut pcm[..member.input.rate().samples(FRAME_MILLIS)];
                if member.input.read(now, pcm) != ReadKind::Silence {
                    room.conference.put(member.slot, pcm);
                }
            }
        }
        let read = thread_nanos();
        for room in &mut self.rooms {
            room.conference.mix();
        }
        let mixed = thread_nanos();
        for room in &mut self.rooms {
            for member in &mut room.members {
                let (header, room_for_payload) = member.packet.split_at_mut(HEADER_LEN);
                header[..2].copy_from_slice(&[0x80, 0]);
                header[2..4].copy_from_slice(&member.header.sequence.to_be_bytes());
                header[4..8].copy_from_slice(&member.header.timestamp.to_be_bytes());
                let len = match room.conference.output_for(member.slot) {
                    MixOutput::Shared(group) => {
                        let payload = room.conference.shared_payloads(group).next();
                        let payload = payload.expect("one packet each 20 ms");
                        room_for_payload[..payload.len()].copy_from_slice(payload);
                        payload.len()
                    }
                    MixOutput::Own(pcm) => member
                        .encoder
                        .encode(pcm, room_for_payload)
                        .expect("a frame"),
                };
                member.packet_len = HEADER_LEN + len;
                black_box(&member.packet[..member.packet_len]);
            }
        }
        let sent = thread_nanos();
        spent.receive += received - started;
        spent.read += read - received;
        spent.mix += mixed - read;
        spent.send += sent - mixed;
    }
}

/// Processor time of this thread: what others do on the machine meanwhile is not in it.
fn thread_nanos() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn report(frames: u64) -> Report {
    let mut report = Report::new(
        "conference",
        "Conferences: one member, 20 ms, from its packet to the one it is sent",
        &[
            "conferences",
            "ns/member",
            "receive",
            "read",
            "mix",
            "send",
            "members/core",
            "own encoders/frame",
            "allocations/member",
        ],
    );
    let mut listener_nanos = 0.0;
    for kind in &KINDS {
        let mut bench = Bench::new(kind);
        for _ in 0..WARM_UP_FRAMES {
            bench.frame(&mut Spent::default());
        }
        let own_before = own_outputs(&bench);
        let allocations = ALLOCATOR.count();
        let mut spent = Spent::default();
        for _ in 0..frames {
            bench.frame(&mut spent);
        }
        let allocations = ALLOCATOR.count() - allocations;
        let own = own_outputs(&bench) - own_before;
        // What is measured must be what the name says.
        let talkers = (kind.talkers * kind.conferences) as u64;
        assert_eq!(own, talkers * frames, "{}", kind.name);
        let members = (kind.conferences * kind.members) as f64;
        let per_member = |nanos: f64| nanos / (frames as f64 * members);
        let frame_nanos = f64::from(FRAME_MILLIS) * 1e6;
        let all = per_member(spent.all());
        report.rows.push(vec![
            json!(kind.name),
            json!(all),
            json!(per_member(spent.receive)),
            json!(per_member(spent.read)),
            json!(per_member(spent.mix)),
            json!(per_member(spent.send)),
            json!((frame_nanos / all).round()),
            json!(own as f64 / frames as f64),
            json!(allocations as f64 / (frames as f64 * members)),
        ]);
        if kind.codec == AudioCodec::Pcmu && kind.talkers == 0 {
            listener_nanos = all;
        }
        if kind.codec == AudioCodec::Pcmu && kind.talkers == kind.members {
            report.findings.push(format!(
                "A PCMU member that listens costs {listener_nanos:.0} ns in 20 ms, one that speaks {all:.0} ns."
            ));
        }
        if kind.codec == AudioCodec::Pcmu && kind.talkers == 3 {
            report.ratios.insert(
                "PCMU members per core over the 600 wanted, without the kernel".to_owned(),
                frame_nanos / all / MEMBERS_WANTED,
            );
        }
    }
    report.method = vec![
        "Every member's packet of 20 ms goes through `ClockedInput::receive` and `read` into `Conference::put`; after `mix` its output is encoded, or its group's payload copied, behind an RTP header. In memory, one thread, bench profile (release, fat LTO).".to_owned(),
        format!(
            "Processor time of the thread, mean over {frames} frames after {WARM_UP_FRAMES}. Who does not speak sends silence, 50 packets a second like the others. `members/core` is 20 ms over ns/member: what a core could mix if it had no packets to receive and send."
        ),
        "Allocations are counted by a global allocator around the same loop.".to_owned(),
    ];
    report
}

fn own_outputs(bench: &Bench) -> u64 {
    let rooms = bench.rooms.iter();
    rooms.map(|room| room.conference.stats().own_outputs).sum()
}

fn main() {
    // `cargo test --benches` only wants to see that everything runs.
    if std::env::args().any(|argument| argument == "--bench") {
        let report = report(FRAMES);
        report.publish().expect("bench/results is writable");
    } else {
        report(2);
    }
}
