//! WebSockets that carry SIP: RFC 6455, RFC 7118.
//!
//! ```text
//! browser ─ GET /, Sec-WebSocket-Protocol: sip, Origin: https://phone.example.com ─▶
//!         ◀─ 101, Sec-WebSocket-Protocol: sip ─
//!         ─ one SIP message per WebSocket message, text or binary ─▶
//! ```
//!
//! tungstenite does the protocol over two buffers; nothing here touches a socket. Left out:
//! extensions (RFC 7692 compression would let a small frame become a large one) and being the
//! client: nobody serves SIP over WebSockets to a B2BUA.

use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use sipx_sip::{Limits, parse_datagram};
use tokio_tungstenite::tungstenite;
use tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tungstenite::handshake::{HandshakeError, MidHandshake, server::ServerHandshake};
use tungstenite::http::{HeaderMap, HeaderValue, StatusCode, header};
use tungstenite::protocol::{WebSocket, WebSocketConfig};
use tungstenite::{Message, Utf8Bytes};

use super::framer::Framed;

/// Buffer of a connection. A SIP message with SDP is shorter.
const READ_BUFFER_LEN: usize = 4_096;

/// Name of the sub-protocol (RFC 7118 §4).
const SUBPROTOCOL: &str = "sip";

/// What tungstenite takes for a socket.
#[derive(Debug, Default)]
struct Pipe {
    inbox: BytesMut,
    outbox: BytesMut,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.inbox.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let len = self.inbox.len().min(buffer.len());
        buffer[..len].copy_from_slice(&self.inbox.split_to(len));
        Ok(len)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outbox.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Which requests for a WebSocket are granted.
#[derive(Debug, Clone)]
struct Gate {
    /// Empty for any.
    origins: Arc<[String]>,
}

impl tungstenite::handshake::server::Callback for Gate {
    fn on_request(
        self,
        request: &Request,
        mut response: Response,
    ) -> Result<Response, ErrorResponse> {
        let refused = |status, text: &str| {
            let mut refused = ErrorResponse::new(Some(text.to_owned()));
            *refused.status_mut() = status;
            refused
        };
        if !self.is_origin_allowed(request.headers()) {
            return Err(refused(
                StatusCode::FORBIDDEN,
                "this origin may not connect",
            ));
        }
        if !offers_sip(request.headers()) {
            let text = "the sub-protocol must be sip";
            return Err(refused(StatusCode::BAD_REQUEST, text));
        }
        let sip = HeaderValue::from_static(SUBPROTOCOL);
        response
            .headers_mut()
            .insert(header::SEC_WEBSOCKET_PROTOCOL, sip);
        Ok(response)
    }
}

impl Gate {
    fn is_origin_allowed(&self, headers: &HeaderMap) -> bool {
        if self.origins.is_empty() {
            return true;
        }
        let origin = headers.get(header::ORIGIN);
        let origin = origin.and_then(|origin| origin.to_str().ok());
        origin.is_some_and(|origin| {
            self.origins
                .iter()
                .any(|allowed| allowed.eq_ignore_ascii_case(origin))
        })
    }
}

fn offers_sip(headers: &HeaderMap) -> bool {
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).into_iter();
    let mut names = offered
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    names.any(|name| name.trim().eq_ignore_ascii_case(SUBPROTOCOL))
}

/// Why no WebSocket came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// The HTTP status that the client gets.
    pub(super) status: u16,
    /// What it gets to read.
    pub(super) answer: Bytes,
}

/// A handshake on its way.
pub(super) struct WebHandshake {
    state: Option<MidHandshake<ServerHandshake<Pipe, Gate>>>,
    limits: Limits,
}

