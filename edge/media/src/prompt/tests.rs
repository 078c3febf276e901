use std::f64::consts::PI;

use proptest::prelude::*;
use trunkline_edge_api::{
    AudioCodec, AudioFormat, ClockRateHz, OpusOptions, PacketTime, PayloadType, RawAudio, Refusal,
};

use super::resample::{output_len, resample};
use super::*;
use crate::codec::Decoder;
use crate::codec::g711::Law;

/// A WAV file in the making.
struct Wav {
    tag: u16,
    channels: u16,
    rate: u32,
    bits: u16,
    data: Vec<u8>,
}

impl Wav {
    fn pcm16(rate: u32, samples: &[i16]) -> Self {
        Self {
            tag: 1,
            channels: 1,
            rate,
            bits: 16,
            data: samples.iter().flat_map(|s| s.to_le_bytes()).collect(),
        }
    }

    fn format(&self) -> Vec<u8> {
        let align = self.channels * self.bits / 8;
        let mut out = Vec::new();
        out.extend(self.tag.to_le_bytes());
        out.extend(self.channels.to_le_bytes());
        out.extend(self.rate.to_le_bytes());
        out.extend((self.rate * u32::from(align)).to_le_bytes());
        out.extend(align.to_le_bytes());
        out.extend(self.bits.to_le_bytes());
        out
    }

    fn bytes(&self) -> Vec<u8> {
        riff(&[(b"fmt ", &self.format()), (b"data", &self.data)])
    }
}

fn chunk(id: &[u8; 4], size: u32, body: &[u8]) -> Vec<u8> {
    let mut out = id.to_vec();
    out.extend(size.to_le_bytes());
    out.extend(body);
    out
}

/// A file of whole chunks, padded as they must be.
fn riff(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let mut body = b"WAVE".to_vec();
    for (id, content) in chunks {
        body.extend(chunk(id, content.len() as u32, content));
        if content.len() % 2 == 1 {
            body.push(0);
        }
    }
    chunk(b"RIFF", body.len() as u32, &body)
}

fn parse(file: &[u8]) -> Result<Prompt, PromptError> {
    Prompt::parse(file, None, &PromptLimits::default())
}

fn sine(hz: f64, rate: u32, amplitude: f64, len: usize) -> Vec<i16> {
    let step = 2.0 * PI * hz / f64::from(rate);
    (0..len)
        .map(|n| (amplitude * (step * n as f64).sin()).round() as i16)
        .collect()
}

/// Amplitude of `hz` in `samples`.
fn level(samples: &[i16], hz: f64, rate: u32) -> f64 {
    let step = 2.0 * PI * hz / f64::from(rate);
    let (mut re, mut im) = (0.0, 0.0);
    for (n, &sample) in samples.iter().enumerate() {
        re += f64::from(sample) * (step * n as f64).cos();
        im += f64::from(sample) * (step * n as f64).sin();
    }
    2.0 * re.hypot(im) / samples.len() as f64
}

fn format(codec: AudioCodec, clock_rate_hz: u32, millis: u8) -> AudioFormat {
    AudioFormat {
        codec,
        payload_type: PayloadType::new(97).unwrap(),
        clock_rate: ClockRateHz::new(clock_rate_hz).unwrap(),
        channels: 1,
        packet_time: PacketTime::from_millis(millis).unwrap(),
        opus: OpusOptions::default(),
    }
}

#[test]
fn every_sample_coding_reads_as_the_same_ramp() {
    let ramp: Vec<i16> = (-100..100).map(|n| n * 256).collect();
    let pcm8: Vec<u8> = ramp.iter().map(|s| ((s >> 8) + 128) as u8).collect();
    let pcm24: Vec<u8> = ramp
        .iter()
        .flat_map(|s| [0x80, s.to_le_bytes()[0], s.to_le_bytes()[1]])
        .collect();
    let law = |law: Law| ramp.iter().map(|&s| law.encode(s)).collect::<Vec<u8>>();
    let rows = [
        ("8 bits", 1, 8, pcm8, 0),
        ("16 bits", 1, 16, Wav::pcm16(8_000, &ramp).data, 0),
        ("24 bits", 1, 24, pcm24, 0),
        ("A-law", 6, 8, law(Law::A), 520),
        ("µ-law", 7, 8, law(Law::Mu), 520),
    ];
    for (name, tag, bits, data, error_max) in rows {
        let (rate, channels) = (8_000, 1);
        let wav = Wav {
            tag,
            channels,
            rate,
            bits,
            data,
        };
        let prompt = parse(&wav.bytes()).expect(name);
        let samples = prompt.samples(SampleRate::Hz8000).unwrap();
        assert_eq!(samples.len(), ramp.len(), "{name}");
        for (got, expected) in samples.iter().zip(&ramp) {
            assert!(
                (got - expected).abs() <= error_max,
                "{name}: {got} {expected}"
            );
        }
        assert_eq!(prompt.samples(SampleRate::Hz16000), None, "{name}");
    }
}

