use std::net::IpAddr;

use proptest::prelude::*;
use trunkline_edge_api::{
    ClockRateHz, MediaDirection, MediaTimeouts, PayloadRoute, PayloadRoutes, PayloadType, RtcpMode,
    SourcePolicy, Ssrc,
};

use super::*;

const A: LegIndex = LegIndex::A;
const B: LegIndex = LegIndex::B;
const SSRC_A: Ssrc = Ssrc(0xaaaa_aaaa);
const SSRC_B: Ssrc = Ssrc(0xbbbb_bbbb);
const NOW: MonoTime = MonoTime(1_000_000_000);
/// Opus, numbered differently by the two peers.
const OPUS_A: u8 = 111;
const OPUS_B: u8 = 96;
const STRANGER: &str = "203.0.113.66:4000";

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn pt(value: u8) -> PayloadType {
    PayloadType::new(value).expect("below 128")
}

fn local(port: u16, rtcp: RtcpMode, ssrc: Ssrc) -> LocalMedia {
    LocalMedia {
        rtp: SocketAddr::new(addr("192.0.2.1:0").ip(), port),
        rtcp,
        ssrc,
    }
}

fn config(remote: &str, own_opus: u8, far_opus: u8) -> LegConfig {
    let rtp = addr(remote);
    let route = |from, to, clock_rate| PayloadRoute {
        from: pt(from),
        to: pt(to),
        clock_rate,
    };
    LegConfig {
        remote_rtp: Some(rtp),
        remote_rtcp: Some(SocketAddr::new(rtp.ip(), rtp.port() + 1)),
        source: SourcePolicy::Exact,
        direction: MediaDirection::SendReceive,
        routes: PayloadRoutes::new(vec![
            route(0, 0, ClockRateHz::NARROWBAND),
            route(own_opus, far_opus, ClockRateHz::OPUS),
        ])
        .expect("no duplicates"),
        crypto: None,
        timeouts: MediaTimeouts::OFF,
    }
}

fn config_a() -> LegConfig {
    config("198.51.100.1:4000", OPUS_A, OPUS_B)
}

fn config_b() -> LegConfig {
    config("198.51.100.2:6000", OPUS_B, OPUS_A)
}

/// A call with a socket for RTCP of its own on both legs.
struct Call {
    session: MediaSession,
}

impl Call {
    fn unconfigured() -> Self {
        let mut session = MediaSession::new();
        for command in [
            SessionCommand::OpenLeg(A, local(30_000, RtcpMode::Separate, SSRC_A)),
            SessionCommand::OpenLeg(B, local(30_002, RtcpMode::Separate, SSRC_B)),
        ] {
            session.handle_command(NOW, command).expect("fresh session");
        }
        Self { session }
    }

    fn up() -> Self {
        Self::with(|_, _| {})
    }

    fn with(edit: impl FnOnce(&mut LegConfig, &mut LegConfig)) -> Self {
        let mut call = Self::unconfigured();
        let (mut a, mut b) = (config_a(), config_b());
        edit(&mut a, &mut b);
        call.configure(A, a);
        call.configure(B, b);
        call
    }

    fn configure(&mut self, leg: LegIndex, config: LegConfig) {
        let command = SessionCommand::ConfigureLeg(leg, config);
        self.session
            .handle_command(NOW, command)
            .expect("fitting configuration");
    }

    fn receive(
        &mut self,
        leg: LegIndex,
        socket: SocketKind,
        source: &str,
        packet: &mut [u8],
    ) -> Verdict {
        let meta = RxMeta {
            source: addr(source),
            socket,
            truncated: false,
        };
        self.session.handle_packet(NOW, leg, &meta, packet)
    }

    /// RTP that A's peer sends.
    fn rtp_from_a(&mut self, packet: &mut [u8]) -> Verdict {
        self.receive(A, SocketKind::Rtp, "198.51.100.1:4000", packet)
    }
}

fn rtp(payload_type: u8, sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x80, payload_type];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 1, 0, 0, 0, 0, 7]);
    packet.extend(0..160);
    packet
}

fn receiver_report() -> Vec<u8> {
    vec![0x80, 201, 0, 1, 0, 0, 0, 7]
}

