//! Recordings: tapped packets in, the bytes of a file out.
//!
//! ```text
//!   packet -> order by sequence -> decode, conceal -> place on the wall clock -> mix -> bytes
//!                                                       (held back half a second)
//! ```
//!
//! A [`Tape`] is one recording. The recorder thread gives it packets in the order of their arrival
//! and the time in between, and writes what [`Tape::poll_write`] hands out, one write at a time.
//! The file lasts as long as the recording did, whatever the legs sent: a leg that is silent, late
//! or absent is silence in it, and a pause takes no time. A sender whose clock is off is brought
//! back by leaving out or repeating single samples ([`track`](self) says when).
//!
//! **Valid at every moment.** Audio is written first and the header's sizes afterwards, every
//! second, so a process that dies leaves a file that plays up to there. The header names the
//! recording, so that a recorder that starts again may go on in the same file ([`Tape::resume`]).
//!
//! **Hidden digits.** What arrives is held back for [`HOLD_BACK`] milliseconds before it becomes
//! bytes. A digit is recognised later than it begins; [`Tape::suppress`] silences it from its
//! beginning, and nothing of it was written.
//!
//! Left out: compressed formats, and WAV beyond 4 GiB ([`Tape::is_full`]: 18 hours of stereo at
//! 16 kHz).

use trunkline_edge_api::{
    AudioFormat, LegIndex, MonoTime, RecordingFormat, RecordingId, RecordingTracks,
};

use crate::audio::SampleRate;

mod output;
mod pcap;
mod reorder;
mod timeline;
mod track;
mod wav_tape;

pub use output::PENDING_LEN_MAX;
use pcap::PcapTape;
use wav_tape::WavTape;

/// How long what arrives can still be silenced, milliseconds. Tones are recognised within 60 ms of
/// their begin, and a telephone event starts at most some packets behind the tone it stands for.
pub const HOLD_BACK: u32 = 500;

/// How often the header is brought up to date, nanoseconds.
const HEADER_INTERVAL_NANOS: u64 = 1_000_000_000;

/// A packet as a leg's peer sent it, and what the leg knew of it.
#[derive(Debug, Clone, Copy)]
pub struct TappedPacket<'a> {
    /// When it arrived.
    pub arrival: MonoTime,
    /// The leg it arrived on.
    pub leg: LegIndex,
    /// How its payload is to be decoded; `None` for telephone events, comfort noise and whatever
    /// else is no audio that the edge decodes.
    pub format: Option<AudioFormat>,
    /// The RTP packet from its header on, decrypted.
    pub packet: &'a [u8],
}

/// What a tape is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TapeSpec {
    /// Which recording: written into the file.
    pub id: RecordingId,
    /// The form of the file.
    pub format: RecordingFormat,
    /// Whose audio.
    pub tracks: RecordingTracks,
    /// Whether it begins with a pause.
    pub paused: bool,
}

/// Figures of a tape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TapeStats {
    /// Packets that were given to it while it was not paused.
    pub packets: u64,
    /// Packets that came when their place in the sequence was given up, or twice.
    pub late_packets: u64,
    /// Packets that the network lost, by their sequence numbers.
    pub missing_packets: u64,
    /// Packets that could not be read: no RTP, or no frame of their codec.
    pub bad_packets: u64,
    /// Packets of a sender that sends faster than time passes.
    pub surplus_packets: u64,
    /// Packets' worth of audio that found no room because nobody fetched what was pending.
    pub overrun_packets: u64,
}

/// One recording.
#[derive(Debug)]
pub enum Tape {
    /// Audio.
    Wav(Box<WavTape>),
    /// Packets.
    Pcap(Box<PcapTape>),
}

impl Tape {
    /// A recording that begins at `now`. `wall_clock_nanos` is the same moment in nanoseconds
    /// since 1970, for formats that tell the time of day.
    #[must_use]
    pub fn new(spec: &TapeSpec, now: MonoTime, wall_clock_nanos: u64) -> Self {
        match spec.format {
            RecordingFormat::Wav8k => Self::wav(spec, SampleRate::Hz8000, now),
            RecordingFormat::Wav16k => Self::wav(spec, SampleRate::Hz16000, now),
            RecordingFormat::Pcap => {
                Self::Pcap(Box::new(PcapTape::new(spec, now, wall_clock_nanos)))
            }
        }
    }

    fn wav(spec: &TapeSpec, rate: SampleRate, now: MonoTime) -> Self {
        Self::Wav(Box::new(WavTape::new(spec, rate, now)))
    }

