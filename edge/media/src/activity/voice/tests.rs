use super::*;
use crate::dtmf::test_line::Line;

/// What is told and when, milliseconds, in frames of 20 ms.
fn told(detector: &mut ActivityDetector, line: &Line) -> Vec<(u32, ActivityEvent)> {
    let mut told = Vec::new();
    for (index, frame) in line.pcm().chunks(line.rate.samples(20)).enumerate() {
        detector.handle_audio(frame);
        while let Some(event) = detector.poll_event() {
            told.push((20 * (index as u32 + 1), event));
        }
    }
    told
}

fn heard(line: &Line) -> Vec<(u32, ActivityEvent)> {
    told(&mut ActivityDetector::new(line.rate), line)
}

/// Syllables of 180 ms with 120 ms between them.
fn speak(line: &mut Line, millis: u32, dbm0: f64) {
    for _ in 0..millis / 300 {
        let mut syllable = Line::new(line.rate);
        syllable.silence(180.0).noise(dbm0);
        line.samples.extend(syllable.samples);
        line.silence(120.0);
    }
}

#[test]
fn speech_is_told_when_it_begins_and_when_it_ends() {
    for rate in SampleRate::ALL {
        for (noise, speech) in [(-70.0, -40.0), (-55.0, -30.0), (-40.0, -20.0)] {
            let mut line = Line::new(rate);
            line.silence(4_000.0);
            speak(&mut line, 3_000, speech);
            line.silence(3_000.0);
            line.noise(noise);
            let mut told = heard(&line);
            // What a noisy line is held for at first is another test's matter.
            told.retain(|(at, _)| *at > 3_000);
            let [
                (began, ActivityEvent::Began),
                (ended, ActivityEvent::Ended { duration_millis }),
            ] = told[..]
            else {
                panic!("{noise} {speech} {rate:?}: {told:?}");
            };
            assert!((4_040..=4_120).contains(&began), "{began}");
            // The last syllable ends 120 ms before 7 s.
            assert!((7_300..=7_480).contains(&ended), "{ended}");
            assert!(
                (2_750..=3_050).contains(&duration_millis),
                "{duration_millis}"
            );
        }
    }
}

#[test]
fn pauses_between_words_do_not_end_speech_and_those_between_sentences_do() {
    let mut line = Line::new(SampleRate::Hz8000);
    line.silence(1_000.0);
    for _ in 0..5 {
        speak(&mut line, 1_200, -20.0);
        line.silence(200.0);
    }
    line.silence(1_000.0);
    speak(&mut line, 1_200, -20.0);
    line.silence(1_000.0);
    line.noise(-60.0);
    assert_eq!(heard(&line).len(), 4);
}

#[test]
fn clicks_are_not_speech() {
    let mut line = Line::new(SampleRate::Hz8000);
    for _ in 0..20 {
        line.silence(300.0).tones(30.0, &[(1_000.0, -10.0)]);
    }
    line.noise(-60.0);
    assert_eq!(heard(&line), []);
}

#[test]
fn steady_noise_is_not_speech_and_louder_noise_is_for_three_seconds_at_most() {
    let mut line = Line::new(SampleRate::Hz8000);
    line.silence(10_000.0).noise(-50.0);
    assert_eq!(heard(&line), []);
    let mut engine = Line::new(SampleRate::Hz8000);
    engine.silence(20_000.0).noise(-25.0);
    line.samples.extend(engine.samples);
    let told = heard(&line);
    let [
        (_, ActivityEvent::Began),
        (ended, ActivityEvent::Ended { .. }),
    ] = told[..]
    else {
        panic!("{told:?}");
    };
    assert!(ended <= 10_000 + 3_000 + 1_000, "{ended}");
}

#[test]
fn a_line_that_is_noisy_from_the_beginning_is_speech_for_a_second_at_most() {
    let mut line = Line::new(SampleRate::Hz8000);
    line.silence(20_000.0).noise(-35.0);
    let told = heard(&line);
    let [
        (_, ActivityEvent::Began),
        (ended, ActivityEvent::Ended { .. }),
    ] = told[..]
    else {
        panic!("{told:?}");
    };
    assert!(ended <= 1_600, "{ended}");
}

#[test]
fn speech_from_the_first_moment_on_is_heard() {
    let mut line = Line::new(SampleRate::Hz8000);
    speak(&mut line, 6_000, -20.0);
    line.silence(2_000.0);
    line.noise(-60.0);
    let told = heard(&line);
    let [
        (began, ActivityEvent::Began),
        (ended, ActivityEvent::Ended { .. }),
    ] = told[..]
    else {
        panic!("{told:?}");
    };
    assert!(began <= 120 && ended >= 6_300, "{told:?}");
}

#[test]
fn somebody_who_speaks_over_an_engine_is_heard() {
    let mut line = Line::new(SampleRate::Hz8000);
    line.silence(10_000.0);
    speak(&mut line, 3_000, -12.0);
    line.silence(3_000.0);
    line.noise(-25.0);
    let told = heard(&line);
    let last: Vec<_> = told.iter().filter(|(at, _)| *at > 10_000).collect();
    assert_eq!(last.len(), 2, "{told:?}");
}

#[test]
fn a_sender_that_pauses_has_ended_to_speak_and_its_noise_is_not_speech() {
    let mut detector = ActivityDetector::new(SampleRate::Hz8000);
    let mut line = Line::new(SampleRate::Hz8000);
    line.silence(2_000.0);
    speak(&mut line, 3_000, -20.0);
    line.noise(-60.0);
    assert_eq!(told(&mut detector, &line).len(), 1);
    assert!(detector.is_speaking());
    for _ in 0..30 {
        detector.handle_gap(20);
    }
    assert!(matches!(
        detector.poll_event(),
        Some(ActivityEvent::Ended { .. })
    ));
    // An hour of it, then comfort noise that is somewhat louder than the line's was.
    detector.handle_gap(3_600_000);
    let mut comfort = Line::new(SampleRate::Hz8000);
    comfort.silence(5_000.0).noise(-52.0);
    assert_eq!(told(&mut detector, &comfort), []);
    let mut again = Line::new(SampleRate::Hz8000);
    speak(&mut again, 900, -20.0);
    again.noise(-52.0);
    assert_eq!(told(&mut detector, &again).len(), 1);
}

#[test]
fn digital_silence_does_not_make_the_noise_after_it_speech() {
    let mut line = Line::new(SampleRate::Hz8000);
    let mut noise = Line::new(SampleRate::Hz8000);
    noise.silence(5_000.0).noise(-42.0);
    line.samples.extend(&noise.samples);
    line.silence(20_000.0);
    line.samples.extend(&noise.samples);
    let told = heard(&line);
    assert!(told.iter().all(|(at, _)| *at < 5_000), "{told:?}");
}
