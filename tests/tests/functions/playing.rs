//! What callers hear when something is played.

use std::collections::HashSet;
use std::fs;
use std::io::{Read as _, Write as _};

use trunkline_testkit::phone::PhoneConfig;
use trunkline_testkit::rtp::MediaHub;
use trunkline_testkit::sdp::{AudioDescription, Direction};
use trunkline_testkit::site::Member;
use trunkline_tests::call::LIMIT;
use trunkline_tests::sipp_case::wait_idle;

use crate::audio::{Wav, amplitude, loudness, samples, tone_frames};
use crate::support::{
    control, daemons, events_heard, line, plain_call, recordings_dir, refusal, remote, speak,
    the_call, wait_happened, wait_recordings, wait_until,
};

#[test]
fn held_phone_hears_music_until_the_call_is_taken_back() {
    let daemons = daemons(Member::numbered(0), "");
    let line = line(&daemons);
    let call = &line.call;
    let hold = AudioDescription {
        direction: Direction::Inactive,
        ..AudioDescription::pcmu(call.caller_rtp.local_addr())
    };
    call.callee_rtp.clear();
    call.outgoing.reinvite(hold, LIMIT).unwrap();
    wait_until("music", || call.callee_rtp.received().len() > 50);
    let heard = call.callee_rtp.received();
    let loud = loudness(&heard);
    assert!(
        (4_000.0..8_000.0).contains(&loud),
        "a tone of amplitude 8000, not {loud}"
    );
    let sources: HashSet<u32> = heard.iter().map(|p| p.header.ssrc).collect();
    assert_eq!(sources.len(), 1);

    let back = AudioDescription::pcmu(call.caller_rtp.local_addr());
    call.outgoing.reinvite(back, LIMIT).unwrap();
    let talked = call.talk(50).unwrap();
    assert!(
        talked.caller.payload_identical && talked.callee.payload_identical,
        "{talked:?}"
    );
    call.hang_up().unwrap();
}

#[test]
fn operator_plays_mutes_dials_and_records_a_live_call() {
    let daemons = daemons(Member::numbered(0), "");
    let line = line(&daemons);
    let (call, id) = (&line.call, &line.id);

    control(&daemons, &format!("call {id} record start a.wav"));
    control(&daemons, &format!("call {id} play hold.wav --loop --leg b"));
    wait_until("the tone", || call.callee_rtp.received().len() > 25);
    assert!(loudness(&call.callee_rtp.received()) > 4_000.0);
    control(&daemons, &format!("call {id} stop --leg b"));
    let ended = wait_happened(&daemons, id, "playback_ended", 1);
    assert_eq!(
        (&ended[0]["leg"], &ended[0]["cause"]),
        (&"b".into(), &"stopped".into())
    );

    control(&daemons, &format!("call {id} digits 12# --leg a"));
    wait_until("three digits", || {
        events_heard(&call.caller_rtp) == [1, 2, 11]
    });
    wait_happened(&daemons, id, "digits_sent", 1);

    for (on, off, speaker) in [
        ("mute --leg a", "unmute --leg a", "the caller is muted"),
        ("deafen --leg b", "undeafen --leg b", "the phone is deaf"),
    ] {
        control(&daemons, &format!("call {id} {on}"));
        call.callee_rtp.clear();
        speak(&call.outgoing, &call.caller_rtp, 0, 25);
        assert!(loudness(&call.callee_rtp.received()) < 100.0, "{speaker}");
        control(&daemons, &format!("call {id} {off}"));
        let talked = call.talk(50).unwrap();
        assert_eq!(talked.callee.lost, 0, "{talked:?}");
    }

    control(&daemons, &format!("call {id} record stop"));
    wait_recordings(&daemons, 1);
    let wav = Wav::parse(&fs::read(recordings_dir(&daemons).join("a.wav")).unwrap());
    assert_eq!(wav.channels.len(), 2, "both sides");
    assert!(wav.millis() > 1_000);
    let is_sound = |side: usize| wav.channels[side].iter().any(|s| s.abs() > 1_000.0);
    assert!(is_sound(0) && is_sound(1));

    for (words, reason) in [
        (
            format!("call {id} play ../trunkline.db"),
            "below the directory",
        ),
        (
            format!("call {id} play missing.wav"),
            "cannot read the file",
        ),
        (format!("call {id} record stop"), "not being recorded"),
        ("call 1-ffff stop".to_owned(), "no live call"),
        ("call 1-ffff events".to_owned(), "no live call"),
    ] {
        let error = refusal(&daemons, &words);
        assert!(error.contains(reason), "{words}: {error}");
    }
    call.hang_up().unwrap();
    wait_idle(&daemons, LIMIT).unwrap();
}

/// 500 Hz are played over the 1,000 Hz that the caller sends.
#[test]
fn phone_hears_what_is_played_over_the_caller_who_is_softer_meanwhile() {
    let daemons = daemons(Member::numbered(0), "");
    let line = line(&daemons);
    let (call, id) = (&line.call, &line.id);
    let tone = tone_frames(&[1_000.0], 4_000.0, 50);
    call.caller_rtp
        .send_payloads(remote(&call.outgoing), 0, (&tone, 160), 1_000);
    wait_until("the caller", || call.callee_rtp.received().len() > 10);
    let words = format!("call {id} play hold.wav --into --softer 12 --leg b");
    control(&daemons, &words);
    let ended = wait_happened(&daemons, id, "playback_ended", 1);
    assert_eq!(ended[0]["cause"], "completed");
    assert_eq!(ended[0]["played_ms"], 500);
    let heard = samples(&call.callee_rtp.received());
    let windows = heard.chunks_exact(1_600);
    let together = windows
        .map(|window| [500.0, 1_000.0].map(|hz| amplitude(8_000, window, hz)))
        .filter(|[played, live]| {
            (7_000.0..9_000.0).contains(played) && (800.0..1_200.0).contains(live)
        });
    assert!(together.count() >= 1, "8000 played over 4000 less 12 dB");
    call.caller_rtp.be_silent();
    call.hang_up().unwrap();
}

#[test]
fn member_over_the_api_is_played_to() {
    let daemons = daemons(Member::numbered(0), "");
    let hub = MediaHub::start().unwrap();
    let member = daemons.member(0).unwrap();
    let phone = daemons
        .registered(PhoneConfig::udp(&member.user, daemons.sip()).with_password(&member.password))
        .unwrap();
    let (_carrier, call) = plain_call(&daemons, &hub, &phone);
    let id = the_call(&daemons)["call_id"].as_str().unwrap().to_owned();
    let body = r#"{"action":"play","source":"tone:ringback","loop":true,"leg":"a"}"#;
    let mut stream = std::net::TcpStream::connect(daemons.http()).unwrap();
    write!(
        stream,
        "POST /api/v1/calls/{id}/actions HTTP/1.1\r\nHost: localhost\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    wait_until("ringback", || loudness(&call.caller_rtp.received()) > 500.0);
    call.hang_up().unwrap();
}
