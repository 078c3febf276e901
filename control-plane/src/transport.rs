//! SIP transports: sockets on one side, parsed messages and flows on the other.
//!
//! Everything runs on the call thread (a `current_thread` runtime). [`Transport::recv`] is the
//! only thing that waits; [`Transport::send`] never does. What a peer can make us hold is bounded
//! in number and in bytes, and one that does not read, or writes half a message, is cut without
//! any other noticing. The ready-made driver of the SIP stack was tried and can be frozen by one
//! peer, which is why this one exists.
//!
//! ```text
//!            ┌ Udp: socket ── ≤ 64 datagrams a turn ──┐
//!  network ──┤                                        ├─▶ recv() ─▶ Inbound
//!            └ Tcp: listeners, a task per connection ─┘
//!                      ▲ bounded queue per connection
//!                      └──────────────────────────────◀── send(Transmit)
//! ```
//!
//! RFC 3261 §18, RFC 3581 (the agent writes `rport`; a flow's `remote` is where a message came
//! from), RFC 5626 §4.4.1 (CRLF keep-alive). TLS and WebSocket come with their own files.

mod tcp;
#[cfg(test)]
mod tests;
mod udp;

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::Poll;

use bytes::Bytes;
use sipx_sip::Message;
use sipx_sip::error::ParseError;
use trunkline_sip::{ConnectionId, Flow, Transmit, TransportKind};

use crate::config::SipListen;
use tcp::Tcp;
use udp::Udp;

/// What peers can make a [`Transport`] hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransportLimits {
    /// Longest message accepted, bytes, on any transport. 64 KiB is what UDP could carry anyway.
    pub message_len_max: usize,
    /// Longest start line and header section on a connection, bytes.
    pub header_len_max: usize,
    /// Datagrams per socket that wait for the kernel's send buffer.
    pub udp_backlog_len_max: usize,
    /// Connections, accepted and opened.
    pub connections_max: usize,
    /// Accepted connections per IPv4 address or IPv6 /64. A small office behind one address.
    pub connections_per_source_max: usize,
    /// Accepted connections whose handshake is not complete.
    pub handshakes_max: usize,
    /// Time for the TLS and WebSocket handshakes of one connection, seconds.
    pub handshake_timeout_secs: u64,
    /// Bytes that wait for one connection; a message counts as 512 at least. A peer that leaves
    /// more unread is cut.
    pub write_queue_bytes_max: usize,
    /// A connection on which nothing moved for so long is closed, seconds. Longer than the longest
    /// registration, since the phone's only way in may be this connection.
    pub idle_timeout_secs: u64,
    /// A message that has begun must be complete after this, seconds.
    pub partial_message_timeout_secs: u64,
    /// A peer that takes no byte of what waits for so long is cut, seconds. Below the 32 s after
    /// which the transaction gives up.
    pub write_stall_timeout_secs: u64,
    /// Time to open a connection, seconds.
    pub connect_timeout_secs: u64,
}

impl Default for TransportLimits {
    fn default() -> Self {
        Self {
            message_len_max: 65_535,
            header_len_max: 32_768,
            udp_backlog_len_max: 1_024,
            connections_max: 20_000,
            connections_per_source_max: 64,
            handshakes_max: 512,
            handshake_timeout_secs: 5,
            write_queue_bytes_max: 256 * 1024,
            idle_timeout_secs: 3_900,
            partial_message_timeout_secs: 10,
            write_stall_timeout_secs: 10,
            connect_timeout_secs: 5,
        }
    }
}

/// What happened on the network.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are messages; a box would cost each an allocation"
)]
pub enum Inbound {
    /// A message that can be read. Whether it makes sense is not known yet.
    Message {
        /// Where it came from, and how to answer.
        flow: Flow,
        /// The message.
        message: Message,
    },
    /// Bytes that are no message. A 400 may be owed; a connection that sent them closes shortly.
    Malformed {
        /// Where they came from, and how to answer.
        flow: Flow,
        /// The bytes: one datagram, or one message of a stream as far as it could be told apart.
        bytes: Bytes,
        /// What is wrong with them.
        error: ParseError,
    },
    /// A message that [`Transport::send`] took did not go out, or not wholly: its connection could
    /// not be opened, or ended. Comes before the [`Inbound::ConnectionClosed`].
    Undelivered {
        /// The message.
        transmit: Transmit,
    },
    /// A connection is gone, or could not be opened. Its id is not used again.
    ConnectionClosed {
        /// Which.
        connection: ConnectionId,
        /// Its ends.
        flow: Flow,
        /// Why.
        reason: CloseReason,
    },
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The peer closed it.
    Peer,
    /// The transport was dropped.
    Local,
    /// The network or the peer's kernel broke it.
    Failed,
    /// It could not be opened.
    ConnectFailed,
    /// The peer left too much unread, or for too long.
    SlowReader,
    /// Nothing was heard for `idle_timeout_secs`.
    Idle,
    /// A message began and was not completed.
    PartialMessage,
    /// The peer sent what is no SIP; where its next message would begin is not known.
    Malformed,
}

/// Why [`Transport::send`] did not take a message.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The flow's local address is none of ours.
    #[error("no SIP socket is bound to {0}")]
    NoListener(SocketAddr),
    /// The kernel takes nothing and the backlog is full.
    #[error("the UDP send backlog is full")]
    BacklogFull,
    /// A new connection would be one too many.
    #[error("too many connections")]
    TooManyConnections,
    /// The peer does not read: its connection is being closed, and what waits for it comes back as
    /// [`Inbound::Undelivered`].
    #[error("the peer does not read what it is sent")]
    ConnectionClosing,
    /// The kernel refused: no route, too long.
    #[error("the network refused the datagram: {0}")]
    Io(#[source] io::Error),
}

