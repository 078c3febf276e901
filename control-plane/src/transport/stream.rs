//! TCP, TLS, WS and WSS: listeners, the table of connections and its limits.
//!
//! The table lives on the call thread. Connections of TCP do, too; those which have to encrypt or
//! to unmask run on a thread of their own, so that no handshake takes time from calls.

mod bytes_io;
mod clock;
mod codec;
mod connection;
mod framer;
mod opening;
mod web;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Sleep;
use trunkline_sip::{ConnectionId, Flow, LocalEnds, Transmit, TransportKind};

use super::{Inbound, SendError, TransportCounters, TransportOptions};
use connection::{Connection, QueueWeight, Report};
use opening::{Opening, Origin};

/// Connections that wait to be accepted, per listener. The kernel cuts it to `somaxconn`.
const LISTEN_BACKLOG: u32 = 1_024;

/// Reports that wait for the call thread. When they are this many, connections stop reading.
const REPORTS_LEN_MAX: usize = 256;

/// Connections accepted and reports taken per turn, so that no listener starves the others.
const BATCH_LEN: usize = 64;

/// Rest after `accept` failed for want of descriptors or memory: at once it would fail again.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Everything on connections.
pub(super) struct Streams {
    listeners: Vec<Listener>,
    options: TransportOptions,
    origins: Arc<[String]>,
    /// Our sockets as peers are told of them.
    ends: Arc<LocalEnds>,
    connections: HashMap<ConnectionId, Entry>,
    /// The newest connection between one of our addresses and a peer: a request takes this one.
    by_ends: HashMap<Ends, ConnectionId>,
    accepted_per_source: HashMap<IpAddr, usize>,
    /// Accepted connections whose handshakes are not done.
    handshaking: usize,
    next_id: u64,
    reports: mpsc::Receiver<Report>,
    reporter: mpsc::Sender<Report>,
    accept_rest: Option<Pin<Box<Sleep>>>,
    /// Runs what is not plain TCP; made when the first such socket is bound.
    crypto: Option<CryptoThread>,
}

struct Listener {
    socket: TcpListener,
    kind: TransportKind,
    local: SocketAddr,
}

/// What is spoken, the listening address that a peer knows us by, and the peer's.
type Ends = (TransportKind, SocketAddr, SocketAddr);

/// A connection as the table sees it.
struct Entry {
    ends: Ends,
    /// What the peer's certificate was seen to name; `None` where nobody asked.
    domain: Option<Arc<str>>,
    is_accepted: bool,
    is_handshaking: bool,
    queue: mpsc::UnboundedSender<Transmit>,
    weight: QueueWeight,
    /// `None` once the connection is being cut: nothing more is sent on it.
    cut: Option<oneshot::Sender<()>>,
}

/// The thread of connections that encrypt or unmask.
struct CryptoThread {
    handle: Handle,
    /// Dropped, it ends the thread and every connection there.
    _stop: oneshot::Sender<()>,
}

impl CryptoThread {
    fn spawn() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        std::thread::Builder::new()
            .name("sip-streams".to_owned())
            .spawn(move || {
                // A dropped sender is what is waited for.
                let _ = runtime.block_on(stopped);
            })?;
        Ok(Self {
            handle,
            _stop: stop,
        })
    }
}

impl Streams {
    pub(super) fn new(options: TransportOptions) -> Self {
        let (reporter, reports) = mpsc::channel(REPORTS_LEN_MAX);
        Self {
            listeners: Vec::new(),
            origins: options.websocket.origins.clone().into(),
            options,
            ends: Arc::default(),
            connections: HashMap::new(),
            by_ends: HashMap::new(),
            accepted_per_source: HashMap::new(),
            handshaking: 0,
            next_id: 1,
            reports,
            reporter,
            accept_rest: None,
            crypto: None,
        }
    }

    /// Tells connections from now on what our sockets are called.
    pub(super) fn set_ends(&mut self, ends: Arc<LocalEnds>) {
        self.ends = ends;
    }

