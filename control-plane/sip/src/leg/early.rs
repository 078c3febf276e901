//! A caller's leg before its answer: provisional responses, reliable ones among them (RFC 3262),
//! and the offers of an early dialog (RFC 3311, RFC 6337).
//!
//! ```text
//!   INVITE, Supported: 100rel  ─▶
//!   183, RSeq 7, answer        ◀─   repeated after T1, 2·T1, … until the PRACK
//!   PRACK, RAck 7 1 INVITE     ─▶   481 when it names another
//!   200 (PRACK)                ◀─
//!   UPDATE, offer              ─▶   the first exchange is over, another may begin
//! ```
//!
//! One reliable response is out at a time (RFC 3262 §3): what follows waits, the 2xx too. Whether
//! a response is reliable is for the peer's `Supported` and `Require` to say; an INVITE without an
//! offer gets ringing without a description unreliably, for the first reliable response must bring
//! our offer (RFC 3262 §5).

use std::time::Duration;

use bytes::Bytes;
use sipx_sip::rel::{self, RAck};
use sipx_sip::{HeaderName, Method, Request};
use trunkline_edge_api::MonoTime;

use super::{Leg, State};
use crate::agent::core::{Core, Key, LegTimer, Purpose, after};
use crate::agent::{AgentEvent, EndedBy, LegError};
use crate::flow::Flow;
use crate::message::{Body, header};
use crate::timer_queue::TimerHandle;

/// First numbers of reliable responses are drawn from 1 … 2¹⁶: RFC 3262 §3 allows up to 2³¹ − 1,
/// and small ones are easier to read.
const FIRST_RSEQ_MAX: u64 = 1 << 16;

/// An INVITE of the peer without a final response.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) invite: Key,
    /// The number of the INVITE.
    cseq: u32,
    peer: rel::Offered,
    exchange: Exchange,
    /// `RSeq` of the last reliable response; 0 before the first.
    rseq: u32,
    /// The reliable response that waits for its PRACK.
    outstanding: Option<PendingPrack>,
    /// The response to send after it: status and description.
    next: Option<(u16, Option<Bytes>)>,
    /// The 2xx that waits for the PRACK or for the answer to our UPDATE.
    answer: Option<Bytes>,
}

/// Where offer and answer of the early dialog stand.
#[derive(Debug)]
enum Exchange {
    /// The INVITE's offer has no answer that the peer is sure to have.
    PeerOffer,
    /// The INVITE had none, and we made none.
    None,
    /// Our offer went out in a reliable response.
    OwnOffer(Bytes),
    /// Answered. The description is ours.
    Settled(Bytes),
    /// A further offer of the peer waits for the user of the agent.
    PeerReoffer { request: Key, local: Bytes },
    /// A further offer of ours, in an UPDATE, waits for its final response.
    OwnUpdate {
        update: Key,
        offer: Bytes,
        local: Bytes,
    },
}

/// A reliable response until its PRACK.
#[derive(Debug)]
struct PendingPrack {
    response: Bytes,
    flow: Flow,
    interval: Duration,
    give_up_at: MonoTime,
    timer: TimerHandle,
}

impl Incoming {
    pub(super) fn new(invite: Key, cseq: u32, request: &Request) -> Self {
        let has_offer = Body::sdp_of(&request.headers, request.body()).is_some();
        Self {
            invite,
            cseq,
            peer: rel::Offered::in_request(request),
            exchange: if has_offer {
                Exchange::PeerOffer
            } else {
                Exchange::None
            },
            rseq: 0,
            outstanding: None,
            next: None,
            answer: None,
        }
    }

    /// Whether a response is sent reliably.
    fn is_reliable(&self, has_sdp: bool) -> bool {
        let brings_nothing = matches!(self.exchange, Exchange::None) && !has_sdp;
        self.peer.required || (self.peer.supported && !brings_nothing)
    }

    /// The peer's offer that waits for an answer.
    pub(super) fn open_offer(&self) -> Option<&Key> {
        match &self.exchange {
            Exchange::PeerReoffer { request, .. } => Some(request),
            _ => None,
        }
    }

    /// Takes back what waits, when the INVITE has its final response.
    pub(super) fn disarm(&self, core: &mut Core) {
        if let Some(outstanding) = &self.outstanding {
            core.cancel_timer(outstanding.timer);
        }
    }
}

