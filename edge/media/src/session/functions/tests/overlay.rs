//! Playing over live audio.

use std::f64::consts::TAU;

use super::*;
use trunkline_edge_api::LiveLevel;

/// What is played over.
const WHISPER_HZ: u16 = 1_000;
/// What the far peer says, unless a test says otherwise.
const VOICE_HZ: f64 = 400.0;
const VOICE_AMPLITUDE: f64 = 8_000.0;

fn whisper(millis: u16, rounds: u16, live_db: u8) -> Playback {
    let segment = ToneSegment {
        on_millis: millis,
        off_millis: 0,
        frequencies_hz: [WHISPER_HZ, 0],
    };
    let tone = PlaySource::Tone(Tone::new(&[segment], -20).expect("a tone"));
    let live = LiveLevel::softer_by_db(live_db).expect("in range");
    Playback {
        id: PlaybackId(1),
        sources: PlaySources::new(vec![tone]).expect("one"),
        rounds,
        ends_on_digit: false,
        mode: PlaybackMode::Into(live),
    }
}

fn play_over(call: &mut Call, leg: LegIndex, playback: Playback) {
    let prompts = Vec::new();
    let prepared = PreparedPlayback {
        playback,
        prompts,
        tones: Vec::new(),
    };
    call.command(SessionCommand::Play(leg, prepared));
}

/// Sample `n` of the voice.
fn voice(n: u32) -> i16 {
    ((f64::from(n) * TAU * VOICE_HZ / 8_000.0).sin() * VOICE_AMPLITUDE) as i16
}

/// Packet `n` of the voice, 20 ms in µ-law.
fn spoken(n: u16) -> Vec<u8> {
    let first = u32::from(n) * STEP;
    let samples = first..first + STEP;
    samples.map(|n| Law::Mu.encode(voice(n))).collect()
}

/// Amplitude of `hz` in a payload.
fn amplitude(payload: &[u8], law: Law, hz: f64) -> f64 {
    let (mut sine, mut cosine) = (0.0, 0.0);
    for (n, &code) in payload.iter().enumerate() {
        let (s, c) = (n as f64 * TAU * hz / 8_000.0).sin_cos();
        let sample = f64::from(law.decode(code));
        sine += sample * s;
        cosine += sample * c;
    }
    2.0 * sine.hypot(cosine) / payload.len() as f64
}

fn voice_of(out: &Out) -> f64 {
    amplitude(&out.payload, Law::Mu, VOICE_HZ)
}

fn whisper_of(out: &Out) -> f64 {
    amplitude(&out.payload, Law::Mu, f64::from(WHISPER_HZ))
}

/// Packets as regular as those of a sender that never pauses.
fn assert_regular(sent: &[Out]) {
    assert_one_stream(sent, SSRC[1]);
    for pair in sent.windows(2) {
        let before = pair[0].header.timestamp;
        assert_eq!(pair[1].header.timestamp.wrapping_sub(before), STEP);
    }
}

fn ended(call: &Call) -> Vec<(PlaybackEnd, u64)> {
    let ends = call.events.iter().filter_map(|event| match event {
        SessionEvent::PlaybackEnded {
            cause,
            played_millis,
            ..
        } => Some((*cause, *played_millis)),
        _ => None,
    });
    ends.collect()
}