fn forwarded(verdict: Verdict) -> Transmit {
    match verdict {
        Verdict::Forward(transmit) => transmit,
        other => panic!("expected Forward, got {other:?}"),
    }
}

#[test]
fn rtp_leaves_on_the_far_leg_under_its_ssrc_and_payload_type() {
    let mut call = Call::up();
    let original = rtp(0x80 | OPUS_A, 500);
    let mut packet = original.clone();
    let transmit = forwarded(call.rtp_from_a(&mut packet));
    assert_eq!(
        transmit,
        Transmit {
            leg: B,
            socket: SocketKind::Rtp,
            kind: MediaKind::Rtp,
            dest: addr("198.51.100.2:6000"),
            len: original.len(),
        }
    );
    let header = RtpHeader::parse(&packet).expect("still RTP");
    assert_eq!(header.payload_type, pt(OPUS_B));
    assert!(header.marker);
    assert_eq!(header.ssrc, SSRC_B);
    assert_eq!(packet[12..], original[12..]);
}

#[test]
fn rtcp_leaves_from_the_rtcp_socket_of_the_far_leg() {
    let mut call = Call::up();
    let mut packet = receiver_report();
    let verdict = call.receive(A, SocketKind::Rtcp, "198.51.100.1:4001", &mut packet);
    let transmit = forwarded(verdict);
    assert_eq!(transmit.socket, SocketKind::Rtcp);
    assert_eq!(transmit.dest, addr("198.51.100.2:6001"));
    assert_eq!(packet[4..8], SSRC_B.0.to_be_bytes());
}

#[test]
fn rtcp_crosses_from_separate_to_multiplexed_and_back() {
    let mut call = Call::with(|_, b| b.remote_rtcp = b.remote_rtp);
    let verdict = call.receive(
        A,
        SocketKind::Rtcp,
        "198.51.100.1:4001",
        &mut receiver_report(),
    );
    let transmit = forwarded(verdict);
    assert_eq!(transmit.socket, SocketKind::Rtp);
    assert_eq!(transmit.dest, addr("198.51.100.2:6000"));
    let verdict = call.receive(
        B,
        SocketKind::Rtp,
        "198.51.100.2:6000",
        &mut receiver_report(),
    );
    assert_eq!(forwarded(verdict).socket, SocketKind::Rtcp);
}

#[test]
fn every_reason_to_drop_has_its_packet() {
    let sdp_only = |_: &mut LegConfig, _: &mut LegConfig| {};
    let peer = "198.51.100.1:4000";
    type Edit = fn(&mut LegConfig, &mut LegConfig);
    let rows: Vec<(DropReason, Edit, SocketKind, &str, Vec<u8>)> = vec![
        (
            DropReason::NotMedia,
            sdp_only,
            SocketKind::Rtp,
            peer,
            vec![],
        ),
        (
            DropReason::NotMedia,
            sdp_only,
            SocketKind::Rtp,
            peer,
            vec![0xff; 40],
        ),
        (
            DropReason::NotMedia,
            sdp_only,
            SocketKind::Rtp,
            peer,
            vec![0x40; 40],
        ),
        (
            DropReason::UnexpectedStun,
            sdp_only,
            SocketKind::Rtp,
            peer,
            vec![0, 1, 0, 0],
        ),
        (
            DropReason::UnexpectedDtls,
            sdp_only,
            SocketKind::Rtp,
            peer,
            vec![22, 254, 253],
        ),
        (
            DropReason::MalformedRtp,
            sdp_only,
            SocketKind::Rtp,
            peer,
            vec![0x80, 0, 0],
        ),
        (
            DropReason::MalformedRtcp,
            sdp_only,
            SocketKind::Rtcp,
            "198.51.100.1:4001",
            vec![0x80, 201, 0, 0],
        ),
        (
            DropReason::WrongSocket,
            sdp_only,
            SocketKind::Rtcp,
            "198.51.100.1:4001",
            rtp(0, 1),
        ),
        (
            DropReason::WrongSocket,
            sdp_only,
            SocketKind::Rtp,
            peer,
            receiver_report(),
        ),
        (
            DropReason::SourceNotAllowed,
            sdp_only,
            SocketKind::Rtp,
            STRANGER,
            rtp(0, 1),
        ),
        (
            DropReason::SourceNotAllowed,
            |a, _| a.source = SourcePolicy::Nobody,
            SocketKind::Rtp,
            peer,
            rtp(0, 1),
        ),
        (
            DropReason::PayloadTypeNotNegotiated,
            sdp_only,
            SocketKind::Rtp,
            peer,
            rtp(8, 1),
        ),
        (
            DropReason::DirectionInactive,
            |a, _| a.direction = MediaDirection::SendOnly,
            SocketKind::Rtp,
            peer,
            rtp(0, 1),
        ),
        (
            DropReason::DirectionInactive,
            |_, b| b.direction = MediaDirection::ReceiveOnly,
            SocketKind::Rtp,
            peer,
            rtp(0, 1),
        ),
        (
            DropReason::NoDestination,
            |_, b| b.remote_rtp = None,
            SocketKind::Rtp,
            peer,
            rtp(0, 1),
        ),
        (
            DropReason::NoDestination,
            |_, b| b.remote_rtcp = None,
            SocketKind::Rtcp,
            "198.51.100.1:4001",
            receiver_report(),
        ),
    ];
    for (reason, edit, socket, source, mut packet) in rows {
        let mut call = Call::with(edit);
        let verdict = call.receive(A, socket, source, &mut packet);
        assert_eq!(verdict, Verdict::Drop(reason), "{socket:?} {packet:x?}");
        assert_eq!(call.session.report()[0].dropped_packets, 1, "{reason:?}");
        assert_eq!(call.session.report()[1], LegReport::default(), "{reason:?}");
    }
}

