//! Offer/answer for one audio stream through a B2BUA that relays its media: RFC 3264 on
//! RFC 8866 bodies, with RFC 3605 and RFC 5761 for RTCP.
//!
//! Each leg has a description of its own: our address, our `o=` line, payload numbers that are
//! valid on that leg. The far side's body is never copied; what is passed on is what this module
//! understood of it. One call:
//!
//! ```text
//! caller                     Trunkline                         callee
//!   INVITE, offer 96 opus ──▶ offer_from_caller
//!                             offer_for_callee ── offer 96 opus ──▶
//!                             answer_from_callee ◀── 183, answer 96 opus
//!   ◀── 183, answer 96 opus ─ answer_for_caller
//!                             leg_config(A), leg_config(B) ─▶ edge
//!                             answer_from_callee ◀── 200, the same or another answer
//!   ◀── 200 ───────────────── answer_for_caller
//!   re-INVITE, sendonly ────▶ reoffer(A) ── sendonly ──▶
//!   ◀── recvonly ──────────── reanswer(B) ◀── recvonly
//! ```
//!
//! SRTP is each leg's own business (RFC 4568): the caller's side may be protected and the callee's
//! not, and what both protect has different keys.
//!
//! Where the sides share no codec the edge may convert: [`TranscodingPolicy`], and the table in
//! its module.
//!
//! Left out: DTLS-SRTP, ICE, BUNDLE, and every stream besides the one for audio: such lines are
//! answered with port 0.

mod addresses;
mod alone;
mod beside;
mod codec;
mod local;
mod opus;
mod remote;
mod sdes;
#[cfg(test)]
mod tests;
mod transcoding;

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use sipx_sdp::{Direction, negotiate_direction};
use trunkline_edge_api::config::MediaAddress;
use trunkline_edge_api::{
    LegAudio, LegConfig, LegIndex, MediaDirection, MediaTimeouts, PayloadRoute, PayloadRoutes,
    SourceNetworks, SourcePolicy,
};

pub use addresses::MediaAddresses;
pub use codec::{AudioCodec, Encoding};
pub use local::LocalDescription;
pub use remote::RemoteAudio;
pub use sdes::{CryptoLine, KeySource, SrtpPolicy, UnknownSrtpPolicy};
pub use transcoding::{Conversion, Transcode, TranscodingPolicy, UnknownTranscode};

use codec::PayloadNumbers;
use local::{Describer, LocalAudio, LocalRtcp};
use remote::MediaLines;
use sdes::AgreedCrypto;
use transcoding::Powers;

/// Why a description cannot be used. [`Self::status`] is the response it deserves.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferAnswerError {
    /// The body is not SDP.
    #[error("the body is not a session description: {0}")]
    Malformed(String),
    /// More `m=` lines than any real endpoint sends.
    #[error("more than 16 media lines")]
    TooManyMediaLines,
    /// There is no audio stream, or it is refused with port 0.
    #[error("no audio stream is offered, or it was refused")]
    NoAudio,
    /// The audio is described over this profile only, and the party's `srtp` does not allow it.
    #[error("audio over {0} is not allowed for this party; its `srtp` decides on RTP/SAVP")]
    ProfileNotSupported(String),
    /// The party has to protect its media and offers plain RTP.
    #[error("plain RTP is refused: this party's `srtp` is \"required\"")]
    SrtpRequired,
    /// No `a=crypto` line can be accepted, or the answer's is not one that was offered.
    #[error(
        "no common a=crypto line; AES_CM_128, AES_256_CM and AEAD_AES_*_GCM without MKI are taken"
    )]
    NoCommonSuite,
    /// No format that both sides have and that may cross the relay.
    #[error("no common codec, and none that the edge could convert")]
    NoCommonCodec,
    /// The media address is a host name.
    #[error("the media address is not numeric: {0}")]
    AddressNotNumeric(String),
    /// The leg has no media address of that family: none of ours has it, or the leg is bound
    /// already, or the site file names another for this party.
    #[error("no [edge] media_addresses entry that this party may use has the family of {0}")]
    AddressFamily(IpAddr),
    /// Media is never sent there: unspecified, multicast, loopback, port 0, or our own socket.
    #[error("{0} is no address that media may be sent to")]
    AddressRefused(SocketAddr),
    /// The answer has its audio on another `m=` line than the offer.
    #[error("the answer's media lines are not those of the offer")]
    AnswerMismatch,
    /// Another offer is still unanswered (RFC 3264 §4).
    #[error("an offer is still unanswered")]
    OfferPending,
    /// The call is not at the point where this step is possible.
    #[error("there is no offer that this could follow")]
    OutOfOrder,
}

