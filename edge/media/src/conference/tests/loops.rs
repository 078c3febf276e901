//! The worker's loop: packets of each member's own codec in, payloads of its own codec out.

use trunkline_edge_api::{AudioFormats, LegAudio, MonoTime, Ssrc};

use super::*;
use crate::clocked_input::{ClockedInput, ReadKind};
use crate::rtp::RtpHeader;

/// A member with its phone at the other end.
struct Phone {
    format: AudioFormat,
    slot: MemberSlot,
    input: ClockedInput,
    output: Encoder,
    /// The phone's own codec, at 8 kHz.
    microphone: Encoder,
    loudspeaker: Decoder,
    header: RtpHeader,
    tone_hz: f32,
    said: usize,
    /// What was heard and not looked at yet.
    heard: Vec<i16>,
    /// What is waiting for an encoder whose packets are longer than a frame.
    unsent: Vec<i16>,
}

impl Phone {
    fn join(conference: &mut Conference, number: u64, format: AudioFormat, tone_hz: f32) -> Self {
        let audio = LegAudio {
            receive: AudioFormats::new(vec![format]).expect("one format"),
            send: format,
            receive_events: None,
            send_events: None,
            comfort_noise: None,
        };
        let rate = Conference::rate_for(&format);
        Self {
            format,
            slot: conference
                .join(key(number), &format, &part())
                .expect("room"),
            input: ClockedInput::new(&audio, rate).expect("ours"),
            output: Encoder::new(&format, rate).expect("ours"),
            microphone: Encoder::new(&format, SampleRate::Hz8000).expect("ours"),
            loudspeaker: Decoder::new(&format, SampleRate::Hz8000).expect("ours"),
            header: RtpHeader {
                marker: false,
                payload_type: format.payload_type,
                sequence: 65_000,
                timestamp: 7,
                ssrc: Ssrc(number as u32),
                header_len: 12,
                payload_len: 0,
            },
            tone_hz,
            said: 0,
            heard: Vec::new(),
            unsent: Vec::new(),
        }
    }

    /// Sends what is said up to `now`, 8 samples per millisecond.
    fn say(&mut self, now: MonoTime, millis: usize, is_speaking: bool) {
        while self.said < 8 * millis + 1 {
            let len = self.microphone.packet_samples();
            let step = std::f32::consts::TAU * self.tone_hz / 8_000.0;
            let pcm: Vec<i16> = (self.said..self.said + len)
                .map(|n| (f32::from(is_speaking) * 9_000.0 * (n as f32 * step).sin()) as i16)
                .collect();
            self.said += len;
            let mut payload = [0; 1_400];
            let len = self.microphone.encode(&pcm, &mut payload).expect("fits");
            let _ = self.input.receive(now, &self.header, &payload[..len]);
            let millis = u32::from(self.format.packet_time.millis());
            self.header.sequence = self.header.sequence.wrapping_add(1);
            self.header.timestamp += self.format.clock_rate.get() / 1_000 * millis;
        }
    }

    fn hear(&mut self, payload: &[u8]) {
        let mut pcm = [0; 1_000];
        let len = self.loudspeaker.decode(payload, &mut pcm).expect("ours");
        self.heard.extend_from_slice(&pcm[..len]);
    }

    fn take_output(&mut self, conference: &mut Conference) {
        match conference.output_for(self.slot) {
            MixOutput::Shared(group) => {
                let payloads = conference.shared_payloads(group);
                payloads.for_each(|payload| self.hear(payload));
            }
            MixOutput::Own(pcm) => {
                self.unsent.extend_from_slice(pcm);
                while self.unsent.len() >= self.output.packet_samples() {
                    let pcm: Vec<i16> = self.unsent.drain(..self.output.packet_samples()).collect();
                    let mut payload = [0; 1_400];
                    let len = self.output.encode(&pcm, &mut payload).expect("fits");
                    self.hear(&payload[..len]);
                }
            }
        }
    }
}

