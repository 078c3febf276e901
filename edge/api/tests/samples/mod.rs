//! One of each message that 1.2 and 1.3 added, with every field away from its default where its
//! version has it.

use trunkline_edge_api::{
    ApiVersion, AudioCodec, AudioFormat, AudioFormats, ClockRateHz, Command, ConferenceId,
    ConferenceSettings, Digit, DigitMethod, DigitSource, DigitString, DigitsId, DigitsToSend,
    Event, FilePath, LegAudio, LegFunctions, LegIndex, LiveLevel, MediaFork, Membership,
    OpusOptions, PacketTime, PayloadType, PlaySource, PlaySources, Playback, PlaybackEnd,
    PlaybackId, PlaybackMode, ProgressSignal, PromptId, RawAudio, Recording, RecordingEnd,
    RecordingFormat, RecordingId, RecordingOutcome, RecordingTracks, SessionId, Ssrc,
    TelephoneEventFormat, Tone, ToneSegment,
};

fn payload_type(value: u8) -> PayloadType {
    PayloadType::new(value).expect("below 128")
}

fn path(path: &str) -> FilePath {
    FilePath::new(path).expect("absolute")
}

fn recording(paused: bool) -> Recording {
    Recording {
        id: RecordingId(0x2122_2324_2526_2728),
        path: path("/var/lib/trunkline/a.wav"),
        format: RecordingFormat::Wav16k,
        tracks: RecordingTracks::Mixed,
        paused,
    }
}

fn audio() -> LegAudio {
    let opus = AudioFormat {
        codec: AudioCodec::Opus,
        payload_type: payload_type(111),
        clock_rate: ClockRateHz::OPUS,
        channels: 2,
        packet_time: PacketTime::from_millis(40).expect("a multiple of ten"),
        opus: OpusOptions {
            in_band_fec: true,
            dtx: false,
            constant_bitrate: true,
            playback_rate_max_hz: 16_000,
            bitrate_max: 24_000,
        },
    };
    let pcmu = AudioFormat {
        codec: AudioCodec::Pcmu,
        payload_type: PayloadType::PCMU,
        clock_rate: ClockRateHz::NARROWBAND,
        channels: 1,
        packet_time: PacketTime::MS_20,
        opus: OpusOptions::default(),
    };
    let event = |number, clock_rate| TelephoneEventFormat {
        payload_type: payload_type(number),
        clock_rate,
    };
    LegAudio {
        receive: AudioFormats::new(vec![opus, pcmu]).expect("distinct"),
        send: opus,
        receive_events: Some(event(126, ClockRateHz::OPUS)),
        send_events: Some(event(101, ClockRateHz::NARROWBAND)),
        comfort_noise: Some(PayloadType::CN),
    }
}

fn playback(version: ApiVersion) -> Playback {
    let softer = LiveLevel::softer_by_db(18).expect("in range");
    let segment = |on_millis, frequency| ToneSegment {
        on_millis,
        off_millis: 1_000,
        frequencies_hz: [frequency, 480],
    };
    let tone = Tone::new(&[segment(330, 950), segment(331, 1_400)], -13).expect("a tone");
    let sources = vec![
        PlaySource::Prompt(PromptId(0x3132_3334_3536_3738)),
        PlaySource::Tone(tone),
        PlaySource::Silence {
            millis: 0x0102_0304,
        },
    ];
    Playback {
        id: PlaybackId(0x4142_4344),
        sources: PlaySources::new(sources).expect("three"),
        rounds: 0x0506,
        ends_on_digit: true,
        mode: match version.minor {
            ..=2 => PlaybackMode::Replace,
            _ => PlaybackMode::Into(softer),
        },
    }
}

