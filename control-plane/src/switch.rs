//! The call thread's mind: everything that decides, nothing that does I/O.
//!
//! The [`Switch`] joins the user agent, the registrar, routing, the calls and the edge proxy. The
//! shell ([`crate::node`]) feeds it messages, worker events, timers and snapshots, and carries
//! away what it wants sent. One turn of it:
//!
//! ```text
//!  SIP message ─▶ agent ─▶ AgentEvent ─▶ admission ─▶ new call ┐
//!                                     └▶ a live call's Input ──┼─▶ call machine ─▶ Output
//!  worker event ─▶ edge proxy ─▶ MediaEvent ───────────────────┘      │
//!        ▲                                                            ▼
//!        └───────────── commands ◀── edge proxy        messages ◀── agent
//! ```

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use sipx_sip::Message;
use sipx_sip::error::ParseError;
use trunkline_edge_api::{
    Event, MediaTimeouts, MonoTime, SessionId, WorkerIndex, command::CorrelatedCommand,
};
use trunkline_sip::agent::{Agent, AgentConfig, AgentEvent, SipLegId, Transmit};
use trunkline_sip::digest::{Algorithm, DigestConfig, DigestServer, InvalidRealm};
use trunkline_sip::flow::{ConnectionId, Flow, LocalEnds};
use trunkline_sip::offer_answer::MediaAddresses;
use trunkline_sip::registrar::{Registrar, RegistrarConfig};
use trunkline_sip::{AgentCounters, Entropy, TransmitId};

use crate::call::Input;
use crate::cdr::{CallDirection, CallRecord, LegMedia, RecordingRecord};
use crate::edge::{EdgeProxy, MediaEvent, WorkerInfo};
use crate::pin::{PinCheck, PinVerdict};
use crate::routing::Turns;
use crate::store::RoutingSnapshot;
use crate::trace::Trace;

mod actions;
mod admission;
mod calls;
mod conference;
mod events;
mod functions;
mod locating;
mod rooms;
mod trace;
mod trunks;

pub use actions::{ActionError, CallAction, Ear, MediaPolicy, RecordingForm, Side};
pub use events::{
    CallEvent, CallEventKind, CallId, DigitWay, EventsReport, PlaybackCause, Progress, Told,
};
pub use functions::Outcome;
pub use rooms::{ConferenceAction, ConferenceView, MemberView};
pub use trunks::{DestinationView, RegistrationView, TrunkCounts, TrunkView};

pub use calls::CallKey;
use calls::{Entry, Seat};
use events::EventLists;
use rooms::Rooms;
use trunks::Trunks;

/// Seconds that a refused caller is asked to wait before it tries again (RFC 3261 §20.33). Long
/// enough to shed load, short enough that a person who redials gets through.
const RETRY_AFTER_SECS: u32 = 5;

/// Limits and names of a [`Switch`].
#[derive(Debug, Clone)]
pub struct SwitchConfig {
    /// Digest realm; also the host part of addresses we write.
    pub realm: String,
    /// Hashes that digest challenges offer, in order.
    pub digest_algorithms: Vec<Algorithm>,
    /// Seconds a member's phone rings.
    pub ring_timeout_secs: u32,
    /// How long a peer's media may be missed.
    pub media_timeouts: MediaTimeouts,
    /// Calls at one time.
    pub calls_max: usize,
    /// SIP transactions at one time.
    pub transactions_max: usize,
    /// Seconds until a session ends that nobody refreshes; 0: only where the peer asks.
    pub session_expires_secs: u32,
    /// Shortest such interval that a peer may ask for, seconds.
    pub session_expires_min_secs: u32,
    /// How phones register.
    pub registrar: RegistrarConfig,
    /// The edge's media addresses.
    pub media_addresses: MediaAddresses,
    /// Our own sockets, which calls to trunks leave from.
    pub local_ends: Arc<LocalEnds>,
    /// Where files are, and what may be converted.
    pub media: MediaPolicy,
    /// Bytes of SIP messages that are remembered.
    pub trace_bytes_max: usize,
    /// Whether [`Switch::poll_traced`] is drained.
    pub is_trace_exported: bool,
    /// This life of control; higher than any before.
    pub epoch: trunkline_edge_api::Epoch,
}

