//! From the packets of one format to the packets of another, as they come.
//!
//! Nothing is held back to be put in order: a packet is decoded when it arrives, and what is
//! complete of the other side's packet time leaves at once. Only a remainder shorter than one
//! packet waits, when the packet times differ:
//!
//! ```text
//!   in   30 ms |-----A-----|-----B-----|          PCMU, 8 kHz clock      0    240
//!   out  20 ms     |---1---|---2---|---3---|      Opus, 48 kHz clock     0    960  1920
//!                          A       B, B
//! ```
//!
//! Time is counted in samples from the first packet on, and every timestamp is computed from that
//! count: 8 kHz and 48 kHz stay in step for as long as a call lasts.
//!
//! | what comes | what happens |
//! |---|---|
//! | the next sequence number and timestamp | decoded behind what is there |
//! | a hole in both | concealed, up to [`CONCEALED_MILLIS_MAX`]; beyond, time jumps (marker set) |
//! | a later timestamp, no packet lost | the sender was silent (DTX): time jumps, marker set |
//! | an earlier timestamp, or half the clock away | the sender set its clock anew: audio goes on |
//! | a number that was passed already | dropped: its time was concealed, or it came before |
//! | a number far off, or two in a row from another time | the sender restarted: audio goes on |
//! | a bad payload | counted; its time is concealed when the next packet tells how long it was |
//! | comfort noise, or the mark of Opus that silence follows | told to the receiver, see [`noise`]; then as above |
//! | a packet that is to be skipped | its time passes, and so does what waited for the rest of a packet |

use trunkline_edge_api::audio::{AudioCodec, AudioFormat};

use super::{Decoder, Encoder, PACKET_MILLIS_MAX, UnsupportedFormat};
use crate::audio::SampleRate;

mod noise;
#[cfg(test)]
mod tests;

use noise::Silence;

/// Longest stretch that is made up for lost packets: what concealment can do before it is silent.
pub const CONCEALED_MILLIS_MAX: u32 = 60;
/// What waits for the rest of a packet is shorter than the longest packet time.
const REMAINDER_MILLIS_MAX: u32 = 60;
/// A packet at most this far behind the newest is late; further behind, the sender has restarted
/// its numbering (MAX_MISORDER of RFC 3550 A.1).
const MISORDER_MIN: i16 = -100;
/// A packet further ahead than this follows no loss: the sender has restarted (MAX_DROPOUT of
/// RFC 3550 A.1).
const DROPOUT_MAX: i16 = 3_000;
/// How far back the timestamp of a late packet lies at most: 100 packets of 60 ms.
const LATE_SECS: u32 = 6;
/// Timestamps that differ from the expected by less than this are as expected: senders round.
const SLACK_MILLIS: u32 = 1;

/// A packet that left the transcoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodedPacket {
    /// Length of the payload.
    pub len: usize,
    /// In the target's RTP clock. The first one is arbitrary, from there on it is exact.
    pub timestamp: u32,
    /// The first packet, or the first after time that was not sent (RFC 3551 §4.1).
    pub marker: bool,
    /// It describes silence (RFC 3389) and is no audio of the target's format.
    pub is_comfort_noise: bool,
}

/// What a transcoder met, since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TranscodeCounters {
    /// Packets that were decoded.
    pub decoded: u64,
    /// Packets that were encoded.
    pub encoded: u64,
    /// Payloads that did not decode.
    pub bad_frames: u64,
    /// Packets that came twice or too late.
    pub late: u64,
    /// Milliseconds that were made up for what did not come.
    pub concealed_millis: u64,
    /// Times that the sender set its sequence or its clock anew.
    pub restarts: u64,
    /// Complete packets that nobody asked for before the next one came, or that found no room.
    pub dropped: u64,
}

