//! `[[trunk]]` with its presets, `[[route]]`, and who may call out.

use super::*;
use crate::trunk::settings::{IdentityHeader, TrunkTransport};

/// A tenant with a number, and a trunk that says `lines`.
fn with_trunk(lines: &str) -> String {
    format!(
        "[[tenant]]\nname = \"acme\"\n[[trunk]]\nname = \"out\"\ntenant = \"acme\"\n{lines}\n\
         [[member]]\ntenant = \"acme\"\nextension = \"101\"\nname = \"Ada\"\nsip_user = \"ada\"\n\
         password_file = \"ada\"\n[[did]]\nnumber = \"+442071838750\"\ntenant = \"acme\"\n\
         member = \"101\"\n"
    )
}

fn trunk(lines: &str) -> Trunk {
    site(&with_trunk(lines)).trunks.remove(0)
}

#[test]
fn a_preset_says_what_is_known_of_its_carrier_and_every_key_wins_over_it() {
    let twilio = trunk("preset = \"twilio\"\ndestinations = [\"acme.pstn.twilio.com\"]");
    assert_eq!(twilio.sources.len(), 8);
    assert_eq!(twilio.media_from[0].to_string(), "168.86.128.0/18");
    assert_eq!((twilio.settings.cps, twilio.srtp), (1, SrtpPolicy::Off));

    let secure = trunk(
        "preset = \"twilio\"\ndestinations = [\"acme.pstn.twilio.com\"]\ntransport = \"tls\"\n\
         srtp = \"required\"\ncps = 30\nsources = [\"54.172.60.0/30\"]\n\
         media_from = [\"168.86.128.0/20\"]",
    );
    assert_eq!(secure.sources.len(), 1);
    assert_eq!(secure.media_from[0].to_string(), "168.86.128.0/20");
    assert_eq!(secure.settings.transport, TrunkTransport::Tls);
    assert_eq!(
        (secure.settings.cps, secure.srtp),
        (30, SrtpPolicy::Required)
    );

    let telnyx = trunk("preset = \"telnyx\"");
    assert_eq!(telnyx.settings.destinations[0].host, "sip.telnyx.com");
    assert_eq!(telnyx.settings.cps, 20);
}

#[test]
fn carriers_without_fixed_addresses_deliver_from_where_they_are_called() {
    let signalwire = trunk("preset = \"signalwire\"\ndestinations = [\"acme.sip.signalwire.com\"]");
    assert_eq!(
        signalwire.settings.source_names,
        ["acme.sip.signalwire.com"]
    );
    assert_eq!(signalwire.srtp, SrtpPolicy::Preferred);
    let bandwidth =
        trunk("preset = \"bandwidth\"\ndestinations = [\"192.0.2.8\", \"192.0.2.9;priority=2\"]");
    assert_eq!(bandwidth.sources.len(), 2);
    let named = trunk("sources = [\"192.0.2.0/28\", \"sip.example.com\"]");
    assert_eq!(named.settings.source_names, ["sip.example.com"]);
    assert_eq!(named.sources.len(), 1);
}

#[test]
fn secrets_of_a_trunk_come_from_files() {
    let told = trunk(
        "sources = [\"192.0.2.1\"]\ndestinations = [\"192.0.2.1\"]\nuser = \"acme\"\n\
         password_file = \"secret\"\nregister = true\nregister_secs = 120\n\
         headers = [\"P-Charge-Info: <sip:+442071838750@example.com>\"]\n\
         header_files = [\"X-Telnyx-Token: token\"]",
    );
    let login = told.settings.login.as_ref().expect("stated");
    assert_eq!(
        (login.user.as_str(), login.password.0.as_str()),
        ("acme", "secret")
    );
    assert_eq!(told.settings.register.map(|it| it.expires_secs), Some(120));
    let headers = told.settings.headers.iter();
    let headers: Vec<_> = headers
        .map(|it| (it.name.as_str(), it.value.0.as_str()))
        .collect();
    assert_eq!(
        headers,
        [
            ("P-Charge-Info", "<sip:+442071838750@example.com>"),
            ("X-Telnyx-Token", "token"),
        ]
    );
}

