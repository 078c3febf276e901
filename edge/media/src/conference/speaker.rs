//! Who is speaking: the loudest, once it has been for a while.

/// Softest speech that makes somebody the speaker, in a gate's sixteenths: 42 dB below full scale.
const LOUDNESS_MIN: u32 = 200 * 16;
/// How many times louder than the speaker somebody has to be to take over: 6 dB.
const TAKE_OVER_FACTOR: u32 = 2;
/// For how many frames in a row: 300 ms, so that a cough or an "mhm" is none.
const TAKE_OVER_FRAMES: u16 = 15;
/// Frames without anybody after which nobody speaks: 2 s.
const SILENT_FRAMES: u16 = 100;

/// Follows the loudest of a conference's members, named by their index.
#[derive(Debug, Clone, Default)]
pub(super) struct SpeakerDetector {
    speaker: Option<u16>,
    candidate: Option<u16>,
    /// How long the candidate, or nobody, has been the loudest.
    frames: u16,
}

impl SpeakerDetector {
    pub(super) fn speaker(&self) -> Option<u16> {
        self.speaker
    }

    /// Takes the loudness of everybody who was heard in a frame. Whether the speaker has changed.
    pub(super) fn frame(&mut self, heard: impl Iterator<Item = (u16, u32)>) -> bool {
        let mut loudest: Option<(u16, u32)> = None;
        let mut speaker_loudness = 0;
        for (member, loudness) in heard {
            if Some(member) == self.speaker {
                speaker_loudness = loudness;
            }
            if loudness >= LOUDNESS_MIN && loudest.is_none_or(|(_, most)| loudness > most) {
                loudest = Some((member, loudness));
            }
        }
        let candidate = match loudest {
            Some((member, _)) if Some(member) == self.speaker => {
                self.candidate = None;
                self.frames = 0;
                return false;
            }
            Some((member, loudness)) if loudness >= TAKE_OVER_FACTOR * speaker_loudness => {
                Some(member)
            }
            // The speaker is a little softer than somebody, and stays the speaker.
            Some(_) => {
                self.frames = 0;
                return false;
            }
            None => None,
        };
        if candidate != self.candidate {
            self.candidate = candidate;
            self.frames = 0;
        }
        self.frames = self.frames.saturating_add(1);
        let needed = if candidate.is_some() {
            TAKE_OVER_FRAMES
        } else {
            SILENT_FRAMES
        };
        if self.frames < needed || candidate == self.speaker {
            return false;
        }
        self.speaker = candidate;
        true
    }

    /// A member can no longer be the speaker. Whether it was.
    pub(super) fn forget(&mut self, member: u16) -> bool {
        if self.candidate == Some(member) {
            self.candidate = None;
            self.frames = 0;
        }
        let was_speaker = self.speaker == Some(member);
        if was_speaker {
            self.speaker = None;
        }
        was_speaker
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOUD: u32 = 1_000 * 16;

    fn frames(detector: &mut SpeakerDetector, count: u16, heard: &[(u16, u32)]) -> u16 {
        (0..count)
            .map(|_| u16::from(detector.frame(heard.iter().copied())))
            .sum()
    }

    #[test]
    fn speaker_is_who_was_loudest_for_300_ms() {
        let mut detector = SpeakerDetector::default();
        assert_eq!(frames(&mut detector, 14, &[(1, LOUD), (2, LOUD / 4)]), 0);
        assert_eq!(frames(&mut detector, 1, &[(1, LOUD), (2, LOUD / 4)]), 1);
        assert_eq!(detector.speaker(), Some(1));
        assert_eq!(frames(&mut detector, 100, &[(1, LOUD), (2, LOUD + 1)]), 0);
        assert_eq!(frames(&mut detector, 14, &[(1, LOUD), (2, 2 * LOUD)]), 0);
        assert_eq!(frames(&mut detector, 1, &[(1, LOUD), (2, 2 * LOUD)]), 1);
        assert_eq!(detector.speaker(), Some(2));
    }

    #[test]
    fn cough_does_not_take_over() {
        let mut detector = SpeakerDetector::default();
        frames(&mut detector, 20, &[(1, LOUD)]);
        for _ in 0..20 {
            assert_eq!(frames(&mut detector, 10, &[(1, LOUD), (2, 9 * LOUD)]), 0);
            assert_eq!(frames(&mut detector, 5, &[(1, LOUD)]), 0);
        }
        assert_eq!(detector.speaker(), Some(1));
    }

    #[test]
    fn two_seconds_of_silence_are_told_once() {
        let mut detector = SpeakerDetector::default();
        frames(&mut detector, 20, &[(1, LOUD)]);
        assert_eq!(frames(&mut detector, 99, &[(3, 10)]), 0);
        assert_eq!(frames(&mut detector, 1_000, &[]), 1);
        assert_eq!(detector.speaker(), None);
    }

    #[test]
    fn member_that_left_is_not_the_speaker() {
        let mut detector = SpeakerDetector::default();
        frames(&mut detector, 20, &[(1, LOUD)]);
        assert!(!detector.forget(2));
        assert!(detector.forget(1));
        assert_eq!(detector.speaker(), None);
    }
}