/// A listening socket could not be made.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {listen}: {source}; is [sip] listen an address of this machine, and free?"
)]
pub struct BindError {
    /// Which.
    pub listen: SipListen,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

/// What a [`Transport`] counted since it began. All rise, but for `tcp_connections_active`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransportCounters {
    /// Datagrams that were messages.
    pub udp_messages_received: u64,
    /// Datagrams that the kernel took.
    pub udp_messages_sent: u64,
    /// Datagrams that were no messages.
    pub udp_malformed: u64,
    /// Datagrams of nothing but blanks, line ends and zero bytes.
    pub udp_keepalives: u64,
    /// Errors of the receiving call.
    pub udp_receive_errors: u64,
    /// Datagrams that the kernel refused.
    pub udp_send_errors: u64,
    /// Datagrams that had to wait for the kernel.
    pub udp_backlogged: u64,
    /// Datagrams refused because too many waited.
    pub udp_backlog_full: u64,
    /// Messages cut out of streams.
    pub tcp_messages_received: u64,
    /// Messages queued on a connection.
    pub tcp_messages_sent: u64,
    /// Messages queued that did not go out.
    pub tcp_undelivered: u64,
    /// Streams that ceased to be SIP.
    pub tcp_malformed: u64,
    /// Keep-alives answered.
    pub tcp_keepalives: u64,
    /// Connections now in the table. A gauge.
    pub tcp_connections_active: u64,
    /// Connections that peers opened.
    pub tcp_accepted: u64,
    /// Connections that we began to open.
    pub tcp_opened: u64,
    /// Connections refused, either way, because the table was full.
    pub tcp_refused_full: u64,
    /// Connections refused because their source had enough.
    pub tcp_refused_source: u64,
    /// Errors of the accepting call, say for want of descriptors.
    pub tcp_accept_errors: u64,
    /// Connections ended by the peer or with the transport.
    pub tcp_closed: u64,
    /// Connections broken by the network or the peer's kernel.
    pub tcp_failed: u64,
    /// Connections that could not be opened.
    pub tcp_connect_failed: u64,
    /// Connections cut because the peer did not read.
    pub tcp_cut_slow_reader: u64,
    /// Connections cut because nothing was heard on them.
    pub tcp_cut_idle: u64,
    /// Connections cut because a message was not completed in time.
    pub tcp_cut_partial_message: u64,
    /// Connections cut because of what was no SIP.
    pub tcp_cut_malformed: u64,
}

/// All SIP sockets. See the module's description.
pub struct Transport {
    udp: Vec<Udp>,
    tcp: Tcp,
    bound: Vec<SipListen>,
    counters: TransportCounters,
}

impl Transport {
    /// Binds every address of `listen`. To be called inside a tokio runtime.
    ///
    /// # Errors
    /// The first address that cannot be bound.
    pub fn bind(listen: &[SipListen], limits: TransportLimits) -> Result<Self, BindError> {
        let mut transport = Self {
            udp: Vec::new(),
            tcp: Tcp::new(limits),
            bound: Vec::new(),
            counters: TransportCounters::default(),
        };
        for listen in listen {
            let bound = match listen.transport {
                TransportKind::Udp => Udp::bind(listen.address, limits).map(|udp| {
                    let local = udp.local();
                    transport.udp.push(udp);
                    local
                }),
                TransportKind::Tcp => transport.tcp.listen(listen.address),
                TransportKind::Tls | TransportKind::Ws | TransportKind::Wss => {
                    Err(io::ErrorKind::Unsupported.into())
                }
            };
            let address = bound.map_err(|source| BindError {
                listen: listen.clone(),
                source,
            })?;
            transport.bound.push(SipListen {
                address,
                ..listen.clone()
            });
        }
        Ok(transport)
    }

    /// What is bound, in the order given, with real ports in place of 0.
    #[must_use]
    pub fn bound(&self) -> &[SipListen] {
        &self.bound
    }

    /// Waits until something happened and appends it to `out`, oldest first per peer: at most 64
    /// items from each socket and 64 from all connections together. Nothing is lost when the
    /// future is dropped.
    pub async fn recv(&mut self, out: &mut Vec<Inbound>) {
        let before = out.len();
        poll_fn(|cx| {
            for udp in &mut self.udp {
                udp.poll(cx, out, &mut self.counters);
            }
            self.tcp.poll(cx, out, &mut self.counters);
            if out.len() > before {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Hands a message to the kernel or to the queue of its connection, which is reused or opened.
    /// Never waits.
    ///
    /// # Errors
    /// The message was not taken. What fails later is an [`Inbound::Undelivered`].
    pub fn send(&mut self, transmit: &Transmit) -> Result<(), SendError> {
        let local = transmit.flow.local;
        match transmit.flow.kind {
            TransportKind::Udp => match self.udp.iter_mut().find(|udp| udp.local() == local) {
                Some(udp) => udp.send(transmit, &mut self.counters),
                None => Err(SendError::NoListener(local)),
            },
            TransportKind::Tcp => self.tcp.send(transmit, &mut self.counters),
            TransportKind::Tls | TransportKind::Ws | TransportKind::Wss => {
                Err(SendError::NoListener(local))
            }
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> &TransportCounters {
        &self.counters
    }
}