#[test]
fn truncated_datagram_is_oversize_whatever_it_holds() {
    let mut call = Call::up();
    let meta = RxMeta {
        source: addr("198.51.100.1:4000"),
        socket: SocketKind::Rtp,
        truncated: true,
    };
    let verdict = call.session.handle_packet(NOW, A, &meta, &mut rtp(0, 1));
    assert_eq!(verdict, Verdict::Drop(DropReason::Oversize));
}

#[test]
fn leg_that_is_not_configured_hears_nobody() {
    let mut call = Call::unconfigured();
    let verdict = call.rtp_from_a(&mut rtp(0, 1));
    assert_eq!(verdict, Verdict::Drop(DropReason::SourceNotAllowed));
}

#[test]
fn leg_without_far_leg_has_no_destination() {
    let mut call = Call::up();
    call.session
        .handle_command(NOW, SessionCommand::CloseLeg(B))
        .expect("open leg");
    let verdict = call.rtp_from_a(&mut rtp(0, 1));
    assert_eq!(verdict, Verdict::Drop(DropReason::NoDestination));
}

#[test]
fn rtcp_still_flows_while_media_is_inactive() {
    let mut call = Call::with(|a, b| {
        a.direction = MediaDirection::Inactive;
        b.direction = MediaDirection::Inactive;
    });
    let verdict = call.receive(
        A,
        SocketKind::Rtcp,
        "198.51.100.1:4001",
        &mut receiver_report(),
    );
    assert!(matches!(verdict, Verdict::Forward(_)));
}

#[test]
fn rtcp_that_is_for_us_alone_is_consumed() {
    let mut call = Call::up();
    let verdict = call.receive(
        A,
        SocketKind::Rtcp,
        "198.51.100.1:4001",
        &mut [0x80, 203, 0, 0],
    );
    assert_eq!(verdict, Verdict::Consumed);
}

fn behind_nat(config: &mut LegConfig) {
    let ip: IpAddr = addr("198.51.100.1:0").ip();
    config.source = SourcePolicy::LearnPort { ip };
    config.remote_rtp = Some(addr("10.0.0.5:4000"));
    config.remote_rtcp = Some(addr("10.0.0.5:4001"));
}

