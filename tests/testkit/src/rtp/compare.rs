//! What one side heard of what the other said.

use std::collections::HashMap;

use super::{ReceivedPacket, SentPacket};

/// Places of lost packets that are listed: enough to tell a beginning, an end or a gap.
const LOST_AT_MAX: usize = 16;

/// What was heard, measured against what was sent.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Heard {
    /// Packets the other side sent.
    pub sent: usize,
    /// Packets heard, each counted once.
    pub received: usize,
    /// Sent and never heard.
    pub lost: usize,
    /// Which of the packets sent those were, counted from 0; the first sixteen.
    pub lost_at: Vec<usize>,
    /// Heard more than once.
    pub duplicates: usize,
    /// Heard after a later one.
    pub reordered: usize,
    /// Heard, but the other side had sent no such payload at that place in the stream.
    pub foreign: usize,
    /// Interarrival jitter at the end of the stream (RFC 3550 §6.4.1 and A.8), milliseconds.
    pub jitter_ms: f64,
    /// Different synchronization sources heard.
    pub sources: usize,
    /// Something was heard, nothing was foreign, and every payload equals the one sent at its
    /// place. Lost packets do not make it false.
    pub payload_identical: bool,
    /// The RTP timestamps advance between any two packets as they did when sent.
    pub timestamps_kept: bool,
}

/// Compares `received` with `sent`. A relay may give the stream another SSRC and shift sequence
/// numbers and timestamps by constants, so the place of the first packet heard is found by its
/// payload; the speech of [`crate::speech`] has no two equal frames.
#[must_use]
pub fn compare(sent: &[SentPacket], received: &[ReceivedPacket], clock_rate_hz: u32) -> Heard {
    let mut heard = Heard {
        sent: sent.len(),
        received: 0,
        lost: 0,
        lost_at: Vec::new(),
        duplicates: 0,
        reordered: 0,
        foreign: 0,
        jitter_ms: 0.0,
        sources: 0,
        payload_identical: false,
        timestamps_kept: true,
    };
    let mut found = vec![false; sent.len()];
    for stream in by_source(received) {
        heard.sources += 1;
        heard.jitter_ms = jitter_units(&stream, clock_rate_hz) * 1e3 / f64::from(clock_rate_hz);
        let ordered = in_sequence(&stream, &mut heard);
        heard.received += ordered.len();
        let places = place(sent, &ordered);
        let mut previous: Option<(usize, &ReceivedPacket)> = None;
        for (index, (_, packet)) in ordered.iter().enumerate() {
            let Some(place) = places.get(index).copied().flatten() else {
                heard.foreign += 1;
                continue;
            };
            found[place] = true;
            if let Some((earlier, before)) = previous {
                let sent_advance = sent[place]
                    .header
                    .timestamp
                    .wrapping_sub(sent[earlier].header.timestamp);
                let heard_advance = packet
                    .header
                    .timestamp
                    .wrapping_sub(before.header.timestamp);
                heard.timestamps_kept &= sent_advance == heard_advance;
            }
            previous = Some((place, packet));
        }
    }
    let lost = || (0..).zip(&found).filter(|(_, found)| !**found);
    heard.lost = lost().count();
    heard.lost_at = lost().map(|(place, _)| place).take(LOST_AT_MAX).collect();
    heard.payload_identical = heard.received > 0 && heard.foreign == 0;
    heard
}

/// The packets of each source in order of arrival, sources in the order they were first heard.
fn by_source(received: &[ReceivedPacket]) -> Vec<Vec<&ReceivedPacket>> {
    let mut index_of = HashMap::new();
    let mut streams: Vec<Vec<&ReceivedPacket>> = Vec::new();
    for packet in received {
        let index = *index_of.entry(packet.header.ssrc).or_insert_with(|| {
            streams.push(Vec::new());
            streams.len() - 1
        });
        streams[index].push(packet);
    }
    streams
}

/// One source's packets by extended sequence number, each once.
fn in_sequence<'a>(
    stream: &[&'a ReceivedPacket],
    heard: &mut Heard,
) -> Vec<(i64, &'a ReceivedPacket)> {
    let mut ordered: Vec<(i64, &ReceivedPacket)> = Vec::with_capacity(stream.len());
    let mut highest: Option<i64> = None;
    let mut seen = std::collections::HashSet::new();
    for packet in stream {
        let sequence = match highest {
            None => i64::from(packet.header.sequence),
            Some(highest) => {
                // The signed distance takes the shorter way round the wrap (RFC 3550 A.1).
                let distance = packet.header.sequence.wrapping_sub(highest as u16) as i16;
                highest + i64::from(distance)
            }
        };
        if !seen.insert(sequence) {
            heard.duplicates += 1;
            continue;
        }
        if highest.is_some_and(|highest| sequence < highest) {
            heard.reordered += 1;
        }
        highest = Some(highest.map_or(sequence, |highest| highest.max(sequence)));
        ordered.push((sequence, packet));
    }
    ordered.sort_by_key(|(sequence, _)| *sequence);
    ordered
}

