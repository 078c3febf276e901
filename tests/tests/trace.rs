//! What was on the wire of a call, as an operator asks for it afterwards.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, in helpers too"
)]

use std::ffi::OsStr;
use std::net::UdpSocket;
use std::process::Command;

use serde_json::Value;
use trunkline_testkit::daemons::Daemons;
use trunkline_testkit::rtp::MediaHub;
use trunkline_testkit::site::{Member, Site};
use trunkline_tests::call::{LIMIT, place};

fn daemons(trace: &str) -> Daemons {
    let site = Site::with_members(vec![Member::numbered(0)]);
    Daemons::start_with(site, |node| node.more = format!("[trace]\n{trace}")).unwrap()
}

/// Lets a call pass and gives its id.
fn finished_call(daemons: &Daemons) -> String {
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let did = daemons.member(0).unwrap().did.clone();
    let call = place(&hub, &carrier, &did, &phone).unwrap();
    call.hang_up().unwrap();
    let records = daemons.wait_cdrs(1, LIMIT).unwrap();
    records[0]["call_id"].as_str().unwrap().to_owned()
}

fn trace(daemons: &Daemons, id: &str, form: &[&str]) -> String {
    let words: Vec<&OsStr> = ["trace", id]
        .into_iter()
        .chain(form.iter().copied())
        .map(OsStr::new)
        .collect();
    daemons.control_command(&words).unwrap()
}

#[test]
fn finished_call_is_shown_as_a_ladder_of_both_dialogs() {
    let daemons = daemons("");
    let id = finished_call(&daemons);
    let ladder = trace(&daemons, &id, &["--full"]);
    for line in [
        "INVITE + SDP ──▶",
        "◀── INVITE + SDP",
        "200 (INVITE) + SDP ──▶",
        "◀── BYE",
    ] {
        assert!(ladder.contains(line), "{line}:\n{ladder}");
    }
    let messages: Value = serde_json::from_str(&trace(&daemons, &id, &["--json"])).unwrap();
    let messages = messages.as_array().unwrap();
    let mut dialogs: Vec<_> = messages
        .iter()
        .map(|m| m["sip_call_id"].to_string())
        .collect();
    dialogs.sort();
    dialogs.dedup();
    assert_eq!(dialogs.len(), 2, "{ladder}");
    // INVITE, 180, 200, ACK, BYE and 200 in each; 100 comes where an answer takes its time.
    assert!(messages.len() >= 12, "{ladder}");
    // One of the dialogs alone, by what the peer calls it.
    let dialog: String = serde_json::from_str(&dialogs[0]).unwrap();
    let alone: Value = serde_json::from_str(&trace(&daemons, &dialog, &["--json"])).unwrap();
    assert!(alone.as_array().unwrap().len() >= 6, "{alone}");

    let file = daemons.path().join("call.pcap");
    trace(&daemons, &id, &["--pcap", file.to_str().unwrap()]);
    let read = Command::new("tcpdump")
        .arg("-nnr")
        .arg(&file)
        .output()
        .unwrap();
    let packets = String::from_utf8_lossy(&read.stdout).lines().count();
    assert_eq!(packets, messages.len(), "{read:?}");

    let unknown = [OsStr::new("trace"), OsStr::new("no-such-call")];
    let output = daemons.control_output(&unknown).unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && complaint.contains("nothing is remembered"),
        "{complaint}"
    );
}

#[test]
fn capture_server_gets_every_message_also_when_nothing_is_remembered() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(LIMIT)).unwrap();
    let address = server.local_addr().unwrap();
    let daemons = daemons(&format!(
        "memory_mib = 0\nhep = \"{address}\"\nhep_id = 2001\n"
    ));
    let id = finished_call(&daemons);
    let (mut buffer, mut seen) = ([0; 65_535], Vec::new());
    while !seen
        .iter()
        .any(|text: &String| text.contains("\r\nCSeq: 2 BYE") || text.starts_with("BYE"))
    {
        let (len, _) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..4], b"HEP3");
        let payload = buffer[..len]
            .windows(2)
            .position(|at| at == [0, 15])
            .unwrap()
            + 4;
        seen.push(String::from_utf8_lossy(&buffer[payload..len]).into_owned());
    }
    assert!(
        seen.iter().any(|text| text.starts_with("REGISTER")),
        "{seen:?}"
    );
    assert!(
        seen.iter().all(|text| !text.contains("Digest username")),
        "{seen:?}"
    );
    let words = [OsStr::new("trace"), OsStr::new(&id)];
    assert!(!daemons.control_output(&words).unwrap().status.success());
    daemons
        .wait_metric("trunkline_trace_exported_total", &[("result", "lost")], 0.0)
        .unwrap();
}
