//! How a trunk writes telephone numbers: E.164 with or without `+`, or national; with prefixes
//! taken off and put on.
//!
//! | written | `country_code` | read as |
//! |---|---|---|
//! | `+442071838750`, `00442071838750`, `442071838750` | – | `+442071838750` |
//! | `02071838750` | `44` | `+442071838750` |
//! | `4155550100` | `1`, no national prefix | `+14155550100` |

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::site::E164;

/// The form of the digits, before prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum NumberStyle {
    /// `+442071838750`
    #[default]
    #[serde(rename = "+e164")]
    PlusE164,
    /// `442071838750`
    #[serde(rename = "e164")]
    E164,
    /// `02071838750` inside the country of `country_code`, `00…` outside it.
    #[serde(rename = "national")]
    National,
}

impl NumberStyle {
    /// What a configuration may say.
    pub const FORM: &'static str = "\"+e164\", \"e164\" or \"national\"";

    /// As a configuration says it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PlusE164 => "+e164",
            Self::E164 => "e164",
            Self::National => "national",
        }
    }
}

impl fmt::Display for NumberStyle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No such style.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be {}", NumberStyle::FORM)]
pub struct UnknownNumberStyle;

impl FromStr for NumberStyle {
    type Err = UnknownNumberStyle;

    fn from_str(text: &str) -> Result<Self, UnknownNumberStyle> {
        match text {
            "+e164" => Ok(Self::PlusE164),
            "e164" => Ok(Self::E164),
            "national" => Ok(Self::National),
            _ => Err(UnknownNumberStyle),
        }
    }
}

/// Where numbers without a country code are from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DialPlan {
    /// 1 to 3 digits, `44`; `None`: only numbers with a country code are understood.
    pub country_code: Option<String>,
    /// What leads a national number, `0`; empty in countries without one.
    pub national_prefix: Option<String>,
    /// What leads an international number where `+` is not to be had: `00`, `011`.
    pub international_prefix: Option<String>,
}

impl DialPlan {
    /// The national prefix: as stated, else none in the North American plan and `0` elsewhere.
    fn national_prefix(&self) -> &str {
        match (&self.national_prefix, self.country_code.as_deref()) {
            (Some(prefix), _) => prefix,
            (None, Some("1")) => "",
            (None, _) => "0",
        }
    }

    /// The international prefix: as stated, else `011` in the North American plan and `00`.
    fn international_prefix(&self) -> &str {
        match (&self.international_prefix, self.country_code.as_deref()) {
            (Some(prefix), _) => prefix,
            (None, Some("1")) => "011",
            (None, _) => "00",
        }
    }

    /// `text` as somebody inside the country dials it. `None`: no number.
    #[must_use]
    pub fn read(&self, text: &str) -> Option<E164> {
        let text = text.trim();
        if text.starts_with('+') {
            return parse(text);
        }
        let international = self.international_prefix();
        if let Some(rest) = text
            .strip_prefix(international)
            .filter(|_| !international.is_empty())
            && let Some(number) = parse(&format!("+{rest}"))
        {
            return Some(number);
        }
        let Some(country_code) = &self.country_code else {
            return parse(text);
        };
        let national = match self.national_prefix() {
            // Eleven digits that begin with the country code are how North America dials itself.
            "" => match text.strip_prefix(country_code.as_str()) {
                Some(rest) if country_code == "1" && digits(rest) == 10 => rest,
                _ => text,
            },
            prefix => match text.strip_prefix(prefix) {
                Some(rest) => rest,
                // Neither prefix: a carrier's bare international form, or nothing.
                None => return parse(text),
            },
        };
        if country_code == "1" && digits(national) != 10 {
            return parse(text);
        }
        parse(&format!("+{country_code}{national}"))
    }

    /// `number` as somebody inside the country dials it.
    fn write(&self, number: &E164) -> String {
        let digits = number.as_str().trim_start_matches('+');
        let national = self
            .country_code
            .as_deref()
            .and_then(|code| digits.strip_prefix(code));
        match national {
            Some(national) => format!("{}{national}", self.national_prefix()),
            None => format!("{}{digits}", self.international_prefix()),
        }
    }
}

