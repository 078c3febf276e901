//! Tones and silences whose payloads others have made.

use std::sync::Arc;

use super::*;
use crate::prompt::EncodedPrompt;
use crate::tone;

/// 100 ms on, 55 ms off: the last packet of a pass is not full.
fn cadence() -> Tone {
    let segment = ToneSegment {
        on_millis: 100,
        off_millis: 55,
        frequencies_hz: [425, 0],
    };
    Tone::new(&[segment], Tone::LEVEL_DBM0).expect("a playable tone")
}

/// What leg A's peer hears of two rounds of a tone and 1.5 s of silence.
fn played(format: AudioFormat, tones: Vec<(Tone, Arc<EncodedPrompt>)>) -> Vec<Out> {
    let mut call = Call::new(&[], [audio(format, false), audio(format, false)]);
    let sources = vec![
        PlaySource::Tone(cadence()),
        PlaySource::Silence { millis: 1_500 },
    ];
    let playback = Playback {
        id: PlaybackId(1),
        sources: PlaySources::new(sources).expect("two"),
        rounds: 2,
        ends_on_digit: false,
        mode: PlaybackMode::Replace,
    };
    let prompts = Vec::new();
    let prepared = PreparedPlayback {
        playback,
        prompts,
        tones,
    };
    call.command(SessionCommand::Play(A, prepared));
    call.pass(4_000);
    assert_eq!(call.events.len(), 1, "it has ended");
    call.take_sent(A)
}

#[test]
fn tone_that_others_have_made_is_played_like_one_of_its_own() {
    let format = g711(AudioCodec::Pcma);
    let made = |tone: Tone| {
        let payloads = EncodedPrompt::of_tone(&tone, &format).expect("a format of this build");
        (tone, Arc::new(payloads))
    };
    let own = played(format, Vec::new());
    assert_eq!(own.len(), 2 * (8 + 75));
    assert_eq!(played(format, vec![made(cadence())]), own);
    assert_eq!(played(format, vec![made(tone::silence())]), own);
    assert_eq!(
        played(format, vec![made(tone::silence()), made(cadence())]),
        own
    );
}

#[test]
fn payloads_are_what_is_sent_where_there_are_any() {
    let format = g711(AudioCodec::Pcma);
    let mut deeper = cadence().segments()[0];
    deeper.frequencies_hz = [300, 0];
    let other = Tone::new(&[deeper], Tone::LEVEL_DBM0).expect("a playable tone");
    let payloads = EncodedPrompt::of_tone(&other, &format).expect("a format of this build");
    let sent = played(format, vec![(cadence(), Arc::new(payloads.clone()))]);
    for (n, out) in sent[..8].iter().enumerate() {
        assert_eq!(Some(&out.payload[..]), payloads.payload(n));
    }
}
