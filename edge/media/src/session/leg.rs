//! One side of a session: what is bound, who the peer is, and what the leg sends.

use std::net::{IpAddr, SocketAddr};

use trunkline_edge_api::{
    ClockRateHz, DropReason, LegConfig, LegIndex, LegReport, LocalMedia, MediaDirection,
    MediaTimeoutKind, MonoTime, PayloadRoute, PayloadType, Refusal, RtcpMode,
};

use super::functions::LegMedia;
use super::security::LegSecurity;
use super::watch::OwnRtcp;
use super::{RxMeta, SocketKind, Transmit, Verdict};
use crate::demux::MediaKind;
use crate::packet_buf::PacketBuf;
use crate::payload_table::PayloadTable;
use crate::quality::LegQuality;
use crate::rewrite::{OutgoingStream, Position};
use crate::rtcp;
use crate::rtp::{RtpEdit, RtpHeader};
use crate::source_gate::SourceGate;

#[derive(Debug)]
pub(super) struct Leg {
    local: LocalMedia,
    pub(super) stream: OutgoingStream,
    /// Counts of packets; what [`Self::quality`] knows is filled in when somebody asks.
    pub(super) report: LegReport,
    pub(super) quality: LegQuality,
    pub(super) own_rtcp: OwnRtcp,
    /// A silence that is not told yet.
    pub(super) timed_out: Option<MediaTimeoutKind>,
    /// `None` until the leg is configured; it neither hears nor sends before.
    peer: Option<Peer>,
    /// `None`: plain RTP.
    security: Option<Box<LegSecurity>>,
    /// What the leg does beside relaying; `None`: nothing.
    pub(super) media: Option<Box<LegMedia>>,
}

#[derive(Debug)]
struct Peer {
    remote_rtp: Option<SocketAddr>,
    remote_rtcp: Option<SocketAddr>,
    direction: MediaDirection,
    /// Both sides agreed to send RTCP on the RTP ports (RFC 5761).
    is_multiplexed: bool,
    gate: SourceGate,
    media: MediaStart,
    routes: PayloadTable,
}

/// First RTP since the gate last changed.
#[derive(Debug, Clone, Copy)]
enum MediaStart {
    Awaited,
    Untold(SocketAddr),
    Told,
}

impl Leg {
    pub(super) fn new(local: LocalMedia) -> Self {
        Self {
            local,
            stream: OutgoingStream::new(local.ssrc),
            report: LegReport::default(),
            quality: LegQuality::new(local.ssrc),
            own_rtcp: OwnRtcp::None,
            timed_out: None,
            peer: None,
            security: None,
            media: None,
        }
    }

    pub(super) fn local(&self) -> LocalMedia {
        self.local
    }

    pub(super) fn configure(&mut self, now: MonoTime, config: LegConfig) -> Result<(), Refusal> {
        let remotes = [config.remote_rtp, config.remote_rtcp];
        if !remotes
            .into_iter()
            .flatten()
            .all(|remote| self.can_reach(remote))
        {
            return Err(Refusal::AddressMismatch);
        }
        let mut gate = SourceGate::new(config.source, config.remote_rtp, config.remote_rtcp);
        let media = match &self.peer {
            Some(peer) if gate.succeed(&peer.gate) => peer.media,
            Some(_) | None => MediaStart::Awaited,
        };
        self.security =
            LegSecurity::configured(self.security.take(), config.crypto, self.local.ssrc);
        if config.remote_rtp.is_some() {
            let silence = &mut self.quality.silence;
            silence.configure(now, config.direction, config.timeouts);
        }
        let shares_port = config.remote_rtcp.is_some() && config.remote_rtcp == config.remote_rtp;
        self.peer = Some(Peer {
            remote_rtp: config.remote_rtp,
            remote_rtcp: config.remote_rtcp,
            direction: config.direction,
            is_multiplexed: self.local.rtcp == RtcpMode::Muxed || shares_port,
            gate,
            media,
            routes: PayloadTable::new(config.routes),
        });
        if self.destination(MediaKind::Rtcp).is_some() {
            self.quality.schedule.start(now);
        } else {
            self.quality.schedule.stop();
        }
        Ok(())
    }

    /// Whether a media packet can leave this leg for `remote` and reach a single host.
    pub(super) fn can_reach(&self, remote: SocketAddr) -> bool {
        let ip = remote.ip();
        let is_broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
        self.local.rtp.is_ipv4() == remote.is_ipv4()
            && remote.port() != 0
            && !ip.is_unspecified()
            && !ip.is_multicast()
            && !is_broadcast
    }

