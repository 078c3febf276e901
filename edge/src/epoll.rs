//! The epoll tier: how a worker receives and sends datagrams where io_uring cannot be had.
//!
//! ```text
//!   epoll_wait -> recvfrom -> session -> sendto -> buffer
//!        ^                                            |
//!        +--------------- free buffers <--------------+
//! ```
//!
//! Every socket is watched **level-triggered**, and one datagram is taken each time it is named.
//! The kernel puts a socket that has more back at the end of its queue, so a flood on one waits
//! its turn behind all others without a list of ours, nothing is forgotten when a batch ends
//! early, and no receive is spent on learning that there was just the one. Edge-triggered, a
//! socket would have to be emptied, or remembered, each time: for streams of one packet in 20 ms
//! that is twice the receives.
//!
//! Everything happens at once: a send has gone or failed when [`EpollTier::send`] returns, and a
//! closed socket's port is free. Both are told through the queues all the same, so that the worker
//! knows one order of things.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recvfrom};
use trunkline_edge_api::{DropReason, Refusal};
use trunkline_media::{PacketBuf, RxMeta, Transmit};

use crate::session_table::{SessionKey, SocketOwner};
use crate::tier::{
    CloseTicket, Completion, PACKET_ROOM, RxBuffer, SocketId, SocketTable, TierCounters,
    TierSettings, bind_media_socket, connect_media_socket, disconnect_media_socket, send_from,
};

/// Buffers per worker. A datagram leaves its buffer before the next is taken, so one would do as
/// long as each is forwarded or dropped at once; a batch's worth leaves room for who keeps some.
const BUFFER_COUNT: u16 = BATCH_LEN_MAX as u16;

/// Sockets named by one look. The worker reads the clock once per look.
const BATCH_LEN_MAX: usize = 64;

/// Kinds of what is watched, in the top byte of what the kernel gives back; the rest is a
/// [`SocketId`].
const KIND_SOCKET: u64 = 10;
const KIND_DOORBELL: u64 = 20;
const KIND_SHIFT: u32 = 56;

/// A worker's sockets and its epoll.
pub(crate) struct EpollTier {
    epoll: OwnedFd,
    sockets: SocketTable<Socket>,
    buffers: Box<[[u8; PACKET_ROOM]]>,
    free_buffers: Vec<u16>,
    /// What the last look named.
    ready: Vec<epoll::Event>,
    /// First of `ready` that was not served.
    next_ready: usize,
    /// Sends that were not told. Each holds a buffer, so there are never more than buffers.
    sent: VecDeque<Sent>,
    /// Sockets that are closed, which was not told. Holds as many as there are sockets; one that
    /// closes and opens faster than the worker looks makes it grow.
    closed: VecDeque<CloseTicket>,
    counters: TierCounters,
    dscp: u8,
}

struct Socket {
    owner: SocketOwner,
    fd: OwnedFd,
    /// Whom it is connected to.
    peer: Option<SocketAddr>,
}

struct Sent {
    buffer: RxBuffer,
    session: SessionKey,
    transmit: Transmit,
    result: Result<(), DropReason>,
}

impl EpollTier {
    /// Sets up epoll for at most `settings.sockets_max` sockets. `doorbell` is an eventfd that must outlive
    /// the tier.
    ///
    /// # Errors
    /// The kernel's: out of file descriptors or memory.
    pub(crate) fn new(settings: TierSettings, doorbell: BorrowedFd<'_>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64(KIND_DOORBELL << KIND_SHIFT);
        epoll::add(&epoll, doorbell, data, epoll::EventFlags::IN)?;
        Ok(Self {
            epoll,
            sockets: SocketTable::new(settings.sockets_max),
            buffers: vec![[0; PACKET_ROOM]; usize::from(BUFFER_COUNT)].into_boxed_slice(),
            free_buffers: (0..BUFFER_COUNT).rev().collect(),
            ready: Vec::with_capacity(BATCH_LEN_MAX),
            next_ready: 0,
            sent: VecDeque::with_capacity(usize::from(BUFFER_COUNT)),
            closed: VecDeque::with_capacity(settings.sockets_max as usize),
            counters: TierCounters::default(),
            dscp: settings.dscp,
        })
    }

