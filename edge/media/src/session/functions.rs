//! What a leg does beside relaying: transcode, hear digits and send them, play, fork, be tapped.
//!
//! ```text
//!   near's peer --> events? --> digits told             far's peer hears one of
//!        |                                                 digits that are sent
//!        +--------> audio ---> tap, fork                   a playback
//!                     |                                    a conference
//!                     +------------------------------->    near's audio: as it came,
//!                                                          through a table, or transcoded
//! ```
//!
//! A leg that only relays has none of this: a null pointer is all that its packets meet.

use std::net::SocketAddr;

use trunkline_edge_api::{
    AudioFormat, ClockRateHz, DigitMethod, DigitSource, DigitString, DigitsId, DigitsToSend,
    DropReason, LegAudio, LegFunctions, LegIndex, MediaFork, MonoTime, PayloadRoute, PayloadType,
    PlaybackEnd, PlaybackId, Refusal,
};

use super::leg::Leg;
use super::{
    MediaSession, SessionCommand, SessionEvent, TRANSMIT_LEN_MAX, Transmit, Verdict, Wants,
};
use crate::demux::MediaKind;
use crate::dtmf::{DigitEvent, EventDetector, EventSender, HeardDigit};
use crate::outbox::Outbox;
use crate::packet_buf::PacketBuf;
use crate::rewrite::{OutgoingStream, Position};
use crate::rtp::{HEADER_LEN_MIN, RtpHeader};

mod fork;
mod live;
mod made;
mod pace;
mod player;
mod seat;
mod tap;
mod tones;

use fork::Fork;
use live::{Change, LiveFormat};
use made::{Feed, Made};
pub use player::PreparedPlayback;
use player::{Played, Player};
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
    player: Option<Player>,
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
    told: Outbox<SessionEvent, EVENTS_MAX>,
}

/// What a packet of the leg's peer is, and by which clock it is stamped.
#[derive(Clone, Copy)]
enum Kind {
    Audio(ClockRateHz),
    Event(ClockRateHz),
    ComfortNoise(ClockRateHz),
}

impl Kind {
    /// `None` for what was not agreed on.
    fn of(
        payload_type: PayloadType,
        media: Option<&LegMedia>,
        route: Option<PayloadRoute>,
    ) -> Option<Self> {
        let of_route = route.map(|route| Kind::Audio(route.clock_rate));
        let Some(audio) = media.and_then(|media| media.audio.as_ref()) else {
            return of_route;
        };
        if let Some(events) = audio.receive_events
            && events.payload_type == payload_type
        {
            return Some(Kind::Event(events.clock_rate));
        }
        if audio.comfort_noise == Some(payload_type) {
            let clock_rate = route.map_or(ClockRateHz::NARROWBAND, |route| route.clock_rate);
            return Some(Kind::ComfortNoise(clock_rate));
        }
        let format = audio.receive.find(payload_type);
        format
            .map(|format| Kind::Audio(format.clock_rate))
            .or(of_route)
    }

    fn clock_rate(self) -> ClockRateHz {
        match self {
            Kind::Audio(rate) | Kind::Event(rate) | Kind::ComfortNoise(rate) => rate,
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
            player: None,
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
            told: Outbox::new(),
        }
    }

