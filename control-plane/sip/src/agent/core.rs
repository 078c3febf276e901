//! What all legs share: the transactions in flight, their timers, and what waits to go out.
//!
//! [`TransactionLayer`] runs the machines of RFC 3261 §17; who a transaction belongs to, which
//! flow it uses and when its timers fire is kept here. Client and server transactions live in two
//! layers: an INVITE that a proxy sends back to us has the branch we gave it, and must not share a
//! key with itself.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sipx_sip::transaction::Dispatch;
use sipx_sip::{
    HeaderName, Message, Method, Output, Request, Response, Timer, TransactionKey,
    TransactionLayer, TuEvent,
};
use trunkline_edge_api::MonoTime;

use super::{AgentConfig, AgentCounters, AgentEvent, ServerRequestId, Side, SipLegId, Transmit};
use super::{TransmitId, event};
use crate::entropy::Entropy;
use crate::flow::{ConnectionId, Flow};
use crate::message::{LocalTag, header, response_to, to_wire};
use crate::timer_queue::{TimerHandle, TimerQueue};

/// A shared transaction key: transactions, timers and legs name the same one.
pub(crate) type Key = Arc<TransactionKey>;

/// Whose client transaction it is. The agent sends no request outside a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientOwner {
    pub(crate) leg: SipLegId,
    pub(crate) purpose: Purpose,
}

/// What a leg does with the responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Invite,
    Reinvite,
    /// BYE and CANCEL: nobody waits for their outcome.
    Farewell,
}

/// Whose server transaction it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerOwner {
    Leg(SipLegId),
    Request(ServerRequestId),
}

/// A deadline of a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LegTimer {
    /// Send the 2xx again, or give up waiting for its ACK.
    RepeatAnswer,
    /// Try the re-INVITE again that met one of the peer's.
    RetryReinvite,
    /// Stop waiting for the final response to an INVITE that no longer matters.
    AbandonInvite,
}

/// What falls due.
#[derive(Debug)]
pub(crate) enum Due {
    Client(Key, Timer),
    Server(Key, Timer),
    /// A request passed up was not answered.
    Unanswered(Key),
    Leg(SipLegId, LegTimer),
}

/// Something after which a leg may be spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice {
    /// `purpose` is that of a client transaction.
    TransactionOver {
        leg: SipLegId,
        purpose: Option<Purpose>,
    },
    LegTerminated(SipLegId),
}

/// What a step of a transaction came to.
#[derive(Debug, Default)]
pub(crate) struct Step {
    /// What its user must hear.
    pub(crate) event: Option<TuEvent>,
    /// The message it sent.
    pub(crate) sent: Option<Bytes>,
}

#[derive(Debug)]
struct Entry<O> {
    flow: Flow,
    owner: O,
    /// Timers that run; never more than two at once.
    armed: Vec<(Timer, TimerHandle)>,
    /// Server: while a request that was passed up is unanswered.
    unanswered: Option<TimerHandle>,
    /// Order of creation.
    serial: u64,
}

pub(crate) struct Core {
    pub(crate) config: AgentConfig,
    pub(crate) counters: AgentCounters,
    pub(crate) notices: Vec<Notice>,
    entropy: Box<dyn Entropy + Send>,
    clients: TransactionLayer,
    servers: TransactionLayer,
    client_entries: HashMap<Key, Entry<ClientOwner>>,
    server_entries: HashMap<Key, Entry<ServerOwner>>,
    /// Client transactions by the connection their request went out on, in order of creation.
    on_connection: HashMap<ConnectionId, BTreeMap<u64, Key>>,
    requests: HashMap<ServerRequestId, Key>,
    timers: TimerQueue<Due>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<AgentEvent>,
    next_serial: u64,
}

impl Core {
    pub(crate) fn new(mut config: AgentConfig, entropy: Box<dyn Entropy + Send>) -> Self {
        // A zero T1 would make every retransmission due at once, for ever.
        config.timers.t1 = config.timers.t1.max(Duration::from_millis(1));
        config.timers.t2 = config.timers.t2.max(config.timers.t1);
        let timers = config.timers;
        Self {
            config,
            counters: AgentCounters::default(),
            notices: Vec::new(),
            entropy,
            clients: TransactionLayer::new(timers),
            servers: TransactionLayer::new(timers),
            client_entries: HashMap::new(),
            server_entries: HashMap::new(),
            on_connection: HashMap::new(),
            requests: HashMap::new(),
            timers: TimerQueue::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            next_serial: 0,
        }
    }

