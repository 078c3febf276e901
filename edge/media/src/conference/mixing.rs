//! A conference's frame: voices in, mixes out. Nothing here allocates.

use super::bus::{self, Bus};
use super::gate::mean_magnitude;
use super::groups::{self, EncoderMemory, GroupIndex, Heard, SharedPayloads};
use super::member::{Member, MemberSlot};
use super::{
    Band, Conference, ConferenceEvent, ConferenceStats, MixOutput, OWN_FRAMES, SILENCE,
    WARM_UP_FRAMES, WIDE_LEN,
};
use crate::audio::SampleRate;

impl Conference {
    /// Takes what a member says in this frame: 20 ms at the member's rate. Anything else is ignored,
    /// and so is a second frame. A member that is silent, or of which nothing was received, need not
    /// be put.
    pub fn put(&mut self, slot: MemberSlot, pcm: &[i16]) {
        let Some(member) = self.members.get_mut(slot) else {
            return;
        };
        if member.muted || member.is_heard || pcm.len() != member.band.frame_len() {
            return;
        }
        if !member.gate.pass(mean_magnitude(pcm)) {
            return;
        }
        if member.whispers.is_some() {
            return self.put_whisper(slot, pcm);
        }
        member.is_heard = true;
        member.input.copy_from_slice(pcm);
        let band = member.band;
        self.talkers.push(slot.index);
        self.bus_mut(band).add(pcm);
    }

    #[cold]
    fn put_whisper(&mut self, slot: MemberSlot, pcm: &[i16]) {
        let Some(mut whisper) = self
            .members
            .get_mut(slot)
            .and_then(|member| member.whispers.take())
        else {
            return;
        };
        if let Some(index) = whisper.index
            && let Some(target) = self.members.at_mut(index)
            && let Some(private) = target.private.as_mut()
        {
            if !private.is_heard {
                self.whispered_to.push(index);
            }
            private.add(whisper.converter.as_mut(), pcm);
        }
        if let Some(member) = self.members.get_mut(slot) {
            member.whispers = Some(whisper);
        }
    }

    /// Mixes what was put, and begins the next frame. What [`Self::output_for`],
    /// [`Self::shared_payloads`] and [`Self::recording_mix`] give is of this frame until then.
    pub fn mix(&mut self) {
        self.stats.frames += 1;
        if self.is_needed(Band::Narrow) && self.is_needed(Band::Wide) {
            self.crossover.cross(&mut self.narrow, &mut self.wide);
        }
        for bus in [&mut self.narrow, &mut self.wide] {
            let band = bus.band();
            self.announcing.add(&self.tones, band, bus.sum_mut());
            bus.finish();
        }
        self.announcing.advance(&self.tones);
        self.follow_speaker();
        self.make_own_outputs();
        self.narrow.clear();
        self.wide.clear();
        self.settle();
        let (narrow, wide) = (&self.narrow, &self.wide);
        self.groups
            .renew(|band, heard| heard_of(narrow, wide, band, heard));
    }

    /// Sees to it that who goes over to a shared encoder soon finds it warm.
    fn settle(&mut self) {
        let frame = self.stats.frames;
        let (members, groups) = (&mut self.members, &mut self.groups);
        self.settling.retain(|&index| {
            let Some(member) = members.at_mut(index) else {
                return false;
            };
            member.settles = frame < member.own_until;
            if member.settles && frame + WARM_UP_FRAMES >= member.own_until {
                groups.warm_up(member.group);
            }
            member.settles
        });
    }

    fn is_needed(&self, band: Band) -> bool {
        self.counts[band as usize] > 0 || self.recorded == Some(band.rate())
    }

    fn follow_speaker(&mut self) {
        self.stats.talkers = self.talkers.len();
        let members = &self.members;
        let heard = self
            .talkers
            .iter()
            .filter_map(|&index| Some((index, members.at(index)?.gate.loudness())));
        if self.speaker.frame(heard) {
            let speaker = self.speaker.speaker();
            let key = speaker.and_then(|index| Some(members.at(index)?.key));
            self.event = Some(ConferenceEvent::SpeakerChanged(key));
        }
    }

    /// For who was heard, and for who was whispered to.
    fn make_own_outputs(&mut self) {
        let frame = self.stats.frames;
        let (narrow, wide) = (&self.narrow, &self.wide);
        let mut make = |member: &mut Member| {
            if member.own_output_at == frame {
                return;
            }
            let bus = match member.band {
                Band::Narrow => narrow,
                Band::Wide => wide,
            };
            if make_own_output(member, bus, frame) {
                self.stats.own_outputs += 1;
            }
        };
        for index in self.whispered_to.drain(..).chain(self.talkers.drain(..)) {
            if let Some(member) = self.members.at_mut(index) {
                make(member);
                member.is_heard = false;
                let has_memory = EncoderMemory::of(member.format.codec) == EncoderMemory::Short;
                if has_memory && !std::mem::replace(&mut member.settles, true) {
                    self.settling.push(index);
                }
            }
        }
    }

