//! The bytes of every released version, as they were on the day of its release.
//!
//! `golden/v<version>/` holds one file for each message and for each table that is part of the
//! contract. What is released never changes: a later minor version gets a directory of its own,
//! and what its decoder reads from the older ones is what they meant then. A message that has no
//! file yet fails with the text to put into it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

mod samples;

use trunkline_edge_api::command::CorrelatedCommand;
use trunkline_edge_api::handshake::{
    EdgeMessage, Hello, RefusalCode, Refused, Role, Welcome, WorkerOffer,
};
use trunkline_edge_api::layout::{MAGIC, RegionLayout, WORD_LEN, word};
use trunkline_edge_api::wire::{
    MESSAGE_LEN_MAX, decode_command, decode_event, encode_command, encode_event,
};
use trunkline_edge_api::{
    API_VERSION, ApiVersion, ClockRateHz, CloseCause, Command, Correlation, Counter, DropReason,
    Epoch, Event, Histogram, LegConfig, LegCrypto, LegIndex, LegReport, LocalMedia, MediaDirection,
    MediaTimeoutKind, MediaTimeouts, PayloadRoute, PayloadRoutes, PayloadType, PortRange, Refusal,
    RtcpMode, SessionId, SessionReport, SourceNetwork, SourceNetworks, SourcePolicy, SrtpKey,
    SrtpSuite, Ssrc, WorkerIndex,
};

/// All released versions of this major version, and the one in the making.
const VERSIONS: &[ApiVersion] = &[V1_0, V1_1, V1_2, API_VERSION];
const V1_0: ApiVersion = ApiVersion { major: 1, minor: 0 };
const V1_1: ApiVersion = ApiVersion { major: 1, minor: 1 };
const V1_2: ApiVersion = ApiVersion { major: 1, minor: 2 };

const SESSION: SessionId = SessionId::new(Epoch(0x0a0b_0c0d), 0x0102_0304);
const CORRELATION: Correlation = Correlation(0x1112_1314_1516_1718);

fn srtp(suite: SrtpSuite) -> LegCrypto {
    let key = |first: u8| {
        let len = suite.key_len() + suite.salt_len();
        let bytes: Vec<u8> = (first..).take(len).collect();
        SrtpKey::new(suite, &bytes).expect("the right length")
    };
    LegCrypto {
        suite,
        send: key(0x10),
        receive: key(0x80),
    }
}

