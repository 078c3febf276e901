//! Messages as a phone writes them, and the fields it reads out of those it gets.

use std::net::SocketAddr;

use bytes::Bytes;
use sipx_sip::headers::Address;
use sipx_sip::{CSeq, Header, HeaderName, Headers, Host, Request, Uri, Via};

/// All of a request but the branch, so that it can be sent again with credentials.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) method: &'static str,
    pub(super) uri: String,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) call_id: String,
    pub(super) cseq: u32,
    pub(super) routes: Vec<String>,
    pub(super) headers: Vec<(String, String)>,
    /// The body; SDP unless a header says otherwise.
    pub(super) sdp: Option<String>,
}

impl Draft {
    /// The request as it goes on the wire.
    pub(super) fn encode(&self, via: &str, branch: &str) -> Bytes {
        let mut text = format!(
            "{} {} SIP/2.0\r\nVia: {via};branch={branch};rport\r\nMax-Forwards: 70\r\n",
            self.method, self.uri
        );
        for route in &self.routes {
            push_header(&mut text, "Route", route);
        }
        push_header(&mut text, "From", &self.from);
        push_header(&mut text, "To", &self.to);
        push_header(&mut text, "Call-ID", &self.call_id);
        push_header(&mut text, "CSeq", &format!("{} {}", self.cseq, self.method));
        for (name, value) in &self.headers {
            push_header(&mut text, name, value);
        }
        push_body(&mut text, self.sdp.as_deref());
        Bytes::from(text)
    }
}

/// A response to `request` (RFC 3261 §8.2.6): its Via, From, Call-ID, CSeq and Record-Route
/// copied, its To with `tag` where it has none.
pub(super) fn response(
    request: &Request,
    status: u16,
    tag: Option<&str>,
    headers: &[(String, String)],
    sdp: Option<&str>,
) -> Bytes {
    let mut text = format!("SIP/2.0 {status} {}\r\n", reason(status));
    for header in request.headers.iter() {
        let value = String::from_utf8_lossy(&header.value()).into_owned();
        match header.name() {
            HeaderName::Via => push_header(&mut text, "Via", &value),
            HeaderName::From => push_header(&mut text, "From", &value),
            HeaderName::CallId => push_header(&mut text, "Call-ID", &value),
            HeaderName::CSeq => push_header(&mut text, "CSeq", &value),
            HeaderName::RecordRoute => push_header(&mut text, "Record-Route", &value),
            HeaderName::To => {
                let tagged = match tag {
                    Some(tag) if tag_of(&request.headers, &HeaderName::To).is_none() => {
                        format!("{value};tag={tag}")
                    }
                    _ => value,
                };
                push_header(&mut text, "To", &tagged);
            }
            _ => {}
        }
    }
    for (name, value) in headers {
        push_header(&mut text, name, value);
    }
    push_body(&mut text, sdp);
    Bytes::from(text)
}

fn push_header(text: &mut String, name: &str, value: &str) {
    text.push_str(name);
    text.push_str(": ");
    text.push_str(value);
    text.push_str("\r\n");
}

fn push_body(text: &mut String, sdp: Option<&str>) {
    let body = sdp.unwrap_or_default();
    if sdp.is_some() && !text.contains("\r\nContent-Type:") {
        push_header(text, "Content-Type", "application/sdp");
    }
    push_header(text, "Content-Length", &body.len().to_string());
    text.push_str("\r\n");
    text.push_str(body);
}

/// RFC 3261 §21, for those that tests send.
fn reason(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        180 => "Ringing",
        183 => "Session Progress",
        200 => "OK",
        404 => "Not Found",
        405 => "Method Not Allowed",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        491 => "Request Pending",
        500 => "Server Internal Error",
        503 => "Service Unavailable",
        600 => "Busy Everywhere",
        603 => "Decline",
        _ => "Status",
    }
}

pub(super) fn text(headers: &Headers, name: &HeaderName) -> Option<String> {
    headers
        .value(name)
        .map(|value| String::from_utf8_lossy(&value).into_owned())
}

pub(super) fn branch(headers: &Headers) -> Option<String> {
    let via = headers.typed::<Via>()?.ok()?;
    via.branch()
        .map(|branch| String::from_utf8_lossy(branch).into_owned())
}

pub(super) fn cseq(headers: &Headers) -> Option<CSeq> {
    headers.typed::<CSeq>()?.ok()
}

pub(super) fn tag_of(headers: &Headers, name: &HeaderName) -> Option<String> {
    let value = headers.value(name)?;
    let address = Address::parse(&value, "From or To").ok()?;
    address
        .tag()
        .map(|tag| String::from_utf8_lossy(tag).into_owned())
}

/// URI of the Contact: where requests inside the dialog are addressed (RFC 3261 §12.1).
pub(super) fn contact(headers: &Headers) -> Option<String> {
    let value = headers.value(&HeaderName::Contact)?;
    let address = Address::parse_list(&value, "Contact")
        .ok()?
        .into_iter()
        .next()?;
    Some(String::from_utf8_lossy(&address.uri.to_bytes()).into_owned())
}

/// The Record-Route entries in the order of the message, as Route values.
pub(super) fn record_routes(headers: &Headers) -> Vec<String> {
    headers
        .get_all(&HeaderName::RecordRoute)
        .filter_map(|header: &Header| Address::parse_list(&header.value(), "Record-Route").ok())
        .flatten()
        .map(|address| format!("<{}>", String::from_utf8_lossy(&address.uri.to_bytes())))
        .collect()
}

/// The socket address a URI names; `None` for a host name, which a phone on loopback never
/// has to resolve.
pub(super) fn address_of(uri: &str) -> Option<SocketAddr> {
    let uri = uri.trim_start_matches('<').trim_end_matches('>');
    let uri = Uri::parse(Bytes::copy_from_slice(uri.as_bytes())).ok()?;
    match uri.host()? {
        Host::Ip(ip) => Some(SocketAddr::new(*ip, uri.port().unwrap_or(5060))),
        Host::Name(_) => None,
    }
}
