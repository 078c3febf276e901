//! A relayed call: two legs, and what becomes of each packet that arrives on one of them.
//!
//! ```text
//!   size -> protocol -> socket -> source gate -> SRTP open -> header -> payload type -> learn
//!        -> direction -> far leg -> rewrite in place -> SRTP seal -> Forward
//! ```
//!
//! The order is fixed: what costs least and what strangers can send is judged first, and nothing is
//! learnt or counted as media before the packet is known to be the peer's and valid.

use std::net::SocketAddr;

use trunkline_edge_api::{
    Digit, DigitSource, DigitsId, DigitsToSend, DropReason, LegAudio, LegConfig, LegFunctions,
    LegIndex, LegReport, LocalMedia, MediaFork, MediaTimeoutKind, MonoTime, PlaybackEnd,
    PlaybackId, ProgressSignal, Refusal,
};

use crate::demux::{MediaKind, Protocol, protocol_of};
use crate::packet_buf::PacketBuf;
use crate::rtcp::{self, Translation};
use crate::rtp::RtpHeader;

mod functions;
mod leg;
mod security;
mod watch;

use functions::LegMedia;
pub use functions::{MixFrame, PreparedPlayback, Tapped};
use leg::Leg;
pub use watch::TRANSMIT_LEN_MAX;

/// Which of a leg's sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SocketKind {
    /// RTP, and RTCP too when it is multiplexed.
    Rtp = 0,
    /// RTCP alone, one port above RTP.
    Rtcp = 1,
}

/// What the receiver knows of a datagram beside its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RxMeta {
    /// Who sent it.
    pub source: SocketAddr,
    /// The socket it arrived on.
    pub socket: SocketKind,
    /// The datagram was longer than the buffer.
    pub truncated: bool,
}

/// What is to be done with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Send the first [`Transmit::len`] bytes.
    Forward(Transmit),
    /// It was for us alone.
    Consumed,
    /// It goes no further.
    Drop(DropReason),
}

impl Verdict {
    /// Whether the packet was the peer's and valid, even if it could go no further.
    #[must_use]
    pub fn accepts(&self) -> bool {
        match self {
            Verdict::Forward(_) | Verdict::Consumed => true,
            Verdict::Drop(reason) => matches!(
                reason,
                DropReason::DirectionInactive
                    | DropReason::NoDestination
                    | DropReason::OutOfSequence
            ),
        }
    }
}

/// Where a packet leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// The leg it leaves on.
    pub leg: LegIndex,
    /// The leg's socket it leaves from.
    pub socket: SocketKind,
    /// What it is.
    pub kind: MediaKind,
    /// To whom.
    pub dest: SocketAddr,
    /// Its length, bytes; more than what arrived when the leg protects what it sends.
    pub len: usize,
}

/// A change to a session, as one of control's commands asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionCommand {
    /// [`trunkline_edge_api::Command::OpenLeg`], after its sockets are bound.
    OpenLeg(LegIndex, LocalMedia),
    /// [`trunkline_edge_api::Command::ConfigureLeg`].
    ConfigureLeg(LegIndex, LegConfig),
    /// [`trunkline_edge_api::Command::CloseLeg`].
    CloseLeg(LegIndex),
    /// [`trunkline_edge_api::Command::SetLegAudio`].
    SetAudio(LegIndex, Option<Box<LegAudio>>),
    /// [`trunkline_edge_api::Command::SetLegFunctions`].
    SetFunctions(LegIndex, LegFunctions),
    /// [`trunkline_edge_api::Command::Play`], with the prompts that it names.
    Play(LegIndex, PreparedPlayback),
    /// [`trunkline_edge_api::Command::StopPlaying`].
    StopPlaying(LegIndex),
    /// [`trunkline_edge_api::Command::SendDigits`].
    SendDigits(LegIndex, DigitsToSend),
    /// [`trunkline_edge_api::Command::SetFork`].
    SetFork(LegIndex, Option<MediaFork>),
    /// Keep what the leg's peer says for [`MediaSession::take_tapped`], or cease to.
    SetTapped(LegIndex, bool),
    /// Give the leg a seat in a conference, or take it away: [`MediaSession::hear`] and
    /// [`MediaSession::send_mix`] are the conference's side of it.
    SetSeated(LegIndex, bool),
}