    /// Goes on in a file of `file_len` bytes that begins with `head` and was last written
    /// `idle_nanos` ago; that time becomes silence. `false`: it is no file of this recording, and
    /// nothing changed. Only before the first [`Self::poll_write`].
    #[must_use]
    pub fn resume(&mut self, head: &[u8], file_len: u64, idle_nanos: u64) -> bool {
        match self {
            Self::Wav(tape) => tape.resume(head, file_len, idle_nanos),
            Self::Pcap(_) => false,
        }
    }

    /// How much of a file [`Self::resume`] has to see, bytes.
    #[must_use]
    pub const fn resume_head_len() -> usize {
        output::WAV_HEADER_LEN
    }

    /// Takes a packet. Packets come in the order of their arrival.
    pub fn handle_packet(&mut self, packet: &TappedPacket<'_>) {
        match self {
            Self::Wav(tape) => tape.handle_packet(packet),
            Self::Pcap(tape) => tape.handle_packet(packet),
        }
    }

    /// Packets that arrived shortly before `now` were dropped on their way here. Their time becomes
    /// silence: to conceal it would take a recorder that is behind ten times as long as the packets.
    pub fn handle_drop(&mut self, now: MonoTime) {
        if let Self::Wav(tape) = self {
            tape.handle_drop(now);
        }
    }

    /// Pauses, or goes on. Saying it again changes nothing.
    pub fn pause(&mut self, now: MonoTime, paused: bool) {
        match self {
            Self::Wav(tape) => tape.pause(now, paused),
            Self::Pcap(tape) => tape.pause(now, paused),
        }
    }

    /// Silences what arrived, or will arrive, on `leg` in `from..to`, and a little on both sides.
    /// Holds for what is younger than [`HOLD_BACK`].
    pub fn suppress(&mut self, leg: LegIndex, from: MonoTime, to: MonoTime) {
        match self {
            Self::Wav(tape) => tape.suppress(leg, from, to),
            Self::Pcap(tape) => tape.suppress(leg, from, to),
        }
    }

    /// Time has passed, and every packet that arrived before `now` was given.
    pub fn handle_timeout(&mut self, now: MonoTime) {
        match self {
            Self::Wav(tape) => tape.handle_timeout(now),
            Self::Pcap(tape) => tape.handle_timeout(now),
        }
    }

    /// The recording is over: everything that is held back is to be written, and the header.
    pub fn stop(&mut self, now: MonoTime) {
        match self {
            Self::Wav(tape) => tape.stop(now),
            Self::Pcap(tape) => tape.stop(now),
        }
    }

    /// Fills `buffer`, up to its capacity, with what is to be written next, and says at which
    /// offset; `None` when nothing is due. The next call comes after [`Self::handle_written`].
    #[must_use]
    pub fn poll_write(&mut self, buffer: &mut Vec<u8>) -> Option<u64> {
        buffer.clear();
        match self {
            Self::Wav(tape) => tape.poll_write(buffer),
            Self::Pcap(tape) => tape.poll_write(buffer),
        }
    }

    /// `len` bytes of the last [`Self::poll_write`] are in the file; fewer than it handed out
    /// when the disk took no more. [`Self::closing_header`] then says what the file is to claim.
    pub fn handle_written(&mut self, len: usize) {
        match self {
            Self::Wav(tape) => tape.handle_written(len),
            Self::Pcap(tape) => tape.handle_written(len),
        }
    }

    /// The header that fits what is in the file, to be written at offset 0 when the recording ends
    /// before its time; `None` where the file needs none.
    #[must_use]
    pub fn closing_header(&self) -> Option<Vec<u8>> {
        match self {
            Self::Wav(tape) => Some(tape.closing_header()),
            Self::Pcap(_) => None,
        }
    }

    /// Whether the file is as long as its format allows. Stop it; nothing more is taken.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Wav(tape) => tape.is_full(),
            Self::Pcap(_) => false,
        }
    }

    /// How much the file holds, milliseconds, by what was handed out.
    #[must_use]
    pub fn duration_millis(&self) -> u64 {
        match self {
            Self::Wav(tape) => tape.duration_millis(),
            Self::Pcap(tape) => tape.duration_millis(),
        }
    }

    /// Length of the file, bytes, by what was written.
    #[must_use]
    pub fn file_len(&self) -> u64 {
        match self {
            Self::Wav(tape) => tape.file_len(),
            Self::Pcap(tape) => tape.file_len(),
        }
    }

    /// Its figures.
    #[must_use]
    pub fn stats(&self) -> TapeStats {
        match self {
            Self::Wav(tape) => tape.stats(),
            Self::Pcap(tape) => tape.stats(),
        }
    }
}

#[cfg(test)]
mod tests;
