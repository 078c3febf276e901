//! Announcements and music: a file becomes a [`Prompt`], a prompt becomes packets.
//!
//! ```text
//!   bytes of a file --parse--> Prompt (8 kHz, and 16 kHz where the file has it)
//!                                 |  encode_for(format), once per format
//!                                 v
//!                              EncodedPrompt: payload 0, payload 1, ... shared by all sessions
//! ```
//!
//! A file is judged when it is loaded: [`Prompt::parse`] refuses what cannot be played, and says
//! what to change. What it accepts is whole in memory and cannot fail later. WAV with PCM of 8, 16
//! or 24 bits, A-law or µ-law is read, mono or stereo, 8 to 48 kHz; and files without a header, of
//! which the caller says what they hold ([`RawAudio`]). Limits are checked against what the header
//! promises, before memory is taken for it.
//!
//! Left out: compressed WAV (GSM, ADPCM, MP3), floating point, and more than two channels.

use std::borrow::Cow;

use trunkline_edge_api::{AudioCodec, ClockRateHz, OpusOptions, PacketTime, PayloadType};
use trunkline_edge_api::{AudioFormat, RawAudio, Refusal};

use crate::audio::SampleRate;

mod encoded;
mod resample;
mod samples;
mod wav;

pub use encoded::{EncodeError, EncodedPrompt, PromptFormat};
use resample::{output_len, resample};
use wav::{SampleCoding, WavAudio};

/// Sampling rates of files, Hz: what telephones carry up to what studios deliver.
const SAMPLE_RATES_HZ: std::ops::RangeInclusive<u32> = 8_000..=48_000;

/// G.722 makes one byte of two samples at 16 kHz.
const G722_BYTES_PER_SECOND: u64 = 8_000;

/// How much one prompt may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromptLimits {
    /// Longest prompt, seconds.
    pub duration_max_secs: u32,
    /// Most memory for the samples of one prompt, bytes; what it takes encoded is not part of it.
    pub bytes_max: u64,
}

impl Default for PromptLimits {
    /// Half an hour, which takes 86 MB when the file is wideband.
    fn default() -> Self {
        Self {
            duration_max_secs: 30 * 60,
            bytes_max: 96 << 20,
        }
    }
}

/// Why a file cannot be played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PromptError {
    /// No RIFF header, and the caller did not say that there is none.
    #[error(
        "the file is no WAV; convert it (`sox in.mp3 -r 16k -b 16 -c 1 out.wav`), or name the raw \
         encoding of a file without header"
    )]
    NotWav,
    /// No usable `fmt ` chunk before the audio.
    #[error("the WAV file does not say its format before its audio; export it anew")]
    NoFormat,
    /// No sample at all.
    #[error("the file holds no audio")]
    NoAudio,
    /// The `data` chunk promises more than there is.
    #[error(
        "the WAV header promises {promised} bytes of audio and the file has {present}: it was cut \
         short; copy it anew"
    )]
    CutShort {
        /// Bytes by the header.
        promised: u32,
        /// Bytes in the file.
        present: usize,
    },
    /// A format tag that we do not decode.
    #[error(
        "WAV encoding {tag:#06x} with {bits} bits cannot be played; convert it to 16-bit PCM, \
         A-law or µ-law"
    )]
    UnknownCoding {
        /// `wFormatTag`.
        tag: u16,
        /// `wBitsPerSample`.
        bits: u16,
    },
    /// Neither mono nor stereo.
    #[error("the file has {0} channels; mix it down to one or two")]
    Channels(u16),
    /// A rate outside 8 to 48 kHz.
    #[error("the file is sampled at {0} Hz; convert it to 8,000 to 48,000 Hz, best 16,000")]
    SampleRate(u32),
    /// The format chunk contradicts itself.
    #[error(
        "the WAV header says {frame_len} bytes for each sample where its format takes \
             {expected}; export it anew"
    )]
    Contradiction {
        /// `nBlockAlign` of the file.
        frame_len: u16,
        /// What channels and bits make.
        expected: u16,
    },
    /// A raw encoding that cannot stand in a file by itself.
    #[error("a raw file cannot hold {}; convert it to WAV", .0.encoding_name())]
    RawCodec(AudioCodec),
    /// Longer than [`PromptLimits::duration_max_secs`].
    #[error("the file lasts {secs} s; a prompt may last {max_secs} s")]
    TooLong {
        /// How long it is.
        secs: u64,
        /// How long it may be.
        max_secs: u32,
    },
    /// More than [`PromptLimits::bytes_max`].
    #[error("the file takes {bytes} bytes of memory; a prompt may take {max_bytes}")]
    TooLarge {
        /// What it would take.
        bytes: u64,
        /// What it may take.
        max_bytes: u64,
    },
}

