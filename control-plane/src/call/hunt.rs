//! Ringing: one round of callees after the other, until somebody answers.
//!
//! ```text
//!   Round ──▶ INVITE to each ──┬─▶ 200 ──▶ the others are cancelled ──▶ connected
//!                              ├─▶ 415, 488, 606 to SRTP ──▶ once more, plain
//!                              ├─▶ 603 ──▶ no other phone of that callee is rung on
//!                              └─▶ every other refusal, or the round's time is over
//!                                      └─▶ who is next? ──▶ Round, or nobody: the caller is told
//! ```
//!
//! Each phone that is rung has a description of its own, with keys of its own, on the same ports:
//! the first answer settles which one holds.

use bytes::Bytes;
use trunkline_edge_api::{LegIndex, MonoTime};
use trunkline_sip::offer_answer::{LocalDescription, MediaNegotiation, OfferAnswerError};

use super::callee::{Callee, Cause, ForkId, Round};
use super::{Call, Output};
use crate::party::Dtmf;

/// Why an INVITE of ours is taken back (RFC 3326).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdrawal {
    /// The caller gave up, or the time was over.
    NoLongerWanted,
    /// Another phone was faster: this one need not show a missed call.
    AnsweredElsewhere,
}

impl Withdrawal {
    /// The value of `Reason`, where there is something to say.
    #[must_use]
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::NoLongerWanted => None,
            Self::AnsweredElsewhere => Some("SIP;cause=200;text=\"Call completed elsewhere\""),
        }
    }
}

/// Callees that ring now.
#[derive(Debug)]
pub(super) struct Hunt {
    /// The leg that whoever answers takes.
    pub(super) slot: LegIndex,
    forks: Vec<Fork>,
    /// `None` between two rounds.
    give_up_at: Option<MonoTime>,
    /// The greatest of this round.
    of_round: Cause,
    /// The greatest of all.
    cause: Cause,
}

/// One INVITE, with what it and its callee said of media.
#[derive(Debug)]
pub(super) struct Fork {
    pub(super) id: ForkId,
    pub(super) callee: Callee,
    pub(super) negotiation: MediaNegotiation,
    local: LocalDescription,
}

impl Hunt {
    pub(super) fn new(slot: LegIndex) -> Self {
        Self {
            slot,
            forks: Vec::new(),
            give_up_at: None,
            of_round: Cause::Offline,
            cause: Cause::Offline,
        }
    }

    pub(super) fn fork_mut(&mut self, id: ForkId) -> Option<&mut Fork> {
        self.forks.iter_mut().find(|fork| fork.id == id)
    }

    pub(super) fn rings(&self, id: ForkId) -> bool {
        self.forks.iter().any(|fork| fork.id == id)
    }

    pub(super) fn take(&mut self, id: ForkId) -> Option<Fork> {
        let at = self.forks.iter().position(|fork| fork.id == id)?;
        Some(self.forks.remove(at))
    }

    /// What the caller is told when nobody is left.
    pub(super) fn cause(&self) -> Cause {
        self.cause
    }

    pub(super) fn poll_timeout(&self) -> Option<MonoTime> {
        self.give_up_at
    }

    fn note(&mut self, cause: Cause) {
        self.of_round = self.of_round.max(cause);
        self.cause = self.cause.max(cause);
    }

    /// Takes every INVITE back.
    pub(super) fn withdraw(&mut self, why: Withdrawal) -> impl Iterator<Item = Output> + use<> {
        self.give_up_at = None;
        let forks = std::mem::take(&mut self.forks);
        forks
            .into_iter()
            .map(move |fork| Output::Withdraw(fork.id, why))
    }
}

impl Call {
    /// Rings a round. A callee whose media cannot be described is passed over.
    pub(super) fn ring(&mut self, now: MonoTime, round: Round) {
        let Some(slot) = self.state.hunt_mut().map(|hunt| hunt.slot) else {
            return;
        };
        let callees = round.callees.into_iter();
        let forks: Vec<_> = callees.map(|callee| self.fork(slot, callee)).collect();
        let Some(hunt) = self.state.hunt_mut() else {
            return;
        };
        hunt.of_round = Cause::Offline;
        hunt.give_up_at = Some(now.plus_secs(u64::from(round.ring_timeout_secs)));
        for fork in forks {
            match fork {
                Ok((fork, offer)) => {
                    self.outputs.push_back(invite(&fork, offer));
                    hunt.forks.push(fork);
                }
                Err(cause) => hunt.note(cause),
            }
        }
        self.go_on_when_nobody_rings();
    }

