//! How a trunk is told who calls: `From`, and the identity headers it wants (RFC 3323, RFC 3325).
//!
//! | `identity` | caller shown | caller withheld |
//! |---|---|---|
//! | `pai` | number in `From` and `P-Asserted-Identity` | anonymous `From`; number in `P-Asserted-Identity`, `Privacy: id` |
//! | `ppi` | the same in `P-Preferred-Identity` | the same, `Privacy: id` |
//! | `none` | number in `From` | anonymous `From`, `Privacy: id`, no number at all |

use std::fmt::Write as _;

use super::number::NumberFormat;
use super::settings::{IdentityHeader, TrunkSettings};
use crate::site::E164;

/// Who calls, as a trunk may learn it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shown {
    /// The number; `None` for an emergency call of somebody without one.
    pub number: Option<E164>,
    /// The name.
    pub display_name: Option<String>,
    /// The callee must not learn it.
    pub is_withheld: bool,
}

/// The parts of an INVITE that say who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityRows {
    /// User part of `From`; `None`: anonymous.
    pub from_user: Option<String>,
    /// Name of `From`.
    pub from_name: Option<String>,
    /// Header names and values.
    pub rows: Vec<(&'static str, String)>,
}

/// What `settings` makes of the caller. `host` is the host part of addresses.
#[must_use]
pub fn rows(settings: &TrunkSettings, shown: &Shown, host: &str) -> IdentityRows {
    let format = NumberFormat {
        style: settings.numbers_out.style,
        ..NumberFormat::default()
    };
    let user = shown
        .number
        .as_ref()
        .map(|number| format.write(&settings.plan, number));
    let mut rows = Vec::new();
    let header = match settings.identity {
        IdentityHeader::Asserted => Some("P-Asserted-Identity"),
        IdentityHeader::Preferred => Some("P-Preferred-Identity"),
        IdentityHeader::None => None,
    };
    if let (Some(header), Some(user)) = (header, &user) {
        let mut value = String::new();
        if let Some(name) = &shown.display_name {
            let _ = write!(value, "\"{}\" ", quoted(name));
        }
        let _ = write!(value, "<sip:{user}@{host}>");
        rows.push((header, value));
    }
    if shown.is_withheld {
        rows.push(("Privacy", "id".to_owned()));
        return IdentityRows {
            from_user: None,
            from_name: None,
            rows,
        };
    }
    IdentityRows {
        from_user: user,
        from_name: shown.display_name.clone(),
        rows,
    }
}

/// Text fit for a quoted string (RFC 3261 §25.1).
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars().filter(|c| !c.is_control()) {
        if matches!(character, '"' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trunk::number::NumberStyle;

    fn told(identity: IdentityHeader, is_withheld: bool) -> IdentityRows {
        let settings = TrunkSettings {
            identity,
            ..TrunkSettings::default()
        };
        let shown = Shown {
            number: "+442071838750".parse().ok(),
            display_name: Some("Ada \"Countess\"".to_owned()),
            is_withheld,
        };
        rows(&settings, &shown, "sip.example.com")
    }

    #[test]
    fn a_trusted_trunk_learns_a_withheld_number_and_another_one_does_not() {
        let asserted = "\"Ada \\\"Countess\\\"\" <sip:+442071838750@sip.example.com>".to_owned();
        let privacy = ("Privacy", "id".to_owned());
        for (identity, is_withheld, expected) in [
            (
                IdentityHeader::Asserted,
                false,
                vec![("P-Asserted-Identity", asserted.clone())],
            ),
            (
                IdentityHeader::Asserted,
                true,
                vec![("P-Asserted-Identity", asserted.clone()), privacy.clone()],
            ),
            (
                IdentityHeader::Preferred,
                true,
                vec![("P-Preferred-Identity", asserted), privacy.clone()],
            ),
            (IdentityHeader::None, false, vec![]),
            (IdentityHeader::None, true, vec![privacy]),
        ] {
            let told = told(identity, is_withheld);
            assert_eq!(told.rows, expected);
            assert_eq!(told.from_user.is_none(), is_withheld);
            assert_eq!(told.from_name.is_none(), is_withheld);
        }
    }

    #[test]
    fn the_callers_number_is_written_as_the_trunk_writes_numbers_without_its_prefixes() {
        let settings = TrunkSettings {
            numbers_out: NumberFormat {
                style: NumberStyle::E164,
                strip: String::new(),
                add: "1234".to_owned(),
            },
            ..TrunkSettings::default()
        };
        let shown = Shown {
            number: "+442071838750".parse().ok(),
            ..Shown::default()
        };
        let told = rows(&settings, &shown, "host");
        assert_eq!(told.from_user.as_deref(), Some("442071838750"));
    }
}
