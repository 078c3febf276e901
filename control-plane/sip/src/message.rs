//! Building and reading messages: what is common to requests and responses of every leg.
//!
//! Values that come from a peer and go back to it (`To`, `From`, `Via`) pass through [`header`],
//! so that no byte of them can end a line.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use sipx_sip::headers::{ContentType, Require};
use sipx_sip::{
    Header, HeaderName, Headers, Host, Message, Request, Response, StatusCode, Via, headers,
};

use crate::agent::NameAddr;
use crate::flow::{Flow, TransportKind};

/// Methods the agent understands, for `Allow` (RFC 3261 §20.5).
pub(crate) const ALLOW: &str =
    "INVITE, ACK, BYE, CANCEL, OPTIONS, INFO, PRACK, UPDATE, REFER, NOTIFY, REGISTER";

/// The one body type the agent understands.
pub(crate) const ACCEPT: &str = "application/sdp";

/// Hops a request of ours may take (RFC 3261 §8.1.1.6).
pub(crate) const MAX_FORWARDS: u8 = 70;

/// A tag of ours: 64 random bits, 16 lower-case hexadecimal digits on the wire. It names a leg by
/// itself, so a dialog is found without building a key of Call-ID and two tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LocalTag(pub(crate) u64);

impl LocalTag {
    /// `None` for anything that is not exactly what [`std::fmt::Display`] writes.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != 16 || !text.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let text = std::str::from_utf8(text).ok()?;
        u64::from_str_radix(text, 16).ok().map(Self)
    }
}

impl std::fmt::Display for LocalTag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A header of the agent's own making. Bytes that could end a line become spaces.
pub(crate) fn header(name: HeaderName, value: impl Into<Bytes>) -> Header {
    let ends_line = |b: u8| matches!(b, b'\r' | b'\n' | 0);
    let mut value = value.into();
    if value.iter().any(|&b| ends_line(b)) {
        let clean = value.iter().map(|&b| if ends_line(b) { b' ' } else { b });
        value = clean.collect();
    }
    Header::build(name, value).expect("a known name and no line breaks")
}

/// The message as it goes on the wire.
pub(crate) fn to_wire(message: &Message) -> Bytes {
    // Our INVITE with its offer takes some 900 bytes; one allocation for nearly every message.
    let mut out = Vec::with_capacity(1_024);
    message.write_to(&mut out);
    Bytes::from(out)
}

/// Sets the body with its type and length. An empty body has no type.
pub(crate) fn set_body(headers: &mut Headers, body: &Bytes) {
    set_body_of(headers, ACCEPT, body);
}

/// The same for a body of another type than SDP.
pub(crate) fn set_body_of(headers: &mut Headers, kind: &'static str, body: &Bytes) {
    if !body.is_empty() {
        headers.push(header(HeaderName::ContentType, kind));
    }
    headers.push(header(HeaderName::ContentLength, body.len().to_string()));
}

/// What a message carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    Empty,
    Sdp(Bytes),
    /// Something the agent does not read: another type, an encoding, no type at all.
    Unsupported,
}

impl Body {
    pub(crate) fn of(headers: &Headers, body: &Bytes) -> Self {
        if body.is_empty() {
            return Self::Empty;
        }
        let identity = headers
            .value(&HeaderName::ContentEncoding)
            .is_none_or(|coding| coding.eq_ignore_ascii_case(b"identity"));
        match headers.typed::<ContentType>() {
            Some(Ok(kind)) if kind.is("application", "sdp") && identity => Self::Sdp(body.clone()),
            _ => Self::Unsupported,
        }
    }

    /// The description in a response or an ACK, where nothing can be answered to a wrong type.
    pub(crate) fn sdp_of(headers: &Headers, body: &Bytes) -> Option<Bytes> {
        match Self::of(headers, body) {
            Self::Sdp(sdp) => Some(sdp),
            Self::Empty | Self::Unsupported => None,
        }
    }
}

/// Extensions of the agent, for `Supported` (RFC 3261 §20.37).
pub(crate) const SUPPORTED: &str = "100rel, timer, replaces, norefersub";

/// Options a request demands and the agent lacks; `None` when there are none. The value is that of `Unsupported` (RFC 3261 §8.2.2.3).
pub(crate) fn unsupported_options(request: &Request) -> Option<String> {
    let mut options = Vec::new();
    for require in request.headers.typed_all::<Require>() {
        match require {
            Ok(require) => {
                options.extend(
                    require
                        .0
                        .0
                        .iter()
                        .map(|o| String::from_utf8_lossy(o).into_owned())
                        .filter(|option| {
                            !SUPPORTED
                                .split(", ")
                                .any(|known| known.eq_ignore_ascii_case(option))
                        }),
                );
            }
            Err(_) => return Some("unreadable".to_owned()),
        }
    }
    (!options.is_empty()).then(|| options.join(", "))
}

