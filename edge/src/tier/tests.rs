//! Both tiers against the real kernel, on loopback.

use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::process::Command as Process;
use std::time::Instant;

use trunkline_edge_api::{Epoch, LegIndex, MonoTime, SessionId};
use trunkline_media::{MediaKind, SocketKind};

use super::*;
use crate::each_tier::on_each_tier;
use crate::session_table::{Session, SessionTable};

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Bench {
    pub(crate) tier: Tier,
    pub(crate) doorbell: OwnedFd,
    pub(crate) owner: SocketOwner,
}

/// A socket of the tier and its address.
pub(crate) struct Bound {
    pub(crate) id: SocketId,
    pub(crate) address: SocketAddr,
}

impl Bench {
    pub(crate) fn new(kind: IoTier, sockets_max: u32) -> Self {
        let doorbell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an fd");
        let choice = match kind {
            IoTier::IoUring => IoChoice::IoUring,
            IoTier::Epoll => IoChoice::Epoll,
        };
        let settings = TierSettings {
            io: choice,
            sockets_max,
            dscp: 46,
        };
        let (tier, _) = Tier::new(settings, doorbell.as_fd()).expect("it works here");
        assert_eq!(tier.kind(), kind);
        let session = Session::new(SessionId::new(Epoch(1), 1), MonoTime(0));
        let session = SessionTable::new(1).insert(session).expect("room");
        Self {
            tier,
            doorbell,
            owner: SocketOwner {
                session,
                leg: LegIndex::A,
                socket: SocketKind::Rtp,
            },
        }
    }

    pub(crate) fn open(&mut self) -> Bound {
        self.open_on("127.0.0.1")
    }

    fn open_on(&mut self, ip: &str) -> Bound {
        let probe = UdpSocket::bind((ip, 0)).expect("an address of this machine");
        let address = probe.local_addr().expect("bound");
        drop(probe);
        let id = self
            .tier
            .open(address, self.owner)
            .expect("the port was free");
        Bound { id, address }
    }

    /// Waits for the next completion.
    pub(crate) fn next(&mut self) -> Completion {
        self.next_within(PATIENCE).expect("something completes")
    }

    /// What comes within `patience`, if anything.
    pub(crate) fn next_within(&mut self, patience: Duration) -> Option<Completion> {
        let until = Instant::now() + patience;
        loop {
            if let Some(completion) = self.tier.poll_completion() {
                return Some(completion);
            }
            let is_late = Instant::now() >= until;
            if self.tier.reap() > 0 && !is_late {
                continue;
            }
            if is_late {
                return self.tier.poll_completion();
            }
            self.tier
                .submit_and_wait(Duration::from_millis(20))
                .expect("the tier works");
        }
    }

    pub(crate) fn receive(&mut self) -> (RxMeta, RxBuffer) {
        match self.next() {
            Completion::Received { meta, buffer, .. } => (meta, buffer),
            other => panic!("expected a datagram, got {other:?}"),
        }
    }

    pub(crate) fn transmit(&self, dest: SocketAddr, len: usize) -> Transmit {
        Transmit {
            leg: LegIndex::B,
            socket: SocketKind::Rtp,
            kind: MediaKind::Rtp,
            dest,
            len,
        }
    }
}

pub(crate) fn peer() -> UdpSocket {
    let peer = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    peer.set_read_timeout(Some(PATIENCE)).expect("a socket");
    peer
}

impl Tier {
    /// Whether no buffer is out, or was lost.
    fn has_every_buffer(&self) -> bool {
        match self {
            Self::Uring(tier) => tier.has_every_buffer(),
            Self::Epoll(tier) => tier.has_every_buffer(),
        }
    }
}

on_each_tier! {
    datagram_is_sent_on_from_the_buffer_it_arrived_in,
    send_that_the_kernel_refuses_is_told_and_gives_its_buffer_back,
    oversize_datagram_is_marked,
    closed_socket_says_so_once_and_frees_its_port,
    socket_that_was_never_armed_closes_too,
    send_from_a_closing_socket_is_refused_and_gives_its_buffer_back,
    many_sockets_close_under_traffic_and_every_one_is_told,
    doorbell_rings_every_time,
    closed_sockets_leave_no_descriptor_behind,
    next_socket_in_a_slot_hears_nothing_of_the_last_ones,
    flood_on_one_socket_does_not_keep_another_waiting,
    full_send_queue_is_told_as_such,
    connected_socket_hears_its_peer_alone_until_it_is_disconnected,
    send_that_a_stored_icmp_error_refuses_is_sent_again,
    connected_socket_still_reaches_others,
}

