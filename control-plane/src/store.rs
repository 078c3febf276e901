//! The store: tenants, trunks, members, DIDs and call records in SQLite.
//!
//! All SQL of the tree is in this module's children, and nothing of the database library is
//! visible outside. One thread owns the one connection; everybody else holds a [`StoreHandle`]
//! and asks over a bounded channel.
//!
//! The call thread asks nothing. It reads a [`RoutingSnapshot`], made anew after each change and
//! handed over through [`StoreHandle::routing`].
//!
//! Two processes may have the store open (the daemon and a command): SQLite's write-ahead log
//! lets them, and [`StoreHandle::reload`] tells the daemon of changes that it did not make.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

mod connection;
mod directory;
mod pins;
mod plan;
mod recordings;
mod records;
mod snapshot;
#[cfg(test)]
pub(crate) mod tests;
mod thread;
mod usage;

pub use directory::{DidRow, MemberRow, TrunkRow};
pub use plan::{Action, Change, FieldChange, Kept, ObjectKind, Plan};
pub use records::RecordQuery;
pub use snapshot::{
    ConferenceRoute, DidRoute, GroupRoute, MemberRoute, RoutingSnapshot, TenantSounds, TrunkRoute,
};
pub use thread::{StoreThread, open};
pub use usage::OutboundUsage;

use crate::cdr::{DetailRecord, RecordingRecord, StoredCall};
use crate::site::{Availability, Extension, ForwardEvent, Name, Site};
use thread::{Reply, Request};

/// Requests waiting for the store's thread. Callers are few and each waits for its answer.
const REQUESTS_QUEUE_LEN: usize = 64;

/// How the store is opened.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The SQLite file. Created, readable by its owner only, when it does not exist.
    pub path: PathBuf,
    /// How long a statement waits for another process's lock before [`StoreError::Busy`].
    pub busy_timeout: Duration,
    /// Realm that phones are challenged with. Members whose credential was made for another one
    /// cannot register; they are counted and logged at each load.
    pub realm: String,
}

impl StoreOptions {
    /// Waits 5 s for a lock: a large apply takes one second, and nobody waits on a call for it.
    #[must_use]
    pub fn new(path: PathBuf, realm: &str) -> Self {
        Self {
            path,
            busy_timeout: Duration::from_secs(5),
            realm: realm.to_owned(),
        }
    }
}

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened or created.
    #[error("store {path}: {reason}")]
    Open {
        /// The file.
        path: String,
        /// What the system said, and what to change.
        reason: String,
    },
    /// Another process held a lock for longer than the busy timeout.
    #[error("the store is locked by another process; try again when it has finished")]
    Busy,
    /// The disk is full.
    #[error("no space is left on the store's disk")]
    Full,
    /// The site file contradicts what the store keeps. Nothing was changed.
    #[error("{}", .0.join("\n"))]
    Conflict(Vec<String>),
    /// There is no such member.
    #[error("there is no member with extension {0}; `trunkline-control members` lists them")]
    NoSuchMember(String),
    /// The extension exists in more than one tenant.
    #[error("extension {extension} exists in several tenants; add --tenant with one of: {tenants}")]
    AmbiguousMember {
        /// The extension.
        extension: String,
        /// Their names.
        tenants: String,
    },
    /// A row does not hold what this release writes.
    #[error("the store holds a row that this release cannot read: {0}")]
    Corrupt(String),
    /// Anything else that the database said.
    #[error("store: {0}")]
    Database(String),
    /// The store's thread has ended.
    #[error("the store is closed")]
    Closed,
}

/// How [`StoreHandle::apply`] goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ApplyOptions {
    /// Plan only; change nothing.
    pub dry_run: bool,
    /// Also delete what no apply has created.
    pub prune: bool,
}

/// Asks the store's thread. Cheap to clone; the thread ends when the last one is dropped.
#[derive(Debug, Clone)]
pub struct StoreHandle {
    requests: mpsc::Sender<Request>,
    routing: watch::Receiver<Arc<RoutingSnapshot>>,
}

impl StoreHandle {
    /// The routing data of the moment, and every later one. Reading it never waits for the store.
    #[must_use]
    pub fn routing(&self) -> watch::Receiver<Arc<RoutingSnapshot>> {
        self.routing.clone()
    }

    /// Brings the store to the form that `site` states, in one transaction, and says what that
    /// took. A second time it takes nothing.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] and those of every statement. Nothing was changed then.
    pub async fn apply(&self, site: Site, options: ApplyOptions) -> Result<Plan, StoreError> {
        let site = Box::new(site);
        self.ask(|reply| Request::Apply {
            site,
            options,
            reply,
        })
        .await
    }

