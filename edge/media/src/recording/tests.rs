use std::f64::consts::PI;

use trunkline_edge_api::{
    AudioCodec, AudioFormat, ClockRateHz, OpusOptions, PacketTime, PayloadType,
};

use super::*;
use crate::codec::g711::Law;

mod file;
mod timeline;

const START: MonoTime = MonoTime(40_000_000_000);
const WALL_CLOCK: u64 = 1_700_000_000_000_000_000;

fn at(millis: u64) -> MonoTime {
    START.plus_millis(millis)
}

fn spec(format: RecordingFormat, tracks: RecordingTracks) -> TapeSpec {
    TapeSpec {
        id: RecordingId(0x1234),
        format,
        tracks,
        paused: false,
    }
}

fn pcmu() -> AudioFormat {
    AudioFormat {
        codec: AudioCodec::Pcmu,
        payload_type: PayloadType::PCMU,
        clock_rate: ClockRateHz::NARROWBAND,
        channels: 1,
        packet_time: PacketTime::MS_20,
        opus: OpusOptions::default(),
    }
}

/// A tape with the disk under it.
struct Recorder {
    tape: Tape,
    file: Vec<u8>,
    /// Bytes that the disk takes.
    room: usize,
}

impl Recorder {
    fn new(format: RecordingFormat, tracks: RecordingTracks) -> Self {
        Self::with(&spec(format, tracks))
    }

    fn with(spec: &TapeSpec) -> Self {
        Self {
            tape: Tape::new(spec, START, WALL_CLOCK),
            file: Vec::new(),
            room: usize::MAX,
        }
    }

    /// Lets time pass, and writes what is due; `false`: the disk is full.
    fn tick(&mut self, now: MonoTime) -> bool {
        self.tape.handle_timeout(now);
        self.write()
    }

    fn write(&mut self) -> bool {
        let mut buffer = Vec::with_capacity(4_096);
        while let Some(offset) = self.tape.poll_write(&mut buffer) {
            let offset = offset as usize;
            assert!(offset <= self.file.len(), "no hole");
            let end = (offset + buffer.len()).min(self.room);
            let len = end.saturating_sub(offset);
            self.file.resize(self.file.len().max(end), 0);
            self.file[offset..end].copy_from_slice(&buffer[..len]);
            self.tape.handle_written(len);
            if len < buffer.len() {
                return false;
            }
        }
        true
    }

    fn stop(&mut self, now: MonoTime) -> Vec<i16> {
        self.tape.stop(now);
        assert!(self.write());
        self.samples()
    }

    /// All samples of the file, channels interleaved, by what its header says.
    fn samples(&self) -> Vec<i16> {
        samples_of(&self.file)
    }
}

fn samples_of(file: &[u8]) -> Vec<i16> {
    let mut reader = hound::WavReader::new(file).expect("a sound WAV");
    reader.samples::<i16>().map(|s| s.expect("whole")).collect()
}

/// Someone who sends a tone.
struct Sender {
    leg: LegIndex,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    amplitude: f64,
    hz: f64,
    phase: u64,
}

impl Sender {
    fn new(leg: LegIndex) -> Self {
        Self {
            leg,
            ssrc: 7,
            sequence: 65_500,
            timestamp: u32::MAX - 4_000,
            amplitude: 8_000.0,
            hz: 400.0,
            phase: 0,
        }
    }

    /// The next packet, of `len` samples.
    fn packet(&mut self, len: usize) -> Vec<u8> {
        let step = 2.0 * PI * self.hz / 8_000.0;
        let samples =
            (0..len).map(|n| self.amplitude * (step * (self.phase + n as u64) as f64).sin());
        let payload: Vec<u8> = samples.map(|s| Law::Mu.encode(s as i16)).collect();
        let packet = rtp(self.ssrc, self.sequence, self.timestamp, &payload);
        self.skip(len);
        packet
    }

    /// Goes on without a packet that could be heard.
    fn skip(&mut self, len: usize) {
        self.phase += len as u64;
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(len as u32);
    }

    /// Sends a packet that arrives at `now`.
    fn send(&mut self, recorder: &mut Recorder, now: MonoTime) {
        let packet = self.packet(160);
        give(recorder, self.leg, now, &packet);
    }
}

