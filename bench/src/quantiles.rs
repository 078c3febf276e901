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

    /// Nearest-rank quantiles of values that were counted in buckets of width 1 from 0 on; each is
    /// given as its bucket's upper end. The last bucket holds everything above, where only the
    /// largest value is known: `max`. `None` when nothing was counted.
    #[must_use]
    pub fn of_buckets(counts: &[u64], max: f64) -> Option<Self> {
        let count: u64 = counts.iter().sum();
        let rank = |share: f64| {
            let wanted = ((share * count as f64).ceil() as u64).max(1);
            let mut seen = 0;
            let bucket = counts.iter().position(|&in_bucket| {
                seen += in_bucket;
                seen >= wanted
            })?;
            let is_last = bucket + 1 == counts.len();
            Some(if is_last { max } else { (bucket + 1) as f64 })
        };
        Some(Self {
            count: count as usize,
            p50: rank(0.5)?,
            p99: rank(0.99)?,
            p999: rank(0.999)?,
            max,
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

    #[test]
    fn bucket_above_all_others_stands_for_the_largest_value() {
        let mut counts = [0; 100];
        counts[3] = 980;
        counts[50] = 15;
        counts[99] = 5;
        let quantiles = Quantiles::of_buckets(&counts, 7_000.0).unwrap();
        assert_eq!(
            (quantiles.p50, quantiles.p99, quantiles.p999, quantiles.max),
            (4.0, 51.0, 7_000.0, 7_000.0)
        );
        assert_eq!(Quantiles::of_buckets(&[0; 100], 0.0), None);
    }
}
