//! One leg of a call: an INVITE session with one peer.
//!
//! ```text
//!            INVITE                                  INVITE
//!   caller ─────────▶ Incoming            Calling ─────────▶ callee
//!              18x ◀─    │ answer           │  ◀─ 1xx
//!              200 ◀─    ▼                  ▼
//!                     Answered           Proceeding
//!              ACK ─▶    │                  │  ◀─ 200, ACK ─▶
//!                        ▼                  ▼
//!                     Confirmed ────────────┘  re-INVITE, UPDATE: Negotiation
//!              BYE  ◀─▶  │
//!                        ▼
//!                    Terminated   only the leftovers: Aftermath
//! ```
//!
//! RFC 3261 §13 to §15; the offers and answers inside a session are in [`offer`]. A leg is told
//! apart from its call: it knows one peer, and nothing of the other leg reaches a message of its.

mod branch;
mod client;
mod early;
mod info;
mod offer;
mod refer;
mod retry;
mod server;
mod session;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sipx_sip::headers::CSeq;
use sipx_sip::{HeaderName, Method, Request, Response, TuEvent};
use trunkline_edge_api::MonoTime;

use crate::agent::core::{
    ClientOwner, ClientStep, ClientUser, Core, Key, LegTimer, Notice, Purpose, after,
};
use crate::agent::{AgentEvent, EndCause, EndedBy, LegError, SipLegId};
use crate::dialog::Dialog;
use crate::digest::ClientCredentials;
use crate::flow::Flow;
use crate::info::InfoDigit;
use crate::message::{ACCEPT, ALLOW, header, set_body, unsupported_options};
use crate::replaces::{Replaces, ReplacesError};
use crate::timer_queue::TimerHandle;

use branch::Branch;
pub(crate) use client::InviteParts;
use early::Incoming;
use offer::{Negotiation, OfferMethod};
use refer::{OwnRefer, PeerRefer};
use session::SessionTimer;
pub(crate) use session::terms_of;

/// Transactions one leg may have open at once; more are refused with 503. An ordinary call has
/// one or two, a caller who presses digits that travel as INFO some twenty within the 32 s that a
/// transaction lives on UDP.
pub(crate) const LEG_TRANSACTIONS_MAX: u32 = 64;

/// Who sent the INVITE that formed the dialog. It decides who owns the Call-ID, and with that how
/// long to wait after glare (RFC 3261 §14.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Server,
    Client,
}

#[derive(Debug)]
enum State {
    /// Server: no final response yet.
    Incoming(Box<Incoming>),
    /// Server: our 2xx is out and repeated until its ACK arrives.
    Answered(PendingAck),
    /// Client: nothing came back yet.
    Calling { invite: Key },
    /// Client: a provisional response arrived.
    Proceeding { invite: Key },
    /// Both: the session stands.
    Confirmed(Negotiation),
    /// Over for the user of the agent.
    Terminated(Aftermath),
}

/// What the network is still owed after the end.
#[derive(Debug)]
enum Aftermath {
    Nothing,
    /// A CANCEL, as soon as a provisional response shows that the INVITE has arrived
    /// (RFC 3261 §9.1).
    CancelOwed {
        invite: Key,
        reason: Option<Bytes>,
    },
    /// An INVITE of ours is open; a 2xx to it is acknowledged and hung up. Given up 64·T1 later.
    InviteOpen {
        invite: Key,
        timer: TimerHandle,
    },
    /// A BYE, once the ACK is there: until then the callee must not send one (RFC 3261 §15).
    ByeOwed {
        pending: PendingAck,
        reason: Option<Bytes>,
    },
}

/// A 2xx to an INVITE until its ACK: RFC 3261 §13.3.1.4. It is repeated on every transport, for
/// there may be a lossy hop behind a proxy.
#[derive(Debug)]
struct PendingAck {
    cseq: u32,
    response: Bytes,
    flow: Flow,
    interval: Duration,
    give_up_at: MonoTime,
    timer: TimerHandle,
    /// The 2xx made an offer, so the ACK brings the answer.
    made_offer: bool,
}

/// An ACK we sent, for the next copy of the 2xx it answers.
#[derive(Debug)]
struct SentAck {
    cseq: u32,
    remote_tag: Option<Bytes>,
    flow: Flow,
    bytes: Bytes,
}