impl OfferAnswerError {
    /// The response to the request that carried the offer.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::OfferPending => 491,
            Self::OutOfOrder => 500,
            _ => 488,
        }
    }
}

/// `[edge] media_addresses` has no entry of the name that the site file gives.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no [edge] media_addresses entry is named \"{0}\"")]
pub struct UnknownInterface(pub String);

/// Both legs' descriptions of one call.
#[derive(Debug, Clone)]
pub struct MediaNegotiation {
    /// As each leg may use them, indexed by [`LegIndex`].
    addresses: [MediaAddresses; 2],
    /// Indexed by [`LegIndex`].
    policies: [SrtpPolicy; 2],
    /// Indexed by [`LegIndex`].
    transcoding: [TranscodingPolicy; 2],
    /// Peers that telephone events are neither offered to nor taken from, indexed by [`LegIndex`].
    withholds_events: [bool; 2],
    /// Whoever is held hears something from us.
    has_hold_music: bool,
    keys: KeySource,
    /// Networks that a peer's media may come from beside the address it names, indexed by
    /// [`LegIndex`].
    media_from: [Option<SourceNetworks>; 2],
    /// Indexed by [`LegIndex`].
    legs: [Leg; 2],
    exchange: Exchange,
}

/// Where the offer/answer exchange stands.
#[derive(Debug, Clone)]
enum Exchange {
    /// Nothing has been offered yet.
    Idle,
    /// The caller has offered; the callee has not been asked.
    Offered(RemoteAudio),
    /// The callee has our offer. It may answer several times: 183, another 183, 200.
    Initial(Forwarded),
    /// A peer of one leg has our offer; the other leg stands.
    Beside(Forwarded),
    /// A re-offer is with the far leg.
    Reoffered(Forwarded),
    /// No offer is open.
    Stable,
    /// The caller was answered by us, without a callee.
    Alone,
}

/// An offer that was passed on to the far leg.
#[derive(Debug, Clone)]
struct Forwarded {
    from: LegIndex,
    offer: RemoteAudio,
    /// As the far leg was offered them, under its numbers: the offer's and those that we added.
    codecs: Vec<AudioCodec>,
    /// As the far leg was offered it.
    direction: Direction,
    /// As the far leg was offered them; none over plain RTP.
    crypto: Vec<CryptoLine>,
}

/// One leg, as far as it is agreed.
#[derive(Debug, Clone, Default)]
struct Leg {
    describer: Option<Describer>,
    lines: Option<MediaLines>,
    numbers: PayloadNumbers,
    agreed: Option<Agreed>,
}

/// What holds on a leg after an answer.
#[derive(Debug, Clone)]
struct Agreed {
    remote: RemoteAudio,
    /// Formats in force, under the numbers that our description gave them: what the peer sends.
    codecs: Vec<AudioCodec>,
    /// The audio in use, of those.
    audio: Encoding,
    /// Direction that our description states.
    direction: Direction,
    ptime_ms: Option<u16>,
    maxptime_ms: Option<u16>,
    /// `None` over plain RTP.
    crypto: Option<AgreedCrypto>,
}

