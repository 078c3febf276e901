//! What a listener would make of a leg: the E-model of ITU-T G.107 with everything that a relay
//! cannot know at its default, which leaves
//!
//! ```text
//!   R = 93.2 - Id - Ie,eff          MOS = 1 + 0.035 R + R (R - 60) (100 - R) 7e-6
//! ```
//!
//! - `Ie,eff = Ie + (95 - Ie) Ppl / (Ppl / BurstR + Bpl)` (G.107 §7.5), Ie and Bpl by codec
//!   (G.113 appendix I).
//! - `Id = 0.024 d + 0.11 (d - 177.3) H(d - 177.3)`, the usual fit of G.107 §7.4 for connections
//!   without audible echo, `d` the delay in one direction in ms. It applies when the round trip is
//!   known: then the score is conversational, else it is a listening one.
//!
//! The scale is that of narrowband telephony, which ends at 4.41: the scales of G.107.1 for
//! wideband would make calls of different codecs incomparable. Left out: what the listener's
//! jitter buffer throws away.

use trunkline_edge_api::PayloadType;

/// R of a connection without any impairment (G.107 table 2 with all defaults).
const R_UNIMPAIRED: f64 = 93.2;

/// What was heard of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// Of the newest packet.
    pub payload_type: PayloadType,
    /// RTP clock, Hz.
    pub clock_hz: u32,
    /// Packets that came.
    pub received: u64,
    /// Packets that did not.
    pub lost: u64,
    /// Times that one or more in a row were missing.
    pub gaps: u64,
    /// Interarrival jitter, microseconds.
    pub jitter_micros: u32,
}

/// How a codec takes loss.
#[derive(Debug, Clone, Copy, PartialEq)]
struct CodecImpairment {
    /// Equipment impairment factor without loss.
    ie: f64,
    /// Packet-loss robustness factor.
    bpl: f64,
}

impl CodecImpairment {
    /// G.711 with the packet-loss concealment of its appendix I. Also stands for what the table
    /// does not know and for G.722 and Opus, of which G.113 has no figures on the narrowband scale:
    /// both are at least as good.
    const G711: Self = Self { ie: 0.0, bpl: 25.1 };
    const GSM_FR: Self = Self {
        ie: 20.0,
        bpl: 43.0,
    };
    const G723_1: Self = Self {
        ie: 15.0,
        bpl: 16.1,
    };
    const G729: Self = Self {
        ie: 11.0,
        bpl: 19.0,
    };

    /// By static payload type (RFC 3551 table 4).
    fn of(payload_type: PayloadType) -> Self {
        match payload_type.get() {
            3 => Self::GSM_FR,
            4 => Self::G723_1,
            18 => Self::G729,
            _ => Self::G711,
        }
    }
}

/// Mean opinion score in hundredths, 100..=450. `rtt_micros` 0: not known.
#[must_use]
pub fn mos_centi(heard: &Heard, rtt_micros: u32) -> u16 {
    let r = R_UNIMPAIRED - delay_impairment(heard, rtt_micros) - loss_impairment(heard);
    (mos_of(r) * 100.0).round() as u16
}

/// Ie,eff.
fn loss_impairment(heard: &Heard) -> f64 {
    let codec = CodecImpairment::of(heard.payload_type);
    let expected = heard.received + heard.lost;
    if expected == 0 {
        return codec.ie;
    }
    let share = heard.lost as f64 / expected as f64;
    let percent = 100.0 * share;
    // Mean length of what was lost in a row, over what it would be were losses independent.
    let burst_len = heard.lost as f64 / heard.gaps.max(1) as f64;
    let burst_ratio = (burst_len * (1.0 - share)).max(1.0);
    codec.ie + (95.0 - codec.ie) * percent / (percent / burst_ratio + codec.bpl)
}

/// Id. The listener's buffer is taken to hold twice the jitter.
fn delay_impairment(heard: &Heard, rtt_micros: u32) -> f64 {
    if rtt_micros == 0 {
        return 0.0;
    }
    let one_way_micros = f64::from(rtt_micros) / 2.0 + 2.0 * f64::from(heard.jitter_micros);
    id_of(one_way_micros / 1_000.0)
}

