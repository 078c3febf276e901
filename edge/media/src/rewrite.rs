//! The one stream that a leg sends, whatever is behind it.
//!
//! A leg's peer sees a single SSRC from the first packet to the last. What feeds the stream may
//! change: the far peer restarts, another callee answers, a prompt takes over. Each source gets
//! offsets at its first packet so that the sequence goes on by one and the timestamp by the time
//! that has passed (RFC 3550 §5.1). Inside one source both are plain offsets, so loss, reordering
//! and pauses reach the receiver as they are.
//!
//! ```text
//!   far peer      SSRC 7 seq 900 901  903        SSRC 9 seq 20 21
//!   leg sends     SSRC 1 seq  40  41   43        SSRC 1 seq 44 45
//! ```
//!
//! No number is ever used for two packets: a packet that would need one which belongs to an earlier
//! source is too late to be sent at all. Under SRTP the sequence number is the cipher's nonce
//! (RFC 3711 §4.1.1, RFC 7714 §8.1), and a nonce used twice gives both payloads away.
//!
//! Sequence numbers are kept extended to 32 bits (RFC 3550 A.1), so that report blocks can be
//! translated back over a wrap.

use trunkline_edge_api::{ClockRateHz, MonoTime, Ssrc};

/// A packet at most this far behind the newest is late; further behind, the sender has restarted
/// its numbering (MAX_MISORDER of RFC 3550 A.1).
const MISORDER_MAX: i16 = 100;
/// A packet further ahead than this follows no loss; the sender has restarted, or was not relayed
/// for a minute (MAX_DROPOUT of RFC 3550 A.1).
const DROPOUT_MAX: i16 = 3_000;
/// After so long without a packet a restart is believed at once; nothing that left before is still
/// on its way.
const SILENCE_NANOS: u64 = 1_000_000_000;

/// What a leg sends, and how its present source maps onto it.
#[derive(Debug, Clone)]
pub struct OutgoingStream {
    ssrc: Ssrc,
    /// RTP packets sent, modulo 2^32 as sender reports count them.
    packets: u32,
    /// Payload bytes sent, modulo 2^32.
    octets: u32,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    /// Nothing was sent yet.
    Idle,
    Flowing(Flow),
}

#[derive(Debug, Clone)]
struct Flow {
    source: Source,
    /// Extended sequence number below which everything belongs to earlier sources.
    floor_out: u32,
    /// What follows a packet that was out of sequence, if the source has restarted there.
    restart_at: Option<u16>,
    /// The newest packet of the source, extended.
    newest_in: u32,
    /// Timestamp sent with it.
    newest_timestamp: u32,
    /// When the first packet with that timestamp was sent.
    newest_at: MonoTime,
}

/// Who feeds the stream, and by how much its numbers differ from those sent.
#[derive(Debug, Clone, Copy)]
struct Source {
    ssrc: Ssrc,
    /// Extended sequence number sent with the source's first packet.
    first_out: u32,
    /// Sent minus received, modulo 2^32.
    sequence_offset: u32,
    /// Sent minus received, modulo 2^32.
    timestamp_offset: u32,
}

/// Numbers of one packet, as received or as to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp.
    pub timestamp: u32,
}

impl OutgoingStream {
    /// A stream that has sent nothing. `ssrc` is random (RFC 3550 §8); the first sequence number
    /// and timestamp are derived from it.
    #[must_use]
    pub fn new(ssrc: Ssrc) -> Self {
        Self {
            ssrc,
            packets: 0,
            octets: 0,
            state: State::Idle,
        }
    }

    /// The SSRC of everything the leg sends.
    #[must_use]
    pub fn ssrc(&self) -> Ssrc {
        self.ssrc
    }

    /// RTP packets sent, modulo 2^32: the sender's packet count of RFC 3550 §6.4.1.
    #[must_use]
    pub fn packets(&self) -> u32 {
        self.packets
    }