/// What a session tells its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEvent {
    /// [`trunkline_edge_api::Event::MediaStarted`].
    MediaStarted {
        /// The leg that heard it.
        leg: LegIndex,
        /// Where it came from.
        source: SocketAddr,
    },
    /// [`trunkline_edge_api::Event::MediaTimedOut`].
    MediaTimedOut {
        /// The leg that hears nothing.
        leg: LegIndex,
        /// Which silence.
        kind: MediaTimeoutKind,
    },
    /// [`trunkline_edge_api::Event::DigitReceived`].
    DigitReceived {
        /// The leg that heard it.
        leg: LegIndex,
        /// Which key.
        digit: Digit,
        /// For how long, milliseconds.
        duration_millis: u32,
        /// How it came.
        source: DigitSource,
    },
    /// [`trunkline_edge_api::Event::DigitsSent`].
    DigitsSent {
        /// The leg whose peer was sent them.
        leg: LegIndex,
        /// Which string.
        digits: DigitsId,
    },
    /// [`trunkline_edge_api::Event::ActivityChanged`].
    ActivityChanged {
        /// The leg that heard it.
        leg: LegIndex,
        /// Whether its peer speaks now.
        is_speaking: bool,
    },
    /// [`trunkline_edge_api::Event::BeepHeard`].
    BeepHeard {
        /// The leg that heard it.
        leg: LegIndex,
        /// Its frequency, Hz.
        frequency_hz: u16,
        /// How long it lasted, milliseconds.
        duration_millis: u32,
    },
    /// [`trunkline_edge_api::Event::ProgressHeard`].
    ProgressHeard {
        /// The leg that heard it.
        leg: LegIndex,
        /// What it means.
        signal: ProgressSignal,
        /// What was heard, Hz.
        frequencies_hz: [u16; 3],
    },
    /// [`trunkline_edge_api::Event::PlaybackEnded`].
    PlaybackEnded {
        /// The leg whose peer heard it.
        leg: LegIndex,
        /// Which playback.
        playback: PlaybackId,
        /// Why it is over.
        cause: PlaybackEnd,
        /// How much of it was played, milliseconds.
        played_millis: u64,
    },
}

/// What a session wants of its owner after a packet, a command or a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wants {
    /// [`MediaSession::poll_transmit`] until it has nothing more.
    pub transmit: bool,
    /// [`MediaSession::handle_tick`] every [`TICK_MILLIS`].
    pub ticks: bool,
    /// [`MediaSession::take_tapped`].
    pub tapped: bool,
}

/// How often a session that is clocked is to be told the time, milliseconds.
pub const TICK_MILLIS: u64 = 10;

/// Two legs and what flows between them.
#[derive(Debug, Default)]
pub struct MediaSession {
    /// Indexed by [`LegIndex`].
    legs: [Option<Leg>; 2],
    /// When the last packet was accepted; `None` before the first.
    last_heard: Option<MonoTime>,
    /// One of the legs does more than relaying.
    has_functions: bool,
    /// What a leg that was closed has yet to tell.
    parted: Option<Box<LegMedia>>,
}

