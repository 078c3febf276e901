//! What a caller hears in several countries: ITU-T E.180 with its supplement 2, ETSI TR 101 041,
//! ANSI T1.401.
//!
//! Each is one pass of its cadence; it is played in rounds until the call goes on. A tone without
//! pauses is a segment of [`CONTINUOUS_MILLIS`].

use trunkline_edge_api::{Tone, ToneSegment};

/// How long one round of a tone without pauses lasts, milliseconds.
pub const CONTINUOUS_MILLIS: u16 = 60_000;

/// Whose network it sounds like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TonePlan {
    /// Most of Europe: 425 Hz.
    Europe,
    /// The United Kingdom.
    UnitedKingdom,
    /// The United States and Canada.
    NorthAmerica,
}

impl TonePlan {
    /// All plans.
    pub const ALL: [Self; 3] = [Self::Europe, Self::UnitedKingdom, Self::NorthAmerica];
}

/// What a tone tells the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallTone {
    /// Digits may be dialled.
    Dial,
    /// The callee's phone rings.
    Ringback,
    /// The callee is in another call.
    Busy,
    /// There is no way to the callee at present; "reorder" in North America.
    Congestion,
    /// The special information tone: a recorded message about the number follows.
    SpecialInformation,
}

impl CallTone {
    /// All tones.
    pub const ALL: [Self; 5] = [
        Self::Dial,
        Self::Ringback,
        Self::Busy,
        Self::Congestion,
        Self::SpecialInformation,
    ];
}

/// One pass of `tone` as `plan` has it.
#[must_use]
pub fn preset(plan: TonePlan, tone: CallTone) -> Tone {
    use CallTone::{Busy, Congestion, Dial, Ringback, SpecialInformation};
    use TonePlan::{Europe, NorthAmerica, UnitedKingdom};
    const ON: u16 = CONTINUOUS_MILLIS;
    match (plan, tone) {
        (Europe, Dial) => cadence(&[(ON, 0, [425, 0])]),
        (Europe, Ringback) => cadence(&[(1_000, 4_000, [425, 0])]),
        (Europe, Busy) => cadence(&[(500, 500, [425, 0])]),
        (Europe, Congestion) => cadence(&[(250, 250, [425, 0])]),
        (UnitedKingdom, Dial) => cadence(&[(ON, 0, [350, 440])]),
        (UnitedKingdom, Ringback) => cadence(&[(400, 200, [400, 450]), (400, 2_000, [400, 450])]),
        (UnitedKingdom, Busy) => cadence(&[(375, 375, [400, 0])]),
        (UnitedKingdom, Congestion) => cadence(&[(400, 350, [400, 0]), (225, 525, [400, 0])]),
        (NorthAmerica, Dial) => cadence(&[(ON, 0, [350, 440])]),
        (NorthAmerica, Ringback) => cadence(&[(2_000, 4_000, [440, 480])]),
        (NorthAmerica, Busy) => cadence(&[(500, 500, [480, 620])]),
        (NorthAmerica, Congestion) => cadence(&[(250, 250, [480, 620])]),
        (_, SpecialInformation) => cadence(&[
            (330, 0, [950, 0]),
            (330, 0, [1_400, 0]),
            (330, 1_000, [1_800, 0]),
        ]),
    }
}

/// Segments of (on, off, frequencies) at the level that E.182 recommends.
fn cadence<const N: usize>(segments: &[(u16, u16, [u16; 2]); N]) -> Tone {
    let segments = segments.map(|(on_millis, off_millis, frequencies_hz)| ToneSegment {
        on_millis,
        off_millis,
        frequencies_hz,
    });
    Tone::new(&segments, Tone::LEVEL_DBM0).expect("every cadence above is within Tone's limits")
}
