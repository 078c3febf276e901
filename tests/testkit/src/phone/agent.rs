//! The phone without its socket: what comes in goes through [`Core::handle_message`] and
//! [`Core::handle_timeout`], what goes out waits in the outbox.
//!
//! The transactions are the simplest that RFC 3261 §17 allows: a request is sent again at
//! doubling intervals until any response (INVITE) or the final one (others) comes; a request
//! seen before gets the response it got before.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sipx_sip::auth::{self, Challenge, Credentials};
use sipx_sip::{HeaderName, Headers, Message, Method, Request, Response};

use super::call::{CallRecord, EndCause, Phase, Repeat};
use super::message::{self, Draft};
use super::{DigestChoice, random_hex};
use crate::sdp::AudioDescription;

/// RFC 3261 §17.1.1.1.
const T1: Duration = Duration::from_millis(500);
/// RFC 3261 §17.1.2.2.
const T2: Duration = Duration::from_secs(4);
/// 64·T1: how long anything is tried.
const GIVE_UP: Duration = Duration::from_secs(32);

/// Messages kept for a failure's artefacts.
const TRACE_MAX: usize = 4096;

pub(super) struct Core {
    pub(super) user: String,
    pub(super) domain: String,
    pub(super) contact: String,
    pub(super) via: String,
    pub(super) server: SocketAddr,
    pub(super) reliable: bool,
    pub(super) credentials: Option<Credentials>,
    pub(super) digest: DigestChoice,
    pub(super) clients: HashMap<String, ClientTransaction>,
    servers: HashMap<(String, Vec<u8>), ServerTransaction>,
    pub(super) calls: HashMap<String, CallRecord>,
    pub(super) arrived: VecDeque<String>,
    pub(super) outbox: Vec<(SocketAddr, Bytes)>,
    pub(super) trace: VecDeque<String>,
    pub(super) malformed: usize,
    pub(super) closed: bool,
    /// Repeated requests that got their earlier response again.
    pub(super) repeated_requests: usize,
    started: Instant,
}

pub(super) struct ClientTransaction {
    draft: Draft,
    call: Option<String>,
    repeat: Option<Repeat>,
    gives_up: Instant,
    authorized: bool,
    pub(super) outcome: Option<Outcome>,
    /// The transaction that took over after a challenge.
    pub(super) successor: Option<String>,
}

/// How a request ended.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    Final(Box<Response>),
    TimedOut,
}

struct ServerTransaction {
    response: Option<(SocketAddr, Bytes)>,
    /// A final response to an INVITE is sent again until its ACK (RFC 3261 §17.2.1).
    repeat: Option<Repeat>,
}

impl Core {
    #[expect(clippy::too_many_arguments, reason = "called once, by the shell")]
    pub(super) fn new(
        user: String,
        domain: String,
        contact: String,
        via: String,
        server: SocketAddr,
        reliable: bool,
        credentials: Option<Credentials>,
        digest: DigestChoice,
    ) -> Self {
        Self {
            user,
            domain,
            contact,
            via,
            server,
            reliable,
            credentials,
            digest,
            clients: HashMap::new(),
            servers: HashMap::new(),
            calls: HashMap::new(),
            arrived: VecDeque::new(),
            outbox: Vec::new(),
            trace: VecDeque::new(),
            malformed: 0,
            closed: false,
            repeated_requests: 0,
            started: Instant::now(),
        }
    }

    pub(super) fn address_of_record(&self) -> String {
        format!("sip:{}@{}", self.user, self.domain)
    }

    pub(super) fn send(&mut self, to: SocketAddr, bytes: Bytes) {
        self.note("->", &to, &bytes);
        self.outbox.push((to, bytes));
    }

    fn note(&mut self, arrow: &str, peer: &SocketAddr, bytes: &[u8]) {
        if self.trace.len() == TRACE_MAX {
            self.trace.pop_front();
        }
        self.trace.push_back(format!(
            "{:.3} {arrow} {peer}\n{}",
            self.started.elapsed().as_secs_f64(),
            String::from_utf8_lossy(bytes)
        ));
    }

    /// Begins a client transaction and returns its branch.
    pub(super) fn start(
        &mut self,
        now: Instant,
        draft: Draft,
        to: SocketAddr,
        call: Option<String>,
    ) -> String {
        let branch = format!("z9hG4bK{}", random_hex());
        let bytes = draft.encode(&self.via, &branch);
        let repeat = (!self.reliable).then(|| Repeat {
            bytes: bytes.clone(),
            to,
            next: now + T1,
            interval: T1,
            until: now + GIVE_UP,
        });
        self.clients.insert(
            branch.clone(),
            ClientTransaction {
                draft,
                call,
                repeat,
                gives_up: now + GIVE_UP,
                authorized: false,
                outcome: None,
                successor: None,
            },
        );
        self.send(to, bytes);
        branch
    }

