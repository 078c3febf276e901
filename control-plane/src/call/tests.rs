use std::net::{IpAddr, SocketAddr};

use trunkline_edge_api::{LocalMedia, MediaDirection, RtcpMode, SourcePolicy, Ssrc};
use trunkline_sip::entropy::SeededEntropy;
use trunkline_sip::offer_answer::{KeySource, MediaAddresses, SrtpPolicy};

use bytes::Bytes;
use trunkline_edge_api::{CloseCause, Digit, LegReport, MediaTimeoutKind};
use trunkline_sip::InfoDigit;
use trunkline_sip::agent::{InviteRequest, NameAddr};
use trunkline_sip::flow::Flow;
use trunkline_sip::offer_answer::{Conversion, TranscodingPolicy};

use super::*;
use crate::cdr::{CallDirection, EndCause, LegMedia, LegQuality};
use crate::edge::MediaRefused;

const START: MonoTime = MonoTime(5_000_000_000);
const START_UNIX_MS: i64 = 1_700_000_000_000;

fn sdp(port: u16, formats: &str, direction: &str) -> Bytes {
    Bytes::from(format!(
        "v=0\r\no=- 1 1 IN IP4 192.0.2.7\r\ns=-\r\nc=IN IP4 192.0.2.7\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP {formats}\r\na=rtpmap:101 telephone-event/8000\r\na={direction}\r\n"
    ))
}

fn record() -> CallRecord {
    CallRecord {
        call_id: "1-0".to_owned(),
        start_unix_ms: START_UNIX_MS,
        answer_unix_ms: None,
        end_unix_ms: START_UNIX_MS,
        direction: CallDirection::Inbound,
        trunk: Some("carrier".to_owned()),
        tenant: Some("demo".to_owned()),
        did: Some("+12025550100".to_owned()),
        caller: "+12025550199".to_owned(),
        callee: Some("100".to_owned()),
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
    }
}

const FIRST: ForkId = ForkId(0);

fn callee(name: &str, srtp: SrtpPolicy) -> Callee {
    let uri: sipx_sip::Uri = trunkline_sip::identity::user_at(name, "192.0.2.50").expect("a URI");
    let party = NameAddr {
        display_name: None,
        uri: uri.clone(),
    };
    let flow = Flow::udp(
        "198.51.100.1:5060".parse().expect("an address"),
        "192.0.2.50:5060".parse().expect("an address"),
    );
    Callee {
        name: name.to_owned(),
        trunk: None,
        request: InviteRequest {
            target: uri,
            flow,
            from: party.clone(),
            to: party,
            max_forwards: 69,
            headers: Vec::new(),
            offer: Bytes::new(),
            credentials: None,
        },
        media: CalleeMedia {
            srtp,
            transcoding: TranscodingPolicy::off(),
            dtmf: Dtmf::default(),
            nat: None,
            interface: None,
            media_from: None,
        },
    }
}

fn round(callees: Vec<Callee>) -> Round {
    Round {
        callees,
        ring_timeout_secs: 30,
    }
}

fn call() -> Call {
    Call::new(setup_to(SrtpPolicy::Off))
}

/// A call to a member with this policy.
fn setup_to(member: SrtpPolicy) -> CallSetup {
    let address: IpAddr = "198.51.100.1".parse().expect("an address");
    let addresses = MediaAddresses::new(&[address.into()]);
    let mut negotiation = MediaNegotiation::new(
        addresses.expect("one address"),
        [SrtpPolicy::Off, member],
        KeySource::draw(&mut SeededEntropy::new(1)),
    );
    negotiation
        .offer_from_caller(&sdp(4_000, "0 8 101", "sendrecv"))
        .expect("a common codec");
    CallSetup {
        record: record(),
        started_at: START,
        first_round: round(vec![callee("100", member)]),
        early_media: EarlyMedia::default(),
        media_timeouts: MediaTimeouts::default(),
        nat: None,
        dtmf: Dtmf::default(),
        has_hold_music: false,
        sdp_session_ids: [11, 22],
        negotiation,
    }
}

