//! A callee's leg before its answer: the branches of a forked INVITE, each an early dialog of its
//! own (RFC 3261 §12.1, §13.2.2.4), their reliable provisional responses (RFC 3262 §4) and the
//! offers they make (RFC 3311, RFC 6337).
//!
//! ```text
//!   INVITE, offer   ─▶
//!   183, tag b1     ◀─   Event::Progress, fork 0
//!   183, tag b2     ◀─   Event::Progress, fork 1; reliable: PRACK in the dialog of b2
//!   UPDATE, tag b2  ◀─   Event::Offer: the reliable 183 answered ours, another may follow
//!   200, tag b2     ◀─   Event::Answered, fork 1
//! ```

use bytes::Bytes;
use sipx_sip::headers::{From, Require};
use sipx_sip::rel::{self, RSeq, Received, Sequence};
use sipx_sip::{HeaderName, Method, Request, Response};
use trunkline_edge_api::MonoTime;

use super::{Leg, State};
use crate::agent::core::{Core, Key, Purpose};
use crate::agent::{AgentEvent, LegError};
use crate::dialog::{Dialog, to_tag};
use crate::message::{Body, header};

/// Early dialogs of one INVITE that are followed; what further ones say before they answer is left
/// unheard. A callee's phones are rarely more than five.
const BRANCHES_MAX: usize = 8;

/// One early dialog.
#[derive(Debug)]
pub(super) struct Branch {
    /// Its peer's tag; `None` for the one of a peer that gives none.
    tag: Option<Bytes>,
    /// Once a reliable response formed it.
    dialog: Option<Box<Dialog>>,
    received: Sequence,
    exchange: Exchange,
    /// What the peer described last.
    remote: Option<Bytes>,
}

/// Where offer and answer of a branch stand.
#[derive(Debug)]
enum Exchange {
    /// Our INVITE's offer has no answer that counts: an unreliable response only announces it.
    OwnOffer,
    /// Our INVITE had none.
    None,
    /// The peer's offer came in a reliable response; our PRACK, with this `RAck`, owes the answer.
    PeerOffer { rack: String },
    /// Answered.
    Settled,
    /// A further offer of the peer, in an UPDATE, waits for the user of the agent.
    PeerReoffer { request: Key, offer: Bytes },
    /// A further offer of ours, in an UPDATE, waits for its final response.
    OwnUpdate { update: Key, offer: Bytes },
}

/// What the answered branch leaves to the session.
pub(super) struct Answered {
    /// Its place in the order of the branches.
    pub(super) fork: u8,
    /// The peer's description.
    pub(super) sdp: Option<Bytes>,
    /// The INVITE's exchange is over, whatever the 2xx describes.
    pub(super) is_settled: bool,
    /// Our UPDATE that is still out.
    pub(super) update: Option<(Key, Bytes)>,
}

impl Leg {
    /// The branch of `tag`, made where it is new. `None` when there are too many.
    fn branch_of(&mut self, core: &Core, tag: Option<&Bytes>) -> Option<usize> {
        let known = self.branches.iter().position(|b| b.tag.as_ref() == tag);
        let made_offer = match &self.state {
            State::Calling { invite } | State::Proceeding { invite } => core
                .client_request(invite)
                .is_some_and(|(invite, _)| !invite.body().is_empty()),
            _ => false,
        };
        if known.is_none() && self.branches.len() < BRANCHES_MAX {
            self.branches.push(Branch {
                tag: tag.cloned(),
                dialog: None,
                received: Sequence::default(),
                exchange: if made_offer {
                    Exchange::OwnOffer
                } else {
                    Exchange::None
                },
                remote: None,
            });
            return Some(self.branches.len() - 1);
        }
        known
    }

    /// Whether a branch with this tag has spoken.
    pub(super) fn has_branch(&self, tag: &[u8]) -> bool {
        let is_it = |branch: &Branch| branch.tag.as_deref() == Some(tag);
        self.branches.iter().any(is_it)
    }

