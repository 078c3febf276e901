//! How a connection comes about: TCP, then TLS, then the WebSocket handshake.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rustls::pki_types::ServerName;
use sipx_sip::Limits;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use trunkline_sip::{Flow, TransportKind};

use super::bytes_io::ByteStream;
use super::codec::Codec;
use super::connection::set_options;
use super::framer::Framer;
use super::web::{Web, WebHandshake};
use crate::transport::tls::TlsContext;
use crate::transport::{CloseReason, TransportLimits};

/// Who began.
pub(super) enum Origin {
    /// The peer did. The socket belongs to no runtime yet.
    Accepted(std::net::TcpStream),
    /// We do, from the local IP that the flow names.
    Connect,
}

/// What a connection needs beside its socket.
pub(super) struct Opening {
    /// Certificates; there where a socket of ours speaks TLS.
    pub(super) tls: Option<Arc<TlsContext>>,
    /// Pages that may connect; empty for any.
    pub(super) origins: Arc<[String]>,
}

impl Opening {
    /// Opens the connection of `flow` and shakes hands.
    pub(super) async fn open(
        self,
        origin: Origin,
        flow: &Flow,
        limits: &TransportLimits,
    ) -> Result<(ByteStream, Codec), CloseReason> {
        let is_accepted = matches!(origin, Origin::Accepted(_));
        let stream = match origin {
            Origin::Accepted(stream) => {
                TcpStream::from_std(stream).map_err(|_| CloseReason::Failed)?
            }
            Origin::Connect => {
                let timeout = Duration::from_secs(limits.connect_timeout_secs);
                match tokio::time::timeout(timeout, connect(flow)).await {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(_)) | Err(_) => return Err(CloseReason::ConnectFailed),
                }
            }
        };
        // A connection without its options still works.
        let _ = set_options(&stream);
        let timeout = Duration::from_secs(limits.handshake_timeout_secs);
        let handshakes = self.shake_hands(stream, is_accepted, flow, limits);
        match tokio::time::timeout(timeout, handshakes).await {
            Ok(outcome) => outcome,
            Err(_) => Err(CloseReason::HandshakeTimeout),
        }
    }

    async fn shake_hands(
        self,
        stream: TcpStream,
        is_accepted: bool,
        flow: &Flow,
        limits: &TransportLimits,
    ) -> Result<(ByteStream, Codec), CloseReason> {
        let mut stream = match (flow.kind.is_secure(), self.tls) {
            (false, _) => ByteStream::Plain(stream),
            (true, Some(tls)) if is_accepted => accept_tls(stream, &tls, flow).await?,
            (true, Some(tls)) => connect_tls(stream, &tls, flow).await?,
            (true, None) => return Err(CloseReason::HandshakeFailed),
        };
        let codec = if flow.kind.is_web() {
            let limits = parser_limits(Limits::datagram(), limits);
            Codec::web(accept_web(&mut stream, self.origins, limits, flow).await?)
        } else {
            let parser_limits = parser_limits(Limits::stream(), limits);
            Codec::stream(Framer::new(parser_limits, limits.header_len_max))
        };
        Ok((stream, codec))
    }
}

fn parser_limits(base: Limits, limits: &TransportLimits) -> Limits {
    Limits {
        max_message_bytes: limits.message_len_max,
        max_body_bytes: limits.message_len_max,
        ..base
    }
}

/// Opens the connection of `flow`, from the IP that the peer knows us by.
async fn connect(flow: &Flow) -> io::Result<TcpStream> {
    let socket = new_socket(flow.local)?;
    socket.bind(SocketAddr::new(flow.local.ip(), 0))?;
    socket.connect(flow.remote).await
}

pub(super) fn new_socket(address: SocketAddr) -> io::Result<TcpSocket> {
    if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }
}

async fn accept_tls(
    stream: TcpStream,
    tls: &TlsContext,
    flow: &Flow,
) -> Result<ByteStream, CloseReason> {
    let acceptor = TlsAcceptor::from(tls.server(flow.kind));
    match acceptor.accept(stream).await {
        Ok(stream) => Ok(ByteStream::Tls(Box::new(TlsStream::Server(stream)))),
        Err(error) => {
            tracing::debug!(remote = %flow.remote, %error, "TLS handshake failed");
            Err(CloseReason::HandshakeFailed)
        }
    }
}

/// RFC 5922 §7.2: the certificate must name the domain that the URI named, or the address.
async fn connect_tls(
    stream: TcpStream,
    tls: &TlsContext,
    flow: &Flow,
) -> Result<ByteStream, CloseReason> {
    let name = match &flow.domain {
        Some(domain) => ServerName::try_from(domain.to_string()),
        None => Ok(ServerName::from(flow.remote.ip())),
    };
    let Ok(name) = name else {
        tracing::warn!(remote = %flow.remote, domain = flow.domain.as_deref(), "no name for a certificate");
        return Err(CloseReason::HandshakeFailed);
    };
    match TlsConnector::from(tls.client()).connect(name, stream).await {
        Ok(stream) => Ok(ByteStream::Tls(Box::new(TlsStream::Client(stream)))),
        Err(error) => {
            let domain = flow.domain.as_deref();
            tracing::warn!(remote = %flow.remote, domain, %error, "TLS to a SIP server failed");
            Err(CloseReason::HandshakeFailed)
        }
    }
}

async fn accept_web(
    stream: &mut ByteStream,
    origins: Arc<[String]>,
    limits: Limits,
    flow: &Flow,
) -> Result<Web, CloseReason> {
    debug_assert!(matches!(flow.kind, TransportKind::Ws | TransportKind::Wss));
    let mut handshake = WebHandshake::new(origins, limits);
    let mut read = BytesMut::new();
    loop {
        let len = std::future::poll_fn(|cx| stream.poll_read(cx, &mut read)).await;
        if matches!(len, Ok(0) | Err(_)) {
            return Err(CloseReason::HandshakeFailed);
        }
        match handshake.handle_input(&read.split()) {
            None => {}
            Some(Ok(mut web)) => {
                let answer = web.take_output();
                write_all(stream, answer)
                    .await
                    .map_err(|_| CloseReason::HandshakeFailed)?;
                return Ok(web);
            }
            Some(Err(refused)) => {
                tracing::debug!(remote = %flow.remote, status = refused.status, "no WebSocket");
                // The refusal stands whether it is heard or not.
                let _ = write_all(stream, refused.answer).await;
                let _ = std::future::poll_fn(|cx| stream.poll_shutdown(cx)).await;
                return Err(CloseReason::HandshakeFailed);
            }
        }
    }
}

async fn write_all(stream: &mut ByteStream, mut bytes: Bytes) -> io::Result<()> {
    while !bytes.is_empty() {
        let len = std::future::poll_fn(|cx| stream.poll_write(cx, &bytes)).await?;
        bytes.advance(len);
    }
    std::future::poll_fn(|cx| stream.poll_flush(cx)).await
}
