//! A media session under packets, changes and time.

use std::net::SocketAddr;

use trunkline_edge_api::{
    ClockRateHz, LegConfig, LegCrypto, LegIndex, LocalMedia, MediaDirection, MediaTimeouts,
    MonoTime, PayloadRoute, PayloadRoutes, PayloadType, RtcpMode, SourcePolicy, SrtpKey, SrtpSuite,
    Ssrc,
};
use trunkline_media::session::TRANSMIT_LEN_MAX;
use trunkline_media::srtp::OVERHEAD_MAX;
use trunkline_media::{MediaSession, PacketBuf, RxMeta, SessionCommand, SocketKind, Verdict};

use crate::packets::Script;

/// Where the two parties are, by leg.
const PARTIES: [[u8; 4]; 2] = [[198, 51, 100, 1], [198, 51, 100, 2]];

/// Plays the input against a session of plain RTP.
pub fn session(input: &[u8]) {
    play(input, None);
}

/// Plays the input against a session that speaks SRTP on leg A; its first byte chooses the suite.
pub fn srtp(input: &[u8]) {
    let Some((choice, rest)) = input.split_first() else {
        return;
    };
    let suite = SrtpSuite::ALL[usize::from(*choice) % SrtpSuite::ALL.len()];
    play(rest, Some(suite));
}

/// The input is a list of steps: a byte that says what and from whom, and a chunk.
///
/// | low two bits | what |
/// |---|---|
/// | 0, 1 | a packet: bit 2 the leg, bit 3 the socket, bits 4 and 5 the port it comes from |
/// | 2 | a leg is configured anew: bit 2 the leg, bits 3 and 4 its direction, 5 NAT, 6 RTCP, 7 its port |
/// | 3 | time passes: the chunk's length times 20 ms; with bit 7 a leg is closed and opened |
fn play(input: &[u8], suite: Option<SrtpSuite>) {
    let mut session = MediaSession::new();
    let mut now = MonoTime(1_000_000_000);
    for leg in LegIndex::ALL {
        let opened = session.handle_command(now, SessionCommand::OpenLeg(leg, local(leg)));
        assert_eq!(opened, Ok(()));
        let plain = config(leg, 0b1_1000, suite);
        let configured = session.handle_command(now, SessionCommand::ConfigureLeg(leg, plain));
        assert_eq!(configured, Ok(()));
    }
    let mut script = Script::new(input);
    while let (Some(what), Some(chunk)) = (script.byte(), script.chunk()) {
        let leg = if what & 4 == 0 {
            LegIndex::A
        } else {
            LegIndex::B
        };
        match what & 3 {
            0 | 1 => receive(&mut session, now, leg, what, chunk),
            2 => {
                let command = SessionCommand::ConfigureLeg(leg, config(leg, what, suite));
                assert_eq!(session.handle_command(now, command), Ok(()));
            }
            _ => {
                now = now.plus_millis(20 * chunk.len() as u64);
                speak(&mut session, now);
                if what & 0x80 != 0 {
                    let closed = session.handle_command(now, SessionCommand::CloseLeg(leg));
                    assert_eq!(closed, Ok(()));
                    let opened = SessionCommand::OpenLeg(leg, local(leg));
                    assert_eq!(session.handle_command(now, opened), Ok(()));
                }
            }
        }
        while session.poll_event().is_some() {}
    }
    let _ = (session.report(), session.last_heard());
}

/// What the session has to say of its own accord.
fn speak(session: &mut MediaSession, now: MonoTime) {
    session.handle_timeout(now);
    let mut out = [0; TRANSMIT_LEN_MAX];
    // A report for each leg, and a goodbye.
    for _ in 0..4 {
        let Some(transmit) = session.poll_transmit(now, &mut out) else {
            break;
        };
        assert!(transmit.len <= out.len());
    }
    let _ = session.poll_timeout();
}

fn receive(session: &mut MediaSession, now: MonoTime, leg: LegIndex, what: u8, datagram: &[u8]) {
    let socket = if what & 8 == 0 {
        SocketKind::Rtp
    } else {
        SocketKind::Rtcp
    };
    let ports = [4_000, 4_001, 5_000, 5_001];
    let meta = RxMeta {
        source: (
            PARTIES[leg.as_usize()],
            ports[usize::from(what >> 4) % ports.len()],
        )
            .into(),
        socket,
        truncated: what & 0x80 != 0,
    };
    let mut buffer = datagram.to_vec();
    buffer.resize(datagram.len() + OVERHEAD_MAX, 0);
    let packet = PacketBuf::new(&mut buffer, datagram.len());
    let verdict = session.handle_packet(now, leg, &meta, packet);
    if let Verdict::Forward(transmit) = verdict {
        assert_eq!(transmit.leg, leg.far());
        assert!(transmit.len <= buffer.len());
        let far = PARTIES[transmit.leg.as_usize()];
        assert_eq!(transmit.dest.ip(), SocketAddr::from((far, 0)).ip());
        session.handle_send_failure(&transmit);
    }
}

fn local(leg: LegIndex) -> LocalMedia {
    LocalMedia {
        rtp: ([203, 0, 113, 1], 30_000 + 2 * leg.as_usize() as u16).into(),
        rtcp: RtcpMode::Separate,
        ssrc: Ssrc(0xaaaa_0000 + leg.as_usize() as u32),
    }
}

fn config(leg: LegIndex, what: u8, suite: Option<SrtpSuite>) -> LegConfig {
    let ip = PARTIES[leg.as_usize()];
    let port = if what & 0x80 == 0 { 4_000 } else { 5_000 };
    let rtp = SocketAddr::from((ip, port));
    let routes = [(0, ClockRateHz::NARROWBAND), (111, ClockRateHz::OPUS)];
    let routes = routes.into_iter().filter_map(|(number, clock_rate)| {
        Some(PayloadRoute {
            from: PayloadType::new(number)?,
            to: PayloadType::new(number)?,
            clock_rate,
        })
    });
    LegConfig {
        remote_rtp: Some(rtp),
        remote_rtcp: if what & 0x40 == 0 {
            Some((ip, port + 1).into())
        } else {
            Some(rtp)
        },
        source: if what & 0x20 == 0 {
            SourcePolicy::Exact
        } else {
            SourcePolicy::LearnPort { ip: ip.into() }
        },
        direction: match what >> 3 & 3 {
            0 => MediaDirection::Inactive,
            1 => MediaDirection::SendOnly,
            2 => MediaDirection::ReceiveOnly,
            _ => MediaDirection::SendReceive,
        },
        routes: PayloadRoutes::new(routes.collect()).unwrap_or_default(),
        crypto: match leg {
            LegIndex::A => suite.and_then(keys),
            LegIndex::B => None,
        },
        timeouts: MediaTimeouts::default(),
    }
}

fn keys(suite: SrtpSuite) -> Option<LegCrypto> {
    let len = suite.key_len() + suite.salt_len();
    let bytes = [7; SrtpKey::LEN_MAX];
    let key = || SrtpKey::new(suite, bytes.get(..len)?);
    Some(LegCrypto {
        suite,
        send: key()?,
        receive: key()?,
    })
}
