//! Adaptive prediction and quantization of one sub-band (ITU-T G.722 §3 to §5, in the integer
//! arithmetic of §6.2). Block names are the Recommendation's.
//!
//! A band keeps a predictor (two poles, six zeros) and a quantizer step. Encoder and decoder move
//! both by the code word alone, so that they stay equal while no code word is lost, and return
//! towards each other after one was: every adaptation leaks.

/// INVQAL: quantizer of the lower band by the upper four bits of its code word.
const QM4: [i16; 16] = [
    0, -20456, -12896, -8968, -6288, -4240, -2584, -1200, 20456, 12896, 8968, 6288, 4240, 2584,
    1200, 0,
];

/// INVQBL: quantizer of the lower band by all six bits.
const QM6: [i16; 64] = [
    -136, -136, -136, -136, -24808, -21904, -19008, -16704, -14984, -13512, -12280, -11192, -10232,
    -9360, -8576, -7856, -7192, -6576, -6000, -5456, -4944, -4464, -4008, -3576, -3168, -2776,
    -2400, -2032, -1688, -1360, -1040, -728, 24808, 21904, 19008, 16704, 14984, 13512, 12280,
    11192, 10232, 9360, 8576, 7856, 7192, 6576, 6000, 5456, 4944, 4464, 4008, 3576, 3168, 2776,
    2400, 2032, 1688, 1360, 1040, 728, 432, 136, -432, -136,
];

/// QUANTL: decision levels of the lower band.
const Q6: [i32; 29] = [
    35, 72, 110, 150, 190, 233, 276, 323, 370, 422, 473, 530, 587, 650, 714, 786, 858, 940, 1023,
    1121, 1219, 1339, 1458, 1612, 1765, 1980, 2195, 2557, 2919,
];

/// LOGSCL: how the lower band's logarithmic step moves, by the upper four bits of its code word
/// (tables WL and RL42 in one).
const STEP_LOW: [i32; 16] = [
    -60, 3042, 1198, 538, 334, 172, 58, -30, 3042, 1198, 538, 334, 172, 58, -30, -60,
];

/// INVQAH: quantizer of the higher band.
const QM2: [i16; 4] = [-7408, -1616, 7408, 1616];

/// QUANTH: the decision level of the higher band.
const Q2: i32 = 564;

/// LOGSCH: how the higher band's logarithmic step moves (tables WH and RH2 in one).
const STEP_HIGH: [i32; 4] = [798, -214, 798, -214];

/// SCALEL, SCALEH: 2^(i/32) in units of 1/2048.
const ILB: [i32; 32] = [
    2048, 2093, 2139, 2186, 2233, 2282, 2332, 2383, 2435, 2489, 2543, 2599, 2656, 2714, 2774, 2834,
    2896, 2960, 3025, 3091, 3158, 3228, 3298, 3371, 3444, 3520, 3597, 3676, 3756, 3838, 3922, 4008,
];

/// Upper bounds of the logarithmic steps NBL and NBH.
const NBL_MAX: i32 = 18_432;
const NBH_MAX: i32 = 22_528;

fn saturate(value: i32) -> i32 {
    value.clamp(i32::from(i16::MIN), i32::from(i16::MAX))
}

/// LIMIT: reconstructed sub-band samples have 15 bits.
fn limit(value: i32) -> i16 {
    value.clamp(-16_384, 16_383) as i16
}

/// SCALEL and SCALEH: from the logarithmic step to the linear one.
fn linear_step(log: i32, shift: i32) -> i32 {
    let mantissa = ILB[(log as usize >> 6) & 31];
    let exponent = shift - (log >> 11);
    let value = if exponent < 0 {
        mantissa << -exponent
    } else {
        mantissa >> exponent
    };
    value << 2
}