fn parse(text: &str) -> Option<E164> {
    trunkline_sip::identity::e164(text)?.parse().ok()
}

fn digits(text: &str) -> usize {
    text.bytes().filter(u8::is_ascii_digit).count()
}

/// How numbers stand in one direction of a trunk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NumberFormat {
    /// The form of the digits.
    pub style: NumberStyle,
    /// Taken off the front: of what arrives before it is read, of what leaves after it is formed.
    pub strip: String,
    /// Then put in front.
    pub add: String,
}

impl NumberFormat {
    /// A number that arrived. `None`: it is none, and stays as it is.
    #[must_use]
    pub fn read(&self, plan: &DialPlan, text: &str) -> Option<E164> {
        let text = text.strip_prefix(self.strip.as_str()).unwrap_or(text);
        let text = format!("{}{text}", self.add);
        match self.style {
            NumberStyle::PlusE164 | NumberStyle::E164 => parse(&text),
            NumberStyle::National => plan.read(&text),
        }
    }

    /// A number that leaves.
    #[must_use]
    pub fn write(&self, plan: &DialPlan, number: &E164) -> String {
        let text = match self.style {
            NumberStyle::PlusE164 => number.as_str().to_owned(),
            NumberStyle::E164 => number.as_str().trim_start_matches('+').to_owned(),
            NumberStyle::National => plan.write(number),
        };
        let text = text.strip_prefix(self.strip.as_str()).unwrap_or(&text);
        format!("{}{text}", self.add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(country_code: &str) -> DialPlan {
        DialPlan {
            country_code: Some(country_code.to_owned()),
            ..DialPlan::default()
        }
    }

    #[test]
    fn numbers_are_read_as_the_country_dials_them() {
        let (none, uk, us) = (DialPlan::default(), plan("44"), plan("1"));
        for (plan, text, number) in [
            (&none, "+442071838750", Some("+442071838750")),
            (&none, "00442071838750", Some("+442071838750")),
            (&none, "442071838750", Some("+442071838750")),
            (&none, "02071838750", None),
            (&uk, "02071838750", Some("+442071838750")),
            (&uk, "00493012345678", Some("+493012345678")),
            (&uk, "442071838750", Some("+442071838750")),
            (&uk, "(020) 7183-8750", None),
            (&us, "4155550100", Some("+14155550100")),
            (&us, "14155550100", Some("+14155550100")),
            (&us, "011442071838750", Some("+442071838750")),
            (&us, "+4420718", Some("+4420718")),
            (&us, "911", None),
            (&uk, "0", None),
            (&uk, "ada", None),
        ] {
            let read = plan.read(text);
            assert_eq!(read.as_ref().map(E164::as_str), number, "{text}");
        }
    }

    #[test]
    fn numbers_leave_in_the_trunks_form_and_come_back_from_it() {
        let number: E164 = "+442071838750".parse().expect("valid");
        let format = |style, strip: &str, add: &str| NumberFormat {
            style,
            strip: strip.to_owned(),
            add: add.to_owned(),
        };
        for (plan, format, text) in [
            (
                plan("44"),
                format(NumberStyle::PlusE164, "", ""),
                "+442071838750",
            ),
            (
                plan("44"),
                format(NumberStyle::E164, "", ""),
                "442071838750",
            ),
            (
                plan("44"),
                format(NumberStyle::National, "", ""),
                "02071838750",
            ),
            (
                plan("1"),
                format(NumberStyle::National, "", ""),
                "011442071838750",
            ),
            // A tech prefix.
            (
                plan("1"),
                format(NumberStyle::E164, "", "1234"),
                "1234442071838750",
            ),
            (
                plan("44"),
                format(NumberStyle::National, "0", "9"),
                "92071838750",
            ),
        ] {
            assert_eq!(format.write(&plan, &number), text);
            // The other direction takes off what this one puts on.
            let back = NumberFormat {
                style: format.style,
                strip: format.add.clone(),
                add: format.strip.clone(),
            };
            assert_eq!(back.read(&plan, text), Some(number.clone()), "{text}");
        }
    }
}