fn local() -> LocalPair {
    [30_000, 30_002].map(|port| LocalMedia {
        rtp: SocketAddr::new("198.51.100.1".parse().expect("an address"), port),
        rtcp: RtcpMode::Separate,
        ssrc: Ssrc(1),
    })
}

/// Runs `input` at `secs` after the start and returns what the machine wants done.
fn after(call: &mut Call, secs: u64, input: Input) -> Vec<Output> {
    call.handle(START.plus_secs(secs), input);
    std::iter::from_fn(|| call.poll_output()).collect()
}

/// The same, where nobody else is to be rung.
fn after_the_last(call: &mut Call, secs: u64, input: Input) -> Vec<Output> {
    let mut outputs = after(call, secs, input);
    assert!(matches!(outputs.pop(), Some(Output::Locate(_))));
    outputs.extend(after(call, secs, Input::NobodyLeft));
    outputs
}

/// Runs `input`, then lets the edge take what it was told.
fn after_and_configured(call: &mut Call, secs: u64, input: Input) -> Vec<Output> {
    let mut outputs = after(call, secs, input);
    assert!(
        outputs
            .iter()
            .all(|output| !matches!(output, Output::AnswerCaller(_) | Output::AcceptOffer(..))),
        "described before the edge was ready: {:?}",
        names(&outputs)
    );
    outputs.extend(after(call, secs, Input::MediaConfigured));
    outputs
}

fn names(outputs: &[Output]) -> Vec<String> {
    // What both legs' formats are is always said; that the edge must convert is worth a word.
    let is_told = |output: &&Output| {
        let is_plain = |output: &Output| {
            matches!(
                output,
                Output::SetAudio {
                    conversion: Conversion::None,
                    ..
                }
            )
        };
        !is_plain(output)
    };
    outputs
        .iter()
        .filter(is_told)
        .map(|output| match output {
            Output::SetAudio { .. } => "convert".to_owned(),
            Output::SetDigits(leg, _) => format!("digits {leg:?}"),
            Output::StartSound(leg, Sound::HoldMusic) => format!("music {leg:?}"),
            Output::StartSound(leg, Sound::Ringback) => format!("ringback {leg:?}"),
            Output::StopSound(leg) => format!("no sound {leg:?}"),
            Output::SendDigit(leg, digit, dtmf) => {
                format!("send {} {leg:?} {dtmf}", digit.as_char())
            }
            Output::SayDigit(leg, digit) => format!("say {} {leg:?}", digit.digit.as_char()),
            Output::PlayTone(_) => "tone".to_owned(),
            Output::CheckPin(..) => "check".to_owned(),
            Output::Join => "join".to_owned(),
            Output::OpenMedia => "open".to_owned(),
            Output::ConfigureMedia(leg, _) => format!("configure {leg:?}"),
            Output::CloseMedia => "close".to_owned(),
            Output::Invite(fork, _) => format!("invite {}", fork.0),
            Output::Withdraw(fork, Withdrawal::AnsweredElsewhere) => {
                format!("elsewhere {}", fork.0)
            }
            Output::Withdraw(fork, Withdrawal::NoLongerWanted) => format!("withdraw {}", fork.0),
            Output::Connect(fork, leg) => format!("connect {} {leg:?}", fork.0),
            Output::Locate(cause) => format!("locate {cause:?}"),
            Output::Progress { status, sdp } => {
                format!(
                    "progress {status}{}",
                    if sdp.is_some() { " sdp" } else { "" }
                )
            }
            Output::AnswerCaller(_) => "answer".to_owned(),
            Output::RejectCaller { status, .. } => format!("reject {status}"),
            Output::Reinvite(leg, _) => format!("reinvite {leg:?}"),
            Output::AcceptOffer(leg, _) => format!("accept {leg:?}"),
            Output::RejectOffer(leg, status) => format!("refuse {leg:?} {status}"),
            Output::Hangup(leg) => format!("hangup {leg:?}"),
            Output::Record(_) => "record".to_owned(),
        })
        .collect()
}

fn ringing() -> Call {
    let mut call = call();
    assert_eq!(
        names(&std::iter::from_fn(|| call.poll_output()).collect::<Vec<_>>()),
        ["open"]
    );
    assert_eq!(
        names(&after(&mut call, 0, Input::MediaOpened(local()))),
        ["invite 0"]
    );
    call
}

