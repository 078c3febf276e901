//! A stranger who sprays the media ports of calls ("RTP bleed" and "RTP inject", RFC 7362): at ten
//! times the rate of each call, for its whole life, from nowhere and from the right address with a
//! wrong port, with everything that a media port may be sent. It gets nothing, nothing of it is
//! heard, and the call loses nothing.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, in helpers too"
)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use trunkline_testkit::conversation::{self, Party};
use trunkline_testkit::daemons::Daemons;
use trunkline_testkit::phone::{EndCause, Phone, PhoneConfig};
use trunkline_testkit::rtp::{MediaHub, PTIME, RtpEndpoint, compare};
use trunkline_testkit::sdp::AudioDescription;
use trunkline_testkit::site::{Member, Site};
use trunkline_testkit::speech;
use trunkline_tests::call::{Answered, LIMIT, place};
use trunkline_tests::sipp_case::wait_idle;

/// One second of speech per phase.
const FRAMES: usize = 50;
/// Packets that each attacking socket sends at each leg while that leg's peer sends one.
const ATTACK_FACTOR: u64 = 10;
/// Bounds an attack whose call hangs: a minute's worth.
const ATTACK_TICKS_MAX: u64 = 3_000;
/// What every attacking payload consists of.
const MARK: [u8; 8] = *b"INJECTED";
/// Where a phone behind a NAT believes to be.
const PRIVATE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5));
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 66));

/// What one side of a call is, as the source gate sees it.
#[derive(Clone, Copy)]
struct Side {
    is_trunk: bool,
    is_behind_nat: bool,
    shares_rtcp_port: bool,
    is_ipv6: bool,
}

const TRUNK: Side = Side {
    is_trunk: true,
    is_behind_nat: false,
    shares_rtcp_port: false,
    is_ipv6: false,
};
const MEMBER: Side = Side {
    is_trunk: false,
    ..TRUNK
};
const NATTED: Side = Side {
    is_behind_nat: true,
    ..MEMBER
};

struct Row {
    name: &'static str,
    caller: Side,
    callee: Side,
}

const ROWS: [Row; 5] = [
    Row {
        name: "trunk to member",
        caller: TRUNK,
        callee: MEMBER,
    },
    Row {
        name: "trunk to member, both with RTCP on the RTP port",
        caller: Side {
            shares_rtcp_port: true,
            ..TRUNK
        },
        callee: Side {
            shares_rtcp_port: true,
            ..MEMBER
        },
    },
    Row {
        name: "trunk to member behind NAT",
        caller: TRUNK,
        callee: NATTED,
    },
    Row {
        name: "member behind NAT to member behind NAT",
        caller: NATTED,
        callee: NATTED,
    },
    Row {
        name: "trunk to member on IPv6",
        caller: TRUNK,
        callee: Side {
            is_ipv6: true,
            ..MEMBER
        },
    },
];

/// A leg under attack.
#[derive(Clone, Copy)]
struct Target {
    rtp: SocketAddr,
    /// Also from the peer's own address, with another port. Whoever shares the address of a phone
    /// behind a NAT must not speak before the phone: it would be the phone.
    from_neighbour: bool,
}

/// Sockets that nobody named, and what they spray.
struct Attacker {
    stranger: UdpSocket,
    /// By leg: at the IP of the leg's peer.
    neighbours: [UdpSocket; 2],
    /// By leg.
    targets: Mutex<[Option<Target>; 2]>,
    is_over: AtomicBool,
    sent: AtomicU64,
}

