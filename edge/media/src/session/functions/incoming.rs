//! RTP of a leg that does more than relaying: what its peer says, and whose it is then.

use std::net::SocketAddr;

use trunkline_edge_api::{
    ClockRateHz, DropReason, LegIndex, MonoTime, PayloadRoute, PayloadType, Ssrc,
};

use super::super::Verdict;
use super::super::leg::Leg;
use super::live::Change;
use super::{HeardDigits, LegMedia};
use crate::demux::MediaKind;
use crate::packet_buf::PacketBuf;
use crate::rtp::RtpHeader;

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

/// An RTP packet that has passed the gate and is open.
pub(in crate::session) struct Arrival {
    pub(in crate::session) now: MonoTime,
    /// The leg it arrived on.
    pub(in crate::session) leg: LegIndex,
    pub(in crate::session) source: SocketAddr,
    /// Its length as it arrived.
    pub(in crate::session) len: usize,
    pub(in crate::session) header: RtpHeader,
}

/// The RTP of a session in which one leg at least does more than relaying.
#[cold]
pub(in crate::session) fn handle_rtp(
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
        if let Some(ears) = &mut media.ears {
            ears.receive(*now, header, payload_of(header, packet));
        }
        if media.switches.muted {
            return Verdict::Drop(DropReason::MediaReplaced);
        }
        // A copy would go out with the digits that are still to be found in it.
        if let (Some(fork), false) = (&mut media.fork, media.switches.hides_digits) {
            fork.copy(header, packet);
        }
        if let Some(tap) = &mut media.tap {
            let receive = media.audio.as_ref().map(|audio| &audio.receive);
            let format = receive.and_then(|formats| formats.find(header.payload_type));
            tap.keep(format.copied(), packet);
        }
        if media.ears.as_ref().is_some_and(|ears| ears.filters()) {
            return Verdict::Consumed;
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
    if let Some(overlay) = media.overlay_of_live() {
        overlay.receive(*now, header, payload_of(header, packet));
        media.leave_out(header);
        media.take_digits(digits);
        return Verdict::Consumed;
    }
    let route = match (kind, route) {
        // Beside audio that is encoded anew an event's clock and numbering are nobody's: it is
        // said again when it has ended.
        (Kind::Event(_), route) if route.is_none() || !media.live.is_empty() => {
            media.pass_over(header);
            media.take_digits(digits);
            return Verdict::Consumed;
        }
        (Kind::ComfortNoise(_), _) if media.encodes(header.ssrc) => {
            if media.is_replaced() {
                media.leave_out(header);
                return Verdict::Drop(DropReason::MediaReplaced);
            }
            media.take_noise(header, payload_of(header, packet));
            return Verdict::Consumed;
        }
        (_, Some(route)) => {
            if let Kind::Audio(_) = kind {
                media.live_in_use = None;
            }
            media.leave_out(header);
            route
        }
        (Kind::Event(_) | Kind::ComfortNoise(_), None) => {
            media.pass_over(header);
            return Verdict::Consumed;
        }
        (Kind::Audio(clock_rate), None) => {
            if media.is_replaced() {
                media.leave_out(header);
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
    fn take_digits(&mut self, mut digits: HeardDigits) {
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

    /// Whether what `source` said last was encoded anew.
    fn encodes(&self, source: Ssrc) -> bool {
        let mut live = self.live.iter();
        live.any(|live| Some(live.payload_type()) == self.live_in_use && live.encodes(source))
    }

    /// Comfort noise of the far peer: of the format that it spoke in last.
    fn take_noise(&mut self, header: &RtpHeader, payload: &[u8]) {
        for live in &mut self.live {
            if Some(live.payload_type()) == self.live_in_use {
                live.handle_comfort_noise(header, payload);
            } else {
                live.handle_replaced(header);
            }
        }
    }

    /// A packet of the far peer in whose time something else is sent.
    fn leave_out(&mut self, header: &RtpHeader) {
        for live in &mut self.live {
            live.handle_replaced(header);
        }
    }

    /// Audio of the far peer that no route takes here, and the number under which it leaves.
    fn take_audio(
        &mut self,
        header: &RtpHeader,
        packet: &mut [u8],
    ) -> Option<(Change, PayloadType)> {
        let to = self.audio.as_ref()?.send.payload_type;
        let mut change = None;
        for live in &mut self.live {
            if live.payload_type() == header.payload_type {
                change = Some((live.handle_packet(header, packet), to));
            } else {
                // The peer went over to another of its formats: nothing is missing in this one.
                live.handle_replaced(header);
            }
        }
        if change.is_some() {
            self.live_in_use = Some(header.payload_type);
        }
        change
    }
}

fn payload_of<'p>(header: &RtpHeader, packet: &'p [u8]) -> &'p [u8] {
    packet
        .get(header.header_len..)
        .and_then(|rest| rest.get(..header.payload_len))
        .unwrap_or_default()
}
