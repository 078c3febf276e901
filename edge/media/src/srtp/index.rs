//! The packet index: a sequence number and how often it has wrapped (RFC 3711 §3.3.1).

/// An index has 48 bits: 32 of rollover counter, 16 of sequence number.
pub(super) const INDEX_MAX: u64 = (1 << 48) - 1;

/// The sequence number's half range.
const HALF: u16 = 1 << 15;

/// Why a sequence number has no index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoIndex {
    /// It would lie before the stream's first rollover.
    BeforeFirst,
    /// The rollover counter would wrap: the key is used up (RFC 3711 §9.2).
    Exhausted,
}

/// The most likely index of a packet numbered `sequence`, when `newest` is the stream's newest:
/// the algorithm of RFC 3711 §3.3.1 and its appendix A. A stream's first packet sets the rollover
/// counter to 0.
///
/// # Errors
/// See [`NoIndex`].
#[inline]
pub(super) fn estimate(newest: Option<u64>, sequence: u16) -> Result<u64, NoIndex> {
    let Some(newest) = newest else {
        return Ok(u64::from(sequence));
    };
    let newest_sequence = newest as u16;
    let rollovers = newest >> 16;
    let rollovers = if newest_sequence < HALF {
        if sequence.saturating_sub(newest_sequence) > HALF {
            rollovers.checked_sub(1).ok_or(NoIndex::BeforeFirst)?
        } else {
            rollovers
        }
    } else if newest_sequence - HALF > sequence {
        rollovers + 1
    } else {
        rollovers
    };
    let index = rollovers << 16 | u64::from(sequence);
    if index > INDEX_MAX {
        return Err(NoIndex::Exhausted);
    }
    Ok(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_is_estimated_by_table() {
        let at = |rollovers: u64, sequence: u64| Some(rollovers << 16 | sequence);
        let ok = |rollovers: u64, sequence: u64| Ok(rollovers << 16 | sequence);
        let rows = [
            ("first packet", None, 40_000, ok(0, 40_000)),
            ("next", at(0, 5), 6, ok(0, 6)),
            ("late", at(0, 5), 4, ok(0, 4)),
            ("wrap", at(0, 65_535), 0, ok(1, 0)),
            ("wrap with loss", at(0, 65_500), 300, ok(1, 300)),
            ("late over the wrap", at(1, 2), 65_530, ok(0, 65_530)),
            (
                "late over a wrap that never was",
                at(0, 2),
                65_530,
                Err(NoIndex::BeforeFirst),
            ),
            ("half ahead", at(3, 100), 100 + HALF, ok(3, 100 + 32_768)),
            (
                "more than half ahead is late",
                at(3, 100),
                101 + HALF,
                ok(2, 101 + 32_768),
            ),
            (
                "half behind",
                at(3, 40_000),
                40_000 - HALF,
                ok(3, 40_000 - 32_768),
            ),
            (
                "more than half behind wrapped",
                at(3, 40_000),
                39_999 - HALF,
                ok(4, 39_999 - 32_768),
            ),
            (
                "last of all",
                at(0xffff_ffff, 65_534),
                65_535,
                ok(0xffff_ffff, 65_535),
            ),
            (
                "after the last",
                at(0xffff_ffff, 65_535),
                0,
                Err(NoIndex::Exhausted),
            ),
        ];
        for (name, newest, sequence, expected) in rows {
            assert_eq!(estimate(newest, sequence), expected, "{name}");
        }
    }
}
