//! Media functions through a whole session: packets in, packets out, and the clock in between.

use trunkline_edge_api::{
    AudioCodec, AudioFormats, Digit, LegConfig, LocalMedia, MediaDirection, MediaTimeouts,
    OpusOptions, PacketTime, PayloadRoutes, PlaySource, PlaySources, Playback, PlaybackMode,
    RtcpMode, SourcePolicy, Ssrc, TelephoneEventFormat, Tone, ToneSegment,
};

use trunkline_edge_api::{ClockRateHz, DropReason, PayloadRoute, PayloadType};

mod digits;
mod formats;
mod hostile;
mod listening;
mod overlay;
mod shared_tones;

use super::*;
use crate::codec::g711::Law;
use crate::demux::MediaKind;
use crate::packet_buf::PacketBuf;
use crate::rtp::RtpHeader;
use crate::session::{
    MediaSession, RxMeta, SessionCommand, SocketKind, TICK_MILLIS, TRANSMIT_LEN_MAX, Transmit,
    Verdict,
};

const A: LegIndex = LegIndex::A;
const B: LegIndex = LegIndex::B;
const SSRC: [Ssrc; 2] = [Ssrc(0xaaaa_aaaa), Ssrc(0xbbbb_bbbb)];
const START: MonoTime = MonoTime(1_000_000_000);
const REMOTE: [&str; 2] = ["198.51.100.1:4000", "198.51.100.2:6000"];
const EVENTS: u8 = 101;
/// 20 ms at 8 kHz.
const STEP: u32 = 160;

fn pt(value: u8) -> PayloadType {
    PayloadType::new(value).expect("below 128")
}

fn g711(codec: AudioCodec) -> AudioFormat {
    AudioFormat {
        codec,
        payload_type: match codec {
            AudioCodec::Pcmu => PayloadType::PCMU,
            _ => PayloadType::PCMA,
        },
        clock_rate: ClockRateHz::NARROWBAND,
        channels: 1,
        packet_time: PacketTime::MS_20,
        opus: OpusOptions::default(),
    }
}

fn events() -> TelephoneEventFormat {
    TelephoneEventFormat {
        payload_type: pt(EVENTS),
        clock_rate: ClockRateHz::NARROWBAND,
    }
}

fn audio(format: AudioFormat, has_events: bool) -> LegAudio {
    LegAudio {
        receive: AudioFormats::new(vec![format]).expect("one"),
        send: format,
        receive_events: has_events.then(events),
        send_events: has_events.then(events),
        comfort_noise: Some(PayloadType::CN),
    }
}

/// A packet that came out of the session.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Out {
    transmit: Transmit,
    header: RtpHeader,
    payload: Vec<u8>,
}

struct Call {
    session: MediaSession,
    now: MonoTime,
    /// All that left, in order.
    out: Vec<Out>,
    events: Vec<SessionEvent>,
}

impl Call {
    /// Two peers that have `routes` in common, each of which takes `formats`.
    fn new(routes: &[u8], formats: [LegAudio; 2]) -> Self {
        let mut call = Self {
            session: MediaSession::new(),
            now: START,
            out: Vec::new(),
            events: Vec::new(),
        };
        for leg in LegIndex::ALL {
            let local = LocalMedia {
                rtp: ([192, 0, 2, 1], 30_000 + 2 * leg.as_usize() as u16).into(),
                rtcp: RtcpMode::Muxed,
                ssrc: SSRC[leg.as_usize()],
            };
            call.command(SessionCommand::OpenLeg(leg, local));
        }
        for leg in LegIndex::ALL {
            call.configure(leg, routes, MediaDirection::SendReceive);
        }
        for (leg, audio) in LegIndex::ALL.into_iter().zip(formats) {
            call.command(SessionCommand::SetAudio(leg, Some(Box::new(audio))));
        }
        call
    }

    /// PCMU and telephone events on both sides, relayed as they are.
    fn relayed() -> Self {
        let both = || audio(g711(AudioCodec::Pcmu), true);
        Self::new(&[0, EVENTS], [both(), both()])
    }

