//! The media sockets of a worker and where each stands between bind and close.
//!
//! A slot is the socket's index in the registered file table. It is used again only after its
//! receive has ended and its last send has completed, so no completion can be taken for another
//! socket's; the generation in each completion's user data is checked all the same.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
use trunkline_edge_api::Refusal;

/// Receive buffer of a media socket, bytes as asked for; the kernel doubles it for its own
/// overhead. 64 KiB hold more than a second of two 20 ms streams: enough for a worker that is
/// late, too little for a flood to fill memory.
const RECEIVE_BUFFER_LEN: usize = 64 * 1024;

/// A socket of the tier. Stays unique when its slot is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SocketId {
    pub(super) slot: u32,
    /// 24 bits: it travels in user data.
    pub(super) generation: u32,
}

/// Generations wrap here; by then the slot was used 16 million times.
pub(super) const GENERATION_MASK: u32 = 0x00ff_ffff;

pub(super) struct Slot<O> {
    pub(super) generation: u32,
    pub(super) state: SlotState<O>,
}

pub(super) enum SlotState<O> {
    Free,
    Used(Socket<O>),
}

/// A bound socket and what the kernel still does with it.
pub(super) struct Socket<O> {
    /// Whom the socket's datagrams are for.
    pub(super) owner: O,
    pub(super) receive: Receive,
    /// Sends that have not completed.
    pub(super) sends_in_flight: u32,
    /// What to say when the socket is closed; `None` while it is open.
    pub(super) closing: Option<CloseTicket>,
    pub(super) fd: OwnedFd,
}

/// Chosen by who closes a socket, given back when it is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CloseTicket(pub(crate) u32);

/// The socket's multishot receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Receive {
    /// The kernel has it.
    Armed,
    /// It ended, or was never armed, and waits for its turn.
    Ended,
}

/// All slots, sized at start.
pub(super) struct SocketTable<O> {
    slots: Vec<Slot<O>>,
    free: Vec<u32>,
}

impl<O: Copy> SocketTable<O> {
    pub(super) fn new(len: u32) -> Self {
        let empty = || Slot {
            generation: 0,
            state: SlotState::Free,
        };
        Self {
            slots: std::iter::repeat_with(empty).take(len as usize).collect(),
            free: (0..len).rev().collect(),
        }
    }

    pub(super) fn open_count(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Puts a bound socket into a free slot; gives it back when there is none.
    pub(super) fn insert(&mut self, fd: OwnedFd, owner: O) -> Result<SocketId, OwnedFd> {
        let Some(slot) = self.free.pop() else {
            return Err(fd);
        };
        let entry = &mut self.slots[slot as usize];
        entry.state = SlotState::Used(Socket {
            owner,
            receive: Receive::Ended,
            sends_in_flight: 0,
            closing: None,
            fd,
        });
        Ok(SocketId {
            slot,
            generation: entry.generation,
        })
    }

    pub(super) fn get_mut(&mut self, id: SocketId) -> Option<&mut Socket<O>> {
        match self.slots.get_mut(id.slot as usize)? {
            Slot {
                generation,
                state: SlotState::Used(socket),
            } if *generation == id.generation => Some(socket),
            _ => None,
        }
    }

    /// Frees the slot and gives out its socket.
    pub(super) fn remove(&mut self, id: SocketId) -> Option<Socket<O>> {
        self.get_mut(id)?;
        let entry = &mut self.slots[id.slot as usize];
        entry.generation = (entry.generation + 1) & GENERATION_MASK;
        self.free.push(id.slot);
        match std::mem::replace(&mut entry.state, SlotState::Free) {
            SlotState::Used(socket) => Some(socket),
            SlotState::Free => None,
        }
    }
}

/// Binds a media socket to exactly `local`.
pub(super) fn bind_media_socket(local: SocketAddr) -> Result<OwnedFd, (Refusal, Errno)> {
    let bound = || -> Result<OwnedFd, Errno> {
        let family = match local {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        // Not O_NONBLOCK: io_uring would complete an empty receive with EAGAIN instead of
        // waiting for a datagram.
        let fd = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        if local.is_ipv6() {
            sockopt::set_ipv6_v6only(&fd, true)?;
        }
        sockopt::set_socket_recv_buffer_size(&fd, RECEIVE_BUFFER_LEN)?;
        bind(&fd, &local)?;
        Ok(fd)
    };
    bound().map_err(|errno| (refusal_of(errno), errno))
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

    fn socket() -> OwnedFd {
        let local = "127.0.0.1:0".parse().expect("an address");
        bind_media_socket(local).expect("loopback")
    }

    #[test]
    fn slot_that_is_used_again_does_not_answer_to_its_old_id() {
        let mut table = SocketTable::new(1);
        let first = table.insert(socket(), 'a').expect("room");
        assert!(table.remove(first).is_some());
        let second = table.insert(socket(), 'b').expect("room again");
        assert_eq!(second.slot, first.slot);
        assert!(table.get_mut(first).is_none());
        assert!(table.remove(first).is_none());
        assert_eq!(table.get_mut(second).map(|socket| socket.owner), Some('b'));
    }

    #[test]
    fn full_table_gives_the_socket_back() {
        let mut table = SocketTable::new(1);
        table.insert(socket(), ()).expect("room");
        assert!(table.insert(socket(), ()).is_err());
        assert_eq!(table.open_count(), 1);
    }

    #[test]
    fn kernel_answers_to_bind_become_refusals() {
        let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let in_use = taken.local_addr().expect("bound");
        let foreign = "192.0.2.1:0".parse().expect("an address");
        let refusal = |local| {
            bind_media_socket(local)
                .map_err(|(refusal, _)| refusal)
                .err()
        };
        assert_eq!(refusal(in_use), Some(Refusal::AddressInUse));
        assert_eq!(refusal(foreign), Some(Refusal::AddressNotAvailable));
    }
}