#[test]
fn stereo_is_mixed_without_overflow_and_extensible_formats_are_known() {
    let frames: [[i16; 2]; 4] = [[30_000, 30_000], [-32_768, -32_768], [100, -100], [7, 0]];
    let data = frames.iter().flatten().flat_map(|s| s.to_le_bytes());
    let wav = Wav {
        tag: 0xfffe,
        channels: 2,
        rate: 8_000,
        bits: 16,
        data: data.collect(),
    };
    let mut format = wav.format();
    format.extend(22u16.to_le_bytes());
    format.extend(16u16.to_le_bytes());
    format.extend(3u32.to_le_bytes());
    format.extend([
        1, 0, 0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71,
    ]);
    let file = riff(&[(b"fmt ", &format), (b"data", &wav.data)]);
    let prompt = parse(&file).unwrap();
    let samples = prompt.samples(SampleRate::Hz8000).unwrap();
    assert_eq!(samples, [30_000, -32_768, 0, 3]);
    let last = format.len() - 1;
    format[last] = 0x72;
    let file = riff(&[(b"fmt ", &format), (b"data", &wav.data)]);
    let unknown = PromptError::UnknownCoding {
        tag: 0xfffe,
        bits: 16,
    };
    assert_eq!(parse(&file), Err(unknown));
}

#[test]
fn other_chunks_may_stand_anywhere_and_be_of_odd_size() {
    let wav = Wav::pcm16(8_000, &[1, 2, 3]);
    let file = riff(&[
        (b"JUNK", &[9; 27]),
        (b"fmt ", &wav.format()),
        (b"LIST", b"INFOx"),
        (b"data", &wav.data),
        (b"LIST", b"INFOISFT"),
        (b"id3 ", &[1; 5]),
    ]);
    let prompt = parse(&file).unwrap();
    assert_eq!(prompt.samples(SampleRate::Hz8000).unwrap(), [1, 2, 3]);
}

#[test]
fn sizes_that_were_not_known_when_they_were_written_reach_to_the_end() {
    let wav = Wav::pcm16(8_000, &[5; 100]);
    for size in [0u32, 0x7fff_f000, 0x7fff_ffff, 0xffff_ffff] {
        let mut body = b"WAVE".to_vec();
        body.extend(chunk(b"fmt ", 16, &wav.format()));
        body.extend(chunk(b"data", size, &wav.data));
        // The RIFF size lies too.
        let file = chunk(b"RIFF", size, &body);
        let prompt = parse(&file).unwrap_or_else(|error| panic!("{size:#x}: {error}"));
        assert_eq!(prompt.samples(SampleRate::Hz8000).unwrap(), [5; 100]);
    }
}

#[test]
fn an_odd_byte_at_the_end_is_no_sample() {
    let mut file = Wav::pcm16(8_000, &[5; 100]).bytes();
    file.pop();
    let prompt = parse(&file).expect("less than a sample is missing");
    assert_eq!(prompt.samples(SampleRate::Hz8000).unwrap().len(), 99);
}

#[test]
fn a_bad_file_is_refused_with_what_to_do_about_it() {
    let good = Wav::pcm16(8_000, &[1; 400]);
    let changed = |change: fn(&mut Wav)| {
        let mut wav = Wav::pcm16(8_000, &[1; 400]);
        change(&mut wav);
        wav.bytes()
    };
    let mut wrong_align = good.bytes();
    wrong_align[32] = 4;
    let cut = &good.bytes()[..good.bytes().len() - 300];
    let rows: [(&str, Vec<u8>, &str); 14] = [
        ("empty", Vec::new(), "no WAV"),
        ("MP3", b"ID3\x03 and much more of that".to_vec(), "no WAV"),
        ("RF64", b"RF64\xff\xff\xff\xffWAVEds64".to_vec(), "no WAV"),
        ("header alone", good.bytes()[..12].to_vec(), "format before"),
        ("no data chunk", good.bytes()[..36].to_vec(), "no audio"),
        ("no sample", changed(|wav| wav.data.clear()), "no audio"),
        (
            "audio before format",
            riff(&[(b"data", &[0; 8])]),
            "format before",
        ),
        ("short format", riff(&[(b"fmt ", &[1; 9])]), "format before"),
        (
            "cut",
            cut.to_vec(),
            "promises 800 bytes of audio and the file has 500",
        ),
        ("ADPCM", changed(|wav| wav.tag = 0x11), "encoding 0x0011"),
        ("float", changed(|wav| wav.tag = 3), "encoding 0x0003"),
        (
            "six channels",
            changed(|wav| wav.channels = 6),
            "6 channels",
        ),
        ("6 kHz", changed(|wav| wav.rate = 6_000), "6000 Hz"),
        ("contradiction", wrong_align, "says 4 bytes"),
    ];
    for (name, file, text) in rows {
        let error = parse(&file).expect_err(name);
        assert!(error.to_string().contains(text), "{name}: {error}");
        assert_eq!(error.refusal(), Refusal::PromptUnsupported, "{name}");
    }
}

