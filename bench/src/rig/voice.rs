//! What peers say: recorded speech in packets of each codec.

use anyhow::{Context as _, Result, anyhow};
use trunkline_edge_api::{
    AudioCodec, AudioFormat, AudioFormats, ClockRateHz, LegAudio, OpusOptions, PacketTime,
    PayloadType,
};
use trunkline_media::SampleRate;
use trunkline_media::codec::g711::Law;
use trunkline_media::codec::{ENCODED_LEN_MAX, Encoder};
use trunkline_media::resample::Resampler;
use trunkline_testkit::speech::{self, FRAME_LEN};

/// Length of every packet and of every frame, milliseconds.
pub(crate) const FRAME_MILLIS: u32 = 20;

/// A codec as offers name it.
pub(crate) fn format(codec: AudioCodec) -> AudioFormat {
    let (number, clock_rate, channels) = match codec {
        AudioCodec::Pcmu => (0, ClockRateHz::NARROWBAND, 1),
        AudioCodec::Pcma => (8, ClockRateHz::NARROWBAND, 1),
        AudioCodec::G722 => (9, ClockRateHz::G722_RTP, 1),
        AudioCodec::L16 => (97, ClockRateHz::NARROWBAND, 1),
        AudioCodec::Opus => (111, ClockRateHz::OPUS, 2),
    };
    AudioFormat {
        codec,
        payload_type: PayloadType::new(number).expect("below 128"),
        clock_rate,
        channels,
        packet_time: PacketTime::MS_20,
        opus: OpusOptions::default(),
    }
}

/// A leg whose peer has this codec and no telephone events.
pub(crate) fn leg_audio(codec: AudioCodec) -> LegAudio {
    LegAudio {
        receive: AudioFormats::new(vec![format(codec)]).expect("one format"),
        send: format(codec),
        receive_events: None,
        send_events: None,
        comfort_noise: None,
    }
}

/// Some seconds of speech in packets, and a packet of silence.
pub(crate) struct Voice {
    pub(crate) payload_type: PayloadType,
    /// RTP units of a packet.
    pub(crate) units: u32,
    pub(crate) speech: Vec<Vec<u8>>,
    pub(crate) silence: Vec<u8>,
}

impl Voice {
    /// Encoded as a peer of that codec does it: Opus from 48 kHz, as browsers do.
    pub(crate) fn new(codec: AudioCodec) -> Result<Self> {
        let rate = match codec {
            AudioCodec::Opus => SampleRate::Hz48000,
            AudioCodec::G722 => SampleRate::Hz16000,
            _ => SampleRate::Hz8000,
        };
        Self::at(codec, rate)
    }

    /// Encoded from that rate.
    pub(crate) fn at(codec: AudioCodec, rate: SampleRate) -> Result<Self> {
        let format = format(codec);
        let mut resampler = Resampler::new(SampleRate::Hz8000, rate);
        let mut encoder = Encoder::new(&format, rate)
            .with_context(|| format!("no encoder for {}", codec.encoding_name()))?;
        let mut encode = |narrow: &[i16; FRAME_LEN]| -> Result<Vec<u8>> {
            let mut wide = vec![0; rate.samples(FRAME_MILLIS)];
            resampler.process(narrow, &mut wide);
            let mut payload = vec![0; ENCODED_LEN_MAX];
            let encoded = encoder.encode(&wide, &mut payload);
            let len = encoded.map_err(|error| anyhow!("{error:?}"))?;
            payload.truncate(len);
            Ok(payload)
        };
        let caller = speech::caller();
        let speech = (0..caller.frame_count())
            .map(|index| {
                let mut narrow = [0; FRAME_LEN];
                Law::Mu.decode_slice(caller.frame(index), &mut narrow);
                encode(&narrow)
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            payload_type: format.payload_type,
            units: format.clock_rate.get() / 1_000 * FRAME_MILLIS,
            speech,
            silence: encode(&[0; FRAME_LEN])?,
        })
    }

    /// Of somebody who listens: sends as often, and says nothing.
    pub(crate) fn silent(&self) -> Self {
        Self {
            speech: vec![self.silence.clone()],
            silence: self.silence.clone(),
            ..*self
        }
    }
}

/// The recording as a WAV file, to be played: 8 kHz, µ-law.
pub(crate) fn wav() -> Vec<u8> {
    let caller = speech::caller();
    let data: Vec<u8> = (0..caller.frame_count())
        .flat_map(|index| caller.frame(index))
        .copied()
        .collect();
    let len = data.len() as u32;
    let mut file = b"RIFF".to_vec();
    file.extend_from_slice(&(36 + len).to_le_bytes());
    // Format 7 (µ-law), one channel.
    file.extend_from_slice(b"WAVEfmt \x10\0\0\0\x07\0\x01\0");
    file.extend_from_slice(&8_000u32.to_le_bytes());
    file.extend_from_slice(&8_000u32.to_le_bytes());
    // One byte a frame, eight bits.
    file.extend_from_slice(b"\x01\0\x08\0data");
    file.extend_from_slice(&len.to_le_bytes());
    file.extend_from_slice(&data);
    file
}
