use std::net::SocketAddr;

use bytes::Bytes;
use trunkline_edge_api::{CloseCause, LocalMedia, RtcpMode, Ssrc};
use trunkline_sip::entropy::SeededEntropy;
use trunkline_sip::offer_answer::{KeySource, MediaAddresses, SrtpPolicy};

use super::*;
use crate::cdr::{CallDirection, LegMedia};

const START: MonoTime = MonoTime(5_000_000_000);

fn sdp(formats: &str, direction: &str) -> Bytes {
    Bytes::from(format!(
        "v=0\r\no=- 1 1 IN IP4 192.0.2.7\r\ns=-\r\nc=IN IP4 192.0.2.7\r\nt=0 0\r\n\
         m=audio 4000 RTP/AVP {formats}\r\na=rtpmap:101 telephone-event/8000\r\na={direction}\r\n"
    ))
}

/// Of four digits; whether it is right the tests say themselves.
fn hash(pin: &str) -> PinHash {
    let digits = pin.len();
    let text = format!(
        "pbkdf2-sha256$1${digits}${}${}",
        "0".repeat(32),
        "0".repeat(64)
    );
    text.parse().expect("a hash")
}

fn call(formats: &str, pin: Option<&str>) -> ConferenceCall {
    let address: IpAddr = "198.51.100.1".parse().expect("an address");
    let mut negotiation = MediaNegotiation::new(
        MediaAddresses::new(&[address.into()]).expect("one address"),
        [SrtpPolicy::Off; 2],
        KeySource::draw(&mut SeededEntropy::new(1)),
    );
    negotiation
        .offer_from_caller(&sdp(formats, "sendrecv"))
        .expect("audio");
    ConferenceCall::new(ConferenceSetup {
        record: CallRecord {
            call_id: "1-0".to_owned(),
            start_unix_ms: 0,
            answer_unix_ms: None,
            end_unix_ms: 0,
            direction: CallDirection::Inbound,
            trunk: Some("carrier".to_owned()),
            tenant: Some("demo".to_owned()),
            did: None,
            caller: "+12025550199".to_owned(),
            callee: Some("standup".to_owned()),
            result: CallResult::Failed,
            sip_status: None,
            ended_by: EndedBySide::Node,
            end_cause: None,
            setup_ms: None,
            duration_ms: 0,
            caller_codec: None,
            callee_codec: None,
            caller_media: LegMedia::default(),
            callee_media: LegMedia::default(),
        },
        started_at: START,
        media_timeouts: MediaTimeouts::default(),
        nat: None,
        sdp_session_id: 11,
        negotiation,
        dtmf: Dtmf::Rfc4733,
        pin: pin.map(hash),
    })
}

fn local() -> LocalPair {
    [30_000, 0].map(|port| LocalMedia {
        rtp: SocketAddr::new("198.51.100.1".parse().expect("an address"), port),
        rtcp: RtcpMode::Separate,
        ssrc: Ssrc(1),
    })
}

/// Runs `input` at `secs` after the start and returns what the machine wants done.
fn after(call: &mut ConferenceCall, secs: u64, input: Input) -> Vec<&'static str> {
    call.handle(START.plus_secs(secs), input);
    std::iter::from_fn(|| call.poll_output())
        .map(|output| match output {
            Output::OpenMedia => "open",
            Output::ConfigureMedia(..) => "configure",
            Output::SetAudio { .. } => "audio",
            Output::AnswerCaller(_) => "answer",
            Output::AcceptOffer(..) => "accept",
            Output::RejectOffer(..) => "refuse",
            Output::SetDigits(_, functions) if functions.hides_digits => "hide",
            Output::SetDigits(..) => "show",
            Output::PlayTone(_) => "tone",
            Output::Join => "join",
            Output::CheckPin(..) => "check",
            Output::RejectCaller { status: 488, .. } => "reject 488",
            Output::RejectCaller { .. } => "reject",
            Output::Hangup(_) => "hangup",
            Output::CloseMedia => "close",
            Output::Record(_) => "record",
            other => panic!("not for a conference: {other:?}"),
        })
        .collect()
}

fn answered(call: &mut ConferenceCall) -> Vec<&'static str> {
    assert_eq!(
        after(call, 0, Input::MediaOpened(local())),
        ["open", "configure", "audio"],
        "no answer before the edge is ready"
    );
    after(call, 1, Input::MediaConfigured)
}

