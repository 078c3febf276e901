use proptest::prelude::*;
use trunkline_edge_api::{
    AudioFormat, ClockRateHz, ConferenceId, FilePath, LegIndex, OpusOptions, PacketTime,
    PayloadType, Recording, RecordingId, RecordingTracks, SessionId,
};

use super::*;
use crate::codec::{Decoder, Encoder};

mod loops;

fn format(codec: AudioCodec, millis: u8) -> AudioFormat {
    let (payload_type, clock_hz) = match codec {
        AudioCodec::Pcmu => (0, 8_000),
        AudioCodec::Pcma => (8, 8_000),
        AudioCodec::G722 => (9, 8_000),
        AudioCodec::L16 => (97, 16_000),
        AudioCodec::Opus => (111, 48_000),
    };
    AudioFormat {
        codec,
        payload_type: PayloadType::new(payload_type).expect("a payload type"),
        clock_rate: ClockRateHz::new(clock_hz).expect("a clock rate"),
        channels: 1,
        packet_time: PacketTime::from_millis(millis).expect("a packet time"),
        opus: OpusOptions::default(),
    }
}

fn pcmu() -> AudioFormat {
    format(AudioCodec::Pcmu, 20)
}

fn key(number: u64) -> MemberKey {
    (SessionId(number), LegIndex::A)
}

fn part() -> Membership {
    Membership {
        conference: ConferenceId(1),
        muted: false,
        deaf: false,
        whispers_to: None,
    }
}

fn conference() -> Conference {
    Conference::new(MEMBERS_MAX, Arc::new(Announcements::default()))
}

/// A conference of `count` PCMU members.
fn narrowband(count: u64) -> (Conference, Vec<MemberSlot>) {
    let mut conference = conference();
    let slots = (0..count)
        .map(|n| conference.join(key(n), &pcmu(), &part()))
        .collect::<Result<_, _>>()
        .expect("there is room");
    (conference, slots)
}

/// A frame that is unlike any of another seed.
fn voice(seed: u32, peak: i16, len: usize) -> Vec<i16> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let uniform = i32::from((state >> 16) as u16 as i16);
            (uniform * i32::from(peak) / 32_768) as i16
        })
        .collect()
}

/// What a member hears, whoever encodes it.
fn heard(conference: &mut Conference, slot: MemberSlot) -> Vec<i16> {
    match conference.output_for(slot) {
        MixOutput::Own(pcm) => pcm.to_vec(),
        MixOutput::Shared(_) => {
            let member = conference.members.get(slot).expect("a member");
            conference.heard(member.band, member.heard()).to_vec()
        }
    }
}

fn is_shared(conference: &Conference, slot: MemberSlot) -> bool {
    matches!(conference.output_for(slot), MixOutput::Shared(_))
}

fn sum_of(voices: &[Vec<i16>]) -> Vec<i16> {
    (0..voices[0].len())
        .map(|n| voices.iter().map(|voice| voice[n]).sum())
        .collect()
}

#[test]
fn everybody_hears_exactly_all_others() {
    let (mut conference, slots) = narrowband(6);
    for frame in 0..20 {
        let voices: Vec<_> = (0..4).map(|n| voice(frame * 10 + n, 5_000, 160)).collect();
        for (slot, voice) in slots.iter().zip(&voices) {
            conference.put(*slot, voice);
        }
        conference.mix();
        for (n, &slot) in slots.iter().enumerate() {
            let others: Vec<_> = (0..4)
                .filter(|&other| other != n)
                .map(|other| voices[other].clone())
                .collect();
            assert_eq!(heard(&mut conference, slot), sum_of(&others), "member {n}");
            assert_eq!(is_shared(&conference, slot), n >= 4, "member {n}");
        }
    }
    assert_eq!(conference.stats().own_outputs, 20 * 4);
}