impl Leg {
    fn incoming_mut(&mut self) -> Result<&mut Incoming, LegError> {
        match &mut self.state {
            State::Incoming(incoming) => Ok(incoming),
            State::Terminated(_) => Err(LegError::UnknownLeg),
            _ => Err(LegError::WrongState),
        }
    }

    // ---- responses ----------------------------------------------------------------------------

    /// Sends 101 … 199, with early media when `sdp` is given.
    pub(crate) fn provisional(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        status: u16,
        sdp: Option<Bytes>,
    ) -> Result<(), LegError> {
        let incoming = self.incoming_mut()?;
        if !(101..=199).contains(&status) {
            return Err(LegError::Status(status));
        }
        if incoming.answer.is_some() {
            return Err(LegError::WrongState);
        }
        if incoming.outstanding.is_some() {
            let waiting = incoming.next.take().and_then(|(_, sdp)| sdp);
            incoming.next = Some((status, sdp.or(waiting)));
            return Ok(());
        }
        self.send_provisional(core, now, status, sdp)
    }

    fn send_provisional(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        status: u16,
        sdp: Option<Bytes>,
    ) -> Result<(), LegError> {
        let incoming = self.incoming_mut()?;
        let invite = incoming.invite.clone();
        let is_reliable = incoming.is_reliable(sdp.is_some());
        let sdp = match &incoming.exchange {
            Exchange::PeerOffer => sdp,
            // An offer that may be lost is none (RFC 6337 §2.1).
            Exchange::None if is_reliable => sdp,
            // Once it is settled, no response to the INVITE describes anything (RFC 3261 §13.2.1).
            _ => None,
        };
        if !is_reliable {
            let body = sdp.unwrap_or_default();
            let response = self.dialog_response(core, &invite, status, &body)?;
            core.respond(now, &invite, response);
            return Ok(());
        }
        if let Some(sdp) = &sdp {
            incoming.exchange = match incoming.exchange {
                Exchange::None => Exchange::OwnOffer(sdp.clone()),
                _ => Exchange::Settled(sdp.clone()),
            };
        }
        incoming.rseq = match incoming.rseq {
            0 => 1 + u32::try_from(core.random() % FIRST_RSEQ_MAX).unwrap_or(0),
            last => last + 1,
        };
        let rseq = incoming.rseq;
        let body = sdp.unwrap_or_default();
        let mut response = self.dialog_response(core, &invite, status, &body)?;
        let headers = &mut response.headers;
        // Before the length, which comes last.
        let index = headers.len().saturating_sub(1);
        headers.insert(index, header(HeaderName::RSeq, rseq.to_string()));
        headers.insert(index, header(HeaderName::Require, rel::OPTION_TAG));
        let (response, flow) = core
            .respond(now, &invite, response)
            .ok_or(LegError::WrongState)?;
        let interval = core.config.timers.t1;
        let timer = core.set_leg_timer(after(now, interval), self.id, LegTimer::RepeatProvisional);
        let give_up_at = after(now, core.config.timers.timeout());
        self.incoming_mut()?.outstanding = Some(PendingPrack {
            response,
            flow,
            interval,
            give_up_at,
            timer,
        });
        Ok(())
    }

    /// Sends the reliable response again, or gives the call up: RFC 3262 §3 rejects an INVITE with
    /// 5xx whose provisional response nobody acknowledges for 64·T1.
    pub(super) fn repeat_provisional(&mut self, core: &mut Core, now: MonoTime) {
        let leg = self.id;
        let Ok(incoming) = self.incoming_mut() else {
            return;
        };
        let Some(outstanding) = &mut incoming.outstanding else {
            return;
        };
        if now < outstanding.give_up_at {
            outstanding.interval = core.config.timers.double(outstanding.interval);
            let next = after(now, outstanding.interval).min(outstanding.give_up_at);
            outstanding.timer = core.set_leg_timer(next, leg, LegTimer::RepeatProvisional);
            let (flow, bytes) = (outstanding.flow.clone(), outstanding.response.clone());
            core.counters.retransmissions_sent += 1;
            core.transmit(flow, bytes);
        } else {
            let invite = incoming.invite.clone();
            incoming.outstanding = None;
            self.refuse(core, now, &invite, 504);
            self.end(core, now, EndedBy::PrackTimeout, None);
        }
    }

