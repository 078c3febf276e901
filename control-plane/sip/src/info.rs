//! DTMF digits in INFO requests: the body types that phones and gateways settled on long before
//! RFC 6086 asked for packages. No package of that registry is about digits.
//!
//! ```text
//!   INFO sip:bob@198.51.100.9 SIP/2.0
//!   Content-Type: application/dtmf-relay
//!
//!   Signal=5
//!   Duration=160
//! ```
//!
//! `application/dtmf` has the digit and nothing else. What is read is generous: `Signal` may be an
//! event code (10 for `*`), spaces may stand anywhere, and either form may come under either type.
//!
//! Left out: hook flash (`Signal=16`, `!`), which is no DTMF signal.

use bytes::Bytes;
use trunkline_edge_api::Digit;

/// The type that we send, with duration.
pub(crate) const DTMF_RELAY: &str = "application/dtmf-relay";

/// Body types that an INFO may have here, for `Accept` (RFC 3261 §20.1).
pub(crate) const ACCEPT_INFO: &str = "application/dtmf-relay, application/dtmf";

/// Longest body that is read. The longest seen has two lines and some spaces.
const BODY_LEN_MAX: usize = 128;

/// A digit that travels in an INFO request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InfoDigit {
    /// Which key.
    pub digit: Digit,
    /// For how long it was pressed, milliseconds, 1 to [`Self::DURATION_MILLIS_MAX`].
    pub duration_millis: u16,
}

impl InfoDigit {
    /// What a digit lasts that comes without duration: what senders write who do not measure.
    pub const DURATION_MILLIS: u16 = 160;

    /// Nobody means a longer one.
    pub const DURATION_MILLIS_MAX: u16 = 10_000;

    /// Reads a body of either type. `None` when it names no DTMF signal.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(body.get(..body.len().min(BODY_LEN_MAX))?).ok()?;
        let mut signal = None;
        let mut duration = None;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            match line.split_once('=') {
                Some((name, value)) if name.trim().eq_ignore_ascii_case("signal") => {
                    signal = signal.or(Some(value.trim()));
                }
                Some((name, value)) if name.trim().eq_ignore_ascii_case("duration") => {
                    duration = duration.or(Some(value.trim()));
                }
                Some(_) => {}
                None => signal = signal.or(Some(line)),
            }
        }
        let duration_millis = match duration.map(str::parse::<u64>) {
            Some(Ok(millis)) => {
                u16::try_from(millis.clamp(1, u64::from(Self::DURATION_MILLIS_MAX))).ok()?
            }
            Some(Err(_)) | None => Self::DURATION_MILLIS,
        };
        Some(Self {
            digit: digit_of(signal?)?,
            duration_millis,
        })
    }

    /// The body under [`DTMF_RELAY`].
    pub(crate) fn to_body(self) -> Bytes {
        let (symbol, duration) = (self.digit.as_char(), self.duration_millis);
        Bytes::from(format!("Signal={symbol}\r\nDuration={duration}\r\n"))
    }
}

/// A key's symbol, or its event code (RFC 4733 §3.2) in two digits.
fn digit_of(signal: &str) -> Option<Digit> {
    let mut symbols = signal.chars();
    match (symbols.next(), symbols.next()) {
        (Some(symbol), None) => Digit::from_char(symbol),
        _ => signal
            .parse()
            .ok()
            .filter(|&code: &u8| code >= 10)
            .and_then(Digit::from_event),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Body, and what it means: symbol and duration.
    const BODIES: &[(&str, Option<(char, u16)>)] = &[
        ("Signal=5\r\nDuration=160\r\n", Some(('5', 160))),
        ("Signal= 5 \nDuration= 250", Some(('5', 250))),
        ("signal=*\r\nduration=80\r\n", Some(('*', 80))),
        ("Signal=10\r\nDuration=80", Some(('*', 80))),
        ("Signal=11", Some(('#', 160))),
        ("Signal=15\r\n", Some(('D', 160))),
        ("Signal=d", Some(('D', 160))),
        ("Duration=90\r\nSignal=0", Some(('0', 90))),
        ("5", Some(('5', 160))),
        ("#\r\n", Some(('#', 160))),
        (
            "Signal=7\r\nDuration=4294967296\r\n",
            Some(('7', InfoDigit::DURATION_MILLIS_MAX)),
        ),
        ("Signal=7\r\nDuration=0", Some(('7', 1))),
        ("Signal=7\r\nDuration=soon", Some(('7', 160))),
        ("Signal=1\r\nSignal=2\r\n", Some(('1', 160))),
        ("Signal=16\r\nDuration=200", None),
        ("Signal=!", None),
        ("Signal=", None),
        ("Signal=05", None),
        ("Signal=12345", None),
        ("Duration=200", None),
        ("", None),
        ("\u{e9}", None),
    ];

    #[test]
    fn reads_both_forms_and_refuses_what_is_no_dtmf_signal() {
        for (body, expected) in BODIES {
            let read = InfoDigit::parse(body.as_bytes());
            let read = read.map(|info| (info.digit.as_char(), info.duration_millis));
            assert_eq!(read, *expected, "{body:?}");
        }
        assert_eq!(InfoDigit::parse(b"Signal=\xff"), None);
    }

    #[test]
    fn what_is_written_reads_back() {
        for code in 0..16 {
            let info = InfoDigit {
                digit: Digit::from_event(code).expect("sixteen signals"),
                duration_millis: 100 + u16::from(code),
            };
            assert_eq!(InfoDigit::parse(&info.to_body()), Some(info));
        }
    }

    #[test]
    fn digits_print_redacted() {
        let info = InfoDigit::parse(b"Signal=7").expect("a digit");
        assert!(!format!("{info:?}").contains('7'));
    }

    proptest::proptest! {
        #[test]
        fn any_body_is_read_or_refused(body in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = InfoDigit::parse(&body);
        }
    }
}
