use trunkline_edge_api::{
    AudioCodec, AudioFormat, AudioFormats, ClockRateHz, Epoch, Event, LiveLevel, OpusOptions,
    PacketTime, PayloadType, ProgressSignal, RecordingEnd, RecordingOutcome, Refusal, WorkerIndex,
};

use super::super::tests::{
    LOOPBACK, NOW, WORKER, answer, commands, config, opened, proxy, workers,
};
use super::*;
use crate::edge::proxy::{MediaEvent, Ssrc};

fn leg_audio() -> LegAudio {
    let pcmu = AudioFormat {
        codec: AudioCodec::Pcmu,
        payload_type: PayloadType::PCMU,
        clock_rate: ClockRateHz::NARROWBAND,
        channels: 1,
        packet_time: PacketTime::MS_20,
        opus: OpusOptions::default(),
    };
    LegAudio {
        receive: AudioFormats::new(vec![pcmu]).expect("one"),
        send: pcmu,
        receive_events: None,
        send_events: None,
        comfort_noise: None,
    }
}

/// A session that is configured and whose formats are known here.
fn talking(conversion: Conversion) -> (EdgeProxy, SessionId) {
    let mut proxy = proxy();
    let (id, _) = opened(&mut proxy);
    for leg in LegIndex::ALL {
        proxy.configure(id, leg, config());
    }
    proxy.set_audio(id, [Some(leg_audio()), Some(leg_audio())], conversion);
    (proxy, id)
}

fn names(commands: &[trunkline_edge_api::command::CorrelatedCommand]) -> Vec<&'static str> {
    commands
        .iter()
        .map(|command| match &command.command {
            Command::CloseOtherEpochs { .. } => "epochs",
            Command::OpenLeg { .. } => "open",
            Command::ConfigureLeg { .. } => "configure",
            Command::SetLegAudio { audio: Some(_), .. } => "audio",
            Command::SetLegAudio { audio: None, .. } => "no audio",
            Command::SetLegFunctions { .. } => "switches",
            Command::LoadPrompt { .. } => "load",
            Command::UnloadPrompt { .. } => "unload",
            Command::Play { .. } => "play",
            Command::StopPlaying { .. } => "stop playing",
            Command::StartRecording { .. } => "record",
            Command::StopRecording { .. } => "stop recording",
            Command::SendDigits { .. } => "digits",
            Command::SetFork { .. } => "fork",
            Command::SetConference { .. } => "conference",
            Command::JoinConference { .. } => "join",
            Command::CloseConference { .. } => "close conference",
            Command::CloseSession { .. } => "close",
            _ => "other",
        })
        .collect()
}

/// Answers everything that was asked, and says what it was.
fn settle(proxy: &mut EdgeProxy) -> Vec<&'static str> {
    let asked = commands(proxy, WORKER);
    for command in &asked {
        answer(proxy, command, Ok(()));
    }
    names(&asked)
}

fn path(text: &str) -> FilePath {
    FilePath::new(text).expect("a path")
}

fn music() -> PlayList {
    PlayList {
        pieces: vec![Piece::File(PromptFile::new(path("/prompts/hold.wav")))],
        rounds: 0,
        ends_on_digit: false,
        mode: PlaybackMode::Replace,
    }
}

fn plan(file: &str) -> RecordingPlan {
    let format = if file.ends_with(".pcap") {
        RecordingFormat::Pcap
    } else {
        RecordingFormat::Wav8k
    };
    RecordingPlan {
        of: RecordingOf::Call {
            call_id: "7-1".to_owned(),
            tenant: None,
        },
        path: path(file),
        format,
        tracks: RecordingTracks::Stereo,
    }
}

fn events(proxy: &mut EdgeProxy) -> Vec<MediaEvent> {
    std::iter::from_fn(|| proxy.poll_event()).collect()
}

/// The edge is killed and comes back; everything that was asked of the last one is lost.
fn restart(
    proxy: &mut EdgeProxy,
    generation: u64,
) -> Vec<trunkline_edge_api::command::CorrelatedCommand> {
    proxy.handle_disconnected();
    let mut info = workers(1);
    info[0].generation = generation;
    proxy.handle_connected(&info);
    commands(proxy, WORKER)
}

