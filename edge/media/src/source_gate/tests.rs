use trunkline_edge_api::{SourceNetwork, SourceNetworks};

use super::*;

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

const RTP: SocketKind = SocketKind::Rtp;
const RTCP: SocketKind = SocketKind::Rtcp;
const NOW: MonoTime = MonoTime(1_000_000_000);
const SSRC: u32 = 0x5512_3c77;

fn rtp(ssrc: u32, sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 0]);
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet
}

fn report(ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 201, 0, 1];
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet
}

/// A goodbye of nobody: four bytes, valid, without an SSRC.
const SHORT_GOODBYE: [u8; 4] = [0x80, 203, 0, 0];

/// A gate that is asked and, where it lets a packet in, told.
struct Door {
    gate: SourceGate,
    now: MonoTime,
}

impl Door {
    fn behind_nat(remote_rtp: &str) -> Self {
        Self {
            gate: natted(remote_rtp),
            now: NOW,
        }
    }

    fn rtp(&mut self, source: &str, ssrc: u32, sequence: u16) -> bool {
        let packet = rtp(ssrc, sequence);
        let source = addr(source);
        let is_in = self
            .gate
            .admits(self.now, RTP, MediaKind::Rtp, source, &packet);
        if is_in {
            let header = RtpHeader::parse(&packet).expect("valid");
            self.gate.learn_rtp(self.now, source, &header);
        }
        is_in
    }

    fn rtcp(&mut self, source: &str, packet: &[u8]) -> bool {
        let source = addr(source);
        let is_in = self
            .gate
            .admits(self.now, RTCP, MediaKind::Rtcp, source, packet);
        if is_in {
            self.gate.learn_rtcp(source, packet);
        }
        is_in
    }

    fn signal(&mut self, remote_rtp: Option<&str>) -> bool {
        let mut gate = SourceGate::new(self.gate.policy.clone(), remote_rtp.map(addr), None);
        let goes_on = gate.succeed(&self.gate);
        self.gate = gate;
        goes_on
    }

    fn learnt(&self, socket: SocketKind) -> Option<SocketAddr> {
        self.gate.learnt(socket).copied()
    }
}

fn natted(remote_rtp: &str) -> SourceGate {
    let policy = SourcePolicy::LearnPort {
        ip: addr("192.0.2.1:1").ip(),
    };
    SourceGate::new(policy, Some(addr(remote_rtp)), None)
}

#[test]
fn gate_admits_by_table() {
    let exact = SourceGate::new(
        SourcePolicy::Exact,
        Some(addr("192.0.2.1:4000")),
        Some(addr("192.0.2.1:4001")),
    );
    let without_rtcp = SourceGate::new(SourcePolicy::Exact, Some(addr("[2001:db8::1]:4000")), None);
    let nobody = SourceGate::new(SourcePolicy::Nobody, Some(addr("192.0.2.1:4000")), None);
    let learning = natted("10.0.0.1:4000");
    let network = SourceNetwork::new(addr("198.51.100.0:1").ip(), 24).expect("a network");
    let networks = SourceNetworks::new(&[network]).expect("one");
    let asymmetric = SourceGate::new(
        SourcePolicy::Networks(networks),
        Some(addr("192.0.2.1:4000")),
        None,
    );
    let rows = [
        (
            "listed network, any port",
            &asymmetric,
            RTP,
            "198.51.100.77:9",
            true,
        ),
        (
            "listed network, mapped form",
            &asymmetric,
            RTP,
            "[::ffff:198.51.100.7]:9",
            true,
        ),
        (
            "listed network, RTCP",
            &asymmetric,
            RTCP,
            "198.51.100.77:9",
            true,
        ),
        (
            "the named address with networks",
            &asymmetric,
            RTP,
            "192.0.2.1:4000",
            true,
        ),
        ("its other ports", &asymmetric, RTP, "192.0.2.1:4002", false),
        (
            "outside the networks",
            &asymmetric,
            RTP,
            "198.51.101.1:4000",
            false,
        ),
        ("named address", &exact, RTP, "192.0.2.1:4000", true),
        (
            "its mapped form",
            &exact,
            RTP,
            "[::ffff:192.0.2.1]:4000",
            true,
        ),
        ("other port", &exact, RTP, "192.0.2.1:4002", false),
        ("other IP", &exact, RTP, "192.0.2.2:4000", false),
        (
            "RTCP port on RTP socket",
            &exact,
            RTP,
            "192.0.2.1:4001",
            false,
        ),
        (
            "RTCP port on RTCP socket",
            &exact,
            RTCP,
            "192.0.2.1:4001",
            true,
        ),
        (
            "RTP port on RTCP socket",
            &exact,
            RTCP,
            "192.0.2.1:4000",
            false,
        ),
        (
            "flow label differs",
            &without_rtcp,
            RTP,
            "[2001:db8::1%3]:4000",
            true,
        ),
        (
            "no RTCP agreed",
            &without_rtcp,
            RTCP,
            "[2001:db8::1]:4001",
            false,
        ),
        ("nobody yet", &nobody, RTP, "192.0.2.1:4000", false),
        (
            "behind NAT, any port",
            &learning,
            RTP,
            "192.0.2.1:61234",
            true,
        ),
        (
            "behind NAT, mapped form",
            &learning,
            RTP,
            "[::ffff:192.0.2.1]:5",
            true,
        ),
        (
            "behind NAT, other IP",
            &learning,
            RTP,
            "192.0.2.2:61234",
            false,
        ),
        (
            "behind NAT, the private address",
            &learning,
            RTP,
            "10.0.0.1:4000",
            false,
        ),
    ];
    for (name, gate, socket, source, expected) in rows {
        let (kind, packet) = match socket {
            RTP => (MediaKind::Rtp, rtp(SSRC, 1)),
            RTCP => (MediaKind::Rtcp, report(SSRC)),
        };
        let admitted = gate.admits(NOW, socket, kind, addr(source), &packet);
        assert_eq!(admitted, expected, "{name}");
    }
}