#[test]
fn voice_goes_on_under_what_is_played_and_softer_by_what_was_asked() {
    let mut call = Call::relayed();
    for n in 0..100 {
        if n == 25 {
            play_over(&mut call, B, whisper(1_000, 1, 12));
        }
        let verdict = call.speak(A, 0, n, &spoken(n));
        let is_forwarded = matches!(verdict, Verdict::Forward(_));
        // What was said before the end was found is read by the clock.
        assert_eq!(is_forwarded, !(25..76).contains(&n), "packet {n}");
        call.pass(20);
    }
    let sent = call.take_sent(B);
    assert_one_stream(&sent, SSRC[1]);
    let covered: Vec<&Out> = sent.iter().filter(|out| whisper_of(out) > 500.0).collect();
    assert_eq!(covered.len(), 50);
    // The jitter buffer takes its time first; then every packet has both.
    for out in &covered[4..] {
        let softer_db = 20.0 * (VOICE_AMPLITUDE / voice_of(out)).log10();
        assert!((11.0..=13.0).contains(&softer_db), "{softer_db}");
    }
    for out in sent[..25].iter().chain(&sent[sent.len() - 20..]) {
        assert!(voice_of(out) > 0.9 * VOICE_AMPLITUDE);
    }
    let newest = sent.last().expect("some").header.timestamp;
    let total = newest.wrapping_sub(sent[0].header.timestamp);
    assert!(total.abs_diff(99 * STEP) <= STEP, "{total}");
    assert_eq!(ended(&call), [(PlaybackEnd::Completed, 1_000)]);
    assert!(!call.session.wants().ticks);
    assert_eq!(call.take_sent(A), []);
}

#[test]
fn voice_as_loud_as_ever_is_not_changed_by_a_bit_more_than_coding_does() {
    let mut call = Call::relayed();
    let mut quiet = whisper(1_000, 1, 0);
    let silence = PlaySource::Silence { millis: 1_000 };
    quiet.sources = PlaySources::new(vec![silence]).expect("one");
    play_over(&mut call, B, quiet);
    for n in 0..50 {
        let _ = call.speak(A, 0, n, &spoken(n));
        call.pass(20);
    }
    let sent = call.take_sent(B);
    let heard = sent.iter().flat_map(|out| &out.payload);
    let heard: Vec<i16> = heard.map(|&code| Law::Mu.decode(code)).collect();
    let begins = heard.iter().position(|&sample| sample != 0).expect("some");
    for (n, &sample) in (0..).zip(&heard[begins - 1..][..4_000]) {
        assert_eq!(sample, Law::Mu.decode(Law::Mu.encode(voice(n))), "{n}");
    }
}

#[test]
fn jitter_and_loss_of_the_voice_do_not_touch_what_is_played_nor_the_stream() {
    let mut call = Call::relayed();
    play_over(&mut call, B, whisper(30_000, 1, 20));
    let mut random = 0x1234_5678u32;
    let mut chance = |below: u32| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 16) % below
    };
    // Each packet is up to 50 ms late, one in twenty never comes, and some overtake others.
    let mut under_way: Vec<(u64, u16)> = (0..1_500u16)
        .filter_map(|n| {
            let arrives = u64::from(n) * 20 + u64::from(chance(50));
            (chance(20) != 0).then_some((arrives, n))
        })
        .collect();
    under_way.sort_unstable();
    let mut arrivals = under_way.into_iter().peekable();
    for millis in (0..30_000).step_by(10) {
        while let Some((_, n)) = arrivals.next_if(|(at, _)| *at <= millis) {
            let _ = call.speak(A, 0, n, &spoken(n));
        }
        call.pass(10);
    }
    let sent = call.take_sent(B);
    assert_eq!(sent.len(), 1_500);
    assert_regular(&sent);
    for out in &sent[1..] {
        let whisper = whisper_of(out);
        assert!((1_900.0..=2_600.0).contains(&whisper), "{whisper}");
    }
    let heard = sent[20..].iter().filter(|out| voice_of(out) > 500.0);
    let heard = heard.count();
    // What was lost is concealed, and hardly anything is lost beside.
    assert!(heard > 1_480 * 95 / 100, "{heard}");
}

