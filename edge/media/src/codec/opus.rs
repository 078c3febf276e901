//! Opus (RFC 6716) by libopus, as RTP carries it (RFC 7587).
//!
//! libopus runs at the rate of the other side of a transcoder: it codes an 8 kHz signal for less
//! than half of what 48 kHz cost, and no resampler stands between it and G.711. The RTP clock is
//! 48 kHz regardless. Streams are decoded to one channel and encoded from one; a mono packet is
//! valid in a stream announced with two channels (RFC 7587 §4).

use opusic_c::{Application, Bandwidth, Bitrate, Channels, ErrorCode, InbandFec};
use trunkline_edge_api::audio::{OpusOptions, PacketTime};
use zerocopy::{FromBytes, IntoBytes};

use super::{BadFrame, ENCODED_LEN_MAX, EncodeError};
use crate::audio::SampleRate;

#[cfg(test)]
mod tests;

/// Time against quality, 0 to 10. At 5 the encoder still looks for pitch thoroughly; beyond, each
/// step costs more than a listener of a call gains.
const COMPLEXITY: u8 = 5;
/// Most loss in percent that in-band FEC is dimensioned for. libopus repeats no more beyond it, and
/// the second description would go on eating from the first.
const FEC_LOSS_PERCENT_MAX: u8 = 25;
/// libopus conceals whole multiples of 2.5 ms, this many in a second.
const CONCEAL_UNITS_PER_SEC: u32 = 400;
/// A packet of at most this length says that nothing has to be sent (`opus_encode`).
const DTX_LEN_MAX: usize = 2;

/// RTP units (48 kHz) that a packet lasts; `None` when its table of contents does not hold
/// (RFC 6716 §3.4).
pub(super) fn duration(payload: &[u8]) -> Option<u32> {
    let samples = opusic_c::utils::get_nb_samples(payload, opusic_c::SampleRate::Hz48000).ok()?;
    u32::try_from(samples).ok().filter(|&samples| samples > 0)
}

/// An Opus encoder has frames of 10, 20, 40 and 60 ms; what a peer would like in packets of 30 or
/// 50 ms is sent in the next shorter.
pub(super) fn packet_millis(packet_time: PacketTime) -> u32 {
    match packet_time.millis() {
        30 => 20,
        50 => 40,
        millis => u32::from(millis),
    }
}

fn rate_of(rate: SampleRate) -> opusic_c::SampleRate {
    match rate {
        SampleRate::Hz8000 => opusic_c::SampleRate::Hz8000,
        SampleRate::Hz16000 => opusic_c::SampleRate::Hz16000,
        SampleRate::Hz48000 => opusic_c::SampleRate::Hz48000,
    }
}

/// libopus's samples are signed; its binding calls them unsigned.
fn unsigned(samples: &[i16]) -> &[u16] {
    <[u16]>::ref_from_bytes(samples.as_bytes()).expect("both are two bytes wide and aligned so")
}

fn unsigned_mut(samples: &mut [i16]) -> &mut [u16] {
    <[u16]>::mut_from_bytes(samples.as_mut_bytes()).expect("both are two bytes wide and aligned so")
}

/// Packets to samples of one channel.
pub(super) struct Decoder {
    inner: opusic_c::Decoder,
    rate: SampleRate,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("opus::Decoder")
            .field("rate", &self.rate)
            .finish_non_exhaustive()
    }
}

impl Decoder {
    pub(super) fn new(rate: SampleRate) -> Result<Self, ErrorCode> {
        let inner = opusic_c::Decoder::new(Channels::Mono, rate_of(rate))?;
        Ok(Self { inner, rate })
    }

    pub(super) fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> Result<usize, BadFrame> {
        if payload.is_empty() {
            return Err(BadFrame::Empty);
        }
        let units = duration(payload).ok_or(BadFrame::Malformed)?;
        let len = (units / (48_000 / self.rate.hz())) as usize;
        let room = out.get_mut(..len).ok_or(BadFrame::TooLong)?;
        self.inner
            .decode_to_slice(payload, unsigned_mut(room), false)
            .map_err(|_| BadFrame::Malformed)
    }

    /// Goes on without a packet.
    pub(super) fn conceal(&mut self, out: &mut [i16]) {
        let unit = (self.rate.hz() / CONCEAL_UNITS_PER_SEC) as usize;
        // libopus works in frames of 20 ms itself.
        for piece in out.chunks_mut(8 * unit) {
            let (whole, rest) = piece.split_at_mut(piece.len() / unit * unit);
            self.conceal_units(whole);
            if !rest.is_empty() {
                let mut last = [0; SampleRate::MAX.hz() as usize / CONCEAL_UNITS_PER_SEC as usize];
                self.conceal_units(&mut last[..unit]);
                rest.copy_from_slice(&last[..rest.len()]);
            }
        }
    }

