//! Which packets were seen already: RFC 3711 §3.3.2.

/// Packets that may arrive late, a power of two beyond the 64 that RFC 3711 §3.3.2 wants at least:
/// 2.5 s of 20 ms packets.
pub(super) const WINDOW_LEN: u32 = u128::BITS;

/// A packet whose index was seen, or lies too far behind the newest to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Replayed;

/// The newest index of a stream and which of the [`WINDOW_LEN`] up to it were seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ReplayWindow {
    newest: u64,
    /// Bit n: `newest - n` was seen. Bit 0 is set once anything was.
    seen: u128,
}

impl ReplayWindow {
    /// The newest index; `None` before the first.
    #[inline]
    #[must_use]
    pub(super) fn newest(&self) -> Option<u64> {
        (self.seen != 0).then_some(self.newest)
    }

    /// Whether a packet with `index` may still be accepted. Learns nothing.
    ///
    /// # Errors
    /// [`Replayed`] when it was seen or is too old to tell.
    #[inline]
    pub(super) fn check(&self, index: u64) -> Result<(), Replayed> {
        let Some(age) = self.newest.checked_sub(index) else {
            return Ok(());
        };
        if self.seen == 0 {
            return Ok(());
        }
        let is_recent = age < u64::from(WINDOW_LEN);
        if is_recent && self.seen & (1 << age) == 0 {
            Ok(())
        } else {
            Err(Replayed)
        }
    }

    /// Marks `index` as seen. The caller has checked it, and that its packet is authentic.
    #[inline]
    pub(super) fn mark(&mut self, index: u64) {
        if self.seen == 0 {
            self.newest = index;
            self.seen = 1;
        } else if let Some(ahead) = index.checked_sub(self.newest).filter(|ahead| *ahead > 0) {
            self.newest = index;
            self.seen = match u32::try_from(ahead) {
                Ok(ahead) => self.seen.checked_shl(ahead).unwrap_or(0) | 1,
                Err(_) => 1,
            };
        } else {
            let age = self.newest - index;
            if age < u64::from(WINDOW_LEN) {
                self.seen |= 1 << age;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn late_packet_is_accepted_once_and_only_inside_the_window() {
        let mut window = ReplayWindow::default();
        window.mark(1_000);
        let oldest = 1_000 - u64::from(WINDOW_LEN) + 1;
        assert_eq!(window.check(oldest - 1), Err(Replayed));
        assert_eq!(window.check(oldest), Ok(()));
        window.mark(oldest);
        assert_eq!(window.check(oldest), Err(Replayed));
        assert_eq!(window.check(1_000), Err(Replayed));
    }

    #[test]
    fn first_index_may_be_any() {
        for index in [0, 1, u64::from(u32::MAX), (1 << 48) - 1] {
            let mut window = ReplayWindow::default();
            assert_eq!((window.newest(), window.check(index)), (None, Ok(())));
            window.mark(index);
            assert_eq!(window.newest(), Some(index));
            assert_eq!(window.check(index), Err(Replayed));
        }
    }

    proptest! {
        #[test]
        fn window_agrees_with_a_set_of_everything_seen(
            indices in proptest::collection::vec(0u64..600, 1..400),
        ) {
            let mut window = ReplayWindow::default();
            let mut seen = BTreeSet::new();
            for index in indices {
                let newest = seen.last().copied().unwrap_or(index);
                let is_new = !seen.contains(&index) && index + u64::from(WINDOW_LEN) > newest;
                prop_assert_eq!(window.check(index).is_ok(), is_new, "index {}", index);
                if is_new {
                    window.mark(index);
                    seen.insert(index);
                }
            }
        }
    }
}
