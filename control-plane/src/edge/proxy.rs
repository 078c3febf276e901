//! The wanted state of every media session, and the commands that bring it about.
//!
//! Pure: commands leave through [`EdgeProxy::peek_command`], worker events enter through
//! [`EdgeProxy::handle_event`], and nothing here knows a socket. One session's life:
//!
//! ```text
//! open            → OpenLeg A, OpenLeg B      ← CommandDone ×2   ⇒ MediaEvent::Opened
//!                   (AddressInUse: next port, again)             ⇒ MediaEvent::Refused
//! configure       → ConfigureLeg              ← CommandDone
//! query           → QuerySession              ← SessionReported, CommandDone
//! close           → CloseSession              ← SessionClosed    ⇒ MediaEvent::Closed
//! ```
//!
//! Because the wanted state is kept here, a restarted edge is brought back by saying the same
//! commands again ([`EdgeProxy::handle_connected`]); each is idempotent by contract.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

use trunkline_edge_api::command::CorrelatedCommand;
use trunkline_edge_api::{
    CloseCause, Command, ConferenceId, Correlation, Epoch, LegConfig, LegIndex, LegReport,
    LocalMedia, MonoTime, RecordingId, Refusal, RtcpMode, SessionId, SessionReport, Ssrc,
    WorkerIndex,
};

use super::ports::PortPools;

mod busy;
mod commands;
mod events;
mod functions;
mod vocabulary;

pub use commands::{CommandCounts, CommandResult};
pub use functions::{
    FunctionError, Piece, PlayList, PromptFile, RecordingOf, RecordingPlan, Ticket, single_digit,
};
pub use vocabulary::{LocalPair, MediaEvent, MediaRefused, ProxyCounters, WorkerInfo};

use commands::{Commands, Subject};
use functions::{Conferences, FunctionIds, OwedRecording, Prompts, SessionWanted};

/// Ports tried for one leg before the call is refused. Sixteen neighbours held by strangers mean
/// that the range overlaps another program's, which the operator has to mend.
const BIND_ATTEMPTS_MAX: u8 = 16;

/// Pause before a port that a killed edge still holds is bound again, milliseconds. The kernel
/// frees the sockets of a dead io_uring up to 120 ms late (measured on Linux 6.18); sixteen
/// attempts span ten times that.
const REBIND_INTERVAL_MS: u64 = 80;

/// How long a closed session may take to report its last figures, seconds, before the call's
/// record is written without them (the edge is away or stuck).
const CLOSE_TIMEOUT_SECS: u64 = 5;

/// Sessions whose figures may be asked for at one time: a small part of a ring, so that a list of
/// many calls does not stand in the way of new ones.
const QUERIES_MAX: usize = 256;

/// How old figures may be and still count as those of now, milliseconds. Operators who look twice
/// within it cost the edge nothing.
const FIGURES_AGE_MAX_MS: u64 = 1_000;

#[derive(Debug)]
struct Worker {
    info: WorkerInfo,
    ports: PortPools,
    /// It has refused a session for want of time; until then others are asked first.
    busy_until: MonoTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LegState {
    /// `OpenLeg` sent; the answer carries this correlation.
    Opening {
        correlation: Correlation,
        attempts: u8,
    },
    Open,
    /// The worker is past its capacity, and the other leg's answer is awaited.
    Busy,
    /// The session has one leg alone.
    Absent,
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
    /// What it does beside relaying.
    wanted: SessionWanted,
    /// The conference that it was opened for.
    conference: Option<ConferenceId>,
    /// As the edge reported them last, on demand, and when.
    figures: Option<(MonoTime, [LegReport; 2])>,
}

impl Session {
    fn is_protected(&self) -> bool {
        let mut configs = self.legs.iter().filter_map(|leg| leg.config.as_ref());
        configs.any(|config| config.crypto.is_some())
    }

