use std::f64::consts::TAU;

use proptest::prelude::*;

use super::*;
use crate::codec::g711::Law;
use crate::dtmf::test_line::{Line, Press, all_digits};
use crate::tone::ToneGenerator;
use crate::tone::level::peak_of_sine;
use crate::tone::preset::{CallTone, TonePlan, preset};

/// What is told of audio, with the time at which it is, milliseconds; in frames of 20 ms.
fn told_in(pcm: &[i16], rate: SampleRate) -> Vec<(u32, Progress)> {
    let mut detector = ProgressDetector::new(rate);
    let mut told = Vec::new();
    for (frame, pcm) in (1..).zip(pcm.chunks(rate.samples(20))) {
        detector.handle_audio(pcm);
        told.extend(std::iter::from_fn(|| detector.poll_event()).map(|event| (frame * 20, event)));
    }
    told
}

fn told(line: &Line) -> Vec<(u32, Progress)> {
    told_in(&line.pcm(), line.rate)
}

fn signals(line: &Line) -> Vec<ProgressSignal> {
    told(line).iter().map(|(_, event)| event.signal).collect()
}

/// A tone of the network for `millis`, over noise of `noise_dbm0`, as a G.711 line carries it.
fn network(plan: TonePlan, tone: CallTone, rate: SampleRate, millis: u32, noise: f64) -> Vec<i16> {
    let tone = preset(plan, tone);
    let mut line = Line::new(rate);
    let mut pcm: Vec<i16> = vec![0; rate.samples(500)];
    while pcm.len() < rate.samples(500 + millis) {
        let mut generator = ToneGenerator::new(&tone, rate);
        let mut frame = vec![0; rate.samples(20)];
        loop {
            let written = generator.fill(&mut frame);
            pcm.extend_from_slice(&frame[..written]);
            if written < frame.len() || pcm.len() > rate.samples(500 + millis) {
                break;
            }
        }
    }
    line.samples = pcm.iter().map(|&sample| f64::from(sample)).collect();
    line.noise(noise);
    let coded = line.pcm();
    let coded = coded.iter().map(|&s| Law::A.decode(Law::A.encode(s)));
    coded.collect()
}

