//! Who may call out, and as whom: closed by default.
//!
//! Toll fraud is the costliest thing that happens to telephone systems: a guessed password, and a
//! weekend later there is a bill for premium numbers abroad. So a tenant without
//! `outbound_prefixes` calls nobody; what is allowed has daily limits; and a caller shows a number
//! of its own or none. Emergency calls pass all of this.

use serde::{Deserialize, Serialize};

use super::number::DialPlan;
use crate::site::E164;

/// Longest an outbound call may last unless the site file says otherwise, seconds.
pub const DURATION_MAX_DEFAULT_SECS: u32 = 14_400;

/// What is dialled for help, where the site file does not say: Europe and GSM, North America, and
/// the British heritage.
pub const EMERGENCY_DEFAULT: [&str; 3] = ["112", "911", "999"];

/// A beginning of numbers that may be called, or with `!` one that may not. The longest that fits
/// decides, so `["+44", "!+449"]` allows Britain but for premium numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PrefixRule {
    prefix: String,
    allows: bool,
}

impl PrefixRule {
    /// What is allowed, fit to follow the word "expected".
    pub const FORM: &'static str = "\"+\" and up to 15 digits, with \"!\" in front where it is forbidden, e.g. \"+44\", \"!+449\"";
}

impl std::fmt::Display for PrefixRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.allows { "" } else { "!" };
        write!(f, "{sign}{}", self.prefix)
    }
}

/// Text that is no rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {}", PrefixRule::FORM)]
pub struct PrefixRuleError;

impl std::str::FromStr for PrefixRule {
    type Err = PrefixRuleError;

    fn from_str(text: &str) -> Result<Self, PrefixRuleError> {
        let (prefix, allows) = match text.strip_prefix('!') {
            Some(prefix) => (prefix, false),
            None => (text, true),
        };
        if !is_prefix(prefix) {
            return Err(PrefixRuleError);
        }
        Ok(Self {
            prefix: prefix.to_owned(),
            allows,
        })
    }
}

impl TryFrom<String> for PrefixRule {
    type Error = PrefixRuleError;

    fn try_from(text: String) -> Result<Self, PrefixRuleError> {
        text.parse()
    }
}

impl From<PrefixRule> for String {
    fn from(rule: PrefixRule) -> Self {
        rule.to_string()
    }
}

/// Whether `text` is the beginning of E.164 numbers: `+` and up to 15 digits.
#[must_use]
pub fn is_prefix(text: &str) -> bool {
    text.strip_prefix('+').is_some_and(|digits| {
        digits.len() <= 15 && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

fn allows(rules: &[PrefixRule], number: &E164) -> bool {
    rules
        .iter()
        .filter(|rule| number.as_str().starts_with(&rule.prefix))
        // Of two rules of one length the one that forbids wins.
        .max_by_key(|rule| (rule.prefix.len(), !rule.allows))
        .is_some_and(|rule| rule.allows)
}

/// What may be used up in a day (UTC). `None`: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DailyLimits {
    /// Calls begun.
    pub calls: Option<u32>,
    /// Minutes talked.
    pub minutes: Option<u32>,
}

/// What a tenant's members may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TenantOutbound {
    /// Empty: nobody calls out.
    pub prefixes: Vec<PrefixRule>,
    /// For all members together.
    pub daily: DailyLimits,
    /// A longer call is ended, seconds.
    pub duration_max_secs: u32,
    /// How its members dial.
    pub plan: DialPlan,
    /// What they dial for help.
    pub emergency: Vec<String>,
    /// Shown for members that have no number of their own.
    pub caller_id: Option<E164>,
    /// Calls through trunks at one time, both ways.
    pub channels_max: Option<u32>,
}

impl Default for TenantOutbound {
    fn default() -> Self {
        Self {
            prefixes: Vec::new(),
            daily: DailyLimits::default(),
            duration_max_secs: DURATION_MAX_DEFAULT_SECS,
            plan: DialPlan::default(),
            emergency: EMERGENCY_DEFAULT.map(str::to_owned).to_vec(),
            caller_id: None,
            channels_max: None,
        }
    }
}

/// What one member may do; within what its tenant may.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MemberOutbound {
    /// `None`: the tenant's alone decide.
    pub prefixes: Option<Vec<PrefixRule>>,
    /// For this member.
    pub daily: DailyLimits,
    /// Numbers it may show beside its own; the first of its own, or of these, is the default.
    pub caller_ids: Vec<E164>,
}

/// What was used up today.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Calls begun.
    pub calls: u32,
    /// Talked, seconds; of live calls what they have had.
    pub secs: u64,
}

/// What somebody dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dialled {
    /// A call for help, to be sent as it was dialled.
    Emergency(String),
    /// A telephone number.
    Number(E164),
}

impl Dialled {
    /// Reads what a member dialled. `None`: no number that a trunk could take.
    #[must_use]
    pub fn read(tenant: &TenantOutbound, text: &str) -> Option<Self> {
        let text = text.trim();
        if tenant.emergency.iter().any(|number| number == text) {
            return Some(Self::Emergency(text.to_owned()));
        }
        tenant.plan.read(text).map(Self::Number)
    }

