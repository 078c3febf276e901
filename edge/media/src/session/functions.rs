//! What a leg does beside relaying: transcode, hear digits and send them, play, fork, be tapped.
//!
//! ```text
//!   near's peer --> events? --> digits told             far's peer hears one of
//!        |                                                 digits that are sent
//!        +--------> audio ---> tap, fork                   a playback, alone or over what follows
//!                     |                                    a conference
//!                     +------------------------------->    near's audio: as it came,
//!                                                          through a table, or transcoded
//! ```
//!
//! A leg that only relays has none of this: a null pointer is all that its packets meet.

use trunkline_edge_api::{
    AudioFormat, DigitMethod, DigitSource, DigitString, DigitsId, DigitsToSend, LegAudio,
    LegFunctions, LegIndex, MediaFork, MonoTime, PayloadType, PlaybackEnd, PlaybackId,
    PlaybackMode, Refusal,
};

use super::SessionEvent;
use crate::dtmf::{DigitEvent, EventDetector, EventSender, HeardDigit};
use crate::outbox::Outbox;

mod ears;
mod fork;
pub(super) mod incoming;
mod live;
mod made;
mod of_session;
mod outgoing;
mod overlay;
mod pace;
mod player;
mod playlist;
mod seat;
mod tap;
mod tones;

use ears::{Ears, Filtered};
use fork::Fork;
use live::LiveFormat;
use overlay::{LiveSource, Overlay};
use player::Player;
use playlist::Playlist;
pub use playlist::PreparedPlayback;
pub use seat::MixFrame;
use seat::Seat;
use tap::Tap;
pub use tap::Tapped;
use tones::TonePlayer;

/// Events that a leg may have to tell at once: a digit's end and what it ends, and as much again.
const EVENTS_MAX: usize = 8;

/// Ids of digits that the edge converts from one form to another are above every id of control's.
const CONVERTED: u32 = 1 << 31;

/// How long a converted digit sounds at most, milliseconds; a key that was held down says no more
/// by sounding longer.
const CONVERTED_MILLIS_MAX: u32 = 400;

/// Pause after a converted digit, milliseconds (ITU-T Q.24 asks for 40).
const CONVERTED_PAUSE_MILLIS: u16 = 50;

/// See the module's description.
#[derive(Debug)]
pub(super) struct LegMedia {
    audio: Option<LegAudio>,
    switches: LegFunctions,
    detector: EventDetector,
    /// The far peer's formats that no route takes here, in the far leg's order.
    live: Vec<LiveFormat>,
    /// The one that the far peer used last; `None` while it uses none of them.
    live_in_use: Option<PayloadType>,
    playing: Option<Playing>,
    newest_playback: Option<PlaybackId>,
    event_sender: Option<EventSender>,
    event_sequence: u16,
    tone_player: Option<TonePlayer>,
    newest_digits: Option<DigitsId>,
    converted: u32,
    fork: Option<Fork>,
    tap: Option<Tap>,
    seat: Option<Seat>,
    /// Seats that the leg has had.
    seats: u32,
    ears: Option<Box<Ears>>,
    /// What the ears listen for, and whether the far peer is told digits in another form.
    ears_wanted: (LegFunctions, bool),
    /// What the far leg's ears let through; `None` while all goes by them.
    filtered: Option<Box<Filtered>>,
    /// Milliseconds made up by what is not there any more.
    concealed_before: u64,
    /// What the leg's peer is likely to miss of what it is sent, percent.
    expected_loss: u8,
    told: Outbox<SessionEvent, EVENTS_MAX>,
}

/// A playback, by what becomes of the far peer's audio.
#[derive(Debug)]
enum Playing {
    Alone(Box<Player>),
    Over(Box<Overlay>),
}

impl Playing {
    fn list(&self) -> &Playlist {
        match self {
            Self::Alone(player) => player.list(),
            Self::Over(overlay) => overlay.list(),
        }
    }

    fn concealed_millis(&self) -> u64 {
        match self {
            Self::Alone(_) => 0,
            Self::Over(overlay) => overlay.concealed_millis(),
        }
    }
}

/// Digits that have ended.
type HeardDigits = Outbox<HeardDigit, EVENTS_MAX>;

impl LegMedia {
    pub(super) fn new() -> Self {
        Self {
            audio: None,
            switches: LegFunctions::default(),
            detector: EventDetector::new(),
            live: Vec::new(),
            live_in_use: None,
            playing: None,
            newest_playback: None,
            event_sender: None,
            event_sequence: 0,
            tone_player: None,
            newest_digits: None,
            converted: 0,
            fork: None,
            tap: None,
            seat: None,
            seats: 0,
            ears: None,
            ears_wanted: (LegFunctions::default(), false),
            filtered: None,
            concealed_before: 0,
            expected_loss: 0,
            told: Outbox::new(),
        }
    }

