//! Which packets have come: sequence numbers extended over wraps and restarts (RFC 3550 A.1).

use trunkline_edge_api::{MonoTime, Ssrc};

/// A packet further ahead than this follows no loss; the sender has restarted (MAX_DROPOUT of
/// RFC 3550 A.1).
const DROPOUT_MAX: i16 = 3_000;
/// A packet further behind than this is not late; the sender has restarted (MAX_MISORDER there).
const MISORDER_MAX: i16 = 100;
/// After so long without a packet a restart is believed at once.
const SILENCE_NANOS: u64 = 1_000_000_000;
/// Packets behind the newest of which it is known whether they have come.
const WINDOW_LEN: i64 = 64;

/// Where a packet stands in the sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placed {
    /// After everything before it; it may have left a gap.
    Newest(i64),
    /// The first one of another sender, or of one that restarted its numbering.
    Restarted(i64),
    /// Overtaken by later ones.
    Overtaken(i64),
    /// It has come before, or it is so far behind that nobody knows.
    Duplicate,
    /// Far out of sequence; the next one will tell whether the sender has restarted.
    OutOfSequence,
}

#[derive(Debug, Clone, Default)]
pub(super) struct SequenceTracker {
    run: Option<Run>,
}

#[derive(Debug, Clone)]
struct Run {
    ssrc: Ssrc,
    /// Newest sequence number as it came, and extended. They differ by any amount: a restart goes
    /// on counting where the run before ended.
    newest_received: u16,
    newest: i64,
    newest_at: MonoTime,
    /// Bit n: the packet n behind the newest has come.
    window: u64,
    restart_at: Option<u16>,
}

impl SequenceTracker {
    pub(super) fn place(&mut self, now: MonoTime, ssrc: Ssrc, sequence: u16) -> Placed {
        let Some(run) = &mut self.run else {
            return self.begin(now, ssrc, sequence, 0);
        };
        if run.ssrc != ssrc {
            let newest = run.newest + 1;
            return self.begin(now, ssrc, sequence, newest);
        }
        let ahead = sequence.wrapping_sub(run.newest_received).cast_signed();
        if (1..=DROPOUT_MAX).contains(&ahead) {
            run.newest_received = sequence;
            run.newest += i64::from(ahead);
            run.newest_at = now;
            run.restart_at = None;
            run.window = run.window.checked_shl(ahead as u32).unwrap_or(0) | 1;
            return Placed::Newest(run.newest);
        }
        if (-MISORDER_MAX..=0).contains(&ahead) {
            let behind = i64::from(ahead.unsigned_abs());
            let bit = 1u64.checked_shl(behind as u32).unwrap_or(0);
            if behind >= WINDOW_LEN || run.window & bit != 0 {
                return Placed::Duplicate;
            }
            run.window |= bit;
            return Placed::Overtaken(run.newest - behind);
        }
        if run.restart_at == Some(sequence) || now.nanos_since(run.newest_at) >= SILENCE_NANOS {
            let newest = run.newest + 1;
            return self.begin(now, ssrc, sequence, newest);
        }
        run.restart_at = Some(sequence.wrapping_add(1));
        Placed::OutOfSequence
    }

    fn begin(&mut self, now: MonoTime, ssrc: Ssrc, sequence: u16, newest: i64) -> Placed {
        let window = self.run.as_ref().map_or(u64::MAX, |run| run.window);
        self.run = Some(Run {
            ssrc,
            newest_received: sequence,
            newest,
            newest_at: now,
            window: (window << 1) | 1,
            restart_at: None,
        });
        Placed::Restarted(newest)
    }

    /// Whether all packets between `earlier` and `later`, both excluded, have come: whatever they
    /// were, a pause between those two is the sender's, not the network's.
    pub(super) fn has_all_between(&self, earlier: i64, later: i64) -> bool {
        let Some(run) = &self.run else { return true };
        let missing = later - earlier - 1;
        if missing <= 0 {
            return true;
        }
        let behind = run.newest - later + 1;
        if behind < 0 || behind + missing > WINDOW_LEN {
            return false;
        }
        let bits = u64::MAX >> (WINDOW_LEN - missing);
        run.window >> behind & bits == bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SSRC: Ssrc = Ssrc(7);
    const NOW: MonoTime = MonoTime(0);

    #[test]
    fn numbers_go_on_over_a_wrap_and_tell_late_from_twice() {
        let mut tracker = SequenceTracker::default();
        assert_eq!(tracker.place(NOW, SSRC, 65_534), Placed::Restarted(0));
        assert_eq!(tracker.place(NOW, SSRC, 1), Placed::Newest(3));
        assert!(!tracker.has_all_between(0, 3));
        assert_eq!(tracker.place(NOW, SSRC, 0), Placed::Overtaken(2));
        assert_eq!(tracker.place(NOW, SSRC, 0), Placed::Duplicate);
        assert_eq!(tracker.place(NOW, SSRC, 65_535), Placed::Overtaken(1));
        assert!(tracker.has_all_between(0, 3));
    }

    #[test]
    fn restart_needs_a_second_packet_or_a_pause() {
        let mut tracker = SequenceTracker::default();
        tracker.place(NOW, SSRC, 10);
        assert_eq!(tracker.place(NOW, SSRC, 40_000), Placed::OutOfSequence);
        assert_eq!(tracker.place(NOW, SSRC, 11), Placed::Newest(1));
        assert_eq!(tracker.place(NOW, SSRC, 40_000), Placed::OutOfSequence);
        assert_eq!(tracker.place(NOW, SSRC, 40_001), Placed::Restarted(2));
        let later = NOW.plus_secs(2);
        assert_eq!(tracker.place(later, SSRC, 9), Placed::Restarted(3));
        assert_eq!(tracker.place(later, Ssrc(8), 10), Placed::Restarted(4));
    }

    #[test]
    fn gap_wider_than_the_window_is_a_loss() {
        let mut tracker = SequenceTracker::default();
        tracker.place(NOW, SSRC, 0);
        tracker.place(NOW, SSRC, 2_000);
        assert!(!tracker.has_all_between(0, 2_000));
        assert!(tracker.has_all_between(5, 6));
    }
}
