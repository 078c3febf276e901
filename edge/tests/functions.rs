//! Media functions over the real rings and real sockets: what an operator's call would meet.

mod support;

use std::path::Path;
use std::time::Duration;

use support::{
    A, B, Call, Control, EdgeProcess, Peer, V4, on_each_tier, rtp, sequence_of, ssrc_of,
};
use trunkline_edge_api::{
    AudioCodec, AudioFormat, AudioFormats, ClockRateHz, Command, ConferenceId, Counter, Digit,
    DigitMethod, DigitString, DigitsId, DigitsToSend, Event, FilePath, IoTier, LegAudio,
    LegFunctions, LegIndex, LiveLevel, Membership, OpusOptions, PacketTime, PayloadType,
    PlaySource, PlaySources, Playback, PlaybackEnd, PlaybackId, PlaybackMode, PromptId, Recording,
    RecordingEnd, RecordingFormat, RecordingId, RecordingOutcome, RecordingTracks, Refusal,
    RtcpMode, TelephoneEventFormat,
};

const ONE_WORKER: &str = "workers = 1\nsessions_max = 16";

on_each_tier! {
    prompt_is_loaded_played_and_told_of,
    prompt_is_played_over_live_audio,
    file_that_cannot_be_played_is_refused_when_it_is_loaded,
    call_is_recorded_while_it_is_relayed,
    recording_that_cannot_be_created_ends_at_once,
    full_disk_ends_the_recording_on_it_and_nothing_else,
    hidden_digit_is_neither_relayed_nor_recorded,
    three_parties_hear_each_other_and_not_themselves,
    opus_and_pcmu_understand_each_other,
    digits_are_sent_and_told_of,
    nothing_is_left_when_a_call_ends_in_the_middle_of_everything,
}

fn format(codec: AudioCodec) -> AudioFormat {
    let (number, clock_rate, channels) = match codec {
        AudioCodec::Pcmu => (0, ClockRateHz::NARROWBAND, 1),
        AudioCodec::Pcma => (8, ClockRateHz::NARROWBAND, 1),
        AudioCodec::G722 => (9, ClockRateHz::G722_RTP, 1),
        AudioCodec::L16 => (97, ClockRateHz::NARROWBAND, 1),
        AudioCodec::Opus => (111, ClockRateHz::OPUS, 2),
    };
    AudioFormat {
        codec,
        payload_type: PayloadType::new(number).expect("below 128"),
        clock_rate,
        channels,
        packet_time: PacketTime::MS_20,
        opus: OpusOptions::default(),
    }
}

fn audio(codec: AudioCodec) -> Option<Box<LegAudio>> {
    let events = TelephoneEventFormat {
        payload_type: PayloadType::new(101).expect("below 128"),
        clock_rate: ClockRateHz::NARROWBAND,
    };
    Some(Box::new(LegAudio {
        receive: AudioFormats::new(vec![format(codec)]).expect("one"),
        send: format(codec),
        receive_events: Some(events),
        send_events: Some(events),
        comfort_noise: None,
    }))
}

/// A call both of whose legs have PCMU.
fn pcmu_call(control: &mut Control) -> Call {
    let call = control.simple_call(0);
    set_audio(control, &call, [AudioCodec::Pcmu; 2]);
    call
}

fn set_audio(control: &mut Control, call: &Call, codecs: [AudioCodec; 2]) {
    for (leg, codec) in LegIndex::ALL.into_iter().zip(codecs) {
        let command = Command::SetLegAudio {
            session: call.session,
            leg,
            audio: audio(codec),
        };
        assert_eq!(control.ask(0, command), Ok(()));
    }
}

fn path(path: &Path) -> FilePath {
    FilePath::new(path.to_str().expect("plain")).expect("absolute")
}

/// A WAV file of one tone, 8 kHz, 16 bits.
fn write_tone(path: &Path, millis: u32) {
    let count = millis * 8;
    let mut bytes = Vec::new();
    bytes.extend_from_slice(b"RIFF");
    bytes.extend_from_slice(&(36 + count * 2).to_le_bytes());
    bytes.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    bytes.extend_from_slice(&8_000u32.to_le_bytes());
    bytes.extend_from_slice(&16_000u32.to_le_bytes());
    bytes.extend_from_slice(b"\x02\0\x10\0data");
    bytes.extend_from_slice(&(count * 2).to_le_bytes());
    for n in 0..count {
        let sample = (f64::from(n) * std::f64::consts::TAU * 440.0 / 8_000.0).sin() * 12_000.0;
        bytes.extend_from_slice(&(sample as i16).to_le_bytes());
    }
    std::fs::write(path, bytes).expect("writable");
}

