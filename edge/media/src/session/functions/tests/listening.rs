//! What the edge hears in a peer's audio, and what the far peer does not.

use trunkline_edge_api::{ProgressSignal, ToneSegment};

use super::*;
use crate::audio::SampleRate;
use crate::tone::ToneGenerator;

/// Packets of a cadence in µ-law, 20 ms each.
fn packets(segments: &[(u16, u16, [u16; 2])]) -> Vec<Vec<u8>> {
    let segments: Vec<ToneSegment> = segments
        .iter()
        .map(|&(on_millis, off_millis, frequencies_hz)| ToneSegment {
            on_millis,
            off_millis,
            frequencies_hz,
        })
        .collect();
    let tone = Tone::new(&segments, -10).expect("a tone");
    let mut generator = ToneGenerator::new(&tone, SampleRate::Hz8000);
    let mut packets = Vec::new();
    loop {
        let mut samples = [0; 160];
        if generator.fill(&mut samples) == 0 {
            return packets;
        }
        packets.push(
            samples
                .iter()
                .map(|&sample| Law::Mu.encode(sample))
                .collect(),
        );
    }
}

/// The digit 5 for 100 ms in the middle of a second of silence.
fn digit_five() -> Vec<Vec<u8>> {
    packets(&[(0, 400, [0, 0]), (100, 500, [770, 1_336])])
}

fn say(call: &mut Call, packets: &[Vec<u8>]) {
    for (n, payload) in (0..).zip(packets) {
        let _ = call.speak(A, 0, n, payload);
        call.pass(20);
    }
    call.pass(300);
}

fn heard_digits(call: &Call) -> Vec<(char, DigitSource)> {
    call.events
        .iter()
        .filter_map(|event| match event {
            SessionEvent::DigitReceived { digit, source, .. } => Some((digit.as_char(), *source)),
            _ => None,
        })
        .collect()
}

fn loud_packets(sent: &[Out]) -> usize {
    sent.iter()
        .filter(|out| out.header.payload_type == PayloadType::PCMU)
        .filter(|out| energy(&out.payload, Law::Mu) > 500.0)
        .count()
}

#[test]
fn tone_of_a_key_is_told_and_goes_on_as_it_came() {
    let mut call = Call::relayed();
    let wanted = LegFunctions {
        detects_tones: true,
        ..LegFunctions::default()
    };
    call.command(SessionCommand::SetFunctions(A, wanted));
    say(&mut call, &digit_five());
    assert_eq!(heard_digits(&call), [('5', DigitSource::InBand)]);
    assert_eq!(loud_packets(&call.take_sent(B)), 5);
}

#[test]
fn tone_of_a_hidden_key_reaches_control_alone() {
    let mut call = Call::relayed();
    let wanted = LegFunctions {
        detects_tones: true,
        hides_digits: true,
        ..LegFunctions::default()
    };
    call.command(SessionCommand::SetFunctions(A, wanted));
    let speech = packets(&[(600, 0, [300, 0])]);
    say(&mut call, &[speech, digit_five()].concat());
    assert_eq!(heard_digits(&call), [('5', DigitSource::InBand)]);
    let sent = call.take_sent(B);
    assert_one_stream(&sent, SSRC[1]);
    let loud: String = sent
        .iter()
        .map(|out| {
            if energy(&out.payload, Law::Mu) > 500.0 {
                '#'
            } else {
                '.'
            }
        })
        .collect();
    // Half a second of speech is heard, later by what finding digits takes; the digit is not.
    let speech = loud.trim_matches('.');
    assert!((28..=32).contains(&speech.len()), "{loud}");
    assert!(!speech.contains('.'), "{loud}");
}

#[test]
fn tone_of_a_key_becomes_an_event_for_a_peer_that_takes_events() {
    let tones_only = audio(g711(AudioCodec::Pcmu), false);
    let mut call = Call::new(&[0], [tones_only, audio(g711(AudioCodec::Pcmu), true)]);
    let wanted = LegFunctions {
        detects_tones: true,
        ..LegFunctions::default()
    };
    call.command(SessionCommand::SetFunctions(A, wanted));
    say(&mut call, &digit_five());
    assert_eq!(heard_digits(&call), [('5', DigitSource::InBand)]);
    let sent = call.take_sent(B);
    let events = sent
        .iter()
        .filter(|out| out.header.payload_type == pt(EVENTS))
        .collect::<Vec<_>>();
    assert!(events.iter().all(|out| out.payload[0] == 5));
    assert_eq!(
        events
            .iter()
            .filter(|out| out.payload[1] & 0x80 != 0)
            .count(),
        3
    );
    assert_eq!(loud_packets(&sent), 0, "the tone went with it");
    assert_one_stream(&sent, SSRC[1]);
}

#[test]
fn speech_and_the_beep_of_a_machine_are_told() {
    let mut call = Call::relayed();
    let wanted = LegFunctions {
        reports_activity: true,
        detects_beep: true,
        ..LegFunctions::default()
    };
    call.command(SessionCommand::SetFunctions(A, wanted));
    say(
        &mut call,
        &packets(&[(0, 1_000, [0, 0]), (400, 1_500, [1_000, 0])]),
    );
    let beeps: Vec<(u16, u32)> = call
        .events
        .iter()
        .filter_map(|event| match event {
            SessionEvent::BeepHeard {
                frequency_hz,
                duration_millis,
                ..
            } => Some((*frequency_hz, *duration_millis)),
            _ => None,
        })
        .collect();
    assert_eq!(beeps.len(), 1, "{:?}", call.events);
    assert!(
        beeps[0].0.abs_diff(1_000) < 20 && beeps[0].1.abs_diff(400) < 60,
        "{beeps:?}"
    );
    let spoke: Vec<bool> = call
        .events
        .iter()
        .filter_map(|event| match event {
            SessionEvent::ActivityChanged { is_speaking, .. } => Some(*is_speaking),
            _ => None,
        })
        .collect();
    assert_eq!(spoke, [true, false]);
}

#[test]
fn busy_tone_and_a_calling_fax_machine_are_told_and_are_no_beep() {
    let mut call = Call::relayed();
    let wanted = LegFunctions {
        detects_beep: true,
        detects_progress: true,
        ..LegFunctions::default()
    };
    call.command(SessionCommand::SetFunctions(A, wanted));
    let busy = packets(&[
        (0, 1_000, [0, 0]),
        (480, 480, [425, 0]),
        (480, 480, [425, 0]),
    ]);
    let more = packets(&[(480, 3_000, [425, 0]), (500, 3_000, [1_100, 0])]);
    say(&mut call, &[busy, more].concat());
    let heard: Vec<ProgressSignal> = call
        .events
        .iter()
        .map(|event| match event {
            SessionEvent::ProgressHeard { leg: A, signal, .. } => *signal,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(heard, [ProgressSignal::Busy, ProgressSignal::FaxCalling]);
    // It is heard beside the relay, which goes on as it came.
    assert_eq!(call.take_sent(B).len(), 495);
}

#[test]
fn nothing_is_clocked_when_nothing_is_listened_for_any_more() {
    let mut call = Call::relayed();
    let wanted = LegFunctions {
        detects_tones: true,
        ..LegFunctions::default()
    };
    call.command(SessionCommand::SetFunctions(A, wanted));
    assert!(call.session.wants().ticks);
    call.command(SessionCommand::SetFunctions(A, LegFunctions::default()));
    assert!(!call.session.wants().ticks);
}
