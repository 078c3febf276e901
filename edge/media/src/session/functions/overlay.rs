//! A playback over live audio: a coach's whisper, the beep of a recording.
//!
//! Two things that are to be added up have to be there at the same time. So while it lasts the far
//! peer's audio is read by the clock, through a jitter buffer, decoded, made softer, and what is
//! played is added. In a conference the mix, which is clocked already, takes its place.
//!
//! ```text
//!   far peer's packets --> ClockedInput --+
//!   what its ears let through ------------+--> gain --> + --> encoder --> the leg's one stream
//!   the conference's mix -----------------+             |
//!   prompts, tones, silence as L16 ---------------------+
//! ```
//!
//! At its end the leg is relayed or transcoded again at once: what the jitter buffer still held,
//! some 40 ms, is not waited for.

use trunkline_edge_api::{
    AudioCodec, AudioFormat, ClockRateHz, LegAudio, LiveLevel, MonoTime, OpusOptions, PacketTime,
    PayloadType, Refusal,
};

use super::ears;
use super::made::{Feed, Made};
use super::player::Played;
use super::playlist::{Playlist, PreparedPlayback};
use crate::audio::SampleRate;
use crate::clocked_input::ClockedInput;
use crate::codec::Encoder;
use crate::conference::Conference;
use crate::resample::Resampler;
use crate::rewrite::Position;
use crate::rtp::{HEADER_LEN_MIN, RtpHeader};

/// What is added up at once: a worker's tick, and a divisor of every packet time.
const FRAME_MILLIS: u32 = 10;
const FRAME_NANOS: u64 = FRAME_MILLIS as u64 * 1_000_000;
/// Samples of a frame at the highest rate of a conference, which is that of an overlay, too.
const FRAME_LEN_MAX: usize = SampleRate::Hz16000.samples(FRAME_MILLIS);

/// A worker that was away for longer than this goes on from now; what was missed is not sent in a
/// burst.
const LAG_FRAMES_MAX: u64 = 10;

/// Filtered audio that may wait to be read: two frames of the ears, and what they are early by.
const FILTERED_MILLIS_MAX: u32 = 60;

/// A gain of one.
const UNITY: i32 = 1 << 14;

/// What the far peer says, as far as the edge knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct LiveSource {
    /// What it may send; `None`: nothing that the edge could decode.
    pub(super) audio: Option<LegAudio>,
    /// Whether it is heard by ears that take digits out.
    pub(super) is_filtered: bool,
}

#[derive(Debug)]
pub(super) struct Overlay {
    list: Playlist,
    source: LiveSource,
    live: Live,
    mixer: Mixer,
    encoder: Encoder,
    format: AudioFormat,
    rate: SampleRate,
    next_at: MonoTime,
    /// Samples that no packet has taken yet.
    samples: Vec<i16>,
    sequence: u16,
    timestamp: u32,
    /// All was played; the packet under way is filled up with live audio.
    is_over: bool,
}

#[derive(Debug)]
enum Live {
    Silent,
    Packets(Box<ClockedInput>),
    Filtered(Filtered),
}

/// Frames of the far leg's ears at this leg's rate.
#[derive(Debug)]
struct Filtered {
    resampler: Resampler,
    samples: Vec<i16>,
}

/// Adds what is played to what is live.
#[derive(Debug)]
struct Mixer {
    /// Of live audio while something is played, in units of [`UNITY`].
    gain: i32,
    /// At the end of the last frame.
    present_gain: i32,
    /// The frame to be added, as L16.
    payload: [u8; 2 * FRAME_LEN_MAX],
}

