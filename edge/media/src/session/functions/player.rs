//! A playback in place of the far peer, paced by the clock.

use trunkline_edge_api::{AudioFormat, MonoTime, Refusal};

use super::made::{Feed, Made};
use super::pace::{Beat, Pace};
use super::playlist::{Playlist, PreparedPlayback};
use crate::rewrite::Position;
use crate::rtp::HEADER_LEN_MIN;

#[derive(Debug)]
pub(super) struct Player {
    list: Playlist,
    format: AudioFormat,
    pace: Pace,
}

/// What a playback has to say.
pub(super) enum Played {
    Packet(Made),
    /// Time for a packet, and nothing to send in it.
    Nothing,
    Ended,
}

impl Player {
    pub(super) fn new(
        now: MonoTime,
        prepared: PreparedPlayback,
        format: &AudioFormat,
    ) -> Result<Self, Refusal> {
        Ok(Self {
            list: Playlist::new(prepared, format)?,
            format: *format,
            pace: Pace::new(now, format),
        })
    }

    pub(super) fn list(&self) -> &Playlist {
        &self.list
    }

    /// What is due, if anything is.
    pub(super) fn poll(&mut self, now: MonoTime, out: &mut [u8]) -> Option<Played> {
        if !self.pace.is_due(now) {
            return None;
        }
        let room = out.get_mut(HEADER_LEN_MIN..)?;
        let Some(len) = self.list.next_payload(room) else {
            return Some(Played::Ended);
        };
        let Beat {
            sequence,
            timestamp,
        } = self.pace.take(now)?;
        if len == 0 {
            return Some(Played::Nothing);
        }
        Some(Played::Packet(Made {
            feed: Feed::Playback(self.list.id().0),
            position: Position {
                sequence,
                timestamp,
            },
            marker: false,
            payload_type: self.format.payload_type,
            clock_rate: self.format.clock_rate,
            payload_len: len,
        }))
    }
}