fn datagram_is_sent_on_from_the_buffer_it_arrived_in(kind: IoTier) {
    let mut bench = Bench::new(kind, 4);
    let socket = bench.open();
    let [sender, receiver] = [peer(), peer()];
    sender
        .send_to(b"hello", socket.address)
        .expect("loopback takes it");
    let (meta, mut buffer) = bench.receive();
    assert_eq!(meta.source, sender.local_addr().expect("bound"));
    assert!(!meta.truncated);
    bench.tier.packet_mut(&mut buffer)[0] = b'j';
    let transmit = bench.transmit(receiver.local_addr().expect("bound"), 4);
    let session = bench.owner.session;
    bench
        .tier
        .send(buffer, socket.id, session, transmit)
        .expect("room");
    assert_eq!(bench.tier.counters().buffers_in_flight, 1);
    assert!(matches!(
        bench.next(),
        Completion::Sent { result: Ok(()), .. }
    ));
    assert_eq!(bench.tier.counters().buffers_in_flight, 0);
    let mut got = [0; 16];
    let (len, from) = receiver.recv_from(&mut got).expect("it was sent");
    assert_eq!(got[..len], *b"jell");
    assert_eq!(from, socket.address);
}

fn send_that_the_kernel_refuses_is_told_and_gives_its_buffer_back(kind: IoTier) {
    let mut bench = Bench::new(kind, 4);
    let socket = bench.open();
    peer()
        .send_to(b"hello", socket.address)
        .expect("loopback takes it");
    let (_, buffer) = bench.receive();
    // An IPv4 socket cannot reach it.
    let dest = "[::1]:9".parse().expect("an address");
    let transmit = bench.transmit(dest, 5);
    let session = bench.owner.session;
    bench
        .tier
        .send(buffer, socket.id, session, transmit)
        .expect("room");
    let Completion::Sent { result, .. } = bench.next() else {
        panic!("expected the send");
    };
    assert_eq!(result, Err(DropReason::SendFailed));
    assert!(bench.tier.has_every_buffer());
}

fn oversize_datagram_is_marked(kind: IoTier) {
    let mut bench = Bench::new(kind, 4);
    let socket = bench.open();
    peer()
        .send_to(&[7; 5_000], socket.address)
        .expect("loopback takes it");
    let (meta, mut buffer) = bench.receive();
    assert!(meta.truncated);
    assert!(
        bench
            .tier
            .packet_mut(&mut buffer)
            .iter()
            .all(|&byte| byte == 7)
    );
    bench.tier.release(buffer);
}

fn closed_socket_says_so_once_and_frees_its_port(kind: IoTier) {
    let mut bench = Bench::new(kind, 2);
    let socket = bench.open();
    let sender = peer();
    sender
        .send_to(b"one", socket.address)
        .expect("loopback takes it");
    let (_, buffer) = bench.receive();
    bench.tier.release(buffer);
    assert!(bench.tier.close(socket.id, CloseTicket(7)));
    assert!(
        !bench.tier.close(socket.id, CloseTicket(8)),
        "it closes already"
    );
    sender
        .send_to(b"too late", socket.address)
        .expect("loopback takes it");
    let Completion::Closed(ticket) = bench.next() else {
        panic!("no datagram comes any more");
    };
    assert_eq!(ticket, CloseTicket(7));
    assert!(bench.tier.is_empty());
    assert!(bench.next_within(Duration::from_millis(20)).is_none());
    assert!(
        !bench.tier.close(socket.id, CloseTicket(9)),
        "there is no such socket"
    );
    let until = Instant::now() + PATIENCE;
    while UdpSocket::bind(socket.address).is_err() {
        assert!(Instant::now() < until, "the port is still held");
    }
}

fn socket_that_was_never_armed_closes_too(kind: IoTier) {
    let mut bench = Bench::new(kind, 2);
    let socket = bench.open();
    assert!(bench.tier.close(socket.id, CloseTicket(1)));
    assert!(matches!(bench.next(), Completion::Closed(CloseTicket(1))));
}

