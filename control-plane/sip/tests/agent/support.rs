//! One agent, a clock that only the test moves, and peers written out as text.

use std::net::SocketAddr;

use bytes::Bytes;
use sipx_sip::{HeaderName, Limits, Message, Uri, parse_datagram};
use trunkline_edge_api::MonoTime;
use trunkline_sip::entropy::SeededEntropy;
use trunkline_sip::{
    Agent, AgentConfig, AgentEvent, ConnectionId, EndedBy, Flow, InviteRequest, NameAddr,
    ServerRequestId, SipLegId, Transmit,
};

pub(crate) const US: &str = "203.0.113.1:5060";
pub(crate) const PEER: &str = "198.51.100.9:5060";
pub(crate) const OFFER: &str = "v=0\r\no=peer 1 1 IN IP4 198.51.100.9\r\n";
pub(crate) const ANSWER: &str = "v=0\r\no=us 1 1 IN IP4 203.0.113.1\r\n";

/// 64·T1 and every timer that a transaction keeps after it, in milliseconds.
pub(crate) const ALL_TIMERS_MS: u64 = 3 * 32_000;

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().expect("valid address")
}

pub(crate) fn uri(text: &str) -> Uri {
    Uri::parse(Bytes::copy_from_slice(text.as_bytes())).expect("valid URI")
}

pub(crate) fn body(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn udp_flow() -> Flow {
    Flow::udp(address(US), address(PEER))
}

pub(crate) fn tcp_flow(connection: u64) -> Flow {
    Flow::tcp(
        address(US),
        address("198.51.100.9:40123"),
        Some(ConnectionId(connection)),
    )
}

/// What one of the agent's messages says.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) transmit: Transmit,
    pub(crate) message: Message,
    pub(crate) text: String,
}

impl Sent {
    /// `INVITE`, `200 INVITE`.
    pub(crate) fn label(&self) -> String {
        match &self.message {
            Message::Request(request) => request.method.to_string(),
            Message::Response(response) => {
                let cseq = self.header(HeaderName::CSeq);
                let method = cseq.split(' ').nth(1).unwrap_or_default().to_owned();
                format!("{} {method}", response.status)
            }
        }
    }

    pub(crate) fn header(&self, name: HeaderName) -> String {
        let value = self.message.headers().value(&name).unwrap_or_default();
        String::from_utf8_lossy(&value).into_owned()
    }

    pub(crate) fn headers(&self, name: HeaderName) -> Vec<String> {
        let rows = self.message.headers().get_all(&name);
        rows.map(|row| String::from_utf8_lossy(&row.value()).into_owned())
            .collect()
    }

    pub(crate) fn tag(&self, name: HeaderName) -> String {
        let value = self.header(name);
        let (_, tag) = value.rsplit_once(";tag=").unwrap_or_default();
        tag.to_owned()
    }

    pub(crate) fn request_uri(&self) -> String {
        match &self.message {
            Message::Request(request) => request.uri.to_string(),
            Message::Response(_) => panic!("a response has no request URI"),
        }
    }

    pub(crate) fn body(&self) -> String {
        String::from_utf8_lossy(self.message.body()).into_owned()
    }

    pub(crate) fn branch(&self) -> String {
        let via = self.header(HeaderName::Via);
        let (_, after) = via.split_once("branch=").expect("a branch");
        after.split(';').next().unwrap_or_default().to_owned()
    }
}

