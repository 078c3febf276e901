use super::super::tests::{error_share, format, speech};
use super::*;
use crate::codec::ENCODED_LEN_MAX;
use crate::codec::g711::Law;

fn pcmu(millis: u8) -> AudioFormat {
    format(AudioCodec::Pcmu, 8_000, millis)
}

fn l16(clock_hz: u32, millis: u8) -> AudioFormat {
    format(AudioCodec::L16, clock_hz, millis)
}

/// A sender of PCMU whose every packet holds one sample value, and what leaves for L16 at 8 kHz.
struct Call {
    transcoder: Transcoder,
    out: Vec<(u32, bool, Vec<i16>)>,
}

impl Call {
    fn new(from: &AudioFormat, to: &AudioFormat) -> Self {
        Self {
            transcoder: Transcoder::new(from, to).expect("formats of this build"),
            out: Vec::new(),
        }
    }

    fn pcmu_to_l16() -> Self {
        Self::new(&pcmu(20), &l16(8_000, 20))
    }

    /// A packet of `len` samples with the value nearest to `value`.
    fn packet(&mut self, sequence: u16, timestamp: u32, len: usize, value: i16) {
        self.payload(sequence, timestamp, &vec![Law::Mu.encode(value); len]);
    }

    fn payload(&mut self, sequence: u16, timestamp: u32, payload: &[u8]) {
        self.transcoder.handle_packet(sequence, timestamp, payload);
        let mut out = [0; ENCODED_LEN_MAX];
        while let Some(packet) = self.transcoder.poll_packet(&mut out) {
            let samples = out[..packet.len]
                .chunks_exact(2)
                .map(|bytes| i16::from_be_bytes([bytes[0], bytes[1]]))
                .collect();
            self.out.push((packet.timestamp, packet.marker, samples));
        }
    }

    fn timestamps(&self) -> Vec<u32> {
        self.out.iter().map(|(timestamp, ..)| *timestamp).collect()
    }

    fn markers(&self) -> Vec<bool> {
        self.out.iter().map(|(_, marker, _)| *marker).collect()
    }

    /// The value in the middle of each packet.
    fn values(&self) -> Vec<i16> {
        self.out.iter().map(|(.., s)| s[s.len() / 2]).collect()
    }
}

fn coded(value: i16) -> i16 {
    Law::Mu.decode(Law::Mu.encode(value))
}

#[test]
fn packets_in_order_leave_at_once_with_only_the_first_marked() {
    let mut call = Call::pcmu_to_l16();
    for n in 0..5u16 {
        call.packet(
            65_534_u16.wrapping_add(n),
            1_000 + 160 * u32::from(n),
            160,
            4_000,
        );
        assert_eq!(call.out.len(), usize::from(n) + 1);
    }
    assert_eq!(call.timestamps(), [1_000, 1_160, 1_320, 1_480, 1_640]);
    assert_eq!(call.markers(), [true, false, false, false, false]);
    assert_eq!(call.values(), [coded(4_000); 5]);
}

#[test]
fn thirty_milliseconds_become_twenty_without_a_gap() {
    let mut call = Call::new(&pcmu(30), &l16(8_000, 20));
    let mut counts = Vec::new();
    for n in 0..4u32 {
        call.packet(n as u16, 240 * n, 240, 1_000 * (n as i16 + 1));
        counts.push(call.out.len());
    }
    assert_eq!(counts, [1, 3, 4, 6]);
    assert_eq!(call.timestamps(), [0, 160, 320, 480, 640, 800]);
    // The second packet holds 10 ms of each of the first two.
    let second = &call.out[1].2;
    assert_eq!((second[79], second[80]), (coded(1_000), coded(2_000)));
}

