use proptest::prelude::*;
use trunkline_edge_api::{AudioFormat, AudioFormats, OpusOptions, PacketTime, Ssrc};

use super::*;
use crate::codec::Encoder;
use crate::codec::tests::{error_share, speech};

const START: MonoTime = MonoTime(5_000_000_000);

fn format(codec: AudioCodec, payload_type: u8, clock_hz: u32, millis: u8) -> AudioFormat {
    AudioFormat {
        codec,
        payload_type: PayloadType::new(payload_type).expect("a payload type"),
        clock_rate: ClockRateHz::new(clock_hz).expect("a clock rate"),
        channels: 1,
        packet_time: PacketTime::from_millis(millis).expect("a packet time"),
        opus: OpusOptions::default(),
    }
}

fn pcmu(millis: u8) -> AudioFormat {
    format(AudioCodec::Pcmu, 0, 8_000, millis)
}

fn audio(formats: &[AudioFormat]) -> LegAudio {
    LegAudio {
        receive: AudioFormats::new(formats.to_vec()).expect("distinct formats"),
        send: formats[0],
        receive_events: None,
        send_events: None,
        comfort_noise: Some(PayloadType::CN),
    }
}

fn input(formats: &[AudioFormat], rate: SampleRate) -> ClockedInput {
    ClockedInput::new(&audio(formats), rate).expect("formats of this build")
}

/// A peer that says `samples`.
struct Sender {
    format: AudioFormat,
    encoder: Encoder,
    header: RtpHeader,
    said: usize,
}

impl Sender {
    fn new(format: AudioFormat) -> Self {
        Self {
            format,
            encoder: Encoder::new(&format, SampleRate::Hz8000).expect("a codec of this build"),
            header: RtpHeader {
                marker: false,
                payload_type: format.payload_type,
                sequence: 40_000,
                timestamp: 0xffff_0000,
                ssrc: Ssrc(7),
                header_len: 12,
                payload_len: 0,
            },
            said: 0,
        }
    }

    fn units(&self) -> u32 {
        self.format.clock_rate.get() / 1_000 * u32::from(self.format.packet_time.millis())
    }

    /// Says the next packet time of `voice`; the packet may get lost.
    fn say(&mut self, voice: impl Fn(usize) -> i16) -> (RtpHeader, Vec<u8>) {
        let len = self.encoder.packet_samples();
        let pcm: Vec<i16> = (self.said..self.said + len).map(voice).collect();
        self.said += len;
        let mut payload = vec![0; 1_500];
        let len = self
            .encoder
            .encode(&pcm, &mut payload)
            .expect("one packet time");
        payload.truncate(len);
        let header = self.header;
        self.header.sequence = header.sequence.wrapping_add(1);
        self.header.timestamp = header.timestamp.wrapping_add(self.units());
        (header, payload)
    }

    /// Takes a number, but no time.
    fn comfort_noise(&mut self, level: u8) -> (RtpHeader, [u8; 1]) {
        let header = RtpHeader {
            payload_type: PayloadType::CN,
            ..self.header
        };
        self.header.sequence = header.sequence.wrapping_add(1);
        (header, [level])
    }
}

/// A tone of 400 Hz: a period is 20 samples.
fn tone(n: usize) -> i16 {
    (8_000.0 * (n as f32 * std::f32::consts::TAU / 20.0).sin()) as i16
}

/// Words of 0.8 s at 125 Hz with 0.4 s of quiet in between.
fn words(n: usize) -> i16 {
    if n % 9_600 < 6_400 {
        (9_000.0 * (n as f32 * std::f32::consts::TAU / 64.0).sin()) as i16
    } else {
        (n % 7) as i16 * 8 - 24
    }
}

fn mean(pcm: &[i16]) -> u32 {
    pcm.iter().map(|s| u32::from(s.unsigned_abs())).sum::<u32>() / pcm.len() as u32
}