    fn conceal_units(&mut self, out: &mut [i16]) {
        if !out.is_empty()
            && self
                .inner
                .decode_to_slice(&[], unsigned_mut(out), false)
                .is_err()
        {
            out.fill(0);
        }
    }

    /// Goes on with what the packet after a loss says of the one before it; conceals what it does
    /// not say.
    pub(super) fn recover(&mut self, next: &[u8], out: &mut [i16]) {
        let unit = (self.rate.hz() / CONCEAL_UNITS_PER_SEC) as usize;
        let (rest, whole) = out.split_at_mut(out.len() % unit);
        self.conceal(rest);
        if whole.is_empty() {
            return;
        }
        let recovered = self
            .inner
            .decode_to_slice(next, unsigned_mut(whole), true)
            .unwrap_or(0);
        self.conceal(&mut whole[recovered..]);
    }
}

/// Samples of one channel to packets.
pub(super) struct Encoder {
    inner: opusic_c::Encoder,
    rate: SampleRate,
    options: OpusOptions,
    loss_percent: u8,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("opus::Encoder")
            .field("rate", &self.rate)
            .field("options", &self.options)
            .field("loss_percent", &self.loss_percent)
            .finish_non_exhaustive()
    }
}

impl Encoder {
    pub(super) fn new(rate: SampleRate, options: &OpusOptions) -> Result<Self, ErrorCode> {
        let mut inner = opusic_c::Encoder::new(Channels::Mono, rate_of(rate), Application::Voip)?;
        inner.set_complexity(COMPLEXITY)?;
        // Samples come from 16 bits: what lies below is not worth bits, nor speech.
        inner.set_lsb_depth(16)?;
        inner.set_max_bandwidth(bandwidth_max(options.playback_rate_max_hz))?;
        inner.set_bitrate(Bitrate::Value(bitrate(rate, options, false)))?;
        inner.set_vbr(!options.constant_bitrate)?;
        inner.set_dtx(options.dtx)?;
        Ok(Self {
            inner,
            rate,
            options: *options,
            loss_percent: 0,
        })
    }

    /// Each packet also describes the one before it from now on, as well as so much loss asks for,
    /// if the peer makes use of that; or no longer, with 0.
    pub(super) fn set_expected_loss(&mut self, percent: u8) {
        let percent = percent.min(FEC_LOSS_PERCENT_MAX);
        if !self.options.in_band_fec || self.loss_percent == percent {
            return;
        }
        let has_fec = percent > 0;
        let mode = if has_fec {
            InbandFec::Mode1
        } else {
            InbandFec::Off
        };
        let bitrate = bitrate(self.rate, &self.options, has_fec);
        let set = self
            .inner
            .set_inband_fec(mode)
            .and_then(|()| self.inner.set_packet_loss(percent))
            .and_then(|()| self.inner.set_bitrate(Bitrate::Value(bitrate)));
        debug_assert_eq!(set, Ok(()), "all of these are in range");
        self.loss_percent = percent;
    }

    /// `pcm` is one frame. 0: nothing has to be sent.
    pub(super) fn encode(&mut self, pcm: &[i16], out: &mut [u8]) -> Result<usize, EncodeError> {
        let room = out.len().min(ENCODED_LEN_MAX);
        match self.inner.encode_to_slice(unsigned(pcm), &mut out[..room]) {
            Ok(len) if self.options.dtx && len <= DTX_LEN_MAX => Ok(0),
            Ok(len) => Ok(len),
            Err(ErrorCode::BufferTooSmall) => Err(EncodeError::NoRoom),
            Err(ErrorCode::BadArg) if room == 0 => Err(EncodeError::NoRoom),
            Err(_) => Err(EncodeError::Codec),
        }
    }
}

/// `maxplaybackrate` (RFC 7587 §6.1) as the bandwidth that it can play.
fn bandwidth_max(playback_rate_hz: u32) -> Bandwidth {
    match playback_rate_hz {
        0..=8_000 => Bandwidth::Narrow,
        8_001..=12_000 => Bandwidth::Medium,
        12_001..=16_000 => Bandwidth::Wide,
        16_001..=24_000 => Bandwidth::Superwide,
        _ => Bandwidth::Full,
    }
}

/// Bit/s: the upper ends of what RFC 7587 §3.1.1 recommends for speech, within what the peer
/// allows. In-band FEC gets room: below 19 kbit/s at 8 kHz and 24 at 16 kHz libopus leaves it out.
fn bitrate(rate: SampleRate, options: &OpusOptions, has_fec: bool) -> u32 {
    let audible_hz = rate.hz().min(options.playback_rate_max_hz);
    let wanted = match (audible_hz, has_fec) {
        (..=8_000, false) => 12_000,
        (..=8_000, true) => 20_000,
        (..=16_000, false) => 20_000,
        (..=16_000, true) => 26_000,
        (_, false) => 40_000,
        (_, true) => 48_000,
    };
    match options.bitrate_max {
        0 => wanted,
        most => wanted.min(most.max(6_000)),
    }
}
