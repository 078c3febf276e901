//! Why a call ended, as `Reason` headers say it: RFC 3326.

use std::fmt::Write as _;

use sipx_sip::{Headers, Reason};

/// The causes that the `Reason` headers of one message name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct EndCause {
    /// ITU-T Q.850 cause, 0 … 127, say 16 (normal clearing) or 17 (user busy).
    pub q850: Option<u8>,
    /// SIP status, 100 … 699: 200 in the CANCEL to a phone whose call another one took ("call
    /// completed elsewhere").
    pub sip: Option<u16>,
}

impl EndCause {
    /// Nothing was said.
    pub const NONE: Self = Self {
        q850: None,
        sip: None,
    };

    /// A Q.850 cause alone.
    #[must_use]
    pub const fn q850(cause: u8) -> Self {
        Self {
            q850: Some(cause),
            sip: None,
        }
    }

    /// A SIP status alone.
    #[must_use]
    pub const fn sip(status: u16) -> Self {
        Self {
            q850: None,
            sip: Some(status),
        }
    }

    /// The first value of each protocol. A header that cannot be read says nothing.
    pub(crate) fn of(headers: &Headers) -> Self {
        let mut cause = Self::NONE;
        for row in headers.get_all(&sipx_sip::HeaderName::Reason) {
            let Ok(Reason(values)) = <Reason as sipx_sip::TypedHeader>::decode(&row.value()) else {
                continue;
            };
            for value in values {
                if value.protocol().eq_ignore_ascii_case(b"Q.850") {
                    cause.q850 = cause.q850.or(u8::try_from(value.cause()).ok());
                } else if value.protocol().eq_ignore_ascii_case(b"SIP") {
                    cause.sip = cause.sip.or(Some(value.cause()));
                }
            }
        }
        cause
    }

    /// The value of a `Reason` header, for [`Agent::hangup`](super::Agent::hangup); `None` when
    /// there is nothing to say.
    #[must_use]
    pub fn header_value(self) -> Option<String> {
        let mut value = String::new();
        if let Some(cause) = self.q850 {
            let _ = write!(value, "Q.850;cause={cause}");
        }
        if let Some(status) = self.sip {
            let separator = if value.is_empty() { "" } else { ", " };
            let _ = write!(value, "{separator}SIP;cause={status}");
        }
        (!value.is_empty()).then_some(value)
    }
}
