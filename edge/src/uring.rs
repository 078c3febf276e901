//! The io_uring tier: how a worker receives and sends datagrams.
//!
//! One ring per worker thread (`SINGLE_ISSUER`), completions run when the worker asks for them
//! (`DEFER_TASKRUN`). Each socket has one multishot receive that picks its buffers from a shared
//! ring; a packet is rewritten where it lies and sent from there, and its buffer goes back to the
//! kernel when the send has completed, not before: else one call's audio would leave on another's.
//!
//! ```text
//!   recvmsg (multishot) -> completion -> session -> send (MSG_DONTWAIT) -> completion -> buffer
//!        ^                                                                                 |
//!        +---------------------------- buffer ring <--------------------------------------+
//! ```
//!
//! Nothing here may be punted to a kernel thread: sends say `MSG_DONTWAIT`, receives wait by poll,
//! files are neither read nor written.
//!
//! A socket closes in steps: cancel its receive, wait for that and for its sends, take it out of
//! the file table, close it, and only then say [`Completion::Closed`]. When that is said the port
//! is free on Linux 6.13 and later; earlier kernels put the last reference later, from a work
//! queue, within some 100 ms.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use rustix::io::Errno;
use trunkline_edge_api::{DropReason, Refusal};
use trunkline_media::{PacketBuf, RxMeta, Transmit};

use crate::session_table::{SessionKey, SocketOwner};
use crate::tier::{
    CloseTicket, Completion, RxBuffer, SocketId, SocketTable, TierCounters, TierSettings,
    bind_media_socket, connect_media_socket, disconnect_media_socket, is_stored_icmp_error,
    send_failure, send_from,
};

mod buffers;
mod completion;
mod probe;
mod sockets;

use buffers::BufferRing;
use completion::{Batch, UserData};
pub use probe::UringError;
use sockets::{Receive, Socket};

/// Submission queue entries. A cycle that needs more submits in between.
const SQ_ENTRIES: u32 = 1024;

/// Receives armed, and receives cancelled, per cycle. A cancel takes about 6 µs, so closing many
/// sessions at once never holds up media for more than half a millisecond at a time.
const SOCKET_STEPS_PER_CYCLE: usize = 64;

/// A worker's sockets and its io_uring.
pub(crate) struct UringTier {
    // Dropped in this order: the kernel must have let go of the buffers before they are freed.
    ring: IoUring,
    buffers: BufferRing,
    /// Template of every receive. The kernel reads it when a receive is issued.
    receive_header: Box<libc::msghdr>,
    sockets: SocketTable<Socket>,
    /// Sockets whose receive is to be armed.
    to_arm: VecDeque<SocketId>,
    /// Sockets whose receive is to be cancelled.
    to_cancel: VecDeque<SocketId>,
    /// Sends under way, indexed by buffer.
    sends: Vec<Option<SendInFlight>>,
    /// Tickets of sockets that closed without the kernel's help.
    closed: VecDeque<CloseTicket>,
    batch: Batch,
    doorbell: i32,
    counters: TierCounters,
    is_overflowing: bool,
    dscp: u8,
}

/// A datagram that the kernel is sending.
struct SendInFlight {
    buffer: RxBuffer,
    socket: SocketId,
    session: SessionKey,
    transmit: Transmit,
    /// A stored ICMP error has refused it once.
    is_repeated: bool,
    /// The edge made it; no packet that arrived.
    is_made: bool,
}