/// One direction of a call between two formats. See the module's table for what it makes of
/// packets; after each [`Self::handle_packet`], call [`Self::poll_packet`] until it has no more.
///
/// It holds 300 ms of samples beside its decoder and encoder: 5 KB at 8 kHz, 29 KB at 48 kHz.
#[derive(Debug)]
pub struct Transcoder {
    decoder: Decoder,
    encoder: Encoder,
    rate: SampleRate,
    source_codec: AudioCodec,
    source_clock_hz: u32,
    target_clock_hz: u32,
    silence: Silence,
    /// Samples that no packet has taken yet, oldest first.
    pending: Box<[i16]>,
    pending_len: usize,
    /// Where `pending` begins, in samples since the first packet, modulo 2^64.
    position: u64,
    /// Time that nothing is sent for, behind what is complete.
    jump: Option<Jump>,
    source: Option<Source>,
    /// The target's timestamp at position 0, once there is one.
    first_timestamp: Option<u32>,
    marker: bool,
    counters: TranscodeCounters,
}

/// A hole in time between samples that lie side by side.
#[derive(Debug, Clone, Copy)]
struct Jump {
    /// How many pending samples come before it: whole packets.
    behind: usize,
    samples: u64,
}

/// Where the sender stands.
#[derive(Debug, Clone, Copy)]
struct Source {
    newest_sequence: u16,
    newest_timestamp: u32,
    /// `newest_timestamp` without its wraps, counted from `anchor`.
    elapsed: u64,
    /// The position that belongs to `elapsed == 0`.
    anchor: u64,
    /// Something of the time before the next packet was lost.
    loss: bool,
    /// What follows a packet that was out of sequence, if the sender has restarted there.
    restart_at: Option<u16>,
}

/// What a packet's numbers say of it.
enum Order {
    Next,
    AfterLoss,
    Late,
    /// Late, or the first of a sender that restarted: the next one tells.
    Doubtful,
    Restart,
}

impl Source {
    fn order(&self, sequence: u16, timestamp: u32, clock_hz: u32) -> Order {
        match sequence.wrapping_sub(self.newest_sequence) as i16 {
            1 => Order::Next,
            2..=DROPOUT_MAX => Order::AfterLoss,
            MISORDER_MIN..=0 => {
                let behind = self.newest_timestamp.wrapping_sub(timestamp);
                if behind <= LATE_SECS * clock_hz {
                    Order::Late
                } else if self.restart_at == Some(sequence) {
                    Order::Restart
                } else {
                    Order::Doubtful
                }
            }
            _ => Order::Restart,
        }
    }
}

impl Transcoder {
    /// From packets of `from` to packets of `to`.
    ///
    /// # Errors
    /// One of the formats is not one of this build.
    pub fn new(from: &AudioFormat, to: &AudioFormat) -> Result<Self, UnsupportedFormat> {
        let rate = source_rate(from).min(target_rate(to));
        let decoder = Decoder::new(from, rate)?;
        let encoder = Encoder::new(to, rate)?;
        // A remainder, a concealed gap, its filling up and the longest packet.
        let millis = PACKET_MILLIS_MAX + 2 * REMAINDER_MILLIS_MAX + CONCEALED_MILLIS_MAX;
        Ok(Self {
            decoder,
            encoder,
            rate,
            source_codec: from.codec,
            source_clock_hz: from.clock_rate.get(),
            silence: Silence::heard_at(rate),
            target_clock_hz: to.clock_rate.get(),
            pending: vec![0; rate.samples(millis)].into_boxed_slice(),
            pending_len: 0,
            position: 0,
            jump: None,
            source: None,
            first_timestamp: None,
            marker: true,
            counters: TranscodeCounters::default(),
        })
    }

    /// The rate between decoder and encoder.
    #[must_use]
    pub fn rate(&self) -> SampleRate {
        self.rate
    }

    /// What it met.
    #[must_use]
    pub fn counters(&self) -> TranscodeCounters {
        self.counters
    }

