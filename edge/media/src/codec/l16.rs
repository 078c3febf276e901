//! L16: linear samples of 16 bits in network byte order (RFC 3551 §4.5.11), mono or two channels
//! interleaved.

use super::BadFrame;

/// How many samples per channel a payload holds: a whole number of them.
pub(super) fn samples(payload: &[u8], channels: usize) -> Result<usize, BadFrame> {
    let frame = 2 * channels;
    if payload.is_empty() {
        return Err(BadFrame::Empty);
    }
    if !payload.len().is_multiple_of(frame) {
        return Err(BadFrame::Truncated);
    }
    Ok(payload.len() / frame)
}

/// Decodes to one channel, two of them to their mean, as far as `out` has room; returns how many
/// samples that made.
pub(super) fn decode(payload: &[u8], channels: usize, out: &mut [i16]) -> usize {
    let frames = payload.chunks_exact(2 * channels);
    let len = frames.len().min(out.len());
    for (sample, frame) in out.iter_mut().zip(frames) {
        let sum: i32 = frame
            .chunks_exact(2)
            .map(|bytes| i32::from(i16::from_be_bytes([bytes[0], bytes[1]])))
            .sum();
        *sample = (sum / channels as i32) as i16;
    }
    len
}

/// Encodes one channel into every channel, as far as `out` has room; returns how many bytes that
/// made.
pub(super) fn encode(samples: &[i16], channels: usize, out: &mut [u8]) -> usize {
    let mut made = 0;
    for (frame, sample) in out.chunks_exact_mut(2 * channels).zip(samples) {
        for bytes in frame.chunks_exact_mut(2) {
            bytes.copy_from_slice(&sample.to_be_bytes());
        }
        made += frame.len();
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_travel_with_their_high_byte_first() {
        let mut payload = [0; 4];
        assert_eq!(encode(&[0x1234, -2], 1, &mut payload), 4);
        assert_eq!(payload, [0x12, 0x34, 0xff, 0xfe]);
        let mut samples = [0; 2];
        assert_eq!(decode(&payload, 1, &mut samples), 2);
        assert_eq!(samples, [0x1234, -2]);
    }

    #[test]
    fn two_channels_become_their_mean_and_one_becomes_two() {
        let mut payload = [0; 8];
        assert_eq!(encode(&[i16::MAX, i16::MIN], 2, &mut payload), 8);
        let mut samples = [0; 2];
        assert_eq!(decode(&payload, 2, &mut samples), 2);
        assert_eq!(samples, [i16::MAX, i16::MIN]);
        assert_eq!(decode(&[0, 10, 0, 20], 2, &mut samples), 1);
        assert_eq!(samples[0], 15);
    }

    #[test]
    fn half_a_sample_is_a_bad_frame() {
        assert_eq!(samples(&[0; 3], 1), Err(BadFrame::Truncated));
        assert_eq!(samples(&[0; 6], 2), Err(BadFrame::Truncated));
        assert_eq!(samples(&[], 1), Err(BadFrame::Empty));
        assert_eq!(samples(&[0; 8], 2), Ok(2));
    }
}