#[derive(Debug)]
pub(crate) struct Leg {
    id: SipLegId,
    role: Role,
    dialog: Dialog,
    state: State,
    /// Transactions that name this leg as their owner.
    transactions: u32,
    /// The description we sent last that stands: what a re-INVITE without an offer is offered.
    local_sdp: Bytes,
    /// Client: the early dialogs, in the order in which they first spoke.
    branches: Vec<Branch>,
    /// The peer named UPDATE in `Allow` (RFC 3311 §4).
    allows_update: bool,
    /// Client: the ACKs that a copy of a 2xx calls for again, until the INVITE transaction ends.
    acks: Vec<SentAck>,
    /// Client: the number of the INVITE that forms the dialog, in its last attempt.
    invite_cseq: u32,
    /// Who we are to a peer that asks.
    credentials: Option<Arc<ClientCredentials>>,
    /// Server: how the INVITE is known that reaches us twice (RFC 3261 §8.2.2.2).
    merge_key: Option<Bytes>,
    /// The session timer, where the peer runs one.
    session: Option<Box<SessionTimer>>,
    /// A hash of what the peer described last.
    remote_hash: u64,
    /// Digits that wait for the one before to be answered.
    digits: VecDeque<InfoDigit>,
    /// An INFO of ours has no final response yet.
    is_digit_out: bool,
    /// The peer's REFER that is open.
    peer_refer: Option<Box<PeerRefer>>,
    /// Ours.
    own_refer: Option<Box<OwnRefer>>,
}

impl Leg {
    fn new(id: SipLegId, role: Role, dialog: Dialog, state: State) -> Self {
        Self {
            id,
            role,
            dialog,
            state,
            transactions: 0,
            local_sdp: Bytes::new(),
            branches: Vec::new(),
            allows_update: false,
            acks: Vec::new(),
            invite_cseq: 0,
            credentials: None,
            merge_key: None,
            session: None,
            remote_hash: 0,
            digits: VecDeque::new(),
            is_digit_out: false,
            peer_refer: None,
            own_refer: None,
        }
    }

    pub(crate) fn dialog(&self) -> &Dialog {
        &self.dialog
    }

    pub(crate) fn merge_key(&self) -> Option<&Bytes> {
        self.merge_key.as_ref()
    }

    pub(crate) fn transactions(&self) -> u32 {
        self.transactions
    }

    pub(crate) fn transaction_began(&mut self) {
        self.transactions += 1;
    }

    /// `client` tells of a client transaction. With that of an INVITE end the copies of its 2xx.
    pub(crate) fn transaction_ended(&mut self, client: Option<(Purpose, u32)>) {
        self.transactions = self.transactions.saturating_sub(1);
        if let Some((Purpose::Invite | Purpose::Reinvite, cseq)) = client {
            self.acks.retain(|ack| ack.cseq != cseq);
        }
    }

    pub(crate) fn is_terminated(&self) -> bool {
        matches!(self.state, State::Terminated(_))
    }

    /// Whether the leg's dialog is the one a `Replaces` may take the place of (RFC 3891 §3).
    pub(crate) fn is_named_by(&self, replaces: &Replaces) -> Result<(), ReplacesError> {
        let dialog = &self.dialog;
        // RFC 3891 §3: "0" stands for the tag that RFC 2543 peers do not have. The branches of an
        // INVITE that nobody answered have one each.
        let remote_tag = dialog.remote_tag.as_deref().unwrap_or(b"0");
        let is_peer = match &self.state {
            State::Calling { .. } | State::Proceeding { .. } => self.has_branch(&replaces.from_tag),
            _ => replaces.from_tag[..] == *remote_tag,
        };
        if replaces.call_id != dialog.call_id || !is_peer {
            return Err(ReplacesError::Unknown);
        }
        match &self.state {
            State::Terminated(_) => Err(ReplacesError::Ended),
            // An early dialog that the peer began is for its caller to give up.
            State::Incoming(_) => Err(ReplacesError::Unknown),
            State::Calling { .. } | State::Proceeding { .. } => Ok(()),
            State::Answered(_) | State::Confirmed(_) if replaces.early_only => {
                Err(ReplacesError::Answered)
            }
            State::Answered(_) | State::Confirmed(_) => Ok(()),
        }
    }