#[test]
fn sender_that_pauses_sounds_as_it_says_and_is_heard_again() {
    let mut call = Call::relayed();
    play_over(&mut call, B, whisper(10_000, 1, 6));
    let mut sequence = 0;
    for n in 0..500u16 {
        let talks = n % 100 < 50;
        if talks || n % 100 == 50 {
            let (payload_type, payload) = match talks {
                true => (0, spoken(n)),
                false => (13, vec![70]),
            };
            let packet = rtp(payload_type, sequence, u32::from(n) * STEP, &payload);
            let _ = call.receive(A, &packet);
            sequence += 1;
        }
        call.pass(20);
    }
    let sent = call.take_sent(B);
    assert_regular(&sent);
    assert_eq!(sent.len(), 500);
    for second in 0..5 {
        let [talk, pause] = [10, 60].map(|first| {
            let packets = &sent[second * 100 + first..][..35];
            packets.iter().map(voice_of).sum::<f64>() / 35.0
        });
        assert!(talk > 3_000.0, "{talk} in second {second}");
        assert!(pause < 200.0, "{pause} in second {second}");
    }
}

#[test]
fn clocks_that_drift_for_two_hours_neither_add_delay_nor_break_the_voice() {
    // The far sender's clock is fast or slow by 200 ppm: 1.4 s in two hours.
    let word: Vec<Vec<u8>> = (0..40).map(spoken).collect();
    let pause = vec![0xff; 160];
    for drift_ppm in [-200i64, 200] {
        let mut call = Call::relayed();
        play_over(&mut call, B, whisper(1_000, 0, 0));
        let mut n = 0u64;
        let (mut onsets, mut delays) = (Vec::new(), Vec::new());
        let mut was_loud = false;
        for tick in 0..2 * 3_600 * 100u64 {
            let sent_at = |n: u64| n * 20 * (1_000_000 - drift_ppm).unsigned_abs() / 1_000_000;
            while sent_at(n) <= tick * 10 {
                // Words of 0.8 s, pauses of 0.4 s.
                let payload = word.get((n % 60) as usize).unwrap_or(&pause);
                if n.is_multiple_of(60) {
                    onsets.push(tick * 10);
                }
                let timestamp = (n as u32).wrapping_mul(STEP);
                let _ = call.receive(A, &rtp(0, n as u16, timestamp, payload));
                n += 1;
            }
            call.pass(10);
            for out in call.take_sent(B) {
                // Twice what is played over it.
                let is_loud = energy(&out.payload, Law::Mu) > 3_200.0;
                if is_loud && !was_loud {
                    delays.push(tick * 10 - onsets[delays.len()]);
                }
                was_loud = is_loud;
            }
        }
        // A word that broke in the middle would begin twice.
        assert_eq!(delays.len(), onsets.len(), "{drift_ppm} ppm");
        let [least, most] = [delays.iter().min(), delays.iter().max()];
        assert!(least >= Some(&10), "{least:?} ms at {drift_ppm} ppm");
        assert!(most <= Some(&120), "{most:?} ms at {drift_ppm} ppm");
        assert_eq!(ended(&call), []);
    }
}

#[test]
fn transcoded_voice_is_covered_and_transcoded_again_in_one_stream_on_time() {
    let wide = AudioFormat {
        codec: AudioCodec::G722,
        payload_type: PayloadType::G722,
        packet_time: PacketTime::from_millis(30).expect("a multiple of ten"),
        ..g711(AudioCodec::Pcmu)
    };
    let formats = [audio(g711(AudioCodec::Pcmu), true), audio(wide, true)];
    let mut call = Call::new(&[], formats);
    for n in 0..250 {
        if n == 50 {
            play_over(&mut call, B, whisper(2_000, 1, 12));
        }
        assert_eq!(call.speak(A, 0, n, &spoken(n)), Verdict::Consumed);
        call.pass(20);
    }
    let sent = call.take_sent(B);
    assert_one_stream(&sent, SSRC[1]);
    assert!((160..=167).contains(&sent.len()), "{}", sent.len());
    for pair in sent.windows(2) {
        let before = pair[0].header.timestamp;
        let apart = pair[1].header.timestamp.wrapping_sub(before);
        assert!((1..=2 * 240).contains(&apart), "{apart}");
    }
    assert_eq!(call.session.concealed_millis(), 0);
    assert_eq!(ended(&call), [(PlaybackEnd::Completed, 2_000)]);
}

