//! One leg's audio on the recording's clock.
//!
//! A packet's place follows from its RTP timestamp, so the network's jitter does not reach the
//! file. What the timestamps claim is held against the time of arrival: the *lateness* of a packet
//! is how far behind its place it arrived. Over any second or two the smallest lateness is what the
//! network adds at least, and it should stay near zero; where it does not, the sender's clock runs
//! at another speed than ours, its timestamps jumped or stood still, or its audio was stalled. Small
//! deviations are undone by stretching or shortening frames, by one sample in a hundred while
//! somebody speaks and by much more in silence; large ones by a gap.

use trunkline_edge_api::{AudioFormat, MonoTime, Ssrc};

use super::TapeStats;
use super::reorder::{Order, PacketFacts, Reorder};
use crate::audio::SampleRate;
use crate::codec::Decoder;

/// Longest packet, milliseconds (RFC 7587 §4.2: 120).
const PACKET_MAX_MILLIS: u32 = 120;

/// How far audio may be ahead of the wall clock, milliseconds: what was stalled in the network
/// comes at once and is kept.
const AHEAD_MAX_MILLIS: u32 = 1_000;

/// Longest stretch of lost packets that is concealed, milliseconds; silence beyond.
const CONCEAL_MAX_MILLIS: u32 = 60;

/// Deviation of the smallest lateness that is left alone, milliseconds. Nobody notices that two
/// voices are apart by so much, and most calls never need a correction.
const TOLERANCE_MILLIS: i64 = 40;

/// Deviation from which on a gap is better than a stretch, milliseconds; and how far timestamps
/// may run ahead of time before they are not believed.
const JUMP_MILLIS: i64 = 200;

/// Packets and nanoseconds that the smallest lateness is taken over.
const WINDOW_PACKETS: u32 = 50;
const WINDOW_NANOS: u64 = 1_000_000_000;

/// Samples below this are silence that may be cut (-42 dBm0).
const SILENCE_PEAK: u16 = 256;

/// The audio of one leg between what is written and what has arrived.
#[derive(Debug)]
pub(super) struct Track {
    rate: SampleRate,
    reorder: Reorder,
    decoder: Option<(AudioFormat, Decoder)>,
    stream: Option<Stream>,
    /// Where the next sample goes if nothing is missing, samples into the file.
    cursor: u64,
    /// Samples from `taken` on, in a ring; silence where nothing was written.
    ring: Box<[i16]>,
    /// Samples that were fetched.
    taken: u64,
    /// What is silenced, samples into the file.
    silenced: std::ops::Range<u64>,
    window: Window,
    /// Gaps before packets that arrive until then are not concealed.
    gaps_until: MonoTime,
    /// Samples to put in (positive) or leave out (negative).
    slip: i64,
    scratch: Box<[i16]>,
    stretched: Box<[i16]>,
    pub(super) stats: TapeStats,
}

/// Where the timestamps of the stream that is being played stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stream {
    ssrc: Ssrc,
    clock_rate_hz: u32,
    /// Timestamp of the sample at the cursor.
    next_timestamp: u32,
}

/// The smallest lateness since `since`.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    since: MonoTime,
    packets: u32,
    lateness_min: i64,
}

impl Track {
    pub(super) fn new(rate: SampleRate) -> Self {
        let held = super::HOLD_BACK + AHEAD_MAX_MILLIS + PACKET_MAX_MILLIS;
        let scratch = || vec![0; rate.samples(2 * PACKET_MAX_MILLIS)].into();
        Self {
            rate,
            reorder: Reorder::default(),
            decoder: None,
            stream: None,
            cursor: 0,
            ring: vec![0; rate.samples(held)].into(),
            taken: 0,
            silenced: 0..0,
            window: Window::default(),
            gaps_until: MonoTime(0),
            slip: 0,
            scratch: scratch(),
            stretched: scratch(),
            stats: TapeStats::default(),
        }
    }

