//! How a worker does I/O: on io_uring, or on epoll where that is forbidden or unknown.
//!
//! Both tiers have the same face and the same manners, and the tests run on both:
//!
//! - a datagram is a [`Completion::Received`] with a buffer that has one owner; it is sent from
//!   where it lies, and given back when [`Completion::Sent`] has been told;
//! - a socket that was closed is never heard of again but for its [`Completion::Closed`];
//! - what comes in one go is bounded, so that commands and timers get their turn.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use trunkline_edge_api::config::IoChoice;
use trunkline_edge_api::{DropReason, IoTier, Refusal};
use trunkline_media::srtp::OVERHEAD_MAX;
use trunkline_media::{PacketBuf, RxMeta, Transmit};

use crate::epoll::EpollTier;
use crate::session_table::{SessionKey, SocketOwner};
use crate::uring::{UringError, UringTier};

mod sockets;

pub(crate) use sockets::{
    CloseTicket, RECEIVE_BUFFER_LEN, SocketId, SocketTable, bind_media_socket,
    connect_media_socket, disconnect_media_socket, is_stored_icmp_error, send_from,
};

/// Bytes from the start of a datagram to the end of its buffer: the longest datagram that is
/// taken, and room for it to grow.
pub(crate) const PACKET_ROOM: usize = 2004;

/// The longest UDP payload of an Ethernet frame can still be protected.
const _: () = assert!(1472 + OVERHEAD_MAX <= PACKET_ROOM);

/// What a tier needs to know of the configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TierSettings {
    pub(crate) io: IoChoice,
    /// Sockets open at once.
    pub(crate) sockets_max: u32,
    /// DSCP of what is sent, 0 … 63.
    pub(crate) dscp: u8,
}

/// What happened since the worker last looked.
#[derive(Debug)]
pub(crate) enum Completion {
    /// A datagram. The buffer goes back by [`Tier::send`] or [`Tier::release`].
    Received {
        owner: SocketOwner,
        meta: RxMeta,
        buffer: RxBuffer,
    },
    /// The kernel took a datagram, or did not.
    Sent {
        session: SessionKey,
        transmit: Transmit,
        /// The edge made it ([`Tier::send_made`]); nothing arrived for it.
        is_made: bool,
        result: Result<(), DropReason>,
    },
    /// A socket is closed.
    Closed(CloseTicket),
    /// The doorbell rang.
    DoorbellRang,
}

/// What a tier counts by itself; totals since start.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TierCounters {
    pub(crate) rx_buffers_exhausted: u64,
    /// Receives that ended and were armed again; io_uring only.
    pub(crate) rx_rearmed: u64,
    /// io_uring only.
    pub(crate) cq_overflows: u64,
    pub(crate) buffers_in_flight: u64,
    pub(crate) sockets_open: u64,
    pub(crate) sockets_connected: u64,
    /// Sends that a stored ICMP error refused and that were repeated.
    pub(crate) sends_retried: u64,
}

/// Sole owner of one buffer of the tier that filled it. Goes back to that tier by [`Tier::send`]
/// or [`Tier::release`], or the tier is one buffer poorer.
#[must_use]
#[derive(Debug)]
pub(crate) struct RxBuffer {
    id: u16,
    /// Bytes of the datagram.
    len: u16,
}

impl RxBuffer {
    /// For tiers: buffer `id`, which nobody else owns, holds a datagram of `len` bytes.
    pub(crate) fn filled(id: u16, len: u16) -> Self {
        Self { id, len }
    }

    pub(crate) fn id(&self) -> u16 {
        self.id
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.len)
    }
}

/// Why no tier can run.
#[derive(Debug, thiserror::Error)]
pub enum TierError {
    /// `[edge] io` asks for io_uring alone.
    #[error("{0}; or set [edge] io = \"auto\" to run on epoll")]
    Uring(#[from] UringError),
    /// epoll cannot be set up.
    #[error("cannot set up epoll: {0}; raise LimitNOFILE of the unit if descriptors ran out")]
    Epoll(#[source] io::Error),
}

/// A worker's sockets and the way it serves them.
#[expect(
    clippy::large_enum_variant,
    reason = "one per worker and never moved: the difference in size costs nothing"
)]
pub(crate) enum Tier {
    Uring(UringTier),
    Epoll(EpollTier),
}

