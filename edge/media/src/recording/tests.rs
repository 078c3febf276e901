use std::f64::consts::PI;

use trunkline_edge_api::{
    AudioCodec, AudioFormat, ClockRateHz, OpusOptions, PacketTime, PayloadType,
};

use super::*;
use crate::codec::g711::Law;
use crate::prompt::{Prompt, PromptLimits};

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
fn reordered_packets_and_jitter_leave_no_trace() {
    let smooth = {
        let mut recorder = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::LegA);
        let mut sender = Sender::new(LegIndex::A);
        for n in 0..100 {
            sender.send(&mut recorder, at(20 * n));
        }
        recorder.stop(at(2_000))
    };
    let mut recorder = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::LegA);
    let mut sender = Sender::new(LegIndex::A);
    let packets: Vec<Vec<u8>> = (0..100).map(|_| sender.packet(160)).collect();
    // Pairs swapped, everything but the first up to 45 ms late.
    let order: Vec<usize> = (0..100).map(|n| if n < 2 { n } else { n ^ 1 }).collect();
    for (n, index) in order.into_iter().enumerate() {
        let jitter = if n == 0 { 0 } else { (n * 37 % 45) as u64 };
        let now = at((20 * n as u64).max(20 * n as u64 + jitter - jitter % 20));
        give(&mut recorder, LegIndex::A, now, &packets[index]);
        recorder.tick(now);
    }
    let stats = recorder.tape.stats();
    assert!(recorder.stop(at(2_000)) == smooth);
    assert_eq!((stats.late_packets, stats.missing_packets), (0, 0));
}

#[test]
fn lost_packets_take_their_time_and_are_counted() {
    let mut recorder = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::LegA);
    let mut sender = Sender::new(LegIndex::A);
    for n in 0..200 {
        if n == 50 || (100..110).contains(&n) {
            sender.skip(160);
        } else {
            sender.send(&mut recorder, at(20 * n));
        }
        recorder.tick(at(20 * n));
    }
    let samples = recorder.stop(at(4_000));
    assert_eq!(samples.len(), 32_000);
    assert_eq!(recorder.tape.stats().missing_packets, 11);
    // What follows a gap stands where it stood without one, once concealment has faded out.
    let step = 2.0 * PI * 400.0 / 8_000.0;
    for n in (0..8_000).chain(8_240..16_000).chain(17_680..32_000) {
        let sent = Law::Mu.decode(Law::Mu.encode((8_000.0 * (step * n as f64).sin()) as i16));
        assert_eq!(samples[n], sent, "sample {n}");
    }
    assert_eq!(
        loudness(&samples[16_800..17_600]),
        0.0,
        "no concealment beyond 60 ms"
    );
}

#[test]
fn what_was_dropped_on_the_way_here_is_silence() {
    let mut recorder = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::LegA);
    let mut sender = Sender::new(LegIndex::A);
    for n in 0..100 {
        if (50..53).contains(&n) {
            sender.skip(160);
        } else {
            if n == 53 {
                recorder.tape.handle_drop(at(20 * n));
            }
            sender.send(&mut recorder, at(20 * n));
        }
        recorder.tick(at(20 * n));
    }
    let samples = recorder.stop(at(2_000));
    assert_eq!(loudness(&samples[8_000..8_480]), 0.0, "nothing is made up");
    assert_eq!(loud_millis(&samples).len(), 194);
}

#[test]
fn silence_that_was_not_sent_is_silence() {
    let mut recorder = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::LegA);
    let mut sender = Sender::new(LegIndex::A);
    for n in 0..300u64 {
        // DTX: for two seconds of every three nothing is sent, sequence numbers go on.
        if n % 150 < 50 {
            sender.send(&mut recorder, at(20 * n));
        } else {
            let sequence = sender.sequence;
            sender.skip(160);
            sender.sequence = sequence;
        }
        recorder.tick(at(20 * n));
    }
    let samples = recorder.stop(at(6_000));
    let loud = loud_millis(&samples);
    let expected: Vec<usize> = (0..1_000).chain(3_000..4_000).step_by(10).collect();
    assert_eq!(loud, expected);
}

type Jump = fn(u32) -> u32;

