//! What a peer's audio is, beside what it says.
//!
//! | module | what it tells |
//! |---|---|
//! | [`voice`] | [`ActivityDetector`]: when the peer begins and ends to speak |
//! | [`beep`] | [`BeepDetector`]: that an answering machine has begun to record |

pub mod beep;
pub mod voice;

pub use beep::{Beep, BeepDetector};
pub use voice::{ActivityDetector, ActivityEvent};
