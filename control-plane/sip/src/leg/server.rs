//! The leg of a caller: RFC 3261 §13.3.

use bytes::Bytes;
use sipx_sip::headers::CSeq;
use sipx_sip::{Header, HeaderName, Request, Response};
use trunkline_edge_api::MonoTime;

use super::{Aftermath, Incoming, Leg, Negotiation, PendingAck, Role, State};
use crate::agent::core::{Core, Key, LegTimer, after};
use crate::agent::{AgentEvent, EndCause, EndedBy, LegError, SipLegId};
use crate::dialog::Dialog;
use crate::flow::Flow;
use crate::message::{ALLOW, Body, SUPPORTED, header, set_body};

impl Leg {
    /// A leg for a new INVITE that has its transaction.
    pub(crate) fn incoming(
        id: SipLegId,
        dialog: Dialog,
        (invite, request): (Key, &Request),
        merge_key: Bytes,
    ) -> Self {
        let cseq = dialog.remote_cseq.unwrap_or_default();
        let incoming = Box::new(Incoming::new(invite, cseq, request));
        let mut leg = Self::new(id, Role::Server, dialog, State::Incoming(incoming));
        leg.note_methods(&request.headers);
        leg.is_news(request.body());
        leg.transactions = 1;
        leg.merge_key = Some(merge_key);
        leg
    }

    /// Refuses the INVITE with 300 … 699.
    pub(crate) fn reject(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        status: u16,
        reason: Option<&str>,
        headers: Vec<Header>,
    ) -> Result<(), LegError> {
        let invite = self.incoming_invite()?;
        if !(300..=699).contains(&status) {
            return Err(LegError::Status(status));
        }
        if let Some(mut response) = core.response(&invite, status, reason, self.dialog.local_tag) {
            headers
                .into_iter()
                .for_each(|row| response.headers.push(row));
            set_body(&mut response.headers, &Bytes::new());
            core.respond(now, &invite, response);
        }
        self.end(core, now, EndedBy::Refused, None);
        Ok(())
    }

    fn incoming_invite(&self) -> Result<Key, LegError> {
        match &self.state {
            State::Incoming(incoming) => Ok(incoming.invite.clone()),
            State::Terminated(_) => Err(LegError::UnknownLeg),
            _ => Err(LegError::WrongState),
        }
    }

    /// A response that shapes the dialog: `Contact`, and every `Record-Route` as it came
    /// (RFC 3261 §12.1.1).
    pub(super) fn dialog_response(
        &self,
        core: &Core,
        key: &Key,
        status: u16,
        sdp: &Bytes,
    ) -> Result<Response, LegError> {
        let tag = self.dialog.local_tag;
        let mut response = core
            .response(key, status, None, tag)
            .ok_or(LegError::WrongState)?;
        if let Some(request) = core.server_request(key) {
            for row in request.headers.get_all(&HeaderName::RecordRoute) {
                response.headers.push(row.clone());
            }
        }
        let headers = &mut response.headers;
        headers.push(header(HeaderName::Contact, self.dialog.contact.clone()));
        headers.push(header(HeaderName::Allow, ALLOW));
        headers.push(header(HeaderName::Supported, SUPPORTED));
        set_body(headers, sdp);
        response.set_body(sdp.clone());
        Ok(response)
    }

    /// Sends the 2xx to an INVITE or re-INVITE and begins to wait for the ACK, which brings the
    /// answer when the 2xx makes an offer.
    pub(super) fn accept_invite(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        key: &Key,
        sdp: &Bytes,
        made_offer: bool,
    ) -> Result<PendingAck, LegError> {
        let mut response = self.dialog_response(core, key, 200, sdp)?;
        let request = core.server_request(key).ok_or(LegError::WrongState)?;
        let cseq = match request.headers.typed::<CSeq>() {
            Some(Ok(cseq)) => cseq.sequence,
            _ => return Err(LegError::WrongState),
        };
        let asked = request.headers.clone();
        for row in self.accept_terms(core, now, &asked) {
            response.headers.push(row);
        }
        let (response, flow) = core
            .respond(now, key, response)
            .ok_or(LegError::WrongState)?;
        let interval = core.config.timers.t1;
        Ok(PendingAck {
            cseq,
            response,
            flow,
            interval,
            give_up_at: after(now, core.config.timers.timeout()),
            timer: core.set_leg_timer(after(now, interval), self.id, LegTimer::RepeatAnswer),
            made_offer,
        })
    }