#[test]
fn wideband_member_never_hears_itself_however_the_others_are_connected() {
    let mut conference = conference();
    let wide = format(AudioCodec::G722, 20);
    let speaker = conference.join(key(1), &wide, &part()).expect("room");
    let other = conference.join(key(2), &wide, &part()).expect("room");
    let narrow = conference.join(key(3), &pcmu(), &part()).expect("room");
    assert_eq!(Conference::rate_for(&wide), SampleRate::Hz16000);
    let mut energy = 0;
    for frame in 0..50 {
        let pcm = voice(frame, 8_000, 320);
        conference.put(speaker, &pcm);
        conference.mix();
        assert_eq!(heard(&mut conference, speaker), vec![0; 320]);
        assert_eq!(heard(&mut conference, other), pcm);
        let narrow = heard(&mut conference, narrow);
        assert_eq!(narrow.len(), 160);
        energy += narrow.iter().map(|&s| i64::from(s).pow(2)).sum::<i64>();
    }
    // White noise loses half of its power with its upper half band.
    let power = energy / (50 * 160);
    let whole = 8_000i64.pow(2) / 3;
    assert!(
        (whole / 3..whole * 2 / 3).contains(&power),
        "{power} of {whole}"
    );
}

#[test]
fn who_is_muted_is_heard_by_nobody_and_who_is_deaf_hears_nobody() {
    let (mut conference, slots) = narrowband(3);
    let muted = Membership {
        muted: true,
        ..part()
    };
    let deaf = Membership {
        deaf: true,
        ..part()
    };
    assert_eq!(conference.join(key(0), &pcmu(), &muted), Ok(slots[0]));
    assert_eq!(conference.join(key(1), &pcmu(), &deaf), Ok(slots[1]));
    let voices: Vec<_> = (0..3).map(|n| voice(n, 5_000, 160)).collect();
    for _ in 0..10 {
        for (slot, voice) in slots.iter().zip(&voices) {
            conference.put(*slot, voice);
        }
        conference.mix();
        let monitor = heard(&mut conference, slots[0]);
        assert_eq!(monitor, sum_of(&voices[1..]), "a monitor hears all");
        assert_eq!(heard(&mut conference, slots[1]), [0; 160]);
        assert!(is_shared(&conference, slots[0]) && is_shared(&conference, slots[1]));
        assert_eq!(heard(&mut conference, slots[2]), voices[1]);
    }
}

#[test]
fn voice_is_gone_with_the_mute_even_between_its_frame_and_the_mix() {
    let (mut conference, slots) = narrowband(3);
    for slot in &slots {
        conference.put(*slot, &voice(slot.index.into(), 5_000, 160));
    }
    let muted = Membership {
        muted: true,
        ..part()
    };
    conference.join(key(0), &pcmu(), &muted).expect("it is in");
    assert!(conference.leave(key(1)));
    conference.mix();
    assert_eq!(heard(&mut conference, slots[0]), voice(2, 5_000, 160));
    assert_eq!(heard(&mut conference, slots[2]), [0; 160]);
    assert_eq!(heard(&mut conference, slots[1]), [0; 160], "it has left");
}

#[test]
fn coach_is_heard_by_its_agent_alone_and_hears_everybody() {
    for agent_format in [pcmu(), format(AudioCodec::L16, 20)] {
        let mut conference = conference();
        let agent = conference
            .join(key(1), &agent_format, &part())
            .expect("room");
        let caller = conference.join(key(2), &pcmu(), &part()).expect("room");
        let whispers = Membership {
            whispers_to: Some(key(1)),
            ..part()
        };
        let coach = conference.join(key(3), &pcmu(), &whispers).expect("room");
        let recording = ConferenceSettings {
            announces: false,
            recording: Some(recording()),
        };
        conference.configure(&recording);
        let mut whispered = 0;
        for frame in 0..20 {
            conference.put(coach, &voice(frame, 5_000, 160));
            conference.mix();
            assert_eq!(heard(&mut conference, caller), [0; 160]);
            assert_eq!(heard(&mut conference, coach), [0; 160]);
            assert_eq!(conference.recording_mix(), Some(&[0; 160][..]));
            let pcm = heard(&mut conference, agent);
            whispered += u32::from(pcm.iter().any(|&sample| sample.abs() > 2_000));
            assert!(!is_shared(&conference, agent));
        }
        assert_eq!(whispered, 20);
        let said = voice(99, 5_000, 160);
        conference.put(caller, &said);
        conference.mix();
        assert_eq!(heard(&mut conference, coach), said);
        assert_eq!(conference.poll_event(), None, "a whisper makes no speaker");
    }
}

