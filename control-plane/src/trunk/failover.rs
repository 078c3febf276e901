//! After a trunk refused a call: to the next one, or back to the caller.
//!
//! The rule is whose trouble it is. A busy or declining callee is just as busy through another
//! carrier, and asking again makes a phone ring twice; silence, a broken transport, a server's
//! trouble or an account that is refused say something about this carrier only.

/// What a refusal means for the call and for the destination it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consequence {
    /// Whether the next destination is tried.
    pub tries_next: bool,
    /// Whether the destination itself seems dead.
    pub is_lost: bool,
    /// Nothing is sent there for this long, seconds.
    pub hold_secs: Option<u32>,
}

/// Longest that a `Retry-After` is obeyed, seconds: one header does not take a carrier away for a
/// day.
const HOLD_MAX_SECS: u32 = 600;

/// Judges a final response; 408 is silence, 503 without a response a broken transport.
#[must_use]
pub fn after(status: u16, retry_after_secs: Option<u32>, had_response: bool) -> Consequence {
    let tries_next = match status {
        408 | 430 => true,
        // Our account, not the callee: credentials, credit, permission.
        401..=403 | 407 => true,
        // RFC 3261 §21.5; 513 says that this message is too large for that server.
        500..=599 => true,
        _ => false,
    };
    let hold_secs = match (status, retry_after_secs) {
        (503, Some(secs)) => Some(secs.min(HOLD_MAX_SECS)),
        _ => None,
    };
    Consequence {
        tries_next,
        is_lost: !had_response && matches!(status, 408 | 503),
        hold_secs: hold_secs.filter(|secs| *secs > 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_carriers_own_trouble_goes_on_to_the_next() {
        for status in [408, 401, 402, 403, 407, 500, 502, 503, 504, 513, 580] {
            assert!(after(status, None, true).tries_next, "{status}");
        }
        for status in [
            300, 302, 404, 410, 480, 484, 486, 487, 488, 600, 603, 604, 606, 607,
        ] {
            assert!(!after(status, None, true).tries_next, "{status}");
        }
    }

    #[test]
    fn retry_after_of_a_503_holds_the_destination_off_within_bounds() {
        assert_eq!(after(503, Some(20), true).hold_secs, Some(20));
        assert_eq!(after(503, Some(86_400), true).hold_secs, Some(600));
        assert_eq!(after(503, Some(0), true).hold_secs, None);
        assert_eq!(after(500, Some(20), true).hold_secs, None);
    }

    #[test]
    fn a_destination_is_lost_only_when_nothing_came_back() {
        assert!(after(408, None, false).is_lost);
        assert!(after(503, None, false).is_lost);
        assert!(!after(503, None, true).is_lost);
        assert!(!after(408, None, true).is_lost);
    }
}
