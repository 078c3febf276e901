//! The wanted state of every media session, and the commands that bring it about.
//!
//! Pure: commands leave through [`EdgeProxy::peek_command`], worker events enter through
//! [`EdgeProxy::handle_event`], and nothing here knows a socket. One session's life:
//!
//! ```text
//! open            → OpenLeg A, OpenLeg B      ← CommandDone ×2   ⇒ MediaEvent::Opened
//!                   (AddressInUse: next port, again)             ⇒ MediaEvent::Refused
//! configure       → ConfigureLeg              ← CommandDone
//! close           → CloseSession              ← SessionClosed    ⇒ MediaEvent::Closed
//! ```
//!
//! Because the wanted state is kept here, a restarted edge is brought back by saying the same
//! commands again ([`EdgeProxy::handle_connected`]); each is idempotent by contract.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use trunkline_edge_api::command::CorrelatedCommand;
use trunkline_edge_api::{
    CloseCause, Command, Correlation, Epoch, Event, LegConfig, LegIndex, LegReport, LocalMedia,
    MediaTimeoutKind, MonoTime, PortRange, Refusal, RtcpMode, SessionId, SessionReport, Ssrc,
    WorkerIndex,
};

use super::ports::PortPool;

/// Ports tried for one leg before the call is refused. Sixteen neighbours held by strangers mean
/// that the range overlaps another program's, which the operator has to mend.
const BIND_ATTEMPTS_MAX: u8 = 16;

/// Pause before a port that a killed edge still holds is bound again, milliseconds. The kernel
/// frees the sockets of a dead io_uring up to 120 ms late (measured on Linux 6.18); sixteen
/// attempts span ten times that.
const REBIND_INTERVAL_MS: u64 = 80;

/// Commands that may wait for room in one worker's ring. New sessions are refused beyond it; the
/// few commands that existing sessions still need are always taken.
const BACKLOG_MAX: usize = 4_096;

/// How long a closed session may take to report its last figures, seconds, before the call's
/// record is written without them (the edge is away or stuck).
const CLOSE_TIMEOUT_SECS: u64 = 5;

/// A worker as the handshake described it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerInfo {
    /// Its index.
    pub worker: WorkerIndex,
    /// The ports it may bind.
    pub ports: PortRange,
    /// Of its region: another one means another edge process, which knows nothing of the last.
    pub generation: u64,
}

impl WorkerInfo {
    /// Whether sessions can stay where they are.
    fn has_ports_of(&self, other: &Self) -> bool {
        self.worker == other.worker && self.ports == other.ports
    }
}

/// Where the two legs of a session were bound, indexed by [`LegIndex`].
pub type LocalPair = [LocalMedia; 2];

/// What the proxy tells the call machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaEvent {
    /// Both legs are bound; their addresses may now enter SDP.
    Opened {
        /// Which session.
        session: SessionId,
        /// Its local addresses.
        local: LocalPair,
    },
    /// The worker has taken every configuration that was given to it so far.
    Configured {
        /// Which session.
        session: SessionId,
    },
    /// The session could not be opened, or could not be brought back after an edge restart. It is
    /// forgotten; no further event follows.
    Refused {
        /// Which session.
        session: SessionId,
        /// What the worker said.
        refusal: Refusal,
    },
    /// A leg's peer was silent for longer than its configuration allows. The session goes on.
    TimedOut {
        /// Which session.
        session: SessionId,
        /// Whose media is missed.
        leg: LegIndex,
        /// Which silence.
        kind: MediaTimeoutKind,
    },
    /// The session has ended. It is forgotten; no further event follows.
    Closed {
        /// Which session.
        session: SessionId,
        /// `None` when the edge did not say in time.
        cause: Option<CloseCause>,
        /// Last figures; `None` when the edge did not say in time.
        legs: Option<[LegReport; 2]>,
    },
}

/// Why [`EdgeProxy::open`] gave no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MediaRefused {
    /// No edge is connected.
    #[error("the media edge is not connected")]
    EdgeAway,
    /// Every worker has all its ports in use or set aside.
    #[error("all media ports are in use; widen [edge] ports")]
    NoPorts,
    /// The worker does not keep up with its commands.
    #[error("the media edge does not keep up with its commands")]
    Backlog,
}

