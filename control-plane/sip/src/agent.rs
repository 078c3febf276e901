//! The user agent of a B2BUA: RFC 3261 with the transaction rules of RFC 6026, UPDATE (RFC 3311)
//! from the peer, symmetric responses (RFC 3581).
//!
//! One call through it, caller on the left leg, callee on the right one:
//!
//! ```text
//!   INVITE ─▶ Event::Invite ─▶ (call machine) ─▶ invite() ─▶ INVITE
//!      180 ◀─ provisional() ◀─────────────────── Event::Progress ◀─ 180
//!      200 ◀─ answer()      ◀─────────────────── Event::Answered ◀─ 200, ACK ─▶
//!      ACK ─▶ Event::Confirmed
//!      BYE ─▶ Event::Ended, 200 ◀─ ────────────▶ hangup() ─▶ BYE
//! ```
//!
//! The legs share nothing but the call machine: each has its own Call-ID, tags, `CSeq`, `Contact`
//! and route set, and every message is built anew, so neither peer sees the other's topology.
//!
//! Order on unknown traffic: `Via` (or nobody can be answered), known transaction, form, method,
//! dialog, limits, and only then is anything allocated. What is refused before that is answered
//! without a transaction.

mod cause;
mod client_request;
pub(crate) mod core;
mod counters;
mod event;
mod inbound;
mod salvage;
mod transfer;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use sipx_sip::error::ParseError;
use sipx_sip::{Header, Message, Timers, TransactionKey, Uri};
use thiserror::Error;
use trunkline_edge_api::MonoTime;

pub use cause::EndCause;
pub use client_request::{ClientRequest, RequestError, RequestSequence};
pub use counters::{AgentCounters, MethodCounts, ResponseCounts};
pub use event::{AgentEvent, ClientRequestId, EndedBy, ServerRequestId, SipLegId};
pub use transfer::ReferRequest;

use self::client_request::PendingRequest;
use self::core::{ClientStep, ClientUser, Core, Due, Notice, ServerOwner};
use crate::dialog::Dialog;
use crate::digest::ClientCredentials;
use crate::entropy::Entropy;
use crate::flow::{ConnectionId, Flow};
use crate::info::InfoDigit;
use crate::leg::{InviteParts, Leg};
use crate::message::{self, LocalTag, set_body};

/// Bounds and names of an [`Agent`].
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// `User-Agent` of requests and `Server` of responses.
    pub user_agent: String,
    /// Transactions that may be open at once before new requests outside dialogs get 503. Requests
    /// inside dialogs have a quarter more.
    pub transactions_max: usize,
    /// Legs that may live at once.
    pub legs_max: usize,
    /// Seconds after which a session ends that nobody refreshes (RFC 4028), 90 … 86,400, as our
    /// INVITEs ask and as peers are answered that leave it to us; 0 asks for none.
    pub session_expires_secs: u32,
    /// Least interval that a peer may ask for, seconds; 90 at least, whatever is said here.
    pub min_se_secs: u32,
    /// T1, T2 and T4 of RFC 3261 §17.
    pub timers: Timers,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            user_agent: concat!("Trunkline/", env!("CARGO_PKG_VERSION")).to_owned(),
            transactions_max: 20_000,
            legs_max: 10_000,
            session_expires_secs: 1_800,
            min_se_secs: 90,
            timers: Timers::default(),
        }
    }
}

/// A `From` or `To` without its tag.
#[derive(Debug, Clone)]
pub struct NameAddr {
    /// The display name, unquoted.
    pub display_name: Option<String>,
    /// The address.
    pub uri: Uri,
}

/// An INVITE to send.
#[derive(Debug, Clone)]
pub struct InviteRequest {
    /// Request-URI: a registered contact, a trunk's address.
    pub target: Uri,
    /// The way to the first hop. Its `local` becomes `Via` and `Contact`.
    pub flow: Flow,
    /// `From`; its user part is that of our `Contact`, too.
    pub from: NameAddr,
    /// `To`.
    pub to: NameAddr,
    /// 0 … 70. A B2BUA passes on what it received less one, so that a loop through it ends
    /// (RFC 7332 §4); 70 where a call begins.
    pub max_forwards: u8,
    /// Further headers, say `P-Asserted-Identity`, `Privacy`, `Diversion` or `Identity`. `Route`
    /// rows are the way through an outbound proxy. Those which the agent writes itself are left
    /// out.
    pub headers: Vec<Header>,
    /// The offer.
    pub offer: Bytes,
    /// For a 401 or 407 to the INVITE and to every later request on the leg; without them it is
    /// reported like any other status.
    pub credentials: Option<Arc<ClientCredentials>>,
}