#[test]
fn timestamps_that_jump_or_stand_still_do_not_move_the_audio() {
    // Each row: what happens to the timestamps at the pause from 1 s to 3 s.
    let rows: [(&str, Jump); 4] = [
        ("they stand still", |timestamp| timestamp),
        ("half a cycle ahead", |timestamp| timestamp ^ 0x8000_0000),
        ("back by an hour", |timestamp| {
            timestamp.wrapping_sub(28_800_000)
        }),
        ("ahead by an hour", |timestamp| {
            timestamp.wrapping_add(28_800_000)
        }),
    ];
    for (name, jump) in rows {
        let mut recorder = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::LegA);
        let mut sender = Sender::new(LegIndex::A);
        for n in 0..250u64 {
            if n == 50 {
                sender.timestamp = jump(sender.timestamp);
            }
            if !(50..150).contains(&n) {
                sender.send(&mut recorder, at(20 * n));
            }
            recorder.tick(at(20 * n));
        }
        let samples = recorder.stop(at(5_000));
        assert_eq!(samples.len(), 40_000, "{name}");
        let loud = loud_millis(&samples);
        let second = loud.iter().position(|&millis| millis >= 1_000).expect(name);
        assert!(
            (2_980..=3_020).contains(&loud[second]),
            "{name}: {}",
            loud[second]
        );
        assert!((298..=302).contains(&loud.len()), "{name}: {}", loud.len());
    }
}

#[test]
fn a_sender_that_begins_anew_is_followed() {
    let mut recorder = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::LegA);
    let mut sender = Sender::new(LegIndex::A);
    for n in 0..150 {
        if n == 75 {
            sender = Sender {
                ssrc: 99,
                sequence: 3,
                timestamp: 5,
                ..sender
            };
        }
        sender.send(&mut recorder, at(20 * n));
    }
    let samples = recorder.stop(at(3_000));
    assert_eq!(loud_millis(&samples).len(), 300);
    assert_eq!(samples.len(), 24_000);
}

#[test]
fn a_stalled_network_loses_nothing_that_arrives_within_a_second() {
    let mut recorder = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::LegA);
    let mut sender = Sender::new(LegIndex::A);
    for n in 0..500u64 {
        // What is sent from 2.0 to 2.7 s arrives at once at 2.7 s.
        let arrival = if (100..135).contains(&n) {
            2_700
        } else {
            20 * n
        };
        sender.send(&mut recorder, at(arrival));
        recorder.tick(at(arrival));
    }
    let samples = recorder.stop(at(10_000));
    let loud = loud_millis(&samples);
    // All but the stall itself: what came late is played a little faster until it is caught up.
    assert!((925..=960).contains(&loud.len()), "{}", loud.len());
    assert_eq!(recorder.tape.stats().surplus_packets, 0);
    // The last second is where it belongs again.
    let early = loud.iter().take_while(|&&millis| millis < 9_000).count();
    assert!(loud.len() - early >= 98, "the call goes on to its end");
}