fn play(control: &mut Control, call: &Call, leg: LegIndex, id: u32, source: PlaySource) {
    play_as(control, call, leg, id, source, PlaybackMode::Replace);
}

fn play_as(
    control: &mut Control,
    call: &Call,
    leg: LegIndex,
    id: u32,
    source: PlaySource,
    mode: PlaybackMode,
) {
    let command = Command::Play {
        session: call.session,
        leg,
        playback: Playback {
            id: PlaybackId(id),
            sources: PlaySources::new(vec![source]).expect("one"),
            rounds: 1,
            ends_on_digit: false,
            mode,
        },
    };
    assert_eq!(control.ask(0, command), Ok(()));
}

/// Energy of a PCMU payload, root mean square of its samples.
fn loudness(payload: &[u8]) -> f64 {
    let expand = |code: u8| {
        let code = !code;
        let magnitude = ((i32::from(code & 0x0f) << 3) + 0x84) << (code >> 4 & 7);
        let sample = f64::from(magnitude - 0x84);
        if code & 0x80 == 0 { sample } else { -sample }
    };
    let sum: f64 = payload.iter().map(|&code| expand(code).powi(2)).sum();
    (sum / payload.len().max(1) as f64).sqrt()
}

/// 20 ms of a tone in µ-law.
fn tone(hertz: f64, n: u16) -> Vec<u8> {
    (0..160)
        .map(|i| {
            let at = (f64::from(n) * 160.0 + f64::from(i)) / 8_000.0;
            compress((at * std::f64::consts::TAU * hertz).sin() * 8_000.0)
        })
        .collect()
}

fn compress(sample: f64) -> u8 {
    let sign = if sample < 0.0 { 0x80 } else { 0 };
    let magnitude = (sample.abs() as i32).min(32_635) + 0x84;
    let exponent = (7 - (magnitude.leading_zeros() as i32 - 17)).max(0);
    let mantissa = magnitude >> (exponent + 3) & 0x0f;
    !(sign | (exponent << 4) as u8 | mantissa as u8)
}

/// How much of `hertz` is in PCMU payloads, against everything.
fn share_of(hertz: f64, payloads: &[Vec<u8>]) -> f64 {
    let samples: Vec<f64> = payloads
        .iter()
        .flatten()
        .map(|&code| {
            let inverted = !code;
            let magnitude = ((i32::from(inverted & 0x0f) << 3) + 0x84) << (inverted >> 4 & 7);
            let sample = f64::from(magnitude - 0x84);
            if inverted & 0x80 == 0 {
                sample
            } else {
                -sample
            }
        })
        .collect();
    let (mut sine, mut cosine, mut total) = (0.0, 0.0, 0.0);
    for (n, sample) in samples.iter().enumerate() {
        let angle = n as f64 * std::f64::consts::TAU * hertz / 8_000.0;
        sine += sample * angle.sin();
        cosine += sample * angle.cos();
        total += sample * sample;
    }
    2.0 * (sine * sine + cosine * cosine) / samples.len() as f64 / total.max(1.0)
}

fn playback_ended(control: &mut Control, id: u32) -> (PlaybackEnd, u64) {
    control.wait_for(0, |event| match event {
        Event::PlaybackEnded {
            playback,
            cause,
            played_millis,
            ..
        } if playback.0 == id => Some((*cause, *played_millis)),
        _ => None,
    })
}

fn recording_ended(control: &mut Control, id: u64) -> RecordingOutcome {
    control.wait_for(0, |event| match event {
        Event::RecordingEnded { recording, outcome } if recording.0 == id => Some(*outcome),
        _ => None,
    })
}

