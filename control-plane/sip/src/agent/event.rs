//! What the agent tells its user, and the ids both speak of.

use std::fmt;

use bytes::Bytes;
use sipx_sip::{Request, Response};

use super::{EndCause, RequestSequence};
use crate::flow::Flow;
use crate::info::InfoDigit;
use crate::replaces::ReferTarget;

/// One INVITE session with one peer: one of the two (or more) legs of a B2BUA call. Unique for
/// the life of the [`Agent`](super::Agent).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SipLegId(pub(crate) u64);

impl fmt::Display for SipLegId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "leg-{}", self.0)
    }
}

/// A request outside any dialog that waits for [`Agent::respond`](super::Agent::respond).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerRequestId(pub(crate) u64);

/// A request of ours outside any dialog, from [`Agent::request`](super::Agent::request).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientRequestId(pub(crate) u64);

/// Why a leg ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndedBy {
    /// The peer sent BYE.
    Bye,
    /// The caller sent CANCEL before the answer (server leg).
    Cancelled,
    /// [`Agent::hangup`](super::Agent::hangup) or [`Agent::cancel`](super::Agent::cancel).
    LocalHangup,
    /// [`Agent::reject`](super::Agent::reject) (server leg).
    Refused,
    /// No ACK within 64·T1 of our 2xx (RFC 3261 §13.3.1.4); a BYE was sent.
    AckTimeout,
    /// No PRACK within 64·T1 of our reliable provisional response (RFC 3262 §3); the caller got
    /// 504.
    PrackTimeout,
    /// Nobody refreshed the session in time (RFC 4028 §10); a BYE was sent.
    SessionExpired,
    /// The peer no longer knows the dialog (481), or no longer answers in it (408 or silence).
    DialogLost,
    /// The transport could not deliver.
    TransportFailed,
}

