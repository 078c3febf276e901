use proptest::prelude::*;

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::*;
use crate::command::{
    Command, CorrelatedCommand, LegConfig, LocalMedia, MediaDirection, MediaTimeouts, PayloadRoute,
    PayloadRoutes, RtcpMode, SourcePolicy,
};
use crate::crypto::{LegCrypto, SrtpKey, SrtpSuite};
use crate::event::{CloseCause, Event, LegReport, MediaTimeoutKind, Refusal, SessionReport};
use crate::function::{
    PlaySource, PlaySources, Playback, PlaybackId, PlaybackMode, Tone, ToneSegment,
};
use crate::source_networks::{SourceNetwork, SourceNetworks};
use crate::vocabulary::{ClockRateHz, Epoch, LegIndex, PayloadType, SessionId, Ssrc};

mod functions;

fn arb_ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from)
    ]
}

fn arb_networks() -> impl Strategy<Value = SourceNetworks> {
    let network = arb_ip().prop_filter_map("IPv4 has a form of its own", |ip| {
        SourceNetwork::new(ip, if ip.is_ipv4() { 32 } else { 128 })
    });
    prop::collection::vec(network, 1..=SourceNetworks::LEN_MAX)
        .prop_filter_map("one to eight", |networks| SourceNetworks::new(&networks))
}

fn arb_addr() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        (any::<[u8; 4]>(), any::<u16>()).prop_map(SocketAddr::from),
        (any::<[u8; 16]>(), any::<u16>(), any::<u32>()).prop_map(|(ip, port, scope)| {
            SocketAddr::V6(SocketAddrV6::new(ip.into(), port, 0, scope))
        }),
    ]
}

fn arb_leg() -> impl Strategy<Value = LegIndex> {
    prop::sample::select(&LegIndex::ALL[..])
}

fn arb_routes() -> impl Strategy<Value = PayloadRoutes> {
    prop::collection::btree_map(
        0u8..128,
        (0u8..128, 1u32..=384_000),
        0..=PayloadRoutes::LEN_MAX,
    )
    .prop_map(|routes| {
        let routes = routes.into_iter().map(|(from, (to, hz))| PayloadRoute {
            from: PayloadType::new(from).expect("below 128"),
            to: PayloadType::new(to).expect("below 128"),
            clock_rate: ClockRateHz::new(hz).expect("in range"),
        });
        PayloadRoutes::new(routes.collect()).expect("no duplicates")
    })
}

fn arb_crypto() -> impl Strategy<Value = LegCrypto> {
    let bytes = any::<[[u8; 32]; 4]>();
    (prop::sample::select(&SrtpSuite::ALL[..]), bytes).prop_map(|(suite, [a, b, c, d])| {
        let len = suite.key_len() + suite.salt_len();
        let key = |halves: [[u8; 32]; 2]| {
            SrtpKey::new(suite, &halves.as_flattened()[..len]).expect("the right length")
        };
        LegCrypto {
            suite,
            send: key([a, b]),
            receive: key([c, d]),
        }
    })
}

fn arb_timeouts() -> impl Strategy<Value = MediaTimeouts> {
    any::<[u32; 3]>().prop_map(
        |[never_started_secs, stopped_secs, held_secs]| MediaTimeouts {
            never_started_secs,
            stopped_secs,
            held_secs,
        },
    )
}

fn arb_config() -> impl Strategy<Value = LegConfig> {
    let source = prop_oneof![
        Just(SourcePolicy::Nobody),
        Just(SourcePolicy::Exact),
        arb_ip().prop_map(|ip| SourcePolicy::LearnPort { ip }),
        arb_networks().prop_map(SourcePolicy::Networks),
    ];
    let direction = (0u8..4).prop_map(|v| MediaDirection::try_from(v).expect("defined"));
    (
        prop::option::of(arb_addr()),
        prop::option::of(arb_addr()),
        source,
        direction,
        arb_routes(),
        prop::option::of(arb_crypto()),
        arb_timeouts(),
    )
        .prop_map(
            |(remote_rtp, remote_rtcp, source, direction, routes, crypto, timeouts)| LegConfig {
                remote_rtp,
                remote_rtcp,
                source,
                direction,
                routes,
                crypto,
                timeouts,
            },
        )
}

