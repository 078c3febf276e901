//! What happens in a call, as server-sent events (the HTML standard, section 9.2).
//!
//! ```text
//! GET /api/v1/calls/6-2/events
//! Accept: text/event-stream
//!
//! id: 1
//! event: digit
//! data: {"seq":1,"at_unix_ms":…,"leg":"a","event":"digit","source":"event",…}
//! ```
//!
//! The stream begins with what has happened, goes on with what happens, and ends with the call. A
//! client that comes back says in `Last-Event-ID` what it has. A line that means nothing is sent
//! every [`KEEP_ALIVE`], so that a client that has gone is noticed; after [`STREAM_LIFE_MAX`] the
//! stream is cut, and a client that still listens comes back by itself.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderMap, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use super::listener::ConnectionLife;
use crate::operator::Following;
use crate::switch::CallEvent;

/// How long one stream lasts.
const STREAM_LIFE_MAX: Duration = Duration::from_secs(3_600);

/// How often a line is sent while nothing happens.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Whether the client asks for a stream.
pub(super) fn wants_stream(headers: &HeaderMap) -> bool {
    let accept = headers.get_all(header::ACCEPT).into_iter();
    let mut kinds = accept.filter_map(|value| value.to_str().ok());
    kinds.any(|kinds| kinds.contains("text/event-stream"))
}

/// The stream, from behind the event that the client had last.
pub(super) fn stream(following: Following, headers: &HeaderMap, life: &ConnectionLife) -> Response {
    life.extend(STREAM_LIFE_MAX);
    let last = headers.get("last-event-id");
    let last = last.and_then(|id| id.to_str().ok()?.parse::<u64>().ok());
    let mut past = VecDeque::from(following.report.events);
    past.retain(|event| last.is_none_or(|last| event.seq > last));
    let events = stream::unfold((past, following.events), async |(mut past, mut events)| {
        let event = match past.pop_front() {
            Some(event) => event,
            None => events.recv().await?,
        };
        Some((Ok::<_, Infallible>(to_sse(&event)), (past, events)))
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Sse::new(events).keep_alive(keep_alive).into_response()
}

fn to_sse(event: &CallEvent) -> Event {
    let value = serde_json::to_value(event).unwrap_or_default();
    let name = value["event"].as_str().unwrap_or_default();
    Event::default()
        .id(event.seq.to_string())
        .event(name)
        .data(value.to_string())
}
