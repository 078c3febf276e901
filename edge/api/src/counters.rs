//! What a worker counts. A counter is a `u64` cell on the worker's counters page, found by its
//! index here; names and labels come from this file, never from the page.

/// Cells of the counters page. Indices are ABI: never reorder, only append.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Counter {
    /// RTP packets accepted from peers.
    RxRtpPackets = 0,
    /// Bytes of those, RTP header included.
    RxRtpBytes = 1,
    /// RTP packets handed to the kernel.
    TxRtpPackets = 2,
    /// Bytes of those, RTP header included.
    TxRtpBytes = 3,
    /// RTCP packets accepted from peers.
    RxRtcpPackets = 4,
    /// RTCP packets handed to the kernel.
    TxRtcpPackets = 5,
    /// Commands taken from the ring.
    Commands = 6,
    /// Commands answered with a [`crate::Refusal`].
    CommandsRefused = 7,
    /// Ring records that could not be decoded.
    CommandsUndecodable = 8,
    /// Events put on the ring.
    Events = 9,
    /// Events that found no room.
    EventsDropped = 10,
    /// Duty cycles that did work.
    BusyCycles = 11,
    /// Nanoseconds spent in those.
    BusyNanos = 12,
    /// The longest duty cycle so far, nanoseconds. A gauge.
    CycleMaxNanos = 13,
    /// Open sessions. A gauge.
    SessionsActive = 14,
    /// Bound sockets. A gauge.
    SocketsOpen = 15,
    /// Sessions opened since start.
    SessionsOpened = 16,
    /// Sessions closed because their own code panicked.
    SessionsPanicked = 17,
    /// Sessions closed because neither control nor media were seen.
    SessionsOrphaned = 18,
    /// Times the receive buffer ring ran empty (ENOBUFS).
    RxBuffersExhausted = 19,
    /// Times a multishot receive ended and was armed again.
    RxRearmed = 20,
    /// Times the completion queue overflowed.
    CqOverflows = 21,
    /// Receive buffers now held by sends in flight. A gauge.
    BuffersInFlight = 22,
    /// [`crate::Event::MediaTimedOut`] told to control.
    MediaTimeouts = 23,
    /// RTCP packets that a worker made itself.
    RtcpGenerated = 24,
    /// Sockets connected to their proven peer. A gauge.
    SocketsConnected = 25,
    /// Sends that the kernel refused for a stored ICMP error and that were repeated.
    SendsRetried = 26,
    /// Sessions refused with [`crate::Refusal::WorkerBusy`].
    SessionsRefusedBusy = 27,
    /// Playbacks that run. A gauge. Since 1.2, as is all that follows.
    PlaybacksActive = 28,
    /// Recordings that run. A gauge.
    RecordingsActive = 29,
    /// Legs that are in a conference. A gauge.
    ConferenceMembers = 30,
    /// [`crate::Event::DigitReceived`] told to control.
    DigitsReceived = 31,
    /// RTP packets that a worker encoded: transcoded, played or mixed.
    PacketsEncoded = 32,
    /// Packets' worth of audio that was missing and was made up.
    PacketsConcealed = 33,
    /// Packets that a recording lost because the disk could not follow.
    RecordingPacketsLost = 34,
    /// Copies of media sent to a second address.
    PacketsForked = 35,
    /// Ticks of clocked media that came a whole packet time late or later.
    TicksLate = 36,
}

impl Counter {
    /// All counters in index order.
    pub const ALL: [Counter; 37] = [
        Counter::RxRtpPackets,
        Counter::RxRtpBytes,
        Counter::TxRtpPackets,
        Counter::TxRtpBytes,
        Counter::RxRtcpPackets,
        Counter::TxRtcpPackets,
        Counter::Commands,
        Counter::CommandsRefused,
        Counter::CommandsUndecodable,
        Counter::Events,
        Counter::EventsDropped,
        Counter::BusyCycles,
        Counter::BusyNanos,
        Counter::CycleMaxNanos,
        Counter::SessionsActive,
        Counter::SocketsOpen,
        Counter::SessionsOpened,
        Counter::SessionsPanicked,
        Counter::SessionsOrphaned,
        Counter::RxBuffersExhausted,
        Counter::RxRearmed,
        Counter::CqOverflows,
        Counter::BuffersInFlight,
        Counter::MediaTimeouts,
        Counter::RtcpGenerated,
        Counter::SocketsConnected,
        Counter::SendsRetried,
        Counter::SessionsRefusedBusy,
        Counter::PlaybacksActive,
        Counter::RecordingsActive,
        Counter::ConferenceMembers,
        Counter::DigitsReceived,
        Counter::PacketsEncoded,
        Counter::PacketsConcealed,
        Counter::RecordingPacketsLost,
        Counter::PacketsForked,
        Counter::TicksLate,
    ];