/// What `version` could say of these; what it could not is at its default.
fn commands(version: ApiVersion) -> Vec<(&'static str, Command)> {
    let knows_1_1 = version.minor >= 1;
    let timeouts = |never_started_secs, stopped_secs, held_secs| {
        if knows_1_1 {
            MediaTimeouts {
                never_started_secs,
                stopped_secs,
                held_secs,
            }
        } else {
            MediaTimeouts::OFF
        }
    };
    let crypto = |suite| knows_1_1.then(|| srtp(suite));
    let route = |from, to, clock_rate| PayloadRoute {
        from: PayloadType::new(from).expect("below 128"),
        to: PayloadType::new(to).expect("below 128"),
        clock_rate,
    };
    let routes = PayloadRoutes::new(vec![
        route(0, 0, ClockRateHz::NARROWBAND),
        route(111, 96, ClockRateHz::OPUS),
        route(126, 101, ClockRateHz::NARROWBAND),
    ]);
    let v4 = |last, port| ([192, 0, 2, last], port).into();
    let v6 = "[2001:db8::17]:40002".parse().expect("an address");
    let link_local = "[fe80::1%3]:30002".parse().expect("an address");
    let mut commands = vec![
        (
            "command_open_leg",
            Command::OpenLeg {
                session: SESSION,
                leg: LegIndex::A,
                local: LocalMedia {
                    rtp: v4(1, 30_000),
                    rtcp: RtcpMode::Separate,
                    ssrc: Ssrc(0xdead_beef),
                },
            },
        ),
        (
            "command_open_leg_ipv6_muxed",
            Command::OpenLeg {
                session: SESSION,
                leg: LegIndex::B,
                local: LocalMedia {
                    rtp: link_local,
                    rtcp: RtcpMode::Muxed,
                    ssrc: Ssrc(1),
                },
            },
        ),
        (
            "command_configure_leg",
            Command::ConfigureLeg {
                session: SESSION,
                leg: LegIndex::A,
                config: LegConfig {
                    remote_rtp: Some(v4(9, 40_000)),
                    remote_rtcp: Some(v4(9, 40_001)),
                    source: SourcePolicy::Exact,
                    direction: MediaDirection::SendReceive,
                    routes: routes.clone().expect("distinct"),
                    crypto: crypto(SrtpSuite::AesCm128HmacSha1_80),
                    timeouts: timeouts(60, 61, 3_600),
                },
            },
        ),
        (
            "command_configure_leg_ipv6_learning",
            Command::ConfigureLeg {
                session: SESSION,
                leg: LegIndex::B,
                config: LegConfig {
                    remote_rtp: Some(v6),
                    remote_rtcp: None,
                    source: SourcePolicy::LearnPort { ip: v6.ip() },
                    direction: MediaDirection::SendOnly,
                    routes: routes.expect("distinct"),
                    crypto: crypto(SrtpSuite::AeadAes256Gcm),
                    timeouts: timeouts(0, 0x0102_0304, 0),
                },
            },
        ),
        (
            "command_configure_leg_nobody",
            Command::ConfigureLeg {
                session: SESSION,
                leg: LegIndex::B,
                config: LegConfig {
                    remote_rtp: None,
                    remote_rtcp: None,
                    source: SourcePolicy::Nobody,
                    direction: MediaDirection::Inactive,
                    routes: PayloadRoutes::default(),
                    crypto: None,
                    timeouts: MediaTimeouts::OFF,
                },
            },
        ),
        (
            "command_close_leg",
            Command::CloseLeg {
                session: SESSION,
                leg: LegIndex::B,
            },
        ),
        (
            "command_close_session",
            Command::CloseSession { session: SESSION },
        ),
        (
            "command_query_session",
            Command::QuerySession { session: SESSION },
        ),
        ("command_query_all_sessions", Command::QueryAllSessions),
        (
            "command_close_other_epochs",
            Command::CloseOtherEpochs {
                keep: Epoch(0x0a0b_0c0d),
            },
        ),
    ];
    if knows_1_1 {
        let network = |ip: &str, prefix_len| {
            let ip = ip.parse().expect("an address");
            SourceNetwork::new(ip, prefix_len).expect("a network")
        };
        let networks = [network("198.51.100.0", 24), network("2001:db8::", 64)];
        commands.push((
            "command_configure_leg_networks",
            Command::ConfigureLeg {
                session: SESSION,
                leg: LegIndex::A,
                config: LegConfig {
                    remote_rtp: Some(v4(9, 40_000)),
                    remote_rtcp: Some(v4(9, 40_001)),
                    source: SourceNetworks::new(&networks)
                        .map_or(SourcePolicy::Nobody, SourcePolicy::Networks),
                    direction: MediaDirection::ReceiveOnly,
                    routes: PayloadRoutes::default(),
                    crypto: crypto(SrtpSuite::AeadAes128Gcm),
                    timeouts: timeouts(60, 60, 3_600),
                },
            },
        ));
    }
    if version.minor >= 2 {
        commands.extend(samples::commands(SESSION, version));
    }
    commands
}

/// As [`commands`].
fn events(version: ApiVersion) -> Vec<(&'static str, Event)> {
    let leg = |first| {
        let of_1_0 = leg_report_of_1_0(first);
        if version.minor >= 1 {
            LegReport {
                lost_packets: first + 7,
                reordered_packets: first + 8,
                duplicate_packets: first + 9,
                jitter_micros: 0x0a0b_0c0d,
                jitter_max_micros: 0x0b0c_0d0e,
                rtt_micros: 0x0c0d_0e0f,
                mos_centi: 441,
                remote_lost_packets: first + 10,
                remote_jitter_micros: 0x0d0e_0f10,
                srtp_failed_packets: first + 11,
                ..of_1_0
            }
        } else {
            of_1_0
        }
    };
    let report = SessionReport {
        session: SESSION,
        legs: [leg(0x1000), leg(0x2000)],
    };
    let mut events = events_of_1_0(report);
    if version.minor >= 1 {
        events.push((
            "event_media_timed_out",
            Event::MediaTimedOut {
                session: SESSION,
                leg: LegIndex::B,
                kind: MediaTimeoutKind::Stopped,
            },
        ));
        events.push((
            "event_command_refused_busy",
            Event::CommandDone {
                correlation: CORRELATION,
                result: Err(Refusal::WorkerBusy),
            },
        ));
    }
    if version.minor >= 2 {
        events.extend(samples::events(SESSION, version));
    }
    events
}

fn leg_report_of_1_0(first: u64) -> LegReport {
    LegReport {
        rx_packets: first,
        rx_bytes: first + 1,
        tx_packets: first + 2,
        tx_bytes: first + 3,
        rx_rtcp_packets: first + 4,
        tx_rtcp_packets: first + 5,
        dropped_packets: first + 6,
        ..LegReport::default()
    }
}

