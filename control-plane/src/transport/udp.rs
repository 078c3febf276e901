//! UDP: one socket per listening address.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket as StdUdpSocket};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use sipx_sip::{Limits, parse_datagram};
use tokio::net::UdpSocket;
use trunkline_sip::{Flow, LocalEnds, Transmit};

use super::{Inbound, SendError, TransportCounters, TransportLimits};

/// Receive buffer asked for, bytes. At 1,500 calls/s the kernel's default of 208 KiB overflowed
/// while the call thread was busy for a few milliseconds; 4 MiB lost nothing.
const RECEIVE_BUFFER_LEN: usize = 4 * 1024 * 1024;

/// Datagrams taken per socket and turn, so that a flood on one does not starve the others.
const BATCH_LEN: usize = 64;

/// Longest datagram there is.
const DATAGRAM_LEN_MAX: usize = 65_535;

/// One socket.
pub(super) struct Udp {
    socket: UdpSocket,
    local: SocketAddr,
    ends: Arc<LocalEnds>,
    limits: TransportLimits,
    parser_limits: Limits,
    buffer: Box<[u8]>,
    /// What the kernel had no room for, oldest first.
    backlog: VecDeque<(SocketAddr, Bytes)>,
}

impl Udp {
    pub(super) fn bind(address: SocketAddr, limits: TransportLimits) -> io::Result<Self> {
        let socket = StdUdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        enlarge_receive_buffer(&socket, address)?;
        Ok(Self {
            local: socket.local_addr()?,
            socket: UdpSocket::from_std(socket)?,
            ends: Arc::default(),
            limits,
            parser_limits: Limits {
                max_message_bytes: limits.message_len_max,
                max_body_bytes: limits.message_len_max,
                ..Limits::datagram()
            },
            buffer: vec![0; DATAGRAM_LEN_MAX].into_boxed_slice(),
            backlog: VecDeque::new(),
        })
    }

    /// Tells flows from now on what our sockets are called.
    pub(super) fn set_ends(&mut self, ends: &Arc<LocalEnds>) {
        self.ends = Arc::clone(ends);
    }

    /// The bound address, with its real port.
    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Vec<Inbound>,
        counters: &mut TransportCounters,
    ) {
        self.poll_backlog(cx, counters);
        let mut taken = 0;
        while let Poll::Ready(Ok(())) = self.socket.poll_recv_ready(cx) {
            loop {
                match self.socket.try_recv_from(&mut self.buffer) {
                    Ok((len, source)) => self.handle_datagram(source, len, out, counters),
                    // The readiness is used up and will be waited for.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => counters.udp_receive_errors += 1,
                }
                taken += 1;
                if taken == BATCH_LEN {
                    cx.waker().wake_by_ref();
                    return;
                }
            }
        }
    }

    fn handle_datagram(
        &mut self,
        source: SocketAddr,
        len: usize,
        out: &mut Vec<Inbound>,
        counters: &mut TransportCounters,
    ) {
        let datagram = &self.buffer[..len];
        // Phones keep their NAT binding alive with a few blanks, line ends or zero bytes.
        if datagram
            .iter()
            .all(|byte| matches!(byte, b'\r' | b'\n' | b' ' | 0))
        {
            counters.udp_keepalives += 1;
            return;
        }
        let bytes = Bytes::copy_from_slice(datagram);
        let flow = Flow {
            ends: Some(Arc::clone(&self.ends)),
            ..Flow::udp(self.local, source)
        };
        out.push(match parse_datagram(bytes.clone(), &self.parser_limits) {
            Ok(message) => {
                counters.udp_messages_received += 1;
                Inbound::Message { flow, message }
            }
            Err(error) => {
                counters.udp_malformed += 1;
                Inbound::Malformed { flow, bytes, error }
            }
        });
    }

    pub(super) fn send(
        &mut self,
        transmit: &Transmit,
        counters: &mut TransportCounters,
    ) -> Result<(), SendError> {
        let remote = transmit.flow.remote;
        // What waits goes first.
        if self.backlog.is_empty() {
            match self.socket.try_send_to(&transmit.bytes, remote) {
                Ok(_) => {
                    counters.udp_messages_sent += 1;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    counters.udp_send_errors += 1;
                    return Err(SendError::Io(error));
                }
            }
        }
        if self.backlog.len() >= self.limits.udp_backlog_len_max {
            counters.udp_backlog_full += 1;
            return Err(SendError::BacklogFull);
        }
        counters.udp_backlogged += 1;
        self.backlog.push_back((remote, transmit.bytes.clone()));
        Ok(())
    }

    fn poll_backlog(&mut self, cx: &mut Context<'_>, counters: &mut TransportCounters) {
        while let Some((remote, bytes)) = self.backlog.front() {
            match self.socket.poll_send_to(cx, bytes, *remote) {
                Poll::Pending => return,
                Poll::Ready(Ok(_)) => counters.udp_messages_sent += 1,
                // As if it was lost on the way: the transaction repeats it or times out.
                Poll::Ready(Err(_)) => counters.udp_send_errors += 1,
            }
            self.backlog.pop_front();
        }
    }
}

/// Asks for [`RECEIVE_BUFFER_LEN`]. The privileged form ignores `net.core.rmem_max`; without the
/// privilege the kernel gives what that allows, which is told once.
fn enlarge_receive_buffer(socket: &StdUdpSocket, address: SocketAddr) -> io::Result<()> {
    use rustix::net::sockopt;
    if sockopt::set_socket_recv_buffer_size_force(socket, RECEIVE_BUFFER_LEN).is_err() {
        sockopt::set_socket_recv_buffer_size(socket, RECEIVE_BUFFER_LEN)?;
    }
    let given = sockopt::socket_recv_buffer_size(socket)?;
    if given < RECEIVE_BUFFER_LEN {
        tracing::warn!(
            %address,
            given,
            asked = RECEIVE_BUFFER_LEN,
            "small SIP receive buffer; raise net.core.rmem_max to {RECEIVE_BUFFER_LEN}"
        );
    }
    Ok(())
}
