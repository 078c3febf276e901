//! Two calls, their four parties, a network that misbehaves, and strangers.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;

use trunkline_edge_api::{DropReason, LegIndex, MediaDirection, MonoTime, RtcpMode};
use trunkline_media::rtp::RtpHeader;
use trunkline_media::{
    MediaKind, MediaSession, RxMeta, SessionCommand, SocketKind, Transmit, Verdict,
};

use crate::ledger::Ledger;
use crate::party::{Party, rtp};
use crate::random::Random;

const TICK_NANOS: u64 = 20_000_000;
/// How long a packet may travel: ten packets of the same sender may overtake it.
const DELAY_NANOS_MAX: u64 = 200_000_000;
/// A peer behind NAT is found again when its sequence goes on by at most this much.
const RELATCH_AHEAD_MAX: i16 = 100;

/// Who sent a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sender {
    Party,
    Stranger,
}

struct Datagram {
    call: usize,
    leg: LegIndex,
    meta: RxMeta,
    bytes: Vec<u8>,
    sender: Sender,
}

/// One leg as an outsider sees it.
#[derive(Default)]
struct Watched {
    ledger: Ledger,
    arrived: u64,
    forwarded: u64,
    consumed: u64,
    send_failures: u64,
    dropped: HashMap<DropReason, u64>,
    /// Where a party behind NAT was last heard.
    learnt: Option<SocketAddr>,
    /// The port that signalling has moved the party away from last.
    left: Option<SocketAddr>,
    /// SSRC and sequence of the newest RTP that got in.
    newest_heard: Option<(u32, u16)>,
}

