//! The daemons, calls and commands that these tests share.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;
use trunkline_testkit::daemons::Daemons;
use trunkline_testkit::phone::{Call, Phone};
use trunkline_testkit::rtp::{MediaHub, PacketHeader, RtpEndpoint};
use trunkline_testkit::sdp::{AudioDescription, Codec};
use trunkline_testkit::site::{Member, Site};
use trunkline_testkit::speech;
use trunkline_tests::call::{Answered, LIMIT, place};

/// The number of the conference.
pub(crate) const CONFERENCE: &str = "+15550109999";

/// Both daemons with one member, hold music and digits that are shown.
pub(crate) fn daemons(member: Member, more: &str) -> Daemons {
    let site = Site {
        more: more.to_owned(),
        ..Site::with_members(vec![member])
    };
    let daemons = Daemons::start_with(site, |node| {
        node.log = "info,trunkline_control=debug".to_owned();
        node.more = "[media]\nhold_music = \"hold.wav\"\ndtmf_values = true\n".to_owned();
        for directory in ["prompts", "recordings"] {
            fs::create_dir_all(node.state_dir.join(directory)).unwrap();
        }
        fs::write(node.state_dir.join("prompts/hold.wav"), tone_wav()).unwrap();
    });
    daemons.unwrap()
}

/// A conference at [`CONFERENCE`] for the site file.
pub(crate) fn conference(name: &str, more: &str) -> String {
    format!(
        "\n[[conference]]\nname = \"{name}\"\ntenant = \"test\"\ndid = \"{CONFERENCE}\"\n{more}"
    )
}

/// Half a second of 500 Hz as 16-bit PCM at 8 kHz, of amplitude 8000.
pub(crate) fn tone_wav() -> Vec<u8> {
    let samples = crate::audio::sines(8_000, &[500.0], 8_000.0, 4_000);
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
    wav.extend(
        samples
            .iter()
            .flat_map(|sample| (*sample as i16).to_le_bytes()),
    );
    wav
}

/// A call from the carrier to member 0, answered, with everything it hangs on.
pub(crate) struct Line {
    pub(crate) hub: MediaHub,
    pub(crate) call: Answered,
    /// As `calls` shows it.
    pub(crate) id: String,
    _ends: [Phone; 2],
}

/// The carrier calls member 0; both sides have PCMU and telephone events.
pub(crate) fn line(daemons: &Daemons) -> Line {
    let both = || vec![Codec::pcmu(), Codec::telephone_event(101)];
    line_with(daemons, both(), both())
}

/// The same with these formats of the caller and of the phone.
pub(crate) fn line_with(daemons: &Daemons, caller: Vec<Codec>, callee: Vec<Codec>) -> Line {
    let hub = MediaHub::start().unwrap();
    let (carrier, phone) = (daemons.carrier().unwrap(), daemons.member_phone(0).unwrap());
    let did = daemons.member(0).unwrap().did.clone();
    let call = place_with(&hub, (&carrier, caller), &did, (&phone, callee));
    let id = the_call(daemons)["call_id"].as_str().unwrap().to_owned();
    Line {
        hub,
        call,
        id,
        _ends: [carrier, phone],
    }
}

fn with_codecs(rtp: SocketAddr, codecs: Vec<Codec>) -> AudioDescription {
    AudioDescription {
        codecs,
        ..AudioDescription::pcmu(rtp)
    }
}

