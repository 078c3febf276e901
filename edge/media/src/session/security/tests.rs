//! A protected leg A, a plain leg B.

use std::net::SocketAddr;

use trunkline_edge_api::{
    ClockRateHz, LegConfig, LegIndex, LocalMedia, MediaDirection, MediaTimeouts, MonoTime,
    PayloadRoute, PayloadRoutes, PayloadType, RtcpMode, SourcePolicy, SrtpKey, SrtpSuite,
};

use super::*;
use crate::session::{MediaSession, RxMeta, SessionCommand, SocketKind, Transmit, Verdict};
use crate::srtp::OVERHEAD_MAX;

const NOW: MonoTime = MonoTime(1_000_000_000);
const SUITE: SrtpSuite = SrtpSuite::AeadAes128Gcm;
/// What A's peer sends under.
const PEER: Ssrc = Ssrc(77);

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn key(byte: u8) -> SrtpKey {
    SrtpKey::new(SUITE, &[byte; 28]).expect("28 bytes")
}

fn config(remote: &str, source: SourcePolicy, crypto: Option<LegCrypto>) -> LegConfig {
    let route = PayloadRoute {
        from: PayloadType::PCMU,
        to: PayloadType::PCMU,
        clock_rate: ClockRateHz::NARROWBAND,
    };
    LegConfig {
        remote_rtp: Some(addr(remote)),
        remote_rtcp: Some(addr(remote)),
        source,
        direction: MediaDirection::SendReceive,
        routes: PayloadRoutes::new(vec![route]).expect("one route"),
        crypto,
        timeouts: MediaTimeouts::OFF,
    }
}

struct Call {
    session: MediaSession,
    /// A's peer.
    seal: SealContext,
    open: OpenContext,
}

const A_PEER: &str = "192.0.2.1:4000";
const B_PEER: &str = "192.0.2.2:5000";

impl Call {
    fn new(source: SourcePolicy) -> Self {
        let mut call = Self {
            session: MediaSession::new(),
            seal: SealContext::new(SUITE, &key(2), PEER),
            open: OpenContext::new(SUITE, &key(1)),
        };
        for leg in LegIndex::ALL {
            let local = LocalMedia {
                rtp: SocketAddr::from(([192, 0, 2, 9], 30_000 + 2 * leg as u16)),
                rtcp: RtcpMode::Muxed,
                ssrc: Ssrc(1_000 + leg as u32),
            };
            call.command(SessionCommand::OpenLeg(leg, local));
        }
        call.secure(A_PEER, source, 1, 2);
        let plain = config(B_PEER, SourcePolicy::Exact, None);
        call.command(SessionCommand::ConfigureLeg(LegIndex::B, plain));
        call
    }

    fn command(&mut self, command: SessionCommand) {
        let done = self.session.handle_command(NOW, command);
        done.expect("a sound command");
    }

    /// Configures A with the keys made of these bytes.
    fn secure(&mut self, remote: &str, source: SourcePolicy, send: u8, receive: u8) {
        let crypto = LegCrypto {
            suite: SUITE,
            send: key(send),
            receive: key(receive),
        };
        let config = config(remote, source, Some(crypto));
        self.command(SessionCommand::ConfigureLeg(LegIndex::A, config));
    }

    fn arrive(&mut self, leg: LegIndex, source: &str, packet: &[u8]) -> (Verdict, Vec<u8>) {
        let meta = RxMeta {
            source: addr(source),
            socket: SocketKind::Rtp,
            truncated: false,
        };
        let mut buffer = packet.to_vec();
        buffer.resize(packet.len() + OVERHEAD_MAX, 0);
        let buf = PacketBuf::new(&mut buffer, packet.len());
        let verdict = self.session.handle_packet(NOW, leg, &meta, buf);
        if let Verdict::Forward(Transmit { len, .. }) = verdict {
            buffer.truncate(len);
        }
        (verdict, buffer)
    }

    /// A packet of A's peer arrives; what goes on to B.
    fn a_sends(&mut self, sequence: u16) -> Result<Vec<u8>, DropReason> {
        let packet = sealed(&mut self.seal, sequence);
        heard(self.arrive(LegIndex::A, A_PEER, &packet))
    }

    /// A packet of B's peer arrives; what A's peer makes of what it gets.
    fn b_sends(&mut self, sequence: u16) -> Result<Vec<u8>, DropReason> {
        let mut packet = heard(self.arrive(LegIndex::B, B_PEER, &rtp(Ssrc(88), sequence)))?;
        let mut buf = PacketBuf::from(&mut packet);
        self.open
            .open_rtp(&mut buf)
            .map_err(|_| DropReason::SrtpAuthFailed)?;
        Ok(buf.to_vec())
    }
}