fn send_from_a_closing_socket_is_refused_and_gives_its_buffer_back(kind: IoTier) {
    let mut bench = Bench::new(kind, 2);
    let [from, to] = [bench.open(), bench.open()];
    peer()
        .send_to(b"x", from.address)
        .expect("loopback takes it");
    let (_, buffer) = bench.receive();
    bench.tier.close(to.id, CloseTicket(1));
    let transmit = bench.transmit(from.address, 1);
    let session = bench.owner.session;
    let refused = bench.tier.send(buffer, to.id, session, transmit);
    assert_eq!(refused, Err(DropReason::NoDestination));
    assert!(bench.tier.has_every_buffer());
}

fn many_sockets_close_under_traffic_and_every_one_is_told(kind: IoTier) {
    const SOCKETS: u32 = 300;
    let mut bench = Bench::new(kind, SOCKETS);
    let sender = peer();
    for round in 0..3 {
        let sockets: Vec<_> = (0..SOCKETS).map(|_| bench.open()).collect();
        assert_eq!(bench.tier.counters().sockets_open, u64::from(SOCKETS));
        let full = bench
            .tier
            .open("127.0.0.1:0".parse().expect("an address"), bench.owner);
        assert!(
            matches!(full, Err((Refusal::OutOfSockets, None))),
            "round {round}"
        );
        bench.tier.submit().expect("the tier works");
        for (n, socket) in (0..).zip(&sockets) {
            sender
                .send_to(b"x", socket.address)
                .expect("loopback takes it");
            bench.tier.close(socket.id, CloseTicket(n));
            sender
                .send_to(b"x", socket.address)
                .expect("loopback takes it");
        }
        let mut told = vec![false; sockets.len()];
        while told.contains(&false) {
            let Completion::Closed(CloseTicket(n)) = bench.next() else {
                panic!("closing sockets hear nothing");
            };
            assert!(
                !std::mem::replace(&mut told[n as usize], true),
                "told twice"
            );
        }
        assert!(bench.tier.is_empty());
        assert!(bench.tier.has_every_buffer());
    }
}

fn doorbell_rings_every_time(kind: IoTier) {
    let mut bench = Bench::new(kind, 1);
    for _ in 0..3 {
        rustix::io::write(&bench.doorbell, &1u64.to_ne_bytes()).expect("an eventfd");
        assert!(matches!(bench.next(), Completion::DoorbellRang));
        let mut count = [0; 8];
        rustix::io::read(&bench.doorbell, &mut count).expect("it rang");
    }
}

