//! A recording of packets: pcap with nanoseconds (draft-ietf-opsawg-pcap), link type RAW.
//!
//! The packets are RTP as a leg's peer sent it, decrypted, so they have no IP packet of their own
//! any more. They get IPv4 and UDP headers with addresses for documentation (RFC 5737): leg A's
//! peer is 192.0.2.1, leg B's 192.0.2.2, the edge 192.0.2.254, all on port 5004. UDP checksums are
//! absent (RFC 768: 0).

use std::collections::VecDeque;

use trunkline_edge_api::{LegIndex, MonoTime, RecordingTracks};

use super::output::{PENDING_LEN_MAX, Pending};
use super::timeline::Timeline;
use super::{HEADER_INTERVAL_NANOS, HOLD_BACK, TapeSpec, TapeStats, TappedPacket};
use crate::rtp::RtpHeader;

/// Magic of a file with nanoseconds, in the byte order of its writer.
const MAGIC_NANOS: u32 = 0xa1b2_3c4d;
/// `LINKTYPE_RAW`: a packet begins with its IP header.
const LINKTYPE_RAW: u32 = 101;
/// Longest packet that a reader has to expect.
const SNAP_LEN: u32 = 65_535;
const RECORD_HEADER_LEN: usize = 16;
const IP_HEADER_LEN: usize = 20;
const UDP_HEADER_LEN: usize = 8;
/// Port for RTP (RFC 3551 §8).
const PORT: u16 = 5_004;

/// Packets held back at most: half a second of both legs at 200 packets each second and leg.
const HELD_MAX: usize = 256;

/// Before and behind what is hidden, nanoseconds.
const SUPPRESS_MARGIN_NANOS: u64 = 60_000_000;

/// One pcap file in the making.
#[derive(Debug)]
pub struct PcapTape {
    timeline: Timeline,
    tracks: RecordingTracks,
    /// Nanoseconds from the monotonic clock to 1970.
    wall_clock_offset: u64,
    held: VecDeque<Held>,
    spare: Vec<Vec<u8>>,
    /// What is hidden, by leg.
    hidden: [Option<(MonoTime, MonoTime)>; 2],
    pending: Pending,
    polled: u64,
    written: u64,
    due: MonoTime,
    now: MonoTime,
    is_stopped: bool,
    stats: TapeStats,
}

#[derive(Debug)]
struct Held {
    arrival: MonoTime,
    leg: LegIndex,
    packet: Vec<u8>,
}

impl PcapTape {
    pub(super) fn new(spec: &TapeSpec, now: MonoTime, wall_clock_nanos: u64) -> Self {
        let mut pending = Pending::default();
        let mut header = Vec::with_capacity(24);
        header.extend_from_slice(&MAGIC_NANOS.to_le_bytes());
        header.extend_from_slice(&2u16.to_le_bytes());
        header.extend_from_slice(&4u16.to_le_bytes());
        // Two fields that are always 0.
        header.extend_from_slice(&[0; 8]);
        header.extend_from_slice(&SNAP_LEN.to_le_bytes());
        header.extend_from_slice(&LINKTYPE_RAW.to_le_bytes());
        pending.push(&header);
        Self {
            timeline: Timeline::new(now, spec.paused),
            tracks: spec.tracks,
            wall_clock_offset: wall_clock_nanos.wrapping_sub(now.0),
            held: VecDeque::new(),
            spare: Vec::new(),
            hidden: [None; 2],
            pending,
            polled: 0,
            written: 0,
            // The header of the file goes out at once.
            due: now,
            now,
            is_stopped: false,
            stats: TapeStats::default(),
        }
    }

    pub(super) fn handle_packet(&mut self, packet: &TappedPacket<'_>) {
        self.now = self.now.max(packet.arrival);
        let is_recorded = match self.tracks {
            RecordingTracks::LegA => packet.leg == LegIndex::A,
            RecordingTracks::LegB => packet.leg == LegIndex::B,
            RecordingTracks::Mixed | RecordingTracks::Stereo => true,
        };
        if !is_recorded || self.is_stopped || self.timeline.is_paused() {
            return;
        }
        self.stats.packets += 1;
        let len_max = SNAP_LEN as usize - IP_HEADER_LEN - UDP_HEADER_LEN;
        if RtpHeader::parse(packet.packet).is_err() || packet.packet.len() > len_max {
            self.stats.bad_packets += 1;
            return;
        }
        if self.held.len() >= HELD_MAX {
            self.release_first();
        }
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(packet.packet);
        self.held.push_back(Held {
            arrival: packet.arrival,
            leg: packet.leg,
            packet: buffer,
        });
    }

    pub(super) fn pause(&mut self, now: MonoTime, paused: bool) {
        self.now = self.now.max(now);
        self.timeline.pause(self.now, paused);
    }

