//! What an operator types and reads: apply, status, calls, cdr, config errors, health.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, in helpers too"
)]

use std::fs;
use std::process::Command;

use serde_json::Value;
use trunkline_testkit::daemons::{Binaries, Daemons};
use trunkline_testkit::rtp::MediaHub;
use trunkline_testkit::sdp::AudioDescription;
use trunkline_testkit::site::{Member, Site};
use trunkline_tests::call::{LIMIT, place};

fn daemons() -> Daemons {
    Daemons::start(Site::with_members(vec![Member::numbered(0)])).unwrap()
}

fn number(record: &Value, path: &str) -> u64 {
    record
        .pointer(path)
        .and_then(Value::as_u64)
        .unwrap_or_else(|| panic!("{path} is missing in {record}"))
}

#[test]
fn call_record_has_the_figures_of_the_call() {
    let daemons = daemons();
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let member = daemons.member(0).unwrap().clone();
    let call = place(&hub, &carrier, &member.did, &phone).unwrap();
    let heard = call.talk(100).unwrap();
    assert!(heard.is_perfect(), "{heard:?}");
    call.hang_up().unwrap();

    let records = daemons.wait_cdrs(1, LIMIT).unwrap();
    assert_eq!(records.len(), 1);
    let record = &records[0];
    assert_eq!(record["direction"], "inbound");
    assert_eq!(record["trunk"], "carrier");
    assert_eq!(record["tenant"], "test");
    assert_eq!(record["did"], Value::from(member.did));
    assert_eq!(record["callee"], Value::from(member.extension));
    assert_eq!(record["result"], "answered");
    assert_eq!(record["ended_by"], "caller");
    assert_eq!(record["caller_codec"], "PCMU");
    let duration = number(record, "/duration_ms");
    assert!((2_000..4_000).contains(&duration), "{record}");
    assert!(number(record, "/setup_ms") < 2_000, "{record}");
    for side in ["caller_media", "callee_media"] {
        assert_eq!(number(record, &format!("/{side}/rx_packets")), 100);
        assert_eq!(number(record, &format!("/{side}/tx_packets")), 100);
    }
}

#[test]
fn calls_that_were_not_answered_are_recorded_with_their_result() {
    let daemons = daemons();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let media = || AudioDescription::pcmu("127.0.0.2:4000".parse().unwrap());
    let did = &daemons.member(0).unwrap().did;

    let busy = carrier.call(did, media()).unwrap();
    phone.wait_call(LIMIT).unwrap().reject(486).unwrap();
    busy.wait_ended(LIMIT).unwrap();

    let cancelled = carrier.call(did, media()).unwrap();
    let ringing = phone.wait_call(LIMIT).unwrap();
    ringing.ring().unwrap();
    cancelled.wait_provisional(180, LIMIT).unwrap();
    cancelled.cancel();
    cancelled.wait_ended(LIMIT).unwrap();

    let records = daemons.wait_cdrs(2, LIMIT).unwrap();
    let mut results: Vec<&str> = records
        .iter()
        .filter_map(|record| record["result"].as_str())
        .collect();
    results.sort_unstable();
    assert_eq!(results, ["busy", "canceled"]);
}

#[test]
fn apply_twice_changes_nothing_and_a_dry_run_only_shows() {
    let daemons = daemons();
    let again = daemons.path().join("site/site.toml");
    let first = daemons.apply(&again).unwrap();

    let mut larger = daemons.site().clone();
    larger.members.push(Member::numbered(7));
    let larger_file = larger.write(&daemons.path().join("larger")).unwrap();
    let dry = daemons
        .control_command(&[
            "apply".as_ref(),
            "--dry-run".as_ref(),
            larger_file.as_os_str(),
        ])
        .unwrap();
    assert!(dry.contains("1007"), "{dry}");
    // Nothing changed: applying the old file again says what it said before.
    assert_eq!(daemons.apply(&again).unwrap(), first);

    daemons.apply(&larger_file).unwrap();
    let member = &larger.members[1];
    let phone = daemons
        .registered(
            trunkline_testkit::phone::PhoneConfig::udp(&member.user, daemons.sip())
                .with_password(&member.password),
        )
        .unwrap();
    drop(phone);
}