impl MediaSession {
    /// A session without legs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Judges one datagram that arrived on `leg` and edits it in place for its way onward. Never
    /// allocates. The caller sends what a [`Verdict::Forward`] says, and tells
    /// [`Self::handle_send_failure`] when it cannot. A leg that protects what it sends needs
    /// [`crate::srtp::OVERHEAD_MAX`] bytes of room behind the datagram.
    #[inline]
    pub fn handle_packet<'b>(
        &mut self,
        now: MonoTime,
        leg: LegIndex,
        meta: &RxMeta,
        packet: impl Into<PacketBuf<'b>>,
    ) -> Verdict {
        self.judge(now, leg, meta, &mut packet.into())
    }

    #[inline]
    fn judge(
        &mut self,
        now: MonoTime,
        leg: LegIndex,
        meta: &RxMeta,
        packet: &mut PacketBuf<'_>,
    ) -> Verdict {
        let [a, b] = &mut self.legs;
        let (near, far) = match leg {
            LegIndex::A => (a, b),
            LegIndex::B => (b, a),
        };
        // A datagram that was on its way when its leg closed.
        let Some(near) = near else {
            return Verdict::Drop(DropReason::SourceNotAllowed);
        };
        let far_index = leg.far();
        let is_plain_relay = !self.has_functions && !meta.truncated;
        let verdict = match protocol_of(packet) {
            // The way of most packets. Its verdict is the largest thing that it moves, so it is
            // written once, and not looked at again.
            Protocol::Media(MediaKind::Rtp) if is_plain_relay => {
                let admitted = near.admits(now, MediaKind::Rtp, meta, packet);
                match admitted.and_then(|()| relay_rtp(now, near, far, meta, packet)) {
                    Ok((len, dest)) => {
                        self.last_heard = Some(now);
                        return Verdict::Forward(Transmit {
                            leg: far_index,
                            socket: SocketKind::Rtp,
                            kind: MediaKind::Rtp,
                            dest: *dest,
                            len,
                        });
                    }
                    Err(reason) => Verdict::Drop(reason),
                }
            }
            protocol => judge_other(now, protocol, near, leg, far, meta, packet),
        };
        if let Verdict::Drop(_) = verdict {
            near.report.dropped_packets += 1;
        }
        if verdict.accepts() {
            self.last_heard = Some(now);
        }
        verdict
    }

    /// Takes back that `transmit` was sent.
    pub fn handle_send_failure(&mut self, transmit: &Transmit) {
        if let Some(leg) = &mut self.legs[transmit.leg.as_usize()] {
            leg.unsend(transmit.kind, transmit.len);
        }
        if let Some(arrived_on) = &mut self.legs[transmit.leg.far().as_usize()] {
            arrived_on.report.dropped_packets += 1;
        }
    }

    /// Applies a command. Applying it again changes nothing.
    ///
    /// # Errors
    ///
    /// [`Refusal::LegOpenElsewhere`] for a leg that is open on another local address,
    /// [`Refusal::NoSuchLeg`] for the configuration of a leg that is not open, and
    /// [`Refusal::AddressMismatch`] when a remote address can be no peer of the leg: another
    /// family, unspecified, multicast, or port 0. Then nothing was changed.
    pub fn handle_command(
        &mut self,
        now: MonoTime,
        command: SessionCommand,
    ) -> Result<(), Refusal> {
        match command {
            SessionCommand::OpenLeg(leg, local) => {
                let leg = &mut self.legs[leg.as_usize()];
                match leg {
                    Some(open) if open.local() == local => Ok(()),
                    Some(_) => Err(Refusal::LegOpenElsewhere),
                    None => {
                        *leg = Some(Leg::new(local));
                        Ok(())
                    }
                }
            }
            SessionCommand::ConfigureLeg(leg, config) => {
                self.legs[leg.as_usize()]
                    .as_mut()
                    .ok_or(Refusal::NoSuchLeg)?
                    .configure(now, config)?;
                self.arrange(now)
            }
            SessionCommand::CloseLeg(leg) => {
                let closed = self.legs[leg.as_usize()].take();
                self.part_with(leg, closed);
                Ok(())
            }
            SessionCommand::SetAudio(..)
            | SessionCommand::SetFunctions(..)
            | SessionCommand::Play(..)
            | SessionCommand::StopPlaying(_)
            | SessionCommand::SendDigits(..)
            | SessionCommand::SetFork(..)
            | SessionCommand::SetTapped(..)
            | SessionCommand::SetSeated(..) => self.handle_function(now, command),
        }
    }

    /// What has happened since the last call; `None` when there is nothing more to tell.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        let started = LegIndex::ALL.into_iter().find_map(|leg| {
            let source = self.legs[leg.as_usize()].as_mut()?.take_media_start()?;
            Some(SessionEvent::MediaStarted { leg, source })
        });
        started
            .or_else(|| self.take_timed_out())
            .or_else(|| self.take_told())
    }

    /// What `leg` has bound; `None` when it is not open.
    #[must_use]
    pub fn local(&self, leg: LegIndex) -> Option<LocalMedia> {
        self.legs[leg.as_usize()].as_ref().map(Leg::local)
    }

    /// Figures of both legs, indexed by [`LegIndex`].
    #[must_use]
    pub fn report(&self) -> [LegReport; 2] {
        let report = |leg: &Option<Leg>, far: &Option<Leg>| {
            leg.as_ref()
                .map(|leg| leg.report(leg.sent_clock_hz(far.as_ref())))
                .unwrap_or_default()
        };
        let [a, b] = &self.legs;
        [report(a, b), report(b, a)]
    }

    /// When the last RTP or RTCP packet was accepted; `None` before the first.
    #[must_use]
    pub fn last_heard(&self) -> Option<MonoTime> {
        self.last_heard
    }
}

