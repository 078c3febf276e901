//! Packets on their way to a clock.

use trunkline_edge_api::{
    AudioCodec, AudioFormat, AudioFormats, ClockRateHz, LegAudio, MonoTime, OpusOptions,
    PacketTime, PayloadType, Ssrc,
};
use trunkline_media::SampleRate;
use trunkline_media::clocked_input::ClockedInput;
use trunkline_media::jitter_buffer::{DELAY_MAX_MILLIS, DEPTH_MAX_MILLIS};
use trunkline_media::rtp::RtpHeader;

use crate::packets::Script;

/// Plays the input as packets, jumps and time into a clocked input of four formats. Every tick
/// gives a frame, and neither what waits nor how long it is to wait passes the limits.
pub fn clocked_input(input: &[u8]) {
    let mut script = Script::new(input);
    let start = script.byte().unwrap_or(0);
    let rate = SampleRate::ALL[usize::from(start) % SampleRate::ALL.len()];
    let mut clocked = ClockedInput::new(&audio(), rate).expect("formats of every build");
    let mut header = RtpHeader {
        marker: false,
        payload_type: PayloadType::PCMU,
        sequence: u16::from(start) << 8,
        timestamp: u32::from(start) << 24,
        ssrc: Ssrc(7),
        header_len: 12,
        payload_len: 0,
    };
    let mut now = MonoTime(1_000_000_000);
    let mut out = vec![0; rate.samples(20)];
    while let Some(action) = script.byte() {
        let argument = action >> 3;
        match action % 8 {
            0..=2 => {
                let types = [0, 8, 9, 13, 97, 101];
                let number = types[usize::from(argument) % types.len()];
                header.payload_type = PayloadType::new(number).expect("below 128");
                let payload = script.chunk().unwrap_or(&[]);
                header.payload_len = payload.len();
                let _ = clocked.receive(now, &header, payload);
                header.sequence = header.sequence.wrapping_add(1);
                header.timestamp = header.timestamp.wrapping_add(160);
            }
            3 => header.sequence = header.sequence.wrapping_add_signed(step(argument) as i16),
            4 => header.timestamp = header.timestamp.wrapping_add_signed(80 * step(argument)),
            5 => header.ssrc = Ssrc(u32::from(argument)),
            6 => now = now.plus_millis(1 << argument),
            _ => {
                for _ in 0..=argument % 16 {
                    now = now.plus_millis(20);
                    out.fill(i16::MIN);
                    clocked.read(now, &mut out);
                }
            }
        }
        let jitter = clocked.stats().jitter;
        assert!(jitter.depth_millis <= DEPTH_MAX_MILLIS);
        assert!(jitter.target_millis <= DELAY_MAX_MILLIS);
    }
}

/// -15 to 15, and some that are far away.
fn step(argument: u8) -> i32 {
    match argument {
        0 => 10_000_000,
        31 => -10_000_000,
        near => i32::from(near) - 15,
    }
}

fn audio() -> LegAudio {
    let format = |codec, number, clock_hz| AudioFormat {
        codec,
        payload_type: PayloadType::new(number).expect("below 128"),
        clock_rate: ClockRateHz::new(clock_hz).expect("a clock rate"),
        channels: 1,
        packet_time: PacketTime::MS_20,
        opus: OpusOptions::default(),
    };
    let formats = vec![
        format(AudioCodec::Pcmu, 0, 8_000),
        format(AudioCodec::Pcma, 8, 8_000),
        format(AudioCodec::G722, 9, 8_000),
        format(AudioCodec::L16, 97, 48_000),
    ];
    LegAudio {
        send: formats[0],
        receive: AudioFormats::new(formats).expect("four of them"),
        receive_events: None,
        send_events: None,
        comfort_noise: Some(PayloadType::CN),
    }
}
