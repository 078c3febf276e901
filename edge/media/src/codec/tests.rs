use std::f64::consts::TAU;

use proptest::prelude::*;
use trunkline_edge_api::audio::{AudioCodec, AudioFormat, OpusOptions, PacketTime};
use trunkline_edge_api::{ClockRateHz, PayloadType};

use super::*;

pub(crate) fn format(codec: AudioCodec, clock_hz: u32, millis: u8) -> AudioFormat {
    AudioFormat {
        codec,
        payload_type: PayloadType::new(96).expect("seven bits"),
        clock_rate: ClockRateHz::new(clock_hz).expect("a clock"),
        channels: if codec == AudioCodec::Opus { 2 } else { 1 },
        packet_time: PacketTime::from_millis(millis).expect("a packet time"),
        opus: OpusOptions::default(),
    }
}

/// A voice: a gliding pitch through two formants, in syllables of 250 ms with pauses, telephone
/// bandwidth, at about -20 dB of full scale.
pub(crate) fn speech(rate: SampleRate, millis: u32) -> Vec<i16> {
    let hz = f64::from(rate.hz());
    let mut phase = 0.0;
    (0..rate.samples(millis))
        .map(|n| {
            let time = n as f64 / hz;
            let pitch = 120.0 + 25.0 * (TAU * 0.7 * time).sin();
            phase += TAU * pitch / hz;
            let syllable = (TAU * 2.0 * time).sin().max(0.0).sqrt();
            let formants = [600.0 + 200.0 * (TAU * 1.3 * time).sin(), 1_700.0];
            let voice: f64 = (1..)
                .map(f64::from)
                .take_while(|k| k * pitch < 3_300.0)
                .map(|k| {
                    let distance = formants.map(|f| ((k * pitch - f) / 250.0).powi(2));
                    let gain = 0.05 + (-distance[0]).exp() + 0.4 * (-distance[1]).exp();
                    gain * (k * phase).sin()
                })
                .sum();
            (3_000.0 * syllable * voice) as i16
        })
        .collect()
}

/// Root mean square in dB of one.
pub(crate) fn level_db(samples: &[i16]) -> f64 {
    let energy: f64 = samples.iter().map(|&s| f64::from(s).powi(2)).sum();
    10.0 * (energy / samples.len() as f64).max(1e-9).log10()
}

/// Energy of the difference, as a share of the energy of `intact`.
pub(crate) fn error_share(intact: &[i16], other: &[i16]) -> f64 {
    assert_eq!(intact.len(), other.len());
    let square = |sample: f64| sample * sample;
    let pairs = intact.iter().zip(other);
    let error: f64 = pairs
        .map(|(&a, &b)| square(f64::from(a) - f64::from(b)))
        .sum();
    error / intact.iter().map(|&s| square(f64::from(s))).sum::<f64>()
}

/// All formats of this build, at packet times that fit a packet.
pub(super) fn formats() -> Vec<AudioFormat> {
    let mut formats = vec![
        format(AudioCodec::Pcmu, 8_000, 20),
        format(AudioCodec::Pcma, 8_000, 30),
        format(AudioCodec::G722, 8_000, 20),
        format(AudioCodec::L16, 8_000, 10),
        format(AudioCodec::L16, 16_000, 20),
        format(AudioCodec::L16, 48_000, 10),
    ];
    if cfg!(feature = "opus") {
        formats.push(format(AudioCodec::Opus, 48_000, 20));
    }
    formats
}

/// Signal to noise in dB at the delay and gain where `output` matches `input` best, over a part of
/// the middle that holds a whole syllable.
fn best_snr(input: &[i16], output: &[i16], delay_max: usize) -> f64 {
    let (start, len) = (input.len() / 2, input.len() / 5);
    let (input, output) = (&input[start..], &output[start..]);
    (0..delay_max)
        .map(|delay| {
            let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
            for (&x, &y) in input[..len].iter().zip(&output[delay..]) {
                let (x, y) = (f64::from(x), f64::from(y));
                xx += x * x;
                xy += x * y;
                yy += y * y;
            }
            // What remains of the output when the input's share is taken out.
            let signal = xy * xy / xx;
            10.0 * (signal / (yy - signal).max(1.0)).log10()
        })
        .fold(f64::MIN, f64::max)
}

fn encode_all(format: &AudioFormat, rate: SampleRate, pcm: &[i16]) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(format, rate).expect("a format of this build");
    pcm.chunks_exact(encoder.packet_samples())
        .map(|packet| {
            let mut out = [0; ENCODED_LEN_MAX];
            let len = encoder.encode(packet, &mut out).expect("one packet time");
            out[..len].to_vec()
        })
        .collect()
}