fn up() -> Call {
    let mut call = ringing();
    let answered = Input::CalleeAnswered {
        fork: FIRST,
        sdp: Some(sdp(5_000, "0 101", "sendrecv")),
    };
    assert_eq!(
        names(&after_and_configured(&mut call, 4, answered)),
        ["connect 0 B", "configure A", "configure B", "answer"]
    );
    call
}

fn recorded(outputs: &[Output]) -> &CallRecord {
    match outputs.last() {
        Some(Output::Record(record)) => record,
        other => panic!("expected a record last, got {other:?}"),
    }
}

fn closed() -> Input {
    let leg = |rx_packets, tx_packets| LegReport {
        rx_packets,
        tx_packets,
        lost_packets: 3,
        mos_centi: 410,
        ..LegReport::default()
    };
    Input::MediaClosed {
        cause: Some(CloseCause::Commanded),
        legs: Some([leg(10, 20), leg(20, 10)]),
    }
}

#[test]
fn answered_call_is_recorded_with_its_times_sides_and_packets() {
    let mut call = up();
    let bye = Input::LegEnded {
        leg: LegIndex::B,
        by: EndedBy::Bye,
    };
    assert_eq!(
        names(&after(&mut call, 64, bye)),
        ["hangup A", "hangup B", "close"]
    );
    let outputs = after(&mut call, 65, closed());
    let record = recorded(&outputs);
    assert_eq!(record.result, CallResult::Answered);
    assert_eq!(record.ended_by, EndedBySide::Callee);
    assert_eq!(record.setup_ms, Some(4_000));
    assert_eq!(record.duration_ms, 60_000);
    assert_eq!(record.answer_unix_ms, Some(START_UNIX_MS + 4_000));
    assert_eq!(record.end_unix_ms, START_UNIX_MS + 64_000);
    assert_eq!(record.caller_codec.as_deref(), Some("PCMU"));
    assert_eq!(
        record.caller_media,
        LegMedia {
            rx_packets: 10,
            tx_packets: 20,
            quality: LegQuality {
                lost_packets: 3,
                mos_centi: 410,
                ..LegQuality::default()
            },
        }
    );
}

#[test]
fn silence_of_an_answered_call_ends_it_with_its_cause() {
    for (kind, cause) in [
        (MediaTimeoutKind::NeverStarted, EndCause::MediaNeverStarted),
        (MediaTimeoutKind::Stopped, EndCause::MediaStopped),
        (MediaTimeoutKind::Held, EndCause::HeldTooLong),
    ] {
        let silence = |leg| Input::MediaTimedOut { leg, kind };
        let mut ringing = ringing();
        assert!(after(&mut ringing, 1, silence(LegIndex::A)).is_empty());

        let mut call = up();
        assert_eq!(
            names(&after(&mut call, 64, silence(LegIndex::B))),
            ["hangup A", "hangup B", "close"]
        );
        assert!(after(&mut call, 64, silence(LegIndex::A)).is_empty());
        let outputs = after(&mut call, 65, closed());
        let record = recorded(&outputs);
        assert_eq!(record.end_cause, Some(cause));
        assert_eq!(record.ended_by, EndedBySide::Node);
        assert_eq!(record.result, CallResult::Answered);
        assert_eq!(record.duration_ms, 60_000);
    }
}

#[test]
fn every_leg_is_given_the_limits_of_silence() {
    let mut call = ringing();
    let answered = Input::CalleeAnswered {
        fork: FIRST,
        sdp: Some(sdp(5_000, "0 101", "sendrecv")),
    };
    let outputs = after(&mut call, 4, answered);
    let limits = outputs.iter().filter_map(|output| match output {
        Output::ConfigureMedia(_, config) => Some(config.timeouts),
        _ => None,
    });
    assert_eq!(limits.collect::<Vec<_>>(), [MediaTimeouts::default(); 2]);
}

