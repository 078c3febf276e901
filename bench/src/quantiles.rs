//! Quantiles of a sample.

/// The usual ones, in the unit of the sample.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Quantiles {
    /// How many values there were.
    pub count: usize,
    /// Half lie at or below.
    pub p50: f64,
    /// 99 of 100 lie at or below.
    pub p99: f64,
    /// 999 of 1,000 lie at or below.
    pub p999: f64,
    /// The largest.
    pub max: f64,
}

impl Quantiles {
    /// Nearest-rank quantiles; `None` for an empty sample.
    #[must_use]
    pub fn of(mut sample: Vec<f64>) -> Option<Self> {
        sample.sort_unstable_by(f64::total_cmp);
        let rank = |share: f64| {
            let rank = (share * sample.len() as f64).ceil() as usize;
            sample.get(rank.clamp(1, sample.len().max(1)) - 1).copied()
        };
        Some(Self {
            count: sample.len(),
            p50: rank(0.5)?,
            p99: rank(0.99)?,
            p999: rank(0.999)?,
            max: rank(1.0)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_rank_of_a_thousand() {
        let sample = (1..=1_000).rev().map(f64::from).collect();
        let quantiles = Quantiles::of(sample).unwrap();
        assert_eq!(
            (quantiles.p50, quantiles.p99, quantiles.p999, quantiles.max),
            (500.0, 990.0, 999.0, 1_000.0)
        );
        assert_eq!(Quantiles::of(Vec::new()), None);
    }
}
