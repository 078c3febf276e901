//! The rewrite path: what one packet costs from the worker's buffer to the verdict, without the
//! kernel. Times by criterion (for comparison between two builds), and a report of nanoseconds
//! and allocations per packet in `bench/results/rewrite.*`.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};

use serde_json::json;
use trunkline_bench::allocation_counter::CountingAllocator;
use trunkline_bench::report::Report;
use trunkline_edge_api::{
    ClockRateHz, LegConfig, LegIndex, LocalMedia, MediaDirection, MediaTimeouts, MonoTime,
    PayloadRoute, PayloadRoutes, PayloadType, RtcpMode, SourcePolicy, Ssrc,
};
use trunkline_media::session::{MediaSession, RxMeta, SessionCommand, SocketKind, Verdict};

mod per_packet;

use per_packet::{BURST, PerPacket};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

/// 20 ms of G.711 behind a bare RTP header.
const RTP_LEN: usize = 172;
/// Nanoseconds per packet that the specification allows, while the session is in the cache.
const TARGET_NANOS: u32 = 15;

/// Sessions of a busy worker: their state does not fit the first two cache levels.
const MANY_SESSIONS: usize = 2_000;

fn address(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(192, 0, 2, host), port))
}

fn peer(leg: LegIndex) -> SocketAddr {
    match leg {
        LegIndex::A => address(1, 4_000),
        LegIndex::B => address(2, 5_000),
    }
}

/// Two legs relaying PCMU as 0 and telephone-event as 101 ↔ `far_event`.
fn session(far_event: u8) -> MediaSession {
    let number = |value| PayloadType::new(value).expect("a payload type");
    let mut session = MediaSession::new();
    for leg in LegIndex::ALL {
        let (near, far) = match leg {
            LegIndex::A => (101, far_event),
            LegIndex::B => (far_event, 101),
        };
        let routes = PayloadRoutes::new(vec![
            PayloadRoute {
                from: PayloadType::PCMU,
                to: PayloadType::PCMU,
                clock_rate: ClockRateHz::NARROWBAND,
            },
            PayloadRoute {
                from: number(near),
                to: number(far),
                clock_rate: ClockRateHz::NARROWBAND,
            },
        ])
        .expect("two routes");
        let local = LocalMedia {
            rtp: address(9, 30_000 + 2 * leg as u16),
            rtcp: RtcpMode::Muxed,
            ssrc: Ssrc(0x1000_0000 + leg as u32),
        };
        let config = LegConfig {
            remote_rtp: Some(peer(leg)),
            remote_rtcp: Some(peer(leg)),
            source: SourcePolicy::Exact,
            direction: MediaDirection::SendReceive,
            routes,
            crypto: None,
            timeouts: MediaTimeouts::OFF,
        };
        session
            .handle_command(MonoTime(0), SessionCommand::OpenLeg(leg, local))
            .expect("the leg opens");
        session
            .handle_command(MonoTime(0), SessionCommand::ConfigureLeg(leg, config))
            .expect("the leg takes its configuration");
    }
    session
}

/// One thing to measure: bursts of packets into one session or several in turn. Packets are as the
/// kernel leaves them in a worker's buffers: written before they are looked at.
struct Case {
    name: &'static str,
    target: Option<u32>,
    packets: Vec<[u8; RTP_LEN]>,
    payload_type: u8,
    meta: RxMeta,
    sessions: Vec<MediaSession>,
    /// By session: what its next packet is numbered.
    sequences: Vec<u32>,
    /// The session whose turn was last.
    turn: usize,
    forwards: bool,
}

impl Case {
    fn new(name: &'static str, payload_type: u8, far_event: u8, count: usize) -> Self {
        Self {
            name,
            target: None,
            packets: vec![[0xd5; RTP_LEN]; BURST],
            payload_type,
            meta: RxMeta {
                source: peer(LegIndex::A),
                socket: SocketKind::Rtp,
                truncated: false,
            },
            sessions: (0..count).map(|_| session(far_event)).collect(),
            sequences: vec![0; count],
            turn: 0,
            forwards: true,
        }
    }

    fn after(&self, turn: usize) -> usize {
        if turn + 1 < self.sessions.len() {
            turn + 1
        } else {
            0
        }
    }
}

fn cases() -> Vec<Case> {
    let target = Some(TARGET_NANOS);
    vec![
        Case {
            target,
            ..Case::new("RTP, same payload number", 0, 101, 1)
        },
        Case {
            target,
            ..Case::new("RTP, payload number mapped", 101, 96, 1)
        },
        Case::new("RTP, 2,000 sessions in turn", 0, 101, MANY_SESSIONS),
        Case {
            meta: RxMeta {
                source: address(66, 6_666),
                socket: SocketKind::Rtp,
                truncated: false,
            },
            forwards: false,
            ..Case::new("RTP of a stranger, dropped", 0, 101, 1)
        },
    ]
}

impl PerPacket for Case {
    fn name(&self) -> &str {
        self.name
    }

    /// Writes the next [`BURST`] headers over the rewritten ones.
    fn arrive(&mut self) {
        let mut turn = self.turn;
        for number in 0..self.packets.len() {
            turn = self.after(turn);
            let packet = &mut self.packets[number];
            let sequence = &mut self.sequences[turn];
            *sequence = sequence.wrapping_add(1);
            packet[0] = 0x80;
            packet[1] = self.payload_type;
            packet[2..4].copy_from_slice(&(*sequence as u16).to_be_bytes());
            packet[4..8].copy_from_slice(&sequence.wrapping_mul(160).to_be_bytes());
            packet[8..12].copy_from_slice(&0xfeed_beefu32.to_be_bytes());
        }
        black_box(&mut self.packets);
    }

    fn take(&mut self) -> usize {
        let now = MonoTime(u64::from(self.sequences[self.turn]) * 20_000_000);
        let mut done = 0;
        for number in 0..self.packets.len() {
            self.turn = self.after(self.turn);
            let packet = &mut self.packets[number];
            let session = &mut self.sessions[self.turn];
            let verdict = session.handle_packet(now, LegIndex::A, &self.meta, packet);
            let is_forwarded = matches!(black_box(&verdict), Verdict::Forward(_));
            done += usize::from(is_forwarded == self.forwards);
        }
        done
    }
}

fn report() -> anyhow::Result<()> {
    let mut report = Report::new(
        "rewrite",
        "The rewrite path: one packet from buffer to verdict",
        &[
            "case",
            "ns/packet",
            "best batch",
            "target",
            "allocations/packet",
        ],
    );
    for mut case in cases() {
        let figures = per_packet::measure(&mut case, &ALLOCATOR);
        let target = case
            .target
            .map_or("-".to_owned(), |nanos| format!("<= {nanos}"));
        report.rows.push(vec![
            json!(case.name),
            json!(figures.median),
            json!(figures.best),
            json!(target),
            json!(figures.allocations),
        ]);
    }
    report.method = vec![format!(
        "`MediaSession::handle_packet` on {RTP_LEN}-byte RTP packets in memory, one thread, bench profile (release, fat LTO)."
    )];
    report.method.extend(per_packet::method());
    report.method.push(
        "One session stays in the first cache level. Each of 2,000 in turn has to be fetched: what that row costs more is the memory's, not the code's."
            .to_owned(),
    );
    report.publish()
}

fn main() {
    per_packet::compare("rewrite", cases());
    if per_packet::is_measuring() {
        report().expect("bench/results is writable");
    }
}