#[test]
fn whisper_waits_for_its_listener_and_ends_with_it() {
    let (mut conference, slots) = narrowband(2);
    let whispers = Membership {
        whispers_to: Some(key(7)),
        ..part()
    };
    conference
        .join(key(0), &pcmu(), &whispers)
        .expect("it is in");
    let said = voice(1, 5_000, 160);
    conference.put(slots[0], &said);
    conference.mix();
    assert_eq!(heard(&mut conference, slots[1]), [0; 160]);
    let listener = conference.join(key(7), &pcmu(), &part()).expect("room");
    conference.put(slots[0], &said);
    conference.mix();
    assert_eq!(heard(&mut conference, listener), said);
    conference.leave(key(7));
    conference.put(slots[0], &said);
    conference.mix();
    assert_eq!(heard(&mut conference, slots[1]), [0; 160]);
    let listener = conference.join(key(7), &pcmu(), &part()).expect("room");
    conference.mix();
    assert_eq!(heard(&mut conference, listener), [0; 160], "nothing old");
    conference.join(key(0), &pcmu(), &part()).expect("it is in");
    conference.put(slots[0], &said);
    conference.mix();
    assert_eq!(
        heard(&mut conference, slots[1]),
        said,
        "an open voice again"
    );
}

#[test]
fn hundred_shouting_members_saturate_without_wrapping() {
    let (mut conference, slots) = narrowband(100);
    let shout = [32_767i16; 160];
    for _ in 0..5 {
        for slot in &slots {
            conference.put(*slot, &shout);
        }
        conference.mix();
        for &slot in &slots {
            let pcm = heard(&mut conference, slot);
            assert!(pcm.iter().all(|&sample| sample > 32_000), "{pcm:?}");
        }
    }
    let soft = voice(1, 3_000, 160);
    for _ in 0..60 {
        conference.put(slots[0], &soft);
        conference.mix();
    }
    assert_eq!(
        heard(&mut conference, slots[1]),
        soft,
        "the gain has come back"
    );
}

#[test]
fn late_joiner_hears_from_the_next_frame_on_and_its_place_is_used_again() {
    let (mut conference, slots) = narrowband(2);
    let said = voice(1, 5_000, 160);
    conference.put(slots[0], &said);
    let late = conference.join(key(9), &pcmu(), &part()).expect("room");
    conference.mix();
    assert_eq!(heard(&mut conference, late), said);
    assert!(conference.leave(key(9)));
    assert!(!conference.leave(key(9)));
    let next = conference.join(key(10), &pcmu(), &part()).expect("room");
    assert_ne!(late, next);
    conference.put(late, &said);
    conference.mix();
    assert_eq!(heard(&mut conference, next), [0; 160]);
    assert_eq!(conference.output_for(late), MixOutput::Own(&[0; 160]));
    assert_eq!(conference.member_count(), 3);
}

#[test]
fn joining_again_changes_the_part_and_nothing_else() {
    let (mut conference, slots) = narrowband(2);
    conference.configure(&ConferenceSettings {
        announces: true,
        recording: None,
    });
    for _ in 0..3 {
        assert_eq!(conference.join(key(0), &pcmu(), &part()), Ok(slots[0]));
    }
    conference.mix();
    assert_eq!(heard(&mut conference, slots[1]), [0; 160], "no tone");
    assert_eq!(conference.member_count(), 2);
    assert_eq!(conference.stats().groups, 1);
    let wide = format(AudioCodec::G722, 20);
    assert_eq!(conference.join(key(0), &wide, &part()), Ok(slots[0]));
    assert_eq!(conference.stats().groups, 2);
    conference.put(slots[0], &voice(1, 5_000, 160));
    conference.mix();
    assert_eq!(conference.stats().talkers, 0, "that was no frame of 16 kHz");
    assert_eq!(heard(&mut conference, slots[0]).len(), 320);
}

#[test]
fn full_conference_refuses_who_is_not_in() {
    let mut conference = Conference::new(2, Arc::new(Announcements::default()));
    for n in 0..2 {
        conference.join(key(n), &pcmu(), &part()).expect("room");
    }
    assert_eq!(
        conference.join(key(2), &pcmu(), &part()),
        Err(JoinError::Full)
    );
    assert!(conference.join(key(1), &pcmu(), &part()).is_ok());
    let unknown = AudioFormat {
        channels: 9,
        ..pcmu()
    };
    let refused = conference.join(key(1), &unknown, &part());
    assert!(
        matches!(refused, Err(JoinError::Unsupported(_))),
        "{refused:?}"
    );
    assert_eq!(conference.member_count(), 2);
    conference.leave(key(0));
    assert!(conference.join(key(2), &pcmu(), &part()).is_ok());
}