    /// Takes a packet.
    pub(super) fn handle_packet(&mut self, facts: PacketFacts, payload: &[u8]) {
        self.stats.packets += 1;
        match self.reorder.judge(&facts) {
            Order::Next => self.play(&facts, payload, 0),
            Order::Early => self.reorder.hold(facts, payload),
            Order::Late => self.stats.late_packets += 1,
            Order::Restart => {
                self.release(MonoTime(u64::MAX));
                self.reorder.restart(&facts);
                self.play(&facts, payload, 0);
            }
        }
        self.release(facts.arrival);
    }

    /// Plays what waits for packets that will not come any more.
    pub(super) fn release(&mut self, now: MonoTime) {
        while let Some((facts, payload, missing)) = self.reorder.release(now) {
            self.stats.missing_packets += u64::from(missing);
            self.play(&facts, &payload, missing);
            self.reorder.recycle(payload);
        }
    }

    /// Does not conceal what is missing before packets that arrive until `until`.
    pub(super) fn leave_gaps_until(&mut self, until: MonoTime) {
        self.gaps_until = until;
    }

    /// What comes after a pause has nothing to do with what came before it.
    pub(super) fn interrupt(&mut self) {
        self.release(MonoTime(u64::MAX));
        self.reorder.forget();
        self.stream = None;
        self.window = Window::default();
    }

    /// Silences `range`, as far as it is not fetched yet.
    pub(super) fn silence(&mut self, range: std::ops::Range<u64>) {
        self.silenced = range;
        let to = self.silenced.end.min(self.taken + self.ring.len() as u64);
        for position in self.silenced.start.max(self.taken)..to {
            let at = self.at(position);
            self.ring[at] = 0;
        }
    }

    /// Where the audio that has come ends, samples into the file.
    pub(super) fn end(&self) -> u64 {
        self.cursor
    }

    /// Hands out the sample at the front, and makes room behind.
    #[inline]
    pub(super) fn take(&mut self) -> i16 {
        let at = self.at(self.taken);
        self.taken += 1;
        std::mem::take(&mut self.ring[at])
    }

    fn at(&self, position: u64) -> usize {
        (position % self.ring.len() as u64) as usize
    }

    fn play(&mut self, facts: &PacketFacts, payload: &[u8], missing: u16) {
        let Some(format) = facts.format else {
            return;
        };
        let Some(decoder) = self.decoder_for(&format) else {
            self.stats.bad_packets += 1;
            return;
        };
        let duration = decoder.duration(payload);
        let start = self.place(facts, &format, missing);
        let Some((_, decoder)) = &mut self.decoder else {
            return;
        };
        let Ok(decoded) = decoder.decode(payload, &mut self.scratch) else {
            self.stats.bad_packets += 1;
            return;
        };
        self.stream = Some(Stream {
            ssrc: facts.ssrc,
            clock_rate_hz: format.clock_rate.get(),
            next_timestamp: facts.timestamp.wrapping_add(duration),
        });
        self.observe(facts.arrival, facts.position as i64 - start as i64);
        let len = self.stretch(decoded);
        self.cursor = start;
        if start + len as u64 > self.taken + self.ring.len() as u64 {
            self.stats.surplus_packets += 1;
            return;
        }
        self.cursor += len as u64;
        for index in 0..len {
            self.put(start + index as u64, self.stretched[index]);
        }
        // All that comes is late by so much: a gap, once, brings it to its place.
        if self.slip > self.jump() {
            self.cursor += self.slip as u64;
            self.slip = 0;
        }
    }

    fn jump(&self) -> i64 {
        JUMP_MILLIS * i64::from(self.rate.hz()) / 1_000
    }

    /// The decoder of `format`, made anew when the leg changed it.
    fn decoder_for(&mut self, format: &AudioFormat) -> Option<&mut Decoder> {
        if self.decoder.as_ref().is_none_or(|(of, _)| of != format) {
            let decoder = Decoder::new(format, self.rate).ok()?;
            self.decoder = Some((*format, decoder));
        }
        self.decoder.as_mut().map(|(_, decoder)| decoder)
    }