#[test]
fn a_clock_that_is_off_stays_in_step_for_an_hour() {
    for (name, drift_ppm) in [("fast", 200i64), ("slow", -200)] {
        let mut recorder = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::LegA);
        let mut sender = Sender::new(LegIndex::A);
        let mut arrival_micros = 0u64;
        let mut last_burst = 0;
        while arrival_micros < 3_600_000_000 {
            // A second of tone in every ten; quiet noise else.
            let is_loud = (arrival_micros / 1_000_000).is_multiple_of(10);
            sender.amplitude = if is_loud { 8_000.0 } else { 60.0 };
            if is_loud && arrival_micros / 10_000_000 > last_burst {
                last_burst = arrival_micros / 10_000_000;
            }
            let now = START.plus_nanos(arrival_micros * 1_000);
            let packet = sender.packet(160);
            give(&mut recorder, LegIndex::A, now, &packet);
            recorder.tick(now);
            arrival_micros += (20_000 - 20_000 * drift_ppm / 1_000_000) as u64;
        }
        let samples = recorder.stop(at(3_600_000));
        let off = samples.len() as i64 - 3_600 * 8_000;
        assert!(off.abs() <= 600, "{name}: {off}");
        // Every burst begins where the clock says: 720 ms would be the error without correction.
        for burst in (0..360).step_by(30) {
            let begin = burst * 80_000;
            let from = begin.max(1_600) - 1_600;
            let loud = samples[from..begin + 3_200]
                .iter()
                .position(|s| s.abs() > 2_000)
                .expect(name);
            let off = (from + loud) as i64 - begin as i64;
            assert!(
                off.abs() <= 600,
                "{name}: burst {burst} is off by {off} samples"
            );
        }
        assert_eq!(recorder.tape.stats().surplus_packets, 0, "{name}");
    }
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
fn the_file_plays_at_every_moment() {
    let mut recorder = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::LegA);
    let mut sender = Sender::new(LegIndex::A);
    assert!(recorder.write());
    assert_eq!(recorder.samples(), [], "a header from the beginning");
    for n in 0..500u64 {
        sender.send(&mut recorder, at(20 * n));
        recorder.tick(at(20 * n));
        let claimed = recorder.samples().len() as u64;
        let owed = 20 * n * 8;
        assert!(claimed <= owed, "{n}");
        // Up to a second since the header was written, and what is held back.
        assert!(claimed + 8 * 1_560 >= owed, "{n}: {claimed} of {owed}");
        let prompt = Prompt::parse(&recorder.file, None, &PromptLimits::default());
        assert_eq!(
            prompt.is_ok(),
            claimed > 0,
            "and it may be played to a caller"
        );
    }
}

#[test]
fn a_file_goes_on_where_an_earlier_life_left_it() {
    let mut recorder = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::LegA);
    let mut sender = Sender::new(LegIndex::A);
    for n in 0..150u64 {
        sender.send(&mut recorder, at(20 * n));
        recorder.tick(at(20 * n));
    }
    let mut file = recorder.file;
    let present = (file.len() - Tape::resume_head_len()) / 2;
    // A write that was interrupted.
    file.push(0x55);
    let mut other = Recorder::with(&TapeSpec {
        id: RecordingId(9),
        ..spec(RecordingFormat::Wav8k, RecordingTracks::LegA)
    });
    assert!(
        !other.tape.resume(&file, file.len() as u64, 0),
        "another recording's"
    );
    let mut stereo = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::Stereo);
    assert!(
        !stereo.tape.resume(&file, file.len() as u64, 0),
        "another form"
    );
    let mut resumed = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::LegA);
    assert!(!resumed.tape.resume(&file[..20], 20, 0), "cut");
    assert!(resumed.tape.resume(&file, file.len() as u64, 500_000_000));
    resumed.file = file;
    for n in 0..50u64 {
        sender.send(&mut resumed, at(20 * n));
        resumed.tick(at(20 * n));
    }
    let samples = resumed.stop(at(1_000));
    assert_eq!(samples.len(), present + 4_000 + 8_000);
    assert!(loudness(&samples[..present]) > 5_000.0);
    assert_eq!(loudness(&samples[present..present + 4_000]), 0.0);
    assert!(loudness(&samples[present + 4_000..]) > 5_000.0);
}

#[test]
fn a_full_disk_leaves_a_file_that_claims_what_it_holds() {
    let mut recorder = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::LegA);
    recorder.room = 20_001;
    let mut sender = Sender::new(LegIndex::A);
    let mut n = 0;
    loop {
        sender.send(&mut recorder, at(20 * n));
        if !recorder.tick(at(20 * n)) {
            break;
        }
        n += 1;
        assert!(n < 1_000, "the disk is full");
    }
    let header = recorder.tape.closing_header().expect("WAV has one");
    recorder.file[..header.len()].copy_from_slice(&header);
    let samples = recorder.samples();
    assert_eq!(samples.len(), (20_001 - header.len()) / 2);
    assert!(loudness(&samples) > 5_000.0);
    assert_eq!(recorder.tape.file_len(), 20_001);
}

