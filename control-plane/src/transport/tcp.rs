//! TCP: listeners, the table of connections and its limits.

mod connection;
mod framer;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Sleep;
use trunkline_sip::{ConnectionId, Flow, Transmit};

use super::{CloseReason, Inbound, SendError, TransportCounters, TransportLimits};
use connection::{Connection, Origin, QueueWeight, Report};

/// Connections that wait to be accepted, per listener. The kernel cuts it to `somaxconn`.
const LISTEN_BACKLOG: u32 = 1_024;

/// Reports that wait for the call thread. When they are this many, connections stop reading.
const REPORTS_LEN_MAX: usize = 256;

/// Connections accepted and reports taken per turn, so that no listener starves the others.
const BATCH_LEN: usize = 64;

/// Rest after `accept` failed for want of descriptors or memory: at once it would fail again.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Everything TCP.
pub(super) struct Tcp {
    listeners: Vec<(TcpListener, SocketAddr)>,
    limits: TransportLimits,
    connections: HashMap<ConnectionId, Entry>,
    /// The newest connection between one of our addresses and a peer: a request takes this one.
    by_ends: HashMap<Ends, ConnectionId>,
    accepted_per_source: HashMap<IpAddr, usize>,
    next_id: u64,
    reports: mpsc::Receiver<Report>,
    reporter: mpsc::Sender<Report>,
    accept_rest: Option<Pin<Box<Sleep>>>,
}

/// The listening address that a peer knows us by, and the peer's.
type Ends = (SocketAddr, SocketAddr);

/// A connection as the table sees it.
struct Entry {
    ends: Ends,
    is_accepted: bool,
    queue: mpsc::UnboundedSender<Transmit>,
    weight: QueueWeight,
    /// `None` once the connection is being cut: nothing more is sent on it.
    cut: Option<oneshot::Sender<()>>,
}

impl Tcp {
    pub(super) fn new(limits: TransportLimits) -> Self {
        let (reporter, reports) = mpsc::channel(REPORTS_LEN_MAX);
        Self {
            listeners: Vec::new(),
            limits,
            connections: HashMap::new(),
            by_ends: HashMap::new(),
            accepted_per_source: HashMap::new(),
            next_id: 1,
            reports,
            reporter,
            accept_rest: None,
        }
    }

    /// Listens on `address` and returns it with its real port.
    pub(super) fn listen(&mut self, address: SocketAddr) -> io::Result<SocketAddr> {
        let socket = new_socket(address)?;
        // A restart must not wait for the last life's connections to leave TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(LISTEN_BACKLOG)?;
        let local = listener.local_addr()?;
        self.listeners.push((listener, local));
        Ok(local)
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Vec<Inbound>,
        counters: &mut TransportCounters,
    ) {
        self.poll_accept(cx, counters);
        for taken in 0.. {
            if taken == BATCH_LEN {
                cx.waker().wake_by_ref();
                break;
            }
            let Poll::Ready(Some(report)) = self.reports.poll_recv(cx) else {
                break;
            };
            match report {
                Report::Pong => counters.tcp_keepalives += 1,
                Report::Inbound(inbound) => {
                    self.note(&inbound, counters);
                    out.push(inbound);
                }
            }
        }
        counters.tcp_connections_active = self.connections.len() as u64;
    }