impl Tier {
    /// Sets up what `settings` allow. To be called on the worker's thread. `doorbell` is an eventfd that must outlive the tier. With the tier comes
    /// why it is not io_uring, where that was tried first.
    ///
    /// # Errors
    /// [`TierError`]; its text says what to change.
    pub(crate) fn new(
        settings: TierSettings,
        doorbell: BorrowedFd<'_>,
    ) -> Result<(Self, Option<UringError>), TierError> {
        let uring = || UringTier::new(settings, doorbell);
        Self::choose(settings.io, uring, || EpollTier::new(settings, doorbell))
    }

    fn choose(
        choice: IoChoice,
        uring: impl FnOnce() -> Result<UringTier, UringError>,
        epoll: impl FnOnce() -> io::Result<EpollTier>,
    ) -> Result<(Self, Option<UringError>), TierError> {
        let refused = match choice {
            IoChoice::Epoll => None,
            IoChoice::Auto | IoChoice::IoUring => match uring() {
                Ok(tier) => return Ok((Self::Uring(tier), None)),
                Err(error) if choice == IoChoice::IoUring => return Err(error.into()),
                Err(error) => Some(error),
            },
        };
        let tier = epoll().map_err(TierError::Epoll)?;
        Ok((Self::Epoll(tier), refused))
    }

    pub(crate) fn kind(&self) -> IoTier {
        match self {
            Self::Uring(_) => IoTier::IoUring,
            Self::Epoll(_) => IoTier::Epoll,
        }
    }

    /// Binds `local` for `owner`.
    ///
    /// # Errors
    /// What to tell control, and the kernel's error where it has more to say.
    pub(crate) fn open(
        &mut self,
        local: SocketAddr,
        owner: SocketOwner,
    ) -> Result<SocketId, (Refusal, Option<io::Error>)> {
        match self {
            Self::Uring(tier) => tier.open(local, owner),
            Self::Epoll(tier) => tier.open(local, owner),
        }
    }

    /// Begins to close a socket. [`Completion::Closed`] with `ticket` follows, and no datagram of
    /// this socket comes before or after it. Returns whether there was such a socket.
    pub(crate) fn close(&mut self, id: SocketId, ticket: CloseTicket) -> bool {
        match self {
            Self::Uring(tier) => tier.close(id, ticket),
            Self::Epoll(tier) => tier.close(id, ticket),
        }
    }

    /// Connects a socket to `peer`: it hears nobody else from then on, and sends to `peer` cost no
    /// route lookup. Others are answered by the kernel, with ICMP, and nobody here learns of them;
    /// so this is for sockets that have one peer, known and heard. Returns whether the socket is
    /// connected; one that is connected already stays as it is.
    pub(crate) fn connect(&mut self, id: SocketId, peer: SocketAddr) -> bool {
        match self {
            Self::Uring(tier) => tier.connect(id, peer),
            Self::Epoll(tier) => tier.connect(id, peer),
        }
    }

    /// Undoes [`Self::connect`]; nothing to do for a socket that is not connected.
    pub(crate) fn disconnect(&mut self, id: SocketId) {
        match self {
            Self::Uring(tier) => tier.disconnect(id),
            Self::Epoll(tier) => tier.disconnect(id),
        }
    }

    /// The datagram in `buffer`, with room to grow.
    #[inline]
    pub(crate) fn packet_mut<'a>(&'a mut self, buffer: &'a mut RxBuffer) -> PacketBuf<'a> {
        match self {
            Self::Uring(tier) => tier.packet_mut(buffer),
            Self::Epoll(tier) => tier.packet_mut(buffer),
        }
    }

    /// Sends what lies in `buffer` as `transmit` says; [`Completion::Sent`] follows.
    ///
    /// # Errors
    /// [`DropReason::NoDestination`] when the socket is closed or closing, and
    /// [`DropReason::Overload`] when the kernel takes no more submissions. The buffer is then
    /// released, and nothing follows.
    #[inline]
    pub(crate) fn send(
        &mut self,
        buffer: RxBuffer,
        socket: SocketId,
        session: SessionKey,
        transmit: Transmit,
    ) -> Result<(), DropReason> {
        match self {
            Self::Uring(tier) => tier.send(buffer, socket, session, transmit),
            Self::Epoll(tier) => tier.send(buffer, socket, session, transmit),
        }
    }