#[test]
fn peer_behind_nat_is_answered_where_it_sends_from() {
    let mut call = Call::with(|a, _| behind_nat(a));
    forwarded(call.receive(A, SocketKind::Rtp, "198.51.100.1:61000", &mut rtp(0, 1)));
    let verdict = call.receive(
        A,
        SocketKind::Rtcp,
        "198.51.100.1:61007",
        &mut receiver_report(),
    );
    forwarded(verdict);
    let back = call.receive(B, SocketKind::Rtp, "198.51.100.2:6000", &mut rtp(0, 1));
    assert_eq!(forwarded(back).dest, addr("198.51.100.1:61000"));
    let back = call.receive(
        B,
        SocketKind::Rtcp,
        "198.51.100.2:6001",
        &mut receiver_report(),
    );
    assert_eq!(forwarded(back).dest, addr("198.51.100.1:61007"));
    let other = call.receive(A, SocketKind::Rtp, "198.51.100.1:62000", &mut rtp(0, 1));
    assert_eq!(other, Verdict::Drop(DropReason::SourceNotAllowed));
}

#[test]
fn peer_whose_nat_gives_it_another_port_is_followed() {
    let mut call = Call::with(|a, _| behind_nat(a));
    forwarded(call.receive(A, SocketKind::Rtp, "198.51.100.1:61000", &mut rtp(0, 1)));
    forwarded(call.receive(A, SocketKind::Rtp, "198.51.100.1:62000", &mut rtp(0, 2)));
    let back = call.receive(B, SocketKind::Rtp, "198.51.100.2:6000", &mut rtp(0, 1));
    assert_eq!(forwarded(back).dest, addr("198.51.100.1:62000"));
}

#[test]
fn invalid_packets_teach_nothing() {
    let mut call = Call::with(|a, _| behind_nat(a));
    for mut packet in [vec![0x80, 0, 0], rtp(8, 1)] {
        let _ = call.receive(A, SocketKind::Rtp, "198.51.100.1:62000", &mut packet);
    }
    let _ = call.receive(
        A,
        SocketKind::Rtcp,
        "198.51.100.1:62000",
        &mut [0x80, 201, 0, 0],
    );
    assert_eq!(call.session.poll_event(), None);
    forwarded(call.receive(A, SocketKind::Rtp, "198.51.100.1:61000", &mut rtp(0, 1)));
    forwarded(call.receive(
        A,
        SocketKind::Rtcp,
        "198.51.100.1:61001",
        &mut receiver_report(),
    ));
}

#[test]
fn multiplexed_rtcp_does_not_fix_the_rtp_port() {
    let mut call = Call::with(|a, _| {
        behind_nat(a);
        a.remote_rtcp = a.remote_rtp;
    });
    forwarded(call.receive(
        A,
        SocketKind::Rtp,
        "198.51.100.1:62000",
        &mut receiver_report(),
    ));
    forwarded(call.receive(A, SocketKind::Rtp, "198.51.100.1:61000", &mut rtp(0, 1)));
}

#[test]
fn learnt_port_outlives_the_same_configuration_and_ends_with_a_new_address() {
    let mut call = Call::with(|a, _| behind_nat(a));
    forwarded(call.receive(A, SocketKind::Rtp, "198.51.100.1:61000", &mut rtp(0, 1)));
    let mut config = config_a();
    behind_nat(&mut config);
    config.direction = MediaDirection::ReceiveOnly;
    call.configure(A, config.clone());
    let other_port = call.receive(A, SocketKind::Rtp, "198.51.100.1:62000", &mut rtp(0, 1));
    assert_eq!(other_port, Verdict::Drop(DropReason::SourceNotAllowed));
    config.remote_rtp = Some(addr("10.0.0.5:4500"));
    call.configure(A, config);
    forwarded(call.receive(A, SocketKind::Rtp, "198.51.100.1:62000", &mut rtp(0, 3)));
}

#[test]
fn media_start_is_told_once_per_gate() {
    let mut call = Call::up();
    let started = SessionEvent::MediaStarted {
        leg: A,
        source: addr("198.51.100.1:4000"),
    };
    assert_eq!(call.session.poll_event(), None);
    let _ = call.rtp_from_a(&mut rtp(0, 1));
    let _ = call.rtp_from_a(&mut rtp(0, 2));
    assert_eq!(call.session.poll_event(), Some(started));
    assert_eq!(call.session.poll_event(), None);
    let mut config = config_a();
    config.direction = MediaDirection::ReceiveOnly;
    call.configure(A, config.clone());
    let _ = call.rtp_from_a(&mut rtp(0, 3));
    assert_eq!(call.session.poll_event(), None, "the gate is the same");
    config.remote_rtp = Some(addr("198.51.100.1:4444"));
    call.configure(A, config);
    let _ = call.receive(A, SocketKind::Rtp, "198.51.100.1:4444", &mut rtp(0, 4));
    assert!(call.session.poll_event().is_some());
}