fn prompt_is_loaded_played_and_told_of(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("tone.wav");
    write_tone(&file, 300);
    let mut control = edge.connect(1);
    let call = pcmu_call(&mut control);
    let load = Command::LoadPrompt {
        prompt: PromptId(5),
        path: path(&file),
        raw: None,
    };
    assert_eq!(control.ask(0, load.clone()), Ok(()));
    assert_eq!(control.ask(0, load), Ok(()));
    play(&mut control, &call, B, 1, PlaySource::Prompt(PromptId(5)));
    let packets: Vec<Vec<u8>> = (0..15).map(|_| call.peers[1].receive_rtp()).collect();
    for (n, packet) in packets.iter().enumerate() {
        assert_eq!(ssrc_of(packet), call.locals[1].ssrc);
        let first = sequence_of(&packets[0]);
        assert_eq!(sequence_of(packet), first.wrapping_add(n as u16));
    }
    let payloads: Vec<Vec<u8>> = packets.iter().map(|packet| packet[12..].to_vec()).collect();
    assert!(share_of(440.0, &payloads) > 0.95);
    assert_eq!(
        playback_ended(&mut control, 1),
        (PlaybackEnd::Completed, 300)
    );
    // Live audio is back, and goes on in the same stream.
    let live = call.pass_a_to_b(9, &[0x55; 160]);
    assert_eq!(
        sequence_of(&live),
        sequence_of(&packets[14]).wrapping_add(1)
    );
    assert!(call.peers[0].has_heard_nothing());
    edge.wait_for_gauge(Counter::PlaybacksActive, 0);
    assert_eq!(edge.counter(Counter::PacketsEncoded), 15);
}

fn prompt_is_played_over_live_audio(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("tone.wav");
    write_tone(&file, 1_000);
    let mut control = edge.connect(1);
    let call = pcmu_call(&mut control);
    let load = Command::LoadPrompt {
        prompt: PromptId(5),
        path: path(&file),
        raw: None,
    };
    assert_eq!(control.ask(0, load), Ok(()));
    let softer = PlaybackMode::Into(LiveLevel::softer_by_db(6).expect("in range"));
    let prompt = PlaySource::Prompt(PromptId(5));
    play_as(&mut control, &call, B, 1, prompt, softer);
    for n in 0..45 {
        let packet = rtp(0, n, 7, &tone(1_000.0, n));
        call.peers[0].send_rtp(call.locals[0].rtp, &packet);
        std::thread::sleep(Duration::from_millis(20));
    }
    let packets: Vec<Vec<u8>> = (0..50).map(|_| call.peers[1].receive_rtp()).collect();
    for pair in packets.windows(2) {
        let next = sequence_of(&pair[0]).wrapping_add(1);
        assert_eq!(
            (ssrc_of(&pair[1]), sequence_of(&pair[1])),
            (call.locals[1].ssrc, next)
        );
    }
    let covered: Vec<Vec<u8>> = packets[10..35].iter().map(|p| p[12..].to_vec()).collect();
    // 12,000 and half of 8,000.
    let [played, live] = [440.0, 1_000.0].map(|hertz| share_of(hertz, &covered));
    assert!((0.8..0.95).contains(&played), "{played}");
    assert!((0.05..0.2).contains(&live), "{live}");
    assert_eq!(
        playback_ended(&mut control, 1),
        (PlaybackEnd::Completed, 1_000)
    );
    let live = call.pass_a_to_b(99, &[0x55; 160]);
    let next = sequence_of(&packets[49]).wrapping_add(1);
    assert_eq!(sequence_of(&live), next);
}