fn events_of_1_0(report: SessionReport) -> Vec<(&'static str, Event)> {
    vec![
        (
            "event_command_done",
            Event::CommandDone {
                correlation: CORRELATION,
                result: Ok(()),
            },
        ),
        (
            "event_command_refused",
            Event::CommandDone {
                correlation: CORRELATION,
                result: Err(Refusal::AddressInUse),
            },
        ),
        (
            "event_session_closed",
            Event::SessionClosed {
                cause: CloseCause::Orphaned,
                report,
            },
        ),
        (
            "event_session_reported",
            Event::SessionReported {
                correlation: CORRELATION,
                report,
            },
        ),
        (
            "event_media_started",
            Event::MediaStarted {
                session: SESSION,
                leg: LegIndex::A,
                source: ([192, 0, 2, 9], 40_004).into(),
            },
        ),
    ]
}

fn hello(version: ApiVersion) -> Hello {
    Hello {
        version,
        role: Role::Control,
        pid: 0x0001_0203,
        epoch: Epoch(0x0a0b_0c0d),
    }
}

fn edge_messages(version: ApiVersion) -> Vec<(&'static str, EdgeMessage)> {
    vec![
        (
            "handshake_welcome",
            EdgeMessage::Welcome(Welcome {
                version,
                pid: 0x0004_0506,
                generation: 0x0708_090a_0b0c_0d0e,
                worker_count: 16,
            }),
        ),
        (
            "handshake_worker_offer",
            EdgeMessage::WorkerOffer(WorkerOffer {
                worker: WorkerIndex(15),
            }),
        ),
        (
            "handshake_refused",
            EdgeMessage::Refused(Refused {
                code: Some(RefusalCode::ControlPresent),
                text: "a control runs already".to_owned(),
            }),
        ),
    ]
}

fn region_layout(version: ApiVersion) -> RegionLayout {
    let ports = PortRange::new(30_000, 39_999).expect("a range");
    if version.minor >= 1 {
        return RegionLayout {
            version,
            ..RegionLayout::new(WorkerIndex(3), 7, ports)
        };
    }
    // A megabyte for each ring and 128 cells.
    let mut layout = RegionLayout {
        version,
        ..RegionLayout::with_rings(WorkerIndex(3), 7, ports, 1 << 20, 1 << 20, 1 << 18)
    };
    layout.counters.len = 128 * WORD_LEN;
    layout
}

fn header_bytes(layout: &RegionLayout) -> Vec<u8> {
    layout
        .to_words()
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect()
}

fn directory(version: ApiVersion) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/v{version}"))
}

fn file(version: ApiVersion, name: &str, extension: &str) -> PathBuf {
    directory(version).join(format!("{name}.{extension}"))
}

/// Sixteen bytes to a line.
fn to_hex(bytes: &[u8]) -> String {
    bytes.chunks(16).fold(String::new(), |mut text, line| {
        let line: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        text.push_str(&line.join(" "));
        text.push('\n');
        text
    })
}

fn from_hex(text: &str) -> Vec<u8> {
    text.split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).expect("hex"))
        .collect()
}

