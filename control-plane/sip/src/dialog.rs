//! Dialogs: RFC 3261 §12.
//!
//! A call drops after 32 s when an ACK goes astray, and it never ends when a BYE does. Both go to
//! the peer's `Contact` as request URI, along the `Record-Route` of the message that formed the
//! dialog (as it stands for the UAS, reversed for the UAC), and the first `Route` names the next
//! hop. A `Contact` is never rewritten, private or not: where it cannot be reached,
//! [`Flow::towards`] stays on the flow that is known to work.

use bytes::Bytes;
use sipx_sip::headers::{Address, CSeq, Contact, From, RecordRoute, To};
use sipx_sip::{HeaderName, Headers, Host, Method, Request, Response, Uri};

use crate::flow::Flow;
use crate::message::{self, LocalTag, MAX_FORWARDS, header};

/// `Record-Route` values one dialog may carry; a request through more proxies is refused. A path
/// of 70 hops is the most `Max-Forwards` allows, real ones have fewer than ten.
const ROUTES_MAX: usize = 32;

/// One of the proxies that asked to stay on the path.
#[derive(Debug, Clone)]
struct Route {
    /// The address as received, without surrounding space.
    value: Bytes,
    uri: Uri,
}

impl Route {
    /// RFC 3261 §16.12.1.1: a proxy that does not say `lr` wants the request URI for itself.
    fn is_loose(&self) -> bool {
        self.uri
            .params()
            .is_some_and(|params| params.contains("lr"))
    }
}

/// Why a message cannot form a dialog; the text is the reason phrase of a 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoDialog(pub(crate) &'static str);

/// The state both ends share, from our end.
#[derive(Debug, Clone)]
pub(crate) struct Dialog {
    pub(crate) call_id: Bytes,
    pub(crate) local_tag: LocalTag,
    /// `From` of our requests, tag included.
    local: Bytes,
    /// `To` of our requests; without a tag until the peer gave one.
    remote: Bytes,
    /// `None` until the peer gave one, and for RFC 2543 peers that never do.
    pub(crate) remote_tag: Option<Bytes>,
    remote_target: Uri,
    route_set: Vec<Route>,
    pub(crate) local_cseq: u32,
    /// `None` until the peer sent a request.
    pub(crate) remote_cseq: Option<u32>,
    /// The value of our `Contact`.
    pub(crate) contact: Bytes,
    /// The flow of the message that formed the dialog or last refreshed its target.
    pub(crate) flow: Flow,
}

impl Dialog {
    /// The dialog that an INVITE of ours will form. `from` carries no tag.
    pub(crate) fn calling(
        call_id: Bytes,
        local_tag: LocalTag,
        from: &[u8],
        to: Bytes,
        target: Uri,
        contact: Bytes,
        flow: Flow,
    ) -> Self {
        Self {
            call_id,
            local_tag,
            local: message::tagged_value(from, local_tag),
            remote: to,
            remote_tag: None,
            remote_target: target,
            route_set: Vec::new(),
            local_cseq: 0,
            remote_cseq: None,
            contact,
            flow,
        }
    }

    /// The dialog that a received INVITE forms (RFC 3261 §12.1.1).
    pub(crate) fn called(
        request: &Request,
        flow: Flow,
        local_tag: LocalTag,
    ) -> Result<Self, NoDialog> {
        let copied = |name: &HeaderName, missing| {
            let value = request.headers.value(name).ok_or(NoDialog(missing))?;
            Ok(Bytes::copy_from_slice(&value))
        };
        let from = match request.headers.typed::<From>() {
            Some(Ok(from)) => from,
            _ => return Err(NoDialog("Bad From")),
        };
        let cseq = match request.headers.typed::<CSeq>() {
            Some(Ok(cseq)) => cseq,
            _ => return Err(NoDialog("Bad CSeq")),
        };
        let remote_target = contact_uri(&request.headers)?.ok_or(NoDialog("Missing Contact"))?;
        let to = copied(&HeaderName::To, "Missing To")?;
        let route_set = route_set(&request.headers)?;
        // RFC 3261 §12.1.1.
        let first_hop = route_set.first().map_or(&remote_target, |route| &route.uri);
        let is_secure = request.uri.scheme().is_secure() || first_hop.scheme().is_secure();
        Ok(Self {
            call_id: copied(&HeaderName::CallId, "Missing Call-ID")?,
            local_tag,
            local: message::tagged_value(&to, local_tag),
            remote: copied(&HeaderName::From, "Missing From")?,
            remote_tag: from.tag().map(Bytes::copy_from_slice),
            remote_target,
            route_set,
            local_cseq: 0,
            remote_cseq: Some(cseq.sequence),
            contact: message::contact_value(request.uri.user(), &flow, is_secure),
            flow,
        })
    }

