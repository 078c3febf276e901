//! A caller that we answer ourselves: no second leg, all audio made and heard by the edge.

use bytes::Bytes;
use sipx_sdp::{Direction, negotiate_direction};
use trunkline_edge_api::LegIndex;

use super::local::{Describer, LocalDescription};
use super::remote::RemoteAudio;
use super::sdes::AgreedCrypto;
use super::{Agreed, Exchange, MediaNegotiation, OfferAnswerError, transcoding};

impl MediaNegotiation {
    /// Answers the caller's first offer in the format that it likes best of those that the edge
    /// knows.
    ///
    /// # Errors
    /// [`OfferAnswerError::OutOfOrder`] without a caller's offer or once a callee was asked,
    /// [`OfferAnswerError::NoCommonCodec`], [`OfferAnswerError::NoCommonSuite`],
    /// [`OfferAnswerError::AddressRefused`] when the caller named our own socket.
    pub fn answer_alone(&mut self, local: LocalDescription) -> Result<Bytes, OfferAnswerError> {
        let Exchange::Offered(offer) = &self.exchange else {
            return Err(OfferAnswerError::OutOfOrder);
        };
        let offer = offer.clone();
        let advertised = self.ours(LegIndex::A).advertised(local.rtp.ip());
        self.leg_mut(LegIndex::A).describer = Some(Describer::new(local, advertised));
        self.settle_alone(offer)?;
        self.exchange = Exchange::Alone;
        self.leg_mut(LegIndex::A).describe_answer()
    }

    /// Answers a later offer of a caller that was answered alone. After an error what was agreed
    /// before stays in force.
    ///
    /// # Errors
    /// As [`Self::offer_from_caller`] and [`Self::answer_alone`].
    pub fn reanswer_alone(&mut self, sdp: &[u8]) -> Result<Bytes, OfferAnswerError> {
        if !matches!(self.exchange, Exchange::Alone) {
            return Err(OfferAnswerError::OutOfOrder);
        }
        let offer = RemoteAudio::parse(sdp, self.ours(LegIndex::A), self.policy(LegIndex::A))?;
        self.settle_alone(offer)?;
        self.leg_mut(LegIndex::A).describe_answer()
    }

    fn settle_alone(&mut self, offer: RemoteAudio) -> Result<(), OfferAnswerError> {
        self.refuse_own_sockets(&offer)?;
        let (codecs, audio) =
            transcoding::settle_alone(&offer.codecs).ok_or(OfferAnswerError::NoCommonCodec)?;
        let leg = &self.legs[LegIndex::A.as_usize()];
        let force = leg
            .agreed
            .as_ref()
            .and_then(|agreed| agreed.crypto.as_ref());
        let crypto = if offer.crypto.is_empty() {
            None
        } else {
            let agreed = AgreedCrypto::answering(&offer.crypto, force, &mut self.keys);
            Some(agreed.ok_or(OfferAnswerError::NoCommonSuite)?)
        };
        let leg = self.leg_mut(LegIndex::A);
        leg.learn_offer(&offer);
        leg.agreed = Some(Agreed {
            codecs,
            audio,
            direction: negotiate_direction(offer.direction, Direction::SendRecv),
            ptime_ms: None,
            maxptime_ms: None,
            crypto,
            remote: offer,
        });
        Ok(())
    }
}