    /// As [`crate::tier::Tier::open`].
    pub(crate) fn open(
        &mut self,
        local: SocketAddr,
        owner: SocketOwner,
    ) -> Result<SocketId, (Refusal, Option<io::Error>)> {
        let fd = bind_media_socket(local, self.dscp)
            .map_err(|(refusal, errno)| (refusal, Some(errno.into())))?;
        let id = self
            .sockets
            .insert(Socket {
                owner,
                fd,
                peer: None,
            })
            .map_err(|_| (Refusal::OutOfSockets, None))?;
        if let Err(errno) = self.watch(id) {
            self.sockets.remove(id);
            return Err((Refusal::SocketFailed, Some(errno.into())));
        }
        self.counters.sockets_open = self.sockets.open_count() as u64;
        Ok(id)
    }

    fn watch(&mut self, id: SocketId) -> Result<(), Errno> {
        let Some(socket) = self.sockets.get_mut(id) else {
            return Ok(());
        };
        let data = epoll::EventData::new_u64(KIND_SOCKET << KIND_SHIFT | id.to_bits());
        epoll::add(&self.epoll, &socket.fd, data, epoll::EventFlags::IN)
    }

    /// As [`crate::tier::Tier::close`].
    pub(crate) fn close(&mut self, id: SocketId, ticket: CloseTicket) -> bool {
        // Dropping the one descriptor of a socket ends its being watched. What the last look said
        // of it carries a generation that is gone with it.
        let Some(socket) = self.sockets.remove(id) else {
            return false;
        };
        self.counters.sockets_connected -= u64::from(socket.peer.is_some());
        self.closed.push_back(ticket);
        self.counters.sockets_open = self.sockets.open_count() as u64;
        true
    }

    /// As [`crate::tier::Tier::connect`].
    pub(crate) fn connect(&mut self, id: SocketId, peer: SocketAddr) -> bool {
        let Some(socket) = self.sockets.get_mut(id) else {
            return false;
        };
        if socket.peer.is_none() && connect_media_socket(&socket.fd, peer).is_ok() {
            socket.peer = Some(peer);
            self.counters.sockets_connected += 1;
        }
        socket.peer == Some(peer)
    }

    /// As [`crate::tier::Tier::disconnect`].
    pub(crate) fn disconnect(&mut self, id: SocketId) {
        if let Some(socket) = self.sockets.get_mut(id)
            && socket.peer.is_some()
            && disconnect_media_socket(&socket.fd).is_ok()
        {
            socket.peer = None;
            self.counters.sockets_connected -= 1;
        }
    }

