use trunkline_edge_api::config::{ConfigError, parse_document};

use super::*;

/// A small site: one tenant, one trunk, two members, one DID.
pub(crate) const SMALL_SITE: &str = r#"
[[tenant]]
name = "acme"

[[trunk]]
name = "carrier-1"
tenant = "acme"
sources = ["192.0.2.0/28", "2001:db8::/64"]

[[member]]
tenant = "acme"
extension = "101"
name = "Ada Lovelace"
sip_user = "ada"
password_file = "ada"

[[member]]
tenant = "acme"
extension = "102"
name = "Grace Hopper"
sip_user = "grace"
password_file = "grace"
forward_number = "+442071838751"
availability = "offline"

[[did]]
number = "+442071838750"
tenant = "acme"
member = "101"
"#;

/// The site that `text` states; each password is the name of its file.
pub(crate) fn site(text: &str) -> Site {
    try_site(text).expect("the site file is sound")
}

fn try_site(text: &str) -> Result<Site, ConfigError> {
    parse_document::<SiteDocument>(text, "site.toml")?
        .resolve("trunkline", |file| Ok(file.path.display().to_string()))
}

fn problems(text: &str) -> String {
    try_site(text)
        .expect_err("the site file is wrong")
        .to_string()
}

#[test]
fn site_file_is_read_as_written() {
    let site = site(SMALL_SITE);
    assert_eq!(site.tenants.len(), 1);
    assert_eq!(site.trunks[0].sources.len(), 2);
    assert_eq!(site.members[0].availability, Availability::Online);
    assert_eq!(site.members[1].availability, Availability::Offline);
    assert_eq!(site.members[1].forward_number, "+442071838751".parse().ok());
    assert_eq!(site.dids[0].member.as_str(), "101");
}

#[test]
fn media_comes_from_the_sdp_address_alone_unless_networks_are_listed() {
    let with =
        |list: &str| SMALL_SITE.replace("sources =", &format!("media_from = {list}\nsources ="));
    assert_eq!(site(SMALL_SITE).trunks[0].media_from, []);
    let listed = site(&with("[\"198.51.100.0/24\", \"2001:db8:9::/48\"]"));
    assert_eq!(listed.trunks[0].media_from.len(), 2);
    let nine = format!("[{}]", ["\"198.51.100.7\""; 9].join(", "));
    for wrong in [
        "[]",
        "[\"0.0.0.0/0\"]",
        "[\"::/0\"]",
        "[\"198.51.100.7/24\"]",
        &nine,
    ] {
        let text = problems(&with(wrong));
        assert!(
            text.contains("a list of 1 to 8 networks"),
            "{wrong}: {text}"
        );
    }
}

#[test]
fn srtp_is_off_unless_the_file_says_otherwise() {
    let text = SMALL_SITE
        .replace("sources =", "srtp = \"required\"\nsources =")
        .replace(
            "sip_user = \"grace\"",
            "sip_user = \"grace\"\nsrtp = \"preferred\"",
        );
    let site = site(&text);
    assert_eq!(site.trunks[0].srtp, SrtpPolicy::Required);
    assert_eq!(site.members[0].srtp, SrtpPolicy::Off);
    assert_eq!(site.members[1].srtp, SrtpPolicy::Preferred);
    let wrong = SMALL_SITE.replace("sources =", "srtp = \"yes\"\nsources =");
    let expected = "srtp = \"yes\": expected \"off\", \"preferred\" or \"required\"";
    assert!(problems(&wrong).contains(expected), "{}", problems(&wrong));
}

/// [`SMALL_SITE`] with a media address for its tenant, its trunk and its first member.
pub(crate) fn with_media(tenant: &str, trunk: &str, ada: &str) -> String {
    SMALL_SITE
        .replace(
            "name = \"acme\"",
            &format!("name = \"acme\"\nmedia = \"{tenant}\""),
        )
        .replace("sources =", &format!("media = \"{trunk}\"\nsources ="))
        .replace(
            "sip_user = \"ada\"",
            &format!("sip_user = \"ada\"\nmedia = \"{ada}\""),
        )
}

#[test]
fn members_without_a_media_address_have_their_tenants_and_trunks_have_not() {
    let named = |media: &Option<InterfaceName>| media.as_ref().map(ToString::to_string);
    let told = site(&with_media("inside", "outside", "2001:db8::1"));
    assert_eq!(named(&told.trunks[0].media).as_deref(), Some("outside"));
    assert_eq!(
        named(&told.members[0].media).as_deref(),
        Some("2001:db8::1")
    );
    assert_eq!(named(&told.members[1].media).as_deref(), Some("inside"));
    let tenant_alone = SMALL_SITE.replace("name = \"acme\"", "name = \"acme\"\nmedia = \"in\"");
    assert_eq!(site(&tenant_alone).trunks[0].media, None);
    assert_eq!(site(SMALL_SITE).members[1].media, None);
}