    /// Whether `packet` came to the socket of its kind, and from the leg's peer.
    #[inline]
    pub(super) fn admits(
        &self,
        now: MonoTime,
        kind: MediaKind,
        meta: &RxMeta,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        if meta.socket != self.socket_for(kind) {
            return Err(DropReason::WrongSocket);
        }
        let is_of_peer = self.peer.as_ref().is_some_and(|peer| {
            peer.gate
                .admits(now, meta.socket, kind, meta.source, packet)
        });
        if !is_of_peer {
            return Err(DropReason::SourceNotAllowed);
        }
        Ok(())
    }

    #[inline]
    pub(super) fn direction(&self) -> MediaDirection {
        self.peer
            .as_ref()
            .map_or(MediaDirection::Inactive, |peer| peer.direction)
    }

    #[inline]
    pub(super) fn route(&self, payload_type: PayloadType) -> Option<PayloadRoute> {
        self.peer.as_ref()?.routes.route(payload_type)
    }

    /// The socket on which this leg hears and sends `kind`.
    #[inline]
    pub(super) fn socket_for(&self, kind: MediaKind) -> SocketKind {
        let is_multiplexed = match &self.peer {
            Some(peer) => peer.is_multiplexed,
            None => self.local.rtcp == RtcpMode::Muxed,
        };
        match kind {
            MediaKind::Rtcp if !is_multiplexed => SocketKind::Rtcp,
            MediaKind::Rtcp | MediaKind::Rtp => SocketKind::Rtp,
        }
    }

    /// Where `kind` goes: to the learnt port if there is one, else where signalling said.
    #[inline]
    pub(super) fn destination(&self, kind: MediaKind) -> Option<&SocketAddr> {
        let peer = self.peer.as_ref()?;
        let signalled = match kind {
            MediaKind::Rtp => peer.remote_rtp.as_ref(),
            MediaKind::Rtcp => peer.remote_rtcp.as_ref(),
        };
        peer.gate.learnt(self.socket_for(kind)).or(signalled)
    }

    /// Counts valid RTP that passed the gate, and learns from it.
    #[inline]
    pub(super) fn hear_rtp(
        &mut self,
        now: MonoTime,
        source: SocketAddr,
        header: &RtpHeader,
        clock_rate: ClockRateHz,
        len: usize,
    ) {
        self.report.rx_packets += 1;
        self.report.rx_bytes += len as u64;
        self.quality.receive.receive(now, header, clock_rate);
        self.quality.silence.handle_rtp(now);
        if let Some(peer) = &mut self.peer {
            peer.gate.learn_rtp(now, source, header);
            if let MediaStart::Awaited = peer.media {
                peer.media = MediaStart::Untold(source);
            }
        }
    }

    /// Counts valid RTCP that passed the gate. Where it has a socket of its own, learns from it;
    /// on the RTP socket only RTP does.
    pub(super) fn hear_rtcp(&mut self, now: MonoTime, meta: &RxMeta, packet: &[u8]) {
        self.report.rx_rtcp_packets += 1;
        self.quality.hear_rtcp(now, packet, self.local.ssrc);
        if let Some(media) = &mut self.media {
            media.set_expected_loss(self.quality.feedback.expected_loss_percent());
        }
        if let (Some(peer), SocketKind::Rtcp) = (&mut self.peer, meta.socket) {
            peer.gate.learn_rtcp(meta.source, packet);
        }
    }

    /// Valid RTP of a payload type that was not agreed on. Comfort noise is sent unasked by peers
    /// that fall silent; it goes no further, but the peer lives (RFC 3389).
    #[cold]
    pub(super) fn hear_stranger(&mut self, now: MonoTime, payload_type: PayloadType) {
        if payload_type == PayloadType::CN {
            self.quality.silence.handle_rtp(now);
        }
    }

    /// The far peer's RTCP, translated, is about to leave for this leg's peer.
    pub(super) fn pass_rtcp(&mut self, now: MonoTime, packet: &[u8]) {
        self.quality.schedule.handle_passed(now);
        if let Some(ntp_middle) = rtcp::report::leading_sender_report(packet) {
            self.quality.feedback.sent_report(ntp_middle, now);
        }
    }

    /// RTP clock of what the leg sends: that of what it encodes to, or that of what `far` hears.
    pub(super) fn sent_clock_hz(&self, far: Option<&Self>) -> Option<u32> {
        let encoded = self.media.as_ref().and_then(|media| media.sent_clock_hz());
        encoded.or_else(|| far?.quality.receive.clock_hz())
    }

