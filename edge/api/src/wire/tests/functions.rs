//! Any of the messages that 1.2 and 1.3 added.

use proptest::prelude::*;

use super::{arb_addr, arb_leg};
use crate::audio::{
    AudioCodec, AudioFormat, AudioFormats, LegAudio, OpusOptions, PacketTime, TelephoneEventFormat,
};
use crate::command::Command;
use crate::event::{Event, PlaybackEnd, RecordingEnd, RecordingOutcome};
use crate::function::{
    ConferenceId, ConferenceSettings, Digit, DigitMethod, DigitSource, DigitString, DigitsId,
    DigitsToSend, FilePath, LegFunctions, LiveLevel, MediaFork, Membership, PlaySource,
    PlaySources, Playback, PlaybackId, PlaybackMode, ProgressSignal, PromptId, RawAudio, Recording,
    RecordingFormat, RecordingId, RecordingTracks, Tone, ToneSegment,
};
use crate::vocabulary::{ClockRateHz, LegIndex, PayloadType, SessionId, Ssrc};

fn arb_session() -> impl Strategy<Value = SessionId> {
    any::<u64>().prop_map(SessionId)
}

fn arb_payload_type() -> impl Strategy<Value = PayloadType> {
    (0u8..128).prop_map(|value| PayloadType::new(value).expect("below 128"))
}

fn arb_clock() -> impl Strategy<Value = ClockRateHz> {
    (1u32..=384_000).prop_map(|hz| ClockRateHz::new(hz).expect("in range"))
}

fn arb_format() -> impl Strategy<Value = AudioFormat> {
    let opus = any::<([bool; 3], u32, u32)>().prop_map(|(flags, rate, bitrate)| OpusOptions {
        in_band_fec: flags[0],
        dtx: flags[1],
        constant_bitrate: flags[2],
        playback_rate_max_hz: rate,
        bitrate_max: bitrate,
    });
    let codec = prop::sample::select(&AudioCodec::ALL[..]);
    (
        codec,
        arb_payload_type(),
        arb_clock(),
        1u8..=2,
        1u8..=6,
        opus,
    )
        .prop_map(
            |(codec, payload_type, clock_rate, channels, tens, opus)| AudioFormat {
                codec,
                payload_type,
                clock_rate,
                channels,
                packet_time: PacketTime::from_millis(10 * tens).expect("10 to 60"),
                opus,
            },
        )
}

fn arb_audio() -> impl Strategy<Value = LegAudio> {
    let event = || {
        prop::option::of((arb_payload_type(), arb_clock()).prop_map(
            |(payload_type, clock_rate)| TelephoneEventFormat {
                payload_type,
                clock_rate,
            },
        ))
    };
    let receive = prop::collection::vec(arb_format(), 0..=AudioFormats::LEN_MAX)
        .prop_filter_map("no payload type twice", AudioFormats::new);
    (
        receive,
        arb_format(),
        event(),
        event(),
        prop::option::of(arb_payload_type()),
    )
        .prop_map(
            |(receive, send, receive_events, send_events, comfort_noise)| LegAudio {
                receive,
                send,
                receive_events,
                send_events,
                comfort_noise,
            },
        )
}

fn arb_path() -> impl Strategy<Value = FilePath> {
    "/[a-zä/]{0,200}".prop_map(|path| FilePath::new(&path).expect("absolute"))
}

fn arb_tone() -> impl Strategy<Value = Tone> {
    let segment = (1..=u16::MAX, any::<u16>(), 0..4_000u16, 0..4_000u16).prop_map(
        |(on_millis, off_millis, f1, f2)| ToneSegment {
            on_millis,
            off_millis,
            frequencies_hz: [f1, f2],
        },
    );
    let segments = prop::collection::vec(segment, 1..=Tone::SEGMENTS_MAX);
    (segments, -60i8..=0).prop_map(|(segments, level)| Tone::new(&segments, level).expect("valid"))
}

