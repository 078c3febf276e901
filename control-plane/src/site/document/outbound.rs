//! Who may call out through what: keys of `[[tenant]]` and `[[member]]`, and `[[route]]`.

use trunkline_edge_api::config::{KeyDefault, KeySpec, Section, SectionSpec, Value};

use super::trunk::dial_plan;
use super::{Names, TENANT_REFERENCE, parsed, take, tenant_reference};
use crate::site::{E164, Name, Route};
use crate::trunk::policy::{DailyLimits, MemberOutbound, PrefixRule, TenantOutbound, is_prefix};

/// Prefixes, emergency numbers and caller ids in one list.
const LIST_MAX: usize = 64;

/// Trunks of one route.
const ROUTE_TRUNKS_MAX: usize = 8;

pub(super) const TENANT_PREFIXES: KeySpec = KeySpec {
    name: "outbound_prefixes",
    form: "a list of up to 64 prefixes, each \"+\" and up to 15 digits, with \"!\" in front where \
           it is forbidden, e.g. [\"+44\", \"!+449\"]",
    default: KeyDefault::Literal("[]"),
    effect: "Numbers that its members may call. The longest that fits decides; nobody calls out \
             where the list is empty.",
};

pub(super) const MEMBER_PREFIXES: KeySpec = KeySpec {
    default: KeyDefault::Absent {
        meaning: "what its tenant may",
        example: "[\"+44\"]",
    },
    effect: "Numbers that the member may call, of those that its tenant may. An empty list: none.",
    ..TENANT_PREFIXES
};

pub(super) const CALLS_PER_DAY: KeySpec = KeySpec {
    name: "outbound_calls_per_day",
    form: "a number from 0 to 1000000",
    default: KeyDefault::Absent {
        meaning: "no limit",
        example: "200",
    },
    effect: "Calls that may go out in a day (UTC).",
};

pub(super) const MINUTES_PER_DAY: KeySpec = KeySpec {
    name: "outbound_minutes_per_day",
    form: "a number from 0 to 1000000",
    default: KeyDefault::Absent {
        meaning: "no limit",
        example: "600",
    },
    effect: "Minutes that may be talked in outbound calls in a day (UTC). A call that would go \
             beyond is ended.",
};

pub(super) const DURATION_MAX: KeySpec = KeySpec {
    name: "outbound_duration_max_secs",
    form: "a number of seconds from 60 to 86400",
    default: KeyDefault::Literal("14400"),
    effect: "An outbound call that lasts longer is ended.",
};

pub(super) const EMERGENCY: KeySpec = KeySpec {
    name: "emergency",
    form: "a list of up to 64 numbers of 2 to 8 digits",
    default: KeyDefault::Literal("[\"112\", \"911\", \"999\"]"),
    effect: "What its members dial for help. Such calls pass every limit and go out as dialled.",
};

pub(super) const CALLER_ID: KeySpec = KeySpec {
    name: "caller_id",
    form: E164::FORM,
    default: KeyDefault::Absent {
        meaning: "members without a number of their own cannot call out",
        example: "\"+442071838700\"",
    },
    effect: "Shown for members that have no number of their own. One of the tenant's.",
};

pub(super) const CALLER_IDS: KeySpec = KeySpec {
    name: "caller_ids",
    form: "a list of up to 64 numbers in E.164 form",
    default: KeyDefault::Literal("[]"),
    effect: "Numbers of its tenant that the member may show beside its own, when its phone asks.",
};

pub(super) const CHANNELS_MAX: KeySpec = KeySpec {
    name: "channels_max",
    form: "a number from 1 to 100000",
    default: KeyDefault::Absent {
        meaning: "no limit",
        example: "10",
    },
    effect: "Calls through trunks at one time, both ways.",
};

pub(super) static ROUTE: SectionSpec = SectionSpec {
    name: "route",
    effect: "Which trunks a tenant's calls go out through. The longest prefix decides.",
    keys: &[
        TENANT_REFERENCE,
        KeySpec {
            name: "prefix",
            form: "\"+\" and up to 15 digits, or a number of the tenant's emergency list",
            default: KeyDefault::Literal("\"+\""),
            effect: "How the numbers begin. \"+\" is every number. Emergency calls without a route \
                     of their own go through all trunks of the tenant's routes.",
        },
        KeySpec {
            name: "trunks",
            form: "a list of 1 to 8 names of trunks of the tenant",
            default: KeyDefault::Required {
                example: "[\"carrier-1\", \"carrier-2\"]",
            },
            effect: "Tried in this order.",
        },
    ],
};

