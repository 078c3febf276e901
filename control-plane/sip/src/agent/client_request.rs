//! Requests of ours outside dialogs: REGISTER, OPTIONS, MESSAGE and the like (RFC 3261 §8.1).
//!
//! ```text
//!   request() ─▶ REGISTER, CSeq 1
//!                401 ◀─                    answered here, when there are credentials
//!                REGISTER, CSeq 2, Authorization
//!   Event::Response ◀─ 200
//! ```

use std::sync::Arc;

use bytes::Bytes;
use sipx_sip::{Header, HeaderName, Headers, Method, Request, Response, TuEvent, Uri};
use thiserror::Error;
use trunkline_edge_api::MonoTime;

use super::core::{ClientOwner, ClientStep, ClientUser};
use super::{Agent, AgentEvent, ClientRequestId, NameAddr};
use crate::digest::ClientCredentials;
use crate::flow::Flow;
use crate::message::{self, LocalTag, MAX_FORWARDS, header};

/// A request to send outside any dialog.
#[derive(Debug, Clone)]
pub struct ClientRequest {
    /// The method; none that belongs to a session, see [`RequestError::Method`].
    pub method: Method,
    /// Request-URI: the registrar's domain, a trunk's address.
    pub target: Uri,
    /// The way to the first hop. Its `local` becomes `Via` and, for REGISTER, `Contact`.
    pub flow: Flow,
    /// `From`, without tag.
    pub from: NameAddr,
    /// `To`, without tag.
    pub to: NameAddr,
    /// Further headers. `Route` rows are the way through an outbound proxy. A `Contact` stands in
    /// for the one that a REGISTER has otherwise: the user part of `from` at the flow's `local`.
    /// A body needs its `Content-Type` here. What the agent writes itself is left out.
    pub headers: Vec<Header>,
    /// The body.
    pub body: Bytes,
    /// For a 401 or 407; without them it is reported like any other status.
    pub credentials: Option<Arc<ClientCredentials>>,
    /// Carries on an earlier request: RFC 3261 §10.2 wants all registrations of one contact under
    /// one Call-ID with rising numbers. `None` begins anew.
    pub sequence: Option<RequestSequence>,
}

/// The Call-ID that requests share, and the number of the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestSequence {
    /// `Call-ID`.
    pub call_id: Bytes,
    /// `CSeq` of the last request under it.
    pub cseq: u32,
}

/// Why a request outside dialogs was not sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RequestError {
    /// `transactions_max` is reached.
    #[error("too many transactions; raise transactions_max")]
    Overloaded,
    /// The request URI is neither sip nor sips.
    #[error("the target is not a SIP URI")]
    Target,
    /// INVITE, ACK, CANCEL, BYE, PRACK, UPDATE and INFO belong to legs.
    #[error("{0} is not a request outside dialogs")]
    Method(String),
}

/// A request whose final response is awaited.
#[derive(Debug)]
pub(super) struct PendingRequest {
    credentials: Option<Arc<ClientCredentials>>,
    sequence: RequestSequence,
}

