//! What 16-bit samples mean in dBm0.
//!
//! Full scale is tied to G.711: the loudest sine that does not overload A-law has +3.14 dBm0
//! (ITU-T G.711 table 5), and decoders map that overload point to full scale.

/// Level of a sine whose peak is full scale, dBm0.
#[expect(clippy::approx_constant, reason = "decibels, not a circle")]
pub const FULL_SCALE_SINE_DBM0: f64 = 3.14;

/// What silence is said to be, dBm0; nothing is softer.
pub const SILENCE_DBM0: f32 = -127.0;

/// One above the largest sample.
const FULL_SCALE: f64 = 32_768.0;

/// Mean square of a sine whose peak is full scale.
const FULL_SCALE_SINE_MEAN_SQUARE: f32 = (FULL_SCALE * FULL_SCALE / 2.0) as f32;

/// Peak of a sine of `dbm0`.
#[must_use]
pub fn peak_of_sine(dbm0: f64) -> f64 {
    FULL_SCALE * 10f64.powf((dbm0 - FULL_SCALE_SINE_DBM0) / 20.0)
}

/// Level of samples with this mean square, dBm0; at least [`SILENCE_DBM0`].
#[must_use]
pub fn dbm0_of_mean_square(mean_square: f32) -> f32 {
    let relative = mean_square / FULL_SCALE_SINE_MEAN_SQUARE;
    (10.0 * relative.log10() + FULL_SCALE_SINE_DBM0 as f32).max(SILENCE_DBM0)
}

/// The mean square of samples at `dbm0`: inverse of [`dbm0_of_mean_square`].
#[must_use]
pub fn mean_square_of_dbm0(dbm0: f32) -> f32 {
    FULL_SCALE_SINE_MEAN_SQUARE * 10f32.powf((dbm0 - FULL_SCALE_SINE_DBM0 as f32) / 10.0)
}