    /// So many percent of what it makes will be lost; see [`Encoder::set_expected_loss`].
    pub fn set_expected_loss(&mut self, percent: u8) {
        self.encoder.set_expected_loss(percent);
    }

    /// From now on packets are of another format of the same sender. Time goes on.
    ///
    /// # Errors
    /// The format is not one of this build; the old one stays.
    pub fn replace_source_format(&mut self, from: &AudioFormat) -> Result<(), UnsupportedFormat> {
        self.decoder = Decoder::new(from, self.rate)?;
        self.source_codec = from.codec;
        if from.clock_rate.get() != self.source_clock_hz {
            self.source_clock_hz = from.clock_rate.get();
            self.handle_source_change();
        }
        Ok(())
    }

    /// The next packet comes from another source (a new SSRC): it follows what was sent so far
    /// without a gap.
    pub fn handle_source_change(&mut self) {
        self.source = None;
    }

    /// A packet of the stream that carries nothing to decode: a telephone event. Its number is not missed afterwards, and the time up to the next audio is silence.
    pub fn handle_other_packet(&mut self, sequence: u16, timestamp: u32) {
        if let Some(source) = &mut self.source {
            match source.order(sequence, timestamp, self.source_clock_hz) {
                Order::Next => source.newest_sequence = sequence,
                Order::AfterLoss => {
                    source.newest_sequence = sequence;
                    source.loss = true;
                }
                Order::Late | Order::Doubtful | Order::Restart => {}
            }
        }
    }

    /// A packet whose audio is not wanted, because something else is sent in its time. What waited
    /// for the rest of its packet is dropped with it, time goes on, and nothing is made up for it.
    pub fn skip_packet(&mut self, sequence: u16, timestamp: u32) {
        self.position = self.end();
        self.pending_len = 0;
        self.jump = None;
        self.marker = true;
        let Some(mut source) = self.source else {
            return;
        };
        match source.order(sequence, timestamp, self.source_clock_hz) {
            Order::Next | Order::AfterLoss => {
                source.newest_sequence = sequence;
                source.loss = false;
                let gap = self.advance(&mut source, timestamp);
                self.position = self.position.wrapping_add(gap);
                self.source = Some(source);
            }
            Order::Late | Order::Doubtful => {}
            Order::Restart => self.source = None,
        }
    }

    /// Takes the payload of the sender's packet `sequence` at `timestamp`.
    pub fn handle_packet(&mut self, sequence: u16, timestamp: u32, payload: &[u8]) {
        self.drop_complete_packets();
        let Some(mut source) = self.source else {
            self.begin(sequence, timestamp, payload);
            return;
        };
        match source.order(sequence, timestamp, self.source_clock_hz) {
            Order::Late => {
                self.counters.late += 1;
                return;
            }
            Order::Doubtful => {
                self.counters.late += 1;
                source.restart_at = Some(sequence.wrapping_add(1));
                self.source = Some(source);
                return;
            }
            Order::Restart => {
                self.counters.restarts += 1;
                self.begin(sequence, timestamp, payload);
                return;
            }
            Order::AfterLoss => source.loss = true,
            Order::Next => {}
        }
        source.newest_sequence = sequence;
        source.restart_at = None;
        if self.decoder.duration(payload) == 0 {
            self.counters.bad_frames += 1;
            source.loss = true;
        } else {
            self.go_to(&mut source, timestamp, payload);
            let is_good = if self.is_described_pause(payload) {
                self.describe_pause(payload)
            } else {
                self.decode(payload)
            };
            source.loss = !is_good;
        }
        self.source = Some(source);
    }

