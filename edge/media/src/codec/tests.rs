use trunkline_edge_api::audio::{AudioCodec, AudioFormat, OpusOptions, PacketTime};
use trunkline_edge_api::{ClockRateHz, PayloadType};

pub(super) fn format(codec: AudioCodec, clock_hz: u32, millis: u8) -> AudioFormat {
    AudioFormat {
        codec,
        payload_type: PayloadType::new(96).expect("seven bits"),
        clock_rate: ClockRateHz::new(clock_hz).expect("a clock"),
        channels: if codec == AudioCodec::Opus { 2 } else { 1 },
        packet_time: PacketTime::from_millis(millis).expect("a packet time"),
        opus: OpusOptions::default(),
    }
}