    /// Nothing refers to the leg any more and it owes nothing: it can be dropped.
    pub(crate) fn is_spent(&self) -> bool {
        self.transactions == 0
            && match &self.state {
                State::Terminated(Aftermath::ByeOwed { .. }) => false,
                State::Terminated(_) => true,
                _ => false,
            }
    }

    /// Takes the leg's last deadline off the queue before it is dropped.
    pub(crate) fn disarm(&self, core: &mut Core) {
        if let State::Terminated(Aftermath::InviteOpen { timer, .. }) = &self.state {
            core.cancel_timer(*timer);
        }
    }

    // ---- hanging up ---------------------------------------------------------------------------

    /// Ends the leg as its state demands: 480, CANCEL or BYE.
    pub(crate) fn hangup(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        reason: Option<&str>,
    ) -> Result<(), LegError> {
        let reason = reason.map(|text| Bytes::copy_from_slice(text.as_bytes()));
        match &self.state {
            State::Terminated(_) => return Err(LegError::UnknownLeg),
            State::Incoming(incoming) => {
                let invite = incoming.invite.clone();
                if let Some(mut response) = core.response(&invite, 480, None, self.dialog.local_tag)
                {
                    push_reason(&mut response.headers, reason);
                    set_body(&mut response.headers, &Bytes::new());
                    core.respond(now, &invite, response);
                }
                self.end(core, now, EndedBy::LocalHangup, None);
            }
            State::Calling { .. } | State::Proceeding { .. } => {
                self.end(core, now, EndedBy::LocalHangup, reason);
            }
            State::Answered(_) => {
                let nothing = State::Terminated(Aftermath::Nothing);
                if let State::Answered(pending) = std::mem::replace(&mut self.state, nothing) {
                    self.state = State::Terminated(Aftermath::ByeOwed { pending, reason });
                }
                self.drop_refers(core, now);
                self.stop_session(core);
                core.notices.push(Notice::LegTerminated(self.id));
                core.emit(AgentEvent::Ended {
                    leg: self.id,
                    by: EndedBy::LocalHangup,
                    cause: EndCause::NONE,
                });
            }
            State::Confirmed(negotiation) => {
                if let Negotiation::LateOffer { invite, cseq } = negotiation {
                    let (invite, cseq) = (invite.clone(), *cseq);
                    self.state = State::Confirmed(Negotiation::Idle);
                    let dialog = self.dialog.clone();
                    self.acknowledge(core, &dialog, &invite, cseq, &Bytes::new());
                }
                self.send_bye(core, now, reason);
                self.end(core, now, EndedBy::LocalHangup, None);
            }
        }
        Ok(())
    }

    /// `reason` goes into a CANCEL that is owed.
    fn end(&mut self, core: &mut Core, now: MonoTime, by: EndedBy, reason: Option<Bytes>) {
        self.leave(core, now, reason);
        core.emit(AgentEvent::Ended {
            leg: self.id,
            by,
            cause: EndCause::NONE,
        });
    }

    /// The peer ended the session and may have said why.
    fn end_by_peer(&mut self, core: &mut Core, now: MonoTime, by: EndedBy, cause: EndCause) {
        self.leave(core, now, None);
        core.emit(AgentEvent::Ended {
            leg: self.id,
            by,
            cause,
        });
    }