    /// Name in `trunkline-edge status --json`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Counter::RxRtpPackets => "rx_rtp_packets",
            Counter::RxRtpBytes => "rx_rtp_bytes",
            Counter::TxRtpPackets => "tx_rtp_packets",
            Counter::TxRtpBytes => "tx_rtp_bytes",
            Counter::RxRtcpPackets => "rx_rtcp_packets",
            Counter::TxRtcpPackets => "tx_rtcp_packets",
            Counter::Commands => "commands",
            Counter::CommandsRefused => "commands_refused",
            Counter::CommandsUndecodable => "commands_undecodable",
            Counter::Events => "events",
            Counter::EventsDropped => "events_dropped",
            Counter::BusyCycles => "busy_cycles",
            Counter::BusyNanos => "busy_nanos",
            Counter::CycleMaxNanos => "cycle_max_nanos",
            Counter::SessionsActive => "sessions_active",
            Counter::SocketsOpen => "sockets_open",
            Counter::SessionsOpened => "sessions_opened",
            Counter::SessionsPanicked => "sessions_panicked",
            Counter::SessionsOrphaned => "sessions_orphaned",
            Counter::RxBuffersExhausted => "rx_buffers_exhausted",
            Counter::RxRearmed => "rx_rearmed",
            Counter::CqOverflows => "cq_overflows",
            Counter::BuffersInFlight => "buffers_in_flight",
            Counter::MediaTimeouts => "media_timeouts",
            Counter::RtcpGenerated => "rtcp_generated",
            Counter::SocketsConnected => "sockets_connected",
            Counter::SendsRetried => "sends_retried",
            Counter::SessionsRefusedBusy => "sessions_refused_busy",
            Counter::PlaybacksActive => "playbacks_active",
            Counter::RecordingsActive => "recordings_active",
            Counter::ConferenceMembers => "conference_members",
            Counter::DigitsReceived => "digits_received",
            Counter::PacketsEncoded => "packets_encoded",
            Counter::PacketsConcealed => "packets_concealed",
            Counter::RecordingPacketsLost => "recording_packets_lost",
            Counter::PacketsForked => "packets_forked",
            Counter::TicksLate => "ticks_late",
        }
    }

    /// Index of the cell on the counters page.
    #[must_use]
    pub const fn cell(self) -> usize {
        self as usize
    }
}

/// Why a packet went no further. Each has a cell of its own, after room for
/// [`DropReason::CELL_BASE`] plain counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum DropReason {
    /// First byte of no known protocol (RFC 7983), or an empty datagram.
    NotMedia = 0,
    /// STUN, which no leg of this release expects.
    UnexpectedStun = 1,
    /// DTLS, which no leg of this release expects.
    UnexpectedDtls = 2,
    /// RTP with an impossible header (RFC 3550 A.1).
    MalformedRtp = 3,
    /// RTCP with an impossible length or header (RFC 3550 A.2).
    MalformedRtcp = 4,
    /// RTP on an RTCP socket or the other way round.
    WrongSocket = 5,
    /// Larger than a receive buffer; the kernel cut it.
    Oversize = 6,
    /// From an address that signalling did not name.
    SourceNotAllowed = 7,
    /// A payload type that was not negotiated.
    PayloadTypeNotNegotiated = 8,
    /// The leg's direction does not let media in, or the far leg's does not let it out.
    DirectionInactive = 9,
    /// The far leg is not open or its peer is not known yet.
    NoDestination = 10,
    /// The socket's transmit queue was full (EAGAIN, ENOBUFS).
    SendQueueFull = 11,
    /// The kernel refused the send for another reason.
    SendFailed = 12,
    /// No free buffer or submission slot: the worker is past its capacity.
    Overload = 13,
    /// SRTP or SRTCP whose tag does not fit its bytes (RFC 3711 §3.3).
    SrtpAuthFailed = 14,
    /// SRTP or SRTCP whose index was seen before or lies before the replay window
    /// (RFC 3711 §3.3.2).
    SrtpReplayed = 15,
    /// The key may protect no further packet (RFC 3711 §9.2); signalling must agree on another.
    SrtpExhausted = 16,
    /// RTP that is late beyond use, or so far out of sequence that a second packet has to confirm
    /// it (RFC 3550 A.1).
    OutOfSequence = 17,
    /// The far leg hears something else in its place, or is not to hear it: a prompt, a
    /// conference, a muted leg, a hidden digit. Since 1.2.
    MediaReplaced = 18,
    /// Audio that its codec cannot read. Since 1.2.
    BadAudioFrame = 19,
}

