//! A session in simulated time: what it measures, says of its own accord and misses.

use std::net::SocketAddr;

use trunkline_edge_api::{
    ClockRateHz, LegConfig, LegIndex, LocalMedia, MediaDirection, MediaTimeoutKind, MediaTimeouts,
    MonoTime, PayloadRoute, PayloadRoutes, PayloadType, RtcpMode, SourcePolicy, Ssrc,
};
use trunkline_media::rtcp::report::{self, Report, ReportBlock, SenderInfo};
use trunkline_media::session::TRANSMIT_LEN_MAX;
use trunkline_media::{
    MediaKind, MediaSession, RxMeta, SessionCommand, SessionEvent, SocketKind, Verdict,
};

const A: LegIndex = LegIndex::A;
const B: LegIndex = LegIndex::B;
const MILLI: u64 = 1_000_000;
const PTIME: u64 = 20 * MILLI;

fn peer(leg: LegIndex) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 1 + leg as u8], 4_000))
}

fn peer_ssrc(leg: LegIndex) -> Ssrc {
    Ssrc(0x1111_1111 * (1 + leg as u32))
}

fn own_ssrc(leg: LegIndex) -> Ssrc {
    Ssrc(0xaaaa_0000 + leg as u32)
}

fn config(leg: LegIndex, timeouts: MediaTimeouts) -> LegConfig {
    let route = |payload_type| PayloadRoute {
        from: payload_type,
        to: payload_type,
        clock_rate: ClockRateHz::NARROWBAND,
    };
    LegConfig {
        remote_rtp: Some(peer(leg)),
        remote_rtcp: Some(peer(leg)),
        source: SourcePolicy::Exact,
        direction: MediaDirection::SendReceive,
        routes: PayloadRoutes::new(vec![route(PayloadType::PCMU)]).expect("one"),
        crypto: None,
        timeouts,
    }
}

/// A call between two peers that send whatever the test says; RTCP shares the RTP port.
struct World {
    session: MediaSession,
    now: MonoTime,
    sequence: [u16; 2],
    /// RTCP that each peer got: when, and the compound.
    rtcp: [Vec<(MonoTime, Vec<u8>)>; 2],
    timeouts: Vec<(u64, LegIndex, MediaTimeoutKind)>,
}

impl World {
    fn new(timeouts: MediaTimeouts) -> Self {
        let mut world = Self {
            session: MediaSession::new(),
            now: MonoTime(0),
            sequence: [65_000; 2],
            rtcp: [Vec::new(), Vec::new()],
            timeouts: Vec::new(),
        };
        for leg in LegIndex::ALL {
            let local = LocalMedia {
                rtp: SocketAddr::from(([192, 0, 2, 1], 30_000 + 2 * leg as u16)),
                rtcp: RtcpMode::Muxed,
                ssrc: own_ssrc(leg),
            };
            world.command(SessionCommand::OpenLeg(leg, local));
            world.command(SessionCommand::ConfigureLeg(leg, config(leg, timeouts)));
        }
        world
    }

    fn command(&mut self, command: SessionCommand) {
        self.session
            .handle_command(self.now, command)
            .expect("it fits");
    }

    /// To `millis` since the start, with every timer on its way.
    fn run_to(&mut self, millis: u64) {
        let end = MonoTime(millis * MILLI);
        while let Some(due) = self.session.poll_timeout().filter(|&due| due <= end) {
            assert!(due >= self.now, "time does not go back");
            self.now = due;
            self.session.handle_timeout(due);
            self.drain();
            assert!(self.session.poll_timeout().is_none_or(|next| next > due));
        }
        self.now = end;
    }

    fn drain(&mut self) {
        let mut packet = [0; TRANSMIT_LEN_MAX];
        while let Some(transmit) = self.session.poll_transmit(self.now, &mut packet) {
            assert_eq!(transmit.kind, MediaKind::Rtcp);
            assert_eq!(transmit.dest, peer(transmit.leg));
            let compound = packet[..transmit.len].to_vec();
            assert!(trunkline_media::rtcp::validate(&compound).is_ok());
            self.rtcp[transmit.leg.as_usize()].push((self.now, compound));
        }
        while let Some(event) = self.session.poll_event() {
            if let SessionEvent::MediaTimedOut { leg, kind } = event {
                self.timeouts.push((self.now.0 / MILLI, leg, kind));
            }
        }
    }

