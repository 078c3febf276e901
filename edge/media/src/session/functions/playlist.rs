//! What is played, piece after piece: prompts, tones, silence, round after round.

use std::sync::Arc;

use trunkline_edge_api::{AudioFormat, PlaySource, Playback, PlaybackId, Refusal, Tone};

use crate::codec::Encoder;
use crate::prompt::EncodedPrompt;
use crate::tone::{self, ToneGenerator};

/// A playback and the prompts that it names, encoded in the format of
/// [`crate::MediaSession::playback_format`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedPlayback {
    /// What was asked for.
    pub playback: Playback,
    /// One for each [`PlaySource::Prompt`], in their order.
    pub prompts: Vec<Arc<EncodedPrompt>>,
    /// What there is of its tones, and of [`tone::silence`] for its silences, in any order. The
    /// playback makes itself what is missing, with an encoder of its own.
    pub tones: Vec<(Tone, Arc<EncodedPrompt>)>,
}

/// The payloads of a playback, one packet time each.
#[derive(Debug)]
pub(super) struct Playlist {
    id: PlaybackId,
    ends_on_digit: bool,
    /// Rounds left, the present one among them; `None`: without end.
    rounds_left: Option<u16>,
    items: Box<[Item]>,
    /// Index of the item that is played.
    item: usize,
    /// Packets of it that were played.
    played: usize,
    /// Packets of all items.
    packets: u64,
    packet_millis: u8,
    /// `None`: there is a payload for everything.
    maker: Option<Maker>,
}

#[derive(Debug)]
enum Item {
    /// Once from its first payload to its last.
    Encoded(Arc<EncodedPrompt>),
    Tone(Tone),
    Silence {
        packets: usize,
        /// Its payloads, round after round.
        payloads: Option<Arc<EncodedPrompt>>,
    },
}

impl Item {
    fn has_payloads(&self) -> bool {
        match self {
            Self::Encoded(_) => true,
            Self::Tone(_) => false,
            Self::Silence { payloads, .. } => payloads.is_some(),
        }
    }
}

/// Makes the packets that nobody has made before.
#[derive(Debug)]
struct Maker {
    encoder: Encoder,
    samples: Box<[i16]>,
    generator: Option<ToneGenerator>,
}

impl Playlist {
    pub(super) fn new(prepared: PreparedPlayback, format: &AudioFormat) -> Result<Self, Refusal> {
        let PreparedPlayback {
            playback,
            prompts,
            tones,
        } = prepared;
        let payloads_of = |tone: Tone| {
            let mut tones = tones.iter();
            tones.find_map(|(of, payloads)| (*of == tone).then(|| Arc::clone(payloads)))
        };
        let packet_millis = format.packet_time.millis();
        let mut prompts = prompts.into_iter();
        let items: Box<[Item]> = playback
            .sources
            .as_slice()
            .iter()
            .map(|source| match *source {
                PlaySource::Prompt(_) => prompts
                    .next()
                    .map(Item::Encoded)
                    .ok_or(Refusal::NoSuchPrompt),
                PlaySource::Tone(tone) => {
                    Ok(payloads_of(tone).map_or(Item::Tone(tone), Item::Encoded))
                }
                PlaySource::Silence { millis } => Ok(Item::Silence {
                    packets: millis.div_ceil(packet_millis.into()) as usize,
                    payloads: payloads_of(tone::silence()),
                }),
            })
            .collect::<Result<_, _>>()?;
        let maker = match items.iter().all(Item::has_payloads) {
            true => None,
            false => Some(Maker::new(format)?),
        };
        Ok(Self {
            id: playback.id,
            ends_on_digit: playback.ends_on_digit,
            rounds_left: (playback.rounds != 0).then_some(playback.rounds),
            items,
            item: 0,
            played: 0,
            packets: 0,
            packet_millis,
            maker,
        })
    }

    pub(super) fn id(&self) -> PlaybackId {
        self.id
    }

    pub(super) fn ends_on_digit(&self) -> bool {
        self.ends_on_digit
    }

    /// How much was played, milliseconds.
    pub(super) fn played_millis(&self) -> u64 {
        self.packets * u64::from(self.packet_millis)
    }

    /// Writes the next payload and returns its length; `None` when all is played.
    pub(super) fn next_payload(&mut self, out: &mut [u8]) -> Option<usize> {
        // A round of nothing but empty items is the last one, whatever was asked for.
        let mut empty_items = 0;
        loop {
            let Some(item) = self.items.get(self.item) else {
                self.begin_round()?;
                continue;
            };
            let payload = match item {
                Item::Encoded(encoded) => {
                    let payload = encoded.payload(self.played);
                    payload.map(|payload| copy(payload, out))
                }
                Item::Tone(tone) => {
                    let maker = self.maker.as_mut();
                    maker.and_then(|maker| maker.tone(tone, self.played == 0, out))
                }
                Item::Silence { packets, .. } if self.played >= *packets => None,
                Item::Silence {
                    payloads: Some(payloads),
                    ..
                } => {
                    let at = self.played % payloads.packet_count().max(1);
                    payloads.payload(at).map(|payload| copy(payload, out))
                }
                Item::Silence { payloads: None, .. } => {
                    let maker = self.maker.as_mut();
                    maker.map(|maker| maker.silence(out))
                }
            };
            if let Some(len) = payload {
                self.played += 1;
                self.packets += 1;
                return Some(len);
            }
            empty_items = if self.played == 0 { empty_items + 1 } else { 0 };
            if empty_items > self.items.len() {
                return None;
            }
            self.item += 1;
            self.played = 0;
        }
    }

    fn begin_round(&mut self) -> Option<()> {
        if let Some(left) = &mut self.rounds_left {
            *left = left.checked_sub(1).filter(|left| *left != 0)?;
        }
        self.item = 0;
        self.played = 0;
        Some(())
    }
}

fn copy(payload: &[u8], out: &mut [u8]) -> usize {
    let len = payload.len().min(out.len());
    out[..len].copy_from_slice(&payload[..len]);
    len
}

impl Maker {
    fn new(format: &AudioFormat) -> Result<Self, Refusal> {
        let unsupported = |_| Refusal::FormatUnsupported;
        let encoder = Encoder::new(format, tone::rate_for(format)).map_err(unsupported)?;
        Ok(Self {
            samples: vec![0; encoder.packet_samples()].into(),
            encoder,
            generator: None,
        })
    }

    /// One packet of a tone's single pass; what the tone leaves of the last is silent.
    fn tone(&mut self, tone: &Tone, begins: bool, out: &mut [u8]) -> Option<usize> {
        let rate = self.encoder.rate();
        let generator = self
            .generator
            .get_or_insert_with(|| ToneGenerator::new(tone, rate));
        if begins {
            *generator = ToneGenerator::new(tone, rate);
        }
        let len = generator.fill(&mut self.samples);
        if len == 0 {
            return None;
        }
        self.samples[len..].fill(0);
        Some(self.encode(out))
    }

    fn silence(&mut self, out: &mut [u8]) -> usize {
        self.samples.fill(0);
        self.encode(out)
    }

    fn encode(&mut self, out: &mut [u8]) -> usize {
        // The encoder was made for this length; one that failed would leave a gap, no more.
        self.encoder.encode(&self.samples, out).unwrap_or(0)
    }
}