    /// Where a packet's audio begins, samples into the file. Conceals what is lost before it.
    fn place(&mut self, facts: &PacketFacts, format: &AudioFormat, missing: u16) -> u64 {
        let rate = i64::from(self.rate.hz());
        let jump = self.jump();
        let late = facts.position as i64 - self.cursor as i64;
        let clock_rate_hz = format.clock_rate.get();
        let start = match self.stream {
            Some(stream) if (stream.ssrc, stream.clock_rate_hz) == (facts.ssrc, clock_rate_hz) => {
                let units = facts.timestamp.wrapping_sub(stream.next_timestamp) as i32;
                let gap = i64::from(units) * rate / i64::from(clock_rate_hz);
                if (0..=late.max(0) + jump).contains(&gap) {
                    if missing > 0 && facts.arrival > self.gaps_until {
                        self.conceal(gap as u64);
                    }
                    self.cursor + gap as u64
                } else if late > jump {
                    // The timestamps jumped, and time has passed.
                    facts.position
                } else {
                    self.cursor
                }
            }
            _ => facts.position.max(self.cursor),
        };
        if start < self.taken {
            // Its place was written. Timestamps that stood still in a silence look like this, and
            // a network that stalled; the time of arrival is right for the one and keeps the
            // audio of the other.
            return facts.position.max(self.taken);
        }
        start
    }

    /// Fills the first part of a gap of `gap` samples with what the decoder makes of its past.
    fn conceal(&mut self, gap: u64) {
        let Some((_, decoder)) = &mut self.decoder else {
            return;
        };
        let len = self.rate.samples(CONCEAL_MAX_MILLIS).min(gap as usize);
        decoder.conceal(&mut self.scratch[..len]);
        let from = self.cursor;
        for index in 0..len {
            let position = from + index as u64;
            if position >= self.taken && position < self.taken + self.ring.len() as u64 {
                self.put(position, self.scratch[index]);
            }
        }
    }

    fn put(&mut self, position: u64, sample: i16) {
        if !self.silenced.contains(&position) {
            let at = self.at(position);
            self.ring[at] = sample;
        }
    }

    /// Watches the smallest lateness, and decides what is to be put in or left out.
    fn observe(&mut self, arrival: MonoTime, lateness: i64) {
        let window = &mut self.window;
        if window.packets == 0 {
            *window = Window {
                since: arrival,
                packets: 0,
                lateness_min: lateness,
            };
        }
        window.packets += 1;
        window.lateness_min = window.lateness_min.min(lateness);
        if window.packets < WINDOW_PACKETS || arrival.nanos_since(window.since) < WINDOW_NANOS {
            return;
        }
        let smallest = window.lateness_min;
        window.packets = 0;
        let millis = i64::from(self.rate.hz()) / 1_000;
        self.slip = if smallest.abs() > TOLERANCE_MILLIS * millis {
            smallest
        } else {
            0
        };
    }

    /// Copies the decoded frame to `stretched`, longer or shorter by a part of what is to be put
    /// in or left out; its length then.
    fn stretch(&mut self, len: usize) -> usize {
        let frame = &self.scratch[..len];
        let is_silent = frame
            .iter()
            .all(|sample| sample.unsigned_abs() < SILENCE_PEAK);
        let most = match (is_silent, self.slip.abs() > self.jump()) {
            (true, _) => len / 2,
            (false, true) => len / 16,
            (false, false) => len / 100,
        };
        let slip = self.slip.clamp(-(most as i64), most as i64);
        self.slip -= slip;
        let wanted = (len as i64 + slip) as usize;
        if slip == 0 || wanted < 2 {
            self.stretched[..len].copy_from_slice(frame);
            return len;
        }
        // Linear interpolation: at one sample in a hundred nobody hears the difference.
        for (index, out) in self.stretched[..wanted].iter_mut().enumerate() {
            let exact = (index * (len - 1)) as f32 / (wanted - 1) as f32;
            let before = exact as usize;
            let share = exact - before as f32;
            let after = frame[(before + 1).min(len - 1)];
            *out = (f32::from(frame[before]) * (1.0 - share) + f32::from(after) * share) as i16;
        }
        wanted
    }
}