#[test]
fn numbers_of_a_trunk_are_written_as_it_says() {
    let told = trunk(
        "sources = [\"192.0.2.1\"]\nnumbers_out = \"e164\"\ntech_prefix = \"1234\"\nadd_out = \"00\"\n\
         numbers_in = \"national\"\ncountry_code = \"44\"\nidentity = \"none\"",
    );
    let number: E164 = "+442071838750".parse().expect("valid");
    let settings = &told.settings;
    let out = settings.numbers_out.write(&settings.plan, &number);
    assert_eq!(out, "123400442071838750");
    let read = settings.numbers_in.read(&settings.plan, "02071838750");
    assert_eq!(read, Some(number));
    assert_eq!(settings.identity, IdentityHeader::None);
}

#[test]
fn what_does_not_go_together_in_a_trunk_is_named() {
    for (lines, expected) in [
        ("", "[[trunk]] sources: needed"),
        ("preset = \"bandwidth\"", "[[trunk]] sources: needed"),
        ("register = true", "there is no destination to register at"),
        (
            "register = true\ndestinations = [\"192.0.2.1\"]",
            "registering needs user and password_file",
        ),
        (
            "sources = [\"192.0.2.1\"]\nuser = \"acme\"",
            "it needs a password_file",
        ),
        (
            "sources = [\"192.0.2.1\"]\npassword_file = \"x\"",
            "it needs a user",
        ),
        (
            "sources = [\"192.0.2.1\"]\nheaders = [\"From: me\"]",
            "this header cannot be stated here",
        ),
        (
            "sources = [\"192.0.2.1\"]\ndestinations = [\"sip:host\"]",
            "expected a list of 1 to 8 hosts",
        ),
        (
            "sources = [\"192.0.2.1\"]\npreset = \"acme\"",
            "\"twilio\", \"telnyx\"",
        ),
    ] {
        let text = problems(&with_trunk(lines));
        assert!(text.contains(expected), "{lines:?}: {text}");
    }
}

#[test]
fn a_trunk_that_registers_needs_no_sources() {
    let told = trunk(
        "destinations = [\"192.0.2.1\"]\nuser = \"acme\"\npassword_file = \"secret\"\n\
         register = true",
    );
    assert!(told.sources.is_empty());
}

#[test]
fn routes_name_trunks_of_their_tenant_that_take_calls() {
    let with = |trunk: &str, route: &str| {
        let trunk = format!("sources = [\"192.0.2.1\"]\n{trunk}");
        format!(
            "{}[[route]]\ntenant = \"acme\"\n{route}\n",
            with_trunk(&trunk)
        )
    };
    let out = "destinations = [\"192.0.2.1\"]";
    let told = site(&with(out, "prefix = \"+44\"\ntrunks = [\"out\"]"));
    assert_eq!(told.routes[0].prefix, "+44");
    assert!(try_site(&with(out, "prefix = \"999\"\ntrunks = [\"out\"]")).is_ok());
    for (trunk, route, expected) in [
        ("", "trunks = [\"out\"]", "out has no destinations"),
        (out, "trunks = [\"none\"]", "there is no [[trunk]] none"),
        (out, "trunks = []", "expected a list of 1 to 8"),
        (
            out,
            "prefix = \"44\"\ntrunks = [\"out\"]",
            "expected \"+\" and up to 15 digits",
        ),
        (
            out,
            "trunks = [\"out\"]\n[[route]]\ntenant = \"acme\"\ntrunks = [\"out\"]",
            "already taken",
        ),
    ] {
        let text = problems(&with(trunk, route));
        assert!(text.contains(expected), "{route:?}: {text}");
    }
}

#[test]
fn callers_show_numbers_of_their_tenant_only() {
    let base = with_trunk("sources = [\"192.0.2.1\"]");
    let member = |line: &str| base.replace("sip_user =", &format!("{line}\nsip_user ="));
    let own = site(&member("caller_ids = [\"+442071838750\"]"));
    assert_eq!(own.members[0].outbound.caller_ids.len(), 1);
    let text = problems(&member("caller_ids = [\"+442071838751\"]"));
    assert!(
        text.contains("+442071838751 is no [[did]] of the tenant"),
        "{text}"
    );
    let tenant = base.replace(
        "name = \"acme\"",
        "name = \"acme\"\ncaller_id = \"+15550001111\"",
    );
    assert!(problems(&tenant).contains("is no [[did]] of the tenant"));
}

#[test]
fn nobody_has_the_extension_that_is_dialled_for_help() {
    let text = with_trunk("sources = [\"192.0.2.1\"]").replace("\"101\"", "\"911\"");
    assert!(problems(&text).contains("this is what the tenant dials for help"));
}
