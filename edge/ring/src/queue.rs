//! A single-producer single-consumer ring of byte records in shared words.
//!
//! A record is a length word (the length in its low half, the complement of that in its high
//! half) and the message, padded to whole words. Records lie one behind the other and wrap around
//! at any word. `head` counts the words ever written and is stored by the producer, `tail` those
//! ever read and is stored by the consumer; both run freely and are masked only to find a word.
//!
//! Order: the producer writes a record's words, then stores `head` with release; the consumer
//! loads `head` with acquire, copies the words out, then stores `tail` with release, which the
//! producer loads with acquire before it writes there again. The words themselves are relaxed.
//! The loom test walks through all interleavings of this.
//!
//! Each side keeps its own index and a copy of the other's, and looks at the other's only when
//! the copy says that there is nothing to do. Its own index is never read back from the region,
//! except once, by [`Producer::attach`] and [`Consumer::attach`].

use trunkline_edge_api::wire::{MESSAGE_LEN_MAX, MessageBuf};

use crate::SendError;
use crate::sync::{AtomicU64, Ordering};

const WORD_LEN: usize = trunkline_edge_api::layout::WORD_LEN;

/// The shared words of one ring.
#[derive(Debug, Clone, Copy)]
pub struct Ring<'a> {
    /// Words ever written.
    pub head: &'a AtomicU64,
    /// Words ever read.
    pub tail: &'a AtomicU64,
    /// Messages that found no room; written by the producer.
    pub full_count: &'a AtomicU64,
    /// The records. Their number is a power of two.
    pub data: &'a [AtomicU64],
}

impl Ring<'_> {
    fn capacity(&self) -> u64 {
        self.data.len() as u64
    }

    fn word(&self, index: u64) -> &AtomicU64 {
        debug_assert!(self.data.len().is_power_of_two());
        &self.data[index as usize & (self.data.len() - 1)]
    }

    /// Words between the indices.
    fn used(&self, head: u64, tail: u64) -> Result<u64, RingFault> {
        let used = head.wrapping_sub(tail);
        if used <= self.capacity() {
            Ok(used)
        } else {
            Err(RingFault::Indices {
                head,
                tail,
                capacity: self.capacity(),
            })
        }
    }
}

/// The peer left something in the region that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RingFault {
    /// More words between head and tail than the ring has.
    #[error("head {head} and tail {tail} are further apart than the ring's {capacity} words")]
    Indices {
        /// Words ever written.
        head: u64,
        /// Words ever read.
        tail: u64,
        /// Words in the ring.
        capacity: u64,
    },
    /// The worker says that it cannot make sense of what control wrote.
    #[error("the worker cannot make sense of what this or an earlier control wrote")]
    RefusedByWorker,
    /// A record's length word is none, or the record ends after the head.
    #[error("a record begins with {word:#018x}, which is no length of a record here")]
    Length {
        /// What stands where a length word should.
        word: u64,
    },
}

/// Words that a message of `len` bytes takes.
#[must_use]
pub const fn record_words(len: usize) -> usize {
    trunkline_edge_api::layout::record_len(len) / WORD_LEN
}

/// The writing side's own state.
#[derive(Debug)]
pub struct Producer {
    head: u64,
    /// The consumer's index when last looked at.
    tail: u64,
}

impl Producer {
    /// Continues where the last producer stopped.
    ///
    /// # Errors
    /// [`RingFault::Indices`].
    pub fn attach(ring: &Ring<'_>) -> Result<Self, RingFault> {
        let tail = ring.tail.load(Ordering::Acquire);
        let head = ring.head.load(Ordering::Relaxed);
        ring.used(head, tail)?;
        Ok(Self { head, tail })
    }

    /// Starts anew behind whatever the consumer has read; what it has not read is gone.
    pub fn attach_empty(ring: &Ring<'_>) -> Self {
        let tail = ring.tail.load(Ordering::Acquire);
        ring.head.store(tail, Ordering::Release);
        Self { head: tail, tail }
    }

    /// Appends one record, unless fewer than `reserve_words` free words would remain.
    ///
    /// # Errors
    /// [`SendError::Full`], which is counted; a message that is empty or longer than
    /// [`MESSAGE_LEN_MAX`] never fits. [`SendError::Poisoned`] when the consumer's index is
    /// impossible.
    pub fn push(
        &mut self,
        ring: &Ring<'_>,
        message: &[u8],
        reserve_words: usize,
    ) -> Result<(), SendError> {
        let words = record_words(message.len());
        if message.is_empty()
            || message.len() > MESSAGE_LEN_MAX
            || !self
                .has_room(ring, words + reserve_words)
                .map_err(SendError::Poisoned)?
        {
            let count = ring.full_count.load(Ordering::Relaxed);
            ring.full_count
                .store(count.wrapping_add(1), Ordering::Relaxed);
            return Err(SendError::Full);
        }
        ring.word(self.head)
            .store(length_word(message.len()), Ordering::Relaxed);
        let mut index = self.head;
        let (whole, rest) = message.as_chunks::<WORD_LEN>();
        for chunk in whole {
            index = index.wrapping_add(1);
            ring.word(index)
                .store(u64::from_le_bytes(*chunk), Ordering::Relaxed);
        }
        if !rest.is_empty() {
            let mut chunk = [0; WORD_LEN];
            chunk[..rest.len()].copy_from_slice(rest);
            index = index.wrapping_add(1);
            ring.word(index)
                .store(u64::from_le_bytes(chunk), Ordering::Relaxed);
        }
        self.head = self.head.wrapping_add(words as u64);
        ring.head.store(self.head, Ordering::Release);
        Ok(())
    }

