//! What is epoll's alone: its buffers, and what the kernel named before it changed.

use trunkline_edge_api::IoTier;

use super::*;
use crate::tier::tests::{Bench, peer};

impl EpollTier {
    pub(crate) fn has_every_buffer(&self) -> bool {
        self.free_buffers.len() == usize::from(BUFFER_COUNT)
    }
}

#[test]
fn datagrams_wait_in_their_socket_while_no_buffer_is_free() {
    let mut bench = Bench::new(IoTier::Epoll, 1);
    let socket = bench.open();
    let sender = peer();
    let mut held = Vec::new();
    for n in 0..=BUFFER_COUNT {
        sender
            .send_to(&n.to_be_bytes(), socket.address)
            .expect("loopback takes it");
        if n < BUFFER_COUNT {
            held.push(bench.receive().1);
        }
    }
    assert!(bench.next_within(Duration::from_millis(20)).is_none());
    assert!(bench.tier.counters().rx_buffers_exhausted > 0);
    let last = held.pop().expect("many");
    bench.tier.release(last);
    let (_, mut buffer) = bench.receive();
    assert_eq!(
        *bench.tier.packet_mut(&mut buffer),
        BUFFER_COUNT.to_be_bytes()
    );
    bench.tier.release(buffer);
    for buffer in held {
        bench.tier.release(buffer);
    }
}
