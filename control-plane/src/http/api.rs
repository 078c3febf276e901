//! The API: live calls and conferences, what is to be done to one, and what has happened in it.
//!
//! | request | answer |
//! |---|---|
//! | `GET /api/v1/calls?limit=N` | 200, the calls as `trunkline-control calls --json` has them |
//! | `POST /api/v1/calls/{id}/actions` | 204 when the edge does it; 404 no such call; 409 it cannot be done, with the reason; 422 not an action |
//! | `GET /api/v1/calls/{id}/events` | 200, what has happened in its media; with `Accept: text/event-stream` also what happens from now on ([`super::events`]) |
//! | `GET /api/v1/calls/{id}/trace` | 200, the SIP messages of a call, live or over; text with `Accept: text/plain`, a capture file with `application/vnd.tcpdump.pcap`; 404 nothing is remembered |
//! | `GET /api/v1/trunks` | 200, the trunks as `trunkline-control trunks --json` has them |
//! | `GET /api/v1/conferences` | 200, conferences with members |
//! | `POST /api/v1/conferences/{name}/actions?tenant=T` | as for calls; the tenant may be left out where one alone has the name |
//! | `GET /api/v1/recordings?limit=N` | 200, recordings that are over, the newest first |
//!
//! A body of `POST` is one action, for example `{"action":"play","source":"tone:ringback"}`;
//! [`CallAction`] and [`ConferenceAction`] list them. It must be `application/json`, which no web page of
//! another origin may send without asking first.

use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::HttpSources;
use super::listener::ConnectionLife;
use crate::operator::{ActFailed, OperatorRequest};
use crate::store::RecordQuery;
use crate::switch::{CallAction, ConferenceAction};
use crate::trace::{TracedMessage, ladder, pcap};

/// How long the call thread and the edge are waited for: a long file takes a while to be read.
const PATIENCE: Duration = Duration::from_secs(5);

/// Type of a capture file.
const CAPTURE: &str = "application/vnd.tcpdump.pcap";

/// Calls in one answer.
const LIMIT_MAX: usize = 10_000;

/// Largest body of an action, bytes.
const BODY_LEN_MAX: usize = 4_096;

pub(super) fn routes() -> Router<HttpSources> {
    Router::new()
        .route("/api/v1/calls", get(calls))
        .route("/api/v1/calls/{id}/actions", post(act))
        .route("/api/v1/calls/{id}/events", get(events))
        .route("/api/v1/calls/{id}/trace", get(trace))
        .route("/api/v1/trunks", get(trunks))
        .route("/api/v1/conferences", get(conferences))
        .route("/api/v1/conferences/{name}/actions", post(confer))
        .route("/api/v1/recordings", get(recordings))
        .layer(DefaultBodyLimit::max(BODY_LEN_MAX))
}

/// How many of a list are wanted.
#[derive(Debug, Deserialize)]
struct ListQuery {
    #[serde(default = "default_limit")]
    limit: usize,
}

fn default_limit() -> usize {
    100
}

#[derive(Debug, Serialize)]
struct Problem {
    error: String,
}

fn problem(status: StatusCode, error: impl Into<String>) -> Response {
    let error = error.into();
    (status, Json(Problem { error })).into_response()
}

async fn calls(State(sources): State<HttpSources>, Query(query): Query<ListQuery>) -> Response {
    let limit = query.limit.min(LIMIT_MAX);
    match ask(&sources, |reply| OperatorRequest::Calls { limit, reply }).await {
        Some(report) => Json(report).into_response(),
        None => busy(),
    }
}

async fn act(
    State(sources): State<HttpSources>,
    Path(call_id): Path<String>,
    action: Result<Json<CallAction>, JsonRejection>,
) -> Response {
    let action = match action {
        Ok(Json(action)) => action,
        Err(rejection) => return problem(rejection.status(), rejection.body_text()),
    };
    let asked = ask(&sources, |reply| OperatorRequest::Act {
        call_id,
        action,
        reply,
    });
    match asked.await {
        Some(result) => done(result),
        None => busy(),
    }
}

