use super::super::tests::{level_db, speech};
use super::*;

const RATES: [SampleRate; 3] = SampleRate::ALL;

fn encoder(rate: SampleRate, options: OpusOptions) -> Encoder {
    Encoder::new(rate, &options).expect("libopus takes these settings")
}

fn packets(rate: SampleRate, options: OpusOptions, pcm: &[i16]) -> Vec<Vec<u8>> {
    packets_for_loss(rate, options, 0, pcm)
}

fn packets_for_loss(
    rate: SampleRate,
    options: OpusOptions,
    loss_percent: u8,
    pcm: &[i16],
) -> Vec<Vec<u8>> {
    let mut encoder = encoder(rate, options);
    encoder.set_expected_loss(loss_percent);
    pcm.chunks_exact(rate.samples(20))
        .map(|frame| {
            let mut out = [0; ENCODED_LEN_MAX];
            let len = encoder.encode(frame, &mut out).expect("20 ms");
            out[..len].to_vec()
        })
        .collect()
}

fn decode_all(rate: SampleRate, packets: &[Vec<u8>]) -> Vec<i16> {
    let mut decoder = Decoder::new(rate).expect("a decoder");
    let mut pcm = Vec::new();
    for packet in packets {
        let mut out = [0; SampleRate::MAX.samples(120)];
        let len = decoder.decode(packet, &mut out).expect("a good packet");
        pcm.extend_from_slice(&out[..len]);
    }
    pcm
}

#[test]
fn speech_keeps_its_level_at_every_pair_of_rates() {
    for from in RATES {
        let pcm = speech(from, 2_000);
        let packets = packets(from, OpusOptions::default(), &pcm);
        for to in RATES {
            let out = decode_all(to, &packets);
            assert_eq!(out.len(), to.samples(2_000));
            let difference = level_db(&out) - level_db(&pcm);
            assert!(
                difference.abs() < 1.5,
                "{from:?} to {to:?}: {difference:.2} dB"
            );
        }
    }
}

#[test]
fn a_stereo_packet_decodes_to_the_mean_of_its_channels() {
    let left = speech(SampleRate::Hz48000, 1_000);
    let interleaved: Vec<u16> = left.iter().flat_map(|&l| [l as u16, 0]).collect();
    let rate = opusic_c::SampleRate::Hz48000;
    let mut stereo = opusic_c::Encoder::new(Channels::Stereo, rate, Application::Audio)
        .expect("a stereo encoder");
    let packets: Vec<Vec<u8>> = interleaved
        .chunks_exact(2 * 960)
        .map(|frame| {
            let mut out = [0; 1_400];
            let len = stereo.encode_to_slice(frame, &mut out).expect("20 ms");
            out[..len].to_vec()
        })
        .collect();
    let out = decode_all(SampleRate::Hz48000, &packets);
    let difference = level_db(&out) - (level_db(&left) - 6.02);
    assert!(difference.abs() < 1.5, "{difference:.2} dB");
}

#[test]
fn the_table_of_contents_tells_the_duration() {
    // RFC 6716 table 2 and §3.2: configuration and frame count code.
    let rows: [(&[u8], Option<u32>); 9] = [
        (&[0x08, 0], Some(960)),         // SILK NB, 20 ms, one frame
        (&[0x18, 0], Some(2_880)),       // SILK NB, 60 ms
        (&[0x80, 0], Some(120)),         // CELT NB, 2.5 ms
        (&[0x09, 0, 0], Some(1_920)),    // two frames
        (&[0x0b, 6, 0, 0], Some(5_760)), // six of 20 ms
        (&[0x0b, 7, 0, 0], None),        // 140 ms
        (&[0x0b, 0, 0, 0], None),        // no frame
        (&[0x0b], None),                 // its count is missing
        (&[], None),
    ];
    for (payload, units) in rows {
        assert_eq!(duration(payload), units, "{payload:x?}");
    }
}

#[test]
fn payloads_that_break_the_framing_are_bad() {
    let mut decoder = Decoder::new(SampleRate::Hz8000).expect("a decoder");
    let mut out = [0; 960];
    assert_eq!(decoder.decode(&[], &mut out), Err(BadFrame::Empty));
    assert_eq!(decoder.decode(&[0x0b], &mut out), Err(BadFrame::Malformed));
    // Two frames of one length in an odd number of bytes (RFC 6716 R3).
    let odd = [0x09, 1, 2, 3, 4, 5];
    assert_eq!(
        decoder.decode(&odd[..6], &mut out),
        Err(BadFrame::Malformed)
    );
    assert_eq!(
        decoder.decode(&[0x18, 0], &mut out[..479]),
        Err(BadFrame::TooLong)
    );
}

#[test]
fn in_band_fec_brings_a_lost_packet_back_better_than_concealment() {
    let rate = SampleRate::Hz8000;
    let options = OpusOptions {
        in_band_fec: true,
        ..OpusOptions::default()
    };
    let packets = packets_for_loss(rate, options, 10, &speech(rate, 4_000));
    let intact = decode_all(rate, &packets);
    let (mut with_fec, mut without) = (0.0, 0.0);
    for fec in [true, false] {
        let mut decoder = Decoder::new(rate).expect("a decoder");
        let mut error = 0.0;
        for (n, packet) in packets.iter().enumerate() {
            let mut out = [0; 160];
            match packets.get(n + 1) {
                Some(next) if n % 5 == 3 => {
                    if fec {
                        decoder.recover(next, &mut out);
                    } else {
                        decoder.conceal(&mut out);
                    }
                    let expected = &intact[n * 160..][..160];
                    let squares = out.iter().zip(expected);
                    error += squares
                        .map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2))
                        .sum::<f64>();
                }
                _ => {
                    decoder.decode(packet, &mut out).expect("a good packet");
                }
            }
        }
        if fec {
            with_fec = error;
        } else {
            without = error;
        }
    }
    assert!(with_fec < 0.5 * without, "{with_fec} against {without}");
}

