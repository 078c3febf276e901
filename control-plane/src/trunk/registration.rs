//! Registering at a carrier: RFC 3261 §10.2 from the client's side, with the waiting rule of
//! RFC 5626 §4.5 after failures.
//!
//! ```text
//!   Waiting ──REGISTER──▶ Asking ──200──▶ Registered ──half a minute before the end──▶ Asking
//!      ▲                    │ 423: again at once with Min-Expires
//!      └──── else, backoff ─┘
//! ```
//!
//! The digest exchange (401, 407) belongs to the user agent: what arrives here is its end.

use serde::{Deserialize, Serialize};
use trunkline_edge_api::MonoTime;

/// What is asked for unless the site file says otherwise, seconds.
pub const EXPIRES_DEFAULT_SECS: u32 = 600;

/// The longest that is agreed to, seconds: what a registrar demands beyond is not believed.
const EXPIRES_MAX_SECS: u32 = 86_400;

/// A registration is renewed this long before it ends, seconds; at two thirds of a short one.
const REFRESH_LEAD_SECS: u32 = 30;

/// First wait after a failure, seconds (RFC 5626 §4.5, `base-time` when all flows failed).
const BACKOFF_BASE_SECS: u64 = 30;

/// Longest wait after failures, seconds (RFC 5626 §4.5, `max-time`).
const BACKOFF_MAX_SECS: u64 = 1_800;

/// How soon an address that is being looked up is asked for again, milliseconds.
const UNLOCATED_RETRY_MILLIS: u64 = 500;

/// 423 answers in a row that are followed. A registrar that raises its minimum each time is
/// broken.
const TOO_BRIEF_MAX: u32 = 2;

/// How a registration stands, for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RegistrationState {
    /// A REGISTER is out and none has succeeded yet.
    Trying,
    /// The registrar sends calls here.
    Registered,
    /// The last REGISTER was refused or not answered.
    Failed,
}

impl RegistrationState {
    /// As operators read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trying => "trying",
            Self::Registered => "registered",
            Self::Failed => "failed",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The next REGISTER is due then.
    Waiting { until: MonoTime },
    /// One is out.
    Asking,
    /// Bound until `ends_at`; the next REGISTER is due at `refresh_at`.
    Registered {
        refresh_at: MonoTime,
        ends_at: MonoTime,
    },
    /// Bound until `ends_at`, and being renewed.
    Renewing { ends_at: MonoTime },
}

/// How a REGISTER ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegisterOutcome {
    /// 2xx; for how long the binding of our contact is good, seconds.
    Accepted {
        /// What the registrar said: `expires` of our `Contact`, else `Expires`.
        expires_secs: u32,
    },
    /// 423 with its `Min-Expires`.
    TooBrief {
        /// The least that the registrar takes, seconds.
        min_expires_secs: u32,
    },
    /// Any other final response; 408 for silence, 503 for a broken transport.
    Refused {
        /// The status.
        status: u16,
        /// `Retry-After`, seconds.
        retry_after_secs: Option<u32>,
    },
}

/// One trunk's registration.
#[derive(Debug, Clone)]
pub struct Registration {
    state: State,
    expires_secs: u32,
    failures: u32,
    too_brief: u32,
    last_status: Option<u16>,
}

impl Registration {
    /// The first REGISTER is due after `offset_millis`, so that many trunks do not ask at once.
    #[must_use]
    pub fn new(now: MonoTime, expires_secs: u32, offset_millis: u64) -> Self {
        Self {
            state: State::Waiting {
                until: now.plus_millis(offset_millis),
            },
            expires_secs,
            failures: 0,
            too_brief: 0,
            last_status: None,
        }
    }

    /// How it stands.
    #[must_use]
    pub fn state(&self) -> RegistrationState {
        match self.state {
            State::Registered { .. } | State::Renewing { .. } => RegistrationState::Registered,
            State::Waiting { .. } if self.failures > 0 => RegistrationState::Failed,
            State::Waiting { .. } | State::Asking => RegistrationState::Trying,
        }
    }

    /// The last final status.
    #[must_use]
    pub fn last_status(&self) -> Option<u16> {
        self.last_status
    }