    /// The dialog of a 2xx whose INVITE nobody remembers, to hang it up along `flow`. `None` when
    /// the 2xx does not name the dialog.
    pub(crate) fn of_stray_answer(response: &Response, flow: Flow) -> Option<Self> {
        let copied = |name: &HeaderName| {
            let value = response.headers.value(name)?;
            Some(Bytes::copy_from_slice(&value))
        };
        let mut route_set = route_set(&response.headers).ok()?;
        route_set.reverse();
        Some(Self {
            call_id: copied(&HeaderName::CallId)?,
            local_tag: LocalTag(0),
            local: copied(&HeaderName::From)?,
            remote: copied(&HeaderName::To)?,
            remote_tag: None,
            remote_target: contact_uri(&response.headers).ok()??,
            route_set,
            local_cseq: 0,
            remote_cseq: None,
            contact: Bytes::new(),
            flow,
        })
    }

    /// Takes on what a 2xx to our INVITE says (RFC 3261 §12.1.2). What it leaves out or garbles
    /// stays as it was: an answered call is worth more than a strict reading.
    pub(crate) fn adopt(&mut self, response: &Response) {
        if let Some(to) = response.headers.value(&HeaderName::To) {
            self.remote = Bytes::copy_from_slice(&to);
        }
        self.remote_tag = to_tag(&response.headers);
        if let Ok(mut routes) = route_set(&response.headers) {
            routes.reverse();
            self.route_set = routes;
        }
        self.refresh_target(&response.headers);
    }

    /// Takes a new remote target from a re-INVITE, an UPDATE or a 2xx to one (RFC 3261 §12.2).
    pub(crate) fn refresh_target(&mut self, headers: &Headers) {
        if let Ok(Some(uri)) = contact_uri(headers) {
            self.remote_target = uri;
        }
    }

    /// Whether `tag` is the peer's. An unknown one is not checked: early dialogs of a fork differ
    /// in it.
    pub(crate) fn is_remote_tag(&self, tag: Option<&[u8]>) -> bool {
        self.remote_tag.is_none() || self.remote_tag.as_deref() == tag
    }

    /// The next number for a request of ours.
    pub(crate) fn next_cseq(&mut self) -> u32 {
        self.local_cseq += 1;
        self.local_cseq
    }

    /// A request inside the dialog and the flow to its next hop (RFC 3261 §12.2.1.1). Headers
    /// beyond those every request has, and the body, are the caller's to add, `Content-Length`
    /// included.
    pub(crate) fn request(&self, method: Method, cseq: u32, branch: u64) -> (Request, Flow) {
        let strict = self.route_set.first().filter(|first| !first.is_loose());
        let target = strict.map_or(&self.remote_target, |first| &first.uri);
        let next_hop = self.route_set.first().map_or(target, |first| &first.uri);
        let flow = self.flow.towards(next_hop);

        let mut routes: Vec<Bytes> = Vec::with_capacity(self.route_set.len());
        let behind = self.route_set.iter().skip(usize::from(strict.is_some()));
        routes.extend(behind.map(|route| route.value.clone()));
        if strict.is_some() {
            let mut last = b"<".to_vec();
            self.remote_target.write_to(&mut last);
            last.push(b'>');
            routes.push(Bytes::from(last));
        }
        let request = self.build(method, target, routes, cseq, (branch, &flow));
        (request, flow)
    }