    /// Settles what the state holds and moves to `Terminated`.
    fn leave(&mut self, core: &mut Core, now: MonoTime, reason: Option<Bytes>) {
        let nothing = State::Terminated(Aftermath::Nothing);
        let aftermath = match std::mem::replace(&mut self.state, nothing) {
            State::Terminated(aftermath) => aftermath,
            State::Confirmed(Negotiation::Idle) => Aftermath::Nothing,
            State::Incoming(incoming) => {
                incoming.disarm(core);
                if let Some(request) = incoming.open_offer() {
                    self.refuse(core, now, request, 487);
                }
                Aftermath::Nothing
            }
            State::Confirmed(Negotiation::LateOffer { invite, cseq }) => {
                let dialog = self.dialog.clone();
                self.acknowledge(core, &dialog, &invite, cseq, &Bytes::new());
                Aftermath::Nothing
            }
            State::Answered(pending) | State::Confirmed(Negotiation::AwaitingAck(pending)) => {
                core.cancel_timer(pending.timer);
                Aftermath::Nothing
            }
            State::Calling { invite } => Aftermath::CancelOwed { invite, reason },
            State::Proceeding { invite } => {
                self.close_branches(core, now, 487);
                self.send_cancel(core, now, &invite, reason);
                self.wait_for_invite(core, now, invite)
            }
            State::Confirmed(Negotiation::PeerOffer { request, .. }) => {
                self.refuse(core, now, &request, 487);
                Aftermath::Nothing
            }
            State::Confirmed(Negotiation::OwnOffer { invite, method, .. }) => match method {
                OfferMethod::Invite => self.wait_for_invite(core, now, invite),
                OfferMethod::Update => Aftermath::Nothing,
            },
            State::Confirmed(Negotiation::Refreshing { invite }) => {
                self.wait_for_invite(core, now, invite)
            }
            State::Confirmed(Negotiation::Glare { timer, .. }) => {
                core.cancel_timer(timer);
                Aftermath::Nothing
            }
        };
        self.state = State::Terminated(aftermath);
        self.drop_refers(core, now);
        self.stop_session(core);
        core.notices.push(Notice::LegTerminated(self.id));
    }

    fn wait_for_invite(&self, core: &mut Core, now: MonoTime, invite: Key) -> Aftermath {
        let at = after(now, core.config.timers.timeout());
        let timer = core.set_leg_timer(at, self.id, LegTimer::AbandonInvite);
        Aftermath::InviteOpen { invite, timer }
    }

    fn send_bye(&mut self, core: &mut Core, now: MonoTime, reason: Option<Bytes>) {
        let cseq = self.dialog.next_cseq();
        let dialog = self.dialog.clone();
        self.send_bye_in(core, now, &dialog, cseq, reason);
    }

    /// A BYE in `dialog`, which is ours or that of another branch of a forked INVITE.
    fn send_bye_in(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        dialog: &Dialog,
        cseq: u32,
        reason: Option<Bytes>,
    ) {
        let (mut bye, flow) = dialog.request(Method::Bye, cseq, core.random());
        push_reason(&mut bye.headers, reason);
        self.send(core, now, bye, flow, Purpose::Farewell);
    }

    /// Sends a request through a transaction of this leg.
    fn send(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        mut request: Request,
        flow: Flow,
        purpose: Purpose,
    ) -> Key {
        complete(core, &mut request);
        self.send_whole(core, now, request, flow, purpose)
    }

    /// The same for a request that is complete.
    fn send_whole(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        request: Request,
        flow: Flow,
        purpose: Purpose,
    ) -> Key {
        self.transactions += 1;
        let cseq = self.dialog.local_cseq;
        let owner = ClientOwner::new(ClientUser::Leg(self.id, purpose), cseq);
        core.send_request(now, request, flow, owner)
    }

    /// Sends a final response without a body.
    fn refuse(&self, core: &mut Core, now: MonoTime, request: &Key, status: u16) {
        self.reply(core, now, request, status, None);
    }

    fn reply(
        &self,
        core: &mut Core,
        now: MonoTime,
        request: &Key,
        status: u16,
        extra: Option<(HeaderName, &str)>,
    ) {
        if let Some(mut response) = core.response(request, status, None, self.dialog.local_tag) {
            if let Some((name, value)) = extra {
                response.headers.push(header(name, value.to_owned()));
            }
            set_body(&mut response.headers, &Bytes::new());
            core.respond(now, request, response);
        }
    }

    // ---- requests of the peer inside the dialog -----------------------------------------------

