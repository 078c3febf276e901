//! Whom a call is for, round after round: a member's phones, a group's members, and whoever they
//! forward to.
//!
//! | a member | and | then |
//! |---|---|---|
//! | has `forward_always` | – | goes there without ringing |
//! | is busy, or said so | has `forward_busy` | goes there |
//! | did not answer | has `forward_no_answer` | goes there |
//! | has no phone that works | has `forward_offline` | goes there |
//! | declined | – | nobody else is asked |
//!
//! Forwards of a group's members do not count while the group rings. A call is forwarded at most
//! [`FORWARDS_MAX`] times, and never to whom it has been before.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::find_destination;
use crate::call::Cause;
use crate::site::{Availability, ForwardEvent, Name, Strategy};
use crate::store::{GroupRoute, MemberRoute, RoutingSnapshot};

/// How often one call is forwarded. Longer chains are mistakes.
pub const FORWARDS_MAX: usize = 5;

/// Who answers a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A member.
    Member(Arc<MemberRoute>),
    /// A group of members.
    Group(Arc<GroupRoute>),
}

impl Destination {
    /// Whose it is.
    #[must_use]
    pub fn tenant(&self) -> &Name {
        match self {
            Self::Member(member) => &member.tenant,
            Self::Group(group) => &group.tenant,
        }
    }

    /// For the record, and to know it again: a member's extension, a group's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Member(member) => member.extension.as_str(),
            Self::Group(group) => group.name.as_str(),
        }
    }
}

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
    /// Whether members in a call are left out.
    pub skip_busy: bool,
}

/// From whom a call was forwarded, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diversion {
    /// The extension.
    pub from: String,
    /// Why.
    pub event: ForwardEvent,
}

/// With whom the next call of each group begins; as many as there are groups.
#[derive(Debug, Default)]
pub struct Turns(HashMap<(Name, Name), usize>);

impl Turns {
    fn next(&mut self, group: &GroupRoute) -> usize {
        let key = (group.tenant.clone(), group.name.clone());
        let turn = self.0.entry(key).or_default();
        let now = *turn;
        *turn = turn.wrapping_add(1);
        now
    }
}

/// What is left to be tried for a call.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    rounds: VecDeque<PlannedRound>,
    /// Whose forwards apply when the round is over.
    ringing: Option<Arc<MemberRoute>>,
    been_at: Vec<Destination>,
    diversions: Vec<Diversion>,
    /// Why nobody is rung, where that is known without ringing.
    cause: Option<Cause>,
}

impl Plan {
    /// A plan that begins with `destination`.
    #[must_use]
    pub fn new(snapshot: &RoutingSnapshot, turns: &mut Turns, destination: Destination) -> Self {
        let mut plan = Self::default();
        plan.go_to(snapshot, turns, destination);
        plan
    }

    /// From whom the call has been forwarded, the first one first.
    #[must_use]
    pub fn diversions(&self) -> &[Diversion] {
        &self.diversions
    }

    /// The next round; `last` is how the one before ended, `None` at first. `None` when nobody is
    /// left.
    pub fn next(
        &mut self,
        snapshot: &RoutingSnapshot,
        turns: &mut Turns,
        last: Option<Cause>,
    ) -> Option<PlannedRound> {
        if let Some(last) = last
            && let Some(member) = self.ringing.take()
        {
            let event = match last {
                Cause::Busy => Some(ForwardEvent::Busy),
                Cause::NoAnswer => Some(ForwardEvent::NoAnswer),
                Cause::Offline | Cause::Failed => Some(ForwardEvent::Offline),
                Cause::Declined | Cause::Media | Cause::Unknown | Cause::Unavailable => None,
            };
            if let Some(event) = event {
                self.forward(snapshot, turns, &member, event);
            }
        }
        self.rounds.pop_front()
    }

    /// Why nobody is rung, where no phone had to be asked.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.cause
    }

    fn go_to(&mut self, snapshot: &RoutingSnapshot, turns: &mut Turns, destination: Destination) {
        self.been_at.push(destination.clone());
        match destination {
            Destination::Member(member) => {
                let always = member.forwards.target(ForwardEvent::Always).is_some();
                if always && self.forward(snapshot, turns, &member, ForwardEvent::Always) {
                    return;
                }
                let (event, cause) = match member.availability {
                    Availability::Online => {
                        self.rounds.push_back(PlannedRound {
                            targets: vec![Target::Member(Arc::clone(&member))],
                            ring_timeout_secs: None,
                            skip_busy: false,
                        });
                        self.ringing = Some(member);
                        return;
                    }
                    Availability::Busy => (ForwardEvent::Busy, Cause::Busy),
                    Availability::Offline => (ForwardEvent::Offline, Cause::Offline),
                };
                self.cause = Some(cause);
                self.forward(snapshot, turns, &member, event);
            }
            Destination::Group(group) => self.rounds.extend(rounds_of(&group, turns)),
        }
    }

    /// Goes where the member forwards to, and says whether there is such a place.
    fn forward(
        &mut self,
        snapshot: &RoutingSnapshot,
        turns: &mut Turns,
        member: &MemberRoute,
        event: ForwardEvent,
    ) -> bool {
        let Some(target) = member.forwards.target(event) else {
            return false;
        };
        let Some(next) = find_destination(snapshot, &member.tenant, target) else {
            tracing::warn!(member = %member.extension, "forwards to a number that is not here");
            return false;
        };
        if self.been_at.contains(&next) || self.diversions.len() >= FORWARDS_MAX {
            tracing::warn!(member = %member.extension, "forwards in a circle; not followed");
            return false;
        }
        self.diversions.push(Diversion {
            from: member.extension.to_string(),
            event,
        });
        self.go_to(snapshot, turns, next);
        true
    }
}

/// Members who said that they are not to be called are left out.
fn rounds_of(group: &GroupRoute, turns: &mut Turns) -> Vec<PlannedRound> {
    let mut members: Vec<_> = group.members.clone();
    if group.strategy == Strategy::RoundRobin && !members.is_empty() {
        let turn = turns.next(group) % members.len();
        members.rotate_left(turn);
    }
    members.retain(|member| member.availability == Availability::Online);
    let targets: Vec<Target> = members.into_iter().map(Target::Member).collect();
    let round = |targets| PlannedRound {
        targets,
        ring_timeout_secs: Some(u32::from(group.ring_secs)),
        skip_busy: group.skip_busy,
    };
    match group.strategy {
        _ if targets.is_empty() => Vec::new(),
        Strategy::Simultaneous => vec![round(targets)],
        Strategy::Sequential | Strategy::RoundRobin => {
            let each = targets.into_iter();
            each.map(|target| round(vec![target])).collect()
        }
    }
}

#[cfg(test)]
mod tests;
