//! The edge's side.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{self, Errno};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{SocketFlags, accept_with};
use trunkline_edge_api::handshake::{
    EdgeMessage, HandshakeError, Hello, RefusalCode, Refused, Role, Welcome, WorkerOffer,
};
use trunkline_edge_api::{API_VERSION, Epoch};

use super::bind::{BindError, SocketFile, listen_at};
use super::socket::{has_hung_up, receive, send};
use crate::region::reopen_read_only;
use crate::worker::WorkerFds;

/// How long a client may take to say hello. It does so in its first step, so a slower one is
/// stopped or not one of ours.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);

/// Clients that have not said hello; more wait in the kernel.
const PENDING_MAX: usize = 8;

/// Observers at a time. `status` and `doctor` are run by hand.
const OBSERVERS_MAX: usize = 8;

/// Datagrams read from a client that is refused. An honest one has sent one.
const UNREAD_MAX: usize = 4;

/// Pause after the kernel could not give us a client (out of descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What happened on the socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerEvent {
    /// A control was given the regions.
    ControlArrived {
        /// Its PID.
        pid: u32,
        /// Its epoch.
        epoch: Epoch,
    },
    /// The control has ended or let go.
    ControlLeft {
        /// Its PID.
        pid: u32,
        /// Its epoch.
        epoch: Epoch,
    },
    /// An observer was given the regions.
    ObserverArrived {
        /// Its PID.
        pid: u32,
    },
    /// An observer has gone.
    ObserverLeft {
        /// Its PID.
        pid: u32,
    },
    /// A client was refused.
    Refused {
        /// Its PID.
        pid: u32,
        /// Its user.
        uid: u32,
        /// What it was told.
        refused: Refused,
    },
    /// A connection could not be accepted; it waits.
    AcceptFailed {
        /// The kernel's answer.
        errno: Errno,
    },
}

/// Hands the regions to one control and a few observers, each checked first.
///
/// Nothing here waits for a client: sockets are non-blocking, who does not say hello in time is
/// refused, and who does not take its regions at once is dropped.
#[derive(Debug)]
pub struct EdgeListener {
    socket: OwnedFd,
    _file: SocketFile,
    generation: u64,
    workers: Vec<WorkerFds>,
    clients: Vec<Client>,
    events: VecDeque<ListenerEvent>,
    accept_from: Instant,
}

#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    pid: u32,
    uid: u32,
    state: ClientState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientState {
    AwaitingHello {
        until: Instant,
    },
    Control {
        epoch: Epoch,
    },
    Observer,
    /// To be removed.
    Gone,
}

impl EdgeListener {
    /// Listens at `path`, readable and writable for the edge's user and group. A socket file that
    /// a dead edge left is replaced.
    ///
    /// # Errors
    /// [`BindError`]; its text says what to do.
    pub fn bind(
        path: &Path,
        generation: u64,
        workers: Vec<WorkerFds>,
    ) -> Result<EdgeListener, BindError> {
        let (socket, file) = listen_at(path)?;
        Ok(Self {
            socket,
            _file: file,
            generation,
            workers,
            clients: Vec::new(),
            events: VecDeque::new(),
            accept_from: Instant::now(),
        })
    }

