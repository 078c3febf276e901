//! The operator socket: how `trunkline-control status` and its siblings speak to the daemon.
//!
//! A Unix stream socket in `run_dir`, open to the daemon's own user and to root (the peer's uid
//! is checked, whatever the file's mode). One JSON object per line each way:
//!
//! ```text
//! → {"request":"calls","limit":50}
//! ← {"reply":"calls","total":1,"calls":[…]}
//! → {"request":"reload"}
//! ← {"reply":"done"}
//! → {"request":"sing"}
//! ← {"reply":"error","message":"…"}
//! ```
//!
//! What only the call thread knows is asked of it over a bounded channel of
//! [`OperatorRequest`]s; it answers when it comes round, and is never waited for longer than
//! `CALL_THREAD_PATIENCE`.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

mod client;
mod server;
#[cfg(test)]
pub(crate) mod tests;

pub use client::{AskError, ask, follow};
pub use server::{OperatorServer, OperatorSources, spawn};

use crate::switch::{
    CallAction, CallEvent, CallView, ConferenceAction, ConferenceView, EventsReport, TrunkView,
};
use crate::trace::{Traced, TracedMessage};
use crate::transport::tls::TlsStatus;

/// Longest request line, bytes.
const REQUEST_LEN_MAX: u64 = 4096;

/// Longest reply line that a client takes, bytes: [`CALLS_LIMIT_MAX`] calls with room.
const REPLY_LEN_MAX: u64 = 16 << 20;

/// Calls in one reply.
const CALLS_LIMIT_MAX: usize = 10_000;

/// Events that wait for one who follows a call.
pub const FOLLOWED_MAX: usize = 256;

/// How long the call thread is waited for.
const CALL_THREAD_PATIENCE: Duration = Duration::from_secs(2);

/// What the call thread is asked. It answers each; a reply that nobody waits for any more is not
/// its concern.
#[derive(Debug)]
pub enum OperatorRequest {
    /// How are you?
    Status(oneshot::Sender<CallThreadStatus>),
    /// Live calls.
    Calls {
        /// At most this many, the oldest first.
        limit: usize,
        /// Where the answer goes.
        reply: oneshot::Sender<CallsReport>,
    },
    /// Do something to a live call.
    Act {
        /// Its id.
        call_id: String,
        /// What.
        action: CallAction,
        /// Where the answer goes: `Ok` when the edge does it, else why not.
        reply: oneshot::Sender<Result<(), ActFailed>>,
    },
    /// Every trunk.
    Trunks(oneshot::Sender<Vec<TrunkView>>),
    /// Conferences with members.
    Conferences(oneshot::Sender<Vec<ConferenceView>>),
    /// SIP messages of a call.
    Trace {
        /// Its id, or the `Call-ID` of a dialog.
        id: String,
        /// Where the answer goes; empty when nothing is remembered.
        reply: oneshot::Sender<Vec<Traced>>,
    },
    /// Do something to a conference.
    Confer {
        /// Whose it is; `None` where one tenant alone has it.
        tenant: Option<String>,
        /// Its name.
        name: String,
        /// What.
        action: ConferenceAction,
        /// Where the answer goes: `Ok` when it is done, else why not.
        reply: oneshot::Sender<Result<(), ActFailed>>,
    },
    /// What has happened in a call.
    Events {
        /// Its id.
        call_id: String,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<EventsReport, ActFailed>>,
    },
    /// The same, and what happens from now on.
    Follow {
        /// Its id.
        call_id: String,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Following, ActFailed>>,
    },
}

/// What has happened in a call, and what happens from now on.
#[derive(Debug)]
pub struct Following {
    /// Until now.
    pub report: EventsReport,
    /// From now on; ends with the call. It holds [`FOLLOWED_MAX`] events; who does not take them in
    /// time misses some, which the gap in their numbers shows.
    pub events: mpsc::Receiver<CallEvent>,
}

/// Why something was not done to a call or a conference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActFailed {
    /// There is no such call, conference or member.
    NotFound(String),
    /// It cannot be done, or the edge refused.
    Refused(String),
}

impl std::fmt::Display for ActFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotFound(text) | Self::Refused(text) => f.write_str(text),
        }
    }
}

