//! What of a call was on the wire: feeds the [`Trace`](crate::trace::Trace).

use trunkline_sip::agent::{SipLegId, Transmit};
use trunkline_sip::flow::Flow;

use bytes::Bytes;
use sipx_sip::{CallId, Message};

use super::Switch;
use super::calls::{CallKey, Seat};
use crate::trace::{Direction, Traced, call_id_of};

impl Switch {
    /// The leg sits there in the call, and its messages are the call's.
    pub(super) fn seat_leg(&mut self, leg: SipLegId, key: CallKey, seat: Seat) {
        self.by_leg.insert(leg, (key, seat));
        if let Some(entry) = self.calls.get(&key) {
            let call_id = entry.call.record().call_id.clone();
            self.trace_leg(leg, &call_id);
        }
    }

    /// The leg's messages are of this call, also of one that is refused at the door.
    pub(super) fn trace_leg(&mut self, leg: SipLegId, call_id: &str) {
        if let Some(dialog) = self.agent.call_id(leg) {
            self.trace.belongs_to(&dialog, call_id);
        }
    }

    pub(super) fn trace_received(&mut self, unix_ms: i64, flow: &Flow, message: &Message) {
        if !self.trace.is_on() {
            return;
        }
        let headers = match message {
            Message::Request(request) => &request.headers,
            Message::Response(response) => &response.headers,
        };
        let Some(Ok(CallId(call_id))) = headers.typed() else {
            return;
        };
        let mut bytes = Vec::with_capacity(1_024);
        message.write_to(&mut bytes);
        bytes.shrink_to_fit();
        self.trace.record(
            unix_ms,
            Direction::Received,
            flow,
            &call_id,
            Bytes::from(bytes),
        );
    }

    pub(super) fn trace_sent(&mut self, transmit: &Transmit) {
        if !self.trace.is_on() {
            return;
        }
        if let Some(call_id) = call_id_of(&transmit.bytes) {
            let bytes = transmit.bytes.clone();
            self.trace.record(
                self.unix_ms,
                Direction::Sent,
                &transmit.flow,
                call_id,
                bytes,
            );
        }
    }

    /// Messages of a call, live or over, or of the dialog with that `Call-ID`, as far as they are
    /// still remembered.
    #[must_use]
    pub fn traced(&self, id: &str) -> Vec<Traced> {
        self.trace.messages(id)
    }

    /// Bytes of messages that are remembered.
    #[must_use]
    pub fn traced_bytes(&self) -> usize {
        self.trace.bytes()
    }

    /// The next message for the capture server.
    pub fn poll_traced(&mut self) -> Option<Traced> {
        self.trace.poll_export()
    }
}
