//! Codecs alone: what a packet of 20 ms costs to decode, to encode, to conceal and to turn into
//! another codec's, without network and session around it. Times by criterion (for comparison
//! between two builds), and a report of nanoseconds and allocations per packet in
//! `bench/results/codec.*`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use trunkline_bench::allocation_counter::CountingAllocator;
use trunkline_bench::report::Report;
use trunkline_edge_api::audio::{AudioCodec, AudioFormat, OpusOptions, PacketTime};
use trunkline_edge_api::{ClockRateHz, PayloadType};
use trunkline_media::SampleRate;
use trunkline_media::codec::g711::{self, Law};
use trunkline_media::codec::{
    DECODED_LEN_MAX, Decoder, ENCODED_LEN_MAX, Encoder, SHARED_LOSS_PERCENT, Transcoder,
};
use trunkline_media::resample::Resampler;
use trunkline_testkit::speech;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

/// Packets per batch of the report: the whole recording of speech.
const BATCH: usize = 280;
/// Batches of the report; the median of their means is reported.
const BATCHES: usize = 101;
/// Packets per second and direction.
const PACKETS_PER_SEC: f64 = 50.0;

struct Case {
    name: String,
    /// Takes the packet of that index.
    step: Box<dyn FnMut(usize)>,
    index: usize,
}

impl Case {
    fn new(name: impl Into<String>, step: impl FnMut(usize) + 'static) -> Self {
        Self {
            name: name.into(),
            step: Box::new(step),
            index: 0,
        }
    }

    /// Nanoseconds of processor time of `packets` packets.
    fn run(&mut self, packets: usize) -> f64 {
        let started = thread_nanos();
        for _ in 0..packets {
            (self.step)(self.index);
            self.index += 1;
        }
        thread_nanos() - started
    }
}

fn format(codec: AudioCodec) -> AudioFormat {
    let clock_hz = match codec {
        AudioCodec::Opus => 48_000,
        AudioCodec::L16 => 16_000,
        _ => 8_000,
    };
    AudioFormat {
        codec,
        payload_type: PayloadType::new(96).expect("seven bits"),
        clock_rate: ClockRateHz::new(clock_hz).expect("a clock"),
        channels: if codec == AudioCodec::Opus { 2 } else { 1 },
        packet_time: PacketTime::MS_20,
        opus: OpusOptions::default(),
    }
}

/// Recorded speech at `rate`, in packets of 20 ms.
fn pcm(rate: SampleRate) -> Vec<Vec<i16>> {
    let mut resampler = Resampler::new(SampleRate::Hz8000, rate);
    let caller = speech::caller();
    (0..BATCH)
        .map(|index| {
            let mut narrow = [0; 160];
            Law::Mu.decode_slice(caller.frame(index), &mut narrow);
            let mut wide = vec![0; rate.samples(20)];
            resampler.process(&narrow, &mut wide);
            wide
        })
        .collect()
}

/// The same speech in packets of `format`.
fn payloads(format: &AudioFormat, rate: SampleRate) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(format, rate).expect("a format of this build");
    pcm(rate)
        .iter()
        .map(|packet| {
            let mut out = [0; ENCODED_LEN_MAX];
            let len = encoder.encode(packet, &mut out).expect("one packet");
            out[..len].to_vec()
        })
        .collect()
}

fn decode(format: AudioFormat, rate: SampleRate) -> Case {
    let payloads = payloads(&format, rate);
    let mut decoder = Decoder::new(&format, rate).expect("a format of this build");
    let mut out = [0; DECODED_LEN_MAX];
    let name = format!("{} decode at {} kHz", name(&format), rate.hz() / 1_000);
    Case::new(name, move |index| {
        let len = decoder.decode(&payloads[index % payloads.len()], &mut out);
        assert_eq!(black_box(len), Ok(rate.samples(20)));
    })
}

/// `loss_percent`: what the encoder is told to expect.
fn encode(format: AudioFormat, rate: SampleRate, loss_percent: u8) -> Case {
    let pcm = pcm(rate);
    let mut encoder = Encoder::new(&format, rate).expect("a format of this build");
    encoder.set_expected_loss(loss_percent);
    let mut out = [0; ENCODED_LEN_MAX];
    let with = if loss_percent > 0 {
        ", in-band FEC"
    } else {
        ""
    };
    let name = format!(
        "{} encode at {} kHz{with}",
        name(&format),
        rate.hz() / 1_000
    );
    Case::new(name, move |index| {
        let len = encoder.encode(&pcm[index % pcm.len()], &mut out);
        assert!(black_box(len).is_ok());
    })
}

fn transcode(from: AudioFormat, to: AudioFormat) -> Case {
    let mut transcoder = Transcoder::new(&from, &to).expect("formats of this build");
    let payloads = payloads(&from, transcoder.rate());
    let units = from.clock_rate.get() / 50;
    let mut out = [0; ENCODED_LEN_MAX];
    Case::new(format!("{} to {}", name(&from), name(&to)), move |index| {
        let payload = &payloads[index % payloads.len()];
        transcoder.handle_packet(index as u16, units.wrapping_mul(index as u32), payload);
        assert!(black_box(transcoder.poll_packet(&mut out)).is_some());
    })
}

/// From an Opus peer that codes 48 kHz, as one does that was not asked for less.
fn transcode_fullband(from: AudioFormat, to: AudioFormat) -> Case {
    let mut transcoder = Transcoder::new(&from, &to).expect("formats of this build");
    let payloads = payloads(&from, SampleRate::Hz48000);
    let mut out = [0; ENCODED_LEN_MAX];
    let name = format!("{} at 48 kHz to {}", name(&from), name(&to));
    Case::new(name, move |index| {
        let payload = &payloads[index % payloads.len()];
        transcoder.handle_packet(index as u16, (index as u32).wrapping_mul(960), payload);
        assert!(black_box(transcoder.poll_packet(&mut out)).is_some());
    })
}