    /// A has PCMU, B has PCMA.
    fn between_laws(b_has_events: bool) -> Self {
        let a = audio(g711(AudioCodec::Pcmu), true);
        let b = audio(g711(AudioCodec::Pcma), b_has_events);
        Self::new(if b_has_events { &[EVENTS] } else { &[] }, [a, b])
    }

    fn configure(&mut self, leg: LegIndex, routes: &[u8], direction: MediaDirection) {
        let remote = REMOTE[leg.as_usize()].parse().expect("an address");
        let route = |&number: &u8| PayloadRoute {
            from: pt(number),
            to: pt(number),
            clock_rate: ClockRateHz::NARROWBAND,
        };
        let config = LegConfig {
            remote_rtp: Some(remote),
            remote_rtcp: Some(remote),
            source: SourcePolicy::Exact,
            direction,
            routes: PayloadRoutes::new(routes.iter().map(route).collect()).expect("distinct"),
            crypto: None,
            timeouts: MediaTimeouts::OFF,
        };
        self.command(SessionCommand::ConfigureLeg(leg, config));
    }

    fn command(&mut self, command: SessionCommand) {
        self.session
            .handle_command(self.now, command)
            .expect("a command that fits");
    }

    fn receive(&mut self, leg: LegIndex, packet: &[u8]) -> Verdict {
        let meta = RxMeta {
            source: REMOTE[leg.as_usize()].parse().expect("an address"),
            socket: SocketKind::Rtp,
            truncated: false,
        };
        let mut buffer = vec![0; 1_600];
        buffer[..packet.len()].copy_from_slice(packet);
        let buf = PacketBuf::new(&mut buffer, packet.len());
        let verdict = self.session.handle_packet(self.now, leg, &meta, buf);
        if let Verdict::Forward(transmit) = verdict
            && transmit.kind == MediaKind::Rtp
        {
            self.keep(transmit, &buffer[..transmit.len]);
        }
        if self.session.wants().transmit {
            self.drain();
        }
        self.tell();
        verdict
    }

    /// RTP that `leg`'s peer sends as its packet `n`, 20 ms apart.
    fn speak(&mut self, leg: LegIndex, payload_type: u8, n: u16, payload: &[u8]) -> Verdict {
        let timestamp = u32::from(n) * STEP;
        self.receive(leg, &rtp(payload_type, n, timestamp, payload))
    }

    fn drain(&mut self) {
        let mut out = [0; TRANSMIT_LEN_MAX];
        while let Some(transmit) = self.session.poll_transmit(self.now, &mut out) {
            if transmit.kind == MediaKind::Rtp {
                self.keep(transmit, &out[..transmit.len]);
            }
        }
    }

    fn keep(&mut self, transmit: Transmit, packet: &[u8]) {
        let header = RtpHeader::parse(packet).expect("RTP");
        self.out.push(Out {
            transmit,
            header,
            payload: packet[header.header_len..].to_vec(),
        });
    }

    fn tell(&mut self) {
        while let Some(event) = self.session.poll_event() {
            if !matches!(event, SessionEvent::MediaStarted { .. }) {
                self.events.push(event);
            }
        }
    }

    /// Lets `millis` pass, ticking as a worker would.
    fn pass(&mut self, millis: u64) {
        for _ in 0..millis / TICK_MILLIS {
            if self.session.wants().ticks {
                self.session.handle_tick(self.now);
                self.drain();
                self.tell();
            }
            self.now = self.now.plus_millis(TICK_MILLIS);
        }
    }

    /// What left on `leg` since the last call.
    fn take_sent(&mut self, leg: LegIndex) -> Vec<Out> {
        let (taken, kept) = self.out.drain(..).partition(|out| out.transmit.leg == leg);
        self.out = kept;
        taken
    }

    fn play(&mut self, leg: LegIndex, id: u32, sources: Vec<PlaySource>, ends_on_digit: bool) {
        let playback = Playback {
            id: PlaybackId(id),
            sources: PlaySources::new(sources).expect("some"),
            rounds: 1,
            ends_on_digit,
            mode: PlaybackMode::Replace,
        };
        let prompts = Vec::new();
        self.command(SessionCommand::Play(
            leg,
            PreparedPlayback {
                playback,
                prompts,
                tones: Vec::new(),
            },
        ));
    }
}

