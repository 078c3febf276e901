//! What is io_uring's alone: its buffers.

use std::time::Instant;

use trunkline_edge_api::IoTier;

use super::*;
use crate::tier::Tier;
use crate::tier::tests::{Bench, PATIENCE, peer};

impl UringTier {
    pub(crate) fn has_every_buffer(&self) -> bool {
        self.buffers.available() == buffers::COUNT
    }
}

/// The ring's buffers that the kernel can pick.
fn available(bench: &Bench) -> u16 {
    match &bench.tier {
        Tier::Uring(tier) => tier.buffers.available(),
        Tier::Epoll(_) => panic!("asked for io_uring"),
    }
}

#[test]
fn receives_go_on_after_the_buffers_ran_out() {
    let mut bench = Bench::new(IoTier::IoUring, 2);
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
    assert_eq!(available(&bench), 0);
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
