//! One datagram out, one in, with descriptors.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use trunkline_edge_api::handshake::MESSAGE_LEN_MAX;

/// Descriptors with one message: a region and two eventfds.
pub(super) const FDS_MAX: usize = 3;

/// Sends one datagram. Does not raise SIGPIPE.
pub(super) fn send(socket: impl AsFd, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Errno::TOOBIG);
    }
    let iov = [IoSlice::new(message)];
    io::retry_on_intr(|| sendmsg(&socket, &iov, &mut ancillary, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// A datagram as it came in.
pub(super) struct Received {
    bytes: [u8; MESSAGE_LEN_MAX],
    len: usize,
    /// The descriptors with it, closed on exec.
    pub(super) fds: Vec<OwnedFd>,
}

impl Received {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Receives one datagram; an empty one means that the peer has gone. One that is too long, or
/// that has more descriptors than any may, is `EMSGSIZE`.
pub(super) fn receive(socket: impl AsFd) -> io::Result<Received> {
    let mut received = Received {
        bytes: [0; MESSAGE_LEN_MAX],
        len: 0,
        fds: Vec::new(),
    };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let result = io::retry_on_intr(|| {
        let mut iov = [IoSliceMut::new(&mut received.bytes)];
        recvmsg(&socket, &mut iov, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    received.len = result.bytes;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            received.fds.extend(fds);
        }
    }
    if result
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(io::Errno::MSGSIZE);
    }
    Ok(received)
}

/// Whether the peer has closed its end, without waiting.
pub(super) fn has_hung_up(socket: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&socket, PollFlags::RDHUP)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let hang_up = PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR;
    match io::retry_on_intr(|| poll(&mut fds, Some(&now))) {
        Ok(_) => fds[0].revents().intersects(hang_up),
        Err(_) => false,
    }
}