fn heard((verdict, packet): (Verdict, Vec<u8>)) -> Result<Vec<u8>, DropReason> {
    match verdict {
        Verdict::Forward(_) => Ok(packet),
        Verdict::Drop(reason) => Err(reason),
        Verdict::Consumed => panic!("RTP is not consumed"),
    }
}

fn rtp(ssrc: Ssrc, sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&[0; 4]);
    packet.extend_from_slice(&ssrc.0.to_be_bytes());
    packet.extend_from_slice(&[0xd5; 160]);
    packet
}

fn sealed(seal: &mut SealContext, sequence: u16) -> Vec<u8> {
    let mut packet = rtp(PEER, sequence);
    packet.resize(172 + OVERHEAD_MAX, 0);
    let mut buf = PacketBuf::new(&mut packet, 172);
    seal.seal_rtp(&mut buf).expect("a new number");
    buf.to_vec()
}

#[test]
fn protected_leg_hears_and_sends_srtp_and_the_plain_one_rtp() {
    let mut call = Call::new(SourcePolicy::Exact);
    let to_b = call.a_sends(1).expect("authentic");
    assert_eq!((to_b.len(), &to_b[12..]), (172, &[0xd5; 160][..]));
    let to_a = call.b_sends(1).expect("protected");
    assert_eq!(to_a[12..], [0xd5; 160]);
    let [a, b] = call.session.report();
    assert_eq!((a.rx_bytes, a.tx_bytes), (188, 188), "as on the wire");
    assert_eq!((b.rx_bytes, b.tx_bytes), (172, 172));
}

#[test]
fn nothing_is_learnt_of_a_port_before_a_packet_from_it_is_authentic() {
    let ip = addr(A_PEER).ip();
    let mut call = Call::new(SourcePolicy::LearnPort { ip });
    let mut stranger = SealContext::new(SUITE, &key(9), PEER);
    for (name, packet) in [
        ("plain", rtp(PEER, 1)),
        ("another key", sealed(&mut stranger, 1)),
    ] {
        let verdict = call.arrive(LegIndex::A, "192.0.2.1:6666", &packet);
        assert_eq!(heard(verdict), Err(DropReason::SrtpAuthFailed), "{name}");
    }
    assert_eq!(call.session.poll_event(), None, "no media has started");
    let packet = sealed(&mut call.seal, 1);
    let learnt = call.arrive(LegIndex::A, "192.0.2.1:4444", &packet);
    assert!(
        heard(learnt).is_ok(),
        "the port was not taken by the stranger"
    );
    let (verdict, _) = call.arrive(LegIndex::B, B_PEER, &rtp(Ssrc(88), 1));
    let Verdict::Forward(transmit) = verdict else {
        panic!("{verdict:?}");
    };
    assert_eq!(transmit.dest, addr("192.0.2.1:4444"));
    assert_eq!(call.session.report()[0].srtp_failed_packets, 2);
}

#[test]
fn same_keys_again_keep_rollover_counter_and_replay_window() {
    let mut call = Call::new(SourcePolicy::Exact);
    for sequence in [65_534, 65_535, 0, 1] {
        call.a_sends(sequence).expect("authentic");
    }
    call.b_sends(1).expect("protected");
    let recorded = sealed(&mut call.seal, 2);
    heard(call.arrive(LegIndex::A, A_PEER, &recorded)).expect("authentic");
    call.secure(A_PEER, SourcePolicy::Exact, 1, 2);
    assert_eq!(
        heard(call.arrive(LegIndex::A, A_PEER, &recorded)),
        Err(DropReason::SrtpReplayed)
    );
    call.a_sends(3).expect("the rollover counter is still 1");
    call.b_sends(2).expect("protected");
    assert_eq!(
        call.b_sends(2),
        Err(DropReason::SrtpReplayed),
        "no index twice"
    );
}

#[test]
fn new_key_of_one_direction_begins_anew_and_leaves_the_other() {
    let mut call = Call::new(SourcePolicy::Exact);
    for sequence in [65_535, 0] {
        call.a_sends(sequence).expect("authentic");
    }
    call.b_sends(1).expect("protected");
    call.secure(A_PEER, SourcePolicy::Exact, 1, 3);
    assert_eq!(
        call.a_sends(1),
        Err(DropReason::SrtpAuthFailed),
        "the old key"
    );
    call.seal = SealContext::new(SUITE, &key(3), PEER);
    call.a_sends(2)
        .expect("rollover counter 0 under the new key");
    call.b_sends(2).expect("what is sent goes on as before");
    assert_eq!(call.b_sends(2), Err(DropReason::SrtpReplayed));
}