/// The call thread's part of [`StatusReport`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CallThreadStatus {
    /// Since the daemon began, seconds.
    pub uptime_secs: u64,
    /// Sockets it listens on, as the configuration writes them.
    pub listen: Vec<String>,
    /// Calls in any state.
    pub calls_active: usize,
    /// `[sip] calls_max`.
    pub calls_max: usize,
    /// Open SIP transactions.
    pub transactions_active: usize,
    /// Registered contacts.
    pub registrations_active: usize,
    /// Whether the edge's rings are attached.
    pub edge_connected: bool,
    /// One for each worker of the edge.
    pub workers: Vec<WorkerStatus>,
    /// `[edge] media_addresses`, in the order of the configuration.
    #[serde(default)]
    pub interfaces: Vec<InterfaceStatus>,
    /// Whether new calls are refused because the daemon is stopping.
    pub draining: bool,
}

/// One worker of the edge.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its index.
    pub worker: u16,
    /// Open media sessions.
    pub sessions_active: u64,
    /// Port pairs in use or set aside, on all addresses.
    pub ports_used: u32,
    /// Port pairs of its slice, on all addresses.
    pub ports_capacity: u32,
    /// Since its last heartbeat, milliseconds.
    pub heartbeat_age_ms: u64,
}

/// One entry of `[edge] media_addresses`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Its name; its address where it has none.
    pub name: String,
    /// What is bound.
    pub address: IpAddr,
    /// What peers are told.
    pub advertise: IpAddr,
    /// Port pairs on the address in use or set aside, over all workers. Entries on one address
    /// share them.
    pub ports_used: u32,
    /// Port pairs on the address, over all workers.
    pub ports_capacity: u32,
}

/// Answer to `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// `[node] name`.
    pub node: String,
    /// Release that is running.
    pub version: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// The call thread's part; `None` when it did not answer.
    pub call_thread: Option<CallThreadStatus>,
    /// Trunks, members and DIDs that routing knows.
    pub directory: DirectoryStatus,
    /// Why the store does not answer, if it does not.
    pub store_problem: Option<String>,
    /// Why call records may be in danger, if they may.
    pub cdr_problem: Option<String>,
    /// Bytes of call records that the store does not have yet.
    pub cdr_spool_bytes: u64,
    /// Certificates; `None` where no SIP socket speaks TLS.
    #[serde(default)]
    pub tls: Option<TlsStatus>,
}

/// What routing knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DirectoryStatus {
    /// Trunks.
    pub trunks: usize,
    /// Members.
    pub members: usize,
    /// DIDs.
    pub dids: usize,
}

/// Answer to `calls`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CallsReport {
    /// Calls in any state, those beyond the limit included.
    pub total: usize,
    /// The oldest first.
    pub calls: Vec<CallView>,
}

/// A line to the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// How the daemon is.
    Status,
    /// Live calls.
    Calls {
        /// At most this many.
        limit: usize,
    },
    /// Another process changed the store: read the routing data again.
    Reload,
    /// Read the certificates again.
    ReloadTls,
    /// Do something to a live call.
    Act {
        /// Its id.
        call_id: String,
        /// What.
        action: CallAction,
    },
    /// How trunks stand.
    Trunks,
    /// Conferences with members.
    Conferences,
    /// SIP messages of a call.
    Trace {
        /// Its id, or the `Call-ID` of a dialog.
        id: String,
    },
    /// Do something to a conference.
    Confer {
        /// Whose it is; may be left out where one tenant alone has it.
        #[serde(default)]
        tenant: Option<String>,
        /// Its name.
        name: String,
        /// What.
        action: ConferenceAction,
    },
    /// What has happened in a call.
    Events {
        /// Its id.
        call_id: String,
        /// Whether to tell what happens from now on, a line each, until the call is over. Nothing
        /// else can be asked on this connection then.
        #[serde(default)]
        follow: bool,
    },
}

/// A line from the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Status`].
    Status(Box<StatusReport>),
    /// To [`Request::Calls`].
    Calls(CallsReport),
    /// To [`Request::Reload`], [`Request::Act`] and [`Request::Confer`].
    Done,
    /// To [`Request::Trunks`].
    Trunks {
        /// By name.
        trunks: Vec<TrunkView>,
    },
    /// To [`Request::Conferences`].
    Conferences {
        /// By tenant and name.
        conferences: Vec<ConferenceView>,
    },
    /// To [`Request::Trace`]: masked; empty when nothing is remembered.
    Trace {
        /// The oldest first.
        messages: Vec<TracedMessage>,
    },
    /// To [`Request::Events`].
    Events(EventsReport),
    /// After [`Request::Events`] with `follow`, as often as something happens.
    Event {
        /// What.
        happened: CallEvent,
    },
    /// After [`Request::Events`] with `follow`: the call is over.
    Over,
    /// It could not be done.
    Error {
        /// Why, and what to do.
        message: String,
    },
}