/// A live call, for people to look at.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CallView {
    /// Our call id, as in logs and records.
    pub call_id: String,
    /// `opening`, `ringing`, `up`, `reoffering`, `closing`.
    pub state: String,
    /// Who calls.
    pub caller: String,
    /// The DID that was dialled, if one was.
    pub did: Option<String>,
    /// The member's extension.
    pub callee: Option<String>,
    /// The trunk it came through, if one.
    pub trunk: Option<String>,
    /// Since the INVITE, milliseconds.
    pub age_ms: u64,
    /// Codec in use towards the caller, once agreed.
    pub codec: Option<String>,
    /// Codec in use towards the callee, once agreed.
    #[serde(default)]
    pub callee_codec: Option<String>,
    /// Digits that the caller has pressed and control was told of.
    #[serde(default)]
    pub caller_digits: u64,
    /// Digits that the callee has pressed and control was told of.
    #[serde(default)]
    pub callee_digits: u64,
    /// Media of the caller's leg so far; `None` when the edge did not say.
    #[serde(default)]
    pub caller_media: Option<LegMedia>,
    /// Media of the callee's leg so far; `None` when the edge did not say.
    #[serde(default)]
    pub callee_media: Option<LegMedia>,
}

/// See the module's description.
pub struct Switch {
    config: SwitchConfig,
    agent: Agent,
    digest: DigestServer,
    registrar: Registrar,
    proxy: EdgeProxy,
    snapshot: Arc<RoutingSnapshot>,
    /// With whom the next call of each group begins.
    turns: Turns,
    entropy: Box<dyn Entropy + Send>,
    calls: HashMap<CallKey, Entry>,
    by_leg: HashMap<SipLegId, (CallKey, Seat)>,
    by_session: HashMap<SessionId, CallKey>,
    trunks: Trunks,
    deadlines: BTreeSet<(MonoTime, CallKey)>,
    inputs: VecDeque<(CallKey, Input)>,
    records: VecDeque<CallRecord>,
    recordings: VecDeque<RecordingRecord>,
    outcomes: VecDeque<Outcome>,
    pin_checks: VecDeque<PinCheck<CallKey>>,
    events: EventLists,
    /// Conferences that have been called.
    rooms: Rooms,
    /// The wall clock of what is being worked off.
    unix_ms: i64,
    call_serial_next: u64,
    is_draining: bool,
    trace: Trace,
}

impl Switch {
    /// `agent_entropy` and `entropy` are two independent sources of the operating system's
    /// randomness, or seeded ones in tests.
    ///
    /// # Errors
    /// The realm cannot stand in a header.
    pub fn new(
        config: SwitchConfig,
        agent_entropy: Box<dyn Entropy + Send>,
        mut entropy: Box<dyn Entropy + Send>,
    ) -> Result<Self, InvalidRealm> {
        let agent_config = AgentConfig {
            transactions_max: config.transactions_max,
            // Two legs a call, and as many again that are still saying goodbye.
            legs_max: config.calls_max.saturating_mul(4),
            session_expires_secs: config.session_expires_secs,
            min_se_secs: config.session_expires_min_secs,
            ..AgentConfig::default()
        };
        let digest_config = DigestConfig {
            algorithms: config.digest_algorithms.clone(),
            ..DigestConfig::new(config.realm.clone())
        };
        let mut secret = [0; 32];
        entropy.fill(&mut secret);
        Ok(Self {
            agent: Agent::new(agent_config, agent_entropy),
            digest: DigestServer::new(digest_config, secret)?,
            registrar: Registrar::new(config.registrar.clone()),
            proxy: EdgeProxy::new(config.epoch, config.media_addresses.bound()),
            snapshot: Arc::default(),
            turns: Turns::default(),
            entropy,
            calls: HashMap::new(),
            by_leg: HashMap::new(),
            by_session: HashMap::new(),
            trunks: Trunks::new(Arc::clone(&config.local_ends)),
            deadlines: BTreeSet::new(),
            inputs: VecDeque::new(),
            records: VecDeque::new(),
            recordings: VecDeque::new(),
            outcomes: VecDeque::new(),
            pin_checks: VecDeque::new(),
            events: EventLists::default(),
            rooms: Rooms::default(),
            unix_ms: 0,
            call_serial_next: 0,
            is_draining: false,
            trace: match config.is_trace_exported {
                true => Trace::new(config.trace_bytes_max).with_export(),
                false => Trace::new(config.trace_bytes_max),
            },
            config,
        })
    }