    /// Takes nothing that the consumer said for granted any more.
    pub fn forget_peer(&mut self, ring: &Ring<'_>) {
        self.tail = self.head.wrapping_sub(ring.capacity());
    }

    /// Writes our index into the region again.
    pub fn restate(&self, ring: &Ring<'_>) {
        ring.head.store(self.head, Ordering::Release);
    }

    /// Whether `words` are free.
    ///
    /// # Errors
    /// [`RingFault::Indices`].
    pub fn has_room(&mut self, ring: &Ring<'_>, words: usize) -> Result<bool, RingFault> {
        let words = words as u64;
        if ring.capacity() - ring.used(self.head, self.tail)? >= words {
            return Ok(true);
        }
        let tail = ring.tail.load(Ordering::Acquire);
        let used = ring.used(self.head, tail)?;
        self.tail = tail;
        Ok(ring.capacity() - used >= words)
    }
}

/// The reading side's own state.
#[derive(Debug)]
pub struct Consumer {
    tail: u64,
    /// The producer's index when last looked at.
    head: u64,
}

impl Consumer {
    /// Continues where the last consumer stopped.
    ///
    /// # Errors
    /// [`RingFault::Indices`].
    pub fn attach(ring: &Ring<'_>) -> Result<Self, RingFault> {
        let tail = ring.tail.load(Ordering::Relaxed);
        let head = ring.head.load(Ordering::Acquire);
        ring.used(head, tail)?;
        Ok(Self { tail, head })
    }

    /// Starts anew behind whatever the producer has written; none of it is read.
    pub fn attach_empty(ring: &Ring<'_>) -> Self {
        let head = ring.head.load(Ordering::Acquire);
        ring.tail.store(head, Ordering::Release);
        Self { tail: head, head }
    }

    /// Copies the oldest record to the front of `buf` and takes it off the ring. Returns its
    /// length, `None` when there is none.
    ///
    /// # Errors
    /// [`RingFault`] when the producer's index or the record's length is impossible; nothing is
    /// taken off then, and the next call says the same.
    pub fn pop(
        &mut self,
        ring: &Ring<'_>,
        buf: &mut MessageBuf,
    ) -> Result<Option<usize>, RingFault> {
        if self.head == self.tail {
            self.head = ring.head.load(Ordering::Acquire);
        }
        let used = ring.used(self.head, self.tail)?;
        if used == 0 {
            return Ok(None);
        }
        let word = ring.word(self.tail).load(Ordering::Relaxed);
        let len = message_len(word)
            .filter(|&len| record_words(len) as u64 <= used)
            .ok_or(RingFault::Length { word })?;
        for (chunk, index) in buf[..len].chunks_mut(WORD_LEN).zip(1..) {
            let word = ring
                .word(self.tail.wrapping_add(index))
                .load(Ordering::Relaxed);
            chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
        }
        self.tail = self.tail.wrapping_add(record_words(len) as u64);
        ring.tail.store(self.tail, Ordering::Release);
        Ok(Some(len))
    }

    /// Takes nothing that the producer said for granted any more.
    pub fn forget_peer(&mut self) {
        self.head = self.tail;
    }

    /// Writes our index into the region again.
    pub fn restate(&self, ring: &Ring<'_>) {
        ring.tail.store(self.tail, Ordering::Release);
    }

    /// Whether the producer has written what was not read; looks at its index anew. An impossible
    /// index counts as written: [`Self::pop`] will tell.
    #[must_use]
    pub fn has_records(&self, ring: &Ring<'_>) -> bool {
        ring.head.load(Ordering::Acquire) != self.tail
    }
}

/// The length in the low half, its complement in the high half: neither zeroed nor stray words
/// look like one.
const fn length_word(len: usize) -> u64 {
    len as u64 | (!(len as u32) as u64) << 32
}

fn message_len(word: u64) -> Option<usize> {
    let len = word as u32 as usize;
    ((1..=MESSAGE_LEN_MAX).contains(&len) && word == length_word(len)).then_some(len)
}

#[cfg(all(test, not(loom)))]
mod tests;
