//! Ids and units that cross the plane boundary. Each is its own type, so that a port is never
//! taken for a payload type nor nanoseconds for RTP units.

use std::fmt;

/// Version of the plane contract; see [`crate::API_VERSION`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion {
    /// Differs: the two sides must not talk.
    pub major: u16,
    /// Differs: the two sides talk, each in the older one's terms.
    pub minor: u16,
}

impl ApiVersion {
    /// Whether the two versions may share a region.
    #[must_use]
    pub const fn is_compatible_with(self, other: ApiVersion) -> bool {
        self.major == other.major
    }

    /// Packed form in the region header and the handshake: major in the high half.
    #[must_use]
    pub const fn to_bits(self) -> u32 {
        (self.major as u32) << 16 | self.minor as u32
    }

    /// Inverse of [`Self::to_bits`].
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self {
            major: (bits >> 16) as u16,
            minor: bits as u16,
        }
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Index of a worker, 0 … worker count - 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerIndex(pub u16);

impl fmt::Display for WorkerIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One life of the control plane. A control that starts takes a higher epoch than any before it,
/// so no session id is ever used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u32);

/// Id of a media session, chosen by control: its epoch in the high half, a counter in the low.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

impl SessionId {
    /// The `serial`-th session of `epoch`.
    #[must_use]
    pub const fn new(epoch: Epoch, serial: u32) -> Self {
        Self((epoch.0 as u64) << 32 | serial as u64)
    }

    /// The life of control that chose this id.
    #[must_use]
    pub const fn epoch(self) -> Epoch {
        Epoch((self.0 >> 32) as u32)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.0 >> 32, self.0 as u32)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// How a worker receives and sends datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum IoTier {
    /// io_uring.
    IoUring = 1,
    /// epoll: where io_uring is forbidden or unknown.
    Epoll = 2,
}

impl IoTier {
    /// The word in a worker's region.
    #[must_use]
    pub const fn to_word(self) -> u64 {
        self as u64
    }

    /// `None` for 0, which an edge older than 1.1 leaves there, and for what a newer one says.
    #[must_use]
    pub const fn from_word(word: u64) -> Option<Self> {
        match word {
            1 => Some(Self::IoUring),
            2 => Some(Self::Epoll),
            _ => None,
        }
    }

    /// As `[edge] io` and the status spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

/// One of the two sides of a relayed call. Packets that arrive on one leave on the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum LegIndex {
    /// The calling side.
    A = 0,
    /// The called side.
    B = 1,
}

impl LegIndex {
    /// Both legs, in index order.
    pub const ALL: [LegIndex; 2] = [LegIndex::A, LegIndex::B];

    /// The other side.
    #[must_use]
    pub const fn far(self) -> LegIndex {
        match self {
            LegIndex::A => LegIndex::B,
            LegIndex::B => LegIndex::A,
        }
    }

    /// Index into a two-element array.
    #[must_use]
    pub const fn as_usize(self) -> usize {
        self as usize
    }
}

impl TryFrom<u8> for LegIndex {
    type Error = u8;

    fn try_from(value: u8) -> Result<Self, u8> {
        match value {
            0 => Ok(LegIndex::A),
            1 => Ok(LegIndex::B),
            other => Err(other),
        }
    }
}

/// Pairs a command with the [`crate::Event::CommandDone`] that answers it. Chosen by control,
/// opaque to the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Correlation(pub u64);

/// Synchronization source, RFC 3550 §3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ssrc(pub u32);

/// RTP payload type, 0 … 127 (RFC 3550 §5.1). The marker bit is not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PayloadType(u8);

impl PayloadType {
    /// PCMU, RFC 3551 §6.
    pub const PCMU: Self = Self(0);
    /// PCMA, RFC 3551 §6.
    pub const PCMA: Self = Self(8);
    /// Comfort noise, RFC 3389.
    pub const CN: Self = Self(13);
    /// G.722, RFC 3551 §6.
    pub const G722: Self = Self(9);

    /// `None` when `value` does not fit the seven bits of the field.
    #[must_use]
    pub const fn new(value: u8) -> Option<Self> {
        if value < 128 { Some(Self(value)) } else { None }
    }

    /// 0 … 127.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// RTP clock rate in Hz: how far the timestamp advances in one second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClockRateHz(u32);

impl ClockRateHz {
    /// G.711 and most narrow-band codecs.
    pub const NARROWBAND: Self = Self(8_000);
    /// RTP clock rate of G.722. It samples at 16 kHz, but its RTP clock is 8 kHz for historical
    /// reasons: RFC 3551 §4.5.2. One 20 ms packet advances the timestamp by 160.
    pub const G722_RTP: Self = Self(8_000);
    /// Opus always runs its RTP clock at 48 kHz: RFC 7587 §4.1.
    pub const OPUS: Self = Self(48_000);

