//! Transfers: REFER on a leg, and the dialogs that a `Replaces` names.

use bytes::Bytes;
use trunkline_edge_api::MonoTime;

use super::{Agent, LegError, SipLegId};
use crate::message::LocalTag;
use crate::replaces::{ReferTarget, Replaces, ReplacesError};

/// A REFER to send.
#[derive(Debug, Clone)]
pub struct ReferRequest {
    /// Whom the peer shall call.
    pub target: ReferTarget,
    /// The value of `Referred-By` (RFC 3892).
    pub referred_by: Option<Bytes>,
    /// Whether the peer shall say what comes of it; `false` is `Refer-Sub: false` (RFC 4488),
    /// which it need not heed.
    pub wants_notify: bool,
}

impl Agent {
    /// Accepts the REFER of [`AgentEvent::Refer`](super::AgentEvent::Refer) with 202. A peer that
    /// wants to hear what comes of it is told 100 at once; the rest is for `notify_refer`.
    pub fn accept_refer(&mut self, now: MonoTime, leg: SipLegId) -> Result<(), LegError> {
        self.on_leg(leg, |leg, core| leg.accept_refer(core, now))
    }

    /// Refuses the REFER of [`AgentEvent::Refer`](super::AgentEvent::Refer) with 300 … 699.
    pub fn reject_refer(
        &mut self,
        now: MonoTime,
        leg: SipLegId,
        status: u16,
    ) -> Result<(), LegError> {
        self.on_leg(leg, |leg, core| leg.reject_refer(core, now, status))
    }

    /// Tells the peer how the call it asked for fares: `status` is that of the call, 100 … 699,
    /// and `is_final` ends the subscription. Does nothing where the peer did not want to hear it,
    /// or no longer does.
    pub fn notify_refer(
        &mut self,
        now: MonoTime,
        leg: SipLegId,
        status: u16,
        reason: Option<&str>,
        is_final: bool,
    ) -> Result<(), LegError> {
        self.on_leg(leg, |leg, core| {
            leg.notify_refer(core, now, status, reason, is_final)
        })
    }

    /// Asks the peer of a confirmed leg to call somebody else. `ReferAnswered` follows, and
    /// `ReferProgress` for each of its NOTIFYs.
    pub fn refer(
        &mut self,
        now: MonoTime,
        leg: SipLegId,
        request: &ReferRequest,
    ) -> Result<(), LegError> {
        let ReferRequest {
            target,
            referred_by,
            wants_notify,
        } = request;
        self.on_leg(leg, |leg, core| {
            leg.refer(core, now, target, referred_by.as_deref(), *wants_notify)
        })
    }

    /// The leg whose dialog a `Replaces` names (RFC 3891 §3): that of an INVITE we received, or of
    /// the `Refer-To` of a peer that would join two of its own calls with us.
    ///
    /// # Errors
    /// See [`ReplacesError`]; its `status` is the answer to the INVITE.
    pub fn leg_of_dialog(&self, replaces: &Replaces) -> Result<SipLegId, ReplacesError> {
        let id = LocalTag::parse(&replaces.to_tag)
            .and_then(|tag| self.by_tag.get(&tag))
            .ok_or(ReplacesError::Unknown)?;
        let leg = self.legs.get(id).ok_or(ReplacesError::Unknown)?;
        leg.is_named_by(replaces).map(|()| *id)
    }

    /// The name of a leg's dialog for a `Replaces` that its peer will read: the Call-ID, its tag,
    /// ours. `None` while there is none, or the peer has no tag.
    #[must_use]
    pub fn dialog_of_leg(&self, leg: SipLegId) -> Option<Replaces> {
        let leg = self.legs.get(&leg).filter(|leg| !leg.is_terminated())?;
        let dialog = leg.dialog();
        Some(Replaces {
            call_id: dialog.call_id.clone(),
            to_tag: dialog.remote_tag.clone()?,
            from_tag: Bytes::from(dialog.local_tag.to_string()),
            early_only: false,
        })
    }
}
