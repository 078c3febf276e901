//! `kill -9` and planned stops of either daemon.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, in helpers too"
)]

use std::time::Duration;

use trunkline_testkit::conversation;
use trunkline_testkit::daemons::Daemons;
use trunkline_testkit::rtp::MediaHub;
use trunkline_testkit::site::{Member, Site};
use trunkline_tests::call::{place, prove_service};

fn daemons() -> Daemons {
    Daemons::start(Site::with_members(vec![Member::numbered(0)])).unwrap()
}

#[test]
fn kill_of_control_loses_no_packet_of_a_call_and_a_new_control_serves_new_calls() {
    const FRAMES: usize = 200;
    let mut daemons = daemons();
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let call = place(&hub, &carrier, &daemons.member(0).unwrap().did, &phone).unwrap();

    conversation::begin_both(&call.caller(), &call.callee(), FRAMES).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    daemons.kill_control().unwrap();
    let heard = conversation::finish(&call.caller(), &call.callee(), FRAMES).unwrap();
    assert!(heard.is_perfect(), "{heard:?}");
    daemons.check_alive().unwrap();

    daemons.start_control().unwrap();
    daemons.wait_ready().unwrap();
    prove_service(&mut daemons).unwrap();
}

#[test]
fn kill_of_the_edge_is_repaired_by_starting_it_again() {
    let mut daemons = daemons();
    prove_service(&mut daemons).unwrap();
    daemons.kill_edge().unwrap();
    daemons.start_edge().unwrap();
    daemons.wait_ready().unwrap();
    prove_service(&mut daemons).unwrap();
}

#[test]
fn control_without_an_edge_is_alive_and_not_ready() {
    let mut daemons = daemons();
    daemons.kill_edge().unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    loop {
        let (status, _) = trunkline_testkit::http::get(daemons.http(), "/readyz").unwrap();
        if status == 503 {
            break;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "/readyz still says {status} without an edge"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let (status, _) = trunkline_testkit::http::get(daemons.http(), "/healthz").unwrap();
    assert_eq!(status, 200);
    daemons.check_alive().unwrap();
}

#[test]
fn both_killed_at_once_come_back_with_the_site() {
    let mut daemons = daemons();
    daemons.kill_control().unwrap();
    daemons.kill_edge().unwrap();
    daemons.start_control().unwrap();
    daemons.start_edge().unwrap();
    daemons.wait_ready().unwrap();
    prove_service(&mut daemons).unwrap();
}

#[test]
fn both_stop_cleanly_when_asked_to() {
    let mut daemons = daemons();
    prove_service(&mut daemons).unwrap();
    daemons.stop().unwrap();
    for name in ["edge.sock", "control.sock"] {
        let path = daemons.node().run_dir.join(name);
        assert!(!path.exists(), "{} is left behind", path.display());
    }
}