#[test]
fn nobody_is_heard_before_an_answer_names_the_member() {
    let mut call = ringing();
    assert_eq!(
        names(&after(
            &mut call,
            1,
            Input::CalleeProgress {
                fork: FIRST,
                status: 180,
                sdp: None
            }
        )),
        ["progress 180"]
    );
    let early = Input::CalleeProgress {
        fork: FIRST,
        status: 183,
        sdp: Some(sdp(5_000, "0 101", "sendrecv")),
    };
    let outputs = after_and_configured(&mut call, 2, early);
    assert_eq!(
        names(&outputs),
        ["configure A", "configure B", "progress 183 sdp"]
    );
    let Output::ConfigureMedia(LegIndex::B, config) = &outputs[1] else {
        panic!("leg B is second")
    };
    assert_eq!(config.source, SourcePolicy::Exact);
    assert_eq!(
        config.remote_rtp,
        Some("192.0.2.7:5000".parse().expect("an address"))
    );
    assert_eq!(config.direction, MediaDirection::SendReceive);
}

#[test]
fn answer_without_sdp_repeats_the_early_answer() {
    let mut call = ringing();
    let early = Input::CalleeProgress {
        fork: FIRST,
        status: 183,
        sdp: Some(sdp(5_000, "0 101", "sendrecv")),
    };
    let outputs = after_and_configured(&mut call, 1, early);
    let Some(Output::Progress {
        sdp: Some(early_sdp),
        ..
    }) = outputs.last()
    else {
        panic!("early media is passed on")
    };
    let outputs = after_and_configured(
        &mut call,
        2,
        Input::CalleeAnswered {
            fork: FIRST,
            sdp: None,
        },
    );
    let Some(Output::AnswerCaller(answer)) = outputs.last() else {
        panic!("the caller is answered")
    };
    assert_eq!(answer, early_sdp);
}

#[test]
fn refusals_reach_the_caller_as_what_they_mean_to_it() {
    for (from_member, to_caller, result) in [
        (486, 486, CallResult::Busy),
        (600, 486, CallResult::Busy),
        (603, 603, CallResult::Declined),
        (488, 488, CallResult::NoCommonCodec),
        (408, 480, CallResult::NoAnswer),
        (480, 480, CallResult::NoAnswer),
        (401, 480, CallResult::Failed),
        (503, 480, CallResult::Failed),
    ] {
        let mut call = ringing();
        let outputs = after_the_last(
            &mut call,
            1,
            Input::CalleeRejected {
                fork: FIRST,
                status: from_member,
            },
        );
        assert_eq!(
            names(&outputs),
            [
                &format!("reject {to_caller}"),
                "hangup A",
                "hangup B",
                "close"
            ],
            "{from_member}"
        );
        let outputs = after(&mut call, 1, closed());
        assert_eq!(recorded(&outputs).result, result, "{from_member}");
        assert_eq!(recorded(&outputs).sip_status, Some(to_caller));
    }
}

#[test]
fn phone_that_rings_too_long_is_given_up() {
    let mut call = ringing();
    assert_eq!(call.poll_timeout(), Some(START.plus_secs(30)));
    let outputs = after_the_last(&mut call, 30, Input::Timeout);
    assert_eq!(
        names(&outputs),
        ["withdraw 0", "reject 480", "hangup A", "hangup B", "close"]
    );
    assert_eq!(call.poll_timeout(), None);
    let outputs = after(&mut call, 30, closed());
    assert_eq!(recorded(&outputs).result, CallResult::NoAnswer);
}

#[test]
fn caller_that_gives_up_cancels_the_member() {
    let mut call = ringing();
    let cancelled = Input::LegEnded {
        leg: LegIndex::A,
        by: EndedBy::Cancelled,
    };
    assert_eq!(
        names(&after(&mut call, 3, cancelled)),
        ["withdraw 0", "hangup A", "hangup B", "close"]
    );
    // The member's 200 crossed the CANCEL: the agent hangs that up, and the call stays closed.
    let late = Input::CalleeAnswered {
        fork: FIRST,
        sdp: Some(sdp(5_000, "0", "sendrecv")),
    };
    assert!(after(&mut call, 3, late).is_empty());
    let outputs = after(&mut call, 3, closed());
    assert_eq!(recorded(&outputs).result, CallResult::Canceled);
    assert_eq!(recorded(&outputs).sip_status, Some(487));
}

