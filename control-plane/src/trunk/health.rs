//! Whether a destination lives: OPTIONS in intervals, with hysteresis, and what calls tell.
//!
//! ```text
//!                first answer             3 failures
//!   Unknown ───────────────────▶ Up ───────────────────▶ Down
//!      └───────── 3 failures ────────────────────────────▲ │
//!                                 ▲────── 2 answers ───────┘
//! ```
//!
//! One lost datagram takes no carrier out of service, and one answer does not bring a flapping one
//! back. `Unknown` is tried like `Up`: a carrier that is not asked, or not yet, is believed.

use serde::{Deserialize, Serialize};
use trunkline_edge_api::MonoTime;

/// Failures in a row until a destination counts as down.
pub const FAILURES_TO_DOWN: u32 = 3;

/// Answers in a row until it counts as up again.
pub const ANSWERS_TO_UP: u32 = 2;

/// How long an answer is waited for, milliseconds. Timer F (32 s) would find a dead carrier after
/// minutes; four seconds are many round trips and three retransmissions.
pub const PATIENCE_MILLIS: u64 = 4_000;

/// A down destination is asked this often even when the interval is longer, seconds.
const DOWN_INTERVAL_SECS: u64 = 10;

/// What is thought of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthState {
    /// Never asked, or not long enough.
    #[default]
    Unknown,
    /// It answers.
    Up,
    /// It does not.
    Down,
}

impl HealthState {
    /// As operators read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// The health of one destination.
#[derive(Debug, Clone)]
pub struct Health {
    state: HealthState,
    /// Failures in a row while not down, answers in a row while not up.
    streak: u32,
    interval_secs: u32,
    /// When the next OPTIONS is due, or when the one that is out has had its time.
    due_at: MonoTime,
    asked_at: Option<MonoTime>,
    rtt_micros: Option<u32>,
    /// RFC 3261 §21.5.4: nothing is sent there until then.
    held_until: Option<MonoTime>,
}

/// What to do when [`Health::handle_timeout`] says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthAction {
    /// Send an OPTIONS; its fate goes to [`Health::handle_answer`] or [`Health::handle_failure`].
    Ask,
}

impl Health {
    /// `interval_secs` of 0: never asked. `offset_millis` spreads the first questions of many
    /// destinations.
    #[must_use]
    pub fn new(now: MonoTime, interval_secs: u32, offset_millis: u64) -> Self {
        Self {
            state: HealthState::Unknown,
            streak: 0,
            interval_secs,
            due_at: now.plus_millis(offset_millis),
            asked_at: None,
            rtt_micros: None,
            held_until: None,
        }
    }

    /// What is thought of it.
    #[must_use]
    pub fn state(&self) -> HealthState {
        self.state
    }

    /// From OPTIONS to its answer, as last measured, microseconds.
    #[must_use]
    pub fn rtt_micros(&self) -> Option<u32> {
        self.rtt_micros
    }

    /// Whether calls may go there.
    #[must_use]
    pub fn takes_calls(&self, now: MonoTime) -> bool {
        self.state != HealthState::Down && self.held_until.is_none_or(|until| until <= now)
    }

    /// When [`Self::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<MonoTime> {
        (self.interval_secs > 0).then_some(self.due_at)
    }

    /// The time has come: a question is due, or one was not answered.
    pub fn handle_timeout(&mut self, now: MonoTime) -> Option<HealthAction> {
        if self.interval_secs == 0 || now < self.due_at {
            return None;
        }
        if self.asked_at.is_some() {
            self.handle_failure(now);
            return None;
        }
        self.asked_at = Some(now);
        self.due_at = now.plus_millis(PATIENCE_MILLIS);
        Some(HealthAction::Ask)
    }

    /// A response to OPTIONS. Any response proves life but those that say the opposite.
    pub fn handle_answer(&mut self, now: MonoTime, status: u16) {
        let Some(asked_at) = self.asked_at.take() else {
            // Late: it was counted as a failure already.
            return;
        };
        if is_failure(status) {
            self.fail();
        } else {
            let rtt = now.nanos_since(asked_at) / 1_000;
            self.rtt_micros = Some(u32::try_from(rtt).unwrap_or(u32::MAX));
            self.succeed();
        }
        self.schedule(now);
    }

    /// The transport says that the question will not be answered; unless its time was over
    /// before.
    pub fn handle_lost(&mut self, now: MonoTime) {
        if self.asked_at.is_some() {
            self.handle_failure(now);
        }
    }

    /// The question could not be sent, or was not answered.
    pub fn handle_failure(&mut self, now: MonoTime) {
        self.asked_at = None;
        self.fail();
        self.schedule(now);
    }

    /// A call went there and was answered in any way that proves life.
    pub fn handle_call_answered(&mut self) {
        if self.state != HealthState::Down {
            self.streak = 0;
        }
    }

    /// A call went there and nobody was home: silence or a broken transport.
    pub fn handle_call_lost(&mut self) {
        // Without OPTIONS nothing would ever bring it back.
        if self.interval_secs > 0 {
            self.fail();
        }
    }

    /// It asked to be left alone for `secs` (503 with Retry-After).
    pub fn hold(&mut self, now: MonoTime, secs: u32) {
        self.held_until = Some(now.plus_secs(u64::from(secs)));
    }

    fn fail(&mut self) {
        if self.state == HealthState::Down {
            self.streak = 0;
            return;
        }
        self.streak += 1;
        if self.streak >= FAILURES_TO_DOWN {
            self.state = HealthState::Down;
            self.streak = 0;
            self.rtt_micros = None;
        }
    }

    fn succeed(&mut self) {
        if self.state == HealthState::Up {
            self.streak = 0;
            return;
        }
        // While unknown the streak counts failures; an answer ends them.
        if self.state == HealthState::Unknown {
            self.state = HealthState::Up;
            self.streak = 0;
            return;
        }
        self.streak += 1;
        if self.streak >= ANSWERS_TO_UP {
            self.state = HealthState::Up;
            self.streak = 0;
        }
    }

    fn schedule(&mut self, now: MonoTime) {
        let mut secs = u64::from(self.interval_secs);
        if self.state == HealthState::Down || self.streak > 0 {
            secs = secs.min(DOWN_INTERVAL_SECS);
        }
        self.due_at = now.plus_secs(secs);
    }
}