fn file_that_cannot_be_played_is_refused_when_it_is_loaded(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let dir = tempfile::tempdir().expect("a directory");
    let garbage = dir.path().join("garbage.wav");
    std::fs::write(&garbage, [0x5a; 4_000]).expect("writable");
    let mut control = edge.connect(1);
    let call = pcmu_call(&mut control);
    let missing = dir.path().join("missing.wav");
    // A header that is right in everything but what it claims of itself: rates, channels and
    // lengths that no file can have.
    let liars: Vec<_> = [(22, 0u8), (24, 0), (34, 7)]
        .into_iter()
        .map(|(at, value)| {
            let file = dir.path().join(format!("liar-{at}.wav"));
            write_tone(&file, 100);
            let mut bytes = std::fs::read(&file).expect("written");
            bytes[at..at + 2].copy_from_slice(&[value, 0]);
            std::fs::write(&file, bytes).expect("writable");
            file
        })
        .collect();
    let rows = [
        (liars[0].as_path(), Refusal::PromptUnsupported),
        (liars[1].as_path(), Refusal::PromptUnsupported),
        (liars[2].as_path(), Refusal::PromptUnsupported),
        (missing.as_path(), Refusal::PromptUnreadable),
        (garbage.as_path(), Refusal::PromptUnsupported),
        (dir.path(), Refusal::PromptUnreadable),
    ];
    for (file, refusal) in rows {
        let load = Command::LoadPrompt {
            prompt: PromptId(5),
            path: path(file),
            raw: None,
        };
        assert_eq!(control.ask(0, load), Err(refusal), "{}", file.display());
    }
    let command = Command::Play {
        session: call.session,
        leg: B,
        playback: Playback {
            id: PlaybackId(1),
            sources: PlaySources::new(vec![PlaySource::Prompt(PromptId(5))]).expect("one"),
            rounds: 1,
            ends_on_digit: false,
            mode: PlaybackMode::Replace,
        },
    };
    assert_eq!(control.ask(0, command), Err(Refusal::NoSuchPrompt));
    call.pass_a_to_b(1, b"goes on");
}

fn call_is_recorded_while_it_is_relayed(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("call.wav");
    let mut control = edge.connect(1);
    let call = pcmu_call(&mut control);
    let recording = Recording {
        id: RecordingId(77),
        path: path(&file),
        format: RecordingFormat::Wav8k,
        tracks: RecordingTracks::Stereo,
        paused: false,
    };
    let start = Command::StartRecording {
        session: call.session,
        recording,
    };
    assert_eq!(control.ask(0, start.clone()), Ok(()));
    assert_eq!(control.ask(0, start), Ok(()));
    for n in 0..50 {
        // Recorded is what was said; relayed is the same, untouched.
        let said = tone(440.0, n);
        assert_eq!(call.pass_a_to_b(n, &said)[12..], said);
        let said = tone(1_000.0, n);
        assert_eq!(call.pass_b_to_a(n, &said)[12..], said);
        std::thread::sleep(Duration::from_millis(20));
    }
    let stop = Command::StopRecording {
        session: call.session,
        recording: RecordingId(77),
    };
    assert_eq!(control.ask(0, stop.clone()), Ok(()));
    assert_eq!(control.ask(0, stop), Ok(()));
    let outcome = recording_ended(&mut control, 77);
    assert_eq!(outcome.cause, RecordingEnd::Stopped);
    assert_eq!(outcome.lost_packets, 0);
    assert!(
        (900..2_000).contains(&outcome.duration_millis),
        "{outcome:?}"
    );
    let bytes = std::fs::read(&file).expect("written");
    assert_eq!(bytes.len() as u64, outcome.bytes);
    assert_eq!(edge.counter(Counter::RecordingPacketsLost), 0);
    let data = bytes.windows(4).position(|tag| tag == b"data");
    let first = data.expect("a data chunk") + 8;
    let samples: Vec<[f64; 2]> = bytes[first..]
        .chunks_exact(4)
        .map(|frame| {
            let sample = |at| f64::from(i16::from_le_bytes([frame[at], frame[at + 1]]));
            [sample(0), sample(2)]
        })
        .collect();
    for (side, hertz) in [(0, 440.0), (1, 1_000.0)] {
        let middle = &samples[1_600..6_400];
        let power = |hertz: f64| {
            let (mut sine, mut cosine) = (0.0, 0.0);
            for (n, frame) in middle.iter().enumerate() {
                let angle = n as f64 * std::f64::consts::TAU * hertz / 8_000.0;
                sine += frame[side] * angle.sin();
                cosine += frame[side] * angle.cos();
            }
            sine * sine + cosine * cosine
        };
        let other = if side == 0 { 1_000.0 } else { 440.0 };
        assert!(power(hertz) > 100.0 * power(other), "side {side}");
    }
    edge.wait_for_gauge(Counter::RecordingsActive, 0);
}

fn recording_that_cannot_be_created_ends_at_once(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let mut control = edge.connect(1);
    let call = pcmu_call(&mut control);
    let recording = Recording {
        id: RecordingId(1),
        path: FilePath::new("/nowhere/at/all.wav").expect("absolute"),
        format: RecordingFormat::Wav8k,
        tracks: RecordingTracks::Mixed,
        paused: false,
    };
    let start = Command::StartRecording {
        session: call.session,
        recording,
    };
    assert_eq!(control.ask(0, start), Ok(()));
    assert_eq!(
        recording_ended(&mut control, 1).cause,
        RecordingEnd::CannotCreate
    );
    call.pass_a_to_b(1, b"goes on");
}