#[test]
fn call_without_media_ports_is_refused_and_never_invites() {
    let mut call = call();
    call.poll_output();
    let outputs = after(
        &mut call,
        0,
        Input::MediaRefused {
            reason: MediaRefused::NoPorts,
        },
    );
    assert_eq!(
        names(&outputs),
        ["reject 503", "hangup A", "hangup B", "close"]
    );
    let outputs = after(&mut call, 0, closed());
    let record = recorded(&outputs);
    assert_eq!(record.end_cause, Some(EndCause::NoMediaPorts));
    assert_eq!(record.sip_status, Some(503));
}

#[test]
fn answer_without_a_common_codec_ends_the_call_with_488() {
    let mut call = ringing();
    let answered = Input::CalleeAnswered {
        fork: FIRST,
        sdp: Some(sdp(5_000, "18", "sendrecv")),
    };
    let outputs = after_the_last(&mut call, 1, answered);
    assert_eq!(
        names(&outputs),
        ["withdraw 0", "reject 488", "hangup A", "hangup B", "close"]
    );
}

#[test]
fn offer_before_the_answer_is_asked_to_come_again() {
    let mut call = ringing();
    let offer = Input::Offer {
        leg: LegIndex::A,
        sdp: sdp(4_000, "0 101", "sendonly"),
    };
    assert_eq!(names(&after(&mut call, 1, offer)), ["refuse A 491"]);
}

#[test]
fn hold_travels_to_the_far_side_and_its_answer_back() {
    let mut call = up();
    let hold = Input::Offer {
        leg: LegIndex::A,
        sdp: sdp(4_000, "0 101", "sendonly"),
    };
    let outputs = after(&mut call, 10, hold);
    assert_eq!(names(&outputs), ["reinvite B"]);
    let Output::Reinvite(_, offer) = &outputs[0] else {
        unreachable!()
    };
    assert!(String::from_utf8_lossy(offer).contains("a=sendonly"));

    let result = Ok(sdp(5_000, "0 101", "recvonly"));
    let outputs = after_and_configured(
        &mut call,
        11,
        Input::OfferAnswered {
            leg: LegIndex::B,
            result,
        },
    );
    assert_eq!(names(&outputs), ["configure A", "configure B", "accept A"]);
    let Output::ConfigureMedia(_, config) = &outputs[0] else {
        unreachable!()
    };
    assert_eq!(config.direction, MediaDirection::ReceiveOnly);
}

#[test]
fn refused_reoffer_leaves_the_media_as_it_was() {
    let mut call = up();
    let offer = Input::Offer {
        leg: LegIndex::B,
        sdp: sdp(5_002, "0 101", "sendrecv"),
    };
    assert_eq!(names(&after(&mut call, 10, offer)), ["reinvite A"]);
    let refused = Input::OfferAnswered {
        leg: LegIndex::A,
        result: Err(500),
    };
    assert_eq!(names(&after(&mut call, 11, refused)), ["refuse B 488"]);
    let again = Input::Offer {
        leg: LegIndex::B,
        sdp: sdp(5_002, "0 101", "sendrecv"),
    };
    assert_eq!(names(&after(&mut call, 12, again)), ["reinvite A"]);
}

#[test]
fn second_offer_while_one_is_open_is_told_to_wait() {
    let mut call = up();
    let offer = |leg| Input::Offer {
        leg,
        sdp: sdp(4_000, "0 101", "sendrecv"),
    };
    assert_eq!(
        names(&after(&mut call, 10, offer(LegIndex::A))),
        ["reinvite B"]
    );
    assert_eq!(
        names(&after(&mut call, 10, offer(LegIndex::B))),
        ["refuse B 491"]
    );
}

#[test]
fn offer_without_a_usable_codec_is_refused_and_the_call_goes_on() {
    let mut call = up();
    let offer = Input::Offer {
        leg: LegIndex::A,
        sdp: sdp(4_000, "19", "sendrecv"),
    };
    assert_eq!(names(&after(&mut call, 10, offer)), ["refuse A 488"]);
    assert_eq!(call.state_name(), "up");
}