fn arb_playback() -> impl Strategy<Value = Playback> {
    let source = prop_oneof![
        any::<u64>().prop_map(|prompt| PlaySource::Prompt(PromptId(prompt))),
        arb_tone().prop_map(PlaySource::Tone),
        any::<u32>().prop_map(|millis| PlaySource::Silence { millis }),
    ];
    let sources = prop::collection::vec(source, 1..=PlaySources::LEN_MAX);
    let live =
        (0..=LiveLevel::DB_MAX).prop_map(|db| LiveLevel::softer_by_db(db).expect("in range"));
    let mode = prop::option::of(live).prop_map(|live| match live {
        Some(live) => PlaybackMode::Into(live),
        None => PlaybackMode::Replace,
    });
    (any::<(u32, u16, bool)>(), sources, mode).prop_map(
        |((id, rounds, ends_on_digit), sources, mode)| Playback {
            id: PlaybackId(id),
            sources: PlaySources::new(sources).expect("one to sixteen"),
            rounds,
            ends_on_digit,
            mode,
        },
    )
}

fn arb_recording() -> impl Strategy<Value = Recording> {
    (any::<u64>(), arb_path(), 1u8..=3, 1u8..=4, any::<bool>()).prop_map(
        |(id, path, format, tracks, paused)| Recording {
            id: RecordingId(id),
            path,
            format: RecordingFormat::try_from(format).expect("defined"),
            tracks: RecordingTracks::try_from(tracks).expect("defined"),
            paused,
        },
    )
}

fn arb_digit() -> impl Strategy<Value = Digit> {
    (0u8..16).prop_map(|code| Digit::from_event(code).expect("below 16"))
}

fn arb_digits() -> impl Strategy<Value = DigitsToSend> {
    let string = prop::collection::vec(arb_digit(), 1..=DigitString::LEN_MAX);
    (any::<(u32, u16, u16)>(), 0u8..=1, string).prop_map(
        |((id, on_millis, off_millis), method, string)| DigitsToSend {
            id: DigitsId(id),
            digits: DigitString::new(string).expect("one to 64"),
            on_millis,
            off_millis,
            method: DigitMethod::try_from(method).expect("defined"),
        },
    )
}

fn arb_membership() -> impl Strategy<Value = Membership> {
    let whispers_to = prop::option::of((arb_session(), arb_leg()));
    (any::<(u64, bool, bool)>(), whispers_to).prop_map(
        |((conference, muted, deaf), whispers_to)| Membership {
            conference: ConferenceId(conference),
            muted,
            deaf,
            whispers_to,
        },
    )
}

type LegCommand = fn(SessionId, LegIndex) -> Command;