#[test]
fn each_socket_learns_its_own_port_once() {
    let mut door = Door::behind_nat("10.0.0.1:4000");
    assert!(door.rtp("192.0.2.1:5000", SSRC, 1));
    assert!(!door.rtp("192.0.2.1:6000", 9, 2));
    assert_eq!(door.learnt(RTP), Some(addr("192.0.2.1:5000")));
    assert_eq!(door.learnt(RTCP), None);
    assert!(door.rtcp("192.0.2.1:6001", &report(SSRC)));
    assert!(!door.rtcp("192.0.2.1:6003", &report(SSRC)));
    assert_eq!(door.learnt(RTCP), Some(addr("192.0.2.1:6001")));
}

#[test]
fn exact_gate_never_learns_and_never_follows() {
    let gate = SourceGate::new(SourcePolicy::Exact, Some(addr("192.0.2.1:4000")), None);
    let mut door = Door { gate, now: NOW };
    assert!(door.rtp("192.0.2.1:4000", SSRC, 1));
    assert!(!door.rtp("192.0.2.1:4002", SSRC, 2));
    assert_eq!(door.learnt(RTP), None);
}

#[test]
fn networks_teach_nothing() {
    let network = SourceNetwork::new(addr("198.51.100.0:1").ip(), 24).expect("a network");
    let networks = SourceNetworks::new(&[network]).expect("one");
    let gate = SourceGate::new(
        SourcePolicy::Networks(networks),
        Some(addr("192.0.2.1:4000")),
        None,
    );
    let mut door = Door { gate, now: NOW };
    assert!(door.rtp("198.51.100.7:9", SSRC, 1));
    assert!(door.rtp("198.51.100.8:9", 7, 900));
    assert_eq!(door.learnt(RTP), None, "what we send goes where SDP said");
}

#[test]
fn another_port_is_followed_only_when_it_carries_the_stream_on() {
    let rows = [
        ("next packet", "192.0.2.1:6000", SSRC, 501, true),
        ("after some loss", "192.0.2.1:6000", SSRC, 600, true),
        ("after too much", "192.0.2.1:6000", SSRC, 601, false),
        ("the newest again", "192.0.2.1:6000", SSRC, 500, false),
        ("a late one", "192.0.2.1:6000", SSRC, 499, false),
        ("another SSRC", "192.0.2.1:6000", SSRC + 1, 501, false),
        ("another IP", "192.0.2.2:6000", SSRC, 501, false),
    ];
    for (name, source, ssrc, sequence, follows) in rows {
        let mut door = Door::behind_nat("10.0.0.1:4000");
        assert!(door.rtp("192.0.2.1:5000", SSRC, 500));
        assert_eq!(door.rtp(source, ssrc, sequence), follows, "{name}");
        let expected = if follows { source } else { "192.0.2.1:5000" };
        assert_eq!(door.learnt(RTP), Some(addr(expected)), "{name}");
    }
}

#[test]
fn stream_is_followed_over_the_wrap_of_its_sequence() {
    let mut door = Door::behind_nat("10.0.0.1:4000");
    assert!(door.rtp("192.0.2.1:5000", SSRC, 65_535));
    assert!(door.rtp("192.0.2.1:6000", SSRC, 0));
    assert!(!door.rtp("192.0.2.1:5000", SSRC, 65_534), "a late one");
}

#[test]
fn peer_may_change_its_ssrc_and_is_then_followed_by_the_new_one() {
    let mut door = Door::behind_nat("10.0.0.1:4000");
    assert!(door.rtp("192.0.2.1:5000", SSRC, 500));
    assert!(door.rtp("192.0.2.1:5000", 9, 7));
    assert!(!door.rtp("192.0.2.1:6000", SSRC, 501));
    assert!(door.rtp("192.0.2.1:6000", 9, 8));
}