fn rtp(payload_type: u8, sequence: u16, timestamp: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, payload_type];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&timestamp.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 7]);
    packet.extend_from_slice(payload);
    packet
}

/// A report of a key that has been held for `millis`.
fn event(digit: char, is_end: bool, millis: u16) -> [u8; 4] {
    let code = Digit::from_char(digit).expect("a digit").event();
    let [high, low] = (millis * 8).to_be_bytes();
    [code, u8::from(is_end) << 7 | 10, high, low]
}

/// The packets of one key press on leg A: marker, progress, three ends.
fn press(call: &mut Call, digit: char, first: u16) {
    let timestamp = u32::from(first) * STEP;
    for (n, (is_end, millis)) in [(false, 20), (false, 40), (true, 60), (true, 60), (true, 60)]
        .into_iter()
        .enumerate()
    {
        let marker = u8::from(n == 0) << 7;
        let sequence = first + n as u16;
        let packet = rtp(
            marker | EVENTS,
            sequence,
            timestamp,
            &event(digit, is_end, millis),
        );
        let _ = call.receive(A, &packet);
        call.pass(20);
    }
}

fn tone(millis: u16) -> PlaySource {
    let segment = ToneSegment {
        on_millis: millis,
        off_millis: 0,
        frequencies_hz: [425, 0],
    };
    PlaySource::Tone(Tone::new(&[segment], -10).expect("a tone"))
}

fn energy(payload: &[u8], law: Law) -> f64 {
    let sum: f64 = payload
        .iter()
        .map(|&code| f64::from(law.decode(code)).powi(2))
        .sum();
    (sum / payload.len() as f64).sqrt()
}

fn digits(id: u32, text: &str, method: DigitMethod) -> DigitsToSend {
    let digits: Vec<Digit> = text.chars().filter_map(Digit::from_char).collect();
    DigitsToSend {
        id: DigitsId(id),
        digits: DigitString::new(digits).expect("some"),
        on_millis: 100,
        off_millis: 60,
        method,
    }
}

/// One SSRC, numbers that rise by one, timestamps that never go back.
fn assert_one_stream(sent: &[Out], ssrc: Ssrc) {
    for (before, after) in sent.iter().zip(&sent[1..]) {
        let step = after.header.sequence.wrapping_sub(before.header.sequence);
        let elapsed = after.header.timestamp.wrapping_sub(before.header.timestamp);
        assert_eq!((step, after.header.ssrc), (1, ssrc), "{before:?} {after:?}");
        assert!(elapsed < 8_000 * 60, "{before:?} {after:?}");
    }
}

#[test]
fn one_law_becomes_the_other_in_the_packet_that_came() {
    let mut call = Call::between_laws(true);
    let speech: Vec<u8> = (0..160).map(|n| n as u8).collect();
    let verdict = call.speak(A, 0, 1, &speech);
    assert!(matches!(verdict, Verdict::Forward(_)), "{verdict:?}");
    let sent = call.take_sent(B);
    assert_eq!(sent[0].header.payload_type, PayloadType::PCMA);
    for (mulaw, alaw) in speech.iter().zip(&sent[0].payload) {
        let (before, after) = (Law::Mu.decode(*mulaw), Law::A.decode(*alaw));
        let error = i32::from(before).abs_diff(i32::from(after));
        assert!(
            error <= 64 + before.unsigned_abs() as u32 / 16,
            "{before} {after}"
        );
    }
}

#[test]
fn packets_of_another_length_are_cut_anew() {
    let long = AudioFormat {
        packet_time: PacketTime::from_millis(60).expect("a multiple of ten"),
        ..g711(AudioCodec::Pcma)
    };
    let a = audio(g711(AudioCodec::Pcmu), false);
    let mut call = Call::new(&[], [a, audio(long, false)]);
    for n in 0..9 {
        assert_eq!(call.speak(A, 0, n, &[0x55; 160]), Verdict::Consumed);
        call.pass(20);
    }
    let sent = call.take_sent(B);
    assert_eq!(sent.len(), 3);
    assert!(sent.iter().all(|out| out.payload.len() == 480));
    assert_eq!(
        sent[2]
            .header
            .timestamp
            .wrapping_sub(sent[0].header.timestamp),
        960
    );
    assert_one_stream(&sent, SSRC[1]);
}

