//! One TCP connection: a task that moves bytes and knows when to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sipx_sip::Limits;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use trunkline_sip::{Flow, Transmit};

use super::framer::{Framed, Framer};
use crate::transport::{CloseReason, Inbound, TransportLimits};

/// How long a connection stays for the 400 after it sent what is no SIP.
const LINGER: Duration = Duration::from_millis(500);

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
    /// A keep-alive was answered.
    Pong,
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

/// How a connection comes about.
pub(super) enum Origin {
    /// The peer opened it.
    Accepted(TcpStream),
    /// We open it, from the local IP that the flow names.
    Connect,
}

/// A connection's task, before and while it runs.
pub(super) struct Connection {
    /// Its `connection` is this connection's id.
    pub(super) flow: Flow,
    pub(super) limits: TransportLimits,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) queue: mpsc::UnboundedReceiver<Transmit>,
    pub(super) weight: QueueWeight,
    /// Fires when the peer has left too much unread.
    pub(super) cut: oneshot::Receiver<()>,
}

impl Connection {
    /// Runs until the connection ends, then reports what could not be delivered and that it ended.
    pub(super) async fn run(mut self, origin: Origin) {
        let mut unsent = None;
        let clock = Clock::new(&self.limits, matches!(origin, Origin::Accepted(_)));
        let reason = match self.open(origin).await {
            Ok(stream) => self.serve(&stream, clock, &mut unsent).await,
            Err(reason) => reason,
        };
        self.queue.close();
        let rest = unsent.map(|unsent| unsent.transmit);
        let queued = std::iter::from_fn(|| self.queue.try_recv().ok());
        let undelivered: Vec<Transmit> = rest.into_iter().chain(queued).collect();
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

    async fn open(&self, origin: Origin) -> Result<TcpStream, CloseReason> {
        let stream = match origin {
            Origin::Accepted(stream) => stream,
            Origin::Connect => {
                let timeout = Duration::from_secs(self.limits.connect_timeout_secs);
                match tokio::time::timeout(timeout, super::connect(&self.flow)).await {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(_)) | Err(_) => return Err(CloseReason::ConnectFailed),
                }
            }
        };
        // A connection without its options still works.
        let _ = set_options(&stream);
        Ok(stream)
    }

    async fn serve(
        &mut self,
        stream: &TcpStream,
        mut clock: Clock,
        unsent: &mut Option<Unsent>,
    ) -> CloseReason {
        let mut framer = Framer::new(Limits {
            max_message_bytes: self.limits.message_len_max,
            max_body_bytes: self.limits.message_len_max,
            ..Limits::stream()
        });
        let mut pong: Option<Bytes> = None;
        let mut may_be_cut = true;
        loop {
            let is_writing = unsent.is_some() || pong.is_some();
            let (deadline, at_deadline) = clock.deadline(is_writing);
            tokio::select! {
                biased;
                cut = &mut self.cut, if may_be_cut => match cut {
                    Ok(()) => return CloseReason::SlowReader,
                    Err(_) => may_be_cut = false,
                },
                () = sleep_until(deadline) => return at_deadline,
                queued = self.queue.recv(), if unsent.is_none() => match queued {
                    Some(transmit) => {
                        *unsent = Some(Unsent { transmit, written: 0 });
                        clock.write_began();
                    }
                    None => return CloseReason::Local,
                },
                writable = stream.writable(), if is_writing => {
                    if writable.is_err() {
                        return CloseReason::Failed;
                    }
                    // A pong may only stand between messages.
                    let is_between = unsent.as_ref().is_none_or(|unsent| unsent.written == 0);
                    let outcome = match &mut pong {
                        Some(bytes) if is_between => write_pong(stream, bytes).map(|done| {
                            if done {
                                pong = None;
                            }
                        }),
                        _ => self.write(stream, unsent),
                    };
                    match outcome {
                        Ok(()) => clock.wrote(),
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                        Err(_) => return CloseReason::Failed,
                    }
                },
                readable = stream.readable(), if !clock.is_ending() => {
                    if readable.is_err() {
                        return CloseReason::Failed;
                    }
                    match stream.try_read_buf(framer.read_buffer()) {
                        Ok(0) => return CloseReason::Peer,
                        Ok(_) => {
                            let was_pinged = match self.deliver(&mut framer, &mut clock).await {
                                Ok(was_pinged) => was_pinged,
                                Err(reason) => return reason,
                            };
                            // However many pings wait, one pong answers them.
                            if was_pinged && pong.is_none() {
                                pong = Some(Bytes::from_static(b"\r\n"));
                                clock.write_began();
                            }
                        }
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                        Err(_) => return CloseReason::Failed,
                    }
                },
            }
        }
    }

    fn write(&self, stream: &TcpStream, unsent: &mut Option<Unsent>) -> std::io::Result<()> {
        if let Some(message) = unsent {
            message.written += stream.try_write(&message.transmit.bytes[message.written..])?;
            if message.written == message.transmit.bytes.len() {
                self.weight.release(&message.transmit);
                *unsent = None;
            }
        }
        Ok(())
    }

    /// Hands on what is complete. Returns whether a ping was among it. Waits while the call thread
    /// is behind: the peer then fills its window and waits, too.
    async fn deliver(&self, framer: &mut Framer, clock: &mut Clock) -> Result<bool, CloseReason> {
        let mut was_pinged = false;
        while let Some(framed) = framer.next() {
            let report = match framed {
                Framed::Message(message) => {
                    clock.message_completed();
                    let flow = self.flow.clone();
                    Report::Inbound(Inbound::Message { flow, message })
                }
                Framed::Ping => {
                    was_pinged = true;
                    Report::Pong
                }
                Framed::Malformed { bytes, error } => {
                    clock.end_after(LINGER);
                    let flow = self.flow.clone();
                    Report::Inbound(Inbound::Malformed { flow, bytes, error })
                }
            };
            if self.reports.send(report).await.is_err() {
                return Err(CloseReason::Local);
            }
        }
        clock.heard(framer.is_partial());
        Ok(was_pinged)
    }
}

