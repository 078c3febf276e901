//! Media functions through both daemons: what callers hear when the edge does more than relay.
#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test, in helpers too"
)]

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use trunkline_testkit::daemons::Daemons;
use trunkline_testkit::phone::{Call, Phone, PhoneConfig};
use trunkline_testkit::rtp::{MediaHub, PacketHeader, ReceivedPacket, RtpEndpoint, SentPacket};
use trunkline_testkit::sdp::{AudioDescription, Codec, Direction};
use trunkline_testkit::site::{Member, Site};
use trunkline_testkit::speech;
use trunkline_tests::call::{Answered, LIMIT, place};
use trunkline_tests::sipp_case::wait_idle;

/// Samples of 20 ms at 8 kHz.
const FRAME: usize = 160;

/// The number of the conference.
const CONFERENCE: &str = "+15550109999";

fn daemons(member: Member, more: &str) -> Daemons {
    let site = Site {
        more: more.to_owned(),
        ..Site::with_members(vec![member])
    };
    let daemons = Daemons::start_with(site, |node| {
        node.more = "[media]\nhold_music = \"hold.wav\"\n".to_owned();
        for directory in ["prompts", "recordings"] {
            fs::create_dir_all(node.state_dir.join(directory)).unwrap();
        }
        fs::write(node.state_dir.join("prompts/hold.wav"), tone_wav()).unwrap();
    });
    daemons.unwrap()
}