    fn fork(&mut self, slot: LegIndex, callee: Callee) -> Result<(Fork, Bytes), Cause> {
        let Some(mut local) = self.local[slot.as_usize()] else {
            return Err(Cause::Failed);
        };
        let base = &mut self.negotiation;
        let interface = callee.media.interface.as_ref();
        if interface.is_some_and(|name| !base.may_use_interface(slot, name.as_str())) {
            tracing::warn!(
                callee = callee.name,
                "not rung: the call began on another of our media addresses"
            );
            return Err(Cause::Failed);
        }
        let mut negotiation = base.branch(slot, callee.media.srtp);
        negotiation.allow_transcoding(slot, callee.media.transcoding.clone());
        if callee.media.dtmf != Dtmf::Rfc4733 {
            negotiation.withhold_events(slot);
        }
        if let Some(networks) = &callee.media.media_from {
            negotiation.accept_media_from(slot, networks.clone());
        }
        let id = ForkId(self.fork_next);
        self.fork_next += 1;
        // Each is a session of its own to the peer that is told of it.
        local.session_id = local.session_id.wrapping_add(u64::from(id.0));
        let offer = negotiation
            .offer_to(slot, local)
            .map_err(|_| Cause::Media)?;
        let fork = Fork {
            id,
            callee,
            negotiation,
            local,
        };
        Ok((fork, offer))
    }

    /// A callee refused, or could not be reached.
    pub(super) fn fork_rejected(&mut self, id: ForkId, status: u16) {
        let Some(hunt) = self.state.hunt_mut() else {
            return;
        };
        let slot = hunt.slot;
        if let Some(fork) = hunt.fork_mut(id)
            && matches!(status, 415 | 488 | 606)
            && fork.negotiation.concede_plain_rtp(slot)
            && let Ok(offer) = fork.negotiation.offer_to(slot, fork.local)
        {
            let again = invite(fork, offer);
            self.outputs.push_back(again);
            return;
        }
        let Some(fork) = hunt.take(id) else {
            return;
        };
        let cause = Cause::of_status(status, fork.callee.trunk.is_some());
        hunt.note(cause);
        if cause == Cause::Declined {
            // One person, several phones: who declines on one is not asked on the next.
            let declined = |other: &Fork| other.callee.name == fork.callee.name;
            for other in hunt.forks.iter().filter(|other| declined(other)) {
                self.outputs
                    .push_back(Output::Withdraw(other.id, Withdrawal::NoLongerWanted));
            }
            hunt.forks.retain(|other| !declined(other));
        }
        self.go_on_when_nobody_rings();
    }

    /// The round has lasted long enough.
    pub(super) fn round_over(&mut self) {
        if let Some(hunt) = self.state.hunt_mut() {
            hunt.note(Cause::NoAnswer);
            self.outputs
                .extend(hunt.withdraw(Withdrawal::NoLongerWanted));
            self.go_on_when_nobody_rings();
        }
    }

    /// What a callee says of its media cannot be used: it is hung up, the others ring on.
    pub(super) fn fork_unusable(&mut self, id: ForkId, error: &OfferAnswerError) {
        tracing::info!(%id, %error, "answer not usable");
        if let Some(hunt) = self.state.hunt_mut()
            && hunt.take(id).is_some()
        {
            hunt.note(Cause::Media);
            self.outputs
                .push_back(Output::Withdraw(id, Withdrawal::NoLongerWanted));
            self.go_on_when_nobody_rings();
        }
    }

    /// Asks who is next, once a round is over.
    fn go_on_when_nobody_rings(&mut self) {
        if let Some(hunt) = self.state.hunt_mut()
            && hunt.forks.is_empty()
        {
            hunt.give_up_at = None;
            self.outputs.push_back(Output::Locate(hunt.of_round));
        }
    }
}

fn invite(fork: &Fork, offer: Bytes) -> Output {
    let mut request = fork.callee.request.clone();
    request.offer = offer;
    Output::Invite(fork.id, Box::new(request))
}
