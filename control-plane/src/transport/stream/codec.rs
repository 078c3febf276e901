//! What the bytes of a connection mean, and what a message is on it.

use bytes::{Bytes, BytesMut};

use super::framer::{Framed, Framer};
use super::web::Web;

/// SIP straight on the stream, or inside a WebSocket.
#[derive(Debug)]
pub(super) enum Codec {
    /// RFC 3261 §18.3.
    Stream {
        /// Cuts the messages out.
        framer: Framer,
        /// A ping waits for its pong.
        owes_pong: bool,
    },
    /// RFC 7118.
    Web {
        /// The WebSocket.
        web: Box<Web>,
        /// What was read and not taken yet.
        inbox: BytesMut,
        /// Nothing was completed by what was read last.
        is_partial: bool,
    },
}

impl Codec {
    pub(super) fn stream(framer: Framer) -> Self {
        Self::Stream {
            framer,
            owes_pong: false,
        }
    }

    pub(super) fn web(web: Web) -> Self {
        Self::Web {
            web: Box::new(web),
            inbox: BytesMut::new(),
            is_partial: false,
        }
    }

    /// Where the next bytes are appended. To be followed by [`Self::next`] until it gives `None`.
    pub(super) fn read_buffer(&mut self) -> &mut BytesMut {
        match self {
            Self::Stream { framer, .. } => framer.read_buffer(),
            Self::Web {
                inbox, is_partial, ..
            } => {
                *is_partial = true;
                inbox
            }
        }
    }

    /// The next thing that is complete.
    pub(super) fn next(&mut self) -> Option<Framed> {
        match self {
            Self::Stream { framer, owes_pong } => {
                let framed = framer.next();
                *owes_pong |= matches!(framed, Some(Framed::Ping));
                framed
            }
            Self::Web {
                web,
                inbox,
                is_partial,
            } => {
                if !inbox.is_empty() {
                    web.push(&inbox.split());
                }
                let framed = web.next();
                *is_partial &= framed.is_none();
                framed
            }
        }
    }

    /// Whether a message has begun that is not complete. To be asked when [`Self::next`] gave
    /// `None`.
    pub(super) fn is_partial(&self) -> bool {
        match self {
            Self::Stream { framer, .. } => framer.is_partial(),
            Self::Web { is_partial, .. } => *is_partial,
        }
    }

    /// The bytes of a message on this connection.
    pub(super) fn encode(&mut self, message: &Bytes) -> Bytes {
        match self {
            Self::Stream { .. } => message.clone(),
            Self::Web { web, .. } => {
                web.encode(message);
                web.take_output()
            }
        }
    }

    /// Answers to pings and the like; they may stand between messages only.
    pub(super) fn take_control(&mut self) -> Bytes {
        match self {
            // However many pings wait, one pong answers them.
            Self::Stream { owes_pong, .. } => {
                if std::mem::take(owes_pong) {
                    Bytes::from_static(b"\r\n")
                } else {
                    Bytes::new()
                }
            }
            Self::Web { web, .. } => web.take_output(),
        }
    }

    /// Queues a ping, where the protocol has one of its own.
    pub(super) fn ping(&mut self) {
        if let Self::Web { web, .. } = self {
            web.ping();
        }
    }

    /// The goodbye of the protocol.
    pub(super) fn goodbye(&mut self) -> Bytes {
        match self {
            Self::Stream { .. } => Bytes::new(),
            Self::Web { web, .. } => {
                web.close();
                web.take_output()
            }
        }
    }
}
