//! What a leg's peer says, as samples by the clock: jitter buffer, decoders, concealment, comfort
//! noise.
//!
//! Packets go in as they come, of any packet time and of any format that signalling agreed on; each
//! tick reads exactly one frame. What was lost is concealed by the codec, what the sender does not
//! send sounds as it said it would, and a frame is there even if nobody sends at all.
//!
//! A sender's clock is never ours. Once they are apart by more than jitter explains, a period of
//! the voice is left out or played twice, where the signal is quiet or repeats itself anyway.

use trunkline_edge_api::{AudioCodec, ClockRateHz, LegAudio, MonoTime, PayloadType};

use crate::audio::SampleRate;
use crate::codec::comfort_noise::NoiseGenerator;
use crate::codec::{Decoder, UnsupportedFormat};
use crate::jitter_buffer::{
    Adjustment, Inserted, JitterBuffer, JitterStats, PACKET_MAX_MILLIS, PacketKind, Pulled,
};
use crate::rtp::RtpHeader;

mod samples;

use samples::Samples;

/// The longest frame that can be read at once, milliseconds.
pub const FRAME_MAX_MILLIS: u32 = 20;
/// Milliseconds of samples there is room for: a frame and what is needed to shorten it, the longest
/// packet behind it, and what a resampler may add.
const ROOM_MILLIS: u32 = 2 * FRAME_MAX_MILLIS + PACKET_MAX_MILLIS + 10;
/// Longest payload of a codec with eight bits per sample at 8 kHz.
const NARROWBAND_PAYLOAD_LEN_MAX: usize = 8 * PACKET_MAX_MILLIS as usize;
/// An Opus packet this short holds no sound but says that none follows (RFC 6716 §2.1.9).
const OPUS_DTX_LEN_MAX: usize = 2;
/// Milliseconds between two adjustments: what changes the length of speech must not become a sound
/// itself.
const ADJUSTMENT_INTERVAL_MILLIS: u32 = 100;
/// How alike what is joined must be at first, and how much less for every frame that went by
/// without finding such a place: after 2 s anything is better than a packet too late.
const LIKENESS_MIN: f32 = 0.9;
const LIKENESS_RELIEF_PER_MILLI: f32 = 1.9 / 2_000.0;
/// Pulls per frame; a frame needs two of the shortest packets in use, and losses between them.
const PULLS_MAX: u32 = 48;

/// What a frame holds; of several things the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReadKind {
    /// The peer is silent; the samples are noise of its level or none.
    Silence,
    /// Something was lost here.
    Concealed,
    /// The peer said it.
    Sound,
}

/// What an input did so far. Counts of its whole life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InputStats {
    /// What happened to packets before they were decoded.
    pub jitter: JitterStats,
    /// Sound that had to be invented, ms.
    pub concealed_millis: u64,
    /// Times that it had to be: about one for each packet that was missing or bad.
    pub concealments: u64,
    /// Payloads that did not decode.
    pub bad_frames: u64,
    /// Times that a little was left out.
    pub shortened: u64,
    /// Times that a little was added.
    pub lengthened: u64,
}

/// One leg's sound by the clock.
#[derive(Debug)]
pub struct ClockedInput {
    buffer: JitterBuffer,
    sources: Vec<Source>,
    /// Index of the one heard last: it conceals.
    source: usize,
    comfort_noise: PayloadType,
    rate: SampleRate,
    samples: Samples,
    noise: NoiseGenerator,
    silence: Silence,
    last_kind: ReadKind,
    /// Milliseconds since playout was moved last.
    unmoved_millis: u32,
    /// Milliseconds for which it should have been moved but no good place was found.
    unseamed_millis: u32,
    concealed_samples: u64,
    stats: InputStats,
}

/// One format that the peer may send.
#[derive(Debug)]
struct Source {
    payload_type: PayloadType,
    clock_rate: ClockRateHz,
    codec: AudioCodec,
    decoder: Decoder,
}

/// How the peer's silence sounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Silence {
    /// Noise of the level it stated; none if it stated none.
    Noise,
    /// The codec continues it.
    Decoder,
}

/// RTP units to samples and back.
#[derive(Debug, Clone, Copy)]
struct Ratio {
    clock_hz: u64,
    sample_hz: u64,
}

impl Ratio {
    fn samples(self, units: u32) -> usize {
        (u64::from(units) * self.sample_hz / self.clock_hz) as usize
    }

    fn units(self, samples: usize) -> u32 {
        (samples as u64 * self.clock_hz).div_ceil(self.sample_hz) as u32
    }
}

