//! What a call was like, and calls that fall silent, through both daemons.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, in helpers too"
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use trunkline_testkit::daemons::Daemons;
use trunkline_testkit::phone::{EndCause, Phone};
use trunkline_testkit::rtp::{MediaHub, RtpEndpoint};
use trunkline_testkit::site::{Member, Site};
use trunkline_tests::call::{Answered, LIMIT, place};

const PTIME: Duration = Duration::from_millis(20);

fn daemons(sections: &str) -> Daemons {
    let site = Site::with_members(vec![Member::numbered(0)]);
    Daemons::start_with(site, |node| node.more = sections.to_owned()).unwrap()
}

/// The phones, which must live as long as their call, and the call.
fn call(daemons: &Daemons, hub: &MediaHub) -> ([Phone; 2], Answered) {
    let phones = [daemons.carrier().unwrap(), daemons.member_phone(0).unwrap()];
    let did = &daemons.member(0).unwrap().did;
    let call = place(hub, &phones[0], did, &phones[1]).unwrap();
    (phones, call)
}

fn number(record: &Value, pointer: &str) -> u64 {
    record
        .pointer(pointer)
        .and_then(Value::as_u64)
        .unwrap_or_else(|| panic!("{pointer} is missing in {record}"))
}

fn send(rtp: &RtpEndpoint, to: SocketAddr, ssrc: u32, n: u16) {
    let mut packet = vec![0x80, 0];
    packet.extend(65_500u16.wrapping_add(n).to_be_bytes());
    packet.extend((u32::from(n) * 160).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.resize(172, 0xd5);
    rtp.send_raw(to, &packet).unwrap();
}

/// The last packet of a compound, if it is a BYE for one source without a reason.
fn ends_with_goodbye(compound: &[u8]) -> bool {
    compound
        .len()
        .checked_sub(8)
        .is_some_and(|start| compound[start..].starts_with(&[0x81, 203, 0, 1]))
}

#[test]
fn call_record_shows_what_was_lost_on_the_way() {
    const PACKETS: u16 = 400;
    let daemons = daemons("");
    let hub = MediaHub::start().unwrap();
    let (_phones, call) = call(&daemons, &hub);
    let to_caller_leg = call.outgoing.remote_media().unwrap().rtp;
    let to_callee_leg = call.incoming.remote_media().unwrap().rtp;
    let start = Instant::now();
    for n in 0..PACKETS {
        if n % 20 != 10 {
            send(&call.caller_rtp, to_caller_leg, 7, n);
        }
        send(&call.callee_rtp, to_callee_leg, 8, n);
        let due = start + PTIME * u32::from(n + 1);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    call.hang_up().unwrap();

    let records = daemons.wait_cdrs(1, LIMIT).unwrap();
    let record = &records[0];
    assert_eq!(record["ended_by"], "caller");
    assert_eq!(record["end_cause"], Value::Null);
    let quality = |side, figure| number(record, &format!("/{side}_media/quality/{figure}"));
    assert_eq!(quality("caller", "lost_packets"), u64::from(PACKETS) / 20);
    assert_eq!(quality("callee", "lost_packets"), 0);
    for side in ["caller", "callee"] {
        assert_eq!(quality(side, "duplicate_packets"), 0);
        assert_eq!(quality(side, "reordered_packets"), 0);
        let (now, max) = (
            quality(side, "jitter_micros"),
            quality(side, "jitter_max_micros"),
        );
        assert!(now <= max && max < 1_000_000, "{record}");
    }
    // 5 % of single losses with G.711: 3.92; nothing lost: 4.41.
    assert_eq!(quality("caller", "mos_centi"), 392);
    assert_eq!(quality("callee", "mos_centi"), 441);

    // Neither phone sent RTCP, so both had reports of the edge, and BYE at the end.
    for rtp in [&call.caller_rtp, &call.callee_rtp] {
        let rtcp = rtp.received_rtcp();
        let (last, reports) = rtcp.split_last().expect("a BYE at least");
        assert!(ends_with_goodbye(last), "{last:02x?}");
        assert!(!reports.is_empty(), "8 seconds without a report");
        assert!(reports.iter().all(|report| report[1] == 200), "both send");
    }
    daemons
        .wait_metric("trunkline_rtp_mos_count", &[], 2.0)
        .unwrap();
    daemons
        .wait_metric("trunkline_rtp_jitter_seconds_count", &[], 2.0)
        .unwrap();
    assert!(
        daemons
            .metric("trunkline_rtcp_generated_total", &[])
            .unwrap()
            >= 4.0
    );
}

#[test]
fn live_calls_show_what_their_media_is_like_now() {
    let daemons = daemons("");
    let hub = MediaHub::start().unwrap();
    let (_phones, call) = call(&daemons, &hub);
    let to_caller_leg = call.outgoing.remote_media().unwrap().rtp;
    let to_callee_leg = call.incoming.remote_media().unwrap().rtp;
    for n in 0..100u16 {
        if n % 10 != 5 {
            send(&call.caller_rtp, to_caller_leg, 7, n);
        }
        send(&call.callee_rtp, to_callee_leg, 8, n);
        std::thread::sleep(PTIME / 2);
    }
    let ask = || -> Value {
        let calls = daemons.control_command(&["calls".as_ref(), "--json".as_ref()]);
        serde_json::from_str(&calls.unwrap()).unwrap()
    };
    let calls = ask();
    let media = |side: &str| calls["calls"][0][format!("{side}_media")].clone();
    let (caller, callee) = (media("caller"), media("callee"));
    assert_eq!(number(&caller, "/rx_packets"), 90, "{calls}");
    assert_eq!(number(&caller, "/quality/lost_packets"), 10);
    assert_eq!(number(&callee, "/rx_packets"), 100);
    assert_eq!(number(&callee, "/quality/lost_packets"), 0);
    assert!(number(&caller, "/quality/mos_centi") < number(&callee, "/quality/mos_centi"));
    for side in [&caller, &callee] {
        assert!(number(side, "/quality/jitter_micros") > 0, "{calls}");
    }
    let table = daemons.control_command(&["calls".as_ref()]).unwrap();
    assert!(table.contains("10.0/0.0"), "{table}");

    // The edge is asked about each call once a second at most, and answers at once.
    let asked = [("op", "query_session"), ("result", "done")];
    let name = "trunkline_ring_commands_total";
    daemons.wait_metric(name, &asked, 1.0).unwrap();
    std::thread::sleep(Duration::from_millis(1_100));
    ask();
    daemons.wait_metric(name, &asked, 2.0).unwrap();
    call.hang_up().unwrap();
    let calls = ask();
    assert_eq!(calls["total"], 0);
}

#[test]
fn call_in_which_nobody_speaks_ends_by_itself() {
    let daemons = daemons("[media]\nnever_started_secs = 1\n");
    let hub = MediaHub::start().unwrap();
    let (_phones, call) = call(&daemons, &hub);
    for side in [&call.outgoing, &call.incoming] {
        assert_eq!(side.wait_ended(LIMIT).unwrap(), EndCause::RemoteBye);
    }
    let records = daemons.wait_cdrs(1, LIMIT).unwrap();
    assert_eq!(records[0]["end_cause"], "media_never_started");
    assert_eq!(records[0]["ended_by"], "node");
    assert_eq!(records[0]["result"], "answered");
}

#[test]
fn call_whose_media_stops_on_one_side_ends_by_itself() {
    let daemons = daemons("[media]\nnever_started_secs = 0\nstopped_secs = 2\n");
    let hub = MediaHub::start().unwrap();
    let (_phones, call) = call(&daemons, &hub);
    let to_caller_leg = call.outgoing.remote_media().unwrap().rtp;
    let start = Instant::now();
    let heard = call.talk(25).unwrap();
    assert!(heard.is_perfect(), "{heard:?}");
    // The caller goes on with comfort noise now and then; the callee says nothing more.
    let mut n = 0;
    while call
        .incoming
        .wait_ended(Duration::from_millis(500))
        .is_err()
    {
        assert!(start.elapsed() < 2 * LIMIT, "the call goes on");
        send(&call.caller_rtp, to_caller_leg, 7, n);
        n += 1;
    }
    assert!(start.elapsed() >= Duration::from_secs(2));
    let records = daemons.wait_cdrs(1, LIMIT).unwrap();
    assert_eq!(records[0]["end_cause"], "media_stopped");
    daemons
        .wait_metric("trunkline_media_timeouts_total", &[], 1.0)
        .unwrap();
}
