//! Offers in mid-call: what one side offers goes to the other one, and its answer back.

use bytes::Bytes;
use trunkline_edge_api::LegIndex;

use super::{Call, Output, State};

impl Call {
    pub(super) fn reoffer(&mut self, offerer: LegIndex, sdp: &[u8]) {
        match self.negotiation.reoffer(offerer, sdp) {
            Ok(offer) => {
                self.state = State::Reoffering { offerer };
                self.outputs
                    .push_back(Output::Reinvite(offerer.far(), offer));
            }
            Err(error) => {
                self.outputs
                    .push_back(Output::RejectOffer(offerer, error.status()));
            }
        }
    }

    pub(super) fn reanswer(&mut self, offerer: LegIndex, result: Result<Bytes, u16>) {
        let answered = result.and_then(|sdp| {
            self.negotiation
                .reanswer(offerer.far(), &sdp)
                .map_err(|_| 488)
        });
        match answered {
            Ok(answer) => {
                let negotiation = self.negotiation.clone();
                self.configure_media(&negotiation);
                self.describe(Output::AcceptOffer(offerer, answer));
                self.attend_to_hold();
            }
            Err(status) => {
                self.negotiation.abandon_reoffer();
                // The peer's trouble is not the offerer's: only a refusal of the offer itself and
                // "try again" carry over, everything else reads as a refusal (RFC 3261 §14.2).
                let status = if matches!(status, 488 | 491 | 606) {
                    status
                } else {
                    488
                };
                self.outputs.push_back(Output::RejectOffer(offerer, status));
            }
        }
    }
}