    /// The CANCEL of the INVITE `key` came; its own 200 is sent.
    pub(crate) fn handle_cancel(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        key: &Key,
        cause: EndCause,
    ) {
        match &self.state {
            State::Incoming(incoming) if incoming.invite == *key => {
                self.refuse(core, now, key, 487);
                self.end_by_peer(core, now, EndedBy::Cancelled, cause);
            }
            State::Confirmed(Negotiation::PeerOffer { request, .. }) if request == key => {
                self.refuse(core, now, key, 487);
                self.state = State::Confirmed(Negotiation::Idle);
                core.emit(AgentEvent::OfferCancelled { leg: self.id });
            }
            // The final response crossed it (RFC 3261 §9.2): no effect.
            _ => {}
        }
    }

    /// The ACK to a 2xx of ours.
    pub(crate) fn handle_ack(&mut self, core: &mut Core, now: MonoTime, ack: &Request) {
        let Some(Ok(CSeq { sequence, .. })) = ack.headers.typed::<CSeq>() else {
            return;
        };
        let sdp = Body::sdp_of(&ack.headers, ack.body());
        self.acknowledged(core, now, Some(sequence), sdp);
    }

    /// The peer has our 2xx: its ACK says so, or (`sequence` is `None`) a request that it sends
    /// only then.
    pub(super) fn acknowledged(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        sequence: Option<u32>,
        sdp: Option<Bytes>,
    ) {
        let fits = |pending: &PendingAck| sequence.is_none_or(|number| number == pending.cseq);
        match &self.state {
            State::Answered(pending) if fits(pending) => {
                core.cancel_timer(pending.timer);
                let sdp = sdp.filter(|_| pending.made_offer);
                self.state = State::Confirmed(Negotiation::Idle);
                if let Some(sdp) = &sdp {
                    self.is_news(sdp);
                }
                core.emit(AgentEvent::Confirmed { leg: self.id, sdp });
            }
            State::Confirmed(Negotiation::AwaitingAck(pending)) if fits(pending) => {
                core.cancel_timer(pending.timer);
                let sdp = sdp.filter(|_| pending.made_offer);
                self.state = State::Confirmed(Negotiation::Idle);
                if let Some(sdp) = sdp {
                    self.is_news(&sdp);
                    core.emit(AgentEvent::AnswerInAck { leg: self.id, sdp });
                }
            }
            State::Terminated(Aftermath::ByeOwed { pending, .. }) if fits(pending) => {
                core.cancel_timer(pending.timer);
                self.pay_owed_bye(core, now);
            }
            _ => {}
        }
    }

    fn pay_owed_bye(&mut self, core: &mut Core, now: MonoTime) {
        let nothing = State::Terminated(Aftermath::Nothing);
        if let State::Terminated(Aftermath::ByeOwed { reason, .. }) =
            std::mem::replace(&mut self.state, nothing)
        {
            self.send_bye(core, now, reason);
        }
    }

    pub(super) fn repeat_answer(&mut self, core: &mut Core, now: MonoTime) {
        let leg = self.id;
        let pending = match &mut self.state {
            State::Answered(pending)
            | State::Confirmed(Negotiation::AwaitingAck(pending))
            | State::Terminated(Aftermath::ByeOwed { pending, .. }) => pending,
            _ => return,
        };
        if now < pending.give_up_at {
            let timers = core.config.timers;
            pending.interval = timers.double_capped(pending.interval);
            let next = after(now, pending.interval).min(pending.give_up_at);
            pending.timer = core.set_leg_timer(next, leg, LegTimer::RepeatAnswer);
            let (flow, bytes) = (pending.flow.clone(), pending.response.clone());
            core.counters.retransmissions_sent += 1;
            core.transmit(flow, bytes);
        } else if self.is_terminated() {
            self.pay_owed_bye(core, now);
        } else {
            // RFC 3261 §13.3.1.4: the dialog is confirmed, but the session should go.
            self.send_bye(core, now, None);
            self.end(core, now, EndedBy::AckTimeout, None);
        }
    }

    pub(super) fn flow_moved(&mut self, flow: Flow) {
        self.dialog.flow = flow;
    }
}
