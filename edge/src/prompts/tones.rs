//! Tones as payloads, made once for each format and shared like those of prompts: an encoder for
//! each session that hears ringback would cost more than the call behind it.
//!
//! Nobody loads a tone or forgets it. The helper keeps what was asked for until its shelf is full,
//! and begins anew then: a system has a dozen tones in a few formats, so this happens to those
//! alone who invent tones.

use std::sync::Arc;

use trunkline_edge_api::{AudioCodec, AudioFormat, Refusal, Tone};
use trunkline_media::prompt::{EncodedPrompt, PromptFormat};

use super::Payloads;

/// Most tones on the shelf, each format counted.
pub(super) const TONES_MAX: usize = 64;

/// Most memory of the tones on the shelf, bytes: each of [`TONES_MAX`] may last a minute in G.711.
pub(super) const BYTES_MAX: u64 = 32 << 20;

/// The longest pass that is kept, milliseconds: a tone without pauses is one of a minute.
const MILLIS_MAX: u64 = 65_535;

/// Whether payloads of `tone` for `format` are kept at all. Samples as they are cost nothing to
/// make and much to keep.
pub(super) fn is_kept(tone: &Tone, format: &AudioFormat) -> bool {
    if format.codec == AudioCodec::L16 {
        return false;
    }
    let segments = tone.segments().iter();
    let millis =
        segments.map(|segment| u64::from(segment.on_millis) + u64::from(segment.off_millis));
    millis.sum::<u64>() <= MILLIS_MAX
}

/// A tone in a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ToneKey {
    pub(super) tone: Tone,
    pub(super) format: PromptFormat,
}

/// What a worker has of them.
#[derive(Debug, Default)]
pub(super) struct KnownTones {
    entries: Vec<(ToneKey, Payloads)>,
}

impl KnownTones {
    /// What became of the payloads; `None` when they were never asked for. A refusal is told once.
    pub(super) fn look_up(&mut self, key: &ToneKey) -> Option<Payloads> {
        let at = self.entries.iter().position(|(known, _)| known == key)?;
        Some(match &self.entries[at].1 {
            Payloads::Refused(_) => self.entries.swap_remove(at).1,
            payloads => payloads.clone(),
        })
    }

    pub(super) fn set(&mut self, key: ToneKey, payloads: Payloads) {
        self.entries.retain(|(known, _)| *known != key);
        self.entries.push((key, payloads));
    }

    /// The shelf was emptied; what is still to come is on the new one.
    pub(super) fn forget(&mut self) {
        self.entries
            .retain(|(_, payloads)| matches!(payloads, Payloads::Pending));
    }
}

/// What the helper has of them.
#[derive(Debug, Default)]
pub(super) struct ToneShelf {
    tones: Vec<(ToneKey, Arc<EncodedPrompt>)>,
    /// Taken off the shelf, and perhaps played still.
    retired: Vec<Arc<EncodedPrompt>>,
}

/// What [`ToneShelf::fetch`] found.
pub(super) struct Fetched {
    pub(super) payloads: Arc<EncodedPrompt>,
    pub(super) is_new: bool,
    /// There was no room beside the others: workers are to forget what they know.
    pub(super) was_emptied: bool,
}

impl ToneShelf {
    /// The payloads of `tone` for `format`, made if they are not there. `room_bytes` is what they
    /// may take beside everything else that the helper keeps.
    pub(super) fn fetch(
        &mut self,
        tone: &Tone,
        format: &AudioFormat,
        room_bytes: u64,
    ) -> Result<Fetched, Refusal> {
        let key = ToneKey {
            tone: *tone,
            format: PromptFormat::of(format),
        };
        if let Some((_, payloads)) = self.tones.iter().find(|(known, _)| *known == key) {
            return Ok(Fetched {
                payloads: Arc::clone(payloads),
                is_new: false,
                was_emptied: false,
            });
        }
        let encoded = EncodedPrompt::of_tone(tone, format);
        let payloads = Arc::new(encoded.map_err(|_| Refusal::FormatUnsupported)?);
        let bytes = payloads.memory_bytes();
        if bytes > room_bytes || bytes > BYTES_MAX {
            return Err(Refusal::PromptCacheFull);
        }
        let was_emptied = self.tones.len() >= TONES_MAX || self.kept_bytes() + bytes > BYTES_MAX;
        if was_emptied {
            let tones = self.tones.drain(..).map(|(_, payloads)| payloads);
            self.retired.extend(tones);
        }
        self.tones.push((key, Arc::clone(&payloads)));
        Ok(Fetched {
            payloads,
            is_new: true,
            was_emptied,
        })
    }

    /// Gives back what nobody plays any more.
    pub(super) fn tidy(&mut self) {
        self.retired
            .retain(|payloads| Arc::strong_count(payloads) > 1);
    }

    fn kept_bytes(&self) -> u64 {
        let kept = self.tones.iter().map(|(_, payloads)| payloads);
        kept.map(|payloads| payloads.memory_bytes()).sum()
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        let retired = self.retired.iter();
        self.kept_bytes() + retired.map(|payloads| payloads.memory_bytes()).sum::<u64>()
    }
}
