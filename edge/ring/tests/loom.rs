//! The ring and the sleep protocol under every interleaving that the memory model allows.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom \
//!     cargo test -p trunkline-ring --test loom --release
//! ```
//!
//! The other target directory keeps the flags from rebuilding the usual one. Without `--cfg loom`
//! this file is empty.
//!
//! loom runs each thread's operations in program order, so it shows what an acquire or release
//! store and a fence are for, but not a load that slips behind a later store: that the consumer
//! copies a record before it gives its room back rests on the release store of the tail alone.
#![cfg(loom)]

use std::sync::Arc as StdArc;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use trunkline_edge_api::wire::MESSAGE_LEN_MAX;
use trunkline_ring::queue::{Consumer, Producer, Ring};
use trunkline_ring::sleep;

/// Words of a ring that holds two records of two words.
const DATA_WORDS: usize = 4;

struct Words {
    head: AtomicU64,
    tail: AtomicU64,
    full_count: AtomicU64,
    sleeping: AtomicU64,
    data: [AtomicU64; DATA_WORDS],
}

impl Words {
    /// Indices one record before the end of the data, so that records wrap.
    fn new() -> Self {
        Self {
            head: AtomicU64::new(3),
            tail: AtomicU64::new(3),
            full_count: AtomicU64::new(0),
            sleeping: AtomicU64::new(0),
            data: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Both ends, to be attached before threads start: loom forgets that one thread loaded a word
    /// when the thread that stores it loads it, too, and would then miss interleavings.
    fn ends(&self) -> (Producer, Consumer) {
        let ring = self.ring();
        (
            Producer::attach(&ring).expect("sound"),
            Consumer::attach(&ring).expect("sound"),
        )
    }

    fn ring(&self) -> Ring<'_> {
        Ring {
            head: &self.head,
            tail: &self.tail,
            full_count: &self.full_count,
            data: &self.data,
        }
    }
}

fn message(number: u8) -> [u8; 8] {
    [number; 8]
}

/// Takes what there is; every record must be whole and the next in order.
fn drain(consumer: &mut Consumer, ring: &Ring<'_>, next: &mut u8) {
    let mut buf = [0; MESSAGE_LEN_MAX];
    while let Some(len) = consumer.pop(ring, &mut buf).expect("the producer is sound") {
        assert_eq!(buf[..len], message(*next));
        *next += 1;
    }
}

#[test]
fn records_arrive_whole_in_order_and_once() {
    loom::model(|| {
        let words = Arc::new(Words::new());
        let (mut producer, mut consumer) = words.ends();
        let producing = {
            let words = Arc::clone(&words);
            thread::spawn(move || {
                let ring = words.ring();
                // Three into room for two: the third overwrites the first or is refused.
                (0..3)
                    .take_while(|&i| producer.push(&ring, &message(i), 0).is_ok())
                    .count()
            })
        };
        let ring = words.ring();
        let mut next = 0;
        drain(&mut consumer, &ring, &mut next);
        let sent = producing.join().expect("no panic");
        drain(&mut consumer, &ring, &mut next);
        assert_eq!(usize::from(next), sent);
    });
}

#[test]
fn consumer_that_takes_over_finds_what_the_first_left() {
    loom::model(|| {
        let words = Arc::new(Words::new());
        let (mut producer, mut consumer) = words.ends();
        let producing = {
            let words = Arc::clone(&words);
            thread::spawn(move || {
                let ring = words.ring();
                (0..2)
                    .take_while(|&i| producer.push(&ring, &message(i), 0).is_ok())
                    .count()
            })
        };
        let ring = words.ring();
        let mut next = 0;
        drain(&mut consumer, &ring, &mut next);
        drain(
            &mut Consumer::attach(&ring).expect("sound"),
            &ring,
            &mut next,
        );
        let sent = producing.join().expect("no panic");
        drain(
            &mut Consumer::attach(&ring).expect("sound"),
            &ring,
            &mut next,
        );
        assert_eq!(usize::from(next), sent);
    });
}

#[test]
fn no_message_is_left_to_a_receiver_that_sleeps_unrung() {
    let slept_at_least_once = StdArc::new(std::sync::atomic::AtomicBool::new(false));
    let slept_in_model = StdArc::clone(&slept_at_least_once);
    loom::model(move || {
        let words = Arc::new(Words::new());
        let (mut producer, mut consumer) = words.ends();
        let sending = {
            let words = Arc::clone(&words);
            thread::spawn(move || {
                let ring = words.ring();
                let mut has_rung = false;
                for i in 0..2 {
                    producer.push(&ring, &message(i), 0).expect("room");
                    has_rung |= sleep::peer_sleeps(&words.sleeping);
                }
                has_rung
            })
        };
        let ring = words.ring();
        let mut next = 0;
        drain(&mut consumer, &ring, &mut next);
        sleep::announce(&words.sleeping);
        let sleeps = !consumer.has_records(&ring);
        if !sleeps {
            sleep::retract(&words.sleeping);
        }
        let has_rung = sending.join().expect("no panic");
        if sleeps {
            slept_in_model.store(true, std::sync::atomic::Ordering::Relaxed);
            let waits_for_nothing = next == 2;
            assert!(
                has_rung || waits_for_nothing,
                "asleep before {} unread",
                2 - next
            );
        }
    });
    assert!(slept_at_least_once.load(std::sync::atomic::Ordering::Relaxed));
}

/// The worker leaves commands alone while the event ring has no room for answers. It may then
/// sleep; control rings when it has made room and sees commands waiting.
#[test]
fn worker_asleep_for_want_of_room_is_rung_when_there_is_some() {
    loom::model(|| {
        let words = Arc::new(Words::new());
        let ring = words.ring();
        let (mut worker, mut consumer) = words.ends();
        worker.push(&ring, &message(0), 0).expect("room");
        worker.push(&ring, &message(1), 0).expect("room");
        let control = {
            let words = Arc::clone(&words);
            thread::spawn(move || {
                let ring = words.ring();
                drain(&mut consumer, &ring, &mut 0);
                sleep::peer_sleeps(&words.sleeping)
            })
        };
        sleep::announce(&words.sleeping);
        let sleeps = !worker.has_room(&ring, 2).expect("sound");
        let has_rung = control.join().expect("no panic");
        assert!(!sleeps || has_rung);
    });
}

/// Full is counted by the producer alone; the count is right when both are done.
#[test]
fn refused_messages_are_counted() {
    loom::model(|| {
        let words = Arc::new(Words::new());
        let (mut producer, mut consumer) = words.ends();
        let producing = {
            let words = Arc::clone(&words);
            thread::spawn(move || {
                let ring = words.ring();
                (0..3)
                    .filter(|&i| producer.push(&ring, &message(i), 0).is_err())
                    .count()
            })
        };
        let ring = words.ring();
        let mut buf = [0; MESSAGE_LEN_MAX];
        let _ = consumer.pop(&ring, &mut buf).expect("sound");
        let refused = producing.join().expect("no panic");
        assert_eq!(words.full_count.load(Ordering::Relaxed), refused as u64);
    });
}
