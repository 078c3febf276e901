//! Answering what does not parse: RFC 3261 §8.2 asks for a response wherever one can be sent.
//!
//! The five headers a response copies are looked for by hand, line by line, because the parser
//! has given up on the message. No state is made, and the answer is never longer than the
//! question by more than a status line.

use bytes::Bytes;
use sipx_sip::error::{LimitKind, ParseError};
use sipx_sip::{HeaderName, Headers, Response, StatusCode};

use crate::flow::Flow;
use crate::message::{header, reason_phrase, stamp_via};

/// The response to `bytes` and the flow it takes; `None` when they are a response, an ACK or
/// nothing that names its sender.
pub(super) fn answer(flow: &Flow, bytes: &[u8], error: &ParseError) -> Option<(Flow, Response)> {
    let status = match error {
        ParseError::Limit {
            limit: LimitKind::BodyBytes,
            ..
        } => 413,
        ParseError::Limit {
            limit: LimitKind::MessageBytes,
            ..
        } => 513,
        _ => 400,
    };
    let mut lines = logical_lines(bytes).into_iter();
    let start = lines.next()?;
    let method = start.split(|&b| b == b' ').next().unwrap_or_default();
    let is_response = method.len() >= 4 && method[..4].eq_ignore_ascii_case(b"SIP/");
    if method.is_empty() || is_response || method == b"ACK" {
        return None;
    }

    let mut found = Headers::new();
    for line in lines {
        let Some(colon) = line.iter().position(|&b| b == b':') else {
            continue;
        };
        let name = HeaderName::parse(&Bytes::copy_from_slice(line[..colon].trim_ascii()));
        if COPIED.contains(&name) && (name == HeaderName::Via || found.get(&name).is_none()) {
            let value = line[colon + 1..].trim_ascii().to_vec();
            found.push(header(name, value));
        }
    }
    if COPIED.iter().any(|name| found.get(name).is_none()) {
        return None;
    }
    let reply_flow = stamp_via(&mut found, flow).ok()?;

    let status = StatusCode::new(status)?;
    let mut response = Response::new(status, reason_phrase(status.code()));
    for name in &COPIED {
        for row in found.get_all(name) {
            response.headers.push(row.clone());
        }
    }
    response
        .headers
        .push(header(HeaderName::ContentLength, "0"));
    Some((reply_flow, response))
}

static COPIED: [HeaderName; 5] = [
    HeaderName::Via,
    HeaderName::From,
    HeaderName::To,
    HeaderName::CallId,
    HeaderName::CSeq,
];

/// Lines of the head with their continuations joined. Bare LF counts as an end here: the worst
/// that comes of it is a 400.
fn logical_lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for line in bytes.split(|&b| b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match (line.first(), lines.last_mut()) {
            (None, None) => {}
            (None, Some(_)) => break,
            (Some(b' ' | b'\t'), Some(last)) => {
                last.push(b' ');
                last.extend_from_slice(line.trim_ascii());
            }
            _ => lines.push(line.to_vec()),
        }
    }
    lines
}