fn rtp(ssrc: u32, sequence: u16, timestamp: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend(sequence.to_be_bytes());
    packet.extend(timestamp.to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend(payload);
    packet
}

fn give(recorder: &mut Recorder, leg: LegIndex, arrival: MonoTime, packet: &[u8]) {
    recorder.tape.handle_packet(&TappedPacket {
        arrival,
        leg,
        format: Some(pcmu()),
        packet,
    });
}

/// Root of the mean square.
fn loudness(samples: &[i16]) -> f64 {
    let sum: f64 = samples.iter().map(|&s| f64::from(s).powi(2)).sum();
    (sum / samples.len() as f64).sqrt()
}

/// Milliseconds that are louder than a quarter of the senders' tone.
fn loud_millis(samples: &[i16]) -> Vec<usize> {
    let millis = samples.chunks_exact(80).enumerate();
    millis
        .filter(|(_, ten)| loudness(ten) > 1_400.0)
        .map(|(at, _)| at * 10)
        .collect()
}

#[test]
fn a_call_of_two_legs_is_recorded_without_losing_a_sample() {
    let mut recorder = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::Stereo);
    let (mut a, mut b) = (Sender::new(LegIndex::A), Sender::new(LegIndex::B));
    b.hz = 1_000.0;
    for n in 0..500 {
        a.send(&mut recorder, at(20 * n));
        b.send(&mut recorder, at(20 * n + 7));
        recorder.tick(at(20 * n + 10));
    }
    let samples = recorder.stop(at(10_000));
    let frames: Vec<[i16; 2]> = samples.chunks_exact(2).map(|f| [f[0], f[1]]).collect();
    // Leg B's last packet ends 7 ms behind the last moment.
    assert_eq!(frames.len(), 80_000 + 56);
    for (channel, delay, hz) in [(0, 0, 400.0), (1, 56, 1_000.0)] {
        let step = 2.0 * PI * hz / 8_000.0;
        for n in 0..80_000 {
            let sent = Law::Mu.decode(Law::Mu.encode((8_000.0 * (step * n as f64).sin()) as i16));
            assert_eq!(
                frames[n + delay][channel],
                sent,
                "channel {channel}, sample {n}"
            );
        }
    }
    let stats = recorder.tape.stats();
    assert_eq!((stats.packets, stats.missing_packets), (1_000, 0));
    assert_eq!(recorder.tape.duration_millis(), 10_007);
    assert_eq!(recorder.tape.file_len(), recorder.file.len() as u64);
}

#[test]
fn the_file_lasts_as_long_as_the_call_whoever_speaks() {
    for tracks in [RecordingTracks::LegA, RecordingTracks::Mixed] {
        let mut recorder = Recorder::new(RecordingFormat::Wav16k, tracks);
        for second in 1..=60 {
            recorder.tick(at(1_000 * second));
        }
        let samples = recorder.stop(at(60_000));
        assert_eq!(
            samples,
            vec![0; 60 * 16_000],
            "{tracks:?}: nobody ever spoke"
        );
    }
    let mut recorder = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::LegB);
    let (mut a, mut b) = (Sender::new(LegIndex::A), Sender::new(LegIndex::B));
    for n in 0..250 {
        a.send(&mut recorder, at(20 * n));
        // Speaks from the third second to the fourth.
        if (100..150).contains(&n) {
            b.send(&mut recorder, at(20 * n));
        }
        recorder.tick(at(20 * n));
    }
    let samples = recorder.stop(at(5_000));
    assert_eq!(samples.len(), 5 * 8_000);
    let loud = loud_millis(&samples);
    assert_eq!(
        (loud[0], loud[loud.len() - 1], loud.len()),
        (2_000, 2_990, 100)
    );
}

#[test]
fn a_mix_adds_up_and_saturates() {
    let mut recorder = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::Mixed);
    let (mut a, mut b) = (Sender::new(LegIndex::A), Sender::new(LegIndex::B));
    a.amplitude = 30_000.0;
    b.amplitude = 30_000.0;
    for n in 0..50 {
        a.send(&mut recorder, at(20 * n));
        b.send(&mut recorder, at(20 * n));
    }
    let samples = recorder.stop(at(1_000));
    let peaks = (samples.iter().min().unwrap(), samples.iter().max().unwrap());
    assert_eq!(peaks, (&-32_768, &32_767));
    assert!(loudness(&samples) > 25_000.0, "clipped, not wrapped");
}

