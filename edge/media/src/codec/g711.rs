//! G.711 µ-law and A-law (ITU-T G.711, RFC 3551 §4.5.14), by tables that are made at compile time
//! from the Recommendation's definition.
//!
//! Linear samples are 16 bits wide. µ-law quantizes the upper 14 of them, A-law the upper 13, so a
//! sample's code depends on nothing below and a table of its upper bits is exact.

use super::BadFrame;

/// Which of the two companding laws.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Law {
    /// µ-law: North America, Japan.
    Mu,
    /// A-law: everywhere else.
    A,
}

static MU_TO_LINEAR: [i16; 256] = linear_table(Law::Mu);
static A_TO_LINEAR: [i16; 256] = linear_table(Law::A);
static LINEAR_TO_MU: [u8; 1 << 14] = mu_table();
static LINEAR_TO_A: [u8; 1 << 13] = a_table();
static MU_TO_A: [u8; 256] = across(Law::Mu);
static A_TO_MU: [u8; 256] = across(Law::A);

impl Law {
    /// The code word of silence: what an idle channel carries.
    #[must_use]
    pub const fn silence(self) -> u8 {
        match self {
            Self::Mu => 0xff,
            Self::A => 0xd5,
        }
    }

    /// The linear value of one code word.
    #[must_use]
    pub fn decode(self, code: u8) -> i16 {
        match self {
            Self::Mu => MU_TO_LINEAR[usize::from(code)],
            Self::A => A_TO_LINEAR[usize::from(code)],
        }
    }

    /// The code word next to a linear value.
    #[must_use]
    pub fn encode(self, sample: i16) -> u8 {
        match self {
            Self::Mu => LINEAR_TO_MU[usize::from(sample as u16 >> 2)],
            Self::A => LINEAR_TO_A[usize::from(sample as u16 >> 3)],
        }
    }

    /// Decodes as many code words as `out` has room for and returns how many those were.
    pub fn decode_slice(self, codes: &[u8], out: &mut [i16]) -> usize {
        let table = match self {
            Self::Mu => &MU_TO_LINEAR,
            Self::A => &A_TO_LINEAR,
        };
        for (sample, &code) in out.iter_mut().zip(codes) {
            *sample = table[usize::from(code)];
        }
        codes.len().min(out.len())
    }

    /// Encodes as many samples as `out` has room for and returns how many those were.
    pub fn encode_slice(self, samples: &[i16], out: &mut [u8]) -> usize {
        for (code, &sample) in out.iter_mut().zip(samples) {
            *code = self.encode(sample);
        }
        samples.len().min(out.len())
    }
}

/// Turns µ-law into A-law in place: what a call between the two laws costs.
pub fn pcmu_to_pcma(payload: &mut [u8]) {
    for code in payload {
        *code = MU_TO_A[usize::from(*code)];
    }
}

/// Turns A-law into µ-law in place.
pub fn pcma_to_pcmu(payload: &mut [u8]) {
    for code in payload {
        *code = A_TO_MU[usize::from(*code)];
    }
}

/// A payload has one byte per sample, at most 120 ms of them.
pub(super) fn check(payload: &[u8]) -> Result<(), BadFrame> {
    match payload.len() {
        0 => Err(BadFrame::Empty),
        1..=960 => Ok(()),
        _ => Err(BadFrame::TooLong),
    }
}

const fn linear_table(law: Law) -> [i16; 256] {
    let mut table = [0; 256];
    let mut code = 0;
    while code < 256 {
        table[code] = match law {
            Law::Mu => mu_to_linear(code as u8),
            Law::A => a_to_linear(code as u8),
        };
        code += 1;
    }
    table
}

/// G.711 table 2: the code's bits are inverted; a magnitude has a bias of 33 units of the 14-bit
/// scale, here of 132.
const fn mu_to_linear(code: u8) -> i16 {
    let code = !code;
    let segment = (code >> 4) & 7;
    let magnitude = (((code as i16 & 0x0f) << 3) + 132) << segment;
    if code & 0x80 == 0 {
        magnitude - 132
    } else {
        132 - magnitude
    }
}