#[test]
fn every_packet_time_turns_into_every_other_with_exact_timestamps() {
    for from in [10u8, 20, 30, 40, 50, 60] {
        for to in [10u8, 20, 30, 40, 50, 60] {
            let mut call = Call::new(&pcmu(from), &l16(8_000, to));
            let len = 8 * usize::from(from);
            let packets = 120 * 60 / u32::from(from);
            for n in 0..packets {
                call.packet(n as u16, (len as u32) * n, len, 500);
            }
            let step = 8 * u32::from(to);
            let expected: Vec<u32> = (0..120 * 60 / u32::from(to)).map(|n| n * step).collect();
            assert_eq!(call.timestamps(), expected, "{from} to {to} ms");
            assert!(call.markers()[1..].iter().all(|marker| !marker));
        }
    }
}

#[test]
fn a_lost_packet_is_made_up_and_the_late_one_dropped() {
    let mut call = Call::pcmu_to_l16();
    call.packet(10, 0, 160, 4_000);
    call.packet(12, 320, 160, 4_000);
    assert_eq!(call.timestamps(), [0, 160, 320]);
    assert_eq!(call.markers(), [true, false, false]);
    call.packet(11, 160, 160, 4_000);
    call.packet(12, 320, 160, 4_000);
    call.packet(13, 480, 160, 4_000);
    assert_eq!(call.timestamps(), [0, 160, 320, 480]);
    let counters = call.transcoder.counters();
    assert_eq!((counters.late, counters.concealed_millis), (2, 20));
    assert_eq!(counters.restarts, 0);
}

#[test]
fn a_long_loss_is_made_up_for_sixty_milliseconds_and_then_jumped_over() {
    let mut call = Call::pcmu_to_l16();
    call.packet(0, 0, 160, 4_000);
    call.packet(51, 51 * 160, 160, 4_000);
    assert_eq!(call.timestamps(), [0, 160, 320, 480, 51 * 160]);
    assert_eq!(call.markers(), [true, false, false, false, true]);
    assert_eq!(call.transcoder.counters().concealed_millis, 60);
}

#[test]
fn silence_that_the_sender_did_not_send_is_not_made_up() {
    let mut call = Call::pcmu_to_l16();
    call.packet(0, 0, 160, 4_000);
    // An hour.
    call.packet(1, 28_800_000, 160, 4_000);
    call.packet(2, 28_800_160, 160, 4_000);
    assert_eq!(call.timestamps(), [0, 28_800_000, 28_800_160]);
    assert_eq!(call.markers(), [true, true, false]);
    assert_eq!(call.transcoder.counters().concealed_millis, 0);
}

#[test]
fn a_remainder_before_silence_is_filled_up_and_sent_at_its_own_time() {
    let mut call = Call::new(&pcmu(30), &l16(8_000, 20));
    call.packet(0, 0, 240, 4_000);
    call.packet(1, 8_000, 240, 4_000);
    assert_eq!(call.timestamps(), [0, 160, 8_000]);
    assert_eq!(call.markers(), [true, false, true]);
    call.packet(2, 8_240, 240, 4_000);
    assert_eq!(call.timestamps()[3..], [8_160, 8_320]);
}

#[test]
fn a_gap_shorter_than_the_remainders_rest_is_filled_without_a_jump() {
    let mut call = Call::new(&pcmu(10), &l16(8_000, 40));
    call.packet(0, 0, 80, 4_000);
    call.packet(1, 160, 80, 4_000);
    call.packet(2, 240, 80, 4_000);
    assert_eq!(call.timestamps(), [0]);
    call.packet(3, 320, 320, 4_000);
    assert_eq!(call.timestamps(), [0, 320]);
    assert_eq!(call.markers(), [true, false]);
}

#[test]
fn a_timestamp_that_jumps_half_the_clock_does_not_stop_the_audio() {
    for jump in [1 << 31, (1 << 31) + 160, 3 << 30, u32::MAX - 159] {
        let mut call = Call::pcmu_to_l16();
        call.packet(0, 5_000, 160, 4_000);
        call.packet(1, 5_160_u32.wrapping_add(jump), 160, 4_000);
        call.packet(2, 5_320_u32.wrapping_add(jump), 160, 4_000);
        assert_eq!(call.timestamps(), [5_000, 5_160, 5_320], "{jump:#x}");
        assert_eq!(call.transcoder.counters().restarts, 1);
    }
}

