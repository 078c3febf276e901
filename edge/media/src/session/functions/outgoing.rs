//! What a leg's peer is sent of the edge's own, one packet after the other.

use trunkline_edge_api::{ClockRateHz, DigitsId, LegIndex, MonoTime, PlaybackEnd};

use super::super::leg::Leg;
use super::super::{SessionEvent, Transmit};
use super::made::{Feed, Made};
use super::player::Played;
use super::{CONVERTED, LegMedia, Playing};
use crate::rewrite::Position;
use crate::rtp::HEADER_LEN_MIN;

impl Leg {
    /// The next packet that the edge makes for this leg's peer, or copies of what it says.
    pub(in crate::session) fn poll_media(
        &mut self,
        now: MonoTime,
        index: LegIndex,
        out: &mut [u8],
    ) -> Option<Transmit> {
        // Each turn sends, ends or skips something that was due, so the turns are bounded by it.
        loop {
            let made = match self.media.as_mut()?.next(now, index, out)? {
                Next::Made(made) => made,
                Next::Copy(transmit) => return Some(transmit),
                Next::Again => continue,
            };
            if let Some(transmit) = self.send_made(now, index, made, out) {
                return Some(transmit);
            }
        }
    }
}

enum Next {
    Made(Made),
    Copy(Transmit),
    /// Something came to an end; there may be more.
    Again,
}

impl LegMedia {
    fn next(&mut self, now: MonoTime, leg: LegIndex, out: &mut [u8]) -> Option<Next> {
        if let Some(copy) = self.fork.as_mut().and_then(|fork| fork.poll(leg, out)) {
            return Some(Next::Copy(copy));
        }
        let audio = self.audio.as_ref()?;
        if let (Some(sender), Some(events)) = (&mut self.event_sender, audio.send_events) {
            let clock = events.clock_rate;
            let stream_now = clock_at(now, clock);
            if let Some(packet) = sender.poll(now, stream_now) {
                out.get_mut(HEADER_LEN_MIN..)?
                    .get_mut(..packet.payload.len())?
                    .copy_from_slice(&packet.payload);
                let sequence = self.event_sequence;
                self.event_sequence = sequence.wrapping_add(1);
                return Some(Next::Made(Made {
                    feed: Feed::Events,
                    position: Position {
                        sequence,
                        timestamp: packet.timestamp,
                    },
                    marker: packet.marker,
                    payload_type: events.payload_type,
                    clock_rate: clock,
                    payload_len: packet.payload.len(),
                }));
            }
            if let Some(id) = sender.poll_done() {
                self.tell_sent(leg, id);
                return Some(Next::Again);
            }
        }
        if let Some(player) = &mut self.tone_player {
            if let Some(made) = player.poll(now, out) {
                return Some(Next::Made(made));
            }
            if let Some(id) = player.poll_done() {
                self.tell_sent(leg, id);
                return Some(Next::Again);
            }
        }
        let is_silenced = self.is_sending_digits();
        if let Some(playing) = &mut self.playing {
            let played = match playing {
                Playing::Alone(player) => player.poll(now, out)?,
                // The clock of the conference is its clock.
                Playing::Over(_) if self.seat.is_some() => return None,
                Playing::Over(overlay) => overlay.poll(now, out)?,
            };
            return match played {
                Played::Packet(made) if !is_silenced => Some(Next::Made(made)),
                Played::Packet(_) | Played::Nothing => Some(Next::Again),
                Played::Ended => {
                    self.stop_playing(leg, PlaybackEnd::Completed);
                    Some(Next::Again)
                }
            };
        }
        if let Some(filtered) = &mut self.filtered {
            let is_silenced = is_silenced || self.seat.is_some() || self.switches.deaf;
            if filtered.has_output() {
                let made = filtered.poll(is_silenced, out);
                return Some(made.map_or(Next::Again, Next::Made));
            }
        }
        let to = self.audio.as_ref()?;
        self.live
            .iter_mut()
            .zip(0u8..)
            .find_map(|(live, index)| live.poll_packet(index, to, out))
            .map(Next::Made)
    }

    fn tell_sent(&mut self, leg: LegIndex, id: DigitsId) {
        if id.0 & CONVERTED == 0 {
            self.tell(SessionEvent::DigitsSent { leg, digits: id });
        }
    }
}

/// A clock that runs whether the leg has sent anything or not: events are a source of their own, so
/// it matters that their timestamps lie as far apart as they do, not where they begin.
fn clock_at(now: MonoTime, clock_rate: ClockRateHz) -> u32 {
    let units = u128::from(now.0) * u128::from(clock_rate.get()) / 1_000_000_000;
    units as u32
}
