//! Offers inside a session: re-INVITE both ways (RFC 3261 §14), UPDATE from the peer (RFC 3311). What
//! is offered before the answer is in [`early`](super::early) and [`branch`](super::branch).
//!
//! One offer is open at a time (RFC 3264 §4). When both sides make one at once, each refuses the
//! other's with 491 and waits: the owner of the Call-ID 2.1 to 4 s, the other up to 2 s
//! (RFC 3261 §14.1), so the other usually comes first. If the peer does, our re-INVITE is given up
//! with 491: its description was written before the answer we now give, and the version in its
//! `o=` would go backwards.

use bytes::Bytes;
use sipx_sip::headers::CSeq;
use sipx_sip::{HeaderName, Method, Request, Response};
use trunkline_edge_api::MonoTime;

use super::client::offer_in;
use super::{Leg, PendingAck, Role, State, terms_of};
use crate::agent::core::{Core, Key, LegTimer, Purpose};
use crate::agent::{AgentEvent, EndedBy, LegError};
use crate::flow::Flow;
use crate::message::{ACCEPT, Body};
use crate::timer_queue::TimerHandle;

/// How often a re-INVITE is sent that meets 491 each time. With the waits of §14.1 the third try
/// comes some 8 s after the first: by then something other than chance is in the way.
const GLARE_TRIES_MAX: u8 = 3;

/// Where offer and answer of a confirmed session stand.
#[derive(Debug)]
pub(super) enum Negotiation {
    /// No offer is open.
    Idle,
    /// The peer's waits for the user of the agent.
    PeerOffer { request: Key, method: OfferMethod },
    /// Our 2xx to the peer's re-INVITE waits for its ACK.
    AwaitingAck(PendingAck),
    /// Our re-INVITE, or an UPDATE from before the answer, waits for its final response.
    OwnOffer {
        invite: Key,
        sdp: Bytes,
        tries: u8,
        method: OfferMethod,
    },
    /// Our re-INVITE that only keeps the session alive waits for its final response.
    Refreshing { invite: Key },
    /// Our INVITE had no offer, its 2xx made one, and our ACK owes the answer.
    LateOffer { invite: Key, cseq: u32 },
    /// Our re-INVITE met 491 and waits for its next try.
    Glare {
        sdp: Bytes,
        tries: u8,
        timer: TimerHandle,
    },
}

/// What an offer travels in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OfferMethod {
    Invite,
    Update,
}

impl Leg {
    // ---- the peer's offers --------------------------------------------------------------------

    /// A re-INVITE or UPDATE in its transaction.
    pub(super) fn handle_offer_request(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        key: &Key,
        request: &Request,
        flow: Flow,
    ) {
        let body = Body::of(&request.headers, request.body());
        let method = match request.method {
            Method::Update => OfferMethod::Update,
            _ => OfferMethod::Invite,
        };
        if body == Body::Unsupported {
            return self.reply(core, now, key, 415, Some((HeaderName::Accept, ACCEPT)));
        }
        if let Err((status, least)) = terms_of(&core.config, &request.headers) {
            let least = least.map(|secs| secs.to_string());
            let extra = least.as_deref().map(|secs| (HeaderName::MinSe, secs));
            return self.reply(core, now, key, status, extra);
        }
        if method == OfferMethod::Update && body == Body::Empty {
            // A target refresh and nothing else.
            self.refresh(request, flow);
            return self.accept_update(core, now, key, &Bytes::new());
        }
        match &self.state {
            State::Incoming(_) => {
                return match body {
                    Body::Sdp(sdp) if method == OfferMethod::Update => {
                        if self.handle_early_update(core, now, key, sdp) {
                            self.refresh(request, flow);
                        }
                    }
                    // RFC 3261 §14.2: the INVITE before it has no final response.
                    _ => self.refuse_for_now(core, now, key),
                };
            }
            State::Calling { .. } | State::Proceeding { .. } => {
                return match body {
                    Body::Sdp(sdp) if method == OfferMethod::Update => {
                        self.handle_branch_update(core, now, key, request, sdp);
                    }
                    // Our INVITE is open.
                    _ => self.refuse(core, now, key, 491),
                };
            }
            State::Confirmed(Negotiation::OwnOffer { .. } | Negotiation::Refreshing { .. }) => {
                return self.refuse(core, now, key, 491);
            }
            State::Confirmed(Negotiation::PeerOffer { .. } | Negotiation::LateOffer { .. }) => {
                return self.refuse_for_now(core, now, key);
            }
            State::Answered(pending) | State::Confirmed(Negotiation::AwaitingAck(pending)) => {
                if pending.made_offer {
                    return self.refuse_for_now(core, now, key);
                }
                // The ACK is lost or late: who offers again has our 2xx.
                self.acknowledged(core, now, None, None);
            }
            State::Confirmed(Negotiation::Glare { timer, .. }) => {
                core.cancel_timer(*timer);
                self.offer_failed(core, 491);
            }
            State::Confirmed(Negotiation::Idle) => {}
            State::Terminated(_) => return,
        }
        self.refresh(request, flow);
        match body {
            Body::Sdp(sdp) => {
                self.state = State::Confirmed(Negotiation::PeerOffer {
                    request: key.clone(),
                    method,
                });
                self.is_news(&sdp);
                core.emit(AgentEvent::Offer { leg: self.id, sdp });
            }
            Body::Empty | Body::Unsupported => {
                let sdp = self.local_sdp.clone();
                if let Ok(pending) = self.accept_invite(core, now, key, &sdp, true) {
                    self.state = State::Confirmed(Negotiation::AwaitingAck(pending));
                }
            }
        }
    }