    pub(super) fn handle_message(&mut self, now: Instant, from: SocketAddr, message: Message) {
        self.note("<-", &from, &message.to_bytes());
        match message {
            Message::Request(request) => self.handle_request(now, from, request),
            Message::Response(response) => self.handle_response(now, from, response),
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let mut due: Vec<(SocketAddr, Bytes)> = Vec::new();
        let mut dead_calls: Vec<String> = Vec::new();
        for transaction in self.clients.values_mut() {
            repeat_if_due(now, &mut transaction.repeat, &mut due);
            if transaction.outcome.is_none() && now >= transaction.gives_up {
                transaction.outcome = Some(Outcome::TimedOut);
                if transaction.draft.method == "INVITE" {
                    dead_calls.extend(transaction.call.clone());
                }
            }
        }
        for transaction in self.servers.values_mut() {
            repeat_if_due(now, &mut transaction.repeat, &mut due);
        }
        for (id, call) in &mut self.calls {
            repeat_if_due(now, &mut call.unconfirmed, &mut due);
            if call.phase == Phase::Unconfirmed && call.unconfirmed.is_none() {
                dead_calls.push(id.clone());
            }
        }
        for id in dead_calls {
            if let Some(call) = self.calls.get_mut(&id) {
                call.end(now, EndCause::TimedOut);
            }
        }
        for (to, bytes) in due {
            self.send(to, bytes);
        }
    }

    fn handle_response(&mut self, now: Instant, from: SocketAddr, response: Response) {
        let Some(branch) = message::branch(&response.headers) else {
            return;
        };
        let Some(transaction) = self.clients.get_mut(&branch) else {
            return;
        };
        let status = response.status.code();
        let invite = transaction.draft.method == "INVITE";
        let method = message::cseq(&response.headers).map(|cseq| cseq.method);
        if method.is_none_or(|method| method.as_bytes() != transaction.draft.method.as_bytes()) {
            // The answer to a CANCEL, which borrows the branch of its INVITE.
            transaction.repeat = None;
            return;
        }
        if status >= 200 || invite {
            transaction.repeat = None;
        }
        if status < 200 {
            if invite && let Some(id) = transaction.call.clone() {
                self.provisional(now, &id, &response);
            }
            return;
        }
        if invite && status >= 300 {
            self.acknowledge_failure(from, &branch, &response);
        }
        let Some(transaction) = self.clients.get_mut(&branch) else {
            return;
        };
        if transaction.outcome.is_some() {
            if invite && (200..300).contains(&status) {
                self.acknowledge_again(transaction_call(&self.clients, &branch));
            }
            return;
        }
        if matches!(status, 401 | 407)
            && !transaction.authorized
            && let Some(answer) = self.authorize(&branch, &response)
        {
            self.resend_authorized(now, &branch, answer);
            return;
        }
        let call = transaction_call(&self.clients, &branch);
        if let Some(transaction) = self.clients.get_mut(&branch) {
            transaction.outcome = Some(Outcome::Final(Box::new(response.clone())));
        }
        if invite && let Some(id) = call {
            self.invite_answered(now, from, &id, &branch, &response);
        }
    }

    fn provisional(&mut self, now: Instant, id: &str, response: &Response) {
        let status = response.status.code();
        let Some(call) = self.calls.get_mut(id) else {
            return;
        };
        if call.phase != Phase::Setup {
            return;
        }
        call.provisionals.push(status);
        if status > 100 {
            call.timings.ringing.get_or_insert(now);
            call.learn_from_response(&response.headers, response.body());
        }
        if call.cancel_wanted {
            self.send_cancel(now, id);
        }
    }

    /// A final response to an INVITE or re-INVITE of ours.
    fn invite_answered(
        &mut self,
        now: Instant,
        from: SocketAddr,
        id: &str,
        branch: &str,
        response: &Response,
    ) {
        let status = response.status.code();
        let Some(call) = self.calls.get_mut(id) else {
            return;
        };
        let initial = call.invite_branch == branch;
        if status >= 300 {
            if initial {
                call.final_headers = Some(response.headers.clone());
                call.end(now, EndCause::Rejected(status));
            }
            return;
        }
        call.learn_from_response(&response.headers, response.body());
        let cancelled = initial && call.cancel_wanted;
        if initial {
            call.final_headers = Some(response.headers.clone());
            call.timings.answered = Some(now);
            call.phase = Phase::Established;
        }
        let cseq = message::cseq(&response.headers).map_or(1, |cseq| cseq.sequence);
        let ack = Draft {
            method: "ACK",
            uri: call.remote_target.clone(),
            from: call.local_party.clone(),
            to: call.remote_party.clone(),
            call_id: id.to_owned(),
            cseq,
            routes: call.routes.clone(),
            headers: Vec::new(),
            sdp: None,
        };
        let to = call.next_hop().unwrap_or(from);
        let bytes = ack.encode(&self.via, &format!("z9hG4bK{}", random_hex()));
        call.ack = Some((to, bytes.clone()));
        self.send(to, bytes);
        if cancelled {
            // The answer crossed our CANCEL: the call stands and must be hung up.
            self.send_bye(now, id);
        }
    }

    fn acknowledge_again(&mut self, id: Option<String>) {
        let ack = id
            .and_then(|id| self.calls.get(&id))
            .and_then(|call| call.ack.clone());
        if let Some((to, bytes)) = ack {
            self.send(to, bytes);
        }
    }

    /// ACK to a 300 … 699, in the transaction of the INVITE (RFC 3261 §17.1.1.3).
    fn acknowledge_failure(&mut self, from: SocketAddr, branch: &str, response: &Response) {
        let Some(transaction) = self.clients.get(branch) else {
            return;
        };
        let invite = &transaction.draft;
        let ack = Draft {
            method: "ACK",
            uri: invite.uri.clone(),
            from: invite.from.clone(),
            to: message::text(&response.headers, &HeaderName::To).unwrap_or_default(),
            call_id: invite.call_id.clone(),
            cseq: invite.cseq,
            routes: invite.routes.clone(),
            headers: Vec::new(),
            sdp: None,
        };
        let bytes = ack.encode(&self.via, branch);
        self.send(from, bytes);
    }

    /// The credentials header that answers a 401 or 407, if this phone has an answer.
    fn authorize(&self, branch: &str, response: &Response) -> Option<(String, String)> {
        let credentials = self.credentials.as_ref()?;
        let draft = &self.clients.get(branch)?.draft;
        let from_proxy = response.status.code() == 407;
        let name = if from_proxy {
            HeaderName::ProxyAuthenticate
        } else {
            HeaderName::WwwAuthenticate
        };
        let challenges: Vec<Challenge> = response
            .headers
            .get_all(&name)
            .filter_map(|header| Challenge::parse(&header.value(), from_proxy))
            .collect();
        let challenge = match self.digest {
            DigestChoice::Strongest => auth::strongest(challenges),
            DigestChoice::Only(algorithm) => challenges
                .into_iter()
                .find(|challenge| challenge.algorithm == algorithm),
        }?;
        let value = auth::respond(
            &challenge,
            credentials,
            draft.method,
            &draft.uri,
            1,
            &random_hex(),
        );
        let header = if from_proxy {
            "Proxy-Authorization"
        } else {
            "Authorization"
        };
        Some((header.to_owned(), value))
    }

    fn resend_authorized(&mut self, now: Instant, branch: &str, answer: (String, String)) {
        let Some(transaction) = self.clients.get(branch) else {
            return;
        };
        let mut draft = transaction.draft.clone();
        let call = transaction.call.clone();
        draft.cseq += 1;
        draft.headers.push(answer);
        let to = self.server;
        let cseq = draft.cseq;
        let successor = self.start(now, draft, to, call.clone());
        if let Some(id) = call
            && let Some(call) = self.calls.get_mut(&id)
        {
            call.cseq = cseq;
            call.invite_branch = successor.clone();
        }
        if let Some(transaction) = self.clients.get_mut(&successor) {
            transaction.authorized = true;
        }
        if let Some(transaction) = self.clients.get_mut(branch) {
            transaction.successor = Some(successor);
        }
    }

    fn handle_request(&mut self, now: Instant, from: SocketAddr, request: Request) {
        let (Some(branch), Some(cseq)) = (
            message::branch(&request.headers),
            message::cseq(&request.headers),
        ) else {
            self.malformed += 1;
            return;
        };
        let id = message::text(&request.headers, &HeaderName::CallId).unwrap_or_default();
        if request.method == Method::Ack {
            self.handle_ack(now, &branch, &id, cseq.sequence);
            return;
        }
        let key = (branch, request.method.as_bytes().to_vec());
        if let Some(known) = self.servers.get(&key) {
            self.repeated_requests += 1;
            if let Some((to, bytes)) = known.response.clone() {
                self.send(to, bytes);
            }
            return;
        }
        self.servers.insert(
            key,
            ServerTransaction {
                response: None,
                repeat: None,
            },
        );
        match request.method {
            Method::Invite => self.handle_invite(now, from, &id, cseq.sequence, request),
            Method::Cancel => self.handle_cancel(now, from, &id, &request),
            Method::Bye => {
                let status = match self.calls.get_mut(&id) {
                    Some(call) => {
                        call.end(now, EndCause::RemoteBye);
                        200
                    }
                    None => 481,
                };
                self.respond(now, from, &request, status, None, None);
            }
            Method::Info => {
                let status = match self.calls.get_mut(&id) {
                    Some(call) => {
                        let body = String::from_utf8_lossy(request.body()).into_owned();
                        call.infos.push(body);
                        200
                    }
                    None => 481,
                };
                self.respond(now, from, &request, status, None, None);
            }
            Method::Options => self.respond(now, from, &request, 200, None, None),
            _ => self.respond(now, from, &request, 405, None, None),
        }
    }

    fn handle_ack(&mut self, _now: Instant, branch: &str, id: &str, cseq: u32) {
        let key = (branch.to_owned(), b"INVITE".to_vec());
        if let Some(transaction) = self.servers.get_mut(&key) {
            transaction.repeat = None;
        }
        if let Some(call) = self.calls.get_mut(id)
            && cseq == call.remote_cseq
            && call.unconfirmed.take().is_some()
            && call.phase == Phase::Unconfirmed
        {
            call.phase = Phase::Established;
        }
    }

    fn handle_invite(
        &mut self,
        now: Instant,
        from: SocketAddr,
        id: &str,
        cseq: u32,
        request: Request,
    ) {
        let in_dialog = message::tag_of(&request.headers, &HeaderName::To).is_some();
        if in_dialog {
            self.handle_reinvite(now, from, id, cseq, &request);
            return;
        }
        self.respond(now, from, &request, 100, None, None);
        // The listening address is filled in when the call is answered.
        let nowhere = AudioDescription::pcmu(SocketAddr::from(([0, 0, 0, 0], 0)));
        let mut call = CallRecord::new(now, random_hex(), nowhere);
        call.learn_from_invite(&request, from);
        self.calls.insert(id.to_owned(), call);
        self.arrived.push_back(id.to_owned());
    }

    fn handle_reinvite(
        &mut self,
        now: Instant,
        from: SocketAddr,
        id: &str,
        cseq: u32,
        request: &Request,
    ) {
        let Some(call) = self.calls.get_mut(id) else {
            self.respond(now, from, request, 481, None, None);
            return;
        };
        call.remote_cseq = cseq;
        if let Some(contact) = message::contact(&request.headers) {
            call.remote_target = contact;
        }
        call.local_media.origin.1 += 1;
        let answer = match AudioDescription::parse(request.body()) {
            Some(offer) => {
                let answer = call.local_media.answer_to(&offer);
                call.remote_media = Some(offer.clone());
                call.reoffers.push(offer);
                answer
            }
            None => call.local_media.clone(),
        };
        self.respond(now, from, request, 200, None, Some(answer.to_sdp()));
    }

    fn handle_cancel(&mut self, now: Instant, from: SocketAddr, id: &str, request: &Request) {
        let invite = self
            .calls
            .get_mut(id)
            .filter(|call| call.phase == Phase::Setup)
            .and_then(|call| {
                call.end(now, EndCause::RemoteCancel);
                call.invite.clone()
            });
        let status = if invite.is_some() { 200 } else { 481 };
        self.respond(now, from, request, status, None, None);
        if let Some((invite, from)) = invite {
            let tag = self.calls.get(id).map(|call| call.local_tag.clone());
            self.respond(now, from, &invite, 487, tag, None);
        }
    }

    /// Answers `request` and remembers the answer for when it comes again.
    pub(super) fn respond(
        &mut self,
        now: Instant,
        to: SocketAddr,
        request: &Request,
        status: u16,
        tag: Option<String>,
        sdp: Option<String>,
    ) {
        let invite = request.method == Method::Invite;
        let mut headers: Vec<(String, String)> = Vec::new();
        if invite && (101..300).contains(&status) {
            headers.push(("Contact".to_owned(), format!("<{}>", self.contact)));
        }
        let id = message::text(&request.headers, &HeaderName::CallId).unwrap_or_default();
        let tag = match (tag, self.calls.get(&id)) {
            (Some(tag), _) => tag,
            (None, Some(call)) => call.local_tag.clone(),
            (None, None) => random_hex(),
        };
        let tag = (status > 100).then_some(tag);
        let bytes = message::response(request, status, tag.as_deref(), &headers, sdp.as_deref());
        let repeat = (!self.reliable).then(|| Repeat {
            bytes: bytes.clone(),
            to,
            next: now + T1,
            interval: T1,
            until: now + GIVE_UP,
        });
        if let Some(branch) = message::branch(&request.headers) {
            let key = (branch, request.method.as_bytes().to_vec());
            let transaction = self.servers.entry(key).or_insert(ServerTransaction {
                response: None,
                repeat: None,
            });
            transaction.response = Some((to, bytes.clone()));
            if invite && status >= 300 {
                transaction.repeat = repeat;
            } else if invite
                && status >= 200
                && let Some(call) = self.calls.get_mut(&id)
            {
                // Over TCP too a 2xx is repeated (RFC 3261 §13.3.1.4): it may have to cross
                // another hop over UDP.
                call.unconfirmed = Some(Repeat {
                    bytes: bytes.clone(),
                    to,
                    next: now + T1,
                    interval: T1,
                    until: now + GIVE_UP,
                });
            }
        }
        self.send(to, bytes);
    }

    pub(super) fn send_cancel(&mut self, now: Instant, id: &str) {
        let Some(call) = self.calls.get(id) else {
            return;
        };
        let branch = call.invite_branch.clone();
        let Some(transaction) = self.clients.get(&branch) else {
            return;
        };
        let invite = transaction.draft.clone();
        let cancel = Draft {
            method: "CANCEL",
            headers: Vec::new(),
            sdp: None,
            ..invite
        };
        // CANCEL has the branch of the INVITE (RFC 3261 §9.1); as nothing but its 200 follows,
        // it is sent once more by hand rather than in a transaction of its own.
        let bytes = cancel.encode(&self.via, &branch);
        let to = self.server;
        self.send(to, bytes.clone());
        if !self.reliable
            && let Some(transaction) = self.clients.get_mut(&branch)
        {
            transaction.repeat = Some(Repeat {
                bytes,
                to,
                next: now + T1,
                interval: T1,
                until: now + T1 + T1,
            });
        }
    }

    /// Sends BYE and returns its branch.
    pub(super) fn send_bye(&mut self, now: Instant, id: &str) -> Option<String> {
        let draft = self.in_dialog(id, "BYE", None)?;
        let call = self.calls.get_mut(id)?;
        call.end(now, EndCause::LocalBye);
        let to = call.next_hop().unwrap_or(self.server);
        Some(self.start(now, draft, to, Some(id.to_owned())))
    }

    /// A request inside the dialog: addressed to the remote target along the route set.
    pub(super) fn in_dialog(
        &mut self,
        id: &str,
        method: &'static str,
        sdp: Option<String>,
    ) -> Option<Draft> {
        let contact = format!("<{}>", self.contact);
        let call = self.calls.get_mut(id)?;
        call.cseq += 1;
        let headers = if method == "INVITE" {
            vec![("Contact".to_owned(), contact)]
        } else {
            Vec::new()
        };
        Some(Draft {
            method,
            uri: call.remote_target.clone(),
            from: call.local_party.clone(),
            to: call.remote_party.clone(),
            call_id: id.to_owned(),
            cseq: call.cseq,
            routes: call.routes.clone(),
            headers,
            sdp,
        })
    }
}

fn transaction_call(clients: &HashMap<String, ClientTransaction>, branch: &str) -> Option<String> {
    clients.get(branch)?.call.clone()
}

fn repeat_if_due(now: Instant, repeat: &mut Option<Repeat>, due: &mut Vec<(SocketAddr, Bytes)>) {
    let Some(waiting) = repeat else {
        return;
    };
    if now >= waiting.until {
        *repeat = None;
    } else if now >= waiting.next {
        due.push((waiting.to, waiting.bytes.clone()));
        waiting.interval = (waiting.interval * 2).min(T2);
        waiting.next = now + waiting.interval;
    }
}

/// A header of a message that has come in, as text.
pub(super) fn header_text(headers: &Headers, name: &str) -> Option<String> {
    let name = HeaderName::parse(&Bytes::copy_from_slice(name.as_bytes()));
    message::text(headers, &name)
}