    /// Sets what a member chose. Later applies leave it alone. `tenant` may be left out where
    /// the extension is unique. Gives the member's tenant.
    ///
    /// # Errors
    /// [`StoreError::NoSuchMember`], [`StoreError::AmbiguousMember`] and those of every statement.
    pub async fn set_availability(
        &self,
        tenant: Option<Name>,
        extension: Extension,
        availability: Availability,
    ) -> Result<String, StoreError> {
        self.ask(|reply| Request::SetAvailability {
            tenant,
            extension,
            availability,
            reply,
        })
        .await
    }

    /// Sets where a member has its calls go upon some events, or, with `None`, nowhere. Later
    /// applies leave it alone. `tenant` may be left out where the extension is unique. Gives the
    /// member's tenant.
    ///
    /// # Errors
    /// [`StoreError::NoSuchMember`], [`StoreError::AmbiguousMember`] and those of every statement.
    pub async fn set_forwards(
        &self,
        tenant: Option<Name>,
        extension: Extension,
        forwards: Vec<(ForwardEvent, Option<String>)>,
    ) -> Result<String, StoreError> {
        self.ask(|reply| Request::SetForwards {
            tenant,
            extension,
            forwards,
            reply,
        })
        .await
    }

    /// Reads the routing data again; for changes that another process made.
    ///
    /// # Errors
    /// Those of every statement. The earlier snapshot stays.
    pub async fn reload(&self) -> Result<(), StoreError> {
        self.ask(|reply| Request::Reload { reply }).await
    }

    /// Whether the store answers.
    ///
    /// # Errors
    /// Those of every statement.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.ask(|reply| Request::Ping { reply }).await
    }

    /// All members, by tenant and extension.
    ///
    /// # Errors
    /// Those of every statement.
    pub async fn members(&self) -> Result<Vec<MemberRow>, StoreError> {
        self.ask(|reply| Request::Members { reply }).await
    }

    /// All DIDs, by number.
    ///
    /// # Errors
    /// Those of every statement.
    pub async fn dids(&self) -> Result<Vec<DidRow>, StoreError> {
        self.ask(|reply| Request::Dids { reply }).await
    }

    /// All trunks, by name.
    ///
    /// # Errors
    /// Those of every statement.
    pub async fn trunks(&self) -> Result<Vec<TrunkRow>, StoreError> {
        self.ask(|reply| Request::Trunks { reply }).await
    }

    /// What went out since `since_unix_ms`, by tenant and member: for the limits of a day.
    ///
    /// # Errors
    /// Those of every statement.
    pub async fn outbound_usage(
        &self,
        since_unix_ms: i64,
    ) -> Result<Vec<OutboundUsage>, StoreError> {
        self.ask(|reply| Request::OutboundUsage {
            since_unix_ms,
            reply,
        })
        .await
    }

    /// Call records, the newest first, each with what was recorded of it.
    ///
    /// # Errors
    /// Those of every statement.
    pub async fn records(&self, query: RecordQuery) -> Result<Vec<StoredCall>, StoreError> {
        self.ask(|reply| Request::Records { query, reply }).await
    }

    /// What became of recordings, of calls and of conferences, the newest first. The query's time
    /// is that of their ends.
    ///
    /// # Errors
    /// Those of every statement.
    pub async fn recordings(&self, query: RecordQuery) -> Result<Vec<RecordingRecord>, StoreError> {
        self.ask(|reply| Request::Recordings { query, reply }).await
    }

    /// Begins to add records, all or none. One whose id is there is left as it is.
    /// Never waits; for threads without a runtime.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when the store has more requests waiting than it should,
    /// [`StoreError::Closed`] when its thread has ended.
    pub fn try_add_records(&self, records: Vec<DetailRecord>) -> Result<PendingAdd, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.requests
            .try_send(Request::AddRecords { records, reply })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => StoreError::Busy,
                mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
            })?;
        Ok(PendingAdd(answer))
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.requests
            .send(request(reply))
            .await
            .map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

/// Records that the store is adding.
#[derive(Debug)]
pub struct PendingAdd(oneshot::Receiver<Result<u64, StoreError>>);

impl PendingAdd {
    /// How many of the records were new, once that is known. Not to be asked again after that.
    ///
    /// # Errors
    /// Inside: those of every statement. Nothing was added then.
    pub fn poll(&mut self) -> Option<Result<u64, StoreError>> {
        match self.0.try_recv() {
            Ok(result) => Some(result),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(Err(StoreError::Closed)),
        }
    }
}
