//! Call progress: what a far end says in tones, because its signalling does not say it.
//!
//! | signal | is heard as | told |
//! |---|---|---|
//! | dial tone | one or two tones of 330 to 640 Hz without a pause | after 3 s |
//! | ringback | such a tone for 0.3 to 2.6 s, a pause of 1.2 to 6.5 s, the same again | 0.3 s into its second ring |
//! | busy | three such tones, equal pauses between them, 0.55 to 1.5 s from one to the next | with the end of the third |
//! | congestion | the same at less than 0.55 s, or two lengths in turn | with the end of the third or fourth |
//! | special information | 950, 1,400 and 1,800 Hz, one right after the other | with its end |
//! | fax that calls (CNG) | 1,100 Hz for half a second, alone | 120 ms after its end |
//! | fax that answers (CED) | 2,100 Hz | after 1 s |
//!
//! These are the limits of ITU-T E.180/Q.35 §§3-8 and T.30 §4.3.3.3, widened by what national
//! networks have (E.180 supplement 2): 425 Hz and its neighbours as well as the pairs of North
//! America, 350 + 440, 440 + 480 and 480 + 620 Hz, and the United Kingdom's 400 + 450 Hz.
//!
//! Left out: busy and congestion differ by nothing but pace, and where a network has its busy tone as
//! fast as others their congestion (Sweden, Spain) it is told as congestion. Tones of networks outside
//! 330 to 640 Hz are not known.
//!
//! Speech and music hold no tone so pure, so steady and in such a rhythm. A row of tones is told of
//! once, however long it lasts; after speech, or ten seconds of nothing, it is another row.

use trunkline_edge_api::ProgressSignal;

use super::hop_tone::{Hop, Hops};
use crate::audio::SampleRate;
use crate::outbox::Outbox;

mod cadence;
mod low_band;
mod single;

use cadence::Cadence;
use low_band::LowBand;
use single::SingleTones;
pub(super) use single::is_fax_calling;

/// Softest tone that is heard, dBm0 (ITU-T E.180 §2 has -25 at the receiving end of a chain).
pub const LEVEL_MIN_DBM0: f32 = -40.0;

/// A tone or a row of them that means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What it means.
    pub signal: ProgressSignal,
    /// What was heard, Hz: one tone, two at once, lowest first, or three in a row; 0 where there
    /// are fewer.
    pub frequencies_hz: [u16; 3],
}

/// See the module's description.
#[derive(Debug, Clone)]
pub struct ProgressDetector {
    hops: Hops,
    listener: Listener,
}

#[derive(Debug, Clone)]
struct Listener {
    low_band: LowBand,
    cadence: Cadence,
    single: SingleTones,
    /// What the present row was told to be.
    told: Option<ProgressSignal>,
    outbox: Outbox<Progress, 4>,
}

impl ProgressDetector {
    /// A detector that has heard nothing.
    #[must_use]
    pub fn new(sample_rate: SampleRate) -> Self {
        Self {
            hops: Hops::new(sample_rate, LEVEL_MIN_DBM0),
            listener: Listener {
                low_band: LowBand::new(),
                cadence: Cadence::new(),
                single: SingleTones::new(),
                told: None,
                outbox: Outbox::new(),
            },
        }
    }

    /// Takes the next samples, without gaps: where nothing was received, silence. The caller
    /// drains [`Self::poll_event`] afterwards.
    pub fn handle_audio(&mut self, pcm: &[i16]) {
        let listener = &mut self.listener;
        self.hops.feed(pcm, |hop, samples| {
            let low = listener.low_band.hear(samples, hop);
            listener.handle_hop(hop, low);
        });
    }

    /// What was heard, in order; `None` when there is nothing more to tell.
    pub fn poll_event(&mut self) -> Option<Progress> {
        self.listener.outbox.pop()
    }
}

impl Listener {
    fn handle_hop(&mut self, hop: Hop, low: Option<low_band::LowTone>) {
        let heard = [
            self.cadence.handle_hop(hop, low),
            self.single.handle_hop(hop),
        ];
        if self.cadence.has_row_ended() {
            self.told = None;
        }
        for progress in heard.into_iter().flatten() {
            if self.told.replace(progress.signal) != Some(progress.signal) {
                // Half a second lies between two signals; a caller that does not ask does not want
                // to know.
                let _ = self.outbox.push(progress);
            }
        }
    }
}

#[cfg(test)]
mod tests;
