//! What the caller hears before somebody answers (RFC 3960), and the answer itself.
//!
//! | `early_media` | a callee's 180 | a callee's 183 with SDP |
//! |---|---|---|
//! | `pass` | 180 | 183 with its description: the caller hears the callee's side |
//! | `ringback` | 183, and the edge plays ringback | the caller hears the callee's side instead |
//! | `off` | 180 | 180 |
//!
//! A caller that was told of media once hears something until the end: when whoever it listens to
//! is given up and others are rung, the edge plays ringback. What it was told stands: the 200
//! repeats the description of the 183 (RFC 3261 §13.2.1), whoever answers in the end is agreed on
//! beside it, and the ports are the same.

use bytes::Bytes;
use trunkline_edge_api::{LegIndex, MonoTime};
use trunkline_sip::offer_answer::OfferAnswerError;

use super::hunt::Fork;
use super::{Call, ForkId, Output, Sound, State, Withdrawal};
use crate::party::EarlyMedia;

/// What the caller was told of media before the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Early {
    /// Nothing.
    Silent,
    /// It hears this callee's side.
    Callee(ForkId),
    /// It hears us.
    Ringback,
}

impl Call {
    /// A callee's phone rings, or says more.
    pub(super) fn fork_progress(&mut self, id: ForkId, status: u16, sdp: Option<Bytes>) {
        let is_known = self.state.hunt_mut().is_some_and(|hunt| hunt.rings(id));
        if !is_known {
            return;
        }
        match (sdp, self.early_media) {
            (Some(sdp), EarlyMedia::Pass | EarlyMedia::Ringback) => {
                self.hear_callee(id, status, &sdp);
            }
            (None, EarlyMedia::Ringback) if status >= 180 => self.begin_ringback(),
            // Without its description a 183 would leave the caller in silence.
            (Some(_), EarlyMedia::Off) => self.progress(180),
            (None, _) => self.progress(status),
        }
    }

    /// Tells a caller that was told of no media.
    fn progress(&mut self, status: u16) {
        if self.early == Early::Silent {
            let sdp = None;
            self.outputs.push_back(Output::Progress { status, sdp });
        }
    }

    /// Takes a callee's early description. The first callee that has one is heard, until it is
    /// given up: what two phones say at once is of use to nobody.
    fn hear_callee(&mut self, id: ForkId, status: u16, sdp: &[u8]) {
        let Some(fork) = self.state.hunt_mut().and_then(|hunt| hunt.fork_mut(id)) else {
            return;
        };
        let is_first = self.early == Early::Silent;
        if !is_first {
            fork.negotiation.keep(LegIndex::A, &self.negotiation);
        }
        let described = match self.local[0] {
            Some(local) => (fork.negotiation.answer_from_callee(sdp))
                .and_then(|()| fork.negotiation.answer_for_caller(local)),
            None => Err(OfferAnswerError::OutOfOrder),
        };
        let answer = match described {
            Ok(answer) => answer,
            Err(error) if is_first => {
                self.fork_unusable(id, &error);
                return self.attend_to_early_media();
            }
            // Its answer decides.
            Err(_) => return,
        };
        if matches!(self.early, Early::Callee(other) if other != id) {
            return;
        }
        self.early = Early::Callee(id);
        self.negotiation.keep(LegIndex::A, &fork.negotiation);
        let negotiation = fork.negotiation.clone();
        let media = (fork.callee.media.nat, fork.callee.media.dtmf);
        (self.nat[1], self.dtmf[1]) = media;
        self.configure_media(&negotiation);
        self.set_sound(LegIndex::A, None);
        let sdp = Some(answer);
        self.describe(Output::Progress { status, sdp });
    }

    /// Answers the caller's offer alone and has the edge play to it. A caller with whom no format
    /// is shared that the edge can make hears its own phone's ringback.
    fn begin_ringback(&mut self) {
        if self.early != Early::Silent {
            return;
        }
        let Some(local) = self.local[0] else {
            return;
        };
        match self.negotiation.answer_alone(local) {
            Ok(answer) => {
                self.early = Early::Ringback;
                let negotiation = self.negotiation.clone();
                self.configure_media(&negotiation);
                self.set_sound(LegIndex::A, Some(Sound::Ringback));
                let (status, sdp) = (183, Some(answer));
                self.describe(Output::Progress { status, sdp });
            }
            Err(_) => self.progress(180),
        }
    }

    /// Plays ringback to a caller whose callee is heard no more.
    pub(super) fn attend_to_early_media(&mut self) {
        let Early::Callee(id) = self.early else {
            return;
        };
        if self.state.hunt_mut().is_some_and(|hunt| !hunt.rings(id)) {
            self.early = Early::Ringback;
            let negotiation = self.negotiation.clone();
            self.configure_media(&negotiation);
            self.set_sound(LegIndex::A, Some(Sound::Ringback));
        }
    }

    /// Somebody answers the call.
    pub(super) fn fork_answered(&mut self, now: MonoTime, id: ForkId, sdp: Option<Bytes>) {
        let Some(fork) = self.state.hunt_mut().and_then(|hunt| hunt.fork_mut(id)) else {
            return;
        };
        if self.early != Early::Silent {
            fork.negotiation.keep(LegIndex::A, &self.negotiation);
        }
        // A 2xx without SDP completes no exchange unless an 18x did (RFC 3261 §13.2.1).
        let agreed = match (sdp, self.local[0]) {
            (Some(sdp), Some(_)) => fork.negotiation.answer_from_callee(&sdp),
            (None, Some(_)) if fork.negotiation.is_agreed(LegIndex::B) => Ok(()),
            _ => Err(OfferAnswerError::OutOfOrder),
        };
        let answer = agreed.and_then(|()| {
            let local = self.local[0].ok_or(OfferAnswerError::OutOfOrder)?;
            fork.negotiation.answer_for_caller(local)
        });
        match answer {
            Ok(answer) => self.connect(now, id, answer),
            Err(error) => {
                self.fork_unusable(id, &error);
                self.attend_to_early_media();
            }
        }
    }

    fn connect(&mut self, now: MonoTime, id: ForkId, answer: Bytes) {
        let Some(hunt) = self.state.hunt_mut() else {
            return;
        };
        let Some(fork) = hunt.take(id) else {
            return;
        };
        let others = hunt.withdraw(Withdrawal::AnsweredElsewhere);
        self.outputs.push_back(Output::Connect(id, LegIndex::B));
        self.outputs.extend(others);
        self.state = State::Up;
        self.adopt(LegIndex::B, fork);
        let setup_ms = self.elapsed_ms(now);
        self.record.setup_ms = Some(setup_ms);
        self.record.answer_unix_ms = Some(self.record.start_unix_ms + setup_ms as i64);
        self.set_sound(LegIndex::A, None);
        self.describe(Output::AnswerCaller(answer));
        self.attend_to_hold();
    }

    /// Whoever answered `fork` has `leg` from now on.
    fn adopt(&mut self, leg: LegIndex, fork: Fork) {
        let callee = fork.callee;
        self.record.callee = Some(callee.name);
        if callee.trunk.is_some() {
            self.record.trunk = callee.trunk;
        }
        self.nat[leg.as_usize()] = callee.media.nat;
        self.dtmf[leg.as_usize()] = callee.media.dtmf;
        self.negotiation = fork.negotiation.clone();
        self.configure_media(&fork.negotiation);
    }
}