    /// `None` for 0 and for anything above 384 kHz, which no registered audio format uses.
    #[must_use]
    pub const fn new(hz: u32) -> Option<Self> {
        if hz >= 1 && hz <= 384_000 {
            Some(Self(hz))
        } else {
            None
        }
    }

    /// Hertz.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// A point on `CLOCK_MONOTONIC` in nanoseconds. Both daemons read the same kernel clock, so a
/// heartbeat written by one can be aged by the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MonoTime(pub u64);

impl MonoTime {
    /// Nanoseconds from `earlier` to `self`; 0 when `earlier` lies in the future.
    #[must_use]
    pub const fn nanos_since(self, earlier: MonoTime) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// `self` plus `nanos`, saturating.
    #[must_use]
    pub const fn plus_nanos(self, nanos: u64) -> MonoTime {
        MonoTime(self.0.saturating_add(nanos))
    }

    /// `self` plus `millis`, saturating.
    #[must_use]
    pub const fn plus_millis(self, millis: u64) -> MonoTime {
        self.plus_nanos(millis.saturating_mul(1_000_000))
    }

    /// `self` plus `secs`, saturating.
    #[must_use]
    pub const fn plus_secs(self, secs: u64) -> MonoTime {
        self.plus_nanos(secs.saturating_mul(1_000_000_000))
    }
}

/// An inclusive range of UDP ports, `first <= last`, both non-zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// `None` when the range is empty or holds port 0.
    #[must_use]
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first != 0 && first <= last {
            Some(Self { first, last })
        } else {
            None
        }
    }

    /// Lowest port.
    #[must_use]
    pub const fn first(self) -> u16 {
        self.first
    }

    /// Highest port.
    #[must_use]
    pub const fn last(self) -> u16 {
        self.last
    }

    /// Number of even/odd pairs (RFC 3550 §11) that lie wholly inside the range.
    #[must_use]
    pub const fn pair_count(self) -> u32 {
        let first_even = self.first as u32 + (self.first as u32 & 1);
        let end = self.last as u32 + 1;
        if end < first_even {
            0
        } else {
            (end - first_even) / 2
        }
    }

    /// Even ports that begin a pair, ascending.
    pub fn pairs(self) -> impl Iterator<Item = u16> {
        let first_even = self.first as u32 + (self.first as u32 & 1);
        (0..self.pair_count()).map(move |i| (first_even + 2 * i) as u16)
    }

    /// The slice of this range that worker `index` of `count` owns. Slices begin on even ports,
    /// do not overlap, and the last one takes the remainder. `None` when there is less than one
    /// pair for each worker.
    #[must_use]
    pub fn slice(self, index: WorkerIndex, count: u16) -> Option<PortRange> {
        let pairs_each = self.pair_count() / u32::from(count.max(1));
        if pairs_each == 0 || index.0 >= count {
            return None;
        }
        let first_even = u32::from(self.first) + (u32::from(self.first) & 1);
        let first = first_even + 2 * pairs_each * u32::from(index.0);
        let last = if index.0 + 1 == count {
            first_even + 2 * self.pair_count() - 1
        } else {
            first + 2 * pairs_each - 1
        };
        PortRange::new(first as u16, last as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cover_every_pair_once() {
        let range = PortRange::new(30_001, 30_022).expect("valid");
        let slices: Vec<_> = (0..3)
            .filter_map(|i| range.slice(WorkerIndex(i), 3))
            .collect();
        let mut ports: Vec<u16> = slices.iter().flat_map(|s| s.pairs()).collect();
        ports.sort_unstable();
        assert_eq!(ports, range.pairs().collect::<Vec<_>>());
        assert!(slices.iter().all(|s| s.first() % 2 == 0));
    }

    #[test]
    fn range_that_cannot_give_each_worker_a_pair_has_no_slices() {
        let range = PortRange::new(30_000, 30_003).expect("valid");
        assert_eq!(range.slice(WorkerIndex(0), 3), None);
    }

    #[test]
    fn range_reaching_the_last_port_counts_its_pairs() {
        let range = PortRange::new(65_533, 65_535).expect("valid");
        assert_eq!(range.pairs().collect::<Vec<_>>(), [65_534]);
    }

    #[test]
    fn session_id_keeps_epoch_apart_from_serial() {
        let id = SessionId::new(Epoch(7), u32::MAX);
        assert_eq!(id.epoch(), Epoch(7));
        assert_eq!(id.to_string(), "7-ffffffff");
    }
}