    fn receive(&mut self, leg: LegIndex, packet: &mut Vec<u8>) -> Verdict {
        let meta = RxMeta {
            source: peer(leg),
            socket: SocketKind::Rtp,
            truncated: false,
        };
        self.session.handle_packet(self.now, leg, &meta, packet)
    }

    fn rtp(&mut self, leg: LegIndex, payload_type: u8) {
        let sequence = &mut self.sequence[leg.as_usize()];
        *sequence = sequence.wrapping_add(1);
        let mut packet = vec![0x80, payload_type];
        packet.extend(sequence.to_be_bytes());
        packet.extend(((self.now.0 / 125_000) as u32).to_be_bytes());
        packet.extend(peer_ssrc(leg).0.to_be_bytes());
        packet.resize(172, 0xd5);
        let _ = self.receive(leg, &mut packet);
    }

    /// The peer sends every 20 ms until `millis`; `lose` says which packet never arrives.
    fn talk(&mut self, legs: &[LegIndex], millis: u64, lose: impl Fn(u64) -> bool) {
        let mut n = 0;
        while self.now.0 < millis * MILLI {
            for &leg in legs {
                if lose(n) {
                    let sequence = &mut self.sequence[leg.as_usize()];
                    *sequence = sequence.wrapping_add(1);
                } else {
                    self.rtp(leg, 0);
                }
            }
            n += 1;
            self.run_to((self.now.0 + PTIME) / MILLI);
        }
    }

    fn rtcp(&mut self, leg: LegIndex, report: &Report) -> Verdict {
        let mut compound = [0; Report::LEN_MAX];
        let len = report.write(&mut compound);
        self.receive(leg, &mut compound[..len].to_vec())
    }

    fn report_of(&self, leg: LegIndex) -> trunkline_edge_api::LegReport {
        self.session.report()[leg.as_usize()]
    }
}

/// What the peer reads in a compound: blocks about itself, and NTP middles of sender reports.
fn heard_by(leg: LegIndex, compound: &[u8]) -> (Vec<ReportBlock>, Vec<u32>) {
    let (mut blocks, mut senders) = (Vec::new(), Vec::new());
    report::read(
        compound,
        peer_ssrc(leg),
        |block| blocks.push(*block),
        |middle| senders.push(middle),
    );
    (blocks, senders)
}

fn is_goodbye(compound: &[u8], own: Ssrc) -> bool {
    let [rest @ .., a, b, c, d] = compound else {
        return false;
    };
    rest.ends_with(&[0x81, 203, 0, 1]) && [*a, *b, *c, *d] == own.0.to_be_bytes()
}

#[test]
fn peers_without_rtcp_get_reports_of_the_edge_about_every_five_seconds() {
    let mut world = World::new(MediaTimeouts::OFF);
    world.talk(&[A, B], 60_000, |n| n % 20 == 7);
    for leg in LegIndex::ALL {
        let rtcp = &world.rtcp[leg.as_usize()];
        assert!((8..=24).contains(&rtcp.len()), "{}", rtcp.len());
        let (_, last) = rtcp.last().expect("some");
        let (blocks, senders) = heard_by(leg, last);
        assert_eq!(senders.len(), 1, "the leg sends");
        let [block] = blocks[..] else {
            panic!("one block: {blocks:?}");
        };
        let lost = block.cumulative_lost;
        assert!((130..=150).contains(&lost), "{lost} of about 2,900");
        assert!((6..=20).contains(&block.fraction_lost), "{block:?}");
        let report = world.report_of(leg);
        assert_eq!(report.lost_packets, 150);
        assert_eq!(report.rx_packets, 2_850);
        assert_eq!(report.jitter_micros, 0);
        assert_eq!(report.mos_centi, 392);
        assert_eq!(report.tx_rtcp_packets, rtcp.len() as u64);
    }
}