#[test]
fn everything_said_is_read_sample_by_sample_after_the_initial_delay() {
    for (packet_millis, frame_millis) in [
        (20, 20u32),
        (10, 20),
        (30, 20),
        (60, 20),
        (20, 10),
        (30, 10),
    ] {
        let mut sender = Sender::new(pcmu(packet_millis));
        let mut input = input(&[pcmu(packet_millis)], SampleRate::Hz8000);
        let mut read = Vec::new();
        for tick in 0..6_000 / frame_millis {
            let now = START.plus_millis(u64::from(tick * frame_millis));
            while sender.said < (tick * frame_millis * 8) as usize + 1 {
                let (header, payload) = sender.say(tone);
                assert_eq!(input.receive(now, &header, &payload), Inserted::Taken);
            }
            let mut out = vec![0; (frame_millis * 8) as usize];
            input.read(now, &mut out);
            read.extend_from_slice(&out);
        }
        let first = read.iter().position(|&s| s != 0).expect("something");
        assert!((320..=321).contains(&first), "40 ms, {first} samples");
        for (n, &sample) in read[320..].iter().enumerate() {
            let off = sample.abs_diff(tone(n));
            assert!(off < 300, "{packet_millis}/{frame_millis}: sample {n}");
        }
        assert_eq!(input.stats().concealments, 0);
    }
}

#[test]
fn lost_packet_is_concealed_and_counted() {
    let mut sender = Sender::new(pcmu(20));
    let mut input = input(&[pcmu(20)], SampleRate::Hz8000);
    let mut kinds = Vec::new();
    let mut out = [0; 160];
    for tick in 0..100 {
        let now = START.plus_millis(20 * tick);
        let (header, payload) = sender.say(tone);
        if tick != 50 {
            let _ = input.receive(now, &header, &payload);
        }
        kinds.push(input.read(now, &mut out));
    }
    assert_eq!(kinds[..2], [ReadKind::Silence; 2]);
    let concealed = kinds.iter().filter(|&&k| k == ReadKind::Concealed).count();
    assert_eq!(concealed, 1);
    assert_eq!(kinds[52], ReadKind::Concealed);
    let stats = input.stats();
    assert_eq!((stats.concealments, stats.concealed_millis), (1, 20));
}

/// What is read when every tenth packet of an Opus peer is lost, as the share of error in the
/// frames that had to be made up; `fec`: it repeats itself.
#[cfg(feature = "opus")]
fn error_of_lost_opus_packets(fec: bool) -> f64 {
    let mut opus = format(AudioCodec::Opus, 111, 48_000, 20);
    opus.opus.in_band_fec = fec;
    let said = speech(SampleRate::Hz8000, 4_000);
    let read = |loses: bool| {
        let mut input = input(&[opus], SampleRate::Hz8000);
        let mut sender = Sender::new(opus);
        sender.encoder.set_expected_loss(10);
        let mut frames = Vec::new();
        for n in 0..200 {
            let now = START.plus_millis(20 * n);
            let (header, payload) = sender.say(|n| said[n]);
            if !(loses && n % 10 == 5) {
                assert_eq!(input.receive(now, &header, &payload), Inserted::Taken);
            }
            let mut frame = [0; 160];
            frames.push((input.read(now, &mut frame), frame));
        }
        frames
    };
    let (intact, lossy) = (read(false), read(true));
    let mut pairs = (Vec::new(), Vec::new());
    for ((_, intact), (kind, lossy)) in intact.into_iter().zip(lossy) {
        if kind == ReadKind::Concealed {
            pairs.0.extend(intact);
            pairs.1.extend(lossy);
        }
    }
    assert!(pairs.0.len() >= 15 * 160);
    error_share(&pairs.0, &pairs.1)
}

#[test]
#[cfg(feature = "opus")]
fn lost_opus_packet_is_taken_from_the_one_behind_it() {
    let [concealed, recovered] = [false, true].map(error_of_lost_opus_packets);
    assert!(
        recovered < 0.5 * concealed,
        "{recovered} against {concealed}"
    );
}