fn decode_all(format: &AudioFormat, rate: SampleRate, packets: &[Vec<u8>]) -> Vec<i16> {
    let mut decoder = Decoder::new(format, rate).expect("a format of this build");
    let mut pcm = Vec::new();
    for packet in packets {
        let mut out = [0; DECODED_LEN_MAX];
        let len = decoder.decode(packet, &mut out).expect("a good payload");
        pcm.extend_from_slice(&out[..len]);
    }
    pcm
}

#[test]
fn speech_survives_every_codec_at_every_rate() {
    for format in formats() {
        for rate in SampleRate::ALL {
            let pcm = speech(rate, 1_800);
            let out = decode_all(&format, rate, &encode_all(&format, rate, &pcm));
            assert_eq!(out.len(), pcm.len(), "{format:?} at {rate:?}");
            let snr = best_snr(&pcm, &out, rate.samples(15));
            // Opus keeps what is heard rather than the waveform.
            let least = if format.codec == AudioCodec::Opus {
                3.0
            } else {
                28.0
            };
            assert!(snr > least, "{:?} at {rate:?}: {snr:.1} dB", format.codec);
        }
    }
}

#[test]
fn recorded_speech_survives_every_codec() {
    let ulaw = include_bytes!("../../../../tests/vectors/speech/caller.ulaw");
    let pcm: Vec<i16> = ulaw
        .iter()
        .map(|&code| g711::Law::Mu.decode(code))
        .collect();
    for format in formats() {
        let rate = SampleRate::Hz8000;
        let out = decode_all(&format, rate, &encode_all(&format, rate, &pcm));
        let snr = best_snr(&pcm, &out, rate.samples(15));
        let least = match format.codec {
            AudioCodec::Opus => 6.0,
            AudioCodec::G722 => 22.0,
            AudioCodec::L16 => 26.0,
            _ => 30.0,
        };
        assert!(snr > least, "{:?}: {snr:.1} dB", format.codec);
        let difference = level_db(&out) - level_db(&pcm[..out.len()]);
        assert!(
            difference.abs() < 1.0,
            "{:?}: {difference:.2} dB",
            format.codec
        );
    }
}

#[test]
fn speech_survives_every_pair() {
    for from in formats() {
        for to in formats() {
            let mut transcoder = Transcoder::new(&from, &to).expect("formats of this build");
            let rate = transcoder.rate();
            let pcm = speech(rate, 1_800);
            let mut packets = Vec::new();
            let (mut timestamp, step) = (0u32, Encoder::new(&from, rate).expect("checked"));
            let units = step.packet_samples() as u32 * (from.clock_rate.get() / 1_000)
                / (rate.hz() / 1_000);
            for (n, payload) in encode_all(&from, rate, &pcm).iter().enumerate() {
                transcoder.handle_packet(n as u16, timestamp, payload);
                timestamp += units;
                let mut out = [0; ENCODED_LEN_MAX];
                while let Some(packet) = transcoder.poll_packet(&mut out) {
                    packets.push(out[..packet.len].to_vec());
                }
            }
            let out = decode_all(&to, rate, &packets);
            assert_eq!(out.len(), pcm.len(), "{:?} to {:?}", from.codec, to.codec);
            let snr = best_snr(&pcm, &out, rate.samples(20));
            let opus = [from.codec, to.codec].contains(&AudioCodec::Opus);
            let least = if opus { 2.0 } else { 26.0 };
            assert!(
                snr > least,
                "{:?} to {:?}: {snr:.1} dB",
                from.codec,
                to.codec
            );
            assert_eq!(transcoder.counters().concealed_millis, 0);
            assert_eq!(transcoder.counters().restarts, 0);
        }
    }
}

#[test]
fn formats_that_are_not_ours_are_refused_with_the_reason() {
    let refused = |format: AudioFormat| {
        Decoder::new(&format, SampleRate::Hz8000)
            .map(|_| ())
            .map_err(|error| error.reason)
    };
    let mut stereo = format(AudioCodec::Pcmu, 8_000, 20);
    stereo.channels = 2;
    assert_eq!(refused(stereo), Err(UnsupportedReason::Channels));
    let wide = format(AudioCodec::Pcma, 16_000, 20);
    assert_eq!(refused(wide), Err(UnsupportedReason::ClockRate));
    let g722 = format(AudioCodec::G722, 16_000, 20);
    assert_eq!(refused(g722), Err(UnsupportedReason::ClockRate));
    let disc = format(AudioCodec::L16, 44_100, 20);
    assert_eq!(refused(disc), Err(UnsupportedReason::ClockRate));
    let long = format(AudioCodec::L16, 48_000, 60);
    let encoder = Encoder::new(&long, SampleRate::Hz48000).map(|_| ());
    assert_eq!(
        encoder.map_err(|e| e.reason),
        Err(UnsupportedReason::PacketTime)
    );
}

#[cfg(not(feature = "opus"))]
#[test]
fn a_build_without_opus_refuses_it() {
    let opus = format(AudioCodec::Opus, 48_000, 20);
    let decoder = Decoder::new(&opus, SampleRate::Hz8000).map(|_| ());
    assert_eq!(
        decoder.map_err(|e| e.reason),
        Err(UnsupportedReason::NotBuilt)
    );
}

