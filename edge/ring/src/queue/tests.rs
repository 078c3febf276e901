use super::*;

struct Words {
    head: AtomicU64,
    tail: AtomicU64,
    full_count: AtomicU64,
    data: Vec<AtomicU64>,
}

impl Words {
    fn new(count: usize) -> Self {
        Self::beginning_at(count, 0)
    }

    fn beginning_at(count: usize, index: u64) -> Self {
        Self {
            head: AtomicU64::new(index),
            tail: AtomicU64::new(index),
            full_count: AtomicU64::new(0),
            data: (0..count).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn ring(&self) -> Ring<'_> {
        Ring {
            head: &self.head,
            tail: &self.tail,
            full_count: &self.full_count,
            data: &self.data,
        }
    }

    fn ends(&self) -> (Producer, Consumer) {
        let ring = self.ring();
        (
            Producer::attach(&ring).expect("sound"),
            Consumer::attach(&ring).expect("sound"),
        )
    }
}

fn pop(consumer: &mut Consumer, ring: &Ring<'_>) -> Result<Option<Vec<u8>>, RingFault> {
    let mut buf = [0; MESSAGE_LEN_MAX];
    Ok(consumer.pop(ring, &mut buf)?.map(|len| buf[..len].to_vec()))
}

#[test]
fn records_of_every_length_come_out_whole_and_in_order_around_the_wrap() {
    // Near the end of the index range, so that the indices themselves wrap, too.
    let words = Words::beginning_at(512, u64::MAX - 1_000);
    let ring = words.ring();
    let (mut producer, mut consumer) = words.ends();
    for len in 1..=MESSAGE_LEN_MAX {
        let message: Vec<u8> = (0..len).map(|i| (i + len) as u8).collect();
        producer.push(&ring, &message, 0).expect("room");
        assert_eq!(pop(&mut consumer, &ring), Ok(Some(message)));
        assert_eq!(pop(&mut consumer, &ring), Ok(None));
    }
}

#[test]
fn full_ring_refuses_counts_and_keeps_what_it_holds() {
    let words = Words::new(8);
    let ring = words.ring();
    let (mut producer, mut consumer) = words.ends();
    for i in 0..4 {
        producer
            .push(&ring, &[i], 0)
            .expect("room for four records of two words");
    }
    assert_eq!(producer.push(&ring, &[9], 0), Err(SendError::Full));
    assert_eq!(producer.push(&ring, &[9], 0), Err(SendError::Full));
    assert_eq!(words.full_count.load(Ordering::Relaxed), 2);
    for i in 0..4 {
        assert_eq!(pop(&mut consumer, &ring), Ok(Some(vec![i])));
    }
    producer.push(&ring, &[9], 0).expect("room again");
    assert_eq!(pop(&mut consumer, &ring), Ok(Some(vec![9])));
}

#[test]
fn reserve_is_left_to_those_who_may_use_it() {
    let words = Words::new(8);
    let ring = words.ring();
    let (mut producer, _) = words.ends();
    producer.push(&ring, &[1], 4).expect("six words are free");
    producer.push(&ring, &[2], 4).expect("four would remain");
    assert_eq!(producer.push(&ring, &[3], 4), Err(SendError::Full));
    producer.push(&ring, &[4], 0).expect("from the reserve");
    producer.push(&ring, &[5], 0).expect("from the reserve");
    assert_eq!(producer.push(&ring, &[6], 0), Err(SendError::Full));
}

#[test]
fn empty_and_overlong_messages_do_not_fit() {
    let words = Words::new(1024);
    let ring = words.ring();
    let (mut producer, _) = words.ends();
    assert_eq!(producer.push(&ring, &[], 0), Err(SendError::Full));
    assert_eq!(
        producer.push(&ring, &[0; MESSAGE_LEN_MAX + 1], 0),
        Err(SendError::Full)
    );
    producer
        .push(&ring, &[0; MESSAGE_LEN_MAX], 0)
        .expect("the longest fits");
}

#[test]
fn record_without_its_head_store_is_not_there() {
    let words = Words::new(8);
    let ring = words.ring();
    let (_, mut consumer) = words.ends();
    // A producer killed before it moved the head.
    words.data[0].store(length_word(8), Ordering::Relaxed);
    words.data[1].store(7, Ordering::Relaxed);
    assert_eq!(pop(&mut consumer, &ring), Ok(None));
    // The next one writes over it.
    let (mut producer, _) = words.ends();
    producer.push(&ring, b"next", 0).expect("room");
    assert_eq!(pop(&mut consumer, &ring), Ok(Some(b"next".to_vec())));
}

#[test]
fn head_beyond_the_ring_is_a_fault_on_every_call() {
    for head in [9, 1 << 40, u64::MAX] {
        let words = Words::new(8);
        let ring = words.ring();
        let (_, mut consumer) = words.ends();
        words.head.store(head, Ordering::Relaxed);
        let fault = RingFault::Indices {
            head,
            tail: 0,
            capacity: 8,
        };
        assert_eq!(pop(&mut consumer, &ring), Err(fault));
        assert_eq!(pop(&mut consumer, &ring), Err(fault));
        assert!(consumer.has_records(&ring));
        assert_eq!(Consumer::attach(&ring).err(), Some(fault));
    }
}

#[test]
fn tail_beyond_the_head_is_a_fault() {
    let words = Words::new(8);
    let ring = words.ring();
    let (mut producer, _) = words.ends();
    for i in 0..4 {
        producer.push(&ring, &[i], 0).expect("room");
    }
    words.tail.store(9, Ordering::Relaxed);
    let fault = RingFault::Indices {
        head: 8,
        tail: 9,
        capacity: 8,
    };
    assert_eq!(
        producer.push(&ring, &[4], 0),
        Err(SendError::Poisoned(fault))
    );
    assert_eq!(Producer::attach(&ring).err(), Some(fault));
}

#[test]
fn impossible_length_words_are_faults() {
    let long = record_words(MESSAGE_LEN_MAX + 1) as u64;
    let rows = [
        (0, 2),
        (7, 2),
        (u64::MAX, 2),
        (length_word(0), 2),
        (length_word(9), 2),
        (length_word(8) ^ 1 << 40, 2),
        (length_word(MESSAGE_LEN_MAX + 1), long),
    ];
    for (word, head) in rows {
        let words = Words::new(512);
        let ring = words.ring();
        let (_, mut consumer) = words.ends();
        words.data[0].store(word, Ordering::Relaxed);
        words.head.store(head, Ordering::Release);
        assert_eq!(pop(&mut consumer, &ring), Err(RingFault::Length { word }));
        assert_eq!(words.tail.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn fresh_ends_start_where_the_dead_ones_stopped() {
    let words = Words::new(16);
    let ring = words.ring();
    let (mut producer, mut consumer) = words.ends();
    producer.push(&ring, b"read", 0).expect("room");
    producer.push(&ring, b"unread", 0).expect("room");
    assert_eq!(pop(&mut consumer, &ring), Ok(Some(b"read".to_vec())));

    let (mut producer, mut consumer) = words.ends();
    producer.push(&ring, b"new", 0).expect("room");
    assert_eq!(pop(&mut consumer, &ring), Ok(Some(b"unread".to_vec())));
    assert_eq!(pop(&mut consumer, &ring), Ok(Some(b"new".to_vec())));
}

#[test]
fn ends_attached_to_a_senseless_ring_start_empty() {
    let words = Words::new(8);
    let ring = words.ring();
    words.head.store(100, Ordering::Relaxed);
    words.tail.store(7, Ordering::Relaxed);
    let mut consumer = Consumer::attach_empty(&ring);
    let mut producer = Producer::attach(&ring).expect("sound now");
    producer.push(&ring, b"new", 0).expect("room");
    assert_eq!(pop(&mut consumer, &ring), Ok(Some(b"new".to_vec())));
}

#[test]
fn two_threads_exchange_a_million_words_unharmed() {
    let words = Words::new(64);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let ring = words.ring();
            let mut producer = Producer::attach(&ring).expect("sound");
            for i in 0..100_000u32 {
                let message = vec![i as u8; 1 + i as usize % 80];
                while producer.push(&ring, &message, 0).is_err() {
                    std::thread::yield_now();
                }
            }
        });
        let ring = words.ring();
        let mut consumer = Consumer::attach(&ring).expect("sound");
        for i in 0..100_000u32 {
            let message = loop {
                match pop(&mut consumer, &ring).expect("sound") {
                    Some(message) => break message,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(message, vec![i as u8; 1 + i as usize % 80]);
        }
    });
}