#[test]
fn peer_that_went_away_is_silent_after_a_fifth_of_a_second() {
    let mut sender = Sender::new(pcmu(20));
    let mut input = input(&[pcmu(20)], SampleRate::Hz8000);
    let mut out = [0; 160];
    for tick in 0..1_000 {
        let now = START.plus_millis(20 * tick);
        if tick < 100 {
            let (header, payload) = sender.say(tone);
            let _ = input.receive(now, &header, &payload);
        }
        let kind = input.read(now, &mut out);
        if tick > 115 {
            assert_eq!((kind, out), (ReadKind::Silence, [0; 160]), "{tick}");
        }
    }
}

#[test]
fn comfort_noise_sounds_as_loud_as_stated_until_the_peer_speaks_again() {
    let mut sender = Sender::new(pcmu(20));
    let mut input = input(&[pcmu(20)], SampleRate::Hz8000);
    let mut out = [0; 160];
    let mut levels = Vec::new();
    for tick in 0..400 {
        let now = START.plus_millis(20 * tick);
        match tick {
            0..100 | 300.. => {
                let (header, payload) = sender.say(tone);
                let _ = input.receive(now, &header, &payload);
            }
            100 | 150 => {
                let (header, payload) = sender.comfort_noise(40);
                let _ = input.receive(now, &header, &payload);
            }
            _ => {}
        }
        if (100..300).contains(&tick) {
            sender.said += 160;
            sender.header.timestamp = sender.header.timestamp.wrapping_add(160);
        }
        let kind = input.read(now, &mut out);
        levels.push(mean(&out));
        if (103..298).contains(&tick) {
            assert_eq!(kind, ReadKind::Silence, "{tick}");
        }
    }
    // 40 dB below overload, uniformly distributed: a mean of 32,768 / 100 * sqrt(3) / 2.
    assert!(
        levels[103..298]
            .iter()
            .all(|level| (230..340).contains(level))
    );
    assert!(levels[10..100].iter().all(|&level| level > 4_000));
    assert!(levels[304..].iter().all(|&level| level > 4_000));
    assert_eq!(input.stats().concealments, 0);
}

/// Hours with a sender whose clock is off by `ppm`, and what the input made of them.
fn drift(ppm: i64, hours: u64) -> InputStats {
    let mut sender = Sender::new(pcmu(20));
    let mut input = input(&[pcmu(20)], SampleRate::Hz8000);
    let packet_nanos = (20_000_000 - 20 * ppm) as u64;
    let mut sent_at = START;
    let mut out = [0; 160];
    for tick in 0..hours * 180_000 {
        // The clock of the tick is a little uneven, as a worker's is.
        let now = START.plus_nanos(20_000_000 * tick + tick % 7 * 200_000);
        while sent_at <= now {
            let (header, payload) = sender.say(words);
            assert_eq!(input.receive(sent_at, &header, &payload), Inserted::Taken);
            sent_at = sent_at.plus_nanos(packet_nanos);
        }
        input.read(now, &mut out);
        if tick % 50 == 0 {
            let depth = input.stats().jitter.depth_millis;
            assert!(depth <= 80, "{depth} ms after {tick} ticks");
        }
    }
    input.stats()
}

#[test]
fn sender_that_is_too_fast_for_hours_is_shortened_and_nothing_is_lost() {
    let stats = drift(200, 6);
    // 4.3 s in pieces of at most 10 ms.
    assert!(stats.shortened >= 430, "{stats:?}");
    assert_eq!(stats.lengthened, 0);
    assert_eq!(stats.concealments, 0, "{stats:?}");
    assert_eq!((stats.jitter.late, stats.jitter.flushed), (0, 0));
}

#[test]
fn sender_that_is_too_slow_for_hours_is_lengthened_and_the_buffer_never_runs_dry() {
    let stats = drift(-200, 6);
    assert!(stats.lengthened >= 430, "{stats:?}");
    assert_eq!(stats.shortened, 0);
    assert_eq!(stats.concealments, 0, "{stats:?}");
}