/// Half a second of 500 Hz as 16-bit PCM at 8 kHz.
fn tone_wav() -> Vec<u8> {
    let samples: Vec<i16> = (0..4_000)
        .map(|n| (8_000.0 * (f64::from(n) * std::f64::consts::TAU / 16.0).sin()) as i16)
        .collect();
    let len = samples.len() as u32 * 2;
    let mut wav = b"RIFF".to_vec();
    wav.extend((36 + len).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    wav.extend(16u32.to_le_bytes());
    for field in [1u16, 1] {
        wav.extend(field.to_le_bytes());
    }
    wav.extend(8_000u32.to_le_bytes());
    wav.extend(16_000u32.to_le_bytes());
    for field in [2u16, 16] {
        wav.extend(field.to_le_bytes());
    }
    wav.extend(b"data");
    wav.extend(len.to_le_bytes());
    wav.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    wav
}

/// ITU-T G.711, in 16-bit samples.
fn ulaw(code: u8) -> i32 {
    let code = !code;
    let magnitude = ((i32::from(code & 0x0f) << 3) + 0x84) << ((code >> 4) & 7);
    let magnitude = magnitude - 0x84;
    if code & 0x80 == 0 {
        magnitude
    } else {
        -magnitude
    }
}

/// ITU-T G.711, in 16-bit samples.
fn alaw(code: u8) -> i32 {
    let code = code ^ 0x55;
    let (segment, mantissa) = ((code >> 4) & 7, i32::from(code & 0x0f));
    let magnitude = match segment {
        0 => (mantissa << 4) + 8,
        _ => ((mantissa << 4) + 0x108) << (segment - 1),
    };
    if code & 0x80 == 0 {
        -magnitude
    } else {
        magnitude
    }
}

/// Root of the mean square of what was heard, as µ-law.
fn loudness(packets: &[ReceivedPacket]) -> f64 {
    let samples: Vec<f64> = packets
        .iter()
        .filter(|packet| packet.header.payload_type == 0)
        .flat_map(|packet| packet.payload.iter().map(|&code| f64::from(ulaw(code))))
        .collect();
    let squares: f64 = samples.iter().map(|sample| sample * sample).sum();
    (squares / samples.len().max(1) as f64).sqrt()
}

fn with_codecs(rtp: SocketAddr, codecs: Vec<Codec>) -> AudioDescription {
    AudioDescription {
        codecs,
        ..AudioDescription::pcmu(rtp)
    }
}

/// The carrier calls member 0, whose phone answers with `codecs`.
fn place_with(
    hub: &MediaHub,
    carrier: &Phone,
    did: &str,
    phone: &Phone,
    codecs: Vec<Codec>,
) -> Answered {
    let caller_rtp = hub.endpoint(carrier.local_addr().ip()).unwrap();
    let callee_rtp = hub.endpoint(phone.local_addr().ip()).unwrap();
    let offer = AudioDescription::pcmu(caller_rtp.local_addr());
    let outgoing = carrier.call(did, offer).unwrap();
    let incoming = phone.wait_call(LIMIT).unwrap();
    let answer = with_codecs(callee_rtp.local_addr(), codecs);
    incoming.answer(&answer).unwrap();
    outgoing.wait_answered(LIMIT).unwrap();
    incoming.wait_established(LIMIT).unwrap();
    Answered {
        outgoing,
        incoming,
        caller_rtp,
        callee_rtp,
    }
}

/// Sends `frames` frames to where the call's far side listens, and waits until they are sent.
fn speak(call: &Call, rtp: &RtpEndpoint, payload_type: u8, frames: usize) {
    let remote = call.remote_media().unwrap().rtp;
    rtp.speak(remote, payload_type, speech::caller(), frames);
    assert!(rtp.wait_spoken(Duration::from_secs(20)));
    std::thread::sleep(Duration::from_millis(200));
}

fn control(daemons: &Daemons, words: &str) -> String {
    let words: Vec<&OsStr> = words.split(' ').map(OsStr::new).collect();
    daemons.control_command(&words).unwrap()
}

/// The only live call.
fn the_call(daemons: &Daemons) -> serde_json::Value {
    let calls: serde_json::Value = serde_json::from_str(&control(daemons, "calls --json")).unwrap();
    assert_eq!(calls["total"], 1, "{calls}");
    calls["calls"][0].clone()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn caller_with_ulaw_and_phone_with_alaw_hear_each_other() {
    let daemons = daemons(Member::numbered(0), "");
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let did = daemons.member(0).unwrap().did.clone();
    let codecs = vec![Codec::new(8, "PCMA/8000"), Codec::telephone_event(101)];
    let call = place_with(&hub, &carrier, &did, &phone, codecs);
    let seen = the_call(&daemons);
    assert_eq!(
        (&seen["codec"], &seen["callee_codec"]),
        (&"PCMU".into(), &"PCMA".into())
    );

    speak(&call.outgoing, &call.caller_rtp, 0, 50);
    let (sent, heard) = (call.caller_rtp.sent(), call.callee_rtp.received());
    assert_is_alaw_of(&sent, &heard);
    // The way back, from a phone that speaks A-law: loud enough to be speech.
    speak(&call.incoming, &call.callee_rtp, 8, 50);
    let heard = call.caller_rtp.received();
    assert_eq!(heard.len(), 50);
    assert!(heard.iter().all(|packet| packet.header.payload_type == 0));
    call.hang_up().unwrap();
    let cdrs = daemons.wait_cdrs(1, LIMIT).unwrap();
    assert_eq!(cdrs[0]["caller_codec"], "PCMU");
    assert_eq!(cdrs[0]["callee_codec"], "PCMA");
    wait_idle(&daemons, LIMIT).unwrap();
}

fn assert_is_alaw_of(sent: &[SentPacket], heard: &[ReceivedPacket]) {
    assert_eq!(sent.len(), heard.len());
    let (mut signal, mut noise) = (0.0, 0.0);
    for (sent, heard) in sent.iter().zip(heard) {
        assert_eq!(heard.header.payload_type, 8);
        assert_eq!(heard.payload.len(), FRAME);
        for (&sent, &heard) in sent.payload.iter().zip(&heard.payload) {
            let (sent, heard) = (f64::from(ulaw(sent)), f64::from(alaw(heard)));
            signal += sent * sent;
            noise += (sent - heard) * (sent - heard);
        }
    }
    let ratio_db = 10.0 * (signal / f64::max(noise, 1.0)).log10();
    assert!(ratio_db > 30.0, "{ratio_db} dB");
}

#[test]
fn phones_with_g722_or_opus_alone_get_what_a_ulaw_caller_says() {
    for (number, rtpmap, clock, fits) in [
        (9, "G722/8000", 8_000, FRAME..=FRAME),
        (111, "opus/48000/2", 48_000, 3..=400),
    ] {
        let daemons = daemons(Member::numbered(0), "");
        let hub = MediaHub::start().unwrap();
        let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
        let did = daemons.member(0).unwrap().did.clone();
        let call = place_with(
            &hub,
            &carrier,
            &did,
            &phone,
            vec![Codec::new(number, rtpmap)],
        );
        speak(&call.outgoing, &call.caller_rtp, 0, 50);
        let heard = call.callee_rtp.received();
        assert!(
            (48..=51).contains(&heard.len()),
            "{rtpmap}: {} packets",
            heard.len()
        );
        for pair in heard.windows(2) {
            let [one, next] = pair else { continue };
            assert_eq!(one.header.payload_type, number, "{rtpmap}");
            assert!(
                fits.contains(&one.payload.len()),
                "{rtpmap}: {}",
                one.payload.len()
            );
            assert_eq!(one.header.ssrc, next.header.ssrc);
            let step = next.header.timestamp.wrapping_sub(one.header.timestamp);
            assert_eq!(step, clock / 50, "{rtpmap}");
        }
        call.hang_up().unwrap();
        wait_idle(&daemons, LIMIT).unwrap();
    }
}

/// A telephone event as a phone sends it (RFC 4733 §2.5): 100 ms of `code`, three ends.
fn send_event(rtp: &RtpEndpoint, to: SocketAddr, payload_type: u8, code: u8) {
    for step in 1..=7u16 {
        let header = PacketHeader {
            payload_type,
            marker: step == 1,
            sequence: 1_000 + step,
            timestamp: 4_000,
            ssrc: 0x1234_5678,
        };
        let is_end = step > 4;
        let duration = 160 * step.min(5);
        let mut datagram = Vec::new();
        header.write_to(&mut datagram);
        datagram.extend([code, if is_end { 0x8a } else { 0x0a }]);
        datagram.extend(duration.to_be_bytes());
        rtp.send_raw(to, &datagram).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn digits_turn_from_info_into_events_and_back() {
    let daemons = daemons(Member::numbered(0).with_more("dtmf = \"info\"\n"), "");
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let did = daemons.member(0).unwrap().did.clone();
    let call = place_with(&hub, &carrier, &did, &phone, vec![Codec::pcmu()]);
    let offered = call.incoming.remote_media().unwrap();
    assert_eq!(
        offered
            .codecs
            .iter()
            .filter(|c| c.rtpmap.starts_with("tele"))
            .count(),
        0
    );

    // INFO from the phone is an event for the carrier.
    let body = "Signal=7\r\nDuration=160\r\n";
    let status = call
        .incoming
        .info("application/dtmf-relay", body, LIMIT)
        .unwrap();
    assert_eq!(status, 200);
    wait_until("an event at the carrier", || {
        let heard = call.caller_rtp.received();
        let mut events = heard
            .iter()
            .filter(|packet| packet.header.payload_type == 101);
        events.any(|packet| packet.payload[0] == 7 && packet.payload[1] & 0x80 != 0)
    });

    // An event of the carrier is INFO for the phone, and nothing else.
    let to = call.outgoing.remote_media().unwrap().rtp;
    send_event(&call.caller_rtp, to, 101, 11);
    let infos = call.incoming.wait_infos(1, LIMIT).unwrap();
    assert_eq!(infos.len(), 1);
    assert!(infos[0].starts_with("Signal=#\r\n"), "{infos:?}");
    let leaked = call.callee_rtp.received();
    assert!(leaked.iter().all(|packet| packet.header.payload_type == 0));

    let seen = the_call(&daemons);
    assert_eq!(
        (&seen["caller_digits"], &seen["callee_digits"]),
        (&1.into(), &1.into())
    );
    call.hang_up().unwrap();
}

#[test]
fn held_phone_hears_music_until_the_call_is_taken_back() {
    let daemons = daemons(Member::numbered(0), "");
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let call = place(&hub, &carrier, &daemons.member(0).unwrap().did, &phone).unwrap();
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
    let sources: std::collections::HashSet<u32> = heard.iter().map(|p| p.header.ssrc).collect();
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
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let call = place(&hub, &carrier, &daemons.member(0).unwrap().did, &phone).unwrap();
    let id = the_call(&daemons)["call_id"].as_str().unwrap().to_owned();

    control(&daemons, &format!("call {id} record start a.wav"));
    control(&daemons, &format!("call {id} play hold.wav --loop --leg b"));
    wait_until("the tone", || call.callee_rtp.received().len() > 25);
    assert!(loudness(&call.callee_rtp.received()) > 4_000.0);
    control(&daemons, &format!("call {id} stop --leg b"));

    control(&daemons, &format!("call {id} digits 12# --leg a"));
    wait_until("three digits", || {
        let heard = call.caller_rtp.received();
        let ends = heard
            .iter()
            .filter(|packet| packet.header.payload_type == 101 && packet.payload[1] & 0x80 != 0)
            .map(|packet| (packet.header.timestamp, packet.payload[0]));
        let digits: std::collections::BTreeSet<_> = ends.collect();
        digits.iter().map(|(_, code)| *code).collect::<Vec<_>>() == [1, 2, 11]
    });

    control(&daemons, &format!("call {id} mute --leg a"));
    call.callee_rtp.clear();
    speak(&call.outgoing, &call.caller_rtp, 0, 25);
    assert!(loudness(&call.callee_rtp.received()) < 100.0, "muted");
    control(&daemons, &format!("call {id} unmute --leg a"));
    let talked = call.talk(50).unwrap();
    assert_eq!(talked.callee.lost, 0, "{talked:?}");

    control(&daemons, &format!("call {id} record stop"));
    let path = daemons.node().state_dir.join("recordings/a.wav");
    wait_until("the recording's end", || {
        daemons.logs().contains("recording complete")
    });
    let wav = fs::read(&path).unwrap();
    assert_eq!((&wav[..4], &wav[8..12]), (&b"RIFF"[..], &b"WAVE"[..]));
    assert_eq!(u16::from_le_bytes([wav[22], wav[23]]), 2, "both sides");
    assert!(
        wav.len() > 8_000 * 2 * 2,
        "more than a second: {}",
        wav.len()
    );
    let is_sound = |side: usize| {
        let mut frames = wav[44..].chunks_exact(4);
        frames.any(|frame| {
            i16::from_le_bytes([frame[2 * side], frame[2 * side + 1]]).unsigned_abs() > 1_000
        })
    };
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
    ] {
        let all: Vec<&OsStr> = words.split(' ').map(OsStr::new).collect();
        let output = daemons.control_output(&all).unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && error.contains(reason),
            "{words}: {error}"
        );
    }
    call.hang_up().unwrap();
    wait_idle(&daemons, LIMIT).unwrap();
}

/// A caller in the conference.
struct Attendee {
    call: Call,
    rtp: RtpEndpoint,
}

#[test]
fn three_callers_of_a_conference_hear_each_other_and_not_themselves() {
    let conference = format!(
        "\n[[conference]]\nname = \"standup\"\ntenant = \"test\"\ndid = \"{CONFERENCE}\"\n\
         announce = false\nrecord = \"always\"\n"
    );
    let daemons = daemons(Member::numbered(0), &conference);
    let hub = MediaHub::start().unwrap();
    let carrier = daemons.carrier().unwrap();
    let members: Vec<Attendee> = (0..3)
        .map(|_| {
            let rtp = hub.endpoint(carrier.local_addr().ip()).unwrap();
            let offer = AudioDescription::pcmu(rtp.local_addr());
            let call = carrier.call(CONFERENCE, offer).unwrap();
            call.wait_answered(LIMIT).unwrap();
            Attendee { call, rtp }
        })
        .collect();
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
    wait_until("the recording's end", || {
        daemons.logs().contains("recording complete")
    });
    let recordings = fs::read_dir(daemons.node().state_dir.join("recordings")).unwrap();
    assert_eq!(recordings.count(), 1);
    let cdrs = daemons.wait_cdrs(3, LIMIT).unwrap();
    assert!(
        cdrs.iter()
            .all(|cdr| cdr["result"] == "answered" && cdr["callee"] == "standup")
    );
    wait_idle(&daemons, LIMIT).unwrap();
}

#[test]
fn pin_of_a_conference_is_asked_for_and_never_logged() {
    let conference = format!(
        "\n[[conference]]\nname = \"board\"\ntenant = \"test\"\ndid = \"{CONFERENCE}\"\n\
         pin = \"271828\"\n"
    );
    let daemons = daemons(Member::numbered(0), &conference);
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
    assert_eq!(the_call(&daemons)["caller_digits"], 6);
    assert!(!daemons.logs().contains("271828"));
    call.hang_up(LIMIT).unwrap();
    wait_idle(&daemons, LIMIT).unwrap();
}

#[test]
fn music_goes_on_when_the_edge_comes_back() {
    let mut daemons = daemons(Member::numbered(0), "");
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let call = place(&hub, &carrier, &daemons.member(0).unwrap().did, &phone).unwrap();
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

#[test]
fn member_over_the_api_is_played_to() {
    use std::io::{Read as _, Write as _};
    let daemons = daemons(Member::numbered(0), "");
    let hub = MediaHub::start().unwrap();
    let member = daemons.member(0).unwrap();
    let phone = daemons
        .registered(PhoneConfig::udp(&member.user, daemons.sip()).with_password(&member.password))
        .unwrap();
    let carrier = daemons.carrier().unwrap();
    let call = place(&hub, &carrier, &member.did, &phone).unwrap();
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