/// Names a message for
/// [`Agent::handle_transport_error`]: the transaction it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TransmitId {
    side: Side,
    key: Arc<TransactionKey>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Side {
    Client,
    Server,
}

/// A message to put on the wire.
#[derive(Debug, Clone)]
pub struct Transmit {
    /// Where it goes.
    pub flow: Flow,
    /// The message, complete.
    pub bytes: Bytes,
    /// What to report a failure of delivery under; `None` where nobody waits to hear of it.
    pub id: Option<TransmitId>,
}

/// Why a call on a leg did nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LegError {
    /// The leg has ended, or never was. Harmless after `Ended` or `Rejected`.
    #[error("no such leg")]
    UnknownLeg,
    /// The leg's state does not allow it, say an answer to a call already answered.
    #[error("not possible in the state of the leg")]
    WrongState,
    /// Another offer is open on the leg, or an ACK is outstanding; the far side's offer is best
    /// refused with 491, its owner tries again.
    #[error("another offer is open on the leg")]
    OfferPending,
    /// The status is not one for this kind of response.
    #[error("status {0} does not fit this response")]
    Status(u16),
    /// A REFER of ours is open on the leg already.
    #[error("another REFER is open on the leg")]
    ReferPending,
    /// The peer does not take digits as fast as they come.
    #[error("too many digits wait for the peer to answer the one before")]
    TooManyDigits,
}

/// Why no INVITE was sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InviteError {
    /// `legs_max` or `transactions_max` is reached.
    #[error("too many calls or transactions; raise calls_max or transactions_max")]
    Overloaded,
    /// The request URI is neither sip nor sips.
    #[error("the target is not a SIP URI")]
    Target,
}

/// Why a request was not answered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RespondError {
    /// Answered before, or given up after 64·T1.
    #[error("the request no longer waits for a response")]
    UnknownRequest,
    /// Not 200 … 699.
    #[error("status {0} is not final")]
    Status(u16),
}

/// The user agent: every transaction, dialog and leg of one call thread.
pub struct Agent {
    core: Core,
    legs: HashMap<SipLegId, Leg>,
    by_tag: HashMap<LocalTag, SipLegId>,
    /// Initial INVITEs in progress by Call-ID, `From` tag and `CSeq` (RFC 3261 §8.2.2.2).
    by_merge_key: HashMap<Bytes, SipLegId>,
    /// Requests of ours outside dialogs.
    requests: HashMap<ClientRequestId, PendingRequest>,
    /// Legs that have not ended for the user.
    live_legs: usize,
    next_id: u64,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent")
            .field("legs", &self.live_legs)
            .field("transactions", &self.transactions_len())
            .finish_non_exhaustive()
    }
}

impl Agent {
    /// An agent without calls. `entropy` must be the operating system's outside of simulations.
    #[must_use]
    pub fn new(config: AgentConfig, entropy: Box<dyn Entropy + Send>) -> Self {
        Self {
            core: Core::new(config, entropy),
            legs: HashMap::new(),
            by_tag: HashMap::new(),
            by_merge_key: HashMap::new(),
            requests: HashMap::new(),
            live_legs: 0,
            next_id: 0,
        }
    }

    // ---- input --------------------------------------------------------------------------------

    /// A message that parsed, with the flow it came in on.
    pub fn handle_message(&mut self, now: MonoTime, flow: Flow, message: Message) {
        match message {
            Message::Request(request) => self.handle_request(now, flow, request),
            Message::Response(response) => self.handle_response(now, &flow, response),
        }
        self.settle();
    }

