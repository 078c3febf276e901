use trunkline_edge_api::audio::AudioFormat;

use super::*;
use crate::codec::ENCODED_LEN_MAX;
use crate::codec::tests::{format, level_db};

/// What leaves: timestamp, marker, whether it is comfort noise, payload.
type Sent = (u32, bool, bool, Vec<u8>);

fn poll(transcoder: &mut Transcoder) -> Vec<Sent> {
    let mut out = [0; ENCODED_LEN_MAX];
    let mut sent = Vec::new();
    while let Some(packet) = transcoder.poll_packet(&mut out) {
        let payload = out[..packet.len].to_vec();
        sent.push((
            packet.timestamp,
            packet.marker,
            packet.is_comfort_noise,
            payload,
        ));
    }
    sent
}

fn pcmu(millis: u8) -> AudioFormat {
    format(AudioCodec::Pcmu, 8_000, millis)
}

fn l16() -> AudioFormat {
    format(AudioCodec::L16, 8_000, 20)
}

fn shape(sent: &[Sent]) -> Vec<(u32, bool, bool)> {
    sent.iter()
        .map(|&(timestamp, marker, is_noise, _)| (timestamp, marker, is_noise))
        .collect()
}

const AUDIO: [u8; 160] = [0x40; 160];
/// -40 dB, and two coefficients.
const NOISE: [u8; 3] = [40, 70, 150];

#[test]
fn noise_is_told_to_a_receiver_that_takes_it_and_the_next_words_are_marked() {
    let transcoder = Transcoder::new(&pcmu(20), &l16()).expect("formats of this build");
    let mut transcoder = transcoder.with_comfort_noise();
    transcoder.handle_packet(7, 0, &AUDIO);
    let mut sent = poll(&mut transcoder);
    transcoder.handle_comfort_noise(8, 160, &NOISE);
    sent.extend(poll(&mut transcoder));
    transcoder.handle_comfort_noise(9, 960, &NOISE[..1]);
    sent.extend(poll(&mut transcoder));
    transcoder.handle_packet(10, 1_600, &AUDIO);
    sent.extend(poll(&mut transcoder));
    let expected = [
        (0, true, false),
        (160, false, true),
        (960, false, true),
        (1_600, true, false),
    ];
    assert_eq!(shape(&sent), expected);
    assert_eq!((&sent[1].3[..], &sent[2].3[..]), (&NOISE[..], &NOISE[..1]));
    assert_eq!(transcoder.counters().concealed_millis, 0);
}

#[test]
fn receiver_without_comfort_noise_hears_a_packet_of_it() {
    let mut transcoder = Transcoder::new(&pcmu(20), &l16()).expect("formats of this build");
    transcoder.handle_packet(7, 0, &AUDIO);
    let mut sent = poll(&mut transcoder);
    for n in 0..10 {
        transcoder.handle_comfort_noise(8 + n, 160 + 160 * u32::from(n), &NOISE);
        sent.extend(poll(&mut transcoder));
    }
    transcoder.handle_packet(18, 4_000, &AUDIO);
    sent.extend(poll(&mut transcoder));
    let timestamps: Vec<u32> = sent.iter().map(|sent| sent.0).collect();
    let noise = (0..11).map(|n| 160 * n);
    assert_eq!(timestamps, noise.chain([4_000]).collect::<Vec<_>>());
    assert!(sent.iter().all(|sent| !sent.2));
    assert!(sent[11].1, "time was jumped over");
    let heard: Vec<i16> = sent[5..11]
        .iter()
        .flat_map(|sent| sent.3.chunks_exact(2))
        .map(|bytes| i16::from_be_bytes([bytes[0], bytes[1]]))
        .collect();
    let level = level_db(&heard) - 20.0 * 32_768f64.log10();
    assert!((level + 40.0).abs() < 2.0, "{level:.1} dB");
}