#[test]
fn a_frozen_timestamp_does_not_stop_the_audio() {
    let mut call = Call::pcmu_to_l16();
    for n in 0..4 {
        call.packet(n, 700, 160, 4_000);
    }
    assert_eq!(call.timestamps(), [700, 860, 1_020, 1_180]);
}

#[test]
fn a_sender_that_restarts_is_followed_without_a_gap() {
    // Far off in number: at once. Near in number, far in time: with its second packet.
    for (sequence, dropped) in [(40_000, 0), (95, 1)] {
        let mut call = Call::pcmu_to_l16();
        call.packet(99, 0, 160, 4_000);
        call.packet(100, 160, 160, 4_000);
        for n in 0..3 {
            call.packet(sequence + n, 3_000_000_000 + 160 * u32::from(n), 160, 8_000);
        }
        let sent = 5 - dropped;
        let expected: Vec<u32> = (0..sent).map(|n| 160 * n).collect();
        assert_eq!(call.timestamps(), expected);
        assert_eq!(call.transcoder.counters().restarts, 1);
    }
}

#[test]
fn a_burst_that_arrives_late_is_not_taken_for_a_restart() {
    let mut call = Call::pcmu_to_l16();
    for n in [0, 4, 1, 2, 3, 5] {
        call.packet(n, 160 * u32::from(n), 160, 4_000);
    }
    assert_eq!(call.timestamps(), [0, 160, 320, 480, 640, 800]);
    let counters = call.transcoder.counters();
    assert_eq!((counters.late, counters.restarts), (3, 0));
}

#[test]
fn a_new_source_follows_what_was_sent() {
    let mut call = Call::pcmu_to_l16();
    call.packet(0, 0, 160, 4_000);
    call.transcoder.handle_source_change();
    call.packet(50, 77_777, 160, 4_000);
    call.packet(51, 77_937, 160, 4_000);
    assert_eq!(call.timestamps(), [0, 160, 320]);
}

#[test]
fn a_telephone_event_between_audio_is_no_loss() {
    let mut call = Call::pcmu_to_l16();
    call.packet(0, 0, 160, 4_000);
    for sequence in 1..=8 {
        call.transcoder.handle_other_packet(sequence, 160);
    }
    call.packet(9, 1_440, 160, 4_000);
    assert_eq!(call.timestamps(), [0, 1_440]);
    assert_eq!(call.transcoder.counters().concealed_millis, 0);
}

#[test]
fn a_bad_payload_is_counted_and_its_time_made_up() {
    let mut call = Call::pcmu_to_l16();
    call.packet(0, 0, 160, 4_000);
    call.payload(1, 160, &[]);
    call.packet(2, 320, 160, 4_000);
    call.payload(3, 480, &[0xff; 961]);
    call.packet(4, 640, 160, 4_000);
    assert_eq!(call.timestamps(), [0, 160, 320, 480, 640]);
    let counters = call.transcoder.counters();
    assert_eq!((counters.bad_frames, counters.concealed_millis), (2, 40));
}

#[test]
fn clocks_of_8_and_48_khz_stay_in_step_for_days() {
    // Ten days of silences of just under six hours with speech between, over many wraps.
    let mut call = Call::new(&pcmu(20), &l16(48_000, 10));
    let mut back = Call::new(&l16(48_000, 10), &pcmu(20));
    let (mut at, mut sequence) = (0u64, 0u16);
    for _ in 0..50 {
        for _ in 0..3 {
            call.packet(sequence, at as u32, 160, 4_000);
            let newest = call.timestamps()[call.out.len() - 1];
            assert_eq!(newest, ((at + 80) * 6) as u32);
            let half = vec![0; 960];
            for n in 0..2u16 {
                let timestamp = (at * 6) as u32 + 480 * u32::from(n);
                back.transcoder
                    .handle_packet(2 * sequence + n, timestamp, &half);
            }
            let mut out = [0; ENCODED_LEN_MAX];
            let packet = back.transcoder.poll_packet(&mut out).expect("20 ms");
            assert_eq!(packet.timestamp, at as u32);
            at += 160;
            sequence += 1;
        }
        at += 160 * 1_000_001;
    }
}