    /// Encodes the next packet that is complete into `out`, which has room for
    /// [`ENCODED_LEN_MAX`](super::ENCODED_LEN_MAX) bytes. `None` when none is.
    pub fn poll_packet(&mut self, out: &mut [u8]) -> Option<EncodedPacket> {
        let samples = self.encoder.packet_samples();
        while self.pending_len >= samples {
            let timestamp = self.timestamp_at(self.position);
            let encoded = self.encoder.encode(&self.pending[..samples], out);
            self.consume_packet();
            match encoded {
                Ok(0) => self.marker = true,
                Err(_) => self.counters.dropped += 1,
                Ok(len) => {
                    self.counters.encoded += 1;
                    let marker = std::mem::take(&mut self.marker);
                    // The jump behind this packet concerns the next one.
                    self.apply_jump();
                    return Some(EncodedPacket {
                        len,
                        timestamp,
                        marker,
                        is_comfort_noise: false,
                    });
                }
            }
            self.apply_jump();
        }
        self.poll_comfort_noise(out)
    }

    /// Where a timestamp of the sender lies in the target's clock: for what goes beside the audio,
    /// such as telephone events. `None` before the first packet.
    #[must_use]
    pub fn translate_timestamp(&self, timestamp: u32) -> Option<u32> {
        let source = self.source?;
        let ahead = i64::from(timestamp.wrapping_sub(source.newest_timestamp) as i32);
        let elapsed = source.elapsed.checked_add_signed(ahead)?;
        Some(self.timestamp_at(self.position_of(&source, elapsed)))
    }

    /// The first packet of a source; audio goes on where it ended.
    fn begin(&mut self, sequence: u16, timestamp: u32, payload: &[u8]) {
        self.first_timestamp.get_or_insert(timestamp);
        let anchor = self.end();
        let decoded = self.decode(payload);
        self.source = Some(Source {
            newest_sequence: sequence,
            newest_timestamp: timestamp,
            elapsed: 0,
            anchor,
            loss: !decoded,
            restart_at: None,
        });
    }

    /// Brings the end of what is pending to where the packet at `timestamp` begins.
    fn go_to(&mut self, source: &mut Source, timestamp: u32, payload: &[u8]) {
        match self.advance(source, timestamp) {
            0 => {}
            gap if source.loss => self.bridge_loss(gap, payload),
            gap => self.bridge_silence(gap),
        }
    }

    /// Takes note of the sender's time and returns how many samples lie between the end of what is
    /// pending and the packet at `timestamp`.
    fn advance(&mut self, source: &mut Source, timestamp: u32) -> u64 {
        let ahead = i64::from(timestamp.wrapping_sub(source.newest_timestamp) as i32);
        source.newest_timestamp = timestamp;
        let slack = self.rate.samples(SLACK_MILLIS) as i64;
        let end = self.end();
        if let Some(elapsed) = source.elapsed.checked_add_signed(ahead) {
            let gap = self.position_of(source, elapsed).wrapping_sub(end) as i64;
            if gap > -slack {
                source.elapsed = elapsed;
                return if gap >= slack { gap as u64 } else { 0 };
            }
        }
        // Back in time: the sender's clock begins anew here.
        self.counters.restarts += 1;
        source.elapsed = 0;
        source.anchor = end;
        0
    }

    /// Makes up for `gap` samples that were lost before the packet with `payload`, which may
    /// describe the one before itself (Opus in-band FEC).
    fn bridge_loss(&mut self, gap: u64, payload: &[u8]) {
        let longest = self.rate.samples(CONCEALED_MILLIS_MAX);
        if gap <= longest as u64 {
            self.conceal(gap as usize, Some(payload));
        } else {
            self.conceal(longest, None);
            self.bridge_silence(gap - longest as u64);
        }
    }

    /// Nothing was sent for `gap` samples: what waits for the rest of its packet gets it, and time
    /// jumps over what is left.
    fn bridge_silence(&mut self, gap: u64) {
        let packet = self.encoder.packet_samples();
        let missing = (packet - self.pending_len % packet) % packet;
        if gap < missing as u64 {
            self.conceal(gap as usize, None);
            return;
        }
        self.conceal(missing, None);
        self.jump = Some(Jump {
            behind: self.pending_len,
            samples: gap - missing as u64,
        });
        self.apply_jump();
    }

