//! A recording of audio: one or two tracks, put together into WAV.

use std::ops::RangeInclusive;

use trunkline_edge_api::{LegIndex, MonoTime, RecordingTracks};

use super::output::{Pending, WAV_DATA_LEN_MAX, WAV_HEADER_LEN, WavHeader};
use super::reorder::PacketFacts;
use super::timeline::Timeline;
use super::track::Track;
use super::{HEADER_INTERVAL_NANOS, HOLD_BACK, TapeSpec, TapeStats, TappedPacket};
use crate::audio::SampleRate;
use crate::rtp::RtpHeader;

/// Milliseconds that are silenced on both sides of what is asked for: a sample may lie that far
/// from the moment at which its packet arrived.
const SUPPRESS_MARGIN_MILLIS: u64 = 60;

/// How far the file may reach beyond its last moment, milliseconds: audio is placed from the
/// arrival of its packet on, so the last packet ends later.
const TAIL_MAX_MILLIS: u32 = 120;

/// Gaps that show so long after packets were dropped are those packets', milliseconds: what comes
/// behind a gap waits for 80.
const DROP_MILLIS: u64 = 200;

/// Audio becomes bytes in pieces of so many milliseconds, if nobody asks for it earlier.
const PIECE_MILLIS: u32 = 100;

/// So many bytes of audio are written without waiting for the next header.
const WRITE_LEN: u64 = 16 * 1_024;

/// A packet stands for 20 ms where audio has to be counted in packets.
const PACKETS_PER_SECOND: u64 = 50;

/// One WAV file in the making.
#[derive(Debug)]
pub struct WavTape {
    timeline: Timeline,
    rate: SampleRate,
    /// By leg; `None` for a leg that is not recorded.
    tracks: [Option<Track>; 2],
    header: WavHeader,
    pending: Pending,
    /// Samples of each channel that are part of the file, silence from before a restart excluded.
    taken: u64,
    /// Bytes of audio handed out, and confirmed to be in the file.
    polled: u64,
    written: u64,
    /// What the header in the file says; `None` before the first.
    claimed: Option<u64>,
    /// Header or audio: what the last write was.
    in_flight: InFlight,
    header_due: MonoTime,
    now: MonoTime,
    is_stopped: bool,
    stats: TapeStats,
    overrun_samples: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InFlight {
    Nothing,
    Header { data_len: u64 },
    Audio,
}

impl WavTape {
    pub(super) fn new(spec: &TapeSpec, rate: SampleRate, now: MonoTime) -> Self {
        let (legs, channels): (&[LegIndex], _) = match spec.tracks {
            RecordingTracks::LegA => (&[LegIndex::A], 1),
            RecordingTracks::LegB => (&[LegIndex::B], 1),
            RecordingTracks::Mixed => (&LegIndex::ALL, 1),
            RecordingTracks::Stereo => (&LegIndex::ALL, 2),
        };
        Self {
            timeline: Timeline::new(now, spec.paused),
            rate,
            tracks: LegIndex::ALL.map(|leg| legs.contains(&leg).then(|| Track::new(rate))),
            header: WavHeader {
                id: spec.id,
                channels,
                sample_rate_hz: rate.hz(),
                data_len: 0,
            },
            pending: Pending::default(),
            taken: 0,
            polled: 0,
            written: 0,
            claimed: None,
            in_flight: InFlight::Nothing,
            header_due: now.plus_nanos(HEADER_INTERVAL_NANOS),
            now,
            is_stopped: false,
            stats: TapeStats::default(),
            overrun_samples: 0,
        }
    }

    pub(super) fn resume(&mut self, head: &[u8], file_len: u64, idle_nanos: u64) -> bool {
        if self.claimed.is_some() || !self.header.is_head_of(head) {
            return false;
        }
        let frame_len = self.header.frame_len();
        let present = file_len.saturating_sub(WAV_HEADER_LEN as u64);
        // A frame that was cut in the middle is written over.
        let whole = (present - present % frame_len).min(WAV_DATA_LEN_MAX);
        self.polled = whole;
        self.written = whole;
        self.claimed = Some(0);
        let idle = u128::from(idle_nanos) * u128::from(self.rate.hz()) / 1_000_000_000;
        let room = WAV_DATA_LEN_MAX - whole;
        let silence = u64::try_from(idle)
            .unwrap_or(u64::MAX)
            .saturating_mul(frame_len);
        self.pending
            .begin_with_silence(silence.min(room - room % frame_len));
        true
    }

    pub(super) fn handle_packet(&mut self, packet: &TappedPacket<'_>) {
        if self.is_stopped {
            return;
        }
        self.now = self.now.max(packet.arrival);
        let position = self.timeline.position(packet.arrival, self.rate.hz());
        // A recorder that is behind gives packets without the time between them.
        let held = self.rate.samples(HOLD_BACK) as u64;
        if position.saturating_sub(self.taken + held) >= self.rate.samples(PIECE_MILLIS) as u64 {
            self.take_up_to(position - held);
        }
        let Some(track) = &mut self.tracks[packet.leg.as_usize()] else {
            return;
        };
        if self.timeline.is_paused() {
            return;
        }
        let Ok(header) = RtpHeader::parse(packet.packet) else {
            self.stats.packets += 1;
            self.stats.bad_packets += 1;
            return;
        };
        let facts = PacketFacts {
            arrival: packet.arrival,
            position,
            ssrc: header.ssrc,
            sequence: header.sequence,
            timestamp: header.timestamp,
            format: packet.format,
        };
        let payload = &packet.packet[header.header_len..][..header.payload_len];
        track.handle_packet(facts, payload);
    }

    pub(super) fn handle_drop(&mut self, now: MonoTime) {
        for track in self.tracks.iter_mut().flatten() {
            track.leave_gaps_until(now.plus_millis(DROP_MILLIS));
        }
    }

