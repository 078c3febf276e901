//! What was said on the wire, kept for a while: the ladder of a call.
//!
//! A ring of SIP messages as they came and went, bounded in bytes, the oldest forgotten first. A
//! message belongs to a dialog by its `Call-ID`, and a dialog to a call once the switch has said
//! so; a call that was refused at the door is found by its `Call-ID` alone.
//!
//! ```text
//! INVITE from the carrier   ──▶ record            Call-ID a@carrier
//! the switch begins call 7c…──▶ belongs_to        a@carrier is of call 7c…
//! INVITE to the phone       ──▶ record, belongs_to
//!                               messages("7c…")   both dialogs, in the order of the wire
//! ```
//!
//! Nothing is masked here: what leaves the process passes [`mask`] first.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use trunkline_sip::flow::Flow;

pub mod exporter;
pub mod hep;
pub mod ladder;
mod mask;
pub mod pcap;
#[cfg(test)]
mod tests;

pub use mask::mask;

/// Messages of one call that are given out. A call has some thirty; one that is held and resumed
/// all day has hundreds.
pub const MESSAGES_MAX: usize = 2_000;

/// Longest `Call-ID` that is remembered, bytes. Longer ones are cut, which at worst shows two
/// dialogs as one.
const CALL_ID_LEN_MAX: usize = 256;

/// Dialogs that may be announced before their first message is there. A turn of the call thread
/// sends what it began before the next begins, so there are as many as one call has legs.
const EXPECTED_MAX: usize = 64;

/// What an entry costs beside its message, bytes: itself, its place in two tables.
const ENTRY_COST: usize = 256;

/// Which way a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// To us.
    Received,
    /// From us.
    Sent,
}

/// One message as it was on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traced {
    /// When, Unix time, milliseconds.
    pub unix_ms: i64,
    /// Which way.
    pub direction: Direction,
    /// Between whom.
    pub flow: Flow,
    /// Its `Call-ID`.
    pub dialog: Arc<[u8]>,
    /// All of it.
    pub bytes: Bytes,
}

/// A message as operators see it: masked, and text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracedMessage {
    /// When, Unix time, milliseconds.
    pub unix_ms: i64,
    /// Which way.
    pub direction: Direction,
    /// `UDP`, `TCP`, `TLS`, …
    pub transport: String,
    /// Our address.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// Its `Call-ID`.
    pub sip_call_id: String,
    /// The message; secrets are crossed out and bytes that are no UTF-8 replaced.
    pub text: String,
}

impl From<&Traced> for TracedMessage {
    fn from(traced: &Traced) -> Self {
        Self {
            unix_ms: traced.unix_ms,
            direction: traced.direction,
            transport: traced.flow.kind.via_token().to_owned(),
            local: traced.flow.local,
            remote: traced.flow.remote,
            sip_call_id: String::from_utf8_lossy(&traced.dialog).into_owned(),
            text: String::from_utf8_lossy(&mask(&traced.bytes)).into_owned(),
        }
    }
}

#[derive(Debug, Default)]
struct Dialog {
    /// Entries of it in the ring; with the last one the dialog is forgotten.
    message_count: usize,
    call: Option<Arc<str>>,
}

/// The ring. See the module's description.
#[derive(Debug)]
pub struct Trace {
    entries: VecDeque<Traced>,
    dialogs: HashMap<Arc<[u8]>, Dialog>,
    /// Announced by [`Self::belongs_to`] before their first message.
    expected: VecDeque<(Box<[u8]>, Arc<str>)>,
    /// What waits for [`Self::poll_export`], where somebody wants it.
    exported: Option<VecDeque<Traced>>,
    bytes: usize,
    bytes_max: usize,
}

