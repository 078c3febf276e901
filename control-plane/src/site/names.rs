//! Keys and values of the site file, each checked where it is made.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Text that does not have the form its type wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct FormError(&'static str);

macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $form:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// What is allowed, fit to follow the word "expected".
            pub const FORM: &'static str = $form;

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = FormError;

            fn from_str(text: &str) -> Result<Self, FormError> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(text.into())) } else { Err(FormError(Self::FORM)) }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

checked_text!(
    /// Name of a tenant or trunk. It becomes a metric label and a log field, so it is plain.
    Name,
    "1 to 63 letters, digits, '.', '-' or '_'",
    |text| (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
);

checked_text!(
    /// Name of an entry of `[edge] media_addresses`, or its address where it has no name.
    InterfaceName,
    "the name of an entry of [edge] media_addresses, or its address where it has no name",
    |text| (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':'))
);

checked_text!(
    /// A member's short number within the tenant.
    Extension,
    "2 to 15 digits, e.g. \"101\"",
    |text| (2..=15).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
);

checked_text!(
    /// User part of a SIP URI: the characters that RFC 3261 §25.1 calls `unreserved`, so that no
    /// two spellings name the same user, and without the rarer marks.
    SipUser,
    "1 to 63 letters, digits, '.', '-', '_' or '+'",
    |text| (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+'))
);

checked_text!(
    /// A telephone number in E.164 form. `Debug` shows its last two digits only: numbers of
    /// people do not belong in logs.
    E164,
    "a number in E.164 form: '+' and 7 to 15 digits, e.g. \"+442071838750\"",
    |text| text.strip_prefix('+').is_some_and(|digits| {
        (7..=15).contains(&digits.len())
            && digits.bytes().all(|b| b.is_ascii_digit())
            && !digits.starts_with('0')
    })
);

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for SipUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for E164 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.len().saturating_sub(2);
        write!(f, "E164(+…{})", &self.0[shown..])
    }
}

/// Whether a member takes calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Availability {
    /// The phone rings.
    Online,
    /// Callers get 486 Busy Here.
    Busy,
    /// Callers get 480 Temporarily Unavailable.
    Offline,
}

impl Availability {
    /// What is allowed, fit to follow the word "expected".
    pub const FORM: &'static str = "\"online\", \"busy\" or \"offline\"";

    /// As written in the site file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Availability::Online => "online",
            Availability::Busy => "busy",
            Availability::Offline => "offline",
        }
    }
}

impl FromStr for Availability {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        match text {
            "online" => Ok(Availability::Online),
            "busy" => Ok(Availability::Busy),
            "offline" => Ok(Availability::Offline),
            _ => Err(FormError(Self::FORM)),
        }
    }
}

impl fmt::Display for Availability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}