    /// RTP clock of what the edge makes, while it makes all that the leg sends.
    pub(super) fn sent_clock_hz(&self) -> Option<u32> {
        let makes_all = self.player.is_some() || self.seat.is_some() || !self.live.is_empty();
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
            self.live.clear();
        }
        self.seat = match (&self.seat, &audio) {
            (Some(_), Some(audio)) => Some(self.new_seat(audio)?),
            _ => None,
        };
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
            self.live.clear();
            return Ok(());
        };
        let mut old = std::mem::take(&mut self.live);
        for format in formats {
            // One that goes on keeps its codecs' memory.
            let kept = old.iter().position(|live| live.is_from(format));
            let live = match kept {
                Some(index) => old.swap_remove(index),
                None => LiveFormat::new(*format, &audio.send)?,
            };
            self.live.push(live);
        }
        Ok(())
    }

    pub(super) fn play(
        &mut self,
        now: MonoTime,
        leg: LegIndex,
        prepared: PreparedPlayback,
    ) -> Result<(), Refusal> {
        if self.newest_playback == Some(prepared.playback.id) {
            return Ok(());
        }
        let audio = self.audio.as_ref().ok_or(Refusal::AudioNotConfigured)?;
        let id = prepared.playback.id;
        let player = Player::new(now, prepared, &audio.send)?;
        self.stop_playing(leg, PlaybackEnd::Stopped);
        self.newest_playback = Some(id);
        self.player = Some(player);
        Ok(())
    }

    pub(super) fn stop_playing(&mut self, leg: LegIndex, cause: PlaybackEnd) {
        if let Some(player) = self.player.take() {
            self.tell(SessionEvent::PlaybackEnded {
                leg,
                playback: player.id(),
                cause,
                played_millis: player.played_millis(),
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
        Seat::new(audio, self.seats)
    }

    fn set_seated(&mut self, is_seated: bool) -> Result<(), Refusal> {
        match (is_seated, &self.seat) {
            (true, None) => {
                let audio = self.audio.clone().ok_or(Refusal::AudioNotConfigured)?;
                self.seat = Some(self.new_seat(&audio)?);
            }
            (false, Some(_)) => self.seat = None,
            _ => {}
        }
        Ok(())
    }

    pub(super) fn set_fork(&mut self, fork: Option<MediaFork>) {
        if self.fork.as_ref().map(Fork::target) != fork {
            self.fork = fork.map(Fork::new);
        }
    }

    /// Whether the far peer's audio has to give way to what the edge makes.
    fn is_replaced(&self) -> bool {
        self.player.is_some()
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

    /// Whether there is a packet that something else than time has brought about.
    fn has_output(&self) -> bool {
        self.live.iter().any(LiveFormat::has_output)
            || self.fork.as_ref().is_some_and(Fork::has_copy)
    }

    /// Whether time has to be told to the leg every few milliseconds.
    pub(super) fn is_clocked(&self) -> bool {
        self.player.is_some() || self.is_sending_digits() || self.detector.poll_timeout().is_some()
    }

    pub(super) fn handle_tick(&mut self, now: MonoTime, leg: LegIndex) {
        self.detector.handle_timeout(now);
        self.take_heard(leg);
    }

    /// The leg ends: what its peer pressed last counts.
    pub(super) fn handle_close(&mut self, leg: LegIndex) {
        self.detector.finish();
        self.take_heard(leg);
        self.stop_playing(leg, PlaybackEnd::Stopped);
    }

    /// Tells what the detector heard, and ends what a digit ends. Returns the digits that have
    /// ended, for whoever passes them on.
    fn take_heard(&mut self, leg: LegIndex) -> HeardDigits {
        let mut ended = HeardDigits::new();
        while let Some(event) = self.detector.poll_event() {
            match event {
                DigitEvent::Began(_) => {
                    if self.player.as_ref().is_some_and(Player::ends_on_digit) {
                        self.stop_playing(leg, PlaybackEnd::Digit);
                    }
                }
                DigitEvent::Ended(heard) => {
                    self.tell(SessionEvent::DigitReceived {
                        leg,
                        digit: heard.digit,
                        duration_millis: heard.duration_millis,
                        source: DigitSource::Event,
                    });
                    let _ = ended.push(heard);
                }
            }
        }
        ended
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

/// An RTP packet that has passed the gate and is open.
pub(super) struct Arrival {
    pub(super) now: MonoTime,
    /// The leg it arrived on.
    pub(super) leg: LegIndex,
    pub(super) source: SocketAddr,
    /// Its length as it arrived.
    pub(super) len: usize,
    pub(super) header: RtpHeader,
}

/// The RTP of a session in which one leg at least does more than relaying.
#[cold]
pub(super) fn handle_rtp(
    arrival: &Arrival,
    near: &mut Leg,
    far: &mut Option<Leg>,
    packet: &mut PacketBuf<'_>,
) -> Verdict {
    let Arrival { now, header, .. } = arrival;
    let route = near.route(header.payload_type);
    let media = near.media.as_deref();
    let Some(kind) = Kind::of(header.payload_type, media, route) else {
        near.hear_stranger(*now, header.payload_type);
        return Verdict::Drop(DropReason::PayloadTypeNotNegotiated);
    };
    near.hear_rtp(*now, arrival.source, header, kind.clock_rate(), arrival.len);
    if !near.direction().receives() {
        return Verdict::Drop(DropReason::DirectionInactive);
    }
    let mut digits = HeardDigits::new();
    if let Some(media) = &mut near.media {
        if let Kind::Event(clock_rate) = kind {
            let payload = payload_of(header, packet);
            media.detector.handle_packet(
                *now,
                clock_rate,
                header.timestamp,
                header.marker,
                payload,
            );
            digits = media.take_heard(arrival.leg);
            if media.switches.hides_digits {
                return Verdict::Consumed;
            }
        }
        if media.switches.muted {
            return Verdict::Drop(DropReason::MediaReplaced);
        }
        if let Some(fork) = &mut media.fork {
            fork.copy(header, packet);
        }
        if let Some(tap) = &mut media.tap {
            let receive = media.audio.as_ref().map(|audio| &audio.receive);
            let format = receive.and_then(|formats| formats.find(header.payload_type));
            tap.keep(format.copied(), packet);
        }
        if let Some(seat) = &mut media.seat {
            seat.receive(*now, header, payload_of(header, packet));
            return Verdict::Consumed;
        }
    }
    let Some(far) = far else {
        return Verdict::Drop(DropReason::NoDestination);
    };
    if !far.direction().sends() {
        return Verdict::Drop(DropReason::DirectionInactive);
    }
    if far.destination(MediaKind::Rtp).is_none() {
        return Verdict::Drop(DropReason::NoDestination);
    }
    hand_over(arrival, far, kind, route, digits, packet)
}

/// Lets the far leg do with a packet what it does with its far peer's media.
fn hand_over(
    arrival: &Arrival,
    far: &mut Leg,
    kind: Kind,
    route: Option<PayloadRoute>,
    digits: HeardDigits,
    packet: &mut PacketBuf<'_>,
) -> Verdict {
    let Arrival { now, header, .. } = arrival;
    let leg = arrival.leg.far();
    let Some(media) = &mut far.media else {
        return match route {
            Some(route) => far.relay(*now, leg, header, route, packet),
            None => Verdict::Drop(DropReason::PayloadTypeNotNegotiated),
        };
    };
    let route = match (kind, route) {
        // Beside audio that is encoded anew an event's clock and numbering are nobody's: it is
        // said again when it has ended.
        (Kind::Event(_), route) if route.is_none() || !media.live.is_empty() => {
            media.take_digits(header, digits);
            return Verdict::Consumed;
        }
        (_, Some(route)) => route,
        (Kind::Event(_) | Kind::ComfortNoise(_), None) => {
            media.pass_over(header);
            return Verdict::Consumed;
        }
        (Kind::Audio(clock_rate), None) => {
            if media.is_replaced() {
                return Verdict::Drop(DropReason::MediaReplaced);
            }
            match media.take_audio(header, packet) {
                None => return Verdict::Drop(DropReason::PayloadTypeNotNegotiated),
                Some((Change::TakenIn, _)) => return Verdict::Consumed,
                Some((Change::Unreadable, _)) => return Verdict::Drop(DropReason::BadAudioFrame),
                Some((Change::InPlace, to)) => PayloadRoute {
                    from: header.payload_type,
                    to,
                    clock_rate,
                },
            }
        }
    };
    if media.is_replaced() {
        return Verdict::Drop(DropReason::MediaReplaced);
    }
    far.relay(*now, leg, header, route, packet)
}

impl LegMedia {
    /// Digits of the far peer that this leg's peer is to be told in its own way.
    fn take_digits(&mut self, header: &RtpHeader, mut digits: HeardDigits) {
        self.pass_over(header);
        while let Some(digit) = digits.pop() {
            self.convert_digit(&digit);
        }
    }

    /// A packet of the far peer without audio.
    fn pass_over(&mut self, header: &RtpHeader) {
        for live in &mut self.live {
            live.handle_other(header);
        }
    }

    /// Audio of the far peer that no route takes here, and the number under which it leaves.
    fn take_audio(
        &mut self,
        header: &RtpHeader,
        packet: &mut [u8],
    ) -> Option<(Change, PayloadType)> {
        let to = self.audio.as_ref()?.send.payload_type;
        let live = self
            .live
            .iter_mut()
            .find(|live| live.payload_type() == header.payload_type)?;
        Some((live.handle_packet(header, packet), to))
    }
}

fn payload_of<'p>(header: &RtpHeader, packet: &'p [u8]) -> &'p [u8] {
    packet
        .get(header.header_len..)
        .and_then(|rest| rest.get(..header.payload_len))
        .unwrap_or_default()
}

impl Leg {
    /// The next packet that the edge makes for this leg's peer, or copies of what it says.
    pub(super) fn poll_media(
        &mut self,
        now: MonoTime,
        index: LegIndex,
        out: &mut [u8],
    ) -> Option<Transmit> {
        // Each turn sends, ends or skips something that was due, so the turns are bounded by it.
        loop {
            let made = match self.media.as_mut()?.next(now, index, &self.stream, out)? {
                Next::Made(made) => made,
                Next::Copy(transmit) => return Some(transmit),
                Next::Again => continue,
            };
            if let Some(transmit) = self.send_made(now, index, made, out) {
                return Some(transmit);
            }
        }
    }
}

enum Next {
    Made(Made),
    Copy(Transmit),
    /// Something came to an end; there may be more.
    Again,
}

impl LegMedia {
    fn next(
        &mut self,
        now: MonoTime,
        leg: LegIndex,
        stream: &OutgoingStream,
        out: &mut [u8],
    ) -> Option<Next> {
        if let Some(copy) = self.fork.as_mut().and_then(|fork| fork.poll(leg, out)) {
            return Some(Next::Copy(copy));
        }
        let audio = self.audio.as_ref()?;
        if let (Some(sender), Some(events)) = (&mut self.event_sender, audio.send_events) {
            let clock = events.clock_rate;
            let stream_now = stream.timestamp_at(now, clock.get()).unwrap_or_default();
            if let Some(packet) = sender.poll(now, stream_now) {
                out.get_mut(HEADER_LEN_MIN..)?
                    .get_mut(..packet.payload.len())?
                    .copy_from_slice(&packet.payload);
                let sequence = self.event_sequence;
                self.event_sequence = sequence.wrapping_add(1);
                return Some(Next::Made(Made {
                    feed: Feed::Events,
                    position: Position {
                        sequence,
                        timestamp: packet.timestamp,
                    },
                    marker: packet.marker,
                    payload_type: events.payload_type,
                    clock_rate: clock,
                    payload_len: packet.payload.len(),
                }));
            }
            if let Some(id) = sender.poll_done() {
                self.tell_sent(leg, id);
                return Some(Next::Again);
            }
        }
        if let Some(player) = &mut self.tone_player {
            if let Some(made) = player.poll(now, out) {
                return Some(Next::Made(made));
            }
            if let Some(id) = player.poll_done() {
                self.tell_sent(leg, id);
                return Some(Next::Again);
            }
        }
        let is_silenced = self.is_sending_digits();
        if let Some(player) = &mut self.player {
            return match player.poll(now, out)? {
                Played::Packet(made) if !is_silenced => Some(Next::Made(made)),
                Played::Packet(_) | Played::Nothing => Some(Next::Again),
                Played::Ended => {
                    self.stop_playing(leg, PlaybackEnd::Completed);
                    Some(Next::Again)
                }
            };
        }
        let to = &self.audio.as_ref()?.send;
        self.live
            .iter_mut()
            .zip(0u8..)
            .find_map(|(live, index)| live.poll_packet(index, to, out))
            .map(Next::Made)
    }

    fn tell_sent(&mut self, leg: LegIndex, id: DigitsId) {
        if id.0 & CONVERTED == 0 {
            self.tell(SessionEvent::DigitsSent { leg, digits: id });
        }
    }
}

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
        for (index, leg) in LegIndex::ALL.into_iter().zip(&mut self.legs) {
            if let Some(media) = leg.as_mut().and_then(|leg| leg.media.as_deref_mut()) {
                media.handle_tick(now, index);
            }
        }
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
        let is_silenced = media.player.is_some() || media.is_sending_digits();
        let made = media.seat.as_mut()?.send(frame, is_silenced, out)?;
        side.send_made(now, leg, made, out)
    }

    /// Playbacks that run.
    #[must_use]
    pub fn playback_count(&self) -> usize {
        let media = self
            .legs
            .iter()
            .flatten()
            .filter_map(|leg| leg.media.as_deref());
        media.filter(|media| media.player.is_some()).count()
    }

    /// Milliseconds of audio that were made up for what did not come.
    #[must_use]
    pub fn concealed_millis(&self) -> u64 {
        let media = self
            .legs
            .iter()
            .flatten()
            .filter_map(|leg| leg.media.as_deref());
        let live = media.flat_map(|media| &media.live);
        live.map(LiveFormat::concealed_millis).sum()
    }

    /// What the peer of `leg` is sent when the edge encodes; `None` while control has not said.
    #[must_use]
    pub fn send_format(&self, leg: LegIndex) -> Option<AudioFormat> {
        let media = self.legs[leg.as_usize()].as_ref()?.media.as_ref()?;
        media.audio.as_ref().map(|audio| audio.send)
    }

    pub(super) fn handle_function(
        &mut self,
        now: MonoTime,
        command: SessionCommand,
    ) -> Result<(), Refusal> {
        match command {
            SessionCommand::SetAudio(leg, audio) => {
                self.media_mut(leg)?
                    .set_audio(leg, audio.map(|audio| *audio))?;
                self.arrange_live_formats()
            }
            SessionCommand::SetFunctions(leg, switches) => {
                self.media_mut(leg)?.switches = switches;
                Ok(())
            }
            SessionCommand::Play(leg, prepared) => self.media_mut(leg)?.play(now, leg, prepared),
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

    /// The leg's functions, which it has from now on.
    fn media_mut(&mut self, leg: LegIndex) -> Result<&mut LegMedia, Refusal> {
        let leg = self.legs[leg.as_usize()]
            .as_mut()
            .ok_or(Refusal::NoSuchLeg)?;
        self.has_functions = true;
        Ok(leg.media.get_or_insert_default())
    }

    /// Makes each leg ready for those formats of its far peer that no route takes there.
    pub(super) fn arrange_live_formats(&mut self) -> Result<(), Refusal> {
        if !self.has_functions {
            return Ok(());
        }
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

    pub(super) fn take_told(&mut self) -> Option<SessionEvent> {
        if !self.has_functions {
            return None;
        }
        self.legs
            .iter_mut()
            .flatten()
            .find_map(|leg| leg.media.as_deref_mut()?.poll_event())
    }

    /// The session ends: what its legs were about to tell is told.
    pub(super) fn close_functions(&mut self) {
        for (index, leg) in LegIndex::ALL.into_iter().zip(&mut self.legs) {
            if let Some(media) = leg.as_mut().and_then(|leg| leg.media.as_deref_mut()) {
                media.handle_close(index);
            }
        }
    }
}

#[cfg(test)]
mod tests;
