//! The user agent of a B2BUA: RFC 3261 with the transaction rules of RFC 6026, UPDATE (RFC 3311)
//! from the peer, symmetric responses (RFC 3581).

mod counters;
mod event;

use bytes::Bytes;
use sipx_sip::{Header, Timers, Uri};

pub use counters::{AgentCounters, ClassCounts, MethodCounts};
pub use event::{AgentEvent, EndedBy, ServerRequestId, SipLegId};

use crate::flow::Flow;

/// Bounds and names of an [`Agent`].
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// `User-Agent` of requests and `Server` of responses.
    pub user_agent: String,
    /// Transactions that may be open at once before new requests outside dialogs get 503. Requests
    /// inside dialogs have a quarter more.
    pub transactions_max: usize,
    /// Legs that may live at once.
    pub legs_max: usize,
    /// T1, T2 and T4 of RFC 3261 §17.
    pub timers: Timers,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            user_agent: concat!("Trunkline/", env!("CARGO_PKG_VERSION")).to_owned(),
            transactions_max: 20_000,
            legs_max: 10_000,
            timers: Timers::default(),
        }
    }
}

/// A `From` or `To` without its tag.
#[derive(Debug, Clone)]
pub struct NameAddr {
    /// The display name, unquoted.
    pub display_name: Option<String>,
    /// The address.
    pub uri: Uri,
}

/// An INVITE to send.
#[derive(Debug, Clone)]
pub struct InviteRequest {
    /// Request-URI: a registered contact, a trunk's address.
    pub target: Uri,
    /// The way to the first hop. Its `local` becomes `Via` and `Contact`.
    pub flow: Flow,
    /// `From`; its user part is that of our `Contact`, too.
    pub from: NameAddr,
    /// `To`.
    pub to: NameAddr,
    /// 0 … 70. A B2BUA passes on what it received less one, so that a loop through it ends
    /// (RFC 7332 §4); 70 where a call begins.
    pub max_forwards: u8,
    /// Further headers, say `P-Asserted-Identity` or `Diversion`. Those which the agent writes
    /// itself are left out.
    pub headers: Vec<Header>,
    /// The offer.
    pub offer: Bytes,
}

/// Names a message for
/// [`Agent::handle_transport_error`]: the transaction it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TransmitId {
    side: Side,
    key: std::sync::Arc<sipx_sip::TransactionKey>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Side {
    Client,
    Server,
}

/// A message to put on the wire.
#[derive(Debug, Clone)]
pub struct Transmit {
    /// Where it goes.
    pub flow: Flow,
    /// The message, complete.
    pub bytes: Bytes,
    /// What to report a failure of delivery under; `None` where nobody waits to hear of it.
    pub id: Option<TransmitId>,
}