#[test]
fn status_and_calls_show_the_call_that_stands() {
    let daemons = daemons();
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let did = daemons.member(0).unwrap().did.clone();
    let call = place(&hub, &carrier, &did, &phone).unwrap();
    let calls = daemons.control_command(&["calls".as_ref()]).unwrap();
    assert!(calls.contains(&did), "{calls}");
    let status = daemons.control_command(&["status".as_ref()]).unwrap();
    assert!(!status.trim().is_empty());
    let edge = daemons.edge_output(&["status".as_ref()]).unwrap();
    assert!(edge.status.success(), "{edge:?}");
    call.hang_up().unwrap();
    let calls = daemons.control_command(&["calls".as_ref()]).unwrap();
    assert!(!calls.contains(&did), "{calls}");
}

#[test]
fn caller_and_callee_see_nothing_of_each_others_signalling() {
    let daemons = daemons();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let media = AudioDescription::pcmu("127.0.0.2:4000".parse().unwrap());
    let outgoing = carrier
        .call(&daemons.member(0).unwrap().did, media)
        .unwrap();
    let incoming = phone.wait_call(LIMIT).unwrap();
    assert_ne!(incoming.id(), outgoing.id());
    for name in ["Via", "Contact", "From", "Call-ID"] {
        let value = incoming.header(name).unwrap();
        assert!(!value.contains("127.0.0.2"), "{name}: {value}");
    }
    let offered = incoming.remote_media().unwrap();
    assert_ne!(offered.rtp.ip(), carrier.local_addr().ip());
    incoming.reject(486).unwrap();
    outgoing.wait_ended(LIMIT).unwrap();
}

#[test]
fn metrics_follow_the_calls() {
    let daemons = daemons();
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let call = place(&hub, &carrier, &daemons.member(0).unwrap().did, &phone).unwrap();
    let expect = |name: &str, labels: &[(&str, &str)], value: f64| {
        daemons.wait_metric(name, labels, value).unwrap();
    };
    expect("trunkline_calls_active", &[], 1.0);
    assert!(call.talk(25).unwrap().is_perfect());
    call.hang_up().unwrap();
    expect("trunkline_calls_active", &[], 0.0);
    expect("trunkline_calls_total", &[("result", "answered")], 1.0);
    for direction in ["in", "out"] {
        expect(
            "trunkline_rtp_packets_total",
            &[("direction", direction)],
            50.0,
        );
    }
}

#[test]
fn configuration_errors_name_file_line_and_key_and_start_nothing() {
    let binaries = Binaries::find().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("broken.toml");
    fs::write(
        &file,
        "[node]\nname = \"x\"\n\n[edge]\nworkerz = 2\nports = \"9-1\"\n",
    )
    .unwrap();
    for binary in [&binaries.edge, &binaries.control] {
        for arguments in [&["--check-config"][..], &[]] {
            let output = Command::new(binary)
                .arg("--config")
                .arg(&file)
                .args(arguments)
                .output()
                .unwrap();
            assert!(!output.status.success(), "{}", binary.display());
            let said = String::from_utf8_lossy(&output.stderr);
            for part in ["broken.toml", "5", "workerz", "6", "ports"] {
                assert!(said.contains(part), "{}: {said}", binary.display());
            }
        }
    }
}

#[test]
fn good_configuration_passes_the_check() {
    let daemons = daemons();
    for output in [
        daemons
            .control_output(&["--check-config".as_ref()])
            .unwrap(),
        daemons.edge_output(&["--check-config".as_ref()]).unwrap(),
    ] {
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn broken_site_file_is_refused_whole_with_its_line() {
    let daemons = daemons();
    let file = daemons.path().join("broken-site.toml");
    fs::write(
        &file,
        "[[tenant]]\nname = \"test\"\n\n[[did]]\nnumber = \"12\"\ntenant = \"nobody\"\nmember = \"1\"\n",
    )
    .unwrap();
    let output = daemons
        .control_output(&["apply".as_ref(), file.as_os_str()])
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("broken-site.toml"), "{said}");
    assert!(said.contains("number"), "{said}");
    // The site that was applied before still stands.
    daemons.member_phone(0).unwrap();
}