async fn events(
    State(sources): State<HttpSources>,
    Path(call_id): Path<String>,
    ConnectInfo(life): ConnectInfo<ConnectionLife>,
    headers: HeaderMap,
) -> Response {
    if super::events::wants_stream(&headers) {
        let asked = ask(&sources, |reply| OperatorRequest::Follow { call_id, reply });
        return match asked.await {
            Some(Ok(following)) => super::events::stream(following, &headers, &life),
            Some(Err(failed)) => done(Err(failed)),
            None => busy(),
        };
    }
    let asked = ask(&sources, |reply| OperatorRequest::Events { call_id, reply });
    match asked.await {
        Some(Ok(report)) => Json(report).into_response(),
        Some(Err(failed)) => done(Err(failed)),
        None => busy(),
    }
}

/// As JSON, or as text or a capture file where `Accept` asks for that.
async fn trace(
    State(sources): State<HttpSources>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some(traced) = ask(&sources, |reply| OperatorRequest::Trace { id, reply }).await else {
        return busy();
    };
    if traced.is_empty() {
        return problem(StatusCode::NOT_FOUND, "nothing is remembered of that call");
    }
    let messages: Vec<TracedMessage> = traced.iter().map(TracedMessage::from).collect();
    let accepts = |kind: &str| {
        let accept = headers
            .get(header::ACCEPT)
            .and_then(|accept| accept.to_str().ok());
        accept.is_some_and(|accept| accept.contains(kind))
    };
    if accepts(CAPTURE) {
        ([(header::CONTENT_TYPE, CAPTURE)], pcap::write(&messages)).into_response()
    } else if accepts("text/plain") {
        ladder::write(&messages, true).into_response()
    } else {
        Json(messages).into_response()
    }
}

async fn trunks(State(sources): State<HttpSources>) -> Response {
    match ask(&sources, OperatorRequest::Trunks).await {
        Some(trunks) => Json(trunks).into_response(),
        None => busy(),
    }
}

async fn conferences(State(sources): State<HttpSources>) -> Response {
    match ask(&sources, OperatorRequest::Conferences).await {
        Some(conferences) => Json(conferences).into_response(),
        None => busy(),
    }
}

#[derive(Debug, Deserialize)]
struct OfTenant {
    tenant: Option<String>,
}

async fn confer(
    State(sources): State<HttpSources>,
    Path(name): Path<String>,
    Query(OfTenant { tenant }): Query<OfTenant>,
    action: Result<Json<ConferenceAction>, JsonRejection>,
) -> Response {
    let action = match action {
        Ok(Json(action)) => action,
        Err(rejection) => return problem(rejection.status(), rejection.body_text()),
    };
    let asked = ask(&sources, |reply| OperatorRequest::Confer {
        tenant,
        name,
        action,
        reply,
    });
    match asked.await {
        Some(result) => done(result),
        None => busy(),
    }
}

async fn recordings(
    State(sources): State<HttpSources>,
    Query(query): Query<ListQuery>,
) -> Response {
    let query = RecordQuery {
        limit: query.limit.min(LIMIT_MAX) as u32,
        since_unix_ms: None,
    };
    match tokio::time::timeout(PATIENCE, sources.store.recordings(query)).await {
        Ok(Ok(recordings)) => Json(recordings).into_response(),
        Ok(Err(error)) => problem(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        Err(_) => problem(StatusCode::SERVICE_UNAVAILABLE, "the store does not answer"),
    }
}

fn done(result: Result<(), ActFailed>) -> Response {
    match result {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(failed @ ActFailed::NotFound(_)) => problem(StatusCode::NOT_FOUND, failed.to_string()),
        Err(failed @ ActFailed::Refused(_)) => problem(StatusCode::CONFLICT, failed.to_string()),
    }
}

fn busy() -> Response {
    let error = "neither call thread nor edge has answered in time";
    problem(StatusCode::SERVICE_UNAVAILABLE, error)
}

async fn ask<T>(
    sources: &HttpSources,
    request: impl FnOnce(oneshot::Sender<T>) -> OperatorRequest,
) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    sources.calls.try_send(request(reply)).ok()?;
    tokio::time::timeout(PATIENCE, answer).await.ok()?.ok()
}
