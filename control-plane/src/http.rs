//! `/healthz`, `/readyz`, `/metrics` and the API, on a thread of their own.
//!
//! | path | answers |
//! |---|---|
//! | `/healthz` | 200 while the call thread goes round, else 503: restart the daemon |
//! | `/readyz` | 200 when calls can be taken, else 503; JSON with each check |
//! | `/metrics` | Prometheus text format |
//! | `/api/v1/calls…` | live calls, what is to be done to one, and what has happened in it |
//! | `/api/v1/conferences…` | conferences with members, and what is to be done to one |
//! | `/api/v1/recordings` | what became of recordings |
//!
//! Loopback only; the configuration refuses anything else. A connection carries one request and
//! is cut after `CONNECTION_LIFE_MAX`, unless it follows a call; there are at most `CONNECTION_COUNT_MAX` of them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use trunkline_ring::monotonic_now;

use crate::cdr::CdrStatus;
use crate::config::HttpConfig;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::operator::OperatorRequest;
use crate::store::StoreHandle;

mod api;
mod events;
mod listener;
#[cfg(test)]
mod tests;

use listener::{ConnectionLife, LimitedListener};

/// Connections at one time; the next waits in the kernel's queue. Scrapers and probes need a few.
const CONNECTION_COUNT_MAX: usize = 32;

/// From accept to cut. A scrape takes milliseconds; the rest is patience with a slow reader.
const CONNECTION_LIFE_MAX: Duration = Duration::from_secs(10);

/// How long open connections are waited for at a stop.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// How long `/readyz` waits for the store.
const STORE_PATIENCE: Duration = Duration::from_secs(1);

/// What the answers are made of.
#[derive(Debug, Clone)]
pub struct HttpSources {
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
    /// The call thread's word.
    pub health: Arc<Health>,
    /// Asked by `/readyz`. It keeps the store open until the server has stopped.
    pub store: StoreHandle,
    /// The CDR writer's word.
    pub cdr: Arc<CdrStatus>,
    /// To the call thread. Bounded; when it is full the answer is 503.
    pub calls: mpsc::Sender<OperatorRequest>,
}

/// A running server.
#[derive(Debug)]
pub struct HttpServer {
    local: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl HttpServer {
    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Stops it. Blocks until open connections are done, for a second at most.
    pub fn stop(self) {
        // A server that has ended by itself has nothing left to stop.
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

/// Binds the socket and starts the thread.
///
/// # Errors
/// The address is taken or not this machine's.
pub fn spawn(config: &HttpConfig, sources: HttpSources) -> io::Result<HttpServer> {
    let socket = std::net::TcpListener::bind(config.listen).map_err(|error| {
        let message = format!("[http] listen = \"{}\": {error}", config.listen);
        io::Error::new(error.kind(), message)
    })?;
    socket.set_nonblocking(true)?;
    let local = socket.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = std::thread::Builder::new()
        .name("http".to_owned())
        .spawn(move || {
            if let Err(error) = runtime.block_on(serve(socket, sources, stopped)) {
                tracing::error!(%error, "the HTTP server has ended");
            }
        })?;
    Ok(HttpServer {
        local,
        stop,
        thread,
    })
}

async fn serve(
    socket: std::net::TcpListener,
    sources: HttpSources,
    stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let listener = LimitedListener::new(
        tokio::net::TcpListener::from_std(socket)?,
        CONNECTION_COUNT_MAX,
        CONNECTION_LIFE_MAX,
    );
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .merge(api::routes())
        .layer(axum::middleware::map_response(one_request_per_connection))
        .with_state(sources);
    let (drain, drained) = oneshot::channel::<()>();
    let service = router.into_make_service_with_connect_info::<ConnectionLife>();
    let server = axum::serve(listener, service).with_graceful_shutdown(async {
        let _ = drained.await;
    });
    tokio::select! {
        result = server => result,
        () = async {
            // A dropped sender means the same.
            let _ = stopped.await;
            let _ = drain.send(());
            tokio::time::sleep(STOP_PATIENCE).await;
        } => Ok(()),
    }
}

/// An idle connection would hold one of a few places.
async fn one_request_per_connection(mut response: Response) -> Response {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

async fn healthz(State(sources): State<HttpSources>) -> (StatusCode, &'static str) {
    if sources.health.is_alive(monotonic_now()) {
        (StatusCode::OK, "ok\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the call thread stands still\n",
        )
    }
}

async fn metrics(State(sources): State<HttpSources>) -> Response {
    match sources.metrics.render() {
        Ok(text) => {
            let content_type = [(
                header::CONTENT_TYPE,
                "text/plain; version=0.0.4; charset=utf-8",
            )];
            (content_type, text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Body of `/readyz`.
#[derive(Debug, Serialize)]
struct Readiness {
    ready: bool,
    checks: Vec<Check>,
}

#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    detail: String,
}

impl Check {
    fn new(name: &'static str, problem: Option<String>) -> Self {
        Self {
            name,
            ok: problem.is_none(),
            detail: problem.unwrap_or_else(|| "ok".to_owned()),
        }
    }
}

async fn readyz(State(sources): State<HttpSources>) -> (StatusCode, Json<Readiness>) {
    let problem = |is_fine: bool, text: &str| (!is_fine).then(|| text.to_owned());
    let health = &sources.health;
    let store = match tokio::time::timeout(STORE_PATIENCE, sources.store.ping()).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("the store does not answer".to_owned()),
    };
    let checks = vec![
        Check::new(
            "call_thread",
            problem(health.is_alive(monotonic_now()), "it stands still"),
        ),
        Check::new(
            "edge",
            problem(
                health.is_edge_connected(),
                "not connected; is trunkline-edge running with the same [node] run_dir?",
            ),
        ),
        Check::new("store", store),
        Check::new("cdr", sources.cdr.problem()),
        Check::new(
            "drain",
            problem(!health.is_draining(), "the daemon is stopping"),
        ),
    ];
    let ready = checks.iter().all(|check| check.ok);
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(Readiness { ready, checks }))
}