#[test]
fn relayed_session_is_not_told_its_formats_until_a_function_needs_them() {
    let (mut proxy, id) = talking(Conversion::None);
    assert_eq!(settle(&mut proxy), ["configure", "configure"]);
    let muted = LegFunctions {
        muted: true,
        ..LegFunctions::default()
    };
    let hears_tones = LegFunctions {
        detects_tones: true,
        ..LegFunctions::default()
    };
    for (functions, expected) in [
        (muted, &["switches"][..]),
        (hears_tones, &["audio", "audio", "switches"]),
        (hears_tones, &["switches"]),
    ] {
        proxy
            .set_functions(id, LegIndex::A, functions, None)
            .expect("open");
        assert_eq!(settle(&mut proxy), expected);
    }
}

#[test]
fn session_that_must_be_converted_is_configured_when_the_edge_has_the_formats() {
    let (mut proxy, id) = talking(Conversion::Full);
    let asked = commands(&mut proxy, WORKER);
    assert_eq!(names(&asked), ["configure", "configure", "audio", "audio"]);
    for command in &asked[..3] {
        answer(&mut proxy, command, Ok(()));
        assert_eq!(proxy.poll_event(), None);
    }
    answer(&mut proxy, &asked[3], Ok(()));
    let configured = MediaEvent::Configured { session: id };
    assert_eq!(proxy.poll_event(), Some(configured));
    // A re-INVITE found a common codec.
    proxy.set_audio(id, [Some(leg_audio()), Some(leg_audio())], Conversion::None);
    assert_eq!(settle(&mut proxy), ["no audio", "no audio"]);
}

#[test]
fn formats_that_the_edge_refuses_end_only_a_call_that_cannot_do_without() {
    for (conversion, ends) in [(Conversion::Full, true), (Conversion::Partial, false)] {
        let (mut proxy, id) = talking(conversion);
        for command in commands(&mut proxy, WORKER) {
            let is_audio = matches!(command.command, Command::SetLegAudio { .. });
            let result = if is_audio {
                Err(Refusal::FormatUnsupported)
            } else {
                Ok(())
            };
            answer(&mut proxy, &command, result);
        }
        let refused = MediaEvent::Refused {
            session: id,
            refusal: Refusal::FormatUnsupported,
        };
        assert_eq!(
            events(&mut proxy).contains(&refused),
            ends,
            "{conversion:?}"
        );
    }
}

#[test]
fn file_is_loaded_once_and_played_when_it_is_there() {
    let (mut proxy, id) = talking(Conversion::None);
    settle(&mut proxy);
    events(&mut proxy);
    let ticket = Some(Ticket(5));
    proxy
        .play(NOW, id, LegIndex::A, music(), ticket)
        .expect("open");
    proxy
        .play(NOW, id, LegIndex::B, music(), None)
        .expect("open");
    let asked = commands(&mut proxy, WORKER);
    assert_eq!(names(&asked), ["audio", "audio", "load"]);
    for command in &asked {
        answer(&mut proxy, command, Ok(()));
    }
    assert_eq!(
        events(&mut proxy),
        [],
        "the ticket's playback has not begun"
    );
    assert_eq!(settle(&mut proxy), ["play", "play"]);
    let done = MediaEvent::Outcome {
        ticket: Ticket(5),
        result: Ok(()),
    };
    assert_eq!(events(&mut proxy), [done]);
    // Unloaded when nothing has played it for a while.
    for leg in LegIndex::ALL {
        proxy.stop_playing(id, leg, None).expect("open");
    }
    settle(&mut proxy);
    let at = proxy.poll_timeout().expect("files are looked after");
    proxy.handle_timeout(at);
    assert_eq!(settle(&mut proxy), ["unload"]);
    assert_eq!(proxy.poll_timeout(), None);
}

#[test]
fn what_is_played_over_live_audio_needs_the_formats_of_both_sides() {
    let over = || PlayList {
        mode: PlaybackMode::Into(LiveLevel::UNCHANGED),
        ..music()
    };
    let (mut proxy, id) = talking(Conversion::None);
    proxy.set_audio(id, [Some(leg_audio()), None], Conversion::None);
    let refused = proxy.play(NOW, id, LegIndex::A, over(), None);
    assert_eq!(refused, Err(FunctionError::NoAudio));
    let replaced = proxy.play(NOW, id, LegIndex::A, music(), None);
    assert!(replaced.is_ok(), "{replaced:?}");
}

