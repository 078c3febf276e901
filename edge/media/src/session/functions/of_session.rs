//! The functions of both legs, as the session's owner meets them.

use trunkline_edge_api::{AudioFormat, LegIndex, MonoTime, PlaybackEnd, PlaybackMode, Refusal};

use super::super::leg::Leg;
use super::super::{MediaSession, SessionCommand, SessionEvent, TRANSMIT_LEN_MAX, Transmit, Wants};
use super::overlay::{self, LiveSource};
use super::seat::MixFrame;
use super::tap::{Tap, Tapped};
use super::{LegMedia, Playing};
use crate::audio::SampleRate;
use crate::conference;

/// Samples of a conference's frame at the higher of its rates.
const MIX_LEN_MAX: usize = SampleRate::Hz16000.samples(conference::FRAME_MILLIS);

impl MediaSession {
    /// What the session waits for, beside packets.
    #[must_use]
    pub fn wants(&self) -> Wants {
        if !self.has_functions {
            return Wants::default();
        }
        let media = || {
            self.legs
                .iter()
                .flatten()
                .filter_map(|leg| leg.media.as_deref())
        };
        Wants {
            transmit: media().any(LegMedia::has_output),
            ticks: media().any(LegMedia::is_clocked),
            tapped: media().any(|media| media.tap.is_some()),
        }
    }

    /// Tells the session the time; what is due is then to be had from [`Self::poll_transmit`] and
    /// [`Self::poll_event`].
    pub fn handle_tick(&mut self, now: MonoTime) {
        for index in LegIndex::ALL {
            let [a, b] = &mut self.legs;
            let (near, far) = match index {
                LegIndex::A => (a, b),
                LegIndex::B => (b, a),
            };
            let far = far.as_mut().and_then(|far| far.media.as_deref_mut());
            if let Some(media) = near.as_mut().and_then(|leg| leg.media.as_deref_mut()) {
                media.handle_tick(now, index, far);
            }
        }
    }

    /// Whether the digits of `leg`'s peer are to be heard by nobody.
    #[must_use]
    pub fn hides_digits(&self, leg: LegIndex) -> bool {
        let media = self.legs[leg.as_usize()]
            .as_ref()
            .and_then(|leg| leg.media.as_ref());
        media.is_some_and(|media| media.switches.hides_digits)
    }

