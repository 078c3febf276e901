//! What of `Path` (RFC 3327), outbound (RFC 5626) and GRUU (RFC 5627) a REGISTER speaks.
//!
//! ```text
//! REGISTER, Supported: path, outbound, gruu
//!           Via: edge proxy, Via: phone          Path: <sip:tok@edge;lr;ob>
//!           Contact: …;+sip.instance="<urn:uuid:…>";reg-id=1
//!      ◀── 200, Path as it came, Require: outbound, Supported: path, outbound, gruu,
//!           Contact: …;pub-gruu="sip:ada@example.com;gr=urn:uuid:…"
//! ```
//!
//! Left out: temporary GRUUs (RFC 5627 §3.2), whose promise of anonymity a B2BUA that writes its
//! own `Contact` keeps anyway.

use bytes::Bytes;
use sipx_sip::headers::Supported;
use sipx_sip::{Address, Header, HeaderName, Reliability, Request, Uri};

use super::RegisterError;
use crate::flow::TransportKind;

/// Rows and bytes of `Path` kept with a binding. A phone is behind one or two proxies.
const PATH_ROWS_MAX: usize = 4;
const PATH_LEN_MAX: usize = 512;

/// `Flow-Timer` (RFC 5626 §4.4.2), seconds: how often a phone on a stream says that it is there.
const FLOW_TIMER_SECS: u32 = 120;

/// See the module's description.
#[derive(Debug, Clone, Default)]
pub(super) struct Extensions {
    supports_path: bool,
    supports_outbound: bool,
    pub(super) supports_gruu: bool,
    /// Whether the element that the phone talks to keeps its flow open: ourselves, or a proxy that
    /// says so in its `Path` (RFC 5626 §5.1).
    is_flow_kept: bool,
    pub(super) path: Box<[Bytes]>,
}

impl Extensions {
    pub(super) fn read(request: &Request) -> Result<Self, RegisterError> {
        let mut extensions = Self::default();
        for supported in request.headers.typed_all::<Supported>().flatten() {
            extensions.supports_path |= supported.contains("path");
            extensions.supports_outbound |= supported.contains("outbound");
            extensions.supports_gruu |= supported.contains("gruu");
        }
        let mut rows = Vec::new();
        let mut hops = Vec::new();
        for row in request.headers.get_all(&HeaderName::Path) {
            let value = row.value();
            if rows.len() == PATH_ROWS_MAX || value.len() > PATH_LEN_MAX {
                return Err(RegisterError::Malformed("Path"));
            }
            let parsed = Address::parse_list(&value, "Path")
                .map_err(|_| RegisterError::Malformed("Path"))?;
            hops.extend(parsed);
            // A copy: the row is a view that would keep the whole message in memory.
            rows.push(Bytes::copy_from_slice(&value));
        }
        let via_count = request.headers.get_all(&HeaderName::Via).count();
        extensions.is_flow_kept = match hops.last() {
            // Proxies put themselves on top, so the phone's own one is the last.
            Some(first_hop) => {
                let params = first_hop.uri.params();
                params.is_some_and(|params| params.contains("ob"))
            }
            None => via_count == 1,
        };
        extensions.path = rows.into();
        Ok(extensions)
    }

    /// Which flow of its phone `contact` is; `None` where outbound is not in use. A phone that
    /// counts on it although its first hop does not keep flows is told (RFC 5626 §6).
    pub(super) fn flow_of(&self, contact: &Address) -> Result<Option<u32>, RegisterError> {
        let reg_id: Option<u32> = contact
            .param("reg-id")
            .and_then(|id| std::str::from_utf8(id).ok()?.parse().ok())
            .filter(|id| *id > 0);
        match reg_id {
            Some(_) if !self.supports_outbound => Ok(None),
            Some(_) if !self.is_flow_kept => Err(RegisterError::FirstHopLacksOutbound),
            reg_id => Ok(reg_id),
        }
    }

    /// Headers of the 200 beside its contacts. `uses_outbound`: some contact is one of several
    /// flows.
    pub(super) fn headers(&self, uses_outbound: bool, kind: TransportKind) -> Vec<Header> {
        let mut headers = vec![(
            HeaderName::Supported,
            Bytes::from_static(b"path, outbound, gruu"),
        )];
        if self.supports_path {
            let rows = self.path.iter();
            headers.extend(rows.map(|row| (HeaderName::Path, row.clone())));
        }
        if uses_outbound {
            headers.push((HeaderName::Require, Bytes::from_static(b"outbound")));
            if kind.reliability() == Reliability::Reliable {
                let secs = FLOW_TIMER_SECS.to_string();
                headers.push((HeaderName::FlowTimer, Bytes::from(secs)));
            }
        }
        headers
            .into_iter()
            .filter_map(|(name, value)| Header::build(name, value).ok())
            .collect()
    }
}

/// The public GRUU of an instance: the address of record with `gr` (RFC 5627 §5.1). `None` where
/// that cannot be written into a quoted string.
pub(super) fn gruu(address_of_record: &Uri, instance: &str) -> Option<Box<str>> {
    let user = std::str::from_utf8(address_of_record.user()?).ok()?;
    let host = address_of_record.host()?;
    let is_writable = |text: &str| {
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"\\<>;?,".contains(&byte);
        text.bytes().all(is_plain)
    };
    let instance = instance.trim_matches(['<', '>']);
    let host = match address_of_record.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_string(),
    };
    let is_fit = is_writable(user) && is_writable(instance) && is_writable(&host);
    is_fit.then(|| format!("sip:{user}@{host};gr={instance}").into())
}
