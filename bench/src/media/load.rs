//! What is measured: many sessions at once, 20 ms after 20 ms.

use std::time::Duration;

use anyhow::{Context as _, Result};
use trunkline_edge::recording::{RecorderHandle, RecordingSlot};
use trunkline_edge_api::MonoTime;
use trunkline_media::conference::{Conference, MemberSlot, MixOutput};
use trunkline_media::session::{MixFrame, TRANSMIT_LEN_MAX};
use trunkline_ring::monotonic_now;

use super::call::{Call, START};
use crate::rig::voice::FRAME_MILLIS;

/// Samples of a frame at the higher of a conference's rates.
const FRAME_LEN_MAX: usize = 320;

/// Sessions that live together.
pub(super) trait Load {
    /// The packets of the next 20 ms lie ready. Not timed.
    fn arrive(&mut self);

    /// Does all that is to be done in these 20 ms, and returns how many packets leave.
    fn take(&mut self) -> u64;
}

/// Time as the sessions are told it: no time passes but theirs.
struct Clock(u64);

impl Clock {
    fn now(&self) -> MonoTime {
        START.plus_millis(u64::from(FRAME_MILLIS) * self.0)
    }
}

/// Sessions of their own.
pub(super) struct Calls {
    calls: Vec<Call>,
    clock: Clock,
    out: Box<[u8; TRANSMIT_LEN_MAX]>,
}

impl Calls {
    pub(super) fn new(calls: Vec<Call>) -> Self {
        Self {
            calls,
            clock: Clock(0),
            out: Box::new([0; TRANSMIT_LEN_MAX]),
        }
    }
}

impl Load for Calls {
    fn arrive(&mut self) {
        self.clock.0 += 1;
        self.calls.iter_mut().for_each(Call::arrive);
    }

    fn take(&mut self) -> u64 {
        let now = self.clock.now();
        let mut sent = 0;
        for call in &mut self.calls {
            sent += call.take(now, &mut self.out, |_, tapped| {
                std::hint::black_box(tapped.packet);
            });
        }
        sent
    }
}

/// Sessions that are recorded while real time passes, for the recorder goes by it.
pub(super) struct Recorded<'a> {
    calls: Vec<(Call, RecordingSlot)>,
    recorder: &'a mut RecorderHandle,
    next_at: MonoTime,
    out: Box<[u8; TRANSMIT_LEN_MAX]>,
}

impl<'a> Recorded<'a> {
    pub(super) fn new(calls: Vec<(Call, RecordingSlot)>, recorder: &'a mut RecorderHandle) -> Self {
        Self {
            calls,
            recorder,
            next_at: monotonic_now(),
            out: Box::new([0; TRANSMIT_LEN_MAX]),
        }
    }

    /// Ends the recordings and returns how many packets they lost.
    pub(super) fn finish(self) -> Result<u64> {
        let now = monotonic_now();
        for (_, slot) in &self.calls {
            self.recorder.stop(*slot, now);
        }
        let (mut left, mut lost) = (self.calls.len(), 0);
        for _ in 0..1_000 {
            self.recorder.flush(monotonic_now());
            while let Some(ended) = self.recorder.poll_finished() {
                left -= 1;
                lost += ended.outcome.lost_packets;
            }
            if left == 0 {
                return Ok(lost);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        anyhow::bail!("{left} recordings do not end")
    }
}

impl Load for Recorded<'_> {
    fn arrive(&mut self) {
        self.next_at = self.next_at.plus_millis(u64::from(FRAME_MILLIS));
        let wait = self.next_at.nanos_since(monotonic_now());
        std::thread::sleep(Duration::from_nanos(wait));
        for (call, _) in &mut self.calls {
            call.arrive();
        }
    }

    fn take(&mut self) -> u64 {
        let now = monotonic_now();
        let mut sent = 0;
        for (call, slot) in &mut self.calls {
            let recorder = &mut *self.recorder;
            sent += call.take(now, &mut self.out, |leg, tapped| {
                recorder.tap(*slot, leg, now, tapped.format, tapped.packet);
            });
        }
        self.recorder.flush(now);
        sent
    }
}

/// A conference and the sessions of its members, each on leg A.
pub(super) struct Room {
    pub(super) conference: Conference,
    pub(super) members: Vec<(Call, MemberSlot)>,
}

/// Conferences.
pub(super) struct Rooms {
    rooms: Vec<Room>,
    frame_len: usize,
    clock: Clock,
    out: Box<[u8; TRANSMIT_LEN_MAX]>,
}

impl Rooms {
    /// All members of which have the same format.
    pub(super) fn new(rooms: Vec<Room>) -> Result<Self> {
        let (first, _) = rooms
            .first()
            .and_then(|room| room.members.first())
            .context("nobody is in")?;
        let format = first.session.seat_format(first.peers[0].leg);
        let rate = Conference::rate_for(&format.context("not seated")?);
        Ok(Self {
            rooms,
            frame_len: rate.samples(FRAME_MILLIS),
            clock: Clock(0),
            out: Box::new([0; TRANSMIT_LEN_MAX]),
        })
    }
}

impl Load for Rooms {
    fn arrive(&mut self) {
        self.clock.0 += 1;
        for room in &mut self.rooms {
            room.members.iter_mut().for_each(|(call, _)| call.arrive());
        }
    }

    fn take(&mut self) -> u64 {
        let now = self.clock.now();
        let mut sent = 0;
        for room in &mut self.rooms {
            for (call, _) in &mut room.members {
                sent += call.take(now, &mut self.out, |_, _| {});
            }
        }
        for Room {
            conference,
            members,
        } in &mut self.rooms
        {
            let mut frame = [0; FRAME_LEN_MAX];
            let frame = &mut frame[..self.frame_len];
            for (call, slot) in &mut *members {
                if call.session.hear(now, call.peers[0].leg, frame) {
                    conference.put(*slot, frame);
                }
            }
            conference.mix();
            for (call, slot) in members {
                let mix = match conference.output_for(*slot) {
                    MixOutput::Own(samples) => MixFrame::Samples(samples),
                    MixOutput::Shared(group) => {
                        let payload = conference.shared_payloads(group).next();
                        MixFrame::Encoded(payload.unwrap_or_default())
                    }
                };
                let leg = call.peers[0].leg;
                let transmit = call.session.send_mix(now, leg, mix, &mut self.out);
                sent += u64::from(transmit.is_some());
            }
            while conference.poll_event().is_some() {}
        }
        sent
    }
}