#[test]
fn leg_that_sends_nothing_reports_as_a_receiver() {
    let mut world = World::new(MediaTimeouts::OFF);
    world.talk(&[A], 20_000, |_| false);
    for (_, compound) in &world.rtcp[A.as_usize()] {
        let (blocks, senders) = heard_by(A, compound);
        assert_eq!((blocks.len(), senders.len()), (1, 0));
    }
    for (_, compound) in &world.rtcp[B.as_usize()] {
        let (blocks, senders) = heard_by(B, compound);
        assert_eq!((blocks.len(), senders.len()), (0, 1));
    }
}

#[test]
fn far_peers_reports_take_the_place_of_our_own() {
    let mut world = World::new(MediaTimeouts::OFF);
    for second in 0..60 {
        world.talk(&[A, B], second * 1_000, |_| false);
        if second % 5 == 1 {
            let report = Report {
                own: peer_ssrc(A),
                sender: None,
                block: None,
                goodbye: false,
            };
            assert!(matches!(world.rtcp(A, &report), Verdict::Forward(_)));
        }
    }
    assert_eq!(world.rtcp[B.as_usize()], [], "A's peer spoke to B");
    assert!(world.rtcp[A.as_usize()].len() > 5, "B's did not to A");
}

#[test]
fn round_trip_is_measured_from_reports_of_the_edge() {
    let mut world = World::new(MediaTimeouts::OFF);
    while world.rtcp[A.as_usize()].is_empty() {
        let next = world.now.0 / MILLI + 20;
        world.talk(&[A, B], next, |_| false);
    }
    let (sent_at, compound) = world.rtcp[A.as_usize()].remove(0);
    let (_, senders) = heard_by(A, &compound);
    // The peer is 30 ms away and answers after one second.
    world.run_to(sent_at.0 / MILLI + 1_060);
    let answer = Report {
        own: peer_ssrc(A),
        sender: None,
        block: Some(ReportBlock {
            about: own_ssrc(A),
            fraction_lost: 0,
            cumulative_lost: 4,
            highest_sequence: 0,
            jitter: 40,
            last_sr: senders[0],
            delay_since_last_sr: 65_536,
        }),
        goodbye: false,
    };
    let _ = world.rtcp(A, &answer);
    let report = world.report_of(A);
    assert!(
        report.rtt_micros.abs_diff(60_000) < 1_100,
        "{}",
        report.rtt_micros
    );
    assert_eq!(report.remote_lost_packets, 4);
    assert_eq!(report.remote_jitter_micros, 5_000);
    // 30 ms one way cost 0.72 of R, which leaves 92.48.
    assert_eq!(report.mos_centi, 440);
    assert_eq!(world.report_of(B).rtt_micros, 0);
}

#[test]
fn round_trip_is_measured_from_reports_passed_on_too() {
    let mut world = World::new(MediaTimeouts::OFF);
    world.talk(&[A, B], 1_000, |_| false);
    let from_b = Report {
        own: peer_ssrc(B),
        sender: Some(SenderInfo {
            ntp: 0xdead_beef_1234_5678,
            rtp_time: 0,
            packets: 1,
            octets: 1,
        }),
        block: None,
        goodbye: false,
    };
    assert!(matches!(world.rtcp(B, &from_b), Verdict::Forward(_)));
    world.run_to(1_080);
    let answer = Report {
        own: peer_ssrc(A),
        sender: None,
        block: Some(ReportBlock {
            about: own_ssrc(A),
            fraction_lost: 0,
            cumulative_lost: 0,
            highest_sequence: 0,
            jitter: 0,
            last_sr: 0xbeef_1234,
            delay_since_last_sr: 0,
        }),
        goodbye: false,
    };
    let _ = world.rtcp(A, &answer);
    assert_eq!(world.report_of(A).rtt_micros, 80_000);
}

