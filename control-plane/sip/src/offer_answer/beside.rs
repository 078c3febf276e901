//! One leg beside the other: a new peer for a leg whose far side stands and is told nothing.
//!
//! Several phones that ring at once, a caller that hears ringback before anybody answers, and a
//! transfer are the same to a description: what one side was told holds (RFC 3261 §13.2.1,
//! RFC 3264 §8), and the other side is agreed on beside it.
//!
//! ```text
//! caller                     Trunkline                         callees
//!   INVITE, offer ──────────▶ offer_from_caller
//!                             branch ×2, offer_to(B) ── offer ──▶ 1st
//!                                                    ── offer ──▶ 2nd
//!                             answer_from_callee     ◀── 183 ──── 1st
//!   ◀── 183, answer ───────── answer_for_caller
//!                             keep(A), answer_from_callee ◀─ 200 ─ 2nd
//!   ◀── 200, the same answer
//! ```

use bytes::Bytes;
use sipx_sdp::Direction;
use trunkline_edge_api::LegIndex;

use super::local::Describer;
use super::remote::{MediaLines, RemoteAudio};
use super::transcoding::TranscodingPolicy;
use super::{
    Exchange, Leg, LocalDescription, MediaNegotiation, OfferAnswerError, SrtpPolicy, codec,
};

impl MediaNegotiation {
    /// A copy for one more peer of `leg`, of whom nothing is known but how its media is to be
    /// protected. It has keys of its own: no peer learns those of another.
    #[must_use]
    pub fn branch(&mut self, leg: LegIndex, policy: SrtpPolicy) -> Self {
        let mut branch = self.clone();
        branch.keys = self.keys.split();
        let at = leg.as_usize();
        branch.policies[at] = policy;
        branch.transcoding[at] = TranscodingPolicy::off();
        branch.withholds_events[at] = false;
        branch.media_from[at] = None;
        branch.legs[at] = Leg::default();
        branch
    }

    /// Whether `leg` uses our address of this name, or may still.
    #[must_use]
    pub fn may_use_interface(&self, leg: LegIndex, name: &str) -> bool {
        let named = self.addresses[leg.as_usize()].named(name);
        named.is_some_and(|named| named.preferred() == self.addresses[leg.as_usize()].preferred())
    }

    /// Whether something is agreed on with the peer of `leg`.
    #[must_use]
    pub fn is_agreed(&self, leg: LegIndex) -> bool {
        self.leg(leg).agreed.is_some()
    }

    /// Has `leg` stand as it does in `other`, whatever the open offer to the far leg brings: its
    /// peer has been told.
    pub fn keep(&mut self, leg: LegIndex, other: &Self) {
        self.legs[leg.as_usize()] = other.leg(leg).clone();
        self.exchange = match std::mem::replace(&mut self.exchange, Exchange::Idle) {
            Exchange::Initial(forwarded) if forwarded.from == leg => Exchange::Beside(forwarded),
            other => other,
        };
    }

    /// The offer for a new peer of `leg`: the caller's own, or what the far side has in force when
    /// that is agreed on already. Whatever was said with an earlier peer of `leg` is forgotten.
    ///
    /// # Errors
    /// [`OfferAnswerError::OutOfOrder`] when there is nothing to offer,
    /// [`OfferAnswerError::NoCommonCodec`] when no format can be.
    pub fn offer_to(
        &mut self,
        leg: LegIndex,
        local: LocalDescription,
    ) -> Result<Bytes, OfferAnswerError> {
        let Some(offer) = self.in_force(leg.far()) else {
            return match leg {
                LegIndex::B => self.offer_for_callee(local),
                LegIndex::A => Err(OfferAnswerError::OutOfOrder),
            };
        };
        let is_secure = self.policy(leg) != SrtpPolicy::Off;
        let advertised = self.ours(leg).advertised(local.rtp.ip());
        *self.leg_mut(leg) = Leg {
            describer: Some(Describer::new(local, advertised)),
            lines: Some(MediaLines::audio_only(is_secure)),
            ..Leg::default()
        };
        let (forwarded, body) = self.forward(leg.far(), offer)?;
        self.exchange = Exchange::Beside(forwarded);
        Ok(body)
    }

    /// What the peer of `leg` has agreed on, as if it offered that: no format that it was not
    /// told of, and media both ways.
    fn in_force(&self, leg: LegIndex) -> Option<RemoteAudio> {
        let agreed = self.leg(leg).agreed.as_ref()?;
        let mut offer = agreed.remote.clone();
        offer
            .codecs
            .retain(|codec| codec::number_of(&agreed.codecs, codec.encoding).is_some());
        offer.direction = Direction::SendRecv;
        Some(offer)
    }
}
