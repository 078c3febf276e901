//! Finding the audio in a WAV file: RIFF (Microsoft/IBM, 1991), `WAVEFORMATEX` and
//! `WAVE_FORMAT_EXTENSIBLE`.
//!
//! ```text
//!   "RIFF" size "WAVE" | "fmt " 16 … | "LIST" n … (pad) | "data" n samples … (pad) | anything
//! ```
//!
//! Files lie about their sizes: a program that wrote to a pipe could not go back and left 0 or a
//! huge number, one that was interrupted left what stood there before. So the RIFF size is not
//! believed at all, and a chunk's only as far as the file reaches. A `data` chunk of a size that
//! no program means reaches to the end of the file; one that promises more than is there is
//! refused, because half an announcement is worse than an error when it is loaded.

use super::PromptError;

/// `data` sizes from here on stand for "not known when the header was written": programs that
/// write to a pipe use 0x7fff_f000, 0x7fff_ffff, 0xffff_ffff and numbers close by.
const UNKNOWN_SIZE_MIN: u32 = 0x7fff_0000;

/// Chunks looked at before a file is given up. Real files have fewer than ten.
const CHUNKS_MAX: usize = 1_000;

/// `wFormatTag` values (RFC 2361).
const TAG_PCM: u16 = 0x0001;
const TAG_ALAW: u16 = 0x0006;
const TAG_MULAW: u16 = 0x0007;
const TAG_EXTENSIBLE: u16 = 0xfffe;

/// What follows the format tag in the GUID of an extensible format.
const GUID_TAIL: [u8; 14] = [
    0x00, 0x00, 0x00, 0x00, 0x10, 0x00, 0x80, 0x00, 0x00, 0xaa, 0x00, 0x38, 0x9b, 0x71,
];

/// How one sample of a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SampleCoding {
    /// Unsigned, 8 bits.
    Pcm8,
    /// Signed, little-endian.
    Pcm16,
    /// Signed, little-endian, packed in three bytes.
    Pcm24,
    Alaw,
    Mulaw,
}

impl SampleCoding {
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::Pcm8 | Self::Alaw | Self::Mulaw => 1,
            Self::Pcm16 => 2,
            Self::Pcm24 => 3,
        }
    }
}

/// The audio of a file, not decoded yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WavAudio<'a> {
    pub(super) coding: SampleCoding,
    /// 1 or 2, interleaved.
    pub(super) channels: u16,
    pub(super) sample_rate_hz: u32,
    /// Whole sample frames, at least one.
    pub(super) data: &'a [u8],
}

/// Finds format and audio of a WAV file.
///
/// # Errors
/// [`PromptError`]; its text says what to do about the file.
pub(super) fn parse(file: &[u8]) -> Result<WavAudio<'_>, PromptError> {
    match (file.get(0..4), file.get(8..12)) {
        (Some(b"RIFF"), Some(b"WAVE")) => {}
        _ => return Err(PromptError::NotWav),
    }
    let mut format = None;
    for chunk in (Chunks { rest: &file[12..] }).take(CHUNKS_MAX) {
        match &chunk.id {
            b"fmt " if format.is_none() => format = Some(Format::parse(chunk.present())?),
            b"data" => {
                let format = format.ok_or(PromptError::NoFormat)?;
                return format.audio(chunk.data(format.frame_len())?);
            }
            _ => {}
        }
    }
    Err(if format.is_none() {
        PromptError::NoFormat
    } else {
        PromptError::NoAudio
    })
}

/// A `fmt ` chunk that was understood.
#[derive(Debug, Clone, Copy)]
struct Format {
    coding: SampleCoding,
    channels: u16,
    sample_rate_hz: u32,
}