    /// The packet of `leg`'s peer that was handled last, if the leg is tapped and nobody took it.
    pub fn take_tapped(&mut self, leg: LegIndex) -> Option<Tapped<'_>> {
        if !self.has_functions {
            return None;
        }
        let leg = self.legs[leg.as_usize()].as_mut()?;
        leg.media.as_mut()?.tap.as_mut()?.take()
    }

    /// What the peer of `leg` is sent in a conference; `None` while it is in none.
    #[must_use]
    pub fn seat_format(&self, leg: LegIndex) -> Option<AudioFormat> {
        let media = self.legs[leg.as_usize()].as_ref()?.media.as_ref()?;
        media.seat.as_ref().map(|seat| *seat.format())
    }

    /// What the peer of `leg`, which is in a conference, says now: as many samples as `out` holds,
    /// at the rate of [`crate::conference::Conference::rate_for`]. `false`: it is silent, or not
    /// to be heard.
    pub fn hear(&mut self, now: MonoTime, leg: LegIndex, out: &mut [i16]) -> bool {
        let leg = self.legs[leg.as_usize()].as_mut();
        let seat = leg.and_then(|leg| leg.media.as_mut()?.seat.as_mut());
        seat.is_some_and(|seat| seat.hear(now, out))
    }

    /// Makes a packet for the peer of `leg`, which is in a conference; `None` when it is sent
    /// something else now, or nothing.
    pub fn send_mix(
        &mut self,
        now: MonoTime,
        leg: LegIndex,
        frame: MixFrame<'_>,
        out: &mut [u8; TRANSMIT_LEN_MAX],
    ) -> Option<Transmit> {
        let side = self.legs[leg.as_usize()].as_mut()?;
        let media = side.media.as_mut()?;
        let mut covered = [0; MIX_LEN_MAX];
        let (frame, is_over) = media.cover_mix(frame, &mut covered);
        let is_alone = matches!(media.playing, Some(Playing::Alone(_)));
        let is_silenced = is_alone || media.is_sending_digits();
        let made = media.seat.as_mut()?.send(frame, is_silenced, out);
        if is_over {
            media.stop_playing(leg, PlaybackEnd::Completed);
        }
        side.send_made(now, leg, made?, out)
    }

    /// Whether something is played over what the peer of `leg` hears of its conference: then
    /// [`Self::send_mix`] wants samples, and no payload that was made for many.
    #[must_use]
    pub fn covers_mix(&self, leg: LegIndex) -> bool {
        let media = self.legs[leg.as_usize()].as_ref();
        media
            .and_then(|leg| leg.media.as_ref())
            .is_some_and(|media| matches!(media.playing, Some(Playing::Over(_))))
    }

    /// Playbacks that run.
    #[must_use]
    pub fn playback_count(&self) -> usize {
        let media = self
            .legs
            .iter()
            .flatten()
            .filter_map(|leg| leg.media.as_deref());
        media.filter(|media| media.playing.is_some()).count()
    }

    /// Milliseconds of audio that were made up for what did not come.
    #[must_use]
    pub fn concealed_millis(&self) -> u64 {
        let media = self
            .legs
            .iter()
            .flatten()
            .filter_map(|leg| leg.media.as_deref());
        media.map(LegMedia::concealed_millis).sum()
    }

    /// What the peer of `leg` is sent when the edge encodes; `None` while control has not said.
    #[must_use]
    pub fn send_format(&self, leg: LegIndex) -> Option<AudioFormat> {
        let media = self.legs[leg.as_usize()].as_ref()?.media.as_ref()?;
        media.audio.as_ref().map(|audio| audio.send)
    }

    /// The format in which the prompts of a playback on `leg` are to be there; `None` while control
    /// has not said what the leg is sent.
    #[must_use]
    pub fn playback_format(&self, leg: LegIndex, mode: PlaybackMode) -> Option<AudioFormat> {
        let send = self.send_format(leg)?;
        Some(match mode {
            PlaybackMode::Replace => send,
            PlaybackMode::Into(_) => overlay::linear_format(&send),
        })
    }

    pub(in crate::session) fn handle_function(
        &mut self,
        now: MonoTime,
        command: SessionCommand,
    ) -> Result<(), Refusal> {
        match command {
            SessionCommand::SetAudio(leg, audio) => {
                self.media_mut(leg)?
                    .set_audio(leg, audio.map(|audio| *audio))?;
                self.arrange(now)
            }
            SessionCommand::SetFunctions(leg, switches) => {
                self.media_mut(leg)?.switches = switches;
                self.arrange(now)
            }
            SessionCommand::Play(leg, prepared) => {
                let source = self.live_source(leg.far());
                self.media_mut(leg)?.play(now, leg, prepared, source)
            }
            SessionCommand::StopPlaying(leg) => {
                self.media_mut(leg)?.stop_playing(leg, PlaybackEnd::Stopped);
                Ok(())
            }
            SessionCommand::SendDigits(leg, digits) => self.media_mut(leg)?.send_digits(&digits),
            SessionCommand::SetFork(leg, fork) => {
                if let Some(fork) = fork
                    && !self.leg(leg)?.can_reach(fork.to)
                {
                    return Err(Refusal::AddressMismatch);
                }
                self.media_mut(leg)?.set_fork(fork);
                Ok(())
            }
            SessionCommand::SetTapped(leg, is_tapped) => {
                let tap = &mut self.media_mut(leg)?.tap;
                match (is_tapped, &tap) {
                    (true, None) => *tap = Some(Tap::new()),
                    (false, Some(_)) => *tap = None,
                    _ => {}
                }
                Ok(())
            }
            SessionCommand::SetSeated(leg, is_seated) => self.media_mut(leg)?.set_seated(is_seated),
            SessionCommand::OpenLeg(..)
            | SessionCommand::ConfigureLeg(..)
            | SessionCommand::CloseLeg(_) => self.handle_command(now, command),
        }
    }

    fn leg(&self, leg: LegIndex) -> Result<&Leg, Refusal> {
        self.legs[leg.as_usize()].as_ref().ok_or(Refusal::NoSuchLeg)
    }

    /// The leg's functions, if it has any.
    fn functions_of(&mut self, leg: LegIndex) -> Option<&mut LegMedia> {
        self.legs[leg.as_usize()].as_mut()?.media.as_deref_mut()
    }

    /// The leg's functions, which it has from now on.
    fn media_mut(&mut self, leg: LegIndex) -> Result<&mut LegMedia, Refusal> {
        let leg = self.legs[leg.as_usize()]
            .as_mut()
            .ok_or(Refusal::NoSuchLeg)?;
        self.has_functions = true;
        Ok(leg.media.get_or_insert_default())
    }

    /// What the peer of `leg` says, for a playback that is to go over it.
    fn live_source(&self, leg: LegIndex) -> LiveSource {
        let leg = self.legs[leg.as_usize()].as_ref();
        let media = leg.and_then(|leg| leg.media.as_deref());
        media.map_or_else(LiveSource::default, |media| LiveSource {
            audio: media.audio.clone(),
            is_filtered: media.ears.as_ref().is_some_and(|ears| ears.filters()),
        })
    }

    /// Makes each leg ready for what its far leg has and wants.
    pub(in crate::session) fn arrange(&mut self, now: MonoTime) -> Result<(), Refusal> {
        if !self.has_functions {
            return Ok(());
        }
        self.arrange_live_formats().and(self.arrange_ears(now))
    }

    fn arrange_ears(&mut self, now: MonoTime) -> Result<(), Refusal> {
        let audio = |leg: &Option<Leg>| leg.as_ref()?.media.as_ref()?.audio.clone();
        let [a, b] = [audio(&self.legs[0]), audio(&self.legs[1])];
        let mut arranged = Ok(());
        for (index, near_audio, far_audio) in [(LegIndex::A, &a, &b), (LegIndex::B, &b, &a)] {
            let has_tones_only = near_audio
                .as_ref()
                .is_some_and(|audio| audio.receive_events.is_none());
            let takes_events = far_audio
                .as_ref()
                .is_some_and(|audio| audio.send_events.is_some());
            let mut filters = false;
            if let Some(near) = self.functions_of(index) {
                arranged = arranged.and(near.set_ears(now, has_tones_only && takes_events));
                filters = near.ears.as_ref().is_some_and(|ears| ears.filters());
            }
            let source = self.live_source(index);
            if let Some(far) = self.functions_of(index.far()) {
                arranged = arranged.and(far.set_filtered(filters));
                arranged = arranged.and(far.set_live_source(source));
            }
        }
        arranged
    }

    /// Makes each leg ready for those formats of its far peer that no route takes there.
    fn arrange_live_formats(&mut self) -> Result<(), Refusal> {
        let mut arranged = Ok(());
        for index in LegIndex::ALL {
            let [a, b] = &mut self.legs;
            let (leg, far) = match index {
                LegIndex::A => (a, b),
                LegIndex::B => (b, a),
            };
            let Some(media) = leg.as_mut().and_then(|leg| leg.media.as_deref_mut()) else {
                continue;
            };
            let unrouted: Vec<AudioFormat> = far
                .iter()
                .filter_map(|far| Some((far, far.media.as_ref()?.audio.as_ref()?)))
                .flat_map(|(far, audio)| {
                    let is_unrouted =
                        |format: &&AudioFormat| far.route(format.payload_type).is_none();
                    audio.receive.as_slice().iter().filter(is_unrouted)
                })
                .copied()
                .collect();
            arranged = arranged.and(media.set_live_formats(&unrouted));
        }
        arranged
    }

    pub(in crate::session) fn take_told(&mut self) -> Option<SessionEvent> {
        if !self.has_functions {
            return None;
        }
        if let Some(told) = self.parted.as_mut().and_then(|media| media.poll_event()) {
            return Some(told);
        }
        self.parted = None;
        self.legs
            .iter_mut()
            .flatten()
            .find_map(|leg| leg.media.as_deref_mut()?.poll_event())
    }

    /// A leg was closed alone: its last digit counts, and its playback has ended.
    pub(in crate::session) fn part_with(&mut self, index: LegIndex, leg: Option<Leg>) {
        if let Some(mut media) = leg.and_then(|leg| leg.media) {
            media.handle_close(index);
            self.parted = Some(media);
        }
    }

    /// The session ends: what its legs were about to tell is told.
    pub(in crate::session) fn close_functions(&mut self) {
        for (index, leg) in LegIndex::ALL.into_iter().zip(&mut self.legs) {
            if let Some(media) = leg.as_mut().and_then(|leg| leg.media.as_deref_mut()) {
                media.handle_close(index);
            }
        }
    }
}