    /// A target refresh: the peer moved, or its flow did.
    fn refresh(&mut self, request: &Request, flow: Flow) {
        self.dialog.refresh_target(&request.headers);
        self.flow_moved(flow);
    }

    /// 500 with the wait of RFC 3261 §14.2: 0 to 10 s.
    pub(super) fn refuse_for_now(&self, core: &mut Core, now: MonoTime, key: &Key) {
        let secs = (core.random() % 11).to_string();
        self.reply(core, now, key, 500, Some((HeaderName::RetryAfter, &secs)));
    }

    fn accept_update(&mut self, core: &mut Core, now: MonoTime, key: &Key, sdp: &Bytes) {
        let Ok(mut response) = self.dialog_response(core, key, 200, sdp) else {
            return;
        };
        // A session that nobody has answered has no timer yet.
        if matches!(self.state, State::Answered(_) | State::Confirmed(_))
            && let Some(request) = core.server_request(key)
        {
            let asked = request.headers.clone();
            for row in self.accept_terms(core, now, &asked) {
                response.headers.push(row);
            }
        }
        core.respond(now, key, response);
    }

    /// Answers the peer's offer.
    pub(crate) fn accept_offer(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        sdp: Bytes,
    ) -> Result<(), LegError> {
        match &self.state {
            State::Incoming(_) => return self.answer_early_offer(core, now, Ok(sdp)),
            State::Calling { .. } | State::Proceeding { .. } => {
                return self.answer_branch_offer(core, now, Ok(sdp));
            }
            State::Confirmed(Negotiation::LateOffer { invite, cseq }) => {
                let (invite, cseq) = (invite.clone(), *cseq);
                let dialog = self.dialog.clone();
                self.acknowledge(core, &dialog, &invite, cseq, &sdp);
                self.state = State::Confirmed(Negotiation::Idle);
                self.local_sdp = sdp;
                return Ok(());
            }
            _ => {}
        }
        let (request, method) = self.open_peer_offer()?;
        self.state = State::Confirmed(match method {
            OfferMethod::Update => {
                self.accept_update(core, now, &request, &sdp);
                Negotiation::Idle
            }
            OfferMethod::Invite => {
                let pending = self.accept_invite(core, now, &request, &sdp, false)?;
                Negotiation::AwaitingAck(pending)
            }
        });
        self.local_sdp = sdp;
        Ok(())
    }

