use trunkline_edge_api::{Digit, DigitMethod, DigitString, DigitsId, DigitsToSend};

use super::*;

fn string(id: u32, digits: &str, on_millis: u16, off_millis: u16) -> DigitsToSend {
    let digits = digits.chars().map(|c| Digit::from_char(c).unwrap());
    DigitsToSend {
        id: DigitsId(id),
        digits: DigitString::new(digits.collect::<Vec<_>>()).unwrap(),
        on_millis,
        off_millis,
        method: DigitMethod::InBand,
    }
}

#[test]
fn every_key_of_the_keypad_has_its_row_and_its_column() {
    let rows = ["123A", "456B", "789C", "*0#D"];
    let low = [697, 770, 852, 941];
    let high = [1_209, 1_336, 1_477, 1_633];
    for (row, keys) in rows.iter().enumerate() {
        for (column, key) in keys.chars().enumerate() {
            let digit = Digit::from_char(key).unwrap();
            assert_eq!(frequencies_hz(digit), [low[row], high[column]], "{key}");
        }
    }
}

#[test]
fn a_string_lasts_as_long_as_its_tones_and_pauses_and_is_told_when_done() {
    for rate in SampleRate::ALL {
        let mut sender = ToneSender::new(rate);
        assert!(!sender.is_sending());
        sender.send(&string(1, "12", 100, 50)).unwrap();
        sender.send(&string(1, "12", 100, 50)).unwrap();
        sender.send(&string(2, "3", 60, 40)).unwrap();
        let mut frame = vec![0; rate.samples(20)];
        let mut made = 0;
        let mut done = Vec::new();
        while sender.is_sending() {
            made += sender.fill(&mut frame);
            done.extend(std::iter::from_fn(|| sender.poll_done()));
        }
        assert_eq!(made, rate.samples(400));
        assert_eq!(done, [DigitsId(1), DigitsId(2)]);
        assert_eq!(sender.fill(&mut frame), 0);
    }
}

#[test]
fn pauses_are_silent_and_tones_are_not() {
    let rate = SampleRate::Hz8000;
    let mut sender = ToneSender::new(rate);
    sender.send(&string(1, "0", 40, 60)).unwrap();
    let mut audio = vec![1; rate.samples(100)];
    assert_eq!(sender.fill(&mut audio), audio.len());
    assert!(audio[rate.samples(40)..].iter().all(|&sample| sample == 0));
    let loudest = audio.iter().map(|sample| sample.unsigned_abs()).max();
    // Two sines of -10 dBm0 each, in phase.
    assert!((13_000..15_000).contains(&loudest.unwrap()), "{loudest:?}");
}

#[test]
fn times_that_nobody_could_hear_are_brought_into_range() {
    let rate = SampleRate::Hz8000;
    let mut sender = ToneSender::new(rate);
    sender.send(&string(1, "5", 0, 0)).unwrap();
    let mut audio = vec![0; rate.samples(1_000)];
    assert_eq!(sender.fill(&mut audio), rate.samples(80));
}
