//! The leg to a callee: RFC 3261 §13.2, and its CANCEL, §9.1.

use std::sync::Arc;

use bytes::Bytes;
use sipx_sip::headers::CSeq;
use sipx_sip::{Header, HeaderName, Headers, Method, Request, Response, update};
use trunkline_edge_api::MonoTime;

use super::session::first_rows;
use super::{
    Aftermath, Leg, Negotiation, OfferMethod, Role, SentAck, State, complete, push_reason,
};
use crate::agent::core::{ClientOwner, ClientUser, Core, Key, Notice, Purpose};
use crate::agent::{AgentEvent, EndCause, LegError, SipLegId};
use crate::dialog::{Dialog, to_tag};
use crate::digest::ClientCredentials;
use crate::message::{ALLOW, MAX_FORWARDS, SUPPORTED, header, reason_phrase};

/// 2xx responses of one INVITE, its own included, that are acknowledged; those of further branches
/// are left to the timers of their senders. A callee's phones are rarely more than five.
const ANSWERS_MAX: usize = 8;

/// What an INVITE has beyond its dialog.
pub(crate) struct InviteParts {
    pub(crate) max_forwards: u8,
    pub(crate) headers: Vec<Header>,
    pub(crate) offer: Bytes,
    pub(crate) credentials: Option<Arc<ClientCredentials>>,
}

impl Leg {
    /// Sends an INVITE and makes its leg.
    pub(crate) fn calling(
        core: &mut Core,
        now: MonoTime,
        id: SipLegId,
        mut dialog: Dialog,
        parts: InviteParts,
    ) -> Self {
        let cseq = dialog.next_cseq();
        let mut invite = dialog.request_along_flow(Method::Invite, cseq, core.random());
        let hops = parts.max_forwards.min(MAX_FORWARDS).to_string();
        invite.headers.remove_all(&HeaderName::MaxForwards);
        invite
            .headers
            .insert(1, header(HeaderName::MaxForwards, hops));
        for row in parts.headers {
            if !is_written_here(row.name()) {
                invite.headers.push(row);
            }
        }
        offer_in(&mut invite, &dialog, &parts.offer);
        first_rows(&core.config)
            .into_iter()
            .for_each(|row| invite.headers.push(row));
        complete(core, &mut invite);
        let owner = ClientOwner::new(ClientUser::Leg(id, Purpose::Invite), cseq);
        let invite = core.send_request(now, invite, dialog.flow.clone(), owner);
        let mut leg = Self::new(id, Role::Client, dialog, State::Calling { invite });
        leg.transactions = 1;
        leg.invite_cseq = cseq;
        leg.credentials = parts.credentials;
        leg.local_sdp = parts.offer;
        leg
    }

    /// Ends an INVITE that has no final response yet.
    pub(crate) fn cancel(&mut self, core: &mut Core, now: MonoTime) -> Result<(), LegError> {
        match self.state {
            State::Calling { .. } | State::Proceeding { .. } => self.hangup(core, now, None),
            State::Terminated(_) => Err(LegError::UnknownLeg),
            _ => Err(LegError::WrongState),
        }
    }

    pub(super) fn handle_invite_response(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        key: &Key,
        response: Box<Response>,
    ) {
        if response.status.is_provisional() {
            self.handle_provisional(core, now, &response);
        } else if response.status.is_success() {
            self.handle_answer(core, now, key, &response);
        } else if self.is_waiting_for(key) {
            let reason = String::from_utf8_lossy(&response.reason).into_owned();
            self.reject_with(core, now, response.status.code(), reason, Some(response));
        }
    }

    /// Whether `request` is the INVITE of this leg, which nobody has answered yet.
    pub(crate) fn is_calling(&self, core: &Core, request: &Request) -> bool {
        let (State::Calling { invite } | State::Proceeding { invite }) = &self.state else {
            return false;
        };
        let call_id = request.headers.value(&HeaderName::CallId);
        let is_call = call_id.is_some_and(|call_id| call_id[..] == self.dialog.call_id[..]);
        is_call
            && core
                .client_request(invite)
                .is_some_and(|(invite, _)| invite.uri.equivalent(&request.uri))
    }

    /// Whether the INVITE `key` is the one that will form the dialog.
    fn is_waiting_for(&self, key: &Key) -> bool {
        match &self.state {
            State::Calling { invite } | State::Proceeding { invite } => invite == key,
            _ => false,
        }
    }