#[test]
fn playing_over_live_audio_and_listening_for_progress_come_back_on_a_fresh_edge() {
    let (mut proxy, id) = talking(Conversion::None);
    let softer = PlaybackMode::Into(LiveLevel::softer_by_db(12).expect("in range"));
    let tone = "%(200,9800,1400)".parse().expect("a tone");
    let list = PlayList {
        pieces: vec![Piece::Tone(tone)],
        mode: softer,
        ..music()
    };
    proxy.play(NOW, id, LegIndex::A, list, None).expect("open");
    let listens = LegFunctions {
        detects_progress: true,
        ..LegFunctions::default()
    };
    proxy
        .set_functions(id, LegIndex::B, listens, None)
        .expect("open");
    settle(&mut proxy);
    let asked = restart(&mut proxy, 2);
    let said = |what: fn(&Command) -> bool| asked.iter().filter(|c| what(&c.command)).count();
    let is_audio = |command: &Command| matches!(command, Command::SetLegAudio { .. });
    assert_eq!(said(is_audio), 2, "nothing is heard without formats");
    let modes = asked.iter().filter_map(|command| match &command.command {
        Command::Play { playback, .. } => Some(playback.mode),
        _ => None,
    });
    assert_eq!(modes.collect::<Vec<_>>(), [softer]);
    let listening = |command: &Command| match command {
        Command::SetLegFunctions { functions, .. } => functions.detects_progress,
        _ => false,
    };
    assert_eq!(said(listening), 1);
    for command in &asked {
        answer(&mut proxy, command, Ok(()));
    }
    events(&mut proxy);
    let heard = Event::ProgressHeard {
        session: id,
        leg: LegIndex::B,
        signal: ProgressSignal::Busy,
        frequencies_hz: [425, 0, 0],
    };
    proxy.handle_event(NOW, heard);
    let told = MediaEvent::Progress {
        session: id,
        leg: LegIndex::B,
        signal: ProgressSignal::Busy,
        frequencies_hz: [425, 0, 0],
    };
    assert_eq!(events(&mut proxy), [told]);
}

#[test]
fn file_that_cannot_be_loaded_is_told_to_whoever_asked_and_tried_again_later() {
    let (mut proxy, id) = talking(Conversion::None);
    settle(&mut proxy);
    events(&mut proxy);
    let ticket = Some(Ticket(5));
    proxy
        .play(NOW, id, LegIndex::A, music(), ticket)
        .expect("open");
    for command in commands(&mut proxy, WORKER) {
        let is_load = matches!(command.command, Command::LoadPrompt { .. });
        let result = if is_load {
            Err(Refusal::PromptUnreadable)
        } else {
            Ok(())
        };
        answer(&mut proxy, &command, result);
    }
    let told = events(&mut proxy);
    assert!(matches!(
        told[..],
        [
            MediaEvent::Outcome {
                ticket: Ticket(5),
                result: Err(Refusal::PromptUnreadable)
            },
            MediaEvent::NotPlayed { .. }
        ]
    ));
    assert_eq!(proxy.playback(id, LegIndex::A), None);
    proxy
        .play(NOW, id, LegIndex::A, music(), None)
        .expect("open");
    assert_eq!(settle(&mut proxy), ["load"]);
}

fn recorded_into(asked: &[trunkline_edge_api::command::CorrelatedCommand]) -> Option<&str> {
    asked.iter().find_map(|command| match &command.command {
        Command::StartRecording { recording, .. } => Some(recording.path.as_str()),
        _ => None,
    })
}

#[test]
fn fresh_edge_is_told_everything() {
    let (mut proxy, id) = talking(Conversion::None);
    proxy
        .play(NOW, id, LegIndex::A, music(), None)
        .expect("open");
    proxy
        .record(id, plan("/recordings/a.wav"), None)
        .expect("open");
    let muted = LegFunctions {
        muted: true,
        ..LegFunctions::default()
    };
    proxy
        .set_functions(id, LegIndex::B, muted, None)
        .expect("open");
    settle(&mut proxy);
    settle(&mut proxy);
    events(&mut proxy);

    let asked = restart(&mut proxy, 2);
    assert_eq!(
        names(&asked),
        [
            "epochs",
            "open",
            "configure",
            "open",
            "configure",
            "audio",
            "load",
            "audio",
            "switches",
            "record"
        ]
    );
    assert_eq!(recorded_into(&asked), Some("/recordings/a.wav"));
    for command in &asked {
        answer(&mut proxy, command, Ok(()));
    }
    assert_eq!(settle(&mut proxy), ["play"], "once its file is there");
}