    pub(super) fn pause(&mut self, now: MonoTime, paused: bool) {
        self.now = self.now.max(now);
        if self.timeline.pause(self.now, paused) && paused {
            self.tracks.iter_mut().flatten().for_each(Track::interrupt);
        }
    }

    pub(super) fn suppress(&mut self, leg: LegIndex, from: MonoTime, to: MonoTime) {
        let margin = SUPPRESS_MARGIN_MILLIS * u64::from(self.rate.hz()) / 1_000;
        let range = self.span(from, to, margin);
        if let Some(track) = &mut self.tracks[leg.as_usize()] {
            track.silence(range);
        }
    }

    fn span(&self, from: MonoTime, to: MonoTime, margin: u64) -> std::ops::Range<u64> {
        let position = |at| self.timeline.position(at, self.rate.hz());
        position(from).saturating_sub(margin)..position(to).saturating_add(margin)
    }

    pub(super) fn handle_timeout(&mut self, now: MonoTime) {
        if self.is_stopped {
            return;
        }
        self.now = self.now.max(now);
        for track in self.tracks.iter_mut().flatten() {
            track.release(self.now);
        }
        let position = self.timeline.position(self.now, self.rate.hz());
        let held = self.rate.samples(HOLD_BACK) as u64;
        self.take_up_to(position.saturating_sub(held));
    }

    pub(super) fn stop(&mut self, now: MonoTime) {
        if self.is_stopped {
            return;
        }
        self.handle_timeout(now);
        for track in self.tracks.iter_mut().flatten() {
            track.release(MonoTime(u64::MAX));
        }
        let position = self.timeline.position(self.now, self.rate.hz());
        let tail: RangeInclusive<u64> =
            position..=position + self.rate.samples(TAIL_MAX_MILLIS) as u64;
        let ends = self.tracks.iter().flatten().map(Track::end);
        let end = ends.max().unwrap_or(0).clamp(*tail.start(), *tail.end());
        self.take_up_to(end);
        self.is_stopped = true;
    }

    /// Makes bytes of everything before `end`, samples into the recording.
    fn take_up_to(&mut self, end: u64) {
        let frame_len = self.header.frame_len();
        let used = self.polled + self.pending.len();
        let room = WAV_DATA_LEN_MAX.saturating_sub(used) / frame_len;
        let end = end.min(self.taken + room);
        let is_stereo = self.header.channels == 2;
        for _ in self.taken..end {
            let [a, b] = &mut self.tracks;
            let [a, b] = [a, b].map(|track| track.as_mut().map_or(0, Track::take));
            let is_kept = if is_stereo {
                let ([a0, a1], [b0, b1]) = (a.to_le_bytes(), b.to_le_bytes());
                self.pending.push(&[a0, a1, b0, b1])
            } else {
                self.pending.push(&a.saturating_add(b).to_le_bytes())
            };
            self.overrun_samples += u64::from(!is_kept && (a, b) != (0, 0));
        }
        self.taken = self.taken.max(end);
    }

    pub(super) fn poll_write(&mut self, buffer: &mut Vec<u8>) -> Option<u64> {
        let Some(claimed) = self.claimed else {
            return self.poll_header(buffer);
        };
        let is_header_due = self.is_stopped || self.now >= self.header_due;
        let waiting = self.pending.len();
        if waiting > 0 && (waiting >= WRITE_LEN || is_header_due) {
            self.pending.fetch(buffer);
            let offset = WAV_HEADER_LEN as u64 + self.polled;
            self.polled += buffer.len() as u64;
            self.in_flight = InFlight::Audio;
            return Some(offset);
        }
        (is_header_due && claimed != self.written)
            .then(|| self.poll_header(buffer))
            .flatten()
    }

    fn poll_header(&mut self, buffer: &mut Vec<u8>) -> Option<u64> {
        buffer.extend_from_slice(&self.closing_header());
        self.in_flight = InFlight::Header {
            data_len: self.written,
        };
        self.header_due = self.now.plus_nanos(HEADER_INTERVAL_NANOS);
        Some(0)
    }

    pub(super) fn handle_written(&mut self, len: usize) {
        match std::mem::replace(&mut self.in_flight, InFlight::Nothing) {
            InFlight::Header { data_len } => self.claimed = Some(data_len),
            InFlight::Audio => self.written += len as u64,
            InFlight::Nothing => {}
        }
    }

    pub(super) fn closing_header(&self) -> Vec<u8> {
        WavHeader {
            data_len: self.written - self.written % self.header.frame_len(),
            ..self.header
        }
        .to_bytes()
    }

    pub(super) fn is_full(&self) -> bool {
        self.polled + self.pending.len() + self.header.frame_len() > WAV_DATA_LEN_MAX
    }

    pub(super) fn duration_millis(&self) -> u64 {
        self.polled / self.header.frame_len() * 1_000 / u64::from(self.rate.hz())
    }

    pub(super) fn file_len(&self) -> u64 {
        match self.claimed {
            Some(_) => WAV_HEADER_LEN as u64 + self.written,
            None => 0,
        }
    }

    pub(super) fn stats(&self) -> TapeStats {
        let mut stats = self.stats;
        for track in self.tracks.iter().flatten() {
            stats.packets += track.stats.packets;
            stats.late_packets += track.stats.late_packets;
            stats.missing_packets += track.stats.missing_packets;
            stats.bad_packets += track.stats.bad_packets;
            stats.surplus_packets += track.stats.surplus_packets;
        }
        let samples_per_packet = u64::from(self.rate.hz()) / PACKETS_PER_SECOND;
        stats.overrun_packets = self.overrun_samples.div_ceil(samples_per_packet);
        stats
    }
}
