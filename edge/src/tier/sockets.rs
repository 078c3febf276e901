//! The media sockets of a worker, by slot.
//!
//! What a socket is to its tier is the tier's affair; the table only sees to it that an id of a
//! socket that is gone never answers for the one that has its slot next.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, bind, connect, connect_unspec, send, sendto,
    socket_with, sockopt,
};
use trunkline_edge_api::{DropReason, Refusal};

use super::send_failure;

/// Receive buffer of a media socket, bytes as asked for; the kernel doubles it, and charges each
/// packet what its memory takes: 14 packets of a network card's driver fit, up to 40 of a virtual
/// one's. That is a burst of more than a quarter of a second of a 20 ms stream. More would not
/// save a worker that is behind: all its sockets together would hold seconds of media, each packet
/// would wait behind them, and arrive too late to be played. What does not fit the kernel drops,
/// before the worker has paid for it.
pub(crate) const RECEIVE_BUFFER_LEN: usize = 16 * 1024;

/// A socket of a tier. Stays unique when its slot is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SocketId {
    pub(crate) slot: u32,
    /// 24 bits: it travels through the kernel beside the slot and a kind.
    pub(crate) generation: u32,
}

impl SocketId {
    /// Generations wrap here; by then the slot was used 16 million times.
    pub(crate) const GENERATION_MASK: u32 = 0x00ff_ffff;

    /// The low 56 bits of what the kernel gives back with an event.
    pub(crate) const fn to_bits(self) -> u64 {
        (self.generation as u64) << 32 | self.slot as u64
    }

    /// The id in the low 56 bits.
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self {
            slot: bits as u32,
            generation: (bits >> 32) as u32 & Self::GENERATION_MASK,
        }
    }
}

/// Chosen by who closes a socket, given back when it is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CloseTicket(pub(crate) u32);

struct Slot<S> {
    generation: u32,
    socket: Option<S>,
}

/// All slots, sized at start. `S` is what a tier keeps of a socket.
pub(crate) struct SocketTable<S> {
    slots: Vec<Slot<S>>,
    free: Vec<u32>,
}

impl<S> SocketTable<S> {
    pub(crate) fn new(len: u32) -> Self {
        let empty = || Slot {
            generation: 0,
            socket: None,
        };
        Self {
            slots: std::iter::repeat_with(empty).take(len as usize).collect(),
            free: (0..len).rev().collect(),
        }
    }

