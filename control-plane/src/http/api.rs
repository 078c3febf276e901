//! The API: live calls, and what is to be done to one.
//!
//! | request | answer |
//! |---|---|
//! | `GET /api/v1/calls?limit=N` | 200, the calls as `trunkline-control calls --json` has them |
//! | `POST /api/v1/calls/{id}/actions` | 204 when the edge does it; 404 no such call; 409 it cannot be done, with the reason; 422 not an action |
//!
//! A body of `POST` is one action, for example `{"action":"play","source":"tone:ringback"}`;
//! [`crate::switch::CallAction`] lists them. It must be `application/json`, which no web page of
//! another origin may send without asking first.

use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::HttpSources;
use crate::operator::{ActFailed, OperatorRequest};
use crate::switch::CallAction;

/// How long the call thread and the edge are waited for: a long file takes a while to be read.
const PATIENCE: Duration = Duration::from_secs(5);

/// Calls in one answer.
const LIMIT_MAX: usize = 10_000;

/// Largest body of an action, bytes.
const BODY_LEN_MAX: usize = 4_096;

pub(super) fn routes() -> Router<HttpSources> {
    Router::new()
        .route("/api/v1/calls", get(calls))
        .route("/api/v1/calls/{id}/actions", post(act))
        .layer(DefaultBodyLimit::max(BODY_LEN_MAX))
}

#[derive(Debug, Deserialize)]
struct CallsQuery {
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

async fn calls(State(sources): State<HttpSources>, Query(query): Query<CallsQuery>) -> Response {
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
        Some(Ok(())) => StatusCode::NO_CONTENT.into_response(),
        Some(Err(failed @ ActFailed::NoSuchCall(_))) => {
            problem(StatusCode::NOT_FOUND, failed.to_string())
        }
        Some(Err(failed @ ActFailed::Refused(_))) => {
            problem(StatusCode::CONFLICT, failed.to_string())
        }
        None => busy(),
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
