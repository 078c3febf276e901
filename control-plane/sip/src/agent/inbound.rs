//! What comes in: which transaction, dialog or leg a message belongs to, and what is refused
//! before it costs anything.

use bytes::Bytes;
use sipx_sip::headers::{CSeq, From, MaxForwards, To};
use sipx_sip::validate::Finding;
use sipx_sip::{
    HeaderName, Method, Request, Response, Scheme, TransactionKey, TuEvent, Via, validate_request,
};
use trunkline_edge_api::MonoTime;

use super::core::ServerOwner;
use super::{Agent, AgentEvent, EndCause, ServerRequestId, SipLegId};
use crate::dialog::{Dialog, NoDialog};
use crate::flow::Flow;
use crate::leg::{LEG_TRANSACTIONS_MAX, Leg, terms_of};
use crate::message::{ACCEPT, ALLOW, Body, LocalTag, stamp_via, unsupported_options};
use crate::replaces::{MalformedReplaces, Replaces};

/// `Retry-After` of a 503, in seconds: long enough for a burst to pass, short enough for a carrier
/// to come back before it looks for another route.
const RETRY_AFTER_SECS: &str = "5";

/// How a request is refused without a transaction.
struct Refusal {
    status: u16,
    reason: Option<&'static str>,
    extra: Option<(HeaderName, String)>,
}

impl Refusal {
    fn new(status: u16) -> Self {
        Self {
            status,
            reason: None,
            extra: None,
        }
    }

    fn because(status: u16, reason: &'static str) -> Self {
        Self {
            reason: Some(reason),
            ..Self::new(status)
        }
    }

    fn with(status: u16, name: HeaderName, value: impl Into<String>) -> Self {
        Self {
            extra: Some((name, value.into())),
            ..Self::new(status)
        }
    }

    fn overload() -> Self {
        Self::with(503, HeaderName::RetryAfter, RETRY_AFTER_SECS)
    }
}

impl Agent {
    pub(super) fn handle_request(&mut self, now: MonoTime, flow: Flow, mut request: Request) {
        self.core.counters.requests_received.add(&request.method);
        let Ok(reply_flow) = stamp_via(&mut request.headers, &flow) else {
            self.core.counters.malformed += 1;
            return;
        };
        let Some(key) = TransactionKey::from_request(&request) else {
            self.core.counters.malformed += 1;
            return;
        };
        if request.method == Method::Ack {
            return self.handle_ack(now, &key, request);
        }
        if self.core.has_server(&key) {
            self.core.repeat_request(now, &key, request);
            return;
        }
        if let Err(refusal) = self.admit(now, &flow, &reply_flow, key, &request) {
            match refusal.status {
                400 | 505 => self.core.counters.malformed += 1,
                503 => self.core.counters.refused_overload += 1,
                _ => {}
            }
            self.core.respond_stateless(
                reply_flow,
                &request,
                refusal.status,
                refusal.reason,
                None,
                refusal.extra,
            );
        }
    }

    /// Finds or makes what a new request is for.
    fn admit(
        &mut self,
        now: MonoTime,
        flow: &Flow,
        reply_flow: &Flow,
        key: TransactionKey,
        request: &Request,
    ) -> Result<(), Refusal> {
        check_form(request)?;
        if request.method == Method::Cancel {
            return self.handle_cancel(now, reply_flow, request);
        }
        let to_tag = match request.headers.typed::<To>() {
            Some(Ok(to)) => to.tag().map(Bytes::copy_from_slice),
            _ => None,
        };
        match (&to_tag, &request.method) {
            // A registrar keeps no dialogs; a tag there is a client's whim.
            (Some(_), Method::Register) | (None, _) => {}
            (Some(tag), _) => {
                return self.handle_in_dialog(now, flow, reply_flow, key, request, tag);
            }
        }
        match request.method {
            Method::Invite => self.handle_invite(now, flow, reply_flow, key, request),
            Method::Register | Method::Options => {
                self.check_room()?;
                check_options(request)?;
                self.pass_up(now, flow, reply_flow, key, request);
                Ok(())
            }
            // These exist inside dialogs alone.
            Method::Bye | Method::Info | Method::Update | Method::Prack | Method::Notify => {
                self.core.counters.dialogs_unknown += 1;
                Err(Refusal::new(481))
            }
            // Who asks a stranger to call somebody has no call to be transferred.
            Method::Refer => Err(Refusal::new(403)),
            Method::Other(_) => Err(Refusal::with(501, HeaderName::Allow, ALLOW)),
            _ => Err(Refusal::with(405, HeaderName::Allow, ALLOW)),
        }
    }