/// A response to `request` with the headers of RFC 3261 §8.2.6.2. `tag` goes into a `To` that has
/// none. `None` when the request lacks one of them and so cannot be answered.
pub(crate) fn response_to(
    request: &Request,
    status: u16,
    reason: Option<&str>,
    tag: Option<LocalTag>,
) -> Option<Response> {
    let status = StatusCode::new(status)?;
    let reason = reason.unwrap_or_else(|| reason_phrase(status.code()));
    let reason: String = reason.chars().filter(|c| !c.is_control()).collect();
    let mut response = Response::new(status, reason);
    for name in [
        HeaderName::Via,
        HeaderName::From,
        HeaderName::To,
        HeaderName::CallId,
        HeaderName::CSeq,
    ] {
        let before = response.headers.len();
        for row in request.headers.get_all(&name) {
            response.headers.push(match tag {
                Some(tag) if name == HeaderName::To => with_tag(row, tag),
                _ => row.clone(),
            });
        }
        if response.headers.len() == before {
            return None;
        }
    }
    Some(response)
}

fn with_tag(to: &Header, tag: LocalTag) -> Header {
    let value = to.value();
    let tagged = headers::Address::parse(&value, "To").is_ok_and(|address| address.tag().is_some());
    if tagged {
        return to.clone();
    }
    header(HeaderName::To, tagged_value(&value, tag))
}

/// `value;tag=…`, with the brackets an address without them needs to take a parameter. Such an
/// address ends at its first semicolon, so a parameter stays one of the header either way.
pub(crate) fn tagged_value(value: &[u8], tag: LocalTag) -> Bytes {
    let mut tagged = value.to_vec();
    tagged.extend_from_slice(format!(";tag={tag}").as_bytes());
    Bytes::from(tagged)
}

/// `"Display" <uri>` as a header value.
pub(crate) fn name_addr_value(address: &NameAddr) -> Vec<u8> {
    let mut value = Vec::with_capacity(96);
    if let Some(name) = &address.display_name {
        value.push(b'"');
        for byte in name.bytes().filter(|b| !b.is_ascii_control()) {
            if matches!(byte, b'"' | b'\\') {
                value.push(b'\\');
            }
            value.push(byte);
        }
        value.extend_from_slice(b"\" ");
    }
    value.push(b'<');
    address.uri.write_to(&mut value);
    value.push(b'>');
    value
}

/// Our `Contact` on `flow`: the user part the peer knows, our address, and nothing of any other
/// leg. `is_secure` where the dialog is one of `sips` URIs (RFC 3261 §12.1.1); such a URI means TLS
/// without saying so (RFC 5630 §3.1.4), and is of no use on a flow without.
pub(crate) fn contact_value(user: Option<&[u8]>, flow: &Flow, is_secure: bool) -> Bytes {
    let is_secure = is_secure && flow.kind.is_secure();
    let mut value = if is_secure {
        b"<sips:".to_vec()
    } else {
        b"<sip:".to_vec()
    };
    if let Some(user) = user {
        value.extend_from_slice(user);
        value.push(b'@');
    }
    value.extend_from_slice(flow.sent_by().as_bytes());
    let transport = flow.kind.uri_parameter();
    if let Some(transport) = transport.filter(|_| !is_secure || flow.kind.is_web()) {
        value.extend_from_slice(b";transport=");
        value.extend_from_slice(transport.as_bytes());
    }
    value.push(b'>');
    Bytes::from(value)
}

/// Our `Via` on `flow`. `rport` asks for symmetric responses (RFC 3581).
pub(crate) fn via_value(flow: &Flow, branch: u64) -> String {
    format!(
        "SIP/2.0/{} {};branch=z9hG4bK{branch:016x};rport",
        flow.kind.via_token(),
        flow.sent_by()
    )
}

/// Why a request cannot be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoUsableVia;

