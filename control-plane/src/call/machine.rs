//! Any kind of call, driven the same way.

use trunkline_edge_api::MonoTime;

use super::{Call, ConferenceCall, Input, Output};
use crate::cdr::CallRecord;

/// See the module's description.
#[derive(Debug)]
pub enum Machine {
    /// A caller and a member.
    Bridge(Box<Call>),
    /// A caller in a conference.
    Conference(Box<ConferenceCall>),
}

impl Machine {
    /// Takes what happened.
    pub fn handle(&mut self, now: MonoTime, input: Input) {
        match self {
            Self::Bridge(call) => call.handle(now, input),
            Self::Conference(call) => call.handle(now, input),
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        match self {
            Self::Bridge(call) => call.poll_output(),
            Self::Conference(call) => call.poll_output(),
        }
    }

    /// When [`Input::Timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<MonoTime> {
        match self {
            Self::Bridge(call) => call.poll_timeout(),
            Self::Conference(call) => call.poll_timeout(),
        }
    }

    /// The record so far, for the list of live calls.
    #[must_use]
    pub fn record(&self) -> &CallRecord {
        match self {
            Self::Bridge(call) => call.record(),
            Self::Conference(call) => call.record(),
        }
    }

    /// One word for the list of live calls.
    #[must_use]
    pub fn state_name(&self) -> &'static str {
        match self {
            Self::Bridge(call) => call.state_name(),
            Self::Conference(call) => call.state_name(),
        }
    }
}