    /// A request that goes along the dialog's flow whatever its target and routes say: the one
    /// that will form the dialog, whose first hop its user chose.
    pub(crate) fn request_along_flow(&self, method: Method, cseq: u32, branch: u64) -> Request {
        let routes = self.route_set.iter().map(|route| route.value.clone());
        let routes = routes.collect();
        self.build(
            method,
            &self.remote_target,
            routes,
            cseq,
            (branch, &self.flow),
        )
    }

    fn build(
        &self,
        method: Method,
        target: &Uri,
        routes: Vec<Bytes>,
        cseq: u32,
        (branch, flow): (u64, &Flow),
    ) -> Request {
        let mut request = Request::new(method.clone(), without_headers(target.clone()));
        let headers = &mut request.headers;
        headers.push(header(HeaderName::Via, message::via_value(flow, branch)));
        headers.push(header(HeaderName::MaxForwards, MAX_FORWARDS.to_string()));
        for route in routes {
            headers.push(header(HeaderName::Route, route));
        }
        headers.push(header(HeaderName::From, self.local.clone()));
        headers.push(header(HeaderName::To, self.remote.clone()));
        headers.push(header(HeaderName::CallId, self.call_id.clone()));
        headers.push(header(HeaderName::CSeq, format!("{cseq} {method}")));
        request
    }
}

/// The tag in `To`, in bytes of its own.
pub(crate) fn to_tag(headers: &Headers) -> Option<Bytes> {
    match headers.typed::<To>() {
        Some(Ok(to)) => to.tag().map(Bytes::copy_from_slice),
        _ => None,
    }
}

/// The one usable `Contact`: `None` when there is no such header.
fn contact_uri(headers: &Headers) -> Result<Option<Uri>, NoDialog> {
    const BAD: NoDialog = NoDialog("Bad Contact");
    match headers.typed::<Contact>() {
        None => Ok(None),
        Some(Ok(Contact(Address { uri, .. }))) if uri.scheme().is_sip() => match uri.host() {
            Some(Host::Ip(ip)) if ip.is_multicast() => Err(BAD),
            _ => Ok(Some(uri)),
        },
        Some(_) => Err(BAD),
    }
}

/// `Record-Route` from top to bottom.
fn route_set(headers: &Headers) -> Result<Vec<Route>, NoDialog> {
    let mut routes = Vec::new();
    for route in headers.typed_all::<RecordRoute>() {
        let RecordRoute(address) = route.map_err(|_| NoDialog("Bad Record-Route"))?;
        if routes.len() == ROUTES_MAX || !address.uri.scheme().is_sip() {
            return Err(NoDialog("Bad Record-Route"));
        }
        let mut value = b"<".to_vec();
        address.uri.write_to(&mut value);
        value.push(b'>');
        for param in &address.params {
            value.push(b';');
            value.extend_from_slice(&param.name);
            if let Some(text) = &param.value {
                value.push(b'=');
                value.extend_from_slice(&quoted_where_needed(text));
            }
        }
        routes.push(Route {
            value: Bytes::from(value),
            uri: address.uri,
        });
    }
    Ok(routes)
}

/// A parameter value as it must stand on the wire: the parser took its quotes off.
fn quoted_where_needed(text: &[u8]) -> Vec<u8> {
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b"-.!%*_+`'~[]:/".contains(b);
    if !text.is_empty() && text.iter().all(is_plain) {
        return text.to_vec();
    }
    let mut quoted = vec![b'"'];
    for &byte in text {
        if matches!(byte, b'"' | b'\\') {
            quoted.push(b'\\');
        }
        quoted.push(byte);
    }
    quoted.push(b'"');
    quoted
}

/// A request URI carries no `?header=value` part (RFC 3261 §19.1.1), a `Contact` may.
pub(crate) fn without_headers(mut uri: Uri) -> Uri {
    while uri.has_headers() {
        let Some(name) = uri
            .headers()
            .and_then(|headers| headers.iter().next())
            .map(|first| String::from_utf8_lossy(first.name()).into_owned())
        else {
            break;
        };
        if !uri.remove_header(&name) {
            break;
        }
    }
    uri
}

#[cfg(test)]
mod tests;