fn id_of(one_way_ms: f64) -> f64 {
    0.024 * one_way_ms + 0.11 * (one_way_ms - 177.3).max(0.0)
}

/// G.107 annex B.
fn mos_of(r: f64) -> f64 {
    if r <= 0.0 {
        1.0
    } else if r >= 100.0 {
        4.5
    } else {
        // The cubic dips below 1 near R = 0.
        (1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn heard(payload_type: u8, received: u64, lost: u64, gaps: u64) -> Heard {
        Heard {
            payload_type: PayloadType::new(payload_type).expect("below 128"),
            clock_hz: 8_000,
            received,
            lost,
            gaps,
            jitter_micros: 0,
        }
    }

    /// G.107 annex B, table B.1.
    #[test]
    fn ratings_become_the_published_scores() {
        for (r, mos) in [
            (90.0, 4.34),
            (80.0, 4.03),
            (70.0, 3.60),
            (60.0, 3.10),
            (50.0, 2.58),
            (93.2, 4.41),
            (0.0, 1.0),
            (-20.0, 1.0),
            (100.0, 4.5),
        ] {
            assert!((mos_of(r) - mos).abs() < 0.01, "R {r}: {}", mos_of(r));
        }
    }

    /// (payload type, received, lost, gaps, Ie,eff), worked out by hand from the formula.
    #[test]
    fn loss_costs_what_the_formula_says() {
        for (payload_type, received, lost, gaps, expected) in [
            (0, 1_000, 0, 0, 0.0),
            // 5 %, single: 95 * 5 / (5 + 25.1)
            (0, 950, 50, 50, 15.781),
            (8, 950, 50, 50, 15.781),
            // 5 % in rows of four: BurstR 3.8, 95 * 5 / (5 / 3.8 + 25.1)
            (0, 9_500, 500, 125, 17.982),
            (18, 1_000, 0, 0, 11.0),
            // 11 + 84 * 2 / (2 + 19)
            (18, 980, 20, 20, 19.0),
        ] {
            let ie = loss_impairment(&heard(payload_type, received, lost, gaps));
            assert!((ie - expected).abs() < 0.001, "{payload_type} {lost}: {ie}");
        }
    }

    #[test]
    fn delay_costs_little_up_to_177_ms_and_much_beyond() {
        for (one_way_ms, id) in [(0.0, 0.0), (100.0, 2.4), (177.3, 4.2552), (300.0, 20.697)] {
            assert!((id_of(one_way_ms) - id).abs() < 1e-9, "{one_way_ms}");
        }
    }

    #[test]
    fn unknown_round_trip_gives_a_listening_score() {
        let clean = heard(0, 1_000, 0, 0);
        assert_eq!(mos_centi(&clean, 0), 441);
        assert_eq!(mos_centi(&clean, 600_000), 371);
        let jittery = Heard {
            jitter_micros: 40_000,
            ..clean
        };
        assert_eq!(mos_centi(&jittery, 0), 441);
        assert!(mos_centi(&jittery, 200_000) < mos_centi(&clean, 200_000));
    }

    proptest! {
        #[test]
        fn score_stays_on_its_scale_and_falls_with_loss(
            received in 0u64..1_000_000,
            lost in 0u64..1_000_000,
            gaps in 0u64..1_000_000,
            rtt_micros: u32,
            jitter_micros: u32,
            payload_type in 0u8..128,
        ) {
            let heard = Heard { jitter_micros, ..heard(payload_type, received, lost, gaps) };
            let score = mos_centi(&heard, rtt_micros);
            prop_assert!((100..=450).contains(&score));
            let worse = Heard { lost: lost + 1 + lost / 2, gaps: gaps.max(1), ..heard };
            let at_least_one_gap = Heard { gaps: gaps.max(1), ..heard };
            prop_assert!(mos_centi(&worse, rtt_micros) <= mos_centi(&at_least_one_gap, rtt_micros));
        }
    }
}