    /// Sends 200, at once or as soon as the PRACK or the answer to our UPDATE is there. An offer of
    /// the peer that nobody has answered is refused.
    pub(crate) fn answer(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        sdp: Bytes,
    ) -> Result<(), LegError> {
        let incoming = self.incoming_mut()?;
        if incoming.answer.is_some() {
            return Err(LegError::WrongState);
        }
        if let Exchange::PeerReoffer { request, local } = &incoming.exchange {
            let request = request.clone();
            incoming.exchange = Exchange::Settled(local.clone());
            self.refuse(core, now, &request, 491);
        }
        self.incoming_mut()?.answer = Some(sdp);
        self.go_on(core, now)
    }

    /// Sends what waits, when nothing is in its way any more.
    fn go_on(&mut self, core: &mut Core, now: MonoTime) -> Result<(), LegError> {
        let incoming = self.incoming_mut()?;
        if incoming.outstanding.is_some() {
            return Ok(());
        }
        if let Some((status, sdp)) = incoming.next.take() {
            // The 2xx makes it old news.
            if incoming.answer.is_none() {
                return self.send_provisional(core, now, status, sdp);
            }
        }
        if matches!(incoming.exchange, Exchange::OwnUpdate { .. }) {
            return Ok(());
        }
        let Some(sdp) = incoming.answer.take() else {
            return Ok(());
        };
        let invite = incoming.invite.clone();
        let (sdp, local, made_offer) = match &incoming.exchange {
            Exchange::PeerOffer => (sdp.clone(), sdp, false),
            Exchange::None => (sdp.clone(), sdp, true),
            // The PRACK owed an answer and had none; the ACK may bring it.
            Exchange::OwnOffer(offer) => (offer.clone(), offer.clone(), true),
            Exchange::Settled(local)
            | Exchange::PeerReoffer { local, .. }
            | Exchange::OwnUpdate { local, .. } => (Bytes::new(), local.clone(), false),
        };
        let pending = self.accept_invite(core, now, &invite, &sdp, made_offer)?;
        self.local_sdp = local;
        self.state = State::Answered(pending);
        Ok(())
    }

    // ---- PRACK --------------------------------------------------------------------------------

    pub(super) fn handle_prack(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        key: &Key,
        request: &Request,
    ) {
        let rack = match request.headers.typed::<RAck>() {
            Some(Ok(rack)) => rack,
            _ => return self.refuse(core, now, key, 400),
        };
        let Ok(incoming) = self.incoming_mut() else {
            return self.refuse(core, now, key, 481);
        };
        let is_it = rack.rseq == incoming.rseq
            && rack.cseq == incoming.cseq
            && rack.method.eq_ignore_ascii_case(b"INVITE");
        let outstanding = incoming.outstanding.take_if(|_| is_it);
        let Some(outstanding) = outstanding else {
            return self.refuse(core, now, key, 481);
        };
        core.cancel_timer(outstanding.timer);
        match Body::of(&request.headers, request.body()) {
            Body::Empty => self.refuse(core, now, key, 200),
            Body::Unsupported => self.reply_accept(core, now, key),
            Body::Sdp(sdp) => match &incoming.exchange {
                Exchange::OwnOffer(offer) => {
                    incoming.exchange = Exchange::Settled(offer.clone());
                    self.refuse(core, now, key, 200);
                    let leg = self.id;
                    self.is_news(&sdp);
                    core.emit(AgentEvent::AnswerInPrack { leg, sdp });
                }
                Exchange::Settled(local) => {
                    incoming.exchange = Exchange::PeerReoffer {
                        request: key.clone(),
                        local: local.clone(),
                    };
                    core.emit(AgentEvent::Offer { leg: self.id, sdp });
                }
                Exchange::None => {
                    incoming.exchange = Exchange::PeerReoffer {
                        request: key.clone(),
                        local: Bytes::new(),
                    };
                    core.emit(AgentEvent::Offer { leg: self.id, sdp });
                }
                // Its first offer is unanswered.
                _ => self.refuse(core, now, key, 488),
            },
        }
        // The leg is still incoming: the PRACK changed nothing but what waits for it.
        let _ = self.go_on(core, now);
    }

    // ---- UPDATE before the answer -------------------------------------------------------------

    /// An UPDATE with an offer: RFC 3311 §5.2.
    pub(super) fn handle_early_update(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        key: &Key,
        sdp: Bytes,
    ) -> bool {
        let Ok(incoming) = self.incoming_mut() else {
            return false;
        };
        match &incoming.exchange {
            Exchange::Settled(local) if incoming.answer.is_none() => {
                incoming.exchange = Exchange::PeerReoffer {
                    request: key.clone(),
                    local: local.clone(),
                };
                core.emit(AgentEvent::Offer { leg: self.id, sdp });
                true
            }
            Exchange::OwnOffer(_) | Exchange::OwnUpdate { .. } => {
                self.refuse(core, now, key, 491);
                false
            }
            _ => {
                self.refuse_for_now(core, now, key);
                false
            }
        }
    }