#[test]
fn media_lost_in_mid_call_hangs_both_sides_up() {
    let mut call = up();
    let outputs = after(&mut call, 10, closed());
    assert_eq!(names(&outputs), ["hangup A", "hangup B", "close", "record"]);
    assert_eq!(recorded(&outputs).ended_by, EndedBySide::Node);
}

#[test]
fn every_state_ends_with_exactly_one_record_on_shutdown() {
    for mut call in [call(), ringing(), up()] {
        let mut outputs = after(&mut call, 20, Input::Shutdown);
        outputs.extend(after(&mut call, 20, closed()));
        outputs.extend(after(&mut call, 20, closed()));
        let records = outputs
            .iter()
            .filter(|o| matches!(o, Output::Record(_)))
            .count();
        assert_eq!(records, 1);
        assert_eq!(call.state_name(), "closed");
    }
}

#[test]
fn member_that_refuses_srtp_is_asked_again_with_plain_rtp_where_it_is_only_preferred() {
    let offered = |outputs: &[Output]| match outputs {
        [Output::Invite(_, request)] => String::from_utf8_lossy(&request.offer).into_owned(),
        other => panic!("expected an invitation, got {:?}", names(other)),
    };
    for status in [415, 488, 606] {
        let mut call = Call::new(setup_to(SrtpPolicy::Preferred));
        while call.poll_output().is_some() {}
        let first = offered(&after(&mut call, 0, Input::MediaOpened(local())));
        assert!(first.contains("RTP/SAVP"), "{first}");
        let again = offered(&after(
            &mut call,
            1,
            Input::CalleeRejected {
                fork: FIRST,
                status,
            },
        ));
        assert!(
            again.contains("RTP/AVP") && !again.contains("a=crypto"),
            "{again}"
        );
        let outputs = after_the_last(
            &mut call,
            2,
            Input::CalleeRejected {
                fork: FIRST,
                status,
            },
        );
        assert!(
            names(&outputs)[0].starts_with("reject"),
            "asked once more, not for ever"
        );
    }
    for (policy, status) in [
        (SrtpPolicy::Required, 488),
        (SrtpPolicy::Off, 488),
        (SrtpPolicy::Preferred, 486),
    ] {
        let mut call = Call::new(setup_to(policy));
        while call.poll_output().is_some() {}
        offered(&after(&mut call, 0, Input::MediaOpened(local())));
        let outputs = after_the_last(
            &mut call,
            1,
            Input::CalleeRejected {
                fork: FIRST,
                status,
            },
        );
        assert_eq!(names(&outputs)[0], format!("reject {status}"), "{policy}");
    }
}

/// An answered call whose sides take digits so.
fn up_with(setup: impl FnOnce(&mut CallSetup), answer: Bytes) -> (Call, Vec<String>) {
    let mut setup_of = setup_to(SrtpPolicy::Off);
    setup(&mut setup_of);
    let mut call = Call::new(setup_of);
    after(&mut call, 0, Input::MediaOpened(local()));
    let answered = Input::CalleeAnswered {
        fork: FIRST,
        sdp: Some(answer),
    };
    let mut outputs = after(&mut call, 1, answered);
    outputs.extend(after(&mut call, 1, Input::MediaConfigured));
    (call, names(&outputs))
}

fn set_dtmf(setup: &mut CallSetup, caller: Dtmf, callee: Dtmf) {
    setup.dtmf = caller;
    setup.first_round.callees[0].media.dtmf = callee;
}

fn heard(leg: LegIndex) -> Input {
    Input::DigitHeard {
        leg,
        digit: Digit::from_char('7').expect("a digit"),
        duration_millis: 120,
    }
}

fn said(leg: LegIndex) -> Input {
    Input::DigitSaid {
        leg,
        digit: InfoDigit::parse(b"Signal=7").expect("a digit"),
    }
}