#[test]
fn payload_type_that_neither_route_nor_format_names_is_dropped() {
    let mut call = Call::between_laws(true);
    let verdict = call.speak(A, 18, 1, &[0; 20]);
    assert_eq!(verdict, Verdict::Drop(DropReason::PayloadTypeNotNegotiated));
}

#[test]
fn key_is_told_once_and_passes_to_a_peer_that_takes_events() {
    let mut call = Call::relayed();
    let _ = call.speak(A, 0, 99, &[0xff; 160]);
    press(&mut call, '7', 100);
    let told = SessionEvent::DigitReceived {
        leg: A,
        digit: Digit::from_char('7').expect("a digit"),
        duration_millis: 60,
        source: DigitSource::Event,
    };
    assert_eq!(call.events, [told]);
    let sent = call.take_sent(B);
    assert_eq!(sent.len(), 6);
    assert_eq!(sent[5].payload, event('7', true, 60));
    assert_one_stream(&sent, SSRC[1]);
}

#[test]
fn hidden_key_is_told_to_control_and_to_nobody_else() {
    let mut call = Call::relayed();
    let hides = LegFunctions {
        hides_digits: true,
        ..LegFunctions::default()
    };
    call.command(SessionCommand::SetFunctions(A, hides));
    press(&mut call, '7', 100);
    assert_eq!(call.events.len(), 1);
    assert_eq!(call.take_sent(B), []);
}

#[test]
fn key_that_nobody_says_was_let_go_ends_by_itself() {
    let mut call = Call::relayed();
    let packet = rtp(0x80 | EVENTS, 5, 800, &event('3', false, 40));
    let _ = call.receive(A, &packet);
    assert!(call.session.wants().ticks);
    call.pass(500);
    assert_eq!(call.events.len(), 1);
    assert!(!call.session.wants().ticks);
}

#[test]
fn last_key_counts_when_the_call_ends_before_its_end_has_come() {
    let mut call = Call::relayed();
    let packet = rtp(0x80 | EVENTS, 5, 800, &event('3', false, 40));
    let _ = call.receive(A, &packet);
    call.session.handle_close();
    call.tell();
    assert_eq!(call.events.len(), 1);
}

#[test]
fn key_becomes_a_tone_for_a_peer_without_events() {
    let mut call = Call::between_laws(false);
    press(&mut call, '5', 100);
    call.pass(400);
    let sent = call.take_sent(B);
    assert!(!sent.is_empty());
    assert!(
        sent.iter()
            .all(|out| out.header.payload_type == PayloadType::PCMA)
    );
    let loud = sent
        .iter()
        .filter(|out| energy(&out.payload, Law::A) > 1_000.0)
        .count();
    // 60 ms, as it was pressed.
    assert_eq!(loud, 3);
    assert_one_stream(&sent, SSRC[1]);
    // What was converted was no string of control's.
    assert!(
        !call
            .events
            .iter()
            .any(|event| matches!(event, SessionEvent::DigitsSent { .. }))
    );
}

#[test]
fn prompt_and_live_audio_alternate_in_one_stream() {
    let mut call = Call::relayed();
    for n in 0..5 {
        let _ = call.speak(A, 0, n, &[0xff; 160]);
        call.pass(20);
    }
    call.play(B, 1, vec![tone(200)], false);
    for n in 5..20 {
        let verdict = call.speak(A, 0, n, &[0xff; 160]);
        let is_replaced = verdict == Verdict::Drop(DropReason::MediaReplaced);
        // The sixteenth comes just before the tick that finds the prompt at its end.
        assert_eq!(is_replaced, n < 16, "packet {n}: {verdict:?}");
        call.pass(20);
    }
    let sent = call.take_sent(B);
    assert_eq!(sent.len(), 19);
    assert_one_stream(&sent, SSRC[1]);
    let total = sent[18]
        .header
        .timestamp
        .wrapping_sub(sent[0].header.timestamp);
    assert!(total.abs_diff(19 * STEP) <= STEP, "{total}");
    let markers: Vec<usize> = (0..19).filter(|&n| sent[n].header.marker).collect();
    assert_eq!(markers, [5]);
    assert!(energy(&sent[7].payload, Law::Mu) > 1_000.0);
    let ended = SessionEvent::PlaybackEnded {
        leg: B,
        playback: PlaybackId(1),
        cause: PlaybackEnd::Completed,
        played_millis: 200,
    };
    assert_eq!(call.events, [ended]);
    // The other direction heard nothing of it.
    assert_eq!(call.take_sent(A), []);
}