    /// Listens on `address` and returns it with its real port.
    pub(super) fn listen(
        &mut self,
        kind: TransportKind,
        address: SocketAddr,
    ) -> io::Result<SocketAddr> {
        if kind != TransportKind::Tcp && self.crypto.is_none() {
            self.crypto = Some(CryptoThread::spawn()?);
        }
        let socket = opening::new_socket(address)?;
        // A restart must not wait for the last life's connections to leave TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let socket = socket.listen(LISTEN_BACKLOG)?;
        let local = socket.local_addr()?;
        self.listeners.push(Listener {
            socket,
            kind,
            local,
        });
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
                Report::Pong(kind) => counters.stream_mut(kind).keepalives += 1,
                Report::Opened(id) => self.note_opened(id),
                Report::Inbound(inbound) => {
                    self.note(&inbound, counters);
                    out.push(inbound);
                }
            }
        }
        counters.connections_active = self.connections.len() as u64;
        counters.handshakes_active = self.handshaking as u64;
    }

    fn note(&mut self, inbound: &Inbound, counters: &mut TransportCounters) {
        let counters = counters.stream_mut(inbound.flow().kind);
        match inbound {
            Inbound::Message { .. } => counters.messages_received += 1,
            Inbound::Malformed { .. } => counters.malformed += 1,
            Inbound::Undelivered { .. } => counters.undelivered += 1,
            Inbound::ConnectionClosed {
                connection, reason, ..
            } => {
                counters.count_close(*reason);
                self.forget(*connection);
            }
        }
    }

    fn note_opened(&mut self, id: ConnectionId) {
        if let Some(entry) = self.connections.get_mut(&id)
            && std::mem::take(&mut entry.is_handshaking)
        {
            self.handshaking -= 1;
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
                let Listener {
                    socket,
                    kind,
                    local,
                } = &self.listeners[index];
                let (kind, local) = (*kind, *local);
                match socket.poll_accept(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Ok((stream, remote))) => {
                        let flow = Flow {
                            ends: Some(Arc::clone(&self.ends)),
                            ..Flow::new(kind, local, remote, None)
                        };
                        self.accept(stream, flow, counters);
                    }
                    Poll::Ready(Err(error)) => {
                        counters.stream_mut(kind).accept_errors += 1;
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

    fn accept(
        &mut self,
        stream: tokio::net::TcpStream,
        flow: Flow,
        counters: &mut TransportCounters,
    ) {
        let limits = &self.options.limits;
        let counters = counters.stream_mut(flow.kind);
        let source = source_of(flow.remote.ip());
        let from_source = self.accepted_per_source.get(&source).copied().unwrap_or(0);
        let shakes_hands = flow.kind != TransportKind::Tcp;
        if self.connections.len() >= limits.connections_max {
            counters.refused_full += 1;
        } else if from_source >= limits.connections_per_source_max {
            counters.refused_source += 1;
        } else if shakes_hands && self.handshaking >= limits.handshakes_max {
            counters.refused_handshakes += 1;
        } else if let Ok(stream) = stream.into_std() {
            counters.accepted += 1;
            *self.accepted_per_source.entry(source).or_insert(0) += 1;
            self.start(flow, Origin::Accepted(stream));
        } else {
            counters.accept_errors += 1;
        }
    }

    fn start(&mut self, mut flow: Flow, origin: Origin) -> ConnectionId {
        let id = ConnectionId(self.next_id);
        self.next_id += 1;
        flow.connection = Some(id);
        let kind = flow.kind;
        let (queue, queued) = mpsc::unbounded_channel();
        let (cut, is_cut) = oneshot::channel();
        let weight = QueueWeight::default();
        let is_accepted = matches!(origin, Origin::Accepted(_));
        let is_handshaking = is_accepted && kind != TransportKind::Tcp;
        self.handshaking += usize::from(is_handshaking);
        let entry = Entry {
            ends: (kind, flow.local, flow.remote),
            domain: flow.domain.clone().filter(|_| !is_accepted),
            is_accepted,
            is_handshaking,
            queue,
            weight: weight.clone(),
            cut: Some(cut),
        };
        self.by_ends.insert(entry.ends, id);
        self.connections.insert(id, entry);
        let connection = Connection {
            flow,
            limits: self.options.limits,
            ping_interval_secs: self.options.websocket.ping_interval_secs,
            reports: self.reporter.clone(),
            queue: queued,
            weight,
            cut: Some(is_cut),
        };
        let opening = Opening {
            tls: self.options.tls.borrow().clone(),
            origins: Arc::clone(&self.origins),
        };
        let task = connection.run(origin, opening);
        match &self.crypto {
            Some(thread) if kind != TransportKind::Tcp => thread.handle.spawn(task),
            _ => tokio::spawn(task),
        };
        id
    }

    fn forget(&mut self, id: ConnectionId) {
        let Some(entry) = self.connections.remove(&id) else {
            return;
        };
        if self.by_ends.get(&entry.ends) == Some(&id) {
            self.by_ends.remove(&entry.ends);
        }
        self.handshaking -= usize::from(entry.is_handshaking);
        let source = source_of(entry.ends.2.ip());
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
        let counters = counters.stream_mut(flow.kind);
        let named = flow.connection.filter(|id| self.is_usable(*id));
        let known = || {
            let ends = (flow.kind, flow.local, flow.remote);
            let id = self.by_ends.get(&ends).copied();
            id.filter(|id| self.is_usable(*id) && self.is_proven(*id, flow))
        };
        let id = match named.or_else(known) {
            Some(id) => id,
            None => {
                let is_ours = |l: &Listener| l.kind == flow.kind && l.local == flow.local;
                if !self.listeners.iter().any(is_ours) {
                    return Err(SendError::NoListener(flow.local));
                }
                if flow.kind.is_web() {
                    return Err(SendError::ConnectionGone);
                }
                if self.connections.len() >= self.options.limits.connections_max {
                    counters.refused_full += 1;
                    return Err(SendError::TooManyConnections);
                }
                counters.opened += 1;
                self.start(flow.clone(), Origin::Connect)
            }
        };
        let Some(entry) = self.connections.get_mut(&id) else {
            return Err(SendError::ConnectionClosing);
        };
        if !entry
            .weight
            .reserve(transmit, self.options.limits.write_queue_bytes_max)
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
        counters.messages_sent += 1;
        Ok(())
    }

    /// Whether the peer of a connection has shown a certificate for the domain that `flow` asks
    /// for: several domains may live at one address.
    fn is_proven(&self, id: ConnectionId, flow: &Flow) -> bool {
        let entry = self.connections.get(&id);
        flow.domain.is_none() || entry.is_some_and(|entry| entry.domain == flow.domain)
    }

    fn is_usable(&self, id: ConnectionId) -> bool {
        let entry = self.connections.get(&id);
        entry.is_some_and(|entry| entry.cut.is_some() && !entry.queue.is_closed())
    }
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