/// The same for all but RTP that is only relayed.
#[inline(never)]
fn judge_other(
    now: MonoTime,
    protocol: Protocol,
    near: &mut Leg,
    leg: LegIndex,
    far: &mut Option<Leg>,
    meta: &RxMeta,
    packet: &mut PacketBuf<'_>,
) -> Verdict {
    if meta.truncated {
        return Verdict::Drop(DropReason::Oversize);
    }
    let kind = match protocol {
        Protocol::Media(kind) => kind,
        Protocol::Stun => return Verdict::Drop(DropReason::UnexpectedStun),
        Protocol::Dtls => return Verdict::Drop(DropReason::UnexpectedDtls),
        Protocol::TurnChannel | Protocol::Unknown => return Verdict::Drop(DropReason::NotMedia),
    };
    if let Err(reason) = near.admits(now, kind, meta, packet) {
        return Verdict::Drop(reason);
    }
    match kind {
        MediaKind::Rtp => handle_rtp(now, near, leg, far, meta, packet),
        MediaKind::Rtcp => relay_rtcp(now, near, leg.far(), far, meta, packet),
    }
}

/// RTP of a session one of whose legs does more than relaying.
fn handle_rtp(
    now: MonoTime,
    near: &mut Leg,
    leg: LegIndex,
    far: &mut Option<Leg>,
    meta: &RxMeta,
    packet: &mut PacketBuf<'_>,
) -> Verdict {
    let len = packet.len();
    if let Err(reason) = near.open(MediaKind::Rtp, packet) {
        return Verdict::Drop(reason);
    }
    let Ok(header) = RtpHeader::parse(packet) else {
        return Verdict::Drop(DropReason::MalformedRtp);
    };
    let arrival = functions::incoming::Arrival {
        now,
        leg,
        source: meta.source,
        len,
        header,
    };
    functions::incoming::handle_rtp(&arrival, near, far, packet)
}

/// Says how long the packet has become, and where it goes.
#[inline]
fn relay_rtp<'far>(
    now: MonoTime,
    near: &mut Leg,
    far: &'far mut Option<Leg>,
    meta: &RxMeta,
    packet: &mut PacketBuf<'_>,
) -> Result<(usize, &'far SocketAddr), DropReason> {
    let arrived_len = packet.len();
    near.open(MediaKind::Rtp, packet)?;
    let Ok(header) = RtpHeader::parse(packet) else {
        return Err(DropReason::MalformedRtp);
    };
    let Some(route) = near.route(header.payload_type) else {
        near.hear_stranger(now, header.payload_type);
        return Err(DropReason::PayloadTypeNotNegotiated);
    };
    near.hear_rtp(now, meta.source, &header, route.clock_rate, arrived_len);
    if !near.direction().receives() {
        return Err(DropReason::DirectionInactive);
    }
    let far = far.as_mut().ok_or(DropReason::NoDestination)?;
    if !far.direction().sends() {
        return Err(DropReason::DirectionInactive);
    }
    if far.destination(MediaKind::Rtp).is_none() {
        return Err(DropReason::NoDestination);
    }
    far.renumber(now, &header, route, packet)?;
    far.protect(MediaKind::Rtp, packet)
}

fn relay_rtcp(
    now: MonoTime,
    near: &mut Leg,
    far_index: LegIndex,
    far: &mut Option<Leg>,
    meta: &RxMeta,
    packet: &mut PacketBuf<'_>,
) -> Verdict {
    if let Err(reason) = near.open(MediaKind::Rtcp, packet) {
        return Verdict::Drop(reason);
    }
    if rtcp::validate(packet).is_err() {
        return Verdict::Drop(DropReason::MalformedRtcp);
    }
    near.hear_rtcp(now, meta, packet);
    let Some(far) = far else {
        return Verdict::Drop(DropReason::NoDestination);
    };
    if far.destination(MediaKind::Rtcp).is_none() {
        return Verdict::Drop(DropReason::NoDestination);
    }
    let translation = Translation {
        onward: &far.stream,
        reported: &near.stream,
    };
    match rtcp::translate(packet, translation) {
        Ok(0) => Verdict::Consumed,
        Ok(len) => {
            packet.truncate(len);
            far.pass_rtcp(now, packet);
            far.transmit(far_index, MediaKind::Rtcp, packet)
        }
        Err(_) => Verdict::Drop(DropReason::MalformedRtcp),
    }
}

#[cfg(test)]
mod tests;
