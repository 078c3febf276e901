//! What is heard when somebody joins or leaves.

use trunkline_edge_api::{Tone, ToneSegment};

use super::Band;
use crate::audio::SampleRate;
use crate::tone::ToneGenerator;

/// Longer tones are cut, milliseconds: they are heard over whoever speaks.
const LEN_MAX_MILLIS: u32 = 2_000;
/// Level of the tones used where none are given, dBm0: below a voice.
const LEVEL_DBM0: i8 = -18;
/// How long each half of them lasts, milliseconds.
const HALF_MILLIS: u16 = 120;
/// Their two notes, Hz: a fifth.
const NOTES_HZ: [u16; 2] = [440, 660];

/// The two tones, ready to be mixed. Made once and shared by all conferences of a worker.
#[derive(Debug)]
pub struct Announcements {
    joined: Clip,
    left: Clip,
}

/// A tone at both rates.
#[derive(Debug)]
struct Clip {
    narrow: Box<[i16]>,
    wide: Box<[i16]>,
}

impl Clip {
    fn new(tone: &Tone) -> Self {
        let rendered = |rate: SampleRate| {
            let mut samples = vec![0; rate.samples(LEN_MAX_MILLIS)];
            let len = ToneGenerator::new(tone, rate).fill(&mut samples);
            samples.truncate(len);
            samples.into_boxed_slice()
        };
        Self {
            narrow: rendered(SampleRate::Hz8000),
            wide: rendered(SampleRate::Hz16000),
        }
    }

    fn samples(&self, band: Band) -> &[i16] {
        match band {
            Band::Narrow => &self.narrow,
            Band::Wide => &self.wide,
        }
    }
}

impl Announcements {
    /// One pass of each tone's cadence, at most two seconds of it.
    #[must_use]
    pub fn new(joined: &Tone, left: &Tone) -> Self {
        Self {
            joined: Clip::new(joined),
            left: Clip::new(left),
        }
    }
}

impl Default for Announcements {
    /// A rising fifth for who joins, a falling one for who leaves.
    fn default() -> Self {
        let segment = |note: u16| ToneSegment {
            on_millis: HALF_MILLIS,
            off_millis: 0,
            frequencies_hz: [note, 0],
        };
        let [low, high] = NOTES_HZ.map(segment);
        let tone = |segments: [ToneSegment; 2]| {
            Tone::new(&segments, LEVEL_DBM0).expect("both notes and the level are in range")
        };
        Self::new(&tone([low, high]), &tone([high, low]))
    }
}

/// Which tone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Announcement {
    Joined,
    Left,
}

/// What a conference plays at the moment. Ten that join at once are told once: a tone that is
/// asked for while it plays is that tone.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Announcing {
    playing: Option<(Announcement, usize)>,
    /// The other one, when it was asked for meanwhile.
    next: Option<Announcement>,
}

impl Announcing {
    pub(super) fn start(&mut self, announcement: Announcement) {
        match self.playing {
            None => self.playing = Some((announcement, 0)),
            Some((playing, _)) if playing == announcement => {}
            Some(_) => self.next = Some(announcement),
        }
    }

    pub(super) fn stop(&mut self) {
        *self = Self::default();
    }

    /// Adds the present frame to a band's sum; `frame_len` is that band's.
    pub(super) fn add(&self, tones: &Announcements, band: Band, sum: &mut [i32]) {
        let Some((announcement, frames)) = self.playing else {
            return;
        };
        let samples = clip(tones, announcement).samples(band);
        let rest = samples.get(frames * sum.len()..).unwrap_or(&[]);
        for (sum, &sample) in sum.iter_mut().zip(rest) {
            *sum += i32::from(sample);
        }
    }

    /// Goes on to the next frame.
    pub(super) fn advance(&mut self, tones: &Announcements) {
        let Some((announcement, frames)) = self.playing else {
            return;
        };
        let frames = frames + 1;
        let is_over = frames * Band::Narrow.frame_len() >= clip(tones, announcement).narrow.len();
        self.playing = if is_over {
            self.next.take().map(|next| (next, 0))
        } else {
            Some((announcement, frames))
        };
    }
}

fn clip(tones: &Announcements, announcement: Announcement) -> &Clip {
    match announcement {
        Announcement::Joined => &tones.joined,
        Announcement::Left => &tones.left,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(announcing: &mut Announcing, tones: &Announcements) -> Vec<bool> {
        (0..40)
            .map(|_| {
                let mut sum = vec![0; Band::Wide.frame_len()];
                announcing.add(tones, Band::Wide, &mut sum);
                announcing.advance(tones);
                sum.iter().any(|&sample| sample != 0)
            })
            .collect()
    }

    #[test]
    fn tone_is_heard_once_however_many_join_at_once() {
        let tones = Announcements::default();
        let mut announcing = Announcing::default();
        for _ in 0..10 {
            announcing.start(Announcement::Joined);
        }
        let heard = heard(&mut announcing, &tones);
        assert_eq!(heard.iter().filter(|&&is_heard| is_heard).count(), 12);
    }

    #[test]
    fn who_leaves_meanwhile_is_told_afterwards() {
        let tones = Announcements::default();
        let mut announcing = Announcing::default();
        announcing.start(Announcement::Joined);
        announcing.start(Announcement::Left);
        let heard = heard(&mut announcing, &tones);
        assert_eq!(heard.iter().filter(|&&is_heard| is_heard).count(), 24);
    }
}
