//! The thread that owns the connection.

use std::io;
use std::sync::Arc;

use sqlx::SqliteConnection;
use tokio::sync::{mpsc, oneshot, watch};

use super::directory::{self, DidRow, MemberRow, TrunkRow};
use super::plan::Plan;
use super::records::{self, RecordQuery};
use super::snapshot::RoutingSnapshot;
use super::usage::{self, OutboundUsage};
use super::{
    ApplyOptions, REQUESTS_QUEUE_LEN, StoreError, StoreHandle, StoreOptions, connection, recordings,
};
use crate::cdr::{DetailRecord, RecordingRecord, StoredCall};
use crate::site::{Availability, Extension, ForwardEvent, Name, Site};

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

#[derive(Debug)]
pub(super) enum Request {
    Apply {
        site: Box<Site>,
        options: ApplyOptions,
        reply: Reply<Plan>,
    },
    SetAvailability {
        tenant: Option<Name>,
        extension: Extension,
        availability: Availability,
        reply: Reply<String>,
    },
    SetForwards {
        tenant: Option<Name>,
        extension: Extension,
        forwards: Vec<(ForwardEvent, Option<String>)>,
        reply: Reply<String>,
    },
    Reload {
        reply: Reply<()>,
    },
    Ping {
        reply: Reply<()>,
    },
    Members {
        reply: Reply<Vec<MemberRow>>,
    },
    Dids {
        reply: Reply<Vec<DidRow>>,
    },
    Trunks {
        reply: Reply<Vec<TrunkRow>>,
    },
    OutboundUsage {
        since_unix_ms: i64,
        reply: Reply<Vec<OutboundUsage>>,
    },
    Records {
        query: RecordQuery,
        reply: Reply<Vec<StoredCall>>,
    },
    Recordings {
        query: RecordQuery,
        reply: Reply<Vec<RecordingRecord>>,
    },
    AddRecords {
        records: Vec<DetailRecord>,
        reply: Reply<u64>,
    },
}

/// The store's thread; ends after the last [`StoreHandle`] is gone.
#[derive(Debug)]
pub struct StoreThread(std::thread::JoinHandle<()>);

impl StoreThread {
    /// Waits until the store is closed. Blocks for as long as a handle lives.
    pub fn join(self) {
        // A panic has already been reported by the panic hook, and there is nothing to save.
        let _ = self.0.join();
    }
}