fn place_with(
    hub: &MediaHub,
    (carrier, offered): (&Phone, Vec<Codec>),
    did: &str,
    (phone, answered): (&Phone, Vec<Codec>),
) -> Answered {
    let caller_rtp = hub.endpoint(carrier.local_addr().ip()).unwrap();
    let callee_rtp = hub.endpoint(phone.local_addr().ip()).unwrap();
    let offer = with_codecs(caller_rtp.local_addr(), offered);
    let outgoing = carrier.call(did, offer).unwrap();
    let incoming = phone.wait_call(LIMIT).unwrap();
    let answer = with_codecs(callee_rtp.local_addr(), answered);
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

/// The carrier calls the member at `phone`, as most calls are.
pub(crate) fn plain_call(daemons: &Daemons, hub: &MediaHub, phone: &Phone) -> (Phone, Answered) {
    let carrier = daemons.carrier().unwrap();
    let call = place(hub, &carrier, &daemons.member(0).unwrap().did, phone).unwrap();
    (carrier, call)
}

/// Where a call's side sends its media.
pub(crate) fn remote(call: &Call) -> SocketAddr {
    call.remote_media().unwrap().rtp
}

/// Sends `frames` frames of speech to where the call's far side listens, and waits until they are
/// sent and have arrived.
pub(crate) fn speak(call: &Call, rtp: &RtpEndpoint, payload_type: u8, frames: usize) {
    rtp.speak(remote(call), payload_type, speech::caller(), frames);
    assert!(rtp.wait_spoken(Duration::from_secs(20)));
    std::thread::sleep(Duration::from_millis(200));
}

/// The same with µ-law frames.
pub(crate) fn send(call: &Call, rtp: &RtpEndpoint, frames: &[Vec<u8>]) {
    rtp.send_payloads(remote(call), 0, (frames, 160), frames.len());
    assert!(rtp.wait_spoken(Duration::from_secs(20)));
    std::thread::sleep(Duration::from_millis(200));
}

/// A telephone event as a phone sends it (RFC 4733 §2.5): 100 ms of `code`, three ends.
pub(crate) fn send_event(rtp: &RtpEndpoint, to: SocketAddr, payload_type: u8, code: u8) {
    for step in 1..=7u16 {
        let header = PacketHeader {
            payload_type,
            marker: step == 1,
            sequence: 1_000 + step + 16 * u16::from(code),
            timestamp: 4_000 + 1_600 * u32::from(code),
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

/// The digits whose telephone events an endpoint has heard to their end, in order.
pub(crate) fn events_heard(rtp: &RtpEndpoint) -> Vec<u8> {
    let heard = rtp.received();
    let ends = heard
        .iter()
        .filter(|packet| packet.header.payload_type == 101 && packet.payload[1] & 0x80 != 0)
        .map(|packet| (packet.header.timestamp, packet.payload[0]));
    let mut digits: Vec<(u32, u8)> = ends.collect();
    digits.dedup();
    digits.into_iter().map(|(_, code)| code).collect()
}

/// Runs a command of `trunkline-control`; words are parted by blanks.
pub(crate) fn control(daemons: &Daemons, words: &str) -> String {
    let words: Vec<&OsStr> = words.split(' ').map(OsStr::new).collect();
    daemons.control_command(&words).unwrap()
}

/// What a command that is refused says.
pub(crate) fn refusal(daemons: &Daemons, words: &str) -> String {
    let all: Vec<&OsStr> = words.split(' ').map(OsStr::new).collect();
    let output = daemons.control_output(&all).unwrap();
    assert!(!output.status.success(), "{words} was done");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What a command prints that prints one JSON value.
pub(crate) fn json(daemons: &Daemons, words: &str) -> Value {
    serde_json::from_str(&control(daemons, words)).unwrap()
}

/// The only live call.
pub(crate) fn the_call(daemons: &Daemons) -> Value {
    let calls = json(daemons, "calls --json");
    assert_eq!(calls["total"], 1, "{calls}");
    calls["calls"][0].clone()
}

/// What has happened in a call, of one kind.
pub(crate) fn happened(daemons: &Daemons, id: &str, kind: &str) -> Vec<Value> {
    let report = json(daemons, &format!("call {id} events --json"));
    let events = report["events"].as_array().unwrap().iter();
    events
        .filter(|event| event["event"] == kind)
        .cloned()
        .collect()
}

/// Waits until `count` things of a kind have happened in a call.
pub(crate) fn wait_happened(daemons: &Daemons, id: &str, kind: &str, count: usize) -> Vec<Value> {
    let mut events = Vec::new();
    wait_until(kind, || {
        events = happened(daemons, id, kind);
        events.len() >= count
    });
    events
}

/// Where recordings lie.
pub(crate) fn recordings_dir(daemons: &Daemons) -> PathBuf {
    daemons.node().state_dir.join("recordings")
}

/// Waits until `count` recordings are over, the newest first.
pub(crate) fn wait_recordings(daemons: &Daemons, count: usize) -> Vec<Value> {
    let mut all = Vec::new();
    wait_until("recordings' ends", || {
        let lines = control(daemons, "recordings --json");
        let lines = lines.lines().map(serde_json::from_str::<Value>);
        all = lines.collect::<Result<_, _>>().unwrap();
        all.len() >= count
    });
    all
}

/// SHA-256 of a file, as records have it.
pub(crate) fn sha256(file: &[u8]) -> String {
    use sha2::Digest as _;
    let sum = sha2::Sha256::digest(file);
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