#[test]
fn report_tells_the_peer_how_long_its_own_was_held() {
    let mut world = World::new(MediaTimeouts::OFF);
    let from_a = Report {
        own: peer_ssrc(A),
        sender: Some(SenderInfo {
            ntp: 0x0000_1111_2222_3333,
            rtp_time: 0,
            packets: 1,
            octets: 1,
        }),
        block: None,
        goodbye: false,
    };
    world.rtp(A, 0);
    let _ = world.rtcp(A, &from_a);
    world.run_to(10_000);
    let (at, compound) = world.rtcp[A.as_usize()].first().expect("one is due");
    let (blocks, _) = heard_by(A, compound);
    assert_eq!(blocks[0].last_sr, 0x1111_2222);
    assert_eq!(
        u64::from(blocks[0].delay_since_last_sr),
        u64::try_from(u128::from(at.0) * 65_536 / 1_000_000_000).expect("small")
    );
}

#[test]
fn session_that_ends_says_goodbye_to_those_it_spoke_to() {
    let mut world = World::new(MediaTimeouts::OFF);
    world.rtp(A, 0);
    world.session.handle_close();
    world.drain();
    let [to_a, to_b] = &world.rtcp;
    assert_eq!(
        to_a.len(),
        0,
        "A's peer never heard of us (RFC 3550 §6.3.7)"
    );
    assert_eq!(to_b.len(), 1);
    assert!(is_goodbye(&to_b[0].1, own_ssrc(B)));
}

#[test]
fn session_without_a_peer_waits_for_nothing() {
    let mut session = MediaSession::new();
    assert_eq!(session.poll_timeout(), None);
    let local = LocalMedia {
        rtp: SocketAddr::from(([192, 0, 2, 1], 30_000)),
        rtcp: RtcpMode::Muxed,
        ssrc: Ssrc(1),
    };
    let open = SessionCommand::OpenLeg(A, local);
    session.handle_command(MonoTime(0), open).expect("it fits");
    assert_eq!(session.poll_timeout(), None);
    let nobody = LegConfig {
        remote_rtp: None,
        remote_rtcp: None,
        source: SourcePolicy::Nobody,
        direction: MediaDirection::Inactive,
        routes: PayloadRoutes::default(),
        crypto: None,
        timeouts: MediaTimeouts::default(),
    };
    let configure = SessionCommand::ConfigureLeg(A, nobody);
    session
        .handle_command(MonoTime(0), configure)
        .expect("it fits");
    assert_eq!(session.poll_timeout(), None);
    session.handle_close();
    assert!(
        session
            .poll_transmit(MonoTime(0), &mut [0; TRANSMIT_LEN_MAX])
            .is_none()
    );
}

const LIMITS: MediaTimeouts = MediaTimeouts {
    never_started_secs: 10,
    stopped_secs: 20,
    held_secs: 100,
};

#[test]
fn each_leg_is_told_of_by_itself_and_on_time() {
    let mut world = World::new(LIMITS);
    world.talk(&[B], 5_000, |_| false);
    world.run_to(29_000);
    assert_eq!(
        world.timeouts,
        [
            (10_000, A, MediaTimeoutKind::NeverStarted),
            (20_000, A, MediaTimeoutKind::NeverStarted),
            (24_980, B, MediaTimeoutKind::Stopped),
        ]
    );
}

#[test]
fn comfort_noise_is_life_even_where_it_was_not_agreed_on() {
    let mut world = World::new(LIMITS);
    for second in 0..60 {
        world.run_to(second * 1_000);
        world.rtp(A, 0);
        world.rtp(B, if second == 0 { 0 } else { 13 });
    }
    assert_eq!(world.timeouts, []);
    assert_eq!(world.report_of(B).rx_packets, 1);
}

#[test]
fn call_on_hold_has_the_limit_of_a_hold_only() {
    let mut world = World::new(LIMITS);
    world.talk(&[A, B], 3_000, |_| false);
    for (leg, direction) in [
        (A, MediaDirection::ReceiveOnly),
        (B, MediaDirection::SendOnly),
    ] {
        let mut held = config(leg, LIMITS);
        held.direction = direction;
        world.command(SessionCommand::ConfigureLeg(leg, held));
    }
    world.run_to(102_000);
    assert_eq!(world.timeouts, []);
    world.run_to(200_000);
    assert_eq!(
        world.timeouts,
        [
            (103_000, A, MediaTimeoutKind::Held),
            (103_000, B, MediaTimeoutKind::Held),
        ]
    );
}