    /// A new request with a transaction, that names this leg's dialog.
    pub(crate) fn handle_request(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        key: &Key,
        request: &Request,
        flow: Flow,
    ) {
        let sequence = match request.headers.typed::<CSeq>() {
            Some(Ok(cseq)) => cseq.sequence,
            _ => return self.refuse(core, now, key, 400),
        };
        if !self.is_in_order(sequence) {
            return self.refuse(core, now, key, 500);
        }

        if let State::Terminated(_) = self.state {
            // Both hung up at once, and each BYE is right.
            let status = if request.method == Method::Bye {
                200
            } else {
                481
            };
            self.refuse(core, now, key, status);
            if request.method == Method::Bye {
                self.drop_owed_bye(core);
            }
            return;
        }
        if let Some(options) = unsupported_options(request) {
            let unsupported = (HeaderName::Unsupported, options.as_str());
            return self.reply(core, now, key, 420, Some(unsupported));
        }
        match &request.method {
            Method::Bye => self.handle_bye(core, now, key, EndCause::of(&request.headers)),
            Method::Invite | Method::Update => {
                self.handle_offer_request(core, now, key, request, flow);
            }
            Method::Options => self.answer_options(core, now, key),
            Method::Info => self.handle_info(core, now, key, request),
            Method::Refer => self.handle_refer(core, now, key, request, sequence),
            Method::Notify => self.handle_notify(core, now, key, request),
            Method::Subscribe => self.handle_subscribe(core, now, key, request),
            Method::Prack => self.handle_prack(core, now, key, request),
            Method::Other(_) => {
                self.reply(core, now, key, 501, Some((HeaderName::Allow, ALLOW)));
            }
            _ => self.reply(core, now, key, 405, Some((HeaderName::Allow, ALLOW))),
        }
    }

    /// RFC 3261 §12.2.2: a number below the last is out of order. So is the same one: a copy of the
    /// request would have found its transaction. Until our INVITE is answered its branches count
    /// each for itself, and nobody keeps the books.
    fn is_in_order(&mut self, sequence: u32) -> bool {
        if matches!(self.state, State::Calling { .. } | State::Proceeding { .. }) {
            return true;
        }
        let in_order = self.dialog.remote_cseq.is_none_or(|last| sequence > last);
        if in_order {
            self.dialog.remote_cseq = Some(sequence);
        }
        in_order
    }

    /// A BYE for which there is no room for a transaction: a call must end all the same. Whether
    /// it ends the leg, and with that is owed a 200.
    pub(crate) fn handle_bye_in_passing(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        bye: &Request,
    ) -> bool {
        let ends = match (&self.state, bye.headers.typed::<CSeq>()) {
            (State::Answered(_) | State::Confirmed(_), Some(Ok(cseq))) => {
                self.is_in_order(cseq.sequence)
            }
            _ => false,
        };
        if ends {
            self.end_by_peer(core, now, EndedBy::Bye, EndCause::of(&bye.headers));
        }
        ends
    }

    fn answer_options(&self, core: &mut Core, now: MonoTime, key: &Key) {
        if let Some(mut response) = core.response(key, 200, None, self.dialog.local_tag) {
            response.headers.push(header(HeaderName::Allow, ALLOW));
            response.headers.push(header(HeaderName::Accept, ACCEPT));
            set_body(&mut response.headers, &Bytes::new());
            core.respond(now, key, response);
        }
    }

    fn handle_bye(&mut self, core: &mut Core, now: MonoTime, key: &Key, cause: EndCause) {
        match &self.state {
            // RFC 3261 §15: before its ACK a callee sends no BYE.
            State::Calling { .. } | State::Proceeding { .. } => self.refuse(core, now, key, 481),
            State::Incoming(incoming) => {
                // A caller may say BYE to an early dialog; its INVITE is over with it.
                let invite = incoming.invite.clone();
                self.refuse(core, now, key, 200);
                self.refuse(core, now, &invite, 487);
                self.end_by_peer(core, now, EndedBy::Bye, cause);
            }
            State::Answered(_) | State::Confirmed(_) => {
                self.refuse(core, now, key, 200);
                self.end_by_peer(core, now, EndedBy::Bye, cause);
            }
            State::Terminated(_) => {}
        }
    }

    fn drop_owed_bye(&mut self, core: &mut Core) {
        if let State::Terminated(Aftermath::ByeOwed { pending, .. }) = &self.state {
            core.cancel_timer(pending.timer);
            self.state = State::Terminated(Aftermath::Nothing);
        }
    }

    // ---- deadlines and failures ---------------------------------------------------------------

