//! The socket under a phone.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use bytes::Bytes;
use sipx_sip::{Limits, Message, StreamParser, parse_datagram};

use super::Transport;

/// How often the receiving thread looks up to send again what was not answered and to see
/// whether it should end. An eleventh of T1.
const POLL: Duration = Duration::from_millis(45);

/// The half that sends.
pub(super) enum Link {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

/// The half that receives.
pub(super) enum Receiver {
    Udp(UdpSocket),
    Tcp(TcpStream, Box<StreamParser>, SocketAddr),
}

/// What one wait brought.
pub(super) enum Received {
    Messages(SocketAddr, Vec<Message>),
    Malformed,
    Nothing,
    Closed,
}

impl Link {
    pub(super) fn open(
        transport: Transport,
        local: SocketAddr,
        server: SocketAddr,
    ) -> io::Result<(Self, Receiver, SocketAddr)> {
        match transport {
            Transport::Udp => {
                let socket = UdpSocket::bind(local)?;
                socket.set_read_timeout(Some(POLL))?;
                // Best effort: a burst of calls to one phone needs more than the default.
                let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 1 << 20);
                let address = socket.local_addr()?;
                Ok((
                    Self::Udp(socket.try_clone()?),
                    Receiver::Udp(socket),
                    address,
                ))
            }
            Transport::Tcp => {
                let stream = TcpStream::connect_timeout(&server, Duration::from_secs(5))?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(POLL))?;
                let address = stream.local_addr()?;
                let parser = Box::new(StreamParser::new(Limits::stream()));
                let receiver = Receiver::Tcp(stream.try_clone()?, parser, server);
                Ok((Self::Tcp(stream), receiver, address))
            }
        }
    }

    pub(super) fn send(&self, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp(socket) => socket.send_to(bytes, to).map(|_| ()),
            Self::Tcp(stream) => {
                let mut stream = stream;
                stream.write_all(bytes)
            }
        }
    }
}

impl Receiver {
    pub(super) fn wait(&mut self) -> Received {
        let mut buffer = [0u8; 65_536];
        match self {
            Self::Udp(socket) => match socket.recv_from(&mut buffer) {
                Ok((len, from)) => {
                    let datagram = Bytes::copy_from_slice(&buffer[..len]);
                    match parse_datagram(datagram, &Limits::datagram()) {
                        Ok(message) => Received::Messages(from, vec![message]),
                        Err(_) => Received::Malformed,
                    }
                }
                Err(_) => Received::Nothing,
            },
            Self::Tcp(stream, parser, server) => match stream.read(&mut buffer) {
                Ok(0) => Received::Closed,
                Ok(len) => match parser.push(&buffer[..len]) {
                    Ok(messages) => Received::Messages(*server, messages),
                    Err(_) => Received::Malformed,
                },
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock
                            | io::ErrorKind::TimedOut
                            | io::ErrorKind::Interrupted
                    ) =>
                {
                    Received::Nothing
                }
                Err(_) => Received::Closed,
            },
        }
    }
}