/// Opens the store, brings its schema up to date, and starts its thread. Blocks until the first
/// [`RoutingSnapshot`] is there.
///
/// # Errors
/// The file cannot be opened or is not ours, or its schema is of a later release.
pub fn open(options: StoreOptions) -> Result<(StoreHandle, StoreThread), StoreError> {
    let (opened, result) = std::sync::mpsc::sync_channel(1);
    let path = options.path.display().to_string();
    let failed = |error: io::Error| StoreError::Open {
        path: path.clone(),
        reason: format!("its thread cannot start: {error}"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let thread = std::thread::Builder::new()
        .name("store".to_owned())
        .spawn(move || runtime.block_on(run(options, opened)))
        .map_err(failed)?;
    let handle = result.recv().map_err(|_| StoreError::Closed)??;
    Ok((handle, StoreThread(thread)))
}

async fn run(
    options: StoreOptions,
    opened: std::sync::mpsc::SyncSender<Result<StoreHandle, StoreError>>,
) {
    let mut service = match Service::start(options).await {
        Ok((service, handle)) => {
            if opened.send(Ok(handle)).is_err() {
                return;
            }
            service
        }
        Err(error) => {
            // The opener waits for exactly this; when it is gone there is nobody to tell.
            let _ = opened.send(Err(error));
            return;
        }
    };
    while let Some(request) = service.requests.recv().await {
        service.serve(request).await;
    }
    connection::close(service.connection).await;
}

struct Service {
    connection: SqliteConnection,
    requests: mpsc::Receiver<Request>,
    routing: watch::Sender<Arc<RoutingSnapshot>>,
    realm: String,
}

impl Service {
    async fn start(options: StoreOptions) -> Result<(Self, StoreHandle), StoreError> {
        let mut connection = connection::open(&options).await?;
        let snapshot = load(&mut connection, &options.realm).await?;
        let (routing, routing_receiver) = watch::channel(snapshot);
        let (sender, requests) = mpsc::channel(REQUESTS_QUEUE_LEN);
        let service = Self {
            connection,
            requests,
            routing,
            realm: options.realm,
        };
        let handle = StoreHandle {
            requests: sender,
            routing: routing_receiver,
        };
        Ok((service, handle))
    }

    /// A requester that has gone away is no failure: what it asked for is done all the same.
    async fn serve(&mut self, request: Request) {
        match request {
            Request::Apply {
                site,
                options,
                reply,
            } => {
                let result = self.apply(&site, options).await;
                let _ = reply.send(result);
            }
            Request::SetAvailability {
                tenant,
                extension,
                availability,
                reply,
            } => {
                let result = self
                    .set_availability(tenant.as_ref(), &extension, availability)
                    .await;
                let _ = reply.send(result);
            }
            Request::SetForwards {
                tenant,
                extension,
                forwards,
                reply,
            } => {
                let result = self
                    .set_forwards(tenant.as_ref(), &extension, &forwards)
                    .await;
                let _ = reply.send(result);
            }
            Request::Reload { reply } => {
                let _ = reply.send(self.reload().await);
            }
            Request::Ping { reply } => {
                let _ = reply.send(connection::ping(&mut self.connection).await);
            }
            Request::Members { reply } => {
                let _ = reply.send(directory::members(&mut self.connection).await);
            }
            Request::Dids { reply } => {
                let _ = reply.send(directory::dids(&mut self.connection).await);
            }
            Request::Trunks { reply } => {
                let _ = reply.send(directory::trunks(&mut self.connection).await);
            }
            Request::OutboundUsage {
                since_unix_ms,
                reply,
            } => {
                let used = usage::outbound(&mut self.connection, since_unix_ms).await;
                let _ = reply.send(used);
            }
            Request::Records { query, reply } => {
                let _ = reply.send(recordings::calls(&mut self.connection, query).await);
            }
            Request::Recordings { query, reply } => {
                let _ = reply.send(recordings::list(&mut self.connection, query).await);
            }
            Request::AddRecords { records, reply } => {
                let _ = reply.send(records::add(&mut self.connection, &records).await);
            }
        }
    }

    async fn apply(&mut self, site: &Site, options: ApplyOptions) -> Result<Plan, StoreError> {
        let plan = directory::apply(&mut self.connection, site, options).await?;
        if !options.dry_run && !plan.changes.is_empty() {
            self.reload().await?;
        }
        Ok(plan)
    }

    async fn set_availability(
        &mut self,
        tenant: Option<&Name>,
        extension: &Extension,
        availability: Availability,
    ) -> Result<String, StoreError> {
        let tenant =
            directory::set_availability(&mut self.connection, tenant, extension, availability)
                .await?;
        self.reload().await?;
        Ok(tenant)
    }

    async fn set_forwards(
        &mut self,
        tenant: Option<&Name>,
        extension: &Extension,
        forwards: &[(ForwardEvent, Option<String>)],
    ) -> Result<String, StoreError> {
        let connection = &mut self.connection;
        let tenant = directory::set_forwards(connection, tenant, extension, forwards).await?;
        self.reload().await?;
        Ok(tenant)
    }

    async fn reload(&mut self) -> Result<(), StoreError> {
        let snapshot = load(&mut self.connection, &self.realm).await?;
        self.routing.send_replace(snapshot);
        Ok(())
    }
}

async fn load(
    connection: &mut SqliteConnection,
    realm: &str,
) -> Result<Arc<RoutingSnapshot>, StoreError> {
    let snapshot = directory::snapshot(connection).await?;
    let foreign = snapshot.members_outside_realm(realm);
    if foreign > 0 {
        tracing::warn!(
            members = foreign,
            realm,
            "members whose password was hashed for another realm cannot register; apply the site file again"
        );
    }
    Ok(Arc::new(snapshot))
}
