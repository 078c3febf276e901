//! What the io_uring tier keeps of a socket between bind and close.
//!
//! A slot is the socket's index in the registered file table. It is used again only after its
//! receive has ended and its last send has completed, so no completion can be taken for another
//! socket's; the generation in each completion's user data is checked all the same.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use crate::session_table::SocketOwner;
use crate::tier::CloseTicket;

/// A bound socket and what the kernel still does with it.
pub(super) struct Socket {
    /// Whom the socket's datagrams are for.
    pub(super) owner: SocketOwner,
    pub(super) receive: Receive,
    /// Sends that have not completed.
    pub(super) sends_in_flight: u32,
    /// What to say when the socket is closed; `None` while it is open.
    pub(super) closing: Option<CloseTicket>,
    pub(super) fd: OwnedFd,
    /// Whom it is connected to.
    pub(super) peer: Option<SocketAddr>,
}

/// The socket's multishot receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Receive {
    /// The kernel has it.
    Armed,
    /// It ended, or was never armed, and waits for its turn.
    Ended,
}
