//! What the edge hears in a call, and how operators see it.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;
use trunkline_testkit::daemons::Daemons;
use trunkline_testkit::site::Member;

use crate::audio::{silence_frames, tone_frames};
use crate::support::{
    control, daemons, happened, json, line, remote, send, send_event, speak, wait_happened,
};

#[test]
fn speech_of_one_side_is_told_when_it_begins_and_ends() {
    let daemons = daemons(Member::numbered(0), "");
    let line = line(&daemons);
    let (call, id) = (&line.call, &line.id);
    control(&daemons, &format!("call {id} detect activity on --leg a"));
    send(&call.outgoing, &call.caller_rtp, &silence_frames(25));
    assert!(happened(&daemons, id, "speech_began").is_empty(), "silence");
    speak(&call.outgoing, &call.caller_rtp, 0, 60);
    let began = wait_happened(&daemons, id, "speech_began", 1);
    send(&call.outgoing, &call.caller_rtp, &silence_frames(75));
    let ended = wait_happened(&daemons, id, "speech_ended", 1);
    assert_eq!(
        (&began[0]["leg"], &ended[0]["leg"]),
        (&"a".into(), &"a".into())
    );
    assert!(began[0]["seq"].as_u64() < ended[0]["seq"].as_u64());

    control(&daemons, &format!("call {id} detect activity off --leg a"));
    let count = happened(&daemons, id, "speech_began").len();
    speak(&call.outgoing, &call.caller_rtp, 0, 60);
    assert_eq!(happened(&daemons, id, "speech_began").len(), count, "off");
    call.hang_up().unwrap();
}

#[test]
fn beep_of_an_answering_machine_is_told_with_its_pitch_and_length() {
    let daemons = daemons(Member::numbered(0), "");
    let line = line(&daemons);
    let (call, id) = (&line.call, &line.id);
    control(&daemons, &format!("call {id} detect beep on --leg b"));
    speak(&call.incoming, &call.callee_rtp, 0, 50);
    assert!(happened(&daemons, id, "beep").is_empty(), "speech");
    let beep = [
        silence_frames(15),
        tone_frames(&[1_000.0], 6_000.0, 25),
        silence_frames(25),
    ];
    send(&call.incoming, &call.callee_rtp, &beep.concat());
    let [heard] = &wait_happened(&daemons, id, "beep", 1)[..] else {
        panic!("one beep");
    };
    assert_eq!(heard["leg"], "b");
    let [pitch, length] = ["frequency_hz", "duration_ms"].map(|key| heard[key].as_u64().unwrap());
    assert!(pitch.abs_diff(1_000) <= 20, "{pitch} Hz");
    assert!(length.abs_diff(500) <= 60, "{length} ms");
    call.hang_up().unwrap();
}

#[test]
fn busy_tone_of_a_far_exchange_is_told() {
    let daemons = daemons(Member::numbered(0), "");
    let line = line(&daemons);
    let (call, id) = (&line.call, &line.id);
    control(&daemons, &format!("call {id} detect progress on --leg b"));
    let period = [tone_frames(&[425.0], 4_000.0, 25), silence_frames(25)].concat();
    let frames: Vec<Vec<u8>> = std::iter::repeat_n(period, 4).flatten().collect();
    send(&call.incoming, &call.callee_rtp, &frames);
    let heard = wait_happened(&daemons, id, "progress", 1);
    assert_eq!(heard.len(), 1, "once for each row: {heard:?}");
    assert_eq!(
        (&heard[0]["leg"], &heard[0]["signal"]),
        (&"b".into(), &"busy".into())
    );
    let pitch = heard[0]["frequencies_hz"][0].as_u64().unwrap();
    assert!(pitch.abs_diff(425) <= 10, "{pitch} Hz");
    call.hang_up().unwrap();
}

/// Follows the call by command line and by HTTP from before anything has happened until it is
/// over.
#[test]
fn who_follows_a_call_hears_of_everything_until_it_is_over() {
    let daemons = daemons(Member::numbered(0), "");
    let line = line(&daemons);
    let (call, id) = (&line.call, &line.id);
    let (by_command, by_http) = std::thread::scope(|scope| {
        let command = scope.spawn(|| follow_by_command(&daemons, id));
        let stream = scope.spawn(|| follow_by_http(&daemons, id));
        control(&daemons, &format!("call {id} play silence:100 --leg b"));
        wait_happened(&daemons, id, "playback_ended", 1);
        send_event(&call.caller_rtp, remote(&call.outgoing), 101, 4);
        wait_happened(&daemons, id, "digit", 1);
        call.hang_up().unwrap();
        (command.join().unwrap(), stream.join().unwrap())
    });
    for heard in [by_command, by_http] {
        let kinds: Vec<&str> = heard.iter().map(|e| e["event"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["playback_ended", "digit", "call_ended"]);
        let numbers: Vec<u64> = heard.iter().map(|e| e["seq"].as_u64().unwrap()).collect();
        assert_eq!(numbers, [1, 2, 3]);
        assert_eq!(heard[1]["value"], "4");
    }
    let report = json(&daemons, &format!("call {id} events --json"));
    assert_eq!(
        (&report["forgotten"], &report["is_over"]),
        (&0.into(), &true.into())
    );
}

fn follow_by_command(daemons: &Daemons, id: &str) -> Vec<Value> {
    let words = ["call", id, "events", "--follow", "--json"].map(OsStr::new);
    let told = daemons.control_command(&words).unwrap();
    let lines = told.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().unwrap()
}

fn follow_by_http(daemons: &Daemons, id: &str) -> Vec<Value> {
    let mut stream = TcpStream::connect(daemons.http()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    write!(
        stream,
        "GET /api/v1/calls/{id}/events HTTP/1.1\r\nHost: localhost\r\n\
         Accept: text/event-stream\r\n\r\n"
    )
    .unwrap();
    let lines = BufReader::new(stream).lines().map(Result::unwrap);
    let data = lines.filter_map(|line| Some(line.strip_prefix("data: ")?.to_owned()));
    data.map(|event| serde_json::from_str(&event).unwrap())
        .collect()
}
