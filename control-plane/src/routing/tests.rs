use super::*;
use crate::credential::Credential;
use crate::trunk::{MemberOutbound, TrunkSettings};

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn member(tenant: &str, extension: &str, availability: Availability) -> MemberRoute {
    let sip_user = format!("{tenant}-{extension}");
    MemberRoute {
        tenant: name(tenant),
        extension: extension.parse().expect("an extension"),
        name: "Somebody".to_owned(),
        credential: Credential::new(&sip_user, "trunkline", "secret"),
        sip_user: sip_user.parse().expect("a SIP user"),
        forward_number: None,
        forwards: Default::default(),
        availability,
        srtp: SrtpPolicy::Off,
        media: None,
        audio: PartyAudio::default(),
        outbound: MemberOutbound::default(),
        numbers: Vec::new(),
    }
}

fn snapshot() -> RoutingSnapshot {
    let did = |number: &str, tenant, extension: &str| {
        let number: E164 = number.parse().expect("E.164");
        (
            number,
            name(tenant),
            extension.parse().expect("an extension"),
        )
    };
    RoutingSnapshot::new(
        vec![],
        vec![
            member("acme", "100", Availability::Online),
            member("acme", "101", Availability::Busy),
            member("acme", "102", Availability::Offline),
            member("other", "100", Availability::Online),
        ],
        vec![
            did("+12025550100", "acme", "100"),
            did("+12025550101", "acme", "101"),
            did("+12025550102", "acme", "102"),
            did("+12025550200", "other", "100"),
        ],
    )
}

fn trunk(tenant: &str) -> Origin {
    Origin::Trunk(Arc::new(TrunkRoute {
        name: name("carrier"),
        tenant: name(tenant),
        sources: vec![],
        srtp: SrtpPolicy::Off,
        media_from: Vec::new(),
        media: None,
        audio: PartyAudio::default(),
        settings: TrunkSettings::default(),
    }))
}

fn phone(tenant: &str, extension: &str) -> Origin {
    Origin::Member(Arc::new(member(tenant, extension, Availability::Online)))
}

/// `tenant/extension` of who is rung, or the status.
fn answer(origin: &Origin, user: &str) -> Result<String, u16> {
    route(&snapshot(), origin, Some(user))
        .map(|route| {
            format!(
                "{}/{}",
                route.destination.tenant(),
                route.destination.name()
            )
        })
        .map_err(|refused| refused.status)
}

#[test]
fn each_caller_reaches_whom_the_table_says() {
    let acme = || trunk("acme");
    let cases = [
        (acme(), "+12025550100", Ok("acme/100")),
        (acme(), "12025550100", Ok("acme/100")),
        (acme(), "0012025550100", Ok("acme/100")),
        (acme(), "+1.202.555.0100", Ok("acme/100")),
        (acme(), "+12025550101", Err(486)),
        (acme(), "+12025550102", Err(480)),
        (acme(), "+12025550999", Err(404)),
        // A carrier delivers numbers, not extensions.
        (acme(), "100", Err(404)),
        (acme(), "sales", Err(404)),
        // Nothing crosses between tenants, neither numbers nor extensions.
        (acme(), "+12025550200", Err(404)),
        (trunk("other"), "+12025550200", Ok("other/100")),
        (phone("acme", "101"), "100", Ok("acme/100")),
        (phone("other", "100"), "100", Ok("other/100")),
        (phone("other", "100"), "101", Err(404)),
        (phone("acme", "101"), "+12025550100", Ok("acme/100")),
        (phone("acme", "100"), "101", Err(486)),
        (phone("acme", "100"), "+12025550200", Err(404)),
    ];
    for (origin, dialled, expected) in cases {
        let got = answer(&origin, dialled);
        assert_eq!(
            got.as_deref().map_err(|status| *status),
            expected,
            "{dialled} from {origin:?}"
        );
    }
}

#[test]
fn request_that_names_nobody_is_not_found() {
    let refused = route(&snapshot(), &trunk("acme"), None).expect_err("nobody was named");
    assert_eq!(
        (refused.status, refused.result),
        (404, CallResult::UnknownNumber)
    );
}

#[test]
fn refusal_still_knows_whom_the_call_was_for() {
    let refused = route(&snapshot(), &trunk("acme"), Some("+12025550102")).expect_err("offline");
    let route = refused.route.expect("the number has an owner");
    assert_eq!(route.destination.name(), "102");
    assert_eq!(refused.result, CallResult::Offline);
}
