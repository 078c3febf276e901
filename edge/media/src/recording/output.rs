//! What waits to be written, and the header of a WAV file.

use trunkline_edge_api::RecordingId;

/// Bytes of a recording that wait to be written at most: four seconds of stereo at 16 kHz, and
/// sixteen of mono at 8 kHz. What comes while that much waits is lost and counted.
pub const PENDING_LEN_MAX: usize = 256 * 1_024;

/// Length of the header, bytes: RIFF, `fmt `, a comment that names the recording, `data`.
pub(super) const WAV_HEADER_LEN: usize = 12 + 24 + COMMENT_CHUNK_LEN + 8;

/// `LIST` of `INFO` with one `ICMT`: a comment of 36 characters, which ends with NUL, and a byte that
/// makes its length even.
const COMMENT_CHUNK_LEN: usize = 8 + 4 + 8 + COMMENT_LEN;
const COMMENT_LEN: usize = 38;

/// Most bytes of audio that the header's 32-bit sizes can tell, whole frames for every form.
pub(super) const WAV_DATA_LEN_MAX: u64 = (u32::MAX as u64 - WAV_HEADER_LEN as u64) & !3;

/// The header of a WAV file of 16-bit linear samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WavHeader {
    pub(super) id: RecordingId,
    pub(super) channels: u16,
    pub(super) sample_rate_hz: u32,
    /// At most [`WAV_DATA_LEN_MAX`].
    pub(super) data_len: u64,
}

impl WavHeader {
    /// Bytes of one sample of each channel.
    pub(super) fn frame_len(self) -> u64 {
        u64::from(self.channels) * 2
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        let data_len = self.data_len.min(WAV_DATA_LEN_MAX) as u32;
        let frame_len = self.frame_len() as u16;
        let comment = format!("Trunkline recording {:016x}", self.id.0);
        let mut out = Vec::with_capacity(WAV_HEADER_LEN);
        out.extend_from_slice(b"RIFF");
        // Everything behind these eight bytes.
        let riff_len = data_len + (WAV_HEADER_LEN as u32 - 8);
        out.extend_from_slice(&riff_len.to_le_bytes());
        out.extend_from_slice(b"WAVEfmt ");
        out.extend_from_slice(&16u32.to_le_bytes());
        out.extend_from_slice(&1u16.to_le_bytes());
        out.extend_from_slice(&self.channels.to_le_bytes());
        out.extend_from_slice(&self.sample_rate_hz.to_le_bytes());
        let byte_rate = self.sample_rate_hz * u32::from(frame_len);
        out.extend_from_slice(&byte_rate.to_le_bytes());
        out.extend_from_slice(&frame_len.to_le_bytes());
        out.extend_from_slice(&16u16.to_le_bytes());
        out.extend_from_slice(b"LIST");
        out.extend_from_slice(&(COMMENT_CHUNK_LEN as u32 - 8).to_le_bytes());
        out.extend_from_slice(b"INFOICMT");
        out.extend_from_slice(&(COMMENT_LEN as u32).to_le_bytes());
        out.extend_from_slice(comment.as_bytes());
        out.resize(WAV_HEADER_LEN - 8, 0);
        out.extend_from_slice(b"data");
        out.extend_from_slice(&data_len.to_le_bytes());
        out
    }

    /// Whether `head` is a header of this recording in this form, whatever its sizes.
    pub(super) fn is_head_of(self, head: &[u8]) -> bool {
        let expected = self.to_bytes();
        head.len() >= WAV_HEADER_LEN
            && head[..4] == expected[..4]
            && head[8..WAV_HEADER_LEN - 4] == expected[8..WAV_HEADER_LEN - 4]
    }
}

/// Bytes on their way to the disk, at most [`PENDING_LEN_MAX`], and silence that is owed for what
/// found no room.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Bytes of silence before everything else.
    lead: u64,
    bytes: Vec<u8>,
    /// Bytes of `bytes` that were handed out.
    start: usize,
    /// Bytes of silence behind them.
    owed: u64,
}

impl Pending {
    pub(super) fn len(&self) -> u64 {
        self.lead + (self.bytes.len() - self.start) as u64 + self.owed
    }

    /// Puts `len` bytes of silence first; they take no memory.
    pub(super) fn begin_with_silence(&mut self, len: u64) {
        self.lead += len;
    }

    /// Adds the bytes of a frame; `false`: silence of that length stands in their place.
    #[inline]
    pub(super) fn push(&mut self, frame: &[u8]) -> bool {
        if self.owed > 0 || self.bytes.len() - self.start + frame.len() > PENDING_LEN_MAX {
            self.owed += frame.len() as u64;
            return false;
        }
        self.bytes.extend_from_slice(frame);
        true
    }

    /// Moves as much to `buffer` as it has room for.
    pub(super) fn fetch(&mut self, buffer: &mut Vec<u8>) {
        fill_with_silence(buffer, &mut self.lead);
        let waiting = &self.bytes[self.start..];
        let len = waiting.len().min(buffer.capacity() - buffer.len());
        buffer.extend_from_slice(&waiting[..len]);
        self.start += len;
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
            fill_with_silence(buffer, &mut self.owed);
        } else if self.start >= PENDING_LEN_MAX / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }
}

/// Moves up to `owed` bytes of silence to `buffer`, as far as it has room.
fn fill_with_silence(buffer: &mut Vec<u8>, owed: &mut u64) {
    let room = (buffer.capacity() - buffer.len()) as u64;
    let len = (*owed).min(room);
    buffer.resize(buffer.len() + len as usize, 0);
    *owed -= len;
}