/// The predictor of one band. Each member holds the values of earlier samples, newest first.
#[derive(Debug, Clone, Default)]
struct Predictor {
    /// S: the prediction of the next sample.
    s: i32,
    /// SZ: the part of it that the zeros contribute.
    sz: i32,
    /// A1 and A2, units of 1/16384.
    a: [i32; 2],
    /// B1 to B6, units of 1/16384.
    b: [i32; 6],
    /// DLT: quantized differences.
    d: [i32; 6],
    /// RLT: reconstructed samples.
    r: [i32; 2],
    /// PLT: reconstructed without the poles; only their signs matter.
    p: [i32; 2],
}

impl Predictor {
    /// BLOCK4: takes the quantized difference of one sample and predicts the next.
    fn advance(&mut self, d: i32) {
        // RECONS, PARREC
        let r = saturate(self.s + d);
        let p = saturate(self.sz + d);

        // UPPOL2
        let is_like_1 = (p ^ self.p[0]) >= 0;
        let is_like_2 = (p ^ self.p[1]) >= 0;
        let a1 = saturate(self.a[0] << 2);
        let towards = if is_like_1 { (-a1).min(32_767) } else { a1 };
        let a2 =
            (if is_like_2 { 128 } else { -128 }) + (towards >> 7) + ((self.a[1] * 32_512) >> 15);
        let a2 = a2.clamp(-12_288, 12_288);

        // UPPOL1
        let a1 = saturate((if is_like_1 { 192 } else { -192 }) + ((self.a[0] * 32_640) >> 15));
        let bound = saturate(15_360 - a2);
        let a1 = a1.clamp(-bound, bound);

        // UPZERO
        let step = if d == 0 { 0 } else { 128 };
        for (b, &earlier) in self.b.iter_mut().zip(&self.d) {
            let towards = if (earlier ^ d) >= 0 { step } else { -step };
            *b = saturate(towards + ((*b * 32_640) >> 15));
        }

        // DELAYA
        self.d.copy_within(..5, 1);
        self.d[0] = d;
        self.r = [r, self.r[0]];
        self.p = [p, self.p[0]];
        self.a = [a1, a2];

        // FILTEP, FILTEZ, PREDIC
        let pole = |n: usize| (self.a[n] * saturate(2 * self.r[n])) >> 15;
        let sp = saturate(pole(0) + pole(1));
        let zeros = self.b.iter().zip(&self.d);
        self.sz = saturate(zeros.map(|(b, d)| (b * saturate(2 * d)) >> 15).sum());
        self.s = saturate(sp + self.sz);
    }
}

/// The lower band: 48 of the 64 kbit/s.
#[derive(Debug, Clone)]
pub(super) struct LowBand {
    predictor: Predictor,
    /// NBL: logarithmic quantizer step.
    nbl: i32,
    /// DETL: linear quantizer step.
    detl: i32,
}

impl LowBand {
    pub(super) fn new() -> Self {
        Self {
            predictor: Predictor::default(),
            nbl: 0,
            detl: 32,
        }
    }

    /// The six-bit code word of `xl`, 15 bits wide.
    pub(super) fn encode(&mut self, xl: i16) -> u8 {
        // SUBTRA, QUANTL
        let el = saturate(i32::from(xl) - self.predictor.s);
        let magnitude = if el < 0 { !el } else { el };
        let level = Q6.partition_point(|q| magnitude >= (q * self.detl) >> 12) as u8;
        let code = match (el < 0, level) {
            (true, 0..=1) => 63 - level,
            (true, _) => 33 - level,
            (false, _) => 61 - level,
        };
        self.adapt(code);
        code
    }

    /// The sample that a six-bit code word stands for.
    pub(super) fn decode(&mut self, code: u8) -> i16 {
        // INVQBL, RECONS, LIMIT
        let d = (self.detl * i32::from(QM6[usize::from(code & 63)])) >> 15;
        let sample = limit(self.predictor.s + d);
        self.adapt(code & 63);
        sample
    }

    fn adapt(&mut self, code: u8) {
        // INVQAL: adaptation uses four bits only, which every bit rate of G.722 has.
        let ril = usize::from(code >> 2);
        let d = (self.detl * i32::from(QM4[ril])) >> 15;
        // LOGSCL, SCALEL
        self.nbl = (((self.nbl * 127) >> 7) + STEP_LOW[ril]).clamp(0, NBL_MAX);
        self.detl = linear_step(self.nbl, 8);
        self.predictor.advance(d);
    }
}