fn press(call: &mut ConferenceCall, digits: &str) -> Vec<&'static str> {
    let press = |symbol| Input::DigitHeard {
        leg: LegIndex::A,
        digit: Digit::from_char(symbol).expect("a digit"),
        duration_millis: 100,
    };
    let mut done = Vec::new();
    for symbol in digits.chars() {
        done.extend(after(call, 2, press(symbol)));
    }
    done
}

#[test]
fn caller_is_answered_by_us_and_joined() {
    let mut call = call("0 101", None);
    assert_eq!(answered(&mut call), ["answer", "join"]);
    assert_eq!(call.state_name(), "up");
    let bye = Input::LegEnded {
        leg: LegIndex::A,
        by: EndedBy::Bye,
    };
    assert_eq!(after(&mut call, 61, bye), ["hangup", "close"]);
    let closed = Input::MediaClosed {
        cause: Some(CloseCause::Commanded),
        legs: None,
    };
    assert_eq!(after(&mut call, 61, closed), ["record"]);
    let record = call.record();
    assert_eq!(record.result, CallResult::Answered);
    assert_eq!(record.ended_by, EndedBySide::Caller);
    assert_eq!((record.setup_ms, record.duration_ms), (Some(1_000), 60_000));
    assert_eq!(record.caller_codec.as_deref(), Some("PCMU"));
}

#[test]
fn pin_opens_the_door_at_the_second_try_and_its_digits_are_hidden() {
    let mut call = call("0 101", Some("2718"));
    assert_eq!(answered(&mut call), ["answer", "hide", "tone"]);
    let verdict = |call: &mut _, verdict| after(call, 2, Input::PinChecked(verdict));
    assert_eq!(press(&mut call, "2719"), ["check"]);
    assert_eq!(press(&mut call, "#1"), [""; 0], "while it is checked");
    assert_eq!(verdict(&mut call, PinVerdict::Wrong), ["tone"]);
    assert_eq!(press(&mut call, "#"), [""; 0], "the end of the wrong one");
    assert_eq!(press(&mut call, "2718"), ["check"]);
    assert_eq!(verdict(&mut call, PinVerdict::Unchecked), ["tone"]);
    assert_eq!(press(&mut call, "2718"), ["check"]);
    assert_eq!(verdict(&mut call, PinVerdict::Right), ["show", "join"]);
    assert_eq!(press(&mut call, "1"), [""; 0]);
    assert!(
        !format!("{call:?}").contains("2718"),
        "a PIN prints redacted"
    );
}

#[test]
fn wrong_pins_and_silence_end_the_call_after_three_tries() {
    let mut call = call("0 101", Some("2718"));
    answered(&mut call);
    assert_eq!(press(&mut call, "1#"), ["tone"]);
    assert_eq!(press(&mut call, "2719"), ["check"]);
    let at = call.poll_timeout().expect("patience ends");
    call.handle(at, Input::Timeout);
    assert_eq!(call.state_name(), "asking");
    let at = call.poll_timeout().expect("patience ends");
    call.handle(at, Input::Timeout);
    assert_eq!(call.state_name(), "closing");
}

#[test]
fn caller_without_a_codec_of_the_edge_is_refused() {
    let mut call = call("18", None);
    assert_eq!(
        after(&mut call, 0, Input::MediaOpened(local())),
        ["open", "reject 488", "hangup", "close"]
    );
    assert_eq!(call.record().result, CallResult::NoCommonCodec);
}

#[test]
fn hold_of_a_member_is_answered_once_the_edge_follows() {
    let mut call = call("0 101", None);
    answered(&mut call);
    let hold = Input::Offer {
        leg: LegIndex::A,
        sdp: sdp("0 101", "sendonly"),
    };
    assert_eq!(after(&mut call, 5, hold), ["configure", "audio"]);
    assert_eq!(after(&mut call, 5, Input::MediaConfigured), ["accept"]);
    let bad = Input::Offer {
        leg: LegIndex::A,
        sdp: sdp("18", "sendrecv"),
    };
    assert_eq!(after(&mut call, 6, bad), ["refuse"]);
}

#[test]
fn seat_that_the_edge_refuses_ends_the_call() {
    let mut call = call("0", None);
    answered(&mut call);
    assert_eq!(after(&mut call, 2, Input::NotJoined), ["hangup", "close"]);
}
