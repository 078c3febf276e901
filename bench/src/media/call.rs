//! Whole sessions and their peers, driven as a worker drives them, without sockets.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use trunkline_edge_api::{
    AudioCodec, LegConfig, LegIndex, LocalMedia, MediaDirection, MediaTimeouts, MonoTime,
    PayloadRoute, PayloadRoutes, RtcpMode, SourcePolicy, Ssrc,
};
use trunkline_media::packet_buf::PacketBuf;
use trunkline_media::session::{
    MediaSession, RxMeta, SessionCommand, SocketKind, TICK_MILLIS, TRANSMIT_LEN_MAX, Tapped,
    Verdict,
};

use crate::rig::voice::{FRAME_MILLIS, Voice, format};

/// When the first packets come.
pub(super) const START: MonoTime = MonoTime(1_000_000_000);
/// Bytes of a bare RTP header.
const HEADER_LEN: usize = 12;
/// Longest packet of a peer.
const PACKET_LEN_MAX: usize = 512;

/// Somebody who sends a packet every 20 ms, and speaks in it or does not.
pub(super) struct Peer {
    pub(super) leg: LegIndex,
    meta: RxMeta,
    voice: Arc<Voice>,
    speaks: bool,
    /// Packets that were sent.
    sent: u32,
    /// Where in the speech the first was.
    place: usize,
    packet: [u8; PACKET_LEN_MAX],
    len: usize,
}

impl Peer {
    fn new(leg: LegIndex, voice: &Arc<Voice>, number: usize) -> Self {
        Self {
            leg,
            meta: RxMeta {
                source: remote(leg),
                socket: SocketKind::Rtp,
                truncated: false,
            },
            voice: Arc::clone(voice),
            speaks: true,
            sent: number as u32,
            // Nobody says the same at the same time.
            place: 7 * number + 131 * leg.as_usize(),
            packet: [0; PACKET_LEN_MAX],
            len: 0,
        }
    }

    /// Writes the peer's next packet to where the kernel would have left it.
    fn send(&mut self) {
        let voice = &self.voice;
        let number = self.sent;
        self.sent = number.wrapping_add(1);
        let payload = match self.speaks {
            true => &voice.speech[(self.place + number as usize) % voice.speech.len()],
            false => &voice.silence,
        };
        let timestamp = number.wrapping_mul(voice.units);
        self.packet[..2].copy_from_slice(&[0x80, voice.payload_type.get()]);
        self.packet[2..4].copy_from_slice(&(number as u16).to_be_bytes());
        self.packet[4..8].copy_from_slice(&timestamp.to_be_bytes());
        self.packet[8..12].copy_from_slice(&0xfeed_beef_u32.to_be_bytes());
        self.len = HEADER_LEN + payload.len();
        self.packet[HEADER_LEN..self.len].copy_from_slice(payload);
    }
}

fn remote(leg: LegIndex) -> SocketAddr {
    let host = 1 + leg.as_usize() as u8;
    SocketAddr::from((Ipv4Addr::new(192, 0, 2, host), 4_000))
}

/// A session of one leg or two.
pub(super) struct Call {
    pub(super) session: MediaSession,
    pub(super) peers: Vec<Peer>,
    /// It asked to be told the time.
    is_clocked: bool,
}

impl Call {
    /// Legs whose peers have `codecs`; what both have in common is relayed.
    pub(super) fn new(voices: &[Arc<Voice>], codecs: &[AudioCodec], number: usize) -> Result<Self> {
        let mut call = Self {
            session: MediaSession::new(),
            peers: Vec::new(),
            is_clocked: false,
        };
        let is_relayed = codecs.iter().all(|codec| *codec == codecs[0]);
        for (leg, codec) in LegIndex::ALL.into_iter().zip(codecs) {
            let local = LocalMedia {
                rtp: SocketAddr::from((Ipv4Addr::new(192, 0, 2, 9), 30_000 + 2 * leg as u16)),
                rtcp: RtcpMode::Muxed,
                ssrc: Ssrc(number as u32 * 2 + leg as u32),
            };
            let format = format(*codec);
            let route = PayloadRoute {
                from: format.payload_type,
                to: format.payload_type,
                clock_rate: format.clock_rate,
            };
            let routes = if is_relayed { vec![route] } else { Vec::new() };
            let config = LegConfig {
                remote_rtp: Some(remote(leg)),
                remote_rtcp: Some(remote(leg)),
                source: SourcePolicy::Exact,
                direction: MediaDirection::SendReceive,
                routes: PayloadRoutes::new(routes).context("one route at most")?,
                crypto: None,
                timeouts: MediaTimeouts::OFF,
            };
            call.command(SessionCommand::OpenLeg(leg, local))?;
            call.command(SessionCommand::ConfigureLeg(leg, config))?;
        }
        for ((leg, voice), _) in LegIndex::ALL.into_iter().zip(voices).zip(codecs) {
            call.peers.push(Peer::new(leg, voice, number));
        }
        Ok(call)
    }

    pub(super) fn command(&mut self, command: SessionCommand) -> Result<()> {
        let described = format!("{command:?}");
        let done = self.session.handle_command(START, command);
        done.with_context(|| format!("refused: {described}"))
    }

    pub(super) fn silence_peers(&mut self) {
        for peer in &mut self.peers {
            peer.speaks = false;
        }
    }

    /// A packet of each peer lies ready.
    pub(super) fn arrive(&mut self) {
        for peer in &mut self.peers {
            peer.send();
        }
    }

    /// Takes what lies ready, and lets 20 ms pass. Returns how many packets leave.
    #[inline]
    pub(super) fn take(
        &mut self,
        now: MonoTime,
        out: &mut [u8; TRANSMIT_LEN_MAX],
        mut on_tapped: impl FnMut(LegIndex, &Tapped<'_>),
    ) -> u64 {
        let Self {
            session,
            peers,
            is_clocked,
        } = self;
        let mut sent = 0;
        for peer in peers {
            let packet = PacketBuf::new(&mut peer.packet, peer.len);
            let verdict = session.handle_packet(now, peer.leg, &peer.meta, packet);
            sent += u64::from(matches!(verdict, Verdict::Forward(_)));
            let _ = session.poll_event();
            let wants = session.wants();
            if wants.tapped
                && let Some(tapped) = session.take_tapped(peer.leg)
            {
                on_tapped(peer.leg, &tapped);
            }
            if wants.transmit || wants.ticks {
                sent += poll(session, now, out);
            }
            *is_clocked = wants.ticks;
        }
        if *is_clocked {
            for millis in (0..u64::from(FRAME_MILLIS)).step_by(TICK_MILLIS as usize) {
                let now = now.plus_millis(millis);
                session.handle_tick(now);
                sent += poll(session, now, out);
                while session.poll_event().is_some() {}
            }
        }
        sent
    }
}

fn poll(session: &mut MediaSession, now: MonoTime, out: &mut [u8; TRANSMIT_LEN_MAX]) -> u64 {
    let mut sent = 0;
    while let Some(transmit) = session.poll_transmit(now, out) {
        std::hint::black_box(&out[..transmit.len]);
        sent += 1;
    }
    sent
}