impl MediaNegotiation {
    /// A call of which nothing is known yet. `policies` are caller's and callee's; `keys` gives
    /// the keys of both legs.
    #[must_use]
    pub fn new(addresses: MediaAddresses, policies: [SrtpPolicy; 2], keys: KeySource) -> Self {
        Self {
            addresses: [addresses.clone(), addresses],
            policies,
            transcoding: [TranscodingPolicy::off(), TranscodingPolicy::off()],
            withholds_events: [false; 2],
            has_hold_music: false,
            keys,
            media_from: [None, None],
            legs: Default::default(),
            exchange: Exchange::Idle,
        }
    }

    /// Lets the peer of `leg` send from these networks, too. What it is sent goes where it said.
    pub fn accept_media_from(&mut self, leg: LegIndex, networks: SourceNetworks) {
        self.media_from[leg.as_usize()] = Some(networks);
    }

    /// What the side of `leg` may be transcoded to. Said before anything else; without it the call
    /// is relayed. Both sides have to allow it.
    pub fn allow_transcoding(&mut self, leg: LegIndex, policy: TranscodingPolicy) {
        self.transcoding[leg.as_usize()] = policy;
    }

    /// Has the peer of `leg` send and be sent no telephone events: its digits travel otherwise.
    pub fn withhold_events(&mut self, leg: LegIndex) {
        self.withholds_events[leg.as_usize()] = true;
    }

    /// Has whoever is held hear something from us: a hold then reaches the far side as
    /// `sendonly`, even where its author wants no media either way.
    pub fn keep_held_listening(&mut self) {
        self.has_hold_music = true;
    }

    /// Whether the peer of `leg` has put its far side on hold: it takes no media. Whatever it may
    /// send meanwhile is not what it was called for.
    #[must_use]
    pub fn holds(&self, leg: LegIndex) -> bool {
        self.remote(leg)
            .is_some_and(|remote| !remote.direction.receives())
    }

    /// Has `leg` use our address of this name and no other. Said before anything else.
    ///
    /// # Errors
    /// We have no address of this name.
    pub fn use_interface(&mut self, leg: LegIndex, name: &str) -> Result<(), UnknownInterface> {
        let addresses = &mut self.addresses[leg.as_usize()];
        *addresses = addresses
            .named(name)
            .ok_or_else(|| UnknownInterface(name.to_owned()))?;
        Ok(())
    }

    /// Takes the offer of the caller's INVITE.
    ///
    /// # Errors
    /// Whatever [`RemoteAudio::parse`] finds, [`OfferAnswerError::OutOfOrder`] when the caller
    /// has offered before: later offers are [`Self::reoffer`]s.
    pub fn offer_from_caller(&mut self, sdp: &[u8]) -> Result<(), OfferAnswerError> {
        if !matches!(self.exchange, Exchange::Idle) {
            return Err(OfferAnswerError::OutOfOrder);
        }
        let offer = RemoteAudio::parse(sdp, self.ours(LegIndex::A), self.policy(LegIndex::A))?;
        self.leg_mut(LegIndex::A).learn_offer(&offer);
        self.exchange = Exchange::Offered(offer);
        Ok(())
    }

    /// Settles which of our addresses each leg uses from now on, and gives them: the one that was
    /// named for it, else the first of the family that its peer can use. For the caller that is
    /// the family of its offer; for a callee, and for a caller that holds from the start, the
    /// family of `signalling`, where its SIP comes from.
    pub fn settle_addresses(&mut self, signalling: [IpAddr; 2]) -> [MediaAddress; 2] {
        let offered = match &self.exchange {
            Exchange::Offered(offer) => offer.rtp.map(|rtp| rtp.ip()),
            _ => None,
        };
        let [caller, callee] = &mut self.addresses;
        caller.settle(offered.unwrap_or(signalling[0]).to_canonical());
        callee.settle(signalling[1].to_canonical());
        [caller.preferred().clone(), callee.preferred().clone()]
    }