    fn check_room(&self) -> Result<(), Refusal> {
        if self.core.is_full() {
            Err(Refusal::overload())
        } else {
            Ok(())
        }
    }

    /// REGISTER and OPTIONS.
    fn pass_up(
        &mut self,
        now: MonoTime,
        flow: &Flow,
        reply_flow: &Flow,
        key: TransactionKey,
        request: &Request,
    ) {
        self.next_id += 1;
        let id = ServerRequestId(self.next_id);
        let owner = ServerOwner::Request(id);
        let accepted =
            self.core
                .accept_request(now, key, request.clone(), reply_flow.clone(), owner);
        if let Some((_, request)) = accepted {
            self.core.emit(AgentEvent::Request {
                id,
                request,
                flow: flow.clone(),
            });
        }
    }

    /// An INVITE that forms a dialog.
    fn handle_invite(
        &mut self,
        now: MonoTime,
        flow: &Flow,
        reply_flow: &Flow,
        key: TransactionKey,
        request: &Request,
    ) -> Result<(), Refusal> {
        if let Some(Ok(MaxForwards(0))) = request.headers.typed::<MaxForwards>() {
            return Err(Refusal::new(483));
        }
        check_options(request)?;
        if Body::of(&request.headers, request.body()) == Body::Unsupported {
            return Err(Refusal::with(415, HeaderName::Accept, ACCEPT));
        }
        if let Err((status, least)) = terms_of(&self.core.config, &request.headers) {
            return Err(match least {
                Some(secs) => Refusal::with(status, HeaderName::MinSe, secs.to_string()),
                None => Refusal::because(status, "Bad Session-Expires"),
            });
        }
        let merge_key = merge_key(request);
        if self.by_merge_key.contains_key(&merge_key) || self.is_own_invite(request) {
            return Err(Refusal::new(482));
        }
        if self.live_legs >= self.core.config.legs_max {
            return Err(Refusal::overload());
        }
        self.check_room()?;
        let replaces = self.replaced_leg(request)?;
        let tag = self.free_tag();
        let dialog = Dialog::called(request, flow.clone(), tag)
            .map_err(|NoDialog(why)| Refusal::because(400, why))?;

        let id = self.take_leg_id();
        let owner = ServerOwner::Leg(id);
        let accepted =
            self.core
                .accept_request(now, key, request.clone(), reply_flow.clone(), owner);
        if let Some((key, request)) = accepted {
            self.keep_leg(
                id,
                tag,
                Leg::incoming(id, dialog, (key, &request), merge_key),
            );
            self.core.emit(AgentEvent::Invite {
                leg: id,
                request,
                flow: flow.clone(),
                replaces,
            });
        }
        Ok(())
    }

    /// Whether an INVITE of ours has come back as it was: a loop (RFC 3261 §16.3). One whose target
    /// was changed on its way is a call of its own; how often it may pass here is for
    /// `Max-Forwards` to say.
    fn is_own_invite(&self, request: &Request) -> bool {
        let Some(Ok(from)) = request.headers.typed::<From>() else {
            return false;
        };
        let leg = from
            .tag()
            .and_then(LocalTag::parse)
            .and_then(|tag| self.by_tag.get(&tag))
            .and_then(|id| self.legs.get(id));
        leg.is_some_and(|leg| leg.is_calling(&self.core, request))
    }

    /// The leg that an INVITE would take the place of.
    fn replaced_leg(&self, request: &Request) -> Result<Option<SipLegId>, Refusal> {
        let replaces = Replaces::of(&request.headers)
            .map_err(|MalformedReplaces| Refusal::because(400, "Bad Replaces"))?;
        replaces
            .map(|replaces| self.leg_of_dialog(&replaces))
            .transpose()
            .map_err(|error| Refusal::new(error.status()))
    }