impl Attacker {
    fn new(peers: [IpAddr; 2]) -> Self {
        let bind = |ip: IpAddr| {
            let socket = UdpSocket::bind((ip, 0)).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        Self {
            stranger: bind(STRANGER),
            neighbours: peers.map(bind),
            targets: Mutex::default(),
            is_over: AtomicBool::new(false),
            sent: AtomicU64::new(0),
        }
    }

    fn aim(&self, leg: usize, rtp: SocketAddr, from_neighbour: bool) {
        self.targets.lock().unwrap()[leg] = Some(Target {
            rtp,
            from_neighbour,
        });
    }

    /// Sprays until told to stop: at the legs that are known, else at the whole range.
    fn run(&self, media_ports: std::ops::RangeInclusive<u16>) {
        let mut range = std::iter::repeat(media_ports).flatten();
        for tick in 0..ATTACK_TICKS_MAX {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            let targets = *self.targets.lock().unwrap();
            for number in 0..ATTACK_FACTOR {
                let packet = attack_packet(tick * ATTACK_FACTOR + number);
                let anywhere = range.next().unwrap();
                let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, anywhere));
                self.send(&self.stranger, anywhere, &packet);
                for (target, neighbour) in targets.iter().zip(&self.neighbours) {
                    let Some(target) = target else {
                        continue;
                    };
                    // Every third packet goes to where RTCP has a port of its own.
                    let offset = u16::from(number % 3 == 2);
                    let to = SocketAddr::new(target.rtp.ip(), target.rtp.port() + offset);
                    if to.is_ipv4() {
                        self.send(&self.stranger, to, &packet);
                    }
                    if target.from_neighbour {
                        self.send(neighbour, to, &packet);
                    }
                }
            }
            std::thread::sleep(PTIME);
        }
    }

    fn send(&self, from: &UdpSocket, to: SocketAddr, packet: &[u8]) {
        // A full queue on a busy machine is not the test's concern; what was sent is counted.
        if from.send_to(packet, to).is_ok() {
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Datagrams that any of its sockets was sent.
    fn leaked(&self) -> usize {
        let mut buffer = [0; 2048];
        let sockets = [&self.stranger, &self.neighbours[0], &self.neighbours[1]];
        let heard =
            sockets.map(|socket| std::iter::from_fn(|| socket.recv(&mut buffer).ok()).count());
        heard.iter().sum()
    }
}

/// Everything that is worth a try.
fn attack_packet(number: u64) -> Vec<u8> {
    let sequence = (number as u16).to_be_bytes();
    let rtp = |payload_type: u8, ssrc: u64| {
        let mut packet = vec![0x80, payload_type];
        packet.extend_from_slice(&sequence);
        packet.extend_from_slice(&(160 * number as u32).to_be_bytes());
        packet.extend_from_slice(&(ssrc as u32).to_be_bytes());
        packet.extend_from_slice(&MARK.repeat(20));
        packet
    };
    match number % 8 {
        0 => rtp(0, number.wrapping_mul(0x9e37_79b9)),
        1 => vec![0x80, 203, 0, 0],
        2 => [&[0x80, 204, 0, 4, 0, 0, 0, 1], &b"EVIL"[..], &MARK].concat(),
        3 => [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42], &MARK[..], b"tran"].concat(),
        4 => [&[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8], &MARK[..]].concat(),
        5 => MARK.repeat(7),
        6 => rtp(0x80 | 101, 1),
        _ => [&[0x81, 203, 0, 4, 0, 0, 0, 1, 8], &MARK[..], &[0; 3]].concat(),
    }
}

/// Nothing that this endpoint has heard came from an attacker.
fn assert_unharmed(row: &str, endpoint: &RtpEndpoint) {
    assert_eq!(endpoint.unparsable_count(), 0, "{row}");
    for packet in endpoint.received() {
        let is_marked = packet.payload.windows(MARK.len()).any(|w| w == MARK);
        assert!(!is_marked, "{row}: injected RTP was heard");
    }
    for report in endpoint.received_rtcp() {
        assert!(report.len() >= 8, "{row}: short RTCP went through");
        let is_marked = report.windows(MARK.len()).any(|w| w == MARK);
        assert!(!is_marked, "{row}: injected RTCP was heard");
        assert!(!matches!(report[1], 203 | 204), "{row}: {report:x?}");
    }
}

fn phone(daemons: &Daemons, side: Side, member: usize) -> Phone {
    if side.is_trunk {
        return daemons.carrier().unwrap();
    }
    let server = if side.is_ipv6 {
        daemons.sip_v6()
    } else {
        daemons.sip()
    };
    let member = daemons.member(member).unwrap();
    let mut config = PhoneConfig::udp(&member.user, server).with_password(&member.password);
    if side.is_behind_nat {
        config = config.behind_nat(PRIVATE);
    }
    daemons.registered(config).unwrap()
}

/// What the side says of `rtp`.
fn description(side: Side, rtp: &RtpEndpoint) -> AudioDescription {
    let mut address = rtp.local_addr();
    if side.is_behind_nat {
        address.set_ip(PRIVATE);
    }
    let mut media = AudioDescription::pcmu(address);
    media.rtcp_mux = side.shares_rtcp_port;
    media
}