#[test]
fn tones_of_three_networks_are_told_once_and_in_time() {
    use CallTone::{Busy, Congestion, Dial, Ringback, SpecialInformation};
    use TonePlan::{Europe, NorthAmerica, UnitedKingdom};
    // Behind half a second of quiet, the latest that they may be told.
    let rows = [
        (Europe, Dial, ProgressSignal::DialTone, 3_700, [425, 0, 0]),
        (
            Europe,
            Ringback,
            ProgressSignal::Ringback,
            6_000,
            [425, 0, 0],
        ),
        (Europe, Busy, ProgressSignal::Busy, 3_100, [425, 0, 0]),
        (
            Europe,
            Congestion,
            ProgressSignal::Congestion,
            1_900,
            [425, 0, 0],
        ),
        (
            UnitedKingdom,
            Dial,
            ProgressSignal::DialTone,
            3_700,
            [350, 440, 0],
        ),
        (
            UnitedKingdom,
            Ringback,
            ProgressSignal::Ringback,
            4_000,
            [400, 450, 0],
        ),
        (
            UnitedKingdom,
            Busy,
            ProgressSignal::Busy,
            2_500,
            [400, 0, 0],
        ),
        (
            UnitedKingdom,
            Congestion,
            ProgressSignal::Congestion,
            3_100,
            [400, 0, 0],
        ),
        (
            NorthAmerica,
            Dial,
            ProgressSignal::DialTone,
            3_700,
            [350, 440, 0],
        ),
        (
            NorthAmerica,
            Ringback,
            ProgressSignal::Ringback,
            7_000,
            [440, 480, 0],
        ),
        (
            NorthAmerica,
            Busy,
            ProgressSignal::Busy,
            3_100,
            [480, 620, 0],
        ),
        (
            NorthAmerica,
            Congestion,
            ProgressSignal::Congestion,
            1_900,
            [480, 620, 0],
        ),
        (
            Europe,
            SpecialInformation,
            ProgressSignal::SpecialInformation,
            1_600,
            [950, 1_400, 1_800],
        ),
    ];
    for rate in [SampleRate::Hz8000, SampleRate::Hz16000] {
        for noise in [-70.0, -45.0] {
            for (plan, tone, signal, latest, hz) in rows {
                let pcm = network(plan, tone, rate, 60_000, noise);
                let heard = told_in(&pcm, rate);
                let name = format!("{plan:?} {tone:?} over {noise} dBm0 at {rate:?}: {heard:?}");
                let [(at, progress)] = heard[..] else {
                    panic!("{name}");
                };
                assert_eq!(progress.signal, signal, "{name}");
                assert!(at <= latest, "{name}");
                let pairs = progress.frequencies_hz.iter().zip(hz);
                let off = pairs.map(|(told, sent)| told.abs_diff(sent)).max();
                assert!(off <= Some(8), "{name}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// ITU-T E.180: 400 to 450 Hz, or two tones 25 Hz or more apart, of which 40 can be told.
    #[test]
    fn any_tone_within_the_limits_of_e_180_is_known(
        low in 345.0..410.0f64,
        apart in 42.0..150.0f64,
        is_dual in any::<bool>(),
        dbm0 in -33.0..-6.0f64,
        on in 180.0..500.0f64,
        ratio in 0.7..1.2f64,
    ) {
        let high = if is_dual { Some((low + apart, dbm0)) } else { None };
        let first = if is_dual { low } else { low + 45.0 };
        let tones: Vec<(f64, f64)> = [Some((first, dbm0)), high].into_iter().flatten().collect();
        let mut line = Line::new(SampleRate::Hz8000);
        line.silence(333.0);
        for _ in 0..5 {
            line.tones(on, &tones).silence(on * ratio);
        }
        let period = on * (1.0 + ratio);
        // Where pace is all that parts them, either is right.
        let heard = signals(&line);
        if period > 580.0 {
            prop_assert_eq!(heard, [ProgressSignal::Busy]);
        } else if period < 520.0 {
            prop_assert_eq!(heard, [ProgressSignal::Congestion]);
        } else {
            prop_assert_eq!(heard.len(), 1);
        }
    }

    #[test]
    fn no_samples_make_the_detector_panic_or_babble(pcm in prop::collection::vec(any::<i16>(), 0..20_000)) {
        prop_assert_eq!(told_in(&pcm, SampleRate::Hz8000), []);
    }
}

#[test]
fn signal_that_follows_another_is_told_and_a_row_is_told_again_after_speech() {
    let mut line = Line::new(SampleRate::Hz8000);
    let ring = |line: &mut Line| {
        for _ in 0..3 {
            line.tones(1_000.0, &[(425.0, -12.0)]).silence(4_000.0);
        }
    };
    line.silence(200.0);
    ring(&mut line);
    for _ in 0..8 {
        line.tones(480.0, &[(425.0, -12.0)]).silence(480.0);
    }
    let mut words = Line::new(SampleRate::Hz8000);
    words.silence(2_000.0).noise(-20.0);
    line.samples.extend(words.samples);
    line.silence(1_000.0);
    ring(&mut line);
    use ProgressSignal::{Busy, Ringback};
    assert_eq!(signals(&line), [Ringback, Busy, Ringback]);
}

#[test]
fn fax_machine_that_calls_is_told_once_however_often_it_does() {
    for (hz, millis) in [(1_100.0, 500.0), (1_066.0, 430.0), (1_134.0, 570.0)] {
        let mut line = Line::new(SampleRate::Hz8000);
        line.silence(800.0);
        for _ in 0..5 {
            line.tones(millis, &[(hz, -15.0)]).silence(3_000.0);
        }
        line.noise(-45.0);
        let heard = told(&line);
        let [(at, progress)] = heard[..] else {
            panic!("{hz} {millis}: {heard:?}");
        };
        assert_eq!(progress.signal, ProgressSignal::FaxCalling);
        assert!(at <= 1_600, "{at}");
        assert!(f64::from(progress.frequencies_hz[0]) - hz < 6.0);
    }
}

#[test]
fn fax_machine_or_modem_that_answers_is_told_whatever_its_phase_and_swell_do() {
    for (turns, swells) in [(false, false), (true, false), (true, true)] {
        let mut line = Line::new(SampleRate::Hz8000);
        line.silence(1_000.0);
        for n in 0..26_400u32 {
            let secs = f64::from(n) / 8_000.0;
            // ANSam: the phase turns every 450 ms, the level swells by 20 % at 15 Hz (V.8).
            let sign = if turns && (n / 3_600) % 2 == 1 {
                -1.0
            } else {
                1.0
            };
            let swell = if swells {
                1.0 + 0.2 * (TAU * 15.0 * secs).sin()
            } else {
                1.0
            };
            let peak = peak_of_sine(-12.0) * sign * swell;
            line.samples.push(peak * (TAU * 2_100.0 * secs).sin());
        }
        line.silence(1_000.0).noise(-45.0);
        let heard = told(&line);
        let [(at, progress)] = heard[..] else {
            panic!("{turns} {swells}: {heard:?}");
        };
        assert_eq!(progress.signal, ProgressSignal::FaxAnswer);
        assert!(at <= 2_200, "{at}");
        assert!(progress.frequencies_hz[0].abs_diff(2_100) <= 6);
    }
}

#[test]
fn tones_that_mean_nothing_are_not_told() {
    let mut beep = Line::new(SampleRate::Hz8000);
    beep.silence(500.0)
        .tones(400.0, &[(1_000.0, -10.0)])
        .silence(9_000.0);
    let mut single_ring = Line::new(SampleRate::Hz8000);
    single_ring
        .silence(500.0)
        .tones(1_000.0, &[(425.0, -10.0)])
        .silence(9_000.0);
    let mut falling = Line::new(SampleRate::Hz8000);
    falling.silence(500.0);
    for hz in [1_800.0, 1_400.0, 950.0] {
        falling.tones(330.0, &[(hz, -10.0)]);
    }
    falling.silence(2_000.0);
    let mut melody = Line::new(SampleRate::Hz8000);
    for hz in [392.0, 440.0, 494.0, 523.0, 494.0, 440.0, 392.0, 349.0].repeat(8) {
        melody.tones(400.0, &[(hz, -10.0)]).silence(100.0);
    }
    let mut digits = Line::new(SampleRate::Hz8000);
    for digit in all_digits().chain(all_digits()) {
        digits.press(250.0, &Press::new(digit)).silence(250.0);
    }
    let mut chord = Line::new(SampleRate::Hz8000);
    let chord_hz = [(392.0, -14.0), (494.0, -14.0), (587.0, -14.0)];
    chord
        .silence(200.0)
        .tones(10_000.0, &chord_hz)
        .silence(500.0);
    let mut soft = Line::new(SampleRate::Hz8000);
    soft.tones(8_000.0, &[(425.0, -43.0)]);
    for (name, line) in [
        ("beep", beep),
        ("single ring", single_ring),
        ("falling tones", falling),
        ("melody", melody),
        ("digits", digits),
        ("chord", chord),
        ("soft", soft),
    ] {
        assert_eq!(told(&line), [], "{name}");
    }
}

#[test]
fn silence_full_scale_and_a_constant_are_no_progress() {
    for sample in [0, i16::MAX, i16::MIN] {
        assert_eq!(told_in(&[sample; 80_000], SampleRate::Hz8000), []);
    }
}