impl UringTier {
    /// Sets up a ring for at most `settings.sockets_max` sockets. To be called on the worker's thread; the
    /// kernel refuses all others from then on. `doorbell` is an eventfd that must outlive the
    /// tier.
    ///
    /// # Errors
    /// What this kernel lacks or forbids, and what to change.
    pub(crate) fn new(
        settings: TierSettings,
        doorbell: BorrowedFd<'_>,
    ) -> Result<Self, UringError> {
        let sockets_max = settings.sockets_max;
        // Every receive can end at once, beside what all buffers can bring.
        let sends_max = u32::from(buffers::COUNT) + u32::from(buffers::SPARE);
        let cq_entries = (u32::from(buffers::COUNT) + sends_max + sockets_max).next_power_of_two();
        let ring = IoUring::builder()
            .dontfork()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(cq_entries)
            .build(SQ_ENTRIES)
            .map_err(probe::explain_setup)?;
        probe::check_operations(&ring)?;
        ring.submitter()
            .register_files_sparse(sockets_max)
            .map_err(|error| UringError::TooManyFiles {
                sockets: sockets_max,
                error,
            })?;
        let buffers =
            BufferRing::register(&ring.submitter()).map_err(|error| UringError::Other {
                action: "register receive buffers",
                error,
            })?;
        // SAFETY: msghdr is plain data; all zero is a header without name, vector and control.
        let mut receive_header: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
        receive_header.msg_namelen = buffers::NAME_LEN as libc::socklen_t;
        let mut tier = Self {
            ring,
            buffers,
            receive_header,
            sockets: SocketTable::new(sockets_max),
            to_arm: VecDeque::with_capacity(sockets_max as usize),
            to_cancel: VecDeque::with_capacity(sockets_max as usize),
            sends: std::iter::repeat_with(|| None)
                .take(usize::from(buffers::TOTAL))
                .collect(),
            closed: VecDeque::with_capacity(sockets_max as usize),
            batch: Batch::default(),
            doorbell: doorbell.as_raw_fd(),
            counters: TierCounters::default(),
            is_overflowing: false,
            dscp: settings.dscp,
        };
        tier.watch_doorbell();
        Ok(tier)
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
        let fd = bind_media_socket(local, self.dscp)
            .map_err(|(refusal, errno)| (refusal, Some(errno.into())))?;
        let raw_fd = fd.as_raw_fd();
        let id = self
            .sockets
            .insert(Socket {
                owner,
                receive: Receive::Ended,
                sends_in_flight: 0,
                closing: None,
                fd,
                peer: None,
            })
            .map_err(|_| (Refusal::OutOfSockets, None))?;
        if let Err(error) = self
            .ring
            .submitter()
            .register_files_update(id.slot, &[raw_fd])
        {
            self.sockets.remove(id);
            return Err((Refusal::SocketFailed, Some(error)));
        }
        self.to_arm.push_back(id);
        self.counters.sockets_open = self.sockets.open_count() as u64;
        Ok(id)
    }

    /// Begins to close a socket. [`Completion::Closed`] with `ticket` follows, and no datagram of
    /// this socket comes before or after it. Returns whether there was such a socket.
    pub(crate) fn close(&mut self, id: SocketId, ticket: CloseTicket) -> bool {
        let Some(socket) = self.sockets.get_mut(id) else {
            return false;
        };
        if socket.closing.is_some() {
            return false;
        }
        socket.closing = Some(ticket);
        match socket.receive {
            Receive::Armed => self.to_cancel.push_back(id),
            Receive::Ended => self.finish_close(id),
        }
        true
    }

    /// As [`crate::tier::Tier::connect`].
    pub(crate) fn connect(&mut self, id: SocketId, peer: SocketAddr) -> bool {
        let Some(socket) = self.sockets.get_mut(id) else {
            return false;
        };
        if socket.closing.is_some() {
            return false;
        }
        if socket.peer.is_none() && connect_media_socket(&socket.fd, peer).is_ok() {
            socket.peer = Some(peer);
            self.counters.sockets_connected += 1;
        }
        socket.peer == Some(peer)
    }

    /// As [`crate::tier::Tier::disconnect`].
    pub(crate) fn disconnect(&mut self, id: SocketId) {
        let is_connected = |socket: &&mut Socket| socket.peer.is_some();
        if self.sockets.get_mut(id).filter(is_connected).is_none() {
            return;
        }
        // Sends that are queued name no address. Should this fail, it fails again where the worker
        // submits, and is told there.
        let _ = self.ring.submit();
        if let Some(socket) = self.sockets.get_mut(id)
            && disconnect_media_socket(&socket.fd).is_ok()
        {
            socket.peer = None;
            self.counters.sockets_connected -= 1;
        }
    }