#[test]
fn limits_are_judged_by_the_header_before_anything_is_converted() {
    let limits = PromptLimits {
        duration_max_secs: 2,
        bytes_max: 2 * (8_000 + 16_000),
    };
    let second = vec![0i16; 44_100];
    let parse = |seconds: usize| {
        let file = Wav::pcm16(44_100, &second.repeat(seconds)).bytes();
        Prompt::parse(&file, None, &limits)
    };
    assert_eq!(parse(1).unwrap().duration_millis(), 1_000);
    let too_large = PromptError::TooLarge {
        bytes: 96_000,
        max_bytes: 48_000,
    };
    assert_eq!(parse(2), Err(too_large));
    let too_long = PromptError::TooLong {
        secs: 3,
        max_secs: 2,
    };
    assert_eq!(parse(3), Err(too_long));
    assert_eq!(too_long.refusal(), Refusal::PromptTooLong);
    assert_eq!(too_large.refusal(), Refusal::PromptTooLong);
}

#[test]
fn files_without_header_are_what_the_caller_says() {
    let limits = PromptLimits::default();
    let raw = |codec, sample_rate_hz| {
        Some(RawAudio {
            codec,
            sample_rate_hz,
        })
    };
    let law: Vec<u8> = vec![Law::Mu.encode(1_000); 80];
    let prompt = Prompt::parse(&law, raw(AudioCodec::Pcmu, 8_000), &limits).unwrap();
    assert!((prompt.samples(SampleRate::Hz8000).unwrap()[40] - 1_000).abs() < 40);
    let linear = [0x34, 0x12, 0x34, 0x12, 0xff];
    let prompt = Prompt::parse(&linear, raw(AudioCodec::L16, 16_000), &limits).unwrap();
    assert_eq!(prompt.samples(SampleRate::Hz16000).unwrap(), [0x1234; 2]);
    assert_eq!(
        Prompt::parse(&law, raw(AudioCodec::Opus, 48_000), &limits),
        Err(PromptError::RawCodec(AudioCodec::Opus))
    );
    for (codec, rate) in [(AudioCodec::Pcmu, 8_000), (AudioCodec::G722, 16_000)] {
        let empty = Prompt::parse(&[], raw(codec, rate), &limits);
        assert_eq!(empty, Err(PromptError::NoAudio));
    }
    let wrong = Prompt::parse(&law, raw(AudioCodec::G722, 44_100), &limits);
    assert_eq!(wrong, Err(PromptError::SampleRate(44_100)));
}

#[test]
fn a_tone_keeps_its_level_and_nothing_folds_into_the_band() {
    for from in [11_025, 16_000, 22_050, 32_000, 44_099, 44_100, 48_000] {
        let input = sine(1_000.0, from, 10_000.0, from as usize);
        let output = resample(&input, from, 8_000);
        assert_eq!(output.len(), 8_000, "{from}");
        let middle = &output[1_000..7_000];
        let kept = level(middle, 1_000.0, 8_000);
        assert!((9_950.0..10_050.0).contains(&kept), "{from}: {kept}");
        // Above what 8 kHz can carry: it must vanish, wherever it would fold to.
        let above = sine(5_000.0, from, 10_000.0, from as usize);
        let output = resample(&above, from, 8_000);
        let peak = output[1_000..7_000].iter().map(|s| s.abs()).max().unwrap();
        assert!(peak <= 3, "{from}: {peak}");
    }
    let up = resample(&sine(1_000.0, 8_000, 10_000.0, 8_000), 8_000, 16_000);
    assert_eq!(up.len(), 16_000);
    let image = level(&up[2_000..14_000], 7_000.0, 16_000);
    assert!(image < 3.0, "{image}");
}

#[test]
fn a_click_stays_where_it_is() {
    let mut input = vec![0i16; 48_000];
    input[24_000] = 30_000;
    let output = resample(&input, 48_000, 8_000);
    let loudest = (0..output.len()).max_by_key(|&n| output[n].abs()).unwrap();
    assert_eq!(loudest, 4_000);
}

