//! Conferences over the real rings and real sockets: members of different codecs and parts, the
//! tones of who comes and goes, and the recording of the mix.

mod support;

use std::cell::RefCell;
use std::f64::consts::TAU;
use std::time::Duration;

use support::{A, B, Call, Control, EdgeProcess, Peer, V4, on_each_tier, rtp, ssrc_of};
use trunkline_edge_api::{
    AudioCodec, AudioFormat, AudioFormats, ClockRateHz, Command, ConferenceId, ConferenceSettings,
    Counter, Event, FilePath, IoTier, LegAudio, LiveLevel, Membership, OpusOptions, PacketTime,
    PayloadType, PlaySource, PlaySources, Playback, PlaybackEnd, PlaybackId, PlaybackMode,
    Recording, RecordingEnd, RecordingFormat, RecordingId, RecordingTracks, RtcpMode, SessionId,
    Tone, ToneSegment,
};
use trunkline_media::SampleRate;
use trunkline_media::codec::{Decoder, Encoder};

const ONE_WORKER: &str = "workers = 1\nsessions_max = 16";
const ROOM: ConferenceId = ConferenceId(3);
/// Samples of 20 ms at 8 kHz.
const FRAME: usize = 160;

on_each_tier! {
    members_of_every_part_hear_what_is_theirs_in_their_own_codec,
    who_comes_and_goes_is_heard_where_the_settings_say_so,
}

fn format(codec: AudioCodec) -> AudioFormat {
    let (number, clock_rate) = match codec {
        AudioCodec::Pcmu => (0, ClockRateHz::NARROWBAND),
        AudioCodec::Pcma => (8, ClockRateHz::NARROWBAND),
        AudioCodec::G722 => (9, ClockRateHz::G722_RTP),
        AudioCodec::L16 => (97, ClockRateHz::NARROWBAND),
        AudioCodec::Opus => (111, ClockRateHz::OPUS),
    };
    AudioFormat {
        codec,
        payload_type: PayloadType::new(number).expect("below 128"),
        clock_rate,
        channels: if codec == AudioCodec::Opus { 2 } else { 1 },
        packet_time: PacketTime::MS_20,
        opus: OpusOptions::default(),
    }
}

/// A session with one leg, in the conference, and who is at its other end.
struct Party {
    call: Call,
    format: AudioFormat,
    encoder: RefCell<Encoder>,
    /// Its voice, Hz; 0: it says nothing.
    hertz: f64,
}

impl Party {
    fn join(
        control: &mut Control,
        codec: AudioCodec,
        hertz: f64,
        part: impl FnOnce(&mut Membership),
    ) -> Self {
        let session = control.new_session();
        let peer = Peer::new(V4);
        let local = control.open_leg(0, session, A, V4, RtcpMode::Muxed);
        control.configure(0, session, A, peer.config(RtcpMode::Muxed));
        let format = format(codec);
        let audio = LegAudio {
            receive: AudioFormats::new(vec![format]).expect("one"),
            send: format,
            receive_events: None,
            send_events: None,
            comfort_noise: None,
        };
        let set = Command::SetLegAudio {
            session,
            leg: A,
            audio: Some(Box::new(audio)),
        };
        assert_eq!(control.ask(0, set), Ok(()));
        let mut membership = Membership {
            conference: ROOM,
            muted: false,
            deaf: false,
            whispers_to: None,
        };
        part(&mut membership);
        let join = Command::JoinConference {
            session,
            leg: A,
            membership,
        };
        assert_eq!(control.ask(0, join), Ok(()));
        let call = Call {
            worker: 0,
            session,
            locals: [local, local],
            peers: [peer, Peer::new(V4)],
        };
        let encoder = Encoder::new(&format, SampleRate::Hz8000).expect("of this build");
        Self {
            call,
            format,
            encoder: RefCell::new(encoder),
            hertz,
        }
    }

    fn session(&self) -> SessionId {
        self.call.session
    }

