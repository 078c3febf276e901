//! Packets of one sender in the order of their sequence numbers.

use trunkline_edge_api::{AudioFormat, MonoTime, Ssrc};

/// How long a packet waits for the ones before it, nanoseconds. Reordering on real networks spans
/// one or two packets.
const WAIT_NANOS: u64 = 80_000_000;

/// Packets that wait at most.
const WAITING_MAX: usize = 16;

/// A sequence number further away than this is another stream (RFC 3550 A.1, `MAX_DROPOUT`).
const DISTANCE_MAX: i32 = 1_000;

/// What stands in a packet's header and around it.
#[derive(Debug, Clone, Copy)]
pub(super) struct PacketFacts {
    pub(super) arrival: MonoTime,
    /// That moment in samples into the file.
    pub(super) position: u64,
    pub(super) ssrc: Ssrc,
    pub(super) sequence: u16,
    pub(super) timestamp: u32,
    /// `None`: it takes a place in the sequence and holds no audio.
    pub(super) format: Option<AudioFormat>,
}

/// What to do with a packet that has just come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// It is the next.
    Next,
    /// Others are missing before it: [`Reorder::hold`] it.
    Early,
    /// Its place is given up, or it was here before.
    Late,
    /// Another stream begins: first play what waits, then [`Reorder::restart`].
    Restart,
}

/// The window in which packets wait for each other.
#[derive(Debug, Default)]
pub(super) struct Reorder {
    state: Option<Stream>,
    /// Sorted by sequence number.
    waiting: Vec<Waiting>,
    /// Emptied buffers.
    spare: Vec<Vec<u8>>,
}

#[derive(Debug, Clone, Copy)]
struct Stream {
    ssrc: Ssrc,
    /// Sequence number to come.
    next: u16,
}

#[derive(Debug)]
struct Waiting {
    facts: PacketFacts,
    payload: Vec<u8>,
}

impl Reorder {
    /// Judges a packet, and counts on from it when it is the next.
    pub(super) fn judge(&mut self, facts: &PacketFacts) -> Order {
        let Some(stream) = &mut self.state else {
            return Order::Restart;
        };
        let ahead = distance(facts.sequence, stream.next);
        if facts.ssrc != stream.ssrc || ahead.abs() > DISTANCE_MAX {
            return Order::Restart;
        }
        match ahead {
            0 => {
                stream.next = stream.next.wrapping_add(1);
                Order::Next
            }
            1.. if self
                .waiting
                .iter()
                .any(|waiting| waiting.facts.sequence == facts.sequence) =>
            {
                Order::Late
            }
            1.. => Order::Early,
            _ => Order::Late,
        }
    }

    /// Begins a stream with the packet that is being played.
    pub(super) fn restart(&mut self, facts: &PacketFacts) {
        self.state = Some(Stream {
            ssrc: facts.ssrc,
            next: facts.sequence.wrapping_add(1),
        });
    }

    /// Forgets the stream: whatever comes next is the first.
    pub(super) fn forget(&mut self) {
        self.state = None;
    }

    /// Keeps a packet that came early.
    pub(super) fn hold(&mut self, facts: PacketFacts, payload: &[u8]) {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(payload);
        let before = |waiting: &Waiting| distance(waiting.facts.sequence, facts.sequence) < 0;
        let at = self.waiting.partition_point(before);
        self.waiting.insert(
            at,
            Waiting {
                facts,
                payload: buffer,
            },
        );
    }

    /// The next packet of those that wait, if it may be played at `now`: nothing is missing before
    /// it, or has been for too long. With it the number of packets given up.
    pub(super) fn release(&mut self, now: MonoTime) -> Option<(PacketFacts, Vec<u8>, u16)> {
        let stream = self.state.as_mut()?;
        let first = self.waiting.first()?;
        let missing = first.facts.sequence.wrapping_sub(stream.next);
        let waited = self
            .waiting
            .iter()
            .any(|waiting| now.nanos_since(waiting.facts.arrival) >= WAIT_NANOS);
        if missing != 0 && !waited && self.waiting.len() < WAITING_MAX {
            return None;
        }
        let Waiting { facts, payload } = self.waiting.remove(0);
        stream.next = facts.sequence.wrapping_add(1);
        Some((facts, payload, missing))
    }

    /// Takes back the buffer of a released packet.
    pub(super) fn recycle(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < WAITING_MAX {
            self.spare.push(buffer);
        }
    }
}

/// How far `a` lies ahead of `b`, -32,768 … 32,767.
fn distance(a: u16, b: u16) -> i32 {
    i32::from(a.wrapping_sub(b) as i16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(sequence: u16, millis: u64) -> PacketFacts {
        PacketFacts {
            arrival: MonoTime(millis * 1_000_000),
            position: millis * 8,
            ssrc: Ssrc(1),
            sequence,
            timestamp: 0,
            format: None,
        }
    }

    /// Feeds packets as a track does; the sequence numbers in the order of play, and how many were
    /// given up.
    fn play(arrivals: &[(u16, u64)]) -> (Vec<u16>, u32) {
        let mut reorder = Reorder::default();
        let (mut played, mut missing) = (Vec::new(), 0);
        for &(sequence, millis) in arrivals {
            let facts = facts(sequence, millis);
            match reorder.judge(&facts) {
                Order::Next => played.push(sequence),
                Order::Early => reorder.hold(facts, &[]),
                Order::Late => {}
                Order::Restart => {
                    while let Some((facts, ..)) = reorder.release(MonoTime(u64::MAX)) {
                        played.push(facts.sequence);
                    }
                    reorder.restart(&facts);
                    played.push(sequence);
                }
            }
            while let Some((released, buffer, gap)) = reorder.release(facts.arrival) {
                played.push(released.sequence);
                missing += u32::from(gap);
                reorder.recycle(buffer);
            }
        }
        (played, missing)
    }

    #[test]
    fn packets_that_overtook_each_other_are_put_back_in_order_across_the_wrap() {
        let arrivals = [
            (65_534, 0),
            (0, 20),
            (65_535, 21),
            (2, 40),
            (3, 50),
            (1, 60),
            (1, 61),
        ];
        assert_eq!(play(&arrivals), (vec![65_534, 65_535, 0, 1, 2, 3], 0));
    }

    #[test]
    fn a_lost_packet_holds_the_others_up_for_eighty_milliseconds_only() {
        let arrivals = [
            (1, 0),
            (3, 20),
            (4, 40),
            (5, 60),
            (6, 80),
            (7, 100),
            (2, 120),
            (8, 140),
        ];
        assert_eq!(play(&arrivals), (vec![1, 3, 4, 5, 6, 7, 8], 1));
    }

    #[test]
    fn a_sequence_number_from_elsewhere_begins_anew() {
        let arrivals = [(10, 0), (12, 20), (30_000, 40), (30_001, 60)];
        assert_eq!(play(&arrivals), (vec![10, 12, 30_000, 30_001], 0));
    }

    #[test]
    fn no_more_than_a_window_waits() {
        let mut arrivals: Vec<(u16, u64)> = vec![(0, 0)];
        arrivals.extend((2..40).map(|sequence| (sequence, 1)));
        let (played, missing) = play(&arrivals);
        assert_eq!((played.len(), missing), (39, 1));
    }
}