    /// Bytes that did not parse. Answered when they show a request and where its response would
    /// go; counted in any case. On a stream the transport sends what this gives and closes.
    pub fn handle_malformed(&mut self, flow: &Flow, bytes: &[u8], error: &ParseError) {
        self.core.counters.malformed += 1;
        if let Some((flow, response)) = salvage::answer(flow, bytes, error) {
            self.core.counters.responses_sent.add(&response);
            let bytes = message::to_wire(&Message::Response(response));
            self.core.transmit(flow, bytes);
        }
    }

    /// Fires what is due. To be called at or after the time `poll_timeout` named.
    pub fn handle_timeout(&mut self, now: MonoTime) {
        while let Some(due) = self.core.pop_due(now) {
            match due {
                Due::Client(key, timer) => {
                    if let Some(step) = self.core.on_client_timer(now, &key, timer) {
                        self.on_client_step(now, step);
                    }
                }
                Due::Server(key, timer) => self.core.on_server_timer(now, &key, timer),
                Due::Unanswered(key) => self.core.abandon_server(&key),
                Due::Leg(id, timer) => {
                    if let Some(leg) = self.legs.get_mut(&id) {
                        leg.handle_timer(&mut self.core, now, timer);
                    }
                }
            }
            self.settle();
        }
    }

    /// A [`Transmit`] with this id could not be delivered.
    pub fn handle_transport_error(&mut self, now: MonoTime, id: &TransmitId) {
        self.core.counters.transport_errors += 1;
        match id.side {
            Side::Client => {
                if let Some(step) = self.core.on_client_failure(now, &id.key) {
                    self.on_client_step(now, step);
                }
            }
            Side::Server => {
                if let Some(ServerOwner::Leg(leg)) = self.core.on_server_failure(now, &id.key)
                    && let Some(leg) = self.legs.get_mut(&leg)
                {
                    leg.handle_server_failure(&mut self.core, now, &id.key);
                }
            }
        }
        self.settle();
    }

    /// A connection closed. Requests that wait for a response on it fail as undeliverable; dialogs
    /// go on, their next request opens a connection to the address of the next hop.
    pub fn handle_connection_closed(&mut self, now: MonoTime, connection: ConnectionId) {
        for key in self.core.waiting_on(connection) {
            if let Some(step) = self.core.on_client_failure(now, &key) {
                self.on_client_step(now, step);
            }
        }
        self.settle();
    }

    // ---- output -------------------------------------------------------------------------------

