//! Recorded speech: `tests/vectors/speech`, compiled in so that the demo runs from anywhere.

/// Octets of one 20 ms frame of G.711 at 8 kHz.
pub const FRAME_LEN: usize = 160;

/// G.711 µ-law speech in 20 ms frames.
#[derive(Debug, Clone, Copy)]
pub struct Speech {
    ulaw: &'static [u8],
}

/// What the calling side says, 5.6 s.
#[must_use]
pub fn caller() -> Speech {
    Speech {
        ulaw: include_bytes!("../../vectors/speech/caller.ulaw"),
    }
}

/// What the called side says, 5.6 s.
#[must_use]
pub fn callee() -> Speech {
    Speech {
        ulaw: include_bytes!("../../vectors/speech/callee.ulaw"),
    }
}

impl Speech {
    /// Whole frames in the recording.
    #[must_use]
    pub fn frame_count(self) -> usize {
        self.ulaw.len() / FRAME_LEN
    }

    /// Frame `index`; past the end the recording begins again.
    #[must_use]
    pub fn frame(self, index: usize) -> &'static [u8] {
        let start = index % self.frame_count() * FRAME_LEN;
        &self.ulaw[start..start + FRAME_LEN]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_frame_of_both_recordings_differs_from_every_other() {
        let frames: HashSet<&[u8]> = [caller(), callee()]
            .iter()
            .flat_map(|speech| (0..speech.frame_count()).map(|index| speech.frame(index)))
            .collect();
        assert_eq!(
            frames.len(),
            caller().frame_count() + callee().frame_count()
        );
    }

    #[test]
    fn recordings_last_more_than_five_seconds_and_repeat() {
        for speech in [caller(), callee()] {
            assert!(speech.frame_count() >= 250);
            assert_eq!(speech.frame(0), speech.frame(speech.frame_count()));
        }
    }
}