    /// A request with a tag in `To`.
    fn handle_in_dialog(
        &mut self,
        now: MonoTime,
        flow: &Flow,
        reply_flow: &Flow,
        key: TransactionKey,
        request: &Request,
        to_tag: &[u8],
    ) -> Result<(), Refusal> {
        let Some(id) = self.leg_of(request, to_tag) else {
            self.core.counters.dialogs_unknown += 1;
            return Err(Refusal::new(481));
        };
        let Some(leg) = self.legs.get_mut(&id) else {
            return Err(Refusal::new(481));
        };
        if leg.transactions() >= LEG_TRANSACTIONS_MAX || self.core.is_exhausted() {
            let tag = Some(leg.dialog().local_tag);
            if request.method == Method::Bye
                && leg.handle_bye_in_passing(&mut self.core, now, request)
            {
                self.core
                    .respond_stateless(reply_flow.clone(), request, 200, None, tag, None);
                return Ok(());
            }
            return Err(Refusal::overload());
        }
        let owner = ServerOwner::Leg(id);
        leg.transaction_began();
        let accepted =
            self.core
                .accept_request(now, key, request.clone(), reply_flow.clone(), owner);
        if let Some((key, request)) = accepted {
            leg.handle_request(&mut self.core, now, &key, &request, flow.clone());
        }
        Ok(())
    }

    /// The leg a request of its peer belongs to: our tag, its tag and the Call-ID agree.
    fn leg_of(&self, request: &Request, to_tag: &[u8]) -> Option<SipLegId> {
        let id = *self.by_tag.get(&LocalTag::parse(to_tag)?)?;
        let dialog = self.legs.get(&id)?.dialog();
        let call_id = request.headers.value(&HeaderName::CallId)?;
        let from = request.headers.typed::<From>()?.ok()?;
        (call_id[..] == dialog.call_id[..] && dialog.is_remote_tag(from.tag())).then_some(id)
    }

    /// RFC 3261 §9.2. The CANCEL needs no transaction: every copy of it finds the same INVITE.
    fn handle_cancel(
        &mut self,
        now: MonoTime,
        reply_flow: &Flow,
        request: &Request,
    ) -> Result<(), Refusal> {
        let invite = TransactionKey::for_cancelled_invite(request)
            .and_then(|key| self.core.server_owner(&key));
        let Some((invite, ServerOwner::Leg(id))) = invite else {
            return Err(Refusal::new(481));
        };
        let Some(leg) = self.legs.get_mut(&id) else {
            return Err(Refusal::new(481));
        };
        let tag = Some(leg.dialog().local_tag);
        self.core
            .respond_stateless(reply_flow.clone(), request, 200, None, tag, None);
        let cause = EndCause::of(&request.headers);
        leg.handle_cancel(&mut self.core, now, &invite, cause);
        Ok(())
    }

    /// The ACK to a final response other than 2xx ends its transaction; one to a 2xx belongs to a
    /// leg.
    fn handle_ack(&mut self, now: MonoTime, key: &TransactionKey, ack: Request) {
        if self.core.has_server(key) {
            if let Some((ServerOwner::Leg(id), TuEvent::Ack(ack))) =
                self.core.repeat_request(now, key, ack)
                && let Some(leg) = self.legs.get_mut(&id)
            {
                // A peer that reuses the branch of its INVITE, as RFC 2543 had it.
                leg.handle_ack(&mut self.core, now, &ack);
            }
            return;
        }
        let leg = match ack.headers.typed::<To>() {
            Some(Ok(to)) => to.tag().and_then(|tag| self.leg_of(&ack, tag)),
            _ => None,
        };
        match leg.and_then(|id| self.legs.get_mut(&id)) {
            Some(leg) => leg.handle_ack(&mut self.core, now, &ack),
            None => self.core.counters.acks_unmatched += 1,
        }
    }

    pub(super) fn handle_response(&mut self, now: MonoTime, flow: &Flow, response: Response) {
        self.core.counters.responses_received.add(&response);
        match self.core.receive_response(now, response) {
            Ok(Some(step)) => self.on_client_step(now, step),
            Ok(None) => {}
            Err(response) => {
                self.core.counters.responses_unmatched += 1;
                self.dismiss_stray_answer(flow, &response);
            }
        }
    }