    fn handle_provisional(&mut self, core: &mut Core, now: MonoTime, response: &Response) {
        let nothing = State::Terminated(Aftermath::Nothing);
        match std::mem::replace(&mut self.state, nothing) {
            State::Calling { invite } | State::Proceeding { invite } => {
                self.state = State::Proceeding { invite };
                if response.status.code() > 100 {
                    self.note_methods(&response.headers);
                    self.handle_progress(core, now, response);
                }
            }
            State::Terminated(Aftermath::CancelOwed { invite, reason }) => {
                self.send_cancel(core, now, &invite, reason);
                self.state = State::Terminated(self.wait_for_invite(core, now, invite));
            }
            other => self.state = other,
        }
    }

    fn handle_answer(&mut self, core: &mut Core, now: MonoTime, key: &Key, response: &Response) {
        if !self.is_waiting_for(key) {
            return self.handle_late_answer(core, now, key, response);
        }
        let made_offer = core
            .client_request(key)
            .is_some_and(|(invite, _)| !invite.body().is_empty());
        let answered = self.answered_branch(core, now, response);
        self.note_methods(&response.headers);
        self.adopt_terms(core, now, response);
        if let Some(sdp) = &answered.sdp {
            self.is_news(sdp);
        }
        self.dialog.adopt(response);
        let Some(Ok(CSeq { sequence: cseq, .. })) = response.headers.typed::<CSeq>() else {
            return;
        };
        let (leg, fork) = (self.id, answered.fork);
        if let Some(offer) = answered.sdp.clone()
            && !made_offer
            && !answered.is_settled
        {
            let invite = key.clone();
            self.state = State::Confirmed(Negotiation::LateOffer { invite, cseq });
            let sdp = None;
            core.emit(AgentEvent::Answered { leg, fork, sdp });
            core.emit(AgentEvent::Offer { leg, sdp: offer });
            return;
        }
        self.state = State::Confirmed(match answered.update {
            Some((invite, sdp)) => Negotiation::OwnOffer {
                invite,
                sdp,
                tries: 1,
                method: OfferMethod::Update,
            },
            None => Negotiation::Idle,
        });
        let dialog = self.dialog.clone();
        self.acknowledge(core, &dialog, key, cseq, &Bytes::new());
        let sdp = answered.sdp;
        core.emit(AgentEvent::Answered { leg, fork, sdp });
    }

    /// Notes whether the peer takes UPDATE, where it says so.
    pub(super) fn note_methods(&mut self, headers: &Headers) {
        if headers.get(&HeaderName::Allow).is_some() {
            self.allows_update = update::peer_allows(headers);
        }
    }

    /// A 2xx that does not begin the session: a copy of one, another branch of a fork, or one that
    /// crossed our CANCEL (RFC 3261 §13.2.2.4 and §9.1).
    fn handle_late_answer(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        key: &Key,
        response: &Response,
    ) {
        if self.acknowledge_again(core, response) || self.acks.len() >= ANSWERS_MAX {
            return;
        }
        let waits_for_us = matches!(
            &self.state,
            State::Confirmed(Negotiation::LateOffer { invite, .. }) if invite == key
        );
        if waits_for_us && to_tag(&response.headers) == self.dialog.remote_tag {
            return;
        }
        let Some(Ok(CSeq { sequence: cseq, .. })) = response.headers.typed::<CSeq>() else {
            return;
        };
        core.counters.late_answers += 1;
        let mut branch = self.dialog.clone();
        branch.adopt(response);
        self.acknowledge(core, &branch, key, cseq, &Bytes::new());
        self.send_bye_in(core, now, &branch, cseq + 1, None);
    }

    /// Sends the ACK to a 2xx in `dialog` and keeps it for copies of the 2xx. It has the number and
    /// the credentials of the INVITE `key` (RFC 3261 §22.1), and `sdp` where the 2xx made an offer.
    pub(super) fn acknowledge(
        &mut self,
        core: &mut Core,
        dialog: &Dialog,
        key: &Key,
        cseq: u32,
        sdp: &Bytes,
    ) {
        let (mut ack, flow) = dialog.request(Method::Ack, cseq, core.random());
        if let Some((invite, _)) = core.client_request(key) {
            let credentials = [HeaderName::Authorization, HeaderName::ProxyAuthorization];
            for name in &credentials {
                for row in invite.headers.get_all(name) {
                    ack.headers.push(row.clone());
                }
            }
        }
        ack.set_body(sdp.clone());
        complete(core, &mut ack);
        let bytes = core.transmit_request(flow.clone(), ack);
        self.acks.push(SentAck {
            cseq,
            remote_tag: dialog.remote_tag.clone(),
            flow,
            bytes,
        });
    }