#[test]
fn key_of_the_far_peer_passes_while_something_is_played_over_its_voice() {
    let mut call = Call::relayed();
    play_over(&mut call, B, whisper(10_000, 1, 6));
    for n in 0..20 {
        let _ = call.speak(A, 0, n, &spoken(n));
        call.pass(20);
    }
    press(&mut call, '7', 20);
    for n in 25..60 {
        let _ = call.speak(A, 0, n, &spoken(n));
        call.pass(20);
    }
    let sent = call.take_sent(B);
    assert_one_stream(&sent, SSRC[1]);
    let of_key = |out: &&Out| out.header.payload_type == pt(EVENTS);
    let key: Vec<&Out> = sent.iter().filter(of_key).collect();
    assert_eq!(key.iter().filter(|out| out.payload[1] >= 0x80).count(), 3);
    assert!(key.iter().all(|out| out.payload[0] == 7));
    assert!(voice_of(sent.last().expect("some")) > 3_000.0);
}

#[test]
fn hidden_key_is_not_heard_under_what_is_played() {
    let mut call = Call::relayed();
    let wanted = LegFunctions {
        detects_tones: true,
        hides_digits: true,
        ..LegFunctions::default()
    };
    let digit: Vec<Vec<u8>> = (0..5u32)
        .map(|packet| {
            let samples = packet * STEP..(packet + 1) * STEP;
            let of = |n: u32, hz: f64| (f64::from(n) * TAU * hz / 8_000.0).sin() * 4_000.0;
            let samples = samples.map(|n| of(n, 770.0) + of(n, 1_336.0));
            samples.map(|s| Law::Mu.encode(s as i16)).collect()
        })
        .collect();
    for hides_first in [true, false] {
        let mut call = Call::relayed();
        if hides_first {
            call.command(SessionCommand::SetFunctions(A, wanted));
        }
        play_over(&mut call, B, whisper(10_000, 1, 0));
        if !hides_first {
            call.command(SessionCommand::SetFunctions(A, wanted));
        }
        for n in 0..100 {
            let payload = match n {
                40..45 => digit[usize::from(n) - 40].clone(),
                _ => spoken(n),
            };
            let _ = call.speak(A, 0, n, &payload);
            call.pass(20);
        }
        let digits = call
            .events
            .iter()
            .filter(|event| matches!(event, SessionEvent::DigitReceived { leg: A, .. }));
        assert_eq!(digits.count(), 1);
        let sent = call.take_sent(B);
        assert_regular(&sent);
        let heard = sent
            .iter()
            .map(|out| amplitude(&out.payload, Law::Mu, 1_336.0));
        // Leakage of the other tones into a window of 20 ms is all there is.
        assert!(heard.fold(0.0, f64::max) < 1_000.0);
        let voiced = sent.iter().filter(|out| voice_of(out) > 6_000.0).count();
        assert!(voiced > 75, "{voiced}");
    }
    call.tell();
}

#[test]
fn deaf_listener_and_muted_speaker_leave_only_what_is_played() {
    let switched = |muted, deaf| LegFunctions {
        muted,
        deaf,
        ..LegFunctions::default()
    };
    for (leg, switches) in [(A, switched(true, false)), (B, switched(false, true))] {
        let mut call = Call::relayed();
        call.command(SessionCommand::SetFunctions(leg, switches));
        play_over(&mut call, B, whisper(1_000, 1, 6));
        for n in 0..50 {
            let verdict = call.speak(A, 0, n, &spoken(n));
            assert_eq!(verdict, Verdict::Drop(DropReason::MediaReplaced));
            call.pass(20);
        }
        let sent = call.take_sent(B);
        assert_eq!(sent.len(), 50);
        assert!(sent.iter().all(|out| voice_of(out) < 300.0));
        assert!(sent[1..].iter().all(|out| whisper_of(out) > 700.0));
    }
}

