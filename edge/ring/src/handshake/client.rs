//! The connecting side.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::{self, Errno};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use trunkline_edge_api::handshake::{
    EdgeMessage, HandshakeError, Hello, Refused, Role, Welcome, WorkerOffer,
};
use trunkline_edge_api::{API_VERSION, Epoch, WorkerIndex};

use super::socket::{Received, has_hung_up, receive, send};
use crate::control::ControlEnd;
use crate::doorbell::Doorbells;
use crate::region::{ObservedRegion, Region, RegionError};

/// How long the edge may take for each step of the handshake. Its listener never does anything
/// that waits, so an edge that takes longer is stopped or thrashing.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// Control's connection to the edge. As long as it or one of its ends exists, the edge lets no
/// other control in.
#[derive(Debug)]
pub struct ControlConnection {
    socket: Arc<OwnedFd>,
    welcome: Welcome,
}

impl ControlConnection {
    /// Takes control of the edge that listens at `path`: one [`ControlEnd`] for each worker, in
    /// their order. May wait for a few seconds.
    ///
    /// # Errors
    /// [`ConnectError`]; its text says what to do.
    pub fn connect(
        path: &Path,
        epoch: Epoch,
    ) -> Result<(ControlConnection, Vec<ControlEnd>), ConnectError> {
        let client = Client::connect(path)?;
        let welcome = client.greet(Role::Control, epoch)?;
        let Client { path, socket } = client;
        let socket = Arc::new(socket);
        let mut ends = Vec::new();
        for index in 0..welcome.worker_count {
            let fds = offer(&path, &socket, WorkerIndex(index))?;
            let [region, to_worker, to_control] =
                <[OwnedFd; 3]>::try_from(fds).map_err(|fds| ConnectError::Descriptors {
                    expected: 3,
                    found: fds.len(),
                })?;
            let region = Region::open(region)?;
            check_region(
                region.layout().worker,
                region.layout().generation,
                index,
                &welcome,
            )?;
            ends.push(ControlEnd::attach_over(
                region,
                Doorbells {
                    to_worker,
                    to_control,
                },
                epoch,
                crate::monotonic_now(),
                Some(Arc::clone(&socket)),
            ));
        }
        Ok((ControlConnection { socket, welcome }, ends))
    }

    /// What the edge said of itself.
    #[must_use]
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Whether the edge has closed the connection, which it does only by ending. Does not wait.
    #[must_use]
    pub fn has_hung_up(&self) -> bool {
        has_hung_up(&self.socket)
    }
}

impl AsFd for ControlConnection {
    /// Readable when the edge has gone.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// An observer's connection: the regions of all workers, read-only.
#[derive(Debug)]
pub struct Observer {
    socket: OwnedFd,
    welcome: Welcome,
    regions: Vec<ObservedRegion>,
}

impl Observer {
    /// Asks the edge that listens at `path` for its regions. May wait for a few seconds.
    ///
    /// # Errors
    /// [`ConnectError`]; its text says what to do.
    pub fn connect(path: &Path) -> Result<Observer, ConnectError> {
        let client = Client::connect(path)?;
        let welcome = client.greet(Role::Observer, Epoch(0))?;
        let Client { path, socket } = client;
        let mut regions = Vec::new();
        for index in 0..welcome.worker_count {
            let fds = offer(&path, &socket, WorkerIndex(index))?;
            let [region] =
                <[OwnedFd; 1]>::try_from(fds).map_err(|fds| ConnectError::Descriptors {
                    expected: 1,
                    found: fds.len(),
                })?;
            let region = Region::open_read_only(region)?;
            check_region(
                region.layout().worker,
                region.layout().generation,
                index,
                &welcome,
            )?;
            regions.push(region);
        }
        Ok(Observer {
            socket,
            welcome,
            regions,
        })
    }

    /// What the edge said of itself.
    #[must_use]
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// One for each worker, in their order.
    #[must_use]
    pub fn regions(&self) -> &[ObservedRegion] {
        &self.regions
    }