impl PromptError {
    /// What control is told; the text of the error itself is for the log.
    #[must_use]
    pub const fn refusal(&self) -> Refusal {
        match self {
            Self::TooLong { .. } | Self::TooLarge { .. } => Refusal::PromptTooLong,
            _ => Refusal::PromptUnsupported,
        }
    }
}

/// A file's audio, mono.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    narrowband: Box<[i16]>,
    /// Where the file was sampled above 8 kHz.
    wideband: Option<Box<[i16]>>,
}

impl Prompt {
    /// Reads a whole file: WAV, or what `raw` says.
    ///
    /// Called on a thread that may take its time: half an hour of audio at 44.1 kHz takes seconds.
    ///
    /// # Errors
    /// [`PromptError`]; its text says what to change about the file.
    pub fn parse(
        file: &[u8],
        raw: Option<RawAudio>,
        limits: &PromptLimits,
    ) -> Result<Self, PromptError> {
        match raw {
            None => Self::from_wav(&wav::parse(file)?, limits),
            Some(RawAudio {
                codec: AudioCodec::G722,
                sample_rate_hz,
            }) => Self::from_g722(file, sample_rate_hz, limits),
            Some(raw) => Self::from_wav(&raw_audio(file, raw)?, limits),
        }
    }

    fn from_wav(audio: &WavAudio<'_>, limits: &PromptLimits) -> Result<Self, PromptError> {
        let sample_rate_hz = audio.sample_rate_hz;
        if !SAMPLE_RATES_HZ.contains(&sample_rate_hz) {
            return Err(PromptError::SampleRate(sample_rate_hz));
        }
        let frame_len = audio.coding.bytes() * usize::from(audio.channels);
        check_limits(audio.data.len() / frame_len, sample_rate_hz, limits)?;
        Ok(Self::from_samples(samples::to_mono(audio), sample_rate_hz))
    }

    /// G.722 at 64 kbit/s, as it is on the wire.
    fn from_g722(
        file: &[u8],
        sample_rate_hz: u32,
        limits: &PromptLimits,
    ) -> Result<Self, PromptError> {
        let rate = SampleRate::Hz16000;
        if sample_rate_hz != rate.hz() {
            return Err(PromptError::SampleRate(sample_rate_hz));
        }
        if file.is_empty() {
            return Err(PromptError::NoAudio);
        }
        let samples_per_byte = rate.hz() as usize / G722_BYTES_PER_SECOND as usize;
        check_limits(
            file.len().saturating_mul(samples_per_byte),
            rate.hz(),
            limits,
        )?;
        let format = AudioFormat {
            codec: AudioCodec::G722,
            payload_type: PayloadType::G722,
            clock_rate: ClockRateHz::G722_RTP,
            channels: 1,
            packet_time: PacketTime::MS_20,
            opus: OpusOptions::default(),
        };
        let unsupported = |_| PromptError::RawCodec(AudioCodec::G722);
        let mut decoder = crate::codec::Decoder::new(&format, rate).map_err(unsupported)?;
        let mut samples = vec![0; file.len() * samples_per_byte];
        for (bytes, out) in file
            .chunks(160)
            .zip(samples.chunks_mut(160 * samples_per_byte))
        {
            let _ = decoder.decode(bytes, out);
        }
        Ok(Self::from_samples(samples, rate.hz()))
    }