    /// Payload bytes sent, modulo 2^32: the sender's octet count of RFC 3550 §6.4.1.
    #[must_use]
    pub fn octets(&self) -> u32 {
        self.octets
    }

    /// Places a packet of `source` in the stream and counts it as sent. `clock_rate` is that of
    /// its payload type and matters only when the source has changed.
    ///
    /// `None` when the packet has no place: it is late and its number has been given to an earlier
    /// source, or it is far out of sequence and no second packet has confirmed yet that the source
    /// has restarted its numbering (RFC 3550 A.1).
    #[inline]
    pub fn place(
        &mut self,
        now: MonoTime,
        source: Ssrc,
        incoming: Position,
        clock_rate: ClockRateHz,
        payload_len: usize,
    ) -> Option<Position> {
        let step = match &mut self.state {
            State::Flowing(flow) if flow.source.ssrc == source => flow.advance(now, incoming),
            State::Flowing(_) | State::Idle => Step::TakeOver,
        };
        let position = match step {
            Step::Placed(position) => position,
            Step::NoPlace => return None,
            Step::TakeOver => Self::adopt(
                &mut self.state,
                self.ssrc,
                now,
                source,
                incoming,
                clock_rate,
            ),
        };
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(payload_len as u32);
        Some(position)
    }

    /// Lets a new source take the stream over.
    #[cold]
    fn adopt(
        state: &mut State,
        own: Ssrc,
        now: MonoTime,
        source: Ssrc,
        incoming: Position,
        clock_rate: ClockRateHz,
    ) -> Position {
        let (first_out, floor_out, timestamp) = match state {
            State::Idle => {
                let (first_out, timestamp) = first_position(own);
                let floor_out = first_out.wrapping_add_signed(i32::from(-MISORDER_MAX));
                (first_out, floor_out, timestamp)
            }
            State::Flowing(flow) => {
                let elapsed_nanos = u128::from(now.nanos_since(flow.newest_at));
                let elapsed = elapsed_nanos * u128::from(clock_rate.get()) / 1_000_000_000;
                // Two packets of one instant still are two: the timestamp has to move.
                let advance = (elapsed as u32).max(1);
                let first_out = flow.newest_out().wrapping_add(1);
                let timestamp = flow.newest_timestamp.wrapping_add(advance);
                (first_out, first_out, timestamp)
            }
        };
        let newest_in = u32::from(incoming.sequence);
        *state = State::Flowing(Flow {
            source: Source {
                ssrc: source,
                first_out,
                sequence_offset: first_out.wrapping_sub(newest_in),
                timestamp_offset: timestamp.wrapping_sub(incoming.timestamp),
            },
            floor_out,
            restart_at: None,
            newest_in,
            newest_timestamp: timestamp,
            newest_at: now,
        });
        Position {
            sequence: first_out as u16,
            timestamp,
        }
    }

    /// SSRC of the present source; `None` before its first packet.
    #[must_use]
    pub fn source(&self) -> Option<Ssrc> {
        match &self.state {
            State::Idle => None,
            State::Flowing(flow) => Some(flow.source.ssrc),
        }
    }

    /// What the present source's `timestamp` is in the stream; `None` when `source` is not it.
    #[must_use]
    pub fn timestamp_sent(&self, source: Ssrc, timestamp: u32) -> Option<u32> {
        match &self.state {
            State::Flowing(Flow {
                source: present, ..
            }) if present.ssrc == source => Some(timestamp.wrapping_add(present.timestamp_offset)),
            State::Flowing(_) | State::Idle => None,
        }
    }

    /// RTP time of the stream at `now`, which lies at or after its newest packet; `None` before
    /// the first. `clock_hz` is the clock of that packet.
    #[must_use]
    pub fn timestamp_at(&self, now: MonoTime, clock_hz: u32) -> Option<u32> {
        match &self.state {
            State::Idle => None,
            State::Flowing(flow) => {
                let elapsed_nanos = u128::from(now.nanos_since(flow.newest_at));
                let elapsed = elapsed_nanos * u128::from(clock_hz) / 1_000_000_000;
                Some(flow.newest_timestamp.wrapping_add(elapsed as u32))
            }
        }
    }