    /// The caller's offer in our words, for one callee. Called again it begins the next callee's
    /// leg: what the last one had said is forgotten. Over SRTP unless the callee's policy is
    /// [`SrtpPolicy::Off`].
    ///
    /// # Errors
    /// [`OfferAnswerError::OutOfOrder`] without a caller's offer or after a re-offer.
    pub fn offer_for_callee(&mut self, local: LocalDescription) -> Result<Bytes, OfferAnswerError> {
        let offer = match &self.exchange {
            Exchange::Offered(offer) => offer.clone(),
            Exchange::Initial(forwarded) => forwarded.offer.clone(),
            _ => return Err(OfferAnswerError::OutOfOrder),
        };
        let is_secure = self.policy(LegIndex::B) != SrtpPolicy::Off;
        let advertised = self.ours(LegIndex::B).advertised(local.rtp.ip());
        *self.leg_mut(LegIndex::B) = Leg {
            describer: Some(Describer::new(local, advertised)),
            lines: Some(MediaLines::audio_only(is_secure)),
            ..Leg::default()
        };
        let (forwarded, body) = self.forward(LegIndex::A, offer)?;
        self.exchange = Exchange::Initial(forwarded);
        Ok(body)
    }

    /// After the peer of `leg` has refused [`Self::offer_to`]: whether it can be asked again with
    /// plain RTP. Then the next offer to it is plain.
    #[must_use]
    pub fn concede_plain_rtp(&mut self, leg: LegIndex) -> bool {
        let policy = &mut self.policies[leg.as_usize()];
        let concedes = *policy == SrtpPolicy::Preferred;
        if concedes {
            *policy = SrtpPolicy::Off;
        }
        concedes
    }

    /// Takes an answer to [`Self::offer_for_callee`]: of a 183, of another 183, of the 200. The
    /// newest holds.
    ///
    /// # Errors
    /// Whatever [`RemoteAudio::parse`] finds, [`OfferAnswerError::AnswerMismatch`],
    /// [`OfferAnswerError::NoCommonCodec`], or [`OfferAnswerError::OutOfOrder`]. An earlier
    /// answer stays in force.
    pub fn answer_from_callee(&mut self, sdp: &[u8]) -> Result<(), OfferAnswerError> {
        let (Exchange::Initial(forwarded) | Exchange::Beside(forwarded)) = &self.exchange else {
            return Err(OfferAnswerError::OutOfOrder);
        };
        let forwarded = forwarded.clone();
        self.agree(&forwarded, sdp)
    }

    /// The callee's newest answer in our words. Unchanged it is the body sent before, so a 200
    /// repeats what the 183 said.
    ///
    /// # Errors
    /// [`OfferAnswerError::OutOfOrder`] before the callee's answer,
    /// [`OfferAnswerError::AddressRefused`] when the caller named our own socket.
    pub fn answer_for_caller(
        &mut self,
        local: LocalDescription,
    ) -> Result<Bytes, OfferAnswerError> {
        let advertised = self.ours(LegIndex::A).advertised(local.rtp.ip());
        let leg = self.leg_mut(LegIndex::A);
        if leg.agreed.is_none() {
            return Err(OfferAnswerError::OutOfOrder);
        }
        match &mut leg.describer {
            Some(describer) => describer.relocate(local, advertised),
            None => leg.describer = Some(Describer::new(local, advertised)),
        }
        if let Some(agreed) = &self.leg(LegIndex::A).agreed {
            self.refuse_own_sockets(&agreed.remote)?;
        }
        self.leg_mut(LegIndex::A).describe_answer()
    }

    /// Takes an offer made inside the call by either side and gives the one for the far leg.
    /// Nothing that is agreed changes before [`Self::reanswer`].
    ///
    /// # Errors
    /// As [`Self::offer_from_caller`]; [`OfferAnswerError::OfferPending`] while another re-offer
    /// is open, [`OfferAnswerError::OutOfOrder`] before the first answer.
    pub fn reoffer(&mut self, from: LegIndex, sdp: &[u8]) -> Result<Bytes, OfferAnswerError> {
        let is_answered = LegIndex::ALL
            .iter()
            .all(|leg| self.leg(*leg).agreed.is_some());
        match self.exchange {
            Exchange::Reoffered(_) => return Err(OfferAnswerError::OfferPending),
            Exchange::Initial(_) | Exchange::Beside(_) | Exchange::Stable if is_answered => {}
            _ => return Err(OfferAnswerError::OutOfOrder),
        }
        let offer = RemoteAudio::parse(sdp, self.ours(from), self.policy(from))?;
        self.refuse_own_sockets(&offer)?;
        let (forwarded, body) = self.forward(from, offer)?;
        self.exchange = Exchange::Reoffered(forwarded);
        Ok(body)
    }

