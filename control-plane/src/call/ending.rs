//! How a call ends, and what is written down about it.

use trunkline_edge_api::{LegIndex, LegReport, MonoTime};

use super::{Call, Output, State, Withdrawal};
use crate::cdr::{CallResult, EndedBySide};

impl Call {
    /// Ends a call whose caller has no answer yet.
    pub(super) fn reject(
        &mut self,
        now: MonoTime,
        result: CallResult,
        status: u16,
        reason: Option<&'static str>,
    ) {
        self.outputs
            .push_back(Output::RejectCaller { status, reason });
        self.end(now, result, EndedBySide::Node, Some(status));
    }

    pub(super) fn end(
        &mut self,
        now: MonoTime,
        result: CallResult,
        side: EndedBySide,
        status: Option<u16>,
    ) {
        self.held = None;
        if let Some(hunt) = self.state.hunt_mut() {
            self.outputs
                .extend(hunt.withdraw(Withdrawal::NoLongerWanted));
        }
        self.outputs.push_back(Output::Hangup(LegIndex::A));
        self.outputs.push_back(Output::Hangup(LegIndex::B));
        self.outputs.push_back(Output::CloseMedia);
        let elapsed_ms = self.elapsed_ms(now);
        self.record.end(elapsed_ms, result, side, status);
        self.state = State::Closing;
    }

    pub(super) fn record_call(&mut self, legs: Option<[LegReport; 2]>) {
        if let Some([caller, callee]) = legs {
            self.record.caller_media = (&caller).into();
            self.record.callee_media = (&callee).into();
        }
        self.state = State::Closed;
        self.outputs
            .push_back(Output::Record(Box::new(self.record.clone())));
    }
}