/// Whether a status says that no call can be taken: nobody answered (408), or 5xx. 501 and 505
/// are from servers that live and do not know OPTIONS.
fn is_failure(status: u16) -> bool {
    status == 408 || ((500..600).contains(&status) && status != 501 && status != 505)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: MonoTime = MonoTime(1_000_000_000);

    fn ask(health: &mut Health, now: &mut MonoTime) {
        *now = health.poll_timeout().expect("asked in intervals");
        assert_eq!(health.handle_timeout(*now), Some(HealthAction::Ask));
    }

    fn up() -> (Health, MonoTime) {
        let (mut health, mut now) = (Health::new(START, 30, 0), START);
        ask(&mut health, &mut now);
        now = now.plus_millis(12);
        health.handle_answer(now, 200);
        assert_eq!(health.state(), HealthState::Up);
        (health, now)
    }

    #[test]
    fn first_answer_brings_a_destination_up_with_its_round_trip() {
        let (health, _) = up();
        assert_eq!(health.rtt_micros(), Some(12_000));
    }

    #[test]
    fn three_silences_take_it_down_and_two_answers_bring_it_back() {
        let (mut health, mut now) = up();
        for round in 1..=3 {
            ask(&mut health, &mut now);
            now = now.plus_millis(PATIENCE_MILLIS);
            assert_eq!(health.handle_timeout(now), None);
            let expected = if round == 3 {
                HealthState::Down
            } else {
                HealthState::Up
            };
            assert_eq!(health.state(), expected, "after {round}");
        }
        assert!(!health.takes_calls(now));
        ask(&mut health, &mut now);
        health.handle_answer(now, 200);
        assert_eq!(health.state(), HealthState::Down);
        ask(&mut health, &mut now);
        health.handle_answer(now, 200);
        assert_eq!(health.state(), HealthState::Up);
        assert!(health.takes_calls(now));
    }

    #[test]
    fn a_flapping_destination_stays_down() {
        let (mut health, mut now) = up();
        for _ in 0..3 {
            ask(&mut health, &mut now);
            health.handle_failure(now);
        }
        for _ in 0..5 {
            ask(&mut health, &mut now);
            health.handle_answer(now, 200);
            ask(&mut health, &mut now);
            health.handle_answer(now, 503);
            assert_eq!(health.state(), HealthState::Down);
        }
    }

    #[test]
    fn answers_that_refuse_options_prove_life_all_the_same() {
        for status in [200, 401, 403, 404, 405, 481, 501, 505] {
            let (mut health, mut now) = (Health::new(START, 30, 0), START);
            ask(&mut health, &mut now);
            health.handle_answer(now, status);
            assert_eq!(health.state(), HealthState::Up, "{status}");
        }
    }

    #[test]
    fn an_answer_after_its_time_does_not_count_twice() {
        let (mut health, mut now) = up();
        ask(&mut health, &mut now);
        now = now.plus_millis(PATIENCE_MILLIS);
        health.handle_timeout(now);
        health.handle_answer(now, 200);
        for _ in 0..2 {
            ask(&mut health, &mut now);
            health.handle_failure(now);
        }
        assert_eq!(health.state(), HealthState::Down);
    }

    #[test]
    fn retry_after_holds_calls_off_for_its_time_only() {
        let (mut health, now) = up();
        health.hold(now, 20);
        assert!(!health.takes_calls(now.plus_secs(19)));
        assert!(health.takes_calls(now.plus_secs(20)));
    }

    #[test]
    fn lost_calls_take_down_only_what_options_can_bring_back() {
        let (mut asked, _) = up();
        let mut unasked = Health::new(START, 0, 0);
        for _ in 0..5 {
            asked.handle_call_lost();
            unasked.handle_call_lost();
        }
        assert_eq!(asked.state(), HealthState::Down);
        assert_eq!(unasked.state(), HealthState::Unknown);
    }
}