pub(crate) struct Bench {
    pub(crate) agent: Agent,
    pub(crate) now: MonoTime,
    pub(crate) flow: Flow,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(AgentConfig::default())
    }

    pub(crate) fn with(config: AgentConfig) -> Self {
        Self {
            agent: Agent::new(config, Box::new(SeededEntropy::new(42))),
            now: MonoTime(1_000_000_000),
            flow: udp_flow(),
        }
    }

    pub(crate) fn on_tcp() -> Self {
        Self {
            flow: tcp_flow(1),
            ..Self::new()
        }
    }

    /// Lets the peer send `text`; the head ends where the text has an empty line.
    pub(crate) fn receive(&mut self, text: &str) {
        let flow = self.flow.clone();
        self.receive_on(flow, text);
    }

    pub(crate) fn receive_on(&mut self, flow: Flow, text: &str) {
        let message = parse_datagram(body(text), &Limits::datagram()).expect("test writes SIP");
        self.agent.handle_message(self.now, flow, message);
    }

    /// What the agent sent since the last call.
    pub(crate) fn sent(&mut self) -> Vec<Sent> {
        std::iter::from_fn(|| self.agent.poll_transmit())
            .map(|transmit| Sent {
                message: parse_datagram(transmit.bytes.clone(), &Limits::datagram())
                    .expect("the agent writes SIP"),
                text: String::from_utf8_lossy(&transmit.bytes).into_owned(),
                transmit,
            })
            .collect()
    }

    /// The one message the agent sent since the last call.
    pub(crate) fn sent_one(&mut self) -> Sent {
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "sent {:?}", labels(&sent));
        sent.remove(0)
    }

    pub(crate) fn events(&mut self) -> Vec<AgentEvent> {
        std::iter::from_fn(|| self.agent.poll_event()).collect()
    }

    pub(crate) fn event(&mut self) -> AgentEvent {
        let mut events = self.events();
        assert_eq!(events.len(), 1, "events {events:?}");
        events.remove(0)
    }

    /// Passes `millis`, firing every timer at its time.
    pub(crate) fn advance(&mut self, millis: u64) {
        let end = self.now.plus_millis(millis);
        while let Some(at) = self.agent.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.agent.handle_timeout(self.now);
        }
        self.now = end;
    }

    /// Every timer runs out; then nothing may be left.
    pub(crate) fn assert_nothing_is_left(&mut self) {
        self.advance(ALL_TIMERS_MS);
        self.sent();
        let events = self.events();
        assert!(events.is_empty(), "late events {events:?}");
        assert_eq!(self.agent.transactions_len(), 0, "transactions left");
        assert_eq!(self.agent.legs_len(), 0, "legs left");
        assert!(self.agent.is_idle(), "timers or index entries left");
    }

    // ---- scenes -------------------------------------------------------------------------------

    /// The peer calls; the leg and the INVITE as the peer wrote it.
    pub(crate) fn incoming(&mut self) -> (SipLegId, String) {
        let invite = invite("in-1", "z9hG4bKinvite", OFFER);
        self.receive(&invite);
        let AgentEvent::Invite { leg, .. } = self.event() else {
            panic!("an INVITE event");
        };
        (leg, invite)
    }

    /// A call from the peer, answered and acknowledged: the leg and our tag.
    pub(crate) fn incoming_confirmed(&mut self) -> (SipLegId, String) {
        let (leg, _) = self.incoming();
        self.agent
            .answer(self.now, leg, body(ANSWER))
            .expect("answers");
        let ok = self.sent_one();
        let tag = ok.tag(HeaderName::To);
        self.receive(&in_dialog("ACK", "in-1", 1, "z9hG4bKack", &tag, ""));
        assert!(matches!(self.event(), AgentEvent::Confirmed { .. }));
        (leg, tag)
    }

    /// A call to the peer; the leg and our INVITE.
    pub(crate) fn outgoing(&mut self) -> (SipLegId, Sent) {
        let request = invite_request(self.flow.clone());
        let leg = self.agent.invite(self.now, request).expect("sends");
        let invite = self.sent_one();
        assert_eq!(invite.label(), "INVITE");
        (leg, invite)
    }

    /// A call to the peer that it answered: the leg and our INVITE.
    pub(crate) fn outgoing_confirmed(&mut self) -> (SipLegId, Sent) {
        let (leg, invite) = self.outgoing();
        self.receive(&reply(&invite, 200, "b1", OFFER));
        assert_eq!(self.sent_one().label(), "ACK");
        assert!(matches!(self.event(), AgentEvent::Answered { .. }));
        (leg, invite)
    }
}

pub(crate) fn labels(sent: &[Sent]) -> Vec<String> {
    sent.iter().map(Sent::label).collect()
}

pub(crate) fn invite_request(flow: Flow) -> InviteRequest {
    InviteRequest {
        target: uri("sip:bob@198.51.100.9:5060"),
        flow,
        from: NameAddr {
            display_name: Some("Alice".to_owned()),
            uri: uri("sip:+15550100@203.0.113.1"),
        },
        to: NameAddr {
            display_name: None,
            uri: uri("sip:bob@198.51.100.9"),
        },
        max_forwards: 69,
        headers: Vec::new(),
        offer: body(OFFER),
        credentials: None,
    }
}