    fn say(&self, n: u16) {
        let sample = |i: usize| {
            let secs = (usize::from(n) * FRAME + i) as f64 / 8_000.0;
            ((TAU * self.hertz * secs).sin() * 6_000.0) as i16
        };
        let samples: Vec<i16> = (0..FRAME).map(sample).collect();
        let mut payload = [0; 1_024];
        let mut encoder = self.encoder.borrow_mut();
        let len = encoder.encode(&samples, &mut payload).expect("a frame");
        // The helper stamps by 160 for each packet; Opus counts by 960.
        let mut packet = rtp(self.format.payload_type.get(), n, 7, &payload[..len]);
        let step = self.format.clock_rate.get() / 50;
        packet[4..8].copy_from_slice(&(u32::from(n) * step).to_be_bytes());
        self.call.peers[0].send_rtp(self.call.locals[0].rtp, &packet);
    }

    /// What it is sent in `count` packets, as samples.
    fn hear(&self, count: usize) -> Vec<i16> {
        let mut decoder = Decoder::new(&self.format, SampleRate::Hz8000).expect("of this build");
        let mut heard = Vec::new();
        for _ in 0..count {
            let mut packet = self.call.peers[0].receive_rtp();
            // Reports come on the same port (RFC 5761 §4).
            while (192..=223).contains(&packet[1]) {
                packet = self.call.peers[0].receive_rtp();
            }
            assert_eq!(ssrc_of(&packet), self.call.locals[0].ssrc);
            assert_eq!(packet[1] & 0x7f, self.format.payload_type.get());
            let mut samples = [0; 6 * FRAME];
            let len = decoder.decode(&packet[12..], &mut samples).expect("sound");
            heard.extend_from_slice(&samples[..len]);
        }
        heard
    }
}

/// Amplitude of `hertz` in samples.
fn amplitude(samples: &[i16], hertz: f64) -> f64 {
    let (mut sine, mut cosine) = (0.0, 0.0);
    for (n, &sample) in samples.iter().enumerate() {
        let (s, c) = (n as f64 * TAU * hertz / 8_000.0).sin_cos();
        sine += f64::from(sample) * s;
        cosine += f64::from(sample) * c;
    }
    2.0 * f64::hypot(sine, cosine) / samples.len() as f64
}

fn loudness(samples: &[i16]) -> f64 {
    let sum: f64 = samples.iter().map(|&s| f64::from(s).powi(2)).sum();
    (sum / samples.len().max(1) as f64).sqrt()
}