    /// As records keep it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Emergency(text) => text,
            Self::Number(number) => number.as_str(),
        }
    }

    /// Whether limits and policy are passed over.
    #[must_use]
    pub fn is_emergency(&self) -> bool {
        matches!(self, Self::Emergency(_))
    }
}

/// Why a call was not let out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The tenant calls nobody.
    Closed,
    /// The number begins with nothing that is allowed.
    Prefix,
    /// The tenant or the member has had its calls today.
    DailyCalls,
    /// The tenant or the member has had its minutes today.
    DailyMinutes,
    /// There is no number to show.
    NoCallerId,
    /// No route of the tenant fits.
    NoRoute,
    /// Every trunk is down, full or held off.
    NoTrunk,
    /// The tenant's channels are in use.
    Channels,
}

impl Refusal {
    /// Every value.
    pub const ALL: &'static [Refusal] = &[
        Self::Closed,
        Self::Prefix,
        Self::DailyCalls,
        Self::DailyMinutes,
        Self::NoCallerId,
        Self::NoRoute,
        Self::NoTrunk,
        Self::Channels,
    ];

    /// The status that the caller is owed. 403 will not change by asking again (RFC 3261
    /// §21.4.4); 503 may.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Closed
            | Self::Prefix
            | Self::DailyCalls
            | Self::DailyMinutes
            | Self::NoCallerId => 403,
            Self::NoRoute => 404,
            Self::NoTrunk | Self::Channels => 503,
        }
    }

    /// The reason phrase, which phones display.
    #[must_use]
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::Closed => "Outbound Calls Not Allowed",
            Self::Prefix => "Destination Not Allowed",
            Self::DailyCalls => "Daily Call Limit Reached",
            Self::DailyMinutes => "Daily Minutes Used Up",
            Self::NoCallerId => "No Caller ID",
            Self::NoRoute => "No Route",
            Self::NoTrunk => "No Trunk Available",
            Self::Channels => "All Channels Busy",
        }
    }

    /// The label of metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Prefix => "prefix",
            Self::DailyCalls => "daily_calls",
            Self::DailyMinutes => "daily_minutes",
            Self::NoCallerId => "no_caller_id",
            Self::NoRoute => "no_route",
            Self::NoTrunk => "no_trunk",
            Self::Channels => "channels",
        }
    }
}

/// Who wants to call whom.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What the tenant may.
    pub tenant: &'a TenantOutbound,
    /// What the member may.
    pub member: &'a MemberOutbound,
    /// What both used today, the tenant first.
    pub used: [Usage; 2],
    /// The member's numbers, in the order of the site file.
    pub own: &'a [E164],
    /// What the phone asks to show: `P-Preferred-Identity` or `From` (RFC 3325 §9.2).
    pub asked: Option<&'a E164>,
    /// What was dialled.
    pub dialled: &'a Dialled,
}

/// What a call that is let out looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    /// The number that is shown.
    pub caller_id: Option<E164>,
    /// The call ends after this, seconds; `None` for an emergency.
    pub duration_max_secs: Option<u32>,
}

/// Decides whether a call may go out.
///
/// # Errors
/// The first rule that it breaks.
pub fn decide(request: Request<'_>) -> Result<Permit, Refusal> {
    let caller_id = caller_id(&request);
    let number = match request.dialled {
        // Help is not refused for the want of a number to call back.
        Dialled::Emergency(_) => {
            return Ok(Permit {
                caller_id,
                duration_max_secs: None,
            });
        }
        Dialled::Number(number) => number,
    };
    let (tenant, member) = (request.tenant, request.member);
    if tenant.prefixes.is_empty() {
        return Err(Refusal::Closed);
    }
    let members = member.prefixes.as_ref();
    if !allows(&tenant.prefixes, number) || members.is_some_and(|rules| !allows(rules, number)) {
        return Err(Refusal::Prefix);
    }
    let mut secs_left = u64::from(tenant.duration_max_secs);
    for (limits, used) in [tenant.daily, member.daily].iter().zip(request.used) {
        if limits.calls.is_some_and(|calls| used.calls >= calls) {
            return Err(Refusal::DailyCalls);
        }
        if let Some(minutes) = limits.minutes {
            secs_left = secs_left.min((u64::from(minutes) * 60).saturating_sub(used.secs));
        }
    }
    if secs_left == 0 {
        return Err(Refusal::DailyMinutes);
    }
    Ok(Permit {
        caller_id: Some(caller_id.ok_or(Refusal::NoCallerId)?),
        duration_max_secs: Some(u32::try_from(secs_left).unwrap_or(u32::MAX)),
    })
}

/// What the phone asks for where that is its to show, else the member's first number, else the
/// tenant's.
fn caller_id(request: &Request<'_>) -> Option<E164> {
    let mut allowed = request.own.iter().chain(&request.member.caller_ids);
    let asked = request
        .asked
        .filter(|asked| allowed.clone().any(|number| number == *asked));
    asked
        .or_else(|| allowed.next())
        .or(request.tenant.caller_id.as_ref())
        .cloned()
}

#[cfg(test)]
mod tests;