    /// RTP clock of what the edge makes, while it makes all that the leg sends.
    pub(super) fn sent_clock_hz(&self) -> Option<u32> {
        let makes_all = self.playing.is_some()
            || self.seat.is_some()
            || self.filtered.is_some()
            || !self.live.is_empty();
        let audio = self.audio.as_ref().filter(|_| makes_all)?;
        Some(audio.send.clock_rate.get())
    }

    /// Takes the leg's formats. What is being played was made for the old ones and ends.
    pub(super) fn set_audio(
        &mut self,
        leg: LegIndex,
        audio: Option<LegAudio>,
    ) -> Result<(), Refusal> {
        if self.audio == audio {
            return Ok(());
        }
        let tone_player = match &audio {
            Some(audio) => Some(TonePlayer::new(&audio.send)?),
            None => None,
        };
        let is_same_format = |old: &LegAudio| Some(old.send) == audio.as_ref().map(|new| new.send);
        if !self.audio.as_ref().is_some_and(is_same_format) {
            self.stop_playing(leg, PlaybackEnd::Stopped);
            self.forget_live();
        }
        let comfort_noise = |audio: &Option<LegAudio>| audio.as_ref()?.comfort_noise;
        if comfort_noise(&self.audio) != comfort_noise(&audio) {
            self.forget_live();
        }
        self.seat = match (&self.seat, &audio) {
            (Some(_), Some(audio)) => Some(self.new_seat(audio)?),
            _ => None,
        };
        self.ears = None;
        self.ears_wanted = (LegFunctions::default(), false);
        self.filtered = None;
        self.tone_player = tone_player;
        self.event_sender = audio
            .as_ref()
            .and_then(|audio| audio.send_events)
            .map(|events| EventSender::new(events.clock_rate));
        self.audio = audio;
        Ok(())
    }

    /// Makes ready for what the far peer may send and no route takes here.
    pub(super) fn set_live_formats(&mut self, formats: &[AudioFormat]) -> Result<(), Refusal> {
        let Some(audio) = &self.audio else {
            self.forget_live();
            return Ok(());
        };
        // All that can fail comes first: one format that is refused takes no other along.
        let mut fresh = Vec::new();
        for format in formats {
            if !self.live.iter().any(|live| live.is_from(format)) {
                fresh.push(LiveFormat::new(*format, audio)?);
            }
        }
        let mut found = std::mem::take(&mut self.live);
        found.append(&mut fresh);
        for format in formats {
            // One that goes on keeps its codecs' memory.
            if let Some(index) = found.iter().position(|live| live.is_from(format)) {
                self.live.push(found.swap_remove(index));
            }
        }
        let dropped = found.iter().map(LiveFormat::concealed_millis);
        self.concealed_before += dropped.sum::<u64>();
        self.protect_against_loss();
        Ok(())
    }

    /// The leg's peer said how much it misses.
    pub(super) fn set_expected_loss(&mut self, percent: u8) {
        if self.expected_loss != percent {
            self.expected_loss = percent;
            self.protect_against_loss();
        }
    }

    /// Lets all that is encoded for the leg's peer alone know how much is expected to be lost.
    fn protect_against_loss(&mut self) {
        let percent = self.expected_loss;
        for live in &mut self.live {
            live.set_expected_loss(percent);
        }
        if let Some(filtered) = &mut self.filtered {
            filtered.set_expected_loss(percent);
        }
        if let Some(seat) = &mut self.seat {
            seat.set_expected_loss(percent);
        }
        if let Some(Playing::Over(overlay)) = &mut self.playing {
            overlay.set_expected_loss(percent);
        }
    }

    fn play(
        &mut self,
        now: MonoTime,
        leg: LegIndex,
        prepared: PreparedPlayback,
        source: LiveSource,
    ) -> Result<(), Refusal> {
        if self.newest_playback == Some(prepared.playback.id) {
            return Ok(());
        }
        let audio = self.audio.as_ref().ok_or(Refusal::AudioNotConfigured)?;
        let id = prepared.playback.id;
        let playing = match prepared.playback.mode {
            PlaybackMode::Replace => {
                Playing::Alone(Box::new(Player::new(now, prepared, &audio.send)?))
            }
            PlaybackMode::Into(live) => {
                let overlay = Overlay::new(now, prepared, &audio.send, live, source)?;
                Playing::Over(Box::new(overlay))
            }
        };
        self.stop_playing(leg, PlaybackEnd::Stopped);
        self.newest_playback = Some(id);
        self.playing = Some(playing);
        self.protect_against_loss();
        Ok(())
    }

