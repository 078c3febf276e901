//! A conference: every member hears all others and not itself.
//!
//! One frame of [`FRAME_MILLIS`] at a time:
//!
//! ```text
//!   for each member   read its ClockedInput, put()        (nothing, if it was silent)
//!   mix()
//!   for each member   output_for() → Shared(group): shared_payloads(group), encoded once for all
//!                                  → Own(pcm):      the member's own encoder
//! ```
//!
//! **Cost.** Voices are added up once; who is heard gets the sum less its own voice. A member that
//! says nothing is not added (see the `gate` module for what nothing is), so it hears what all others of that kind
//! hear, and one encoder per format serves them all: a listener costs its share of copying a
//! payload, only talkers cost a subtraction and an encoder run.
//!
//! **Rates.** Members are of two bands, 8 and 16 kHz, by the format they are sent. Each band has its
//! sum, and each sum is converted once for the other band: conversion and addition are both linear,
//! so a member's own voice can still be subtracted exactly. Among PCMU alone nothing is converted;
//! among wideband members nothing is lost; nobody's codec has to be opened anew because somebody
//! else joined.
//!
//! **Codecs with memory** do not change encoders lightly. An Opus member that stops speaking keeps
//! its own for [`OWN_FRAMES`] and then goes over to the shared one. A G.722 member shares only while
//! it is muted or deaf: its decoder would need a tenth of a second to follow, and its encoder is
//! cheap. Packet times beyond a frame are never shared.
//!
//! **Levels.** Up to full scale nothing is changed. Above it a gain follows the peaks, see the
//! `limiter` module.
//!
//! RFC 7667 §3.4 (Topo-Mixer) is the shape; unlike there no CSRC list is written.

use std::sync::Arc;

use trunkline_edge_api::{
    AudioCodec, AudioFormat, ConferenceSettings, Membership, RecordingFormat,
};

use crate::audio::SampleRate;
use crate::codec::UnsupportedFormat;

mod announcements;
mod bus;
mod gate;
mod groups;
mod half_band;
mod limiter;
mod member;
mod mixing;
mod speaker;

pub use announcements::Announcements;
use announcements::{Announcement, Announcing};
use bus::{Bus, Crossover};
use gate::Gate;
pub use groups::{GroupIndex, SharedPayloads};
use groups::{Groups, Heard};
use limiter::Limiter;
use member::{Converter, Member, Members, Private, Whisper};
pub use member::{MemberKey, MemberSlot};
use speaker::SpeakerDetector;

/// What is mixed at once, milliseconds: the packet time of nearly every phone, so that a mix can be
/// encoded once for many.
pub const FRAME_MILLIS: u32 = 20;
/// Most members of one conference.
pub const MEMBERS_MAX: usize = 1_000;
/// Frames for which an Opus member keeps its own encoder after it was heard: 2 s.
pub const OWN_FRAMES: u64 = 100;
/// The last of these, in which the shared encoder hears the same: 400 ms.
const WARM_UP_FRAMES: u64 = 20;

const NARROW_LEN: usize = SampleRate::Hz8000.samples(FRAME_MILLIS);
const WIDE_LEN: usize = SampleRate::Hz16000.samples(FRAME_MILLIS);
const SILENCE: [i16; WIDE_LEN] = [0; WIDE_LEN];

/// The two rates of a conference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Band {
    Narrow,
    Wide,
}

impl Band {
    /// What a member that is sent `format` can hear.
    fn of(format: &AudioFormat) -> Self {
        let narrow_hz = SampleRate::Hz8000.hz();
        let is_narrow = match format.codec {
            AudioCodec::Pcmu | AudioCodec::Pcma => true,
            AudioCodec::G722 => false,
            AudioCodec::L16 => format.clock_rate.get() <= narrow_hz,
            AudioCodec::Opus => format.opus.playback_rate_max_hz <= narrow_hz,
        };
        if is_narrow { Self::Narrow } else { Self::Wide }
    }

    fn rate(self) -> SampleRate {
        match self {
            Self::Narrow => SampleRate::Hz8000,
            Self::Wide => SampleRate::Hz16000,
        }
    }

    fn frame_len(self) -> usize {
        match self {
            Self::Narrow => NARROW_LEN,
            Self::Wide => WIDE_LEN,
        }
    }
}

/// Why somebody cannot join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinError {
    /// There are as many members as there may be.
    Full,
    /// What it is to be sent cannot be encoded.
    Unsupported(UnsupportedFormat),
}

