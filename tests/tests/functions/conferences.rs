//! Conferences, and what operators do in them.

use std::fs;
use std::io::{Read as _, Write as _};

use serde_json::Value;
use trunkline_testkit::daemons::Daemons;
use trunkline_testkit::phone::{Call, EndCause, Phone};
use trunkline_testkit::rtp::{MediaHub, RtpEndpoint};
use trunkline_testkit::sdp::AudioDescription;
use trunkline_testkit::site::Member;
use trunkline_tests::call::LIMIT;
use trunkline_tests::sipp_case::wait_idle;

use crate::audio::{Wav, amplitude, loudness, samples, tone_frames};
use crate::support::{
    CONFERENCE, conference, control, daemons, json, recordings_dir, refusal, remote, sha256, speak,
    the_call, wait_recordings, wait_until,
};

/// A caller in the conference, who is heard by a tone of its own.
pub(crate) struct Attendee {
    pub(crate) call: Call,
    pub(crate) rtp: RtpEndpoint,
    /// As `conferences` shows it.
    pub(crate) id: String,
    pub(crate) hz: f64,
}

impl Attendee {
    /// Sends its tone, for a minute at most.
    pub(crate) fn hum(&self) {
        let tone = tone_frames(&[self.hz], 6_000.0, 50);
        self.rtp
            .send_payloads(remote(&self.call), 0, (&tone, 160), 3_000);
    }

    /// How loud it has heard another of late, as an amplitude.
    fn heard(&self, other: &Attendee) -> f64 {
        let heard = samples(&self.rtp.received());
        let recent = &heard[heard.len().saturating_sub(2_400)..];
        amplitude(8_000, recent, other.hz)
    }

    pub(crate) fn hears(&self, other: &Attendee) -> bool {
        self.heard(other) > 3_000.0
    }

    fn is_spared(&self, other: &Attendee) -> bool {
        self.heard(other) < 100.0
    }
}

/// So many callers of the conference, each with a tone of its own, in the order of their calls.
pub(crate) fn attend(
    daemons: &Daemons,
    hub: &MediaHub,
    carrier: &Phone,
    count: usize,
) -> Vec<Attendee> {
    let mut attendees = Vec::new();
    for index in 0..count {
        let rtp = hub.endpoint(carrier.local_addr().ip()).unwrap();
        let offer = AudioDescription::pcmu(rtp.local_addr());
        let call = carrier.call(CONFERENCE, offer).unwrap();
        call.wait_answered(LIMIT).unwrap();
        let mut id = String::new();
        wait_until("a member more", || {
            let members = members(daemons);
            let last = members.get(index).map(|member| member["call_id"].clone());
            id = last
                .as_ref()
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned();
            last.is_some()
        });
        attendees.push(Attendee {
            call,
            rtp,
            id,
            hz: 500.0 + 300.0 * index as f64,
        });
    }
    attendees
}

/// The members of the only conference, the first to come first.
fn members(daemons: &Daemons) -> Vec<Value> {
    let all = json(daemons, "conferences --json");
    let members = all[0]["members"].as_array();
    members.cloned().unwrap_or_default()
}

#[test]
fn three_callers_of_a_conference_hear_each_other_and_not_themselves() {
    let site = conference("standup", "announce = false\nrecord = \"always\"\n");
    let daemons = daemons(Member::numbered(0), &site);
    let hub = MediaHub::start().unwrap();
    let carrier = daemons.carrier().unwrap();
    let members = attend(&daemons, &hub, &carrier, 3);
    wait_until("the mix", || {
        members.iter().all(|m| !m.rtp.received().is_empty())
    });
    for speaker in 0..3 {
        members.iter().for_each(|member| member.rtp.clear());
        speak(&members[speaker].call, &members[speaker].rtp, 0, 75);
        for (index, member) in members.iter().enumerate() {
            let loud = loudness(&member.rtp.received());
            if index == speaker {
                assert!(loud < 60.0, "member {index} hears itself: {loud}");
            } else {
                assert!(
                    loud > 200.0,
                    "member {index} does not hear {speaker}: {loud}"
                );
            }
        }
    }
    for member in &members {
        member.call.hang_up(LIMIT).unwrap();
    }
    let recording = &wait_recordings(&daemons, 1)[0];
    assert_eq!(recording["conference"], "standup");
    assert!(recording["call_id"].is_null());
    let files = fs::read_dir(recordings_dir(&daemons)).unwrap();
    assert_eq!(files.count(), 1);
    let cdrs = daemons.wait_cdrs(3, LIMIT).unwrap();
    assert!(
        cdrs.iter()
            .all(|cdr| cdr["result"] == "answered" && cdr["callee"] == "standup")
    );
    wait_idle(&daemons, LIMIT).unwrap();
}