    pub(super) fn stop_playing(&mut self, leg: LegIndex, cause: PlaybackEnd) {
        if let Some(playing) = self.playing.take() {
            self.concealed_before += playing.concealed_millis();
            let list = playing.list();
            self.tell(SessionEvent::PlaybackEnded {
                leg,
                playback: list.id(),
                cause,
                played_millis: list.played_millis(),
            });
        }
    }

    pub(super) fn send_digits(&mut self, digits: &DigitsToSend) -> Result<(), Refusal> {
        if self.newest_digits == Some(digits.id) {
            return Ok(());
        }
        self.queue_digits(digits)?;
        self.newest_digits = Some(digits.id);
        Ok(())
    }

    fn queue_digits(&mut self, digits: &DigitsToSend) -> Result<(), Refusal> {
        let full = |_| Refusal::TooManyDigits;
        match (&mut self.event_sender, &mut self.tone_player, digits.method) {
            (Some(sender), _, DigitMethod::Preferred) => sender.send(digits).map_err(full),
            (_, Some(player), _) => player.send(digits).map_err(full),
            (_, None, _) => Err(Refusal::AudioNotConfigured),
        }
    }

    /// A digit that the far peer gave in a form that this leg's peer does not take as it came.
    fn convert_digit(&mut self, heard: &HeardDigit) {
        let Some(digits) = DigitString::new([heard.digit]) else {
            return;
        };
        self.converted = self.converted.wrapping_add(1) | CONVERTED;
        let millis = heard.duration_millis.min(CONVERTED_MILLIS_MAX) as u16;
        // A queue that is full has more to say than anybody can press.
        let _ = self.queue_digits(&DigitsToSend {
            id: DigitsId(self.converted),
            digits,
            on_millis: millis,
            off_millis: CONVERTED_PAUSE_MILLIS,
            method: DigitMethod::Preferred,
        });
    }

    fn new_seat(&mut self, audio: &LegAudio) -> Result<Seat, Refusal> {
        self.seats = self.seats.wrapping_add(1);
        let mut seat = Seat::new(audio, self.seats)?;
        seat.set_expected_loss(self.expected_loss);
        Ok(seat)
    }