#[test]
fn stream_goes_on_over_reconfiguration_and_a_replaced_far_leg() {
    let mut call = Call::up();
    let sequence_at_a = |call: &mut Call, ssrc: u8| {
        let mut packet = rtp(0, 4_000);
        packet[11] = ssrc;
        forwarded(call.receive(B, SocketKind::Rtp, "198.51.100.2:6000", &mut packet));
        let header = RtpHeader::parse(&packet).expect("still RTP");
        assert_eq!(header.ssrc, SSRC_A);
        header.sequence
    };
    let first = sequence_at_a(&mut call, 1);
    call.configure(A, config_a());
    let after_reinvite = sequence_at_a(&mut call, 1);
    assert_eq!(after_reinvite, first);
    call.session
        .handle_command(NOW, SessionCommand::CloseLeg(B))
        .expect("open leg");
    let other = SessionCommand::OpenLeg(B, local(30_004, RtcpMode::Separate, Ssrc(3)));
    call.session.handle_command(NOW, other).expect("closed leg");
    call.configure(B, config_b());
    let next_callee = sequence_at_a(&mut call, 2);
    assert_eq!(next_callee, first.wrapping_add(1));
}

#[test]
fn commands_are_refused_by_table_and_then_change_nothing() {
    let with_rtp = |text: &str| {
        let mut config = config_a();
        config.remote_rtp = Some(addr(text));
        config
    };
    let elsewhere = local(30_008, RtcpMode::Separate, SSRC_A);
    let rows = [
        (
            SessionCommand::OpenLeg(A, elsewhere),
            Refusal::LegOpenElsewhere,
        ),
        (
            SessionCommand::ConfigureLeg(A, with_rtp("[2001:db8::1]:4000")),
            Refusal::AddressMismatch,
        ),
        (
            SessionCommand::ConfigureLeg(A, with_rtp("0.0.0.0:4000")),
            Refusal::AddressMismatch,
        ),
        (
            SessionCommand::ConfigureLeg(A, with_rtp("224.0.0.1:4000")),
            Refusal::AddressMismatch,
        ),
        (
            SessionCommand::ConfigureLeg(A, with_rtp("255.255.255.255:4000")),
            Refusal::AddressMismatch,
        ),
        (
            SessionCommand::ConfigureLeg(A, with_rtp("198.51.100.1:0")),
            Refusal::AddressMismatch,
        ),
    ];
    for (command, refusal) in rows {
        let mut call = Call::up();
        assert_eq!(
            call.session.handle_command(NOW, command.clone()),
            Err(refusal),
            "{command:?}"
        );
        assert!(matches!(
            call.rtp_from_a(&mut rtp(0, 1)),
            Verdict::Forward(_)
        ));
    }
    let mut session = MediaSession::new();
    let command = SessionCommand::ConfigureLeg(A, config_a());
    assert_eq!(
        session.handle_command(NOW, command),
        Err(Refusal::NoSuchLeg)
    );
}

#[test]
fn repeated_commands_are_harmless() {
    let mut call = Call::up();
    let _ = call.rtp_from_a(&mut rtp(0, 1));
    let before = call.session.report();
    let open = SessionCommand::OpenLeg(A, local(30_000, RtcpMode::Separate, SSRC_A));
    assert_eq!(call.session.handle_command(NOW, open), Ok(()));
    call.configure(A, config_a());
    assert_eq!(call.session.report(), before);
    for _ in 0..2 {
        assert_eq!(
            call.session
                .handle_command(NOW, SessionCommand::CloseLeg(A)),
            Ok(())
        );
    }
    assert_eq!(call.session.local(A), None);
}

