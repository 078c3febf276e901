//! Digits as events, as tones and as INFO, and those that nobody may see.

use std::fs;

use trunkline_testkit::sdp::Codec;
use trunkline_testkit::site::Member;
use trunkline_tests::call::LIMIT;

use crate::audio::{Wav, loudest, samples, silence_frames, tone_frames};
use crate::support::{
    control, daemons, events_heard, happened, line, line_with, recordings_dir, remote, send,
    send_event, the_call, wait_happened, wait_recordings, wait_until,
};

/// Frequencies of some digits (ITU-T Q.23).
const THREE: [f64; 2] = [697.0, 1_477.0];
const FIVE: [f64; 2] = [770.0, 1_336.0];
const SEVEN: [f64; 2] = [852.0, 1_209.0];

/// Silence, 120 ms of a digit, silence.
fn pressed(digit: [f64; 2]) -> Vec<Vec<u8>> {
    [
        silence_frames(10),
        tone_frames(&digit, 5_000.0, 6),
        silence_frames(15),
    ]
    .concat()
}

fn info(signal: char) -> String {
    format!("Signal={signal}\r\nDuration=160\r\n")
}

#[test]
fn digits_turn_from_info_into_events_and_back() {
    let daemons = daemons(Member::numbered(0).with_more("dtmf = \"info\"\n"), "");
    let both = vec![Codec::pcmu(), Codec::telephone_event(101)];
    let line = line_with(&daemons, both, vec![Codec::pcmu()]);
    let call = &line.call;
    let offered = call.incoming.remote_media().unwrap();
    let is_event = |codec: &&Codec| codec.rtpmap.starts_with("tele");
    assert_eq!(offered.codecs.iter().filter(is_event).count(), 0);

    // INFO from the phone is an event for the carrier.
    let status = call
        .incoming
        .info("application/dtmf-relay", &info('7'), LIMIT)
        .unwrap();
    assert_eq!(status, 200);
    wait_until("an event at the carrier", || {
        events_heard(&call.caller_rtp) == [7]
    });

    // An event of the carrier is INFO for the phone, and nothing else.
    send_event(&call.caller_rtp, remote(&call.outgoing), 101, 11);
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
    let sources: Vec<_> = happened(&daemons, &line.id, "digit")
        .into_iter()
        .map(|event| event["source"].clone())
        .collect();
    assert_eq!(sources, ["info", "event"]);
    call.hang_up().unwrap();
}

#[test]
fn tones_of_a_phone_turn_into_events_and_events_and_info_into_its_tones() {
    let daemons = daemons(Member::numbered(0).with_more("dtmf = \"inband\"\n"), "");
    let both = vec![Codec::pcmu(), Codec::telephone_event(101)];
    let line = line_with(&daemons, both, vec![Codec::pcmu()]);
    let call = &line.call;

    send(&call.incoming, &call.callee_rtp, &pressed(FIVE));
    wait_until("an event at the carrier", || {
        events_heard(&call.caller_rtp) == [5]
    });
    let [digit] = &wait_happened(&daemons, &line.id, "digit", 1)[..] else {
        panic!("one digit");
    };
    assert_eq!(digit["source"], "inband");
    assert_eq!((&digit["leg"], &digit["value"]), (&"b".into(), &"5".into()));
    let millis = digit["duration_ms"].as_u64().unwrap();
    assert!((80..=160).contains(&millis), "{millis} ms of 120");

    let at_phone = |digit: [f64; 2]| loudest(&samples(&call.callee_rtp.received()), &digit);
    call.callee_rtp.clear();
    send_event(&call.caller_rtp, remote(&call.outgoing), 101, 7);
    wait_until("the tone of an event", || at_phone(SEVEN) > 1_000.0);
    call.callee_rtp.clear();
    let said = call
        .outgoing
        .info("application/dtmf-relay", &info('3'), LIMIT);
    assert_eq!(said.unwrap(), 200);
    wait_until("the tone of an INFO", || at_phone(THREE) > 1_000.0);
    call.hang_up().unwrap();
}

/// The same digit twice as a tone, twice as an event, twice as INFO: hidden it reaches nobody,
/// afterwards it does, by which the test knows that it would have.
#[test]
fn hidden_digits_reach_neither_the_far_side_nor_the_recording_nor_the_log() {
    let daemons = daemons(Member::numbered(0), "");
    let line = line(&daemons);
    let (call, id) = (&line.call, &line.id);
    control(&daemons, &format!("call {id} detect tones on --leg a"));
    for (hides, file) in [("on", "hidden.wav"), ("off", "open.wav")] {
        control(&daemons, &format!("call {id} hide-digits {hides} --leg a"));
        control(&daemons, &format!("call {id} record start {file}"));
        call.callee_rtp.clear();
        let before = happened(&daemons, id, "digit").len();
        send(&call.outgoing, &call.caller_rtp, &pressed(FIVE));
        send_event(
            &call.caller_rtp,
            remote(&call.outgoing),
            101,
            if hides == "on" { 3 } else { 7 },
        );
        let said = call
            .outgoing
            .info("application/dtmf-relay", &info('9'), LIMIT);
        assert_eq!(said.unwrap(), 200);
        let digits = wait_happened(&daemons, id, "digit", before + 3);
        let is_hidden = hides == "on";
        for digit in &digits[before..] {
            assert_eq!(digit["value"].is_null(), is_hidden, "{digit}");
        }
        let at_phone = events_heard(&call.callee_rtp);
        if is_hidden {
            assert!(at_phone.is_empty(), "{at_phone:?}");
            let heard = loudest(&samples(&call.callee_rtp.received()), &FIVE);
            assert!(heard < 200.0, "a hidden tone of amplitude {heard}");
            assert!(!daemons.logs().contains("value=\""), "{}", daemons.logs());
        } else {
            wait_until("the digits at the phone", || {
                events_heard(&call.callee_rtp).len() >= 2
            });
            let mut heard = events_heard(&call.callee_rtp);
            heard.sort_unstable();
            assert_eq!(heard, [7, 9], "as they were sent, and for the INFO");
            let heard = loudest(&samples(&call.callee_rtp.received()), &FIVE);
            assert!(heard > 2_000.0, "a tone of amplitude {heard}");
            assert!(daemons.logs().contains("value=\"5\""));
        }
        control(&daemons, &format!("call {id} record stop"));
    }
    wait_recordings(&daemons, 2);
    let amplitude = |file: &str| {
        let wav = Wav::parse(&fs::read(recordings_dir(&daemons).join(file)).unwrap());
        f64::min(wav.loudest(0, FIVE[0]), wav.loudest(0, FIVE[1]))
    };
    let (hidden, open) = (amplitude("hidden.wav"), amplitude("open.wav"));
    assert!(hidden < 200.0 && open > 2_000.0, "{hidden}, {open}");
    call.hang_up().unwrap();
}