    /// Takes a message that the transport received. `unix_ms` is the wall clock here and below;
    /// call records need it.
    pub fn handle_message(&mut self, now: MonoTime, unix_ms: i64, flow: Flow, message: Message) {
        self.trace_received(unix_ms, &flow, &message);
        self.agent.handle_message(now, flow, message);
        self.turn(now, unix_ms);
    }

    /// Takes bytes that the transport could not read as a message.
    pub fn handle_malformed(&mut self, flow: &Flow, bytes: &[u8], error: &ParseError) {
        self.agent.handle_malformed(flow, bytes, error);
    }

    /// A connection has closed.
    pub fn handle_connection_closed(
        &mut self,
        now: MonoTime,
        unix_ms: i64,
        connection: ConnectionId,
    ) {
        self.registrar.handle_connection_closed(connection);
        self.agent.handle_connection_closed(now, connection);
        self.trunk_connection_closed(now, connection);
        self.turn(now, unix_ms);
    }

    /// The transport could not deliver what [`Self::poll_transmit`] gave under this id.
    pub fn handle_undelivered(&mut self, now: MonoTime, unix_ms: i64, id: &TransmitId) {
        self.agent.handle_transport_error(now, id);
        self.turn(now, unix_ms);
    }

    /// Takes what a worker said.
    pub fn handle_worker_event(&mut self, now: MonoTime, unix_ms: i64, event: Event) {
        self.proxy.handle_event(now, event);
        self.turn(now, unix_ms);
    }

    /// An edge is connected.
    pub fn handle_edge_connected(&mut self, now: MonoTime, unix_ms: i64, workers: &[WorkerInfo]) {
        self.proxy.handle_connected(workers);
        self.turn(now, unix_ms);
    }

    /// The edge is gone.
    pub fn handle_edge_disconnected(&mut self) {
        self.proxy.handle_disconnected();
        self.rooms.forget_speakers();
    }

    /// Something that [`Self::poll_timeout`] announced is due.
    pub fn handle_timeout(&mut self, now: MonoTime, unix_ms: i64) {
        self.agent.handle_timeout(now);
        self.registrar.handle_timeout(now);
        self.proxy.handle_timeout(now);
        self.unix_ms = unix_ms;
        self.trunks_timeout(now);
        while let Some(&(at, key)) = self.deadlines.first() {
            if at > now {
                break;
            }
            self.deadlines.pop_first();
            self.inputs.push_back((key, Input::Timeout));
        }
        self.turn(now, unix_ms);
    }