#[test]
fn what_a_slow_disk_does_not_take_is_silence_of_the_same_length() {
    let mut recorder = Recorder::new(RecordingFormat::Wav16k, RecordingTracks::Stereo);
    let mut sender = Sender::new(LegIndex::A);
    assert!(recorder.write());
    for n in 0..1_000u64 {
        sender.send(&mut recorder, at(20 * n));
        // The disk hangs from the second second to the twelfth.
        recorder.tape.handle_timeout(at(20 * n));
        if !(100..600).contains(&n) {
            assert!(recorder.write());
        }
    }
    let samples = recorder.stop(at(20_000));
    assert_eq!(samples.len(), 2 * 20 * 16_000);
    let overrun = recorder.tape.stats().overrun_packets;
    // Four of the ten seconds were kept.
    assert!((250..=350).contains(&overrun), "{overrun}");
    assert!(loudness(&samples[2 * 15 * 16_000..]) > 3_000.0);
}

#[test]
fn a_sender_faster_than_time_is_bounded() {
    let mut recorder = Recorder::new(RecordingFormat::Wav8k, RecordingTracks::LegA);
    let mut sender = Sender::new(LegIndex::A);
    for n in 0..5_000u64 {
        sender.send(&mut recorder, at(2 * n));
        recorder.tick(at(2 * n));
    }
    let samples = recorder.stop(at(10_000));
    assert!(samples.len() <= 81_000, "{}", samples.len());
    assert!(recorder.tape.stats().surplus_packets > 3_000);
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

#[test]
fn packets_are_kept_as_they_came_under_addresses_of_nobody() {
    let mut recorder = Recorder::new(RecordingFormat::Pcap, RecordingTracks::Mixed);
    assert!(recorder.write());
    assert_eq!(recorder.file.len(), 24, "a header from the beginning");
    let (mut a, mut b) = (Sender::new(LegIndex::A), Sender::new(LegIndex::B));
    let mut sent = Vec::new();
    for n in 0..100u64 {
        for sender in [&mut a, &mut b] {
            let packet = sender.packet(160);
            give(&mut recorder, sender.leg, at(20 * n), &packet);
            sent.push((sender.leg, at(20 * n), packet));
        }
        if n == 50 {
            recorder.tape.suppress(LegIndex::A, at(900), at(1_000));
        }
        recorder.tick(at(20 * n));
    }
    recorder.tape.stop(at(2_000));
    assert!(recorder.write());
    let hidden = at(840)..=at(1_060);
    sent.retain(|(leg, at, _)| *leg == LegIndex::B || !hidden.contains(at));
    let word = |at: usize| u32::from_le_bytes(recorder.file[at..at + 4].try_into().unwrap());
    assert_eq!((word(0), word(20)), (0xa1b2_3c4d, 101));
    let mut offset = 24;
    for (leg, arrival, packet) in sent {
        let nanos = WALL_CLOCK + arrival.0 - START.0;
        assert_eq!(u64::from(word(offset)), nanos / 1_000_000_000);
        assert_eq!(u64::from(word(offset + 4)), nanos % 1_000_000_000);
        let len = word(offset + 8) as usize;
        assert_eq!((len, word(offset + 12) as usize), (28 + packet.len(), len));
        let ip = &recorder.file[offset + 16..offset + 16 + len];
        let words = ip[..20]
            .chunks(2)
            .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
        let sum: u32 = words.sum();
        assert_eq!(
            (sum & 0xffff) + (sum >> 16),
            0xffff,
            "the header's checksum"
        );
        assert_eq!(ip[15], leg as u8 + 1);
        assert_eq!(&ip[28..], packet);
        offset += 16 + len;
    }
    assert_eq!(offset, recorder.file.len());
}

#[test]
fn a_wav_file_ends_before_its_sizes_overflow() {
    let mut tape = Tape::new(
        &spec(RecordingFormat::Wav16k, RecordingTracks::Stereo),
        START,
        WALL_CLOCK,
    );
    let head = tape.closing_header().expect("WAV has one");
    // As if it had run for 18 hours and some minutes.
    assert!(tape.resume(&head, u64::from(u32::MAX) - 64_000, 0));
    assert!(!tape.is_full());
    for n in 0..30 {
        tape.handle_timeout(at(100 * n));
    }
    assert!(tape.is_full());
    let mut buffer = Vec::with_capacity(1 << 20);
    let mut end = 0;
    while let Some(offset) = tape.poll_write(&mut buffer) {
        end = end.max(offset + buffer.len() as u64);
        tape.handle_written(buffer.len());
    }
    assert!(
        end <= u64::from(u32::MAX) && end > u64::from(u32::MAX) - 8,
        "{end}"
    );
}
