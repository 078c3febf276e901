//! Free media ports of one worker.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use trunkline_edge_api::{MonoTime, PortRange};

/// How long a port that somebody else holds is left alone, seconds. Long enough not to be tried
/// on every call, short enough that a port freed by another program comes back within a minute.
const SET_ASIDE_SECS: u64 = 60;

/// One worker's ports: its slice once on each address that is bound, for the same port on two
/// addresses is two sockets.
#[derive(Debug)]
pub struct PortPools(Vec<(IpAddr, PortPool)>);

impl PortPools {
    /// All pairs of `range` on each of `addresses`, free.
    #[must_use]
    pub fn new(addresses: &[IpAddr], range: PortRange) -> Self {
        let pool = |&address| (address, PortPool::new(range));
        Self(addresses.iter().map(pool).collect())
    }

    /// Takes a pair on each of two addresses, which may be the same; `None`, and nothing is taken,
    /// when one of them has none.
    pub fn take_both(&mut self, now: MonoTime, ips: [IpAddr; 2]) -> Option<[SocketAddr; 2]> {
        let first = self.take(now, ips[0])?;
        match self.take(now, ips[1]) {
            Some(second) => Some([first, second]),
            None => {
                self.give_back(first);
                None
            }
        }
    }

    /// Takes the pair on `ip` that has been free the longest; `None` when all are taken.
    pub fn take(&mut self, now: MonoTime, ip: IpAddr) -> Option<SocketAddr> {
        let port = self.pool_mut(ip)?.take(now)?;
        Some(SocketAddr::new(ip, port))
    }

    /// Gives a taken pair back.
    pub fn give_back(&mut self, rtp: SocketAddr) {
        if let Some(pool) = self.pool_mut(rtp.ip()) {
            pool.give_back(rtp.port());
        }
    }

    /// Puts a taken pair aside because another program holds one of its ports.
    pub fn set_aside(&mut self, now: MonoTime, rtp: SocketAddr) {
        if let Some(pool) = self.pool_mut(rtp.ip()) {
            pool.set_aside(now, rtp.port());
        }
    }

    /// Takes out of fresh pools the pairs that running sessions hold.
    pub fn retain(&mut self, mut is_free: impl FnMut(SocketAddr) -> bool) {
        for (ip, pool) in &mut self.0 {
            pool.retain(|port| is_free(SocketAddr::new(*ip, port)));
        }
    }

    /// Sessions on these two addresses for which there are free pairs.
    #[must_use]
    pub fn room(&self, ips: [IpAddr; 2]) -> u32 {
        let free = |ip| self.get(ip).map_or(0, PortPool::free_count);
        match ips {
            [first, second] if first == second => free(first) / 2,
            [first, second] => free(first).min(free(second)),
        }
    }

    /// The pool of one address.
    #[must_use]
    pub fn get(&self, ip: IpAddr) -> Option<&PortPool> {
        let mut pools = self.0.iter();
        pools.find(|(address, _)| *address == ip).map(|(_, p)| p)
    }

    /// Every pool with its address.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, &PortPool)> {
        self.0.iter().map(|(address, pool)| (*address, pool))
    }

    fn pool_mut(&mut self, ip: IpAddr) -> Option<&mut PortPool> {
        let mut pools = self.0.iter_mut();
        pools.find(|(address, _)| *address == ip).map(|(_, p)| p)
    }
}

/// Even RTP ports of one worker's slice on one address, each standing for itself and the RTCP port
/// above it (RFC 3550 §11).
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

    /// Pairs in use or set aside.
    #[must_use]
    pub fn used_count(&self) -> u32 {
        self.capacity.saturating_sub(self.free_count())
    }

    /// Times a pair was set aside since start.
    #[must_use]
    pub fn set_aside_total(&self) -> u64 {
        self.set_aside_total
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const NOW: MonoTime = MonoTime(0);
    const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    fn range() -> PortRange {
        PortRange::new(30_000, 30_005).expect("valid")
    }

    fn pool() -> PortPool {
        PortPool::new(range())
    }

    #[test]
    fn freed_port_is_the_last_to_be_used_again() {
        let mut pool = pool();
        let first = pool.take(NOW).expect("free");
        pool.give_back(first);
        assert_eq!(pool.take(NOW), Some(30_002));
        assert_eq!(pool.take(NOW), Some(30_004));
        assert_eq!(pool.take(NOW), Some(first));
        assert_eq!(pool.take(NOW), None);
    }

    #[test]
    fn port_held_by_another_program_comes_back_after_a_minute() {
        let mut pool = pool();
        let busy = pool.take(NOW).expect("free");
        pool.set_aside(NOW, busy);
        assert_eq!((pool.free_count(), pool.used_count()), (2, 1));
        assert_eq!(pool.take(NOW), Some(30_002));
        assert_eq!(pool.take(NOW), Some(30_004));
        assert_eq!(pool.take(NOW.plus_secs(SET_ASIDE_SECS - 1)), None);
        assert_eq!(pool.take(NOW.plus_secs(SET_ASIDE_SECS)), Some(busy));
        assert_eq!(pool.set_aside_total(), 1);
    }

    #[test]
    fn each_address_has_every_port_of_the_slice() {
        let mut pools = PortPools::new(&[V4, V6], range());
        assert_eq!((pools.room([V4, V6]), pools.room([V4, V4])), (3, 1));
        let both = pools.take_both(NOW, [V4, V6]).expect("free");
        assert_eq!(
            both.map(|rtp| (rtp.ip(), rtp.port())),
            [(V4, 30_000), (V6, 30_000)]
        );
        assert!(pools.take_both(NOW, [V4, V4]).is_some());
        // IPv4 is full; IPv6 is not, and loses nothing by the attempt.
        assert_eq!((pools.room([V4, V6]), pools.room([V6, V6])), (0, 1));
        assert_eq!(pools.take_both(NOW, [V6, V4]), None);
        assert_eq!(pools.get(V6).map(PortPool::used_count), Some(1));
        pools.give_back(both[0]);
        assert_eq!(pools.take(NOW, V4), Some(both[0]));
    }

    #[test]
    fn address_that_is_not_ours_has_no_ports() {
        let mut pools = PortPools::new(&[V4], range());
        assert_eq!(pools.take_both(NOW, [V4, V6]), None);
        assert_eq!((pools.room([V4, V6]), pools.room([V4, V4])), (0, 1));
    }
}