/// G.711 table 1: every second bit is inverted; the segments 0 and 1 have the same step.
const fn a_to_linear(code: u8) -> i16 {
    let code = code ^ 0x55;
    let segment = (code >> 4) & 7;
    let step = ((code as i16 & 0x0f) << 4) + 8;
    let magnitude = if segment == 0 {
        step
    } else {
        (step + 256) << (segment - 1)
    };
    if code & 0x80 == 0 {
        -magnitude
    } else {
        magnitude
    }
}

const fn mu_table() -> [u8; 1 << 14] {
    let mut table = [0; 1 << 14];
    let mut index = 0;
    while index < 1 << 14 {
        // The index is a 14-bit number in two's complement; magnitudes count from its complement,
        // so that both signs have the same steps.
        let negative = index >= 1 << 13;
        let magnitude: usize = if negative {
            (1 << 14) - 1 - index
        } else {
            index
        };
        let biased = if magnitude + 33 > 0x1fff {
            0x1fff
        } else {
            magnitude + 33
        };
        // The highest bit lies in 5..=12 and names the segment, the next four the step in it.
        let highest = usize::BITS - 1 - biased.leading_zeros();
        let segment = highest - 5;
        let step = (biased >> (segment + 1)) & 0x0f;
        let code = (segment as u8) << 4 | step as u8 | if negative { 0x80 } else { 0 };
        table[index] = !code;
        index += 1;
    }
    table
}

const fn a_table() -> [u8; 1 << 13] {
    let mut table = [0; 1 << 13];
    let mut index = 0;
    while index < 1 << 13 {
        let negative = index >= 1 << 12;
        // Steps are at least 16 of the 16-bit scale: the 13-bit scale's lowest bit decides nothing.
        let complement: usize = if negative {
            (1 << 13) - 1 - index
        } else {
            index
        };
        let magnitude = complement >> 1;
        let (segment, step) = if magnitude < 16 {
            (0, magnitude)
        } else {
            let highest = usize::BITS - 1 - magnitude.leading_zeros();
            let segment = highest - 3;
            (segment, (magnitude >> (segment - 1)) & 0x0f)
        };
        let code = (segment as u8) << 4 | step as u8 | if negative { 0 } else { 0x80 };
        table[index] = code ^ 0x55;
        index += 1;
    }
    table
}