#[test]
fn coach_is_heard_by_one_alone_and_who_is_deaf_or_muted_hears_or_says_nothing() {
    let site = conference("sales", "announce = false\n");
    let daemons = daemons(Member::numbered(0), &site);
    let hub = MediaHub::start().unwrap();
    let carrier = daemons.carrier().unwrap();
    let all = attend(&daemons, &hub, &carrier, 3);
    let [coach, agent, customer] = &all[..] else {
        panic!("three");
    };
    all.iter().for_each(Attendee::hum);
    wait_until("everybody to hear everybody", || {
        agent.hears(coach) && customer.hears(coach) && coach.hears(customer)
    });
    let confer = |words: String| control(&daemons, &format!("conference sales {words}"));

    confer(format!("whisper {} --to {}", coach.id, agent.id));
    wait_until("the whisper", || {
        agent.hears(coach) && customer.is_spared(coach)
    });
    assert!(coach.hears(customer) && coach.hears(agent), "it hears all");
    assert!(customer.hears(agent));
    assert_eq!(members(&daemons)[0]["whispers_to"], agent.id.as_str());
    confer(format!("unwhisper {}", coach.id));
    wait_until("the coach to be heard", || customer.hears(coach));

    confer(format!("mute {}", agent.id));
    wait_until("the mute", || {
        customer.is_spared(agent) && coach.is_spared(agent)
    });
    assert_eq!(members(&daemons)[1]["muted"], true);
    confer(format!("unmute {}", agent.id));
    confer(format!("deafen {}", customer.id));
    wait_until("the deaf", || {
        customer.is_spared(coach) && customer.is_spared(agent) && coach.hears(agent)
    });
    assert!(agent.hears(customer), "who is deaf is heard");
    assert_eq!(members(&daemons)[2]["deaf"], true);
    confer(format!("undeafen {}", customer.id));
    wait_until("the deaf to hear", || customer.hears(coach));

    for (words, reason) in [
        ("conference sales mute 1-ffff", "is not in this conference"),
        ("conference other lock", "nobody is in a conference other"),
    ] {
        let error = refusal(&daemons, words);
        assert!(error.contains(reason), "{words}: {error}");
    }
    let error = refusal(
        &daemons,
        &format!("conference sales whisper {0} --to {0}", coach.id),
    );
    assert!(error.contains("to itself"), "{error}");
    all.iter()
        .for_each(|member| member.call.hang_up(LIMIT).unwrap());
    wait_idle(&daemons, LIMIT).unwrap();
}

#[test]
fn members_who_join_muted_only_listen_and_the_loudest_is_shown() {
    let site = conference("townhall", "announce = false\njoin_muted = true\n");
    let daemons = daemons(Member::numbered(0), &site);
    let hub = MediaHub::start().unwrap();
    let carrier = daemons.carrier().unwrap();
    let all = attend(&daemons, &hub, &carrier, 2);
    let [host, monitor] = &all[..] else {
        panic!("two");
    };
    assert!(
        members(&daemons)
            .iter()
            .all(|member| member["muted"] == true)
    );
    monitor.hum();
    control(&daemons, &format!("conference townhall unmute {}", host.id));
    host.rtp.speak(
        remote(&host.call),
        0,
        trunkline_testkit::speech::caller(),
        500,
    );
    wait_until("the host to be the loudest", || {
        let members = members(&daemons);
        members[0]["speaking"] == true && members[1]["speaking"] == false
    });
    assert!(loudness(&monitor.rtp.received()) > 200.0, "it listens");
    assert!(host.is_spared(monitor), "and is not heard");
    host.rtp.be_silent();
    control(
        &daemons,
        &format!("conference townhall unmute {}", monitor.id),
    );
    wait_until("the other to be the loudest", || {
        host.hears(monitor) && members(&daemons)[1]["speaking"] == true
    });
    let table = control(&daemons, "conferences");
    assert!(table.contains("speaking"), "{table}");
    all.iter()
        .for_each(|member| member.call.hang_up(LIMIT).unwrap());
    wait_idle(&daemons, LIMIT).unwrap();
}