    /// What a member is sent of the frame that was mixed last. Who is not in is sent silence.
    #[must_use]
    pub fn output_for(&self, slot: MemberSlot) -> MixOutput<'_> {
        let Some(member) = self.members.get(slot) else {
            return MixOutput::Own(&SILENCE[..Band::Narrow.frame_len()]);
        };
        let frame = self.stats.frames;
        if member.own_output_at == frame {
            return MixOutput::Own(&member.output);
        }
        let is_shared = groups::is_sharable(member.format.packet_time)
            && match EncoderMemory::of(member.format.codec) {
                EncoderMemory::None => true,
                EncoderMemory::Short => frame >= member.own_until,
                EncoderMemory::Long => member.muted || member.deaf,
            };
        if !is_shared {
            return MixOutput::Own(self.heard(member.band, member.heard()));
        }
        MixOutput::Shared(member.group)
    }

    /// As [`Self::output_for`], in samples even of what is shared: for a member that is sent
    /// something more than the mix.
    #[must_use]
    pub fn samples_for(&self, slot: MemberSlot) -> &[i16] {
        match (self.output_for(slot), self.members.get(slot)) {
            (MixOutput::Own(samples), _) => samples,
            (MixOutput::Shared(_), Some(member)) => self.heard(member.band, member.heard()),
            (MixOutput::Shared(_), None) => &[],
        }
    }

    /// What all of a group are sent of the frame that was mixed last, encoded when the first asks:
    /// one payload of 20 ms or two of 10.
    pub fn shared_payloads(&mut self, group: GroupIndex) -> SharedPayloads<'_> {
        let (narrow, wide) = (&self.narrow, &self.wide);
        self.groups
            .payloads(group, |band, heard| heard_of(narrow, wide, band, heard))
    }

    /// Everything that was said in the frame that was mixed last, and the tones, but no whisper:
    /// 20 ms at the rate of the recording that the settings ask for; `None` without one.
    #[must_use]
    pub fn recording_mix(&self) -> Option<&[i16]> {
        let band = match self.recorded? {
            SampleRate::Hz8000 => Band::Narrow,
            SampleRate::Hz16000 | SampleRate::Hz48000 => Band::Wide,
        };
        Some(self.heard(band, Heard::Mix))
    }

    pub(super) fn heard(&self, band: Band, heard: Heard) -> &[i16] {
        heard_of(&self.narrow, &self.wide, band, heard)
    }

    /// What happened since the last call; of several changes of the speaker the last.
    pub fn poll_event(&mut self) -> Option<ConferenceEvent> {
        self.event.take()
    }

    /// How much work it was.
    #[must_use]
    pub fn stats(&self) -> ConferenceStats {
        ConferenceStats {
            groups: self.groups.len(),
            shared_frames: self.groups.encoded_frames(),
            ..self.stats
        }
    }
}

fn heard_of<'a>(narrow: &'a Bus, wide: &'a Bus, band: Band, heard: Heard) -> &'a [i16] {
    match (heard, band) {
        (Heard::Nothing, _) => &SILENCE[..band.frame_len()],
        (Heard::Mix, Band::Narrow) => narrow.mix(),
        (Heard::Mix, Band::Wide) => wide.mix(),
    }
}

/// The mix less the member's own voice, and what is whispered to it. `false`: it hears the same as
/// others.
fn make_own_output(member: &mut Member, bus: &Bus, frame: u64) -> bool {
    let len = member.band.frame_len();
    let whisper = member.private.as_mut().filter(|private| private.is_heard);
    if whisper.is_none() && member.deaf {
        return false;
    }
    let mut sum = [0; WIDE_LEN];
    let sum = &mut sum[..len];
    if !member.deaf {
        sum.copy_from_slice(bus.sum());
        if member.is_heard {
            bus::subtract(sum, &member.input);
        }
    }
    if let Some(private) = whisper {
        for (sum, &sample) in sum.iter_mut().zip(&private.sum) {
            *sum += sample;
        }
        private.clear();
    }
    if member.own_output_at + 1 != frame {
        member.limiter = bus.limiter();
    }
    member.limiter.apply(sum, &mut member.output);
    member.own_output_at = frame;
    member.own_until = frame + OWN_FRAMES;
    true
}