    /// Takes the answer of leg `from` to the open re-offer and gives the one for the other leg.
    ///
    /// # Errors
    /// As [`Self::answer_from_callee`]. The re-offer is then closed and what was agreed before it
    /// stays in force here; the far leg, which did accept, believes otherwise until it is offered
    /// something again.
    pub fn reanswer(&mut self, from: LegIndex, sdp: &[u8]) -> Result<Bytes, OfferAnswerError> {
        let forwarded = match &self.exchange {
            Exchange::Reoffered(forwarded) if forwarded.from == from.far() => forwarded.clone(),
            _ => return Err(OfferAnswerError::OutOfOrder),
        };
        self.exchange = Exchange::Stable;
        self.agree(&forwarded, sdp)?;
        let leg = self.leg_mut(forwarded.from);
        leg.learn_offer(&forwarded.offer);
        leg.describe_answer()
    }

    /// The far leg refused the open re-offer, or nobody will answer it any more: what was agreed
    /// before it stays in force. Nothing happens when none is open.
    pub fn abandon_reoffer(&mut self) {
        if matches!(self.exchange, Exchange::Reoffered(_)) {
            self.exchange = Exchange::Stable;
        }
    }

    /// What the leg's peer described, once both sides agreed.
    #[must_use]
    pub fn remote(&self, leg: LegIndex) -> Option<&RemoteAudio> {
        self.leg(leg).agreed.as_ref().map(|agreed| &agreed.remote)
    }

    /// The edge's view of a leg as it is agreed now. `nat` is the IP that the peer's signalling
    /// comes from when its media address cannot be believed.
    #[must_use]
    pub fn leg_config(&self, leg: LegIndex, nat: Option<IpAddr>) -> LegConfig {
        let far = self.leg(leg.far()).agreed.as_ref();
        let Some(near) = self.leg(leg).agreed.as_ref() else {
            return LegConfig {
                remote_rtp: None,
                remote_rtcp: None,
                source: SourcePolicy::Nobody,
                direction: MediaDirection::Inactive,
                routes: PayloadRoutes::default(),
                crypto: None,
                timeouts: MediaTimeouts::OFF,
            };
        };
        let remote = &near.remote;
        LegConfig {
            remote_rtp: remote.rtp,
            remote_rtcp: if remote.rtcp_mux {
                remote.rtp
            } else {
                remote.rtcp
            },
            source: match (nat, &self.media_from[leg.as_usize()], remote.rtp) {
                (Some(ip), _, _) => SourcePolicy::LearnPort { ip },
                (None, Some(networks), Some(_)) => SourcePolicy::Networks(networks.clone()),
                (None, None, Some(_)) => SourcePolicy::Exact,
                (None, _, None) => SourcePolicy::Nobody,
            },
            direction: near.edge_direction(),
            routes: far.map_or_else(PayloadRoutes::default, |far| routes(near, far)),
            crypto: near.crypto.as_ref().map(AgreedCrypto::leg_crypto),
            timeouts: MediaTimeouts::OFF,
        }
    }

    /// The audio in use on a leg, once both sides agreed.
    #[must_use]
    pub fn audio(&self, leg: LegIndex) -> Option<Encoding> {
        self.leg(leg).agreed.as_ref().map(|agreed| agreed.audio)
    }

    /// What the edge must know of a leg's formats to decode and make audio there. `None` before an
    /// answer, and for a format that only passes through.
    #[must_use]
    pub fn leg_audio(&self, leg: LegIndex) -> Option<LegAudio> {
        self.leg(leg).agreed.as_ref()?.leg_audio()
    }