#[test]
fn tones_tell_everybody_and_the_recording_of_who_joins_and_leaves() {
    let (mut conference, slots) = narrowband(1);
    let wide = format(AudioCodec::G722, 20);
    let wide = conference.join(key(8), &wide, &part()).expect("room");
    conference.configure(&ConferenceSettings {
        announces: true,
        recording: Some(recording()),
    });
    let tone_frames = |conference: &mut Conference| {
        (0..50)
            .map(|_| {
                conference.mix();
                let narrow = heard(conference, slots[0]).iter().any(|&s| s != 0);
                let wide = heard(conference, wide).iter().any(|&s| s != 0);
                let recorded = conference
                    .recording_mix()
                    .is_some_and(|mix| mix.iter().any(|&s| s != 0));
                assert!(narrow == wide && wide == recorded);
                u32::from(narrow)
            })
            .sum::<u32>()
    };
    assert_eq!(tone_frames(&mut conference), 0);
    conference.join(key(9), &pcmu(), &part()).expect("room");
    assert_eq!(tone_frames(&mut conference), 12);
    conference.leave(key(9));
    assert_eq!(tone_frames(&mut conference), 12);
}

#[test]
fn change_of_speaker_is_told_once() {
    let (mut conference, slots) = narrowband(3);
    let mut events = Vec::new();
    let mut speak = |conference: &mut Conference, member: usize, frames: u32| {
        for frame in 0..frames {
            conference.put(slots[member], &voice(frame, 6_000, 160));
            conference.mix();
            events.extend(conference.poll_event());
        }
    };
    speak(&mut conference, 0, 100);
    speak(&mut conference, 1, 100);
    // A line with nothing but noise is nobody.
    for frame in 0..200 {
        conference.put(slots[2], &voice(frame, 60, 160));
        conference.mix();
        events.extend(conference.poll_event());
    }
    conference.leave(key(1));
    let changed = |member| ConferenceEvent::SpeakerChanged(member);
    assert_eq!(
        events,
        [changed(Some(key(0))), changed(Some(key(1))), changed(None)]
    );
    assert_eq!(conference.poll_event(), None);
}

#[test]
fn speaker_that_leaves_or_is_muted_is_nobody_at_once() {
    for is_muted in [false, true] {
        let (mut conference, slots) = narrowband(2);
        for frame in 0..50 {
            conference.put(slots[0], &voice(frame, 6_000, 160));
            conference.mix();
        }
        assert!(conference.poll_event().is_some());
        if is_muted {
            let muted = Membership {
                muted: true,
                ..part()
            };
            conference.join(key(0), &pcmu(), &muted).expect("it is in");
        } else {
            conference.leave(key(0));
        }
        let nobody = ConferenceEvent::SpeakerChanged(None);
        assert_eq!(conference.poll_event(), Some(nobody));
    }
}

#[test]
fn who_listens_shares_one_encoder_per_format_and_hears_the_mix() {
    let mut conference = conference();
    let law_a = format(AudioCodec::Pcma, 20);
    let short = format(AudioCodec::Pcmu, 10);
    let long = format(AudioCodec::Pcmu, 60);
    let other_number = AudioFormat {
        payload_type: PayloadType::new(96).expect("a payload type"),
        ..pcmu()
    };
    let speaker = conference.join(key(0), &pcmu(), &part()).expect("room");
    let mut slots = Vec::new();
    for (n, format) in [pcmu(), other_number, law_a, short, long]
        .iter()
        .enumerate()
    {
        for member in 0..10 {
            let key = key(100 * n as u64 + member + 1);
            let slot = conference.join(key, format, &part()).expect("room");
            slots.push((slot, *format));
        }
    }
    assert_eq!(
        conference.stats().groups,
        4,
        "the payload type is no difference"
    );
    let said = voice(3, 8_000, 160);
    conference.put(speaker, &said);
    conference.mix();
    for (slot, format) in slots {
        let mut pcm = Vec::new();
        match conference.output_for(slot) {
            MixOutput::Own(own) => {
                assert_eq!(format, long, "60 ms are more than a frame");
                pcm.extend_from_slice(own);
            }
            MixOutput::Shared(group) => {
                let mut decoder = Decoder::new(&format, SampleRate::Hz8000).expect("ours");
                for payload in conference.shared_payloads(group) {
                    let mut out = [0; 160];
                    let len = decoder.decode(payload, &mut out).expect("ours");
                    pcm.extend_from_slice(&out[..len]);
                }
            }
        }
        assert_eq!(pcm.len(), 160, "{format:?}");
        for (&pcm, &said) in pcm.iter().zip(&said) {
            assert!(pcm.abs_diff(said) <= 260, "{pcm} for {said}");
        }
    }
    assert_eq!(conference.stats().shared_frames, 3);
}