fn read(version: ApiVersion, name: &str) -> Vec<u8> {
    let path = file(version, name, "hex");
    from_hex(&fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

/// Compares with the file of the version in the making.
fn assert_golden(name: &str, extension: &str, text: &str) {
    let path = file(API_VERSION, name, extension);
    match fs::read_to_string(&path) {
        Ok(golden) => assert_eq!(text, golden, "{} differs", path.display()),
        Err(error) => panic!("{}: {error}; it should hold\n{text}", path.display()),
    }
}

#[test]
fn this_version_is_among_the_golden_ones() {
    assert_eq!(VERSIONS.last(), Some(&API_VERSION));
}

#[test]
fn every_message_is_encoded_as_ever() {
    let mut buf = [0; MESSAGE_LEN_MAX];
    for (name, command) in commands(API_VERSION) {
        let message = CorrelatedCommand {
            correlation: CORRELATION,
            command,
        };
        assert_golden(name, "hex", &to_hex(encode_command(&message, &mut buf)));
    }
    for (name, event) in events(API_VERSION) {
        assert_golden(name, "hex", &to_hex(encode_event(&event, &mut buf)));
    }
    assert_golden(
        "handshake_hello",
        "hex",
        &to_hex(&hello(API_VERSION).encode()),
    );
    for (name, message) in edge_messages(API_VERSION) {
        assert_golden(name, "hex", &to_hex(&message.encode()));
    }
    assert_golden(
        "region_header",
        "hex",
        &to_hex(&header_bytes(&region_layout(API_VERSION))),
    );
}

#[test]
fn messages_of_every_version_mean_what_they_meant() {
    for &version in VERSIONS {
        for (name, command) in commands(version) {
            let message = CorrelatedCommand {
                correlation: CORRELATION,
                command,
            };
            assert_eq!(decode_command(&read(version, name)), Ok(message), "{name}");
        }
        for (name, event) in events(version) {
            assert_eq!(decode_event(&read(version, name)), Ok(event), "{name}");
        }
        assert_eq!(
            Hello::decode(&read(version, "handshake_hello")),
            Ok(hello(version))
        );
        for (name, message) in edge_messages(version) {
            assert_eq!(
                EdgeMessage::decode(&read(version, name)),
                Ok(message),
                "{name}"
            );
        }
        let layout = region_layout(version);
        let bytes = read(version, "region_header");
        let (words, []) = bytes.as_chunks::<8>() else {
            panic!("not whole words");
        };
        let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let words = words.try_into().expect("sixteen words");
        assert_eq!(
            RegionLayout::from_words(&words, layout.region_len),
            Ok(layout)
        );
    }
}

/// What older regions have must stay where it is; what is new comes behind.
#[test]
fn words_of_the_header_page_stand_where_they_stood() {
    let words = [
        ("magic", word::MAGIC),
        ("version", word::VERSION),
        ("header_len", word::HEADER_LEN),
        ("region_len", word::REGION_LEN),
        ("generation", word::GENERATION),
        ("worker", word::WORKER),
        ("ports", word::PORTS),
        ("counters_offset", word::COUNTERS_OFFSET),
        ("counters_count", word::COUNTERS_COUNT),
        ("commands_offset", word::COMMANDS_OFFSET),
        ("commands_len", word::COMMANDS_LEN),
        ("events_offset", word::EVENTS_OFFSET),
        ("events_len", word::EVENTS_LEN),
        ("events_reserve_len", word::EVENTS_RESERVE_LEN),
        ("checksum", word::CHECKSUM),
        ("edge_pid", word::EDGE_PID),
        ("edge_heartbeat", word::EDGE_HEARTBEAT),
        ("worker_sleeping", word::WORKER_SLEEPING),
        ("resync_count", word::RESYNC_COUNT),
        ("worker_fault", word::WORKER_FAULT),
        ("io_tier", word::IO_TIER),
        ("control_pid", word::CONTROL_PID),
        ("control_heartbeat", word::CONTROL_HEARTBEAT),
        ("control_sleeping", word::CONTROL_SLEEPING),
        ("control_epoch", word::CONTROL_EPOCH),
        ("commands_head", word::COMMANDS_HEAD),
        ("commands_full_count", word::COMMANDS_FULL_COUNT),
        ("control_attach_count", word::CONTROL_ATTACH_COUNT),
        ("commands_tail", word::COMMANDS_TAIL),
        ("events_head", word::EVENTS_HEAD),
        ("events_full_count", word::EVENTS_FULL_COUNT),
        ("events_tail", word::EVENTS_TAIL),
    ];
    assert_golden("region_words", "txt", &table(words));
    assert_eq!(MAGIC.to_le_bytes(), *b"TRNKLINE");
}

#[test]
fn counters_stand_in_the_cells_where_they_stood() {
    let counters = Counter::ALL
        .iter()
        .map(|counter| (counter.name(), counter.cell()));
    let drops = DropReason::ALL
        .iter()
        .map(|reason| (reason.name(), reason.cell()));
    let histograms = Histogram::ALL.iter().flat_map(|histogram| {
        let sum = (histogram.name(), histogram.sum_cell());
        [(histogram.name(), histogram.cell(0)), sum]
    });
    let cells = table(counters.chain(drops).chain(histograms));
    assert_golden("counter_cells", "txt", &cells);
    for &version in VERSIONS {
        let path = file(version, "counter_cells", "txt");
        let golden = fs::read_to_string(&path).expect("there");
        for line in golden.lines() {
            assert!(
                cells.lines().any(|cell| cell == line),
                "{line} of {version} is gone"
            );
        }
    }
}

fn table<'a>(rows: impl IntoIterator<Item = (&'a str, usize)>) -> String {
    rows.into_iter()
        .fold(String::new(), |mut text, (name, index)| {
            let _ = writeln!(text, "{index:3} {name}");
            text
        })
}

#[test]
fn every_golden_file_is_read_by_a_test() {
    let hex = commands(API_VERSION)
        .into_iter()
        .map(|(name, _)| name)
        .chain(events(API_VERSION).into_iter().map(|(name, _)| name))
        .chain(edge_messages(API_VERSION).into_iter().map(|(name, _)| name))
        .chain(["handshake_hello", "region_header"])
        .map(|name| format!("{name}.hex"));
    let txt = ["region_words.txt", "counter_cells.txt"].map(str::to_owned);
    let mut expected: Vec<String> = hex.chain(txt).collect();
    expected.sort();
    let mut found: Vec<String> = fs::read_dir(directory(API_VERSION))
        .expect("there")
        .map(|entry| {
            entry
                .expect("readable")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    found.sort();
    assert_eq!(found, expected);
}