impl std::fmt::Display for JoinError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full => f.write_str("the conference is full"),
            Self::Unsupported(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for JoinError {}

/// What a member is sent of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MixOutput<'a> {
    /// The same as all of a group: [`Conference::shared_payloads`] has it, encoded.
    Shared(GroupIndex),
    /// Something of its own: 20 ms at the member's rate, for the member's own encoder.
    Own(&'a [i16]),
}

/// What happened in a conference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConferenceEvent {
    /// Somebody else is the loudest; `None`: nobody speaks.
    SpeakerChanged(Option<MemberKey>),
}

/// How much work a conference was. Counts of its whole life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConferenceStats {
    /// Frames mixed.
    pub frames: u64,
    /// Outputs made for one member alone.
    pub own_outputs: u64,
    /// Frames encoded for a group.
    pub shared_frames: u64,
    /// Groups at present.
    pub groups: usize,
    /// Members heard in the last frame.
    pub talkers: usize,
}

/// An N-party mixer.
#[derive(Debug)]
pub struct Conference {
    members: Members,
    members_max: usize,
    groups: Groups,
    narrow: Bus,
    wide: Bus,
    /// Members of each band.
    counts: [usize; 2],
    crossover: Crossover,
    /// Indices of the members put in this frame and heard by all.
    talkers: Vec<u16>,
    /// Indices of the members to which somebody whispered in this frame.
    whispered_to: Vec<u16>,
    /// Indices of the members that go over to a shared encoder when they have been silent for long
    /// enough.
    settling: Vec<u16>,
    tones: Arc<Announcements>,
    announces: bool,
    announcing: Announcing,
    recorded: Option<SampleRate>,
    speaker: SpeakerDetector,
    event: Option<ConferenceEvent>,
    stats: ConferenceStats,
}

impl Conference {
    /// A conference of nobody, for at most `members_max` members, itself at most [`MEMBERS_MAX`].
    /// `tones` tell of who joins and leaves, once settings ask for it.
    #[must_use]
    pub fn new(members_max: usize, tones: Arc<Announcements>) -> Self {
        Self {
            members: Members::default(),
            members_max: members_max.min(MEMBERS_MAX),
            groups: Groups::default(),
            narrow: Bus::new(Band::Narrow),
            wide: Bus::new(Band::Wide),
            counts: [0; 2],
            crossover: Crossover::new(),
            talkers: Vec::new(),
            whispered_to: Vec::new(),
            settling: Vec::new(),
            tones,
            announces: false,
            announcing: Announcing::default(),
            recorded: None,
            speaker: SpeakerDetector::default(),
            event: None,
            stats: ConferenceStats::default(),
        }
    }

    /// The rate at which a member that is sent `send` is put and given samples.
    #[must_use]
    pub fn rate_for(send: &AudioFormat) -> SampleRate {
        Band::of(send).rate()
    }

    /// Takes over how the conference shall behave. A recording without samples (pcap) is none of
    /// a mix.
    pub fn configure(&mut self, settings: &ConferenceSettings) {
        self.announces = settings.announces;
        if !self.announces {
            self.announcing.stop();
        }
        self.recorded = match settings
            .recording
            .as_ref()
            .map(|recording| recording.format)
        {
            Some(RecordingFormat::Wav8k) => Some(SampleRate::Hz8000),
            Some(RecordingFormat::Wav16k) => Some(SampleRate::Hz16000),
            Some(RecordingFormat::Pcap) | None => None,
        };
    }

    /// Lets a leg in, which is sent `send`, or changes its part if it is in already: with the same
    /// arguments again nothing happens. Its place stays the same. The conference that `membership`
    /// names is the caller's business.
    ///
    /// # Errors
    /// There is no room, or `send` cannot be encoded. Who was in stays as it was.
    pub fn join(
        &mut self,
        key: MemberKey,
        send: &AudioFormat,
        membership: &Membership,
    ) -> Result<MemberSlot, JoinError> {
        let known = self.members.slot_of(key);
        if known.is_none() && self.members.len() >= self.members_max {
            return Err(JoinError::Full);
        }
        let band = Band::of(send);
        let heard = if membership.deaf {
            Heard::Nothing
        } else {
            Heard::Mix
        };
        let group = self
            .groups
            .enter(send, band, heard)
            .map_err(JoinError::Unsupported)?;
        let is_heard_otherwise = |member: &Member| {
            member.band != band
                || member.muted != membership.muted
                || member.whispered_to() != membership.whispers_to
        };
        if let Some(slot) = known
            && self.members.get(slot).is_some_and(is_heard_otherwise)
        {
            self.withdraw(slot.index);
        }
        let slot = match known.and_then(|slot| Some((slot, self.members.get_mut(slot)?))) {
            Some((slot, member)) => {
                self.groups
                    .leave(std::mem::replace(&mut member.group, group));
                member.format = *send;
                if member.band != band {
                    self.counts[member.band as usize] -= 1;
                    self.counts[band as usize] += 1;
                    member.band = band;
                    member.input = silence(band);
                    member.output = silence(band);
                    member.private = None;
                    member.gate.close();
                }
                slot
            }
            None => self.admit(key, send, band, group),
        };
        self.assign(slot, membership);
        self.link_whispers();
        Ok(slot)
    }

