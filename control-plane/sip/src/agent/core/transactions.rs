//! The transactions of the [`Core`]: starting them, feeding them, performing what they ask for.

use std::sync::Arc;

use bytes::Bytes;
use sipx_sip::transaction::Dispatch;
use sipx_sip::{
    HeaderName, Message, Method, Output, Reliability, Request, Response, Timer, TransactionKey,
    TuEvent,
};
use trunkline_edge_api::MonoTime;

use super::{
    ClientOwner, ClientStep, ClientUser, Core, Due, Entry, Key, Notice, ServerOwner, Step, after,
    asks_again,
};
use crate::agent::{ServerRequestId, Side, Transmit, TransmitId};
use crate::flow::{ConnectionId, Flow};
use crate::message::{LocalTag, header, response_to, to_wire};
use crate::timer_queue::TimerHandle;

impl Core {
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
    ) -> Result<Option<ClientStep>, Box<Response>> {
        let again = if asks_again(&response) {
            self.request_of(&response)
        } else {
            None
        };
        // The layer looks at the branch alone, wherever the response came from (RFC 3261 §17.1.3).
        match self
            .clients
            .receive(Message::Response(response), Reliability::Reliable)
        {
            Dispatch::Matched { key, outputs } | Dispatch::Created { key, outputs } => {
                let Some((key, entry)) = self.client_entries.get_key_value(&key) else {
                    return Ok(None);
                };
                let (key, owner) = (key.clone(), entry.owner);
                let step = self.perform(now, Side::Client, &key, outputs, false);
                Ok(step.event.map(|event| ClientStep {
                    key,
                    owner,
                    event,
                    again,
                }))
            }
            Dispatch::Unmatched(message) => match *message {
                Message::Response(response) => Err(Box::new(response)),
                Message::Request(_) => Ok(None),
            },
        }
    }

    /// The request that `response` answers, with its flow.
    fn request_of(&self, response: &Response) -> Option<(Request, Flow)> {
        let key = TransactionKey::from_response(response)?;
        let flow = self.client_entries.get(&key)?.flow.clone();
        Some((self.clients.client_request(&key)?.clone(), flow))
    }

    // ---- server transactions ------------------------------------------------------------------

    pub(crate) fn has_server(&self, key: &TransactionKey) -> bool {
        self.server_entries.contains_key(key)
    }

    pub(crate) fn server_owner(&self, key: &TransactionKey) -> Option<(Key, ServerOwner)> {
        let (key, entry) = self.server_entries.get_key_value(key)?;
        Some((key.clone(), entry.owner))
    }

    /// Starts a server transaction for a request that none has, and gives the request back.
    pub(crate) fn accept_request(
        &mut self,
        now: MonoTime,
        key: TransactionKey,
        request: Request,
        flow: Flow,
        owner: ServerOwner,
    ) -> Option<(Key, Box<Request>)> {
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
        let step = match self.servers.receive(Message::Request(request), reliability) {
            Dispatch::Created { outputs, .. } => {
                self.perform(now, Side::Server, &key, outputs, false)
            }
            Dispatch::Matched { .. } | Dispatch::Unmatched(_) => Step::default(),
        };
        let Some(TuEvent::Request(request)) = step.event else {
            self.forget(Side::Server, &key);
            return None;
        };
        Some((key, request))
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
            .push(header(HeaderName::Server, self.product.clone()));
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
    ) -> Option<ClientStep> {
        let entry = self.client_entries.get_mut(&**key)?;
        entry.armed.retain(|(armed, _)| *armed != timer);
        let owner = entry.owner;
        let outputs = self.clients.on_timer(key, timer);
        let step = self.perform(now, Side::Client, key, outputs, true);
        step.event.map(|event| ClientStep {
            key: key.clone(),
            owner,
            event,
            again: None,
        })
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

    pub(crate) fn on_client_failure(&mut self, now: MonoTime, key: &Key) -> Option<ClientStep> {
        let owner = self.client_entries.get(&**key)?.owner;
        let outputs = self.clients.on_transport_error(key);
        let step = self.perform(now, Side::Client, key, outputs, false);
        step.event.map(|event| ClientStep {
            key: key.clone(),
            owner,
            event,
            again: None,
        })
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
                self.counters.responses_sent.add(response);
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
                if let ClientUser::Leg(leg, purpose) = entry.owner.user {
                    self.notices.push(Notice::TransactionOver {
                        leg,
                        client: Some((purpose, entry.owner.cseq)),
                    });
                }
                (entry.armed, entry.unanswered)
            }
            Side::Server => {
                let Some(entry) = self.server_entries.remove(&**key) else {
                    return;
                };
                match entry.owner {
                    ServerOwner::Leg(leg) => self
                        .notices
                        .push(Notice::TransactionOver { leg, client: None }),
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
