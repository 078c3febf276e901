//! Whom a call is for, round after round.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::call::Cause;
use crate::store::MemberRoute;

/// Somebody to be rung.
#[derive(Debug, Clone)]
pub enum Target {
    /// Every phone of a member.
    Member(Arc<MemberRoute>),
}

/// Targets to be rung at one time.
#[derive(Debug, Clone)]
pub struct PlannedRound {
    /// At least one.
    pub targets: Vec<Target>,
    /// How long, seconds; `None`: as long as `[sip] ring_timeout_secs` says.
    pub ring_timeout_secs: Option<u32>,
}

/// What is left to be tried for a call.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    rounds: VecDeque<PlannedRound>,
}

impl Plan {
    /// Rings a member's phones, and nobody else.
    #[must_use]
    pub fn of_member(member: Arc<MemberRoute>) -> Self {
        let round = PlannedRound {
            targets: vec![Target::Member(member)],
            ring_timeout_secs: None,
        };
        Self {
            rounds: VecDeque::from([round]),
        }
    }

    /// The next round; `last` is how the one before ended, `None` at first. `None` when nobody is
    /// left.
    pub fn next(&mut self, last: Option<Cause>) -> Option<PlannedRound> {
        // Who was there and declined has answered for everybody.
        if last == Some(Cause::Declined) {
            self.rounds.clear();
        }
        self.rounds.pop_front()
    }
}