fn with_body(head: String, sdp: &str) -> String {
    if sdp.is_empty() {
        return format!("{head}Content-Length: 0\r\n\r\n");
    }
    let length = sdp.len();
    format!("{head}Content-Type: application/sdp\r\nContent-Length: {length}\r\n\r\n{sdp}")
}

/// An INVITE of the peer that forms a dialog.
pub(crate) fn invite(call_id: &str, branch: &str, sdp: &str) -> String {
    with_body(
        format!(
            "INVITE sip:+15550100@203.0.113.1 SIP/2.0\r\n\
             Via: SIP/2.0/UDP {PEER};branch={branch};rport\r\nMax-Forwards: 70\r\n\
             From: <sip:alice@carrier.example>;tag=a1\r\nTo: <sip:+15550100@203.0.113.1>\r\n\
             Call-ID: {call_id}\r\nCSeq: 1 INVITE\r\nContact: <sip:alice@{PEER}>\r\n"
        ),
        sdp,
    )
}

/// A request of the peer in the dialog of `invite`, where our tag is `tag`.
pub(crate) fn in_dialog(
    method: &str,
    call_id: &str,
    cseq: u32,
    branch: &str,
    tag: &str,
    sdp: &str,
) -> String {
    with_body(
        format!(
            "{method} sip:+15550100@203.0.113.1:5060 SIP/2.0\r\n\
             Via: SIP/2.0/UDP {PEER};branch={branch};rport\r\nMax-Forwards: 70\r\n\
             From: <sip:alice@carrier.example>;tag=a1\r\n\
             To: <sip:+15550100@203.0.113.1>;tag={tag}\r\n\
             Call-ID: {call_id}\r\nCSeq: {cseq} {method}\r\nContact: <sip:alice@{PEER}>\r\n"
        ),
        sdp,
    )
}

/// A request of the callee in the dialog of our `invite`; its tag is b1.
pub(crate) fn from_callee(
    invite: &Sent,
    method: &str,
    cseq: u32,
    branch: &str,
    sdp: &str,
) -> String {
    let (from, to) = (
        invite.header(HeaderName::To),
        invite.header(HeaderName::From),
    );
    with_body(
        format!(
            "{method} sip:+15550100@203.0.113.1:5060 SIP/2.0\r\n\
             Via: SIP/2.0/UDP {PEER};branch={branch};rport\r\nMax-Forwards: 70\r\n\
             From: {from};tag=b1\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\n\
             Contact: <sip:bob@{PEER}>\r\n",
            invite.header(HeaderName::CallId)
        ),
        sdp,
    )
}

/// The CANCEL of `invite`.
pub(crate) fn cancel_of(invite: &str) -> String {
    let head = invite.split("Content-").next().expect("a head");
    let head = head
        .replace("INVITE sip", "CANCEL sip")
        .replace("1 INVITE", "1 CANCEL");
    format!("{head}Content-Length: 0\r\n\r\n")
}

/// The peer's response to a request of ours; `tag` goes into a `To` without one.
pub(crate) fn reply(request: &Sent, status: u16, tag: &str, sdp: &str) -> String {
    let mut to = request.header(HeaderName::To);
    if !to.contains(";tag=") && !tag.is_empty() {
        to = format!("{to};tag={tag}");
    }
    let mut vias = String::new();
    for via in request.headers(HeaderName::Via) {
        vias.push_str(&format!("Via: {via}\r\n"));
    }
    with_body(
        format!(
            "SIP/2.0 {status} Whatever\r\n{vias}From: {}\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: {}\r\n\
             Contact: <sip:bob@{PEER}>\r\n",
            request.header(HeaderName::From),
            request.header(HeaderName::CallId),
            request.header(HeaderName::CSeq),
        ),
        sdp,
    )
}

pub(crate) fn ended_by(event: &AgentEvent) -> EndedBy {
    match event {
        AgentEvent::Ended { by, .. } => *by,
        other => panic!("an end, not {other:?}"),
    }
}

pub(crate) fn request_id(event: &AgentEvent) -> ServerRequestId {
    match event {
        AgentEvent::Request { id, .. } => *id,
        other => panic!("a request, not {other:?}"),
    }
}
