//! Audio as tests look at it: tones made and measured, G.711 (ITU-T), and WAV files read.

use std::f64::consts::TAU;

use trunkline_testkit::rtp::ReceivedPacket;

/// Samples of 20 ms at 8 kHz.
pub(crate) const FRAME: usize = 160;

/// ITU-T G.711, in 16-bit samples.
pub(crate) fn ulaw(code: u8) -> i32 {
    let code = !code;
    let magnitude = ((i32::from(code & 0x0f) << 3) + 0x84) << ((code >> 4) & 7);
    let magnitude = magnitude - 0x84;
    if code & 0x80 == 0 {
        magnitude
    } else {
        -magnitude
    }
}

/// The code whose sample is nearest.
fn to_ulaw(sample: f64) -> u8 {
    let distance = |code: &u8| (f64::from(ulaw(*code)) - sample).abs();
    let nearest = (0..=255u8).min_by(|a, b| distance(a).total_cmp(&distance(b)));
    nearest.expect("there are 256 codes")
}

/// ITU-T G.711, in 16-bit samples.
pub(crate) fn alaw(code: u8) -> i32 {
    let code = code ^ 0x55;
    let (segment, mantissa) = ((code >> 4) & 7, i32::from(code & 0x0f));
    let magnitude = match segment {
        0 => (mantissa << 4) + 8,
        _ => ((mantissa << 4) + 0x108) << (segment - 1),
    };
    if code & 0x80 == 0 {
        -magnitude
    } else {
        magnitude
    }
}

/// Sines added up, each of `amplitude`.
pub(crate) fn sines(rate: u32, frequencies: &[f64], amplitude: f64, samples: usize) -> Vec<f64> {
    let sample = |n: usize| {
        let phase = n as f64 * TAU / f64::from(rate);
        let sum: f64 = frequencies.iter().map(|hz| (phase * hz).sin()).sum();
        amplitude * sum
    };
    (0..samples).map(sample).collect()
}

/// µ-law frames of 20 ms of sines; none: silence.
pub(crate) fn tone_frames(frequencies: &[f64], amplitude: f64, frames: usize) -> Vec<Vec<u8>> {
    let samples = sines(8_000, frequencies, amplitude, FRAME * frames);
    let codes: Vec<u8> = samples.into_iter().map(to_ulaw).collect();
    codes.chunks(FRAME).map(<[u8]>::to_vec).collect()
}

/// µ-law frames of nothing.
pub(crate) fn silence_frames(frames: usize) -> Vec<Vec<u8>> {
    vec![vec![0xff; FRAME]; frames]
}

/// What was heard as µ-law, in samples.
pub(crate) fn samples(packets: &[ReceivedPacket]) -> Vec<f64> {
    packets
        .iter()
        .filter(|packet| packet.header.payload_type == 0)
        .flat_map(|packet| packet.payload.iter().map(|&code| f64::from(ulaw(code))))
        .collect()
}

/// Root of the mean square.
pub(crate) fn level(samples: &[f64]) -> f64 {
    let squares: f64 = samples.iter().map(|sample| sample * sample).sum();
    (squares / samples.len().max(1) as f64).sqrt()
}

/// Level of what was heard as µ-law.
pub(crate) fn loudness(packets: &[ReceivedPacket]) -> f64 {
    level(&samples(packets))
}

/// Amplitude of one frequency, whatever its phase.
pub(crate) fn amplitude(rate: u32, samples: &[f64], hz: f64) -> f64 {
    let (mut re, mut im) = (0.0, 0.0);
    for (n, sample) in samples.iter().enumerate() {
        let phase = n as f64 * TAU * hz / f64::from(rate);
        re += sample * phase.cos();
        im += sample * phase.sin();
    }
    2.0 * (re * re + im * im).sqrt() / samples.len().max(1) as f64
}

/// The highest amplitude that all of `frequencies` reach together in any 40 ms at 8 kHz.
pub(crate) fn loudest(samples: &[f64], frequencies: &[f64]) -> f64 {
    let together = |window: &[f64]| {
        let each = frequencies.iter().map(|hz| amplitude(8_000, window, *hz));
        each.fold(f64::INFINITY, f64::min)
    };
    samples
        .chunks_exact(2 * FRAME)
        .map(together)
        .fold(0.0, f64::max)
}

/// How much louder a tone is than everything else, dB.
pub(crate) fn purity_db(rate: u32, samples: &[f64], hz: f64) -> f64 {
    let tone = amplitude(rate, samples, hz).powi(2) / 2.0;
    let rest = (level(samples).powi(2) - tone).max(1e-3);
    10.0 * (tone / rest).log10()
}

/// A WAV file of 16-bit samples.
pub(crate) struct Wav {
    pub(crate) rate: u32,
    /// By channel.
    pub(crate) channels: Vec<Vec<f64>>,
}

impl Wav {
    /// Reads `RIFF`, `fmt ` and `data`, as any player does; what does not fit panics.
    pub(crate) fn parse(file: &[u8]) -> Self {
        assert_eq!((&file[..4], &file[8..12]), (&b"RIFF"[..], &b"WAVE"[..]));
        let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
        let half = |at: usize| u16::from_le_bytes(file[at..at + 2].try_into().unwrap());
        let (mut at, mut shape) = (12, None);
        loop {
            let (kind, len, body) = (&file[at..at + 4], word(at + 4) as usize, at + 8);
            match (kind, shape) {
                (b"fmt ", _) => {
                    assert_eq!((half(body), half(body + 14)), (1, 16), "16-bit PCM");
                    shape = Some((half(body + 2), word(body + 4)));
                }
                (b"data", Some((count, rate))) => {
                    let data = &file[body..body + len];
                    assert_eq!(body + len, file.len(), "the header claims what is there");
                    let samples: Vec<f64> = data
                        .chunks_exact(2)
                        .map(|bytes| f64::from(i16::from_le_bytes([bytes[0], bytes[1]])))
                        .collect();
                    let of = |channel: usize| {
                        let mine = samples.iter().skip(channel).step_by(count.into());
                        mine.copied().collect()
                    };
                    let channels = (0..usize::from(count)).map(of).collect();
                    return Self { rate, channels };
                }
                _ => {}
            }
            at = body + len + len % 2;
        }
    }

    /// How long it lasts, milliseconds.
    pub(crate) fn millis(&self) -> u64 {
        self.channels[0].len() as u64 * 1_000 / u64::from(self.rate)
    }

    /// Highest amplitude of one frequency in any 100 ms of a channel.
    pub(crate) fn loudest(&self, channel: usize, hz: f64) -> f64 {
        let windows = self.channels[channel].chunks_exact(self.rate as usize / 10);
        let of_each = windows.map(|window| amplitude(self.rate, window, hz));
        of_each.fold(0.0, f64::max)
    }
}