impl ClockedInput {
    /// An input for what `audio` lets the peer send, read at `rate`.
    ///
    /// # Errors
    /// A format cannot be decoded.
    pub fn new(audio: &LegAudio, rate: SampleRate) -> Result<Self, UnsupportedFormat> {
        let formats = audio.receive.as_slice();
        let mut sources = Vec::with_capacity(formats.len());
        for format in formats {
            sources.push(Source {
                payload_type: format.payload_type,
                clock_rate: format.clock_rate,
                codec: format.codec,
                decoder: Decoder::new(format, rate)?,
            });
        }
        let is_small = |source: &Source| {
            use AudioCodec::{G722, Pcma, Pcmu};
            matches!(source.codec, Pcmu | Pcma | G722)
        };
        let payload_len_max = if sources.iter().all(is_small) {
            NARROWBAND_PAYLOAD_LEN_MAX
        } else {
            JitterBuffer::PAYLOAD_LEN_MAX
        };
        let clock_rate = sources
            .first()
            .map_or(ClockRateHz::NARROWBAND, |source| source.clock_rate);
        Ok(Self {
            buffer: JitterBuffer::new(clock_rate, payload_len_max),
            sources,
            source: 0,
            comfort_noise: audio.comfort_noise.unwrap_or(PayloadType::CN),
            rate,
            samples: Samples::new(rate, ROOM_MILLIS),
            noise: NoiseGenerator::new(rate),
            silence: Silence::Noise,
            last_kind: ReadKind::Silence,
            unmoved_millis: 0,
            unseamed_millis: 0,
            concealed_samples: 0,
            stats: InputStats::default(),
        })
    }

    /// The rate of what is read.
    #[must_use]
    pub fn rate(&self) -> SampleRate {
        self.rate
    }

    /// Takes an RTP packet of the peer that arrived `now`, whatever its payload type: one that is
    /// not sound still tells that nothing was lost. Comfort noise is known under the number that
    /// was agreed on, or else under 13.
    pub fn receive(&mut self, now: MonoTime, header: &RtpHeader, payload: &[u8]) -> Inserted {
        let payload_type = header.payload_type;
        let source = self
            .sources
            .iter()
            .find(|source| source.payload_type == payload_type);
        let kind = match source {
            Some(source) => {
                self.buffer.set_clock_rate(source.clock_rate);
                let units = source.decoder.duration(payload);
                if source.codec == AudioCodec::Opus && payload.len() <= OPUS_DTX_LEN_MAX {
                    PacketKind::Pause { units }
                } else {
                    PacketKind::Sound { units }
                }
            }
            None if payload_type == self.comfort_noise => PacketKind::Pause { units: 0 },
            None => PacketKind::Other,
        };
        self.buffer.insert(now, header, kind, payload)
    }

    /// Fills `out`, 10 or 20 ms at the input's rate, with what is to be heard `now`. Called once
    /// for every such interval.
    pub fn read(&mut self, now: MonoTime, out: &mut [i16]) -> ReadKind {
        let frame_millis = (out.len() as u32 * 1_000 / self.rate.hz()).max(1);
        let mut kind = None;
        let mut pulls_left = PULLS_MAX;
        while self.samples.len() < out.len() && pulls_left > 0 {
            let pulled = self.pull(now, out.len() - self.samples.len());
            kind = kind.max(Some(pulled));
            pulls_left -= 1;
        }
        if let Some(kind) = kind {
            self.last_kind = kind;
        }
        self.adjust(now, out.len(), frame_millis);
        let taken = self.samples.take(out);
        out[taken..].fill(0);
        self.last_kind
    }