    fn from_samples(samples: Vec<i16>, sample_rate_hz: u32) -> Self {
        let (narrow, wide) = (SampleRate::Hz8000.hz(), SampleRate::Hz16000.hz());
        if sample_rate_hz == narrow {
            return Self {
                narrowband: samples.into(),
                wideband: None,
            };
        }
        let narrowband = resample(&samples, sample_rate_hz, narrow).into();
        let wideband = if sample_rate_hz == wide {
            samples.into()
        } else {
            resample(&samples, sample_rate_hz, wide).into()
        };
        Self {
            narrowband,
            wideband: Some(wideband),
        }
    }

    /// The samples at `rate`, if they are kept: always at 8 kHz, at 16 kHz for files above 8 kHz,
    /// never at 48 kHz.
    #[must_use]
    pub fn samples(&self, rate: SampleRate) -> Option<&[i16]> {
        match rate {
            SampleRate::Hz8000 => Some(&self.narrowband),
            SampleRate::Hz16000 => self.wideband.as_deref(),
            SampleRate::Hz48000 => None,
        }
    }

    /// The samples at `rate`, converted from the best there is where they are not kept.
    #[must_use]
    pub fn samples_at(&self, rate: SampleRate) -> Cow<'_, [i16]> {
        if let Some(samples) = self.samples(rate) {
            return Cow::Borrowed(samples);
        }
        let (best, from) = match &self.wideband {
            Some(wideband) => (wideband, SampleRate::Hz16000),
            None => (&self.narrowband, SampleRate::Hz8000),
        };
        Cow::Owned(resample(best, from.hz(), rate.hz()))
    }

    /// Encodes the whole prompt for legs that are sent `format`. Not for a packet thread.
    ///
    /// # Errors
    /// [`EncodeError`] when this build has no such encoder.
    pub fn encode_for(&self, format: &AudioFormat) -> Result<EncodedPrompt, EncodeError> {
        EncodedPrompt::new(self, format)
    }

    /// How long it lasts, milliseconds.
    #[must_use]
    pub fn duration_millis(&self) -> u64 {
        self.narrowband.len() as u64 * 1_000 / u64::from(SampleRate::Hz8000.hz())
    }

    /// Memory of its samples, bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        let samples = self.narrowband.len() + self.wideband.as_ref().map_or(0, |wide| wide.len());
        samples as u64 * 2
    }
}

/// What the caller says that a file without header holds.
fn raw_audio(file: &[u8], raw: RawAudio) -> Result<WavAudio<'_>, PromptError> {
    let coding = match raw.codec {
        AudioCodec::Pcmu => SampleCoding::Mulaw,
        AudioCodec::Pcma => SampleCoding::Alaw,
        AudioCodec::L16 => SampleCoding::Pcm16,
        other @ (AudioCodec::Opus | AudioCodec::G722) => return Err(PromptError::RawCodec(other)),
    };
    let whole = file.len() - file.len() % coding.bytes();
    if whole == 0 {
        return Err(PromptError::NoAudio);
    }
    Ok(WavAudio {
        coding,
        channels: 1,
        sample_rate_hz: raw.sample_rate_hz,
        data: &file[..whole],
    })
}

/// Judges what `samples` would take, without taking it.
fn check_limits(
    samples: usize,
    sample_rate_hz: u32,
    limits: &PromptLimits,
) -> Result<(), PromptError> {
    let secs = (samples as u64).div_ceil(u64::from(sample_rate_hz));
    if secs > u64::from(limits.duration_max_secs) {
        return Err(PromptError::TooLong {
            secs,
            max_secs: limits.duration_max_secs,
        });
    }
    let kept = |rate: SampleRate| 2 * output_len(samples, sample_rate_hz, rate.hz()) as u64;
    let mut bytes = kept(SampleRate::Hz8000);
    if sample_rate_hz > SampleRate::Hz8000.hz() {
        bytes += kept(SampleRate::Hz16000);
    }
    if bytes > limits.bytes_max {
        return Err(PromptError::TooLarge {
            bytes,
            max_bytes: limits.bytes_max,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
