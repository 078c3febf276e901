//! Payloads of audio, alone and in streams.

use trunkline_edge_api::{
    AudioCodec, AudioFormat, ClockRateHz, OpusOptions, PacketTime, PayloadType,
};
use trunkline_media::SampleRate;
use trunkline_media::codec::{
    BadFrame, DECODED_LEN_MAX, Decoder, ENCODED_LEN_MAX, Encoder, Transcoder,
};

use crate::packets::Script;

/// Decodes the input as one G.722 payload and in pieces; both give the same samples, two for each
/// byte.
pub fn g722(input: &[u8]) {
    let format = format(AudioCodec::G722, 8_000, 20);
    for rate in SampleRate::ALL {
        let mut whole = Decoder::new(&format, rate).expect("every build has G.722");
        let mut samples = vec![0; DECODED_LEN_MAX];
        let len = match whole.decode(input, &mut samples) {
            Ok(len) => len,
            Err(BadFrame::Empty) => return assert!(input.is_empty()),
            Err(error) => {
                assert_eq!((error, input.len() > 960), (BadFrame::TooLong, true));
                return;
            }
        };
        assert!(len.abs_diff(input.len() * rate.hz() as usize / 8_000) <= 1);
        let mut parted = Decoder::new(&format, rate).expect("every build has G.722");
        let mut pieces = Vec::new();
        for piece in input.chunks(usize::from(input[0]) + 1) {
            let mut out = vec![0; DECODED_LEN_MAX];
            let len = parted.decode(piece, &mut out).expect("a shorter payload");
            pieces.extend_from_slice(&out[..len]);
        }
        assert_eq!(pieces, samples[..len]);
    }
}

/// Feeds a stream of Opus payloads, with losses, to a decoder of a rate that the input chooses; what
/// decodes lasts as long as its table of contents says.
pub fn opus(input: &[u8]) {
    let mut script = Script::new(input);
    let Some(rate) = script.byte() else {
        return;
    };
    let rate = SampleRate::ALL[usize::from(rate) % SampleRate::ALL.len()];
    let format = format(AudioCodec::Opus, 48_000, 20);
    let mut decoder = Decoder::new(&format, rate).expect("built with Opus");
    let mut out = vec![0; DECODED_LEN_MAX];
    while let (Some(lost), Some(payload)) = (script.byte(), script.chunk()) {
        let gap = &mut out[..usize::from(lost) * 5];
        match lost % 3 {
            0 => {}
            1 => decoder.conceal(gap),
            _ => decoder.recover(payload, gap),
        }
        let units = decoder.duration(payload);
        assert!(units <= 5_760);
        if let Ok(len) = decoder.decode(payload, &mut out) {
            assert_eq!(len as u32 * (48_000 / rate.hz()), units);
        }
    }
}

/// Plays packets in any order, with any payload, through a transcoder between two formats that the
/// input chooses; time goes on by whole packets wherever nothing is marked.
pub fn transcode(input: &[u8]) {
    let mut script = Script::new(input);
    let (Some(from), Some(to)) = (script.byte(), script.byte()) else {
        return;
    };
    let takes_noise = to & 0x40 != 0;
    let (from, to) = (any_format(from), any_format(to));
    let Ok(mut transcoder) = Transcoder::new(&from, &to) else {
        return;
    };
    if takes_noise {
        transcoder = transcoder.with_comfort_noise();
    }
    let rate = transcoder.rate();
    let samples = Encoder::new(&to, rate).expect("just made").packet_samples() as u64;
    let step = (samples * u64::from(to.clock_rate.get()) / u64::from(rate.hz())) as u32;
    let (mut sequence, mut timestamp) = (0u16, 0u32);
    let mut expected = None;
    while let (Some(order), Some(time)) = (script.byte(), script.byte()) {
        sequence = sequence.wrapping_add(match order % 8 {
            0..=4 => 1,
            5 => u16::from(order),
            6 => u16::from(order) << 8,
            _ => 0u16.wrapping_sub(u16::from(order >> 3)),
        });
        let millis = from.clock_rate.get() / 1_000;
        timestamp = timestamp.wrapping_add(match time % 8 {
            0..=3 => 20 * millis,
            4 => 30 * millis,
            5 => u32::from(time) << 24,
            6 => u32::from(time) * 10 * millis,
            _ => 0u32.wrapping_sub(u32::from(time)),
        });
        match order >> 5 {
            7 => transcoder.handle_source_change(),
            6 => {
                transcoder.handle_other_packet(sequence, timestamp);
                transcoder.set_expected_loss(time);
            }
            5 => {
                let Some(chunk) = script.chunk() else {
                    break;
                };
                transcoder.handle_comfort_noise(sequence, timestamp, chunk);
            }
            _ => {
                let Some(chunk) = script.chunk() else {
                    break;
                };
                // A chunk ends at 255 bytes; payloads do not.
                let payload = chunk.repeat(usize::from(order >> 4 & 1) * 5 + 1);
                transcoder.handle_packet(sequence, timestamp, &payload);
            }
        }
        let mut out = [0; ENCODED_LEN_MAX];
        let mut made = 0;
        while let Some(packet) = transcoder.poll_packet(&mut out) {
            assert!((1..=ENCODED_LEN_MAX).contains(&packet.len));
            made += 1;
            if packet.is_comfort_noise {
                assert!(takes_noise && packet.len <= 11 && !packet.marker);
                continue;
            }
            assert!(packet.marker || expected.is_none_or(|at| at == packet.timestamp));
            expected = Some(packet.timestamp.wrapping_add(step));
        }
        assert!(made <= 30, "a packet, a gap and a remainder at most");
    }
    assert_eq!(transcoder.counters().dropped, 0);
}

fn any_format(byte: u8) -> AudioFormat {
    let (codec, clock_hz) = match byte % 8 {
        0 | 1 => (AudioCodec::Pcmu, 8_000),
        2 => (AudioCodec::Pcma, 8_000),
        3 => (AudioCodec::G722, 8_000),
        4 => (AudioCodec::L16, 16_000),
        5 => (AudioCodec::L16, 48_000),
        _ => (AudioCodec::Opus, 48_000),
    };
    let mut format = format(codec, clock_hz, 10 * (byte >> 3 & 7).clamp(1, 6));
    format.opus.in_band_fec = byte & 0x40 != 0;
    format.opus.dtx = byte & 0x80 != 0;
    format
}

fn format(codec: AudioCodec, clock_hz: u32, millis: u8) -> AudioFormat {
    AudioFormat {
        codec,
        payload_type: PayloadType::new(96).expect("seven bits"),
        clock_rate: ClockRateHz::new(clock_hz).expect("not zero"),
        channels: if codec == AudioCodec::Opus { 2 } else { 1 },
        packet_time: PacketTime::from_millis(millis).expect("10 to 60"),
        opus: OpusOptions::default(),
    }
}
