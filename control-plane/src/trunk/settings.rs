//! What is known of a trunk beside where its calls come from: where calls to it go, how it is
//! proved to, how it writes numbers, what it can take.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::destination::Destination;
use super::number::{DialPlan, NumberFormat};
use super::registration::EXPIRES_DEFAULT_SECS;

/// OPTIONS unless the site file says otherwise, seconds.
pub const OPTIONS_DEFAULT_SECS: u32 = 30;

/// Custom headers of one trunk.
pub const HEADERS_MAX: usize = 8;

macro_rules! named_enum {
    ($(#[$doc:meta])* $name:ident, $form:literal, $error:ident {
        $($(#[$vdoc:meta])* $variant:ident = $text:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant,)* }

        impl $name {
            /// What a configuration may say.
            pub const FORM: &'static str = $form;

            /// As a configuration says it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }

        impl FromStr for $name {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                match text { $($text => Ok($name::$variant),)* _ => Err($error) }
            }
        }

        /// No such choice.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
        #[error("must be {}", $name::FORM)]
        pub struct $error;
    };
}

named_enum!(
    /// What messages to a trunk travel on.
    TrunkTransport, "\"udp\", \"tcp\" or \"tls\"", UnknownTransport {
        /// Datagrams.
        #[default]
        Udp = "udp",
        /// A connection.
        Tcp = "tcp",
        /// A connection inside TLS.
        Tls = "tls",
    }
);

named_enum!(
    /// How a trunk is told who calls (RFC 3325).
    IdentityHeader, "\"pai\", \"ppi\" or \"none\"", UnknownIdentityHeader {
        /// `P-Asserted-Identity`: the trunk is inside our trust domain. Withheld callers are named
        /// there too, under `Privacy: id`.
        #[default]
        Asserted = "pai",
        /// `P-Preferred-Identity`: it decides itself.
        Preferred = "ppi",
        /// Only `From`; the number of a withheld caller does not leave.
        None = "none",
    }
);

/// A password or token. `Debug` shows that there is one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// User and password for a trunk's challenges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// Digest user name; user part of our address when we register.
    pub user: String,
    /// Its password. The realm is the trunk's to choose, so that no hash of it could stand here.
    pub password: Secret,
}

/// A header that every INVITE to the trunk carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomHeader {
    /// A token (RFC 3261 §25.1).
    pub name: String,
    /// One line. Tokens of accounts stand here, so it counts as secret.
    pub value: Secret,
}

/// Registration of ours at a trunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterSettings {
    /// Seconds that are asked for.
    pub expires_secs: u32,
}

impl Default for RegisterSettings {
    fn default() -> Self {
        Self {
            expires_secs: EXPIRES_DEFAULT_SECS,
        }
    }
}

/// See the module's description. The store keeps it as JSON, which names only what differs from
/// the default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrunkSettings {
    /// Where its calls go; none: it only delivers.
    pub destinations: Vec<Destination>,
    /// What they travel on.
    pub transport: TrunkTransport,
    /// For its challenges.
    pub login: Option<Login>,
    /// Whether, and for how long, we register at its first destination.
    pub register: Option<RegisterSettings>,
    /// Names whose addresses are sources too, for as long as DNS says so.
    pub source_names: Vec<String>,
    /// How its numbers are dialled.
    pub plan: DialPlan,
    /// How it writes numbers.
    pub numbers_in: NumberFormat,
    /// How it wants them.
    pub numbers_out: NumberFormat,
    /// What every INVITE to it carries.
    pub headers: Vec<CustomHeader>,
    /// Calls per second that it takes; 0: any number.
    pub cps: u32,
    /// Calls at one time, both ways.
    pub channels_max: Option<u32>,
    /// Between two OPTIONS, seconds; 0: never.
    pub options_secs: u32,
    /// Host part of `From`; `None`: that of the destination when we log in, else our own domain.
    pub from_domain: Option<String>,
    /// How it is told who calls.
    pub identity: IdentityHeader,
}

impl Default for TrunkSettings {
    fn default() -> Self {
        Self {
            destinations: Vec::new(),
            transport: TrunkTransport::default(),
            login: None,
            register: None,
            source_names: Vec::new(),
            plan: DialPlan::default(),
            numbers_in: NumberFormat::default(),
            numbers_out: NumberFormat::default(),
            headers: Vec::new(),
            cps: 0,
            channels_max: None,
            options_secs: OPTIONS_DEFAULT_SECS,
            from_domain: None,
            identity: IdentityHeader::default(),
        }
    }
}

/// How settings stand in the store: a JSON object of what is not at its default.
#[must_use]
pub fn to_json<T: Serialize + Default>(settings: &T) -> String {
    Value::Object(
        differing(settings)
            .into_iter()
            .collect::<serde_json::Map<_, _>>(),
    )
    .to_string()
}

/// What [`to_json`] wrote; `None` for anything else.
#[must_use]
pub fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_str(text).ok()
}

/// What is not at its default, by key, for a plan to compare.
pub(crate) fn differing<T: Serialize + Default>(settings: &T) -> BTreeMap<String, Value> {
    let object = |settings: &T| match serde_json::to_value(settings) {
        Ok(Value::Object(object)) => object,
        _ => serde_json::Map::new(),
    };
    let defaults = object(&T::default());
    object(settings)
        .into_iter()
        .filter(|(key, value)| defaults.get(key) != Some(value))
        .collect()
}

/// Whether `text` may be the name of a header of ours: a token, and none that the agent writes.
#[must_use]
pub fn is_custom_header(text: &str) -> bool {
    const RESERVED: &[&str] = &[
        "via",
        "v",
        "from",
        "f",
        "to",
        "t",
        "call-id",
        "i",
        "cseq",
        "contact",
        "m",
        "max-forwards",
        "content-length",
        "l",
        "content-type",
        "c",
        "route",
        "record-route",
        "authorization",
        "proxy-authorization",
        "allow",
        "require",
        "supported",
        "k",
        "session-expires",
        "x",
        "min-se",
        "user-agent",
        "identity",
        "y",
    ];
    let is_token = (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte));
    is_token && !RESERVED.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_back_from_the_store_as_they_went() {
        assert_eq!(to_json(&TrunkSettings::default()), "{}");
        assert_eq!(from_json("{}"), Some(TrunkSettings::default()));
        let settings = TrunkSettings {
            destinations: vec!["sip.example.com;priority=2".parse().expect("valid")],
            transport: TrunkTransport::Tls,
            login: Some(Login {
                user: "acme".to_owned(),
                password: Secret("opensesame".to_owned()),
            }),
            register: Some(RegisterSettings { expires_secs: 120 }),
            cps: 5,
            channels_max: Some(30),
            identity: IdentityHeader::None,
            ..TrunkSettings::default()
        };
        let json = to_json(&settings);
        assert!(!json.contains("options_secs"), "{json}");
        assert_eq!(from_json(&json), Some(settings.clone()));
        assert!(!format!("{settings:?}").contains("opensesame"));
        assert_eq!(from_json::<TrunkSettings>("{\"cps\":\"many\"}"), None);
    }

    #[test]
    fn headers_of_the_dialog_are_not_custom() {
        for (name, is_custom) in [
            ("X-Telnyx-Token", true),
            ("P-Charge-Info", true),
            ("From", false),
            ("m", false),
            ("Content-Length", false),
            ("X Y", false),
            ("X:", false),
            ("", false),
        ] {
            assert_eq!(is_custom_header(name), is_custom, "{name}");
        }
    }
}