#[test]
fn digits_cross_in_the_form_that_the_far_side_takes() {
    use Dtmf::{InBand, Info, Rfc4733};
    use LegIndex::{A, B};
    // Caller's way, member's way, what is heard or said where, what is done.
    let rows: &[(Dtmf, Dtmf, Input, &[&str])] = &[
        // The edge passes events and tones on by itself.
        (Rfc4733, Rfc4733, heard(A), &[]),
        (InBand, Rfc4733, heard(A), &[]),
        (Rfc4733, Info, heard(A), &["say 7 B"]),
        (Info, Rfc4733, heard(B), &["say 7 A"]),
        (Rfc4733, Info, said(B), &["send 7 A rfc4733"]),
        (Info, Rfc4733, said(A), &["send 7 B rfc4733"]),
        (Info, InBand, said(A), &["send 7 B inband"]),
        (Info, Info, said(A), &["say 7 B"]),
    ];
    for (caller, member, input, expected) in rows {
        let answer = sdp(5_000, "0 101", "sendrecv");
        let (mut call, _) = up_with(|setup| set_dtmf(setup, *caller, *member), answer);
        let input = match input {
            Input::DigitHeard { leg, .. } => heard(*leg),
            Input::DigitSaid { leg, .. } => said(*leg),
            other => panic!("no digit: {other:?}"),
        };
        let outputs = after(&mut call, 2, input);
        assert_eq!(names(&outputs), *expected, "{caller} to {member}");
    }
}

#[test]
fn digits_that_go_on_as_info_are_hidden_from_the_media() {
    let answer = sdp(5_000, "0 101", "sendrecv");
    let (_, outputs) = up_with(|setup| set_dtmf(setup, Dtmf::Rfc4733, Dtmf::Info), answer);
    assert_eq!(
        outputs,
        [
            "connect 0 B",
            "configure A",
            "configure B",
            "convert",
            "digits A",
            "answer"
        ]
    );
    assert!(Dtmf::Rfc4733.functions(Dtmf::Info).hides_digits);
    assert!(Dtmf::InBand.functions(Dtmf::Info).detects_tones);
    assert!(!Dtmf::InBand.functions(Dtmf::InBand).detects_tones);
}

#[test]
fn sides_without_a_common_codec_are_converted_and_recorded_as_such() {
    use trunkline_edge_api::AudioCodec;
    use trunkline_sip::offer_answer::{Transcode, TranscodingPolicy};
    let answer = Bytes::from(
        String::from_utf8_lossy(&sdp(5_000, "9 101", "sendrecv"))
            .replace("a=send", "a=rtpmap:9 G722/8000\r\na=send"),
    );
    let allow = |setup: &mut CallSetup| {
        let policy = TranscodingPolicy {
            transcode: Transcode::WhenNeeded,
            codecs: vec![AudioCodec::G722],
        };
        setup
            .negotiation
            .allow_transcoding(LegIndex::A, policy.clone());
        setup.first_round.callees[0].media.transcoding = policy;
    };
    let (call, outputs) = up_with(allow, answer);
    assert_eq!(
        outputs,
        [
            "connect 0 B",
            "configure A",
            "configure B",
            "convert",
            "answer"
        ]
    );
    assert_eq!(call.record().caller_codec.as_deref(), Some("PCMU"));
    assert_eq!(call.record().callee_codec.as_deref(), Some("G722"));
}

#[test]
fn held_side_hears_music_until_it_is_taken_back() {
    let answer = sdp(5_000, "0 101", "sendrecv");
    let (mut call, outputs) = up_with(|setup| setup.has_hold_music = true, answer);
    assert!(!outputs.iter().any(|output| output.contains("music")));
    for (direction, answer, expected) in [
        ("sendonly", "recvonly", Some("music B")),
        ("inactive", "recvonly", None),
        ("sendrecv", "sendrecv", Some("no sound B")),
    ] {
        let offer = Input::Offer {
            leg: LegIndex::A,
            sdp: sdp(4_000, "0 101", direction),
        };
        after(&mut call, 5, offer);
        let answered = Input::OfferAnswered {
            leg: LegIndex::B,
            result: Ok(sdp(5_000, "0 101", answer)),
        };
        let outputs = names(&after(&mut call, 5, answered));
        let music: Vec<&String> = outputs
            .iter()
            .filter(|o| o.contains("music") || o.contains("sound"))
            .collect();
        assert_eq!(
            music,
            expected.into_iter().collect::<Vec<_>>(),
            "{direction}"
        );
        after(&mut call, 5, Input::MediaConfigured);
    }
}

mod hunting;