pub(super) fn read_tenant_outbound(section: &Section<'_>) -> Option<TenantOutbound> {
    let prefixes = section.value("outbound_prefixes", prefixes);
    let daily = daily(section);
    let duration_max_secs = section.value("outbound_duration_max_secs", |value| {
        value.as_number(60..=86_400)
    });
    let plan = dial_plan(section);
    let emergency = section.value("emergency", emergency);
    let caller_id = section.optional("caller_id", parsed::<E164>);
    let channels_max = channels_max(section);
    Some(TenantOutbound {
        prefixes: prefixes?,
        daily: daily?,
        duration_max_secs: duration_max_secs?,
        plan: plan?,
        emergency: emergency?,
        caller_id: caller_id?,
        channels_max: channels_max?,
    })
}

pub(super) fn read_member_outbound(section: &Section<'_>) -> Option<MemberOutbound> {
    let prefixes = section.optional("outbound_prefixes", prefixes);
    let daily = daily(section);
    let caller_ids = section.value("caller_ids", numbers);
    Some(MemberOutbound {
        prefixes: prefixes?,
        daily: daily?,
        caller_ids: caller_ids?,
    })
}

pub(super) fn channels_max(section: &Section<'_>) -> Option<Option<u32>> {
    section.optional("channels_max", |value| value.as_number(1..=100_000))
}

pub(super) fn read_route(section: &Section<'_>, names: &mut Names) -> Option<Route> {
    let tenant = tenant_reference(section, names);
    let prefix = section.value("prefix", |value| value.as_str().map(str::to_owned));
    let trunks = section.value("trunks", trunk_names);
    let (tenant, prefix, trunks) = (tenant?, prefix?, trunks?);
    let is_emergency = names
        .emergency
        .get(&tenant)
        .is_some_and(|numbers| numbers.contains(&prefix));
    if !is_prefix(&prefix) && !is_emergency {
        let problem =
            "expected \"+\" and up to 15 digits, or one of the tenant's emergency numbers";
        section.reject("prefix", problem);
    }
    take(
        section,
        "prefix",
        &mut names.routes,
        (tenant.clone(), prefix.clone()),
    );
    for trunk in &trunks {
        match names.outbound_trunks.get(trunk) {
            None => section.reject("trunks", &format!("there is no [[trunk]] {trunk}")),
            Some((owner, _)) if *owner != tenant => {
                section.reject("trunks", &format!("{trunk} belongs to tenant \"{owner}\""));
            }
            Some((_, false)) => {
                section.reject("trunks", &format!("{trunk} has no destinations"));
            }
            Some(_) => {}
        }
    }
    Some(Route {
        tenant,
        prefix,
        trunks,
    })
}

/// Numbers may be shown only by whom they belong to: checked once all DIDs are known.
pub(super) fn check_caller_ids(section: &Section<'_>, key: &'static str, names: &Names) {
    let Some(Some(tenant)) = section.optional("tenant", parsed::<Name>) else {
        return;
    };
    check_numbers(section, key, &tenant, names);
}

/// The same for a tenant, which is named otherwise.
pub(super) fn check_tenants_caller_id(section: &Section<'_>, names: &Names) {
    if let Some(Some(tenant)) = section.optional("name", parsed::<Name>) {
        check_numbers(section, "caller_id", &tenant, names);
    }
}

fn check_numbers(section: &Section<'_>, key: &'static str, tenant: &Name, names: &Names) {
    let stated = section.optional(key, |value| {
        numbers(value).or_else(|| Some(vec![parsed::<E164>(value)?]))
    });
    for number in stated.flatten().into_iter().flatten() {
        if names.number_owners.get(&number) != Some(tenant) {
            let problem = format!("{} is no [[did]] of the tenant", number.as_str());
            section.reject(key, &problem);
        }
    }
}

fn daily(section: &Section<'_>) -> Option<DailyLimits> {
    let number = |value: Value<'_>| value.as_number(0..=1_000_000);
    let calls = section.optional("outbound_calls_per_day", number);
    let minutes = section.optional("outbound_minutes_per_day", number);
    Some(DailyLimits {
        calls: calls?,
        minutes: minutes?,
    })
}

fn list<T>(value: Value<'_>, item: impl Fn(Value<'_>) -> Option<T>) -> Option<Vec<T>> {
    let items = value.as_list()?.map(item).collect::<Option<Vec<_>>>()?;
    (items.len() <= LIST_MAX).then_some(items)
}

fn prefixes(value: Value<'_>) -> Option<Vec<PrefixRule>> {
    list(value, parsed::<PrefixRule>)
}

fn numbers(value: Value<'_>) -> Option<Vec<E164>> {
    list(value, parsed::<E164>)
}

fn emergency(value: Value<'_>) -> Option<Vec<String>> {
    list(value, |item| {
        let text = item.as_str()?;
        let fits = (2..=8).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        fits.then(|| text.to_owned())
    })
}

fn trunk_names(value: Value<'_>) -> Option<Vec<Name>> {
    let names = list(value, parsed::<Name>)?;
    (1..=ROUTE_TRUNKS_MAX)
        .contains(&names.len())
        .then_some(names)
}