fn arb_command() -> impl Strategy<Value = CorrelatedCommand> {
    let session = || any::<u64>().prop_map(SessionId);
    let local = (arb_addr(), any::<bool>(), any::<u32>()).prop_map(|(rtp, muxed, ssrc)| {
        let rtcp = if muxed {
            RtcpMode::Muxed
        } else {
            RtcpMode::Separate
        };
        LocalMedia {
            rtp,
            rtcp,
            ssrc: Ssrc(ssrc),
        }
    });
    let command = prop_oneof![
        (session(), arb_leg(), local).prop_map(|(session, leg, local)| Command::OpenLeg {
            session,
            leg,
            local
        }),
        (session(), arb_leg(), arb_config()).prop_map(|(session, leg, config)| {
            Command::ConfigureLeg {
                session,
                leg,
                config,
            }
        }),
        (session(), arb_leg()).prop_map(|(session, leg)| Command::CloseLeg { session, leg }),
        session().prop_map(|session| Command::CloseSession { session }),
        session().prop_map(|session| Command::QuerySession { session }),
        Just(Command::QueryAllSessions),
        any::<u32>().prop_map(|epoch| Command::CloseOtherEpochs { keep: Epoch(epoch) }),
        functions::arb_command(),
    ];
    (any::<u64>(), command).prop_map(|(correlation, command)| CorrelatedCommand {
        correlation: Correlation(correlation),
        command,
    })
}

fn arb_event() -> impl Strategy<Value = Event> {
    const REFUSALS: [u16; 21] = [
        10, 11, 12, 13, 20, 21, 22, 23, 24, 30, 31, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49,
    ];
    const CAUSES: [u16; 4] = [10, 11, 12, 20];
    let correlation = || any::<u64>().prop_map(Correlation);
    let refusal = prop::sample::select(&REFUSALS[..])
        .prop_map(|code| Refusal::try_from(code).expect("defined"));
    let cause = prop::sample::select(&CAUSES[..])
        .prop_map(|code| CloseCause::try_from(code).expect("defined"));
    let leg_report = any::<([u64; 12], [u32; 4], u16)>().prop_map(|(v, w, mos_centi)| LegReport {
        rx_packets: v[0],
        rx_bytes: v[1],
        tx_packets: v[2],
        tx_bytes: v[3],
        rx_rtcp_packets: v[4],
        tx_rtcp_packets: v[5],
        dropped_packets: v[6],
        lost_packets: v[7],
        reordered_packets: v[8],
        duplicate_packets: v[9],
        jitter_micros: w[0],
        jitter_max_micros: w[1],
        rtt_micros: w[2],
        mos_centi,
        remote_lost_packets: v[10],
        remote_jitter_micros: w[3],
        srtp_failed_packets: v[11],
    });
    let report =
        (any::<u64>(), leg_report.clone(), leg_report).prop_map(|(session, a, b)| SessionReport {
            session: SessionId(session),
            legs: [a, b],
        });
    prop_oneof![
        (correlation(), prop::option::of(refusal)).prop_map(|(correlation, refusal)| {
            Event::CommandDone {
                correlation,
                result: refusal.map_or(Ok(()), Err),
            }
        }),
        (cause, report.clone()).prop_map(|(cause, report)| Event::SessionClosed { cause, report }),
        (correlation(), report).prop_map(|(correlation, report)| Event::SessionReported {
            correlation,
            report
        }),
        (any::<u64>(), arb_leg(), arb_addr()).prop_map(|(session, leg, source)| {
            Event::MediaStarted {
                session: SessionId(session),
                leg,
                source,
            }
        }),
        (any::<u64>(), arb_leg(), 1u8..=3).prop_map(|(session, leg, kind)| Event::MediaTimedOut {
            session: SessionId(session),
            leg,
            kind: MediaTimeoutKind::try_from(kind).expect("defined"),
        }),
        functions::arb_event(),
    ]
}

