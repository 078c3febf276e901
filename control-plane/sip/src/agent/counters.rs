//! What the agent counts. All values rise only.

use sipx_sip::headers::CSeq;
use sipx_sip::{Method, Response};

/// A count per method; methods without a name of their own share the last place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MethodCounts([u64; METHOD_COUNT + 1]);

const METHOD_COUNT: usize = 14;

static METHODS: [(&str, Method); METHOD_COUNT] = [
    ("INVITE", Method::Invite),
    ("ACK", Method::Ack),
    ("BYE", Method::Bye),
    ("CANCEL", Method::Cancel),
    ("REGISTER", Method::Register),
    ("OPTIONS", Method::Options),
    ("INFO", Method::Info),
    ("PRACK", Method::Prack),
    ("UPDATE", Method::Update),
    ("SUBSCRIBE", Method::Subscribe),
    ("NOTIFY", Method::Notify),
    ("REFER", Method::Refer),
    ("MESSAGE", Method::Message),
    ("PUBLISH", Method::Publish),
];

fn index_of(method: &Method) -> usize {
    METHODS
        .iter()
        .position(|(_, known)| known == method)
        .unwrap_or(METHOD_COUNT)
}

impl MethodCounts {
    pub(crate) fn add(&mut self, method: &Method) {
        self.0[index_of(method)] += 1;
    }

    /// The count of one method; of all unknown ones together for an unknown one.
    #[must_use]
    pub fn get(&self, method: &Method) -> u64 {
        self.0[index_of(method)]
    }

    /// Every place with its label, in a fixed order; the last is `other`.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        METHODS
            .iter()
            .map(|(name, _)| *name)
            .chain(["other"])
            .zip(self.0.iter().copied())
    }
}

/// Labels of the classes of status codes.
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "6xx"];

/// Responses: a count per method of the request and class of the status code, 1xx … 6xx.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResponseCounts([[u64; CLASSES.len()]; METHOD_COUNT + 1]);

impl ResponseCounts {
    /// Counts a response by the method that its CSeq names; by `other` where that cannot be read.
    pub(crate) fn add(&mut self, response: &Response) {
        let method = match response.headers.typed::<CSeq>() {
            Some(Ok(cseq)) => index_of(&cseq.method),
            _ => METHOD_COUNT,
        };
        let class = usize::from(response.status.class()).wrapping_sub(1);
        let count = self.0.get_mut(method).and_then(|row| row.get_mut(class));
        if let Some(count) = count {
            *count += 1;
        }
    }

    /// The count of `class`, 1 … 6, to requests of one method; 0 for any other class.
    #[must_use]
    pub fn get(&self, method: &Method, class: u16) -> u64 {
        let row = self.0.get(index_of(method));
        let count = row.and_then(|row| row.get(usize::from(class).wrapping_sub(1)));
        count.copied().unwrap_or(0)
    }

    /// Every place with the labels of its method and class, in a fixed order. ACK is left out:
    /// nobody responds to it (RFC 3261 §17).
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        let methods = METHODS.iter().map(|(name, _)| *name).chain(["other"]);
        let rows = methods.zip(&self.0).filter(|(method, _)| *method != "ACK");
        rows.flat_map(|(method, row)| {
            let classes = CLASSES.iter().zip(row);
            classes.map(move |(class, count)| (method, *class, *count))
        })
    }
}

/// Counters of an [`Agent`](super::Agent).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AgentCounters {
    /// Requests received, copies included, before any check.
    pub requests_received: MethodCounts,
    /// Requests sent, retransmissions not included.
    pub requests_sent: MethodCounts,
    /// Responses received, copies included.
    pub responses_received: ResponseCounts,
    /// Responses sent, retransmissions not included.
    pub responses_sent: ResponseCounts,
    /// Messages sent again: by a timer, or because the peer repeated what they answered.
    pub retransmissions_sent: u64,
    /// Messages that did not parse or miss what every request must have.
    pub malformed: u64,
    /// New requests refused with 503 because a limit was reached.
    pub refused_overload: u64,
    /// Responses that belong to no transaction of ours.
    pub responses_unmatched: u64,
    /// ACKs that belong to no dialog and no transaction of ours.
    pub acks_unmatched: u64,
    /// Requests in dialogs that are not ours, answered 481.
    pub dialogs_unknown: u64,
    /// Answers of further branches of a forked INVITE, and answers after CANCEL: ACK and BYE.
    pub late_answers: u64,
    /// Requests passed up that were not answered within 64·T1 and were given up.
    pub requests_abandoned: u64,
    /// Messages the transport reported as not delivered.
    pub transport_errors: u64,
}