    /// A 2xx to an INVITE nobody remembers: the process that sent it is gone. Its sender is told
    /// to hang up, else it would hold the call for ever. ACK and BYE go back where the 2xx came
    /// from and nowhere else, so that nobody can aim them.
    fn dismiss_stray_answer(&mut self, flow: &Flow, response: &Response) {
        let Some(Ok(CSeq { sequence, method })) = response.headers.typed::<CSeq>() else {
            return;
        };
        let is_ours = matches!(
            response.headers.typed::<Via>(),
            Some(Ok(via)) if via.port.is_some_and(|port| {
                format!("{}:{port}", via.host) == flow.sent_by()
            })
        );
        if !response.status.is_success() || method != Method::Invite || !is_ours {
            return;
        }
        let Some(dialog) = Dialog::of_stray_answer(response, flow.clone()) else {
            return;
        };
        self.core.counters.late_answers += 1;
        for (method, cseq) in [
            (Method::Ack, sequence),
            (Method::Bye, sequence.saturating_add(1)),
        ] {
            let branch = self.core.random();
            let mut request = dialog.request_along_flow(method, cseq, branch);
            crate::message::set_body(&mut request.headers, &Bytes::new());
            self.core.transmit_request(flow.clone(), request);
        }
    }
}

/// What every request must have, RFC 3261 §8.1.1. A missing `Max-Forwards` is forgiven
/// (RFC 3261 §16.6 adds it, too).
fn check_form(request: &Request) -> Result<(), Refusal> {
    let findings = validate_request(request);
    if let Some(finding) = findings.iter().find(|finding| !finding.is_repairable()) {
        return Err(Refusal::because(finding.status(), reason_of(finding)));
    }
    match request.uri.scheme() {
        Scheme::Sip | Scheme::Sips | Scheme::Tel => Ok(()),
        _ => Err(Refusal::new(416)),
    }
}

fn reason_of(finding: &Finding) -> &'static str {
    match finding {
        Finding::MissingRequiredHeader("To") => "Missing To",
        Finding::MissingRequiredHeader("From") => "Missing From",
        Finding::MissingRequiredHeader("Call-ID") => "Missing Call-ID",
        Finding::MissingRequiredHeader("CSeq") => "Missing CSeq",
        Finding::MissingRequiredHeader(_) => "Missing Header",
        Finding::MalformedRequiredHeader("To") => "Bad To",
        Finding::MalformedRequiredHeader("From") => "Bad From",
        Finding::MalformedRequiredHeader("Call-ID") => "Bad Call-ID",
        Finding::MalformedRequiredHeader("CSeq") => "Bad CSeq",
        Finding::MalformedRequiredHeader("Max-Forwards") => "Bad Max-Forwards",
        Finding::RepeatedSingleValueHeader(_) => "Repeated Header",
        Finding::CSeqMethodMismatch => "CSeq Method Mismatch",
        Finding::UnsupportedVersion => "Version Not Supported",
        Finding::RequestUriHasHeaders => "Request-URI Has Headers",
        _ => "Bad Request",
    }
}

fn check_options(request: &Request) -> Result<(), Refusal> {
    match unsupported_options(request) {
        Some(options) => Err(Refusal::with(420, HeaderName::Unsupported, options)),
        None => Ok(()),
    }
}

/// Call-ID, `From` tag and `CSeq` number: equal in two requests, they are one that came by two
/// ways. The separator occurs in none of them.
fn merge_key(request: &Request) -> Bytes {
    let mut key = Vec::with_capacity(96);
    if let Some(call_id) = request.headers.value(&HeaderName::CallId) {
        key.extend_from_slice(&call_id);
    }
    key.push(b'\n');
    if let Some(Ok(from)) = request.headers.typed::<From>() {
        key.extend_from_slice(from.tag().unwrap_or_default());
    }
    key.push(b'\n');
    if let Some(Ok(cseq)) = request.headers.typed::<CSeq>() {
        key.extend_from_slice(&cseq.sequence.to_be_bytes());
    }
    Bytes::from(key)
}
