//! Deadlines in the order they fall due; equal ones in the order they were set, so that a
//! simulation runs the same way every time.

use std::collections::BTreeMap;

use trunkline_edge_api::MonoTime;

/// Names a deadline, so that it can be cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TimerHandle {
    at: MonoTime,
    serial: u64,
}

/// A set of deadlines. Setting, cancelling and taking are O(log n), and a cancelled deadline
/// leaves nothing behind: almost every SIP timer is cancelled long before its 32 s are over.
#[derive(Debug)]
pub(crate) struct TimerQueue<T> {
    deadlines: BTreeMap<TimerHandle, T>,
    next_serial: u64,
}

impl<T> TimerQueue<T> {
    pub(crate) fn new() -> Self {
        Self {
            deadlines: BTreeMap::new(),
            next_serial: 0,
        }
    }

    pub(crate) fn set(&mut self, at: MonoTime, what: T) -> TimerHandle {
        let handle = TimerHandle {
            at,
            serial: self.next_serial,
        };
        self.next_serial += 1;
        self.deadlines.insert(handle, what);
        handle
    }

    /// Does nothing when the deadline was already taken or cancelled.
    pub(crate) fn cancel(&mut self, handle: TimerHandle) {
        self.deadlines.remove(&handle);
    }

    /// The next deadline that is due at `now`.
    pub(crate) fn pop_due(&mut self, now: MonoTime) -> Option<T> {
        let first = self.deadlines.first_entry()?;
        (first.key().at <= now).then(|| first.remove())
    }

    pub(crate) fn next_at(&self) -> Option<MonoTime> {
        self.deadlines
            .first_key_value()
            .map(|(handle, _)| handle.at)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.deadlines.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_come_in_order_and_equal_ones_as_they_were_set() {
        let mut queue = TimerQueue::new();
        queue.set(MonoTime(20), "c");
        queue.set(MonoTime(10), "a");
        queue.set(MonoTime(20), "d");
        let cancelled = queue.set(MonoTime(10), "b");
        queue.cancel(cancelled);
        assert_eq!(queue.next_at(), Some(MonoTime(10)));
        assert_eq!(queue.pop_due(MonoTime(9)), None);
        let due: Vec<_> = std::iter::from_fn(|| queue.pop_due(MonoTime(20))).collect();
        assert_eq!(due, ["a", "c", "d"]);
        assert!(queue.is_empty());
    }

    #[test]
    fn cancelling_a_deadline_already_taken_touches_no_other() {
        let mut queue = TimerQueue::new();
        let taken = queue.set(MonoTime(1), 1);
        queue.set(MonoTime(1), 2);
        assert_eq!(queue.pop_due(MonoTime(1)), Some(1));
        queue.cancel(taken);
        assert_eq!(queue.pop_due(MonoTime(1)), Some(2));
    }
}
