//! What is to be said once sockets are closed.
//!
//! Closing takes the kernel's part (see [`crate::tier`]), so the answer to a command that closes
//! waits for the last of its sockets, and [`CloseOtherEpochs`] for the last of its sessions. An
//! entry counts what it waits for; whoever opened it holds one count until everything it wants to
//! wait for is under way.
//!
//! [`CloseOtherEpochs`]: trunkline_edge_api::Command::CloseOtherEpochs

use trunkline_edge_api::{CloseCause, Correlation, SessionReport};

use crate::tier::CloseTicket;

/// What is said at the end, in this order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// A session has ended.
    pub(crate) session: Option<(CloseCause, SessionReport)>,
    /// A command is done.
    pub(crate) answer: Option<Correlation>,
    /// What else has waited for this.
    pub(crate) part_of: Option<CloseTicket>,
}

/// All that waits for sockets to close. There are never more entries than closing sockets and
/// commands that wait for them.
pub(crate) struct Closings {
    entries: Vec<Entry>,
    free: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Entry {
    awaited: u32,
    outcome: Outcome,
}

impl Closings {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self {
            entries: Vec::with_capacity(capacity),
            free: Vec::with_capacity(capacity),
        }
    }

    /// A new entry that waits for one thing: the caller's [`Self::arrive`].
    pub(crate) fn open(&mut self, outcome: Outcome) -> CloseTicket {
        let entry = Entry {
            awaited: 1,
            outcome,
        };
        match self.free.pop() {
            Some(index) => {
                self.entries[index as usize] = entry;
                CloseTicket(index)
            }
            None => {
                self.entries.push(entry);
                CloseTicket(self.entries.len() as u32 - 1)
            }
        }
    }

    /// One thing more to wait for.
    pub(crate) fn expect_one(&mut self, ticket: CloseTicket) {
        if let Some(entry) = self.entries.get_mut(ticket.0 as usize) {
            entry.awaited += 1;
        }
    }

    /// One thing less; the outcome when it was the last.
    pub(crate) fn arrive(&mut self, ticket: CloseTicket) -> Option<Outcome> {
        let entry = self.entries.get_mut(ticket.0 as usize)?;
        entry.awaited = entry.awaited.checked_sub(1)?;
        if entry.awaited > 0 {
            return None;
        }
        self.free.push(ticket.0);
        Some(entry.outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(correlation: u64) -> Outcome {
        Outcome {
            answer: Some(Correlation(correlation)),
            ..Outcome::default()
        }
    }

    #[test]
    fn outcome_comes_with_the_last_arrival_only() {
        let mut closings = Closings::with_capacity(1);
        let ticket = closings.open(answer(1));
        closings.expect_one(ticket);
        closings.expect_one(ticket);
        assert_eq!(closings.arrive(ticket), None);
        assert_eq!(closings.arrive(ticket), None);
        assert_eq!(closings.arrive(ticket), Some(answer(1)));
        assert_eq!(closings.arrive(ticket), None, "it is told once");
    }

    #[test]
    fn places_are_used_again() {
        let mut closings = Closings::with_capacity(1);
        for n in 0..10 {
            let ticket = closings.open(answer(n));
            assert_eq!(closings.arrive(ticket), Some(answer(n)));
        }
        assert_eq!(closings.entries.len(), 1);
    }
}