    fn admit(
        &mut self,
        key: MemberKey,
        send: &AudioFormat,
        band: Band,
        group: GroupIndex,
    ) -> MemberSlot {
        self.counts[band as usize] += 1;
        if self.announces {
            self.announcing.start(Announcement::Joined);
        }
        let slot = self.members.insert(Member {
            key,
            format: *send,
            band,
            group,
            muted: false,
            deaf: false,
            whispers: None,
            gate: Gate::default(),
            is_heard: false,
            own_output_at: 0,
            own_until: 0,
            settles: false,
            limiter: Limiter::new(),
            input: silence(band),
            output: silence(band),
            private: None,
        });
        let count = self.members.len();
        self.talkers.reserve(count);
        self.whispered_to.reserve(count);
        self.settling.reserve(count);
        slot
    }

    fn assign(&mut self, slot: MemberSlot, membership: &Membership) {
        let Some(member) = self.members.get_mut(slot) else {
            return;
        };
        member.muted = membership.muted;
        member.deaf = membership.deaf;
        if member.whispered_to() != membership.whispers_to {
            member.whispers = membership.whispers_to.map(|to| Whisper {
                to,
                index: None,
                converter: None,
            });
        }
        let is_heard_by_all = !member.muted && membership.whispers_to.is_none();
        if !is_heard_by_all {
            member.gate.close();
            if self.speaker.forget(slot.index) {
                self.event = Some(ConferenceEvent::SpeakerChanged(None));
            }
        }
    }

    /// Finds again who whispers to whom. Runs when somebody joins, leaves or changes its part.
    fn link_whispers(&mut self) {
        let mut links = Vec::new();
        let mut is_target = vec![false; self.members.places()];
        for (slot, member) in self.members.iter() {
            if let Some(whisper) = &member.whispers {
                let to = self.members.slot_of(whisper.to).filter(|to| *to != slot);
                let to = to.and_then(|to| Some((to.index, self.members.get(to)?.band)));
                if let Some((index, _)) = to {
                    is_target[usize::from(index)] = true;
                }
                links.push((slot, member.band, to));
            }
        }
        for (index, is_target) in is_target.into_iter().enumerate() {
            if let Some(member) = self.members.at_mut(index as u16)
                && member.private.is_some() != is_target
            {
                member.private = is_target.then(|| Box::new(Private::new()));
            }
        }
        for (slot, from, to) in links {
            let Some(whisper) = self
                .members
                .get_mut(slot)
                .and_then(|member| member.whispers.as_mut())
            else {
                continue;
            };
            whisper.index = to.map(|(index, _)| index);
            whisper.converter = to.and_then(|(_, band)| Converter::between(from, band));
        }
    }

    /// Lets a leg out. `false`: it was not in.
    pub fn leave(&mut self, key: MemberKey) -> bool {
        if let Some(slot) = self.members.slot_of(key) {
            self.withdraw(slot.index);
        }
        let Some((index, member)) = self.members.remove(key) else {
            return false;
        };
        self.groups.leave(member.group);
        self.counts[member.band as usize] -= 1;
        self.whispered_to.retain(|&other| other != index);
        self.settling.retain(|&other| other != index);
        if self.speaker.forget(index) {
            self.event = Some(ConferenceEvent::SpeakerChanged(None));
        }
        if self.announces {
            self.announcing.start(Announcement::Left);
        }
        self.link_whispers();
        true
    }

    /// Takes what a member said in this frame back.
    fn withdraw(&mut self, index: u16) {
        let Some(member) = self.members.at_mut(index) else {
            return;
        };
        if !std::mem::take(&mut member.is_heard) {
            return;
        }
        let bus = match member.band {
            Band::Narrow => &mut self.narrow,
            Band::Wide => &mut self.wide,
        };
        bus::subtract(bus.sum_mut(), &member.input);
        self.talkers.retain(|&talker| talker != index);
    }

    /// How many are in.
    #[must_use]
    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    /// The place of a member; `None`: it is not in.
    #[must_use]
    pub fn slot_of(&self, key: MemberKey) -> Option<MemberSlot> {
        self.members.slot_of(key)
    }

    fn bus_mut(&mut self, band: Band) -> &mut Bus {
        match band {
            Band::Narrow => &mut self.narrow,
            Band::Wide => &mut self.wide,
        }
    }
}

fn silence(band: Band) -> Box<[i16]> {
    vec![0; band.frame_len()].into_boxed_slice()
}

#[cfg(test)]
mod tests;
