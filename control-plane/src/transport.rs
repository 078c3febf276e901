//! SIP transports: sockets on one side, parsed messages and flows on the other.
//!
//! The sockets run on the call thread (a `current_thread` runtime); connections that encrypt or
//! unmask on a thread beside it. [`Transport::recv`] is the only thing that waits;
//! [`Transport::send`] never does. What a peer can make us hold is bounded in number and in bytes,
//! and one that does not read, or writes half a message, is cut without any other noticing. The
//! ready-made driver of the SIP stack was tried and can be frozen by one peer, which is why this
//! one exists.
//!
//! ```text
//!            ┌ Udp: socket ── ≤ 64 datagrams a turn ───────┐
//!  network ──┤                                             ├─▶ recv() ─▶ Inbound
//!            └ Streams: listeners, a task per connection ──┘
//!                      ▲ bounded queue per connection
//!                      └──────────────────────────────◀── send(Transmit)
//! ```
//!
//! RFC 3261 §18 and §26.2, RFC 3581 (the agent writes `rport`; a flow's `remote` is where a message
//! came from), RFC 5626 §4.4.1 (CRLF keep-alive), RFC 5922 (whose certificate it must be), RFC 7118
//! (WebSockets).

mod counters;
mod stream;
#[cfg(test)]
mod tests;
pub mod tls;
mod udp;

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use sipx_sip::Message;
use sipx_sip::error::ParseError;
use tokio::sync::watch;
use trunkline_sip::{ConnectionId, Flow, LocalEnd, LocalEnds, Transmit, TransportKind};

use crate::config::{SipListen, WebSocketConfig};
pub use counters::{StreamCounters, TransportCounters};
use stream::Streams;
use tls::TlsContext;
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

/// What a [`Transport`] is made with, besides its sockets.
#[derive(Debug, Clone)]
pub struct TransportOptions {
    /// What peers can make it hold.
    pub limits: TransportLimits,
    /// Who may open a WebSocket.
    pub websocket: WebSocketConfig,
    /// Certificates, the newest of which a handshake uses; `None` where no socket speaks TLS.
    pub tls: watch::Receiver<Option<Arc<TlsContext>>>,
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

impl Inbound {
    /// Where it happened.
    #[must_use]
    pub fn flow(&self) -> &Flow {
        match self {
            Self::Message { flow, .. }
            | Self::Malformed { flow, .. }
            | Self::ConnectionClosed { flow, .. } => flow,
            Self::Undelivered { transmit } => &transmit.flow,
        }
    }
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
    /// TLS or the WebSocket did not come about: no common ground, a certificate that does not
    /// prove what it should, a refused origin.
    HandshakeFailed,
    /// They did not come about in `handshake_timeout_secs`.
    HandshakeTimeout,
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
    /// The connection has closed, and only the peer can open another.
    #[error("the WebSocket has closed")]
    ConnectionGone,
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

/// All SIP sockets. See the module's description.
pub struct Transport {
    udp: Vec<Udp>,
    streams: Streams,
    bound: Vec<SipListen>,
    ends: Arc<LocalEnds>,
    counters: TransportCounters,
}

impl Transport {
    /// Binds every address of `listen`. To be called inside a tokio runtime.
    ///
    /// # Errors
    /// The first address that cannot be bound.
    pub fn bind(listen: &[SipListen], options: TransportOptions) -> Result<Self, BindError> {
        let limits = options.limits;
        let mut transport = Self {
            udp: Vec::new(),
            streams: Streams::new(options),
            bound: Vec::new(),
            ends: Arc::default(),
            counters: TransportCounters::default(),
        };
        for listen in listen {
            let bound = match listen.transport {
                TransportKind::Udp => Udp::bind(listen.address, limits).map(|udp| {
                    let local = udp.local();
                    transport.udp.push(udp);
                    local
                }),
                kind => transport.streams.listen(kind, listen.address),
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
        let ends = transport.bound.iter().map(local_end).collect();
        transport.ends = Arc::new(LocalEnds::new(ends));
        for udp in &mut transport.udp {
            udp.set_ends(&transport.ends);
        }
        transport.streams.set_ends(Arc::clone(&transport.ends));
        Ok(transport)
    }

    /// What is bound, in the order given, with real ports in place of 0.
    #[must_use]
    pub fn bound(&self) -> &[SipListen] {
        &self.bound
    }

    /// The same as flows know it: [`LocalEnds::flow_to`] makes one for a hop.
    #[must_use]
    pub fn ends(&self) -> &Arc<LocalEnds> {
        &self.ends
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
            self.streams.poll(cx, out, &mut self.counters);
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
        if transmit.flow.kind != TransportKind::Udp {
            return self.streams.send(transmit, &mut self.counters);
        }
        match self.udp.iter_mut().find(|udp| udp.local() == local) {
            Some(udp) => udp.send(transmit, &mut self.counters),
            None => Err(SendError::NoListener(local)),
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> &TransportCounters {
        &self.counters
    }
}

fn local_end(listen: &SipListen) -> LocalEnd {
    let advertised = listen.advertise.as_ref().map(|advertised| {
        let port = advertised.port.unwrap_or(listen.address.port());
        format!("{}:{port}", advertised.host).into()
    });
    LocalEnd {
        kind: listen.transport,
        address: listen.address,
        advertised,
    }
}
