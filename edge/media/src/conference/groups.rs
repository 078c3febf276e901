//! One encoder for all who hear the same in the same format.

use trunkline_edge_api::{AudioCodec, AudioFormat, PacketTime};

use super::{Band, FRAME_MILLIS};
use crate::codec::{ENCODED_LEN_MAX, Encoder, SHARED_LOSS_PERCENT, UnsupportedFormat};

/// Packets of the shortest packet time, 10 ms, in a frame.
const PACKETS_MAX: usize = 2;

/// Index of a group of members that are sent the same payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupIndex(pub(super) u16);

/// What a group hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    Mix,
    /// The group is of deaf members.
    Nothing,
}

#[derive(Debug)]
struct Group {
    /// Under the payload type of whoever came first, which says nothing.
    format: AudioFormat,
    heard: Heard,
    band: Band,
    member_count: u16,
    /// Whether the next frame is to be encoded even if nobody asks for it.
    warms_up: bool,
    encoder: Encoder,
    payloads: Box<[u8]>,
    lens: [usize; PACKETS_MAX],
    is_encoded: bool,
}

impl Group {
    fn encode(&mut self, pcm: &[i16]) {
        self.is_encoded = true;
        self.lens = [0; PACKETS_MAX];
        let packets = pcm.chunks_exact(self.encoder.packet_samples());
        let rooms = self.payloads.chunks_exact_mut(ENCODED_LEN_MAX);
        for ((pcm, room), len) in packets.zip(rooms).zip(&mut self.lens) {
            // The encoder was made for this length and has the room it asks for; if a codec fails
            // inside, its group misses a packet.
            *len = self.encoder.encode(pcm, room).unwrap_or(0);
        }
    }
}

/// All groups of a conference. An index stays with its group as long as that has members.
#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: Vec<Option<Group>>,
    encoded_frames: u64,
}

/// How long a decoder suffers when its payloads come from another encoder of its codec all at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EncoderMemory {
    /// Not at all.
    None,
    /// A few frames, and hardly if the other encoder has heard the same before. Its encoder is worth
    /// sharing: Opus.
    Short,
    /// A tenth of a second, in which the error may be louder than the voice: the scale factors and
    /// predictors of G.722 adapt over frames.
    Long,
}

impl EncoderMemory {
    pub(super) fn of(codec: AudioCodec) -> Self {
        match codec {
            AudioCodec::Pcmu | AudioCodec::Pcma | AudioCodec::L16 => Self::None,
            AudioCodec::Opus => Self::Short,
            AudioCodec::G722 => Self::Long,
        }
    }
}

/// Whether frames of this format can be shared: packet and frame must begin together.
pub(super) fn is_sharable(packet_time: PacketTime) -> bool {
    FRAME_MILLIS.is_multiple_of(u32::from(packet_time.millis()))
}

/// Whether two formats make the same payloads. The payload type is the leg's own affair.
fn is_alike(a: &AudioFormat, b: &AudioFormat) -> bool {
    AudioFormat {
        payload_type: b.payload_type,
        ..*a
    } == *b
}

impl Groups {
    /// Counts a member into the group of its format, which comes to be if there is none.
    pub(super) fn enter(
        &mut self,
        format: &AudioFormat,
        band: Band,
        heard: Heard,
    ) -> Result<GroupIndex, UnsupportedFormat> {
        let found = self
            .groups
            .iter_mut()
            .enumerate()
            .find_map(|(index, group)| {
                let group = group.as_mut()?;
                (group.heard == heard && is_alike(&group.format, format)).then_some((index, group))
            });
        if let Some((index, group)) = found {
            group.member_count += 1;
            return Ok(GroupIndex(index as u16));
        }
        let mut encoder = Encoder::new(format, band.rate())?;
        encoder.set_expected_loss(SHARED_LOSS_PERCENT);
        let group = Group {
            format: *format,
            heard,
            band,
            member_count: 1,
            warms_up: false,
            encoder,
            payloads: vec![0; PACKETS_MAX * ENCODED_LEN_MAX].into_boxed_slice(),
            lens: [0; PACKETS_MAX],
            is_encoded: false,
        };
        let free = self.groups.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.groups.push(None);
            self.groups.len() - 1
        });
        self.groups[index] = Some(group);
        Ok(GroupIndex(index as u16))
    }

    /// Counts a member out; the last one takes the group along.
    pub(super) fn leave(&mut self, index: GroupIndex) {
        if let Some(slot) = self.groups.get_mut(usize::from(index.0))
            && let Some(group) = slot
        {
            group.member_count -= 1;
            if group.member_count == 0 {
                *slot = None;
            }
        }
    }

    /// A member goes over to the group's encoder soon.
    pub(super) fn warm_up(&mut self, index: GroupIndex) {
        if let Some(Some(group)) = self.groups.get_mut(usize::from(index.0)) {
            group.warms_up = true;
        }
    }

    /// A new frame was mixed; `pcm_of` gives what a band hears. An encoder with a long memory takes
    /// every frame, whether it is asked for or not: a member that goes over to it must find it
    /// where its own was.
    pub(super) fn renew<'a>(&mut self, pcm_of: impl Fn(Band, Heard) -> &'a [i16]) {
        for group in self.groups.iter_mut().flatten() {
            group.is_encoded = false;
            let always = EncoderMemory::of(group.format.codec) == EncoderMemory::Long;
            if std::mem::take(&mut group.warms_up) || always {
                group.encode(pcm_of(group.band, group.heard));
                self.encoded_frames += 1;
            }
        }
    }

    /// The payloads of a group for the present frame, encoded when they are first asked for.
    pub(super) fn payloads<'a>(
        &mut self,
        index: GroupIndex,
        pcm_of: impl Fn(Band, Heard) -> &'a [i16],
    ) -> SharedPayloads<'_> {
        let Some(Some(group)) = self.groups.get_mut(usize::from(index.0)) else {
            return SharedPayloads {
                payloads: &[],
                lens: &[],
            };
        };
        if !group.is_encoded {
            group.encode(pcm_of(group.band, group.heard));
            self.encoded_frames += 1;
        }
        let packet_count = FRAME_MILLIS / u32::from(group.format.packet_time.millis());
        SharedPayloads {
            payloads: &group.payloads,
            lens: &group.lens[..(packet_count as usize).min(PACKETS_MAX)],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.groups.iter().flatten().count()
    }

    pub(super) fn encoded_frames(&self) -> u64 {
        self.encoded_frames
    }
}

/// The packets of one frame, in order of time.
#[derive(Debug, Clone)]
pub struct SharedPayloads<'a> {
    payloads: &'a [u8],
    lens: &'a [usize],
}

impl<'a> Iterator for SharedPayloads<'a> {
    /// A payload; empty when the codec has nothing to send in this packet's time (DTX).
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (&len, lens) = self.lens.split_first()?;
        let payload = &self.payloads[..len];
        self.lens = lens;
        self.payloads = self.payloads.get(ENCODED_LEN_MAX..).unwrap_or(&[]);
        Some(payload)
    }
}
