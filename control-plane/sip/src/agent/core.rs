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
use sipx_sip::{
    HeaderName, Message, Method, Request, Response, Timer, TransactionKey, TransactionLayer,
    TuEvent,
};
use trunkline_edge_api::MonoTime;

use super::{
    AgentConfig, AgentCounters, AgentEvent, ClientRequestId, ServerRequestId, SipLegId, Transmit,
};
use crate::digest::ClientCredentials;
use crate::digest::client::{self, AnswersGiven};
use crate::entropy::Entropy;
use crate::flow::{ConnectionId, Flow};
use crate::message::{self, LocalTag, header, response_to, to_wire};
use crate::timer_queue::{TimerHandle, TimerQueue};

mod transactions;

/// A shared transaction key: transactions, timers and legs name the same one.
pub(crate) type Key = Arc<TransactionKey>;

/// Whose client transaction it is, and what its next attempt must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientOwner {
    pub(crate) user: ClientUser,
    /// The number of the request.
    pub(crate) cseq: u32,
    /// Challenges that earlier attempts have answered.
    pub(crate) answers: AnswersGiven,
    /// How often a 422 has had its interval raised.
    pub(crate) raises: u8,
}

impl ClientOwner {
    pub(crate) fn new(user: ClientUser, cseq: u32) -> Self {
        Self {
            user,
            cseq,
            answers: AnswersGiven::default(),
            raises: 0,
        }
    }
}

/// Who hears of the responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientUser {
    Leg(SipLegId, Purpose),
    Request(ClientRequestId),
}

/// What a response, a timer or a failure means to the owner of a client transaction.
#[derive(Debug)]
pub(crate) struct ClientStep {
    pub(crate) key: Key,
    pub(crate) owner: ClientOwner,
    pub(crate) event: TuEvent,
    /// The request and its flow, where the response asks for another try (see
    /// [`asks_again`]). On a stream the transaction may be gone already.
    pub(crate) again: Option<(Request, Flow)>,
}

/// Whether the sender of a request may want to send it again, changed: 401 and 407 ask for
/// credentials, 422 for a longer session interval.
pub(crate) fn asks_again(response: &Response) -> bool {
    matches!(response.status.code(), 401 | 407 | 422)
}

/// What a leg does with the responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Invite,
    Reinvite,
    /// The next digit waits for its outcome.
    Info,
    /// For a reliable provisional response: nobody waits for its outcome.
    Prack,
    /// An offer before the answer to the INVITE.
    Update,
    /// Keeps the session alive.
    Refresh,
    /// News of what came of the peer's REFER.
    Notify,
    Refer,
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
    /// Send the reliable provisional response again, or give up waiting for its PRACK.
    RepeatProvisional,
    /// Refresh the session, or give it up.
    Session,
    /// Try the re-INVITE again that met one of the peer's.
    RetryReinvite,
    /// The subscription of the peer's REFER has run its time.
    PeerReferExpires,
    /// So has that of ours.
    OwnReferExpires,
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
    /// `client` has the purpose and number of a client transaction's request.
    TransactionOver {
        leg: SipLegId,
        client: Option<(Purpose, u32)>,
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
    /// `config.user_agent`, ready to be a header value.
    pub(crate) product: Bytes,
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
    /// Nonces we answered lately, as hashes, with the count of their uses; oldest first.
    nonces: VecDeque<(u64, u32)>,
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
            product: Bytes::from(config.user_agent.clone().into_bytes()),
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
            nonces: VecDeque::new(),
            timers: TimerQueue::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            next_serial: 0,
        }
    }

    pub(crate) fn random(&mut self) -> u64 {
        self.entropy.next_u64()
    }

    pub(crate) fn new_call_id(&mut self) -> Bytes {
        Bytes::from(format!("{:016x}{:016x}", self.random(), self.random()))
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

    pub(crate) fn poll_event(&mut self) -> Option<AgentEvent> {
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
        // What lacks a header that a response copies was counted as malformed by its form.
        let Some(mut response) = response_to(request, status, reason, Some(tag)) else {
            return;
        };
        if let Some((name, value)) = extra {
            response.headers.push(header(name, value));
        }
        response
            .headers
            .push(header(HeaderName::Server, self.product.clone()));
        response
            .headers
            .push(header(HeaderName::ContentLength, "0"));
        self.counters.responses_sent.add(&response);
        self.transmit(flow, to_wire(&Message::Response(response)));
    }

    // ---- requests that are sent again ---------------------------------------------------------

    /// Puts credentials into `request` for what `response` asks; `false` when there is nothing
    /// new to say.
    pub(crate) fn authorize(
        &mut self,
        request: &mut Request,
        response: &Response,
        credentials: &ClientCredentials,
        answers: &mut AnswersGiven,
    ) -> bool {
        let cnonce = self.random();
        let nonces = &mut self.nonces;
        client::authorize(
            request,
            &response.headers,
            credentials,
            answers,
            cnonce,
            |nonce| count_of(nonces, nonce),
        )
    }

    /// Gives `request` a branch of its own and the number `cseq`: a new attempt is a new
    /// transaction (RFC 3261 §8.1.3.5).
    pub(crate) fn renew(&mut self, request: &mut Request, flow: &Flow, cseq: u32) {
        let via = message::via_value(flow, self.random());
        let number = format!("{cseq} {}", request.method);
        let headers = &mut request.headers;
        headers.remove_all(&HeaderName::Via);
        headers.push_front(header(HeaderName::Via, via));
        headers.remove_all(&HeaderName::CSeq);
        headers.insert(1, header(HeaderName::CSeq, number));
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
}

/// Nonces whose uses are counted. A server that takes a count twice for a replay says `stale`,
/// and is answered once more.
const NONCES_MAX: usize = 64;

/// The count of the next use of `nonce` (RFC 7616 §3.4).
fn count_of(nonces: &mut VecDeque<(u64, u32)>, nonce: &str) -> u32 {
    use std::hash::Hasher;
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(nonce.as_bytes());
    let name = hasher.finish();
    if let Some((_, count)) = nonces.iter_mut().find(|(other, _)| *other == name) {
        *count = count.saturating_add(1);
        return *count;
    }
    if nonces.len() >= NONCES_MAX {
        nonces.pop_front();
    }
    nonces.push_back((name, 1));
    1
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