    /// When [`Self::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<MonoTime> {
        [
            self.agent.poll_timeout(),
            self.registrar.poll_timeout(),
            self.proxy.poll_timeout(),
            self.trunks.poll_timeout(),
            self.deadlines.first().map(|&(at, _)| at),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Replaces the routing data; calls in progress go on as they were routed.
    pub fn set_snapshot(&mut self, snapshot: Arc<RoutingSnapshot>) {
        for name in snapshot.interfaces() {
            if self.config.media_addresses.named(name.as_str()).is_none() {
                tracing::error!(
                    media = %name,
                    "no entry of [edge] media_addresses has the name that the site file gives; \
                     calls of who uses it are refused"
                );
            }
        }
        self.snapshot = snapshot;
        self.trunks.invalidate();
    }

    /// New calls get 503 from now on.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Whether new calls get 503.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// Ends every call, as a stopping daemon does.
    pub fn hang_up_all(&mut self, now: MonoTime, unix_ms: i64) {
        self.drain();
        let keys: Vec<CallKey> = self.calls.keys().copied().collect();
        self.inputs
            .extend(keys.into_iter().map(|key| (key, Input::Shutdown)));
        self.turn(now, unix_ms);
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let transmit = self.agent.poll_transmit()?;
        self.trace_sent(&transmit);
        Some(transmit)
    }

    /// The next call record to write.
    pub fn poll_record(&mut self) -> Option<CallRecord> {
        self.records.pop_front()
    }

    /// The next record of a recording to write.
    pub fn poll_recording(&mut self) -> Option<RecordingRecord> {
        self.recordings.pop_front()
    }

    /// The next PIN to be checked, which takes too long for the call thread.
    pub fn poll_pin_check(&mut self) -> Option<PinCheck<CallKey>> {
        self.pin_checks.pop_front()
    }

    /// Takes what came of a check.
    pub fn handle_pin_checked(
        &mut self,
        now: MonoTime,
        unix_ms: i64,
        key: CallKey,
        verdict: PinVerdict,
    ) {
        self.inputs.push_back((key, Input::PinChecked(verdict)));
        self.turn(now, unix_ms);
    }

    /// The next command for `worker`; see [`EdgeProxy::peek_command`].
    #[must_use]
    pub fn peek_command(&self, worker: WorkerIndex) -> Option<&CorrelatedCommand> {
        self.proxy.peek_command(worker)
    }

    /// The edge proxy, for what concerns the rings alone.
    pub fn proxy_mut(&mut self) -> &mut EdgeProxy {
        &mut self.proxy
    }

    /// The edge proxy, for its counts.
    #[must_use]
    pub fn proxy(&self) -> &EdgeProxy {
        &self.proxy
    }

    /// What the agent counted.
    #[must_use]
    pub fn agent_counters(&self) -> &AgentCounters {
        self.agent.counters()
    }

    /// Open SIP transactions.
    #[must_use]
    pub fn transaction_count(&self) -> usize {
        self.agent.transactions_len()
    }

    /// Registered contacts.
    #[must_use]
    pub fn registration_count(&self) -> usize {
        self.registrar.len()
    }

    /// Calls in any state.
    #[must_use]
    pub fn call_count(&self) -> usize {
        self.calls.len()
    }

    /// Calls in any state, of one direction.
    #[must_use]
    pub fn calls_active(&self, direction: CallDirection) -> usize {
        let calls = self.calls.values();
        calls
            .filter(|entry| entry.call.record().direction == direction)
            .count()
    }

    /// Up to `limit` live calls, the oldest first. Their media is shown as far as
    /// [`Self::ask_for_figures`] has brought it.
    #[must_use]
    pub fn calls(&self, now: MonoTime, limit: usize) -> Vec<CallView> {
        let figures = |entry: &Entry| self.proxy.figures(now, entry.session?);
        self.oldest(limit)
            .map(|entry| entry.view(now, figures(entry)))
            .collect()
    }

    /// Asks the edge what the media of these calls is like. The answers come as worker events; a
    /// call that is asked about too often, or one too many, is not asked about.
    pub fn ask_for_figures(&mut self, now: MonoTime, limit: usize) {
        let sessions: Vec<SessionId> = self
            .oldest(limit)
            .filter_map(|entry| entry.session)
            .collect();
        for session in sessions {
            self.proxy.query(now, session);
        }
    }

    fn oldest(&self, limit: usize) -> impl Iterator<Item = &Entry> {
        let mut entries: Vec<&Entry> = self.calls.values().collect();
        entries.sort_unstable_by_key(|entry| entry.started_at);
        entries.into_iter().take(limit)
    }

    /// Works off everything that one input set in motion.
    fn turn(&mut self, now: MonoTime, unix_ms: i64) {
        self.unix_ms = unix_ms;
        loop {
            if let Some((key, input)) = self.inputs.pop_front() {
                self.drive(now, key, input);
            } else if let Some(event) = self.agent.poll_event() {
                self.handle_agent_event(now, unix_ms, event);
            } else if let Some(event) = self.proxy.poll_event() {
                self.handle_media_event(event);
            } else {
                return;
            }
        }
    }

    fn handle_agent_event(&mut self, now: MonoTime, unix_ms: i64, event: AgentEvent) {
        match event {
            AgentEvent::Invite {
                leg,
                request,
                flow,
                replaces: None,
            } => {
                self.admit_call(now, unix_ms, leg, &request, flow);
            }
            // No call gives its place to another so far (RFC 3891 §3 has 603 for that).
            AgentEvent::Invite { leg, .. } => {
                if let Err(error) = self.agent.reject(now, leg, 603, None, Vec::new()) {
                    tracing::debug!(%leg, %error, "replacing call not refused");
                }
            }
            AgentEvent::Refer { leg, .. } => {
                if let Err(error) = self.agent.reject_refer(now, leg, 603) {
                    tracing::debug!(%leg, %error, "transfer not refused");
                }
            }
            AgentEvent::ReferAnswered { .. } | AgentEvent::ReferProgress { .. } => {}
            AgentEvent::Request { id, request, flow } => {
                self.serve_request(now, id, &request, &flow);
            }
            AgentEvent::Progress {
                leg, status, sdp, ..
            } => {
                self.fork_input(leg, |fork| Input::CalleeProgress { fork, status, sdp });
            }
            AgentEvent::Answered { leg, sdp, .. } => {
                self.note_answer(now, leg);
                self.fork_input(leg, |fork| Input::CalleeAnswered { fork, sdp });
            }
            AgentEvent::Rejected {
                leg,
                status,
                response,
                ..
            } => {
                self.note_refusal(now, leg, status, response.as_deref());
                self.fork_input(leg, |fork| Input::CalleeRejected { fork, status });
                self.forget_leg(leg);
            }
            // Nothing is asked outside dialogs so far, and an answered call has said so already.
            AgentEvent::Confirmed { .. } | AgentEvent::AnswerInPrack { .. } => {}
            AgentEvent::Response {
                id,
                status,
                response,
                sequence,
            } => self.handle_asked(now, id, status, response.as_deref(), sequence),
            // The peer re-invited without an offer and its ACK changes something: to the far side
            // that is an offer like any other.
            AgentEvent::Offer { leg, sdp } | AgentEvent::AnswerInAck { leg, sdp } => {
                self.leg_input(leg, |leg| Input::Offer { leg, sdp });
            }
            AgentEvent::OfferCancelled { leg } => {
                self.leg_input(leg, |leg| Input::OfferCancelled { leg });
            }
            AgentEvent::OfferAnswered { leg, result } => {
                self.leg_input(leg, |leg| Input::OfferAnswered { leg, result });
            }
            AgentEvent::Digit { leg, digit } => {
                self.take_said_digit(leg, digit);
            }
            AgentEvent::Ended { leg, by, .. } => {
                self.leg_input(leg, |leg| Input::LegEnded { leg, by });
                self.forget_leg(leg);
            }
        }
    }

    fn handle_media_event(&mut self, event: MediaEvent) {
        let (session, input) = match event {
            MediaEvent::Opened { session, local } => (session, Input::MediaOpened(local)),
            MediaEvent::Configured { session } => (session, Input::MediaConfigured),
            MediaEvent::Refused { session, refusal } => {
                tracing::warn!(%session, %refusal, "media session refused");
                let reason = refusal.into();
                (session, Input::MediaRefused { reason })
            }
            MediaEvent::TimedOut { session, leg, kind } => {
                tracing::info!(%session, ?leg, ?kind, "no media");
                (session, Input::MediaTimedOut { leg, kind })
            }
            MediaEvent::Closed {
                session,
                cause,
                legs,
            } => (session, Input::MediaClosed { cause, legs }),
            function => return self.handle_function_event(function),
        };
        let is_over = matches!(
            input,
            Input::MediaRefused { .. } | Input::MediaClosed { .. }
        );
        let Some(&key) = self.by_session.get(&session) else {
            return;
        };
        if is_over {
            self.by_session.remove(&session);
            if let Some(entry) = self.calls.get_mut(&key) {
                entry.session = None;
            }
        }
        self.inputs.push_back((key, input));
    }
}

#[cfg(test)]
mod tests;
