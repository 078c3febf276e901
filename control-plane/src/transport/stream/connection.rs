//! One connection: a task that moves bytes and knows when to stop.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep_until;
use trunkline_sip::{ConnectionId, Flow, Transmit, TransportKind};

use super::bytes_io::ByteStream;
use super::clock::{Clock, Due};
use super::codec::Codec;
use super::framer::Framed;
use super::opening::{Opening, Origin};
use crate::transport::{CloseReason, Inbound, TransportLimits};

/// How long a connection stays for the 400 after it sent what is no SIP.
const LINGER: Duration = Duration::from_millis(500);

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_millis(500);

/// What a message weighs in the write queue at least, so that many small ones are bounded, too.
const MESSAGE_WEIGHT_MIN: usize = 512;

/// What a connection's task tells the transport.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are messages; a box would cost each an allocation"
)]
pub(super) enum Report {
    /// Something for the call thread.
    Inbound(Inbound),
    /// A keep-alive of a connection of this kind was answered.
    Pong(TransportKind),
    /// The handshakes of a connection are done.
    Opened(ConnectionId),
}

/// Messages waiting for a connection, by weight.
#[derive(Debug, Clone, Default)]
pub(super) struct QueueWeight(Arc<AtomicUsize>);

impl QueueWeight {
    fn of(transmit: &Transmit) -> usize {
        transmit.bytes.len().max(MESSAGE_WEIGHT_MIN)
    }

    /// Takes room for `transmit`; `false` when there is none.
    pub(super) fn reserve(&self, transmit: &Transmit, max: usize) -> bool {
        let weight = Self::of(transmit);
        if self.0.fetch_add(weight, Ordering::Relaxed) + weight > max {
            self.release(transmit);
            return false;
        }
        true
    }

    fn release(&self, transmit: &Transmit) {
        self.0.fetch_sub(Self::of(transmit), Ordering::Relaxed);
    }
}

/// A connection's task, before and while it runs.
pub(super) struct Connection {
    /// Its `connection` is this connection's id.
    pub(super) flow: Flow,
    pub(super) limits: TransportLimits,
    /// Seconds of silence before a ping; 0 for none.
    pub(super) ping_interval_secs: u64,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) queue: mpsc::UnboundedReceiver<Transmit>,
    pub(super) weight: QueueWeight,
    /// Fires when the peer has left too much unread.
    pub(super) cut: Option<oneshot::Receiver<()>>,
}

/// What is being written.
#[derive(Default)]
struct Writing {
    bytes: Bytes,
    /// The message that `bytes` is; `None` for what the protocol itself has to say.
    transmit: Option<Transmit>,
    /// TLS may hold back what it took.
    must_flush: bool,
}

impl Writing {
    fn is_done(&self) -> bool {
        self.bytes.is_empty() && !self.must_flush
    }
}

/// What a connection's task woke up for.
enum Wake {
    Cut,
    Deadline,
    Queued(Option<Transmit>),
    Wrote(io::Result<()>),
    Read(io::Result<usize>),
}

impl Connection {
    /// Runs until the connection ends, then reports what could not be delivered and that it ended.
    pub(super) async fn run(mut self, origin: Origin, opening: Opening) {
        let owes_a_message = matches!(origin, Origin::Accepted(_)) && !self.flow.kind.is_web();
        let mut writing = Writing::default();
        let reason = match opening.open(origin, &self.flow, &self.limits).await {
            Ok((stream, codec)) => {
                let clock = Clock::new(&self.limits, owes_a_message);
                self.serve(stream, codec, clock, &mut writing).await
            }
            Err(reason) => reason,
        };
        self.queue.close();
        let queued = std::iter::from_fn(|| self.queue.try_recv().ok());
        let undelivered: Vec<Transmit> = writing.transmit.into_iter().chain(queued).collect();
        for transmit in undelivered {
            let report = Report::Inbound(Inbound::Undelivered { transmit });
            if self.reports.send(report).await.is_err() {
                return;
            }
        }
        if let Some(connection) = self.flow.connection {
            let closed = Inbound::ConnectionClosed {
                connection,
                flow: self.flow,
                reason,
            };
            // Fails only when nobody is left to hear it.
            let _ = self.reports.send(Report::Inbound(closed)).await;
        }
    }

