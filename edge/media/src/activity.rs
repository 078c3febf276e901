//! What a peer's audio is, beside what it says.
//!
//! | module | what it tells |
//! |---|---|
//! | [`voice`] | [`ActivityDetector`]: when the peer begins and ends to speak |
//! | [`beep`] | [`BeepDetector`]: that an answering machine has begun to record |
//! | [`progress`] | [`ProgressDetector`]: dial tone, ringback, busy, congestion, announcements, fax |

pub mod beep;
mod hop_tone;
pub mod progress;
pub mod voice;

pub use beep::{Beep, BeepDetector};
pub use progress::{Progress, ProgressDetector};
pub use voice::{ActivityDetector, ActivityEvent};