    pub(crate) fn handle_timer(&mut self, core: &mut Core, now: MonoTime, timer: LegTimer) {
        match timer {
            LegTimer::Session => self.session_due(core, now),
            LegTimer::RepeatAnswer => self.repeat_answer(core, now),
            LegTimer::RepeatProvisional => self.repeat_provisional(core, now),
            LegTimer::RetryReinvite => self.retry_reinvite(core, now),
            LegTimer::PeerReferExpires => self.peer_refer_expires(core, now),
            LegTimer::OwnReferExpires => self.own_refer_expires(core),
            LegTimer::AbandonInvite => {
                if let State::Terminated(Aftermath::InviteOpen { invite, .. }) = &self.state {
                    let invite = invite.clone();
                    self.state = State::Terminated(Aftermath::Nothing);
                    core.abandon_client(now, &invite);
                }
            }
        }
    }

    /// A response could not be delivered and its transaction is gone.
    pub(crate) fn handle_server_failure(&mut self, core: &mut Core, now: MonoTime, key: &Key) {
        if self.forget_early_offer(key) || self.forget_branch_offer(key) {
            return core.emit(AgentEvent::OfferCancelled { leg: self.id });
        }
        match &self.state {
            State::Incoming(incoming) if incoming.invite == *key => {
                self.end(core, now, EndedBy::TransportFailed, None);
            }
            State::Confirmed(Negotiation::PeerOffer { request, .. }) if request == key => {
                self.state = State::Confirmed(Negotiation::Idle);
                core.emit(AgentEvent::OfferCancelled { leg: self.id });
            }
            _ => self.forget_refer(key),
        }
    }

    /// What came of a request of ours.
    pub(crate) fn handle_client_step(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        purpose: Purpose,
        step: ClientStep,
    ) {
        let key = &step.key;
        match step.event {
            TuEvent::Response(response) => {
                if let Some(again) = step.again
                    && self.try_again(core, now, key, step.owner, again, &response)
                {
                    return;
                }
                self.handle_response(core, now, key, purpose, response);
            }
            TuEvent::Timeout => self.handle_client_failure(core, now, key, purpose, 408),
            TuEvent::TransportError => self.handle_client_failure(core, now, key, purpose, 503),
            _ => {}
        }
    }

    fn handle_response(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        key: &Key,
        purpose: Purpose,
        response: Box<Response>,
    ) {
        match purpose {
            Purpose::Invite => self.handle_invite_response(core, now, key, response),
            Purpose::Reinvite => self.handle_reinvite_response(core, now, key, &response),
            _ if response.status.is_provisional() => {}
            Purpose::Info => self.digit_done(core, now),
            Purpose::Notify => self.news_arrived(core, now, Some(response.status.code())),
            Purpose::Refer => self.refer_answered(core, &response),
            Purpose::Update => self.handle_update_response(core, now, key, &response),
            Purpose::Refresh => self.refreshed_by_update(core, now, &response),
            // A peer that does not know its own response any more will fail the INVITE.
            Purpose::Prack | Purpose::Farewell => {}
        }
    }

    /// A request of ours that got no response: 408 for silence, 503 for a failed transport
    /// (RFC 3261 §8.1.3.1).
    fn handle_client_failure(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        key: &Key,
        purpose: Purpose,
        status: u16,
    ) {
        match purpose {
            Purpose::Invite => self.invite_failed(core, now, key, status),
            Purpose::Reinvite => self.reinvite_failed(core, now, key, status),
            Purpose::Info => self.digit_done(core, now),
            Purpose::Notify => self.news_arrived(core, now, None),
            Purpose::Refer => self.end_refer_attempt(core, status, false),
            Purpose::Update => self.update_failed(core, now, key, status),
            Purpose::Refresh => self.refresh_failed(core, now, status),
            Purpose::Prack | Purpose::Farewell => {}
        }
    }
}

/// Adds what ends the head of every request of ours.
fn complete(core: &Core, request: &mut Request) {
    request
        .headers
        .push(header(HeaderName::UserAgent, core.product.clone()));
    let body = request.body().clone();
    set_body(&mut request.headers, &body);
}

fn push_reason(headers: &mut sipx_sip::Headers, reason: Option<Bytes>) {
    if let Some(reason) = reason {
        headers.push(header(HeaderName::Reason, reason));
    }
}