    /// Serves clients until something is to be told, `wake` is readable, or `timeout` is over;
    /// `None` in the latter cases.
    ///
    /// # Errors
    /// The kernel's, from `poll(2)`: out of memory.
    pub fn wait(
        &mut self,
        wake: Option<BorrowedFd<'_>>,
        timeout: Duration,
    ) -> io::Result<Option<ListenerEvent>> {
        let until = Instant::now() + timeout;
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            let now = Instant::now();
            let ready = self.poll(
                wake,
                self.next_deadline(until).saturating_duration_since(now),
            )?;
            self.handle(&ready);
            let is_over = ready.is_woken || Instant::now() >= until;
            if is_over && self.events.is_empty() {
                return Ok(None);
            }
        }
    }

    /// PID of the control that has the regions now.
    #[must_use]
    pub fn control_pid(&self) -> Option<u32> {
        self.clients
            .iter()
            .find(|client| matches!(client.state, ClientState::Control { .. }))
            .map(|client| client.pid)
    }

    fn next_deadline(&self, until: Instant) -> Instant {
        let hellos = self.clients.iter().filter_map(|client| match client.state {
            ClientState::AwaitingHello { until } => Some(until),
            _ => None,
        });
        let accept = Some(self.accept_from).filter(|&at| at > Instant::now());
        hellos.chain(accept).fold(until, Instant::min)
    }

    fn poll(&self, wake: Option<BorrowedFd<'_>>, timeout: Duration) -> io::Result<Ready> {
        let mut fds: Vec<PollFd<'_>> = self
            .clients
            .iter()
            .map(|client| PollFd::new(&client.socket, PollFlags::IN))
            .collect();
        let pending = self
            .clients
            .iter()
            .filter(|client| matches!(client.state, ClientState::AwaitingHello { .. }))
            .count();
        let may_accept = pending < PENDING_MAX && Instant::now() >= self.accept_from;
        let accept_flags = if may_accept {
            PollFlags::IN
        } else {
            PollFlags::empty()
        };
        fds.push(PollFd::new(&self.socket, accept_flags));
        fds.extend(wake.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let timeout = Timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        let clients = self.clients.len();
        Ok(Ready {
            clients: fds[..clients].iter().map(PollFd::revents).collect(),
            accept: fds[clients].revents().contains(PollFlags::IN),
            is_woken: fds
                .get(clients + 1)
                .is_some_and(|fd| !fd.revents().is_empty()),
        })
    }

    /// Those who leave go first, so that a control that was restarted finds its place free.
    fn handle(&mut self, ready: &Ready) {
        let gone = PollFlags::HUP | PollFlags::ERR;
        for (index, revents) in ready.clients.iter().enumerate() {
            if revents.intersects(gone) {
                self.leave(index);
            }
        }
        for (index, revents) in ready.clients.iter().enumerate() {
            if revents.contains(PollFlags::IN) {
                self.read(index);
            }
        }
        let now = Instant::now();
        for index in 0..self.clients.len() {
            if let ClientState::AwaitingHello { until } = self.clients[index].state
                && until <= now
            {
                let text = "no hello came within two seconds of the connection";
                self.refuse(index, RefusalCode::HelloTimeout, text.to_owned());
            }
        }
        if ready.accept {
            self.accept(now);
        }
        self.clients
            .retain(|client| client.state != ClientState::Gone);
    }

    fn leave(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let pid = client.pid;
        match std::mem::replace(&mut client.state, ClientState::Gone) {
            ClientState::Control { epoch } => {
                self.events
                    .push_back(ListenerEvent::ControlLeft { pid, epoch });
            }
            ClientState::Observer => self.events.push_back(ListenerEvent::ObserverLeft { pid }),
            ClientState::AwaitingHello { .. } | ClientState::Gone => {}
        }
    }

    fn accept(&mut self, now: Instant) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = match accept_with(&self.socket, flags) {
            Ok(socket) => socket,
            // It was there a moment ago and has gone.
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return,
            Err(errno) => {
                self.accept_from = now + ACCEPT_PAUSE;
                self.events.push_back(ListenerEvent::AcceptFailed { errno });
                return;
            }
        };
        let Ok(peer) = socket_peercred(&socket) else {
            return;
        };
        let uid = peer.uid.as_raw();
        self.clients.push(Client {
            socket,
            pid: peer.pid.as_raw_nonzero().get() as u32,
            uid,
            state: ClientState::AwaitingHello {
                until: now + HELLO_TIMEOUT,
            },
        });
        let own = rustix::process::geteuid().as_raw();
        if uid != own && uid != 0 {
            let text =
                format!("user {uid} may not connect: run as the edge's user ({own}) or as root");
            self.refuse(self.clients.len() - 1, RefusalCode::NotPermitted, text);
        }
    }

    fn read(&mut self, index: usize) {
        let client = &self.clients[index];
        let received = match receive(&client.socket) {
            Ok(received) => received,
            Err(Errno::AGAIN) => return,
            Err(_) => return self.leave(index),
        };
        if received.bytes().is_empty() {
            return self.leave(index);
        }
        if !matches!(client.state, ClientState::AwaitingHello { .. }) {
            // A later minor version may say more than we understand.
            return;
        }
        match Hello::decode(received.bytes()) {
            Ok(hello) => self.admit(index, &hello),
            Err(error @ HandshakeError::VersionMismatch(_)) => {
                self.refuse(index, RefusalCode::VersionMismatch, version_text(error));
            }
            Err(error) => self.refuse(index, RefusalCode::BadHello, error.to_string()),
        }
    }

    fn admit(&mut self, index: usize, hello: &Hello) {
        match hello.role {
            Role::Control => {
                if let Some(pid) = self.living_control() {
                    let text = format!(
                        "a control runs already (PID {pid}): stop it before another is started"
                    );
                    return self.refuse(index, RefusalCode::ControlPresent, text);
                }
            }
            Role::Observer => {
                let is_observer = |client: &&Client| client.state == ClientState::Observer;
                if self.clients.iter().filter(is_observer).count() >= OBSERVERS_MAX {
                    let text = format!(
                        "{OBSERVERS_MAX} observers are connected, which is the most: end one"
                    );
                    return self.refuse(index, RefusalCode::TooManyObservers, text);
                }
            }
        }
        if let Err(errno) = self.hand_over(index, hello.role) {
            let text = format!("the regions could not be handed over: {errno}");
            return self.refuse(index, RefusalCode::HandoverFailed, text);
        }
        let client = &mut self.clients[index];
        let pid = client.pid;
        let (state, event) = match hello.role {
            Role::Control => (
                ClientState::Control { epoch: hello.epoch },
                ListenerEvent::ControlArrived {
                    pid,
                    epoch: hello.epoch,
                },
            ),
            Role::Observer => (
                ClientState::Observer,
                ListenerEvent::ObserverArrived { pid },
            ),
        };
        client.state = state;
        self.events.push_back(event);
    }

    /// PID of the control, after one that has gone meanwhile was let go.
    fn living_control(&mut self) -> Option<u32> {
        for index in 0..self.clients.len() {
            let client = &self.clients[index];
            if matches!(client.state, ClientState::Control { .. }) && has_hung_up(&client.socket) {
                self.leave(index);
            }
        }
        self.control_pid()
    }

    fn hand_over(&self, index: usize, role: Role) -> io::Result<()> {
        let socket = &self.clients[index].socket;
        let welcome = EdgeMessage::Welcome(Welcome {
            version: API_VERSION,
            pid: rustix::process::getpid().as_raw_nonzero().get() as u32,
            generation: self.generation,
            worker_count: self.workers.len().try_into().map_err(|_| Errno::OVERFLOW)?,
        });
        send(socket, &welcome.encode(), &[])?;
        for fds in &self.workers {
            let offer = EdgeMessage::WorkerOffer(WorkerOffer { worker: fds.worker }).encode();
            match role {
                Role::Control => {
                    let doorbells = &fds.doorbells;
                    let fds = [
                        fds.region.as_fd(),
                        doorbells.to_worker.as_fd(),
                        doorbells.to_control.as_fd(),
                    ];
                    send(socket, &offer, &fds)?;
                }
                Role::Observer => {
                    let region = reopen_read_only(fds.region.as_fd())?;
                    send(socket, &offer, &[region.as_fd()])?;
                }
            }
        }
        Ok(())
    }

    fn refuse(&mut self, index: usize, code: RefusalCode, text: String) {
        let client = &mut self.clients[index];
        client.state = ClientState::Gone;
        // What is unread when a socket closes makes the kernel throw away what we say, too.
        for _ in 0..UNREAD_MAX {
            if !receive(&client.socket).is_ok_and(|received| !received.bytes().is_empty()) {
                break;
            }
        }
        let refused = Refused {
            code: Some(code),
            text,
        };
        // A client that does not listen is dropped without having heard it.
        let _ = send(
            &client.socket,
            &EdgeMessage::Refused(refused.clone()).encode(),
            &[],
        );
        let (pid, uid) = (client.pid, client.uid);
        self.events
            .push_back(ListenerEvent::Refused { pid, uid, refused });
    }
}

/// The same sentence, seen from the client.
fn version_text(error: HandshakeError) -> String {
    match error {
        HandshakeError::VersionMismatch(theirs) => format!(
            "this trunkline-edge speaks version {API_VERSION}, the client {theirs}: install the \
             same release of trunkline-edge and trunkline-control, then restart both"
        ),
        other => other.to_string(),
    }
}

struct Ready {
    clients: Vec<PollFlags>,
    accept: bool,
    is_woken: bool,
}