    /// The datagram in `buffer`, with room to grow.
    pub(crate) fn packet_mut(&mut self, buffer: &mut RxBuffer) -> PacketBuf<'_> {
        self.buffers.packet_mut(buffer)
    }

    /// Sends what lies in `buffer` as `transmit` says; [`Completion::Sent`] follows.
    ///
    /// # Errors
    /// [`DropReason::NoDestination`] when the socket is closed or closing, and
    /// [`DropReason::Overload`] when the kernel takes no more submissions. The buffer is then
    /// released, and nothing follows.
    pub(crate) fn send(
        &mut self,
        buffer: RxBuffer,
        socket: SocketId,
        session: SessionKey,
        transmit: Transmit,
    ) -> Result<(), DropReason> {
        let is_open = |socket: &&mut Socket| socket.closing.is_none();
        if self.sockets.get_mut(socket).filter(is_open).is_none() {
            self.release(buffer);
            return Err(DropReason::NoDestination);
        }
        self.begin_send(SendInFlight {
            buffer,
            socket,
            session,
            transmit,
            is_repeated: false,
            is_made: false,
        })
    }

    /// As [`crate::tier::Tier::send_made`].
    pub(crate) fn send_made(
        &mut self,
        packet: &[u8],
        socket: SocketId,
        session: SessionKey,
        transmit: Transmit,
    ) -> Result<(), DropReason> {
        let is_open = |socket: &&mut Socket| socket.closing.is_none();
        if self.sockets.get_mut(socket).filter(is_open).is_none() {
            return Err(DropReason::NoDestination);
        }
        let buffer = self
            .buffers
            .fill_spare(packet)
            .ok_or(DropReason::Overload)?;
        self.begin_send(SendInFlight {
            buffer,
            socket,
            session,
            transmit,
            is_repeated: false,
            is_made: true,
        })
    }

    fn begin_send(&mut self, send: SendInFlight) -> Result<(), DropReason> {
        let socket = send.socket;
        match self.push_send(send) {
            Ok(()) => {
                self.counters.buffers_in_flight += 1;
                if let Some(socket) = self.sockets.get_mut(socket) {
                    socket.sends_in_flight += 1;
                }
                Ok(())
            }
            Err(send) => {
                self.release(send.buffer);
                Err(DropReason::Overload)
            }
        }
    }

    /// Queues a send from a socket that is there; gives it back when the kernel takes no more.
    fn push_send(&mut self, mut send: SendInFlight) -> Result<(), SendInFlight> {
        let Transmit { dest, len, .. } = send.transmit;
        let peer = self.sockets.get_mut(send.socket).and_then(|it| it.peer);
        let prepared = self.buffers.prepare_send(&mut send.buffer, dest, len);
        let id = send.buffer.id();
        let file = Fixed(send.socket.slot);
        let mut entry = opcode::Send::new(file, prepared.payload, prepared.payload_len)
            .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
        if peer != Some(dest) {
            entry = entry
                .dest_addr(prepared.dest)
                .dest_addr_len(prepared.dest_len);
        }
        let entry = entry
            .build()
            .user_data(UserData::Send { buffer: id }.encode());
        // SAFETY: payload and address lie in the receive buffer, which `sends` keeps from being
        // used until the send's completion; the buffers outlive the ring.
        if !unsafe { self.push(&entry) } {
            return Err(send);
        }
        self.sends[usize::from(id)] = Some(send);
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
            .filter(|socket| socket.closing.is_none())
            .ok_or(DropReason::NoDestination)?;
        let retried = &mut self.counters.sends_retried;
        send_from(&socket.fd, socket.peer, dest, packet, retried)
    }

    /// Gives a buffer back unsent.
    pub(crate) fn release(&mut self, buffer: RxBuffer) {
        self.buffers.give_back(buffer);
    }

    /// Copies the next completions out of the kernel's queue, at most [`Batch::LEN_MAX`]. Returns
    /// how many; [`Self::poll_completion`] hands them out.
    pub(crate) fn reap(&mut self) -> usize {
        let mut queue = self.ring.completion();
        self.batch.fill(&mut queue) + self.closed.len()
    }

    /// What happened, one by one; `None` when [`Self::reap`] has to be called again.
    pub(crate) fn poll_completion(&mut self) -> Option<Completion> {
        if let Some(ticket) = self.closed.pop_front() {
            return Some(Completion::Closed(ticket));
        }
        while let Some(entry) = self.batch.next() {
            let completion = match UserData::decode(entry.user_data()) {
                Some(UserData::Receive(id)) => self.on_receive(id, &entry),
                Some(UserData::Send { buffer }) => self.on_sent(buffer, entry.result()),
                Some(UserData::Cancel(id)) => {
                    self.on_cancelled(id, entry.result());
                    None
                }
                Some(UserData::Doorbell) => {
                    if !cqueue::more(entry.flags()) {
                        self.watch_doorbell();
                    }
                    Some(Completion::DoorbellRang)
                }
                None => None,
            };
            if completion.is_some() {
                return completion;
            }
            if let Some(ticket) = self.closed.pop_front() {
                return Some(Completion::Closed(ticket));
            }
        }
        None
    }

    /// Gives the kernel what was queued and, when every completion was handled, lets it complete
    /// more, without waiting. While some are left it takes no more datagrams out of sockets: they
    /// would use up the buffers, and end receives that then have to be armed again. What has no
    /// room in its socket the kernel drops there, which costs this worker nothing.
    pub(crate) fn submit(&mut self) -> io::Result<()> {
        self.queue_socket_steps();
        let is_behind = !self.batch.is_empty() || !self.ring.completion().is_empty();
        let queue = self.ring.submission();
        let queued = queue.len();
        let has_overflowed = queue.cq_overflow();
        let needs_enter = queued > 0 || queue.taskrun() || has_overflowed;
        drop(queue);
        if has_overflowed && !self.is_overflowing {
            self.counters.cq_overflows += 1;
        }
        self.is_overflowing = has_overflowed;
        if is_behind && queued > 0 && !has_overflowed {
            // SAFETY: no flags and no argument: nothing is pointed to.
            let entered = unsafe {
                let submitter = self.ring.submitter();
                submitter.enter::<libc::sigset_t>(queued as u32, 0, 0, None)
            };
            return tolerate(entered);
        }
        if needs_enter && !is_behind {
            tolerate(self.ring.submit())?;
        }
        Ok(())
    }

    /// As [`Self::submit`], then waits until something completes or `timeout` has passed.
    pub(crate) fn submit_and_wait(&mut self, timeout: Duration) -> io::Result<()> {
        self.queue_socket_steps();
        let has_own_work = !self.closed.is_empty() || !self.to_cancel.is_empty() || self.can_arm();
        if has_own_work {
            return tolerate(self.ring.submit());
        }
        let timespec = Timespec::from(timeout);
        let args = SubmitArgs::new().timespec(&timespec);
        tolerate(self.ring.submitter().submit_with_args(1, &args))
    }

    pub(crate) fn counters(&self) -> TierCounters {
        self.counters
    }

    /// Whether no socket is open or closing.
    pub(crate) fn is_empty(&self) -> bool {
        self.sockets.open_count() == 0
    }

    fn on_receive(&mut self, id: SocketId, entry: &cqueue::Entry) -> Option<Completion> {
        let result = entry.result();
        let taken = cqueue::buffer_select(entry.flags()).map(|buffer| {
            self.buffers
                .take(buffer, usize::try_from(result).unwrap_or(0))
        });
        let has_ended = !cqueue::more(entry.flags());
        let Some(socket) = self.sockets.get_mut(id) else {
            debug_assert!(false, "a slot was freed while its receive was armed");
            if let Some((buffer, _)) = taken {
                self.release(buffer);
            }
            return None;
        };
        let owner = socket.owner;
        let is_closing = socket.closing.is_some();
        if has_ended {
            socket.receive = Receive::Ended;
            if is_closing {
                self.finish_close(id);
            } else {
                self.counters.rx_rearmed += 1;
                self.to_arm.push_back(id);
            }
        }
        if result == -libc::ENOBUFS {
            self.counters.rx_buffers_exhausted += 1;
        }
        match taken? {
            (buffer, Some(received)) if !is_closing && result >= 0 => Some(Completion::Received {
                owner,
                meta: RxMeta {
                    source: received.source,
                    socket: owner.socket,
                    truncated: received.truncated,
                },
                buffer,
            }),
            (buffer, _) => {
                self.release(buffer);
                None
            }
        }
    }

    fn on_sent(&mut self, buffer: u16, result: i32) -> Option<Completion> {
        let send = self.sends.get_mut(usize::from(buffer))?.take()?;
        let result = match result {
            0.. => Ok(()),
            _ => Err(Errno::from_raw_os_error(-result)),
        };
        let send = match result {
            Err(errno) if is_stored_icmp_error(errno) => self.send_again(send)?,
            _ => send,
        };
        self.counters.buffers_in_flight -= 1;
        self.buffers.give_back(send.buffer);
        if let Some(socket) = self.sockets.get_mut(send.socket) {
            socket.sends_in_flight -= 1;
            let is_last_of_closing = socket.closing.is_some() && socket.receive == Receive::Ended;
            if is_last_of_closing {
                self.finish_close(send.socket);
            }
        }
        Some(Completion::Sent {
            session: send.session,
            transmit: send.transmit,
            is_made: send.is_made,
            result: result.map_err(send_failure),
        })
    }

    /// Repeats a send that a connected socket's stored ICMP error has refused; gives it back when
    /// it has been repeated, or cannot be.
    #[cold]
    fn send_again(&mut self, mut send: SendInFlight) -> Option<SendInFlight> {
        let is_fit = |socket: &Socket| socket.peer.is_some() && socket.closing.is_none();
        let socket = self.sockets.get_mut(send.socket);
        if send.is_repeated || !socket.is_some_and(|socket| is_fit(socket)) {
            return Some(send);
        }
        send.is_repeated = true;
        let given_back = self.push_send(send).err();
        self.counters.sends_retried += u64::from(given_back.is_none());
        given_back
    }

    /// A cancel that came while the receive was between two states has to be repeated.
    fn on_cancelled(&mut self, id: SocketId, result: i32) {
        if result >= 0 {
            return;
        }
        if let Some(socket) = self.sockets.get_mut(id)
            && socket.closing.is_some()
            && socket.receive == Receive::Armed
        {
            self.to_cancel.push_back(id);
        }
    }

    /// Frees the slot if the kernel has let go of the socket.
    fn finish_close(&mut self, id: SocketId) {
        let is_held = self
            .sockets
            .get_mut(id)
            .is_none_or(|socket| socket.receive == Receive::Armed || socket.sends_in_flight > 0);
        if is_held {
            return;
        }
        let unregistered = self.ring.submitter().register_files_update(id.slot, &[-1]);
        debug_assert!(unregistered.is_ok(), "{unregistered:?}");
        if let Some(Socket {
            closing: Some(ticket),
            fd,
            peer,
            ..
        }) = self.sockets.remove(id)
        {
            drop(fd);
            self.counters.sockets_connected -= u64::from(peer.is_some());
            self.closed.push_back(ticket);
        }
        self.counters.sockets_open = self.sockets.open_count() as u64;
    }

    /// A receive that is armed while no buffer is free ends at once.
    fn can_arm(&self) -> bool {
        !self.to_arm.is_empty() && self.buffers.available() > 0
    }

    fn queue_socket_steps(&mut self) {
        for _ in 0..SOCKET_STEPS_PER_CYCLE {
            if !self.can_arm() {
                break;
            }
            let Some(id) = self.to_arm.pop_front() else {
                break;
            };
            self.arm(id);
        }
        for _ in 0..SOCKET_STEPS_PER_CYCLE {
            let Some(id) = self.to_cancel.pop_front() else {
                break;
            };
            let target = CancelBuilder::user_data(UserData::Receive(id).encode());
            let entry = opcode::AsyncCancel2::new(target)
                .build()
                .user_data(UserData::Cancel(id).encode());
            // SAFETY: the entry points to nothing.
            if !unsafe { self.push(&entry) } {
                self.to_cancel.push_front(id);
                break;
            }
        }
    }

    fn arm(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(id) else {
            return;
        };
        if socket.closing.is_some() || socket.receive == Receive::Armed {
            return;
        }
        socket.receive = Receive::Armed;
        let header: *const libc::msghdr = &raw const *self.receive_header;
        let entry = opcode::RecvMsgMulti::new(Fixed(id.slot), header, buffers::GROUP)
            .build()
            .user_data(UserData::Receive(id).encode());
        // SAFETY: the header is boxed and outlives the ring; nobody writes to it.
        if !unsafe { self.push(&entry) } {
            if let Some(socket) = self.sockets.get_mut(id) {
                socket.receive = Receive::Ended;
            }
            self.to_arm.push_front(id);
        }
    }

    fn watch_doorbell(&mut self) {
        let entry = opcode::PollAdd::new(Fd(self.doorbell), libc::POLLIN as u32)
            .multi(true)
            .build()
            .user_data(UserData::Doorbell.encode());
        // SAFETY: the entry points to nothing. A doorbell that cannot be watched for want of room
        // is looked at when the next wait times out.
        let _ = unsafe { self.push(&entry) };
    }

    /// Queues an entry; submits what is queued already when there is no room. Returns whether it
    /// found room.
    ///
    /// # Safety
    /// What the entry points to must stay valid until its completion.
    unsafe fn push(&mut self, entry: &squeue::Entry) -> bool {
        for _ in 0..2 {
            // SAFETY: the caller's promise.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return true;
            }
            if self.ring.submit().is_err() {
                return false;
            }
        }
        false
    }
}

impl Drop for UringTier {
    /// Makes the kernel let go of buffers and sockets before their memory goes.
    fn drop(&mut self) {
        let everything = CancelBuilder::any();
        let patience = Some(Timespec::new().sec(1));
        // Nothing in flight is reported as an error.
        let _ = self
            .ring
            .submitter()
            .register_sync_cancel(patience, everything);
        let _ = self.ring.submitter().unregister_buf_ring(buffers::GROUP);
    }
}

/// What interrupts an enter without harm: the time is over, a signal came, or completions wait to
/// be reaped first.
fn tolerate(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests;