    fn note(&mut self, inbound: &Inbound, counters: &mut TransportCounters) {
        match inbound {
            Inbound::Message { .. } => counters.tcp_messages_received += 1,
            Inbound::Malformed { .. } => counters.tcp_malformed += 1,
            Inbound::Undelivered { .. } => counters.tcp_undelivered += 1,
            Inbound::ConnectionClosed {
                connection, reason, ..
            } => {
                counters.count_close(*reason);
                self.forget(*connection);
            }
        }
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>, counters: &mut TransportCounters) {
        if let Some(rest) = &mut self.accept_rest {
            match rest.as_mut().poll(cx) {
                Poll::Pending => return,
                Poll::Ready(()) => self.accept_rest = None,
            }
        }
        for index in 0..self.listeners.len() {
            for taken in 0.. {
                if taken == BATCH_LEN {
                    cx.waker().wake_by_ref();
                    break;
                }
                let (listener, local) = &self.listeners[index];
                let local = *local;
                match listener.poll_accept(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Ok((stream, remote))) => {
                        self.accept(stream, Flow::tcp(local, remote, None), counters);
                    }
                    Poll::Ready(Err(error)) => {
                        counters.tcp_accept_errors += 1;
                        tracing::warn!(%error, "cannot accept SIP connections for a moment");
                        let mut rest = Box::pin(tokio::time::sleep(ACCEPT_REST));
                        // Polled once, so that its end wakes this task.
                        if rest.as_mut().poll(cx).is_pending() {
                            self.accept_rest = Some(rest);
                        }
                        return;
                    }
                }
            }
        }
    }

    fn accept(&mut self, stream: TcpStream, flow: Flow, counters: &mut TransportCounters) {
        let source = source_of(flow.remote.ip());
        let from_source = self.accepted_per_source.get(&source).copied().unwrap_or(0);
        if self.connections.len() >= self.limits.connections_max {
            counters.tcp_refused_full += 1;
        } else if from_source >= self.limits.connections_per_source_max {
            counters.tcp_refused_source += 1;
        } else {
            counters.tcp_accepted += 1;
            *self.accepted_per_source.entry(source).or_insert(0) += 1;
            self.start(flow, Origin::Accepted(stream));
        }
    }

    fn start(&mut self, mut flow: Flow, origin: Origin) -> ConnectionId {
        let id = ConnectionId(self.next_id);
        self.next_id += 1;
        flow.connection = Some(id);
        let (queue, queued) = mpsc::unbounded_channel();
        let (cut, is_cut) = oneshot::channel();
        let weight = QueueWeight::default();
        let entry = Entry {
            ends: (flow.local, flow.remote),
            is_accepted: matches!(origin, Origin::Accepted(_)),
            queue,
            weight: weight.clone(),
            cut: Some(cut),
        };
        self.by_ends.insert(entry.ends, id);
        self.connections.insert(id, entry);
        let connection = Connection {
            flow,
            limits: self.limits,
            reports: self.reporter.clone(),
            queue: queued,
            weight,
            cut: is_cut,
        };
        tokio::spawn(connection.run(origin));
        id
    }

    fn forget(&mut self, id: ConnectionId) {
        let Some(entry) = self.connections.remove(&id) else {
            return;
        };
        if self.by_ends.get(&entry.ends) == Some(&id) {
            self.by_ends.remove(&entry.ends);
        }
        let source = source_of(entry.ends.1.ip());
        if entry.is_accepted
            && let Some(count) = self.accepted_per_source.get_mut(&source)
        {
            *count -= 1;
            if *count == 0 {
                self.accepted_per_source.remove(&source);
            }
        }
    }

    /// Queues `transmit` on the connection it names, on one to its destination, or on a new one.
    pub(super) fn send(
        &mut self,
        transmit: &Transmit,
        counters: &mut TransportCounters,
    ) -> Result<(), SendError> {
        let flow = &transmit.flow;
        let named = flow.connection.filter(|id| self.is_usable(*id));
        let known = || {
            let ends = (flow.local, flow.remote);
            self.by_ends
                .get(&ends)
                .copied()
                .filter(|id| self.is_usable(*id))
        };
        let id = match named.or_else(known) {
            Some(id) => id,
            None => {
                if !self.listeners.iter().any(|(_, local)| *local == flow.local) {
                    return Err(SendError::NoListener(flow.local));
                }
                if self.connections.len() >= self.limits.connections_max {
                    counters.tcp_refused_full += 1;
                    return Err(SendError::TooManyConnections);
                }
                counters.tcp_opened += 1;
                self.start(flow.clone(), Origin::Connect)
            }
        };
        let Some(entry) = self.connections.get_mut(&id) else {
            return Err(SendError::ConnectionClosing);
        };
        if !entry
            .weight
            .reserve(transmit, self.limits.write_queue_bytes_max)
        {
            // The peer does not read. What it has not read will never be of use to it.
            if let Some(cut) = entry.cut.take() {
                // Fails only when the task has just ended by itself.
                let _ = cut.send(());
            }
            return Err(SendError::ConnectionClosing);
        }
        entry
            .queue
            .send(transmit.clone())
            .map_err(|_| SendError::ConnectionClosing)?;
        counters.tcp_messages_sent += 1;
        Ok(())
    }

    fn is_usable(&self, id: ConnectionId) -> bool {
        let entry = self.connections.get(&id);
        entry.is_some_and(|entry| entry.cut.is_some() && !entry.queue.is_closed())
    }
}

fn new_socket(address: SocketAddr) -> io::Result<TcpSocket> {
    if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }
}

/// Opens the connection of `flow`, from the IP that the peer knows us by.
async fn connect(flow: &Flow) -> io::Result<TcpStream> {
    let socket = new_socket(flow.local)?;
    socket.bind(SocketAddr::new(flow.local.ip(), 0))?;
    socket.connect(flow.remote).await
}

/// Whom the limit per source counts: an IPv4 address, or an IPv6 /64, which one subscriber has to
/// itself.
fn source_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    }
}

impl TransportCounters {
    fn count_close(&mut self, reason: CloseReason) {
        let counter = match reason {
            CloseReason::Peer | CloseReason::Local => &mut self.tcp_closed,
            CloseReason::Failed => &mut self.tcp_failed,
            CloseReason::ConnectFailed => &mut self.tcp_connect_failed,
            CloseReason::SlowReader => &mut self.tcp_cut_slow_reader,
            CloseReason::Idle => &mut self.tcp_cut_idle,
            CloseReason::PartialMessage => &mut self.tcp_cut_partial_message,
            CloseReason::Malformed => &mut self.tcp_cut_malformed,
        };
        *counter += 1;
    }
}
