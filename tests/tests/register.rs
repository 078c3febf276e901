//! Phones that register, with every digest they may know, and calls that follow them.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, in helpers too"
)]

use trunkline_testkit::daemons::Daemons;
use trunkline_testkit::phone::{DigestAlgorithm, DigestChoice, EndCause, Phone, PhoneConfig};
use trunkline_testkit::sdp::AudioDescription;
use trunkline_testkit::site::{Member, Site};
use trunkline_tests::call::LIMIT;

fn daemons() -> Daemons {
    Daemons::start(Site::with_members(vec![
        Member::numbered(0),
        Member::numbered(1),
    ]))
    .unwrap()
}

fn phone(daemons: &Daemons, user: &str, password: &str) -> Phone {
    Phone::start(PhoneConfig::udp(user, daemons.sip()).with_password(password)).unwrap()
}

/// Status that a call to member 0 ends with when nobody picks up.
fn call_status(daemons: &Daemons) -> EndCause {
    let carrier = daemons.carrier().unwrap();
    let media = AudioDescription::pcmu("127.0.0.2:4000".parse().unwrap());
    let call = carrier
        .call(&daemons.member(0).unwrap().did, media)
        .unwrap();
    call.wait_ended(LIMIT).unwrap()
}

#[test]
fn phone_registers_with_each_algorithm_offered() {
    let daemons = daemons();
    let member = daemons.member(0).unwrap();
    for choice in [
        DigestChoice::Strongest,
        DigestChoice::Only(DigestAlgorithm::Sha256),
        DigestChoice::Only(DigestAlgorithm::Md5),
    ] {
        let mut config =
            PhoneConfig::udp(&member.user, daemons.sip()).with_password(&member.password);
        config.digest = choice;
        let phone = Phone::start(config).unwrap();
        assert_eq!(phone.register(60, LIMIT).unwrap(), 200, "{choice:?}");
    }
}

#[test]
fn operator_orders_the_hashes_and_a_phone_uses_the_strongest() {
    let site = Site::with_members(vec![Member::numbered(0)]);
    let daemons = Daemons::start_with(site, |node| {
        node.sip_more = "digest = [\"SHA-512-256\"]\n".to_owned();
        node.more = "[registrar]\nexpires_min_secs = 120\nexpires_max_secs = 600\n".to_owned();
    })
    .unwrap();
    let member = daemons.member(0).unwrap();
    let mut config = PhoneConfig::udp(&member.user, daemons.sip()).with_password(&member.password);
    config.digest = DigestChoice::Only(DigestAlgorithm::Sha512_256);
    let phone = Phone::start(config).unwrap();
    assert_eq!(phone.register(60, LIMIT).unwrap(), 423);
    assert_eq!(phone.register(3_600, LIMIT).unwrap(), 200);
}

#[test]
fn wrong_password_and_unknown_user_get_the_same_answer() {
    let daemons = daemons();
    let member = daemons.member(0).unwrap();
    let wrong = phone(&daemons, &member.user, "guess").register(60, LIMIT);
    let unknown = phone(&daemons, "nobody", "guess").register(60, LIMIT);
    assert_eq!((wrong.unwrap(), unknown.unwrap()), (403, 403));
    assert_eq!(call_status(&daemons), EndCause::Rejected(480));
}

#[test]
fn member_cannot_register_for_another() {
    let daemons = daemons();
    let (one, other) = (daemons.member(0).unwrap(), daemons.member(1).unwrap());
    let mut config = PhoneConfig::udp(&other.user, daemons.sip()).with_password(&one.password);
    config.credentials = Some(trunkline_testkit::phone::Credentials::new(
        one.user.clone(),
        one.password.clone(),
    ));
    let thief = Phone::start(config).unwrap();
    let status = thief.register(60, LIMIT).unwrap();
    assert!(matches!(status, 401 | 403), "{status}");
}

#[test]
fn phone_that_unregisters_is_not_rung_any_more() {
    let daemons = daemons();
    let phone = daemons.member_phone(0).unwrap();
    assert_eq!(phone.register(0, LIMIT).unwrap(), 200);
    assert_eq!(call_status(&daemons), EndCause::Rejected(480));
    assert_eq!(phone.waiting_call_count(), 0);
}

#[test]
fn registration_for_a_few_seconds_is_not_taken() {
    let daemons = daemons();
    let member = daemons.member(0).unwrap();
    let phone = phone(&daemons, &member.user, &member.password);
    // RFC 3261 §10.2.8: too brief; nothing is bound.
    assert_eq!(phone.register(2, LIMIT).unwrap(), 423);
    assert_eq!(call_status(&daemons), EndCause::Rejected(480));
}

#[test]
fn options_is_answered_without_credentials() {
    let daemons = daemons();
    assert_eq!(daemons.carrier().unwrap().options(LIMIT).unwrap(), 200);
}