#[test]
fn hour_of_silence_leaves_nothing_behind() {
    let mut sender = Sender::new(pcmu(20));
    let mut input = input(&[pcmu(20)], SampleRate::Hz8000);
    let mut out = [0; 160];
    let mut kinds = Vec::new();
    for tick in 0..180_200u64 {
        // The sender's clock is 200 ppm fast, also while it says nothing.
        let now = START.plus_millis(20 * tick);
        if !(100..180_100).contains(&tick) {
            let (header, payload) = sender.say(tone);
            let _ = input.receive(now, &header, &payload);
        } else {
            let step = 160 + u32::from(tick % 31 == 0);
            sender.header.timestamp = sender.header.timestamp.wrapping_add(step);
        }
        kinds.push(input.read(now, &mut out));
    }
    let spoken = &kinds[180_100..];
    let first = spoken.iter().position(|&kind| kind == ReadKind::Sound);
    assert!(first.is_some_and(|frames| frames <= 3), "{first:?}");
    assert!(input.stats().jitter.depth_millis <= 60);
}

#[test]
fn payload_type_may_change_in_mid_stream_even_to_another_clock() {
    let formats = [
        pcmu(20),
        format(AudioCodec::Pcma, 8, 8_000, 20),
        format(AudioCodec::L16, 97, 16_000, 20),
    ];
    let mut input = input(&formats, SampleRate::Hz8000);
    let mut senders = formats.map(Sender::new);
    let (mut sequence, mut sound) = (0, 0);
    let mut out = [0; 160];
    for tick in 0..300 {
        let now = START.plus_millis(20 * tick);
        let sender = &mut senders[tick as usize / 50 % 3];
        sender.header.sequence = sequence;
        let (header, payload) = sender.say(tone);
        sequence += 1;
        let _ = input.receive(now, &header, &payload);
        let kind = input.read(now, &mut out);
        sound += u32::from(kind == ReadKind::Sound && mean(&out) > 4_000);
    }
    assert!(sound >= 270, "{sound} of 300 frames");
    assert_eq!(input.stats().bad_frames, 0);
}

#[test]
fn every_codec_is_read_at_every_rate() {
    let formats = [
        pcmu(20),
        format(AudioCodec::G722, 9, 8_000, 20),
        format(AudioCodec::L16, 97, 16_000, 20),
    ];
    for format in formats {
        for rate in SampleRate::ALL {
            let mut sender = Sender::new(format);
            let mut input = input(&[format], rate);
            let mut out = vec![0; rate.samples(20)];
            let mut loud = 0;
            for tick in 0..100 {
                let now = START.plus_millis(20 * tick);
                let (header, payload) = sender.say(tone);
                let _ = input.receive(now, &header, &payload);
                input.read(now, &mut out);
                loud += u32::from(mean(&out) > 4_000);
            }
            assert!(loud >= 96, "{format:?} at {rate:?}: {loud}");
        }
    }
}

proptest! {
    #[test]
    fn any_packets_make_exactly_a_frame_each(
        packets in proptest::collection::vec(
            (0u8..20, any::<(u16, u32)>(), any::<bool>(), 0usize..400, 0u64..60), 0..300),
        rate in prop_oneof![Just(SampleRate::Hz8000), Just(SampleRate::Hz16000)],
    ) {
        let formats = [
            pcmu(20),
            format(AudioCodec::G722, 9, 8_000, 20),
            format(AudioCodec::L16, 15, 48_000, 20),
        ];
        let mut input = input(&formats, rate);
        let mut now = START;
        let mut out = vec![0; rate.samples(20)];
        for (n, (payload_type, (sequence, timestamp), in_order, len, millis)) in
            packets.into_iter().enumerate()
        {
            let (sequence, timestamp) =
                if in_order { (n as u16, 160 * n as u32) } else { (sequence, timestamp) };
            let header = RtpHeader {
                marker: false,
                payload_type: PayloadType::new(payload_type).expect("below 128"),
                sequence,
                timestamp,
                ssrc: Ssrc(7),
                header_len: 12,
                payload_len: len,
            };
            let _ = input.receive(now, &header, &vec![payload_type; len]);
            now = now.plus_millis(millis);
            input.read(now, &mut out);
            let stats = input.stats();
            prop_assert!(stats.jitter.depth_millis <= 320);
        }
    }
}