#[test]
fn recording_of_packets_goes_on_in_another_file_on_a_fresh_edge() {
    let (mut proxy, id) = talking(Conversion::None);
    proxy
        .record(id, plan("/recordings/a.pcap"), None)
        .expect("open");
    settle(&mut proxy);
    events(&mut proxy);
    for (generation, expected) in [(2, "/recordings/a-2.pcap"), (3, "/recordings/a-3.pcap")] {
        let asked = restart(&mut proxy, generation);
        assert_eq!(recorded_into(&asked), Some(expected));
        let told = events(&mut proxy);
        assert!(
            matches!(told[..], [MediaEvent::RecordingEnded { outcome: None, .. }]),
            "{told:?}"
        );
        // The same process, asked again: nothing is new.
        proxy.handle_resync(WORKER);
        let again = commands(&mut proxy, WORKER);
        assert_eq!(recorded_into(&again), Some(expected));
    }
}

#[test]
fn what_follows_a_leg_that_is_not_bound_yet_is_said_again_with_it() {
    let (mut proxy, id) = talking(Conversion::Full);
    proxy
        .record(id, plan("/recordings/a.wav"), None)
        .expect("open");
    settle(&mut proxy);
    for command in restart(&mut proxy, 2) {
        let result = match command.command {
            Command::CloseOtherEpochs { .. } => Ok(()),
            Command::OpenLeg { .. } => Err(Refusal::AddressInUse),
            _ => Err(Refusal::NoSuchLeg),
        };
        answer(&mut proxy, &command, result);
    }
    assert!(proxy.recording(id).is_some(), "not given up");
    proxy.handle_timeout(NOW.plus_secs(1));
    let again = settle(&mut proxy);
    for name in ["open", "configure", "audio", "record"] {
        assert!(again.contains(&name), "{name} in {again:?}");
    }
    assert!(events(&mut proxy).contains(&MediaEvent::Configured { session: id }));
}

#[test]
fn recording_ends_once_and_its_end_is_told_after_the_session() {
    let (mut proxy, id) = talking(Conversion::None);
    let recording = proxy
        .record(id, plan("/recordings/a.wav"), None)
        .expect("open");
    assert_eq!(
        proxy.record(id, plan("/recordings/b.wav"), None),
        Err(FunctionError::AlreadyRecording)
    );
    settle(&mut proxy);
    proxy.pause_recording(id, true, None).expect("running");
    proxy.stop_recording(id, None).expect("running");
    assert_eq!(
        proxy.stop_recording(id, None),
        Err(FunctionError::NotRecording)
    );
    assert_eq!(settle(&mut proxy), ["record", "stop recording"]);
    events(&mut proxy);
    let outcome = RecordingOutcome {
        cause: RecordingEnd::Stopped,
        duration_millis: 1_000,
        bytes: 32_044,
        lost_packets: 0,
        sha256: [1; 32],
    };
    for expected in [1, 0] {
        proxy.handle_event(NOW, Event::RecordingEnded { recording, outcome });
        assert_eq!(events(&mut proxy).len(), expected);
    }
}