    /// Whether a peer may send something that has no way to the far leg as it is: the edge then
    /// needs [`Self::leg_audio`] of both legs.
    #[must_use]
    pub fn conversion(&self) -> Conversion {
        let [Some(a), Some(b)] = self.legs.each_ref().map(|leg| leg.agreed.as_ref()) else {
            // What one side alone hears is made by the edge.
            return match self.legs.iter().any(|leg| leg.agreed.is_some()) {
                true => Conversion::Full,
                false => Conversion::None,
            };
        };
        let is_stuck = |near: &Agreed, far: &Agreed| {
            let mut codecs = near.codecs.iter();
            // Comfort noise that stays here is silence on the other side, and no loss.
            codecs.any(|codec| {
                !matches!(codec.encoding, Encoding::ComfortNoise { .. })
                    && codec::number_of(&far.codecs, codec.encoding).is_none()
            })
        };
        if a.audio != b.audio {
            Conversion::Full
        } else if is_stuck(a, b) || is_stuck(b, a) {
            Conversion::Partial
        } else {
            Conversion::None
        }
    }

    /// Puts `offer` before the leg opposite `from`.
    fn forward(
        &mut self,
        from: LegIndex,
        offer: RemoteAudio,
    ) -> Result<(Forwarded, Bytes), OfferAnswerError> {
        let policy = self.policy(from.far());
        let direction = match offer.direction {
            Direction::Inactive if self.has_hold_music => Direction::SendOnly,
            offered => offered,
        };
        let added = if self.may_transcode() {
            let list = &self.transcoding[from.far().as_usize()].codecs;
            transcoding::additions(&offer.codecs, list)
        } else {
            Vec::new()
        };
        let withholds_events = self.withholds_events[from.far().as_usize()];
        let leg = &mut self.legs[from.far().as_usize()];
        // Inside a call the leg stays as it is, with its key: only its peer may change that.
        let crypto = match &leg.agreed {
            Some(agreed) => agreed
                .crypto
                .iter()
                .map(|crypto| crypto.ours.clone())
                .collect(),
            None if policy == SrtpPolicy::Off => Vec::new(),
            None => sdes::offer(&mut self.keys),
        };
        let numbers = &mut leg.numbers;
        let is_withheld =
            |codec: &AudioCodec| withholds_events && codec.encoding.is_telephone_event();
        let codecs = offer.codecs.iter().chain(&added).filter_map(|codec| {
            if is_withheld(codec) {
                return None;
            }
            Some(AudioCodec {
                payload_type: numbers.number_for(codec.encoding, codec.payload_type)?,
                ..codec.clone()
            })
        });
        let codecs = codec::without_orphaned_events(codecs.collect());
        let (Some(describer), Some(lines)) = (&mut leg.describer, &leg.lines) else {
            return Err(OfferAnswerError::OutOfOrder);
        };
        if !codec::has_audio(&codecs) {
            return Err(OfferAnswerError::NoCommonCodec);
        }
        let body = describer.describe(&LocalAudio {
            lines,
            codecs: &codecs,
            direction,
            rtcp: LocalRtcp::Offered,
            crypto: &crypto,
            ptime_ms: offer.ptime_ms,
            maxptime_ms: offer.maxptime_ms,
        });
        let forwarded = Forwarded {
            from,
            offer,
            codecs,
            direction,
            crypto,
        };
        Ok((forwarded, body))
    }