fn table() -> Case {
    let mut payload = payloads(&format(AudioCodec::Pcmu), SampleRate::Hz8000).remove(40);
    Case::new("PCMU to PCMA in place", move |_| {
        g711::pcmu_to_pcma(black_box(&mut payload));
    })
}

fn conceal(rate: SampleRate) -> Case {
    let format = format(AudioCodec::Pcmu);
    let payloads = payloads(&format, rate);
    let mut decoder = Decoder::new(&format, rate).expect("a format of this build");
    let mut out = [0; DECODED_LEN_MAX];
    let name = format!("PCMU decode at {} kHz, half lost", rate.hz() / 1_000);
    Case::new(name, move |index| {
        if index.is_multiple_of(2) {
            let len = decoder.decode(&payloads[index % payloads.len()], &mut out);
            assert_eq!(black_box(len), Ok(rate.samples(20)));
        } else {
            decoder.conceal(&mut out[..rate.samples(20)]);
        }
    })
}

fn resample(from: SampleRate, to: SampleRate) -> Case {
    let pcm = pcm(from);
    let mut resampler = Resampler::new(from, to);
    let mut out = vec![0; to.samples(20)];
    let name = format!("resample {} to {} kHz", from.hz() / 1_000, to.hz() / 1_000);
    Case::new(name, move |index| {
        let len = resampler.process(&pcm[index % pcm.len()], &mut out);
        assert_eq!(black_box(len), out.len());
    })
}

fn name(format: &AudioFormat) -> &'static str {
    format.codec.encoding_name()
}

/// The cases, and which two make both directions of a call.
fn cases() -> Vec<Case> {
    let [pcmu, pcma, l16, g722, opus] = AudioCodec::ALL.map(format);
    let mut opus_fec = opus;
    opus_fec.opus.in_band_fec = true;
    let [narrow, wide, full] = SampleRate::ALL;
    let mut cases = vec![table()];
    for (a, b) in [
        (pcmu, pcma),
        (pcmu, g722),
        (pcmu, opus),
        (g722, opus),
        (pcmu, l16),
    ] {
        cases.push(transcode(a, b));
        cases.push(transcode(b, a));
    }
    cases.push(transcode_fullband(opus, pcmu));
    cases.extend([
        decode(pcmu, narrow),
        encode(pcmu, narrow, 0),
        decode(g722, wide),
        encode(g722, wide, 0),
    ]);
    for rate in [narrow, wide, full] {
        cases.push(decode(opus, rate));
        cases.push(encode(opus, rate, 0));
        cases.push(encode(opus_fec, rate, SHARED_LOSS_PERCENT));
    }
    cases.push(conceal(narrow));
    cases.push(conceal(full));
    for (from, to) in [(narrow, wide), (narrow, full), (wide, full)] {
        cases.push(resample(from, to));
        cases.push(resample(to, from));
    }
    cases
}

/// Processor time of this thread: what others do on the machine meanwhile is not in it.
fn thread_nanos() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn report() -> anyhow::Result<()> {
    let mut report = Report::new(
        "codec",
        "Codecs: one packet of 20 ms",
        &["case", "ns/packet", "best batch", "allocations/packet"],
    );
    let mut medians: Vec<(String, f64)> = Vec::new();
    for mut case in cases() {
        case.run(BATCH);
        let allocations = ALLOCATOR.count();
        let mut means = [0.0; BATCHES];
        for mean in &mut means {
            *mean = case.run(BATCH) / BATCH as f64;
        }
        let allocations = ALLOCATOR.count() - allocations;
        means.sort_unstable_by(f64::total_cmp);
        report.rows.push(vec![
            json!(case.name),
            json!(means[BATCHES / 2]),
            json!(means[0]),
            json!(allocations as f64 / (BATCHES * BATCH) as f64),
        ]);
        medians.push((case.name, means[BATCHES / 2]));
    }
    let nanos = |name: &str| {
        let found = medians.iter().find(|(case, _)| case == name);
        found.map_or(f64::NAN, |(_, nanos)| *nanos)
    };
    for (a, b) in [("PCMU", "G722"), ("PCMU", "opus"), ("G722", "opus")] {
        let both = nanos(&format!("{a} to {b}")) + nanos(&format!("{b} to {a}"));
        report.findings.push(format!(
            "{a} and {b}: {:.1} µs per 20 ms for both directions, so the codecs of {:.0} calls would fill one core.",
            both / 1_000.0,
            1e9 / (both * PACKETS_PER_SEC)
        ));
    }
    report.method = vec![
        "`Transcoder`, `Decoder`, `Encoder` and `Resampler` of trunkline-media on packets in memory, one thread, bench profile (release, fat LTO); libopus at complexity 5 as its build makes it.".to_owned(),
        format!(
            "Recorded speech of {:.1} s, again and again; processor time of the thread; median and best over {BATCHES} batches of {BATCH} packets.",
            BATCH as f64 / PACKETS_PER_SEC
        ),
        "Allocations are counted by a global allocator around the same loop; libopus takes its state from it at the start and uses the stack after that.".to_owned(),
    ];
    report.publish()
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Elements(1));
    for mut case in cases() {
        let name = case.name.clone();
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|packets| Duration::from_nanos(case.run(packets as usize) as u64));
        });
    }
    group.finish();
    criterion.final_summary();
    // `cargo test --benches` only wants to see that everything runs.
    if std::env::args().any(|argument| argument == "--bench") {
        report().expect("bench/results is writable");
    }
}