impl Agent {
    /// Sends a request outside any dialog. [`AgentEvent::Response`] follows once, after 64·T1 at
    /// the latest for every attempt that a challenge causes.
    ///
    /// # Errors
    /// See [`RequestError`]; nothing was sent then.
    pub fn request(
        &mut self,
        now: MonoTime,
        request: ClientRequest,
    ) -> Result<ClientRequestId, RequestError> {
        if !request.target.scheme().is_sip() {
            return Err(RequestError::Target);
        }
        if matches!(
            request.method,
            Method::Invite
                | Method::Ack
                | Method::Cancel
                | Method::Bye
                | Method::Prack
                | Method::Update
                | Method::Info
        ) {
            return Err(RequestError::Method(request.method.to_string()));
        }
        if self.core.is_full() {
            return Err(RequestError::Overloaded);
        }
        let sequence = match request.sequence {
            Some(RequestSequence { call_id, cseq }) => RequestSequence {
                call_id,
                cseq: cseq.saturating_add(1),
            },
            None => RequestSequence {
                call_id: self.core.new_call_id(),
                cseq: 1,
            },
        };
        self.next_id += 1;
        let id = ClientRequestId(self.next_id);
        let tag = LocalTag(self.core.random());
        let branch = self.core.random();

        let mut out = Request::new(
            request.method.clone(),
            crate::dialog::without_headers(request.target),
        );
        let headers = &mut out.headers;
        headers.push(header(
            HeaderName::Via,
            message::via_value(&request.flow, branch),
        ));
        headers.push(header(HeaderName::MaxForwards, MAX_FORWARDS.to_string()));
        let from = message::name_addr_value(&request.from);
        headers.push(header(HeaderName::From, message::tagged_value(&from, tag)));
        headers.push(header(
            HeaderName::To,
            message::name_addr_value(&request.to),
        ));
        headers.push(header(HeaderName::CallId, sequence.call_id.clone()));
        headers.push(header(
            HeaderName::CSeq,
            format!("{} {}", sequence.cseq, request.method),
        ));
        push_users(headers, request.headers);
        if request.method == Method::Register && headers.get(&HeaderName::Contact).is_none() {
            let is_secure = out.uri.scheme().is_secure();
            let user = request.from.uri.user();
            let contact = message::contact_value(user, &request.flow, is_secure);
            headers.push(header(HeaderName::Contact, contact));
        }
        headers.push(header(HeaderName::UserAgent, self.core.product.clone()));
        let length = request.body.len().to_string();
        headers.push(header(HeaderName::ContentLength, length));
        out.set_body(request.body);

        let owner = ClientOwner::new(ClientUser::Request(id), sequence.cseq);
        let pending = PendingRequest {
            credentials: request.credentials,
            sequence,
        };
        self.requests.insert(id, pending);
        self.core.send_request(now, out, request.flow, owner);
        self.settle();
        Ok(id)
    }

    /// What came of a request outside dialogs.
    pub(super) fn on_request_event(
        &mut self,
        now: MonoTime,
        id: ClientRequestId,
        step: ClientStep,
    ) {
        let (status, response) = match step.event {
            TuEvent::Response(response) if response.status.is_provisional() => return,
            TuEvent::Response(response) => {
                if let Some(again) = step.again
                    && self.answer_challenge(now, id, step.owner, again, &response)
                {
                    return;
                }
                (response.status.code(), Some(response))
            }
            TuEvent::Timeout => (408, None),
            TuEvent::TransportError => (503, None),
            _ => return,
        };
        if let Some(pending) = self.requests.remove(&id) {
            self.core.emit(AgentEvent::Response {
                id,
                status,
                response,
                sequence: pending.sequence,
            });
        }
    }

    /// Sends the request again with what a 401 or 407 asks for.
    fn answer_challenge(
        &mut self,
        now: MonoTime,
        id: ClientRequestId,
        mut owner: ClientOwner,
        (mut request, flow): (Request, Flow),
        response: &Response,
    ) -> bool {
        let Some(pending) = self.requests.get_mut(&id) else {
            return false;
        };
        let Some(credentials) = &pending.credentials else {
            return false;
        };
        if !matches!(response.status.code(), 401 | 407)
            || !self
                .core
                .authorize(&mut request, response, credentials, &mut owner.answers)
        {
            return false;
        }
        pending.sequence.cseq = pending.sequence.cseq.saturating_add(1);
        owner.cseq = pending.sequence.cseq;
        self.core.renew(&mut request, &flow, owner.cseq);
        self.core.send_request(now, request, flow, owner);
        true
    }
}

/// Adds the rows of the agent's user, those left out that the agent writes itself.
fn push_users(headers: &mut Headers, rows: Vec<Header>) {
    for row in rows {
        let is_ours = matches!(
            row.name(),
            HeaderName::Via
                | HeaderName::MaxForwards
                | HeaderName::RecordRoute
                | HeaderName::From
                | HeaderName::To
                | HeaderName::CallId
                | HeaderName::CSeq
                | HeaderName::UserAgent
                | HeaderName::ContentLength
        );
        if !is_ours {
            headers.push(row);
        }
    }
}