/// 20 ms of the key 5 in µ-law.
fn key_five(n: u16) -> Vec<u8> {
    (0..160)
        .map(|i| {
            let at = (f64::from(n) * 160.0 + f64::from(i)) / 8_000.0 * std::f64::consts::TAU;
            compress((at * 770.0).sin() * 6_000.0 + (at * 1_336.0).sin() * 6_000.0)
        })
        .collect()
}

fn full_disk_ends_the_recording_on_it_and_nothing_else(tier: IoTier) {
    let small = tempfile::tempdir().expect("a directory");
    let dir = tempfile::tempdir().expect("a directory");
    // A second of stereo.
    let Some(edge) = EdgeProcess::start_with_disk(tier, ONE_WORKER, small.path(), 32_768) else {
        return;
    };
    let mut control = edge.connect(1);
    let calls = [pcmu_call(&mut control), pcmu_call(&mut control)];
    for (id, call, place) in [(1, &calls[0], small.path()), (2, &calls[1], dir.path())] {
        let start = Command::StartRecording {
            session: call.session,
            recording: Recording {
                id: RecordingId(id),
                path: path(&place.join("call.wav")),
                format: RecordingFormat::Wav8k,
                tracks: RecordingTracks::Stereo,
                paused: false,
            },
        };
        assert_eq!(control.ask(0, start), Ok(()));
    }
    for n in 0..125 {
        for call in &calls {
            let packet = rtp(0, n, 7, &tone(440.0, n));
            call.peers[0].send_rtp(call.locals[0].rtp, &packet);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let full = recording_ended(&mut control, 1);
    assert_eq!(full.cause, RecordingEnd::DiskFull);
    assert!((16_000..=32_768).contains(&full.bytes), "{full:?}");
    // Both calls were relayed throughout.
    for call in &calls {
        let heard: Vec<Vec<u8>> = (0..125).map(|_| call.peers[1].receive_rtp()).collect();
        assert!(
            heard
                .windows(2)
                .all(|pair| { sequence_of(&pair[1]) == sequence_of(&pair[0]).wrapping_add(1) })
        );
    }
    let stop = Command::StopRecording {
        session: calls[1].session,
        recording: RecordingId(2),
    };
    assert_eq!(control.ask(0, stop), Ok(()));
    let whole = recording_ended(&mut control, 2);
    assert_eq!(
        (whole.cause, whole.lost_packets),
        (RecordingEnd::Stopped, 0)
    );
    assert!(whole.duration_millis >= 2_400, "{whole:?}");
}

fn hidden_digit_is_neither_relayed_nor_recorded(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("hidden.wav");
    let mut control = edge.connect(1);
    let call = pcmu_call(&mut control);
    let hide = Command::SetLegFunctions {
        session: call.session,
        leg: A,
        functions: LegFunctions {
            detects_tones: true,
            hides_digits: true,
            ..LegFunctions::default()
        },
    };
    assert_eq!(control.ask(0, hide), Ok(()));
    let start = Command::StartRecording {
        session: call.session,
        recording: Recording {
            id: RecordingId(9),
            path: path(&file),
            format: RecordingFormat::Wav8k,
            tracks: RecordingTracks::LegA,
            paused: false,
        },
    };
    assert_eq!(control.ask(0, start), Ok(()));
    for n in 0..80 {
        // Half a second of a tone, a key for 100 ms between pauses, and the tone again.
        let said = match n {
            0..25 | 55..80 => tone(440.0, n),
            35..40 => key_five(n),
            _ => vec![0xff; 160],
        };
        call.peers[0].send_rtp(call.locals[0].rtp, &rtp(0, n, 7, &said));
        std::thread::sleep(Duration::from_millis(20));
    }
    let digit = control.wait_for(0, |event| match event {
        Event::DigitReceived { digit, leg: A, .. } => Some(digit.as_char()),
        _ => None,
    });
    assert_eq!(digit, '5');
    let stop = Command::StopRecording {
        session: call.session,
        recording: RecordingId(9),
    };
    assert_eq!(control.ask(0, stop), Ok(()));
    assert_eq!(
        recording_ended(&mut control, 9).cause,
        RecordingEnd::Stopped
    );
    let bytes = std::fs::read(&file).expect("written");
    let data = bytes.windows(4).position(|tag| tag == b"data");
    let first = data.expect("a data chunk") + 8;
    let recorded: Vec<Vec<u8>> = bytes[first..]
        .chunks_exact(2)
        .map(|sample| compress(f64::from(i16::from_le_bytes([sample[0], sample[1]]))))
        .collect::<Vec<u8>>()
        .chunks(160)
        .map(<[u8]>::to_vec)
        .collect();
    let heard: Vec<Vec<u8>> = (0..70)
        .map(|_| call.peers[1].receive_rtp()[12..].to_vec())
        .collect();
    for (who, payloads) in [("recorded", &recorded), ("relayed", &heard)] {
        let loud = payloads
            .iter()
            .filter(|payload| loudness(payload) > 2_000.0);
        assert!(loud.count() > 30, "the tone is {who}");
        for payload in payloads {
            let key = share_of(1_336.0, std::slice::from_ref(payload));
            let is_loud = loudness(payload) > 500.0;
            assert!(!is_loud || key < 0.2, "the key is {who}: {key}");
        }
    }
}

/// A session with one leg, in a conference.
struct Party {
    call: Call,
}

fn join(control: &mut Control, muted: bool) -> Party {
    let session = control.new_session();
    let peer = Peer::new(V4);
    let local = control.open_leg(0, session, A, V4, RtcpMode::Muxed);
    let config = peer.config(RtcpMode::Muxed);
    control.configure(0, session, A, config);
    let call = Call {
        worker: 0,
        session,
        locals: [local, local],
        peers: [peer, Peer::new(V4)],
    };
    let set = Command::SetLegAudio {
        session,
        leg: A,
        audio: audio(AudioCodec::Pcmu),
    };
    assert_eq!(control.ask(0, set), Ok(()));
    let join = Command::JoinConference {
        session,
        leg: A,
        membership: Membership {
            conference: ConferenceId(3),
            muted,
            deaf: false,
            whispers_to: None,
        },
    };
    assert_eq!(control.ask(0, join.clone()), Ok(()));
    assert_eq!(control.ask(0, join), Ok(()));
    Party { call }
}

fn three_parties_hear_each_other_and_not_themselves(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let mut control = edge.connect(1);
    let parties: Vec<Party> = (0..3).map(|_| join(&mut control, false)).collect();
    edge.wait_for_gauge(Counter::ConferenceMembers, 3);
    let tones = [440.0, 700.0, 1_100.0];
    for n in 0..60 {
        for (party, hertz) in parties.iter().zip(tones) {
            let Party { call } = party;
            call.peers[0].send_rtp(call.locals[0].rtp, &rtp(0, n, 7, &tone(hertz, n)));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    for (index, Party { call }) in parties.iter().enumerate() {
        let packets: Vec<Vec<u8>> = (0..55).map(|_| call.peers[0].receive_rtp()).collect();
        assert!(
            packets
                .iter()
                .all(|packet| ssrc_of(packet) == call.locals[0].ssrc)
        );
        let payloads: Vec<Vec<u8>> = packets[25..50]
            .iter()
            .map(|packet| packet[12..].to_vec())
            .collect();
        for (other, hertz) in tones.into_iter().enumerate() {
            let share = share_of(hertz, &payloads);
            if other == index {
                assert!(share < 0.02, "party {index} hears itself: {share}");
            } else {
                assert!(share > 0.2, "party {index} does not hear {other}: {share}");
            }
        }
    }
    for party in &parties {
        control.close(&party.call);
    }
    edge.wait_for_gauge(Counter::ConferenceMembers, 0);
}

fn opus_and_pcmu_understand_each_other(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let mut control = edge.connect(1);
    let call = control.simple_call(0);
    set_audio(&mut control, &call, [AudioCodec::Pcmu, AudioCodec::Opus]);
    // Leg A's own routes take PCMU to PCMU; B's peer has none of it.
    for (leg, peer) in LegIndex::ALL.into_iter().zip(&call.peers) {
        let mut config = peer.config(RtcpMode::Separate);
        config.routes = trunkline_edge_api::PayloadRoutes::default();
        control.configure(0, call.session, leg, config);
    }
    let [a, b] = &call.peers;
    let mut heard = Vec::new();
    for n in 0..60 {
        a.send_rtp(call.locals[0].rtp, &rtp(0, n, 7, &tone(440.0, n)));
        let opus = b.receive_rtp();
        assert_eq!(opus[1] & 0x7f, 111);
        // Its peer sends back what it was sent.
        let mut echo = opus.clone();
        echo[8..12].copy_from_slice(&99u32.to_be_bytes());
        b.send_rtp(call.locals[1].rtp, &echo);
        heard.push(a.receive_rtp()[12..].to_vec());
    }
    assert!(share_of(440.0, &heard[20..]) > 0.9);
    assert!(loudness(&heard.concat()) > 2_000.0);
    assert_eq!(edge.counter(Counter::PacketsEncoded), 120);
}

fn digits_are_sent_and_told_of(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let mut control = edge.connect(1);
    let call = pcmu_call(&mut control);
    let digits: Vec<Digit> = "42".chars().filter_map(Digit::from_char).collect();
    let send = Command::SendDigits {
        session: call.session,
        leg: B,
        digits: DigitsToSend {
            id: DigitsId(3),
            digits: DigitString::new(digits).expect("two"),
            on_millis: 100,
            off_millis: 50,
            method: DigitMethod::Preferred,
        },
    };
    assert_eq!(control.ask(0, send), Ok(()));
    control.wait_for(0, |event| match event {
        Event::DigitsSent { digits, .. } if digits.0 == 3 => Some(()),
        _ => None,
    });
    // What B's peer was sent it sends back: the edge hears the same digits from it.
    let mut echoed = 0;
    while !call.peers[1].has_heard_nothing() {
        echoed += 1;
        assert!(echoed < 100);
    }
    let event = |end: u8, duration: u16| {
        let [high, low] = duration.to_be_bytes();
        [4, end << 7 | 10, high, low]
    };
    for (sequence, payload) in [(1, event(0, 160)), (2, event(1, 800)), (3, event(1, 800))] {
        let mut packet = rtp(101, sequence, 9, &payload);
        packet[4..8].copy_from_slice(&5_000u32.to_be_bytes());
        call.peers[1].send_rtp(call.locals[1].rtp, &packet);
    }
    let (digit, millis) = control.wait_for(0, |event| match event {
        Event::DigitReceived {
            digit,
            duration_millis,
            leg: B,
            ..
        } => Some((digit.as_char(), *duration_millis)),
        _ => None,
    });
    assert_eq!((digit, millis), ('4', 100));
    assert_eq!(edge.counter(Counter::DigitsReceived), 1);
}

fn nothing_is_left_when_a_call_ends_in_the_middle_of_everything(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let dir = tempfile::tempdir().expect("a directory");
    let mut control = edge.connect(1);
    let call = pcmu_call(&mut control);
    play(
        &mut control,
        &call,
        B,
        1,
        PlaySource::Silence { millis: 60_000 },
    );
    let start = Command::StartRecording {
        session: call.session,
        recording: Recording {
            id: RecordingId(1),
            path: path(&dir.path().join("cut.wav")),
            format: RecordingFormat::Wav8k,
            tracks: RecordingTracks::Mixed,
            paused: false,
        },
    };
    assert_eq!(control.ask(0, start), Ok(()));
    let join = Command::JoinConference {
        session: call.session,
        leg: A,
        membership: Membership {
            conference: ConferenceId(1),
            muted: false,
            deaf: false,
            whispers_to: None,
        },
    };
    assert_eq!(control.ask(0, join), Ok(()));
    control.close(&call);
    assert_eq!(playback_ended(&mut control, 1).0, PlaybackEnd::Stopped);
    assert_eq!(
        recording_ended(&mut control, 1).cause,
        RecordingEnd::Stopped
    );
    edge.wait_for_gauge(Counter::PlaybacksActive, 0);
    edge.wait_for_gauge(Counter::RecordingsActive, 0);
    edge.wait_for_gauge(Counter::ConferenceMembers, 0);
    edge.wait_for_gauge(Counter::SessionsActive, 0);
}