/// No Nagle: it would hold a small message back for 40 ms. Keep-alive, so that a peer that
/// vanished (a phone that lost power while registered) is noticed within two minutes, and a NAT
/// binding on the way is refreshed.
fn set_options(stream: &TcpStream) -> std::io::Result<()> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(60))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(15))?;
    sockopt::set_tcp_keepcnt(stream, 4)?;
    Ok(())
}

/// The message being written.
struct Unsent {
    transmit: Transmit,
    written: usize,
}

fn write_pong(stream: &TcpStream, bytes: &mut Bytes) -> std::io::Result<bool> {
    let written = stream.try_write(bytes)?;
    let _ = bytes.split_to(written);
    Ok(bytes.is_empty())
}

/// When a connection has to end, and why.
struct Clock {
    idle: Duration,
    partial: Duration,
    stall: Duration,
    heard_at: Instant,
    /// Since when an incomplete message is waited for: trickling bytes do not extend it. Who
    /// connects to us is waited for from the start.
    partial_since: Option<Instant>,
    progress_at: Instant,
    ends_at: Option<Instant>,
}

impl Clock {
    fn new(limits: &TransportLimits, is_accepted: bool) -> Self {
        let now = Instant::now();
        Self {
            idle: Duration::from_secs(limits.idle_timeout_secs),
            partial: Duration::from_secs(limits.partial_message_timeout_secs),
            stall: Duration::from_secs(limits.write_stall_timeout_secs),
            heard_at: now,
            partial_since: is_accepted.then_some(now),
            progress_at: now,
            ends_at: None,
        }
    }

    fn heard(&mut self, is_partial: bool) {
        self.heard_at = Instant::now();
        self.partial_since = match self.partial_since {
            Some(since) if is_partial => Some(since),
            _ => is_partial.then_some(self.heard_at),
        };
    }

    fn message_completed(&mut self) {
        self.partial_since = None;
    }

    /// Something waits to be written where nothing did before.
    fn write_began(&mut self) {
        self.progress_at = Instant::now();
    }

    fn wrote(&mut self) {
        self.progress_at = Instant::now();
        self.heard_at = self.progress_at;
    }

    fn end_after(&mut self, linger: Duration) {
        self.ends_at = Some(Instant::now() + linger);
    }

    fn is_ending(&self) -> bool {
        self.ends_at.is_some()
    }

    fn deadline(&self, is_writing: bool) -> (Instant, CloseReason) {
        let candidates = [
            Some((self.heard_at + self.idle, CloseReason::Idle)),
            self.partial_since
                .map(|since| (since + self.partial, CloseReason::PartialMessage)),
            is_writing.then(|| (self.progress_at + self.stall, CloseReason::SlowReader)),
            self.ends_at.map(|at| (at, CloseReason::Malformed)),
        ];
        candidates
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
            .unwrap_or((self.heard_at, CloseReason::Idle))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: TransportLimits = TransportLimits {
        message_len_max: 0,
        header_len_max: 0,
        handshakes_max: 0,
        handshake_timeout_secs: 0,
        udp_backlog_len_max: 0,
        connections_max: 0,
        connections_per_source_max: 0,
        write_queue_bytes_max: 0,
        idle_timeout_secs: 100,
        partial_message_timeout_secs: 10,
        write_stall_timeout_secs: 20,
        connect_timeout_secs: 0,
    };

    /// Seconds until the deadline, seen from the clock's last sign of life, and its reason.
    fn due(clock: &Clock, is_writing: bool) -> (u64, CloseReason) {
        let (at, reason) = clock.deadline(is_writing);
        ((at - clock.heard_at).as_secs(), reason)
    }

    #[test]
    fn who_connects_to_us_must_send_a_message_soon_and_whom_we_connect_to_need_not() {
        let mut accepted = Clock::new(&LIMITS, true);
        assert_eq!(due(&accepted, false), (10, CloseReason::PartialMessage));
        accepted.message_completed();
        accepted.heard(false);
        assert_eq!(due(&accepted, false), (100, CloseReason::Idle));
        assert_eq!(
            due(&Clock::new(&LIMITS, false), false),
            (100, CloseReason::Idle)
        );
    }

    #[test]
    fn trickling_bytes_do_not_extend_the_time_for_a_message() {
        let mut clock = Clock::new(&LIMITS, false);
        clock.heard(true);
        let first = clock.deadline(false);
        clock.heard(true);
        assert_eq!(clock.deadline(false), first);
        // A message that was completed gives the next one its own time.
        clock.message_completed();
        clock.heard(true);
        assert_eq!(due(&clock, false), (10, CloseReason::PartialMessage));
        assert!(clock.deadline(false).0 >= first.0);
    }

    #[test]
    fn writing_without_progress_ends_and_malformed_input_ends_soonest() {
        let mut clock = Clock::new(&LIMITS, false);
        clock.write_began();
        assert_eq!(clock.deadline(true).1, CloseReason::SlowReader);
        assert_eq!(clock.deadline(false).1, CloseReason::Idle);
        clock.end_after(LINGER);
        assert_eq!(clock.deadline(true).1, CloseReason::Malformed);
        assert!(clock.is_ending());
    }
}