impl WebHandshake {
    /// A handshake of which nothing was heard yet. `origins` in lower case; none for any.
    pub(super) fn new(origins: Arc<[String]>, limits: Limits) -> Self {
        let len_max = Some(limits.max_message_bytes);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_LEN)
            .write_buffer_size(0)
            .max_message_size(len_max)
            .max_frame_size(len_max);
        let gate = Gate { origins };
        let state = ServerHandshake::start(Pipe::default(), gate, Some(config));
        Self {
            state: Some(state),
            limits,
        }
    }

    /// Takes what was read. `None` while more is needed.
    pub(super) fn handle_input(&mut self, bytes: &[u8]) -> Option<Result<Web, Refused>> {
        let mut state = self.state.take()?;
        state.get_mut().get_mut().inbox.extend_from_slice(bytes);
        match state.handshake() {
            Ok(socket) => Some(Ok(Web {
                socket,
                limits: self.limits,
                has_failed: false,
            })),
            Err(HandshakeError::Interrupted(state)) => {
                self.state = Some(state);
                None
            }
            Err(HandshakeError::Failure(tungstenite::Error::Http(response))) => {
                let body = response.body().clone().unwrap_or_default();
                Some(Err(refused(response.status(), &body)))
            }
            Err(HandshakeError::Failure(_)) => {
                Some(Err(refused(StatusCode::BAD_REQUEST, b"not a WebSocket")))
            }
        }
    }
}

fn refused(status: StatusCode, text: &[u8]) -> Refused {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    Refused {
        status: status.as_u16(),
        answer: [head.as_bytes(), text].concat().into(),
    }
}

/// An open WebSocket.
pub(super) struct Web {
    socket: WebSocket<Pipe>,
    limits: Limits,
    has_failed: bool,
}

impl std::fmt::Debug for Web {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Web")
            .field("has_failed", &self.has_failed)
            .finish_non_exhaustive()
    }
}

impl Web {
    /// Takes what was read.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.socket.get_mut().inbox.extend_from_slice(bytes);
    }

    /// The next thing that is complete.
    pub(super) fn next(&mut self) -> Option<Framed> {
        while !self.has_failed {
            let bytes = match self.socket.read() {
                Ok(Message::Text(text)) => Bytes::from(text),
                Ok(Message::Binary(bytes)) => bytes,
                // Its pong is queued by tungstenite.
                Ok(Message::Ping(_)) => {
                    self.flush();
                    return Some(Framed::Ping);
                }
                Ok(Message::Pong(_) | Message::Frame(_)) => continue,
                Ok(Message::Close(_)) => {
                    self.flush();
                    self.has_failed = true;
                    return Some(Framed::Closed);
                }
                Err(tungstenite::Error::Io(_)) => return None,
                Err(_) => {
                    self.has_failed = true;
                    return Some(Framed::Broken);
                }
            };
            // RFC 5626 §4.4.1 inside a WebSocket, as some libraries do it.
            if bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
                self.write(Message::Text(Utf8Bytes::from_static("\r\n")));
                return Some(Framed::Ping);
            }
            return Some(match parse_datagram(bytes.clone(), &self.limits) {
                Ok(message) => Framed::Message(message),
                // Where the next message begins is known all the same.
                Err(error) => Framed::Unreadable { bytes, error },
            });
        }
        None
    }

    /// Queues a SIP message: as text where it is text, which is what browsers show in their tools.
    pub(super) fn encode(&mut self, message: &Bytes) {
        self.write(match Utf8Bytes::try_from(message.clone()) {
            Ok(text) => Message::Text(text),
            Err(_) => Message::Binary(message.clone()),
        });
    }

    /// Queues a ping.
    pub(super) fn ping(&mut self) {
        self.write(Message::Ping(Bytes::new()));
    }

    /// Queues a goodbye.
    pub(super) fn close(&mut self) {
        // It fails when the peer has said its own already.
        let _ = self.socket.close(None);
        self.flush();
    }

    /// What is to be written.
    pub(super) fn take_output(&mut self) -> Bytes {
        self.socket.get_mut().outbox.split().freeze()
    }

    fn write(&mut self, message: Message) {
        // The pipe takes everything; it fails only after a close, when nobody listens any more.
        let _ = self.socket.write(message);
        self.flush();
    }

    fn flush(&mut self) {
        // As above.
        let _ = self.socket.flush();
    }
}