#[test]
fn packet_time_of_the_listener_is_kept_and_the_last_packet_is_whole() {
    let long = AudioFormat {
        packet_time: PacketTime::from_millis(60).expect("a multiple of ten"),
        ..g711(AudioCodec::Pcmu)
    };
    let formats = [audio(g711(AudioCodec::Pcmu), true), audio(long, true)];
    let mut call = Call::new(&[0, EVENTS], formats);
    play_over(&mut call, B, whisper(500, 1, 6));
    for n in 0..30 {
        let _ = call.speak(A, 0, n, &spoken(n));
        call.pass(20);
    }
    let sent = call.take_sent(B);
    let made: Vec<&Out> = sent.iter().filter(|out| out.payload.len() == 480).collect();
    // 500 ms are eight packets and a third of one, which live audio fills up.
    assert_eq!(made.len(), 9);
    assert!(sent.len() > 9, "it was not relayed again");
    assert_eq!(ended(&call), [(PlaybackEnd::Completed, 500)]);
}

#[test]
fn playback_over_nobody_is_heard_alone_and_follows_who_comes() {
    let mut call = Call::relayed();
    call.command(SessionCommand::SetAudio(A, None));
    play_over(&mut call, B, whisper(2_000, 1, 6));
    call.pass(500);
    let alone = call.take_sent(B);
    assert_eq!(alone.len(), 25);
    let both = audio(g711(AudioCodec::Pcmu), true);
    call.command(SessionCommand::SetAudio(A, Some(Box::new(both))));
    for n in 0..25 {
        let _ = call.speak(A, 0, n, &spoken(n));
        call.pass(20);
    }
    let covered = call.take_sent(B);
    assert!(voice_of(covered.last().expect("some")) > 3_000.0);
    assert!(covered[1..].iter().all(|out| whisper_of(out) > 700.0));
}

#[test]
fn mix_of_a_conference_is_covered_for_its_member_alone() {
    let mut call = Call::relayed();
    call.command(SessionCommand::SetSeated(A, true));
    assert!(!call.session.covers_mix(A));
    play_over(&mut call, A, whisper(400, 1, 6));
    assert!(call.session.covers_mix(A));
    let mut out = [0; TRANSMIT_LEN_MAX];
    for n in 0..30u32 {
        let mix: Vec<i16> = (n * STEP..(n + 1) * STEP).map(voice).collect();
        let frame = MixFrame::Samples(&mix);
        let transmit = call.session.send_mix(call.now, A, frame, &mut out);
        let transmit = transmit.expect("a packet for each frame");
        call.keep(transmit, &out[..transmit.len]);
        call.pass(20);
    }
    let sent = call.take_sent(A);
    assert_one_stream(&sent, SSRC[0]);
    assert_eq!(sent.len(), 30);
    let covered = sent.iter().filter(|out| whisper_of(out) > 500.0).count();
    assert_eq!(covered, 20);
    assert!(sent.iter().all(|out| voice_of(out) > 3_500.0));
    assert!(voice_of(sent.last().expect("some")) > 7_000.0);
    call.tell();
    assert_eq!(ended(&call), [(PlaybackEnd::Completed, 400)]);
    assert!(!call.session.covers_mix(A));
}

#[test]
fn sum_beyond_full_scale_is_cut_and_does_not_wrap() {
    let mut call = Call::relayed();
    let segment = ToneSegment {
        on_millis: 1_000,
        off_millis: 0,
        frequencies_hz: [400, 0],
    };
    let mut loud = whisper(1_000, 1, 0);
    let tone = PlaySource::Tone(Tone::new(&[segment], 0).expect("a tone"));
    loud.sources = PlaySources::new(vec![tone]).expect("one");
    play_over(&mut call, B, loud);
    for n in 0..50 {
        let _ = call.speak(A, 0, n, &[0x80; 160]);
        call.pass(20);
    }
    let sent = call.take_sent(B);
    let lowest = sent[10..].iter().flat_map(|out| &out.payload);
    let lowest = lowest.map(|&code| Law::Mu.decode(code)).min();
    // The voice is a constant at full scale: a sum that wrapped would be far below it.
    assert!(lowest > Some(-1_000), "{lowest:?}");
}
