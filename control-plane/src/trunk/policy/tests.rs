use super::*;

fn number(text: &str) -> E164 {
    text.parse().expect(text)
}

fn rules(texts: &[&str]) -> Vec<PrefixRule> {
    texts.iter().map(|text| text.parse().expect(text)).collect()
}

fn tenant(prefixes: &[&str]) -> TenantOutbound {
    TenantOutbound {
        prefixes: rules(prefixes),
        ..TenantOutbound::default()
    }
}

fn ask(
    tenant: &TenantOutbound,
    member: &MemberOutbound,
    used: [Usage; 2],
    dialled: &str,
) -> Result<Permit, Refusal> {
    decide(Request {
        tenant,
        member,
        used,
        own: &[number("+442071838750")],
        asked: None,
        dialled: &Dialled::read(tenant, dialled).expect("a number"),
    })
}

const NONE: [Usage; 2] = [Usage { calls: 0, secs: 0 }; 2];

#[test]
fn nobody_calls_out_unless_the_site_says_so() {
    let refused = ask(
        &TenantOutbound::default(),
        &MemberOutbound::default(),
        NONE,
        "+442079460000",
    );
    assert_eq!(refused, Err(Refusal::Closed));
}

#[test]
fn the_longest_prefix_decides_and_the_member_only_narrows() {
    let tenant = tenant(&["+44", "!+449", "+4490", "+1"]);
    let narrow = MemberOutbound {
        prefixes: Some(rules(&["+44", "+49"])),
        ..MemberOutbound::default()
    };
    let anybody = MemberOutbound::default();
    for (member, dialled, allowed) in [
        (&anybody, "+442079460000", true),
        (&anybody, "+449123456789", false),
        (&anybody, "+449012345678", true),
        (&anybody, "+14155550100", true),
        (&anybody, "+493012345678", false),
        (&narrow, "+442079460000", true),
        (&narrow, "+14155550100", false),
        (&narrow, "+493012345678", false),
    ] {
        let result = ask(&tenant, member, NONE, dialled);
        match allowed {
            true => assert!(result.is_ok(), "{dialled}"),
            false => assert_eq!(result, Err(Refusal::Prefix), "{dialled}"),
        }
    }
}

#[test]
fn of_two_rules_of_one_length_the_one_that_forbids_wins() {
    for prefixes in [["+44", "!+44"], ["!+44", "+44"]] {
        let refused = ask(
            &tenant(&prefixes),
            &MemberOutbound::default(),
            NONE,
            "+442079460000",
        );
        assert_eq!(refused, Err(Refusal::Prefix));
    }
}

#[test]
fn daily_limits_of_tenant_and_member_end_the_calling() {
    let limited = TenantOutbound {
        daily: DailyLimits {
            calls: Some(10),
            minutes: Some(60),
        },
        ..tenant(&["+44"])
    };
    let member = MemberOutbound {
        daily: DailyLimits {
            calls: Some(3),
            minutes: None,
        },
        ..MemberOutbound::default()
    };
    let used = |calls: [u32; 2], secs| calls.map(|calls| Usage { calls, secs });
    for (used, expected) in [
        (used([9, 2], 0), Ok(3_600)),
        (used([10, 2], 0), Err(Refusal::DailyCalls)),
        (used([9, 3], 0), Err(Refusal::DailyCalls)),
        (used([9, 2], 3_599), Ok(1)),
        (used([9, 2], 3_600), Err(Refusal::DailyMinutes)),
    ] {
        let result = ask(&limited, &member, used, "+442079460000");
        let secs = result.map(|permit| permit.duration_max_secs);
        assert_eq!(secs, expected.map(Some));
    }
}

#[test]
fn emergency_calls_pass_policy_and_limits_and_have_no_end() {
    let closed = TenantOutbound {
        daily: DailyLimits {
            calls: Some(0),
            minutes: Some(0),
        },
        ..TenantOutbound::default()
    };
    for dialled in EMERGENCY_DEFAULT {
        let permit = ask(&closed, &MemberOutbound::default(), NONE, dialled).expect("help");
        assert_eq!(permit.duration_max_secs, None);
        assert_eq!(permit.caller_id, Some(number("+442071838750")));
    }
    // Also for somebody without any number.
    let dialled = Dialled::Emergency("112".to_owned());
    let permit = decide(Request {
        tenant: &closed,
        member: &MemberOutbound::default(),
        used: NONE,
        own: &[],
        asked: None,
        dialled: &dialled,
    });
    assert!(permit.is_ok());
}

#[test]
fn a_member_shows_a_number_of_its_own_or_the_tenants() {
    let tenant_with = TenantOutbound {
        caller_id: Some(number("+442071830000")),
        ..tenant(&["+44"])
    };
    let member = MemberOutbound {
        caller_ids: vec![number("+442071838799")],
        ..MemberOutbound::default()
    };
    let own = [number("+442071838750"), number("+442071838751")];
    let dialled = Dialled::Number(number("+442079460000"));
    let show = |tenant: &TenantOutbound, member: &MemberOutbound, own: &[E164], asked| {
        decide(Request {
            tenant,
            member,
            used: NONE,
            own,
            asked,
            dialled: &dialled,
        })
        .map(|permit| permit.caller_id.expect("always for a number"))
    };
    let plain = MemberOutbound::default();
    let strange = number("+15550001111");
    for (member, own, asked, shown) in [
        (&plain, &own[..], None, &own[0]),
        (&plain, &own[..], Some(&own[1]), &own[1]),
        (&plain, &own[..], Some(&strange), &own[0]),
        (
            &member,
            &own[..],
            Some(&member.caller_ids[0]),
            &member.caller_ids[0],
        ),
        (&plain, &own[..], Some(&member.caller_ids[0]), &own[0]),
        (&member, &own[..0], None, &member.caller_ids[0]),
        (
            &plain,
            &own[..0],
            None,
            tenant_with.caller_id.as_ref().expect("set"),
        ),
    ] {
        assert_eq!(show(&tenant_with, member, own, asked).as_ref(), Ok(shown));
    }
    let without = tenant(&["+44"]);
    assert_eq!(show(&without, &plain, &[], None), Err(Refusal::NoCallerId));
}

#[test]
fn numbers_are_dialled_as_the_tenants_country_does() {
    let uk = TenantOutbound {
        plan: DialPlan {
            country_code: Some("44".to_owned()),
            ..DialPlan::default()
        },
        ..tenant(&["+44"])
    };
    let read = |text| Dialled::read(&uk, text);
    assert_eq!(
        read("02079460000"),
        Some(Dialled::Number(number("+442079460000")))
    );
    assert_eq!(read("999"), Some(Dialled::Emergency("999".to_owned())));
    assert_eq!(read("101"), None);
    assert_eq!(read("ada"), None);
}