    pub(crate) fn open_count(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Puts a bound socket into a free slot; gives it back when there is none.
    pub(crate) fn insert(&mut self, socket: S) -> Result<SocketId, S> {
        let Some(slot) = self.free.pop() else {
            return Err(socket);
        };
        let entry = &mut self.slots[slot as usize];
        entry.socket = Some(socket);
        Ok(SocketId {
            slot,
            generation: entry.generation,
        })
    }

    pub(crate) fn get_mut(&mut self, id: SocketId) -> Option<&mut S> {
        self.slots
            .get_mut(id.slot as usize)
            .filter(|entry| entry.generation == id.generation)?
            .socket
            .as_mut()
    }

    /// Frees the slot and gives out its socket.
    pub(crate) fn remove(&mut self, id: SocketId) -> Option<S> {
        self.get_mut(id)?;
        let entry = &mut self.slots[id.slot as usize];
        entry.generation = (entry.generation + 1) & SocketId::GENERATION_MASK;
        self.free.push(id.slot);
        entry.socket.take()
    }
}

/// Binds a media socket to exactly `local`; what it sends carries `dscp`, 0 … 63.
pub(crate) fn bind_media_socket(local: SocketAddr, dscp: u8) -> Result<OwnedFd, (Refusal, Errno)> {
    let bound = || -> Result<OwnedFd, Errno> {
        let family = match local {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        // Not O_NONBLOCK: io_uring would complete an empty receive with EAGAIN instead of
        // waiting for a datagram. The epoll tier says so with every call.
        let fd = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        // The upper six bits of the traffic class; the lower two are for congestion (RFC 3168).
        let traffic_class = dscp << 2;
        match local {
            SocketAddr::V4(_) => sockopt::set_ip_tos(&fd, traffic_class)?,
            SocketAddr::V6(_) => {
                sockopt::set_ipv6_v6only(&fd, true)?;
                sockopt::set_ipv6_tclass(&fd, traffic_class.into())?;
            }
        }
        sockopt::set_socket_recv_buffer_size(&fd, RECEIVE_BUFFER_LEN)?;
        bind(&fd, &local)?;
        Ok(fd)
    };
    bound().map_err(|errno| (refusal_of(errno), errno))
}

/// Makes `fd` hear `peer` alone, and send to it without looking up the way each time.
pub(crate) fn connect_media_socket(fd: &OwnedFd, peer: SocketAddr) -> Result<(), Errno> {
    connect(fd, &peer)
}

/// Undoes [`connect_media_socket`]. The socket stays bound: its address and port were asked for.
pub(crate) fn disconnect_media_socket(fd: &OwnedFd) -> Result<(), Errno> {
    connect_unspec(fd)
}

/// Sends `packet` at once from a socket that is connected to `peer`, if it is; never waits.
/// `retried` counts the sends that had to be repeated.
pub(crate) fn send_from(
    fd: &OwnedFd,
    peer: Option<SocketAddr>,
    dest: SocketAddr,
    packet: &[u8],
    retried: &mut u64,
) -> Result<(), DropReason> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let attempt = || {
        rustix::io::retry_on_intr(|| match peer {
            Some(peer) if peer == dest => send(fd, packet, flags),
            _ => sendto(fd, packet, flags, &dest),
        })
    };
    let result = match attempt() {
        Err(errno) if peer.is_some() && is_stored_icmp_error(errno) => {
            *retried += 1;
            attempt()
        }
        result => result,
    };
    result.map(|_| ()).map_err(send_failure)
}

/// Whether a send failed because of an ICMP error that an earlier one has caused: the kernel tells
/// a connected socket once, in place of sending.
pub(crate) fn is_stored_icmp_error(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::CONNREFUSED | Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::PROTO
    )
}

fn refusal_of(errno: Errno) -> Refusal {
    match errno {
        Errno::ADDRINUSE => Refusal::AddressInUse,
        Errno::ADDRNOTAVAIL => Refusal::AddressNotAvailable,
        Errno::MFILE | Errno::NFILE => Refusal::OutOfSockets,
        _ => Refusal::SocketFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_that_is_used_again_does_not_answer_to_its_old_id() {
        let mut table = SocketTable::new(1);
        let first = table.insert('a').expect("room");
        assert!(table.remove(first).is_some());
        let second = table.insert('b').expect("room again");
        assert_eq!(second.slot, first.slot);
        assert!(table.get_mut(first).is_none());
        assert!(table.remove(first).is_none());
        assert_eq!(table.get_mut(second), Some(&mut 'b'));
    }

    #[test]
    fn full_table_gives_the_socket_back() {
        let mut table = SocketTable::new(1);
        table.insert('a').expect("room");
        assert_eq!(table.insert('b'), Err('b'));
        assert_eq!(table.open_count(), 1);
    }

    #[test]
    fn what_is_sent_is_marked_in_both_families() {
        let bind = |ip| bind_media_socket(std::net::SocketAddr::new(ip, 0), 46).expect("loopback");
        let v4 = bind(std::net::Ipv4Addr::LOCALHOST.into());
        assert_eq!(sockopt::ip_tos(&v4), Ok(0xb8));
        let v6 = bind(std::net::Ipv6Addr::LOCALHOST.into());
        assert_eq!(sockopt::ipv6_tclass(&v6), Ok(0xb8));
    }

    #[test]
    fn kernel_answers_to_bind_become_refusals() {
        let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let in_use = taken.local_addr().expect("bound");
        let foreign = "192.0.2.1:0".parse().expect("an address");
        let refusal = |local| {
            bind_media_socket(local, 0)
                .map_err(|(refusal, _)| refusal)
                .err()
        };
        assert_eq!(refusal(in_use), Some(Refusal::AddressInUse));
        assert_eq!(refusal(foreign), Some(Refusal::AddressNotAvailable));
    }
}