    fn set_seated(&mut self, is_seated: bool) -> Result<(), Refusal> {
        match (is_seated, &self.seat) {
            (true, None) => {
                let audio = self.audio.clone().ok_or(Refusal::AudioNotConfigured)?;
                self.seat = Some(self.new_seat(&audio)?);
            }
            (false, Some(seat)) => {
                self.concealed_before += seat.concealed_millis();
                self.seat = None;
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn set_fork(&mut self, fork: Option<MediaFork>) {
        if self.fork.as_ref().map(Fork::target) != fork {
            self.fork = fork.map(Fork::new);
        }
    }

    /// What is played over the far peer's audio, which it then takes; `None` where that is not to
    /// be heard, or where a conference is in its place.
    fn overlay_of_live(&mut self) -> Option<&mut Overlay> {
        match &mut self.playing {
            Some(Playing::Over(overlay)) if self.seat.is_none() && !self.switches.deaf => {
                Some(overlay)
            }
            _ => None,
        }
    }

    /// Whether the far peer's audio has to give way to what the edge makes.
    fn is_replaced(&self) -> bool {
        self.playing.is_some()
            || self.seat.is_some()
            || self.is_sending_digits()
            || self.switches.deaf
    }

    fn is_sending_digits(&self) -> bool {
        self.event_sender
            .as_ref()
            .is_some_and(|sender| sender.poll_timeout().is_some())
            || self.tone_player.as_ref().is_some_and(TonePlayer::is_busy)
    }

    /// Milliseconds made up of what was said to be heard: by transcoders, in a conference, under
    /// what is played. What the ears alone hear is not among them.
    fn concealed_millis(&self) -> u64 {
        let live: u64 = self.live.iter().map(LiveFormat::concealed_millis).sum();
        let seat = self.seat.as_ref().map_or(0, Seat::concealed_millis);
        let playing = self.playing.as_ref().map_or(0, Playing::concealed_millis);
        self.concealed_before + live + seat + playing
    }

    fn forget_live(&mut self) {
        let live = self.live.drain(..);
        self.concealed_before += live.map(|live| live.concealed_millis()).sum::<u64>();
    }

    /// Whether there is a packet that something else than time has brought about.
    fn has_output(&self) -> bool {
        self.live.iter().any(LiveFormat::has_output)
            || self.fork.as_ref().is_some_and(Fork::has_copy)
            || self
                .filtered
                .as_ref()
                .is_some_and(|filtered| filtered.has_output())
    }

    /// Whether time has to be told to the leg every few milliseconds.
    pub(super) fn is_clocked(&self) -> bool {
        self.playing.is_some()
            || self.ears.is_some()
            || self.is_sending_digits()
            || self.detector.poll_timeout().is_some()
    }

    /// Lets time pass for what the leg's peer says; what the far leg has to do with it goes there.
    fn handle_tick(&mut self, now: MonoTime, leg: LegIndex, far: Option<&mut Self>) {
        self.detector.handle_timeout(now);
        self.take_heard(leg);
        let Some(ears) = &mut self.ears else {
            return;
        };
        let filters = ears.filters();
        let (_, converts) = self.ears_wanted;
        let mut far = far;
        while let Some(frame) = ears.listen(now) {
            if let (true, Some(far)) = (filters, &mut far) {
                far.take_filtered(frame);
            }
        }
        while let Some(event) = ears.poll_event(leg) {
            let _ = self.told.push(event);
        }
        while let Some(event) = self.ears.as_mut().and_then(|ears| ears.poll_digit()) {
            let Some(heard) = self.note_digit(leg, event, ears::SOURCE) else {
                continue;
            };
            if let (true, false, Some(far)) = (converts, self.switches.hides_digits, &mut far) {
                far.convert_digit(&heard);
            }
        }
    }

    /// Takes a frame of what the far leg's ears let through.
    fn take_filtered(&mut self, frame: &[i16]) {
        if let Some(overlay) = self.overlay_of_live() {
            overlay.take_filtered(frame);
        } else if let Some(filtered) = &mut self.filtered {
            filtered.take(frame);
        }
    }

    /// Makes the ears fit for what is wanted of the leg and of its far leg.
    fn set_ears(&mut self, now: MonoTime, converts: bool) -> Result<(), Refusal> {
        let wanted = (self.switches, converts);
        let Some(audio) = &self.audio else {
            return Ok(());
        };
        if self.ears_wanted != wanted {
            self.ears = Ears::wanted(now, audio, self.switches, converts)?.map(Box::new);
            self.ears_wanted = wanted;
        }
        Ok(())
    }

    /// Follows what is known of the far peer's audio, where something is played over it.
    fn set_live_source(&mut self, source: LiveSource) -> Result<(), Refusal> {
        match &mut self.playing {
            Some(Playing::Over(overlay)) => overlay.set_source(source),
            Some(Playing::Alone(_)) | None => Ok(()),
        }
    }

    /// Makes ready to send on what the far leg's ears let through, or ceases to.
    fn set_filtered(&mut self, is_filtered: bool) -> Result<(), Refusal> {
        let Some(audio) = &self.audio else {
            return Ok(());
        };
        match (is_filtered, &self.filtered) {
            (true, None) => {
                let mut filtered = Filtered::new(&audio.send)?;
                filtered.set_expected_loss(self.expected_loss);
                self.filtered = Some(Box::new(filtered));
            }
            (false, Some(_)) => self.filtered = None,
            _ => {}
        }
        Ok(())
    }

    /// The leg ends: what its peer pressed last counts.
    pub(super) fn handle_close(&mut self, leg: LegIndex) {
        self.detector.finish();
        self.take_heard(leg);
        if let Some(ears) = &mut self.ears {
            ears.finish();
        }
        while let Some(event) = self.ears.as_mut().and_then(|ears| ears.poll_digit()) {
            self.note_digit(leg, event, ears::SOURCE);
        }
        self.stop_playing(leg, PlaybackEnd::Stopped);
    }

    /// Tells what the detector heard, and ends what a digit ends. Returns the digits that have
    /// ended, for whoever passes them on.
    fn take_heard(&mut self, leg: LegIndex) -> HeardDigits {
        let mut ended = HeardDigits::new();
        while let Some(event) = self.detector.poll_event() {
            if let Some(heard) = self.note_digit(leg, event, DigitSource::Event) {
                let _ = ended.push(heard);
            }
        }
        ended
    }

    /// Ends what a digit ends and tells one that has ended, which is returned.
    fn note_digit(
        &mut self,
        leg: LegIndex,
        event: DigitEvent,
        source: DigitSource,
    ) -> Option<HeardDigit> {
        match event {
            DigitEvent::Began(_) => {
                let playing = self.playing.as_ref();
                if playing.is_some_and(|playing| playing.list().ends_on_digit()) {
                    self.stop_playing(leg, PlaybackEnd::Digit);
                }
                None
            }
            DigitEvent::Ended(heard) => {
                self.tell(SessionEvent::DigitReceived {
                    leg,
                    digit: heard.digit,
                    duration_millis: heard.duration_millis,
                    source,
                });
                Some(heard)
            }
        }
    }

    fn tell(&mut self, event: SessionEvent) {
        // One too many is lost: a peer cannot press keys faster than the detector lets through.
        let _ = self.told.push(event);
    }

    pub(super) fn poll_event(&mut self) -> Option<SessionEvent> {
        self.told.pop()
    }
}

impl Default for LegMedia {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