/// How many mono packets of 20 ms by SILK describe the one before each: their first two bits are
/// the flags for voice activity and for that (RFC 6716 §4.2.3).
fn second_descriptions(packets: &[Vec<u8>]) -> usize {
    let is_described = |packet: &&Vec<u8>| packet.get(1).is_some_and(|byte| byte & 0x40 != 0);
    packets.iter().filter(is_described).count()
}

#[test]
fn second_descriptions_are_sent_while_loss_is_expected_and_only_to_peers_that_take_them() {
    let rate = SampleRate::Hz8000;
    let pcm = speech(rate, 2_000);
    let options = |in_band_fec, bitrate_max| OpusOptions {
        in_band_fec,
        bitrate_max,
        ..OpusOptions::default()
    };
    let described =
        |options, loss| second_descriptions(&packets_for_loss(rate, options, loss, &pcm));
    assert_eq!(described(options(true, 0), 0), 0);
    assert!(described(options(true, 0), 1) > 50);
    assert!(described(options(true, 0), 100) > 50);
    assert_eq!(described(options(false, 0), 25), 0);

    let mut encoder = encoder(rate, options(true, 0));
    let mut out = [0; ENCODED_LEN_MAX];
    let mut bytes = [0; 3];
    for (phase, loss) in [0, 10, 0].into_iter().enumerate() {
        encoder.set_expected_loss(loss);
        let mut packets = Vec::new();
        for frame in pcm.chunks_exact(160) {
            let len = encoder.encode(frame, &mut out).expect("20 ms");
            packets.push(out[..len].to_vec());
        }
        bytes[phase] = packets.iter().map(Vec::len).sum();
        // The packet after a change may still be of the setting before it.
        let described = second_descriptions(&packets[2..]);
        assert_eq!(described > 0, loss > 0, "phase {phase}");
    }
    assert!(
        bytes[1] > bytes[0] * 5 / 4 && bytes[2] < bytes[1] * 4 / 5,
        "{bytes:?}"
    );
}

#[test]
fn silence_is_not_sent_when_the_peer_takes_dtx() {
    let rate = SampleRate::Hz8000;
    let sent = |dtx| {
        let options = OpusOptions {
            dtx,
            ..OpusOptions::default()
        };
        packets(rate, options, &vec![0; rate.samples(4_000)])
            .iter()
            .filter(|packet| !packet.is_empty())
            .count()
    };
    assert_eq!(sent(false), 200);
    // The beginning, and one packet each 400 ms.
    assert!(sent(true) < 40, "{}", sent(true));
}

#[test]
fn a_constant_bit_rate_makes_packets_of_one_length() {
    let rate = SampleRate::Hz16000;
    let options = OpusOptions {
        constant_bitrate: true,
        bitrate_max: 16_000,
        ..OpusOptions::default()
    };
    let lens: Vec<usize> = packets(rate, options, &speech(rate, 1_000))
        .iter()
        .map(Vec::len)
        .collect();
    assert!(lens.iter().all(|&len| len == 40), "{lens:?}");
}

#[test]
fn the_peers_bit_rate_is_kept_on_average() {
    let rate = SampleRate::Hz48000;
    for bitrate_max in [8_000, 16_000, 32_000] {
        let options = OpusOptions {
            bitrate_max,
            ..OpusOptions::default()
        };
        let bytes: usize = packets(rate, options, &speech(rate, 4_000))
            .iter()
            .map(Vec::len)
            .sum();
        assert!(
            bytes * 8 / 4 <= bitrate_max as usize * 11 / 10,
            "{bytes} at {bitrate_max}"
        );
    }
}

#[test]
fn the_peers_playback_rate_bounds_the_bandwidth() {
    let rate = SampleRate::Hz48000;
    for (playback_rate_max_hz, configurations) in [(8_000, 0..4), (16_000, 8..12)] {
        let options = OpusOptions {
            playback_rate_max_hz,
            ..OpusOptions::default()
        };
        for packet in &packets(rate, options, &speech(rate, 1_000))[5..] {
            // SILK of that bandwidth (RFC 6716 table 2).
            assert!(
                configurations.contains(&(packet[0] >> 3)),
                "{:#x}",
                packet[0]
            );
        }
    }
}

#[test]
fn packet_times_that_opus_lacks_become_the_next_shorter() {
    let millis = [10, 20, 30, 40, 50, 60]
        .map(|millis| packet_millis(PacketTime::from_millis(millis).expect("a packet time")));
    assert_eq!(millis, [10, 20, 20, 40, 40, 60]);
}

#[test]
fn concealment_fills_any_length() {
    let rate = SampleRate::Hz48000;
    let packets = packets(rate, OpusOptions::default(), &speech(rate, 500));
    for len in [1, 119, 120, 121, 480, 961, 2_880] {
        let mut decoder = Decoder::new(rate).expect("a decoder");
        let mut out = [0; 5_760];
        for packet in &packets {
            decoder.decode(packet, &mut out).expect("a good packet");
        }
        decoder.conceal(&mut out[..len]);
        decoder.recover(&packets[3], &mut out[..len]);
        decoder
            .decode(&packets[4], &mut out)
            .expect("a good packet");
    }
}
