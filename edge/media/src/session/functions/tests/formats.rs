//! One format becomes another on its way through a session: every pair, every packet time, and
//! what a peer that loses packets is helped with.

use super::*;
use crate::audio::SampleRate;
use crate::codec::tests::{error_share, level_db, speech};
use crate::codec::{DECODED_LEN_MAX, Decoder, ENCODED_LEN_MAX, Encoder};

/// RTP payload types and clocks as offers have them; Opus is announced with two channels.
fn format(codec: AudioCodec, millis: u8) -> AudioFormat {
    let (number, clock_hz, channels) = match codec {
        AudioCodec::Pcmu => (0, 8_000, 1),
        AudioCodec::Pcma => (8, 8_000, 1),
        AudioCodec::G722 => (9, 8_000, 1),
        AudioCodec::L16 => (97, 16_000, 1),
        AudioCodec::Opus => (111, 48_000, 2),
    };
    AudioFormat {
        codec,
        payload_type: pt(number),
        clock_rate: ClockRateHz::new(clock_hz).expect("a clock"),
        channels,
        packet_time: PacketTime::from_millis(millis).expect("a packet time"),
        opus: OpusOptions::default(),
    }
}

fn codecs() -> impl Iterator<Item = AudioCodec> {
    let is_built = |codec: &AudioCodec| cfg!(feature = "opus") || *codec != AudioCodec::Opus;
    AudioCodec::ALL.into_iter().filter(is_built)
}

/// A packet of A's peer, which is not to be dropped.
fn say(call: &mut Call, packet: &[u8]) {
    let verdict = call.receive(A, packet);
    assert!(!matches!(verdict, Verdict::Drop(_)), "{verdict:?}");
}

fn converting(from: AudioFormat, to: AudioFormat) -> Call {
    Call::new(&[], [audio(from, false), audio(to, false)])
}

/// `pcm` at 16 kHz in payloads of `format`.
fn payloads(format: &AudioFormat, pcm: &[i16], expected_loss: u8) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(format, SampleRate::Hz16000).expect("a format of this build");
    encoder.set_expected_loss(expected_loss);
    pcm.chunks_exact(encoder.packet_samples())
        .map(|packet| {
            let mut out = [0; ENCODED_LEN_MAX];
            let len = encoder.encode(packet, &mut out).expect("one packet");
            out[..len].to_vec()
        })
        .collect()
}

/// What `sent` sounds like at 16 kHz.
fn heard(format: &AudioFormat, sent: &[Out]) -> Vec<i16> {
    let mut decoder = Decoder::new(format, SampleRate::Hz16000).expect("a format of this build");
    let mut pcm = Vec::new();
    for out in sent {
        let mut samples = [0; DECODED_LEN_MAX];
        let len = decoder
            .decode(&out.payload, &mut samples)
            .expect("a good payload");
        pcm.extend_from_slice(&samples[..len]);
    }
    pcm
}

/// RTP units of a packet; G.722 counts at 8 kHz what it samples at 16 (RFC 3551 §4.5.2).
fn step(format: &AudioFormat) -> u32 {
    format.clock_rate.get() / 1_000 * u32::from(format.packet_time.millis())
}

#[test]
fn every_codec_and_packet_time_becomes_every_other_in_one_stream_of_the_same_sound() {
    const MILLIS: u32 = 600;
    let pcm = speech(SampleRate::Hz16000, MILLIS);
    let times = [10u8, 20, 30, 40, 50, 60];
    // Opus has no frames of 30 and 50 ms; L16 beyond 40 ms would not fit a packet.
    let has = |codec, millis: u8| match codec {
        AudioCodec::Opus => !matches!(millis, 30 | 50),
        AudioCodec::L16 => millis <= 40,
        _ => true,
    };
    let formats: Vec<AudioFormat> = codecs()
        .flat_map(|codec| times.map(|millis| (codec, millis)))
        .filter(|(codec, millis)| has(*codec, *millis))
        .map(|(codec, millis)| format(codec, millis))
        .collect();
    for from in &formats {
        let payloads = payloads(from, &pcm, 0);
        for to in formats.iter().filter(|to| to.codec != from.codec) {
            let name = format!("{from:?} to {to:?}");
            let mut call = converting(*from, *to);
            for (n, payload) in payloads.iter().enumerate() {
                let timestamp = (n as u32).wrapping_mul(step(from));
                let number = from.payload_type.get();
                say(&mut call, &rtp(number, n as u16, timestamp, payload));
            }
            let sent = call.take_sent(B);
            // All but a remainder shorter than a packet.
            let whole = MILLIS / u32::from(to.packet_time.millis());
            let said = payloads.len() as u32 * u32::from(from.packet_time.millis());
            assert_eq!(
                sent.len() as u32,
                said / u32::from(to.packet_time.millis()),
                "{name}"
            );
            assert!(sent.len() as u32 + 1 >= whole, "{name}");
            assert_one_stream(&sent, SSRC[1]);
            assert!(
                sent.iter()
                    .all(|out| out.header.payload_type == to.payload_type)
            );
            for pair in sent.windows(2) {
                let [before, after] = [0, 1].map(|n| pair[n].header.timestamp);
                assert_eq!(after.wrapping_sub(before), step(to), "{name}");
            }
            let heard = heard(to, &sent);
            let difference = level_db(&heard) - level_db(&pcm[..heard.len()]);
            assert!(difference.abs() < 2.5, "{name}: {difference:.2} dB");
        }
    }
}