    /// The next message to put on the wire.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.core.poll_transmit()
    }

    /// The next thing the call machine must hear.
    pub fn poll_event(&mut self) -> Option<AgentEvent> {
        self.core.poll_event()
    }

    /// When `handle_timeout` is due next; `None` when nothing runs.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<MonoTime> {
        self.core.poll_timeout()
    }

    /// What has been counted so far.
    #[must_use]
    pub fn counters(&self) -> &AgentCounters {
        &self.core.counters
    }

    /// The `Call-ID` of the leg's dialog; `None` when the leg has ended.
    #[must_use]
    pub fn call_id(&self, leg: SipLegId) -> Option<Bytes> {
        self.legs.get(&leg).map(|leg| leg.dialog().call_id.clone())
    }

    /// Legs that have not ended.
    #[must_use]
    pub fn legs_len(&self) -> usize {
        self.live_legs
    }

    /// Transactions in flight, those included that only absorb copies any more.
    #[must_use]
    pub fn transactions_len(&self) -> usize {
        self.core.transactions_len()
    }

    /// Whether nothing at all is left: no leg, transaction, timer, index entry, event or message.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.core.is_idle()
            && self.live_legs == 0
            && self.legs.is_empty()
            && self.by_tag.is_empty()
            && self.by_merge_key.is_empty()
            && self.requests.is_empty()
    }

    // ---- requests outside dialogs -------------------------------------------------------------

    /// Answers a request of [`AgentEvent::Request`] with 200 … 699. A body is `application/sdp`.
    pub fn respond(
        &mut self,
        now: MonoTime,
        request: ServerRequestId,
        status: u16,
        headers: Vec<Header>,
        body: Bytes,
    ) -> Result<(), RespondError> {
        if !(200..=699).contains(&status) {
            return Err(RespondError::Status(status));
        }
        let waiting = self.core.waiting_request(request);
        let key = waiting.ok_or(RespondError::UnknownRequest)?;
        let tag = LocalTag(self.core.random());
        let response = self.core.response(&key, status, None, tag);
        let mut response = response.ok_or(RespondError::UnknownRequest)?;
        headers
            .into_iter()
            .for_each(|row| response.headers.push(row));
        set_body(&mut response.headers, &body);
        response.set_body(body);
        self.core.respond(now, &key, response);
        self.settle();
        Ok(())
    }

    // ---- legs ---------------------------------------------------------------------------------

    /// Calls a peer. The leg reports `Progress` and then `Answered` or `Rejected`; how long it may
    /// ring is the caller's business (`cancel`).
    pub fn invite(
        &mut self,
        now: MonoTime,
        request: InviteRequest,
    ) -> Result<SipLegId, InviteError> {
        if !request.target.scheme().is_sip() {
            return Err(InviteError::Target);
        }
        if self.live_legs >= self.core.config.legs_max || self.core.is_full() {
            return Err(InviteError::Overloaded);
        }
        let call_id = self.core.new_call_id();
        let contact = message::contact_value(
            request.from.uri.user(),
            &request.flow,
            request.target.scheme().is_secure(),
        );
        let dialog = Dialog::calling(
            call_id,
            self.free_tag(),
            &message::name_addr_value(&request.from),
            Bytes::from(message::name_addr_value(&request.to)),
            request.target,
            contact,
            request.flow,
        );
        let parts = InviteParts {
            max_forwards: request.max_forwards,
            headers: request.headers,
            offer: request.offer,
            credentials: request.credentials,
        };
        let id = self.take_leg_id();
        let tag = dialog.local_tag;
        let leg = Leg::calling(&mut self.core, now, id, dialog, parts);
        self.keep_leg(id, tag, leg);
        self.settle();
        Ok(id)
    }

    /// Server leg: sends a provisional response, 101 … 199, with early media when `sdp` is given.
    /// It is sent reliably (RFC 3262) where the caller understands that, and then repeated until its
    /// PRACK; further ones wait for that. Where the INVITE had no offer, `sdp` is one: it is left out
    /// unless the response is reliable, and answered with `AnswerInPrack`.
    pub fn provisional(
        &mut self,
        now: MonoTime,
        leg: SipLegId,
        status: u16,
        sdp: Option<Bytes>,
    ) -> Result<(), LegError> {
        self.on_leg(leg, |leg, core| leg.provisional(core, now, status, sdp))
    }

    /// Server leg: accepts the call. The 200 is repeated until its ACK (`Confirmed`); without one
    /// for 64·T1 the leg is hung up (`Ended`). It waits for the PRACK of a reliable provisional
    /// response, and leaves `sdp` out when that one has settled what is sent.
    pub fn answer(&mut self, now: MonoTime, leg: SipLegId, sdp: Bytes) -> Result<(), LegError> {
        self.on_leg(leg, |leg, core| leg.answer(core, now, sdp))
    }

    /// Server leg: refuses the call with 300 … 699; `headers` may bring `Retry-After`,
    /// `WWW-Authenticate` and the like. `Ended` follows at once.
    pub fn reject(
        &mut self,
        now: MonoTime,
        leg: SipLegId,
        status: u16,
        reason: Option<&str>,
        headers: Vec<Header>,
    ) -> Result<(), LegError> {
        self.on_leg(leg, |leg, core| {
            leg.reject(core, now, status, reason, headers)
        })
    }

    /// Client leg: gives the call up before its answer. `Ended` follows at once; the CANCEL waits
    /// for a provisional response if there was none, and an answer that crosses it is
    /// acknowledged and hung up.
    pub fn cancel(&mut self, now: MonoTime, leg: SipLegId) -> Result<(), LegError> {
        self.on_leg(leg, |leg, core| leg.cancel(core, now))
    }

    /// Ends the leg as its state demands: 480, CANCEL or BYE. `reason` is the value of a `Reason`
    /// header (RFC 3326), say `Q.850;cause=16`. `Ended` follows at once.
    pub fn hangup(
        &mut self,
        now: MonoTime,
        leg: SipLegId,
        reason: Option<&str>,
    ) -> Result<(), LegError> {
        self.on_leg(leg, |leg, core| leg.hangup(core, now, reason))
    }

    /// Offers `sdp` in a re-INVITE; `OfferAnswered` follows, unless the leg ends before. Before the
    /// answer it travels in an UPDATE, to a peer that takes it and has the first exchange of offer
    /// and answer behind it: `WrongState` else.
    pub fn reinvite(&mut self, now: MonoTime, leg: SipLegId, sdp: Bytes) -> Result<(), LegError> {
        self.on_leg(leg, |leg, core| leg.reinvite(core, now, sdp))
    }

    /// Answers the offer of [`AgentEvent::Offer`], in whichever message owes the answer.
    pub fn accept_offer(
        &mut self,
        now: MonoTime,
        leg: SipLegId,
        sdp: Bytes,
    ) -> Result<(), LegError> {
        self.on_leg(leg, |leg, core| leg.accept_offer(core, now, sdp))
    }

    /// Refuses the offer of [`AgentEvent::Offer`] with 300 … 699; the session stays as it was. One
    /// in the 2xx to our INVITE cannot be refused but by hanging up, which this does; one in a
    /// provisional response not at all (`WrongState`).
    pub fn reject_offer(
        &mut self,
        now: MonoTime,
        leg: SipLegId,
        status: u16,
    ) -> Result<(), LegError> {
        self.on_leg(leg, |leg, core| leg.reject_offer(core, now, status))
    }

    /// Tells the peer of a key that was pressed, in an INFO request. Digits keep their order; how
    /// the peer answers is not reported.
    pub fn send_digit(
        &mut self,
        now: MonoTime,
        leg: SipLegId,
        digit: InfoDigit,
    ) -> Result<(), LegError> {
        self.on_leg(leg, |leg, core| leg.send_digit(core, now, digit))
    }

    fn on_leg(
        &mut self,
        id: SipLegId,
        act: impl FnOnce(&mut Leg, &mut Core) -> Result<(), LegError>,
    ) -> Result<(), LegError> {
        let leg = self.legs.get_mut(&id).filter(|leg| !leg.is_terminated());
        let result = act(leg.ok_or(LegError::UnknownLeg)?, &mut self.core);
        self.settle();
        result
    }

    // ---- inside -------------------------------------------------------------------------------

    fn on_client_step(&mut self, now: MonoTime, step: ClientStep) {
        match step.owner.user {
            ClientUser::Request(id) => self.on_request_event(now, id, step),
            ClientUser::Leg(leg, purpose) => {
                if let Some(leg) = self.legs.get_mut(&leg) {
                    leg.handle_client_step(&mut self.core, now, purpose, step);
                }
            }
        }
    }

    fn take_leg_id(&mut self) -> SipLegId {
        self.next_id += 1;
        SipLegId(self.next_id)
    }

    /// A tag no other leg has. With 64 random bits the loop is for the reader's peace of mind.
    fn free_tag(&mut self) -> LocalTag {
        loop {
            let tag = LocalTag(self.core.random());
            if !self.by_tag.contains_key(&tag) {
                return tag;
            }
        }
    }

    fn keep_leg(&mut self, id: SipLegId, tag: LocalTag, leg: Leg) {
        if let Some(merge_key) = leg.merge_key() {
            self.by_merge_key.insert(merge_key.clone(), id);
        }
        self.by_tag.insert(tag, id);
        self.legs.insert(id, leg);
        self.live_legs += 1;
    }

    /// Drops the legs for which the last step left nothing to do.
    fn settle(&mut self) {
        while let Some(notice) = self.core.notices.pop() {
            let id = match notice {
                Notice::TransactionOver { leg: id, client } => {
                    if let Some(leg) = self.legs.get_mut(&id) {
                        leg.transaction_ended(client);
                    }
                    id
                }
                Notice::LegTerminated(id) => {
                    self.live_legs -= 1;
                    id
                }
            };
            if self.legs.get(&id).is_some_and(Leg::is_spent)
                && let Some(leg) = self.legs.remove(&id)
            {
                leg.disarm(&mut self.core);
                self.by_tag.remove(&leg.dialog().local_tag);
                if let Some(merge_key) = leg.merge_key() {
                    self.by_merge_key.remove(merge_key);
                }
            }
        }
    }
}