#[test]
fn every_unknown_media_address_is_named_with_its_line() {
    let text = with_media("inside", "outside", "::1");
    let document: SiteDocument = parse_document(&text, "site.toml").expect("sound in itself");
    let address: std::net::IpAddr = "::1".parse().expect("an address");
    let problems = document
        .check_interfaces("site.toml", &[address.into()])
        .expect_err("two are unknown")
        .to_string();
    assert_eq!(
        problems,
        "site.toml:4: [[tenant]] media = \"inside\": no entry of [edge] media_addresses is named \
         so; there are ::1\n\
         site.toml:9: [[trunk]] media = \"outside\": no entry of [edge] media_addresses is named \
         so; there are ::1"
    );
}

#[test]
fn problems_name_line_key_and_what_is_allowed() {
    let table = [
        (
            "[[trunck]]\n",
            "site.toml:1: unknown section \"trunck\"; allowed sections: tenant, trunk, member, did, conference, group, route",
        ),
        (
            "[[tenant]]\nname = \"acme\"\nnane = \"x\"\n",
            "site.toml:3: unknown key \"nane\" in [[tenant]]; allowed: name, media, hold_music, \
             outbound_prefixes, outbound_calls_per_day, outbound_minutes_per_day, \
             outbound_duration_max_secs, country_code, national_prefix, international_prefix, \
             emergency, caller_id, channels_max, early_media, ringback",
        ),
        (
            "[[tenant]]\nname = \"a b\"\n",
            "site.toml:2: [[tenant]] name = \"a b\": expected 1 to 63 letters, digits, '.', '-' or '_'",
        ),
        (
            "[tenant]\nname = \"acme\"\n",
            "site.toml:1: tenant is a list of sections, each written [[tenant]]",
        ),
        (
            "\n[[tenant]]\n",
            "site.toml:2: [[tenant]] needs the key name: 1 to 63 letters, digits, '.', '-' or '_'",
        ),
        (
            "[[tenant]]\nname = \"a\"\n[[tenant]]\nname = \"a\"\n",
            "site.toml:4: [[tenant]] name = \"a\": already taken by the section on line 1",
        ),
        (
            "[[tenant]]\nname = \"a\"\n[[did]]\nnumber = \"442071838750\"\ntenant = \"a\"\nmember = \"101\"\n",
            "site.toml:4: [[did]] number = \"442071838750\": expected a number in E.164 form: '+' and 7 \
             to 15 digits, e.g. \"+442071838750\"\n\
             site.toml:6: [[did]] member = \"101\": tenant \"a\" has no [[member]] with this extension",
        ),
        (
            "[[did]]\nnumber = \"+442071838750\"\ntenant = \"a\"\nmember = \"101\"\n",
            "site.toml:3: [[did]] tenant = \"a\": there is no [[tenant]] of this name in the file",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(problems(text), expected, "for {text:?}");
    }
}

#[test]
fn sources_that_do_not_name_a_network_are_refused() {
    for sources in [
        "[]",
        "[\"192.0.2.7/24\"]",
        "[\"::ffff:192.0.2.0/120\"]",
        "[\"192.0.2.256\"]",
        "[\"sip:carrier.example.org\"]",
        "\"192.0.2.0/24\"",
    ] {
        let text = format!(
            "[[tenant]]\nname = \"a\"\n[[trunk]]\nname = \"t\"\ntenant = \"a\"\nsources = {sources}\n"
        );
        assert!(
            problems(&text).starts_with("site.toml:6: [[trunk]] sources = "),
            "{sources}"
        );
    }
}

#[test]
fn two_trunks_cannot_claim_one_network() {
    let text = "[[tenant]]\nname = \"a\"\n\
                [[trunk]]\nname = \"t\"\ntenant = \"a\"\nsources = [\"192.0.2.1\"]\n\
                [[trunk]]\nname = \"u\"\ntenant = \"a\"\nsources = [\"192.0.2.1/32\"]\n";
    assert!(
        problems(text).contains("site.toml:10: "),
        "{}",
        problems(text)
    );
}

#[test]
fn password_files_are_read_relative_to_the_site_file() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("site.toml");
    std::fs::write(&path, SMALL_SITE).expect("written");
    std::fs::write(dir.path().join("ada"), "secret\n").expect("written");
    let missing = Site::load(&path, "r", &[])
        .expect_err("grace has no file")
        .to_string();
    assert!(
        missing.contains("site.toml:22: [[member]] password_file = \"grace\": "),
        "{missing}"
    );
    assert!(missing.contains("cannot be read"), "{missing}");

    std::fs::write(dir.path().join("grace"), "two\nlines\n").expect("written");
    let lines = Site::load(&path, "r", &[])
        .expect_err("two lines")
        .to_string();
    assert!(lines.contains("on one line"), "{lines}");

    std::fs::write(dir.path().join("grace"), "secret").expect("written");
    let site = Site::load(&path, "r", &[]).expect("sound");
    assert_eq!(
        site.members[0].credential,
        Credential::new("ada", "r", "secret")
    );
    assert_ne!(site.members[0].credential, site.members[1].credential);
}

#[test]
fn debug_output_shows_neither_numbers_nor_credentials() {
    let shown = format!("{:?}", site(SMALL_SITE));
    assert!(!shown.contains("2071838"), "{shown}");
    let hash = site(SMALL_SITE).members[0].credential.hashes_hex()[0].clone();
    assert!(!shown.contains(&hash), "{shown}");
}

mod trunks;