/// What happened. Drained with [`Agent::poll_event`](super::Agent::poll_event) after every
/// `handle_*` call.
///
/// Every leg ends with exactly one [`Ended`](Self::Ended) or [`Rejected`](Self::Rejected), and its
/// id is unknown from then on; what the network still owes the leg (a CANCEL, a BYE, a late 2xx)
/// goes on without it.
#[derive(Debug)]
pub enum AgentEvent {
    /// A caller's INVITE made a server leg. Answer with `provisional`, `answer`, `reject` or
    /// `hangup`; the transaction sends 100 after 200 ms by itself (RFC 3261 §17.2.1). The body,
    /// if there is one, is `application/sdp`; an empty one asks for our offer.
    Invite {
        /// The new leg.
        leg: SipLegId,
        /// The INVITE as received; its top `Via` carries `received` and `rport`.
        request: Box<Request>,
        /// Where it came from.
        flow: Flow,
        /// The leg whose place the caller wants (RFC 3891). Whoever answers the INVITE hangs that
        /// leg up; whether the caller may have it is for the user of the agent to say.
        replaces: Option<SipLegId>,
    },
    /// REGISTER or OPTIONS outside a dialog; it waits for `respond`.
    Request {
        /// Names the request in `respond`.
        id: ServerRequestId,
        /// The request as received.
        request: Box<Request>,
        /// Where it came from.
        flow: Flow,
    },
    /// What came of [`Agent::request`](super::Agent::request): its final response.
    Response {
        /// The request.
        id: ClientRequestId,
        /// 200 … 699; 408 when nobody answered, 503 when the transport failed.
        status: u16,
        /// The response, when there was one.
        response: Option<Box<Response>>,
        /// For the request that carries this one on.
        sequence: RequestSequence,
    },
    /// Client leg: a provisional response above 100. One that was sent reliably comes once and in
    /// order, and its PRACK is sent; the branches of a forked INVITE may report in any order.
    Progress {
        /// The leg.
        leg: SipLegId,
        /// 101 … 199.
        status: u16,
        /// Which branch of a forked INVITE, counted from 0 as they first spoke: each describes
        /// media of its own.
        fork: u8,
        /// Early media description that answers our offer, when there is one.
        sdp: Option<Bytes>,
    },
    /// Client leg: the first 2xx; its ACK is sent. Other branches that answer are hung up. An INVITE
    /// without an offer is answered with one: it follows as [`Offer`](Self::Offer), and the ACK
    /// waits for `accept_offer`.
    Answered {
        /// The leg.
        leg: SipLegId,
        /// Which branch, as in [`Progress`](Self::Progress).
        fork: u8,
        /// The answer; that of the last provisional of the same branch when the 2xx has none, or
        /// when the exchange was over before.
        sdp: Option<Bytes>,
    },
    /// Server leg: the PRACK to our reliable provisional response answered the offer in it.
    AnswerInPrack {
        /// The leg.
        leg: SipLegId,
        /// The answer.
        sdp: Bytes,
    },
    /// Client leg: the INVITE failed. The leg is gone.
    Rejected {
        /// The leg.
        leg: SipLegId,
        /// 300 … 699; 408 when nobody answered, 503 when the transport failed.
        status: u16,
        /// The peer's reason phrase, or ours.
        reason: String,
        /// What the `Reason` headers say.
        cause: EndCause,
        /// The response, when there was one: `Contact` of a 302, `Retry-After` of a 503.
        response: Option<Box<Response>>,
    },
    /// Server leg: the ACK to our 2xx arrived.
    Confirmed {
        /// The leg.
        leg: SipLegId,
        /// The answer in the ACK, when the INVITE had no offer and our 2xx made one.
        sdp: Option<Bytes>,
    },
    /// An offer of the peer; it waits for `accept_offer` or `reject_offer`. It came in a re-INVITE
    /// or UPDATE; before the answer in an UPDATE, a PRACK or a reliable provisional response; or in
    /// the 2xx to an INVITE without one.
    Offer {
        /// The leg.
        leg: SipLegId,
        /// The offer.
        sdp: Bytes,
    },
    /// The peer cancelled the re-INVITE of the last [`Offer`](Self::Offer), or the call was answered
    /// before its early offer was: the session stays as it was, and the offer can no longer be
    /// accepted.
    OfferCancelled {
        /// The leg.
        leg: SipLegId,
    },
    /// Our re-INVITE, or our UPDATE before the answer, came to its end.
    OfferAnswered {
        /// The leg.
        leg: SipLegId,
        /// The answer, or the status that refused the offer and left the session as it was. 491
        /// when an offer of the peer won the glare; it follows as [`Offer`](Self::Offer).
        result: Result<Bytes, u16>,
    },
    /// The peer answered our current description, which it was given once more, with something new:
    /// in the ACK of a re-INVITE of its without an offer, or in the answer to one of ours that kept
    /// the session alive.
    AnswerInAck {
        /// The leg.
        leg: SipLegId,
        /// The answer.
        sdp: Bytes,
    },
    /// The peer pressed a key and said so in an INFO request, which has its 200.
    Digit {
        /// The leg.
        leg: SipLegId,
        /// Which key, for how long.
        digit: InfoDigit,
    },
    /// A REFER of the peer; it waits for `accept_refer` or `reject_refer`, unless the leg ends
    /// before.
    Refer {
        /// The leg.
        leg: SipLegId,
        /// Whom to call.
        refer_to: ReferTarget,
        /// `Referred-By` as it came, for the INVITE to the target.
        referred_by: Option<Bytes>,
        /// Whether the peer wants to hear what comes of it; `false` after `Refer-Sub: false`.
        wants_notify: bool,
    },
    /// Our REFER has its final response.
    ReferAnswered {
        /// The leg.
        leg: SipLegId,
        /// 200 … 699; 408 when nobody answered, 503 when the transport failed.
        status: u16,
        /// Whether `ReferProgress` follows.
        will_notify: bool,
    },
    /// The peer said in a NOTIFY how the call fares that our REFER asked for. It may come before
    /// `ReferAnswered`.
    ReferProgress {
        /// The leg.
        leg: SipLegId,
        /// The status of that call; `None` when the NOTIFY says nothing readable, or when the
        /// subscription ran out without one.
        status: Option<u16>,
        /// Nothing more follows.
        is_final: bool,
    },
    /// The leg is over and its id gone.
    Ended {
        /// The leg.
        leg: SipLegId,
        /// Why.
        by: EndedBy,
        /// What the `Reason` headers of the peer's BYE or CANCEL say.
        cause: EndCause,
    },
}
