//! What a detector has to tell and nobody has taken yet.

/// A queue of at most `N`, without allocation. Its owner drains it after every call that may fill
/// it, and `N` is sized for what one call can tell.
#[derive(Debug, Clone)]
pub(crate) struct Outbox<T, const N: usize> {
    slots: [Option<T>; N],
    first: usize,
    len: usize,
}

impl<T: Copy, const N: usize> Outbox<T, N> {
    pub(crate) const fn new() -> Self {
        Self {
            slots: [None; N],
            first: 0,
            len: 0,
        }
    }

    /// `false` when there is no room: `item` is lost.
    #[must_use]
    pub(crate) fn push(&mut self, item: T) -> bool {
        if self.len == N {
            return false;
        }
        self.slots[(self.first + self.len) % N] = Some(item);
        self.len += 1;
        true
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        let item = self.slots[self.first].take()?;
        self.first = (self.first + 1) % N;
        self.len -= 1;
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_order_over_its_end_and_refuses_what_does_not_fit() {
        let mut outbox = Outbox::<u32, 3>::new();
        for round in 0..5 {
            assert!(outbox.push(round));
            assert!(outbox.push(round + 100));
            assert_eq!(outbox.pop(), Some(round));
            assert_eq!(outbox.pop(), Some(round + 100));
            assert_eq!(outbox.pop(), None);
        }
        assert!([1, 2, 3].into_iter().all(|item| outbox.push(item)));
        assert!(!outbox.push(4));
        assert_eq!(outbox.pop(), Some(1));
    }
}