pub(crate) struct World {
    random: Random,
    now: MonoTime,
    sessions: [MediaSession; 2],
    parties: [Party; 4],
    watched: [Watched; 4],
    network: BinaryHeap<Reverse<(u64, u64)>>,
    in_flight: HashMap<u64, Datagram>,
    next_datagram: u64,
    /// Thousandths, of packets.
    loss: u64,
    duplication: u64,
    delay_nanos_max: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let parties = [
            (0, LegIndex::A),
            (0, LegIndex::B),
            (1, LegIndex::A),
            (1, LegIndex::B),
        ]
        .map(|(call, leg)| Party::new(&mut random, call, leg));
        let mut world = Self {
            now: MonoTime(1_000_000_000),
            sessions: [MediaSession::new(), MediaSession::new()],
            watched: Default::default(),
            network: BinaryHeap::new(),
            in_flight: HashMap::new(),
            next_datagram: 0,
            loss: random.below(100),
            duplication: random.below(50),
            delay_nanos_max: 1 + random.below(DELAY_NANOS_MAX),
            parties,
            random,
        };
        for index in 0..4 {
            let (leg, local) = (world.parties[index].leg, world.parties[index].local);
            world.command(index, SessionCommand::OpenLeg(leg, local));
        }
        world
    }

    /// Lets `ticks` packets' worth of time pass.
    pub(crate) fn run(&mut self, ticks: u64) {
        for tick in 0..ticks {
            let until = self.now.0 + TICK_NANOS;
            self.deliver_until(until);
            self.now = MonoTime(until);
            for index in 0..4 {
                // One party after the other is named by signalling, as in a real call.
                if tick >= 5 * index as u64 {
                    self.live(index, tick == 5 * index as u64);
                }
                self.attack(index);
            }
        }
        self.deliver_until(self.now.0 + DELAY_NANOS_MAX);
        self.check_reports();
    }

    /// Packets that went through, so that a run which tests nothing is noticed.
    pub(crate) fn forwarded(&self) -> u64 {
        self.watched.iter().map(|watched| watched.forwarded).sum()
    }

    /// What one party does in 20 ms.
    fn live(&mut self, index: usize, is_new: bool) {
        let random = &mut self.random;
        let party = &mut self.parties[index];
        let mut configure = is_new || random.chance(5);
        if random.chance(5) {
            party.restart(random);
        }
        if random.chance(5) {
            party.direction = match random.below(4) {
                0 => MediaDirection::Inactive,
                1 => MediaDirection::SendOnly,
                2 => MediaDirection::ReceiveOnly,
                _ => MediaDirection::SendReceive,
            };
            configure = true;
        } else if random.chance(20) && party.direction != MediaDirection::SendReceive {
            party.direction = MediaDirection::SendReceive;
            configure = true;
        }
        let watched = &mut self.watched[index];
        if random.chance(4) && !is_new {
            watched.left = watched.learnt.take().or(watched.left);
            party.move_ports(random);
            configure = true;
        } else if random.chance(4) && party.is_behind_nat {
            party.rebind(random);
        }
        if configure {
            let command = SessionCommand::ConfigureLeg(party.leg, party.config());
            self.command(index, command);
        }
        let party = &mut self.parties[index];
        let packet = party.speak(&mut self.random);
        let source = party.address(SocketKind::Rtp);
        self.send(index, SocketKind::Rtp, source, packet, Sender::Party);
        if self.random.chance(100) {
            let socket = match self.parties[index].local.rtcp {
                RtcpMode::Muxed => SocketKind::Rtp,
                RtcpMode::Separate => SocketKind::Rtcp,
            };
            let own = &self.watched[index].ledger;
            let about = own
                .newest
                .map(|newest| (self.parties[index].local.ssrc.0, newest as u32));
            let packet = self.parties[index].report(about);
            let source = self.parties[index].address(socket);
            self.send(index, socket, source, packet, Sender::Party);
        }
    }

    /// What strangers do in 20 ms: from nowhere, and from the right IP with a wrong port.
    fn attack(&mut self, index: usize) {
        let random = &mut self.random;
        let party = &self.parties[index];
        let ip = if random.chance(500) {
            party.ip
        } else if party.ip.is_ipv4() {
            [203, 0, 113, 66].into()
        } else {
            [0x2001, 0xdb8, 0x66, 0, 0, 0, 0, 1].into()
        };
        let source = SocketAddr::new(ip, 50_000 + random.below(1_000) as u16);
        let mut packet = match random.below(5) {
            0 => vec![0x80, 203, 0, 0],
            1 => vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42],
            2 => vec![22, 254, 253, 0],
            3 => (0..random.below(60)).map(|_| random.next() as u8).collect(),
            _ => rtp(111, random.next() as u16, 0, random.next() as u32),
        };
        packet.extend_from_slice(b"INJECTED");
        let socket = if random.chance(700) {
            SocketKind::Rtp
        } else {
            SocketKind::Rtcp
        };
        self.send(index, socket, source, packet, Sender::Stranger);
    }

    fn command(&mut self, index: usize, command: SessionCommand) {
        let session = &mut self.sessions[self.parties[index].call];
        session.handle_command(self.now, command).expect("it fits");
    }

    fn send(
        &mut self,
        index: usize,
        socket: SocketKind,
        source: SocketAddr,
        bytes: Vec<u8>,
        sender: Sender,
    ) {
        if self.random.chance(self.loss) {
            return;
        }
        let copies = 1 + u64::from(self.random.chance(self.duplication));
        for _ in 0..copies {
            let due = self.now.0 + self.random.below(self.delay_nanos_max);
            let datagram = Datagram {
                call: self.parties[index].call,
                leg: self.parties[index].leg,
                meta: RxMeta {
                    source,
                    socket,
                    truncated: false,
                },
                bytes: bytes.clone(),
                sender,
            };
            self.network.push(Reverse((due, self.next_datagram)));
            self.in_flight.insert(self.next_datagram, datagram);
            self.next_datagram += 1;
        }
    }

    fn deliver_until(&mut self, until: u64) {
        while let Some(&Reverse((due, number))) = self.network.peek()
            && due < until
        {
            self.network.pop();
            let datagram = self.in_flight.remove(&number).expect("it is on its way");
            self.deliver(MonoTime(due), datagram);
        }
    }

    fn deliver(&mut self, now: MonoTime, mut datagram: Datagram) {
        let near = 2 * datagram.call + datagram.leg.as_usize();
        let party = &self.parties[near];
        // Whoever shares a phone's IP and speaks first is the phone, as far as anybody can tell.
        if datagram.sender == Sender::Stranger
            && datagram.meta.source.ip() == party.ip
            && party.is_behind_nat
            && self.watched[near].learnt.is_none()
        {
            return;
        }
        let original = datagram.bytes.clone();
        let verdict = self.sessions[datagram.call].handle_packet(
            now,
            datagram.leg,
            &datagram.meta,
            &mut datagram.bytes,
        );
        self.watched[near].arrived += 1;
        if datagram.sender == Sender::Stranger {
            assert!(
                !verdict.accepts(),
                "a stranger was heard: {:?}",
                datagram.meta
            );
        }
        let is_rtp = datagram.sender == Sender::Party
            && RtpHeader::parse(&original).is_ok()
            && original[1] != 201;
        if is_rtp {
            self.check_gate(near, &datagram.meta, &original, &verdict);
        }
        match verdict {
            Verdict::Forward(transmit) => {
                self.watched[near].forwarded += 1;
                let sent = &datagram.bytes[..transmit.len];
                self.check_forwarded(datagram.call, datagram.leg, &transmit, &original, sent);
                if self.random.chance(5) {
                    self.sessions[datagram.call].handle_send_failure(&transmit);
                    self.watched[near].send_failures += 1;
                }
            }
            Verdict::Consumed => self.watched[near].consumed += 1,
            Verdict::Drop(reason) => *self.watched[near].dropped.entry(reason).or_default() += 1,
        }
        while self.sessions[datagram.call].poll_event().is_some() {}
    }

    /// Whether the gate let in whom it had to, and nobody else.
    fn check_gate(&mut self, near: usize, meta: &RxMeta, original: &[u8], verdict: &Verdict) {
        let header = RtpHeader::parse(original).expect("a party speaks RTP");
        let origin = (header.ssrc.0, header.sequence);
        let is_refused = *verdict == Verdict::Drop(DropReason::SourceNotAllowed);
        let party = &self.parties[near];
        let watched = &mut self.watched[near];
        if party.is_behind_nat {
            let continues = watched.newest_heard.is_some_and(|(ssrc, sequence)| {
                let ahead = header.sequence.wrapping_sub(sequence).cast_signed();
                ssrc == header.ssrc.0 && (1..=RELATCH_AHEAD_MAX).contains(&ahead)
            });
            let has_left = watched.left == Some(meta.source);
            match watched.learnt {
                Some(learnt) if learnt == meta.source => {
                    assert!(!is_refused, "a learnt port is heard");
                }
                Some(_) => assert_eq!(
                    is_refused,
                    !continues || has_left,
                    "another port is heard when it carries the stream on"
                ),
                None => assert!(is_refused || !has_left, "an old port is not learnt again"),
            }
        } else if meta.source == party.config().remote_rtp.expect("named") {
            let is_named = watched.newest_heard.is_some();
            assert!(!is_named || !is_refused, "the named address is heard");
        }
        if verdict.accepts() {
            watched.learnt = Some(meta.source);
            let is_newest = watched.newest_heard.is_none_or(|(ssrc, sequence)| {
                let ahead = header.sequence.wrapping_sub(sequence).cast_signed();
                ssrc != header.ssrc.0 || ahead > 0
            });
            if is_newest {
                watched.newest_heard = Some(origin);
            }
        }
    }

    fn check_forwarded(
        &mut self,
        call: usize,
        leg: LegIndex,
        transmit: &Transmit,
        original: &[u8],
        sent: &[u8],
    ) {
        let near = 2 * call + leg.as_usize();
        let far = 2 * call + leg.far().as_usize();
        assert_eq!(transmit.leg, leg.far(), "a packet leaves on the far leg");
        let watched = &mut self.watched[far];
        let far_party = &self.parties[far];
        let config = far_party.config();
        let named = match transmit.kind {
            MediaKind::Rtp => config.remote_rtp,
            MediaKind::Rtcp => config.remote_rtcp,
        };
        assert!(
            transmit.dest.ip() == far_party.ip || Some(transmit.dest) == named,
            "{} is not the far party",
            transmit.dest
        );
        match transmit.kind {
            MediaKind::Rtp => {
                assert_eq!(sent[12..], original[12..], "a payload is never altered");
                assert_eq!(sent[12..16], self.parties[near].mark(), "nor crosses calls");
                if far_party.is_behind_nat
                    && let Some(learnt) = watched.learnt
                {
                    assert_eq!(transmit.dest, learnt, "the answer follows the learnt port");
                }
                let [received, sent] =
                    [original, sent].map(|bytes| RtpHeader::parse(bytes).expect("RTP"));
                watched
                    .ledger
                    .record(far_party.local.ssrc, &received, &sent);
            }
            MediaKind::Rtcp => {
                let word = |at: usize| {
                    let bytes = sent[at..at + 4].try_into().expect("four bytes");
                    u32::from_be_bytes(bytes)
                };
                assert_eq!(word(4), far_party.local.ssrc.0, "reports name our SSRC");
                if sent[0] & 0x1f == 1 {
                    let origin = (word(8), word(16) as u16);
                    assert!(
                        self.parties[far].said.contains(&origin)
                            && self.watched[near].ledger.carried(origin),
                        "a report speaks of packets that the far party sent: {origin:x?}"
                    );
                }
            }
        }
    }

    /// Whether everything that arrived is accounted for.
    fn check_reports(&self) {
        for (index, watched) in self.watched.iter().enumerate() {
            let party = &self.parties[index];
            let report = self.sessions[party.call].report()[party.leg.as_usize()];
            let far = &self.watched[index ^ 1];
            let dropped: u64 = watched.dropped.values().sum();
            assert_eq!(
                watched.arrived,
                watched.forwarded + watched.consumed + dropped
            );
            assert_eq!(report.dropped_packets, dropped + watched.send_failures);
            assert_eq!(
                report.tx_packets + report.tx_rtcp_packets,
                far.forwarded - far.send_failures
            );
            let after_the_gate = [
                DropReason::DirectionInactive,
                DropReason::NoDestination,
                DropReason::OutOfSequence,
            ];
            let accepted: u64 = after_the_gate
                .iter()
                .filter_map(|reason| watched.dropped.get(reason))
                .sum();
            assert_eq!(
                report.rx_packets + report.rx_rtcp_packets,
                watched.forwarded + watched.consumed + accepted
            );
        }
    }
}