impl Overlay {
    pub(super) fn new(
        now: MonoTime,
        prepared: PreparedPlayback,
        format: &AudioFormat,
        live: LiveLevel,
        source: LiveSource,
    ) -> Result<Self, Refusal> {
        let rate = Conference::rate_for(format);
        let encoder = Encoder::new(format, rate).map_err(|_| Refusal::FormatUnsupported)?;
        Ok(Self {
            list: Playlist::new(prepared, &linear_format(format))?,
            live: Live::of(&source, rate)?,
            source,
            mixer: Mixer {
                gain: gain_of(live),
                present_gain: UNITY,
                payload: [0; 2 * FRAME_LEN_MAX],
            },
            samples: Vec::with_capacity(encoder.packet_samples() + rate.samples(FRAME_MILLIS)),
            encoder,
            format: *format,
            rate,
            next_at: now,
            sequence: 0,
            timestamp: 0,
            is_over: false,
        })
    }

    pub(super) fn list(&self) -> &Playlist {
        &self.list
    }

    /// The far peer's formats may have changed, or who listens to it.
    pub(super) fn set_source(&mut self, source: LiveSource) -> Result<(), Refusal> {
        if self.source != source {
            self.live = Live::of(&source, self.rate)?;
            self.source = source;
        }
        Ok(())
    }

    /// Milliseconds of what the far peer said that were made up.
    pub(super) fn concealed_millis(&self) -> u64 {
        match &self.live {
            Live::Packets(input) => input.stats().concealed_millis,
            Live::Silent | Live::Filtered(_) => 0,
        }
    }

    pub(super) fn set_expected_loss(&mut self, percent: u8) {
        self.encoder.set_expected_loss(percent);
    }

    /// Takes a packet of the far peer.
    pub(super) fn receive(&mut self, now: MonoTime, header: &RtpHeader, payload: &[u8]) {
        if let Live::Packets(input) = &mut self.live {
            // What becomes of it is in the input's figures.
            let _ = input.receive(now, header, payload);
        }
    }

    /// Takes what the far leg's ears let through. A frame that finds no room is left out.
    pub(super) fn take_filtered(&mut self, frame: &[i16]) {
        if let Live::Filtered(filtered) = &mut self.live {
            filtered.take(frame);
        }
    }

    /// What is due, if anything is, where no conference tells the time.
    pub(super) fn poll(&mut self, now: MonoTime, out: &mut [u8]) -> Option<Played> {
        let packet_samples = self.encoder.packet_samples();
        while self.samples.len() < packet_samples {
            if self.is_over && self.samples.is_empty() {
                return Some(Played::Ended);
            }
            if now < self.next_at {
                return None;
            }
            self.keep_pace(now);
            let mut frame = [0; FRAME_LEN_MAX];
            let frame = &mut frame[..self.rate.samples(FRAME_MILLIS)];
            self.live.read(now, frame);
            self.is_over |= !self.mixer.cover(&mut self.list, frame);
            if self.is_over && self.samples.is_empty() {
                return Some(Played::Ended);
            }
            self.samples.extend_from_slice(frame);
        }
        let room = out.get_mut(HEADER_LEN_MIN..)?;
        let encoded = self.encoder.encode(&self.samples[..packet_samples], room);
        self.samples.drain(..packet_samples);
        let timestamp = self.timestamp;
        self.timestamp = timestamp.wrapping_add(self.packet_units());
        let payload_len = encoded.unwrap_or(0);
        if payload_len == 0 {
            return Some(Played::Nothing);
        }
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        Some(Played::Packet(Made {
            feed: Feed::Playback(self.list.id().0),
            position: Position {
                sequence,
                timestamp,
            },
            marker: false,
            payload_type: self.format.payload_type,
            clock_rate: self.format.clock_rate,
            payload_len,
        }))
    }

    /// Covers a frame of a conference's mix, which is of this rate; `false`: all was played before.
    pub(super) fn cover_mix(&mut self, mix: &mut [i16]) -> bool {
        for frame in mix.chunks_exact_mut(self.rate.samples(FRAME_MILLIS)) {
            self.is_over |= !self.mixer.cover(&mut self.list, frame);
        }
        !self.is_over
    }

