//! Sans-IO SIP for a B2BUA: dialogs, call legs, offer/answer, digest, registrar.
//!
//! Nothing here opens a socket, reads a clock or draws a random number: messages, time and
//! randomness come in through `handle_*`, what is to be sent and what the call machine must know
//! comes out through `poll_*`. The wire format and the RFC 3261 transactions are those of
//! [`sipx_sip`]; what a B2BUA adds to them is here.
//!
//! | module | what it holds |
//! |---|---|
//! | [`agent`] | the user agent: transactions, dialogs and legs behind one `handle_*`/`poll_*` face |
//! | [`digest`] | RFC 7616 on the server's side: challenges and their answers |
//! | [`flow`] | where a message came from and where one must go |
//! | [`identity`] | who calls and who is called |
//! | [`info`] | digits in INFO requests |
//! | [`locate`] | RFC 3263: which addresses a URI stands for, in which order |
//! | [`registrar`] | RFC 3261 §10.3: where the phones are |
//! | [`offer_answer`] | RFC 3264 for one relayed audio stream: each leg's descriptions and `LegConfig` |
//! | [`replaces`] | RFC 3891 and the targets of RFC 3515: which dialog a message speaks of |
//! | [`entropy`] | the source of tags, branches and Call-IDs |
#![forbid(unsafe_code)]

pub mod agent;
mod dialog;
pub mod digest;
pub mod entropy;
pub mod flow;
pub mod identity;
pub mod info;
mod leg;
pub mod locate;
mod message;
pub mod offer_answer;
pub mod registrar;
pub mod replaces;
mod timer_queue;

pub use agent::{
    Agent, AgentConfig, AgentCounters, AgentEvent, ClientRequest, ClientRequestId, EndCause,
    EndedBy, InviteError, InviteRequest, LegError, NameAddr, ReferRequest, RequestError,
    RequestSequence, RespondError, ServerRequestId, SipLegId, Transmit, TransmitId,
};
pub use digest::ClientCredentials;
pub use entropy::Entropy;
pub use flow::{ConnectionId, Flow, LocalEnd, LocalEnds, TransportKind};
pub use info::InfoDigit;
pub use locate::Hop;
pub use replaces::{ReferTarget, Replaces, ReplacesError};
