//! What a session does without a packet to cause it: reports of its own, silence that is told, and
//! the farewell.

use trunkline_edge_api::{LegIndex, MediaTimeoutKind, MonoTime};

use super::{MediaSession, SessionEvent, Transmit, Verdict};
use crate::codec::ENCODED_LEN_MAX;
use crate::demux::MediaKind;
use crate::packet_buf::PacketBuf;
use crate::rtcp::report::Report;
use crate::rtp::HEADER_LEN_MIN;
use crate::srtp;

/// Room for what [`MediaSession::poll_transmit`] makes.
pub const TRANSMIT_LEN_MAX: usize = MADE_LEN_MAX + srtp::OVERHEAD_MAX;

/// Longest packet before it is protected: a report, or RTP with any payload that an encoder makes
/// and any copy of a packet.
const MADE_LEN_MAX: usize = 1_472;
const _: () = assert!(Report::LEN_MAX <= MADE_LEN_MAX);
const _: () = assert!(HEADER_LEN_MIN + ENCODED_LEN_MAX <= MADE_LEN_MAX);

/// What a leg has yet to say to its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnRtcp {
    None,
    Report,
    /// A report and BYE (RFC 3550 §6.1: a compound begins with a report).
    Goodbye,
}

impl MediaSession {
    /// When [`Self::handle_timeout`] is to be called; `None`: not before the next command. Packets
    /// only ever move it later, so it needs to be asked for after a command and after a timeout.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<MonoTime> {
        self.legs
            .iter()
            .flatten()
            .flat_map(|leg| [leg.quality.schedule.due(), leg.quality.silence.deadline()])
            .flatten()
            .min()
    }

    /// Takes note of what time has brought. [`Self::poll_transmit`] and [`Self::poll_event`] tell
    /// what follows.
    pub fn handle_timeout(&mut self, now: MonoTime) {
        for leg in self.legs.iter_mut().flatten() {
            if leg.quality.schedule.take_due(now) && leg.own_rtcp == OwnRtcp::None {
                leg.own_rtcp = OwnRtcp::Report;
            }
            if let Some(kind) = leg.quality.silence.take_timeout(now) {
                leg.timed_out = Some(kind);
            }
        }
    }

    /// The session is about to end: each leg that has sent anything has a BYE to say
    /// (RFC 3550 §6.3.7).
    pub fn handle_close(&mut self) {
        self.close_functions();
        for leg in self.legs.iter_mut().flatten() {
            let has_sent = leg.stream.packets() != 0 || leg.report.tx_rtcp_packets != 0;
            if has_sent {
                leg.own_rtcp = OwnRtcp::Goodbye;
            }
        }
    }

    /// Writes the next packet of the session's own to the front of `out`; `None` when there is no
    /// more. To be asked after [`Self::handle_timeout`], [`Self::handle_tick`] and
    /// [`Self::handle_close`], and whenever [`Self::wants`] says so.
    pub fn poll_transmit(
        &mut self,
        now: MonoTime,
        out: &mut [u8; TRANSMIT_LEN_MAX],
    ) -> Option<Transmit> {
        LegIndex::ALL
            .into_iter()
            .find_map(|index| self.transmit_own(now, index, out))
            .or_else(|| self.transmit_media(now, out))
    }

    fn transmit_media(
        &mut self,
        now: MonoTime,
        out: &mut [u8; TRANSMIT_LEN_MAX],
    ) -> Option<Transmit> {
        if !self.has_functions {
            return None;
        }
        LegIndex::ALL
            .into_iter()
            .zip(&mut self.legs)
            .find_map(|(index, leg)| leg.as_mut()?.poll_media(now, index, out))
    }

    fn transmit_own(
        &mut self,
        now: MonoTime,
        index: LegIndex,
        out: &mut [u8; TRANSMIT_LEN_MAX],
    ) -> Option<Transmit> {
        let [a, b] = &mut self.legs;
        let (near, far) = match index {
            LegIndex::A => (a.as_mut()?, b),
            LegIndex::B => (b.as_mut()?, a),
        };
        let due = std::mem::replace(&mut near.own_rtcp, OwnRtcp::None);
        if due == OwnRtcp::None || near.destination(MediaKind::Rtcp).is_none() {
            return None;
        }
        let sent_clock_hz = near.sent_clock_hz(far.as_ref());
        let report = near
            .quality
            .report(now, &near.stream, sent_clock_hz, due == OwnRtcp::Goodbye);
        let len = report.write(out.first_chunk_mut()?);
        let mut packet = PacketBuf::new(out, len);
        match near.transmit(index, MediaKind::Rtcp, &mut packet) {
            Verdict::Forward(transmit) => Some(transmit),
            // A key that is used up: the leg falls silent (RFC 3711 §9.2).
            Verdict::Consumed | Verdict::Drop(_) => None,
        }
    }

    /// Takes back that a packet of [`Self::poll_transmit`] was sent.
    pub fn handle_own_send_failure(&mut self, transmit: &Transmit) {
        if let Some(leg) = &mut self.legs[transmit.leg.as_usize()] {
            leg.unsend(transmit.kind, transmit.len);
        }
    }

    /// The silence of a leg that was found too long and not told yet.
    pub(super) fn take_timed_out(&mut self) -> Option<SessionEvent> {
        LegIndex::ALL.into_iter().find_map(|leg| {
            let kind: MediaTimeoutKind = self.legs[leg.as_usize()].as_mut()?.timed_out.take()?;
            Some(SessionEvent::MediaTimedOut { leg, kind })
        })
    }
}