#[test]
fn operator_locks_records_and_throws_out_and_http_does_the_same() {
    let site = conference("board", "announce = false\n");
    let daemons = daemons(Member::numbered(0), &site);
    let hub = MediaHub::start().unwrap();
    let carrier = daemons.carrier().unwrap();
    let all = attend(&daemons, &hub, &carrier, 2);
    all.iter().for_each(Attendee::hum);
    control(&daemons, "conference board record start board.wav");
    let error = refusal(&daemons, "conference board record start other.wav");
    assert!(error.contains("recorded already"), "{error}");
    assert_eq!(post(&daemons, "board", r#"{"action":"lock"}"#), 204);
    let rtp = hub.endpoint(carrier.local_addr().ip()).unwrap();
    let late = carrier
        .call(CONFERENCE, AudioDescription::pcmu(rtp.local_addr()))
        .unwrap();
    assert_eq!(late.wait_ended(LIMIT).unwrap(), EndCause::Rejected(403));
    let shown = json(&daemons, "conferences --json");
    assert_eq!(shown[0]["locked"], true);
    assert!(
        shown[0]["recording"]
            .as_str()
            .unwrap()
            .ends_with("board.wav")
    );
    wait_until("both to hear each other", || {
        all[0].hears(&all[1]) && all[1].hears(&all[0])
    });
    std::thread::sleep(std::time::Duration::from_millis(500));
    control(&daemons, "conference board record stop");

    let kick = format!(r#"{{"action":"kick","member":"{}"}}"#, all[0].id);
    assert_eq!(post(&daemons, "board", &kick), 204);
    assert_eq!(all[0].call.wait_ended(LIMIT).unwrap(), EndCause::RemoteBye);
    wait_until("one to be left", || members(&daemons).len() == 1);
    assert_eq!(post(&daemons, "board", &kick), 404);
    all[1].call.hang_up(LIMIT).unwrap();

    let recording = &wait_recordings(&daemons, 1)[0];
    let file = fs::read(recordings_dir(&daemons).join("board.wav")).unwrap();
    assert_eq!(recording["sha256"], sha256(&file));
    assert_eq!(
        (&recording["conference"], &recording["cause"]),
        (&"board".into(), &"stopped".into())
    );
    let wav = Wav::parse(&file);
    assert_eq!(wav.channels.len(), 1);
    for member in &all {
        let heard = wav.loudest(0, member.hz);
        assert!(heard > 3_000.0, "{} Hz: {heard}", member.hz);
    }
    // The lock went with the last member.
    wait_idle(&daemons, LIMIT).unwrap();
    let again = attend(&daemons, &hub, &carrier, 1);
    again[0].call.hang_up(LIMIT).unwrap();
}

/// Status of an action on a conference.
fn post(daemons: &Daemons, name: &str, body: &str) -> u16 {
    let mut stream = std::net::TcpStream::connect(daemons.http()).unwrap();
    write!(
        stream,
        "POST /api/v1/conferences/{name}/actions HTTP/1.1\r\nHost: localhost\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap();
    status.parse().unwrap()
}

#[test]
fn pin_of_a_conference_is_asked_for_and_never_logged() {
    let site = conference("board", "pin = \"271828\"\n");
    let daemons = daemons(Member::numbered(0), &site);
    let hub = MediaHub::start().unwrap();
    let carrier = daemons.carrier().unwrap();
    let rtp = hub.endpoint(carrier.local_addr().ip()).unwrap();
    let call = carrier
        .call(CONFERENCE, AudioDescription::pcmu(rtp.local_addr()))
        .unwrap();
    call.wait_answered(LIMIT).unwrap();
    wait_until("the beeps", || loudness(&rtp.received()) > 100.0);
    assert_eq!(the_call(&daemons)["state"], "asking");
    for signal in "271828".chars() {
        let body = format!("Signal={signal}\r\nDuration=100\r\n");
        call.info("application/dtmf-relay", &body, LIMIT).unwrap();
    }
    wait_until("the conference", || the_call(&daemons)["state"] == "up");
    let seen = the_call(&daemons);
    assert_eq!(seen["caller_digits"], 6);
    assert!(!daemons.logs().contains("271828"));
    let id = seen["call_id"].as_str().unwrap();
    let digits = crate::support::happened(&daemons, id, "digit");
    assert_eq!(digits.len(), 6);
    assert!(digits.iter().all(|digit| digit["value"].is_null()));
    call.hang_up(LIMIT).unwrap();
    wait_idle(&daemons, LIMIT).unwrap();
}