/// From `law` to the other one: the code next to the linear value.
const fn across(law: Law) -> [u8; 256] {
    let mu = mu_table();
    let a = a_table();
    let mut table = [0; 256];
    let mut code = 0;
    while code < 256 {
        table[code] = match law {
            Law::Mu => a[(mu_to_linear(code as u8) as u16 >> 3) as usize],
            Law::A => mu[(a_to_linear(code as u8) as u16 >> 2) as usize],
        };
        code += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_words_have_the_values_of_the_recommendation() {
        // Decoder output values of G.711 tables 1 and 2, scaled from 13 and 14 to 16 bits.
        let rows = [
            (Law::Mu, 0xff, 0),
            (Law::Mu, 0x7f, 0),
            (Law::Mu, 0xfe, 8),
            (Law::Mu, 0xef, 132),
            (Law::Mu, 0x80, 32_124),
            (Law::Mu, 0x00, -32_124),
            (Law::A, 0xd5, 8),
            (Law::A, 0x55, -8),
            (Law::A, 0xd4, 24),
            (Law::A, 0xc5, 264),
            (Law::A, 0xaa, 32_256),
            (Law::A, 0x2a, -32_256),
        ];
        for (law, code, linear) in rows {
            assert_eq!(law.decode(code), linear, "{law:?} {code:#04x}");
        }
    }

    #[test]
    fn the_digital_milliwatt_has_the_level_that_the_recommendation_gives_it() {
        // G.711 tables 5 and 6: eight code words that make 1 kHz at 0 dBm0, which lies 3.17 dB
        // (µ-law) and 3.14 dB (A-law) below the overload of a sine; here in hundredths.
        let rows = [
            (
                Law::Mu,
                [0x1e, 0x0b, 0x0b, 0x1e, 0x9e, 0x8b, 0x8b, 0x9e],
                317.0,
            ),
            (
                Law::A,
                [0x34, 0x21, 0x21, 0x34, 0xb4, 0xa1, 0xa1, 0xb4],
                314.0,
            ),
        ];
        for (law, codes, below_overload) in rows {
            let overload = f64::from(law.decode(law.encode(i16::MAX)));
            let power: f64 = codes
                .iter()
                .map(|&code| (f64::from(law.decode(code)) / overload).powi(2))
                .sum::<f64>()
                / 8.0;
            let level = -1_000.0 * (2.0 * power).log10();
            assert!((level - below_overload).abs() < 20.0, "{law:?}: {level}");
        }
    }

    #[test]
    fn every_code_word_survives_a_round_trip() {
        for code in 0..=255 {
            let back = Law::Mu.encode(Law::Mu.decode(code));
            // µ-law has two zeros; the positive one is sent.
            assert_eq!(back, if code == 0x7f { 0xff } else { code });
            assert_eq!(Law::A.encode(Law::A.decode(code)), code);
        }
    }

    #[test]
    fn code_words_change_at_the_decision_values_of_the_recommendation() {
        // The lower ends of the segments in tables 2a and 1a, in units of 14 and 13 bits.
        for (decision, code) in [
            (31, 0xef),
            (95, 0xdf),
            (223, 0xcf),
            (479, 0xbf),
            (991, 0xaf),
            (2_015, 0x9f),
            (4_063, 0x8f),
        ] {
            assert_eq!(Law::Mu.encode(4 * decision), code);
            assert_eq!(Law::Mu.encode(4 * decision - 1), code + 1);
            assert_eq!(Law::Mu.encode(-4 * decision - 1), code ^ 0x80);
            assert_eq!(Law::Mu.encode(-4 * decision), (code + 1) ^ 0x80);
        }
        for (decision, segment) in [
            (64, 2),
            (128, 3),
            (256, 4),
            (512, 5),
            (1_024, 6),
            (2_048, 7),
        ] {
            let code = |sign: u8, segment: u8, step: u8| (sign | segment << 4 | step) ^ 0x55;
            assert_eq!(Law::A.encode(8 * decision), code(0x80, segment, 0));
            assert_eq!(Law::A.encode(8 * decision - 1), code(0x80, segment - 1, 15));
            assert_eq!(Law::A.encode(-8 * decision - 1), code(0, segment, 0));
            assert_eq!(Law::A.encode(-8 * decision), code(0, segment - 1, 15));
        }
    }

    #[test]
    fn no_sample_moves_by_more_than_half_a_step() {
        for law in [Law::Mu, Law::A] {
            for sample in i16::MIN..=i16::MAX {
                let sample = i32::from(sample);
                let error = (i32::from(law.decode(law.encode(sample as i16))) - sample).abs();
                // Half a step is 1/32 of a segment's lower end; what overloads is clipped.
                let clipped = (sample.abs() - 32_256).max(0);
                assert!(error <= 8 + sample.abs() / 32 + clipped, "{law:?} {sample}");
            }
        }
    }

    #[test]
    fn encoding_is_monotonic() {
        for law in [Law::Mu, Law::A] {
            let mut last = i16::MIN;
            for sample in i16::MIN..=i16::MAX {
                let value = law.decode(law.encode(sample));
                assert!(value >= last, "{law:?} {sample}");
                last = value;
            }
        }
    }

    #[test]
    fn the_laws_turn_into_each_other_within_one_step_and_then_stay() {
        let mut mu: Vec<u8> = (0..=255).collect();
        let original = mu.clone();
        pcmu_to_pcma(&mut mu);
        let first_a = mu.clone();
        for (&from, &to) in original.iter().zip(&first_a) {
            let before = i32::from(Law::Mu.decode(from));
            let difference = (i32::from(Law::A.decode(to)) - before).abs();
            // Half of A-law's step at that size: 1/32 of the segment's end, at least 8.
            assert!(difference <= 8 + before.abs() / 32, "{from:#x}");
        }
        pcma_to_pcmu(&mut mu);
        let second_mu = mu.clone();
        pcmu_to_pcma(&mut mu);
        assert_eq!(mu, first_a);
        pcma_to_pcmu(&mut mu);
        assert_eq!(mu, second_mu);
    }

    #[test]
    fn silence_is_the_smallest_positive_value_of_each_law() {
        assert_eq!(Law::Mu.decode(Law::Mu.silence()), 0);
        assert_eq!(Law::A.decode(Law::A.silence()), 8);
        assert_eq!(Law::A.encode(0), Law::A.silence());
        assert_eq!(Law::Mu.encode(0), Law::Mu.silence());
    }
}
