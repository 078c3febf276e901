//! When a connection has to end, and why.

use std::time::Duration;

use tokio::time::Instant;

use crate::transport::{CloseReason, TransportLimits};

/// What falls due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// The end.
    Close(CloseReason),
    /// A ping of the WebSocket protocol.
    Ping,
}

/// Pings that may stay unanswered. One may be lost to a phone that changes its network.
const PINGS_UNANSWERED_MAX: u32 = 3;

/// The deadlines of one connection.
pub(super) struct Clock {
    idle: Duration,
    partial: Duration,
    stall: Duration,
    /// `None` where the protocol has no pings of its own.
    ping: Option<Duration>,
    heard_at: Instant,
    wrote_at: Instant,
    pinged_at: Instant,
    /// Since when an incomplete message is waited for: trickling bytes do not extend it. Who
    /// connects to us is waited for from the start.
    partial_since: Option<Instant>,
    progress_at: Instant,
    ends_at: Option<Instant>,
}

impl Clock {
    /// `owes_a_message`: the peer connected and has to say why soon.
    pub(super) fn new(limits: &TransportLimits, owes_a_message: bool) -> Self {
        let now = Instant::now();
        Self {
            idle: Duration::from_secs(limits.idle_timeout_secs),
            partial: Duration::from_secs(limits.partial_message_timeout_secs),
            stall: Duration::from_secs(limits.write_stall_timeout_secs),
            ping: None,
            heard_at: now,
            wrote_at: now,
            pinged_at: now,
            partial_since: owes_a_message.then_some(now),
            progress_at: now,
            ends_at: None,
        }
    }

    /// Pings after `interval` of silence, and takes the peer for gone when it answers none. What
    /// the kernel took from us proves nothing then.
    pub(super) fn ping_after(&mut self, interval: Duration) {
        self.ping = Some(interval);
        self.idle = interval * PINGS_UNANSWERED_MAX;
    }

    pub(super) fn heard(&mut self, is_partial: bool) {
        self.heard_at = Instant::now();
        self.partial_since = match self.partial_since {
            Some(since) if is_partial => Some(since),
            _ => is_partial.then_some(self.heard_at),
        };
    }

    pub(super) fn message_completed(&mut self) {
        self.partial_since = None;
    }

    pub(super) fn pinged(&mut self) {
        self.pinged_at = Instant::now();
    }

    /// Something waits to be written where nothing did before.
    pub(super) fn write_began(&mut self) {
        self.progress_at = Instant::now();
    }

    pub(super) fn wrote(&mut self) {
        self.progress_at = Instant::now();
        self.wrote_at = self.progress_at;
    }

    pub(super) fn end_after(&mut self, linger: Duration) {
        self.ends_at = Some(Instant::now() + linger);
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ends_at.is_some()
    }

    pub(super) fn deadline(&self, is_writing: bool) -> (Instant, Due) {
        let moved_at = match self.ping {
            Some(_) => self.heard_at,
            None => self.heard_at.max(self.wrote_at),
        };
        let candidates = [
            Some((moved_at + self.idle, Due::Close(CloseReason::Idle))),
            self.partial_since.map(|since| {
                let reason = CloseReason::PartialMessage;
                (since + self.partial, Due::Close(reason))
            }),
            is_writing.then(|| {
                let reason = CloseReason::SlowReader;
                (self.progress_at + self.stall, Due::Close(reason))
            }),
            self.ends_at
                .map(|at| (at, Due::Close(CloseReason::Malformed))),
            self.ping
                .map(|ping| (self.heard_at.max(self.pinged_at) + ping, Due::Ping)),
        ];
        candidates
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
            .unwrap_or((moved_at, Due::Close(CloseReason::Idle)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> TransportLimits {
        TransportLimits {
            idle_timeout_secs: 100,
            partial_message_timeout_secs: 10,
            write_stall_timeout_secs: 20,
            ..TransportLimits::default()
        }
    }

    /// Seconds until the deadline, seen from the clock's last sign of life, and its reason.
    fn due(clock: &Clock, is_writing: bool) -> (u64, Due) {
        let (at, due) = clock.deadline(is_writing);
        ((at - clock.heard_at).as_secs(), due)
    }

    #[test]
    fn who_connects_to_us_must_send_a_message_soon_and_whom_we_connect_to_need_not() {
        let mut accepted = Clock::new(&limits(), true);
        let partial = Due::Close(CloseReason::PartialMessage);
        let idle = Due::Close(CloseReason::Idle);
        assert_eq!(due(&accepted, false), (10, partial));
        accepted.message_completed();
        accepted.heard(false);
        assert_eq!(due(&accepted, false), (100, idle));
        assert_eq!(due(&Clock::new(&limits(), false), false), (100, idle));
    }

    #[test]
    fn trickling_bytes_do_not_extend_the_time_for_a_message() {
        let mut clock = Clock::new(&limits(), false);
        clock.heard(true);
        let first = clock.deadline(false);
        clock.heard(true);
        assert_eq!(clock.deadline(false), first);
        // A message that was completed gives the next one its own time.
        clock.message_completed();
        clock.heard(true);
        assert_eq!(
            due(&clock, false),
            (10, Due::Close(CloseReason::PartialMessage))
        );
        assert!(clock.deadline(false).0 >= first.0);
    }

    #[test]
    fn writing_without_progress_ends_and_malformed_input_ends_soonest() {
        let mut clock = Clock::new(&limits(), false);
        clock.write_began();
        assert_eq!(clock.deadline(true).1, Due::Close(CloseReason::SlowReader));
        assert_eq!(clock.deadline(false).1, Due::Close(CloseReason::Idle));
        clock.end_after(Duration::from_millis(500));
        assert_eq!(clock.deadline(true).1, Due::Close(CloseReason::Malformed));
        assert!(clock.is_ending());
    }

    #[test]
    fn silent_browser_is_pinged_in_turn_and_given_up_whatever_the_kernel_takes() {
        let mut clock = Clock::new(&limits(), false);
        clock.ping_after(Duration::from_secs(30));
        assert_eq!(due(&clock, false), (30, Due::Ping));
        clock.pinged();
        clock.wrote();
        assert_eq!(due(&clock, false), (30, Due::Ping));
        // Two more unanswered: the end comes before the fourth.
        clock.pinged_at = clock.heard_at + Duration::from_secs(60);
        let idle = Due::Close(CloseReason::Idle);
        assert!(matches!(due(&clock, false), (90, due) if due == idle || due == Due::Ping));
        clock.pinged_at = clock.heard_at + Duration::from_secs(89);
        assert_eq!(due(&clock, false), (90, idle));
    }
}
