//! What the sockets count.

use trunkline_sip::TransportKind;

use super::CloseReason;

/// What a [`Transport`](super::Transport) counted since it began. All rise, but for those named
/// `_active`.
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
    /// TCP.
    pub tcp: StreamCounters,
    /// TLS.
    pub tls: StreamCounters,
    /// WebSockets.
    pub ws: StreamCounters,
    /// WebSockets inside TLS.
    pub wss: StreamCounters,
    /// Connections now in the table. A gauge.
    pub connections_active: u64,
    /// Accepted connections whose handshake is not done. A gauge.
    pub handshakes_active: u64,
}

/// What the connections of one kind counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamCounters {
    /// Messages cut out of streams.
    pub messages_received: u64,
    /// Messages queued on a connection.
    pub messages_sent: u64,
    /// Messages queued that did not go out.
    pub undelivered: u64,
    /// Messages that could not be read. On TCP and TLS each ends its connection.
    pub malformed: u64,
    /// Keep-alives answered.
    pub keepalives: u64,
    /// Connections that peers opened.
    pub accepted: u64,
    /// Connections that we began to open.
    pub opened: u64,
    /// Connections refused, either way, because the table was full.
    pub refused_full: u64,
    /// Connections refused because their source had enough.
    pub refused_source: u64,
    /// Connections refused because too many shook hands.
    pub refused_handshakes: u64,
    /// Errors of the accepting call, say for want of descriptors.
    pub accept_errors: u64,
    /// Connections ended by the peer or with the transport.
    pub closed: u64,
    /// Connections broken by the network or the peer's kernel.
    pub failed: u64,
    /// Connections that could not be opened.
    pub connect_failed: u64,
    /// Connections whose TLS or WebSocket did not come about.
    pub handshake_failed: u64,
    /// Connections cut because it took too long.
    pub handshake_timeout: u64,
    /// Connections cut because the peer did not read.
    pub cut_slow_reader: u64,
    /// Connections cut because nothing was heard on them.
    pub cut_idle: u64,
    /// Connections cut because a message was not completed in time.
    pub cut_partial_message: u64,
    /// Connections cut because of what was no SIP, or no WebSocket.
    pub cut_malformed: u64,
}

impl TransportCounters {
    /// Those of one kind of connection; UDP has none and gets TCP's.
    pub(super) fn stream_mut(&mut self, kind: TransportKind) -> &mut StreamCounters {
        match kind {
            TransportKind::Udp | TransportKind::Tcp => &mut self.tcp,
            TransportKind::Tls => &mut self.tls,
            TransportKind::Ws => &mut self.ws,
            TransportKind::Wss => &mut self.wss,
        }
    }
}

impl StreamCounters {
    pub(super) fn count_close(&mut self, reason: CloseReason) {
        let counter = match reason {
            CloseReason::Peer | CloseReason::Local => &mut self.closed,
            CloseReason::Failed => &mut self.failed,
            CloseReason::ConnectFailed => &mut self.connect_failed,
            CloseReason::HandshakeFailed => &mut self.handshake_failed,
            CloseReason::HandshakeTimeout => &mut self.handshake_timeout,
            CloseReason::SlowReader => &mut self.cut_slow_reader,
            CloseReason::Idle => &mut self.cut_idle,
            CloseReason::PartialMessage => &mut self.cut_partial_message,
            CloseReason::Malformed => &mut self.cut_malformed,
        };
        *counter += 1;
    }
}