/// The commands, by the names of their files.
pub(crate) fn commands(session: SessionId, version: ApiVersion) -> Vec<(&'static str, Command)> {
    let leg = LegIndex::B;
    let conference = ConferenceId(0x5152_5354_5556_5758);
    let digits: Vec<_> = "19*#D".chars().filter_map(Digit::from_char).collect();
    vec![
        (
            "command_set_leg_audio",
            Command::SetLegAudio {
                session,
                leg,
                audio: Some(Box::new(audio())),
            },
        ),
        (
            "command_set_leg_audio_none",
            Command::SetLegAudio {
                session,
                leg,
                audio: None,
            },
        ),
        (
            "command_set_leg_functions",
            Command::SetLegFunctions {
                session,
                leg,
                functions: LegFunctions {
                    muted: true,
                    deaf: false,
                    detects_tones: true,
                    hides_digits: true,
                    reports_activity: false,
                    detects_beep: true,
                    detects_progress: version.minor >= 3,
                },
            },
        ),
        (
            "command_load_prompt",
            Command::LoadPrompt {
                prompt: PromptId(7),
                path: path("/usr/share/trunkline/ringback.ulaw"),
                raw: Some(RawAudio {
                    codec: AudioCodec::Pcmu,
                    sample_rate_hz: 8_000,
                }),
            },
        ),
        (
            "command_unload_prompt",
            Command::UnloadPrompt {
                prompt: PromptId(7),
            },
        ),
        (
            "command_play",
            Command::Play {
                session,
                leg,
                playback: playback(version),
            },
        ),
        (
            "command_stop_playing",
            Command::StopPlaying { session, leg },
        ),
        (
            "command_start_recording",
            Command::StartRecording {
                session,
                recording: recording(true),
            },
        ),
        (
            "command_stop_recording",
            Command::StopRecording {
                session,
                recording: recording(true).id,
            },
        ),
        (
            "command_send_digits",
            Command::SendDigits {
                session,
                leg,
                digits: DigitsToSend {
                    id: DigitsId(0x6162_6364),
                    digits: DigitString::new(digits).expect("five"),
                    on_millis: 100,
                    off_millis: 60,
                    method: DigitMethod::InBand,
                },
            },
        ),
        (
            "command_set_fork",
            Command::SetFork {
                session,
                leg,
                fork: Some(MediaFork {
                    to: ([192, 0, 2, 77], 50_000).into(),
                    ssrc: Ssrc(0x7172_7374),
                }),
            },
        ),
        (
            "command_join_conference",
            Command::JoinConference {
                session,
                leg,
                membership: Membership {
                    conference,
                    muted: false,
                    deaf: true,
                    whispers_to: Some((session, LegIndex::A)),
                },
            },
        ),
        (
            "command_leave_conference",
            Command::LeaveConference { session, leg },
        ),
        (
            "command_set_conference",
            Command::SetConference {
                conference,
                settings: Box::new(ConferenceSettings {
                    announces: true,
                    recording: Some(recording(false)),
                }),
            },
        ),
        (
            "command_close_conference",
            Command::CloseConference { conference },
        ),
    ]
}

/// The events, by the names of their files.
pub(crate) fn events(session: SessionId, version: ApiVersion) -> Vec<(&'static str, Event)> {
    let leg = LegIndex::B;
    let mut events = vec![
        (
            "event_digit_received",
            Event::DigitReceived {
                session,
                leg,
                digit: Digit::from_char('#').expect("a digit"),
                duration_millis: 0x0102_0304,
                source: DigitSource::InBand,
            },
        ),
        (
            "event_digits_sent",
            Event::DigitsSent {
                session,
                leg,
                digits: DigitsId(0x6162_6364),
            },
        ),
        (
            "event_playback_ended",
            Event::PlaybackEnded {
                session,
                leg,
                playback: PlaybackId(0x4142_4344),
                cause: PlaybackEnd::Digit,
                played_millis: 0x0102_0304_0506,
            },
        ),
        (
            "event_recording_ended",
            Event::RecordingEnded {
                recording: RecordingId(0x2122_2324_2526_2728),
                outcome: RecordingOutcome {
                    cause: RecordingEnd::DiskFull,
                    duration_millis: 61_000,
                    bytes: 976_044,
                    lost_packets: 3,
                    sha256: [0x5a; 32],
                },
            },
        ),
        (
            "event_activity_changed",
            Event::ActivityChanged {
                session,
                leg,
                is_speaking: true,
            },
        ),
        (
            "event_beep_heard",
            Event::BeepHeard {
                session,
                leg,
                frequency_hz: 1_400,
                duration_millis: 450,
            },
        ),
        (
            "event_speaker_changed",
            Event::SpeakerChanged {
                conference: ConferenceId(0x5152_5354_5556_5758),
                speaker: Some((session, leg)),
            },
        ),
        (
            "event_speaker_changed_nobody",
            Event::SpeakerChanged {
                conference: ConferenceId(1),
                speaker: None,
            },
        ),
    ];
    if version.minor >= 3 {
        events.push((
            "event_progress_heard",
            Event::ProgressHeard {
                session,
                leg,
                signal: ProgressSignal::SpecialInformation,
                frequencies_hz: [950, 1_400, 1_800],
            },
        ));
    }
    events
}