/// Descriptors of this process that are UDP sockets bound to `address`' port.
fn closed_sockets_leave_no_descriptor_behind(kind: IoTier) {
    const SOCKETS: u32 = 64;
    let mut bench = Bench::new(kind, SOCKETS);
    let mut addresses = Vec::new();
    for _ in 0..4 {
        let sockets: Vec<_> = (0..SOCKETS).map(|_| bench.open()).collect();
        bench.tier.submit().expect("the tier works");
        for socket in &sockets {
            bench.tier.close(socket.id, CloseTicket(0));
            addresses.push(socket.address);
        }
        for _ in &sockets {
            assert!(matches!(bench.next(), Completion::Closed(_)));
        }
    }
    assert!(bench.tier.is_empty());
    // A descriptor that was left would hold its port. The last reference may go from a work queue.
    let until = Instant::now() + PATIENCE;
    while !addresses
        .iter()
        .all(|address| UdpSocket::bind(address).is_ok())
    {
        assert!(Instant::now() < until, "a port is still held");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn next_socket_in_a_slot_hears_nothing_of_the_last_ones(kind: IoTier) {
    let mut bench = Bench::new(kind, 1);
    let sender = peer();
    for round in 0..50 {
        let old = bench.open();
        sender
            .send_to(b"old", old.address)
            .expect("loopback takes it");
        // The tier knows of the datagram, and it is not handed out yet.
        bench
            .tier
            .submit_and_wait(Duration::from_millis(20))
            .expect("the tier works");
        bench.tier.reap();
        bench.tier.close(old.id, CloseTicket(round));
        assert!(matches!(bench.next(), Completion::Closed(CloseTicket(n)) if n == round));
        let new = bench.open();
        sender
            .send_to(b"new", new.address)
            .expect("loopback takes it");
        let (_, mut buffer) = bench.receive();
        assert_eq!(*bench.tier.packet_mut(&mut buffer), *b"new");
        bench.tier.release(buffer);
        bench.tier.close(new.id, CloseTicket(round));
        assert!(matches!(bench.next(), Completion::Closed(_)));
        assert!(bench.tier.has_every_buffer());
    }
}

fn flood_on_one_socket_does_not_keep_another_waiting(kind: IoTier) {
    // Fewer than a socket's receive buffer holds.
    const FLOOD: usize = 20;
    let mut bench = Bench::new(kind, 2);
    let [flooded, quiet] = [bench.open(), bench.open()];
    bench.tier.submit().expect("the tier works");
    let sender = peer();
    for _ in 0..FLOOD {
        sender
            .send_to(b"flood", flooded.address)
            .expect("loopback takes it");
    }
    sender
        .send_to(b"quiet", quiet.address)
        .expect("loopback takes it");
    let mut before_it = 0;
    loop {
        let (_, mut buffer) = bench.receive();
        let is_quiet = *bench.tier.packet_mut(&mut buffer) == *b"quiet";
        bench.tier.release(buffer);
        if is_quiet {
            break;
        }
        before_it += 1;
    }
    // io_uring takes what has arrived in the order in which it did.
    if kind == IoTier::Epoll {
        assert!(before_it <= 1, "{before_it} of the flood came first");
    }
    for _ in before_it..FLOOD {
        let (_, buffer) = bench.receive();
        bench.tier.release(buffer);
    }
}

/// Says which tier [`send_into_a_full_queue`] is to try.
const TIER_VARIABLE: &str = "TRUNKLINE_TEST_TIER";

fn full_send_queue_is_told_as_such(kind: IoTier) {
    let output = Process::new("unshare")
        .args(["--map-root-user", "--net"])
        .arg(std::env::current_exe().expect("known"))
        .args(["--exact", "tier::tests::send_into_a_full_queue"])
        .args(["--ignored", "--nocapture"])
        .env(TIER_VARIABLE, kind.name())
        .output()
        .expect("util-linux is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{output:?}"
    );
}

/// Not a test of its own: runs in a network of its own, where nobody answers for the neighbours
/// that it sends to. Until the kernel gives them up, what is sent waits and fills the socket.
#[test]
#[ignore = "the process that other tests start"]
fn send_into_a_full_queue() {
    let Ok(tier) = std::env::var(TIER_VARIABLE) else {
        return;
    };
    let kinds = [IoTier::IoUring, IoTier::Epoll];
    let kind = kinds.into_iter().find(|kind| kind.name() == tier);
    for arguments in [
        "link set lo up",
        "link add near type veth peer name far",
        "address add 192.0.2.1/24 dev near",
        "link set near up",
        "link set far up",
    ] {
        let status = Process::new("ip").args(arguments.split(' ')).status();
        assert!(
            status.expect("iproute2 is installed").success(),
            "{arguments}"
        );
    }
    let mut bench = Bench::new(kind.expect("a tier"), 1);
    let socket = bench.open_on("192.0.2.1");
    let sender = UdpSocket::bind("192.0.2.1:0").expect("an address of this machine");
    let session = bench.owner.session;
    let mut taken = 0;
    loop {
        sender
            .send_to(&[0; 1_400], socket.address)
            .expect("loopback takes it");
        let (_, buffer) = bench.receive();
        // Each neighbour's queue is as long as the socket's; together they are longer.
        let dest = SocketAddr::from(([192, 0, 2, 2 + taken % 4], 9));
        let transmit = bench.transmit(dest, 1_400);
        bench
            .tier
            .send(buffer, socket.id, session, transmit)
            .expect("room");
        let Completion::Sent { result, .. } = bench.next() else {
            panic!("expected the send");
        };
        if let Err(reason) = result {
            assert_eq!(reason, DropReason::SendQueueFull);
            break;
        }
        taken = taken.checked_add(1).expect("the queue never fills");
    }
    assert!(taken > 10, "it was full after {taken}");
    assert!(bench.tier.has_every_buffer());
}

fn disabled() -> Result<UringTier, UringError> {
    Err(UringError::Disabled { value: 2 })
}

fn epoll() -> io::Result<EpollTier> {
    let doorbell = eventfd(0, EventfdFlags::CLOEXEC)?;
    let settings = TierSettings {
        io: IoChoice::Auto,
        sockets_max: 1,
        dscp: 0,
    };
    EpollTier::new(settings, doorbell.as_fd())
}

#[test]
fn auto_falls_back_to_epoll_and_says_why() {
    let chosen = Tier::choose(IoChoice::Auto, disabled, epoll);
    let (tier, fallback) = chosen.expect("epoll works here");
    assert_eq!(tier.kind(), IoTier::Epoll);
    let why = fallback.expect("a reason").to_string();
    assert!(why.contains("kernel.io_uring_disabled"), "{why}");
}

#[test]
fn io_uring_alone_is_an_error_that_names_both_ways_out() {
    let never = || panic!("epoll was not asked for");
    let Err(error) = Tier::choose(IoChoice::IoUring, disabled, never) else {
        panic!("io_uring was refused");
    };
    let text = error.to_string();
    assert!(
        text.contains("kernel.io_uring_disabled") && text.contains("io = \"auto\""),
        "{text}"
    );
}

#[test]
fn epoll_alone_does_not_try_io_uring() {
    let never = || panic!("io_uring was not asked for");
    let (tier, fallback) = Tier::choose(IoChoice::Epoll, never, epoll).expect("it works here");
    assert_eq!(tier.kind(), IoTier::Epoll);
    assert!(fallback.is_none());
}

fn connected_socket_hears_its_peer_alone_until_it_is_disconnected(kind: IoTier) {
    let mut bench = Bench::new(kind, 2);
    let socket = bench.open();
    let [known, stranger] = [peer(), peer()];
    let known_address = known.local_addr().expect("bound");
    assert!(bench.tier.connect(socket.id, known_address));
    assert!(bench.tier.connect(socket.id, known_address), "it is");
    let other = stranger.local_addr().expect("bound");
    assert!(!bench.tier.connect(socket.id, other), "to somebody else");
    assert_eq!(bench.tier.counters().sockets_connected, 1);
    // Loopback delivers in order, so the stranger's would come first.
    let send = |from: &UdpSocket| {
        from.send_to(b"x", socket.address)
            .expect("loopback takes it")
    };
    send(&stranger);
    send(&known);
    let (meta, buffer) = bench.receive();
    assert_eq!(meta.source, known_address);
    bench.tier.release(buffer);

    bench.tier.disconnect(socket.id);
    assert_eq!(bench.tier.counters().sockets_connected, 0);
    send(&stranger);
    let (meta, buffer) = bench.receive();
    assert_eq!(meta.source, other, "and the port is still bound");
    bench.tier.release(buffer);

    assert!(bench.tier.connect(socket.id, other));
    assert!(bench.tier.close(socket.id, CloseTicket(1)));
    assert!(matches!(bench.next(), Completion::Closed(_)));
    assert_eq!(bench.tier.counters().sockets_connected, 0);
}

fn send_that_a_stored_icmp_error_refuses_is_sent_again(kind: IoTier) {
    let mut bench = Bench::new(kind, 4);
    let [heard, connected] = [bench.open(), bench.open()];
    let gone = peer();
    let gone_address = gone.local_addr().expect("bound");
    assert!(bench.tier.connect(connected.id, gone_address));
    drop(gone);
    let sender = peer();
    let mut buffers = Vec::new();
    for _ in 0..2 {
        sender
            .send_to(b"hello", heard.address)
            .expect("loopback takes it");
        buffers.push(bench.receive().1);
    }
    // The first finds the port closed, which the kernel tells the second.
    for buffer in buffers {
        let transmit = bench.transmit(gone_address, 5);
        let session = bench.owner.session;
        bench
            .tier
            .send(buffer, connected.id, session, transmit)
            .expect("room");
    }
    for _ in 0..2 {
        let Completion::Sent { result, .. } = bench.next() else {
            panic!("expected a send");
        };
        assert_eq!(result, Ok(()));
    }
    assert_eq!(bench.tier.counters().sends_retried, 1);
    assert!(bench.tier.has_every_buffer());
}

fn connected_socket_still_reaches_others(kind: IoTier) {
    let mut bench = Bench::new(kind, 2);
    let socket = bench.open();
    let [known, other] = [peer(), peer()];
    let known_address = known.local_addr().expect("bound");
    assert!(bench.tier.connect(socket.id, known_address));
    let session = bench.owner.session;
    for to in [&known, &other] {
        known
            .send_to(b"hello", socket.address)
            .expect("loopback takes it");
        let (_, buffer) = bench.receive();
        let transmit = bench.transmit(to.local_addr().expect("bound"), 5);
        bench
            .tier
            .send(buffer, socket.id, session, transmit)
            .expect("room");
        let mut got = [0; 16];
        assert!(matches!(
            bench.next(),
            Completion::Sent { result: Ok(()), .. }
        ));
        assert_eq!(to.recv(&mut got).expect("it was sent"), 5);
    }
}
