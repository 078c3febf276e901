//! A TCP listener whose connections are limited in number and in life.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

/// How long accepting rests after an error that will not pass at once, such as EMFILE.
const REST_AFTER_ERROR: Duration = Duration::from_millis(100);

pub(super) struct LimitedListener {
    listener: TcpListener,
    places: Arc<Semaphore>,
    life_max: Duration,
}

impl LimitedListener {
    pub(super) fn new(listener: TcpListener, count_max: usize, life_max: Duration) -> Self {
        Self {
            listener,
            places: Arc::new(Semaphore::new(count_max)),
            life_max,
        }
    }
}

impl axum::serve::Listener for LimitedListener {
    type Io = LimitedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (LimitedStream, SocketAddr) {
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                // Nobody closes the semaphore.
                std::future::pending::<()>().await;
                continue;
            };
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    let limited = LimitedStream {
                        stream,
                        end: Box::pin(sleep(self.life_max)),
                        life: ConnectionLife::default(),
                        _place: place,
                    };
                    return (limited, peer);
                }
                Err(_) => sleep(REST_AFTER_ERROR).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

pub(super) struct LimitedStream {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    life: ConnectionLife,
    _place: OwnedSemaphorePermit,
}

impl LimitedStream {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Poll::Ready(()) = self.end.as_mut().poll(context) else {
            return Ok(());
        };
        let more = self.life.take_extension();
        if more.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let end = self.end.deadline() + more;
        self.end.as_mut().reset(end);
        // Asked again, the clock calls this task at the new end.
        let _ = self.end.as_mut().poll(context);
        Ok(())
    }
}

/// How long a connection may live, for the handler of its request.
#[derive(Debug, Clone, Default)]
pub(super) struct ConnectionLife {
    more_millis: Arc<AtomicU64>,
}

impl ConnectionLife {
    /// Lets the connection live for so much longer.
    pub(super) fn extend(&self, more: Duration) {
        self.more_millis.store(more.as_millis() as u64, Relaxed);
    }

    pub(super) fn take_extension(&self) -> Duration {
        Duration::from_millis(self.more_millis.swap(0, Relaxed))
    }
}

impl Connected<IncomingStream<'_, LimitedListener>> for ConnectionLife {
    fn connect_info(stream: IncomingStream<'_, LimitedListener>) -> Self {
        stream.io().life.clone()
    }
}

impl AsyncRead for LimitedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for LimitedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