    pub(super) fn suppress(&mut self, leg: LegIndex, from: MonoTime, to: MonoTime) {
        let from = MonoTime(from.0.saturating_sub(SUPPRESS_MARGIN_NANOS));
        self.hidden[leg.as_usize()] = Some((from, to.plus_nanos(SUPPRESS_MARGIN_NANOS)));
        self.held
            .retain(|held| held.leg != leg || !(from..=to).contains(&held.arrival));
    }

    pub(super) fn handle_timeout(&mut self, now: MonoTime) {
        self.now = self.now.max(now);
        let is_ripe = |held: &Held| self.now.nanos_since(held.arrival) >= HOLD_BACK_NANOS;
        let count = self.held.iter().take_while(|held| is_ripe(held)).count();
        for _ in 0..count {
            self.release_first();
        }
    }

    pub(super) fn stop(&mut self, now: MonoTime) {
        self.now = self.now.max(now);
        while !self.held.is_empty() {
            self.release_first();
        }
        self.is_stopped = true;
    }

    /// Makes a record of the oldest packet.
    fn release_first(&mut self) {
        let Some(held) = self.held.pop_front() else {
            return;
        };
        let is_hidden = self.hidden[held.leg.as_usize()]
            .is_some_and(|(from, to)| (from..=to).contains(&held.arrival));
        if !is_hidden && !self.push_record(&held) {
            self.stats.overrun_packets += 1;
        }
        if self.spare.len() < HELD_MAX {
            self.spare.push(held.packet);
        }
    }

    fn push_record(&mut self, held: &Held) -> bool {
        let ip_len = IP_HEADER_LEN + UDP_HEADER_LEN + held.packet.len();
        // Silence in place of a record would end the file for every reader: it is whole or absent.
        if self.pending.len() as usize + RECORD_HEADER_LEN + ip_len > PENDING_LEN_MAX {
            return false;
        }
        let nanos = held.arrival.0.wrapping_add(self.wall_clock_offset);
        let mut head = [0; RECORD_HEADER_LEN + IP_HEADER_LEN + UDP_HEADER_LEN];
        let (record, rest) = head.split_at_mut(RECORD_HEADER_LEN);
        let (ip, udp) = rest.split_at_mut(IP_HEADER_LEN);
        let seconds = (nanos / 1_000_000_000) as u32;
        record[0..4].copy_from_slice(&seconds.to_le_bytes());
        record[4..8].copy_from_slice(&((nanos % 1_000_000_000) as u32).to_le_bytes());
        record[8..12].copy_from_slice(&(ip_len as u32).to_le_bytes());
        record[12..16].copy_from_slice(&(ip_len as u32).to_le_bytes());
        let peer = match held.leg {
            LegIndex::A => [192, 0, 2, 1],
            LegIndex::B => [192, 0, 2, 2],
        };
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&(ip_len as u16).to_be_bytes());
        // Don't fragment, 64 hops, UDP.
        ip[6] = 0x40;
        ip[8] = 64;
        ip[9] = 17;
        ip[12..16].copy_from_slice(&peer);
        ip[16..20].copy_from_slice(&[192, 0, 2, 254]);
        let checksum = internet_checksum(ip);
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        udp[0..2].copy_from_slice(&PORT.to_be_bytes());
        udp[2..4].copy_from_slice(&PORT.to_be_bytes());
        udp[4..6].copy_from_slice(&((UDP_HEADER_LEN + held.packet.len()) as u16).to_be_bytes());
        self.pending.push(&head) && self.pending.push(&held.packet)
    }

    pub(super) fn poll_write(&mut self, buffer: &mut Vec<u8>) -> Option<u64> {
        let waiting = self.pending.len();
        let is_due = self.is_stopped || self.now >= self.due || waiting >= buffer.capacity() as u64;
        if waiting == 0 || !is_due {
            return None;
        }
        self.pending.fetch(buffer);
        if self.pending.len() == 0 {
            self.due = self.now.plus_nanos(HEADER_INTERVAL_NANOS);
        }
        let offset = self.polled;
        self.polled += buffer.len() as u64;
        Some(offset)
    }

    pub(super) fn handle_written(&mut self, len: usize) {
        self.written += len as u64;
    }

    pub(super) fn duration_millis(&self) -> u64 {
        self.timeline.nanos(self.now) / 1_000_000
    }

    pub(super) fn file_len(&self) -> u64 {
        self.written
    }

    pub(super) fn stats(&self) -> TapeStats {
        self.stats
    }
}

const HOLD_BACK_NANOS: u64 = HOLD_BACK as u64 * 1_000_000;

/// RFC 1071.
fn internet_checksum(header: &[u8]) -> u16 {
    let words = header.chunks_exact(2);
    let mut sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
