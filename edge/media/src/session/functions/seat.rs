//! A leg's seat in a conference: what its peer says, by the clock, and what it hears of the others.

use trunkline_edge_api::{AudioFormat, LegAudio, MonoTime, PacketTime, Refusal};

use super::made::{Feed, Made};
use super::{LegMedia, Playing};
use crate::clocked_input::{ClockedInput, ReadKind};
use crate::codec::Encoder;
use crate::conference::Conference;
use crate::rewrite::Position;
use crate::rtp::{HEADER_LEN_MIN, RtpHeader};

/// What a member is sent of one frame.
#[derive(Debug, Clone, Copy)]
pub enum MixFrame<'a> {
    /// The payload, made once for all that hear the same.
    Encoded(&'a [u8]),
    /// Samples of the member alone.
    Samples(&'a [i16]),
}

#[derive(Debug)]
pub(super) struct Seat {
    input: ClockedInput,
    encoder: Encoder,
    format: AudioFormat,
    sequence: u16,
    timestamp: u32,
    /// Which of the leg's seats this is.
    row: u32,
}

impl Seat {
    pub(super) fn new(audio: &LegAudio, row: u32) -> Result<Self, Refusal> {
        let unsupported = |_| Refusal::FormatUnsupported;
        let format = format_of(audio);
        let rate = Conference::rate_for(&format);
        Ok(Self {
            input: ClockedInput::new(audio, rate).map_err(unsupported)?,
            encoder: Encoder::new(&format, rate).map_err(unsupported)?,
            format,
            sequence: 0,
            timestamp: 0,
            row,
        })
    }

    /// What the leg's peer is sent: its format in packets of one frame.
    pub(super) fn format(&self) -> &AudioFormat {
        &self.format
    }

    /// Milliseconds of what its peer said that were made up.
    pub(super) fn concealed_millis(&self) -> u64 {
        self.input.stats().concealed_millis
    }

    pub(super) fn receive(&mut self, now: MonoTime, header: &RtpHeader, payload: &[u8]) {
        // What becomes of it is in the input's figures.
        let _ = self.input.receive(now, header, payload);
    }

    pub(super) fn set_expected_loss(&mut self, percent: u8) {
        self.encoder.set_expected_loss(percent);
    }

    /// What the peer says now, as many samples as `out` holds; `false`: it is silent.
    pub(super) fn hear(&mut self, now: MonoTime, out: &mut [i16]) -> bool {
        self.input.read(now, out) != ReadKind::Silence
    }

    /// The packet of the frame that follows; its time passes even if `is_silenced`.
    pub(super) fn send(
        &mut self,
        frame: MixFrame<'_>,
        is_silenced: bool,
        out: &mut [u8],
    ) -> Option<Made> {
        let timestamp = self.timestamp;
        let step = self.format.clock_rate.get() / 1_000 * u32::from(PacketTime::MS_20.millis());
        self.timestamp = timestamp.wrapping_add(step);
        if is_silenced {
            return None;
        }
        let room = out.get_mut(HEADER_LEN_MIN..)?;
        let payload_len = match frame {
            MixFrame::Encoded(payload) => {
                room.get_mut(..payload.len())?.copy_from_slice(payload);
                payload.len()
            }
            MixFrame::Samples(samples) => self.encoder.encode(samples, room).unwrap_or(0),
        };
        if payload_len == 0 {
            return None;
        }
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        Some(Made {
            feed: Feed::Mix(self.row),
            position: Position {
                sequence,
                timestamp,
            },
            marker: false,
            payload_type: self.format.payload_type,
            clock_rate: self.format.clock_rate,
            payload_len,
        })
    }
}

/// A frame of a mix makes one packet, whatever packet time the peer would like best: it takes any
/// up to its `maxptime`, and what is encoded once is for many.
fn format_of(audio: &LegAudio) -> AudioFormat {
    AudioFormat {
        packet_time: PacketTime::MS_20,
        ..audio.send
    }
}

impl LegMedia {
    /// Adds what is played over the mix to a frame of it, which has to be of samples; and whether
    /// that was its end.
    pub(super) fn cover_mix<'f>(
        &mut self,
        frame: MixFrame<'f>,
        covered: &'f mut [i16],
    ) -> (MixFrame<'f>, bool) {
        let (Some(Playing::Over(overlay)), MixFrame::Samples(samples)) = (&mut self.playing, frame)
        else {
            return (frame, false);
        };
        let Some(covered) = covered.get_mut(..samples.len()) else {
            return (frame, false);
        };
        covered.copy_from_slice(samples);
        let goes_on = overlay.cover_mix(covered);
        (MixFrame::Samples(covered), !goes_on)
    }
}