    /// Refuses the peer's offer with 300 … 699; the session stays as it was.
    pub(crate) fn reject_offer(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        status: u16,
    ) -> Result<(), LegError> {
        if !(300..=699).contains(&status) {
            return Err(LegError::Status(status));
        }
        match &self.state {
            State::Incoming(_) => return self.answer_early_offer(core, now, Err(status)),
            State::Calling { .. } | State::Proceeding { .. } => {
                return self.answer_branch_offer(core, now, Err(status));
            }
            // An ACK cannot say no (RFC 3261 §13.2.2.4).
            State::Confirmed(Negotiation::LateOffer { .. }) => {
                return self.hangup(core, now, None);
            }
            _ => {}
        }
        let (request, _) = self.open_peer_offer()?;
        self.refuse(core, now, &request, status);
        self.state = State::Confirmed(Negotiation::Idle);
        Ok(())
    }

    fn open_peer_offer(&self) -> Result<(Key, OfferMethod), LegError> {
        match &self.state {
            State::Confirmed(Negotiation::PeerOffer { request, method }) => {
                Ok((request.clone(), *method))
            }
            State::Terminated(_) => Err(LegError::UnknownLeg),
            _ => Err(LegError::WrongState),
        }
    }

    // ---- our offers ---------------------------------------------------------------------------

    /// Offers `sdp` to the peer.
    pub(crate) fn reinvite(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        sdp: Bytes,
    ) -> Result<(), LegError> {
        match &self.state {
            State::Confirmed(Negotiation::Idle) => {
                self.send_reinvite(core, now, sdp, 1);
                Ok(())
            }
            State::Answered(_) | State::Confirmed(_) => Err(LegError::OfferPending),
            State::Incoming(_) => self.update_early(core, now, sdp),
            State::Calling { .. } | State::Proceeding { .. } => self.update_branch(core, now, sdp),
            State::Terminated(_) => Err(LegError::UnknownLeg),
        }
    }

    fn send_reinvite(&mut self, core: &mut Core, now: MonoTime, sdp: Bytes, tries: u8) {
        let invite = self.send_offer(core, now, &sdp);
        self.state = State::Confirmed(Negotiation::OwnOffer {
            invite,
            sdp,
            tries,
            method: OfferMethod::Invite,
        });
    }

    /// A re-INVITE with `sdp`.
    pub(super) fn send_offer(&mut self, core: &mut Core, now: MonoTime, sdp: &Bytes) -> Key {
        let cseq = self.dialog.next_cseq();
        let (mut invite, flow) = self.dialog.request(Method::Invite, cseq, core.random());
        offer_in(&mut invite, &self.dialog, sdp);
        self.session_rows()
            .into_iter()
            .for_each(|row| invite.headers.push(row));
        self.send(core, now, invite, flow, Purpose::Reinvite)
    }

    pub(super) fn retry_reinvite(&mut self, core: &mut Core, now: MonoTime) {
        if let State::Confirmed(Negotiation::Glare { sdp, tries, .. }) = &self.state {
            let (sdp, tries) = (sdp.clone(), *tries);
            self.send_reinvite(core, now, sdp, tries + 1);
        }
    }

    pub(super) fn handle_reinvite_response(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        key: &Key,
        response: &Response,
    ) {
        if self.refreshed_by_invite(core, now, key, response) {
            return;
        }
        let status = response.status;
        if status.is_success() {
            return self.handle_reinvite_answer(core, now, key, response);
        }
        let State::Confirmed(Negotiation::OwnOffer {
            invite, sdp, tries, ..
        }) = &self.state
        else {
            return;
        };
        if status.is_provisional() || invite != key {
            return;
        }
        match status.code() {
            491 if *tries < GLARE_TRIES_MAX => {
                // Units of 10 ms, as the RFC has it.
                let wait_millis = match self.role {
                    Role::Client => 2_100 + 10 * (core.random() % 191),
                    Role::Server => 10 * (core.random() % 201),
                };
                let (sdp, tries) = (sdp.clone(), *tries);
                let at = now.plus_millis(wait_millis);
                let timer = core.set_leg_timer(at, self.id, LegTimer::RetryReinvite);
                self.state = State::Confirmed(Negotiation::Glare { sdp, tries, timer });
            }
            code @ (408 | 481) => self.dialog_lost(core, now, code),
            code => self.offer_failed(core, code),
        }
    }