#[test]
fn a_pause_takes_no_time_in_the_file() {
    let mut recorder = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::LegA);
    let mut sender = Sender::new(LegIndex::A);
    for n in 0..500u64 {
        match n {
            100 => recorder.tape.pause(at(2_000), true),
            400 => recorder.tape.pause(at(8_000), false),
            _ => {}
        }
        sender.amplitude = if (100..400).contains(&n) {
            30_000.0
        } else {
            8_000.0
        };
        sender.send(&mut recorder, at(20 * n));
        recorder.tick(at(20 * n));
    }
    let samples = recorder.stop(at(10_000));
    assert_eq!(samples.len(), 4 * 8_000);
    assert_eq!(loud_millis(&samples).len(), 400, "no gap");
    assert!(
        samples.iter().all(|s| s.abs() < 9_000),
        "nothing of the pause"
    );
    let mut recorder = Recorder::with(&TapeSpec {
        paused: true,
        ..spec(RecordingFormat::Wav8k, RecordingTracks::LegA)
    });
    recorder.tick(at(5_000));
    recorder.tape.pause(at(5_000), false);
    assert_eq!(recorder.stop(at(5_500)).len(), 4_000);
}

#[test]
fn nothing_of_a_hidden_digit_is_in_the_file() {
    let mut recorder = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::Stereo);
    let (mut a, mut b) = (Sender::new(LegIndex::A), Sender::new(LegIndex::B));
    for n in 0..150u64 {
        // The key is down from 1.00 to 1.20 s: louder than speech. It is known 100 ms later.
        a.amplitude = if (50..60).contains(&n) {
            30_000.0
        } else {
            8_000.0
        };
        a.send(&mut recorder, at(20 * n));
        b.send(&mut recorder, at(20 * n));
        recorder.tick(at(20 * n));
        if n == 55 {
            let until_further_notice = MonoTime(u64::MAX);
            recorder
                .tape
                .suppress(LegIndex::A, at(1_000), until_further_notice);
        }
        if n == 61 {
            recorder.tape.suppress(LegIndex::A, at(1_000), at(1_200));
        }
    }
    let samples = recorder.stop(at(3_000));
    let leg = |channel: usize| -> Vec<i16> {
        samples
            .chunks_exact(2)
            .map(|frame| frame[channel])
            .collect()
    };
    assert!(leg(0).iter().all(|s| s.abs() < 9_000), "the digit is gone");
    let silent = 3_000 - 10 * loud_millis(&leg(0)).len();
    assert!(
        (200..=340).contains(&silent),
        "and little more than it: {silent} ms"
    );
    assert_eq!(
        loud_millis(&leg(1)).len(),
        300,
        "the other leg is untouched"
    );
}

#[test]
fn garbage_is_counted_and_does_no_harm() {
    let mut recorder = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::LegA);
    for packet in [&[][..], &[0x80; 5], &[0xff; 40]] {
        give(&mut recorder, LegIndex::A, at(10), packet);
    }
    give(&mut recorder, LegIndex::A, at(20), &rtp(1, 1, 1, &[]));
    give(
        &mut recorder,
        LegIndex::A,
        at(20),
        &rtp(1, 2, 1, &[0; 1_400]),
    );
    assert_eq!(recorder.tape.stats().bad_packets, 5);
    assert_eq!(recorder.stop(at(1_000)).len(), 8_000);
}

#[test]
fn a_leg_may_change_its_format_while_it_speaks() {
    let mut recorder = Recorder::new(RecordingFormat::Wav16k, RecordingTracks::LegA);
    let l16 = AudioFormat {
        codec: AudioCodec::L16,
        payload_type: PayloadType::new(96).unwrap(),
        clock_rate: ClockRateHz::new(16_000).unwrap(),
        ..pcmu()
    };
    let mut sender = Sender::new(LegIndex::A);
    for n in 0..50 {
        sender.send(&mut recorder, at(20 * n));
    }
    for n in 50..100u16 {
        let samples = (0..320).map(|k| ((PI * f64::from(k) / 20.0).sin() * 8_000.0) as i16);
        let payload: Vec<u8> = samples.flat_map(i16::to_be_bytes).collect();
        let sequence = sender.sequence.wrapping_add(n - 50);
        let packet = rtp(7, sequence, u32::from(n) * 320, &payload);
        recorder.tape.handle_packet(&TappedPacket {
            arrival: at(20 * u64::from(n)),
            leg: LegIndex::A,
            format: Some(l16),
            packet: &packet,
        });
    }
    let samples = recorder.stop(at(2_000));
    assert_eq!(samples.len(), 32_000);
    let quiet = samples
        .chunks(160)
        .filter(|ten| loudness(ten) < 4_000.0)
        .count();
    assert!(quiet <= 2, "{quiet} of 200 pieces are quiet");
}