impl Trace {
    /// Keeps at most `bytes_max` bytes, overhead included; 0: nothing.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            dialogs: HashMap::new(),
            expected: VecDeque::new(),
            exported: None,
            bytes: 0,
            bytes_max,
        }
    }

    /// Gives every message out once more through [`Self::poll_export`], which must be drained
    /// after every turn.
    #[must_use]
    pub fn with_export(mut self) -> Self {
        self.exported = Some(VecDeque::new());
        self
    }

    /// Whether anything is kept or given out, so that nobody prepares what is not.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.bytes_max > 0 || self.exported.is_some()
    }

    /// The next message for somebody else to keep.
    pub fn poll_export(&mut self) -> Option<Traced> {
        self.exported.as_mut()?.pop_front()
    }

    /// Keeps a message with this `Call-ID`.
    pub fn record(
        &mut self,
        unix_ms: i64,
        direction: Direction,
        flow: &Flow,
        call_id: &[u8],
        bytes: Bytes,
    ) {
        let cost = cost_of(&bytes);
        let is_kept = cost <= self.bytes_max;
        let traced = Traced {
            unix_ms,
            direction,
            flow: flow.clone(),
            dialog: if is_kept {
                self.dialog(call_id)
            } else {
                Arc::from(cut(call_id))
            },
            bytes,
        };
        if let Some(exported) = &mut self.exported {
            exported.push_back(traced.clone());
        }
        if !is_kept {
            return;
        }
        self.bytes += cost;
        self.entries.push_back(traced);
        while self.bytes > self.bytes_max {
            self.forget_oldest();
        }
    }

    /// A dialog is of this call: one of which messages are kept, or one that is about to begin.
    pub fn belongs_to(&mut self, call_id: &[u8], call: &str) {
        if !self.is_on() {
            return;
        }
        let (call_id, call) = (cut(call_id), Arc::from(call));
        if let Some(dialog) = self.dialogs.get_mut(call_id) {
            dialog.call = Some(call);
            return;
        }
        if self.expected.len() == EXPECTED_MAX {
            self.expected.pop_front();
        }
        self.expected.push_back((call_id.into(), call));
    }

    /// Messages of the call, or of the dialog with this `Call-ID`: at most [`MESSAGES_MAX`], the
    /// oldest first.
    #[must_use]
    pub fn messages(&self, id: &str) -> Vec<Traced> {
        let is_wanted = |traced: &&Traced| {
            let of_call = |dialog: &Dialog| dialog.call.as_deref() == Some(id);
            *traced.dialog == *id.as_bytes()
                || self.dialogs.get(&traced.dialog).is_some_and(of_call)
        };
        let wanted = self.entries.iter().filter(is_wanted);
        wanted.take(MESSAGES_MAX).cloned().collect()
    }

    /// Bytes in use, at most what was allowed.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn dialog(&mut self, call_id: &[u8]) -> Arc<[u8]> {
        let call_id = cut(call_id);
        if let Some((key, _)) = self.dialogs.get_key_value(call_id) {
            let key = Arc::clone(key);
            if let Some(dialog) = self.dialogs.get_mut(&key) {
                dialog.message_count += 1;
            }
            return key;
        }
        let key: Arc<[u8]> = Arc::from(call_id);
        let is_this = |(expected, _): &(Box<[u8]>, Arc<str>)| **expected == *call_id;
        let expected = self.expected.iter().position(is_this);
        let dialog = Dialog {
            message_count: 1,
            call: expected
                .and_then(|at| self.expected.remove(at))
                .map(|(_, call)| call),
        };
        self.dialogs.insert(Arc::clone(&key), dialog);
        key
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.entries.pop_front() else {
            return;
        };
        self.bytes -= cost_of(&oldest.bytes);
        if let Some(dialog) = self.dialogs.get_mut(&oldest.dialog) {
            dialog.message_count -= 1;
            if dialog.message_count == 0 {
                self.dialogs.remove(&oldest.dialog);
            }
        }
    }
}

fn cost_of(bytes: &Bytes) -> usize {
    bytes.len() + ENTRY_COST
}

fn cut(call_id: &[u8]) -> &[u8] {
    &call_id[..call_id.len().min(CALL_ID_LEN_MAX)]
}

/// `Call-ID` of a message that we wrote ourselves: on one line, before the body; in a response in
/// the form that the request had it.
#[must_use]
pub fn call_id_of(message: &[u8]) -> Option<&[u8]> {
    const NAMES: [&[u8]; 2] = [b"call-id", b"i"];
    let lines = message.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let mut headers = lines.take_while(|line| !line.is_empty()).skip(1);
    headers.find_map(|line| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        let name = line[..colon].trim_ascii_end();
        let is_it = NAMES.iter().any(|wanted| name.eq_ignore_ascii_case(wanted));
        is_it.then(|| line[colon + 1..].trim_ascii())
    })
}

/// As the capture formats have IPv6 addresses; of IPv4 where the other end is IPv6.
fn v6_octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}