    /// As [`crate::tier::Tier::packet_mut`].
    pub(crate) fn packet_mut(&mut self, buffer: &mut RxBuffer) -> PacketBuf<'_> {
        PacketBuf::new(&mut self.buffers[usize::from(buffer.id())], buffer.len())
    }

    /// As [`crate::tier::Tier::send`].
    pub(crate) fn send(
        &mut self,
        buffer: RxBuffer,
        socket: SocketId,
        session: SessionKey,
        transmit: Transmit,
    ) -> Result<(), DropReason> {
        let Some(Socket { fd, peer, .. }) = self.sockets.get_mut(socket) else {
            self.release(buffer);
            return Err(DropReason::NoDestination);
        };
        let packet = &self.buffers[usize::from(buffer.id())];
        let packet = &packet[..transmit.len.min(PACKET_ROOM)];
        let retried = &mut self.counters.sends_retried;
        let result = send_from(fd, *peer, transmit.dest, packet, retried);
        self.sent.push_back(Sent {
            buffer,
            session,
            transmit,
            result,
        });
        self.counters.buffers_in_flight += 1;
        Ok(())
    }

    /// As [`crate::tier::Tier::send_now`].
    pub(crate) fn send_now(
        &mut self,
        socket: SocketId,
        dest: SocketAddr,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        let socket = self
            .sockets
            .get_mut(socket)
            .ok_or(DropReason::NoDestination)?;
        let retried = &mut self.counters.sends_retried;
        send_from(&socket.fd, socket.peer, dest, packet, retried)
    }

    /// As [`crate::tier::Tier::release`].
    pub(crate) fn release(&mut self, buffer: RxBuffer) {
        debug_assert!(self.free_buffers.len() < usize::from(BUFFER_COUNT));
        self.free_buffers.push(buffer.id());
    }

    /// As [`crate::tier::Tier::reap`].
    pub(crate) fn reap(&mut self) -> usize {
        if self.is_served() {
            // Nothing can be wrong with this call that waiting would not find too, and say.
            let _ = self.look(Duration::ZERO);
        }
        self.ready.len() - self.next_ready + self.sent.len() + self.closed.len()
    }

    /// As [`crate::tier::Tier::poll_completion`].
    pub(crate) fn poll_completion(&mut self) -> Option<Completion> {
        if let Some(sent) = self.sent.pop_front() {
            self.counters.buffers_in_flight -= 1;
            self.release(sent.buffer);
            return Some(Completion::Sent {
                session: sent.session,
                transmit: sent.transmit,
                is_made: false,
                result: sent.result,
            });
        }
        if let Some(ticket) = self.closed.pop_front() {
            return Some(Completion::Closed(ticket));
        }
        while let Some(event) = self.ready.get(self.next_ready) {
            let bits = event.data.u64();
            self.next_ready += 1;
            let completion = match bits >> KIND_SHIFT {
                KIND_SOCKET => self.receive(SocketId::from_bits(bits)),
                _ => Some(Completion::DoorbellRang),
            };
            if completion.is_some() {
                return completion;
            }
        }
        None
    }

    /// Waits until something happens or `timeout` has passed.
    ///
    /// # Errors
    /// The kernel's; none is known that a sound epoll can give.
    pub(crate) fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        if !self.is_served() || !self.sent.is_empty() || !self.closed.is_empty() {
            return Ok(());
        }
        self.look(timeout)
    }

    pub(crate) fn counters(&self) -> TierCounters {
        self.counters
    }

    /// Whether no socket is open, and all that closed were told.
    pub(crate) fn is_empty(&self) -> bool {
        self.sockets.open_count() == 0 && self.closed.is_empty()
    }

    fn is_served(&self) -> bool {
        self.next_ready == self.ready.len()
    }

    fn look(&mut self, timeout: Duration) -> io::Result<()> {
        self.ready.clear();
        self.next_ready = 0;
        let timeout = Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        match epoll::wait(&self.epoll, spare_capacity(&mut self.ready), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Takes one datagram; `None` when there is none after all, or no buffer for it: then it waits
    /// in its socket, whose turn comes again.
    fn receive(&mut self, id: SocketId) -> Option<Completion> {
        let Socket { owner, fd, .. } = self.sockets.get_mut(id)?;
        let Some(buffer_id) = self.free_buffers.pop() else {
            self.counters.rx_buffers_exhausted += 1;
            return None;
        };
        let room = &mut self.buffers[usize::from(buffer_id)];
        // TRUNC: the length is the datagram's, not what of it found room.
        let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
        let received = recvfrom(&*fd, room.as_mut_slice(), flags).ok();
        let received = received.and_then(|(_, len, source)| {
            let source = SocketAddr::try_from(source?).ok()?;
            Some((len, source))
        });
        let buffer = |len: usize| RxBuffer::filled(buffer_id, len.min(PACKET_ROOM) as u16);
        let Some((len, source)) = received else {
            // A datagram whose checksum was wrong, say, or the ICMP error that a connected socket
            // keeps: both are gone now.
            self.release(buffer(0));
            return None;
        };
        Some(Completion::Received {
            owner: *owner,
            meta: RxMeta {
                source,
                socket: owner.socket,
                truncated: len > PACKET_ROOM,
            },
            buffer: buffer(len),
        })
    }
}

#[cfg(test)]
mod tests;