#[test]
fn an_encoder_takes_one_packet_time_and_needs_its_room() {
    for format in formats() {
        let mut encoder = Encoder::new(&format, SampleRate::Hz8000).expect("checked");
        let pcm = vec![0; encoder.packet_samples()];
        let mut out = [0; ENCODED_LEN_MAX];
        assert_eq!(
            encoder.encode(&pcm[1..], &mut out),
            Err(EncodeError::Length)
        );
        assert_eq!(encoder.encode(&pcm, &mut []), Err(EncodeError::NoRoom));
        assert!(encoder.encode(&pcm, &mut out).is_ok());
    }
}

#[test]
fn a_lost_packet_is_bridged_by_every_decoder() {
    for format in formats() {
        for rate in SampleRate::ALL {
            let pcm = speech(rate, 600);
            let packets = encode_all(&format, rate, &pcm);
            let mut decoder = Decoder::new(&format, rate).expect("checked");
            let mut out = [0; DECODED_LEN_MAX];
            // Up to the loudest part of a syllable.
            let mut before = Vec::new();
            for packet in &packets[..packets.len() / 5] {
                let len = decoder.decode(packet, &mut out).expect("a good payload");
                before.extend_from_slice(&out[..len]);
            }
            let gap = &mut out[..rate.samples(10)];
            decoder.conceal(gap);
            let spoken = level_db(&before[before.len() - gap.len()..]);
            assert!(
                (level_db(gap) - spoken).abs() < 6.0,
                "{:?} {rate:?}",
                format.codec
            );
        }
    }
}

proptest! {
    #[test]
    fn any_payload_decodes_or_is_bad(
        index in 0..7usize,
        rate in 0..3usize,
        room in 0..=DECODED_LEN_MAX,
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1_500), 1..4),
    ) {
        let formats = formats();
        let format = &formats[index % formats.len()];
        let rate = SampleRate::ALL[rate];
        let mut decoder = Decoder::new(format, rate).expect("checked");
        let mut out = vec![0; room];
        for payload in &payloads {
            let units = u64::from(decoder.duration(payload));
            let expected = units * u64::from(rate.hz()) / u64::from(format.clock_rate.get());
            prop_assert!(units <= u64::from(format.clock_rate.get()) * 120 / 1_000);
            if let Ok(len) = decoder.decode(payload, &mut out) {
                prop_assert!(units > 0);
                prop_assert!((len as u64).abs_diff(expected) <= 1);
            }
            let gap = room.min(960);
            decoder.recover(payload, &mut out[..gap]);
            decoder.conceal(&mut out[..gap]);
        }
    }

    #[test]
    fn any_packets_make_packets_whose_time_is_consistent(
        from in 0..7usize,
        to in 0..7usize,
        packets in prop::collection::vec(
            (
                prop_oneof![4 => 1..3u16, 1 => any::<u16>()],
                prop_oneof![4 => Just(160u32), 2 => 0..20_000u32, 1 => any::<u32>()],
                prop_oneof![
                    4 => prop::collection::vec(any::<u8>(), 160),
                    1 => prop::collection::vec(any::<u8>(), 0..1_500),
                ],
                any::<bool>(),
            ),
            1..40,
        ),
    ) {
        let formats = formats();
        let from = &formats[from % formats.len()];
        let to = &formats[to % formats.len()];
        let mut transcoder = Transcoder::new(from, to).expect("checked");
        let rate = transcoder.rate();
        let samples = Encoder::new(to, rate).expect("checked").packet_samples() as u64;
        let step = (samples * u64::from(to.clock_rate.get()) / u64::from(rate.hz())) as u32;
        let (mut sequence, mut timestamp) = (0u16, 0u32);
        let mut expected = None;
        for (ahead, later, payload, poll) in &packets {
            sequence = sequence.wrapping_add(*ahead);
            timestamp = timestamp.wrapping_add(*later);
            transcoder.handle_packet(sequence, timestamp, payload);
            let dropped = transcoder.counters().dropped;
            if !poll {
                expected = None;
                continue;
            }
            let mut out = [0; ENCODED_LEN_MAX];
            let mut made = 0;
            while let Some(packet) = transcoder.poll_packet(&mut out) {
                prop_assert!(packet.len > 0 && packet.len <= ENCODED_LEN_MAX);
                if let Some(expected) = expected {
                    // Without a mark, time goes on by exactly one packet.
                    prop_assert!(packet.marker || packet.timestamp == expected);
                }
                expected = Some(packet.timestamp.wrapping_add(step));
                made += 1;
            }
            // A packet, a concealed gap, and what fills up a remainder.
            prop_assert!(made <= 30);
            prop_assert_eq!(transcoder.counters().dropped, dropped);
        }
    }
}