/// -40 dB, and a coefficient.
const NOISE: [u8; 2] = [40, 70];

/// A's peer speaks, sends comfort noise, and speaks again a second later.
fn speech_noise_speech(call: &mut Call, from: &AudioFormat) -> Vec<Out> {
    let pcm = speech(SampleRate::Hz16000, 200);
    let payloads = payloads(from, &pcm, 0);
    let number = from.payload_type.get();
    let mut sequence = 0;
    let mut timestamp = 0;
    for second in [0, 1] {
        for payload in &payloads {
            say(call, &rtp(number, sequence, timestamp, payload));
            sequence += 1;
            timestamp += step(from);
        }
        if second == 0 {
            say(call, &rtp(13, sequence, timestamp, &NOISE));
            sequence += 1;
            timestamp += 8_000;
        }
    }
    call.take_sent(B)
}

#[test]
fn comfort_noise_crosses_every_pair_of_formats_at_8_khz_in_their_one_stream() {
    let at_8_khz = |codec: &AudioCodec| format(*codec, 20).clock_rate == ClockRateHz::NARROWBAND;
    for from in codecs().filter(at_8_khz) {
        for to in codecs().filter(at_8_khz).filter(|to| *to != from) {
            let (from, to) = (format(from, 20), format(to, 20));
            let name = format!("{:?} to {:?}", from.codec, to.codec);
            // Both sides have agreed on comfort noise, so it has a route.
            let mut call = Call::new(&[13], [audio(from, false), audio(to, false)]);
            let sent = speech_noise_speech(&mut call, &from);
            assert_one_stream(&sent, SSRC[1]);
            assert_eq!(sent.len(), 21, "{name}");
            let base = sent[0].header.timestamp;
            for (n, out) in sent.iter().enumerate() {
                let expected = match n {
                    0..=10 => n as u32 * STEP,
                    _ => (n as u32 - 1) * STEP + 8_000,
                };
                let since = out.header.timestamp.wrapping_sub(base);
                assert_eq!(since, expected, "{name} {n}");
                let is_noise = out.header.payload_type == PayloadType::CN;
                assert_eq!(is_noise, n == 10, "{name} {n}");
            }
            let noise = &sent[10];
            assert_eq!(noise.payload, NOISE, "{name}");
            assert!(!noise.header.marker, "{name}");
        }
    }
}

#[cfg(feature = "opus")]
mod opus {
    use opusic_c::{Application, Channels};

    use super::*;

    /// B reports that it missed so many 256ths of what it was sent.
    fn report_loss(call: &mut Call, fraction_lost: u8) {
        let mut report = vec![0x81, 201, 0, 7, 0, 0, 0, 7];
        report.extend_from_slice(&SSRC[1].0.to_be_bytes());
        report.extend_from_slice(&[fraction_lost, 0, 0, 9]);
        report.extend_from_slice(&[0; 16]);
        let verdict = call.receive(B, &report);
        assert!(matches!(verdict, Verdict::Forward(_)), "{verdict:?}");
    }

    /// How many of `sent`, mono packets of 20 ms by SILK, describe the one before each (RFC 6716
    /// §4.2.3).
    fn second_descriptions(sent: &[Out]) -> usize {
        sent.iter().filter(|out| out.payload[1] & 0x40 != 0).count()
    }

    /// A ulaw caller speaks for two seconds to an Opus peer that reports `fraction_lost`.
    fn descriptions_after_report(in_band_fec: bool, fraction_lost: u8) -> [usize; 2] {
        let mut opus = format(AudioCodec::Opus, 20);
        opus.opus.in_band_fec = in_band_fec;
        let pcmu = format(AudioCodec::Pcmu, 20);
        let payloads = payloads(&pcmu, &speech(SampleRate::Hz16000, 2_000), 0);
        let mut call = converting(pcmu, opus);
        let mut number = 0;
        [0, fraction_lost].map(|fraction_lost| {
            report_loss(&mut call, fraction_lost);
            for payload in &payloads {
                say(
                    &mut call,
                    &rtp(0, number, u32::from(number) * STEP, payload),
                );
                number += 1;
                call.now = call.now.plus_millis(20);
            }
            second_descriptions(&call.take_sent(B))
        })
    }

    #[test]
    fn peer_that_reports_loss_is_sent_second_descriptions_if_it_takes_them() {
        let [before, after] = descriptions_after_report(true, 40);
        assert_eq!(before, 0);
        assert!(after > 50, "{after} of 100");
        assert_eq!(descriptions_after_report(true, 0), [0, 0]);
        assert_eq!(descriptions_after_report(false, 40), [0, 0]);
    }