proptest! {
    #[test]
    fn commands_survive_the_round_trip(command in arb_command()) {
        let mut buf = [0xee; MESSAGE_LEN_MAX];
        let bytes = encode_command(&command, &mut buf);
        prop_assert_eq!(decode_command(bytes), Ok(command));
    }

    #[test]
    fn events_survive_the_round_trip(event in arb_event()) {
        let mut buf = [0xee; MESSAGE_LEN_MAX];
        let bytes = encode_event(&event, &mut buf);
        prop_assert_eq!(decode_event(bytes), Ok(event));
    }

    #[test]
    fn unknown_bytes_at_the_end_of_a_body_are_ignored(
        command in arb_command(),
        event in arb_event(),
        tail in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut buf = [0; MESSAGE_LEN_MAX];
        let mut bytes = encode_command(&command, &mut buf).to_vec();
        bytes.extend_from_slice(&tail);
        prop_assert_eq!(decode_command(&bytes), Ok(command));
        let mut bytes = encode_event(&event, &mut buf).to_vec();
        bytes.extend_from_slice(&tail);
        prop_assert_eq!(decode_event(&bytes), Ok(event));
    }

    #[test]
    fn a_message_cut_anywhere_is_refused_with_its_correlation(
        command in arb_command(),
        event in arb_event(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut buf = [0; MESSAGE_LEN_MAX];
        let bytes = encode_command(&command, &mut buf);
        let len = cut.index(bytes.len());
        prop_assume!(Some(len) != len_of_an_older_version(&command, bytes.len()));
        let error = decode_command(&bytes[..len]).expect_err("cut");
        let readable = (len >= HEAD_LEN).then_some(command.correlation);
        prop_assert_eq!(error.correlation, readable);
        let is_short = matches!(error.fault, DecodeFault::Short { .. });
        prop_assert!(is_short);

        let bytes = encode_event(&event, &mut buf);
        prop_assert!(decode_event(&bytes[..cut.index(bytes.len())]).is_err());
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = decode_command(&bytes);
        let _ = decode_event(&bytes);
    }

    #[test]
    fn no_changed_bytes_make_a_decoder_panic(
        command in arb_command(),
        event in arb_event(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut buf = [0; MESSAGE_LEN_MAX];
        let mut bytes = encode_command(&command, &mut buf).to_vec();
        for (index, value) in &changes {
            let index = index.index(bytes.len());
            bytes[index] = *value;
        }
        if let Ok(command) = decode_command(&bytes) {
            let bytes = encode_command(&command, &mut buf).to_vec();
            prop_assert_eq!(decode_command(&bytes), Ok(command));
        }
        let mut bytes = encode_event(&event, &mut buf).to_vec();
        for (index, value) in &changes {
            let index = index.index(bytes.len());
            bytes[index] = *value;
        }
        let _ = decode_event(&bytes);
    }
}

/// Where an older version ended the command, if this one, whose command has `len` bytes, goes on
/// behind: 1.0 a configuration, 1.2 a playback.
fn len_of_an_older_version(command: &CorrelatedCommand, len: usize) -> Option<usize> {
    match &command.command {
        Command::ConfigureLeg { config, .. } => Some(104 + 8 * config.routes.as_slice().len()),
        Command::Play { .. } => Some(len - 4),
        _ => None,
    }
}

#[test]
fn leg_config_that_ends_where_1_0_ended_has_neither_keys_nor_limits() {
    let mut command = configure_leg(routes([0, 8]));
    let mut buf = [0; MESSAGE_LEN_MAX];
    let bytes = encode_command(&command, &mut buf);
    let older = len_of_an_older_version(&command, bytes.len()).expect("of 1.0");
    let bytes = bytes[..older].to_vec();
    let Command::ConfigureLeg { config, .. } = &mut command.command else {
        panic!("made as one");
    };
    config.crypto = None;
    config.timeouts = MediaTimeouts::OFF;
    assert_eq!(decode_command(&bytes), Ok(command));
}

#[test]
fn leg_report_as_short_as_that_of_1_0_has_zeros_behind() {
    let known = LegReport {
        rx_packets: 1,
        dropped_packets: 7,
        ..LegReport::default()
    };
    let report = |lost_packets| SessionReport {
        session: SessionId(1),
        legs: [LegReport {
            lost_packets,
            srtp_failed_packets: lost_packets,
            ..known
        }; 2],
    };
    let reported = |report| Event::SessionReported {
        correlation: Correlation(1),
        report,
    };
    let mut buf = [0; MESSAGE_LEN_MAX];
    let long = encode_event(&reported(report(9)), &mut buf).to_vec();
    let (head, legs) = long.split_at(32);
    let mut short = head.to_vec();
    short[18] = 56;
    for leg in legs.chunks(120) {
        short.extend_from_slice(&leg[..56]);
    }
    assert_eq!(decode_event(&short), Ok(reported(report(0))));
}

fn configure_leg(routes: PayloadRoutes) -> CorrelatedCommand {
    let addr = SocketAddr::from((Ipv6Addr::LOCALHOST, 40_000));
    let key = || SrtpKey::new(SrtpSuite::AesCm256HmacSha1_80, &[7; 46]).expect("46 bytes");
    CorrelatedCommand {
        correlation: Correlation(5),
        command: Command::ConfigureLeg {
            session: SessionId(1),
            leg: LegIndex::B,
            config: LegConfig {
                remote_rtp: Some(addr),
                remote_rtcp: Some(addr),
                source: SourcePolicy::LearnPort { ip: addr.ip() },
                direction: MediaDirection::SendReceive,
                routes,
                crypto: Some(LegCrypto {
                    suite: SrtpSuite::AesCm256HmacSha1_80,
                    send: key(),
                    receive: key(),
                }),
                timeouts: MediaTimeouts::default(),
            },
        },
    }
}

fn routes(from: impl IntoIterator<Item = u8>) -> PayloadRoutes {
    let route = |from| PayloadRoute {
        from: PayloadType::new(from).expect("below 128"),
        to: PayloadType::PCMA,
        clock_rate: ClockRateHz::NARROWBAND,
    };
    PayloadRoutes::new(from.into_iter().map(route).collect()).expect("valid")
}

#[test]
fn no_command_comes_near_the_limit() {
    let mut buf = [0; MESSAGE_LEN_MAX];
    let mut longest = configure_leg(routes(0..PayloadRoutes::LEN_MAX as u8));
    if let Command::ConfigureLeg { config, .. } = &mut longest.command {
        let host = SourceNetwork::new(Ipv6Addr::LOCALHOST.into(), 128).expect("a host");
        let networks = SourceNetworks::new(&[host; SourceNetworks::LEN_MAX]);
        config.source = SourcePolicy::Networks(networks.expect("eight"));
    }
    assert_eq!(encode_command(&longest, &mut buf).len(), 632);
    let segment = ToneSegment {
        on_millis: 1,
        off_millis: 1,
        frequencies_hz: [425, 0],
    };
    let tone = Tone::new(&[segment; Tone::SEGMENTS_MAX], -10).expect("a tone");
    let sources = vec![PlaySource::Tone(tone); PlaySources::LEN_MAX];
    let play = CorrelatedCommand {
        correlation: Correlation(5),
        command: Command::Play {
            session: SessionId(1),
            leg: LegIndex::A,
            playback: Playback {
                id: PlaybackId(1),
                sources: PlaySources::new(sources).expect("sixteen"),
                rounds: 1,
                ends_on_digit: false,
                mode: PlaybackMode::Replace,
            },
        },
    };
    assert_eq!(encode_command(&play, &mut buf).len(), 1_192);
    assert_eq!(
        encode_command(&configure_leg(routes(0..10)), &mut buf).len(),
        292
    );
    let report = SessionReport {
        session: SessionId(1),
        legs: [LegReport::default(); 2],
    };
    let event = Event::SessionReported {
        correlation: Correlation(1),
        report,
    };
    assert_eq!(encode_event(&event, &mut buf).len(), 272);
}

/// A message with one byte changed, and the field that must be blamed for it.
#[test]
fn undefined_values_are_refused_by_name() {
    let configure = configure_leg(routes([0, 8]));
    let open = CorrelatedCommand {
        correlation: Correlation(5),
        command: Command::OpenLeg {
            session: SessionId(1),
            leg: LegIndex::A,
            local: LocalMedia {
                rtp: SocketAddr::from(([127, 0, 0, 1], 30_000)),
                rtcp: RtcpMode::Muxed,
                ssrc: Ssrc(1),
            },
        },
    };
    let rows: &[(&CorrelatedCommand, usize, u8, &str)] = &[
        (&open, 24, 2, "leg"),
        (&open, 25, 2, "rtcp"),
        (&open, 32, 0, "local"),
        (&open, 32, 5, "local"),
        (&configure, 24, 9, "leg"),
        (&configure, 25, 4, "direction"),
        (&configure, 26, 4, "source"),
        (&configure, 27, 0, "source_ip"),
        (&configure, 27, 7, "source_ip"),
        (&configure, 48, 1, "remote_rtp"),
        (&configure, 72, 255, "remote_rtcp"),
        (&configure, 96, 33, "route_count"),
        (&configure, 97, 7, "route_len"),
        (&configure, 104, 128, "from"),
        (&configure, 105, 200, "to"),
        (&configure, 110, 0xff, "clock_rate"),
        (&configure, 132, 5, "suite"),
        (&configure, 133, 45, "send_key"),
        (&configure, 134, 30, "receive_key"),
    ];
    for &(command, at, value, field) in rows {
        let mut buf = [0; MESSAGE_LEN_MAX];
        let mut bytes = encode_command(command, &mut buf).to_vec();
        bytes[at] = value;
        let error = decode_command(&bytes).expect_err(field);
        assert_eq!(error.correlation, Some(Correlation(5)), "{field}");
        assert!(
            matches!(error.fault, DecodeFault::BadValue { field: f, .. } if f == field),
            "byte {at} = {value}: {error}, expected {field}"
        );
    }
}

#[test]
fn payload_type_routed_twice_is_refused() {
    let mut buf = [0; MESSAGE_LEN_MAX];
    let mut bytes = encode_command(&configure_leg(routes([0, 8])), &mut buf).to_vec();
    bytes[112] = 0;
    assert_eq!(
        decode_command(&bytes).map_err(|error| error.fault),
        Err(DecodeFault::DuplicateRoute)
    );
}

#[test]
fn route_elements_longer_than_known_are_read_as_far_as_known() {
    let command = configure_leg(routes([0, 8]));
    let mut buf = [0; MESSAGE_LEN_MAX];
    let short = encode_command(&command, &mut buf).to_vec();
    let mut long = short[..104].to_vec();
    long[97] = 12;
    let (routes, rest) = short[104..].split_at(16);
    for element in routes.chunks(8) {
        long.extend_from_slice(element);
        long.extend_from_slice(&[0xaa; 4]);
    }
    long.extend_from_slice(rest);
    assert_eq!(decode_command(&long), Ok(command));
}

#[test]
fn unknown_kinds_are_refused_with_the_correlation_to_answer() {
    let mut bytes = [0u8; HEAD_LEN];
    bytes[..2].copy_from_slice(&999u16.to_le_bytes());
    bytes[8] = 7;
    let expected = DecodeError {
        correlation: Some(Correlation(7)),
        fault: DecodeFault::UnknownKind(999),
    };
    assert_eq!(decode_command(&bytes), Err(expected));
    assert_eq!(decode_event(&bytes), Err(expected));
}

#[test]
fn message_longer_than_any_can_be_is_refused() {
    let bytes = [0; MESSAGE_LEN_MAX + 1];
    let error = decode_command(&bytes).expect_err("too long");
    assert_eq!(
        error.fault,
        DecodeFault::Long {
            len: MESSAGE_LEN_MAX + 1
        }
    );
}