#[test]
fn members_of_a_conference_share_a_worker_and_the_last_one_closes_it() {
    let mut proxy = EdgeProxy::new(Epoch(7), vec![LOOPBACK[0]]);
    proxy.handle_connected(&workers(2));
    let conference = trunkline_edge_api::ConferenceId(3);
    let mut sessions = Vec::new();
    for _ in 0..3 {
        let session = proxy
            .open_member(NOW, LOOPBACK[0], Ssrc(1), conference, true, None)
            .expect("ports are free");
        sessions.push(session);
    }
    let [first, second] = [0, 1].map(|worker| commands(&mut proxy, WorkerIndex(worker)));
    let (busy, idle) = if first.len() > second.len() {
        (first, second)
    } else {
        (second, first)
    };
    assert_eq!(names(&idle), ["epochs"]);
    assert_eq!(
        names(&busy),
        ["epochs", "open", "conference", "open", "open"]
    );
    let worker = proxy.sessions[&sessions[0]].worker as u16;
    for command in &busy {
        answer(&mut proxy, command, Ok(()));
    }
    assert_eq!(events(&mut proxy).len(), 3, "each with one leg");
    for (session, left) in sessions.into_iter().zip([2, 1, 0]) {
        proxy.close(NOW, session);
        proxy.handle_timeout(NOW.plus_secs(10));
        assert_eq!(proxy.conference_len(conference), left);
    }
    let asked = names(&commands(&mut proxy, WorkerIndex(worker)));
    assert_eq!(asked.last(), Some(&"close conference"));
}

#[test]
fn audio_that_only_passes_through_can_neither_be_played_to_nor_dialled() {
    let mut proxy = proxy();
    let (id, _) = opened(&mut proxy);
    proxy.set_audio(id, [None, None], Conversion::None);
    let played = proxy.play(NOW, id, LegIndex::A, music(), None);
    assert_eq!(played.err(), Some(FunctionError::NoAudio));
    let digits = single_digit(Digit::from_char('1').expect("a digit"));
    let sent = proxy.send_digits(id, LegIndex::A, digits, DigitMethod::Preferred, None);
    assert_eq!(sent.err(), Some(FunctionError::NoAudio));
}

#[test]
fn recording_of_a_conference_is_said_again_until_it_ends_for_whatever_reason() {
    let mut proxy = EdgeProxy::new(Epoch(7), vec![LOOPBACK[0]]);
    proxy.handle_connected(&workers(1));
    let conference = trunkline_edge_api::ConferenceId(3);
    let mix = || RecordingPlan {
        of: RecordingOf::Conference {
            tenant: "acme".to_owned(),
            name: "standup".to_owned(),
        },
        ..plan("/recordings/mix.wav")
    };
    assert_eq!(
        proxy.record_conference(conference, mix(), None),
        Err(FunctionError::NoSession),
        "nobody is in it"
    );
    proxy
        .open_member(NOW, LOOPBACK[0], Ssrc(1), conference, true, None)
        .expect("ports are free");
    settle(&mut proxy);
    events(&mut proxy);
    for (cause, is_refused) in [
        (RecordingEnd::Stopped, false),
        (RecordingEnd::DiskFull, false),
        (RecordingEnd::CannotCreate, true),
    ] {
        proxy
            .record_conference(conference, mix(), Some(Ticket(5)))
            .expect("members are in it");
        assert_eq!(
            proxy.record_conference(conference, mix(), None),
            Err(FunctionError::AlreadyRecording)
        );
        let asked = commands(&mut proxy, WORKER);
        assert_eq!(names(&asked), ["conference"]);
        let recording = proxy.conference_recording(conference).expect("wanted").id;
        let result = match is_refused {
            true => Err(Refusal::TooManyRecordings),
            false => Ok(()),
        };
        answer(&mut proxy, &asked[0], result);
        let ticket = Ticket(5);
        assert_eq!(events(&mut proxy), [MediaEvent::Outcome { ticket, result }]);
        if !is_refused {
            proxy.handle_resync(WORKER);
            assert!(settle(&mut proxy).contains(&"conference"), "said again");
            if cause == RecordingEnd::Stopped {
                let stopped = proxy.stop_conference_recording(conference, None);
                assert_eq!(stopped, Ok(()));
                assert_eq!(settle(&mut proxy), ["conference"]);
            }
            events(&mut proxy);
            let outcome = RecordingOutcome {
                cause,
                duration_millis: 1_000,
                bytes: 16_044,
                lost_packets: 0,
                sha256: [1; 32],
            };
            proxy.handle_event(NOW, Event::RecordingEnded { recording, outcome });
            let told = events(&mut proxy);
            assert!(
                matches!(&told[..], [MediaEvent::RecordingEnded { of, .. }] if *of == mix().of),
                "{told:?}"
            );
        }
        assert_eq!(proxy.conference_recording(conference), None, "{cause:?}");
        assert_eq!(
            proxy.pause_conference_recording(conference, true, None),
            Err(FunctionError::NotRecording)
        );
    }
}