    /// Translates an extended sequence number that the peer reports back to the present source's
    /// numbering. `None` when it lies before that source's first packet: then the report speaks of
    /// an earlier source, which no longer wants to hear it.
    ///
    /// Only the lower 16 bits are taken from the peer. Its cycle count starts when it first
    /// listens, which may be many wraps after our first packet; ours is used instead, on the
    /// ground that a report is less than 2^16 packets old.
    #[must_use]
    pub fn sequence_received(&self, sent: u32) -> Option<u32> {
        match &self.state {
            State::Flowing(flow) => {
                let newest = flow.newest_out();
                let age = (newest as u16).wrapping_sub(sent as u16);
                let sent = newest.wrapping_sub(u32::from(age));
                let since_first = sent.wrapping_sub(flow.source.first_out);
                let is_before_first = since_first > u32::MAX / 2;
                (!is_before_first).then(|| sent.wrapping_sub(flow.source.sequence_offset))
            }
            State::Idle => None,
        }
    }
}

/// What becomes of the next packet.
enum Step {
    Placed(Position),
    NoPlace,
    /// It begins a new source, or the same one anew.
    TakeOver,
}

impl Flow {
    #[inline]
    fn advance(&mut self, now: MonoTime, incoming: Position) -> Step {
        let ahead = incoming
            .sequence
            .wrapping_sub(self.newest_in as u16)
            .cast_signed();
        let extended_in = self.newest_in.wrapping_add_signed(i32::from(ahead));
        let extended_out = extended_in.wrapping_add(self.source.sequence_offset);
        let timestamp = incoming
            .timestamp
            .wrapping_add(self.source.timestamp_offset);
        if (1..=DROPOUT_MAX).contains(&ahead) {
            self.restart_at = None;
            self.newest_in = extended_in;
            // All packets of a telephone event carry the timestamp of its beginning (RFC 4733
            // §2.5.1.1): time is counted from the first of them.
            if timestamp != self.newest_timestamp {
                self.newest_timestamp = timestamp;
                self.newest_at = now;
            }
        } else if (-MISORDER_MAX..=0).contains(&ahead) {
            let above_floor = extended_out.wrapping_sub(self.floor_out).cast_signed();
            if above_floor < 0 {
                return Step::NoPlace;
            }
        } else {
            return self.leave_sequence(now, incoming);
        }
        Step::Placed(Position {
            sequence: extended_out as u16,
            timestamp,
        })
    }

    /// A stray packet is not to move the stream, a restart has to: the second of two in a row
    /// tells them apart.
    #[cold]
    fn leave_sequence(&mut self, now: MonoTime, incoming: Position) -> Step {
        let is_confirmed = self.restart_at == Some(incoming.sequence);
        if is_confirmed || now.nanos_since(self.newest_at) >= SILENCE_NANOS {
            return Step::TakeOver;
        }
        self.restart_at = Some(incoming.sequence.wrapping_add(1));
        Step::NoPlace
    }

    fn newest_out(&self) -> u32 {
        self.newest_in.wrapping_add(self.source.sequence_offset)
    }
}

/// First extended sequence number and timestamp under `ssrc`. Unpredictable to whoever does not
/// see the packets, because the SSRC is (RFC 3550 §5.1). The sequence starts in the lower half of
/// its range, so that losing the first packets cannot make a receiver guess a wrong rollover
/// counter (RFC 3711 §3.3.1), and leaves [`MISORDER_MAX`] numbers below for packets that the first
/// one has overtaken.
fn first_position(ssrc: Ssrc) -> (u32, u32) {
    let bits = mix(u64::from(ssrc.0));
    ((bits >> 32) as u32 & 0x7fff | 0x80, bits as u32)
}

/// The finalizer of SplitMix64: every input bit reaches every output bit.
pub(crate) const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests;