pub(super) fn arb_command() -> impl Strategy<Value = Command> {
    const BARE: [LegCommand; 2] = [
        |session, leg| Command::StopPlaying { session, leg },
        |session, leg| Command::LeaveConference { session, leg },
    ];
    let leg = || (arb_session(), arb_leg());
    let functions = any::<[bool; 7]>().prop_map(|flags| LegFunctions {
        muted: flags[0],
        deaf: flags[1],
        detects_tones: flags[2],
        hides_digits: flags[3],
        reports_activity: flags[4],
        detects_beep: flags[5],
        detects_progress: flags[6],
    });
    let raw = (prop::sample::select(&AudioCodec::ALL[..]), any::<u32>()).prop_map(
        |(codec, sample_rate_hz)| RawAudio {
            codec,
            sample_rate_hz,
        },
    );
    let fork = (arb_addr(), any::<u32>()).prop_map(|(to, ssrc)| MediaFork {
        to,
        ssrc: Ssrc(ssrc),
    });
    let settings =
        (any::<bool>(), prop::option::of(arb_recording())).prop_map(|(announces, recording)| {
            ConferenceSettings {
                announces,
                recording,
            }
        });
    prop_oneof![
        (leg(), prop::option::of(arb_audio())).prop_map(|((session, leg), audio)| {
            Command::SetLegAudio {
                session,
                leg,
                audio: audio.map(Box::new),
            }
        }),
        (leg(), functions).prop_map(|((session, leg), functions)| Command::SetLegFunctions {
            session,
            leg,
            functions
        }),
        (any::<u64>(), arb_path(), prop::option::of(raw)).prop_map(|(prompt, path, raw)| {
            Command::LoadPrompt {
                prompt: PromptId(prompt),
                path,
                raw,
            }
        }),
        any::<u64>().prop_map(|prompt| Command::UnloadPrompt {
            prompt: PromptId(prompt)
        }),
        (leg(), arb_playback()).prop_map(|((session, leg), playback)| Command::Play {
            session,
            leg,
            playback
        }),
        (leg(), prop::sample::select(&BARE[..]))
            .prop_map(|((session, leg), command)| command(session, leg)),
        (arb_session(), arb_recording())
            .prop_map(|(session, recording)| Command::StartRecording { session, recording }),
        (arb_session(), any::<u64>()).prop_map(|(session, id)| Command::StopRecording {
            session,
            recording: RecordingId(id)
        }),
        (leg(), arb_digits()).prop_map(|((session, leg), digits)| Command::SendDigits {
            session,
            leg,
            digits
        }),
        (leg(), prop::option::of(fork)).prop_map(|((session, leg), fork)| Command::SetFork {
            session,
            leg,
            fork
        }),
        (leg(), arb_membership()).prop_map(|((session, leg), membership)| {
            Command::JoinConference {
                session,
                leg,
                membership,
            }
        }),
        (any::<u64>(), settings).prop_map(|(conference, settings)| Command::SetConference {
            conference: ConferenceId(conference),
            settings: Box::new(settings),
        }),
        any::<u64>().prop_map(|conference| Command::CloseConference {
            conference: ConferenceId(conference)
        }),
    ]
}

pub(super) fn arb_event() -> impl Strategy<Value = Event> {
    let leg = || (arb_session(), arb_leg());
    let outcome = (1u8..=5, any::<([u64; 3], [u8; 32])>()).prop_map(|(cause, (v, sha256))| {
        RecordingOutcome {
            cause: RecordingEnd::try_from(cause).expect("defined"),
            duration_millis: v[0],
            bytes: v[1],
            lost_packets: v[2],
            sha256,
        }
    });
    prop_oneof![
        (leg(), arb_digit(), any::<u32>(), 1u8..=2).prop_map(
            |((session, leg), digit, duration_millis, source)| Event::DigitReceived {
                session,
                leg,
                digit,
                duration_millis,
                source: DigitSource::try_from(source).expect("defined"),
            }
        ),
        (leg(), any::<u32>()).prop_map(|((session, leg), digits)| Event::DigitsSent {
            session,
            leg,
            digits: DigitsId(digits)
        }),
        (leg(), any::<(u32, u64)>(), 1u8..=3).prop_map(
            |((session, leg), (playback, played_millis), cause)| Event::PlaybackEnded {
                session,
                leg,
                playback: PlaybackId(playback),
                cause: PlaybackEnd::try_from(cause).expect("defined"),
                played_millis,
            }
        ),
        (any::<u64>(), outcome).prop_map(|(id, outcome)| Event::RecordingEnded {
            recording: RecordingId(id),
            outcome
        }),
        (leg(), any::<bool>()).prop_map(|((session, leg), is_speaking)| {
            Event::ActivityChanged {
                session,
                leg,
                is_speaking,
            }
        }),
        (leg(), any::<(u16, u32)>()).prop_map(
            |((session, leg), (frequency_hz, duration_millis))| Event::BeepHeard {
                session,
                leg,
                frequency_hz,
                duration_millis,
            }
        ),
        (
            leg(),
            prop::sample::select(&ProgressSignal::ALL[..]),
            any::<[u16; 3]>()
        )
            .prop_map(|((session, leg), signal, frequencies_hz)| {
                Event::ProgressHeard {
                    session,
                    leg,
                    signal,
                    frequencies_hz,
                }
            }),
        (any::<u64>(), prop::option::of(leg())).prop_map(|(conference, speaker)| {
            Event::SpeakerChanged {
                conference: ConferenceId(conference),
                speaker,
            }
        }),
    ]
}
