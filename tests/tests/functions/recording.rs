//! Recordings of calls, and what becomes of them.

use std::fs;
use std::time::{Duration, Instant};

use trunkline_testkit::site::Member;
use trunkline_tests::call::LIMIT;

use crate::audio::{Wav, tone_frames};
use crate::support::{
    control, daemons, json, line, recordings_dir, remote, sha256, wait_happened, wait_recordings,
    wait_until,
};

/// Amplitude of the tones.
const LOUD: f64 = 6_000.0;

#[test]
fn number_that_is_always_recorded_leaves_both_sides_and_an_outcome_in_the_call_record() {
    let member = Member::numbered(0).with_did_more("record = \"always\"\n");
    let daemons = daemons(member, "");
    let line = line(&daemons);
    let (call, id) = (&line.call, &line.id);
    let answered = Instant::now();
    // Silence of the network before and between: it takes its time in the file.
    std::thread::sleep(Duration::from_millis(700));
    let (caller, callee) = (
        tone_frames(&[1_000.0], LOUD, 25),
        tone_frames(&[600.0], LOUD, 25),
    );
    let to = remote(&call.outgoing);
    call.caller_rtp.send_payloads(to, 0, (&caller, 160), 25);
    assert!(call.caller_rtp.wait_spoken(LIMIT));
    std::thread::sleep(Duration::from_millis(500));
    let to = remote(&call.incoming);
    call.callee_rtp.send_payloads(to, 0, (&callee, 160), 25);
    assert!(call.callee_rtp.wait_spoken(LIMIT));
    let spent = answered.elapsed().as_millis() as u64;
    call.hang_up().unwrap();

    let recordings = wait_recordings(&daemons, 1);
    let name = format!("{id}.wav");
    let file = fs::read(recordings_dir(&daemons).join(&name)).unwrap();
    let wav = Wav::parse(&file);
    assert_eq!((wav.rate, wav.channels.len()), (8_000, 2));
    for (channel, own, other) in [(0, 1_000.0, 600.0), (1, 600.0, 1_000.0)] {
        let (own, other) = (wav.loudest(channel, own), wav.loudest(channel, other));
        assert!(own > 0.8 * LOUD, "side {channel}: {own}");
        assert!(other < 0.05 * LOUD, "side {channel}: {other} of the other");
    }
    let lasted = wav.millis();
    assert!(
        lasted.abs_diff(spent) < 400,
        "{lasted} ms of a call of {spent} ms"
    );

    let cdrs = daemons.wait_cdrs(1, LIMIT).unwrap();
    assert_eq!(cdrs[0]["recordings"], serde_json::json!(recordings));
    let recording = &recordings[0];
    assert_eq!(recording["call_id"], id.as_str());
    assert!(recording["path"].as_str().unwrap().ends_with(&name));
    assert_eq!(recording["cause"], "stopped");
    assert_eq!(recording["duration_ms"], lasted);
    assert_eq!(recording["bytes"], file.len());
    assert_eq!(recording["lost_packets"], 0);
    assert_eq!(recording["sha256"], sha256(&file));
    // The list of a call that is over still tells, and says so.
    let ended = wait_happened(&daemons, id, "recording_ended", 1);
    assert_eq!(ended[0]["sha256"], sha256(&file));
    let report = json(&daemons, &format!("call {id} events --json"));
    assert_eq!(report["is_over"], true, "{report}");
}

#[test]
fn pause_takes_no_time_in_the_file_and_nothing_of_it_is_heard() {
    let daemons = daemons(Member::numbered(0), "");
    let line = line(&daemons);
    let (call, id) = (&line.call, &line.id);
    let say = |hz: f64| {
        let tone = tone_frames(&[hz], LOUD, 40);
        let to = remote(&call.outgoing);
        call.caller_rtp.send_payloads(to, 0, (&tone, 160), 40);
        assert!(call.caller_rtp.wait_spoken(LIMIT));
        // What the edge has relayed it has recorded, or not; what waits in its socket it may still.
        let sent = call.caller_rtp.sent().len();
        wait_until("all is relayed", || {
            call.callee_rtp.received_count() >= sent
        });
    };
    let command = |words: &str| control(&daemons, &format!("call {id} record {words}"));
    command("start paused.wav --mixed");
    say(500.0);
    command("pause");
    say(1_000.0);
    command("resume");
    say(1_500.0);
    command("stop");
    wait_recordings(&daemons, 1);
    let wav = Wav::parse(&fs::read(recordings_dir(&daemons).join("paused.wav")).unwrap());
    assert_eq!(wav.channels.len(), 1, "mixed");
    let [before, meanwhile, after] = [500.0, 1_000.0, 1_500.0].map(|hz| wav.loudest(0, hz));
    assert!(
        before > 0.8 * LOUD && after > 0.8 * LOUD,
        "{before} {after}"
    );
    assert!(meanwhile < 0.05 * LOUD, "{meanwhile} of the pause");
    let lasted = wav.millis();
    assert!((1_500..2_300).contains(&lasted), "{lasted} ms of 2 × 800");
    call.hang_up().unwrap();
}

#[test]
fn packets_of_both_sides_are_recorded_as_they_came() {
    let daemons = daemons(Member::numbered(0), "");
    let line = line(&daemons);
    let (call, id) = (&line.call, &line.id);
    control(&daemons, &format!("call {id} record start a.pcap --pcap"));
    let talked = call.talk(50).unwrap();
    assert!(talked.is_perfect(), "{talked:?}");
    control(&daemons, &format!("call {id} record stop"));
    let recording = &wait_recordings(&daemons, 1)[0];
    let file = fs::read(recordings_dir(&daemons).join("a.pcap")).unwrap();
    assert_eq!(recording["sha256"], sha256(&file));
    let packets = pcap_packets(&file);
    for sent in [call.caller_rtp.sent(), call.callee_rtp.sent()] {
        assert_eq!(sent.len(), 50);
        for packet in &sent {
            let same = packets.iter();
            let same = same.filter(|recorded| recorded.ends_with(&packet.datagram));
            assert_eq!(same.count(), 1);
        }
    }
    assert_eq!(packets.len(), 100);
    call.hang_up().unwrap();
}

/// The packets of a pcap file, link headers included.
fn pcap_packets(file: &[u8]) -> Vec<&[u8]> {
    let magic = u32::from_le_bytes(file[..4].try_into().unwrap());
    assert!([0xa1b2_c3d4, 0xa1b2_3c4d].contains(&magic), "{magic:x}");
    let mut packets = Vec::new();
    let mut rest = &file[24..];
    while let Some((header, behind)) = rest.split_at_checked(16) {
        let len = u32::from_le_bytes(header[8..12].try_into().unwrap()) as usize;
        packets.push(&behind[..len]);
        rest = &behind[len..];
    }
    assert!(rest.is_empty(), "{} bytes too many", rest.len());
    packets
}