#[derive(Debug)]
struct Worker {
    info: WorkerInfo,
    ports: PortPool,
    backlog: VecDeque<CorrelatedCommand>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LegState {
    /// `OpenLeg` sent; the answer carries this correlation.
    Opening {
        correlation: Correlation,
        attempts: u8,
    },
    Open,
}

#[derive(Debug)]
struct Leg {
    local: LocalMedia,
    state: LegState,
    config: Option<LegConfig>,
    /// The `ConfigureLeg` whose answer is awaited; an earlier one's no longer matters.
    configuring: Option<Correlation>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SessionState {
    /// Not all legs are confirmed yet, and the call waits for it.
    Opening,
    Open,
    /// `CloseSession` sent.
    Closing {
        deadline: MonoTime,
    },
}

#[derive(Debug)]
struct Session {
    worker: usize,
    legs: [Leg; 2],
    state: SessionState,
}

/// Counts that the metrics read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProxyCounters {
    /// Commands put on a ring.
    pub commands: u64,
    /// Commands that a worker refused.
    pub refused: u64,
    /// Times a ring had no room; the command waited.
    pub ring_full: u64,
    /// Sessions brought back after an edge restart.
    pub replayed: u64,
}

/// See the module's description.
#[derive(Debug)]
pub struct EdgeProxy {
    epoch: Epoch,
    workers: Vec<Worker>,
    is_connected: bool,
    sessions: HashMap<SessionId, Session>,
    opening: HashMap<Correlation, (SessionId, LegIndex)>,
    configuring: HashMap<Correlation, (SessionId, LegIndex)>,
    closing: VecDeque<(MonoTime, SessionId)>,
    rebinds: VecDeque<(MonoTime, SessionId, LegIndex, u8)>,
    serial_next: u32,
    correlation_next: u32,
    events: VecDeque<MediaEvent>,
    counters: ProxyCounters,
}

impl EdgeProxy {
    /// A proxy that knows no edge yet. `epoch` is higher than that of any earlier control.
    #[must_use]
    pub fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            workers: Vec::new(),
            is_connected: false,
            sessions: HashMap::new(),
            opening: HashMap::new(),
            configuring: HashMap::new(),
            closing: VecDeque::new(),
            rebinds: VecDeque::new(),
            serial_next: 0,
            correlation_next: 0,
            events: VecDeque::new(),
            counters: ProxyCounters::default(),
        }
    }

    /// An edge answered the handshake. Sessions of earlier lives of control are closed there, and
    /// all sessions known here are said again.
    pub fn handle_connected(&mut self, workers: &[WorkerInfo]) {
        self.is_connected = true;
        self.end_protected(workers);
        let has_same_ports = self.workers.len() == workers.len()
            && (self.workers.iter().zip(workers)).all(|(w, new)| w.info.has_ports_of(new));
        if !has_same_ports {
            self.reshape(workers);
        }
        for (worker, &info) in self.workers.iter_mut().zip(workers) {
            worker.info = info;
        }
        for worker in &mut self.workers {
            worker.backlog.clear();
        }
        self.opening.clear();
        self.configuring.clear();
        self.rebinds.clear();
        for index in 0..self.workers.len() {
            self.push(index, Command::CloseOtherEpochs { keep: self.epoch });
            self.replay_worker(index);
        }
    }

    /// A worker had to drop an event that must arrive. Saying everything again brings the answers
    /// that may have been among the lost: a repeated command confirms.
    pub fn handle_resync(&mut self, worker: WorkerIndex) {
        self.replay_worker(usize::from(worker.0));
    }

    fn replay_worker(&mut self, worker: usize) {
        let on_worker = self
            .sessions
            .iter()
            .filter(|(_, session)| session.worker == worker);
        let mut ids: Vec<SessionId> = on_worker.map(|(&id, _)| id).collect();
        ids.sort_unstable();
        for id in ids {
            self.replay(id);
        }
    }

    /// The edge is gone. Wanted state stays; new sessions are refused until it is back.
    pub fn handle_disconnected(&mut self) {
        self.is_connected = false;
    }

    /// Whether an edge is connected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// Ends the sessions whose SRTP state went with an edge process. Their keys would begin again
    /// at a rollover counter that the peer has left behind, and at indices that were used: two
    /// payloads under one key stream give both away (RFC 3711 §9.1).
    fn end_protected(&mut self, workers: &[WorkerInfo]) {
        let is_other = |worker: usize| {
            let known = self
                .workers
                .get(worker)
                .map(|worker| worker.info.generation);
            workers.get(worker).map(|info| info.generation) != known
        };
        let is_protected = |session: &Session| {
            let configs = session.legs.iter().filter_map(|leg| leg.config.as_ref());
            configs.into_iter().any(|config| config.crypto.is_some())
        };
        let lost = self
            .sessions
            .iter()
            .filter(|(_, session)| is_other(session.worker) && is_protected(session));
        let lost: Vec<SessionId> = lost.map(|(&id, _)| id).collect();
        for id in lost {
            self.forget(id, None, None);
        }
    }

    /// The edge came back with other workers or ports: sessions whose ports no longer belong to
    /// their worker cannot keep them, and a port that moved would change SDP. They are lost.
    fn reshape(&mut self, workers: &[WorkerInfo]) {
        let lost: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, session)| {
                workers.get(session.worker).is_none_or(|info| {
                    session.legs.iter().any(|leg| {
                        let port = leg.local.rtp.port();
                        port < info.ports.first() || port >= info.ports.last()
                    })
                })
            })
            .map(|(&id, _)| id)
            .collect();
        for id in lost {
            self.sessions.remove(&id);
            self.events.push_back(MediaEvent::Refused {
                session: id,
                refusal: Refusal::AddressMismatch,
            });
        }
        self.workers = workers
            .iter()
            .map(|&info| Worker {
                info,
                ports: PortPool::new(info.ports),
                backlog: VecDeque::new(),
            })
            .collect();
        for (index, worker) in self.workers.iter_mut().enumerate() {
            let taken: std::collections::HashSet<u16> = self
                .sessions
                .values()
                .filter(|session| session.worker == index)
                .flat_map(|session| session.legs.iter().map(|leg| leg.local.rtp.port()))
                .collect();
            worker.ports.retain(|port| !taken.contains(&port));
        }
    }

    fn replay(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        if let SessionState::Closing { .. } = session.state {
            // The edge that is asked now may never have heard of it; the deadline decides.
            let worker = session.worker;
            self.push(worker, Command::CloseSession { session: id });
            return;
        }
        self.counters.replayed += 1;
        for leg in LegIndex::ALL {
            self.send_open(id, leg, 0);
            self.send_config(id, leg);
        }
    }

    /// Opens a session on our media addresses `ips`, by [`LegIndex`]. Both legs live on the worker
    /// with the most free ports. `ssrcs` are random, one per leg.
    ///
    /// # Errors
    /// [`MediaRefused`]: the caller is owed a 503.
    pub fn open(
        &mut self,
        now: MonoTime,
        ips: [IpAddr; 2],
        ssrcs: [Ssrc; 2],
    ) -> Result<SessionId, MediaRefused> {
        if !self.is_connected {
            return Err(MediaRefused::EdgeAway);
        }
        let index = (0..self.workers.len())
            .max_by_key(|&i| self.workers[i].ports.free_count())
            .ok_or(MediaRefused::EdgeAway)?;
        let worker = &mut self.workers[index];
        if worker.backlog.len() >= BACKLOG_MAX {
            return Err(MediaRefused::Backlog);
        }
        let first = worker.ports.take(now).ok_or(MediaRefused::NoPorts)?;
        let Some(second) = worker.ports.take(now) else {
            worker.ports.give_back(first);
            return Err(MediaRefused::NoPorts);
        };
        let leg = |i: usize, port: u16| Leg {
            local: LocalMedia {
                rtp: SocketAddr::new(ips[i], port),
                rtcp: RtcpMode::Separate,
                ssrc: ssrcs[i],
            },
            state: LegState::Open,
            config: None,
            configuring: None,
        };
        let id = SessionId::new(self.epoch, self.serial_next);
        self.serial_next += 1;
        self.sessions.insert(
            id,
            Session {
                worker: index,
                legs: [leg(0, first), leg(1, second)],
                state: SessionState::Opening,
            },
        );
        for leg in LegIndex::ALL {
            self.send_open(id, leg, 0);
        }
        Ok(id)
    }

    /// States what a leg's peer is. Nothing happens for a session that is closing or gone.
    pub fn configure(&mut self, session: SessionId, leg: LegIndex, config: LegConfig) {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return;
        };
        if let SessionState::Closing { .. } = entry.state {
            return;
        }
        entry.legs[leg.as_usize()].config = Some(config);
        self.send_config(session, leg);
    }

    /// Ends a session. [`MediaEvent::Closed`] follows within five seconds, unless the
    /// session is gone already.
    pub fn close(&mut self, now: MonoTime, session: SessionId) {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return;
        };
        if let SessionState::Closing { .. } = entry.state {
            return;
        }
        let deadline = now.plus_secs(CLOSE_TIMEOUT_SECS);
        entry.state = SessionState::Closing { deadline };
        let worker = entry.worker;
        self.closing.push_back((deadline, session));
        self.push(worker, Command::CloseSession { session });
    }

    /// What a worker said.
    pub fn handle_event(&mut self, now: MonoTime, event: Event) {
        match event {
            Event::CommandDone {
                correlation,
                result,
            } => {
                self.counters.refused += u64::from(result.is_err());
                if let Some((session, leg)) = self.opening.remove(&correlation) {
                    self.handle_open_answer(now, session, leg, correlation, result);
                } else if let Some((session, leg)) = self.configuring.remove(&correlation) {
                    self.handle_config_answer(session, leg, correlation, result);
                }
            }
            Event::SessionClosed { cause, report } => {
                self.forget(report.session, Some(cause), Some(report));
            }
            Event::MediaTimedOut { session, leg, kind } => {
                // What is closing is silent for good reason.
                let is_open = |session: &Session| session.state == SessionState::Open;
                if self.sessions.get(&session).is_some_and(is_open) {
                    self.events
                        .push_back(MediaEvent::TimedOut { session, leg, kind });
                }
            }
            Event::SessionReported { .. } | Event::MediaStarted { .. } => {}
        }
    }

    fn handle_open_answer(
        &mut self,
        now: MonoTime,
        id: SessionId,
        leg: LegIndex,
        correlation: Correlation,
        result: Result<(), Refusal>,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        if let SessionState::Closing { .. } = session.state {
            return;
        }
        let entry = &mut session.legs[leg.as_usize()];
        let LegState::Opening {
            correlation: expected,
            attempts,
        } = entry.state
        else {
            return;
        };
        if expected != correlation {
            return;
        }
        match result {
            Ok(()) => {
                entry.state = LegState::Open;
                let all_open = session.legs.iter().all(|leg| leg.state == LegState::Open);
                if session.state == SessionState::Opening && all_open {
                    session.state = SessionState::Open;
                    let local = [session.legs[0].local, session.legs[1].local];
                    self.events
                        .push_back(MediaEvent::Opened { session: id, local });
                }
            }
            // The session is back on a restarted edge, and its port is in SDP already: only this
            // port will do. A killed edge's sockets vanish a little after its process.
            Err(Refusal::AddressInUse)
                if session.state == SessionState::Open && attempts < BIND_ATTEMPTS_MAX =>
            {
                let retry_at = now.plus_millis(REBIND_INTERVAL_MS);
                self.rebinds.push_back((retry_at, id, leg, attempts + 1));
            }
            // Before the port entered SDP another one serves as well.
            Err(Refusal::AddressInUse)
                if session.state == SessionState::Opening && attempts < BIND_ATTEMPTS_MAX =>
            {
                let ports = &mut self.workers[session.worker].ports;
                ports.set_aside(now, entry.local.rtp.port());
                if let Some(port) = ports.take(now) {
                    entry.local.rtp.set_port(port);
                    self.send_open(id, leg, attempts + 1);
                } else {
                    // The pair that is set aside is the pool's again.
                    entry.local.rtp.set_port(0);
                    self.refuse(id, Refusal::AddressInUse);
                }
            }
            Err(refusal) => self.refuse(id, refusal),
        }
    }

    fn handle_config_answer(
        &mut self,
        id: SessionId,
        leg: LegIndex,
        correlation: Correlation,
        result: Result<(), Refusal>,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let entry = &mut session.legs[leg.as_usize()];
        if entry.configuring != Some(correlation) {
            return;
        }
        entry.configuring = None;
        let is_settled = session.legs.iter().all(|leg| leg.configuring.is_none());
        match (session.state, result) {
            (SessionState::Closing { .. }, _) => {}
            (_, Ok(())) if is_settled => {
                self.events
                    .push_back(MediaEvent::Configured { session: id });
            }
            (_, Ok(())) => {}
            // The leg is not bound again yet; its configuration is said again with it.
            (_, Err(Refusal::NoSuchLeg)) if entry_is_opening(session, leg) => {}
            (_, Err(refusal)) => self.refuse(id, refusal),
        }
    }

    fn refuse(&mut self, id: SessionId, refusal: Refusal) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let worker = session.worker;
        self.push(worker, Command::CloseSession { session: id });
        self.remove(id);
        self.events.push_back(MediaEvent::Refused {
            session: id,
            refusal,
        });
    }

    fn forget(&mut self, id: SessionId, cause: Option<CloseCause>, report: Option<SessionReport>) {
        if self.remove(id) {
            let legs = report.map(|report| report.legs);
            self.events.push_back(MediaEvent::Closed {
                session: id,
                cause,
                legs,
            });
        }
    }

    fn remove(&mut self, id: SessionId) -> bool {
        let Some(session) = self.sessions.remove(&id) else {
            return false;
        };
        for leg in &session.legs {
            if let LegState::Opening { correlation, .. } = leg.state {
                self.opening.remove(&correlation);
            }
            if let Some(correlation) = leg.configuring {
                self.configuring.remove(&correlation);
            }
        }
        if let Some(worker) = self.workers.get_mut(session.worker) {
            for leg in &session.legs {
                if leg.local.rtp.port() != 0 {
                    worker.ports.give_back(leg.local.rtp.port());
                }
            }
        }
        true
    }

    /// Gives up on sessions whose closing nobody confirmed, and binds again where a restarted edge
    /// found the port still held.
    pub fn handle_timeout(&mut self, now: MonoTime) {
        while let Some(&(deadline, session)) = self.closing.front() {
            if deadline > now {
                break;
            }
            self.closing.pop_front();
            self.forget(session, None, None);
        }
        while let Some(&(at, session, leg, attempts)) = self.rebinds.front() {
            if at > now {
                break;
            }
            self.rebinds.pop_front();
            self.send_open(session, leg, attempts);
            self.send_config(session, leg);
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<MonoTime> {
        let closing = self.closing.front().map(|&(deadline, _)| deadline);
        let rebind = self.rebinds.front().map(|&(at, ..)| at);
        closing.into_iter().chain(rebind).min()
    }

    /// The next thing the call machine should hear.
    pub fn poll_event(&mut self) -> Option<MediaEvent> {
        self.events.pop_front()
    }

    /// The next command for `worker`, left in place until [`Self::command_sent`].
    #[must_use]
    pub fn peek_command(&self, worker: WorkerIndex) -> Option<&CorrelatedCommand> {
        if !self.is_connected {
            return None;
        }
        self.workers.get(usize::from(worker.0))?.backlog.front()
    }

    /// The ring took the command that [`Self::peek_command`] showed.
    pub fn command_sent(&mut self, worker: WorkerIndex) {
        if let Some(worker) = self.workers.get_mut(usize::from(worker.0)) {
            worker.backlog.pop_front();
            self.counters.commands += 1;
        }
    }

    /// The ring had no room for the command that [`Self::peek_command`] showed.
    pub fn ring_was_full(&mut self) {
        self.counters.ring_full += 1;
    }

    /// Sessions in any state.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// Counts since start.
    #[must_use]
    pub fn counters(&self) -> ProxyCounters {
        self.counters
    }

    /// Port pools in worker order.
    pub fn port_pools(&self) -> impl Iterator<Item = (WorkerIndex, &PortPool)> {
        self.workers
            .iter()
            .map(|worker| (worker.info.worker, &worker.ports))
    }

    fn send_open(&mut self, session: SessionId, leg: LegIndex, attempts: u8) {
        let Some(entry) = self.sessions.get(&session) else {
            return;
        };
        let (worker, local) = (entry.worker, entry.legs[leg.as_usize()].local);
        let correlation = self.push(
            worker,
            Command::OpenLeg {
                session,
                leg,
                local,
            },
        );
        self.opening.insert(correlation, (session, leg));
        if let Some(entry) = self.sessions.get_mut(&session) {
            entry.legs[leg.as_usize()].state = LegState::Opening {
                correlation,
                attempts,
            };
        }
    }

    fn send_config(&mut self, session: SessionId, leg: LegIndex) {
        let Some(entry) = self.sessions.get(&session) else {
            return;
        };
        if let Some(config) = entry.legs[leg.as_usize()].config.clone() {
            let worker = entry.worker;
            let command = Command::ConfigureLeg {
                session,
                leg,
                config,
            };
            let correlation = self.push(worker, command);
            self.configuring.insert(correlation, (session, leg));
            if let Some(entry) = self.sessions.get_mut(&session) {
                let earlier = entry.legs[leg.as_usize()].configuring.replace(correlation);
                if let Some(earlier) = earlier {
                    self.configuring.remove(&earlier);
                }
            }
        }
    }

    fn push(&mut self, worker: usize, command: Command) -> Correlation {
        // The epoch in the high half: answers to an earlier control may still be on the ring.
        let correlation =
            Correlation(u64::from(self.epoch.0) << 32 | u64::from(self.correlation_next));
        self.correlation_next = self.correlation_next.wrapping_add(1);
        if let Some(worker) = self.workers.get_mut(worker) {
            worker.backlog.push_back(CorrelatedCommand {
                correlation,
                command,
            });
        }
        correlation
    }
}

fn entry_is_opening(session: &Session, leg: LegIndex) -> bool {
    matches!(session.legs[leg.as_usize()].state, LegState::Opening { .. })
}

#[cfg(test)]
mod tests;