#[test]
fn timestamps_beside_the_audio_are_translated() {
    let mut call = Call::new(&pcmu(20), &l16(48_000, 10));
    assert_eq!(call.transcoder.translate_timestamp(0), None);
    call.packet(0, 1_000, 160, 4_000);
    assert_eq!(call.transcoder.translate_timestamp(1_000), Some(1_000));
    assert_eq!(call.transcoder.translate_timestamp(1_160), Some(1_960));
    assert_eq!(call.transcoder.translate_timestamp(999), None);
}

#[test]
fn packets_that_nobody_polls_are_dropped_and_time_goes_on() {
    let mut call = Call::pcmu_to_l16();
    for n in 0..100u16 {
        call.transcoder
            .handle_packet(n, 160 * u32::from(n), &[0; 160]);
    }
    call.packet(100, 16_000, 160, 4_000);
    assert_eq!(call.timestamps(), [16_000]);
    assert_eq!(call.transcoder.counters().dropped, 100);
}

#[test]
fn a_format_may_change_in_the_middle() {
    let mut call = Call::pcmu_to_l16();
    call.packet(0, 0, 160, 4_000);
    call.transcoder
        .replace_source_format(&format(AudioCodec::Pcma, 8_000, 20))
        .expect("PCMA");
    call.payload(1, 160, &[Law::A.encode(4_000); 160]);
    assert_eq!(call.timestamps(), [0, 160]);
    assert_eq!(call.out[1].2[80], Law::A.decode(Law::A.encode(4_000)));
}

/// What leaves for L16 when every tenth packet of an Opus sender is lost, as the share of error in
/// the packets that were; `fec`: it repeats itself.
#[cfg(feature = "opus")]
fn error_of_lost_opus_packets(fec: bool) -> f64 {
    let mut opus = format(AudioCodec::Opus, 48_000, 20);
    opus.opus.in_band_fec = fec;
    let mut encoder = Encoder::new(&opus, SampleRate::Hz8000).expect("a format of this build");
    encoder.set_expected_loss(10);
    let payloads: Vec<Vec<u8>> = speech(SampleRate::Hz8000, 4_000)
        .chunks_exact(160)
        .map(|pcm| {
            let mut out = [0; ENCODED_LEN_MAX];
            let len = encoder.encode(pcm, &mut out).expect("20 ms");
            out[..len].to_vec()
        })
        .collect();
    let is_lost = |n: usize| n % 10 == 5;
    let [intact, lossy] = [false, true].map(|loses| {
        let mut call = Call::new(&opus, &l16(8_000, 20));
        for (n, payload) in payloads.iter().enumerate() {
            if !(loses && is_lost(n)) {
                call.payload(n as u16, n as u32 * 960, payload);
            }
        }
        assert_eq!(call.out.len(), payloads.len());
        let lost = call
            .out
            .into_iter()
            .enumerate()
            .filter(|(n, _)| is_lost(*n));
        lost.flat_map(|(_, (.., samples))| samples)
            .collect::<Vec<i16>>()
    });
    error_share(&intact, &lossy)
}

#[test]
#[cfg(feature = "opus")]
fn a_lost_opus_packet_is_taken_from_the_one_behind_it() {
    let [concealed, recovered] = [false, true].map(error_of_lost_opus_packets);
    assert!(
        recovered < 0.5 * concealed,
        "{recovered} against {concealed}"
    );
}