#[test]
fn figures_count_what_was_heard_and_what_was_sent() {
    let mut call = Call::up();
    let transmit = forwarded(call.rtp_from_a(&mut rtp(0, 1)));
    let _ = call.rtp_from_a(&mut rtp(0, 2));
    let _ = call.receive(
        A,
        SocketKind::Rtcp,
        "198.51.100.1:4001",
        &mut receiver_report(),
    );
    let _ = call.receive(A, SocketKind::Rtp, STRANGER, &mut rtp(0, 1));
    call.session.handle_send_failure(&transmit);
    let [a, b] = call.session.report();
    assert_eq!(
        a,
        LegReport {
            rx_packets: 2,
            rx_bytes: 344,
            rx_rtcp_packets: 1,
            dropped_packets: 2,
            mos_centi: 441,
            ..LegReport::default()
        }
    );
    assert_eq!(
        b,
        LegReport {
            tx_packets: 1,
            tx_bytes: 172,
            tx_rtcp_packets: 1,
            ..LegReport::default()
        }
    );
}

#[test]
fn only_the_peers_valid_packets_keep_a_session_alive() {
    let mut call = Call::with(|_, b| b.direction = MediaDirection::Inactive);
    let _ = call.receive(A, SocketKind::Rtp, STRANGER, &mut rtp(0, 1));
    let _ = call.rtp_from_a(&mut [0x80, 0, 0]);
    assert_eq!(call.session.last_heard(), None);
    let _ = call.rtp_from_a(&mut rtp(0, 1));
    assert_eq!(call.session.last_heard(), Some(NOW), "held media is media");
}

proptest! {
    #[test]
    fn arbitrary_datagrams_never_panic(
        datagrams in proptest::collection::vec(
            (any::<bool>(), any::<bool>(), proptest::collection::vec(any::<u8>(), 0..100)), 0..20),
    ) {
        let mut call = Call::with(|a, b| {
            behind_nat(a);
            b.remote_rtcp = b.remote_rtp;
        });
        for (on_a, on_rtcp, mut datagram) in datagrams {
            let (leg, source) = if on_a { (A, "198.51.100.1:4000") } else { (B, "198.51.100.2:6000") };
            let socket = if on_rtcp { SocketKind::Rtcp } else { SocketKind::Rtp };
            let arrived = datagram.len();
            match call.receive(leg, socket, source, &mut datagram) {
                Verdict::Forward(transmit) => {
                    prop_assert!(transmit.len <= arrived);
                    prop_assert_ne!(transmit.leg, leg);
                }
                Verdict::Consumed | Verdict::Drop(_) => {}
            }
        }
    }

    /// Whatever stands behind the fixed header - CSRC list, extension, payload, padding - arrives
    /// byte for byte, and so do the first byte and the marker.
    #[test]
    fn nothing_but_the_four_fields_changes(
        first_byte in 0x80u8..0xc0, opus: bool, marker: bool, rest in proptest::collection::vec(any::<u8>(), 10..300),
    ) {
        let payload_type = if opus { OPUS_A } else { 0 };
        let mut packet = vec![first_byte, u8::from(marker) << 7 | payload_type];
        packet.extend_from_slice(&rest);
        let original = packet.clone();
        if let Verdict::Forward(transmit) = Call::up().rtp_from_a(&mut packet) {
            prop_assert_eq!(transmit.len, original.len());
            prop_assert_eq!(packet[0], original[0]);
            prop_assert_eq!(packet[1] & 0x80, original[1] & 0x80);
            prop_assert_eq!(&packet[12..], &original[12..]);
        } else {
            prop_assert!(RtpHeader::parse(&original).is_err());
        }
    }

    /// A stranger sprays a call; nothing that it sends is forwarded or changes where media goes.
    #[test]
    fn stranger_is_neither_heard_nor_answered(
        sprayed in proptest::collection::vec((any::<bool>(), any::<u8>(), any::<u16>()), 1..50), nat: bool,
    ) {
        let mut call = Call::with(|a, _| if nat { behind_nat(a) });
        for (to_a, payload_type, sequence) in sprayed {
            let leg = if to_a { A } else { B };
            let verdict = call.receive(leg, SocketKind::Rtp, STRANGER, &mut rtp(payload_type & 0x7f, sequence));
            prop_assert!(matches!(verdict, Verdict::Drop(_)));
        }
        forwarded(call.rtp_from_a(&mut rtp(0, 1)));
        let back = call.receive(B, SocketKind::Rtp, "198.51.100.2:6000", &mut rtp(0, 1));
        prop_assert_eq!(forwarded(back).dest, addr("198.51.100.1:4000"));
    }
}