/// A few packets, so that the port of a phone behind a NAT is known before anybody answers it.
fn open_the_nat(side: Side, party: &Party<'_>) {
    if side.is_behind_nat {
        conversation::begin(party, speech::caller(), 3).unwrap();
        assert!(party.rtp.wait_spoken(LIMIT));
        std::thread::sleep(Duration::from_millis(150));
    }
}

fn survive(daemons: &Daemons, hub: &MediaHub, row: &Row, members: [usize; 2]) -> u64 {
    let name = row.name;
    let [caller, callee] = [
        phone(daemons, row.caller, members[0]),
        phone(daemons, row.callee, members[1]),
    ];
    let ips = [caller.local_addr().ip(), callee.local_addr().ip()];
    let [caller_rtp, callee_rtp] = ips.map(|ip| hub.endpoint(ip).unwrap());
    let attacker = Attacker::new(ips);
    let (first, last) = daemons.node().ports.split_once('-').unwrap();
    let ports = first.parse().unwrap()..=last.parse().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| attacker.run(ports));
        // Also when an assertion fails, or the scope would wait for the attack's own end.
        let _over = SetWhenDropped(&attacker.is_over);

        let callee_member = daemons.member(members[1]).unwrap();
        let number = if row.caller.is_trunk {
            &callee_member.did
        } else {
            &callee_member.extension
        };
        let outgoing = caller
            .call(number, description(row.caller, &caller_rtp))
            .unwrap();
        let incoming = callee.wait_call(LIMIT).unwrap();
        let leg_b = incoming.remote_media().unwrap().rtp;

        // Before an answer has named it, not even the callee is heard.
        attacker.aim(1, leg_b, !row.callee.is_behind_nat);
        incoming.ring().unwrap();
        outgoing.wait_provisional(180, LIMIT).unwrap();
        let mut early = vec![0x80, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 9];
        early.extend_from_slice(&[0x55; 160]);
        for _ in 0..10 {
            callee_rtp.send_raw(leg_b, &early).unwrap();
            std::thread::sleep(PTIME);
        }
        assert_eq!(caller_rtp.received_count(), 0, "{name}: before the answer");

        // Early media.
        incoming
            .progress(&description(row.callee, &callee_rtp))
            .unwrap();
        outgoing.wait_provisional(183, LIMIT).unwrap();
        let leg_a = outgoing.remote_media().unwrap().rtp;
        let mut call = Answered {
            outgoing,
            incoming,
            caller_rtp,
            callee_rtp,
        };
        attacker.aim(0, leg_a, !row.caller.is_behind_nat);
        open_the_nat(row.caller, &call.caller());
        attacker.aim(0, leg_a, true);
        open_the_nat(row.callee, &call.callee());
        attacker.aim(1, leg_b, true);
        call.caller_rtp.clear();
        conversation::begin(&call.callee(), speech::callee(), FRAMES / 2).unwrap();
        assert!(call.callee_rtp.wait_spoken(LIMIT));
        std::thread::sleep(Duration::from_millis(300));
        let heard = compare(&call.callee_rtp.sent(), &call.caller_rtp.received(), 8_000);
        assert!(
            heard.payload_identical && heard.lost == 0,
            "{name}: {heard:?}"
        );

        // The call itself.
        call.incoming
            .answer(&description(row.callee, &call.callee_rtp))
            .unwrap();
        call.outgoing.wait_answered(LIMIT).unwrap();
        call.incoming.wait_established(LIMIT).unwrap();
        let heard = call.talk(FRAMES).unwrap();
        assert!(heard.is_perfect(), "{name}: {heard:?}");
        assert_unharmed(name, &call.caller_rtp);
        assert_unharmed(name, &call.callee_rtp);

        // A re-INVITE moves the caller, and its old port goes on speaking.
        let moved = hub.endpoint(ips[0]).unwrap();
        attacker.aim(0, leg_a, !row.caller.is_behind_nat);
        let answer = call
            .outgoing
            .reinvite(description(row.caller, &moved), LIMIT)
            .unwrap();
        assert_eq!(answer.rtp, leg_a, "{name}: our port stays");
        let left = std::mem::replace(&mut call.caller_rtp, moved);
        left.clear();
        left.speak(leg_a, 0, speech::caller(), 2 * FRAMES);
        open_the_nat(row.caller, &call.caller());
        attacker.aim(0, leg_a, true);
        let heard = call.talk(FRAMES).unwrap();
        assert!(heard.is_perfect(), "{name}, after the re-INVITE: {heard:?}");
        assert_eq!(
            left.received_count(),
            0,
            "{name}: the old port is not answered"
        );
        assert_unharmed(name, &call.caller_rtp);
        assert_unharmed(name, &call.callee_rtp);
        call.hang_up().unwrap();
    });
    assert_eq!(attacker.leaked(), 0, "{name}: bled");
    attacker.sent.load(Ordering::Relaxed)
}

struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn sprayed_calls_leak_nothing_hear_nothing_and_lose_nothing() {
    let members = (0..2 * ROWS.len() as u16).map(Member::numbered);
    let daemons = Daemons::start(Site::with_members(members.collect())).unwrap();
    let hub = MediaHub::start().unwrap();
    let mut sent = 0;
    for (index, row) in ROWS.iter().enumerate() {
        sent += survive(&daemons, &hub, row, [2 * index, 2 * index + 1]);
        wait_idle(&daemons, LIMIT).unwrap();
    }
    // Each row lasts four seconds at least, with two legs and two attackers.
    let least = ROWS.len() as u64 * 100 * ATTACK_FACTOR;
    assert!(sent > least, "only {sent} packets were sprayed");
    let refused = daemons
        .metric(
            "trunkline_rtp_dropped_packets_total",
            &[("reason", "source_not_allowed")],
        )
        .unwrap();
    assert!(refused > 0.0);
}

/// The site with networks for the trunk's media, applied.
fn list_media_from(daemons: &Daemons, networks: &str) {
    let directory = daemons.path().join("site-with-networks");
    let path = daemons.site().write(&directory).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let listed = text.replace("sources =", &format!("media_from = {networks}\nsources ="));
    assert_ne!(listed, text);
    std::fs::write(&path, listed).unwrap();
    daemons.apply(&path).unwrap();
}

#[test]
fn trunk_is_heard_from_its_listed_networks_and_answered_where_its_sdp_said() {
    let daemons = Daemons::start(Site::with_members(vec![Member::numbered(0)])).unwrap();
    list_media_from(&daemons, "[\"127.0.7.0/24\"]");
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let number = &daemons.member(0).unwrap().did;
    let call = place(&hub, &carrier, number, &phone).unwrap();
    let leg = call.outgoing.remote_media().unwrap().rtp;
    let gateway = hub.endpoint([127, 0, 7, 7].into()).unwrap();
    let neighbour = hub.endpoint([127, 0, 8, 7].into()).unwrap();
    conversation::begin(&call.callee(), speech::callee(), FRAMES).unwrap();
    neighbour.speak(leg, 0, speech::callee(), FRAMES);
    gateway.speak(leg, 0, speech::caller(), FRAMES);
    for speaker in [&neighbour, &gateway, &call.callee_rtp] {
        assert!(speaker.wait_spoken(LIMIT));
    }
    std::thread::sleep(Duration::from_millis(300));
    let heard = compare(&gateway.sent(), &call.callee_rtp.received(), 8_000);
    assert!(heard.payload_identical && heard.lost == 0, "{heard:?}");
    let answered = compare(&call.callee_rtp.sent(), &call.caller_rtp.received(), 8_000);
    assert!(
        answered.payload_identical && answered.lost == 0,
        "{answered:?}"
    );
    assert_eq!(gateway.received_count() + neighbour.received_count(), 0);
    call.hang_up().unwrap();
}

#[test]
fn offer_that_names_no_peer_is_refused_before_anything_is_sent_there() {
    let daemons = Daemons::start(Site::with_members(vec![Member::numbered(0)])).unwrap();
    let carrier = daemons.carrier().unwrap();
    let _phone = daemons.member_phone(0).unwrap();
    // The last one would be another call's leg: two such calls would feed each other for ever.
    let (_, last_port) = daemons.node().ports.split_once('-').unwrap();
    let our_own = format!("127.0.0.1:{}", last_port.parse::<u16>().unwrap() - 1);
    let rows = [
        "224.0.0.1:4000",
        "255.255.255.255:4000",
        "127.0.0.2:0",
        &our_own,
    ];
    for nobody in rows {
        let offer = AudioDescription::pcmu(nobody.parse().unwrap());
        let call = carrier
            .call(&daemons.member(0).unwrap().did, offer)
            .unwrap();
        let cause = call.wait_ended(LIMIT).unwrap();
        assert_eq!(cause, EndCause::Rejected(488), "{nobody}");
    }
    wait_idle(&daemons, LIMIT).unwrap();
}