    fn handle_reinvite_answer(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        key: &Key,
        response: &Response,
    ) {
        if self.acknowledge_again(core, response) {
            return;
        }
        let is_open = matches!(
            &self.state,
            State::Confirmed(Negotiation::OwnOffer { invite, .. }) if invite == key
        );
        if is_open {
            self.dialog.refresh_target(&response.headers);
        }
        self.acknowledge_reinvite(core, key, response);
        if !is_open {
            return;
        }
        self.adopt_terms(core, now, response);
        let answer = Body::sdp_of(&response.headers, response.body());
        let idle = State::Confirmed(Negotiation::Idle);
        let previous = std::mem::replace(&mut self.state, idle);
        if let (Some(_), State::Confirmed(Negotiation::OwnOffer { sdp, .. })) = (&answer, previous)
        {
            self.local_sdp = sdp;
        }
        if let Some(sdp) = &answer {
            self.is_news(sdp);
        }
        core.emit(AgentEvent::OfferAnswered {
            leg: self.id,
            // An offer that is accepted without an answer leaves nothing to agree on.
            result: answer.ok_or(488),
        });
    }

    /// Sends the ACK to the 2xx of a re-INVITE.
    pub(super) fn acknowledge_reinvite(&mut self, core: &mut Core, key: &Key, response: &Response) {
        let Some(Ok(CSeq { sequence: cseq, .. })) = response.headers.typed::<CSeq>() else {
            return;
        };
        // Those of earlier re-INVITEs are of no more use.
        let first = self.invite_cseq;
        self.acks.retain(|ack| ack.cseq == first);
        let dialog = self.dialog.clone();
        self.acknowledge(core, &dialog, key, cseq, &Bytes::new());
    }

    /// No response to our re-INVITE.
    pub(super) fn reinvite_failed(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        key: &Key,
        status: u16,
    ) {
        if matches!(
            &self.state,
            State::Confirmed(Negotiation::Refreshing { invite }) if invite == key
        ) {
            self.state = State::Confirmed(Negotiation::Idle);
            return self.refresh_failed(core, now, status);
        }
        if matches!(
            &self.state,
            State::Confirmed(Negotiation::OwnOffer { invite, .. }) if invite == key
        ) {
            match status {
                408 => self.dialog_lost(core, now, status),
                _ => self.offer_failed(core, status),
            }
        }
    }

    // ---- our UPDATE from before the answer ----------------------------------------------------

    pub(super) fn handle_update_response(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        key: &Key,
        response: &Response,
    ) {
        let status = response.status.code();
        let result = match Body::sdp_of(&response.headers, response.body()) {
            Some(sdp) if response.status.is_success() => Ok(sdp),
            _ if response.status.is_success() => Err(488),
            _ => Err(status),
        };
        self.update_done(core, now, key, &result);
    }

    pub(super) fn update_failed(&mut self, core: &mut Core, now: MonoTime, key: &Key, status: u16) {
        self.update_done(core, now, key, &Err(status));
    }

    fn update_done(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        key: &Key,
        result: &Result<Bytes, u16>,
    ) {
        if self.early_update_done(core, now, key, result)
            || self.branch_update_done(core, key, result)
        {
            return;
        }
        if let State::Confirmed(Negotiation::OwnOffer { invite, sdp, .. }) = &self.state
            && invite == key
        {
            if result.is_ok() {
                self.local_sdp = sdp.clone();
            }
            self.state = State::Confirmed(Negotiation::Idle);
            core.emit(AgentEvent::OfferAnswered {
                leg: self.id,
                result: result.clone(),
            });
        }
    }

    fn offer_failed(&mut self, core: &mut Core, status: u16) {
        self.state = State::Confirmed(Negotiation::Idle);
        core.emit(AgentEvent::OfferAnswered {
            leg: self.id,
            result: Err(status),
        });
    }

    /// RFC 3261 §12.2.1.2: after 481 or 408 the dialog should go; a BYE tells whoever is left.
    fn dialog_lost(&mut self, core: &mut Core, now: MonoTime, status: u16) {
        self.offer_failed(core, status);
        self.send_bye(core, now, None);
        self.end(core, now, EndedBy::DialogLost, None);
    }
}
