//! Files that are played, and files that are recorded.

use trunkline_edge_api::{
    AudioCodec, AudioFormat, ClockRateHz, LegIndex, MonoTime, OpusOptions, PacketTime, PayloadType,
    RawAudio, RecordingFormat, RecordingId, RecordingTracks,
};
use trunkline_media::SampleRate;
use trunkline_media::prompt::{Prompt, PromptLimits};
use trunkline_media::recording::{Tape, TapeSpec, TappedPacket};

use crate::packets::Script;

/// The moment at which every recording begins.
const START: MonoTime = MonoTime(1_000_000_000);

/// How far a recording may reach beyond its last moment, milliseconds.
const TAIL_MILLIS: u64 = 120;

/// Reads the input as WAV and as a file without header; what is accepted keeps to the limits and
/// can be played from its first packet to its last.
pub fn prompt(input: &[u8]) {
    let limits = PromptLimits {
        duration_max_secs: 1,
        bytes_max: 20_000,
    };
    let codecs = [
        AudioCodec::Pcmu,
        AudioCodec::Pcma,
        AudioCodec::L16,
        AudioCodec::G722,
    ];
    let raw = codecs.map(|codec| {
        let sample_rate_hz = if codec == AudioCodec::G722 {
            16_000
        } else {
            8_000
        };
        Some(RawAudio {
            codec,
            sample_rate_hz,
        })
    });
    for raw in raw.into_iter().chain([None]) {
        let prompt = match Prompt::parse(input, raw, &limits) {
            Ok(prompt) => prompt,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                continue;
            }
        };
        assert!(prompt.memory_bytes() <= limits.bytes_max);
        assert!(prompt.duration_millis() <= 1_000);
        let samples = prompt.samples(SampleRate::Hz8000).expect("always kept");
        let encoded = prompt.encode_for(&format(0)).expect("PCMU is always there");
        assert_eq!(encoded.packet_count(), samples.len().div_ceil(160));
        for index in 0..encoded.packet_count() {
            assert_eq!(encoded.payload(index).map(<[u8]>::len), Some(160));
        }
        assert_eq!(encoded.payload(encoded.packet_count()), None);
    }
}

/// Plays the input as packets, pauses and time into a recording; its file is sound at every write
/// and as long as the recording was.
pub fn recording(input: &[u8]) {
    let mut script = Script::new(input);
    let kinds = script.byte().unwrap_or(0);
    let spec = TapeSpec {
        id: RecordingId(1),
        format: RecordingFormat::try_from(1 + kinds % 3).expect("1 to 3"),
        tracks: RecordingTracks::try_from(1 + kinds / 3 % 4).expect("1 to 4"),
        paused: kinds & 0x80 != 0,
    };
    let mut tape = Tape::new(&spec, START, 0);
    let mut file = Vec::new();
    let mut now = START;
    let mut paused = spec.paused;
    let mut running_millis = 0;
    while let Some(action) = script.byte() {
        let leg = LegIndex::ALL[usize::from(action >> 7)];
        match action % 6 {
            0 => {
                let millis = u64::from(script.byte().unwrap_or(0)) * 4;
                now = now.plus_millis(millis);
                running_millis += if paused { 0 } else { millis };
                tape.handle_timeout(now);
            }
            1 => {
                paused = action & 0x40 != 0;
                tape.pause(now, paused);
            }
            2 => {
                let millis = u64::from(script.byte().unwrap_or(0)) * 8;
                let from = MonoTime(now.0.saturating_sub(millis * 1_000_000));
                tape.suppress(leg, from, now.plus_millis(millis));
            }
            3 => write(&mut tape, &mut file),
            _ => {
                let packet = script.chunk().unwrap_or(&[]);
                tape.handle_packet(&TappedPacket {
                    arrival: now,
                    leg,
                    format: (action % 6 == 4).then(|| format(packet.len())),
                    packet,
                });
            }
        }
    }
    tape.stop(now);
    write(&mut tape, &mut file);
    assert_eq!(tape.file_len(), file.len() as u64);
    if spec.format == RecordingFormat::Pcap {
        check_pcap(&file);
        return;
    }
    let lasts = running_millis..=running_millis + TAIL_MILLIS;
    assert!(lasts.contains(&tape.duration_millis()), "{lasts:?}");
    assert_eq!(check_wav(&file), file.len() - Tape::resume_head_len());
}

/// Does what the recorder does with a tape, on a disk that takes everything.
fn write(tape: &mut Tape, file: &mut Vec<u8>) {
    let mut buffer = Vec::with_capacity(4_096);
    while let Some(offset) = tape.poll_write(&mut buffer) {
        let offset = offset as usize;
        assert!(offset <= file.len(), "no hole");
        file.resize(file.len().max(offset + buffer.len()), 0);
        file[offset..offset + buffer.len()].copy_from_slice(&buffer);
        tape.handle_written(buffer.len());
        if file[..4] == *b"RIFF" {
            check_wav(file);
        }
    }
}

/// Bytes of audio that a WAV file claims; no more than it has.
fn check_wav(file: &[u8]) -> usize {
    let head = Tape::resume_head_len();
    let claimed = u32::from_le_bytes(file[head - 4..head].try_into().expect("four bytes"));
    let riff = u32::from_le_bytes(file[4..8].try_into().expect("four bytes"));
    assert_eq!(riff as usize + 8, head + claimed as usize);
    assert!(head + claimed as usize <= file.len());
    claimed as usize
}

/// Every record is whole.
fn check_pcap(file: &[u8]) {
    let mut rest = &file[24..];
    while !rest.is_empty() {
        let len = u32::from_le_bytes(rest[8..12].try_into().expect("four bytes"));
        rest = &rest[16 + len as usize..];
    }
}

/// One of two formats.
fn format(choice: usize) -> AudioFormat {
    let (codec, clock_rate) = match choice % 2 {
        0 => (AudioCodec::Pcmu, ClockRateHz::NARROWBAND),
        _ => (AudioCodec::L16, ClockRateHz::OPUS),
    };
    AudioFormat {
        codec,
        payload_type: PayloadType::PCMU,
        clock_rate,
        channels: 1,
        packet_time: PacketTime::MS_20,
        opus: OpusOptions::default(),
    }
}
