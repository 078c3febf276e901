//! What a 20 ms frame costs in the functions that make and hear tones: digits, beeps, speech. Times
//! by criterion, and a report of nanoseconds and allocations per frame in `bench/results/dtmf.*`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use trunkline_bench::allocation_counter::CountingAllocator;
use trunkline_bench::report::Report;
use trunkline_edge_api::{ClockRateHz, Digit, MonoTime, Tone, ToneSegment};
use trunkline_media::SampleRate;
use trunkline_media::activity::{ActivityDetector, BeepDetector};
use trunkline_media::dtmf::{EventDetector, EventReport, ToneDetector, ToneSuppressor};
use trunkline_media::tone::ToneGenerator;
use trunkline_testkit::speech;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

/// Frames per batch of the report: 20 s of audio.
const BATCH_FRAMES: usize = 1_000;
/// Batches of the report; the median of their means is reported.
const BATCHES: usize = 101;

/// Recorded speech and three pressed keys, again and again.
struct Line {
    frames: Vec<Vec<i16>>,
    next: usize,
}

impl Line {
    fn new(rate: SampleRate) -> Self {
        let recording = speech::caller();
        let step = rate.samples(1) / SampleRate::Hz8000.samples(1);
        let mut frames: Vec<Vec<i16>> = (0..recording.frame_count())
            .map(|index| {
                let ulaw = recording.frame(index).iter();
                // Held samples: what is measured does not depend on how well they sound.
                ulaw.flat_map(|&code| std::iter::repeat_n(linear(code), step))
                    .collect()
            })
            .collect();
        for symbol in ['1', '5', '#'] {
            let digit = Digit::from_char(symbol).expect("a key");
            let segment = ToneSegment {
                on_millis: 100,
                off_millis: 60,
                frequencies_hz: trunkline_media::dtmf::frequencies_hz(digit),
            };
            let tone = Tone::new(&[segment], Tone::LEVEL_DBM0).expect("a tone");
            let mut generator = ToneGenerator::new(&tone, rate);
            for _ in 0..8 {
                let mut frame = vec![0; rate.samples(20)];
                generator.fill(&mut frame);
                frames.push(frame);
            }
        }
        Self { frames, next: 0 }
    }

    fn frame(&mut self) -> &[i16] {
        self.next = (self.next + 1) % self.frames.len();
        &self.frames[self.next]
    }
}

/// µ-law to linear (ITU-T G.711 table 2).
fn linear(ulaw: u8) -> i16 {
    let code = !ulaw;
    let magnitude = ((i32::from(code & 0x0f) << 3) + 0x84) << ((code >> 4) & 7);
    let value = magnitude - 0x84;
    (if code & 0x80 == 0 { value } else { -value }) as i16
}

/// One thing to measure.
struct Case {
    name: String,
    /// Takes or makes the next frame.
    frame: Box<dyn FnMut()>,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: String, frame: Box<dyn FnMut()>| cases.push(Case { name, frame });
    for rate in SampleRate::ALL {
        let khz = rate.samples(1);
        let (mut line, mut detector) = (Line::new(rate), ToneDetector::new(rate));
        add(
            format!("hear digits in tones, {khz} kHz"),
            Box::new(move || {
                detector.handle_audio(line.frame());
                while black_box(detector.poll_event()).is_some() {}
            }),
        );
        let (mut line, mut suppressor) = (Line::new(rate), ToneSuppressor::new(rate));
        let mut audio = vec![0; rate.samples(20)];
        add(
            format!("take digits out of audio, {khz} kHz"),
            Box::new(move || {
                audio.copy_from_slice(line.frame());
                suppressor.handle_audio(black_box(&mut audio));
                while black_box(suppressor.poll_event()).is_some() {}
            }),
        );
        let (mut line, mut detector) = (Line::new(rate), BeepDetector::new(rate));
        add(
            format!("hear a beep, {khz} kHz"),
            Box::new(move || {
                detector.handle_audio(line.frame());
                while black_box(detector.poll_event()).is_some() {}
            }),
        );
        let (mut line, mut detector) = (Line::new(rate), ActivityDetector::new(rate));
        add(
            format!("hear who speaks, {khz} kHz"),
            Box::new(move || {
                detector.handle_audio(line.frame());
                while black_box(detector.poll_event()).is_some() {}
            }),
        );
        let tone: Tone = "%(60000,0,440,480)".parse().expect("a cadence");
        let mut generator = ToneGenerator::new(&tone, rate);
        let mut frame = vec![0; rate.samples(20)];
        add(
            format!("make a tone of two frequencies, {khz} kHz"),
            Box::new(move || {
                if generator.fill(black_box(&mut frame)) < frame.len() {
                    generator.restart();
                }
            }),
        );
    }
    let mut detector = EventDetector::new();
    let mut packets = 0u32;
    add(
        "hear a telephone event's packet".to_owned(),
        Box::new(move || {
            // Keys of 100 ms, ten packets of 20 ms each with its ends and a pause.
            let (key, packet) = (packets / 10, packets % 10);
            packets = packets.wrapping_add(1);
            let report = EventReport {
                event: (key % 16) as u8,
                is_end: packet >= 5,
                volume: 10,
                duration: 160 * packet.min(5) as u16,
            };
            let now = MonoTime(u64::from(packets) * 20_000_000);
            let payload = black_box(report.to_bytes());
            let clock_rate = ClockRateHz::NARROWBAND;
            detector.handle_packet(
                now,
                clock_rate,
                key.wrapping_mul(1_600),
                packet == 0,
                &payload,
            );
            while black_box(detector.poll_event()).is_some() {}
        }),
    );
    cases
}

impl Case {
    /// Nanoseconds of processor time of so many frames.
    fn run(&mut self, frames: usize) -> f64 {
        let started = thread_nanos();
        for _ in 0..frames {
            (self.frame)();
        }
        thread_nanos() - started
    }
}

/// Processor time of this thread: what others do on the machine meanwhile is not in it.
fn thread_nanos() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn report() -> anyhow::Result<()> {
    let mut report = Report::new(
        "dtmf",
        "Tones, digits and speech: one frame of 20 ms",
        &["case", "ns/frame", "best batch", "allocations/frame"],
    );
    for mut case in cases() {
        case.run(BATCH_FRAMES);
        let allocated = ALLOCATOR.count();
        let mut means = [0.0; BATCHES];
        for mean in &mut means {
            *mean = case.run(BATCH_FRAMES) / BATCH_FRAMES as f64;
        }
        let allocations = ALLOCATOR.count() - allocated;
        means.sort_unstable_by(f64::total_cmp);
        report.rows.push(vec![
            json!(case.name),
            json!(means[BATCHES / 2]),
            json!(means[0]),
            json!(allocations as f64 / (BATCHES * BATCH_FRAMES) as f64),
        ]);
    }
    report.method = vec![
        "Frames of recorded speech with three pressed keys in between, one thread, bench profile (release, fat LTO).".to_owned(),
        format!(
            "Processor time of the thread; median and best over {BATCHES} batches of {BATCH_FRAMES} frames. Taking digits out includes a copy of the frame."
        ),
        "Allocations are counted by a global allocator around the same loop.".to_owned(),
    ];
    report.publish()
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("dtmf");
    group.throughput(Throughput::Elements(1));
    for mut case in cases() {
        let name = case.name.clone();
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|frames| Duration::from_nanos(case.run(frames as usize) as u64));
        });
    }
    group.finish();
    criterion.final_summary();
    // `cargo test --benches` only wants to see that everything runs.
    if std::env::args().any(|argument| argument == "--bench") {
        report().expect("bench/results is writable");
    }
}
