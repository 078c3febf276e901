//! What a phone with G.722 or Opus says and hears.

use trunkline_edge_api::{
    AudioCodec, AudioFormat, ClockRateHz, OpusOptions, PacketTime, PayloadType,
};
use trunkline_media::SampleRate;
use trunkline_media::codec::{Decoder, Encoder};
use trunkline_testkit::rtp::ReceivedPacket;

use crate::audio::sines;

/// Longest payload, bytes.
const PAYLOAD_LEN_MAX: usize = 1_500;

/// A codec as a phone has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PhoneCodec {
    codec: AudioCodec,
    pub(crate) payload_type: u8,
    pub(crate) rtpmap: &'static str,
    /// What 20 ms add to the timestamp.
    pub(crate) timestamp_step: u32,
}

pub(crate) const G722: PhoneCodec = PhoneCodec {
    codec: AudioCodec::G722,
    payload_type: 9,
    rtpmap: "G722/8000",
    timestamp_step: 160,
};

pub(crate) const OPUS: PhoneCodec = PhoneCodec {
    codec: AudioCodec::Opus,
    payload_type: 111,
    rtpmap: "opus/48000/2",
    timestamp_step: 960,
};

impl PhoneCodec {
    fn format(self) -> AudioFormat {
        AudioFormat {
            codec: self.codec,
            payload_type: PayloadType::new(self.payload_type).unwrap(),
            clock_rate: ClockRateHz::new(self.timestamp_step * 50).unwrap(),
            channels: if self.codec == AudioCodec::Opus { 2 } else { 1 },
            packet_time: PacketTime::MS_20,
            opus: OpusOptions::default(),
        }
    }

    /// Payloads of 20 ms of a tone.
    pub(crate) fn tone(self, hz: f64, amplitude: f64, frames: usize) -> Vec<Vec<u8>> {
        let mut encoder = Encoder::new(&self.format(), SampleRate::Hz16000).unwrap();
        let samples = sines(16_000, &[hz], amplitude, 320 * frames);
        let samples: Vec<i16> = samples.into_iter().map(|sample| sample as i16).collect();
        let encode = |frame: &[i16]| {
            let mut payload = vec![0; PAYLOAD_LEN_MAX];
            let len = encoder.encode(frame, &mut payload).unwrap();
            payload.truncate(len);
            payload
        };
        samples.chunks_exact(320).map(encode).collect()
    }

    /// Samples at 16 kHz.
    pub(crate) fn decode(self, packets: &[ReceivedPacket]) -> Vec<f64> {
        let mut decoder = Decoder::new(&self.format(), SampleRate::Hz16000).unwrap();
        let mine = packets
            .iter()
            .filter(|packet| packet.header.payload_type == self.payload_type);
        let mut heard = Vec::new();
        for packet in mine {
            let mut samples = [0; 1_920];
            let len = decoder.decode(&packet.payload, &mut samples).unwrap();
            heard.extend(samples[..len].iter().map(|sample| f64::from(*sample)));
        }
        heard
    }
}