    /// Answers the peer's further offer: with 200 and a description, or with a refusal.
    pub(super) fn answer_early_offer(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        answer: Result<Bytes, u16>,
    ) -> Result<(), LegError> {
        let incoming = self.incoming_mut()?;
        let Exchange::PeerReoffer { request, local } = &incoming.exchange else {
            return Err(LegError::WrongState);
        };
        let (request, local) = (request.clone(), local.clone());
        let was_settled = !local.is_empty();
        match answer {
            Ok(sdp) => {
                incoming.exchange = Exchange::Settled(sdp.clone());
                let response = self.dialog_response(core, &request, 200, &sdp)?;
                core.respond(now, &request, response);
            }
            Err(status) => {
                incoming.exchange = if was_settled {
                    Exchange::Settled(local)
                } else {
                    Exchange::None
                };
                self.refuse(core, now, &request, status);
            }
        }
        self.go_on(core, now)
    }

    /// The answer to an offer of the peer cannot be delivered. Whether it was one of these.
    pub(super) fn forget_early_offer(&mut self, key: &Key) -> bool {
        let Ok(incoming) = self.incoming_mut() else {
            return false;
        };
        if let Exchange::PeerReoffer { request, local } = &incoming.exchange
            && request == key
        {
            incoming.exchange = Exchange::Settled(local.clone());
            return true;
        }
        false
    }

    /// Offers `sdp` in an UPDATE, which a peer takes that named the method in `Allow` and has the
    /// first exchange behind it.
    pub(super) fn update_early(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        offer: Bytes,
    ) -> Result<(), LegError> {
        let allows_update = self.allows_update;
        let incoming = self.incoming_mut()?;
        let local = match &incoming.exchange {
            Exchange::Settled(local) if allows_update && incoming.answer.is_none() => local.clone(),
            Exchange::PeerReoffer { .. } | Exchange::OwnUpdate { .. } | Exchange::OwnOffer(_) => {
                return Err(LegError::OfferPending);
            }
            _ => return Err(LegError::WrongState),
        };
        let dialog = self.dialog.clone();
        let update = self.send_update(core, now, &dialog, &offer, Purpose::Update);
        self.incoming_mut()?.exchange = Exchange::OwnUpdate {
            update,
            offer,
            local,
        };
        Ok(())
    }

    /// The final response to our UPDATE: the answer, or why there is none. Whether it was one of
    /// these.
    pub(super) fn early_update_done(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        key: &Key,
        result: &Result<Bytes, u16>,
    ) -> bool {
        let Ok(incoming) = self.incoming_mut() else {
            return false;
        };
        let Exchange::OwnUpdate {
            update,
            offer,
            local,
        } = &incoming.exchange
        else {
            return false;
        };
        if update != key {
            return false;
        }
        incoming.exchange = Exchange::Settled(match result {
            Ok(_) => offer.clone(),
            Err(_) => local.clone(),
        });
        core.emit(AgentEvent::OfferAnswered {
            leg: self.id,
            result: result.clone(),
        });
        // The leg is still incoming.
        let _ = self.go_on(core, now);
        true
    }

    /// A new attempt of our UPDATE.
    pub(super) fn follow_early_update(&mut self, old: &Key, again: &Key) {
        if let Ok(incoming) = self.incoming_mut()
            && let Exchange::OwnUpdate { update, .. } = &mut incoming.exchange
            && update == old
        {
            *update = again.clone();
        }
    }

    /// An UPDATE in `dialog`, with an offer or (empty) without.
    pub(super) fn send_update(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        dialog: &crate::dialog::Dialog,
        offer: &Bytes,
        purpose: Purpose,
    ) -> Key {
        let cseq = self.dialog.next_cseq();
        let (mut update, flow) = dialog.request(Method::Update, cseq, core.random());
        super::client::offer_in(&mut update, dialog, offer);
        self.session_rows()
            .into_iter()
            .for_each(|row| update.headers.push(row));
        self.send(core, now, update, flow, purpose)
    }

    pub(super) fn reply_accept(&self, core: &mut Core, now: MonoTime, key: &Key) {
        let accept = Some((HeaderName::Accept, crate::message::ACCEPT));
        self.reply(core, now, key, 415, accept);
    }
}