#[test]
fn playback_said_again_does_not_begin_again() {
    let mut call = Call::relayed();
    call.play(B, 1, vec![tone(100)], false);
    call.pass(60);
    call.play(B, 1, vec![tone(100)], false);
    call.pass(200);
    call.play(B, 1, vec![tone(100)], false);
    call.pass(200);
    assert_eq!(call.take_sent(B).len(), 5);
    assert_eq!(call.events.len(), 1);
}

#[test]
fn one_playback_follows_the_other_without_a_gap_in_the_stream() {
    let mut call = Call::relayed();
    call.play(B, 1, vec![tone(100)], false);
    call.pass(60);
    call.play(
        B,
        2,
        vec![PlaySource::Silence { millis: 60 }, tone(40)],
        false,
    );
    call.pass(200);
    let sent = call.take_sent(B);
    assert_eq!(sent.len(), 3 + 5);
    assert_one_stream(&sent, SSRC[1]);
    let causes: Vec<PlaybackEnd> = call
        .events
        .iter()
        .filter_map(|event| match event {
            SessionEvent::PlaybackEnded { cause, .. } => Some(*cause),
            _ => None,
        })
        .collect();
    assert_eq!(causes, [PlaybackEnd::Stopped, PlaybackEnd::Completed]);
}

#[test]
fn key_of_the_listener_ends_what_it_may_end() {
    let mut call = Call::relayed();
    call.play(A, 1, vec![tone(10_000)], true);
    call.play(B, 2, vec![tone(10_000)], true);
    call.pass(100);
    press(&mut call, '1', 100);
    let ended: Vec<LegIndex> = call
        .events
        .iter()
        .filter_map(|event| match event {
            SessionEvent::PlaybackEnded { leg, .. } => Some(*leg),
            _ => None,
        })
        .collect();
    assert_eq!(ended, [A]);
}

#[test]
fn endless_list_of_nothing_ends() {
    let mut call = Call::relayed();
    let playback = Playback {
        id: PlaybackId(1),
        sources: PlaySources::new(vec![PlaySource::Silence { millis: 0 }]).expect("one"),
        rounds: 0,
        ends_on_digit: false,
        mode: PlaybackMode::Replace,
    };
    let prompts = Vec::new();
    call.command(SessionCommand::Play(
        B,
        PreparedPlayback {
            playback,
            prompts,
            tones: Vec::new(),
        },
    ));
    call.pass(20);
    assert_eq!(call.events.len(), 1);
    assert!(!call.session.wants().ticks);
}

#[test]
fn held_peer_is_played_nothing_and_time_goes_on() {
    let mut call = Call::relayed();
    call.configure(B, &[0, EVENTS], MediaDirection::Inactive);
    call.play(B, 1, vec![tone(100)], false);
    call.pass(200);
    assert_eq!(call.take_sent(B), []);
    assert_eq!(call.events.len(), 1);
}

#[test]
fn copy_leaves_beside_the_original() {
    let mut call = Call::relayed();
    let to = "203.0.113.9:5000".parse().expect("an address");
    let fork = MediaFork {
        to,
        ssrc: Ssrc(0x0f0f_0f0f),
    };
    call.command(SessionCommand::SetFork(A, Some(fork)));
    let _ = call.speak(A, 0, 3, &[0x11; 160]);
    let (copies, relayed): (Vec<Out>, Vec<Out>) =
        call.out.drain(..).partition(|out| out.transmit.dest == to);
    assert_eq!((copies.len(), relayed.len()), (1, 1));
    assert_eq!(copies[0].header.ssrc, fork.ssrc);
    assert_eq!(copies[0].transmit.leg, A);
    assert_eq!(copies[0].payload, relayed[0].payload);
    call.command(SessionCommand::SetFork(A, None));
    let _ = call.speak(A, 0, 4, &[0x11; 160]);
    assert_eq!(call.out.len(), 1);
}

