//! SIPp scenarios under `tests/sipp/`, one test each.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, in helpers too"
)]

use std::collections::BTreeSet;
use std::fs;

use trunkline_tests::sipp_case;

macro_rules! cases {
    ($($test:ident => $case:literal,)*) => {
        $(
            #[test]
            fn $test() {
                if let Err(error) = sipp_case::run($case) {
                    panic!("{error:?}");
                }
            }
        )*

        const CASES: &[&str] = &[$($case),*];
    };
}

cases! {
    options_from_a_trunk_is_answered => "options/answered",
    phone_registers_with_digest => "register/digest",
    wrong_password_does_not_register => "register/wrong-password",
    unknown_user_does_not_register => "register/unknown-user",
    call_is_answered_and_hung_up_by_the_caller => "call/caller-hangs-up",
    call_is_answered_and_hung_up_by_the_phone => "call/callee-hangs-up",
    carrier_over_tcp_is_served => "call/caller-over-tcp",
    fifty_calls_at_ten_per_second_all_succeed => "call/ten-per-second",
    early_media_reaches_the_caller => "call/early-media",
    cancel_stops_the_ringing => "call/cancel",
    phones_486_reaches_the_caller => "call/phone-is-busy",
    phones_603_reaches_the_caller => "call/phone-declines",
    phone_that_rings_too_long_is_cancelled_and_the_caller_gets_480 => "call/no-answer",
    offline_member_is_480 => "refusal/member-offline",
    busy_member_is_486 => "refusal/member-busy",
    member_without_a_phone_is_480 => "refusal/phone-not-registered",
    unknown_number_is_404 => "refusal/unknown-number",
    caller_from_nowhere_is_challenged => "refusal/unknown-source",
    offer_without_a_common_codec_is_488 => "refusal/no-common-codec",
    garbage_for_sdp_is_400 => "refusal/garbage-for-sdp",
    hold_and_resume_reach_the_phone => "reinvite/caller-holds",
    refused_reinvite_leaves_the_call_standing => "reinvite/refused",
    bye_follows_the_route_set_to_a_private_contact => "dialog/private-contact-behind-two-record-routes",
    compact_headers_are_understood => "dialog/compact-headers",
    hundred_calls_with_speech_lose_nothing => "load/hundred-calls-with-speech",
}

#[test]
fn every_directory_with_a_case_is_run() {
    let mut found = BTreeSet::new();
    for feature in fs::read_dir(sipp_case::directory()).unwrap() {
        let feature = feature.unwrap();
        for case in fs::read_dir(feature.path()).into_iter().flatten() {
            let case = case.unwrap();
            if case.path().join("case.toml").is_file() {
                let feature = feature.file_name().into_string().unwrap();
                found.insert(format!(
                    "{feature}/{}",
                    case.file_name().into_string().unwrap()
                ));
            }
        }
    }
    let run: BTreeSet<String> = CASES.iter().map(|case| (*case).to_owned()).collect();
    assert_eq!(found, run);
}