    /// 101 … 199 to our INVITE.
    pub(super) fn handle_progress(&mut self, core: &mut Core, now: MonoTime, response: &Response) {
        let tag = to_tag(&response.headers);
        let Some(index) = self.branch_of(core, tag.as_ref()) else {
            return;
        };
        let base = self.dialog.clone();
        let Some(branch) = self.branches.get_mut(index) else {
            return;
        };
        let rseq = reliable_number(response);
        if let Some(rseq) = rseq {
            match branch.received.accept(rseq) {
                Received::Acknowledge => {}
                // A copy, whose PRACK repeats itself, or one whose forerunner is lost
                // (RFC 3262 §4).
                _ => return,
            }
            let dialog = branch.dialog.get_or_insert_with(|| Box::new(base));
            dialog.adopt(response);
        }
        let fork = u8::try_from(index).unwrap_or(u8::MAX);
        let described = Body::sdp_of(&response.headers, response.body());
        let rack = rseq.map(|rseq| format!("{rseq} {} INVITE", self.invite_cseq));
        let mut offer = None;
        let sdp = match (&branch.exchange, described, &rack) {
            (Exchange::OwnOffer, Some(sdp), rack) => {
                branch.remote = Some(sdp.clone());
                if rack.is_some() {
                    branch.exchange = Exchange::Settled;
                }
                Some(sdp)
            }
            (Exchange::None, Some(sdp), Some(rack)) => {
                branch.remote = Some(sdp.clone());
                branch.exchange = Exchange::PeerOffer { rack: rack.clone() };
                offer = Some(sdp);
                None
            }
            // Settled already, or an offer that may never be answered.
            _ => None,
        };
        core.emit(AgentEvent::Progress {
            leg: self.id,
            status: response.status.code(),
            fork,
            sdp,
        });
        match (offer, rack) {
            (Some(sdp), _) => core.emit(AgentEvent::Offer { leg: self.id, sdp }),
            (None, Some(rack)) => self.send_prack(core, now, index, rack, &Bytes::new()),
            (None, None) => {}
        }
    }

    fn send_prack(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        index: usize,
        rack: String,
        sdp: &Bytes,
    ) {
        let cseq = self.dialog.next_cseq();
        let branch = self.branches.get(index);
        let Some(dialog) = branch.and_then(|branch| branch.dialog.as_deref()) else {
            return;
        };
        let (mut prack, flow) = dialog.request(Method::Prack, cseq, core.random());
        prack.headers.push(header(HeaderName::RAck, rack));
        prack.set_body(sdp.clone());
        self.send(core, now, prack, flow, Purpose::Prack);
    }

    // ---- offers -------------------------------------------------------------------------------

    /// An UPDATE with an offer in an early dialog.
    pub(super) fn handle_branch_update(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        key: &Key,
        request: &Request,
        sdp: Bytes,
    ) {
        let from = match request.headers.typed::<From>() {
            Some(Ok(from)) => from.tag().map(Bytes::copy_from_slice),
            _ => None,
        };
        let Some(branch) = self.branches.iter_mut().find(|b| b.tag == from) else {
            return self.refuse(core, now, key, 481);
        };
        match &branch.exchange {
            Exchange::Settled => {
                branch.exchange = Exchange::PeerReoffer {
                    request: key.clone(),
                    offer: sdp.clone(),
                };
                if let Some(dialog) = &mut branch.dialog {
                    dialog.refresh_target(&request.headers);
                }
                core.emit(AgentEvent::Offer { leg: self.id, sdp });
            }
            Exchange::OwnOffer | Exchange::OwnUpdate { .. } => self.refuse(core, now, key, 491),
            Exchange::None | Exchange::PeerOffer { .. } | Exchange::PeerReoffer { .. } => {
                self.refuse_for_now(core, now, key);
            }
        }
    }

    /// Answers what a branch offers: in the PRACK of its response, or in the 200 to its UPDATE.
    pub(super) fn answer_branch_offer(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        answer: Result<Bytes, u16>,
    ) -> Result<(), LegError> {
        let is_open = |branch: &Branch| {
            matches!(
                branch.exchange,
                Exchange::PeerOffer { .. } | Exchange::PeerReoffer { .. }
            )
        };
        let index = self.branches.iter().position(is_open);
        let index = index.ok_or(LegError::WrongState)?;
        let settled = Exchange::Settled;
        match (
            std::mem::replace(&mut self.branches[index].exchange, settled),
            answer,
        ) {
            (Exchange::PeerOffer { rack }, Ok(sdp)) => {
                self.send_prack(core, now, index, rack, &sdp);
                self.local_sdp = sdp;
            }
            (Exchange::PeerReoffer { request, offer }, Ok(sdp)) => {
                self.branches[index].remote = Some(offer);
                let response = self.dialog_response(core, &request, 200, &sdp)?;
                core.respond(now, &request, response);
                self.local_sdp = sdp;
            }
            (Exchange::PeerReoffer { request, .. }, Err(status)) => {
                self.refuse(core, now, &request, status);
            }
            // A PRACK cannot say no; the call can only be given up.
            (open, _) => {
                self.branches[index].exchange = open;
                return Err(LegError::WrongState);
            }
        }
        Ok(())
    }

