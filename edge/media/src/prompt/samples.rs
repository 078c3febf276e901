//! From the samples of a file to mono, 16 bits.

use super::wav::{SampleCoding, WavAudio};
use crate::codec::g711::Law;

/// Decodes and mixes down; one sample for each sample frame of the file.
pub(super) fn to_mono(audio: &WavAudio<'_>) -> Vec<i16> {
    let width = audio.coding.bytes();
    let coding = audio.coding;
    if audio.channels == 1 {
        return audio
            .data
            .chunks_exact(width)
            .map(|sample| linear(coding, sample))
            .collect();
    }
    let half_sum = |frame: &[u8]| {
        let (left, right) = frame.split_at(width);
        let sum = i32::from(linear(coding, left)) + i32::from(linear(coding, right));
        (sum / 2) as i16
    };
    audio.data.chunks_exact(2 * width).map(half_sum).collect()
}

/// One sample; `bytes` is as long as the coding says.
fn linear(coding: SampleCoding, bytes: &[u8]) -> i16 {
    match (coding, bytes) {
        (SampleCoding::Pcm8, &[byte]) => (i16::from(byte) - 128) << 8,
        (SampleCoding::Pcm16, &[low, high]) => i16::from_le_bytes([low, high]),
        // The lowest eight bits lie below what 16 can say.
        (SampleCoding::Pcm24, &[_, low, high]) => i16::from_le_bytes([low, high]),
        (SampleCoding::Alaw, &[byte]) => Law::A.decode(byte),
        (SampleCoding::Mulaw, &[byte]) => Law::Mu.decode(byte),
        // A sample is cut by the coding's own width.
        _ => 0,
    }
}