    /// All figures; `sent_clock_hz` is the clock of what the leg sends.
    pub(super) fn report(&self, sent_clock_hz: Option<u32>) -> LegReport {
        let mut report = self.report;
        self.quality.fill(&mut report, sent_clock_hz);
        report
    }

    #[inline]
    pub(super) fn take_media_start(&mut self) -> Option<SocketAddr> {
        let peer = self.peer.as_mut()?;
        let MediaStart::Untold(source) = peer.media else {
            return None;
        };
        peer.media = MediaStart::Told;
        Some(source)
    }

    /// Sends a packet of the far peer on under this leg's numbers.
    #[inline]
    pub(super) fn relay(
        &mut self,
        now: MonoTime,
        leg: LegIndex,
        header: &RtpHeader,
        route: PayloadRoute,
        packet: &mut PacketBuf<'_>,
    ) -> Verdict {
        match self.renumber(now, header, route, packet) {
            Ok(()) => self.transmit(leg, MediaKind::Rtp, packet),
            Err(reason) => Verdict::Drop(reason),
        }
    }

    /// Gives a packet of the far peer this leg's numbers.
    #[inline]
    pub(super) fn renumber(
        &mut self,
        now: MonoTime,
        header: &RtpHeader,
        route: PayloadRoute,
        packet: &mut [u8],
    ) -> Result<(), DropReason> {
        let incoming = Position {
            sequence: header.sequence,
            timestamp: header.timestamp,
        };
        let placed = self.stream.place(
            now,
            header.ssrc,
            incoming,
            route.clock_rate,
            header.payload_len,
        );
        let sent = placed.ok_or(DropReason::OutOfSequence)?;
        RtpEdit {
            payload_type: route.to,
            sequence: sent.sequence,
            timestamp: sent.timestamp,
            ssrc: self.stream.ssrc(),
        }
        .apply(packet);
        Ok(())
    }

    /// Authenticates and decrypts a packet of the leg's peer; a plain leg takes it as it is.
    #[inline]
    pub(super) fn open(
        &mut self,
        kind: MediaKind,
        packet: &mut PacketBuf<'_>,
    ) -> Result<(), DropReason> {
        let Some(security) = &mut self.security else {
            return Ok(());
        };
        let opened = security.open(kind, packet);
        if opened.is_err() {
            self.report.srtp_failed_packets += 1;
        }
        opened
    }

    /// Protects `packet`, if the leg does, counts it as sent and says where it goes.
    #[inline]
    pub(super) fn transmit(
        &mut self,
        leg: LegIndex,
        kind: MediaKind,
        packet: &mut PacketBuf<'_>,
    ) -> Verdict {
        let socket = self.socket_for(kind);
        match self.protect(kind, packet) {
            Ok((len, dest)) => Verdict::Forward(Transmit {
                leg,
                socket,
                kind,
                dest: *dest,
                len,
            }),
            Err(reason) => Verdict::Drop(reason),
        }
    }

    /// As [`Self::transmit`], without a verdict: the packet's length, and where it goes.
    #[inline]
    pub(super) fn protect(
        &mut self,
        kind: MediaKind,
        packet: &mut PacketBuf<'_>,
    ) -> Result<(usize, &SocketAddr), DropReason> {
        if self.destination(kind).is_none() {
            return Err(DropReason::NoDestination);
        }
        if let Some(security) = &mut self.security {
            security.seal(kind, packet)?;
        }
        let len = packet.len();
        match kind {
            MediaKind::Rtp => {
                self.report.tx_packets += 1;
                self.report.tx_bytes += len as u64;
            }
            MediaKind::Rtcp => self.report.tx_rtcp_packets += 1,
        }
        let dest = self.destination(kind).ok_or(DropReason::NoDestination)?;
        Ok((len, dest))
    }

    /// Takes back one [`Self::transmit`]. Saturating, because the leg may be a later one than the one
    /// that sent.
    pub(super) fn unsend(&mut self, kind: MediaKind, len: usize) {
        let report = &mut self.report;
        match kind {
            MediaKind::Rtp => {
                report.tx_packets = report.tx_packets.saturating_sub(1);
                report.tx_bytes = report.tx_bytes.saturating_sub(len as u64);
            }
            MediaKind::Rtcp => {
                report.tx_rtcp_packets = report.tx_rtcp_packets.saturating_sub(1);
            }
        }
    }
}
