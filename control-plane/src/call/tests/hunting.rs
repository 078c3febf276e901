//! Several phones for one call: at once, and one after the other.

use super::*;

fn progress(fork: u32, status: u16, sdp: Option<Bytes>) -> Input {
    Input::CalleeProgress {
        fork: ForkId(fork),
        status,
        sdp,
    }
}

fn answered(fork: u32, port: u16, formats: &str) -> Input {
    Input::CalleeAnswered {
        fork: ForkId(fork),
        sdp: Some(sdp(port, formats, "sendrecv")),
    }
}

fn rejected(fork: u32, status: u16) -> Input {
    Input::CalleeRejected {
        fork: ForkId(fork),
        status,
    }
}

/// A call that rings these at once.
fn ringing_at(names_of: &[&str], setup: impl FnOnce(&mut CallSetup)) -> Call {
    let mut prepared = setup_to(SrtpPolicy::Off);
    let callees = names_of.iter().map(|name| callee(name, SrtpPolicy::Off));
    prepared.first_round = round(callees.collect());
    setup(&mut prepared);
    let mut call = Call::new(prepared);
    after(&mut call, 0, Input::MediaOpened(local()));
    call
}

fn sdp_of(output: Option<&Output>) -> &Bytes {
    match output {
        Some(Output::Progress { sdp: Some(sdp), .. } | Output::AnswerCaller(sdp)) => sdp,
        other => panic!("expected a description, got {other:?}"),
    }
}

#[test]
fn first_answer_wins_and_the_others_learn_that_it_was_elsewhere() {
    let mut call = ringing_at(&["100", "101", "102"], |_| {});
    let outputs = after_and_configured(&mut call, 3, answered(1, 5_002, "0 101"));
    let expected = [
        "connect 1 B",
        "elsewhere 0",
        "elsewhere 2",
        "configure A",
        "configure B",
        "answer",
    ];
    assert_eq!(names(&outputs), expected);
    assert_eq!(call.record().callee.as_deref(), Some("101"));
    // The 200 of another phone crossed its CANCEL: it changes nothing.
    assert!(after(&mut call, 3, answered(2, 5_004, "0 101")).is_empty());
}

#[test]
fn phones_that_ring_at_once_are_offered_different_keys_on_the_same_port() {
    let mut prepared = setup_to(SrtpPolicy::Off);
    let phones = ["100", "101"].map(|name| callee(name, SrtpPolicy::Required));
    prepared.first_round = round(phones.to_vec());
    let mut call = Call::new(prepared);
    while call.poll_output().is_some() {}
    let outputs = after(&mut call, 0, Input::MediaOpened(local()));
    let offers: Vec<String> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::Invite(_, request) => Some(String::from_utf8_lossy(&request.offer).into()),
            _ => None,
        })
        .collect();
    let line = |offer: &str, start: &str| {
        let mut lines = offer.lines().filter(|line| line.starts_with(start));
        lines.next().map(str::to_owned).expect("a line")
    };
    assert_eq!(offers.len(), 2);
    assert_ne!(
        line(&offers[0], "a=crypto"),
        line(&offers[1], "a=crypto"),
        "nobody can read what another was sent"
    );
    let media = [&offers[0], &offers[1]].map(|offer| line(offer, "m=audio"));
    assert_eq!(media[0], media[1]);
    assert_ne!(line(&offers[0], "o="), line(&offers[1], "o="));
}

#[test]
fn round_without_an_answer_goes_on_to_the_next_by_its_cause() {
    for (status, cause) in [
        (486, Cause::Busy),
        (600, Cause::Busy),
        (408, Cause::NoAnswer),
        (480, Cause::NoAnswer),
        (503, Cause::Failed),
        (603, Cause::Declined),
    ] {
        let mut call = ringing_at(&["100"], |_| {});
        let outputs = after(&mut call, 1, rejected(0, status));
        assert_eq!(names(&outputs), [format!("locate {cause:?}")]);
        let next = Input::Round(round(vec![callee("101", SrtpPolicy::Off)]));
        assert_eq!(names(&after(&mut call, 1, next)), ["invite 1"]);
        assert_eq!(call.poll_timeout(), Some(START.plus_secs(31)));
    }
}

#[test]
fn phone_that_refuses_leaves_the_others_ringing() {
    let mut call = ringing_at(&["100", "101"], |_| {});
    assert!(after(&mut call, 1, rejected(0, 486)).is_empty());
    let outputs = after(&mut call, 2, rejected(1, 480));
    // That somebody did not come says more than that another was busy.
    assert_eq!(names(&outputs), ["locate NoAnswer"]);
}

#[test]
fn decline_on_one_phone_silences_the_other_phones_of_that_member_alone() {
    let mut call = ringing_at(&["100", "100", "101"], |_| {});
    assert_eq!(
        names(&after(&mut call, 1, rejected(0, 603))),
        ["withdraw 1"]
    );
    let outputs = after_and_configured(&mut call, 2, answered(2, 5_000, "0 101"));
    assert_eq!(names(&outputs)[0], "connect 2 B");
}

