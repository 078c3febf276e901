use std::f64::consts::TAU;

use super::*;

/// Delay of both filters together, in samples.
const DELAY: usize = 22;

fn encode(samples: &[i16]) -> Vec<u8> {
    let mut codes = vec![0; samples.len() / 2];
    assert_eq!(Encoder::new().encode(samples, &mut codes), codes.len());
    codes
}

fn decode(codes: &[u8]) -> Vec<i16> {
    let mut samples = vec![0; 2 * codes.len()];
    assert_eq!(Decoder::new().decode(codes, &mut samples), samples.len());
    samples
}

fn tone(hz: f64, amplitude: f64) -> Vec<i16> {
    (0..16_000)
        .map(|n| (amplitude * (TAU * hz * f64::from(n) / 16_000.0).sin()) as i16)
        .collect()
}

/// Signal to noise in dB after encoding and decoding.
fn round_trip_snr(input: &[i16]) -> f64 {
    let output = decode(&encode(input));
    let (mut signal, mut noise) = (0.0, 0.0);
    for (&a, &b) in input.iter().zip(&output[DELAY..]) {
        signal += f64::from(a).powi(2);
        noise += (f64::from(a) - f64::from(b)).powi(2);
    }
    10.0 * (signal / noise.max(1.0)).log10()
}

/// Numbers whose low halves repeat nowhere near: the upper bits of a linear congruence.
fn noise() -> impl Iterator<Item = u16> {
    std::iter::successors(Some(1u32), |n| {
        Some(n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223))
    })
    .map(|n| (n >> 16) as u16)
}

/// FNV-1a.
fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

// Both known answers were compared, byte for byte, with those of another implementation (FFmpeg 5.1).

#[test]
fn full_scale_noise_encodes_to_the_known_code_words() {
    let samples: Vec<i16> = noise().map(|n| n as i16).take(64_000).collect();
    assert_eq!(hash(encode(&samples).into_iter()), 0xd4e6_a1ce_87b0_413a);
}

#[test]
fn arbitrary_code_words_decode_to_the_known_samples() {
    let codes: Vec<u8> = noise().map(|n| n as u8).take(32_000).collect();
    let samples = decode(&codes);
    assert_eq!(
        hash(samples.iter().flat_map(|s| s.to_le_bytes())),
        0x8e1f_b8fd_62e4_8d8a
    );
}

#[test]
fn tones_keep_the_signal_to_noise_of_their_band() {
    for (hz, least_db) in [
        (100.0, 35.0),
        (500.0, 33.0),
        (1_000.0, 33.0),
        (2_000.0, 33.0),
        (3_000.0, 31.0),
        (3_700.0, 28.0),
        (4_300.0, 21.0),
        (5_000.0, 19.0),
        (6_000.0, 19.0),
        (6_900.0, 19.0),
    ] {
        for amplitude in [300.0, 3_000.0, 20_000.0] {
            let snr = round_trip_snr(&tone(hz, amplitude));
            assert!(snr > least_db, "{hz} Hz at {amplitude}: {snr:.1} dB");
        }
    }
}

#[test]
fn the_pass_band_is_flat_from_50_hz_to_7_khz() {
    // G.722 §2.4 allows 1 dB of attenuation there; 3 dB at 7 kHz.
    let power = |samples: &[i16]| -> f64 { samples.iter().map(|&s| f64::from(s).powi(2)).sum() };
    for step in 0..70 {
        let hz = 50.0 + 100.0 * f64::from(step);
        let input = tone(hz, 8_000.0);
        let output = decode(&encode(&input));
        let gain = 10.0 * (power(&output[4_000..]) / power(&input[4_000..])).log10();
        assert!(gain.abs() < 1.0, "{hz} Hz: {gain:.2} dB");
    }
}

#[test]
fn an_idle_channel_stays_idle() {
    let output = decode(&encode(&[0; 16_000]));
    assert!(output[1_600..].iter().all(|sample| sample.abs() <= 4));
}

#[test]
fn the_cut_of_the_input_does_not_matter() {
    let samples: Vec<i16> = noise().map(|n| n as i16 / 4).take(4_000).collect();
    let whole = encode(&samples);
    let mut encoder = Encoder::new();
    let mut decoder = Decoder::new();
    let (mut codes, mut decoded) = (Vec::new(), Vec::new());
    for piece in samples.chunks(262) {
        let mut out = [0; 131];
        let made = encoder.encode(piece, &mut out);
        codes.extend_from_slice(&out[..made]);
    }
    assert_eq!(codes, whole);
    for piece in whole.chunks(77) {
        let mut out = [0; 154];
        let made = decoder.decode(piece, &mut out);
        decoded.extend_from_slice(&out[..made]);
    }
    assert_eq!(decoded, decode(&whole));
}

#[test]
fn output_without_room_is_not_written() {
    assert_eq!(Decoder::new().decode(&[0x12; 4], &mut [0; 5]), 4);
    assert_eq!(Encoder::new().encode(&[7; 8], &mut [0; 3]), 3);
}

#[test]
fn payloads_of_no_length_or_beyond_120_ms_are_refused() {
    assert_eq!(check(&[]), Err(BadFrame::Empty));
    assert_eq!(check(&[0; 960]), Ok(()));
    assert_eq!(check(&[0; 961]), Err(BadFrame::TooLong));
}