    /// Offers `sdp` in an UPDATE to the one branch whose first exchange is over.
    pub(super) fn update_branch(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        offer: Bytes,
    ) -> Result<(), LegError> {
        if !self.allows_update {
            return Err(LegError::WrongState);
        }
        let is_settled = |branch: &Branch| matches!(branch.exchange, Exchange::Settled);
        let index = self.branches.iter().rposition(is_settled);
        let index = index.ok_or(LegError::WrongState)?;
        let dialog = self.branches[index].dialog.as_deref().cloned();
        let dialog = dialog.ok_or(LegError::WrongState)?;
        let update = self.send_update(core, now, &dialog, &offer, Purpose::Update);
        self.branches[index].exchange = Exchange::OwnUpdate { update, offer };
        Ok(())
    }

    /// The final response to our UPDATE in an early dialog. Whether it was one of these.
    pub(super) fn branch_update_done(
        &mut self,
        core: &mut Core,
        key: &Key,
        result: &Result<Bytes, u16>,
    ) -> bool {
        let Some(branch) = self.branches.iter_mut().find(|branch| {
            matches!(&branch.exchange, Exchange::OwnUpdate { update, .. } if update == key)
        }) else {
            return false;
        };
        let before = std::mem::replace(&mut branch.exchange, Exchange::Settled);
        if let (Exchange::OwnUpdate { offer, .. }, Ok(sdp)) = (before, result) {
            branch.remote = Some(sdp.clone());
            self.local_sdp = offer;
        }
        core.emit(AgentEvent::OfferAnswered {
            leg: self.id,
            result: result.clone(),
        });
        true
    }

    /// A new attempt of our UPDATE.
    pub(super) fn follow_branch_update(&mut self, old: &Key, again: &Key) {
        for branch in &mut self.branches {
            if let Exchange::OwnUpdate { update, .. } = &mut branch.exchange
                && update == old
            {
                *update = again.clone();
            }
        }
    }

    /// The answer to a branch's offer cannot be delivered. Whether it was one of these.
    pub(super) fn forget_branch_offer(&mut self, key: &Key) -> bool {
        let found = self.branches.iter_mut().find(|branch| {
            matches!(&branch.exchange, Exchange::PeerReoffer { request, .. } if request == key)
        });
        match found {
            Some(branch) => {
                branch.exchange = Exchange::Settled;
                true
            }
            None => false,
        }
    }

    // ---- the end of the early dialogs ---------------------------------------------------------

    /// The branches are over: one was answered, or none will be. Their open offers are refused.
    pub(super) fn close_branches(&mut self, core: &mut Core, now: MonoTime, status: u16) {
        for branch in std::mem::take(&mut self.branches) {
            if let Exchange::PeerReoffer { request, .. } = branch.exchange {
                self.refuse(core, now, &request, status);
            }
        }
    }

    /// The 2xx of one branch ends them all. An offer of that branch which nobody answered is
    /// refused, and the user told.
    pub(super) fn answered_branch(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        response: &Response,
    ) -> Answered {
        let tag = to_tag(&response.headers);
        let index = self.branch_of(core, tag.as_ref());
        let described = Body::sdp_of(&response.headers, response.body());
        let mut answered = Answered {
            fork: index.map_or(u8::MAX, |index| u8::try_from(index).unwrap_or(u8::MAX)),
            sdp: described.clone(),
            is_settled: false,
            update: None,
        };
        if let Some(index) = index {
            let branch = self.branches.swap_remove(index);
            match branch.exchange {
                // The description in an unreliable provisional response is the answer already; the
                // 2xx repeats it (RFC 3261 §13.2.1), and some peers forget to.
                Exchange::OwnOffer | Exchange::None => {
                    answered.sdp = described.or(branch.remote);
                }
                Exchange::PeerOffer { .. } => answered.sdp = described,
                Exchange::Settled => {
                    answered.is_settled = true;
                    answered.sdp = branch.remote;
                }
                Exchange::PeerReoffer { request, .. } => {
                    self.refuse(core, now, &request, 491);
                    core.emit(AgentEvent::OfferCancelled { leg: self.id });
                    answered.is_settled = true;
                    answered.sdp = branch.remote;
                }
                Exchange::OwnUpdate { update, offer } => {
                    answered.is_settled = true;
                    answered.sdp = branch.remote;
                    answered.update = Some((update, offer));
                }
            }
        }
        self.close_branches(core, now, 487);
        answered
    }
}

/// The number of a response that was sent reliably.
fn reliable_number(response: &Response) -> Option<u32> {
    let required = response
        .headers
        .typed_all::<Require>()
        .any(|require| require.is_ok_and(|require| require.contains(rel::OPTION_TAG)));
    match response.headers.typed::<RSeq>() {
        Some(Ok(RSeq(number))) if required && number > 0 => Some(number),
        _ => None,
    }
}