#[test]
fn most_telling_cause_of_all_rounds_is_what_the_caller_hears() {
    let mut call = ringing_at(&["100"], |_| {});
    after(&mut call, 1, rejected(0, 486));
    let next = Input::Round(round(vec![callee("101", SrtpPolicy::Off)]));
    after(&mut call, 1, next);
    let outputs = after_the_last(&mut call, 2, rejected(1, 503));
    assert_eq!(names(&outputs)[0], "reject 486");
}

#[test]
fn early_media_of_one_phone_is_heard_and_the_answer_of_another_keeps_its_description() {
    let mut call = ringing_at(&["100", "101"], |_| {});
    let early = progress(0, 183, Some(sdp(5_000, "0 101", "sendrecv")));
    let outputs = after_and_configured(&mut call, 1, early);
    assert_eq!(
        names(&outputs),
        ["configure A", "configure B", "progress 183 sdp"]
    );
    let told = sdp_of(outputs.last()).clone();

    // The other's early media is not mixed in, and no port changes.
    let second = progress(1, 183, Some(sdp(5_002, "8 0 101", "sendrecv")));
    assert!(after(&mut call, 1, second).is_empty());

    let outputs = after_and_configured(&mut call, 3, answered(1, 5_002, "8 0 101"));
    let Some(Output::ConfigureMedia(_, config)) = outputs
        .iter()
        .find(|output| matches!(output, Output::ConfigureMedia(LegIndex::B, _)))
    else {
        panic!("leg B is told of its new peer")
    };
    let peer = config.remote_rtp.map(|address| address.port());
    assert_eq!(peer, Some(5_002));
    assert_eq!(sdp_of(outputs.last()), &told);
    // Only what the caller was told of is in use, whatever the other would like better.
    assert_eq!(call.record().callee_codec.as_deref(), Some("PCMU"));
}

#[test]
fn caller_in_early_media_hears_ringback_while_others_are_tried() {
    let mut call = ringing_at(&["100"], |_| {});
    let early = progress(0, 183, Some(sdp(5_000, "0 101", "sendrecv")));
    after_and_configured(&mut call, 1, early);
    let outputs = names(&after(&mut call, 2, rejected(0, 486)));
    assert_eq!(
        outputs,
        [
            "locate Busy",
            "configure A",
            "configure B",
            "convert",
            "ringback A"
        ]
    );
    after(&mut call, 2, Input::MediaConfigured);
    let next = Input::Round(round(vec![callee("101", SrtpPolicy::Off)]));
    assert_eq!(names(&after(&mut call, 2, next)), ["invite 1"]);
    let outputs = after_and_configured(&mut call, 3, answered(1, 5_002, "0 101"));
    assert!(names(&outputs).contains(&"no sound A".to_owned()));
}

#[test]
fn ringback_is_played_until_the_phone_answers_and_the_answer_says_the_same() {
    let ringback = |setup: &mut CallSetup| setup.early_media = EarlyMedia::Ringback;
    let mut call = ringing_at(&["100"], ringback);
    let outputs = after(&mut call, 1, progress(0, 180, None));
    assert_eq!(
        names(&outputs),
        ["configure A", "configure B", "convert", "ringback A"]
    );
    let outputs = after(&mut call, 1, Input::MediaConfigured);
    assert_eq!(names(&outputs), ["progress 183 sdp"]);
    let told = sdp_of(outputs.last()).clone();
    // Once is enough.
    assert!(after(&mut call, 2, progress(0, 180, None)).is_empty());

    let outputs = after_and_configured(&mut call, 5, answered(0, 5_000, "0 101"));
    assert_eq!(
        names(&outputs),
        [
            "connect 0 B",
            "configure A",
            "configure B",
            "no sound A",
            "answer"
        ]
    );
    assert_eq!(sdp_of(outputs.last()), &told);
}

#[test]
fn callees_early_media_takes_over_from_ringback() {
    let ringback = |setup: &mut CallSetup| setup.early_media = EarlyMedia::Ringback;
    let mut call = ringing_at(&["100"], ringback);
    after(&mut call, 1, progress(0, 180, None));
    after(&mut call, 1, Input::MediaConfigured);
    let early = progress(0, 183, Some(sdp(5_000, "0 101", "sendrecv")));
    let outputs = names(&after_and_configured(&mut call, 2, early));
    assert!(outputs.contains(&"no sound A".to_owned()), "{outputs:?}");
    assert!(outputs.contains(&"configure B".to_owned()), "{outputs:?}");
}

#[test]
fn early_media_that_is_off_leaves_the_caller_its_own_ringback() {
    let off = |setup: &mut CallSetup| setup.early_media = EarlyMedia::Off;
    let mut call = ringing_at(&["100"], off);
    let early = progress(0, 183, Some(sdp(5_000, "0 101", "sendrecv")));
    assert_eq!(names(&after(&mut call, 1, early)), ["progress 180"]);
}