impl Format {
    fn parse(chunk: &[u8]) -> Result<Self, PromptError> {
        let short = |at: usize| -> Result<u16, PromptError> {
            let bytes = chunk.get(at..at + 2).ok_or(PromptError::NoFormat)?;
            Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
        };
        let mut tag = short(0)?;
        let channels = short(2)?;
        let sample_rate_hz = u32::from(short(4)?) | u32::from(short(6)?) << 16;
        let frame_len = short(12)?;
        let bits = short(14)?;
        if tag == TAG_EXTENSIBLE {
            // cbSize, valid bits, channel mask, then the format as a GUID.
            let guid = chunk.get(24..40).ok_or(PromptError::NoFormat)?;
            if guid[2..] != GUID_TAIL {
                return Err(PromptError::UnknownCoding { tag, bits });
            }
            tag = u16::from_le_bytes([guid[0], guid[1]]);
        }
        let coding = match (tag, bits) {
            (TAG_PCM, 8) => SampleCoding::Pcm8,
            (TAG_PCM, 16) => SampleCoding::Pcm16,
            (TAG_PCM, 24) => SampleCoding::Pcm24,
            (TAG_ALAW, 8) => SampleCoding::Alaw,
            (TAG_MULAW, 8) => SampleCoding::Mulaw,
            _ => return Err(PromptError::UnknownCoding { tag, bits }),
        };
        if !(1..=2).contains(&channels) {
            return Err(PromptError::Channels(channels));
        }
        let format = Self {
            coding,
            channels,
            sample_rate_hz,
        };
        if usize::from(frame_len) != format.frame_len() {
            return Err(PromptError::Contradiction {
                frame_len,
                expected: format.frame_len() as u16,
            });
        }
        Ok(format)
    }

    /// Bytes of one sample of each channel (`nBlockAlign`).
    const fn frame_len(self) -> usize {
        self.coding.bytes() * self.channels as usize
    }

    fn audio(self, data: &[u8]) -> Result<WavAudio<'_>, PromptError> {
        let whole = data.len() - data.len() % self.frame_len();
        if whole == 0 {
            return Err(PromptError::NoAudio);
        }
        Ok(WavAudio {
            coding: self.coding,
            channels: self.channels,
            sample_rate_hz: self.sample_rate_hz,
            data: &data[..whole],
        })
    }
}

/// One chunk, and whatever stands behind its header to the end of the file.
struct Chunk<'a> {
    id: [u8; 4],
    size: u32,
    rest: &'a [u8],
}

impl<'a> Chunk<'a> {
    /// As much of the chunk's body as the file has.
    fn present(&self) -> &'a [u8] {
        let len = usize::try_from(self.size).unwrap_or(usize::MAX);
        &self.rest[..len.min(self.rest.len())]
    }

    /// The body of a `data` chunk with samples of `frame_len` bytes.
    fn data(&self, frame_len: usize) -> Result<&'a [u8], PromptError> {
        let is_unknown = self.size >= UNKNOWN_SIZE_MIN
            || (self.size == 0 && self.rest.len() >= frame_len && !self.another_follows());
        let missing = (self.size as usize).saturating_sub(self.rest.len());
        if is_unknown {
            Ok(self.rest)
        } else if missing >= frame_len {
            Err(PromptError::CutShort {
                promised: self.size,
                present: self.rest.len(),
            })
        } else {
            Ok(self.present())
        }
    }

    /// Whether what stands behind an empty chunk is another chunk rather than audio.
    fn another_follows(&self) -> bool {
        Chunks { rest: self.rest }.next().is_some_and(|chunk| {
            let is_printable = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
            chunk.id.iter().all(is_printable) && chunk.size as usize <= chunk.rest.len()
        })
    }
}

/// The chunks of a RIFF body, in order; ends with the first whose header is cut.
struct Chunks<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    fn next(&mut self) -> Option<Chunk<'a>> {
        let (&header, rest) = self.rest.split_first_chunk::<8>()?;
        let [i0, i1, i2, i3, s0, s1, s2, s3] = header;
        let size = u32::from_le_bytes([s0, s1, s2, s3]);
        // A body of odd size has a byte of padding behind it.
        let padded = usize::try_from(u64::from(size) + u64::from(size & 1)).unwrap_or(usize::MAX);
        self.rest = rest.get(padded..).unwrap_or(&[]);
        Some(Chunk {
            id: [i0, i1, i2, i3],
            size,
            rest,
        })
    }
}
