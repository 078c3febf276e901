//! What comes back with an edge that was killed.

use std::fs;
use std::time::Instant;

use trunkline_testkit::rtp::MediaHub;
use trunkline_testkit::sdp::{AudioDescription, Direction};
use trunkline_testkit::site::Member;
use trunkline_tests::call::LIMIT;

use crate::audio::{Wav, loudness, tone_frames};
use crate::conferences::{Attendee, attend};
use crate::support::{
    conference, control, daemons, json, line, recordings_dir, remote, sha256, wait_recordings,
    wait_until,
};

#[test]
fn music_goes_on_when_the_edge_comes_back() {
    let mut daemons = daemons(Member::numbered(0), "");
    let line = line(&daemons);
    let call = &line.call;
    let hold = AudioDescription {
        direction: Direction::SendOnly,
        ..AudioDescription::pcmu(call.caller_rtp.local_addr())
    };
    call.outgoing.reinvite(hold, LIMIT).unwrap();
    wait_until("music", || call.callee_rtp.received().len() > 10);
    daemons.kill_edge().unwrap();
    call.callee_rtp.clear();
    daemons.start_edge().unwrap();
    wait_until("music again", || call.callee_rtp.received().len() > 25);
    assert!(loudness(&call.callee_rtp.received()) > 4_000.0);
    call.hang_up().unwrap();
}

/// A call that is played to and recorded, and a conference of two with a coach's whisper and a
/// recording of its own: `kill -9` of the edge in the middle of it all.
#[test]
fn playback_recording_and_conference_come_back_with_the_edge() {
    let site = conference("standup", "announce = false\n");
    let mut daemons = daemons(Member::numbered(0), &site);
    let line = line(&daemons);
    let (call, id) = (&line.call, &line.id);
    let hub = MediaHub::start().unwrap();
    let carrier = daemons.carrier().unwrap();
    let all = attend(&daemons, &hub, &carrier, 3);
    all.iter().for_each(Attendee::hum);
    let coach = format!("whisper {} --to {}", all[0].id, all[1].id);
    control(&daemons, &format!("conference standup {coach}"));
    control(&daemons, "conference standup record start mix.wav");
    control(&daemons, &format!("call {id} record start call.wav"));
    let begun = Instant::now();
    control(&daemons, &format!("call {id} play hold.wav --loop --leg b"));
    let tone = tone_frames(&[1_000.0], 6_000.0, 50);
    let to = remote(&call.outgoing);
    call.caller_rtp.send_payloads(to, 0, (&tone, 160), 3_000);
    let is_all_well = || {
        let whispers = all[1].hears(&all[0]) && !all[2].hears(&all[0]);
        let mixes = all[2].hears(&all[1]) && all[0].hears(&all[2]);
        whispers && mixes && loudness(&call.callee_rtp.received()) > 4_000.0
    };
    wait_until("everything", is_all_well);
    // What was heard in the last second is not on the disk yet, and goes with the edge.
    std::thread::sleep(std::time::Duration::from_millis(1_700));

    daemons.kill_edge().unwrap();
    call.callee_rtp.clear();
    all.iter().for_each(|member| member.rtp.clear());
    daemons.start_edge().unwrap();
    wait_until("everything again", is_all_well);
    let members = json(&daemons, "conferences --json")[0]["members"].clone();
    assert_eq!(members[0]["whispers_to"], all[1].id.as_str());
    std::thread::sleep(std::time::Duration::from_millis(500));
    let spent = begun.elapsed().as_millis() as u64;
    control(&daemons, &format!("call {id} record stop"));
    control(&daemons, "conference standup record stop");

    let recordings = wait_recordings(&daemons, 2);
    for (name, hz) in [("call.wav", 1_000.0), ("mix.wav", all[1].hz)] {
        let file = fs::read(recordings_dir(&daemons).join(name)).unwrap();
        let ends_so = |r: &&serde_json::Value| r["path"].as_str().unwrap().ends_with(name);
        let recording = recordings.iter().find(ends_so).unwrap();
        assert_eq!(recording["cause"], "stopped", "{recording}");
        assert_eq!(recording["sha256"], sha256(&file));
        let wav = Wav::parse(&file);
        let lasted = wav.millis();
        assert!(
            lasted.abs_diff(spent) < 900,
            "{name}: {lasted} ms of {spent} ms, the gap included"
        );
        // From before the kill, and from after it.
        let quarter = wav.channels[0].len() / 4;
        for samples in [&wav.channels[0][..quarter], &wav.channels[0][3 * quarter..]] {
            let part = Wav {
                rate: wav.rate,
                channels: vec![samples.to_vec()],
            };
            assert!(part.loudest(0, hz) > 3_000.0, "{name}");
        }
    }
    call.caller_rtp.be_silent();
    call.hang_up().unwrap();
    all.iter()
        .for_each(|member| member.call.hang_up(LIMIT).unwrap());
}