    /// Pulls once, for at most `wanted` samples unless a packet has more.
    fn pull(&mut self, now: MonoTime, wanted: usize) -> ReadKind {
        let ratio = Ratio {
            clock_hz: u64::from(self.buffer.clock_rate().get()),
            sample_hz: u64::from(self.rate.hz()),
        };
        let samples = &mut self.samples;
        match self.buffer.pull(now, ratio.units(wanted)) {
            Pulled::Sound {
                payload_type,
                payload,
                units,
                skip_units,
            } => {
                if let Some(index) = index_of(&self.sources, payload_type) {
                    self.source = index;
                }
                let decoded = self
                    .sources
                    .get_mut(self.source)
                    .and_then(|source| source.decoder.decode(payload, samples.room()).ok());
                match decoded {
                    Some(len) => samples.commit(len, ratio.samples(skip_units)),
                    None => {
                        self.stats.bad_frames += 1;
                        let len = ratio.samples(units.saturating_sub(skip_units));
                        self.conceal(len);
                        return ReadKind::Concealed;
                    }
                }
                ReadKind::Sound
            }
            Pulled::Pause {
                payload_type,
                payload,
                units,
            } => {
                if let Some(index) = index_of(&self.sources, payload_type) {
                    self.source = index;
                    self.silence = Silence::Decoder;
                    let decoder = &mut self.sources[index].decoder;
                    if units > 0
                        && let Ok(len) = decoder.decode(payload, samples.room())
                    {
                        samples.commit(len, 0);
                    }
                } else {
                    self.silence = Silence::Noise;
                    self.noise.handle_payload(payload);
                }
                ReadKind::Silence
            }
            Pulled::Missing {
                units,
                following: Some(following),
            } => {
                let room = samples.room();
                let len = ratio.samples(units).min(room.len());
                if let Some(index) = index_of(&self.sources, following.payload_type) {
                    self.source = index;
                    let decoder = &mut self.sources[index].decoder;
                    decoder.recover(following.payload, &mut room[..len]);
                } else {
                    room[..len].fill(0);
                }
                samples.commit(len, 0);
                self.count_concealed(len);
                ReadKind::Concealed
            }
            Pulled::Missing {
                units,
                following: None,
            }
            | Pulled::Starved { units } => {
                self.conceal(ratio.samples(units));
                ReadKind::Concealed
            }
            Pulled::Silence { units } => {
                let room = samples.room();
                let len = ratio.samples(units).min(room.len());
                let out = &mut room[..len];
                match (self.silence, self.sources.get_mut(self.source)) {
                    (Silence::Decoder, Some(source)) => source.decoder.conceal(out),
                    (Silence::Decoder, None) | (Silence::Noise, _) => self.noise.fill(out),
                }
                samples.commit(len, 0);
                ReadKind::Silence
            }
        }
    }

    fn conceal(&mut self, len: usize) {
        let room = self.samples.room();
        let len = len.min(room.len());
        match self.sources.get_mut(self.source) {
            Some(source) => source.decoder.conceal(&mut room[..len]),
            None => room[..len].fill(0),
        }
        self.samples.commit(len, 0);
        self.count_concealed(len);
    }

    fn count_concealed(&mut self, len: usize) {
        self.stats.concealments += 1;
        self.concealed_samples += len as u64;
    }

    /// Moves playout a little where the buffer asks for it and the sound allows it.
    fn adjust(&mut self, now: MonoTime, frame_len: usize, frame_millis: u32) {
        self.unmoved_millis = self.unmoved_millis.saturating_add(frame_millis);
        if self.unmoved_millis < ADJUSTMENT_INTERVAL_MILLIS || self.last_kind != ReadKind::Sound {
            return;
        }
        let adjustment = self.buffer.adjustment(frame_millis);
        let wanted = match adjustment {
            Adjustment::None => {
                self.unseamed_millis = 0;
                return;
            }
            Adjustment::Shorten => frame_len + self.samples.seam_len() / 2,
            Adjustment::Lengthen => self.samples.seam_len(),
        };
        if adjustment == Adjustment::Shorten {
            let mut pulls_left = PULLS_MAX;
            while self.samples.len() < wanted.max(self.samples.seam_len())
                && self.buffer.has_sound_ready()
                && pulls_left > 0
            {
                self.pull(now, frame_len);
                pulls_left -= 1;
            }
        }
        if self.samples.len() < wanted {
            return;
        }
        let Some(seam) = self.samples.find_seam() else {
            return;
        };
        let relief = self.unseamed_millis as f32 * LIKENESS_RELIEF_PER_MILLI;
        if seam.likeness < LIKENESS_MIN - relief {
            self.unseamed_millis = self.unseamed_millis.saturating_add(frame_millis);
            return;
        }
        match adjustment {
            Adjustment::None => {}
            Adjustment::Shorten => {
                self.samples.shorten(seam);
                self.stats.shortened += 1;
            }
            Adjustment::Lengthen => {
                self.samples.lengthen(seam);
                self.stats.lengthened += 1;
            }
        }
        self.buffer.adjusted();
        self.unmoved_millis = 0;
        self.unseamed_millis = 0;
    }

    /// What it did so far.
    #[must_use]
    pub fn stats(&self) -> InputStats {
        InputStats {
            jitter: self.buffer.stats(),
            concealed_millis: self.concealed_samples * 1_000 / u64::from(self.rate.hz()),
            ..self.stats
        }
    }
}

fn index_of(sources: &[Source], payload_type: PayloadType) -> Option<usize> {
    sources
        .iter()
        .position(|source| source.payload_type == payload_type)
}

#[cfg(test)]
mod tests;