    /// Settles both legs on the answer `sdp` to `forwarded`, or changes nothing.
    fn agree(&mut self, forwarded: &Forwarded, sdp: &[u8]) -> Result<(), OfferAnswerError> {
        let offer = &forwarded.offer;
        let answerer = forwarded.from.far();
        // The profile is the offer's, whatever the policy.
        let policy = if forwarded.crypto.is_empty() {
            SrtpPolicy::Off
        } else {
            SrtpPolicy::Required
        };
        let answer = RemoteAudio::parse(sdp, self.ours(answerer), policy)?;
        let offered_line = self.leg(answerer).lines.as_ref().map(|lines| lines.audio);
        if offered_line != Some(answer.lines.audio) {
            return Err(OfferAnswerError::AnswerMismatch);
        }
        self.refuse_own_sockets(offer)?;
        self.refuse_own_sockets(&answer)?;
        let standing = match &self.exchange {
            Exchange::Beside(_) => self.leg(forwarded.from).agreed.clone(),
            _ => None,
        };

        let answered: Vec<AudioCodec> = answer
            .codecs
            .iter()
            .filter(|codec| codec::number_of(&forwarded.codecs, codec.encoding).is_some())
            .cloned()
            .collect();
        // The answer's order and parameters; each format under the offerer's own number.
        let common = answered.iter().filter_map(|codec| {
            Some(AudioCodec {
                payload_type: codec::number_of(&offer.codecs, codec.encoding)?,
                ..codec.clone()
            })
        });
        let common = codec::without_orphaned_events(common.collect());
        let may_transcode = self.may_transcode();
        let [withholds, far_withholds] =
            [forwarded.from, answerer].map(|leg| self.withholds_events[leg.as_usize()]);
        let offered: Vec<AudioCodec> = offer
            .codecs
            .iter()
            .filter(|codec| !(withholds && codec.encoding.is_telephone_event()))
            .filter(|codec| {
                let in_force = standing.as_ref().map(|agreed| &agreed.codecs);
                in_force.is_none_or(|codecs| codec::number_of(codecs, codec.encoding).is_some())
            })
            .cloned()
            .collect();
        let common = common
            .into_iter()
            .filter(|codec| codec::number_of(&offered, codec.encoding).is_some())
            .collect();
        let powers = Powers {
            transcodes: may_transcode,
            takes_events: may_transcode || far_withholds,
        };
        let settled = transcoding::settle(&offered, &answered, common, powers);
        let (common, offerer_audio, answerer_audio) =
            settled.ok_or(OfferAnswerError::NoCommonCodec)?;
        let is_relayed = offerer_audio == answerer_audio;
        let in_force = codec::without_orphaned_events(answered);
        let in_force = forwarded
            .codecs
            .iter()
            .filter(|codec| codec::number_of(&in_force, codec.encoding).is_some());

        let answerer_crypto = if forwarded.crypto.is_empty() {
            None
        } else {
            let agreed = AgreedCrypto::answered(&forwarded.crypto, &answer.crypto);
            Some(agreed.ok_or(OfferAnswerError::NoCommonSuite)?)
        };
        let offerer_crypto = if offer.crypto.is_empty() || standing.is_some() {
            None
        } else {
            let leg = &self.legs[forwarded.from.as_usize()];
            let force = leg
                .agreed
                .as_ref()
                .and_then(|agreed| agreed.crypto.as_ref());
            let agreed = AgreedCrypto::answering(&offer.crypto, force, &mut self.keys);
            Some(agreed.ok_or(OfferAnswerError::NoCommonSuite)?)
        };

        let leg = self.leg_mut(answerer);
        leg.numbers.observe(&answer.codecs);
        leg.agreed = Some(Agreed {
            codecs: in_force.cloned().collect(),
            audio: answerer_audio,
            direction: forwarded.direction,
            ptime_ms: offer.ptime_ms,
            maxptime_ms: offer.maxptime_ms,
            remote: answer.clone(),
            crypto: answerer_crypto,
        });
        if let Some(standing) = standing {
            self.leg_mut(forwarded.from).agreed = Some(Agreed {
                audio: offerer_audio,
                ..standing
            });
            return Ok(());
        }
        self.leg_mut(forwarded.from).agreed = Some(Agreed {
            remote: offer.clone(),
            codecs: common,
            audio: offerer_audio,
            direction: negotiate_direction(offer.direction, answer.direction),
            // Where the edge makes the packets, each side has those that it asks for.
            ptime_ms: answer.ptime_ms.filter(|_| is_relayed),
            maxptime_ms: answer.maxptime_ms.filter(|_| is_relayed),
            crypto: offerer_crypto,
        });
        Ok(())
    }