    /// Whether the edge has ended. Does not wait.
    #[must_use]
    pub fn has_hung_up(&self) -> bool {
        has_hung_up(&self.socket)
    }
}

/// A connection before its welcome.
struct Client {
    path: PathBuf,
    socket: OwnedFd,
}

impl Client {
    fn connect(path: &Path) -> Result<Self, ConnectError> {
        let unreachable = |errno| ConnectError::Unreachable {
            path: path.to_owned(),
            errno,
            advice: advice(errno),
        };
        let attempt = || {
            let address = SocketAddrUnix::new(path)?;
            let socket = socket_with(
                AddressFamily::UNIX,
                SocketType::SEQPACKET,
                SocketFlags::CLOEXEC,
                None,
            )?;
            set_socket_timeout(&socket, Timeout::Recv, Some(STEP_TIMEOUT))?;
            set_socket_timeout(&socket, Timeout::Send, Some(STEP_TIMEOUT))?;
            connect(&socket, &address)?;
            Ok(socket)
        };
        let socket = attempt().map_err(unreachable)?;
        Ok(Self {
            path: path.to_owned(),
            socket,
        })
    }

    fn greet(&self, role: Role, epoch: Epoch) -> Result<Welcome, ConnectError> {
        let pid = rustix::process::getpid().as_raw_nonzero().get() as u32;
        let hello = Hello {
            version: API_VERSION,
            role,
            pid,
            epoch,
        };
        match send(&self.socket, &hello.encode(), &[]) {
            // The edge may have refused already; its reason is waiting to be read.
            Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => {}
            Err(errno) => return Err(ConnectError::lost(&self.path, errno)),
        }
        match next_message(&self.path, &self.socket)?.0 {
            EdgeMessage::Welcome(welcome) => Ok(welcome),
            EdgeMessage::Refused(refused) => Err(ConnectError::Refused(refused)),
            EdgeMessage::WorkerOffer(_) => Err(ConnectError::OutOfOrder),
        }
    }
}

fn offer(path: &Path, socket: &OwnedFd, worker: WorkerIndex) -> Result<Vec<OwnedFd>, ConnectError> {
    match next_message(path, socket)? {
        (EdgeMessage::WorkerOffer(offer), fds) if offer == WorkerOffer { worker } => Ok(fds),
        (EdgeMessage::Refused(refused), _) => Err(ConnectError::Refused(refused)),
        _ => Err(ConnectError::OutOfOrder),
    }
}

fn next_message(
    path: &Path,
    socket: &OwnedFd,
) -> Result<(EdgeMessage, Vec<OwnedFd>), ConnectError> {
    let received: Received = receive(socket).map_err(|errno| ConnectError::lost(path, errno))?;
    if received.bytes().is_empty() {
        return Err(ConnectError::lost(path, Errno::CONNRESET));
    }
    let message = EdgeMessage::decode(received.bytes())?;
    Ok((message, received.fds))
}

fn check_region(
    worker: WorkerIndex,
    generation: u64,
    index: u16,
    welcome: &Welcome,
) -> Result<(), ConnectError> {
    if worker == WorkerIndex(index) && generation == welcome.generation {
        Ok(())
    } else {
        Err(ConnectError::OutOfOrder)
    }
}

const fn advice(errno: Errno) -> &'static str {
    match errno {
        Errno::NOENT | Errno::CONNREFUSED => {
            "is trunkline-edge running, and with the same [node] run_dir?"
        }
        Errno::ACCESS => "run as the edge's user or as root",
        Errno::PROTOTYPE => "this socket is not trunkline-edge's",
        Errno::AGAIN => "trunkline-edge does not accept connections; is it stopped?",
        _ => "see the edge's log",
    }
}

/// Why there is no connection to the edge.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody to talk to.
    #[error("cannot reach trunkline-edge at {}: {errno}; {advice}", path.display())]
    Unreachable {
        /// Where the edge should listen.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
        /// What to look at.
        advice: &'static str,
    },
    /// The edge went away, or said nothing for too long.
    #[error("lost trunkline-edge at {} during the handshake: {errno}", path.display())]
    Lost {
        /// Where the edge listened.
        path: PathBuf,
        /// The kernel's answer; `EAGAIN` when the edge was silent.
        errno: Errno,
    },
    /// The edge does not want us.
    #[error("trunkline-edge refuses: {0}")]
    Refused(Refused),
    /// The edge speaks in a way that we do not understand.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// Messages or regions came in another order than agreed.
    #[error("trunkline-edge offered its workers out of order; restart it")]
    OutOfOrder,
    /// A worker came with too many or too few descriptors.
    #[error("trunkline-edge sent {found} descriptors where {expected} belong")]
    Descriptors {
        /// As agreed.
        expected: usize,
        /// As received.
        found: usize,
    },
    /// A region is not to be used.
    #[error(transparent)]
    Region(#[from] RegionError),
}

impl ConnectError {
    fn lost(path: &Path, errno: io::Errno) -> Self {
        Self::Lost {
            path: path.to_owned(),
            errno,
        }
    }
}
