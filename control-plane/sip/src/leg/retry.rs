//! Requests of a leg that are sent again because their response asks for it: with credentials
//! after 401 and 407 (RFC 3261 §22.2), with a longer session interval after 422 (RFC 4028 §7.4).
//!
//! The new attempt has the Call-ID and tags of the one before, the next number and a branch of its
//! own. CANCEL is never challenged (RFC 3261 §22.1): nobody could send it again.

use sipx_sip::{Method, Request, Response};
use trunkline_edge_api::MonoTime;

use super::session::raise_interval;
use super::{Leg, Negotiation, State};
use crate::agent::core::{ClientOwner, ClientUser, Core, Key, Purpose};
use crate::flow::Flow;

/// How often the interval of one request is raised: by a proxy, and by the peer behind it.
const RAISES_MAX: u8 = 3;

impl Leg {
    /// Whether the request was sent again, so that `response` is not its end.
    pub(super) fn try_again(
        &mut self,
        core: &mut Core,
        now: MonoTime,
        key: &Key,
        owner: ClientOwner,
        (mut request, flow): (Request, Flow),
        response: &Response,
    ) -> bool {
        let ClientUser::Leg(_, purpose) = owner.user else {
            return false;
        };
        if !self.still_wants(key, purpose, &request) {
            return false;
        }
        let (mut answers, mut raises) = (owner.answers, owner.raises);
        let is_ready = match response.status.code() {
            401 | 407 => match &self.credentials {
                Some(credentials) => {
                    core.authorize(&mut request, response, credentials, &mut answers)
                }
                None => false,
            },
            422 if raises < RAISES_MAX => {
                raises += 1;
                raise_interval(&mut request, response).is_some()
            }
            _ => false,
        };
        if !is_ready {
            return false;
        }
        let cseq = self.dialog.next_cseq();
        core.renew(&mut request, &flow, cseq);
        let owner = ClientOwner {
            cseq,
            answers,
            raises,
            ..owner
        };
        self.transactions += 1;
        let again = core.send_request(now, request, flow, owner);
        if purpose == Purpose::Invite {
            self.close_branches(core, now, 481);
        }
        self.follow(purpose, cseq, key, again);
        true
    }

    /// Whether the outcome of the request still matters.
    fn still_wants(&self, key: &Key, purpose: Purpose, request: &Request) -> bool {
        match purpose {
            Purpose::Invite => match &self.state {
                State::Calling { invite } | State::Proceeding { invite } => invite == key,
                _ => false,
            },
            Purpose::Reinvite => matches!(
                &self.state,
                State::Confirmed(
                    Negotiation::OwnOffer { invite, .. } | Negotiation::Refreshing { invite }
                ) if invite == key
            ),
            Purpose::Farewell => request.method == Method::Bye,
            Purpose::Info | Purpose::Update | Purpose::Prack | Purpose::Refresh => {
                !self.is_terminated()
            }
            Purpose::Notify => self.peer_refer.is_some(),
            Purpose::Refer => self.own_refer.is_some(),
        }
    }

    /// The transaction `again` takes the place of the one before.
    fn follow(&mut self, purpose: Purpose, cseq: u32, old: &Key, again: Key) {
        match (purpose, &mut self.state) {
            (Purpose::Invite, state) => {
                self.invite_cseq = cseq;
                *state = State::Calling { invite: again };
            }
            (
                Purpose::Reinvite,
                State::Confirmed(
                    Negotiation::OwnOffer { invite, .. } | Negotiation::Refreshing { invite },
                ),
            ) => *invite = again,
            (Purpose::Update, State::Confirmed(Negotiation::OwnOffer { invite, .. }))
                if invite == old =>
            {
                *invite = again;
            }
            (Purpose::Update, _) => {
                self.follow_early_update(old, &again);
                self.follow_branch_update(old, &again);
            }
            (Purpose::Refer, _) => self.refer_renumbered(cseq),
            _ => {}
        }
    }
}