    fn keep_pace(&mut self, now: MonoTime) {
        let lag_frames = now.nanos_since(self.next_at) / FRAME_NANOS;
        if lag_frames > LAG_FRAMES_MAX {
            self.next_at = self.next_at.plus_nanos(lag_frames * FRAME_NANOS);
            let units = self.format.clock_rate.get() / 1_000 * FRAME_MILLIS;
            let missed = units.wrapping_mul(lag_frames as u32);
            self.timestamp = self.timestamp.wrapping_add(missed);
        }
        self.next_at = self.next_at.plus_nanos(FRAME_NANOS);
    }

    fn packet_units(&self) -> u32 {
        self.format.clock_rate.get() / 1_000 * u32::from(self.format.packet_time.millis())
    }
}

impl Live {
    fn of(source: &LiveSource, rate: SampleRate) -> Result<Self, Refusal> {
        Ok(match &source.audio {
            _ if source.is_filtered => Self::Filtered(Filtered {
                resampler: Resampler::new(ears::RATE, rate),
                samples: Vec::with_capacity(rate.samples(FILTERED_MILLIS_MAX)),
            }),
            Some(audio) => {
                let input = ClockedInput::new(audio, rate);
                Self::Packets(Box::new(input.map_err(|_| Refusal::FormatUnsupported)?))
            }
            None => Self::Silent,
        })
    }

    fn read(&mut self, now: MonoTime, frame: &mut [i16]) {
        match self {
            Self::Silent => frame.fill(0),
            Self::Packets(input) => {
                input.read(now, frame);
            }
            Self::Filtered(filtered) => filtered.read(frame),
        }
    }
}

impl Filtered {
    fn take(&mut self, frame: &[i16]) {
        let len = self.samples.len();
        let room = self.resampler.output_len_max(frame.len());
        if len + room <= self.samples.capacity() {
            self.samples.resize(len + room, 0);
            let made = self.resampler.process(frame, &mut self.samples[len..]);
            self.samples.truncate(len + made);
        }
    }

    fn read(&mut self, frame: &mut [i16]) {
        let len = self.samples.len().min(frame.len());
        let (taken, missing) = frame.split_at_mut(len);
        taken.copy_from_slice(&self.samples[..len]);
        missing.fill(0);
        self.samples.drain(..len);
    }
}

impl Mixer {
    /// Makes a frame of live audio softer and adds the next of what is played; `false`: there is no
    /// more, and the frame is as loud as it was, or becomes so.
    fn cover(&mut self, list: &mut Playlist, frame: &mut [i16]) -> bool {
        let room = &mut self.payload[..2 * frame.len()];
        let played = list.next_payload(room);
        let gain = if played.is_some() { self.gain } else { UNITY };
        // From one gain to the other over a frame: a step would click.
        let (from, len) = (self.present_gain, frame.len() as i32);
        for (sample, n) in frame.iter_mut().zip(1..) {
            let gain = from + (gain - from) * n / len;
            *sample = (i32::from(*sample) * gain / UNITY) as i16;
        }
        self.present_gain = gain;
        let (added, _) = room[..played.unwrap_or(0)].as_chunks::<2>();
        for (sample, bytes) in frame.iter_mut().zip(added) {
            *sample = sample.saturating_add(i16::from_be_bytes(*bytes));
        }
        played.is_some()
    }
}

/// How prompts are to be there to be added to what a leg that is sent `send` hears: samples of one
/// frame at the rate of the sum.
pub(super) fn linear_format(send: &AudioFormat) -> AudioFormat {
    const FRAME: PacketTime = PacketTime::from_millis(FRAME_MILLIS as u8).expect("a packet time");
    let clock_rate = match Conference::rate_for(send) {
        SampleRate::Hz8000 => ClockRateHz::NARROWBAND,
        SampleRate::Hz16000 | SampleRate::Hz48000 => ClockRateHz::new(16_000).expect("in range"),
    };
    AudioFormat {
        codec: AudioCodec::L16,
        // It is sent to nobody.
        payload_type: PayloadType::PCMU,
        clock_rate,
        channels: 1,
        packet_time: FRAME,
        opus: OpusOptions::default(),
    }
}

fn gain_of(live: LiveLevel) -> i32 {
    (UNITY as f32 * 10f32.powf(-f32::from(live.db()) / 20.0)).round() as i32
}