impl DropReason {
    /// First cell of the drop counters. Cells between the plain counters and here are reserved.
    pub const CELL_BASE: usize = 64;

    /// All reasons in index order.
    pub const ALL: [DropReason; 20] = [
        DropReason::NotMedia,
        DropReason::UnexpectedStun,
        DropReason::UnexpectedDtls,
        DropReason::MalformedRtp,
        DropReason::MalformedRtcp,
        DropReason::WrongSocket,
        DropReason::Oversize,
        DropReason::SourceNotAllowed,
        DropReason::PayloadTypeNotNegotiated,
        DropReason::DirectionInactive,
        DropReason::NoDestination,
        DropReason::SendQueueFull,
        DropReason::SendFailed,
        DropReason::Overload,
        DropReason::SrtpAuthFailed,
        DropReason::SrtpReplayed,
        DropReason::SrtpExhausted,
        DropReason::OutOfSequence,
        DropReason::MediaReplaced,
        DropReason::BadAudioFrame,
    ];

    /// Value of the `reason` label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            DropReason::NotMedia => "not_media",
            DropReason::UnexpectedStun => "unexpected_stun",
            DropReason::UnexpectedDtls => "unexpected_dtls",
            DropReason::MalformedRtp => "malformed_rtp",
            DropReason::MalformedRtcp => "malformed_rtcp",
            DropReason::WrongSocket => "wrong_socket",
            DropReason::Oversize => "oversize",
            DropReason::SourceNotAllowed => "source_not_allowed",
            DropReason::PayloadTypeNotNegotiated => "payload_type_not_negotiated",
            DropReason::DirectionInactive => "direction_inactive",
            DropReason::NoDestination => "no_destination",
            DropReason::SendQueueFull => "send_queue_full",
            DropReason::SendFailed => "send_failed",
            DropReason::Overload => "overload",
            DropReason::SrtpAuthFailed => "srtp_auth_failed",
            DropReason::SrtpReplayed => "srtp_replayed",
            DropReason::SrtpExhausted => "srtp_exhausted",
            DropReason::OutOfSequence => "out_of_sequence",
            DropReason::MediaReplaced => "media_replaced",
            DropReason::BadAudioFrame => "bad_audio_frame",
        }
    }

    /// Index of the cell on the counters page.
    #[must_use]
    pub const fn cell(self) -> usize {
        Self::CELL_BASE + self as usize
    }
}

/// Distributions. Each has [`Histogram::STRIDE`] cells from [`Histogram::CELL_BASE`] on: one per
/// bucket, not cumulative, the last for values above every bound; then the sum of the values. The
/// number of values is the sum of the buckets. Since 1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Histogram {
    /// Interarrival jitter of each leg that heard media, at its close, microseconds.
    JitterMicros = 0,
    /// Mean opinion score of each leg that heard media, at its close, hundredths.
    MosCenti = 1,
    /// From when a worker finds packets to when the kernel has taken the last of those that go on,
    /// nanoseconds: one value for each duty cycle that sends packets on. What a packet waited in
    /// its socket before is not in it.
    ForwardLatencyNanos = 2,
}

impl Histogram {
    /// First cell of the histograms.
    pub const CELL_BASE: usize = 128;

    /// Cells of one histogram, most of them room to grow.
    pub const STRIDE: usize = 32;

    /// All histograms in index order.
    pub const ALL: [Histogram; 3] = [
        Histogram::JitterMicros,
        Histogram::MosCenti,
        Histogram::ForwardLatencyNanos,
    ];