    /// For how long the binding is still good, seconds.
    #[must_use]
    pub fn expires_in_secs(&self, now: MonoTime) -> Option<u64> {
        match self.state {
            State::Registered { ends_at, .. } | State::Renewing { ends_at } => {
                Some(ends_at.nanos_since(now) / 1_000_000_000)
            }
            _ => None,
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<MonoTime> {
        match self.state {
            State::Waiting { until } => Some(until),
            State::Registered { refresh_at, .. } => Some(refresh_at),
            State::Renewing { ends_at } => Some(ends_at),
            State::Asking => None,
        }
    }

    /// `Some`: send a REGISTER that asks for this many seconds.
    pub fn handle_timeout(&mut self, now: MonoTime) -> Option<u32> {
        match self.state {
            State::Waiting { until } if until <= now => self.state = State::Asking,
            State::Registered {
                refresh_at,
                ends_at,
            } if refresh_at <= now => self.state = State::Renewing { ends_at },
            State::Renewing { ends_at } if ends_at <= now => {
                // The binding is gone; the REGISTER that was to renew it is still out.
                self.state = State::Asking;
                return None;
            }
            _ => return None,
        }
        Some(self.expires_secs)
    }

    /// The registrar's address is not known yet: what is due waits a little. That is no failure of
    /// the registrar's.
    pub fn handle_not_sent(&mut self, now: MonoTime) {
        match &mut self.state {
            State::Waiting { until: at } | State::Registered { refresh_at: at, .. }
                if *at <= now =>
            {
                *at = now.plus_millis(UNLOCATED_RETRY_MILLIS);
            }
            _ => {}
        }
    }

    /// The flow that calls would come in on is gone: register again at once.
    pub fn handle_flow_lost(&mut self, now: MonoTime) {
        if matches!(self.state, State::Registered { .. }) {
            self.state = State::Waiting { until: now };
        }
    }

    /// A REGISTER came to its end. `draw` is a random number, for the jitter of the next.
    pub fn handle_outcome(&mut self, now: MonoTime, outcome: RegisterOutcome, draw: u64) {
        match outcome {
            RegisterOutcome::Accepted { expires_secs } if expires_secs > 0 => {
                let secs = expires_secs.min(EXPIRES_MAX_SECS);
                let lead = REFRESH_LEAD_SECS.min(secs / 3);
                self.state = State::Registered {
                    refresh_at: now.plus_secs(u64::from((secs - lead).max(1))),
                    ends_at: now.plus_secs(u64::from(secs)),
                };
                self.failures = 0;
                self.too_brief = 0;
                self.last_status = Some(200);
            }
            RegisterOutcome::TooBrief { min_expires_secs }
                if self.too_brief < TOO_BRIEF_MAX
                    && (self.expires_secs + 1..=EXPIRES_MAX_SECS).contains(&min_expires_secs) =>
            {
                self.too_brief += 1;
                self.last_status = Some(423);
                self.expires_secs = min_expires_secs;
                self.state = State::Waiting { until: now };
            }
            RegisterOutcome::TooBrief { .. } => self.fail(now, 423, None, draw),
            // A 200 that binds for no time at all is a refusal in disguise.
            RegisterOutcome::Accepted { .. } => self.fail(now, 200, None, draw),
            RegisterOutcome::Refused {
                status,
                retry_after_secs,
            } => self.fail(now, status, retry_after_secs, draw),
        }
    }

    /// RFC 5626 §4.5: double the wait with each failure, draw it from its upper half.
    fn fail(&mut self, now: MonoTime, status: u16, retry_after_secs: Option<u32>, draw: u64) {
        self.last_status = Some(status);
        self.too_brief = 0;
        let doubled = BACKOFF_BASE_SECS << self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        let upper_millis = doubled.min(BACKOFF_MAX_SECS) * 1_000;
        let wait = upper_millis / 2 + draw % (upper_millis / 2 + 1);
        let asked = u64::from(retry_after_secs.unwrap_or(0)).min(BACKOFF_MAX_SECS) * 1_000;
        self.state = State::Waiting {
            until: now.plus_millis(wait.max(asked)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: MonoTime = MonoTime(1_000_000_000);

    fn refused(status: u16) -> RegisterOutcome {
        RegisterOutcome::Refused {
            status,
            retry_after_secs: None,
        }
    }

    fn accepted(expires_secs: u32) -> RegisterOutcome {
        RegisterOutcome::Accepted { expires_secs }
    }

    fn due_in_secs(registration: &Registration, now: MonoTime) -> u64 {
        let due = registration.poll_timeout().expect("something is due");
        due.nanos_since(now) / 1_000_000_000
    }

    #[test]
    fn a_binding_is_renewed_before_it_ends() {
        let mut registration = Registration::new(START, 600, 0);
        assert_eq!(registration.handle_timeout(START), Some(600));
        assert_eq!(registration.state(), RegistrationState::Trying);
        // The registrar's word counts, not what was asked.
        registration.handle_outcome(START, accepted(300), 0);
        assert_eq!(registration.state(), RegistrationState::Registered);
        assert_eq!(due_in_secs(&registration, START), 270);
        let refresh = START.plus_secs(270);
        assert_eq!(registration.handle_timeout(refresh), Some(600));
        assert_eq!(registration.state(), RegistrationState::Registered);
        registration.handle_outcome(refresh, accepted(3), 0);
        assert_eq!(due_in_secs(&registration, refresh), 2);
    }

    #[test]
    fn a_renewal_without_answer_ends_with_its_binding() {
        let mut registration = Registration::new(START, 600, 0);
        registration.handle_timeout(START);
        registration.handle_outcome(START, accepted(60), 0);
        assert_eq!(registration.handle_timeout(START.plus_secs(40)), Some(600));
        let end = START.plus_secs(60);
        assert_eq!(registration.expires_in_secs(end), Some(0));
        assert_eq!(registration.handle_timeout(end), None);
        assert_eq!(registration.state(), RegistrationState::Trying);
    }

    #[test]
    fn failures_double_the_wait_within_its_upper_half_up_to_half_an_hour() {
        let mut registration = Registration::new(START, 600, 0);
        for (round, upper_secs) in [30, 60, 120, 240, 480, 960, 1800, 1800, 1800]
            .into_iter()
            .enumerate()
        {
            for draw in [0, u64::MAX / 2, u64::MAX] {
                let mut once = registration.clone();
                once.handle_outcome(START, refused(503), draw);
                let wait = due_in_secs(&once, START);
                assert!((upper_secs / 2..=upper_secs).contains(&wait), "{round}");
            }
            registration.handle_outcome(START, refused(503), 7);
            assert_eq!(registration.state(), RegistrationState::Failed);
        }
        // One success forgets them all.
        registration.handle_outcome(START, accepted(600), 0);
        registration.handle_outcome(START, refused(403), u64::MAX);
        assert!(due_in_secs(&registration, START) <= 30);
    }

    #[test]
    fn retry_after_is_waited_for() {
        let mut registration = Registration::new(START, 600, 0);
        let outcome = RegisterOutcome::Refused {
            status: 503,
            retry_after_secs: Some(120),
        };
        registration.handle_outcome(START, outcome, 0);
        assert_eq!(due_in_secs(&registration, START), 120);
    }

    #[test]
    fn min_expires_is_followed_at_once_but_not_for_ever() {
        let too_brief = |min_expires_secs| RegisterOutcome::TooBrief { min_expires_secs };
        let mut registration = Registration::new(START, 60, 0);
        registration.handle_timeout(START);
        registration.handle_outcome(START, too_brief(1_800), 0);
        assert_eq!(registration.handle_timeout(START), Some(1_800));
        registration.handle_outcome(START, too_brief(3_600), 0);
        assert_eq!(registration.handle_timeout(START), Some(3_600));
        registration.handle_outcome(START, too_brief(7_200), 0);
        assert_eq!(registration.state(), RegistrationState::Failed);
        // One that does not raise what was asked would be a loop.
        let mut registration = Registration::new(START, 60, 0);
        registration.handle_outcome(START, too_brief(60), 0);
        assert_eq!(registration.state(), RegistrationState::Failed);
    }

    #[test]
    fn a_lost_flow_registers_again_at_once() {
        let mut registration = Registration::new(START, 600, 0);
        registration.handle_timeout(START);
        registration.handle_outcome(START, accepted(600), 0);
        registration.handle_flow_lost(START.plus_secs(5));
        assert_eq!(registration.handle_timeout(START.plus_secs(5)), Some(600));
    }
}