    /// Sends a copy of `packet`, which the edge made, as `transmit` says. On io_uring with all else
    /// of this cycle, and [`Completion::Sent`] follows; on epoll at once. Returns whether that
    /// follows.
    ///
    /// # Errors
    /// As [`Self::send`] and [`Self::send_now`].
    pub(crate) fn send_made(
        &mut self,
        packet: &[u8],
        socket: SocketId,
        session: SessionKey,
        transmit: Transmit,
    ) -> Result<bool, DropReason> {
        match self {
            Self::Uring(tier) => tier
                .send_made(packet, socket, session, transmit)
                .map(|()| true),
            Self::Epoll(tier) => tier.send_now(socket, transmit.dest, packet).map(|()| false),
        }
    }

    /// Sends what a session made itself, at once and without a buffer of the ring: a report every
    /// few seconds is not worth one. Never waits.
    ///
    /// # Errors
    /// As [`Completion::Sent`], and [`DropReason::NoDestination`] when the socket is closed or
    /// closing.
    pub(crate) fn send_now(
        &mut self,
        socket: SocketId,
        dest: SocketAddr,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        match self {
            Self::Uring(tier) => tier.send_now(socket, dest, packet),
            Self::Epoll(tier) => tier.send_now(socket, dest, packet),
        }
    }

    /// Gives a buffer back unsent.
    #[inline]
    pub(crate) fn release(&mut self, buffer: RxBuffer) {
        match self {
            Self::Uring(tier) => tier.release(buffer),
            Self::Epoll(tier) => tier.release(buffer),
        }
    }

    /// Looks what has happened, 64 events at most. Returns how many;
    /// [`Self::poll_completion`] hands them out.
    pub(crate) fn reap(&mut self) -> usize {
        match self {
            Self::Uring(tier) => tier.reap(),
            Self::Epoll(tier) => tier.reap(),
        }
    }

    /// What happened, one by one; `None` when [`Self::reap`] has to be called again.
    #[inline]
    pub(crate) fn poll_completion(&mut self) -> Option<Completion> {
        match self {
            Self::Uring(tier) => tier.poll_completion(),
            Self::Epoll(tier) => tier.poll_completion(),
        }
    }

    /// Gives the kernel what was queued, without waiting.
    ///
    /// # Errors
    /// The kernel refuses to go on.
    pub(crate) fn submit(&mut self) -> io::Result<()> {
        match self {
            Self::Uring(tier) => tier.submit(),
            // Whatever epoll's tier does, it has done at once.
            Self::Epoll(_) => Ok(()),
        }
    }

    /// As [`Self::submit`], then waits until something happens or `timeout` has passed.
    ///
    /// # Errors
    /// The kernel refuses to go on.
    pub(crate) fn submit_and_wait(&mut self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Uring(tier) => tier.submit_and_wait(timeout),
            Self::Epoll(tier) => tier.wait(timeout),
        }
    }

    pub(crate) fn counters(&self) -> TierCounters {
        match self {
            Self::Uring(tier) => tier.counters(),
            Self::Epoll(tier) => tier.counters(),
        }
    }

    /// Whether no socket is open or closing.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Uring(tier) => tier.is_empty(),
            Self::Epoll(tier) => tier.is_empty(),
        }
    }
}

/// What a worker with these settings would run on, and why not on io_uring where that was tried
/// first. Nothing of it is kept.
///
/// # Errors
/// As [`Tier::new`].
pub(crate) fn probe(settings: TierSettings) -> Result<(IoTier, Option<UringError>), TierError> {
    let doorbell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(|errno| TierError::Epoll(errno.into()))?;
    let (tier, refused) = Tier::new(settings, doorbell.as_fd())?;
    Ok((tier.kind(), refused))
}

/// What a send that the kernel refused counts as.
pub(crate) fn send_failure(errno: Errno) -> DropReason {
    match errno {
        Errno::AGAIN | Errno::NOBUFS => DropReason::SendQueueFull,
        _ => DropReason::SendFailed,
    }
}

#[cfg(test)]
pub(crate) mod tests;