/// Share of a tone in the power of `pcm`, and that power.
fn share_of(pcm: &[i16], hz: f32) -> (f32, f32) {
    let step = std::f32::consts::TAU * hz / 8_000.0;
    let (mut re, mut im, mut all) = (0.0, 0.0, 0.0);
    for (n, &sample) in pcm.iter().enumerate() {
        let sample = f32::from(sample);
        let angle = n as f32 * step;
        re += sample * angle.cos();
        im += sample * angle.sin();
        all += sample * sample;
    }
    let len = pcm.len() as f32;
    (2.0 * (re * re + im * im) / (len * all.max(1.0)), all / len)
}

#[test]
fn members_of_every_codec_hear_whoever_speaks_and_never_themselves() {
    let mut conference = conference();
    let formats = [
        format(AudioCodec::Pcmu, 20),
        format(AudioCodec::Pcma, 10),
        format(AudioCodec::G722, 20),
        format(AudioCodec::L16, 20),
        format(AudioCodec::Pcmu, 30),
        format(AudioCodec::Pcma, 60),
        #[cfg(feature = "opus")]
        format(AudioCodec::Opus, 20),
        #[cfg(feature = "opus")]
        format(AudioCodec::Opus, 60),
        format(AudioCodec::Pcmu, 20),
    ];
    let mut phones: Vec<Phone> = formats
        .iter()
        .enumerate()
        .map(|(n, format)| {
            Phone::join(&mut conference, n as u64, *format, 500.0 + 250.0 * n as f32)
        })
        .collect();
    let turn_frames = 150;
    for frame in 0..turn_frames * phones.len() {
        let now = MonoTime(1).plus_millis(20 * frame as u64);
        let speaker = frame / turn_frames;
        for (n, phone) in phones.iter_mut().enumerate() {
            phone.say(now, 20 * frame, n == speaker);
            let mut pcm = vec![0; phone.input.rate().samples(FRAME_MILLIS)];
            if phone.input.read(now, &mut pcm) != ReadKind::Silence {
                conference.put(phone.slot, &pcm);
            }
        }
        conference.mix();
        for phone in &mut phones {
            phone.take_output(&mut conference);
        }
        if frame % turn_frames < turn_frames - 1 {
            continue;
        }
        let spoken_hz = phones[speaker].tone_hz;
        for (n, phone) in phones.iter_mut().enumerate() {
            let heard = std::mem::take(&mut phone.heard);
            let last_second = &heard[heard.len() - 8_000..];
            let (share, power) = share_of(last_second, spoken_hz);
            if n == speaker {
                assert!(power < 100.0, "{:?} hears itself: {power}", phone.format);
            } else {
                assert!(
                    power > 1.0e7,
                    "{:?} hears too little: {power}",
                    phone.format
                );
                assert!(
                    share > 0.98,
                    "{:?} hears something else: {share}",
                    phone.format
                );
            }
        }
        let event = conference.poll_event();
        let member = key(speaker as u64);
        assert_eq!(event, Some(ConferenceEvent::SpeakerChanged(Some(member))));
    }
    for phone in &phones {
        assert_eq!(phone.input.stats().concealments, 0, "{:?}", phone.format);
    }
}

#[test]
fn hour_of_a_conference_with_clocks_that_drift_apart_loses_nothing() {
    let mut conference = conference();
    let mut phones: Vec<Phone> = (0..4)
        .map(|n| Phone::join(&mut conference, n, pcmu(), 400.0))
        .collect();
    for frame in 0..180_000u64 {
        let now = MonoTime(1).plus_millis(20 * frame);
        for (n, phone) in phones.iter_mut().enumerate() {
            // -200, -67, 67, 200 ppm.
            let millis = 20 * frame as i64;
            let said = millis + millis * (n as i64 * 400 / 3 - 200) / 1_000_000;
            phone.say(now, said as usize, frame / 50 % 4 == n as u64);
            let mut pcm = [0; 160];
            if phone.input.read(now, &mut pcm) != ReadKind::Silence {
                conference.put(phone.slot, &pcm);
            }
        }
        conference.mix();
        for phone in &phones {
            assert!(phone.input.stats().jitter.depth_millis <= 100);
        }
    }
    for phone in &phones {
        let stats = phone.input.stats();
        assert_eq!((stats.concealments, stats.jitter.late), (0, 0), "{stats:?}");
    }
}