    async fn serve(
        &mut self,
        mut stream: ByteStream,
        mut codec: Codec,
        mut clock: Clock,
        writing: &mut Writing,
    ) -> CloseReason {
        if let Some(connection) = self.flow.connection
            && self.reports.send(Report::Opened(connection)).await.is_err()
        {
            return CloseReason::Local;
        }
        if self.flow.kind.is_web() && self.ping_interval_secs > 0 {
            clock.ping_after(Duration::from_secs(self.ping_interval_secs));
        }
        let reason = loop {
            if writing.is_done() {
                let control = codec.take_control();
                if !control.is_empty() {
                    writing.bytes = control;
                    clock.write_began();
                }
            }
            let (deadline, due) = clock.deadline(!writing.is_done());
            let mut sleep = pin!(sleep_until(deadline));
            let may_read = !clock.is_ending();
            let wake = poll_fn(|cx| {
                if sleep.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Wake::Deadline);
                }
                self.poll(cx, &mut stream, &mut codec, writing, may_read)
            });
            match wake.await {
                Wake::Cut => break CloseReason::SlowReader,
                Wake::Deadline => match due {
                    Due::Close(reason) => break reason,
                    Due::Ping => {
                        codec.ping();
                        clock.pinged();
                    }
                },
                Wake::Queued(None) => break CloseReason::Local,
                Wake::Queued(Some(transmit)) => {
                    writing.bytes = codec.encode(&transmit.bytes);
                    writing.transmit = Some(transmit);
                    if writing.bytes.is_empty() {
                        // A WebSocket that is closing takes nothing more.
                        break CloseReason::Peer;
                    }
                    clock.write_began();
                }
                Wake::Wrote(Ok(())) => {
                    clock.wrote();
                    if writing.is_done()
                        && let Some(transmit) = writing.transmit.take()
                    {
                        self.weight.release(&transmit);
                    }
                }
                Wake::Read(Ok(0)) => break CloseReason::Peer,
                Wake::Read(Ok(_)) => {
                    if let Err(reason) = self.deliver(&mut codec, &mut clock).await {
                        break reason;
                    }
                }
                Wake::Wrote(Err(_)) | Wake::Read(Err(_)) => break CloseReason::Failed,
            }
        };
        if reason.leaves_time_for_goodbye() && writing.is_done() {
            // A peer that is gone does not hear it.
            let goodbye = say_goodbye(&mut stream, codec.goodbye());
            let _ = tokio::time::timeout(GOODBYE, goodbye).await;
        }
        reason
    }

    /// Whatever is ready first, in the order of urgency.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut ByteStream,
        codec: &mut Codec,
        writing: &mut Writing,
        may_read: bool,
    ) -> Poll<Wake> {
        if let Some(cut) = &mut self.cut
            && let Poll::Ready(cut) = std::pin::Pin::new(cut).poll(cx)
        {
            self.cut = None;
            // The table dropped its end: the queue is about to close, too.
            if cut.is_ok() {
                return Poll::Ready(Wake::Cut);
            }
        }
        if writing.is_done() {
            if let Poll::Ready(queued) = self.queue.poll_recv(cx) {
                return Poll::Ready(Wake::Queued(queued));
            }
        } else if let Poll::Ready(outcome) = poll_write(cx, stream, writing) {
            return Poll::Ready(Wake::Wrote(outcome));
        }
        if may_read && let Poll::Ready(outcome) = stream.poll_read(cx, codec.read_buffer()) {
            return Poll::Ready(Wake::Read(outcome));
        }
        Poll::Pending
    }

    /// Hands on what is complete. Waits while the call thread is behind: the peer then fills its
    /// window and waits, too.
    async fn deliver(&self, codec: &mut Codec, clock: &mut Clock) -> Result<(), CloseReason> {
        while let Some(framed) = codec.next() {
            let flow = self.flow.clone();
            let report = match framed {
                Framed::Message(message) => {
                    clock.message_completed();
                    Report::Inbound(Inbound::Message { flow, message })
                }
                Framed::Ping => Report::Pong(self.flow.kind),
                Framed::Malformed { bytes, error } => {
                    clock.end_after(LINGER);
                    Report::Inbound(Inbound::Malformed { flow, bytes, error })
                }
                Framed::Unreadable { bytes, error } => {
                    Report::Inbound(Inbound::Malformed { flow, bytes, error })
                }
                Framed::Closed => return Err(CloseReason::Peer),
                Framed::Broken => return Err(CloseReason::Malformed),
            };
            if self.reports.send(report).await.is_err() {
                return Err(CloseReason::Local);
            }
        }
        clock.heard(codec.is_partial());
        Ok(())
    }
}

fn poll_write(
    cx: &mut Context<'_>,
    stream: &mut ByteStream,
    writing: &mut Writing,
) -> Poll<io::Result<()>> {
    let mut has_written = false;
    while !writing.bytes.is_empty() {
        match stream.poll_write(cx, &writing.bytes) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(len)) => {
                writing.bytes.advance(len);
                writing.must_flush = true;
                has_written = true;
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending if has_written => return Poll::Ready(Ok(())),
            Poll::Pending => return Poll::Pending,
        }
    }
    match stream.poll_flush(cx) {
        Poll::Ready(Ok(())) => {
            writing.must_flush = false;
            Poll::Ready(Ok(()))
        }
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        Poll::Pending if has_written => Poll::Ready(Ok(())),
        Poll::Pending => Poll::Pending,
    }
}

async fn say_goodbye(stream: &mut ByteStream, mut bytes: Bytes) -> io::Result<()> {
    while !bytes.is_empty() {
        let len = poll_fn(|cx| stream.poll_write(cx, &bytes)).await?;
        bytes.advance(len.max(1));
    }
    poll_fn(|cx| stream.poll_shutdown(cx)).await
}

impl CloseReason {
    /// Whether we end it and the peer may still be there.
    fn leaves_time_for_goodbye(self) -> bool {
        matches!(
            self,
            Self::Local | Self::Idle | Self::PartialMessage | Self::Malformed | Self::Peer
        )
    }
}

/// No Nagle: it would hold a small message back for 40 ms. Keep-alive, so that a peer that
/// vanished (a phone that lost power while registered) is noticed within two minutes, and a NAT
/// binding on the way is refreshed.
pub(super) fn set_options(stream: &TcpStream) -> std::io::Result<()> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(60))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(15))?;
    sockopt::set_tcp_keepcnt(stream, 4)?;
    Ok(())
}
