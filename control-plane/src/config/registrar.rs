//! `[registrar]`.

use trunkline_edge_api::config::{KeyDefault, KeySpec, Section, SectionSpec};
use trunkline_sip::registrar::RegistrarConfig;

/// `[registrar]`.
pub(super) static REGISTRAR: SectionSpec = SectionSpec {
    name: "registrar",
    effect: "How members' phones register.",
    keys: &[
        KeySpec {
            name: "contacts_max",
            form: "a number from 1 to 100",
            default: KeyDefault::Literal("10"),
            effect: "Phones of one member at one time. One more is answered with 403.",
        },
        KeySpec {
            name: "expires_min_secs",
            form: "seconds, from 10 to 86400",
            default: KeyDefault::Literal("60"),
            effect: "A phone that asks for less gets 423.",
        },
        KeySpec {
            name: "expires_max_secs",
            form: "seconds, from 10 to 86400, not below expires_min_secs",
            default: KeyDefault::Literal("3600"),
            effect: "A phone that asks for more, or names no interval, gets this.",
        },
        KeySpec {
            name: "service_route",
            form: "true or false",
            default: KeyDefault::Literal("false"),
            effect: "Tells phones to send their requests through the address that they registered \
                     at (Service-Route, RFC 3608), whatever their outbound proxy is.",
        },
    ],
};

/// `bindings_max` is `[sip] registrations_max`.
pub(super) fn read(section: &Section<'_>, bindings_max: Option<u32>) -> Option<RegistrarConfig> {
    let contacts_max = section.value("contacts_max", |v| v.as_number(1..=100));
    let expires_min_secs = section.value("expires_min_secs", |v| v.as_number(10..=86_400));
    let expires_max_secs = section.value("expires_max_secs", |v| {
        v.as_number(expires_min_secs.unwrap_or(10)..=86_400)
    });
    let gives_service_route = section.value("service_route", |v| v.as_bool());
    Some(RegistrarConfig {
        contacts_max: contacts_max?,
        bindings_max: bindings_max? as usize,
        expires_min_secs: expires_min_secs?,
        expires_default_secs: expires_max_secs?,
        expires_max_secs: expires_max_secs?,
        gives_service_route: gives_service_route?,
    })
}