    pub(crate) fn random(&mut self) -> u64 {
        self.entropy.next_u64()
    }

    pub(crate) fn transactions_len(&self) -> usize {
        self.client_entries.len() + self.server_entries.len()
    }

    /// No room for requests outside dialogs.
    pub(crate) fn is_full(&self) -> bool {
        self.transactions_len() >= self.config.transactions_max
    }

    /// No room for requests inside dialogs either: they may use a quarter more, so that calls can
    /// be hung up when no new ones are taken.
    pub(crate) fn is_exhausted(&self) -> bool {
        let max = self.config.transactions_max;
        self.transactions_len() >= max.saturating_add(max / 4)
    }

    /// No transaction, no timer and nothing to hand out.
    pub(crate) fn is_idle(&self) -> bool {
        self.transactions_len() == 0
            && self.clients.is_empty()
            && self.servers.is_empty()
            && self.timers.is_empty()
            && self.on_connection.is_empty()
            && self.requests.is_empty()
            && self.transmits.is_empty()
            && self.events.is_empty()
    }

    // ---- what goes out ------------------------------------------------------------------------

    pub(crate) fn emit(&mut self, event: AgentEvent) {
        self.events.push_back(event);
    }

    pub(crate) fn poll_event(&mut self) -> Option<event::AgentEvent> {
        self.events.pop_front()
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<MonoTime> {
        self.timers.next_at()
    }

    /// Sends outside any transaction: the ACK to a 2xx, a 2xx again, a stateless response.
    pub(crate) fn transmit(&mut self, flow: Flow, bytes: Bytes) {
        self.transmits.push_back(Transmit {
            flow,
            bytes,
            id: None,
        });
    }

    /// Sends a request that nobody awaits a response to.
    pub(crate) fn transmit_request(&mut self, flow: Flow, request: Request) -> Bytes {
        self.counters.requests_sent.add(&request.method);
        let bytes = to_wire(&Message::Request(request));
        self.transmit(flow, bytes.clone());
        bytes
    }

    /// Answers without a transaction (RFC 3261 §8.2.7). Where no `tag` is given it is made of the
    /// request, so that its copies are answered alike.
    pub(crate) fn respond_stateless(
        &mut self,
        flow: Flow,
        request: &Request,
        status: u16,
        reason: Option<&str>,
        tag: Option<LocalTag>,
        extra: Option<(HeaderName, String)>,
    ) {
        if request.method == Method::Ack {
            return;
        }
        let tag = tag.unwrap_or_else(|| stateless_tag(request));
        let Some(mut response) = response_to(request, status, reason, Some(tag)) else {
            self.counters.malformed += 1;
            return;
        };
        if let Some((name, value)) = extra {
            response.headers.push(header(name, value));
        }
        response
            .headers
            .push(header(HeaderName::Server, self.config.user_agent.clone()));
        response
            .headers
            .push(header(HeaderName::ContentLength, "0"));
        self.counters.responses_sent.add(status / 100);
        self.transmit(flow, to_wire(&Message::Response(response)));
    }

    // ---- timers of legs -----------------------------------------------------------------------

    pub(crate) fn set_leg_timer(
        &mut self,
        at: MonoTime,
        leg: SipLegId,
        timer: LegTimer,
    ) -> TimerHandle {
        self.timers.set(at, Due::Leg(leg, timer))
    }

    pub(crate) fn cancel_timer(&mut self, handle: TimerHandle) {
        self.timers.cancel(handle);
    }

    pub(crate) fn pop_due(&mut self, now: MonoTime) -> Option<Due> {
        self.timers.pop_due(now)
    }

    // ---- client transactions ------------------------------------------------------------------

    /// Starts a client transaction.
    pub(crate) fn send_request(
        &mut self,
        now: MonoTime,
        request: Request,
        flow: Flow,
        owner: ClientOwner,
    ) -> Key {
        self.counters.requests_sent.add(&request.method);
        let (key, outputs) = self
            .clients
            .send_request(request, flow.kind.reliability())
            .expect("the Via of our own requests has a branch");
        let key = Arc::new(key);
        let serial = self.take_serial();
        if let Some(connection) = flow.connection {
            let waiting = self.on_connection.entry(connection).or_default();
            waiting.insert(serial, key.clone());
        }
        self.client_entries.insert(
            key.clone(),
            Entry {
                flow,
                owner,
                armed: Vec::new(),
                unanswered: None,
                serial,
            },
        );
        self.perform(now, Side::Client, &key, outputs, false);
        key
    }

    /// The request that began a client transaction, for its CANCEL.
    pub(crate) fn client_request(&self, key: &Key) -> Option<(&Request, &Flow)> {
        let flow = &self.client_entries.get(key)?.flow;
        Some((self.clients.client_request(key)?, flow))
    }

    /// Ends a client transaction whose outcome no longer matters.
    pub(crate) fn abandon_client(&mut self, now: MonoTime, key: &Key) {
        if self.client_entries.contains_key(key) {
            let outputs = self.clients.on_transport_error(key);
            self.perform(now, Side::Client, key, outputs, false);
        }
    }

    /// Routes a response. `None` when it belongs to no transaction; the response comes back then.
    pub(crate) fn receive_response(
        &mut self,
        now: MonoTime,
        response: Response,
    ) -> Result<Option<(Key, ClientOwner, TuEvent)>, Box<Response>> {
        // The layer looks at the branch alone, wherever the response came from (RFC 3261 §17.1.3).
        match self
            .clients
            .receive(Message::Response(response), sipx_sip::Reliability::Reliable)
        {
            Dispatch::Matched { key, outputs } | Dispatch::Created { key, outputs } => {
                let Some((key, entry)) = self.client_entries.get_key_value(&key) else {
                    return Ok(None);
                };
                let (key, owner) = (key.clone(), entry.owner);
                let step = self.perform(now, Side::Client, &key, outputs, false);
                Ok(step.event.map(|event| (key, owner, event)))
            }
            Dispatch::Unmatched(message) => match *message {
                Message::Response(response) => Err(Box::new(response)),
                Message::Request(_) => Ok(None),
            },
        }
    }

    // ---- server transactions ------------------------------------------------------------------

    pub(crate) fn has_server(&self, key: &TransactionKey) -> bool {
        self.server_entries.contains_key(key)
    }

    pub(crate) fn server_owner(&self, key: &TransactionKey) -> Option<(Key, ServerOwner)> {
        let (key, entry) = self.server_entries.get_key_value(key)?;
        Some((key.clone(), entry.owner))
    }

    /// Starts a server transaction for a request that none has.
    pub(crate) fn accept_request(
        &mut self,
        now: MonoTime,
        key: TransactionKey,
        request: Request,
        flow: Flow,
        owner: ServerOwner,
    ) -> Key {
        let key = Arc::new(key);
        let reliability = flow.kind.reliability();
        let unanswered = match owner {
            ServerOwner::Leg(_) => None,
            ServerOwner::Request(id) => {
                self.requests.insert(id, key.clone());
                let at = after(now, self.config.timers.timeout());
                Some(self.timers.set(at, Due::Unanswered(key.clone())))
            }
        };
        let serial = self.take_serial();
        self.server_entries.insert(
            key.clone(),
            Entry {
                flow,
                owner,
                armed: Vec::new(),
                unanswered,
                serial,
            },
        );
        if let Dispatch::Matched { outputs, .. } | Dispatch::Created { outputs, .. } =
            self.servers.receive(Message::Request(request), reliability)
        {
            self.perform(now, Side::Server, &key, outputs, false);
        }
        key
    }

    /// A copy of a request that has a transaction, or the ACK to a final response of one.
    pub(crate) fn repeat_request(
        &mut self,
        now: MonoTime,
        key: &TransactionKey,
        request: Request,
    ) -> Option<(ServerOwner, TuEvent)> {
        let (key, entry) = self.server_entries.get_key_value(key)?;
        let (key, owner, reliability) = (key.clone(), entry.owner, entry.flow.kind.reliability());
        match self.servers.receive(Message::Request(request), reliability) {
            Dispatch::Matched { outputs, .. } | Dispatch::Created { outputs, .. } => {
                let step = self.perform(now, Side::Server, &key, outputs, true);
                step.event.map(|event| (owner, event))
            }
            Dispatch::Unmatched(_) => None,
        }
    }

    /// The start of a response to the request of a server transaction: `None` when the
    /// transaction is gone.
    pub(crate) fn response(
        &self,
        key: &Key,
        status: u16,
        reason: Option<&str>,
        tag: LocalTag,
    ) -> Option<Response> {
        let request = self.servers.server_request(key)?;
        let mut response = response_to(request, status, reason, Some(tag))?;
        response
            .headers
            .push(header(HeaderName::Server, self.config.user_agent.clone()));
        Some(response)
    }

    /// Sends a response through its transaction and returns it as sent, with the flow it took.
    pub(crate) fn respond(
        &mut self,
        now: MonoTime,
        key: &Key,
        response: Response,
    ) -> Option<(Bytes, Flow)> {
        let entry = self.server_entries.get_mut(&**key)?;
        let flow = entry.flow.clone();
        if response.status.is_final() {
            if let Some(handle) = entry.unanswered.take() {
                self.timers.cancel(handle);
            }
            if let ServerOwner::Request(id) = entry.owner {
                self.requests.remove(&id);
            }
        }
        let outputs = self.servers.send_response(key, response);
        let step = self.perform(now, Side::Server, key, outputs, false);
        step.sent.map(|bytes| (bytes, flow))
    }

    /// The request that waits under `id`.
    pub(crate) fn waiting_request(&self, id: ServerRequestId) -> Option<Key> {
        self.requests.get(&id).cloned()
    }

    /// The request that began a server transaction.
    pub(crate) fn server_request(&self, key: &Key) -> Option<&Request> {
        self.servers.server_request(key)
    }

    /// Gives up a request that was passed up and not answered.
    pub(crate) fn abandon_server(&mut self, key: &Key) {
        self.counters.requests_abandoned += 1;
        self.servers.abandon(key);
        self.forget(Side::Server, key);
    }

    // ---- both ---------------------------------------------------------------------------------

    pub(crate) fn on_client_timer(
        &mut self,
        now: MonoTime,
        key: &Key,
        timer: Timer,
    ) -> Option<(ClientOwner, TuEvent)> {
        let entry = self.client_entries.get_mut(&**key)?;
        entry.armed.retain(|(armed, _)| *armed != timer);
        let owner = entry.owner;
        let outputs = self.clients.on_timer(key, timer);
        let step = self.perform(now, Side::Client, key, outputs, true);
        step.event.map(|event| (owner, event))
    }

    /// Server timers have nothing to say to their user: an INVITE refused and never acknowledged
    /// is over for it already.
    pub(crate) fn on_server_timer(&mut self, now: MonoTime, key: &Key, timer: Timer) {
        if let Some(entry) = self.server_entries.get_mut(&**key) {
            entry.armed.retain(|(armed, _)| *armed != timer);
            let outputs = self.servers.on_timer(key, timer);
            self.perform(now, Side::Server, key, outputs, timer != Timer::Trying100);
        }
    }

    pub(crate) fn on_client_failure(
        &mut self,
        now: MonoTime,
        key: &Key,
    ) -> Option<(ClientOwner, TuEvent)> {
        let owner = self.client_entries.get(&**key)?.owner;
        let outputs = self.clients.on_transport_error(key);
        let step = self.perform(now, Side::Client, key, outputs, false);
        step.event.map(|event| (owner, event))
    }

    pub(crate) fn on_server_failure(&mut self, now: MonoTime, key: &Key) -> Option<ServerOwner> {
        let owner = self.server_entries.get(&**key)?.owner;
        let outputs = self.servers.on_transport_error(key);
        self.perform(now, Side::Server, key, outputs, false);
        Some(owner)
    }

    /// The requests that wait for a response on `connection`, oldest first.
    pub(crate) fn waiting_on(&self, connection: ConnectionId) -> Vec<Key> {
        self.on_connection
            .get(&connection)
            .map(|waiting| waiting.values().cloned().collect())
            .unwrap_or_default()
    }

    fn take_serial(&mut self) -> u64 {
        self.next_serial += 1;
        self.next_serial
    }

    fn perform(
        &mut self,
        now: MonoTime,
        side: Side,
        key: &Key,
        outputs: Vec<Output>,
        is_repeat: bool,
    ) -> Step {
        let mut step = Step::default();
        let mut batch = outputs;
        // Timers of no length fire here, so that a reliable transport's transaction is over at
        // once; each leads to the end of its transaction, so this loop is short.
        while !batch.is_empty() {
            let mut next = Vec::new();
            for output in batch {
                match output {
                    Output::Send(message) => {
                        step.sent = self.send(side, key, &message, is_repeat);
                    }
                    Output::SetTimer { timer, after } if after.is_zero() => {
                        let layer = match side {
                            Side::Client => &mut self.clients,
                            Side::Server => &mut self.servers,
                        };
                        next.extend(layer.on_timer(key, timer));
                    }
                    Output::SetTimer {
                        timer,
                        after: delay,
                    } => {
                        self.arm(side, key, timer, after(now, delay));
                    }
                    Output::ClearTimer(timer) => self.disarm(side, key, timer),
                    Output::ToTu(event) => step.event = step.event.or(Some(*event)),
                    Output::Terminated(_) => self.forget(side, key),
                    // The enum may grow; an output that is not known cannot be performed.
                    _ => {}
                }
            }
            batch = next;
        }
        step
    }

    fn send(&mut self, side: Side, key: &Key, message: &Message, is_repeat: bool) -> Option<Bytes> {
        let flow = match side {
            Side::Client => self.client_entries.get(&**key)?.flow.clone(),
            Side::Server => self.server_entries.get(&**key)?.flow.clone(),
        };
        match message {
            _ if is_repeat => self.counters.retransmissions_sent += 1,
            Message::Request(request) if request.method == Method::Ack => {
                self.counters.requests_sent.add(&Method::Ack);
            }
            Message::Request(_) => {}
            Message::Response(response) => {
                self.counters.responses_sent.add(response.status.class());
            }
        }
        let bytes = to_wire(message);
        self.transmits.push_back(Transmit {
            flow,
            bytes: bytes.clone(),
            id: Some(TransmitId {
                side,
                key: key.clone(),
            }),
        });
        Some(bytes)
    }

    fn armed(&mut self, side: Side, key: &Key) -> Option<&mut Vec<(Timer, TimerHandle)>> {
        match side {
            Side::Client => self.client_entries.get_mut(&**key).map(|e| &mut e.armed),
            Side::Server => self.server_entries.get_mut(&**key).map(|e| &mut e.armed),
        }
    }

    fn arm(&mut self, side: Side, key: &Key, timer: Timer, at: MonoTime) {
        self.disarm(side, key, timer);
        let due = match side {
            Side::Client => Due::Client(key.clone(), timer),
            Side::Server => Due::Server(key.clone(), timer),
        };
        let handle = self.timers.set(at, due);
        match self.armed(side, key) {
            Some(armed) => armed.push((timer, handle)),
            None => self.timers.cancel(handle),
        }
    }

    fn disarm(&mut self, side: Side, key: &Key, timer: Timer) {
        let Some(armed) = self.armed(side, key) else {
            return;
        };
        if let Some(index) = armed.iter().position(|(other, _)| *other == timer) {
            let (_, handle) = armed.swap_remove(index);
            self.timers.cancel(handle);
        }
    }

    fn forget(&mut self, side: Side, key: &Key) {
        let (armed, unanswered) = match side {
            Side::Client => {
                let Some(entry) = self.client_entries.remove(&**key) else {
                    return;
                };
                if let Some(connection) = entry.flow.connection
                    && let Some(waiting) = self.on_connection.get_mut(&connection)
                {
                    waiting.remove(&entry.serial);
                    if waiting.is_empty() {
                        self.on_connection.remove(&connection);
                    }
                }
                self.notices.push(Notice::TransactionOver {
                    leg: entry.owner.leg,
                    purpose: Some(entry.owner.purpose),
                });
                (entry.armed, entry.unanswered)
            }
            Side::Server => {
                let Some(entry) = self.server_entries.remove(&**key) else {
                    return;
                };
                match entry.owner {
                    ServerOwner::Leg(leg) => self
                        .notices
                        .push(Notice::TransactionOver { leg, purpose: None }),
                    ServerOwner::Request(id) => {
                        self.requests.remove(&id);
                    }
                }
                (entry.armed, entry.unanswered)
            }
        };
        for handle in armed
            .into_iter()
            .map(|(_, handle)| handle)
            .chain(unanswered)
        {
            self.timers.cancel(handle);
        }
    }
}

/// `now` plus a protocol timer.
pub(crate) fn after(now: MonoTime, delay: Duration) -> MonoTime {
    now.plus_nanos(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX))
}

/// The same tag for every copy of a request (RFC 3261 §8.2.7). It protects nothing: no dialog
/// comes of a response without a transaction.
fn stateless_tag(request: &Request) -> LocalTag {
    use std::hash::Hasher;
    let mut hasher = std::hash::DefaultHasher::new();
    for name in [HeaderName::CallId, HeaderName::CSeq, HeaderName::From] {
        if let Some(value) = request.headers.value(&name) {
            hasher.write(&value);
        }
    }
    LocalTag(hasher.finish())
}