    /// Name in `trunkline-edge status --json`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Histogram::JitterMicros => "jitter_micros",
            Histogram::MosCenti => "mos_centi",
            Histogram::ForwardLatencyNanos => "forward_latency_nanos",
        }
    }

    /// Upper bounds of the buckets, inclusive, rising; one bucket more takes what is above.
    #[must_use]
    pub const fn bounds(self) -> &'static [u64] {
        match self {
            // From a local network to what no jitter buffer hides.
            Histogram::JitterMicros => &[
                500, 1_000, 2_000, 5_000, 10_000, 20_000, 30_000, 50_000, 100_000, 200_000, 500_000,
            ],
            // The user-satisfaction limits of G.107 annex B are 2.58, 3.10, 3.60, 4.03, 4.34.
            Histogram::MosCenti => &[150, 200, 258, 310, 360, 380, 403, 420, 434, 441],
            // The promise is a p99 below 200 µs and a p99.9 below 1 ms.
            Histogram::ForwardLatencyNanos => &[
                2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
                2_000_000, 5_000_000, 20_000_000,
            ],
        }
    }

    /// The bucket that counts `value`.
    #[must_use]
    pub fn bucket_of(self, value: u64) -> HistogramCell {
        let bounds = self.bounds();
        let bucket = bounds.iter().take_while(|&&bound| bound < value).count();
        HistogramCell::Bucket(self, bucket)
    }

    /// Index of a bucket's cell on the counters page, `bucket` at most the number of bounds.
    #[must_use]
    pub const fn cell(self, bucket: usize) -> usize {
        Self::CELL_BASE + self as usize * Self::STRIDE + bucket
    }

    /// Index of the cell that holds the sum of all values.
    #[must_use]
    pub const fn sum_cell(self) -> usize {
        self.cell(Self::STRIDE - 1)
    }

    /// All cells of a histogram: the buckets in order, then the sum.
    pub fn cells(self) -> impl Iterator<Item = HistogramCell> {
        (0..=self.bounds().len())
            .map(move |bucket| HistogramCell::Bucket(self, bucket))
            .chain([HistogramCell::Sum(self)])
    }
}

/// A cell of a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HistogramCell {
    /// How many values fell into a bucket, at most the number of [`Histogram::bounds`].
    Bucket(Histogram, usize),
    /// The sum of all values.
    Sum(Histogram),
}

impl HistogramCell {
    /// Index of the cell on the counters page.
    #[must_use]
    pub const fn cell(self) -> usize {
        match self {
            Self::Bucket(histogram, bucket) => histogram.cell(bucket),
            Self::Sum(histogram) => histogram.sum_cell(),
        }
    }
}

/// Cells on a counters page of this version; the rest is room to grow.
pub const CELL_COUNT: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_its_own_cell_and_name() {
        let mut cells: Vec<usize> = Counter::ALL.iter().map(|c| c.cell()).collect();
        cells.extend(DropReason::ALL.iter().map(|r| r.cell()));
        let histograms = Histogram::ALL.iter().flat_map(|h| h.cells());
        cells.extend(histograms.map(HistogramCell::cell));
        let count = cells.len();
        cells.sort_unstable();
        cells.dedup();
        assert_eq!(cells.len(), count);
        assert!(cells.iter().all(|&cell| cell < CELL_COUNT));
        assert!(
            Counter::ALL
                .iter()
                .all(|c| c.cell() < DropReason::CELL_BASE)
        );
        assert!(
            DropReason::ALL
                .iter()
                .all(|r| r.cell() < Histogram::CELL_BASE)
        );

        let mut names: Vec<_> = Counter::ALL.iter().map(|c| c.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Counter::ALL.len());
    }

    #[test]
    fn lists_are_in_index_order() {
        assert!(Counter::ALL.iter().enumerate().all(|(i, c)| c.cell() == i));
        assert!(
            DropReason::ALL
                .iter()
                .enumerate()
                .all(|(i, r)| *r as usize == i)
        );
        assert!(
            Histogram::ALL
                .iter()
                .enumerate()
                .all(|(i, h)| *h as usize == i)
        );
    }

    #[test]
    fn value_falls_into_the_bucket_whose_bound_it_does_not_exceed() {
        for histogram in Histogram::ALL {
            let bounds = histogram.bounds();
            assert!(bounds.is_sorted_by(|a, b| a < b));
            assert!(bounds.len() < Histogram::STRIDE - 1);
            assert_eq!(histogram.bucket_of(0), HistogramCell::Bucket(histogram, 0));
            for (index, &bound) in bounds.iter().enumerate() {
                assert_eq!(
                    histogram.bucket_of(bound),
                    HistogramCell::Bucket(histogram, index)
                );
                assert_eq!(
                    histogram.bucket_of(bound + 1),
                    HistogramCell::Bucket(histogram, index + 1)
                );
            }
            let above = HistogramCell::Bucket(histogram, bounds.len());
            assert_eq!(histogram.bucket_of(u64::MAX), above);
        }
    }
}