/// For each packet heard, the index of the packet sent that it is, if it is one. The shift
/// between the two numberings is the one that makes most payloads agree.
fn place(sent: &[SentPacket], ordered: &[(i64, &ReceivedPacket)]) -> Vec<Option<usize>> {
    let at = |shift: i64, sequence: i64| {
        usize::try_from(sequence - shift)
            .ok()
            .filter(|index| *index < sent.len())
    };
    let places = |shift: i64| -> Vec<Option<usize>> {
        ordered
            .iter()
            .map(|(sequence, packet)| {
                at(shift, *sequence).filter(|index| sent[*index].payload == packet.payload)
            })
            .collect()
    };
    // A few packets are enough to propose every shift worth trying; the first may be foreign.
    let mut shifts: Vec<i64> = Vec::new();
    for (sequence, packet) in ordered.iter().take(8) {
        for (index, candidate) in sent.iter().enumerate() {
            if candidate.payload == packet.payload {
                let shift = sequence - index as i64;
                if !shifts.contains(&shift) {
                    shifts.push(shift);
                }
            }
        }
    }
    shifts
        .into_iter()
        .map(places)
        .max_by_key(|places| places.iter().flatten().count())
        .unwrap_or_else(|| vec![None; ordered.len()])
}

/// RFC 3550 A.8 over one source in order of arrival, in RTP units.
fn jitter_units(stream: &[&ReceivedPacket], clock_rate_hz: u32) -> f64 {
    let Some(first) = stream.first() else {
        return 0.0;
    };
    let mut jitter = 0.0f64;
    let mut last_transit: Option<f64> = None;
    for packet in stream {
        let arrival = packet.at.duration_since(first.at).as_secs_f64() * f64::from(clock_rate_hz);
        let timestamp = packet.header.timestamp.wrapping_sub(first.header.timestamp) as i32;
        let transit = arrival - f64::from(timestamp);
        if let Some(last) = last_transit {
            jitter += ((transit - last).abs() - jitter) / 16.0;
        }
        last_transit = Some(transit);
    }
    jitter
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::rtp::PacketHeader;
    use crate::speech;

    /// `count` packets as sent, and the same as heard by a peer of a relay that renumbers them.
    fn stream(count: usize) -> (Vec<SentPacket>, Vec<ReceivedPacket>) {
        let start = Instant::now();
        let from: SocketAddr = "127.0.0.1:4000".parse().unwrap();
        let mut sent = Vec::new();
        let mut received = Vec::new();
        for index in 0..count {
            let at = start + Duration::from_millis(20) * index as u32;
            let payload = speech::caller().frame(index).to_vec();
            let header = |sequence: u16, timestamp: u32, ssrc| PacketHeader {
                payload_type: 0,
                marker: index == 0,
                sequence: sequence.wrapping_add(index as u16),
                timestamp: timestamp.wrapping_add(160 * index as u32),
                ssrc,
            };
            sent.push(SentPacket {
                header: header(65_530, u32::MAX - 100, 1),
                datagram: Vec::new(),
                payload: payload.clone(),
                at,
            });
            received.push(ReceivedPacket {
                header: header(7, 99, 2),
                payload,
                from,
                at: at + Duration::from_millis(3),
            });
        }
        (sent, received)
    }

    #[test]
    fn stream_renumbered_by_a_relay_is_identical() {
        let (sent, received) = stream(40);
        let heard = compare(&sent, &received, 8_000);
        assert_eq!((heard.received, heard.lost, heard.foreign), (40, 0, 0));
        assert!(heard.payload_identical && heard.timestamps_kept);
        assert!(heard.jitter_ms < 0.001, "{}", heard.jitter_ms);
    }

    #[test]
    fn losses_at_both_ends_and_inside_are_counted() {
        let (sent, mut received) = stream(40);
        received.remove(39);
        received.remove(20);
        received.drain(..3);
        let heard = compare(&sent, &received, 8_000);
        assert_eq!((heard.received, heard.lost, heard.foreign), (35, 5, 0));
        assert_eq!(heard.lost_at, [0, 1, 2, 20, 39]);
        assert!(heard.payload_identical && heard.timestamps_kept);
    }

    #[test]
    fn one_altered_octet_is_foreign() {
        let (sent, mut received) = stream(40);
        received[12].payload[159] ^= 1;
        let heard = compare(&sent, &received, 8_000);
        assert_eq!((heard.foreign, heard.lost), (1, 1));
        assert!(!heard.payload_identical);
    }

    #[test]
    fn duplicates_and_reordering_are_told_apart() {
        let (sent, mut received) = stream(40);
        received.swap(10, 11);
        let copy = received[20].clone();
        received.insert(21, copy);
        let heard = compare(&sent, &received, 8_000);
        assert_eq!(
            (
                heard.received,
                heard.lost,
                heard.duplicates,
                heard.reordered
            ),
            (40, 0, 1, 1)
        );
        assert!(heard.payload_identical);
    }

    #[test]
    fn timestamp_jump_between_packets_is_noticed() {
        let (sent, mut received) = stream(40);
        for packet in &mut received[20..] {
            packet.header.timestamp = packet.header.timestamp.wrapping_add(160);
        }
        assert!(!compare(&sent, &received, 8_000).timestamps_kept);
    }

    #[test]
    fn silence_is_not_identical() {
        let (sent, _) = stream(40);
        let heard = compare(&sent, &[], 8_000);
        assert_eq!((heard.received, heard.lost), (0, 40));
        assert!(!heard.payload_identical);
    }

    #[test]
    fn jitter_follows_the_recursion_of_rfc_3550() {
        let (_, mut received) = stream(3);
        received[1].at += Duration::from_millis(16); // 128 units late, then on time again
        let stream: Vec<&ReceivedPacket> = received.iter().collect();
        let expected = {
            let first = 128.0 / 16.0;
            first + (128.0 - first) / 16.0
        };
        let jitter = jitter_units(&stream, 8_000);
        assert!((jitter - expected).abs() < 1e-6, "{jitter} {expected}");
    }
}