#[test]
fn remainder_before_the_noise_is_filled_up_and_not_held_back() {
    let transcoder = Transcoder::new(&pcmu(30), &l16()).expect("formats of this build");
    let mut transcoder = transcoder.with_comfort_noise();
    transcoder.handle_packet(7, 0, &[0x40; 240]);
    assert_eq!(shape(&poll(&mut transcoder)), [(0, true, false)]);
    transcoder.handle_comfort_noise(8, 240, &NOISE);
    let expected = [(160, false, false), (320, false, true)];
    assert_eq!(shape(&poll(&mut transcoder)), expected);
    transcoder.handle_packet(9, 1_200, &[0x40; 240]);
    assert_eq!(shape(&poll(&mut transcoder)), [(1_200, true, false)]);
}

#[test]
fn noise_that_comes_twice_too_late_first_or_empty_is_none() {
    let transcoder = Transcoder::new(&pcmu(20), &l16()).expect("formats of this build");
    let mut transcoder = transcoder.with_comfort_noise();
    transcoder.handle_comfort_noise(6, 0, &NOISE);
    assert_eq!(poll(&mut transcoder), []);
    transcoder.handle_packet(7, 0, &AUDIO);
    poll(&mut transcoder);
    transcoder.handle_comfort_noise(8, 160, &NOISE);
    poll(&mut transcoder);
    transcoder.handle_comfort_noise(8, 160, &NOISE);
    transcoder.handle_comfort_noise(5, 0, &NOISE);
    assert_eq!(poll(&mut transcoder), []);
    assert_eq!(transcoder.counters().late, 2);
    transcoder.handle_comfort_noise(9, 320, &[]);
    assert_eq!(poll(&mut transcoder), []);
    // One that nobody polls does not come after the words that follow.
    transcoder.handle_comfort_noise(10, 480, &NOISE);
    transcoder.handle_packet(11, 640, &AUDIO);
    assert_eq!(shape(&poll(&mut transcoder)), [(640, true, false)]);
}

#[test]
fn wideband_audio_is_told_the_level_alone() {
    let g722 = format(AudioCodec::G722, 8_000, 20);
    let wide = format(AudioCodec::L16, 16_000, 20);
    let transcoder = Transcoder::new(&g722, &wide).expect("formats of this build");
    let mut transcoder = transcoder.with_comfort_noise();
    transcoder.handle_packet(7, 0, &AUDIO);
    poll(&mut transcoder);
    transcoder.handle_comfort_noise(8, 160, &NOISE);
    let sent = poll(&mut transcoder);
    assert_eq!(
        (shape(&sent), &sent[0].3[..]),
        (vec![(320, false, true)], &NOISE[..1])
    );
}

#[test]
#[cfg(feature = "opus")]
fn pause_of_an_opus_sender_is_described() {
    use crate::codec::Encoder;

    let mut opus = format(AudioCodec::Opus, 48_000, 20);
    opus.opus.dtx = true;
    let rate = SampleRate::Hz8000;
    let mut generator = NoiseGenerator::new(rate);
    generator.handle_payload(&[55, 70]);
    let mut encoder = Encoder::new(&opus, rate).expect("a format of this build");
    let transcoder = Transcoder::new(&opus, &pcmu(20)).expect("formats of this build");
    let mut transcoder = transcoder.with_comfort_noise();
    let (mut sequence, mut noise) = (0u16, Vec::new());
    for n in 0..400 {
        let mut pcm = [0; 160];
        generator.fill(&mut pcm);
        let mut payload = [0; ENCODED_LEN_MAX];
        // Our encoder says nothing where libopus would mark the pause.
        let len = encoder.encode(&pcm, &mut payload).expect("20 ms");
        let marked = [0x08];
        let payload = if len == 0 {
            &marked[..]
        } else {
            &payload[..len]
        };
        transcoder.handle_packet(sequence, n * 960, payload);
        sequence += 1;
        let sent = poll(&mut transcoder);
        if len == 0 {
            assert_eq!(shape(&sent), [(n * 160, false, true)], "{n}");
            noise.push(sent[0].3.clone());
        } else {
            assert!(sent.iter().all(|sent| !sent.2));
        }
    }
    assert!(
        noise.len() > 30,
        "{} of 400 packets were pauses",
        noise.len()
    );
    let last = &noise[noise.len() - 1];
    assert!(last[0].abs_diff(55) < 10, "{last:?}");
}