    fn conceal(&mut self, len: usize, next: Option<&[u8]>) {
        let room = &mut self.pending[self.pending_len..];
        let len = len.min(room.len());
        match next {
            Some(payload) => self.decoder.recover(payload, &mut room[..len]),
            None => self.decoder.conceal(&mut room[..len]),
        }
        self.pending_len += len;
        self.counters.concealed_millis += len as u64 * 1_000 / u64::from(self.rate.hz());
    }

    /// Whether `payload` was one.
    fn decode(&mut self, payload: &[u8]) -> bool {
        let room = &mut self.pending[self.pending_len..];
        match self.decoder.decode(payload, room) {
            Ok(len) => {
                self.pending_len += len;
                self.counters.decoded += 1;
                true
            }
            Err(_) => {
                self.counters.bad_frames += 1;
                false
            }
        }
    }

    /// A caller that does not poll loses packets, not memory.
    fn drop_complete_packets(&mut self) {
        self.forget_comfort_noise();
        while self.pending_len >= self.encoder.packet_samples() {
            self.consume_packet();
            self.apply_jump();
            self.counters.dropped += 1;
            self.marker = true;
        }
    }

    fn consume_packet(&mut self) {
        let samples = self.encoder.packet_samples();
        self.pending.copy_within(samples..self.pending_len, 0);
        self.pending_len -= samples;
        self.position = self.position.wrapping_add(samples as u64);
        if let Some(jump) = &mut self.jump {
            jump.behind -= samples;
        }
    }

    /// Makes the jump once everything before it has left.
    fn apply_jump(&mut self) {
        if let Some(Jump { behind: 0, samples }) = self.jump {
            self.position = self.position.wrapping_add(samples);
            self.marker |= samples > 0;
            self.jump = None;
        }
    }

    /// Where the next sample goes.
    fn end(&self) -> u64 {
        self.position
            .wrapping_add(self.pending_len as u64)
            .wrapping_add(self.jump.map_or(0, |jump| jump.samples))
    }

    /// The position of what the source sends `elapsed` units after its anchor.
    fn position_of(&self, source: &Source, elapsed: u64) -> u64 {
        source
            .anchor
            .wrapping_add(convert(elapsed, self.source_clock_hz, self.rate.hz()))
    }

    fn timestamp_at(&self, position: u64) -> u32 {
        let units = convert(position, self.rate.hz(), self.target_clock_hz);
        self.first_timestamp.unwrap_or(0).wrapping_add(units as u32)
    }
}

/// From one clock to another. Of any two that formats have here one is a multiple of the other, so
/// nothing is rounded away towards the faster one, and wrapping multiplication keeps differences.
fn convert(time: u64, from_hz: u32, to_hz: u32) -> u64 {
    if to_hz >= from_hz {
        time.wrapping_mul(u64::from(to_hz / from_hz))
    } else {
        time / u64::from(from_hz / to_hz)
    }
}

/// What a sender's audio can hold.
fn source_rate(format: &AudioFormat) -> SampleRate {
    match format.codec {
        AudioCodec::Pcmu | AudioCodec::Pcma => SampleRate::Hz8000,
        AudioCodec::G722 => SampleRate::Hz16000,
        AudioCodec::L16 | AudioCodec::Opus => {
            SampleRate::from_hz(format.clock_rate.get()).unwrap_or(SampleRate::MAX)
        }
    }
}

/// What a receiver makes use of.
fn target_rate(format: &AudioFormat) -> SampleRate {
    match (format.codec, format.opus.playback_rate_max_hz) {
        (AudioCodec::Opus, ..=8_000) => SampleRate::Hz8000,
        (AudioCodec::Opus, ..=16_000) => SampleRate::Hz16000,
        _ => source_rate(format),
    }
}