    /// A peer that names one of this call's own sockets would have the edge talk to itself.
    fn refuse_own_sockets(&self, remote: &RemoteAudio) -> Result<(), OfferAnswerError> {
        for describer in self.legs.iter().filter_map(|leg| leg.describer.as_ref()) {
            for address in [remote.rtp, remote.rtcp].into_iter().flatten() {
                if describer.occupies(address) {
                    return Err(OfferAnswerError::AddressRefused(address));
                }
            }
        }
        Ok(())
    }

    fn ours(&self, leg: LegIndex) -> &MediaAddresses {
        &self.addresses[leg.as_usize()]
    }

    fn may_transcode(&self) -> bool {
        let mut policies = self.transcoding.iter();
        policies.all(|policy| policy.transcode == Transcode::WhenNeeded)
    }

    fn policy(&self, leg: LegIndex) -> SrtpPolicy {
        self.policies[leg.as_usize()]
    }

    fn leg(&self, leg: LegIndex) -> &Leg {
        &self.legs[leg.as_usize()]
    }

    fn leg_mut(&mut self, leg: LegIndex) -> &mut Leg {
        &mut self.legs[leg.as_usize()]
    }
}

impl Leg {
    /// The peer offers: its lines are the leg's lines from now on, its numbers the leg's numbers.
    fn learn_offer(&mut self, offer: &RemoteAudio) {
        for codec in &offer.codecs {
            self.numbers.assign(codec.payload_type, codec.encoding);
        }
        self.lines = Some(offer.lines.clone());
    }

    /// The answer that [`MediaNegotiation::agree`] left for this leg's peer.
    fn describe_answer(&mut self) -> Result<Bytes, OfferAnswerError> {
        let (Some(describer), Some(agreed)) = (&mut self.describer, &self.agreed) else {
            return Err(OfferAnswerError::OutOfOrder);
        };
        Ok(describer.describe(&LocalAudio {
            lines: &agreed.remote.lines,
            codecs: &agreed.codecs,
            direction: agreed.direction,
            rtcp: if agreed.remote.rtcp_mux {
                LocalRtcp::Muxed
            } else {
                LocalRtcp::Separate
            },
            crypto: agreed
                .crypto
                .as_ref()
                .map_or(&[][..], |crypto| std::slice::from_ref(&crypto.ours)),
            ptime_ms: agreed.ptime_ms,
            maxptime_ms: agreed.maxptime_ms,
        }))
    }
}

impl Agreed {
    /// What both descriptions of the leg allow, seen from the edge.
    fn edge_direction(&self) -> MediaDirection {
        let sends = self.direction.sends() && self.remote.direction.receives();
        let receives = self.direction.receives() && self.remote.direction.sends();
        match (sends, receives) {
            (true, true) => MediaDirection::SendReceive,
            (true, false) => MediaDirection::SendOnly,
            (false, true) => MediaDirection::ReceiveOnly,
            (false, false) => MediaDirection::Inactive,
        }
    }
}

/// The numbers that `near`'s peer may send and what each becomes on `far`.
///
/// A peer sends the numbers of our description (RFC 3264 §5.1). One that answered under other
/// numbers is heard under those too, as far as they are free, since many then send what they
/// wrote themselves.
fn routes(near: &Agreed, far: &Agreed) -> PayloadRoutes {
    let mut routes: Vec<PayloadRoute> = Vec::new();
    for codec in near.codecs.iter().chain(&near.remote.codecs) {
        let is_in_force = [near, far]
            .iter()
            .all(|leg| codec::number_of(&leg.codecs, codec.encoding).is_some());
        let Some(to) = codec::number_of(&far.remote.codecs, codec.encoding) else {
            continue;
        };
        if is_in_force && routes.iter().all(|route| route.from != codec.payload_type) {
            routes.push(PayloadRoute {
                from: codec.payload_type,
                to,
                clock_rate: codec.clock_rate(),
            });
        }
    }
    PayloadRoutes::new(routes).expect("no number twice, and at most two numbers per encoding")
}
