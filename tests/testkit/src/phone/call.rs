//! One call of a phone: its dialog (RFC 3261 §12) and what happened to it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sipx_sip::{HeaderName, Headers, Request};

use super::message;
use crate::sdp::AudioDescription;

/// How far a call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The INVITE is out or in, and nobody has answered.
    Setup,
    /// A 2xx was sent and its ACK has not come.
    Unconfirmed,
    /// Both sides know that the call stands.
    Established,
    /// It is over.
    Ended(EndCause),
}

/// Why a call is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndCause {
    /// The far side sent BYE.
    RemoteBye,
    /// This phone sent BYE.
    LocalBye,
    /// The far side answered the INVITE with this status, 300 … 699.
    Rejected(u16),
    /// This phone answered the INVITE with this status.
    LocalReject(u16),
    /// The far side sent CANCEL.
    RemoteCancel,
    /// No answer to the INVITE or no ACK for 64·T1.
    TimedOut,
}

/// When things happened, for setup times and gaps.
#[derive(Debug, Clone, Copy)]
pub struct Timings {
    /// The INVITE was sent or arrived.
    pub invite: Instant,
    /// The first provisional response above 100.
    pub ringing: Option<Instant>,
    /// The 2xx.
    pub answered: Option<Instant>,
    /// The end.
    pub ended: Option<Instant>,
}

/// Something sent again until the far side reacts.
pub(super) struct Repeat {
    pub(super) bytes: Bytes,
    pub(super) to: SocketAddr,
    pub(super) next: Instant,
    pub(super) interval: Duration,
    pub(super) until: Instant,
}

pub(super) struct CallRecord {
    pub(super) phase: Phase,
    pub(super) timings: Timings,
    /// From tag of a caller, To tag of a callee.
    pub(super) local_tag: String,
    /// `From` of requests sent inside the dialog, tag included.
    pub(super) local_party: String,
    /// `To` of requests sent inside the dialog, tag included once known.
    pub(super) remote_party: String,
    pub(super) remote_target: String,
    pub(super) routes: Vec<String>,
    pub(super) cseq: u32,
    pub(super) remote_cseq: u32,
    /// Branch of the caller's own INVITE.
    pub(super) invite_branch: String,
    /// The callee's INVITE and where it came from.
    pub(super) invite: Option<(Request, SocketAddr)>,
    pub(super) provisionals: Vec<u16>,
    pub(super) cancel_wanted: bool,
    pub(super) local_media: AudioDescription,
    pub(super) remote_media: Option<AudioDescription>,
    /// Bodies of the re-INVITEs that came in.
    pub(super) reoffers: Vec<AudioDescription>,
    /// Bodies of the INFO requests that came in.
    pub(super) infos: Vec<String>,
    /// ACK to the latest 2xx, sent again for each repeated 2xx (RFC 3261 §13.2.2.4).
    pub(super) ack: Option<(SocketAddr, Bytes)>,
    /// 2xx sent and not yet acknowledged (RFC 3261 §13.3.1.4).
    pub(super) unconfirmed: Option<Repeat>,
    pub(super) final_headers: Option<Headers>,
}

impl CallRecord {
    pub(super) fn new(now: Instant, local_tag: String, local_media: AudioDescription) -> Self {
        Self {
            phase: Phase::Setup,
            timings: Timings {
                invite: now,
                ringing: None,
                answered: None,
                ended: None,
            },
            local_tag,
            local_party: String::new(),
            remote_party: String::new(),
            remote_target: String::new(),
            routes: Vec::new(),
            cseq: 1,
            remote_cseq: 0,
            invite_branch: String::new(),
            invite: None,
            provisionals: Vec::new(),
            cancel_wanted: false,
            local_media,
            remote_media: None,
            reoffers: Vec::new(),
            infos: Vec::new(),
            ack: None,
            unconfirmed: None,
            final_headers: None,
        }
    }

    /// The caller's half of the dialog from a response that has a To tag: its Contact is the
    /// remote target, its Record-Route reversed the route set (RFC 3261 §12.1.2).
    pub(super) fn learn_from_response(&mut self, headers: &Headers, body: &[u8]) {
        if let Some(to) = message::text(headers, &HeaderName::To) {
            self.remote_party = to;
        }
        if let Some(contact) = message::contact(headers) {
            self.remote_target = contact;
        }
        self.routes = message::record_routes(headers);
        self.routes.reverse();
        if let Some(media) = AudioDescription::parse(body) {
            self.remote_media = Some(media);
        }
    }

    /// The callee's half of the dialog (RFC 3261 §12.1.1): the route set keeps its order.
    pub(super) fn learn_from_invite(&mut self, invite: &Request, from: SocketAddr) {
        let headers = &invite.headers;
        self.remote_party = message::text(headers, &HeaderName::From).unwrap_or_default();
        self.local_party = format!(
            "{};tag={}",
            message::text(headers, &HeaderName::To).unwrap_or_default(),
            self.local_tag
        );
        self.remote_target = message::contact(headers).unwrap_or_default();
        self.routes = message::record_routes(headers);
        self.remote_media = AudioDescription::parse(invite.body());
        self.remote_cseq = message::cseq(headers).map_or(0, |cseq| cseq.sequence);
        self.invite = Some((invite.clone(), from));
    }

    pub(super) fn end(&mut self, now: Instant, cause: EndCause) {
        if !matches!(self.phase, Phase::Ended(_)) {
            self.phase = Phase::Ended(cause);
            self.timings.ended = Some(now);
        }
        self.unconfirmed = None;
    }

    /// Where a request inside the dialog goes: the first route, else the remote target.
    pub(super) fn next_hop(&self) -> Option<SocketAddr> {
        let hop = self.routes.first().unwrap_or(&self.remote_target);
        message::address_of(hop)
    }
}