#[test]
fn g722_member_shares_while_it_is_muted_and_finds_an_encoder_that_has_heard_everything() {
    let mut conference = conference();
    let g722 = format(AudioCodec::G722, 20);
    let slot = conference.join(key(1), &g722, &part()).expect("room");
    let speaker = conference.join(key(2), &pcmu(), &part()).expect("room");
    let mut own = Encoder::new(&g722, SampleRate::Hz16000).expect("ours");
    let mut decoder = Decoder::new(&g722, SampleRate::Hz16000).expect("ours");
    let tone = |n: u32| (9_000.0 * (n as f32 * std::f32::consts::TAU / 8.0).sin()) as i16;
    for frame in 0..120u32 {
        if frame == 100 {
            let muted = Membership {
                muted: true,
                ..part()
            };
            conference.join(key(1), &g722, &muted).expect("it is in");
        }
        let said: Vec<i16> = (160 * frame..160 * frame + 160).map(tone).collect();
        conference.put(speaker, &said);
        conference.mix();
        let mut payload = [0; 1_400];
        let len = match conference.output_for(slot) {
            MixOutput::Own(pcm) => {
                assert!(frame < 100);
                own.encode(pcm, &mut payload).expect("a frame")
            }
            MixOutput::Shared(group) => {
                assert!(frame >= 100);
                let shared = conference.shared_payloads(group).next().expect("one");
                payload[..shared.len()].copy_from_slice(shared);
                shared.len()
            }
        };
        let mut pcm = [0; 320];
        decoder.decode(&payload[..len], &mut pcm).expect("a frame");
        if frame >= 99 {
            let mixed = heard(&mut conference, slot);
            let power = |pcm: &[i16]| pcm.iter().map(|&s| f64::from(s).powi(2)).sum::<f64>();
            let ratio = power(&pcm) / power(&mixed);
            assert!((0.9..1.1).contains(&ratio), "{ratio} in frame {frame}");
        }
    }
}

#[cfg(feature = "opus")]
#[test]
fn opus_member_keeps_its_encoder_until_it_was_silent_for_two_seconds() {
    let mut conference = conference();
    let opus = format(AudioCodec::Opus, 20);
    let slot = conference.join(key(1), &opus, &part()).expect("room");
    let frames_own = |conference: &mut Conference| {
        (0..300)
            .map(|_| {
                conference.mix();
                u32::from(!is_shared(conference, slot))
            })
            .sum::<u32>()
    };
    assert_eq!(frames_own(&mut conference), 0);
    conference.put(slot, &voice(1, 5_000, 320));
    assert_eq!(frames_own(&mut conference), 100);
}

#[test]
fn recording_is_of_the_rate_asked_for() {
    let (mut conference, slots) = narrowband(2);
    assert_eq!(conference.recording_mix(), None);
    let mut settings = ConferenceSettings {
        announces: false,
        recording: Some(recording()),
    };
    for (format, len) in [
        (RecordingFormat::Wav8k, Some(160)),
        (RecordingFormat::Wav16k, Some(320)),
        (RecordingFormat::Pcap, None),
    ] {
        settings.recording.as_mut().expect("just set").format = format;
        conference.configure(&settings);
        let mut is_heard = false;
        for frame in 0..5 {
            conference.put(slots[0], &voice(frame, 5_000, 160));
            conference.mix();
            let mix = conference.recording_mix();
            assert_eq!(mix.map(<[i16]>::len), len);
            is_heard = mix.is_some_and(|mix| mix.iter().any(|&sample| sample > 2_000));
        }
        assert_eq!(is_heard, len.is_some());
    }
}

fn recording() -> Recording {
    Recording {
        id: RecordingId(1),
        path: FilePath::new("/tmp/mix.wav").expect("an absolute path"),
        format: RecordingFormat::Wav8k,
        tracks: RecordingTracks::Mixed,
        paused: false,
    }
}

type Voices = std::collections::BTreeMap<u64, Vec<i16>>;
type Parts = std::collections::BTreeMap<u64, Membership>;

