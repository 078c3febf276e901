//! Digits for a leg's peer that takes tones only.

use trunkline_edge_api::{AudioFormat, DigitsId, DigitsToSend, MonoTime, Refusal};

use super::made::{Feed, Made};
use super::pace::Pace;
use crate::codec::Encoder;
use crate::dtmf::{DigitsRefused, ToneSender};
use crate::rewrite::Position;
use crate::rtp::HEADER_LEN_MIN;
use crate::tone::rate_for;

#[derive(Debug)]
pub(super) struct TonePlayer {
    sender: ToneSender,
    encoder: Encoder,
    samples: Box<[i16]>,
    format: AudioFormat,
    /// `None` while there is nothing to send.
    pace: Option<Pace>,
    /// Times that there was something to send again.
    row: u32,
}

impl TonePlayer {
    pub(super) fn new(format: &AudioFormat) -> Result<Self, Refusal> {
        let rate = rate_for(format);
        let encoder = Encoder::new(format, rate).map_err(|_| Refusal::FormatUnsupported)?;
        Ok(Self {
            sender: ToneSender::new(rate),
            samples: vec![0; encoder.packet_samples()].into(),
            encoder,
            format: *format,
            pace: None,
            row: 0,
        })
    }

    pub(super) fn send(&mut self, digits: &DigitsToSend) -> Result<(), DigitsRefused> {
        self.sender.send(digits)
    }

    pub(super) fn is_busy(&self) -> bool {
        self.sender.is_sending()
    }

    pub(super) fn poll_done(&mut self) -> Option<DigitsId> {
        self.sender.poll_done()
    }

    /// The packet that is due, if one is.
    pub(super) fn poll(&mut self, now: MonoTime, out: &mut [u8]) -> Option<Made> {
        if !self.sender.is_sending() {
            self.pace = None;
            return None;
        }
        let pace = self.pace.get_or_insert_with(|| {
            self.row = self.row.wrapping_add(1);
            Pace::new(now, &self.format)
        });
        let beat = pace.take(now)?;
        let len = self.sender.fill(&mut self.samples);
        if len == 0 {
            return None;
        }
        self.samples[len..].fill(0);
        let room = out.get_mut(HEADER_LEN_MIN..)?;
        let payload_len = self.encoder.encode(&self.samples, room).unwrap_or(0);
        if payload_len == 0 {
            return None;
        }
        Some(Made {
            feed: Feed::Tones(self.row),
            position: Position {
                sequence: beat.sequence,
                timestamp: beat.timestamp,
            },
            marker: false,
            payload_type: self.format.payload_type,
            clock_rate: self.format.clock_rate,
            payload_len,
        })
    }
}