/// The higher band: 16 of the 64 kbit/s.
#[derive(Debug, Clone)]
pub(super) struct HighBand {
    predictor: Predictor,
    /// NBH: logarithmic quantizer step.
    nbh: i32,
    /// DETH: linear quantizer step.
    deth: i32,
}

impl HighBand {
    pub(super) fn new() -> Self {
        Self {
            predictor: Predictor::default(),
            nbh: 0,
            deth: 8,
        }
    }

    /// The two-bit code word of `xh`, 15 bits wide.
    pub(super) fn encode(&mut self, xh: i16) -> u8 {
        // SUBTRA, QUANTH
        let eh = saturate(i32::from(xh) - self.predictor.s);
        let magnitude = if eh < 0 { !eh } else { eh };
        let is_outer = magnitude >= (Q2 * self.deth) >> 12;
        let code = match (eh < 0, is_outer) {
            (true, true) => 0,
            (true, false) => 1,
            (false, true) => 2,
            (false, false) => 3,
        };
        self.adapt(code);
        code
    }

    /// The sample that a two-bit code word stands for.
    pub(super) fn decode(&mut self, code: u8) -> i16 {
        let before = self.predictor.s;
        limit(before + self.adapt(code & 3))
    }

    /// Returns the quantized difference.
    fn adapt(&mut self, code: u8) -> i32 {
        let code = usize::from(code);
        // INVQAH
        let d = (self.deth * i32::from(QM2[code])) >> 15;
        // LOGSCH, SCALEH
        self.nbh = (((self.nbh * 127) >> 7) + STEP_HIGH[code]).clamp(0, NBH_MAX);
        self.deth = linear_step(self.nbh, 10);
        self.predictor.advance(d);
        d
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_table_is_the_power_that_it_stands_for() {
        for (n, &value) in ILB.iter().enumerate() {
            let exact = 2_048.0 * 2f64.powf(n as f64 / 32.0);
            assert!(
                (f64::from(value) - exact).abs() <= 1.0,
                "{n}: {value}, {exact}"
            );
        }
    }

    #[test]
    fn quantizers_are_symmetric_and_ordered() {
        assert!(Q6.windows(2).all(|pair| pair[0] < pair[1]));
        for n in 1..8 {
            assert_eq!(QM4[n], -QM4[n + 7]);
        }
        for n in 4..30 {
            // Negative code words 4 to 29 mirror the positive ones from 32 on.
            assert_eq!(QM6[n], -QM6[n + 28]);
        }
        assert_eq!((QM6[60], QM6[61]), (432, 136));
        assert_eq!((QM6[62], QM6[63]), (-432, -136));
    }

    #[test]
    fn encoder_and_decoder_of_a_band_predict_alike() {
        let (mut encoder, mut decoder) = (LowBand::new(), LowBand::new());
        let (mut high_encoder, mut high_decoder) = (HighBand::new(), HighBand::new());
        let mut noise = 1u32;
        for _ in 0..20_000 {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let sample = (noise >> 16) as i16 >> 1;
            decoder.decode(encoder.encode(sample));
            assert_eq!(encoder.predictor.s, decoder.predictor.s);
            high_decoder.decode(high_encoder.encode(sample));
            assert_eq!(high_encoder.predictor.s, high_decoder.predictor.s);
        }
    }

    #[test]
    fn a_decoder_returns_to_its_encoder_after_a_loss() {
        let (mut encoder, mut decoder) = (LowBand::new(), LowBand::new());
        let speech = |n: usize| ((n as f64 * 0.3).sin() * 5_000.0) as i16;
        for n in 0..4_000 {
            let code = encoder.encode(speech(n));
            if !(1_000..1_160).contains(&n) {
                decoder.decode(code);
            }
        }
        assert!((encoder.predictor.s - decoder.predictor.s).abs() < 100);
    }
}
