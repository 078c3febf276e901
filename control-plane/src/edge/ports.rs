//! Free media ports of one worker.

use std::collections::VecDeque;

use trunkline_edge_api::{MonoTime, PortRange};

/// How long a port that somebody else holds is left alone, seconds. Long enough not to be tried
/// on every call, short enough that a port freed by another program comes back within a minute.
const SET_ASIDE_SECS: u64 = 60;

/// Even RTP ports of one worker's slice, each standing for itself and the RTCP port above it
/// (RFC 3550 §11).
///
/// A freed port goes to the back of the queue, so that packets a peer still sends to a finished
/// call do not reach the next one.
#[derive(Debug)]
pub struct PortPool {
    free: VecDeque<u16>,
    set_aside: VecDeque<(MonoTime, u16)>,
    capacity: u32,
    set_aside_total: u64,
}

impl PortPool {
    /// All pairs of `range`, free.
    #[must_use]
    pub fn new(range: PortRange) -> Self {
        Self {
            free: range.pairs().collect(),
            set_aside: VecDeque::new(),
            capacity: range.pair_count(),
            set_aside_total: 0,
        }
    }

    /// The pair that has been free the longest; `None` when all are taken.
    pub fn take(&mut self, now: MonoTime) -> Option<u16> {
        while let Some(&(until, port)) = self.set_aside.front() {
            if until > now {
                break;
            }
            self.set_aside.pop_front();
            self.free.push_back(port);
        }
        self.free.pop_front()
    }

    /// Gives a taken pair back.
    pub fn give_back(&mut self, port: u16) {
        debug_assert!(
            !self.free.contains(&port),
            "port {port} was given back twice"
        );
        self.free.push_back(port);
    }

    /// Puts a taken pair aside because another program holds one of its ports.
    pub fn set_aside(&mut self, now: MonoTime, port: u16) {
        self.set_aside_total += 1;
        self.set_aside
            .push_back((now.plus_secs(SET_ASIDE_SECS), port));
    }

    /// Takes out of a fresh pool the pairs that running sessions hold.
    pub fn retain(&mut self, mut is_free: impl FnMut(u16) -> bool) {
        self.free.retain(|&port| is_free(port));
    }

    /// Pairs in the slice.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Pairs that a call could take now.
    #[must_use]
    pub fn free_count(&self) -> u32 {
        self.free.len() as u32
    }

    /// Times a pair was set aside since start.
    #[must_use]
    pub fn set_aside_total(&self) -> u64 {
        self.set_aside_total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> PortPool {
        PortPool::new(PortRange::new(30_000, 30_005).expect("valid"))
    }

    #[test]
    fn freed_port_is_the_last_to_be_used_again() {
        let mut pool = pool();
        let now = MonoTime(0);
        let first = pool.take(now).expect("free");
        pool.give_back(first);
        assert_eq!(pool.take(now), Some(30_002));
        assert_eq!(pool.take(now), Some(30_004));
        assert_eq!(pool.take(now), Some(first));
        assert_eq!(pool.take(now), None);
    }

    #[test]
    fn port_held_by_another_program_comes_back_after_a_minute() {
        let mut pool = pool();
        let now = MonoTime(0);
        let busy = pool.take(now).expect("free");
        pool.set_aside(now, busy);
        assert_eq!(pool.free_count(), 2);
        assert_eq!(pool.take(now), Some(30_002));
        assert_eq!(pool.take(now), Some(30_004));
        assert_eq!(pool.take(now.plus_secs(SET_ASIDE_SECS - 1)), None);
        assert_eq!(pool.take(now.plus_secs(SET_ASIDE_SECS)), Some(busy));
        assert_eq!(pool.set_aside_total(), 1);
    }
}