#[test]
fn fork_to_an_address_that_is_no_host_is_refused() {
    let mut call = Call::relayed();
    let fork = MediaFork {
        to: "0.0.0.0:5000".parse().expect("an address"),
        ssrc: Ssrc(1),
    };
    let refused = call
        .session
        .handle_command(START, SessionCommand::SetFork(A, Some(fork)));
    assert_eq!(refused, Err(Refusal::AddressMismatch));
}

#[test]
fn muted_peer_is_heard_by_nobody_and_deaf_peer_hears_nobody() {
    let muted = LegFunctions {
        muted: true,
        ..LegFunctions::default()
    };
    let deaf = LegFunctions {
        deaf: true,
        ..LegFunctions::default()
    };
    for (leg, functions) in [(A, muted), (B, deaf)] {
        let mut call = Call::relayed();
        call.command(SessionCommand::SetFunctions(leg, functions));
        let verdict = call.speak(A, 0, 1, &[0xff; 160]);
        assert_eq!(verdict, Verdict::Drop(DropReason::MediaReplaced));
        // The other way is open, and the peer counts as alive.
        assert!(matches!(
            call.speak(B, 0, 1, &[0xff; 160]),
            Verdict::Forward(_)
        ));
        assert_eq!(call.session.report()[0].rx_packets, 1);
        call.command(SessionCommand::SetFunctions(leg, LegFunctions::default()));
        assert!(matches!(
            call.speak(A, 0, 2, &[0xff; 160]),
            Verdict::Forward(_)
        ));
    }
}

#[test]
fn leg_that_is_closed_alone_tells_its_last_digit_and_the_end_of_its_playback() {
    let mut call = Call::relayed();
    call.play(A, 1, vec![tone(10_000)], false);
    call.pass(40);
    let packet = rtp(0x80 | EVENTS, 5, 800, &event('3', false, 40));
    let _ = call.receive(A, &packet);
    call.command(SessionCommand::CloseLeg(A));
    call.tell();
    let digits = call
        .events
        .iter()
        .filter(|event| matches!(event, SessionEvent::DigitReceived { leg: A, .. }));
    assert_eq!(digits.count(), 1);
    let ended = SessionEvent::PlaybackEnded {
        leg: A,
        playback: PlaybackId(1),
        cause: PlaybackEnd::Stopped,
        played_millis: 40,
    };
    assert!(call.events.contains(&ended), "{:?}", call.events);
    assert!(!call.session.wants().ticks);
}

#[test]
fn nothing_is_played_or_sent_to_a_leg_without_formats() {
    let mut call = Call::relayed();
    call.command(SessionCommand::SetAudio(B, None));
    let playback = Playback {
        id: PlaybackId(1),
        sources: PlaySources::new(vec![tone(100)]).expect("one"),
        rounds: 1,
        ends_on_digit: false,
        mode: PlaybackMode::Replace,
    };
    let prompts = Vec::new();
    let play = SessionCommand::Play(
        B,
        PreparedPlayback {
            playback,
            prompts,
            tones: Vec::new(),
        },
    );
    let send = SessionCommand::SendDigits(B, digits(1, "1", DigitMethod::Preferred));
    for command in [play, send] {
        let refused = call.session.handle_command(START, command);
        assert_eq!(refused, Err(Refusal::AudioNotConfigured));
    }
    assert!(matches!(
        call.speak(A, 0, 1, &[0xff; 160]),
        Verdict::Forward(_)
    ));
}