/// A whisper that was put stays in its frame even if its speaker changes its part meanwhile, so
/// that frame ends first.
fn finish_whispers(conference: &mut Conference, parts: &Parts, said: &mut Voices) {
    if said
        .keys()
        .any(|speaker| parts[speaker].whispers_to.is_some())
    {
        conference.mix();
        said.clear();
    }
}

#[derive(Debug, Clone)]
enum Step {
    Join {
        key: u64,
        wide: bool,
        muted: bool,
        deaf: bool,
        whispers_to: Option<u64>,
    },
    Leave(u64),
    Put {
        key: u64,
        peak: i16,
    },
    Mix,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || 0u64..6;
    let step = prop_oneof![
        2 => (key(), any::<bool>(), any::<bool>(), any::<bool>(), proptest::option::of(key()))
            .prop_map(|(key, wide, muted, deaf, whispers_to)| Step::Join {
                key, wide, muted, deaf, whispers_to
            }),
        1 => key().prop_map(Step::Leave),
        6 => (key(), 100i16..=i16::MAX).prop_map(|(key, peak)| Step::Put { key, peak }),
        3 => Just(Step::Mix),
    ];
    proptest::collection::vec(step, 0..200)
}

proptest! {
    /// Whoever comes, goes, and changes its part: what is heard is what a mixer that adds everything
    /// up anew for each member would give, as long as all are of one band and below full scale.
    #[test]
    fn mix_is_that_of_the_plainest_mixer(steps in steps()) {
        let mut conference = conference();
        let mut parts = Parts::new();
        let mut said = Voices::new();
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Join { key: k, muted, deaf, whispers_to, .. } => {
                    finish_whispers(&mut conference, &parts, &mut said);
                    let part = Membership { muted, deaf, whispers_to: whispers_to.map(key), ..part() };
                    conference.join(key(k), &pcmu(), &part).expect("room");
                    let before = parts.insert(k, part);
                    let is_heard_as_before = before.is_some_and(|before| {
                        before.muted == muted && before.whispers_to == part.whispers_to
                    });
                    if !is_heard_as_before {
                        said.remove(&k);
                    }
                }
                Step::Leave(k) => {
                    finish_whispers(&mut conference, &parts, &mut said);
                    prop_assert_eq!(conference.leave(key(k)), parts.remove(&k).is_some());
                    said.remove(&k);
                }
                Step::Put { key: k, .. } => {
                    if let Some(slot) = conference.slot_of(key(k)) && !said.contains_key(&k) {
                        let pcm = voice(n as u32, 4_000, 160);
                        conference.put(slot, &pcm);
                        said.insert(k, pcm);
                    }
                }
                Step::Mix => {
                    conference.mix();
                    let mut wanted = Voices::new();
                    for (&k, part) in &parts {
                        let mut pcm = vec![0; 160];
                        for (other, voice) in &said {
                            let from = parts[other];
                            let is_heard = *other != k && !from.muted && match from.whispers_to {
                                Some(to) => to == key(k),
                                None => !part.deaf,
                            };
                            if is_heard {
                                pcm.iter_mut().zip(voice).for_each(|(sum, v)| *sum += v);
                            }
                        }
                        wanted.insert(k, pcm);
                    }
                    for (k, wanted) in wanted {
                        let slot = conference.slot_of(key(k)).expect("it is in");
                        prop_assert_eq!(heard(&mut conference, slot), wanted, "member {}", k);
                    }
                    said.clear();
                }
            }
        }
    }

    #[test]
    fn any_course_of_a_conference_of_both_bands_holds(steps in steps()) {
        let mut conference = conference();
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Join { key: k, wide, muted, deaf, whispers_to } => {
                    let codec = if wide { AudioCodec::G722 } else { AudioCodec::Pcmu };
                    let part = Membership { muted, deaf, whispers_to: whispers_to.map(key), ..part() };
                    conference.join(key(k), &format(codec, 20), &part).expect("room");
                }
                Step::Leave(k) => {
                    conference.leave(key(k));
                }
                Step::Put { key: k, peak } => {
                    if let Some(slot) = conference.slot_of(key(k)) {
                        let len = conference.members.get(slot).expect("it is in").input.len();
                        conference.put(slot, &voice(n as u32, peak, len));
                    }
                }
                Step::Mix => conference.mix(),
            }
            let count = conference.members.iter().count();
            prop_assert_eq!(count, conference.member_count());
            prop_assert_eq!(count, conference.counts.iter().sum::<usize>());
            prop_assert!(conference.stats().groups <= 4);
        }
    }
}
