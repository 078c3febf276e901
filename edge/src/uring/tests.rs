//! The tier against the real kernel, on loopback.

use std::net::UdpSocket;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::event::{EventfdFlags, eventfd};
use trunkline_edge_api::{Epoch, LegIndex, MonoTime, SessionId};
use trunkline_media::{MediaKind, SocketKind};

use super::*;
use crate::session_table::{Session, SessionTable};

const PATIENCE: Duration = Duration::from_secs(10);

struct Bench {
    tier: UringTier,
    doorbell: OwnedFd,
    owner: SocketOwner,
}

/// A socket of the tier and its address.
struct Bound {
    id: SocketId,
    address: SocketAddr,
}

impl Bench {
    fn new(sockets_max: u32) -> Self {
        let doorbell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an fd");
        let tier = UringTier::new(sockets_max, doorbell.as_fd()).expect("io_uring works here");
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

    fn open(&mut self) -> Bound {
        let probe = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let address = probe.local_addr().expect("bound");
        drop(probe);
        let id = self
            .tier
            .open(address, self.owner)
            .expect("the port was free");
        Bound { id, address }
    }

    /// Waits for the next completion.
    fn next(&mut self) -> Completion {
        self.next_within(PATIENCE).expect("something completes")
    }

    /// What comes within `patience`, if anything.
    fn next_within(&mut self, patience: Duration) -> Option<Completion> {
        let until = Instant::now() + patience;
        loop {
            if let Some(completion) = self.tier.poll_completion() {
                return Some(completion);
            }
            if self.tier.reap() > 0 {
                continue;
            }
            if Instant::now() >= until {
                return None;
            }
            self.tier
                .submit_and_wait(Duration::from_millis(20))
                .expect("the ring works");
        }
    }

    fn receive(&mut self) -> (RxMeta, RxBuffer) {
        match self.next() {
            Completion::Received { meta, buffer, .. } => (meta, buffer),
            other => panic!("expected a datagram, got {other:?}"),
        }
    }

    fn transmit(&self, dest: SocketAddr, len: usize) -> Transmit {
        Transmit {
            leg: LegIndex::B,
            socket: SocketKind::Rtp,
            kind: MediaKind::Rtp,
            dest,
            len,
        }
    }
}

fn peer() -> UdpSocket {
    let peer = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    peer.set_read_timeout(Some(PATIENCE)).expect("a socket");
    peer
}

#[test]
fn datagram_is_sent_on_from_the_buffer_it_arrived_in() {
    let mut bench = Bench::new(4);
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

#[test]
fn send_that_the_kernel_refuses_is_told_and_gives_its_buffer_back() {
    let mut bench = Bench::new(4);
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
    assert_eq!(bench.tier.buffers.available(), buffers::COUNT);
}

#[test]
fn oversize_datagram_is_marked() {
    let mut bench = Bench::new(4);
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

#[test]
fn receives_go_on_after_the_buffers_ran_out() {
    let mut bench = Bench::new(2);
    let socket = bench.open();
    let sender = peer();
    let mut held = Vec::new();
    // The socket's own buffer is far smaller than the ring, so datagrams go in by portions.
    while bench.tier.counters().rx_buffers_exhausted == 0 {
        for _ in 0..32 {
            sender
                .send_to(b"flood", socket.address)
                .expect("loopback takes it");
        }
        while let Some(completion) = bench.next_within(Duration::from_millis(5)) {
            if let Completion::Received { buffer, .. } = completion {
                held.push(buffer);
            }
        }
        assert!(held.len() <= usize::from(buffers::COUNT));
    }
    assert_eq!(held.len(), usize::from(buffers::COUNT));
    assert_eq!(bench.tier.buffers.available(), 0);
    let before = bench.tier.counters().rx_rearmed;
    for _ in 0..10 {
        assert!(bench.next_within(Duration::from_millis(5)).is_none());
    }
    assert_eq!(
        bench.tier.counters().rx_rearmed,
        before,
        "it does not spin meanwhile"
    );
    for buffer in held.drain(..) {
        bench.tier.release(buffer);
    }
    // What waited in the socket comes first.
    sender
        .send_to(b"after", socket.address)
        .expect("loopback takes it");
    let until = Instant::now() + PATIENCE;
    loop {
        let (_, mut buffer) = bench.receive();
        let is_last = *bench.tier.packet_mut(&mut buffer) == *b"after";
        bench.tier.release(buffer);
        if is_last {
            break;
        }
        assert!(Instant::now() < until);
        sender
            .send_to(b"after", socket.address)
            .expect("loopback takes it");
    }
}

#[test]
fn closed_socket_says_so_once_and_frees_its_port() {
    let mut bench = Bench::new(2);
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

#[test]
fn socket_that_was_never_armed_closes_too() {
    let mut bench = Bench::new(2);
    let socket = bench.open();
    assert!(bench.tier.close(socket.id, CloseTicket(1)));
    assert!(matches!(bench.next(), Completion::Closed(CloseTicket(1))));
}

#[test]
fn send_from_a_closing_socket_is_refused_and_gives_its_buffer_back() {
    let mut bench = Bench::new(2);
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
    assert_eq!(bench.tier.buffers.available(), buffers::COUNT);
}

#[test]
fn many_sockets_close_under_traffic_and_every_one_is_told() {
    const SOCKETS: u32 = 300;
    let mut bench = Bench::new(SOCKETS);
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
        bench.tier.submit().expect("the ring works");
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
        assert_eq!(bench.tier.buffers.available(), buffers::COUNT);
    }
}

#[test]
fn doorbell_rings_every_time() {
    let mut bench = Bench::new(1);
    for _ in 0..3 {
        rustix::io::write(&bench.doorbell, &1u64.to_ne_bytes()).expect("an eventfd");
        assert!(matches!(bench.next(), Completion::DoorbellRang));
        let mut count = [0; 8];
        rustix::io::read(&bench.doorbell, &mut count).expect("it rang");
    }
}