    #[test]
    fn lost_opus_packet_reaches_the_far_peer_out_of_the_one_behind_it() {
        let pcm = speech(SampleRate::Hz16000, 4_000);
        let l16 = format(AudioCodec::L16, 20);
        let is_lost = |n: usize| n % 10 == 5;
        let error = |in_band_fec| {
            let mut opus = format(AudioCodec::Opus, 20);
            opus.opus.in_band_fec = in_band_fec;
            let payloads = payloads(&opus, &pcm, 20);
            let [intact, lossy] = [false, true].map(|loses| {
                let mut call = converting(opus, l16);
                for (n, payload) in payloads.iter().enumerate() {
                    if !(loses && is_lost(n)) {
                        say(&mut call, &rtp(111, n as u16, n as u32 * 960, payload));
                    }
                }
                let sent = call.take_sent(B);
                assert_eq!(sent.len(), payloads.len());
                let lost = sent.chunks(1).enumerate().filter(|(n, _)| is_lost(*n));
                lost.flat_map(|(_, out)| heard(&l16, out))
                    .collect::<Vec<i16>>()
            });
            error_share(&intact, &lossy)
        };
        let (concealed, recovered) = (error(false), error(true));
        assert!(
            recovered < 0.5 * concealed,
            "{recovered} against {concealed}"
        );
    }

    #[test]
    fn both_channels_of_a_stereo_peer_are_heard() {
        let rate = opusic_c::SampleRate::Hz48000;
        let voice = speech(SampleRate::Hz48000, 1_000);
        let pcmu = format(AudioCodec::Pcmu, 20);
        for speaking in [0, 1] {
            let mut encoder = opusic_c::Encoder::new(Channels::Stereo, rate, Application::Audio)
                .expect("a stereo encoder");
            let mut call = converting(format(AudioCodec::Opus, 20), pcmu);
            for (n, frame) in voice.chunks_exact(960).enumerate() {
                let mut interleaved = vec![0u16; 1_920];
                for (pair, sample) in interleaved.chunks_exact_mut(2).zip(frame) {
                    pair[speaking] = sample.cast_unsigned();
                }
                let mut payload = [0; ENCODED_LEN_MAX];
                let len = encoder
                    .encode_to_slice(&interleaved, &mut payload)
                    .expect("20 ms");
                say(
                    &mut call,
                    &rtp(111, n as u16, n as u32 * 960, &payload[..len]),
                );
            }
            let heard = heard(&pcmu, &call.take_sent(B));
            // The mean of a voice and of silence.
            let difference = level_db(&heard) - (level_db(&voice) - 6.02);
            assert!(
                difference.abs() < 1.5,
                "channel {speaking}: {difference:.2} dB"
            );
        }
    }

    #[test]
    fn comfort_noise_sounds_in_opus_and_is_no_loss() {
        let (pcmu, opus) = (format(AudioCodec::Pcmu, 20), format(AudioCodec::Opus, 20));
        let mut call = converting(pcmu, opus);
        let sent = speech_noise_speech(&mut call, &pcmu);
        assert_one_stream(&sent, SSRC[1]);
        assert_eq!(sent.len(), 21);
        assert!(
            sent.iter()
                .all(|out| out.header.payload_type == opus.payload_type)
        );
        assert_eq!(call.session.concealed_millis(), 0);
        let since = |n: usize| {
            let [first, this] = [0, n].map(|n| sent[n].header.timestamp);
            this.wrapping_sub(first)
        };
        assert_eq!([since(10), since(11)], [10 * 960, 10 * 960 + 48_000]);
        assert!(sent[11].header.marker);
    }

    #[test]
    fn pause_of_an_opus_peer_is_comfort_noise_for_one_that_takes_it() {
        let (opus, pcmu) = (format(AudioCodec::Opus, 20), format(AudioCodec::Pcmu, 20));
        let mut call = converting(opus, pcmu);
        let spoken = payloads(&opus, &speech(SampleRate::Hz16000, 200), 0);
        for (n, payload) in spoken.iter().enumerate() {
            say(&mut call, &rtp(111, n as u16, n as u32 * 960, payload));
        }
        // What libopus marks a pause with, and again 400 ms later.
        for (n, at) in [(10, 10), (11, 30)] {
            say(&mut call, &rtp(111, n, at * 960, &[0x48]));
        }
        let sent = call.take_sent(B);
        assert_one_stream(&sent, SSRC[1]);
        let noise: Vec<u32> = sent
            .iter()
            .filter(|out| out.header.payload_type == PayloadType::CN)
            .map(|out| out.header.timestamp.wrapping_sub(sent[0].header.timestamp))
            .collect();
        assert_eq!((sent.len(), noise), (12, vec![10 * STEP, 30 * STEP]));
    }
}