fn talk(parties: &[&Party], packets: std::ops::Range<u16>) {
    for n in packets {
        for party in parties.iter().filter(|party| party.hertz > 0.0) {
            party.say(n);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn members_of_every_part_hear_what_is_theirs_in_their_own_codec(tier: IoTier) {
    let edge = EdgeProcess::start(tier, ONE_WORKER);
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("mix.wav");
    let mut control = edge.connect(1);
    let settings = ConferenceSettings {
        announces: false,
        recording: Some(Recording {
            id: RecordingId(8),
            path: FilePath::new(file.to_str().expect("plain")).expect("absolute"),
            format: RecordingFormat::Wav8k,
            tracks: RecordingTracks::Mixed,
            paused: false,
        }),
    };
    let set = Command::SetConference {
        conference: ROOM,
        settings: Box::new(settings),
    };
    assert_eq!(control.ask(0, set), Ok(()));
    let [caller_hz, agent_hz, coach_hz, monitor_hz] = [400.0, 700.0, 1_000.0, 1_300.0];
    let caller = Party::join(&mut control, AudioCodec::Pcmu, caller_hz, |_| {});
    let agent = Party::join(&mut control, AudioCodec::G722, agent_hz, |_| {});
    let to_agent = Some((agent.session(), A));
    let coach = Party::join(&mut control, AudioCodec::Pcma, coach_hz, |part| {
        part.whispers_to = to_agent;
    });
    let monitor = Party::join(&mut control, AudioCodec::L16, monitor_hz, |part| {
        part.muted = true;
    });
    let deaf = Party::join(&mut control, AudioCodec::Pcmu, 0.0, |part| part.deaf = true);
    edge.wait_for_gauge(Counter::ConferenceMembers, 5);
    // Something is played to the monitor over the mix, and to nobody else.
    let beep_hz = 1_700;
    let segment = ToneSegment {
        on_millis: 400,
        off_millis: 0,
        frequencies_hz: [beep_hz, 0],
    };
    let tone = PlaySource::Tone(Tone::new(&[segment], -15).expect("a tone"));
    let play = Command::Play {
        session: monitor.session(),
        leg: A,
        playback: Playback {
            id: PlaybackId(1),
            sources: PlaySources::new(vec![tone]).expect("one"),
            rounds: 4,
            ends_on_digit: false,
            mode: PlaybackMode::Into(LiveLevel::UNCHANGED),
        },
    };
    assert_eq!(control.ask(0, play), Ok(()));
    let all = [&caller, &agent, &coach, &monitor, &deaf];
    talk(&all, 0..60);
    let voices = [
        caller_hz,
        agent_hz,
        coach_hz,
        monitor_hz,
        f64::from(beep_hz),
    ];
    for (name, party, expected) in [
        ("caller", &caller, [false, true, false, false, false]),
        ("agent", &agent, [true, false, true, false, false]),
        ("coach", &coach, [true, true, false, false, false]),
        ("monitor", &monitor, [true, true, false, false, true]),
        ("deaf", &deaf, [false; 5]),
    ] {
        let heard = party.hear(50);
        let middle = &heard[20 * FRAME..35 * FRAME];
        for (hertz, is_heard) in voices.into_iter().zip(expected) {
            let level = amplitude(middle, hertz);
            let is_right = if is_heard {
                level > 1_500.0
            } else {
                level < 300.0
            };
            assert!(is_right, "{name} has {level} of {hertz} Hz");
        }
    }
    let (cause, millis) = control.wait_for(0, |event| match event {
        Event::PlaybackEnded {
            cause,
            played_millis,
            ..
        } => Some((*cause, *played_millis)),
        _ => None,
    });
    assert_eq!((cause, millis), (PlaybackEnd::Completed, 1_600));
    // Who whispers or is muted is nobody's speaker.
    let speaker = control.wait_for(0, |event| match event {
        Event::SpeakerChanged {
            conference: ROOM,
            speaker: Some(speaker),
        } => Some(*speaker),
        _ => None,
    });
    assert!([caller.session(), agent.session()].contains(&speaker.0));
    let close = Command::CloseConference { conference: ROOM };
    assert_eq!(control.ask(0, close), Ok(()));
    let outcome = control.wait_for(0, |event| match event {
        Event::RecordingEnded { outcome, .. } => Some(*outcome),
        _ => None,
    });
    assert_eq!(outcome.cause, RecordingEnd::Stopped);
    assert_eq!(outcome.lost_packets, 0);
    let bytes = std::fs::read(&file).expect("written");
    let data = bytes.windows(4).position(|tag| tag == b"data");
    let first = data.expect("a data chunk") + 8;
    let samples = bytes[first..].chunks_exact(2);
    let mix: Vec<i16> = samples.map(|s| i16::from_le_bytes([s[0], s[1]])).collect();
    assert!(mix.len() > 45 * FRAME, "{}", mix.len());
    for (hertz, is_heard) in voices.into_iter().zip([true, true, false, false, false]) {
        let levels = mix
            .chunks_exact(15 * FRAME)
            .map(|part| amplitude(part, hertz));
        let level = levels.fold(0.0, f64::max);
        let is_right = if is_heard {
            level > 1_500.0
        } else {
            level < 300.0
        };
        assert!(is_right, "the recording has {level} of {hertz} Hz");
    }
    edge.wait_for_gauge(Counter::ConferenceMembers, 0);
}

fn who_comes_and_goes_is_heard_where_the_settings_say_so(tier: IoTier) {
    for announces in [true, false] {
        let edge = EdgeProcess::start(tier, ONE_WORKER);
        let mut control = edge.connect(1);
        let settings = ConferenceSettings {
            announces,
            recording: None,
        };
        let set = Command::SetConference {
            conference: ROOM,
            settings: Box::new(settings),
        };
        assert_eq!(control.ask(0, set), Ok(()));
        let host = Party::join(&mut control, AudioCodec::Pcmu, 0.0, |_| {});
        // Its own tone is over.
        host.hear(60);
        let guest = Party::join(&mut control, AudioCodec::Pcma, 0.0, |_| {});
        let came = loudness(&host.hear(60));
        control.close(&guest.call);
        let went = loudness(&host.hear(60));
        assert_eq!(
            (came > 200.0, went > 200.0),
            (announces, announces),
            "{came} {went}"
        );
        // A leg that is in no conference leaves it without a word.
        let leave = Command::LeaveConference {
            session: host.session(),
            leg: B,
        };
        assert_eq!(control.ask(0, leave), Ok(()));
        edge.wait_for_gauge(Counter::ConferenceMembers, 1);
    }
}