    /// Sends the ACK of a 2xx again that was acknowledged before.
    pub(super) fn acknowledge_again(&mut self, core: &mut Core, response: &Response) -> bool {
        let Some(Ok(CSeq { sequence, .. })) = response.headers.typed::<CSeq>() else {
            return false;
        };
        let tag = to_tag(&response.headers);
        let sent = self
            .acks
            .iter()
            .find(|ack| ack.cseq == sequence && ack.remote_tag == tag);
        if let Some(ack) = sent {
            core.counters.retransmissions_sent += 1;
            core.transmit(ack.flow.clone(), ack.bytes.clone());
        }
        sent.is_some()
    }

    /// RFC 3261 §9.1: the same request line, `Via`, `From`, `To`, `Call-ID`, number and route.
    pub(super) fn send_cancel(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        invite: &Key,
        reason: Option<Bytes>,
    ) {
        let Some((request, flow)) = core.client_request(invite) else {
            return;
        };
        let flow = flow.clone();
        let mut cancel = Request::new(Method::Cancel, request.uri.clone());
        for row in request.headers.iter() {
            match row.name() {
                HeaderName::Via
                | HeaderName::Route
                | HeaderName::From
                | HeaderName::To
                | HeaderName::CallId => cancel.headers.push(row.clone()),
                HeaderName::CSeq => {
                    let sequence = match request.headers.typed::<CSeq>() {
                        Some(Ok(cseq)) => cseq.sequence,
                        _ => continue,
                    };
                    let value = format!("{sequence} {}", Method::Cancel);
                    cancel.headers.push(header(HeaderName::CSeq, value));
                }
                _ => {}
            }
        }
        let hops = MAX_FORWARDS.to_string();
        cancel.headers.push(header(HeaderName::MaxForwards, hops));
        push_reason(&mut cancel.headers, reason);
        self.send(core, now, cancel, flow, Purpose::Farewell);
    }

    /// The INVITE got no final response.
    pub(super) fn invite_failed(&mut self, core: &mut Core, now: MonoTime, key: &Key, status: u16) {
        if self.is_waiting_for(key) {
            self.reject_with(core, now, status, reason_phrase(status).to_owned(), None);
        }
    }

    fn reject_with(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        status: u16,
        reason: String,
        response: Option<Box<Response>>,
    ) {
        let cause = match &response {
            Some(response) => EndCause::of(&response.headers),
            None => EndCause::NONE,
        };
        self.state = State::Terminated(Aftermath::Nothing);
        self.close_branches(core, now, 487);
        core.notices.push(Notice::LegTerminated(self.id));
        core.emit(AgentEvent::Rejected {
            leg: self.id,
            status,
            reason,
            cause,
            response,
        });
    }
}

/// Puts an offer into an INVITE or re-INVITE, with what goes with it.
pub(super) fn offer_in(invite: &mut Request, dialog: &Dialog, offer: &Bytes) {
    invite
        .headers
        .push(header(HeaderName::Contact, dialog.contact.clone()));
    invite.headers.push(header(HeaderName::Allow, ALLOW));
    invite
        .headers
        .push(header(HeaderName::Supported, SUPPORTED));
    invite.set_body(offer.clone());
}

/// Headers of an INVITE that the agent writes itself.
fn is_written_here(name: &HeaderName) -> bool {
    matches!(
        name,
        HeaderName::Via
            | HeaderName::MaxForwards
            | HeaderName::RecordRoute
            | HeaderName::From
            | HeaderName::To
            | HeaderName::CallId
            | HeaderName::CSeq
            | HeaderName::Contact
            | HeaderName::Allow
            | HeaderName::Supported
            | HeaderName::SessionExpires
            | HeaderName::MinSe
            | HeaderName::Require
            | HeaderName::UserAgent
            | HeaderName::ContentType
            | HeaderName::ContentLength
    )
}