    fn is_opening(&self) -> bool {
        let is_opening = |leg: &Leg| matches!(leg.state, LegState::Opening { .. });
        self.legs.iter().any(is_opening)
    }
}

/// See the module's description.
#[derive(Debug)]
pub struct EdgeProxy {
    epoch: Epoch,
    /// Every address that sessions may be bound on.
    addresses: Vec<IpAddr>,
    workers: Vec<Worker>,
    is_connected: bool,
    sessions: HashMap<SessionId, Session>,
    commands: Commands,
    /// Sessions whose figures are asked for; at most [`QUERIES_MAX`].
    querying: HashSet<SessionId>,
    closing: VecDeque<(MonoTime, SessionId)>,
    rebinds: VecDeque<(MonoTime, SessionId, LegIndex, u8)>,
    prompts: Prompts,
    conferences: Conferences,
    /// Recordings whose end has not been told.
    recordings: HashMap<RecordingId, OwedRecording>,
    function_ids: FunctionIds,
    serial_next: u32,
    events: VecDeque<MediaEvent>,
    counters: ProxyCounters,
}

impl EdgeProxy {
    /// A proxy that knows no edge yet. `epoch` is higher than that of any earlier control;
    /// `addresses` are those that the edge may bind, each once.
    #[must_use]
    pub fn new(epoch: Epoch, addresses: Vec<IpAddr>) -> Self {
        Self {
            epoch,
            addresses,
            workers: Vec::new(),
            is_connected: false,
            sessions: HashMap::new(),
            commands: Commands::new(epoch),
            querying: HashSet::new(),
            closing: VecDeque::new(),
            rebinds: VecDeque::new(),
            prompts: Prompts::default(),
            conferences: Conferences::default(),
            recordings: HashMap::new(),
            function_ids: FunctionIds::default(),
            serial_next: 0,
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
        let mut renewed = Vec::new();
        for (index, (worker, &info)) in self.workers.iter_mut().zip(workers).enumerate() {
            if worker.info.generation != info.generation {
                renewed.push(index);
            }
            worker.info = info;
        }
        self.prompts.unloaded();
        for worker in renewed {
            self.renew_functions(worker);
        }
        self.commands.begin_anew(self.workers.len());
        self.querying.clear();
        self.rebinds.clear();
        for index in 0..self.workers.len() {
            let command = Command::CloseOtherEpochs { keep: self.epoch };
            self.commands.push(index, command, Subject::Nothing);
            self.replay_worker(index);
        }
    }

    /// A worker had to drop an event that must arrive. Saying everything again brings the answers
    /// that may have been among the lost: a repeated command confirms.
    pub fn handle_resync(&mut self, worker: WorkerIndex) {
        let worker = usize::from(worker.0);
        self.commands.forget_answers(worker);
        let sessions = &self.sessions;
        let is_elsewhere = |id: &SessionId| sessions.get(id).is_some_and(|s| s.worker != worker);
        self.querying.retain(is_elsewhere);
        self.prompts.unloaded();
        self.replay_worker(worker);
    }

    fn replay_worker(&mut self, worker: usize) {
        let on_worker = self
            .sessions
            .iter()
            .filter(|(_, session)| session.worker == worker);
        let mut ids: Vec<SessionId> = on_worker.map(|(&id, _)| id).collect();
        ids.sort_unstable();
        self.replay_conferences(worker);
        for id in ids {
            self.replay(id);
        }
    }

    /// The edge is gone. Wanted state stays; new sessions are refused until it is back.
    pub fn handle_disconnected(&mut self) {
        self.is_connected = false;
        self.querying.clear();
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
        let lost = self
            .sessions
            .iter()
            .filter(|(_, session)| is_other(session.worker) && session.is_protected());
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
                    let mut legs = session.legs.iter();
                    legs.any(|leg| {
                        if leg.state == LegState::Absent {
                            return false;
                        }
                        let port = leg.local.rtp.port();
                        port < info.ports.first() || port >= info.ports.last()
                    })
                })
            })
            .map(|(&id, _)| id)
            .collect();
        for id in lost {
            let lost = self.sessions.remove(&id);
            self.leave(lost.and_then(|session| session.conference));
            self.events.push_back(MediaEvent::Refused {
                session: id,
                refusal: Refusal::AddressMismatch,
            });
        }
        self.workers = workers
            .iter()
            .map(|&info| Worker {
                info,
                ports: PortPools::new(&self.addresses, info.ports),
                busy_until: MonoTime(0),
            })
            .collect();
        for (index, worker) in self.workers.iter_mut().enumerate() {
            let taken: HashSet<_> = self
                .sessions
                .values()
                .filter(|session| session.worker == index)
                .flat_map(|session| session.legs.iter().map(|leg| leg.local.rtp))
                .collect();
            worker.ports.retain(|rtp| !taken.contains(&rtp));
        }
    }

    fn replay(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        if let SessionState::Closing { .. } = session.state {
            // The edge that is asked now may never have heard of it; the deadline decides.
            let worker = session.worker;
            self.send_close(worker, id);
            return;
        }
        let is_protected = session.is_protected();
        if is_protected && session.is_opening() {
            // Whether the edge ever had it cannot be told.
            let worker = session.worker;
            self.send_close(worker, id);
            self.forget(id, None, None);
            return;
        }
        self.counters.replayed += 1;
        for leg in LegIndex::ALL {
            // The edge has bound these legs before. If it has closed the session since and the
            // word was lost, a second binding would use indices under the same keys again
            // (RFC 3711 §9.1); a configuration alone is refused then, and the call ends.
            if !is_protected {
                self.send_open(id, leg, 0);
            }
            self.send_config(id, leg);
        }
        for leg in LegIndex::ALL {
            self.send_leg_functions(id, leg);
        }
        self.send_session_functions(id);
    }

    /// Opens a session on our media addresses `ips`, by [`LegIndex`]. Both legs live on one worker,
    /// the one with the most room. `ssrcs` are random, one per leg.
    ///
    /// # Errors
    /// [`MediaRefused`]: the caller is owed a 503.
    pub fn open(
        &mut self,
        now: MonoTime,
        ips: [IpAddr; 2],
        ssrcs: [Ssrc; 2],
    ) -> Result<SessionId, MediaRefused> {
        let (index, [first, second]) = self
            .take_ports(now, ips)
            .inspect_err(|&reason| self.counters.count_refused(reason))?;
        let leg = |rtp, ssrc| Leg {
            local: LocalMedia {
                rtp,
                rtcp: RtcpMode::Separate,
                ssrc,
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
                legs: [leg(first, ssrcs[0]), leg(second, ssrcs[1])],
                state: SessionState::Opening,
                wanted: SessionWanted::default(),
                conference: None,
                figures: None,
            },
        );
        for leg in LegIndex::ALL {
            self.send_open(id, leg, 0);
        }
        Ok(id)
    }

    /// Opens a session with leg A alone, on `worker` where the caller has one in mind.
    ///
    /// # Errors
    /// [`MediaRefused`]: the caller is owed a 503.
    fn open_single(
        &mut self,
        now: MonoTime,
        ip: IpAddr,
        ssrc: Ssrc,
        worker: Option<usize>,
    ) -> Result<SessionId, MediaRefused> {
        let taken = match worker {
            None => self.candidates(now, [ip, ip]).and_then(|candidates| {
                let mut candidates = candidates.into_iter();
                let taken = candidates
                    .find_map(|index| Some((index, self.workers[index].ports.take(now, ip)?)));
                taken.ok_or(MediaRefused::NoPorts)
            }),
            Some(_) if !self.is_connected => Err(MediaRefused::EdgeAway),
            Some(index) => match self.workers.get_mut(index) {
                None => Err(MediaRefused::EdgeAway),
                Some(_) if self.commands.is_full(index) => Err(MediaRefused::EdgeBusy),
                Some(worker) => worker
                    .ports
                    .take(now, ip)
                    .map(|rtp| (index, rtp))
                    .ok_or(MediaRefused::NoPorts),
            },
        };
        let (worker, rtp) = taken.inspect_err(|&reason| self.counters.count_refused(reason))?;
        let leg = |rtp, state| Leg {
            local: LocalMedia {
                rtp,
                rtcp: RtcpMode::Separate,
                ssrc,
            },
            state,
            config: None,
            configuring: None,
        };
        let absent = leg(SocketAddr::new(ip, 0), LegState::Absent);
        let id = SessionId::new(self.epoch, self.serial_next);
        self.serial_next += 1;
        let session = Session {
            worker,
            legs: [leg(rtp, LegState::Open), absent],
            state: SessionState::Opening,
            wanted: SessionWanted::default(),
            conference: None,
            figures: None,
        };
        self.sessions.insert(id, session);
        self.send_open(id, LegIndex::A, 0);
        Ok(id)
    }

    /// Finds a worker for a session, and takes its ports there.
    fn take_ports(
        &mut self,
        now: MonoTime,
        ips: [IpAddr; 2],
    ) -> Result<(usize, [SocketAddr; 2]), MediaRefused> {
        let candidates = self.candidates(now, ips)?;
        candidates
            .into_iter()
            .find_map(|index| Some((index, self.workers[index].ports.take_both(now, ips)?)))
            .ok_or(MediaRefused::NoPorts)
    }

    /// Workers that could take a session on these addresses, the one with the most room first, and
    /// busy ones last. All of them: one without free ports may have some whose time aside is over.
    fn candidates(&self, now: MonoTime, ips: [IpAddr; 2]) -> Result<Vec<usize>, MediaRefused> {
        if !self.is_connected || self.workers.is_empty() {
            return Err(MediaRefused::EdgeAway);
        }
        let mut candidates: Vec<usize> = (0..self.workers.len())
            .filter(|&index| !self.commands.is_full(index))
            .collect();
        if candidates.is_empty() {
            return Err(MediaRefused::EdgeBusy);
        }
        candidates.sort_by_key(|&index| {
            let worker = &self.workers[index];
            (
                worker.is_busy(now),
                std::cmp::Reverse(worker.ports.room(ips)),
            )
        });
        Ok(candidates)
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
        self.send_close(worker, session);
    }

    /// Asks the edge for a session's figures, unless [`Self::figures`] has them or they are on
    /// their way. Past 256 of them, and without an edge, nothing is asked.
    pub fn query(&mut self, now: MonoTime, session: SessionId) {
        let may_ask = self.is_connected && self.querying.len() < QUERIES_MAX;
        if !may_ask || self.figures(now, session).is_some() {
            return;
        }
        let Some(entry) = self.sessions.get(&session) else {
            return;
        };
        let worker = entry.worker;
        if entry.state == SessionState::Open
            && !self.commands.is_full(worker)
            && self.querying.insert(session)
        {
            let (command, subject) = (Command::QuerySession { session }, Subject::Query(session));
            self.commands.push(worker, command, subject);
        }
    }

    /// Whether figures are on their way.
    #[must_use]
    pub fn is_querying(&self) -> bool {
        !self.querying.is_empty()
    }

    /// A session's figures, by [`LegIndex`], if they are those of now.
    #[must_use]
    pub fn figures(&self, now: MonoTime, session: SessionId) -> Option<[LegReport; 2]> {
        let (at, legs) = self.sessions.get(&session)?.figures?;
        let is_fresh = now.nanos_since(at) <= FIGURES_AGE_MAX_MS * 1_000_000;
        is_fresh.then_some(legs)
    }

    fn refuse(&mut self, id: SessionId, refusal: Refusal) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        self.counters.count_refused(refusal.into());
        let worker = session.worker;
        self.send_close(worker, id);
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
        if let Some(worker) = self.workers.get_mut(session.worker) {
            for leg in &session.legs {
                if leg.local.rtp.port() != 0 {
                    worker.ports.give_back(leg.local.rtp);
                }
            }
        }
        self.leave(session.conference);
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
            self.send_leg_functions(session, leg);
            self.send_session_functions(session);
        }
        self.sweep_prompts(now);
    }

    /// When [`Self::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<MonoTime> {
        let closing = self.closing.front().map(|&(deadline, _)| deadline);
        let rebind = self.rebinds.front().map(|&(at, ..)| at);
        let sweep = self.prompts.poll_timeout();
        closing.into_iter().chain(rebind).chain(sweep).min()
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
        self.commands.peek(worker)
    }

    /// The ring took the command that [`Self::peek_command`] showed.
    pub fn command_sent(&mut self, worker: WorkerIndex) {
        self.commands.sent(worker);
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

    /// What the workers answered since start.
    #[must_use]
    pub fn command_counts(&self) -> &CommandCounts {
        self.commands.counts()
    }

    /// Port pools in worker order.
    pub fn port_pools(&self) -> impl Iterator<Item = (WorkerIndex, &PortPools)> {
        self.workers
            .iter()
            .map(|worker| (worker.info.worker, &worker.ports))
    }

    fn send_open(&mut self, session: SessionId, leg: LegIndex, attempts: u8) {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return;
        };
        let open = &mut entry.legs[leg.as_usize()];
        if open.state == LegState::Absent {
            return;
        }
        let command = Command::OpenLeg {
            session,
            leg,
            local: open.local,
        };
        let subject = Subject::Open(session, leg);
        let correlation = self.commands.push(entry.worker, command, subject);
        open.state = LegState::Opening {
            correlation,
            attempts,
        };
    }

    fn send_config(&mut self, session: SessionId, leg: LegIndex) {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return;
        };
        let configured = &mut entry.legs[leg.as_usize()];
        if let Some(config) = configured.config.clone() {
            let command = Command::ConfigureLeg {
                session,
                leg,
                config,
            };
            let subject = Subject::Configure(session, leg);
            let correlation = self.commands.push(entry.worker, command, subject);
            configured.configuring = Some(correlation);
        }
    }

    fn send_close(&mut self, worker: usize, session: SessionId) {
        let command = Command::CloseSession { session };
        self.commands.push(worker, command, Subject::Nothing);
    }
}

fn entry_is_opening(session: &Session, leg: LegIndex) -> bool {
    matches!(session.legs[leg.as_usize()].state, LegState::Opening { .. })
}

#[cfg(test)]
mod tests;