#[test]
fn an_encoded_prompt_decodes_to_itself_packet_by_packet() {
    let samples = sine(440.0, 8_000, 8_000.0, 8_000 + 50);
    let prompt = parse(&Wav::pcm16(8_000, &samples).bytes()).unwrap();
    for (codec, clock, millis, packets, step) in [
        (AudioCodec::Pcmu, 8_000, 20, 51, 160),
        (AudioCodec::Pcma, 8_000, 30, 34, 240),
        (AudioCodec::L16, 8_000, 10, 101, 80),
        (AudioCodec::L16, 16_000, 20, 51, 320),
    ] {
        let format = format(codec, clock, millis);
        let encoded = prompt.encode_for(&format).unwrap();
        assert_eq!(encoded.packet_count(), packets, "{codec:?}");
        assert_eq!(encoded.timestamp_step(), step, "{codec:?}");
        let mut decoder = Decoder::new(&format, SampleRate::Hz8000).unwrap();
        let mut heard = Vec::new();
        for index in 0..packets {
            let mut out = [0; 960];
            let len = decoder
                .decode(encoded.payload(index).unwrap(), &mut out)
                .unwrap();
            heard.extend_from_slice(&out[..len]);
        }
        assert_eq!(encoded.payload(packets), None);
        let kept = level(&heard[800..7_200], 440.0, 8_000);
        assert!((7_800.0..8_200.0).contains(&kept), "{codec:?}: {kept}");
        // Conversion to another rate delays what is heard.
        if clock == 8_000 {
            let tail = &heard[8_050..];
            assert!(
                tail.iter().all(|s| s.abs() < 16),
                "{codec:?}: silence fills the last packet"
            );
        }
    }
}

#[test]
fn legs_share_payloads_whatever_number_signalling_gave_the_format() {
    let mut one = format(AudioCodec::Pcmu, 8_000, 20);
    let mut other = one;
    other.payload_type = PayloadType::PCMU;
    other.opus.dtx = true;
    assert_eq!(PromptFormat::of(&one), PromptFormat::of(&other));
    other.packet_time = PacketTime::from_millis(30).unwrap();
    assert_ne!(PromptFormat::of(&one), PromptFormat::of(&other));
    one.codec = AudioCodec::Opus;
    let mut quiet = one;
    quiet.opus.dtx = true;
    assert_eq!(PromptFormat::of(&one), PromptFormat::of(&quiet));
    quiet.opus.in_band_fec = true;
    assert_ne!(PromptFormat::of(&one), PromptFormat::of(&quiet));
}

proptest! {
    #[test]
    fn pcm_reads_as_another_reader_reads_it(
        channels in 1u16..=2,
        wide in any::<bool>(),
        samples in proptest::collection::vec(any::<i16>(), 2..200),
    ) {
        let bits = if wide { 24 } else { 16 };
        let spec = hound::WavSpec {
            channels,
            sample_rate: 8_000,
            bits_per_sample: bits,
            sample_format: hound::SampleFormat::Int,
        };
        let mut file = std::io::Cursor::new(Vec::new());
        let mut writer = hound::WavWriter::new(&mut file, spec).unwrap();
        let frames = samples.len() / usize::from(channels);
        let samples = &samples[..frames * usize::from(channels)];
        for &sample in samples {
            let scaled = if wide { i32::from(sample) << 8 } else { i32::from(sample) };
            writer.write_sample(scaled).unwrap();
        }
        writer.finalize().unwrap();
        let prompt = parse(file.get_ref()).unwrap();
        let expected: Vec<i16> = samples
            .chunks(usize::from(channels))
            .map(|frame| {
                let sum: i32 = frame.iter().map(|&s| i32::from(s)).sum();
                (sum / i32::from(channels)) as i16
            })
            .collect();
        prop_assert_eq!(prompt.samples(SampleRate::Hz8000).unwrap(), &expected[..]);
    }

    #[test]
    fn no_bytes_are_too_strange(
        head in proptest::collection::vec(any::<u8>(), 0..60),
        tail in proptest::collection::vec(any::<u8>(), 0..300),
        is_wav in any::<bool>(),
    ) {
        let mut file = Vec::new();
        if is_wav {
            file.extend(b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0");
        }
        file.extend(head);
        file.extend(b"data");
        file.extend(tail);
        let _ = parse(&file);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_converted_length_is_what_was_announced(
        len in 1usize..2_000, from in 8_000u32..48_000, to in prop_oneof![Just(8_000u32), Just(16_000)],
    ) {
        prop_assert_eq!(resample(&vec![1; len], from, to).len(), output_len(len, from, to));
    }
}