#[test]
fn tapped_leg_shows_what_its_peer_says_with_its_format() {
    let mut call = Call::between_laws(true);
    call.command(SessionCommand::SetTapped(A, true));
    let verdict = call.speak(A, 0, 1, &[0x31; 160]);
    assert!(matches!(verdict, Verdict::Forward(_)));
    let tapped = call.session.take_tapped(A).expect("just heard");
    assert_eq!(tapped.format, Some(g711(AudioCodec::Pcmu)));
    assert_eq!(tapped.packet, rtp(0, 1, STEP, &[0x31; 160]));
    assert!(call.session.take_tapped(A).is_none());
    let muted = LegFunctions {
        muted: true,
        ..LegFunctions::default()
    };
    call.command(SessionCommand::SetFunctions(A, muted));
    let _ = call.speak(A, 0, 2, &[0x31; 160]);
    assert!(call.session.take_tapped(A).is_none());
}

#[test]
fn audio_that_its_codec_cannot_read_is_a_counted_drop() {
    let linear = AudioFormat {
        codec: AudioCodec::L16,
        payload_type: pt(96),
        ..g711(AudioCodec::Pcmu)
    };
    let mut call = Call::new(
        &[],
        [audio(linear, false), audio(g711(AudioCodec::Pcma), false)],
    );
    assert_eq!(call.speak(A, 96, 1, &[0; 320]), Verdict::Consumed);
    let half_a_sample = call.speak(A, 96, 2, &[0; 321]);
    assert_eq!(half_a_sample, Verdict::Drop(DropReason::BadAudioFrame));
    assert_eq!(call.speak(A, 96, 3, &[0; 320]), Verdict::Consumed);
}

#[test]
fn seated_leg_is_heard_by_the_clock_and_sent_the_mix_in_its_one_stream() {
    let mut call = Call::relayed();
    let _ = call.speak(B, 0, 0, &[0xff; 160]);
    call.command(SessionCommand::SetSeated(A, true));
    let loud: Vec<u8> = (0..160)
        .map(|n| Law::Mu.encode((f64::from(n) / 4.0).sin() as i16 * 8_000 + 3_000))
        .collect();
    let mut heard = 0;
    let mut out = [0; TRANSMIT_LEN_MAX];
    for n in 0..20 {
        // What A says goes to the conference, what B says goes nowhere.
        assert_eq!(call.speak(A, 0, n, &loud), Verdict::Consumed);
        let verdict = call.speak(B, 0, n + 1, &[0xff; 160]);
        assert_eq!(verdict, Verdict::Drop(DropReason::MediaReplaced));
        let mut frame = [0; 160];
        heard += usize::from(call.session.hear(call.now, A, &mut frame));
        let mix = MixFrame::Samples(&[1_000; 160]);
        let transmit = call.session.send_mix(call.now, A, mix, &mut out);
        let transmit = transmit.expect("nothing else is sent");
        call.keep(transmit, &out[..transmit.len]);
        call.pass(20);
    }
    assert!((14..20).contains(&heard), "{heard}");
    let sent = call.take_sent(A);
    assert_eq!(sent.len(), 21);
    assert_one_stream(&sent, SSRC[0]);
    call.command(SessionCommand::SetSeated(A, false));
    assert!(matches!(call.speak(A, 0, 20, &loud), Verdict::Forward(_)));
}

#[test]
fn prompt_and_transcoded_audio_alternate_in_one_stream_on_time() {
    let wide = AudioFormat {
        codec: AudioCodec::G722,
        payload_type: PayloadType::G722,
        packet_time: PacketTime::from_millis(30).expect("a multiple of ten"),
        ..g711(AudioCodec::Pcmu)
    };
    let mut call = Call::new(
        &[],
        [audio(g711(AudioCodec::Pcmu), true), audio(wide, true)],
    );
    for n in 0..250 {
        if n == 51 {
            call.play(B, 1, vec![tone(2_000)], false);
        }
        let _ = call.speak(A, 0, n, &[0x55; 160]);
        call.pass(20);
    }
    let sent = call.take_sent(B);
    assert_one_stream(&sent, SSRC[1]);
    assert!((160..=167).contains(&sent.len()), "{}", sent.len());
    // Nothing is made up in place of what was left out, and no timestamp runs ahead.
    for pair in sent.windows(2) {
        let apart = pair[1]
            .header
            .timestamp
            .wrapping_sub(pair[0].header.timestamp);
        assert!((1..=2 * 240).contains(&apart), "{apart}");
    }
    assert_eq!(call.session.concealed_millis(), 0);
}