/// Notes in the top `Via` where the request came from and says where its responses go
/// (RFC 3261 §18.2.1 and §18.2.2, RFC 3581 §4). `maddr` is not followed: it would let a stranger
/// aim our responses.
pub(crate) fn stamp_via(headers: &mut Headers, flow: &Flow) -> Result<Flow, NoUsableVia> {
    let index = headers
        .iter()
        .position(|row| row.name() == &HeaderName::Via)
        .ok_or(NoUsableVia)?;
    let row = headers.get(&HeaderName::Via).ok_or(NoUsableVia)?;
    let value = row.value();
    let top = &value[..headers::first_hop_end(&value)];
    let via = Via::parse_one(top).map_err(|_| NoUsableVia)?;
    let source = flow.remote;
    let asks_for_rport = via.rport().is_some();
    let shows_source = matches!(via.host, Host::Ip(ip) if ip == source.ip());

    // On a stream the connection is what counts; the address is for the case that it has closed,
    // and a WebSocket's peer has none (RFC 7118 §5.2.2).
    let mut reply_flow = flow.clone();
    let is_stream = flow.kind.is_stream();
    if !flow.kind.is_web() && (is_stream || !asks_for_rport) {
        let port = via.port.unwrap_or(flow.kind.default_port());
        reply_flow.remote = SocketAddr::new(source.ip(), port);
    }
    if let (TransportKind::Tls, Host::Name(name)) = (flow.kind, &via.host) {
        reply_flow.domain = Some(String::from_utf8_lossy(name.as_bytes()).into());
    }
    if asks_for_rport || !shows_source {
        let mut stamped = if asks_for_rport {
            fill_rport(top, source.port())
        } else {
            top.to_vec()
        };
        stamped.extend_from_slice(b";received=");
        stamped.extend_from_slice(received_value(source.ip()).as_bytes());
        stamped.extend_from_slice(&value[top.len()..]);
        let stamped = header(HeaderName::Via, stamped);
        headers.remove_first(&HeaderName::Via);
        headers.insert(index, stamped);
    }
    Ok(reply_flow)
}

/// RFC 3261 §25.1: `received` takes an IPv6 address without brackets.
fn received_value(ip: IpAddr) -> String {
    ip.to_string()
}

/// Replaces the `rport` parameter, with or without a value, by `rport=port`. Quoted strings are
/// stepped over.
fn fill_rport(via: &[u8], port: u16) -> Vec<u8> {
    let mut out = Vec::with_capacity(via.len() + 32);
    let mut rest = via;
    while let Some(&byte) = rest.first() {
        if byte == b'"' {
            let end = quoted_end(rest);
            out.extend_from_slice(&rest[..end]);
            rest = &rest[end..];
            continue;
        }
        out.push(byte);
        rest = &rest[1..];
        if byte != b';' {
            continue;
        }
        let name_start = rest
            .iter()
            .take_while(|b| matches!(b, b' ' | b'\t'))
            .count();
        let parameter_end = rest.iter().position(|&b| b == b';').unwrap_or(rest.len());
        let parameter = &rest[name_start.min(parameter_end)..parameter_end];
        let name = parameter.split(|&b| b == b'=').next().unwrap_or_default();
        if name.trim_ascii().eq_ignore_ascii_case(b"rport") {
            out.extend_from_slice(format!("rport={port}").as_bytes());
            rest = &rest[parameter_end..];
        }
    }
    out
}

fn quoted_end(text: &[u8]) -> usize {
    let mut index = 1;
    while let Some(&byte) = text.get(index) {
        match byte {
            b'\\' => index += 2,
            b'"' => return index + 1,
            _ => index += 1,
        }
    }
    text.len()
}

/// The reason phrase of a status code; that of its class when the code is not one the agent or
/// its user sends.
pub(crate) fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        180 => "Ringing",
        181 => "Call Is Being Forwarded",
        182 => "Queued",
        183 => "Session Progress",
        200 => "OK",
        202 => "Accepted",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        410 => "Gone",
        413 => "Request Entity Too Large",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        420 => "Bad Extension",
        422 => "Session Interval Too Small",
        423 => "Interval Too Brief",
        469 => "Bad Info Package",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        483 => "Too Many Hops",
        484 => "Address Incomplete",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        491 => "Request Pending",
        500 => "Server Internal Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        505 => "Version Not Supported",
        513 => "Message Too Large",
        600 => "Busy Everywhere",
        603 => "Decline",
        604 => "Does Not Exist Anywhere",
        606 => "Not Acceptable",
        _ => match status / 100 {
            1 => "Progress",
            2 => "Success",
            3 => "Redirection",
            4 => "Request Failure",
            5 => "Server Failure",
            _ => "Global Failure",
        },
    }
}

#[cfg(test)]
mod tests;