#[test]
fn rtcp_port_is_learnt_under_the_ssrc_of_the_rtp_alone() {
    let mut door = Door::behind_nat("10.0.0.1:4000");
    assert!(door.rtp("192.0.2.1:5000", SSRC, 1));
    assert!(!door.rtcp("192.0.2.1:6001", &report(9)));
    assert!(!door.rtcp("192.0.2.1:6001", &SHORT_GOODBYE));
    assert!(door.rtcp("192.0.2.1:5001", &report(SSRC)));
    assert!(door.rtcp("192.0.2.1:5001", &SHORT_GOODBYE), "learnt by now");
}

#[test]
fn four_byte_rtcp_teaches_nothing() {
    let mut door = Door::behind_nat("10.0.0.1:4000");
    assert!(door.rtcp("192.0.2.1:6001", &SHORT_GOODBYE));
    assert_eq!(door.learnt(RTCP), None);
}

#[test]
fn rtcp_port_of_a_stranger_is_forgotten_when_the_phone_speaks() {
    let mut door = Door::behind_nat("10.0.0.1:4000");
    assert!(door.rtcp("192.0.2.1:6001", &report(9)));
    assert!(door.rtp("192.0.2.1:5000", SSRC, 1));
    assert_eq!(door.learnt(RTCP), None);
    assert!(!door.rtcp("192.0.2.1:6001", &report(9)));
    assert!(door.rtcp("192.0.2.1:5001", &report(SSRC)));
}

#[test]
fn rtcp_port_of_the_phone_itself_stays_when_it_speaks() {
    let mut door = Door::behind_nat("10.0.0.1:4000");
    assert!(door.rtcp("192.0.2.1:5001", &report(SSRC)));
    assert!(door.rtp("192.0.2.1:5000", SSRC, 1));
    assert_eq!(door.learnt(RTCP), Some(addr("192.0.2.1:5001")));
}

#[test]
fn rtcp_port_is_learnt_anew_when_the_nat_has_moved_rtp() {
    let mut door = Door::behind_nat("10.0.0.1:4000");
    assert!(door.rtp("192.0.2.1:5000", SSRC, 1));
    assert!(door.rtcp("192.0.2.1:5001", &report(SSRC)));
    assert!(!door.rtcp("192.0.2.1:7001", &report(SSRC)));
    assert!(door.rtp("192.0.2.1:7000", SSRC, 2));
    assert!(door.rtcp("192.0.2.1:7001", &report(SSRC)));
    assert!(!door.rtcp("192.0.2.1:5001", &report(SSRC)));
}

#[test]
fn port_is_kept_while_signalling_names_the_same_or_no_address() {
    let mut door = Door::behind_nat("10.0.0.1:4000");
    assert!(door.rtp("192.0.2.1:5000", SSRC, 1));
    for named in [Some("10.0.0.1:4000"), None, Some("10.0.0.1:4000")] {
        assert!(door.signal(named), "{named:?}");
        assert_eq!(door.learnt(RTP), Some(addr("192.0.2.1:5000")), "{named:?}");
    }
}

#[test]
fn stray_packet_from_the_port_that_was_left_does_not_teach_it_again() {
    let mut door = Door::behind_nat("10.0.0.1:4000");
    assert!(door.rtp("192.0.2.1:5000", SSRC, 1));
    assert!(!door.signal(Some("10.0.0.1:4002")));
    assert_eq!(door.learnt(RTP), None);
    assert!(!door.rtp("192.0.2.1:5000", SSRC, 2));
    assert!(door.rtp("192.0.2.1:5002", SSRC, 3));
    assert!(
        !door.rtp("192.0.2.1:5000", SSRC, 4),
        "nor is it followed back"
    );
    assert_eq!(door.learnt(RTP), Some(addr("192.0.2.1:5002")));
}

#[test]
fn port_that_was_left_is_learnt_again_when_nothing_late_can_come_from_it() {
    let mut door = Door::behind_nat("10.0.0.1:4000");
    assert!(door.rtp("192.0.2.1:5000", SSRC, 1));
    assert!(!door.signal(Some("10.0.0.1:4002")));
    door.now = MonoTime(NOW.0 + LATE_NANOS);
    assert!(door.rtp("192.0.2.1:5000", SSRC, 2));
}

#[test]
fn exact_address_moves_with_signalling_at_once() {
    let gate = SourceGate::new(SourcePolicy::Exact, Some(addr("192.0.2.1:4000")), None);
    let mut door = Door { gate, now: NOW };
    assert!(door.rtp("192.0.2.1:4000", SSRC, 1));
    assert!(door.signal(Some("192.0.2.1:4000")), "nothing has changed");
    assert!(!door.signal(Some("192.0.2.1:4002")));
    assert!(!door.rtp("192.0.2.1:4000", SSRC, 2));
    assert!(door.rtp("192.0.2.1:4002", SSRC, 3));
}

#[test]
fn nothing_is_taken_over_when_the_policy_changes() {
    let mut door = Door::behind_nat("10.0.0.1:4000");
    assert!(door.rtp("192.0.2.1:5000", SSRC, 1));
    let mut exact = SourceGate::new(SourcePolicy::Exact, Some(addr("192.0.2.1:4000")), None);
    assert!(!exact.succeed(&door.gate));
    assert_eq!(exact.learnt(RTP), None);
}
